//! Writers that are faster than upkeep, in a world where upkeep takes time: what bounds level 0 and memory, who is held
//! back, and how one is told.

use std::sync::Arc;
use std::time::Duration;

use memtide::{
    Batch, Compaction, Config, Db, Durability, ErrorKind, Keyspace, KeyspaceStats, WriteOptions,
};
use memtide_env::clock::{Clock, ManualClock};
use memtide_env::executor::{Event, Executor, Job, JobId, Step, StepExecutor};
use memtide_env::{Env, Simulation};

/// An executor under which each piece of work of one job takes some time.
#[derive(Debug)]
struct Slow {
    steps: Arc<StepExecutor>,
    clock: Arc<ManualClock>,
    job: &'static str,
    time: Duration,
}

impl Executor for Slow {
    fn submit(&self, job: Box<dyn Job>) -> std::io::Result<JobId> {
        if job.name() != self.job {
            return self.steps.submit(job);
        }
        let (clock, time) = (Arc::clone(&self.clock), self.time);
        self.steps.submit(Box::new(SlowJob { job, clock, time, busy_until: Duration::ZERO }))
    }

    fn wake(&self, job: JobId) {
        self.steps.wake(job);
    }

    fn join(&self, job: JobId) {
        self.steps.join(job);
    }

    fn wait(&self, event: &Event, seen: u64, limit: Option<Duration>) {
        self.steps.wait(event, seen, limit);
    }

    fn parallelism(&self) -> usize {
        self.steps.parallelism()
    }
}

struct SlowJob {
    job: Box<dyn Job>,
    clock: Arc<ManualClock>,
    time: Duration,
    busy_until: Duration,
}

impl Job for SlowJob {
    fn name(&self) -> &'static str {
        self.job.name()
    }

    fn step(&mut self) -> Step {
        let now = self.clock.now();
        if now >= self.busy_until {
            match self.job.step() {
                Step::Again => self.busy_until = now + self.time,
                other => return other,
            }
        }
        Step::Park(Some(self.busy_until))
    }
}

/// A world in which a job takes so much time for each piece of its work.
fn world(job: &'static str, time: Duration) -> (Simulation, Env) {
    let sim = Simulation::new(1);
    let (steps, clock) = (Arc::clone(&sim.steps), Arc::clone(&sim.clock));
    let env = Env { executor: Arc::new(Slow { steps, clock, job, time }), ..sim.env.clone() };
    (sim, env)
}

/// Tables of 16 KiB.
fn config() -> Config {
    let mut config = Config {
        max_memtable_size: Some(4 << 10),
        memory_budget: Some(1 << 20),
        flush_target: Some(16 << 10),
        durability: Some(Durability::Buffered),
        ..Config::default()
    };
    config.tree.level0_runs = Some(4);
    config.tree.level1_size = Some(64 << 10);
    config
}

fn open(env: &Env, config: &Config) -> Db {
    Db::builder("/db").config(config.clone()).env(env.clone()).open().unwrap()
}

fn batch(db: &Db, keyspace: &Keyspace, key: u32) -> Batch {
    let mut batch = db.batch();
    batch.put(keyspace, (key % 5000).to_be_bytes(), [7; 200]);
    batch
}

/// Writes at 200 MB a second of the world's time, if nothing holds it back, after a quiet beginning in which upkeep is
/// measured; calls `see` after each.
fn overload(sim: &Simulation, db: &Db, writes: u32, mut see: impl FnMut(&KeyspaceStats)) {
    for key in 0..writes {
        db.write(batch(db, &db.default_keyspace(), key)).unwrap();
        let quiet = key < 2000;
        sim.clock.advance(Duration::from_micros(if quiet { 1000 } else { 1 }));
        sim.steps.run_until_idle();
        see(&db.stats().keyspaces[0]);
    }
}

/// The most runs in level 0 meanwhile.
fn most_runs(sim: &Simulation, db: &Db, writes: u32) -> usize {
    let mut most = 0;
    overload(sim, db, writes, |own| most = most.max(own.levels[0].runs));
    most
}

const COMPACTS: Duration = Duration::from_millis(20);

#[test]
fn level_0_is_bounded_under_every_strategy_however_fast_writers_are() {
    for compaction in [Compaction::Leveled, Compaction::LazyLeveled, Compaction::Tiered] {
        let (sim, env) = world("memtide-compact", COMPACTS);
        let db = open(&env, &Config { compaction: Some(compaction), ..config() });
        let most = most_runs(&sim, &db, 30_000);
        let stats = db.stats();
        assert!(most <= 6 * 4 + 8, "{compaction}: {most} runs");
        assert!(stats.slowdowns_for_compaction.count > 10, "{compaction}: {stats:?}");
    }
}

#[test]
fn nothing_holds_writers_back_where_waiting_would_not_help() {
    for (compaction, enabled) in [(Compaction::Fifo, true), (Compaction::Leveled, false)] {
        let (sim, env) = world("memtide-compact", COMPACTS);
        let config = Config {
            compaction: Some(compaction),
            enable_background_compaction: Some(enabled),
            ..config()
        };
        let db = open(&env, &config);
        let most = most_runs(&sim, &db, 20_000);
        assert!(most > 100, "{most} runs");
        let stats = db.stats();
        assert_eq!((stats.slowdowns_for_compaction.count, stats.write_rate), (0, None));
    }
}

