//! Why a way could not be had: because this machine has no such thing, or because of something that passes.
//!
//! Only the first is a reason to take a weaker way. What passes (no memory, no room, a limit, a daemon that refuses) may be
//! somebody else's doing, who would decide by it how well a program is kept in; and what nobody has thought of passes too.

use std::fmt;
use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// Marks an error as none of the machine's.
#[derive(Debug)]
pub(crate) struct Passing;

impl fmt::Display for Passing {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("not now")
    }
}

/// What the kernel says to whom it gives no such thing, now or later: it does not know it, or does not permit it. All else may
/// pass, or is somebody's doing: a limit, a full disk, a daemon that ends. A program must not start in a weaker way for that.
const LACKING: [i32; 13] = [
    libc::EPERM,
    libc::EACCES,
    libc::ENOSYS,
    libc::EINVAL,
    libc::EOPNOTSUPP,
    libc::EAFNOSUPPORT,
    libc::EPROTONOSUPPORT,
    libc::ESOCKTNOSUPPORT,
    libc::ENOPROTOOPT,
    libc::ENODEV,
    libc::EROFS,
    libc::EUSERS,
    // There is another supervisor of system calls already.
    libc::EBUSY,
];

/// An error of the machine's that has no number: it cannot be had here.
pub(crate) fn lacking(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why.into())
}

/// Whether the same may go well another time, so that no weaker way is to be taken.
pub(crate) fn is_passing(error: &anyhow::Error) -> bool {
    let is_lacking = error.chain().filter_map(is_lacking).reduce(|all, one| all && one);
    error.downcast_ref::<Passing>().is_some() || !is_lacking.unwrap_or(false)
}

/// What a cause says about it; nothing if it is words alone.
fn is_lacking(cause: &(dyn std::error::Error + 'static)) -> Option<bool> {
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        return Some(match error.raw_os_error() {
            Some(number) => LACKING.contains(&number),
            None => error.kind() == io::ErrorKind::Unsupported,
        });
    }
    cause.downcast_ref::<Errno>().map(|errno| LACKING.contains(&errno.raw_os_error()))
}

/// What the system's own words leave out: limits of whoever started us.
const LIMITS: [(i32, &str); 3] = [
    (libc::EAGAIN, "no more processes or threads may be started (the limit of `ulimit -u`, or pids.max of the group)"),
    (libc::EMFILE, "no more files may be open (the limit of `ulimit -n`, or LimitNOFILE= of the unit)"),
    (libc::EFBIG, "files may not be so large (the limit of `ulimit -f`, or LimitFSIZE= of the unit)"),
];

/// An error for people.
pub(crate) fn explained(error: &anyhow::Error) -> String {
    explained_where(error, memory_is_limited())
}

fn explained_where(error: &anyhow::Error, memory_is_limited: bool) -> String {
    let number = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        io.or_else(|| cause.downcast_ref::<Errno>().map(|errno| errno.raw_os_error()))
    };
    let limit = error.chain().filter_map(number).find_map(|one| LIMITS.iter().find(|(number, _)| *number == one));
    match limit {
        Some((libc::EAGAIN, words)) if memory_is_limited => format!("{error:#}: {words}, {STACK_OF_ANOTHER}"),
        Some((_, words)) => format!("{error:#}: {words}"),
        None => format!("{error:#}"),
    }
}

/// The system has the same number for it.
const STACK_OF_ANOTHER: &str = "or memory does not do for another's stack (the limits of `ulimit -d` and `ulimit -v`)";

fn memory_is_limited() -> bool {
    [Resource::Data, Resource::As].into_iter().any(|limit| getrlimit(limit).current.is_some())
}

/// What phantom-run's own stack takes, in bytes, its arguments and environment included: more where nothing is optimized.
const STACK: u64 = if cfg!(debug_assertions) { 192 << 10 } else { 48 << 10 };

/// Why this process cannot go on, if its stack is too small: the first call too many would end it without a word of ours.
pub(crate) fn of_stack() -> Option<String> {
    let has = getrlimit(Resource::Stack).current.filter(|bytes| *bytes < STACK)?;
    let (has, needs) = (has >> 10, STACK >> 10);
    Some(format!(
        "a stack of {has} KiB does not do, {needs} are needed (the limit of `ulimit -s`, or LimitSTACK= of the unit)"
    ))
}

/// What is to be said of a process that was to become the program and has ended by itself, or by a signal. Signals are somebody's
/// doing, so none is a reason for a weaker way, not even the kernel's own for a call that a filter does not permit: it tells nobody
/// who has sent it.
pub(crate) fn of_end(signal: Option<i32>) -> String {
    let advice = match signal {
        Some(libc::SIGSYS) => {
            ": a filter of system calls kills whoever makes namespaces or mounts; one that refuses instead lets another way be \
             taken (for a unit with SystemCallFilter=, SystemCallErrorNumber=EPERM)"
        }
        Some(libc::SIGKILL) => ", perhaps for want of memory",
        _ => "",
    };
    let how = signal.map_or_else(|| "has ended".to_owned(), |signal| format!("was killed by signal {signal}"));
    format!("the process that was to become the program {how}{advice}")
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn only_what_the_machine_lacks_is_a_reason_for_a_weaker_way() {
        let of = |number: i32| anyhow::Error::from(io::Error::from_raw_os_error(number)).context("doing it");
        // All that the kernel knows: a new number is no reason until somebody has thought about it.
        let reasons: Vec<i32> = (1..=133).filter(|number| !is_passing(&of(*number))).collect();
        let mut expected = LACKING.to_vec();
        expected.sort_unstable();
        assert_eq!(reasons, expected);
        for number in [libc::EFBIG, libc::ENOSPC, libc::EMFILE, libc::EAGAIN, libc::ENOENT, libc::ECONNREFUSED] {
            assert!(is_passing(&of(number)), "{number}");
        }
        assert!(is_passing(&Err::<(), _>(Errno::NOSPC).context("writing").expect_err("an error")));
        assert!(!is_passing(&Err::<(), _>(Errno::NOSYS).context("mounting").expect_err("an error")));
        assert!(!is_passing(&anyhow::Error::from(lacking("an old kernel")).context("a way in")));
        assert!(is_passing(&of(libc::EPERM).context(Passing)));
        for without_number in [anyhow::anyhow!("no"), io::Error::from(io::ErrorKind::UnexpectedEof).into()] {
            assert!(is_passing(&without_number), "{without_number}");
        }
    }

    #[test]
    fn limits_are_named() {
        let fork = |number: i32| anyhow::Error::from(io::Error::from_raw_os_error(number)).context("fork");
        let of = |number: i32| explained_where(&fork(number), false);
        assert!(of(libc::EAGAIN).contains("ulimit -u") && of(libc::EFBIG).contains("ulimit -f"));
        assert!(of(libc::EMFILE).contains("ulimit -n"));
        assert!(!of(libc::ENOMEM).contains("ulimit"));
        assert!(!of(libc::EAGAIN).contains("ulimit -d"), "which nobody has limited");
        assert!(explained_where(&fork(libc::EAGAIN), true).contains("ulimit -d"));
    }
}
