//! Unix: behind the identity's gate, or emulated where there can be none.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use phantom_ipc::errno;
use phantom_ipc::hook::{Call, Loopback, Reply};
use phantom_proto::ident::ApAddress;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::aliases::{Aliases, SharedAliases};
use crate::control::{Beside, Descriptor, Kind, Lasting, Refusal};
use crate::emulation::Emulation;
use crate::far::{Network, Stream};
use crate::gate::{self, Gate, GateConfig, GateError, KeptGate};
use crate::os::Owner;
use crate::splice::splice;

/// How often a gate that could not be made is tried again: what it takes may have come.
const GATE_EVERY: Duration = Duration::from_secs(10);

/// See the module.
pub(in crate::assembly) struct Sockets {
    config: GateConfig,
    network: Arc<dyn Network>,
    aliases: SharedAliases,
    /// Made when the first program wants it: with emulated sockets none does.
    gate: OnceCell<Arc<Gate>>,
    /// When it could not be made, and why.
    no_gate: Mutex<Option<(Instant, Refusal)>>,
    emulation: Arc<Emulation>,
}

/// Sockets that cannot outlive the process.
#[derive(Debug)]
pub(in crate::assembly) struct EndsWithIt;

/// Where a program listens.
pub(in crate::assembly) enum Listener {
    Emulated(Arc<Emulation>),
    Behind(Arc<Gate>),
}

impl Listener {
    /// Brings it a connection, and carries that to its end.
    pub(in crate::assembly) async fn serve(self, peer: ApAddress, src_port: u16, port: u16, far: Box<dyn Stream>) {
        let gate = match self {
            Self::Emulated(emulation) => return emulation.serve(peer, src_port, port, far).await,
            Self::Behind(gate) => gate,
        };
        match gate.incoming(peer, src_port, port).await {
            Ok(tcp) => {
                drop(gate);
                splice(tcp, far).await;
            }
            // The program stopped to listen after the verdict: dropping the stream resets the connection.
            Err(error) => tracing::debug!(%error, "a program did not take a connection"),
        }
    }
}

impl Sockets {
    /// None yet, and no gate. `owner` is whose programs may enter it.
    pub(in crate::assembly) fn new(address: ApAddress, owner: Owner, network: Arc<dyn Network>) -> Self {
        // The running executable itself, also when an update has replaced its file meanwhile.
        let helper = PathBuf::from("/proc/self/exe");
        let aliases: SharedAliases = Arc::new(Mutex::new(Aliases::anywhere()));
        Self {
            emulation: Arc::new(Emulation::new(address, network.clone(), aliases.clone())),
            config: GateConfig { owner, ..GateConfig::new(address, helper) },
            gate: OnceCell::new(),
            no_gate: Mutex::default(),
            network,
            aliases,
        }
    }

