//! Background jobs: flush, merge in memory, compaction, the sync of the log at intervals, and the one in `resume.rs`.
//! Each is a state machine that an executor steps; none keeps the database alive. One that panics ends, and with it the
//! writes: whoever waits for its work would wait for ever.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use memtide_base::sync::atomic::Ordering;
use memtide_base::sync::{Arc, Weak};
use memtide_base::{Error, ErrorKind, Result};
use memtide_env::{Job, Step};

use crate::compaction;
use crate::config::Durability;
use crate::engine::{Engine, Jobs};
use crate::flush;
use crate::integrity::ScrubJob;
use crate::keyspace_state::KeyspaceState;
use crate::resume::MendJob;
use crate::sealed_merge::{self, Merge, SEALED_AT_REST, SEALED_BUSY};
use crate::sealed_run::SealedRun;
use crate::write;

/// Time before a failed flush or compaction is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Time before everything is flushed again where nothing fits.
const ALL_RETRY: Duration = Duration::from_secs(4);
/// Time between looks at the log when nothing asks for a sync: marks are written then.
const MARK_INTERVAL: Duration = Duration::from_secs(1);

/// Time without a newly sealed memtable after which few of them are merged as well.
const REST: Duration = Duration::from_millis(50);

/// Starts the jobs of a database that was opened for writing.
pub(crate) fn start(engine: &Arc<Engine>) -> Result<()> {
    let weak = || Arc::downgrade(engine);
    let submit = |job: Box<dyn Job>| {
        let name = job.name();
        engine
            .env
            .executor
            .submit(Box::new(Watched { job, engine: weak() }))
            .map_err(|error| Error::io("start a thread for", name, error))
    };
    let flush = submit(Box::new(FlushJob::new(weak())))?;
    engine.jobs.lock().flush = Some(flush);
    let merge = submit(Box::new(MergeJob { engine: weak(), rest: Duration::ZERO, last: 0 }))?;
    engine.jobs.lock().merge = Some(merge);
    if engine.settings.enable_background_compaction {
        let compaction =
            submit(Box::new(CompactionJob { engine: weak(), last: 0, resting: BTreeMap::new() }))?;
        engine.jobs.lock().compaction = Some(compaction);
    }
    let sync = submit(Box::new(SyncJob(weak())))?;
    engine.jobs.lock().sync = Some(sync);
    let mend = submit(Box::new(MendJob::new(engine)))?;
    engine.jobs.lock().mend = Some(mend);
    Ok(())
}

/// Has the scrub job, started if need be, follow the engine's plan.
pub(crate) fn scrub(engine: &Arc<Engine>) -> Result<()> {
    let mut jobs = engine.jobs.lock();
    // Under the lock: closing takes the jobs once it is marked as closed.
    engine.check_open()?;
    match jobs.scrub {
        Some(job) => engine.env.executor.wake(job),
        None => {
            let job =
                Watched { job: Box::new(ScrubJob::new(engine)), engine: Arc::downgrade(engine) };
            let name = job.name();
            let started = engine.env.executor.submit(Box::new(job));
            let started = started.map_err(|error| Error::io("start a thread for", name, error))?;
            jobs.scrub = Some(started);
        }
    }
    Ok(())
}

/// Waits until all jobs have ended; the engine must be marked as closed.
pub(crate) fn stop(engine: &Engine) {
    let Jobs { flush, merge, compaction, sync, mend, scrub } =
        std::mem::take(&mut *engine.jobs.lock());
    for job in [flush, merge, compaction, sync, mend, scrub].into_iter().flatten() {
        engine.env.executor.join(job);
    }
}

/// The engine, unless it is closed or gone.
fn alive(engine: &Weak<Engine>) -> Option<Arc<Engine>> {
    engine.upgrade().filter(|engine| !engine.is_closed())
}

fn park(engine: &Engine, time: Duration) -> Step {
    Step::Park(Some(engine.env.clock.now() + time))
}

/// A job whose panic stops the writes.
struct Watched {
    job: Box<dyn Job>,
    engine: Weak<Engine>,
}

