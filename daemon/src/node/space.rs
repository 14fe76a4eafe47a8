//! One open identity: its gate, what its programs reach, and what reaches them.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex as Lock, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use phantom_proto::ident::ApAddress;
use tokio::sync::{Mutex, OnceCell};
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep};

use crate::control::{Refusal, Space};
use crate::gate::{self, ConnectError, Found, Gate, GateConfig, Network as _, Owner, Stream, Unanswered, splice};
use crate::identity::ApIdentity;
use crate::names::{self, Names};
use crate::network::{Network, Programs};
use crate::resolver::{Dial, Resolver};
use crate::startup::Setup;

use super::doors::{Doors, Taken};

/// How often the gate is asked what listens: a server is on its way to be reachable this soon after it listens.
const LISTEN_EVERY: Duration = Duration::from_millis(250);

/// How often a listener with a full queue is looked at: sooner than a kernel would repeat its SYN.
const ROOM_EVERY: Duration = Duration::from_millis(200);

/// An identity's use of the network. A fresh one begins with the first sign that its programs want one: most programs
/// that a shell starts never do, and paths for them would be a burden on everybody. Nobody waits longer for that, as long
/// as there are spare paths, which an identity takes as they are.
struct Use {
    doors: Arc<Doors>,
    identity: Arc<ApIdentity>,
    programs: Arc<dyn Programs>,
    stage: Mutex<Stage>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Unused,
    Begun,
    Over,
}

impl Use {
    fn address(&self) -> ApAddress {
        self.identity.address()
    }

    fn network(&self) -> &Network {
        self.doors.network()
    }

    async fn begin(&self) {
        let mut stage = self.stage.lock().await;
        if *stage == Stage::Unused {
            self.doors.enter(&self.identity, self.programs.clone()).await;
            *stage = Stage::Begun;
        }
    }

    async fn end(&self) {
        let mut stage = self.stage.lock().await;
        if std::mem::replace(&mut *stage, Stage::Over) == Stage::Begun {
            self.doors.leave(self.address()).await;
        }
    }
}

/// What the gate needs of the network, for one identity.
struct Outside {
    usage: Arc<Use>,
    names: Arc<Names>,
    /// Who is asked for names of the ordinary DNS; this identity's own.
    resolver: Option<Resolver>,
}

/// How long a name of ours holds, in seconds: until the configuration changes, and the daemon is started again then.
const OWN_LIFETIME: u32 = 60;

/// Ports from which the resolver sees questions come, as from any program.
const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// The way to the resolver, from one identity.
struct ToResolver {
    usage: Arc<Use>,
    to: names::Resolver,
}

#[async_trait]
impl Dial for ToResolver {
    async fn dial(&self) -> Result<Box<dyn Stream>, ConnectError> {
        let source_port = rand::random_range(SOURCE_PORTS);
        self.usage.begin().await;
        let (from, to) = (self.usage.address(), self.to.target.address());
        self.usage.network().connect(from, source_port, to, self.to.port).await
    }
}

#[async_trait]
impl gate::Network for Outside {
    async fn connect(
        &self,
        from: ApAddress,
        source_port: u16,
        destination: ApAddress,
        port: u16,
    ) -> Result<Box<dyn Stream>, ConnectError> {
        self.usage.begin().await;
        self.usage.network().connect(from, source_port, destination, port).await
    }

    async fn resolve(&self, name: &str) -> Result<Option<Found>, Unanswered> {
        if let Some(address) = self.names.resolve(name) {
            // Who asks for an address is about to connect to it.
            self.usage.begin().await;
            return Ok(Some(Found { address, lifetime: OWN_LIFETIME }));
        }
        match &self.resolver {
            Some(resolver) => resolver.resolve(name).await,
            None => Ok(None),
        }
    }

    async fn name_of(&self, address: ApAddress) -> Option<String> {
        self.names.name_of(address)
    }
}

/// Programs behind a gate; empty until the gate stands, and after it is gone.
#[derive(Default)]
struct Inside(OnceCell<Weak<Gate>>);

impl Inside {
    fn gate(&self) -> Option<Arc<Gate>> {
        self.0.get()?.upgrade()
    }
}

#[async_trait]
impl Programs for Inside {
    async fn listens(&self, port: u16) -> bool {
        while let Some(gate) = self.gate() {
            if !gate.is_full(port).await {
                return gate.listening(port).await;
            }
            drop(gate);
            sleep(ROOM_EVERY).await;
        }
        false
    }

    async fn serve(&self, peer: ApAddress, src_port: u16, port: u16, far: Box<dyn Stream>) {
        let Some(gate) = self.gate() else { return };
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

/// Ports that the programs have published, by where, and how often; nothing means that nobody wanted to choose.
#[derive(Default)]
struct Published(Lock<BTreeMap<(ApAddress, u16), usize>>);

impl Published {
    /// Whether the programs' own identity is to be reached on the port.
    fn admits(&self, own: ApAddress, port: u16) -> bool {
        let published = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        published.is_empty() || published.contains_key(&(own, port))
    }

    fn add(&self, at: ApAddress, port: u16) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((at, port)).or_default() += 1;
    }

    fn remove(&self, at: ApAddress, port: u16) {
        let mut published = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(times) = published.get_mut(&(at, port)) {
            *times -= 1;
            if *times == 0 {
                published.remove(&(at, port));
            }
        }
    }
}

/// The programs at their own identity: all that they listen on, or only what they published.
struct Own {
    address: ApAddress,
    inside: Arc<dyn Programs>,
    published: Arc<Published>,
}

#[async_trait]
impl Programs for Own {
    async fn listens(&self, port: u16) -> bool {
        self.published.admits(self.address, port) && self.inside.listens(port).await
    }

