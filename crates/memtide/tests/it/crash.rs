//! Power cuts and deaths of the process at every I/O operation of a script, on a simulated disk.
//!
//! One run of a script keeps the disk before each operation that changes it, and what had been
//! acknowledged by then. Afterwards every kept disk crashes in several ways and must open to the database
//! after a prefix of the script's writes: never less than what was durable, never half a batch, every
//! keyspace at the same prefix. `MEMTIDE_CRASH=all` checks every point for every memtable.

use std::sync::{Arc, Mutex};

use memtide::{Db, Durability, MemtableType, SeqNo};
use memtide_env::Simulation;
use memtide_env::vfs::{CrashMode, Disk};

use crate::oracle::{self, Change, Draw, NAMES, Repeat, State};
use crate::script::{Script, Step, UNLOGGED};

/// How far the run had come when a disk was kept. Counts of writes.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    submitted: usize,
    acked: usize,
    durable: usize,
    /// In tables for sure, also without a log.
    flushed: usize,
    /// The largest number that an acknowledged write got.
    seq: SeqNo,
}

struct Point {
    what: String,
    disk: Disk,
    progress: Progress,
}

/// What one run of a script leaves behind.
struct Recording {
    points: Vec<Point>,
    /// The state after each number of writes.
    states: Vec<State>,
    /// The last number of each write.
    seqs: Vec<SeqNo>,
    /// Whether memtables were joined to a run.
    joined: bool,
}

/// Runs a script and keeps the disk before every operation that changes it.
fn record(script: &Script, seed: u64) -> Recording {
    let sim = Simulation::new(seed);
    let progress = Arc::new(Mutex::new(Progress::default()));
    let points = Arc::new(Mutex::new(Vec::new()));
    let (seen, kept) = (Arc::clone(&progress), Arc::clone(&points));
    sim.vfs.set_observer(Some(Box::new(move |index, op, disk| {
        let (progress, disk) = (*seen.lock().unwrap(), disk.clone());
        kept.lock().unwrap().push(Point { what: format!("{index}: {op:?}"), disk, progress });
    })));
    let (mut states, mut seqs, mut joined) = (vec![State::default()], Vec::new(), false);
    let mut db = script.open(&sim).unwrap();
    for name in script.names {
        db.keyspace(name).unwrap();
    }
    for step in &script.steps {
        match step {
            Step::Write(changes, durability) => {
                let mut next = State::clone(&states[states.len() - 1]);
                next.apply(changes);
                states.push(next);
                progress.lock().unwrap().submitted += 1;
                let seq = oracle::write(&db, changes, *durability).unwrap();
                assert!(seqs.last().is_none_or(|last| *last <= seq), "numbers rise");
                seqs.push(seq);
                let logged = changes.iter().any(|change| change.keyspace() != UNLOGGED);
                if *durability == Durability::Sync && logged {
                    assert!(db.durable_seq() > seq, "acknowledged as durable");
                }
                let mut progress = progress.lock().unwrap();
                (progress.acked, progress.seq) = (seqs.len(), seq);
            }
            Step::Flush => {
                db.flush().unwrap();
                progress.lock().unwrap().flushed = seqs.len();
            }
            Step::Compact => db.compact().unwrap(),
            Step::SetMemtable(name, choice) => {
                db.get_keyspace(name).unwrap().set_memtable(choice.clone()).unwrap();
            }
            Step::SetCompaction(name, compaction) => {
                db.get_keyspace(name).unwrap().set_compaction(*compaction).unwrap();
            }
            Step::Reopen => {
                db.close().unwrap();
                {
                    let mut progress = progress.lock().unwrap();
                    (progress.durable, progress.flushed) = (seqs.len(), seqs.len());
                }
                db = script.open(&sim).unwrap();
                assert_eq!(db.recovery_report().torn_bytes, 0, "a clean close leaves a clean log");
                assert_eq!(State::of(&db).unwrap(), states[states.len() - 1]);
            }
            Step::Tick(time) => {
                sim.clock.advance(*time);
                sim.steps.run_until_idle();
            }
        }
        joined |= db.stats().keyspaces.iter().any(|each| each.sealed > each.sealed_runs);
        let durable = db.durable_seq();
        let mut progress = progress.lock().unwrap();
        progress.durable = progress.durable.max(seqs.partition_point(|seq| *seq < durable));
    }
    let stats = db.stats();
    assert!(stats.keyspaces.iter().map(|keyspace| keyspace.tables).sum::<usize>() > 0);
    db.close().unwrap();
    sim.vfs.set_observer(None);
    let points = std::mem::take(&mut *points.lock().unwrap());
    Recording { points, states, seqs, joined }
}

