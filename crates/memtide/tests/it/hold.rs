//! Compaction that is paused, and compaction that keeps to a rate.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use memtide::{Codec, CompactionPause, Config, Db, Durability, ErrorKind};
use memtide_env::clock::ManualClock;
use memtide_env::{Clock, Job, Simulation, Step};

use crate::strategies::count_table_bytes;

const ROOT: &str = "/db";

fn config() -> Config {
    let mut config = Config {
        durability: Some(Durability::Buffered),
        compression: Some(Codec::None),
        ..Config::default()
    };
    config.tree.table_size = Some(64 << 10);
    config
}

fn open(sim: &Simulation, config: Config) -> Db {
    Db::builder(ROOT).config(config).env(sim.env.clone()).open().unwrap()
}

/// A table of 100 KiB over all keys.
fn flush_one(db: &Db, round: u8) {
    for number in 0..1000 {
        db.put(format!("key{number:06}"), [round; 100]).unwrap();
    }
    db.flush().unwrap();
}

fn level0(db: &Db) -> usize {
    db.stats().keyspaces[0].levels[0].runs
}

#[test]
fn a_pause_is_a_public_handle() {
    fn check<T: Clone + Send + Sync + 'static>() {}
    check::<CompactionPause>();
}

/// Level 0 grows as long as the pause lasts, and no wait of a writer would make it smaller.
#[test]
fn a_pause_holds_no_writer_back() {
    let sim = Simulation::new(1);
    let mut config = config();
    config.tree.compaction_rate = Some(4 << 20);
    let db = open(&sim, config);
    for round in 0..20 {
        flush_one(&db, round);
        sim.steps.run_until_idle();
    }
    let pause = db.pause_compaction();
    for round in 0..40 {
        flush_one(&db, round);
        sim.steps.run_until_idle();
        assert_eq!(db.stats().write_rate, None, "{} runs", level0(&db));
    }
    assert!(level0(&db) >= 40);
    drop(pause);
    assert!(db.stats().write_rate.is_some(), "{} runs are too many again", level0(&db));
    sim.steps.run_until_idle();
    assert!(level0(&db) < 8, "{} runs", level0(&db));
}

#[test]
fn while_compaction_is_paused_everything_else_goes_on() {
    let sim = Simulation::new(1);
    let db = open(&sim, config());
    let pauses = [db.pause_compaction(), db.pause_compaction()];
    let clone = pauses[0].clone();
    assert!(db.stats().compaction_paused);
    for round in 0..6 {
        flush_one(&db, round);
        sim.steps.run_until_idle();
    }
    assert_eq!(level0(&db), 6);
    let error = db.compact().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    drop(pauses);
    sim.steps.run_until_idle();
    assert_eq!((level0(&db), db.stats().compaction_paused), (6, true), "a clone is left");
    drop(clone);
    sim.steps.run_until_idle();
    let stats = db.stats();
    assert_eq!((level0(&db), stats.compaction_paused), (0, false));
    assert_eq!((stats.compactions, stats.compaction_failure), (1, None));
    assert_eq!(db.get("key000007").unwrap().as_deref(), Some(&[5; 100][..]));
    db.compact().unwrap();
}

#[test]
fn a_pause_outlives_the_other_handles_and_a_closed_database_is_none_of_its_business() {
    let sim = Simulation::new(1);
    let db = open(&sim, config());
    let pause = db.pause_compaction();
    drop(db);
    let locked = Db::builder(ROOT).env(sim.env.clone()).open().unwrap_err();
    assert_eq!(locked.kind(), ErrorKind::Locked, "it keeps the database open");
    drop(pause);
    let db = open(&sim, config());
    let pause = db.pause_compaction();
    db.close().unwrap();
    drop(pause);
    assert!(!open(&sim, config()).stats().compaction_paused);
}

/// How many table files there are, and how many of them the tree has.
fn tables(db: &Db, dir: &std::path::Path) -> (usize, usize) {
    let files = std::fs::read_dir(dir.join("sst")).unwrap().count();
    (files, db.stats().keyspaces[0].tables)
}

