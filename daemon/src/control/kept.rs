//! What the next process goes on with, when the daemon is started anew in place: open identities and conversations with programs.
//!
//! A conversation is what was said on it: whatever lasts as long as it does is asked for again there, in the same order.

use phantom_ipc::hook::IdentityRef;
use serde::{Deserialize, Serialize};

use super::here::Grave;
use super::{Descriptor, Owner, Which};
use crate::identity::Whose;

/// All of it. Secrets are in it: it goes through memory alone.
#[derive(Default)]
pub struct KeptPrograms {
    pub(super) spaces: Vec<KeptSpace>,
    pub(super) conversations: Vec<KeptConversation>,
}

/// An open identity.
pub(super) struct KeptSpace {
    pub(super) which: Which,
    pub(super) seed: zeroize::Zeroizing<[u8; 32]>,
    pub(super) name: Option<(Whose, String)>,
    pub(super) owner: Owner,
    pub(super) left: Left,
}

/// What a space needs to go on, as it says itself.
pub struct Left {
    /// In its own form.
    pub state: Vec<u8>,
    /// In its own order.
    pub descriptors: Vec<Descriptor>,
}

/// A conversation.
pub(super) struct KeptConversation {
    pub(super) peer: Owner,
    pub(super) only: Option<IdentityRef>,
    /// Identities without which it is nothing.
    pub(super) concerns: Vec<Which>,
    /// Requests whose effect lasts, with the descriptor that came beside one.
    pub(super) said: Vec<Said>,
    /// Whether it has begun.
    pub(super) is_begun: bool,
    /// What came after them and was not answered.
    pub(super) unread: Vec<u8>,
    /// Of a stranger, perhaps: closed by nobody here, whatever becomes of it.
    pub(super) socket: Grave,
}

pub(super) struct Said {
    pub(super) body: Vec<u8>,
    pub(super) beside: Option<Grave>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    spaces: Vec<WrittenSpace>,
    conversations: Vec<WrittenConversation>,
}

#[derive(Serialize, Deserialize)]
struct WrittenSpace {
    which: Which,
    seed: [u8; 32],
    name: Option<(Whose, String)>,
    owner: Owner,
    state: Vec<u8>,
    descriptors: usize,
}

#[derive(Serialize, Deserialize)]
struct WrittenConversation {
    peer: Owner,
    only: Option<IdentityRef>,
    is_begun: bool,
    said: Vec<(Vec<u8>, bool)>,
    unread: Vec<u8>,
}

impl KeptPrograms {
    /// As bytes, and descriptors in the order in which [`KeptPrograms::read`] wants them.
    ///
    /// # Errors
    /// When memory is short.
    pub fn write(self) -> Result<(zeroize::Zeroizing<Vec<u8>>, Vec<Descriptor>), postcard::Error> {
        let (mut written, mut descriptors) = (Written { spaces: Vec::new(), conversations: Vec::new() }, Vec::new());
        for KeptSpace { which, seed, name, owner, left } in self.spaces {
            let count = left.descriptors.len();
            descriptors.extend(left.descriptors);
            written.spaces.push(WrittenSpace {
                which,
                seed: *seed,
                name,
                owner,
                state: left.state,
                descriptors: count,
            });
        }
        for KeptConversation { peer, only, is_begun, said, unread, socket, .. } in self.conversations {
            descriptors.extend(socket.take());
            let mut bodies = Vec::new();
            for Said { body, beside } in said {
                bodies.push((body, beside.is_some()));
                descriptors.extend(beside.and_then(Grave::take));
            }
            written.conversations.push(WrittenConversation { peer, only, is_begun, said: bodies, unread });
        }
        Ok((zeroize::Zeroizing::new(postcard::to_allocvec(&written)?), descriptors))
    }

    /// What [`KeptPrograms::write`] wrote. `None`: it is not whole.
    pub fn read(bytes: &[u8], descriptors: &mut impl Iterator<Item = Descriptor>) -> Option<Self> {
        let written: Written = postcard::from_bytes(bytes).ok()?;
        let mut kept = Self::default();
        for WrittenSpace { which, seed, name, owner, state, descriptors: count } in written.spaces {
            let descriptors: Vec<_> = descriptors.by_ref().take(count).collect();
            if descriptors.len() < count {
                return None;
            }
            let seed = zeroize::Zeroizing::new(seed);
            kept.spaces.push(KeptSpace { which, seed, name, owner, left: Left { state, descriptors } });
        }
        for WrittenConversation { peer, only, is_begun, said: bodies, unread } in written.conversations {
            let mut next = || Some(Grave::for_any(peer.uid, descriptors.next()?));
            let socket = next()?;
            let mut said = Vec::new();
            for (body, has_beside) in bodies {
                let beside = if has_beside { Some(next()?) } else { None };
                said.push(Said { body, beside });
            }
            kept.conversations.push(KeptConversation {
                peer,
                only,
                concerns: Vec::new(),
                is_begun,
                said,
                unread,
                socket,
            });
        }
        Some(kept)
    }
}

impl KeptConversation {
    /// Whether all that it is about outlives the process.
    pub(super) fn fits(&self, kept: &[KeptSpace]) -> bool {
        self.concerns.iter().all(|which| kept.iter().any(|space| space.which == *which))
    }
}
