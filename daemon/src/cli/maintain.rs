//! `phantom command`: maintainers make and sign commands, offline; operators send them and see what they do.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use data_encoding::HEXLOWER;
use phantom_ipc::admin::{Commands, Request};
use phantom_proto::command::{Action, Bundle, Command, KeySet, LIFE_MAX, Target};
use phantom_proto::crypto::SigningKey;
use phantom_proto::netdb::Key;
use phantom_proto::record::MAX_RECORD_LEN;
use phantom_proto::wire::Wire;
use zeroize::Zeroizing;

use super::ask::{answer, ensure_can_be_made, is_somebody_there, read_short, read_short_text, write_new};
use super::{print, tell, wait};
use crate::advice::cannot_write;
use crate::client::Client;
use crate::clock::unix_seconds;
use crate::commands::{self, MAX_FILE, action, compiled_in, date, read_key, read_key_set, subject, target, write_key};
use crate::datadir::write_private;
use crate::random::system_rng;

const DAY: u64 = 24 * 3600;

const LIFE: &str = "\
From three maintainers, of whom two must sign, to the network:
  phantom command key alice.key      once, each for herself, on a computer that
                                     is never online
  phantom command make ban --ban 192.0.2.0/24 --days 7
                                     at a node: it knows which serial is next
  phantom command show ban           what is it that I am to sign?
  phantom command sign ban --key alice.key
                                     each on her own computer
  phantom command combine ban ban-of-bob --out signed
                                     puts signatures together
  phantom command send signed        at any node; all have it within seconds
  phantom command list               what it did here

Whoever loses a ban's reason takes it back: make --unban. docs/commands.md says what maintainers can and cannot do.";

/// What maintainers and operators do with commands.
#[derive(Debug, Subcommand)]
#[command(after_help = LIFE)]
pub enum Maintain {
    /// Make a maintainer's key, into a new file that nobody else may read; prints the public half
    Key {
        /// The file, which must not be there
        file: PathBuf,
    },
    /// Write a command into a new file, for maintainers to sign
    Make(Make),
    /// Sign a command with a maintainer's key, after showing it
    Sign {
        /// The command's file; the signature is added to it
        file: PathBuf,
        /// The maintainer's key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Whose network
        #[command(flatten)]
        keys: Keys,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Put the signatures of several files of one command together
    Combine {
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The new file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Whose network
        #[command(flatten)]
        keys: Keys,
    },
    /// Show what a command does, and who has signed it
    Show {
        /// The command's file
        file: PathBuf,
        /// Whose network
        #[command(flatten)]
        keys: Keys,
    },
    /// Hand a command to the network through the daemon
    Send {
        /// The command's file, with enough signatures
        file: PathBuf,
    },
    /// Show the commands that the daemon has, what they do here, and who is banned
    #[command(alias = "ls")]
    List,
    /// Let a command act that waits for your word
    Allow {
        /// Its serial, as `list` shows it
        serial: u64,
    },
}

/// Whose commands a network takes.
#[derive(Debug, Args)]
pub struct Keys {
    /// The file of the maintainers' public keys [default: the maintainers of this release]
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
}

/// See [`Maintain::Make`].
#[derive(Debug, Args)]
pub struct Make {
    /// The file, which must not be there
    file: PathBuf,
    /// Ban a range (at most a /16 of IPv4, a /32 of IPv6) or a node by its id (may be given more than once)
    #[arg(long, value_name = "RANGE|NODE", value_parser = target)]
    ban: Vec<Target>,
    /// Take bans back: of this node, or of every range within this one (may be given more than once)
    #[arg(long, value_name = "RANGE|NODE", value_parser = target)]
    unban: Vec<Target>,
    /// Keep the database's entry of a node's id, an AP address or a name empty, as long as the command holds
    #[arg(long, value_name = "NODE|ADDRESS", value_parser = subject)]
    remove: Vec<Key>,
    /// Insert a signed record, from a file of its bytes
    #[arg(long, value_name = "FILE")]
    insert: Vec<PathBuf>,
    /// For how many days it holds
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=30))]
    days: u64,
    /// Behind which command, without asking a daemon: serial and hash as `list` shows them
    #[arg(long, value_name = "SERIAL:HASH")]
    after: Option<String>,
}

