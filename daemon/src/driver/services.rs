//! What the control task needs of the rest of the daemon.

use std::collections::BTreeSet;
use std::sync::Arc;

use phantom_proto::ident::{ApAddress, NodeId};
use phantom_proto::node::{PathNo, Serials};
use phantom_proto::path::Seen;
use phantom_proto::wire::frame::Handle;
use tokio::sync::{mpsc, watch};

use super::OwnPath;
use crate::link::LinkPool;
use crate::netdb::Database;
use crate::relay::Counters;
use crate::relay::cells::Tunnel;

/// What the control task needs of the rest of the daemon.
pub struct Services {
    /// Opens and keeps links.
    pub links: Arc<LinkPool>,
    /// The network database.
    pub database: Arc<dyn Database>,
    /// Counts of the data plane.
    pub counters: Arc<Counters>,
    /// What happens for own identities.
    pub incoming_tx: mpsc::Sender<Incoming>,
    /// Keeps what belongs to identities.
    pub kept: Arc<dyn Kept>,
    /// Keeps the guard set.
    pub choice_tx: watch::Sender<Vec<u8>>,
    /// Nodes whose records the database keeps in the sample.
    pub pinned_tx: watch::Sender<BTreeSet<NodeId>>,
    /// Keeps a package that was opened until it expires, so that it outlives the process when this returns.
    pub opened: Box<dyn FnMut(Seen) + Send>,
    /// Tunnels of others that may pass through this node, or be used to connect or ask from it, at once. Each has two links with buffers.
    pub relayed_tunnels: u64,
}

/// What of an identity outlives the daemon, if the identity does. Each call may take the time of a disk access.
pub trait Kept: Send + Sync + 'static {
    /// Whether it does.
    fn lasts(&self, identity: ApAddress) -> bool;
    /// Somebody runs as it.
    fn used(&self, identity: ApAddress);
    /// The serials of the AP records of earlier runs.
    fn serials(&self, identity: ApAddress) -> Serials;
    /// A record that bears them leaves when this returns.
    fn save_serials(&self, identity: ApAddress, serials: Serials);
    /// The nodes of its layers, as [`phantom_proto::node::Output::Sets`] gave them in an earlier run.
    fn sets(&self, identity: ApAddress) -> Option<Vec<u8>>;
    /// Keeps these for the next run.
    fn save_sets(&self, identity: ApAddress, sets: Vec<u8>);
}

/// For identities that die with the daemon.
pub struct NothingKept;

impl Kept for NothingKept {
    fn lasts(&self, _: ApAddress) -> bool {
        false
    }

    fn used(&self, _: ApAddress) {}

    fn serials(&self, _: ApAddress) -> Serials {
        Serials::default()
    }

    fn save_serials(&self, _: ApAddress, _: Serials) {}

    fn sets(&self, _: ApAddress) -> Option<Vec<u8>> {
        None
    }

    fn save_sets(&self, _: ApAddress, _: Vec<u8>) {}
}

/// What happens for an identity.
pub enum Incoming {
    /// Somebody connects to it.
    Arrival(Box<Arrival>),
    /// One of its entries is to be looked at from outside.
    Visit(Visit),
    /// Its record is to be looked up from outside.
    LookUp(LookUp),
}

/// An own record to be looked up over a path that does nothing else. Say what was found by [`super::Handle::looked_up`].
pub struct LookUp {
    /// Whose record.
    pub identity: ApAddress,
    /// The path that leads out.
    pub path: PathNo,
}

/// An own entry to which to connect, over a path that does nothing else. Say how it ended by [`super::Handle::visited`].
pub struct Visit {
    /// Whose entry.
    pub identity: ApAddress,
    /// The path that leads out.
    pub path: PathNo,
    /// The own path that must lead home.
    pub entry: PathNo,
    /// The entry node.
    pub node: NodeId,
    /// The name of the entry path there.
    pub handle: Handle,
}

/// Somebody connects to an identity.
pub struct Arrival {
    /// Which one.
    pub identity: ApAddress,
    /// The own path that it came along, while it stands.
    pub path: Option<OwnPath>,
    /// What it came on.
    pub tunnel: Tunnel,
    /// The session's first bytes.
    pub first: Vec<u8>,
}
