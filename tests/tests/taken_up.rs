//! Phantom namespaces that outlive their daemon: the next one takes them up, and only those.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::{Alone, CLIENT, Kind, NODES, Network, SERVER, User, Way, eventually, signal, stdout};

/// Serves port 80 of all addresses; for each line, says what it hears at that name and port, or why nothing.
const LIVES: &str = "
import errno, socket, sys, threading
server = socket.create_server(('::', 80), family=socket.AF_INET6, dualstack_ipv6=True, reuse_port=True)
def serve():
    while True: server.accept()[0].sendall(b'here')
threading.Thread(target=serve, daemon=True).start()
print('up', flush=True)
for line in sys.stdin:
    name, port = line.split()
    try: said = socket.create_connection((name, int(port)), 60).recv(9).decode()
    except socket.gaierror: said = 'no name'
    except OSError as error: said = errno.errorcode.get(error.errno, str(error))
    print(said, flush=True)
";

/// Serves port 80, and reads nothing.
const STAYS: &str = "
import socket
server = socket.create_server(('::', 80), family=socket.AF_INET6, dualstack_ipv6=True)
print('up', flush=True)
while True: server.accept()[0].sendall(b'here')
";

/// Says what it hears there.
const VISITS: &str = "
import socket, sys
print(socket.create_connection((sys.argv[1], 80), 60).recv(9).decode())
";

/// A program in a phantom namespace.
struct Lives {
    launcher: Child,
    asks: ChildStdin,
    says: BufReader<ChildStdout>,
    told: BufReader<ChildStderr>,
}

impl Lives {
    /// Under `phantom-run` with these options.
    fn start(phantom_run: Command, options: &[&str]) -> Result<Self> {
        Self::start_by(Way::Namespace, phantom_run, options)
    }

    fn start_by(way: Way, mut phantom_run: Command, options: &[&str]) -> Result<Self> {
        phantom_run.args(["--quiet", "--isolation", way.flag()]).args(options);
        phantom_run.args(["--", "python3", "-uc", LIVES]);
        let mut launcher = phantom_run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let asks = launcher.stdin.take().context("no pipe")?;
        let says = BufReader::new(launcher.stdout.take().context("no pipe")?);
        let told = BufReader::new(launcher.stderr.take().context("no pipe")?);
        let mut lives = Self { launcher, asks, says, told };
        let said = line(&mut lives.says)?;
        ensure!(said == "up", "{said}: {}", line(&mut lives.told)?);
        Ok(lives)
    }

    fn hears(&mut self, at: &str, port: u16) -> Result<String> {
        writeln!(self.asks, "{at} {port}")?;
        line(&mut self.says)
    }

    /// Reads what people are told until a line has the words.
    fn is_told(&mut self, words: &str) -> Result<String> {
        loop {
            let said = line(&mut self.told)?;
            ensure!(!said.is_empty(), "never said: {words}");
            if said.contains(words) {
                return Ok(said);
            }
        }
    }

