use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::crypto::SigningKey;
use crate::ident::NodeId;
use crate::netdb::node_key;
use crate::record::{ApRecord, STEP};
use crate::wire::NodeContact;

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 24 * 3600;

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(&[number; 32])
}

/// Two of three.
fn keys() -> KeySet {
    KeySet::new(2, (1..=3).map(|number| key(number).verifying_key()).collect()).unwrap()
}

fn command(serial: u64, predecessor: Hash32, actions: Vec<Action>) -> Command {
    Command { serial, predecessor, issued: NOW, expires: NOW + LIFE_MAX, actions }
}

fn signed(command: &Command, signers: &[u8]) -> Vec<u8> {
    let mut bundle = Bundle::new(command.clone());
    for number in signers {
        assert!(bundle.sign(&keys(), &key(*number)));
    }
    bundle.signed(&keys()).unwrap().to_bytes()
}

fn range(text: &str) -> Range {
    text.parse().unwrap()
}

fn ban_range(text: &str) -> Action {
    Action::Ban(Target::Range(range(text)))
}

fn ban_node(number: u8) -> Action {
    Action::Ban(Target::Node(contact(number).node_id()))
}

fn contact(number: u8) -> NodeContact {
    let addr = ([10, number, 0, 1], 443).into();
    NodeContact { identity: key(number).verifying_key(), addr, link_secret: [0; 32] }
}

fn none() -> BTreeSet<Kind> {
    BTreeSet::new()
}

/// So many commands that follow each other, each signed by two.
fn chain(actions: impl IntoIterator<Item = Action>) -> Vec<Command> {
    let mut before = keys().root();
    let link = |(at, action): (usize, Action)| {
        let command = command(at as u64 + 1, before, vec![action]);
        before = command.id();
        command
    };
    actions.into_iter().enumerate().map(link).collect()
}

fn log(commands: &[Command]) -> Log {
    let mut log = Log::new(keys());
    for command in commands {
        log.take(NOW, &signed(command, &[1, 2]), &none(), &[]).unwrap();
    }
    log
}

fn vector(name: &str) -> Vec<u8> {
    let lines = include_str!("../../vectors/command.txt").lines();
    hex::decode(lines.filter_map(|line| line.split_once(' ')).find(|(named, _)| *named == name).unwrap().1).unwrap()
}

/// Computed by scripts/vectors/command.py.
// protocol: M1, M4, M9, M15
#[test]
fn independently_computed_vectors() {
    assert_eq!(keys().root()[..], vector("root"));
    let record = ApRecord::on_grid(key(4).verifying_key(), NOW / STEP, 0, Vec::new());
    let record = crate::record::Signed::sign(&record, &key(4)).bytes().to_vec();
    let node = NodeId([10; 32]);
    let actions = vec![
        ban_range("192.0.2.0/24"),
        ban_range("2001:db8::/32"),
        Action::Ban(Target::Node(node)),
        Action::Remove { key: node_key(&node), until: NOW + DAY },
        Action::Insert(record),
    ];
    let first = command(1, keys().root(), actions);
    let actions = vec![Action::Unban(Target::Range(range("192.0.0.0/16"))), Action::Unban(Target::Node(node))];
    let second = Command { issued: NOW + 60, expires: NOW + DAY, ..command(2, first.id(), actions) };
    assert_eq!(signed(&first, &[1, 3]), vector("first"));
    assert_eq!(signed(&second, &[2, 3]), vector("second"));
    assert_eq!((first.id().to_vec(), second.id().to_vec()), (vector("first-id"), vector("second-id")));
    let mut log = Log::new(keys());
    for name in ["first", "second"] {
        log.take(NOW, &vector(name), &none(), &[]).unwrap();
    }
    assert_eq!(Answer::of(&log, Above(0)).to_bytes(), vector("answer"));
    assert_eq!(Answer::from_bytes(&vector("answer")).unwrap().0, [vector("first"), vector("second")]);
    assert_eq!(Above(1).to_bytes(), vector("above"));
    assert_eq!(Answer::of(&log, Above(1)).0, [vector("second")]);
}

