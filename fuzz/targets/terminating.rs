//! A terminating node's work, each value of it stepped by anybody: no panic, one end for each use, in time, and bounded memory.
#![no_main]

use std::collections::BTreeSet;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use phantom_fuzz::world::candidate;
use phantom_fuzz::{NOW, key, rng};
use phantom_proto::ident::{ApAddress, NodeId};
use phantom_proto::record::{ApRecord, RoutingEntry, STEP, Signed};
use phantom_proto::terminating::{
    Control, ControlInput, ControlOutput, Entry, EntryInput, EntryOutput, Exit, ExitInput, ExitOutput, First, Joins,
    Publication, Uses, Whose,
};
use phantom_proto::wire::cells::{CELL_DATA_MAX, CellKind, Lookup, Open, Word};

/// What happens.
#[derive(Arbitrary, Debug)]
enum Op {
    /// The owner's first cell on a ready tunnel.
    First {
        kind: u8,
        data: Vec<u8>,
    },
    /// A record of the owner's own making, or one that holds.
    Serve(Vec<u8>),
    ServeGood {
        owner: bool,
        ahead: u8,
    },
    /// How the last step of a connection or look-up went.
    Contact(Option<u8>),
    Dialed(bool),
    Record(Option<u16>),
    NoAnswer,
    Sent(bool),
    /// JOIN, and how its last step went.
    Join,
    Frame {
        kind: u8,
        payload: Vec<u8>,
    },
    Ended,
    Tunnel(bool),
    EntrySaid(bool),
    /// What the control tunnel hears.
    ControlServe(Vec<u8>),
    Offered,
    Given(bool),
    ControlSaid(bool),
    Heard {
        kind: u8,
        data: Vec<u8>,
    },
    Broke {
        noise: bool,
    },
    /// Peers that join and leave.
    Enter(u8),
    Leave(u8),
    Pass(u16),
    /// First cells that say what they must.
    Open {
        entry: u8,
    },
    LookUp,
}

/// One path that ends here, with at most one use of each sort at a time.
struct World {
    now: u64,
    uses: Uses,
    used: BTreeSet<&'static str>,
    exit: Option<Exit>,
    entry: Option<Entry>,
    control: Control,
    /// The control tunnel is there; another is offered.
    tunnels: [bool; 2],
    joins: Joins,
    there: Vec<u8>,
}

const HANDLE: [u8; 16] = [7; 16];

impl World {
    fn new(own: bool) -> Self {
        let whose = if own { Whose::Own } else { Whose::End };
        Self {
            now: NOW * 1000,
            uses: Uses::new(HANDLE),
            used: BTreeSet::new(),
            exit: None,
            entry: None,
            control: Control::new(NOW * 1000, whose, &mut rng(1)),
            tunnels: [false; 2],
            joins: Joins::new(16_384),
            there: Vec::new(),
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::First { kind, data } => {
                let Some(kind) = CellKind::from_byte(kind) else { return };
                self.first(kind, &data);
            }
            Op::Serve(record) => self.serve(record),
            Op::ServeGood { owner, ahead } => self.serve(record(self.now, owner, ahead)),
            Op::Contact(number) => {
                self.exit(ExitInput::Contact(number.map(|number| candidate(number % 4).contact.clone())))
            }
            Op::Dialed(dialed) => self.exit(ExitInput::Dialed(dialed)),
            Op::Record(Some(length)) => self.exit(ExitInput::Record(vec![7; length.into()])),
            Op::Record(None) => self.exit(ExitInput::NoRecord),
            Op::NoAnswer => self.exit(ExitInput::NoAnswer),
            Op::Sent(sent) => self.exit(ExitInput::Sent(sent)),
            Op::Join if self.entry.is_none() => self.entry = Some(Entry::new(self.now)),
            Op::Join => {}
            Op::Frame { kind, payload } => self.entry(EntryInput::Frame { kind, payload }),
            Op::Ended => self.entry(EntryInput::Ended),
            Op::Tunnel(given) => self.entry(EntryInput::Tunnel(given)),
            Op::EntrySaid(said) => self.entry(EntryInput::Said(said)),
            Op::ControlServe(record) => self.control(ControlInput::Serve(record)),
            Op::Offered => {
                self.tunnels[1] = true;
                self.control(ControlInput::Offered);
            }
            Op::Given(given) => self.control(ControlInput::Given(given)),
            Op::ControlSaid(said) => self.control(ControlInput::Said(said)),
            Op::Heard { kind, data } => {
                let Some(kind) = CellKind::from_byte(kind) else { return };
                self.control(ControlInput::Heard { kind, data });
            }
            Op::Broke { noise } => self.control(ControlInput::Broke { noise }),
            Op::Enter(peer) => {
                if self.joins.enter(NodeId([peer; 32])) {
                    self.there.push(peer);
                }
            }
            Op::Leave(peer) => {
                self.joins.leave(NodeId([peer; 32]));
                if let Some(at) = self.there.iter().position(|other| *other == peer) {
                    self.there.swap_remove(at);
                }
            }
            Op::Open { entry } => {
                let node = candidate(entry % 4).contact.node_id();
                let open = Open { node, handle: HANDLE, first: vec![entry; entry.into()] };
                self.says(&Word::Open(open));
            }
            Op::LookUp => self.says(&Word::Lookup(Lookup(ApAddress::of(&key(200).verifying_key())))),
            Op::Pass(tenths) => self.pass(u64::from(tenths) * 100),
        }
        assert_eq!(self.joins.total(), self.there.len());
        assert!(self.used.len() <= 1, "a path with two uses");
    }

