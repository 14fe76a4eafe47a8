//! Conformance that nobody here wrote: what passes of other projects' suites without Phantom passes with it, in each way.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use phantom_tests::{Way, binary};

#[test]
fn suites_of_others_pass_as_they_do_without_phantom() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let binaries = binary("phantomd");
    let mut command = Command::new(root.join("scripts/suites"));
    command.arg("core").arg("--binaries").arg(binaries.parent().expect("it lies in a folder"));
    for way in Way::ALL {
        command.args(["--way", way.flag()]);
    }
    // Its progress is for whoever waits; the verdict, with every difference, is its last word.
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stdout));
    Ok(())
}