    fn ends(self) -> Result<()> {
        let Self { mut launcher, asks, .. } = self;
        drop(asks);
        let status = launcher.wait()?;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

fn line(from: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// Twice: the daemon is ended by order, and killed.
fn goes_on(network: &Network, guest: Option<&User>) -> Result<()> {
    let tool = |name: &str| {
        let user = guest.or_else(|| network.user().ok());
        let mut tool = user.map_or_else(|| Command::new(phantom_tests::binary(name)), |user| user.tool(name));
        tool.arg("--daemon").arg(&network.nodes[SERVER].socket).stdin(Stdio::null());
        tool
    };
    let name = if guest.is_some() { "theirs" } else { "own" };
    stdout(&tool("phantom").args(["address", "new", name]).output()?)?;
    let shown = stdout(&tool("phantom").args(["address", "show", name, "--json"]).output()?)?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    let address = shown["phantom_name"].as_str().context("no name")?;
    let there = network.address(CLIENT, "there")?;
    let other = network.offering(CLIENT, Way::Namespace, Some("there"), &["python3", "-uc", STAYS]);
    let _other = phantom_tests::Server::start_until(other, "up")?;
    network.published(&there)?;
    let mut lives = Lives::start(tool("phantom-run"), &["--identity", name, "--publish", "80"])?;
    works(network, address, &mut lives, &there).context("at first")?;
    let mut running = None;
    for number in [libc::SIGTERM, libc::SIGKILL] {
        running = Some(network.restart(SERVER, number)?);
        lives.is_told("the daemon is gone")?;
        let said = lives.is_told("a daemon is back")?;
        ensure!(!said.contains("new address"), "{said}");
        works(network, address, &mut lives, &there).with_context(|| format!("after {number}"))?;
    }
    drop(running);
    lives.ends()
}

/// It is reached, and reaches others, once paths have come about.
fn works(network: &Network, address: &str, lives: &mut Lives, there: &str) -> Result<()> {
    eventually(|| {
        let said = network.run(Way::Inject, &["python3", "-c", VISITS, address])?;
        ensure!(said.trim() == "here", "a visitor hears {said}");
        Ok(())
    })?;
    eventually(|| {
        let said = lives.hears(there, 80)?;
        ensure!(said == "here", "it hears {said}");
        Ok(())
    })
}

#[test]
fn what_a_program_listens_to_is_reached_again_and_it_reaches_others() -> Result<()> {
    goes_on(&Network::up(NODES)?, None)
}

#[test]
fn so_it_is_for_an_ordinary_user_of_roots_daemon() -> Result<()> {
    let network = Network::up(NODES)?;
    network.open_to_all(SERVER)?;
    goes_on(&network, Some(&User::new()?))
}

#[test]
fn so_it_is_for_a_user_with_an_own_daemon() -> Result<()> {
    goes_on(&Network::up_as(NODES, Some(User::new()?))?, None)
}

/// Programs on one daemon at once.
const MANY: usize = 20;

#[test]
fn many_come_back_at_once_and_those_of_one_identity_into_the_namespace_that_they_share() -> Result<()> {
    let mut alone = Alone::start()?;
    let outside = TcpListener::bind("127.0.0.1:0")?;
    let port = outside.local_addr()?.port();
    std::thread::spawn(move || outside.incoming().flatten().try_for_each(|mut one| one.write_all(b"outside")));
    for kind in [Kind::Root, Kind::Own] {
        stdout(&alone.tool(kind, "phantom").args(["address", "new", "shop"]).output()?)?;
        let start = |options: &[&str]| Lives::start(alone.tool(kind, "phantom-run"), options);
        let fresh: Result<Vec<_>> = (0..MANY).map(|_| start(&[])).collect();
        let mut fresh = fresh?;
        let allowed = port.to_string();
        let mut shop = start(&["--identity", "shop", "--allow-local", &allowed])?;
        let mut shared = start(&["--identity", "shop"])?;
        for _ in 0..2 {
            alone.kill_daemon(kind);
            for one in fresh.iter_mut().chain([&mut shop, &mut shared]) {
                one.is_told("the daemon is gone")?;
            }
            let said = shared.hears("fd70::1", 80)?;
            ensure!(said == "ENETUNREACH", "{kind:?} without a daemon: {said}");
            alone.start_daemon(kind)?;
            for one in &mut fresh {
                let said = one.is_told("a daemon is back")?;
                ensure!(said.contains("a new address"), "{said}");
                let own = said
                    .split_whitespace()
                    .find_map(|word| Some(word.trim_end_matches(':')).filter(|word| word.ends_with(".phantom")));
                let said = one.hears(own.context("no name")?, 80)?;
                ensure!(said == "here", "{kind:?}, at its new address: {said}");
            }
            for one in [&mut shop, &mut shared] {
                one.is_told("a daemon is back")?;
                let said = one.hears("shop", 80)?;
                ensure!(said == "here", "{kind:?}, at the own name: {said}");
            }
            let said = shared.hears("127.0.0.1", port)?;
            ensure!(said == "outside", "{kind:?}, at the port of this computer, which the other has: {said}");
        }
        fresh.into_iter().chain([shop, shared]).try_for_each(Lives::ends)?;
    }
    Ok(())
}

/// Whoever carries the packets of a namespace may be killed alone, or with the daemon, so that nobody ends what is open.
#[test]
fn nothing_waits_for_a_gate_that_was_killed() -> Result<()> {
    let mut alone = Alone::start()?;
    for (kind, way) in [Kind::Root, Kind::Own].into_iter().flat_map(|kind| Way::KERNEL.map(|way| (kind, way))) {
        // It may be there from another way.
        alone.tool(kind, "phantom").args(["address", "new", "shop"]).output()?;
        let mut shop = Lives::start_by(way, alone.tool(kind, "phantom-run"), &["--identity", "shop"])?;
        let gate = |alone: &Alone| -> Result<i32> {
            let daemon = alone.daemon(kind).context("no daemon")?.to_string();
            let found = stdout(&Command::new("pgrep").args(["-P", &daemon, "-f", "__netns"]).output()?)?;
            Ok(found.trim().parse()?)
        };
        signal(gate(&alone)?, libc::SIGKILL);
        shop.is_told("the daemon is gone")?;
        shop.is_told("a daemon is back")?;
        let said = shop.hears("shop", 80)?;
        ensure!(said == "here", "{kind:?}, {way:?}, with another gate of the same daemon: {said}");
        // Nobody has that address, which takes a daemon without others long to find out.
        writeln!(shop.asks, "fd70::1 80")?;
        std::thread::sleep(std::time::Duration::from_secs(2));
        let both = [gate(&alone)?, i32::try_from(alone.daemon(kind).context("no daemon")?)?];
        for number in [libc::SIGSTOP, libc::SIGKILL] {
            both.into_iter().for_each(|pid| signal(pid, number));
        }
        alone.stop_daemon(kind);
        shop.is_told("the daemon is gone")?;
        alone.start_daemon(kind)?;
        shop.is_told("a daemon is back")?;
        let said = line(&mut shop.says)?;
        ensure!(said == "ECONNABORTED", "{kind:?}, {way:?}, what was under way: {said}");
        let said = shop.hears("shop", 80)?;
        ensure!(said == "here", "{kind:?}, {way:?}, after both were killed: {said}");
        shop.ends()?;
    }
    Ok(())
}

/// As root: makes namespaces as whoever has the number, and passes them to a daemon as that user. A line for each: what it says.
const PASSES: &str = "
import os, socket, struct, subprocess, sys
path, version, uid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
import ctypes
libc = ctypes.CDLL(None)
USER, NET = 0x10000000, 0x40000000
held = []
def become(number):
    if number: os.setgroups([]); os.setresgid(number, number, number); os.setresuid(number, number, number)
def made(number, *kinds):
    ready, tell = os.pipe(); mapped, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        become(number)
        for kind in kinds:
            if libc.unshare(kind): os._exit(1)
            os.write(tell, b'x'); os.read(mapped, 1)
        while True: libc.pause()
    os.close(tell)
    held.append(pid)
    for level, kind in enumerate(kinds):
        assert os.read(ready, 1) == b'x', 'no namespace'
        if kind & USER and level == 0:
            for of in ('uid', 'gid'): open(f'/proc/{pid}/{of}_map', 'w').write(f'{number} {number} 1')
        os.write(go, b'x')
    return f'/proc/{pid}/ns/net'
def own(): return made(uid, USER | NET) if uid else made(0, NET)
def ip(space, *words): subprocess.run(['nsenter', '--net=' + space, 'ip', *words], check=True)
def marked(): space = own(); ip(space, 'link', 'set', 'lo', 'alias', 'phantom'); return space
def take(stream, length):
    taken = b''
    while len(taken) < length:
        more = stream.recv(length - len(taken))
        assert more, 'the daemon hung up'
        taken += more
    return taken
def passes(space, stays=[]):
    ours, theirs = socket.socketpair()
    descriptor = os.open(space, os.O_RDONLY)
    if os.fork() == 0:
        become(uid)
        line = socket.socket(socket.AF_UNIX); line.connect(path)
        line.sendall(b'PH\\0' + bytes([version]))
        request = b'\\2\\1' + os.urandom(16)
        socket.send_fds(line, [struct.pack('>I', len(request)) + request], [descriptor])
        first, fds, _, _ = socket.recv_fds(line, 1, 2)
        body = take(line, struct.unpack('>I', first + take(line, 3))[0])
        if body[0] == 7: said = body[7:].decode()
        else: said = 'entered the same' if os.fstat(fds[0]).st_ino == os.fstat(descriptor).st_ino else 'entered another'
        ours.sendall(said.encode() + b'\\n')
        theirs.close()
        ours.recv(1)
        os._exit(0)
    ours.close()
    said = theirs.makefile().readline().strip()
    stays.append(theirs)
    return said
print('null', passes('/dev/null'))
print('user', passes('/proc/self/ns/user'))
print('daemon', passes('/proc/self/ns/net'))
print('stranger', passes(made(12345, USER | NET)))
if uid: print('root', passes(made(0, NET)))
print('nested', passes(made(uid, USER, USER | NET)))
print('unmarked', passes(own()))
space = marked(); ip(space, 'tuntap', 'add', 'other0', 'mode', 'tun')
print('device', passes(space))
space = marked(); ip(space, 'addr', 'add', '192.0.2.1/32', 'dev', 'lo')
print('address', passes(space))
space = marked()
print('right', passes(space))
print('served', passes(space))
space = marked()
takes = \"import socket, time; one = socket.socket(socket.AF_UNIX); one.bind('\\\\0phantom-gate'); print('taken', flush=True); time.sleep(600)\"
squatter = subprocess.Popen(['nsenter', '--net=' + space, 'python3', '-c', takes], stdout=subprocess.PIPE)
squatter.stdout.readline(); held.append(squatter.pid)
print('squatted', passes(space))
for pid in held: os.kill(pid, 9)
";

#[test]
fn no_other_namespace_is_taken_up() -> Result<()> {
    let alone = Alone::start()?;
    let www_data = stdout(&alone.command(Kind::Own, "id").arg("-u").output()?)?;
    for kind in Kind::ALL {
        let uid = if kind == Kind::Root { "0" } else { www_data.trim() };
        let mut passes = Command::new("python3");
        passes.args(["-c", PASSES]).arg(alone.socket(kind)).args([&phantom_ipc::VERSION.to_string(), uid]);
        let said = stdout(&passes.output()?)?;
        let expected = [
            ("null", "no network namespace came"),
            ("user", "no network namespace came"),
            ("daemon", "the namespace that was passed is the daemon's own"),
            ("stranger", "was not made for this user"),
            ("root", "was not made for this user"),
            ("nested", "was not made for this user"),
            ("unmarked", "is no phantom namespace"),
            ("device", "is no phantom namespace"),
            ("address", "is no phantom namespace"),
            ("right", "entered the same"),
            ("served", "another gate serves"),
            // Any program there may take the name by which a gate says that it is busy.
            ("squatted", "entered the same"),
        ];
        for (case, words) in expected.into_iter().filter(|(case, _)| kind != Kind::Root || *case != "root") {
            // One that is not root's own has no power over what root made, which the kernel says.
            let words = if kind == Kind::Own && case == "root" { "Operation not permitted" } else { words };
            let line = said.lines().find(|line| line.split(' ').next() == Some(case)).with_context(|| said.clone())?;
            ensure!(line.contains(words), "{kind:?}: {line}");
        }
    }
    Ok(())
}
