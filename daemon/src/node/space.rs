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
use crate::gate::{self, ConnectError, Gate, GateConfig, Stream, splice};
use crate::identity::ApIdentity;
use crate::names::Names;
use crate::network::{Network, Programs};
use crate::startup::Setup;

/// How often the gate is asked what listens: a server is on its way to be reachable this soon after it listens.
const LISTEN_EVERY: Duration = Duration::from_millis(250);

/// How often a listener with a full queue is looked at: sooner than a kernel would repeat its SYN.
const ROOM_EVERY: Duration = Duration::from_millis(200);

/// What the gate needs of the network, for one identity.
struct Outside {
    network: Arc<Network>,
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
        self.network.connect(from, source_port, destination, port).await
    }

    async fn resolve(&self, name: &str) -> Option<ApAddress> {
        self.names.resolve(name)
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
    address: ApAddress,
    network: Arc<Network>,
    /// For the answers that must not wait.
    gate: Arc<Gate>,
    watch: Mutex<Option<JoinHandle<()>>>,
}

/// Opens the gate of an identity and begins to keep paths for it.
pub(super) async fn open(
    setup: &Setup,
    network: &Arc<Network>,
    identity: &ApIdentity,
) -> Result<Arc<dyn Space>, Refusal> {
    let refused = |message: String| Refusal {
        errno: libc::ENETDOWN,
        message,
        hint: "phantomd needs /dev/net/tun and network namespaces: run it as root, or allow both to its user".into(),
    };
    let address = identity.address();
    let inside = Arc::new(Inside::default());
    // The exit path is on its way while the namespace is made.
    let key = Arc::new(SigningKey::from_seed(identity.key.seed()));
    network.open(key, inside.clone()).await;
    // The running executable itself, also when an update has replaced its file meanwhile.
    let helper = PathBuf::from("/proc/self/exe");
    let outside = Arc::new(Outside { network: network.clone(), names: setup.names.clone() });
    setup.names.remember(identity.phantom_name());
    let gate = match Gate::open(GateConfig::new(address, helper), outside).await {
        Ok(gate) => Arc::new(gate),
        Err(error) => {
            network.close(address).await;
            return Err(refused(error.to_string()));
        }
    };
    // Set once, here.
    let _ = inside.0.set(Arc::downgrade(&gate));
    let watch = tokio::spawn(publish_when_listening(network.clone(), address, Arc::downgrade(&gate)));
    Ok(Arc::new(GateSpace { address, network: network.clone(), gate, watch: Mutex::new(Some(watch)) }))
}

/// The first program that listens makes the identity reachable, until it is closed.
async fn publish_when_listening(network: Arc<Network>, address: ApAddress, gate: Weak<Gate>) {
    let mut look = interval(LISTEN_EVERY);
    loop {
        look.tick().await;
        let Some(gate) = gate.upgrade() else { return };
        if !gate.listening_ports().await.is_empty() {
            return network.publish(address).await;
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
            || self.network.connections().iter().any(|one| one.open && one.identity == self.address)
    }

    async fn close(&self) {
        if let Some(watch) = self.watch.lock().await.take() {
            watch.abort();
        }
        self.network.close(self.address).await;
        self.gate.cut();
    }
}
