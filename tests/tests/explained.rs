//! Whatever does not come about is explained by phantom-run: which step, which cause, what to do.
#![allow(missing_docs)]

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::{Alone, CLIENT, Kind, Network, SERVER, Server, Way, phantom_run};

/// What phantom-run and the program say on standard error, which fails.
fn said(network: &Network, way: Way, options: &[&str], program: &[&str]) -> Result<String> {
    let mut command = phantom_run(&network.nodes[CLIENT].socket, way);
    let output = command.args(options).arg("--").args(program).stdin(Stdio::null()).output()?;
    ensure!(!output.status.success(), "{program:?} by {way:?}");
    Ok(String::from_utf8(output.stderr)?)
}

#[test]
fn failed_connections_and_names_are_explained() -> Result<()> {
    let network = Network::shared()?;
    let idle = ["sh", "-c", "echo up; exec sleep 1000"];
    let (_server, name) = network.serve(Way::Namespace, "idle", &idle, "up")?;
    let nobody = network.address(SERVER, "never-published")?;
    for way in Way::ALL {
        for (host, cause) in [
            (&*name, "refused by the other end"),
            (&nobody, "nobody has published that address"),
            ("www.example.com", "no such name: www.example.com; known are `.phantom` names"),
            ("192.0.2.1", "no connection to 192.0.2.1: that address is none of this network"),
            ("[2001:db8::1]", "no connection to 2001:db8::1: that address is none of this network"),
            ("mistyped.phantom", "no such name: mistyped.phantom; before .phantom stand the 56 characters"),
        ] {
            let url = format!("http://{host}:81/");
            let curl = ["curl", "-sS", "-m", "80", &url];
            let heard = said(&network, way, &[], &curl)?;
            ensure!(heard.contains(cause) && !heard.contains(".invalid"), "{way:?} {host}: {heard}");
            ensure!(
                cause.starts_with("no ") || heard.contains(&format!("no connection to port 81 of {host}")),
                "{heard}"
            );
            ensure!(!said(&network, way, &["--quiet"], &curl)?.contains("phantom-run"), "{way:?} {host}");
        }
        // Once, however often it is tried.
        let often = format!("for i in 1 2 3 4 5; do curl -sS -m 80 http://{name}:81/ 2>/dev/null; done; exit 1");
        let heard = said(&network, way, &[], &["sh", "-c", &often])?;
        ensure!(heard.matches("no connection to port 81").count() == 1, "{way:?}: {heard}");
    }
    Ok(())
}

/// Where no other node is known, a program would see a minute pass without a word.
#[test]
fn whoever_waits_for_a_connection_is_told_what_it_waits_for() -> Result<()> {
    let alone = Alone::shared()?;
    for way in Way::ALL {
        let run = alone.tool(Kind::Root, "phantom-run");
        let mut heard = Command::new("sh");
        heard.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(run.get_program()).args(run.get_args());
        heard.args(["--isolation", way.flag(), "--", "curl", "-sS", "http://[fd70::1]/"]);
        let waits = "a connection waits until the network database can be asked for the address (the daemon waits for ";
        Server::start_heard(&mut heard, waits).with_context(|| format!("{way:?}"))?;
    }
    Ok(())
}