pub(super) async fn run(socket: &Path, as_json: bool, command: Maintain) -> anyhow::Result<()> {
    match command {
        Maintain::Key { file } => key(&file),
        Maintain::Make(wanted) => make(socket, wanted).await,
        Maintain::Sign { file, key, keys, yes } => sign(&file, &key, &keys.load()?, yes),
        Maintain::Combine { files, out, keys } => combine(&files, &out, &keys.load()?),
        Maintain::Show { file, keys } => Ok(print(&describe(&read(&file)?, &keys.load()?))?),
        Maintain::Send { file } => {
            let command = text(&file)?;
            let mut client = Client::connect(socket).await?;
            wait::shown("handing it on", client.ask::<()>(&Request::CommandSend { command })).await?;
            Ok(print("taken here, and on its way: `phantom command list` says what it does\n")?)
        }
        Maintain::List => {
            let list: Commands = wait::answer(&mut Client::connect(socket).await?, &Request::CommandList).await?;
            tell(as_json, &list, show)
        }
        Maintain::Allow { serial } => {
            let () = wait::answer(&mut Client::connect(socket).await?, &Request::CommandAllow { serial }).await?;
            Ok(print(&format!("command {serial} is in force here\n"))?)
        }
    }
}

impl Keys {
    fn load(&self) -> anyhow::Result<KeySet> {
        let Some(path) = &self.keys else {
            let keys = compiled_in();
            ensure!(
                !keys.is_nobody(),
                "this release has no maintainers' keys\n  name those of your network: --keys FILE (of a test network: commands.keys in its folder)"
            );
            return Ok(keys);
        };
        let text = bounded(path)?;
        read_key_set(&text).with_context(|| format!("{} is no set of keys", path.display()))
    }
}

fn key(file: &Path) -> anyhow::Result<()> {
    ensure_can_be_made(file)?;
    let key = SigningKey::generate(&mut system_rng()?);
    write_new(file, &write_key(&key))?;
    eprintln!("keep {} where no network is; for the others' file of keys:", file.display());
    Ok(print(&(HEXLOWER.encode(&key.verifying_key().0) + "\n"))?)
}

async fn make(socket: &Path, wanted: Make) -> anyhow::Result<()> {
    ensure_can_be_made(&wanted.file)?;
    let (before, predecessor) = match &wanted.after {
        Some(after) => place(after).context("--after takes serial and hash, as `phantom command list` shows them")?,
        None => {
            let list: Commands = wait::answer(&mut Client::connect(socket).await?, &Request::CommandList).await?;
            ensure!(
                list.missing == 0,
                "commands are missing at this node, so the next one cannot be made here\n  see `phantom command list`"
            );
            place(&format!("{}:{}", list.highest, list.tip)).context("the daemon's answer")?
        }
    };
    let issued = unix_seconds();
    let expires = issued + (wanted.days * DAY).min(LIFE_MAX);
    let bans = wanted.ban.into_iter().map(Action::Ban).chain(wanted.unban.into_iter().map(Action::Unban));
    let removed = wanted.remove.into_iter().map(|key| Action::Remove { key, until: expires });
    let mut actions: Vec<_> = bans.chain(removed).collect();
    for path in &wanted.insert {
        actions.push(Action::Insert(record(path)?));
    }
    ensure!(!actions.is_empty(), "a command must do something\n  say --ban, --unban, --remove or --insert");
    let command = Command { serial: before + 1, predecessor, issued, expires, actions };
    let bytes = command.to_bytes();
    Command::from_bytes(&bytes)
        .context("no node would take this command: too much in it, or an inserted record that does not hold")?;
    let file = &wanted.file;
    write_new(file, &commands::write(&Bundle::new(command)))?;
    eprintln!("now it is to be signed: phantom command sign {} --key FILE", file.display());
    Ok(())
}

fn place(text: &str) -> Option<(u64, [u8; 32])> {
    let (serial, hash) = text.split_once(':')?;
    Some((serial.parse().ok()?, HEXLOWER.decode(hash.as_bytes()).ok()?.try_into().ok()?))
}

fn record(path: &Path) -> anyhow::Result<Vec<u8>> {
    read_short(path, MAX_RECORD_LEN as u64, "record")
}

