//! Programs of two identities, of one daemon: neither gets at the other, and none becomes another by what it sets or starts.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use phantom_tests::{Way, stdout};

use crate::capture::Capture;
use crate::user::Own;
use crate::world::{Linked, Victim, World};

/// The user of both.
const ROOT: &str = "0";

/// Attacks on a process that works, or not: none of them may.
const ROBBERIES: [&str; 9] = [
    "setns",
    "setns-all",
    "setns-pidfd",
    "ptrace",
    "process_vm_writev",
    "proc-mem",
    "pidfd_getfd",
    "proc-root",
    "veth",
];

/// Listens on loopback and at an abstract socket, as many programs do among themselves; then waits to be robbed.
const NEIGHBOUR: &str = "
import os, socket, sys
port, abstract = socket.create_server(('127.0.0.1', 7777)), socket.socket(socket.AF_UNIX)
abstract.bind('\\0phantom-neighbour')
abstract.listen()
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
    os.dup2(datagrams.fileno(), 7)
print(os.getpid(), flush=True)
sys.stdin.read()
";

/// Says what it could reach of the neighbour.
const VISITOR: &str = "
import socket
for family, address in (socket.AF_INET, ('127.0.0.1', 7777)), (socket.AF_UNIX, '\\0phantom-neighbour'):
    with socket.socket(family) as s:
        s.settimeout(5)
        try:
            s.connect(address)
            print('reached', address)
        except OSError:
            pass
";

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

fn output(own: &Own, way: Way, list: &[&str]) -> Result<String> {
    let output = own.program(Some(way), &words(list))?.output()?;
    stdout(&output).with_context(|| format!("{list:?} by {way:?}"))
}

/// Asks for a name, or for the name of an address, as a program would that wants to know who was here before.
const ASKS: &str = "
import socket, sys
try:
    if ':' in sys.argv[1]:
        print(socket.getnameinfo((sys.argv[1], 0), socket.NI_NAMEREQD)[0])
    else:
        print(socket.getaddrinfo(sys.argv[1], 0, socket.AF_INET6)[0][4][0])
except socket.gaierror:
    print('unknown')
";

/// A full name that stands for an address and is nobody's: any key will do.
const NAME: &str = "g2zwidio7vgm2u3non5rzrdh6ugm3izfpkcdxonatvu7s52ra2apdtyb.phantom";

/// What one identity asks for is not known to another.
fn nobody_else_has_heard_of_it(own: &Own) -> Result<()> {
    for way in Way::ALL {
        let ask = |what: &str| output(own, way, &["python3", "-c", ASKS, what]);
        let address = ask(NAME)?.trim().to_owned();
        ensure!(address.starts_with("fd70:"), "{way:?}: {address}");
        let both = format!("python3 -c \"$0\" {NAME}; python3 -c \"$0\" {address}");
        let said = output(own, way, &["sh", "-c", &both, ASKS])?;
        ensure!(said.ends_with(&format!("{NAME}\n")), "{way:?}: an identity forgets: {said}");
        let said = ask(&address)?;
        ensure!(said == "unknown\n", "{way:?}: another run has asked for it: {said}");
    }
    Ok(())
}

#[test]
fn identities_do_not_get_at_each_other() -> Result<()> {
    let world = World::make(ROOT)?;
    let own = Own::start(&world, ROOT)?;
    nobody_else_has_heard_of_it(&own)?;
    let capture = Capture::start("1")?;
    for theirs in Way::ALL {
        let neighbour = own.program(Some(theirs), &words(&["python3", "-c", NEIGHBOUR]))?;
        let neighbour = Victim::start(neighbour)?;
        for ours in Way::ALL {
            let mut hostile = world.hostile(Linked::Dynamic, own.socket(), Path::new("/none"));
            hostile.retain(|word| !word.starts_with("victim="));
            hostile.extend([format!("victim={}", neighbour.said), "group=doors".into()]);
            let said = stdout(&own.program(Some(ours), &hostile)?.output()?)?;
            let reports = crate::table::reports(&said)?;
            for robbery in ROBBERIES {
                let report = reports.iter().find(|report| report.name == robbery).context("not tried")?;
                ensure!(report.result.starts_with('E'), "{ours:?} on {theirs:?}: {robbery} {}", report.result);
            }
            let reached = output(&own, ours, &["python3", "-c", VISITOR])?;
            ensure!(reached.is_empty(), "{ours:?} on {theirs:?}: {reached}");
        }
    }
    let seen = capture.end()?;
    ensure!(seen.others.is_empty(), "{:#?}", seen.others);
    Ok(())
}

/// The addresses that a program has, one line.
fn addresses(own: &Own, way: Way) -> Result<String> {
    let text = output(own, way, &["ip", "-6", "-o", "addr", "show", "scope", "global"])?;
    ensure!(text.contains("phantom0"), "{way:?}: no address: {text}");
    let address = text.split_whitespace().nth(3).context("no address")?;
    Ok(address.to_owned())
}

#[test]
fn nothing_makes_a_program_leave_its_identity_for_the_world() -> Result<()> {
    let world = World::make(ROOT)?;
    let own = Own::start(&world, ROOT)?;
    let hostile = world.hostile(Linked::Dynamic, own.socket(), Path::new("/none")).remove(0);
    let run = own.folder().join("phantom-run").display().to_string();
    let socket = own.socket().display().to_string();
    let capture = Capture::start("1")?;
    for way in Way::ALL {
        // Emulated sockets have no interface to ask.
        if way != Way::Emulate {
            let (one, two) = (addresses(&own, way)?, addresses(&own, way)?);
            ensure!(one != two, "{way:?}: two runs have one address");
        }
        // What a program sets for the programs that it starts.
        for setting in [
            "PHANTOM_SOCKET=/nowhere",
            "PHANTOM_SOCKET=",
            "PHANTOM_SESSION=none",
            "PHANTOM_SESSION=00000000000000000000000000000001",
            "PHANTOM_IDENTITY=../../etc/passwd",
            "PHANTOM_LIBRARY=/dev/null",
            "LD_PRELOAD=",
        ] {
            refused(own.program(Some(way), &words(&["env", setting, &hostile, "--plain", "200"]))?)?;
        }
        // One launcher inside the other: if the inner one works, then as an identity of Phantom.
        for inner in ["auto", "namespace", "inject", "preload"] {
            let program =
                [&run, "--daemon", &socket, "--quiet", "--isolation", inner, "--", &hostile, "--plain", "201"];
            refused(own.program(Some(way), &words(&program))?)?;
        }
    }
    let seen = capture.end()?;
    ensure!(seen.attacks.is_empty() && seen.others.is_empty(), "{seen:#?}");
    Ok(())
}

/// Runs a program that tries to get a packet out, and exits with what kept it; 200 and above if nothing did.
fn refused(mut program: Command) -> Result<()> {
    let output = program.output()?;
    let code = output.status.code();
    ensure!(code.is_some_and(|code| (1..200).contains(&code)), "{program:?}: {output:?}");
    Ok(())
}
