//! What both transports promise.

use futures::future::{join, select_all};
use phantom_daemon::link::{LinkError, MemoryNetwork, Purpose, TlsTransport, Transport};
use phantom_proto::wire::NodeContact;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::support::*;

// protocol: L5, L12, L21
#[tokio::test]
async fn both_sides_know_each_other_and_bytes_flow() {
    for [(one, one_contact), (two, two_contact)] in pairs() {
        for purpose in [Purpose::Database, Purpose::Frames] {
            let mut dialed = one.dial(&two_contact, purpose).await.unwrap();
            let mut accepted = accept(&two).await;
            assert_eq!((dialed.peer, accepted.peer), (two_contact.identity, one_contact.identity));
            assert_eq!((dialed.remote, accepted.purpose, dialed.purpose), (two_contact.addr, purpose, purpose));
            dialed.stream.write_all(b"there").await.unwrap();
            dialed.stream.flush().await.unwrap();
            let mut got = [0; 5];
            accepted.stream.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"there");
            accepted.stream.write_all(&[7; 100]).await.unwrap();
            accepted.stream.shutdown().await.unwrap();
            let mut all = Vec::new();
            dialed.stream.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, [7; 100]);
        }
    }
}

/// Neither direction waits for the other, however much is under way.
#[tokio::test]
async fn much_flows_both_ways_at_once() {
    const MUCH: usize = 3_000_000;
    for [(one, _), (two, contact)] in pairs() {
        let (dialed, accepted) = join(dial(&one, &contact), accept(&two)).await;
        let swap = async |link: phantom_daemon::link::Link| {
            let (mut read, mut write) = tokio::io::split(link.stream);
            let send = async {
                let bytes: Vec<u8> = (0..MUCH).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
                write.write_all(&bytes).await.unwrap();
                write.shutdown().await.unwrap();
                bytes
            };
            let receive = async {
                let mut got = Vec::new();
                read.read_to_end(&mut got).await.unwrap();
                got
            };
            let (sent, got) = join(send, receive).await;
            assert!(sent == got);
        };
        timeout(PATIENCE, join(swap(dialed.unwrap()), swap(accepted))).await.unwrap();
    }
}

/// I8: neither a wrong secret nor a wrong key leads to a weaker link.
// protocol: L17
#[tokio::test]
async fn a_wrong_secret_or_key_is_no_link() {
    for [(one, _), (two, contact)] in pairs() {
        let wrong_secret = NodeContact { link_secret: [99; 32], ..contact.clone() };
        assert!(matches!(dial(&one, &wrong_secret).await, Err(LinkError::NotTheNode(_))));
        let wrong_key = NodeContact { identity: key(9).verifying_key(), ..contact.clone() };
        assert!(matches!(dial(&one, &wrong_key).await, Err(LinkError::Misbehaved(_))));
        // Nothing of that reached the daemon: the first link is the good one.
        let _link = one.dial(&contact, Purpose::Database).await.unwrap();
        assert_eq!(accept(&two).await.purpose, Purpose::Database);
    }
}

