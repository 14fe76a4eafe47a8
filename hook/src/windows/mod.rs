//! Windows: the functions by which a program reaches a network are replaced in its own memory.
//!
//! ```text
//!  phantom-run, or a program that has the library ── starts suspended, loads the library into it (`inject`) ──> program
//!  program ── connect, bind, listen, accept, names, children ──> `winsock`, `extensions`, `names_of_c`, `system`: three lines each
//!                                                                  │
//!                          `sockets`, `deferred`, `offers`, `resolver` decide; `daemon` asks; `real` does what Windows does
//! ```
//!
//! A program's socket stays the kernel's, between it and a door of the daemon on the loopback device, so that waiting, sending and
//! receiving are not touched. `table` remembers what the kernel cannot: whom a socket is connected to, and how it was bound.
//! What reaches the kernel's sockets past these functions finds the door shut (`afd`).
//!
//! A program that means to get out of this does: it may put the functions back. This is for well-meaning ones.

mod address;
mod afd;
mod daemon;
mod deferred;
mod environment;
mod extensions;
mod inject;
mod names_of_c;
mod numbers;
mod offers;
mod own;
mod patch;
mod quiet;
mod real;
mod resolver;
mod sockets;
mod system;
mod table;
mod winsock;

use std::ffi::c_void;
use std::io::{self, Write};

use windows_sys::Win32::Foundation::HINSTANCE;
use windows_sys::core::BOOL;

/// The reason for which the loader calls when the library comes into a process.
const PROCESS_ATTACH: u32 = 1;

/// Replaces the functions. A process in which that fails is not the library's: the loader says so to whoever loaded it, who
/// ends the process.
#[unsafe(no_mangle)]
extern "system" fn DllMain(library: HINSTANCE, reason: u32, _: *mut c_void) -> BOOL {
    if reason != PROCESS_ATTACH {
        return 1;
    }
    inject::remember(library);
    own::look();
    let installed = winsock::install()
        .and_then(|()| extensions::install())
        .and_then(|()| names_of_c::install())
        .and_then(|()| system::install());
    if let Err(patch::Failed(what)) = &installed {
        let _ = writeln!(io::stderr(), "phantom: this Windows' {what}");
    }
    BOOL::from(installed.is_ok())
}
