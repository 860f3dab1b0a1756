//! Memory and space: what writes, readers and upkeep may hold, and what they give back.
//!
//! Each test drives the engine to a limit (the memory budget, nested range tombstones, the size of the log,
//! a table that cannot be read) and checks that it neither passes it nor stops others from working.

use std::path::{Path, PathBuf};
use std::time::Duration;

use memtide::{
    Config, Db, Durability, ErrorKind, HealthState, Iter, Keyspace, LevelStats, MemtableType,
};
use memtide_env::{Simulation, Vfs};

use crate::oracle::Draw;

const ROOT: &str = "/db";

fn open(sim: &Simulation, config: Config) -> Db {
    Db::builder(ROOT).config(config).env(sim.env.clone()).open().unwrap()
}

/// 1 MiB for everything, so that memtables share 512 KiB.
fn tight(max_memtable_size: u64) -> Config {
    let mut config = Config { durability: Some(Durability::Buffered), ..Config::default() };
    config.memory_budget = Some(1 << 20);
    config.max_memtable_size = Some(max_memtable_size);
    config.enable_background_compaction = Some(false);
    config
}

/// Bytes that no codec makes smaller.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut draw = Draw::new(seed);
    (0..len).map(|_| u8::try_from(draw.below(256)).unwrap()).collect()
}

fn tables(sim: &Simulation) -> Vec<PathBuf> {
    let is_table = |path: &PathBuf| path.extension().is_some_and(|name| name == "sst");
    sim.vfs.files().into_iter().filter(is_table).collect()
}

