//! The unit of docs/servers.md under a real systemd.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use phantom_tests::{binary, stdout};

#[test]
fn the_documented_unit_works() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    let binaries = binary("phantom-run");
    let mut script = Command::new(root.join("scripts/systemd"));
    let said = stdout(&script.env("PHANTOM_BIN", binaries.parent().context("a folder")?).output()?)?;
    // One line for each thing that was shown.
    for shown in ["notify", "watchdog", "killed", "daemon killed", "stopped", "socket unit"] {
        ensure!(said.lines().any(|line| line.starts_with(&format!("{shown}:"))), "{shown}: {said}");
    }
    Ok(())
}