impl Recording {
    /// What the engine says it recovered must be what it shows, and a prefix that the promises allow.
    fn check_recovered(&self, db: &Db, progress: &Progress, mode: CrashMode) -> State {
        let report = db.recovery_report();
        let prefix = self.seqs.partition_point(|seq| *seq < report.recovered_to);
        let least = if mode == CrashMode::KeepAll { progress.acked } else { progress.durable };
        assert!(
            (least..=progress.submitted).contains(&prefix),
            "write {prefix} is the last one, promised were {least} to {}",
            progress.submitted
        );
        let (state, want) = (State::of(db).unwrap(), &self.states[prefix]);
        assert!(state == *want, "after {prefix} writes: {}", state.difference(want));
        state
    }

    /// A crash, recovery, and life after it: a second crash at once, writes, and a third crash.
    fn check(&self, script: &Script, point: &Point, mode: CrashMode, seed: u64) {
        // After the death of the process alone, what was not synced is there and still not durable.
        let disk = match mode {
            CrashMode::KeepAll => point.disk.clone(),
            _ => point.disk.crash(mode, seed),
        };
        let first = Simulation::on(disk, seed);
        let db = script.open(&first).unwrap();
        let mut state = self.check_recovered(&db, &point.progress, mode);
        // Nothing was written since: whatever survives now, the contents are the same.
        let again = Simulation::on(first.vfs.disk().crash(CrashMode::Subset, seed), seed + 1);
        drop(db);
        let db = script.open(&again).unwrap();
        assert_eq!(State::of(&db).unwrap(), state, "the second recovery differs");
        for name in script.names {
            db.keyspace(name).unwrap();
        }
        let mut draw = Draw::new(seed);
        for _ in 0..3 {
            let changes = draw.batch(script.names);
            let seq = oracle::write(&db, &changes, Durability::Sync).unwrap();
            assert!(seq > point.progress.seq, "number {seq} was given out before");
            state.apply(&changes);
        }
        let last = Simulation::on(again.vfs.disk().crash(CrashMode::DropAll, 0), seed + 2);
        drop(db);
        let db = script.open(&last).unwrap();
        assert_eq!(State::of(&db).unwrap(), state, "what was written after the crash");
    }
}

const WAYS: [(CrashMode, u64); 7] = [
    (CrashMode::KeepAll, 0),
    (CrashMode::DropAll, 0),
    (CrashMode::Prefix, 1),
    (CrashMode::Prefix, 2),
    (CrashMode::Subset, 1),
    (CrashMode::Subset, 2),
    (CrashMode::Subset, 3),
];

/// Crashes at every `stride`-th point, from `first` on, in all ways; returns how many crashes that were.
fn crash_everywhere(script: &Script, recording: &Recording, first: usize, stride: usize) -> usize {
    let stride = if std::env::var("MEMTIDE_CRASH").is_ok_and(|v| v == "all") { 1 } else { stride };
    let mut crashes = 0;
    for point in recording.points.iter().skip(first % stride).step_by(stride) {
        for (mode, seed) in WAYS {
            let here = Here { point: &point.what, mode, seed };
            recording.check(script, point, mode, seed);
            drop(here);
            crashes += 1;
        }
    }
    crashes
}

/// Says which crash it was if a check panics.
struct Here<'p> {
    point: &'p str,
    mode: CrashMode,
    seed: u64,
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("crash before operation {} ({:?}, {})", self.point, self.mode, self.seed);
        }
    }
}

fn crash_script_of(kind: MemtableType, stride: usize) {
    let seed = kind as u64;
    let script = Script::draw(&mut Draw::new(seed), kind, &NAMES);
    let recording = record(&script, seed);
    let crashes = crash_everywhere(&script, &recording, 0, stride);
    println!("{kind}: {crashes} crashes at {} points", recording.points.len());
}

#[test]
fn every_crash_of_a_trie_database_leaves_a_prefix_of_its_writes() {
    crash_script_of(MemtableType::Trie, 1);
}

#[test]
fn every_crash_of_an_enhanced_skiplist_database_leaves_a_prefix_of_its_writes() {
    crash_script_of(MemtableType::EnhancedSkiplist, 1);
}

#[test]
fn crashes_of_the_other_memtables_leave_a_prefix_of_their_writes() {
    for kind in MemtableType::ALL {
        if !matches!(kind, MemtableType::Trie | MemtableType::EnhancedSkiplist) {
            crash_script_of(kind, 13);
        }
    }
}

/// With so much room in memory that what loads in key order fill is joined to runs before it is flushed.
#[test]
fn crashes_beside_runs_of_memtables_leave_a_prefix_of_the_writes() {
    for kind in MemtableType::ALL {
        let seed = 200 + kind as u64;
        let mut script = Script::draw(&mut Draw::new(seed), kind, &NAMES);
        script.config.flush_target = Some(64 << 10);
        script.config.memory_budget = Some(4 << 20);
        script.config.tree.wal_size = Some(1 << 20);
        script.config.max_memtable_size = Some(4 << 10);
        for own in script.config.keyspaces.values_mut() {
            own.max_memtable_size = script.config.max_memtable_size;
        }
        let recording = record(&script, seed);
        assert!(recording.joined, "{kind}: no memtables were joined");
        let crashes = crash_everywhere(&script, &recording, 0, 17);
        println!("{kind}: {crashes} crashes at {} points", recording.points.len());
    }
}

