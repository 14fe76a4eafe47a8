use phantom_proto::netdb::Claim;
use tokio::sync::oneshot;

use super::exchange::Aim;
use super::handle::Looked;
use super::room::{OWN, PUBLICATIONS, READS};
use super::*;
use crate::link::MemoryNetwork;
use crate::netdb::tests::{contact, record};

// protocol: J2
#[tokio::test]
async fn the_sample_does_not_ask_for_those_of_the_routing_table() {
    let mut task = task((10..14).map(contact).collect(), Vec::new());
    // As when they had said what they are.
    for contact in (10..14).map(contact) {
        task.add(&contact);
    }
    task.explore();
    assert_eq!((task.placed().len(), task.exchange.len()), (4, 0));
}

/// Of a node that knows nobody and keeps nothing.
pub(super) fn alone(
    own: NodeContact,
    links: Arc<dyn link::Transport>,
    incoming_rx: mpsc::Receiver<Link>,
) -> NetDbConfig {
    NetDbConfig {
        own,
        peers: Vec::new(),
        known: Vec::new(),
        records: Vec::new(),
        terms: Vec::new(),
        reachable: Some(true),
        commands: Commands::nobody(),
        shelf: Vec::new(),
        spread: Spread::default(),
        links,
        incoming_rx,
    }
}

fn task(peers: Vec<NodeContact>, records: Vec<Vec<u8>>) -> Task {
    let links = Arc::new(MemoryNetwork::default().join(contact(1)));
    let config = NetDbConfig { peers, records, ..alone(contact(1), links, mpsc::channel(1).1) };
    Task::new(config, watch::channel(Known::default()).0).unwrap()
}

/// A node that has lost everybody tries those that it may tell to strangers first.
// protocol: J9, D36
#[tokio::test]
async fn whom_paths_are_made_of_is_tried_last() {
    let records = |task: &Task| task.contacts.iter().chain(&task.sampled).map(|contact| contact.addr).collect();
    let tried = async |task: &mut Task| {
        task.alone = task.alone.map(|alone| Alone { next: Instant::now(), ..alone });
        task.try_to_return();
        task.placed().iter().any(|contact| *contact == self::contact(9))
    };
    let mut told = task(vec![contact(2)], vec![record(9).bytes().to_vec()]);
    for _ in 0..LAST_RESORT {
        assert!(!tried(&mut told).await, "there is another");
    }
    assert!(tried(&mut told).await, "at last");
    let all: HashSet<_> = records(&told);
    assert_eq!(all, [contact(2).addr, contact(9).addr].into());
    assert!(tried(&mut task(Vec::new(), vec![record(9).bytes().to_vec()])).await, "there is nobody else");
}

/// Exit nodes look up what others ask for, entry nodes publish what others give them: neither keeps a node from its own.
#[tokio::test]
async fn what_others_have_looked_up_and_published_leaves_this_node_its_own() {
    let records = (100..103).map(|number| record(number).bytes().to_vec()).collect();
    let mut task = task((10..14).map(contact).collect(), records);
    let key = |number: usize| netdb::node_key(&NodeId([number as u8; 32]));
    let of =
        |number: usize| Some(Claim { operator: Operator::V4([10, (number % 12) as u8]), path: (number / 4) as u64 });
    let read = |task: &mut Task, number, of| {
        let (answer_tx, answer_rx) = oneshot::channel();
        task.inquire(key(number), Aim::Read { answer_tx, of });
        answer_rx
    };
    let publish = |task: &mut Task, of| {
        let (done_tx, done_rx) = oneshot::channel();
        task.inquire(key(7), Task::publication(vec![7], done_tx, of));
        done_rx
    };
    let one_too_many = |answer_rx: &mut oneshot::Receiver<Looked>| {
        matches!(answer_rx.try_recv(), Ok(Err(DatabaseError::Unreachable(_))))
    };
    let mut reads: Vec<_> = (0..READS.all).map(|number| read(&mut task, number, of(number))).collect();
    assert_eq!((task.exchange.len(), reads.iter_mut().filter_map(|read| read.try_recv().ok()).count()), (READS.all, 0));
    let others = Some(Claim { operator: Operator::V4([10, 77]), path: 1 });
    let mut late = read(&mut task, 1, others);
    assert_eq!((one_too_many(&mut late), reads.iter_mut().filter_map(|read| read.try_recv().ok()).count()), (false, 1));
    assert_eq!(task.exchange.len(), READS.all);
    let own: Vec<_> = (0..OWN).map(|number| read(&mut task, number, None)).collect();
    assert!(one_too_many(&mut read(&mut task, 1, None)));
    assert_eq!(task.exchange.len(), READS.all + OWN);
    // Some of which wait to be tried again; the last of them will be so in an hour.
    let (mut waiting, mut under_way) = (Vec::new(), Vec::new());
    for number in 0..PUBLICATIONS.all as u64 {
        let of = of(number as usize);
        if number % 2 == 0 {
            under_way.push(publish(&mut task, of));
        } else {
            let (done_tx, done_rx) = oneshot::channel();
            let at = Instant::now() + Duration::from_secs(3600 - number);
            task.exchange.wait(at, key(7), Task::publication(vec![7], done_tx, of));
            waiting.push(done_rx);
        }
    }
    let mut one_more = publish(&mut task, others);
    assert!(one_more.try_recv().is_err() && under_way.iter_mut().all(|done_rx| done_rx.try_recv().is_err()));
    assert!(matches!(waiting[0].try_recv(), Ok(Err(DatabaseError::Unreachable(_)))), "the one that waits longest");
    assert!(waiting[1..].iter_mut().all(|done_rx| done_rx.try_recv().is_err()));
    let before = task.exchange.len();
    task.publish_own(netdb::node_key(&contact(1).node_id()), record(1).bytes().to_vec());
    task.inquire(key(2), Aim::Sample);
    assert_eq!(task.exchange.len(), before + 2, "this node's own");
    drop((reads, own));
}

/// As many identities of one network as somebody likes, and one of another.
// protocol: D43
#[tokio::test]
async fn one_network_does_not_fill_the_routing_table() {
    let in_network = |number: u16, network: u8| {
        let mut seed = [6; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        let identity = phantom_proto::crypto::SigningKey::from_seed(&seed).verifying_key();
        NodeContact { identity, addr: ([10, network, 0, 1], 443).into(), link_secret: [0; 32] }
    };
    let mut task = task(Vec::new(), Vec::new());
    (0..1000).for_each(|number| task.add(&in_network(number, 7)));
    let buckets = task.kad().kbuckets().map(|bucket| bucket.num_entries()).collect::<Vec<_>>();
    assert!(buckets.iter().all(|count| *count <= 4) && buckets.contains(&4), "{buckets:?}");
    let others: Vec<_> = (1000..1100).map(|number| in_network(number, number as u8)).collect();
    others.iter().for_each(|contact| task.add(contact));
    let placed = task.placed().len() - buckets.iter().sum::<usize>();
    // Half of all nodes lie in the farthest bucket, which has 20 places.
    assert!(placed > 40, "{placed}");
}
