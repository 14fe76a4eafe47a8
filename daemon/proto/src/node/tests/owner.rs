//! The owner's policy: stock and work of personas, and when records leave.

use std::collections::BTreeSet;

use super::*;
use crate::node::build::{KEPT_FREE, LATE, MAX_BUILDS};
use crate::node::paths::{Ending, Owned, Part, Path};
use crate::path::plan::Role;
use crate::path::{Case, Class, How, Persona};
use crate::record::{ApRecord, STEP, Signed};
use crate::tunnel;

const STEP_MS: u64 = STEP * 1000;

pub(super) fn owner(seed: u64, settings: Settings) -> Node {
    let mut node = node();
    node.settings = settings;
    node.rng = Box::new(StdRng::seed_from_u64(seed));
    node
}

/// A path of our own, as when it had been built and had had a tunnel.
pub(super) fn build(node: &mut Node, now: u64, persona: Persona, class: Class) -> PathNo {
    let end = neighbour(node.next as u8 | 1);
    build_to(node, now, persona, class, end)
}

/// The same, ending there.
pub(super) fn build_to(node: &mut Node, now: u64, persona: Persona, class: Class, end: NodeContact) -> PathNo {
    let number = node.next as u8;
    let secrets = [1, 2, 3].map(|hop| PathSecret(Zeroizing::new([number ^ hop; 32])));
    let handle = crate::path::handle(&secrets[2]);
    let owned = Owned {
        persona,
        class,
        work: Work::Spare,
        retires: now + 50 * STEP_MS,
        leaves: None,
        hops: vec![end.clone()],
        end,
        handle,
        case: Case::nobody(),
    };
    let part =
        Part::Own(Box::new(tunnel::Owner::new(secrets.map(|secret| (secret, PathId([number; 16]))).into())), owned);
    let path = Path::new(now, now + 60 * STEP_MS, part, vec![segment(2, number, false)]);
    let no = node.add_path(path).unwrap();
    node.paths.get_mut(&no).unwrap().sides[0].link = Some(LinkId(u64::from(number) * 2 + 1));
    node.paths.get_mut(&no).unwrap().proven = true;
    node.path_proven(now, no);
    no
}

fn unborn(node: &Node) -> Vec<Persona> {
    node.personas.iter().filter(|(_, own)| own.identity.is_none()).map(|(persona, _)| *persona).collect()
}

fn works(node: &Node) -> Vec<(Persona, Work)> {
    node.paths.values().filter_map(Path::owned).map(|owned| (owned.persona, owned.work)).collect()
}

pub(super) fn key(number: u8) -> Arc<SigningKey> {
    Arc::new(SigningKey::from_seed(&[number; 32]))
}

pub(super) fn address(number: u8) -> ApAddress {
    ApAddress::of(&key(number).verifying_key())
}

/// Records that leave: when, along which path.
fn sent(node: &mut Node, now: u64) -> Vec<(u64, PathNo, ApRecord)> {
    let mut sent = Vec::new();
    while let Some(output) = node.poll() {
        if let Output::Serve { path, record } = output {
            let record = Signed::<ApRecord>::from_bytes(&record).unwrap();
            let checked = record.check(now / 1000).or_else(|_| record.check(now / 1000 + STEP)).unwrap();
            sent.push((now, path, checked));
        }
    }
    sent
}

// protocol: K1, K2, K3
#[test]
fn an_identity_takes_the_persona_that_is_ready_with_its_spares() {
    let mut node = owner(1, Settings::default());
    node.tick(NOW);
    let ready = unborn(&node)[0];
    for class in [Class::Out, Class::Out, Class::Out, Class::In, Class::In] {
        build(&mut node, NOW, ready, class);
    }
    node.handle(NOW, Input::WantExit(address(1)));
    let of = |node: &Node, work| works(node).into_iter().filter(|(_, other)| *other == work).count();
    let works_of = [Work::Connect, Work::Ask, Work::AskAgain, Work::Serve].map(|work| of(&node, work));
    assert_eq!(works_of, [1, 1, 1, 0]);
    node.handle(NOW, Input::WantEntry(key(1), Serials::default()));
    assert_eq!((of(&node, Work::Serve), of(&node, Work::Spare)), (2, 0));
    assert!(works(&node).iter().all(|(persona, _)| *persona == ready), "one identity, one persona");
    // The next identity gets another one, and nothing that this one had.
    node.handle(NOW, Input::WantExit(address(2)));
    assert!(!unborn(&node).contains(&ready));
    let other = node.persona_of(address(2)).unwrap();
    assert!(other != ready && works(&node).iter().all(|(persona, _)| *persona != other));
    node.handle(NOW, Input::Forget(address(1)));
    assert!(works(&node).iter().all(|(_, work)| *work == Work::Leaving), "its paths go with it, one by one");
}

// protocol: K4, K5
#[test]
fn lost_work_passes_to_a_spare_at_once_and_the_oldest_of_many_spares_goes() {
    let mut node = owner(2, Settings::default());
    node.tick(NOW);
    node.handle(NOW, Input::WantExit(address(1)));
    let persona = node.persona_of(address(1)).unwrap();
    let paths: Vec<_> = (0..7).map(|n| build(&mut node, NOW + n, persona, Class::Out)).collect();
    let work = |node: &Node, no: &PathNo| node.paths.get(no).and_then(Path::owned).map(|owned| owned.work);
    assert_eq!(work(&node, &paths[0]), Some(Work::Connect));
    assert_eq!(work(&node, &paths[1]), Some(Work::Ask));
    assert_eq!(work(&node, &paths[2]), Some(Work::AskAgain));
    assert_eq!(work(&node, &paths[3]), Some(Work::Leaving), "the oldest of four spares");
    (NOW..NOW + 3_600_000).step_by(10_000).for_each(|now| node.leave(now));
    assert_eq!(work(&node, &paths[3]), None, "some time later");
    node.drop_path(NOW + 10, paths[0]);
    assert_eq!(work(&node, &paths[6]), Some(Work::Connect), "the newest spare");
    assert_eq!(work(&node, &paths[4]), Some(Work::Spare));
    // It has nothing to do with what happened when the next build comes: there is a spare.
    assert!(!node.is_due_now(NOW + 20, persona, Class::Out));
}

