//! Computers as they are: full folders, missing files, names and numbers of the computer, variables that point outside.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use phantom_tests::alone::{SELF, confined, unable, with_mounts};
use phantom_tests::programs::prepare;
use phantom_tests::{Alone, Kind, Way, binary, eventually, stdout};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder for temporary files without room, or with a name that is too long for a socket.
#[test]
fn folders_for_temporary_files_do_not_matter() -> Result<()> {
    let alone = Alone::shared()?;
    alone.everywhere(|kind, way| {
        let mut full =
            "mount -t tmpfs -o size=16k tmpfs /mnt; dd if=/dev/zero of=/mnt/fill bs=1k count=100 2>/dev/null || true"
                .to_owned();
        // Not /tmp, where the programs of this test lie.
        full.extend(["/dev/shm", "/var/tmp"].map(|at| format!("; mount --bind /mnt {at}")));
        let mut run = alone.run(kind, way, &["sh", "-c", "echo runs; ls -A $TMPDIR"]);
        run.env("TMPDIR", "/mnt");
        let output = with_mounts(&full, &run).output()?;
        ensure!(stdout(&output)? == "runs\nfill\n", "full: {output:?}");
        let long = alone.folder.at(&"long".repeat(40));
        fs::create_dir_all(&long)?;
        fs::set_permissions(&long, fs::Permissions::from_mode(0o777))?;
        let output = alone.run(kind, way, &["echo", "runs"]).env("TMPDIR", &long).output()?;
        ensure!(stdout(&output)? == "runs\n", "long: {output:?}");
        Ok(())
    })
}

/// Whoever uses something up must not decide how well others' programs are kept in.
#[test]
fn what_passes_is_no_reason_for_a_weaker_way() -> Result<()> {
    let alone = Alone::shared()?;
    for kind in [Kind::Root, Kind::OfRoots] {
        // So many descriptors that it is enough to be heard by the daemon, and not for all that follows.
        let mut refused = 0;
        for most in 5..16 {
            let mut run = alone.tool(kind, "phantom-run");
            run.args(["--explain", "echo", "runs"]);
            let mut limited = Command::new("prlimit");
            limited.arg(format!("--nofile={most}")).arg(run.get_program()).args(run.get_args());
            let said = stderr(&limited.output()?);
            ensure!(!said.contains("inject") && !said.contains("preload"), "{most} for {kind:?}: {said}");
            refused += u32::from(said.contains("not by namespace") && said.contains("Too many open files"));
        }
        ensure!(refused > 0, "no number of descriptors was too small for {kind:?}");
    }
    Ok(())
}

