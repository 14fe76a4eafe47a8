//! Override commands from node to node: flooded, asked for, refused, kept.

use std::collections::BTreeSet;

use phantom_proto::command::{Action, Bundle, Command, KeySet, Signed as SignedCommand, Target};
use phantom_proto::netdb::node_key;
use phantom_proto::wire::Wire;
use tempfile::TempDir;
use tokio::time::sleep;

use super::*;
use crate::store::Store;

const DAY: u64 = 24 * 3600;
const GOSSIP: &str = "/phantom/gossip/1";
const CATCH_UP: &str = "/phantom/commands/1";

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(&[200 + number; 32])
}

pub(super) fn keys() -> KeySet {
    KeySet::new(2, (1..=3).map(|number| key(number).verifying_key()).collect()).unwrap()
}

fn signed(command: &Command) -> Vec<u8> {
    let mut bundle = Bundle::new(command.clone());
    (1..=2).for_each(|number| assert!(bundle.sign(&keys(), &key(number))));
    bundle.signed(&keys()).unwrap().to_bytes()
}

/// So many commands, one behind the other; each bans a node that there is not, the last one these.
pub(super) fn chain(count: u64, last: &[Action]) -> Vec<Vec<u8>> {
    let (mut predecessor, issued) = (keys().root(), unix_seconds());
    let link = |serial| {
        let nobody = Action::Ban(Target::Node(contact(100 + serial as u8).node_id()));
        let actions = if serial == count && !last.is_empty() { last.to_vec() } else { vec![nobody] };
        let command = Command { serial, predecessor, issued, expires: issued + DAY, actions };
        predecessor = command.id();
        signed(&command)
    };
    (1..=count).map(link).collect()
}

pub(super) fn ban(seed: u8) -> Action {
    Action::Ban(Target::Node(contact(seed).node_id()))
}

fn restored(dir: &TempDir) -> Commands {
    let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
    Commands::restore(keys(), BTreeSet::new(), store, unix_seconds()).unwrap()
}

/// A node of a network with maintainers, and where it keeps what it takes.
fn maintained(network: &MemoryNetwork, seed: u8, peers: Vec<NodeContact>) -> (NetDb, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (node_of(network, seed, peers, Vec::new(), restored(&dir)), dir)
}

async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, found).await.expect("it comes about")
}

async fn has(node: &NetDb, serials: u64) {
    until(async || (node.commands().await.entries.len() as u64 == serials).then_some(())).await;
}

// protocol: M15, M18
#[tokio::test]
async fn a_command_reaches_all_and_who_comes_late_gets_those_before_it() {
    let network = MemoryNetwork::default();
    let (one, _dir1) = maintained(&network, 1, Vec::new());
    let (two, _dir2) = maintained(&network, 2, vec![contact(1)]);
    let (three, _dir3) = maintained(&network, 3, vec![contact(2)]);
    let commands = chain(40, &[]);
    until(async || (one.known().borrow().connected > 0 && three.known().borrow().connected > 0).then_some(())).await;
    for command in &commands {
        one.send_command(command.clone()).await.unwrap();
    }
    has(&two, 40).await;
    has(&three, 40).await;
    let (late, _dir4) = maintained(&network, 4, vec![contact(3)]);
    has(&late, 40).await;
    assert_eq!(late.commands().await.missing, 0);
    assert!(one.send_command(commands[0].clone()).await.is_err(), "it is known already");
}

/// Bytes as docs/protocol.md has them, from another implementation.
// protocol: M15
#[tokio::test]
async fn questions_for_commands_are_answered_as_the_text_says() {
    let network = MemoryNetwork::default();
    let (asked, _dir) = maintained(&network, 1, Vec::new());
    let commands = chain(3, &[]);
    for command in &commands {
        asked.send_command(command.clone()).await.unwrap();
    }
    let stranger = Stranger::dial(&network, 1).await;
    for above in 0..5_usize {
        let mut stream = stranger.tell(CATCH_UP, &(above as u64).to_be_bytes()).await;
        stream.close().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let expected = commands.iter().skip(above).map(|one| [&(one.len() as u16).to_be_bytes()[..], one].concat());
        assert_eq!(answer, expected.collect::<Vec<_>>().concat(), "above {above}");
    }
    // Too long, or too short: no answer.
    for bytes in [&[0; 9][..], &[0; 7]] {
        let mut stream = stranger.tell(CATCH_UP, bytes).await;
        stream.close().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "{} bytes", bytes.len());
    }
}

/// A message of gossipsub, as its specification has it: that one takes part, and what one says.
fn gossip(data: &[u8]) -> Vec<u8> {
    let topic = b"phantom v1 commands";
    let subscribed = field(1, &[&[8, 1], &field(2, topic)[..]].concat());
    let message = field(2, &[field(2, data), field(4, topic)].concat());
    let whole = [subscribed, message].concat();
    [varint(whole.len()), whole].concat()
}