/// The decoder knows six kinds. A seventh would have to change this test.
// protocol: M5
#[test]
fn there_is_nothing_that_a_command_does_but_ban_and_mend() {
    let known: Vec<u8> = (0..=u8::MAX)
        .filter(|kind| {
            // Whatever follows: some of these lengths fit any kind that there could be.
            let fits = |body: &[u8]| Action::from_bytes(&[&[*kind], body].concat()).is_ok();
            let node_key = node_key(&NodeId([1; 32]));
            fits(&[4, 10, 1, 0, 0, 16])
                || fits(&[7; 32])
                || fits(&[&node_key[..], &[0; 8]].concat())
                || fits(&[0, 1, 9])
        })
        .collect();
    assert_eq!(known, [1, 2, 3, 4, 5, 6]);
}

// protocol: M6
#[test]
fn ranges_are_no_larger_than_a_provider_s_and_have_one_form() {
    for text in ["10.1.0.0/16", "10.1.2.3/32", "2001:db8::/32", "2001:db8::1/128"] {
        assert_eq!(range(text).to_string(), text);
        assert_eq!(Range::from_bytes(&range(text).to_bytes()), Ok(range(text)));
    }
    for text in ["10.0.0.0/15", "0.0.0.0/0", "2001::/31", "::/0"] {
        assert_eq!(text.parse::<Range>(), Err(RangeError::TooLarge), "{text}");
    }
    for text in ["10.1.0.1/16", "2001:db8:0:1::/32", "::ffff:10.1.0.0/112", "::/32", "::/64", "::ffff:0:0/96"] {
        assert_eq!(text.parse::<Range>(), Err(RangeError::NotCanonical), "{text}");
    }
    for text in ["10.1.0.0", "10.1.0.0/33", "a/16", "10.1.0.0/+16x", "2001:db8::/129"] {
        assert_eq!(text.parse::<Range>(), Err(RangeError::Form), "{text}");
    }
    let inside = |text: &str, ip: &str| range(text).contains(ip.parse::<IpAddr>().unwrap());
    assert!(inside("10.1.0.0/16", "10.1.255.255") && inside("10.1.0.0/16", "::ffff:10.1.2.3"));
    assert!(!inside("10.1.0.0/16", "10.2.0.0") && !inside("10.1.0.0/16", "2001:db8::1"));
    assert!(inside("2001:db8::/32", "2001:db8:ffff::") && !inside("2001:db8::/32", "2001:db9::"));
    // As family, address and prefix say it, and in no other way.
    for bytes in [&[4, 10, 0, 0, 0, 15][..], &[4, 10, 1, 0, 1, 16], &[5, 10, 1, 0, 0, 16], &[4, 10, 1, 0, 0, 33]] {
        assert_eq!(Range::from_bytes(bytes), Err(WireError::Value));
    }
}

// protocol: M2, M3, M7, M8
#[test]
fn what_a_command_must_not_say_is_malformed() {
    let good = command(1, keys().root(), vec![ban_node(9)]);
    assert_eq!(Command::from_bytes(&good.to_bytes()), Ok(good.clone()));
    let key = node_key(&NodeId([1; 32]));
    let mut other_table = key;
    other_table[0] = b'x';
    let remove = |key, until| vec![Action::Remove { key, until }];
    let old = ApRecord::on_grid(self::key(4).verifying_key(), NOW / STEP - 3, 0, Vec::new());
    let old = crate::record::Signed::sign(&old, &self::key(4)).bytes().to_vec();
    for (what, bad) in [
        ("no serial", Command { serial: 0, ..good.clone() }),
        ("a long life", Command { expires: NOW + LIFE_MAX + 1, ..good.clone() }),
        ("no life", Command { expires: NOW, ..good.clone() }),
        ("an end before its begin", Command { expires: NOW - 1, ..good.clone() }),
        ("nothing", Command { actions: Vec::new(), ..good.clone() }),
        ("too much", Command { actions: vec![ban_node(9); ACTIONS_MAX + 1], ..good.clone() }),
        ("a removal beyond its end", Command { actions: remove(key, NOW + LIFE_MAX + 1), ..good.clone() }),
        ("a key of no table", Command { actions: remove(other_table, NOW + 1), ..good.clone() }),
        ("no record", Command { actions: vec![Action::Insert(vec![1; 100])], ..good.clone() }),
        ("a record that is over", Command { actions: vec![Action::Insert(old)], ..good.clone() }),
    ] {
        assert!(Command::from_bytes(&bad.to_bytes()).is_err(), "{what}");
    }
    let bytes = good.to_bytes();
    assert_eq!(Command::from_bytes(&[&bytes[..], &[0]].concat()), Err(WireError::Leftover));
    assert_eq!(Command::from_bytes(&bytes[..bytes.len() - 1]), Err(WireError::Short));
    assert_eq!(Command::from_bytes(&[&[2], &bytes[1..]].concat()), Err(WireError::Value));
    assert_eq!(Command::from_bytes(&vec![1; COMMAND_MAX + 1]), Err(WireError::TooLong));
}

