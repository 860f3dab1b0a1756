//! No threads: whoever holds the executor steps the jobs, so a run depends on nothing but its seed.
//!
//! Jobs take turns, or a seed says whose turn it is ([`StepExecutor::set_order`]).
//!
//! Meant for one thread. A job is taken out of its slot while it steps, so its step may call this executor
//! again. Where foreground code would block, other jobs step; when none can, time jumps to the next
//! deadline; when there is none either, nothing can ever end the wait, and it panics instead of hanging.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Bound;
use std::time::Duration;

use memtide_base::sync::{Arc, Mutex};

use super::{Event, Executor, Job, JobId, Step, drop_guarded, step_guarded};
use crate::clock::{Clock, ManualClock};
use crate::random::SplitMix64;

/// Runs jobs step by step in the calling thread, against a clock that moves only when all jobs wait.
pub struct StepExecutor {
    clock: Arc<ManualClock>,
    state: Mutex<State>,
}

struct State {
    next_id: u64,
    /// The job whose turn was last.
    last: u64,
    /// Where no turns are taken: what draws the next job.
    order: Option<SplitMix64>,
    slots: BTreeMap<u64, Slot>,
}

struct Slot {
    /// None while the job is being stepped.
    job: Option<Box<dyn Job>>,
    /// What the last step asked for; [`Step::Again`] before the first.
    wish: Step,
    /// Somebody asked for a step that has not begun yet.
    woken: bool,
}

impl Slot {
    fn is_runnable(&self, now: Duration) -> bool {
        let due = match self.wish {
            Step::Again => true,
            Step::Park(deadline) => deadline.is_some_and(|deadline| deadline <= now),
            Step::Done => false,
        };
        self.job.is_some() && (self.woken || due)
    }

    fn deadline(&self) -> Option<Duration> {
        match self.wish {
            Step::Park(deadline) if self.job.is_some() => deadline,
            _ => None,
        }
    }
}

impl StepExecutor {
    /// An executor without jobs.
    #[must_use]
    pub fn new(clock: Arc<ManualClock>) -> Self {
        // The turn after that of the last possible job is the first one's.
        let state = State { next_id: 0, last: u64::MAX, order: None, slots: BTreeMap::new() };
        Self { clock, state: Mutex::new(state) }
    }

    /// From now on a seed draws which runnable job steps next, wherever no caller picks it; with none they take turns.
    pub fn set_order(&self, seed: Option<u64>) {
        self.state.lock().order = seed.map(SplitMix64::new);
    }

    /// Steps the jobs in turn until each is parked and no deadline is due. Time stands still.
    pub fn run_until_idle(&self) {
        while self.step_next() {}
    }

    /// Steps one of the runnable jobs, the one that `pick` falls on; false if there is none.
    pub fn step_one(&self, pick: u64) -> bool {
        let now = self.clock.now();
        let state = self.state.lock();
        let ready = |(&id, slot): (&u64, &Slot)| slot.is_runnable(now).then_some(id);
        let runnable: Vec<u64> = state.slots.iter().filter_map(ready).collect();
        drop(state);
        let count = u64::try_from(runnable.len()).unwrap_or(u64::MAX);
        let chosen = pick.checked_rem(count).and_then(|at| usize::try_from(at).ok());
        chosen.is_some_and(|at| self.step_job(runnable[at]))
    }

    /// Moves the clock to the earliest deadline of a parked job; false if there is none.
    pub fn advance_to_next_deadline(&self) -> bool {
        let earliest = self.earliest_deadline();
        if let Some(deadline) = earliest {
            self.clock.advance_to(deadline);
        }
        earliest.is_some()
    }

    fn earliest_deadline(&self) -> Option<Duration> {
        self.state.lock().slots.values().filter_map(Slot::deadline).min()
    }

    /// Steps the next runnable job after the one whose turn was last; false if there is none.
    fn step_next(&self) -> bool {
        let now = self.clock.now();
        let mut state = self.state.lock();
        if let Some(order) = &mut state.order {
            let pick = order.next_u64();
            drop(state);
            return self.step_one(pick);
        }
        let after = state.slots.range((Bound::Excluded(state.last), Bound::Unbounded));
        let upto = state.slots.range(..=state.last);
        let next = after.chain(upto).find(|(_, slot)| slot.is_runnable(now)).map(|(&id, _)| id);
        drop(state);
        next.is_some_and(|id| self.step_job(id))
    }

