//! Compaction strategies: what they write and keep on the same load, what `fifo` drops, where the choice is stored.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use memtide::{Compaction, Config, Db, Durability, KeyspaceConfig};
use memtide_env::Simulation;
use memtide_env::vfs::{CrashMode, IoOp};

use crate::oracle::Draw;

const ROOT: &str = "/db";

fn config(compaction: Compaction) -> Config {
    let mut config = Config {
        compaction: Some(compaction),
        durability: Some(Durability::Buffered),
        flush_target: Some(16 << 20),
        ..Config::default()
    };
    config.tree.table_size = Some(8 << 10);
    config.tree.block_size = Some(1 << 10);
    config.tree.level1_size = Some(32 << 10);
    config
}

fn open(sim: &Simulation, config: Config) -> Db {
    Db::builder(ROOT).config(config).env(sim.env.clone()).open().unwrap()
}

/// Counts what is written to tables.
pub(crate) fn count_table_bytes(sim: &Simulation) -> Arc<AtomicU64> {
    let bytes = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&bytes);
    sim.vfs.set_observer(Some(Box::new(move |_, op, _| {
        if let IoOp::Write { path, len, .. } = op
            && path.extension().is_some_and(|end| end == "sst")
        {
            seen.fetch_add(*len as u64, Ordering::Relaxed);
        }
    })));
    bytes
}

struct Load {
    /// Bytes of tables written for each that a flush wrote.
    write: f64,
    /// Bytes of tables for each there is after a merge of everything.
    space: f64,
}

/// Forty thousand puts in flushes of about 10 KiB, each to the key that `next` says.
fn load(compaction: Compaction, mut next: impl FnMut(u64) -> u64) -> Load {
    let sim = Simulation::new(1);
    let written = count_table_bytes(&sim);
    let mut config = config(compaction);
    config.compression = Some(memtide::Codec::None);
    let db = open(&sim, config);
    let mut flushed = 0;
    for flush in 0..400 {
        let mut batch = db.batch();
        for at in 0..100 {
            let key = format!("{:08}", next(100 * flush + at));
            batch.put(&db.default_keyspace(), key, [7; 80]);
        }
        db.write(batch).unwrap();
        let before = written.load(Ordering::Relaxed);
        db.flush().unwrap();
        flushed += written.load(Ordering::Relaxed) - before;
        sim.steps.run_until_idle();
    }
    let write = written.load(Ordering::Relaxed) as f64 / flushed as f64;
    let bytes = || db.stats().keyspaces[0].table_bytes as f64;
    let settled = bytes();
    db.compact().unwrap();
    Load { write, space: settled / bytes() }
}

#[test]
fn strategies_trade_bytes_written_for_bytes_kept() {
    let [leveled, lazy, tiered, _] = Compaction::ALL;
    let [leveled, lazy, tiered] = [leveled, lazy, tiered].map(|strategy| {
        let mut draw = Draw::new(3);
        let load = load(strategy, |_| draw.below(10_000));
        println!("{strategy}: {:.2} written, {:.2} kept", load.write, load.space);
        load
    });
    assert!(leveled.space <= 1.15, "{} of what there is", leveled.space);
    assert!(lazy.write < 0.8 * leveled.write && lazy.space < 1.3);
    assert!(tiered.write < 0.8 * lazy.write && tiered.space < 2.2);
}

/// Tables that meet no others are not rewritten, whatever they are merged with; nothing is compressed here.
#[test]
fn rising_keys_are_written_once_under_every_strategy() {
    for strategy in Compaction::ALL {
        let load = load(strategy, |at| at);
        println!("{strategy}: {:.2} written for rising keys", load.write);
        assert!(load.write <= 1.05, "{strategy}: {}", load.write);
    }
}

