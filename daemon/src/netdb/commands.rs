//! Override commands as the database's task has them: the log, its place on disk, and how it reaches others.
//!
//! What arrives goes into [`Commands`]; what comes of it are bans for all who ask [`Commands::bans`], and records for the database.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use libp2p::StreamProtocol;
use libp2p::gossipsub::{
    self, IdentTopic, MessageAuthenticity, MessageId, ValidationMode, Version, WhitelistSubscriptionFilter,
};
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::NetworkBehaviour;
use phantom_proto::command::{ANSWER_MAX, Above, Answer, Bans, Entry, KeySet, Kind, Log, Refused, Signed};
use phantom_proto::crypto::derive;
use phantom_proto::wire::NodeContact;
use tokio::sync::watch;

use super::messages::Messages;
use crate::store::{Store, StoreError, Table};

/// The protocol of questions for commands.
// protocol: M15
pub(super) const CATCH_UP: StreamProtocol = StreamProtocol::new("/phantom/commands/1");

/// How commands flood, and under which name.
// protocol: M18
const GOSSIP: &str = "/phantom/gossip/1";
const TOPIC: &str = "phantom v1 commands";

/// How often gossipsub looks after its mesh: commands are rare, and who misses one asks.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Longest message of gossipsub: a command, and what is around it.
const MESSAGE_MAX: usize = Signed::LEN_MAX + 1024;

/// Messages that may wait for one neighbour.
const QUEUE: usize = 64;

/// Length of a question: a serial.
const QUESTION_LEN: usize = 8;

/// How long a question may take.
const QUESTION: Duration = Duration::from_secs(10);

/// Under which key, beside those of serials, the proof lies that maintainers have signed two of one serial.
const RIVAL: &[u8] = b"rival";

/// The two ways of a command from node to node.
#[derive(NetworkBehaviour)]
pub(super) struct Flood {
    pub(super) gossip: gossipsub::Behaviour<gossipsub::IdentityTransform, WhitelistSubscriptionFilter>,
    pub(super) catch_up: request_response::Behaviour<Messages<Above, Answer>>,
}

impl Flood {
    // protocol: M15, M18
    pub(super) fn new() -> Self {
        let topic = topic();
        let config = gossipsub::ConfigBuilder::default()
            .protocol_id(GOSSIP, Version::V1_1)
            .heartbeat_interval(HEARTBEAT)
            .max_transmit_size(MESSAGE_MAX)
            .connection_handler_queue_len(QUEUE)
            // Nobody says who sent a command first.
            .validation_mode(ValidationMode::Anonymous)
            .validate_messages()
            // Of the whole, signatures too: whoever sends a wrong one first must not keep the right one away.
            .message_id_fn(|message| MessageId::from(derive("phantom v1 command message", &[&message.data]).to_vec()))
            .build()
            .expect("constants of this file");
        let filter = WhitelistSubscriptionFilter([topic.hash()].into());
        let mut gossip =
            gossipsub::Behaviour::new_with_subscription_filter(MessageAuthenticity::Anonymous, config, filter)
                .expect("constants of this file");
        gossip.subscribe(&topic).expect("the filter knows the topic");
        let config = request_response::Config::default().with_request_timeout(QUESTION).with_max_concurrent_streams(8);
        let catch_up = request_response::Behaviour::with_codec(
            Messages::of(QUESTION_LEN, ANSWER_MAX),
            [(CATCH_UP, ProtocolSupport::Full)],
            config,
        );
        Self { gossip, catch_up }
    }

    /// Hands a command to all neighbours that it was not heard from.
    pub(super) fn publish(&mut self, bytes: Vec<u8>) {
        // Nobody there, or everybody has it: who comes asks.
        if let Err(error) = self.gossip.publish(topic(), bytes) {
            tracing::debug!(%error, "a command was not passed on");
        }
    }
}

fn topic() -> IdentTopic {
    IdentTopic::new(TOPIC)
}

/// The commands of this node.
pub struct Commands {
    log: Log,
    ignored: BTreeSet<Kind>,
    store: Option<Arc<Store>>,
    bans_tx: watch::Sender<Arc<Bans>>,
}

