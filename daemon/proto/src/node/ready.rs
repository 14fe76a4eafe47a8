//! Tunnels that stand and wait for their use at this end of a path, and those who wait for one: numbers, turns and deadlines.
//!
//! ```text
//!   put ───▶ ready ───▶ granted        to whoever came first of those whom this path serves
//!              ╰──────▶ gone           the other end used it, or it broke; or its path ended
//!   want ──▶ waits ───▶ granted | unmet at its deadline, or with its path
//! ```
//!
//! A tunnel counts from [`Ready::put`] until it is granted or gone, and is nowhere else: what the shell says twice, late or never
//! of one that was granted changes nothing.

use std::collections::{BTreeMap, VecDeque};

use super::{PathNo, Work};
use crate::ident::{ApAddress, NodeId};

/// Names a ready tunnel. Local: never on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelNo(pub u64);

/// Names somebody who waits for a tunnel; given by the shell, and who has the smaller number came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WantNo(pub u64);

/// Which tunnels will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Of {
    /// Those of this path.
    Path(PathNo),
    /// Those of any own path that does this work for the identity.
    Work(ApAddress, Work),
}

/// Ready tunnels at one end of a path: twice what both ends of it want together.
// protocol: T17
const PER_PATH: usize = 64;

/// Ready tunnels of all paths that end here. Each is a link with its buffers, some 40 KiB; 1000 paths with eight each are twice as
/// many as a node that relays 4096 paths ends.
const OF_OTHERS: usize = 8192;

/// What came of a want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    /// This tunnel is its own.
    Granted { want: WantNo, path: PathNo, tunnel: TunnelNo },
    /// There was none in time, or its path has ended.
    Unmet { want: WantNo },
}

/// One path.
#[derive(Default)]
struct Shelf {
    /// Of a path that ends here: the neighbour, by whom alone it is known.
    neighbour: Option<NodeId>,
    /// Whom it serves beside those who want it and no other.
    works: Option<(ApAddress, Work)>,
    /// Oldest first.
    tunnels: VecDeque<TunnelNo>,
}

/// Somebody who waits.
#[derive(Debug, Clone, Copy)]
struct Wait {
    since: u64,
    limit: u64,
}

/// See the module.
#[derive(Default)]
pub(super) struct Ready {
    shelves: BTreeMap<PathNo, Shelf>,
    /// On which shelf each tunnel lies.
    tunnels: BTreeMap<TunnelNo, PathNo>,
    /// Ready tunnels of paths that end here, by neighbour.
    shares: BTreeMap<NodeId, usize>,
    lines: BTreeMap<Of, BTreeMap<WantNo, Wait>>,
    met: VecDeque<Met>,
}

impl Ready {
    /// A path is there; of one that ends here, the neighbour is named.
    pub(super) fn open(&mut self, path: PathNo, neighbour: Option<NodeId>) {
        self.shelves.entry(path).or_default().neighbour = neighbour;
    }

    /// From now on the path serves those, too, who want this work for the identity.
    pub(super) fn works(&mut self, path: PathNo, identity: ApAddress, work: Work) {
        if let Some(shelf) = self.shelves.get_mut(&path) {
            shelf.works = Some((identity, work));
            self.serve(path);
        }
    }

    /// From now on the path serves only those who want it and no other. False: it did not serve others before.
    pub(super) fn retire(&mut self, path: PathNo) -> bool {
        self.shelves.get_mut(&path).is_some_and(|shelf| shelf.works.take().is_some())
    }

    /// The path is gone, with its tunnels and those who want it and no other.
    pub(super) fn close(&mut self, path: PathNo) {
        for tunnel in self.shelves.get(&path).map(|shelf| shelf.tunnels.clone()).unwrap_or_default() {
            self.gone(tunnel);
        }
        self.shelves.remove(&path);
        let line = self.lines.remove(&Of::Path(path)).unwrap_or_default();
        self.met.extend(line.into_keys().map(|want| Met::Unmet { want }));
    }

    /// How many are ready on a path.
    pub(super) fn count(&self, path: PathNo) -> usize {
        self.shelves.get(&path).map_or(0, |shelf| shelf.tunnels.len())
    }

