//! Which warnings facts lead to, when they are told, and which are another's effect.

use std::time::Duration;

use phantom_ipc::admin::CheckState;
use phantom_proto::ident::NodeId;
use proptest::prelude::*;

use super::*;
use crate::router::Refused;

/// A node that lacks nothing.
fn well() -> Facts {
    let vitals = Vitals { guards: 3, ..Vitals::default() };
    Facts {
        connected: 8,
        known: 11,
        exit_paths: 2,
        waits_for: None,
        ready_tunnels: 4,
        relayed_paths: 1,
        most_relayed: 10,
        reachable: Some(true),
        says_unreachable: false,
        router: Forwarding::default(),
        port: 8443,
        published: Some(true),
        clock_ahead: Some(300),
        vitals,
        around: Around { free: Some(1 << 40), ..Around::default() },
        commands: CommandFacts::default(),
    }
}

/// The codes that are told after so many seconds of these facts, and what each is caused by.
fn told(facts: &Facts, seconds: u64) -> Vec<(String, Option<String>)> {
    let (mut health, now) = (Health::default(), Instant::now());
    health.look(now, facts);
    let later = now + Duration::from_secs(seconds);
    health.look(later, facts);
    health.warnings(later).into_iter().map(|warning| (warning.code, warning.caused_by)).collect()
}

fn roots(facts: &Facts) -> Vec<String> {
    told(facts, 3600).into_iter().filter(|(_, cause)| cause.is_none()).map(|(code, _)| code).collect()
}

fn a_build() -> Option<String> {
    Some("a build".into())
}

#[test]
fn a_node_that_lacks_nothing_has_no_warning_and_every_check_is_good() {
    assert!(told(&well(), 86_400).is_empty());
    let checks = checks(&well(), std::path::Path::new("/data"), "192.0.2.1:443");
    assert!(checks.iter().all(|check| check.state == CheckState::Good && check.advice.is_none()), "{checks:?}");
    assert_eq!(worst(&checks, &[]), CheckState::Good);
}

#[test]
fn what_follows_from_a_cause_is_not_told_beside_it() {
    let vitals = Vitals { failures: 7, unseen: 1, problem: Some("too few".into()), ..Vitals::default() };
    let cut_off = Facts {
        connected: 0,
        exit_paths: 0,
        waits_for: a_build(),
        ready_tunnels: 0,
        vitals,
        published: Some(false),
        ..well()
    };
    assert_eq!(roots(&cut_off), ["no-peers"]);
    let all = told(&cut_off, 3600);
    assert!(all.len() > 5 && all[1..].iter().all(|(_, cause)| cause.as_deref() == Some("no-peers")), "{all:?}");
    // With peers again the next cause is what is told.
    assert_eq!(roots(&Facts { connected: 3, published: Some(true), ..cut_off }), ["no-plan", "builds-fail"]);
}

/// It is no fault, and nothing else is its effect; who has said so knows.
#[test]
fn who_cannot_be_reached_is_told_so_and_that_programs_work_all_the_same() {
    let hidden = Facts { reachable: Some(false), published: None, ..well() };
    assert_eq!(told(&hidden, 0), [("unreachable".to_owned(), None)]);
    let (mut health, now) = (Health::default(), Instant::now());
    health.look(now, &hidden);
    let warning = &health.warnings(now)[0];
    assert!(warning.text.contains("visit and serve all the same") && warning.text.contains("8443"), "{warning:?}");
    assert!(!warning.affects_connections && warning.advice.contains("forward the port"), "{warning:?}");
    let of = |facts: &Facts, name: &str| {
        let all = checks(facts, std::path::Path::new("/data"), "192.0.2.1:443");
        all.into_iter().find(|check| check.name == name).unwrap()
    };
    assert_eq!([of(&hidden, "port").state, of(&hidden, "own-record").state], [CheckState::Good, CheckState::Good]);
    assert!(of(&hidden, "port").advice.is_some_and(|advice| advice.contains("forward the port")));
    let said = Facts { says_unreachable: true, ..hidden };
    assert!(told(&said, 3600).is_empty());
    assert_eq!(of(&said, "port").state, CheckState::Good);
    assert_eq!(of(&Facts { reachable: None, ..well() }, "port").state, CheckState::Unknown);
}

