//! Frames on a link: the kinds (docs/protocol.md, section "Frames").

/// First byte of a frame.
// protocol: F4
pub mod kind {
    /// A setup array with its reply array.
    pub const ARRAY: u8 = 0x01;
    /// This link is the standing connection of a segment.
    pub const ATTACH: u8 = 0x10;
    /// Answer to [`ATTACH`].
    pub const ATTACHED: u8 = 0x11;
    /// Tunnel block S, on a standing connection.
    pub const SEED: u8 = 0x12;
    /// Tunnel id and blocks R and P: this link is one segment of that tunnel.
    pub const TUNNEL: u8 = 0x20;
    /// Tunnel block Q or V.
    pub const CONFIRM: u8 = 0x21;
    /// One cell.
    pub const CELL: u8 = 0x30;
    /// An exit node asks an entry node for a tunnel.
    pub const JOIN: u8 = 0x40;
    /// Answer to [`JOIN`]: no, with a reason. Else the answer is [`BYTES`].
    pub const REFUSED: u8 = 0x42;
    /// Bytes of a session between exit node and entry node.
    pub const BYTES: u8 = 0x43;
    /// No more [`BYTES`] from this side.
    pub const END: u8 = 0x44;
    /// This side's use of the link is over; after the other side's, too, it is fresh again.
    pub const CLOSE: u8 = 0x50;
}

/// Why an exit node or an entry node gives up (docs/protocol.md, section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum Reason {
    /// The network database has no record of the address.
    #[error("no such address")]
    NoSuchAddress = 1,
    /// No entry node of the address answers.
    #[error("entry nodes unreachable")]
    Unreachable = 2,
    /// No tunnel is ready.
    #[error("busy")]
    Busy = 3,
    /// The other side broke the protocol.
    #[error("protocol error")]
    Protocol = 4,
    /// The node is shutting down.
    #[error("going away")]
    GoingAway = 5,
    /// The path's life is over.
    #[error("path expired")]
    Expired = 6,
}

impl Reason {
    /// The reason with this number; an undefined one counts as a protocol error.
    // protocol: U27, Y6
    pub fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::NoSuchAddress,
            2 => Self::Unreachable,
            3 => Self::Busy,
            5 => Self::GoingAway,
            6 => Self::Expired,
            _ => Self::Protocol,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // protocol: U27, Y6
    #[test]
    fn reasons_have_their_numbers_and_unknown_ones_count_as_a_protocol_error() {
        use Reason::{Busy, Expired, GoingAway, NoSuchAddress, Protocol, Unreachable};
        for (number, reason) in [NoSuchAddress, Unreachable, Busy, Protocol, GoingAway, Expired].into_iter().enumerate()
        {
            assert_eq!((Reason::from_byte(number as u8 + 1), reason as usize), (reason, number + 1));
        }
        assert_eq!([0, 7, 255].map(Reason::from_byte), [Protocol; 3]);
    }
}
