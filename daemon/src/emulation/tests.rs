//! Emulated sockets over loopback: what a program sees at its end of the pair.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream as Blocking};

use async_trait::async_trait;
use phantom_ipc::hook::{RECORD, decode_record};
use phantom_proto::crypto::VerifyingKey;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, IoSliceMut};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_blocking;

use super::*;
use crate::passed::tests::{pass, take_descriptors};

/// How long anything may take that is awaited.
const PATIENCE: Duration = Duration::from_secs(30);

/// A network in which nobody else is.
struct Alone;

#[async_trait]
impl far::Network for Alone {
    async fn connect(&self, _: ApAddress, _: u16, _: ApAddress, _: u16) -> Result<Box<dyn Stream>, ConnectError> {
        Err(ConnectError::Unreachable)
    }
    async fn resolve(&self, _: &str) -> Result<Option<far::Found>, far::Unanswered> {
        Ok(None)
    }
    async fn refused(&self, _: IpAddr) {}
    async fn name_of(&self, _: ApAddress) -> Option<String> {
        None
    }
}

/// A network in which everybody is far away; tells when an attempt is begun, and when it is given up.
struct Far(mpsc::Sender<&'static str>);

struct Attempt(mpsc::Sender<&'static str>);

impl Drop for Attempt {
    fn drop(&mut self) {
        let _ = self.0.try_send("given up");
    }
}

#[async_trait]
impl far::Network for Far {
    async fn connect(&self, _: ApAddress, _: u16, _: ApAddress, _: u16) -> Result<Box<dyn Stream>, ConnectError> {
        let _ = self.0.try_send("begun");
        let _attempt = Attempt(self.0.clone());
        std::future::pending().await
    }
    async fn resolve(&self, _: &str) -> Result<Option<far::Found>, far::Unanswered> {
        Ok(None)
    }
    async fn refused(&self, _: IpAddr) {}
    async fn name_of(&self, _: ApAddress) -> Option<String> {
        None
    }
}

fn own() -> ApAddress {
    ApAddress::of(&VerifyingKey([1; 32]))
}

struct World(Emulation);

/// A program's descriptor, and the number behind it.
struct Socket {
    descriptor: OwnedFd,
    id: u64,
}

impl Socket {
    fn of(descriptor: OwnedFd) -> Self {
        let id = pair::name_of(&descriptor).unwrap().socket;
        Self { descriptor, id }
    }

    fn events(&self, wait: Duration) -> PollFlags {
        let all = PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP;
        let mut look = [PollFd::new(&self.descriptor, all)];
        let limit = Timespec { tv_sec: wait.as_secs().try_into().unwrap(), tv_nsec: 0 };
        poll(&mut look, Some(&limit)).unwrap();
        look[0].revents()
    }

    fn stream(&self) -> Blocking {
        self.descriptor.try_clone().unwrap().into()
    }

    fn accept(&self) -> (Self, SocketAddr) {
        let mut record = [0; RECORD];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let mut pieces = [IoSliceMut::new(&mut record)];
        let got = recvmsg(&self.descriptor, &mut pieces, &mut beside, RecvFlags::CMSG_CLOEXEC).unwrap();
        assert_eq!(got.bytes, RECORD);
        let accepted = beside.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        (Self::of(accepted.unwrap()), decode_record(&record).unwrap())
    }
}

impl World {
    fn new() -> Self {
        Self(Emulation::new(own(), Arc::new(Alone), SharedAliases::default()))
    }

    fn socket(&self, domain: i32) -> Socket {
        Socket::of(self.0.socket(domain, libc::SOCK_STREAM, 0).unwrap())
    }

    async fn call(&self, socket: &Socket, call: Call) -> Result<Reply, i32> {
        let beside = matches!(call, Call::Connect { .. }).then(|| socket.descriptor.try_clone().unwrap().into());
        let answer = timeout(PATIENCE, self.0.call(socket.id, &call, beside)).await.expect("in time");
        answer.map(|(reply, _)| reply)
    }

    async fn listener(&self, at: &str, backlog: i32) -> (Socket, SocketAddr) {
        let at: SocketAddr = at.parse().unwrap();
        let socket = self.socket(if at.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET });
        self.call(&socket, Call::Bind { address: at }).await.unwrap();
        self.call(&socket, Call::Listen { backlog }).await.unwrap();
        let Ok(Reply::Address(at)) = self.call(&socket, Call::Name).await else { panic!("no name") };
        (socket, at)
    }

    async fn pair(&self) -> (Socket, Socket) {
        let (listener, at) = self.listener("127.0.0.1:0", 5).await;
        let client = self.socket(libc::AF_INET);
        self.call(&client, Call::Connect { address: at, wait: true }).await.unwrap();
        let (server, peer) = listener.accept();
        assert_eq!(self.call(&client, Call::Name).await, Ok(Reply::Address(peer)));
        assert_eq!(self.call(&client, Call::Peer).await, Ok(Reply::Address(at)));
        assert_eq!(self.call(&server, Call::Name).await, Ok(Reply::Address(at)));
        assert_eq!(self.call(&server, Call::Peer).await, Ok(Reply::Address(peer)));
        (client, server)
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_bytes_arrive_whoever_closes_first() {
    let world = World::new();
    let bytes = pattern(300_000);
    for round in 0..100 {
        let (client, server) = world.pair().await;
        let (from, to) = if round % 2 == 0 { (client, server) } else { (server, client) };
        // The other direction first, half-closed; then this one, closed at once after the last byte.
        let (there, back) = (bytes.clone(), bytes.clone());
        let sending = spawn_blocking(move || {
            let mut stream = from.stream();
            if round % 3 == 0 {
                stream.read_to_end(&mut Vec::new()).unwrap();
            }
            stream.write_all(&there).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            if round % 3 != 0 {
                stream.read_to_end(&mut Vec::new()).unwrap();
            }
        });
        let receiving = spawn_blocking(move || {
            let mut stream = to.stream();
            stream.write_all(&back).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            got
        });
        sending.await.unwrap();
        let got = receiving.await.unwrap();
        assert!(got == bytes, "round {round}: {} of {} bytes", got.len(), bytes.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_writable_when_it_is_there_and_not_before() {
    let world = World::new();
    let (listener, at) = world.listener("127.0.0.1:0", 0).await;
    // One waits for accept(), the next has no place.
    let first = world.socket(libc::AF_INET);
    world.call(&first, Call::Connect { address: at, wait: true }).await.unwrap();
    let second = world.socket(libc::AF_INET);
    let connect = Call::Connect { address: at, wait: false };
    assert_eq!(world.call(&second, connect).await, Ok(Reply::Pending));
    assert_eq!(world.call(&second, connect).await, Err(libc::EALREADY));
    assert_eq!(second.events(Duration::ZERO), PollFlags::empty());
    assert_eq!(world.call(&second, Call::Peer).await, Err(libc::ENOTCONN));
    let listener = spawn_blocking(move || {
        listener.accept();
        listener
    });
    let listener = listener.await.unwrap();
    let second = spawn_blocking(move || {
        assert_eq!(second.events(PATIENCE), PollFlags::OUT);
        second
    });
    let second = second.await.unwrap();
    assert_eq!(world.call(&second, connect).await, Ok(Reply::Done));
    assert_eq!(world.call(&second, connect).await, Err(libc::EISCONN));
    // What filled the buffer is nobody's to read.
    let (server, _) = spawn_blocking(move || listener.accept()).await.unwrap();
    second.stream().write_all(b"first bytes").unwrap();
    second.stream().shutdown(Shutdown::Write).unwrap();
    let got = spawn_blocking(move || io::read_to_string(server.stream()).unwrap());
    assert_eq!(got.await.unwrap(), "first bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_says_so_and_may_be_tried_again() {
    let world = World::new();
    let socket = world.socket(libc::AF_INET6);
    let nobody = Call::Connect { address: "[::1]:9".parse().unwrap(), wait: false };
    assert_eq!(world.call(&socket, nobody).await, Ok(Reply::Pending));
    let socket = spawn_blocking(move || {
        assert_eq!(socket.events(PATIENCE), PollFlags::OUT);
        socket
    });
    let socket = socket.await.unwrap();
    let error = Call::Option { level: libc::SOL_SOCKET, option: libc::SO_ERROR };
    let value = |value| Ok(Reply::Value(phantom_ipc::hook::OptionValue::of(value)));
    assert_eq!(world.call(&socket, error).await, value(libc::ECONNREFUSED));
    assert_eq!(world.call(&socket, error).await, value(0));
    let (listener, at) = world.listener("[::]:0", 1).await;
    let there = Call::Connect { address: SocketAddr::new("::1".parse().unwrap(), at.port()), wait: true };
    assert_eq!(world.call(&socket, there).await, Ok(Reply::Done));
    let (_, peer) = spawn_blocking(move || listener.accept()).await.unwrap();
    assert_eq!(world.call(&socket, Call::Name).await, Ok(Reply::Address(peer)));
    let far = Call::Connect { address: "[fd70::2]:80".parse().unwrap(), wait: true };
    let socket = world.socket(libc::AF_INET6);
    assert_eq!(world.call(&socket, far).await, Err(libc::EHOSTUNREACH));
    let outside = Call::Connect { address: "[2001:db8::1]:80".parse().unwrap(), wait: true };
    assert_eq!(world.call(&socket, outside).await, Err(libc::EACCES));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_is_a_reset() {
    let world = World::new();
    let (client, server) = world.pair().await;
    let linger = [1i32, 0].map(i32::to_ne_bytes);
    let value = phantom_ipc::hook::OptionValue::new(linger.as_flattened()).unwrap();
    let set = Call::SetOption { level: libc::SOL_SOCKET, option: libc::SO_LINGER, value };
    world.call(&server, set).await.unwrap();
    drop(server);
    let seen = spawn_blocking(move || {
        let all = PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        // OUT alone until it arrives.
        while client.events(PATIENCE) == PollFlags::OUT {}
        assert_eq!(client.events(PATIENCE), all);
        let mut stream = client.stream();
        let read = stream.read(&mut [0]).unwrap_err().raw_os_error();
        (read, stream.read(&mut [0]).unwrap(), stream.write(b"x").unwrap_err().raw_os_error(), client)
    });
    let (read, again, written, client) = seen.await.unwrap();
    assert_eq!((read, again, written), (Some(libc::ECONNRESET), 0, Some(libc::EPIPE)));
    assert_eq!(world.call(&client, Call::Peer).await, Err(libc::ENOTCONN));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_closed_is_forgotten_and_its_port_is_free() {
    let world = World::new();
    let (listener, at) = world.listener("127.0.0.1:0", 5).await;
    let again = world.socket(libc::AF_INET);
    assert_eq!(world.call(&again, Call::Bind { address: at }).await, Err(libc::EADDRINUSE));
    assert!(world.0.in_use());
    drop(listener);
    assert_eq!(world.call(&again, Call::Bind { address: at }).await, Ok(Reply::Done));
    drop(again);
    timeout(PATIENCE, async {
        while world.0.in_use() {
            tokio::task::yield_now().await
        }
    })
    .await
    .unwrap();
}

/// As programs look for a port that is free: bind(2) to any, close(2), bind(2) to it. No task has run in between.
#[tokio::test(flavor = "current_thread")]
async fn a_port_is_free_in_the_moment_of_close() {
    let world = World::new();
    let first = world.socket(libc::AF_INET);
    let any = Call::Bind { address: "127.0.0.1:0".parse().unwrap() };
    assert_eq!(world.call(&first, any).await, Ok(Reply::Done));
    let Ok(Reply::Address(address)) = world.call(&first, Call::Name).await else { panic!("no name") };
    let (again, bind) = (world.socket(libc::AF_INET), Call::Bind { address });
    assert_eq!(world.call(&again, bind).await, Err(libc::EADDRINUSE));
    let copy = first.descriptor.try_clone().unwrap();
    drop(first);
    assert_eq!(world.call(&again, bind).await, Err(libc::EADDRINUSE), "another process has it");
    drop(copy);
    assert_eq!(world.call(&again, bind).await, Ok(Reply::Done));
    // Its end is noticed later, and takes nothing from who has the port now.
    tokio::task::yield_now().await;
    let other = world.socket(libc::AF_INET);
    assert_eq!(world.call(&other, bind).await, Err(libc::EADDRINUSE));
}

#[tokio::test(flavor = "multi_thread")]
async fn datagram_sockets_are_forgotten_too() {
    let world = World::new();
    let open = || Socket::of(world.0.socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap());
    let first = open();
    let at = Call::Bind { address: "127.0.0.1:9".parse().unwrap() };
    assert_eq!(world.call(&first, at).await, Ok(Reply::Done));
    assert_eq!(rustix::net::send(&first.descriptor, b"x", SendFlags::NOSIGNAL), Err(Errno::PIPE));
    let again = open();
    assert_eq!(world.call(&again, at).await, Err(libc::EADDRINUSE));
    drop(first);
    assert_eq!(world.call(&again, at).await, Ok(Reply::Done));
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_are_bounded_and_end_with_the_identity() {
    let world = World::new();
    let (client, server) = world.pair().await;
    let mut more = Vec::new();
    let error = loop {
        let name = SocketName { socket: rand::random(), v6: false, stream: true };
        // The sockets without descriptors are cheaper, the last one is as programs get it.
        if world.0.shared.lock().table.open(name, 0).is_err() {
            match world.0.socket(libc::AF_INET, libc::SOCK_STREAM, 0) {
                // The listener of the pair went just now.
                Ok(socket) => more.push(socket),
                Err(error) => break error,
            }
        }
    };
    assert_eq!(error, libc::EMFILE);
    assert!(more.len() <= 1);
    assert_eq!(world.0.shared.lock().table.len(), table::MAX_SOCKETS);
    world.0.cut();
    let read = |socket: Socket| spawn_blocking(move || socket.stream().read(&mut [0]).unwrap_err().raw_os_error());
    assert_eq!(read(client).await.unwrap(), Some(libc::ECONNRESET));
    assert_eq!(read(server).await.unwrap(), Some(libc::ECONNRESET));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_descriptor_of_something_else_connects_nothing() {
    let world = World::new();
    let (_listener, at) = world.listener("127.0.0.1:0", 5).await;
    let (own, other) = (world.socket(libc::AF_INET), world.socket(libc::AF_INET));
    let connect = Call::Connect { address: at, wait: true };
    for beside in [None, Some(other.descriptor), Some(std::fs::File::open("/dev/null").unwrap().into())] {
        assert_eq!(world.0.call(own.id, &connect, beside.map(OwnedFd::into)).await.unwrap_err(), libc::ENOTSOCK);
    }
    assert_eq!(world.call(&own, Call::Peer).await, Err(libc::ENOTCONN));
    // A number that nobody was given.
    assert_eq!(world.0.call(own.id ^ 1, &Call::Name, None).await.unwrap_err(), libc::ENETDOWN);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_closes_while_connecting_gives_the_attempt_up() {
    let (heard_tx, mut heard) = mpsc::channel(8);
    let world = World(Emulation::new(own(), Arc::new(Far(heard_tx)), SharedAliases::default()));
    let connect = Call::Connect { address: "[fd70::2]:80".parse().unwrap(), wait: false };
    let (socket, other) = (world.socket(libc::AF_INET6), world.socket(libc::AF_INET6));
    for one in [&socket, &other] {
        assert_eq!(world.call(one, connect).await, Ok(Reply::Pending));
        assert_eq!(one.events(Duration::ZERO), PollFlags::empty());
        assert_eq!(timeout(PATIENCE, heard.recv()).await, Ok(Some("begun")));
    }
    // As long as a copy is open, so is the socket.
    let copy = socket.descriptor.try_clone().unwrap();
    drop(socket);
    drop(other);
    assert_eq!(timeout(PATIENCE, heard.recv()).await, Ok(Some("given up")));
    assert!(heard.try_recv().is_err());
    drop(copy);
    assert_eq!(timeout(PATIENCE, heard.recv()).await, Ok(Some("given up")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_was_named_stays_until_its_socket_is_closed() {
    let world = World::new();
    let (listener, at) = world.listener("127.0.0.1:0", 5).await;
    let (named, chosen, again) =
        (world.socket(libc::AF_INET), world.socket(libc::AF_INET), world.socket(libc::AF_INET));
    let place = Call::Bind { address: "127.0.0.1:4000".parse().unwrap() };
    assert_eq!(world.call(&named, place).await, Ok(Reply::Done));
    // Both are reset by the far end, and still there.
    let mut chosen_at = None;
    for client in [&named, &chosen] {
        world.call(client, Call::Connect { address: at, wait: true }).await.unwrap();
        chosen_at = world.call(client, Call::Name).await.ok();
        let server = listener.accept().0;
        client.stream().write_all(b"unread").unwrap();
        while !server.events(PATIENCE).contains(PollFlags::IN) {}
        drop(server);
        let over = async {
            while world.call(client, Call::Peer).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, over).await.unwrap();
    }
    assert_eq!(world.call(&again, place).await, Err(libc::EADDRINUSE));
    let Some(Reply::Address(address)) = chosen_at else { panic!("no name") };
    let other = world.socket(libc::AF_INET);
    assert_eq!(world.call(&other, Call::Bind { address }).await, Ok(Reply::Done));
    // Its name could be read by everybody on the computer, and whoever takes it then keeps no port.
    let (name, number) = (pair::name_of(&named.descriptor).unwrap().encode(), pair::inode(&named.descriptor));
    drop(named);
    // Nor does who has a line of the kernel's list of names say so.
    let folder = tempfile::tempdir().unwrap();
    let line = [format!("x\n 0 {number} @").as_bytes(), &name].concat();
    let forged = folder.path().join(OsStr::from_bytes(&line));
    std::fs::create_dir_all(forged.parent().unwrap()).unwrap();
    let _forged = UnixListener::bind(forged).unwrap();
    let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM);
    let stranger = rustix::net::socket(family, kind, None).unwrap();
    rustix::net::bind(&stranger, &rustix::net::SocketAddrUnix::new_abstract_name(&name).unwrap()).unwrap();
    assert_eq!(world.call(&again, place).await, Ok(Reply::Done));
}

/// Kernels before Linux 6.16 let programs pass descriptors beside bytes; closing one takes as long as the program likes.
#[tokio::test(flavor = "multi_thread")]
async fn descriptors_that_a_program_passes_are_closed_by_no_thread_of_the_daemon() {
    let world = World::new();
    for said in [false, true] {
        let name = SocketName { socket: rand::random(), v6: false, stream: true };
        let (theirs, ours) = pair::make(name).unwrap();
        take_descriptors(&ours, true).unwrap();
        let entry = Entry { shared: world.0.shared.clone(), id: name.socket };
        let mut end = End::new(ours, entry).unwrap();
        let (mut closed, passed) = io::pipe().unwrap();
        rustix::net::send(&theirs, b"bytes", SendFlags::empty()).unwrap();
        let mut bytes = [0; 5];
        end.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"bytes");
        pass(&theirs, &passed).unwrap();
        drop(passed);
        if said {
            end.shutdown().await.unwrap();
        }
        assert_eq!(end.read(&mut bytes).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(end);
        let end = spawn_blocking(move || closed.read(&mut [0]).unwrap());
        assert_eq!(timeout(PATIENCE, end).await.unwrap().unwrap(), 0, "a process closes it");
    }
}
