//! The records of a link: its pure files, compiled from where they stand, with as much around them as they need.
#![allow(dead_code, unreachable_pub)]

#[path = "../../daemon/src/link/records/opening.rs"]
mod opening;
#[path = "../../daemon/src/link/records/sealing.rs"]
mod sealing;

use arbitrary::Arbitrary;
use bytes::BytesMut;
use rustls::ConnectionTrafficSecrets;
use rustls::crypto::cipher::{AeadKey, Iv};

use opening::{End, Opener};
use sealing::Sealer;

const HEADER: usize = 5;

fn length(header: &[u8; HEADER]) -> usize {
    u16::from_be_bytes([header[3], header[4]]).into()
}

/// What a peer sends, or somebody between.
#[derive(Arbitrary, Debug)]
pub enum Op {
    Content(Vec<u8>),
    Much(u16),
    Alert(u8),
    /// Of any kind, with what may be padding.
    Record(u8, Vec<u8>),
    Raw(Vec<u8>),
    Change(u16, u8),
    Cut(u16),
    /// The pieces are so long from here on.
    Pieces(u16),
}

fn secrets(number: u8) -> (u64, ConnectionTrafficSecrets) {
    let (key, iv) = (AeadKey::from([number; 32]), Iv::from([number; 12]));
    let secrets = if number % 2 == 0 {
        ConnectionTrafficSecrets::Aes256Gcm { key, iv }
    } else {
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }
    };
    (number.into(), secrets)
}

/// The end that arrives, if one does. What arrives before it was said, byte for byte; all of it, if nobody meddled.
pub fn play(key: u8, ops: Vec<Op>) {
    let mut sealer = Sealer::new(secrets(key), u64::MAX).expect("a cipher that is offered");
    let mut opener = Opener::new(secrets(key)).expect("a cipher that is offered");
    let (mut wire, mut said, mut honest, mut piece) = (BytesMut::new(), Vec::new(), true, 1000);
    for op in ops.into_iter().take(64) {
        match op {
            Op::Content(content) => {
                sealer.content(&content, &mut wire).expect("a fresh key");
                said.extend(content);
            }
            Op::Much(count) => {
                let content = vec![count as u8; count.into()];
                sealer.content(&content, &mut wire).expect("a fresh key");
                said.extend(content);
            }
            Op::Alert(alert) => {
                honest = false;
                sealer.alert(alert.into(), &mut wire).expect("a fresh key");
            }
            Op::Record(kind, content) => {
                honest = false;
                // Data that is padded is data.
                let inner = [&content[..], &[kind]].concat();
                if let Some(at) = inner.iter().rposition(|byte| *byte != 0).filter(|at| inner[*at] == 23) {
                    said.extend(&inner[..at]);
                }
                sealer.record(kind.into(), &content, &mut wire).expect("a fresh key");
            }
            Op::Raw(bytes) => {
                honest &= bytes.is_empty();
                wire.extend_from_slice(&bytes);
            }
            Op::Change(at, by) => {
                let at = usize::from(at);
                if let Some(byte) = wire.get_mut(at) {
                    *byte ^= by;
                    honest &= by == 0;
                }
            }
            Op::Cut(at) => {
                honest &= usize::from(at) >= wire.len();
                wire.truncate(at.into());
            }
            Op::Pieces(count) => piece = usize::from(count).max(1),
        }
    }
    let (heard, end) = hear(&mut opener, &wire, piece);
    assert!(said.starts_with(&heard), "what nobody said, or not in its place");
    if honest {
        assert_eq!((heard.len(), end), (said.len(), None));
    }
}

fn hear(opener: &mut Opener, wire: &[u8], piece: usize) -> (Vec<u8>, Option<End>) {
    let (mut arrived, mut heard) = (BytesMut::new(), Vec::new());
    for part in wire.chunks(piece) {
        arrived.extend_from_slice(part);
        loop {
            match opener.open(&mut arrived) {
                Ok(Some(content)) => heard.extend_from_slice(&content),
                Ok(None) => break,
                Err(end) => return (heard, Some(end)),
            }
        }
        assert!(arrived.len() < 5 + 16_384 + 2048, "a record that waits though it has come");
    }
    (heard, None)
}
