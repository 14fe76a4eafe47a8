//! The Unix half: what the library exports, in C's terms.
//!
//! Functions are exported by redhook's `hook!`, real ones found by its `real!`, with four exceptions: variadic functions
//! ([`exec_variadic`]), which it cannot define; `syscall` ([`syscall`]), which its own locks call; [`dlopen`], which must not be
//! called by somebody else; and functions that this libc may not have. Its wrapper answers a panic with the real function, which would leak: [`glue::conclude`] comes first.
//!
//! Own system calls go around libc ([`raw`], rustix): its `socket` and `syscall` are this library's.

mod addrinfo;
mod complaint;
mod daemon;
mod directory;
mod dlopen;
mod emulated;
mod environment;
mod exchange;
mod exec;
mod exec_variadic;
mod glue;
mod hostent;
mod interfaces;
mod line;
mod netlink;
mod own;
mod proc_net;
mod raw;
mod received;
mod refused;
mod resolv;
mod sandbox;
mod signals;
mod socket;
mod spawn;
mod syscall;

/// Fixes who the program is before it can change its environment, and finds the real functions while nobody forks.
///
/// All of it also happens on first use: other libraries' constructors may come before this one.
#[ctor::ctor(unsafe)]
fn start() {
    glue::quietly(|| {
        own::own();
        line::prepare();
        dlopen::prepare();
        exec::prepare();
        emulated::prepare();
        proc_net::prepare();
        spawn::prepare();
        received::prepare();
        sandbox::prepare();
    });
}
