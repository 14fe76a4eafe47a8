//! What is said where no daemon can be asked: the same sentence by each program, and what starts the daemon that is installed here.

#[cfg(any(unix, test))]
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::inside;

/// The unit of the computer's daemon, where packages and `install` put it.
#[cfg(any(unix, test))]
const SERVICE: [&str; 3] = [
    "/etc/systemd/system/phantomd.service",
    "/usr/lib/systemd/system/phantomd.service",
    "/lib/systemd/system/phantomd.service",
];

/// The same of one user's own, for all users.
#[cfg(any(unix, test))]
const OWN: [&str; 2] = ["/usr/lib/systemd/user/phantomd.service", "/usr/local/share/systemd/user/phantomd.service"];

/// And of a user who installed it alone, below the folder of their data.
#[cfg(any(unix, test))]
const OWN_ALONE: &str = "systemd/user/phantomd.service";

/// Said where systemd runs.
#[cfg(any(unix, test))]
const MANAGER: &str = "/run/systemd/system";

/// Why no daemon can be asked. Each says what to do, in a line of its own.
#[derive(Debug, thiserror::Error)]
pub enum Absence {
    /// Nobody listens.
    #[error("no daemon answers at {0}\n  {1}")]
    Nobody(PathBuf, String),
    /// Kept in.
    #[error(
        "under phantom-run no daemon can be asked: a program must not learn what else this computer's daemon does, and as whom\n  \
         ask in a terminal outside of it"
    )]
    Inside,
    /// Whoever listens is not for this user.
    #[error(
        "the daemon at {0} is not this user's to ask\n  whoever runs it may ask it (from root: `sudo -u USER phantom …`); one of your own: \
         `phantom setup --own` says how"
    )]
    NotYours(PathBuf),
}

impl Absence {
    /// Why a connection to the socket failed, where phantom-run has or has not laid something over it. `None`: it is none of these.
    pub fn of(error: &io::Error, socket: &Path, is_masked: bool) -> Option<Self> {
        let is_absent = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused);
        let is_refused = error.kind() == ErrorKind::PermissionDenied;
        if is_absent && is_masked || (is_absent || is_refused) && inside::is_here() {
            return Some(Self::Inside);
        }
        if is_refused {
            return Some(Self::NotYours(socket.to_owned()));
        }
        is_absent.then(|| Self::Nobody(socket.to_owned(), Installed::here().advice(socket)))
    }
}

/// How Phantom is installed here, for the user who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Installed {
    is_root: bool,
    /// The unit of the computer's daemon, where that is a service.
    unit: Option<&'static str>,
    /// A user's own can be one.
    is_own_service: bool,
    /// systemd runs.
    is_managed: bool,
    /// This user has set up a daemon of their own.
    is_set_up: bool,
    /// Where daemons are looked for that nobody names.
    usual: Vec<PathBuf>,
}

impl Installed {
    /// As this process finds it.
    #[cfg(unix)]
    pub fn here() -> Self {
        let uid = crate::own_user();
        Self::look(|name| std::env::var_os(name), uid, Path::exists)
    }

    /// As this process finds it.
    #[cfg(windows)]
    pub fn here() -> Self {
        Self { usual: vec![crate::own_file(|name| std::env::var_os(name))], ..Self::default() }
    }

    #[cfg(any(unix, test))]
    fn look(var: impl Fn(&str) -> Option<OsString>, uid: u32, exists: impl Fn(&Path) -> bool) -> Self {
        let folder = |name: &str, below: &str| {
            let said = |name: &str| var(name).map(PathBuf::from).filter(|path| path.is_absolute());
            said(name).or_else(|| Some(said("HOME")?.join(below)))
        };
        let is_any = |paths: &[&str]| paths.iter().any(|path| exists(Path::new(path)));
        let is_below = |folder: Option<PathBuf>, name: &str| folder.is_some_and(|folder| exists(&folder.join(name)));
        let places = crate::places(&var, uid).into_iter().map(|(_, socket)| socket);
        Self {
            is_root: uid == 0,
            unit: SERVICE.into_iter().find(|path| exists(Path::new(path))),
            is_own_service: is_any(&OWN) || is_below(folder("XDG_DATA_HOME", ".local/share"), OWN_ALONE),
            is_managed: is_any(&[MANAGER]),
            is_set_up: is_below(folder("XDG_CONFIG_HOME", ".config"), "phantom/phantomd.toml"),
            usual: places.chain([PathBuf::from(crate::SYSTEM_SOCKET)]).collect(),
        }
    }

