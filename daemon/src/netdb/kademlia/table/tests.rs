//! What a stranger who asks for every bucket of the routing table learns about the sample that was kept: nothing that chance would not tell.
//!
//! One real node among many that answer as all others do, from one list of all.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox};
use libp2p::core::upgrade::InboundConnectionUpgrade;
use libp2p::{kad, yamux};
use phantom_proto::crypto::{SigningKey, VerifyingKey};
use phantom_proto::ident::Spread;
use phantom_proto::netdb::{Answer, Key, Place, Request, Sample, node_key};
use phantom_proto::record::{Epoch, Extensions, NodeRecord, PublicPathKeys, Signed};
use phantom_proto::wire::{NodeContact, Wire as _};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::super::super::tests::{Stranger, contact as own_contact, field, listen, varint};
use super::super::super::transport::{multiaddr, peer_id};
use super::super::tests::alone;
use super::super::{Known, NetDbConfig, Task};
use crate::clock::unix_seconds;
use crate::link::{Link, MemoryNetwork, Transport};

/// Nodes of the network, and of the sample: large beside the k of a bucket, small beside the network.
const NODES: u16 = 600;
const SAMPLED: u16 = 64;

const PATIENCE: Duration = Duration::from_secs(240);

/// All nodes of the network.
struct Everybody {
    /// Where each is, and what is said of it in answers.
    nodes: Vec<(Place, Vec<u8>)>,
    records: BTreeMap<Key, Vec<u8>>,
}

fn key(number: u16) -> SigningKey {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&number.to_be_bytes());
    SigningKey::from_seed(&seed)
}

fn contact(number: u16) -> NodeContact {
    let addr = ([20 + (number >> 8) as u8, number as u8, 0, 1], 443).into();
    NodeContact { identity: key(number).verifying_key(), addr, link_secret: [5; 32] }
}

fn record(number: u16) -> Signed<NodeRecord> {
    let contact = contact(number);
    let keys = PublicPathKeys { dh: [1; 32], kem: Arc::new([2; 1184]) };
    let epoch = Epoch::at(&contact.node_id(), unix_seconds());
    let (keys, extensions) = ([keys.clone(), keys], Extensions::default());
    Signed::sign(&NodeRecord { contact, epoch, revision: 0, keys, extensions }, &key(number))
}

fn as_peer(contact: &NodeContact) -> Vec<u8> {
    let (peer, at) = (peer_id(&contact.identity).unwrap().to_bytes(), multiaddr(contact).unwrap().to_vec());
    [field(1, &peer), field(2, &at), vec![24, 1]].concat()
}

impl Everybody {
    /// All of them listen.
    fn join(network: &MemoryNetwork) {
        let contacts: Vec<_> = (0..NODES).map(contact).collect();
        let nodes = contacts.iter().map(|contact| (Place::of_node(&contact.identity), as_peer(contact))).collect();
        let record = |number| (node_key(&contact(number).node_id()), record(number).bytes().to_vec());
        let all = Arc::new(Self { nodes, records: (0..NODES).map(record).collect() });
        for contact in contacts {
            let (links, all) = (network.join(contact.clone()), all.clone());
            tokio::spawn(async move {
                while let Some(link) = links.accept().await {
                    tokio::spawn(serve(all.clone(), contact.clone(), link));
                }
            });
        }
    }

    fn nearest(&self, key: &[u8]) -> Vec<u8> {
        let target = Place::of_key(key);
        let mut nodes: Vec<_> = self.nodes.iter().collect();
        nodes.sort_by_key(|(place, _)| target.distance(place));
        let peers = nodes.iter().take(kad::K_VALUE.get()).map(|(_, peer)| field(8, peer));
        [vec![8, 4], peers.collect::<Vec<_>>().concat(), vec![80, 9]].concat()
    }
}

