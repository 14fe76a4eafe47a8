use crate::crypto::{SigningKey, VerifyingKey};
use crate::record::{Epoch, Extensions, PublicPathKeys};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

const NOW: u64 = 1_800_000_000;

fn record(number: u16, at: u64) -> NodeRecord {
    let mut seed = [9; 32];
    seed[..2].copy_from_slice(&number.to_be_bytes());
    let identity = SigningKey::from_seed(&seed).verifying_key();
    let contact = NodeContact { identity, addr: ([10, 0, 0, 1], 443).into(), link_secret: [0; 32] };
    let keys = PublicPathKeys { dh: [1; 32], kem: Arc::new([2; 1184]) };
    let epoch = Epoch::at(&contact.node_id(), at);
    NodeRecord { contact, epoch, revision: 0, keys: [keys.clone(), keys], extensions: Extensions::default() }
}

fn sample(count: u16) -> (Sample, StdRng) {
    let (mut sample, mut rng) = (Sample::new(Spread::Nodes), StdRng::seed_from_u64(1));
    for number in 0..count {
        assert!(sample.learn(&mut rng, NOW, record(number, NOW), vec![1]));
    }
    (sample, rng)
}

// protocol: J3, J4
#[test]
fn every_record_is_asked_for_before_its_keys_are_over_and_at_a_time_of_its_own() {
    let (mut sample, mut rng) = sample(100);
    let mut asked = BTreeMap::new();
    for now in (NOW..NOW + 2 * EPOCH).step_by(30) {
        sample.sweep(now);
        for id in sample.take_due(&mut rng, now, 8) {
            asked.entry(id).or_insert(now);
        }
    }
    sample.sweep(NOW + 2 * EPOCH);
    assert_eq!((asked.len(), sample.len()), (100, 0));
    for (id, first) in &asked {
        let (end, rest) = (Epoch::at(id, NOW).end(), RENEW_WITHIN + 600);
        assert!((end..end + rest).contains(first), "{first} is not soon after {end}");
    }
    let moments: BTreeSet<_> = asked.values().collect();
    assert!(moments.len() > 60, "they go in bursts: {}", moments.len());
}

// protocol: J3, J6
#[test]
fn who_has_no_newer_record_is_asked_again_and_one_that_came_is_kept() {
    let (mut sample, mut rng) = sample(1);
    let first = record(0, NOW);
    let end = first.epoch.end();
    let times: Vec<_> = (end..end + EPOCH).filter(|now| !sample.take_due(&mut rng, *now, 8).is_empty()).collect();
    assert!(times.len() > 10 && times.windows(2).all(|pair| pair[1] - pair[0] >= RENEW_AGAIN), "{times:?}");
    assert!(!sample.learn(&mut rng, NOW, first, vec![1]));
    assert!(sample.learn(&mut rng, NOW, record(0, end), vec![2]));
    sample.sweep(end + EPOCH);
    assert_eq!(sample.signed().map(|(_, bytes)| bytes.to_vec()).collect::<Vec<_>>(), [vec![2]]);
    sample.sweep(end + 2 * EPOCH);
    assert_eq!(sample.len(), 0, "a stale sample outlives its epoch");
}

// protocol: J3
#[test]
fn a_node_that_cannot_be_reached_is_tried_again_and_its_record_asked_for() {
    let (mut sample, mut rng) = sample(3);
    let id = record(1, NOW).contact.node_id();
    let begin = record(1, NOW).epoch.start();
    sample.unreachable(&mut rng, begin, id);
    sample.unreachable(&mut rng, begin, NodeId([0; 32]));
    assert_eq!(sample.silent().collect::<Vec<_>>(), [&id]);
    assert_eq!(sample.some_silent(&mut rng, 8), [record(1, NOW).contact]);
    let due: Vec<_> = (begin..begin + MOVED_WITHIN).flat_map(|now| sample.take_due(&mut rng, now, 8)).collect();
    assert!(due.contains(&id));
    sample.connected(begin + 7, &id);
    assert!(sample.some_silent(&mut rng, 8).is_empty());
    // A newer record does not make it forgotten.
    assert!(sample.learn(&mut rng, NOW, record(1, begin + EPOCH), vec![2]));
    assert_eq!(sample.seen().collect::<Vec<_>>(), [(id, begin + 7)]);
}

