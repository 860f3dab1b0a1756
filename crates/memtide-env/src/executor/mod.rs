//! Background jobs, and the one place where foreground code blocks.
//!
//! A job is a state machine that does a bounded piece of work per step. [`ThreadExecutor`] gives each job
//! a thread; [`StepExecutor`] has none: a test steps the jobs itself, so the same engine is deterministic.
//!
//! Lost wake-ups are impossible by construction: a waiter reads the event's [`Event::count`] *before* it
//! checks its condition and waits only while the count is still that one; a wake-up that finds its job
//! running makes the job run one more step.

mod event;
#[cfg(any(test, feature = "simulation"))]
mod steps;
mod threads;

use std::fmt::Debug;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

pub use event::Event;
#[cfg(any(test, feature = "simulation"))]
pub use steps::StepExecutor;
pub use threads::ThreadExecutor;

/// A piece of background work.
pub trait Job: Send {
    /// A short name for thread names and traces.
    fn name(&self) -> &'static str;

    /// Does a bounded piece of work and says when to be called again.
    ///
    /// A job that panics is done and is dropped; what its owner then does, the job's own state says.
    fn step(&mut self) -> Step;
}

/// What a job wants after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Another step as soon as possible.
    Again,
    /// A step when woken, or at this time of the executor's clock at the latest.
    Park(Option<Duration>),
    /// No further step; the job is dropped.
    Done,
}

/// Names a job inside its executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(u64);

/// Runs jobs.
pub trait Executor: Debug + Send + Sync + 'static {
    /// Takes a job; its first step comes soon.
    ///
    /// # Errors
    /// No thread could be started.
    fn submit(&self, job: Box<dyn Job>) -> io::Result<JobId>;

    /// Gives a parked job a step; nothing if it is done or unknown.
    fn wake(&self, job: JobId);

    /// Waits until the job is done and dropped, waking it first; at once if it is unknown or the caller
    /// is the job itself.
    fn join(&self, job: JobId);

    /// Blocks while `event.count() == seen`, until `limit` has passed at most. May return early: the
    /// caller checks its condition again.
    fn wait(&self, event: &Event, seen: u64, limit: Option<Duration>);

    /// How many jobs step at the same time where all have something to do.
    fn parallelism(&self) -> usize;
}

/// One step of `job`; a panic reads as [`Step::Done`].
fn step_guarded(job: &mut dyn Job) -> Step {
    catch_unwind(AssertUnwindSafe(|| job.step())).unwrap_or(Step::Done)
}

/// Drops `job`, whose destructor may panic as its step may.
fn drop_guarded(job: Box<dyn Job>) {
    // The panic hook has reported it already, and nothing of the job is left to mend.
    let _reported = catch_unwind(AssertUnwindSafe(|| drop(job)));
}

#[cfg(test)]
mod testing {
    //! A job made of a closure.

    use super::{Job, Step};

    pub(super) struct Closure<F>(pub(super) F);

    impl<F: FnMut() -> Step + Send> Job for Closure<F> {
        fn name(&self) -> &'static str {
            "closure"
        }

        fn step(&mut self) -> Step {
            (self.0)()
        }
    }

    pub(super) fn job(step: impl FnMut() -> Step + Send + 'static) -> Box<dyn Job> {
        Box::new(Closure(step))
    }
}
