//! Answers of the daemon as people read them.

use phantom_ipc::admin::{
    Address, Check, CheckState, Connection, ConnectionState, Direction, Doctor, Forward, Hop, LogLine, Lookup,
    OwnRecord, Path, PathKind, PathState, Peer, Published, StartStep, Status, Warning,
};
use phantom_proto::node::age;

use super::table::{bytes, counted, pairs, table};
use crate::say::clean;

/// Characters of [`short`].
const SHORT_ID: usize = 12;

pub(super) fn status(status: &Status) -> String {
    let waiting = if status.ready { String::new() } else { format!(", waiting for: {}", status.waiting_for) };
    let mut rows = vec![
        ("ready", format!("{}{waiting}", if status.ready { "yes" } else { "no" })),
        ("node id", status.node_id.clone()),
        ("listens on", or_dash(status.listen.join(", "))),
        ("peer string", status.peer.clone()),
        ("peers", status.peers.to_string()),
        ("exit paths", status.exit_paths.to_string()),
        ("entry paths", status.entry_paths.to_string()),
        ("ready tunnels", status.ready_tunnels.to_string()),
        ("open connections", status.open_connections.to_string()),
        (
            "relays",
            format!(
                "{}, {}; {} so far",
                counted(status.relayed_paths, "path"),
                counted(status.relayed_tunnels, "tunnel"),
                bytes(status.relayed_bytes)
            ),
        ),
        ("own record", status.own_record.as_ref().map_or_else(|| "not published yet".to_owned(), own_record)),
        ("router", status.router.clone()),
        ("running for", age(status.uptime_seconds)),
        ("version", status.version.clone()),
    ];
    if status.start.iter().any(|step| !step.done) {
        rows.extend(status.start.iter().map(|step| ("start", start_step(step))));
    }
    rows.extend(status.warnings.iter().filter(|one| one.caused_by.is_none()).map(warning));
    rows.extend(status.notes.iter().map(|note| ("note", note.clone())));
    // The label once.
    let labels = std::iter::once("published").chain(std::iter::repeat(""));
    rows.extend(labels.zip(status.published.iter().map(published)));
    pairs(&rows)
}

/// Where this node's record stands, and since when.
pub(super) fn own_record(record: &OwnRecord) -> String {
    let kept = format!("kept by {} of {} asked", record.kept_by, record.asked);
    match record.for_seconds {
        Some(seconds) => format!("{kept}; by more than half for {}", age(seconds)),
        None => format!("{kept}, which is too few; it is written again"),
    }
}

/// A step of the start, with the time that it took.
fn start_step(step: &StartStep) -> String {
    let took = format!("{}.{} s", step.milliseconds / 1000, step.milliseconds % 1000 / 100);
    match (step.done, step.milliseconds) {
        (true, _) => format!("{}: after {took}", step.what),
        // It has not begun: one before it is not done.
        (false, 0) => format!("{}: not yet", step.what),
        (false, _) => format!("{}: not yet, for {took}", step.what),
    }
}

/// How grave it is; what is wrong, with its code, and what to do.
fn warning(one: &Warning) -> (&'static str, String) {
    let affects = if one.affects_connections { ", connections suffer" } else { "" };
    let text = format!("{} ({}{affects}, for {}): {}", one.text, one.code, age(one.since_seconds), one.advice);
    (one.severity.word(), text)
}

pub(super) fn doctor(doctor: &Doctor) -> String {
    let rows: Vec<_> = doctor.checks.iter().map(check).collect();
    let mut text = table(["", "looked at", "is"], &rows);
    let warnings: Vec<_> = doctor.warnings.iter().filter(|one| one.caused_by.is_none()).map(warning).collect();
    if !warnings.is_empty() {
        text.push('\n');
        text.push_str(&pairs(&warnings));
    }
    text
}

pub(super) fn log(lines: &[LogLine]) -> String {
    lines.iter().map(|line| format!("{} {:5} {}\n", line.at, line.level, clean(&line.text))).collect()
}

fn check(check: &Check) -> [String; 3] {
    let state = match check.state {
        // Nothing need be done, though something could be.
        CheckState::Good if check.advice.is_some() => "info",
        CheckState::Good => "ok",
        CheckState::Unknown => "?",
        CheckState::Warning => "look",
        CheckState::Bad => "BAD",
    };
    let advice = check.advice.as_ref().map(|advice| format!("; {advice}")).unwrap_or_default();
    [state.to_owned(), check.name.clone(), format!("{}{advice}", check.text)]
}