// protocol: J3
#[test]
fn the_record_of_a_node_that_says_that_it_is_elsewhere_is_asked_for() {
    let (mut sample, mut rng) = sample(2);
    let (here, begin) = (record(1, NOW).contact, record(1, NOW).epoch.start());
    let mut asked = |sample: &mut Sample| {
        let due: Vec<_> = (begin..begin + MOVED_WITHIN).flat_map(|now| sample.take_due(&mut rng, now, 8)).collect();
        due
    };
    let mut other = StdRng::seed_from_u64(2);
    sample.says(&mut other, begin, &here);
    assert_eq!(asked(&mut sample), []);
    let port = here.addr.port() ^ 1;
    sample.says(&mut other, begin, &NodeContact { addr: (here.addr.ip(), port).into(), ..here.clone() });
    assert_eq!(asked(&mut sample), [here.node_id()]);
}

fn id(number: u16) -> NodeId {
    record(number, NOW).contact.node_id()
}

fn knows(sample: &Sample, number: u16) -> bool {
    sample.records().any(|record| record.contact.node_id() == id(number))
}

/// A3: who is used for weeks is not lost with the rest of the sample, and is asked for when nothing is known of it.
// protocol: J5
#[test]
fn pinned_nodes_stay_and_are_asked_for_when_they_are_missing() {
    let (mut full, mut rng) = sample(SAMPLE as u16);
    full.pin([id(0), id(1), id(7000)].into());
    for number in 0..(4 * SAMPLE as u16) {
        enters(&mut full, &mut rng, 8000 + number);
    }
    assert!(knows(&full, 0) && knows(&full, 1) && full.len() == SAMPLE);
    let due = |sample: &mut Sample, rng: &mut StdRng| -> Vec<_> {
        (NOW..NOW + LAST_HOUR).flat_map(|now| sample.take_due(rng, now, 8)).collect()
    };
    let asked = due(&mut full, &mut rng);
    assert!(asked.contains(&id(7000)) && !asked.contains(&id(0)));
    assert!(full.learn(&mut rng, NOW, record(7000, NOW), vec![1]) && knows(&full, 7000));
    full.pin(BTreeSet::new());
    assert!(!due(&mut full, &mut rng).contains(&id(7000)), "who is not pinned any more is not asked for");
    assert!(full.held.is_empty() && !knows(&full, 0), "nothing is left of who was");
}

// protocol: J2, J11
#[test]
fn what_a_pinned_node_tells_of_itself_renews_what_is_known_of_it_and_nothing_else() {
    let (mut one, mut rng) = sample(2);
    let new = |number| record(number, record(number, NOW).epoch.end());
    assert!(!one.heard(record(5, NOW), vec![1]) && !knows(&one, 5), "nobody asked");
    assert!(!one.heard(new(0), vec![2]), "it is asked for anyway");
    one.pin([id(1), id(5)].into());
    let due = one.nodes[&id(1)].renew_at;
    assert!(one.heard(new(1), vec![3]) && one.nodes[&id(1)].renew_at == due, "and so is this one");
    assert!(one.heard(new(5), vec![4]) && knows(&one, 5) && !one.contains(&id(5)));
    assert!(!one.heard(record(5, NOW), vec![5]), "an old one");
    let all = one.signed().map(|(_, bytes)| bytes.to_vec()).collect::<BTreeSet<_>>();
    assert_eq!(all, [vec![1], vec![3], vec![4]].into());
    // A pinned node that tells its records is not asked for.
    let over = new(5).expires();
    let asked = (NOW..over - LAST_HOUR).step_by(30).any(|now| one.take_due(&mut rng, now, 8).contains(&id(5)));
    assert!(!asked);
}

/// A node that gave each neighbour keys of its own knew by the key who had built.
// protocol: J11
#[test]
fn keys_that_a_node_has_for_one_neighbour_alone_give_way_to_those_that_others_have() {
    let own = || PublicPathKeys { dh: [9; 32], kem: Arc::new([9; 1184]) };
    let (mut one, mut rng) = sample(1);
    one.pin([id(0), id(5)].into());
    let next = |number| record(number, record(number, NOW).epoch.end());
    let keys = |one: &Sample, number| one.of(&id(number)).unwrap().record.keys.clone().map(|keys| keys.dh);
    let known = keys(&one, 0);
    let changed = NodeRecord { revision: 1, keys: [own(), own()], ..record(0, NOW) };
    assert!(!one.heard(changed, vec![2]) && keys(&one, 0) == known, "of an epoch that is known");
    let mut told = next(0);
    told.keys[1] = own();
    assert!(one.heard(NodeRecord { revision: 1, ..told }, vec![3]), "of one that is not, nobody can say");
    assert!(one.learn(&mut rng, NOW, next(0), vec![4]) && keys(&one, 0) == next(0).keys.map(|keys| keys.dh));
    // The same beside the sample.
    assert!(one.heard(NodeRecord { keys: [own(), own()], ..record(5, NOW) }, vec![5]));
    one.learn(&mut rng, NOW, record(5, NOW), vec![6]);
    assert_eq!(keys(&one, 5), record(5, NOW).keys.map(|keys| keys.dh));
}

