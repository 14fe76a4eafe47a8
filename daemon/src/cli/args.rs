//! The command line of `phantom`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};
use phantom_ipc::name::{NameError, check};
use phantom_ipc::publish::{NotPublish, Publish};
use phantom_ipc::release::release;

use super::examples;
use super::maintain::Maintain;
use super::peers::Peers;
use crate::config::address_and_port;
use crate::local::LocalAddress;
use crate::names::Peer;
use crate::testnet::{FEWEST_NODES, MAX_NODES};

const EXAMPLES: &str = "\
Examples:
  phantom setup                               once, after installing
  phantom status                              is it ready, or what is missing?
  phantom doctor                              what is wrong, and what to do?
  phantom log --follow                        what is it doing?
  phantom identity new web                    make an address, to offer a site:
  phantom-run --publish 80:web python3 -m http.server 80
  phantom forward 80=127.0.0.1:8080           offer what listens here on 8080
  phantom serve folder                        show a folder, until Ctrl-C
  phantom netdb lookup NAME.phantom           can others reach it yet?
  phantom connection list                     which way do the bytes take?
  phantom top                                 the same as it lives
  phantom console --open                      the same in a browser
  phantom --json status | jq .ready           for scripts: one JSON value
  phantom command list                        what have maintainers banned here?
  phantom testnet up --nodes 12 --dir net     a private network on this computer

Exit status: 0 done; 1 it did not work, and standard error says why; 2 wrong command line; setup: 3 where the agreement was not accepted.

Of doctor: 0 all is well; 1 something should be looked at; 2 programs cannot be served.";

/// Asks and tells the Phantom daemon of this computer.
#[derive(Debug, Parser)]
#[command(name = "phantom", version = release(), after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// The daemon's socket [default: PHANTOM_SOCKET, else that of your own daemon, else root's /run/phantom/daemon.sock]
    // Not clap's `env`: an empty variable counts as unset, see `phantom_ipc::default_socket`.
    #[arg(long, global = true, value_name = "SOCKET")]
    pub daemon: Option<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make this computer ready, as root with the package for all users, else for yourself: look what works here, make
    /// configuration and identity, show the agreement, see whether other nodes reach this one, say what comes next
    #[command(after_help = examples::SETUP)]
    Setup(Setup),
    /// How the daemon is, what it waits for, and where others reach your programs
    #[command(after_help = examples::STATUS)]
    Status,
    /// What is as it should be and what is not, with advice; codes of warnings are in docs/warnings.md
    #[command(after_help = examples::DOCTOR)]
    Doctor,
    /// What the daemon has said of late, the newest last; kept in its memory alone
    #[command(after_help = examples::LOG)]
    Log {
        /// Go on with what comes, until Ctrl-C; with --json one object a line
        #[arg(long, short)]
        follow: bool,
    },
    /// Paths and connections as they live, in a terminal; `?` there explains the keys
    #[command(after_help = examples::TOP)]
    Top,
    /// A web page with all of it, for this user's browsers on this computer, until Ctrl-C
    #[command(after_help = examples::CONSOLE)]
    Console(Console),
    /// Addresses at which programs of this computer can be reached, and the keys behind them: made, shown, out of this daemon sealed
    /// with a passphrase and into it, renamed, removed
    #[command(subcommand, visible_alias = "address", aliases = ["identities", "addresses"], after_help = examples::IDENTITY)]
    Identity(Identity),
    /// The daemon's own routing paths
    #[command(subcommand, visible_alias = "paths", after_help = examples::PATH)]
    Path(List),
    /// Other nodes that the daemon knows, and some of them for somebody who knows none
    #[command(subcommand, visible_alias = "peers", after_help = examples::PEER)]
    Peer(Peers),
    /// Connections of programs, and the way that their bytes take
    #[command(subcommand, visible_alias = "connections", after_help = examples::CONNECTION)]
    Connection(List),
    /// What the network database holds about an address
    #[command(subcommand, after_help = examples::NETDB)]
    Netdb(Netdb),
    /// Maintainers' commands: who is banned, what the database must not hold; made and signed by maintainers, seen and judged by
    /// every operator (docs/commands.md)
    #[command(subcommand)]
    Command(Maintain),
    /// Offer a service that runs on this computer outside Phantom; without an argument: what is offered so
    #[command(after_help = examples::FORWARD)]
    Forward(Forward),
    /// Show a folder as a read-only site to whoever knows its address, until Ctrl-C
    #[command(after_help = examples::SERVE)]
    Serve(Serve),
    /// Entries "… over Phantom" in the desktop's menus
    #[command(subcommand, after_help = examples::DESKTOP)]
    Desktop(Desktop),
    /// Services of systemd whose only network is Phantom
    #[command(subcommand, after_help = examples::UNIT)]
    Unit(Unit),
    /// Start the daemon anew in place, by the executable and the configuration that are there now: programs and their connections go on
    #[command(after_help = examples::RESTART)]
    Restart,
    /// End the daemon
    #[command(after_help = examples::STOP)]
    Stop,
    /// Private networks on this computer, for trying things out
    #[command(subcommand, after_help = examples::TESTNET)]
    Testnet(Testnet),
}

