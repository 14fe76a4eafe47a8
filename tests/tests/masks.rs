//! What is masked stays so wherever it lies and whenever it comes, and what lies over files of the system's holds all of them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use anyhow::{Result, ensure};
use phantom_tests::alone::with_mounts;
use phantom_tests::{Alone, Kind, Way, stdout};

/// Listens at the places that are named until whoever started it ends: by a name in its folder, by one that it changes as ssh
/// does, or for datagrams, if they end so.
const SERVE: &str = "
import os, pathlib, socket, sys
kept = []
for path in sys.argv[2:]:
    folder, name = os.path.split(path)
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    os.chdir(folder if name.endswith('here') else '/')
    kept.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if name.endswith('datagrams') else socket.SOCK_STREAM))
    made = path + '.Xy1' if name.endswith('renamed') else name if name.endswith('here') else path
    kept[-1].bind(made); os.chmod(made, 0o777)
    if made == path + '.Xy1': os.link(made, path); os.unlink(made)
    if not name.endswith('datagrams'): kept[-1].listen(64)
os.system('chmod -R a+rX ' + ' '.join(os.path.dirname(path) for path in sys.argv[2:]))
os.chdir(os.path.dirname(sys.argv[-1]))
pathlib.Path(sys.argv[1]).touch()
import time; time.sleep(600)
";

/// Lines of a script that has it listen, as such a user; it ends with the program that the script becomes.
fn serve(alone: &Alone, kind: Kind, ready: &str, places: &[&str]) -> String {
    let mut command = alone.command(kind, "setpriv");
    command.args(["--pdeathsig", "KILL", "python3", "-c", SERVE, ready]).args(places);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| format!("\"{}\"", word.display())).collect();
    format!(
        "{} >/dev/null 2>&1 &
        for i in $(seq 600); do [ ! -e '{ready}' ] || break; sleep 0.1; done",
        words.join(" ")
    )
}

