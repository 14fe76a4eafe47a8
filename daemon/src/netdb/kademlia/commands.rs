//! Override commands in the database's task: from neighbours, to neighbours, and what they do to what is stored here.

use std::collections::HashMap;

use libp2p::PeerId;
use libp2p::gossipsub::{self, MessageAcceptance};
use libp2p::request_response::{self, Message};
use phantom_proto::command::{Above, Answer, Refused, key_of};
use phantom_proto::netdb::{self, Value};
use rand::seq::IteratorRandom;
use tokio::time::Instant;

use super::Task;
use crate::clock::unix_seconds;
use crate::netdb::commands::{CATCH_UP, FloodEvent, Untaken};

/// How often a neighbour is asked for commands that were missed, in seconds; more often while one is known to be missing.
const ASK_EVERY: u64 = 600;
const ASK_FOR_MISSING_EVERY: u64 = 30;

/// Answers that one neighbour gets within a minute: the whole log has at most 37 of them.
const ANSWERS: u32 = 64;
const ANSWERS_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);

/// Who got how many answers of late.
#[derive(Default)]
pub(super) struct Answered {
    since: Option<Instant>,
    counts: HashMap<PeerId, u32>,
}

impl Answered {
    fn may(&mut self, peer: PeerId) -> bool {
        if self.since.is_none_or(|since| since.elapsed() >= ANSWERS_WITHIN) {
            (self.since, self.counts) = (Some(Instant::now()), HashMap::new());
        }
        let count = self.counts.entry(peer).or_default();
        *count += 1;
        *count <= ANSWERS
    }
}

impl Task {
    pub(super) fn flood_event(&mut self, event: FloodEvent) {
        match event {
            FloodEvent::Gossip(gossipsub::Event::Message { propagation_source, message_id, message }) => {
                let acceptance = self.command_from(propagation_source, &message.data);
                let gossip = &mut self.swarm.behaviour_mut().commands.gossip;
                gossip.report_message_validation_result(&message_id, &propagation_source, acceptance);
            }
            FloodEvent::CatchUp(request_response::Event::Message { peer, message, .. }) => self.catch_up(peer, message),
            FloodEvent::Gossip(_) | FloodEvent::CatchUp(_) => {}
        }
    }

    /// A neighbour says a command: what is wrong by the neighbour's own fault ends the connection.
    // protocol: M18, M19
    fn command_from(&mut self, peer: PeerId, bytes: &[u8]) -> MessageAcceptance {
        match self.take_command(bytes) {
            Ok(()) => MessageAcceptance::Accept,
            Err(Untaken::Refused(why)) if why.is_misbehaviour() => {
                tracing::debug!(%why, "a command was refused");
                // It may have gone by itself.
                let _ = self.swarm.disconnect_peer_id(peer);
                MessageAcceptance::Reject
            }
            Err(why) => {
                tell_untaken(&why);
                MessageAcceptance::Ignore
            }
        }
    }

    /// Takes a command from wherever, and does what it says.
    pub(super) fn take_command(&mut self, bytes: &[u8]) -> Result<(), Untaken> {
        let known: Vec<_> = self.sample.records().map(|record| record.contact.clone()).collect();
        self.commands.take(unix_seconds(), bytes, &known)?;
        let highest = self.commands.log().highest();
        tracing::warn!("maintainers have sent a command (`phantom command list`); the highest serial is {highest}");
        self.obey();
        Ok(())
    }

    // protocol: M15, M19
    fn catch_up(&mut self, peer: PeerId, message: Message<Above, Answer>) {
        match message {
            Message::Request { request, channel, .. } => {
                if self.answered.may(peer) {
                    let answer = Answer::of(self.commands.log(), request);
                    // The other side may be gone.
                    let _ = self.swarm.behaviour_mut().commands.catch_up.send_response(channel, answer);
                }
            }
            Message::Response { response, .. } => {
                let mut news = false;
                for bytes in response.0 {
                    let taken = self.command_from(peer, &bytes);
                    if matches!(taken, MessageAcceptance::Reject) {
                        return;
                    }
                    if matches!(taken, MessageAcceptance::Accept) {
                        news = true;
                        self.swarm.behaviour_mut().commands.publish(bytes);
                    }
                }
                // There may be more than fits into one answer.
                if news {
                    self.ask_for_commands(peer);
                }
            }
        }
    }

