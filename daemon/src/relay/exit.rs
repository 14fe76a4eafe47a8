//! What a terminating node does for the owner of a path over one tunnel: joins an entry node, or asks the database.

use std::sync::Arc;
use std::time::Duration;

use phantom_proto::cell::CellKind;
use phantom_proto::ident::{ApAddress, NodeId};
use phantom_proto::wire::NodeContact;
use phantom_proto::wire::cells::Open;
use phantom_proto::wire::frame::{Reason, kind};
use tokio::time::timeout;

use super::cells::Tunnel;
use super::join::{Joined, carry};
use super::{Back, Counters, RelayError, Relayed, Taken};
use crate::link::LinkPool;
use crate::netdb::Database;

/// How long a database look-up may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(15);

/// How long the owner may take to take the few bytes of an answer.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// What a terminating node needs of the rest of the daemon.
#[derive(Clone)]
pub struct ExitServices {
    /// Finds nodes.
    pub database: Arc<dyn Database>,
    /// Opens links to entry nodes.
    pub links: Arc<LinkPool>,
    /// Counts tunnels of others, those that end here and are used among them: each holds two links, or a look-up.
    pub counters: Arc<Counters>,
    /// How many there may be.
    pub most: u64,
    /// Where links to entry nodes go after their use.
    pub back: Option<Back>,
}

impl ExitServices {
    /// Room for one more; without it, the owner hears so.
    async fn room(&self, tunnel: Tunnel) -> Result<(Relayed, Tunnel), RelayError> {
        let Some(room) = self.counters.relay(self.most) else {
            tunnel.abort(Reason::Busy).await;
            return Err(RelayError::Aborted(Reason::Busy));
        };
        Ok((room, tunnel))
    }
}

/// OPEN: joins the handle at the entry node and carries the session. Whom the handle leads to is not said here.
///
/// `first`: the path leads to this entry node for the first time. Then no warm link is used: how soon the answer comes would tell
/// whether somebody else was there before.
// protocol: U9
pub async fn connect(tunnel: Tunnel, open: Open, first: bool, services: ExitServices) -> Result<(), RelayError> {
    let (_room, tunnel) = services.room(tunnel).await?;
    match join(&open, first, &services).await {
        Ok(joined) => carry(tunnel, joined).await,
        Err(error) => {
            tunnel.abort(error.reason()).await;
            Err(error)
        }
    }
}

// protocol: U7
async fn join(open: &Open, first: bool, services: &ExitServices) -> Result<Joined, RelayError> {
    let unreachable = RelayError::Aborted(Reason::Unreachable);
    let Some(entry) = contact(&*services.database, open.node).await else { return Err(unreachable) };
    let links = &services.links;
    let link = if first { links.dial(&entry).await } else { links.take(&entry).await };
    let (reader, mut writer) = link.map_err(|_| unreachable)?.into_frames();
    writer.write(kind::JOIN, &open.handle).await?;
    if !open.first.is_empty() {
        writer.write(kind::BYTES, &open.first).await?;
    }
    writer.flush().await?;
    Ok(Joined { link: Taken { reader, writer, back: services.back.clone() }, asked: true })
}

/// Where the node itself says that it is: an owner cannot make us dial anything but nodes.
async fn contact(database: &dyn Database, node: NodeId) -> Option<NodeContact> {
    timeout(LOOKUP_LIMIT, database.contact(node)).await.ok()?.ok()?
}

