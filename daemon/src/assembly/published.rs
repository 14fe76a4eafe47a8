//! What programs of one identity have published: nothing else of them is reached.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use phantom_ipc::publish::{MAX_PORTS, Ports};
use phantom_proto::ident::ApAddress;

use crate::connections::Programs;
use crate::far::Stream;

/// Ports, by where they are reached.
#[derive(Default)]
pub(super) struct Published(Mutex<List>);

#[derive(Default)]
struct List {
    /// And by how many connections.
    ports: BTreeMap<(ApAddress, Ports), usize>,
    /// Those that stay until the identity is closed, which count as one connection.
    staying: BTreeSet<(ApAddress, Ports)>,
}

/// More ports stay than one identity may keep.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Published {
    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a port is reached at that identity.
    fn admits(&self, at: ApAddress, port: u16) -> bool {
        let list = self.list();
        [Ports::One(port), Ports::All].into_iter().any(|ports| list.ports.contains_key(&(at, ports)))
    }

    /// Whether a port is reached anywhere.
    pub(super) fn admits_anywhere(&self, port: u16) -> bool {
        self.list().ports.keys().any(|(_, ports)| matches!(ports, Ports::All) || *ports == Ports::One(port))
    }

    /// One more connection has it published.
    pub(super) fn add(&self, at: ApAddress, ports: Ports) {
        *self.list().ports.entry((at, ports)).or_default() += 1;
    }

    /// Whether it is to be published, until the identity is closed: false when it is already.
    pub(super) fn keep(&self, at: ApAddress, ports: Ports) -> Result<bool, TooMany> {
        let mut list = self.list();
        if list.staying.contains(&(at, ports)) {
            return Ok(false);
        }
        if list.staying.len() >= MAX_PORTS {
            return Err(TooMany);
        }
        list.staying.insert((at, ports));
        *list.ports.entry((at, ports)).or_default() += 1;
        Ok(true)
    }

    /// Takes one [`Published::add`] or [`Published::keep`] back.
    pub(super) fn remove(&self, at: ApAddress, ports: Ports, stayed: bool) {
        let mut list = self.list();
        if stayed {
            list.staying.remove(&(at, ports));
        }
        if let Some(times) = list.ports.get_mut(&(at, ports)) {
            *times -= 1;
            if *times == 0 {
                list.ports.remove(&(at, ports));
            }
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<(ApAddress, Ports)> {
        self.list().ports.keys().copied().collect()
    }

    /// Those that stay until the identity is closed.
    pub(super) fn staying(&self) -> Vec<(ApAddress, Ports)> {
        self.list().staying.iter().copied().collect()
    }
}

/// The programs at their own identity: what they have published there.
pub(super) struct Own {
    pub(super) address: ApAddress,
    pub(super) inside: Arc<dyn Programs>,
    pub(super) published: Arc<Published>,
}

#[async_trait]
impl Programs for Own {
    async fn listens(&self, port: u16) -> bool {
        self.published.admits(self.address, port) && self.inside.listens(port).await
    }

    async fn serve(&self, peer: ApAddress, src_port: u16, port: u16, far: Box<dyn Stream>) {
        if self.published.admits(self.address, port) {
            self.inside.serve(peer, src_port, port, far).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use phantom_proto::crypto::SigningKey;
    use tokio::io::duplex;

    use super::*;

    fn address(number: u8) -> ApAddress {
        ApAddress::of(&SigningKey::from_seed(&[number; 32]).verifying_key())
    }

    /// Listens on every port, and counts who comes.
    #[derive(Default)]
    struct Everything(Mutex<Vec<u16>>);

    #[async_trait]
    impl Programs for Everything {
        async fn listens(&self, _: u16) -> bool {
            true
        }

        async fn serve(&self, _: ApAddress, _: u16, port: u16, _: Box<dyn Stream>) {
            self.0.lock().unwrap().push(port);
        }
    }

    #[tokio::test]
    async fn nothing_is_reached_that_was_not_published() {
        let (inside, published) = (Arc::new(Everything::default()), Arc::<Published>::default());
        let own = Own { address: address(1), inside: inside.clone(), published: published.clone() };
        let reached = async |port| {
            own.serve(address(9), 1, port, Box::new(duplex(1).0)).await;
            let served = inside.0.lock().unwrap().pop() == Some(port);
            assert_eq!(own.listens(port).await, served, "{port}");
            served
        };
        assert!(!reached(80).await);
        published.add(address(1), Ports::One(80));
        // At another identity, which is asked for by itself.
        published.add(address(2), Ports::One(81));
        published.add(address(2), Ports::All);
        assert_eq!([reached(80).await, reached(81).await, reached(82).await], [true, false, false]);
        published.add(address(1), Ports::All);
        assert_eq!([reached(80).await, reached(81).await], [true, true]);
        published.remove(address(1), Ports::All, false);
        published.remove(address(1), Ports::One(80), false);
        assert_eq!([reached(80).await, reached(81).await], [false, false]);
    }

    #[test]
    fn what_stays_counts_once_and_is_bounded() {
        let published = Published::default();
        assert_eq!(published.keep(address(1), Ports::One(80)), Ok(true));
        assert_eq!(published.keep(address(1), Ports::One(80)), Ok(false));
        published.add(address(1), Ports::One(80));
        published.remove(address(1), Ports::One(80), false);
        assert!(published.admits(address(1), 80), "it stays");
        for port in 1..MAX_PORTS as u16 {
            assert_eq!(published.keep(address(2), Ports::One(port)), Ok(true));
        }
        assert_eq!(published.keep(address(2), Ports::One(1000)), Err(TooMany));
        published.remove(address(1), Ports::One(80), true);
        assert_eq!(published.keep(address(2), Ports::One(1000)), Ok(true));
        assert_eq!(published.staying().len(), MAX_PORTS);
    }
}