/// Says which sockets it reaches, and which files it may open for writing.
const TRIES: &str = "
import os, socket, sys
for path in sys.argv[1:]:
    ways = [lambda: os.close(os.open(path, os.O_WRONLY))] if path.startswith('/proc') or '/proc/' in path else []
    ways += [lambda kind=kind: socket.socket(socket.AF_UNIX, kind).connect(path) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
    found = False
    for way in ways:
        try: found = way() is None or found
        except OSError: pass
    if found: print(path)
";

/// The kernel writes such names in another way than they are.
#[test]
fn mounts_with_odd_names_are_masked_too() -> Result<()> {
    let alone = Alone::shared()?;
    alone.everywhere(|kind, way| {
        let odd = alone.folder.make(&format!("my \\{kind:?}\t{way:?}\n"))?;
        let ready = alone.folder.at(&format!("odd-{kind:?}-{way:?}"));
        let script = format!(
            "mount -t tmpfs -o mode=755 tmpfs /run; mkdir '{odd}/proc' '{odd}/run'; mount -t proc none '{odd}/proc'
            mount --bind /run '{odd}/run'; {}",
            serve(&alone, Kind::Root, &ready, &["/run/docker.sock"])
        );
        let (file, socket) = (format!("{odd}/proc/sys/kernel/core_pattern"), format!("{odd}/run/docker.sock"));
        let tries = ["python3", "-c", TRIES, &file, &socket, "/run/docker.sock"];
        let said = stdout(&with_mounts(&script, &alone.run(kind, way, &tries)).output()?)?;
        ensure!(said.is_empty(), "open: {said}");
        Ok(())
    })
}

/// Whoever listens may act for others: it need not be known by name.
#[test]
fn whoever_listens_is_out_of_reach_unless_it_is_allowed() -> Result<()> {
    let alone = Alone::shared()?;
    let shut = [
        ".ssh/user@host:22-renamed",
        ".gnupg/S.dirmngr",
        ".gnupg/S.gpg-agent",
        "runtime/keyring/control",
        ".screen/12.pts-0.laptop",
        ".emacs.d/server/server",
        ".docker/run/docker.sock",
        "runtime/sway-ipc.7.sock",
        "runtime/systemd/io.systemd.Manager",
        "ctrl/datagrams",
        "odd name/line\nbreak",
        "spool/here",
    ];
    let needed =
        ["runtime/wayland-0", "runtime/pulse/native", ".gnupg/S.gpg-agent.ssh", "runtime/keyring/ssh", "agent"];
    alone.everywhere(|kind, way| {
        let home = alone.folder.make(&format!("home-{kind:?}-{way:?}"))?;
        let ready = format!("{home}/ready");
        let at = |name: &&str| format!("{home}/{name}");
        let (open, database) = (needed.iter().map(at), at(&"db/mysqld.sock"));
        let places: Vec<String> = open.clone().chain([database.clone()]).chain(shut.iter().map(at)).collect();
        let places: Vec<&str> = places.iter().map(String::as_str).collect();
        for allowed in [None, Some(&database)] {
            // Variables may name it by another name than the one by which it was bound.
            symlink(&home, at(&"link"))?;
            let mut run = alone.tool(kind, "phantom-run");
            run.args(["--quiet", "--isolation", way.flag()]);
            run.args(allowed.into_iter().flat_map(|path| ["--allow-socket", path]));
            run.args(["--", "python3", "-c", TRIES]).args(&places);
            run.env("XDG_RUNTIME_DIR", at(&"runtime"))
                .env("SSH_AUTH_SOCK", at(&"link/agent"))
                .env_remove("SSH_CONNECTION");
            let said = stdout(&with_mounts(&serve(&alone, kind, &ready, &places), &run).output()?)?;
            let expected: String = open.clone().chain(allowed.cloned()).map(|path| path + "\n").collect();
            ensure!(said == expected, "{allowed:?}: {said}");
            for entry in fs::read_dir(&home)? {
                let path = entry?.path();
                if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
            }
        }
        Ok(())
    })
}

/// A browser runs for days, and people put in a USB stick meanwhile.
#[test]
fn a_disk_that_comes_later_is_seen() -> Result<()> {
    let alone = Alone::shared()?;
    let program = "
import os, pathlib, sys, time
asked, late = sys.argv[1:]
pathlib.Path(asked).touch()
end = time.time() + 240
while not os.path.exists(asked + '.mounted') and time.time() < end: time.sleep(0.1)
print(os.path.exists(asked + '.mounted'), os.listdir(late))
";
    let folder = alone.folder.make("later")?;
    alone.everywhere(|kind, way| {
        let asked = format!("{folder}/{kind:?}-{way:?}");
        let late = alone.folder.make(&format!("late-{kind:?}-{way:?}"))?;
        let script = format!(
            "mount --make-rshared /
            (for i in $(seq 600); do [ ! -e {asked} ] || break; sleep 0.1; done; mount -t tmpfs none {late} && touch {late}/file {asked}.mounted) >/dev/null 2>&1 & true"
        );
        let mut waiting = with_mounts(&script, &alone.run(kind, way, &["python3", "-c", program, &asked, &late]));
        let said = stdout(&waiting.output()?)?;
        ensure!(said == "True ['file']\n", "{said}");
        Ok(())
    })
}

/// Lists of names that are to lead nowhere have megabytes, and old files hold other letters than UTF-8.
#[test]
fn files_of_any_length_and_letters_are_replaced() -> Result<()> {
    let alone = Alone::shared()?;
    let blocked: String = (0..100_000).map(|number| format!("0.0.0.0 number-{number}.example\n")).collect();
    let hosts = alone.folder.write("hosts", [b"# caf\xe9\n", blocked.as_bytes()].concat())?;
    let modules =
        b"# caf\xe9\npasswd: files\nhosts : mymachines\nhosts: files resolve [!UNAVAIL=return] mdns4_minimal\n";
    let modules = alone.folder.write("nsswitch.conf", modules)?;
    let script = format!("mount --bind '{hosts}' /etc/hosts; mount --bind '{modules}' /etc/nsswitch.conf");
    for file in [&hosts, &modules] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o644))?;
    }
    let look = "grep -ac 0.0.0.0 /etc/hosts; grep -a number-99999 /etc/hosts; grep -a hosts /etc/nsswitch.conf";
    alone.everywhere(|kind, way| {
        let said = stdout(&with_mounts(&script, &alone.run(kind, way, &["sh", "-c", look])).output()?)?;
        let words: Vec<&str> = said.split_whitespace().collect();
        ensure!(words == ["100000", "0.0.0.0", "number-99999.example", "hosts:", "files", "dns"], "{said}");
        Ok(())
    })
}

