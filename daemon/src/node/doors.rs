//! The ways in: which programs take the connections that arrive for an identity. One identity may be that of a space and
//! lend ports to others.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use phantom_ipc::publish::Ports;
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
    ports: BTreeMap<Ports, Room>,
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

    /// Whoever has published the port itself, then what runs as the identity, then whoever has published all of theirs.
    async fn behind(&self, port: u16) -> Option<Arc<dyn Programs>> {
        let (own, others) = {
            let rooms = self.rooms();
            let room = |ports| rooms.ports.get(&ports).map(|room| room.programs.clone());
            if let Some(programs) = room(Ports::One(port)) {
                return Some(programs);
            }
            (rooms.own.clone(), room(Ports::All))
        };
        let Some(others) = others else { return own };
        match own {
            Some(own) if own.listens(port).await => Some(own),
            _ => Some(others),
        }
    }
}

#[async_trait]
impl Programs for Door {
    async fn listens(&self, port: u16) -> bool {
        match self.behind(port).await {
            Some(programs) => programs.listens(port).await,
            None => false,
        }
    }

    async fn serve(&self, peer: ApAddress, src_port: u16, port: u16, far: Box<dyn Stream>) {
        if let Some(programs) = self.behind(port).await {
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

    /// Makes ports of the programs that run as `host` reachable at another identity.
    pub(super) async fn publish(
        &self,
        at: &ApIdentity,
        ports: Ports,
        host: ApAddress,
        programs: &Arc<dyn Programs>,
    ) -> Result<(), Taken> {
        let address = at.address();
        let own = self.open.lock().await.get(&address).and_then(|door| door.rooms().own.clone());
        if let (Some(own), Ports::One(port)) = (own, ports)
            && own.listens(port).await
        {
            return Err(Taken);
        }
        let mut open = self.open.lock().await;
        let door = open.entry(address).or_default();
        {
            let mut rooms = door.rooms();
            let room =
                rooms.ports.entry(ports).or_insert_with(|| Room { programs: Arc::clone(programs), host, users: 0 });
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
    pub(super) async fn unpublish(&self, address: ApAddress, ports: Ports, host: ApAddress) {
        let mut open = self.open.lock().await;
        let Some(door) = open.get(&address) else { return };
        let is_empty = {
            let mut rooms = door.rooms();
            if let Some(room) = rooms.ports.get_mut(&ports).filter(|room| room.host == host) {
                room.users -= 1;
                if room.users == 0 {
                    rooms.ports.remove(&ports);
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
            tokio::spawn(async move { doors.publish(&slow, Ports::One(80), host, &programs).await })
        };
        // It waits for the gate by now.
        tokio::task::yield_now().await;
        let others = async {
            doors.enter(&other, programs()).await;
            doors.publish(&identity(3), Ports::One(80), other.address(), &programs()).await.unwrap();
            doors.leave(other.address()).await;
        };
        timeout(PATIENCE, others).await.expect("others wait for that gate");
        let_go.add_permits(1);
        assert_eq!(timeout(PATIENCE, publishing).await.unwrap().unwrap(), Ok(()));
    }

    /// Programs that listen on some ports.
    struct On(&'static [u16]);

    #[async_trait]
    impl Programs for On {
        async fn listens(&self, port: u16) -> bool {
            self.0.contains(&port)
        }

        async fn serve(&self, _: ApAddress, _: u16, _: u16, _: Box<dyn Stream>) {}
    }

    #[tokio::test]
    async fn a_port_by_number_goes_before_ones_own_and_all_of_others_come_last() {
        let lone = lone::driver();
        let doors = Doors::new(Network::start(lone.handle, mpsc::channel(1).1));
        let (shop, host) = (identity(1), identity(2).address());
        let [one, own, all] =
            [&[80][..], &[80, 81], &[80, 81, 82]].map(|ports| Arc::new(On(ports)) as Arc<dyn Programs>);
        doors.publish(&shop, Ports::All, host, &all).await.unwrap();
        assert_eq!(doors.publish(&shop, Ports::All, identity(3).address(), &all).await, Err(Taken));
        doors.publish(&shop, Ports::One(80), identity(3).address(), &one).await.unwrap();
        doors.enter(&shop, own.clone()).await;
        assert_eq!(doors.publish(&shop, Ports::One(81), host, &all).await, Err(Taken), "it is in use");
        let door = doors.open.lock().await.get(&shop.address()).cloned().unwrap();
        for (port, programs) in [(80, &one), (81, &own), (82, &all), (83, &all)] {
            let behind = door.behind(port).await.unwrap();
            assert!(Arc::ptr_eq(&behind, programs), "{port}");
        }
        doors.unpublish(shop.address(), Ports::All, host).await;
        assert!(Arc::ptr_eq(&door.behind(82).await.unwrap(), &own));
    }
}
