//! How nodes get to know their first others: what one tells for it, and what one does that is told.

use phantom_proto::wire::NodeContact;
use rand::seq::{IndexedRandom, IteratorRandom};

use phantom_proto::netdb::SAMPLE;

use super::{PRIMES, Task};

impl Task {
    /// Some nodes, at most `most`: of the routing table, which every stranger may ask for, and not of what else is known: of that paths are made.
    // protocol: J13
    pub(super) fn some(&mut self, most: usize) -> Vec<NodeContact> {
        let bans = self.commands.in_force();
        let contacts = self.placed().into_iter().filter(|contact| bans.of_contact(contact).is_none());
        contacts.sample(&mut crate::random(), most)
    }

    /// Connects to some of these nodes now, and to any of them whenever there is nobody else.
    // protocol: J9
    pub(super) fn join(&mut self, contacts: Vec<NodeContact>) {
        let some: Vec<_> = contacts.sample(&mut crate::random(), PRIMES).cloned().collect();
        some.iter().for_each(|contact| self.dial(contact));
        self.contacts.retain(|known| !contacts.contains(known));
        self.contacts.splice(0..0, contacts);
        self.contacts.truncate(SAMPLE);
    }
}
