//! Links while they are under the node's control: what each is for, and where its frames go.

use super::paths::Ending;
use super::{LinkId, Node, Note, Output};
use crate::ident::{NodeId, PathId, TunnelId};
use crate::wire::NodeContact;
use crate::wire::array::{ArrayFrame, BuildId};
use crate::wire::frame::{Frame, TunnelFrame};

/// How long an ATTACH may wait for its round-2 package or for its answer, and AWAIT for TUNNEL, in milliseconds.
const EARLY_LIMIT: u64 = 10_000;

/// How long an owner that nobody can dial keeps a link for its arrays on which none comes, in milliseconds: the other side keeps it longer.
// protocol: Q21
const HOME_LIMIT: u64 = 120_000;

/// How long a link may stay without a purpose, in milliseconds: longer than dialers keep warm links.
// protocol: L30
const IDLE_LIMIT: u64 = 180_000;

/// Links of one peer that serve nothing yet. A peer needs one per array or tunnel that it starts just now.
// protocol: F16
const IDLE_PER_PEER: usize = 256;

/// A link that the node controls.
pub(super) struct LinkState {
    pub(super) peer: NodeId,
    since: u64,
    pub(super) role: Role,
}

impl LinkState {
    /// When it has waited for too long.
    fn late(&self) -> Option<u64> {
        let limit = match self.role {
            Role::Early(_) | Role::Attaching(_) | Role::Awaiting(_) | Role::Lent(_) | Role::Homing => EARLY_LIMIT,
            Role::Home => HOME_LIMIT,
            Role::Fresh | Role::Arrays | Role::Brings => IDLE_LIMIT,
            // These end with their path or set-up.
            Role::Standing(_) | Role::Tunnel(_) => return None,
        };
        Some(self.since.saturating_add(limit + 1))
    }

    /// As if it had just come.
    pub(super) fn restart(&mut self, now: u64) {
        self.since = self.since.min(now);
    }
}

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// No frame yet that decides it.
    Fresh,
    /// Carries arrays; stays open for more.
    Arrays,
    /// We sent HOME and wait for the answer.
    Homing,
    /// Arrays come to us here.
    Home,
    /// The peer's arrays go to it here.
    Brings,
    /// ATTACH came before the round-2 package that explains it.
    Early(PathId),
    /// We sent ATTACH and wait for ATTACHED.
    Attaching(PathId),
    /// Standing connection of a segment.
    Standing(PathId),
    /// We sent AWAIT: TUNNEL of this name is to come.
    Awaiting(TunnelId),
    /// AWAIT came: TUNNEL of this name is to be sent.
    Lent(TunnelId),
    /// One segment of a tunnel that is being set up.
    Tunnel(u64),
}

/// Why we dial.
pub(super) enum Errand {
    /// Deliver an array; of one of our own builds, if it is named.
    Array(Box<ArrayFrame>, Option<BuildId>),
    /// Have arrays brought from there.
    Home(NodeId),
    /// See whether a guard is there, after a build failed.
    Probe(NodeId),
    /// Be the standing connection of a segment.
    Attach(PathId),
    /// Be a segment of a tunnel: its set-up, and the TUNNEL frame.
    Tunnel { setup: u64, side: usize, frame: TunnelFrame },
    /// Be there for the answer to a seed.
    Await(TunnelId),
}

impl Node {
    /// Dials `to`; `errand` is done when the link stands.
    pub(super) fn dial(&mut self, to: NodeContact, errand: Errand) {
        let link = LinkId(self.id());
        let again = matches!(errand, Errand::Tunnel { .. } | Errand::Await(_));
        self.errands.insert(link, errand);
        self.out.push_back(Output::Dial { link, to, again });
    }

    pub(super) fn link_up(&mut self, now: u64, link: LinkId, peer: NodeId) {
        // Whoever did not answer before does now.
        self.away.remove(&peer);
        let role = match self.errands.remove(&link) {
            Some(errand) => self.run_errand(now, link, errand),
            // In total the link level bounds them.
            None if self.idle_links(peer) >= IDLE_PER_PEER => {
                return self.out.push_back(Output::Close { link });
            }
            None => Some(Role::Fresh),
        };
        if let Some(role) = role {
            self.links.insert(link, LinkState { peer, since: now, role });
        }
    }

