//! What another implementation says to the database, and what it hears: bytes on streams, as scripts/vectors/dht.py writes them.

mod commands;
mod crashes;
mod hostile;
mod reach;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox};
use libp2p::core::upgrade::OutboundConnectionUpgrade;
use libp2p::yamux;
use phantom_proto::crypto::SigningKey;
use phantom_proto::crypto::kem::KEM_PUBLIC_LEN;
use phantom_proto::ident::{ApAddress, Spread};
use phantom_proto::record::{ApRecord, Epoch, Extensions, NodeRecord, PublicPathKeys, RoutingEntry, STEP, Signed};
use phantom_proto::wire::NodeContact;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::{Commands, Database, NetDb, NetDbConfig};
use crate::clock::unix_seconds;
use crate::link::{Link, MemoryNetwork, Purpose, Transport};

const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn contact(seed: u8) -> NodeContact {
    let identity = SigningKey::from_seed(&[seed; 32]).verifying_key();
    NodeContact { identity, addr: SocketAddr::from(([10, seed, 0, 1], 443)), link_secret: [seed; 32] }
}

fn node(network: &MemoryNetwork, seed: u8, peers: Vec<NodeContact>) -> NetDb {
    node_with(network, seed, peers, Vec::new())
}

fn node_with(network: &MemoryNetwork, seed: u8, peers: Vec<NodeContact>, records: Vec<Vec<u8>>) -> NetDb {
    started(network, seed, peers, records, Vec::new(), Commands::nobody())
}

fn node_of(
    network: &MemoryNetwork,
    seed: u8,
    peers: Vec<NodeContact>,
    records: Vec<Vec<u8>>,
    commands: Commands,
) -> NetDb {
    started(network, seed, peers, records, Vec::new(), commands)
}

pub(super) fn listen(network: &MemoryNetwork, seed: u8) -> (Arc<dyn Transport>, mpsc::Receiver<Link>) {
    let links: Arc<dyn Transport> = Arc::new(network.join(contact(seed)));
    let (incoming_tx, incoming_rx) = mpsc::channel(16);
    let accepting = links.clone();
    tokio::spawn(async move {
        while let Some(link) = accepting.accept().await {
            if incoming_tx.send(link).await.is_err() {
                return;
            }
        }
    });
    (links, incoming_rx)
}

fn started(
    network: &MemoryNetwork,
    seed: u8,
    peers: Vec<NodeContact>,
    records: Vec<Vec<u8>>,
    shelf: Vec<(Vec<u8>, Vec<u8>)>,
    commands: Commands,
) -> NetDb {
    NetDb::start(config(network, seed, peers, records, shelf, commands)).unwrap()
}

fn config(
    network: &MemoryNetwork,
    seed: u8,
    peers: Vec<NodeContact>,
    records: Vec<Vec<u8>>,
    shelf: Vec<(Vec<u8>, Vec<u8>)>,
    commands: Commands,
) -> NetDbConfig {
    let (links, incoming_rx) = listen(network, seed);
    let (own, known, spread) = (contact(seed), Vec::new(), Spread::default());
    NetDbConfig {
        own,
        peers,
        known,
        records,
        terms: Vec::new(),
        reachable: Some(true),
        shelf,
        spread,
        commands,
        links,
        incoming_rx,
    }
}

pub(super) fn record(seed: u8) -> Signed<NodeRecord> {
    keyed(seed, 1)
}

/// The record of a node with these keys.
fn keyed(seed: u8, dh: u8) -> Signed<NodeRecord> {
    let contact = contact(seed);
    let keys = PublicPathKeys { dh: [dh; 32], kem: Arc::new([2; KEM_PUBLIC_LEN]) };
    let epoch = Epoch::at(&contact.node_id(), unix_seconds());
    let (keys, extensions) = ([keys.clone(), keys], Extensions::default());
    Signed::sign(&NodeRecord { contact, epoch, revision: 0, keys, extensions }, &SigningKey::from_seed(&[seed; 32]))
}

/// Some implementation, of which nothing is known but that it opens streams.
pub(super) struct Stranger(mpsc::Sender<oneshot::Sender<SubstreamBox>>);