    async fn serve(&self, peer: ApAddress, src_port: u16, port: u16, far: Box<dyn Stream>) {
        if self.published.admits(self.address, port) {
            self.inside.serve(peer, src_port, port, far).await;
        }
    }
}

/// See [`Space`].
struct GateSpace {
    usage: Arc<Use>,
    outside: Arc<Outside>,
    inside: Arc<dyn Programs>,
    published: Arc<Published>,
    /// For the answers that must not wait.
    gate: Arc<Gate>,
    watch: Mutex<Option<JoinHandle<()>>>,
}

/// Opens the gate of an identity, and begins to keep paths for it if it has a name.
pub(super) async fn open(
    setup: &Setup,
    doors: &Arc<Doors>,
    identity: Arc<ApIdentity>,
    owner: Owner,
) -> Result<Arc<dyn Space>, Refusal> {
    let refused =
        |hint: String| Refusal { errno: libc::ENETDOWN, message: "no phantom namespace can be made here".into(), hint };
    let address = identity.address();
    let gated = Arc::new(Inside::default());
    let inside: Arc<dyn Programs> = gated.clone();
    let published = Arc::new(Published::default());
    let own = Arc::new(Own { address, inside: inside.clone(), published: published.clone() });
    let (name, is_named) = (identity.phantom_name(), identity.name.is_some());
    let usage = Arc::new(Use { doors: doors.clone(), identity, programs: own, stage: Mutex::new(Stage::Unused) });
    if is_named {
        // The exit path is on its way while the namespace is made.
        usage.begin().await;
    }
    // The running executable itself, also when an update has replaced its file meanwhile.
    let helper = PathBuf::from("/proc/self/exe");
    let outside = Arc::new(outside(setup, &usage));
    setup.names.remember(name);
    let config = GateConfig { owner, ..GateConfig::new(address, helper) };
    let gate = match Gate::open(config, outside.clone()).await {
        Ok(gate) => Arc::new(gate),
        Err(error) => {
            usage.end().await;
            return Err(refused(error.to_string()));
        }
    };
    // Set once, here.
    let _ = gated.0.set(Arc::downgrade(&gate));
    let watch = publish_when_listening(usage.clone(), Arc::downgrade(&gate), published.clone());
    let watch = Mutex::new(Some(tokio::spawn(watch)));
    Ok(Arc::new(GateSpace { usage, outside, inside, published, gate, watch }))
}

fn outside(setup: &Setup, usage: &Arc<Use>) -> Outside {
    let dial = |to| ToResolver { usage: usage.clone(), to };
    let resolver = setup.config.resolver.map(|to| Resolver::new(dial(to)));
    Outside { usage: usage.clone(), names: setup.names.clone(), resolver }
}

/// The first program that listens makes the identity reachable, until it is closed.
async fn publish_when_listening(usage: Arc<Use>, gate: Weak<Gate>, published: Arc<Published>) {
    let mut look = interval(LISTEN_EVERY);
    loop {
        look.tick().await;
        let Some(gate) = gate.upgrade() else { return };
        let address = usage.address();
        if gate.listening_ports().await.into_iter().any(|port| published.admits(address, port)) {
            usage.begin().await;
            return usage.network().publish(address).await;
        }
    }
}

#[async_trait]
impl Space for GateSpace {
    fn namespaces(&self) -> io::Result<(OwnedFd, Option<OwnedFd>)> {
        let (net, user) = self.gate.namespace();
        Ok((net.try_clone_to_owned()?, user.map(|user| user.try_clone_to_owned()).transpose()?))
    }

    async fn socket(&self, domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
        self.gate.socket(domain, kind, protocol).await
    }

    fn ipv4(&self) -> Ipv4Addr {
        self.gate.ipv4()
    }

    fn alias_of(&self, address: ApAddress) -> Ipv4Addr {
        self.gate.alias_of(address)
    }

    fn behind_alias(&self, alias: Ipv4Addr) -> Option<ApAddress> {
        self.gate.behind_alias(alias)
    }

    async fn resolve(&self, name: &str) -> Result<Option<ApAddress>, Unanswered> {
        Ok(self.outside.resolve(name).await?.map(|found| found.address))
    }

    async fn publish(&self, port: u16, at: &ApIdentity) -> Result<(), Refusal> {
        let address = at.address();
        // Before the first connection can arrive.
        self.published.add(address, port);
        if address == self.usage.address() {
            self.usage.begin().await;
            self.usage.network().publish(address).await;
        } else if let Err(Taken) = self.usage.doors.publish(at, port, self.usage.address(), &self.inside).await {
            self.published.remove(address, port);
            return Err(Refusal {
                errno: libc::EADDRINUSE,
                message: format!("another program is reached on port {port} of that identity already"),
                hint: "end that program, or publish another port or at another identity".into(),
            });
        }
        Ok(())
    }

    async fn unpublish(&self, port: u16, at: ApAddress) {
        if at != self.usage.address() {
            self.usage.doors.unpublish(at, port, self.usage.address()).await;
        }
        self.published.remove(at, port);
    }

    async fn in_use(&self) -> bool {
        !self.gate.listening_ports().await.is_empty()
            || self.usage.network().connections().iter().any(|one| one.open && one.identity == self.usage.address())
    }

    fn is_broken(&self) -> bool {
        self.gate.is_broken()
    }

    async fn close(&self) {
        if let Some(watch) = self.watch.lock().await.take() {
            watch.abort();
        }
        self.usage.end().await;
        self.gate.cut();
    }
}
