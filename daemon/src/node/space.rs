//! One open identity: its gate, what its programs reach, and what reaches them.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use phantom_ipc::hook::{Call, Reply};
use phantom_proto::crypto::SigningKey;
use phantom_proto::ident::ApAddress;
use tokio::sync::{Mutex, OnceCell};
use tokio::task::JoinHandle;
use tokio::time::interval;

use crate::control::{Refusal, Space};
use crate::emulation::Emulation;
use crate::gate::{self, ConnectError, Gate, GateConfig, OWN_IPV4, SharedAliases, Stream, splice};
use crate::identity::ApIdentity;
use crate::names::Names;
use crate::network::{Network, Programs};
use crate::startup::Setup;

/// How often the gate is asked what listens: a server is on its way to be reachable this soon after it listens.
const LISTEN_EVERY: Duration = Duration::from_millis(250);

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

/// The programs of an identity: behind its gate and with emulated sockets. Empty until it is open, and after it.
#[derive(Default)]
struct Inside(OnceCell<Weak<NodeSpace>>);

impl Inside {
    fn space(&self) -> Option<Arc<NodeSpace>> {
        self.0.get()?.upgrade()
    }
}

#[async_trait]
impl Programs for Inside {
    async fn listens(&self, port: u16) -> bool {
        let Some(space) = self.space() else { return false };
        if space.emulation.listens(port) {
            return true;
        }
        match space.standing_gate() {
            Some(gate) => gate.listening(port).await,
            None => false,
        }
    }

    async fn serve(&self, peer: ApAddress, src_port: u16, port: u16, far: Box<dyn Stream>) {
        let Some(space) = self.space() else { return };
        if space.emulation.listens(port) {
            let emulation = Arc::clone(&space.emulation);
            drop(space);
            return emulation.serve(peer, src_port, port, far).await;
        }
        let Some(gate) = space.standing_gate() else { return };
        drop(space);
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
struct NodeSpace {
    address: ApAddress,
    network: Arc<Network>,
    outside: Arc<Outside>,
    aliases: SharedAliases,
    helper: PathBuf,
    /// Made when the first program wants it; where it cannot be made, the reason stays.
    gate: OnceCell<Result<Arc<Gate>, Refusal>>,
    emulation: Arc<Emulation>,
    watch: Mutex<Option<JoinHandle<()>>>,
}

/// Opens an identity and begins to keep paths for it.
pub(super) async fn open(
    setup: &Setup,
    network: &Arc<Network>,
    identity: &ApIdentity,
) -> Result<Arc<dyn Space>, Refusal> {
    let helper = std::env::current_exe().map_err(|error| no_gate(error.to_string()))?;
    let address = identity.address();
    let outside = Arc::new(Outside { network: Arc::clone(network), names: Arc::clone(&setup.names) });
    let aliases = SharedAliases::default();
    let emulation = Arc::new(Emulation::new(address, outside.clone(), aliases.clone()));
    let inside = Arc::new(Inside::default());
    let key = Arc::new(SigningKey::from_seed(identity.key.seed()));
    network.open(key, inside.clone()).await;
    let space = Arc::new(NodeSpace {
        address,
        network: Arc::clone(network),
        outside,
        aliases,
        helper,
        gate: OnceCell::new(),
        emulation,
        watch: Mutex::default(),
    });
    // Set once, here.
    let _ = inside.0.set(Arc::downgrade(&space));
    let watch = tokio::spawn(publish_when_listening(network.clone(), address, Arc::downgrade(&space)));
    *space.watch.lock().await = Some(watch);
    Ok(space)
}

fn no_gate(message: String) -> Refusal {
    Refusal {
        errno: libc::EOPNOTSUPP,
        message,
        hint: "phantomd needs /dev/net/tun and network namespaces: run it as root, or allow both to its user; without \
               them programs can run with --isolation emulate"
            .into(),
    }
}

/// The first program that listens makes the identity reachable, until it is closed.
async fn publish_when_listening(network: Arc<Network>, address: ApAddress, space: Weak<NodeSpace>) {
    let mut look = interval(LISTEN_EVERY);
    loop {
        look.tick().await;
        let Some(space) = space.upgrade() else { return };
        if space.listens().await {
            return network.publish(address).await;
        }
    }
}

impl NodeSpace {
    /// The gate, made if there is none yet.
    async fn gate(&self) -> Result<Arc<Gate>, Refusal> {
        let make = async {
            let config = GateConfig::new(self.address, self.helper.clone());
            let gate = Gate::open_with(config, self.outside.clone(), self.aliases.clone()).await;
            gate.map(Arc::new).map_err(|error| no_gate(error.to_string()))
        };
        self.gate.get_or_init(|| make).await.clone()
    }

    /// The gate, if there is one.
    fn standing_gate(&self) -> Option<Arc<Gate>> {
        self.gate.get()?.as_ref().ok().cloned()
    }

    /// Whether a program listens for the network.
    async fn listens(&self) -> bool {
        if self.emulation.listened() {
            return true;
        }
        match self.standing_gate() {
            Some(gate) => !gate.listening_ports().await.is_empty(),
            None => false,
        }
    }
}

#[async_trait]
impl Space for NodeSpace {
    async fn namespaces(&self) -> Result<(OwnedFd, Option<OwnedFd>), Refusal> {
        let gate = self.gate().await?;
        let (net, user) = gate.namespace();
        let net = net.try_clone_to_owned();
        let both = net.and_then(|net| Ok((net, user.map(|user| user.try_clone_to_owned()).transpose()?)));
        both.map_err(|error| Refusal {
            errno: error.raw_os_error().unwrap_or(libc::EIO),
            message: "the namespaces cannot be passed on".into(),
            hint: "give phantomd more file descriptors".into(),
        })
    }

    async fn emulated(
        &self,
        socket: u64,
        call: &Call,
        beside: Option<OwnedFd>,
    ) -> Result<(Reply, Option<OwnedFd>), i32> {
        self.emulation.call(socket, call, beside).await
    }

    async fn socket(&self, domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
        match self.gate().await {
            Ok(gate) => gate.socket(domain, kind, protocol).await,
            Err(_) => self.emulation.socket(domain, kind, protocol).map_err(io::Error::from_raw_os_error),
        }
    }

    fn ipv4(&self) -> Ipv4Addr {
        OWN_IPV4
    }

    fn alias_of(&self, address: ApAddress) -> Ipv4Addr {
        self.emulation.alias_of(address)
    }

    fn behind_alias(&self, alias: Ipv4Addr) -> Option<ApAddress> {
        self.emulation.behind_alias(alias)
    }

    async fn in_use(&self) -> bool {
        let listening = match self.standing_gate() {
            Some(gate) => !gate.listening_ports().await.is_empty(),
            None => false,
        };
        listening
            || self.emulation.in_use()
            || self.network.connections().iter().any(|one| one.open && one.identity == self.address)
    }

    async fn close(&self) {
        if let Some(watch) = self.watch.lock().await.take() {
            watch.abort();
        }
        self.network.close(self.address).await;
        self.emulation.cut();
        if let Some(gate) = self.standing_gate() {
            gate.cut();
        }
    }
}
