//! `phantom`, the command line: asks the daemon in the admin dialect and shows the answer to people or scripts.

pub mod args;
mod ask;
mod desktop;
mod doctor;
mod examples;
mod identity;
mod log;
pub mod maintain;
mod net;
mod passphrase;
pub mod peers;
mod serve;
mod setup;
mod show;
mod table;
mod top;
mod unit;
mod wait;

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
    if let Command::Setup(options) = &cli.command {
        return match setup::run(options) {
            Ok(status) => ExitCode::from(status),
            Err(error) => complain("phantom", &error, 1),
        };
    }
    match runtime.block_on(run(cli)) {
        Ok(code) => code,
        // Whoever reads our output has seen enough (`phantom peer list | head`).
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => complain("phantom", &error, 1),
    }
}

/// One of our own programs, which lie in one folder.
fn beside(program: &str) -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(program))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let exchange = Exchange { socket: cli.daemon.unwrap_or_else(phantom_ipc::default_socket), json: cli.json };
    match cli.command {
        Command::Testnet(command) => net::run(command, exchange.json).await?,
        Command::Doctor => return doctor::run(&exchange.socket, exchange.json).await,
        Command::Top => top::run(&exchange.socket).await?,
        Command::Log { follow } => log::run(&exchange.socket, exchange.json, follow).await?,
        // Run by now, outside of this runtime.
        Command::Setup(_) => {}
        Command::Desktop(command) => print(&desktop::run(&command, exchange.json)?)?,
        Command::Unit(command) => print(&unit::run(&command, exchange.json)?)?,
        Command::Identity(command) => identity::run(&exchange.socket, exchange.json, command).await?,
        Command::Command(command) => maintain::run(&exchange.socket, exchange.json, command).await?,
        Command::Peer(command) => peers::run(&exchange.socket, exchange.json, command).await?,
        Command::Serve(wanted) => serve::run(&exchange.socket, exchange.json, wanted).await?,
        command => exchange.ask(command).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What a command asks that is one question.
fn request(command: Command) -> Option<Request> {
    Some(match command {
        Command::Testnet(_)
        | Command::Doctor
        | Command::Log { .. }
        | Command::Top
        | Command::Identity(_)
        | Command::Serve(_)
        | Command::Command(_)
        | Command::Peer(_)
        | Command::Setup(_)
        | Command::Desktop(_)
        | Command::Unit(_) => return None,
        Command::Status => Request::Status,
        Command::Address(Address::New { name }) => Request::AddressNew { name },
        Command::Address(Address::List) => Request::AddressList,
        Command::Address(Address::Show { name }) => Request::AddressShow { name },
        Command::Path(List::List) => Request::PathList,
        Command::Connection(List::List) => Request::Connections,
        Command::Netdb(Netdb::Lookup { address }) => Request::NetdbLookup { address },
        Command::Forward(forward) => forward_request(forward),
        Command::Stop => Request::Stop,
    })
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
    async fn ask(&self, command: Command) -> anyhow::Result<()> {
        let Some(request) = request(command) else { return Ok(()) };
        match &request {
            Request::Status => self.run(&request, show::status).await,
            Request::Doctor => self.run(&request, show::doctor).await,
            Request::Log { .. } => self.run(&request, |lines: &Vec<admin::LogLine>| show::log(lines)).await,
            Request::AddressNew { .. } => self.run(&request, show::new_address).await,
            Request::AddressShow { .. } | Request::IdentityRename { .. } | Request::IdentityRemove { .. } => {
                self.run(&request, show::address).await
            }
            Request::IdentityExport { .. } | Request::IdentityImport { .. } | Request::Offer { .. } => Ok(()),
            Request::AddressList => self.run(&request, |list: &Vec<admin::Address>| show::addresses(list)).await,
            Request::PathList => self.run(&request, |list: &Vec<admin::Path>| show::paths(list)).await,
            Request::Connections => self.run(&request, |list: &Vec<admin::Connection>| show::connections(list)).await,
            Request::NetdbLookup { .. } => self.run(&request, show::lookup).await,
            Request::ForwardNew { .. } => self.run(&request, show::forward).await,
            Request::ForwardList => self.run(&request, |list: &Vec<admin::Forward>| show::forwards(list)).await,
            Request::ForwardRemove { .. } => self.run(&request, |count: &u64| show::removed(*count)).await,
            Request::CommandSend { .. } | Request::CommandList | Request::CommandAllow { .. } => Ok(()),
            Request::PeerList | Request::PeerExport | Request::PeerImport { .. } => Ok(()),
            Request::Stop => self.run(&request, |(): &()| "stopped\n".to_owned()).await,
        }
    }

    /// Asks, and prints the answer as JSON or as `show` lays it out.
    async fn run<T>(&self, request: &Request, show: impl FnOnce(&T) -> String) -> anyhow::Result<()>
    where
        T: Serialize + DeserializeOwned,
    {
        let mut client = Client::connect(&self.socket).await?;
        let what = match request {
            Request::NetdbLookup { .. } => "asking the network database",
            _ => "waiting for the daemon",
        };
        let answer: T = wait::shown(what, client.ask(request)).await?;
        let text = if self.json { json(&answer)? } else { show(&answer) };
        Ok(print(&text)?)
    }
}

/// Names one a line, or as JSON; a list without any is explained to people, beside it: a script still reads an empty one.
fn shown_list(names: Vec<String>, as_json: bool, empty: &str) -> anyhow::Result<String> {
    if as_json {
        return Ok(json(&names)?);
    }
    if names.is_empty() {
        eprintln!("{empty}");
    }
    Ok(names.into_iter().map(|name| name + "\n").collect())
}

fn json(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(value).map(|text| text + "\n")
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_names_is_lines_or_an_array() {
        let names = || vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(shown_list(names(), false, "").unwrap(), "a\nb\n");
        assert_eq!(shown_list(names(), true, "").unwrap(), "[\"a\",\"b\"]\n");
        assert_eq!(shown_list(Vec::new(), true, "none").unwrap(), "[]\n");
        assert_eq!(shown_list(Vec::new(), false, "none").unwrap(), "", "what there is to say is no name");
    }
}
