//! Nodes in memory for the targets of path building: made once, since their keys cost milliseconds.

use std::sync::{Arc, OnceLock};

use phantom_proto::crypto::SigningKey;
use phantom_proto::crypto::dh::DhSecret;
use phantom_proto::crypto::kem::KemSecret;
use phantom_proto::path::{Candidate, Choice, Class, Hop, PathKeys, Persona, Plan, Spread};
use phantom_proto::wire::NodeContact;
use rand::CryptoRng;

use crate::{NOW, key, rng};

/// Nodes of the world; the first is the owner in targets that have one.
pub const NODES: u8 = 9;

struct Keys {
    dh: [u8; 32],
    kem: Vec<u8>,
    candidate: Candidate,
}

fn all() -> &'static [Keys] {
    static ALL: OnceLock<Vec<Keys>> = OnceLock::new();
    ALL.get_or_init(|| (0..NODES).map(|number| keys(&mut rng(number.into()), number)).collect())
}

fn keys(rng: &mut dyn CryptoRng, number: u8) -> Keys {
    let (dh, kem) = (DhSecret::generate(rng), KemSecret::generate());
    let contact = NodeContact {
        identity: key(number).verifying_key(),
        addr: ([10, number, 0, 1], 443).into(),
        link_secret: [number; 32],
    };
    let candidate = Candidate { contact, path_dh: dh.public(), path_kem: Arc::new(*kem.public()), weight: 1 };
    Keys { dh: *dh.to_bytes(), kem: kem.to_bytes().to_vec(), candidate }
}

/// What the node's record says.
pub fn candidate(number: u8) -> &'static Candidate {
    &all()[usize::from(number)].candidate
}

/// All nodes but `own`.
pub fn sample(own: u8) -> Vec<Candidate> {
    (0..NODES).filter(|number| *number != own).map(|number| candidate(number).clone()).collect()
}

/// The node's key pair for paths.
pub fn path_keys(number: u8) -> PathKeys {
    let keys = &all()[usize::from(number)];
    PathKeys { dh: DhSecret::from_bytes(&keys.dh), kem: KemSecret::from_bytes(&keys.kem).expect("its own bytes") }
}

/// A fresh hop with the node's keys.
pub fn hop(number: u8) -> Hop {
    Hop::new(identity(number).verifying_key(), [path_keys(number)])
}

/// The node's identity key.
pub fn identity(number: u8) -> &'static SigningKey {
    key(number)
}

/// A circle for a path of node 0 with two X-nodes.
pub fn a_plan(rng: &mut dyn CryptoRng) -> Plan {
    let mut choice = Choice::new(candidate(0).contact.clone(), Spread::Nodes);
    choice.sample(rng, NOW, sample(0));
    choice.plan(rng, NOW, Persona(0), Class::Out, 2, &|_| false).expect("enough nodes").0
}

/// The number of the node with this id.
pub fn number(id: phantom_proto::ident::NodeId) -> Option<u8> {
    (0..NODES).find(|number| candidate(*number).contact.node_id() == id)
}
