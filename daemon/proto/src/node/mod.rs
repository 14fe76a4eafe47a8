//! Joins the levels into one node; the only file group of the protocol that knows them all.
//!
//! ```text
//!              Input                                Output
//!   link up/down, frame ──▶┌────────────────────┐──▶ dial, send, close
//!   sample, time ─────────▶│ personas · service │──▶ serve, publish a record
//!   wants of identities ──▶│ builds · hops      │──▶ a ready tunnel, a relay: handed to the data plane
//!   what ends say ────────▶│ paths · tunnels    │
//!                          └────────────────────┘
//! ```
//!
//! No byte of a connection passes here: once a tunnel stands, its links leave the node with the cell layers for them.

mod banned;
mod build;
mod clock;
mod demand;
mod due;
mod ends;
mod expected;
mod home;
mod inquiry;
mod leaps;
mod lending;
mod links;
mod notes;
mod own_record;
mod pace;
mod paths;
mod personas;
mod progress;
mod ready;
mod renewal;
mod service;
mod tunnels;
mod visits;
mod vitals;
mod wakes;

pub use expected::{EXPECTED, EXPECTED_FOR};
pub use inquiry::{Heard, Inquiry, Verdict};
pub use notes::{Note, Times, Weight};
pub use personas::SPARES;
pub use progress::age;
pub use ready::{Of, TunnelNo, WantNo};
pub use service::Serials;
pub use vitals::Vitals;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::cell::{Layer, OwnerCrypt};
use crate::command::Bans;
use crate::crypto::SigningKey;
use crate::ident::{ApAddress, NodeId, PathId, TunnelId};
use crate::path::{Candidate, Choice, Class, Hop, PathKeys, Persona, Seen, Sets, Spread};
use crate::terminating::Joins;
use crate::wire::NodeContact;
use crate::wire::array::BuildId;
use crate::wire::frame::{Frame, Handle, Reason};

use build::Building;
use links::{Errand, LinkState};
use paths::{Ending, Path};
use ready::Ready;
use tunnels::Setup;

/// How long after something has happened the shell calls [`Node::tick`] at the latest, in milliseconds; when nothing happens, when
/// [`Node::due`] says. Refills are asked for more finely, by [`Node::refill_due`].
pub const TICK: u64 = 100;

/// How often what has hours of time is looked at, in milliseconds; sooner when something changes.
const LOOK: u64 = 1_000;

/// Names a link of this node; given by the shell for links that it accepts, by the node for links that it dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Names a path of which this node owns or carries a part. Local: never on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathNo(pub u64);

/// What an own path does. It begins as a spare; what it then becomes it stays.
// protocol: K3
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// Nothing yet.
    Spare,
    /// Carries connections out.
    Connect,
    /// Asks the network database for AP records. Never on a path that connects: its node would know who is asked for and, by
    /// what follows, that somebody connects there.
    Ask,
    /// Asks once more, at another operator's node, where [`Work::Ask`] has not brought what was asked for, and does nothing else.
    AskAgain,
    /// Carries connections in.
    Serve,
    /// Nothing any more: it ends some time later.
    Leaving,
}

/// What the owner's side of this node aims at.
#[derive(Debug, Clone)]
pub struct Settings {
    /// X-nodes per path: 2 to 4.
    pub hops: usize,
    /// Personas with spare paths that are kept ready for new identities.
    pub unborn: usize,
    /// Entry paths per identity that listens.
    pub entry_paths: usize,
    /// Ready tunnels that each end of a path tries to keep once it is used.
    pub ready_tunnels: usize,
    /// Life of an own path in seconds, drawn from this range for each, whatever it will do: 600 to 86 400.
    // protocol: K8
    pub path_life: RangeInclusive<u64>,
    /// Mean wait before a build out of turn, when a class has nothing in stock, in milliseconds.
    pub urgent_mean: u64,
    /// Mean of what each class of a persona waits after the clock has leapt, or in another network, before its clock goes on, in
    /// milliseconds.
    pub redrawn_mean: u64,
    /// Mean wait before a new set of spares is begun after an identity took one, in milliseconds.
    pub renewal_mean: u64,
    /// Longest wait before the first record of an identity that begins to listen is published, in milliseconds: up to a sixth before it
    /// is composed, up to a sixth, drawn for each path, before it leaves, and up to two thirds at the terminating node, which is where
    /// it hides its owner; 0: at once.
    pub publish_within: u64,
    /// Mean wait before a record out of turn, when none of the entries that the last one names is left, in milliseconds.
    pub revive_mean: u64,
    /// Whether ends of paths wait before each step of a tunnel's set-up, so that hops cannot measure how far they are.
    pub paced: bool,
    /// Which nodes may not be on one path together.
    pub spread: Spread,
    /// Paths carried for others at once; each costs one or two standing connections and some kilobytes.
    pub relayed_paths: usize,
    /// Links of exit nodes that are joined here with paths that serve, at once; each costs two links' buffers.
    // protocol: U11
    pub joins: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hops: 3,
            unborn: 1,
            entry_paths: 3,
            ready_tunnels: 4,
            path_life: 72_000..=86_400,
            urgent_mean: 2_000,
            redrawn_mean: 60_000,
            renewal_mean: 600_000,
            publish_within: 30_000,
            revive_mean: 5_000,
            paced: true,
            spread: Spread::Prefixes,
            relayed_paths: 4096,
            joins: 16_384,
        }
    }
}

