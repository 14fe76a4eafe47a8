//! What the rest of the daemon asks the database's task.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use phantom_proto::ident::{ApAddress, NodeId};
use phantom_proto::netdb::{self, Key, Value};
use phantom_proto::record::{ApRecord, NodeRecord, Signed};
use phantom_proto::wire::NodeContact;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Known, NetDbConfig, Task};
use crate::clock::unix_seconds;
use crate::netdb::commands::CommandState;
use crate::netdb::{Database, DatabaseError, Origin};

/// Requests that may wait for the database's task.
const COMMANDS: usize = 256;

/// Speaks to the database's task; cheap to clone.
#[derive(Clone)]
pub struct NetDb {
    command_tx: mpsc::Sender<Command>,
    known_rx: watch::Receiver<Known>,
}

pub(super) type Looked = Result<Option<(Value, Vec<u8>)>, DatabaseError>;

pub(super) enum Command {
    Join(Vec<NodeContact>),
    Some { most: usize, some_tx: oneshot::Sender<Vec<NodeContact>> },
    Register(Vec<u8>),
    Pin(BTreeSet<NodeId>),
    Heard(Vec<u8>),
    Moved,
    Contact(NodeContact),
    Put { key: Key, origin: Origin, record: Vec<u8>, done_tx: oneshot::Sender<Result<(), DatabaseError>> },
    Get { key: Key, origin: Origin, answer_tx: oneshot::Sender<Looked> },
    Records(oneshot::Sender<Vec<(NodeId, Vec<u8>)>>),
    Terms(oneshot::Sender<Vec<(Vec<u8>, Vec<u8>)>>),
    Take { command: Vec<u8>, taken_tx: oneshot::Sender<Result<(), String>> },
    Allow { serial: u64, allowed_tx: oneshot::Sender<Result<bool, String>> },
    Commands(oneshot::Sender<CommandState>),
    Shelf(oneshot::Sender<Vec<(Vec<u8>, Vec<u8>)>>),
}

impl NetDb {
    /// Starts the database's task. It ends with the last handle.
    pub fn start(config: NetDbConfig) -> Result<Self, DatabaseError> {
        let (command_tx, command_rx) = mpsc::channel(COMMANDS);
        let (known_tx, known_rx) = watch::channel(Known::default());
        let task = Task::new(config, known_tx)?;
        tokio::spawn(task.run(command_rx));
        Ok(Self { command_tx, known_rx })
    }

    /// Joins through these nodes, now and whenever there are no others.
    pub async fn join(&self, contacts: Vec<NodeContact>) {
        let _ = self.command_tx.send(Command::Join(contacts)).await;
    }

    /// Some nodes that the database would name to anybody, at most `most`.
    pub async fn some(&self, most: usize) -> Vec<NodeContact> {
        let (some_tx, some_rx) = oneshot::channel();
        let _ = self.command_tx.send(Command::Some { most, some_tx }).await;
        some_rx.await.unwrap_or_default()
    }

    /// This node's own record, from now on; it is published now and again.
    pub async fn register(&self, record: &Signed<NodeRecord>) {
        let _ = self.command_tx.send(Command::Register(record.bytes().to_vec())).await;
    }

    /// Nodes whose records stay in the sample, whoever else must make room.
    pub async fn pin(&self, nodes: BTreeSet<NodeId>) {
        let _ = self.command_tx.send(Command::Pin(nodes)).await;
    }

    /// This computer has come into another network.
    pub async fn moved(&self) {
        let _ = self.command_tx.send(Command::Moved).await;
    }

    /// Others reach this node elsewhere from now on, if they can: nothing is published of it until some have.
    pub async fn at(&self, contact: NodeContact) {
        let _ = self.command_tx.send(Command::Contact(contact)).await;
    }

    /// What is known of the network, and its changes.
    pub fn known(&self) -> watch::Receiver<Known> {
        self.known_rx.clone()
    }

    /// Records of the sample as they were signed, for the disk.
    pub async fn records(&self) -> Vec<(NodeId, Vec<u8>)> {
        let (records_tx, records_rx) = oneshot::channel();
        let _ = self.command_tx.send(Command::Records(records_tx)).await;
        records_rx.await.unwrap_or_default()
    }

