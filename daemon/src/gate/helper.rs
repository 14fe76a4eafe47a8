//! The helper process: one thread that makes the phantom namespace and the gate's, makes sockets in them on
//! demand, and ends the programs' connections when the daemon is gone.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use phantom_proto::ident::ApAddress;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::again::{self, MARK, Serving};
use super::ending::{self, Ending};
use super::netns::{Reply, Request, encode_listeners, receive_request, send_reply};
use super::reflector::{DNS_PORT, HOME_V4, HOME_V6};
use super::{AGAIN_ARGUMENT, ENDING_ARGUMENT, Owner, owned, sys};
use crate::lines::Lines;
use crate::netlink::{LOOPBACK, Netlink};

/// Name of the TUN device; the only one that a program sees beside `lo`.
const DEVICE: &str = "phantom0";

/// The largest that IP allows: fewer and larger packets cost less.
const MTU: u32 = 65_535;

/// Packets that the device queues; a burst of many connections fits, memory stays bounded.
const QUEUE: u32 = 4_096;

/// Connections that wait for accept() in the gate's namespace.
const BACKLOG: i32 = 4_096;

/// A new address works within milliseconds, unless the machine is very busy.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(5);

/// Serves the daemon at descriptor 0 until it is gone; the exit status says whether set-up went well.
pub fn main() -> i32 {
    sys::outlive_signals();
    let what = std::env::args_os().nth(2);
    if what.as_ref().is_some_and(|what| what == ENDING_ARGUMENT) {
        return ending::of_a_killed_helper(DEVICE);
    }
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let socket = stdin.as_fd();
    let before = what.filter(|what| what == AGAIN_ARGUMENT).map(|_| stdout.as_fd());
    let Some(Request::SetUp(address, ipv4, owner)) = receive_request(socket) else {
        return 1;
    };
    let Ok(lines) = Lines::beside(socket) else { return 1 };
    let spaces = match Spaces::create(address, ipv4, owner, before) {
        Ok((spaces, descriptors)) => {
            let sent = send_reply(socket, Reply { descriptors, ..Reply::default() });
            if sent.is_err() {
                return 1;
            }
            spaces
        }
        Err(text) => {
            let _ = send_reply(socket, Reply { errno: libc::EPERM, data: text.into_bytes(), ..Reply::default() });
            return 1;
        }
    };
    let make = |domain, kind, protocol| spaces.program_socket(domain, kind, protocol);
    while lines.serve(make).is_ok() {
        let Some(request) = receive_request(socket) else { break };
        let reply = spaces
            .answer(request, &lines)
            .unwrap_or_else(|error| Reply { errno: error.raw_os_error().unwrap_or(libc::EIO), ..Reply::default() });
        if send_reply(socket, reply).is_err() {
            break;
        }
    }
    // Without this, programs would wait for packets that nobody carries any more.
    spaces.ending.come(DEVICE);
    0
}

/// Both namespaces.
struct Spaces {
    program: OwnedFd,
    gate: OwnedFd,
    /// Lists and aborts sockets of the phantom namespace.
    ending: Ending,
    /// Until all of them are aborted: whoever takes the namespace up waits for it.
    _serving: Serving,
}

impl Spaces {
    /// Makes both namespaces, or takes the phantom one of a gate `before` up; the descriptors are those that [`super::netns::Wires`]
    /// expects.
    fn create(
        address: ApAddress,
        ipv4: Ipv4Addr,
        owner: Owner,
        before: Option<BorrowedFd<'_>>,
    ) -> Result<(Self, Vec<OwnedFd>), String> {
        let _ = rustix::thread::set_no_new_privs(true);
        let (program, user) = match before {
            Some(space) => again::enter(space, owner).map_err(|refused| refused.to_string())?,
            None => program_namespace(owner)?,
        };
        let ending = Ending::here().map_err(|e| doing("opening sock_diag", &e))?;
        if before.is_some() {
            again::check_mark().map_err(|refused| refused.to_string())?;
        }
        let turn = Instant::now() + again::TURN;
        let serving = Serving::begin(turn).map_err(|e| doing("taking the turn", &e))?;
        if before.is_some() {
            let end = Instant::now() + again::PATIENCE;
            again::await_emptiness(DEVICE, end).map_err(|refused| refused.to_string())?;
            ending.make_up_for();
        }
        // A TUN device belongs to the namespace in which its driver was opened.
        let program_tun = tun_driver()?;
        configure_program(&program_tun, address, ipv4).map_err(|e| doing("configuring the phantom namespace", &e))?;
        sys::unshare(UnshareFlags::NEWNET).map_err(|e| doing("creating the gate's network namespace", &e))?;
        let gate = own_namespace("net")?;
        let gate_tun = tun_driver()?;
        let listener = configure_gate(&gate_tun).map_err(|e| doing("configuring the gate's namespace", &e))?;
        let copy = program.try_clone().map_err(|e| doing("copying a descriptor", &e))?;
        let descriptors = [program_tun, gate_tun, listener, copy].into_iter().chain(user).collect();
        Ok((Self { program, gate, ending, _serving: serving }, descriptors))
    }

