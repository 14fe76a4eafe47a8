//! `syscall`: the few numbers that open sockets or start programs go the hooks' ways, all others to the kernel at once.
//!
//! Not by redhook: it finds real functions under a lock, the lock waits by `syscall`, and that is this function. Seven
//! integers stand for the variadic arguments: on these machines both are passed alike.

use libc::{c_char, c_int, c_long};

use super::{emulated, exec, glue, raw, received, sandbox, socket};
use crate::outcome::{Outcome, Why};

/// syscall(2).
///
/// # Safety
/// As for the system call that is made.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(n: c_long, a: c_long, b: c_long, c: c_long, d: c_long, e: c_long, f: c_long) -> c_long {
    match n {
        libc::SYS_socket | libc::SYS_execve | libc::SYS_execveat | libc::SYS_io_uring_setup => {
            // SAFETY: the caller vouches for the call.
            glue::conclude(-1, || unsafe { caught(n, [a, b, c, d, e, f]) }, || -1)
        }
        libc::SYS_connect
        | libc::SYS_bind
        | libc::SYS_listen
        | libc::SYS_accept
        | libc::SYS_accept4
        | libc::SYS_getsockname
        | libc::SYS_getpeername
        | libc::SYS_shutdown
        | libc::SYS_getsockopt
        | libc::SYS_setsockopt
        | libc::SYS_sendto => {
            let arguments = [a, b, c, d, e, f];
            let act = || {
                // SAFETY: as above.
                unsafe { emulated::by_number(n, arguments) }.unwrap_or(Outcome::Bypass(Why::Unrelated))
            };
            // SAFETY: as above.
            glue::conclude(-1, act, || unsafe { kernel(n, arguments) })
        }
        // SAFETY: as above.
        libc::SYS_seccomp if sandbox::is_filter(a) => sandbox::filtering(|| unsafe { kernel(n, [a, b, c, d, e, f]) }),
        // SAFETY: as above.
        _ => unsafe { kernel(n, [a, b, c, d, e, f]) },
    }
}

/// # Safety
/// As for the system call that is made.
unsafe fn kernel(number: c_long, arguments: [c_long; 6]) -> c_long {
    // SAFETY: as the caller says.
    match raw::split(unsafe { raw::syscall(number, arguments) }) {
        Ok(value) => {
            // SAFETY: the kernel has filled what the caller gave it.
            unsafe { look_at_received(number, arguments[1], value) };
            value
        }
        Err(error) => {
            glue::set_errno(error);
            -1
        }
    }
}

/// # Safety
/// The call was made, with this second argument and this result.
unsafe fn look_at_received(number: c_long, messages: c_long, result: c_long) {
    match number {
        // SAFETY: as the caller says.
        libc::SYS_recvmsg => unsafe { received::check(messages as *mut libc::msghdr) },
        // SAFETY: as the caller says; counts are ints.
        libc::SYS_recvmmsg => unsafe { received::check_many(messages as *mut libc::mmsghdr, result as c_int) },
        _ => {}
    }
}

/// # Safety
/// As for the system call that is made.
unsafe fn caught(number: c_long, [a, b, c, d, e, _]: [c_long; 6]) -> Outcome<c_long> {
    let strings = |at: c_long| at as *const *const c_char;
    let outcome = match number {
        // The kernel looks at the lower halves only.
        libc::SYS_socket => socket::open(a as c_int, b as c_int, c as c_int),
        // SAFETY: as the caller says.
        libc::SYS_execve => unsafe { exec::execute(a as *const c_char, strings(b), strings(c)) },
        libc::SYS_execveat => {
            // SAFETY: as the caller says.
            unsafe { exec::execute_at(a as c_int, b as *const c_char, strings(c), strings(d), e as c_int) }
        }
        // Rings open sockets without asking anyone. Programs go without them where the kernel has none.
        libc::SYS_io_uring_setup => Outcome::Fail(libc::ENOSYS),
        _ => Outcome::Bypass(Why::Unrelated),
    };
    match outcome {
        Outcome::Done(value) => Outcome::Done(value.into()),
        Outcome::Bypass(why) => Outcome::Bypass(why),
        Outcome::Fail(error) => Outcome::Fail(error),
    }
}
