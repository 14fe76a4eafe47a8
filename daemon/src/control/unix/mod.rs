//! The local socket on Unix: a Unix socket, on which descriptors go beside bytes, with a look at who comes.

mod beside;
mod door;
mod outside;
mod places;
mod program_sockets;
mod socket;

pub(super) use beside::closes_descriptors;
pub use beside::{BURY_ARGUMENT, Beside, end_last};
pub(super) use program_sockets::{MAX_OF_RUN, ProgramSocket, ProgramSockets, is_listening_socket};
pub use socket::{Connection, Listener, MAX_DESCRIPTORS};

/// What goes beside bytes.
pub type Descriptor = std::os::fd::OwnedFd;
