//! Tunnel set-up on the links of a path: seeds, blocks and proofs go where the path says; a finished tunnel leaves the node.
//!
//! ```text
//!   starter ──SEED──▶ hop ──SEED──▶ far end          over standing connections
//!   starter ◀─TUNNEL─ hop ◀─TUNNEL─ far end          over new links, which `lending` brings
//!   starter ─CONFIRM▶ hop ─CONFIRM▶ far end          Q
//!   starter ◀CONFIRM─ hop ◀CONFIRM─ far end          V, then cells
//! ```

use rand::RngExt;

use super::links::Role;
use super::pace::Paced;
use super::paths::{Ending, Part, Path};
use super::ready::Met;
use super::{LinkId, Node, Note, Of, Output, PathNo, TunnelNo, WantNo};
use crate::cell::{Layer, OwnerCrypt};
use crate::ident::{NodeId, PathId};
use crate::tunnel::{self, EndLayers, OwnerLayers, Side, TunnelError};
use crate::wire::frame::{Block, Frame, TunnelFrame};

/// How long a set-up may take, in milliseconds (docs/protocol.md, section "Tunnels").
const SETUP_LIMIT: u64 = 10_000;

/// Longest random delay before an end starts a refill, in milliseconds. Shorter when it has nothing ready.
const REFILL_DELAY: u64 = 400;

/// As [`REFILL_DELAY`], when no tunnel is ready: somebody may be waiting.
const URGENT_DELAY: u64 = 20;

/// Longest wait before one of too many ready tunnels goes, in milliseconds.
// protocol: T21
const SURPLUS_DELAY: u64 = 2_000;

/// Least time between two starts when none is ready, but as many are under way as are wanted: over a slow path, starts at the
/// urgent pace would make many times that.
const UNDER_WAY_DELAY: u64 = 100;

/// Ready tunnels of a path that nobody has used yet: most are spares, and there are more of them than of those at work.
const READY_UNUSED: usize = 2;

/// Tunnels in a row that come to nothing after which an owner takes its path for mute and drops it. Each has had [`SETUP_LIMIT`], and
/// an end with nothing ready starts them faster than that, so it takes little longer than one.
// protocol: O17
pub(super) const MUTE: u32 = 5;

/// A tunnel that is being set up.
pub(super) struct Setup {
    pub(super) path: PathNo,
    since: u64,
    /// This end sent its seed.
    started: bool,
    phase: Phase,
    /// For a hop: the links at side A and B. For an end: its one link, first.
    links: [Option<LinkId>; 2],
}

/// A tunnel that stands at an end, once that end has said its last word.
pub(super) struct Stood {
    pub(super) tunnel: TunnelNo,
    pub(super) path: PathNo,
    pub(super) link: LinkId,
    layers: Layers,
}

/// For cells that arrive, and for those to send.
enum Layers {
    End(Box<(Layer, Layer)>),
    Own(OwnerCrypt, OwnerCrypt),
}

enum Phase {
    Hop(tunnel::HopTunnel),
    End(tunnel::EndTunnel),
    Own(tunnel::OwnerTunnel),
}

fn side(index: usize) -> Side {
    if index == 0 { Side::A } else { Side::B }
}

impl Node {
    /// SEED on a standing connection: pass it on, or answer it with a new tunnel when we are the far end. A refused seed is dropped
    /// in silence: a replay must not tell its sender anything.
    pub(super) fn seed_frame(&mut self, now: u64, segment: PathId, seed: &Block) -> bool {
        let Some((no, from)) = self.segments.get(&segment).copied() else { return false };
        let Some(path) = self.paths.get_mut(&no) else { return false };
        // Beyond it an end answers no seeds.
        if !matches!(path.part, Part::Middle(_)) && !self.ready.has_room(no) {
            return true;
        }
        let rng = &mut *self.rng;
        let answer = match &mut path.part {
            Part::Middle(hop) => match hop.seed(now, side(from), seed) {
                Ok(onward) => {
                    self.send_seed(now, no, 1 - from, onward);
                    return true;
                }
                Err(why) => Err(why),
            },
            Part::End(end, ..) => end.on_seed(rng, seed).map(|(tunnel, frame)| (Phase::End(tunnel), frame)),
            Part::Own(owner, _) => owner.on_seed(rng, seed).map(|(tunnel, frame)| (Phase::Own(tunnel), frame)),
        };
        match answer {
            Ok((phase, frame)) => drop(self.begin(now, no, phase, [None, None], 0, frame)),
            Err(why) => self.note(now, Note::Block(why)),
        }
        true
    }

