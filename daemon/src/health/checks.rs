//! What `phantom doctor` looks at, one line each: what is as it should be is said, too.

use std::path::Path;

use phantom_ipc::admin::{Check, CheckState, Severity, Warning};
use phantom_proto::path::choice::Note;

use super::codes::{
    CLOCK_OFF, LAYERS_OFF, NO_NAMESPACE, NO_PATH, NO_PEERS, NO_PLAN, STATE_FOLDER, UNPUBLISHED, UNREACHABLE,
};
use super::{Around, Facts, clock_in_words, of_choice};
use crate::os;
use crate::router::{Forwarding, Refused};

/// What can be off by without harm, in milliseconds; it is corrected.
const CORRECTED: u64 = 120_000;

fn check(name: &str, state: CheckState, text: impl Into<String>, advice: &str) -> Check {
    let advice = (!advice.is_empty() && state != CheckState::Good).then(|| advice.to_owned());
    Check { name: name.to_owned(), state, text: text.into(), advice }
}

fn good(is_good: bool, else_state: CheckState) -> CheckState {
    if is_good { CheckState::Good } else { else_state }
}

/// All that a running daemon can say.
pub fn checks(facts: &Facts, data: &Path, listen: &str) -> Vec<Check> {
    let mut all = vec![state_folder(&facts.around, data)];
    all.extend(checks_of_computer(&facts.around));
    all.extend([port(facts, listen), router(facts), clock(facts), peers(facts), sample(facts), own_record(facts)]);
    all.extend([guards(facts), layers(facts), paths(facts)]);
    all
}

/// What can be said without a daemon.
fn checks_of_computer(around: &Around) -> Vec<Check> {
    if !os::HAS_NAMESPACES {
        return Vec::new();
    }
    let tun = match &around.no_tun {
        None => "/dev/net/tun can be used".to_owned(),
        Some(why) => format!("/dev/net/tun: {why}; programs get emulated sockets"),
    };
    let namespaces = around.no_user_namespaces.map_or_else(
        || "the kernel's settings allow them".to_owned(),
        |why| format!("{why}: programs of ordinary users get a weaker way"),
    );
    let advice = "change that setting with sysctl, or start programs as root under root's daemon";
    // Programs start all the same; only who knows that can do something about it.
    let lacks = around.no_tun.as_ref().map(|_| NO_NAMESPACE.help());
    vec![
        Check { advice: lacks, ..check("tun", CheckState::Good, tun, "") },
        check("user-namespaces", good(around.no_user_namespaces.is_none(), CheckState::Warning), namespaces, advice),
    ]
}

/// Whoever asks has an answer.
pub fn daemon_answers(socket: &Path) -> Check {
    check("daemon", CheckState::Good, format!("it answers at {}", socket.display()), "")
}

/// The daemon serves this user, and tells root alone how its node is: `why` says so.
pub fn node_is_roots(why: &str) -> Check {
    check("node", CheckState::Unknown, why, "`sudo phantom doctor` looks at the rest")
}

/// Nobody answers at the local socket: `why` says how.
pub fn no_daemon(why: &str) -> Check {
    let (text, advice) = why.split_once("\n  ").unwrap_or((why, "start one with `phantomd`"));
    check("daemon", CheckState::Bad, text, advice)
}

/// The same, with what can be said without a daemon.
pub fn without_daemon(why: &str, around: &Around) -> Vec<Check> {
    let mut all = vec![no_daemon(why)];
    all.extend(checks_of_computer(around));
    all
}

/// The worst of all: what the exit status tells.
pub fn worst(checks: &[Check], warnings: &[Warning]) -> CheckState {
    let of = |warning: &Warning| match warning.severity {
        _ if warning.affects_connections => CheckState::Bad,
        Severity::Info => CheckState::Good,
        Severity::Warning | Severity::Error => CheckState::Warning,
    };
    let told = warnings.iter().map(of);
    checks.iter().map(|check| check.state).chain(told).max().unwrap_or(CheckState::Good)
}

fn state_folder(around: &Around, data: &Path) -> Check {
    let free = around.free.map_or_else(String::new, |free| format!(", {} free", room(free)));
    let text = match &around.unwritable {
        Some(why) => format!("{} cannot be written: {why}", data.display()),
        None => format!("{}{free}", data.display()),
    };
    check("state-folder", good(around.keeps(), CheckState::Warning), text, &STATE_FOLDER.help())
}

/// Room on a disk, in words.
fn room(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    match bytes {
        ..GIB => format!("{} MiB", bytes >> 20),
        _ => format!("{}.{} GiB", bytes / GIB, bytes % GIB * 10 / GIB),
    }
}

