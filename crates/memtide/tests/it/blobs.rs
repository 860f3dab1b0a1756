//! Large values in blob files: read as all others, written once, given back when nobody needs them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use memtide::{Codec, Compaction, Config, Db, Durability, KeyspaceStats, MemtableType};
use memtide_env::Simulation;
use memtide_env::vfs::{CrashMode, IoOp};

const ROOT: &str = "/db";

fn config() -> Config {
    let mut config = Config {
        durability: Some(Durability::Buffered),
        enable_background_compaction: Some(false),
        compression: Some(Codec::None),
        ..Config::default()
    };
    config.tree.min_blob_size = Some(1000);
    config.tree.table_size = Some(4 << 10);
    config.tree.level0_runs = Some(2);
    config.tree.level1_size = Some(4 << 10);
    config
}

fn open(sim: &Simulation, config: Config) -> Db {
    Db::builder(ROOT).config(config).env(sim.env.clone()).open().unwrap()
}

fn value(of: u32, len: usize) -> Vec<u8> {
    let mut value = of.to_be_bytes().to_vec();
    value.extend((4..len).map(|at| u8::try_from((at * 31 + of as usize) % 251).unwrap()));
    value
}

fn stats(db: &Db) -> KeyspaceStats {
    db.stats().keyspaces.remove(0)
}

fn blob_files(sim: &Simulation) -> Vec<PathBuf> {
    let is_blob = |path: &PathBuf| path.extension().is_some_and(|name| name == "blob");
    sim.vfs.files().into_iter().filter(is_blob).collect()
}

/// Counts what is written to files with this extension.
fn count_bytes(sim: &Simulation, extension: &'static str) -> Arc<AtomicU64> {
    let bytes = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&bytes);
    sim.vfs.set_observer(Some(Box::new(move |_, op, _| {
        if let IoOp::Write { path, len, .. } = op
            && path.extension().is_some_and(|end| end == extension)
        {
            seen.fetch_add(*len as u64, Ordering::Relaxed);
        }
    })));
    bytes
}

#[test]
fn large_values_read_as_all_others_under_every_memtable() {
    for memtable in MemtableType::ALL {
        let sim = Simulation::new(1);
        let mut db = open(&sim, Config { memtable_type: Some(memtable.into()), ..config() });
        let lens = [0, 999, 1000, 5000, 3];
        let want: Vec<_> = (0..20_u32)
            .map(|at| (at.to_be_bytes(), value(at, lens[at as usize % lens.len()].max(4))))
            .collect();
        for (key, value) in &want {
            db.put(key, value).unwrap();
        }
        let snapshot = db.snapshot();
        for round in 0..4 {
            let entries = || want.iter().map(|(key, value)| (key.to_vec(), value.clone()));
            let read: Vec<_> = db
                .iter()
                .map(|entry| entry.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap())
                .collect();
            assert!(read.iter().cloned().eq(entries()), "{memtable} {round}");
            assert!(
                db.iter().rev().map(|e| e.unwrap().1.to_vec()).eq(entries().rev().map(|e| e.1))
            );
            let mut lent = db.iter();
            let mut at = 0;
            while let Some((key, value)) = lent.next_lent().unwrap() {
                assert_eq!((key, value), (&want[at].0[..], &want[at].1[..]), "{memtable} {round}");
                at += 1;
            }
            assert_eq!(at, want.len());
            let keys: Vec<_> = want.iter().map(|(key, _)| key).collect();
            let got = db.multi_get(&keys).unwrap();
            assert!(got.iter().zip(&want).all(|(got, (_, value))| got.as_deref() == Some(value)));
            for (key, value) in &want {
                assert_eq!(db.get(key).unwrap().as_deref(), Some(&value[..]), "{memtable} {round}");
            }
            match round {
                0 => db.flush().unwrap(),
                1 => db.compact().unwrap(),
                _ => {
                    db.close().unwrap();
                    db = open(&sim, config());
                }
            }
        }
        assert!(stats(&db).blobs > 0 && stats(&db).blob_bytes > 8 * 1000);
        drop(snapshot);
    }
}

#[test]
fn merging_moves_no_value() {
    let sim = Simulation::new(1);
    let db = open(&sim, config());
    let blobs = count_bytes(&sim, "blob");
    for round in 0..8_u32 {
        for at in 0..10_u32 {
            db.put((at * 8 + round).to_be_bytes(), value(at, 2000)).unwrap();
        }
        db.flush().unwrap();
        db.compact().unwrap();
    }
    let written = blobs.load(Ordering::Relaxed);
    assert!((80 * 2000..80 * 2100).contains(&written), "{written} B");
    assert_eq!((stats(&db).blobs, stats(&db).blob_garbage_bytes), (8, 0));
    assert_eq!(stats(&db).blob_bytes, written);
    assert_eq!(db.iter().count(), 80);
}

