//! Looks at the whole database again and again, slowly, and tells the engine of damage.
//!
//! A pass is manifest and log, then each table and blob file, in the order of their numbers from a random one on: a
//! program that restarts often comes by all of them in time, and nothing has to be remembered. No version is kept
//! between two files, so a slow pass keeps no space.

use std::time::Duration;

use memtide_base::Result;
use memtide_base::sync::{Arc, Weak};
use memtide_env::{Job, Step};

use super::online::Walk;
use super::{Depth, VerifyReport};
use crate::engine::Engine;
use crate::scrubs::ScrubPlan;

/// The job.
pub(crate) struct ScrubJob {
    engine: Weak<Engine>,
    /// When the next pass begins.
    due: Duration,
    pass: Option<Pass>,
}

/// Where a pass is.
struct Pass {
    /// The number behind which it began.
    began: u64,
    /// The file it looked at last.
    last: u64,
    /// Whether it has begun again from the smallest number.
    is_around: bool,
}

impl ScrubJob {
    pub(crate) fn new(engine: &Arc<Engine>) -> Self {
        Self { engine: Arc::downgrade(engine), due: Duration::ZERO, pass: None }
    }

    fn step_in(&mut self, engine: &Arc<Engine>, plan: ScrubPlan) -> Result<Step> {
        let now = engine.env.clock.now();
        let walk = Walk::new(engine, Depth::Full, Some(plan.bytes_per_second));
        let mut report = VerifyReport::default();
        let Some(pass) = &mut self.pass else {
            if now < self.due {
                return Ok(Step::Park(Some(self.due.min(now + plan.every))));
            }
            self.due = now.saturating_add(plan.every);
            let began = numbers(engine).into_iter().max().unwrap_or_default();
            let began = engine.env.random.next_u64() % began.max(1);
            self.pass = Some(Pass { began, last: began, is_around: false });
            walk.manifest(&mut report)?;
            walk.log(&mut report)?;
            return self.told(engine, &walk, &report);
        };
        let numbers = numbers(engine);
        let behind = |last: u64| numbers.iter().copied().filter(|number| *number > last).min();
        let mut next = behind(pass.last);
        if next.is_none() && !pass.is_around {
            (pass.is_around, pass.last) = (true, 0);
            next = behind(0);
        }
        let Some(number) = next.filter(|number| !pass.is_around || *number <= pass.began) else {
            self.pass = None;
            engine.scrubs.end_pass();
            return Ok(Step::Again);
        };
        pass.last = number;
        walk.file(number, &mut report)?;
        self.told(engine, &walk, &report)
    }

    fn told(&self, engine: &Engine, walk: &Walk, report: &VerifyReport) -> Result<Step> {
        walk.tell(report)?;
        engine.scrubs.count(report.bytes);
        Ok(Step::Again)
    }
}

impl Job for ScrubJob {
    fn name(&self) -> &'static str {
        "memtide-scrub"
    }

    fn step(&mut self) -> Step {
        let engine = self.engine.upgrade().filter(|engine| !engine.is_closed());
        let Some(engine) = engine else { return Step::Done };
        let Some(plan) = engine.scrubs.plan() else {
            (self.pass, self.due) = (None, Duration::ZERO);
            return Step::Park(None);
        };
        // The only error is that it was closed.
        self.step_in(&engine, plan).unwrap_or(Step::Done)
    }
}

/// The numbers of all tables and blob files.
fn numbers(engine: &Engine) -> Vec<u64> {
    let mut numbers = Vec::new();
    for keyspace in engine.all_keyspaces() {
        let version = Arc::clone(&keyspace.current().version);
        numbers.extend(version.tables().map(|table| table.number));
        numbers.extend(version.blobs().iter().map(|blob| blob.number));
    }
    numbers
}
