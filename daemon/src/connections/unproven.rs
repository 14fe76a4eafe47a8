//! Those of one identity who wait for others at its cost: so many, and then the oldest goes. One list is of who has arrived and not
//! proven an address yet, another of sessions whose clients have not come again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// How many; each holds a tunnel and up to 64 KiB. A proof takes three round trips, so that this many come about at once even over
/// a slow path; who floods an identity pushes out the oldest of its own.
// protocol: U18
const PLACES: usize = 256;

/// The places of one identity.
pub(super) struct Unproven(Mutex<Places>);

impl Default for Unproven {
    fn default() -> Self {
        Self::of(PLACES)
    }
}

struct Places {
    most: usize,
    next: u64,
    held: BTreeMap<u64, oneshot::Sender<()>>,
}

/// One place, until it is dropped: its holder has proven itself, or is gone.
pub(super) struct Place {
    number: u64,
    places: Arc<Unproven>,
}

impl Unproven {
    /// So many places.
    pub(super) fn of(most: usize) -> Self {
        Self(Mutex::new(Places { most, next: 0, held: BTreeMap::new() }))
    }

    /// A place, and what resolves with a value when it is taken away.
    pub(super) fn enter(self: &Arc<Self>) -> (Place, oneshot::Receiver<()>) {
        let (evicted_tx, evicted_rx) = oneshot::channel();
        let mut places = self.lock();
        if places.held.len() >= places.most
            && let Some((_, oldest)) = places.held.pop_first()
        {
            // It may just be ending by itself.
            let _ = oldest.send(());
        }
        places.next += 1;
        let number = places.next;
        places.held.insert(number, evicted_tx);
        (Place { number, places: self.clone() }, evicted_rx)
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // No code panics while it holds the lock; the places would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().held.remove(&self.number);
    }
}

/// Runs `work` to its end, or until its place is taken away. Once the place was given back nothing ends it any more.
pub(super) async fn until(evicted: oneshot::Receiver<()>, work: impl Future<Output = ()>) {
    tokio::pin!(work);
    tokio::select! {
        biased;
        () = &mut work => {}
        Ok(()) = evicted => {}
        else => work.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // protocol: U18
    #[tokio::test]
    async fn who_comes_last_pushes_out_the_oldest_and_nobody_who_has_proven_itself() {
        let unproven = Arc::<Unproven>::default();
        let (proven, mut its_end) = unproven.enter();
        drop(proven);
        let mut held: Vec<_> = (0..PLACES).map(|_| unproven.enter()).collect();
        assert!(held.iter_mut().all(|(_, end)| end.try_recv().is_err()), "there is room for all");
        let one_more = unproven.enter();
        assert!(held[0].1.try_recv().is_ok() && held[1].1.try_recv().is_err());
        assert!(its_end.try_recv().is_err());
        drop((one_more, held));
        assert!(unproven.lock().held.is_empty());
    }

    #[tokio::test]
    async fn work_ends_with_its_place_or_goes_on_without() {
        let (end_tx, end_rx) = oneshot::channel();
        end_tx.send(()).unwrap();
        until(end_rx, std::future::pending()).await;
        let (end_tx, end_rx) = oneshot::channel::<()>();
        drop(end_tx);
        let mut done = false;
        until(end_rx, async {
            tokio::task::yield_now().await;
            done = true;
        })
        .await;
        assert!(done);
    }
}
