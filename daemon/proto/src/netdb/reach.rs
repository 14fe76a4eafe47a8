//! Whether others can open links to this node: some are asked to, and what counts is who then came (docs/protocol.md, section 7.7).
//!
//! ```text
//!  due ── ask three ──▶ who answers has tried ── half of them came? ── yes: can be reached
//!                                                                 └─ no, and again no: cannot be
//! ```
//! Seconds are of whatever clock the caller has, as long as it does not go back.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use rand::{CryptoRng, RngExt};

use crate::ident::NodeId;
use crate::wire::{Reader, Wire, WireError, Writer};

/// Nodes that are asked at once: one that lies must not decide.
// protocol: J21
pub const ASKED: usize = 3;

/// How long an answer is waited for, in seconds: a few steps of a link.
const PATIENCE: u64 = 15;

/// What may come later than the last answer, which came another way, in seconds.
const STRAGGLERS: u64 = 2;

/// Between two tests when nothing gives a reason for one, in seconds; drawn.
// protocol: J22
const AGAIN: RangeInclusive<u64> = 300..=900;

/// The same where fewer were there than are to be asked, in seconds.
const FEW: u64 = 60;

/// Before another test in any case, in seconds; so soon comes one that is to confirm that others cannot any more, or to find somebody who
/// answers.
const SURE: u64 = 20;

/// The answer of who was asked: it has tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried;

/// 00.
impl Wire for Tried {
    fn write(&self, out: &mut Writer) {
        out.u8(0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        if reader.u8()? == 0 { Ok(Self) } else { Err(WireError::Value) }
    }
}

#[derive(Debug)]
struct Test {
    since: u64,
    asked: BTreeSet<NodeId>,
    answered: BTreeSet<NodeId>,
    came: BTreeSet<NodeId>,
    /// When the last one that was asked has answered.
    complete: Option<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Reach {
    reachable: Option<bool>,
    /// The last test said that others cannot, which was not known before.
    doubts: bool,
    test: Option<Test>,
    /// When the last test ended.
    last: Option<u64>,
    next: u64,
}

impl Reach {
    /// What is known; nothing before the first test.
    pub fn known(&self) -> Option<bool> {
        self.reachable
    }

    /// Whether nodes are to be asked now, if any are there.
    pub fn is_due(&self, now: u64) -> bool {
        self.test.is_none() && now >= self.next
    }

    /// There is a reason to ask soon.
    pub fn hurry(&mut self, now: u64) {
        let soonest = self.last.map_or(0, |last| last + SURE);
        self.next = self.next.min(now.max(soonest));
    }

    /// These are asked.
    pub fn ask(&mut self, now: u64, asked: BTreeSet<NodeId>) {
        let (answered, came) = (BTreeSet::new(), BTreeSet::new());
        self.test = (!asked.is_empty()).then_some(Test { since: now, asked, answered, came, complete: None });
    }

    /// A node says that it has tried.
    pub fn answered(&mut self, now: u64, node: NodeId) {
        if let Some(test) = self.test.as_mut().filter(|test| test.asked.contains(&node)) {
            test.answered.insert(node);
            if test.answered == test.asked {
                test.complete.get_or_insert(now);
            }
        }
    }

    /// A node has opened a link to this one.
    pub fn came(&mut self, node: NodeId) {
        if let Some(test) = self.test.as_mut().filter(|test| test.asked.contains(&node)) {
            test.came.insert(node);
        }
    }

