//! Randomness of the daemon: the system's. In a simulation, of one seed.

use std::cell::RefCell;
use std::convert::Infallible;

use rand::rngs::{StdRng, SysRng};
use rand::{SeedableRng, TryCryptoRng, TryRng};

thread_local! {
    /// Set by a simulation, which has one thread.
    static SEEDED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// See [`random`].
#[derive(Debug, Clone, Copy)]
pub struct Random(());

/// The system's randomness, which does not run dry: failing to get it at all is no state to go on in.
pub fn random() -> Random {
    Random(())
}

/// From now on, on this thread, randomness is drawn from `seed`. For simulations only: it is not secret then.
pub fn follow_seed(seed: u64) {
    SEEDED.with_borrow_mut(|rng| *rng = Some(StdRng::seed_from_u64(seed)));
}

/// Randomness for keys, seeded by the system.
///
/// # Errors
/// When the system has none, which no key should be made without.
pub fn system_rng() -> anyhow::Result<StdRng> {
    StdRng::try_from_rng(&mut SysRng).map_err(|error| anyhow::anyhow!("the system gives no randomness: {error}"))
}

/// Whether this is a simulation, in which nothing may depend on how fast another thread is.
pub(crate) fn follows_seed() -> bool {
    SEEDED.with_borrow(Option::is_some)
}

impl Random {
    fn draw<T>(
        seeded: impl FnOnce(&mut StdRng) -> Result<T, Infallible>,
        system: impl FnOnce(&mut SysRng) -> Result<T, <SysRng as TryRng>::Error>,
    ) -> T {
        SEEDED.with_borrow_mut(|rng| match rng {
            Some(rng) => seeded(rng).unwrap_or_else(|never| match never {}),
            None => system(&mut SysRng).expect("the system has randomness"),
        })
    }
}

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(Self::draw(StdRng::try_next_u32, SysRng::try_next_u32))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(Self::draw(StdRng::try_next_u64, SysRng::try_next_u64))
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Infallible> {
        // Only one of the two runs.
        let dest = RefCell::new(dest);
        Self::draw(|rng| rng.try_fill_bytes(&mut dest.borrow_mut()), |rng| rng.try_fill_bytes(&mut dest.borrow_mut()));
        Ok(())
    }
}

impl TryCryptoRng for Random {}
