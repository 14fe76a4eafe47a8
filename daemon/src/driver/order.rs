//! Work that takes the time of disk accesses, beside the control task.

use futures::FutureExt;
use futures::future::Shared;
use tokio::sync::oneshot;
use tokio::task::{JoinError, spawn_blocking};

use crate::random::follows_seed;

/// Does `work` on a thread of its own; in a simulation, which has one, at once.
pub(super) async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    if follows_seed() { Ok(work()) } else { spawn_blocking(work).await }
}

/// Pieces of work in the order in which they came.
#[derive(Default)]
pub(super) struct Order(Option<Shared<oneshot::Receiver<()>>>);

impl Order {
    /// Does `work` when all before it is done.
    pub(super) fn add(&mut self, work: impl FnOnce() + Send + 'static) {
        let (done_tx, done_rx) = oneshot::channel();
        let before = self.0.replace(done_rx.shared());
        tokio::spawn(async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            // Work that panicked is over, too.
            let _ = beside(work).await;
            let _ = done_tx.send(());
        });
    }

    /// Resolves when all that came so far is done.
    // protocol: H4
    pub(super) fn done(&self) -> impl Future<Output = ()> + Send + use<> {
        let last = self.0.clone();
        async move {
            if let Some(last) = last {
                let _ = last.await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc};

    use super::*;

    // protocol: H4
    #[tokio::test]
    async fn what_came_later_overtakes_nothing_that_takes_long() {
        let (mut order, said) = (Order::default(), Arc::new(Mutex::new(Vec::new())));
        let (go_tx, go_rx) = mpsc::channel();
        let say = |word| {
            let said = said.clone();
            move || said.lock().unwrap().push(word)
        };
        let (first, second) = (say("first"), say("second"));
        order.add(move || {
            go_rx.recv().unwrap();
            first();
        });
        order.add(second);
        order.add(|| panic!("work may fail"));
        order.add(say("last"));
        let done = order.done();
        tokio::task::yield_now().await;
        assert!(said.lock().unwrap().is_empty());
        go_tx.send(()).unwrap();
        done.await;
        assert_eq!(*said.lock().unwrap(), ["first", "second", "last"]);
    }
}
