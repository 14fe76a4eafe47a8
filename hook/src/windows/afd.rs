//! The door to the kernel's sockets, for programs that avoid Winsock: what leads somewhere comes from our functions, or not at all.
//!
//! Which addresses stand behind a call there differs between Windows and wine, and between their versions. Which thread is in one of our
//! functions does not: all addresses come by those.

use std::cell::Cell;

use super::quiet::quietly;

/// Calls of the device that take an address: bind, connect, connect with data, a datagram, joining; and wine's own connect.
const WITH_ADDRESS: [u32; 6] = [0x12003, 0x12007, 0x120c7, 0x12023, 0x120a7, 0x0012_032c];

thread_local! {
    static WITHIN: Cell<u32> = const { Cell::new(0) };
}

/// As long as it lasts, this thread is in one of our functions.
pub(super) struct Within;

impl Within {
    /// From now on.
    pub(super) fn ours() -> Self {
        WITHIN.set(WITHIN.get() + 1);
        Self
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        quietly(|| WITHIN.set(WITHIN.get() - 1));
    }
}

/// Whether this thread is in one of our functions.
pub(super) fn is_within() -> bool {
    WITHIN.get() > 0
}

/// Whether a call of any device is one that must come from our functions, and does not.
pub(super) fn is_shut(code: u32) -> bool {
    WITH_ADDRESS.contains(&code) && !is_within()
}
