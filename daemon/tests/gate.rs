//! The gate with real programs: what curl, Python and their like see in the phantom namespace, and what the far end sees.
#![allow(missing_docs, clippy::unwrap_used)] // a test that fails says where

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use phantom_daemon::far::{ConnectError, Found, Network, Stream, Unanswered};
use phantom_daemon::gate::{Gate, GateConfig};
use phantom_daemon::splice::splice;
use phantom_proto::ident::ApAddress;
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream, ReadBuf,
};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

fn address(number: u16) -> ApAddress {
    ApAddress::from_ipv6(Ipv6Addr::new(0xfd70, 1, 2, 3, 4, 5, 6, number)).unwrap()
}

/// The program's own address, and the far ends of the double.
const OWN: u16 = 1;
const OPEN: u16 = 2;
const REFUSED: u16 = 3;
const UNREACHABLE: u16 = 4;
const PROHIBITED: u16 = 5;
const SILENT: u16 = 6;

/// One end of a connection through the double: remembers whether it was shut down, and passes resets on as they are.
struct End {
    inner: DuplexStream,
    shut: bool,
    clean: (Arc<AtomicBool>, Arc<AtomicBool>),
}

fn ends() -> (End, End) {
    let (a, b) = tokio::io::duplex(256 * 1024);
    let flags = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let swapped = (flags.1.clone(), flags.0.clone());
    (End { inner: a, shut: false, clean: flags }, End { inner: b, shut: false, clean: swapped })
}

impl Stream for End {}

impl AsyncRead for End {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        if buf.filled().len() == before && !self.clean.1.load(Ordering::SeqCst) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for End {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut = true;
        self.clean.0.store(true, Ordering::SeqCst);
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The other end of the network: hands the far ends of connections to the test.
struct Double {
    names: HashMap<String, ApAddress>,
    connected: mpsc::Sender<(u16, u16, End)>,
}

#[async_trait]
impl Network for Double {
    async fn connect(
        &self,
        from: ApAddress,
        source_port: u16,
        destination: ApAddress,
        port: u16,
    ) -> Result<Box<dyn Stream>, ConnectError> {
        assert!(from == address(OWN));
        match destination.ipv6().segments()[7] {
            OPEN => {
                let (near, far) = ends();
                self.connected.send((source_port, port, far)).await.map_err(|_| ConnectError::Unreachable)?;
                Ok(Box::new(near))
            }
            REFUSED => Err(ConnectError::Refused),
            PROHIBITED => Err(ConnectError::Prohibited),
            SILENT => Err(ConnectError::TimedOut),
            _ => Err(ConnectError::Unreachable),
        }
    }

    async fn resolve(&self, name: &str) -> Result<Option<Found>, Unanswered> {
        match name {
            "unanswered.example" => Err(Unanswered),
            name => Ok(self.names.get(name).map(|address| Found { address: *address, lifetime: 600 })),
        }
    }

    async fn refused(&self, _: IpAddr) {}

    async fn name_of(&self, wanted: ApAddress) -> Option<String> {
        self.names.iter().find(|(_, a)| **a == wanted).map(|(name, _)| name.clone())
    }
}

struct World {
    gate: Gate,
    connected: mpsc::Receiver<(u16, u16, End)>,
}

impl World {
    async fn open() -> Self {
        let (sender, connected) = mpsc::channel(64);
        let names = [
            ("own.phantom".to_owned(), address(OWN)),
            ("open.phantom".to_owned(), address(OPEN)),
            ("refused.phantom".to_owned(), address(REFUSED)),
            ("unreachable.phantom".to_owned(), address(UNREACHABLE)),
        ];
        let network = Arc::new(Double { names: names.into(), connected: sender });
        let config = GateConfig::new(address(OWN), PathBuf::from(env!("CARGO_BIN_EXE_phantomd")));
        let gate = Gate::open(config, network).await.unwrap_or_else(|error| panic!("these tests need a gate: {error}"));
        Self { gate, connected }
    }

    /// A program in the phantom namespace.
    fn spawn(&self, program: &str, arguments: &[&str]) -> Child {
        let (net, user) = self.gate.namespace();
        let path = |fd: i32| format!("/proc/{}/fd/{fd}", std::process::id());
        let mut command = Command::new("nsenter");
        if let Some(user) = user {
            command.arg(format!("--user={}", path(user.as_raw_fd()))).arg("--preserve-credentials");
        }
        command.arg(format!("--net={}", path(net.as_raw_fd()))).arg("--").arg(program).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
    }