// protocol: M9
#[test]
fn as_many_maintainers_as_must_have_signed_and_each_counts_once() {
    let command = command(1, keys().root(), vec![ban_node(9)]);
    let good = signed(&command, &[1, 3]);
    let check =
        |bytes: &[u8]| Signed::from_bytes(bytes).map_err(Refused::from).and_then(|signed| signed.check(&keys()));
    assert_eq!(check(&good), Ok(command.clone()));
    let at = good.len() - 2 * 65;
    let first: [u8; 65] = good[at..at + 65].try_into().unwrap();
    let with = |signatures: &[&[u8]]| [&good[..at - 1], &[signatures.len() as u8], &signatures.concat()].concat();
    let second = &good[at + 65..];
    assert_eq!(check(&with(&[&first, second])), Ok(command.clone()), "put together again");
    assert_eq!(check(&with(&[&first])), Err(Refused::Signatures), "one");
    assert_eq!(check(&with(&[])), Err(Refused::Malformed(WireError::TooLong)), "none");
    assert_eq!(check(&with(&[&first, &first])), Err(Refused::Malformed(WireError::Value)), "the same twice");
    assert_eq!(check(&with(&[second, &first])), Err(Refused::Malformed(WireError::Value)), "another order");
    let third = signed(&command, &[2, 3]);
    let all = with(&[&first, &third[at..at + 65], second]);
    assert_eq!(check(&all), Err(Refused::Signatures), "more than needed is another form of the same");
    let mut renamed = good.clone();
    renamed[at] = 1;
    assert_eq!(check(&renamed), Err(Refused::Signatures), "under another's number");
    let mut unknown = good.clone();
    unknown[at + 65] = 7;
    assert_eq!(check(&unknown), Err(Refused::Signatures), "a key that is none");
    for bit in [2 + 5, at + 10] {
        let mut changed = good.clone();
        changed[bit] ^= 1;
        assert_eq!(check(&changed), Err(Refused::Signatures), "byte {bit}");
    }
    let signed = Signed::from_bytes(&good).unwrap();
    assert_eq!(signed.check(&KeySet::nobody()), Err(Refused::Nobody));
}

/// The same keys in another network, where more or others must sign.
// protocol: M4
#[test]
fn a_command_of_one_network_is_none_of_another_s() {
    let good = signed(&command(1, keys().root(), vec![ban_node(9)]), &[1, 2]);
    let public = |numbers: [u8; 3]| numbers.map(|number| key(number).verifying_key()).to_vec();
    let more = KeySet::new(2, [public([1, 2, 3]), vec![key(4).verifying_key()]].concat()).unwrap();
    let turned = KeySet::new(2, public([2, 1, 3])).unwrap();
    for other in [more, turned] {
        assert_eq!(Signed::from_bytes(&good).unwrap().check(&other), Err(Refused::Signatures));
    }
}

// protocol: M9
#[test]
fn key_sets_that_are_none() {
    let public = |numbers: std::ops::RangeInclusive<u8>| numbers.map(|number| key(number).verifying_key()).collect();
    assert_eq!(KeySet::new(1, Vec::new()), Err(KeySetError::Count(0)));
    assert_eq!(KeySet::new(1, public(1..=17)), Err(KeySetError::Count(17)));
    assert_eq!(KeySet::new(0, public(1..=3)), Err(KeySetError::Threshold(0, 3)));
    assert_eq!(KeySet::new(4, public(1..=3)), Err(KeySetError::Threshold(4, 3)));
    assert_eq!(KeySet::new(1, vec![key(1).verifying_key(); 2]), Err(KeySetError::Twice));
}

#[test]
fn a_bundle_takes_right_signatures_of_the_set_only() {
    let mut bundle = Bundle::new(command(1, keys().root(), vec![ban_node(9)]));
    assert!(!bundle.sign(&keys(), &key(9)));
    assert!(bundle.sign(&keys(), &key(3)) && bundle.signed(&keys()).is_none(), "one is too few");
    let mut other = Bundle::new(command(1, keys().root(), vec![ban_node(8)]));
    assert!(other.sign(&keys(), &key(1)));
    let foreign = other.signatures()[&0];
    assert_eq!(bundle.add(&keys(), 0, foreign), Err(Refused::Signatures));
    let own = bundle.signatures()[&2];
    assert_eq!(bundle.add(&keys(), 1, own), Err(Refused::Signatures));
    assert_eq!(bundle.add(&keys(), 7, own), Err(Refused::Signatures));
    assert!(bundle.sign(&keys(), &key(2)) && bundle.sign(&keys(), &key(1)));
    assert_eq!(bundle.signers().collect::<Vec<_>>(), [0, 1, 2]);
    assert!(bundle.signed(&keys()).unwrap().check(&keys()).is_ok(), "of three signatures it takes two");
}