#[test]
fn garbage_is_given_back_and_an_old_iterator_reads_on() {
    for compaction in [Compaction::Leveled, Compaction::LazyLeveled, Compaction::Tiered] {
        let sim = Simulation::new(1);
        let db = open(&sim, Config { compaction: Some(compaction), ..config() });
        let write = |round: u32, step: usize| {
            for at in (0..200_u32).step_by(step) {
                db.put(at.to_be_bytes(), value(at + round, 2000)).unwrap();
            }
            db.flush().unwrap();
        };
        write(0, 1);
        db.compact().unwrap();
        let mut old = db.iter();
        assert_eq!(old.next().unwrap().unwrap().1, value(0, 2000)[..]);
        for round in 1..6 {
            write(round * 1000, 2);
        }
        db.compact().unwrap();
        let (garbage, bytes) = (stats(&db).blob_garbage_bytes, stats(&db).blob_bytes);
        assert!(garbage * 5 < bytes, "{compaction}: {garbage} of {bytes} B");
        assert!(bytes < 200 * 2100 * 5 / 4, "{compaction}: {bytes} B for 200 values");
        // Files that only the iterator needs are still there.
        assert!(blob_files(&sim).len() > stats(&db).blobs, "{compaction}");
        for (at, entry) in (1..).zip(&mut old) {
            assert_eq!(entry.unwrap().1, value(at, 2000)[..], "{compaction}");
        }
        drop(old);
        write(9000, 100);
        db.compact().unwrap();
        assert_eq!(blob_files(&sim).len(), stats(&db).blobs, "{compaction}");
        for at in 0..200_u32 {
            let round = if at % 100 == 0 {
                9000
            } else if at % 2 == 0 {
                5000
            } else {
                0
            };
            let want = value(at + round, 2000);
            assert_eq!(db.get(at.to_be_bytes()).unwrap().as_deref(), Some(&want[..]));
        }
        // All of them go with their keys.
        db.delete_range(..).unwrap();
        db.compact().unwrap();
        db.put("one", "more").unwrap();
        db.compact().unwrap();
        assert_eq!((stats(&db).blobs, blob_files(&sim)), (0, Vec::new()), "{compaction}");
    }
}

#[test]
fn background_compaction_empties_files_of_garbage_that_no_merge_meets() {
    let sim = Simulation::new(1);
    let mut config = config();
    config.enable_background_compaction = Some(true);
    config.tree.table_size = Some(64 << 10);
    let db = open(&sim, config);
    // One file of values, referred to by keys that later merges have no other reason to touch.
    for at in 0..100_u32 {
        db.put(at.to_be_bytes(), value(at, 3000)).unwrap();
    }
    db.flush().unwrap();
    db.compact().unwrap();
    for round in 0..4 {
        for at in 0..50_u32 {
            db.put(at.to_be_bytes(), format!("short {round}")).unwrap();
        }
        db.flush().unwrap();
    }
    sim.clock.advance(Duration::from_secs(2));
    sim.steps.run_until_idle();
    let (garbage, bytes) = (stats(&db).blob_garbage_bytes, stats(&db).blob_bytes);
    assert!(garbage * 5 < bytes && bytes < 50 * 3000 * 5 / 4, "{garbage} of {bytes} B");
    assert_eq!(blob_files(&sim).len(), stats(&db).blobs);
}

#[test]
fn the_smallest_size_may_change_at_every_open() {
    let sim = Simulation::new(1);
    let mut sizes = [Some(64), Some(8 << 20), None].into_iter().cycle();
    let mut written = 0;
    for round in 0..9_u32 {
        let mut config = config();
        config.tree.min_blob_size = sizes.next().unwrap();
        let db = open(&sim, config);
        for at in 0..10_u32 {
            db.put((round * 10 + at).to_be_bytes(), value(at, 300 << at.min(6))).unwrap();
        }
        written += 10;
        db.compact().unwrap();
        assert_eq!(db.iter().filter(|entry| entry.is_ok()).count(), written);
        db.close().unwrap();
    }
    assert!(memtide::verify_in(&sim.env, ROOT).unwrap().damages.is_empty());
}