#[test]
fn what_passes_by_itself_is_not_told() {
    let busy = Facts { ready_tunnels: 0, ..well() };
    assert!(told(&busy, 29).is_empty());
    assert_eq!(told(&busy, 30), [("no-tunnel".to_owned(), None)]);
    // Twice for a moment is not long.
    let (mut health, now) = (Health::default(), Instant::now());
    for second in 0..100 {
        let facts = if second % 20 == 19 { well() } else { busy.clone() };
        health.look(now + Duration::from_secs(second), &facts);
        assert!(health.warnings(now + Duration::from_secs(second)).is_empty(), "{second}");
    }
}

/// A cause that is not told yet silences its effects all the same: else they would be told first.
#[test]
fn an_effect_is_never_told_before_its_cause() {
    let alone = Facts { connected: 0, exit_paths: 0, waits_for: a_build(), ready_tunnels: 0, ..well() };
    for seconds in 0..200 {
        let told = told(&alone, seconds);
        assert!(told.iter().all(|(code, cause)| code == "no-peers" || cause.is_some()), "{seconds}: {told:?}");
    }
}

#[test]
fn a_warning_says_more_than_its_title_where_there_is_more() {
    let bad = Note::KillsBuilds(NodeId([0xab; 32]));
    let vitals = Vitals { clock_off: Some(-600_000), choice: vec![bad], ..well().vitals };
    let (mut health, now) = (Health::default(), Instant::now());
    health.look(now, &Facts { vitals, ..well() });
    let warnings = health.warnings(now);
    assert!(warnings[0].text.contains("about 10 min ahead of"), "{warnings:?}");
    assert!(warnings[1].text.contains("abababab"), "{warnings:?}");
    assert!(!about("guard-kills-builds").unwrap().title.contains("abab"));
}

#[test]
fn who_has_no_path_is_told_what_it_waits_for_and_what_is_done_about_it() {
    let facts = Facts { exit_paths: 0, waits_for: Some("a third guard".into()), ..well() };
    let (mut health, now) = (Health::default(), Instant::now());
    health.look(now, &facts);
    let [no_path] = &health.warnings(now + Duration::from_secs(60))[..] else { panic!("one warning") };
    assert!(no_path.text.ends_with("; it waits for a third guard"), "{no_path:?}");
    assert!(no_path.advice.starts_with("the daemon builds one") && no_path.advice.contains("; wait"), "{no_path:?}");
}

#[test]
fn a_check_of_guards_advises_about_what_is_wrong_with_them() {
    let vitals = Vitals { choice: vec![Note::Provisional, Note::Trial], ..well().vitals };
    let all = checks(&Facts { vitals, ..well() }, std::path::Path::new("/data"), "192.0.2.1:443");
    let guards = all.iter().find(|check| check.name == "guards").unwrap();
    assert_eq!(guards.state, CheckState::Warning);
    assert_eq!(guards.advice.as_deref(), Some(&*about("guard-trial").unwrap().help()));
}

#[test]
fn steps_of_the_start_take_the_time_since_the_one_before() {
    let (mut health, now) = (Health::default(), Instant::now());
    let at = |seconds| now + Duration::from_secs(seconds);
    let none = Facts { connected: 0, known: 0, exit_paths: 0, ready_tunnels: 0, vitals: Vitals::default(), ..well() };
    health.look(now, &none);
    health.look(at(2), &Facts { connected: 1, ..none.clone() });
    health.look(at(5), &Facts { connected: 1, known: 9, vitals: well().vitals, ..none.clone() });
    let steps = health.start(at(9));
    let seen: Vec<_> = steps.iter().map(|step| (step.done, step.milliseconds / 1000)).collect();
    assert_eq!(seen, [(true, 2), (true, 3), (true, 0), (false, 4), (false, 0)]);
    // What was done stays done.
    health.look(at(10), &none);
    assert!(health.start(at(10))[0].done);
}

#[test]
fn how_bad_it_is_depends_on_connections_and_severity() {
    let checks_of = |facts: &Facts| checks(facts, std::path::Path::new("/data"), "192.0.2.1:443");
    let warned = |facts: &Facts| {
        let (mut health, now) = (Health::default(), Instant::now());
        health.look(now, facts);
        health.warnings(now + Duration::from_secs(3600))
    };
    let state = |facts: &Facts| worst(&checks_of(facts), &warned(facts));
    let info = Vitals { choice: vec![Note::LayersOff, Note::Provisional], ..well().vitals };
    assert_eq!(state(&Facts { vitals: info, ..well() }), CheckState::Good, "a small network is no fault");
    assert_eq!(state(&Facts { published: Some(false), ..well() }), CheckState::Warning);
    assert_eq!(state(&Facts { exit_paths: 0, waits_for: a_build(), ..well() }), CheckState::Bad);
    // All were just at work, and who comes next waits for seconds.
    assert_eq!(state(&Facts { exit_paths: 0, ..well() }), CheckState::Good);
    // The only ready tunnel was just used: that is how it goes, unless it stays so.
    let used_up = Facts { ready_tunnels: 0, ..well() };
    assert_eq!(worst(&checks_of(&used_up), &[]), CheckState::Unknown);
    assert_eq!(state(&used_up), CheckState::Bad);
    let none = without_daemon("nobody listens\n  start one", &Around::default());
    assert_eq!((none[0].state, none[0].advice.as_deref()), (CheckState::Bad, Some("start one")));
    assert_eq!(worst(&none, &[]), CheckState::Bad);
}