impl Node {
    fn is_due_now(&mut self, now: u64, persona: Persona, class: Class) -> bool {
        let before = self.problem.take();
        self.pursue(now);
        let tried = self.problem.is_some() || self.building(now, persona, class) > 0;
        self.problem = before;
        tried
    }
}

/// A1, A2: what leaves an owner, and when, over days of uptime.
// protocol: H1, H2
#[test]
fn one_record_a_step_leaves_along_each_path_at_times_of_its_own() {
    let mut node = owner(3, Settings { publish_within: 0, ..Settings::default() });
    let owners = [1, 2];
    for number in owners {
        node.handle(NOW, Input::WantEntry(key(number), Serials::default()));
        let persona = node.persona_of(address(number)).unwrap();
        for _ in 0..3 {
            build(&mut node, NOW, persona, Class::In);
        }
    }
    let mut all = Vec::new();
    for now in (NOW..NOW + 48 * STEP_MS).step_by(1000) {
        node.serve(now);
        all.extend(sent(&mut node, now));
    }
    for number in owners {
        let of: Vec<_> = all.iter().filter(|(_, _, record)| record.address() == address(number)).collect();
        let first = of[0].2.step_of();
        assert_eq!(first, NOW / STEP_MS);
        // Then one for each step, along each of three paths, in the step before.
        let later: Vec<_> = of.iter().filter(|(_, _, record)| record.step_of() > first).collect();
        assert!(later.iter().all(|(at, _, record)| at / STEP_MS + 1 == record.step_of()));
        let steps: BTreeSet<_> = later.iter().map(|(_, _, record)| record.step_of()).collect();
        assert!(steps.len() >= 47, "{} steps", steps.len());
        assert!(later.len() >= 3 * 47);
        assert!(later.iter().all(|(_, _, record)| record.entries.len() == 3 && record.serial as u16 == 0));
        // Times within the step: all over it, and each path's its own.
        let late = later.iter().filter(|(at, _, _)| at % STEP_MS > STEP_MS / 2).count();
        assert!(late > later.len() / 4 && late < later.len(), "{late} of {}", later.len());
        let moments: BTreeSet<_> = later.iter().map(|(at, _, _)| at).collect();
        assert!(moments.len() > later.len() * 9 / 10);
    }
    let of = |number| -> BTreeSet<u64> {
        all.iter().filter(|(at, _, r)| *at > NOW && r.address() == address(number)).map(|(at, _, _)| *at).collect()
    };
    assert!(of(1).intersection(&of(2)).count() < 5, "two identities never act together");
}

// protocol: H2, H3
#[test]
fn a_record_out_of_turn_leaves_only_when_no_entry_of_the_last_one_lives() {
    let mut node = owner(4, Settings { publish_within: 0, entry_paths: 2, ..Settings::default() });
    node.handle(NOW, Input::WantEntry(key(1), Serials::default()));
    let persona = node.persona_of(address(1)).unwrap();
    let paths: Vec<_> = (0..4).map(|_| build(&mut node, NOW, persona, Class::In)).collect();
    node.serve(NOW);
    // Once with the first path, perhaps, and once when both are there: both in the first moment.
    let first = sent(&mut node, NOW);
    assert!(first.iter().any(|(_, _, record)| record.entries.len() == 2));
    node.drop_path(NOW + 1, paths[0]);
    node.serve(NOW + 60_000);
    assert!(sent(&mut node, NOW + 60_000).is_empty(), "one entry lives");
    node.drop_path(NOW + 60_001, paths[1]);
    let mut at = NOW + 60_001;
    let revived = loop {
        at += 100;
        node.serve(at);
        let sent = sent(&mut node, at);
        if !sent.is_empty() {
            break sent;
        }
        assert!(at < NOW + 600_000, "within minutes");
    };
    assert!(revived.iter().all(|(_, _, record)| record.step_of() == NOW / STEP_MS && record.serial as u16 > 0));
}

/// The record of the next step is made, and names an entry that lives; but until it is published, others find the one of this step.
// protocol: H3
#[test]
fn a_record_that_others_still_find_is_replaced_when_none_of_its_entries_lives() {
    let mut node = owner(4, Settings { publish_within: 0, entry_paths: 2, ..Settings::default() });
    node.handle(NOW, Input::WantEntry(key(1), Serials::default()));
    let persona = node.persona_of(address(1)).unwrap();
    let paths: Vec<_> = (0..3).map(|_| build(&mut node, NOW, persona, Class::In)).collect();
    node.serve(NOW);
    sent(&mut node, NOW);
    node.drop_path(NOW + 1, paths[0]);
    let step = NOW / STEP_MS;
    let mut at = NOW + 1;
    while !sent(&mut node, at).iter().any(|(_, _, record)| record.step_of() == step + 1) {
        at += 10_000;
        node.serve(at);
    }
    node.drop_path(at, paths[1]);
    while !sent(&mut node, at).iter().any(|(_, _, record)| record.step_of() == step) {
        at += 100;
        assert!(at / STEP_MS == step, "nobody is reached until the next record appears");
        node.serve(at);
    }
}

