//! Supervisors, service managers, small truths and services outside, where a computer can do less: no user namespaces, no
//! capabilities, no /dev/net/tun. Rows 4, 16, 25 and 26 of docs/computers.md.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::alone::{unable, with_mounts};
use phantom_tests::programs::Folder;
use phantom_tests::{Alone, Kind, PATIENCE, Way, eventually, signal, stdout};

/// As a service manager starts a service: numbers of itself, which the launcher becomes, and something in the third place.
/// Standard input is closed.
const MANAGER: &str = "
import os, socket, sys
pair = socket.socketpair()
os.dup2(os.dup(pair[0].fileno()), 3); os.close(0)
os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()), WATCHDOG_PID=str(os.getpid()))
os.execvp(sys.argv[1], sys.argv[1:])
";

/// Says what it finds of that, and whether somebody who acts for others is within reach.
const SERVICE: &str = "
import os, socket, stat, subprocess, sys
try: os.fstat(0); print('standard input is open')
except OSError: pass
deputy, *phantom = sys.argv[1:]
print(*(os.environ[name] == str(os.getpid()) for name in ('WATCHDOG_PID', 'LISTEN_PID')), stat.S_ISSOCK(os.fstat(3).st_mode))
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.connect(os.environ['NOTIFY_SOCKET']); manager.send(b'READY=1')
status = subprocess.run([*phantom, 'status'], stdin=subprocess.DEVNULL, capture_output=True, text=True)
answered = status.returncode == 0 and 'node id' in status.stdout or 'only root may ask this' in status.stderr
print('answered' if answered else 'refused' if 'under phantom-run' in status.stderr and 'start one' not in status.stderr else status)
try: socket.socket(socket.AF_UNIX).connect(deputy); print('within reach')
except OSError: print('out of reach')
";

/// A place where less can be done: what is started there, and whether others' sockets can be masked.
struct Place<'a> {
    alone: &'a Alone,
    within: &'a dyn Fn(Kind, &Command) -> Command,
    masks: bool,
}

