//! The daemon: joins the protocol to sockets, disk, clock and programs.
pub mod config;
pub mod datadir;
pub mod eula;
pub mod identity;
pub mod logging;
pub mod names;