/// Answers whatever is asked on a link.
async fn serve(all: Arc<Everybody>, own: NodeContact, link: Link) {
    let Ok(muxer) = yamux::Config::default().upgrade_inbound(link.stream.compat(), "").await else { return };
    let mut muxer = StreamMuxerBox::new(muxer);
    poll_fn(|cx| {
        while let Poll::Ready(Ok(stream)) = muxer.poll_inbound_unpin(cx) {
            tokio::spawn(answer(all.clone(), own.clone(), stream));
        }
        match muxer.poll_unpin(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    })
    .await;
}

async fn line(stream: &mut SubstreamBox) -> std::io::Result<Vec<u8>> {
    let mut length = [0];
    stream.read_exact(&mut length).await?;
    let mut line = vec![0; length[0].into()];
    stream.read_exact(&mut line).await?;
    Ok(line)
}

async fn answer(all: Arc<Everybody>, own: NodeContact, mut stream: SubstreamBox) -> std::io::Result<()> {
    loop {
        let line = line(&mut stream).await?;
        let known: [&[u8]; 4] =
            [b"/multistream/1.0.0\n", b"/ipfs/id/1.0.0\n", b"/phantom/kad/1\n", b"/phantom/records/1\n"];
        if !known.contains(&&line[..]) {
            stream.write_all(b"\x03na\n").await?;
            stream.flush().await?;
            continue;
        }
        stream.write_all(&[&[line.len() as u8], &line[..]].concat()).await?;
        stream.flush().await?;
        match &line[..] {
            b"/multistream/1.0.0\n" => continue,
            b"/ipfs/id/1.0.0\n" => {
                let key = [&[8, 1, 0x12, 32], &own.identity.0[..]].concat();
                let speaks = ["/phantom/kad/1", "/ipfs/id/1.0.0", "/phantom/records/1"];
                let speaks = speaks.map(|name| field(3, name.as_bytes())).concat();
                let at = field(2, &multiaddr(&own).unwrap().to_vec());
                let said = [field(1, &key), at, speaks, field(5, b"/phantom/id/1"), field(6, b"other")].concat();
                stream.write_all(&[varint(said.len()), said].concat()).await?;
            }
            b"/phantom/kad/1\n" => {
                let mut length = [0];
                // A question is short, and begins with its type and its key.
                stream.read_exact(&mut length).await?;
                let mut question = vec![0; length[0].into()];
                stream.read_exact(&mut question).await?;
                assert_eq!(question[..3], [8, 4, 0x12]);
                let nearest = all.nearest(&question[4..4 + usize::from(question[3])]);
                stream.write_all(&[varint(nearest.len()), nearest].concat()).await?;
            }
            _ => {
                let mut question = Vec::new();
                (&mut stream).take(8192).read_to_end(&mut question).await?;
                let answer = match Request::from_bytes(&question) {
                    Ok(Request::Get(key)) => {
                        all.records.get(&key).map_or(Answer::Nothing, |record| Answer::Record(record.clone()))
                    }
                    _ => Answer::Stands,
                };
                stream.write_all(&answer.to_bytes()).await?;
            }
        }
        return stream.close().await;
    }
}

/// A node that joins through one of them, with the sample of an earlier run.
fn node(network: &MemoryNetwork, records: Vec<Vec<u8>>) -> Task {
    let (links, incoming_rx) = listen(network, 1);
    let config = NetDbConfig { peers: vec![contact(0)], records, ..alone(own_contact(1), links, incoming_rx) };
    let mut task = Task::new(config, watch::channel(Known::default()).0).unwrap();
    task.sample =
        std::mem::replace(&mut task.sample, Sample::new(Spread::Nodes)).sized(SAMPLED.into(), usize::from(SAMPLED) / 2);
    task
}

/// Whom a stranger hears of who asks for so many random keys that every bucket answers. It comes again when its connection was one of too many.
async fn asks_for_all(network: &MemoryNetwork) -> BTreeSet<u16> {
    let mut stranger = Stranger::dial_as(network, 3, 1, None).await;
    let mut rng = StdRng::seed_from_u64(1);
    let (mut told, mut asked) = (Vec::new(), 0);
    while asked < 400 {
        let key: [u8; 32] = rng.random();
        let question = [&[8, 4][..], &field(2, &key), &[80, 10]].concat();
        match stranger.try_ask("/phantom/kad/1", &[varint(question.len()), question].concat()).await {
            Ok(answer) => {
                told.extend(answer);
                asked += 1;
            }
            Err(_) => stranger = Stranger::dial_as(network, 3, 1, None).await,
        }
    }
    // Each is named by its peer id, which holds its key.
    let has = |identity: &VerifyingKey| told.windows(32).any(|window| *window == identity.0);
    (0..NODES + SAMPLED).filter(|number| has(&contact(*number).identity)).collect()
}

/// So many of `told` may be in a sample that has nothing to do with it: the mean and four standard deviations of the hypergeometric
/// distribution.
fn by_chance(told: usize, sampled: usize) -> f64 {
    let (all, told, sampled) = (f64::from(NODES), told as f64, sampled as f64);
    let mean = told * sampled / all;
    mean + 4.0 * (mean * (1.0 - sampled / all) * (all - told) / (all - 1.0)).sqrt()
}

/// It began with the sample of the earlier run, guards and members of layers among it: whoever asked was told most of them.
// protocol: D35, J8
#[tokio::test]
async fn who_asks_for_every_bucket_after_a_restart_learns_of_the_kept_sample_no_more_than_chance_tells() {
    let network = MemoryNetwork::default();
    Everybody::join(&network);
    // Half of them are not there any more, and are tried again and again.
    let there: Vec<_> = (0..SAMPLED / 2).map(|number| 9 + number * 18).collect();
    let gone: Vec<_> = (NODES..NODES + SAMPLED / 2).collect();
    let kept = there.iter().chain(&gone).map(|number| record(*number).bytes().to_vec());
    let task = node(&network, kept.collect());
    let mut known_rx = task.known_tx.subscribe();
    let (_command_tx, command_rx) = mpsc::channel(1);
    tokio::spawn(task.run(command_rx));
    timeout(PATIENCE, known_rx.wait_for(|known| known.connected > 60)).await.unwrap().unwrap();
    let told = timeout(PATIENCE, asks_for_all(&network)).await.unwrap();
    let of = |sampled: &[u16]| sampled.iter().filter(|number| told.contains(number)).count();
    let (alive, dead, most) = (of(&there), of(&gone), by_chance(told.len(), there.len()));
    println!(
        "told {} of {NODES}: {alive} of {} of the sample, by chance at most {most:.1}; {dead} dead ones",
        told.len(),
        there.len()
    );
    assert!(told.len() >= 60, "it tells few: {}", told.len());
    assert!(dead == 0, "{dead} of {} dead nodes of the sample are told", gone.len());
    assert!((alive as f64) <= most, "{alive} of {} of the sample are told, by chance at most {most:.1}", there.len());
}