/// Where others reach a program of this computer.
fn published(one: &Published) -> String {
    let ports: Vec<String> = one.ports.iter().map(ToString::to_string).collect();
    let (label, whose) = (if ports.len() == 1 { "port" } else { "ports" }, one.identity.as_deref());
    let whose = whose.map_or_else(|| "fresh for its run".to_owned(), |name| format!("identity {name}"));
    let seen = if one.seen.is_empty() { String::new() } else { format!("; {}", one.seen) };
    format!("{label} {} at {} ({}), {whose}{seen}", ports.join(", "), one.phantom_name, one.address)
}

pub(super) fn address(address: &Address) -> String {
    pairs(&[
        ("name", address.name.clone()),
        ("address", address.address.to_string()),
        ("phantom name", address.phantom_name.clone()),
    ])
}

/// One that is no more, at this daemon.
pub(super) fn gone(address: &Address) -> String {
    pairs(&[
        ("removed", address.name.clone()),
        ("address", address.address.to_string()),
        ("phantom name", address.phantom_name.clone()),
    ])
}

/// One that has just been made: it is nowhere else.
pub(super) fn new_address(one: &Address) -> String {
    let backup = format!("`phantom identity export {} FILE` makes one; without it, what is lost is lost", one.name);
    address(one) + &pairs(&[("backup      ", backup)])
}

pub(super) fn addresses(list: &[Address]) -> String {
    if list.is_empty() {
        return "no addresses yet: `phantom identity new NAME` makes one\n".to_owned();
    }
    let rows: Vec<_> =
        list.iter().map(|one| [one.name.clone(), one.address.to_string(), one.phantom_name.clone()]).collect();
    table(["name", "address", "phantom name"], &rows)
}

pub(super) fn forward(one: &Forward) -> String {
    let lasts = match (&one.identity, one.keep) {
        (_, true) => "after restarts as well, until `phantom forward remove`",
        (Some(_), false) => "until the daemon ends",
        (None, false) => "until the daemon ends, and the address with it",
    };
    let idle = if one.listens { "" } else { ", where nothing listens yet: until something does, visitors are refused" };
    let mut rows = vec![
        ("others reach", format!("port {} at {}", one.port, one.phantom_name)),
        ("which leads to", format!("{}{idle}", one.to)),
        ("how long", lasts.to_owned()),
        ("mind", "it sees visitors come from loopback: what trusts that trusts them all".to_owned()),
    ];
    rows.extend(new_identity(one).map(|new| ("identity", new)));
    pairs(&rows)
}

/// Of a name that was made for what is offered at it: whoever has mistyped it sees it here.
fn new_identity(one: &Forward) -> Option<String> {
    let name = one.identity.as_ref().filter(|_| one.new_identity)?;
    Some(format!(
        "{name} is new, and lasts: `phantom identity remove {name}` ends it, `phantom identity export {name} FILE` keeps a copy"
    ))
}

/// A folder that is shown at an address.
pub(super) fn served(address: &str, one: &Forward) -> String {
    let lasts = match &one.identity {
        Some(name) => format!("until Ctrl-C; the address is that of {name} and stays"),
        None => "until Ctrl-C, and the address with it".to_owned(),
    };
    let mut rows = vec![("how long", lasts), ("mind", "whoever knows the address may read it".to_owned())];
    rows.extend(new_identity(one).map(|new| ("identity", new)));
    // By itself it fits a terminal of 80 columns, unbroken.
    format!("{address}\n{}", pairs(&rows))
}

/// Where the console is, for whom, and for how long.
pub(super) fn console(link: &str, socket: Option<&str>) -> String {
    let mut rows = vec![("link", link.to_owned())];
    if let Some(socket) = socket {
        rows.push((
            "socket",
            format!("{socket}: `ssh -L 127.0.0.1:8000:{socket} COMPUTER` leads a browser's port 8000 here"),
        ));
    }
    rows.push(("for whom", "the browser that opens it first; the link works once".to_owned()));
    rows.push(("how long", "until Ctrl-C".to_owned()));
    pairs(&rows)
}