/// The first path that serves again is named at once, and the others when they do, not in the next step.
// protocol: H3
#[test]
fn a_service_that_was_lost_names_all_its_entries_again_once_they_serve() {
    let mut node = owner(4, Settings { publish_within: 0, entry_paths: 3, ..Settings::default() });
    node.handle(NOW, Input::WantEntry(key(1), Serials::default()));
    let persona = node.persona_of(address(1)).unwrap();
    let lost: Vec<_> = (0..3).map(|_| build(&mut node, NOW, persona, Class::In)).collect();
    node.serve(NOW);
    sent(&mut node, NOW);
    lost.into_iter().for_each(|path| node.drop_path(NOW + 1, path));
    build(&mut node, NOW + 2, persona, Class::In);
    let mut at = NOW + 2;
    let served = |node: &mut Node, at: &mut u64| {
        for _ in 0..1000 {
            *at += 100;
            node.serve(*at);
            if let Some((_, _, record)) = sent(node, *at).pop() {
                return Some(record.entries.len());
            }
        }
        None
    };
    assert_eq!(served(&mut node, &mut at), Some(1), "in the next step only");
    for _ in 0..2 {
        build(&mut node, at, persona, Class::In);
    }
    assert_eq!(served(&mut node, &mut at), Some(3));
    assert_eq!(served(&mut node, &mut at), None, "what is whole stays as it is");
}

// protocol: H4
#[test]
fn serials_grow_within_a_step_over_restarts_and_when_the_next_step_was_ahead() {
    let step = 500_000;
    let mut serials = Serials::default();
    let mut node = owner(5, Settings { publish_within: 0, entry_paths: 1, ..Settings::default() });
    for run in 0..3 {
        node.handle(NOW, Input::WantEntry(key(1), serials));
        let persona = node.persona_of(address(1)).unwrap();
        build(&mut node, NOW, persona, Class::In);
        node.serve(NOW);
        let kept = std::iter::from_fn(|| node.poll()).filter_map(|output| match output {
            Output::Serials { serials, .. } => Some(serials),
            _ => None,
        });
        serials = kept.last().unwrap();
        assert_eq!(serials.0[1], (step << 16) + run, "each run says more than the last");
        node.handle(NOW, Input::Forget(address(1)));
    }
}

/// Each step to a first path has words of its own, with its time and what comes next.
#[test]
fn a_node_says_what_its_first_path_waits_for() {
    let mut node = owner(6, Settings::default());
    assert!(node.progress(NOW).unwrap().contains("records of other nodes"));
    node.handle(NOW, Input::Sample(Vec::new()));
    node.handle(NOW + 2_000, Input::Sample(Vec::new()));
    node.tick(NOW + 2_100);
    let said = node.progress(NOW + 2_100).unwrap();
    assert!(said.contains("the next build") && said.contains("begins"), "{said}");
    // In steps: a minute at once would be a sleep.
    (1..=6).for_each(|step| node.tick(NOW + 10_000 * step));
    let said = node.progress(NOW + 60_000).unwrap();
    assert!(said.contains("failed") && said.contains("a path needs 3"), "{said}");
    let persona = unborn(&node)[0];
    let no = build(&mut node, NOW + 60_000, persona, Class::Out);
    node.paths.get_mut(&no).unwrap().proven = false;
    let said = node.progress(NOW + 64_000).unwrap();
    let next = "if none stands in 16 s, another path is built";
    assert_eq!(said, format!("the first tunnel of a path that was built 4 s ago; {next}"));
    node.paths.get_mut(&no).unwrap().sides[0].link = None;
    assert!(node.progress(NOW + 64_000).unwrap().contains("the standing connections"));
    // It works, and all its tunnels are used: then that is what is waited for.
    node.paths.get_mut(&no).unwrap().proven = true;
    node.paths.get_mut(&no).unwrap().vain = 2;
    let said = node.progress(NOW + 64_000).unwrap();
    assert!(said.contains("a path that has stood for 4 s") && said.contains("2 in a row in vain; after 5"), "{said}");
    node.ready.put(no, TunnelNo(1));
    assert_eq!(node.progress(NOW + 64_000), None);
    // One for what comes in serves nobody who wants out.
    let Some(Part::Own(_, owned)) = node.paths.get_mut(&no).map(|path| &mut path.part) else { panic!("it is gone") };
    owned.class = Class::In;
    assert!(node.progress(NOW + 64_000).unwrap().contains("the next build"));
}