    /// Registers a set-up and answers the neighbour at `towards`.
    fn begin(
        &mut self,
        now: u64,
        no: PathNo,
        phase: Phase,
        links: [Option<LinkId>; 2],
        towards: usize,
        frame: TunnelFrame,
    ) -> u64 {
        let setup = self.id();
        self.setups.insert(setup, Setup { path: no, since: now, started: false, phase, links });
        self.paced(now, no, Paced::Answer { setup, side: towards, frame });
        setup
    }

    /// A set-up has its link at one side. False: the set-up is gone.
    pub(super) fn setup_linked(&mut self, setup: u64, side: usize, link: LinkId) -> bool {
        let Some(setup) = self.setups.get_mut(&setup) else { return false };
        setup.links[side] = Some(link);
        true
    }

    /// TUNNEL on a new link, which we dialed or the peer did: the answer to a seed that we sent or passed on.
    // protocol: F7, F18, T5, Q15
    pub(super) fn tunnel_frame(
        &mut self,
        now: u64,
        link: LinkId,
        peer: NodeId,
        dialed: bool,
        frame: &TunnelFrame,
    ) -> bool {
        let id = frame.id;
        let Some((no, _)) = self.seeds.get(&id).copied() else { return false };
        let Some(path) = self.paths.get_mut(&no) else { return false };
        let Some(from) = path.sides.iter().position(|side| side.segment.neighbour.node_id() == peer) else {
            return false;
        };
        if path.sides[from].segment.dial != dialed {
            return false;
        }
        let answer = match &mut path.part {
            Part::Middle(hop) => match hop.tunnel(side(from), frame) {
                Ok((tunnel, onward)) => {
                    let mut links = [None, None];
                    links[from] = Some(link);
                    let setup = self.begin(now, no, Phase::Hop(tunnel), links, 1 - from, onward);
                    self.set_role(link, Role::Tunnel(setup));
                    Ok(None)
                }
                Err(why) => Err(why),
            },
            Part::End(end, ..) => end.on_tunnel(frame).map(|(tunnel, q)| Some((Phase::End(tunnel), q))),
            Part::Own(owner, _) => owner.on_tunnel(frame).map(|(tunnel, q)| Some((Phase::Own(tunnel), q))),
        };
        match answer {
            Ok(Some((phase, q))) => self.answered(now, no, link, phase, &q),
            Ok(None) => {}
            Err(why) => {
                self.note(now, Note::Block(why));
                return false;
            }
        }
        // Only now: a TUNNEL that did not hold must not use the seed up.
        self.seeds.remove(&id);
        true
    }

    /// The starter got TUNNEL and answers Q.
    fn answered(&mut self, now: u64, no: PathNo, link: LinkId, phase: Phase, q: &Block) {
        let setup = self.id();
        let links = [Some(link), None];
        self.setups.insert(setup, Setup { path: no, since: now, started: true, phase, links });
        self.set_role(link, Role::Tunnel(setup));
        self.paced(now, no, Paced::Confirm(link, *q));
    }

