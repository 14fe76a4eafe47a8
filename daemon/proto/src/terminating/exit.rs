//! What a terminating node does for the owner of a path over one tunnel: joins an entry node, or asks the database.
//!
//! ```text
//!   OPEN ───▶ finding ──contact──▶ dialing ──a link──▶ joining ──JOIN has left──▶ Carry
//!                │ 15 s; none         │ none              │ 10 s; broken
//!                ╰────────────────────┴───────────────────┴──▶ ABORT unreachable
//!
//!   LOOKUP ─▶ asking ──a record──▶ answering ──said──▶ Close
//!                │ there is none       │ 10 s; broken
//!                │ 15 s; no answer     ▼
//!                ▼                    Drop
//!              ABORT no such address; unreachable
//! ```

use crate::ident::{ApAddress, NodeId};
use crate::wire::NodeContact;
use crate::wire::cells::{CELL_DATA_MAX, Open};
use crate::wire::frame::{Handle, Reason};

/// How long a database look-up may take, in milliseconds.
const FIND_LIMIT: u64 = 15_000;

/// How long a link may take, in milliseconds: the handshake's round trips after two lost SYN, which are said again after 1 s and 3 s. Who
/// waits there has other entry nodes to try, and one that is switched off answers nothing.
const DIAL_LIMIT: u64 = 6_000;

/// How long an entry node may take to take JOIN, and an owner its answer, in milliseconds.
const SEND_LIMIT: u64 = 10_000;

/// How the last output went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Where the node says that it is, if it was found.
    Contact(Option<NodeContact>),
    /// Whether there is a link.
    Dialed(bool),
    /// The database has this record of the address.
    Record(Vec<u8>),
    /// The database has none.
    NoRecord,
    /// The database does not say.
    NoAnswer,
    /// Whether what was to be sent has left.
    Sent(bool),
}

/// What an exit wants done; the last four are the last.
#[expect(missing_docs, reason = "the fields are what their variant's line says")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Find this node's own record.
    Find(NodeId),
    /// Open a link for frames; `anew`: one that is warm will not do.
    Dial { to: NodeContact, anew: bool },
    /// Send JOIN on it, and behind it, without waiting, these bytes if there are any.
    Join { handle: Handle, first: Vec<u8> },
    /// Ask for the AP record of this address.
    LookUp(ApAddress),
    /// Say FOUND.
    Answer(Vec<u8>),
    /// Carry what comes both ways, REFUSED of the other side included.
    Carry,
    /// Say CLOSE on the tunnel.
    Close,
    /// Close the link if there is one, and say ABORT on the tunnel, then CLOSE.
    Abort(Reason),
    /// Close the tunnel without a word: it takes none.
    Drop,
}

/// Where it stands.
#[derive(Debug)]
enum Phase {
    Finding { open: Open, anew: bool },
    Dialing { handle: Handle, first: Vec<u8> },
    Joining,
    Asking,
    Answering,
    Over,
}

/// See the module.
#[derive(Debug)]
pub struct Exit {
    phase: Phase,
    deadline: u64,
    out: Option<Output>,
}

impl Exit {
    /// OPEN came. `anew`: the path leads to this entry node for the first time, and how soon the answer comes must not tell whether
    /// somebody else was there before. `room`: this node carries no more tunnels of others than it may.
    // protocol: U7, B7, B8, F16
    pub fn open(now: u64, open: Open, anew: bool, room: bool) -> Self {
        let find = Output::Find(open.node);
        Self::begin(now, room, Phase::Finding { open, anew }, find)
    }

    /// LOOKUP came. `room`: as for OPEN.
    // protocol: U13, F16
    pub fn look_up(now: u64, address: ApAddress, room: bool) -> Self {
        Self::begin(now, room, Phase::Asking, Output::LookUp(address))
    }

    fn begin(now: u64, room: bool, phase: Phase, output: Output) -> Self {
        let (phase, output) = if room { (phase, output) } else { (Phase::Over, Output::Abort(Reason::Busy)) };
        Self { phase, deadline: now + FIND_LIMIT, out: Some(output) }
    }

