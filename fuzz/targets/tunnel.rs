//! Set-up of tunnels at owner, hop and end, each fed any operations: no panic, no unproven tunnel, bounded waiting.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use phantom_fuzz::rng;
use phantom_proto::crypto::PathSecret;
use phantom_proto::ident::PathId;
use phantom_proto::tunnel::{End, EndTunnel, Hop, Owner, OwnerTunnel, Side, tunnel_id};
use phantom_proto::wire::frame::{BLOCK_LEN, Block, TunnelFrame};
use zeroize::Zeroizing;

/// A block that was seen before, perhaps changed, or noise.
#[derive(Arbitrary, Debug, Clone, Copy)]
struct Pick {
    index: u8,
    noise: bool,
    flip: u8,
}

#[derive(Arbitrary, Debug)]
enum Op {
    OwnerStart,
    EndStart,
    HopSeed {
        b: bool,
        seed: Pick,
    },
    OwnerSeed(Pick),
    EndSeed(Pick),
    HopTunnel {
        b: bool,
        open: Pick,
    },
    OwnerTunnel(Pick),
    EndTunnel(Pick),
    HopConfirm {
        b: bool,
        block: Pick,
    },
    OwnerConfirm(Pick),
    EndConfirm(Pick),
    Pass(u16),
    /// A whole set-up, untouched: it must succeed while there is room.
    Honest,
}

#[derive(Default)]
struct Seen {
    blocks: Vec<Block>,
    opens: Vec<TunnelFrame>,
}

impl Seen {
    fn block(&self, pick: Pick) -> Block {
        let mut block = self.blocks.get(usize::from(pick.index) % self.blocks.len().max(1)).copied();
        if pick.noise {
            block = None;
        }
        let mut block = block.unwrap_or([pick.index; BLOCK_LEN]);
        block[0] ^= pick.flip;
        block
    }

    fn open(&self, pick: Pick) -> TunnelFrame {
        match self.opens.get(usize::from(pick.index) % self.opens.len().max(1)) {
            Some(open) if !pick.noise => {
                let mut open = open.clone();
                open.r[0] ^= pick.flip;
                open
            }
            _ => TunnelFrame { id: tunnel_id(&self.block(pick)), r: self.block(pick), p: self.block(pick) },
        }
    }
}

fn side(b: bool) -> Side {
    if b { Side::B } else { Side::A }
}

fn honest(owner: &mut Owner, hop: &mut Hop, end: &mut End, now: u64) -> Option<()> {
    let mut rng = rng(now);
    let seed = owner.start(&mut rng, now).ok()?;
    let seed = hop.seed(now, Side::A, &seed).ok()?;
    let (at_end, open) = end.on_seed(&mut rng, &seed).ok()?;
    let (mut at_hop, open) = hop.tunnel(Side::B, &open).expect("honest");
    let (at_owner, q) = owner.on_tunnel(&open).expect("honest");
    let (q, _) = at_hop.confirm(Side::A, &q).expect("honest");
    let (v, _) = at_end.confirm(&q).expect("honest");
    let (v, layers) = at_hop.confirm(Side::B, &v.expect("the answer")).expect("honest");
    at_owner.confirm(&v).expect("honest");
    layers.map(|_| ())
}

fuzz_target!(|ops: Vec<Op>| {
    let secret = |number: u8| PathSecret(Zeroizing::new([number; 32]));
    let (mut owner, mut hop, mut end) =
        (
        Owner::new(vec![(secret(1), PathId([1; 16])), (secret(2), PathId([2; 16]))]),
        Hop::new(secret(1), [PathId([1; 16]), PathId([2; 16])]),
        End::new(secret(2)),
    );
    let (mut rng, mut now, mut seen) = (rng(7), 0u64, Seen::default());
    let (mut at_owner, mut at_hop, mut at_end): (Vec<OwnerTunnel>, Vec<_>, Vec<EndTunnel>) = Default::default();
    for op in ops.into_iter().take(200) {
        match op {
            Op::OwnerStart => seen.blocks.extend(owner.start(&mut rng, now)),
            Op::EndStart => seen.blocks.extend(end.start(&mut rng, now)),
            Op::HopSeed { b, seed } => seen.blocks.extend(hop.seed(now, side(b), &seen.block(seed))),
            Op::OwnerSeed(pick) => {
                if let Ok((tunnel, open)) = owner.on_seed(&mut rng, &seen.block(pick)) {
                    at_owner.push(tunnel);
                    seen.opens.push(open);
                }
            }
            Op::EndSeed(pick) => {
                if let Ok((tunnel, open)) = end.on_seed(&mut rng, &seen.block(pick)) {
                    at_end.push(tunnel);
                    seen.opens.push(open);
                }
            }
            Op::HopTunnel { b, open } => {
                if let Ok((tunnel, open)) = hop.tunnel(side(b), &seen.open(open)) {
                    at_hop.push(tunnel);
                    seen.opens.push(open);
                }
            }
            Op::OwnerTunnel(pick) => {
                if let Ok((tunnel, q)) = owner.on_tunnel(&seen.open(pick)) {
                    assert!(pick.noise || pick.flip == 0, "a changed proof was taken");
                    at_owner.push(tunnel);
                    seen.blocks.push(q);
                }
            }
            Op::EndTunnel(pick) => {
                if let Ok((tunnel, q)) = end.on_tunnel(&seen.open(pick)) {
                    at_end.push(tunnel);
                    seen.blocks.push(q);
                }
            }
            Op::HopConfirm { b, block } => {
                if let Some(tunnel) = at_hop.last_mut() {
                    seen.blocks.extend(tunnel.confirm(side(b), &seen.block(block)).map(|(block, _)| block));
                }
            }
            Op::OwnerConfirm(pick) => {
                let confirmed = at_owner.pop().map(|tunnel| tunnel.confirm(&seen.block(pick)));
                seen.blocks.extend(confirmed.and_then(Result::ok).and_then(|(answer, _)| answer));
            }
            Op::EndConfirm(pick) => {
                let confirmed = at_end.pop().map(|tunnel| tunnel.confirm(&seen.block(pick)));
                seen.blocks.extend(confirmed.and_then(Result::ok).and_then(|(answer, _)| answer));
            }
            Op::Pass(millis) => {
                now += u64::from(millis);
                owner.expire(now);
                hop.expire(now);
                end.expire(now);
            }
            Op::Honest => {
                now += 20_000;
                owner.expire(now);
                hop.expire(now);
                end.expire(now);
                // Tunnels that wait for proofs count, too; the daemon drops them in time.
                (at_owner, at_hop, at_end) = Default::default();
                honest(&mut owner, &mut hop, &mut end, now).expect("there is room");
            }
        }
    }
    // However many were started: only so many wait, and all are forgotten in time.
    drop(at_owner);
    now += 20_000;
    owner.expire(now);
    let started = (0..100).filter(|_| owner.start(&mut rng, now).is_ok()).count();
    assert_eq!(started, 32);
});
