//! Warm links: kept, dialed ahead, noticed when they end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join;
use phantom_daemon::link::frame::{LinkReader, LinkWriter};
use phantom_daemon::link::{Link, LinkError, LinkPool, MemoryNetwork, PoolLimits, Purpose, Transport};
use phantom_proto::wire::NodeContact;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::support::*;

/// Whether both are ends of one link.
async fn joined(writer: &mut LinkWriter, reader: &mut LinkReader) -> bool {
    writer.write(3, b"hello").await.unwrap();
    writer.flush().await.unwrap();
    let frame = timeout(PATIENCE, reader.read()).await.unwrap().unwrap();
    frame.is_some_and(|frame| frame.payload == b"hello"[..])
}

fn pool(node: &Node) -> LinkPool {
    LinkPool::new(node.0.clone())
}

#[tokio::test]
async fn a_link_given_back_is_used_again() {
    for [one, (two, contact)] in pairs() {
        let pool = pool(&one);
        let (dialed, accepted) = join(pool.take(&contact), accept(&two)).await;
        let (mut their_reader, _their_writer) = accepted.into_frames();
        let (reader, mut writer) = dialed.unwrap().into_frames();
        assert!(joined(&mut writer, &mut their_reader).await);
        pool.give_back(reader, writer);
        assert_eq!(pool.ready(&contact), 1);
        let (_reader, mut writer) = pool.take(&contact).await.unwrap().into_frames();
        assert!(joined(&mut writer, &mut their_reader).await);
        assert_eq!(pool.ready(&contact), 0);
    }
}

// protocol: L45
#[tokio::test]
async fn a_link_to_where_a_node_was_is_not_handed_out() {
    for [one, (two, contact)] in pairs() {
        let pool = pool(&one);
        let (dialed, _accepted) = join(pool.take(&contact), accept(&two)).await;
        let (reader, writer) = dialed.unwrap().into_frames();
        pool.give_back(reader, writer);
        let moved =
            NodeContact { addr: SocketAddr::new(contact.addr.ip(), contact.addr.port() ^ 1), ..contact.clone() };
        assert!(pool.take_warm(&moved).is_none());
        assert_eq!(pool.ready(&contact), 0, "it is there no more");
    }
}

#[tokio::test]
async fn a_link_with_something_in_flight_is_not_kept() {
    for [one, (two, contact)] in pairs() {
        let pool = pool(&one);
        let (dialed, accepted) = join(pool.take(&contact), accept(&two)).await;
        let (reader, mut writer) = dialed.unwrap().into_frames();
        writer.write(1, b"not flushed").await.unwrap();
        pool.give_back(reader, writer);
        assert_eq!(pool.ready(&contact), 0);
        drop(accepted);
    }
}

// protocol: L31, L32, F10
#[tokio::test]
async fn a_warm_link_that_ended_or_speaks_is_not_handed_out() {
    for speaks in [false, true] {
        for [one, (two, contact)] in pairs() {
            let pool = pool(&one);
            let (dialed, accepted) = join(pool.take(&contact), accept(&two)).await;
            let (reader, writer) = dialed.unwrap().into_frames();
            pool.give_back(reader, writer);
            let (_reader, mut writer) = accepted.into_frames();
            if speaks {
                writer.write(1, b"unasked").await.unwrap();
                writer.flush().await.unwrap();
            } else {
                writer.shutdown().await.unwrap();
            }
            // The next take dials anew, as soon as the news has arrived.
            let again = async {
                loop {
                    match pool.take_warm(&contact) {
                        Some(link) => {
                            let (reader, writer) = link.into_frames();
                            pool.give_back(reader, writer);
                            tokio::task::yield_now().await;
                        }
                        None => break pool.take(&contact).await.unwrap(),
                    }
                }
            };
            let (_link, _accepted): (Link, Link) =
                timeout(PATIENCE, join(again, accept(&two))).await.expect("a new link");
        }
    }
}

