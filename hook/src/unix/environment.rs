//! The environment of programs that are started: the library and the identity stay in it, even where it was cleared.
//!
//! Complete environments, the usual ones, are passed on as they are. Nothing here allocates unless an incomplete one is
//! very large, because the child of a vfork calls it.

use std::ffi::{CStr, CString};

use libc::c_char;
use phantom_ipc::{ENV_EMULATE, ENV_IDENTITY, ENV_PATHLESS_SOCKET, ENV_PUBLISH, ENV_SESSION, ENV_SOCKET};

use super::own::{Kept, own};

const ENV_PRELOAD: &str = "LD_PRELOAD";

/// Entries that are put together on the stack. Environments are rarely half as long.
const SHORT: usize = 256;

/// Bytes of the new LD_PRELOAD: a path and what was there before.
const LONGEST_PRELOAD: usize = 4096;

/// Entries that may be added, and the final NULL.
const ADDED: usize = 7;

type Entries = *const *const c_char;

/// What an environment has of what it should have.
#[derive(Default)]
struct Present {
    entries: usize,
    library: bool,
    socket: bool,
    identity: bool,
    /// Also so when there is nothing to keep.
    emulate: bool,
    pathless: bool,
    publish: bool,
}

impl Present {
    fn all(&self) -> bool {
        self.library && self.socket && self.identity && self.emulate && self.pathless && self.publish
    }
}

/// Runs `start` with the environment `envp`, completed. E2BIG when that cannot be.
///
/// # Safety
/// `envp` is NULL or a NULL-terminated array of C strings.
pub(super) unsafe fn completed<T>(envp: Entries, start: impl FnOnce(Entries) -> T) -> Result<T, i32> {
    let kept = &own().kept;
    // SAFETY: as the caller says.
    let present = unsafe { inspect(envp, kept) };
    if present.all() {
        return Ok(start(envp));
    }
    let mut preload = [0; LONGEST_PRELOAD];
    if present.entries + ADDED <= SHORT {
        // SAFETY: as the caller says, and the array is long enough.
        unsafe { complete(envp, kept, &present, &mut preload, &mut [std::ptr::null(); SHORT], start) }
    } else {
        let mut entries = vec![std::ptr::null(); present.entries + ADDED];
        // SAFETY: as above.
        unsafe { complete(envp, kept, &present, &mut preload, &mut entries, start) }
    }
}

/// Completes the environment of this process itself, for functions of libc that start programs with it.
pub(super) fn complete_own() {
    let kept = &own().kept;
    // SAFETY: `environ` is libc's, an array as required.
    let present = unsafe { inspect(current(), kept) };
    if !present.library {
        let before = std::env::var_os(ENV_PRELOAD).unwrap_or_default();
        let before = std::os::unix::ffi::OsStrExt::as_bytes(before.as_os_str());
        set(&preload(before, kept).flatten().copied().collect::<Vec<u8>>());
    }
    if !present.socket {
        set(kept.socket.as_bytes());
    }
    if !present.identity {
        set(kept.identity.as_bytes());
    }
    let emulate = kept.emulate.as_ref().filter(|_| !present.emulate);
    let pathless = kept.pathless.as_ref().filter(|_| !present.pathless);
    let publish = kept.publish.as_ref().filter(|_| !present.publish);
    emulate.into_iter().chain(pathless).chain(publish).for_each(|setting| set(setting.as_bytes()));
}

/// The environment of this process.
pub(super) fn current() -> Entries {
    unsafe extern "C" {
        static environ: Entries;
    }
    // SAFETY: libc's variable; programs that change it while others start programs have lost without us too.
    unsafe { environ }
}

fn set(entry: &[u8]) {
    let Some(at) = entry.iter().position(|byte| *byte == b'=') else { return };
    let (Ok(name), Ok(value)) = (CString::new(&entry[..at]), CString::new(&entry[at + 1..])) else { return };
    // SAFETY: C strings, which setenv copies. Programs that read the environment meanwhile: as with any setenv.
    unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) };
}

/// The entries of an environment.
///
/// # Safety
/// As [`completed`].
unsafe fn entries<'a>(envp: Entries) -> impl Iterator<Item = &'a CStr> {
    let mut at = envp;
    std::iter::from_fn(move || {
        // SAFETY: the array goes on until its NULL, which ends the iteration.
        let entry = if at.is_null() { at.cast() } else { unsafe { *at } };
        if entry.is_null() {
            at = std::ptr::null();
            return None;
        }
        // SAFETY: before the NULL there is another entry or the NULL behind each entry.
        at = unsafe { at.add(1) };
        // SAFETY: entries are C strings.
        Some(unsafe { CStr::from_ptr(entry) })
    })
}

