//! The properties that the cell layer exists for: I2 and I3.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const HOPS: usize = 3;

fn keys() -> Vec<TunnelKey> {
    (1..=HOPS as u8).map(|byte| TunnelKey(Zeroizing::new([byte; 32]))).collect()
}

fn hops(direction: Direction) -> Vec<Layer> {
    keys().iter().map(|key| Layer::new(key, direction)).collect()
}

fn cell(kind: CellKind, data: &[u8]) -> Box<[u8; CELL_LEN]> {
    let mut cell = Box::new([0; CELL_LEN]);
    Cell { kind, data }.encode(&mut cell).unwrap();
    cell
}

/// Sends one cell from the owner to the end; `at_hop` sees, and may change, what arrives at each hop and at the end.
fn outward(
    owner: &mut OwnerCrypt,
    hops: &mut [Layer],
    data: &[u8],
    mut at_hop: impl FnMut(usize, &mut [u8]),
) -> Box<[u8; CELL_LEN]> {
    let mut cell = cell(CellKind::Data, data);
    assert!(owner.wrap(&mut cell[..]));
    for (index, hop) in hops.iter_mut().enumerate() {
        at_hop(index, &mut cell[..]);
        assert!(hop.encipher(&mut cell[..]));
    }
    cell
}

/// Sends one cell from the end to the owner; `at_link` sees, and may change, what leaves each hop, the end's output first.
fn inward(
    owner: &mut OwnerCrypt,
    hops: &mut [Layer],
    data: &[u8],
    mut at_link: impl FnMut(usize, &mut [u8]),
) -> Box<[u8; CELL_LEN]> {
    let mut cell = cell(CellKind::Data, data);
    for (index, hop) in hops.iter_mut().rev().enumerate() {
        assert!(hop.encipher(&mut cell[..]));
        at_link(index, &mut cell[..]);
    }
    assert!(owner.peel(&mut cell[..]));
    cell
}

#[test]
fn cells_arrive_both_ways() {
    let (mut owner, mut there) = (OwnerCrypt::new(&keys(), Direction::Onward), hops(Direction::Onward));
    let (mut back_owner, mut back) = (OwnerCrypt::new(&keys(), Direction::Backward), hops(Direction::Backward));
    for round in 0..5u8 {
        let got = outward(&mut owner, &mut there, &[round; 100], |_, _| {});
        assert_eq!(Cell::decode(&got[..]).unwrap().data, [round; 100]);
        let got = inward(&mut back_owner, &mut back, &[round; CELL_DATA_MAX], |_, _| {});
        assert_eq!(Cell::decode(&got[..]).unwrap().data, [round; CELL_DATA_MAX]);
    }
}

/// I3: every class of changed bit, at every place, both ways: that cell and all that follow are noise.
#[test]
fn a_changed_bit_makes_noise_of_this_cell_and_all_that_follow() {
    for place in 0..HOPS {
        for bit in (0..CELL_LEN * 8).step_by(397).chain(0..128) {
            let flip = |index: usize, cell: &mut [u8]| {
                if index == place {
                    cell[bit / 8] ^= 1 << (bit % 8);
                }
            };
            let (mut owner, mut there) = (OwnerCrypt::new(&keys(), Direction::Onward), hops(Direction::Onward));
            let (mut back_owner, mut back) = (OwnerCrypt::new(&keys(), Direction::Backward), hops(Direction::Backward));
            let first = outward(&mut owner, &mut there, b"x", flip);
            let second = outward(&mut owner, &mut there, b"x", |_, _| {});
            assert!(Cell::decode(&first[..]).is_err() && Cell::decode(&second[..]).is_err(), "out {place} {bit}");
            let first = inward(&mut back_owner, &mut back, b"x", flip);
            assert!(Cell::decode(&first[..]).is_err(), "in {place} {bit}");
        }
    }
}

/// I5: a cell that is left out, repeated, or swapped.
#[test]
fn lost_repeated_and_swapped_cells_are_noticed() {
    let sent = || {
        let mut owner = OwnerCrypt::new(&keys(), Direction::Onward);
        let mut cells: Vec<_> = (0..3u8).map(|n| cell(CellKind::Data, &[n])).collect();
        cells.iter_mut().for_each(|cell| assert!(owner.wrap(&mut cell[..])));
        cells
    };
    let arrive = |order: &[usize]| {
        let (cells, mut hops) = (sent(), hops(Direction::Onward));
        let passed = order.iter().map(|index| {
            let mut cell = cells[*index].clone();
            hops.iter_mut().for_each(|hop| assert!(hop.encipher(&mut cell[..])));
            Cell::decode(&cell[..]).is_ok()
        });
        passed.collect::<Vec<_>>()
    };
    assert_eq!(arrive(&[0, 1, 2]), [true, true, true]);
    assert_eq!(arrive(&[0, 2]), [true, false]);
    assert_eq!(arrive(&[0, 0, 1]), [true, false, false]);
    assert_eq!(arrive(&[1, 0]), [false, false]);
}

fn windows(seen: &[u8]) -> impl Iterator<Item = [u8; 8]> + '_ {
    seen.windows(8).map(|window| window.try_into().unwrap())
}

/// I2: hops 1 and 3 share no eight bytes in what they receive and send, whatever hop 1 injects.
#[test]
fn hops_that_are_not_adjacent_see_nothing_in_common() {
    for inject in [false, true] {
        let (mut owner, mut there) = (OwnerCrypt::new(&keys(), Direction::Onward), hops(Direction::Onward));
        let (mut first, mut last) = (HashSet::new(), Vec::new());
        for _ in 0..40 {
            let out = outward(&mut owner, &mut there, &[0; CELL_DATA_MAX], |index, cell| match index {
                0 => first.extend(windows(cell)),
                // What hop 1 sends is what hop 2 receives.
                1 => {
                    if inject {
                        cell[16..].fill(0xaa);
                    }
                    first.extend(windows(cell));
                }
                _ => last.push(cell.to_vec()),
            });
            if inject {
                last.push(out.to_vec());
            }
        }
        assert!(last.iter().all(|seen| windows(seen).all(|window| !first.contains(&window))));
    }
}

proptest! {
    #[test]
    fn bodies_round_trip(data in prop::collection::vec(any::<u8>(), 0..=CELL_DATA_MAX), which in 0usize..7) {
        let kind = [CellKind::Open, CellKind::Opened, CellKind::Data, CellKind::End, CellKind::Abort, CellKind::Padding, CellKind::Incoming][which];
        let cell = cell(kind, &data);
        prop_assert_eq!(Cell::decode(&cell[..]), Ok(Cell { kind, data: &data }));
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = Cell::decode(&bytes);
        let mut zeros = vec![0; 16];
        zeros.extend(bytes);
        let _ = Cell::decode(&zeros);
    }
}

#[test]
fn too_much_data_is_an_error() {
    let mut out = Box::new([0; CELL_LEN]);
    let data = vec![0; CELL_DATA_MAX + 1];
    assert_eq!(Cell { kind: CellKind::Data, data: &data }.encode(&mut out), Err(CellError::TooLong));
}
