//! Programs of Windows that know nothing of Phantom, over a private network of phantomd.exe. `scripts/windows test` makes the network
//! and runs this under wine.
#![cfg(windows)]

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::spawn;
use std::time::{Duration, Instant};

/// How long anything may take: a computer that is busy is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// As phantom-run ends.
const FAILED: i32 = 125;
const NOT_FOUND: i32 = 127;

/// As phantomd ends where another one has its folder.
const IN_USE: i32 = 4;

fn said(variable: &str) -> PathBuf {
    std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set: scripts/windows test")).into()
}

/// The small program of `windows/victim.c`, which can do all that is needed here.
fn victim() -> PathBuf {
    said("PHANTOM_TEST_VICTIM")
}

fn socket(node: &str) -> PathBuf {
    said("PHANTOM_TEST_NETWORK").join(node).join("daemon.sock")
}

/// phantom-run at a node of the network.
fn phantom_run(daemon: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phantom-run"));
    command.arg("--daemon").arg(daemon).stdin(Stdio::null());
    command
}

/// A program that lies beside phantom-run.
fn beside(name: &str) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_phantom-run")).with_file_name(name));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn carried(node: &str, arguments: &[&str]) -> Output {
    phantom_run(&socket(node)).arg("--quiet").arg(victim()).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\r', "")
}

