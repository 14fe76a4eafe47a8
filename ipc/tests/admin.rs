//! The admin dialect: lines as they are in the vectors, versions, limits.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panic

use phantom_ipc::admin::*;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

const VECTORS: &str = include_str!("../vectors/admin.jsonl");

fn hop(letter: &str) -> Hop {
    Hop { node_id: letter.repeat(64), addr: "192.0.2.7:443".to_owned() }
}

fn address() -> Address {
    Address { name: "web".to_owned(), address: "fd70::1".parse().unwrap(), phantom_name: "a.phantom".to_owned() }
}

fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        node_id: "ab".repeat(32),
        listen: vec!["192.0.2.7:443".to_owned()],
        peer: "phantom-peer:AAAA".to_owned(),
        ready: false,
        waiting_for: "an exit path".to_owned(),
        peers: 8,
        exit_paths: 0,
        entry_paths: 2,
        ready_tunnels: 6,
        open_connections: 1,
        notes: vec!["a path was lost".to_owned()],
        warnings: vec![warning()],
        start: vec![StartStep { what: "a first peer".to_owned(), done: true, milliseconds: 250 }],
        published: vec![Published {
            identity: None,
            address: address().address,
            phantom_name: address().phantom_name,
            ports: vec![80, 443],
            seen: "seen from outside 3 min ago".into(),
        }],
        own_record: Some(OwnRecord { kept_by: 12, asked: 14, for_seconds: Some(60) }),
        router: "the router forwards port 8443 to this computer".into(),
        relayed_paths: 3,
        relayed_tunnels: 12,
        relayed_bytes: u64::MAX,
        uptime_seconds: 60,
    }
}

fn warning() -> Warning {
    Warning {
        code: "no-path".to_owned(),
        severity: Severity::Error,
        since_seconds: 7,
        text: "no path stands".to_owned(),
        advice: "wait".to_owned(),
        affects_connections: true,
        caused_by: Some("no-peers".to_owned()),
    }
}

fn doctor() -> Doctor {
    let (name, text, advice) = ("port".to_owned(), "nobody called".to_owned(), Some("open it".to_owned()));
    Doctor { checks: vec![Check { name, state: CheckState::Warning, text, advice }], warnings: vec![warning()] }
}

fn forward() -> Forward {
    Forward {
        port: 80,
        to: "127.0.0.1:8080".to_owned(),
        identity: None,
        address: address().address,
        phantom_name: address().phantom_name,
        keep: false,
        listens: true,
        new_identity: true,
    }
}

fn path() -> Path {
    Path {
        id: "1f2e".to_owned(),
        kind: PathKind::Exit,
        state: PathState::Ready,
        identity: None,
        hops: vec![hop("a"), hop("b")],
        age_seconds: 5,
        ready_tunnels: 3,
    }
}

fn connection() -> Connection {
    Connection {
        id: 1,
        direction: Direction::Outgoing,
        state: ConnectionState::Open,
        identity: Some("web".to_owned()),
        peer_address: "fd70::2".parse().unwrap(),
        port: 80,
        age_seconds: 2,
        sent_bytes: 78,
        received_bytes: 1024,
        moves: 1,
        last_move: Some("a node on the way was lost".to_owned()),
        own_path: Some("3".to_owned()),
        own_hops: vec![hop("a")],
        far_node: Some(hop("c")),
        far_hops: None,
    }
}

fn commands() -> Commands {
    let entry = CommandEntry {
        serial: 1,
        issued: "Sat, 28 Nov 2026 12:00:00 GMT".to_owned(),
        expires: "Sat, 05 Dec 2026 12:00:00 GMT".to_owned(),
        actions: vec!["ban 192.0.2.0/24".to_owned()],
        did: "in force".to_owned(),
    };
    Commands {
        maintainers: Some("2 of 3 must sign".to_owned()),
        highest: 1,
        tip: "ab".repeat(32),
        missing: 0,
        ignored: vec!["insert".to_owned()],
        banned: vec!["192.0.2.0/24 until Sat, 05 Dec 2026 12:00:00 GMT".to_owned()],
        commands: vec![entry],
    }
}

/// `value` is the next line of the vectors, both ways.
fn same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(line: &str, value: T) {
    let reply = Reply::Ok(value);
    assert_eq!(reply.to_line().unwrap().trim_end(), line);
    assert_eq!(Reply::from_line(line.as_bytes()).unwrap(), reply);
}