/// Root needs no capability to write to many of them. What there is differs between machines and kernels.
#[test]
fn nothing_of_the_machines_in_proc_is_roots_to_write() -> Result<()> {
    let alone = Alone::shared()?;
    let look = "
import os
own = ('self', 'thread-self', 'net', 'mounts', 'pressure')
def is_to_set(name): return os.path.isdir(name) or os.path.isfile(name) and os.stat(name).st_mode & 0o222
names = ['/proc/' + name for name in os.listdir('/proc') if not name.isdigit() and name not in own]
names = [name for name in names if is_to_set(name)]
print(len(names) > 4, [name for name in names if not os.statvfs(name).f_flag & os.ST_RDONLY])
";
    for way in Way::ALL {
        let said = stdout(&alone.run(Kind::Root, way, &["python3", "-c", look]).output()?)?;
        ensure!(said == "True []\n", "{way:?}: {said}");
    }
    Ok(())
}

/// `cd /proc`, then a relative name: what was laid over a folder must be what a program finds that begins in it.
#[test]
fn whoever_begins_in_a_folder_that_is_covered_is_in_what_lies_over_it() -> Result<()> {
    let alone = Alone::shared()?;
    // The same by a name without a slash as by the whole; and what would be root's to write, also by the way up.
    let look = "
import os, sys
here, alike = sys.argv[1], lambda name: os.stat(name)[1:3] == os.stat(os.path.join(here, name))[1:3]
print(os.getcwd() == here and alike('.') and all(alike(name) for name in sys.argv[2:]))
for name in ('sys/kernel/core_pattern', '../proc/sys/kernel/core_pattern', '../sys/kernel/core_pattern'):
    try: os.close(os.open(name, os.O_WRONLY)); print('open:', name)
    except OSError: pass
";
    let folders: [&[&str]; 6] = [
        &["/proc", "sys", "sys/kernel", "net"],
        &["/proc/sys", "kernel"],
        &["/sys/class/net"],
        &["/sys/kernel", "../class/net"],
        &["/run", "lock"],
        &["/usr/lib", "../bin"],
    ];
    alone.everywhere(|kind, way| {
        for folder in folders {
            let mut run = alone.run(kind, way, &["python3", "-c", look]);
            let said = stdout(&run.args(folder).current_dir(folder[0]).output()?)?;
            ensure!(said == "True\n", "{folder:?}: {said}");
        }
        // From a folder that is gone the way up would lead through what is covered.
        let script = "mount -t tmpfs -o mode=755 tmpfs /run; mkdir /run/gone; cd /run/gone; rmdir /run/gone";
        let run = alone.run(kind, way, &["readlink", "/proc/self/cwd"]);
        let said = stdout(&with_mounts(script, &run).output()?)?;
        ensure!(said == "/\n", "{said}");
        Ok(())
    })?;
    // Who may not enter it (`sudo -u` in root's home) stays where it is.
    let shut = alone.folder.make("shut")?;
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o700))?;
    alone.everywhere(|kind, way| {
        let mut run = alone.run(kind, way, &["readlink", "/proc/self/cwd"]);
        let said = stdout(&run.current_dir(&shut).output()?)?;
        ensure!(said == format!("{shut}\n"), "{said}");
        Ok(())
    })
}

/// Somebody else's sockets, whose folders that one opens and shuts all the time: none of them may decide how a program is kept in.
#[test]
fn whoever_shuts_folders_meanwhile_does_not_weaken_a_start() -> Result<()> {
    let alone = Alone::shared()?;
    let (folder, ready) = (alone.folder.make("flickering")?, alone.folder.at("flickering/ready"));
    let flicker = "
import itertools, os, pathlib, socket, sys, time
folders, kept = [os.path.join(sys.argv[1], str(number)) for number in range(300)], []
for folder in folders:
    os.mkdir(folder)
    kept.append(socket.socket(socket.AF_UNIX)); kept[-1].bind(folder + '/socket'); kept[-1].listen(1)
pathlib.Path(sys.argv[2]).touch()
for mode in itertools.cycle((0o700, 0o755)):
    for number, folder in enumerate(folders):
        os.chmod(folder, mode)
        if number % 10 == 9: time.sleep(0.001)
";
    let script = format!(
        "setpriv --pdeathsig KILL --reuid nobody --regid nogroup --clear-groups -- /usr/bin/python3 -c \"$FLICKER\" '{folder}' '{ready}' >/dev/null 2>&1 &
        for i in $(seq 600); do [ ! -e '{ready}' ] || break; sleep 0.1; done"
    );
    for kind in Kind::ALL {
        for _ in 0..4 {
            let mut run = alone.tool(kind, "phantom-run");
            let mut started = with_mounts(&script, run.args(["--", "echo", "runs"]));
            let output = started.env("FLICKER", flicker).output()?;
            let told = String::from_utf8_lossy(&output.stderr);
            ensure!(stdout(&output)? == "runs\n" && told.contains("in a namespace of its own"), "{kind:?}: {told}");
            fs::remove_file(&ready)?;
            fs::read_dir(&folder)?.flatten().try_for_each(|entry| fs::remove_dir_all(entry.path()))?;
        }
    }
    Ok(())
}

