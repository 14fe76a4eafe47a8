//! Peers that mean no good, or just stop; and bytes that come in any pieces.

use std::time::Duration;

use ::aws_lc_rs::aead::{AES_128_GCM, UnboundKey};
use futures::FutureExt;
use proptest::prelude::*;
use rustls::ContentType;
use tokio::net::{TcpListener, TcpSocket};

use super::*;

/// What came before a fault is given, the fault then, and for ever; and nothing is written any more.
#[tokio::test]
async fn a_fault_ends_both_directions() {
    let (mut near, mut far) = records(100_000).await;
    far.sealer.content(b"good", &mut far.leaving).unwrap();
    far.sealer.content(b"changed", &mut far.leaving).unwrap();
    *far.leaving.last_mut().unwrap() ^= 1;
    say(&mut far, b"behind").await.unwrap();
    let mut got = [0; 100];
    assert_eq!(near.read(&mut got).await.unwrap(), 4);
    for _ in 0..2 {
        assert_eq!(near.read(&mut got).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
    assert_eq!(near.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    near.shutdown().await.unwrap();
    // The one alert, and no close_notify behind it.
    let mut wire = Vec::new();
    far.inner.read_to_end(&mut wire).await.unwrap();
    assert_eq!(wire.len(), 24);
    assert!(matches!(far.opener.open(&mut BytesMut::from(&wire[..])), Err(End::Broken { alert: None, .. })));
}

/// A peer that reads nothing does not hold up who finds its fault.
#[tokio::test]
async fn a_fault_is_an_error_though_its_answer_cannot_leave() {
    let (mut near, mut far) = records(10_000).await;
    assert!(near.write(&[1; 60_000]).now_or_never().is_some());
    far.inner.write_all(&[0; 9]).await.unwrap();
    assert_eq!(near.read(&mut [0; 9]).now_or_never().unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
}

// protocol: L41
#[tokio::test]
async fn a_message_of_the_handshake_ends_the_link() {
    let (client, mut far) = tls(client(), server(&CIPHERS), 100_000).await;
    let mut near = of_client(client);
    far.get_mut().1.refresh_traffic_keys().unwrap();
    say(&mut far, b"behind").await.unwrap();
    assert_eq!(near.read(&mut [0; 9]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    let said = far.read(&mut [0; 9]).await.unwrap_err().to_string();
    assert!(said.contains("UnexpectedMessage"), "{said}");
}

/// Nothing is sealed with a key that has sealed enough, but that it is over. What rustls sealed counts.
// protocol: L42
#[tokio::test]
async fn a_key_lasts_for_so_many_bytes() {
    const LIMIT: u64 = 1 << 38;
    let (mut near, mut far) = records(100_000).await;
    assert!(far.sealer.sealed >= 2 * 16_384, "a ticket and a byte");
    near.sealer.sealed = LIMIT - 27;
    say(&mut near, b"12345").await.unwrap();
    assert_eq!(near.sealer.sealed, LIMIT);
    assert_eq!(near.write(b"6").await.unwrap_err().to_string(), "the key of the link is used up");
    let mut got = Vec::new();
    far.read_to_end(&mut got).now_or_never().expect("the end has come").unwrap();
    assert_eq!(got, b"12345");
    assert_eq!(near.write(b"6").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

/// An end that was said is said once, and nothing follows it.
// protocol: L21
#[tokio::test]
async fn behind_its_end_nothing_is_written() {
    let (mut near, mut far) = records(100_000).await;
    near.shutdown().await.unwrap();
    near.shutdown().await.unwrap();
    assert_eq!(near.write(b"6").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    let mut wire = Vec::new();
    far.inner.read_to_end(&mut wire).await.unwrap();
    assert_eq!(wire.len(), 24);
}

/// Who reads nothing is written no more than waits in rustls, and leaves nothing behind when idle.
#[tokio::test]
async fn no_more_than_a_batch_waits_to_leave() {
    let (mut near, mut far) = records(10_000).await;
    let (bytes, mut taken) = (vec![7; 10 * WAITING], 0);
    while let Some(count) = near.write(&bytes[..]).now_or_never() {
        taken += count.unwrap();
    }
    assert!((WAITING - 200..=WAITING + 10_000).contains(&taken), "{taken}");
    let mut got = vec![0; taken];
    let (flushed, read) = tokio::join!(near.flush(), far.read_exact(&mut got));
    flushed.unwrap();
    read.unwrap();
    assert!(got.iter().all(|byte| *byte == 7));
    assert!(far.read(&mut [0]).now_or_never().is_none());
    assert_eq!((near.leaving.capacity(), far.arrived.capacity(), far.plain.capacity()), (0, 0, 0));
}

/// One who begins a record and stops costs little.
#[tokio::test]
async fn a_begun_record_takes_the_place_that_it_needs() {
    let (mut near, mut far) = records(100_000).await;
    let mut sealed = BytesMut::new();
    far.sealer.content(&[5; 9000], &mut sealed).unwrap();
    for end in [1, 100, 4000] {
        let sent = near.arrived.len();
        far.inner.write_all(&sealed[sent..end]).await.unwrap();
        assert!(near.read(&mut [0]).now_or_never().is_none());
        assert_eq!(near.arrived.len(), end);
        assert!(near.arrived.capacity() <= BEGUN, "{}", near.arrived.capacity());
    }
    far.inner.write_all(&sealed[4000..]).await.unwrap();
    let mut got = [0; 9000];
    near.read_exact(&mut got).await.unwrap();
    assert_eq!(got, [5; 9000]);
}

/// RST within a record is the error that it is, and not an end.
// protocol: L22
#[tokio::test]
async fn a_reset_within_a_record_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    let (near, far) = tokio::join!(socket.connect(listener.local_addr().unwrap()), listener.accept());
    let (near, far) = shaken(client(), server(&CIPHERS), near.unwrap(), far.unwrap().0).await;
    let (mut near, mut far) = (of_client(near), of_server(far));
    far.inner.write_all(&[23, 3, 3, 1, 0, 99]).await.unwrap();
    while near.arrived.len() < 6 {
        assert!(near.read(&mut [0]).now_or_never().is_none());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    far.inner.set_zero_linger().unwrap();
    drop(far);
    assert_eq!(near.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

/// RFC 8448, section 3: what the client sends at the end of "Simple 1-RTT Handshake".
#[test]
fn records_are_those_of_the_rfc() {
    let key = hex::decode("17422dda596ed5d9acd890e3c63f5051").unwrap();
    let iv = <[u8; 12]>::try_from(hex::decode("5b78923dee08579033e523d9").unwrap()).unwrap();
    let mut sealer = Sealer::with(UnboundKey::new(&AES_128_GCM, &key).unwrap(), iv.into(), 0, KEY_LIMIT);
    let (mut out, content) = (BytesMut::new(), (0..50).collect::<Vec<u8>>());
    sealer.content(&content, &mut out).unwrap();
    let record = "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b62974e1f5a\
                  6292a2977014bd1e3deae63aeebb21694915e4";
    assert_eq!(hex::encode(&out), record);
    out.clear();
    sealer.alert(AlertDescription::CloseNotify, &mut out).unwrap();
    assert_eq!(hex::encode(&out), "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3");
}

proptest! {
    /// Whatever is said, and in whatever pieces it comes.
    #[test]
    fn arbitrary_records_in_arbitrary_pieces_give_the_same_bytes(
        contents in proptest::collection::vec(prop_oneof![0..100_usize, 16_000..40_000_usize], 0..12),
        pieces in proptest::collection::vec(prop_oneof![1..30_usize, 1..50_000_usize], 1..20),
    ) {
        let (mut sealer, mut opener) = keys();
        let (mut wire, mut said) = (BytesMut::new(), Vec::new());
        for (number, count) in contents.into_iter().enumerate() {
            let content: Vec<u8> = (0..count).map(|at| (at / 3 + number) as u8).collect();
            sealer.content(&content, &mut wire).unwrap();
            said.extend(content);
        }
        let (mut arrived, mut heard) = (BytesMut::new(), Vec::new());
        for piece in pieces.into_iter().cycle() {
            if wire.is_empty() {
                break;
            }
            arrived.extend_from_slice(&wire.split_to(piece.min(wire.len())));
            while let Some(plain) = opener.open(&mut arrived).unwrap() {
                heard.extend_from_slice(&plain);
            }
        }
        prop_assert!(arrived.is_empty());
        prop_assert!(heard == said);
    }

    /// What nobody sealed gives nothing.
    #[test]
    fn bytes_of_nobody_give_nothing(bytes: Vec<u8>, kind in 0..30_u8) {
        let (_, mut opener) = keys();
        let mut arrived = BytesMut::from(&[&[kind, 3, 3, 0, bytes.len() as u8], &bytes[..]].concat()[..]);
        prop_assert!(!matches!(opener.open(&mut arrived), Ok(Some(_)) | Err(End::Said)));
    }

    /// Each record may be the last that arrives as it was; behind a fault the opener is not asked again.
    #[test]
    fn what_is_changed_is_not_opened(at in 3..60_usize, by in 1..=255_u8, kind in prop_oneof![Just(ContentType::ApplicationData), Just(ContentType::Alert)]) {
        let (mut sealer, mut opener) = keys();
        let mut wire = BytesMut::new();
        sealer.record(kind, &[1; 38], &mut wire).unwrap();
        wire[at] ^= by;
        prop_assert!(!matches!(opener.open(&mut wire), Ok(Some(_)) | Err(End::Said)));
    }
}
