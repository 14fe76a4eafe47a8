//! `phantom-run`: starts a program so that its only network is Phantom.
//!
//! Linux and Windows have so little in common here that each has a launcher of its own: that of Windows is in `windows`, all else is
//! Linux's.

// The files of `unix.rs` stand beside it, and are known from here.
#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(windows, path = "windows/mod.rs")]
mod system;

#[cfg(unix)]
use system::*;

fn main() {
    system::main();
}
