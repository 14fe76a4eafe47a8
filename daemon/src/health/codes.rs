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
    /// What the daemon does about it.
    pub does: &'static str,
    /// What is left to do. Never where to read about this very warning: whoever reads this does so there already.
    pub advice: &'static str,
}

impl About {
    /// What the daemon does, and what is left to do.
    pub fn help(&self) -> String {
        format!("{}; {}", self.does, self.advice)
    }
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
    does: "it ends when the command does, or when maintainers take it back; no part of the daemon can change that",
    advice: "`phantom command list` says by which command; ask those maintainers if it is a mistake",
};

/// The operator decides.
pub(super) static COMMAND_WAITS: About = About {
    code: "command-waits",
    severity: Severity::Warning,
    after: secs(0),
    affects_connections: false,
    causes: &[],
    title: "a command of maintainers would ban more than one in twenty of the known nodes, and waits for your word",
    does: "the daemon passes it on and leaves it without effect; without your word it stays so",
    advice: "look at `phantom command list`; `phantom command allow SERIAL` lets it act",
};

/// A gap in the chain.
pub(super) static COMMAND_MISSING: About = About {
    code: "command-missing",
    severity: Severity::Warning,
    after: secs(600),
    affects_connections: false,
    causes: &[],
    title: "commands of maintainers are missing below one that is here: neighbours withhold them, or have not got them",
    does: "the daemon asks others every half minute",
    advice: "wait; `phantom command list` shows which serials are here",
};

/// Two with one serial.
pub(super) static COMMAND_FORKED: About = About {
    code: "command-forked",
    severity: Severity::Warning,
    after: secs(0),
    affects_connections: false,
    causes: &[],
    title: "maintainers have signed two commands with one serial: the first that came here is in force, the other is not",
    does: "the daemon keeps to the first",
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
    does: "the daemon passes them on all the same",
    advice: "nothing to do, if it is meant; else take `ignore` out of [commands] in phantomd.toml",
};

/// Nobody answers.
pub(super) static NO_PEERS: About = About {
    code: "no-peers",
    severity: Severity::Error,
    after: secs(15),
    affects_connections: true,
    causes: &[],
    title: "no other node answers",
    does: "the daemon goes on calling those that it knows",
    advice: "look whether this computer is online; name a node that runs: `phantom peer import FILE`, or with the daemon stopped `phantom setup --peer PEER`",
};

/// Others refuse what we stamp.
pub(super) static CLOCK_OFF: About = About {
    code: "clock-off",
    severity: Severity::Error,
    after: secs(0),
    affects_connections: true,
    causes: &[],
    title: "this computer's clock differs from those of other nodes by minutes, and they refuse what it says",
    does: "the daemon never sets it, and compares it at each new link",
    advice: "set the clock, and let it be kept right (NTP)",
};

/// Links are not opened towards us.
pub(super) static UNREACHABLE: About = About {
    code: "unreachable",
    severity: Severity::Info,
    after: secs(0),
    affects_connections: false,
    causes: &[&NO_PEERS],
    title: "other computers cannot open links to this one: programs visit and serve all the same, it relays for nobody",
    does: "the daemon asks some of them again every few minutes, and relays as soon as they can",
    advice: "nothing need be done; to help others, forward the port to this computer (router, firewall) where the router does not do so by itself, and set `advertise` in phantomd.toml to the address outside",
};

/// The sample is too small.
pub(super) static NO_PLAN: About = About {
    code: "no-plan",
    severity: Severity::Error,
    after: secs(60),
    affects_connections: true,
    causes: &[&NO_PEERS],
    title: "no path can be planned: too few other nodes are known, or its guards are away",
    does: "the daemon looks for more nodes, calls its guards, and plans again by itself",
    advice: "wait some minutes; in a private network start more nodes, in the open one name more of them: `phantom peer import FILE`, or with the daemon stopped `phantom setup --peer PEER`",
};

/// Guards fail together.
pub(super) static GUARDS_FAIL: About = About {
    code: "guards-fail",
    severity: Severity::Error,
    after: secs(0),
    affects_connections: true,
    causes: &[&NO_PEERS, &CLOCK_OFF],
    title: "no three guards work together: the network, or most guards, fail",
    does: "the daemon goes on trying with those that it has, and tests them anew after six hours at the earliest",
    advice: "look first whether this computer's network (firewall, router, provider) cuts connections off",
};

