//! Who is let in, what each answer carries, and what is left out where there is much. tests/tests/console.rs shows it to browsers.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixListener;

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use hyper::header::{HeaderMap, LOCATION, SET_COOKIE};
use hyper::{Request, StatusCode};
use phantom_ipc::admin::{Connection, LogLine, Path, PathKind, PathState, Peer};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{from_value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::Instant;

use super::admission::Verdict;
use super::sample::Said;
use super::*;

const AT: &str = "127.0.0.1:4000";

fn admission() -> Admission {
    Admission::new(&mut StdRng::seed_from_u64(1), Some(AT.parse().unwrap()))
}

/// A console whose daemon has ended.
fn page() -> Page {
    page_of(1)
}

fn page_of(seed: u64) -> Page {
    let mut rng = StdRng::seed_from_u64(seed);
    let admission = Admission::new(&mut rng, Some(AT.parse().unwrap()));
    Page {
        admission,
        proof: Proof::new(&mut rng),
        teller: Teller::of(std::path::Path::new("/nonexistent/daemon.sock")),
    }
}

fn path(admission: &Admission, name: &str) -> String {
    format!("{}{name}", admission.page())
}

fn token(admission: &Admission) -> String {
    admission.link().rsplit('/').next().unwrap().to_owned()
}

fn cookie(admission: &Admission) -> String {
    admission.cookie().split(';').next().unwrap().to_owned()
}

/// A request as a browser makes it; a header without a value is left out.
fn request(path: &str, with: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().uri(path);
    let own = with.iter().any(|(name, _)| *name == "host");
    for (name, value) in [("host", AT)].iter().filter(|_| !own).chain(with).filter(|(_, value)| !value.is_empty()) {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

#[test]
fn the_link_works_once_and_then_the_cookie_does() {
    let admission = admission();
    let (enter, page) = (path(&admission, &token(&admission)), path(&admission, ""));
    let with_key = cookie(&admission);
    assert_eq!(admission.link(), format!("http://{AT}{enter}"));
    assert_eq!(admission.judge(&request(&page, &[])), Verdict::UsedUp, "nobody has come in yet");
    assert_eq!(admission.judge(&request(&enter, &[])), Verdict::Enter);
    assert_eq!(admission.judge(&request(&enter, &[])), Verdict::UsedUp, "the second browser");
    let key = [("cookie", &*with_key)];
    assert_eq!(admission.judge(&request(&enter, &key)), Verdict::Again, "the first one, by the link");
    assert_eq!(admission.judge(&request(&page, &key)), Verdict::Page);
    assert_eq!(admission.judge(&request(&path(&admission, "state"), &key)), Verdict::State);
    let among_others = format!("a=b; {with_key}; phantom-console=x");
    assert_eq!(admission.judge(&request(&page, &[("cookie", &among_others)])), Verdict::Page);
}

#[test]
fn without_the_key_nothing_is_told() {
    let admission = admission();
    let key = cookie(&admission);
    let shorter = &key[..key.len() - 1];
    let token_as_key = format!("phantom-console={}", token(&admission));
    for wrong in ["", "phantom-console=", shorter, &token_as_key, "other=value"] {
        let with = [("cookie", wrong)];
        assert_eq!(admission.judge(&request(&path(&admission, "state"), &with)), Verdict::NotAdmitted, "{wrong}");
        assert_eq!(admission.judge(&request(&path(&admission, ""), &with)), Verdict::UsedUp, "{wrong}");
    }
    let token = token(&admission);
    for wrong in [&token[1..], &token[..token.len() - 1], &token.to_lowercase(), "state.json"] {
        assert_eq!(admission.judge(&request(&path(&admission, wrong), &[])), Verdict::UsedUp, "{wrong}");
    }
    let with_key = [("cookie", &*key)];
    for nowhere in ["/", "/state", "/style.css", "/favicon.ico", "/room/", "//state", &path(&admission, "a/b")] {
        assert_eq!(admission.judge(&request(nowhere, &with_key)), Verdict::Nothing, "{nowhere}");
    }
    assert_eq!(admission.judge(&request(&path(&admission, &token), &[])), Verdict::Enter, "no wrong one used it up");
}

#[test]
fn pages_of_others_and_other_names_get_nothing_and_use_nothing_up() {
    let admission = admission();
    let (enter, key) = (path(&admission, &token(&admission)), cookie(&admission));
    for host in
        ["", "rebound.example", "rebound.example:4000", "127.0.0.1", "127.0.0.1:4001", "127.0.0.2:4000", "LOCALHOST"]
    {
        let verdict = admission.judge(&request(&enter, &[("host", host), ("cookie", &key)]));
        assert_eq!(verdict, Verdict::Host, "{host}");
    }
    let twice = Request::builder().uri(&enter).header("host", AT).header("host", AT).body(()).unwrap();
    assert_eq!(admission.judge(&twice), Verdict::Host);
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "null"),
        ("origin", "http://rebound.example"),
        ("origin", "http://127.0.0.1:4001"),
        ("origin", "https://127.0.0.1:4000"),
    ] {
        let verdict = admission.judge(&request(&enter, &[(name, value), ("cookie", &key)]));
        assert_eq!(verdict, Verdict::Elsewhere, "{name}: {value}");
    }
    for method in ["POST", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE"] {
        let mut asked = request(&enter, &[("cookie", &key)]);
        *asked.method_mut() = method.parse().unwrap();
        assert_eq!(admission.judge(&asked), Verdict::Method, "{method}");
    }
    for (name, value) in [("content-length", "1"), ("content-length", "x"), ("transfer-encoding", "chunked")] {
        assert_eq!(admission.judge(&request(&enter, &[(name, value)])), Verdict::Body, "{name}: {value}");
    }
    let own = [
        ("sec-fetch-site", "none"),
        ("origin", "http://localhost:4000"),
        ("host", "localhost:4000"),
        ("content-length", "0"),
    ];
    assert_eq!(admission.judge(&request(&enter, &own)), Verdict::Enter);
}

#[test]
fn behind_a_socket_the_port_is_that_of_whoever_leads_there() {
    let admission = Admission::new(&mut StdRng::seed_from_u64(2), None);
    assert!(admission.link().starts_with("http://127.0.0.1:8000/"), "{}", admission.link());
    let enter = path(&admission, &token(&admission));
    assert_eq!(admission.judge(&request(&enter, &[("host", "rebound.example:8000")])), Verdict::Host);
    assert_eq!(admission.judge(&request(&enter, &[("host", "localhost:8123")])), Verdict::Enter);
}

#[test]
fn secrets_are_long_and_of_one_run() {
    let [one, other] = [1, 2].map(|seed| Admission::new(&mut StdRng::seed_from_u64(seed), None));
    let all: BTreeSet<_> = [&one, &other].iter().flat_map(|one| [token(one), cookie(one), one.page()]).collect();
    assert_eq!(all.len(), 6);
    assert_eq!(token(&one).len(), 43);
    assert!(one.cookie().ends_with(&format!("; Path={}; HttpOnly; SameSite=Strict", one.page())), "{}", one.cookie());
}

/// What each answer carries. The text is that of docs/threat-model.md: who changes one changes the other.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

fn has_headers(headers: &HeaderMap, what: &str) {
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-embedder-policy", "require-corp"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(headers.get(name).map(|value| value.to_str().unwrap()), Some(value), "{name} of {what}");
    }
    assert!(!headers.contains_key("access-control-allow-origin"), "{what}");
}

