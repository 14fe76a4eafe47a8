//! What a flood of nodes, all of which answer, gets of the sample of which paths are made.

use std::sync::Arc;

use phantom_proto::crypto::VerifyingKey;
use phantom_proto::ident::Spread;
use phantom_proto::netdb::{SAMPLE, Sample};
use phantom_proto::record::{Epoch, Extensions, NodeRecord, PublicPathKeys};
use phantom_proto::wire::NodeContact;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::world::NOW;
use super::{Scale, point};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// What a node meets in an hour, 35 of 36 of them hostile: five times what its own look-ups find, since hostile ones see to it.
const MET: u64 = 12_000;

/// What is taken out.
#[derive(Clone, Copy, PartialEq)]
enum Out {
    /// Whoever is met enters, as chance says: how many in an hour does not matter.
    Newcomers,
    /// Nobody has settled.
    Terms,
    Nothing,
}

/// Whose sample it is.
#[derive(Clone, Copy, PartialEq)]
enum Owner {
    /// It was there before.
    Old,
    /// It starts in the flood, and knows one honest node.
    New,
}

fn in_network(rng: &mut ChaCha12Rng, network: u16, kem: &Arc<[u8; 1184]>) -> NodeRecord {
    let [a, b] = network.to_be_bytes();
    let contact =
        NodeContact { identity: VerifyingKey(rng.random()), addr: ([a, b, 0, 1], 443).into(), link_secret: [0; 32] };
    let keys = PublicPathKeys { dh: [1; 32], kem: kem.clone() };
    let epoch = Epoch::at(&contact.node_id(), NOW);
    NodeRecord { contact, epoch, revision: 0, keys: [keys.clone(), keys], extensions: Extensions::default() }
}

/// The hostile share of the sample, by hours.
pub(crate) fn flooded(scale: Scale) {
    let hours = if scale.nodes < 1000 { 1 } else { 48 };
    for (line, owner, out, networks) in [
        ("no bound on newcomers", Owner::Old, Out::Newcomers, 4000),
        ("nobody has settled", Owner::Old, Out::Terms, 4000),
        ("all rules", Owner::Old, Out::Nothing, 4000),
        ("all rules; 4 networks", Owner::Old, Out::Nothing, 4),
        ("all rules; a new node", Owner::New, Out::Nothing, 4000),
        ("all rules; a new node; 4 networks", Owner::New, Out::Nothing, 4),
    ] {
        play(scale, line, hours, (owner, out, networks));
    }
}

fn play(scale: Scale, line: &str, hours: u64, (owner, out, networks): (Owner, Out, u16)) {
    let (mut rng, kem) = (ChaCha12Rng::seed_from_u64(scale.seed), Arc::new([2; 1184]));
    let honest: Vec<_> = (0..scale.nodes as u16).map(|number| in_network(&mut rng, 20_000 + number, &kem)).collect();
    let mut sample = Sample::new(Spread::Prefixes);
    let known = if owner == Owner::Old { SAMPLE.min(honest.len()) } else { 1 };
    for record in &honest[..known] {
        sample.restore(&mut rng, record.clone(), vec![1]);
        if out == Out::Nothing {
            sample.reached(NOW - 2 * DAY, &record.contact);
        }
    }
    for hour in 0..=hours {
        let hostile = sample.signed().filter(|(_, bytes)| *bytes == [2]).count();
        point("sample", line, hour as usize, hostile, sample.len().max(1));
        for meeting in 0..MET {
            let at = match out {
                // An hour of its own for each.
                Out::Newcomers => NOW + (hour * MET + meeting) * HOUR,
                Out::Terms | Out::Nothing => NOW + hour * HOUR + meeting * HOUR / MET,
            };
            let (record, bytes) = match rng.random_ratio(35, 36) {
                true => (in_network(&mut rng, rng_network(meeting, hour, networks), &kem), vec![2]),
                false => (honest[rng.random_range(0..honest.len())].clone(), vec![1]),
            };
            let contact = record.contact.clone();
            if !sample.contains(&contact.node_id()) && sample.learn(&mut rng, at, record, bytes) && out == Out::Nothing
            {
                sample.reached(at, &contact);
            }
        }
    }
}

/// Any of so many.
fn rng_network(meeting: u64, hour: u64, networks: u16) -> u16 {
    ((meeting * 7919 + hour * 104_729) % u64::from(networks)) as u16
}