impl Job for Watched {
    fn name(&self) -> &'static str {
        self.job.name()
    }

    fn step(&mut self) -> Step {
        // Nothing of the job is used again, and what it changed for others it changed as a whole, under locks.
        let stepped = catch_unwind(AssertUnwindSafe(|| self.job.step()));
        stepped.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
            if let Some(engine) = self.engine.upgrade() {
                let what = format!("the background job {} panicked: {text}", self.job.name());
                engine.fail(&Error::internal(what).with_hint("open the database again"));
                engine.durable.wake();
            }
            Step::Done
        })
    }
}

/// Flushes keyspaces that are due, and those that hold old log. Where memory is short, every second flush is of a
/// keyspace at rest.
struct FlushJob {
    engine: Weak<Engine>,
    /// Whether the last one was.
    sealed_at_rest: bool,
    /// After a failure nothing is tried before, whoever wakes this job: the merge job does so at once where it cannot
    /// help, and both would go round in circles.
    retry_at: Duration,
    /// The keyspace that was flushed last: those behind it come first, so that none waits for ever.
    last: u32,
    /// When everything may be tried next although there is no space.
    all_from: Duration,
}

impl Job for FlushJob {
    fn name(&self) -> &'static str {
        "memtide-flush"
    }

    fn step(&mut self) -> Step {
        let Some(engine) = alive(&self.engine) else { return Step::Done };
        engine.bury();
        // Who mends what is broken takes the failure back, and need not wait.
        let failed = engine.flush_failure.lock().is_some();
        if failed && engine.env.clock.now() < self.retry_at {
            return Step::Park(Some(self.retry_at));
        }
        if !engine.flush_work.swap(false, Ordering::AcqRel) {
            return Step::Park(None);
        }
        let seal_at_rest = || write::seal_at_rest_if_pressed(&engine);
        let at_rest = if self.sealed_at_rest { None } else { seal_at_rest() };
        self.sealed_at_rest = at_rest.is_some();
        let Some(keyspace) = at_rest.or_else(|| due(&engine, self.last)).or_else(seal_at_rest)
        else {
            engine.pace.flushes.lock().rest(engine.env.clock.now());
            // What this job failed to flush, somebody else has.
            *engine.flush_failure.lock() = None;
            return Step::Park(None);
        };
        self.last = keyspace.id;
        engine.pace.flushes.lock().begin(engine.env.clock.now());
        // There may be more to do than this one.
        engine.flush_work.store(true, Ordering::Release);
        if engine.health.is_full() {
            return self.make_space(&engine, &keyspace);
        }
        // Whoever waits from now on waits for this attempt, not for the one that failed before.
        *engine.flush_failure.lock() = None;
        match flush::flush_beside_writers(&engine, &keyspace) {
            Ok(bytes) => {
                engine.pace.flushes.lock().done(engine.env.clock.now(), bytes);
                Step::Again
            }
            Err(error) => self.failed(&engine, &keyspace, error.to_string()),
        }
    }
}

impl FlushJob {
    fn new(engine: Weak<Engine>) -> Self {
        let (retry_at, all_from) = (Duration::ZERO, Duration::ZERO);
        Self { engine, sealed_at_rest: false, retry_at, last: 0, all_from }
    }

    /// Flushes what fits, while there is no space: the log that is not needed then gives back more than a table takes.
    /// Where nothing fits all is tried now and then, as deletes may leave little of it.
    fn make_space(&mut self, engine: &Engine, keyspace: &Arc<KeyspaceState>) -> Step {
        let (now, free) = (engine.env.clock.now(), engine.free_space().unwrap_or(u64::MAX));
        let oldest = oldest_within(&keyspace.current().sealed, free / 4 * 3);
        let flushed = if oldest > 0 {
            flush::flush_at_most(engine, keyspace, oldest).map(drop)
        } else if now >= self.all_from {
            self.all_from = now + ALL_RETRY;
            flush::flush_all(engine)
        } else {
            Err(Error::new(ErrorKind::NoSpace, format!("there is no space: {free} B are free")))
        };
        match flushed {
            Ok(()) => {
                *engine.flush_failure.lock() = None;
                Step::Again
            }
            Err(error) => self.failed(engine, keyspace, error.to_string()),
        }
    }