proptest! {
    /// Whatever the facts, something that is not an effect is told whenever anything is, once all had time to show.
    #[test]
    fn effects_have_a_cause_that_is_told(
        (connected, exit_paths, ready_tunnels, failures) in (0usize..3, 0usize..2, 0usize..2, 0u32..9),
        (reachable, published) in (any::<Option<bool>>(), any::<Option<bool>>()),
        (unseen, fails) in (0usize..2, any::<bool>()),
    ) {
        let choice = if fails { vec![Note::NoThreeWork] } else { Vec::new() };
        let vitals = Vitals { failures, unseen, choice, ..well().vitals };
        let waits_for = a_build().filter(|_| exit_paths == 0);
        let facts = Facts { connected, exit_paths, waits_for, ready_tunnels, reachable, published, vitals, ..well() };
        let told = told(&facts, 3600);
        for (_, cause) in &told {
            let is_told = |cause: &String| told.iter().any(|(code, _)| code == cause);
            prop_assert!(cause.as_ref().is_none_or(is_told), "{:?}", told);
        }
        prop_assert!(told.is_empty() || told.iter().any(|(_, cause)| cause.is_none()), "{:?}", told);
    }
}

#[test]
fn what_is_out_of_order_with_commands_is_told_each_by_its_own_code() {
    let facts = |commands| Facts { commands, ..well() };
    let clean = CommandFacts::default;
    assert_eq!(roots(&facts(CommandFacts { banned: true, ..clean() })), ["node-banned"]);
    assert_eq!(roots(&facts(CommandFacts { held: 1, ..clean() })), ["command-waits"]);
    assert_eq!(roots(&facts(CommandFacts { missing: 1, ..clean() })), ["command-missing"]);
    assert_eq!(roots(&facts(CommandFacts { forked: true, ..clean() })), ["command-forked"]);
    assert_eq!(roots(&facts(CommandFacts { ignored: true, ..clean() })), ["commands-ignored"]);
    // One that others are about to send is no news.
    assert!(told(&facts(CommandFacts { missing: 1, ..clean() }), 60).is_empty());
}

#[test]
fn how_far_a_clock_is_off_is_said_in_what_people_count_by() {
    for (ahead, says) in [
        (-600_400, "about 10 min ahead of"),
        (3_600_900, "about 1 h behind"),
        (-31_536_000_123, "about 365 d ahead of"),
        (i64::MIN, "ahead of"),
    ] {
        let said = clock_in_words(ahead);
        assert!(said.contains(says), "{ahead}: {said}");
    }
}

#[test]
fn what_the_router_does_is_told_with_what_to_do_by_hand_where_that_helps() {
    let told = |router, reachable| {
        let all = checks(&Facts { router, reachable, ..well() }, std::path::Path::new("/data"), "192.0.2.1:443");
        all.into_iter().find(|check| check.name == "router").unwrap()
    };
    let refused = told(Forwarding::Refused(Refused::Silent), Some(false));
    assert!(refused.text.contains("the router here does not forward the port"), "{refused:?}");
    assert!(refused.advice.is_some_and(|advice| advice.contains("forward TCP port 8443")));
    assert_eq!(refused.state, CheckState::Good, "programs lack nothing");
    let provider = told(Forwarding::Refused(Refused::Behind), Some(false));
    assert!(provider.advice.is_some_and(|advice| advice.contains("only the provider")));
    // Others come in by another way.
    assert!(told(Forwarding::Refused(Refused::Silent), Some(true)).advice.is_none());
    let outside = "5.6.7.8:40000".parse().unwrap();
    let forwards = Forwarding::Forwards { outside, here: crate::router::Here::default() };
    assert!(told(forwards, Some(true)).advice.is_none() && told(forwards, None).advice.is_none());
    assert!(told(forwards, Some(false)).advice.is_some_and(|advice| advice.contains("firewall")));
}
