//! The Phantom protocol as a value: bytes and time in, bytes and deadlines out.
//!
//! Nothing here opens a socket, reads a clock, touches a disk or asks the system for randomness: all of that is an
//! argument. Every machine has the same verbs: `handle(now, input)`, `poll() -> output`, `deadline() -> when`.
//!
//! Levels, bottom to top; each knows only those above its line in this list:
//!
//! | module | what it is |
//! |---|---|
//! | [`crypto`] | the only place that names a crypto crate |
//! | [`ident`] | node ids, AP addresses, names, path and tunnel ids |
//! | [`wire`] | bytes to messages and back: pure, total, bounded |
//! | [`path`] | routing paths: choice of nodes, both rounds, owner and hop |
//!
//! Start reading at `docs/architecture.md`, then [`wire`], then the level of interest.
#![forbid(unsafe_code)]

pub mod cell;
pub mod crypto;
pub mod ident;
pub mod path;
pub mod wire;