#[tokio::test]
async fn every_answer_has_the_headers_and_its_status() {
    let page = page();
    let admission = &page.admission;
    let (enter, key) = (path(admission, &token(admission)), cookie(admission));
    let with_key = [("cookie", &*key)];
    for (name, with, status, kind, part) in [
        ("", &with_key[..], 200, "text/html; charset=utf-8", "<title>Phantom</title>"),
        ("state", &with_key, 200, "application/json", "no daemon answers at"),
        ("style.css", &[], 200, "text/css; charset=utf-8", "color-scheme"),
        ("script.js", &[], 200, "text/javascript; charset=utf-8", "use strict"),
        ("icon.svg", &[], 200, "image/svg+xml", "<svg"),
        ("", &[], 403, "text/html; charset=utf-8", "once more in a terminal"),
        ("state", &[], 403, "text/plain; charset=utf-8", "gives a link"),
        ("a/b", &[], 404, "text/plain; charset=utf-8", "says where"),
        ("", &[("host", "x")], 403, "text/plain; charset=utf-8", "by the address"),
        ("", &[("origin", "null")], 403, "text/plain; charset=utf-8", "address bar"),
        ("", &[("content-length", "1")], 400, "text/plain; charset=utf-8", "nothing is taken"),
    ] {
        let answer = answer(&request(&path(admission, name), with), &page).await;
        assert_eq!(answer.status().as_u16(), status, "{name} {with:?}");
        has_headers(answer.headers(), name);
        assert_eq!(answer.headers()["content-type"], kind, "{name} {with:?}");
        assert!(!answer.headers().contains_key(SET_COOKIE), "{name} {with:?}");
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.contains(part), "{name} {with:?}: {body}");
        assert!(!body.contains(&*token(admission)), "{name} {with:?}");
    }
    let entered = answer(&request(&enter, &[]), &page).await;
    has_headers(entered.headers(), "the first");
    assert_eq!(entered.status(), StatusCode::SEE_OTHER);
    assert_eq!(entered.headers()[LOCATION], *admission.page());
    assert_eq!(entered.headers()[SET_COOKIE], *admission.cookie());
    let again = answer(&request(&enter, &with_key), &page).await;
    assert_eq!(again.status(), StatusCode::SEE_OTHER);
    assert!(again.headers().get(SET_COOKIE).is_none(), "it has one");
    let mut head = request(&enter, &[]);
    *head.method_mut() = "HEAD".parse().unwrap();
    let refused = answer(&head, &page).await;
    assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(refused.headers()["allow"], "GET");
}

