//! The other end of the command line's questions, played: what a daemon could say if all that strangers decide were hostile, or there were
//! much of everything, or nothing.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::eventually;
use crate::programs::Folder;

/// What is said next: the whole reply to every question, or the answer by question; none when it has ended.
type Saying = Arc<Mutex<Option<Value>>>;

/// How many there were.
#[derive(Default)]
struct Questions {
    answered: AtomicUsize,
    ignored: AtomicUsize,
}

/// A daemon that says what it is told to.
pub struct Scripted {
    /// Where it listens.
    pub socket: String,
    saying: Saying,
    questions: Arc<Questions>,
    _folder: Folder,
}

/// All commands of `phantom` that answer with what a daemon says, and `unit list`, which answers without one.
pub const ANSWERS: [&[&str]; 12] = [
    &["status"],
    &["doctor"],
    &["log"],
    &["address", "list"],
    &["identity", "list"],
    &["path", "list"],
    &["peer", "list"],
    &["connection", "list"],
    &["netdb", "lookup", "fd70::1"],
    &["command", "list"],
    &["forward"],
    &["unit", "list"],
];

impl Scripted {
    /// One that has these answers.
    pub fn start(answers: Value) -> Result<Self> {
        let folder = Folder::new()?;
        let socket = folder.at("daemon.sock");
        let listener = UnixListener::bind(&socket)?;
        std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
        let saying: Saying = Arc::new(Mutex::new(Some(answers)));
        let questions = Arc::new(Questions::default());
        let (said, counted) = (saying.clone(), questions.clone());
        // It ends with the test's process.
        std::thread::spawn(move || {
            for visitor in listener.incoming().flatten() {
                let (said, counted) = (said.clone(), counted.clone());
                std::thread::spawn(move || converse(visitor, &said, &counted));
            }
        });
        Ok(Self { socket, saying, questions, _folder: folder })
    }

    /// One that has the same reply to everything.
    pub fn start_saying(reply: &Value) -> Result<Self> {
        Self::start(json!({"all": reply}))
    }

    /// Waits until it has answered that often.
    pub fn has_answered(&self, times: usize) -> Result<()> {
        reached(&self.questions.answered, times)
    }

    /// Waits until it has met that many questions with silence.
    pub fn has_ignored(&self, times: usize) -> Result<()> {
        reached(&self.questions.ignored, times)
    }

    /// From now on; `{"silent": true}` hears all and says nothing.
    pub fn say(&self, answers: Option<Value>) {
        *self.saying.lock().unwrap_or_else(PoisonError::into_inner) = answers;
    }
}

fn reached(count: &AtomicUsize, times: usize) -> Result<()> {
    eventually(|| {
        let is = count.load(Ordering::SeqCst);
        ensure!(is >= times, "{is} questions, not {times}");
        Ok(())
    })
}