    /// CONFIRM: Q towards the far end or V towards the starter.
    pub(super) fn confirm_frame(&mut self, now: u64, id: u64, link: LinkId, proof: &Block) -> bool {
        let Some(mut setup) = self.setups.remove(&id) else { return false };
        match setup.phase {
            Phase::Hop(ref mut tunnel) => {
                let from = usize::from(setup.links[0] != Some(link));
                let (onward, layers) = match tunnel.confirm(side(from), proof) {
                    Ok(confirmed) => confirmed,
                    Err(why) => {
                        self.note(now, Note::Block(why));
                        return self.abandon(setup);
                    }
                };
                let [Some(a), Some(b)] = setup.links else { return self.abandon(setup) };
                self.send(if from == 0 { b } else { a }, &Frame::Confirm(onward));
                match layers {
                    None => {
                        self.setups.insert(id, setup);
                    }
                    Some(layers) => {
                        self.hand_over(a);
                        self.hand_over(b);
                        self.prove(now, setup.path);
                        self.out.push_back(Output::Relay {
                            path: setup.path,
                            a,
                            b,
                            ab: layers.a_to_b,
                            ba: layers.b_to_a,
                        });
                    }
                }
            }
            Phase::End(tunnel) => {
                let (v, EndLayers { incoming, outgoing }) = match tunnel.confirm(proof) {
                    Ok(confirmed) => confirmed,
                    Err(why) => return self.unproven_tunnel(now, setup.path, setup.started, why),
                };
                let (path, tunnel) = (setup.path, TunnelNo(self.id()));
                self.confirmed(
                    now,
                    v,
                    Stood { tunnel, path, link, layers: Layers::End(Box::new((incoming, outgoing))) },
                );
            }
            Phase::Own(tunnel) => {
                let (v, OwnerLayers { incoming, outgoing }) = match tunnel.confirm(proof) {
                    Ok(confirmed) => confirmed,
                    Err(why) => return self.unproven_tunnel(now, setup.path, setup.started, why),
                };
                let (path, tunnel) = (setup.path, TunnelNo(self.id()));
                self.confirmed(now, v, Stood { tunnel, path, link, layers: Layers::Own(incoming, outgoing) });
            }
        }
        true
    }

    /// At an end: the other one has proven itself. The far end still owes its own proof.
    fn confirmed(&mut self, now: u64, v: Option<Block>, stood: Stood) {
        match v {
            Some(v) => self.paced(now, stood.path, Paced::Stand(Box::new(v), Box::new(stood))),
            None => self.stands_now(now, stood),
        }
    }

    /// At an end: a tunnel stands, and its link leaves the node.
    pub(super) fn stands_now(&mut self, now: u64, stood: Stood) {
        let Stood { tunnel, path, link, layers } = stood;
        self.hand_over(link);
        self.prove(now, path);
        self.out.push_back(match layers {
            Layers::End(layers) => {
                let (incoming, outgoing) = *layers;
                Output::EndTunnel { path, tunnel, link, incoming, outgoing }
            }
            Layers::Own(incoming, outgoing) => Output::OwnTunnel { path, tunnel, link, incoming, outgoing },
        });
        let excess = self.ready.put(path, tunnel);
        self.give_up(now, excess);
    }

    fn give_up(&mut self, now: u64, excess: Option<TunnelNo>) {
        if let Some(tunnel) = excess {
            self.note(now, Note::TunnelsGivenUp);
            self.out.push_back(Output::DropTunnel { tunnel });
        }
    }

    /// At an end: the other one has not proven itself.
    fn unproven_tunnel(&mut self, now: u64, path: PathNo, started: bool, why: TunnelError) -> bool {
        self.note(now, Note::Block(why));
        self.in_vain(now, path, started);
        false
    }

    fn abandon(&mut self, setup: Setup) -> bool {
        for link in setup.links.into_iter().flatten() {
            self.close(link);
        }
        true
    }

    /// A tunnel stands on this path.
    fn prove(&mut self, now: u64, no: PathNo) {
        let Some(path) = self.paths.get_mut(&no) else { return };
        path.refill_at = None;
        path.vain = 0;
        if !std::mem::replace(&mut path.proven, true) {
            self.path_proven(now, no);
        }
    }

