//! What the commands of a log come to: who is kept out, and which keys of the database are empty.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Action, Command, Kind, Range, Target};
use crate::ident::NodeId;
use crate::netdb::{Key, node_key};
use crate::wire::NodeContact;

/// A ban.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ban {
    /// When its command came here, in seconds since 1970: what a command says of itself could be set back.
    pub since: u64,
    /// When it ends, in seconds since 1970.
    pub until: u64,
}

/// What is banned and removed now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bans {
    ranges: BTreeMap<Range, Ban>,
    nodes: BTreeMap<NodeId, Ban>,
    removed: BTreeMap<Key, u64>,
}

impl Bans {
    /// What these commands, in the order of their serials and with the time when each came, come to at `now`, without the kinds in
    /// `ignored`.
    // protocol: M3, M10, M14
    pub fn of<'a>(now: u64, ignored: &BTreeSet<Kind>, commands: impl IntoIterator<Item = (u64, &'a Command)>) -> Self {
        let mut bans = Self::default();
        for (taken, command) in commands {
            for action in command.actions.iter().filter(|action| !ignored.contains(&action.kind())) {
                bans.apply(taken, command, action);
            }
        }
        bans.ranges.retain(|_, ban| ban.until > now);
        bans.nodes.retain(|_, ban| ban.until > now);
        bans.removed.retain(|_, until| *until > now);
        bans
    }

    fn apply(&mut self, taken: u64, command: &Command, action: &Action) {
        let ban = Ban { since: taken, until: command.expires };
        match action {
            Action::Ban(Target::Range(range)) => longest(&mut self.ranges, *range, ban),
            Action::Ban(Target::Node(node)) => longest(&mut self.nodes, *node, ban),
            Action::Unban(Target::Range(range)) => self.ranges.retain(|banned, _| !range.covers(banned)),
            Action::Unban(Target::Node(node)) => drop(self.nodes.remove(node)),
            Action::Remove { key, until } => drop(self.removed.insert(*key, *until)),
            // The database takes it, or does not, when the command comes.
            Action::Insert(_) => {}
        }
    }

    /// The ban of a node, whichever: the longest.
    pub fn ban(&self, node: &NodeId, ip: IpAddr) -> Option<Ban> {
        let ranges = self.ranges.iter().filter(|(range, _)| range.contains(ip)).map(|(_, ban)| *ban);
        ranges.chain(self.nodes.get(node).copied()).max_by_key(|ban| ban.until)
    }

    /// The ban of a node that is reached so.
    pub fn of_contact(&self, contact: &NodeContact) -> Option<Ban> {
        self.ban(&contact.node_id(), contact.addr.ip())
    }

    /// Whether nothing may stand under a key of the database.
    // protocol: M13
    pub fn empties(&self, key: &[u8]) -> bool {
        let removed = Key::try_from(key).is_ok_and(|key| self.removed.contains_key(&key));
        removed || self.nodes.keys().any(|node| node_key(node)[..] == *key)
    }

    /// Whether nothing is banned or removed.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.nodes.is_empty() && self.removed.is_empty()
    }

    /// Who is banned, and until when.
    pub fn targets(&self) -> impl Iterator<Item = (Target, Ban)> {
        let ranges = self.ranges.iter().map(|(range, ban)| (Target::Range(*range), *ban));
        ranges.chain(self.nodes.iter().map(|(node, ban)| (Target::Node(*node), *ban)))
    }

    /// Which keys are empty, and until when.
    pub fn removed(&self) -> impl Iterator<Item = (&Key, u64)> {
        self.removed.iter().map(|(key, until)| (key, *until))
    }
}

/// A second ban of the same does not make the first one shorter, and counts from the first.
fn longest<K: Ord>(bans: &mut BTreeMap<K, Ban>, of: K, ban: Ban) {
    let standing = bans.entry(of).or_insert(ban);
    let renews = ban.since < standing.until;
    standing.since = if renews { standing.since.min(ban.since) } else { ban.since };
    standing.until = standing.until.max(ban.until);
}
