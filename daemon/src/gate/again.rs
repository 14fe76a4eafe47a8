//! A phantom namespace that outlived its gate: which one is taken up again, and that one gate at a time serves it.
//!
//! ```text
//!  launcher ── descriptor ──> daemon ──> new helper: whose is it? ── enters ──> alone in it? nothing but lo there?
//!                                                                                 └─> makes its device there anew
//! ```
//! Whoever asks may pass any descriptor, and the device's default routes would be those of whatever namespace it leads to. So
//! it must be one that a helper has made, for the same user: only who has power over the network in it can give lo the words
//! by which it is known, and no program there has. What an ordinary user does to one of her or his own is theirs to bear.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Owner, sys};
use crate::netlink::{LOOPBACK, Link, Netlink};

/// What the loopback device of every phantom namespace is called beside its name.
pub(super) const MARK: &str = "phantom";

/// The local socket of whoever serves a namespace, or ends it: a name without a file, which belongs to that network alone.
const SERVING: &[u8] = b"phantom-gate";

/// How long a helper before this one may still be busy with the end.
pub(super) const TURN: Duration = Duration::from_secs(3);

/// How long its device may stay after that; both are less than the daemon waits for this one.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Devices that kernels put into every new namespace, as far as they have these tunnels. Nothing goes by them until somebody who has the
/// power over the network switches them on.
const OF_KERNELS: [&[u8]; 9] =
    [b"tunl0", b"gre0", b"gretap0", b"erspan0", b"ip_vti0", b"ip6_vti0", b"sit0", b"ip6tnl0", b"ip6gre0"];

/// Why a namespace is not taken up.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("what was passed is no network namespace")]
    Other,
    #[error("the namespace that was passed is the daemon's own")]
    DaemonsOwn,
    #[error("the namespace that was passed was not made for this user")]
    OfOthers,
    #[error("the namespace that was passed is no phantom namespace, or has other devices or addresses")]
    Strange,
    #[error("another gate serves the namespace that was passed")]
    Served,
    #[error("taking the namespace up: {0}")]
    Io(#[from] io::Error),
}

/// Whether a descriptor is one of a network namespace. Asks nobody but the kernel, whatever it is.
pub(crate) fn is_network_namespace(descriptor: &OwnedFd) -> bool {
    // A file's name begins with a slash.
    fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
        .is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"net:["))
}

/// Whether both are the same namespace.
pub(crate) fn is_same(one: impl AsFd, other: impl AsFd) -> io::Result<bool> {
    let (one, other) = (rustix::fs::fstat(one)?, rustix::fs::fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Moves this thread into a network namespace that was made for `owner`; returns it, and the user namespace that owns it, if that is not
/// our own.
pub(super) fn enter(space: BorrowedFd<'_>, owner: Owner) -> Result<(OwnedFd, Option<OwnedFd>), Refused> {
    let users = whose(space, owner)?;
    let network = || move_into_link_name_space(space, Some(LinkNameSpaceType::Network));
    let entered = network().or_else(|error| match &users {
        // Not that of another user, who would have power over this process.
        Some(users) if owner == Owner::own() => {
            move_into_link_name_space(users.as_fd(), Some(LinkNameSpaceType::User))?;
            network()
        }
        _ => Err(error),
    });
    entered.map_err(io::Error::from)?;
    Ok((space.try_clone_to_owned()?, users))
}

/// The user namespace that owns the network namespace, if that is another than our own; for this user a helper makes no other kinds.
fn whose(space: BorrowedFd<'_>, owner: Owner) -> Result<Option<OwnedFd>, Refused> {
    if !sys::is_network(space).unwrap_or(false) {
        return Err(Refused::Other);
    }
    if is_same(space, own("net")?)? {
        return Err(Refused::DaemonsOwn);
    }
    let of_others = |_| Refused::OfOthers;
    let (users, ours) = (sys::owning_namespace(space).map_err(of_others)?, own("user")?);
    if is_same(&users, &ours)? {
        return if owner == Owner::own() { Ok(None) } else { Err(Refused::OfOthers) };
    }
    let parent = sys::parent_namespace(users.as_fd()).map_err(of_others)?;
    if !is_same(parent, ours)? || sys::owner_of(users.as_fd())? != owner.uid {
        return Err(Refused::OfOthers);
    }
    Ok(Some(users))
}

/// Of this thread.
fn own(kind: &str) -> io::Result<OwnedFd> {
    Ok(fs::File::open(format!("/proc/thread-self/ns/{kind}"))?.into())
}

/// Says to others that this process serves the network namespace in which it was made, as long as it lives, or ends it.
///
/// It keeps no two of them apart: that does the device, of which there is one. Any program there may take the name; then whoever comes
/// to serve has waited in vain for an end that nobody was at.
pub(super) struct Serving {
    _name: Option<OwnedFd>,
}

impl Serving {
    /// Waits until nobody else says so, at most until `end`.
    pub(super) fn begin(end: Instant) -> io::Result<Self> {
        let name = until(end, || {
            let name = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            match bind(&name, &SocketAddrUnix::new_abstract_name(SERVING)?) {
                Ok(()) => Ok(Some(name)),
                Err(Errno::ADDRINUSE) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })?;
        Ok(Self { _name: name })
    }
}

/// Whether the namespace in which this thread is is one that a helper has made.
pub(super) fn check_mark() -> Result<(), Refused> {
    let is_ours = Netlink::route()?.all_links(|link| link.index != LOOPBACK || link.alias == MARK.as_bytes())?;
    if is_ours { Ok(()) } else { Err(Refused::Strange) }
}

/// Waits until the namespace has nothing but the loopback device: that of the gate before goes when the last process ends that had it.
pub(super) fn await_emptiness(device: &str, end: Instant) -> Result<(), Refused> {
    let netlink = Netlink::route()?;
    let is_empty = || -> io::Result<Option<()>> {
        let is_alone =
            netlink.all_links(is_harmless)? && netlink.all_addresses(|address: IpAddr| address.is_loopback())?;
        Ok(is_alone.then_some(()))
    };
    if until(end, is_empty)?.is_some() {
        return Ok(());
    }
    let is_served = !netlink.all_links(|link| link.name != device.as_bytes())?;
    Err(if is_served { Refused::Served } else { Refused::Strange })
}

fn is_harmless(link: &Link<'_>) -> bool {
    link.index == LOOPBACK || (!link.is_up && OF_KERNELS.contains(&link.name))
}

fn until<T>(end: Instant, mut look: impl FnMut() -> io::Result<Option<T>>) -> io::Result<Option<T>> {
    loop {
        let seen = look()?;
        if seen.is_some() || Instant::now() > end {
            return Ok(seen);
        }
        std::thread::sleep(PAUSE);
    }
}