fn port(facts: &Facts, listen: &str) -> Check {
    let (state, text) = match facts.reachable {
        Some(true) => (CheckState::Good, format!("other nodes have opened links to {listen}")),
        Some(false) if facts.says_unreachable => {
            (CheckState::Good, format!("{}, as phantomd.toml says", UNREACHABLE.title))
        }
        // Programs lack nothing; only who knows that can do something about it.
        Some(false) => {
            return Check {
                advice: Some(UNREACHABLE.help()),
                ..check("port", CheckState::Good, UNREACHABLE.title, "")
            };
        }
        None => (CheckState::Unknown, format!("no other node has tried yet to open a link to {listen}")),
    };
    check("port", state, text, &UNREACHABLE.help())
}

/// None is needed where others come in by another way.
fn router(facts: &Facts) -> Check {
    let by_hand = || {
        let port = facts.port;
        format!(
            "to help others, forward TCP port {port} to this computer in the router's own settings, and set `advertise` in phantomd.toml to the address outside"
        )
    };
    let advice = match facts.router {
        _ if facts.reachable == Some(true) => None,
        Forwarding::Refused(Refused::Behind) => {
            Some("nothing need be done; only the provider could change it".to_owned())
        }
        Forwarding::Refused(_) => Some(by_hand()),
        Forwarding::Forwards { .. } if facts.reachable == Some(false) => Some(
            "others do not come in all the same: a firewall, of this computer or of the provider, may keep them out"
                .to_owned(),
        ),
        Forwarding::Forwards { .. } | Forwarding::Left(_) | Forwarding::Waits => None,
    };
    // Programs lack nothing, as with the port.
    Check { advice, ..check("router", CheckState::Good, facts.router.words(), "") }
}

fn clock(facts: &Facts) -> Check {
    let Some(ahead) = facts.clock_ahead else {
        let text = "not compared yet: that takes links to nodes of five networks";
        return check("clock", CheckState::Unknown, text, "");
    };
    let off = ahead.unsigned_abs();
    let text = if off > CORRECTED {
        clock_in_words(ahead)
    } else {
        format!("{}.{} s from those of other nodes", off / 1000, off % 1000 / 100)
    };
    check("clock", good(off <= CORRECTED, CheckState::Bad), text, &CLOCK_OFF.help())
}

fn peers(facts: &Facts) -> Check {
    let text = format!("nodes connected: {}", facts.connected);
    check("peers", good(facts.connected > 0, CheckState::Bad), text, &NO_PEERS.help())
}

fn sample(facts: &Facts) -> Check {
    let problem = facts.vitals.problem.as_ref().map_or_else(String::new, |problem| format!("; {problem}"));
    let text = format!("nodes known to choose from: {}{problem}", facts.known);
    let state = good(facts.known > 0 && problem.is_empty(), CheckState::Warning);
    check("sample", state, text, &NO_PLAN.help())
}

fn own_record(facts: &Facts) -> Check {
    let (state, text) = match facts.published {
        _ if facts.reachable == Some(false) => (CheckState::Good, "this node has no record: it relays for nobody"),
        None => (CheckState::Unknown, "this node's record is being published"),
        Some(true) => (CheckState::Good, "other nodes have taken this node's record"),
        Some(false) => (CheckState::Warning, "no other node took this node's record"),
    };
    check("own-record", state, text, &UNPUBLISHED.help())
}

/// Of the choice of nodes all that is told is told as a warning as well; provisional guards are how everybody begins.
fn guards(facts: &Facts) -> Check {
    let is_trouble = |note: &&Note| !matches!(note, Note::Provisional | Note::LayersOff);
    let troubles: Vec<&Note> = facts.vitals.choice.iter().filter(is_trouble).collect();
    let provisional = facts.vitals.choice.contains(&Note::Provisional);
    let text =
        std::iter::once(format!("guards: {}{}", facts.vitals.guards, if provisional { ", provisional" } else { "" }))
            .chain(troubles.iter().map(ToString::to_string));
    let text = text.collect::<Vec<_>>().join("; ");
    let state = good(facts.vitals.guards > 0 && troubles.is_empty(), CheckState::Warning);
    // What helps against the first of them.
    let advice = troubles.first().map_or_else(|| NO_PLAN.help(), |note| of_choice(note).help());
    check("guards", state, text, &advice)
}

fn layers(facts: &Facts) -> Check {
    let off = facts.vitals.choice.contains(&Note::LayersOff);
    let text = if off { LAYERS_OFF.title } else { "layers of nodes stand behind the guards" };
    // A small network has none, and nobody can do anything about it.
    check("layers", CheckState::Good, text, "")
}

fn paths(facts: &Facts) -> Check {
    let text =
        format!("paths that stand for what goes out: {}; ready tunnels: {}", facts.exit_paths, facts.ready_tunnels);
    let state = match (facts.is_without_path(), facts.ready_tunnels) {
        (true, _) => CheckState::Bad,
        // The last one was just used, and the next is on its way; if none comes there is a warning.
        (_, 0) => CheckState::Unknown,
        _ => CheckState::Good,
    };
    check("paths", state, text, &NO_PATH.help())
}