    /// Since when nodes have been reached, for the disk: ids and terms.
    pub async fn terms(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (terms_tx, terms_rx) = oneshot::channel();
        let _ = self.command_tx.send(Command::Terms(terms_tx)).await;
        terms_rx.await.unwrap_or_default()
    }

    /// Takes a maintainers' command and hands it to all neighbours.
    ///
    /// # Errors
    /// Why it is not taken, in words.
    pub async fn send_command(&self, command: Vec<u8>) -> Result<(), String> {
        let (taken_tx, taken_rx) = oneshot::channel();
        let _ = self.command_tx.send(Command::Take { command, taken_tx }).await;
        taken_rx.await.unwrap_or_else(|_| Err(stopping().to_string()))
    }

    /// The operator's word for a command that waits for it. False: none of that serial does.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub async fn allow_command(&self, serial: u64) -> Result<bool, String> {
        let (allowed_tx, allowed_rx) = oneshot::channel();
        let _ = self.command_tx.send(Command::Allow { serial, allowed_tx }).await;
        allowed_rx.await.unwrap_or_else(|_| Err(stopping().to_string()))
    }

    /// Maintainers' commands, and what they do here.
    pub async fn commands(&self) -> CommandState {
        let (state_tx, state_rx) = oneshot::channel();
        let _ = self.command_tx.send(Command::Commands(state_tx)).await;
        state_rx.await.unwrap_or_default()
    }

    /// What is kept for others, for the disk: keys and entries.
    pub async fn shelf(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (shelf_tx, shelf_rx) = oneshot::channel();
        let _ = self.command_tx.send(Command::Shelf(shelf_tx)).await;
        shelf_rx.await.unwrap_or_default()
    }

    /// The record of a node.
    pub async fn node(&self, id: NodeId) -> Result<Option<NodeRecord>, DatabaseError> {
        self.node_for(Origin::Own, id).await
    }

    async fn node_for(&self, origin: Origin, id: NodeId) -> Result<Option<NodeRecord>, DatabaseError> {
        Ok(match self.get(origin, netdb::node_key(&id)).await? {
            Some((Value::Node(record), _)) => Some(*record),
            Some((Value::Ap(_), _)) | None => None,
        })
    }

    async fn get(&self, origin: Origin, key: Key) -> Looked {
        let (answer_tx, answer_rx) = oneshot::channel();
        let _ = self.command_tx.send(Command::Get { key, origin, answer_tx }).await;
        answer_rx.await.unwrap_or_else(|_| Err(stopping()))
    }
}

pub(super) fn stopping() -> DatabaseError {
    DatabaseError::Unreachable("the daemon is stopping".into())
}

#[async_trait]
impl Database for NetDb {
    async fn publish(&self, origin: Origin, record: Vec<u8>) -> Result<(), DatabaseError> {
        let signed = Signed::<ApRecord>::from_bytes(&record).map_err(phantom_proto::record::RecordError::from)?;
        let key = netdb::ap_key(&signed.check(unix_seconds())?.address());
        let (done_tx, done_rx) = oneshot::channel();
        let _ = self.command_tx.send(Command::Put { key, origin, record, done_tx }).await;
        done_rx.await.unwrap_or_else(|_| Err(stopping()))
    }

    async fn lookup(&self, origin: Origin, address: ApAddress) -> Result<Option<(ApRecord, Vec<u8>)>, DatabaseError> {
        Ok(match self.get(origin, netdb::ap_key(&address)).await? {
            Some((Value::Ap(record), bytes)) => Some((record, bytes)),
            Some((Value::Node(_), _)) | None => None,
        })
    }

    async fn contact(&self, origin: Origin, node: NodeId) -> Result<Option<NodeContact>, DatabaseError> {
        let of = |record: &&Arc<NodeRecord>| record.contact.node_id() == node;
        let known = self.known_rx.borrow().nodes.iter().find(of).map(|record| record.contact.clone());
        match known {
            Some(contact) => Ok(Some(contact)),
            None => Ok(self.node_for(origin, node).await?.map(|record| record.contact)),
        }
    }

    async fn heard(&self, record: Vec<u8>) {
        let _ = self.command_tx.send(Command::Heard(record)).await;
    }
}
