//! The memory tier: how many memtables there are, what their merges keep, and reads of many keys at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use memtide::{Config, Db, Durability, MemtableType, Snapshot};
use memtide_env::{Clock, Env, Simulation};

use crate::oracle::{Change, Draw, NAMES, Repeat, State, seeds, write};

const ROOT: &str = "/db";

fn open(sim: &Simulation, config: &Config) -> Db {
    Db::builder(ROOT).config(config.clone()).env(sim.env.clone()).open().unwrap()
}

/// Small memtables, and no reason to flush them but their number.
fn roomy(kind: MemtableType) -> Config {
    let mut config = Config {
        memtable_type: Some(kind.into()),
        max_memtable_size: Some(4 << 10),
        memory_budget: Some(64 << 20),
        flush_target: Some(16 << 20),
        durability: Some(Durability::Buffered),
        enable_background_compaction: Some(false),
        ..Config::default()
    };
    config.tree.wal_size = Some(1 << 30);
    config
}

/// Memtables that reads of the default keyspace look into.
fn runs(db: &Db) -> usize {
    1 + db.stats().keyspaces[0].sealed_runs
}

/// The number in the order of writing: one after the other, or mixed, so that all memtables overlap.
fn key(number: u32, mixed: bool) -> [u8; 4] {
    if mixed { number.wrapping_mul(0x9E37_79B1).to_be_bytes() } else { number.to_be_bytes() }
}

/// A clock that breaks.
#[derive(Debug)]
struct Broken {
    clock: Arc<dyn Clock>,
    /// Whether one of its readings panics: the time of day, which only flushes and compactions ask for, or the other.
    day_breaks: AtomicBool,
    time_breaks: AtomicBool,
}

impl Clock for Broken {
    fn now(&self) -> Duration {
        assert!(!self.time_breaks.load(Ordering::Relaxed), "the time is out of joint");
        self.clock.now()
    }

    fn wall_ms(&self) -> u64 {
        assert!(!self.day_breaks.load(Ordering::Relaxed), "the day never came");
        self.clock.wall_ms()
    }
}

/// A job that panics cannot be waited for: writers are told, also those that waited before.
#[test]
fn a_job_that_panics_fails_the_writes_and_says_so() {
    for breaks in ["the day never came", "the time is out of joint"] {
        let sim = Simulation::new(11);
        let clock = Arc::new(Broken {
            clock: Arc::clone(&sim.env.clock),
            day_breaks: AtomicBool::new(false),
            time_breaks: AtomicBool::new(false),
        });
        let env = Env { clock: clock.clone(), ..sim.env.clone() };
        let mut config = roomy(MemtableType::Skiplist);
        config.memory_budget = Some(1 << 20);
        config.flush_target = Some(128 << 10);
        let db = Db::builder(ROOT).config(config).env(env).open().unwrap();
        db.put("before", "all was well").unwrap();
        clock.day_breaks.store(breaks.contains("day"), Ordering::Relaxed);
        // A writer that waits asks for this time as well, so it is whole again when the first one does.
        clock.time_breaks.store(breaks.contains("time"), Ordering::Relaxed);
        sim.steps.run_until_idle();
        clock.time_breaks.store(false, Ordering::Relaxed);
        let mut writes = (0..10_000_u32).map(|at| db.put(at.to_be_bytes(), [1; 200]));
        let error = writes.find_map(Result::err).expect("there is not so much memory");
        assert_eq!(error.kind(), memtide::ErrorKind::ReadOnly, "{error:?}");
        let reason = db.health().reason.unwrap();
        assert!(reason.contains("panicked") && reason.contains(breaks), "{reason}");
        assert_eq!(db.health().state, memtide::HealthState::Failed);
        assert_eq!(db.resume().unwrap_err().kind(), memtide::ErrorKind::ReadOnly);
        assert!(db.get("before").unwrap().is_some(), "reads go on");
    }
}

/// Gives the jobs all the time they want.
fn rest(sim: &Simulation) {
    for _ in 0..20 {
        sim.steps.run_until_idle();
        sim.clock.advance(Duration::from_millis(20));
    }
    sim.steps.run_until_idle();
}