    /// Says why a flush was not done, and when it is tried again.
    fn failed(&mut self, engine: &Engine, keyspace: &KeyspaceState, why: String) -> Step {
        engine.pace.flushes.lock().rest(engine.env.clock.now());
        *engine.flush_failure.lock() = Some(why);
        keyspace.want_flush();
        engine.freed.notify();
        // Whoever mends what is broken wakes the job.
        if engine.health.check_running().is_err() {
            return Step::Park(None);
        }
        self.retry_at = engine.env.clock.now() + RETRY;
        Step::Park(Some(self.retry_at))
    }
}

/// How many of the oldest of these, given newest first, have so many bytes at most.
fn oldest_within(sealed: &[SealedRun], mut room: u64) -> usize {
    let fits = |run: &&SealedRun| {
        let used = run.tables().map(|table| table.usage().used).sum();
        let left = room.checked_sub(used);
        room = left.unwrap_or_default();
        left.is_some()
    };
    sealed.iter().rev().take_while(fits).count()
}

/// The keyspace to flush next, after the one with the id `last`.
fn due(engine: &Engine, last: u32) -> Option<Arc<KeyspaceState>> {
    let keyspaces = from_behind(engine, last);
    let wanted = keyspaces
        .iter()
        .find(|keyspace| keyspace.is_flush_wanted() || write::flush_is_due(engine, keyspace));
    if let Some(keyspace) = wanted {
        return Some(Arc::clone(keyspace));
    }
    if let Some(largest) = write::largest_if_pressed(engine) {
        return Some(largest);
    }
    let commit = engine.commit.lock();
    if commit.as_ref().is_none_or(|log| log.older_bytes() <= engine.settings.wal_size) {
        return None;
    }
    // The keyspace whose oldest write keeps the most log.
    let logged = keyspaces.iter().filter(|keyspace| keyspace.is_logged());
    let oldest = logged.filter_map(|k| Some((k.first_seq()?, k))).min_by_key(|(seq, _)| *seq)?.1;
    if !oldest.current().active.is_empty() {
        // Where there is no place for it, what is sealed goes first and this is looked at again.
        let _rotated = write::rotate(engine, oldest, None);
    }
    Some(Arc::clone(oldest))
}

/// All keyspaces, beginning behind the one with the id `last`.
fn from_behind(engine: &Engine, last: u32) -> Vec<Arc<KeyspaceState>> {
    let mut keyspaces = engine.all_keyspaces();
    let behind = keyspaces.partition_point(|keyspace| keyspace.id <= last);
    keyspaces.rotate_left(behind);
    keyspaces
}

/// Merges sealed memtables in memory: many at once while memtables fill quickly, few when they do not.
struct MergeJob {
    engine: Weak<Engine>,
    /// When the keyspaces count as at rest, unless another memtable is sealed before.
    rest: Duration,
    /// The keyspace that was merged last: those behind it come first, so that none waits for ever.
    last: u32,
}

impl Job for MergeJob {
    fn name(&self) -> &'static str {
        "memtide-merge"
    }

    fn step(&mut self) -> Step {
        let Some(engine) = alive(&self.engine) else { return Step::Done };
        let now = engine.env.clock.now();
        if engine.merge_work.swap(false, Ordering::AcqRel) {
            self.rest = now + REST;
        }
        let most = if now < self.rest { SEALED_BUSY } else { SEALED_AT_REST };
        for keyspace in from_behind(&engine, self.last) {
            let room = sealed_merge::room_beside_writers(&engine, &keyspace);
            match sealed_merge::merge(&engine, &keyspace, most, room) {
                Ok(Merge::Done) => {
                    self.last = keyspace.id;
                    write::refresh_memory(&engine);
                    engine.freed.notify();
                    engine.budget.give_back();
                    return Step::Again;
                }
                Ok(Merge::Nothing) => {}
                Ok(Merge::Impossible) | Err(_) => {
                    keyspace.unmergeable.store(true, Ordering::Release);
                    keyspace.want_flush();
                    engine.wake_flush();
                    // Who waits must see whether it waits for a flush that fails.
                    engine.freed.notify();
                }
            }
        }
        Step::Park((now < self.rest).then_some(self.rest))
    }
}

