//! Something that happens again and again, and can be waited for.
//!
//! A count that grows with every notification. The lock and the condition variable are touched only while
//! somebody waits, so notifying nobody costs two atomic operations and no system call.

use std::time::{Duration, Instant};

use memtide_base::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use memtide_base::sync::{Condvar, Mutex};

/// Something that happens again and again, and can be waited for through [`crate::Executor::wait`].
#[derive(Debug, Default)]
pub struct Event {
    count: AtomicU64,
    waiters: AtomicUsize,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Event {
    /// An event that has not happened yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How often it has happened. Read this *before* checking the condition that one waits for.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// It happens once more: wakes all waiters. Make the condition true before.
    pub fn notify(&self) {
        // SeqCst on both sides: a waiter raises `waiters` and then reads `count`, this raises `count` and
        // then reads `waiters`; at least one of the two sees the other.
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.waiters.load(Ordering::SeqCst) > 0 {
            // A waiter that read the old count under the lock is waiting once the lock is free.
            drop(self.lock.lock());
            self.changed.notify_all();
        }
    }

    /// Blocks the calling thread while the count is `seen`, for `limit` at most.
    pub(super) fn block(&self, seen: u64, limit: Option<Duration>) {
        // A limit too far away to be a moment is no limit.
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let mut guard = self.lock.lock();
        while self.count() == seen {
            let Some(deadline) = deadline else {
                guard = self.changed.wait(guard);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            guard = self.changed.wait_timeout(guard, left);
        }
        drop(guard);
        self.waiters.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_for_the_past_returns_at_once() {
        let event = Event::new();
        let seen = event.count();
        event.notify();
        event.block(seen, None);
        assert_eq!(event.count(), seen + 1);
    }

    #[test]
    fn a_wait_ends_at_its_limit() {
        let event = Event::new();
        let (limit, start) = (Duration::from_millis(5), Instant::now());
        event.block(event.count(), Some(limit));
        assert!(start.elapsed() >= limit);
    }

    #[test]
    fn two_threads_hand_a_number_back_and_forth_without_losing_a_wake_up() {
        const ROUNDS: u64 = 2000;
        let (ping, pong) = (Event::new(), Event::new());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    ping.block(round, None);
                    pong.notify();
                }
            });
            for round in 0..ROUNDS {
                ping.notify();
                pong.block(round, None);
            }
        });
        assert_eq!((ping.count(), pong.count()), (ROUNDS, ROUNDS));
    }
}
