//! Times that are left to chance.

use rand::{CryptoRng, RngExt};

/// A time drawn from the exponential distribution with this mean, in its unit: what a Poisson clock waits.
pub fn exponential(rng: &mut dyn CryptoRng, mean: u64) -> u64 {
    // Never zero, whose logarithm does not exist.
    let uniform = (rng.random::<u32>() as f64 + 1.0) / (u32::MAX as f64 + 2.0);
    (-uniform.ln() * mean as f64) as u64
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    #[test]
    fn times_have_their_mean_and_know_no_past() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let times: Vec<_> = (0..4_000).map(|_| exponential(&mut rng, 1_000)).collect();
        let mean = |times: &[u64]| times.iter().sum::<u64>() / times.len() as u64;
        assert!((950..1_050).contains(&mean(&times)), "{}", mean(&times));
        // Of those who have waited for a mean already, the rest is as long as the whole is.
        let rest: Vec<_> = times.iter().filter_map(|time| time.checked_sub(1_000)).collect();
        assert!((900..1_100).contains(&mean(&rest)), "{}", mean(&rest));
    }
}
