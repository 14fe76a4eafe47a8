//! Paths of which this node owns, carries or ends a part, and their standing connections.

use std::collections::BTreeSet;

use super::demand::Demand;
use super::links::Errand;
use super::pace;
use super::{LinkId, Node, Note, Output, PathNo, Work};
use crate::chance::exponential;
use crate::ident::{NodeId, PathId};
use crate::path::{self, Case, Class, HopPath, How, Persona, Sides};
use crate::record::RecordError;
use crate::terminating::{First, Publication, RecordRefused, Uses};
use crate::tunnel;
use crate::wire::NodeContact;
use crate::wire::array::Segment;
use crate::wire::cells::CellKind;
use crate::wire::frame::{Handle, Reason};

/// How long the standing connections of a new path, or a first tunnel on it, may take in milliseconds.
// protocol: Q16
pub(super) const STAND_LIMIT: u64 = 20_000;

/// Mean time for which a path that takes no new work outlives the last that ran over it, in milliseconds: those on it see both.
const CLOSING_MEAN: u64 = 60_000;

/// One path, as much of it as this node knows.
pub(super) struct Path {
    pub(super) part: Part,
    /// One side at the two ends, two sides in the middle.
    pub(super) sides: Vec<SideState>,
    /// When it ends, in milliseconds since 1970.
    pub(super) until: u64,
    since: u64,
    /// A tunnel of it has stood.
    pub(super) proven: bool,
    /// How many ready tunnels it takes.
    pub(super) demand: Demand,
    /// Tunnels in a row that came to nothing, of those that this end wanted.
    pub(super) vain: u32,
    /// When this end starts its next tunnel by itself.
    pub(super) refill_at: Option<u64>,
    /// When one of its ready tunnels goes that are too many.
    pub(super) thin_at: Option<u64>,
    /// The constant part of this end's waits, in milliseconds; 0 in the middle.
    pub(super) pace: u64,
}

/// Why a path ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// A standing connection is lost.
    Lost,
    /// Nothing comes any more from a neighbour: what runs over it ends, too.
    Silent,
    /// Its tunnels fail, or its other end breaks the protocol over them.
    Mute,
    /// It is over, or not needed any more.
    Ours,
}

/// What this node is on a path.
pub(super) enum Part {
    /// A relay between two neighbours.
    Middle(Box<tunnel::Hop>),
    /// The terminating node.
    End(Box<tunnel::End>, Uses),
    /// The owner.
    Own(Box<tunnel::Owner>, Owned),
}

/// What an owner knows of its path.
pub(super) struct Owned {
    pub(super) persona: Persona,
    pub(super) class: Class,
    pub(super) work: Work,
    /// When it takes no more work, in milliseconds since 1970.
    pub(super) retires: u64,
    /// When it is ended, if that is drawn already, in milliseconds since 1970.
    pub(super) leaves: Option<u64>,
    /// The terminating node.
    pub(super) end: NodeContact,
    /// All X-nodes.
    pub(super) hops: Vec<NodeContact>,
    pub(super) handle: Handle,
    /// Whom it was planned with.
    pub(super) case: Case,
}

/// One neighbour on a path.
pub(super) struct SideState {
    pub(super) segment: Segment,
    /// The standing connection, once it stands.
    pub(super) link: Option<LinkId>,
    /// When this node tells its new record there.
    pub(super) tell_at: Option<u64>,
    /// Records that came from there.
    pub(super) told: u8,
}

impl Path {
    pub(super) fn new(now: u64, until: u64, part: Part, segments: Vec<Segment>) -> Self {
        let sides =
            segments.into_iter().map(|segment| SideState { segment, link: None, tell_at: None, told: 0 }).collect();
        Self {
            part,
            sides,
            until,
            since: now,
            proven: false,
            demand: Demand::default(),
            vain: 0,
            refill_at: None,
            thin_at: None,
            pace: 0,
        }
    }

    pub(super) fn owned(&self) -> Option<&Owned> {
        match &self.part {
            Part::Own(_, owned) => Some(owned),
            Part::Middle(_) | Part::End(..) => None,
        }
    }

    pub(super) fn owned_mut(&mut self) -> Option<&mut Owned> {
        match &mut self.part {
            Part::Own(_, owned) => Some(owned),
            Part::Middle(_) | Part::End(..) => None,
        }
    }

    pub(super) fn since(&self) -> u64 {
        self.since
    }

    /// What its ending says about its nodes.
    pub(super) fn how(&self, now: u64, ending: Ending) -> How {
        // A clock may have been set back.
        let lived = now.saturating_sub(self.since) / 1000;
        let planned = self.until.saturating_sub(self.since) / 1000;
        match ending {
            _ if !self.proven => How::Failed,
            Ending::Lost | Ending::Silent if now < self.until => How::Died { lived, planned },
            Ending::Mute => How::Mute,
            Ending::Lost | Ending::Silent | Ending::Ours => How::Ended,
        }
    }