    /// The gate, made if there is none yet. What could not be made just now is not tried at once again: without gates,
    /// every socket() of a preloaded program would.
    async fn gate(&self) -> Result<Arc<Gate>, Refusal> {
        if let Some(gate) = self.standing_gate() {
            return Ok(gate);
        }
        let before = self.no_gate.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, refusal)) = before.filter(|(when, _)| when.elapsed() < GATE_EVERY) {
            return Err(refusal);
        }
        let made = self.gate.get_or_try_init(async || self.make(None).await).await;
        made.cloned().map_err(|error| {
            let message = "no phantom namespace can be made here".into();
            let refusal = Refusal { errno: errno::EOPNOTSUPP, message, hint: error.to_string() };
            *self.no_gate.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), refusal.clone()));
            refusal
        })
    }

    /// Leaves the gate to the next process, if there is one.
    ///
    /// # Errors
    /// When it is broken, or all that programs have is emulated, and ends with the process.
    pub(in crate::assembly) async fn leave(&self) -> Result<Option<KeptGate>, EndsWithIt> {
        match self.standing_gate() {
            Some(gate) => gate.leave().await.map(Some).ok_or(EndsWithIt),
            None if self.emulation.in_use() => Err(EndsWithIt),
            None => Ok(None),
        }
    }

    /// Goes on with a gate of the process before.
    ///
    /// # Errors
    /// When it is not whole.
    pub(in crate::assembly) fn go_on(&self, kept: KeptGate) -> Result<(), Refusal> {
        let gate = Gate::go_on(self.config.clone(), self.network.clone(), self.aliases.clone(), kept);
        let gate = gate.map_err(|error| Refusal {
            errno: errno::EIO,
            message: "a phantom namespace of the process before is lost".into(),
            hint: error.to_string(),
        })?;
        // Nothing has made another one yet.
        let _ = self.gate.set(Arc::new(gate));
        Ok(())
    }

    /// The gate in a phantom namespace that programs have from a daemon before, or from a gate that broke.
    async fn gate_of(&self, before: Beside) -> Result<Arc<Gate>, Refusal> {
        let Some(space) = before.take(Kind::Network).await else { return Err(no_namespace()) };
        let copy = space.try_clone().map_err(|error| not_passed(&error))?;
        let made = self.gate.get_or_try_init(async || self.make(Some(copy)).await).await;
        let gate = made.map_err(|error| not_taken_up(error.to_string()))?;
        if gate::is_same(gate.namespace().0, space).unwrap_or(false) { Ok(gate.clone()) } else { Err(elsewhere()) }
    }

    async fn make(&self, before: Option<OwnedFd>) -> Result<Arc<Gate>, GateError> {
        let (config, network, aliases) = (self.config.clone(), self.network.clone(), self.aliases.clone());
        Gate::open_with(config, network, aliases, before).await.map(Arc::new)
    }

    /// The gate, if there is one.
    fn standing_gate(&self) -> Option<Arc<Gate>> {
        self.gate.get().cloned()
    }

    /// Whether a program listens on the port; none while all that do have as many waiting as they allow.
    pub(in crate::assembly) async fn listens(&self, port: u16) -> Option<bool> {
        if self.emulation.listens(port) {
            return Some(true);
        }
        let Some(gate) = self.standing_gate() else { return Some(false) };
        if gate.is_full(port).await { None } else { Some(gate.listening(port).await) }
    }

    /// Who takes connections to the port.
    pub(in crate::assembly) fn listener(&self, port: u16) -> Option<Listener> {
        if self.emulation.listens(port) {
            return Some(Listener::Emulated(self.emulation.clone()));
        }
        self.standing_gate().map(Listener::Behind)
    }

    /// Ports on which programs listen for the network.
    pub(in crate::assembly) async fn listening_ports(&self) -> Vec<u16> {
        let mut ports = self.emulation.listening_ports();
        if let Some(gate) = self.standing_gate() {
            ports.extend(gate.listening_ports().await);
        }
        ports
    }

    /// Ports on which programs listen for each other.
    pub(in crate::assembly) async fn loopback_ports(&self) -> Vec<u16> {
        let mut ports = self.emulation.loopback_ports();
        if let Some(gate) = self.standing_gate() {
            ports.extend(gate.loopback_ports().await);
        }
        ports
    }

    /// See [`crate::control::Space::namespaces`].
    pub(in crate::assembly) async fn namespaces(
        &self,
        before: Option<Beside>,
    ) -> Result<(Descriptor, Option<Descriptor>), Refusal> {
        let gate = match before {
            Some(before) => self.gate_of(before).await?,
            None => self.gate().await?,
        };
        let (net, user) = gate.namespace();
        let net = net.try_clone_to_owned();
        let both = net.and_then(|net| Ok((net, user.map(|user| user.try_clone_to_owned()).transpose()?)));
        both.map_err(|error| not_passed(&error))
    }

    /// See [`crate::control::Space::emulated`].
    pub(in crate::assembly) async fn emulated(
        &self,
        socket: u64,
        call: &Call,
        beside: Option<Beside>,
    ) -> Result<(Reply, Option<Descriptor>), i32> {
        self.emulation.call(socket, call, beside).await
    }

    /// See [`crate::control::Space::loopback`]: not needed, since descriptors can be passed.
    pub(in crate::assembly) async fn loopback(&self, _: &Loopback) -> Result<(Reply, Option<Lasting>), i32> {
        Err(errno::EOPNOTSUPP)
    }

    /// See [`crate::control::Space::socket`].
    pub(in crate::assembly) async fn socket(&self, domain: i32, kind: i32, protocol: i32) -> io::Result<Descriptor> {
        match self.gate().await {
            Ok(gate) => gate.socket(domain, kind, protocol).await,
            Err(_) => self.emulation.socket(domain, kind, protocol).map_err(io::Error::from_raw_os_error),
        }
    }

    /// See [`crate::control::Space::line`].
    pub(in crate::assembly) async fn line(&self, emulated: bool) -> io::Result<Descriptor> {
        if emulated {
            return self.emulation.line();
        }
        match self.gate().await {
            Ok(gate) => gate.line().await,
            Err(_) => self.emulation.line(),
        }
    }

    /// The IPv4 address that stands for `address` here.
    pub(in crate::assembly) fn alias_of(&self, address: ApAddress) -> Ipv4Addr {
        self.emulation.alias_of(address)
    }

    /// The AP address that an IPv4 address stands for here.
    pub(in crate::assembly) fn behind_alias(&self, alias: Ipv4Addr) -> Option<ApAddress> {
        self.emulation.behind_alias(alias)
    }

    /// Whether a program may still have one.
    pub(in crate::assembly) async fn in_use(&self) -> bool {
        let used = match self.standing_gate() {
            Some(gate) => gate.lines_used().await,
            None => false,
        };
        used || !self.listening_ports().await.is_empty() || self.emulation.in_use()
    }

    /// Whether they serve nobody any more.
    pub(in crate::assembly) fn is_broken(&self) -> bool {
        self.gate.get().is_some_and(|gate| gate.is_broken())
    }

    /// Returns once the gate breaks that there is.
    pub(in crate::assembly) async fn breaks(&self) {
        match self.gate.get() {
            Some(gate) => gate.breaks().await,
            None => std::future::pending().await,
        }
    }

    /// Ends them all.
    pub(in crate::assembly) fn cut(&self) {
        self.emulation.cut();
        if let Some(gate) = self.standing_gate() {
            gate.cut();
        }
    }
}

fn not_passed(error: &io::Error) -> Refusal {
    Refusal {
        errno: error.raw_os_error().unwrap_or(errno::EIO),
        message: "the namespaces cannot be passed on".into(),
        hint: "give phantomd more file descriptors".into(),
    }
}

fn no_namespace() -> Refusal {
    Refusal {
        errno: errno::EINVAL,
        message: "no network namespace came with the request".into(),
        hint: "pass one that a daemon gave".into(),
    }
}

fn not_taken_up(why: String) -> Refusal {
    Refusal { errno: errno::EPERM, message: why, hint: "start the programs in it anew".into() }
}

fn elsewhere() -> Refusal {
    Refusal {
        errno: errno::EBUSY,
        message: "this identity is in another phantom namespace now, by programs that were started meanwhile".into(),
        hint: "end those, or start this one anew".into(),
    }
}