/// What happened is told with its reason and its number, and so it is in the log.
#[test]
fn what_went_wrong_is_noted_and_told() {
    let mut node = owner(9, Settings::default());
    node.handle(NOW, Input::Sample(Vec::new()));
    node.handle(NOW + 2_000, Input::Sample(Vec::new()));
    node.tick(NOW + 2_100);
    let persona = unborn(&node)[0];
    let lost = build(&mut node, NOW + 3_000, persona, Class::Out);
    node.end_path(NOW + 63_000, lost, Ending::Lost);
    let said = node.notes(NOW + 65_000).join("\n");
    assert!(said.contains("a path was ended by others after 1 min of") && said.contains("(2 s ago)"), "{said}");
    let logged = |node: &mut Node| {
        let note = |output| if let Output::Note(note) = output { Some(note) } else { None };
        std::iter::from_fn(|| node.poll()).filter_map(note).collect::<Vec<_>>()
    };
    let notes = logged(&mut node);
    assert!(notes.contains(&Note::PathUp), "{notes:?}");
    assert!(notes.iter().any(|note| matches!(note, Note::PathDown(How::Died { lived: 60, .. }))), "{notes:?}");
    let times = node.vitals(NOW).times;
    assert_eq!((times.stood, times.lost, times.first_away), (1, 1, 0));
    // Again and again within a minute is said once, and counted.
    (0..20).for_each(|number| node.note(NOW + 70_000 + number, Note::FirstAway));
    assert_eq!(logged(&mut node).iter().filter(|note| **note == Note::FirstAway).count(), 1);
    assert_eq!(node.happened().iter().filter(|(_, note)| **note == Note::FirstAway).count(), 8);
    assert!(node.notes(NOW + 71_000).iter().any(|said| said.contains("8 times or more")), "{:?}", node.notes(NOW));
}

/// A path that had retired stood on, with ready tunnels, for up to a day, and was still given to new connections.
// protocol: K11
#[test]
fn a_path_that_retires_takes_nothing_new_and_ends_with_its_last_use() {
    let mut node = owner(10, Settings::default());
    node.tick(NOW);
    node.handle(NOW, Input::WantExit(address(1)));
    let persona = node.persona_of(address(1)).unwrap();
    let [old, ask] = [0, 1].map(|number| build(&mut node, NOW + number, persona, Class::Out));
    let overdue = NOW + 51 * STEP_MS;
    let mut number = 0;
    let mut granted = |node: &mut Node, now| {
        number += 1;
        let of = Of::Work(address(1), Work::Connect);
        node.handle(now, Input::Want { want: WantNo(number), of, limit: 1_000 });
        std::iter::from_fn(|| node.poll()).find_map(|output| match output {
            Output::Grant { path, .. } => Some(path),
            _ => None,
        })
    };
    let put = |node: &mut Node, path, tunnel| assert_eq!(node.ready.put(path, TunnelNo(tunnel)), None);
    (0..3).for_each(|tunnel| put(&mut node, old, tunnel));
    // Overdue, but nobody else does its work.
    node.relieve(overdue);
    assert_eq!(granted(&mut node, overdue), Some(old));
    let new = build(&mut node, overdue, persona, Class::Out);
    put(&mut node, new, 10);
    node.relieve(overdue);
    let retired =
        std::iter::from_fn(|| node.poll()).any(|out| matches!(out, Output::PathRetired { path } if path == old));
    assert!(retired && node.paths.contains_key(&old), "what runs over it goes on");
    assert_eq!(granted(&mut node, overdue), Some(new));
    assert_eq!(granted(&mut node, overdue), None, "it is not asked although it has tunnels");
    // The one that asks has not retired: nobody can end it so.
    node.handle(overdue, Input::Unused(old));
    node.paths.get_mut(&ask).unwrap().until = u64::MAX;
    node.expire_paths(overdue + 1);
    assert!(node.paths.contains_key(&old), "its end says when its last use was over");
    node.expire_paths(overdue + 1_000_000);
    assert!(!node.paths.contains_key(&old) && node.paths.contains_key(&new) && node.paths.contains_key(&ask));
}

/// A path whose tunnels all failed was kept, and seeded for ever.
// protocol: O17
#[test]
fn a5_a_mute_path_is_dropped() {
    let mut node = node();
    let no = build(&mut node, NOW, Persona(1), Class::Out);
    let mut gone = None;
    for step in 1..=300 {
        let now = NOW + step * 100;
        node.tick(now);
        if gone.is_none() && !node.paths.contains_key(&no) {
            gone = Some(now - NOW);
        }
    }
    assert!(gone.is_some_and(|after| (10_000..20_000).contains(&after)), "{gone:?}");
}

/// B1: an identity that is drawn new middle nodes after each restart meets an attacker's sooner or later.
// protocol: K10
#[test]
fn an_identity_that_lasts_keeps_its_nodes_over_restarts_and_takes_no_spares_of_others() {
    let sample: Vec<_> = (2..80).map(|number| Candidate { contact: neighbour(number), ..node().own }).collect();
    let secret = Zeroizing::new([7; 32]);
    let run = |seed, sets: Option<Vec<u8>>| {
        let mut node = owner(seed, Settings::hurried());
        node.handle(NOW, Input::Sample(sample.clone()));
        node.tick(NOW + 2_000);
        let ready = unborn(&node)[0];
        build(&mut node, NOW + 2_000, ready, Class::Out);
        node.handle(NOW + 2_000, Input::Lasting { identity: address(1), secret: secret.clone(), sets });
        node.handle(NOW + 2_000, Input::WantExit(address(1)));
        assert!(unborn(&node).contains(&ready), "its spares lead over nodes of another");
        for tick in 0..40 {
            node.tick(NOW + 2_000 + tick * 100);
        }
        let kept = std::iter::from_fn(|| node.poll()).filter_map(|output| match output {
            Output::Sets { identity, sets } => Some((identity, sets)),
            _ => None,
        });
        kept.last()
    };
    let (identity, sets) = run(1, None).expect("its nodes are told");
    assert_eq!(identity, address(1));
    assert_eq!(run(2, Some(sets.clone())), None, "it has the nodes that it had");
    // What cannot be read is no reason to have none.
    assert!(run(3, Some(vec![9; 40])).is_some_and(|(_, drawn)| drawn != sets));
}

