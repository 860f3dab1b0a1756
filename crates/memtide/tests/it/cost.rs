//! What upkeep costs and leaves behind: bytes of the manifest, files that nobody needs any more, log that a
//! flush made needless, memory that open tables take.

use std::path::PathBuf;
use std::time::Duration;

use memtide::{Config, Db, Durability, MemtableType};
use memtide_env::Simulation;

const ROOT: &str = "/db";

fn config() -> Config {
    let mut config = Config { durability: Some(Durability::Buffered), ..Config::default() };
    config.enable_background_compaction = Some(false);
    config.tree.table_size = Some(4 << 10);
    config.tree.level1_size = Some(4 << 10);
    config.tree.wal_segment_size = Some(16 << 10);
    config
}

fn open(sim: &Simulation, config: &Config) -> Db {
    Db::builder(ROOT).config(config.clone()).env(sim.env.clone()).open().unwrap()
}

/// The files whose name ends so.
fn files(sim: &Simulation, end: &str) -> Vec<PathBuf> {
    let ends = |path: &PathBuf| path.to_str().unwrap().ends_with(end);
    sim.vfs.files().into_iter().filter(ends).collect()
}

fn tables(db: &Db) -> usize {
    db.stats().keyspaces.iter().map(|keyspace| keyspace.tables).sum()
}

/// Nothing is on the disk but what the database needs.
fn check_files(sim: &Simulation, db: &Db) {
    let stats = db.stats();
    assert_eq!(files(sim, ".sst").len(), tables(db), "tables");
    assert_eq!(files(sim, ".wal").len(), stats.wal_segments, "log segments");
    let others = sim.vfs.files().len() - tables(db) - stats.wal_segments;
    assert_eq!(others, 3, "LOCK, CURRENT and one manifest: {:?}", sim.vfs.files());
}

/// One write and its flush; returns how many bytes the manifest grew.
fn flush_one(db: &Db, number: u32) -> u64 {
    let before = db.stats().manifest_bytes;
    db.put(format!("key{number:06}"), "a value").unwrap();
    db.flush().unwrap();
    db.stats().manifest_bytes - before
}

#[test]
fn a_flush_costs_the_manifest_the_same_with_ten_tables_and_with_a_thousand() {
    let sim = Simulation::new(1);
    let db = open(&sim, &config());
    let mut grown = Vec::new();
    for number in 0..1010 {
        grown.push(flush_one(&db, number));
    }
    assert_eq!(tables(&db), 1010);
    let (few, many) = (grown[10], grown[1009]);
    println!("manifest bytes per flush: {few} with 10 tables, {many} with 1,009");
    assert!(many <= few + 16 && many < 400, "{few} B, then {many} B");
    check_files(&sim, &db);
    db.close().unwrap();
    let db = open(&sim, &config());
    assert_eq!(db.recovery_report().orphans, Vec::<PathBuf>::new());
    check_files(&sim, &db);
    assert_eq!(db.iter().count(), 1010);
}

