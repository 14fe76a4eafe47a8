//! An owner looks its own record up from outside, as any client would: over a spare path that has grown old and would end anyway, which
//! asks for nothing else (docs/protocol.md, section 4.7). Nodes that keep the record back, or never had it, show by that.

use std::collections::BTreeSet;

use super::progress::{ago, since};
use super::visits::{To, Visit, WITNESSES};
use super::{Node, Output, PathNo, Work};
use crate::ident::NodeId;
use crate::path::Class;

/// Records of one identity that are remembered: those of this step and of the next, and some that were made out of turn.
const REMEMBERED: usize = 16;

/// What is known from outside of a service's record.
#[derive(Default)]
pub(super) struct OwnRecord {
    /// Serials that were sent, and from when on the record must be found, in milliseconds since 1970.
    sent: Vec<(u64, u64)>,
    /// Since when each look has found it, in milliseconds since 1970.
    since: Option<u64>,
    /// When one last found it.
    found: Option<u64>,
    /// Ends of paths that have not found it since it was found or made anew.
    missed: BTreeSet<NodeId>,
    /// It was made anew since it was last found.
    is_lost: bool,
}

impl OwnRecord {
    /// One was made that must be found from then on.
    pub(super) fn sent(&mut self, now: u64, serial: u64, from: u64) {
        // Of those that must be found the newest is enough.
        let expected = self.expected(now);
        self.sent.retain(|(sent, from)| *from > now || Some(*sent) == expected);
        self.sent.push((serial, from));
        let beyond = self.sent.len().saturating_sub(REMEMBERED);
        self.sent.drain(..beyond);
    }

    /// The serial that must be found at least. `None`: nothing need be found yet.
    // protocol: K29
    fn expected(&self, now: u64) -> Option<u64> {
        self.sent.iter().filter(|(_, from)| *from <= now).map(|(serial, _)| *serial).max()
    }

    /// An end has answered with this serial, or that there is none, or that it is not sure. True: so many have not found what must be there
    /// that it is to be made anew.
    // protocol: K28
    fn looked_up(&mut self, now: u64, expected: u64, end: NodeId, serial: Option<u64>) -> bool {
        if serial.is_some_and(|serial| serial >= expected) {
            self.missed.clear();
            self.since.get_or_insert(now);
            (self.found, self.is_lost) = (Some(now), false);
            return false;
        }
        self.missed.insert(end);
        if self.missed.len() < WITNESSES {
            return false;
        }
        self.missed.clear();
        (self.since, self.is_lost) = (None, true);
        true
    }

    pub(super) fn in_words(&self, now: u64) -> String {
        let found = match (self.found, self.since) {
            (Some(at), Some(stands)) => {
                format!("; its record has stood for {}, looked up {}", since(now, stands), ago(now, at))
            }
            (Some(at), None) => format!("; its record was last found {}", ago(now, at)),
            (None, _) => String::new(),
        };
        let lost = if self.is_lost { "; its record was not found, and was made anew" } else { "" };
        let missed = match self.missed.len() {
            0 => String::new(),
            missed => format!("; its record was not found by {missed} of {WITNESSES}"),
        };
        found + lost + &missed
    }
}

impl Node {
    // protocol: K27, K28
    pub(super) fn begin_look_up(&mut self, now: u64, no: PathNo) -> Option<()> {
        let owned = self.paths.get(&no)?.owned()?;
        if owned.class != Class::Out || owned.work != Work::Leaving || self.visits.contains_key(&no) {
            return None;
        }
        let (persona, exit, time) = (owned.persona, owned.end.node_id(), self.network_time(now));
        let own = self.personas.get(&persona)?;
        let (identity, record) = (own.identity?, &own.service.as_ref()?.watch.record);
        record.expected(time)?;
        // An entry node of its own has the record whether the database has it or not; and who has missed it is no further witness.
        let serves = self.serving(persona, now).iter().any(|(_, entry)| entry.entry_node.node_id() == exit);
        if serves || record.missed.contains(&exit) {
            return None;
        }
        self.go_out(now, no, Visit { persona, exit, to: To::Record });
        self.out.push_back(Output::LookUp { path: no, identity });
        Some(())
    }

    /// What the end of a path said of an own record: its serial, or that there is none, or that it is not sure. The path stays for a while
    /// more. When three have not found it, one after the other, it is made and sent anew.
    // protocol: K28
    pub(super) fn looked_up(&mut self, now: u64, no: PathNo, serial: Option<u64>) {
        let Some(&Visit { persona, exit, to: To::Record }) = self.visits.get(&no) else { return };
        self.come_home(now, no);
        let time = self.network_time(now);
        let Some(service) = self.personas.get_mut(&persona).and_then(|own| own.service.as_mut()) else { return };
        let Some(expected) = service.watch.record.expected(time) else { return };
        if service.watch.record.looked_up(now, expected, exit, serial) {
            service.make_anew();
        }
    }

    /// Services whose record was not found from outside.
    pub(super) fn unrecorded(&self) -> usize {
        let services = self.personas.values().filter_map(|own| own.service.as_ref());
        services.filter(|service| service.watch.record.is_lost).count()
    }
}