/// Changes at both ends of a run: what lies between them stays as it is, and no new table reaches across it.
#[test]
fn tables_between_those_that_are_merged_are_kept() {
    for strategy in [Compaction::Leveled, Compaction::LazyLeveled] {
        let sim = Simulation::new(1);
        let written = count_table_bytes(&sim);
        let mut config = config(strategy);
        config.compression = Some(memtide::Codec::None);
        config.tree.level0_runs = Some(2);
        config.tree.level1_size = Some(1 << 20);
        let db = open(&sim, config);
        let key = |at: u32| format!("{at:04}");
        for at in 0..2000 {
            db.put(key(at), [1; 100]).unwrap();
        }
        db.compact().unwrap();
        let before = written.load(Ordering::Relaxed);
        // A range tombstone is the last thing before what is kept, and one the first behind it.
        for (first, range) in [(0, 20..30), (1980, 1970..1980)] {
            (first..first + 10).for_each(|at| db.put(key(at), [2; 100]).unwrap());
            db.delete_range(key(range.start)..key(range.end)).unwrap();
            db.flush().unwrap();
        }
        sim.steps.run_until_idle();
        let stats = db.stats();
        assert_eq!(stats.compaction_failure, None);
        assert_eq!(stats.keyspaces[0].levels[0].tables, 0, "level 0 was merged");
        let written = written.load(Ordering::Relaxed) - before;
        assert!(written < 60_000, "{strategy}: {written} B for two ends of 220,000 B");
        for at in 0..2000_u32 {
            let value = match at {
                20..30 | 1970..1980 => None,
                0..10 | 1980..1990 => Some(2),
                _ => Some(1),
            };
            let found = db.get(key(at)).unwrap().map(|value| value[0]);
            assert_eq!(found, value, "{strategy}: {at}");
        }
        assert_eq!(db.iter().count(), 1980);
    }
}

/// Tombstones that a snapshot keeps alive make no work, and go once it is gone.
#[test]
fn deletes_give_their_space_back_when_no_snapshot_needs_them() {
    for strategy in [Compaction::Leveled, Compaction::LazyLeveled, Compaction::Tiered] {
        let sim = Simulation::new(1);
        let mut config = config(strategy);
        config.tree.level0_runs = Some(2);
        let db = open(&sim, config);
        let key = |at: u32| format!("{at:04}");
        (0..2000).for_each(|at| db.put(key(at), key(at).repeat(10)).unwrap());
        db.compact().unwrap();
        let snapshot = db.snapshot();
        for part in 0..2 {
            (0..2000).filter(|at| at % 2 == part).for_each(|at| db.delete(key(at)).unwrap());
            db.flush().unwrap();
        }
        let settle = || {
            sim.clock.advance(Duration::from_secs(2));
            sim.steps.run_until_idle();
            let stats = db.stats();
            assert_eq!(stats.compaction_failure, None);
            (stats.compactions, stats.keyspaces[0].table_bytes)
        };
        let (compactions, _) = settle();
        assert_eq!(settle().0, compactions, "{strategy}: nothing can be gained yet");
        assert_eq!(snapshot.iter(&db.default_keyspace()).count(), 2000);
        drop(snapshot);
        let bytes = settle().1;
        assert_eq!(db.iter().count(), 0);
        assert!(bytes < 20_000, "{strategy}: {bytes} B of nothing");
    }
}

/// What the keyspace shows from the first to the last of the keys `0..100`.
fn shown(db: &Db) -> Vec<u32> {
    let keys = db.iter().map(|entry| entry.unwrap().0);
    keys.map(|key| str::from_utf8(&key).unwrap().parse().unwrap()).collect()
}

