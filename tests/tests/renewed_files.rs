//! A computer that changes networks gets another /etc/resolv.conf, upgrades replace other files, modules come anew: what phantom-run had
//! laid over the old ones is gone with them, and laid over the new ones.

use anyhow::{Result, ensure};
use phantom_tests::alone::with_mounts;
use phantom_tests::{Alone, Way, stdout};

/// Waits, and says whether it came.
const WAIT: &str = "
import os, pathlib, socket, sys, time
def wait(whether):
    end = time.time() + 60
    while not whether() and time.time() < end: time.sleep(0.05)
    return whether()
def read(name):
    try: return pathlib.Path(name).read_text()
    except FileNotFoundError: return ''
";

/// Files of /etc that may be changed, and what changes them when the program has asked for it; then the change is told.
fn changes(asked: &str, before: &str, change: &str) -> String {
    format!(
        "mount -t tmpfs tmpfs /mnt; cp -a /etc /mnt/etc; mount --bind /mnt/etc /etc; rm -f /etc/resolv.conf; echo nameserver 192.0.2.1 >/etc/resolv.conf
        {before}
        (set -e; for i in $(seq 600); do [ ! -e {asked} ] || break; sleep 0.1; done; {change}; touch {asked}-done; chmod 644 {asked}-done) >/dev/null 2>&1 & :"
    )
}

/// Looks at all files before and after they were replaced, first by files and then by links to files elsewhere.
const LOOKS: &str = "
files = {name: read('/etc/' + name) for name in ('resolv.conf', 'hosts', 'nsswitch.conf', 'hostname', 'machine-id')}
for times in 'once', 'twice':
    pathlib.Path(f'{sys.argv[1]}-{times}').touch()
    print(wait(lambda: os.path.exists(f'{sys.argv[1]}-{times}-done')))
    same = ('resolv.conf', 'hostname', 'machine-id')
    print(wait(lambda: all(read('/etc/' + name) == files[name] for name in same)))
    # Of these the rest is the system's, as it is now.
    print(wait(lambda: f'192.0.2.7 {times}' in read('/etc/hosts') and '127.0.0.1 localhost' in read('/etc/hosts')))
    print(wait(lambda: 'hosts: files dns' in read('/etc/nsswitch.conf') and f'# {times}' in read('/etc/nsswitch.conf')))
    print(all('corp.example' not in read('/etc/' + name) for name in files))
try: socket.getaddrinfo('nobody.phantom', 80)
except socket.gaierror as error: print(error.errno == socket.EAI_NONAME)
";

/// What network managers and package managers write: another file, which gets the name.
const REPLACE: &str = "cd /etc
    echo 'nameserver 127.0.0.53\nsearch corp.example' >new; mv new resolv.conf
    echo '192.0.2.7 TIMES\n192.0.2.8 laptop.corp.example laptop' | sed s/laptop/$(hostname)/g >new; mv new hosts
    echo 'hosts: mdns\n# TIMES' >new; mv new nsswitch.conf
    echo laptop.corp.example >new; mv new hostname
    echo 0123456789abcdef0123456789abcdef >new; mv new machine-id";

#[test]
fn what_is_replaced_is_covered_anew() -> Result<()> {
    let alone = Alone::shared()?;
    let folder = alone.folder.make("asked")?;
    alone.everywhere(|kind, way| {
        let asked = format!("{folder}/{kind:?}-{way:?}");
        let links = "mkdir -p /mnt/else; for name in resolv.conf hosts nsswitch.conf hostname machine-id; do mv $name /mnt/else; ln -s /mnt/else/$name new; mv new $name; done";
        let twice = format!(
            "{}; touch {asked}-once-done; chmod 644 {asked}-once-done
            for i in $(seq 600); do [ ! -e {asked}-twice ] || break; sleep 0.1; done; {}; {links}",
            REPLACE.replace("TIMES", "once"),
            REPLACE.replace("TIMES", "twice"),
        );
        let script = changes(&format!("{asked}-once"), "touch /etc/machine-id /etc/hostname /etc/hosts /etc/nsswitch.conf", &format!("{twice}; touch {asked}-twice-done"));
        let look = format!("{WAIT}{LOOKS}");
        let output = with_mounts(&script, &alone.run(kind, way, &["python3", "-c", &look, &asked])).output()?;
        ensure!(stdout(&output)? == "True\n".repeat(11), "{output:?}");
        Ok(())
    })
}

