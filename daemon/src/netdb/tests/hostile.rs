//! Nodes that speak the DHT as all others, and lie about records, among real ones.

use libp2p::Swarm;
use libp2p::core::Transport as _;
use libp2p::request_response::{Event, Message};
use libp2p::swarm::{Config, SwarmEvent};
use phantom_proto::ident::{ApAddress, NodeId};
use phantom_proto::netdb::{Answer, Request};
use phantom_proto::node::PathNo;

use super::super::behaviour::{Behaviour, BehaviourEvent};
use super::super::transport::{LinkTransport, multiaddr, peer_id};
use super::super::{DatabaseError, Origin};
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
    let said = (peer_id(&to.identity).unwrap(), multiaddr(to).unwrap());
    swarm.behaviour_mut().kad.add_address(&said.0, said.1.clone());
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
                // It goes on saying where that is, whether it is there or not.
                SwarmEvent::OutgoingConnectionError { .. } => {
                    swarm.behaviour_mut().kad.add_address(&said.0, said.1.clone());
                }
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
    by.publish(Origin::Own, record.bytes().to_vec()).await.unwrap();
    (ApAddress::of(&SigningKey::from_seed(&[9; 32]).verifying_key()), record.bytes().to_vec())
}

/// More of them than of the honest ones.
#[tokio::test]
async fn who_says_that_there_is_nothing_hides_no_record() {
    let network = MemoryNetwork::default();
    let honest = among(&network, 10, says_nothing).await;
    let (address, record) = published(&honest[3], 4, 0).await;
    for one in &honest {
        let (_, found) = one.lookup(Origin::Own, address).await.unwrap().expect("it is found");
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
        let (_, found) = one.lookup(Origin::Own, address).await.unwrap().expect("it is found");
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
    assert!(matches!(honest[0].lookup(Origin::Own, nobody).await, Ok(None)));
    let network = MemoryNetwork::default();
    let honest = among(&network, 1, |_| None).await;
    assert!(matches!(honest[0].lookup(Origin::Own, nobody).await, Err(DatabaseError::Unsure)));
}

/// Under load a look-up ended with the hostile nodes alone, and what they said was taken for the word of all. Who is connected is asked
/// though it answers no look-up; and where somebody's answer is missing nobody says that there is none.
// protocol: D39, D40
#[tokio::test]
async fn a_look_up_that_honest_nodes_answer_too_late_does_not_say_that_there_is_none() {
    let network = MemoryNetwork::default();
    let asking = node(&network, 1, Vec::new());
    (20..30).for_each(|seed| hostile(&network, seed, &contact(1), says_nothing));
    let (key, record) = ap_record(9, 3);
    let _late = Stranger::dial_late(&network, 3, 1, (key, record.clone())).await;
    let met = async {
        while asking.some(20).await.len() < 11 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, met).await.expect("all are in the routing table");
    let [has, nobody] = [9, 77].map(|seed| ApAddress::of(&SigningKey::from_seed(&[seed; 32]).verifying_key()));
    let (found, none) = tokio::join!(asking.lookup(Origin::Own, has), asking.lookup(Origin::Own, nobody));
    assert_eq!(found.unwrap().map(|(_, bytes)| bytes), Some(record));
    assert!(matches!(none, Err(DatabaseError::Unsure)), "{none:?}");
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

/// An exit node looks up whatever entry node it is told of: by that others would choose who is in its sample.
// protocol: J16
#[tokio::test]
async fn whom_others_make_a_node_look_up_does_not_enter_its_sample() {
    let network = MemoryNetwork::default();
    let known = || (100..130).map(|seed| record(seed).bytes().to_vec()).collect();
    let asked = node_with(&network, 2, Vec::new(), known());
    let asking = node_with(&network, 1, vec![contact(2)], known());
    timeout(PATIENCE, asking.known().wait_for(|known| known.connected == 1)).await.unwrap().unwrap();
    let key = phantom_proto::netdb::node_key(&contact(50).node_id());
    let brings = Stranger::dial_as(&network, 50, 2, None).await;
    assert_eq!(brings.request(&[&[1], &key[..], record(50).bytes()].concat()).await, [2]);
    // As soon as it is known that the other has records.
    let found = async {
        loop {
            match asking.node(contact(50).node_id()).await {
                Ok(Some(record)) => return record,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    assert_eq!(timeout(PATIENCE, found).await.expect("it is found").contact, contact(50));
    assert!(asking.known().borrow().nodes.iter().all(|record| record.contact != contact(50)));
    drop(asked);
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

/// A third of the network says nothing to whoever asks, so that a look-up of what nobody has lasts its ten seconds. One path asks without end, and so do many over one
/// neighbour: what somebody else asks for meanwhile is found.
// protocol: D41, D42
#[tokio::test]
async fn look_ups_of_one_path_do_not_keep_others_away() {
    let network = MemoryNetwork::default();
    let honest = among(&network, 4, |_| None).await;
    let (address, record) = published(&honest[3], 4, 0).await;
    let over = |no, neighbour: u8| Origin::Path {
        no: PathNo(no),
        neighbour: (NodeId([neighbour; 32]), [10, neighbour, 0, 1].into()),
    };
    let flood = |count: u64, paths: u64, neighbour| {
        for number in 0..count {
            let (asked, origin) = (honest[0].clone(), over(number % paths, neighbour));
            let nobody = ApAddress::of(&SigningKey::from_seed(&[number as u8; 32]).verifying_key());
            tokio::spawn(async move { asked.lookup(origin, nobody).await });
        }
    };
    flood(600, 1, 50);
    flood(600, 300, 51);
    // Behind all of these, in the order of the database's requests.
    for (no, neighbour) in [(1000, 50), (1000, 51), (1000, 52)] {
        let found =
            honest[0].lookup(over(no, neighbour), address).await.expect("it is asked for").expect("it is found");
        assert_eq!(found.1, record);
    }
}

/// Somebody tells everybody that a node is where it is not. Who has its record sees that it answers where that says.
// protocol: J18
#[tokio::test]
async fn a_node_is_not_silent_because_others_say_that_it_is_elsewhere() {
    let network = MemoryNetwork::default();
    let _honest = node(&network, 2, Vec::new());
    let elsewhere = NodeContact { addr: ([10, 2, 0, 1], 444).into(), ..contact(2) };
    // It tells of it whoever looks for anything: it has never met it.
    hostile(&network, 20, &elsewhere, says_nothing);
    let asking = node_with(&network, 1, vec![contact(20)], vec![record(2).bytes().to_vec()]);
    let (id, mut seen) = (contact(2).node_id(), asking.known());
    let known = seen.wait_for(|known| known.connected_to.contains(&id) || known.silent.contains(&id));
    let known = timeout(PATIENCE, known).await.expect("it is sought").unwrap();
    assert!(!known.silent.contains(&id));
}
