//! Names of all local sockets of this network, as the kernel lists them (sock_diag(7)), each apart: in /proc/net/unix a line feed in a
//! name begins a line, so that anybody can write lines for others there.
//!
//! A listing comes in parts. Between two of them the kernel remembers how many sockets of a bucket it has told, and not which: when one
//! of these goes meanwhile, another is passed over that was there all the time. It says nothing of that (NLM_F_DUMP_INTR is for listings
//! with generations, which these have not), so it is asked until nobody new is told.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

/// The kernel answers at once or never.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// How often it is asked at most: whoever has others come all the time delays a start only so much.
const ROUNDS: usize = 8;

const AF_UNIX: u8 = 1;
const UDIAG_SHOW_NAME: u32 = 1;
const UNIX_DIAG_NAME: u16 = 0;

/// Bytes of a message's header, of a unix_diag_msg, and of an attribute's header.
const HEADER: usize = 16;
const SOCKET: usize = 16;
const ATTRIBUTE: usize = 4;

/// Names as they stand in addresses, each once: those of no file begin with a zero byte.
///
/// # Errors
/// Also when the kernel has no such lists (`CONFIG_UNIX_DIAG`).
pub(crate) fn names() -> io::Result<BTreeSet<Vec<u8>>> {
    names_seen(&mut |_| ())
}

/// The same; `seen` hears after each part who has been told so far.
fn names_seen(seen: &mut dyn FnMut(&BTreeSet<Vec<u8>>)) -> io::Result<BTreeSet<Vec<u8>>> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    let mut names = BTreeSet::new();
    for round in 0..ROUNDS {
        let before = names.len();
        let parts = list(&socket, &mut names, seen)?;
        // Within one part nobody is passed over; and twice the same ones are hardly so by chance.
        if parts <= 1 || round > 0 && names.len() == before {
            break;
        }
    }
    Ok(names)
}

/// Adds what one listing tells; in how many parts sockets came.
fn list(
    socket: &OwnedFd,
    names: &mut BTreeSet<Vec<u8>>,
    seen: &mut dyn FnMut(&BTreeSet<Vec<u8>>),
) -> io::Result<usize> {
    send(socket, &request(), SendFlags::empty())?;
    let (mut parts, mut room) = (0, vec![0; 64 * 1024]);
    loop {
        let (length, _) = recv(socket, &mut room[..], RecvFlags::empty())?;
        if read(&room[..length], names)? {
            return Ok(parts);
        }
        parts += 1;
        seen(names);
    }
}

/// All sockets in all states, with their names.
fn request() -> Vec<u8> {
    let body: [&[u8]; 5] =
        [&[AF_UNIX, 0, 0, 0], &u32::MAX.to_ne_bytes(), &[0; 4], &UDIAG_SHOW_NAME.to_ne_bytes(), &[0xff; 8]];
    let length = HEADER + body.concat().len();
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes();
    let kind = SOCK_DIAG_BY_FAMILY.to_ne_bytes();
    let flags = (NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes();
    [&length[..], &kind, &flags, &[0; 8], &body.concat()].concat()
}

/// Takes the names out of some messages; whether that was the end.
fn read(mut messages: &[u8], names: &mut BTreeSet<Vec<u8>>) -> io::Result<bool> {
    while let Some((header, _)) = messages.split_first_chunk::<HEADER>() {
        let size = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let payload = messages.get(HEADER..size).ok_or(ErrorKind::InvalidData)?;
        match u16::from_ne_bytes([header[4], header[5]]) {
            // Also the end says why, if it came too early.
            kind @ (NLMSG_DONE | NLMSG_ERROR) => {
                let code = payload.first_chunk().ok_or(ErrorKind::InvalidData)?;
                return match i32::from_ne_bytes(*code) {
                    0.. if kind == NLMSG_DONE => Ok(true),
                    code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                };
            }
            SOCK_DIAG_BY_FAMILY => names.extend(name(payload.get(SOCKET..).unwrap_or_default())),
            _ => {}
        }
        messages = messages.get(size.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// The name among a socket's attributes.
fn name(mut attributes: &[u8]) -> Option<Vec<u8>> {
    loop {
        let header = attributes.first_chunk::<ATTRIBUTE>()?;
        let size = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = attributes.get(ATTRIBUTE..size)?;
        if u16::from_ne_bytes([header[2], header[3]]) == UNIX_DIAG_NAME {
            return Some(value.to_vec());
        }
        attributes = attributes.get(size.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::UnixListener;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    #[test]
    fn names_are_as_they_were_given_however_odd() {
        let folder = tempfile::tempdir().expect("a folder");
        let odd = folder.path().join("a\n0000000000000000: 00000002 00000000 00010000 0001 01 19 @b c");
        let _listening = UnixListener::bind(&odd).expect("a socket");
        let names = names().expect("the kernel tells");
        assert!(names.iter().any(|name| name.strip_suffix(b"\0") == Some(odd.as_os_str().as_bytes())));
    }

    /// Some twelve to a bucket of the kernel's, so that most parts end within one.
    const MANY: usize = 3000;

    #[test]
    fn who_goes_while_sockets_are_listed_hides_nobody_who_stays() {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("as far as may be");
        let folder = tempfile::tempdir().expect("a folder");
        // As long as names may be: many parts.
        let bound = |number: usize| {
            let name = folder.path().join(format!("{number:0>60}"));
            let listener = UnixListener::bind(&name).expect("a socket");
            ([name.as_os_str().as_bytes(), b"\0"].concat(), listener)
        };
        let mut listening: BTreeMap<_, _> = (0..MANY).map(bound).collect();
        let mut parts = 0;
        let names = names_seen(&mut |told| {
            parts += 1;
            // In the first listing the kernel is a part ahead: some of those in it go, whichever they are.
            if parts <= 8 {
                let mut unseen = 0;
                listening.retain(|name, _| {
                    unseen += usize::from(!told.contains(name));
                    unseen % 4 != 1 || told.contains(name)
                });
            }
        });
        let names = names.expect("the kernel tells");
        let passed_over = listening.keys().filter(|name| !names.contains(*name)).count();
        assert_eq!((passed_over, parts > 2), (0, true), "of {} in {parts} parts", listening.len());
    }

    #[test]
    fn what_is_cut_off_is_no_message() {
        let mut names = BTreeSet::new();
        let done = |code: i32| [20_u32.to_ne_bytes().as_slice(), &[3, 0, 0, 0], &[0; 8], &code.to_ne_bytes()].concat();
        assert!(read(&done(0), &mut names).expect("the end"));
        assert!(read(&done(-libc::ENOBUFS), &mut names).is_err(), "it came too early");
        assert!(!read(&[], &mut names).expect("more comes"));
        assert!(read(&done(0)[..18], &mut names).is_err());
        assert!(read(&[0; 16], &mut names).is_err());
        assert!(names.is_empty());
    }
}