/// At its rate the merge would take minutes: that the pause and the close return at all is what is tested.
#[test]
fn a_compaction_that_runs_or_waits_stops_for_a_pause_and_for_closing() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.tree.compaction_rate = Some(64 << 10);
    config.tree.table_size = Some(4 << 20);
    let db = Db::builder(dir.path()).config(config).open().unwrap();
    let pause = db.pause_compaction();
    for _ in 0..4 {
        for number in 0..40_000 {
            db.put(format!("key{number:06}"), [1; 100]).unwrap();
        }
        db.flush().unwrap();
    }
    // What was flushed between may be more than four tables, but not so many that the rate is lifted.
    let (_, before) = tables(&db, dir.path());
    assert!((4..8).contains(&before), "{before} tables");
    drop(pause);
    let wait_for_a_compaction = || {
        while tables(&db, dir.path()).0 == before {
            std::thread::yield_now();
        }
    };
    wait_for_a_compaction();
    let pause = db.pause_compaction();
    assert_eq!(tables(&db, dir.path()), (before, before), "what it wrote is gone");
    assert_eq!(db.stats().compaction_failure, None);
    drop(pause);
    wait_for_a_compaction();
    // An explicit one is stopped as well. Its thread may also come too late.
    let pause = std::thread::scope(|scope| {
        let other = scope.spawn(|| db.compact());
        let pause = db.pause_compaction();
        assert_eq!(other.join().unwrap().unwrap_err().kind(), ErrorKind::Busy);
        pause
    });
    drop(pause);
    wait_for_a_compaction();
    db.close().unwrap();
    // By itself it would compact again before anything is counted.
    let config = Config { enable_background_compaction: Some(false), ..Config::default() };
    let db = Db::builder(dir.path()).config(config).open().unwrap();
    assert_eq!(tables(&db, dir.path()), (before, before));
    assert_eq!(db.iter().count(), 40_000);
}

#[test]
fn compactions_keep_to_their_rate_unless_level_0_is_overloaded_and_flushes_never_do() {
    for threads in [1, 3] {
        keep_to_the_rate(threads);
    }
}

fn keep_to_the_rate(threads: u64) {
    const RATE: u64 = 64 << 10;
    let sim = Simulation::new(1);
    let written = count_table_bytes(&sim);
    let mut config = config();
    config.tree.compaction_rate = Some(RATE);
    config.tree.table_size = Some(32 << 10);
    config.tree.compaction_threads = Some(threads);
    let db = open(&sim, config);
    // A merge into these tables can be divided.
    flush_one(&db, 0);
    db.compact().unwrap();
    sim.clock.advance(Duration::from_secs(60));
    let (edits, waited) = (db.stats().compactions, db.stats().compaction_rate_waits);
    let now = || sim.clock.now();
    let pause = db.pause_compaction();
    let began = now();
    for round in 0..4 {
        flush_one(&db, round);
    }
    assert_eq!(now(), began, "flushes wait for nothing");
    let before = written.load(Ordering::Relaxed);
    drop(pause);
    sim.steps.run_until_idle();
    assert_eq!(level0(&db), 0);
    let bytes = written.load(Ordering::Relaxed) - before;
    let (took, least) = (now() - began, Duration::from_secs_f64(bytes as f64 / RATE as f64));
    // What rounding leaves for each step is less than a nanosecond.
    let burst = Duration::from_millis(100) + Duration::from_micros(1);
    assert!(took + burst >= least, "{bytes} B in {took:?}");
    assert!(took <= least + Duration::from_millis(100), "{bytes} B in {took:?}");
    let waits = db.stats().compaction_rate_waits;
    let (count, time) = (waits.count - waited.count, waits.time - waited.time);
    // Slices that wait at the same time all count.
    assert!(count > 0 && time <= took * u32::try_from(threads).unwrap(), "{waits:?}");
    assert_eq!(db.stats().compactions - edits > 1, threads > 1, "slices");

    let pause = db.pause_compaction();
    for round in 0..8 {
        flush_one(&db, round);
    }
    let began = now();
    drop(pause);
    sim.steps.run_until_idle();
    assert_eq!((level0(&db), now()), (0, began), "twice as many runs as make it due");
}

/// Flushes eight tables after a while, that is while a merge waits: nothing else lets time pass.
struct Flusher {
    db: Db,
    clock: Arc<ManualClock>,
    at: Duration,
}

impl Job for Flusher {
    fn name(&self) -> &'static str {
        "flusher"
    }

    fn step(&mut self) -> Step {
        if self.clock.now() < self.at {
            return Step::Park(Some(self.at));
        }
        assert_eq!(level0(&self.db), 4, "the merge has not ended");
        (0..8).for_each(|round| flush_one(&self.db, 10 + round));
        Step::Done
    }
}

#[test]
fn a_wait_for_the_rate_ends_once_level_0_is_overloaded() {
    let sim = Simulation::new(1);
    let mut config = config();
    config.tree.compaction_rate = Some(64 << 10);
    let db = open(&sim, config);
    let pause = db.pause_compaction();
    for round in 0..4 {
        flush_one(&db, round);
    }
    let at = sim.clock.now() + Duration::from_millis(10);
    let flusher = Flusher { db: db.clone(), clock: Arc::clone(&sim.clock), at };
    drop(pause);
    let flusher = sim.env.executor.submit(Box::new(flusher)).unwrap();
    sim.env.executor.join(flusher);
    sim.steps.run_until_idle();
    assert_eq!(db.get("key000007").unwrap().as_deref(), Some(&[17; 100][..]));
    assert_eq!((level0(&db), sim.clock.now()), (0, at));
}