/// A resolver must be there: whether a name exists is another question.
#[test]
fn names_work_without_resolv_conf() -> Result<()> {
    let alone = Alone::shared()?;
    let ask = "
import socket, sys
try: socket.getaddrinfo('nobody.phantom', 80)
except socket.gaierror as error: print(error.errno == socket.EAI_NONAME)
";
    for how in ["true", "ln -sf ../run/nobody/resolv.conf resolv.conf", ": > resolv.conf", "ln -sf hosts resolv.conf"] {
        alone.everywhere(|kind, way| {
            let script = format!(
                "mount -t tmpfs tmpfs /mnt; cp -a /etc /mnt/etc; cd /mnt/etc; rm -f resolv.conf; {how}; mount --bind /mnt/etc /etc; cd /"
            );
            let output = with_mounts(&script, &alone.run(kind, way, &["python3", "-c", ask])).output()?;
            ensure!(stdout(&output)? == "True\n", "{how}: {output:?}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn the_computers_name_and_numbers_are_not_to_be_seen() -> Result<()> {
    let alone = Alone::shared()?;
    let script = "uname -n; hostname; cat /etc/hostname /etc/machine-id /var/lib/dbus/machine-id; echo $HOSTNAME $SSH_CONNECTION $SSH_CLIENT;
        echo $HOST $STY $XAUTHLOCALHOSTNAME $SESSION_MANAGER;
        cat /proc/sys/kernel/hostname";
    let name = prepare(Command::new("uname").arg("-n"))?;
    let files = ["/etc/machine-id", "/proc/sys/kernel/random/boot_id"];
    let numbers = files.map(|file| fs::read_to_string(file).unwrap_or_default().trim().to_owned());
    // The machine itself may have a name that says nothing.
    let real = "laptop.corp-inside.net";
    ensure!(name.trim() != real);
    alone.everywhere(|kind, way| {
        for (option, shown) in [(None, false), (Some("--show-host"), true)] {
            let mut run = alone.tool(kind, "phantom-run");
            run.args(["-q", "--isolation", way.flag()]).args(option).args(["sh", "-c", script]).env("HOSTNAME", real);
            let mut named = Command::new("unshare");
            named.args(["-u", "sh", "-c", &format!("hostname {real}; exec \"$@\""), "sh"]);
            named.arg(run.get_program()).args(run.get_args()).env("HOSTNAME", real);
            // Also without the domain, and among other words.
            named.env("HOST", "laptop").env("STY", "12.pts-0.laptop").env("XAUTHLOCALHOSTNAME", real);
            named.env("SESSION_MANAGER", "local/laptop:@/tmp/.ICE-unix/1,unix/laptop:/tmp/.ICE-unix/1");
            named.env("SSH_CONNECTION", "192.0.2.7 51000 198.51.100.9 22").env("SSH_CLIENT", "192.0.2.7 51000 22");
            let output = named.output()?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            ensure!(
                ["192.0.2.7", "198.51.100.9"].iter().all(|at| said.contains(at) == shown),
                "{option:?}: {output:?}"
            );
            ensure!(said.contains(real) == shown && said.contains("laptop") == shown, "{option:?}: {output:?}");
            ensure!(said.contains("localhost") != shown, "{option:?}: {output:?}");
            ensure!(numbers[0].is_empty() || said.contains(&numbers[0]) == shown, "{option:?}: {output:?}");
        }
        if kind == Kind::Root {
            let output = alone.run(kind, way, &["cat", files[1]]).output()?;
            ensure!(!stdout(&output)?.contains(&numbers[1]), "boot_id");
        }
        Ok(())
    })
}

/// A group of processes, removed with the value.
struct Group(PathBuf);

impl Group {
    /// Below the first hierarchy that is mounted here.
    fn make(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let of = |kind: &str| mounts.lines().find(|line| line.contains(kind))?.split(' ').nth(4);
        let root = of(" - cgroup2 ").or_else(|| of(" - cgroup ")).context("no groups of processes here")?;
        let group = Self(Path::new(root).join(format!("{name}-{}", std::process::id())));
        fs::create_dir(&group.0)?;
        Ok(group)
    }

    fn name(&self) -> String {
        self.0.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The command, in this group.
    fn holds(&self, command: &Command) -> Command {
        let mut inside = Command::new("sh");
        inside.args(["-c", "echo $$ >\"$0/cgroup.procs\" && exec \"$@\""]).arg(&self.0);
        inside.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // As long as a process of a run is about to end there, it stays.
        let _ = eventually(|| Ok(fs::remove_dir(&self.0)?));
    }
}

/// Names of groups are those of containers, users and services.
#[test]
fn names_of_groups_of_processes_are_not_to_be_seen() -> Result<()> {
    let alone = Alone::shared()?;
    let group = Group::make("laptop-corp-inside")?;
    let root = group.0.parent().context("no root")?.to_owned();
    // Who looks finds its own process in the root that it sees.
    let script = format!(
        "cat /proc/self/cgroup /proc/self/mountinfo; ls {}; cat /proc/self/cgroup | grep -q '/laptop' || \
         while read pid; do [ $pid = $$ ] && echo found; done <{}/cgroup.procs",
        root.display(),
        root.display()
    );
    alone.everywhere(|kind, way| {
        for (option, shown) in [(None, false), (Some("--show-host"), true)] {
            let mut run = alone.tool(kind, "phantom-run");
            run.args(["-q", "--isolation", way.flag()]).args(option).args(["sh", "-c", &script]);
            let said = stdout(&group.holds(&run).output()?)?;
            ensure!(said.contains(&group.name()) == shown, "{option:?}: {said}");
            ensure!(said.contains("found\n") != shown, "{option:?}: {said}");
        }
        Ok(())
    })
}

/// What programs ask of the computer's network: samba's numbers of interfaces, and its own name.
#[test]
fn interfaces_and_the_own_name_are_those_inside() -> Result<()> {
    let alone = Alone::shared()?;
    let ask = "
import os, socket
print(socket.if_nameindex(), socket.if_nametoindex('phantom0'), socket.if_indextoname(1))
for question in (lambda: socket.if_nametoindex('eth7'), lambda: socket.if_indextoname(99)):
    try: print(question())
    except OSError: print('none')
print(socket.gethostbyname(socket.gethostname()).startswith('127.'), socket.getfqdn())
print([line.strip() for line in open('/etc/resolv.conf') if line.startswith(('search', 'domain'))], os.environ['LOCALDOMAIN'])
";
    let expected = "[(1, 'lo'), (2, 'phantom0')] 2 lo\nnone\nnone\nTrue localhost\n['search invalid'] invalid\n";
    alone.everywhere(|kind, way| {
        let run = alone.run(kind, way, &["python3", "-c", ask]);
        let mut named = Command::new("unshare");
        named.env("LOCALDOMAIN", "corp-inside.net");
        named.args(["-u", "sh", "-c", "hostname laptop.corp-inside.net; exec \"$@\"", "sh"]);
        let said = stdout(&named.arg(run.get_program()).args(run.get_args()).output()?)?;
        ensure!(said == expected, "{said}");
        Ok(())
    })
}

/// A key for a display is found by the computer's name.
#[test]
fn displays_stay_within_reach() -> Result<()> {
    let alone = Alone::shared()?;
    let key = |family: u16, address: &str| {
        let words = [address, "0", "MIT-MAGIC-COOKIE-1", "secret"];
        let words = words.map(|word| [&(word.len() as u16).to_be_bytes()[..], word.as_bytes()].concat());
        [family.to_be_bytes().to_vec(), words.concat()].concat()
    };
    let script = "import os, sys; sys.stdout.write(open(os.environ['XAUTHORITY'], 'rb').read().hex())";
    alone.everywhere(|kind, way| {
        let file = alone.folder.write(&format!("keys-{kind:?}-{way:?}"), key(256, "laptop"))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
        let mut run = alone.run(kind, way, &["python3", "-c", script]);
        let hex = stdout(&run.env("XAUTHORITY", &file).env("DISPLAY", ":0").output()?)?;
        let expected: String = key(0xffff, "").iter().map(|byte| format!("{byte:02x}")).collect();
        ensure!(hex == expected, "{hex}");
        Ok(())
    })
}

#[test]
fn variables_that_point_outside_are_said() -> Result<()> {
    let alone = Alone::shared()?;
    let run = |kind, way: Way, more: &[&str]| -> Result<String> {
        let mut run = alone.tool(kind, "phantom-run");
        run.args(["--isolation", way.flag()]).args(more).arg("true");
        run.env("http_proxy", "http://127.0.0.1:3128").env("ALL_PROXY", "socks5h://proxy.corp:1080");
        Ok(stderr(&run.output()?))
    };
    alone.everywhere(|kind, way| {
        let said = run(kind, way, &[])?;
        ensure!(said.contains("env -u http_proxy") && said.contains("proxy.corp is outside"), "{said}");
        ensure!(said.contains("--allow-local 3128") == (way != Way::Emulate), "{said}");
        ensure!(!run(kind, way, &["--quiet"])?.contains("proxy"));
        Ok(())
    })?;
    let said = run(Kind::Root, Way::Inject, &["--allow-local", "3128"])?;
    ensure!(!said.contains("http_proxy") && said.contains("ALL_PROXY"), "{said}");
    Ok(())
}

/// What a service manager says to its child is true for the program.
#[test]
fn service_managers_are_understood() -> Result<()> {
    let alone = Alone::shared()?;
    let program = "
import os, socket, stat
try: activated = stat.S_ISSOCK(os.fstat(3).st_mode)
except OSError: activated = False
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ['NOTIFY_SOCKET'])
s.send(b'READY=1')
print(os.environ['WATCHDOG_PID'] == str(os.getpid()), os.environ.get('LISTEN_FDS'),
      os.environ.get('LISTEN_PID') in (None, str(os.getpid())), activated)
if activated and (s := socket.socket(fileno=3)).family != socket.AF_UNIX:
    own = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    own.connect(('fd70::1', 1))
    for host in ('::1', own.getsockname()[0]):
        try: print(socket.create_connection((host, s.getsockname()[1])) and s.accept()[0] and 'reached')
        except OSError: print('not reached')
";
    let to_lo = "setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo')";
    let listener = format!("socket.create_server(('::', 0), family=socket.AF_INET6); s.{to_lo}");
    let gone = "True None True False\n";
    // Where others would see that somebody listens, nothing is made of it; nor is anything emulated.
    let sockets = [
        ("socket.socketpair()[0]", "True 1 True True\n", "True 1 True True\n"),
        ("socket.create_server(('0.0.0.0', 0))", gone, gone),
        ("socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", gone, gone),
        ("socket.create_server(('::1', 0), family=socket.AF_INET6)", "True 1 True True\nreached\nnot reached\n", gone),
        (&listener, "True 1 True True\nreached\nreached\n", gone),
    ];
    alone.everywhere(|kind, way| {
        for (number, (socket, expected, emulated)) in sockets.iter().enumerate() {
            let expected = if way == Way::Emulate { emulated } else { expected };
            let path = alone.folder.at(&format!("notify-{number}-{kind:?}-{way:?}"));
            let manager = UnixDatagram::bind(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
            manager.set_read_timeout(Some(phantom_tests::PATIENCE))?;
            // As systemd does it: numbers of itself, which the launcher becomes.
            let start = format!(
                "import os, socket, sys; s = {socket}; os.dup2(os.dup(s.fileno()), 3)
for name in ('LISTEN_PID', 'WATCHDOG_PID'): os.environ[name] = str(os.getpid())
os.environ['LISTEN_FDS'] = '1'
os.execv(sys.argv[1], sys.argv[1:])"
            );
            let run = alone.run(kind, way, &["/usr/bin/python3", "-c", program]);
            let mut command = alone.command(kind, "/usr/bin/python3");
            // Only the launcher itself is to have the number.
            let become_it = run.get_args().position(|word| word == "--").filter(|_| kind != Kind::Root);
            let words: Vec<_> = std::iter::once(run.get_program()).chain(run.get_args()).collect();
            let words = become_it.map_or(&words[..], |at| &words[at + 2..]);
            let output = command.args(["-c", &start]).args(words).env("NOTIFY_SOCKET", &path).output()?;
            ensure!(stdout(&output)? == *expected, "{output:?}");
            ensure!(stderr(&output).contains("LISTEN_FDS is not set") == (*expected == gone), "{output:?}");
            let mut said = [0; 64];
            let length = manager.recv(&mut said)?;
            ensure!(&said[..length] == b"READY=1");
        }
        Ok(())
    })
}

#[test]
fn closed_standard_descriptors_stay_closed() -> Result<()> {
    let alone = Alone::shared()?;
    alone.everywhere(|kind, way| {
        let run = alone.run(kind, way, &["cat"]);
        let mut sh = Command::new("sh");
        let output = sh.args(["-c", "exec \"$@\" <&-", "sh"]).arg(run.get_program()).args(run.get_args()).output()?;
        ensure!(output.status.code() == Some(1) && stderr(&output).contains("Bad file descriptor"), "{output:?}");
        Ok(())
    })
}

#[test]
fn the_command_line_says_what_is_true_inside() -> Result<()> {
    let alone = Alone::shared()?;
    alone.everywhere(|kind, way| {
        let phantom = alone.tool(kind, "phantom");
        let words: Vec<&str> =
            std::iter::once(phantom.get_program()).chain(phantom.get_args()).filter_map(|word| word.to_str()).collect();
        let from = words.iter().position(|word| word.ends_with("/phantom")).context("phantom")?;
        let output = alone.run(kind, way, &[&words[from..], &["status"]].concat()).output()?;
        let said = stderr(&output);
        ensure!(said.contains("under phantom-run") && !said.contains("start one"), "{output:?}");
        Ok(())
    })
}

/// Sandboxes that programs build for their parts: flatpak, WebKitGTK, GNOME's loaders of images.
#[test]
fn sandboxes_inside() -> Result<()> {
    let alone = Alone::shared()?;
    let sandbox = [
        "--unshare-all",
        "--share-net",
        "--die-with-parent",
        "--ro-bind",
        "/",
        "/",
        "--dev",
        "/dev",
        "--proc",
        "/proc",
    ];
    alone.everywhere(|kind, way| {
        let output = alone.run(kind, way, &[&["bwrap"][..], &sandbox, &["echo", "works"]].concat()).output()?;
        // Root's files in /proc would be root's to write: they are covered, and so no other /proc may be mounted.
        let expected = if kind == Kind::Root { "" } else { "works\n" };
        ensure!(String::from_utf8_lossy(&output.stdout) == expected, "{output:?}");
        Ok(())
    })
}

/// `--explain` says why, also when a way that can be had is found.
#[test]
fn explain_says_why_there_is_no_phantom_namespace() -> Result<()> {
    let alone = Alone::without_tun()?;
    let output = alone.tool(Kind::Own, "phantom-run").args(["--explain", "true"]).output()?;
    let said = stderr(&output);
    ensure!(output.status.success() && said.contains("not by namespace, inject or preload"), "{said}");
    ensure!(said.contains("/dev/net/tun"), "{said}");
    Ok(())
}

#[test]
fn where_no_namespaces_may_be_made() -> Result<()> {
    let alone = Alone::shared()?;
    let script = "cat <&3 2>/dev/null || echo closed; hostname >/dev/null && echo named; getent hosts nobody.phantom || echo none";
    for way in [Way::Inject, Way::Preload, Way::Emulate] {
        let mut run = alone.tool(Kind::Root, "phantom-run");
        run.args(["--isolation", way.flag(), "sh", "-c", script]);
        let output = unable(&run).env("http_proxy", "http://127.0.0.1:3128").output()?;
        ensure!(stdout(&output)? == "closed\nnamed\nnone\n", "{way:?}: {output:?}");
        let said = stderr(&output);
        ensure!(said.contains("among your other programs") && said.contains("env -u http_proxy"), "{way:?}: {said}");
    }
    // One kind that only hides the computer's name, which decides nothing about the way.
    let no_name = "echo 0 >/proc/sys/user/max_uts_namespaces; exec \"$@\"";
    let mut run = alone.tool(Kind::Root, "phantom-run");
    run.args(["--isolation", "inject", "--explain", "uname", "-n"]);
    let mut confined = Command::new("unshare");
    confined.args(["--user", "--map-root-user", "sh", "-c", no_name, "sh"]).arg(run.get_program()).args(run.get_args());
    let output = confined.output()?;
    let said = stderr(&output);
    ensure!(said.contains("stays visible") && !said.contains("among your other programs"), "{said}");
    ensure!(stdout(&output)? == prepare(Command::new("uname").arg("-n"))?);
    // The first needs them, and says that it is the machine which permits none.
    let mut run = alone.tool(Kind::Root, "phantom-run");
    run.args(["--isolation", "namespace", "true"]);
    let output = unable(&run).output()?;
    ensure!(output.status.code() == Some(125) && stderr(&output).contains("namespace"), "{output:?}");
    Ok(())
}

/// Containers as engines make them when they are told to drop all: root, who may nothing.
#[test]
fn in_a_container_without_capabilities() -> Result<()> {
    let alone = Alone::shared()?;
    let run = |kind, way: Option<&str>| -> Result<Output> {
        let mut run = alone.tool(kind, "phantom-run");
        run.arg("--explain").args(way.map(|way| ["--isolation", way]).into_iter().flatten());
        Ok(alone.confined(kind, run.args(["--", "python3", "-c", SELF])).output()?)
    };
    // Nobody may map root into a namespace without CAP_SETFCAP: it gets what needs none, and hears why.
    let output = run(Kind::Root, Some("namespace"))?;
    ensure!(output.status.code() == Some(125) && stderr(&output).contains("phantom namespace failed"), "{output:?}");
    for way in [None, Some("inject"), Some("preload"), Some("emulate")] {
        let output = run(Kind::Root, way)?;
        let said = stderr(&output);
        ensure!(stdout(&output)? == "True\nself\n", "{way:?}: {output:?}");
        ensure!(said.contains("CAP_SETFCAP") && said.contains("among your other programs"), "{way:?}: {said}");
    }
    // Ordinary users never had any.
    for kind in [Kind::OfRoots, Kind::Own] {
        for way in Way::ALL {
            let output = run(kind, Some(way.flag()))?;
            ensure!(stdout(&output)? == "True\nself\n", "{kind:?} by {way:?}: {output:?}");
            ensure!(!stderr(&output).contains("among your other programs"), "{kind:?} by {way:?}: {output:?}");
        }
    }
    Ok(())
}

#[test]
fn a_daemon_in_a_container_without_capabilities_emulates_and_says_why() -> Result<()> {
    let alone = Alone::without_capabilities()?;
    let run = |more: &[&str]| -> Result<Output> {
        let mut run = alone.tool(Kind::Root, "phantom-run");
        Ok(confined(run.args(more).args(["--", "python3", "-c", SELF])).output()?)
    };
    let output = run(&["--explain"])?;
    let said = stderr(&output);
    ensure!(stdout(&output)? == "True\nself\n" && said.contains("with emulated sockets"), "{output:?}");
    ensure!(said.contains("not by namespace, inject or preload") && said.contains("--cap-add"), "{said}");
    // Whoever asks for nothing hears it as well: programs are kept in less.
    let said = stderr(&run(&[])?);
    ensure!(said.matches("not by namespace, inject, preload").count() == 1 && said.contains("--cap-add"), "{said}");
    ensure!(stderr(&run(&["--quiet"])?).is_empty());
    for way in Way::KERNEL {
        let output = run(&["--isolation", way.flag()])?;
        ensure!(output.status.code() == Some(125) && stderr(&output).contains("--cap-add"), "{way:?}: {output:?}");
    }
    Ok(())
}

/// Only who makes the phantom namespace must be able to open the device: root's daemon does it for its users.
#[test]
fn for_users_who_may_not_open_the_tun_device() -> Result<()> {
    let closed = "mount -t tmpfs none /dev/net && mknod -m 600 /dev/net/tun c 10 200";
    let alone = Alone::shared()?;
    for way in Way::ALL {
        let output = with_mounts(closed, &alone.run(Kind::OfRoots, way, &["python3", "-c", SELF])).output()?;
        ensure!(stdout(&output)? == "True\nself\n", "{way:?}: {output:?}");
    }
    let alone = Alone::without_tun()?;
    let mut run = alone.tool(Kind::Own, "phantom-run");
    let output = run.args(["--", "python3", "-c", SELF]).output()?;
    ensure!(stdout(&output)? == "True\nself\n" && stderr(&output).contains("with emulated sockets"), "{output:?}");
    for way in Way::KERNEL {
        let output = alone.run(Kind::Own, way, &["true"]).output()?;
        ensure!(output.status.code() == Some(125) && stderr(&output).contains("/dev/net/tun"), "{way:?}: {output:?}");
    }
    Ok(())
}

/// The loader splits names at spaces and colons, and would look for the rest in the working folder.
#[test]
fn a_library_whose_path_the_loader_would_split_is_refused_and_a_link_helps() -> Result<()> {
    let alone = Alone::shared()?;
    for name in ["my programs", "a:b"] {
        let folder = alone.folder.make(name)?;
        for file in ["phantom-run", "libphantom.so"] {
            // By another process: a file that a child of some other test still has open for writing cannot be executed.
            prepare(Command::new("cp").arg(binary(file)).arg(&folder))?;
        }
        let link = alone.folder.at(&format!("library-{}", name.len()));
        std::os::unix::fs::symlink(format!("{folder}/libphantom.so"), &link)?;
        for kind in Kind::ALL {
            for way in ["preload", "emulate"] {
                let run = |library: Option<&str>| {
                    let mut run = alone.command(kind, &format!("{folder}/phantom-run"));
                    run.arg("--daemon").arg(alone.socket(kind)).args(["-q", "--isolation", way, "python3", "-c", SELF]);
                    run.envs(library.map(|library| ("PHANTOM_LIBRARY", library))).output()
                };
                let output = run(None)?;
                let why = stderr(&output);
                ensure!(output.status.code() == Some(125) && why.contains("PHANTOM_LIBRARY"), "{kind:?}, {way}: {why}");
                ensure!(stdout(&run(Some(&link))?)? == "True\nself\n", "{kind:?} by {way}");
            }
        }
    }
    Ok(())
}
