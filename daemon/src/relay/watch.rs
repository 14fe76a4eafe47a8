//! Says that this side of a link is there, and hears whether the other is, at the times that `phantom_proto::alive` has for it.

use phantom_proto::alive::{Alive, Sign};

use super::Steps;

/// One side of a link on which both say ALIVE.
pub(crate) struct Watch {
    steps: Steps,
    alive: Alive,
}

impl Watch {
    pub(crate) fn new() -> Self {
        let steps = Steps::default();
        let alive = Alive::new(steps.now(), &mut crate::random());
        Self { steps, alive }
    }

    /// Something came, or nothing could be heard until now.
    pub(crate) fn heard(&mut self) {
        self.alive.heard(self.steps.now());
    }

    /// What is to be done next, when it is to be. `deaf`: nothing is heard for the time being, which says nothing of the other side.
    pub(crate) async fn next(&mut self, deaf: bool) -> Sign {
        loop {
            self.steps.until(self.alive.deadline()).await;
            if deaf {
                self.heard();
            }
            if let Some(sign) = self.alive.tick(self.steps.now(), &mut crate::random()) {
                return sign;
            }
        }
    }
}
