//! Programs at the daemon's loopback device: doors, listeners, and who else may come to them.

use async_trait::async_trait;
use phantom_proto::crypto::VerifyingKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;

use super::*;
use crate::far::{Found, Unanswered};

/// How long anything may take that is awaited.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whoever is asked for: from which port, whom, which port; and the far end of the connection.
type Asked = (u16, ApAddress, u16, DuplexStream);

/// A network in which everybody but the last octet's 99 answers.
struct Far(mpsc::Sender<Asked>);

#[async_trait]
impl Network for Far {
    async fn connect(
        &self,
        from: ApAddress,
        source_port: u16,
        to: ApAddress,
        port: u16,
    ) -> Result<Box<dyn Stream>, ConnectError> {
        assert_eq!(from, own());
        if port == 99 {
            return Err(ConnectError::Refused);
        }
        let (near, far) = duplex(1024);
        self.0.send((source_port, to, port, far)).await.unwrap();
        Ok(Box::new(near))
    }
    async fn resolve(&self, _: &str) -> Result<Option<Found>, Unanswered> {
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

fn other() -> ApAddress {
    ApAddress::of(&VerifyingKey([2; 32]))
}

fn world() -> (Loopback, mpsc::Receiver<Asked>) {
    let (asked_tx, asked_rx) = mpsc::channel(8);
    (Loopback::new(own(), Arc::new(Far(asked_tx)), SharedAliases::default()), asked_rx)
}

/// A program's socket, bound as the hook binds it.
fn bound() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let from = socket.local_addr().unwrap();
    (socket, from)
}

fn address(answer: Result<(Reply, Option<Lasting>), i32>) -> SocketAddr {
    match answer.map(|(reply, _)| reply) {
        Ok(Reply::Address(address)) => address,
        other => panic!("{other:?}"),
    }
}

async fn soon<T>(wait: impl Future<Output = T>) -> T {
    timeout(PATIENCE, wait).await.expect("in time")
}

/// What there is to read until the end, or nothing after a reset.
async fn rest(tcp: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = soon(tcp.read_to_end(&mut bytes)).await;
    bytes
}

#[tokio::test]
async fn a_program_comes_by_its_door_and_talks_to_the_far_end() {
    let (sockets, mut asked) = world();
    assert_eq!(sockets.behind_alias(sockets.alias_of(other())), Some(other()));
    for to in [IpAddr::from(other().ipv6()), sockets.alias_of(other()).into()] {
        let (socket, from) = bound();
        let door = address(sockets.call(&Call::Connect { to: (to, 80).into(), from }).await);
        let (source_port, whom, port, mut far) = soon(asked.recv()).await.unwrap();
        assert_eq!((source_port, whom, port), (from.port(), other(), 80));
        let mut near = soon(socket.connect(door)).await.unwrap();
        near.write_all(b"question").await.unwrap();
        near.shutdown().await.unwrap();
        let mut heard = String::new();
        soon(far.read_to_string(&mut heard)).await.unwrap();
        assert_eq!(heard, "question");
        far.write_all(b"answer").await.unwrap();
        far.shutdown().await.unwrap();
        assert_eq!(rest(&mut near).await, b"answer");
    }
    soon(async {
        while sockets.in_use() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn nobody_else_comes_by_that_door() {
    let (sockets, mut asked) = world();
    let (socket, from) = bound();
    let door = address(sockets.call(&Call::Connect { to: (other().ipv6(), 80).into(), from }).await);
    let mut far = soon(asked.recv()).await.unwrap().3;
    far.write_all(b"for the program").await.unwrap();
    let mut stranger = TcpStream::connect(door).await.unwrap();
    assert!(rest(&mut stranger).await.is_empty());
    let mut near = soon(socket.connect(door)).await.unwrap();
    far.shutdown().await.unwrap();
    assert_eq!(rest(&mut near).await, b"for the program");
    assert!(TcpStream::connect(door).await.is_err(), "it is shut");
}

#[tokio::test]
async fn what_cannot_be_reached_is_said_before_there_is_a_door() {
    let (sockets, _asked) = world();
    let (_socket, from) = bound();
    let abroad: SocketAddr = "192.0.2.1:80".parse().unwrap();
    for (to, from, expected) in [
        ((other().ipv6(), 99).into(), from, errno::ECONNREFUSED),
        (abroad, from, errno::EHOSTUNREACH),
        ("[2001:db8::1]:80".parse().unwrap(), from, errno::EACCES),
        ("198.18.0.53:80".parse().unwrap(), from, errno::ECONNREFUSED),
        ("127.0.0.1:80".parse().unwrap(), from, errno::EINVAL),
        ((other().ipv6(), 80).into(), abroad, errno::EINVAL),
        ((other().ipv6(), 80).into(), "127.0.0.1:0".parse().unwrap(), errno::EINVAL),
    ] {
        assert_eq!(sockets.call(&Call::Connect { to, from }).await.err(), Some(expected), "{to} from {from}");
    }
    assert!(!sockets.in_use());
}

#[tokio::test]
async fn a_listening_program_takes_connections_and_learns_whose_they_are() {
    let (sockets, _asked) = world();
    for (local, peer) in
        [("[::]:80", IpAddr::from(other().ipv6())), ("0.0.0.0:81", IpAddr::from(sockets.alias_of(other())))]
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (local, at): (SocketAddr, _) = (local.parse().unwrap(), listener.local_addr().unwrap());
        let (reply, lasting) = sockets.call(&Call::Listen { local, at }).await.unwrap();
        assert_eq!(reply, Reply::Address(local));
        assert_eq!(sockets.call(&Call::Listen { local, at }).await.err(), Some(errno::EADDRINUSE));
        assert!(sockets.listens(local.port()) && sockets.listening_ports() == [local.port()]);
        let (near, mut far) = duplex(1024);
        let served = async {
            let (mut tcp, source) = soon(listener.accept()).await.unwrap();
            assert_eq!(address(sockets.call(&Call::Peer { source }).await), SocketAddr::new(peer, 7000));
            tcp.write_all(b"welcome").await.unwrap();
            tcp.shutdown().await.unwrap();
            let mut heard = Vec::new();
            soon(far.read_to_end(&mut heard)).await.unwrap();
            assert_eq!(heard, b"welcome");
            far.shutdown().await.unwrap();
            assert!(rest(&mut tcp).await.is_empty());
            source
        };
        let ((), source) = tokio::join!(sockets.serve(other(), 7000, local.port(), Box::new(near)), served);
        let whose = async |source| sockets.call(&Call::Peer { source }).await.map(|(reply, _)| reply);
        assert_eq!(whose(source).await, Ok(Reply::NotFound), "it is over");
        let stranger = TcpStream::connect(at).await.unwrap();
        assert_eq!(whose(stranger.local_addr().unwrap()).await, Ok(Reply::NotFound));
        drop(lasting);
        assert!(!sockets.listens(local.port()) && !sockets.in_use(), "with the program's connection");
    }
}

#[tokio::test]
async fn nobody_listens_at_what_is_not_theirs() {
    let (sockets, _asked) = world();
    let at = "127.0.0.1:7000".parse().unwrap();
    for (local, at, expected) in [
        ("192.0.2.1:80".parse().unwrap(), at, errno::EADDRNOTAVAIL),
        ((other().ipv6(), 80).into(), at, errno::EADDRNOTAVAIL),
        ("0.0.0.0:80".parse().unwrap(), "192.0.2.1:80".parse().unwrap(), errno::EINVAL),
    ] {
        assert_eq!(sockets.call(&Call::Listen { local, at }).await.err(), Some(expected), "{local}");
    }
    let any = sockets.call(&Call::Listen { local: "0.0.0.0:0".parse().unwrap(), at }).await;
    assert_eq!(address(any).port(), 7000);
}

/// Also with what has been said: a program must never take it for the end of the data.
#[tokio::test]
async fn all_ends_with_the_identity() {
    let (sockets, mut asked) = world();
    let (socket, from) = bound();
    let door = address(sockets.call(&Call::Connect { to: (other().ipv6(), 80).into(), from }).await);
    let _far = soon(asked.recv()).await.unwrap().3;
    let mut near = soon(socket.connect(door)).await.unwrap();
    // It is through the door when its bytes are taken.
    near.write_all(&[0; 2048]).await.unwrap();
    sockets.cut();
    let error = soon(near.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}
