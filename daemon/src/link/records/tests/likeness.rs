//! Whatever comes and whatever is written: what is seen on the wire is what rustls would have sent.

use std::{mem, slice};

use futures::FutureExt;
use proptest::prelude::*;
use rustls::crypto::cipher::InboundOpaqueMessage;
use rustls::{ContentType, ProtocolVersion};
use tokio::runtime::Builder;
use tokio::task::unconstrained;

use super::*;

/// What an end makes of bytes that arrive.
#[derive(Debug, PartialEq)]
struct Conduct {
    gives: Vec<u8>,
    fails: Option<io::ErrorKind>,
    /// Header and content of what it answers.
    answers: Vec<(Vec<u8>, Vec<u8>)>,
}

/// One thing that a peer does, or somebody between.
#[derive(Debug, Clone)]
enum Op {
    /// A record of this kind, content and padding.
    Record(u8, Vec<u8>, usize),
    /// A record of so much content and padding.
    Long(usize, usize),
    /// So many records without content.
    Empty(usize),
    Raw(Vec<u8>),
    /// One byte of the last is changed.
    Change(usize, u8),
    /// A byte of the header of the last becomes this.
    Header(usize, u8),
    Repeat,
    Drop,
    /// The last two change places.
    Swap,
    Cut(usize),
}

/// What the peer of `sealer` has sent when it has done all that; each element is a record, or what is left of one.
fn wire(sealer: &mut Sealer, ops: &[Op]) -> Vec<u8> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    let mut seal = |kind, content: &[u8], padding| {
        let mut record = BytesMut::new();
        // The kind is the byte before the padding, whatever `record` takes for it.
        let inner = [content, &[kind], &vec![0; padding][..]].concat();
        let (last, before) = inner.split_last().unwrap();
        sealer.record((*last).into(), before, &mut record).unwrap();
        record.to_vec()
    };
    for op in ops {
        match op {
            Op::Record(kind, content, padding) => parts.push(seal(*kind, content, *padding)),
            Op::Long(length, padding) => parts.push(seal(23, &vec![7; *length], *padding)),
            Op::Empty(count) => (0..*count).for_each(|_| parts.push(seal(23, b"", 0))),
            Op::Raw(bytes) => parts.push(bytes.clone()),
            Op::Repeat => parts.extend(parts.last().cloned()),
            Op::Drop => drop(parts.pop()),
            Op::Swap => {
                if let [.., before, last] = &mut parts[..] {
                    mem::swap(before, last);
                }
            }
            _ => spoil(op, parts.last_mut()),
        }
    }
    parts.concat()
}

fn spoil(op: &Op, last: Option<&mut Vec<u8>>) {
    match (op, last) {
        (Op::Change(at, by), Some(last)) if !last.is_empty() => {
            let at = at % last.len();
            last[at] ^= by;
        }
        (Op::Header(at, byte), Some(last)) if last.len() >= HEADER => last[*at] = *byte,
        (Op::Cut(at), Some(last)) if !last.is_empty() => last.truncate(at % last.len()),
        _ => {}
    }
}

/// Plays `ops` to an end, cut into pieces of a length.
async fn conduct<E: AsyncRead + AsyncWrite + Unpin>(
    ops: &[Op],
    piece: usize,
    end: impl FnOnce(server::TlsStream<Wire>) -> E,
) -> Conduct {
    let (client, server) = tls(client(), server(&CIPHERS), 1 << 20).await;
    let (mut peer, mut end) = (of_client(client), end(server));
    let bytes = wire(&mut peer.sealer, ops);
    let (mut gives, mut fails) = (Vec::new(), None);
    for part in bytes.chunks(piece) {
        peer.inner.write_all(part).await.unwrap();
        // It sees each piece alone.
        let mut got = [0; 40_000];
        while let (None, Some(read)) = (fails, unconstrained(end.read(&mut got)).now_or_never()) {
            match read {
                Ok(0) => break,
                Ok(count) => gives.extend_from_slice(&got[..count]),
                Err(error) => fails = Some(error.kind()),
            }
        }
    }
    peer.inner.shutdown().await.unwrap();
    if fails.is_none() {
        fails = end.read_to_end(&mut gives).await.err().map(|error| error.kind());
    }
    drop(end);
    let mut answer = Vec::new();
    peer.inner.read_to_end(&mut answer).await.unwrap();
    Conduct { gives, fails, answers: opened(&mut peer.opener, &answer) }
}