/// LOOKUP: answers with the AP record of an address, or says that there is none.
// protocol: U13, D8
pub async fn look_up(tunnel: Tunnel, address: ApAddress, services: ExitServices) -> Result<(), RelayError> {
    let (_room, mut tunnel) = services.room(tunnel).await?;
    let reason = match timeout(LOOKUP_LIMIT, services.database.lookup(address)).await {
        Ok(Ok(Some((_, record)))) => {
            let found = async {
                tunnel.outgoing.write(CellKind::Found, &record).await?;
                tunnel.outgoing.flush().await
            };
            timeout(WRITE_LIMIT, found).await.map_err(|_| RelayError::TimedOut)??;
            tunnel.close().await;
            return Ok(());
        }
        Ok(Ok(None)) => Reason::NoSuchAddress,
        Ok(Err(_)) | Err(_) => Reason::Unreachable,
    };
    tunnel.abort(reason).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use phantom_proto::crypto::SigningKey;

    use super::*;
    use crate::link::MemoryNetwork;
    use crate::netdb::MemoryDatabase;
    use crate::relay::cells::pair as tunnel;

    /// A node in a network in which nobody answers, with room for so many tunnels of others.
    fn services(most: u64) -> (ExitServices, NodeContact) {
        let contact = |seed| NodeContact {
            identity: SigningKey::from_seed(&[seed; 32]).verifying_key(),
            addr: ([10, seed, 0, 1], 443).into(),
            link_secret: [0; 32],
        };
        let (network, database) = (MemoryNetwork::default(), MemoryDatabase::default());
        let entry = contact(2);
        database.add(entry.clone());
        let links = Arc::new(LinkPool::new(Arc::new(network.join(contact(1)))));
        (ExitServices { database: Arc::new(database), links, counters: Arc::default(), most, back: None }, entry)
    }

    async fn reason(owner: &mut Tunnel) -> Option<Reason> {
        match owner.incoming.read().await.unwrap() {
            Some((CellKind::Abort, [reason])) => Some(Reason::from_byte(*reason)),
            _ => None,
        }
    }

    /// What owners had a terminating node hold for them was bounded by nothing but their patience.
    // protocol: F16, U13, U9, U26
    #[tokio::test]
    async fn a_node_without_room_does_nothing_for_owners_and_says_so() {
        let address = ApAddress::of(&SigningKey::from_seed(&[3; 32]).verifying_key());
        for (most, opened, found) in [(0, Reason::Busy, Reason::Busy), (1, Reason::Unreachable, Reason::NoSuchAddress)]
        {
            let (services, entry) = services(most);
            let open = Open { node: entry.node_id(), handle: [1; 16], first: Vec::new() };
            let [end, mut owner] = tunnel(1 << 16);
            assert!(connect(end, open, true, services.clone()).await.is_err());
            assert_eq!(reason(&mut owner).await, Some(opened));
            let [end, mut owner] = tunnel(1 << 16);
            let _ = look_up(end, address, services.clone()).await;
            assert_eq!(reason(&mut owner).await, Some(found));
            assert_eq!(services.counters.open_relays(), 0, "the room is free again");
        }
    }

    /// A link that is warm because of somebody else would show that in how soon the answer comes.
    // protocol: B7, B8
    #[tokio::test]
    async fn the_first_open_of_a_path_to_an_entry_node_uses_no_warm_link() {
        let contact = |seed| NodeContact {
            identity: SigningKey::from_seed(&[seed; 32]).verifying_key(),
            addr: ([10, seed, 0, 1], 443).into(),
            link_secret: [0; 32],
        };
        let (network, database, entry) = (MemoryNetwork::default(), MemoryDatabase::default(), contact(2));
        database.add(entry.clone());
        let _entry_node = network.join(entry.clone());
        let links = Arc::new(LinkPool::new(Arc::new(network.join(contact(1)))));
        let (reader, writer) = links.dial(&entry).await.unwrap().into_frames();
        links.give_back(reader, writer);
        let services = ExitServices {
            database: Arc::new(database),
            links: links.clone(),
            counters: Arc::default(),
            most: 1,
            back: None,
        };
        let open = Open { node: entry.node_id(), handle: [1; 16], first: Vec::new() };
        let _first = join(&open, true, &services).await.unwrap();
        assert_eq!(links.ready(&entry), 1, "it took the warm one");
        let _second = join(&open, false, &services).await.unwrap();
        assert_eq!(links.ready(&entry), 0, "it dialed anew");
    }
}
