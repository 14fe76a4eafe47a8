//! The local socket on Unix: a Unix socket, on which descriptors go beside bytes, with a look at who comes.

mod beside;
mod door;
mod entrance;
mod graves;
mod outside;
mod places;
mod program_sockets;
mod socket;

pub use beside::{Beside, Kind, RECEIVE_ARGUMENT, take_in};
pub(super) use graves::Grave;
pub use graves::{BURY_ARGUMENT, bury_the_last, end_last};
pub(crate) use graves::{adopt, bury_unknown};
pub(super) use program_sockets::{MAX_OF_RUN, ProgramSocket, ProgramSockets};
pub use socket::{Connection, Listener, MAX_DESCRIPTORS};

/// What goes beside bytes.
pub type Descriptor = std::os::fd::OwnedFd;