#[test]
fn a_scan_of_a_few_keys_reads_no_table_that_has_none_of_them() {
    let sim = Simulation::new(7);
    let db = open(&sim, &config());
    for number in 0..100 {
        flush_one(&db, number);
    }
    let reads = |scan: &dyn Fn() -> usize, keys: usize| {
        let before = db.stats();
        assert_eq!(scan(), keys);
        let after = db.stats();
        after.cache_hits + after.cache_misses - before.cache_hits - before.cache_misses
    };
    let scans = |blocks: u64| {
        assert_eq!(reads(&|| db.prefix("key00004").count(), 10), blocks);
        assert_eq!(reads(&|| db.prefix("key00004").rev().count(), 10), blocks);
        assert_eq!(reads(&|| db.range("key0000505".."key000051").count(), 0), 0);
        assert_eq!(reads(&|| db.range("key0000505".."key000051").rev().count(), 0), 0);
        assert_eq!(reads(&|| db.range("key000100"..).count(), 0), 0);
        assert_eq!(reads(&|| db.range(.."key").rev().count(), 0), 0);
    };
    assert_eq!(tables(&db), 100);
    scans(10);
    for number in 0..100_u64 {
        // Nothing that a codec makes smaller.
        let words =
            (1..100_u64).map(|word| (word + 1000 * number).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let large: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        db.put(format!("key{number:06}"), &large).unwrap();
    }
    db.compact().unwrap();
    assert!(tables(&db) > 10, "{} tables", tables(&db));
    let most = reads(&|| db.prefix("key00004").count(), 10);
    assert!(most <= 10, "{most} blocks for ten keys");
    assert_eq!(reads(&|| db.prefix("key00004").rev().count(), 10), most);
}

#[test]
fn files_that_a_merge_replaced_go_with_their_last_reader() {
    let sim = Simulation::new(2);
    let db = open(&sim, &config());
    for number in 0..20 {
        flush_one(&db, number);
    }
    let mut reader = db.iter();
    assert!(reader.next().is_some());
    db.compact().unwrap();
    assert!(files(&sim, ".sst").len() >= 20, "the iterator still reads the old tables");
    assert_eq!(reader.by_ref().map(Result::unwrap).count(), 19);
    drop(reader);
    db.put("z", "wakes upkeep").unwrap();
    db.compact().unwrap();
    check_files(&sim, &db);
    db.close().unwrap();
    let db = open(&sim, &config());
    assert_eq!(db.recovery_report().orphans, Vec::<PathBuf>::new());
    check_files(&sim, &db);
}

#[test]
fn tables_that_a_crash_left_behind_are_removed_and_reported() {
    let sim = Simulation::new(3);
    let db = open(&sim, &config());
    flush_one(&db, 1);
    db.close().unwrap();
    let table = files(&sim, ".sst")[0].clone();
    let copy = table.with_file_name("00000000000000ff.sst");
    memtide_env::Vfs::link(&sim.vfs, &table, &copy).unwrap();
    let db = open(&sim, &config());
    assert_eq!(db.recovery_report().orphans, [PathBuf::from("sst/00000000000000ff.sst")]);
    check_files(&sim, &db);
    assert_eq!(db.iter().count(), 1);
}

#[test]
fn a_flush_releases_the_log_that_it_makes_needless() {
    let sim = Simulation::new(4);
    let mut config = config();
    config.tree.wal_size = Some(1 << 20);
    let db = open(&sim, &config);
    let left = db.keyspace("left").unwrap();
    for number in 0..100 {
        db.put(format!("key{number}"), vec![1; 1000]).unwrap();
    }
    assert!(db.stats().wal_segments > 5);
    left.put("the only one", "in the newest segment").unwrap();
    db.flush().unwrap();
    assert_eq!(db.stats().wal_segments, 1, "only the active segment is left");
    check_files(&sim, &db);
    // A write that no table has yet keeps the log from its segment on, whatever else is flushed.
    left.put("kept", "by the log").unwrap();
    for number in 0..100 {
        db.put(format!("key{number}"), vec![2; 1000]).unwrap();
    }
    let held = db.stats().wal_segments;
    assert!(held > 5);
    check_files(&sim, &db);
}

#[test]
fn the_log_stays_near_its_limit_whatever_a_quiet_keyspace_holds() {
    let sim = Simulation::new(5);
    let mut config = config();
    config.tree.wal_size = Some(64 << 10);
    let db = open(&sim, &config);
    let quiet = db.keyspace("quiet").unwrap();
    quiet.put("one write", "and never again").unwrap();
    for number in 0..500_u32 {
        db.put(number.to_be_bytes(), vec![3; 1000]).unwrap();
        sim.steps.run_until_idle();
        let bytes = db.stats().wal_bytes;
        assert!(bytes <= (64 << 10) + 2 * (16 << 10), "{bytes} B of log after {number} writes");
    }
    assert!(quiet.contains_key("one write").unwrap());
    check_files(&sim, &db);
}

#[test]
fn a_full_budget_of_open_tables_leaves_room_for_writes() {
    let sim = Simulation::new(6);
    let mut config = config();
    config.memory_budget = Some(64 << 10);
    config.max_memtable_size = Some(4 << 10);
    config.memtable_type = Some(MemtableType::HashSkiplist.into());
    let db = open(&sim, &config);
    for number in 0..600_u32 {
        // Every read opens every table it finds.
        flush_one(&db, number);
        assert!(db.get(format!("key{number:06}")).unwrap().is_some());
    }
    assert_eq!(db.iter().count(), 600);
    for number in 0..600_u32 {
        db.put(format!("more{number:06}"), vec![4; 100]).unwrap();
        sim.clock.advance(Duration::from_millis(1));
    }
    assert_eq!(db.iter().count(), 1200);
}

#[test]
fn a_look_into_more_tables_than_stay_open_leaves_the_blocks_of_the_hot_one() {
    let sim = Simulation::new(1);
    let mut config = config();
    config.memory_budget = Some(1 << 20);
    config.max_memtable_size = Some(64 << 10);
    config.tree.table_size = Some(1 << 20);
    let db = open(&sim, &config);
    let key = |table: u32, row: u32| format!("{table:03}/{row:05}");
    for table in 0..60 {
        let mut batch = db.batch();
        (0..2500).for_each(|row| batch.put(&db.default_keyspace(), key(table, row), "v"));
        db.write(batch).unwrap();
        db.flush().unwrap();
    }
    let hot = || (0..20).for_each(|row| assert!(db.get(key(0, row)).unwrap().is_some()));
    (0..4).for_each(|_| hot());
    for table in 1..60 {
        assert!(db.get(key(table, 0)).unwrap().is_some());
        let before = db.stats().cache_misses;
        hot();
        assert_eq!(db.stats().cache_misses, before, "the hot table was closed for table {table}");
    }
    let before = db.stats().cache_misses;
    // Else all tables could stay open, and nothing was tried.
    (1..60).for_each(|table| assert!(db.get(key(table, 0)).unwrap().is_some()));
    assert!(db.stats().cache_misses > before, "each table was still open");
}

/// A merge writes no table that lies over so much that merging it on would be a large merge.
#[test]
fn a_few_keys_far_apart_are_cut_where_much_lies_under_them() {
    let sim = Simulation::new(8);
    let mut config = config();
    config.enable_background_compaction = Some(true);
    config.tree.level0_runs = Some(2);
    let db = open(&sim, &config);
    let noise = |seed: u64| -> Vec<u8> {
        let words = (1..130_u64).map(|at| (at + 1000 * seed).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        words.flat_map(u64::to_le_bytes).collect()
    };
    for number in 0..150_u64 {
        db.put(format!("{number:03}"), noise(number)).unwrap();
    }
    db.compact().unwrap();
    let levels = || db.stats().keyspaces[0].levels.clone();
    let (bytes, deep) = (levels()[2].bytes, levels()[2].tables);
    assert!(bytes > 100_000 && deep > 20, "{bytes} B in {deep} tables of level 2");
    for _ in 0..2 {
        for number in (0..150).step_by(10) {
            db.put(format!("{number:03}"), "a few bytes").unwrap();
        }
        db.flush().unwrap();
    }
    sim.steps.run_until_idle();
    let level1 = levels()[1];
    assert_eq!(levels()[0].tables, 0, "level 0 was merged");
    assert!((3..8).contains(&level1.tables), "{level1:?}, each over ten tables and a bit");
    assert_eq!(db.iter().count(), 150);
}

/// Where indexes and filters take more memory than there is, a get reads a small part of them and not those of a table.
#[test]
fn a_get_from_a_tree_of_many_budgets_reads_little_beside_its_block() {
    let sim = Simulation::new(9);
    let mut config = config();
    config.memory_budget = Some(256 << 10);
    config.max_memtable_size = Some(16 << 10);
    config.cache_size = Some(8 << 10);
    config.tree.block_size = Some(512);
    config.tree.table_size = Some(128 << 10);
    let db = open(&sim, &config);
    let key = |number: u64| format!("{:016x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let value = |number: u64| format!("{number:0180}");
    for number in 0..10_000 {
        db.put(key(number), value(number)).unwrap();
    }
    db.flush().unwrap();
    db.compact().unwrap();
    let gets = |numbers: std::ops::Range<u64>, are_there: bool| {
        let (before, count) = (sim.vfs.bytes_read(), numbers.end - numbers.start);
        for number in numbers {
            let found = db.get(key(number)).unwrap();
            assert_eq!(
                found.as_deref(),
                are_there.then(|| value(number)).as_deref().map(str::as_bytes)
            );
        }
        assert!(db.stats().memory_used <= db.stats().memory_budget, "{:?}", db.stats());
        (sim.vfs.bytes_read() - before) / count
    };
    let (present, absent) = (gets(0..2_000, true), gets(20_000..22_000, false));
    assert!(present < 3 << 10, "{present} B for a key that is there");
    assert!(absent < 3 << 10, "{absent} B for one that is not");
    let entries: Vec<_> = db.iter().map(Result::unwrap).collect();
    assert!(entries.len() == 10_000 && entries.is_sorted());
}