/// The records of an answer, which are alerts.
fn opened(opener: &mut Opener, mut answer: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut answers = Vec::new();
    while let Some((header, rest)) = answer.split_first_chunk::<HEADER>() {
        let (record, rest) = rest.split_at(length(header));
        let mut record = record.to_vec();
        let message = InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, &mut record);
        let plain = opener.cipher.decrypt(message, opener.next).unwrap();
        opener.next += 1;
        assert_eq!(plain.typ, ContentType::Alert);
        answers.push((header.to_vec(), plain.payload.to_vec()));
        answer = rest;
    }
    assert!(answer.is_empty(), "half a record");
    answers
}

/// Ours, if it is rustls' too.
fn of_both(ops: &[Op], piece: usize) -> Conduct {
    Builder::new_current_thread().build().unwrap().block_on(async {
        let ours = conduct(ops, piece, of_server).await;
        assert_eq!(ours, conduct(ops, piece, |tls| tls).await, "{ops:?} {piece}");
        ours
    })
}

fn data(content: &[u8]) -> Op {
    Op::Record(23, content.to_vec(), 0)
}

fn alert(content: &[u8]) -> Op {
    Op::Record(21, content.to_vec(), 0)
}

/// What the end does behind b"good" and this.
fn behind(ops: &[Op], piece: usize) -> (Option<io::ErrorKind>, Option<u8>, usize) {
    let ops = [&[data(b"good")], ops].concat();
    let Conduct { gives, fails, answers } = of_both(&ops, piece);
    assert!(gives.starts_with(b"good"), "{ops:?}");
    let said = answers.first().map(|(header, content)| {
        assert_eq!((header.len(), content.len(), content[0]), (HEADER, 2, 2), "{ops:?}");
        content[1]
    });
    (fails, said, gives.len() - 4)
}