pub(super) fn forwards(list: &[Forward]) -> String {
    if list.is_empty() {
        return "nothing is forwarded: `phantom forward 80=127.0.0.1:8080` offers what listens there\n".to_owned();
    }
    let row = |one: &Forward| {
        let kept = if one.keep { "yes" } else { "no" };
        let identity = or_dash(one.identity.clone().unwrap_or_default());
        let idle = if one.listens { "" } else { " (nothing listens)" };
        [one.port.to_string(), format!("{}{idle}", one.to), identity, kept.to_owned(), one.phantom_name.clone()]
    };
    table(["port", "leads to", "identity", "kept", "at"], &list.iter().map(row).collect::<Vec<_>>())
}

pub(super) fn removed(one: &Forward) -> String {
    let whose = one.identity.as_ref().map_or_else(|| "a fresh identity".to_owned(), |name| format!("identity {name}"));
    format!("taken back: port {} of {whose}, which led to {}\n", one.port, one.to)
}

pub(super) fn paths(list: &[Path]) -> String {
    if list.is_empty() {
        return "no paths yet: `phantom status` says what the daemon waits for\n".to_owned();
    }
    let row = |path: &Path| {
        [
            path.id.clone(),
            path_kind(path.kind).to_owned(),
            match path.state {
                PathState::Building => "building",
                PathState::Ready => "ready",
                PathState::Broken => "broken",
            }
            .to_owned(),
            or_dash(path.identity.clone().unwrap_or_default()),
            age(path.age_seconds),
            path.ready_tunnels.to_string(),
            way(&path.hops),
        ]
    };
    let rows: Vec<_> = list.iter().map(row).collect();
    table(["id", "kind", "state", "identity", "age", "tunnels", "hops, from here outwards"], &rows)
}

/// What a path is for.
pub(super) fn path_kind(kind: PathKind) -> &'static str {
    match kind {
        PathKind::Spare => "spare",
        PathKind::Exit => "exit",
        PathKind::Lookup => "lookup",
        PathKind::Entry => "entry",
    }
}

pub(super) fn peers(list: &[Peer]) -> String {
    if list.is_empty() {
        return "no other node known: start the daemon with --peer PEER\n".to_owned();
    }
    let row = |peer: &Peer| {
        let seen = peer.last_seen_seconds.map_or_else(|| "never".to_owned(), |seconds| format!("{} ago", age(seconds)));
        [short(&peer.node_id), peer.addr.clone(), if peer.connected { "yes" } else { "no" }.to_owned(), seen]
    };
    let rows: Vec<_> = list.iter().map(row).collect();
    table(["node", "address", "connected", "last seen"], &rows)
}

pub(super) fn connections(list: &[Connection]) -> String {
    if list.is_empty() {
        return "no connections now: programs of `phantom-run PROGRAM` make them, and whoever reaches what is published\n"
            .to_owned();
    }
    list.iter().map(connection).collect()
}

/// Two lines per connection: what it is, and its way; a third when it has moved.
fn connection(connection: &Connection) -> String {
    let direction = match connection.direction {
        Direction::Outgoing => "to",
        Direction::Incoming => "from",
    };
    let state = match connection.state {
        ConnectionState::Opening => "opening",
        ConnectionState::Open => "open",
        ConnectionState::Closed => "closed",
    };
    let identity = connection.identity.as_ref().map(|name| format!(" as {name}")).unwrap_or_default();
    let moves = match (connection.moves, &connection.last_move) {
        (0, _) | (_, None) => String::new(),
        (1, Some(why)) => format!("   moved once: {why}\n"),
        (moves, Some(why)) => format!("   moved {moves} times, last: {why}\n"),
    };
    format!(
        "#{} {direction} {} port {}{identity}: {state}, {} old, {} sent, {} received\n   {}\n{moves}",
        connection.id,
        connection.peer_address,
        connection.port,
        age(connection.age_seconds),
        bytes(connection.sent_bytes),
        bytes(connection.received_bytes),
        whole_way(connection)
    )
}

/// Own path, link, and what is known of the other side.
fn whole_way(connection: &Connection) -> String {
    let far = connection.far_node.as_ref().map_or_else(|| "(their outermost node)".to_owned(), hop);
    let beyond = match &connection.far_hops {
        Some(hops) => way(hops.get(1..).unwrap_or_default()),
        None => "(their path)".to_owned(),
    };
    format!("here > {} >> {far} > {beyond} > there", way(&connection.own_hops))
}

