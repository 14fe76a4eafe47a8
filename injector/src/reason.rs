//! Why a way could not be had: because this machine has no such thing, or because of something that passes.
//!
//! Only the first is a reason to take a weaker way. What passes (no memory, no room, too many open files, a daemon that
//! refuses) may be somebody else's doing, who would decide by it how well a program is kept in.

use std::fmt;
use std::io;

use rustix::io::Errno;

/// Marks an error as none of the machine's.
#[derive(Debug)]
pub(crate) struct Passing;

impl fmt::Display for Passing {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("not now")
    }
}

/// What others can bring about, and what is over when they stop. A daemon that ends takes its socket away, and a program must
/// not start in a weaker way just then.
const PASSING: [i32; 14] = [
    libc::ENOENT,
    libc::EPIPE,
    libc::ENOTCONN,
    libc::ECONNRESET,
    libc::ECONNREFUSED,
    libc::ENOMEM,
    libc::ENOSPC,
    libc::EDQUOT,
    libc::EMFILE,
    libc::ENFILE,
    libc::EAGAIN,
    libc::ENOBUFS,
    libc::EIO,
    libc::EINTR,
];

/// Whether the same may go well another time, so that no weaker way is to be taken.
pub(crate) fn is_passing(error: &anyhow::Error) -> bool {
    let number = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        io.or_else(|| cause.downcast_ref::<Errno>().map(|errno| errno.raw_os_error()))
    };
    error.downcast_ref::<Passing>().is_some()
        || error.chain().filter_map(number).any(|number| PASSING.contains(&number))
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn only_what_the_machine_lacks_is_a_reason_for_a_weaker_way() {
        let of = |number: i32| anyhow::Error::from(io::Error::from_raw_os_error(number)).context("doing it");
        for number in [libc::EPERM, libc::EACCES, libc::EINVAL, libc::ENOSYS, libc::EBUSY, libc::EOPNOTSUPP] {
            assert!(!is_passing(&of(number)), "{number}");
        }
        assert!(PASSING.iter().all(|number| is_passing(&of(*number))));
        assert!(is_passing(&Err::<(), _>(Errno::NOSPC).context("writing").expect_err("an error")));
        assert!(is_passing(&anyhow::anyhow!("no").context(Passing).context("a way in")));
        assert!(!is_passing(&anyhow::anyhow!("no")));
    }
}
