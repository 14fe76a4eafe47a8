//! Cells: one encoding, and an end takes exactly the cells that were sent, in order, until the first one is touched.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use phantom_proto::cell::{CELL_LEN, Cell, CellKind, Direction, Layer, OwnerCrypt, TunnelKey};
use zeroize::Zeroizing;

#[derive(Arbitrary, Debug)]
enum Fate {
    Whole,
    Lost,
    Twice,
    Changed { link: u8, at: u16, with: u8 },
}

#[derive(Arbitrary, Debug)]
struct Case {
    raw: Vec<u8>,
    hops: u8,
    onward: bool,
    cells: Vec<(Vec<u8>, Fate)>,
}

fn decode(raw: &[u8]) {
    let mut cell = [0; CELL_LEN];
    let length = raw.len().min(CELL_LEN - 16);
    cell[16..16 + length].copy_from_slice(&raw[..length]);
    if let Ok(read) = Cell::decode(&cell) {
        let mut again = [1; CELL_LEN];
        read.encode(&mut again).expect("it was a cell");
        assert_eq!(again, cell);
    }
    let _ = Cell::decode(raw);
}

/// A change on the last link before the owner shows in the next cell only; the documented exception is data of that cell.
fn carry(case: &Case) {
    let keys: Vec<_> = (0..case.hops % 3 + 1).map(|hop| TunnelKey(Zeroizing::new([hop; 32]))).collect();
    let direction = if case.onward { Direction::Onward } else { Direction::Backward };
    let (mut owner, mut broken) = (OwnerCrypt::new(&keys, direction), false);
    let mut layers: Vec<_> = keys.iter().map(|key| Layer::new(key, direction)).collect();
    for (data, fate) in case.cells.iter().take(16) {
        let data = &data[..data.len().min(4000)];
        let mut cell = [0; CELL_LEN];
        Cell { kind: CellKind::Data, data }.encode(&mut cell).expect("it fits");
        if case.onward {
            assert!(owner.wrap(&mut cell));
        } else if let Some(end) = layers.last_mut() {
            assert!(end.encipher(&mut cell));
        }
        let times = match fate {
            Fate::Lost => 0,
            Fate::Twice => 2,
            Fate::Whole | Fate::Changed { .. } => 1,
        };
        for time in 0..times {
            let mut cell = cell;
            let between = keys.len() - usize::from(!case.onward);
            let mut touched = time > 0;
            for link in 0..=between {
                if let Fate::Changed { link: at_link, at, with } = fate
                    && usize::from(*at_link) % (between + 1) == link
                    && link < between
                    && *with != 0
                {
                    cell[usize::from(*at) % CELL_LEN] ^= with;
                    touched = true;
                }
                if link < between {
                    let hop = if case.onward { link } else { between - 1 - link };
                    assert!(layers[hop].encipher(&mut cell));
                }
            }
            if !case.onward {
                assert!(owner.peel(&mut cell));
            }
            broken |= touched;
            let taken = Cell::decode(&cell);
            assert_eq!(taken.is_ok(), !broken, "{fate:?}");
            if let Ok(taken) = taken {
                assert_eq!((taken.kind, taken.data), (CellKind::Data, data));
            }
        }
        broken |= times == 0;
    }
}

fuzz_target!(|case: Case| {
    decode(&case.raw);
    carry(&case);
});