#[test]
fn fifo_drops_the_oldest_tables_and_nothing_comes_back() {
    let sim = Simulation::new(1);
    let mut config = config(Compaction::Fifo);
    config.tree.fifo_size = Some(20 << 10);
    config.compression = Some(memtide::Codec::None);
    let db = open(&sim, config);
    for round in 0..100 {
        db.put(format!("{round:03}"), vec![1; 1000]).unwrap();
        // An old write is deleted, and one that is dropped before its delete is.
        db.delete(format!("{:03}", round / 2)).unwrap();
        db.flush().unwrap();
        sim.steps.run_until_idle();
        let (kept, bytes) = (shown(&db), db.stats().keyspaces[0].table_bytes);
        assert!(bytes <= 20 << 10, "{bytes} B");
        assert!(kept.iter().all(|key| *key > round / 2), "{kept:?} after {round}");
        assert!(kept.len() >= 8.min(round as usize / 2), "{kept:?} after {round}");
    }
    let before = shown(&db);
    let stats = db.stats();
    assert!(stats.keyspaces[0].levels[0].runs >= 8, "nothing was merged");
    let (snapshot, open_iter) = (db.snapshot(), db.iter());
    for round in 100..150 {
        db.put(format!("{round:03}"), vec![1; 1000]).unwrap();
        db.flush().unwrap();
    }
    db.compact().unwrap();
    assert_eq!(open_iter.count(), before.len(), "an iterator keeps what it reads");
    let gone = format!("{:03}", before[0]);
    assert!(snapshot.get(&db.default_keyspace(), gone).unwrap().is_none(), "a snapshot does not");
}

#[test]
fn fifo_drops_what_has_become_too_old() {
    let sim = Simulation::new(1);
    let mut config = config(Compaction::Fifo);
    config.tree.fifo_age = Some(Duration::from_secs(100));
    let db = open(&sim, config);
    for minute in 0..10 {
        db.put(format!("{minute:03}"), "measured").unwrap();
        db.flush().unwrap();
        sim.clock.advance(Duration::from_secs(60));
        sim.steps.run_until_idle();
        assert_eq!(shown(&db), [minute], "the one before is two minutes old");
    }
}

/// What a flush has just written is not dropped for its size, and what nothing will rewrite is compressed.
#[test]
fn fifo_keeps_the_newest_table_and_compresses_it() {
    let sim = Simulation::new(2);
    let mut config = config(Compaction::Fifo);
    config.tree.fifo_size = Some(4 << 10);
    let mut sizes = Vec::new();
    for codec in memtide::Codec::ALL.into_iter().filter(|codec| codec.is_built_in()) {
        config.compression = Some(codec);
        let db = open(&sim, config.clone());
        for number in 0..100 {
            db.put(format!("{number:03}"), vec![1; 1000]).unwrap();
        }
        db.flush().unwrap();
        sim.steps.run_until_idle();
        assert_eq!(shown(&db).len(), 100);
        let stats = db.stats();
        assert_eq!(stats.keyspaces[0].tables, 1, "only the one before went");
        sizes.push(stats.keyspaces[0].table_bytes);
    }
    assert!(sizes[1..].iter().all(|size| *size < sizes[0] / 5), "{sizes:?}");
}

#[test]
fn compacting_a_fifo_keyspace_drops_all_that_is_too_old() {
    let sim = Simulation::new(3);
    let mut config = config(Compaction::Fifo);
    config.tree.fifo_age = Some(Duration::from_secs(100));
    config.enable_background_compaction = Some(false);
    let db = open(&sim, config);
    for number in 0..200 {
        db.put(format!("{number:03}"), "measured").unwrap();
        db.flush().unwrap();
    }
    sim.clock.advance(Duration::from_secs(90));
    db.put("200", "measured").unwrap();
    db.flush().unwrap();
    sim.clock.advance(Duration::from_secs(20));
    db.compact().unwrap();
    assert_eq!(shown(&db), [200]);
}

#[test]
fn compacting_a_level_0_of_any_size_opens_few_of_its_tables_at_once() {
    for compaction in [Compaction::Leveled, Compaction::LazyLeveled, Compaction::Tiered] {
        let sim = Simulation::new(5);
        let mut config = config(compaction);
        config.enable_background_compaction = Some(false);
        let db = open(&sim, config);
        for number in 0..300 {
            db.put(format!("{number:03}"), vec![1; 100]).unwrap();
            db.put("every", number.to_string()).unwrap();
            db.flush().unwrap();
        }
        assert_eq!(db.stats().keyspaces[0].levels[0].runs, 300);
        db.compact().unwrap();
        let stats = db.stats();
        assert_eq!(stats.keyspaces[0].levels[0].runs, 0, "{compaction:?}: {stats:?}");
        assert!(stats.compactions > 3, "{compaction:?}: {} merges", stats.compactions);
        assert_eq!(db.iter().count(), 301, "{compaction:?}");
        assert_eq!(db.get("every").unwrap().as_deref(), Some(&b"299"[..]));
    }
}

