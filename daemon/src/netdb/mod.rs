//! The network database as the rest of the daemon sees it. The real one is Kademlia over our links; its twin lives in memory.

mod alone;
mod behaviour;
mod commands;
mod connected;
mod kademlia;
mod memory;
mod messages;
mod records;
mod rounds;
mod transport;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use async_trait::async_trait;
use phantom_proto::ident::{ApAddress, NodeId};
use phantom_proto::node::PathNo;
use phantom_proto::record::{ApRecord, RecordError};
use phantom_proto::wire::NodeContact;

pub use alone::Alone;
pub use commands::{CommandState, Commands};
pub use kademlia::{Known, NetDb, NetDbConfig, Stands};
pub use memory::MemoryDatabase;

/// Why the database could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The record must not be published.
    #[error("record refused: {0}")]
    Refused(#[from] RecordError),
    /// Too few nodes answered.
    #[error("the network database does not answer: {0}")]
    Unreachable(String),
    /// Nobody who answered has such a record, and too few say that there is none.
    #[error(
        "the network database is not sure: nobody who answered has it, and too many did not answer or say nothing that counts"
    )]
    Unsure,
    /// A node signed different records where there must be one.
    #[error("the node has published different keys for one epoch")]
    Contradicted,
}

/// For whom the database is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// For this node, or for a program of its users'.
    Own,
    /// For the owner of a path that ends here.
    Path {
        /// Which one.
        no: PathNo,
        /// Who is nearest along it, and where.
        neighbour: (NodeId, IpAddr),
    },
}

/// The strict API of the network database: anything else is refused by every node.
#[async_trait]
pub trait Database: Send + Sync + 'static {
    /// Publishes an AP record for its owner; it is checked before.
    async fn publish(&self, origin: Origin, record: Vec<u8>) -> Result<(), DatabaseError>;
    /// The newest valid record of an address with its bytes. `None`: the nodes that should know say that there is none.
    async fn lookup(&self, origin: Origin, address: ApAddress) -> Result<Option<(ApRecord, Vec<u8>)>, DatabaseError>;
    /// How a node is reached, as its own record says. `None`: the nodes that should know say that there is no such node.
    async fn contact(&self, origin: Origin, node: NodeId) -> Result<Option<NodeContact>, DatabaseError>;
    /// A node told us its own record. It renews what is known of that node, if anything is wanted of it.
    async fn heard(&self, record: Vec<u8>);
}