    /// Steps job `id`; false if it is unknown or already being stepped.
    fn step_job(&self, id: u64) -> bool {
        let mut state = self.state.lock();
        state.last = id;
        let Some(slot) = state.slots.get_mut(&id) else {
            return false;
        };
        let Some(mut job) = slot.job.take() else {
            return false;
        };
        slot.woken = false;
        drop(state);
        let wish = step_guarded(job.as_mut());
        if wish == Step::Done {
            // Dropped without the lock held: its destructor may call this executor too.
            drop_guarded(job);
            self.state.lock().slots.remove(&id);
        } else if let Some(slot) = self.state.lock().slots.get_mut(&id) {
            slot.wish = wish;
            slot.job = Some(job);
        }
        true
    }

    /// Lets time or the other jobs go on; panics if neither can.
    fn go_on(&self, limit: Option<Duration>, waiting_for: &str) {
        if self.step_next() {
            return;
        }
        let end = limit.map(|limit| self.clock.now().saturating_add(limit));
        let moment = [self.earliest_deadline(), end].into_iter().flatten().min();
        match moment {
            Some(moment) => self.clock.advance_to(moment),
            None => {
                panic!("deadlock: waiting for {waiting_for} while no job can ever step: {self:?}")
            }
        }
    }
}

impl Executor for StepExecutor {
    fn submit(&self, job: Box<dyn Job>) -> io::Result<JobId> {
        let mut state = self.state.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.slots.insert(id, Slot { job: Some(job), wish: Step::Again, woken: false });
        Ok(JobId(id))
    }

    fn wake(&self, job: JobId) {
        if let Some(slot) = self.state.lock().slots.get_mut(&job.0) {
            slot.woken = true;
        }
    }

    fn join(&self, job: JobId) {
        self.wake(job);
        loop {
            let now = self.clock.now();
            let runnable = match self.state.lock().slots.get(&job.0) {
                Some(slot) if slot.job.is_some() => slot.is_runnable(now),
                // Done, or being stepped further up this very stack.
                _ => return,
            };
            if !(runnable && self.step_job(job.0)) {
                self.go_on(None, "a job to be done");
            }
        }
    }

    fn wait(&self, event: &Event, seen: u64, limit: Option<Duration>) {
        if event.count() == seen {
            self.go_on(limit, "an event");
        }
    }

    fn parallelism(&self) -> usize {
        1
    }
}

impl fmt::Debug for StepExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        let describe = |(id, slot): (&u64, &Slot)| {
            let name = slot.job.as_ref().map_or("(in its step)", |job| job.name());
            (*id, (name, slot.wish, slot.woken))
        };
        let jobs: BTreeMap<u64, _> = state.slots.iter().map(describe).collect();
        f.debug_struct("StepExecutor").field("clock", &self.clock).field("jobs", &jobs).finish()
    }
}

#[cfg(test)]
mod tests {
    use memtide_base::sync::OnceLock;
    use memtide_base::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::super::testing::job;
    use super::*;

    fn executor() -> Arc<StepExecutor> {
        Arc::new(StepExecutor::new(Arc::new(ManualClock::new())))
    }

    fn counter() -> Arc<AtomicU64> {
        Arc::new(AtomicU64::new(0))
    }

