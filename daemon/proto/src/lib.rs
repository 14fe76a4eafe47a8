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
//! | [`chance`] | times that are drawn |
//! | [`ident`] | node ids, AP addresses, names, path and tunnel ids |
//! | [`wire`] | bytes to messages and back: pure, total, bounded |
//! | [`record`] | what the network database holds: signed, then checked, then used |
//! | [`netdb`] | rules of the network database, on top of any DHT |
//! | [`command`] | override commands: who is banned, what the database must not hold |
//! | [`path`] | routing paths: choice of nodes, both rounds, owner and hop |
//! | [`cell`] | the cell layer: what hops and ends do to the cells of one tunnel |
//! | [`tunnel`] | set-up of routing tunnels at hop, end and owner |
//! | [`terminating`] | what a terminating node does over one tunnel for the owner of a path, or for an exit node |
//! | [`session`] | end to end: TLS between AP keys over a resumable stream |
//! | [`alive`] | whether whoever is at the other end of a link still is |
//! | [`node`] | joins the levels; the only one that knows them all |
//!
//! Start reading at `docs/architecture.md`, then [`wire`], then the level of interest.
#![forbid(unsafe_code)]

pub mod alive;
pub mod cell;
pub mod chance;
pub mod command;
pub mod crypto;
pub mod ident;
pub mod netdb;
pub mod node;
pub mod path;
pub mod record;
pub mod session;
pub mod terminating;
pub mod tunnel;
pub mod wire;
