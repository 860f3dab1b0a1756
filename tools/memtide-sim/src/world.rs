//! Runs a case: one database on one simulated disk after the other, and beside it what it must show.
//!
//! Checked at each step: reads of now, of snapshots and of walks that are held equal the model; numbers rise; nothing
//! fails but after a fault. After each crash: the contents are a prefix of the writes with whole batches, not shorter
//! than what was promised for this kind of crash, all logged keyspaces at the same one; a crash in a recovery changes
//! nothing of what comes back; the files are those that the manifest names; the database takes writes.

mod check;
mod faulty;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

use memtide::{CompactionPause, Config, Db, Durability, ErrorKind, HealthState, Iter, Snapshot};
use memtide_env::Simulation;
use memtide_env::vfs::CrashMode;

use crate::case::{Case, Ending, FileKind, Op, UNLOGGED};
use crate::figures::Figures;
use crate::history::{Entry, Epoch};
use crate::oracle::{self, Change, Span, State};
use crate::text::mode_name;
use crate::wire::{Kept, Progress, Wire};

pub(crate) const ROOT: &str = "/db";
/// Snapshots and held walks.
const LIVE_MAX: usize = 4;

type Row = (Vec<u8>, Vec<u8>);

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// What was counted.
    pub figures: Figures,
    /// Of everything that was done to the disk and seen by clients: the same case gives the same.
    pub trace: u64,
    /// Of what clients saw alone; the same for any configuration, if nothing crashed or failed.
    pub seen: u64,
    /// What was wrong, if anything was.
    pub failure: Option<Failure>,
}

/// What was wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The operation of the case, from 0.
    pub at: usize,
    /// What was expected and what was found.
    pub what: String,
}

/// Ends a run.
type Checked<T = ()> = Result<T, String>;

thread_local! {
    /// What panics said in this thread while a case runs in it; `None` while none does.
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Runs a case.
#[must_use]
pub fn run(case: &Case) -> Outcome {
    static HOOK: Once = Once::new();
    HOOK.call_once(catch_panics);
    PANICS.set(Some(Vec::new()));
    // A world that panicked is left alone: what its destructors would do may panic, too.
    let mut world = ManuallyDrop::new(World::new(case));
    let mut at = 0;
    let ran = catch_unwind(AssertUnwindSafe(|| world.run(case, &mut at)));
    let wire = world.wire.clone();
    let mut failure = match ran {
        Ok(ran) => ran.err(),
        Err(_) => Some("a panic".to_owned()),
    };
    let seen = world.seen;
    if failure.is_none() {
        wire.set_dead(true);
        ManuallyDrop::into_inner(world).end();
    }
    let panics = PANICS.take().unwrap_or_default();
    if !panics.is_empty() {
        let first = failure.unwrap_or_default();
        failure = Some(format!("{first}: {}", panics.join("; ")));
    }
    let figures = wire.figures(|figures| figures.clone());
    let failure = failure.map(|what| Failure { at, what });
    Outcome { figures, trace: wire.trace(), seen, failure }
}

/// Panics of a run are part of its failure, others are shown as ever.
fn catch_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let is_ours = PANICS.with_borrow_mut(|panics| {
            let Some(panics) = panics else { return false };
            panics.push(info.to_string().replace('\n', " "));
            true
        });
        if !is_ours {
            before(info);
        }
    }));
}

/// Whether a background job or anything else panicked.
fn panicked() -> bool {
    PANICS.with_borrow(|panics| panics.as_ref().is_some_and(|panics| !panics.is_empty()))
}

struct World {
    wire: Wire,
    sim: Simulation,
    config: Config,
    names: Vec<&'static str>,
    db: Option<Db>,
    /// What reads must see.
    live: State,
    epoch: Epoch,
    /// The one before the last recovery, and how far it had come.
    last: (Epoch, Progress),
    /// What must come back whatever crashes: set while the database that recovered it has not been used.
    sure: Option<State>,
    snapshots: Vec<(Snapshot, State, u64)>,
    iters: Vec<(Iter, VecDeque<Row>, u64)>,
    pause: Option<CompactionPause>,
    /// Whether files may grow only so far, and whether they might since the last open.
    is_full: bool,
    was_full: bool,
    /// Whether the open database is a new one.
    is_fresh: bool,
    /// What the upkeep of the open database had failed with when faults ended: it says so until it is done again.
    old_failures: [Option<String>; 2],
    seen: u64,
    seed: u64,
}

