//! Replays, disorder and floods: no state, no answer, bounded tables (I5, I7).

use proptest::prelude::*;

use super::*;

/// I5: replayed blocks create no state and get no answer.
// protocol: T3, T9, T10, Y1
#[test]
fn replays_are_dropped() {
    let mut row = Row::new(7, 2);
    let seed = row.owner.start(&mut row.rng, NOW).unwrap();
    let second = row.hops[0].seed(NOW, Side::A, &seed).unwrap();
    assert_eq!(row.hops[0].seed(NOW, Side::A, &seed), Err(TunnelError::Replay));
    let third = row.hops[1].seed(NOW, Side::A, &second).unwrap();
    let (end_tunnel, open) = row.end.on_seed(&mut row.rng, &third).unwrap();
    assert!(matches!(row.end.on_seed(&mut row.rng, &third), Err(TunnelError::Replay)));
    let (mut outer, open) = row.hops[1].tunnel(Side::B, &open).unwrap();
    let again = row.hops[0].tunnel(Side::B, &open);
    let (mut inner, last) = again.unwrap();
    assert!(matches!(row.hops[0].tunnel(Side::B, &open), Err(TunnelError::Unknown)));
    let (owner_tunnel, q) = row.owner.on_tunnel(&last).unwrap();
    assert!(matches!(row.owner.on_tunnel(&last), Err(TunnelError::Unknown)));
    let (q2, _) = inner.confirm(Side::A, &q).unwrap();
    assert_eq!(inner.confirm(Side::A, &q).map(|_| ()), Err(TunnelError::Order));
    let (q3, _) = outer.confirm(Side::A, &q2).unwrap();
    let v = end_tunnel.confirm(&q3).unwrap().0.unwrap();
    let (v2, layers) = outer.confirm(Side::B, &v).unwrap();
    assert!(layers.is_some());
    for side in [Side::A, Side::B] {
        assert_eq!(outer.confirm(side, &v).map(|_| ()), Err(TunnelError::Order), "V again");
    }
    let (v3, _) = inner.confirm(Side::B, &v2).unwrap();
    assert!(owner_tunnel.confirm(&v3).is_ok());
}

// protocol: T10, F7
#[test]
fn blocks_out_of_order_are_dropped() {
    let mut row = Row::new(8, 1);
    let seed = row.owner.start(&mut row.rng, NOW).unwrap();
    let onward = row.hops[0].seed(NOW, Side::A, &seed).unwrap();
    let (_, open) = row.end.on_seed(&mut row.rng, &onward).unwrap();
    // From the seed's own side: not an answer. It spoils nothing.
    assert!(matches!(row.hops[0].tunnel(Side::A, &open), Err(TunnelError::Order)));
    let (mut tunnel, _) = row.hops[0].tunnel(Side::B, &open).unwrap();
    assert_eq!(tunnel.confirm(Side::B, &[0; BLOCK_LEN]).map(|_| ()), Err(TunnelError::Order));
    assert!(tunnel.confirm(Side::A, &[0; BLOCK_LEN]).is_ok());
}

fn random(rng: &mut StdRng) -> Block {
    let mut block = [0; BLOCK_LEN];
    rng.fill_bytes(&mut block);
    block
}

/// I7: a neighbour that floods seeds costs a bounded number of entries, and they go away.
// protocol: T9, T11
#[test]
fn seeds_that_wait_are_bounded_and_expire() {
    let mut row = Row::new(9, 1);
    let mut flood =
        |hop: &mut Hop, now| (0..100).filter(|_| hop.seed(now, Side::A, &random(&mut row.rng)).is_ok()).count();
    assert_eq!(flood(&mut row.hops[0], NOW), MAX_PENDING);
    row.hops[0].expire(NOW + ANSWER_LIMIT);
    assert_eq!(flood(&mut row.hops[0], NOW), 0);
    row.hops[0].expire(NOW + ANSWER_LIMIT + 1);
    assert_eq!(flood(&mut row.hops[0], NOW + ANSWER_LIMIT + 1), MAX_PENDING);
}

/// I7: so are tunnels that were answered and are not confirmed: each costs its node a link.
// protocol: T11
#[test]
fn tunnels_that_are_being_confirmed_are_bounded() {
    let mut row = Row::new(10, 1);
    let mut begun = Vec::new();
    for _ in 0..100 {
        let seed = random(&mut row.rng);
        begun.extend(row.end.on_seed(&mut row.rng, &seed).ok());
    }
    assert_eq!(begun.len(), MAX_PENDING);
    assert_eq!(row.end.start(&mut row.rng, NOW), Err(TunnelError::Full));
    begun.clear();
    assert!(row.end.start(&mut row.rng, NOW).is_ok());

    let mut begun = Vec::new();
    for _ in 0..100 {
        let seed = random(&mut row.rng);
        begun.extend(row.owner.on_seed(&mut row.rng, &seed).ok());
    }
    assert_eq!(begun.len(), MAX_PENDING);

    let mut begun = Vec::new();
    for _ in 0..100 {
        if let Ok(onward) = row.hops[0].seed(NOW, Side::A, &random(&mut row.rng)) {
            begun.extend(
                row.hops[0]
                    .tunnel(Side::B, &TunnelFrame { id: tunnel_id(&onward), r: [0; BLOCK_LEN], p: [0; BLOCK_LEN] })
                    .ok(),
            );
        }
    }
    assert_eq!(begun.len(), MAX_PENDING);
}

/// I7: the memory of seeds is bounded; a path that has used it up takes no more tunnels, and still no replay.
// protocol: T12
#[test]
fn the_memory_of_seeds_is_bounded() {
    let mut row = Row::new(11, 1);
    let mut first = [0; BLOCK_LEN];
    first[0] = 1;
    assert!(row.hops[0].seed(NOW, Side::A, &first).is_ok());
    let mut taken = 1;
    for number in 0..MAX_SEEDS as u64 + 100 {
        let mut seed = [3; BLOCK_LEN];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        row.hops[0].expire(u64::MAX);
        taken += usize::from(row.hops[0].seed(NOW, Side::A, &seed).is_ok());
    }
    assert_eq!(taken, MAX_SEEDS);
    assert!(row.hops[0].seed(NOW, Side::A, &first).is_err());
}

proptest! {
    /// Whatever arrives in whatever order: no panic, and never a tunnel.
    #[test]
    fn any_blocks_are_taken(frames in prop::collection::vec((0u8..3, any::<bool>(), any::<[u8; 32]>()), 0..50)) {
        let mut row = Row::new(12, 1);
        let mut outcome = Outcome::default();
        let (mut owner_tunnel, mut end_tunnel, mut hop_tunnel, mut layers) = (None, None, None, None);
        for (kind, side, bytes) in frames {
            let block = [bytes, bytes].concat().try_into().unwrap();
            let frame = match kind {
                0 => Frame::Seed(block),
                1 => Frame::Tunnel(TunnelFrame { id: tunnel_id(&block), r: block, p: block }),
                _ => Frame::Confirm(block),
            };
            row.at_owner(&frame, &mut owner_tunnel, &mut outcome);
            row.at_end(&frame, &mut end_tunnel, &mut outcome);
            let side = if side { Side::A } else { Side::B };
            at_hop(&mut row.hops[0], side, &frame, &mut hop_tunnel, &mut layers);
        }
        prop_assert!(outcome.owner.is_none() && outcome.end.is_none());
    }
}
