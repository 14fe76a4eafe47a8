//! How arrays come home to an owner that nobody can dial: over a link that it opened itself, ahead, to the last node of its circle
//! (docs/protocol.md, section 4.8).
//!
//! ```text
//!   owner ──HOME──▶ last node        kept there as long as arrays come
//!         ◀──HOME──                  only now the build begins
//!         ◀──ARRAY──                 either round
//! ```

use super::links::{Errand, Role};
use super::{LinkId, Node};
use crate::ident::NodeId;
use crate::path::Send;
use crate::wire::NodeContact;
use crate::wire::array::{ArrayFrame, BuildId};
use crate::wire::frame::Frame;

/// Links on which one peer has its arrays brought: one, and those that it does not know to be lost.
// protocol: F19
const HOMES_PER_PEER: usize = 4;

impl Node {
    /// Sends the first array of a build, once it can come home from the last node of the circle.
    // protocol: Q20
    pub(super) fn set_out(&mut self, now: u64, build: BuildId, last: NodeContact, first: Send) {
        let peer = last.node_id();
        match self.home_of(peer, Role::Home) {
            None if self.reachable => self.deliver(now, first.to, first.frame, Some(build)),
            Some(link) => {
                self.touch(now, link);
                self.deliver(now, first.to, first.frame, Some(build));
            }
            None => {
                self.wait_for_home(build, first);
                let dialed = self.errands.values().any(|errand| matches!(errand, Errand::Home(node) if *node == peer));
                if !dialed && self.home_of(peer, Role::Homing).is_none() {
                    self.dial(last, Errand::Home(peer));
                }
            }
        }
    }

    /// The newest link of this peer in that role: older ones may be lost without its knowing.
    pub(super) fn home_of(&self, peer: NodeId, role: Role) -> Option<LinkId> {
        self.links.iter().rev().find(|(_, state)| state.peer == peer && state.role == role).map(|(link, _)| *link)
    }

    /// HOME: a peer has its arrays brought on this link.
    // protocol: F19
    pub(super) fn home_frame(&mut self, now: u64, link: LinkId, peer: NodeId) -> bool {
        let homes = self.links.values().filter(|state| state.peer == peer && state.role == Role::Brings).count();
        if homes >= HOMES_PER_PEER {
            return false;
        }
        self.set_role(link, Role::Brings);
        self.touch(now, link);
        self.send(link, &Frame::Home);
        true
    }

    /// The answer to HOME: what waited for it begins.
    pub(super) fn at_home(&mut self, now: u64, link: LinkId, peer: NodeId) -> bool {
        self.set_role(link, Role::Home);
        self.touch(now, link);
        for (build, first) in self.waiting_for_home(peer) {
            self.deliver(now, first.to, first.frame, Some(build));
        }
        true
    }

    /// An array comes home; one of no build of ours is late, and dropped.
    pub(super) fn array_at_home(&mut self, now: u64, link: LinkId, peer: NodeId, frame: ArrayFrame) -> bool {
        self.touch(now, link);
        if self.builds.contains_key(&frame.build) {
            self.array(now, peer, frame);
        }
        true
    }

    /// A last node did not answer: nothing comes home from there.
    pub(super) fn no_home(&mut self, now: u64, peer: NodeId) {
        for (build, _) in self.waiting_for_home(peer) {
            self.node_away(now, build, peer);
        }
    }
}
