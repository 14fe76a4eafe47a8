//! Routing paths: who takes part, how the owner builds them, what a node on the circle does, keeps and forgets.
//!
//! | file | what |
//! |---|---|
//! | [`plan`] | what a circle is; drawing nodes |
//! | [`choice`] | who stands where: guards, layers, accounts |
//! | [`mod@array`] | what one node does to the arrays |
//! | [`weave`] | all of that, foreseen by the owner |
//! | [`owner`] | both rounds, from the owner's side |
//! | [`hop`] | both rounds, from a node's side |

pub mod array;
mod budget;
pub mod choice;
pub mod hop;
pub mod owner;
pub mod plan;
mod way;
pub mod weave;

#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use crate::crypto::{PathSecret, derive};
use crate::wire::NodeContact;
use crate::wire::array::ArrayFrame;
use crate::wire::frame::{HANDLE_LEN, Handle};

pub use crate::ident::Spread;
pub use choice::{Case, Choice, How, Sets};
pub use hop::{Hop, HopError, HopPath, PathKeys, Seen, Sides};
pub use owner::{Build, BuildError, BuiltHop, BuiltPath, Step};
pub use plan::{Candidate, Plan, PlanError};

/// Life of a build in seconds: some ten links' round trips, twice.
pub const BUILD_LIFE: u64 = 30;

/// How far ahead packages of round 1 expire at least, in seconds: longer than a build lives, also when clocks differ somewhat.
pub const EXPIRES_AHEAD: u64 = 40;

/// They expire at full minutes, in seconds: a value that is common to all builds of a minute shows neither that two packages are of
/// one build, nor how far its owner's clock is off.
// protocol: P19
pub const EXPIRES_GRID: u64 = 60;

/// How far ahead a node lets a package expire, in seconds: bounds its replay cache.
pub const EXPIRES_MAX: u64 = 120;

/// Life of a path in seconds, as its owner chooses.
// protocol: C1
pub const PATH_LIFE: RangeInclusive<u64> = 600..=86_400;

/// By how much the end of a path's life differs between its nodes, in seconds; drawn for each, since a common value would show that two
/// packages are of one build.
// protocol: P17
pub const UNTIL_SPREAD: u64 = 600;

/// One set of own paths that must not be linkable with any other: an identity's, or one that is kept ready for the next
/// identity. Local: never on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Persona(pub u64);

/// Which of a persona's two classes a path belongs to. They share no terminating node, so that an entry node does not meet
/// its service again as a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// For what goes out: connections or look-ups, never both on one path.
    Out,
    /// For what comes in.
    In,
}

/// The path's name in routing entries and in JOIN (docs/protocol.md, section 4.3): the owner and the terminating node, who
/// share `secret`, compute it, and it is never sent along the path.
// protocol: Q4
pub fn handle(secret: &PathSecret) -> Handle {
    let hash = derive("phantom v1 handle", &[&secret.0[..]]);
    let mut handle = [0; HANDLE_LEN];
    handle.copy_from_slice(&hash[..HANDLE_LEN]);
    handle
}

/// A frame to be sent to a node, over a link that is authenticated as that node's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// To whom.
    pub to: NodeContact,
    /// What.
    pub frame: ArrayFrame,
}