#[test]
fn crashes_of_random_scripts_leave_a_prefix_of_their_writes() {
    for seed in oracle::seeds(100..102, 2) {
        let _repeat = Repeat { test: "crash::crashes_of_random_scripts", seed };
        let mut draw = Draw::new(seed);
        let kind = draw.memtable();
        let script = Script::draw(&mut draw, kind, &NAMES);
        let recording = record(&script, seed);
        let first = usize::try_from(draw.below(29)).unwrap();
        let crashes = crash_everywhere(&script, &recording, first, 29);
        println!("seed {seed}, {kind}: {crashes} crashes at {} points", recording.points.len());
    }
}

/// The disks before each operation of one open.
fn disks_of_open(script: &Script, disk: &Disk, seed: u64) -> (Vec<Disk>, State) {
    let sim = Simulation::on(disk.clone(), seed);
    let disks = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&disks);
    sim.vfs.set_observer(Some(Box::new(move |_, _, disk| {
        kept.lock().unwrap().push(disk.clone());
    })));
    let db = script.open(&sim).unwrap();
    sim.vfs.set_observer(None);
    let state = State::of(&db).unwrap();
    (std::mem::take(&mut *disks.lock().unwrap()), state)
}

#[test]
fn crashes_during_recovery_change_nothing_of_what_is_recovered() {
    let script = Script::draw(&mut Draw::new(7), MemtableType::Skiplist, &NAMES);
    let recording = record(&script, 7);
    let modes = [CrashMode::Subset, CrashMode::Prefix, CrashMode::DropAll, CrashMode::KeepAll];
    let mut crashes = 0;
    for (at, point) in recording.points.iter().enumerate().step_by(23) {
        let seed = at as u64;
        let crashed = point.disk.crash(modes[at % 4], seed);
        let (disks, state) = disks_of_open(&script, &crashed, seed);
        for (second, disk) in disks.iter().enumerate() {
            let here = Here { point: &point.what, mode: modes[(at + second) % 4], seed };
            let crashed = disk.crash(here.mode, seed);
            let (disks, again) = disks_of_open(&script, &crashed, seed + 1);
            assert_eq!(again, state, "crash before operation {second} of the recovery");
            // Once more, somewhere in the recovery from the crash in the recovery.
            if let Some(disk) = disks.get(second % disks.len().max(1)) {
                let crashed = disk.crash(modes[(at + second + 1) % 4], seed + 2);
                let sim = Simulation::on(crashed, seed + 2);
                assert_eq!(State::of(&script.open(&sim).unwrap()).unwrap(), state, "{second}");
            }
            crashes += 2;
        }
    }
    println!("{crashes} crashes during recovery");
}

#[test]
fn a_keyspace_without_a_log_comes_back_as_of_its_last_flush_or_later() {
    const WITH_UNLOGGED: [&str; 2] = ["default", UNLOGGED];
    let mut draw = Draw::new(11);
    let mut script = Script::draw(&mut draw, MemtableType::HashSkiplist, &WITH_UNLOGGED);
    let own = memtide::KeyspaceConfig { durability: Some(Durability::None), ..Default::default() };
    script.config.keyspaces.insert(UNLOGGED.to_owned(), own);
    script.config.durability = Some(Durability::Buffered);
    let recording = record(&script, 11);
    let mut crashes = 0;
    for point in recording.points.iter().step_by(3) {
        for (mode, seed) in WAYS {
            let here = Here { point: &point.what, mode, seed };
            let sim = Simulation::on(point.disk.crash(mode, seed), seed);
            let db = script.open(&sim).unwrap();
            let (state, progress) = (State::of(&db).unwrap(), &point.progress);
            let prefix = |name: &str, least: usize| {
                let part = state.only(name);
                let mut prefixes = recording.states[least..=progress.submitted].iter();
                prefixes.any(|state| state.only(name) == part)
            };
            let least = if mode == CrashMode::KeepAll { progress.acked } else { progress.durable };
            assert!(prefix("default", least), "the logged keyspace");
            assert!(prefix(UNLOGGED, progress.flushed), "the keyspace without a log");
            for name in WITH_UNLOGGED {
                db.keyspace(name).unwrap();
            }
            let change = Change::Put(UNLOGGED, b"after".to_vec(), b"the crash".to_vec());
            let seq = oracle::write(&db, &[change], Durability::Buffered).unwrap();
            assert!(seq > progress.seq, "number {seq} was given out before");
            drop(here);
            crashes += 1;
        }
    }
    println!("{crashes} crashes with a keyspace that has no log");
}
