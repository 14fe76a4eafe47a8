//! The exec family: whatever a program becomes keeps the library and the identity.

use libc::{c_char, c_int};

use super::{environment, glue, raw};
use crate::outcome::Outcome;

type Text = *const c_char;
type Texts = *const *const c_char;

redhook::hook! {
    unsafe fn execve(path: Text, argv: Texts, envp: Texts) -> c_int => phantom_execve {
        // SAFETY: the caller's arguments are as execve wants them.
        glue::answer(-1, || unsafe { execute(path, argv, envp) })
    }
}

redhook::hook! {
    unsafe fn execv(path: Text, argv: Texts) -> c_int => phantom_execv {
        // SAFETY: as above.
        glue::answer(-1, || unsafe { execute(path, argv, environment::current()) })
    }
}

redhook::hook! {
    unsafe fn execvpe(file: Text, argv: Texts, envp: Texts) -> c_int => phantom_execvpe {
        // SAFETY: as above.
        glue::answer(-1, || unsafe { search(file, argv, envp) })
    }
}

redhook::hook! {
    unsafe fn execvp(file: Text, argv: Texts) -> c_int => phantom_execvp {
        // SAFETY: as above.
        glue::answer(-1, || unsafe { search(file, argv, environment::current()) })
    }
}

redhook::hook! {
    unsafe fn fexecve(file: c_int, argv: Texts, envp: Texts) -> c_int => phantom_fexecve {
        // SAFETY: as above.
        glue::answer(-1, || unsafe { execute_at(file, c"".as_ptr(), argv, envp, libc::AT_EMPTY_PATH) })
    }
}

redhook::hook! {
    unsafe fn execveat(at: c_int, path: Text, argv: Texts, envp: Texts, flags: c_int) -> c_int => phantom_execveat {
        // SAFETY: as above.
        glue::answer(-1, || unsafe { execute_at(at, path, argv, envp, flags) })
    }
}

/// Finds the one real function that is called, before anyone forks.
pub(super) fn prepare() {
    let _ = redhook::real!(execvpe);
}

/// execve(2); returns only when it failed.
///
/// # Safety
/// As for execve.
pub(super) unsafe fn execute(path: Text, argv: Texts, envp: Texts) -> Outcome<c_int> {
    // SAFETY: as the caller says.
    failed(unsafe { environment::completed(envp, |envp| raw::execve(path, argv, envp)) })
}

/// execveat(2); returns only when it failed.
///
/// # Safety
/// As for execveat.
pub(super) unsafe fn execute_at(at: c_int, path: Text, argv: Texts, envp: Texts, flags: c_int) -> Outcome<c_int> {
    // SAFETY: as the caller says.
    failed(unsafe { environment::completed(envp, |envp| raw::execveat(at, path, argv, envp, flags)) })
}

/// execvpe(3): libc searches PATH, and starts a shell for files without an interpreter. Returns only when it failed.
///
/// # Safety
/// As for execvpe.
pub(super) unsafe fn search(file: Text, argv: Texts, envp: Texts) -> Outcome<c_int> {
    let start = |envp| {
        // SAFETY: as the caller says; the environment is one.
        unsafe { redhook::real!(execvpe)(file, argv, envp) };
        glue::errno()
    };
    // SAFETY: as the caller says.
    failed(unsafe { environment::completed(envp, start) })
}

fn failed(error: Result<c_int, c_int>) -> Outcome<c_int> {
    Outcome::Fail(error.unwrap_or_else(|error| error))
}