/// A program under phantom-run, and what both say; killed when dropped.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (line_tx, lines) = channel();
        let pipes: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for pipe in pipes {
            let line_tx = line_tx.clone();
            spawn(move || BufReader::new(pipe).lines().map_while(Result::ok).try_for_each(|line| line_tx.send(line)));
        }
        Self { child, lines }
    }

    /// The next line that says such a thing.
    fn line(&self, with: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("nothing said {with:?}"));
            if line.contains(with) {
                return line;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server at a node, and its name.
fn server(node: &str, way: &str) -> (Running, String) {
    published(node, "7", way)
}

fn published(node: &str, publish: &str, way: &str) -> (Running, String) {
    let server = Running::start(phantom_run(&socket(node)).args(["--publish", publish]).arg(victim()).args([way, "7"]));
    let published = server.line("publishes port 7");
    let name = published.split(' ').find(|word| word.ends_with(".phantom")).unwrap().to_owned();
    server.line("serving");
    (server, name)
}

#[test]
fn what_one_program_sends_comes_back_from_another() {
    let (server, name) = server("node-01", "serve");
    let client = carried("node-02", &["echo", &name, "7"]);
    let said = text(&client.stdout);
    assert!(client.status.success(), "{said}{}", text(&client.stderr));
    assert!(said.contains("at fd"), "the peer is the address that was asked for: {said}");
    assert!(said.contains("1048576 bytes came back"), "{said}");
    // Programs of IPv4 see whoever visits by a stand-in, never by what is between them and the daemon.
    server.line("from 198.");
    let child = carried("node-02", &["bare", &name, "7"]);
    assert!(child.status.success(), "a child without an environment: {}{}", text(&child.stdout), text(&child.stderr));
}

#[test]
fn a_server_with_completions_knows_who_visits_it() {
    let (server, name) = server("node-01", "serve-ex");
    let client = carried("node-02", &["echo", &name, "7"]);
    assert!(client.status.success(), "{}{}", text(&client.stdout), text(&client.stderr));
    server.line("from 198.");
}

#[test]
fn names_are_phantoms_alone() {
    let (_server, name) = server("node-01", "serve");
    for way in ["getaddrinfo", "GetAddrInfoW", "GetAddrInfoExW", "gethostbyname"] {
        for (name, is_there) in [(&*name, true), ("localhost", true), ("example.com", false), ("none.phantom", false)] {
            let asked = carried("node-02", &["name", way, name]);
            assert_eq!(asked.status.code(), Some(i32::from(!is_there)), "{way} {name}");
        }
    }
    assert_eq!(carried("node-02", &["name", "DnsQuery", "localhost"]).status.code(), Some(1));
}

/// Everything by which a program could reach an address; whether wine has it.
const WAYS: [(&str, bool); 13] = [
    ("connect", true),
    ("wsaconnect", true),
    ("nonblocking", true),
    ("event", true),
    ("connectex", true),
    ("byname", false),
    ("datagram", true),
    ("wsasendto", true),
    ("connected-datagram", true),
    ("device", true),
    ("child", true),
    ("shell", true),
    ("shellexecute", true),
];

/// This computer, as the rest of the world reaches it: whoever comes there, and from where.
struct Outside {
    at: SocketAddr,
    came: Receiver<SocketAddr>,
}

impl Outside {
    fn open() -> Self {
        let way = UdpSocket::bind("0.0.0.0:0").unwrap();
        // Nothing is sent.
        way.connect("192.0.2.1:9").unwrap();
        let ip: IpAddr = way.local_addr().unwrap().ip();
        assert!(!ip.is_loopback(), "this test needs a network interface besides the loopback device");
        let (tcp, udp) = (0..100)
            .find_map(|_| {
                let tcp = TcpListener::bind((ip, 0)).unwrap();
                Some((UdpSocket::bind(tcp.local_addr().unwrap()).ok()?, tcp)).map(|(udp, tcp)| (tcp, udp))
            })
            .unwrap();
        let at = tcp.local_addr().unwrap();
        let (came_tx, came) = channel();
        let datagram_tx = came_tx.clone();
        spawn(move || tcp.incoming().flatten().try_for_each(|tcp| came_tx.send(tcp.peer_addr().unwrap())));
        spawn(move || while udp.recv_from(&mut [0; 16]).is_ok_and(|(_, from)| datagram_tx.send(from).is_ok()) {});
        Self { at, came }
    }

    /// Nobody has come before somebody who comes now.
    fn is_untouched(&self) -> bool {
        let own = TcpStream::connect(self.at).unwrap().local_addr().unwrap();
        self.came.recv_timeout(PATIENCE).unwrap() == own
    }
}

#[test]
fn nothing_leads_past_phantom() {
    let outside = Outside::open();
    let (ip, port) = (outside.at.ip().to_string(), outside.at.port().to_string());
    for (way, wine_has_it) in WAYS {
        if wine_has_it {
            let plain = Command::new(victim()).args([way, &ip, &port]).output().unwrap();
            assert!(plain.status.success(), "{way} leads there without phantom-run, or the test shows nothing");
            outside.came.recv_timeout(PATIENCE).unwrap();
        }
        let carried = carried("node-01", &[way, &ip, &port]);
        assert!(!carried.status.success(), "{way}: {}", text(&carried.stderr));
        assert!(outside.is_untouched(), "{way} leads past Phantom");
    }
}

#[test]
fn arguments_and_exit_status_pass_through() {
    let arguments = ["a b", "c\"d", "e\\", "", "f\\\"g h\\", "%PATH%"];
    let ended = carried("node-01", &[&["arguments", "7"], &arguments[..]].concat());
    assert_eq!(ended.status.code(), Some(7));
    assert_eq!(text(&ended.stdout), arguments.map(|argument| format!("[{argument}]\n")).concat());
}

#[test]
fn what_is_missing_is_said_and_nothing_starts() {
    let missing = phantom_run(&socket("node-01")).args(["--quiet", "nothing-of-that-name"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(NOT_FOUND));
    assert!(text(&missing.stderr).contains("nothing-of-that-name: not found"), "{}", text(&missing.stderr));
    let alone = phantom_run(&said("PHANTOM_TEST_NETWORK").join("none"))
        .arg(victim())
        .args(["arguments", "0", "x"])
        .output()
        .unwrap();
    assert_eq!(alone.status.code(), Some(FAILED));
    assert!(alone.stdout.is_empty(), "it was started");
    assert!(text(&alone.stderr).contains("no daemon answers"), "{}", text(&alone.stderr));
}

#[test]
fn when_the_daemon_is_lost_a_program_ends_or_goes_on_with_the_next() {
    let (lasts, name) = published("node-02", "7:lasts", "serve");
    let mut ends = phantom_run(&socket("node-02"));
    let mut ends = Running::start(ends.args(["--on-daemon-loss", "exit"]).arg(victim()).arg("sleep"));
    ends.line("sleeping");
    let mut stop = beside("phantom.exe");
    assert!(stop.arg("--daemon").arg(socket("node-02")).arg("stop").status().unwrap().success());
    lasts.line("the daemon is gone");
    assert_eq!(ends.child.wait().unwrap().code(), Some(FAILED));
    // For the tests that come, too: whoever made the network ends it.
    let network = said("PHANTOM_TEST_NETWORK");
    let mut next = beside("phantomd.exe");
    next.arg("--hurry").arg("--data-dir").arg(network.join("node-02"));
    next.arg("--command-keys").arg(network.join("commands.keys"));
    // Again, as long as the one before has not let go of the folder.
    spawn(move || while next.status().is_ok_and(|status| status.code() == Some(IN_USE)) {});
    lasts.line("a daemon is back");
    let begun = Instant::now();
    loop {
        let client = carried("node-01", &["echo", &name, "7"]);
        if client.status.success() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{}{}", text(&client.stdout), text(&client.stderr));
    }
}

#[test]
fn a_program_ends_with_phantom_run() {
    let mut running = Running::start(phantom_run(&socket("node-01")).arg(victim()).arg("sleep"));
    running.line("sleeping");
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    // Its standard output was the program's too, and is closed when both are gone.
    while running.lines.recv_timeout(PATIENCE).is_ok() {}
    assert!(
        running
            .lines
            .recv_timeout(PATIENCE)
            .is_err_and(|error| error == std::sync::mpsc::RecvTimeoutError::Disconnected)
    );
}