    /// Takes how the last output went; what belongs to no such output changes nothing.
    // protocol: U7, U9, U13, U26
    pub fn handle(&mut self, now: u64, input: Input) {
        self.phase = match (std::mem::replace(&mut self.phase, Phase::Over), input) {
            (Phase::Finding { open, anew }, Input::Contact(Some(to))) if to.node_id() == open.node => {
                self.expect(now, DIAL_LIMIT, Output::Dial { to, anew });
                Phase::Dialing { handle: open.handle, first: open.first }
            }
            (Phase::Dialing { handle, first }, Input::Dialed(true)) => {
                self.expect(now, SEND_LIMIT, Output::Join { handle, first });
                Phase::Joining
            }
            (Phase::Joining, Input::Sent(true)) => self.end(Output::Carry),
            (Phase::Finding { .. }, Input::Contact(_))
            | (Phase::Dialing { .. }, Input::Dialed(false))
            | (Phase::Joining, Input::Sent(false))
            | (Phase::Asking, Input::NoAnswer) => self.end(Output::Abort(Reason::Unreachable)),
            (Phase::Asking, Input::NoRecord) => self.end(Output::Abort(Reason::NoSuchAddress)),
            (Phase::Asking, Input::Record(record)) if record.len() <= CELL_DATA_MAX => {
                self.expect(now, SEND_LIMIT, Output::Answer(record));
                Phase::Answering
            }
            // It is no AP record that holds.
            (Phase::Asking, Input::Record(_)) => self.end(Output::Abort(Reason::Unreachable)),
            (Phase::Answering, Input::Sent(true)) => self.end(Output::Close),
            (Phase::Answering, Input::Sent(false)) => self.end(Output::Drop),
            (phase, _) => phase,
        };
    }