/// See [`Command::Setup`].
#[derive(Debug, Args)]
pub struct Setup {
    /// A node to join through, by its peer string phantom-peer:… (may be given more than once)
    #[arg(long = "peer", value_name = "PEER")]
    pub peers: Vec<Peer>,
    /// Where to accept links [default: 0.0.0.0:8443]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address_and_port)]
    pub listen: Option<SocketAddr>,
    /// A daemon of your own, also where the computer's serves you
    #[arg(long)]
    pub own: bool,
    /// Accept the agreement (EULA.txt) without being asked
    #[arg(long)]
    pub accept_eula: bool,
    /// Do not run the new node for a moment to see whether others reach it
    #[arg(long)]
    pub offline: bool,
}

/// See [`Command::Desktop`].
#[derive(Debug, Subcommand)]
pub enum Desktop {
    /// Make an entry from that of an installed program
    Add {
        /// Its file's name in a folder `applications`, without .desktop, as in firefox-esr
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        program: String,
        /// As whom it is to run [default: a fresh identity at each start]
        #[arg(long, value_name = "NAME", value_parser = name)]
        identity: Option<String>,
    },
    /// Take an entry out of the menus; a browser's profile stays
    #[command(aliases = ["rm", "delete"])]
    Remove {
        /// The program's name, as `list` shows it
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        program: String,
    },
    /// Show which programs have an entry
    #[command(alias = "ls")]
    List,
}

/// See [`Command::Unit`].
#[derive(Debug, Subcommand)]
pub enum Unit {
    /// Put phantom-run before each command of a service, by a drop-in in /etc/systemd/system
    Add(UnitOptions),
    /// Take the drop-in away: the service is on the normal network then
    #[command(aliases = ["rm", "delete"])]
    Remove {
        /// The service
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        unit: String,
    },
    /// Show all services that have one
    #[command(alias = "ls")]
    List,
}

/// See [`Unit::Add`].
#[derive(Debug, Args)]
pub struct UnitOptions {
    /// The service, as in nginx or backup@home.service
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub unit: String,
    /// As whom it is to run, made by `phantom identity new NAME` [default: a fresh identity at each start]
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub identity: Option<String>,
    /// What others are to reach of it, as phantom-run takes it (may be given more than once)
    #[arg(long, value_name = "PORT[,PORT...][:NAME]|all[:NAME]", value_parser = publish)]
    pub publish: Vec<String>,
}

/// A name that the daemon would take.
fn name(text: &str) -> Result<String, NameError> {
    check(text).map(|()| text.to_owned())
}

/// A saying that phantom-run would take.
fn publish(text: &str) -> Result<String, NotPublish> {
    text.parse::<Publish>().map(|_| text.to_owned())
}

