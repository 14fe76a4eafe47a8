//! Programs that put themselves under a filter of system calls, as browsers' processes do: none of our own calls from then on
//! that the program did not ask for, since the filter may end it for them.

use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_int, c_long, c_ulong};

/// Whether a filter was set up since the program was started; forks inherit it as they inherit the filter.
static FILTERED: AtomicBool = AtomicBool::new(false);

/// Whether calls may be under a filter of the program's own.
pub(super) fn filtered() -> bool {
    FILTERED.load(Ordering::Relaxed)
}

/// Makes a call that may set up a filter for all threads: they must know before it holds.
pub(super) fn filtering<T: PartialEq + From<i8>>(call: impl FnOnce() -> T) -> T {
    let before = FILTERED.swap(true, Ordering::Relaxed);
    let result = call();
    if result == T::from(-1) && !before {
        FILTERED.store(false, Ordering::Relaxed);
    }
    result
}

/// Whether a seccomp(2) with this first argument sets up a filter.
pub(super) fn is_filter(operation: c_long) -> bool {
    operation == c_long::from(libc::SECCOMP_SET_MODE_FILTER) || operation == c_long::from(libc::SECCOMP_SET_MODE_STRICT)
}

redhook::hook! {
    unsafe fn prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int => phantom_prctl {
        // SAFETY: the caller's arguments are as prctl wants them; it takes four longs, whatever it uses of them.
        let call = || unsafe { redhook::real!(prctl)(option, a, b, c, d) };
        if option == libc::PR_SET_SECCOMP { filtering(call) } else { call() }
    }
}

/// Finds the real function while nobody forks.
pub(super) fn prepare() {
    let _ = redhook::real!(prctl);
}
