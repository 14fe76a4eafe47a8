//! The command line of `phantom-run`.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum, ValueHint};
use phantom_ipc::name::{NameError, check};
use phantom_ipc::publish::Publish;
use phantom_ipc::release::release;
use phantom_ipc::{ENV_IDENTITY, ENV_PUBLISH};

/// Starts a program so that its only network is Phantom.
///
/// Whatever the program connects to goes through the phantom network; whatever is no phantom address is refused; names
/// are resolved by Phantom alone. The program needs no settings for it. Others reach those of its ports that --publish names,
/// and nothing else; ports below 1024 need no privilege.
#[derive(Debug, Parser)]
#[command(name = "phantom-run", version = release(), after_long_help = EXAMPLES, override_usage = USAGE, max_term_width = 100)]
pub(crate) struct Options {
    /// Identity to run as, made by `phantom identity new NAME` [default: PHANTOM_IDENTITY, else a fresh one for this run]
    // Not clap's `env`: an empty variable counts as unset, an empty name is a mistake.
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(crate) identity: Option<String>,

    /// The daemon's socket [default: PHANTOM_SOCKET, else that of your own daemon, else root's /run/phantom/daemon.sock]
    // Not clap's `env`: an empty variable counts as unset, see `phantom_ipc::default_socket`.
    #[arg(long = "daemon", value_name = "SOCKET")]
    pub(crate) socket: Option<PathBuf>,

    /// How the program is kept from other networks
    #[arg(long, value_enum, default_value_t = Isolation::Auto, value_name = "WAY")]
    pub(crate) isolation: Isolation,

    /// A port of this computer's loopback that the program may reach on its own 127.0.0.1 and ::1. May be repeated; not
    /// with emulate
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) allow_local: Vec<u16>,

    /// A socket in the file system that the program may use, though whoever listens there acts for it outside: a database's,
    /// an agent's. May be repeated
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) allow_socket: Vec<PathBuf>,

    /// Let others reach these ports of the program, or all that it listens on; at once, before it listens. Nothing else of it
    /// is reached. With :NAME they reach it at the persistent identity NAME, made if there is none, while the program
    /// connects as another: address and path do not link the two, what it says and when it answers still may. May be
    /// repeated [default: PHANTOM_PUBLISH, else nothing]
    // Not clap's `env`: it splits at commas, and an empty variable counts as unset.
    #[arg(long, value_name = "PORT[,PORT...][:NAME]|all[:NAME]")]
    pub(crate) publish: Vec<Publish>,

    /// End the program, and fail, when a visit from outside does not reach what is published within five minutes, or nothing has
    /// listened for others by then on a port that was named
    #[arg(long)]
    pub(crate) publish_or_fail: bool,

    /// What becomes of the program when the daemon ends, and with it the program's network
    #[arg(long, value_enum, default_value_t = OnLoss::Wait, value_name = "WHAT")]
    pub(crate) on_daemon_loss: OnLoss,

    /// Let the program see this computer's name and numbers: host name, machine-id, boot_id
    #[arg(long)]
    pub(crate) show_host: bool,

    /// Say on standard error which ways were tried, and why one was not taken
    #[arg(long)]
    pub(crate) explain: bool,

    /// Say nothing but errors
    #[arg(long, short, conflicts_with = "explain")]
    pub(crate) quiet: bool,

    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM", value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,
}

impl Options {
    /// As whom the program is to run; none for a fresh identity.
    pub(crate) fn identity(&self) -> Result<Option<String>> {
        if self.identity.is_some() {
            return Ok(self.identity.clone());
        }
        let Some(set) = env::var_os(ENV_IDENTITY).filter(|set| !set.is_empty()) else { return Ok(None) };
        name(&set.to_string_lossy()).map(Some).with_context(|| format!("the variable {ENV_IDENTITY} holds no name"))
    }

    /// What others are to reach.
    pub(crate) fn publish(&self) -> Result<Vec<Publish>> {
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

/// Ways to hand a program over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Isolation {
    /// The strongest way that can be had here, in the order below; if there is none, the program is not started
    Auto,
    /// Inside the phantom namespace: nothing that the program does reaches another network
    Namespace,
    /// A supervisor answers each socket() with a socket of the phantom namespace; all other sockets are refused
    Inject,
    /// By libphantom.so in LD_PRELOAD, and a filter: a static program or one that avoids libc has no network
    Preload,
    /// By libphantom.so too, with sockets that the daemon emulates: where there can be no phantom namespace
    Emulate,
}

/// What becomes of a program without a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnLoss {
    /// It lives on without a network
    Wait,
    /// It is ended (SIGTERM, then SIGKILL), and phantom-run fails, so that a service manager may start both anew
    Exit,
}

const USAGE: &str = "phantom-run [OPTIONS] [--] PROGRAM [ARGUMENT]...";

const EXAMPLES: &str = "\
Examples:
  phantom-run curl http://NAME.phantom/
  phantom-run ssh USER@NAME.phantom
  phantom-run bash                         a shell, and all that it starts
  phantom-run --publish 80:web python3 -m http.server 80
                                           others reach port 80 at the address
                                           `web`, which lasts
  phantom-run --publish all ./peer         others reach all that it listens on
  phantom-run --allow-local 5432 ./server  this computer's port 5432
  phantom-run --allow-socket /run/mysqld/mysqld.sock ./server
                                           a service at a socket

Environment: PHANTOM_SOCKET, PHANTOM_IDENTITY and PHANTOM_PUBLISH stand for --daemon, --identity and --publish; PHANTOM_LIBRARY says where \
libphantom.so is, if neither beside phantom-run nor in ../lib.

Exit status: the program's own; 125 if phantom-run failed or ended the program (--on-daemon-loss, --publish-or-fail), 126 if the program cannot be \
executed, 127 if it was not found.";
