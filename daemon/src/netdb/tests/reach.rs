//! Whether others can open links to a node: asked for, found out, and what follows for its part in the DHT.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use phantom_proto::ident::NodeId;
use phantom_proto::wire::Wire;
use tokio::time::sleep;

use super::*;
use crate::link::LinkError;

/// A node that finds out by itself.
fn finds_out(network: &MemoryNetwork, seed: u8, peers: Vec<NodeContact>) -> NetDb {
    let config = config(network, seed, peers, Vec::new(), Vec::new(), Commands::nobody());
    NetDb::start(NetDbConfig { reachable: None, ..config }).unwrap()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(Duration::from_secs(4000), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

async fn has_record(database: &NetDb, seed: u8) -> bool {
    matches!(database.node(contact(seed).node_id()).await, Ok(Some(_)))
}

/// The life of a computer whose router is opened for it, and closed.
// protocol: J19, J20, J21, J22, J23, Q22, D22
#[tokio::test(start_paused = true)]
async fn a_node_publishes_and_is_told_of_only_while_others_can_open_links_to_it() {
    let network = MemoryNetwork::default();
    let at = contact(9).addr;
    network.hide(at, true);
    let others: Vec<_> = (1..6).map(|seed| node(&network, seed, (1..seed).map(contact).collect())).collect();
    let hidden = finds_out(&network, 9, (1..6).map(contact).collect());
    hidden.register(&record(9)).await;
    let knows = |is| move |hidden: &NetDb| hidden.known().borrow().reachable == Some(is);
    until("it finds out that it cannot be reached", async || knows(false)(&hidden)).await;
    assert_eq!(hidden.known().borrow().connected, 5, "it connects to all");
    let is_told = async |id: NodeId| others[0].some(64).await.iter().any(|contact| contact.node_id() == id);
    sleep(Duration::from_secs(60)).await;
    assert!(!has_record(&others[1], 9).await && !is_told(contact(9).node_id()).await, "others know of it");

    network.hide(at, false);
    until("it finds out that it can", async || knows(true)(&hidden)).await;
    until("its record is there", async || has_record(&others[1], 9).await).await;
    until("it has a place in routing tables", async || is_told(contact(9).node_id()).await).await;

    network.hide(at, true);
    until("it finds out that it cannot any more", async || knows(false)(&hidden)).await;
    until("it has no place any more", async || !is_told(contact(9).node_id()).await).await;
}

/// The links of a computer that is carried about.
struct Carried {
    here: Mutex<Arc<dyn Transport>>,
    incoming_tx: mpsc::Sender<Link>,
}

impl Carried {
    fn here(&self) -> Arc<dyn Transport> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn goes_to(&self, place: Arc<dyn Transport>) {
        *self.here.lock().unwrap_or_else(PoisonError::into_inner) = place.clone();
        let incoming_tx = self.incoming_tx.clone();
        tokio::spawn(async move {
            while let Some(link) = place.accept().await {
                let _ = incoming_tx.send(link).await;
            }
        });
    }
}

#[async_trait]
impl Transport for Carried {
    async fn dial(&self, peer: &NodeContact, purpose: Purpose) -> Result<Link, LinkError> {
        self.here().dial(peer, purpose).await
    }

    async fn accept(&self) -> Option<Link> {
        std::future::pending().await
    }

    fn local_addr(&self) -> SocketAddr {
        self.here().local_addr()
    }

    async fn close(&self) {
        self.here().close().await;
    }
}

/// What was found out at one address says nothing of the next: no record names that before somebody has come there.
// protocol: J26, Q22
#[tokio::test(start_paused = true)]
async fn a_node_whose_address_changes_is_told_of_at_the_new_one_once_others_reach_it_there() {
    let network = MemoryNetwork::default();
    let others: Vec<_> = (1..6).map(|seed| node(&network, seed, (1..seed).map(contact).collect())).collect();
    let (incoming_tx, incoming_rx) = mpsc::channel(16);
    let carried = Arc::new(Carried { here: Mutex::new(Arc::new(network.join(contact(9)))), incoming_tx });
    carried.goes_to(carried.here());
    let config = config(&network, 8, (1..6).map(contact).collect(), Vec::new(), Vec::new(), Commands::nobody());
    let own = contact(9);
    let config = NetDbConfig { own: own.clone(), reachable: None, links: carried.clone(), incoming_rx, ..config };
    let database = NetDb::start(config).unwrap();
    database.register(&record(9)).await;
    let reachable = || database.known().borrow().reachable;
    let told = async || others[1].node(own.node_id()).await.ok().flatten().map(|record| record.contact.addr);
    until("it is told of", async || told().await == Some(own.addr)).await;

    let new = NodeContact { addr: SocketAddr::from(([10, 77, 0, 1], 443)), ..own.clone() };
    // It has left the old one, and is let in at the new one by nobody.
    network.hide(own.addr, true);
    network.hide(new.addr, true);
    carried.goes_to(Arc::new(network.join(new.clone())));
    database.at(new.clone()).await;
    let before = record(9).check(unix_seconds()).unwrap();
    let moved = NodeRecord { contact: new.clone(), revision: 1, ..before };
    database.register(&Signed::sign(&moved, &SigningKey::from_seed(&[9; 32]))).await;
    until("nobody reaches it there", async || reachable() == Some(false)).await;
    sleep(Duration::from_secs(60)).await;
    assert_ne!(told().await, Some(new.addr), "it is told of where nobody reaches it");

    network.hide(new.addr, false);
    until("it is told of there", async || told().await == Some(new.addr)).await;
    assert_eq!(reachable(), Some(true));
}

/// What the operator says is not tested.
#[tokio::test(start_paused = true)]
async fn who_has_said_it_asks_nobody() {
    let network = MemoryNetwork::default();
    let _other = node(&network, 1, Vec::new());
    for is_reachable in [true, false] {
        let config = config(&network, 9, vec![contact(1)], Vec::new(), Vec::new(), Commands::nobody());
        let said = NetDb::start(NetDbConfig { reachable: Some(is_reachable), ..config }).unwrap();
        network.hide(contact(9).addr, is_reachable);
        sleep(Duration::from_secs(3000)).await;
        assert_eq!(said.known().borrow().reachable, Some(is_reachable));
    }
}

/// Whoever is asked is sent to nobody but to who asks, and not again and again.
// protocol: J20
#[tokio::test(start_paused = true)]
async fn a_node_opens_links_to_who_asks_alone_and_once_a_minute() {
    let network = MemoryNetwork::default();
    let _asked = node(&network, 1, Vec::new());
    let stranger = Stranger::dial(&network, 1).await;
    // The stranger is node 3, and others are listening.
    let (own, victim) = (network.join(contact(3)), network.join(contact(4)));
    let ask = async |contact: NodeContact| {
        let mut stream = stranger.tell("/phantom/reach/1", &contact.to_bytes()).await;
        stream.close().await.unwrap();
        let mut answer = Vec::new();
        // Who says nothing may end it in any way.
        let _ = stream.read_to_end(&mut answer).await;
        answer
    };
    let came = async |links: &dyn Transport| timeout(Duration::from_secs(5), links.accept()).await.is_ok();
    assert_eq!(ask(contact(4)).await, [0]);
    assert!(!came(&victim).await, "it was sent to somebody else");
    let elsewhere = NodeContact { addr: contact(4).addr, ..contact(3) };
    assert_eq!(ask(elsewhere).await, [0]);
    assert!(!came(&victim).await, "it was sent elsewhere");
    let (answer, link) = tokio::join!(ask(contact(3)), own.accept());
    assert_eq!((answer, link.unwrap().peer), (vec![0], contact(1).identity));
    assert_eq!(ask(contact(3)).await, [0; 0], "it would count as a link that did not come");
    assert!(!came(&own).await, "it comes again at once");
    sleep(Duration::from_secs(61)).await;
    let (_, link) = tokio::join!(ask(contact(3)), own.accept());
    assert!(link.is_some());
}

/// Whether a node says where it is, to whoever asks who it is.
async fn says_where(reachable: bool) -> bool {
    let network = MemoryNetwork::default();
    let config = config(&network, 1, Vec::new(), Vec::new(), Vec::new(), Commands::nobody());
    let _asked = NetDb::start(NetDbConfig { reachable: Some(reachable), ..config }).unwrap();
    let said = Stranger::dial(&network, 1).await.ask("/ipfs/id/1.0.0", b"").await;
    let at = super::super::transport::multiaddr(&contact(1)).unwrap().to_vec();
    said.windows(at.len()).any(|part| *part == at)
}

/// Behind a router it has an address that says something of the network there, and is of no use to anybody.
// protocol: J24
#[tokio::test]
async fn who_cannot_be_reached_does_not_say_where_it_is() {
    assert!(says_where(true).await);
    assert!(!says_where(false).await);
}

/// A node with an address of a private network, and one peer that answers nothing: what it knows of itself after a while.
async fn known_beside(peer: NodeContact) -> Option<bool> {
    let network = MemoryNetwork::default();
    let own = finds_out(&network, 1, Vec::new());
    let _peer = Stranger::dial_with(&network, peer, 1, None, None).await;
    until("they are connected", async || own.known().borrow().connected == 1).await;
    sleep(Duration::from_secs(120)).await;
    own.known().borrow().reachable
}

// protocol: J25
#[tokio::test(start_paused = true)]
async fn who_could_not_come_is_not_told_where() {
    assert_eq!(known_beside(contact(3)).await, None, "it was asked, and has not answered");
    let of_the_open_network = NodeContact { addr: ([93, 184, 216, 34], 443).into(), ..contact(3) };
    assert_eq!(known_beside(of_the_open_network).await, Some(false));
}