/// Whether puts are taken, slowly perhaps.
fn takes_writes(db: &Db) -> bool {
    use HealthState::{Degraded, Healthy, Throttled};
    matches!(db.health().state, Healthy | Throttled | Degraded)
}

fn row(entry: memtide::Result<(memtide::Slice, memtide::Slice)>) -> memtide::Result<Row> {
    entry.map(|(key, value)| (key.to_vec(), value.to_vec()))
}

impl World {
    fn new(case: &Case) -> Self {
        Self {
            wire: Wire::default(),
            sim: Simulation::new(case.seed),
            config: case.config.clone(),
            names: case.names.clone(),
            db: None,
            live: State::default(),
            epoch: Epoch::default(),
            last: Default::default(),
            sure: None,
            snapshots: Vec::new(),
            iters: Vec::new(),
            pause: None,
            is_full: false,
            was_full: false,
            is_fresh: false,
            old_failures: Default::default(),
            seen: 0,
            seed: case.seed,
        }
    }

    fn run(&mut self, case: &Case, at: &mut usize) -> Checked {
        self.wire.figures(|figures| figures.seeds += 1);
        self.enter();
        // What is to happen comes before the first open, which it may hit.
        let is_armed = |op: &&Op| matches!(op, Op::Crash { after: 1.., .. } | Op::Fault(_));
        let armed = case.ops.iter().take_while(is_armed).count();
        case.ops[..armed].iter().try_for_each(|op| self.step(op))?;
        self.open()?;
        self.settle()?;
        for (index, op) in case.ops.iter().enumerate().skip(armed) {
            *at = index;
            self.wire.begin_op();
            self.wire.figures(|figures| figures.ops += 1);
            self.step(op)?;
            self.settle()?;
            if panicked() {
                return Err("a background job panicked".to_owned());
            }
        }
        *at = case.ops.len();
        self.heal()?;
        self.check_everything()?;
        self.verify()
    }

    /// Takes a world that ran well apart.
    fn end(mut self) {
        self.drop_readers();
        self.db = None;
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("open between operations")
    }

    /// A world around a new disk begins.
    fn enter(&mut self) {
        self.wire.attach(&self.sim);
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.sim.steps.set_order(Some(self.seed));
        (self.is_full, self.was_full) = (false, false);
    }

