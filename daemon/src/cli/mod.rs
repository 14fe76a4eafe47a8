//! `phantom`, the command line: asks the daemon in the admin dialect and shows the answer to people or scripts.

pub mod args;
mod ask;
#[cfg(unix)]
mod console;
#[cfg(unix)]
mod desktop;
mod doctor;
mod examples;
mod identity;
mod log;
pub mod maintain;
mod meant;
mod net;
mod passphrase;
pub mod peers;
#[cfg(unix)]
mod room;
#[cfg(unix)]
mod serve;
#[cfg(unix)]
mod setup;
mod show;
mod table;
mod top;
#[cfg(unix)]
mod unit;
#[cfg(unix)]
mod unix;
mod wait;
#[cfg(windows)]
mod windows;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use phantom_ipc::admin::{self, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::say::{clean, command_line, laid_out, plain};
use crate::service::{complain, is_broken_pipe};
#[cfg(unix)]
use unix as here;
#[cfg(windows)]
use windows as here;

use args::{Cli, Command, Forward, Forwarded, List, Netdb, What};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli: Cli = command_line(meant::meant);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain("phantom", &error.into(), 1),
    };
    let done = match &cli.command {
        Command::Setup(options) => here::setup(options, &runtime),
        _ => runtime.block_on(run(cli)),
    };
    match done {
        Ok(code) => code,
        // Whoever reads our output has seen enough (`phantom peer list | head`).
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let status = error.downcast_ref::<Interrupted>().map_or(1, |ended| ended.status);
            complain("phantom", &error, status)
        }
    }
}

/// Somebody has ended a command before it was through, by Ctrl-C or otherwise.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; {what}")]
struct Interrupted {
    /// What became of it.
    what: &'static str,
    /// What shells say of whom such a signal has ended.
    status: u8,
}

/// One of our own programs, which lie in one folder.
fn beside(program: &str) -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(format!("{program}{}", std::env::consts::EXE_SUFFIX)))
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
        Command::Identity(command) => identity::run(&exchange.socket, exchange.json, command).await?,
        Command::Command(command) => maintain::run(&exchange.socket, exchange.json, command).await?,
        Command::Peer(command) => peers::run(&exchange.socket, exchange.json, command).await?,
        command @ (Command::Console(_) | Command::Desktop(_) | Command::Unit(_) | Command::Serve(_)) => {
            here::run(&exchange.socket, exchange.json, command).await?;
        }
        Command::Forward(Forward { command: Some(_), what: Some(_), .. }) => {
            anyhow::bail!("one at a time: name what is to be offered, or say list or remove");
        }
        command => exchange.ask(command).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// How often the next process is looked for, and how long at most.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const NEXT_TIME: Duration = Duration::from_secs(60);

/// How long nobody may be at the socket, which each process leaves to the next: whoever looks after it may start another one.
const GONE_TIME: Duration = Duration::from_secs(10);

const NO_NEXT: &str =
    "the daemon has not come back\n  see its log, and start it again; programs that run begin anew then";

/// What a command asks that is one question.
fn request(command: Command) -> Option<Request> {
    Some(match command {
        Command::Testnet(_)
        | Command::Doctor
        | Command::Log { .. }
        | Command::Top
        | Command::Console(_)
        | Command::Identity(_)
        | Command::Serve(_)
        | Command::Command(_)
        | Command::Peer(_)
        | Command::Setup(_)
        | Command::Desktop(_)
        | Command::Unit(_) => return None,
        Command::Status => Request::Status,
        Command::Path(List::List) => Request::PathList,
        Command::Connection(List::List) => Request::Connections,
        Command::Netdb(Netdb::Lookup { address }) => Request::NetdbLookup { address },
        Command::Forward(forward) => forward_request(forward),
        Command::Restart => Request::Restart,
        Command::Stop => Request::Stop,
    })
}

fn forward_request(Forward { command, what, identity, keep }: Forward) -> Request {
    match (command, what) {
        (Some(Forwarded::Remove { port, identity }), _) => Request::ForwardRemove { port, identity },
        (None, Some(What { port, to })) => Request::ForwardNew { port, to, identity, keep },
        (Some(Forwarded::List) | None, _) => Request::ForwardList,
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
            Request::PathList => self.run(&request, |list: &Vec<admin::Path>| show::paths(list)).await,
            Request::Connections => self.run(&request, |list: &Vec<admin::Connection>| show::connections(list)).await,
            Request::NetdbLookup { .. } => self.run(&request, show::lookup).await,
            Request::ForwardNew { .. } => self.run(&request, show::forward).await,
            Request::ForwardList => self.run(&request, |list: &Vec<admin::Forward>| show::forwards(list)).await,
            Request::ForwardRemove { .. } => self.run(&request, show::removed).await,
            Request::Stop => self.run(&request, |(): &()| "stopped\n".to_owned()).await,
            Request::Restart => self.restart().await,
            // Those of commands that are more than one question.
            _ => Ok(()),
        }
    }

    /// Has the daemon start anew, and waits for the next process.
    async fn restart(&self) -> anyhow::Result<()> {
        let mut client = Client::connect(&self.socket).await?;
        let asks = client.ask::<()>(&Request::Restart);
        wait::shown("the next executable looks at its configuration", asks).await?;
        // The old one closes it when it is gone.
        let begun = Instant::now();
        let mut heard = begun;
        let status: admin::Status = wait::shown("the next process starts", async {
            loop {
                sleep(LOOK_EVERY).await;
                let Ok(mut client) = Client::connect(&self.socket).await else {
                    anyhow::ensure!(heard.elapsed() < GONE_TIME, NO_NEXT);
                    continue;
                };
                heard = Instant::now();
                match client.ask::<admin::Status>(&Request::Status).await {
                    Ok(status) if status.uptime_seconds <= begun.elapsed().as_secs() + 1 => return Ok(status),
                    _ => anyhow::ensure!(begun.elapsed() < NEXT_TIME, NO_NEXT),
                }
            }
        })
        .await?;
        tell(self.json, &status, |status| format!("started anew: version {}\n", status.version))
    }

    /// Asks, and prints the answer as JSON or as `show` lays it out.
    async fn run<T>(&self, request: &Request, show: impl FnOnce(&T) -> String) -> anyhow::Result<()>
    where
        T: Serialize + DeserializeOwned,
    {
        let mut client = Client::connect(&self.socket).await?;
        let answer: T = match request {
            Request::NetdbLookup { .. } => wait::shown("asking the network database", client.ask(request)).await?,
            _ => wait::answer(&mut client, request).await?,
        };
        tell(self.json, &answer, show)
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
    Ok(names.iter().map(|name| clean(name) + "\n").collect())
}

fn json(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(value).map(|text| text + "\n")
}

/// The answer: as JSON, or as `show` lays it out.
fn tell<T: Serialize>(as_json: bool, answer: &T, show: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
    Ok(if as_json { print_whole(&json(answer)?) } else { print(&show(answer)) }?)
}

/// What people read. What a daemon says may come from a network, and must not steer the terminal; on a terminal no word is broken.
fn print(text: &str) -> io::Result<()> {
    print_whole(&laid_out(text))
}

/// What programs read, or what is drawn: no line is broken. In JSON nothing steers a terminal anyhow.
fn print_whole(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let printed = out.write_all(plain(text).as_bytes()).and_then(|()| out.flush());
    printed.map_err(|error| io::Error::new(error.kind(), format!("cannot write to standard output: {error}")))
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
