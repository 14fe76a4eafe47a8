//! The preload way: libphantom.so hands the program sockets of the phantom namespace; a filter refuses all others.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf, absolute};
use std::process::Command;

use anyhow::{Result, bail};
use phantom_ipc::hook::{IdentityRef, format_session};
use phantom_ipc::{
    ENV_EMULATE, ENV_IDENTITY, ENV_PATHLESS_SOCKET, ENV_PUBLISH, ENV_SESSION, ENV_SOCKET, can_be_preloaded,
};

use crate::control::Contact;

/// File name of the hook.
const LIBRARY: &str = "libphantom.so";

/// Where the hook lies: `PHANTOM_LIBRARY`, beside this executable, or in `../lib` of it.
///
/// # Errors
/// Also when its path would be split: the loader would then look for the pieces, in the program's working folder too.
pub(crate) fn library() -> Result<PathBuf> {
    let path = find()?;
    if !can_be_preloaded(&path) {
        bail!(
            "{} has a space, a colon or a dollar sign in its path, which the loader would take for something else: move it, \
             or set PHANTOM_LIBRARY to a link to it",
            path.display()
        );
    }
    Ok(path)
}

fn find() -> Result<PathBuf> {
    if let Some(path) = env::var_os("PHANTOM_LIBRARY").map(PathBuf::from) {
        if !path.is_file() {
            bail!("PHANTOM_LIBRARY names {}, which is no file", path.display());
        }
        // A link may be there just because of its path.
        let real = path.canonicalize()?;
        return Ok(if can_be_preloaded(&real) { real } else { absolute(path)? });
    }
    let own = env::current_exe()?;
    let beside = own.parent().unwrap_or_else(|| Path::new("/"));
    for directory in [beside.to_owned(), beside.join("../lib"), beside.join("../lib/phantom")] {
        let path = directory.join(LIBRARY);
        if path.is_file() {
            return Ok(path.canonicalize()?);
        }
    }
    bail!("{LIBRARY} is neither beside phantom-run nor in ../lib; set PHANTOM_LIBRARY to where it is");
}

/// Adds to a command what the hook needs; `emulate`: sockets are emulated, whatever the daemon could do.
pub(crate) fn prepare(command: &mut Command, library: &Path, contact: &Contact, emulate: bool) {
    let Contact { socket, identity } = contact;
    let mut preload = OsString::from(library);
    if let Some(others) = env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    command.env("LD_PRELOAD", preload).env(ENV_SOCKET, socket).env_remove(ENV_IDENTITY).env_remove(ENV_SESSION);
    // What it says, phantom-run has done; the program itself may not.
    command.env_remove(ENV_PATHLESS_SOCKET).env_remove(ENV_PUBLISH);
    if emulate {
        command.env(ENV_EMULATE, "1");
    } else {
        command.env_remove(ENV_EMULATE);
    }
    match identity {
        IdentityRef::Named(name) => command.env(ENV_IDENTITY, name),
        IdentityRef::Session(token) => command.env(ENV_SESSION, format_session(token)),
    };
}
