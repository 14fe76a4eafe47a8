//! Windows: what is not there yet.

use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use tokio::runtime::Runtime;

use super::args::{Command, Setup};

pub(super) fn setup(_: &Setup, _: &Runtime) -> anyhow::Result<ExitCode> {
    bail!("there is no `phantom setup` on Windows yet\n  `phantomd init --peer PEER` makes a node, `phantomd` runs it")
}

/// See the module.
pub(super) async fn run(_: &Path, _: bool, _: Command) -> anyhow::Result<()> {
    bail!("this command is not there on Windows yet\n  docs/windows.md says what is")
}