/// Each fault with the alert that RFC 8446 has for it, or none where rustls says none.
// protocol: L43
#[test]
fn faults_are_answered_as_rustls_answers_them() {
    for piece in [1, 7, 100_000] {
        let fault = |ops: &[Op], says: Option<u8>| {
            let (fails, said, _) = behind(ops, piece);
            assert_eq!((fails, said), (Some(io::ErrorKind::InvalidData), says), "{ops:?} {piece}");
        };
        // Where its number, its content, its kind and its tag are.
        for at in [5, 50, 105, 106, 121] {
            for by in [1, 128] {
                fault(&[data(&[1; 100]), Op::Change(at, by), data(b"behind")], Some(20));
            }
        }
        // Shorter or longer than it was.
        fault(&[data(&[1; 100]), Op::Header(4, 116), data(&[2; 100])], Some(20));
        fault(&[data(&[1; 100]), Op::Header(4, 118), data(&[2; 100])], Some(20));
        fault(&[data(&[1; 100]), Op::Header(4, 3), data(&[2; 100])], Some(20));
        fault(&[data(&[1; 100]), Op::Header(4, 0), data(&[2; 100])], Some(20));
        // Of another kind, version or length than any record.
        fault(&[Op::Raw(vec![25])], Some(50));
        fault(&[Op::Raw(vec![0])], Some(50));
        fault(&[Op::Raw(b"GET ".to_vec())], Some(50));
        fault(&[Op::Raw(vec![23, 4, 3])], Some(50));
        fault(&[Op::Raw(vec![23, 3, 3, 0x48, 0])], Some(50));
        fault(&[Op::Raw(vec![22, 3, 3, 0, 0])], Some(50));
        // What is not sealed.
        fault(&[Op::Raw(vec![20, 3, 3, 0, 1, 1])], Some(10));
        fault(&[Op::Raw(vec![20, 3, 3, 0, 1, 2])], Some(50));
        fault(&[Op::Raw(vec![20, 3, 3, 0, 2, 1, 1])], Some(50));
        fault(&[Op::Raw(vec![21, 3, 3, 0, 2, 1, 0])], Some(20));
        fault(&[Op::Raw([&[23, 3, 3, 0, 50][..], &[9; 50]].concat())], Some(20));
        // Not where it was.
        fault(&[data(b"dropped"), Op::Drop, data(b"behind")], Some(20));
        fault(&[data(b"twice"), Op::Repeat], Some(20));
        fault(&[data(b"first"), data(b"second"), Op::Swap], Some(20));
        // Kinds that are sealed, and mean nothing here.
        fault(&[Op::Record(20, vec![1], 0)], Some(10));
        fault(&[Op::Record(24, vec![1, 2], 0)], Some(50));
        fault(&[Op::Record(99, vec![1, 2], 0)], Some(50));
        fault(&[Op::Record(0, vec![0; 10], 0)], None);
        // Alerts: of the other end's faults, malformed, of no level, and warnings.
        fault(&[alert(&[2, 20])], None);
        fault(&[alert(&[1, 20])], Some(50));
        fault(&[alert(&[3, 20])], Some(47));
        fault(&[alert(&[1])], Some(50));
        fault(&[alert(&[1, 0, 0])], Some(50));
        fault(&[alert(&[])], Some(50));
        fault(&[const { &[1, 90] }; 5].map(|warning| alert(warning)), None);
        fault(&[Op::Empty(33)], None);
    }
    let long = |length, padding| behind(&[Op::Long(length, padding)], 100_000);
    assert_eq!(long(16_385, 0).1, Some(22));
    assert_eq!(long(16_384, 1).1, Some(22));
    assert_eq!(long(0, 18_000).1, Some(22));
}

/// What is odd, but right.
#[test]
fn what_rustls_takes_is_taken() {
    for piece in [1, 7, 100_000] {
        let taken = |ops: &[Op], count| {
            let (fails, said, given) = behind(ops, piece);
            assert_eq!((fails, said, given), (None, None, count), "{ops:?} {piece}");
        };
        let end = alert(&[1, 0]);
        taken(slice::from_ref(&end), 0);
        taken(&[alert(&[2, 0])], 0);
        taken(&[end.clone(), data(b"behind"), Op::Raw(vec![0; 100])], 0);
        taken(&[Op::Record(23, b"padded".to_vec(), 3), end.clone()], 6);
        taken(&[Op::Empty(32), data(b"some"), Op::Empty(32), end.clone()], 4);
        taken(&[alert(&[1, 90]), data(b"some"), alert(&[1, 90]), end.clone()], 4);
        // Kind and version in a header mean nothing, but that they are some record's.
        for (at, byte) in [(0, 21), (0, 22), (0, 24), (1, 3), (2, 1), (2, 99)] {
            taken(&[data(b"some"), Op::Header(at, byte), end.clone()], 4);
        }
        taken(&[data(b"some"), Op::Header(1, 0xfe), Op::Header(2, 0xfd), end.clone()], 4);
    }
    let long = |length, padding| behind(&[Op::Long(length, padding), alert(&[1, 0])], 100_000);
    assert_eq!(long(16_384, 0), (None, None, 16_384));
    assert_eq!(long(16_000, 384), (None, None, 16_000));
}

/// TCP's end alone is none in order, wherever it is.
#[test]
fn an_end_without_a_word_is_an_error() {
    for ops in [&[][..], &[data(b"some"), Op::Cut(20)], &[Op::Raw(vec![23, 3, 3, 1, 0, 9])]] {
        assert_eq!(behind(ops, 3), (Some(io::ErrorKind::UnexpectedEof), None, 0), "{ops:?}");
    }
}

