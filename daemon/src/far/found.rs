//! What a name means, and that nobody knows.

use phantom_proto::ident::ApAddress;

/// What a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The address behind it.
    pub address: ApAddress,
    /// How long that holds, in seconds.
    pub lifetime: u32,
}

/// Who had to be asked for a name did not answer: neither "yes" nor "no" is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unanswered;
