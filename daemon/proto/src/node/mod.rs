//! Joins the levels into one node; the only file group of the protocol that knows them all.
//!
//! ```text
//!              Input                                Output
//!   link up/down, frame ──▶┌──────────────────┐──▶ dial, send, close
//!   sample, time ─────────▶│ builds · hops    │──▶ publish a record
//!   wants of identities ──▶│ paths · tunnels  │──▶ a ready tunnel, a relay: handed to the data plane
//!                          └──────────────────┘
//! ```
//!
//! No byte of a connection passes here: once a tunnel stands, its links leave the node with the cell layers for them.

mod build;
mod hops;
mod links;
mod tunnels;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rand::CryptoRng;

use crate::cell::{Layer, OwnerCrypt};
use crate::crypto::SigningKey;
use crate::ident::{ApAddress, NodeId, PathId, TunnelId};
use crate::path::{Accounts, Candidate, Guards, Hop, PathKeys, Spread};
use crate::wire::NodeContact;
use crate::wire::array::{BuildId, Kind};

use build::Building;
use hops::Path;
use links::{Errand, LinkState};
use tunnels::Setup;

/// How often the shell calls [`Node::tick`], in milliseconds; refills are asked for more finely, by [`Node::refill_due`].
pub const TICK: u64 = 100;

/// Names a link of this node; given by the shell for links that it accepts, by the node for links that it dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Names a path of which this node owns or carries a part. Local: never on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathNo(pub u64);

/// What an own path is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// An exit path built ahead, for the next identity that needs one.
    Spare,
    /// The exit path of one identity, never shared.
    Exit(ApAddress),
    /// An entry path of one identity.
    Entry(ApAddress),
}

/// What the owner's side of this node aims at.
#[derive(Debug, Clone)]
pub struct Settings {
    /// X-nodes per path: 2 to 4.
    pub hops: usize,
    /// Exit paths kept ready for new identities.
    pub spare_exits: usize,
    /// Entry paths per identity that listens.
    pub entry_paths: usize,
    /// Ready tunnels that each end of a path tries to keep.
    pub ready_tunnels: usize,
    /// Life of an own path in seconds: 600 to 86 400.
    pub path_life: u64,
    /// Which nodes may not be on one path together.
    pub spread: Spread,
}

impl Default for Settings {
    fn default() -> Self {
        Self { hops: 3, spare_exits: 2, entry_paths: 2, ready_tunnels: 4, path_life: 3600, spread: Spread::Prefixes }
    }
}

/// What happens to a node.
#[expect(missing_docs, reason = "the fields are what their variant's line says")]
#[derive(Debug)]
pub enum Input {
    /// A link stands: a dial of ours succeeded, or we accepted it.
    LinkUp { link: LinkId, peer: NodeId },
    /// A dial of ours failed.
    DialFailed { link: LinkId },
    /// A frame arrived on a link that is still ours.
    Frame { link: LinkId, kind: u8, payload: Vec<u8> },
    /// A link that is still ours ended.
    LinkDown { link: LinkId },
    /// The local sample of the node table, whole.
    Sample(Vec<Candidate>),
    /// Nodes of the sample that are known not to answer, whole: no path is planned over them.
    Silent(BTreeSet<NodeId>),
    /// An identity wants an exit path of its own.
    WantExit(ApAddress),
    /// An identity listens: keep entry paths for it.
    WantEntry(Arc<SigningKey>),
    /// An identity is gone: drop its paths.
    Forget(ApAddress),
    /// A ready tunnel of this path was used or lost.
    TunnelSpent(PathNo),
    /// New keys for others to build paths with, and what our record now says; the present keys serve for one more period.
    Rotate(Box<PathKeys>, Box<Candidate>),
}

/// What a node wants done.
#[expect(missing_docs, reason = "the fields are what their variant's line says")]
#[derive(Debug)]
pub enum Output {
    /// Open a link and report `LinkUp` or `DialFailed` under this id. `again`: more links to this node will be wanted.
    Dial { link: LinkId, to: NodeContact, again: bool },
    /// Send a frame.
    Send { link: LinkId, kind: u8, payload: Vec<u8> },
    /// Close a link.
    Close { link: LinkId },
    /// The link has done its one-shot work; the shell may use it again.
    Release { link: LinkId },
    /// Publish an AP record that an owner gave to us as its entry node.
    Publish(Vec<u8>),
    /// Carry cells between two links; `ab` is for cells from `a` to `b`.
    Relay { a: LinkId, b: LinkId, ab: Layer, ba: Layer },
    /// A ready tunnel of a path that ends here; both directions are enciphered.
    EndTunnel { path: PathNo, kind: Kind, link: LinkId, incoming: Layer, outgoing: Layer },
    /// A ready tunnel of a path of our own.
    OwnTunnel { path: PathNo, link: LinkId, incoming: OwnerCrypt, outgoing: OwnerCrypt },
    /// An exit node asks for a tunnel to an address that we serve as entry node.
    Join { link: LinkId, path: PathNo },
    /// An own path stands.
    PathUp { path: PathNo, purpose: Purpose, hops: Vec<NodeContact> },
    /// A spare exit path now belongs to an identity.
    PathAssigned { path: PathNo, identity: ApAddress },
    /// A path that we owned or ended is gone.
    PathDown { path: PathNo },
    /// The guard set changed; keep it.
    Guards(Vec<u8>),
}

