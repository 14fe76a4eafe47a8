//! The daemon: joins the protocol to sockets, disk, clock and programs.

pub mod gate;
pub mod link;
