//! When an open database is to be looked at again and again, and how often it was.

use std::time::Duration;

use memtide_base::sync::Mutex;
use memtide_base::sync::atomic::{AtomicU64, Ordering};

/// When and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScrubPlan {
    /// Time from the beginning of a pass to that of the next.
    pub(crate) every: Duration,
    pub(crate) bytes_per_second: u64,
}

/// What is asked of the job, and what it did.
#[derive(Debug, Default)]
pub(crate) struct Scrubs {
    plan: Mutex<Option<ScrubPlan>>,
    passes: AtomicU64,
    bytes: AtomicU64,
}

impl Scrubs {
    /// Replaces the plan.
    pub(crate) fn set(&self, plan: Option<ScrubPlan>) {
        *self.plan.lock() = plan;
    }

    /// Passes that ended, and bytes that were looked at.
    pub(crate) fn done(&self) -> (u64, u64) {
        (self.passes.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    pub(crate) fn plan(&self) -> Option<ScrubPlan> {
        *self.plan.lock()
    }

    pub(crate) fn end_pass(&self) {
        self.passes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
