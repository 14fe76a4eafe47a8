//! What a hop makes of packages, and a whole build as scripts/vectors/build.py computes it from docs/protocol.md.

use std::array::from_fn;
use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::crypto::kem::KemSecret;
use crate::crypto::noise::Initiator;
use crate::ident::PathId;
use crate::path::handle;
use crate::path::weave::Weave;
use crate::wire::Wire;
use crate::wire::array::{FIRST_LEN, empty, write_padded};

const NOW: u64 = 1_800_000_000;

// protocol: Q7
#[test]
fn a_path_lives_no_longer_than_it_may() {
    let addr = ([10, 0, 0, 1], 443).into();
    let contact = NodeContact { identity: VerifyingKey([1; 32]), addr, link_secret: [2; 32] };
    let taken = |until| {
        let side = Segment { neighbour: contact.clone(), path: PathId([3; 16]), dial: true };
        take_orders(NOW, Orders::Terminate { until, side }, &PathSecret(Zeroizing::new([4; 32]))).is_ok()
    };
    let longest = NOW + 24 * 3600 + 10 * 60 + 300;
    assert_eq!([NOW, NOW + 1, longest, longest + 1, u64::MAX].map(taken), [false, true, true, false, false]);
}

/// Gives one string of bytes out, and nothing after it.
struct Given(VecDeque<u8>);

impl rand::TryRng for Given {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        unreachable!("slots and keys are filled at once")
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        unreachable!("slots and keys are filled at once")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        out.iter_mut().for_each(|byte| *byte = self.0.pop_front().unwrap());
        Ok(())
    }
}

impl rand::TryCryptoRng for Given {}

fn stream(text: &str, out: &mut [u8]) {
    blake3::Hasher::new().update(text.as_bytes()).finalize_xof().fill(out);
}

/// Lines of name, place, value.
struct Vectors(BTreeMap<(String, String), Vec<u8>>);

impl Vectors {
    fn read() -> Self {
        let lines = include_str!("../../../vectors/build.txt").lines().filter(|line| !line.starts_with('#'));
        let fields = lines.map(|line| {
            let [name, place, value] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            ((name.to_owned(), place.to_owned()), hex::decode(value).unwrap())
        });
        Self(fields.collect())
    }

    fn at(&self, name: &str, place: impl ToString) -> &[u8] {
        &self.0[&(name.to_owned(), place.to_string())]
    }

    fn fixed<const LEN: usize>(&self, name: &str, place: impl ToString) -> [u8; LEN] {
        self.at(name, place).try_into().unwrap()
    }

    fn contact(&self, place: usize) -> NodeContact {
        NodeContact::from_bytes(self.at("contact", place)).unwrap()
    }

    fn assert_arrays(&self, round: &str, place: usize, setup: &[Slot; SLOTS], replies: &[Reply; SLOTS]) {
        let hash = |bytes: &[u8]| blake3::hash(bytes).as_bytes().to_vec();
        assert_eq!(hash(setup.as_flattened()), self.at(&format!("{round}-setup"), place), "{round} {place}");
        assert_eq!(hash(replies.as_flattened()), self.at(&format!("{round}-replies"), place), "{round} {place}");
    }

    /// The arrays that leave the owner, laid by its own code over the slots that the vectors name.
    fn weave(&self, round: u8, keys: Vec<ArrayKey>, closing: &Slot, replies: Box<[Reply; SLOTS]>) -> Weave {
        let mut noise = vec![0; 6 * SLOT_LEN];
        for (slot, track) in noise.chunks_mut(SLOT_LEN).zip(6..) {
            stream(&format!("noise {round} {track}"), slot);
        }
        let places = |name| -> [usize; SLOTS] { self.fixed::<SLOTS>(name, "-").map(usize::from) };
        let mut weave =
            Weave::laid(&mut Given(noise.into()), keys, places("first-slots"), places("reply-slots"), replies);
        weave.put(weave.home(), closing);
        weave
    }
}