    /// The one that has waited for longest.
    pub(super) fn oldest(&self, path: PathNo) -> Option<TunnelNo> {
        self.shelves.get(&path)?.tunnels.front().copied()
    }

    /// Those who wait for a tunnel of this path, or of one like it.
    pub(super) fn waiting(&self, path: PathNo) -> usize {
        let works = self.shelves.get(&path).and_then(|shelf| shelf.works);
        let lines = [Some(Of::Path(path)), works.map(|(identity, work)| Of::Work(identity, work))];
        lines.iter().flatten().filter_map(|of| self.lines.get(of)).map(BTreeMap::len).sum()
    }

    /// Whether another one of this path would be kept.
    pub(super) fn has_room(&self, path: PathNo) -> bool {
        let Some(shelf) = self.shelves.get(&path) else { return false };
        let fair = |neighbour| self.total() < OF_OTHERS || self.share(neighbour) < OF_OTHERS / self.shares.len().max(1);
        shelf.tunnels.len() < PER_PATH && shelf.neighbour.is_none_or(fair)
    }

    fn total(&self) -> usize {
        self.shares.values().sum()
    }

    fn share(&self, neighbour: NodeId) -> usize {
        self.shares.get(&neighbour).copied().unwrap_or(0)
    }

    /// A tunnel stands. Returns the one for which there is no room: this one, or one of the neighbour that has the most.
    // protocol: T17, T19
    pub(super) fn put(&mut self, path: PathNo, tunnel: TunnelNo) -> Option<TunnelNo> {
        let Some(shelf) = self.shelves.get_mut(&path).filter(|shelf| shelf.tunnels.len() < PER_PATH) else {
            return Some(tunnel);
        };
        shelf.tunnels.push_back(tunnel);
        self.tunnels.insert(tunnel, path);
        if let Some(neighbour) = shelf.neighbour {
            *self.shares.entry(neighbour).or_default() += 1;
        }
        self.serve(path);
        if self.total() <= OF_OTHERS {
            return None;
        }
        let most = self.shares.iter().max_by_key(|(_, count)| **count).map(|(neighbour, _)| *neighbour);
        let theirs = self.shelves.values().filter(|shelf| shelf.neighbour == most);
        // Where most lie, so that no path is without; the oldest, which has waited in vain for longest.
        let excess = theirs.max_by_key(|shelf| shelf.tunnels.len())?.tunnels.front().copied()?;
        self.gone(excess);
        Some(excess)
    }

    /// The other end has used it, or it broke.
    pub(super) fn gone(&mut self, tunnel: TunnelNo) -> Option<PathNo> {
        let path = self.tunnels.remove(&tunnel)?;
        let shelf = self.shelves.get_mut(&path)?;
        shelf.tunnels.retain(|other| *other != tunnel);
        if let Some(neighbour) = shelf.neighbour
            && let Some(count) = self.shares.get_mut(&neighbour)
        {
            *count -= 1;
            if *count == 0 {
                self.shares.remove(&neighbour);
            }
        }
        Some(path)
    }

    /// Whoever was granted this tunnel has gone away and has not touched it: it is the next one's.
    pub(super) fn declined(&mut self, path: PathNo, tunnel: TunnelNo) -> Option<TunnelNo> {
        if self.tunnels.contains_key(&tunnel) { None } else { self.put(path, tunnel) }
    }

    /// Somebody wants a tunnel within `limit` milliseconds. One whose grant came to nothing says so again, under its number, and has
    /// its place in the line still.
    pub(super) fn want(&mut self, now: u64, want: WantNo, of: Of, limit: u64) {
        if let Of::Path(path) = of
            && !self.shelves.contains_key(&path)
        {
            return self.met.push_back(Met::Unmet { want });
        }
        self.lines.entry(of).or_default().insert(want, Wait { since: now, limit });
        let serves = |(no, shelf): (&PathNo, &Shelf)| match of {
            Of::Path(path) => path == *no,
            Of::Work(identity, work) => shelf.works == Some((identity, work)),
        };
        // The newest path first: an older one of the same identity is about to end.
        let paths: Vec<_> =
            self.shelves.iter().rev().filter(|(no, shelf)| serves((no, shelf))).map(|(no, _)| *no).collect();
        for path in paths {
            self.serve(path);
        }
    }

