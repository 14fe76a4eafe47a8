//! Names in every way that programs look them up: `.phantom`, aliases, and names of the ordinary DNS over Phantom.
#![allow(missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::{Context, Result, ensure};
use phantom_tests::{Joined, Network, SERVER, Server, Way, eventually, phantom_run, stdout, under};

/// A name of the zone that is not there.
const MISSING: &str = "missing.example";

/// A web server, a resolver that knows it, and a node that asks that resolver.
struct World {
    network: Arc<Network>,
    folder: PathBuf,
    joined: Joined,
    /// The web server's full name and address.
    web: (String, String),
    _servers: [Server; 2],
}

impl World {
    /// The one that all tests share.
    fn shared() -> Result<Arc<Self>> {
        static SHARED: Mutex<Weak<World>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(world) = shared.upgrade() {
            return Ok(world);
        }
        let world = Arc::new(Self::up()?);
        *shared = Arc::downgrade(&world);
        Ok(world)
    }

    fn up() -> Result<Self> {
        let network = Network::shared()?;
        let folder = network.folder("names")?;
        fs::write(folder.join("index.html"), "the shop\n")?;
        let path = |path: &Path| path.to_str().map(str::to_owned).context("path");
        let web = ["python3", "-u", "-m", "http.server", "80", "--directory", &path(&folder)?];
        let (web_server, web) = network.serve(Way::Namespace, "web", &web, "Serving")?;
        let shown = network.phantom(SERVER, &["address", "show", "web"])?;
        let address = shown["address"].as_str().context("no address")?.to_owned();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("names/resolver.py");
        let resolver = ["python3", &path(&script)?, &address, &path(&folder.join("asked"))?];
        let (resolver, dns) = network.serve(Way::Namespace, "dns", &resolver, "listening")?;
        let config = format!("[resolver]\naddress = \"{dns}:53\"\n[aliases]\nmirror = \"{address}\"\n");
        let joined = network.join_under(&CORPORATE, "asker", &config)?;
        Ok(Self { network, folder, joined, web: (web, address), _servers: [web_server, resolver] })
    }

    /// Runs a program on the node that has a resolver; what it printed.
    fn run(&self, way: Way, program: &[&str]) -> Result<String> {
        let mut command = phantom_run(&self.joined.socket, way);
        let output = command.args(["--quiet", "--"]).args(program).stdin(Stdio::null()).output()?;
        stdout(&output).with_context(|| format!("{program:?} by {way:?}"))
    }

    /// Has a program look names up on a computer whose settings tell where it is: only its own is to be found.
    fn corporate(&self, way: Way, program: &str, around: &[&str]) -> Result<()> {
        let run = phantom_run(&self.joined.socket, way);
        let expected = format!("intranet: not found\ntypo.example: not found\n{OWN}: loopback\n");
        eventually(|| {
            let mut command = under(&[&CORPORATE, around].concat(), Path::new(run.get_program()));
            command.args(run.get_args()).args(["--quiet", "--", program]).args(["intranet", "typo.example", OWN]);
            let said = stdout(&command.stdin(Stdio::null()).output()?)?;
            // A fresh identity's first paths and the resolver have some seconds together; then they want to be asked again, which
            // musl, Go and glibc say in these words.
            let late = ["typo.example: Try again", "i/o timeout", "typo.example: Temporary failure"];
            let is_late = late.iter().any(|words| said.contains(words));
            ensure!(!is_late, "{program} by {way:?}, {around:?}: {said}");
            Ok(said)
        })
        .and_then(|said| {
            ensure!(said == expected, "{program} by {way:?}, {around:?}: {said}");
            Ok(())
        })
    }

    /// Who asked the resolver for a name, by address; with repetitions.
    fn asked(&self, name: &str) -> Result<Vec<String>> {
        let text = fs::read_to_string(self.folder.join("asked"))?;
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        Ok(lines.filter(|(_, asked)| *asked == name).map(|(who, _)| who.to_owned()).collect())
    }

    /// Builds a program of `tests/names`; what `build` says goes before the source.
    fn build(&self, build: &[&str], source: &str, to: &str, after: &[&str]) -> Result<String> {
        let program = self.folder.join(to);
        let mut command = Command::new(build[0]);
        command.args(&build[1..]).arg("-o").arg(&program);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("names").join(source)).args(after);
        // Go wants a place for what it built; nobody's home.
        command.env("CGO_ENABLED", "0").env("GOCACHE", self.folder.join("go")).env("GOFLAGS", "-mod=mod");
        stdout(&command.output()?).with_context(|| format!("{command:?}"))?;
        Ok(program.to_str().context("path")?.to_owned())
    }

    /// Runs a program that looks names up, for each kind of name.
    fn look(&self, way: Way, program: &str) -> Result<()> {
        let (name, address) = &self.web;
        for name in [name, "mirror", "mirror.phantom", "shop.example", "SHOP.example."] {
            let said = self.run(way, &[program, name, address, "mirror.phantom", MISSING])?;
            ensure!(said == "all well\n", "{way:?} {program}: {said}");
        }
        Ok(())
    }
}

