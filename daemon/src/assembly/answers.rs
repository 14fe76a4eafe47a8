//! What the node tells people: status, paths, peers, connections.

use std::sync::PoisonError;

use phantom_ipc::admin::{self, ConnectionState, Direction, PathKind, PathState};
use phantom_proto::ident::{ApAddress, ApName};
use phantom_proto::node::{Work, age};
use phantom_proto::record::ApRecord;
use phantom_proto::wire::NodeContact;

use tokio::time::Instant;

use super::Running;
use crate::clock::unix_seconds;
use crate::driver::Snapshot;
use crate::names::Peer;
use crate::netdb::{Known, Stands};

fn hop(contact: &NodeContact) -> admin::Hop {
    admin::Hop { node_id: contact.node_id().to_string(), addr: contact.addr.to_string() }
}

/// A database entry for people.
pub(super) fn lookup(record: &ApRecord) -> admin::Lookup {
    admin::Lookup {
        address: record.address().ipv6(),
        phantom_name: ApName(record.key).to_string(),
        entry_nodes: record.entries.iter().map(|entry| hop(&entry.entry_node)).collect(),
        expires_in_seconds: record.expires.saturating_sub(unix_seconds()),
    }
}

fn own_record(stands: Stands) -> admin::OwnRecord {
    admin::OwnRecord {
        kept_by: stands.keep as u64,
        asked: stands.asked as u64,
        for_seconds: stands.since.map(|since| unix_seconds().saturating_sub(since)),
    }
}

impl Running {
    /// What others need to reach this node.
    pub(super) fn contact(&self) -> NodeContact {
        self.here_rx.borrow().clone()
    }

    pub(super) async fn status_now(&self) -> admin::Status {
        let (known, contact) = (self.database.known().borrow().clone(), self.contact());
        let snapshot = self.handle.snapshot().await.unwrap_or_default();
        let (warnings, start) = self.watch(&self.facts(&known, &snapshot).await);
        let ready_tunnels = ready_tunnels(&snapshot);
        let waiting_for = waiting_for(&known, snapshot.exit_paths, snapshot.waiting_for, ready_tunnels);
        let open = self.network.connections().iter().filter(|(_, connection)| connection.open).count();
        admin::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node_id: self.setup.node.node_id().to_string(),
            listen: vec![contact.addr.to_string()],
            peer: Peer(contact).to_string(),
            ready: waiting_for.is_empty(),
            waiting_for,
            peers: known.connected as u64,
            exit_paths: snapshot.exit_paths as u64,
            entry_paths: snapshot.entry_paths as u64,
            ready_tunnels: ready_tunnels as u64,
            open_connections: open as u64,
            notes: snapshot.notes,
            warnings,
            start,
            published: Vec::new(),
            own_record: known.stands.map(own_record),
            router: self.router.forwarding().words(),
            relayed_paths: snapshot.relayed_paths as u64,
            relayed_tunnels: self.counters.open_relays(),
            relayed_bytes: self.counters.relayed_bytes(),
            uptime_seconds: self.started.elapsed().as_secs(),
        }
    }

    pub(super) async fn own_paths(&self) -> Vec<admin::Path> {
        let paths = self.handle.snapshot().await.unwrap_or_default().paths;
        let one = |(path, ready): &(crate::driver::OwnPath, usize)| admin::Path {
            id: path.no.0.to_string(),
            kind: match path.work {
                Work::Spare | Work::Leaving => PathKind::Spare,
                Work::Connect => PathKind::Exit,
                Work::Ask | Work::AskAgain => PathKind::Lookup,
                Work::Serve => PathKind::Entry,
            },
            state: PathState::Ready,
            identity: path.identity.and_then(|address| self.name_of(address)),
            hops: path.hops.iter().map(hop).collect(),
            age_seconds: path.since.elapsed().as_secs(),
            ready_tunnels: *ready as u64,
        };
        paths.iter().map(one).collect()
    }

    pub(super) fn known_peers(&self) -> Vec<admin::Peer> {
        let known = self.database.known().borrow().clone();
        let now = unix_seconds();
        let one = |record: &std::sync::Arc<phantom_proto::record::NodeRecord>| {
            let id = record.contact.node_id();
            let connected = known.connected_to.contains(&id);
            let seen = if connected { Some(now) } else { known.seen.get(&id).copied() };
            admin::Peer {
                node_id: id.to_string(),
                addr: record.contact.addr.to_string(),
                connected,
                last_seen_seconds: seen.map(|seen| now.saturating_sub(seen)),
            }
        };
        known.nodes.iter().map(one).collect()
    }

    pub(super) fn connection_list(&self) -> Vec<admin::Connection> {
        let list = self.network.connections();
        let one = |(id, connection): &(u64, crate::connections::Connection)| admin::Connection {
            id: *id,
            direction: if connection.incoming { Direction::Incoming } else { Direction::Outgoing },
            state: if connection.open { ConnectionState::Open } else { ConnectionState::Closed },
            identity: self.name_of(connection.identity),
            peer_address: connection.peer.ipv6(),
            port: connection.port,
            age_seconds: connection.since.elapsed().as_secs(),
            sent_bytes: connection.traffic.sent(),
            received_bytes: connection.traffic.received(),
            moves: connection.moves,
            last_move: connection.last_move.map(str::to_owned),
            own_path: connection.path.as_ref().map(|path| path.no.0.to_string()),
            own_hops: connection.path.iter().flat_map(|path| path.hops.iter().map(hop)).collect(),
            far_node: connection.entry.as_ref().map(hop),
            far_hops: None,
        };
        list.iter().map(one).collect()
    }

    fn name_of(&self, address: ApAddress) -> Option<String> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).get(&address).cloned()
    }
}

pub(super) fn ready_tunnels(snapshot: &Snapshot) -> usize {
    snapshot.paths.iter().map(|(_, ready)| ready).sum()
}

pub(super) fn waiting_for(known: &Known, exit_paths: usize, step: Option<String>, tunnels: usize) -> String {
    if known.connected == 0 && (exit_paths == 0 || tunnels == 0) {
        if known.alone.is_some_and(|alone| alone.called == 0) {
            return "another node: this one knows none; `phantom setup --peer PEER` (the daemon stopped) or `phantom peer import FILE` \
                    joins a network"
                .to_owned();
        }
        let tries = known.alone.map(|alone| {
            let next = alone.next.saturating_duration_since(Instant::now()).as_secs();
            let times = if alone.tries == 1 { "once".to_owned() } else { format!("{} times", alone.tries) };
            format!("; tried {times}, again in {}", age(next))
        });
        let tries = tries.unwrap_or_default();
        return format!(
            "another node: none of the known ones answers{tries} (give one that does: `phantom peer import FILE`)"
        );
    }
    // Without a step there is nothing to wait for: where the stock is used up, paths were just at work, and one is built for who comes.
    match step.filter(|_| exit_paths == 0 || tunnels == 0) {
        Some(step) => format!("{step} ({} other nodes are known)", known.nodes.len()),
        None => String::new(),
    }
}
