//! Every message without state: read without panic, and one value has one encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use phantom_proto::ident::NodeId;
use phantom_proto::path::{Choice, Sets, Spread};
use phantom_proto::record::{ApRecord, NodeRecord, RoutingEntry};
use phantom_proto::wire::array::{
    ArrayFrame, FIRST_LEN, FirstPackage, SECOND_LEN, SecondPackage, Segment, read_padded, write_padded,
};
use phantom_proto::cell::CellKind;
use phantom_proto::wire::cells::Word;
use phantom_proto::wire::frame::{Frame, TunnelFrame};
use phantom_proto::wire::link::{FRAME_HEADER, Proof, Purpose, Role, frame_header, write_frame_header};
use phantom_proto::wire::session::{Message, Sealed};
use phantom_proto::wire::{NodeContact, Wire};

fn one_encoding<T: Wire>(bytes: &[u8]) {
    if let Ok(value) = T::from_bytes(bytes) {
        assert_eq!(value.to_bytes(), bytes);
    }
}

fn padded<T: Wire>(bytes: &[u8], length: usize) {
    let mut whole = bytes.to_vec();
    whole.resize(length, 0);
    if let Ok(value) = read_padded::<T>(&whole) {
        assert_eq!(write_padded(&value, length).expect("it came out of as many bytes")[..], whole);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = data.split_first() else { return };
    match which % 14 {
        0 => one_encoding::<NodeContact>(bytes),
        1 => one_encoding::<Purpose>(bytes),
        2 => one_encoding::<Segment>(bytes),
        3 => {
            let Some((kind, data)) = bytes.split_first() else { return };
            if let Some(kind) = CellKind::from_byte(*kind)
                && let Ok(word) = Word::read(kind, data)
            {
                assert_eq!(word.kind(), kind);
                // An unknown reason counts as another.
                assert!(matches!(word, Word::Abort(_)) || word.data()[..] == *data);
            }
        }
        4 => one_encoding::<RoutingEntry>(bytes),
        5 => one_encoding::<ApRecord>(bytes),
        6 => one_encoding::<NodeRecord>(bytes),
        7 => padded::<FirstPackage>(bytes, FIRST_LEN),
        8 => padded::<SecondPackage>(bytes, SECOND_LEN),
        9 => {
            one_encoding::<Proof>(bytes);
            let proven = Proof::from_bytes(bytes).ok().and_then(|proof| proof.check(Role::Server, &[1; 32]).ok());
            // Nobody signed anything in that session.
            assert!(proven.is_none_or(|key| NodeId::of(&key) != NodeId::of(&phantom_fuzz::key(1).verifying_key())));
        }
        10 => {
            let whole: Vec<u8> = bytes.iter().copied().cycle().take(ArrayFrame::LEN).collect();
            one_encoding::<ArrayFrame>(&whole);
            one_encoding::<ArrayFrame>(bytes);
        }
        11 => {
            if let Ok(Some((message, length))) = Message::read(bytes) {
                let mut written = Vec::new();
                message.write(&mut written);
                assert_eq!(written, bytes[..length]);
            }
            if let Ok(sealed) = Sealed::read(bytes) {
                let mut written = Vec::new();
                sealed.write(&mut written);
                assert_eq!(written, bytes);
            }
        }
        12 => {
            if let Some(header) = bytes.first_chunk::<FRAME_HEADER>()
                && let Ok((kind, length)) = frame_header(*header)
            {
                assert_eq!(write_frame_header(kind, length), Ok(*header));
            }
            one_encoding::<TunnelFrame>(bytes);
            let Some((kind, payload)) = bytes.split_first() else { return };
            // Long ones are a short one over and over.
            let long = [4092, ArrayFrame::LEN, 65_536, 65_537].map(|length| payload.iter().copied().cycle().take(length));
            for payload in long.into_iter().map(Iterator::collect).chain([payload.to_vec()]) {
                if let Ok(frame) = Frame::read(*kind, &payload) {
                    assert_eq!(frame.kind(), *kind);
                    assert!(matches!(frame, Frame::Refused(_)) || frame.payload()[..] == payload[..]);
                }
            }
        }
        _ => {
            let own = phantom_fuzz::world::candidate(0).contact.clone();
            if let Ok(choice) = Choice::restored(own, Spread::Nodes, bytes) {
                assert_eq!(choice.to_bytes(), bytes);
            }
            if let Ok(sets) = Sets::restored([0; 32], bytes) {
                assert_eq!(sets.to_bytes().as_deref(), Some(bytes));
            }
        }
    }
});
