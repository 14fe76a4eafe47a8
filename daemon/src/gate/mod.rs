//! The gate: the phantom namespace of one identity, and what serves its wire.
//!
//! ```text
//!  phantom namespace                 this process                    gate's namespace
//!  program -- TCP -- TUN ==> wire thread: reflector decides ==> TUN -- TCP -- listener
//!                                                                               | accept
//!                              Network::connect  <== splice =====================+
//! ```
//! | module | what it is |
//! |---|---|
//! | [`helper`] | the process that makes both namespaces, and sockets in them |
//! | `netns` | how the daemon talks to it |
//! | `reflector`, `packet` | the decision about every packet, as a value |
//! | `wire` | the thread between the two TUN devices |
//! | `owned` | namespaces that another user than the daemon's may enter |
//! | `again` | a namespace that outlived its gate is taken up |
//! | `ending` | errors instead of waiting, when daemon or helper are gone |
//! | `dns`, `dns_stream` | names |
//! | `terms` | what a gate is made of, what it needs, and why there is none |
//! | `sys`, and `netlink` beside this level | system calls |

mod again;
mod dns;
mod dns_stream;
mod ending;
pub mod helper;
mod kept;
mod netns;
mod owned;
mod packet;
mod reflector;
mod sys;
mod terms;
mod wire;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use phantom_proto::ident::ApAddress;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::process::Command as ProcessCommand;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::aliases::{self, Aliases, OWN_IPV4, SharedAliases};
use crate::children;
use crate::far::{CONNECT_PATIENCE, ConnectError, Found, Network, Unanswered};
use crate::os::Owner;
use crate::splice::splice;
use netns::{Helper, Life, Wires};
use reflector::{Config, Connect, FlowId, Question, Reflector, Verdict};
use wire::{Command, Event, Wire};

pub(crate) use again::{is_network_namespace, is_same};
pub use kept::{KeptFlow, KeptGate};
pub(crate) use reflector::RACE;
pub(crate) use sys::{network_of, process_behind};
pub use terms::{GateConfig, GateError};

pub use owned::is_able as can_serve_others;

/// Whether this user can have a phantom namespace here: makes one, with the executable of the daemon at `phantomd`, and lets it go.
///
/// # Errors
/// See [`Gate::open`].
pub fn probe(phantomd: &Path) -> Result<(), GateError> {
    // Nobody's: no packet goes there.
    let address = ApAddress::from_ipv6(Ipv6Addr::new(0xfd70, 0, 0, 0, 0, 0, 0, 1));
    let address = address.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let request = (address, OWN_IPV4, Owner::own());
    let made = runtime.block_on(Helper::start(phantomd, &[HELPER_ARGUMENT.into()], request, None));
    made.map(drop)
}

/// Argument that makes the daemon's executable the gate's helper: see [`helper::main`].
pub const HELPER_ARGUMENT: &str = "__netns";

/// After it: ends the phantom namespace of a helper that was killed.
const ENDING_ARGUMENT: &str = "end";

/// In its place: takes a phantom namespace up that outlived its gate.
const AGAIN_ARGUMENT: &str = "again";

/// From the verdict "accepted" to accept(): one round trip between two kernels of this machine, with retransmissions.
const ACCEPT_PATIENCE: Duration = Duration::from_secs(15);

/// A program's listener answers at once; longer means that its backlog is full.
const INCOMING_PATIENCE: Duration = Duration::from_secs(15);

/// DNS questions under way at one time; more are dropped, and asked again by the program.
const MAX_QUESTIONS: usize = 256;

/// Connections to the resolver at one time; most programs ask over UDP.
const MAX_QUESTION_STREAMS: usize = 32;

/// Resolvers in programs ask again after five seconds and give up after a few times.
const QUESTION_PATIENCE: Duration = Duration::from_secs(15);

/// Over TCP nobody asks again.
const STREAM_PATIENCE: Duration = Duration::from_secs(30);

/// Aborting some thousand sockets takes milliseconds.
const ENDING_PATIENCE: Duration = Duration::from_secs(10);

/// The wire's thread ends at its next look, unless the machine is very busy.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// Pause after a failed accept(), mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Attempts to find a free source port when the peer's own is taken.
const PORT_ATTEMPTS: u16 = 8;