/// What `phantom command list` shows.
#[derive(Debug, Clone, Default)]
pub struct CommandState {
    /// Whose commands are taken.
    pub keys: Option<KeySet>,
    /// Those that are here, by serial.
    pub entries: Vec<Entry>,
    /// How many are missing below the highest.
    pub missing: u64,
    /// Whether two with one serial were seen.
    pub forked: bool,
    /// What the operator opted out of.
    pub ignored: BTreeSet<Kind>,
    /// What the next one names as its predecessor.
    pub tip: [u8; 32],
}

impl Commands {
    /// Of a network with these maintainers, as they were kept in the store. What there is of other maintainers, or damaged, is left out.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn restore(keys: KeySet, ignored: BTreeSet<Kind>, store: Arc<Store>, now: u64) -> Result<Self, StoreError> {
        let mut log = Log::new(keys);
        for (key, kept) in store.scan(Table::Commands)? {
            let restored = if key == RIVAL { log.restore_rival(&kept) } else { log.restore(&kept) };
            if let Err(error) = restored {
                tracing::warn!("a command of an earlier run is left out: {error}");
            }
        }
        let bans = Arc::new(log.bans(now, &ignored));
        Ok(Self { log, ignored, store: Some(store), bans_tx: watch::Sender::new(bans) })
    }

    /// Of a network without maintainers.
    pub fn nobody() -> Self {
        Self {
            log: Log::new(KeySet::nobody()),
            ignored: BTreeSet::new(),
            store: None,
            bans_tx: watch::Sender::default(),
        }
    }

    /// What they come to, now and whenever it changes.
    pub fn bans(&self) -> watch::Receiver<Arc<Bans>> {
        self.bans_tx.subscribe()
    }

    /// What they come to now.
    pub(super) fn in_force(&self) -> Arc<Bans> {
        self.bans_tx.borrow().clone()
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    /// Takes a command; it is on disk when this returns. `known`: the nodes that this one knows.
    pub(super) fn take(&mut self, now: u64, bytes: &[u8], known: &[NodeContact]) -> Result<(), Untaken> {
        let forked = self.log.is_forked();
        let entry = self.log.judge(now, bytes, &self.ignored, known);
        if !forked && let (Some(rival), Some(store)) = (self.log.rival(), &self.store) {
            store.save(Table::Commands, RIVAL, rival)?;
        }
        let entry = entry?;
        // Copied only for what is taken: strangers may send anything else as often as they like.
        let mut log = self.log.clone();
        log.put(entry);
        self.keep(now, log)?;
        Ok(())
    }

    /// The operator's word for a command that waits. False: none of that serial waits.
    pub(super) fn allow(&mut self, now: u64, serial: u64) -> Result<bool, StoreError> {
        let mut log = self.log.clone();
        if log.allow(serial).is_none() {
            return Ok(false);
        }
        self.keep(now, log)?;
        Ok(true)
    }

    /// On disk first, whole: what acted before a crash acts after it.
    fn keep(&mut self, now: u64, log: Log) -> Result<(), StoreError> {
        if let Some(store) = &self.store {
            let entry = |entry: &Entry| (entry.command.serial.to_be_bytes().to_vec(), entry.to_bytes());
            let rival = log.rival().map(|rival| (RIVAL.to_vec(), rival.to_vec()));
            store.replace(Table::Commands, &log.entries().map(entry).chain(rival).collect::<Vec<_>>())?;
        }
        self.log = log;
        self.refresh(now);
        Ok(())
    }

    /// Looks what is in force now. True: something has changed.
    pub(super) fn refresh(&mut self, now: u64) -> bool {
        let bans = self.log.bans(now, &self.ignored);
        self.bans_tx.send_if_modified(|before| {
            let changed = **before != bans;
            if changed {
                *before = Arc::new(bans);
            }
            changed
        })
    }

    /// Records that commands in force insert.
    pub(super) fn inserted(&self, now: u64) -> Vec<Vec<u8>> {
        self.log.inserted(now, &self.ignored).into_iter().map(<[u8]>::to_vec).collect()
    }

    pub(super) fn state(&self) -> CommandState {
        CommandState {
            keys: Some(self.log.keys().clone()).filter(|keys| !keys.is_nobody()),
            entries: self.log.entries().cloned().collect(),
            missing: self.log.missing(),
            forked: self.log.is_forked(),
            ignored: self.ignored.clone(),
            tip: self.log.tip(),
        }
    }
}

/// Why a command was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Untaken {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("it cannot be kept, so it is not taken: {0}")]
    Store(#[from] StoreError),
}
