//! The properties that the cell layer exists for: I2 and I3.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const HOPS: u8 = 3;
const DIRECTIONS: [Direction; 2] = [Direction::Onward, Direction::Backward];

type Bytes = Box<[u8; CELL_LEN]>;

fn cell(kind: CellKind, data: &[u8]) -> Bytes {
    let mut cell = Box::new([0; CELL_LEN]);
    Cell { kind, data }.encode(&mut cell).unwrap();
    cell
}

/// An owner, hops and the end of one tunnel, in one direction. Link 0 is the owner's, the last link the end's.
struct Line {
    direction: Direction,
    owner: OwnerCrypt,
    hops: Vec<Layer>,
}

impl Line {
    /// Here the owner is the starter: onward is away from it.
    fn new(direction: Direction) -> Self {
        let keys: Vec<_> = (1..=HOPS).map(|byte| TunnelKey(Zeroizing::new([byte; 32]))).collect();
        Self::with(direction, &keys)
    }

    fn with(direction: Direction, keys: &[TunnelKey]) -> Self {
        let hops = keys.iter().map(|key| Layer::new(key, direction)).collect();
        Self { direction, owner: OwnerCrypt::new(keys, direction), hops }
    }

    /// A new cell, as it is on `link`.
    fn until(&mut self, link: usize, data: &[u8]) -> Bytes {
        self.on(link, cell(CellKind::Data, data))
    }

    fn on(&mut self, link: usize, mut cell: Bytes) -> Bytes {
        match self.direction {
            Direction::Onward => {
                assert!(self.owner.wrap(&mut cell[..]));
                self.hops[..link].iter_mut().for_each(|hop| assert!(hop.encipher(&mut cell[..])));
            }
            Direction::Backward => {
                self.hops[link..].iter_mut().rev().for_each(|hop| assert!(hop.encipher(&mut cell[..])));
            }
        }
        cell
    }

    /// What becomes of a cell that is on `link`.
    fn from(&mut self, link: usize, mut cell: Bytes) -> Bytes {
        match self.direction {
            Direction::Onward => {
                self.hops[link..].iter_mut().for_each(|hop| assert!(hop.encipher(&mut cell[..])));
            }
            Direction::Backward => {
                self.hops[..link].iter_mut().rev().for_each(|hop| assert!(hop.encipher(&mut cell[..])));
                assert!(self.owner.peel(&mut cell[..]));
            }
        }
        cell
    }
}

fn links() -> impl Iterator<Item = (Direction, usize)> {
    DIRECTIONS.into_iter().flat_map(|direction| (0..usize::from(HOPS)).map(move |link| (direction, link)))
}

#[test]
fn cells_arrive_both_ways() {
    for direction in DIRECTIONS {
        let mut line = Line::new(direction);
        for (round, len) in [(0u8, 0), (1, 1), (2, 100), (3, CELL_DATA_MAX), (4, 7)] {
            let data = vec![round; len];
            let there = line.until(1, &data);
            let got = line.from(1, there);
            assert_eq!(Cell::decode(&got[..]), Ok(Cell { kind: CellKind::Data, data: &data }));
        }
    }
}

/// I3: every class of changed bit, on every link, both ways: that cell and all that follow are noise.
// protocol: X5
#[test]
fn a_changed_bit_makes_noise_of_this_cell_and_all_that_follow() {
    for (direction, link) in links() {
        for bit in (0..CELL_LEN * 8).step_by(101).chain(0..256).chain(CELL_LEN * 8 - 64..CELL_LEN * 8) {
            let mut line = Line::new(direction);
            let mut first = line.until(link, b"x");
            first[bit / 8] ^= 1 << (bit % 8);
            let first = line.from(link, first);
            assert_eq!(Cell::decode(&first[..]), Err(CellError::Changed), "{direction:?} {link} {bit}");
            for _ in 0..2 {
                let next = line.until(link, &[0; CELL_DATA_MAX]);
                let next = line.from(link, next);
                assert_eq!(Cell::decode(&next[..]), Err(CellError::Changed), "{direction:?} {link} {bit}");
                // Noise: of 4092 bytes about 16 are zero, deviation 4.
                assert!(next.iter().filter(|byte| **byte == 0).count() < 60, "{direction:?} {link} {bit}");
            }
        }
    }
}

