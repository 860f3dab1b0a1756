//! A merge whose slices are written side by side.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use memtide::{Config, Db, Durability, ErrorKind};
use memtide_env::Simulation;
use memtide_env::vfs::{CrashMode, IoOp};

use crate::strategies::count_table_bytes;

const ROOT: &str = "/db";
const KEYS: u32 = 6000;

fn config(threads: u64) -> Config {
    let mut config = Config {
        durability: Some(Durability::Buffered),
        compression: Some(memtide::Codec::None),
        flush_target: Some(16 << 20),
        enable_background_compaction: Some(false),
        ..Config::default()
    };
    config.tree.table_size = Some(8 << 10);
    config.tree.block_size = Some(1 << 10);
    config.tree.compaction_threads = Some(threads);
    config
}

fn open(sim: &Simulation, config: Config) -> Db {
    Db::builder(ROOT).config(config).env(sim.env.clone()).open().unwrap()
}

/// A run of all keys under level 0 with changes of all kinds, about 120 tables together; what there is to be read.
fn fill(db: &Db) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut rows = BTreeMap::new();
    let mut put = |key: u32, value: Vec<u8>| {
        db.put(key.to_be_bytes(), &value).unwrap();
        rows.insert(key.to_be_bytes().to_vec(), value);
    };
    (0..KEYS).for_each(|key| put(key, vec![1; 100]));
    db.compact().unwrap();
    // Some lie in blob files.
    (0..KEYS).step_by(50).for_each(|key| put(key, vec![2; 5000]));
    db.flush().unwrap();
    (0..KEYS).step_by(7).for_each(|key| put(key, vec![3; 100]));
    db.delete_range(600_u32.to_be_bytes()..1000_u32.to_be_bytes()).unwrap();
    db.delete(5999_u32.to_be_bytes()).unwrap();
    rows.retain(|key, _| {
        let key = u32::from_be_bytes(key[..].try_into().unwrap());
        !(600..1000).contains(&key) && key != 5999
    });
    db.flush().unwrap();
    rows
}

fn rows(db: &Db) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let row = |row: memtide::Result<(memtide::Slice, memtide::Slice)>| {
        row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()
    };
    db.iter().map(row).collect()
}

fn is_table(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "sst")
}

/// Tables that were made before the first of them was in the manifest, and bytes of tables, of a merge.
fn cost(threads: u64) -> (usize, u64) {
    let sim = Simulation::new(1);
    let db = open(&sim, config(threads));
    let want = fill(&db);
    let ahead = Arc::new(Mutex::new((0, false)));
    let seen = Arc::clone(&ahead);
    sim.vfs.set_observer(Some(Box::new(move |_, op, _| {
        let (made, named) = &mut *seen.lock().unwrap();
        match op {
            IoOp::Create { path, .. } if is_table(path) && !*named => *made += 1,
            IoOp::Write { path, .. } if path.to_string_lossy().contains("MANIFEST") => {
                *named = true;
            }
            _ => {}
        }
    })));
    db.compact().unwrap();
    let ahead = ahead.lock().unwrap().0;
    assert_eq!(rows(&db), want, "{threads} threads");
    drop(db);

    let sim = Simulation::new(1);
    let db = open(&sim, config(threads));
    fill(&db);
    let written = count_table_bytes(&sim);
    db.compact().unwrap();
    (ahead, written.load(Ordering::Relaxed))
}

#[test]
fn slices_are_written_at_the_same_time_and_no_more_is_written_by_it() {
    let [(one, bytes), (two, bytes_by_two), (four, bytes_by_four)] = [1, 2, 4].map(cost);
    println!("{one}, {two}, {four} tables ahead; {bytes}, {bytes_by_two}, {bytes_by_four} B");
    assert!(one <= 17, "a slice: {one}");
    assert!(two >= 2 * one && four > two, "all of several slices");
    for more in [bytes_by_two, bytes_by_four] {
        // Each slice ends with a table that has an index and a filter of its own.
        assert!(more <= bytes + bytes / 50, "{more} B instead of {bytes}");
    }
}

/// A power cut at any operation loses nothing, and neither does an error: what was written and not installed is
/// removed.
#[test]
fn whatever_ends_a_merge_between_its_slices_all_is_there() {
    let sim = Simulation::new(1);
    let db = open(&sim, config(3));
    let want = fill(&db);
    let (disks, begin) = (Arc::new(Mutex::new(Vec::new())), sim.vfs.op_count());
    let kept = Arc::clone(&disks);
    sim.vfs.set_observer(Some(Box::new(move |_, _, disk| {
        kept.lock().unwrap().push(disk.clone());
    })));
    db.compact().unwrap();
    sim.vfs.set_observer(None);
    let operations = sim.vfs.op_count() - begin;
    assert_eq!(rows(&db), want);
    let disks = std::mem::take(&mut *disks.lock().unwrap());
    println!("{operations} operations, {} power cuts", disks.len());
    for (seed, disk) in (0..).zip(disks) {
        let sim = Simulation::on(disk.crash(CrashMode::Subset, seed), seed);
        let db = open(&sim, config(3));
        assert_eq!(rows(&db), want, "cut {seed}");
    }

    let mut partly = 0;
    for at in (begin..begin + operations).step_by(7) {
        let sim = Simulation::new(1);
        let db = open(&sim, config(3));
        fill(&db);
        let before = db.stats().compactions;
        sim.vfs.fail_at(at, std::io::ErrorKind::Other);
        let merged = db.compact();
        assert_eq!(rows(&db), want, "fault at {at}: {merged:?}");
        let stats = db.stats();
        partly += u32::from(merged.is_err() && stats.compactions > before);
        if merged.is_err() && db.health().state == memtide::HealthState::Healthy {
            let files = sim.vfs.files().iter().filter(|path| is_table(path)).count();
            assert_eq!(files, stats.keyspaces[0].tables, "fault at {at}: {merged:?}");
            db.compact().unwrap();
            assert_eq!(rows(&db), want, "fault at {at}");
        }
        drop(db);
        assert_eq!(rows(&open(&sim, config(3))), want, "fault at {at}, opened again");
    }
    assert!(partly > 5, "after {partly} faults only some slices were installed");
}

/// At their rate the slices would take minutes: that the pause and the close return at all is what is tested.
#[test]
fn slices_on_threads_stop_for_a_pause_and_for_closing() {
    let dir = tempfile::tempdir().unwrap();
    let open = |rate| {
        let mut config = config(3);
        config.tree.compaction_rate = rate;
        Db::builder(dir.path()).config(config).open().unwrap()
    };
    let db = open(None);
    let want = fill(&db);
    drop(db);
    let db = open(Some(64 << 10));
    let files = || std::fs::read_dir(dir.path().join("sst")).unwrap().count();
    let before = files();
    let stopped_by = |stop: &dyn Fn()| {
        std::thread::scope(|scope| {
            let other = scope.spawn(|| db.compact());
            while files() < before + 3 {
                std::thread::yield_now();
            }
            stop();
            other.join().unwrap().unwrap_err().kind()
        })
    };
    let paused = stopped_by(&|| {
        let pause = db.pause_compaction();
        assert_eq!(files(), before, "what they wrote is gone");
        drop(pause);
    });
    assert_eq!(paused, ErrorKind::Busy);
    let closed = stopped_by(&|| {
        db.clone().close().unwrap();
        assert_eq!(files(), before);
    });
    assert_eq!(closed, ErrorKind::Closed);
    drop(db);
    let db = open(None);
    assert_eq!(rows(&db), want);
    db.compact().unwrap();
    assert_eq!(rows(&db), want);
}