fn noise_replies(round: u8) -> Box<[Reply; SLOTS]> {
    let mut replies = empty::<REPLY_LEN>();
    for (index, reply) in replies.iter_mut().enumerate() {
        stream(&format!("reply noise {round} {index}"), reply);
    }
    replies
}

/// A node's keys. The library makes none of d and z: the vectors give the keys that these make.
fn path_keys(vectors: &Vectors, place: usize) -> PathKeys {
    PathKeys {
        dh: DhSecret::from_bytes(&vectors.fixed("path-dh-secret", place)),
        kem: KemSecret::from_bytes(vectors.at("path-kem-key", place)).unwrap(),
    }
}

/// One node's part in both rounds: its package opens, it answers as the owner understands, and its path is what the owner planned.
// protocol: P1, P5, P9, P10, P11, P15, Q1, Q2, Q3, Q5, Q6, Z1, Z2, Z3
#[test]
fn a_whole_build_is_as_it_was_computed_independently() {
    let vectors = Vectors::read();
    let identities: Vec<_> = (0..6).map(|place| VerifyingKey(vectors.fixed("identity-key", place))).collect();
    let mut replies = noise_replies(1);
    let reply_slots = vectors.fixed::<SLOTS>("reply-slots", "-").map(usize::from);
    replies[reply_slots[5]] = vectors.fixed("made-up-reply", "-");
    let array_keys = || (0..5).map(|place| ArrayKey::new(&vectors.fixed("array-key", place))).collect();
    let mut weave = vectors.weave(1, array_keys(), &vectors.fixed("closing-package", "-"), replies);
    let mut asked = Vec::new();
    for place in (0..5).rev() {
        let payload = vectors.at("first-payload", place);
        let package = FirstPackage::from_bytes(payload).unwrap();
        assert_eq!((package.to_bytes(), package.array_mac), (payload.to_vec(), weave.mac(place)));
        assert_eq!(package.previous, NodeId::of(&identities[if place == 0 { 5 } else { place - 1 }]));
        assert_eq!(
            (package.next, package.build_out.0),
            (vectors.contact(place + 1), vectors.fixed("build-id", place + 1))
        );
        let slot: Slot = vectors.fixed("first-package", place);
        asked.push((place, seal(&vectors, &identities[place], place, &slot, payload)));
        weave.put(place, &slot);
    }
    asked.reverse();
    let (mut setup, mut replies, expected) = weave.finish();
    for (place, identity) in identities.iter().enumerate().take(5) {
        vectors.assert_arrays("first", place, &setup, &replies);
        let keyed = [Keyed::new(identity, path_keys(&vectors, place))];
        let frame = ArrayFrame { build: BuildId(vectors.fixed("build-id", place)), setup, replies };
        let (own, keyed) = find_first(&keyed, &frame).unwrap();
        let opened = open_first(identity, &keyed.keys, &frame.setup[own]).unwrap();
        assert_eq!(opened.package.to_bytes(), vectors.at("first-payload", place));
        let (key, index) = (ArrayKey::new(&opened.package.array_key), usize::from(opened.package.reply_index));
        let reply = vectors.fixed("first-reply", place);
        let sent = pass_on(&key, own, index, &reply, frame, opened.package.build_out, opened.package.next);
        (setup, replies) = (sent.frame.setup, sent.frame.replies);
    }
    vectors.assert_arrays("first", 5, &setup, &replies);
    assert!(expected.fits(&setup, &replies));
    let shared = |(place, asked): (usize, Initiator)| {
        let reply = expected.reply(place, &replies);
        let (ct, message) = reply.split_first_chunk().unwrap();
        let secret = KemSecret::from_bytes(vectors.at("reply-kem-key", place)).unwrap().decapsulate(ct).unwrap();
        let (keys, payload) = asked.finish(&secret, message).unwrap();
        assert_eq!(payload, [0; FIRST_REPLY_LEN]);
        assert_eq!(keys.to_responder[..], *vectors.at("to-responder", place));
        assert_eq!(keys.to_initiator[..], *vectors.at("to-initiator", place));
        Shared::new(&keys)
    };
    second_round_of(&vectors, asked.into_iter().map(shared).collect());
}

