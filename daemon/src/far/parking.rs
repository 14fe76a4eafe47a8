//! How a program's connection leaves a process that hands over to the next: whoever carries it leaves it here, for whoever has the session.

use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// Between the two ends of one stream.
pub struct Parking {
    asked_tx: watch::Sender<bool>,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    /// Somebody carries a connection that could be left.
    is_carried: bool,
    parked: Option<Parked>,
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
        Self { asked_tx: watch::Sender::new(false), slot: Mutex::default() }
    }
}

impl Parking {
    /// From now on a connection can be left here; what resolves when it is to be.
    pub(crate) fn carries(&self) -> impl Future<Output = ()> + Send + use<> {
        self.with(|slot| slot.is_carried = true);
        let mut asked_rx = self.asked_tx.subscribe();
        async move {
            if asked_rx.wait_for(|asked| *asked).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Leaves it.
    pub(crate) fn leave(&self, parked: Parked) {
        self.with(|slot| slot.parked = Some(parked));
    }

    /// Asks for it; false: nobody has one.
    pub(crate) fn ask(&self) -> bool {
        self.asked_tx.send_replace(true);
        self.with(|slot| slot.is_carried)
    }

    /// Whether it was left.
    pub(crate) fn is_left(&self) -> bool {
        self.with(|slot| slot.parked.is_some())
    }

    /// What was left.
    pub(crate) fn take(&self) -> Option<Parked> {
        self.with(|slot| slot.parked.take())
    }

    fn with<T>(&self, what: impl FnOnce(&mut Slot) -> T) -> T {
        what(&mut self.slot.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