fn content(sim: &Simulation, path: &Path) -> Vec<u8> {
    let file = sim.vfs.open_read(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Writes `len` bytes into each keyspace with one batch, which can never fit, and then what can.
fn refused_and_no_obstacle(max_memtable_size: u64, names: &[&str], len: usize) {
    for kind in MemtableType::ALL {
        let sim = Simulation::new(1);
        let mut config = tight(max_memtable_size);
        config.memtable_type = Some(kind.into());
        let db = open(&sim, config);
        let keyspaces: Vec<_> = names.iter().map(|name| db.keyspace(name).unwrap()).collect();
        let mut batch = db.batch();
        for keyspace in &keyspaces {
            for part in 0..4_u8 {
                batch.put(keyspace, [part], vec![part; len / 4]);
            }
        }
        let error = db.write(batch).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{kind}: {error:?}");
        for keyspace in &keyspaces {
            assert_eq!(keyspace.get([0]).unwrap(), None, "{kind}: a refused batch is not there");
        }
        for at in 0..100 {
            db.put(format!("k{at}"), vec![7; 1000]).unwrap();
        }
        assert_eq!(db.iter().count(), 100, "{kind}");
        assert!(db.stats().memory_used <= db.stats().memory_budget, "{kind}: {:?}", db.stats());
    }
}

#[test]
fn a_batch_that_two_small_memtables_can_never_hold_is_refused_and_starves_nobody() {
    refused_and_no_obstacle(64 << 10, &["a", "b"], 400 << 10);
}

#[test]
fn a_batch_that_fits_each_memtable_but_not_all_at_once_is_refused_and_starves_nobody() {
    refused_and_no_obstacle(256 << 10, &["a", "b", "c"], 200 << 10);
}

#[test]
fn a_writer_whose_memory_readers_pin_is_told_busy_and_goes_on_when_they_are_gone() {
    let sim = Simulation::new(2);
    let db = open(&sim, tight(64 << 10));
    let (mut readers, mut at): (Vec<Iter>, u32) = (Vec::new(), 0);
    let error = loop {
        let key = at.to_be_bytes();
        if let Err(error) = db.put(key, vec![5; 4000]) {
            break error;
        }
        let mut reader = db.iter();
        assert!(reader.next().unwrap().is_ok());
        readers.push(reader);
        at += 1;
        assert!(at < 1000, "memory that is pinned was given out again: {:?}", db.stats());
    };
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    assert!(db.stats().memory_used <= db.stats().memory_budget, "{:?}", db.stats());
    assert_eq!(db.get(at.to_be_bytes()).unwrap(), None, "what was refused is not there");
    drop(readers);
    db.put(at.to_be_bytes(), "now there is room").unwrap();
    assert_eq!(db.iter().count() as u64, u64::from(at) + 1);
}

/// A key behind all that tombstone `at` and those before it cover.
fn end_of(at: u32) -> Vec<u8> {
    format!("k{at:06}").into_bytes()
}

/// What 2,000 tombstones that all begin at `k` must leave, in whatever state the tree is.
fn check_nested(db: &Db, count: u32, state: &str) {
    let rows: Vec<_> = db.iter().map(|row| row.unwrap().0.to_vec()).collect();
    assert_eq!(rows, [b"j".to_vec(), end_of(count), b"l".to_vec()], "{state}");
    for at in (0..count).step_by(97) {
        assert_eq!(db.get(end_of(at)).unwrap(), None, "{state}");
    }
    assert_eq!(db.get(end_of(count)).unwrap().unwrap(), "kept", "{state}");
    let used = db.stats().memory_used;
    assert!(used < 4 << 20, "{state}: {used} B for {count} tombstones");
}

#[test]
fn nested_range_tombstones_answer_right_and_cost_no_square_of_their_number() {
    const COUNT: u32 = 2000;
    let sim = Simulation::new(3);
    let mut config = Config { durability: Some(Durability::Buffered), ..Config::default() };
    config.enable_background_compaction = Some(false);
    let db = open(&sim, config);
    for at in 0..=COUNT {
        db.put(end_of(at), "kept").unwrap();
    }
    db.put("j", "before").unwrap();
    db.put("l", "behind").unwrap();
    for at in 1..=COUNT {
        db.delete_range(&b"k"[..]..&end_of(at)[..]).unwrap();
        if at % 250 == 0 {
            // Who reads has the tombstones fragmented.
            assert_eq!(db.get(end_of(at - 1)).unwrap(), None);
            assert_eq!(db.get(end_of(at)).unwrap().unwrap(), "kept");
        }
    }
    check_nested(&db, COUNT, "in memory");
    db.flush().unwrap();
    let bytes = db.stats().keyspaces[0].table_bytes;
    assert!(bytes < 512 << 10, "{bytes} B of tables for {COUNT} tombstones");
    check_nested(&db, COUNT, "flushed");
    db.compact().unwrap();
    let bytes = db.stats().keyspaces[0].table_bytes;
    assert!(bytes < 32 << 10, "{bytes} B of tables for three keys");
    check_nested(&db, COUNT, "compacted");
}

#[test]
fn compacting_gives_back_what_only_a_snapshot_had_kept() {
    const LEN: usize = 256 << 10;
    let sim = Simulation::new(4);
    let db = open(&sim, Config { enable_background_compaction: Some(false), ..Config::default() });
    let default = db.default_keyspace();
    let bytes = || {
        let stats = db.stats().keyspaces.remove(0);
        stats.table_bytes + stats.blob_bytes
    };
    db.put("k", noise(1, LEN)).unwrap();
    let snapshot = db.snapshot();
    db.put("k", noise(2, LEN)).unwrap();
    db.flush().unwrap();
    db.compact().unwrap();
    assert!(bytes() > 2 * LEN as u64, "the snapshot sees the first value");
    assert_eq!(snapshot.get(&default, "k").unwrap().unwrap(), noise(1, LEN)[..]);
    drop(snapshot);
    db.compact().unwrap();
    assert!(bytes() < LEN as u64 * 3 / 2, "{} B for one value of {LEN}", bytes());
    assert_eq!(db.get("k").unwrap().unwrap(), noise(2, LEN)[..]);
    let compactions = db.stats().compactions;
    db.compact().unwrap();
    assert_eq!(db.stats().compactions, compactions, "there is nothing left to gain");
}

#[test]
fn compaction_that_fails_in_one_keyspace_is_reported_and_goes_on_in_the_others() {
    let sim = Simulation::new(5);
    let mut config = Config { durability: Some(Durability::Buffered), ..Config::default() };
    config.tree.level0_runs = Some(2);
    let db = open(&sim, config);
    let other = db.keyspace("other").unwrap();
    let level0 = |at: usize| -> LevelStats { db.stats().keyspaces[at].levels[0] };
    let write = |keyspace: &Keyspace, word: &str| {
        for at in 0..20 {
            keyspace.put(format!("key{at}"), word).unwrap();
        }
    };
    write(&db.default_keyspace(), "damaged-soon");
    db.flush().unwrap();
    let [table] = &tables(&sim)[..] else { panic!("one flush, one table") };
    let bytes = content(&sim, table);
    let at = bytes.windows(12).position(|part| part == b"damaged-soon").unwrap();
    sim.vfs.corrupt(table, at as u64, 0x40).unwrap();
    write(&other, "sound");
    db.flush().unwrap();
    write(&db.default_keyspace(), "again");
    write(&other, "again");
    db.flush().unwrap();
    assert_eq!((level0(0).tables, level0(1).tables), (2, 2), "nothing was compacted yet");
    assert_eq!(db.stats().compaction_failure, None);
    for _ in 0..3 {
        sim.clock.advance(Duration::from_secs(2));
        sim.steps.run_until_idle();
        assert_eq!((level0(0).tables, level0(1).tables), (2, 0));
        let failure = db.stats().compaction_failure.expect("a table is damaged");
        let health = db.health();
        let name = table.file_name().unwrap().to_str().unwrap();
        assert!(failure.contains(name), "{failure}");
        assert_eq!(health.state, HealthState::Degraded);
        assert!(health.reason.unwrap().contains(name) && health.damaged[0].ends_with(name));
    }
    assert_eq!(other.get("key7").unwrap().unwrap(), "again");
    other.put("writable", "still").unwrap();
    db.put("writable", "still").unwrap();
}

/// Puts small values, giving the jobs all the time they want behind each; returns the flushes.
fn flushes_of_small_puts(sim: &Simulation, db: &Db) -> u64 {
    let before = db.stats().flushes;
    for at in 0..200 {
        db.put(format!("k{at}"), vec![3; 200]).unwrap();
        sim.steps.run_until_idle();
    }
    db.stats().flushes - before
}

#[test]
fn a_small_limit_on_the_log_makes_no_endless_tiny_flushes() {
    let sim = Simulation::new(6);
    let mut config = Config { durability: Some(Durability::Buffered), ..Config::default() };
    config.enable_background_compaction = Some(false);
    config.tree.wal_size = Some(16 << 10);
    let db = open(&sim, config.clone());
    let flushes = flushes_of_small_puts(&sim, &db);
    assert!(flushes < 5, "{flushes} flushes of 40 KB in the first segment");
    // Larger than the first segment: it is followed by one that this batch alone nearly fills.
    db.put("large", vec![4; 2 << 20]).unwrap();
    let flushes = flushes_of_small_puts(&sim, &db);
    assert!(flushes < 5, "{flushes} flushes of 40 KB behind a large write");
    assert!(db.stats().wal_segments <= 2, "what was flushed is released: {:?}", db.stats());
    db.close().unwrap();
    let db = open(&sim, config);
    let flushes = flushes_of_small_puts(&sim, &db);
    assert!(flushes < 5, "{flushes} flushes of 40 KB after an open");
    assert_eq!(db.iter().count(), 201);
}