#[test]
fn reads_look_into_twelve_memtables_at_most_and_at_rest_into_four() {
    for (kind, jobs_run) in
        MemtableType::ALL.into_iter().flat_map(|kind| [(kind, true), (kind, false)])
    {
        let sim = Simulation::new(1);
        let db = open(&sim, &roomy(kind));
        let (mut most, mut draw) = (0, Draw::new(5));
        for at in 0..4000_u32 {
            db.put(format!("{:05}", at.wrapping_mul(7919) % 3000), [3; 40]).unwrap();
            // Else only while a writer waits for them.
            if jobs_run {
                sim.steps.run_until_idle();
            }
            most = most.max(runs(&db));
            if draw.one_in(400) {
                rest(&sim);
                assert!(runs(&db) <= 4, "{kind}: {} runs at rest", runs(&db));
            }
        }
        let expected = if jobs_run { 6..=11 } else { 12..=12 };
        assert!(expected.contains(&most), "{kind}: up to {most} runs");
        rest(&sim);
        assert!(runs(&db) <= 4, "{kind}: {} runs at rest", runs(&db));
        assert_eq!(db.stats().flushes, 0, "{kind}: nothing had to be flushed");
        assert_eq!(db.iter().count(), 3000, "{kind}");
    }
}

/// What a load in key order fills is copied never, what a mixed one fills is.
#[test]
fn memtables_that_do_not_overlap_are_joined_to_a_run_and_not_copied() {
    for (kind, mixed) in
        MemtableType::ALL.into_iter().flat_map(|kind| [(kind, false), (kind, true)])
    {
        let sim = Simulation::new(12);
        let db = open(&sim, &roomy(kind));
        let (mut most, mut sealed, mut peak) = (0, 0, 0);
        for at in 0..4000_u32 {
            db.put(key(at, mixed), at.to_le_bytes()).unwrap();
            if at % 5 == 0 {
                sim.steps.run_until_idle();
            }
            let before = std::mem::replace(&mut sealed, db.stats().keyspaces[0].sealed);
            assert!(mixed || sealed >= before, "{kind}: {sealed} memtables of {before}");
            (most, peak) = (most.max(runs(&db)), peak.max(sealed));
        }
        rest(&sim);
        assert!(runs(&db) <= 4, "{kind}: {} runs at rest", runs(&db));
        assert!(most <= 11, "{kind}: up to {most} runs");
        assert_eq!(peak > 20, !mixed, "{kind}: up to {peak} memtables");
        assert_eq!(db.stats().flushes, 0, "{kind}");
        let check = |state: &str| {
            let value = |at: u32| at.to_le_bytes();
            let all: BTreeMap<_, _> = (0..4000).map(|at| (key(at, mixed), value(at))).collect();
            let all: Vec<_> = all.into_iter().collect();
            let own = |row: memtide::Result<(memtide::Slice, memtide::Slice)>| {
                let (key, value) = row.unwrap();
                (key[..].try_into().unwrap(), value[..].try_into().unwrap())
            };
            assert_eq!(db.iter().map(own).collect::<Vec<_>>(), all, "{kind} {state}");
            let mut back: Vec<_> = db.iter().rev().map(own).collect();
            back.reverse();
            assert_eq!(back, all, "{kind} {state} backwards");
            for at in (0..4000).step_by(7) {
                let key = key(at, mixed);
                assert_eq!(db.get(key).unwrap().unwrap(), value(at)[..], "{kind} {state} {at}");
                let from = all.partition_point(|row| row.0 < key);
                let next: Vec<_> = db.range(key..).take(3).map(own).collect();
                assert_eq!(next, all[from..all.len().min(from + 3)], "{kind} {state} {at}");
                let before: Vec<_> = db.range(..key).rev().take(2).map(own).collect();
                let want: Vec<_> =
                    all[from.saturating_sub(2)..from].iter().rev().copied().collect();
                assert_eq!(before, want, "{kind} {state} {at}");
                let absent = [&key[..], b"-"].concat();
                assert!(db.get(absent).unwrap().is_none(), "{kind} {state} {at}");
            }
        };
        check("in memory");
        // Into what is joined already, over it, and away from it.
        db.delete_range(key(100, false)..key(101, false)).unwrap();
        db.put(key(100, mixed), 100_u32.to_le_bytes()).unwrap();
        rest(&sim);
        db.flush().unwrap();
        check("flushed");
        drop(db);
        let db = open(&sim, &roomy(kind));
        assert_eq!(db.iter().count(), 4000, "{kind} reopened");
    }
}