    fn step(&mut self, op: &Op) -> Checked {
        match op {
            Op::Write(changes, durability) => self.write(changes, *durability),
            Op::Get(name, key) => self.get(name, key),
            Op::Scan(name, span, how) => self.scan(name, span, *how),
            Op::Snapshot => {
                if self.snapshots.len() == LIVE_MAX {
                    self.snapshots.remove(0);
                }
                let compactions = self.db().stats().compactions;
                self.snapshots.push((self.db().snapshot(), self.live.clone(), compactions));
                Ok(())
            }
            Op::Release(which) => {
                if let Some(at) =
                    usize::try_from(*which).unwrap_or(0).checked_rem(self.snapshots.len())
                {
                    self.snapshots.remove(at);
                }
                Ok(())
            }
            Op::Iter(name, span) => self.begin_iter(name, span),
            Op::StepIters(seed) => self.step_iters(*seed),
            Op::DropIters => {
                self.iters.clear();
                Ok(())
            }
            Op::Flush => {
                let done = self.db().flush();
                let count = self.epoch.entries.len();
                if done.is_ok() {
                    self.wire.update(|progress| progress.flushed = count);
                }
                self.upkeep(done, "flush")
            }
            Op::Compact => self.compact(),
            Op::Sync => {
                let done = self.db().sync();
                if done.is_ok() && self.is_healthy() {
                    self.reached(true);
                }
                self.upkeep(done, "sync")
            }
            Op::SetMemtable(name, kind) => {
                let done = self.db().keyspace(name).and_then(|k| k.set_memtable(*kind));
                self.upkeep(done, "set a memtable")
            }
            Op::SetCompaction(name, compaction) => {
                let done = self.db().keyspace(name).and_then(|k| k.set_compaction(*compaction));
                self.upkeep(done, "set a strategy")
            }
            Op::Pause(on) => {
                self.pause = on.then(|| self.db().pause_compaction());
                Ok(())
            }
            Op::Job(pick) => {
                self.sim.steps.step_one(*pick);
                self.after_jobs()
            }
            Op::Idle => {
                self.idle();
                self.after_jobs()
            }
            Op::Tick(time) => self.tick(*time),
            Op::Wall(by) => {
                self.sim.clock.set_wall(*by);
                Ok(())
            }
            Op::Set(key, value) => {
                // Where it does not go with the other options, they stay as they are.
                let mut config = self.config.clone();
                if config.set(key, value).is_ok() && config.validate().is_ok() {
                    self.config = config;
                }
                Ok(())
            }
            Op::Fault(rule) => {
                self.wire.arm_fault(*rule);
                Ok(())
            }
            Op::Space(free) => {
                self.sim.vfs.set_free_space(*free);
                self.is_full = free.is_some();
                self.was_full |= self.is_full;
                Ok(())
            }
            Op::Heal => self.heal(),
            Op::Reopen(ending) => self.reopen(*ending),
            Op::Crash { mode, seed, after } => {
                if *after > 0 {
                    self.wire.arm_crash(*mode, *seed, *after);
                    return Ok(());
                }
                let disk = self.sim.vfs.disk();
                let progress = self.wire.progress();
                self.crash(Kept { disk, progress, in_open: false, mode: *mode, seed: *seed })
            }
            Op::Rot { file, byte, xor } => self.rot(*file, *byte, *xor),
            Op::Verify => self.verify(),
            Op::Check => self.check_everything(),
        }
    }

    /// Whether something that failed may be why something else does.
    fn is_excused(&self) -> bool {
        self.was_full || self.wire.fired()
    }

    fn is_healthy(&self) -> bool {
        takes_writes(self.db())
    }

    fn hit(&self, point: &'static str) {
        self.wire.figures(|figures| figures.hit(point));
    }

    /// What a call other than a write came to. Without a fault it must have come to something.
    fn upkeep(&self, done: memtide::Result<()>, what: &str) -> Checked {
        match done {
            Ok(()) => Ok(()),
            Err(error) => self.allow(&error, what),
        }
    }

    fn allow(&self, error: &memtide::Error, what: &str) -> Checked {
        self.wire.note(error.kind() as u64 + 1);
        let is_ours = matches!(error.kind(), ErrorKind::Internal | ErrorKind::Corruption);
        if is_ours || !self.is_excused() {
            return Err(format!("could not {what}: {error:?}"));
        }
        if error.kind() == ErrorKind::NoSpace {
            self.hit("refused because the device is full");
        }
        Ok(())
    }

