//! Services that act for others stay out of sight of programs that run already, when they start anew or for the first time;
//! everything else in the same folders is shared with the system.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use phantom_tests::alone::{Kind, with_mounts};
use phantom_tests::{Alone, eventually, stdout};

/// Listens right in a folder, and in one that it makes there.
const FIRST: &str = "
import os, socket, sys
mine, asked = sys.argv[1:]
os.mkdir(mine + '/made')
servers = [socket.socket(socket.AF_UNIX) for _ in range(2)]
for server, path in zip(servers, ('/first.sock', '/made/first.sock')): server.bind(mine + path); server.listen()
open(asked + '.ready', 'w').close()
for server in servers: server.settimeout(120); server.accept()[0].sendall(b'first')
";

/// Asks both.
const SECOND: &str = "
import socket, sys
for path in ('/first.sock', '/made/first.sock'):
    client = socket.socket(socket.AF_UNIX); client.settimeout(60); client.connect(sys.argv[1] + path); print(client.recv(5).decode())
";

/// Listens at each place, and again in a folder or at a place of its own when the program has looked; says what the
/// system sees of the program's own.
const SERVICES: &str = "
import os, pathlib, shutil, socket, sys, time
asked, own, mine, other, user = sys.argv[1:]
end = time.time() + 240
replaced = ['/run/dbus/system_bus_socket', '/run/docker.sock', own + '/bus', own + '/systemd/private', other + '/bus', '/var/lib/lxd/unix.socket',
    other + '/tmux-1/default']
folders = ['/run/pcscd', '/run/systemd/resolve', own + '/gnupg/d.abc']
in_folders = ['/run/pcscd/pcscd.comm', '/run/systemd/resolve/io.systemd.Resolve', own + '/gnupg/d.abc/S.dirmngr']
new = ['/run/podman/podman.sock', '/run/snapd.socket', '/run/avahi-daemon/socket', '/run/nscd/socket', '/run/screen/S-x/1.tty',
    own + '/docker.sock', other + '/docker.sock', other + '/tmux-1/new']
kept = []
def serve(path):
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    if os.path.exists(path): os.unlink(path)
    kept.append(socket.socket(socket.AF_UNIX))
    kept[-1].bind(path); os.chmod(path, 0o777); kept[-1].listen(64)
def until(is_so):
    while not is_so() and time.time() < end: time.sleep(0.1)
    return is_so()
for path in replaced + in_folders + ['/run/display', own + '/wayland-0', '/run/cups/other.sock', '/run/mysqld/mysqld.sock']: serve(path)
os.mkdir('/run/avahi-daemon')
pathlib.Path('/run/lock').mkdir()
for name in ('/stale.pid', '/held.pid'): pathlib.Path(mine + name).touch()
os.system('chmod -R a+rwX /run; chmod 755 /run; chmod 700 %s %s; chmod 711 /var/lib/lxd; chown -R %s %s %s' % (own, other + '/tmux-1', user, own, other))
pathlib.Path(asked + '.ready').touch()
until(lambda: os.path.exists(asked))
for folder in folders + ['/run/mysqld']: shutil.rmtree(folder)
for path in replaced + in_folders + new + ['/run/lock/later', '/run/lock/to-come', '/run/mysqld/mysqld.sock']: serve(path)
os.unlink(mine + '/held.pid')
os.chown('/run/lock/to-come', int(user), -1)
os.rename('/run/lock/to-come', mine + '/later')
seen = until(lambda: os.path.exists(mine + '/own.pid')), until(lambda: os.path.exists(mine + '/app/in')), until(lambda: not os.path.exists(mine + '/stale.pid'))
pathlib.Path(asked + '.again').touch()
ended = until(lambda: os.path.exists(asked + '.done')) and until(lambda: not os.listdir(mine + '/phantom-run'))
print(*seen, ended, os.path.exists(mine + '/own.pid'), os.path.islink(mine + '/app'), os.listdir(mine + '/app'), file=open(asked + '.said', 'w'))
os.rename(asked + '.said', asked + '.after')
";