    /// A neighbour has said what it speaks.
    pub(super) fn ask_if_it_knows(&mut self, peer: PeerId, protocols: &[libp2p::StreamProtocol]) {
        if protocols.contains(&CATCH_UP) {
            self.ask_for_commands(peer);
        }
    }

    fn ask_for_commands(&mut self, peer: PeerId) {
        if !self.commands.log().keys().is_nobody() {
            let above = Above(self.commands.log().asks_above());
            self.swarm.behaviour_mut().commands.catch_up.send_request(&peer, above);
        }
    }

    /// Time passes: bans end, and somebody may have what is missing here.
    // protocol: M15
    pub(super) fn second_of_commands(&mut self, seconds: u64) {
        if self.commands.refresh(unix_seconds()) {
            self.tell();
        }
        let every = if self.commands.log().missing() > 0 { ASK_FOR_MISSING_EVERY } else { ASK_EVERY };
        if seconds.is_multiple_of(every) {
            let any = self.swarm.connected_peers().choose(&mut crate::random()).copied();
            any.into_iter().for_each(|peer| self.ask_for_commands(peer));
        }
    }

    /// Does to the database what the commands say.
    // protocol: M13
    pub(super) fn obey(&mut self) {
        let now = unix_seconds();
        let bans = self.commands.in_force();
        let own = netdb::node_key(&self.own_contact.node_id());
        let barred = |key: &[u8], value: &Value| key != own && Self::is_barred_by(&bans, key, value);
        let out = |key: &[u8], value: &[u8]| netdb::check(now, key, value).is_ok_and(|value| barred(key, &value));
        self.shelf.retain(|key, record| !out(key, record));
        for record in self.commands.inserted(now) {
            if let Some(key) = key_of(&record, now)
                && !self.bars(&key, &record)
                && let Err(error) = self.shelf.put_for_maintainers(now, &key, &record, self.publisher.operator)
            {
                tracing::debug!(%error, "a record that maintainers have inserted is not kept");
            }
        }
        self.tell();
    }

    /// Whether this node itself is banned.
    pub(super) fn is_banned(&self) -> bool {
        self.commands.in_force().of_contact(&self.own_contact).is_some()
    }

    /// Whether commands say that this must not stand in the database. Its own record a node keeps for those who opted out.
    // protocol: M13
    pub(super) fn is_barred(&self, key: &[u8], value: &Value) -> bool {
        key != netdb::node_key(&self.own_contact.node_id()) && Self::is_barred_by(&self.commands.in_force(), key, value)
    }

    /// As [`Self::is_barred`], of a record as it was signed.
    pub(super) fn bars(&self, key: &[u8], record: &[u8]) -> bool {
        netdb::check(unix_seconds(), key, record).is_ok_and(|value| self.is_barred(key, &value))
    }

    fn is_barred_by(bans: &phantom_proto::command::Bans, key: &[u8], value: &Value) -> bool {
        let banned = match value {
            Value::Node(record) => bans.of_contact(&record.contact).is_some(),
            Value::Ap(_) => false,
        };
        banned || bans.empties(key)
    }
}

fn tell_untaken(why: &Untaken) {
    match why {
        Untaken::Refused(Refused::Known | Refused::TooOld | Refused::Nobody) => {}
        Untaken::Refused(Refused::Forked | Refused::Predecessor) => {
            tracing::warn!("a command of maintainers is not taken: {why}")
        }
        Untaken::Refused(_) => tracing::debug!(%why, "a command is not taken"),
        Untaken::Store(_) => tracing::warn!("a command of maintainers is not taken: {why}"),
    }
}