    fn idle_links(&self, peer: NodeId) -> usize {
        let idle = |role| matches!(role, Role::Fresh | Role::Arrays | Role::Early(_) | Role::Lent(_));
        self.links.values().filter(|state| state.peer == peer && idle(state.role)).count()
    }

    /// None: the link is not ours any more.
    // protocol: F10, F11, F12, F13
    fn run_errand(&mut self, now: u64, link: LinkId, errand: Errand) -> Option<Role> {
        match errand {
            Errand::Probe(node) => {
                self.choice.dialed(now / 1000, &node, true);
                self.out.push_back(Output::Release { link });
                None
            }
            Errand::Array(frame, _) => {
                self.send(link, &Frame::Array(*frame));
                self.out.push_back(Output::Release { link });
                None
            }
            Errand::Home(_) => {
                self.send(link, &Frame::Home);
                Some(Role::Homing)
            }
            Errand::Attach(path) => {
                self.send(link, &Frame::Attach(path));
                Some(Role::Attaching(path))
            }
            Errand::Tunnel { setup, side, frame } => {
                self.send(link, &Frame::Tunnel(frame));
                self.setup_linked(setup, side, link).then_some(Role::Tunnel(setup)).or_else(|| {
                    self.out.push_back(Output::Close { link });
                    None
                })
            }
            Errand::Await(id) if self.seeds.contains_key(&id) => {
                self.send(link, &Frame::Await(id));
                Some(Role::Awaiting(id))
            }
            Errand::Await(_) => {
                self.out.push_back(Output::Release { link });
                None
            }
        }
    }

    pub(super) fn dial_failed(&mut self, now: u64, link: LinkId) {
        match self.errands.remove(&link) {
            Some(Errand::Attach(path)) => self.segment_lost(now, path),
            Some(Errand::Tunnel { setup, .. }) => self.drop_setup(now, setup),
            Some(Errand::Array(_, Some(build))) => self.first_node_away(now, build),
            Some(Errand::Home(node)) => self.no_home(now, node),
            Some(Errand::Probe(node)) => self.guard_away(now, node),
            // A lost array is silence: its owner gives up by itself; and so is a seed that nobody can answer.
            Some(Errand::Array(_, None) | Errand::Await(_)) | None => {}
        }
    }

    pub(super) fn link_down(&mut self, now: u64, link: LinkId) {
        let Some(LinkState { peer, role, .. }) = self.links.remove(&link) else { return };
        match role {
            Role::Attaching(path) | Role::Standing(path) => self.segment_lost(now, path),
            Role::Tunnel(setup) => self.drop_setup(now, setup),
            Role::Homing => self.no_home(now, peer),
            Role::Fresh | Role::Arrays | Role::Home | Role::Brings => {}
            Role::Early(_) | Role::Awaiting(_) | Role::Lent(_) => {}
        }
    }

    /// When the next one has waited for too long.
    pub(super) fn next_late_link(&self) -> Option<u64> {
        self.links.values().filter_map(LinkState::late).min()
    }

    pub(super) fn close(&mut self, link: LinkId) {
        if self.links.remove(&link).is_some() {
            self.out.push_back(Output::Close { link });
        }
    }

