//! The command line of `phantom-run` on Windows.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use phantom_ipc::name::{NameError, check};
use phantom_ipc::publish::Publish;
use phantom_ipc::release::release;
use phantom_ipc::{ENV_IDENTITY, ENV_PUBLISH};

/// Starts a program so that its network is Phantom.
///
/// Whatever the program connects to goes through the phantom network; whatever is no phantom address is refused; names
/// are resolved by Phantom alone. The program needs no settings for it. Others reach those of its ports that --publish names,
/// and nothing else. Only 64-bit programs (x64) can be carried; one that means to get out does, see docs/windows.md.
#[derive(Debug, Clone, Parser)]
#[command(name = "phantom-run", version = release(), after_long_help = EXAMPLES, override_usage = USAGE, max_term_width = 100)]
pub(super) struct Options {
    /// Identity to run as, made by `phantom identity new NAME` [default: PHANTOM_IDENTITY, else a fresh one for this run]
    // Not clap's `env`: an empty variable counts as unset, an empty name is a mistake.
    #[arg(long, value_name = "NAME", value_parser = name)]
    identity: Option<String>,

    /// The file that leads to the daemon [default: PHANTOM_SOCKET, else that of your own daemon]
    #[arg(long = "daemon", value_name = "FILE")]
    pub(super) socket: Option<PathBuf>,

    /// Let others reach these ports of the program, or all that it listens on. With :NAME they reach it at the persistent
    /// identity NAME, made if there is none. May be repeated [default: PHANTOM_PUBLISH, else nothing]
    #[arg(long, value_name = "PORT[,PORT...][:NAME]|all[:NAME]")]
    publish: Vec<Publish>,

    /// End the program, and fail, when a visit from outside does not reach what is published within five minutes, or nothing has
    /// listened for others by then on a port that was named
    #[arg(long)]
    pub(super) publish_or_fail: bool,

    /// What becomes of the program when the daemon ends, and with it the program's network
    #[arg(long, value_enum, default_value_t = OnLoss::Wait, value_name = "WHAT")]
    pub(super) on_daemon_loss: OnLoss,

    /// Say on standard error how the program is handed over, step by step
    #[arg(long)]
    pub(super) explain: bool,

    /// Say nothing but errors
    #[arg(long, short, conflicts_with = "explain")]
    pub(super) quiet: bool,

    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    pub(super) command: Vec<OsString>,
}

impl Options {
    /// As whom the program is to run; none for a fresh identity.
    pub(super) fn identity(&self) -> Result<Option<String>> {
        if self.identity.is_some() {
            return Ok(self.identity.clone());
        }
        let Some(set) = env::var_os(ENV_IDENTITY).filter(|set| !set.is_empty()) else { return Ok(None) };
        name(&set.to_string_lossy()).map(Some).with_context(|| format!("the variable {ENV_IDENTITY} holds no name"))
    }

    /// What others are to reach.
    pub(super) fn publish(&self) -> Result<Vec<Publish>> {
        if !self.publish.is_empty() {
            return Ok(self.publish.clone());
        }
        let set = env::var_os(ENV_PUBLISH).unwrap_or_default();
        let publish: Result<Vec<_>, _> = set.to_string_lossy().split_whitespace().map(str::parse).collect();
        let publish = publish.with_context(|| format!("the variable {ENV_PUBLISH}"))?;
        if publish.is_empty() && self.publish_or_fail {
            bail!("--publish-or-fail without --publish: say which ports others are to reach");
        }
        Ok(publish)
    }
}

/// A name that the daemon would take.
fn name(text: &str) -> Result<String, NameError> {
    check(text).map(|()| text.to_owned())
}

/// What becomes of a program without a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OnLoss {
    /// It lives on without a network, until there is a daemon again
    Wait,
    /// It is ended, and phantom-run fails, so that whoever started it may start both anew
    Exit,
}

const USAGE: &str = "phantom-run [OPTIONS] [--] PROGRAM [ARGUMENT]...";

const EXAMPLES: &str = "\
Examples:
  phantom-run curl http://NAME.phantom/
  phantom-run --publish 80:web python -m http.server 80
                                           others reach port 80 at the address `web`, which lasts

Environment: PHANTOM_SOCKET, PHANTOM_IDENTITY and PHANTOM_PUBLISH stand for --daemon, --identity and --publish; PHANTOM_LIBRARY says where \
phantom.dll is, if not beside phantom-run.

Exit status: the program's own; 125 if phantom-run failed or ended the program (--on-daemon-loss, --publish-or-fail), 126 if the program cannot be \
executed, 127 if it was not found.";