/// A table that cannot be read stops neither what needs no table opened nor other keyspaces, and is told of.
#[test]
fn a_keyspace_that_cannot_be_compacted_rests_and_says_so() {
    let sim = Simulation::new(4);
    let mut config = config(Compaction::Leveled);
    let own = KeyspaceConfig { compaction: Some(Compaction::Leveled), ..KeyspaceConfig::default() };
    config.keyspaces.insert("damaged".to_owned(), own);
    config.enable_background_compaction = Some(true);
    let db = open(&sim, config.clone());
    let damaged = db.keyspace("damaged").unwrap();
    damaged.put("k", vec![1; 5000]).unwrap();
    db.flush().unwrap();
    drop(damaged);
    db.close().unwrap();
    let table =
        sim.vfs.files().into_iter().find(|path| path.extension().is_some_and(|e| e == "sst"));
    sim.vfs.corrupt(&table.unwrap(), 100, 0xFF).unwrap();
    let db = open(&sim, config);
    let spaces = [db.keyspace("damaged").unwrap(), db.default_keyspace()];
    for round in 0..20 {
        for space in &spaces {
            space.put(format!("{round:03}"), vec![1; 5000]).unwrap();
        }
        db.flush().unwrap();
        sim.steps.run_until_idle();
    }
    let stats = db.stats();
    assert!(
        stats.compaction_failure.as_ref().is_some_and(|why| why.contains("corrupt")),
        "{stats:?}"
    );
    assert!(stats.keyspaces[0].levels[0].runs < 8, "the other one is compacted: {stats:?}");
    assert!(stats.keyspaces[1].levels[0].runs > 15, "this one is not: {stats:?}");
}

#[test]
fn the_strategy_is_stored_and_the_stronger_name_wins() {
    let sim = Simulation::new(1);
    let mut named = config(Compaction::Tiered);
    let own = KeyspaceConfig { compaction: Some(Compaction::Fifo), ..KeyspaceConfig::default() };
    named.keyspaces.insert("events".to_owned(), own);
    let db = open(&sim, named);
    let (events, other) = (db.keyspace("events").unwrap(), db.keyspace("other").unwrap());
    let all = |db: &Db| db.stats().keyspaces.iter().map(|one| one.compaction).collect::<Vec<_>>();
    let (tiered, fifo) = (Compaction::Tiered, Compaction::Fifo);
    assert_eq!(all(&db), [tiered, fifo, tiered]);
    other.set_compaction(Compaction::LazyLeveled).unwrap();
    db.default_keyspace().set_compaction(Compaction::Leveled).unwrap();
    events.set_memtable(memtide::MemtableType::Trie).unwrap();
    drop((events, other));
    db.close().unwrap();

    let db = open(&sim, Config::default());
    assert_eq!(all(&db), [Compaction::Leveled, fifo, Compaction::LazyLeveled], "as it was left");
    db.close().unwrap();
    let db = open(&sim, config(Compaction::Tiered));
    assert_eq!(all(&db), [tiered, fifo, Compaction::LazyLeveled], "named for the default keyspace");
    db.close().unwrap();
    assert_eq!(all(&open(&sim, Config::default()))[0], tiered, "what was named is stored");
}