fn converse(visitor: UnixStream, said: &Saying, counted: &Questions) -> Option<()> {
    let mut lines = BufReader::new(visitor.try_clone().ok()?);
    let mut visitor = visitor;
    loop {
        let mut line = Vec::new();
        if lines.read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        // Ended: the conversation does, too.
        let answers = said.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        // Whatever it hears: what a launcher says is no JSON, and may have the end of a line in its key.
        if answers["silent"] == true {
            counted.ignored.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        let asked = serde_json::from_slice::<Value>(&line).ok()?["request"].take();
        let name = asked.as_str().or_else(|| asked.as_object()?.keys().next().map(String::as_str))?;
        let reply = if answers["all"].is_null() { json!({"ok": answers[name]}) } else { answers["all"].clone() };
        visitor.write_all(format!("{reply}\n").as_bytes()).ok()?;
        counted.answered.fetch_add(1, Ordering::SeqCst);
    }
}

fn status() -> Value {
    json!({
        "version": "1.2.3", "node_id": "ab".repeat(32), "listen": ["192.0.2.1:8443"], "peer": "phantom-peer:AAAA", "ready": true,
        "waiting_for": "", "peers": 0, "exit_paths": 0, "entry_paths": 0, "ready_tunnels": 0, "open_connections": 0, "notes": [],
        "warnings": [], "start": [], "published": [], "own_record": null,
        "router": "no router was asked yet to forward the port", "relayed_paths": 0, "relayed_tunnels": 0, "relayed_bytes": 0,
        "uptime_seconds": 61,
    })
}

/// A daemon that has nothing yet.
pub fn quiet() -> Value {
    json!({
        "status": status(), "path-list": [], "connections": [], "address-list": [], "forward-list": [], "peer-list": [], "log": [],
        "command-list": {"maintainers": null, "highest": 0, "tip": "", "missing": 0, "ignored": [], "banned": [], "commands": []},
    })
}

fn hop(n: usize) -> Value {
    json!({"node_id": format!("{n:08x}").repeat(8), "addr": format!("127.{n}.0.1:20999")})
}

fn hops(n: usize) -> Value {
    json!([hop(n % 9 + 1), hop(n % 7 + 20), hop(n % 5 + 40)])
}

/// Two paths over the same nodes, of which the second carries a connection.
pub fn twins() -> Value {
    let path = |id: &str| {
        json!({
            "id": id, "kind": "exit", "state": "ready", "identity": null, "hops": hops(1), "age_seconds": 100, "ready_tunnels": 4,
        })
    };
    let mut answers = quiet();
    answers["path-list"] = json!([path("1"), path("2")]);
    answers["connections"] = json!([{
        "id": 1, "direction": "outgoing", "state": "open", "identity": null, "peer_address": "fd70::1", "port": 443, "age_seconds": 1,
        "sent_bytes": 0, "received_bytes": 0, "moves": 0, "last_move": null, "own_path": "2", "own_hops": hops(1), "far_node": null,
        "far_hops": null,
    }]);
    answers
}

/// Much of everything; every text would be harmful as markup.
pub fn hostile() -> Value {
    const EVIL: &str =
        "</td></tr></table><script>owned = 1</script><img src=x onerror=\"owned = 1\"><iframe srcdoc=x></iframe>";
    let kinds = ["exit", "lookup", "entry", "spare"];
    let states = ["ready", "ready", "building", "broken"];
    let path = |n: usize| {
        json!({
            "id": n.to_string(), "kind": (kinds[n % 4]), "state": (states[n / 4 % 4]), "identity": if n == 0 { json!("shop<script>") } else { Value::Null },
            "hops": hops(n), "age_seconds": n * 100, "ready_tunnels": 4,
        })
    };
    let connection = |n: usize| {
        json!({
            "id": n, "direction": if n.is_multiple_of(2) { "outgoing" } else { "incoming" }, "state": (["open", "opening", "closed"][n % 3]),
            "identity": "shop<script>", "peer_address": format!("fd70::{n:x}"), "port": 443, "age_seconds": n, "sent_bytes": 1000 * n,
            "received_bytes": 5_000_000, "moves": 2, "last_move": EVIL, "own_path": n.to_string(),
            "own_hops": hops(n), "far_node": hop(n), "far_hops": null,
        })
    };
    let warning = |code: &str, severity: &str, because: Option<&str>| {
        json!({
            "code": code, "severity": severity, "since_seconds": 65, "text": format!("{EVIL} {code}"), "advice": "look <b>closer</b>",
            "affects_connections": true, "caused_by": because,
        })
    };
    let name = format!("{}.phantom", "a".repeat(56));
    let mut status = status();
    status["ready"] = json!(false);
    status["waiting_for"] = json!("a <b>first</b> path");
    status["notes"] = json!([EVIL, "a path was lost\u{1b}[2J\u{9b}31m\u{7}"]);
    status["warnings"] = json!([
        warning("no-path", "error", None),
        warning("no-tunnel", "error", Some("no-path")),
        warning("clock", "warning", None)
    ]);
    status["start"] = json!([
        {"what": "a first peer", "done": true, "milliseconds": 1250}, {"what": EVIL, "done": false, "milliseconds": 60000},
    ]);
    status["published"] = json!([
        {"identity": "shop<script>", "address": "fd70::1", "phantom_name": name, "ports": [80, 443], "seen": "seen from outside <img src=x onerror=owned=1>"},
        {"identity": null, "address": "fd70::2", "phantom_name": name, "ports": [22], "seen": ""},
    ]);
    status["own_record"] = json!({"kept_by": 12, "asked": 14, "for_seconds": 65});
    let line = |n: usize| {
        let (level, text) =
            if n == 300 { ("error", EVIL) } else { (["error", "warn", "info", "debug"][n % 4], "a line") };
        json!({"number": n, "at": "2026-01-01T00:00:00.000000Z", "level": level, "text": text})
    };
    let all = |count: usize, one: &dyn Fn(usize) -> Value| (0..count).map(one).collect::<Value>();
    json!({
        "doctor": {"checks": [{"name": "port", "state": "warning", "text": EVIL, "advice": "\u{1b}[2Jlook"}], "warnings": []},
        "netdb-lookup": {"address": "fd70::1", "phantom_name": name, "entry_nodes": hops(1), "expires_in_seconds": 60},
        "status": status, "path-list": all(120, &path), "connections": all(260, &connection),
        "address-list": [{"name": "shop<script>", "address": "fd70::1", "phantom_name": name}],
        "forward-list": [{
            "port": 80, "to": "127.0.0.1:8080", "identity": "shop<script>", "address": "fd70::1", "phantom_name": name, "keep": true, "listens": false, "new_identity": false,
        }],
        "peer-list": all(40, &|n| json!({
            "node_id": format!("{n:08x}").repeat(8), "addr": "\"><script>owned = 1</script>", "connected": n % 3 == 0,
            "last_seen_seconds": if n % 2 == 0 { json!(n) } else { Value::Null },
        })),
        "command-list": {
            "maintainers": "2 of 3 <i>keys</i>", "highest": 3, "tip": "ab", "missing": 1, "ignored": ["nodes"], "banned": ["192.0.2.0/24 until then"],
            "commands": [{"serial": 3, "issued": "today", "expires": "in a week", "actions": ["ban 192.0.2.0/24", EVIL], "did": EVIL}],
        },
        "log": (1..=300).map(line).collect::<Value>(),
    })
}