impl Stranger {
    /// Answers nothing: what the node asks, it asks in vain.
    async fn dial(network: &MemoryNetwork, to: u8) -> Self {
        Self::dial_as(network, 3, to, None).await
    }

    /// One that says this of itself when it is asked.
    pub(super) async fn dial_as(network: &MemoryNetwork, seed: u8, to: u8, says: Option<Vec<u8>>) -> Self {
        Self::dial_with(network, contact(seed), to, says, None).await
    }

    /// One that has this record, and answers no look-up in time.
    async fn dial_late(network: &MemoryNetwork, seed: u8, to: u8, record: (Vec<u8>, Vec<u8>)) -> Self {
        let says = identity(seed, &[seed], &["/phantom/kad/1", "/phantom/records/1", "/ipfs/id/1.0.0"]);
        Self::dial_with(network, contact(seed), to, Some(says), Some(record)).await
    }

    async fn dial_with(
        network: &MemoryNetwork,
        own: NodeContact,
        to: u8,
        says: Option<Vec<u8>>,
        late: Option<(Vec<u8>, Vec<u8>)>,
    ) -> Self {
        let link = network.join(own).dial(&contact(to), Purpose::Database).await.unwrap();
        let muxer = yamux::Config::default().upgrade_outbound(link.stream.compat(), "").await.unwrap();
        let (open_tx, open_rx) = mpsc::channel(1);
        let mut connection = Connection {
            muxer: StreamMuxerBox::new(muxer),
            open_rx,
            wanted: VecDeque::new(),
            says,
            late,
            unanswered: Vec::new(),
        };
        tokio::spawn(poll_fn(move |cx| connection.poll(cx)));
        Self(open_tx)
    }

    /// Says it on a stream of its own, and hears the one message that comes back, behind its length.
    async fn ask(&self, protocol: &'static str, request: &[u8]) -> Vec<u8> {
        self.try_ask(protocol, request).await.unwrap()
    }

