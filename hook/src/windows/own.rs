//! Who this program is, as its environment says when the library comes: fixed then, and handed to every program that it starts.

use std::os::windows::ffi::OsStrExt;
use std::path::{Path, PathBuf, absolute};
use std::sync::OnceLock;

use phantom_ipc::hook::{IdentityRef, parse_session};
use phantom_ipc::{ENV_IDENTITY, ENV_SESSION, ENV_SOCKET, default_socket};

struct Own {
    /// As whom; none when the environment names nobody that can be: then nothing works.
    identity: Option<IdentityRef>,
    /// The file that leads to the daemon.
    socket: PathBuf,
    /// Variables by which others are the same.
    settings: Vec<(&'static str, Vec<u16>)>,
}

fn own() -> &'static Own {
    static OWN: OnceLock<Own> = OnceLock::new();
    OWN.get_or_init(find)
}

/// Looks, the first time.
pub(super) fn look() {
    own();
}

pub(super) fn identity() -> Option<&'static IdentityRef> {
    own().identity.as_ref()
}

pub(super) fn socket() -> &'static Path {
    &own().socket
}

pub(super) fn settings() -> &'static [(&'static str, Vec<u16>)] {
    &own().settings
}

fn find() -> Own {
    let set = |name| std::env::var(name).ok().filter(|set| !set.is_empty());
    let (session, name) = (set(ENV_SESSION), set(ENV_IDENTITY));
    let identity = match &session {
        Some(session) => parse_session(session).map(IdentityRef::Session),
        None => name.clone().map(IdentityRef::Named),
    };
    // Programs change their folder.
    let socket = absolute(default_socket()).unwrap_or_else(|_| default_socket());
    // Of phantom-run itself there is nothing to hand on: it says what its program is.
    let who = session.map(|session| (ENV_SESSION, session)).or_else(|| Some((ENV_IDENTITY, name?)));
    let settings = who.map_or_else(Vec::new, |(name, value)| {
        vec![(name, value.encode_utf16().collect()), (ENV_SOCKET, socket.as_os_str().encode_wide().collect())]
    });
    Own { identity, socket, settings }
}