    fn answer(&self, request: Request, lines: &Lines) -> io::Result<Reply> {
        let descriptor = match request {
            Request::SetUp(..) => return Err(io::ErrorKind::InvalidInput.into()),
            Request::Listeners => {
                let data = encode_listeners(&self.ending.listeners()?);
                return Ok(Reply { data, ..Reply::default() });
            }
            Request::LinesUsed => {
                let data = if lines.used() { vec![1] } else { Vec::new() };
                return Ok(Reply { data, ..Reply::default() });
            }
            Request::Line => lines.open()?,
            Request::GateSocket { v4 } => {
                let family = if v4 { AddressFamily::INET } else { AddressFamily::INET6 };
                let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
                keep_urgent(&socket)?;
                socket
            }
            Request::ProgramSocket(domain, kind, protocol) => self.program_socket(domain, kind, protocol)?,
        };
        Ok(Reply { descriptors: vec![descriptor], ..Reply::default() })
    }

    fn program_socket(&self, domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
        let invalid = |_| io::Error::from_raw_os_error(libc::EINVAL);
        let domain = AddressFamily::from_raw(u16::try_from(domain).map_err(invalid)?);
        let kind = u32::try_from(kind).map_err(invalid)?;
        let flags = SocketFlags::from_bits_retain(kind & (libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) as u32);
        let kind = SocketType::from_raw(kind & !flags.bits());
        // Multipath TCP becomes TCP: there is one path, and the far end of it is TCP.
        let protocol = if protocol == libc::IPPROTO_MPTCP { libc::IPPROTO_TCP } else { protocol };
        let protocol = NonZeroU32::new(u32::try_from(protocol).map_err(invalid)?).map(Protocol::from_raw);
        // Raw sockets could forge packets, packet sockets see all: a program may have what any user may have.
        if ![AddressFamily::INET, AddressFamily::INET6, AddressFamily::NETLINK].contains(&domain)
            || (domain != AddressFamily::NETLINK && ![SocketType::STREAM, SocketType::DGRAM].contains(&kind))
        {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        move_into_link_name_space(self.program.as_fd(), Some(LinkNameSpaceType::Network))?;
        let socket = rustix::net::socket_with(domain, kind, flags, protocol);
        move_into_link_name_space(self.gate.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(socket?)
    }
}

fn tun_driver() -> Result<OwnedFd, String> {
    sys::open_tun_driver().map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => {
                "Load the module (modprobe tun), or give the container the device (--device /dev/net/tun)"
            }
            io::ErrorKind::PermissionDenied => {
                "Run phantomd as a system service, or let users open it, who can do nothing with it outside namespaces of \
                 their own (as root: chmod 0666 /dev/net/tun; for good, a udev rule: KERNEL==\"tun\", MODE=\"0666\")"
            }
            _ => "Is the kernel built with CONFIG_TUN?",
        };
        format!("opening {}: {error}. {advice}", sys::TUN_DEVICE)
    })
}

/// Moves into a new network namespace that `owner` may enter; returns it, and the user namespace that owns it if there is
/// one.
fn program_namespace(owner: Owner) -> Result<(OwnedFd, Option<OwnedFd>), String> {
    if owner == Owner::own() {
        let user = new_network_namespace()?;
        return Ok((own_namespace("net")?, if user { Some(own_namespace("user")?) } else { None }));
    }
    let (network, user) = owned::namespaces(owner).map_err(|e| failed("making namespaces for a user", &e))?;
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|e| doing("entering the phantom namespace", &e.into()))?;
    Ok((network, Some(user)))
}

/// Moves into a new network namespace, and into a user namespace if there is no other way. Says whether it did that.
fn new_network_namespace() -> Result<bool, String> {
    match sys::unshare(UnshareFlags::NEWNET) {
        Ok(()) => return Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
        Err(error) => return Err(doing("creating a network namespace", &error)),
    }
    let owner = Owner::own();
    sys::unshare(UnshareFlags::NEWUSER).map_err(|e| failed("creating a user namespace", &e))?;
    owned::map_user("self", owner).map_err(|e| failed("mapping the user", &e))?;
    sys::unshare(UnshareFlags::NEWNET).map_err(|e| failed("creating a network namespace", &e))?;
    Ok(true)
}