/// Merges where the shape of a tree asks for it.
struct CompactionJob {
    engine: Weak<Engine>,
    /// The keyspace that was compacted last: those behind it come first, so that none waits for ever.
    last: u32,
    /// Until when keyspaces whose compaction failed are left alone.
    resting: BTreeMap<u32, Duration>,
}

impl Job for CompactionJob {
    fn name(&self) -> &'static str {
        "memtide-compact"
    }

    fn step(&mut self) -> Step {
        let Some(engine) = alive(&self.engine) else { return Step::Done };
        // Whoever ends a pause, or mends what is broken, wakes the job.
        if engine.health.check_running().is_err() || engine.hold.is_paused() {
            engine.pace.compactions.lock().rest(engine.env.clock.now());
            return Step::Park(None);
        }
        let now = engine.env.clock.now();
        engine.pace.compactions.lock().begin(now);
        self.resting.retain(|_, until| *until > now);
        for keyspace in from_behind(&engine, self.last) {
            if self.resting.contains_key(&keyspace.id) {
                continue;
            }
            match compaction::step(&engine, &keyspace) {
                Ok(true) => {
                    self.last = keyspace.id;
                    return Step::Again;
                }
                Ok(false) => {}
                // Paused meanwhile: time that passes from now on is no work.
                Err(error) if error.kind() == ErrorKind::Busy => {
                    engine.pace.compactions.lock().rest(engine.env.clock.now());
                    return Step::Again;
                }
                // The others are compacted all the same.
                Err(error) => {
                    *engine.compaction_failure.lock() = Some(error.to_string());
                    self.resting.insert(keyspace.id, now + RETRY);
                }
            }
        }
        engine.pace.compactions.lock().rest(engine.env.clock.now());
        if self.resting.is_empty() {
            *engine.compaction_failure.lock() = None;
        }
        let retry = self.resting.values().min().copied();
        let check = now + engine.settings.compaction_check_interval;
        Step::Park(Some(retry.map_or(check, |retry| retry.min(check))))
    }
}

/// Syncs the log at intervals or when somebody is to be told, goes on in the next segment when no writer does, and
/// marks what is synced when writes pause.
struct SyncJob(Weak<Engine>);

impl Job for SyncJob {
    fn name(&self) -> &'static str {
        "memtide-sync"
    }

    fn step(&mut self) -> Step {
        let Some(engine) = alive(&self.0) else { return Step::Done };
        let next = sync(&engine);
        // Here, as nothing is locked: also those who wait in vain are told so.
        engine.durable.wake();
        next
    }
}

fn sync(engine: &Engine) -> Step {
    if write::check_syncs(engine).and_then(|()| engine.check_claim()).is_err() {
        return Step::Park(None);
    }
    let (interval, syncs) = match engine.settings.durability {
        Durability::Interval(every) => (every, !cfg!(plant = "interval_forgotten")),
        _ => (MARK_INTERVAL, false),
    };
    let (position, sealed) =
        engine.commit.lock().as_ref().map_or((0, false), |log| (log.position(), log.sealed));
    // A writer that does not wait for the next segment leaves it to this job. Where that failed, it is not tried in a
    // circle: for want of space once in an interval, else by whoever mends what is broken.
    if sealed && engine.health.check_running().is_ok() {
        let _told = write::follow(engine);
    }
    if (syncs || engine.durable.is_awaited()) && write::sync_to(engine, position).is_err() {
        return Step::Park(None);
    }
    let durable = engine.durable_seq();
    let marked = engine.commit.lock().as_mut().map_or(Ok(()), |log| {
        log.mark(if cfg!(plant = "mark_claims_too_much") { log.position() } else { durable })
    });
    if let Err(error) = marked {
        engine.fail(&error);
    }
    park(engine, interval)
}

#[cfg(test)]
mod tests {
    use memtide_env::Simulation;

    use super::*;
    use crate::{Config, Db, Keyspace};

    /// Writes until so many memtables of the keyspace are sealed.
    fn seal(keyspace: &Keyspace, sealed: usize) {
        let mut at = 0_u32;
        while keyspace.state().current().sealed.len() < sealed {
            let key = at.wrapping_mul(0x9E37_79B1).to_be_bytes();
            keyspace.put(key, [1; 100]).expect("there is room");
            at += 1;
        }
    }

