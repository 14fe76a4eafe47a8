//! The daemon: joins the protocol to sockets, disk, clock and programs. `docs/architecture.md` is the map.

pub mod args;
pub mod assembly;
pub mod bundle;
pub mod cli;
pub mod client;
pub mod clock;
pub mod commands;
pub mod config;
pub mod connections;
pub mod control;
pub mod datadir;
pub mod driver;
mod emulation;
pub mod eula;
pub mod gate;
pub mod health;
pub mod identity;
mod inside;
mod lines;
pub mod link;
pub mod logging;
pub mod metrics;
pub mod names;
pub mod netdb;
mod opened;
mod path_keys;
mod percent;
pub mod random;
pub mod relay;
pub mod resolver;
pub mod service;
pub mod startup;
pub mod store;
pub mod testnet;

pub use random::random;
