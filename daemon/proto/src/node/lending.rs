//! Who dials a tunnel's links: on each segment whoever dialed its standing connection, whichever way the tunnel is set up. So an owner
//! that nobody can dial needs no other rules than everybody (docs/protocol.md, section 5).
//!
//! ```text
//!   dialed the segment                         was dialed
//!     SEED ──── standing connection ─────────▶            and at once, on a link of its own:
//!     AWAIT id ── new link ──────────────────▶ keeps it until it has TUNNEL to say
//!          ◀──────────────────────── TUNNEL id
//!
//!          ◀── standing connection ───── SEED
//!     TUNNEL id ── new link ─────────────────▶
//! ```

use super::links::{Errand, Role};
use super::{LinkId, Node, PathNo};
use crate::ident::{NodeId, TunnelId};
use crate::tunnel::tunnel_id;
use crate::wire::frame::{Block, Frame, TunnelFrame};

/// One half of what an answer takes, while the other is not there.
pub(super) enum Half {
    /// The link, on which AWAIT came.
    Link(LinkId),
    /// What is to be said, of this set-up and at this side.
    Answer { setup: u64, side: usize, frame: TunnelFrame },
}

impl Node {
    /// Sends a seed to one side, with a link for its answer if this node is who dials there.
    // protocol: T22
    pub(super) fn send_seed(&mut self, now: u64, no: PathNo, to: usize, seed: Block) {
        let Some(side) = self.paths.get(&no).and_then(|path| path.sides.get(to)) else { return };
        let Some(link) = side.link else { return };
        let (id, segment) = (tunnel_id(&seed), side.segment.clone());
        self.seeds.insert(id, (no, now));
        self.send(link, &Frame::Seed(seed));
        if segment.dial {
            self.dial(segment.neighbour, Errand::Await(id));
        }
    }

    /// Says TUNNEL to the neighbour at one side of a set-up: on a link that this node dials, or on the one that the neighbour lends.
    // protocol: Q15, T23
    pub(super) fn answer(&mut self, setup: u64, side: usize, frame: TunnelFrame) {
        let path = self.setups.get(&setup).and_then(|setup| self.paths.get(&setup.path));
        let Some(segment) = path.and_then(|path| path.sides.get(side)).map(|side| side.segment.clone()) else { return };
        if segment.dial {
            return self.dial(segment.neighbour, Errand::Tunnel { setup, side, frame });
        }
        let name = (segment.neighbour.node_id(), frame.id);
        match self.halves.remove(&name) {
            Some(Half::Link(link)) if self.is_lent(link, frame.id) => self.say_tunnel(link, setup, side, frame),
            _ => drop(self.halves.insert(name, Half::Answer { setup, side, frame })),
        }
    }

    /// AWAIT: a neighbour lends a link for the answer to its seed. One for each seed.
    // protocol: F17, T23
    pub(super) fn await_frame(&mut self, now: u64, link: LinkId, peer: NodeId, id: TunnelId) -> bool {
        match self.halves.remove(&(peer, id)) {
            Some(Half::Answer { setup, side, frame }) => self.say_tunnel(link, setup, side, frame),
            Some(Half::Link(first)) if self.is_lent(first, id) => {
                self.halves.insert((peer, id), Half::Link(first));
                return false;
            }
            Some(Half::Link(_)) | None => {
                self.set_role(link, Role::Lent(id));
                self.touch(now, link);
                self.halves.insert((peer, id), Half::Link(link));
            }
        }
        true
    }

    fn is_lent(&self, link: LinkId, id: TunnelId) -> bool {
        self.links.get(&link).is_some_and(|state| state.role == Role::Lent(id))
    }

    fn say_tunnel(&mut self, link: LinkId, setup: u64, side: usize, frame: TunnelFrame) {
        if self.setup_linked(setup, side, link) {
            self.set_role(link, Role::Tunnel(setup));
            self.send(link, &Frame::Tunnel(frame));
        } else {
            self.close(link);
        }
    }

    /// Forgets links that are gone, and answers whose set-up is.
    pub(super) fn expire_halves(&mut self) {
        let (links, setups) = (&self.links, &self.setups);
        self.halves.retain(|(_, id), half| match half {
            Half::Link(link) => links.get(link).is_some_and(|state| state.role == Role::Lent(*id)),
            Half::Answer { setup, .. } => setups.contains_key(setup),
        });
    }
}
