//! Visitors at one time, and who gives way when there are too many: nobody knows who they are, so it is by what they do.
//!
//! ```text
//!  full ── has anybody been here for a while? ── of those, who took least in its time goes ── the next one is let in
//!                       no: that is waited for
//! ```
//! Whoever asks nothing, or takes nothing, goes first: places cost what it costs to fetch as much as others do.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

/// Visitors at one time.
const VISITORS: usize = 128;

/// How long one may stay whatever it does: a question comes a round trip after the connection.
const GRACE: Duration = Duration::from_secs(5);

/// Bytes that a visitor has taken.
pub(super) type Taken = Arc<AtomicU64>;

struct Visit {
    since: Instant,
    taken: Taken,
    task: AbortHandle,
}

impl Visit {
    /// In bytes per second.
    fn rate(&self, now: Instant) -> u64 {
        let milliseconds = u64::try_from(now.duration_since(self.since).as_millis()).unwrap_or(u64::MAX);
        self.taken.load(Ordering::Relaxed).saturating_mul(1000) / milliseconds.max(1)
    }
}

/// See the module.
pub(super) struct Crowd {
    places: Arc<Semaphore>,
    /// The oldest first.
    visits: Vec<Visit>,
}

impl Crowd {
    pub(super) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(VISITORS)), visits: Vec::new() }
    }

    /// A place, for whose sake somebody may have to go.
    pub(super) async fn place(&mut self) -> OwnedSemaphorePermit {
        self.visits.retain(|visit| !visit.task.is_finished());
        let may_go = self.visits.first().map_or_else(Instant::now, |oldest| oldest.since + GRACE);
        tokio::select! {
            biased;
            place = taken(&self.places) => return place,
            () = sleep_until(may_go) => self.send_away(),
        }
        taken(&self.places).await
    }

    fn send_away(&mut self) {
        let now = Instant::now();
        let goes = self.visits.iter().enumerate().filter(|(_, visit)| visit.since + GRACE <= now);
        if let Some((at, _)) = goes.min_by_key(|(_, visit)| visit.rate(now)) {
            self.visits.remove(at).task.abort();
        }
    }

    /// Somebody comes, and has that place until it goes or has to.
    pub(super) fn enter(
        &mut self,
        place: OwnedSemaphorePermit,
        taken: Taken,
        visit: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = tokio::spawn(async move {
            visit.await;
            drop(place);
        });
        self.visits.push(Visit { since: Instant::now(), taken, task: task.abort_handle() });
    }
}

async fn taken(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    match places.clone().acquire_owned().await {
        Ok(place) => place,
        // Places are not closed.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    /// Who has taken so much; it stays for ever.
    async fn comes(crowd: &mut Crowd, taken: u64) -> AbortHandle {
        let place = crowd.place().await;
        crowd.enter(place, Arc::new(AtomicU64::new(taken)), std::future::pending());
        crowd.visits.last().unwrap().task.clone()
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_nothing_gives_way_and_who_takes_most_stays() {
        let mut crowd = Crowd::new();
        let busy = comes(&mut crowd, 1 << 30).await;
        let mut silent = Vec::new();
        for _ in 1..VISITORS {
            silent.push(comes(&mut crowd, 0).await);
        }
        let begun = Instant::now();
        let next = comes(&mut crowd, 0).await;
        assert!(begun.elapsed() >= GRACE && begun.elapsed() < GRACE * 2, "nobody has had time to ask");
        sleep(GRACE).await;
        let begun = Instant::now();
        for _ in 0..2 * VISITORS {
            comes(&mut crowd, 0).await;
            sleep(GRACE / 64).await;
        }
        assert!(begun.elapsed() < GRACE * 6, "each waits for the one before: {:?}", begun.elapsed());
        assert!(!busy.is_finished() && next.is_finished() && silent.iter().all(AbortHandle::is_finished));
        assert!(crowd.visits.len() <= VISITORS);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_byte_now_and_then_goes_before_who_takes_all() {
        let mut crowd = Crowd::new();
        let mut slow = Vec::new();
        for _ in 0..VISITORS / 2 {
            slow.push(comes(&mut crowd, 100).await);
        }
        let mut quick = Vec::new();
        for _ in 0..VISITORS / 2 {
            quick.push(comes(&mut crowd, 1 << 20).await);
        }
        sleep(GRACE).await;
        for _ in 0..VISITORS / 2 {
            comes(&mut crowd, 0).await;
        }
        tokio::task::yield_now().await;
        assert!(slow.iter().all(AbortHandle::is_finished) && !quick.iter().any(AbortHandle::is_finished));
    }
}
