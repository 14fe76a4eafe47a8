//! The ways in: which programs take the connections that arrive for an identity. One identity may be that of a space and
//! lend ports to others.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use phantom_ipc::publish::Ports;
use phantom_proto::crypto::SigningKey;
use phantom_proto::ident::ApAddress;

use crate::connections::{Network, Programs};
use crate::far::Stream;
use crate::identity::ApIdentity;

/// All identities that are in use.
pub(super) struct Arrivals {
    network: Arc<Network>,
    /// Held over the steps in the network, so that an identity's opening and closing do not overtake each other; they wait for
    /// nobody but the control task. Never held while a program or its gate is asked.
    open: tokio::sync::Mutex<HashMap<ApAddress, Arc<Reception>>>,
}

/// A port is published at the identity by others.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken;

/// One identity's.
#[derive(Default)]
struct Reception(Mutex<Rooms>);

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

impl Reception {
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
impl Programs for Reception {
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

impl Arrivals {
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
        let reception = open.entry(identity.address()).or_default();
        reception.rooms().own = Some(programs);
        self.network.open(key(identity), Arc::clone(reception) as Arc<dyn Programs>).await;
    }

    /// Nobody runs as the identity any more.
    pub(super) async fn leave(&self, address: ApAddress) {
        let mut open = self.open.lock().await;
        let Some(reception) = open.get(&address) else { return };
        let is_empty = {
            let mut rooms = reception.rooms();
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
        let own = self.open.lock().await.get(&address).and_then(|reception| reception.rooms().own.clone());
        if let (Some(own), Ports::One(port)) = (own, ports)
            && own.listens(port).await
        {
            return Err(Taken);
        }
        let mut open = self.open.lock().await;
        let reception = open.entry(address).or_default();
        {
            let mut rooms = reception.rooms();
            let room =
                rooms.ports.entry(ports).or_insert_with(|| Room { programs: Arc::clone(programs), host, users: 0 });
            if room.host != host {
                return Err(Taken);
            }
            room.users += 1;
        }
        self.network.receive(key(at), Arc::clone(reception) as Arc<dyn Programs>);
        self.network.publish(address).await;
        Ok(())
    }

    /// Takes one [`Arrivals::publish`] back.
    pub(super) async fn unpublish(&self, address: ApAddress, ports: Ports, host: ApAddress) {
        let mut open = self.open.lock().await;
        let Some(reception) = open.get(&address) else { return };
        let is_empty = {
            let mut rooms = reception.rooms();
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

    async fn close_if(&self, is_empty: bool, address: ApAddress, open: &mut HashMap<ApAddress, Arc<Reception>>) {
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
    use crate::assembly::lone;
    use crate::identity::Whose;

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
        ApIdentity { name: None, whose: Whose::Operator, key: SigningKey::from_seed(&[seed; 32]) }
    }

    /// One user's gate that hangs kept every other user's programs from starting and ending.
    #[tokio::test]
    async fn a_gate_that_does_not_answer_holds_up_nobody_else() {
        let lone = lone::driver();
        let arrivals = Arc::new(Arrivals::new(Network::start(lone.handle, mpsc::channel(1).1)));
        let let_go = Arc::new(tokio::sync::Semaphore::new(0));
        let (slow, other) = (identity(1), identity(2));
        let programs = || Arc::new(Stuck(let_go.clone())) as Arc<dyn Programs>;
        arrivals.enter(&slow, programs()).await;
        let publishing = {
            let (arrivals, slow, programs, host) = (arrivals.clone(), identity(1), programs(), other.address());
            tokio::spawn(async move { arrivals.publish(&slow, Ports::One(80), host, &programs).await })
        };
        // It waits for the gate by now.
        tokio::task::yield_now().await;
        let others = async {
            arrivals.enter(&other, programs()).await;
            arrivals.publish(&identity(3), Ports::One(80), other.address(), &programs()).await.unwrap();
            arrivals.leave(other.address()).await;
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
        let arrivals = Arrivals::new(Network::start(lone.handle, mpsc::channel(1).1));
        let (shop, host) = (identity(1), identity(2).address());
        let [one, own, all] =
            [&[80][..], &[80, 81], &[80, 81, 82]].map(|ports| Arc::new(On(ports)) as Arc<dyn Programs>);
        arrivals.publish(&shop, Ports::All, host, &all).await.unwrap();
        assert_eq!(arrivals.publish(&shop, Ports::All, identity(3).address(), &all).await, Err(Taken));
        arrivals.publish(&shop, Ports::One(80), identity(3).address(), &one).await.unwrap();
        arrivals.enter(&shop, own.clone()).await;
        assert_eq!(arrivals.publish(&shop, Ports::One(81), host, &all).await, Err(Taken), "it is in use");
        let reception = arrivals.open.lock().await.get(&shop.address()).cloned().unwrap();
        for (port, programs) in [(80, &one), (81, &own), (82, &all), (83, &all)] {
            let behind = reception.behind(port).await.unwrap();
            assert!(Arc::ptr_eq(&behind, programs), "{port}");
        }
        arrivals.unpublish(shop.address(), Ports::All, host).await;
        assert!(Arc::ptr_eq(&reception.behind(82).await.unwrap(), &own));
    }
}