    /// What says how the computer's daemon is started, where another service manager than systemd is to do it.
    pub fn unit(&self) -> Option<&'static str> {
        self.unit
    }

    /// Whether systemd runs.
    pub fn is_managed(&self) -> bool {
        self.is_managed
    }

    /// Whether it starts a daemon of this user's own.
    pub fn manages_own(&self) -> bool {
        self.is_managed && self.is_own_service
    }

    /// Whether it is the computer's daemon that is to serve this user, running or not.
    pub fn is_served_by_all(&self) -> bool {
        self.unit.is_some() && (self.is_root || !self.is_set_up)
    }

    /// What helps where nobody answers at that socket.
    fn advice(&self, socket: &Path) -> String {
        if !self.usual.iter().any(|usual| usual == socket) {
            return "that socket was named by --daemon or PHANTOM_SOCKET: start its `phantomd`, or name the right one; without a \
                    name the usual places are looked at"
                .to_owned();
        }
        let own = if self.manages_own() { "systemctl --user start phantomd" } else { "phantomd" };
        let service = match (self.is_managed, self.is_root) {
            (true, true) => {
                "`systemctl start phantomd` (`systemctl status phantomd` says why it does not run)".to_owned()
            }
            (true, false) => "`sudo systemctl start phantomd`".to_owned(),
            (false, _) => {
                let unit = self.unit.unwrap_or("its unit");
                format!("in the way of its service manager, as root ({unit} says with which command)")
            }
        };
        let start = match (self.unit.is_some(), self.is_root, self.is_set_up) {
            (true, true, _) => format!("start the computer's: {service}; the first time: `phantom setup`"),
            (true, false, true) => format!("start your own: `{own}`, or the computer's: {service}"),
            (true, false, false) => {
                format!(
                    "start the computer's, which serves every user: {service}; one of your own: `phantom setup --own`"
                )
            }
            (false, _, true) => format!("start it: `{own}`"),
            (false, ..) => format!("start one: `{own}`; the first time: `phantom setup`"),
        };
        format!("{start}; or name another's socket: --daemon SOCKET or PHANTOM_SOCKET")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN_SOCKET: &str = "/run/user/7/phantom/daemon.sock";
    const CONFIG: &str = "/home/a/.config/phantom/phantomd.toml";

    fn said(uid: u32, there: &[&str], socket: &str) -> String {
        let var = |name: &str| (name == "HOME").then(|| "/home/a".into());
        let exists = |path: &Path| there.iter().any(|there| path == Path::new(there));
        Installed::look(var, uid, exists).advice(Path::new(socket))
    }

    #[test]
    fn what_is_installed_decides_what_starts_a_daemon() {
        let (unit, own, alone) = (SERVICE[1], OWN[0], "/home/a/.local/share/systemd/user/phantomd.service");
        let system = crate::SYSTEM_SOCKET;
        for (uid, there, socket, says, says_not) in [
            (0, &[unit, MANAGER][..], system, "`systemctl start phantomd`", "--own"),
            (
                0,
                &[unit],
                system,
                "service manager, as root (/usr/lib/systemd/system/phantomd.service says",
                "systemctl",
            ),
            (0, &[SERVICE[0]], system, "(/etc/systemd/system/phantomd.service says", "/usr/lib"),
            (0, &[], system, "`phantomd`; the first time: `phantom setup`", "systemctl"),
            (7, &[unit, MANAGER, own], OWN_SOCKET, "`sudo systemctl start phantomd`", "--user"),
            (7, &[unit, MANAGER, own, CONFIG], OWN_SOCKET, "own: `systemctl --user start phantomd`", "setup"),
            (7, &[MANAGER, alone, CONFIG], OWN_SOCKET, "start it: `systemctl --user", "sudo"),
            (7, &[own, CONFIG], OWN_SOCKET, "start it: `phantomd`", "systemctl"),
            (7, &[], OWN_SOCKET, "`phantomd`; the first time: `phantom setup`", "systemctl"),
            (7, &[unit, MANAGER], "/tmp/net/daemon.sock", "was named by --daemon", "systemctl"),
        ] {
            let said = said(uid, there, socket);
            assert!(said.contains(says) && !said.contains(says_not), "{uid} {there:?}: {said}");
        }
    }

    #[test]
    fn what_else_goes_wrong_is_no_absence() {
        let of = |kind: ErrorKind| Absence::of(&kind.into(), Path::new("/x"), false).map(|why| why.to_string());
        assert!(of(ErrorKind::ConnectionRefused).is_some_and(|why| why.starts_with("no daemon answers at /x\n  ")));
        assert!(
            of(ErrorKind::PermissionDenied)
                .is_some_and(|why| why.contains("not this user's") && why.contains("sudo -u USER"))
        );
        assert_eq!(of(ErrorKind::TimedOut), None);
        assert!(matches!(Absence::of(&ErrorKind::NotFound.into(), Path::new("/x"), true), Some(Absence::Inside)));
    }
}
