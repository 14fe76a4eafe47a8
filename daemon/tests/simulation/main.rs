//! The whole network as a test: the protocol and the daemon in one thread, on a virtual clock, from one seed.
//!
//! | file | what |
//! |---|---|
//! | `world` | nodes, what is on their disks, identities, echo servers |
//! | `wires` | links: which stand, break, are held up; what an observer of a node's uplink sees |
//! | `books` | the network database, and who reads all of it |
//! | `hostile` | what hostile nodes do to frames and records |
//! | `scenes`, `storms`, `attacks` | what must go as it is written, one scene for each promise; restarts; hostile nodes |
//! | `survival` | connections outlive the nodes that carry them |
//! | `steps`, `stage` | random lives of a network, of steps of users, nodes and attackers, and how they are played |
//! | `model` | what must be true of each such life |
//! | `lives` | plays them from seeds, makes a life that fails smaller, and plays those of `regressions.jsonl` |
//! | `nat` | nodes to which nobody can open links |
//! | `renewal` | what neighbours on paths tell each other when an epoch begins |
//! | `guess` | what a reader of all records who knows the times of all links finds out about owners |
#![allow(clippy::unwrap_used, reason = "tests")]

mod attacks;
mod books;
mod bursts;
mod guess;
mod hostile;
mod lives;
mod model;
mod nat;
mod renewal;
mod scenes;
mod stage;
mod steps;
mod storms;
mod survival;
mod wires;
mod world;