/// One line for people: what was not permitted, and how to permit it.
fn failed(what: &str, error: &io::Error) -> String {
    format!(
        "{}. Allow user namespaces (sysctl user.max_user_namespaces=10000, kernel.unprivileged_userns_clone=1, \
         kernel.apparmor_restrict_unprivileged_userns=0, as far as they exist), or run phantomd as a system service; in \
         a container add --cap-add SYS_ADMIN --cap-add NET_ADMIN",
        doing(what, error)
    )
}

fn own_namespace(kind: &str) -> Result<OwnedFd, String> {
    let path = format!("/proc/self/ns/{kind}");
    fs::File::open(&path).map(OwnedFd::from).map_err(|error| format!("opening {path}: {error}. Is /proc mounted?"))
}

fn configure_program(tun: &OwnedFd, address: ApAddress, ipv4: Ipv4Addr) -> io::Result<()> {
    sysctls(&[
        ("ipv6/conf/all/disable_ipv6", "0"),
        ("ipv6/conf/default/disable_ipv6", "0"),
        ("ipv6/conf/all/accept_ra", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/default/autoconf", "0"),
        ("ipv4/ip_unprivileged_port_start", "0"),
    ])?;
    let addresses = [address.ipv6().into(), ipv4.into()];
    let (netlink, index) = configure_device(tun, &addresses)?;
    netlink.mark_loopback(MARK)?;
    // Where the kernel cannot, the reflector refuses them: the program learns it a little later. IPv6 comes first, for what
    // its rules say of tunnels holds for IPv4, too.
    let _ = addresses.iter().try_for_each(|address| netlink.refuse_datagrams(index, *address, DNS_PORT));
    Ok(())
}

/// Returns the socket that listens for flows.
fn configure_gate(tun: &OwnedFd) -> io::Result<OwnedFd> {
    sysctls(&[("ipv6/conf/all/disable_ipv6", "0"), ("ipv6/conf/default/disable_ipv6", "0")])?;
    configure_device(tun, &[HOME_V6.into(), HOME_V4.into()])?;
    let listener = std::net::TcpListener::bind("[::]:0")?;
    keep_urgent(&listener)?;
    // The standard library's backlog is small; listening again only changes it.
    rustix::net::listen(&listener, BACKLOG)?;
    listener.set_nonblocking(true)?;
    Ok(listener.into())
}

/// Urgent data has no place in a session: it stays in line with the rest, and no byte is lost.
fn keep_urgent(socket: impl AsFd) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_oobinline(socket, true)?)
}

/// Makes the device, gives it the addresses, and routes everything into it.
fn configure_device(tun: &OwnedFd, addresses: &[IpAddr]) -> io::Result<(Netlink, u32)> {
    sys::create_tun(tun, DEVICE)?;
    let netlink = Netlink::route()?;
    let any = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let index = rustix::net::netdevice::name_to_index(&any, DEVICE)?;
    netlink.link_up(LOOPBACK, None)?;
    netlink.link_up(index, Some((MTU, QUEUE)))?;
    for address in addresses {
        netlink.add_address(index, *address)?;
        await_address(*address)?;
        netlink.add_default_route(index, *address)?;
    }
    Ok((netlink, index))
}

/// Waits until the kernel, which does that a moment later for IPv6, routes the address to this namespace itself.
fn await_address(address: IpAddr) -> io::Result<()> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::DGRAM, None)?;
    let end = Instant::now() + ADDRESS_PATIENCE;
    // Sends nothing; there is no other route yet that it could take.
    while let Err(error) = rustix::net::connect(&socket, &SocketAddr::new(address, 9)) {
        if Instant::now() > end {
            return Err(error.into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Sets what is below /proc/sys/net for this namespace; where /proc is read-only (containers), through a fresh one.
fn sysctls(settings: &[(&str, &str)]) -> io::Result<()> {
    for (name, value) in settings {
        let path = format!("/proc/sys/net/{name}");
        // A value that holds already needs no writing.
        if fs::read_to_string(&path).is_ok_and(|now| now.split_whitespace().eq(value.split_whitespace())) {
            continue;
        }
        if fs::write(&path, value).is_err() {
            mount_proc()
                .and_then(|()| fs::write(&path, value))
                .map_err(|error| io::Error::new(error.kind(), format!("setting {path} to {value:?}: {error}")))?;
        }
    }
    Ok(())
}

fn mount_proc() -> io::Result<()> {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    sys::unshare(UnshareFlags::NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("proc", "/proc", "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)?;
    Ok(())
}

fn doing(what: &str, error: &io::Error) -> String {
    format!("{what}: {error}")
}