/// Whoever has the port next has what the browser sends, and not what is in the page.
#[tokio::test]
async fn an_answer_is_proven_by_a_key_that_only_the_page_has() {
    let [page, other] = [page(), page_of(2)];
    let with_key = cookie(&page.admission);
    let challenge = "123e4567-e89b-42d3-a456-426614174000";
    let asked = async |at: &Page, challenge: &str| {
        let with = [("cookie", &*with_key), ("phantom-challenge", challenge)];
        let answer = answer(&request(&path(&page.admission, "state"), &with), at).await;
        let proof = answer.headers().get("phantom-proof").map(|proof| proof.to_str().unwrap().to_owned());
        (proof, http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes())
    };
    let shown = answer(&request(&path(&page.admission, ""), &[("cookie", &with_key)]), &page).await;
    let shown = http_body_util::BodyExt::collect(shown.into_body()).await.unwrap().to_bytes();
    let shown = String::from_utf8(shown.to_vec()).unwrap();
    let (_, after) = shown.split_once("name=\"phantom-proof\" content=\"").unwrap();
    let key = BASE64URL_NOPAD.decode(after.split_once('"').unwrap().0.as_bytes()).unwrap();
    let (proof, told) = asked(&page, challenge).await;
    let proof = BASE64URL_NOPAD.decode(proof.unwrap().as_bytes()).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    hmac::verify(&key, &[challenge.as_bytes(), &told].concat(), &proof).unwrap();
    for wrong in ["", "short", &format!("{challenge}0")] {
        assert_eq!(asked(&page, wrong).await.0, None, "{wrong}");
    }
    let stranger = other.proof.of(&request("/", &[("phantom-challenge", challenge)]), &told).unwrap();
    let stranger = BASE64URL_NOPAD.decode(stranger.as_bytes()).unwrap();
    assert!(hmac::verify(&key, &[challenge.as_bytes(), &told].concat(), &stranger).is_err());
    assert!(!with_key.contains(after.split_once('"').unwrap().0), "the cookie goes to whoever has the port");
}

