//! Ordinary users where nobody may make namespaces, as Ubuntu's rule of AppArmor has it: of root's daemon, and with their own.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use phantom_tests::alone::{SELF, unable};
use phantom_tests::{Alone, Kind, Way, stdout};

/// The user's own words go before: the rule is for whoever is that user.
fn as_user(alone: &Alone, kind: Kind, run: &Command) -> Result<Command> {
    let words: Vec<_> = run.get_args().collect();
    let from = words.iter().position(|word| *word == "--").context("words of setpriv")? + 1;
    let mut inner = Command::new(words[from]);
    inner.args(&words[from + 1..]);
    let unable = unable(&inner);
    let mut command = alone.command(kind, "unshare");
    command.args(unable.get_args());
    Ok(command)
}

#[test]
fn programs_run_among_the_users_others_which_is_said() -> Result<()> {
    let alone = Alone::shared()?;
    for kind in [Kind::OfRoots, Kind::Own] {
        for way in [Some(Way::Inject), Some(Way::Preload), Some(Way::Emulate), None] {
            let mut run = alone.tool(kind, "phantom-run");
            run.args(way.iter().flat_map(|way| ["--isolation", way.flag()])).args(["--", "python3", "-c", SELF]);
            let output = as_user(&alone, kind, &run)?.output()?;
            let told = String::from_utf8_lossy(&output.stderr);
            let said = stdout(&output).with_context(|| format!("{kind:?} by {way:?}"))?;
            ensure!(said == "True\nself\n", "{kind:?} by {way:?}: {said}");
            ensure!(told.contains("among your other programs"), "{kind:?} by {way:?}: {told}");
        }
        let mut run = alone.tool(kind, "phantom-run");
        run.args(["--isolation", "namespace", "--", "true"]);
        let output = as_user(&alone, kind, &run)?.output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(125) && told.contains("not started"), "{kind:?}: {told}");
    }
    Ok(())
}