#[tokio::test]
async fn a_closed_node_is_unreachable_and_its_links_go_on() {
    for [(one, _), (two, contact)] in pairs() {
        let (dialed, accepted) = join(dial(&one, &contact), accept(&two)).await;
        let (mut dialed, mut accepted) = (dialed.unwrap(), accepted);
        timeout(PATIENCE, two.close()).await.unwrap();
        assert!(timeout(PATIENCE, two.accept()).await.unwrap().is_none());
        assert!(matches!(dial(&one, &contact).await, Err(LinkError::Unreachable(_))));
        dialed.stream.write_all(b"on").await.unwrap();
        dialed.stream.flush().await.unwrap();
        let mut got = [0; 2];
        accepted.stream.read_exact(&mut got).await.unwrap();
    }
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    for [(one, _), (two, contact)] in pairs() {
        drop(two);
        // Without close(), the listener ends as soon as its task sees that the transport is gone.
        let gone = async {
            while !matches!(dial(&one, &contact).await, Err(LinkError::Unreachable(_))) {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, gone).await.expect("gone");
    }
}

/// I7: links that the daemon does not take are bounded, and those beyond are dropped.
#[tokio::test]
async fn links_that_nobody_takes_are_dropped() {
    const MORE_THAN_QUEUED: usize = 260;
    for [(one, _), (two, contact)] in pairs() {
        let mut links = Vec::new();
        for _ in 0..MORE_THAN_QUEUED {
            links.push(dial(&one, &contact).await.unwrap());
        }
        let ends = links.iter_mut().map(|link| Box::pin(async { link.stream.read(&mut [0]).await }));
        let (ended, ..) = timeout(PATIENCE, select_all(ends)).await.unwrap();
        assert!(!matches!(ended, Ok(1..)));
        // The others wait in peace.
        for _ in 0..256 {
            accept(&two).await;
        }
    }
}

#[tokio::test]
async fn a_second_listener_on_the_port_is_told_so() {
    let (_one, contact) = tls(1);
    let error = TlsTransport::bind(config(2, &contact.addr.to_string())).err().unwrap().to_string();
    assert!(error.contains("in use") && error.contains("--listen"), "{error}");
    let error = TlsTransport::bind(config(2, "192.0.2.1:0")).err().unwrap().to_string();
    assert!(error.contains("no address of this machine"), "{error}");
}

#[tokio::test]
async fn a_closed_nodes_port_is_free_at_once() {
    let (one, contact) = tls(1);
    let (two, _) = tls(2);
    let _link = dial(&two, &contact).await.unwrap();
    one.close().await;
    let (again, _) = start(config(1, &contact.addr.to_string()));
    let _link = dial(&two, &contact).await.unwrap();
    accept(&again).await;
}

/// Private networks give each node a loopback address, by which the others know it.
#[tokio::test]
async fn a_loopback_node_dials_from_its_own_address() {
    let (one, _) = start(config(1, "127.0.0.51:0"));
    let (two, contact) = start(config(2, "127.0.0.52:0"));
    let _link = dial(&one, &contact).await.unwrap();
    assert_eq!(accept(&two).await.remote.ip(), one.local_addr().ip());
}

/// A node that was started anew in memory takes its address over; the old one's end does not end it.
#[tokio::test]
async fn a_memory_node_may_be_started_again() {
    let network = MemoryNetwork::default();
    let (one, _) = memory(&network, 1);
    let (old, contact) = memory(&network, 2);
    let (new, _) = memory(&network, 2);
    let _link = dial(&one, &contact).await.unwrap();
    assert!(timeout(PATIENCE, old.accept()).await.unwrap().is_none());
    drop(old);
    let _link = dial(&one, &contact).await.unwrap();
    for _ in 0..2 {
        accept(&new).await;
    }
}

#[tokio::test]
async fn frames_travel_whole() {
    for [(one, _), (two, contact)] in pairs() {
        let (dialed, accepted) = join(dial(&one, &contact), accept(&two)).await;
        let (mut reader, _keep) = accepted.into_frames();
        let (_reader, mut writer) = dialed.unwrap().into_frames();
        let send = async {
            for len in [0, 1, 5000, 131_072] {
                writer.write(3, &vec![9; len]).await.unwrap();
            }
            writer.flush().await.unwrap();
        };
        let receive = async {
            for len in [0, 1, 5000, 131_072] {
                let frame = reader.read().await.unwrap().unwrap();
                assert_eq!((frame.kind, &frame.payload[..]), (3, &vec![9; len][..]));
            }
        };
        timeout(PATIENCE, join(send, receive)).await.unwrap();
        assert!(reader.is_drained() && !reader.has_frame());
        assert_eq!(reader.peer(), key(1).verifying_key());
    }
}

/// The transport is used from many tasks at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_dial_at_once() {
    for [(one, _), (two, contact)] in pairs() {
        let dials: Vec<_> = (0..32)
            .map(|_| {
                let (one, contact): (Arc<dyn Transport>, _) = (one.clone(), contact.clone());
                tokio::spawn(async move { dial(&one, &contact).await.unwrap() })
            })
            .collect();
        for _ in 0..32 {
            accept(&two).await;
        }
        for dialed in dials {
            dialed.await.unwrap();
        }
    }
}
