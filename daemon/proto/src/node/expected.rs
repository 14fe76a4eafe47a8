//! Identities that outlive a run, while nobody runs as them: spares of their own are kept for those that were used lately, so that what
//! begins takes what stands, and its builds do not show when it began (docs/protocol.md, section 4.7).

use super::Node;
use super::personas::Aim;
use crate::ident::ApAddress;
use crate::path::Persona;

/// Identities for which spares are kept while nobody runs as them, those that were used last. Each costs twelve builds an hour, some two
/// megabytes for the node itself: fifty kept names must not make a client busier than its services would.
// protocol: K23
pub const EXPECTED: usize = 8;

/// For how long after its last use an identity is expected to be used again, in milliseconds.
pub const EXPECTED_FOR: u64 = 7 * 24 * 3_600_000;

impl Node {
    /// An identity that was used at this time may be used again.
    // protocol: K22
    pub(super) fn expect(&mut self, now: u64, identity: ApAddress, used: u64) {
        if !self.settled.contains_key(&identity) {
            // Somebody runs as it already, or it is expected.
            return;
        }
        let persona = self.christen(now, identity);
        self.rest(persona, used);
        self.expect_no_more(now);
    }

    /// Nobody runs as an identity any more.
    pub(super) fn forget(&mut self, now: u64, identity: ApAddress) {
        self.settled.remove(&identity);
        let Some(persona) = self.persona_of(identity) else { return };
        if !self.personas.get(&persona).is_some_and(|own| own.lasts) {
            return self.dismiss(now, persona);
        }
        self.keep_sets();
        self.rest(persona, now);
        for no in self.working(persona) {
            self.say_farewell(now, identity, no);
        }
        self.expect_no_more(now);
    }

    /// Nobody will run as an identity again.
    pub(super) fn remove(&mut self, now: u64, identity: ApAddress) {
        self.settled.remove(&identity);
        if let Some(persona) = self.persona_of(identity) {
            self.dismiss(now, persona);
        }
    }

    /// From now on its clocks alone build, for its stock.
    fn rest(&mut self, persona: Persona, used: u64) {
        let Some(own) = self.personas.get_mut(&persona) else { return };
        (own.idle, own.service) = (Some(used), None);
        for stock in own.stocks() {
            stock.aim = Aim::Spares;
        }
    }

    /// Lets go of the identities that were used longest ago.
    // protocol: K23
    pub(super) fn expect_no_more(&mut self, now: u64) {
        let idle = self.personas.iter().filter_map(|(persona, own)| Some((own.idle?, *persona)));
        let mut idle: Vec<_> = idle.collect();
        idle.sort_unstable_by(|a, b| b.cmp(a));
        for (number, (used, persona)) in idle.into_iter().enumerate() {
            if number >= EXPECTED || now > used.saturating_add(EXPECTED_FOR) {
                self.dismiss(now, persona);
            }
        }
    }
}
