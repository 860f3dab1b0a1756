//! One thread per job.
//!
//! Each job has a slot with its own lock; the table of slots is locked only to find one. The thread removes
//! its slot when the job is done and dropped. Dropping the executor stops nothing: whoever submitted a job
//! tells it to finish and joins it.

use std::io;
use std::num::NonZero;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use memtide_base::sync::atomic::{AtomicU64, Ordering};
use memtide_base::sync::{Arc, Condvar, Mutex};

use super::{Event, Executor, Job, JobId, Step, drop_guarded, step_guarded};
use crate::clock::{Clock, SystemClock};

/// Runs every job on a thread of its own.
#[derive(Debug)]
pub struct ThreadExecutor {
    clock: Arc<SystemClock>,
    next_id: AtomicU64,
    slots: Arc<Mutex<Slots>>,
}

/// By id; a database has a handful of jobs.
type Slots = Vec<(u64, Arc<Slot>)>;

/// What the outside knows of a running job.
#[derive(Debug, Default)]
struct Slot {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Somebody asked for a step that has not begun yet.
    woken: bool,
    /// The job has ended and is dropped.
    done: bool,
    /// The thread, until a joiner takes it.
    thread: Option<JoinHandle<()>>,
}

impl ThreadExecutor {
    /// An executor without jobs; [`Step::Park`] counts by `clock`.
    #[must_use]
    pub fn new(clock: Arc<SystemClock>) -> Self {
        Self { clock, next_id: AtomicU64::new(0), slots: Arc::default() }
    }

    fn slot(&self, job: JobId) -> Option<Arc<Slot>> {
        let slots = self.slots.lock();
        slots.iter().find(|(id, _)| *id == job.0).map(|(_, slot)| Arc::clone(slot))
    }
}

impl Executor for ThreadExecutor {
    fn submit(&self, job: Box<dyn Job>) -> io::Result<JobId> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let slot = Arc::new(Slot::default());
        self.slots.lock().push((id, Arc::clone(&slot)));
        let builder = thread::Builder::new().name(job.name().into());
        let spawned = builder.spawn({
            let (slot, slots) = (Arc::clone(&slot), Arc::clone(&self.slots));
            let clock = Arc::clone(&self.clock);
            move || {
                slot.run(job, &clock);
                slots.lock().retain(|(known, _)| *known != id);
            }
        });
        match spawned {
            Ok(thread) => slot.state.lock().thread = Some(thread),
            Err(error) => {
                self.slots.lock().retain(|(known, _)| *known != id);
                return Err(error);
            }
        }
        Ok(JobId(id))
    }

    fn wake(&self, job: JobId) {
        if let Some(slot) = self.slot(job) {
            slot.wake();
        }
    }

    fn join(&self, job: JobId) {
        if let Some(slot) = self.slot(job) {
            slot.join();
        }
    }

    fn wait(&self, event: &Event, seen: u64, limit: Option<Duration>) {
        event.block(seen, limit);
    }

    fn parallelism(&self) -> usize {
        thread::available_parallelism().map_or(1, NonZero::get)
    }
}

impl Slot {
    /// The life of the job's thread.
    fn run(&self, mut job: Box<dyn Job>, clock: &SystemClock) {
        loop {
            // A wake-up from before this line is answered by the step that follows; one from after it
            // keeps the job from parking.
            self.state.lock().woken = false;
            match step_guarded(job.as_mut()) {
                Step::Again => {}
                Step::Park(deadline) => self.park(deadline, clock),
                Step::Done => break,
            }
        }
        drop_guarded(job);
        self.state.lock().done = true;
        self.changed.notify_all();
    }

    fn park(&self, deadline: Option<Duration>, clock: &SystemClock) {
        let mut state = self.state.lock();
        while !state.woken {
            let Some(deadline) = deadline else {
                state = self.changed.wait(state);
                continue;
            };
            let left = deadline.saturating_sub(clock.now());
            if left.is_zero() {
                break;
            }
            state = self.changed.wait_timeout(state, left);
        }
    }

    fn wake(&self) {
        self.state.lock().woken = true;
        self.changed.notify_all();
    }