#[test]
fn names_of_the_ordinary_dns_lead_to_programs_in_phantom() -> Result<()> {
    let world = World::shared()?;
    for way in Way::ALL {
        for name in ["shop.example", "www.shop.example", "mixed.example", "mirror", &world.web.0] {
            let page = world.run(way, &["curl", "-sS", "--max-time", "60", &format!("http://{name}/index.html")])?;
            ensure!(page == "the shop\n", "{way:?} {name}: {page}");
        }
    }
    Ok(())
}

/// Looks names up that must not be found, all at the same time.
const NOT_FOUND: &str = "
import socket, sys, threading
def look(name, codes):
    # A fresh identity's first paths and the resolver have some seconds together; then they want to be asked again.
    for _ in range(8):
        try:
            return print(name, 'is', socket.getaddrinfo(name, 80)[0][4][0])
        except socket.gaierror as e:
            if e.errno in codes: return
            said = e
            if e.errno != socket.EAI_AGAIN: break
    print(name, said)
no, again = (socket.EAI_NONAME, socket.EAI_NODATA), (socket.EAI_AGAIN,)
threads = [threading.Thread(target=look, args=(name, no)) for name in sys.argv[1].split()]
threads += [threading.Thread(target=look, args=(name, again)) for name in sys.argv[2].split()]
for thread in threads: thread.start()
for thread in threads: thread.join()
print('done')
";

/// Names that the resolver answers, and not with an AP address of theirs.
const NOWHERE: &str = "plain.example four.example circle.example other.example missing.example";

/// Names that are nobody else's business.
const PRIVATE: &str = "printer printer.local x.onion db.internal router.lan a.home.arpa mistyped.phantom x.test";

/// Names whose answers are lies.
const LIES: &str = "liar.example wrong.example huge.example endless.example loop.example gone.example";

#[test]
fn other_addresses_and_hostile_answers_are_not_found() -> Result<()> {
    let world = World::shared()?;
    std::thread::scope(|scope| {
        let look = |way| {
            let nowhere = format!("{NOWHERE} {PRIVATE}");
            let said = world.run(way, &["python3", "-c", NOT_FOUND, &nowhere, LIES])?;
            ensure!(said == "done\n", "{way:?}: {said}");
            // And it is as well as before.
            let page = world.run(way, &["curl", "-sS", "--max-time", "60", "http://shop.example/index.html"])?;
            ensure!(page == "the shop\n", "{way:?}: {page}");
            Ok(())
        };
        let running = Way::ALL.map(|way| scope.spawn(move || look(way)));
        running.into_iter().try_for_each(|one| one.join().expect("no panic"))
    })?;
    for name in PRIVATE.split(' ') {
        ensure!(world.asked(name)?.is_empty(), "{name} was asked");
    }
    for name in NOWHERE.split(' ').chain(LIES.split(' ')) {
        ensure!(!world.asked(name)?.is_empty(), "{name} was not asked");
    }
    Ok(())
}

#[test]
fn without_a_resolver_nobody_is_asked() -> Result<()> {
    let world = World::shared()?;
    for way in Way::ALL {
        let said = world.network.run(way, &["python3", "-c", NOT_FOUND, "shop.example plain.example printer", ""])?;
        ensure!(said == "done\n", "{way:?}: {said}");
    }
    Ok(())
}

/// Looks the name up twice, and says who it is.
const WHO: &str = "
import socket, sys
for _ in range(2): socket.getaddrinfo('www.shop.example', 80)
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.connect((sys.argv[1], 9)); print(s.getsockname()[0])
";

#[test]
fn each_identity_asks_for_itself_and_once() -> Result<()> {
    let world = World::shared()?;
    for way in [Way::Namespace, Way::Preload] {
        let run = || world.run(way, &["python3", "-c", WHO, &world.web.1]);
        let (one, other) = (run()?, run()?);
        ensure!(one != other, "two runs have one address");
        for who in [one, other] {
            let asked = world.asked("www.shop.example")?;
            let times = asked.iter().filter(|asked| **asked == who.trim()).count();
            ensure!(times == 1, "{way:?}: {who} asked {times} times: {asked:?}");
        }
    }
    Ok(())
}

#[test]
fn every_function_of_the_c_library_and_c_ares() -> Result<()> {
    let world = World::shared()?;
    let look = world.build(&["cc", "-DCARES", "-Wall", "-Wextra"], "look.c", "look", &["-lcares", "-lresolv"])?;
    Way::KERNEL.into_iter().try_for_each(|way| world.look(way, &look))
}

#[test]
fn the_resolver_of_go() -> Result<()> {
    let world = World::shared()?;
    let look = world.build(&["go", "build"], "look.go", "look-go", &[])?;
    // By preloading, static programs have no network.
    let ways = Way::ALL.into_iter().filter(|way| matches!(way, Way::Namespace | Way::Inject));
    ways.into_iter().try_for_each(|way| world.look(way, &look))
}

