//! Races: threads that connect, close, dup, pass, fork and look names up at random, all ways at one time.
//!
//! `PHANTOM_RACE_SECONDS` says how long (20), `PHANTOM_RACE_THREADS` how many threads (16), `PHANTOM_RACE_WAYS` in which ways, as `--isolation` calls them (all). With `PHANTOM_RACE_TSAN`, which names a run time of ThreadSanitizer, the
//! programs are built with it, for a library that is built so too and named by `PHANTOM_LIBRARY`: see `scripts/races`.
#![allow(missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use phantom_tests::{
    CLIENT, Network, PATIENCE, SERVER, Way, descriptors_beside_links, eventually, processes, stdout, within,
};

/// Descriptors of a daemon that come and go by themselves, links aside: files of its store, programs that ask it.
const COMING_AND_GOING: usize = 16;

#[test]
fn threads_that_race_lose_nothing_and_leave_nothing() -> Result<()> {
    let network = Network::shared()?;
    let folder = network.folder("races")?;
    let sanitizer = std::env::var("PHANTOM_RACE_TSAN").ok();
    let wanted = std::env::var("PHANTOM_RACE_WAYS").ok();
    let (client, echo) =
        (compile(&folder, "races", sanitizer.as_deref())?, compile(&folder, "echo", sanitizer.as_deref())?);
    let is_wanted = |way: &Way| wanted.as_ref().is_none_or(|wanted| wanted.split(',').any(|one| one == way.flag()));
    let ways: Vec<_> = Way::ALL.into_iter().filter(is_wanted).collect();
    ensure!(!ways.is_empty(), "PHANTOM_RACE_WAYS names no way: {wanted:?}");
    let before = descriptors_of_daemons(&network)?;
    thread::scope(|scope| {
        let race = |way, port: u16| {
            // At once: the others go on, and may fail for another reason.
            race(&network, way, &client, &echo, &port.to_string()).inspect_err(|error| eprintln!("{way:?}: {error:#}"))
        };
        let running: Vec<_> =
            ways.into_iter().zip(7001..).map(|(way, port)| scope.spawn(move || race(way, port))).collect();
        running.into_iter().try_for_each(|one| one.join().expect("no assertion in a race"))
    })?;
    // What was given up is kept for its other end for a while, and some of it goes only then: 73 s on an idle machine.
    within(3 * PATIENCE, || {
        let after = descriptors_of_daemons(&network)?;
        let more = after.iter().zip(&before).any(|(after, before)| *after > before + COMING_AND_GOING);
        ensure!(!more, "the daemons had {before:?} descriptors open beside their links, now {after:?}");
        Ok(())
    })
}

/// One way at both ends.
fn race(network: &Network, way: Way, client: &Path, echo: &Path, port: &str) -> Result<()> {
    // Its own file name tells the server's process from the others.
    let echo_of_way = echo.with_file_name(format!("echo-{port}"));
    std::fs::copy(echo, &echo_of_way)?;
    let program = echo_of_way.to_str().context("path")?;
    let identity = format!("race-{port}");
    let (_server, name) = network.serve(way, &identity, &[program, port], "listening")?;
    let address = network.phantom(SERVER, &["address", "show", &identity])?;
    let address = address["address"].as_str().context("no address")?.to_owned();
    let idle = descriptors(server_of(program)?)?;

    let seconds = std::env::var("PHANTOM_RACE_SECONDS").unwrap_or_else(|_| "20".to_owned());
    let threads = std::env::var("PHANTOM_RACE_THREADS").unwrap_or_else(|_| "16".to_owned());
    let words = [client.to_str().context("path")?, &name, &address, port, &seconds, &threads, port];
    let mut command = network.program(CLIENT, way, None, &words);
    // A report of a race ends the program with an error; forks of threads are part of the game.
    command.env("TSAN_OPTIONS", "die_after_fork=0 halt_on_error=1 exitcode=66").stdin(Stdio::null());
    let said = stdout(&command.output()?).with_context(|| format!("{way:?}"))?;
    eprintln!("{way:?}: {}", said.trim());
    let totals: serde_json::Value = serde_json::from_str(&said)?;
    let [exchanges, unreached] = ["exchanges", "unreached"].map(|deed| totals[deed].as_u64().unwrap_or_default());
    ensure!(unreached * 100 <= exchanges, "{way:?}: connections timed out: {said}");
    for deed in ["exchanges", "refusals", "abandoned", "forks", "names"] {
        ensure!(totals[deed].as_u64() > Some(0), "{way:?}: nothing of {deed}: {said}");
    }
    eventually(|| {
        let left = descriptors(server_of(program)?)?;
        ensure!(left <= idle, "{way:?}: the server had {idle} descriptors open, now {left}");
        Ok(())
    })
}

/// Compiles one of our C programs, with the whole run time of a sanitizer in it for a library to find there.
fn compile(folder: &Path, name: &str, sanitizer: Option<&str>) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("races").join(name).with_extension("c");
    let (object, program) = (folder.join(name).with_extension("o"), folder.join(name));
    let flags: &[&str] = if sanitizer.is_some() { &["-fsanitize=thread"] } else { &[] };
    let mut compile = Command::new("cc");
    compile.args(["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-c"]).args(flags);
    compile.arg("-o").args([&object, &source]);
    let mut link = Command::new("cc");
    link.args(["-pthread", "-rdynamic", "-o"]).args([&program, &object]);
    if let Some(run_time) = sanitizer {
        link.args(["-Wl,--whole-archive", run_time, "-Wl,--no-whole-archive", "-ldl", "-lm", "-lrt", "-lstdc++"]);
    }
    for mut step in [compile, link] {
        stdout(&step.output()?).with_context(|| format!("{step:?}"))?;
    }
    Ok(program)
}

fn server_of(program: &str) -> Result<libc::pid_t> {
    let found = processes()?.into_iter().find(|process| process.words.first().is_some_and(|word| word == program));
    Ok(found.context("the server is gone")?.pid)
}

fn descriptors(pid: libc::pid_t) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Without links to other nodes, which outlive their uses by up to an hour: what of them is left behind, a simulation with less patience
/// counts.
fn descriptors_of_daemons(network: &Network) -> Result<Vec<usize>> {
    [CLIENT, SERVER].into_iter().map(|node| descriptors_beside_links(network.pid(node)?)).collect()
}
