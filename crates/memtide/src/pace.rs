//! The pace of writers while upkeep is behind: the rule, and the queue in which they wait for their turn.
//!
//! *Pressure* says how far something has come on its way from where it does not matter to where it must not go, in
//! thousandths: memory that is in use, runs in level 0, levels above their targets. *Drain* is how many bytes upkeep
//! gets done with in a second of its work. Writers may go at
//!
//! ```text
//! rate = drain * (1 - pressure) / pressure
//! ```
//!
//! bytes per second: at upkeep's own speed at half the pressure, at three times that at a quarter, at a ninth of it at
//! nine tenths. So the pressure settles where writers are as fast as upkeep, and an estimate of the drain that is wrong
//! by a half only moves the place where it settles. The rate never jumps, and it is never nothing: a hard stop comes
//! only where there is no memory.
//!
//! The queue counts bytes: those that writers have *taken*, and those that were *granted*, which time adds to at the
//! present rate. It is a writer's turn once all that was taken before it is granted, so a change of the rate holds at
//! once for all who wait, and a large batch is paid for by whoever comes after it. What is granted ahead is
//! bounded by two [`QUANTUM`]s; who must wait does so until a quantum is granted ahead: waits of a few microseconds
//! would take as many times longer, and meet a hundred times as many writes.
//!
//! Who computes the pressure, and who waits: `write/controller.rs`.

use std::time::Duration;

use memtide_base::sync::Mutex;
use memtide_base::sync::atomic::{AtomicU64, Ordering};

/// Pressure is counted in thousandths, and so is by how much a level is overdue.
pub(crate) const WHOLE: u64 = 1000;
/// Writers are left alone below this pressure: they would be allowed nineteen times the drain.
const FREE_BELOW: u64 = 50;
/// No pressure is higher: the rate never comes to nothing.
const MOST: u64 = 970;
/// Bytes per second that writers are never held below.
const RATE_MIN: u64 = 64 << 10;

/// Time for which a writer that had to wait lets others, and itself, go on.
pub(crate) const QUANTUM: Duration = Duration::from_millis(10);
/// How far back the drain is remembered, in time that upkeep worked.
const REMEMBERED: Duration = Duration::from_secs(10);

/// Nobody is held to a rate: what stands for it where a rate is stored.
const UNLIMITED: u64 = 0;

/// How far `value` is from `from` to `to`.
fn ramp(value: u64, from: u64, to: u64) -> u64 {
    (value.saturating_sub(from).saturating_mul(WHOLE) / (to - from)).min(MOST)
}

/// The pressure of memtables that hold so much of their share: from three fifths on.
pub(crate) fn of_memory(held: u64, share: u64) -> u64 {
    let part = u128::from(held) * u128::from(WHOLE) / u128::from(share.max(1));
    ramp(u64::try_from(part).unwrap_or(u64::MAX), WHOLE * 3 / 5, WHOLE)
}

/// The pressure of a level 0 that has so many thousandths of the runs that make it due: from twice to six times.
pub(crate) fn of_level0(overdue: u64) -> u64 {
    ramp(overdue, 2 * WHOLE, 6 * WHOLE)
}

/// The pressure of a deeper level that holds so many thousandths of what it should: from twice to ten times.
pub(crate) fn of_debt(overdue: u64) -> u64 {
    ramp(overdue, 2 * WHOLE, 10 * WHOLE)
}

/// Bytes per second that writers may write; `None` if as many as they like.
pub(crate) fn rate(pressure: u64, drain: Option<u64>) -> Option<u64> {
    let drain = drain.filter(|_| pressure >= FREE_BELOW)?;
    let pressure = pressure.min(MOST);
    Some((drain.saturating_mul(WHOLE - pressure) / pressure).max(RATE_MIN))
}

/// The slower of two rates.
fn slower(a: u64, b: u64) -> u64 {
    if a == UNLIMITED || b == UNLIMITED { a.max(b) } else { a.min(b) }
}

