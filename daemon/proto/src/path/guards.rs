//! The few nodes that may stand next to the owner, kept for long (docs/protocol.md, section 4.6).
//!
//! A role next to the owner, drawn anew for each build, would sooner or later fall to an attacker's node with certainty.

use rand::CryptoRng;

use super::accounts::Accounts;
use super::plan::{Candidate, Needed, Operators, PlanError, Spread, draw};
use crate::ident::NodeId;
use crate::wire::{NodeContact, Reader, Wire, WireError, Writer};

/// Guards that one circle needs: first Y, last Y, nearest X.
pub const GUARDS_USED: usize = 3;

/// Guards to keep: two in reserve, so that a node that is away for an hour costs no new draw.
pub const GUARDS: usize = 5;

/// Guards when members were away and had to be replaced: more would mean that an attacker can force draws by shooting
/// guards down, without end.
pub const GUARDS_MAX: usize = 10;

/// Absence from the sample after which a guard is forgotten, in seconds: 30 days.
pub const ABSENCE_MAX: u64 = 30 * 24 * 3600;

/// How old `seen` may grow before a refresh asks to be saved, in seconds.
const SEEN_SAVED: u64 = 24 * 3600;

/// Version of the encoding on disk.
const VERSION: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Guard {
    node: NodeId,
    /// When it was last in the sample (Unix seconds).
    seen: u64,
}

/// The owner's guards, the oldest first. Goes to disk whenever [`Guards::refresh`] says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guards(Vec<Guard>);

impl Guards {
    /// Brings the set up to date with the sample: forgets who is away for long, draws who is missing. Call it when the
    /// sample is well filled, and then now and then. Returns whether to save it.
    pub fn refresh(
        &mut self,
        rng: &mut dyn CryptoRng,
        now: u64,
        own: &NodeContact,
        sample: &[Candidate],
        spread: Spread,
    ) -> bool {
        let mut changed = self.note_presence(now, sample);
        let mut operators = Operators::new(spread, own);
        let present = self.present(sample).iter().filter(|node| operators.take(&node.contact)).count();
        let missing = GUARDS.saturating_sub(self.0.len()).max(GUARDS_USED.saturating_sub(present));
        let room = GUARDS_MAX.saturating_sub(self.0.len());
        let known: Vec<NodeId> = self.0.iter().map(|guard| guard.node).collect();
        let pool = sample.iter().filter(|node| !known.contains(&node.contact.node_id()));
        for node in draw(rng, pool, missing.min(room), &mut operators, &Accounts::default()) {
            self.0.push(Guard { node: node.contact.node_id(), seen: now });
            changed = true;
        }
        changed
    }

    fn note_presence(&mut self, now: u64, sample: &[Candidate]) -> bool {
        let mut save = false;
        for guard in &mut self.0 {
            if sample.iter().any(|node| node.contact.node_id() == guard.node) {
                save |= guard.seen.saturating_add(SEEN_SAVED) <= now;
                guard.seen = guard.seen.max(now);
            }
        }
        let before = self.0.len();
        self.0.retain(|guard| guard.seen.saturating_add(ABSENCE_MAX) > now);
        save || self.0.len() != before
    }

    /// The guards of one circle: the first ones that are there; those whose builds fail come last.
    pub(super) fn pick<'a>(
        &self,
        sample: &'a [Candidate],
        operators: &mut Operators,
        accounts: &Accounts,
    ) -> Result<[&'a Candidate; GUARDS_USED], PlanError> {
        let mut present = self.present(sample);
        present.sort_by_key(|node| accounts.poor(&node.contact.node_id()));
        let picked: Vec<_> =
            present.into_iter().filter(|node| operators.take(&node.contact)).take(GUARDS_USED).collect();
        let have = picked.len();
        picked.try_into().map_err(|_| PlanError::NotEnough { have, need: GUARDS_USED, of: Needed::Guards })
    }

    /// Guards that are in the sample, the oldest first.
    fn present<'a>(&self, sample: &'a [Candidate]) -> Vec<&'a Candidate> {
        let find = |guard: &Guard| sample.iter().find(|node| node.contact.node_id() == guard.node);
        self.0.iter().filter_map(find).collect()
    }

    /// Ids of all guards.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.0.iter().map(|guard| guard.node)
    }
}

/// Version, count, then id (32) and last sight (8) of each.
impl Wire for Guards {
    fn write(&self, out: &mut Writer) {
        out.u8(VERSION);
        out.u8(self.0.len() as u8);
        for guard in &self.0 {
            out.bytes(&guard.node.0);
            out.u64(guard.seen);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        if reader.u8()? != VERSION {
            return Err(WireError::Value);
        }
        let count = usize::from(reader.u8()?);
        if count > GUARDS_MAX {
            return Err(WireError::TooLong);
        }
        let guards = (0..count).map(|_| Ok(Guard { node: NodeId(reader.array()?), seen: reader.u64()? }));
        guards.collect::<Result<_, _>>().map(Self)
    }
}