/// What is written to a made-up keyboard is typed into other windows; what is written to a macvtap's device leaves by its network card.
#[test]
fn devices_that_act_outside_are_masked() -> Result<()> {
    let alone = Alone::shared()?;
    let place = alone.folder.make("dev")?;
    let script = format!(
        "mount -t tmpfs -o mode=755 none '{place}'; cd '{place}'
        cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty .; mkdir net pts shm input; mount --bind /dev/pts pts
        mknod -m 666 net/tun c 10 200; mknod -m 666 uinput c 10 223; mknod -m 666 uhid c 10 239; mknod -m 666 vhost-vsock c 10 241
        mknod -m 666 input/uinput c 10 223; mknod -m 666 input/js0 c 13 0; mknod -m 666 nvme-fabrics c 10 120
        mknod -m 666 userio c 10 240; mknod -m 666 vhci c 10 137; mknod -m 666 kmsg c 1 11; mknod -m 666 vport1p2 c 509 2
        mkdir infiniband etherd; mknod -m 666 infiniband/uverbs0 c 231 192; mknod -m 666 infiniband/rdma_cm c 10 119; mknod -m 666 etherd/discover c 152 3
        mknod -m 666 tap7 c 511 7; mknod -m 666 vhost-vdpa-0 c 510 0; mknod -m 666 tape c 511 8; ln -s /proc/self/fd fd; mount --move . /dev; cd /"
    );
    let masked = "uinput input/uinput uhid vhost-vsock nvme-fabrics tap7 vhost-vdpa-0 userio vhci kmsg vport1p2 infiniband/uverbs0 \
                  infiniband/rdma_cm etherd/discover";
    let look = format!("cd /dev; stat -c '%n %t:%T' {masked} tape input/js0");
    let names = masked.split_whitespace();
    let expected = names.map(|name| format!("{name} 1:3\n")).collect::<String>() + "tape 1ff:8\ninput/js0 d:0\n";
    alone.everywhere(|kind, way| {
        let said = stdout(&with_mounts(&script, &alone.run(kind, way, &["sh", "-c", &look])).output()?)?;
        ensure!(said == expected, "{said}");
        Ok(())
    })
}

/// Whoever runs a daemon may read its keys, and who runs as the same user does what a program of a run must not.
#[test]
fn what_daemons_keep_is_neither_read_nor_changed() -> Result<()> {
    let alone = Alone::shared()?;
    alone.everywhere(|kind, way| {
        let home = alone.folder.make(&format!("keeps-{kind:?}-{way:?}"))?;
        // One in use, wherever its folder and its socket lie, and one at the usual place that does not run.
        let data = alone.socket(kind).with_file_name("data").display().to_string();
        let (state, settings) = (format!("{home}/.local/state/phantom"), format!("{home}/.config/phantom"));
        for folder in [&state, &settings] {
            fs::create_dir_all(folder)?;
            fs::write(format!("{folder}/node.key"), "secret")?;
            fs::set_permissions(format!("{folder}/node.key"), PermissionsExt::from_mode(0o666))?;
        }
        let tries = "for folder; do cat \"$folder\"/node.key; ls -A \"$folder\"; { echo x >\"$folder\"/node.key; } && echo changed; done 2>/dev/null; :";
        let words = ["sh", "-c", tries, "sh", &data, &state, &settings];
        let mut outside = alone.command(kind, words[0]);
        let seen = stdout(&outside.args(["-c", "cat \"$@\"", "sh", &format!("{state}/node.key")]).output()?)?;
        ensure!(seen == "secret", "nothing was there to be seen: {seen}");
        let said = stdout(&alone.run(kind, way, &words).env("HOME", &home).output()?)?;
        ensure!(said.is_empty(), "seen: {said}");
        ensure!(fs::read(format!("{state}/node.key"))? == b"secret", "changed");
        Ok(())
    })
}