/// The value in an entry of that name.
fn value<'a>(entry: &'a CStr, name: &str) -> Option<&'a [u8]> {
    entry.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// # Safety
/// As [`completed`].
unsafe fn inspect(envp: Entries, kept: &Kept) -> Present {
    let (emulate, pathless, publish) = (kept.emulate.is_none(), kept.pathless.is_none(), kept.publish.is_none());
    let mut present = Present { emulate, pathless, publish, ..Present::default() };
    // SAFETY: as the caller says.
    for entry in unsafe { entries(envp) } {
        let set = |name| value(entry, name).is_some_and(|value| !value.is_empty());
        present.entries += 1;
        present.library |= value(entry, ENV_PRELOAD).is_some_and(|value| names_library(value, &kept.library));
        present.socket |= set(ENV_SOCKET);
        present.identity |= set(ENV_IDENTITY) || set(ENV_SESSION);
        present.emulate |= set(ENV_EMULATE);
        present.pathless |= set(ENV_PATHLESS_SOCKET);
        present.publish |= set(ENV_PUBLISH);
    }
    present
}

/// Whether a value of LD_PRELOAD names the library by its absolute path: another might not be found from elsewhere.
fn names_library(value: &[u8], library: &[u8]) -> bool {
    value.split(is_separator).any(|path| path == library)
}

/// # Safety
/// As [`completed`]; `to` has room for [`ADDED`] more than the environment's entries.
unsafe fn complete<T>(
    envp: Entries,
    kept: &Kept,
    present: &Present,
    preload: &mut [u8; LONGEST_PRELOAD],
    to: &mut [*const c_char],
    start: impl FnOnce(Entries) -> T,
) -> Result<T, i32> {
    let mut before: &[u8] = &[];
    let mut length = 0;
    // SAFETY: as the caller says.
    for entry in unsafe { entries(envp) } {
        if let Some(value) = value(entry, ENV_PRELOAD).filter(|_| !present.library) {
            before = value;
            continue;
        }
        // Empty settings count as none and would hide those that are added.
        let empty = |name| value(entry, name).is_some_and(<[u8]>::is_empty);
        if [ENV_SOCKET, ENV_IDENTITY, ENV_SESSION, ENV_EMULATE, ENV_PATHLESS_SOCKET, ENV_PUBLISH].into_iter().any(empty)
        {
            continue;
        }
        to[length] = entry.as_ptr();
        length += 1;
    }
    let preload = if present.library { None } else { Some(preloading(preload, before, kept)?) };
    let socket = (!present.socket).then_some(kept.socket.as_c_str());
    let identity = (!present.identity).then_some(kept.identity.as_c_str());
    let emulate = kept.emulate.as_deref().filter(|_| !present.emulate);
    let pathless = kept.pathless.as_deref().filter(|_| !present.pathless);
    let publish = kept.publish.as_deref().filter(|_| !present.publish);
    for entry in [preload, socket, identity, emulate, pathless, publish].into_iter().flatten() {
        to[length] = entry.as_ptr();
        length += 1;
    }
    to[length] = std::ptr::null();
    Ok(start(to.as_ptr()))
}

/// Pieces of the entry that preloads the library, and what was preloaded before, except this library by another path.
fn preload<'a>(before: &'a [u8], kept: &'a Kept) -> impl Iterator<Item = &'a [u8]> {
    let others = before.split(is_separator).filter(|path| !path.is_empty() && *path != kept.spelled);
    let first: [&[u8]; 3] = [ENV_PRELOAD.as_bytes(), b"=", &kept.library];
    first.into_iter().chain(others.flat_map(|path| [b":", path]))
}

fn is_separator(byte: &u8) -> bool {
    matches!(byte, b':' | b' ')
}

/// That entry as a C string.
fn preloading<'a>(buffer: &'a mut [u8; LONGEST_PRELOAD], before: &[u8], kept: &Kept) -> Result<&'a CStr, i32> {
    let mut length = 0;
    for piece in preload(before, kept).chain([&b"\0"[..]]) {
        buffer.get_mut(length..length + piece.len()).ok_or(libc::E2BIG)?.copy_from_slice(piece);
        length += piece.len();
    }
    CStr::from_bytes_until_nul(buffer).map_err(|_| libc::E2BIG)
}
