//! Programs that refuse root, or should not be it, with daemons of an ordinary user: PostgreSQL, Chromium, Firefox.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::{Context, Result, ensure};
use phantom_tests::programs::{Folder, prepare};
use phantom_tests::{CLIENT, Heard, NODES, Network, Server, User, Way, pattern, stdout};

/// The network of this file's tests; the last of them stops it.
fn network() -> Result<Arc<Network>> {
    static SHARED: Mutex<Weak<Network>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(network) = shared.upgrade() {
        return Ok(network);
    }
    let network = Arc::new(Network::up_as(NODES, Some(User::new()?))?);
    *shared = Arc::downgrade(&network);
    Ok(network)
}

/// A page with all that pages are made of; says what came of it to the server, and is not loaded before.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>page</title>
<link rel="stylesheet" href="style.css"><p id="said">nothing</p><img id="image" src="image.svg">
<img src="held"><script src="script.js"></script>"#;

const SCRIPT: &str = r#"
function sum(bytes) {
    let sum = 0;
    for (const byte of bytes) sum = (sum * 31 + byte) >>> 0;
    return sum;
}
function echoed(text) {
    return new Promise((resolve, reject) => {
        const socket = new WebSocket("ws://" + location.host + "/socket");
        socket.onopen = () => socket.send(text);
        socket.onmessage = event => { resolve(event.data); socket.close(); };
        socket.onerror = () => reject("no web socket");
    });
}
(async () => {
    const report = {online: navigator.onLine};
    try {
        report.color = getComputedStyle(document.getElementById("said")).color;
        await document.getElementById("image").decode();
        report.image = document.getElementById("image").naturalWidth;
        const parts = await Promise.all([0, 1, 2].map(async n => (await fetch("file?" + n)).arrayBuffer()));
        report.sums = parts.map(part => sum(new Uint8Array(part)));
        report.echo = await echoed("over there");
    } catch (error) {
        report.error = String(error);
    }
    document.getElementById("said").textContent = "said " + JSON.stringify(report);
    await fetch("report?" + new URLSearchParams(location.search).get("who"), {method: "POST", body: JSON.stringify(report)});
})();
"#;