/// How many bytes one kind of upkeep gets done with in a second of its work: the mean of the last ten seconds, later
/// ones weighing more. Time in which there was nothing to do does not count.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    bytes: u128,
    nanos: u128,
    /// Until when its work is counted; `None` while there is none.
    counted: Option<Duration>,
}

impl Drain {
    /// There is work, unless there was before.
    pub(crate) fn begin(&mut self, now: Duration) {
        self.counted.get_or_insert(now);
    }

    /// So many bytes more are done with. More work may follow at once. Nothing is counted outside of work.
    pub(crate) fn done(&mut self, now: Duration, bytes: u64) {
        let Some(since) = self.counted else { return };
        self.counted = Some(now);
        let took = now.saturating_sub(since).as_nanos();
        let kept = |sum: u128| sum * REMEMBERED.as_nanos() / (REMEMBERED.as_nanos() + took);
        self.bytes = kept(self.bytes) + u128::from(bytes);
        self.nanos = kept(self.nanos) + took;
    }

    /// There is no work any more, or none that counts; whether there was.
    pub(crate) fn rest(&mut self, now: Duration) -> bool {
        let worked = self.counted.is_some();
        self.done(now, 0);
        self.counted = None;
        worked
    }

    /// Bytes per second; `None` before any time was measured.
    pub(crate) fn per_second(&self) -> Option<u64> {
        let rate = (self.bytes * 1_000_000_000).checked_div(self.nanos)?;
        Some(u64::try_from(rate).unwrap_or(u64::MAX))
    }
}

/// What a keyspace's tree demands of the pace of its writers.
#[derive(Debug, Default)]
pub(crate) struct TreePace {
    /// Bytes per second.
    rate: AtomicU64,
    /// By how many thousandths the most overdue level below level 0 is so.
    overdue: AtomicU64,
    /// Thousandths of runs of level 0 that the present compaction has already merged.
    merged: AtomicU64,
}

impl TreePace {
    pub(crate) fn set_overdue(&self, thousandths: u64) {
        // Relaxed, here and below: figures, each read alone; the next refresh corrects what was read too early.
        self.overdue.store(thousandths, Ordering::Relaxed);
    }

    pub(crate) fn set_merged(&self, thousandths: u64) {
        self.merged.store(thousandths, Ordering::Relaxed);
    }

    pub(crate) fn set_rate(&self, rate: Option<u64>) {
        self.rate.store(rate.unwrap_or(UNLIMITED), Ordering::Relaxed);
    }

    pub(crate) fn rate(&self) -> Option<u64> {
        Some(self.rate.load(Ordering::Relaxed)).filter(|&rate| rate != UNLIMITED)
    }

    /// The pressure of a tree with `runs` in a level 0 that is due with `due` of them.
    pub(crate) fn pressure(&self, runs: usize, due: usize) -> u64 {
        let left = (runs as u64 * WHOLE).saturating_sub(self.merged.load(Ordering::Relaxed));
        let level0 = of_level0(left / due.max(1) as u64);
        level0.max(of_debt(self.overdue.load(Ordering::Relaxed)))
    }
}

/// The pace of all writers of a database.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Bytes per second of the keyspace that is held back most, memory counted in; the queue's.
    slowest: AtomicU64,
    /// What memory allows, and what the tree that is most behind allows.
    memory: AtomicU64,
    trees: AtomicU64,
    /// Bytes that writers were let in with or wait to be, and those that may be let in.
    taken: AtomicU64,
    granted: AtomicU64,
    /// Until when time was turned into grants. Held to change anything but `taken`; a leaf.
    counted: Mutex<Duration>,
    pub(crate) flushes: Mutex<Drain>,
    pub(crate) compactions: Mutex<Drain>,
}

impl Pace {
    /// Whether nobody is held to any rate.
    #[inline]
    pub(crate) fn is_free(&self) -> bool {
        // Relaxed: a rate that is seen a little late holds all the same.
        self.slowest.load(Ordering::Relaxed) == UNLIMITED
    }

