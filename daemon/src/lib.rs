//! The daemon: joins the protocol to sockets, disk, clock and programs.

pub mod args;
pub mod cli;
pub mod client;
pub mod config;
pub mod control;
pub mod datadir;
pub mod eula;
pub mod identity;
pub mod logging;
pub mod names;
pub mod service;
pub mod startup;
pub mod store;
pub mod testnet;
