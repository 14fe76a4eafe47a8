//! How a client shows with its first bytes that it knows the address, before anything is computed for it: whoever has a path's handle
//! from a record without knowing whose it is gets silence (docs/protocol.md, section "Session").

use crate::crypto::VerifyingKey;
use crate::crypto::hash::{Hash32, derive, keyed, same};
use crate::wire::session::{AttemptId, Hello, Message};

/// What everybody shares who knows the address's key.
struct Door(Hash32);

impl Door {
    fn of(ap: &VerifyingKey) -> Self {
        Self(derive("phantom v1 knock", &[&ap.0]))
    }

    /// Covers and uncovers the port.
    fn cover(&self, session: &[u8; 16], port: [u8; 2]) -> [u8; 2] {
        let pad = keyed(&self.0, &[b"port", session]);
        [port[0] ^ pad[0], port[1] ^ pad[1]]
    }

    fn knock(&self, session: &[u8; 16], port: [u8; 2], first: &[u8]) -> [u8; Hello::KNOCK] {
        let mac = keyed(&self.0, &[b"hello", session, &port, first]);
        mac.first_chunk().copied().unwrap_or_default()
    }

    fn resume(&self, id: &AttemptId) -> [u8; Hello::KNOCK] {
        keyed(&self.0, &[b"resume", id]).first_chunk().copied().unwrap_or_default()
    }
}

/// HELLO of a client that wants this port of the owner of `ap`; `first` is all of its TLS in the DATA message that follows.
pub fn hello(ap: &VerifyingKey, session: [u8; 16], port: u16, first: &[u8]) -> Hello {
    let door = Door::of(ap);
    let port = door.cover(&session, port.to_be_bytes());
    Hello { session, port, knock: door.knock(&session, port, first) }
}

/// The port that a client wants who knows the address. `None`: it does not.
pub(super) fn wanted(ap: &VerifyingKey, Hello { session, port, knock }: &Hello, first: &[u8]) -> Option<u16> {
    let door = Door::of(ap);
    let known = same(&door.knock(session, *port, first), knock);
    known.then(|| u16::from_be_bytes(door.cover(session, *port)))
}

/// Who comes to go on with a session, and from where its own bytes begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// Names session and attempt.
    pub id: AttemptId,
    /// What followed RESUME.
    pub rest: &'a [u8],
}

/// What shows in RESUME that its sender knows the address.
pub(super) fn resume(ap: &VerifyingKey, id: &AttemptId) -> [u8; Hello::KNOCK] {
    Door::of(ap).resume(id)
}

/// Reads the first bytes of a full connection: whether somebody who knows the address comes to go on with a session.
// protocol: S31
pub fn asked<'a>(ap: &VerifyingKey, first: &'a [u8]) -> Option<Asked<'a>> {
    let Ok(Some((Message::Resume { id, knock }, len))) = Message::read(first) else { return None };
    same(&Door::of(ap).resume(&id), &knock).then(|| Asked { id, rest: &first[len..] })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Computed by scripts/vectors/knock.py.
    // protocol: S31
    #[test]
    fn independently_computed() {
        let mut count = 0;
        for line in include_str!("../../vectors/knock.txt").lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<_> = line.split(' ').map(|field| hex::decode(field).unwrap()).collect();
            if let [key, id, knock] = &fields[..] {
                let (key, id) = (VerifyingKey(key[..].try_into().unwrap()), id[..].try_into().unwrap());
                assert_eq!(resume(&key, &id), knock[..]);
                count += 1;
                continue;
            }
            let [key, session, port, first, covered, knock] = &fields[..] else { panic!("{line}") };
            let key = VerifyingKey(key[..].try_into().unwrap());
            let port = u16::from_be_bytes(port[..].try_into().unwrap());
            let made = hello(&key, session[..].try_into().unwrap(), port, first);
            assert_eq!((&made.port[..], &made.knock[..]), (&covered[..], &knock[..]));
            assert_eq!(wanted(&key, &made, first), Some(port));
            count += 1;
        }
        assert_eq!(count, 4);
    }

    // protocol: S31
    #[test]
    fn who_lacks_the_key_does_not_even_ask() {
        let (key, id) = (VerifyingKey([7; 32]), [9; 16]);
        let mut first = Vec::new();
        Message::Resume { id, knock: resume(&key, &id) }.write(&mut first);
        first.extend_from_slice(b"rest");
        assert_eq!(asked(&key, &first), Some(Asked { id, rest: b"rest" }));
        assert_eq!(asked(&VerifyingKey([8; 32]), &first), None);
        for at in 3..first.len() - 4 {
            let mut changed = first.clone();
            changed[at] ^= 1;
            assert_eq!(asked(&key, &changed), None, "{at}");
        }
        assert_eq!(asked(&key, &first[..30]), None);
    }

    proptest! {
        #[test]
        fn nobody_is_let_in_who_lacks_the_key_or_changes_a_bit(
            session: [u8; 16], port: u16, first in prop::collection::vec(any::<u8>(), 1..100), bit in 0..34 * 8_usize, at: usize,
        ) {
            let key = VerifyingKey([7; 32]);
            let made = hello(&key, session, port, &first);
            prop_assert_eq!(wanted(&key, &made, &first), Some(port));
            prop_assert_eq!(wanted(&VerifyingKey([8; 32]), &made, &first), None);
            let mut all = [&made.session[..], &made.port, &made.knock].concat();
            all[bit / 8] ^= 1 << (bit % 8);
            let changed = Hello {
                session: all[..16].try_into().unwrap(),
                port: all[16..18].try_into().unwrap(),
                knock: all[18..].try_into().unwrap(),
            };
            prop_assert_eq!(wanted(&key, &changed, &first), None);
            let mut other = first.clone();
            other[at % first.len()] ^= 1;
            prop_assert_eq!(wanted(&key, &made, &other), None);
        }
    }
}
