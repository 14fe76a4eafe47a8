//! The owner's view of one round: every slot's way round the circle, computed ahead and checked at the end.
//!
//! A track is the way of one slot. Node j's track holds its package up to node j, and node j's fill from there on.
//!
//! ```text
//!              node 0      node 1      node 2      home
//!  track 0     package     fill        fill'       fill''        ' = enciphered once more
//!  track 1     package₋₁   package     fill        fill'        ₋₁ = deciphered once
//!  track 2     package₋₂   package₋₁   package     fill
//!  track 3     closing₋₃   closing₋₂   closing₋₁   closing       the slot addressed to the owner itself
//!  others      random      random'     random''    random'''
//! ```
//!
//! Packages are made from the last node to the first, since the MAC in each covers those of the nodes behind it.

use std::array::from_fn;

use rand::CryptoRng;
use rand::seq::SliceRandom;

use super::array::ArrayKey;
use crate::crypto::Hash32;
use crate::crypto::hash::same;
use crate::wire::array::{REPLY_LEN, Reply, SLOT_LEN, SLOTS, Slot, empty};

/// Both arrays of one round.
pub struct Weave {
    keys: Vec<ArrayKey>,
    /// `stages[j]` is the setup array as node j receives it; the last one comes home.
    stages: Vec<Box<[Slot; SLOTS]>>,
    /// `places[j][track]` is the slot of a track at stage j.
    places: Vec<[usize; SLOTS]>,
    reply_index: [usize; SLOTS],
    replies: Box<[Reply; SLOTS]>,
}

/// What the owner keeps while a round is under way.
pub struct Expected {
    keys: Vec<ArrayKey>,
    setup: Box<[Slot; SLOTS]>,
    reply_index: [usize; SLOTS],
    /// The reply slots that no node answers in, as they must come home.
    unused: Box<[Reply; SLOTS]>,
}

impl Weave {
    /// Lays the tracks for the nodes with these keys, in the order of the circle. `replies` is the reply array that the
    /// first node gets, `reply_index[j]` the slot of node j's reply.
    ///
    /// # Panics
    /// When there are more than `SLOTS - 1` keys: plans are shorter.
    pub fn new(
        rng: &mut dyn CryptoRng,
        keys: Vec<ArrayKey>,
        reply_index: [usize; SLOTS],
        replies: Box<[Reply; SLOTS]>,
    ) -> Self {
        assert!(keys.len() < SLOTS, "one slot is the owner's");
        let mut first = from_fn(|index| index);
        first.shuffle(rng);
        Self::laid(rng, keys, first, reply_index, replies)
    }

    /// As [`Self::new`], with the tracks beginning in these slots.
    pub(super) fn laid(
        rng: &mut dyn CryptoRng,
        keys: Vec<ArrayKey>,
        first: [usize; SLOTS],
        reply_index: [usize; SLOTS],
        replies: Box<[Reply; SLOTS]>,
    ) -> Self {
        let mut places = vec![first];
        for key in &keys {
            let here = places[places.len() - 1];
            places.push(here.map(|slot| key.leaves_at(slot)));
        }
        let stages = (0..=keys.len()).map(|_| empty::<SLOT_LEN>()).collect();
        let mut weave = Self { keys, stages, places, reply_index, replies };
        weave.lay_tracks(rng);
        weave
    }

    fn lay_tracks(&mut self, rng: &mut dyn CryptoRng) {
        let home = self.keys.len();
        for track in 0..home {
            let slot = self.places[track + 1][track];
            self.stages[track + 1][slot] = *self.keys[track].fill();
            self.onward(track, track + 1);
        }
        for track in home + 1..SLOTS {
            rng.fill_bytes(&mut self.stages[0][self.places[0][track]]);
            self.onward(track, 0);
        }
    }

    /// Number of the stage at which the array comes home, and of the owner's own track.
    pub fn home(&self) -> usize {
        self.keys.len()
    }

    /// MAC of the setup array that node `stage` receives. The packages of all later stages must be in place.
    pub fn mac(&self, stage: usize) -> Hash32 {
        self.keys[stage].mac(&self.stages[stage])
    }

    /// The slot in which node `stage` puts its reply.
    pub fn reply_index(&self, stage: usize) -> usize {
        self.reply_index[stage]
    }

