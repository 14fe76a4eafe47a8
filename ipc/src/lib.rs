//! What hook, launcher, command line and daemon say to each other over one local stream socket.
//!
//! The first byte that a client sends tells the dialect, so one socket serves both:
//!
//! | first byte | dialect | spoken by |
//! |---|---|---|
//! | `P` ([`hook::PREAMBLE`]) | [`hook`]: binary frames, descriptors beside them | libphantom.so, phantom-run |
//! | `{` | [`admin`]: one JSON object per line | the command line, scripts |
//!
//! Both ends ship together: a version mismatch is refused, not negotiated. Nothing here does input or output beyond
//! looking at the environment and at which files are there, but [`pipe`], which opens one, and [`reach`], which connects; who owns the socket
//! passes bytes and descriptors.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub mod absent;
pub mod admin;
pub mod errno;
pub mod hook;
pub mod inside;
pub mod name;
pub mod pipe;
pub mod publish;
#[cfg(unix)]
pub mod reach;
pub mod release;
pub mod text;

/// Version of both dialects. Raised with every change of either.
pub const VERSION: u8 = 5;

/// Environment: path of the daemon's socket.
pub const ENV_SOCKET: &str = "PHANTOM_SOCKET";

/// Environment: name of the identity to run as.
pub const ENV_IDENTITY: &str = "PHANTOM_IDENTITY";

/// Environment: token of the run, 32 hexadecimal digits; its processes share one fresh identity.
pub const ENV_SESSION: &str = "PHANTOM_SESSION";

/// Environment: set, sockets are emulated even where the daemon has a phantom namespace.
pub const ENV_EMULATE: &str = "PHANTOM_EMULATE";

/// Environment: what others are to reach of the program, see [`publish`]; several sayings with spaces between them.
pub const ENV_PUBLISH: &str = "PHANTOM_PUBLISH";

/// Environment: name of an abstract socket by which the library reaches the daemon too, where no path leads to it.
pub const ENV_PATHLESS_SOCKET: &str = "PHANTOM_PATHLESS_SOCKET";

/// Path of the system's daemon: that of root.
pub const SYSTEM_SOCKET: &str = "/run/phantom/daemon.sock";

/// Path of a user's own daemon, below the directory for the user's run-time files.
pub const USER_SOCKET: &str = "phantom/daemon.sock";

/// A dialect of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Binary frames, see [`hook`].
    Hook,
    /// JSON lines, see [`admin`].
    Admin,
}

impl Dialect {
    /// The dialect that a connection speaks whose first byte is `first`; `None` when it speaks neither.
    pub fn of(first: u8) -> Option<Self> {
        match first {
            b'{' => Some(Self::Admin),
            first if first == hook::PREAMBLE[0] => Some(Self::Hook),
            _ => None,
        }
    }
}

/// Where a user's own daemon may listen, first choice first, and the folder that must be the user's for it; none where the
/// daemon makes it.
///
/// Root's is at [`SYSTEM_SOCKET`] alone: a service has no XDG_RUNTIME_DIR, a root shell may have one, and both must find the
/// same daemon. Anyone else's is at [`USER_SOCKET`] in XDG_RUNTIME_DIR or `/run/user/UID`. Who did not log in (su, cron,
/// containers) has neither, or somebody else's in the environment: then it lies beside the daemon's data, where nobody else
/// can put one. Empty variables count as unset, relative ones too.
fn places(var: impl Fn(&str) -> Option<OsString>, uid: u32) -> Vec<(Option<PathBuf>, PathBuf)> {
    if uid == 0 {
        return vec![(None, PathBuf::from(SYSTEM_SOCKET))];
    }
    let folder = |name: &str| var(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let runtime = folder("XDG_RUNTIME_DIR").into_iter().chain([PathBuf::from(format!("/run/user/{uid}"))]);
    let state = folder("XDG_STATE_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/state")));
    let runtime = runtime.map(|folder| (Some(folder.clone()), folder.join(USER_SOCKET)));
    runtime.chain(state.map(|folder| (None, folder.join(USER_SOCKET)))).collect()
}

/// Where the daemon of user `uid` offers its socket; `is_own` says whether a folder is there and that user's.
pub fn own_socket(var: impl Fn(&str) -> Option<OsString>, uid: u32, is_own: impl Fn(&Path) -> bool) -> PathBuf {
    let places = places(var, uid);
    let usable = places.iter().find(|(folder, _)| folder.as_deref().is_none_or(&is_own)).or_else(|| places.last());
    usable.map_or_else(PathBuf::new, |(_, socket)| socket.clone())
}

/// Where to look for a daemon: at [`ENV_SOCKET`] when that is set; else at the first place of the user's own that `exists`,
/// else at the system's daemon; if there is none, where the user's would be.
#[cfg(any(unix, test))]
fn socket_to_ask(
    var: impl Fn(&str) -> Option<OsString>,
    uid: u32,
    is_own: impl Fn(&Path) -> bool,
    exists: impl Fn(&Path) -> bool,
) -> PathBuf {
    if let Some(said) = var(ENV_SOCKET).filter(|said| !said.is_empty()) {
        return said.into();
    }
    let own = places(&var, uid).into_iter().map(|(_, socket)| socket);
    let there = own.chain([PathBuf::from(SYSTEM_SOCKET)]).find(|socket| exists(socket));
    there.unwrap_or_else(|| own_socket(&var, uid, is_own))
}

