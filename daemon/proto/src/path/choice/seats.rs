//! Which layer each place of a circle belongs to (docs/protocol.md, section 4.6).
//!
//! ```text
//! owner - Y - X0 - Y - X1 - Y - X2 - Y - Y - owner      three X-nodes; a coin may turn the order round
//!         1   1    2   2    3   3    2   1              who stands beside layer 1 is of layer 2
//! ```

use rand::{CryptoRng, RngExt};

use crate::path::plan::{Candidate, Placed, Plan, Role};

/// How far from the owner a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    /// Next to the owner: guards.
    First,
    /// Next to a guard, in the circle or on the path.
    Second,
    /// The terminating node, and who stands next to none of the first layer.
    Third,
}

/// Places of one layer in a circle.
pub(super) fn places(hops: usize, layer: Layer) -> usize {
    (0..3 * hops - 1).filter(|place| of(*place, hops) == layer).count()
}

/// Before the coin.
fn of(place: usize, hops: usize) -> Layer {
    let (last, terminating) = (3 * hops - 2, 2 * hops - 1);
    match place {
        0 | 1 => Layer::First,
        _ if place == last => Layer::First,
        _ if place == terminating => Layer::Third,
        2 | 3 => Layer::Second,
        _ if place == last - 1 => Layer::Second,
        _ => Layer::Third,
    }
}

/// Seats nodes of three layers, as many of each as [`places`] says, and throws the coin.
// protocol: C3, O3
pub(super) fn seat(
    rng: &mut dyn CryptoRng,
    hops: usize,
    first: &[Candidate],
    second: &[Candidate],
    third: &[Candidate],
) -> Plan {
    let (mut first, mut second, mut third) = (first.iter(), second.iter(), third.iter());
    let mut circle = Vec::with_capacity(3 * hops - 1);
    for place in 0..3 * hops - 1 {
        let next = match of(place, hops) {
            Layer::First => first.next(),
            Layer::Second => second.next(),
            Layer::Third => third.next(),
        };
        let role = match place % 2 == 1 && place < 2 * hops {
            true => Role::X { position: place / 2 },
            false => Role::Y,
        };
        circle.extend(next.map(|candidate| Placed { candidate: candidate.clone(), role }));
    }
    if rng.random() {
        circle.reverse();
    }
    Plan { circle }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::plan::HOPS;

    /// Who stands beside a guard, in the circle or on the path, is a guard or of layer 2; who stands beside the terminating
    /// node with three X-nodes and more never is a guard.
    #[test]
    fn layers_surround_each_other() {
        for hops in HOPS {
            let len = 3 * hops - 1;
            let path: Vec<usize> = (0..hops).map(|position| 2 * position + 1).collect();
            let circle = (0..len).zip(1..len);
            let pairs: Vec<_> = circle.chain(path.iter().copied().zip(path.iter().copied().skip(1))).collect();
            for (a, b) in pairs.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]) {
                if of(a, hops) == Layer::First && hops > 2 {
                    assert_ne!(of(b, hops), Layer::Third, "{hops} X-nodes, places {a} and {b}");
                }
            }
            assert_eq!(places(hops, Layer::First), 3);
            assert_eq!(of(2 * hops - 1, hops), Layer::Third);
        }
        assert_eq!([3, 4].map(|hops| places(hops, Layer::Second)), [3, 3]);
        assert_eq!([3, 4].map(|hops| places(hops, Layer::Third)), [2, 5]);
    }
}
