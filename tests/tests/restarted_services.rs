//! Services that act for others stay out of sight of programs that run already, when they start anew or for the first time.

use anyhow::{Result, ensure};
use phantom_tests::alone::{Kind, with_mounts};
use phantom_tests::{Alone, stdout};

/// Listens at each place, and again in a folder or at a place of its own when the program has looked; says when it is done.
const SERVICES: &str = "
import os, pathlib, shutil, socket, sys, time
asked, own = sys.argv[1:]
end = time.time() + 120
replaced = ['/run/dbus/system_bus_socket', '/run/docker.sock', own + '/bus', own + '/systemd/private']
folders = ['/run/pcscd', '/run/systemd/resolve', own + '/gnupg/d.abc']
in_folders = ['/run/pcscd/pcscd.comm', '/run/systemd/resolve/io.systemd.Resolve', own + '/gnupg/d.abc/S.dirmngr']
new = ['/run/podman/podman.sock', '/run/snapd.socket', '/run/avahi-daemon/socket', own + '/docker.sock']
kept = []
def serve(path):
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    if os.path.exists(path): os.unlink(path)
    kept.append(socket.socket(socket.AF_UNIX))
    kept[-1].bind(path); os.chmod(path, 0o777); kept[-1].listen(64)
for path in replaced + in_folders + ['/run/display', own + '/wayland-0', '/run/cups/other.sock']: serve(path)
os.mkdir('/run/avahi-daemon')
pathlib.Path('/run/lock').mkdir()
os.system('chmod -R a+rwX /run')
pathlib.Path(asked + '.ready').touch()
while not os.path.exists(asked) and time.time() < end: time.sleep(0.1)
for folder in folders: shutil.rmtree(folder)
for path in replaced + in_folders + new + ['/run/lock/later']: serve(path)
if os.path.exists('/run/own.pid'): pathlib.Path(asked + '.seen').touch()
pathlib.Path(asked + '.again').touch()
while not os.path.exists(asked + '.done') and time.time() < end: time.sleep(0.1)
";

/// Prints which of them it reaches, before and after.
const REACHES: &str = "
import os, pathlib, socket, sys, time
asked, own = sys.argv[1:]
deputies = ['dbus/system_bus_socket', 'docker.sock', 'pcscd/pcscd.comm', 'systemd/resolve/io.systemd.Resolve', 'podman/podman.sock',
    'snapd.socket', 'avahi-daemon/socket']
deputies = [place + name for place in ('/run/', '', '../run/') for name in deputies]
deputies += [own + name for name in ('/bus', '/systemd/private', '/gnupg/d.abc/S.dirmngr', '/docker.sock')]
def reached(paths):
    found = []
    for path in paths:
        try: socket.socket(socket.AF_UNIX).connect(path); found.append(path)
        except OSError: pass
    return found
print(reached(deputies), len(reached(['/run/display', own + '/wayland-0', '/run/cups/other.sock'])))
pathlib.Path('/run/own.pid').touch()
pathlib.Path(asked).touch()
end = time.time() + 60
while not os.path.exists(asked + '.again') and time.time() < end: time.sleep(0.1)
print(os.path.exists(asked + '.again'), reached(deputies), reached(['/run/lock/later']), os.path.exists(asked + '.seen'))
pathlib.Path(asked + '.done').touch()
";

#[test]
fn whoever_starts_anew_is_not_seen() -> Result<()> {
    let alone = Alone::shared()?;
    let folder = alone.folder.make("services")?;
    alone.everywhere(|kind, way| {
        let asked = format!("{folder}/{kind:?}-{way:?}");
        let id = stdout(&alone.command(kind, "id").arg("-u").output()?)?;
        let own = format!("/run/user/{}", id.trim());
        let script = format!(
            "mount -t tmpfs tmpfs /run
            (python3 -c \"{SERVICES}\" {asked} {own} >/dev/null 2>&1 &)
            for i in $(seq 600); do [ ! -e {asked}.ready ] || break; sleep 0.1; done; cd /run"
        );
        let output = with_mounts(&script, &alone.run(kind, way, &["python3", "-c", REACHES, &asked, &own])).output()?;
        // Root's servers share /run itself with the system: what is replaced right in it, or with its folder, is seen again.
        let replaced = ["docker.sock", "pcscd/pcscd.comm", "podman/podman.sock", "snapd.socket"];
        let seen = ["/run/", "", "../run/"].iter().flat_map(|at| replaced.map(|name| format!("'{at}{name}'")));
        let (seen, shares) =
            if kind == Kind::Root { (seen.collect::<Vec<_>>(), "True") } else { (Vec::new(), "False") };
        let expected = format!("[] 3\nTrue [{}] ['/run/lock/later'] {shares}\n", seen.join(", "));
        ensure!(stdout(&output)? == expected, "{output:?}");
        Ok(())
    })
}
