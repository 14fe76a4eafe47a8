//! Unix: commands that lead to what its desktops, its service managers and its sockets in the file system are.

use std::path::Path;
use std::process::ExitCode;

use tokio::runtime::Runtime;

use super::args::{Command, Setup};
use super::{console, desktop, print, print_whole, serve, setup, unit};

pub(super) fn setup(wanted: &Setup, runtime: &Runtime) -> anyhow::Result<ExitCode> {
    setup::run(wanted, runtime).map(ExitCode::from)
}

/// The rest of those commands.
pub(super) async fn run(socket: &Path, as_json: bool, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Console(wanted) => console::run(socket, as_json, wanted).await,
        Command::Desktop(command) => say(as_json, &desktop::run(&command, as_json)?),
        Command::Unit(command) => say(as_json, &unit::run(socket, &command, as_json).await?),
        Command::Serve(wanted) => serve::run(socket, as_json, wanted).await,
        _ => Ok(()),
    }
}

/// What may be JSON by now.
fn say(as_json: bool, text: &str) -> anyhow::Result<()> {
    Ok(if as_json { print_whole(text) } else { print(text) }?)
}
