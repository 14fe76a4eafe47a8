//! What one node does to the two arrays, and how its owner undoes it beforehand (docs/protocol.md, section 4.4).
//!
//! ```text
//! setup    slot 0 ── encipher, tweak 0 ──┐ reorder        replies   slot 0 ── encipher, tweak 0 ──▶ slot 0
//!          own    ── replaced by fill ───┼────────▶                 own    ── replaced by the reply
//!          slot 2 ── encipher, tweak 2 ──┘                          slot 2 ── encipher, tweak 2 ──▶ slot 2
//! ```

use std::array::from_fn;

use zeroize::Zeroizing;

use crate::crypto::hash::derive_into;
use crate::crypto::noise::NoiseKeys;
use crate::crypto::wide::WideKey;
use crate::crypto::{Hash32, PathSecret, VerifyingKey, derive, keyed};
use crate::wire::array::{KEM_CT_LEN, Reply, SLOT_LEN, SLOTS, Slot, TAG_LEN, empty};

/// What a slot begins with, for its node to find it.
pub type Tag = [u8; TAG_LEN];

/// The key of one node's transformation in one round, expanded.
pub struct ArrayKey {
    wide: WideKey,
    mac: Zeroizing<Hash32>,
    fill: Box<Slot>,
    /// `order[new] = old`.
    order: [usize; SLOTS],
}

impl ArrayKey {
    /// Expands `key`.
    pub fn new(key: &Hash32) -> Self {
        let slots = Zeroizing::new(derive("phantom v1 array slots", &[key]));
        let mut fill = Box::new([0; SLOT_LEN]);
        derive_into("phantom v1 array fill", &[key], &mut fill[..]);
        let mac = Zeroizing::new(derive("phantom v1 array mac", &[key]));
        Self { wide: WideKey::new(&slots), mac, fill, order: order(key) }
    }

    /// MAC of the setup array as it arrives. The caller has zeroed the own slot.
    // protocol: P9
    pub fn mac(&self, setup: &[Slot; SLOTS]) -> Hash32 {
        keyed(&self.mac, &[setup.as_flattened()])
    }

    /// What takes the place of the own slot.
    pub fn fill(&self) -> &Slot {
        &self.fill
    }

    /// Where the slot that arrives at `index` leaves.
    pub fn leaves_at(&self, index: usize) -> usize {
        self.order.iter().position(|old| *old == index).unwrap_or(index)
    }

    /// A slot of the setup array on its way out.
    pub fn encipher_slot(&self, index: usize, slot: &mut Slot) {
        self.wide.encipher(&tweak(0, index), slot);
    }

    /// Inverse of [`Self::encipher_slot`].
    pub fn decipher_slot(&self, index: usize, slot: &mut Slot) {
        self.wide.decipher(&tweak(0, index), slot);
    }

    /// A slot of the reply array on its way out.
    pub fn encipher_reply(&self, index: usize, reply: &mut Reply) {
        self.wide.encipher(&tweak(1, index), reply);
    }

    /// Inverse of [`Self::encipher_reply`].
    pub fn decipher_reply(&self, index: usize, reply: &mut Reply) {
        self.wide.decipher(&tweak(1, index), reply);
    }

    /// The setup array as a node whose slot is `own` passes it on.
    // protocol: Z1, Z6
    pub fn pass_setup(&self, own: usize, setup: &mut [Slot; SLOTS]) -> Box<[Slot; SLOTS]> {
        for (index, slot) in setup.iter_mut().enumerate() {
            if index == own { slot.copy_from_slice(self.fill()) } else { self.encipher_slot(index, slot) }
        }
        let mut out = empty::<SLOT_LEN>();
        for (new, old) in self.order.iter().enumerate() {
            out[new] = setup[*old];
        }
        out
    }

    /// The reply array as a node with this reply passes it on.
    // protocol: Z2
    pub fn pass_replies(&self, own: usize, reply: &Reply, replies: &mut [Reply; SLOTS]) {
        for (index, slot) in replies.iter_mut().enumerate() {
            if index == own { slot.copy_from_slice(reply) } else { self.encipher_reply(index, slot) }
        }
    }
}

/// The order in which slots leave: Fisher-Yates over a stream from the key.
// protocol: Z1
fn order(key: &Hash32) -> [usize; SLOTS] {
    let mut stream = Zeroizing::new([0; 4 * (SLOTS - 1)]);
    derive_into("phantom v1 array order", &[key], &mut stream[..]);
    let (draws, _) = stream.as_chunks::<4>();
    let mut order = from_fn(|index| index);
    for (last, draw) in (1..SLOTS).rev().zip(draws) {
        order.swap(last, u32::from_be_bytes(*draw) as usize % (last + 1));
    }
    order
}

/// Tells the two arrays and their slots apart under one key.
fn tweak(array: u8, index: usize) -> [u8; 16] {
    let mut tweak = [0; 16];
    (tweak[0], tweak[15]) = (array, index as u8);
    tweak
}

/// The key under which a node's slots of round 1 are tagged. Public: it only keeps the test cheap.
pub fn slot_key(identity: &VerifyingKey, path_dh: &[u8; 32]) -> Hash32 {
    derive("phantom v1 slot key", &[&identity.0, path_dh])
}

/// The tag of a slot of round 1 with this ciphertext.
pub fn first_tag(slot_key: &Hash32, ct: &[u8; KEM_CT_LEN]) -> Tag {
    let mac = keyed(slot_key, &[ct]);
    from_fn(|index| mac[index])
}

/// What both sides bind the handshake of round 1 to.
pub fn prologue(node: &crate::ident::NodeId) -> [u8; 50] {
    let mut prologue = [0; 50];
    prologue[..18].copy_from_slice(b"phantom v1 round 1");
    prologue[18..].copy_from_slice(&node.0);
    prologue
}

/// What owner and node share after round 1.
// protocol: Q1
pub struct Shared {
    /// Seals the package of round 2.
    pub to_node: Zeroizing<Hash32>,
    /// Seals the reply of round 2.
    pub to_owner: Zeroizing<Hash32>,
    /// Keys the transformation of round 2.
    pub array_key: Zeroizing<Hash32>,
    /// Marks the node's slot in round 2.
    pub tag: Tag,
    /// The fruit of the build.
    pub path_secret: PathSecret,
}

impl Shared {
    /// Derives everything from the handshake's result.
    pub fn new(keys: &NoiseKeys) -> Self {
        let parts: [&[u8]; 2] = [&keys.to_responder[..], &keys.to_initiator[..]];
        let tag = derive("phantom v1 slot tag 2", &parts);
        Self {
            array_key: Zeroizing::new(derive("phantom v1 array key 2", &parts)),
            tag: from_fn(|index| tag[index]),
            path_secret: PathSecret(Zeroizing::new(derive("phantom v1 path secret", &parts))),
            to_node: keys.to_responder.clone(),
            to_owner: keys.to_initiator.clone(),
        }
    }
}