#[test]
fn lines_are_those_of_the_vectors() {
    let mut lines = VECTORS.lines();
    let name = || "web".to_owned();
    let requests = [
        Request::Status,
        Request::Doctor,
        Request::Log { after: 17 },
        Request::AddressNew { name: name() },
        Request::AddressList,
        Request::AddressShow { name: name() },
        Request::IdentityExport { name: name(), passphrase: Passphrase::new("correct horse") },
        Request::IdentityImport {
            sealed: "phantom identity\nAA==\n".to_owned(),
            passphrase: Passphrase::new("correct horse"),
            name: None,
        },
        Request::IdentityRename { name: name(), to: "shop".to_owned() },
        Request::IdentityRemove { name: name() },
        Request::PathList,
        Request::PeerList,
        Request::PeerExport,
        Request::PeerImport { bundle: "# phantom peers 1\n".to_owned() },
        Request::NetdbLookup { address: "fd70::1".to_owned() },
        Request::Connections,
        Request::ForwardNew { port: 80, to: forward().to.parse().unwrap(), identity: Some(name()), keep: true },
        Request::Offer { port: 80, socket: "/run/site".into(), identity: None },
        Request::ForwardList,
        Request::ForwardRemove { port: 80, identity: None },
        Request::CommandSend { command: "phantom command file 1\n".to_owned() },
        Request::CommandList,
        Request::CommandAllow { serial: 7 },
        Request::Stop,
        Request::Restart,
    ];
    for request in requests {
        let line = lines.next().unwrap();
        assert_eq!(request.to_line().unwrap().trim_end(), line);
        assert_eq!(Request::from_line(format!("{line}\n").as_bytes()).unwrap(), request);
    }
    let mut next = || lines.next().unwrap();
    same(next(), status());
    same(next(), doctor());
    let (at, level, text) = ("2026-01-01T00:00:00.000000Z".to_owned(), "info".to_owned(), "ready".to_owned());
    same(next(), vec![LogLine { number: 18, at, level, text }]);
    same(next(), vec![address()]);
    same(next(), vec![path()]);
    same(next(), vec![Peer { node_id: "a".repeat(64), addr: hop("a").addr, connected: true, last_seen_seconds: None }]);
    same(
        next(),
        Lookup {
            address: address().address,
            phantom_name: address().phantom_name,
            entry_nodes: vec![hop("c")],
            expires_in_seconds: 3600,
        },
    );
    same(next(), vec![connection()]);
    same(next(), vec![forward()]);
    same(next(), commands());
    same(next(), ());
    let failure = Failure { message: "there is no such identity".to_owned(), hint: Some("make it".to_owned()) };
    let error = next();
    assert_eq!(Reply::<()>::Error(failure.clone()).to_line().unwrap().trim_end(), error);
    assert_eq!(Result::from(Reply::<Status>::from_line(error.as_bytes()).unwrap()), Err(failure));
    assert_eq!(lines.next(), None);
}

#[test]
fn a_passphrase_is_never_shown() {
    let request = Request::IdentityExport { name: "web".to_owned(), passphrase: Passphrase::new("correct horse") };
    assert!(!format!("{request:?}").contains("horse"), "{request:?}");
}

#[test]
fn another_version_is_refused_whatever_it_asks() {
    let refused = Request::from_line(br#"{"version":9,"request":{"unheard-of":[]}}"#);
    assert!(matches!(refused, Err(BadLine::Version(9))));
}

#[test]
fn what_is_unknown_or_too_long_is_refused() {
    for line in [
        r#"{"version":5,"request":"dance"}"#,
        r#"{"version":5,"request":"status","more":1}"#,
        r#"{"version":5,"request":{"address-new":{"name":"a","more":1}}}"#,
        r#"{"request":"status"}"#,
        "{",
        "",
    ] {
        assert!(matches!(Request::from_line(line.as_bytes()), Err(BadLine::Form(_))), "{line}");
    }
    assert!(matches!(Request::from_line(&[b' '; MAX_REQUEST + 1]), Err(BadLine::Long(_))));
}

proptest! {
    #[test]
    fn any_name_fits_one_line(name in "\\PC*|[\n\r\"\\\\]*") {
        let request = Request::AddressNew { name };
        let line = request.to_line().unwrap();
        prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
        if line.len() <= MAX_REQUEST {
            prop_assert_eq!(Request::from_line(line.as_bytes()).unwrap(), request);
        }
    }

    #[test]
    fn any_line_is_read_without_panic(line: Vec<u8>) {
        let _ = (Request::from_line(&line).is_ok(), Reply::<Status>::from_line(&line).is_ok());
    }
}
