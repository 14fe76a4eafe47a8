//! Does what an exit says, at the terminating node of a path: joins an entry node, or asks the database for the path's owner.

use std::sync::Arc;

use phantom_proto::ident::{ApAddress, NodeId};
use phantom_proto::terminating::{Exit, ExitInput as Input, ExitOutput as Output};
use phantom_proto::wire::NodeContact;
use phantom_proto::wire::cells::{Open, Word};
use phantom_proto::wire::frame::{Handle, kind};

use super::cells::Tunnel;
use super::join::{Joined, carry};
use super::{Back, Counters, RelayError, Relayed, Steps, Taken};
use crate::link::LinkPool;
use crate::link::frame::LinkWriter;
use crate::netdb::{Database, Origin};

/// What a terminating node needs of the rest of the daemon.
#[derive(Clone)]
pub struct ExitServices {
    /// Finds nodes.
    pub database: Arc<dyn Database>,
    /// For whom.
    pub origin: Origin,
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
    /// Room for one more, as long as it lives.
    fn room(&self) -> Option<Relayed> {
        self.counters.relay(self.most)
    }

    /// Where the node itself says that it is: an owner cannot make us dial anything but nodes.
    async fn find(&self, node: NodeId) -> Input {
        Input::Contact(self.database.contact(self.origin, node).await.ok().flatten())
    }

    async fn look_up(&self, address: ApAddress) -> Input {
        match self.database.lookup(self.origin, address).await {
            Ok(Some((_, record))) => Input::Record(record),
            Ok(None) => Input::NoRecord,
            Err(_) => Input::NoAnswer,
        }
    }

    async fn dial(&self, to: &NodeContact, anew: bool) -> Option<Taken> {
        let link = if anew { self.links.dial(to).await } else { self.links.take(to).await };
        let (reader, writer) = link.ok()?.into_frames();
        Some(Taken { reader, writer, back: self.back.clone() })
    }
}

/// OPEN: joins the handle at the entry node and carries the session. Whom the handle leads to is not said here. `anew`: the path leads
/// to this entry node for the first time.
///
/// # Errors
/// How what was carried ended, or why nothing was.
pub async fn connect(tunnel: Tunnel, open: Open, anew: bool, services: ExitServices) -> Result<(), RelayError> {
    let (steps, room) = (Steps::default(), services.room());
    let exit = Exit::open(steps.now(), open, anew, room.is_some());
    run(exit, steps, tunnel, &services).await
}

/// LOOKUP: answers with the AP record of an address, or says that there is none.
///
/// # Errors
/// Why there was no answer.
// protocol: D8
pub async fn look_up(tunnel: Tunnel, address: ApAddress, services: ExitServices) -> Result<(), RelayError> {
    let (steps, room) = (Steps::default(), services.room());
    let exit = Exit::look_up(steps.now(), address, room.is_some());
    run(exit, steps, tunnel, &services).await
}

async fn run(mut exit: Exit, steps: Steps, mut tunnel: Tunnel, services: &ExitServices) -> Result<(), RelayError> {
    let mut link = None;
    while let Some(output) = exit.poll() {
        let due = exit.deadline();
        let done = match output {
            Output::Find(node) => steps.by(due, services.find(node)).await,
            Output::LookUp(address) => steps.by(due, services.look_up(address)).await,
            Output::Dial { to, anew } => {
                link = steps.by(due, services.dial(&to, anew)).await.flatten();
                Some(Input::Dialed(link.is_some()))
            }
            Output::Join { handle, first } => {
                let writer = link.as_mut().map(|link: &mut Taken| &mut link.writer);
                steps.by(due, join(writer, &handle, &first)).await.map(Input::Sent)
            }
            Output::Answer(record) => steps.by(due, answer(&mut tunnel, &record)).await.map(Input::Sent),
            Output::Carry => {
                let Some(link) = link else { return Err(RelayError::Ended) };
                return carry(tunnel, Joined { link, asked: true }).await;
            }
            Output::Close => {
                tunnel.close().await;
                return Ok(());
            }
            Output::Abort(reason) => {
                drop(link);
                tunnel.abort(reason).await;
                return Err(RelayError::Aborted(reason));
            }
            Output::Drop => return Err(RelayError::Ended),
        };
        match done {
            Some(input) => exit.handle(steps.now(), input),
            None => exit.tick(due.unwrap_or(u64::MAX)),
        }
    }
    Ok(())
}

async fn join(writer: Option<&mut LinkWriter>, handle: &Handle, first: &[u8]) -> bool {
    let Some(writer) = writer else { return false };
    let send = async {
        writer.write(kind::JOIN, handle).await?;
        if !first.is_empty() {
            writer.write(kind::BYTES, first).await?;
        }
        writer.flush().await
    };
    send.await.is_ok()
}

async fn answer(tunnel: &mut Tunnel, record: &[u8]) -> bool {
    tunnel.outgoing.say(&Word::Found(record)).await.is_ok() && tunnel.outgoing.flush().await.is_ok()
}

#[cfg(test)]
mod tests {
    use phantom_proto::cell::CellKind;
    use phantom_proto::crypto::SigningKey;
    use phantom_proto::wire::frame::Reason;

    use super::*;
    use crate::link::{MemoryNetwork, Transport};
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
        (
            ExitServices {
                database: Arc::new(database),
                origin: Origin::Own,
                links,
                counters: Arc::default(),
                most,
                back: None,
            },
            entry,
        )
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
        let entry_node = network.join(entry.clone());
        let links = Arc::new(LinkPool::new(Arc::new(network.join(contact(1)))));
        let (reader, writer) = links.dial(&entry).await.unwrap().into_frames();
        links.give_back(reader, writer);
        let services = ExitServices {
            database: Arc::new(database),
            origin: Origin::Own,
            links: links.clone(),
            counters: Arc::default(),
            most: 2,
            back: None,
        };
        let mut owners = Vec::new();
        let mut opens = |anew| {
            let open = Open { node: entry.node_id(), handle: [1; 16], first: b"first".to_vec() };
            let [end, owner] = tunnel(1 << 16);
            owners.push((owner, tokio::spawn(connect(end, open, anew, services.clone()))));
        };
        let mut warm = entry_node.accept().await.unwrap().into_frames();
        opens(true);
        let mut fresh = entry_node.accept().await.unwrap().into_frames();
        for (reader, left) in [(&mut fresh.0, 1), (&mut warm.0, 0)] {
            for (kind, payload) in [(kind::JOIN, &[1; 16][..]), (kind::BYTES, b"first")] {
                let frame = reader.read().await.unwrap().unwrap();
                assert_eq!((frame.kind, &frame.payload[..]), (kind, payload));
            }
            assert_eq!(links.ready(&entry), left);
            if left > 0 {
                opens(false);
            }
        }
    }
}