    /// The same; an error when the node has closed the connection, as it does with one of too many.
    pub(super) async fn try_ask(&self, protocol: &'static str, request: &[u8]) -> std::io::Result<Vec<u8>> {
        let (mut stream, mut answer, mut length) = (self.try_tell(protocol, request).await?, Vec::new(), 0);
        for shift in [0, 7] {
            let mut byte = [0];
            stream.read_exact(&mut byte).await?;
            answer.extend(byte);
            length |= usize::from(byte[0] & 127) << shift;
            if byte[0] < 128 {
                break;
            }
        }
        let heard = stream.take(length as u64).read_to_end(&mut answer).await?;
        if heard == length { Ok(answer) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
    }

    /// A request for or with a record, and the answer; nothing: the stream ended without one.
    async fn request(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = self.tell("/phantom/records/1", request).await;
        stream.close().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    }

    /// As [`Self::ask`], without hearing anything.
    async fn tell(&self, protocol: &'static str, request: &[u8]) -> SubstreamBox {
        self.try_tell(protocol, request).await.unwrap()
    }

    async fn try_tell(&self, protocol: &'static str, request: &[u8]) -> std::io::Result<SubstreamBox> {
        let (stream_tx, stream_rx) = oneshot::channel();
        let is_over = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        self.0.send(stream_tx).await.map_err(|_| is_over())?;
        let mut stream = stream_rx.await.map_err(|_| is_over())?;
        let line = |text: &str| [&[text.len() as u8 + 1], text.as_bytes(), b"\n"].concat();
        let chosen = [line("/multistream/1.0.0"), line(protocol)].concat();
        stream.write_all(&chosen).await?;
        stream.flush().await?;
        let mut echoed = vec![0; chosen.len()];
        stream.read_exact(&mut echoed).await?;
        assert_eq!(echoed, chosen, "it is spoken here");
        stream.write_all(request).await?;
        stream.flush().await?;
        Ok(stream)
    }
}

/// Answers Identify, and says of everything else that it is not spoken here. With a record, it gives it to whoever asks for it, and leaves
/// look-ups without an answer.
async fn identifies(mut stream: SubstreamBox, says: Vec<u8>, late: Option<(Vec<u8>, Vec<u8>)>) -> std::io::Result<()> {
    loop {
        let mut length = [0];
        stream.read_exact(&mut length).await?;
        let mut line = vec![0; length[0].into()];
        stream.read_exact(&mut line).await?;
        let known = [&b"/multistream/1.0.0\n"[..], b"/ipfs/id/1.0.0\n"].contains(&&line[..])
            || late.is_some() && [&b"/phantom/kad/1\n"[..], b"/phantom/records/1\n"].contains(&&line[..]);
        let answer = if known { [&length[..], &line].concat() } else { b"\x03na\n".to_vec() };
        stream.write_all(&answer).await?;
        stream.flush().await?;
        if line == b"/ipfs/id/1.0.0\n" {
            stream.write_all(&says).await?;
            return stream.close().await;
        }
        if let (b"/phantom/records/1\n", Some((key, record))) = (&line[..], &late) {
            let mut asked = Vec::new();
            stream.read_to_end(&mut asked).await?;
            let has = asked == [&[0], &key[..]].concat();
            stream.write_all(&if has { [&[1], &record[..]].concat() } else { vec![0] }).await?;
            return stream.close().await;
        }
        if line == b"/phantom/kad/1\n" {
            return std::future::pending().await;
        }
    }
}

/// What Identify says: whose key, reached at whose addresses, which protocols.
fn identity(seed: u8, addresses: &[u8], protocols: &[&str]) -> Vec<u8> {
    let key = [&[8, 1, 0x12, 32], &contact(seed).identity.0[..]].concat();
    let at = |seed: &u8| field(2, &super::transport::multiaddr(&contact(*seed)).unwrap().to_vec());
    let protocols = protocols.iter().map(|name| field(3, name.as_bytes()));
    let fields = [field(1, &key)].into_iter().chain(addresses.iter().map(at)).chain(protocols);
    let message = [fields.collect::<Vec<_>>().concat(), field(5, b"/phantom/id/1"), field(6, b"other")].concat();
    [varint(message.len()), message].concat()
}

struct Connection {
    muxer: StreamMuxerBox,
    open_rx: mpsc::Receiver<oneshot::Sender<SubstreamBox>>,
    wanted: VecDeque<oneshot::Sender<SubstreamBox>>,
    says: Option<Vec<u8>>,
    /// A record and its key.
    late: Option<(Vec<u8>, Vec<u8>)>,
    /// Streams of which nothing is heard.
    unanswered: Vec<SubstreamBox>,
}

impl Connection {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Poll::Ready(Some(stream_tx)) = self.open_rx.poll_recv(cx) {
            self.wanted.push_back(stream_tx);
        }
        while !self.wanted.is_empty()
            && let Poll::Ready(Ok(stream)) = self.muxer.poll_outbound_unpin(cx)
        {
            let _ = self.wanted.pop_front().unwrap().send(stream);
        }
        while let Poll::Ready(Ok(stream)) = self.muxer.poll_inbound_unpin(cx) {
            match self.says.clone() {
                Some(says) => drop(tokio::spawn(identifies(stream, says, self.late.clone()))),
                None => self.unanswered.push(stream),
            }
        }
        match self.muxer.poll_unpin(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

fn vectors(name: &str) -> Vec<Vec<u8>> {
    let lines = include_str!("../../proto/vectors/dht.txt").lines().filter_map(|line| line.split_once(' '));
    lines.filter(|(named, _)| *named == name).map(|(_, bytes)| hex::decode(bytes).unwrap()).collect()
}

fn vector(name: &str) -> Vec<u8> {
    vectors(name).pop().unwrap()
}

pub(super) fn varint(number: usize) -> Vec<u8> {
    if number < 128 { vec![number as u8] } else { [vec![(number % 128) as u8 | 128], varint(number / 128)].concat() }
}

pub(super) fn field(number: usize, bytes: &[u8]) -> Vec<u8> {
    [varint(number * 8 + 2), varint(bytes.len()), bytes.to_vec()].concat()
}

// protocol: D9, D10, D18, D19, D20
#[tokio::test]
async fn the_dht_speaks_as_the_text_says() {
    let network = MemoryNetwork::default();
    let asked = node(&network, 1, Vec::new());
    let _other = node(&network, 2, vec![contact(1)]);
    let stranger = Stranger::dial(&network, 1).await;
    let kad = "/phantom/kad/1";
    let (request, expected) = (vector("find-node"), vector("find-node-answer"));
    // The other is known as soon as it has said which protocols it has.
    let known = async {
        while stranger.ask(kad, &request).await != expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, known).await.expect("the node that is known is told");
    drop(asked);
}

/// An AP record with an entry at a node, and its key.
fn ap_record(seed: u8, at: u8) -> (Vec<u8>, Vec<u8>) {
    let address = ApAddress::of(&SigningKey::from_seed(&[seed; 32]).verifying_key());
    (phantom_proto::netdb::ap_key(&address).to_vec(), numbered(seed, at, 0).bytes().to_vec())
}

/// The one with this number of an address.
fn numbered(seed: u8, at: u8, number: u16) -> Signed<ApRecord> {
    let key = SigningKey::from_seed(&[seed; 32]);
    let now = unix_seconds();
    let entry = RoutingEntry { entry_node: contact(at), handle: [9; 16], until: now + 600 };
    Signed::sign(&ApRecord::on_grid(key.verifying_key(), now / STEP, number, vec![entry]), &key)
}

// protocol: D25, D30
#[tokio::test]
async fn records_are_asked_for_and_brought_as_the_text_says() {
    let network = MemoryNetwork::default();
    let _asked = node(&network, 1, Vec::new());
    let stranger = Stranger::dial(&network, 1).await;
    let ask = async |request: Vec<u8>| hex::encode(stranger.request(&request).await);
    let answer = |name: &str| hex::encode(vector(name));
    assert_eq!(ask(vector("get")).await, answer("get-nothing"));
    assert_eq!(ask(vector("put")).await, answer("put-refused"), "no record");
    assert_eq!(ask(vec![7]).await, "", "no request");
    let (key, foreign) = ap_record(9, 2);
    assert_eq!(ask([&[1], &key[..], &foreign].concat()).await, answer("put-refused"), "another node's to bring");
    let (key, record) = ap_record(9, 3);
    assert_eq!(ask([&[1], &key[..], &record].concat()).await, answer("put-stands"));
    let expected = hex::encode([&[1], &record[..]].concat());
    assert_eq!(ask([&[0], &key[..]].concat()).await, expected);
}

// protocol: D19
#[tokio::test]
async fn identify_speaks_as_the_text_says() {
    let network = MemoryNetwork::default();
    let _asked = node(&network, 1, Vec::new());
    let stranger = Stranger::dial(&network, 1).await;
    let message = timeout(PATIENCE, stranger.ask("/ipfs/id/1.0.0", b"")).await.unwrap();
    let fields = vectors("identify");
    let length: usize = fields.iter().map(Vec::len).sum();
    assert_eq!(message.len(), 2 + length, "{}", hex::encode(&message));
    assert_eq!(message[..2], [(length % 128) as u8 | 128, (length / 128) as u8]);
    for field in fields {
        assert!(message.windows(field.len()).any(|window| *window == field[..]), "{}", hex::encode(field));
    }
}

/// Providers are no table of ours: who says that it has something is heard and forgotten.
// protocol: D13
#[tokio::test]
async fn providers_are_not_stored() {
    let network = MemoryNetwork::default();
    let _asked = node(&network, 1, Vec::new());
    let stranger = Stranger::dial(&network, 1).await;
    let who = super::transport::peer_id(&contact(3).identity).unwrap().to_bytes();
    let at = super::transport::multiaddr(&contact(3)).unwrap().to_vec();
    let provider = field(9, &[field(1, &who), field(2, &at)].concat());
    let add = [&[8, 2], &field(2, b"something")[..], &provider].concat();
    stranger.tell("/phantom/kad/1", &[varint(add.len()), add].concat()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let get = [&[8, 3], &field(2, b"something")[..], &[80, 10]].concat();
    let nobody = [4, 8, 3, 80, 9];
    let answer = stranger.ask("/phantom/kad/1", &[varint(get.len()), get].concat()).await;
    assert_eq!(hex::encode(answer), hex::encode(nobody));
    // Nor records, by the DHT's own messages.
    let (key, record) = ap_record(9, 3);
    let both = [field(1, &key), field(2, &record)].concat();
    let put = [field(2, &key), field(3, &both)].concat();
    stranger.ask("/phantom/kad/1", &[varint(put.len()), put].concat()).await;
    assert_eq!(stranger.request(&[&[0], &key[..]].concat()).await, [0]);
}

/// Whoever floods a node with records does not choose over whom it builds.
// protocol: J2
#[tokio::test]
async fn what_others_push_is_stored_and_stays_out_of_the_sample() {
    let network = MemoryNetwork::default();
    let asked = node(&network, 1, Vec::new());
    let stranger = Stranger::dial(&network, 1).await;
    let key = phantom_proto::netdb::node_key(&contact(3).node_id());
    let record = record(3).bytes().to_vec();
    assert_eq!(stranger.request(&[&[1], &key[..], &record].concat()).await, [2]);
    assert_eq!(stranger.request(&[&[0], &key[..]].concat()).await[1..], record);
    // Rounds in which the sample is filled come every second.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(asked.known().borrow().nodes.is_empty());
}

/// The sample of a node drifted towards those who were near it or stayed connected: a connection brings nobody into it, only news.
// protocol: J2
#[tokio::test]
async fn who_connects_is_met_by_the_next_look_up_and_not_before() {
    for (known, comes) in [(3, true), (30, false)] {
        let network = MemoryNetwork::default();
        let records = (0..known).map(|number| record(100 + number).bytes().to_vec()).collect();
        let asked = node_with(&network, 1, Vec::new(), records);
        let mut seen = asked.known();
        // With the first that connects the first look-up is made.
        let _first = node(&network, 3, vec![contact(1)]);
        timeout(PATIENCE, seen.wait_for(|known| known.connected > 0)).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let other = node(&network, 2, vec![contact(1)]);
        other.register(&record(2)).await;
        timeout(PATIENCE, seen.wait_for(|known| known.connected > 1)).await.unwrap().unwrap();
        let has = |known: &super::Known| known.nodes.iter().any(|record| record.contact == contact(2));
        // Where few are known it is made within a second, else in half a minute.
        let patience = if comes { PATIENCE } else { Duration::from_millis(2500) };
        let came = timeout(patience, seen.wait_for(has)).await.is_ok();
        assert_eq!(came, comes, "{known} are known");
    }
}

// protocol: J11
#[tokio::test]
async fn what_a_neighbour_tells_of_itself_is_known_if_it_is_pinned_and_holds() {
    let asked = node(&MemoryNetwork::default(), 1, Vec::new());
    asked.pin([9, 10].map(|number| contact(number).node_id()).into()).await;
    let mut cut = record(10).bytes().to_vec();
    cut.pop();
    asked.heard(cut).await;
    asked.heard(record(8).bytes().to_vec()).await;
    asked.heard(record(9).bytes().to_vec()).await;
    let mut seen = asked.known();
    let known = timeout(PATIENCE, seen.wait_for(|known| !known.nodes.is_empty())).await.unwrap().unwrap();
    assert!(known.nodes.iter().all(|record| record.contact == contact(9)) && known.nodes.len() == 1);
}

/// Who has a bundle of this node must not know of which nodes its paths are made.
// protocol: J13
#[tokio::test]
async fn others_are_named_by_the_routing_table_alone() {
    let network = MemoryNetwork::default();
    let (_first, asked) = (node(&network, 3, Vec::new()), node(&network, 1, vec![contact(3)]));
    let mut seen = asked.known();
    // Before, it would dial whomever it knows.
    timeout(PATIENCE, seen.wait_for(|known| known.connected > 0)).await.unwrap().unwrap();
    asked.pin([contact(9).node_id()].into()).await;
    asked.heard(record(9).bytes().to_vec()).await;
    timeout(PATIENCE, seen.wait_for(|known| !known.nodes.is_empty())).await.unwrap().unwrap();
    assert_eq!(asked.some(32).await, [contact(3)]);
    assert!(asked.some(0).await.is_empty());
}

// protocol: J9
#[tokio::test]
async fn a_node_that_knows_nobody_joins_through_those_that_it_is_told() {
    let network = MemoryNetwork::default();
    let (first, alone) = (node(&network, 3, Vec::new()), node(&network, 1, Vec::new()));
    first.register(&record(3)).await;
    let mut seen = alone.known();
    timeout(PATIENCE, seen.wait_for(|known| known.alone.is_some())).await.unwrap().unwrap();
    // One that is not there beside it.
    alone.join(vec![contact(5), contact(3)]).await;
    let knows = |known: &super::Known| known.nodes.iter().any(|record| record.contact == contact(3));
    timeout(PATIENCE, seen.wait_for(knows)).await.unwrap().unwrap();
}

const SPEAKS: &[&str] = &["/phantom/kad/1", "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0"];

/// Whether others who look for nodes are told of one that says this of itself and then, by push, `pushes`: at all, and where it is.
async fn is_told(says: Vec<u8>, pushes: Option<Vec<u8>>, patience: Duration) -> [bool; 2] {
    let network = MemoryNetwork::default();
    let _asked = node(&network, 1, Vec::new());
    let other = Stranger::dial_as(&network, 3, 1, Some(says)).await;
    let asking = Stranger::dial_as(&network, 4, 1, None).await;
    let Some(pushes) = pushes else { return tells(&asking, patience).await };
    // A push changes what is known: it is said again until there is something.
    let pushing = async {
        loop {
            other.tell("/ipfs/id/push/1.0.0", &pushes).await.close().await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = pushing => unreachable!("it never ends"),
        told = tells(&asking, patience) => told,
    }
}

async fn tells(asking: &Stranger, patience: Duration) -> [bool; 2] {
    let peer = super::transport::peer_id(&contact(3).identity).unwrap().to_bytes();
    let at = super::transport::multiaddr(&contact(3)).unwrap().to_vec();
    let of_it = [field(1, &peer), field(2, &at), [varint(3 * 8), varint(1)].concat()].concat();
    let has = |answer: &[u8], part: &[u8]| answer.windows(part.len()).any(|window| *window == *part);
    let mut at_all = false;
    let told = async {
        loop {
            let answer = asking.ask("/phantom/kad/1", &vector("find-node")).await;
            at_all |= has(&answer, &peer);
            if has(&answer, &of_it) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let rightly = timeout(patience, told).await.is_ok();
    [at_all, rightly]
}

/// Long enough for whatever is not told to be told: what is told takes some milliseconds.
const SILENCE: Duration = Duration::from_millis(1500);

// protocol: D15, D21, D22
#[tokio::test]
async fn only_who_says_who_and_where_it_is_and_that_it_speaks_the_dht_gets_a_place() {
    assert_eq!([true; 2], is_told(identity(3, &[3], SPEAKS), None, PATIENCE).await);
    assert_eq!([true; 2], is_told(identity(3, &[5, 3], SPEAKS), None, PATIENCE).await, "its own among others'");
    for (says, what) in [
        (identity(3, &[3], &SPEAKS[1..]), "it speaks no DHT"),
        (identity(3, &[5], SPEAKS), "the address is another's"),
        (identity(3, &[], SPEAKS), "it has no address"),
        (identity(5, &[3], SPEAKS), "the key is not the link's"),
    ] {
        assert_eq!([false; 2], is_told(says, None, SILENCE).await, "{what}");
    }
}

// protocol: D15, D21, D22, D23
#[tokio::test]
async fn a_push_changes_what_is_known_as_far_as_it_says_something() {
    let quiet = || identity(3, &[3], &SPEAKS[1..]);
    let nowhere = || identity(3, &[], SPEAKS);
    assert_eq!([true; 2], is_told(quiet(), Some(identity(3, &[], SPEAKS)), PATIENCE).await, "which protocols");
    assert_eq!([true; 2], is_told(nowhere(), Some(identity(3, &[3], &[])), PATIENCE).await, "which address");
    assert_eq!(
        [false; 2],
        is_told(nowhere(), Some(identity(3, &[5], SPEAKS)), SILENCE).await,
        "the address is another's"
    );
    assert_eq!(
        [false; 2],
        is_told(quiet(), Some(identity(5, &[3], SPEAKS)), SILENCE).await,
        "the key is not the link's"
    );
}
