//! How much is asked and published at once, and for whom: each kind has places of its own, and within those for others each path that
//! ends here has a share.

use phantom_proto::ident::Operator;
use phantom_proto::netdb::{Claim, Key, Room, Shares};
use rand::Rng;
use rand::seq::IndexedRandom;

use super::super::Origin;
use super::exchange::{Aim, Exchange};
use super::{Task, local};

/// Look-ups for others at once. A browser that opens a page asks for some names; a look-up lasts a second, or ten where some are silent.
/// More of one path would only wait for each other: a connection to another node carries 32 requests at once.
// protocol: D41
pub(super) const READS: Shares = Shares { path: 16, operator: 64, all: 384 };

/// Publications for others at once, those that are tried again later among them: a path serves one address, whose record of this step
/// and of the next may be under way.
// protocol: D41
pub(super) const PUBLICATIONS: Shares = Shares { path: 4, operator: 32, all: 128 };

/// Look-ups that programs of this computer wait for, at once: what comes on top is refused.
pub(super) const OWN: usize = 32;

/// Where something is that is done for others.
#[derive(Clone, Copy)]
enum Place {
    /// By its number.
    UnderWay(u64),
    /// By its index among those that wait to be tried again.
    Waiting(usize),
}

impl Task {
    /// For whom that is, where shares are counted.
    pub(super) fn claim(&self, origin: Origin) -> Option<Claim> {
        let Origin::Path { no, neighbour: (node, ip) } = origin else { return None };
        Some(Claim { operator: Operator::of(self.spread, node, ip), path: no.0 })
    }
}

impl Exchange {
    /// Whether one more may be asked about. Whoever fills places of others leaves this node its own.
    // protocol: D41, D42
    pub(super) fn makes_room(&mut self, rng: &mut impl Rng, key: &Key, aim: &Aim) -> bool {
        match aim {
            Aim::Own { .. } => true,
            Aim::Sample => self.has_room_for(key),
            Aim::Read { of: None, .. } | Aim::Publish { of: None, .. } => self.own() < OWN,
            Aim::Read { of: Some(of), .. } => {
                let reads = self.of_others(|aim| if let Aim::Read { of, .. } = aim { *of } else { None });
                let room = READS.room(reads, *of);
                self.give(rng, room)
            }
            Aim::Publish { of: Some(of), .. } => {
                let publications = self.of_others(|aim| if let Aim::Publish { of, .. } = aim { *of } else { None });
                let room = PUBLICATIONS.room(publications, *of);
                self.give(rng, room)
            }
        }
    }

    /// How much of this computer's is under way.
    fn own(&self) -> usize {
        let under_way = self.inquiries.values().map(|inquiry| &inquiry.aim);
        let all = under_way.chain(self.again.iter().map(|(_, _, aim)| aim));
        all.filter(|aim| matches!(aim, Aim::Read { of: None, .. } | Aim::Publish { of: None, .. })).count()
    }

    fn of_others(&self, whose: impl Fn(&Aim) -> Option<Claim>) -> impl Iterator<Item = (Place, Claim)> {
        let under_way = self.inquiries.iter().map(|(number, inquiry)| (Place::UnderWay(*number), &inquiry.aim));
        let waiting = self.again.iter().enumerate().map(|(index, (_, _, aim))| (Place::Waiting(index), aim));
        under_way.chain(waiting).filter_map(move |(place, aim)| Some((place, whose(aim)?)))
    }

    /// Of those that may have to make room one goes: that which has the longest to wait until it is tried again, for a record that nobody
    /// keeps must not keep others away for hours; else any.
    fn give(&mut self, rng: &mut impl Rng, room: Room<Place>) -> bool {
        let some = match room {
            Room::Free => return true,
            Room::Full => return false,
            Room::Instead(some) => some,
        };
        let waits = |place: &Place| match *place {
            Place::Waiting(index) => self.again.get(index).map(|(at, ..)| *at),
            Place::UnderWay(_) => None,
        };
        let last = some.iter().copied().filter(|place| waits(place).is_some()).max_by_key(waits);
        let aim = match last.or_else(|| some.choose(rng).copied()) {
            Some(Place::Waiting(index)) => self.again.swap_remove(index).2,
            Some(Place::UnderWay(number)) => match self.inquiries.remove(&number) {
                Some(inquiry) => inquiry.aim,
                None => return false,
            },
            None => return false,
        };
        aim.fail(local("too much is asked for at once"));
        true
    }
}