/// Whoever breaks the protocol to have a path dropped earned by it what a path earns that its owner ends.
#[test]
fn a_path_that_was_misused_counts_against_its_nodes() {
    let mut node = owner(8, Settings::default());
    let sample: Vec<_> = (2..80).map(|number| Candidate { contact: neighbour(number), ..node.own.clone() }).collect();
    for now in [NOW, NOW + 2 * STEP_MS] {
        node.handle(now, Input::Sample(sample.clone()));
    }
    let (mut bad, now) = (None, NOW + 2 * STEP_MS);
    for number in 0..60 {
        let (persona, class) = (Persona(1), Class::Out);
        let (plan, case) = node.choice.plan(&mut *node.rng, now / 1000, persona, class, 3, &|_| false).unwrap();
        let nearest = plan.circle.iter().find(|placed| placed.role == Role::X { position: 0 }).unwrap();
        let nearest = nearest.candidate.contact.node_id();
        let no = build(&mut node, now, persona, class);
        if let Some(Part::Own(_, owned)) = node.paths.get_mut(&no).map(|path| &mut path.part) {
            owned.case = case;
        }
        match nearest == *bad.get_or_insert(nearest) {
            true => node.handle(now + number, Input::Misused(no)),
            false => node.drop_path(now + number, no),
        }
    }
    let notes = node.vitals(now).choice;
    assert!(notes.iter().any(|note| note.to_string().contains("ends paths early")), "{notes:?}");
}

/// Who answers every seed and confirms none kept a path that carried nothing.
#[test]
fn a_path_whose_tunnels_are_begun_and_never_confirmed_is_mute_too() {
    let mut node = node();
    let no = build(&mut node, NOW, Persona(1), Class::Out);
    let secret = || PathSecret(Zeroizing::new([9; 32]));
    let mut rng = StdRng::seed_from_u64(1);
    let mut end = tunnel::End::new(secret());
    if let Part::Own(owner, _) = &mut node.paths.get_mut(&no).unwrap().part {
        **owner = tunnel::Owner::new(vec![(secret(), PathId([9; 16]))]);
    }
    let mut link = 1_001;
    for step in 1..=600 {
        let now = NOW + step * 100;
        node.tick(now);
        let out: Vec<_> = std::iter::from_fn(|| node.poll()).collect();
        for output in out {
            let Output::Send { kind: kind::SEED, payload, .. } = output else { continue };
            let seed = payload.try_into().unwrap();
            let Ok((_, open)) = end.on_seed(&mut rng, &seed) else { continue };
            link += 2;
            let (link, peer) = (LinkId(link), neighbour(2).node_id());
            node.handle(now, Input::LinkUp { link, peer });
            let payload = [&open.id.0[..], &open.r, &open.p].concat();
            node.handle(now, Input::Frame { link, kind: kind::TUNNEL, payload });
        }
    }
    assert!(link > 1_010, "it answered");
    assert!(!node.paths.contains_key(&no), "a minute, and nothing ever stood");
}

/// it appears then says when its owner sent it.
// protocol: H1
#[test]
fn no_record_leaves_so_late_that_it_arrives_in_its_own_step() {
    let mut node = owner(10, Settings { publish_within: 0, ..Settings::default() });
    node.handle(NOW, Input::WantEntry(key(1), Serials::default()));
    let persona = node.persona_of(address(1)).unwrap();
    for _ in 0..3 {
        let no = build(&mut node, NOW, persona, Class::In);
        if let Some(Part::Own(_, owned)) = node.paths.get_mut(&no).map(|path| &mut path.part) {
            owned.retires = u64::MAX;
        }
    }
    let mut ahead = 0;
    for now in (NOW..NOW + 120 * STEP_MS).step_by(1000) {
        node.serve(now);
        for (at, _, record) in sent(&mut node, now) {
            let left = record.issued as i64 * 1000 - at as i64;
            if record.step_of() > NOW / STEP_MS {
                ahead += 1;
                assert!(left > 120_000, "{left} ms before the step: clocks may differ by 120 s");
            }
        }
    }
    assert!(ahead >= 3 * 115, "{ahead}");
}

/// A path that is built and has no tunnel yet is neither a build nor a spare: meanwhile another was built, and another.
// protocol: K6
#[test]
fn nothing_is_built_out_of_turn_while_a_path_waits_for_its_first_tunnel() {
    let mut node = owner(9, Settings { unborn: 0, ..Settings::default() });
    node.handle(NOW, Input::WantExit(address(1)));
    let persona = node.persona_of(address(1)).unwrap();
    for _ in 0..3 {
        let no = build(&mut node, NOW, persona, Class::Out);
        let path = node.paths.get_mut(&no).unwrap();
        path.proven = false;
        if let Part::Own(_, owned) = &mut path.part {
            owned.work = Work::Spare;
        }
    }
    let mut tried = |ticks: std::ops::Range<u64>| {
        ticks.into_iter().find(|tick| node.is_due_now(NOW + tick * 100, persona, Class::Out)).is_some()
    };
    assert!(!tried(0..LATE / 100), "all works have a path that is about to do them");
    assert!(tried(LATE / 100..LATE / 100 + 300), "they may wait for ever");
}