    fn says(&mut self, word: &Word<'_>) {
        self.first(word.kind(), &word.data());
    }

    fn first(&mut self, kind: CellKind, data: &[u8]) {
        match self.uses.first(kind, data) {
            First::Open { open, anew } => {
                self.used.insert("connect");
                self.exit.get_or_insert(Exit::open(self.now, open, anew, self.there.len() < 4));
            }
            First::LookUp(address) => {
                self.used.insert("ask");
                self.exit.get_or_insert(Exit::look_up(self.now, address, self.there.len() < 4));
            }
            First::Serve(record) => self.serve(record),
            First::Incoming(_) | First::Control | First::Misused => {}
        }
        self.settle();
    }

    fn serve(&mut self, record: Vec<u8>) {
        let own = candidate(0).contact.identity;
        if let Ok(taken) = self.uses.serve(self.now, &own, &mut rng(self.now), self.now % 10_000, record) {
            self.used.insert("serve");
            if let Publication::Now(record) = taken {
                self.published(&record);
            }
        }
    }

    /// It holds, and names this node and path.
    fn published(&self, record: &[u8]) {
        let signed = Signed::<ApRecord>::from_bytes(record).expect("it is one");
        let entries = signed.check(self.now / 1000).expect("it holds").entries;
        assert!(entries.iter().any(|entry| entry.handle == HANDLE && entry.entry_node == candidate(0).contact));
    }

    fn exit(&mut self, input: ExitInput) {
        if let Some(exit) = &mut self.exit {
            exit.handle(self.now, input);
        }
        self.settle();
    }

    fn entry(&mut self, input: EntryInput) {
        if let Some(entry) = &mut self.entry {
            entry.handle(self.now, input);
        }
        self.settle();
    }

    fn control(&mut self, input: ControlInput) {
        let given = input == ControlInput::Given(true);
        self.control.handle(self.now, input);
        self.settle_control(given);
    }

    fn pass(&mut self, millis: u64) {
        self.now += millis;
        if let Some(exit) = &mut self.exit {
            exit.tick(self.now);
        }
        if let Some(entry) = &mut self.entry {
            entry.tick(self.now);
        }
        self.control.tick(self.now, &mut rng(self.now));
        self.settle();
        self.settle_control(false);
        if let Some(Ok(record)) = self.uses.due(self.now) {
            self.published(&record);
        }
    }

    fn settle(&mut self) {
        while let Some(output) = self.exit.as_mut().and_then(Exit::poll) {
            match output {
                ExitOutput::Answer(record) => assert!(record.len() <= CELL_DATA_MAX),
                ExitOutput::Carry | ExitOutput::Close | ExitOutput::Abort(_) | ExitOutput::Drop => self.exit = None,
                ExitOutput::Find(_) | ExitOutput::LookUp(_) | ExitOutput::Dial { .. } | ExitOutput::Join { .. } => {}
            }
        }
        while let Some(output) = self.entry.as_mut().and_then(Entry::poll) {
            match output {
                EntryOutput::Say(cells) => assert!(cells.iter().all(|(_, data)| data.len() <= CELL_DATA_MAX)),
                EntryOutput::Carry | EntryOutput::Refuse(_) | EntryOutput::Drop => self.entry = None,
                EntryOutput::Hear | EntryOutput::Want { .. } => {}
            }
        }
        assert!(self.exit.as_ref().is_none_or(|exit| exit.deadline().is_some()));
        assert!(self.entry.as_ref().is_none_or(|entry| entry.deadline().is_some()));
    }

    /// It never uses a tunnel that there is not. `given`: it may have got one just now.
    fn settle_control(&mut self, mut given: bool) {
        while let Some(output) = self.control.poll() {
            let [has, offered] = &mut self.tunnels;
            match output {
                ControlOutput::Want { .. } => assert!(!*has),
                // What follows a grant is that something is said.
                ControlOutput::Say { .. } => {
                    *has |= std::mem::take(&mut given);
                    assert!(*has);
                }
                ControlOutput::Keep => {
                    assert!(std::mem::take(offered));
                    *has = true;
                }
                ControlOutput::Reject => assert!(std::mem::take(offered)),
                ControlOutput::Drop | ControlOutput::Abort(_) | ControlOutput::Use { .. } => {
                    assert!(std::mem::take(has))
                }
                ControlOutput::Served(_) | ControlOutput::Misused => {}
            }
        }
    }
}

/// Of a step near that of `now`.
fn record(now: u64, owner: bool, ahead: u8) -> Vec<u8> {
    let owner = key(200 + u8::from(owner));
    let entry = RoutingEntry {
        entry_node: candidate(0).contact.clone(),
        handle: HANDLE,
        until: (now / 1000 + 7200) / 600 * 600,
    };
    let step = now / 1000 / STEP + u64::from(ahead % 3);
    Signed::sign(&ApRecord::on_grid(owner.verifying_key(), step, ahead.into(), vec![entry]), owner).bytes().to_vec()
}

fuzz_target!(|input: (bool, Vec<Op>)| {
    let (own, ops) = input;
    let mut world = World::new(own);
    ops.into_iter().take(200).for_each(|op| world.run(op));
    // In time everything has ended but what has its own clock.
    (0..4).for_each(|_| world.pass(60_000));
    assert!(world.exit.is_none() && world.entry.is_none());
});
