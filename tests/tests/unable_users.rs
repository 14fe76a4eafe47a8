//! Ordinary users where nobody may make namespaces, as Ubuntu's rule of AppArmor has it: of root's daemon, and with their own.

use std::os::unix::net::UnixListener;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use phantom_tests::alone::{SELF, among_all_users, unable};
use phantom_tests::{Alone, Kind, Way, stdout};

/// What the first way needs, and who says that it cannot be had.
const NAMED: &str = "namespace: entering the";

#[test]
fn programs_run_among_the_users_others_which_is_said() -> Result<()> {
    let alone = Alone::shared()?;
    let (deputies, bus) = (alone.folder.make("deputies")?, alone.folder.at("deputies/bus"));
    let _deputy = UnixListener::bind(&bus)?;
    for kind in [Kind::OfRoots, Kind::Own] {
        for way in [Some(Way::Inject), Some(Way::Preload), Some(Way::Emulate), None] {
            let mut run = alone.tool(kind, "phantom-run");
            run.args(way.iter().flat_map(|way| ["--isolation", way.flag()])).args(["--", "python3", "-c", SELF]);
            let output = unable(&run).env("XDG_RUNTIME_DIR", &deputies).output()?;
            let told = String::from_utf8_lossy(&output.stderr);
            let said = stdout(&output).with_context(|| format!("{kind:?} by {way:?}"))?;
            ensure!(said == "True\nself\n", "{kind:?} by {way:?}: {said}");
            ensure!(told.contains("among your other programs"), "{kind:?} by {way:?}: {told}");
            // With the reason, and not one that was thought of beforehand.
            let warned = told.lines().find(|line| line.contains("warning: no mounts")).context("no warning")?;
            ensure!(warned.contains("/proc/sys/user") && warned.contains(&bus), "{kind:?} by {way:?}: {told}");
        }
        let mut run = alone.tool(kind, "phantom-run");
        run.args(["--isolation", "namespace", "--", "true"]);
        let output = unable(&run).output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(125) && told.contains("not started"), "{kind:?}: {told}");
        // Who started the session is who asks: that is never the reason.
        ensure!(told.contains(NAMED) && !told.contains("who started this session"), "{kind:?}: {told}");
    }
    Ok(())
}

/// What an ordinary login has: nothing that it may do, and no limit of what a file may give it.
#[test]
fn the_user_of_these_tests_is_an_ordinary_one() -> Result<()> {
    let alone = Alone::shared()?;
    let mut look = alone.command(Kind::Own, "cat");
    let status = stdout(&unable(look.arg("/proc/self/status")).output()?)?;
    let value = |name: &str| -> Result<&str> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        Ok(line.trim())
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        ensure!(value(set)?.bytes().all(|digit| digit == b'0'), "{status}");
    }
    ensure!(value("CapBnd:")?.ends_with("ffffffff") && value("NoNewPrivs:")? == "0", "{status}");
    Ok(())
}

/// A user's hostile program may make as many namespaces as the machine permits, and wait for the next program to be started.
#[test]
fn namespaces_that_others_have_used_up_are_no_reason_for_a_weaker_way() -> Result<()> {
    let alone = Alone::shared()?;
    let hold = "import ctypes, os, sys, time\nassert ctypes.CDLL(None).unshare(int(sys.argv[1], 16)) == 0\nopen(sys.argv[2], 'w')\ntime.sleep(600)";
    for kind in [Kind::OfRoots, Kind::Own] {
        // The namespaces that keep programs in, and one that hides what the computer is called.
        for (limited, flags) in [("user", "10000000"), ("uts", "14000000")] {
            let ready = format!("{}/{limited}", alone.folder.make(&format!("used-{kind:?}-{limited}"))?);
            let mut held = alone.command(kind, "setpriv");
            held.args(["--pdeathsig", "KILL", "python3", "-c", hold, flags, &ready]);
            let words: Vec<String> = std::iter::once(held.get_program())
                .chain(held.get_args())
                .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")))
                .collect();
            let script = format!(
                "echo 1 >/proc/sys/user/max_{limited}_namespaces; {} & for i in $(seq 600); do [ ! -e {ready} ] || break; sleep 0.1; done; \"$@\"; \
                 status=$?; kill $!; exit $status",
                words.join(" ")
            );
            let mut run = alone.tool(kind, "phantom-run");
            run.args(["--", "echo", "runs"]);
            let mut with = Command::new("sh");
            with.args(["-c", &script, "sh"]).arg(run.get_program()).args(run.get_args());
            let output = among_all_users(&with).output()?;
            let told = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.code() == Some(125) && output.stdout.is_empty(), "{kind:?}, {limited}: {output:?}");
            ensure!(told.contains("as many of them as the machine permits"), "{kind:?}, {limited}: {told}");
        }
    }
    Ok(())
}