    /// Bytes per second of the keyspace that is held back most; `None` if none is.
    pub(crate) fn slowest(&self) -> Option<u64> {
        Some(self.slowest.load(Ordering::Relaxed)).filter(|&rate| rate != UNLIMITED)
    }

    /// What memory allows.
    pub(crate) fn memory(&self) -> Option<u64> {
        Some(self.memory.load(Ordering::Relaxed)).filter(|&rate| rate != UNLIMITED)
    }

    pub(crate) fn set_memory(&self, now: Duration, rate: Option<u64>) {
        self.set(now, &self.memory, rate);
    }

    /// Sets what the tree that is most behind allows.
    pub(crate) fn set_trees(&self, now: Duration, rate: Option<u64>) {
        self.set(now, &self.trees, rate);
    }

    fn set(&self, now: Duration, which: &AtomicU64, rate: Option<u64>) {
        let mut counted = self.counted.lock();
        self.grant(&mut counted, now);
        which.store(rate.unwrap_or(UNLIMITED), Ordering::Relaxed);
        let rates = [&self.memory, &self.trees].map(|rate| rate.load(Ordering::Relaxed));
        self.slowest.store(slower(rates[0], rates[1]), Ordering::Relaxed);
        self.grant(&mut counted, now);
    }

    /// Turns the time until `now` into grants. What is less than a byte's worth is kept for the next time.
    fn grant(&self, counted: &mut Duration, now: Duration) {
        let now = now.max(*counted);
        let taken = self.taken.load(Ordering::Relaxed);
        let granted = self.granted.load(Ordering::Relaxed);
        let Some(rate) = self.slowest() else {
            *counted = now;
            return self.granted.store(granted.max(taken), Ordering::Relaxed);
        };
        let more = bytes_in(rate, now - *counted);
        // As much as the rate of now allows: it may have been higher.
        let most = taken.saturating_add(bytes_in(rate, 2 * QUANTUM));
        if granted.saturating_add(more) >= most {
            *counted = now;
            return self.granted.store(most, Ordering::Relaxed);
        }
        *counted = now.min(*counted + time_of(rate, more));
        self.granted.store(granted + more, Ordering::Relaxed);
    }

    /// Joins the queue with so many bytes; the place in it.
    pub(crate) fn join(&self, bytes: u64) -> u64 {
        self.taken.fetch_add(bytes, Ordering::Relaxed)
    }