#[test]
fn where_nothing_is_merged_values_stay_with_their_keys() {
    let sim = Simulation::new(1);
    let mut config = Config { compaction: Some(Compaction::Fifo), ..config() };
    config.tree.fifo_size = Some(20 << 20);
    let db = open(&sim, config);
    db.put("k", value(1, 100_000)).unwrap();
    db.flush().unwrap();
    assert_eq!((stats(&db).blobs, stats(&db).tables), (0, 1));
    // What fits no block lies apart here too, and counts.
    for at in 0..3_u32 {
        db.put(at.to_be_bytes(), value(at, 9 << 20)).unwrap();
        db.flush().unwrap();
    }
    assert_eq!(stats(&db).blobs, 3);
    assert_eq!(db.get(2_u32.to_be_bytes()).unwrap().unwrap(), value(2, 9 << 20)[..]);
    db.compact().unwrap();
    assert_eq!(stats(&db).blobs, 2, "the oldest go beyond 20 MiB");
    assert!(db.get("k").unwrap().is_none());
}

#[test]
fn a_damaged_value_is_an_error_that_names_its_file_and_the_others_are_read() {
    let sim = Simulation::new(1);
    let db = open(&sim, config());
    for at in 0..3_u32 {
        db.put(at.to_be_bytes(), value(at, 2000)).unwrap();
    }
    db.flush().unwrap();
    db.close().unwrap();
    let [file] = blob_files(&sim).try_into().unwrap();
    sim.vfs.corrupt(&file, 3000, 1).unwrap();
    let db = open(&sim, config());
    let named = |error: &memtide::Error| {
        assert!(error.is_corruption(), "{error}");
        assert_eq!(error.file().map(|name| Path::new(ROOT).join(name)).as_ref(), Some(&file));
        assert!(error.offset().is_some_and(|at| (64..=3000).contains(&at)), "{error}");
    };
    assert_eq!(db.get(0_u32.to_be_bytes()).unwrap().unwrap(), value(0, 2000)[..]);
    named(&db.get(1_u32.to_be_bytes()).unwrap_err());
    named(&db.multi_get([2_u32.to_be_bytes(), 1_u32.to_be_bytes()]).unwrap_err());
    let mut iter = db.iter();
    assert!(iter.next().unwrap().is_ok());
    named(&iter.next().unwrap().unwrap_err());
    assert!(iter.next().is_none(), "an iterator ends after its first error");
    let mut iter = db.iter();
    assert!(iter.next_back_lent().unwrap().is_some());
    named(&iter.next_back_lent().unwrap_err());
    assert!(iter.next_back_lent().unwrap().is_none());
    db.close().unwrap();
    let report = memtide::verify_in(&sim.env, ROOT).unwrap();
    assert!(report.damages.iter().any(|damage| Path::new(ROOT).join(&damage.file) == file));
    // A merge that gives the file up leaves everything as it was.
    let db = open(&sim, config());
    db.put(0_u32.to_be_bytes(), "short").unwrap();
    db.compact().unwrap();
    assert_eq!(db.get(2_u32.to_be_bytes()).unwrap().unwrap(), value(2, 2000)[..]);
    named(&db.get(1_u32.to_be_bytes()).unwrap_err());
}

#[test]
fn one_damaged_value_keeps_neither_merges_nor_other_garbage() {
    let sim = Simulation::new(1);
    let write = |db: &Db, value: &dyn Fn(u32) -> Vec<u8>| {
        for at in 0..400_u32 {
            db.put(at.to_be_bytes(), value(at)).unwrap();
        }
    };
    let db = open(&sim, config());
    write(&db, &|at| value(at, 2000));
    db.compact().unwrap();
    db.close().unwrap();
    let first = blob_files(&sim).into_iter().min().unwrap();
    sim.vfs.corrupt(&first, 1000, 1).unwrap();
    let mut config = config();
    config.enable_background_compaction = Some(true);
    let db = open(&sim, config);
    for round in 0..20 {
        for at in (2..400_u32).step_by(2) {
            db.put(at.to_be_bytes(), format!("short {round}")).unwrap();
        }
        db.flush().unwrap();
        sim.clock.advance(Duration::from_secs(2));
        sim.steps.run_until_idle();
    }
    let stats = stats(&db);
    assert!(stats.levels[0].tables < 5, "{:?}", stats.levels[0]);
    assert!(stats.blob_garbage_bytes * 3 < stats.blob_bytes, "{stats:?}");
    assert!(db.get(0_u32.to_be_bytes()).unwrap_err().is_corruption());
    assert_eq!(db.get(1_u32.to_be_bytes()).unwrap().unwrap(), value(1, 2000)[..]);
}