pub(super) fn lookup(lookup: &Lookup) -> String {
    let mut text = pairs(&[
        ("address", lookup.address.to_string()),
        ("phantom name", lookup.phantom_name.clone()),
        ("expires in", age(lookup.expires_in_seconds)),
    ]);
    if lookup.entry_nodes.is_empty() {
        text.push_str("no entry nodes: nothing is offered at this address now\n");
        return text;
    }
    let rows: Vec<_> = lookup.entry_nodes.iter().map(|node| [short(&node.node_id), node.addr.clone()]).collect();
    text + &table(["entry node", "address"], &rows)
}

fn way(hops: &[Hop]) -> String {
    or_dash(hops.iter().map(hop).collect::<Vec<_>>().join(" > "))
}

fn hop(hop: &Hop) -> String {
    format!("{}@{}", short(&hop.node_id).get(..8).unwrap_or(&hop.node_id), hop.addr)
}

/// As much of a node id as tells nodes apart for people.
pub(super) fn short(id: &str) -> String {
    id.get(..SHORT_ID).unwrap_or(id).to_owned()
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning_of(code: &str, caused_by: Option<&str>) -> Warning {
        Warning {
            code: code.into(),
            severity: phantom_ipc::admin::Severity::Error,
            since_seconds: 65,
            text: "nobody answers".into(),
            advice: "go online".into(),
            affects_connections: true,
            caused_by: caused_by.map(str::to_owned),
        }
    }

    fn node(n: u8) -> Hop {
        Hop { node_id: format!("{n:02x}").repeat(32), addr: format!("127.{n}.0.1:1") }
    }

    #[test]
    fn a_daemon_that_is_not_ready_says_why() {
        let status = status(&Status {
            version: "0.1.0".into(),
            node_id: "ab".repeat(32),
            listen: Vec::new(),
            peer: "phantom-peer:x".into(),
            ready: false,
            waiting_for: "a first peer; an exit path".into(),
            peers: 0,
            exit_paths: 0,
            entry_paths: 0,
            ready_tunnels: 0,
            open_connections: 0,
            notes: vec!["a path was lost".into()],
            warnings: vec![warning_of("no-peers", None), warning_of("no-path", Some("no-peers"))],
            start: vec![
                StartStep { what: "a first peer".into(), done: true, milliseconds: 1_250 },
                StartStep { what: "guards".into(), done: false, milliseconds: 60_000 },
                StartStep { what: "a first path".into(), done: false, milliseconds: 0 },
            ],
            published: vec![
                Published {
                    identity: Some("shop".into()),
                    address: "fd70::1".parse().unwrap(),
                    phantom_name: "x.phantom".into(),
                    ports: vec![80, 443],
                    seen: "seen from outside 3 min ago".into(),
                },
                Published {
                    identity: None,
                    address: "fd70::2".parse().unwrap(),
                    phantom_name: "y.phantom".into(),
                    ports: vec![22],
                    seen: String::new(),
                },
            ],
            own_record: Some(OwnRecord { kept_by: 12, asked: 14, for_seconds: Some(65) }),
            router: "the router forwards port 8443 to this computer".into(),
            relayed_paths: 3,
            relayed_tunnels: 12,
            relayed_bytes: 5_000_000,
            uptime_seconds: 61,
        });
        assert!(status.contains("no, waiting for: a first peer; an exit path\n"), "{status}");
        let published = "published         ports 80, 443 at x.phantom (fd70::1), identity shop; seen from outside 3 min ago\n                  port 22 at y.phantom (fd70::2), fresh for its run\n";
        assert!(status.ends_with(published), "{status}");
        let stands = "own record        kept by 12 of 14 asked; by more than half for 1 min 5 s\n";
        assert!(status.contains(stands), "{status}");
        let few = own_record(&OwnRecord { kept_by: 3, asked: 14, for_seconds: None });
        assert_eq!(few, "kept by 3 of 14 asked, which is too few; it is written again");
        assert!(status.contains("note              a path was lost\n"), "{status}");
        assert!(status.contains("start             a first peer: after 1.2 s\n"), "{status}");
        assert!(status.contains("start             guards: not yet, for 60.0 s\n"), "{status}");
        assert!(status.contains("start             a first path: not yet\n"), "{status}");
        let warned = "error             nobody answers (no-peers, connections suffer, for 1 min 5 s): go online\n";
        assert!(status.contains(warned) && !status.contains("no-path"), "an effect is not told: {status}");
        assert!(status.contains("3 paths, 12 tunnels; 5.0 MB so far") && status.contains("1 min 1 s"), "{status}");
    }

    /// "warning" before what nobody need do anything about.
    #[test]
    fn what_is_told_is_called_by_how_grave_it_is() {
        use phantom_ipc::admin::Severity;
        let all = [(Severity::Info, "info     "), (Severity::Warning, "warning  "), (Severity::Error, "error    ")];
        let warnings = all.map(|(severity, _)| Warning { severity, ..warning_of("a", None) }).to_vec();
        let text = doctor(&Doctor { checks: Vec::new(), warnings });
        let lines: Vec<_> = text.lines().skip_while(|line| !line.is_empty()).skip(1).collect();
        assert!(lines.iter().zip(all).all(|(line, (_, label))| line.starts_with(label)), "{text}");
        // As scripts read it.
        assert!(all.iter().all(|(one, label)| serde_json::json!(one) == label.trim()));
    }

    #[test]
    fn empty_lists_say_what_to_do() {
        assert!(addresses(&[]).contains("identity new"));
        assert!(paths(&[]).contains("phantom status"));
        assert!(peers(&[]).contains("--peer"));
        assert!(connections(&[]).contains("no connections") && connections(&[]).contains("phantom-run"));
        assert!(forwards(&[]).contains("phantom forward 80=127.0.0.1:8080"));
    }

    #[test]
    fn a_connection_shows_its_way() {
        let mut one = Connection {
            id: 7,
            direction: Direction::Outgoing,
            state: ConnectionState::Open,
            identity: Some("web".into()),
            peer_address: "fd70::1".parse().unwrap(),
            port: 80,
            age_seconds: 3,
            sent_bytes: 10,
            received_bytes: 2000,
            moves: 0,
            last_move: None,
            own_path: Some("4".to_owned()),
            own_hops: vec![node(1), node(2), node(3)],
            far_node: Some(node(4)),
            far_hops: None,
        };
        let text = connections(std::slice::from_ref(&one));
        assert!(
            text.starts_with("#7 to fd70::1 port 80 as web: open, 3 s old, 10 B sent, 2.0 kB received\n"),
            "{text}"
        );
        let own = "here > 01010101@127.1.0.1:1 > 02020202@127.2.0.1:1 > 03030303@127.3.0.1:1 >> 04040404@127.4.0.1:1";
        assert!(text.contains(&format!("{own} > (their path) > there")), "{text}");
        assert!(!text.contains("moved"), "{text}");
        (one.moves, one.last_move) = (2, Some("a node on the way was lost".into()));
        let text = connections(std::slice::from_ref(&one));
        assert!(text.ends_with("   moved 2 times, last: a node on the way was lost\n"), "{text}");
        one.far_hops = Some(vec![node(4), node(5)]);
        assert!(connections(&[one]).contains(&format!("{own} > 05050505@127.5.0.1:1 > there")));
    }

    #[test]
    fn paths_peers_and_look_ups_are_tables() {
        let path = Path {
            id: "p1".into(),
            kind: PathKind::Entry,
            state: PathState::Ready,
            identity: None,
            hops: vec![node(1), node(2)],
            age_seconds: 90_000,
            ready_tunnels: 4,
        };
        let text = paths(&[path]);
        assert!(text.lines().nth(1).unwrap().starts_with("p1  entry  ready  -         1 d 1 h  4"), "{text}");
        let peer =
            Peer { node_id: "cd".repeat(32), addr: "127.1.0.1:1".into(), connected: false, last_seen_seconds: None };
        assert!(peers(&[peer]).contains("cdcdcdcdcdcd  127.1.0.1:1  no         never"));
        let found = Lookup {
            address: "fd70::1".parse().unwrap(),
            phantom_name: "x.phantom".into(),
            entry_nodes: Vec::new(),
            expires_in_seconds: 3600,
        };
        assert!(lookup(&found).contains("nothing is offered"));
        assert!(lookup(&Lookup { entry_nodes: vec![node(9)], ..found }).contains("090909090909  127.9.0.1:1"));
    }
}