    /// Takes a frame; one that the link's role does not expect closes the link.
    // protocol: F2, F5, Y2
    pub(super) fn frame(&mut self, now: u64, link: LinkId, frame_kind: u8, payload: &[u8]) {
        // Frames read before the shell learned that a link left the node.
        let Some(state) = self.links.get(&link) else { return };
        let (peer, role) = (state.peer, state.role);
        let accepted = match (role, Frame::read(frame_kind, payload)) {
            (Role::Fresh | Role::Arrays, Ok(Frame::Array(frame))) => self.array_frame(now, link, peer, frame),
            (Role::Fresh | Role::Arrays, Ok(Frame::Attach(path))) => self.attach_frame(now, link, peer, path),
            (Role::Fresh | Role::Arrays, Ok(Frame::Tunnel(frame))) => self.tunnel_frame(now, link, peer, false, &frame),
            (Role::Fresh | Role::Arrays, Ok(Frame::Await(id))) => self.await_frame(now, link, peer, id),
            (Role::Awaiting(id), Ok(Frame::Tunnel(frame))) if frame.id == id => {
                self.tunnel_frame(now, link, peer, true, &frame)
            }
            (Role::Fresh | Role::Arrays, Ok(Frame::Join(handle))) => self.join_frame(link, peer, handle),
            (Role::Fresh | Role::Arrays, Ok(Frame::Home)) => self.home_frame(now, link, peer),
            (Role::Homing, Ok(Frame::Home)) => self.at_home(now, link, peer),
            (Role::Home, Ok(Frame::Array(frame))) => self.array_at_home(now, link, peer, frame),
            (Role::Attaching(path), Ok(Frame::Attached)) => self.attached(link, path),
            (Role::Standing(path), Ok(Frame::Seed(seed))) => self.seed_frame(now, path, &seed),
            (Role::Standing(path), Ok(Frame::Record(record))) => self.record_frame(now, path, peer, record),
            // The shell hears it: nothing is to be done.
            (Role::Standing(_), Ok(Frame::Alive)) => true,
            (Role::Tunnel(setup), Ok(Frame::Confirm(proof))) => self.confirm_frame(now, setup, link, &proof),
            _ => false,
        };
        if !accepted {
            self.note(now, Note::Frame);
            self.link_down(now, link);
            self.out.push_back(Output::Close { link });
        }
    }

    /// An array that does not fit is dropped in silence.
    fn array_frame(&mut self, now: u64, link: LinkId, peer: NodeId, frame: ArrayFrame) -> bool {
        self.set_role(link, Role::Arrays);
        self.touch(now, link);
        self.array(now, peer, frame);
        true
    }

    // protocol: F6, F9
    fn attach_frame(&mut self, now: u64, link: LinkId, peer: NodeId, path: PathId) -> bool {
        if self.segments.contains_key(&path) {
            self.attach(link, peer, path)
        } else {
            self.set_role(link, Role::Early(path));
            self.touch(now, link);
            true
        }
    }

    fn attached(&mut self, link: LinkId, path: PathId) -> bool {
        self.set_role(link, Role::Standing(path));
        self.stand(path, link)
    }

    /// Nothing came any more on a standing connection: whoever is at its other end is gone, or frozen, and so is what runs over it.
    // protocol: A5, O19
    pub(super) fn link_silent(&mut self, now: u64, link: LinkId) {
        if let Some(LinkState { role: Role::Standing(path), peer, .. }) = self.links.remove(&link)
            && let Some((no, _)) = self.segments.get(&path).copied()
        {
            // Else whatever is built now would wait for it once more.
            self.away(now, peer);
            self.end_path(now, no, Ending::Silent);
        }
    }

    /// Answers ATTACH when the peer is the neighbour that we were told of.
    // protocol: Q13, F6
    pub(super) fn attach(&mut self, link: LinkId, peer: NodeId, path: PathId) -> bool {
        if !self.expects_attach(path, peer) {
            return false;
        }
        self.set_role(link, Role::Standing(path));
        self.send(link, &Frame::Attached);
        self.stand(path, link)
    }

    /// Attaches the link that came early for a segment that is now known.
    pub(super) fn attach_early(&mut self, path: PathId) {
        let early: Vec<_> =
            self.links.iter().filter(|(_, s)| s.role == Role::Early(path)).map(|(id, s)| (*id, s.peer)).collect();
        for (link, peer) in early {
            if !self.attach(link, peer, path) {
                self.close(link);
            }
        }
    }

    pub(super) fn set_role(&mut self, link: LinkId, role: Role) {
        if let Some(state) = self.links.get_mut(&link) {
            state.role = role;
        }
    }

    pub(super) fn touch(&mut self, now: u64, link: LinkId) {
        if let Some(state) = self.links.get_mut(&link) {
            state.since = now;
        }
    }

    /// The node lets go of a link without closing it: the data plane has it now.
    // protocol: F15
    pub(super) fn hand_over(&mut self, link: LinkId) {
        self.links.remove(&link);
    }

    // protocol: Y3
    pub(super) fn expire_links(&mut self, now: u64) {
        let late = |state: &LinkState| state.late().is_some_and(|late| now >= late);
        let stale: Vec<_> = self.links.iter().filter(|(_, state)| late(state)).map(|(link, _)| *link).collect();
        for link in stale {
            self.link_down(now, link);
            self.out.push_back(Output::Close { link });
        }
    }
}