    /// What has become of the test, if that changes what is known.
    // protocol: J21, J22
    pub fn look(&mut self, rng: &mut dyn CryptoRng, now: u64) -> Option<bool> {
        let test = self.test.as_ref()?;
        let is_over = test.complete.is_some_and(|at| now >= at + STRAGGLERS) || now >= test.since + PATIENCE;
        let heard = test.answered.union(&test.came).count();
        let is_reached =
            2 * test.came.len() >= test.asked.len() || is_over && heard > 0 && 2 * test.came.len() >= heard;
        if !is_over && !is_reached {
            return None;
        }
        let is_few = test.asked.len() < ASKED;
        (self.test, self.last) = (None, Some(now));
        // Nobody has said anything: the network is gone, or they know nothing of this.
        if heard == 0 {
            self.next = now + SURE;
            return None;
        }
        if self.reachable == Some(true) && !is_reached && !self.doubts {
            (self.doubts, self.next) = (true, now + SURE);
            return None;
        }
        let again = if is_few { FEW } else { rng.random_range(AGAIN) };
        (self.doubts, self.next) = (false, now + again);
        let before = self.reachable.replace(is_reached);
        (before != Some(is_reached)).then_some(is_reached)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn nodes(numbers: impl IntoIterator<Item = u8>) -> BTreeSet<NodeId> {
        numbers.into_iter().map(|number| NodeId([number; 32])).collect()
    }

    fn rng() -> StdRng {
        StdRng::seed_from_u64(1)
    }

    /// One whole test: so many are asked, so many answer, so many come.
    fn test(reach: &mut Reach, now: u64, asked: u8, answer: u8, come: u8) -> Option<bool> {
        reach.hurry(now);
        assert!(reach.is_due(now));
        reach.ask(now, nodes(0..asked));
        assert!(!reach.is_due(now));
        nodes(0..come).into_iter().for_each(|node| reach.came(node));
        nodes(0..answer).into_iter().for_each(|node| reach.answered(now, node));
        (now..=now + PATIENCE).find_map(|at| reach.look(&mut rng(), at))
    }

    // protocol: J21
    #[test]
    fn who_came_decides_and_not_what_is_said() {
        for (asked, answer, come, said) in [
            (3, 3, 3, Some(true)),
            (3, 3, 2, Some(true)),
            (3, 3, 1, Some(false)),
            (3, 3, 0, Some(false)),
            // Two are as silent as any that are not asked.
            (3, 1, 1, Some(true)),
            (3, 1, 0, Some(false)),
            (1, 1, 1, Some(true)),
            (3, 0, 0, None),
        ] {
            assert_eq!(test(&mut Reach::default(), 0, asked, answer, come), said, "{asked} {answer} {come}");
        }
        // Somebody whom nobody asked.
        let mut reach = Reach::default();
        reach.ask(0, nodes([1]));
        nodes(2..100).into_iter().for_each(|node| reach.came(node));
        nodes(2..100).into_iter().for_each(|node| reach.answered(0, node));
        assert_eq!(reach.look(&mut rng(), 5), None);
        reach.answered(5, NodeId([1; 32]));
        assert_eq!(reach.look(&mut rng(), 6), None, "it may be on its way");
        assert_eq!(reach.look(&mut rng(), 7), Some(false));
    }

    // protocol: J22
    #[test]
    fn who_can_be_reached_is_not_given_up_for_one_test() {
        let mut reach = Reach::default();
        assert_eq!(test(&mut reach, 0, 3, 3, 3), Some(true));
        assert!(!reach.is_due(299) && reach.is_due(900));
        assert_eq!((test(&mut reach, 1000, 3, 3, 0), reach.known()), (None, Some(true)));
        assert!(reach.is_due(1000 + 2 + SURE), "it is looked at again soon");
        assert_eq!(test(&mut reach, 1030, 3, 3, 3), None);
        assert_eq!(test(&mut reach, 2000, 3, 3, 0), None, "the doubt was over");
        assert_eq!(test(&mut reach, 2030, 3, 3, 0), Some(false));
        // The way back takes one.
        assert_eq!(test(&mut reach, 3000, 3, 3, 2), Some(true));
    }

    proptest! {
        /// Whatever is heard, a test ends, and without anybody's coming nobody is reached.
        // protocol: J21
        #[test]
        fn nothing_but_links_that_came_makes_a_node_reachable(
            events in prop::collection::vec((0u8..6, any::<bool>(), 0u64..4), 0..60),
        ) {
            let (mut reach, mut now, mut came) = (Reach::default(), 0, false);
            for (node, comes, wait) in events {
                now += wait;
                if reach.is_due(now) {
                    reach.ask(now, nodes(0..ASKED as u8));
                }
                match comes {
                    true => reach.came(NodeId([node; 32])),
                    false => reach.answered(now, NodeId([node; 32])),
                }
                came |= comes && usize::from(node) < ASKED;
                reach.look(&mut rng(), now);
                prop_assert!(came || reach.known() != Some(true));
            }
            reach.look(&mut rng(), now + PATIENCE);
            prop_assert!(reach.test.is_none());
        }
    }

    // protocol: J19
    #[test]
    fn the_answer_has_one_form() {
        assert_eq!(Tried.to_bytes(), [0]);
        assert!(
            Tried::from_bytes(&[1]).is_err() && Tried::from_bytes(&[]).is_err() && Tried::from_bytes(&[0, 0]).is_err()
        );
    }
}
