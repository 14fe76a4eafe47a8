//! Programs whose daemon dies: before they start, while they start, while their connections are open.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::{CLIENT, Server, Way, drain, signal};

use crate::capture::Capture;
use crate::table::{Table, reports};
use crate::world::{BUS, Linked};
use crate::{Stage, TABLE, column};

/// Holds a connection; when told that the daemon is dead, says what became of it and turns into the hostile program.
const CLINGER: &str = "
import os, socket, sys
with socket.create_connection((sys.argv[1], 80), timeout=60) as held:
    print('open', flush=True)
    sys.stdin.readline()
    held.settimeout(5)
    try:
        print('received', len(held.recv(1)), flush=True)
    except OSError as error:
        print('ended', type(error).__name__, flush=True)
os.execv(sys.argv[2], sys.argv[2:])
";

/// A program that holds a connection.
struct Clinger {
    way: Way,
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Clinger {
    fn start(stage: &Stage, node: usize, way: Way, name: &str) -> Result<Self> {
        let hostile = stage.hostile(Linked::Dynamic, node);
        let mut words = vec!["python3", "-c", CLINGER, name];
        words.extend(hostile.iter().map(String::as_str));
        let mut command = stage.network.program(node, way, None, &words);
        // Nobody answers questions then; and it is said often that there is no network.
        command.env("RES_OPTIONS", "timeout:1 attempts:1").env(BUS.0, BUS.1).stderr(Stdio::null());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let said = BufReader::new(child.stdout.take().context("no pipe")?);
        Ok(Self { way, child, said })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn told(&mut self) -> Result<()> {
        Ok(self.child.stdin.as_mut().context("no pipe")?.write_all(b"dead\n")?)
    }
}

impl Drop for Clinger {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            signal(pid, libc::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

/// How a daemon dies.
#[derive(Debug, Clone, Copy)]
struct Death {
    node: usize,
    signal: libc::c_int,
}

#[test]
fn a_daemon_that_dies_lets_nothing_out() -> Result<()> {
    let stage = Stage::set()?;
    let http = ["python3", "-u", "-m", "http.server", "80"];
    let (_server, name) = stage.network.serve(Way::Namespace, "www", &http, "Serving")?;
    let deaths = [libc::SIGSTOP, libc::SIGTERM, libc::SIGKILL];
    let deaths = [0, 1, 2].map(|at| Death { node: CLIENT + at, signal: deaths[at] });
    let mut clingers = Vec::new();
    for death in deaths {
        for way in Way::ALL {
            clingers.push(Clinger::start(&stage, death.node, way, &name)?);
        }
    }
    for clinger in &mut clingers {
        let said = clinger.line()?;
        ensure!(said == "open", "{:?}: no connection: {said}", clinger.way);
    }
    let capture = Capture::start(&stage.port)?;
    let mut attacks = BTreeMap::new();
    for (death, clingers) in deaths.into_iter().zip(clingers.chunks_mut(Way::ALL.len())) {
        let daemon = stage.network.pid(death.node)?;
        let starting = programs_that_start(&stage, death.node)?;
        signal(daemon, death.signal);
        let after = after_death(&stage, death, clingers);
        // A stopped one goes on, so that it can be ended.
        signal(daemon, libc::SIGCONT);
        drop(starting);
        attacks.extend(after.with_context(|| format!("{death:?}"))?);
    }
    let seen = capture.end()?;
    let table = Table::parse(TABLE)?;
    // What gets out while the daemon lives does so afterwards; nothing else may.
    let mut open = Vec::new();
    for way in Way::ALL {
        open.extend(table.open(column(Some(way), Linked::Dynamic))?);
    }
    let named = |number: &usize| attacks.get(number).map_or("unheard of", String::as_str);
    let more: Vec<&str> = seen.attacks.iter().map(named).filter(|name| !open.contains(name)).collect();
    ensure!(more.is_empty() && seen.others.is_empty(), "attacks {more:?} got out, and {:#?}", seen.others);
    Ok(())
}

/// One program in each way that starts while its daemon dies: whatever it comes to, it is seen by the capture.
fn programs_that_start(stage: &Stage, node: usize) -> Result<Vec<Server>> {
    let hostile = stage.hostile(Linked::Dynamic, node);
    let words: Vec<&str> = hostile.iter().map(String::as_str).collect();
    let start = |way| {
        let mut command = stage.network.program(node, way, None, &words);
        command.env(BUS.0, BUS.1).stderr(Stdio::null());
        Server::start(command)
    };
    Way::ALL.into_iter().map(start).collect()
}

/// What programs find out when their daemon is dead; the attacks that they tried, by number.
fn after_death(stage: &Stage, death: Death, clingers: &mut [Clinger]) -> Result<BTreeMap<usize, String>> {
    let mut attacks = BTreeMap::new();
    for clinger in &mut *clingers {
        clinger.told()?;
    }
    for clinger in clingers {
        let fate = clinger.line()?;
        ensure!(!fate.starts_with("received 1"), "{:?}: bytes from nowhere", clinger.way);
        let stopped = death.signal == libc::SIGSTOP;
        ensure!(
            stopped || fate != "ended TimeoutError",
            "{:?}: the connection outlives the daemon: {fate}",
            clinger.way
        );
        let said = drain(&mut clinger.said)?;
        for report in reports(&said)? {
            let network = ["udp", "tcp", "tcp6", "getaddrinfo", "dns-over-tcp"].contains(&report.name.as_str());
            ensure!(
                !network || !["done", "answered"].contains(&report.result.as_str()),
                "{:?}: {} {} without a daemon",
                clinger.way,
                report.name,
                report.result
            );
            attacks.insert(report.number, report.name);
        }
    }
    // Started now, a program has no network: it is not started at all.
    if death.signal != libc::SIGSTOP {
        for way in Way::ALL {
            let mut command: Command = stage.network.program(death.node, way, None, &["touch", "/run/started"]);
            let output = command.output()?;
            ensure!(output.status.code() == Some(125), "{way:?}: {output:?}");
            ensure!(!std::path::Path::new("/run/started").exists(), "{way:?}: it was started");
        }
    }
    Ok(attacks)
}