/// Where a node dies, all that was under way over it fails, one after the other.
// protocol: K33
#[test]
fn builds_that_fail_together_count_once() {
    let mut node = owner(10, Settings { unborn: 0, ..Settings::default() });
    node.handle(NOW, Input::WantExit(address(1)));
    let persona = node.persona_of(address(1)).unwrap();
    let wait = |node: &mut Node, began: u64, now: u64| {
        node.build_failed(now, began, persona, Class::Out);
        node.personas.get_mut(&persona).unwrap().stocks()[0].wait()
    };
    assert_eq!(wait(&mut node, NOW, NOW + 100), 500);
    for later in 101..105 {
        assert_eq!(wait(&mut node, NOW + 50, NOW + later), 500, "it was under way at the first failure");
    }
    assert_eq!(wait(&mut node, NOW + 100, NOW + 200), 1000);
    // The clock is set back.
    assert_eq!(wait(&mut node, NOW - STEP_MS, NOW - STEP_MS + 10), 2000);
}

/// Six builds that hang for somebody who may come would hold up who is there.
// protocol: K33
#[test]
fn who_is_to_come_leaves_room_for_who_is_there() {
    let mut node = owner(11, Settings::hurried());
    let sample: Vec<_> = (2..80).map(|number| Candidate { contact: neighbour(number), ..node.own.clone() }).collect();
    node.handle(NOW, Input::Sample(sample));
    // Nobody answers, and no build is over before its patience is.
    let most = |node: &mut Node, from: u64| {
        let builds = |now| {
            node.tick(now);
            node.builds.len()
        };
        (from..from + 4_000).step_by(10).map(builds).max().unwrap()
    };
    assert_eq!(most(&mut node, NOW + 2_000), MAX_BUILDS - KEPT_FREE);
    let counted_on = |now| {
        let all = node.personas.keys().flat_map(|persona| [(*persona, Class::Out), (*persona, Class::In)]);
        all.map(|(persona, class)| node.building(now, persona, class)).sum::<usize>()
    };
    let late = NOW + 6_000 + LATE;
    assert_eq!([counted_on(NOW + 6_000), counted_on(late)], [MAX_BUILDS - KEPT_FREE, 0], "others are built for them");
    node.handle(NOW + 6_000, Input::WantExit(address(1)));
    node.handle(NOW + 6_000, Input::WantExit(address(2)));
    assert_eq!(most(&mut node, NOW + 6_000), MAX_BUILDS);
}

/// A fixed time between what one lacks and its build, or between two tries, would tell whose both are.
// protocol: K6
#[test]
fn what_is_built_out_of_turn_waits_at_random_and_after_failures_longer() {
    const NODES: u64 = 400;
    let mut firsts = Vec::new();
    for seed in 0..NODES {
        let mut node = owner(seed, Settings { unborn: 0, ..Settings::default() });
        node.handle(NOW, Input::WantExit(address(1)));
        let persona = node.persona_of(address(1)).unwrap();
        // Only what is out of turn.
        node.personas.get_mut(&persona).unwrap().stocks().into_iter().for_each(|stock| stock.redraw(u64::MAX, 0));
        // It knows nobody, so that each build fails at once.
        let mut now = NOW;
        let mut next = |node: &mut Node| {
            // Drawn is whole milliseconds: it may be none.
            if node.is_due_now(now, persona, Class::Out) {
                return 0;
            }
            let at = node.next_builds().find(|at| *at < u64::MAX).expect("a time is drawn");
            let due = [at - 1, at].map(|at| node.is_due_now(at, persona, Class::Out));
            assert_eq!(due, [false, true], "{} ms later", at - now);
            at - std::mem::replace(&mut now, at)
        };
        firsts.push(next(&mut node));
        for failures in 0..8 {
            let wait = (500 << failures).min(10_000);
            let waited = next(&mut node);
            assert!((wait / 2..=wait * 3 / 2).contains(&waited), "{waited} after {failures} more");
        }
    }
    let mean = firsts.iter().sum::<u64>() / NODES;
    assert!((1700..2300).contains(&mean), "{mean}");
    // As many as an exponential distribution has: e^-1 above the mean, half below ln 2 of it.
    let above = |limit: u64| firsts.iter().filter(|wait| **wait > limit).count();
    assert!((120..175).contains(&above(2000)) && (170..230).contains(&above(1386)), "{} {}", above(2000), above(1386));
}

/// A path that ended when the clock had been set back counted as one that had lived for ages; with checks of arithmetic, it was a panic.
#[test]
fn a_path_may_end_before_it_began() {
    let mut node = node();
    let no = build(&mut node, NOW, Persona(1), Class::Out);
    let how = node.paths[&no].how(NOW - STEP_MS, Ending::Lost);
    assert_eq!(how, How::Died { lived: 0, planned: 60 * STEP });
    node.drop_path(NOW - STEP_MS, no);
    assert!(node.paths.is_empty());
}

/// B1: programs that run for a moment, again and again, had other nodes drawn for their identity each time.
#[test]
fn an_identity_that_goes_at_once_comes_back_with_its_nodes() {
    let mut node = owner(12, Settings::hurried());
    let sample: Vec<_> = (2..80).map(|number| Candidate { contact: neighbour(number), ..node.own.clone() }).collect();
    node.handle(NOW, Input::Sample(sample));
    let secret = Zeroizing::new([7; 32]);
    node.handle(NOW, Input::Lasting { identity: address(1), secret, sets: None });
    node.handle(NOW, Input::WantExit(address(1)));
    let persona = node.persona_of(address(1)).unwrap();
    let mut moments = (NOW..NOW + 10_000).step_by(100);
    let planned = moments.find(|now| node.is_due_now(*now, persona, Class::Out));
    node.handle(planned.unwrap(), Input::Forget(address(1)));
    let kept = std::iter::from_fn(|| node.poll()).any(|output| matches!(output, Output::Sets { .. }));
    assert!(kept, "what was drawn is lost");
}

