//! How many of something each user has, so that nobody takes the places of others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many each user has.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<HashMap<u32, usize>>>);

/// One of a user's, until it is dropped.
pub(super) struct Place {
    uid: u32,
    all: Places,
}

impl Places {
    /// One more for a user who may have `most`; none when they have as many.
    pub(super) fn take(&self, uid: u32, most: usize) -> Option<Place> {
        let mut counts = self.counts();
        let count = counts.entry(uid).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { uid, all: self.clone() })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.all.counts();
        if let Some(count) = counts.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}
