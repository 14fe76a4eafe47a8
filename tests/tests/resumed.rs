//! A daemon that is started anew, for the programs of the one before.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::{Alone, Kind, Way};

/// For each line: whether new sockets work, as whom, and what the daemon's own socket says to a command.
const ASKED: &str = "
import errno, socket, sys
path, name = sys.argv[1:3]
def myself():
    # The own address, by the short name that an identity knows itself by.
    at = socket.getaddrinfo(name, 0, socket.AF_INET6, socket.SOCK_STREAM)[0][4][0] if name else '::1'
    server = socket.create_server((at, 0), family=socket.AF_INET6)
    client = socket.create_connection((at, server.getsockname()[1]), 60)
    server.accept()[0].sendall(b'self')
    return client.recv(4).decode()
def command():
    daemon = socket.socket(socket.AF_UNIX)
    daemon.settimeout(60)
    daemon.connect(path)
    daemon.sendall(b'{}\\n')
    return daemon.recv(100)
print('up', flush=True)
for line in sys.stdin:
    try: said = myself()
    except socket.gaierror as error: said = 'no name'
    except OSError as error: said = errno.errorcode.get(error.errno, str(error))
    try: heard = 'answer' if command() else 'silence'
    except OSError as error: heard = 'silence'
    print(said, heard, flush=True)
";

/// A program that outlives its daemon.
struct Outlives {
    launcher: Child,
    asks: ChildStdin,
    says: BufReader<ChildStdout>,
    told: BufReader<ChildStderr>,
}

impl Outlives {
    fn start(alone: &Alone, kind: Kind, way: Way) -> Result<Self> {
        let name = if kind == Kind::OfRoots { "" } else { "shop" };
        let mut command = alone.tool(kind, "phantom-run");
        command.args(["--quiet", "--isolation", way.flag()]);
        if !name.is_empty() {
            command.args(["--identity", name, "--publish", "all"]);
        }
        command.args(["--", "python3", "-uc", ASKED]).arg(alone.socket(kind)).arg(name);
        let mut launcher = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let asks = launcher.stdin.take().context("no pipe")?;
        let says = BufReader::new(launcher.stdout.take().context("no pipe")?);
        let told = BufReader::new(launcher.stderr.take().context("no pipe")?);
        let mut outlives = Self { launcher, asks, says, told };
        let said = line(&mut outlives.says)?;
        ensure!(said == "up", "{said}");
        Ok(outlives)
    }

    fn ask(&mut self) -> Result<String> {
        writeln!(self.asks)?;
        line(&mut self.says)
    }

    /// Reads what people are told until a line has the words.
    fn is_told(&mut self, words: &str) -> Result<()> {
        loop {
            let said = line(&mut self.told)?;
            ensure!(!said.is_empty(), "never said: {words}");
            if said.contains(words) {
                return Ok(());
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

/// Twice: by order, which takes the daemon's socket away, and killed, which leaves a dead one there.
#[test]
fn new_sockets_come_from_the_next_daemon_and_its_own_socket_stays_shut() -> Result<()> {
    let mut alone = Alone::start()?;
    for kind in [Kind::Root, Kind::Own] {
        phantom_tests::stdout(&alone.tool(kind, "phantom").args(["address", "new", "shop"]).output()?)?;
    }
    let mut outlive = Vec::new();
    for kind in Kind::ALL {
        for way in Way::ALL {
            let mut one = Outlives::start(&alone, kind, way).with_context(|| format!("{kind:?} by {way:?}"))?;
            let said = one.ask()?;
            ensure!(said == "self silence", "{kind:?} by {way:?}: {said}");
            outlive.push((kind, way, one));
        }
    }
    for killed in [false, true] {
        for kind in [Kind::Root, Kind::Own] {
            if killed { alone.kill_daemon(kind) } else { alone.stop_daemon(kind) }
        }
        for (kind, way, one) in &mut outlive {
            one.is_told("the daemon is gone").with_context(|| format!("{kind:?} by {way:?}"))?;
            let said = one.ask()?;
            // Loopback is inside the namespace, which is there as long as somebody is in it.
            let without = ["ENETDOWN silence", "no name silence"];
            ensure!(
                *way == Way::Namespace || without.contains(&&*said),
                "{kind:?} by {way:?} without a daemon: {said}"
            );
        }
        alone.start_daemon(Kind::Root)?;
        alone.start_daemon(Kind::Own)?;
        for (kind, way, one) in &mut outlive {
            one.is_told("a daemon is back").with_context(|| format!("{kind:?} by {way:?}"))?;
            let said = one.ask()?;
            ensure!(said == "self silence", "{kind:?} by {way:?}, killed: {killed}: {said}");
        }
    }
    outlive.into_iter().try_for_each(|(_, _, one)| one.ends())
}

/// `phantom restart` twice: nobody is told of anything, for nothing is missing, whoever started the program and by whichever way; but who
/// has emulated sockets, which end.
#[test]
fn a_daemon_that_starts_anew_in_place_is_not_missed() -> Result<()> {
    let alone = Alone::start()?;
    for kind in [Kind::Root, Kind::Own] {
        phantom_tests::stdout(&alone.tool(kind, "phantom").args(["address", "new", "shop"]).output()?)?;
    }
    let mut outlive = Vec::new();
    for kind in Kind::ALL {
        for way in Way::ALL {
            outlive.push((
                kind,
                way,
                Outlives::start(&alone, kind, way).with_context(|| format!("{kind:?} by {way:?}"))?,
            ));
        }
    }
    for times in 0..3 {
        for (kind, way, one) in &mut outlive {
            if times > 0 && *way == Way::Emulate {
                one.is_told("the daemon is gone")?;
                one.is_told("a daemon is back").with_context(|| format!("{kind:?} by {way:?}"))?;
            }
            let said = one.ask()?;
            ensure!(said == "self silence", "{kind:?} by {way:?} after {times}: {said}");
        }
        if times < 2 {
            for kind in [Kind::Root, Kind::Own] {
                phantom_tests::stdout(&alone.tool(kind, "phantom").arg("restart").output()?)?;
            }
        }
    }
    for (kind, way, one) in outlive {
        let Outlives { mut launcher, asks, mut told, .. } = one;
        drop(asks);
        let status = launcher.wait()?;
        let mut all = String::new();
        told.read_to_string(&mut all)?;
        ensure!(status.success() && !all.contains("daemon"), "{kind:?} by {way:?}: {status} {all}");
    }
    Ok(())
}