/// With no place left at all, a stranger is gone at once, and one's own program waits for its turn.
#[tokio::test]
async fn strangers_take_no_place_and_wait_for_none() {
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap(), "it").await.unwrap();
    let at = listener.tcp().unwrap().unwrap();
    let places = Arc::new(Semaphore::new(0));
    let page = Arc::new(page());
    let served = {
        let places = places.clone();
        tokio::spawn(async move {
            // Who comes from another address of the device is a stranger, here.
            let is_own = |caller| matches!(caller, Caller::Tcp { theirs, .. } if theirs.ip() == Ipv4Addr::LOCALHOST);
            match serve(&listener, is_own, places, page).await {}
        })
    };
    let connect = async |from: [u8; 4]| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(at).await.unwrap()
    };
    let mut gone = Vec::new();
    for _ in 0..3 {
        let mut stranger = connect([127, 0, 0, 2]).await;
        let told = timeout(LIMIT * 3, stranger.read_to_end(&mut gone)).await.expect("a stranger waits");
        assert_eq!(told.unwrap_or_default(), 0, "a stranger is told nothing");
    }
    let mut own = connect([127, 0, 0, 1]).await;
    own.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    places.add_permits(64);
    let mut answer = String::new();
    own.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    served.abort();
}

/// The clock is the test's, and no time passes but what is waited for.
#[tokio::test(start_paused = true)]
async fn whoever_does_not_finish_a_head_keeps_its_place_for_three_seconds() {
    for head in ["", "GET / HTTP/1.1\r\nHost: "] {
        let (mut browser, visitor) = tokio::io::duplex(1024);
        let served = tokio::spawn(one(visitor, Arc::new(page())));
        let begun = Instant::now();
        browser.write_all(head.as_bytes()).await.unwrap();
        timeout(LIMIT, served).await.expect("it keeps its place").unwrap();
        let took = begun.elapsed();
        assert!((HEAD_LIMIT..HEAD_LIMIT + Duration::from_millis(100)).contains(&took), "{head:?}: {took:?}");
    }
}

/// As many cookies of others as a browser keeps for an address: some 180 of 4 kB.
#[tokio::test]
async fn cookies_of_others_are_no_reason_to_refuse() {
    let (mut browser, visitor) = tokio::io::duplex(64 * 1024);
    let served = tokio::spawn(one(visitor, Arc::new(page())));
    let cookies: Vec<_> = (0..180).map(|n| format!("c{n}={}", "x".repeat(4090))).collect();
    let head = format!("GET / HTTP/1.1\r\nHost: {AT}\r\nCookie: {}\r\n\r\n", cookies.join("; "));
    browser.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    browser.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{}", &answer[..answer.len().min(200)]);
    served.await.unwrap();
}

#[test]
fn what_leads_nowhere_shows_nobody_a_link() {
    let null = |way: &mut std::fs::OpenOptions| way.open("/dev/null").unwrap();
    // The runtime opens what is closed for both.
    assert!(is_lost(null(std::fs::OpenOptions::new().read(true).write(true))));
    assert!(is_lost(null(std::fs::OpenOptions::new().write(true))));
    let dir = tempfile::tempdir().unwrap();
    assert!(!is_lost(std::fs::File::create(dir.path().join("file")).unwrap()));
    assert!(!is_lost(io::pipe().unwrap().1));
    assert!(!is_lost(std::fs::File::open("/dev/zero").unwrap()));
}

#[test]
fn the_page_has_nothing_in_line_and_nothing_from_elsewhere() {
    for (name, text) in
        [("index.html", include_str!("page/index.html")), ("used_up.html", include_str!("page/used_up.html"))]
    {
        for never in [" style=", " onclick", " onload", "<style", "javascript:", "http://", "https://", "//"] {
            assert!(!text.contains(never), "{never} in {name}");
        }
        assert!(text.matches("<script").count() == text.matches("<script src=").count(), "{name}");
    }
    let script = include_str!("page/script.js");
    for never in
        ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "DOMParser", "https://"]
    {
        assert!(!script.contains(never), "{never}: what comes from outside would be markup");
    }
    assert!(!include_str!("page/style.css").contains("url("));
}