    fn write(&mut self, changes: &[Change], durability: Durability) -> Checked {
        let changes: Vec<_> =
            changes.iter().filter(|c| self.names.contains(&c.keyspace())).cloned().collect();
        if changes.is_empty() {
            return Ok(());
        }
        if self.epoch.is_full_of_doubt() {
            self.reopen(Ending::Close)?;
            self.settle()?;
        }
        self.epoch.entries.push(Entry { changes: changes.clone(), seq: None });
        let count = self.epoch.entries.len();
        self.wire.update(|progress| progress.submitted = count);
        let mut written = oracle::write(self.db(), &changes, durability);
        if written.as_ref().is_err_and(|error| error.kind() == ErrorKind::Busy)
            && !self.iters.is_empty()
        {
            // They pin memtables.
            self.iters.clear();
            written = oracle::write(self.db(), &changes, durability);
        }
        let seq = match written {
            Ok(seq) => seq,
            Err(error) => return self.write_failed(&changes, &error),
        };
        let has_put = changes.iter().any(|c| matches!(c, Change::Put(..)));
        let floor = self.wire.progress().floor;
        if has_put && seq < floor {
            return Err(format!("number {seq} was given out before: {} was", floor - 1));
        }
        self.seen = self.seen.wrapping_mul(31).wrapping_add(changes.len() as u64);
        self.epoch.entries[count - 1].seq = Some(seq);
        self.live.apply(&changes);
        self.wire.update(|progress| {
            progress.acked = count;
            progress.floor = floor.max(seq + u64::from(has_put));
        });
        let is_logged = |c: &Change| matches!(c, Change::Put(..)) && c.keyspace() != UNLOGGED;
        self.reached(durability == Durability::Sync && changes.iter().any(is_logged));
        Ok(())
    }

    /// Notes what is durable, by what the engine says of it and by what it promised with the last write.
    fn reached(&self, all: bool) {
        let (durable, count) = (self.db().durable_seq(), self.epoch.entries.len());
        let entries = &self.epoch.entries;
        let said = entries.iter().rposition(|entry| entry.seq.is_some_and(|seq| seq < durable));
        let said = said.map_or(0, |at| at + 1);
        self.wire.update(|progress| {
            progress.durable = progress.durable.max(if all { count } else { said });
        });
    }

    fn idle(&mut self) {
        let before = self.db().stats();
        self.sim.steps.run_until_idle();
        let after = self.db().stats();
        let sealed =
            |stats: &memtide::Stats| stats.keyspaces.iter().map(|k| k.sealed).sum::<usize>();
        if sealed(&after) > 0 && sealed(&after) < sealed(&before) && after.flushes == before.flushes
        {
            self.hit("memtables merged in memory");
        }
    }

    fn tick(&mut self, time: Duration) -> Checked {
        self.sim.clock.advance(time);
        self.idle();
        if let Durability::Interval(most) = self.config.durability.unwrap_or_default()
            && time > most
            && !self.is_excused()
        {
            let durable = self.db().durable_seq();
            let logged = |entry: &&Entry| {
                entry
                    .changes
                    .iter()
                    .any(|c| matches!(c, Change::Put(..)) && c.keyspace() != UNLOGGED)
            };
            let newest = self.epoch.entries.iter().rev().find(logged).and_then(|entry| entry.seq);
            if newest.is_some_and(|seq| seq >= durable) {
                return Err(format!("after {time:?} of quiet write {newest:?} is not durable"));
            }
        }
        self.after_jobs()
    }

    /// What jobs did is durable or failed for a reason.
    fn after_jobs(&mut self) -> Checked {
        if self.is_healthy() {
            self.reached(false);
        }
        Ok(())
    }

    fn compact(&mut self) -> Checked {
        let before = self.db().stats().compactions;
        let done = self.db().compact();
        let count = self.epoch.entries.len();
        match &done {
            Err(error) if self.pause.is_some() && error.kind() == ErrorKind::Busy => return Ok(()),
            Err(_) => {}
            Ok(()) => {
                self.wire.update(|progress| progress.flushed = count);
                if self.db().stats().compactions > before + 1 {
                    self.hit("compaction in slices");
                }
            }
        }
        self.upkeep(done, "compact")
    }

    /// Drops what reads older moments.
    fn drop_readers(&mut self) {
        let compactions = self.db.as_ref().map_or(0, |db| db.stats().compactions);
        if self.snapshots.iter().any(|(.., then)| *then < compactions) {
            self.hit("snapshot outlived a compaction");
        }
        self.iters.clear();
        self.snapshots.clear();
        self.pause = None;
    }

    fn reopen(&mut self, ending: Ending) -> Checked {
        if self.end_orderly(ending)? {
            self.open()?;
            self.accept(self.last.1.acked)?;
        }
        Ok(())
    }

