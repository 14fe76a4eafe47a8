//! `phantom`, the command line: asks the daemon in the admin dialect and shows the answer to people or scripts.

pub mod args;
mod net;
mod show;
mod table;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use phantom_ipc::admin::{self, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::service::complain;
use args::{Address, Cli, Command, Forward, List, Netdb, What};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain("phantom", &error.into(), 1),
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our output has seen enough (`phantom peer list | head`).
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => complain("phantom", &error, 1),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let request = match cli.command {
        Command::Testnet(command) => return net::run(command, cli.json).await,
        Command::Status => Request::Status,
        Command::Address(Address::New { name }) => Request::AddressNew { name },
        Command::Address(Address::List) => Request::AddressList,
        Command::Address(Address::Show { name }) => Request::AddressShow { name },
        Command::Path(List::List) => Request::PathList,
        Command::Peer(List::List) => Request::PeerList,
        Command::Connection(List::List) => Request::Connections,
        Command::Netdb(Netdb::Lookup { address }) => Request::NetdbLookup { address },
        Command::Forward(forward) => forward_request(forward),
        Command::Stop => Request::Stop,
    };
    let exchange = Exchange { socket: cli.daemon.unwrap_or_else(phantom_ipc::default_socket), json: cli.json };
    match &request {
        Request::Status => exchange.run(&request, show::status).await,
        Request::AddressNew { .. } | Request::AddressShow { .. } => exchange.run(&request, show::address).await,
        Request::AddressList => exchange.run(&request, |list: &Vec<admin::Address>| show::addresses(list)).await,
        Request::PathList => exchange.run(&request, |list: &Vec<admin::Path>| show::paths(list)).await,
        Request::PeerList => exchange.run(&request, |list: &Vec<admin::Peer>| show::peers(list)).await,
        Request::Connections => exchange.run(&request, |list: &Vec<admin::Connection>| show::connections(list)).await,
        Request::NetdbLookup { .. } => exchange.run(&request, show::lookup).await,
        Request::ForwardNew { .. } => exchange.run(&request, show::forward).await,
        Request::ForwardList => exchange.run(&request, |list: &Vec<admin::Forward>| show::forwards(list)).await,
        Request::ForwardRemove { .. } => exchange.run(&request, |count: &u64| show::removed(*count)).await,
        Request::Stop => exchange.run(&request, |(): &()| "stopped\n".to_owned()).await,
    }
}

fn forward_request(Forward { what, identity, keep, remove }: Forward) -> Request {
    match (what, remove) {
        (Some(What { port, to }), _) => Request::ForwardNew { port, to, identity, keep },
        (None, Some(port)) => Request::ForwardRemove { port, identity },
        (None, None) => Request::ForwardList,
    }
}

struct Exchange {
    socket: PathBuf,
    json: bool,
}

impl Exchange {
    /// Asks, and prints the answer as JSON or as `show` lays it out.
    async fn run<T>(&self, request: &Request, show: impl FnOnce(&T) -> String) -> anyhow::Result<()>
    where
        T: Serialize + DeserializeOwned,
    {
        let answer: T = Client::connect(&self.socket).await?.ask(request).await?;
        let text = if self.json { json(&answer)? } else { show(&answer) };
        Ok(print(&text)?)
    }
}

fn json(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(value).map(|text| text + "\n")
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
