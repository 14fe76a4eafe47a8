//! What an entry node does upon one JOIN: hears the session's first bytes, takes a ready tunnel of the path, and says INCOMING on it.
//!
//! ```text
//!   greeting ──BYTES──▶ waiting ──a tunnel──▶ saying ──said──▶ Carry
//!      │ 10 s; else        │ 8 s; none           │ 10 s; broken
//!      ▼                   ▼                     ▼
//!     Drop           Refuse busy               Drop
//! ```

use crate::wire::cells::{CELL_DATA_MAX, CellKind};
use crate::wire::frame::{Frame, Reason};

/// How long the session's first bytes may take, in milliseconds: they leave with JOIN.
const FIRST_LIMIT: u64 = 10_000;

/// How long JOIN waits for a tunnel to be ready, in milliseconds.
const TUNNEL_LIMIT: u64 = 8_000;

/// How long a neighbour may take to take the first bytes, in milliseconds.
const SAY_LIMIT: u64 = 10_000;

/// How the last output went.
#[expect(missing_docs, reason = "the fields are what their variant's line says")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The exit node's next frame.
    Frame { kind: u8, payload: Vec<u8> },
    /// Its link has ended, or broke.
    Ended,
    /// Whether a ready tunnel was to be had.
    Tunnel(bool),
    /// Whether the cells have left.
    Said(bool),
}

/// What an entry wants done; the last three are the last.
#[expect(missing_docs, reason = "the fields are what their variant's line says")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Read the exit node's next frame.
    Hear,
    /// Get a ready tunnel of the path within so many milliseconds. What the exit node sends meanwhile stays unread.
    Want { limit: u64 },
    /// Send these cells on it, one after the other.
    Say(Vec<(CellKind, Vec<u8>)>),
    /// Carry what comes both ways.
    Carry,
    /// Say REFUSED to the exit node, then CLOSE. What it has sent meanwhile is thrown away.
    Refuse(Reason),
    /// Close the link, and the tunnel if there is one, without a word.
    Drop,
}

/// Where it stands.
#[derive(Debug)]
enum Phase {
    Greeting,
    Waiting { first: Vec<u8> },
    Saying,
    Over,
}

/// See the module.
#[derive(Debug)]
pub struct Entry {
    phase: Phase,
    deadline: u64,
    out: Option<Output>,
}

impl Entry {
    /// JOIN came, and counts among the joined links of its peer.
    pub fn new(now: u64) -> Self {
        Self { phase: Phase::Greeting, deadline: now + FIRST_LIMIT, out: Some(Output::Hear) }
    }

    /// Takes how the last output went; what belongs to no such output changes nothing.
    // protocol: U10
    pub fn handle(&mut self, now: u64, input: Input) {
        self.phase = match (std::mem::replace(&mut self.phase, Phase::Over), input) {
            (Phase::Greeting, Input::Frame { kind, payload }) => match Frame::read(kind, &payload) {
                Ok(Frame::Bytes(_)) => {
                    self.expect(now, TUNNEL_LIMIT, Output::Want { limit: TUNNEL_LIMIT });
                    Phase::Waiting { first: payload }
                }
                _ => self.end(Output::Drop),
            },
            (Phase::Greeting, Input::Ended) => self.end(Output::Drop),
            (Phase::Waiting { first }, Input::Tunnel(true)) => {
                self.expect(now, SAY_LIMIT, Output::Say(incoming(&first)));
                Phase::Saying
            }
            (Phase::Waiting { .. }, Input::Tunnel(false)) => self.end(Output::Refuse(Reason::Busy)),
            (Phase::Saying, Input::Said(true)) => self.end(Output::Carry),
            (Phase::Saying, Input::Said(false)) => self.end(Output::Drop),
            (phase, _) => phase,
        };
    }

    /// Lets time pass.
    // protocol: U10
    pub fn tick(&mut self, now: u64) {
        if now < self.deadline {
            return;
        }
        self.phase = match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Greeting | Phase::Saying => self.end(Output::Drop),
            Phase::Waiting { .. } => self.end(Output::Refuse(Reason::Busy)),
            Phase::Over => Phase::Over,
        };
    }

    /// What is to be done now.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.take()
    }

    /// When to call [`Entry::tick`]; nothing is waited for when all is over.
    pub fn deadline(&self) -> Option<u64> {
        (!matches!(self.phase, Phase::Over)).then_some(self.deadline)
    }

    fn expect(&mut self, now: u64, limit: u64, output: Output) {
        (self.deadline, self.out) = (now + limit, Some(output));
    }

    fn end(&mut self, output: Output) -> Phase {
        self.out = Some(output);
        Phase::Over
    }
}

