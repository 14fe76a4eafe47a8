//! Both dialects over a real socket, with a node that answers from memory.

mod life;

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use phantom_ipc::VERSION;
use phantom_ipc::admin::{self, Address, MAX_REQUEST};
use phantom_ipc::hook::{self, MAX_FRAME, PREAMBLE};
use proptest::prelude::*;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::*;
use crate::client::{Client, ClientError};
use crate::store::Store;

/// A node without a network: says what it was told to say, remembers what it was asked.
#[derive(Default)]
pub(crate) struct TestDaemon {
    pub(crate) opened: AtomicUsize,
    pub(crate) owners: Mutex<Vec<Owner>>,
    pub(crate) broken: Arc<AtomicBool>,
    pub(crate) created: Mutex<Vec<ApAddress>>,
    pub(crate) refuse_open: AtomicBool,
    pub(crate) in_use: Arc<AtomicBool>,
    pub(crate) closed: Arc<AtomicUsize>,
    pub(crate) published: Arc<Mutex<Vec<(u16, ApAddress)>>>,
    pub(crate) node_id: String,
    /// Whether stopping takes forever.
    pub(crate) hangs: bool,
}

struct TestSpace {
    broken: Arc<AtomicBool>,
    published: Arc<Mutex<Vec<(u16, ApAddress)>>>,
    in_use: Arc<AtomicBool>,
    closed: Arc<AtomicUsize>,
}

/// A port that somebody else has published.
const TAKEN: u16 = 13;

const ALIAS: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);
const OWN: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