    pub(super) fn want_tunnel(&mut self, now: u64, want: WantNo, of: Of, limit: u64) {
        self.ready.want(now, want, of, limit);
        self.tell_met(now);
        self.refill(now);
    }

    pub(super) fn tunnel_declined(&mut self, now: u64, path: PathNo, tunnel: TunnelNo) {
        let excess = self.ready.declined(path, tunnel);
        self.give_up(now, excess);
    }

    pub(super) fn tunnel_gone(&mut self, now: u64, tunnel: TunnelNo, used: bool) {
        let path = self.ready.gone(tunnel).and_then(|no| self.paths.get_mut(&no));
        if let Some(path) = path.filter(|_| used) {
            path.demand.used(now);
        }
        self.refill(now);
    }

    /// Ready tunnels of a path.
    pub fn ready_tunnels(&self, path: PathNo) -> usize {
        self.ready.count(path)
    }

    /// Says what came of those who want tunnels.
    pub(super) fn tell_met(&mut self, now: u64) {
        for met in self.ready.take_met() {
            self.out.push_back(match met {
                Met::Granted { want, path: no, tunnel } => {
                    if let Some(path) = self.paths.get_mut(&no) {
                        path.demand.used(now);
                    }
                    Output::Grant { want, path: no, tunnel }
                }
                Met::Unmet { want } => Output::Unmet { want },
            });
        }
    }

    /// When [`Node::refill`] has something to do, if before the next tick.
    pub fn refill_due(&self) -> Option<u64> {
        let waits = self.waits.keys().next().map(|(at, _)| *at);
        self.refill_due.into_iter().chain(waits).min()
    }

    /// Both ends of a path start tunnels after random delays, so that hops cannot tell from it who owns the path.
    // protocol: T1, T15, T16
    pub fn refill(&mut self, now: u64) {
        self.run_paced(now);
        let (many, few) = (self.settings.ready_tunnels, self.settings.ready_tunnels.min(READY_UNUSED));
        let mut due = Vec::new();
        self.refill_due = None;
        for (no, path) in &mut self.paths {
            let target = if path.demand.is_none() { few } else { path.demand.target(now, many) };
            let ready = self.ready.count(*no);
            if matches!(path.part, Part::Middle(_)) || ready >= target || !path.stands() || !self.ready.has_room(*no) {
                continue;
            }
            // As much more often as more are wanted.
            let refill = REFILL_DELAY * many as u64 / target.max(many) as u64;
            let longest = if ready == 0 { URGENT_DELAY } else { refill };
            // As far ahead as none is drawn: the clock was set back.
            path.refill_at = path.refill_at.filter(|at| *at <= now + 2 * REFILL_DELAY);
            let at = path.refill_at.get_or_insert_with(|| now + self.rng.random_range(0..=longest));
            if now >= *at {
                // The next one, should this fail, or more be missing.
                *at = now + longest / 2 + self.rng.random_range(0..=longest);
                due.push((*no, target + self.ready.waiting(*no)));
            }
            self.refill_due = Some(self.refill_due.map_or(*at, |earlier| earlier.min(*at)));
        }
        for (no, wanted) in due {
            self.start_tunnel(now, no);
            if self.under_way(no) >= wanted
                && let Some(path) = self.paths.get_mut(&no)
            {
                path.refill_at = path.refill_at.map(|at| at.max(now + UNDER_WAY_DELAY));
            }
        }
    }

    /// Ready tunnels beyond what both ends want: one goes at a time, and its links may serve again.
    // protocol: T21
    pub(super) fn drop_surplus(&mut self, now: u64) {
        let many = self.settings.ready_tunnels;
        let mut due = Vec::new();
        for (no, path) in &mut self.paths {
            if self.ready.count(*no) <= path.demand.surplus(now, many) {
                path.thin_at = None;
            } else if now >= *path.thin_at.get_or_insert_with(|| now + self.rng.random_range(1..=SURPLUS_DELAY)) {
                path.thin_at = None;
                due.push(*no);
            }
        }
        for no in due {
            if let Some(tunnel) = self.ready.oldest(no) {
                self.ready.gone(tunnel);
                self.out.push_back(Output::DropTunnel { tunnel });
            }
        }
    }

