//! `phantomd`, the daemon: reads its command line and hands over.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use phantom_daemon::args::{Cli, Command, Options};
use phantom_daemon::assembly;
use phantom_daemon::config::{Config, Folders};
use phantom_daemon::control::SocketError;
use phantom_daemon::listening::Sockets;
use phantom_daemon::logging;
use phantom_daemon::names::Peer;
use phantom_daemon::random::system_rng;
use phantom_daemon::service::{self, After, Left, complain, is_broken_pipe};
use phantom_daemon::startup::{self, Initialized, StartError};
use phantom_daemon::{command_line, laid_out};
use phantom_proto::wire::NodeContact;

fn main() -> ExitCode {
    #[cfg(unix)]
    if let Some(code) = errand() {
        return code;
    }
    #[cfg(unix)]
    phantom_daemon::successor::remember();
    let cli: Cli = command_line(|_| None);
    let result = match &cli.command {
        _ if cli.check_config => check(&cli.options),
        Some(Command::Init { .. }) => init(&cli.options).and_then(|made| Ok(describe(&made)?)),
        None => run(&cli.options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let code = exit_code(&error);
            let (who, error) = told(error, cli.command.as_ref());
            complain(who, &error, code)
        }
    }
}

/// What the daemon starts itself for.
#[cfg(unix)]
fn errand() -> Option<ExitCode> {
    use phantom_daemon::{control, gate};
    let what = std::env::args_os().nth(1)?;
    if what == gate::HELPER_ARGUMENT {
        // First of all: the helper must have one thread only.
        return Some(ExitCode::from(u8::try_from(gate::helper::main()).unwrap_or(1)));
    }
    if what == control::RECEIVE_ARGUMENT {
        let most = std::env::args().nth(2).and_then(|most| most.parse().ok())?;
        return Some(control::take_in(most).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS));
    }
    (what == control::BURY_ARGUMENT).then(|| {
        control::end_last();
        ExitCode::SUCCESS
    })
}

/// The error in words that whoever started us can do something with, and who it is that says them.
fn told(error: anyhow::Error, command: Option<&Command>) -> (&'static str, anyhow::Error) {
    let Some(Command::Init { elsewhere: Some(words) }) = command else { return ("phantomd", error) };
    let why = error.downcast_ref::<StartError>().map(|why| why.told(words));
    ("phantom", why.map_or(error, anyhow::Error::msg))
}

/// The list is in the help.
fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<SocketError>() {
        Some(SocketError::InUse(_)) => 4,
        _ => error.downcast_ref::<StartError>().map_or(1, StartError::exit_code),
    }
}

fn init(options: &Options) -> anyhow::Result<Initialized> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout());
    let consent = startup::consent(options, &mut input, &mut output);
    Ok(startup::init(options, &Folders::here(), consent, &mut system_rng()?)?)
}

/// Nothing is made or bound: a daemon may run with the same.
fn check(options: &Options) -> anyhow::Result<()> {
    let config = Config::load(&options.overrides(), &Folders::here()).map_err(StartError::from)?;
    startup::check(&config)?;
    let mut out = Vec::new();
    writeln!(out, "data           {}", config.data_dir.display())?;
    writeln!(out, "socket         {}", config.socket.display())?;
    writeln!(out, "listen         {}", config.listen)?;
    if let Some(advertise) = config.advertise {
        writeln!(out, "advertise      {advertise}")?;
    }
    writeln!(out, "peers          {}", config.peers.len())?;
    writeln!(out, "aliases        {}", config.aliases.len())?;
    writeln!(out, "resolver       {}", if config.resolver.is_some() { "as configured" } else { "none" })?;
    writeln!(out, "log            {}", config.log)?;
    match &config.metrics {
        Some(at) => writeln!(out, "metrics        {at}, at /metrics")?,
        None => writeln!(out, "metrics        off")?,
    }
    let keys = &config.commands.keys;
    match keys.is_nobody() {
        true => writeln!(out, "commands       of nobody")?,
        false => writeln!(out, "commands       of {} of {} maintainers", keys.threshold(), keys.keys().len())?,
    }
    let ignored: Vec<_> = config.commands.ignored.iter().map(|kind| kind.name()).collect();
    if !ignored.is_empty() {
        writeln!(out, "ignored        {}: your paths differ from those of others", ignored.join(", "))?;
    }
    writeln!(out, "the configuration is right")?;
    Ok(print(&out)?)
}

/// What `init` tells: where things are, and what to give to others.
fn describe(made: &Initialized) -> io::Result<()> {
    let mut out = Vec::new();
    writeln!(out, "node id        {}", made.node.node_id())?;
    writeln!(out, "data           {}", made.config.data_dir.display())?;
    if let Some(path) = &made.written {
        writeln!(out, "configuration  {}", path.display())?;
    }
    let addr = made.config.advertise.unwrap_or(made.config.listen);
    if addr.port() == 0 || addr.ip().is_unspecified() {
        writeln!(out, "peer string    see `phantom status` once it runs (or set `advertise`)")?;
    } else {
        let identity = made.node.key.verifying_key();
        writeln!(out, "peer string    {}", Peer(NodeContact { identity, addr, link_secret: made.node.link_secret }))?;
    }
    print(&out)
}

/// On a terminal no word is broken.
fn print(lines: &[u8]) -> io::Result<()> {
    io::stdout().write_all(laid_out(&String::from_utf8_lossy(lines)).as_bytes())
}

/// What the process before has left.
#[cfg(unix)]
fn before() -> (Sockets, Option<Left>) {
    let handover = phantom_daemon::handover::take().map(|handover| (handover.listening, handover.left)).unzip();
    (handover.0.unwrap_or_default(), handover.1)
}

/// See the other.
#[cfg(windows)]
fn before() -> (Sockets, Option<Left>) {
    (Sockets::default(), None)
}

fn run(options: &Options) -> anyhow::Result<()> {
    // `init` would write a named file that is missing; to run with it is a mistake.
    Config::load(&options.overrides(), &Folders::here()).map_err(StartError::from)?;
    let ready = init(options)?;
    logging::start(logging::parse(&ready.config.log)?)?;
    let (listening, left) = before();
    let setup = startup::prepare(ready, listening)?;
    let after = service::block_on(service::run(setup, left, assembly::start));
    #[cfg(unix)]
    phantom_daemon::control::bury_the_last();
    match after? {
        After::Nothing => Ok(()),
        #[cfg(unix)]
        After::Next(handover, asked) => match phantom_daemon::handover::become_next(*handover, &asked) {
            None => Ok(()),
            Some(error) => {
                Err(anyhow::Error::new(error).context("the daemon ends, for the next one could not be started"))
            }
        },
        #[cfg(unix)]
        After::OfManager(handover) => phantom_daemon::handover::leave_to_next(*handover)
            .context("the service manager did not keep what programs have open"),
    }
}
