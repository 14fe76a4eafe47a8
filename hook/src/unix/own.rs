//! Who this program is: fixed when the library is loaded, and handed to every program that it starts.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf, absolute};
use std::sync::OnceLock;

use phantom_ipc::hook::{CallFrame, IdentityRef, Request, SocketFrame, format_session, parse_session};
use phantom_ipc::publish::Publish;
use phantom_ipc::reach::{is_the_operators, operators_socket};
use phantom_ipc::{
    ENV_EMULATE, ENV_IDENTITY, ENV_PATHLESS_SOCKET, ENV_PUBLISH, ENV_SESSION, ENV_SOCKET, can_be_preloaded,
    default_socket,
};
use rustix::net::SocketAddrUnix;
use rustix::rand::{GetRandomFlags, getrandom};

use super::complaint;

/// What is fixed.
pub(super) struct Own {
    /// As whom; none when the environment names nobody that can be: then nothing works.
    pub(super) identity: Option<IdentityRef>,
    /// The request for sockets, ready to send.
    pub(super) frame: Option<SocketFrame>,
    /// The request for a line to keep, ready to send.
    pub(super) line: Option<Vec<u8>>,
    /// The request for calls on emulated sockets, ready to be completed.
    pub(super) calls: Option<CallFrame>,
    /// The requests that make the program reachable as it wants to be, ready to send; none when it says so in no known way.
    pub(super) publish: Option<Vec<Vec<u8>>>,
    /// Whether sockets are to be emulated, whatever the daemon could do.
    pub(super) emulate: bool,
    /// Where the daemon listens; none when that is no path for a socket.
    pub(super) socket: Option<SocketAddrUnix>,
    /// Where it may listen, too, for its own user and root alone.
    pub(super) operators: Option<Operators>,
    /// Where it listens too, if the launcher has seen to that: needs no path.
    pub(super) pathless: Option<SocketAddrUnix>,
    /// What was standard error then: device and number of the file; none when it must not be written to.
    pub(super) stderr: Option<(u64, u64)>,
    /// What the programs started get to know.
    pub(super) kept: Kept,
}

/// The way to the daemon by which other users keep nobody waiting: see [`phantom_ipc::reach`].
pub(super) struct Operators {
    /// Its address.
    pub(super) at: SocketAddrUnix,
    /// The same as a path, and that for all users.
    paths: [PathBuf; 2],
}

impl Operators {
    fn beside(socket: &Path) -> Option<Self> {
        let own = operators_socket(socket);
        Some(Self { at: SocketAddrUnix::new(&own).ok()?, paths: [own, socket.to_owned()] })
    }

    /// Whether it is the daemon's. Allocates nothing: paths of sockets are short.
    pub(super) fn is_the_daemons(&self) -> bool {
        let [own, socket] = &self.paths;
        is_the_operators(own, socket)
    }
}

/// Settings that programs keep, each as the environment has it.
pub(super) struct Kept {
    /// Absolute path of this library.
    pub(super) library: Vec<u8>,
    /// The path by which it was loaded, which may be found from one directory only.
    pub(super) spelled: Vec<u8>,
    /// `PHANTOM_SOCKET=…`
    pub(super) socket: CString,
    /// `PHANTOM_IDENTITY=…` or `PHANTOM_SESSION=…`
    pub(super) identity: CString,
    /// `PHANTOM_EMULATE=…`, if it is set.
    pub(super) emulate: Option<CString>,
    /// `PHANTOM_PATHLESS_SOCKET=…`, if it is set.
    pub(super) pathless: Option<CString>,
    /// `PHANTOM_PUBLISH=…`, if it is set.
    pub(super) publish: Option<CString>,
}

/// Who this program is. After the first call, which allocates, it does no more than look.
pub(super) fn own() -> &'static Own {
    static OWN: OnceLock<Own> = OnceLock::new();
    OWN.get_or_init(Own::find)
}