    /// Tunnels of a path that are being set up, from either end.
    fn under_way(&self, no: PathNo) -> usize {
        let seeds = self.seeds.values().filter(|(path, _)| *path == no).count();
        seeds + self.setups.values().filter(|setup| setup.path == no).count()
    }

    fn start_tunnel(&mut self, now: u64, no: PathNo) {
        let Some(path) = self.paths.get_mut(&no) else { return };
        let seed = match &mut path.part {
            Part::End(end, ..) => end.start(&mut *self.rng, now),
            Part::Own(owner, _) => owner.start(&mut *self.rng, now),
            Part::Middle(_) => return,
        };
        // At its bound of pending tunnels: the next tick tries again.
        if let Ok(seed) = seed {
            self.send_seed(now, no, 0, seed);
        }
    }

    /// Set-ups under way are as if they had just begun.
    pub(super) fn restart_setups(&mut self, now: u64) {
        self.setups.values_mut().for_each(|setup| setup.since = setup.since.min(now));
        self.seeds.values_mut().for_each(|(_, since)| *since = (*since).min(now));
    }

    pub(super) fn drop_setup(&mut self, now: u64, id: u64) {
        if let Some(setup) = self.setups.remove(&id) {
            self.in_vain(now, setup.path, setup.started);
            self.abandon(setup);
        }
    }

    /// A tunnel of ours came to nothing, however far it had come: who answers every seed and confirms none must not keep a path.
    fn in_vain(&mut self, now: u64, no: PathNo, started: bool) {
        if started && let Some(path) = self.paths.get_mut(&no) {
            path.vain += 1;
            self.note(now, Note::TunnelInVain);
        }
    }

    pub(super) fn drop_setups_of(&mut self, now: u64, no: PathNo) {
        let of_path: Vec<_> = self.setups.iter().filter(|(_, setup)| setup.path == no).map(|(id, _)| *id).collect();
        for id in of_path {
            self.drop_setup(now, id);
        }
        self.seeds.retain(|_, (path, _)| *path != no);
    }

    /// When the next set-up, or seed that nobody answered, is given up.
    pub(super) fn next_late_setup(&self) -> Option<u64> {
        let since = self.setups.values().map(|setup| setup.since).chain(self.seeds.values().map(|(_, since)| *since));
        since.min().map(|since| since + SETUP_LIMIT + 1)
    }

    /// Forgets seeds that nobody answered, and drops own paths on which nothing comes of any.
    fn drop_mute(&mut self, now: u64) {
        let late = |since: u64| now > since + SETUP_LIMIT;
        let unanswered: Vec<_> = self.seeds.values().filter(|(_, since)| late(*since)).map(|(no, _)| *no).collect();
        for no in unanswered {
            let ours = self.paths.get(&no).is_some_and(|path| !matches!(path.part, Part::Middle(_)));
            self.in_vain(now, no, ours);
        }
        self.seeds.retain(|_, (_, since)| !late(*since));
        let mute = |path: &Path| path.owned().is_some() && path.vain >= MUTE;
        let mute: Vec<_> = self.paths.iter().filter(|(_, path)| mute(path)).map(|(no, _)| *no).collect();
        for no in mute {
            self.end_path(now, no, Ending::Mute);
        }
    }

    pub(super) fn expire_setups(&mut self, now: u64) {
        let late: Vec<_> =
            self.setups.iter().filter(|(_, setup)| now > setup.since + SETUP_LIMIT).map(|(id, _)| *id).collect();
        for id in late {
            self.drop_setup(now, id);
        }
        self.drop_mute(now);
        self.expire_halves();
        for path in self.paths.values_mut() {
            match &mut path.part {
                Part::Middle(hop) => hop.expire(now),
                Part::End(end, ..) => end.expire(now),
                Part::Own(owner, _) => owner.expire(now),
            }
        }
    }
}