    fn python(&self, script: &str) -> Child {
        let prelude = "import socket, struct, sys, hashlib\n\
            def out(*a): print(*a, flush=True)\n\
            def ap(n): return 'fd70:1:2:3:4:5:6:%x' % n\n";
        self.spawn("python3", &["-c", &format!("{prelude}{script}")])
    }

    async fn far(&mut self) -> (u16, u16, End) {
        timeout(PATIENCE, self.connected.recv()).await.expect("a connection in time").unwrap()
    }
}

async fn output(child: Child) -> String {
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("the program ends in time").unwrap();
    assert!(output.status.success(), "the program failed: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn line(child: &mut Child) -> String {
    let mut reader = BufReader::new(child.stdout.as_mut().unwrap());
    let mut line = String::new();
    timeout(PATIENCE, reader.read_line(&mut line)).await.expect("a line in time").unwrap();
    line.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_reach_the_program_as_the_right_errno() {
    let world = World::open().await;
    let script = "
import errno, time
def tcp(family, host, port=80, patience=30):
    s = socket.socket(family); s.settimeout(patience)
    began = time.monotonic()
    code = s.connect_ex((host, port))
    return errno.errorcode[code]
for n in range(20):
    out(tcp(socket.AF_INET6, ap(3)), tcp(socket.AF_INET6, ap(4)), tcp(socket.AF_INET6, ap(5)),
        tcp(socket.AF_INET6, '2001:db8::1'), tcp(socket.AF_INET, '192.0.2.1'), tcp(socket.AF_INET, '198.18.0.53', 54),
        tcp(socket.AF_INET, '198.19.0.1'), tcp(socket.AF_INET6, ap(6), patience=0.2))
for family, host in (socket.AF_INET, '192.0.2.1'), (socket.AF_INET6, '2001:db8::1'), (socket.AF_INET6, ap(2)):
    u = socket.socket(family, socket.SOCK_DGRAM); u.settimeout(30)
    # Programs ask for their own address so, and never send.
    u.connect((host, 443)); name = u.getsockname()[0]
    try: u.send(b'quic')
    except OSError as e: out(name, errno.errorcode[e.errno])
";
    let text = output(world.python(script)).await;
    let expected = "ECONNREFUSED EHOSTUNREACH EACCES EACCES EHOSTUNREACH ECONNREFUSED EHOSTUNREACH EAGAIN";
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 23);
    assert!(lines[..20].iter().all(|line| *line == expected), "{text}");
    let own = "fd70:1:2:3:4:5:6:1 ENETUNREACH";
    assert_eq!(lines[20..], ["198.18.0.1 ENETUNREACH", own, own]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_ports_and_both_half_closes_pass() {
    let mut world = World::open().await;
    let script = "
s = socket.create_connection((ap(2), 4321))
out(s.getsockname()[1], s.getsockname()[0], s.getpeername()[:2])
s.sendall(b'hello'); s.shutdown(socket.SHUT_WR)
got = b''
while chunk := s.recv(100): got += chunk
out(got.decode())
t = socket.create_connection((ap(2), 4322))
out(t.recv(100).decode(), t.recv(100) == b'')
t.sendall(b'after your end'); t.close()
";
    let mut child = world.python(script);
    let (source_port, port, mut far) = world.far().await;
    assert_eq!(port, 4321);
    let first = line(&mut child).await;
    assert_eq!(first, format!("{source_port} fd70:1:2:3:4:5:6:1 ('fd70:1:2:3:4:5:6:2', 4321)"));
    let mut got = Vec::new();
    far.read_to_end(&mut got).await.expect("a half-close, no reset");
    assert_eq!(got, b"hello");
    far.write_all(b"and back").await.unwrap();
    far.shutdown().await.unwrap();
    let (_, _, mut other) = world.far().await;
    other.write_all(b"mine").await.unwrap();
    other.shutdown().await.unwrap();
    let mut got = Vec::new();
    other.read_to_end(&mut got).await.expect("a half-close, no reset");
    assert_eq!(got, b"after your end");
    assert_eq!(output(child).await, "and back\nmine True\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_pass_both_ways() {
    let mut world = World::open().await;
    let script = "
s = socket.create_connection((ap(2), 1))
out('up')
try: s.recv(1); out('no reset')
except ConnectionResetError: out('reset')
t = socket.create_connection((ap(2), 2))
t.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
t.sendall(b'x'); t.recv(1); t.close()
";
    let mut child = world.python(script);
    let (_, _, far) = world.far().await;
    assert_eq!(line(&mut child).await, "up");
    drop(far);
    let (_, _, mut far) = world.far().await;
    assert_eq!(far.read_u8().await.unwrap(), b'x');
    far.write_all(b"y").await.unwrap();
    let error = timeout(PATIENCE, far.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(output(child).await, "reset\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn urgent_bytes_stay_in_line() {
    let mut world = World::open().await;
    let child = world.python("s = socket.create_connection((ap(2), 1)); s.send(b'ab!', socket.MSG_OOB); s.send(b'cd')");
    let (_, _, mut far) = world.far().await;
    let mut got = Vec::new();
    far.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"ab!cd");
    output(child).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_is_full_until_its_program_accepts() {
    let world = World::open().await;
    let script = "
s = socket.socket(socket.AF_INET6); s.bind(('::', 7000)); s.listen(0); out('listens')
input(); s.accept(); out('accepted'); input()
";
    let mut child = world.python(script);
    let mut words = child.stdin.take().unwrap();
    assert_eq!(line(&mut child).await, "listens");
    assert!(!world.gate.is_full(7000).await && !world.gate.is_full(7001).await);
    let _waits = world.gate.incoming(address(OPEN), 5000, 7000).await.unwrap();
    // The program's kernel counts it when the last packet of the handshake is there.
    let filled = async { while !world.gate.is_full(7000).await {} };
    timeout(PATIENCE, filled).await.expect("full in time");
    assert!(world.gate.listening(7000).await);
    words.write_all(b"accept\n").await.unwrap();
    assert_eq!(line(&mut child).await, "accepted");
    assert!(!world.gate.is_full(7000).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_resolve_in_every_way_and_ipv4_programs_connect() {
    let mut world = World::open().await;
    let script = "
import random
def ask(name, kind, server, family):
    u = socket.socket(family, socket.SOCK_DGRAM); u.settimeout(30)
    q = struct.pack('>HHHHHH', 77, 0x100, 1, 0, 0, 0)
    for label in name.split('.'): q += bytes([len(label)]) + label.encode()
    u.sendto(q + b'\\0' + struct.pack('>HH', kind, 1), (server, 53))
    a = u.recv(2000)
    assert a[:2] == q[:2] and a[2] & 0x80
    return a[3] & 15, struct.unpack('>H', a[6:8])[0], a
v4, v6 = ('198.18.0.53', socket.AF_INET), ('2001:db8::53', socket.AF_INET6)
for server, family in (v4, v6):
    code, count, a = ask('open.phantom', 28, server, family)
    out(code, count, socket.inet_ntop(socket.AF_INET6, a[-16:]))
    code, count, a = ask('OPEN.Phantom', 1, server, family)
    alias = socket.inet_ntoa(a[-4:])
    out(code, count, alias.startswith('198.18.'))
    out(*ask('open.phantom', 15, server, family)[:2], *ask('example.org', 1, server, family)[:2])
    out(*ask('unanswered.example', 28, server, family)[:2])
    code, count, a = ask('.'.join(reversed(alias.split('.'))) + '.in-addr.arpa', 12, server, family)
    out(code, count, b'open' in a[40:])
    nibbles = socket.inet_pton(socket.AF_INET6, ap(2)).hex()
    code, count, a = ask('.'.join(reversed(nibbles)) + '.ip6.arpa', 12, server, family)
    out(code, count, b'open' in a[80:])
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(30)
u.sendto(struct.pack('>HHHHHH', 5, 0x100, 3, 0, 0, 0) + b'zz', ('198.18.0.53', 53)); out(u.recv(100)[3] & 15)
s = socket.create_connection((alias, 80)); out(s.getpeername() == (alias, 80), s.getsockname()[0])
s.sendall(b'v4'); s.shutdown(socket.SHUT_WR); out(s.recv(10).decode())
";
    let child = world.python(script);
    let (_, port, mut far) = world.far().await;
    assert_eq!(port, 80);
    let mut got = Vec::new();
    far.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"v4");
    far.write_all(b"alias").await.unwrap();
    far.shutdown().await.unwrap();
    let round = "0 1 fd70:1:2:3:4:5:6:2\n0 1 True\n0 0 3 0\n2 0\n0 1 True\n0 1 True\n";
    assert_eq!(output(child).await, format!("{round}{round}1\nTrue 198.18.0.1\nalias\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_inside_are_reached_and_see_the_peer() {
    let world = World::open().await;
    let server = |family: &str, host: &str| {
        format!(
            "
l = socket.socket({family}); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind(('{host}', 80)); l.listen(); out('ready')
for _ in range(2):
    c, peer = l.accept(); out(peer[0], peer[1], c.getsockname()[:2])
    c.sendall(c.recv(10)[::-1]); c.close()
"
        )
    };
    assert!(!world.gate.listening(80).await);
    assert_eq!(world.gate.incoming(address(9), 1234, 80).await.unwrap_err(), ConnectError::Refused);
    let cases = [
        ("socket.AF_INET6", "::", "fd70:1:2:3:4:5:6:9 1234 ('fd70:1:2:3:4:5:6:1', 80)".to_owned()),
        ("socket.AF_INET", "0.0.0.0", format!("{} 1234 ('198.18.0.1', 80)", world.gate.alias_of(address(9)))),
    ];
    for (family, host, expected) in cases {
        let mut child = world.python(&server(family, host));
        assert_eq!(line(&mut child).await, "ready");
        assert!(world.gate.listening(80).await);
        assert_eq!(world.gate.listening_ports().await, [80]);
        for round in 0..2 {
            let mut stream = world.gate.incoming(address(9), 1234, 80).await.unwrap();
            let seen = line(&mut child).await;
            if round == 0 {
                assert_eq!(seen, expected);
            }
            stream.write_all(b"abc").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut got = Vec::new();
            timeout(PATIENCE, stream.read_to_end(&mut got)).await.unwrap().unwrap();
            assert_eq!(got, b"cba");
        }
        output(child).await;
    }
    let mut child = world.python("l = socket.create_server(('127.0.0.1', 81)); out('ready'); sys.stdin.read()");
    assert_eq!(line(&mut child).await, "ready");
    assert_eq!(world.gate.listening_ports().await, Vec::<u16>::new());
    assert_eq!(world.gate.incoming(address(9), 0, 81).await.unwrap_err(), ConnectError::Refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_fetches_from_a_web_server_inside_through_the_gate() {
    let mut world = World::open().await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("page"), "a page").unwrap();
    let path = directory.path().to_str().unwrap();
    let server = world.spawn("python3", &["-u", "-m", "http.server", "80", "--bind", "::", "--directory", path]);
    while !world.gate.listening(80).await {
        tokio::task::yield_now().await;
    }
    let curl = world.spawn("curl", &["-sS", "http://open.phantom:8080/page"]);
    let (source_port, port, far) = world.far().await;
    assert_eq!(port, 8080);
    let inside = world.gate.incoming(address(9), source_port, 80).await.unwrap();
    tokio::spawn(splice(inside, Box::new(far)));
    assert_eq!(output(curl).await, "a page");
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_data_arrives_whole_in_both_directions() {
    const TOTAL: usize = 100 << 20;
    let mut world = World::open().await;
    let script = "
block = bytes(range(251)) * 400
s = socket.create_connection((ap(2), 1)); h = hashlib.sha256(); n = 0
while chunk := s.recv(1 << 20): h.update(chunk); n += len(chunk)
out(n, h.hexdigest())
h = hashlib.sha256(); n = 0
while n < 100 << 20:
    piece = block[:(100 << 20) - n]; s.sendall(piece); h.update(piece); n += len(piece)
s.close(); out(h.hexdigest())
";
    let mut child = world.python(script);
    let (_, _, mut far) = world.far().await;
    let block: Vec<u8> = (0..65_521u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut hash = Sha::default();
    let mut sent = 0;
    while sent < TOTAL {
        let piece = &block[..block.len().min(TOTAL - sent)];
        far.write_all(piece).await.unwrap();
        hash.update(piece);
        sent += piece.len();
    }
    far.shutdown().await.unwrap();
    assert_eq!(line(&mut child).await, format!("{TOTAL} {}", hash.finish()));
    let (mut hash, mut got, mut buffer) = (Sha::default(), 0, vec![0; 1 << 20]);
    loop {
        let length = far.read(&mut buffer).await.unwrap();
        if length == 0 {
            break;
        }
        hash.update(&buffer[..length]);
        got += length;
    }
    assert_eq!(got, TOTAL);
    assert_eq!(line(&mut child).await, hash.finish());
}

/// SHA-256 in hexadecimal.
struct Sha(aws_lc_rs::digest::Context);

impl Default for Sha {
    fn default() -> Self {
        Self(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256))
    }
}

impl Sha {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self) -> String {
        data_encoding::HEXLOWER.encode(self.0.finish().as_ref())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_gate_aborts_connections_and_leaves_no_way_out() {
    let mut world = World::open().await;
    let script = "
s = socket.create_connection((ap(2), 1)); out('up')
try: out('got', s.recv(1))
except OSError: out('aborted')
t = socket.socket(socket.AF_INET6); t.settimeout(0.2)
out(t.connect_ex((ap(2), 1)) != 0)
u = socket.socket(socket.AF_INET); u.settimeout(0.2)
out(u.connect_ex(('192.0.2.1', 80)) != 0)
";
    let mut child = world.python(script);
    let (_, _, far) = world.far().await;
    assert_eq!(line(&mut child).await, "up");
    world.gate.close().await;
    let text = output(child).await;
    drop(far);
    assert_eq!(text, "aborted\nTrue\nTrue\n");
}

/// Waits in every way that a program can, says when it does, and what each wait ended with.
const WAITING: &str = "
import errno, select, threading
def code(action):
    try: return action()
    except OSError as error: return errno.errorcode[error.errno]
def connect(n):
    s = socket.socket(socket.AF_INET6); return code(lambda: s.connect((ap(n), 1)))
reader = socket.create_connection((ap(2), 1))
writer = socket.create_connection((ap(2), 1))
watched = socket.create_connection((ap(2), 1)); watched.setblocking(False)
epoll = select.epoll(); epoll.register(watched, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
listener = socket.create_server(('::', 80), family=socket.AF_INET6)
question = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); question.connect(('198.18.0.53', 53))
ends = {}
def fill():
    while True: writer.sendall(bytes(65536))
# Who is woken may connect anew before the others are.
waits = dict(read=lambda: (code(lambda: reader.recv(1)), 'then', connect(2)), write=fill,
             connect=lambda: connect(6), ask=lambda: question.recv(1),
             epoll=lambda: (epoll.poll(), errno.errorcode[watched.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)])[1])
threads = [threading.Thread(target=lambda k=k, f=f: ends.__setitem__(k, code(f))) for k, f in waits.items()]
for t in threads: t.start()
while ' 02 ' not in open('/proc/net/tcp6').read(): pass
out('up')
for t in threads: t.join()
for k in sorted(ends): out(k, *ends[k] if k == 'read' else [ends[k]])
ask = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out('again', connect(2), code(lambda: ask.sendto(b'x', ('198.18.0.53', 53))))
ipv4 = socket.socket(); out('ipv4', code(lambda: ipv4.connect(('198.18.5.5', 80))))
listener.settimeout(0); out('listener', code(listener.accept))
near = socket.create_connection(('::1', 80)); out('loopback', listener.accept()[1][0])
";

/// What [`WAITING`] is to print once nobody carries packets any more.
const ENDED: &str = "ask ECONNABORTED\nconnect ECONNABORTED\nepoll ECONNABORTED\n\
    read ECONNABORTED then ENETUNREACH\nwrite ECONNABORTED\nagain ENETUNREACH ENETUNREACH\nipv4 ENETUNREACH\nlistener EAGAIN\nloopback ::1\n";

/// The helper that holds the network namespace of a process.
fn helper_of(program: &Child) -> rustix::process::Pid {
    let network = std::fs::read_link(format!("/proc/{}/ns/net", program.id().unwrap())).unwrap();
    let holds = |process: &PathBuf| {
        let line = std::fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        let held = || std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        line.contains("__netns") && held().any(|one| std::fs::read_link(one.path()).is_ok_and(|to| to == network))
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let found = processes.into_iter().find(holds).expect("a helper");
    rustix::process::Pid::from_raw(found.file_name().unwrap().to_str().unwrap().parse().unwrap()).unwrap()
}

/// A program that waits in every way, and the far ends of its connections.
async fn waiting() -> (World, Child, Vec<(u16, u16, End)>) {
    let mut world = World::open().await;
    let mut child = world.python(WAITING);
    let mut far = Vec::new();
    for _ in 0..3 {
        far.push(world.far().await);
    }
    assert_eq!(line(&mut child).await, "up");
    (world, child, far)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_waits_ends_when_the_gate_does() {
    let (world, child, _far) = waiting().await;
    world.gate.close().await;
    assert_eq!(output(child).await, ENDED);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_waits_ends_when_the_helper_is_killed() {
    let (world, child, _far) = waiting().await;
    assert!(!world.gate.is_broken());
    rustix::process::kill_process(helper_of(&child), rustix::process::Signal::KILL).unwrap();
    assert_eq!(output(child).await, ENDED);
    assert!(world.gate.is_broken());
    assert!(world.gate.socket(libc::AF_INET6, libc::SOCK_STREAM, 0).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_made_for_the_hook_belong_to_the_namespace() {
    let mut world = World::open().await;
    let socket = world.gate.socket(libc::AF_INET6, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0).await.unwrap();
    let socket = tokio::net::TcpSocket::from_std_stream(socket.into());
    let connect = tokio::spawn(socket.connect((address(OPEN).ipv6(), 7).into()));
    let (_, port, _far) = world.far().await;
    assert_eq!(port, 7);
    assert_eq!(connect.await.unwrap().unwrap().local_addr().unwrap().ip(), address(OWN).ipv6());
    let multipath = world.gate.socket(libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_MPTCP).await.unwrap();
    let protocol = rustix::net::sockopt::socket_protocol(&multipath).unwrap();
    assert_eq!(protocol, Some(rustix::net::ipproto::TCP));
    for (domain, kind) in [(libc::AF_INET, libc::SOCK_RAW), (libc::AF_PACKET, libc::SOCK_RAW), (libc::AF_UNIX, 1)] {
        let refused = world.gate.socket(domain, kind, 0).await.unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_at_once() {
    const COUNT: usize = 300;
    let mut world = World::open().await;
    let script = "
import asyncio
async def one(n):
    r, w = await asyncio.open_connection(ap(2), 1000 + n)
    w.write(b'%d' % n); w.write_eof()
    got = await r.read(); w.close()
    return got == b'<%d>' % n
async def main(): out(sum(await asyncio.gather(*[one(n) for n in range(300)])))
asyncio.run(main())
";
    let child = world.python(script);
    let done = Arc::new(Mutex::new(0));
    for _ in 0..COUNT {
        let (_, _, mut far) = world.far().await;
        let done = done.clone();
        tokio::spawn(async move {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            far.write_all(&[b"<", &got[..], b">"].concat()).await.unwrap();
            far.shutdown().await.unwrap();
            *done.lock().unwrap() += 1;
        });
    }
    assert_eq!(output(child).await, format!("{COUNT}\n"));
    assert_eq!(*done.lock().unwrap(), COUNT);
}

/// Prints how fast bulk data goes through the gate; run it in release mode: `cargo test --release -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a promise"]
async fn measure_bulk() {
    const TOTAL: usize = 4 << 30;
    let mut world = World::open().await;
    let script = "
s = socket.create_connection((ap(2), 1)); b = bytearray(65536)
while s.recv_into(b): pass
p = bytes(65536)
for _ in range((4 << 30) >> 16): s.sendall(p)
s.close()
";
    let child = world.python(script);
    let (_, _, mut far) = world.far().await;
    let block = vec![0; 65_536];
    let began = Instant::now();
    for _ in 0..TOTAL / block.len() {
        far.write_all(&block).await.unwrap();
    }
    far.shutdown().await.unwrap();
    let down = began.elapsed();
    let mut buffer = vec![0; 65_536];
    let began = Instant::now();
    while far.read(&mut buffer).await.unwrap() > 0 {}
    let up = began.elapsed();
    let gbit = |time: Duration| TOTAL as f64 * 8e-9 / time.as_secs_f64();
    println!("to the program {:.2} Gbit/s, from it {:.2} Gbit/s", gbit(down), gbit(up));
    output(child).await;
}

/// Prints how long connecting and a round trip of 64 bytes take, in microseconds; see [`measure_bulk`].
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a promise"]
async fn measure_latency() {
    let world = World::open().await;
    let script = "
import time
def p50(f):
    times = []
    for n in range(1000):
        began = time.perf_counter_ns(); f(); times.append(time.perf_counter_ns() - began)
    return sorted(times)[500] / 1000
def connect(): socket.create_connection((ap(2), 1)).close()
s = socket.create_connection((ap(2), 1)); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
def trip(): s.sendall(bytes(64)); s.recv(64)
out('connect p50', p50(connect), 'us, round trip p50', p50(trip), 'us')
";
    let child = world.python(script);
    let mut connected = world.connected;
    tokio::spawn(async move {
        while let Some((_, _, mut far)) = connected.recv().await {
            tokio::spawn(async move {
                let mut buffer = [0; 64];
                while far.read_exact(&mut buffer).await.is_ok() && far.write_all(&buffer).await.is_ok() {}
                far.shutdown().await
            });
        }
    });
    println!("{}", output(child).await.trim());
}