/// Nothing comes home.
pub(super) static BUILDS_FAIL: About = About {
    code: "builds-fail",
    severity: Severity::Warning,
    after: secs(60),
    affects_connections: false,
    causes: &[&NO_PEERS, &CLOCK_OFF, &GUARDS_FAIL],
    title: "builds of paths fail, one after the other",
    does: "the daemon goes on trying, and tests its guards when 20 of the last 40 builds have failed",
    advice: "wait some minutes; if it stays, look whether this computer has more work than it can do (`uptime`: a load far above its \
             processors), else whether its network cuts connections off",
};

/// The last step before a path.
pub(super) static NO_PATH: About = About {
    code: "no-path",
    severity: Severity::Error,
    after: secs(60),
    affects_connections: true,
    causes: &[&NO_PEERS, &CLOCK_OFF, &NO_PLAN, &GUARDS_FAIL, &BUILDS_FAIL],
    title: "no path of its own stands, so programs cannot connect",
    does: "the daemon builds one as soon as it can",
    advice: "wait: after a start it takes up to a minute; if it stays, look whether this computer's network lets connections out and in, and \
             whether it has more work than it can do (`uptime`)",
};

/// A path, and nothing to use of it.
pub(super) static NO_TUNNEL: About = About {
    code: "no-tunnel",
    severity: Severity::Warning,
    after: secs(30),
    affects_connections: true,
    causes: &[&NO_PEERS, &CLOCK_OFF, &NO_PLAN, &GUARDS_FAIL, &BUILDS_FAIL, &NO_PATH],
    title: "no tunnel is ready on any path, so new connections wait",
    does: "the daemon sets others up, and replaces a path on which none stands",
    advice: "wait a minute; if it stays, look at this computer's own network, and at its load (`uptime`)",
};

/// What is offered is not reached.
pub(super) static SERVICE_UNSEEN: About = About {
    code: "service-unseen",
    severity: Severity::Error,
    after: secs(60),
    affects_connections: true,
    causes: &[&NO_PEERS, &CLOCK_OFF, &NO_PATH],
    title: "something that is offered here is not reached from outside",
    does: "the daemon replaces entries that are not reached, and looks again",
    advice: "wait some minutes; the status says at each identity, under `published`, when it was last seen from outside",
};

/// The record of what is offered is kept back, or nobody has it.
pub(super) static SERVICE_UNRECORDED: About = About {
    code: "service-unrecorded",
    severity: Severity::Error,
    after: secs(60),
    affects_connections: true,
    causes: &[&NO_PEERS, &CLOCK_OFF, &NO_PATH],
    title: "the network database does not show the record of something that is offered here",
    does: "the daemon makes the record anew, and looks again",
    advice: "wait some minutes; the status says at each identity, under `published`, when its record was last found from outside",
};

/// Others do not find this node.
pub(super) static UNPUBLISHED: About = About {
    code: "record-unpublished",
    severity: Severity::Warning,
    after: secs(120),
    affects_connections: false,
    causes: &[&NO_PEERS],
    title: "no other node took this one's record, so others do not build paths over it",
    does: "the daemon writes it again by itself",
    advice: "wait some minutes; if it stays so, look at this computer's clock and network",
};

/// A newcomer.
pub(super) static GUARDS_PROVISIONAL: About = About {
    code: "guards-provisional",
    severity: Severity::Info,
    after: secs(600),
    affects_connections: false,
    causes: &[&NO_PEERS],
    title: "guards are provisional: they are drawn for good when more of the network is known",
    does: "the daemon draws them by itself: after 10 minutes if it knows 64 nodes, else after an hour",
    advice: "nothing to do: let it run",
};

/// A small network.
pub(super) static LAYERS_OFF: About = About {
    code: "layers-off",
    severity: Severity::Info,
    after: secs(600),
    affects_connections: false,
    causes: &[&NO_PEERS],
    title: "layers of nodes behind the guards are off: too few operators are known",
    does: "the daemon begins with them by itself when 31 are known",
    advice: "nothing to do; docs/threat-model.md says what they are worth",
};