/// Prints which of them it reaches, before and after; makes files of its own meanwhile.
const REACHES: &str = "
import os, pathlib, socket, sys, time
asked, own, mine, other = sys.argv[1:]
end = time.time() + 240
deputies = ['dbus/system_bus_socket', 'docker.sock', 'pcscd/pcscd.comm', 'systemd/resolve/io.systemd.Resolve', 'podman/podman.sock',
    'snapd.socket', 'avahi-daemon/socket', 'nscd/socket', 'screen/S-x/1.tty']
deputies = [place + name for place in ('/run/', '', '../run/') for name in deputies]
deputies += [own + name for name in ('/bus', '/systemd/private', '/gnupg/d.abc/S.dirmngr', '/docker.sock')]
deputies += [other + name for name in ('/bus', '/docker.sock', '/tmux-1/default', '/tmux-1/new')] + ['/var/lib/lxd/unix.socket']
def reached(paths):
    found = []
    for path in paths:
        try: socket.socket(socket.AF_UNIX).connect(path); found.append(path)
        except OSError: pass
    return found
def until(is_so):
    while not is_so() and time.time() < end: time.sleep(0.1)
    return bool(is_so())
print(reached(deputies), len(reached(['/run/display', own + '/wayland-0', '/run/cups/other.sock', '/run/mysqld/mysqld.sock'])))
pathlib.Path(mine + '/own.pid').touch()
os.mkdir(mine + '/app')
pathlib.Path(mine + '/app/in').touch()
os.unlink(mine + '/stale.pid')
pathlib.Path(asked).touch()
print(until(lambda: os.path.exists(asked + '.again')), until(lambda: reached([mine + '/later'])), until(lambda: not os.path.exists(mine + '/held.pid')))
if mine == '/run': print(until(lambda: reached(['/run/mysqld/mysqld.sock'])))
else: print(bool(reached(['/run/mysqld/mysqld.sock'])))
print(reached(deputies), reached(['/run/lock/later']), os.path.exists(mine + '/phantom-run'))
os.unlink(mine + '/own.pid')
pathlib.Path(asked + '.done').touch()
";