/// I5: a cell that is left out, repeated, or swapped, on every link, both ways; nothing after it is taken either.
#[test]
fn lost_repeated_and_swapped_cells_are_noticed() {
    for (direction, link) in links() {
        let arrive = |order: &[usize]| {
            let mut line = Line::new(direction);
            let cells: Vec<_> = (0..4u8).map(|n| line.until(link, &[n])).collect();
            let passed = order.iter().map(|index| Cell::decode(&line.from(link, cells[*index].clone())[..]).is_ok());
            passed.collect::<Vec<_>>()
        };
        assert_eq!(arrive(&[0, 1, 2, 3]), [true; 4]);
        assert_eq!(arrive(&[1, 2, 3]), [false; 3], "{direction:?} {link}");
        assert_eq!(arrive(&[0, 2, 3]), [true, false, false], "{direction:?} {link}");
        assert_eq!(arrive(&[0, 0, 1, 2]), [true, false, false, false], "{direction:?} {link}");
        assert_eq!(arrive(&[0, 1, 0, 2]), [true, true, false, false], "{direction:?} {link}");
        assert_eq!(arrive(&[1, 0, 2, 3]), [false; 4], "{direction:?} {link}");
        assert_eq!(arrive(&[0, 2, 1, 3]), [true, false, false, false], "{direction:?} {link}");
    }
}

/// A cell of one direction or of another tunnel is noise.
#[test]
fn cells_belong_to_their_tunnel_and_direction() {
    for (direction, link) in links() {
        let there = Line::new(direction).until(link, b"x");
        let got = Line::new(direction.reverse()).from(link, there);
        assert_eq!(Cell::decode(&got[..]), Err(CellError::Changed));
    }
}

/// Equal cells have nothing in common on any link, whatever was sent before: no stream is used twice.
#[test]
fn equal_cells_look_different_on_every_link() {
    for (direction, link) in links() {
        let mut line = Line::new(direction);
        let cells: Vec<_> = (0..20).map(|_| line.until(link, &[0; 100])).collect();
        for (index, one) in cells.iter().enumerate() {
            for two in &cells[..index] {
                // Mean 16, deviation 4.
                let equal = one.iter().zip(two.iter()).filter(|(a, b)| a == b).count();
                assert!(equal < 60, "{direction:?} {link}: {equal} equal bytes");
            }
        }
    }
}

fn windows(seen: &[u8]) -> impl Iterator<Item = [u8; 8]> + '_ {
    seen.windows(8).map(|window| window.try_into().unwrap())
}

/// I2: what hop 1 receives and sends shares no eight bytes with what hop 3 receives and sends, nor do the differences of
/// consecutive cells, whatever the one that comes first injects.
#[test]
fn hops_that_are_not_adjacent_see_nothing_in_common() {
    for direction in DIRECTIONS {
        for inject in [None, Some(0..CELL_LEN), Some(16..CELL_LEN), Some(0..16)] {
            let mut line = Line::new(direction);
            // What hop 1 sees: links 0 and 1; what hop 3 sees: link 2.
            let (mut near, mut far) = (Vec::new(), Vec::new());
            let spoil = |cell: &mut Bytes| inject.iter().for_each(|range| cell[range.clone()].fill(0xaa));
            for _ in 0..20 {
                match direction {
                    Direction::Onward => {
                        let mut cell = line.until(0, &[0; CELL_DATA_MAX]);
                        near.push(cell.clone());
                        assert!(line.hops[0].encipher(&mut cell[..]));
                        spoil(&mut cell);
                        near.push(cell.clone());
                        assert!(line.hops[1].encipher(&mut cell[..]));
                        far.push(cell);
                    }
                    Direction::Backward => {
                        let mut cell = line.until(2, &[0; CELL_DATA_MAX]);
                        spoil(&mut cell);
                        far.push(cell.clone());
                        for hop in [1, 0] {
                            assert!(line.hops[hop].encipher(&mut cell[..]));
                            near.push(cell.clone());
                        }
                    }
                }
            }
            let patterns = |cells: &[Bytes]| {
                let differences = cells.windows(2).map(|two| two[0].iter().zip(two[1].iter()).map(|(a, b)| a ^ b));
                let differences: Vec<Vec<u8>> = differences.map(Iterator::collect).collect();
                let cells = cells.iter().flat_map(|cell| windows(&cell[..]));
                cells.chain(differences.iter().flat_map(|cell| windows(cell))).collect::<HashSet<_>>()
            };
            assert!(patterns(&near).is_disjoint(&patterns(&far)), "{direction:?} {inject:?}");
        }
    }
}