    pub(super) fn until(&self) -> u64 {
        self.until
    }

    pub(super) fn stands(&self) -> bool {
        self.sides.iter().all(|side| side.link.is_some())
    }
}

impl Node {
    /// A round-2 package made us an X-node.
    pub(super) fn join_path(&mut self, now: u64, path: HopPath) {
        if self.relayed_paths() >= self.settings.relayed_paths {
            return self.note(now, Note::PathsFull);
        }
        let until = path.until.saturating_mul(1000);
        let mut pace = 0;
        let (part, segments) = match path.sides {
            Sides::Middle(segments) => {
                let ids = [segments[0].path, segments[1].path];
                (Part::Middle(Box::new(tunnel::Hop::new(path.secret, ids))), segments.to_vec())
            }
            Sides::End(segment) => {
                let uses = Uses::new(path::handle(&path.secret));
                pace = pace::constant(&mut *self.rng);
                (Part::End(Box::new(tunnel::End::new(path.secret)), uses), vec![segment])
            }
        };
        let mut path = Path::new(now, until, part, segments);
        path.pace = pace;
        if self.add_path(path).is_none() {
            self.note(now, Note::Misused);
        }
    }

    /// Registers a path and brings up its standing connections.
    // protocol: Q12
    pub(super) fn add_path(&mut self, mut path: Path) -> Option<PathNo> {
        path.demand = Demand::drawn(&mut *self.rng);
        // Also of one path: a standing connection whose segment has another's name would never be closed.
        let named: BTreeSet<_> = path.sides.iter().map(|side| side.segment.path).collect();
        if named.len() != path.sides.len() || named.iter().any(|segment| self.segments.contains_key(segment)) {
            return None;
        }
        let no = PathNo(self.id());
        let segments: Vec<_> = path.sides.iter().map(|side| side.segment.clone()).collect();
        match path.part {
            Part::Middle(_) => {}
            Part::End(..) => self.ready.open(no, segments.first().map(|segment| segment.neighbour.node_id())),
            Part::Own(..) => self.ready.open(no, None),
        }
        self.paths.insert(no, path);
        for (side, segment) in segments.iter().enumerate() {
            self.segments.insert(segment.path, (no, side));
        }
        for segment in segments {
            if segment.dial {
                self.dial(segment.neighbour, Errand::Attach(segment.path));
            } else {
                self.attach_early(segment.path);
            }
        }
        Some(no)
    }

    /// What ran over a path that takes no new work has ended: the path goes, a while later, so that its end does not say when that was.
    // protocol: K11
    pub(super) fn unused(&mut self, now: u64, no: PathNo) {
        let wait = exponential(&mut *self.rng, CLOSING_MEAN);
        if let Some(path) = self.paths.get_mut(&no)
            && path.owned().is_some_and(|owned| now >= owned.retires)
        {
            path.until = path.until.min(now + wait);
            self.wake(now + wait + 1);
        }
    }

    /// Whether `peer` is the neighbour that must dial us for this segment, and has not yet.
    pub(super) fn expects_attach(&self, segment: PathId, peer: NodeId) -> bool {
        self.side(segment)
            .is_some_and(|side| side.link.is_none() && !side.segment.dial && side.segment.neighbour.node_id() == peer)
    }

    fn side(&self, segment: PathId) -> Option<&SideState> {
        let (no, side) = self.segments.get(&segment)?;
        self.paths.get(no)?.sides.get(*side)
    }

    /// The standing connection of a segment is there.
    pub(super) fn stand(&mut self, segment: PathId, link: LinkId) -> bool {
        let Some((no, side)) = self.segments.get(&segment).copied() else { return false };
        let Some(path) = self.paths.get_mut(&no) else { return false };
        path.sides[side].link = Some(link);
        self.out.push_back(Output::Standing { link });
        true
    }

    /// Without a standing connection the path is dead; closing the other one tells the next node, and so on to the owner.
    // protocol: F14
    pub(super) fn segment_lost(&mut self, now: u64, segment: PathId) {
        if let Some((no, _)) = self.segments.get(&segment).copied() {
            self.end_path(now, no, Ending::Lost);
        }
    }

    // protocol: Q17
    pub(super) fn drop_path(&mut self, now: u64, no: PathNo) {
        self.end_path(now, no, Ending::Ours);
    }

    pub(super) fn end_path(&mut self, now: u64, no: PathNo, ending: Ending) {
        let Some(path) = self.paths.remove(&no) else { return };
        for side in &path.sides {
            self.segments.remove(&side.segment.path);
            if let Some(link) = side.link {
                self.close(link);
            }
        }
        self.drop_setups_of(now, no);
        self.ready.close(no);
        if ending == Ending::Silent {
            self.out.push_back(Output::Cut { path: no });
        }
        self.out.push_back(Output::PathDown { path: no });
        let how = path.how(now, ending);
        match path.part {
            Part::Own(_, owned) => {
                self.note(now, Note::PathDown(how));
                self.unwatch(owned.persona, no);
                self.path_ended(now, path.since, &owned, how);
            }
            Part::End(_, uses) => {
                if ending == Ending::Mute {
                    self.note(now, Note::Misused);
                }
                self.served.remove(&uses.handle());
            }
            Part::Middle(_) => {}
        }
    }

