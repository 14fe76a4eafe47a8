//! What a program that knows only IPv4 sees: addresses of 198.18.0.0/15 that stand for AP addresses.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use phantom_proto::ident::ApAddress;

/// First address of the range (RFC 2544: for benchmarks, never routed).
const RANGE: u32 = u32::from_be_bytes([198, 18, 0, 0]);
const RANGE_MASK: u32 = !0x1_ffff;

/// The first 256 addresses are the gate's own: the program's address, the resolver.
const RESERVED: u32 = 256;

/// At most this many aliases live at once; then the oldest is given to somebody else.
pub(crate) const MAX_ALIASES: u32 = 65_536;

/// The address that a program has in the IPv4 view.
pub(crate) const OWN_IPV4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// Where programs send DNS questions. Any address would do; this one leads nowhere else either.
pub(crate) const RESOLVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 53);

/// Whether an address belongs to the IPv4 view at all.
pub(crate) fn in_range(address: Ipv4Addr) -> bool {
    u32::from(address) & RANGE_MASK == RANGE
}

/// Whether an address is one of the gate's own.
pub(crate) fn is_reserved(address: Ipv4Addr) -> bool {
    in_range(address) && u32::from(address) - RANGE < RESERVED
}

/// An identity's IPv4 view, for all that show it.
pub(crate) type SharedAliases = Arc<Mutex<Aliases>>;

/// What `address` is in the view of whose own is `own`.
pub(crate) fn shown_as(aliases: &Mutex<Aliases>, own: ApAddress, address: ApAddress) -> Ipv4Addr {
    if address == own { OWN_IPV4 } else { aliases.lock().unwrap_or_else(PoisonError::into_inner).of(address) }
}

/// Who an address of that view is.
pub(crate) fn behind(aliases: &Mutex<Aliases>, own: ApAddress, alias: Ipv4Addr) -> Option<ApAddress> {
    if alias == OWN_IPV4 { Some(own) } else { aliases.lock().unwrap_or_else(PoisonError::into_inner).behind(alias) }
}

/// IPv4 stand-ins, in the order in which they were asked for.
#[derive(Default)]
pub(crate) struct Aliases {
    slots: Vec<ApAddress>,
    index: HashMap<ApAddress, u32>,
    oldest: u32,
    /// Where they begin.
    first: u32,
}

/// Where they begin at most, so that all of them have room.
const LAST_FIRST: u32 = !RANGE_MASK - RESERVED + 1 - MAX_ALIASES;

impl Aliases {
    /// None yet, beginning anywhere: what programs remember from a daemon before most likely means nobody, and so nobody else.
    pub(crate) fn anywhere() -> Self {
        Self { first: rand::random_range(0..=LAST_FIRST), ..Self::default() }
    }

    /// Those of [`Aliases::all`].
    pub(crate) fn go_on((first, addresses): (u32, Vec<ApAddress>)) -> Self {
        let mut aliases = Self { first: first.min(LAST_FIRST), ..Self::default() };
        for address in addresses {
            let _ = aliases.of(address);
        }
        aliases
    }

    /// The IPv4 address that stands for `address`, handed out now if there is none yet.
    pub(crate) fn of(&mut self, address: ApAddress) -> Ipv4Addr {
        let slot = match self.index.get(&address) {
            Some(slot) => *slot,
            None => self.insert(address),
        };
        Ipv4Addr::from(RANGE + RESERVED + self.first + slot)
    }

    fn insert(&mut self, address: ApAddress) -> u32 {
        let used = u32::try_from(self.slots.len()).unwrap_or(MAX_ALIASES);
        let slot = if used < MAX_ALIASES {
            self.slots.push(address);
            used
        } else {
            let slot = self.oldest;
            self.oldest = (self.oldest + 1) % MAX_ALIASES;
            let old = std::mem::replace(&mut self.slots[slot as usize], address);
            self.index.remove(&old);
            slot
        };
        self.index.insert(address, slot);
        slot
    }

    /// Where they begin, and whom they stand for in their own order: for a process that takes over.
    pub(crate) fn all(&self) -> (u32, Vec<ApAddress>) {
        (self.first, self.slots.clone())
    }

    /// The AP address that `alias` stands for.
    pub(crate) fn behind(&self, alias: Ipv4Addr) -> Option<ApAddress> {
        let slot = u32::from(alias).checked_sub(RANGE + RESERVED + self.first)?;
        self.slots.get(slot as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> ApAddress {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&phantom_proto::ident::AP_PREFIX.to_be_bytes());
        bytes[12..].copy_from_slice(&number.to_be_bytes());
        ApAddress::from_bytes(bytes).unwrap()
    }

    #[test]
    fn an_alias_is_stable_and_leads_back() {
        let mut aliases = Aliases::default();
        let alias = aliases.of(address(1));
        assert!(in_range(alias) && !is_reserved(alias));
        assert_ne!(aliases.of(address(2)), alias);
        assert_eq!(aliases.of(address(1)), alias);
        assert_eq!(aliases.behind(alias), Some(address(1)));
        assert_eq!(aliases.behind(OWN_IPV4), None);
        assert_eq!(aliases.behind(Ipv4Addr::BROADCAST), None);
    }

    #[test]
    fn wherever_they_begin_all_are_in_the_range_and_another_process_shows_the_same() {
        for first in [0, rand::random_range(0..=LAST_FIRST), LAST_FIRST] {
            let mut aliases = Aliases { first, ..Aliases::default() };
            let shown: Vec<_> = (0..MAX_ALIASES).map(|number| aliases.of(address(number))).collect();
            assert!(shown.iter().all(|alias| in_range(*alias) && !is_reserved(*alias)));
            let next = Aliases::go_on(aliases.all());
            for (number, alias) in (0..).zip(&shown) {
                assert_eq!(next.behind(*alias), Some(address(number)));
            }
        }
        let begins: Vec<u32> = (0..4).map(|_| Aliases::anywhere().first).collect();
        assert!(begins.iter().any(|first| *first != begins[0]), "{begins:?}");
    }

    #[test]
    fn a_full_table_gives_the_oldest_away() {
        let mut aliases = Aliases::default();
        let first = aliases.of(address(0));
        for number in 1..=MAX_ALIASES {
            assert!(in_range(aliases.of(address(number))));
        }
        assert_eq!(aliases.behind(first), Some(address(MAX_ALIASES)));
        assert_eq!((aliases.slots.len(), aliases.index.len()), (MAX_ALIASES as usize, MAX_ALIASES as usize));
        assert_ne!(aliases.of(address(0)), first);
    }
}
