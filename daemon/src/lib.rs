//! The daemon: joins the protocol to sockets, disk, clock and programs. `docs/architecture.md` is the map.

#[macro_use]
mod say;

mod advice;
mod aliases;
pub mod args;
pub mod assembly;
pub mod bundle;
#[cfg(unix)]
mod children;
pub mod cli;
pub mod client;
pub mod clock;
pub mod commands;
pub mod config;
pub mod connections;
pub mod control;
pub mod datadir;
pub mod driver;
#[cfg(unix)]
mod emulation;
pub mod eula;
pub mod far;
#[cfg(unix)]
pub mod gate;
#[cfg(unix)]
pub mod handover;
pub mod health;
pub mod identity;
#[cfg(unix)]
mod lines;
pub mod link;
pub mod listening;
pub mod local;
pub mod logging;
#[cfg(any(windows, test))]
mod loopback;
pub mod metrics;
pub mod names;
pub mod netdb;
#[cfg(unix)]
mod netlink;
mod opened;
mod os;
#[cfg(unix)]
mod passed;
mod path_keys;
mod percent;
pub mod random;
pub mod relay;
pub mod resolver;
mod router;
pub mod service;
#[cfg(unix)]
mod service_manager;
pub mod splice;
pub mod startup;
pub mod store;
#[cfg(unix)]
pub mod successor;
pub mod testnet;

pub use random::random;
pub use say::{command_line, laid_out};