    /// Puts in place what stage `stage` shall find in its slot.
    pub fn put(&mut self, stage: usize, slot: &Slot) {
        let (track, mut slot) = (stage, *slot);
        self.stages[stage][self.places[stage][track]] = slot;
        for before in (0..stage).rev() {
            let place = self.places[before][track];
            self.keys[before].decipher_slot(place, &mut slot);
            self.stages[before][place] = slot;
        }
    }

    /// Enciphers a track from stage `from` to the end.
    fn onward(&mut self, track: usize, from: usize) {
        for stage in from..self.keys.len() {
            let place = self.places[stage][track];
            let mut slot = self.stages[stage][place];
            self.keys[stage].encipher_slot(place, &mut slot);
            self.stages[stage + 1][self.places[stage + 1][track]] = slot;
        }
    }

    /// The arrays for the first node, and what must come home.
    pub fn finish(mut self) -> (Box<[Slot; SLOTS]>, Box<[Reply; SLOTS]>, Expected) {
        let mut unused = empty::<REPLY_LEN>();
        for &index in &self.reply_index[self.keys.len()..] {
            unused[index] = self.replies[index];
            self.keys.iter().for_each(|key| key.encipher_reply(index, &mut unused[index]));
        }
        let first = std::mem::replace(&mut self.stages[0], empty());
        let setup = self.stages.swap_remove(self.keys.len());
        (first, self.replies, Expected { keys: self.keys, setup, reply_index: self.reply_index, unused })
    }
}

impl Expected {
    /// Whether the arrays came home as they must: the whole setup array, and every reply slot that nobody answers in.
    // protocol: Z3
    pub fn fits(&self, setup: &[Slot; SLOTS], replies: &[Reply; SLOTS]) -> bool {
        let unused = &self.reply_index[self.keys.len()..];
        same(self.setup.as_flattened(), setup.as_flattened())
            && unused.iter().all(|&index| same(&self.unused[index], &replies[index]))
    }

    /// The reply of node `stage`, stripped of what the nodes behind it did to it.
    pub fn reply(&self, stage: usize, replies: &[Reply; SLOTS]) -> Reply {
        let index = self.reply_index[stage];
        let mut reply = replies[index];
        self.keys[stage + 1..].iter().rev().for_each(|key| key.decipher_reply(index, &mut reply));
        reply
    }

    /// The slots of the replies: the same in both rounds.
    pub fn reply_index(&self) -> [usize; SLOTS] {
        self.reply_index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, RngExt, SeedableRng};
    use rand_chacha::ChaCha20Rng;

    /// Nodes that do what their key says find their package in its slot, and the arrays come home as expected.
    // protocol: Z3
    #[test]
    fn nodes_find_what_the_owner_wove() {
        for nodes in [5usize, 8, 11] {
            let mut rng = ChaCha20Rng::seed_from_u64(nodes as u64);
            let keys: Vec<Hash32> = (0..nodes).map(|_| rng.random()).collect();
            let mut replies = empty::<REPLY_LEN>();
            rng.fill_bytes(replies.as_flattened_mut());
            let expanded = keys.iter().map(ArrayKey::new).collect();
            let mut weave = Weave::new(&mut rng, expanded, from_fn(|index| (index + 3) % SLOTS), replies);
            let mut macs = vec![[0; 32]; nodes];
            weave.put(nodes, &[0xee; SLOT_LEN]);
            for stage in (0..nodes).rev() {
                macs[stage] = weave.mac(stage);
                weave.put(stage, &[stage as u8; SLOT_LEN]);
            }
            let (mut setup, mut replies, expected) = weave.finish();
            for (stage, key) in keys.iter().enumerate() {
                let key = ArrayKey::new(key);
                let own = setup.iter().position(|slot| *slot == [stage as u8; SLOT_LEN]).unwrap();
                setup[own] = [0; SLOT_LEN];
                assert_eq!(key.mac(&setup), macs[stage]);
                setup = key.pass_setup(own, &mut setup);
                key.pass_replies((stage + 3) % SLOTS, &[stage as u8; REPLY_LEN], &mut replies);
            }
            assert!(setup.contains(&[0xee; SLOT_LEN]), "the owner's own slot is there");
            assert!(expected.fits(&setup, &replies));
            for stage in 0..nodes {
                assert_eq!(expected.reply(stage, &replies), [stage as u8; REPLY_LEN]);
            }
        }
    }
}
