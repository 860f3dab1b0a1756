//! Writers that found another one committing: whoever gets the commit lock next commits for all of them at once,
//! with one write to the log (group commit; DeWitt et al., 1984).
//!
//! Nobody is woken by name and nobody leads by appointment: all who wait want the commit lock, the first to get it
//! takes the queue, and the others find their outcome when they get it. A writer in the queue holds nothing.

use memtide_base::sync::Arc;
use memtide_base::sync::Mutex;
use memtide_base::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use memtide_base::{Result, SeqNo};

use crate::batch::BatchBody;
use crate::keyspace_state::KeyspaceState;

/// A write that took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    /// The number of its last operation.
    pub(crate) last: SeqNo,
    /// Once the log is synced up to here, what of the write is logged is durable.
    pub(crate) end: SeqNo,
    /// Whether all of it is logged.
    pub(crate) is_logged: bool,
}

/// What a write must wait for before it can be tried again; nothing of it has happened.
#[derive(Clone, Debug)]
pub(crate) enum Need {
    /// The next segment of the log.
    Segment,
    /// The memtables hold their share of the memory.
    Memory,
    /// The keyspace has as many memtables as it may.
    Merge(Arc<KeyspaceState>),
}

/// What became of an attempt to write.
#[derive(Debug)]
pub(crate) enum Outcome {
    Done(Committed),
    Needs(Need),
}

/// A write in the hands of whoever commits next.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) batch: BatchBody,
    settled: AtomicBool,
    outcome: Mutex<Option<Result<Outcome>>>,
}

impl Request {
    pub(crate) fn new(batch: BatchBody) -> Arc<Self> {
        Arc::new(Self { batch, settled: AtomicBool::new(false), outcome: Mutex::default() })
    }

    /// Says what became of it. The caller holds the commit lock.
    pub(crate) fn settle(&self, outcome: Result<Outcome>) {
        *self.outcome.lock() = Some(outcome);
        self.settled.store(true, Ordering::Release);
    }

    /// What became of it since it was queued; `None` if nobody has committed for it.
    pub(crate) fn outcome(&self) -> Option<Result<Outcome>> {
        // Acquire pairs with the Release in `settle`.
        if !self.settled.load(Ordering::Acquire) {
            return None;
        }
        self.settled.store(false, Ordering::Relaxed);
        self.outcome.lock().take()
    }
}

/// The requests that wait, in the order of their coming.
#[derive(Debug, Default)]
pub(crate) struct CommitQueue {
    waiting: Mutex<Vec<Arc<Request>>>,
    len: AtomicUsize,
}

impl CommitQueue {
    /// Whether nobody waits. A hint: somebody may begin to.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // Relaxed: a writer that overlooks another only commits before it.
        self.len.load(Ordering::Relaxed) == 0
    }

    /// How many wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Adds a request. Its owner takes the commit lock next.
    pub(crate) fn join(&self, request: &Arc<Request>) {
        let mut waiting = self.waiting.lock();
        waiting.push(Arc::clone(request));
        self.len.store(waiting.len(), Ordering::Relaxed);
    }

    /// Takes everyone who waits. The caller holds the commit lock and settles each.
    pub(crate) fn take(&self) -> Vec<Arc<Request>> {
        let mut waiting = self.waiting.lock();
        self.len.store(0, Ordering::Relaxed);
        std::mem::take(&mut *waiting)
    }
}
