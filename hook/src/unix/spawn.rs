//! posix_spawn and what libc starts programs with inside: the environment is completed first.

use libc::{c_char, c_int, c_void, pid_t, posix_spawn_file_actions_t, posix_spawnattr_t};

use super::{environment, glue};
use crate::outcome::{Outcome, Why};

type Text = *const c_char;
type Texts = *const *const c_char;
type Actions = *const posix_spawn_file_actions_t;
type Attributes = *const posix_spawnattr_t;
type Spawn = unsafe extern "C" fn(*mut pid_t, Text, Actions, Attributes, Texts, Texts) -> c_int;

redhook::hook! {
    unsafe fn posix_spawn(
        pid: *mut pid_t, path: Text, actions: Actions, attributes: Attributes, argv: Texts, envp: Texts
    ) -> c_int => phantom_posix_spawn {
        let start = |envp| {
            // SAFETY: the caller's arguments are as posix_spawn wants them.
            unsafe { redhook::real!(posix_spawn)(pid, path, actions, attributes, argv, envp) }
        };
        // SAFETY: as above.
        unsafe { spawn(envp, start) }
    }
}

redhook::hook! {
    unsafe fn posix_spawnp(
        pid: *mut pid_t, file: Text, actions: Actions, attributes: Attributes, argv: Texts, envp: Texts
    ) -> c_int => phantom_posix_spawnp {
        let start = |envp| {
            // SAFETY: as above.
            unsafe { redhook::real!(posix_spawnp)(pid, file, actions, attributes, argv, envp) }
        };
        // SAFETY: as above.
        unsafe { spawn(envp, start) }
    }
}

redhook::hook! {
    unsafe fn pidfd_spawn(
        pid: *mut pid_t, path: Text, actions: Actions, attributes: Attributes, argv: Texts, envp: Texts
    ) -> c_int => phantom_pidfd_spawn {
        // SAFETY: as above.
        unsafe { spawn_if_known(c"pidfd_spawn".as_ptr(), pid, path, actions, attributes, argv, envp) }
    }
}

redhook::hook! {
    unsafe fn pidfd_spawnp(
        pid: *mut pid_t, file: Text, actions: Actions, attributes: Attributes, argv: Texts, envp: Texts
    ) -> c_int => phantom_pidfd_spawnp {
        // SAFETY: as above.
        unsafe { spawn_if_known(c"pidfd_spawnp".as_ptr(), pid, file, actions, attributes, argv, envp) }
    }
}

redhook::hook! {
    unsafe fn system(command: Text) -> c_int => phantom_system {
        // SAFETY: the caller's argument is as system wants it.
        with_own_environment(-1, || unsafe { redhook::real!(system)(command) })
    }
}

redhook::hook! {
    unsafe fn popen(command: Text, mode: Text) -> *mut c_void => phantom_popen {
        // SAFETY: as above.
        with_own_environment(std::ptr::null_mut(), || unsafe { redhook::real!(popen)(command, mode) })
    }
}

redhook::hook! {
    unsafe fn wordexp(words: Text, result: *mut c_void, flags: c_int) -> c_int => phantom_wordexp {
        // SAFETY: as above. Without the environment it must not start commands: that is WRDE_NOSPACE, 1.
        with_own_environment(1, || unsafe { redhook::real!(wordexp)(words, result, flags) })
    }
}

/// Finds the real functions before anyone forks.
pub(super) fn prepare() {
    let _ = (redhook::real!(posix_spawn), redhook::real!(posix_spawnp));
}

/// The functions of this family return error numbers.
///
/// # Safety
/// `envp` is NULL or a NULL-terminated array of C strings.
unsafe fn spawn(envp: Texts, start: impl FnOnce(Texts) -> c_int) -> c_int {
    glue::answer(libc::EIO, || {
        // SAFETY: as the caller says.
        Outcome::Done(unsafe { environment::completed(envp, start) }.unwrap_or_else(|error| error))
    })
}

/// A function that only newer libcs have.
///
/// # Safety
/// As for posix_spawn; `name` is that of a function of this form.
unsafe fn spawn_if_known(
    name: Text,
    pid: *mut pid_t,
    path: Text,
    actions: Actions,
    attributes: Attributes,
    argv: Texts,
    envp: Texts,
) -> c_int {
    // SAFETY: a C string; what is found is a function of this form, or nothing.
    let real: Option<Spawn> = unsafe { std::mem::transmute(libc::dlsym(libc::RTLD_NEXT, name)) };
    let Some(real) = real else { return libc::ENOSYS };
    // SAFETY: as the caller says.
    unsafe { spawn(envp, |envp| real(pid, path, actions, attributes, argv, envp)) }
}

/// For functions that take the environment of the process.
fn with_own_environment<T: Copy>(failed: T, real: impl FnOnce() -> T) -> T {
    let complete = || {
        environment::complete_own();
        Outcome::Bypass(Why::Local)
    };
    glue::conclude(failed, complete, real)
}