// protocol: M18, M19
#[tokio::test]
async fn who_says_what_is_no_command_loses_the_connection_and_nobody_else_hears_it() {
    let network = MemoryNetwork::default();
    let (one, _dir1) = maintained(&network, 1, Vec::new());
    let (two, _dir2) = maintained(&network, 2, vec![contact(1)]);
    let good = chain(2, &[]);
    let mut unsigned = good[0].clone();
    let last = unsigned.len() - 1;
    unsigned[last] ^= 1;
    until(async || (one.known().borrow().connected == 1 && two.known().borrow().connected == 1).then_some(())).await;
    for bad in [b"rubbish".to_vec(), unsigned, vec![0; SignedCommand::LEN_MAX + 1]] {
        let stranger = Stranger::dial(&network, 1).await;
        let mut stream = stranger.tell(GOSSIP, &gossip(&bad)).await;
        // To its end, which comes.
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the connection ends");
    }
    assert!(one.commands().await.entries.is_empty());
    // Had it been passed on, the other would have let go of who did.
    assert!(two.known().borrow().connected_to.contains(&contact(1).node_id()));
    // The right one, said by the same, is taken and passed on: what is wrong does not stand in its way.
    let stranger = Stranger::dial(&network, 1).await;
    let _stream = stranger.tell(GOSSIP, &gossip(&good[0])).await;
    has(&one, 1).await;
    has(&two, 1).await;
    // What is not new, or from tomorrow, costs nobody the connection.
    let tomorrow = Command::from_bytes(&body(&good[1])).unwrap();
    let tomorrow = Command { issued: tomorrow.issued + DAY, expires: tomorrow.expires + DAY, ..tomorrow };
    let _stream = stranger.tell(GOSSIP, &gossip(&signed(&tomorrow))).await;
    let _stream = stranger.tell(GOSSIP, &gossip(&good[1])).await;
    has(&one, 2).await;
}

/// The command in a signed one.
fn body(signed: &[u8]) -> Vec<u8> {
    let length = usize::from(u16::from_be_bytes([signed[0], signed[1]]));
    signed[2..2 + length].to_vec()
}

// protocol: M11, M13
#[tokio::test]
async fn a_ban_empties_the_database_and_outlives_a_restart() {
    let network = MemoryNetwork::default();
    let (one, dir) = maintained(&network, 1, Vec::new());
    let banned = node(&network, 20, vec![contact(1)]);
    banned.register(&record(20)).await;
    until(async || one.node(contact(20).node_id()).await.ok().flatten()).await;
    let others = node(&network, 21, vec![contact(1)]);
    others.register(&record(21)).await;
    until(async || one.node(contact(21).node_id()).await.ok().flatten()).await;
    let removed = Action::Remove { key: node_key(&contact(21).node_id()), until: unix_seconds() + 60 };
    for command in chain(2, &[ban(20), removed]) {
        one.send_command(command).await.unwrap();
    }
    for seed in [20, 21] {
        assert_eq!(one.node(contact(seed).node_id()).await.unwrap(), None, "{seed}");
    }
    assert!(one.known().borrow().nodes.iter().all(|node| node.contact != contact(20)));
    // Pushed again, it is not stored; nor does it count that they themselves have it.
    banned.register(&record(20)).await;
    others.register(&record(21)).await;
    for seed in [20, 21] {
        assert_eq!(one.node(contact(seed).node_id()).await.unwrap(), None, "{seed}");
    }
    drop(one);
    let again = until(async || {
        let store = Store::open(&dir.path().join("store")).ok()?;
        Commands::restore(keys(), BTreeSet::new(), Arc::new(store), unix_seconds()).ok()
    })
    .await;
    let bans = again.bans().borrow().clone();
    assert!(bans.of_contact(&contact(20)).is_some() && bans.empties(&node_key(&contact(21).node_id())));
}

/// Everybody who takes the command has the record, wherever its key is.
// protocol: M13
#[tokio::test]
async fn an_inserted_record_is_found() {
    let network = MemoryNetwork::default();
    let (one, _dir) = maintained(&network, 1, Vec::new());
    let _other = node(&network, 2, vec![contact(1)]);
    until(async || (one.known().borrow().connected > 0).then_some(())).await;
    assert_eq!(one.node(contact(40).node_id()).await.unwrap(), None);
    for command in chain(1, &[Action::Insert(record(40).bytes().to_vec())]) {
        one.send_command(command).await.unwrap();
    }
    assert!(one.node(contact(40).node_id()).await.unwrap().is_some());
}

/// A neighbour that keeps commands back shows by a later one that there are some, and another has them.
// protocol: M11, M15
#[tokio::test]
async fn commands_that_are_kept_back_are_missed_and_asked_for_elsewhere() {
    let network = MemoryNetwork::default();
    let (one, dir) = maintained(&network, 1, Vec::new());
    let all = chain(5, &[]);
    let withholding = Stranger::dial(&network, 1).await;
    let _said = withholding.tell(GOSSIP, &gossip(&all[4])).await;
    has(&one, 1).await;
    assert_eq!(one.commands().await.missing, 4);
    // It stays so for as long as nobody else is there, also after a restart.
    drop(one);
    let restarted = until(async || Store::open(&dir.path().join("store")).ok()).await;
    let kept = Commands::restore(keys(), BTreeSet::new(), Arc::new(restarted), unix_seconds()).unwrap();
    assert_eq!(kept.state().missing, 4);
    let network = MemoryNetwork::default();
    let again = node_of(&network, 1, Vec::new(), Vec::new(), kept);
    let (honest, _dir2) = maintained(&network, 2, vec![contact(1)]);
    for command in &all {
        let _ = honest.send_command(command.clone()).await;
    }
    until(async || (again.commands().await.missing == 0).then_some(())).await;
    assert_eq!(again.commands().await.entries.len(), 5);
}
