//! The daemon's side of the hook's dialect, with a few names, in threads; and what else answers in a world.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use phantom_ipc::hook::{Call, HEADER, PREAMBLE, Reply, Request, SocketName, body_length};
use rustix::net::{
    AddressFamily, Protocol, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, sendmsg, socket_with,
};

use super::Seen;

/// Where web.phantom is.
pub(crate) const ADDRESS: [u8; 16] = [0xfd, 0x70, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub(crate) const IPV4: [u8; 4] = [198, 18, 0, 1];

/// Listens at `path`; each connection is a thread, in the namespace of the caller.
pub(crate) fn listen(path: &Path, seen: &Arc<Seen>) {
    let listener = UnixListener::bind(path).unwrap();
    let seen = Arc::clone(seen);
    thread::spawn(move || {
        for connection in listener.incoming() {
            let seen = Arc::clone(&seen);
            seen.connections.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || connection.map(|connection| converse(connection, &seen)));
        }
    });
}

/// Listens at `path`; whatever is asked, the answer is `reply`, and then nothing.
pub(crate) fn answer_always(path: &Path, reply: &'static [u8]) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let _ = connection.and_then(|mut line| {
                // The whole request, so that closing does not reset the connection.
                let _ = line.read(&mut [0; 4096])?;
                line.write_all(reply)
            });
        }
    });
}

/// Answers until the other end closes.
fn converse(mut line: UnixStream, seen: &Arc<Seen>) {
    let mut preamble = [0; PREAMBLE.len()];
    if line.read_exact(&mut preamble).is_err() || preamble != PREAMBLE {
        return;
    }
    talk(line, seen);
}

fn talk(mut line: UnixStream, seen: &Arc<Seen>) {
    let mut header = [0; HEADER];
    while line.read_exact(&mut header).is_ok() {
        let mut body = vec![0; body_length(header).unwrap()];
        line.read_exact(&mut body).unwrap();
        let request = Request::decode(&body).unwrap();
        seen.requests.lock().unwrap().push(request.clone());
        let (reply, descriptor) = match request {
            Request::Line { .. } if !seen.midst.is_wanted() => kept_line(seen),
            request => answer(&request),
        };
        seen.midst.strike(&line);
        send(&line, &reply, descriptor);
    }
}

/// A line that a process keeps, whose other end is a thread.
fn kept_line(seen: &Arc<Seen>) -> (Reply, Option<OwnedFd>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let seen = Arc::clone(seen);
    thread::spawn(move || talk(ours, &seen));
    (Reply::Descriptor, Some(theirs.into()))
}

fn send(line: &UnixStream, reply: &Reply, descriptor: Option<OwnedFd>) {
    let frame = reply.encode().unwrap();
    let descriptors: Vec<_> = descriptor.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(beside.push(SendAncillaryMessage::ScmRights(&descriptors)));
    }
    // A victim that is gone does not care.
    let _ = sendmsg(line, &[IoSlice::new(&frame)], &mut beside, SendFlags::NOSIGNAL);
}

fn answer(request: &Request) -> (Reply, Option<OwnedFd>) {
    match request {
        Request::Socket { domain, kind, protocol, .. } => socket(*domain, *kind, *protocol),
        Request::Resolve { name, .. } => (resolve(name), None),
        Request::Reverse { address, .. } if [IpAddr::from(ADDRESS), IpAddr::from(IPV4)].contains(address) => {
            (Reply::Name("web.phantom".to_owned()), None)
        }
        Request::Reverse { .. } => (Reply::NotFound, None),
        Request::Emulated { call, .. } => emulated(call),
        Request::Info { .. }
        | Request::Enter { .. }
        | Request::Publish { .. }
        | Request::Follow { .. }
        | Request::ProgramSocket { .. }
        | Request::Lend { .. }
        | Request::Loopback { .. }
        | Request::Line { .. }
        | Request::Hold { .. } => (Reply::failed(libc::ENOSYS, "not in this test"), None),
    }
}

fn socket(domain: i32, kind: i32, protocol: i32) -> (Reply, Option<OwnedFd>) {
    let flags = SocketFlags::from_bits_retain(kind as u32 & !0xf) | SocketFlags::CLOEXEC;
    let protocol = std::num::NonZero::new(protocol as u32).map(Protocol::from_raw);
    let kind = SocketType::from_raw(kind as u32 & 0xf);
    match socket_with(AddressFamily::from_raw(domain as u16), kind, flags, protocol) {
        Ok(socket) => (Reply::Descriptor, Some(socket)),
        Err(error) => (Reply::failed(error.raw_os_error(), "no such socket"), None),
    }
}

/// A daemon that emulates, and says yes to everything.
fn emulated(call: &Call) -> (Reply, Option<OwnedFd>) {
    static SOCKETS: AtomicU64 = AtomicU64::new(1);
    match call {
        Call::Open { .. } => {
            let name = SocketName { socket: SOCKETS.fetch_add(1, Ordering::SeqCst), v6: true, stream: true };
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
            rustix::net::bind(&socket, &SocketAddrUnix::new_abstract_name(&name.encode()).unwrap()).unwrap();
            (Reply::Descriptor, Some(socket))
        }
        Call::Name | Call::Peer => (Reply::Address((ADDRESS, 80).into()), None),
        _ => (Reply::Done, None),
    }
}

fn resolve(name: &str) -> Reply {
    match name.to_ascii_lowercase().as_str() {
        "web.phantom" => Reply::Addresses { v6: Some(ADDRESS), v4: Some(IPV4) },
        "six.phantom" => Reply::Addresses { v6: Some(ADDRESS), v4: None },
        "four.phantom" => Reply::Addresses { v6: None, v4: Some(IPV4) },
        "later.phantom" => Reply::failed(libc::EAGAIN, "not now"),
        "broken.phantom" => Reply::failed(libc::EIO, "not ever"),
        _ => Reply::NotFound,
    }
}

/// Says that every name does not exist, and counts.
pub(crate) fn count_questions(resolver: &UdpSocket, questions: &AtomicUsize) {
    let mut packet = [0; 1500];
    while let Ok((length, from)) = resolver.recv_from(&mut packet) {
        questions.fetch_add(1, Ordering::SeqCst);
        if length > 4 {
            (packet[2], packet[3]) = (0x81, 0x83);
            let _ = resolver.send_to(&packet[..length], from);
        }
    }
}

/// Answers one HTTP request, or the first line of anything else, with the place where it was asked.
pub(crate) fn answer_web(mut connection: TcpStream, place: &str) {
    let peer = connection.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    let family = if matches!(peer, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none()) { "IPv6" } else { "IPv4" };
    let (mut request, mut byte) = (Vec::new(), [0]);
    while matches!(connection.read(&mut byte), Ok(1)) && request.len() < 8192 {
        request.push(byte[0]);
        let end: &[u8] = if request.starts_with(b"G") { b"\r\n\r\n" } else { b"\n" };
        if request.ends_with(end) {
            break;
        }
    }
    let body = format!("{place} {family}\n");
    let length = body.len();
    let _ = write!(connection, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
}
