//! The line that a process keeps to the daemon is in nobody's way, and nothing depends on it.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panic

mod world;

use phantom_ipc::hook::Request;
use world::{World, compile, run};

/// The world after a victim did `what` and found nothing wrong.
fn after(what: &str) -> World {
    after_publishing(None, what)
}

/// The same of a victim that offers `ports`, which nobody takes.
fn after_publishing(ports: Option<&str>, what: &str) -> World {
    let world = World::new();
    let victim = compile(&world, "line", &["-pthread"]);
    let mut command = world.hooked(&victim);
    command.arg(what).envs(ports.map(|ports| ("PHANTOM_PUBLISH", ports)));
    let ran = run(&mut command);
    let complains = what == "jailed" || ports.is_some();
    assert_eq!((ran.out.as_str(), ran.code, ran.err.is_empty()), ("", Some(0), !complains), "{ran:?}");
    world
}

fn lines(world: &World) -> usize {
    world.requests().iter().filter(|request| matches!(request, Request::Line { .. })).count()
}

#[test]
fn sockets_come_by_one_line() {
    let world = after("kept");
    assert_eq!((world.connections(), lines(&world), world.requests().len()), (1, 1, 101));
}

#[test]
fn children_have_lines_of_their_own_whatever_the_threads_of_their_parent_do() {
    after("forked");
}

#[test]
fn children_that_begin_within_a_signal_handler_have_lines_of_their_own() {
    after("interrupted");
}

/// Publishing is asked for anew at each socket here, which takes most of the time between a turn's beginning and the signals'
/// end: nearly every child begins there.
#[test]
fn children_that_begin_within_a_turn_have_lines_of_their_own() {
    after_publishing(Some("80"), "interrupted");
}

#[test]
fn a_line_that_the_program_closed_is_opened_anew() {
    assert_eq!(lines(&after("closed")), 4);
}

#[test]
fn what_a_program_puts_in_its_place_is_the_programs() {
    assert_eq!(lines(&after("covered")), 2);
}

#[test]
fn the_last_free_descriptor_becomes_a_socket() {
    after("full");
}

#[test]
fn a_line_that_has_ended_is_opened_anew() {
    assert_eq!(lines(&after("ended")), 4);
}

#[test]
fn programs_that_give_up_paths_and_rights_keep_the_line() {
    after("jailed");
}
