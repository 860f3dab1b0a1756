//! What holds compactions up: pauses that somebody holds, and the rate at which they may write.
//!
//! Pure bookkeeping; whoever has to wait does that elsewhere.

use std::time::Duration;

use memtide_base::sync::Mutex;
use memtide_base::sync::atomic::{AtomicUsize, Ordering};
use memtide_base::{Error, ErrorKind, Result};

/// How much of an idle time may be made up for.
const BURST: Duration = Duration::from_millis(100);

/// Pauses, and what was written.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    pauses: AtomicUsize,
    /// When as much may have been written as was.
    even: Mutex<Duration>,
}

impl Hold {
    /// Begins a pause.
    pub(crate) fn pause(&self) {
        self.pauses.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends one.
    pub(crate) fn resume(&self) {
        self.pauses.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.pauses.load(Ordering::SeqCst) > 0
    }

    /// # Errors
    /// `Busy`: a pause is held.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_paused() {
            return Err(Error::new(ErrorKind::Busy, "compaction is paused")
                .with_hint("try again once every CompactionPause is dropped"));
        }
        Ok(())
    }

    /// Counts bytes that are written at `now`; says when as much may have been written at `rate` bytes a second.
    pub(crate) fn even_after(&self, now: Duration, bytes: u64, rate: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut even = self.even.lock();
        *even = (*even).max(now.saturating_sub(BURST)).saturating_add(cost);
        *even
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_written_in_time_is_made_up_for_a_little() {
        let hold = Hold::default();
        let ms = Duration::from_millis;
        assert_eq!(hold.even_after(ms(0), 1000, 10_000), ms(100));
        assert_eq!(hold.even_after(ms(50), 500, 10_000), ms(150));
        assert_eq!(hold.even_after(ms(10_000), 1000, 10_000), ms(10_000));
        assert_eq!(hold.even_after(ms(10_000), 1000, 10_000), ms(10_100));
        assert!(hold.even_after(ms(10_000), u64::MAX, 1) > ms(1 << 40));
    }

    #[test]
    fn it_is_paused_until_the_last_pause_ends() {
        let hold = Hold::default();
        hold.pause();
        hold.pause();
        hold.resume();
        assert!(hold.is_paused() && hold.check().is_err());
        hold.resume();
        assert!(hold.check().is_ok());
    }
}