/// The phantom namespace of one identity, open as long as this value lives.
pub struct Gate {
    shared: Arc<Shared>,
    namespace: OwnedFd,
    user_namespace: Option<OwnedFd>,
    /// Where connections of programs come in, and the helper's process: for the next process.
    listener: OwnedFd,
    process: OwnedFd,
    process_id: Option<u32>,
    driver: JoinHandle<()>,
}

struct Shared {
    address: ApAddress,
    network: Arc<dyn Network>,
    aliases: SharedAliases,
    /// Before the helper, which takes the devices away when it goes: the wire is to hear of the end first.
    wire: Wire,
    helper: Helper,
    /// The helper or the wire is gone.
    broken_tx: watch::Sender<bool>,
    /// Places for connections to the resolver.
    question_streams: Semaphore,
    /// Flows whose SYN went through, until accept() shows them.
    expected: Mutex<HashMap<FlowId, oneshot::Sender<TcpStream>>>,
}

impl Gate {
    /// Makes the namespace and serves it.
    ///
    /// # Errors
    /// [`GateError::SetUp`] when the system does not permit it, with advice for a person.
    pub async fn open(config: GateConfig, network: Arc<dyn Network>) -> Result<Self, GateError> {
        Self::open_with(config, network, SharedAliases::default(), None).await
    }

    /// [`Self::open`], with an IPv4 view that others show too; in the phantom namespace of a gate `before`, if there was one.
    pub(crate) async fn open_with(
        config: GateConfig,
        network: Arc<dyn Network>,
        aliases: SharedAliases,
        before: Option<OwnedFd>,
    ) -> Result<Self, GateError> {
        let request = (config.address, OWN_IPV4, config.owner);
        let (helper, wires) = Helper::start(&config.helper, &config.helper_arguments, request, before).await?;
        Self::assemble(config, network, aliases, (helper, wires), &[])
    }

    /// Goes on with the gate of the process before.
    ///
    /// # Errors
    /// When descriptors are missing, or the helper has ended.
    pub(crate) fn go_on(
        config: GateConfig,
        network: Arc<dyn Network>,
        aliases: SharedAliases,
        kept: KeptGate,
    ) -> Result<Self, GateError> {
        let incomplete = || io::Error::from(io::ErrorKind::InvalidData);
        let taken = kept::Taken::of(kept.descriptors).ok_or_else(incomplete)?;
        let (helper, life) = Helper::over(taken.helper, taken.process)?;
        let wires = Wires {
            program: taken.program,
            gate: taken.gate,
            listener: taken.listener,
            namespace: taken.namespace,
            user_namespace: taken.user_namespace,
            life,
        };
        *aliases.lock().unwrap_or_else(PoisonError::into_inner) = Aliases::go_on(kept.aliases);
        Self::assemble(config, network, aliases, (helper, wires), &kept.flows)
    }

    fn assemble(
        config: GateConfig,
        network: Arc<dyn Network>,
        aliases: SharedAliases,
        (helper, wires): (Helper, Wires),
        flows: &[KeptFlow],
    ) -> Result<Self, GateError> {
        let (own_listener, process) = (wires.listener.try_clone()?, wires.life.process()?);
        let process_id = wires.life.id();
        let listener = TcpListener::from_std(wires.listener.into())?;
        let settings = Config { address: config.address, listener: listener.local_addr()?.port() };
        let mut reflector = Reflector::new(settings, Arc::clone(&aliases));
        reflector.go_on(Instant::now(), flows);
        let (wire, events) = Wire::start(wires.program, wires.gate, reflector)?;
        let shared = Arc::new(Shared {
            address: config.address,
            network,
            aliases,
            helper,
            wire,
            broken_tx: watch::Sender::new(false),
            question_streams: Semaphore::new(MAX_QUESTION_STREAMS),
            expected: Mutex::default(),
        });
        let loss = Loss {
            life: wires.life,
            network: wires.namespace.try_clone()?,
            user: wires.user_namespace.as_ref().map(OwnedFd::try_clone).transpose()?,
            config,
        };
        let driver = tokio::spawn(drive(Arc::clone(&shared), listener, events, loss));
        let (namespace, user_namespace) = (wires.namespace, wires.user_namespace);
        Ok(Self { shared, namespace, user_namespace, listener: own_listener, process, process_id, driver })
    }

