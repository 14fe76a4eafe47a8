//! The command line of `phantomd`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use phantom_ipc::release::release;

use crate::config::{Overrides, address_and_port};
use crate::names::{Peer, Resolver};

const EXAMPLES: &str = "\
Examples:
  phantomd init                          make identity and configuration (once)
  phantomd                               run with them
  phantomd --peer phantom-peer:AAAA…     run, and join through that node
  phantomd --check-config                would it start with phantomd.toml?
  phantomd --data-dir ~/second --listen 0.0.0.0:9443
                                         a second node on this computer

A node's peer string is printed by `phantom status` on it. `phantom testnet up` makes a private \
network to try.

Exit status: 0 stopped as asked; 1 failure; 2 wrong command line or configuration; 3 agreement not \
accepted; 4 data directory, port or socket in use by another process.";

/// The daemon of the Phantom network.
#[derive(Debug, Parser)]
#[command(name = "phantomd", version = release(), after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Read command line and configuration, say what follows from them, and make and start nothing
    #[arg(long, conflicts_with = "accept_eula")]
    pub check_config: bool,
    /// How to run.
    #[command(flatten)]
    pub options: Options,
}

/// What phantomd does beside running.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make identity and configuration (which keeps --listen and --peer), show the agreement, print this node's peer string
    Init {
        /// What to say in the place of options of phantomd, where those would help: `phantom setup` has others.
        #[arg(long, hide = true, value_name = "WORDS")]
        elsewhere: Option<String>,
    },
}

/// Options of running and of `init`, before or after that word; each overrides the configuration file.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Configuration file [default: ~/.config/phantom/phantomd.toml, or phantomd.toml in --data-dir]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where keys and the store lie [default: ~/.local/state/phantom]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The local socket for phantom and phantom-run [default: daemon.sock in --data-dir if that is said, else
    /// phantom/daemon.sock in $XDG_RUNTIME_DIR or, without a session, in ~/.local/state; root's: in /run]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Where to accept links [default: 0.0.0.0:8443]
    #[arg(long, global = true, value_name = "ADDRESS:PORT", value_parser = address_and_port)]
    pub listen: Option<SocketAddr>,
    /// A node to join through, by its peer string phantom-peer:… (may be given more than once)
    #[arg(long = "peer", global = true, value_name = "PEER")]
    pub peers: Vec<Peer>,
    /// Who resolves names of the ordinary DNS, over Phantom: NAME.phantom:53 [default: nobody, they are not found]
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    pub resolver: Option<Resolver>,
    /// Whose commands to take, by a file of public keys as `phantom testnet up` makes: for networks of one's own [default: the
    /// maintainers of this release]
    #[arg(long, global = true, value_name = "FILE")]
    pub command_keys: Option<PathBuf>,
    /// off, error, warn, info, debug or trace; or TARGET=LEVEL pairs. Debug and trace write addresses and names into the
    /// log [default: info]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log: Option<String>,
    /// Build paths and publish at once instead of at random times: for private networks, since on an open one the times would
    /// tell others what starts here and when
    #[arg(long, global = true)]
    pub hurry: bool,
    /// Never ask the router of this network to forward the port to this node; without this it is asked (PCP, NAT-PMP, UPnP) where
    /// others cannot open links to this computer otherwise
    #[arg(long, global = true)]
    pub leave_router: bool,
    /// Accept the agreement (EULA.txt) without being asked
    #[arg(long, global = true)]
    pub accept_eula: bool,
}

impl Options {
    /// The part that the configuration takes.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            config: self.config.clone(),
            data_dir: self.data_dir.clone(),
            socket: self.socket.clone(),
            listen: self.listen,
            peers: self.peers.clone(),
            resolver: self.resolver,
            command_keys: self.command_keys.clone(),
            log: self.log.clone(),
            hurry: self.hurry,
            leave_router: self.leave_router,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_version_names_the_protocol_that_nodes_speak() {
        use phantom_ipc::release::PROTOCOL;
        assert_eq!(PROTOCOL, phantom_proto::wire::session::VERSION);
        let said = Cli::command().render_version();
        assert!(said.contains(&format!("protocol {PROTOCOL},")), "{said}");
    }

    #[test]
    fn wrong_values_are_refused_with_the_reason() {
        for (argument, says) in [
            ("--listen=8443", "as 0.0.0.0:8443"),
            ("--peer=host:1", "phantom-peer:"),
            ("--resolver=9.9.9.9:53", "phantom network"),
        ] {
            let error = Cli::try_parse_from(["phantomd", argument]).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn init_takes_the_same_options_on_either_side() {
        for line in [
            "phantomd --data-dir d --accept-eula init",
            "phantomd init --data-dir d --accept-eula",
            "phantomd --accept-eula init --data-dir d",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(matches!(cli.command, Some(Command::Init { elsewhere: None })), "{line}");
            assert!(cli.options.accept_eula && cli.options.data_dir == Some("d".into()), "{line}: {cli:?}");
        }
        let both = Cli::try_parse_from("phantomd --log info init --log debug".split(' ')).unwrap();
        assert_eq!(both.options.log.as_deref(), Some("debug"), "the later one counts");
    }
}
