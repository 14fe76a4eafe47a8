//! A node of other nodes' paths gets frames of anybody: none is taken that it was not sent, and what it keeps is bounded.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use phantom_fuzz::world::{a_plan, candidate, hop, number, path_keys};
use phantom_fuzz::{NOW, rng};
use phantom_proto::ident::NodeId;
use phantom_proto::path::Build;
use phantom_proto::path::hop::{PENDING_MAX, PENDING_PER_PEER};
use phantom_proto::wire::Wire;
use phantom_proto::wire::array::ArrayFrame;

#[derive(Arbitrary, Debug)]
enum Op {
    Noise {
        peer: u8,
        bytes: Vec<u8>,
    },
    /// The first frame of a real build, changed or not.
    First {
        seed: u8,
        peer: Option<u8>,
        changes: Vec<(u16, u8)>,
    },
    Pass(u8),
    Rotate,
    DropKeys,
}

fuzz_target!(|ops: Vec<Op>| {
    let mut rng = rng(1);
    // The plan's guard is always the same node for one seed, and so is the first hop.
    let plan = a_plan(&mut rng);
    let first = number(plan.nodes()[0]).expect("a node of the world");
    let (mut hop, mut now) = (hop(first), NOW);
    for op in ops.into_iter().take(24) {
        match op {
            Op::Noise { peer, bytes } => {
                let whole: Vec<u8> = bytes.iter().copied().chain([0]).cycle().take(ArrayFrame::LEN).collect();
                let frame = ArrayFrame::from_bytes(&whole).expect("as long as a frame");
                assert!(hop.handle(&mut rng, now, NodeId([peer; 32]), frame).is_err());
            }
            Op::First { seed, peer, changes } => {
                let random = &mut phantom_fuzz::rng(seed.into());
                let (_, send) = Build::start(random, now, plan.clone(), candidate(0), now + 3600).expect("good terms");
                let mut bytes = send.frame.to_bytes();
                let was = bytes[..16 + 12 * 2560].to_vec();
                let stride = bytes.len() / 65_536 + 1;
                for (at, with) in changes.into_iter().take(8) {
                    bytes[usize::from(at) % (ArrayFrame::LEN / stride) * stride] ^= with;
                }
                let same = bytes[..was.len()] == was;
                let from = peer.map_or(candidate(0).contact.node_id(), |peer| NodeId([peer; 32]));
                let frame = ArrayFrame::from_bytes(&bytes).expect("as long as before");
                let taken = hop.handle(&mut rng, now, from, frame).is_ok();
                assert!(!taken || (same && peer.is_none()), "a changed frame was taken");
            }
            Op::Pass(seconds) => {
                now += u64::from(seconds);
                hop.expire(now);
                assert!(hop.deadline().is_none_or(|deadline| deadline > now));
            }
            Op::Rotate => hop.rotate([path_keys(first)]),
            Op::DropKeys => hop.rotate([]),
        }
        assert!(hop.pending() <= PENDING_MAX.min(PENDING_PER_PEER * 257));
    }
});