#[async_trait]
impl Daemon for TestDaemon {
    async fn status(&self) -> Status {
        Status {
            version: "test".into(),
            node_id: self.node_id.clone(),
            listen: vec!["127.0.0.1:1".into()],
            peer: "phantom-peer:x".into(),
            ready: true,
            waiting_for: String::new(),
            peers: 11,
            exit_paths: 2,
            entry_paths: 1,
            ready_tunnels: 4,
            open_connections: 0,
            relayed_bytes: 1_234_567,
            uptime_seconds: 5,
        }
    }
    async fn paths(&self) -> Vec<Path> {
        Vec::new()
    }
    async fn peers(&self) -> Vec<Peer> {
        vec![Peer {
            node_id: "ab".repeat(32),
            addr: "127.10.0.1:1".into(),
            connected: true,
            last_seen_seconds: Some(3),
        }]
    }
    async fn connections(&self) -> Vec<ConnectionInfo> {
        Vec::new()
    }
    async fn lookup(&self, address: ApAddress) -> Result<Lookup, Failure> {
        let address = address.ipv6();
        Ok(Lookup { address, phantom_name: "x.phantom".into(), entry_nodes: Vec::new(), expires_in_seconds: 60 })
    }
    async fn created(&self, identity: Arc<ApIdentity>) {
        self.created.lock().unwrap().push(identity.address());
    }
    async fn open(&self, _: Arc<ApIdentity>, owner: Owner) -> Result<Arc<dyn Space>, Refusal> {
        if self.refuse_open.load(Ordering::SeqCst) {
            return Err(Refusal { errno: libc::EPERM, message: "no namespaces here".into(), hint: "be root".into() });
        }
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.owners.lock().unwrap().push(owner);
        Ok(Arc::new(TestSpace {
            published: Arc::clone(&self.published),
            in_use: Arc::clone(&self.in_use),
            broken: Arc::clone(&self.broken),
            closed: Arc::clone(&self.closed),
        }))
    }
    async fn stop(&self) {
        if self.hangs {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Space for TestSpace {
    async fn namespaces(&self) -> Result<(OwnedFd, Option<OwnedFd>), Refusal> {
        let open = |kind| std::fs::File::open(format!("/proc/self/ns/{kind}")).map(OwnedFd::from).unwrap();
        Ok((open("net"), Some(open("user"))))
    }
    async fn emulated(
        &self,
        _: u64,
        call: &hook::Call,
        beside: Option<Beside>,
    ) -> Result<(hook::Reply, Option<OwnedFd>), i32> {
        match call {
            hook::Call::Connect { .. } => beside.map(|_| (hook::Reply::Pending, None)).ok_or(libc::EBADF),
            _ => Err(libc::EOPNOTSUPP),
        }
    }
    async fn socket(&self, domain: i32, kind: i32, _: i32) -> io::Result<OwnedFd> {
        if domain != libc::AF_INET6 || kind != libc::SOCK_STREAM {
            return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
        }
        let family = rustix::net::AddressFamily::INET6;
        Ok(rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
    }
    fn ipv4(&self) -> Ipv4Addr {
        OWN
    }
    fn alias_of(&self, _: ApAddress) -> Ipv4Addr {
        ALIAS
    }
    fn behind_alias(&self, alias: Ipv4Addr) -> Option<ApAddress> {
        (alias == ALIAS).then(|| friend().address())
    }
    fn name_of(&self, address: ApAddress) -> Option<String> {
        (address == friend().address()).then(|| "friend.phantom".into())
    }
    async fn resolve(&self, name: &str) -> Result<Option<ApAddress>, Unanswered> {
        match name {
            "unanswered.example" => Err(Unanswered),
            "friend" | "friend.phantom" => Ok(Some(friend().address())),
            name => Ok((name == friend().to_string()).then(|| friend().address())),
        }
    }
    async fn publish(&self, port: u16, at: &ApIdentity) -> Result<(), Refusal> {
        if port == TAKEN {
            return Err(Refusal { errno: libc::EADDRINUSE, message: "taken".into(), hint: "another".into() });
        }
        self.published.lock().unwrap().push((port, at.address()));
        Ok(())
    }
    async fn unpublish(&self, port: u16, at: ApAddress) {
        let mut published = self.published.lock().unwrap();
        let place = published.iter().position(|one| *one == (port, at)).unwrap();
        published.remove(place);
    }
    async fn in_use(&self) -> bool {
        self.in_use.load(Ordering::SeqCst)
    }
    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::SeqCst)
    }
    async fn close(&self) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

/// The one full name that the daemon of these tests has an alias for: `friend`.
fn friend() -> phantom_proto::ident::ApName {
    phantom_proto::ident::ApName(phantom_proto::crypto::VerifyingKey([7; 32]))
}

struct World {
    daemon: Arc<TestDaemon>,
    control: Arc<Control>,
    path: PathBuf,
    server: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

fn world_of(most: usize) -> World {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.sock");
    let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
    let identities = Arc::new(Identities::load(store).unwrap());
    let aliases = BTreeMap::from([("friend".parse().unwrap(), friend().to_string().parse().unwrap())]);
    let daemon = Arc::new(TestDaemon::default());
    let control = Control::new(daemon.clone(), identities, Arc::new(Names::new(&aliases)));
    let listener = Listener::bind(&path).unwrap();
    let server = tokio::spawn(serve_at_most(most, listener, Arc::clone(&control)));
    World { daemon, control, path, server, _dir: dir }
}

fn world() -> World {
    world_of(MAX_CONNECTIONS)
}

impl World {
    async fn raw(&self) -> UnixStream {
        UnixStream::connect(&self.path).await.unwrap()
    }

    async fn client(&self) -> Client {
        Client::connect(&self.path).await.unwrap()
    }

    async fn hook(&self) -> Program {
        let mut program = Program(self.raw().await);
        program.0.write_all(&PREAMBLE).await.unwrap();
        program
    }

    /// A program of another user.
    async fn hook_of(&self, uid: u32) -> Program {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let connection = Connection::new(ours, Owner { uid, gid: uid });
        tokio::spawn(converse(connection, Arc::clone(&self.control)));
        let mut program = Program(theirs);
        program.0.write_all(&PREAMBLE).await.unwrap();
        program
    }

    /// Sends `bytes`; what comes back until the daemon closes.
    async fn said_to(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.raw().await;
        // The daemon may close before it has read all.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    }
}

/// A program that speaks the hook dialect.
struct Program(UnixStream);

impl Program {
    async fn ask(&mut self, request: &hook::Request) -> (hook::Reply, Vec<OwnedFd>) {
        self.0.write_all(&request.encode().unwrap()).await.unwrap();
        self.read().await
    }

    async fn read(&mut self) -> (hook::Reply, Vec<OwnedFd>) {
        let mut buffer = vec![0; MAX_FRAME + hook::HEADER];
        let (mut have, descriptors) = self.receive(&mut buffer).await;
        loop {
            if let Some((body, _)) = hook::split_frame(&buffer[..have]).unwrap() {
                let reply = hook::Reply::decode(body).unwrap();
                assert_eq!(reply.descriptors(), descriptors.len());
                return (reply, descriptors);
            }
            let count = self.0.read(&mut buffer[have..]).await.unwrap();
            assert_ne!(count, 0, "the daemon closed");
            have += count;
        }
    }

    async fn receive(&self, buffer: &mut [u8]) -> (usize, Vec<OwnedFd>) {
        let receive = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let got = recvmsg(&self.0, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
            let messages = control.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(rights) => Some(rights),
                _ => None,
            });
            Ok((got.bytes, messages.flatten().collect()))
        };
        self.0.async_io(Interest::READABLE, receive).await.unwrap()
    }

    async fn address(&mut self, which: &IdentityRef) -> [u8; 16] {
        match self.ask(&hook::Request::Info { identity: which.clone() }).await.0 {
            hook::Reply::Info { address, .. } => address,
            other => panic!("{other:?}"),
        }
    }
}

fn session(token: u8) -> IdentityRef {
    IdentityRef::Session([token; 16])
}

fn errno_of(reply: &hook::Reply) -> i32 {
    match reply {
        hook::Reply::Failed { errno, .. } => *errno,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn addresses_are_made_listed_and_shown() {
    let world = world();
    let mut client = world.client().await;
    let made: Address = client.ask(&admin::Request::AddressNew { name: "web".into() }).await.unwrap();
    let shown: Address = client.ask(&admin::Request::AddressShow { name: "web".into() }).await.unwrap();
    let listed: Vec<Address> = client.ask(&admin::Request::AddressList).await.unwrap();
    assert_eq!((&shown, &listed), (&made, &vec![made.clone()]));
    let name: phantom_proto::ident::ApName = made.phantom_name.parse().unwrap();
    assert_eq!(name.address().ipv6(), made.address);
    assert_eq!(*world.daemon.created.lock().unwrap(), [name.address()]);
    let json = serde_json::to_value(&made).unwrap();
    let fields: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["address", "name", "phantom_name"]);
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let world = world();
    let mut client = world.client().await;
    let _: Address = client.ask(&admin::Request::AddressNew { name: "web".into() }).await.unwrap();
    for (request, says) in [
        (admin::Request::AddressNew { name: "web".into() }, "address list"),
        (admin::Request::AddressNew { name: "../web".into() }, "another name"),
        (admin::Request::AddressShow { name: "mail".into() }, "address new"),
        (admin::Request::NetdbLookup { address: "::1".into() }, "address list"),
    ] {
        let Err(error @ ClientError::Refused(_)) = client.ask::<serde_json::Value>(&request).await else {
            panic!("{request:?}")
        };
        assert!(error.to_string().contains(says), "{error}");
    }
    let status = client.status().await.expect("still served");
    assert_eq!(status.peers, 11);
}

#[tokio::test]
async fn look_ups_take_addresses_names_and_aliases() {
    let world = world();
    let mut client = world.client().await;
    let own: Address = client.ask(&admin::Request::AddressNew { name: "web".into() }).await.unwrap();
    let friend = friend().address().ipv6();
    for (text, address) in [
        (friend.to_string(), friend),
        ("friend".into(), friend),
        ("friend.phantom".into(), friend),
        ("web".into(), own.address),
        (own.phantom_name.clone(), own.address),
    ] {
        let found: Lookup = client.ask(&admin::Request::NetdbLookup { address: text.clone() }).await.unwrap();
        assert_eq!(found.address, address, "{text}");
    }
}

#[tokio::test]
async fn lines_that_are_no_requests_are_answered_and_forgotten() {
    let world = world();
    let good = admin::Request::Status.to_line().unwrap();
    let other = format!("{{\"version\":{},\"request\":\"status\"}}\n", VERSION + 1);
    let answer = world.said_to(format!("{{\n{other}{{\"version\":1}}\n{good}").as_bytes()).await;
    let lines: Vec<&str> = std::str::from_utf8(&answer).unwrap().lines().collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[..3].iter().all(|line| line.starts_with("{\"error\"")), "{lines:?}");
    assert!(lines[1].contains("version"), "{lines:?}");
    assert!(lines[3].starts_with("{\"ok\""), "{lines:?}");
}

#[tokio::test]
async fn an_oversized_line_is_refused_and_the_connection_closed() {
    let world = world();
    let line = format!("{{{}", "x".repeat(MAX_REQUEST + 1));
    let answer = String::from_utf8(world.said_to(line.as_bytes()).await).unwrap();
    assert!(answer.contains("longer than"), "{answer}");
    assert_eq!(answer.lines().count(), 1);
}

#[tokio::test]
async fn stop_is_answered_before_it_happens() {
    let world = world();
    world.client().await.ask::<()>(&admin::Request::Stop).await.unwrap();
    timeout(REQUEST_TIME, world.server).await.expect("ends").unwrap();
    assert!(!world.path.exists());
    assert!(matches!(Client::connect(&world.path).await, Err(ClientError::NoDaemon(_))));
}

#[tokio::test]
async fn programs_get_sockets_of_their_namespace() {
    let world = world();
    let mut program = world.hook().await;
    let socket = |domain| hook::Request::Socket { identity: session(1), domain, kind: libc::SOCK_STREAM, protocol: 0 };
    let (reply, descriptors) = program.ask(&socket(libc::AF_INET6)).await;
    assert_eq!(reply, hook::Reply::Descriptor);
    assert_eq!(rustix::net::sockopt::socket_domain(&descriptors[0]).unwrap(), rustix::net::AddressFamily::INET6);
    let (reply, _) = program.ask(&socket(libc::AF_PACKET)).await;
    assert_eq!(errno_of(&reply), libc::EAFNOSUPPORT);
}

#[tokio::test]
async fn entering_gives_namespaces_and_who_one_is() {
    use std::os::unix::fs::MetadataExt;
    let world = world();
    let (reply, descriptors) = world.hook().await.ask(&hook::Request::Enter { identity: session(1) }).await;
    let hook::Reply::Entered { address, ipv4, name, has_user_namespace } = reply else { panic!("{reply:?}") };
    assert_eq!((ipv4, has_user_namespace), (OWN.octets(), true));
    let name: phantom_proto::ident::ApName = name.parse().unwrap();
    assert_eq!(name.address().octets(), address);
    let inode = |descriptor: OwnedFd| std::fs::File::from(descriptor).metadata().unwrap().ino();
    let passed: Vec<u64> = descriptors.into_iter().map(inode).collect();
    let own = ["net", "user"].map(|kind| std::fs::metadata(format!("/proc/self/ns/{kind}")).unwrap().ino());
    assert_eq!(passed, own);
}

#[tokio::test]
async fn names_resolve_both_ways_and_others_are_not_found() {
    let world = world();
    let mut program = world.hook().await;
    let resolve = |name: &str| hook::Request::Resolve { identity: session(1), name: name.into() };
    let found = hook::Reply::Addresses { v6: Some(friend().address().octets()), v4: Some(ALIAS.octets()) };
    for name in ["friend", "friend.phantom", &friend().to_string()] {
        assert_eq!(program.ask(&resolve(name)).await.0, found, "{name}");
    }
    for name in ["example.com", "localhost", "friend.example.com"] {
        assert_eq!(program.ask(&resolve(name)).await.0, hook::Reply::NotFound, "{name}");
    }
    let mut reverse = async |address| program.ask(&hook::Request::Reverse { identity: session(1), address }).await.0;
    let named = hook::Reply::Name("friend.phantom".into());
    assert_eq!(reverse(friend().address().ipv6().into()).await, named);
    assert_eq!(reverse(ALIAS.into()).await, named);
    assert_eq!(reverse("8.8.8.8".parse().unwrap()).await, hook::Reply::NotFound);
    assert_eq!(reverse("2001:db8::1".parse().unwrap()).await, hook::Reply::NotFound);
    let own = std::net::Ipv6Addr::from(program.address(&session(1)).await);
    let reply = program.ask(&hook::Request::Reverse { identity: session(1), address: own.into() }).await.0;
    assert!(matches!(reply, hook::Reply::Name(name) if name.ends_with(".phantom")));
}

#[tokio::test]
async fn a_resolver_that_does_not_answer_may_answer_later() {
    let world = world();
    let request = hook::Request::Resolve { identity: session(1), name: "unanswered.example".into() };
    assert_eq!(errno_of(&world.hook().await.ask(&request).await.0), libc::EAGAIN);
}

/// Waits until exactly these ports are published, by where.
async fn published(world: &World, expected: &[(u16, ApAddress)]) {
    let ends = async {
        while *world.daemon.published.lock().unwrap() != expected {
            tokio::task::yield_now().await;
        }
    };
    timeout(REQUEST_TIME, ends).await.expect("published as expected");
}

#[tokio::test]
async fn ports_are_published_as_long_as_the_connection() {
    let world = world();
    let mut program = world.hook().await;
    let publish =
        |port, at: Option<&str>| hook::Request::Publish { identity: session(1), port, at: at.map(str::to_owned) };
    assert_eq!(errno_of(&program.ask(&publish(80, None)).await.0), libc::EPERM, "not entered");
    program.ask(&hook::Request::Enter { identity: session(1) }).await;
    let own = program.address(&session(1)).await;
    let (reply, _) = program.ask(&publish(80, None)).await;
    assert!(matches!(&reply, hook::Reply::Info { address, ipv4, .. } if *address == own && *ipv4 == OWN.octets()));
    let (reply, _) = program.ask(&publish(443, Some("shop"))).await;
    let shop = world.control.identities.find("shop").expect("made");
    let told = hook::Reply::Info {
        address: shop.address().octets(),
        ipv4: ALIAS.octets(),
        name: shop.phantom_name().to_string(),
    };
    assert_eq!(reply, told);
    assert_eq!(*world.daemon.created.lock().unwrap(), [shop.address()]);
    let own = ApAddress::from_bytes(own).unwrap();
    published(&world, &[(80, own), (443, shop.address())]).await;
    for (port, name, errno) in [(TAKEN, None, libc::EADDRINUSE), (1, Some("A b"), libc::EINVAL)] {
        assert_eq!(errno_of(&program.ask(&publish(port, name)).await.0), errno);
    }
    drop(program);
    published(&world, &[]).await;
    let mut program = world.hook().await;
    program.ask(&hook::Request::Enter { identity: session(1) }).await;
    for port in 1..=65 {
        let (reply, _) = program.ask(&publish(port + 1000, None)).await;
        assert_eq!(matches!(reply, hook::Reply::Failed { errno: libc::EMFILE, .. }), port == 65, "{reply:?}");
    }
}

#[tokio::test]
async fn another_release_is_refused_and_garbage_gets_nothing() {
    let world = world();
    let answer = world.said_to(&[PREAMBLE[0], PREAMBLE[1], PREAMBLE[2], VERSION + 1]).await;
    let (body, used) = hook::split_frame(&answer).unwrap().unwrap();
    assert_eq!((errno_of(&hook::Reply::decode(body).unwrap()), used), (libc::EPROTO, answer.len()));
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PUT / HTTP/1.1\r\n\r\n", b"\0", b"PH", b""] {
        assert_eq!(world.said_to(garbage).await, b"", "{garbage:?}");
    }
}

#[tokio::test]
async fn frames_that_cannot_be_are_refused_and_the_connection_closed() {
    let world = world();
    let too_long = u32::try_from(MAX_FRAME + 1).unwrap().to_be_bytes();
    for frame in [&[0; 4][..], &too_long, &[0xff; 4], &[0, 0, 0, 1, 99], &[0, 0, 0, 2, 2, 9]] {
        let answer = world.said_to(&[&PREAMBLE, frame].concat()).await;
        let (body, used) = hook::split_frame(&answer).unwrap().unwrap();
        let reply = hook::Reply::decode(body).unwrap();
        assert_eq!((errno_of(&reply), used), (libc::EPROTO, answer.len()), "{frame:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_request_is_waited_for_only_so_long() {
    let world = world();
    let frame = hook::Request::Info { identity: session(1) }.encode().unwrap();
    for half in [&b"{\"version\""[..], &PREAMBLE[..2], &[&PREAMBLE[..], &frame[..7]].concat(), b""] {
        let mut stream = world.raw().await;
        stream.write_all(half).await.unwrap();
        let mut answer = Vec::new();
        timeout(REQUEST_TIME * 2, stream.read_to_end(&mut answer)).await.expect("closed").unwrap();
        assert!(answer.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_stays() {
    let world = world();
    let (mut program, mut client) = (world.hook().await, world.client().await);
    program.address(&session(1)).await;
    client.status().await.unwrap();
    sleep(REQUEST_TIME * 20).await;
    program.address(&session(1)).await;
    client.status().await.unwrap();
}

#[tokio::test]
async fn one_program_too_many_is_turned_away_and_the_others_stay() {
    let world = world_of(2);
    let (mut one, mut other) = (world.client().await, world.client().await);
    one.status().await.unwrap();
    other.status().await.unwrap();
    assert!(world.client().await.status().await.is_err());
    one.status().await.unwrap();
    drop(other);
    // The place is free as soon as the daemon has seen the end.
    let freed = async {
        while world.client().await.status().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(REQUEST_TIME, freed).await.expect("a place");
}

#[test]
fn any_bytes_leave_the_daemon_serving() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = runtime.block_on(async { world() });
    let first = prop_oneof![Just(vec![]), Just(PREAMBLE.to_vec()), Just(b"{".to_vec())];
    let bytes = (first, proptest::collection::vec(any::<u8>(), 0..300));
    proptest!(ProptestConfig::with_cases(200), |((mut head, tail) in bytes)| {
        head.extend(tail);
        runtime.block_on(async {
            world.said_to(&head).await;
            world.client().await.status().await.expect("serves");
        });
    });
}

#[tokio::test]
async fn scripts_may_send_many_requests_at_once() {
    let world = world();
    let stream = world.raw().await;
    let line = admin::Request::Status.to_line().unwrap();
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(line.repeat(20).as_bytes()).await.unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(stream);
    for _ in 0..20 {
        assert!(lines.next_line().await.unwrap().unwrap().starts_with("{\"ok\""));
    }
}
