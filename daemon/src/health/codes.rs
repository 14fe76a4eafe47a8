//! The codes of warnings: how bad each is, what causes it, when it is shown, what to do. docs/warnings.md has the same list.

use std::time::Duration;

use phantom_ipc::admin::Severity;

/// What is always the same about a warning.
#[derive(Debug)]
pub struct About {
    /// What scripts know it by; never changes.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// For how long it must have been true before anybody is told: what passes by itself is no news.
    pub after: Duration,
    /// Whether connections of programs suffer.
    pub affects_connections: bool,
    /// While one of these is true, this one is its effect and is not told beside it.
    pub causes: &'static [&'static Self],
    /// One sentence without a full stop; no address, no name, no node in it, since it goes to the log.
    pub title: &'static str,
    /// What to do.
    pub advice: &'static str,
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Others keep this node out.
pub(super) static BANNED: About = About {
    code: "node-banned",
    severity: Severity::Error,
    after: secs(0),
    affects_connections: true,
    causes: &[],
    title: "maintainers have banned this node: others close its links, and no path of its own will stand",
    advice: "`phantom command list` says by which command; it ends by itself, or when maintainers take it back",
};

/// The operator decides.
pub(super) static COMMAND_WAITS: About = About {
    code: "command-waits",
    severity: Severity::Warning,
    after: secs(0),
    affects_connections: false,
    causes: &[],
    title: "a command of maintainers would ban more than one in twenty of the known nodes, and waits for your word",
    advice: "look at `phantom command list`; `phantom command allow SERIAL` lets it act, without your word it never does",
};

/// A gap in the chain.
pub(super) static COMMAND_MISSING: About = About {
    code: "command-missing",
    severity: Severity::Warning,
    after: secs(600),
    affects_connections: false,
    causes: &[],
    title: "commands of maintainers are missing below one that is here: neighbours withhold them, or have not got them",
    advice: "wait: others are asked every half minute; `phantom command list` shows which serials are here",
};

/// Two with one serial.
pub(super) static COMMAND_FORKED: About = About {
    code: "command-forked",
    severity: Severity::Warning,
    after: secs(0),
    affects_connections: false,
    causes: &[],
    title: "maintainers have signed two commands with one serial: the first that came here is in force, the other is not",
    advice: "compare `phantom command list` with what maintainers say; their keys may be in other hands",
};

/// The operator opted out.
pub(super) static COMMANDS_IGNORED: About = About {
    code: "commands-ignored",
    severity: Severity::Info,
    after: secs(0),
    affects_connections: false,
    causes: &[],
    title: "some kinds of maintainers' commands have no effect here, which makes this node's paths differ from those of others",
    advice: "nothing, if it is meant; else take `ignore` out of [commands] in phantomd.toml",
};

/// Nobody answers.
pub(super) static NO_PEERS: About = About {
    code: "no-peers",
    severity: Severity::Error,
    after: secs(15),
    affects_connections: true,
    causes: &[],
    title: "no other node answers",
    advice: "look whether this computer is online; give the peer string of a node that runs: phantomd --peer PEER",
};

/// Others refuse what we stamp.
pub(super) static CLOCK_OFF: About = About {
    code: "clock-off",
    severity: Severity::Error,
    after: secs(0),
    affects_connections: true,
    causes: &[],
    title: "this computer's clock differs from those of other nodes by minutes, and they refuse what it says",
    advice: "set the clock, and let it be kept right (NTP)",
};

/// Links are not opened towards us.
pub(super) static PORT_UNREACHED: About = About {
    code: "port-unreached",
    severity: Severity::Error,
    after: secs(120),
    affects_connections: true,
    causes: &[&NO_PEERS],
    title: "no other node has reached this one's port yet, and paths need that",
    advice: "let connections in to the port (router, firewall); behind another address set `advertise` in phantomd.toml",
};

/// The sample is too small.
pub(super) static NO_PLAN: About = About {
    code: "no-plan",
    severity: Severity::Error,
    after: secs(60),
    affects_connections: true,
    causes: &[&NO_PEERS],
    title: "no path can be planned: too few other nodes are known, or its guards are away",
    advice: "wait for more nodes to be found; in a private network start more of them",
};