/// Until chance lets it in.
fn enters(sample: &mut Sample, rng: &mut StdRng, number: u16) -> usize {
    (1..).find(|_| sample.learn(rng, NOW, record(number, NOW), vec![1])).unwrap()
}

/// Those whom a node asks would see who its guards are: by name it asks for whom chance brings, pinned or not, and alike.
// protocol: J5
#[test]
fn who_is_pinned_does_not_show_by_what_is_asked_for() {
    // A quarter of them is in the sample, as of all.
    let (is_pin, mut counts) = (|number: usize| number.is_multiple_of(20), [0_usize, 0]);
    let (mut full, mut rng) = sample(SAMPLE as u16);
    let ids: Vec<_> = (0..2000).map(id).collect();
    full.pin(ids.iter().step_by(20).copied().collect());
    // 2000 nodes; a look-up meets 20 of them every 30 s, and asks for those that the sample does not have.
    for now in (NOW..NOW + 24 * 3600).step_by(30) {
        full.sweep(now);
        let met: Vec<_> = (0..20).map(|_| rng.random_range(0..ids.len())).collect();
        let due: BTreeSet<_> = full.take_due(&mut rng, now, 8).into_iter().collect();
        let due = (0..ids.len()).filter(|number| due.contains(&ids[*number]));
        for number in met.into_iter().filter(|number| !full.contains(&ids[*number])).chain(due).collect::<Vec<_>>() {
            counts[usize::from(is_pin(number))] += 1;
            full.learn(&mut rng, now, record(number as u16, now), vec![1]);
        }
    }
    let [others, pinned] = [counts[0] / 1900, counts[1] / 100];
    assert!(others > 10 && pinned.abs_diff(others) <= 3, "asked for {pinned} times a day, others {others} times");
    assert!((0..100).all(|number| knows(&full, 20 * number)));
}

/// Of a node that look-ups never meet the last chance is taken, at a time of its own.
// protocol: J10
#[test]
fn a_pinned_node_of_which_nothing_is_heard_is_asked_for_before_its_keys_are_over() {
    let (mut alone, mut rng) = sample(1);
    alone.pin([id(0)].into());
    // Others have pushed it out of the sample.
    alone.nodes.clear();
    let over = record(0, NOW).expires();
    let asked = (NOW..over).find(|now| alone.take_due(&mut rng, *now, 8).contains(&id(0)));
    assert!(asked.is_some_and(|at| (over - LAST_HOUR..over - 60).contains(&at)), "{asked:?}, over at {over}");
    assert!(knows(&alone, 0));
}

// protocol: J1
#[test]
fn a_full_sample_makes_room_at_random() {
    let (mut full, mut rng) = sample(SAMPLE as u16);
    let tries: usize = (0..100).map(|number| enters(&mut full, &mut rng, 1000 + number)).sum();
    assert!((7_000..13_000).contains(&tries), "one in {} enters", tries / 100);
    let first = (0..100).filter(|number| full.contains(&record(*number, NOW).contact.node_id())).count();
    assert!(full.len() == SAMPLE && (60..95).contains(&first), "{first} of the first hundred are left");
}

/// Above 512 nodes each round exchanged all whom it met: in ten minutes the whole sample, and the nodes near this one came back again
/// and again.
// protocol: J1, J2
#[test]
fn a_full_sample_is_stable_and_as_uniform_as_what_it_meets() {
    let (mut full, mut rng) = sample(SAMPLE as u16);
    let records: Vec<_> = (0..3000).map(|number| record(number, NOW)).collect();
    let ids: Vec<_> = records.iter().map(|record| record.contact.node_id()).collect();
    let first: BTreeSet<_> = ids[..SAMPLE].iter().copied().collect();
    let hour = |full: &mut Sample, rng: &mut StdRng, hour: u64| {
        for _ in 0..120 * 20 {
            let number = rng.random_range(0..records.len());
            if !full.contains(&ids[number]) {
                full.learn(rng, NOW + hour * 3600, records[number].clone(), vec![1]);
            }
        }
    };
    hour(&mut full, &mut rng, 1);
    let kept = first.iter().filter(|id| full.contains(id)).count();
    assert!((SAMPLE - 45..SAMPLE - 8).contains(&kept), "{kept} after an hour");
    (2..202).for_each(|number| hour(&mut full, &mut rng, number));
    // A week later it is another, and none has more of a chance than others.
    let kept = first.iter().filter(|id| full.contains(id)).count();
    let fair = SAMPLE * SAMPLE / 3000;
    assert!(kept.abs_diff(fair) < 40, "{kept} of the first, {fair} are their share");
}

