//! Whoever starts phantom-run, and what comes with it: limits.

use std::process::{Command, Output};

use anyhow::{Result, ensure};
use phantom_tests::alone::among_all_users;
use phantom_tests::{Alone, Kind, Way};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn limited(limit: &str, command: &Command) -> Command {
    let mut limited = Command::new("prlimit");
    limited.arg(limit).arg(command.get_program()).args(command.get_args());
    limited
}

/// LimitFSIZE= of a unit's, `ulimit -f`: what is laid over the system's files cannot be written.
#[test]
fn a_limit_of_file_sizes_is_told_and_no_reason_for_a_weaker_way() -> Result<()> {
    let alone = Alone::shared()?;
    for kind in Kind::ALL {
        for quiet in [None, Some("--quiet")] {
            let mut run = alone.tool(kind, "phantom-run");
            let output = limited("--fsize=0", run.args(quiet).args(["--", "echo", "runs"])).output()?;
            let told = stderr(&output);
            ensure!(output.status.code() == Some(125) && output.stdout.is_empty(), "{kind:?}: {output:?}");
            ensure!(told.contains("ulimit -f") && !told.contains("inject"), "{kind:?}: {told}");
        }
    }
    Ok(())
}

/// Who may start so many processes and no more is told so, whichever of ours is the one too many.
#[test]
fn a_limit_of_processes_is_told() -> Result<()> {
    let alone = Alone::shared()?;
    for kind in [Kind::OfRoots, Kind::Own] {
        for way in [Way::Inject, Way::Preload] {
            let (mut ran, mut refused) = (0, 0);
            for most in 1..16 {
                // In a user namespace of its own a user's other processes do not count.
                let run = alone.run(kind, way, &["echo", "runs"]);
                let output = among_all_users(&limited(&format!("--nproc={most}"), &run)).output()?;
                let told = stderr(&output);
                if output.status.success() {
                    ran += 1;
                    continue;
                }
                refused += 1;
                ensure!(output.status.code() == Some(125), "{kind:?} by {way:?}, {most}: {output:?}");
                ensure!(
                    told.contains("ulimit -u") && !told.contains("was killed"),
                    "{kind:?}, {way:?}, {most}: {told}"
                );
            }
            ensure!(ran > 0 && refused > 0, "{kind:?} by {way:?}: {ran} ran, {refused} were refused");
        }
    }
    Ok(())
}
