//! Nodes that speak the DHT as all others, and lie about records, among real ones.

use libp2p::Swarm;
use libp2p::core::Transport as _;
use libp2p::request_response::{Event, Message};
use libp2p::swarm::{Config, SwarmEvent};
use phantom_proto::ident::ApAddress;
use phantom_proto::netdb::{Answer, Request};

use super::super::DatabaseError;
use super::super::behaviour::{Behaviour, BehaviourEvent};
use super::super::transport::{LinkTransport, multiaddr, peer_id};
use super::*;

/// A node with routing as everybody's. `None`: it says nothing to a request for a record.
fn hostile(
    network: &MemoryNetwork,
    seed: u8,
    to: &NodeContact,
    answers: impl Fn(&Request) -> Option<Answer> + Send + 'static,
) {
    let own = contact(seed);
    let (links, incoming_rx) = listen(network, seed);
    let transport = LinkTransport::new(links, incoming_rx).boxed();
    let (peer, addr) = (peer_id(&own.identity).unwrap(), multiaddr(&own).unwrap());
    let behaviour = Behaviour::new(peer, &own.identity).unwrap();
    let config = Config::with_tokio_executor().with_idle_connection_timeout(PATIENCE);
    let mut swarm = Swarm::new(transport, behaviour, peer, config);
    swarm.listen_on(addr.clone()).unwrap();
    swarm.add_external_address(addr);
    swarm.behaviour_mut().kad.add_address(&peer_id(&to.identity).unwrap(), multiaddr(to).unwrap());
    swarm.behaviour_mut().kad.bootstrap().unwrap();
    tokio::spawn(async move {
        let mut silent = Vec::new();
        loop {
            match futures::StreamExt::select_next_some(&mut swarm).await {
                SwarmEvent::Behaviour(BehaviourEvent::Identify(libp2p::identify::Event::Received {
                    peer_id,
                    info,
                    ..
                })) => info.listen_addrs.into_iter().for_each(|addr| {
                    swarm.behaviour_mut().kad.add_address(&peer_id, addr);
                }),
                SwarmEvent::Behaviour(BehaviourEvent::Records(Event::Message {
                    message: Message::Request { request, channel, .. },
                    ..
                })) => match answers(&request) {
                    Some(answer) => drop(swarm.behaviour_mut().records.send_response(channel, answer)),
                    // Kept open: not even an error tells that nothing comes.
                    None => silent.push(channel),
                },
                _ => {}
            }
        }
    });
}

/// Honest nodes 1 to 8 that know each other, and hostile ones from 20 on that they have met.
async fn among(
    network: &MemoryNetwork,
    count: u8,
    answers: impl Fn(&Request) -> Option<Answer> + Clone + Send + 'static,
) -> Vec<NetDb> {
    let honest: Vec<_> = (1..9).map(|seed| node(network, seed, vec![contact(seed % 8 + 1), contact(1)])).collect();
    (20..20 + count).for_each(|seed| hostile(network, seed, &contact(seed % 8 + 1), answers.clone()));
    let met = usize::from(count) + 7;
    for one in &honest {
        timeout(PATIENCE, one.known().wait_for(|known| known.connected == met)).await.expect("all meet").unwrap();
    }
    honest
}

fn says_nothing(request: &Request) -> Option<Answer> {
    Some(match request {
        Request::Get(_) => Answer::Nothing,
        Request::Put(..) => Answer::Stands,
    })
}

async fn published(by: &NetDb, seed: u8, number: u16) -> (ApAddress, Vec<u8>) {
    let record = numbered(9, seed, number);
    by.publish(record.bytes().to_vec()).await.unwrap();
    (ApAddress::of(&SigningKey::from_seed(&[9; 32]).verifying_key()), record.bytes().to_vec())
}

/// More of them than of the honest ones.
#[tokio::test]
async fn who_says_that_there_is_nothing_hides_no_record() {
    let network = MemoryNetwork::default();
    let honest = among(&network, 10, says_nothing).await;
    let (address, record) = published(&honest[3], 4, 0).await;
    for one in &honest {
        let (_, found) = one.lookup(address).await.unwrap().expect("it is found");
        assert_eq!(found, record);
    }
}