/// From each strategy to each other one: the tree the one left is good for the other.
#[test]
fn every_strategy_goes_on_from_the_tree_of_every_other() {
    let sim = Simulation::new(1);
    let db = open(&sim, config(Compaction::Leveled));
    let mut draw = Draw::new(1);
    let mut want = std::collections::BTreeMap::new();
    for (from, to) in (0..4).flat_map(|from| (0..4).map(move |to| (from, to))) {
        for strategy in [from, to].map(|at| Compaction::ALL[at]) {
            db.default_keyspace().set_compaction(strategy).unwrap();
            for _ in 0..6 {
                for _ in 0..60 {
                    let (key, value) = (format!("{:04}", draw.below(2000)), draw.value(10));
                    db.put(&key, &value).unwrap();
                    want.insert(key.into_bytes(), value);
                }
                db.flush().unwrap();
                sim.steps.run_until_idle();
            }
            let found = db.iter().map(|entry| entry.unwrap());
            let found: Vec<_> = found.map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
            assert!(found.into_iter().eq(want.clone()), "{strategy}");
        }
    }
    db.default_keyspace().set_compaction(Compaction::Leveled).unwrap();
    sim.steps.run_until_idle();
    let levels = db.stats().keyspaces[0].levels.clone();
    assert!(levels[1..].iter().all(|level| level.runs <= 1), "{levels:?}");
}

/// A merge of everything needs the space of a slice more than it ends with, not that of everything: what a slice
/// replaces is removed before the next one. The upper run reaches across all slices, so it goes last.
#[test]
fn a_large_merge_gives_space_back_slice_by_slice() {
    for compaction in [Compaction::Leveled, Compaction::LazyLeveled, Compaction::Tiered] {
        let sim = Simulation::new(1);
        let mut config = config(compaction);
        config.enable_background_compaction = Some(false);
        config.compression = Some(memtide::Codec::None);
        let db = open(&sim, config);
        let put = |every: u32, value: u8| {
            for number in (0..20_000_u32).step_by(usize::try_from(every).unwrap()) {
                db.put(number.to_be_bytes(), [value; 100]).unwrap();
            }
        };
        put(1, 1);
        db.compact().unwrap();
        let before = db.stats();
        put(100, 2);
        db.delete_range(500_u32.to_be_bytes()..700_u32.to_be_bytes()).unwrap();
        db.delete_range(5000_u32.to_be_bytes()..15_000_u32.to_be_bytes()).unwrap();
        db.put(600_u32.to_be_bytes(), "again").unwrap();
        db.flush().unwrap();
        // The most table files there are at a time.
        let most = Arc::new(AtomicU64::new(0));
        let (seen, mut now) = (Arc::clone(&most), db.stats().keyspaces[0].tables as u64);
        let most_needed = now + 40;
        let disks = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&disks);
        let is_table = |path: &Path| path.extension().is_some_and(|end| end == "sst");
        sim.vfs.set_observer(Some(Box::new(move |at, op, disk| {
            if at % 97 == 0 {
                kept.lock().unwrap().push(disk.clone());
            }
            match op {
                IoOp::Create { path, .. } if is_table(path) => now += 1,
                IoOp::Remove { path } if is_table(path) => now -= 1,
                _ => {}
            }
            seen.fetch_max(now, Ordering::Relaxed);
        })));
        db.compact().unwrap();
        sim.vfs.set_observer(None);
        let most = most.load(Ordering::Relaxed);
        println!("{compaction}: {most} table files at most, {} before", most_needed - 40);
        assert!(most > 200 && most < most_needed, "{compaction}: {most}, not {most_needed} files");
        let after = db.stats();
        assert!(after.compactions > before.compactions + 5, "{compaction}: {}", after.compactions);
        let check = |db: &Db| {
            assert_eq!(db.iter().count(), 9801);
            assert_eq!(db.iter().rev().count(), 9801);
            for (number, value) in [(600_u32, &b"again"[..]), (400, &[2; 100]), (401, &[1; 100])] {
                assert_eq!(db.get(number.to_be_bytes()).unwrap().as_deref(), Some(value));
            }
        };
        check(&db);
        // Whatever slices a power cut leaves.
        let disks = std::mem::take(&mut *disks.lock().unwrap());
        assert!(disks.len() > 4, "{} cuts", disks.len());
        for (seed, disk) in (0..).zip(disks) {
            let sim = Simulation::on(disk.crash(CrashMode::Subset, seed), seed);
            let db = open(&sim, self::config(compaction));
            check(&db);
            db.compact().unwrap();
            check(&db);
        }
    }
}