#[test]
fn who_must_not_wait_is_told_how_long_and_other_keyspaces_go_on() {
    let (sim, env) = world("memtide-compact", COMPACTS);
    let db = open(&env, &config());
    let (default, other) = (db.default_keyspace(), db.keyspace("other").unwrap());
    overload(&sim, &db, 10_000, |_| {});
    let mut key = 10_000;
    let refused = loop {
        match db.try_write(batch(&db, &default, key)) {
            Ok(_) => key += 1,
            Err(error) => break error,
        }
        // Merges in memory go on, but no time passes.
        sim.steps.run_until_idle();
    };
    assert_eq!(refused.kind(), ErrorKind::Busy, "{refused:?}");
    let text = refused.to_string();
    assert!(text.contains("compaction") && text.contains(" ms"), "{text}");
    let stats = db.stats();
    assert!(stats.write_rate.is_some());
    assert_eq!(stats.health.state, memtide::HealthState::Throttled);
    db.try_write(batch(&db, &other, key)).unwrap();
    let mut both = batch(&db, &other, key);
    both.put(&default, "k", "v");
    assert_eq!(db.try_write(both).unwrap_err().kind(), ErrorKind::Busy);
    assert!(db.get("k").unwrap().is_none());
    // Within its timeout or not at all, and nobody pays for what was not written.
    let options =
        WriteOptions { timeout: Some(Duration::from_micros(100)), ..WriteOptions::default() };
    for _ in 0..20 {
        let before = sim.clock.now();
        let Err(error) = db.write_with(batch(&db, &default, key), options) else { break };
        assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
        assert!(sim.clock.now() - before <= Duration::from_micros(101));
    }
    let counted = db.stats().slowdowns_for_compaction.count;
    db.put("k", "v").unwrap();
    assert!(db.stats().slowdowns_for_compaction.count <= counted + 1);
    // With time, all of it is over.
    for _ in 0..100 {
        sim.clock.advance(COMPACTS);
        sim.steps.run_until_idle();
    }
    assert_eq!(db.stats().write_rate, None, "{:?}", db.stats());
    assert_eq!(db.health().state, memtide::HealthState::Healthy);
    db.try_write(batch(&db, &default, key)).unwrap();
}

#[test]
fn a_database_that_fails_under_pressure_says_so() {
    let (sim, env) = world("memtide-compact", COMPACTS);
    let db = open(&env, &config());
    overload(&sim, &db, 10_000, |_| {});
    assert!(db.stats().slowdowns_for_compaction.count > 0);
    sim.vfs.fail_at(sim.vfs.op_count(), std::io::ErrorKind::Other);
    let error = (0..1000).find_map(|key: u32| db.put(key.to_be_bytes(), [1; 200]).err());
    assert!(matches!(error.unwrap().kind(), ErrorKind::Io | ErrorKind::ReadOnly));
}

/// Memory fills while flushes take their time: writers are slowed down, and do not run into its end again and again.
#[test]
fn memory_slows_writers_down_before_it_is_full() {
    let (sim, env) = world("memtide-flush", Duration::from_millis(20));
    let mut config = config();
    config.memory_budget = Some(4 << 20);
    config.flush_target = Some(64 << 10);
    config.enable_background_compaction = Some(false);
    let db = open(&env, &config);
    let mut fullest = 0;
    overload(&sim, &db, 30_000, |own| {
        fullest = fullest.max(own.sealed_bytes + own.active.reserved);
    });
    let stats = db.stats();
    assert!(stats.slowdowns_for_memory.count >= 3, "{stats:?}");
    assert_eq!(stats.stalls_for_memory.count, 0, "{stats:?}");
    assert!(fullest < 2 << 20, "{fullest} B");
}

/// None of them has so much that it would be flushed for its own sake.
/// What keyspaces at rest hold would press for ever, as nothing of theirs is sealed.
#[test]
fn memory_of_keyspaces_at_rest_is_flushed_for_others() {
    let sim = Simulation::new(1);
    let mut config = config();
    config.max_memtable_size = Some(64 << 10);
    config.flush_target = Some(1 << 20);
    config.memory_budget = Some(6 << 20);
    let db = open(&sim.env, &config);
    for number in 0..46 {
        db.keyspace(&format!("of {number}")).unwrap().put("key", [7; 50_000]).unwrap();
    }
    let busy = db.keyspace("busy").unwrap();
    for key in 0..2000_u32 {
        busy.put(key.to_be_bytes(), [7; 1000]).unwrap();
        sim.steps.run_until_idle();
    }
    let stats = db.stats();
    let held: u64 = stats.keyspaces.iter().map(|one| one.active.reserved + one.sealed_bytes).sum();
    assert!(held <= (3 << 20) * 3 / 5 + (128 << 10), "{held} B");
}

#[test]
fn keyspaces_that_share_the_memory_are_flushed_before_it_is_full() {
    let sim = Simulation::new(1);
    let mut config = config();
    config.flush_target = Some(256 << 10);
    let db = open(&sim.env, &config);
    let keyspaces: Vec<_> =
        (0..8).map(|number| db.keyspace(&format!("of {number}")).unwrap()).collect();
    for key in 0..20_000_u32 {
        let keyspace = &keyspaces[key as usize % keyspaces.len()];
        keyspace.put(key.to_be_bytes(), [7; 200]).unwrap();
        sim.steps.run_until_idle();
    }
    let stats = db.stats();
    assert!(stats.flushes > 5, "{stats:?}");
    assert_eq!(stats.stalls_for_memory.count, 0, "{stats:?}");
}