    /// Leaves the queue without having written them.
    pub(crate) fn leave(&self, bytes: u64) {
        let _counted = self.counted.lock();
        self.granted.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether it is the turn of this place, as far as was counted.
    pub(crate) fn is_turn(&self, place: u64) -> bool {
        self.granted.load(Ordering::Relaxed) >= place
    }

    /// Whether it would be the turn of whoever joins now; if not, how long it will take.
    pub(crate) fn next_turn(&self, now: Duration) -> Option<Duration> {
        self.turn(now, self.taken.load(Ordering::Relaxed))
    }

    /// How long it will take until it is the turn of this place; `None` if it is.
    pub(crate) fn turn(&self, now: Duration, place: u64) -> Option<Duration> {
        let mut counted = self.counted.lock();
        self.grant(&mut counted, now);
        let rate = self.slowest()?;
        let missing = place.saturating_sub(self.granted.load(Ordering::Relaxed));
        (missing > 0).then(|| time_of(rate, missing))
    }

    /// As [`Pace::turn`], but until a quantum is granted ahead.
    pub(crate) fn turn_and_quantum(&self, now: Duration, place: u64) -> Option<Duration> {
        self.turn(now, place.saturating_add(bytes_in(self.slowest()?, QUANTUM)))
    }
}

fn bytes_in(rate: u64, time: Duration) -> u64 {
    let bytes = u128::from(rate) * time.as_nanos() / 1_000_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn time_of(rate: u64, bytes: u64) -> Duration {
    let nanos = (u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(rate.max(1)));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn pressure_begins_where_something_matters_and_ends_below_the_whole() {
        for (held, want) in
            [(0, 0), (60, 0), (70, 250), (80, 500), (99, 970), (100, 970), (200, 970)]
        {
            assert_eq!(of_memory(held, 100), want, "{held} of 100 bytes");
        }
        assert_eq!(of_memory(u64::MAX, 1), MOST);
        for (runs, want) in [(0, 0), (8, 0), (12, 250), (16, 500), (23, 937), (24, 970), (90, 970)]
        {
            let tree = TreePace::default();
            assert_eq!(tree.pressure(runs, 4), want, "{runs} runs where 4 are due");
            tree.set_merged(runs as u64 * WHOLE);
            assert_eq!(tree.pressure(runs, 4), 0, "all of them are as good as merged");
        }
        for (times, want) in [(0, 0), (2, 0), (4, 250), (6, 500), (10, 970), (50, 970)] {
            let tree = TreePace::default();
            tree.set_overdue(times * WHOLE);
            assert_eq!(tree.pressure(0, 4), want, "{times} times the target");
        }
    }

    #[test]
    fn writers_go_at_the_drain_at_half_the_pressure_and_are_never_stopped() {
        const DRAIN: u64 = 90_000_000;
        for (pressure, want) in [
            (0, None),
            (49, None),
            (50, Some(19 * DRAIN)),
            (250, Some(3 * DRAIN)),
            (500, Some(DRAIN)),
            (750, Some(DRAIN / 3)),
            (900, Some(DRAIN / 9)),
            (970, Some(DRAIN * 30 / 970)),
            (1000, Some(DRAIN * 30 / 970)),
        ] {
            assert_eq!(rate(pressure, Some(DRAIN)), want, "{pressure}");
            assert_eq!(rate(pressure, None), None, "{pressure}, not measured");
        }
        assert_eq!(rate(MOST, Some(0)), Some(RATE_MIN));
        for pressure in FREE_BELOW..MOST {
            let (here, next) = (rate(pressure, Some(DRAIN)), rate(pressure + 1, Some(DRAIN)));
            assert!(next < here && next.map(|next| next * 5 / 4) > here, "a jump at {pressure}");
        }
    }

    #[test]
    fn the_drain_counts_no_rest_and_forgets() {
        let mut drain = Drain::default();
        drain.done(ms(500), 1_000_000);
        drain.begin(ms(1000));
        drain.done(ms(1000), 0);
        assert_eq!(drain.per_second(), None, "no time has passed");
        drain.done(ms(1500), 10_000_000);
        assert_eq!(drain.per_second(), Some(20_000_000));
        drain.rest(ms(1500));
        drain.begin(ms(90_000));
        drain.begin(ms(90_100));
        drain.done(ms(90_500), 10_000_000);
        let rate = drain.per_second().expect("measured");
        assert!((19_900_000..=20_100_000).contains(&rate), "{rate}");
        for second in 0..60 {
            drain.done(ms(91_500 + 1000 * second), 1_000_000);
        }
        let rate = drain.per_second().expect("measured");
        assert!((1_000_000..1_200_000).contains(&rate), "{rate}");
    }

    /// A queue at 1,000 bytes per millisecond.
    fn held(now: Duration) -> Pace {
        let pace = Pace::default();
        pace.set_memory(now, Some(1_000_000));
        pace
    }

    #[test]
    fn turns_come_with_time_in_the_order_of_joining() {
        let pace = held(ms(5));
        let first = pace.join(3000);
        let second = pace.join(4000);
        assert!(pace.is_turn(first) && !pace.is_turn(second));
        assert_eq!(pace.turn(ms(5), second), Some(ms(3)));
        assert_eq!(pace.next_turn(ms(6)), Some(ms(6)));
        assert_eq!(pace.turn(ms(8), second), None);
        assert_eq!(pace.turn_and_quantum(ms(8), second), Some(QUANTUM));
        assert_eq!(pace.turn_and_quantum(ms(8) + QUANTUM, second), None);
        assert!(pace.next_turn(ms(8) + QUANTUM).is_none());
    }

    #[test]
    fn a_new_rate_holds_for_those_who_wait_and_none_lets_all_in() {
        let pace = held(ms(0));
        pace.join(9000);
        let place = pace.join(1);
        pace.set_trees(ms(1), Some(2_000_000));
        assert_eq!(pace.turn(ms(1), place), Some(ms(8)), "the slower of two holds");
        pace.set_memory(ms(1), None);
        assert_eq!(pace.slowest(), Some(2_000_000));
        assert_eq!(pace.turn(ms(1), place), Some(ms(4)));
        pace.set_trees(ms(2), Some(1_000_000));
        assert_eq!(pace.turn(ms(2), place), Some(ms(6)));
        pace.set_trees(ms(2), None);
        assert_eq!((pace.turn(ms(2), place), pace.is_free()), (None, true));
        pace.set_trees(ms(3), Some(1_000_000));
        assert_eq!(pace.next_turn(ms(3)), None, "nothing is left over to pay for");
    }

    #[test]
    fn who_leaves_is_paid_for_by_nobody_and_rest_is_saved_up_for_two_quanta() {
        let pace = held(ms(0));
        let first = pace.join(2000);
        pace.join(50_000);
        pace.leave(50_000);
        assert_eq!(pace.next_turn(ms(0)), Some(ms(2)));
        assert!(pace.is_turn(first));
        assert_eq!(pace.next_turn(ms(60_000)), None);
        let ahead = 2 * 1000 * u64::try_from(QUANTUM.as_millis()).expect("small");
        pace.join(ahead);
        assert_eq!(pace.next_turn(ms(60_000)), None);
        pace.join(1000);
        assert_eq!(pace.next_turn(ms(60_000)), Some(ms(1)));
    }

    /// Level 0 gets a run of 16 MB for each 16 MB written; a merge takes all there are, and as long as its bytes and as
    /// many again of the next level take at 100 MB a second.
    #[test]
    fn a_writer_faster_than_compaction_is_as_fast_as_that_in_every_second() {
        const RUN: u64 = 16_000_000;
        let (pace, tree) = (Pace::default(), TreePace::default());
        let (mut filled, mut runs, mut taken) = (0, 0_usize, 0_u64);
        let (mut spent, mut cost) = (0, 0);
        let (mut seconds, mut most) = (vec![0; 60], 0);
        for at in 0..60_000 {
            let now = ms(at);
            if taken == 0 && runs >= 4 {
                (taken, spent, cost) = (runs as u64, 0, runs as u64 * RUN + 200_000_000);
                pace.compactions.lock().begin(now);
            } else if taken > 0 {
                spent += 100_000;
                tree.set_merged(taken * WHOLE * spent.min(cost) / cost);
                pace.compactions.lock().done(now, taken * RUN * 1000 / (cost / 100));
            }
            if taken > 0 && spent >= cost {
                runs -= usize::try_from(taken).expect("few");
                tree.set_merged(0);
                taken = 0;
                if runs < 4 {
                    pace.compactions.lock().rest(now);
                }
            }
            pace.set_trees(now, rate(tree.pressure(runs, 4), pace.compactions.lock().per_second()));
            // The writer could write 500 MB a second.
            for _ in 0..50 {
                if pace.is_free() || pace.next_turn(now).is_none() {
                    pace.join(10_000);
                    filled += 10_000;
                    seconds[usize::try_from(at / 1000).expect("few")] += 10_000_u64;
                }
            }
            runs += usize::try_from(filled / RUN).expect("few");
            filled %= RUN;
            most = most.max(runs);
        }
        assert!(most <= 10 * 4, "{most} runs");
        let steady = &mut seconds[10..];
        steady.sort_unstable();
        let (least, median) = (steady[0], steady[steady.len() / 2]);
        assert!(least * 10 >= median * 3, "{least} B in a second, {median} in the median one");
        assert!(median > 40_000_000, "upkeep is used: {median} B");
    }
}
