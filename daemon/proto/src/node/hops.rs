//! Paths of which this node owns, carries or ends a part, and their standing connections.

use std::collections::BTreeSet;

use super::links::Errand;
use super::{LinkId, Node, Output, PathNo, Purpose};
use crate::crypto::hash::same;
use crate::ident::{ApAddress, NodeId, PathId};
use crate::path::{HopPath, Sides};
use crate::record::{ApRecord, RecordError, RoutingEntry, Signed};
use crate::tunnel;
use crate::wire::NodeContact;
use crate::wire::array::{Kind, Segment, Terminal};

/// Paths that a node carries for others at once; each costs one or two standing connections and some kilobytes.
const MAX_PATHS: usize = 20_000;

/// How long the standing connections of a new path, or a first tunnel on it, may take in milliseconds.
const STAND_LIMIT: u64 = 20_000;

/// One path, as much of it as this node knows.
pub(super) struct Path {
    pub(super) part: Part,
    /// One side at the two ends, two sides in the middle.
    pub(super) sides: Vec<SideState>,
    /// When it ends, in milliseconds since 1970.
    until: u64,
    since: u64,
    /// A tunnel of it has stood.
    pub(super) proven: bool,
    /// Ready tunnels that have not been used, at either end.
    pub(super) ready: usize,
    /// What the AP record says of an own entry path.
    pub(super) entry: Option<RoutingEntry>,
    /// When this end starts its next tunnel by itself.
    pub(super) refill_at: Option<u64>,
}

/// What this node is on a path.
pub(super) enum Part {
    /// A relay between two neighbours.
    Middle(Box<tunnel::Hop>),
    /// The terminating node; of an entry path with the address that it serves.
    End(Box<tunnel::End>, Terminal, Option<ApAddress>),
    /// The owner.
    Own(Box<tunnel::Owner>, Purpose),
}

/// One neighbour on a path.
pub(super) struct SideState {
    pub(super) segment: Segment,
    /// The standing connection, once it stands.
    pub(super) link: Option<LinkId>,
}

impl Path {
    pub(super) fn new(now: u64, until: u64, part: Part, segments: Vec<Segment>) -> Self {
        let sides = segments.into_iter().map(|segment| SideState { segment, link: None }).collect();
        Self { part, sides, until, since: now, proven: false, ready: 0, entry: None, refill_at: None }
    }

    pub(super) fn purpose(&self) -> Option<Purpose> {
        match self.part {
            Part::Own(_, purpose) => Some(purpose),
            Part::Middle(_) | Part::End(..) => None,
        }
    }

    pub(super) fn stands(&self) -> bool {
        self.sides.iter().all(|side| side.link.is_some())
    }

    /// An own path near its end: it still serves, and its successor is built.
    pub(super) fn retiring(&self, now: u64) -> bool {
        now > self.since + (self.until - self.since) / 5 * 4
    }
}

/// The address that an entry path serves: its record must hold. `None`: an exit path.
fn served(now: u64, terminal: &Terminal) -> Result<Option<ApAddress>, RecordError> {
    match terminal.kind {
        Kind::Exit => Ok(None),
        Kind::Entry => Ok(Some(Signed::<ApRecord>::from_bytes(&terminal.ap_record)?.check(now / 1000)?.address())),
    }
}

impl Node {
    /// A round-2 package made us an X-node.
    pub(super) fn join_path(&mut self, now: u64, path: HopPath) {
        if self.paths.len() >= MAX_PATHS {
            return;
        }
        let until = path.until.saturating_mul(1000);
        let (part, segments) = match path.sides {
            Sides::Middle(segments) => (Part::Middle(Box::new(tunnel::Hop::new(path.secret))), segments.to_vec()),
            Sides::End(segment, terminal) => {
                let Ok(address) = served(now, &terminal) else { return };
                if address.is_some() {
                    self.out.push_back(Output::Publish(terminal.ap_record.clone()));
                }
                (Part::End(Box::new(tunnel::End::new(path.secret)), terminal, address), vec![segment])
            }
        };
        self.add_path(Path::new(now, until, part, segments));
    }

    /// Registers a path and brings up its standing connections.
    pub(super) fn add_path(&mut self, path: Path) -> Option<PathNo> {
        // Also of one path: a standing connection whose segment has another's name would never be closed.
        let named: BTreeSet<_> = path.sides.iter().map(|side| side.segment.path).collect();
        if named.len() != path.sides.len() || named.iter().any(|segment| self.segments.contains_key(segment)) {
            return None;
        }
        let no = PathNo(self.id());
        let segments: Vec<_> = path.sides.iter().map(|side| side.segment.clone()).collect();
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
        true
    }

    /// Without a standing connection the path is dead; closing the other one tells the next node, and so on to the owner.
    pub(super) fn segment_lost(&mut self, now: u64, segment: PathId) {
        if let Some((no, _)) = self.segments.get(&segment).copied() {
            self.drop_path(now, no);
        }
    }

    pub(super) fn drop_path(&mut self, now: u64, no: PathNo) {
        let Some(path) = self.paths.remove(&no) else { return };
        for side in &path.sides {
            self.segments.remove(&side.segment.path);
            if let Some(link) = side.link {
                self.close(link);
            }
        }
        self.drop_setups_of(no);
        if !matches!(path.part, Part::Middle(_)) {
            self.out.push_back(Output::PathDown { path: no });
        }
        if let Part::Own(_, purpose) = path.part {
            self.path_ended(now, purpose, path.proven);
        }
    }

    pub(super) fn expire_paths(&mut self, now: u64) {
        let over = |path: &Path| now > path.until || (!path.proven && now > path.since + STAND_LIMIT);
        let ended: Vec<_> = self.paths.iter().filter(|(_, path)| over(path)).map(|(no, _)| *no).collect();
        for no in ended {
            self.drop_path(now, no);
        }
    }

    /// JOIN from an exit node: AP address and handle name the entry path; the data plane takes the link.
    pub(super) fn join_frame(&mut self, link: LinkId, payload: &[u8]) -> bool {
        let Some((address, handle)) = payload.split_first_chunk::<16>() else { return false };
        let served = self.paths.iter().find(|(_, path)| match &path.part {
            Part::End(_, terminal, Some(served)) => served.octets() == *address && same(&terminal.handle, handle),
            Part::End(_, _, None) => false,
            Part::Middle(_) | Part::Own(..) => false,
        });
        let Some(path) = served.map(|(no, _)| *no) else { return false };
        self.hand_over(link);
        self.out.push_back(Output::Join { link, path });
        true
    }

    /// The standing connection towards one side, while a frame may be sent there.
    pub(super) fn standing(&self, no: PathNo, side: usize) -> Option<LinkId> {
        self.paths.get(&no)?.sides.get(side)?.link
    }

    /// The neighbour at one side.
    pub(super) fn neighbour(&self, no: PathNo, side: usize) -> Option<NodeContact> {
        Some(self.paths.get(&no)?.sides.get(side)?.segment.neighbour.clone())
    }
}