    /// Lets time pass.
    // protocol: U7, U13
    pub fn tick(&mut self, now: u64) {
        if now < self.deadline {
            return;
        }
        self.phase = match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Answering => self.end(Output::Drop),
            Phase::Over => Phase::Over,
            Phase::Finding { .. } | Phase::Dialing { .. } | Phase::Joining | Phase::Asking => {
                self.end(Output::Abort(Reason::Unreachable))
            }
        };
    }

    /// What is to be done now.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.take()
    }

    /// When to call [`Exit::tick`]; nothing is waited for when all is over.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::SigningKey;

    const NOW: u64 = 5_000;

    fn contact(seed: u8) -> NodeContact {
        let identity = SigningKey::from_seed(&[seed; 32]).verifying_key();
        NodeContact { identity, addr: ([10, seed, 0, 1], 443).into(), link_secret: [0; 32] }
    }

    fn address() -> ApAddress {
        ApAddress::of(&SigningKey::from_seed(&[9; 32]).verifying_key())
    }

    fn asked() -> Open {
        Open { node: contact(2).node_id(), handle: [7; 16], first: b"first".to_vec() }
    }

    fn opened() -> Exit {
        Exit::open(NOW, asked(), true, true)
    }

    fn looks_up() -> Exit {
        Exit::look_up(NOW, address(), true)
    }

    /// After these inputs at `NOW`: the last output.
    fn after(mut exit: Exit, inputs: &[Input]) -> (Exit, Output) {
        let mut last = exit.poll().expect("it begins");
        for input in inputs {
            exit.handle(NOW, input.clone());
            last = exit.poll().expect("each step asks for the next");
        }
        (exit, last)
    }

    fn found() -> Input {
        Input::Contact(Some(contact(2)))
    }

    // protocol: U7
    #[test]
    fn open_finds_the_entry_node_dials_it_and_joins() {
        assert_eq!(after(opened(), &[]).1, Output::Find(contact(2).node_id()));
        let dial = Output::Dial { to: contact(2), anew: true };
        assert_eq!(after(opened(), &[found()]).1, dial);
        let join = Output::Join { handle: [7; 16], first: b"first".to_vec() };
        assert_eq!(after(opened(), &[found(), Input::Dialed(true)]).1, join);
        let (mut exit, last) = after(opened(), &[found(), Input::Dialed(true), Input::Sent(true)]);
        assert_eq!((last, exit.deadline(), exit.poll()), (Output::Carry, None, None));
    }

    // protocol: B7, B8
    #[test]
    fn only_the_first_open_to_an_entry_node_needs_a_new_link() {
        for anew in [false, true] {
            let exit = Exit::open(NOW, asked(), anew, true);
            assert_eq!(after(exit, &[found()]).1, Output::Dial { to: contact(2), anew });
        }
    }

    // protocol: U9
    #[test]
    fn an_entry_node_that_is_not_to_be_had_is_unreachable() {
        let unreachable = Output::Abort(Reason::Unreachable);
        assert_eq!(after(opened(), &[Input::Contact(None)]).1, unreachable);
        assert_eq!(after(opened(), &[Input::Contact(Some(contact(3)))]).1, unreachable, "it is another node");
        assert_eq!(after(opened(), &[found(), Input::Dialed(false)]).1, unreachable);
        assert_eq!(after(opened(), &[found(), Input::Dialed(true), Input::Sent(false)]).1, unreachable);
    }

    // protocol: U13
    #[test]
    fn look_up_answers_what_the_database_says() {
        assert_eq!(after(looks_up(), &[]).1, Output::LookUp(address()));
        let record = Input::Record(b"record".to_vec());
        assert_eq!(after(looks_up(), std::slice::from_ref(&record)).1, Output::Answer(b"record".to_vec()));
        let (exit, last) = after(looks_up(), &[record.clone(), Input::Sent(true)]);
        assert_eq!((last, exit.deadline()), (Output::Close, None));
        assert_eq!(after(looks_up(), &[record, Input::Sent(false)]).1, Output::Drop);
        assert_eq!(after(looks_up(), &[Input::NoRecord]).1, Output::Abort(Reason::NoSuchAddress));
        assert_eq!(after(looks_up(), &[Input::NoAnswer]).1, Output::Abort(Reason::Unreachable));
        let long = Input::Record(vec![0; CELL_DATA_MAX + 1]);
        assert_eq!(after(looks_up(), &[long]).1, Output::Abort(Reason::Unreachable));
    }

    /// What owners had a terminating node hold for them was bounded by nothing but their patience.
    // protocol: F16, U26
    #[test]
    fn without_room_nothing_is_done_and_the_owner_hears_busy() {
        for exit in [Exit::open(NOW, asked(), true, false), Exit::look_up(NOW, address(), false)] {
            let (exit, last) = after(exit, &[]);
            assert_eq!((last, exit.deadline()), (Output::Abort(Reason::Busy), None));
        }
    }

    // protocol: U7, U13
    #[test]
    fn each_step_has_its_time() {
        let record = Input::Record(b"record".to_vec());
        let steps = [
            (opened(), vec![], 15_000, Output::Abort(Reason::Unreachable)),
            (opened(), vec![found()], 6_000, Output::Abort(Reason::Unreachable)),
            (opened(), vec![found(), Input::Dialed(true)], 10_000, Output::Abort(Reason::Unreachable)),
            (looks_up(), vec![], 15_000, Output::Abort(Reason::Unreachable)),
            (looks_up(), vec![record], 10_000, Output::Drop),
        ];
        for (exit, inputs, limit, last) in steps {
            let (mut exit, _) = after(exit, &inputs);
            assert_eq!(exit.deadline(), Some(NOW + limit));
            exit.tick(NOW + limit - 1);
            assert_eq!(exit.poll(), None);
            exit.tick(NOW + limit);
            assert_eq!((exit.poll(), exit.deadline()), (Some(last), None));
        }
    }

    fn input() -> impl Strategy<Value = Input> {
        prop_oneof![
            prop::option::of(2..4_u8).prop_map(|seed| Input::Contact(seed.map(contact))),
            any::<bool>().prop_map(Input::Dialed),
            (0..5_000_usize).prop_map(|length| Input::Record(vec![7; length])),
            Just(Input::NoRecord),
            Just(Input::NoAnswer),
            any::<bool>().prop_map(Input::Sent),
        ]
    }

    proptest! {
        #[test]
        fn whatever_comes_it_ends_once_and_in_time(
            (opens, anew, room) in any::<(bool, bool, bool)>(),
            steps in prop::collection::vec((0..6_000_u64, prop::option::of(input())), 0..40),
        ) {
            let mut exit = if opens { Exit::open(0, asked(), anew, room) } else { Exit::look_up(0, address(), room) };
            let (mut now, mut last) = (0, None);
            for (passes, input) in steps.into_iter().chain(std::iter::repeat_n((60_000, None), 3)) {
                while let Some(output) = exit.poll() {
                    prop_assert!(last.is_none(), "{output:?} after the end");
                    match output {
                        Output::Carry | Output::Close | Output::Abort(_) | Output::Drop => last = Some(output),
                        Output::Answer(record) => prop_assert!(record.len() <= CELL_DATA_MAX),
                        Output::Find(_) | Output::Dial { .. } | Output::Join { .. } => prop_assert!(opens && room),
                        Output::LookUp(_) => prop_assert!(!opens && room),
                    }
                }
                prop_assert_eq!(exit.deadline().is_none(), last.is_some());
                now += passes;
                match input {
                    Some(input) => exit.handle(now, input),
                    None => exit.tick(now),
                }
            }
            prop_assert!(last.is_some(), "it does not end");
        }
    }
}
