//! How much of the log is on the device, and who is to be told when more of it is.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use memtide_base::sync::Mutex;
use memtide_base::sync::atomic::{AtomicU64, Ordering};

/// The end of the durable log.
#[derive(Debug, Default)]
pub(crate) struct Durable {
    below: AtomicU64,
    waiting: Mutex<Vec<Waker>>,
}

impl Durable {
    /// Every logged write below is on the device.
    pub(crate) fn below(&self) -> u64 {
        // Acquire pairs with the Release in `reach`.
        self.below.load(Ordering::Acquire)
    }

    /// Says that the log below `end` is on the device.
    pub(crate) fn reach(&self, end: u64) {
        self.below.fetch_max(end, Ordering::Release);
    }

    /// Has `waker` woken by the next step of the sync job, or when the database is closed: more is durable then, or
    /// nothing will be any more. Look once more after this call, and wake the job.
    pub(crate) fn tell(&self, waker: &Waker) {
        let mut waiting = self.waiting.lock();
        if !waiting.iter().any(|known| known.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }

    /// Whether anybody is to be told.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.waiting.lock().is_empty()
    }

    /// Wakes all who are to be told. That is foreign code, which may write, poll or drop the last handle: hold no lock.
    /// One that panics keeps nobody else from being told, and is no failure of the database.
    pub(crate) fn wake(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        for waker in waiting {
            let _panicked = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }
}