/// Every clock of a computer that slept is overdue when it wakes up: what belongs together would begin together.
// protocol: K9
#[test]
fn after_a_sleep_no_two_classes_build_in_one_moment() {
    let mut node = owner(8, Settings::default());
    for number in 1..=4 {
        node.handle(NOW, Input::WantExit(address(number)));
        node.handle(NOW, Input::WantEntry(key(number), Serials::default()));
    }
    node.tick(NOW);
    let woken = NOW + 24 * STEP_MS;
    node.tick(woken);
    let ticks: Vec<u64> = node.personas.values_mut().flat_map(|own| own.stocks().map(|stock| stock.next())).collect();
    assert!(ticks.len() >= 8 && ticks.iter().all(|tick| *tick > woken), "{ticks:?}");
    assert_eq!(ticks.iter().collect::<BTreeSet<_>>().len(), ticks.len(), "two at once");
}

/// What is under way when a clock is set back by hours had to wait for these hours, and nothing new could begin.
#[test]
fn a_clock_that_is_set_back_holds_up_neither_clocks_nor_records() {
    let mut node = owner(9, Settings { entry_paths: 1, ..Settings::hurried() });
    let late = NOW + 2 * STEP_MS;
    node.tick(late);
    node.handle(late, Input::WantEntry(key(1), Serials::default()));
    let persona = node.persona_of(address(1)).unwrap();
    build(&mut node, late, persona, Class::In);
    node.serve(late);
    assert!(sent(&mut node, late).iter().any(|(_, _, record)| record.step_of() == late / STEP_MS));
    let mut records = Vec::new();
    for tick in 0..50 {
        node.tick(NOW + tick * 100);
        records.extend(sent(&mut node, NOW + tick * 100));
    }
    assert!(records.iter().any(|(_, _, record)| record.step_of() == NOW / STEP_MS), "no record of the present step");
    let ticks = node.personas.values_mut().flat_map(|own| own.stocks().map(|stock| stock.next()));
    assert!(ticks.into_iter().all(|tick| tick < NOW + 20 * 60_000), "a clock waits for the time that was wrong");
}

/// An owner is not known by the error of its clock: what it stamps is everybody's time. What others would believe is bounded.
// protocol: E6, E7
#[test]
fn records_bear_the_time_of_the_network() {
    let step_of_first = |now: u64, ahead: Option<i64>| {
        let mut node = owner(14, Settings { publish_within: 0, ..Settings::default() });
        node.handle(now, Input::Clock(ahead));
        node.handle(now, Input::WantEntry(key(1), Serials::default()));
        let persona = node.persona_of(address(1)).unwrap();
        build(&mut node, now, persona, Class::In);
        node.look_at = 0;
        node.tick(now);
        let record = std::iter::from_fn(|| node.poll()).find_map(|output| match output {
            Output::Serve { record, .. } => Some(record),
            _ => None,
        });
        let record = Signed::<ApRecord>::from_bytes(&record.unwrap()).unwrap();
        let checked = [now - STEP_MS, now, now + STEP_MS].into_iter().find_map(|time| record.check(time / 1000).ok());
        (checked.unwrap().step_of() * STEP_MS).cast_signed() - (NOW - NOW % STEP_MS).cast_signed()
    };
    let begin = NOW - NOW % STEP_MS;
    // Our clock says that the step has just begun; it began 90 s ago, or begins in 90 s.
    assert_eq!(step_of_first(begin + 30_000, None), 0);
    assert_eq!(step_of_first(begin - 30_000, Some(90_000)), 0);
    assert_eq!(step_of_first(begin + 30_000, Some(-90_000)), -STEP_MS.cast_signed());
    // Hours are no correction.
    assert_eq!(step_of_first(begin + 600_000, Some(4 * STEP_MS.cast_signed())), 0);
    let mut node = owner(15, Settings::default());
    node.handle(NOW, Input::Clock(Some(119_000)));
    assert_eq!(node.vitals(NOW).clock_off, None);
    node.handle(NOW, Input::Clock(Some(-600_000)));
    assert_eq!(node.vitals(NOW).clock_off, Some(-600_000));
}

/// What all identities of a computer have lost while it slept they did without for two seconds, and built anew together.
// protocol: K17
#[test]
fn after_a_sleep_each_identity_replaces_what_it_lost_at_a_time_of_its_own() {
    let woken = NOW + 24 * STEP_MS;
    one_by_one(woken, |node| node.note_time(woken));
}

/// So it was in another network, where all was lost at once.
// protocol: K26
#[test]
fn in_another_network_each_identity_replaces_what_it_lost_at_a_time_of_its_own() {
    one_by_one(NOW + 20, |node| node.handle(NOW + 20, Input::Moved));
}

fn one_by_one(woken: u64, wake: impl Fn(&mut Node)) {
    let mut node = owner(16, Settings { unborn: 0, ..Settings::default() });
    for number in 1..=20 {
        node.handle(NOW, Input::WantExit(address(number)));
    }
    node.tick(NOW);
    wake(&mut node);
    let mut first: Vec<u64> = Vec::new();
    for now in (woken..woken + 600_000).step_by(100) {
        node.pursue(now);
        let tried = node
            .personas
            .values_mut()
            .filter_map(|own| own.stocks().iter().any(|stock| stock.has_tried()).then_some(()));
        first.resize(tried.count(), now - woken);
    }
    assert!(first.len() >= 19, "{first:?}");
    let soon = first.iter().filter(|after| **after < 10_000).count();
    assert!(soon <= 8, "{soon} of 20 within ten seconds: {first:?}");
    assert!((30_000..120_000).contains(&(first.iter().sum::<u64>() / first.len() as u64)), "{first:?}");
}