/// Only the memtables of a run that others overlap are copied with them.
#[test]
fn a_write_into_a_run_has_its_part_copied_alone() {
    for kind in MemtableType::ALL {
        let sim = Simulation::new(13);
        let db = open(&sim, &roomy(kind));
        for at in 0..4000_u32 {
            db.put(key(at, false), at.to_le_bytes()).unwrap();
        }
        rest(&sim);
        let joined = db.stats().keyspaces[0].sealed;
        assert!(joined > 20 && runs(&db) <= 4, "{kind}: {joined} in {} runs", runs(&db));
        let snapshot = db.snapshot();
        // As many versions as make some memtables, of a few neighbouring keys.
        for round in 0..100_u32 {
            for at in 2000..2010 {
                db.put(key(at, false), round.to_be_bytes()).unwrap();
            }
        }
        rest(&sim);
        let sealed = db.stats().keyspaces[0].sealed;
        assert!(sealed + 5 >= joined, "{kind}: {sealed} of {joined} are left");
        assert!(runs(&db) <= 4, "{kind}: {} runs", runs(&db));
        let newest = 99_u32.to_be_bytes();
        for at in 0..4000_u32 {
            let (old, changed) = (at.to_le_bytes(), (2000..2010).contains(&at));
            let want = if changed { newest } else { old };
            assert_eq!(db.get(key(at, false)).unwrap().unwrap(), want[..], "{kind} {at}");
            let before = snapshot.get(&db.default_keyspace(), key(at, false)).unwrap();
            assert_eq!(before.unwrap(), old[..], "{kind} {at}");
        }
        assert_eq!(db.iter().count(), 4000, "{kind}");
    }
}

/// Memtables are small for the sake of their indexes: a few large entries fill none.
#[test]
fn few_large_entries_make_few_memtables_and_are_not_merged_in_memory() {
    for kind in MemtableType::ALL {
        let sim = Simulation::new(9);
        let mut config = roomy(kind);
        config.max_memtable_size = Some(16 << 10);
        config.flush_target = Some(1 << 20);
        let db = open(&sim, &config);
        for at in 0..90_u32 {
            db.put(at.to_be_bytes(), [2; 2500]).unwrap();
        }
        assert_eq!(runs(&db), 1, "{kind}: a quarter of the flush target is one memtable");
        db.put("small", [1; 8]).unwrap();
        for at in 90..360_u32 {
            db.put(at.to_be_bytes(), [2; 2500]).unwrap();
        }
        assert!((3..=5).contains(&runs(&db)), "{kind}: {} runs", runs(&db));
        rest(&sim);
        for at in 0..600_u32 {
            db.put((at + 1000).to_be_bytes(), [1; 100]).unwrap();
        }
        assert!(runs(&db) >= 4, "{kind}: small entries make many, {} runs", runs(&db));
        let stats = db.stats();
        assert!(stats.memory_used <= stats.memory_budget, "{kind}: {stats:?}");
        assert_eq!(db.iter().count(), 961, "{kind}");
    }
}

/// Without memory or with too many range tombstones to merge, flushes keep the bounds.
#[test]
fn what_cannot_be_merged_is_flushed_instead() {
    let sim = Simulation::new(2);
    let mut config = roomy(MemtableType::Skiplist);
    config.max_memtable_size = Some(64 << 10);
    let db = open(&sim, &config);
    for at in 0..6000_u32 {
        let key = (at % 50).to_be_bytes();
        db.delete_range(&key[..]..&(at % 50 + 2).to_be_bytes()[..]).unwrap();
        sim.steps.run_until_idle();
        assert!(runs(&db) <= 12, "{} runs", runs(&db));
    }
    rest(&sim);
    assert!(runs(&db) <= 4 && db.stats().flushes > 0, "{:?}", db.stats());
    assert_eq!(db.iter().count(), 0);
}

#[test]
fn merges_in_memory_take_nothing_that_a_writer_needs() {
    for (kind, mixed) in
        MemtableType::ALL.into_iter().flat_map(|kind| [(kind, true), (kind, false)])
    {
        let sim = Simulation::new(3);
        let mut config = roomy(kind);
        config.memory_budget = Some(512 << 10);
        config.flush_target = Some(128 << 10);
        config.max_memtable_size = Some(16 << 10);
        let db = open(&sim, &config);
        for at in 0..5000_u32 {
            db.put(key(at, mixed), [1; 100]).unwrap();
            sim.steps.run_until_idle();
            let stats = db.stats();
            assert!(runs(&db) <= 12, "{kind}: {stats:?}");
            assert!(stats.memory_used <= stats.memory_budget, "{kind}: {stats:?}");
        }
        rest(&sim);
        assert!(runs(&db) <= 4, "{kind}");
        assert_eq!(db.iter().count(), 5000, "{kind}");
    }
}