    /// Leaves the gate to the next process: nothing is aborted, and nothing goes through any more. `None`: it is broken.
    pub(crate) async fn leave(&self) -> Option<KeptGate> {
        // First, for the end of the driver's connections is none of the programs'.
        let ([program, gate], flows) = self.shared.wire.leave().await?;
        let helper = self.shared.helper.leave().await?;
        let clone = |descriptor: &OwnedFd| descriptor.try_clone().ok();
        let mut descriptors = vec![program, gate, clone(&self.listener)?, helper, clone(&self.process)?];
        descriptors.push(clone(&self.namespace)?);
        if let Some(user) = &self.user_namespace {
            descriptors.push(clone(user)?);
        }
        let aliases = self.shared.aliases.lock().unwrap_or_else(PoisonError::into_inner).all();
        // The next process hears of its end by this gate.
        children::ended(self.process_id);
        Some(KeptGate { descriptors, flows, aliases })
    }

    /// Connects to the program that listens on `port`; the program sees the connection come from the peer's address and
    /// port (another port if that one is in use between the two).
    ///
    /// # Errors
    /// `Refused` when nobody listens, `TimedOut` when the program does not take it.
    pub async fn incoming(&self, peer: ApAddress, peer_port: u16, port: u16) -> Result<TcpStream, ConnectError> {
        let v6 = self.shared.incoming(SocketAddr::new(peer.ipv6().into(), peer_port), port).await;
        if v6.as_ref().err() != Some(&ConnectError::Refused) || !self.listens(port, Some(false)).await {
            return v6;
        }
        let alias = self.shared.aliases.lock().unwrap_or_else(PoisonError::into_inner).of(peer);
        self.shared.incoming(SocketAddr::new(alias.into(), peer_port), port).await
    }

    /// Whether a program listens on the port, on other addresses than loopback.
    pub async fn listening(&self, port: u16) -> bool {
        self.listens(port, None).await
    }

    /// Whether all programs that listen on the port have as many connections waiting for accept() as they allow.
    pub async fn is_full(&self, port: u16) -> bool {
        let listeners = self.shared.helper.listeners().await.unwrap_or_default();
        let mut here = listeners.iter().filter(|l| l.port == port && !l.loopback).peekable();
        here.peek().is_some() && here.all(|l| l.full)
    }

    /// The ports on which programs listen, on other addresses than loopback; ascending.
    pub async fn listening_ports(&self) -> Vec<u16> {
        self.ports(false).await
    }

    /// The ports on which programs listen on loopback, and maybe elsewhere as well; ascending.
    pub async fn loopback_ports(&self) -> Vec<u16> {
        self.ports(true).await
    }