/// The owner's side of one package: what it sends is the vector's slot. Returns the handshake that the reply ends.
fn seal(vectors: &Vectors, identity: &VerifyingKey, place: usize, slot: &Slot, payload: &[u8]) -> Initiator {
    let keys = path_keys(vectors, place);
    let (tag, rest) = slot.split_at(TAG_LEN);
    let (ct, sent) = rest.split_first_chunk().unwrap();
    assert_eq!(first_tag(&slot_key(identity, &keys.dh.public()), ct), *tag);
    let secret = keys.kem.decapsulate(ct).unwrap();
    let mut ephemeral = Given(vectors.at("package-dh-ephemeral", place).to_vec().into());
    let padded = write_padded(&FirstPackage::from_bytes(payload).unwrap(), FIRST_LEN).unwrap();
    let prologue = prologue(&NodeId::of(identity));
    let (asked, message) = Initiator::start(&mut ephemeral, &keys.dh.public(), &prologue, &secret, &padded).unwrap();
    assert_eq!(message, sent);
    asked
}

fn second_round_of(vectors: &Vectors, shared: Vec<Shared>) {
    let mut closing = [0; SLOT_LEN];
    stream("noise 2 5", &mut closing);
    let keys = shared.iter().map(|shared| ArrayKey::new(&shared.array_key)).collect();
    let mut weave = vectors.weave(2, keys, &closing, noise_replies(2));
    for place in (0..5).rev() {
        let payload = vectors.at("second-payload", place);
        let package = SecondPackage::from_bytes(payload).unwrap();
        assert_eq!((package.to_bytes(), package.array_mac), (payload.to_vec(), weave.mac(place)));
        weave.put(place, &vectors.fixed("second-package", place));
    }
    let (mut setup, mut replies, expected) = weave.finish();
    let reply_slots = vectors.fixed::<SLOTS>("reply-slots", "-").map(usize::from);
    let mut paths = Vec::new();
    for (place, shared) in shared.into_iter().enumerate() {
        vectors.assert_arrays("second", place, &setup, &replies);
        assert_eq!(shared.path_secret.0[..], *vectors.at("path-secret", place));
        let frame = ArrayFrame { build: BuildId(vectors.fixed("build-id", place)), setup, replies };
        let build_out = BuildId(vectors.fixed("build-id", place + 1));
        let next = vectors.contact(place + 1);
        let pending =
            Pending { expires: NOW + 60, reply_index: reply_slots[place], build_out, next: next.clone(), shared };
        let done = second_round(NOW, pending, frame).unwrap();
        assert_eq!((&done.send.to, done.send.frame.build), (&next, build_out));
        paths.push(done.path);
        (setup, replies) = (done.send.frame.setup, done.send.frame.replies);
    }
    vectors.assert_arrays("second", 5, &setup, &replies);
    assert!(expected.fits(&setup, &replies));
    for place in 0..5 {
        assert_eq!(expected.reply(place, &replies)[..], *vectors.at("second-reply", place));
    }
    let [None, Some(nearest), None, Some(end), None] = &paths[..] else { panic!("not the roles that were planned") };
    let (Sides::Middle(sides), Sides::End(side)) = (&nearest.sides, &end.sides) else { panic!("not their sides") };
    let neighbours: [_; 2] = from_fn(|index| sides[index].neighbour.clone());
    assert_eq!((neighbours, side.neighbour.clone()), ([vectors.contact(3), vectors.contact(5)], vectors.contact(1)));
    assert_eq!((sides[0].path, sides[0].dial, side.dial), (side.path, true, false));
    assert_eq!((nearest.until, end.until), (NOW + 3600, NOW + 3700));
    assert_eq!(handle(&end.secret), vectors.fixed("handle", 3));
}