/// Whether there is a folder of that name, and it is the user's.
#[cfg(unix)]
pub fn is_folder_of(uid: u32) -> impl Fn(&Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    move |path| std::fs::metadata(path).is_ok_and(|about| about.is_dir() && about.uid() == uid)
}

/// The owner of /proc/self is the effective user; without /proc, be an ordinary user.
#[cfg(unix)]
fn own_user() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").map_or(u32::MAX, |own| own.uid())
}

/// The socket of the daemon that this process is to ask.
#[cfg(unix)]
pub fn default_socket() -> PathBuf {
    let uid = own_user();
    socket_to_ask(|name| std::env::var_os(name), uid, is_folder_of(uid), Path::exists)
}

/// The file that leads to the daemon which this process is to ask, see [`pipe`].
#[cfg(windows)]
pub fn default_socket() -> PathBuf {
    let said = std::env::var_os(ENV_SOCKET).filter(|said| !said.is_empty());
    said.map_or_else(|| own_file(|name| std::env::var_os(name)), PathBuf::from)
}

/// Where a user's own daemon on Windows puts that file; `var` looks a variable up.
#[cfg(windows)]
pub fn own_file(var: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    PathBuf::from(var("LOCALAPPDATA").unwrap_or_default()).join(USER_SOCKET)
}

/// Whether a path can stand in LD_PRELOAD as it is. The loader divides that at spaces and colons, and puts something else
/// in the place of words that begin with a dollar sign; nothing quotes them.
pub fn can_be_preloaded(path: &Path) -> bool {
    !path.as_os_str().as_encoded_bytes().iter().any(|byte| matches!(byte, b' ' | b':' | b'$'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_the_loader_would_divide_are_known() {
        for (path, can) in
            [("/lib/libphantom.so", true), ("/a b/l.so", false), ("/a:b/l.so", false), ("/$LIB/l.so", false)]
        {
            assert_eq!(can_be_preloaded(Path::new(path)), can, "{path}");
        }
    }

    /// An environment in which a variable is set to the text, or empty.
    fn set<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |asked| Some(variables.iter().find(|(name, _)| *name == asked)?.1.into())
    }

    #[test]
    fn the_socket_is_offered_where_a_folder_is_the_users() {
        let session = [("XDG_RUNTIME_DIR", "/run/user/7"), ("HOME", "/home/a"), (ENV_SOCKET, "/tmp/other.sock")];
        let offered = |variables: &[(&str, &str)], uid, own: &[&str]| {
            let socket = own_socket(set(variables), uid, |folder| own.iter().any(|own| folder == Path::new(own)));
            socket.display().to_string()
        };
        assert_eq!(offered(&session, 7, &["/run/user/7"]), "/run/user/7/phantom/daemon.sock");
        assert_eq!(offered(&[("XDG_RUNTIME_DIR", "")], 7, &["/run/user/7"]), "/run/user/7/phantom/daemon.sock");
        assert_eq!(
            offered(&session, 8, &["/run/user/8"]),
            "/run/user/8/phantom/daemon.sock",
            "as by su from another's"
        );
        assert_eq!(offered(&session, 7, &[]), "/home/a/.local/state/phantom/daemon.sock");
        let state = [("XDG_RUNTIME_DIR", "relative"), ("XDG_STATE_HOME", "/s"), ("HOME", "/home/a")];
        assert_eq!(offered(&state, 7, &["relative"]), "/s/phantom/daemon.sock");
        assert_eq!(offered(&[], 7, &[]), "/run/user/7/phantom/daemon.sock");
        assert_eq!(offered(&session, 0, &["/run/user/7"]), SYSTEM_SOCKET);
    }

    #[test]
    fn the_daemon_is_looked_for_where_it_may_be() {
        let session = [("XDG_RUNTIME_DIR", "/run/user/7"), ("HOME", "/home/a")];
        let asked = |variables: &[(&str, &str)], uid, there: &[&str]| {
            let exists = |socket: &Path| there.iter().any(|there| socket == Path::new(there));
            socket_to_ask(set(variables), uid, |_| true, exists).display().to_string()
        };
        let (own, home) = ("/run/user/7/phantom/daemon.sock", "/home/a/.local/state/phantom/daemon.sock");
        assert_eq!(asked(&session, 7, &[own, home, SYSTEM_SOCKET]), own);
        assert_eq!(asked(&session, 7, &[home, SYSTEM_SOCKET]), home, "it was started before the user logged in");
        assert_eq!(asked(&session, 7, &[SYSTEM_SOCKET]), SYSTEM_SOCKET);
        assert_eq!(asked(&session, 7, &[]), own);
        assert_eq!(asked(&session, 0, &[own, home]), SYSTEM_SOCKET);
        assert_eq!(asked(&[(ENV_SOCKET, "/tmp/own.sock")], 7, &[own]), "/tmp/own.sock");
        assert_eq!(asked(&[(ENV_SOCKET, "")], 7, &[own]), own);
    }

    #[test]
    fn the_first_byte_tells_the_dialect() {
        assert_eq!(Dialect::of(b'P'), Some(Dialect::Hook));
        assert_eq!(Dialect::of(b'{'), Some(Dialect::Admin));
        assert_eq!(Dialect::of(b'G'), None);
    }
}