    #[test]
    fn a_job_that_wakes_itself_in_its_step_steps_once_more() {
        let executor = executor();
        let (own, steps) = (Arc::new(OnceLock::new()), counter());
        let id = executor.submit(job({
            let (executor, own, steps) = (executor.clone(), own.clone(), steps.clone());
            move || {
                if steps.fetch_add(1, Ordering::Relaxed) == 0 {
                    executor.wake(*own.get().unwrap());
                }
                Step::Park(None)
            }
        }));
        own.set(id.unwrap()).unwrap();
        executor.run_until_idle();
        assert_eq!(steps.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn jobs_take_turns_and_a_job_may_submit_another() {
        let executor = executor();
        let trace = Arc::new(Mutex::new(Vec::new()));
        let talker = |name: &'static str, trace: Arc<Mutex<Vec<&'static str>>>| {
            let mut left = 2;
            job(move || {
                trace.lock().push(name);
                left -= 1;
                if left == 0 { Step::Done } else { Step::Again }
            })
        };
        executor.submit(talker("a", trace.clone())).unwrap();
        executor.submit(talker("b", trace.clone())).unwrap();
        let spawner = executor.clone();
        let log = trace.clone();
        let parent = job(move || {
            spawner.submit(talker("c", log.clone())).unwrap();
            Step::Done
        });
        executor.submit(parent).unwrap();
        executor.run_until_idle();
        assert_eq!(*trace.lock(), ["a", "b", "c", "a", "b", "c"]);
    }

    #[test]
    fn the_pick_chooses_among_the_runnable_jobs() {
        let executor = executor();
        let hits = [counter(), counter()];
        for hit in &hits {
            let hit = hit.clone();
            let count = job(move || {
                hit.fetch_add(1, Ordering::Relaxed);
                Step::Park(None)
            });
            executor.submit(count).unwrap();
        }
        assert!(executor.step_one(7));
        assert_eq!(hits.each_ref().map(|hit| hit.load(Ordering::Relaxed)), [0, 1]);
        assert!(executor.step_one(7));
        assert_eq!(hits.each_ref().map(|hit| hit.load(Ordering::Relaxed)), [1, 1]);
        assert!(!executor.step_one(7), "both are parked");
    }

    #[test]
    fn time_moves_to_the_next_deadline_and_no_further() {
        let executor = executor();
        let steps = counter();
        let (clock, counted) = (executor.clock.clone(), steps.clone());
        let ticker = job(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Step::Park(Some(clock.now() + Duration::from_secs(3)))
        });
        executor.submit(ticker).unwrap();
        executor.run_until_idle();
        assert_eq!((steps.load(Ordering::Relaxed), executor.clock.now()), (1, Duration::ZERO));
        assert!(executor.advance_to_next_deadline());
        assert_eq!(executor.clock.now(), Duration::from_secs(3));
        executor.run_until_idle();
        assert_eq!(steps.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_wait_steps_jobs_then_moves_time_and_never_past_its_limit() {
        let executor = executor();
        let event = Arc::new(Event::new());
        let (notifier, clock) = (event.clone(), executor.clock.clone());
        let late = job(move || {
            if clock.now() < Duration::from_secs(10) {
                return Step::Park(Some(Duration::from_secs(10)));
            }
            notifier.notify();
            Step::Done
        });
        executor.submit(late).unwrap();
        let limit = Some(Duration::from_secs(4));
        executor.wait(&event, 0, limit);
        assert_eq!(executor.clock.now(), Duration::ZERO, "the job had its step first");
        executor.wait(&event, 0, limit);
        assert_eq!(executor.clock.now(), Duration::from_secs(4));
        while event.count() == 0 {
            executor.wait(&event, 0, None);
        }
        assert_eq!(executor.clock.now(), Duration::from_secs(10));
    }

    #[test]
    fn join_lets_others_step_while_its_job_waits_for_them() {
        let executor = executor();
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (seen, finished) = (stop.clone(), done.clone());
        let clock = executor.clock.clone();
        let waits = job(move || {
            if !seen.load(Ordering::Relaxed) {
                return Step::Park(Some(clock.now() + Duration::from_secs(1)));
            }
            finished.store(true, Ordering::Relaxed);
            Step::Done
        });
        let id = executor.submit(waits).unwrap();
        let helps = job(move || {
            stop.store(true, Ordering::Relaxed);
            Step::Done
        });
        executor.submit(helps).unwrap();
        executor.join(id);
        assert!(done.load(Ordering::Relaxed));
        executor.join(id);
    }

    #[test]
    fn a_panicking_job_is_done() {
        let executor = executor();
        let id = executor.submit(job(|| panic!("on purpose"))).unwrap();
        executor.join(id);
        assert!(executor.state.lock().slots.is_empty());
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn a_wait_that_nothing_can_end_panics() {
        let executor = executor();
        executor.submit(job(|| Step::Park(None))).unwrap();
        executor.run_until_idle();
        executor.wait(&Event::new(), 0, None);
    }
}