static KEM: std::sync::LazyLock<Arc<[u8; 1184]>> = std::sync::LazyLock::new(|| Arc::new([2; 1184]));

/// A node in a network of this number.
fn in_network(number: u32, network: u16) -> NodeRecord {
    let mut identity = VerifyingKey([8; 32]);
    identity.0[..4].copy_from_slice(&number.to_be_bytes());
    let [a, b] = network.to_be_bytes();
    let contact = NodeContact { identity, addr: ([a, b, 0, 1], 443).into(), link_secret: [0; 32] };
    let epoch = Epoch::at(&contact.node_id(), NOW);
    let keys = PublicPathKeys { dh: [1; 32], kem: KEM.clone() };
    NodeRecord { contact, epoch, revision: 0, keys: [keys.clone(), keys], extensions: Extensions::default() }
}

const HONEST: u16 = 1000;

/// A sample full of honest nodes, each in a network of its own, as it was kept on disk.
fn honest(spread: Spread) -> (Sample, StdRng) {
    let (mut sample, mut rng) = (Sample::new(spread), StdRng::seed_from_u64(1));
    for number in 0..SAMPLE as u16 {
        sample.restore(&mut rng, in_network(number.into(), number), vec![1]);
    }
    (sample, rng)
}

/// How many hostile nodes are in a sample after so many hours in which so many of them were met in each, from that many networks.
fn flooded((mut sample, mut rng): (Sample, StdRng), hours: u64, met: u64, networks: u16) -> usize {
    let mut number = 100_000;
    for at in (0..hours * met).map(|one| NOW + one * 3600 / met) {
        number += 1;
        let hostile = in_network(number, HONEST + rng.random_range(0..networks));
        sample.learn(&mut rng, at, hostile, vec![2]);
    }
    sample.signed().filter(|(_, bytes)| *bytes == [2]).count()
}

/// Of 700 000 fake nodes nearly all lay in few networks; 35 of 36 nodes that a look-up met were such. Taken out: each node counts for itself.
// protocol: J15
#[test]
fn a_flood_from_few_networks_gets_their_share_and_no_more() {
    let a_day = |spread| flooded(honest(spread), 24, 120 * 20, 4);
    let (without, with) = (a_day(Spread::Nodes), a_day(Spread::Prefixes));
    assert!(without > SAMPLE / 3, "the attack works: {without}");
    assert!(with <= 4 * 8, "{with}");
}

/// From a thousand networks, and made to be looked up a hundred thousand times an hour. Taken out: a sample that begins to know nodes with
/// the flood.
// protocol: J14
#[test]
fn a_flood_from_many_networks_needs_days() {
    let (mut new, mut rng) = (Sample::new(Spread::Prefixes), StdRng::seed_from_u64(1));
    for number in 0..SAMPLE as u16 {
        new.learn(&mut rng, NOW, in_network(number.into(), number), vec![1]);
    }
    let without = flooded((new, rng), 1, 100_000, 1000);
    assert!(without > SAMPLE * 3 / 4, "the attack works: {without}");
    let with = flooded(honest(Spread::Prefixes), 1, 100_000, 1000);
    assert!((20..=SAMPLE / 20).contains(&with), "{with}");
    let ten = flooded(honest(Spread::Prefixes), 10, 10_000, 1000);
    assert!(ten <= 10 * SAMPLE / 20, "{ten} after ten hours");
}

/// Some of a network come and go all the same: none of them stands for it for ever.
// protocol: J15
#[test]
fn those_of_one_network_take_each_others_places() {
    let (mut sample, mut rng) = honest(Spread::Prefixes);
    let of_it = |sample: &Sample| {
        sample
            .records()
            .filter(|record| {
                Operator::of(Spread::Prefixes, record.contact.node_id(), record.contact.addr.ip())
                    == Operator::V4([0, 7])
            })
            .map(|record| record.contact.node_id())
            .collect::<BTreeSet<_>>()
    };
    let mut seen = BTreeSet::new();
    for number in 0..20_000 {
        sample.learn(&mut rng, NOW + u64::from(number) * 60, in_network(200_000 + number, 7), vec![1]);
        seen.extend(of_it(&sample));
        assert!(of_it(&sample).len() <= OF_OPERATOR && sample.len() == SAMPLE);
    }
    assert!(seen.len() > 100, "{}", seen.len());
}