impl Settings {
    /// Everything as soon as it can be: for private networks, where times need not hide anything.
    // protocol: K10
    pub fn hurried() -> Self {
        Self {
            urgent_mean: 20,
            redrawn_mean: 20,
            renewal_mean: 20,
            publish_within: 0,
            revive_mean: 20,
            paced: false,
            ..Self::default()
        }
    }

    /// For how long a path of this class is put to work, in seconds; drawn for each. Its nodes keep it for longer, all alike, so
    /// that its life does not tell them its class. Connections move on every hour or so, entries stay for as long as records can
    /// follow.
    fn work_life(&self, class: Class) -> RangeInclusive<u64> {
        let shortest = *self.path_life.start();
        match class {
            Class::Out => (shortest / 20).max(300)..=shortest / 10 + 300,
            Class::In => shortest / 2..=shortest * 4 / 5,
        }
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
    /// Nothing comes any more on a standing connection ([`crate::alive`]): it is closed.
    LinkSilent { link: LinkId },
    /// The local sample of the node table, whole.
    Sample(Vec<Candidate>),
    /// Nodes of the sample that are known not to answer, whole: no path is planned over them.
    Silent(BTreeSet<NodeId>),
    /// What maintainers' commands come to, whole.
    Bans(Arc<Bans>),
    /// Nodes that the database has just connected with: what did not answer before does now.
    Back(BTreeSet<NodeId>),
    /// An identity outlives this run: the nodes of its layers are those of earlier runs, as [`Output::Sets`] gave them, or the ones
    /// that it will keep. Comes before its first want. The secret belongs to the identity and to nobody else.
    Lasting { identity: ApAddress, secret: Zeroizing<[u8; 32]>, sets: Option<Vec<u8>> },
    /// An identity of [`Input::Lasting`] was last used at this time, in milliseconds since 1970, and may be again: spares are kept for it.
    Expect { identity: ApAddress, used: u64 },
    /// An identity connects: keep paths for that.
    WantExit(ApAddress),
    /// An identity listens: keep entry paths for it, and publish them. The serials are what [`Output::Serials`] last gave.
    WantEntry(Arc<SigningKey>, Serials),
    /// Nobody runs as this identity any more: drop its paths. One that outlives this run keeps its spares.
    Forget(ApAddress),
    /// This identity is no more: nothing is kept for it.
    Removed(ApAddress),
    /// Somebody wants a ready tunnel within so many milliseconds. Who says so again, after a grant that came to nothing, has its
    /// place in the line still.
    Want { want: WantNo, of: Of, limit: u64 },
    /// Who was granted this tunnel has gone away without touching it.
    Declined { path: PathNo, tunnel: TunnelNo },
    /// The other end used a ready tunnel, or it broke.
    TunnelGone { tunnel: TunnelNo, used: bool },
    /// Nobody uses this path any more, which takes no new work.
    Unused(PathNo),
    /// How [`Output::Visit`] over this path ended: whether what was said there came in along the entry path, and was answered.
    Visited { path: PathNo, reached: bool },
    /// What the end of this path said to [`Output::LookUp`]: the serial of a record that holds, or that there is none, or that it is not
    /// sure. If it said nothing, there is nothing to say.
    LookedUp { path: PathNo, serial: Option<u64> },
    /// A fresh identity of this daemon reached this service as any client would.
    Seen(ApAddress),
    /// By how many milliseconds the clocks of other nodes are ahead of ours, as far as that is known.
    Clock(Option<i64>),
    /// Whether others can open links to this node; until this comes they can.
    Reachable(bool),
    /// This computer has come into another network: links break, and none that is lost is replaced at once.
    Moved,
    /// SERVE came from the owner of a path that ends here.
    Served { path: PathNo, record: Vec<u8> },
    /// A link that [`Output::Join`] gave away is joined no more.
    JoinEnded { peer: NodeId },
    /// An end of this path broke the protocol over a tunnel, or a node of this own path makes noise of cells: the path is dropped.
    Misused(PathNo),
    /// A tunnel of this own path broke off at its first use, or brought no answer: one for which that is the rule is dropped.
    Broke(PathNo),
    /// The end of this own path said that there is no record, and another has it.
    Denied(PathNo),
    /// All keys with which others build paths from now on, what our record now says, and that record, signed.
    Rotate { keys: Vec<PathKeys>, own: Box<Candidate>, record: Vec<u8> },
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
    Publish { path: PathNo, record: Vec<u8> },
    /// A neighbour told its own record, which holds.
    Heard(Vec<u8>),
    /// A link is a standing connection from now on: both sides say ALIVE on it.
    Standing { link: LinkId },
    /// Carry cells of a path between two links; `ab` is for cells from `a` to `b`.
    Relay { path: PathNo, a: LinkId, b: LinkId, ab: Layer, ba: Layer },
    /// A ready tunnel of a path that ends here; both directions are enciphered.
    EndTunnel { path: PathNo, tunnel: TunnelNo, link: LinkId, incoming: Layer, outgoing: Layer },
    /// A ready tunnel of a path of our own.
    OwnTunnel { path: PathNo, tunnel: TunnelNo, link: LinkId, incoming: OwnerCrypt, outgoing: OwnerCrypt },
    /// A ready tunnel is theirs who want it.
    Grant { want: WantNo, path: PathNo, tunnel: TunnelNo },
    /// There was none in time, or its path has ended.
    Unmet { want: WantNo },
    /// A ready tunnel is given up.
    DropTunnel { tunnel: TunnelNo },
    /// Send an AP record along an own path, to be served and published.
    Serve { path: PathNo, record: Vec<u8> },
    /// Keep the records of these nodes in the sample, and fresh.
    Pinned(BTreeSet<NodeId>),
    /// Keep these nodes for the next run.
    Sets { identity: ApAddress, sets: Vec<u8> },
    /// Keep these before any record that follows is sent.
    Serials { identity: ApAddress, serials: Serials },
    /// An exit node asks for a tunnel of a path that ends here and serves: what comes of it [`crate::terminating::Entry`] says. Until
    /// [`Input::JoinEnded`] it counts among those of its node.
    Join { link: LinkId, peer: NodeId, path: PathNo },
    /// Say REFUSED on this link, on which JOIN came, and end its use.
    Refuse { link: LinkId, reason: Reason },
    /// Connect over a tunnel of this path, which is used for nothing else, to the entry of an own identity; whether that leads home along
    /// the own path `entry` says [`Input::Visited`].
    Visit { path: PathNo, identity: ApAddress, entry: PathNo, node: NodeId, handle: Handle },
    /// Look up the record of an own identity over a tunnel of this path, which is used for nothing else, and say [`Input::LookedUp`].
    LookUp { path: PathNo, identity: ApAddress },
    /// An own path stands.
    PathUp { path: PathNo, hops: Vec<NodeContact> },
    /// An own path now does this for an identity.
    PathWorks { path: PathNo, identity: ApAddress, work: Work },
    /// An own path takes no new work. It is wanted to hear [`Input::Unused`] when what runs over it has ended.
    PathRetired { path: PathNo },
    /// A path that we owned, carried or ended is gone. Its tunnels that stand go on.
    PathDown { path: PathNo },
    /// The tunnels of a path that stand end.
    Cut { path: PathNo },
    /// A package was opened; keep it until it expires, before any later output is done.
    Opened(Seen),
    /// The guards changed; keep them.
    Choice(Vec<u8>),
    /// For the log; [`Node::notes`] has it, too.
    Note(Note),
}

/// One node: hop for others, owner for its identities.
pub struct Node {
    own: Candidate,
    /// As it was signed, since it last changed in this run.
    record: Vec<u8>,
    /// Whether others can open links to this node.
    reachable: bool,
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
    /// Links that neighbours lend for answers, and answers that wait for such a link.
    halves: BTreeMap<(NodeId, TunnelId), lending::Half>,
    ready: Ready,
    /// When the next tunnel is to be started.
    refill_due: Option<u64>,
    /// What ends of paths do a while later than they could, in the order of time.
    waits: BTreeMap<(u64, u64), pace::Paced>,
    /// When the first sample came.
    sampled: Option<u64>,
    choice: Choice,
    /// Nodes that did not answer us, until when they are left out.
    away: BTreeMap<NodeId, u64>,
    /// Nodes that the database found to be silent.
    silent: BTreeSet<NodeId>,
    /// What [`Input::Bans`] said last.
    bans: Arc<Bans>,
    /// Guards and members of layers that are banned.
    banned: BTreeSet<NodeId>,
    builds: BTreeMap<BuildId, Building>,
    personas: BTreeMap<Persona, personas::Own>,
    /// What [`Output::Pinned`] said last.
    pinned: BTreeSet<NodeId>,
    /// Layers of identities that outlive this run and have no persona yet.
    settled: BTreeMap<ApAddress, Sets>,
    /// An identity has been here.
    started: bool,
    /// Paths that end here and serve, by handle.
    served: BTreeMap<Handle, PathNo>,
    /// Links of exit nodes that are joined to paths that serve.
    joins: Joins,
    /// What [`Input::Clock`] said last.
    ahead: Option<i64>,
    /// When time was last looked at.
    ticked: Option<u64>,
    /// When something is to happen at a time of its own.
    due: Option<u64>,
    /// When records, works and guards are looked at next, if there is a reason.
    look_at: u64,
    /// Something has happened since they were last looked at.
    stirred: bool,
    /// Guards to be looked at, and when.
    looks: BTreeMap<NodeId, u64>,
    /// Visits of own entries that are under way, by the path that they go over.
    visits: BTreeMap<PathNo, visits::Visit>,
    /// Why the last build could not even begin.
    problem: Option<String>,
    /// Builds that failed since the last one that worked.
    failures: u32,
    notes: notes::Notes,
    /// What was last true of the choice of nodes.
    known: Vec<crate::path::choice::Note>,
}

impl Node {
    /// A node that knows nobody, or with the choice as [`Choice::restored`] made it of what [`Output::Choice`] last gave.
    pub fn new(
        own: Candidate,
        hop: Hop,
        choice: Option<Choice>,
        settings: Settings,
        rng: Box<dyn CryptoRng + Send>,
    ) -> Self {
        let choice = choice.unwrap_or_else(|| Choice::new(own.contact.clone(), settings.spread));
        Self {
            own,
            record: Vec::new(),
            reachable: true,
            joins: Joins::new(settings.joins),
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
            halves: BTreeMap::new(),
            ready: Ready::default(),
            refill_due: None,
            waits: BTreeMap::new(),
            sampled: None,
            choice,
            away: BTreeMap::new(),
            silent: BTreeSet::new(),
            bans: Arc::default(),
            banned: BTreeSet::new(),
            builds: BTreeMap::new(),
            personas: BTreeMap::new(),
            pinned: BTreeSet::new(),
            settled: BTreeMap::new(),
            started: false,
            served: BTreeMap::new(),
            ahead: None,
            ticked: None,
            due: None,
            look_at: 0,
            stirred: true,
            looks: BTreeMap::new(),
            visits: BTreeMap::new(),
            problem: None,
            failures: 0,
            notes: notes::Notes::default(),
            known: Vec::new(),
        }
    }

