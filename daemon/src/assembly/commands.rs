//! Maintainers' commands, as the operator asks for them.

use phantom_ipc::admin::{CommandEntry, Commands, Failure};
use phantom_proto::command::{Ban, Bans, Entry, Kind, Target};
use phantom_proto::wire::Wire;

use super::Running;
use crate::clock::unix_seconds;
use crate::commands::{self, action, date};
use crate::health::CommandFacts;
use crate::netdb::CommandState;

impl Running {
    pub(super) async fn send_command(&self, text: &str) -> Result<(), Failure> {
        let failed = |message: String, hint: &str| Failure { message, hint: Some(hint.to_owned()) };
        let bundle =
            commands::read(text).map_err(|error| failed(error.to_string(), "see `phantom command show FILE`"))?;
        let keys = &self.setup.config.commands.keys;
        let signed = bundle.signed(keys).ok_or_else(|| {
            let (have, need) = (bundle.signers().count(), keys.threshold());
            let hint = "let others sign it (`phantom command sign`), and put the signatures together (`phantom command combine`)";
            match keys.is_nobody() {
                true => failed("this network has no maintainers: it takes no commands".into(), "docs/commands.md says whose it would take"),
                false => failed(format!("{have} have signed it, {need} must"), hint),
            }
        })?;
        let sent = self.database.send_command(signed.to_bytes()).await;
        sent.map_err(|message| failed(message, "`phantom command list` shows what is known here"))
    }

    pub(super) async fn allow(&self, serial: u64) -> Result<(), Failure> {
        let none = "no command of this serial waits for your word";
        let message = match self.database.allow_command(serial).await {
            Ok(true) => return Ok(()),
            Ok(false) => none.to_owned(),
            Err(error) => error,
        };
        Err(Failure { message, hint: Some("see `phantom command list`".to_owned()) })
    }

    pub(super) async fn command_list(&self) -> Commands {
        let state = self.database.commands().await;
        let now = unix_seconds();
        let highest = state.entries.last().map_or(0, |entry| entry.command.serial);
        Commands {
            maintainers: state
                .keys
                .as_ref()
                .map(|keys| format!("{} of {} must sign", keys.threshold(), keys.keys().len())),
            highest,
            tip: data_encoding::HEXLOWER.encode(&state.tip),
            missing: state.missing,
            ignored: state.ignored.iter().map(|kind| kind.name().to_owned()).collect(),
            banned: banned(&state, now),
            commands: state.entries.iter().map(|one| entry(&state, one, now)).collect(),
        }
    }

    /// What is to be told of them.
    pub(super) async fn command_facts(&self) -> CommandFacts {
        let state = self.database.commands().await;
        let now = unix_seconds();
        CommandFacts {
            missing: state.missing,
            forked: state.forked,
            held: state.entries.iter().filter(|entry| entry.held && entry.command.expires > now).count(),
            ignored: !state.ignored.is_empty(),
            banned: bans(&state, now).of_contact(&self.contact()).is_some(),
        }
    }
}

fn bans(state: &CommandState, now: u64) -> Bans {
    let in_force = state.entries.iter().filter(|entry| !entry.held);
    Bans::of(now, &state.ignored, in_force.map(|entry| (entry.taken, &entry.command)))
}

fn banned(state: &CommandState, now: u64) -> Vec<String> {
    let line = |(target, ban): (Target, Ban)| {
        let what = match target {
            Target::Range(range) => range.to_string(),
            Target::Node(node) => format!("node {node}"),
        };
        format!("{what} until {}", date(ban.until))
    };
    bans(state, now).targets().map(line).collect()
}

fn entry(state: &CommandState, entry: &Entry, now: u64) -> CommandEntry {
    let command = &entry.command;
    let ignored = |kind: &Kind| command.actions.iter().any(|action| action.kind() == *kind);
    let ignored: Vec<_> = state.ignored.iter().copied().filter(ignored).map(Kind::name).collect();
    let did = match () {
        () if entry.held => format!(
            "waits for your word (`phantom command allow {}`): it would ban more than one in twenty of the nodes known here",
            command.serial
        ),
        () if command.expires <= now => "over".to_owned(),
        () if !ignored.is_empty() => format!("in force but for {} (your configuration)", ignored.join(", ")),
        () => "in force".to_owned(),
    };
    CommandEntry {
        serial: command.serial,
        issued: date(command.issued),
        expires: date(command.expires),
        actions: command.actions.iter().map(|one| action(one, command.issued)).collect(),
        did: format!("{did}; of the nodes known when it came it bans {}", entry.hits),
    }
}
