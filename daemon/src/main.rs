//! `phantomd`, the daemon: reads its command line and hands over.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use phantom_daemon::args::{Cli, Command, Options};
use phantom_daemon::assembly;
use phantom_daemon::config::{Config, Folders};
use phantom_daemon::control::{self, SocketError};
use phantom_daemon::gate;
use phantom_daemon::logging;
use phantom_daemon::names::Peer;
use phantom_daemon::random::system_rng;
use phantom_daemon::service::{self, complain};
use phantom_daemon::startup::{self, Initialized, StartError};
use phantom_proto::wire::NodeContact;

fn main() -> ExitCode {
    // First of all: the helper must have one thread only.
    if std::env::args_os().nth(1).is_some_and(|first| first == gate::HELPER_ARGUMENT) {
        return ExitCode::from(u8::try_from(gate::helper::main()).unwrap_or(1));
    }
    if std::env::args_os().nth(1).is_some_and(|first| first == control::BURY_ARGUMENT) {
        control::end_last();
        return ExitCode::SUCCESS;
    }
    let cli = Cli::parse();
    let result = match cli.command {
        _ if cli.check_config => check(&cli.options),
        Some(Command::Init) => init(&cli.options).and_then(|made| Ok(describe(&made)?)),
        None => run(&cli.options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain("phantomd", &error, exit_code(&error)),
    }
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
    let mut out = io::stdout().lock();
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
    Ok(writeln!(out, "the configuration is right")?)
}

/// What `init` tells: where things are, and what to give to others.
fn describe(made: &Initialized) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "node id        {}", made.node.node_id())?;
    writeln!(out, "data           {}", made.config.data_dir.display())?;
    if let Some(path) = &made.written {
        writeln!(out, "configuration  {}", path.display())?;
    }
    let addr = made.config.advertise.unwrap_or(made.config.listen);
    if addr.port() == 0 || addr.ip().is_unspecified() {
        return writeln!(out, "peer string    see `phantom status` once it runs (or set `advertise`)");
    }
    let identity = made.node.key.verifying_key();
    writeln!(out, "peer string    {}", Peer(NodeContact { identity, addr, link_secret: made.node.link_secret }))
}

fn run(options: &Options) -> anyhow::Result<()> {
    // `init` would write a named file that is missing; to run with it is a mistake.
    Config::load(&options.overrides(), &Folders::here()).map_err(StartError::from)?;
    let ready = init(options)?;
    logging::start(logging::parse(&ready.config.log)?)?;
    let setup = startup::prepare(ready)?;
    service::block_on(service::run(setup, assembly::start))
}
