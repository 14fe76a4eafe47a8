//! What maintainers' bans do to a node's own paths and plans.

use std::collections::BTreeSet;

use super::owner::{address, build, owner};
use super::*;
use crate::command::{Action, Bans, Command, Target};
use crate::path::Class;

fn bans(targets: impl IntoIterator<Item = Target>) -> Arc<Bans> {
    let actions = targets.into_iter().map(Action::Ban).collect();
    let command = Command { serial: 1, predecessor: [0; 32], issued: 1, expires: u64::MAX, actions };
    Arc::new(Bans::of(NOW / 1000, &BTreeSet::new(), [(NOW / 1000, &command)]))
}

fn hop(node: &Node, path: PathNo) -> NodeContact {
    node.paths[&path].owned().unwrap().hops[0].clone()
}

/// Of both ways to be banned, and at a time of the path's own.
// protocol: M16
#[test]
fn an_own_path_over_a_banned_node_ends_and_others_stay() {
    for by_address in [false, true] {
        let mut node = owner(1, Settings::default());
        node.handle(NOW, Input::WantExit(address(7)));
        let persona = *node.personas.keys().next().unwrap();
        let (one, other) = (build(&mut node, NOW, persona, Class::Out), build(&mut node, NOW, persona, Class::Out));
        let hop = hop(&node, one);
        let target = match hop.addr.ip() {
            std::net::IpAddr::V4(v4) if by_address => Target::Range(format!("{v4}/32").parse().unwrap()),
            _ => Target::Node(hop.node_id()),
        };
        node.handle(NOW, Input::Bans(bans([target])));
        let until = node.paths[&one].until;
        assert!(until > NOW && until < NOW + 600_000, "not at the moment of the command: {until}");
        node.tick(until + 1);
        assert!(!node.paths.contains_key(&one) && node.paths.contains_key(&other));
    }
}

// protocol: M16
#[test]
fn nobody_banned_is_taken_from_the_sample() {
    let mut node = owner(2, Settings::hurried());
    let sample: Vec<_> = (2..40).map(candidate).collect();
    let out: Vec<_> = (2..6).map(neighbour).collect();
    node.handle(NOW, Input::Bans(bans(out.iter().map(|contact| Target::Node(contact.node_id())))));
    node.handle(NOW, Input::Sample(sample.clone()));
    node.handle(NOW + 5_000, Input::Sample(sample));
    assert!(node.choice.contacts().count() > 0);
    assert!(node.choice.contacts().all(|contact| !out.contains(contact)));
}

fn candidate(number: u8) -> Candidate {
    Candidate { contact: neighbour(number), path_dh: [0; 32], path_kem: Arc::new([0; 1184]), weight: 1 }
}