// protocol: D6, D14
#[tokio::test]
async fn a_stale_record_that_holds_does_not_win() {
    let network = MemoryNetwork::default();
    let stale = numbered(9, 4, 0).bytes().to_vec();
    let honest = among(&network, 6, move |request| match request {
        Request::Get(_) => Some(Answer::Record(stale.clone())),
        Request::Put(..) => Some(Answer::Stands),
    })
    .await;
    let (address, record) = published(&honest[3], 4, 1).await;
    for one in &honest {
        let (_, found) = one.lookup(address).await.unwrap().expect("it is found");
        assert_eq!(found, record);
    }
}

/// "There is none" ends attempts; "not sure" does not.
// protocol: D7
#[tokio::test]
async fn where_some_are_silent_nobody_says_that_there_is_none() {
    let network = MemoryNetwork::default();
    let nobody = ApAddress::of(&SigningKey::from_seed(&[77; 32]).verifying_key());
    let honest = among(&network, 1, says_nothing).await;
    assert!(matches!(honest[0].lookup(nobody).await, Ok(None)));
    let network = MemoryNetwork::default();
    let honest = among(&network, 1, |_| None).await;
    assert!(matches!(honest[0].lookup(nobody).await, Err(DatabaseError::Unsure)));
}

/// A node whose record differs between those who are asked is left out, whichever comes first.
// protocol: D33
#[tokio::test]
async fn a_node_that_gives_others_other_keys_is_not_used() {
    let network = MemoryNetwork::default();
    let [one, other] = [1, 2].map(|dh| keyed(30, dh).bytes().to_vec());
    let key = phantom_proto::netdb::node_key(&contact(30).node_id());
    let says = move |record: Vec<u8>| {
        move |request: &Request| match request {
            Request::Get(asked) if *asked == key => Some(Answer::Record(record.clone())),
            other => says_nothing(other),
        }
    };
    let honest = among(&network, 0, says_nothing).await;
    hostile(&network, 20, &contact(1), says(one));
    hostile(&network, 21, &contact(1), says(other));
    timeout(PATIENCE, honest[0].known().wait_for(|known| known.connected == 9)).await.unwrap().unwrap();
    // Both are asked once they have said what they are.
    let noticed = async {
        loop {
            match honest[0].node(contact(30).node_id()).await {
                Err(DatabaseError::Contradicted) => return,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    timeout(PATIENCE, noticed).await.expect("it is noticed");
    assert!(honest[0].known().borrow().nodes.iter().all(|record| record.contact != contact(30)));
}

/// The own record: where it stands, and since when.
// protocol: D16, D34
#[tokio::test]
async fn a_node_knows_who_keeps_its_record() {
    let network = MemoryNetwork::default();
    let honest = among(&network, 0, says_nothing).await;
    honest[0].register(&record(1)).await;
    let stands = |known: &super::super::Known| known.stands.is_some_and(|stands| stands.since.is_some());
    let known = timeout(PATIENCE, honest[0].known().wait_for(stands)).await.unwrap().unwrap().stands.unwrap();
    assert!(known.keep * 2 > known.asked && known.asked <= 7, "{known:?}");
    // Those that keep nothing are more: it does not stand.
    let network = MemoryNetwork::default();
    let honest = among(&network, 10, |request| match request {
        Request::Get(_) => Some(Answer::Nothing),
        Request::Put(..) => Some(Answer::Refused),
    })
    .await;
    honest[0].register(&record(1)).await;
    let refused = |known: &super::super::Known| known.stands.is_some_and(|stands| stands.asked > 10);
    let known = timeout(PATIENCE, honest[0].known().wait_for(refused)).await.unwrap().unwrap().stands.unwrap();
    assert!(known.keep * 2 <= known.asked && known.since.is_none(), "{known:?}");
}

/// What was kept for others is there after a restart.
// protocol: D27
#[tokio::test]
async fn a_restarted_node_has_what_it_kept() {
    let network = MemoryNetwork::default();
    let asked = node(&network, 1, Vec::new());
    let stranger = Stranger::dial(&network, 1).await;
    let (key, record) = ap_record(9, 3);
    assert_eq!(stranger.request(&[&[1], &key[..], &record].concat()).await, [2]);
    let shelf = asked.shelf().await;
    assert_eq!(shelf.len(), 1);
    drop(asked);
    let network = MemoryNetwork::default();
    let _again = started(&network, 1, Vec::new(), Vec::new(), shelf, Commands::nobody());
    let stranger = Stranger::dial(&network, 1).await;
    assert_eq!(stranger.request(&[&[0], &key[..]].concat()).await[1..], record);
}