/// One node: hop for others, owner for its identities.
pub struct Node {
    own: Candidate,
    settings: Settings,
    rng: Box<dyn CryptoRng + Send>,
    out: VecDeque<Output>,
    next: u64,
    links: BTreeMap<LinkId, LinkState>,
    errands: BTreeMap<LinkId, Errand>,
    hop: Hop,
    segments: BTreeMap<PathId, (PathNo, usize)>,
    paths: BTreeMap<PathNo, Path>,
    seeds: BTreeMap<TunnelId, (PathNo, u64)>,
    setups: BTreeMap<u64, Setup>,
    /// When the next tunnel is to be started.
    refill_due: Option<u64>,
    sample: Vec<Candidate>,
    /// When the first sample came.
    sampled: Option<u64>,
    guards: Guards,
    accounts: Accounts,
    /// Nodes that did not answer us, until when they are left out.
    away: BTreeMap<NodeId, u64>,
    /// Nodes that the database found to be silent.
    silent: BTreeSet<NodeId>,
    builds: BTreeMap<BuildId, Building>,
    exits: Vec<ApAddress>,
    entries: BTreeMap<ApAddress, Arc<SigningKey>>,
    backoff: BTreeMap<Purpose, build::Backoff>,
    problem: Option<String>,
}

impl Node {
    /// A node that knows nobody yet. `guards` is what [`Output::Guards`] last gave.
    pub fn new(own: Candidate, hop: Hop, guards: Guards, settings: Settings, rng: Box<dyn CryptoRng + Send>) -> Self {
        Self {
            own,
            settings,
            rng,
            out: VecDeque::new(),
            // Even ids are the node's (dials), odd ones the shell's (accepted links).
            next: 2,
            links: BTreeMap::new(),
            errands: BTreeMap::new(),
            hop,
            segments: BTreeMap::new(),
            paths: BTreeMap::new(),
            seeds: BTreeMap::new(),
            setups: BTreeMap::new(),
            refill_due: None,
            sample: Vec::new(),
            sampled: None,
            guards,
            accounts: Accounts::default(),
            away: BTreeMap::new(),
            silent: BTreeSet::new(),
            builds: BTreeMap::new(),
            exits: Vec::new(),
            entries: BTreeMap::new(),
            backoff: BTreeMap::new(),
            problem: None,
        }
    }

    /// Takes one input at `now` (milliseconds since 1970).
    pub fn handle(&mut self, now: u64, input: Input) {
        match input {
            Input::LinkUp { link, peer } => self.link_up(now, link, peer),
            Input::DialFailed { link } => self.dial_failed(now, link),
            Input::Frame { link, kind, payload } => self.frame(now, link, kind, &payload),
            Input::LinkDown { link } => self.link_down(now, link),
            Input::Sample(sample) => self.take_sample(now, sample),
            Input::Silent(silent) => self.silent = silent,
            Input::WantExit(identity) => self.want_exit(now, identity),
            Input::WantEntry(key) => self.want_entry(now, key),
            Input::Forget(identity) => self.forget(now, identity),
            Input::TunnelSpent(path) => self.tunnel_spent(now, path),
            Input::Rotate(keys, own) => {
                self.hop.rotate(*keys);
                self.own = *own;
            }
        }
    }

    /// The next thing that the shell must do.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// Lets time pass: expiry, retries, refills. Call it every [`TICK`].
    pub fn tick(&mut self, now: u64) {
        self.hop.expire(now / 1000);
        self.expire_links(now);
        self.expire_paths(now);
        self.expire_setups(now);
        self.expire_builds(now);
        self.pursue(now);
        self.refill(now);
    }

    /// Why no path can be built at the moment, in words for people.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Own paths that stand and have had a tunnel: (exit paths, entry paths).
    pub fn path_counts(&self) -> (usize, usize) {
        let own = || self.paths.values().filter(|path| path.proven).filter_map(Path::purpose);
        let entries = own().filter(|purpose| matches!(purpose, Purpose::Entry(_))).count();
        (own().count() - entries, entries)
    }

    /// Everything that this node holds for others and for itself, as counts: for tests of the bounds.
    pub fn load(&self) -> [usize; 6] {
        [
            self.links.len(),
            self.errands.len(),
            self.paths.len(),
            self.segments.len(),
            self.setups.len(),
            self.seeds.len(),
        ]
    }

    fn id(&mut self) -> u64 {
        self.next += 2;
        self.next
    }

    fn send(&mut self, link: LinkId, kind: u8, payload: Vec<u8>) {
        self.out.push_back(Output::Send { link, kind, payload });
    }

    fn kind_of(purpose: Purpose) -> Kind {
        match purpose {
            Purpose::Entry(_) => Kind::Entry,
            Purpose::Spare | Purpose::Exit(_) => Kind::Exit,
        }
    }
}

#[cfg(test)]
mod tests;