    async fn ports(&self, on_loopback: bool) -> Vec<u16> {
        let listeners = self.shared.helper.listeners().await.unwrap_or_default();
        let mut ports: Vec<u16> = listeners.iter().filter(|l| l.loopback == on_loopback).map(|l| l.port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    async fn listens(&self, port: u16, v6: Option<bool>) -> bool {
        let listeners = self.shared.helper.listeners().await.unwrap_or_default();
        listeners.iter().any(|l| l.port == port && !l.loopback && v6.is_none_or(|v6| l.v6 == v6))
    }

    /// A socket of the phantom namespace, as socket(2) would make it there (for libphantom.so).
    ///
    /// # Errors
    /// What socket(2) says there; EPERM for kinds that no ordinary user may have.
    pub async fn socket(&self, domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
        self.shared.helper.program_socket(domain, kind, protocol).await
    }

    /// A line of a program's own to who makes such sockets, which ends with the gate.
    ///
    /// # Errors
    /// When there are enough, or the helper is gone.
    pub async fn line(&self) -> io::Result<OwnedFd> {
        self.shared.helper.line().await
    }

    /// Whether a program asked for a socket on such a line since this was asked last.
    pub async fn lines_used(&self) -> bool {
        self.shared.helper.lines_used().await.unwrap_or(false)
    }

    /// The network namespace, and the user namespace that owns it if one had to be made (for phantom-run).
    pub fn namespace(&self) -> (BorrowedFd<'_>, Option<BorrowedFd<'_>>) {
        (self.namespace.as_fd(), self.user_namespace.as_ref().map(AsFd::as_fd))
    }

    /// The address that programs have in the IPv4 view.
    pub fn ipv4(&self) -> Ipv4Addr {
        OWN_IPV4
    }

    /// Hands out the IPv4 address that stands for `address` in this gate (for the hook's resolver functions).
    pub fn alias_of(&self, address: ApAddress) -> Ipv4Addr {
        aliases::shown_as(&self.shared.aliases, self.shared.address, address)
    }

    /// The AP address that an IPv4 address of this gate stands for.
    pub fn behind_alias(&self, alias: Ipv4Addr) -> Option<ApAddress> {
        aliases::behind(&self.shared.aliases, self.shared.address, alias)
    }

    /// Whether it serves nobody any more, as after its helper was killed.
    pub fn is_broken(&self) -> bool {
        self.driver.is_finished() || *self.shared.broken_tx.borrow()
    }

    /// Returns once its helper was killed.
    pub async fn breaks(&self) {
        // Its sender is in this value.
        let _ = self.shared.broken_tx.subscribe().wait_for(|broken| *broken).await;
    }

    /// Cuts the wire now; the rest ends with the value.
    pub fn cut(&self) {
        self.driver.abort();
        self.shared.wire.stop();
    }

    /// Ends the gate: connections of programs are aborted, the wire is cut.
    pub async fn close(mut self) {
        // First, for the driver's connections end by resets: programs shall see them aborted, not reset by the peer.
        let _ = timeout(CLOSE_PATIENCE, self.shared.wire.ended()).await;
        self.driver.abort();
        // It ends right after being aborted; what it held ends with it.
        let _ = (&mut self.driver).await;
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.cut();
    }
}

/// What is to be done when the helper is killed, which by itself would leave programs waiting.
struct Loss {
    life: Life,
    network: OwnedFd,
    user: Option<OwnedFd>,
    config: GateConfig,
}

impl Loss {
    /// Lets another helper abort what the programs have open.
    async fn end(self) {
        let mut command = ProcessCommand::new(&self.config.helper);
        command.args(&self.config.helper_arguments).arg(ENDING_ARGUMENT).env_clear().stdin(self.network);
        command.stdout(self.user.map_or_else(Stdio::null, Stdio::from)).kill_on_drop(true);
        let ended = match command.spawn() {
            Ok(mut child) => timeout(ENDING_PATIENCE, child.wait()).await.unwrap_or_else(|late| Err(late.into())),
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::error!(%error, "connections of programs could not be aborted: restart those programs");
        }
    }
}

/// Everything that happens by itself: SYNs, questions, accepted flows. Ends all its tasks when it is dropped.
async fn drive(shared: Arc<Shared>, listener: TcpListener, mut events: mpsc::Receiver<Event>, mut loss: Loss) {
    let mut flows = JoinSet::new();
    let mut questions = JoinSet::new();
    loop {
        tokio::select! {
            event = events.recv() => match event {
                // Bounded by the SYNs that the reflector holds and by its flows.
                Some(Event::Connect(connect)) => {
                    flows.spawn(outgoing(Arc::clone(&shared), connect));
                }
                Some(Event::Resolve(question)) if questions.len() < MAX_QUESTIONS => {
                    questions.spawn(resolve(Arc::clone(&shared), question));
                }
                // Said first: the program may be over as soon as it has its answer.
                Some(Event::Outside(address, answer)) if questions.len() < MAX_QUESTIONS => {
                    let shared = Arc::clone(&shared);
                    questions.spawn(async move {
                        shared.network.refused(address).await;
                        shared.wire.tell(Command::SendTwice(answer)).await;
                    });
                }
                Some(Event::Outside(_, answer)) => shared.wire.tell(Command::SendTwice(answer)).await,
                Some(Event::Resolve(_)) => {}
                None => {
                    shared.broken_tx.send_replace(true);
                    return;
                }
            },
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => shared.accepted(stream, from),
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            () = loss.life.end() => {
                shared.broken_tx.send_replace(true);
                tracing::warn!("a namespace helper was killed: its programs have no network any more");
                // First: who ends the namespace takes the devices away.
                shared.wire.stop();
                return loss.end().await;
            }
            Some(_) = flows.join_next() => {}
            Some(_) = questions.join_next() => {}
        }
    }
}

/// One connection that a program wants, from its SYN to its end.
async fn outgoing(shared: Arc<Shared>, connect: Connect) {
    let Connect { flow, destination, port, source_port } = connect;
    let Some(destination) = destination else { return question_stream(shared, flow).await };
    let attempt = shared.network.connect(shared.address, source_port, destination, port);
    let far = match timeout(CONNECT_PATIENCE, attempt).await.unwrap_or(Err(ConnectError::TimedOut)) {
        Ok(far) => far,
        Err(error) => return shared.wire.tell(Command::Verdict(flow, verdict_of(error))).await,
    };
    // If the program has gone meanwhile, the far end is dropped: a reset.
    if let Some(stream) = shared.let_through(flow).await {
        splice(stream, far).await;
    }
}

/// A program asks the resolver over TCP.
async fn question_stream(shared: Arc<Shared>, flow: FlowId) {
    let Ok(_place) = shared.question_streams.try_acquire() else {
        return shared.wire.tell(Command::Verdict(flow, Verdict::Refused)).await;
    };
    let Some(mut stream) = shared.let_through(flow).await else { return };
    while let Some(question) = dns_stream::question(&mut stream).await {
        let answer = dns::answer(&question, shared.address, shared.network.as_ref(), &shared.aliases);
        let Ok(Some(answer)) = timeout(STREAM_PATIENCE, answer).await else { return };
        if dns_stream::answer(&mut stream, &answer).await.is_none() {
            return;
        }
    }
}

/// Whether a name is this computer's: some systems' libc has it from the kernel and not from a file.
fn is_own_name(name: &str) -> bool {
    rustix::system::uname().nodename().to_str().is_ok_and(|own| own.eq_ignore_ascii_case(name))
}

fn verdict_of(error: ConnectError) -> Verdict {
    match error {
        ConnectError::Refused => Verdict::Refused,
        ConnectError::Unreachable | ConnectError::Unsure => Verdict::Unreachable,
        ConnectError::TimedOut => Verdict::Silent,
        ConnectError::Prohibited => Verdict::Prohibited,
    }
}

async fn resolve(shared: Arc<Shared>, question: Question) {
    let Question { from, to, message } = question;
    let answer = dns::answer(&message, shared.address, shared.network.as_ref(), &shared.aliases);
    if let Ok(Some(answer)) = timeout(QUESTION_PATIENCE, answer).await {
        shared.wire.tell(Command::Send(packet::udp(to, from, &answer))).await;
    }
}

impl Shared {
    /// Lets a held SYN through and waits for the connection.
    async fn let_through(&self, flow: FlowId) -> Option<TcpStream> {
        let (accepted, stream) = oneshot::channel();
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).insert(flow, accepted);
        self.wire.tell(Command::Verdict(flow, Verdict::Accepted)).await;
        let stream = timeout(ACCEPT_PATIENCE, stream).await;
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).remove(&flow);
        stream.ok()?.ok()
    }