    /// Gives what lies ready on a path to those who wait for it, in the order of their coming.
    fn serve(&mut self, path: PathNo) {
        while let Some(shelf) = self.shelves.get(&path)
            && let Some(tunnel) = shelf.tunnels.front().copied()
        {
            let lines = [Some(Of::Path(path)), shelf.works.map(|(identity, work)| Of::Work(identity, work))];
            let first = |of: &Of| Some((*self.lines.get(of)?.keys().next()?, *of));
            let Some((want, of)) = lines.iter().flatten().filter_map(first).min() else { return };
            self.leave(of, want);
            self.gone(tunnel);
            self.met.push_back(Met::Granted { want, path, tunnel });
        }
    }

    fn leave(&mut self, of: Of, want: WantNo) {
        if let Some(line) = self.lines.get_mut(&of) {
            line.remove(&want);
            if line.is_empty() {
                self.lines.remove(&of);
            }
        }
    }

    /// Those whose time is over.
    pub(super) fn expire(&mut self, now: u64) {
        let over = |wait: &Wait| now >= wait.since.saturating_add(wait.limit);
        let of_line = |(of, line): (&Of, &BTreeMap<WantNo, Wait>)| {
            let late = line.iter().filter(|(_, wait)| over(wait)).map(|(want, _)| (*of, *want));
            late.collect::<Vec<_>>()
        };
        for (of, want) in self.lines.iter().flat_map(of_line).collect::<Vec<_>>() {
            self.leave(of, want);
            self.met.push_back(Met::Unmet { want });
        }
    }

    /// When the next one's is.
    pub(super) fn next_over(&self) -> Option<u64> {
        self.lines.values().flat_map(BTreeMap::values).map(|wait| wait.since.saturating_add(wait.limit)).min()
    }

    /// The clock was set back: who waits has all its time once more.
    pub(super) fn restart(&mut self, now: u64) {
        for wait in self.lines.values_mut().flat_map(BTreeMap::values_mut) {
            wait.since = wait.since.min(now);
        }
    }