/// The session's first bytes: as many as there is room for in INCOMING, the rest behind it.
fn incoming(first: &[u8]) -> Vec<(CellKind, Vec<u8>)> {
    let (head, rest) = first.split_at(first.len().min(CELL_DATA_MAX));
    let rest = rest.chunks(CELL_DATA_MAX).map(|part| (CellKind::Data, part.to_vec()));
    std::iter::once((CellKind::Incoming, head.to_vec())).chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::frame::{BYTES_MAX, kind};

    const NOW: u64 = 5_000;

    fn bytes(length: usize) -> Input {
        Input::Frame { kind: kind::BYTES, payload: (0..length).map(|at| at as u8).collect() }
    }

    /// After these inputs at `NOW`: the last output.
    fn after(inputs: &[Input]) -> (Entry, Output) {
        let mut entry = Entry::new(NOW);
        let mut last = entry.poll().expect("it begins");
        for input in inputs {
            entry.handle(NOW, input.clone());
            last = entry.poll().expect("each step asks for the next");
        }
        (entry, last)
    }

    // protocol: U10
    #[test]
    fn a_join_hears_bytes_takes_a_tunnel_and_says_them_on_it() {
        assert_eq!(after(&[]).1, Output::Hear);
        assert_eq!(after(&[bytes(3)]).1, Output::Want { limit: 8_000 });
        let said = after(&[bytes(3), Input::Tunnel(true)]).1;
        assert_eq!(said, Output::Say(vec![(CellKind::Incoming, vec![0, 1, 2])]));
        let (mut entry, last) = after(&[bytes(3), Input::Tunnel(true), Input::Said(true)]);
        assert_eq!((last, entry.deadline(), entry.poll()), (Output::Carry, None, None));
    }

    // protocol: U10, X1
    #[test]
    fn what_does_not_fit_into_incoming_follows_as_data() {
        for length in [1, CELL_DATA_MAX, CELL_DATA_MAX + 1, BYTES_MAX] {
            let (_, Output::Say(cells)) = after(&[bytes(length), Input::Tunnel(true)]) else {
                panic!("it says nothing")
            };
            let kinds: Vec<_> = cells.iter().map(|(kind, _)| *kind).collect();
            assert_eq!(kinds[0], CellKind::Incoming);
            assert!(kinds[1..].iter().all(|kind| *kind == CellKind::Data));
            assert_eq!(cells.len(), length.div_ceil(CELL_DATA_MAX));
            assert!(cells.iter().all(|(_, data)| data.len() <= CELL_DATA_MAX));
            let all: Vec<_> = cells.into_iter().flat_map(|(_, data)| data).collect();
            assert_eq!(Input::Frame { kind: kind::BYTES, payload: all }, bytes(length));
        }
    }

    /// An exit node that says anything else first, or nothing, has cost no tunnel.
    // protocol: F2, F5, U10
    #[test]
    fn who_does_not_begin_with_bytes_is_dropped_before_a_tunnel_is_taken() {
        for kind in (0..=u8::MAX).filter(|kind| *kind != kind::BYTES) {
            for payload in [vec![], vec![1; 16]] {
                assert_eq!(after(&[Input::Frame { kind, payload }]).1, Output::Drop, "{kind}");
            }
        }
        assert_eq!(after(&[bytes(0)]).1, Output::Drop, "BYTES without any");
        assert_eq!(after(&[bytes(BYTES_MAX + 1)]).1, Output::Drop);
        assert_eq!(after(&[Input::Ended]).1, Output::Drop);
    }

    // protocol: U10
    #[test]
    fn without_a_tunnel_the_exit_node_hears_busy() {
        assert_eq!(after(&[bytes(3), Input::Tunnel(false)]).1, Output::Refuse(Reason::Busy));
    }

    #[test]
    fn a_tunnel_that_takes_nothing_is_dropped_with_the_link() {
        assert_eq!(after(&[bytes(3), Input::Tunnel(true), Input::Said(false)]).1, Output::Drop);
    }

    // protocol: U10
    #[test]
    fn each_step_has_its_time() {
        let steps = [
            (vec![], 10_000, Output::Drop),
            (vec![bytes(3)], 8_000, Output::Refuse(Reason::Busy)),
            (vec![bytes(3), Input::Tunnel(true)], 10_000, Output::Drop),
        ];
        for (inputs, limit, last) in steps {
            let (mut entry, _) = after(&inputs);
            assert_eq!(entry.deadline(), Some(NOW + limit));
            entry.tick(NOW + limit - 1);
            assert_eq!(entry.poll(), None);
            entry.tick(NOW + limit);
            assert_eq!(entry.poll(), Some(last));
            assert_eq!(entry.deadline(), None);
        }
    }

    fn input() -> impl Strategy<Value = Input> {
        prop_oneof![
            (prop_oneof![Just(kind::BYTES), any::<u8>()], prop::collection::vec(any::<u8>(), 0..40))
                .prop_map(|(kind, payload)| Input::Frame { kind, payload }),
            Just(Input::Ended),
            any::<bool>().prop_map(Input::Tunnel),
            any::<bool>().prop_map(Input::Said),
        ]
    }

    proptest! {
        #[test]
        fn whatever_comes_it_ends_once_and_in_time(steps in prop::collection::vec((0..4_000_u64, prop::option::of(input())), 0..40)) {
            let (mut entry, mut now, mut last) = (Entry::new(0), 0, None);
            for (passes, input) in steps.into_iter().chain(std::iter::repeat_n((10_000, None), 3)) {
                now += passes;
                match input {
                    Some(input) => entry.handle(now, input),
                    None => entry.tick(now),
                }
                while let Some(output) = entry.poll() {
                    prop_assert!(last.is_none(), "{output:?} after the end");
                    if matches!(output, Output::Carry | Output::Refuse(_) | Output::Drop) {
                        last = Some(output);
                    }
                }
                prop_assert_eq!(entry.deadline().is_none(), last.is_some());
            }
            prop_assert!(last.is_some(), "it does not end");
        }
    }
}