/// See [`Command::Identity`].
#[derive(Debug, Subcommand)]
pub enum Identity {
    /// Make an address that lasts, under a local name
    #[command(aliases = ["create", "add"])]
    New {
        /// 1 to 63 characters of a-z, 0-9 and inner hyphens, not only digits
        name: String,
    },
    /// Show all that last, with their names
    #[command(alias = "ls")]
    List,
    /// Show the address and the phantom name of one
    Show {
        /// The local name
        name: String,
    },
    /// Write one into a new file, sealed with a passphrase; it stays here, too
    Export {
        /// The local name
        name: String,
        /// The file, which must not be there
        file: PathBuf,
        /// Take the passphrase from the first line of this file [default: ask on the terminal]
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// Take one in that was exported, here or elsewhere; it should run in one place only
    Import {
        /// The file
        file: PathBuf,
        /// A local name for it [default: the one that it had]
        name: Option<String>,
        /// Take the passphrase from the first line of this file [default: ask on the terminal]
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// Forget one for good; not while a program uses it
    #[command(aliases = ["rm", "delete"])]
    Remove {
        /// The local name
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Give one another local name, not while a program uses it; its address stays
    Rename {
        /// The local name
        old: String,
        /// The new one: 1 to 63 characters of a-z, 0-9 and inner hyphens, not only digits
        new: String,
    },
}

/// See [`Command::Forward`].
#[derive(Debug, Args)]
pub struct Forward {
    /// What else is done about them.
    #[command(subcommand)]
    pub command: Option<Forwarded>,
    /// On which port others reach it, and where it listens on the loopback device, as in 80=127.0.0.1:8080; a port alone is one of 127.0.0.1
    #[arg(value_name = "PORT=ADDRESS:PORT")]
    pub what: Option<What>,
    /// At which address, made if there is none of that name [default: a fresh one, which ends with the daemon]
    #[arg(long, value_name = "NAME", requires = "what")]
    pub identity: Option<String>,
    /// Offer it after restarts of the daemon as well; needs --identity
    #[arg(long, requires = "what", requires = "identity")]
    pub keep: bool,
}

/// What is done about services that are offered.
#[derive(Debug, Subcommand)]
pub enum Forwarded {
    /// Show all that are offered
    #[command(alias = "ls")]
    List,
    /// Take a port back
    #[command(aliases = ["rm", "delete"])]
    Remove {
        /// Which one
        #[arg(value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
        /// At which address, by name or number, if several offer it
        #[arg(long, value_name = "NAME|ADDRESS")]
        identity: Option<String>,
    },
}

/// See [`Command::Serve`].
#[derive(Debug, Args)]
pub struct Serve {
    /// The folder; what begins with a dot is not shown, and no link leads out of it
    pub folder: PathBuf,
    /// At which address, made if there is none of that name [default: a fresh one, which ends with this command]
    #[arg(long, value_name = "NAME")]
    pub identity: Option<String>,
    /// On which port
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
}

/// See [`Command::Console`].
#[derive(Debug, Args)]
pub struct Console {
    /// Where the page is served: a port of the loopback device, 0 for any, or unix:/PATH
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS:PORT|unix:/PATH")]
    pub listen: LocalAddress,
    /// Open it in the browser
    #[arg(long)]
    pub open: bool,
}

/// A port, and the service that stands behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct What {
    /// For others.
    pub port: u16,
    /// On this computer.
    pub to: SocketAddr,
}

impl FromStr for What {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('=').and_then(|(port, to)| Some((port.parse().ok()?, on_loopback(to)?)));
        let what = parts.map(|(port, to)| Self { port, to }).filter(|what: &Self| what.port != 0);
        what.ok_or(
            "this takes a port and where the service listens, by number, as in 80=8080, 80=127.0.0.1:8080 or 80=[::1]:8080",
        )
    }
}

/// An address of this computer, or a port of 127.0.0.1.
fn on_loopback(text: &str) -> Option<SocketAddr> {
    let port = || Some(SocketAddr::from((Ipv4Addr::LOCALHOST, text.parse().ok()?)));
    text.parse().ok().or_else(port)
}

/// A command that only lists.
#[derive(Debug, Subcommand)]
pub enum List {
    /// Show all that there are now
    #[command(alias = "ls")]
    List,
}

/// See [`Command::Netdb`].
#[derive(Debug, Subcommand)]
pub enum Netdb {
    /// The entry nodes through which it is reached, and until when
    Lookup {
        /// An AP address (fd70:…), a name ending in .phantom, an alias, or the name of an own identity
        address: String,
    },
}

/// See [`Command::Testnet`].
#[derive(Debug, Subcommand)]
pub enum Testnet {
    /// Start a network in the background; returns when every node can build paths
    Up {
        /// Folder for the network: data directories, sockets, logs
        #[arg(long)]
        dir: PathBuf,
        /// Its size and its daemon.
        #[command(flatten)]
        nodes: Nodes,
    },
    /// Stop a network and remove what `up` made
    Down {
        /// Folder that was given to `up`
        #[arg(long)]
        dir: PathBuf,
    },
    /// Start a network, keep it until Ctrl-C, then remove it
    Run {
        /// Folder for the network [default: a new one for temporary files]
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Its size and its daemon.
        #[command(flatten)]
        nodes: Nodes,
    },
}

/// A network's size and daemon.
#[derive(Debug, Args)]
pub struct Nodes {
    /// Number of nodes, one process and one 127.x.y.z address each: a path has eight besides its owner
    #[arg(long, default_value_t = 12, value_name = "NUMBER", value_parser = number_of_nodes)]
    pub nodes: usize,
    /// Log level of the nodes
    #[arg(long, default_value = "info", value_name = "LEVEL")]
    pub log: String,
    /// The daemon's executable [default: phantomd beside phantom]
    #[arg(long, value_name = "PATH")]
    pub phantomd: Option<PathBuf>,
}

fn number_of_nodes(text: &str) -> Result<usize, String> {
    let fits = text.parse().ok().filter(|number| (FEWEST_NODES..=MAX_NODES).contains(number));
    fits.ok_or_else(|| format!("a network has {FEWEST_NODES} to {MAX_NODES} nodes: with fewer no path can be built"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The words of each example of `phantom` in a help text, up to what is said about it.
    fn examples(help: &str) -> Vec<String> {
        let lines = help.lines().filter_map(|line| {
            let line = line.strip_prefix("  ")?;
            line.strip_prefix("sudo ").unwrap_or(line).strip_prefix("phantom ")
        });
        let whole = |line: &str| line.split("  ").next().unwrap_or_default().split(" | ").next().map(str::to_owned);
        lines.filter_map(whole).collect()
    }

    #[test]
    fn each_command_shows_how_it_is_used_and_the_command_line_takes_that() {
        for command in Cli::command().get_subcommands().filter(|command| command.get_name() != "help") {
            let name = command.get_name();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let own = |example: &String| example.split(' ').any(|word| word == name);
            assert!(examples(&help).iter().any(own), "`phantom {name} --help` has no example");
            for example in examples(&help).into_iter().chain(examples(EXAMPLES)) {
                // A peer string of the text is none.
                let example = example.replace(" --peer phantom-peer:AAAA", "");
                let words = std::iter::once("phantom").chain(example.split(' '));
                if let Err(error) = Cli::try_parse_from(words) {
                    panic!("phantom {example}: {error}");
                }
            }
        }
    }

    /// Whatever a line end stands in is not folded as a whole, so on a narrow terminal each of its lines would leave a rest.
    #[test]
    fn what_help_ends_with_is_broken_by_the_terminal_or_fits_each() {
        let mut open = vec![Cli::command()];
        while let Some(command) = open.pop() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for paragraph in help.split("\n\n").filter(|paragraph| paragraph.contains('\n')) {
                let long: Vec<_> = paragraph.lines().filter(|line| line.chars().count() > 80).collect();
                assert!(long.is_empty(), "{}: {long:#?}", command.get_name());
            }
            open.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn a_forward_leads_to_an_address_or_to_a_port_of_this_computer() {
        let to = |text: &str| text.parse::<What>().ok().map(|what| (what.port, what.to.to_string()));
        assert_eq!(to("80=8080"), Some((80, "127.0.0.1:8080".to_owned())));
        assert_eq!(to("80=[::1]:8080"), Some((80, "[::1]:8080".to_owned())));
        for text in ["80", "0=80", "80=", "80=:8080", "80=localhost:80", "80=65536"] {
            assert_eq!(to(text), None, "{text}");
        }
    }

    #[test]
    fn global_options_may_stand_anywhere() {
        for line in ["phantom --json --daemon s status", "phantom status --daemon s --json"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert!(cli.json && cli.daemon == Some("s".into()), "{line}");
        }
    }

    #[test]
    fn what_cannot_be_forwarded_is_refused() {
        for line in [
            "80",
            "0=127.0.0.1:1",
            "80=localhost:1",
            "80=127.0.0.1",
            "80=127.0.0.1:1 --keep",
            "remove 0",
            "remove",
            "--keep",
        ] {
            let words = ["phantom", "forward"].into_iter().chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }

    #[test]
    fn the_console_is_shown_to_this_computer_alone() {
        for at in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80", "localhost:80", "unix:console.sock", "80"] {
            assert!(Cli::try_parse_from(["phantom", "console", "--listen", at]).is_err(), "{at}");
        }
    }

    #[test]
    fn networks_in_which_no_path_can_be_built_are_refused() {
        for nodes in ["8", "201", "many"] {
            let error = Cli::try_parse_from(["phantom", "testnet", "up", "--dir", "d", "--nodes", nodes]).unwrap_err();
            assert!(error.to_string().contains("9 to 200 nodes"), "{error}");
        }
    }

    #[test]
    fn the_commands_of_the_manual_are_there() {
        for line in [
            "doctor --json",
            "log",
            "log --follow",
            "top",
            "console",
            "console --open --listen [::1]:8000",
            "console --listen unix:/run/user/1000/console.sock --json",
            "address new web",
            "address list",
            "address show web",
            "identity list",
            "identity show web",
            "address remove web --yes",
            "paths list",
            "connections list",
            "identity export web web.identity --passphrase-file p",
            "identity import web.identity",
            "identity import web.identity shop --passphrase-file p",
            "identity rename web shop",
            "identity remove web --yes",
            "path list",
            "peer list",
            "peer export bundle",
            "peers import bundle --signed-by abcd",
            "peer import bundle --yes",
            "connection list",
            "netdb lookup fd70::1",
            "command key a.key",
            "command make c --ban 192.0.2.0/24 --ban 2001:db8::/32 --days 7 --after 3:abcd",
            "command sign c --key a.key --keys k --yes",
            "command combine c d --out e --keys k",
            "command show c",
            "command send c",
            "command list",
            "command allow 3",
            "forward",
            "forward 80=127.0.0.1:8080",
            "forward 80=[::1]:8080 --identity web --keep",
            "forward list --json",
            "forward --json list",
            "--json forward list",
            "forward remove 80 --identity web",
            "forward rm 80",
            "identity rm web --yes",
            "identity delete web",
            "identity create web",
            "identity ls",
            "path ls",
            "peers ls",
            "unit delete nginx",
            "desktop rm firefox",
            "unit rm nginx",
            "serve folder",
            "serve folder --identity web --port 8080",
            "setup",
            "identity new web",
            "setup --own --listen 0.0.0.0:9443 --accept-eula",
            "desktop add firefox --identity web",
            "desktop remove firefox",
            "desktop list",
            "unit add nginx --identity web --publish 80,443",
            "unit remove nginx",
            "unit list",
            "stop",
            "testnet up --nodes 12 --dir d --json",
            "testnet down --dir d",
            "testnet run --nodes 9",
        ] {
            let words = std::iter::once("phantom").chain(line.split(' '));
            Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
}
