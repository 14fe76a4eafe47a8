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
//! looking at the environment; who owns the socket passes bytes and descriptors.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub mod admin;
pub mod hook;
pub mod name;

/// Version of both dialects. Raised with every change of either.
pub const VERSION: u8 = 3;

/// Environment: path of the daemon's socket.
pub const ENV_SOCKET: &str = "PHANTOM_SOCKET";

/// Environment: name of the identity to run as.
pub const ENV_IDENTITY: &str = "PHANTOM_IDENTITY";

/// Environment: token of the run, 32 hexadecimal digits; its processes share one fresh identity.
pub const ENV_SESSION: &str = "PHANTOM_SESSION";

/// Environment: set, sockets are emulated even where the daemon has a phantom namespace.
pub const ENV_EMULATE: &str = "PHANTOM_EMULATE";

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

/// Where the daemon of user `uid` listens: at `explicit` ([`ENV_SOCKET`]) when that is set; root's at
/// [`SYSTEM_SOCKET`]; anyone else's at [`USER_SOCKET`] in `runtime` (`XDG_RUNTIME_DIR`) or, failing that, `/run/user/UID`.
///
/// Empty variables count as unset. Root's XDG_RUNTIME_DIR is ignored: a service has none, a root shell may have one,
/// and both must find the same daemon.
pub fn socket_path(explicit: Option<OsString>, runtime: Option<OsString>, uid: u32) -> PathBuf {
    let set = |value: Option<OsString>| value.filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = set(explicit) {
        return path;
    }
    if uid == 0 {
        return PathBuf::from(SYSTEM_SOCKET);
    }
    set(runtime).unwrap_or_else(|| PathBuf::from(format!("/run/user/{uid}"))).join(USER_SOCKET)
}

/// [`socket_path`] for this process; the system's daemon where the user runs none of their own.
#[cfg(unix)]
pub fn default_socket() -> PathBuf {
    use std::os::unix::fs::MetadataExt;
    // The owner of /proc/self is the effective user; without /proc, be an ordinary user.
    let uid = std::fs::metadata("/proc/self").map_or(u32::MAX, |own| own.uid());
    let own = socket_path(std::env::var_os(ENV_SOCKET), std::env::var_os("XDG_RUNTIME_DIR"), uid);
    let said = std::env::var_os(ENV_SOCKET).is_some_and(|said| !said.is_empty());
    let system = PathBuf::from(SYSTEM_SOCKET);
    if !said && !own.exists() && system.exists() { system } else { own }
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

    fn path(explicit: &str, runtime: &str, uid: u32) -> String {
        let given = |text: &str| Some(OsString::from(text));
        socket_path(given(explicit), given(runtime), uid).display().to_string()
    }

    #[test]
    fn the_socket_is_where_the_environment_says() {
        assert_eq!(path("/tmp/own.sock", "/run/user/7", 7), "/tmp/own.sock");
        assert_eq!(path("", "/run/user/7", 7), "/run/user/7/phantom/daemon.sock");
        assert_eq!(path("", "", 7), "/run/user/7/phantom/daemon.sock");
        assert_eq!(path("", "", 0), SYSTEM_SOCKET);
        assert_eq!(path("", "/run/user/0", 0), SYSTEM_SOCKET);
    }

    #[test]
    fn the_first_byte_tells_the_dialect() {
        assert_eq!(Dialect::of(b'P'), Some(Dialect::Hook));
        assert_eq!(Dialect::of(b'{'), Some(Dialect::Admin));
        assert_eq!(Dialect::of(b'G'), None);
    }
}