#[test]
fn the_resolver_of_musl() -> Result<()> {
    let world = World::shared()?;
    let look = world.build(&["musl-gcc", "-static", "-DMUSL", "-Wall", "-Wextra"], "look.c", "look-musl", &[])?;
    let ways = Way::ALL.into_iter().filter(|way| matches!(way, Way::Namespace | Way::Inject));
    ways.into_iter().try_for_each(|way| world.look(way, &look))
}

/// glibc told to use TCP; questions on one connection; and what is no question.
const OVER_TCP: &str = "
import socket, struct, sys
name, address = sys.argv[1:]
def ask(s, name, kind):
    q = struct.pack('>HHHHHH', 7, 0x100, 1, 0, 0, 0) + b''.join(bytes([len(l)]) + l.encode() for l in name.split('.'))
    q += b'\\0' + struct.pack('>HH', kind, 1)
    s.sendall(struct.pack('>H', len(q)) + q)
    f = s.makefile('rb')
    a = f.read(struct.unpack('>H', f.read(2))[0])
    assert a[:2] == q[:2], a
    return a[3] & 15, a
with socket.create_connection(('198.18.0.53', 53), timeout=60) as s:
    for known in (name, 'shop.example', 'mirror.phantom'):
        code, a = ask(s, known, 28)
        assert code == 0 and socket.inet_ntop(socket.AF_INET6, a[-16:]) == address, (known, a)
    assert ask(s, 'plain.example', 28)[0] == 3
with socket.create_connection(('198.18.0.53', 53), timeout=60) as s:
    s.sendall(b'\\xff\\xff'); assert s.recv(1) == b''
# A socket that sends nothing, and one that a reset ends, take nobody's place.
idle = [socket.create_connection(('198.18.0.53', 53), timeout=60) for _ in range(16)]
assert len(socket.getaddrinfo(name, 80)) > 0
try:
    socket.create_connection(('198.18.0.53', 54), timeout=60)
    raise AssertionError('connected')
except ConnectionRefusedError: pass
print('all well')
";

#[test]
fn over_tcp_as_over_udp() -> Result<()> {
    let world = World::shared()?;
    for way in Way::KERNEL {
        let said = world.run(way, &["python3", "-c", OVER_TCP, &world.web.0, &world.web.1])?;
        ensure!(said == "all well\n", "{way:?}: {said}");
        let mut command = phantom_run(&world.joined.socket, way);
        command.args(["--quiet", "getent", "ahosts", "shop.example"]).env("RES_OPTIONS", "use-vc").stdin(Stdio::null());
        let said = stdout(&command.output()?)?;
        ensure!(said.contains(&world.web.1), "{way:?}: {said}");
    }
    Ok(())
}

/// On a computer whose settings and whose name add domains to names, and whose files do not hold its own.
const CORPORATE: [&str; 7] = [
    "unshare",
    "-u",
    "-m",
    "sh",
    "-c",
    "hostname laptop.corp-inside.example && mount -t tmpfs none /mnt
    printf 'nameserver 127.0.0.53\\nsearch corp-inside.example other-inside.example\\n' >/mnt/resolv.conf
    printf '127.0.0.1 localhost\\n10.1.2.3 printer.corp-inside.example\\n' >/mnt/hosts
    printf 'hosts: files dns\\n' >/mnt/nsswitch.conf
    for file in resolv.conf hosts nsswitch.conf; do mount --bind /mnt/$file /etc/$file; done
    exec \"$@\"",
    "sh",
];

/// What that computer is called.
const OWN: &str = "laptop.corp-inside.example";

/// An ordinary user may make no namespaces: programs see the host's settings.
const CONFINED: [&str; 7] = [
    "unshare",
    "--user",
    "--map-root-user",
    "sh",
    "-c",
    "for kind in user mnt net; do echo 0 >/proc/sys/user/max_${kind}_namespaces; done; exec \"$@\"",
    "sh",
];

#[test]
fn nothing_made_of_this_computers_name_is_asked() -> Result<()> {
    let world = World::shared()?;
    let glibc = world.build(&["cc", "-Wall", "-Wextra"], "ask.c", "ask", &[])?;
    let musl = world.build(&["musl-gcc", "-static", "-Wall", "-Wextra"], "ask.c", "ask-musl", &[])?;
    let go = world.build(&["go", "build"], "ask.go", "ask-go", &[])?;
    for way in Way::ALL {
        let is_hooked = matches!(way, Way::Preload | Way::Emulate);
        for program in [&glibc, &musl, &go].into_iter().take(if is_hooked { 1 } else { 3 }) {
            world.corporate(way, program, &[])?;
            // Nothing can be laid over the host's files here: all ways but namespace can do without.
            if way != Way::Namespace {
                world.corporate(way, program, &CONFINED)?;
            }
        }
    }
    let asked = fs::read_to_string(world.folder.join("asked"))?;
    ensure!(!asked.contains("-inside"), "a name of this computer was asked: {asked}");
    ensure!(asked.contains("typo.example"), "nobody asked at all: {asked}");
    Ok(())
}