/// Serves a folder, takes reports, and echoes one message of a web socket.
const SITE: &str = r#"
import base64, hashlib, http.server, socket, sys, threading
reported = threading.Event()
class Site(http.server.SimpleHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        if self.path == '/held':
            reported.wait(80)
        if self.path != '/socket':
            return super().do_GET()
        key = self.headers['Sec-WebSocket-Key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
        self.send_response(101)
        self.send_header('Upgrade', 'websocket')
        self.send_header('Connection', 'Upgrade')
        self.send_header('Sec-WebSocket-Accept', base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        head = self.rfile.read(2)
        length = head[1] & 127
        mask, data = self.rfile.read(4), self.rfile.read(length)
        self.wfile.write(bytes([0x81, length]) + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data)))
        self.rfile.read()
        self.close_connection = True
    def do_POST(self):
        print(self.path, self.rfile.read(int(self.headers['Content-Length'])).decode(), flush=True)
        reported.set()
        self.send_response(200)
        self.send_header('Content-Length', '0')
        self.end_headers()
    def log_message(self, *_): pass
class Both(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True
server = Both(('::', 80), lambda *a: Site(*a, directory=sys.argv[1]))
print('listening', flush=True)
server.serve_forever()
"#;

/// Bytes of each of the three downloads of a page.
const SIZE: usize = 1_000_000;

/// What a browser reports when nothing is missing.
fn whole() -> String {
    let sum = pattern(SIZE).iter().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    format!(r#"{{"online":true,"color":"rgb(1, 2, 3)","image":21,"sums":[{sum},{sum},{sum}],"echo":"over there"}}"#)
}

/// The site at an address of its own.
fn site(network: &Network, way: Way, identity: &str, folder: &Folder) -> Result<(Heard, String)> {
    let www = folder.make("www")?;
    folder.write("www/index.html", PAGE)?;
    folder.write("www/script.js", SCRIPT)?;
    folder.write("www/style.css", "p { color: rgb(1, 2, 3) }")?;
    let image = r#"<svg xmlns="http://www.w3.org/2000/svg" width="21" height="9"><rect width="21" height="9"/></svg>"#;
    folder.write("www/image.svg", image)?;
    folder.write("www/file", pattern(SIZE))?;
    network.serve_heard(way, identity, &["python3", "-c", SITE, &www], "listening")
}

/// A screen that nobody looks at.
fn screen() -> Result<(Server, String)> {
    let mut command = Command::new("Xvfb");
    command.args(["-displayfd", "1", "-screen", "0", "1024x768x24", "-nolisten", "tcp", "-ac"]);
    let (server, number) = Server::start_first_line(command.stderr(Stdio::null()))?;
    Ok((server, format!(":{number}")))
}

/// A browser on a screen or without one, with a home of its own, which it needs to be a fresh one.
fn browser(network: &Network, way: Way, home: &str, display: Option<&str>, line: &[&str]) -> Command {
    let mut command = network.program(CLIENT, way, None, line);
    command
        .env("HOME", home)
        .env_remove("DISPLAY")
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("DBUS_SESSION_BUS_ADDRESS");
    command.stderr(Stdio::null()).envs(display.map(|display| ("DISPLAY", display)));
    command
}

/// Chromium with its sandbox on. What is switched off only makes it quiet: it would ask its maker for news.
const CHROMIUM: [&str; 6] = [
    "chromium",
    "--no-first-run",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
];

#[test]
fn chromium_headless_and_in_a_window() -> Result<()> {
    let network = network()?;
    let (_screen, display) = screen()?;
    for way in Way::ALL {
        let folder = Folder::new()?;
        let (site, name) = site(&network, way, "for-chromium", &folder)?;
        let home = folder.make("home")?;
        let profile = |name: &str| format!("--user-data-dir={home}/{name}");
        let url = |who: &str| format!("http://{name}/?who={who}");

        let patience = ["timeout", "-k", "5", "85"];
        let dump =
            [&patience[..], &CHROMIUM, &["--headless=new", "--dump-dom", &profile("headless"), &url("headless")]];
        let page = stdout(&browser(&network, way, &home, None, &dump.concat()).output()?)?;
        ensure!(page.contains(&format!("said {}", whole())), "{way:?}: {page}");
        site.hears(&format!("/report?headless {}", whole())).with_context(|| format!("{way:?}"))?;

        let (outside_profile, window_profile, window_url) = (profile("outside"), profile("window"), url("window"));
        // One that already runs outside, as the same user, does not take the job over: the profile is another one.
        let line = [&CHROMIUM[1..], &[&*outside_profile, "about:blank"]].concat();
        let mut outside = network.user()?.command(CHROMIUM[0]);
        outside.args(line).env("HOME", &home).env("DISPLAY", &display).env_remove("XDG_RUNTIME_DIR");
        outside.stderr(Stdio::null());
        let _outside = Server::start(outside)?;
        let line = [&CHROMIUM[..], &[&*window_profile, &window_url]].concat();
        let _window = Server::start(browser(&network, way, &home, Some(&display), &line))?;
        site.hears(&format!("/report?window {}", whole())).with_context(|| format!("in a window by {way:?}"))?;
    }
    Ok(())
}

#[test]
fn firefox_headless_and_in_a_window() -> Result<()> {
    let network = network()?;
    let (_screen, display) = screen()?;
    for way in Way::ALL {
        let folder = Folder::new()?;
        let (site, name) = site(&network, way, "for-firefox", &folder)?;
        let home = folder.make("home")?;
        for (who, headless, display) in [("headless", true, None), ("window", false, Some(&*display))] {
            let profile = folder.make(&format!("home/{who}"))?;
            let url = format!("http://{name}/?who={who}");
            let mut line = vec!["firefox-esr", "--new-instance", "--profile", &profile, &url];
            if headless {
                line.push("--headless");
            }
            let _browser = Server::start(browser(&network, way, &home, display, &line))?;
            site.hears(&format!("/report?{who} {}", whole())).with_context(|| format!("{way:?}"))?;
        }
    }
    Ok(())
}

/// Runs psql with a script and gives what it printed.
fn psql(network: &Network, way: Way, name: &str, script: &str, input: Vec<u8>) -> Result<Vec<u8>> {
    let target = format!("host={name} user=www-data dbname=postgres connect_timeout=80");
    let line = ["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-d", &target, "-c", script];
    let mut command = network.program(CLIENT, way, None, &line);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("no pipe")?;
    // Whoever writes on while nobody reads would wait for ever.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output()?;
    let _ = writer.join();
    let _ = stdout(&output).with_context(|| format!("{script} by {way:?}"))?;
    Ok(output.stdout)
}

/// A process for each client, COPY in both directions, news from one client to another.
#[test]
fn postgresql() -> Result<()> {
    let network = network()?;
    let programs = prepare(Command::new("sh").args(["-c", "ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n1"]))?;
    let programs = programs.trim();
    for way in Way::ALL {
        let folder = Folder::new()?;
        let data = format!("{}/data", folder.make("home")?);
        let initdb = ["-D", &data, "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"];
        prepare(network.user()?.command(&format!("{programs}/initdb")).args(initdb))?;
        let access = format!("{data}/pg_hba.conf");
        std::fs::write(access, "host all all ::/0 trust\nhost all all 0.0.0.0/0 trust\n")?;
        let script = format!(
            "exec {programs}/postgres -D {data} -c listen_addresses='*' -c unix_socket_directories= -c fsync=off 2>&1"
        );
        let (_server, name) =
            network.serve(way, "postgresql", &["sh", "-c", &script], "ready to accept connections")?;

        let rows: Vec<u8> = (0..60_000).flat_map(|row| format!("{row}\tthis is row {row}\n").into_bytes()).collect();
        psql(&network, way, &name, "CREATE TABLE t (n int, words text)", Vec::new())?;
        psql(&network, way, &name, "COPY t FROM STDIN", rows.clone())?;
        let back = psql(&network, way, &name, "COPY (SELECT * FROM t ORDER BY n) TO STDOUT", Vec::new())?;
        ensure!(back == rows, "{} bytes of {} by {way:?}", back.len(), rows.len());

        // Whoever listens gets the news with the answer to its next question.
        let target = format!("host={name} user=www-data dbname=postgres connect_timeout=80");
        let listen = format!("LISTEN news; SELECT 'hears';\n{}", "SELECT pg_sleep(0.2);\n".repeat(400));
        let script = folder.write("listen.sql", listen)?;
        let line = ["psql", "-qAtX", "-d", &target, "-f", &script];
        let listener = Server::start_heard(&mut network.program(CLIENT, way, None, &line), "hears")?;
        psql(&network, way, &name, "NOTIFY news, 'over there'", Vec::new())?;
        listener.hears("over there").with_context(|| format!("{way:?}"))?;
    }
    Ok(())
}