impl Place<'_> {
    fn shows(&self, kind: Kind, way: Way) -> Result<()> {
        let shown = self.service(kind, way).and_then(|()| self.signals(kind, way));
        shown.with_context(|| format!("{kind:?} by {way:?}"))
    }

    /// Rows 16, 25 and 26.
    fn service(&self, kind: Kind, way: Way) -> Result<()> {
        let folder = Folder::new()?;
        let (notify, deputy) = (folder.at("notify"), folder.at("deputy"));
        let (manager, _deputy) = (UnixDatagram::bind(&notify)?, UnixListener::bind(&deputy)?);
        for socket in [&notify, &deputy] {
            fs::set_permissions(socket, fs::Permissions::from_mode(0o777))?;
        }
        manager.set_read_timeout(Some(PATIENCE))?;
        let phantom = self.alone.tool(kind, "phantom");
        let words = std::iter::once(phantom.get_program()).chain(phantom.get_args()).filter_map(|word| word.to_str());
        let phantom: Vec<&str> = words.skip_while(|word| !word.ends_with("/phantom")).collect();
        let mut run = self.alone.tool(kind, "phantom-run");
        run.args(["--isolation", way.flag(), "--", "python3", "-c", SERVICE, &deputy]).args(phantom);
        let run = (self.within)(kind, &run);
        let mut command = Command::new("python3");
        command.args(["-c", MANAGER]).arg(run.get_program()).args(run.get_args()).env("NOTIFY_SOCKET", &notify);
        let output = command.output()?;
        // Who reaches a daemon hears the truth from it; who does not, where they are.
        let said = stdout(&output)?;
        let expected = |status, reach| format!("True True True\n{status}\n{reach}\n");
        let is_right = match self.masks {
            true => said == expected("refused", "out of reach"),
            false => ["answered", "refused"].iter().any(|status| said == expected(status, "within reach")),
        };
        ensure!(is_right, "{output:?}");
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(self.masks != told.contains("among your other programs"), "what can be reached is told: {told}");
        let mut ready = [0; 16];
        let length = manager.recv(&mut ready)?;
        ensure!(&ready[..length] == b"READY=1");
        Ok(())
    }

    /// Row 4.
    fn signals(&self, kind: Kind, way: Way) -> Result<()> {
        for number in [libc::SIGKILL, libc::SIGTERM] {
            let run = self.alone.run(kind, way, &["sh", "-c", "echo $$; exec sleep 1000"]);
            let mut launcher = (self.within)(kind, &run).stdout(Stdio::piped()).spawn()?;
            let mut says = BufReader::new(launcher.stdout.take().context("no pipe")?);
            let mut program = String::new();
            says.read_line(&mut program)?;
            signal(launcher.id().try_into()?, number);
            // The end of the pipe: nobody is left who could write.
            says.read_to_string(&mut String::new())?;
            ensure!(launcher.wait()?.signal() == Some(number), "it ends otherwise than by {number}");
            let stat = format!("/proc/{}/stat", program.trim());
            eventually(|| {
                let stat = fs::read_to_string(&stat).unwrap_or_default();
                ensure!(stat.is_empty() || stat.contains(") Z") || stat.contains(") X"), "still there: {stat}");
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// Those that need no namespaces.
const WITHOUT: [Way; 3] = [Way::Inject, Way::Preload, Way::Emulate];

#[test]
fn without_user_namespaces() -> Result<()> {
    let alone = Alone::shared()?;
    let place = Place { alone: &alone, within: &|_, run| unable(run), masks: false };
    Kind::ALL
        .into_iter()
        .flat_map(|kind| WITHOUT.map(|way| (kind, way)))
        .try_for_each(|(kind, way)| place.shows(kind, way))
}

#[test]
fn in_a_container_without_capabilities() -> Result<()> {
    let alone = Alone::shared()?;
    let within = |kind, run: &Command| alone.confined(kind, run);
    let place = |masks| Place { alone: &alone, within: &within, masks };
    WITHOUT.into_iter().try_for_each(|way| place(false).shows(Kind::Root, way))?;
    let users = [Kind::OfRoots, Kind::Own].into_iter().flat_map(|kind| Way::ALL.map(|way| (kind, way)));
    users.into_iter().try_for_each(|(kind, way)| place(true).shows(kind, way))
}

#[test]
fn without_the_tun_device() -> Result<()> {
    let closed = "mount -t tmpfs none /dev/net && mknod -m 600 /dev/net/tun c 10 200";
    let alone = Alone::without_tun()?;
    let place = Place { alone: &alone, within: &|_, run| with_mounts(closed, run), masks: true };
    place.shows(Kind::Own, Way::Emulate)?;
    let alone = Alone::shared()?;
    let place = Place { alone: &alone, within: &|_, run| with_mounts(closed, run), masks: true };
    Way::ALL.into_iter().try_for_each(|way| place.shows(Kind::OfRoots, way))
}

/// The computer's folders below one that is no mount, unless it is made one: what `debootstrap` and `chroot` make.
const PLAIN_CHROOT: &str = "mount -t tmpfs tmpfs PLACE && mkdir PLACE/bare && BEFORE && for one in /*; do
    if [ -h \"$one\" ]; then cp -a \"$one\" PLACE/bare/
    elif [ -d \"$one\" ]; then mkdir \"PLACE/bare$one\" && mount --rbind \"$one\" \"PLACE/bare$one\" || exit 99; fi
done";

#[test]
fn a_plain_chroot_is_said_with_what_gives_it_all_ways() -> Result<()> {
    let alone = Alone::shared()?;
    let place = alone.folder.make("chroot")?;
    let run = alone.run(Kind::Root, Way::Namespace, &["true"]);
    let mut within = Command::new("chroot");
    within.arg(format!("{place}/bare")).arg(run.get_program()).args(run.get_args());
    for (before, works) in [("true", false), ("mount --bind PLACE/bare PLACE/bare", true)] {
        let script = PLAIN_CHROOT.replace("BEFORE", before).replace("PLACE", &place);
        let output = with_mounts(&script, &within).stdin(Stdio::null()).output()?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(if works { 0 } else { 125 }), "{before}: {}: {said}", output.status);
        ensure!(
            works || said.contains("the root folder is no mount here, as in a plain chroot (`mount --bind"),
            "{said}"
        );
    }
    Ok(())
}