// protocol: M10
#[test]
fn bans_are_what_the_commands_in_their_order_come_to_however_they_came() {
    let unban = |number| Action::Unban(Target::Node(contact(number).node_id()));
    let commands = chain([ban_node(9), ban_range("10.8.0.0/16"), unban(9), ban_range("10.7.1.0/24"), ban_node(7)]);
    let bans = log(&commands).bans(NOW, &none());
    let banned = |number| bans.of_contact(&contact(number)).is_some();
    assert!(!banned(9) && banned(8) && banned(7) && !banned(6));
    // Backwards, as catch-up may bring them.
    let backwards: Vec<_> = commands.iter().rev().cloned().collect();
    assert_eq!(log(&backwards).bans(NOW, &none()), bans);
    // A wider range takes back what is within it, and nothing else.
    let wide =
        chain([ban_range("10.7.1.0/24"), ban_range("10.8.0.0/16"), Action::Unban(Target::Range(range("10.7.0.0/16")))]);
    let targets: Vec<_> = log(&wide).bans(NOW, &none()).targets().map(|(target, _)| target).collect();
    assert_eq!(targets, [Target::Range(range("10.8.0.0/16"))]);
}

// protocol: M3
#[test]
fn a_command_is_over_when_it_says_and_a_ban_that_was_taken_back_does_not_come_again() {
    let mut commands = chain([ban_node(9), Action::Unban(Target::Node(contact(9).node_id())), ban_node(8)]);
    commands[1].expires = NOW + DAY;
    commands[2].predecessor = commands[1].id();
    let log = log(&commands);
    for (at, banned) in [(NOW, true), (NOW + LIFE_MAX - 1, true), (NOW + LIFE_MAX, false)] {
        let bans = log.bans(at, &none());
        assert_eq!(bans.of_contact(&contact(8)).is_some(), banned, "{at}");
        assert!(bans.of_contact(&contact(9)).is_none(), "{at}");
    }
}

#[test]
fn a_ban_that_is_renewed_counts_from_its_begin() {
    let mut commands = chain([ban_node(9), ban_node(9)]);
    (commands[1].issued, commands[1].expires) = (NOW + 100, NOW + DAY);
    let bans = Bans::of(NOW + 200, &none(), [(NOW + 5, &commands[0]), (NOW + 150, &commands[1])]);
    let ban = bans.of_contact(&contact(9)).unwrap();
    assert_eq!(ban, Ban { since: NOW + 5, until: NOW + LIFE_MAX });
}

// protocol: M13
#[test]
fn removed_keys_are_empty_until_their_time_and_so_are_those_of_banned_nodes() {
    let key = node_key(&NodeId([1; 32]));
    let commands = chain([Action::Remove { key, until: NOW + 100 }, ban_node(9)]);
    let log = log(&commands);
    let banned = node_key(&contact(9).node_id());
    let empties = |at, key: &[u8]| log.bans(at, &none()).empties(key);
    assert!(empties(NOW, &key) && !empties(NOW + 100, &key) && empties(NOW + 100, &banned));
    assert!(!empties(NOW, &node_key(&NodeId([2; 32]))) && !empties(NOW, b"x"));
}

// protocol: M14
#[test]
fn what_an_operator_opts_out_of_has_no_effect() {
    let key = node_key(&NodeId([1; 32]));
    let record = ApRecord::on_grid(self::key(4).verifying_key(), NOW / STEP, 0, Vec::new());
    let record = crate::record::Signed::sign(&record, &self::key(4)).bytes().to_vec();
    let actions =
        [ban_range("10.8.0.0/16"), ban_node(9), Action::Remove { key, until: NOW + DAY }, Action::Insert(record)];
    let log = log(&chain(actions));
    for out in Kind::ALL {
        let ignored = BTreeSet::from([out]);
        let bans = log.bans(NOW, &ignored);
        let effects = [
            (Kind::Ranges, bans.of_contact(&contact(8)).is_some()),
            (Kind::Nodes, bans.of_contact(&contact(9)).is_some()),
            (Kind::Remove, bans.empties(&key)),
            (Kind::Insert, !log.inserted(NOW, &ignored).is_empty()),
        ];
        for (kind, effect) in effects {
            assert_eq!(effect, kind != out, "{kind:?} without {out:?}");
        }
    }
}