/// Asks, waits until the file is gone, and asks until somebody answers that there is no such name; then waits for the next file.
const ASKS: &str = "
def answer():
    try: socket.getaddrinfo('nobody.phantom', 80)
    except socket.gaierror as error: return error.errno == socket.EAI_NONAME
print(answer())
pathlib.Path(sys.argv[1]).touch()
print(wait(lambda: not os.path.exists('/etc/resolv.conf')))
print(wait(answer))
pathlib.Path(sys.argv[1] + '-again').touch()
print(wait(lambda: '198.18.0.53' in read('/etc/resolv.conf')))
";

#[test]
fn names_go_on_when_resolv_conf_is_removed() -> Result<()> {
    let alone = Alone::shared()?;
    let folder = alone.folder.make("removed")?;
    alone.everywhere(|kind, way| {
        let asked = format!("{folder}/{kind:?}-{way:?}");
        let again = format!(
            "for i in $(seq 600); do [ ! -e {asked}-again ] || break; sleep 0.1; done; echo nameserver 127.0.0.53 >/etc/new; mv /etc/new /etc/resolv.conf"
        );
        let script = changes(&asked, ":", &format!("rm /etc/resolv.conf; {again}"));
        let asks = format!("{WAIT}{ASKS}");
        let output = with_mounts(&script, &alone.run(kind, way, &["python3", "-c", &asks, &asked])).output()?;
        ensure!(stdout(&output)? == "True\n".repeat(4), "{output:?}");
        Ok(())
    })
}

/// Says when what is a keyboard that others make up, and what is a network card, are none any more.
const TYPES: &str = "
def kinds(): return {os.stat(device).st_rdev for device in ('/dev/uinput', '/dev/tap7') if os.path.exists(device)}
print(kinds() == {os.makedev(1, 3)})
pathlib.Path(sys.argv[1]).touch()
print(wait(lambda: os.path.exists(sys.argv[1] + '-done')))
print(wait(lambda: kinds() == {os.makedev(1, 3)}))
";

#[test]
fn devices_that_come_anew_are_masked() -> Result<()> {
    let alone = Alone::shared()?;
    let folder = alone.folder.make("devices")?;
    let place = alone.folder.make("dev")?;
    alone.everywhere(|kind, way| {
        let asked = format!("{folder}/{kind:?}-{way:?}");
        let devices = format!(
            "mount -t tmpfs -o mode=755 none '{place}'; cd '{place}'
            cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty .; mkdir net pts shm; mount --bind /dev/pts pts
            mknod -m 666 net/tun c 10 200; mknod -m 666 uinput c 10 223; ln -s /proc/self/fd fd; mount --move . /dev; cd /"
        );
        let script = changes(&asked, &devices, "rm /dev/uinput; mknod -m 666 /dev/tap7 c 511 7; mknod -m 666 /dev/uinput c 10 223");
        let types = format!("{WAIT}{TYPES}");
        let output = with_mounts(&script, &alone.run(kind, way, &["python3", "-c", &types, &asked])).output()?;
        ensure!(stdout(&output)? == "True\nTrue\nTrue\n", "{output:?}");
        Ok(())
    })
}

/// Writes keys of a display, by the computer's name; twice, the second time as xauth does: another file, which gets the name.
const SIGNS: &str = "
import os, pathlib, struct, sys, time
keys, asked = sys.argv[1:]
def write(key):
    words = [b'laptop', b'0', b'MIT-MAGIC-COOKIE-1', key]
    pathlib.Path(keys + '-n').write_bytes(struct.pack('>H', 256) + b''.join(struct.pack('>H', len(word)) + word for word in words))
    os.chmod(keys + '-n', 0o644); os.rename(keys + '-n', keys)
write(b'first')
pathlib.Path(asked + '.ready').touch()
end = time.time() + 240
while not os.path.exists(asked) and time.time() < end: time.sleep(0.05)
write(b'second')
";

/// Reads them before and after: as keys of any computer.
const SHOWS: &str = "
keys, asked = sys.argv[1:]
def shown(key): return (text := pathlib.Path(keys).read_bytes()).startswith(b'\\xff\\xff\\0\\0') and text.endswith(key)
print(shown(b'first'))
pathlib.Path(asked).touch()
print(wait(lambda: shown(b'second')), b'laptop' in pathlib.Path(keys).read_bytes())
";