/// What the tables of the default keyspace hold after a flush: (tables, bytes).
fn flushed(db: &Db) -> (usize, u64) {
    db.flush().unwrap();
    let stats = db.stats();
    (stats.keyspaces[0].tables, stats.keyspaces[0].table_bytes)
}

/// A table with just these rows, for comparison.
fn bytes_of(rows: &BTreeMap<Vec<u8>, Vec<u8>>, deleted: &[Vec<u8>]) -> u64 {
    let sim = Simulation::new(9);
    let mut config = roomy(MemtableType::Sorted);
    config.max_memtable_size = Some(8 << 20);
    let db = open(&sim, &config);
    for key in deleted {
        // Below every snapshot there is something to delete.
        db.put(key, "").unwrap();
    }
    let pin = (!deleted.is_empty()).then(|| db.snapshot());
    for key in deleted {
        db.delete(key).unwrap();
    }
    for (key, value) in rows {
        db.put(key, value).unwrap();
    }
    drop(pin);
    flushed(&db).1
}

/// 60 keys are written 100 times over, with values that tell the rounds apart; every round fills several
/// memtables.
fn overwrite(db: &Db, rest_at: impl Fn(u32)) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut rows = BTreeMap::new();
    for round in 0..100_u32 {
        for key in 0..60_u32 {
            let (key, value) = (format!("key{key:04}").into_bytes(), format!("{round:0200}"));
            db.put(&key, &value).unwrap();
            rows.insert(key, value.into_bytes());
        }
        rest_at(round);
    }
    rows
}

#[test]
fn a_version_that_no_snapshot_needs_never_reaches_the_disk() {
    for kind in MemtableType::ALL {
        let sim = Simulation::new(4);
        let db = open(&sim, &roomy(kind));
        let rows = overwrite(&db, |_| {});
        assert!(db.stats().keyspaces[0].sealed > 1, "{kind}: there are several memtables");
        // Where there are as many memtables as there may be, one is flushed after the others.
        sim.steps.run_until_idle();
        let (tables, bytes) = flushed(&db);
        let want = bytes_of(&rows, &[]);
        assert_eq!(tables as u64, db.stats().flushes, "{kind}");
        // Sequence numbers of rounds apart differ in length from those of one after the other.
        assert!(bytes.abs_diff(want) <= want / 50, "{kind}: {bytes} B, {want} B for the survivors");
        let found: BTreeMap<_, _> =
            db.iter().map(|row| row.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap()).collect();
        assert_eq!(found, rows, "{kind}");
    }
}

#[test]
fn memory_of_overwritten_versions_comes_back_before_any_flush() {
    let sim = Simulation::new(5);
    let db = open(&sim, &roomy(MemtableType::Trie));
    overwrite(&db, |_| {});
    rest(&sim);
    let sealed = db.stats().keyspaces[0].sealed_bytes;
    // 100 rounds of 60 values of 200 bytes were written; one round is left, and what did not yet meet its successor.
    assert!(sealed < 5 * 60 * 300, "{sealed} B are sealed");
    assert_eq!(db.stats().flushes, 0);
}

#[test]
fn a_snapshot_keeps_its_versions_through_merges_in_memory_and_a_flush() {
    for kind in MemtableType::ALL {
        let sim = Simulation::new(6);
        let db = open(&sim, &roomy(kind));
        let default = db.default_keyspace();
        let snapshots = std::cell::RefCell::new(Vec::<(u32, Snapshot)>::new());
        overwrite(&db, |round| {
            if round % 30 == 7 {
                snapshots.borrow_mut().push((round, db.snapshot()));
                rest(&sim);
            }
        });
        let check = |state: &str| {
            for (round, snapshot) in snapshots.borrow().iter() {
                let value = snapshot.get(&default, "key0031").unwrap().unwrap();
                assert_eq!(value, format!("{round:0200}").as_bytes(), "{kind} {state}");
                assert_eq!(snapshot.iter(&default).count(), 60, "{kind} {state}");
            }
        };
        check("in memory");
        rest(&sim);
        check("at rest");
        let (_, bytes) = flushed(&db);
        check("flushed");
        let versions = 60 * 200 * (1 + snapshots.borrow().len() as u64);
        assert!(bytes > versions && bytes < versions * 3 / 2, "{kind}: {bytes} B");
    }
}