// protocol: M11
#[test]
fn what_does_not_fit_into_the_chain_is_refused() {
    let commands = chain([ban_node(9), ban_node(8), ban_node(7)]);
    let bytes: Vec<_> = commands.iter().map(|command| signed(command, &[1, 2])).collect();
    let mut log = log(&commands[..2]);
    let take = |log: &mut Log, bytes: &[u8]| log.take(NOW, bytes, &none(), &[]).map(drop);
    assert_eq!(take(&mut log, &bytes[0]), Err(Refused::Known), "replayed");
    assert_eq!(take(&mut log, &signed(&commands[0], &[2, 3])), Err(Refused::Known), "by others' signatures");
    let wrong = signed(&command(3, [7; 32], vec![ban_node(7)]), &[1, 2]);
    assert_eq!(take(&mut log, &wrong), Err(Refused::Predecessor));
    let root = signed(&command(1, [7; 32], vec![ban_node(7)]), &[1, 2]);
    assert_eq!(take(&mut Log::new(keys()), &root), Err(Refused::Predecessor), "the first of another network");
    let future = Command { issued: NOW + 121, expires: NOW + DAY, ..commands[2].clone() };
    assert_eq!(take(&mut log, &signed(&future, &[1, 2])), Err(Refused::FromTheFuture));
    let ahead = Command { issued: NOW + 120, ..future };
    assert_eq!(take(&mut log.clone(), &signed(&ahead, &[1, 2])), Ok(()));
    assert!(!log.is_forked());
    let second = signed(&command(2, commands[0].id(), vec![ban_node(6)]), &[1, 2]);
    assert_eq!(take(&mut log, &second), Err(Refused::Forked));
    assert!(log.is_forked());
    assert_eq!(take(&mut log, &bytes[2]), Ok(()), "it goes on");
    assert_eq!(take(&mut log, &vec![0; 20_000]), Err(Refused::Malformed(WireError::TooLong)));
    assert_eq!((log.highest(), log.tip()), (3, commands[2].id()));
}

/// Who withholds a command does not keep the ones behind it away, and is noticed.
// protocol: M11
#[test]
fn a_gap_shows_and_is_asked_for_and_closes() {
    let commands = chain((1..=5).map(ban_node));
    let mut log = log(&[commands[0].clone(), commands[3].clone()]);
    assert!(log.bans(NOW, &none()).of_contact(&contact(4)).is_some());
    assert_eq!((log.missing(), log.asks_above(), log.highest()), (2, 1, 4));
    let wrong = signed(&command(3, commands[1].id(), vec![ban_node(6)]), &[1, 2]);
    assert_eq!(log.take(NOW, &wrong, &none(), &[]).map(drop), Err(Refused::Predecessor), "its successor names another");
    for at in [2, 1, 4] {
        log.take(NOW, &signed(&commands[at], &[1, 2]), &none(), &[]).unwrap();
    }
    assert_eq!((log.missing(), log.asks_above(), log.highest()), (0, 5, 5));
}

// protocol: M11
#[test]
fn the_newest_are_kept_for_ever_and_no_more() {
    let commands = chain((0..KEPT + 10).map(|number| ban_node(number as u8)));
    let mut log = log(&commands);
    assert_eq!((log.entries().count() as u64, log.missing(), log.highest()), (KEPT, 0, KEPT + 10));
    let old = signed(&commands[9], &[2, 3]);
    assert_eq!(log.take(NOW, &old, &none(), &[]).map(drop), Err(Refused::TooOld));
    // Expired ones stay: the highest serial is never forgotten.
    let late = Command {
        issued: NOW + 2 * LIFE_MAX,
        expires: NOW + 3 * LIFE_MAX,
        ..command(KEPT + 11, log.tip(), vec![ban_node(1)])
    };
    log.take(NOW + 2 * LIFE_MAX, &signed(&late, &[1, 2]), &none(), &[]).unwrap();
    assert_eq!(log.entries().count() as u64, KEPT);
}

