//! How a program's connection leaves a process that hands over to the next: whoever carries it leaves it here, for whoever has the session.

use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Between the two ends of one stream.
pub struct Parking {
    asked_tx: watch::Sender<bool>,
    /// Whether somebody carries a connection that could be left.
    carried_tx: watch::Sender<bool>,
    parked: Mutex<Option<Parked>>,
}

/// A program's connection, and the bytes that were in hand.
pub struct Parked {
    /// Towards the program.
    pub tcp: TcpStream,
    /// From the program, not passed on yet.
    pub up: Vec<u8>,
    /// The program sends no more, behind these.
    pub up_over: bool,
    /// For the program, before all others.
    pub down: Vec<u8>,
}

impl Default for Parking {
    fn default() -> Self {
        Self { asked_tx: watch::Sender::new(false), carried_tx: watch::Sender::new(false), parked: Mutex::default() }
    }
}

impl Parking {
    /// From now on a connection can be left here; what resolves when it is to be.
    pub(crate) fn carries(&self) -> impl Future<Output = ()> + Send + use<> {
        self.carried_tx.send_replace(true);
        let mut asked_rx = self.asked_tx.subscribe();
        async move {
            if asked_rx.wait_for(|asked| *asked).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Leaves it.
    pub(crate) fn leave(&self, parked: Parked) {
        *self.parked() = Some(parked);
    }

    /// Resolves when somebody carries a connection.
    pub(crate) async fn is_carried(&self) {
        // It is not dropped meanwhile.
        let _ = self.carried_tx.subscribe().wait_for(|carried| *carried).await;
    }

    /// Asks for it; false: nobody has one.
    pub(crate) fn ask(&self) -> bool {
        self.asked_tx.send_replace(true);
        *self.carried_tx.borrow()
    }

    /// Whether it was left.
    pub(crate) fn is_left(&self) -> bool {
        self.parked().is_some()
    }

    /// What was left.
    pub(crate) fn take(&self) -> Option<Parked> {
        self.parked().take()
    }

    fn parked(&self) -> MutexGuard<'_, Option<Parked>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