    /// Hands a flow that went through to the task that waits for it.
    fn accepted(&self, stream: TcpStream, from: SocketAddr) {
        let waiting = FlowId::from_address(from.ip())
            .and_then(|flow| self.expected.lock().unwrap_or_else(PoisonError::into_inner).remove(&flow));
        // Nobody waits any more: the stream is closed.
        if let Some(waiting) = waiting {
            let _ = waiting.send(stream);
        }
    }

    async fn incoming(&self, mut far: SocketAddr, port: u16) -> Result<TcpStream, ConnectError> {
        let flow = self.expect(&mut far, port).await?;
        let result = timeout(INCOMING_PATIENCE, self.dial(flow, far.is_ipv4(), port)).await;
        match result {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return Err(ConnectError::Refused),
            _ => {}
        }
        self.wire.tell(Command::Forget(flow)).await;
        Err(if result.is_err() { ConnectError::TimedOut } else { ConnectError::Unreachable })
    }

    /// Announces the connection to the reflector, from another port if `far`'s own is taken or zero.
    async fn expect(&self, far: &mut SocketAddr, port: u16) -> Result<FlowId, ConnectError> {
        for _ in 0..PORT_ATTEMPTS {
            if far.port() != 0 {
                let (answer, flow) = oneshot::channel();
                self.wire.tell(Command::Expect(*far, port, answer)).await;
                match flow.await {
                    Ok(Some(flow)) => return Ok(flow),
                    Ok(None) => {}
                    Err(_) => return Err(ConnectError::Unreachable),
                }
            }
            far.set_port(rand::random_range(32_768..=60_999));
        }
        Err(ConnectError::Unreachable)
    }

    async fn dial(&self, flow: FlowId, v4: bool, port: u16) -> io::Result<TcpStream> {
        let socket = self.helper.gate_socket(v4).await?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        let socket = TcpSocket::from_std_stream(socket.into());
        socket.connect(SocketAddr::new(flow.address(v4), port)).await
    }
}