#[test]
fn whoever_starts_anew_is_not_seen() -> Result<()> {
    let alone = Alone::shared()?;
    let folder = alone.folder.make("services")?;
    alone.everywhere(|kind, way| {
        let asked = format!("{folder}/{kind:?}-{way:?}");
        let id = stdout(&alone.command(kind, "id").arg("-u").output()?)?;
        let user = id.trim();
        let own = format!("/run/user/{user}");
        let mine = if kind == Kind::Root { "/run" } else { &own };
        let other = format!("{asked}-runtime");
        let script = format!(
            "mount -t tmpfs -o mode=755 tmpfs /run; mount -t tmpfs -o mode=755 tmpfs /var/lib; mkdir -m 700 {other}
            (python3 -c \"{SERVICES}\" {asked} {own} {mine} {other} {user} >/dev/null 2>&1 &)
            for i in $(seq 600); do [ ! -e {asked}.ready ] || break; sleep 0.1; done; cd /run"
        );
        let mut run = alone.tool(kind, "phantom-run");
        run.args(["--quiet", "--isolation", way.flag()]);
        for allowed in ["/run/display", "/run/cups/other.sock", "/run/mysqld/mysqld.sock"] {
            run.args(["--allow-socket", allowed]);
        }
        run.args(["--", "python3", "-c", REACHES, &asked, &own, mine, &other]);
        run.env("XDG_RUNTIME_DIR", &other).env("TMUX_TMPDIR", &other);
        let output = with_mounts(&script, &run).output()?;
        // Only root's keeper may mount what comes later.
        let mounts = if kind == Kind::Root { "True" } else { "False" };
        let expected = format!("[] 4\nTrue True True\n{mounts}\n[] ['/run/lock/later'] False\n");
        ensure!(stdout(&output)? == expected, "{output:?}");
        let after = Path::new(&folder).join(format!("{asked}.after"));
        let after = eventually(|| fs::read_to_string(&after).context("what the system sees"))?;
        ensure!(after == "True True True True False False ['in']\n", "{after}");
        Ok(())
    })
}

#[test]
fn runs_of_one_user_find_each_others_sockets() -> Result<()> {
    let alone = Alone::shared()?;
    let folder = alone.folder.make("runs")?;
    for (name, code) in [("first.py", FIRST), ("second.py", SECOND)] {
        fs::write(format!("{folder}/{name}"), code)?;
    }
    alone.everywhere(|kind, way| {
        let asked = format!("{folder}/{kind:?}-{way:?}");
        let id = stdout(&alone.command(kind, "id").arg("-u").output()?)?;
        let user = id.trim();
        let own = format!("/run/user/{user}");
        let mine = if kind == Kind::Root { "/run" } else { &own };
        let run = |name: &str| alone.run(kind, way, &["python3", &format!("{folder}/{name}"), mine, &asked]);
        let first = run("first.py");
        let words: Vec<_> =
            [first.get_program()].into_iter().chain(first.get_args()).map(|word| word.display()).collect();
        let words: Vec<_> = words.iter().map(ToString::to_string).collect();
        let script = format!(
            "mount -t tmpfs -o mode=755 tmpfs /run; mkdir -p {own}; chmod 700 {own}; chown {user} {own}
            ({} >/dev/null 2>&1 &)
            for i in $(seq 600); do [ ! -e {asked}.ready ] || break; sleep 0.1; done",
            words.join(" ")
        );
        let output = with_mounts(&script, &run("second.py")).output()?;
        ensure!(stdout(&output)? == "first\nfirst\n", "{output:?}");
        Ok(())
    })
}

/// Listens where all programs look for it, and holds what looks like the folder of another run, in which a link leads out.
const BEHIND_LINKS: &str = "
import fcntl, os, pathlib, socket, sys
mine, up, user, ready = sys.argv[1:]
os.makedirs(mine + '/phantom-run/1-0')
os.chmod(mine, 0o755 if mine == '/run' else 0o700)
for folder in (mine, mine + '/phantom-run'): os.chown(folder, int(user), -1)
held = os.open(mine + '/phantom-run/1-0', os.O_RDONLY); fcntl.flock(held, fcntl.LOCK_EX)
os.symlink('/run', mine + '/phantom-run/1-0/beside')
os.symlink(mine + '/phantom-run/1-0/beside', mine + '/beside')
os.symlink(mine + '/phantom-run/' + up, mine + '/before')
server = socket.socket(socket.AF_UNIX); server.bind('/run/docker.sock'); os.chmod('/run/docker.sock', 0o777); server.listen(64)
pathlib.Path(ready).touch()
server.settimeout(90)
while True: server.accept()
";

/// Says by which links it reaches that: such as were there, and one that it makes and takes away again when its keeper has it.
const FOLLOWS_LINKS: &str = "
import os, socket, sys, time
mine, up = sys.argv[1:]
end = time.time() + 120
def reaches(link):
    try: socket.socket(socket.AF_UNIX).connect(mine + '/' + link + '/docker.sock')
    except OSError: return False
    return True
def known(name):
    while os.lstat(mine + '/' + name).st_nlink < 2 and time.time() < end: time.sleep(0.05)
    return os.lstat(mine + '/' + name).st_nlink == 2
os.symlink(mine + '/phantom-run/' + up, mine + '/made')
print(known('made'))
os.unlink(mine + '/made')
open(mine + '/after', 'w').close()
print(known('after'), [link for link in ('before', 'beside', 'made') if reaches(link)])
";

/// What keepers put for folders of programs are links as well, and keepers see all that is masked.
#[test]
fn links_that_programs_make_lead_past_no_mask() -> Result<()> {
    let alone = Alone::shared()?;
    let folder = alone.folder.make("links")?;
    alone.everywhere(|kind, way| {
        let ready = format!("{folder}/{kind:?}-{way:?}");
        let id = stdout(&alone.command(kind, "id").arg("-u").output()?)?;
        let user = id.trim();
        let own = format!("/run/user/{user}");
        let (mine, up) = if kind == Kind::Root { ("/run", "..") } else { (&*own, "../../..") };
        let script = format!(
            "mount -t tmpfs -o mode=755 tmpfs /run
            python3 -c \"{BEHIND_LINKS}\" {mine} {up} {user} {ready} >/dev/null 2>&1 &
            for i in $(seq 600); do [ ! -e {ready} ] || break; sleep 0.1; done"
        );
        let run = alone.run(kind, way, &["python3", "-c", FOLLOWS_LINKS, mine, up]);
        let output = with_mounts(&script, &run).output()?;
        ensure!(stdout(&output)? == "True\nTrue []\n", "{output:?}");
        Ok(())
    })
}