/// Guards fail together.
pub(super) static GUARDS_FAIL: About = About {
    code: "guards-fail",
    severity: Severity::Error,
    after: secs(0),
    affects_connections: true,
    causes: &[&NO_PEERS, &CLOCK_OFF, &PORT_UNREACHED],
    title: "no three guards work together: the network, or most guards, fail",
    advice: "look at this computer's own network first; guards are tried again by themselves",
};

/// Nothing comes home.
pub(super) static BUILDS_FAIL: About = About {
    code: "builds-fail",
    severity: Severity::Warning,
    after: secs(60),
    affects_connections: false,
    causes: &[&NO_PEERS, &CLOCK_OFF, &PORT_UNREACHED, &GUARDS_FAIL],
    title: "builds of paths fail, one after the other",
    advice: "`phantom log` says why; it goes on trying by itself",
};

/// The last step before a path.
pub(super) static NO_PATH: About = About {
    code: "no-path",
    severity: Severity::Error,
    after: secs(60),
    affects_connections: true,
    causes: &[&NO_PEERS, &CLOCK_OFF, &PORT_UNREACHED, &NO_PLAN, &GUARDS_FAIL, &BUILDS_FAIL],
    title: "no path of its own stands, so programs cannot connect",
    advice: "`phantom status` says what it waits for",
};

/// A path, and nothing to use of it.
pub(super) static NO_TUNNEL: About = About {
    code: "no-tunnel",
    severity: Severity::Warning,
    after: secs(30),
    affects_connections: true,
    causes: &[&NO_PEERS, &CLOCK_OFF, &PORT_UNREACHED, &NO_PLAN, &GUARDS_FAIL, &BUILDS_FAIL, &NO_PATH],
    title: "no tunnel is ready on any path, so new connections wait",
    advice: "wait: a path on which none stands is replaced",
};

/// What is offered is not reached.
pub(super) static SERVICE_UNSEEN: About = About {
    code: "service-unseen",
    severity: Severity::Error,
    after: secs(60),
    affects_connections: true,
    causes: &[&NO_PEERS, &CLOCK_OFF, &PORT_UNREACHED, &NO_PATH],
    title: "something that is offered here is not reached from outside",
    advice: "wait: entries that are not reached are replaced; `phantom status` shows which identity it is",
};

/// Others do not find this node.
pub(super) static UNPUBLISHED: About = About {
    code: "record-unpublished",
    severity: Severity::Warning,
    after: secs(120),
    affects_connections: false,
    causes: &[&NO_PEERS],
    title: "no other node took this one's record, so others do not build paths over it",
    advice: "wait: it is published again; if it stays so, look at the clock and at the network",
};

/// A newcomer.
pub(super) static GUARDS_PROVISIONAL: About = About {
    code: "guards-provisional",
    severity: Severity::Info,
    after: secs(600),
    affects_connections: false,
    causes: &[&NO_PEERS],
    title: "guards are provisional: they are drawn for good when more of the network is known",
    advice: "nothing: let the daemon run",
};

/// A small network.
pub(super) static LAYERS_OFF: About = About {
    code: "layers-off",
    severity: Severity::Info,
    after: secs(600),
    affects_connections: false,
    causes: &[&NO_PEERS],
    title: "layers of nodes behind the guards are off: too few operators are known",
    advice: "nothing: they begin when the network is large enough; docs/threat-model.md says what they are worth",
};

/// Guards are on trial.
pub(super) static GUARD_TRIAL: About = About {
    code: "guard-trial",
    severity: Severity::Warning,
    after: secs(0),
    affects_connections: false,
    causes: &[&NO_PEERS, &CLOCK_OFF, &PORT_UNREACHED],
    title: "many builds fail: guards are being tested one after the other",
    advice: "nothing: the one that is to blame is replaced",
};

/// No further guard may be met.
pub(super) static GUARDS_USED_UP: About = About {
    code: "guards-used-up",
    severity: Severity::Warning,
    after: secs(0),
    affects_connections: false,
    causes: &[],
    title: "no further guard may be met for now: as many nodes have stood next to this one as may",
    advice: "look whether this computer's network cuts connections off; the bound loosens by itself",
};