    /// What came of wants since the last call.
    pub(super) fn take_met(&mut self) -> VecDeque<Met> {
        std::mem::take(&mut self.met)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;
    use crate::crypto::SigningKey;

    fn address(number: u8) -> ApAddress {
        ApAddress::of(&SigningKey::from_seed(&[number + 1; 32]).verifying_key())
    }

    #[derive(Debug, Clone)]
    enum Op {
        Open {
            path: u64,
            neighbour: Option<u8>,
        },
        Works {
            path: u64,
            who: Option<u8>,
        },
        Close {
            path: u64,
        },
        Put {
            path: u64,
        },
        Gone {
            tunnel: u64,
        },
        /// Of the tunnels that were granted.
        Declined {
            which: usize,
        },
        /// Whoever had the grant finds the tunnel used by the other end.
        Missed {
            which: usize,
        },
        Want {
            path: Option<u64>,
            who: u8,
            limit: u64,
        },
        Pass {
            by: u64,
        },
    }

    fn op() -> impl Strategy<Value = Op> {
        let path = || 0..4_u64;
        prop_oneof![
            (path(), prop::option::of(0..3_u8)).prop_map(|(path, neighbour)| Op::Open { path, neighbour }),
            (path(), prop::option::of(0..2_u8)).prop_map(|(path, who)| Op::Works { path, who }),
            path().prop_map(|path| Op::Close { path }),
            path().prop_map(|path| Op::Put { path }),
            path().prop_map(|path| Op::Put { path }),
            (0..40_u64).prop_map(|tunnel| Op::Gone { tunnel }),
            (0..9_usize).prop_map(|which| Op::Declined { which }),
            (0..9_usize).prop_map(|which| Op::Missed { which }),
            (prop::option::of(path()), 0..2_u8, 0..9_u64).prop_map(|(path, who, limit)| Op::Want { path, who, limit }),
            (0..4_u64).prop_map(|by| Op::Pass { by }),
        ]
    }

    /// What is true of the outside: each tunnel and each want is in one place.
    #[derive(Default)]
    struct World {
        ready: Ready,
        now: u64,
        next: u64,
        /// Where each tunnel lies that neither was granted nor is gone.
        lying: BTreeMap<TunnelNo, PathNo>,
        open: BTreeMap<PathNo, Option<(ApAddress, Work)>>,
        waiting: BTreeMap<WantNo, (Of, u64)>,
        granted: Vec<(WantNo, Of, PathNo, TunnelNo)>,
        answered: HashMap<WantNo, usize>,
    }

    impl World {
        fn would_do(&self, of: Of, path: PathNo) -> bool {
            match of {
                Of::Path(wanted) => wanted == path,
                Of::Work(identity, work) => self.open.get(&path) == Some(&Some((identity, work))),
            }
        }

        fn id(&mut self) -> u64 {
            self.next += 1;
            self.next
        }

        fn put(&mut self, path: u64, tunnel: TunnelNo) {
            self.lying.insert(tunnel, PathNo(path));
            let excess = self.ready.put(PathNo(path), tunnel);
            if let Some(excess) = excess {
                self.lying.remove(&excess);
            }
        }

        fn want(&mut self, want: WantNo, of: Of, limit: u64) {
            self.waiting.insert(want, (of, self.now + limit));
            self.ready.want(self.now, want, of, limit);
        }

        fn run(&mut self, op: Op) {
            match op {
                Op::Open { path, neighbour } => {
                    if self.open.contains_key(&PathNo(path)) {
                        return;
                    }
                    self.open.insert(PathNo(path), None);
                    self.ready.open(PathNo(path), neighbour.map(|number| NodeId([number; 32])));
                }
                Op::Works { path, who } => {
                    let works = who.map(|who| (address(who), Work::Connect));
                    if let Some(known) = self.open.get_mut(&PathNo(path)) {
                        *known = works;
                    }
                    match works {
                        Some((identity, work)) => self.ready.works(PathNo(path), identity, work),
                        None => drop(self.ready.retire(PathNo(path))),
                    }
                }
                Op::Close { path } => {
                    self.open.remove(&PathNo(path));
                    self.lying.retain(|_, of| *of != PathNo(path));
                    self.ready.close(PathNo(path));
                }
                Op::Put { path } => {
                    let tunnel = TunnelNo(self.id());
                    self.put(path, tunnel);
                }
                Op::Gone { tunnel } => {
                    self.lying.remove(&TunnelNo(tunnel));
                    self.ready.gone(TunnelNo(tunnel));
                    // Said again, of one that may be granted or gone: nothing.
                    self.ready.gone(TunnelNo(tunnel));
                }
                Op::Declined { which } => {
                    if which < self.granted.len() {
                        let (_, _, PathNo(path), tunnel) = self.granted.remove(which);
                        self.lying.insert(tunnel, PathNo(path));
                        if let Some(excess) = self.ready.declined(PathNo(path), tunnel) {
                            self.lying.remove(&excess);
                        }
                    }
                }
                Op::Missed { which } => {
                    if which < self.granted.len() {
                        let (want, of, ..) = self.granted.remove(which);
                        *self.answered.get_mut(&want).unwrap() -= 1;
                        self.want(want, of, 5);
                    }
                }
                Op::Want { path, who, limit } => {
                    let want = WantNo(self.id());
                    let of = match path {
                        Some(path) => Of::Path(PathNo(path)),
                        None => Of::Work(address(who), Work::Connect),
                    };
                    self.want(want, of, limit);
                }
                Op::Pass { by } => {
                    self.now += by;
                    self.ready.expire(self.now);
                }
            }
            self.settle();
        }

        fn settle(&mut self) {
            for met in self.ready.take_met() {
                let (Met::Granted { want, .. } | Met::Unmet { want }) = met;
                let (of, until) = self.waiting.remove(&want).expect("nobody is answered who does not wait");
                *self.answered.entry(want).or_default() += 1;
                match met {
                    Met::Granted { path, tunnel, .. } => {
                        assert!(self.would_do(of, path), "a tunnel of another path");
                        assert_eq!(self.lying.remove(&tunnel), Some(path), "a tunnel that was not there");
                        let before =
                            self.waiting.iter().find(|(other, (of, _))| **other < want && self.would_do(*of, path));
                        assert!(before.is_none(), "{want:?} has overtaken {before:?}");
                        self.granted.push((want, of, path, tunnel));
                    }
                    Met::Unmet { .. } => {
                        let pathless = matches!(of, Of::Path(path) if !self.open.contains_key(&path));
                        assert!(pathless || self.now >= until, "it was given up early");
                    }
                }
            }
            self.check();
        }

        /// No slot is lost and none is counted twice; nobody waits beside a tunnel that would do.
        fn check(&self) {
            for path in self.open.keys() {
                let lie = self.lying.values().filter(|of| *of == path).count();
                assert_eq!(self.ready.count(*path), lie);
            }
            for (tunnel, path) in &self.lying {
                let idle = self.waiting.iter().find(|(_, (of, _))| self.would_do(*of, *path));
                assert!(idle.is_none(), "{idle:?} waits beside {tunnel:?}");
            }
            assert!(self.answered.values().all(|times| *times <= 1), "somebody was answered twice");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn no_slot_is_lost_and_nobody_is_overtaken_whatever_happens(ops in prop::collection::vec(op(), 0..80)) {
            let mut world = World::default();
            for op in ops {
                world.run(op);
            }
            (0..4).for_each(|path| world.run(Op::Close { path }));
            world.run(Op::Pass { by: 1_000 });
            prop_assert!(world.waiting.is_empty());
            let Ready { shelves, tunnels, shares, lines, met } = &world.ready;
            prop_assert!(shelves.is_empty() && tunnels.is_empty() && shares.is_empty());
            prop_assert!(lines.is_empty() && met.is_empty());
        }
    }

    /// Three neighbours, of whom one has all that it can get: what the others get afterwards is taken from it, and not from them.
    // protocol: T17, T19
    #[test]
    fn who_takes_all_room_gives_it_up_to_others_and_they_never_to_it() {
        let mut ready = Ready::default();
        let greedy = NodeId([1; 32]);
        let paths = (OF_OTHERS / PER_PATH) as u64 + 4;
        let mut next = 0;
        let mut put = |ready: &mut Ready, path| {
            next += 1;
            ready.put(PathNo(path), TunnelNo(next))
        };
        for path in 0..paths {
            ready.open(PathNo(path), Some(greedy));
            for _ in 0..2 * PER_PATH {
                put(&mut ready, path);
            }
        }
        assert_eq!((ready.total(), ready.share(greedy)), (OF_OTHERS, OF_OTHERS));
        assert!(!ready.has_room(PathNo(paths - 1)), "it is answered no more seeds");
        for (path, neighbour) in [(paths, 2), (paths + 1, 3)] {
            ready.open(PathNo(path), Some(NodeId([neighbour; 32])));
            for _ in 0..8 {
                assert!(ready.has_room(PathNo(path)));
                let excess = put(&mut ready, path).unwrap();
                assert!(!ready.tunnels.contains_key(&excess));
            }
            assert_eq!(ready.count(PathNo(path)), 8);
        }
        for path in 0..paths {
            put(&mut ready, path);
        }
        assert_eq!((ready.count(PathNo(paths)), ready.count(PathNo(paths + 1)), ready.total()), (8, 8, OF_OTHERS));
        let counts: BTreeSet<_> = (0..paths).map(|path| ready.count(PathNo(path))).collect();
        assert!(counts.last().is_some_and(|most| *most <= PER_PATH));
        assert!(counts.first().is_some_and(|least| *least >= PER_PATH - 8), "one path alone has lost them: {counts:?}");
    }

    #[test]
    fn who_waits_when_the_clock_is_set_back_waits_as_long_as_it_was_to() {
        let mut ready = Ready::default();
        ready.want(5_000_000, WantNo(1), Of::Work(address(1), Work::Ask), 60);
        ready.restart(1_000);
        ready.expire(1_059);
        assert!(ready.take_met().is_empty());
        ready.expire(1_060);
        assert_eq!(ready.take_met(), [Met::Unmet { want: WantNo(1) }]);
    }
}