#[tokio::test]
async fn warm_links_are_dialed_ahead_and_replaced() {
    for [one, (two, contact)] in pairs() {
        let pool = pool(&one);
        assert!(pool.warm(&contact, 2));
        let (mut first, mut second) = (accept(&two).await, accept(&two).await);
        let ready = async {
            while pool.ready(&contact) < 2 {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, ready).await.expect("both are ready");
        let mut taken = pool.take_warm(&contact).expect("a warm link");
        // One was taken, and one ends: each is replaced.
        let third = accept(&two).await;
        taken.stream.write_all(b"x").await.unwrap();
        taken.stream.flush().await.unwrap();
        let (mut a, mut b) = ([0; 1], [0; 1]);
        let ours = tokio::select! {
            read = first.stream.read_exact(&mut a) => { read.unwrap(); second }
            read = second.stream.read_exact(&mut b) => { read.unwrap(); first }
        };
        drop(ours);
        accept(&two).await;
        assert!(pool.warm(&contact, 0));
        drop(third);
    }
}

/// I7: both bounds hold whatever is given back.
#[tokio::test]
async fn the_pool_is_bounded_per_node_and_in_total() {
    let network = MemoryNetwork::default();
    let one = memory(&network, 1);
    let limits = PoolLimits { per_peer: 2, total: 3, ..PoolLimits::default() };
    let pool = LinkPool::with_limits(one.0.clone(), limits);
    let others: Vec<Node> = (2..5).map(|seed| memory(&network, seed)).collect();
    for (node, contact) in &others {
        let mut kept = Vec::new();
        for _ in 0..3 {
            let (link, accepted) = join(pool.take(contact), accept(node)).await;
            kept.push((link.unwrap().into_frames(), accepted));
        }
        for ((reader, writer), accepted) in kept {
            pool.give_back(reader, writer);
            // Alive for as long as the test.
            std::mem::forget(accepted);
        }
    }
    assert_eq!(others.iter().map(|(_, contact)| pool.ready(contact)).collect::<Vec<_>>(), [2, 1, 0]);
}

// protocol: L30
#[tokio::test(start_paused = true)]
async fn links_grow_too_old_at_different_times() {
    let network = MemoryNetwork::default();
    let (one, (two, contact)) = (memory(&network, 1), memory(&network, 2));
    let limits = PoolLimits { per_peer: 64, total: 64, idle: Duration::from_secs(100) };
    let pool = LinkPool::with_limits(one.0.clone(), limits);
    let mut theirs = Vec::new();
    let mut ours = Vec::new();
    for _ in 0..64 {
        let (link, accepted) = join(pool.take(&contact), accept(&two)).await;
        ours.push(link.unwrap().into_frames());
        theirs.push(accepted);
    }
    for (reader, writer) in ours {
        pool.give_back(reader, writer);
    }
    tokio::time::sleep(Duration::from_secs(49)).await;
    assert_eq!(pool.ready(&contact), 64);
    // The sweeper meets each at most five seconds late.
    tokio::time::sleep(Duration::from_secs(26)).await;
    assert!((1..64).contains(&pool.ready(&contact)), "{}", pool.ready(&contact));
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(pool.ready(&contact), 0);
}

/// However busy a link is: for its whole life it would show which uses are of one node.
// protocol: B6
#[tokio::test(start_paused = true)]
async fn no_link_is_used_for_longer_than_an_hour() {
    let network = MemoryNetwork::default();
    let (one, (two, contact)) = (memory(&network, 1), memory(&network, 2));
    let pool = LinkPool::new(one.0.clone());
    let mut lives = Vec::new();
    for _ in 0..20 {
        let (link, _accepted) = join(pool.take(&contact), accept(&two)).await;
        let (mut link, mut uses) = (link.ok(), 0);
        while let Some(used) = link {
            let (reader, writer) = used.into_frames();
            pool.give_back(reader, writer);
            tokio::time::sleep(Duration::from_secs(30)).await;
            uses += 1;
            link = pool.take_warm(&contact);
        }
        lives.push(uses / 2);
    }
    assert!(lives.iter().all(|minutes| (10..=60).contains(minutes)), "{lives:?}");
    assert!(lives.iter().max() > lives.iter().min(), "all have one life");
}

/// A node that cannot be reached is dialed less and less often.
#[tokio::test(start_paused = true)]
async fn dials_that_fail_grow_rare() {
    let network = MemoryNetwork::default();
    let one = memory(&network, 1);
    let gone = contact(2, ([127, 0, 0, 2], 443).into());
    let counting = Arc::new(Counting(one.0.clone(), Default::default()));
    let pool = LinkPool::new(counting.clone());
    assert!(pool.warm(&gone, 1));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let dials = counting.1.load(Ordering::Relaxed);
    // 5, 10, … 160 s, then every 300 s or a sweep later.
    assert!((12..25).contains(&dials), "{dials}");
}

struct Counting(Arc<dyn Transport>, AtomicUsize);

#[async_trait]
impl Transport for Counting {
    async fn dial(&self, peer: &NodeContact, purpose: Purpose) -> Result<Link, LinkError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        // A failure takes its time.
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.0.dial(peer, purpose).await
    }
    async fn accept(&self) -> Option<Link> {
        self.0.accept().await
    }
    fn local_addr(&self) -> SocketAddr {
        self.0.local_addr()
    }
    async fn close(&self) {
        self.0.close().await;
    }
}
