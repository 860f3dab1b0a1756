//! How many threads may merge tables at once: what a merge takes beside its own thread and gives back.
//!
//! Pure bookkeeping; whoever takes some has jobs run on them elsewhere.

use memtide_base::sync::atomic::{AtomicUsize, Ordering};

/// Threads that a machine is not asked for by default, however many processors it has: what they write has to get to
/// the device.
const DEFAULT_MAX: usize = 4;
/// Memory budget for which there is one thread by default: each has a table open for writing and blocks of all inputs.
const BUDGET_EACH: u64 = 64 << 20;

/// The threads for merges that a database may use, those of all keyspaces together.
#[derive(Debug)]
pub(crate) struct Threads {
    all: usize,
    /// Beside the one that each merge has anyway.
    spare: AtomicUsize,
}

impl Threads {
    pub(crate) fn new(all: usize) -> Self {
        Self { all, spare: AtomicUsize::new(all - 1) }
    }

    /// One processor is for the writers.
    pub(crate) fn default_for(processors: usize, memory_budget: u64) -> usize {
        let affordable = usize::try_from(memory_budget / BUDGET_EACH).unwrap_or(usize::MAX);
        processors.saturating_sub(1).min(DEFAULT_MAX).min(affordable).max(1)
    }

    pub(crate) fn all(&self) -> usize {
        self.all
    }

    /// Takes all that no other merge has.
    pub(crate) fn take(&self) -> Spare<'_> {
        // Relaxed: a count; what is done on the threads is ordered by submitting and joining it.
        Spare { threads: self, count: self.spare.swap(0, Ordering::Relaxed) }
    }
}

/// Threads that a merge has taken.
#[derive(Debug)]
pub(crate) struct Spare<'t> {
    threads: &'t Threads,
    count: usize,
}

impl Spare<'_> {
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Gives all but so many back.
    pub(crate) fn keep(&mut self, count: usize) {
        let back = self.count.saturating_sub(count);
        self.count -= back;
        self.threads.spare.fetch_add(back, Ordering::Relaxed);
    }
}

impl Drop for Spare<'_> {
    fn drop(&mut self) {
        self.keep(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_merge_takes_no_other_has() {
        let threads = Threads::new(4);
        let mut first = threads.take();
        assert_eq!((first.count(), threads.take().count()), (3, 0));
        first.keep(1);
        let second = threads.take();
        assert_eq!((first.count(), second.count()), (1, 2));
        drop(first);
        drop(second);
        assert_eq!(threads.take().count(), 3);
        assert_eq!(Threads::new(1).take().count(), 0);
    }

    #[test]
    fn a_processor_is_left_for_writers_and_memory_is_no_more_than_there_is() {
        for (processors, budget_mib, want) in [
            (1, 256, 1),
            (2, 256, 1),
            (3, 256, 2),
            (4, 256, 3),
            (64, 256, 4),
            (64, 64, 1),
            (64, 8, 1),
        ] {
            let threads = Threads::default_for(processors, budget_mib << 20);
            assert_eq!(threads, want, "{processors} processors, {budget_mib} MiB");
        }
    }
}