/// B5: within seconds of a build that failed its owner looked at its guards: whoever had killed it saw by that whose it was.
// protocol: O19
#[test]
fn the_guards_of_a_build_that_failed_are_looked_at_at_times_of_their_own() {
    let begin = NOW + 2 * STEP_MS;
    let mut after = Vec::new();
    for seed in 100..120 {
        let mut node = owner(seed, Settings::default());
        let sample = (2..80).map(|number| Candidate { contact: neighbour(number), ..node.own.clone() });
        let sample: Vec<_> = sample.collect();
        for now in [NOW, begin] {
            node.handle(now, Input::Sample(sample.clone()));
        }
        while node.poll().is_some() {}
        let guards: Vec<_> = node.choice.guards().collect();
        node.failed(begin, begin, None, &Case::nobody(), &guards, crate::path::BuildError::Late);
        let mut looked = BTreeSet::new();
        for now in (begin..begin + 900_000).step_by(100) {
            node.look_at_guards(now);
            for output in std::iter::from_fn(|| node.poll()) {
                if let Output::Dial { to, .. } = output
                    && looked.insert(to.node_id())
                {
                    after.push(now - begin);
                }
            }
        }
        assert!(guards.iter().all(|guard| looked.contains(guard)), "a dead guard would fail every build");
    }
    let mean = after.iter().sum::<u64>() / after.len() as u64;
    assert!((40_000..90_000).contains(&mean), "{mean} ms on average");
    let soon = after.iter().filter(|after| **after < 10_000).count();
    assert!(soon * 3 < after.len(), "{soon} of {} within ten seconds", after.len());
    let moments: BTreeSet<_> = after.iter().collect();
    assert!(moments.len() * 10 > after.len() * 9, "each at a time of its own: {after:?}");
}

/// A guard that was away for a week with a look or two was as one that had been dialed in vain for ages.
#[test]
fn a_guard_that_stays_silent_counts_as_one_dial_in_vain() {
    let mut node = owner(17, Settings::default());
    let sample: Vec<_> = (2..80).map(|number| Candidate { contact: neighbour(number), ..node.own.clone() }).collect();
    for now in [NOW, NOW + 2 * STEP_MS] {
        node.handle(now, Input::Sample(sample.clone()));
    }
    let guard = node.choice.guards().next().unwrap();
    let silent = |node: &mut Node, at| node.handle(at, Input::Silent([guard].into()));
    let before = node.choice.to_bytes();
    silent(&mut node, NOW + 3 * STEP_MS);
    let once = node.choice.to_bytes();
    assert_ne!(before, once);
    (0..100).for_each(|number| silent(&mut node, NOW + 3 * STEP_MS + number * 2_000));
    assert_eq!(node.choice.to_bytes(), once, "each time that the database said so counted");
    node.handle(NOW + 4 * STEP_MS, Input::Silent(BTreeSet::new()));
    assert_eq!(node.choice.to_bytes(), before, "it has answered");
}

/// A service whose entries had retired published no more, although they stood on for hours and none could be built in their place; and
/// when others could, a record left at once, although none was lost.
// protocol: K25, H2, H3
#[test]
fn entries_that_have_retired_are_named_while_others_are_missing() {
    // The one that retired last fills the place that is left.
    retired_and_replaced(2, &[2]);
    retired_and_replaced(3, &[]);
}

fn retired_and_replaced(others: usize, still_named: &[usize]) {
    let mut node = owner(18, Settings { publish_within: 0, ..Settings::default() });
    node.handle(NOW, Input::WantEntry(key(1), Serials::default()));
    let persona = node.persona_of(address(1)).unwrap();
    let old: Vec<_> = (0..3).map(|_| build(&mut node, NOW, persona, Class::In)).collect();
    for (number, no) in old.iter().enumerate() {
        node.paths.get_mut(no).and_then(Path::owned_mut).unwrap().retires = NOW + STEP_MS + number as u64;
    }
    let named = |node: &Node, record: &ApRecord| -> Vec<usize> {
        let handle = |no: &PathNo| node.paths[no].owned().unwrap().handle;
        let of = |no| record.entries.iter().any(|entry| entry.handle == handle(no));
        old.iter().enumerate().filter(|(_, no)| of(no)).map(|(number, _)| number).collect()
    };
    let mut last = 0;
    let mut run = |node: &mut Node, steps: u64| {
        let from = NOW + last * STEP_MS;
        last += steps;
        let mut all = Vec::new();
        for now in (from..from + steps * STEP_MS).step_by(1000) {
            node.serve(now);
            all.extend(sent(node, now).into_iter().map(|(_, _, record)| record));
        }
        all
    };
    let records = run(&mut node, 6);
    let steps: BTreeSet<_> = records.iter().map(ApRecord::step_of).collect();
    assert!(steps.len() >= 6, "{steps:?}");
    assert!(records.iter().all(|record| named(&node, record) == [0, 1, 2]));
    for _ in 0..others {
        build(&mut node, NOW + 6 * STEP_MS, persona, Class::In);
    }
    let records = run(&mut node, 4);
    assert!(records.iter().all(|record| record.serial as u16 == 0), "out of turn");
    assert_eq!(named(&node, records.last().unwrap()), still_named);
    assert_eq!(records.last().unwrap().entries.len(), 3);
}