/// One is convicted.
pub(super) static GUARD_KILLS_BUILDS: About = About {
    code: "guard-kills-builds",
    severity: Severity::Warning,
    after: secs(0),
    affects_connections: false,
    causes: &[],
    title: "a guard kills builds: others stand in for it",
    advice: "nothing: `phantom status` shows which it is",
};

/// One is poor.
pub(super) static GUARD_ENDS_PATHS: About = About {
    code: "guard-ends-paths",
    severity: Severity::Warning,
    after: secs(0),
    affects_connections: false,
    causes: &[],
    title: "a guard ends paths early: others stand in for it",
    advice: "nothing: `phantom status` shows which it is",
};

/// Keys, records and guards cannot be kept.
pub(super) static STATE_FOLDER: About = About {
    code: "state-folder",
    severity: Severity::Error,
    after: secs(0),
    affects_connections: false,
    causes: &[],
    title: "the data folder cannot be written, or its disk is almost full",
    advice: "free some space there, or look at its rights: without it the daemon does not start again",
};

/// Programs get emulated sockets.
pub(super) static NO_NAMESPACE: About = About {
    code: "no-tun",
    severity: Severity::Info,
    after: secs(0),
    affects_connections: false,
    causes: &[],
    title: "/dev/net/tun cannot be used here, so programs get emulated sockets",
    advice: "load the module tun, or let the daemon's user open the device; docs/emulation.md says what differs",
};

/// Others are turned away.
pub(super) static RELAY_FULL: About = About {
    code: "relay-full",
    severity: Severity::Info,
    after: secs(60),
    affects_connections: false,
    causes: &[],
    title: "as many paths of others lead through here as may",
    advice: "nothing, or raise relayed_paths under [limits] in phantomd.toml",
};

/// All, causes before effects: of several causes the first is named.
pub static ALL: [&About; 24] = [
    &BANNED,
    &NO_PEERS,
    &CLOCK_OFF,
    &PORT_UNREACHED,
    &NO_PLAN,
    &GUARDS_FAIL,
    &BUILDS_FAIL,
    &NO_PATH,
    &NO_TUNNEL,
    &SERVICE_UNSEEN,
    &UNPUBLISHED,
    &GUARDS_PROVISIONAL,
    &LAYERS_OFF,
    &GUARD_TRIAL,
    &GUARDS_USED_UP,
    &GUARD_KILLS_BUILDS,
    &GUARD_ENDS_PATHS,
    &COMMAND_WAITS,
    &COMMAND_MISSING,
    &COMMAND_FORKED,
    &COMMANDS_IGNORED,
    &STATE_FOLDER,
    &NO_NAMESPACE,
    &RELAY_FULL,
];

/// The one with this code.
pub fn about(code: &str) -> Option<&'static About> {
    ALL.into_iter().find(|about| about.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_lists_every_code_as_it_is() {
        let document = include_str!("../../../docs/warnings.md");
        let rows: Vec<_> = document.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(rows.len(), ALL.len(), "a row for each, and no other");
        for (about, row) in ALL.into_iter().zip(rows) {
            let severity = serde_json::to_value(about.severity).unwrap();
            let (affects, causes) = (if about.affects_connections { "yes" } else { "no" }, about.causes.iter());
            let causes: Vec<_> = causes.map(|cause| format!("`{}`", cause.code)).collect();
            let causes = if causes.is_empty() { "—".to_owned() } else { causes.join(", ") };
            let expected = format!(
                "| `{}` | {} | {affects} | {} s | {} | {} | {causes} |",
                about.code,
                severity.as_str().unwrap(),
                about.after.as_secs(),
                about.title,
                about.advice
            );
            assert_eq!(row, expected);
        }
    }

    #[test]
    fn causes_come_before_their_effects_and_codes_are_one_word() {
        for (place, about) in ALL.into_iter().enumerate() {
            let before = |cause: &&About| ALL[..place].iter().any(|earlier| std::ptr::eq(*earlier, *cause));
            assert!(about.causes.iter().all(before), "{}", about.code);
            assert!(about.code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", about.code);
            assert!(!about.title.ends_with('.') && !about.advice.is_empty(), "{}", about.code);
        }
    }
}