fn op() -> impl Strategy<Value = Op> {
    let kind = prop_oneof![6 => Just(23_u8), 2 => Just(21), 1 => prop_oneof![Just(0_u8), Just(20), 23..=255_u8]];
    // Messages of the handshake are what this side takes no more (L41), and rustls does.
    let content = proptest::collection::vec(any::<u8>().prop_filter("handshake", |byte| *byte != 22), 0..40);
    prop_oneof![
        8 => (kind, content.clone(), 0..3_usize).prop_map(|(kind, content, padding)| Op::Record(kind, content, padding)),
        2 => (16_380..16_390_usize, 0..3_usize).prop_map(|(length, padding)| Op::Long(length, padding)),
        1 => (30..35_usize).prop_map(Op::Empty),
        1 => content.prop_map(Op::Raw),
        1 => (any::<usize>(), 1..=255_u8).prop_map(|(at, by)| Op::Change(at, by)),
        1 => (0..HEADER, any::<u8>()).prop_map(|(at, byte)| Op::Header(at, byte)),
        1 => Just(Op::Repeat),
        1 => Just(Op::Drop),
        1 => Just(Op::Swap),
        1 => any::<usize>().prop_map(Op::Cut),
    ]
}

/// One thing that somebody does with a link, or that its other end does.
#[derive(Debug, Clone)]
enum Step {
    Write(usize),
    Flush,
    /// The other end reads so much.
    Read(usize),
}

/// Takes the steps one by one, without waiting; gives what came of each, and the headers on the wire, with those of the end.
async fn written<E: AsyncRead + AsyncWrite + Unpin>(
    steps: &[Step],
    room: usize,
    end: impl FnOnce(client::TlsStream<Wire>) -> E,
) -> (Vec<Option<usize>>, Vec<[u8; HEADER]>) {
    let (client, server) = tls(client(), server(&CIPHERS), room).await;
    let (mut end, mut wire) = (end(client), of_server(server).inner);
    let (mut came, mut bytes) = (Vec::new(), Vec::new());
    for step in steps {
        came.push(match *step {
            Step::Write(count) => unconstrained(end.write(&vec![1; count])).now_or_never().map(Result::unwrap),
            Step::Flush => unconstrained(end.flush()).now_or_never().map(|flushed| flushed.map(|()| 0).unwrap()),
            Step::Read(count) => {
                let mut got = vec![0; count];
                let read = unconstrained(wire.read(&mut got)).now_or_never().map(Result::unwrap);
                bytes.extend_from_slice(&got[..read.unwrap_or(0)]);
                read
            }
        });
    }
    let (ended, read) = tokio::join!(end.shutdown(), wire.read_to_end(&mut bytes));
    ended.unwrap();
    read.unwrap();
    let (mut headers, mut rest) = (Vec::new(), &bytes[..]);
    while let Some((header, behind)) = rest.split_first_chunk() {
        headers.push(*header);
        rest = &behind[length(header)..];
    }
    (came, headers)
}

fn step() -> impl Strategy<Value = Step> {
    let count = || prop_oneof![1..100_usize, 4000..4200_usize, 16_380..16_390_usize, 1..200_000_usize];
    prop_oneof![3 => count().prop_map(Step::Write), 1 => Just(Step::Flush), 3 => count().prop_map(Step::Read)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever a peer, or somebody between, sends.
    // protocol: L43
    #[test]
    fn what_comes_has_the_same_consequences(
        ops in proptest::collection::vec(op(), 1..12),
        piece in prop_oneof![1..200_usize, Just(100_000)],
    ) {
        of_both(&ops, piece);
    }

    /// However much is written, and however slowly it is read.
    #[test]
    fn what_leaves_is_cut_in_the_same_way(steps in proptest::collection::vec(step(), 1..30), room in 5_000..300_000_usize) {
        Builder::new_current_thread().build().unwrap().block_on(async {
            let ours = written(&steps, room, of_client).await;
            assert_eq!(ours, written(&steps, room, |tls| tls).await);
        });
    }
}