/// Vectors of scripts/vectors/cells.py, which computes them from the description with other libraries.
// protocol: X1, X2, X3, X4
#[test]
fn independently_computed_vectors() {
    let mut count = 0;
    for (starter, direction) in
        [("owner", DIRECTIONS[0]), ("owner", DIRECTIONS[1]), ("end", DIRECTIONS[0]), ("end", DIRECTIONS[1])]
    {
        let name = format!("{starter} {direction:?} ").to_lowercase();
        let mut line = None;
        for text in include_str!("../../vectors/cells.txt").lines().filter(|text| text.starts_with(&name)) {
            let fields: Vec<_> = text.split(' ').collect();
            let [_, _, keys, _, kind, data, head, hash] = fields.try_into().unwrap();
            let keys =
                keys.split(',').map(|key| TunnelKey(Zeroizing::new(hex::decode(key).unwrap().try_into().unwrap())));
            let line = line.get_or_insert_with(|| {
                let keys: Vec<_> = keys.collect();
                // Whether a cell comes from the owner; a line is of a tunnel that the owner started.
                let away = (starter == "owner") == (direction == Direction::Onward);
                let sent = if away { Direction::Onward } else { Direction::Backward };
                Line { direction: sent, ..Line::with(direction, &keys) }
            });
            let data = if data == "-" { Vec::new() } else { hex::decode(data).unwrap() };
            let kind = CellKind::ALL.into_iter().find(|known| (*known as u8).to_string() == kind).unwrap();
            let plain = cell(kind, &data);
            let sent = line.on(0, plain.clone());
            assert_eq!(hex::encode(&sent[..64]), head);
            assert_eq!(blake3::hash(&sent[..]).to_hex().as_str(), hash);
            count += 1;
        }
    }
    assert_eq!(count, 20);
}

proptest! {
    #[test]
    fn bodies_round_trip(data in prop::collection::vec(any::<u8>(), 0..=CELL_DATA_MAX), which in 0..CellKind::ALL.len()) {
        let kind = CellKind::ALL[which];
        let cell = cell(kind, &data);
        prop_assert_eq!(Cell::decode(&cell[..]), Ok(Cell { kind, data: &data }));
    }

    /// What is read is what would be written: one value has one encoding.
    #[test]
    fn any_bytes_are_an_error_or_the_one_encoding(head in prop::collection::vec(any::<u8>(), 0..100), at in 0..CELL_LEN, byte: u8) {
        prop_assert_eq!(Cell::decode(&head), Err(CellError::Malformed));
        let mut bytes = Box::new([0; CELL_LEN]);
        bytes[TAG_LEN..TAG_LEN + head.len()].copy_from_slice(&head);
        bytes[at] = byte;
        if let Ok(read) = Cell::decode(&bytes[..]) {
            prop_assert_eq!(cell(read.kind, read.data), bytes);
        }
    }
}

#[test]
fn too_much_data_is_an_error() {
    let mut out = Box::new([0; CELL_LEN]);
    let data = vec![0; CELL_DATA_MAX + 1];
    assert_eq!(Cell { kind: CellKind::Data, data: &data }.encode(&mut out), Err(CellError::TooLong));
}

// protocol: X1, X6, U1
#[test]
fn malformed_bodies_are_errors() {
    let good = cell(CellKind::Data, b"abc");
    let with = |at: usize, byte| {
        let mut cell = good.clone();
        cell[at] = byte;
        Cell::decode(&cell[..]).map(|cell| cell.kind)
    };
    assert_eq!(with(TAG_LEN, CellKind::End as u8), Ok(CellKind::End));
    assert_eq!(with(TAG_LEN, 0), Err(CellError::Malformed));
    assert_eq!(with(TAG_LEN, 10), Err(CellError::Malformed));
    assert_eq!(with(TAG_LEN + 1, 0xff), Err(CellError::Malformed));
    assert_eq!(with(TAG_LEN + 2, 2), Err(CellError::Malformed), "a byte of data becomes padding");
    assert_eq!(with(CELL_LEN - 1, 1), Err(CellError::Malformed));
    assert_eq!(with(0, 1), Err(CellError::Changed));
}

#[test]
fn other_lengths_are_refused_and_left_alone() {
    let key = TunnelKey(Zeroizing::new([1; 32]));
    let mut layer = Layer::new(&key, Direction::Onward);
    let mut short = vec![7; CELL_LEN - 1];
    assert!(!layer.encipher(&mut short));
    assert!(!layer.decipher(&mut short));
    assert!(!OwnerCrypt::new(&[key], Direction::Onward).wrap(&mut short));
    assert_eq!(short, vec![7; CELL_LEN - 1]);
}