fn sign(file: &Path, key: &Path, keys: &KeySet, yes: bool) -> anyhow::Result<()> {
    let mut bundle = read(file)?;
    let secret = Zeroizing::new(bounded(key)?);
    let key = read_key(&secret).with_context(|| key.display().to_string())?;
    if !yes {
        eprint!("{}", describe(&bundle, keys));
        agreed()?;
    }
    ensure!(bundle.sign(keys, &key), "this key is none of the network's maintainers\n  is --keys the right file?");
    write_private(file, commands::write(&bundle).as_bytes()).map_err(|error| cannot_write(file, &error))?;
    let have = bundle.signers().count();
    eprintln!("{have} of {} that must have signed it", keys.threshold());
    Ok(())
}

fn agreed() -> anyhow::Result<()> {
    if !is_somebody_there() {
        bail!("nobody can be asked whether this is to be signed\n  say --yes");
    }
    ensure!(answer("sign it? (yes)")? == "yes", "not signed");
    Ok(())
}

fn combine(files: &[PathBuf], out: &Path, keys: &KeySet) -> anyhow::Result<()> {
    ensure_can_be_made(out)?;
    let mut all: Option<Bundle> = None;
    for file in files {
        let one = read(file)?;
        let all = all.get_or_insert_with(|| Bundle::new(one.command().clone()));
        ensure!(all.command() == one.command(), "{} holds another command than {}", file.display(), files[0].display());
        for (number, signature) in one.signatures() {
            all.add(keys, *number, *signature)
                .with_context(|| format!("{}: the signature of key {number}", file.display()))?;
        }
    }
    let all = all.context("no file was named")?;
    let (have, need) = (all.signers().count(), keys.threshold());
    write_new(out, &commands::write(&all))?;
    match have >= need {
        true => eprintln!("enough have signed it: phantom command send {}", out.display()),
        false => eprintln!("{have} have signed it, {need} must"),
    }
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Bundle> {
    commands::read(&text(file)?).with_context(|| file.display().to_string())
}

fn text(file: &Path) -> anyhow::Result<String> {
    bounded(file)
}

fn bounded(file: &Path) -> anyhow::Result<String> {
    read_short_text(file, MAX_FILE as u64, "command or key")
}

/// What a command does, and who has signed it.
fn describe(bundle: &Bundle, keys: &KeySet) -> String {
    let command = bundle.command();
    let mut lines = vec![
        format!("command {}, made {}, over {}", command.serial, date(command.issued), date(command.expires)),
        format!("behind {}", HEXLOWER.encode(&command.predecessor)),
    ];
    lines.extend(command.actions.iter().map(|one| format!("  {}", action(one, command.issued))));
    for (number, signature) in bundle.signatures() {
        let right = Bundle::new(command.clone()).add(keys, *number, *signature).is_ok();
        lines.push(format!("signed by key {number}{}", if right { "" } else { ", WRONGLY: this does not count" }));
    }
    lines.push(format!("{} of {} must sign", keys.threshold(), keys.keys().len()));
    lines.join("\n") + "\n"
}

fn show(list: &Commands) -> String {
    let Some(maintainers) = &list.maintainers else {
        return "this network has no maintainers: it takes no commands\n".to_owned();
    };
    let mut lines = vec![format!("{maintainers}; the next one is made behind {}:{}", list.highest, list.tip)];
    if list.missing > 0 {
        lines.push(format!("{} below the highest are missing here", list.missing));
    }
    if !list.ignored.is_empty() {
        lines.push(format!(
            "without effect here (your configuration; it makes your paths differ): {}",
            list.ignored.join(", ")
        ));
    }
    if list.commands.is_empty() {
        lines.push("they have sent none yet; `phantom command --help` says how one is made and signed".to_owned());
    }
    for one in &list.commands {
        lines.push(format!("\n{}  made {}, over {}", one.serial, one.issued, one.expires));
        lines.extend(one.actions.iter().map(|action| format!("   {action}")));
        lines.push(format!("   {}", one.did));
    }
    if !list.banned.is_empty() {
        lines.push("\nbanned here now:".to_owned());
        lines.extend(list.banned.iter().map(|one| format!("   {one}")));
    }
    lines.join("\n") + "\n"
}