    pub(super) fn expire_paths(&mut self, now: u64) {
        let over = |path: &Path| now > path.until || (!path.proven && now > path.since + STAND_LIMIT);
        let ended: Vec<_> = self.paths.iter().filter(|(_, path)| over(path)).map(|(no, _)| *no).collect();
        for no in ended {
            self.drop_path(now, no);
        }
    }

    /// What is known of a path that ends here.
    fn uses(&mut self, no: PathNo) -> Option<&mut Uses> {
        match &mut self.paths.get_mut(&no)?.part {
            Part::End(_, uses) => Some(uses),
            Part::Middle(_) | Part::Own(..) => None,
        }
    }

    /// The other end of a path of our own, or of one that ends here, begins to use a tunnel with this cell. When it may not, the path
    /// ends.
    pub fn first_word(&mut self, now: u64, no: PathNo, kind: CellKind, data: &[u8]) -> First {
        // One that leaves may have served: who comes now has an older record, and is told nothing, or is served.
        let serves = |owned: &Owned| owned.class == Class::In && matches!(owned.work, Work::Serve | Work::Leaving);
        let first = match self.paths.get_mut(&no).map(|path| &mut path.part) {
            Some(Part::End(_, uses)) => uses.first(kind, data),
            Some(Part::Own(_, owned)) => First::at_owner(serves(owned), kind, data),
            Some(Part::Middle(_)) | None => First::Misused,
        };
        if first == First::Misused {
            self.end_path(now, no, Ending::Mute);
        }
        first
    }

    /// The owner of a path that ends here wants this record served and published, or, when it is empty, no more. When it may not, the
    /// path ends.
    // protocol: U12, H8
    pub(super) fn serve_record(&mut self, now: u64, no: PathNo, record: Vec<u8>) {
        let (own, hold) = (self.own.contact.identity, self.settings.publish_within * 2 / 3);
        let Some(Part::End(_, uses)) = self.paths.get_mut(&no).map(|path| &mut path.part) else { return };
        match uses.serve(now, &own, &mut *self.rng, hold, record) {
            Ok(Publication::Now(record)) => self.publish(no, record),
            Ok(Publication::Later) => {}
            Ok(Publication::Withdrawn) => {
                let handle = uses.handle();
                self.served.remove(&handle);
            }
            Err(RecordRefused::Record(why)) => self.record_refused(now, no, why),
            Err(RecordRefused::Misused) => self.end_path(now, no, Ending::Mute),
        }
    }

    fn record_refused(&mut self, now: u64, no: PathNo, why: RecordError) {
        self.note(now, Note::Record(why));
        self.drop_path(now, no);
    }

    fn publish(&mut self, no: PathNo, record: Vec<u8>) {
        let Some(handle) = self.uses(no).map(|uses| uses.handle()) else { return };
        self.served.insert(handle, no);
        self.out.push_back(Output::Publish { path: no, record });
    }

    /// Publishes the records whose time has come, along paths that stand.
    // protocol: H9
    pub(super) fn publish_due(&mut self, now: u64) {
        let due = |(no, path): (&PathNo, &mut Path)| match &mut path.part {
            Part::End(_, uses) => Some((*no, uses.due(now)?)),
            Part::Middle(_) | Part::Own(..) => None,
        };
        for (no, record) in self.paths.iter_mut().filter_map(due).collect::<Vec<_>>() {
            match record {
                Ok(record) => self.publish(no, record),
                Err(why) => self.record_refused(now, no, why),
            }
        }
    }

    /// Of a path that ends here, the standing connection along it: whose neighbour asks for its owner.
    pub fn end_link(&self, no: PathNo) -> Option<LinkId> {
        matches!(self.paths.get(&no)?.part, Part::End(..)).then(|| self.standing(no, 0))?
    }

    /// JOIN from an exit node: the handle names the path that serves; the data plane takes the link.
    // protocol: F8, U11
    pub(super) fn join_frame(&mut self, link: LinkId, peer: NodeId, handle: Handle) -> bool {
        let Some(path) = self.served.get(&handle).copied() else { return false };
        self.hand_over(link);
        self.out.push_back(match self.joins.enter(peer) {
            true => Output::Join { link, peer, path },
            false => Output::Refuse { link, reason: Reason::Busy },
        });
        true
    }

    /// The standing connection towards one side, while a frame may be sent there.
    fn standing(&self, no: PathNo, side: usize) -> Option<LinkId> {
        self.paths.get(&no)?.sides.get(side)?.link
    }
}