/// The directory of blob files is made by the first flush that needs it. Whatever fails there, the next flush makes
/// everything durable that its edit names.
#[test]
fn the_first_blob_file_is_there_after_any_failure_and_a_power_cut() {
    let filled = || {
        let sim = Simulation::new(1);
        let db = open(&sim, config());
        db.put("k", value(1, 2000)).unwrap();
        (sim, db)
    };
    let (sim, db) = filled();
    let operations = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&operations);
    sim.vfs.set_observer(Some(Box::new(move |at, _, _| seen.lock().unwrap().push(at))));
    db.flush().unwrap();
    sim.vfs.set_observer(None);
    let operations = operations.lock().unwrap().clone();
    assert!(operations.len() > 8, "{operations:?}");
    for at in operations {
        let (sim, db) = filled();
        sim.vfs.fail_at(at, std::io::ErrorKind::Other);
        let _ = db.flush();
        let flushed = db.flush().is_ok();
        let after = Simulation::on(sim.vfs.disk().crash(CrashMode::DropAll, 0), 2);
        let db = open(&after, config());
        let found = db.get("k").unwrap();
        assert!(!flushed || found.unwrap() == value(1, 2000)[..], "operation {at}");
    }
}

#[test]
fn a_change_to_fifo_gives_back_what_is_beyond_its_limit() {
    let sim = Simulation::new(1);
    let mut config = config();
    config.tree.fifo_size = Some(100_000);
    let db = open(&sim, config);
    // Every file of values is referred to by every table.
    for round in 0..10_u32 {
        for at in 0..50_u32 {
            db.put((at * 10 + round).to_be_bytes(), value(at, 2000)).unwrap();
        }
        db.flush().unwrap();
    }
    db.compact().unwrap();
    db.default_keyspace().set_compaction(Compaction::Fifo).unwrap();
    db.compact().unwrap();
    let stats = stats(&db);
    assert!(stats.blob_bytes + stats.table_bytes < 2 * 100_000, "{stats:?}");
}

#[test]
fn many_small_files_are_joined() {
    let sim = Simulation::new(1);
    let mut config = config();
    config.tree.table_size = Some(32 << 10);
    let db = open(&sim, config);
    for round in 0..600_u32 {
        db.put(round.to_be_bytes(), value(round, 1100)).unwrap();
        db.flush().unwrap();
        if round % 20 == 19 {
            db.compact().unwrap();
        }
    }
    assert!(stats(&db).blobs < 120, "{}", stats(&db).blobs);
    assert_eq!(blob_files(&sim).len(), stats(&db).blobs);
    for round in 0..600_u32 {
        assert_eq!(db.get(round.to_be_bytes()).unwrap().unwrap(), value(round, 1100)[..]);
    }
}

#[test]
fn giving_garbage_back_takes_little_space_meanwhile() {
    let sim = Simulation::new(1);
    let db = open(&sim, config());
    // Twenty files, each with values of all tables.
    for round in 0..20_u32 {
        for at in 0..200_u32 {
            db.put((at * 20 + round).to_be_bytes(), value(at, 2000)).unwrap();
        }
        db.flush().unwrap();
    }
    db.compact().unwrap();
    let live = stats(&db).blob_bytes;
    for key in (0..4000_u32).filter(|key| key / 20 % 10 < 3) {
        db.put(key.to_be_bytes(), value(key, 2000)).unwrap();
    }
    db.flush().unwrap();
    let before = stats(&db).blob_bytes;
    let files = Arc::new(Mutex::new(BTreeMap::new()));
    let peak = Arc::new(AtomicU64::new(0));
    for file in blob_files(&sim) {
        let len = sim.vfs.file_len(&file).unwrap();
        files.lock().unwrap().insert(file, len);
    }
    let most = Arc::clone(&peak);
    sim.vfs.set_observer(Some(Box::new(move |_, op, _| {
        let mut files = files.lock().unwrap();
        match op {
            IoOp::Write { path, offset, len } if path.extension().is_some_and(|e| e == "blob") => {
                let known = files.entry(path.clone()).or_default();
                *known = (*known).max(offset + *len as u64);
            }
            IoOp::Remove { path } => drop(files.remove(path)),
            _ => {}
        }
        most.fetch_max(files.values().sum(), Ordering::Relaxed);
    })));
    db.compact().unwrap();
    let peak = peak.load(Ordering::Relaxed);
    let after = stats(&db).blob_bytes;
    assert!(after < live * 5 / 4, "{after} B for {live}");
    // A tenth is moved at a time, and a file ends later than it is full.
    assert!(peak < before + before / 5, "{before} B, then {peak}, then {after}");
}