fn said(paths: usize) -> Said {
    let path = |n: usize| Path {
        id: n.to_string(),
        kind: if n.is_multiple_of(2) { PathKind::Spare } else { PathKind::Exit },
        state: PathState::Ready,
        identity: None,
        hops: Vec::new(),
        age_seconds: 1,
        ready_tunnels: 1,
    };
    let peer = |n: usize| Peer {
        node_id: format!("{n:064}"),
        addr: String::new(),
        connected: n.is_multiple_of(3),
        last_seen_seconds: None,
    };
    let line = |n: u64| LogLine { number: n, at: String::new(), level: "info".to_owned(), text: n.to_string() };
    let commands = json!({"maintainers": null, "highest": 0, "tip": "", "missing": 0, "ignored": [], "banned": [], "commands": []});
    let connection = |id: u64| -> Connection {
        let closed = if id < 10 { "open" } else { "closed" };
        from_value(json!({
            "id": id, "direction": "outgoing", "state": closed, "identity": null, "peer_address": "fd70::1", "port": 80, "age_seconds": 5,
            "sent_bytes": 0, "received_bytes": 0, "moves": 0, "last_move": null, "own_path": null, "own_hops": [], "far_node": null, "far_hops": null,
        }))
        .unwrap()
    };
    let status = json!({
        "version": "1.2.3", "node_id": "ab", "listen": [], "peer": "", "ready": true, "waiting_for": "", "peers": 11, "exit_paths": 2,
        "entry_paths": 1, "ready_tunnels": 5, "open_connections": 10, "notes": [], "warnings": [], "start": [], "published": [],
        "own_record": null, "router": "", "relayed_paths": 3, "relayed_tunnels": 4, "relayed_bytes": 5, "uptime_seconds": 6,
    });
    Said {
        status: from_value(status).unwrap(),
        paths: (0..paths).map(path).collect(),
        connections: (0..300).map(connection).collect(),
        addresses: Vec::new(),
        forwards: Vec::new(),
        peers: (0..500).map(peer).collect(),
        commands: from_value(commands).unwrap(),
        log: (1..=512).map(line).collect(),
    }
}

#[test]
fn of_long_lists_the_first_are_shown_and_the_rest_is_counted() {
    let shown = said(250).shown();
    assert_eq!((shown.paths.shown.len(), shown.paths.more), (100, 150));
    assert!(shown.paths.shown.iter().all(|path| path.kind == PathKind::Exit), "spares are what is left out");
    let ids: Vec<u64> = shown.paths.shown.iter().map(|path| path.id.parse().unwrap()).collect();
    assert!(ids.is_sorted(), "as numbers: {ids:?}");
    assert_eq!((shown.connections.shown.len(), shown.connections.more), (100, 200));
    let first: Vec<_> = shown.connections.shown.iter().take(12).map(|one| one.id).collect();
    assert_eq!(first, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 299, 298], "what is open, then the newest");
    assert_eq!((shown.known, shown.peers.shown.len(), shown.peers.more), (500, 100, 400));
    assert!(shown.peers.shown.iter().all(|peer| peer.connected));
    assert_eq!((shown.log.shown.len(), shown.log.more, shown.log.shown[0].number), (200, 312, 512));
    let few = said(3).shown();
    assert_eq!((few.paths.shown.len(), few.paths.more), (3, 0));
    assert!(serde_json::to_vec(&shown).unwrap().len() < 200_000, "once a second");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_is_silent_is_said_to_be_and_many_who_ask_are_one() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("daemon.sock");
    let teller = Teller::of(&socket);
    let lost = teller.tell().await;
    assert!(String::from_utf8_lossy(&lost).contains("no daemon answers at"), "{lost:?}");
    // It listens, and accepts nobody: whoever asks waits for a while, and then knows.
    let _listener = UnixListener::bind(&socket).unwrap();
    sleep(Duration::from_secs(1)).await;
    let told = futures::future::join_all((0..5).map(|_| teller.tell())).await;
    assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
    assert!(String::from_utf8_lossy(&told[0]).contains("says nothing for 10 s"), "{told:?}");
}