    /// Two tables in level 0 are due to be merged, by a job that the test steps.
    fn open_soon_due(sim: &Simulation) -> Db {
        let mut config = Config {
            durability: Some(Durability::Buffered),
            enable_background_compaction: Some(false),
            ..Config::default()
        };
        config.tree.level0_runs = Some(2);
        Db::builder("/db").config(config).env(sim.env.clone()).open().expect("opens")
    }

    #[test]
    fn a_keyspace_that_always_needs_a_compaction_keeps_no_other_from_one() {
        let sim = Simulation::new(1);
        let db = open_soon_due(&sim);
        let second = db.keyspace("second").expect("made");
        let engine = Arc::downgrade(db.handle.engine());
        let mut job = CompactionJob { engine, last: 0, resting: BTreeMap::new() };
        let flush = |keyspace: &Keyspace| {
            keyspace.put("key", "value").expect("there is room");
            db.flush().expect("written");
        };
        (0..2).for_each(|_| flush(&second));
        for _ in 0..2 {
            (0..2).for_each(|_| flush(&db.default_keyspace()));
            assert_eq!(job.step(), Step::Again);
        }
        assert_eq!(second.state().current().version.level0().len(), 0);
    }

    #[test]
    fn a_keyspace_that_is_always_due_keeps_no_other_from_a_flush() {
        let sim = Simulation::new(1);
        let config = Config { flush_target: Some(1), ..Config::default() };
        let db = Db::builder("/db").config(config).env(sim.env.clone()).open().expect("opens");
        let (first, second) = (db.default_keyspace(), db.keyspace("second").expect("made"));
        let engine = Arc::downgrade(db.handle.engine());
        let mut job = FlushJob::new(engine);
        seal(&second, 1);
        for _ in 0..2 {
            seal(&first, 4);
            assert_eq!(job.step(), Step::Again);
        }
        assert!(second.state().current().sealed.is_empty(), "the first one was flushed twice");
    }

    #[test]
    fn the_time_of_a_pause_is_no_work_of_compaction() {
        let sim = Simulation::new(1);
        let db = open_soon_due(&sim);
        let engine = db.handle.engine();
        let mut job =
            CompactionJob { engine: Arc::downgrade(engine), last: 0, resting: BTreeMap::new() };
        let mut compact = || {
            for _ in 0..2 {
                db.put("key", [1; 1000]).expect("there is room");
                db.flush().expect("written");
            }
            assert_eq!(job.step(), Step::Again);
            let pause = db.pause_compaction();
            assert_eq!(job.step(), Step::Park(None));
            sim.clock.advance(Duration::from_secs(3600));
            drop(pause);
        };
        compact();
        compact();
        assert_eq!(engine.pace.compactions.lock().per_second(), None, "no time was worked");
    }

    #[test]
    fn a_keyspace_that_always_needs_a_merge_keeps_no_other_from_one() {
        let sim = Simulation::new(1);
        let config = Config {
            max_memtable_size: Some(4 << 10),
            flush_target: Some(16 << 20),
            memory_budget: Some(64 << 20),
            durability: Some(Durability::Buffered),
            enable_background_compaction: Some(false),
            ..Config::default()
        };
        let db = Db::builder("/db").config(config).env(sim.env.clone()).open().expect("opens");
        let keyspaces = [
            db.default_keyspace(),
            db.keyspace("second").expect("made"),
            db.keyspace("third").expect("made"),
        ];
        let engine = db.handle.engine();
        let mut job = MergeJob { engine: Arc::downgrade(engine), rest: Duration::ZERO, last: 0 };
        for keyspace in &keyspaces {
            seal(keyspace, SEALED_BUSY + 1);
        }
        for _ in &keyspaces {
            assert_eq!(job.step(), Step::Again);
            seal(&keyspaces[0], SEALED_BUSY + 1);
        }
        for keyspace in &keyspaces[1..] {
            let sealed = keyspace.state().current().sealed.len();
            assert!(sealed <= SEALED_BUSY, "{}: {sealed}", keyspace.name());
        }
    }
}
