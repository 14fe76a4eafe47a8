//! Both dialects over a real socket, with a node that answers from memory.

mod bounds;
mod life;
mod people;
mod program_sockets;
mod programs;
mod publish;

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
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
    /// Programs that listen on loopback, of all spaces.
    pub(crate) listeners: Arc<AtomicUsize>,
    pub(crate) published: Arc<Mutex<Vec<(Ports, ApAddress)>>>,
    /// Of all spaces.
    pub(crate) notes: Mutex<Option<broadcast::Sender<Note>>>,
    pub(crate) forwards: Mutex<Vec<Forward>>,
    pub(crate) node_id: String,
    /// Whether stopping takes forever.
    pub(crate) hangs: bool,
}

struct TestSpace {
    broken: Arc<AtomicBool>,
    /// Of all spaces.
    published: Arc<Mutex<Vec<(Ports, ApAddress)>>>,
    own: Mutex<Vec<(ApAddress, Ports)>>,
    notes: broadcast::Sender<Note>,
    in_use: Arc<AtomicBool>,
    closed: Arc<AtomicUsize>,
    listeners: Arc<AtomicUsize>,
}

/// A program that listens; not any more when dropped.
struct Listens(Arc<AtomicUsize>);

impl Drop for Listens {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A port that somebody else has published.
const TAKEN: Ports = Ports::One(13);

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
            notes: Vec::new(),
            warnings: Vec::new(),
            start: Vec::new(),
            published: Vec::new(),
            own_record: None,
            router: String::new(),
            relayed_paths: 3,
            relayed_tunnels: 12,
            relayed_bytes: 1_234_567,
            uptime_seconds: 5,
        }
    }
    async fn doctor(&self) -> Doctor {
        Doctor { checks: Vec::new(), warnings: Vec::new() }
    }
    async fn seen_from_outside(&self) -> BTreeMap<ApAddress, String> {
        BTreeMap::new()
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
    async fn removed(&self, address: ApAddress) {
        self.created.lock().unwrap().retain(|one| *one != address);
    }
    async fn uses(&self, address: ApAddress) -> bool {
        self.forwards.lock().unwrap().iter().any(|one| one.address == address.ipv6())
    }
    async fn forward(&self, at: Arc<ApIdentity>, port: u16, to: Target, keep: bool) -> Result<(), Refusal> {
        if Ports::One(port) == TAKEN {
            return Err(Refusal { errno: libc::EADDRINUSE, message: "taken".into(), hint: "another".into() });
        }
        let (identity, to) = (at.name.as_ref().map(ToString::to_string), to.to_string());
        let (address, phantom_name) = (at.address().ipv6(), at.phantom_name().to_string());
        self.forwards.lock().unwrap().push(Forward {
            port,
            to,
            identity,
            address,
            phantom_name,
            keep,
            listens: true,
            new_identity: false,
        });
        Ok(())
    }
    async fn forwards(&self) -> Vec<Forward> {
        self.forwards.lock().unwrap().clone()
    }
    async fn command(&self, _: &str) -> Result<(), Failure> {
        Ok(())
    }
    async fn commands(&self) -> Commands {
        Commands {
            maintainers: None,
            highest: 0,
            tip: String::new(),
            missing: 0,
            ignored: Vec::new(),
            banned: Vec::new(),
            commands: Vec::new(),
        }
    }
    async fn export_peers(&self) -> String {
        String::new()
    }
    async fn import_peers(&self, _: &str) -> Result<Bundle, Failure> {
        Ok(Bundle { signer: String::new(), made: String::new(), nodes: 0 })
    }
    async fn allow_command(&self, _: u64) -> Result<(), Failure> {
        Ok(())
    }
    async fn unforward(&self, port: u16, at: Option<ApAddress>) -> Result<Forward, Refusal> {
        let mut forwards = self.forwards.lock().unwrap();
        let found = forwards.iter().position(|one| one.port == port && at.is_none_or(|at| at.ipv6() == one.address));
        let none = || Refusal { errno: libc::ENOENT, message: "none".into(), hint: "look".into() };
        found.map(|found| forwards.remove(found)).ok_or_else(none)
    }
    async fn open(&self, _: Arc<ApIdentity>, owner: Owner) -> Result<Arc<dyn Space>, Refusal> {
        if self.refuse_open.load(Ordering::SeqCst) {
            return Err(Refusal { errno: libc::EPERM, message: "no namespaces here".into(), hint: "be root".into() });
        }
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.owners.lock().unwrap().push(owner);
        Ok(Arc::new(TestSpace {
            published: Arc::clone(&self.published),
            own: Mutex::default(),
            notes: self.notes.lock().unwrap().get_or_insert_with(|| broadcast::Sender::new(4)).clone(),
            in_use: Arc::clone(&self.in_use),
            broken: Arc::clone(&self.broken),
            closed: Arc::clone(&self.closed),
            listeners: Arc::clone(&self.listeners),
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
    async fn namespaces(&self, _: Option<Beside>) -> Result<(OwnedFd, Option<OwnedFd>), Refusal> {
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
    async fn loopback(&self, call: &hook::Loopback) -> Result<(hook::Reply, Option<Lasting>), i32> {
        match call {
            hook::Loopback::Connect { .. } => Err(libc::ECONNREFUSED),
            hook::Loopback::Peer { .. } => Ok((hook::Reply::NotFound, None)),
            hook::Loopback::Listen { local, .. } => {
                let listener = Listens(Arc::clone(&self.listeners));
                self.listeners.fetch_add(1, Ordering::SeqCst);
                Ok((hook::Reply::Address(*local), Some(Box::new(listener))))
            }
        }
    }
    async fn socket(&self, domain: i32, kind: i32, _: i32) -> io::Result<OwnedFd> {
        if domain != libc::AF_INET6 || kind != libc::SOCK_STREAM {
            return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
        }
        let family = rustix::net::AddressFamily::INET6;
        Ok(rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
    }
    async fn line(&self, emulated: bool) -> io::Result<OwnedFd> {
        if emulated {
            Ok(UnixStream::pair()?.0.into_std()?.into())
        } else {
            Err(io::Error::from_raw_os_error(libc::EAGAIN))
        }
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
    async fn resolve(&self, name: &str) -> Result<Option<ApAddress>, Unanswered> {
        match name {
            "unanswered.example" => Err(Unanswered),
            "friend" | "friend.phantom" => Ok(Some(friend().address())),
            name => Ok((name == friend().to_string()).then(|| friend().address())),
        }
    }
    fn name_of(&self, address: ApAddress) -> Option<String> {
        (address == friend().address()).then(|| "friend.phantom".into())
    }
    async fn publish(&self, ports: Ports, at: &ApIdentity, stays: bool) -> Result<(), Refusal> {
        if ports == TAKEN {
            return Err(Refusal { errno: libc::EADDRINUSE, message: "taken".into(), hint: "another".into() });
        }
        if !stays {
            self.published.lock().unwrap().push((ports, at.address()));
        }
        self.own.lock().unwrap().push((at.address(), ports));
        Ok(())
    }
    async fn unpublish(&self, ports: Ports, at: ApAddress) {
        let mut published = self.published.lock().unwrap();
        let place = published.iter().position(|one| *one == (ports, at)).unwrap();
        published.remove(place);
        self.own.lock().unwrap().retain(|one| *one != (at, ports));
    }
    async fn published(&self) -> Vec<(ApAddress, u16)> {
        let own = self.own.lock().unwrap();
        let one = |(at, ports): &(ApAddress, Ports)| match ports {
            Ports::One(port) => (*at, *port),
            Ports::All => panic!("these programs listen nowhere"),
        };
        own.iter().map(one).collect()
    }
    fn notes(&self) -> broadcast::Receiver<Note> {
        self.notes.subscribe()
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
    server: JoinHandle<Served>,
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
    let listener = Listener::bind(&path, &Arc::default()).unwrap();
    let server = tokio::spawn(serve_at_most(most, listener, Arc::clone(&control)));
    World { daemon, control, path, server, _dir: dir }
}

fn world() -> World {
    world_of(MAX_CONNECTIONS)
}

impl World {
    async fn raw(&self) -> UnixStream {
        // Where no thread stands between: what these tests wait for, by a clock of their own, it would not come in time for.
        let own = phantom_ipc::reach::operators_socket(&self.path);
        UnixStream::connect(if own.exists() { own } else { self.path.clone() }).await.unwrap()
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

    /// The command line of another user.
    async fn client_of(&self, uid: u32) -> Client {
        let (ours, theirs) = UnixStream::pair().unwrap();
        tokio::spawn(converse(Connection::new(ours, Owner { uid, gid: uid }), Arc::clone(&self.control)));
        Client::over(theirs)
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

/// Two users of this computer that are neither root nor the daemon's own.
const ALICE: u32 = 70_001;
const BOB: u32 = 70_002;

fn session(token: u8) -> IdentityRef {
    IdentityRef::Session([token; 16])
}

/// Programs get the numbers as they come: on Linux they must be its own.
#[test]
fn the_numbers_of_errors_are_those_of_this_system() {
    use phantom_ipc::errno::*;
    let ours = [
        EPERM,
        ENOENT,
        EIO,
        EAGAIN,
        EACCES,
        EEXIST,
        EINVAL,
        EMFILE,
        EPROTO,
        ENOTSOCK,
        EOPNOTSUPP,
        EADDRINUSE,
        EADDRNOTAVAIL,
        ENETDOWN,
        ETIMEDOUT,
        ECONNREFUSED,
        EHOSTUNREACH,
    ];
    let systems = [
        libc::EPERM,
        libc::ENOENT,
        libc::EIO,
        libc::EAGAIN,
        libc::EACCES,
        libc::EEXIST,
        libc::EINVAL,
        libc::EMFILE,
        libc::EPROTO,
        libc::ENOTSOCK,
        libc::EOPNOTSUPP,
        libc::EADDRINUSE,
        libc::EADDRNOTAVAIL,
        libc::ENETDOWN,
        libc::ETIMEDOUT,
        libc::ECONNREFUSED,
        libc::EHOSTUNREACH,
    ];
    assert_eq!(ours, systems);
}

fn errno_of(reply: &hook::Reply) -> i32 {
    match reply {
        hook::Reply::Failed { errno, .. } => *errno,
        other => panic!("{other:?}"),
    }
}