// protocol: M12
#[test]
fn more_than_one_in_twenty_of_the_known_nodes_waits_for_the_operator() {
    let known: Vec<_> = (1..=60).map(contact).collect();
    let mut log = Log::new(keys());
    let commands = chain([
        Action::Ban(Target::Node(contact(1).node_id())),
        ban_range("10.2.0.0/16"),
        ban_range("10.3.0.0/16"),
        ban_range("10.4.0.0/16"),
        ban_range("10.99.0.0/16"),
        ban_range("10.1.0.0/16"),
    ]);
    let held: Vec<_> =
        commands.iter().map(|command| log.take(NOW, &signed(command, &[1, 2]), &none(), &known).unwrap()).collect();
    // Three of sixty are one in twenty; who is not known, or is banned already, does not count.
    assert_eq!(held, [false, false, false, true, false, false]);
    assert!(log.bans(NOW, &none()).of_contact(&contact(4)).is_none());
    assert_eq!(log.allow(4).map(|entry| entry.held), Some(false));
    assert!(log.allow(4).is_none() && log.allow(9).is_none());
    assert!(log.bans(NOW, &none()).of_contact(&contact(4)).is_some());
    // One at a time may be banned in the smallest network.
    let few = &known[..5];
    let mut log = Log::new(keys());
    let held = |log: &mut Log, command| log.take(NOW, &signed(command, &[1, 2]), &none(), few).unwrap();
    assert!(!held(&mut log, &commands[0]) && held(&mut log, &commands[1]));
}

// protocol: M11
#[test]
fn a_log_comes_back_as_it_was_and_another_set_s_does_not() {
    let commands = chain((1..=3).map(ban_node));
    let log = log(&commands);
    let mut again = Log::new(keys());
    for entry in log.entries() {
        again.restore(&entry.to_bytes()).unwrap();
    }
    assert!(again.entries().eq(log.entries()));
    let mut other = Log::new(KeySet::new(2, (4..=6).map(|number| key(number).verifying_key()).collect()).unwrap());
    let first = log.entries().next().unwrap();
    assert_eq!(other.restore(&first.to_bytes()), Err(Refused::Signatures));
}

// protocol: M15
#[test]
fn answers_are_bounded_and_the_next_question_goes_on() {
    let record = |number| {
        let record = ApRecord::on_grid(key(number).verifying_key(), NOW / STEP, 0, Vec::new());
        Action::Insert(crate::record::Signed::sign(&record, &key(number)).bytes().to_vec())
    };
    let mut commands = chain((1..=30).map(record));
    let mut before = keys().root();
    for command in &mut commands {
        command.actions = vec![command.actions[0].clone(); 40];
        command.predecessor = before;
        before = command.id();
    }
    let (all, mut late) = (log(&commands), Log::new(keys()));
    let mut rounds = 0;
    while late.highest() < 30 {
        let answer = Answer::of(&all, Above(late.asks_above()));
        assert!(answer.to_bytes().len() <= ANSWER_MAX && !answer.0.is_empty());
        for bytes in Answer::from_bytes(&answer.to_bytes()).unwrap().0 {
            late.take(NOW, &bytes, &none(), &[]).unwrap();
        }
        rounds += 1;
    }
    assert!(rounds > 1 && late.missing() == 0);
    assert_eq!(Answer::from_bytes(&[]), Ok(Answer::default()));
    assert!(Answer::from_bytes(&[0, 5, 1]).is_err());
    assert!(Answer::from_bytes(&[&(Signed::LEN_MAX as u16 + 1).to_be_bytes()[..], &[0; 9500]].concat()).is_err());
}

proptest! {
    #[test]
    fn one_value_has_one_encoding(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(action) = Action::from_bytes(&bytes) {
            prop_assert_eq!(action.to_bytes(), bytes.clone());
        }
        if let Ok(signed) = Signed::from_bytes(&bytes) {
            prop_assert_eq!(signed.to_bytes(), bytes.clone());
        }
        if let Ok(answer) = Answer::from_bytes(&bytes) {
            prop_assert_eq!(answer.to_bytes(), bytes.clone());
        }
        let _ = Log::new(keys()).take(NOW, &bytes, &none(), &[]);
    }

    #[test]
    fn every_changed_bit_is_noticed(at in 0..400usize, bit in 0..8u8) {
        let mut bytes = signed(&command(1, keys().root(), vec![ban_node(9); 4]), &[1, 2]);
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assert!(Log::new(keys()).take(NOW, &bytes, &none(), &[]).is_err());
    }
}
