//! The ways in: which programs take the connections that arrive for an identity. One identity may be that of a space and
//! lend ports to others.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use phantom_proto::crypto::SigningKey;
use phantom_proto::ident::ApAddress;

use crate::gate::Stream;
use crate::identity::ApIdentity;
use crate::network::{Network, Programs};

/// All identities that are in use.
pub(super) struct Doors {
    network: Arc<Network>,
    /// Held over the steps in the network, so that an identity's opening and closing do not overtake each other; they wait for
    /// nobody but the control task. Never held while a program or its gate is asked.
    open: tokio::sync::Mutex<HashMap<ApAddress, Arc<Door>>>,
}

/// A port is published at the identity by others.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken;

/// One identity's.
#[derive(Default)]
struct Door(Mutex<Rooms>);

#[derive(Default)]
struct Rooms {
    /// Programs that run as the identity.
    own: Option<Arc<dyn Programs>>,
    /// Ports that programs of other identities publish here.
    ports: BTreeMap<u16, Room>,
}

struct Room {
    programs: Arc<dyn Programs>,
    /// As whom they run.
    host: ApAddress,
    /// How often they said it.
    users: usize,
}

impl Door {
    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn behind(&self, port: u16) -> Option<Arc<dyn Programs>> {
        let rooms = self.rooms();
        rooms.ports.get(&port).map(|room| &room.programs).or(rooms.own.as_ref()).cloned()
    }
}

#[async_trait]
impl Programs for Door {
    async fn listens(&self, port: u16) -> bool {
        match self.behind(port) {
            Some(programs) => programs.listens(port).await,
            None => false,
        }
    }

    async fn serve(&self, peer: ApAddress, src_port: u16, port: u16, far: Box<dyn Stream>) {
        if let Some(programs) = self.behind(port) {
            programs.serve(peer, src_port, port, far).await;
        }
    }
}

fn key(identity: &ApIdentity) -> Arc<SigningKey> {
    Arc::new(SigningKey::from_seed(identity.key.seed()))
}

impl Doors {
    /// None open.
    pub(super) fn new(network: Arc<Network>) -> Self {
        Self { network, open: tokio::sync::Mutex::default() }
    }

    /// What connections go through.
    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    /// Programs begin to run as `identity`.
    pub(super) async fn enter(&self, identity: &ApIdentity, programs: Arc<dyn Programs>) {
        let mut open = self.open.lock().await;
        let door = open.entry(identity.address()).or_default();
        door.rooms().own = Some(programs);
        self.network.open(key(identity), Arc::clone(door) as Arc<dyn Programs>).await;
    }

    /// Nobody runs as the identity any more.
    pub(super) async fn leave(&self, address: ApAddress) {
        let mut open = self.open.lock().await;
        let Some(door) = open.get(&address) else { return };
        let is_empty = {
            let mut rooms = door.rooms();
            rooms.own = None;
            rooms.ports.is_empty()
        };
        self.close_if(is_empty, address, &mut open).await;
    }

    /// Makes a port of the programs that run as `host` reachable at another identity.
    pub(super) async fn publish(
        &self,
        at: &ApIdentity,
        port: u16,
        host: ApAddress,
        programs: &Arc<dyn Programs>,
    ) -> Result<(), Taken> {
        let address = at.address();
        let own = self.open.lock().await.get(&address).and_then(|door| door.rooms().own.clone());
        if let Some(own) = own
            && own.listens(port).await
        {
            return Err(Taken);
        }
        let mut open = self.open.lock().await;
        let door = open.entry(address).or_default();
        {
            let mut rooms = door.rooms();
            let room =
                rooms.ports.entry(port).or_insert_with(|| Room { programs: Arc::clone(programs), host, users: 0 });
            if room.host != host {
                return Err(Taken);
            }
            room.users += 1;
        }
        self.network.receive(key(at), Arc::clone(door) as Arc<dyn Programs>);
        self.network.publish(address).await;
        Ok(())
    }

    /// Takes one [`Doors::publish`] back.
    pub(super) async fn unpublish(&self, address: ApAddress, port: u16, host: ApAddress) {
        let mut open = self.open.lock().await;
        let Some(door) = open.get(&address) else { return };
        let is_empty = {
            let mut rooms = door.rooms();
            if let Some(room) = rooms.ports.get_mut(&port).filter(|room| room.host == host) {
                room.users -= 1;
                if room.users == 0 {
                    rooms.ports.remove(&port);
                }
            }
            rooms.own.is_none() && rooms.ports.is_empty()
        };
        self.close_if(is_empty, address, &mut open).await;
    }

    async fn close_if(&self, is_empty: bool, address: ApAddress, open: &mut HashMap<ApAddress, Arc<Door>>) {
        if is_empty {
            open.remove(&address);
            self.network.close(address).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;
    use crate::node::lone;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Programs whose gate does not answer until it is let.
    struct Stuck(Arc<tokio::sync::Semaphore>);

    #[async_trait]
    impl Programs for Stuck {
        async fn listens(&self, _: u16) -> bool {
            self.0.acquire().await.is_err()
        }

        async fn serve(&self, _: ApAddress, _: u16, _: u16, _: Box<dyn Stream>) {}
    }

    fn identity(seed: u8) -> ApIdentity {
        ApIdentity { name: None, key: SigningKey::from_seed(&[seed; 32]) }
    }

    /// One user's gate that hangs kept every other user's programs from starting and ending.
    #[tokio::test]
    async fn a_gate_that_does_not_answer_holds_up_nobody_else() {
        let lone = lone::driver();
        let doors = Arc::new(Doors::new(Network::start(lone.handle, mpsc::channel(1).1)));
        let let_go = Arc::new(tokio::sync::Semaphore::new(0));
        let (slow, other) = (identity(1), identity(2));
        let programs = || Arc::new(Stuck(let_go.clone())) as Arc<dyn Programs>;
        doors.enter(&slow, programs()).await;
        let publishing = {
            let (doors, slow, programs, host) = (doors.clone(), identity(1), programs(), other.address());
            tokio::spawn(async move { doors.publish(&slow, 80, host, &programs).await })
        };
        // It waits for the gate by now.
        tokio::task::yield_now().await;
        let others = async {
            doors.enter(&other, programs()).await;
            doors.publish(&identity(3), 80, other.address(), &programs()).await.unwrap();
            doors.leave(other.address()).await;
        };
        timeout(PATIENCE, others).await.expect("others wait for that gate");
        let_go.add_permits(1);
        assert_eq!(timeout(PATIENCE, publishing).await.unwrap().unwrap(), Ok(()));
    }
}