/// Guards are on trial.
pub(super) static GUARD_TRIAL: About = About {
    code: "guard-trial",
    severity: Severity::Warning,
    after: secs(0),
    affects_connections: false,
    causes: &[&NO_PEERS, &CLOCK_OFF],
    title: "many builds fail: guards are being tested one after the other",
    does: "the daemon builds paths only to try them, for some minutes, and sets aside the guard that is to blame; programs go on",
    advice: "nothing to do; if it comes again each few hours, look whether this computer has more work than it can do (`uptime`), or its \
             network cuts connections off",
};

/// No further guard may be met.
pub(super) static GUARDS_USED_UP: About = About {
    code: "guards-used-up",
    severity: Severity::Warning,
    after: secs(0),
    affects_connections: false,
    causes: &[],
    title: "no further guard may be met for now: as many nodes have stood next to this one as may",
    does: "the daemon makes do with those that it has; the bound loosens by itself, in weeks",
    advice: "look whether this computer has more work than it can do (`uptime`), or its network cuts connections off: guards are then \
             blamed for it",
};

/// One is convicted.
pub(super) static GUARD_KILLS_BUILDS: About = About {
    code: "guard-kills-builds",
    severity: Severity::Warning,
    after: secs(0),
    affects_connections: false,
    causes: &[],
    title: "a guard kills builds: others stand in for it",
    does: "the daemon does without it for ten days, then tries it again",
    advice: "nothing to do",
};

/// One is poor.
pub(super) static GUARD_ENDS_PATHS: About = About {
    code: "guard-ends-paths",
    severity: Severity::Warning,
    after: secs(0),
    affects_connections: false,
    causes: &[],
    title: "a guard ends paths early: others stand in for it",
    does: "the daemon takes it only when no other serves, until its account is better",
    advice: "nothing to do",
};

/// Keys, records and guards cannot be kept.
pub(super) static STATE_FOLDER: About = About {
    code: "state-folder",
    severity: Severity::Error,
    after: secs(0),
    affects_connections: false,
    causes: &[],
    title: "the data folder cannot be written, or its disk is almost full",
    does: "the daemon goes on with what it has in memory; it does not start again like this",
    advice: "free some space there, or look at its rights",
};

/// Programs get emulated sockets.
pub(super) static NO_NAMESPACE: About = About {
    code: "no-tun",
    severity: Severity::Info,
    after: secs(0),
    affects_connections: false,
    causes: &[],
    title: "/dev/net/tun cannot be used here, so programs get emulated sockets",
    does: "the daemon tries again by itself",
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
    does: "the daemon turns further ones away until some end",
    advice: "nothing to do, or raise relayed_paths under [limits] in phantomd.toml",
};

/// All, causes before effects: of several causes the first is named.
pub static ALL: [&About; 25] = [
    &BANNED,
    &NO_PEERS,
    &CLOCK_OFF,
    &NO_PLAN,
    &GUARDS_FAIL,
    &BUILDS_FAIL,
    &NO_PATH,
    &NO_TUNNEL,
    &SERVICE_UNSEEN,
    &SERVICE_UNRECORDED,
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
    &UNREACHABLE,
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
                "| `{}` | {} | {affects} | {} s | {} | {} | {} | {causes} |",
                about.code,
                severity.as_str().unwrap(),
                about.after.as_secs(),
                about.title,
                about.does,
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

    /// "See doctor" in doctor helps nobody.
    #[test]
    fn no_warning_sends_its_reader_in_a_circle() {
        for about in ALL {
            let help = about.help();
            for place in ["phantom status", "phantom doctor", "phantom log", "docs/warnings.md"] {
                assert!(!help.contains(place), "{}: whoever reads {help:?} is there", about.code);
            }
            let says_who = ["the daemon ", "maintainers "].iter().any(|who| about.does.contains(who));
            assert!(says_who && !about.does.starts_with("nothing"), "{}: {}", about.code, about.does);
            assert!(about.advice.contains(' ') && about.advice != about.does, "{}: {}", about.code, about.advice);
        }
    }
}