#[test]
fn keys_of_displays_are_covered_anew() -> Result<()> {
    let alone = Alone::shared()?;
    let folder = alone.folder.make("displays")?;
    alone.everywhere(|kind, way| {
        let home = alone.folder.make(&format!("keys-{kind:?}-{way:?}"))?;
        let asked = format!("{folder}/{kind:?}-{way:?}");
        // By the variable, or where they lie without it.
        let is_named = [Way::Inject, Way::Emulate].contains(&way);
        let keys = format!("{home}/{}", if is_named { "keys" } else { ".Xauthority" });
        let script = format!(
            "(exec python3 -c \"{SIGNS}\" {keys} {asked} >/dev/null 2>&1 &)
            for i in $(seq 600); do [ ! -e {asked}.ready ] || break; sleep 0.1; done"
        );
        let shows = format!("{WAIT}{SHOWS}");
        let mut run = alone.run(kind, way, &["python3", "-c", &shows, &keys, &asked]);
        run.env("HOME", &home).env("DISPLAY", ":0").env_remove("XAUTHORITY");
        if is_named {
            run.env("XAUTHORITY", &keys);
        }
        let output = with_mounts(&script, &run).output()?;
        ensure!(stdout(&output)? == "True\nTrue False\n", "{output:?}");
        Ok(())
    })
}

/// Listens in a home, at a place that is known and at one that is not, and at one that is known in folders that come later; then all anew.
const KEEPS: &str = "
import os, pathlib, shutil, socket, sys, time
home, asked, *user = sys.argv[1:]
kept = []
def serve(path):
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    if os.path.exists(path): os.unlink(path)
    kept.append(socket.socket(socket.AF_UNIX))
    kept[-1].bind(path); os.chmod(path, 0o777); kept[-1].listen(64)
os.umask(0)
for name in ('/.docker/run/docker.sock', '/odd/odd.sock', '/.gnupg/S.dirmngr'): serve(home + name)
pathlib.Path(asked + '.ready').touch()
end = time.time() + 240
while not os.path.exists(asked) and time.time() < end: time.sleep(0.05)
shutil.rmtree(home + '/.docker')
for name in ('/.docker/run/docker.sock', '/odd/odd.sock', '/.gnupg/S.dirmngr', '/.emacs.d/server/server', '/tmux-%s/default' % user[0], '/odd/other.sock'):
    serve(home + name)
pathlib.Path(asked + '.done').touch()
while not os.path.exists(asked + '.over') and time.time() < end: time.sleep(0.05)
";

/// Asks what it reaches before and after; nobody has anything masked who is not listed and did not listen at the start, nor does the
/// program what it listens at itself.
const MEETS: &str = "
home, asked, *user = sys.argv[1:]
names = ['.docker/run/docker.sock', 'odd/odd.sock', '.gnupg/S.dirmngr', '.emacs.d/server/server', 'tmux-%d/default' % os.geteuid()]
def reaches(name):
    try: socket.socket(socket.AF_UNIX).connect(home + '/' + name)
    except OSError: return False
    return True
print([name for name in names if reaches(name)])
os.mkdir(home + '/.rd'); own = socket.socket(socket.AF_UNIX); own.bind(home + '/.rd/docker.sock'); own.listen(64)
pathlib.Path(asked).touch()
print(wait(lambda: os.path.exists(asked + '.done')))
print(wait(lambda: not any(reaches(name) for name in names)), reaches('odd/other.sock'))
print(reaches('.rd/docker.sock'))
pathlib.Path(asked + '.over').touch()
";

#[test]
fn services_outside_run_that_start_anew_are_masked_again() -> Result<()> {
    let alone = Alone::shared()?;
    let folder = alone.folder.make("homes")?;
    alone.everywhere(|kind, way| {
        let home = alone.folder.make(&format!("home-{kind:?}-{way:?}"))?;
        let asked = format!("{folder}/{kind:?}-{way:?}");
        let user = stdout(&alone.command(kind, "id").arg("-u").output()?)?;
        let script = format!(
            "(exec python3 -c \"{KEEPS}\" {home} {asked} {} >/dev/null 2>&1 &)
            for i in $(seq 600); do [ ! -e {asked}.ready ] || break; sleep 0.1; done",
            user.trim()
        );
        let meets = format!("{WAIT}{MEETS}");
        let mut run = alone.run(kind, way, &["python3", "-c", &meets, &home, &asked]);
        run.env("HOME", &home).env("TMUX_TMPDIR", &home);
        let output = with_mounts(&script, &run).output()?;
        ensure!(stdout(&output)? == "[]\nTrue\nTrue True\nTrue\n", "{output:?}");
        Ok(())
    })
}