/// Deletes in a merge in memory still hide what lies in tables.
#[test]
fn deletes_survive_merges_in_memory() {
    for kind in MemtableType::ALL {
        let sim = Simulation::new(7);
        let db = open(&sim, &roomy(kind));
        for at in 0..300_u32 {
            db.put(at.to_be_bytes(), "in a table").unwrap();
        }
        db.flush().unwrap();
        let flushes = db.stats().flushes;
        for at in (0..300_u32).step_by(3) {
            db.delete(at.to_be_bytes()).unwrap();
        }
        db.delete_range(100_u32.to_be_bytes()..200_u32.to_be_bytes()).unwrap();
        for at in 1000..2000_u32 {
            db.put(at.to_be_bytes(), [4; 50]).unwrap();
        }
        rest(&sim);
        assert!(runs(&db) <= 4, "{kind}: {:?}", db.stats());
        assert_eq!(db.stats().flushes, flushes, "{kind}: the deletes are in memory");
        let left = |at: &u32| !at.is_multiple_of(3) && !(100..200).contains(at);
        let want: Vec<_> = (0..300).filter(left).chain(1000..2000).collect();
        let found = |db: &Db| -> Vec<u32> {
            let key = |row: memtide::Result<(memtide::Slice, memtide::Slice)>| row.unwrap().0;
            db.iter().map(|row| u32::from_be_bytes(key(row)[..].try_into().unwrap())).collect()
        };
        assert_eq!(found(&db), want, "{kind}");
        db.flush().unwrap();
        assert_eq!(found(&db), want, "{kind} flushed");
        drop(db);
        assert_eq!(found(&open(&sim, &roomy(kind))), want, "{kind} reopened");
    }
}

/// A replay of more memtables than there may be merges them, also where nothing can be flushed.
#[test]
fn opening_keeps_the_bounds() {
    let sim = Simulation::new(8);
    let large = Config { max_memtable_size: Some(4 << 20), ..roomy(MemtableType::Vector) };
    let db = open(&sim, &large);
    for at in 0..5000_u32 {
        db.put(key(at, true), [1; 60]).unwrap();
    }
    drop(db);
    let small = roomy(MemtableType::Vector);
    let builder = || Db::builder(ROOT).config(small.clone()).env(sim.env.clone());
    let reader = builder().read_only(true).open().unwrap();
    assert!(runs(&reader) <= 4, "{} runs", runs(&reader));
    assert_eq!(reader.iter().count(), 5000);
    drop(reader);
    let db = builder().open().unwrap();
    assert!(runs(&db) <= 12, "{} runs", runs(&db));
    rest(&sim);
    assert!(runs(&db) <= 4, "{} runs", runs(&db));
    assert_eq!((db.iter().count(), db.stats().flushes), (5000, 0));
}

/// Large enough that batches and reads of many keys walk ahead.
#[test]
fn a_memtable_beyond_the_caches_takes_batches_and_answers_for_many_keys() {
    const ROUNDS: u32 = 300;
    const EACH: u32 = 90;
    for kind in [MemtableType::Skiplist, MemtableType::HashLinkedList, MemtableType::HashSkiplist] {
        let sim = Simulation::new(1);
        let mut config = roomy(kind);
        (config.max_memtable_size, config.flush_target) = (Some(48 << 20), Some(48 << 20));
        config.memory_budget = Some(256 << 20);
        let db = open(&sim, &config);
        let (own, other) = (db.default_keyspace(), db.keyspace("other").unwrap());
        let key = |number: u32| format!("{:06}", number.wrapping_mul(7919) % 20_011);
        let value = |round: u32| format!("{round:0300}");
        let mut state = BTreeMap::new();
        for round in 0..ROUNDS {
            let mut batch = db.batch();
            for number in round * EACH..(round + 1) * EACH {
                if number % 11 == 0 {
                    batch.delete(&own, key(number / 2));
                    state.remove(&key(number / 2));
                }
                batch.put(&own, key(number), value(round));
                state.insert(key(number), value(round));
                if number % 3 == 0 {
                    batch.put(&other, key(number), b"");
                }
            }
            db.write(batch).unwrap();
        }
        assert_eq!(runs(&db), 1, "all of it is in one memtable");
        for first in (0..24_000).step_by(110) {
            let keys: Vec<_> = (first..first + 110).map(key).collect();
            let found = db.multi_get(&keys).unwrap();
            for (key, found) in keys.iter().zip(found) {
                let want = state.get(key).map(String::as_bytes);
                assert_eq!(found.as_deref(), want, "{kind}: {key}");
            }
        }
    }
}