    /// Takes one input at `now` (milliseconds since 1970).
    pub fn handle(&mut self, now: u64, input: Input) {
        // What a sleep has broken says so at once, and must not be taken for what happens on other days.
        self.note_time(now);
        self.stirred = true;
        match input {
            Input::LinkUp { link, peer } => self.link_up(now, link, peer),
            Input::DialFailed { link } => self.dial_failed(now, link),
            Input::Frame { link, kind, payload } => self.frame(now, link, kind, &payload),
            Input::LinkDown { link } => self.link_down(now, link),
            Input::LinkSilent { link } => self.link_silent(now, link),
            Input::Sample(sample) => self.take_sample(now, sample),
            Input::Silent(silent) => self.take_silent(now, silent),
            Input::Bans(bans) => self.take_bans(now, bans),
            Input::Back(nodes) => self.away.retain(|node, _| !nodes.contains(node)),
            Input::Lasting { identity, secret, sets } => self.settle(now, identity, &secret, sets),
            Input::Expect { identity, used } => self.expect(now, identity, used),
            Input::WantExit(identity) => drop(self.want(now, identity, Class::Out)),
            Input::WantEntry(key, serials) => self.want_entry(now, key, serials),
            Input::Forget(identity) => self.forget(now, identity),
            Input::Removed(identity) => self.remove(now, identity),
            Input::Want { want, of, limit } => self.want_tunnel(now, want, of, limit),
            Input::Declined { path, tunnel } => self.tunnel_declined(now, path, tunnel),
            Input::TunnelGone { tunnel, used } => self.tunnel_gone(now, tunnel, used),
            Input::Unused(path) => self.unused(now, path),
            Input::Visited { path, reached } => self.visited(now, path, reached),
            Input::LookedUp { path, serial } => self.looked_up(now, path, serial),
            Input::Seen(identity) => self.seen(now, identity),
            Input::Clock(ahead) => self.ahead = ahead,
            Input::Reachable(reachable) => self.reachable = reachable,
            Input::Moved => self.redraw_clocks(now),
            Input::Served { path, record } => self.serve_record(now, path, record),
            Input::JoinEnded { peer } => self.joins.leave(peer),
            Input::Misused(path) => self.end_path(now, path, Ending::Mute),
            Input::Broke(no) => {
                if self.paths.get_mut(&no).is_some_and(|path| path.demand.broke()) {
                    self.end_path(now, no, Ending::Mute);
                }
            }
            Input::Denied(path) => self.denied(now, path),
            Input::Rotate { keys, own, record } => {
                self.hop.rotate(keys);
                self.choice.moves(own.contact.clone());
                self.own = *own;
                self.tell_later(now, record);
            }
        }
    }

