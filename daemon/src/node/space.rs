//! One open identity: its gate, what its programs reach, and what reaches them.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use phantom_proto::crypto::SigningKey;
use phantom_proto::ident::ApAddress;
use tokio::sync::{Mutex, OnceCell};
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep};

use crate::control::{Refusal, Space};
use crate::gate::{self, ConnectError, Gate, GateConfig, Owner, Stream, splice};
use crate::identity::ApIdentity;
use crate::names::Names;
use crate::network::{Network, Programs};
use crate::startup::Setup;

/// How often the gate is asked what listens: a server is on its way to be reachable this soon after it listens.
const LISTEN_EVERY: Duration = Duration::from_millis(250);

/// How often a listener with a full queue is looked at: sooner than a kernel would repeat its SYN.
const ROOM_EVERY: Duration = Duration::from_millis(200);

/// An identity's use of the network. A fresh one begins with the first sign that its programs want one: most programs
/// that a shell starts never do, and paths for them would be a burden on everybody. Nobody waits longer for that, as long
/// as there are spare paths, which an identity takes as they are.
struct Use {
    network: Arc<Network>,
    key: Arc<SigningKey>,
    address: ApAddress,
    programs: Arc<Inside>,
    stage: Mutex<Stage>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Unused,
    Begun,
    Over,
}

impl Use {
    async fn begin(&self) {
        let mut stage = self.stage.lock().await;
        if *stage == Stage::Unused {
            self.network.open(self.key.clone(), self.programs.clone()).await;
            *stage = Stage::Begun;
        }
    }

    async fn end(&self) {
        let mut stage = self.stage.lock().await;
        if std::mem::replace(&mut *stage, Stage::Over) == Stage::Begun {
            self.network.close(self.address).await;
        }
    }
}

/// What the gate needs of the network, for one identity.
struct Outside {
    usage: Arc<Use>,
    names: Arc<Names>,
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
        self.usage.network.connect(from, source_port, destination, port).await
    }

    async fn resolve(&self, name: &str) -> Option<ApAddress> {
        let found = self.names.resolve(name);
        if found.is_some() {
            // Who asks for an address is about to connect to it.
            self.usage.begin().await;
        }
        found
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

/// See [`Space`].
struct GateSpace {
    usage: Arc<Use>,
    /// For the answers that must not wait.
    gate: Arc<Gate>,
    watch: Mutex<Option<JoinHandle<()>>>,
}

/// Opens the gate of an identity, and begins to keep paths for it if it has a name.
pub(super) async fn open(
    setup: &Setup,
    network: &Arc<Network>,
    identity: &ApIdentity,
    owner: Owner,
) -> Result<Arc<dyn Space>, Refusal> {
    let refused =
        |hint: String| Refusal { errno: libc::ENETDOWN, message: "no phantom namespace can be made here".into(), hint };
    let address = identity.address();
    let inside = Arc::new(Inside::default());
    let key = Arc::new(SigningKey::from_seed(identity.key.seed()));
    let (programs, stage) = (inside.clone(), Mutex::new(Stage::Unused));
    let usage = Arc::new(Use { network: network.clone(), key, address, programs, stage });
    if identity.name.is_some() {
        // The exit path is on its way while the namespace is made.
        usage.begin().await;
    }
    // The running executable itself, also when an update has replaced its file meanwhile.
    let helper = PathBuf::from("/proc/self/exe");
    let outside = Arc::new(Outside { usage: usage.clone(), names: setup.names.clone() });
    setup.names.remember(identity.phantom_name());
    let config = GateConfig { owner, ..GateConfig::new(address, helper) };
    let gate = match Gate::open(config, outside).await {
        Ok(gate) => Arc::new(gate),
        Err(error) => {
            usage.end().await;
            return Err(refused(error.to_string()));
        }
    };
    // Set once, here.
    let _ = inside.0.set(Arc::downgrade(&gate));
    let watch = tokio::spawn(publish_when_listening(usage.clone(), Arc::downgrade(&gate)));
    Ok(Arc::new(GateSpace { usage, gate, watch: Mutex::new(Some(watch)) }))
}

/// The first program that listens makes the identity reachable, until it is closed.
async fn publish_when_listening(usage: Arc<Use>, gate: Weak<Gate>) {
    let mut look = interval(LISTEN_EVERY);
    loop {
        look.tick().await;
        let Some(gate) = gate.upgrade() else { return };
        if !gate.listening_ports().await.is_empty() {
            usage.begin().await;
            return usage.network.publish(usage.address).await;
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

    async fn in_use(&self) -> bool {
        !self.gate.listening_ports().await.is_empty()
            || self.usage.network.connections().iter().any(|one| one.open && one.identity == self.usage.address)
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