/// Both forms of a read, of keys in any order, some of them twice.
fn check_multi_get(
    db: &Db,
    name: &str,
    state: &State,
    snapshot: Option<&Snapshot>,
    draw: &mut Draw,
) {
    let keyspace = db.keyspace(name).unwrap();
    let mut keys: Vec<_> = (0..draw.below(40)).map(|_| draw.key()).collect();
    keys.extend_from_within(..keys.len() / 4);
    let found = match snapshot {
        Some(snapshot) => snapshot.multi_get(&keyspace, &keys).unwrap(),
        None => keyspace.multi_get(&keys).unwrap(),
    };
    assert_eq!(found.len(), keys.len());
    for (key, found) in keys.iter().zip(found) {
        let one = match snapshot {
            Some(snapshot) => snapshot.get(&keyspace, key).unwrap(),
            None => keyspace.get(key).unwrap(),
        };
        assert_eq!(found, one, "{}", key.escape_ascii());
        assert_eq!(found.as_deref(), state.get(name, key).map(Vec::as_slice));
    }
}

#[test]
fn many_keys_read_at_once_are_what_single_reads_say() {
    let kinds = MemtableType::ALL.into_iter().cycle();
    let mut joined = false;
    for (seed, kind) in seeds(0..16, 8).into_iter().zip(kinds) {
        let _repeat = Repeat { test: "many_keys_read_at_once_are_what_single_reads_say", seed };
        let (sim, mut draw) = (Simulation::new(seed), Draw::new(seed));
        let mut config = draw.small_config(Some(kind));
        config.memory_budget = Some(4 << 20);
        config.flush_target = Some(draw.pick(&[8 << 10, 32 << 10, 1 << 20]));
        config.tree.wal_size = Some(1 << 20);
        let db = open(&sim, &config);
        for name in NAMES {
            db.keyspace(name).unwrap();
        }
        let (mut state, mut past) = (State::default(), None);
        for _ in 0..600 {
            let changes: Vec<Change> = draw.batch(&NAMES);
            write(&db, &changes, Durability::Buffered).unwrap();
            state.apply(&changes);
            match draw.below(100) {
                0..=2 => db.flush().unwrap(),
                3 => db.compact().unwrap(),
                4..=6 => rest(&sim),
                // In key order: what it fills is joined to a run.
                60 => {
                    for changes in draw.load(&NAMES) {
                        write(&db, &changes, Durability::Buffered).unwrap();
                        state.apply(&changes);
                        sim.steps.run_until_idle();
                    }
                    let all = db.stats().keyspaces;
                    joined |= all.iter().any(|each| each.sealed > each.sealed_runs);
                }
                7..=9 => past = Some((db.snapshot(), state.clone())),
                10..=40 => check_multi_get(&db, draw.pick(&NAMES), &state, None, &mut draw),
                41..=50 => {
                    if let Some((snapshot, state)) = &past {
                        check_multi_get(&db, draw.pick(&NAMES), state, Some(snapshot), &mut draw);
                    }
                }
                _ => {}
            }
        }
    }
    assert!(joined, "no memtables were joined");
}

#[test]
fn no_keys_have_no_values_and_a_closed_database_says_so() {
    let sim = Simulation::new(10);
    let db = open(&sim, &roomy(MemtableType::Sorted));
    assert_eq!(db.multi_get([""; 0]).unwrap(), []);
    assert_eq!(db.multi_get(["absent", ""]).unwrap(), [None, None]);
    let other = db.default_keyspace();
    db.close().unwrap();
    assert_eq!(other.multi_get(["k"]).unwrap_err().kind(), memtide::ErrorKind::Closed);
}
