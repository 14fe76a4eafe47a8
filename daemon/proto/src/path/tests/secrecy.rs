//! Invariant I4: whoever recorded a build and later steals every long-term key has no path secret and reads no round 2.

use super::*;
use crate::crypto::noise::Responder;
use crate::crypto::{CryptoError, aead, kem};
use crate::path::array::{Shared, first_tag, prologue, slot_key};
use crate::wire::array::{FIRST_REPLY_LEN, FirstPackage, KEM_CT_LEN, TAG_LEN, read_padded};

/// A world that keeps a copy of every node's path keys for the thief.
fn world_and_its_keys(seed: u64) -> (World, BTreeMap<NodeId, PathKeys>) {
    let mut world = World::new(seed, 10);
    let mut stolen = BTreeMap::new();
    for (id, node) in &mut world.nodes {
        let keys = PathKeys { dh: DhSecret::generate(&mut world.rng), kem: KemSecret::generate() };
        let copy = PathKeys {
            dh: DhSecret::from_bytes(keys.dh.to_bytes()),
            kem: KemSecret::from_bytes(&keys.kem.to_bytes()).unwrap(),
        };
        node.candidate = candidate(node.candidate.contact.clone(), &keys);
        node.hop.rotate([keys]);
        stolen.insert(*id, copy);
    }
    (world, stolen)
}

/// What the thief makes of a node's slot of round 1: the handshake as the node had it, up to its own answer.
fn reopen(keys: &PathKeys, node: &Candidate, frame: &ArrayFrame) -> (Responder, FirstPackage) {
    let slot_key = slot_key(&node.contact.identity, &node.path_dh);
    let fits = |slot: &&[u8; 2560]| first_tag(&slot_key, slot[TAG_LEN..].first_chunk().unwrap()) == slot[..TAG_LEN];
    let slot = frame.setup.iter().find(fits).unwrap();
    let (ct, message) = slot[TAG_LEN..].split_first_chunk::<KEM_CT_LEN>().unwrap();
    let secret = keys.kem.decapsulate(ct).unwrap();
    let prologue = prologue(&node.contact.node_id());
    let (handshake, payload) = Responder::read(&keys.dh, &prologue, &secret, message).unwrap();
    (handshake, read_padded(&payload).unwrap())
}

// protocol: Q1
#[test]
fn stolen_long_term_keys_give_no_path_secret_and_open_no_second_round() {
    let (mut world, stolen) = world_and_its_keys(40);
    let plan = world.plan(3);
    let mut recorded = [Vec::new(), Vec::new(), Vec::new()];
    let outcome = world.run(&plan, |round, _, frame| recorded[round].push(frame.clone())).unwrap();
    for (stage, placed) in plan.circle.iter().enumerate() {
        let id = placed.candidate.contact.node_id();
        let keys = &stolen[&id];
        let reopen = || reopen(keys, &placed.candidate, &recorded[1][stage]);
        // The thief reads round 1 of this node ...
        let (handshake, package) = reopen();
        assert_eq!(package.build_in, recorded[1][stage].build);
        // ... and even has the node's true reply, in the open on its way to the next node. What it lacks is the owner's
        // ephemeral keys and the node's; with its own, or with what the stolen keys make of the reply, it goes astray.
        let reply = &recorded[1][stage + 1].replies[usize::from(package.reply_index)];
        let (_, fresh) = kem::encapsulate(&package.ephemeral).unwrap();
        let decapsulated = keys.kem.decapsulate(reply.first_chunk().unwrap()).unwrap();
        let (other_handshake, _) = reopen();
        for (handshake, psk2) in [(handshake, fresh), (other_handshake, decapsulated)] {
            let (noise, _) = handshake.reply(&mut world.rng, &psk2, &[0; FIRST_REPLY_LEN]).unwrap();
            let guess = Shared::new(&noise);
            let told = outcome.hop_paths.get(&id);
            assert!(told.is_none_or(|told| told.secret.0 != guess.path_secret.0));
            for slot in recorded[2][stage].setup.iter() {
                assert_ne!(slot[..TAG_LEN], guess.tag);
                assert_eq!(aead::open(&guess.to_node, 0, &[], &slot[TAG_LEN..]), Err(CryptoError));
            }
        }
    }
}

/// Both halves of the hybrid count: each part of the handshake that the thief gets wrong gives other keys.
#[test]
fn a_node_answers_each_array_with_fresh_keys() {
    let (mut world, _) = world_and_its_keys(41);
    let plan = world.plan(2);
    let (_, send) = world.start(&plan);
    let first = plan.nodes()[0];
    let own = world.own.contact.node_id();
    let mut replies = Vec::new();
    // The same array to the same node, which has forgotten it in between as after a restart.
    for _ in 0..2 {
        let mut rng = world.rng.clone();
        let node = world.nodes.get_mut(&first).unwrap();
        let done = node.hop.handle(&mut world.rng, NOW, own, send.frame.clone()).unwrap();
        assert_ne!(rng.random::<u64>(), world.rng.clone().random::<u64>(), "the caller's randomness was used");
        replies.push(done.send.frame.replies);
        node.hop.expire(NOW + EXPIRES_MAX);
    }
    let fresh = replies[0].iter().zip(replies[1].iter()).filter(|(a, b)| a != b).count();
    assert_eq!(fresh, 1, "its own reply differs, all else is the transformation");
}
