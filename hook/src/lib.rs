//! `libphantom.so`: hands a program sockets of its phantom namespace.
//!
//! ```text
//!  program ── socket() ──> hook ── one request ──> daemon
//!     ^                                             │ makes it inside the phantom namespace
//!     └────────────── the descriptor ───────────────┘
//! ```
//!
//! After `socket()` everything is the kernel's own: connect, bind, poll, fork, all of it; the namespace has no wire but
//! Phantom's. What libc would do with sockets of its own, which no library can get at, is answered here by the daemon:
//! names (`names`), network interfaces, a few old remote shells. Programs that are started get the library too.
//!
//! The hook has no table, and nobody waits for a lock: each request is one short connection, but sockets come over a line that
//! each process keeps from its first one on, as long as that is to be had. When the daemon cannot be reached, there is no
//! network (ENETDOWN), never the normal one.
//!
//! Alone it is best effort: static programs and those that avoid libc get past it; `phantom-run` can close that gap.
//!
//! On Windows it is `phantom.dll`, and works otherwise: `windows` says how.
//!
//! A hook is three lines: read the C arguments, call a safe function, turn its `Outcome` into a return value.

#[cfg_attr(
    windows,
    expect(dead_code, reason = "Windows' own resolver functions make the lists, and ask by no packets")
)]
mod names;
mod outcome;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;