    fn join(&self) {
        let mut state = self.state.lock();
        let own = state.thread.as_ref().map(|thread| thread.thread().id());
        if own == Some(thread::current().id()) {
            return;
        }
        state.woken = true;
        self.changed.notify_all();
        while !state.done {
            state = self.changed.wait(state);
        }
        let thread = state.thread.take();
        drop(state);
        if let Some(thread) = thread {
            thread.join().expect("a job's thread catches the panics of its job");
        }
    }
}

#[cfg(test)]
mod tests {
    use memtide_base::sync::OnceLock;
    use memtide_base::sync::atomic::AtomicBool;

    use super::super::testing::job;
    use super::*;

    fn executor() -> ThreadExecutor {
        ThreadExecutor::new(Arc::new(SystemClock::new()))
    }

    /// Waits until `condition` holds, which `event` announces.
    fn until(executor: &ThreadExecutor, event: &Event, condition: impl Fn() -> bool) {
        loop {
            let seen = event.count();
            if condition() {
                return;
            }
            executor.wait(event, seen, None);
        }
    }

    #[test]
    fn a_wake_up_during_a_step_is_one_more_step() {
        let executor = executor();
        let (entered, release) = (Arc::new(Event::new()), Arc::new(Event::new()));
        let steps = Arc::new(AtomicU64::new(0));
        let id = executor.submit(job({
            let (entered, release, steps) = (entered.clone(), release.clone(), steps.clone());
            move || {
                steps.fetch_add(1, Ordering::SeqCst);
                entered.notify();
                release.block(0, None);
                Step::Park(None)
            }
        }));
        let id = id.unwrap();
        until(&executor, &entered, || steps.load(Ordering::SeqCst) == 1);
        executor.wake(id);
        release.notify();
        until(&executor, &entered, || steps.load(Ordering::SeqCst) == 2);
    }

    #[test]
    fn join_wakes_a_parked_job_and_returns_when_it_is_dropped() {
        struct Announce(Arc<AtomicBool>);
        impl Drop for Announce {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let executor = executor();
        let (stop, dropped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let held = Announce(dropped.clone());
        let id = executor.submit(job({
            let stop = stop.clone();
            move || {
                let _held = &held;
                if stop.load(Ordering::SeqCst) { Step::Done } else { Step::Park(None) }
            }
        }));
        let id = id.unwrap();
        stop.store(true, Ordering::SeqCst);
        executor.join(id);
        assert!(dropped.load(Ordering::SeqCst));
        executor.join(id);
        executor.wake(id);
    }

    #[test]
    fn a_job_that_joins_itself_goes_on() {
        let executor = Arc::new(executor());
        let (known, own) = (Arc::new(Event::new()), Arc::new(OnceLock::new()));
        let id = executor.submit(job({
            let (executor, known, own) = (executor.clone(), known.clone(), own.clone());
            move || {
                known.block(0, None);
                executor.join(*own.get().unwrap());
                Step::Done
            }
        }));
        own.set(id.unwrap()).unwrap();
        known.notify();
        executor.join(*own.get().unwrap());
        assert!(executor.slot(*own.get().unwrap()).is_none());
    }

    #[test]
    fn a_panicking_job_is_done_and_its_neighbour_runs_on() {
        let executor = executor();
        let bad = executor.submit(job(|| panic!("on purpose"))).unwrap();
        let steps = Arc::new(AtomicU64::new(0));
        let counted = steps.clone();
        let good = executor.submit(job(move || match counted.fetch_add(1, Ordering::SeqCst) {
            0..10 => Step::Again,
            _ => Step::Done,
        }));
        executor.join(bad);
        executor.join(good.unwrap());
        assert_eq!(steps.load(Ordering::SeqCst), 11);
    }

    #[test]
    fn a_parked_job_steps_at_its_deadline() {
        let executor = executor();
        let (clock, times) = (executor.clock.clone(), Arc::new(Mutex::new(Vec::new())));
        let finished = Arc::new(Event::new());
        let submitted = executor.submit(job({
            let (clock, times, finished) = (clock.clone(), times.clone(), finished.clone());
            move || {
                let mut times = times.lock();
                times.push(clock.now());
                if times.len() == 2 {
                    finished.notify();
                    return Step::Done;
                }
                Step::Park(Some(times[0] + Duration::from_millis(5)))
            }
        }));
        submitted.unwrap();
        until(&executor, &finished, || times.lock().len() == 2);
        let times = times.lock();
        assert!(times[1] >= times[0] + Duration::from_millis(5));
    }
}