/// Below that many all are welcome: a network that has one prefix alone is no flood.
// protocol: J2
#[test]
fn a_sparse_sample_takes_whom_it_can_get() {
    let (mut sample, mut rng) = (Sample::new(Spread::Prefixes), StdRng::seed_from_u64(1));
    assert!((0..SPARSE as u32).all(|number| sample.learn(&mut rng, NOW, in_network(number, 1), vec![1])));
}

const DAY: u64 = 24 * 3600;

/// A sample full of honest nodes, all reached a while before.
fn settled() -> (Sample, StdRng) {
    let (mut sample, rng) = honest(Spread::Prefixes);
    let contacts: Vec<_> = sample.records().map(|record| record.contact.clone()).collect();
    contacts.iter().for_each(|contact| sample.reached(NOW - 2 * DAY, contact));
    (sample, rng)
}

/// As many as may enter, from a thousand networks, every hour for four days, all of which answer: a flood that nobody tells from a network that grows.
/// Taken out: nobody's term counts.
// protocol: J17
#[test]
fn a_flood_that_lasts_gets_half_of_the_places_and_no_more() {
    let flooded = |defended: bool| {
        let (mut sample, mut rng) = settled();
        sample.settled *= usize::from(defended);
        let mut number = 100_000;
        for hour in 0..96 {
            let now = NOW + hour * 3600;
            for _ in 0..3000 {
                number += 1;
                let hostile = in_network(number, HONEST + rng.random_range(0..1000));
                sample.learn(&mut rng, now, hostile.clone(), vec![2]);
                sample.reached(now, &hostile.contact);
            }
        }
        sample.signed().filter(|(_, bytes)| *bytes == [2]).count()
    };
    let (without, with) = (flooded(false), flooded(true));
    assert!(without > SAMPLE * 9 / 10, "the attack works: {without}");
    assert!(with <= SAMPLE / 2 && with > SAMPLE / 3, "the others change: {with}");
}

/// Whoever has settled goes when it does not answer, and has its place again when it is back within a month, whatever else comes.
// protocol: J17
#[test]
fn who_has_settled_makes_room_when_it_is_silent_and_comes_back() {
    let (mut sample, mut rng) = settled();
    let first: Vec<_> = sample.records().cloned().collect();
    first.iter().for_each(|record| sample.unreachable(&mut rng, NOW, record.contact.node_id()));
    let mut number = 100_000;
    let mut flood = |sample: &mut Sample, rng: &mut StdRng, hours: std::ops::Range<u64>| {
        for hour in hours {
            for _ in 0..3000 {
                number += 1;
                let one = in_network(number, HONEST + rng.random_range(0..1000));
                sample.learn(rng, NOW + hour * 3600, one, vec![2]);
            }
        }
    };
    let left = |sample: &Sample| first.iter().filter(|record| sample.contains(&record.contact.node_id())).count();
    flood(&mut sample, &mut rng, 0..120);
    assert!(left(&sample) < 10, "{} of the silent are left", left(&sample));
    // Back, each met once, in a sample in which nobody has settled: half of the places are theirs, and no chance keeps them out.
    let now = NOW + 20 * DAY;
    for record in &first {
        sample.learn(&mut rng, now, NodeRecord::clone(record), vec![1]);
    }
    assert!((SAMPLE / 2..SAMPLE / 2 + 10).contains(&left(&sample)), "{}", left(&sample));
    // After a month of absence they are newcomers as others are.
    let (mut late, mut rng) = settled();
    late.nodes.clear();
    (0..SAMPLE as u32)
        .for_each(|number| late.restore(&mut rng, in_network(300_000 + number, HONEST + number as u16), vec![2]));
    late.sweep(NOW - 2 * DAY);
    assert!(late.returns(NOW + 20 * DAY, &first[0].contact.node_id()));
    late.terms.sweep(NOW + 28 * DAY);
    assert!(!late.returns(NOW + 28 * DAY, &first[0].contact.node_id()));
}

/// A link from somewhere, or to where somebody else says that a node is, is not its term.
// protocol: J17
#[test]
fn a_term_begins_where_the_node_says_itself_that_it_is() {
    let (mut one, _) = sample(2);
    let at = record(0, NOW).contact;
    one.connected(NOW, &id(0));
    one.reached(NOW, &NodeContact { addr: ([10, 9, 9, 9], 443).into(), ..at.clone() });
    one.reached(NOW, &record(7, NOW).contact);
    assert_eq!(one.terms().count(), 0);
    one.reached(NOW, &at);
    assert_eq!(one.terms().map(|(id, _)| id).collect::<Vec<_>>(), [id(0)]);
}
