//! Time: a clock that only goes forward for durations, and wall time for people and expiry.
//!
//! - [`SystemClock`]: the machine's clocks.
//! - [`ManualClock`]: stands still until a test or the simulation moves it.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime};

#[cfg(any(test, feature = "simulation"))]
use memtide_base::sync::atomic::AtomicI64;
#[cfg(any(test, feature = "simulation"))]
use memtide_base::sync::atomic::{AtomicU64, Ordering};

/// A source of time.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Time since some fixed moment; never goes back.
    fn now(&self) -> Duration;

    /// Milliseconds since 1970 by the wall; may jump.
    fn wall_ms(&self) -> u64;
}

/// The machine's clocks; [`Clock::now`] counts from the clock's creation.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        // A wall clock set before 1970 reads as 1970.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(any(test, feature = "simulation"))]
/// A clock that moves only when told to. Its wall starts at a fixed moment, so runs repeat exactly.
#[derive(Debug, Default)]
pub struct ManualClock {
    nanos: AtomicU64,
    /// Milliseconds by which somebody set the wall.
    wall_set: AtomicI64,
}

#[cfg(any(test, feature = "simulation"))]
impl ManualClock {
    /// Where the wall of every manual clock starts: 2023-11-14 22:13:20 UTC.
    const WALL_START_MS: u64 = 1_700_000_000_000;

    /// A clock that stands at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock and its wall forward; at the far end of time (584 years) it stops.
    pub fn advance(&self, by: Duration) {
        let step = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let forward = |nanos: u64| Some(nanos.saturating_add(step));
        // Relaxed here and below: readers need nothing but the time itself.
        let moved = self.nanos.fetch_update(Ordering::Relaxed, Ordering::Relaxed, forward);
        moved.expect("the closure never refuses");
    }

    /// Sets the wall forward or back, as its owner may at any time; the clock itself does not notice.
    pub fn set_wall(&self, by_ms: i64) {
        self.wall_set.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Moves the clock forward to `moment`; nothing if that is in the past.
    pub(crate) fn advance_to(&self, moment: Duration) {
        self.nanos
            .fetch_max(u64::try_from(moment.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[cfg(any(test, feature = "simulation"))]
impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    fn wall_ms(&self) -> u64 {
        let passed = self.nanos.load(Ordering::Relaxed) / 1_000_000;
        (Self::WALL_START_MS + passed).saturating_add_signed(self.wall_set.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_goes_forward_and_its_wall_is_after_2020() {
        let clock = SystemClock::new();
        let first = clock.now();
        assert!(clock.now() >= first);
        assert!(clock.wall_ms() > 1_577_836_800_000);
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new();
        let wall = clock.wall_ms();
        assert_eq!(clock.now(), Duration::ZERO);
        clock.advance(Duration::from_millis(1500));
        assert_eq!((clock.now(), clock.wall_ms()), (Duration::from_millis(1500), wall + 1500));
        clock.advance_to(Duration::from_millis(900));
        assert_eq!(clock.now(), Duration::from_millis(1500), "never back");
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Duration::from_nanos(u64::MAX));
    }
}