    /// The next thing that the shell must do.
    pub fn poll(&mut self) -> Option<Output> {
        self.tell_met(self.ticked.unwrap_or_default());
        self.out.pop_front()
    }

    /// Lets time pass: expiry, retries, refills. Called when [`Node::due`] or [`Node::wakes`] says, and within [`TICK`] after something has
    /// happened.
    pub fn tick(&mut self, now: u64) {
        let before = self.out.len();
        self.note_time(now);
        let due = self.due.is_some_and(|at| now >= at);
        self.hop.expire(now / 1000);
        self.expire_links(now);
        self.expire_paths(now);
        self.expire_setups(now);
        self.ready.expire(now);
        self.expire_builds(now);
        self.pursue(now);
        self.try_guards(now);
        self.leave(now);
        self.tell_neighbours(now);
        self.drop_surplus(now);
        self.refill(now);
        // A clock that was set back must not hold this up until it is there again.
        if due || now >= self.look_at || self.look_at > now + LOOK {
            self.look_at = now + LOOK;
            self.stirred = false;
            self.look_at_guards(now);
            self.keep_sets();
            self.pin();
            self.relieve(now);
            self.serve(self.network_time(now));
            self.publish_due(now);
            self.note_choice(now);
        }
        self.look_ahead(now);
        self.stirred |= self.out.len() > before;
    }

    /// Paths carried for others.
    pub fn relayed_paths(&self) -> usize {
        self.paths.values().filter(|path| path.owned().is_none()).count()
    }

    /// Everything that this node holds for others and for itself, as counts: for tests of the bounds.
    pub fn load(&self) -> [usize; 7] {
        [
            self.links.len(),
            self.errands.len(),
            self.paths.len(),
            self.segments.len(),
            self.setups.len(),
            self.seeds.len(),
            self.joins.total(),
        ]
    }

    fn id(&mut self) -> u64 {
        self.next += 2;
        self.next
    }

    fn send(&mut self, link: LinkId, frame: &Frame<'_>) {
        self.out.push_back(Output::Send { link, kind: frame.kind(), payload: frame.payload().into_owned() });
    }
}

#[cfg(test)]
mod tests;