impl Own {
    fn find() -> Self {
        let path = default_socket();
        let path = absolute(&path).unwrap_or(path);
        let (identity, setting) = identity();
        let frame = identity.as_ref().and_then(|identity| SocketFrame::new(identity).ok());
        let calls = identity.as_ref().and_then(|identity| CallFrame::new(identity).ok());
        let identity = identity.filter(|_| frame.is_some());
        let (emulate, pathless, published) =
            (variable(ENV_EMULATE), variable(ENV_PATHLESS_SOCKET), variable(ENV_PUBLISH));
        let line = |identity: &IdentityRef| {
            Request::Line { identity: identity.clone(), emulated: emulate.is_some() }.encode().ok()
        };
        let line = identity.as_ref().and_then(line);
        let publish = publish(published.as_deref().unwrap_or_default(), identity.as_ref());
        let spelled = library();
        let library = speakable(&spelled);
        let kept = Kept {
            library: library.into_os_string().into_vec(),
            spelled: spelled.into_os_string().into_vec(),
            socket: entry(ENV_SOCKET, path.as_os_str()),
            identity: setting,
            emulate: emulate.as_ref().map(|value| entry(ENV_EMULATE, value)),
            pathless: pathless.as_ref().map(|value| entry(ENV_PATHLESS_SOCKET, value)),
            publish: published.as_ref().map(|value| entry(ENV_PUBLISH, value)),
        };
        let (socket, operators) = (SocketAddrUnix::new(&path).ok(), Operators::beside(&path));
        let stderr = complaint::place();
        let pathless = pathless.and_then(|name| SocketAddrUnix::new_abstract_name(name.as_bytes()).ok());
        let emulate = emulate.is_some();
        Self { identity, frame, line, calls, publish, emulate, socket, operators, pathless, stderr, kept }
    }
}

/// The requests for what a value of the variable says; none when it cannot be understood.
fn publish(said: &OsStr, identity: Option<&IdentityRef>) -> Option<Vec<Vec<u8>>> {
    let said: Vec<Publish> = said.to_str()?.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let request = |ports, at: &Option<String>| {
        Request::Publish { identity: identity?.clone(), ports, at: at.clone(), stays: true }.encode().ok()
    };
    said.iter().flat_map(|Publish { ports, at }| ports.iter().map(move |ports| request(*ports, at))).collect()
}

/// A variable of the environment that is set and not empty.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The identity, and the setting that tells it. Without one, a new session begins and the environment says so.
fn identity() -> (Option<IdentityRef>, CString) {
    if let Some(name) = variable(ENV_IDENTITY) {
        let setting = entry(ENV_IDENTITY, &name);
        return (name.into_string().ok().map(IdentityRef::Named), setting);
    }
    if let Some(token) = variable(ENV_SESSION) {
        let setting = entry(ENV_SESSION, &token);
        return (token.to_str().and_then(parse_session).map(IdentityRef::Session), setting);
    }
    let mut token = [0; 16];
    let Ok(16) = getrandom(&mut token, GetRandomFlags::empty()) else { return (None, CString::default()) };
    let text = format_session(&token);
    // SAFETY: this runs while libraries are loaded, before the program has threads that could read the environment.
    unsafe { std::env::set_var(ENV_SESSION, &text) };
    (Some(IdentityRef::Session(token)), entry(ENV_SESSION, OsStr::new(&text)))
}

fn entry(name: &str, value: &OsStr) -> CString {
    // Values come from C strings: there is no zero in them.
    CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).unwrap_or_default()
}

/// A whole path by which the loader finds the library from everywhere. Where the real one would be split at a space or a
/// colon, it was loaded by another.
fn speakable(spelled: &Path) -> PathBuf {
    let real = spelled.canonicalize().ok().filter(|real| can_be_preloaded(real));
    real.or_else(|| absolute(spelled).ok()).unwrap_or_else(|| spelled.to_owned())
}

/// The path by which this library was loaded.
fn library() -> PathBuf {
    // SAFETY: all zeros, that is NULL pointers, is a value of this type.
    let mut about: libc::Dl_info = unsafe { std::mem::zeroed() };
    let inside: *const libc::c_void = (library as fn() -> PathBuf as *const ()).cast();
    // SAFETY: `about` can be written; dladdr accepts any address.
    let found = unsafe { libc::dladdr(inside, &raw mut about) };
    if found == 0 || about.dli_fname.is_null() {
        return PathBuf::new();
    }
    // SAFETY: dladdr gave a C string that lives as long as the library.
    let name = unsafe { CStr::from_ptr(about.dli_fname) };
    Path::new(OsStr::from_bytes(name.to_bytes())).to_owned()
}