    /// Ends the database; false if a crash came between and another one is open already.
    fn end_orderly(&mut self, ending: Ending) -> Checked<bool> {
        self.check_everything()?;
        self.count_stats()?;
        self.drop_readers();
        let db = self.db.take().expect("open between operations");
        let was_healthy = takes_writes(&db);
        match ending {
            Ending::Drop => drop(db),
            Ending::Close => match db.close() {
                Ok(()) if was_healthy => {
                    let count = self.epoch.entries.len();
                    self.wire.update(|p| (p.durable, p.flushed) = (count, count));
                }
                Ok(()) => {}
                Err(error) => self.allow(&error, "close")?,
            },
        }
        if let Some(kept) = self.wire.take_kept() {
            self.crash(kept)?;
            return Ok(false);
        }
        self.last = (std::mem::take(&mut self.epoch), self.wire.progress());
        self.sure = None;
        Ok(true)
    }

    /// Everything that a crash calls for, until a database is open that no crash came to.
    fn settle(&mut self) -> Checked {
        let mut again = false;
        while let Some(kept) = self.wire.take_kept() {
            if kept.in_open {
                self.hit("crash in a recovery");
                if again {
                    self.hit("crash in a recovery from a crash in a recovery");
                }
                again = true;
                self.reboot(kept)?;
            } else {
                self.crash(kept)?;
            }
        }
        if std::mem::take(&mut self.is_fresh) {
            // Its promises begin now.
            self.wire.update(|old| *old = Progress { floor: old.floor, ..Progress::default() });
        }
        Ok(())
    }

    /// What was written since the last recovery is what the next one comes back with, in part.
    fn crash(&mut self, kept: Kept) -> Checked {
        let mut epoch = std::mem::take(&mut self.epoch);
        epoch.entries.truncate(kept.progress.submitted);
        self.last = (epoch, kept.progress);
        self.sure = None;
        self.reboot(kept)
    }

    /// The disk as a crash leaves it, a new machine, and a database on it.
    fn reboot(&mut self, kept: Kept) -> Checked {
        self.wire.update(|progress| *progress = kept.progress);
        if self.db.is_some() {
            self.count_stats()?;
        }
        self.wire.set_dead(true);
        self.drop_readers();
        self.db = None;
        self.wire.set_dead(false);
        let is_power_cut = kept.mode != CrashMode::KeepAll;
        let least = if is_power_cut { kept.progress.durable } else { kept.progress.acked };
        self.wire.figures(|figures| {
            figures.cycles += 1;
            figures.at_stake += least as u64;
            for path in kept.disk.unsynced() {
                figures
                    .count_fault(format!("crash: {}", mode_name(kept.mode)), FileKind::of(&path));
            }
        });
        let disk = if is_power_cut { kept.disk.crash(kept.mode, kept.seed) } else { kept.disk };
        self.sim = Simulation::on(disk, kept.seed);
        self.enter();
        self.wire.note(kept.seed);
        self.open()?;
        self.accept(least)?;
        if is_power_cut {
            self.sure = Some(self.live.clone());
        }
        Ok(())
    }

    /// The database that was just opened shows what it may show.
    fn accept(&mut self, least: usize) -> Checked {
        let found = self.contents()?;
        if let Some(sure) = &self.sure {
            if found != *sure {
                let difference = found.difference(sure);
                return Err(format!(
                    "a crash in a recovery, found or recovered first: {difference}"
                ));
            }
        } else {
            let (last, progress) = &self.last;
            let recovered = last.recovered(&found, least)?;
            let unlogged = last.recovered_unlogged(&found, progress.flushed);
            unlogged.map_err(|what| format!("without a log, {what}"))?;
            for (holds, point) in [
                (recovered.survived > 0, "failed write survived"),
                (recovered.lost > 0, "failed write was lost"),
                (recovered.prefix < progress.acked, "writes lost in a power cut"),
            ] {
                if holds {
                    self.hit(point);
                }
            }
        }
        self.epoch = Epoch::new(found.clone());
        self.live = found;
        Ok(())
    }
}
