//! Sockets that stay the program's own, where nothing goes beside bytes: the loopback device is between them and the daemon.
//!
//! ```text
//!  program: bound to `from`        ── Connect { to, from } ──> daemon ──> far end
//!           connects to a door     <── Address(door) ───────── daemon, which takes one connection there, and from `from` alone
//!
//!  program: listens at `at`        ── Listen { local, at } ──> daemon; as long as this connection
//!           has accepted a source  <── from that source ────── daemon, with a connection of the network
//!           asks whose that is     ── Peer { source } ───────> Address(peer); NotFound for one that is nobody's
//!
//!  request = 20, identity, call u8, fields of the call
//! ```

use std::net::SocketAddr;

use super::Malformed;
use super::bytes::Reader;
use super::emulated::{put_endpoint, take_endpoint};

/// A call on such a socket. What is the program's own is an address of the loopback device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loopback {
    /// connect(2); the answer comes when the far end has answered, and is the door: [`super::Reply::Address`].
    Connect {
        /// Whither.
        to: SocketAddr,
        /// Where the program's socket is bound.
        from: SocketAddr,
    },
    /// listen(2), for as long as this connection; answered by [`super::Reply::Address`], where others reach it.
    Listen {
        /// As bind(2) was told; port 0 for that of `at`.
        local: SocketAddr,
        /// Where the program listens.
        at: SocketAddr,
    },
    /// Whose connection has come from there; answered by [`super::Reply::Address`] or [`super::Reply::NotFound`].
    Peer {
        /// As accept(2) has it.
        source: SocketAddr,
    },
}

impl Loopback {
    /// Passes the fields, in order.
    pub(super) fn put(&self, mut put: impl FnMut(&[u8])) {
        let (tag, addresses): (u8, &[SocketAddr]) = match self {
            Self::Connect { to, from } => (1, &[*to, *from]),
            Self::Listen { local, at } => (2, &[*local, *at]),
            Self::Peer { source } => (3, &[*source]),
        };
        put(&[tag]);
        addresses.iter().for_each(|address| put_endpoint(address, &mut put));
    }

    pub(super) fn take(from: &mut Reader) -> Result<Self, Malformed> {
        Ok(match from.u8()? {
            1 => Self::Connect { to: take_endpoint(from)?, from: take_endpoint(from)? },
            2 => Self::Listen { local: take_endpoint(from)?, at: take_endpoint(from)? },
            3 => Self::Peer { source: take_endpoint(from)? },
            tag => return Err(Malformed::Tag(tag)),
        })
    }
}
