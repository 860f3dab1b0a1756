//! Opening again: options that changed, marks that closing left, files with names that cannot be ours.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use memtide::{Config, Db, Durability, ErrorKind, MemtableType, WalSink};
use memtide_env::vfs::{CrashMode, Disk};
use memtide_env::{Simulation, Vfs};

const ROOT: &str = "/db";

fn config() -> Config {
    let mut config = Config { durability: Some(Durability::Sync), ..Config::default() };
    config.enable_background_compaction = Some(false);
    config
}

fn try_open(sim: &Simulation, config: Config) -> memtide::Result<Db> {
    Db::builder(ROOT).config(config).env(sim.env.clone()).open()
}

fn open(sim: &Simulation, config: Config) -> Db {
    try_open(sim, config).unwrap()
}

fn segments(sim: &Simulation) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|name| name == "wal");
    sim.vfs.files().into_iter().filter(is_segment).collect()
}

fn content(sim: &Simulation, path: &Path) -> Vec<u8> {
    let file = sim.vfs.open_read(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn the_log_has_the_sink_that_was_named_or_the_one_for_its_durability() {
    let sim = Simulation::new(3);
    let interval = Durability::default();
    for (durability, named, used) in [
        (Durability::Sync, None, WalSink::File),
        (interval, None, WalSink::Mapped),
        (Durability::Buffered, None, WalSink::Mapped),
        (interval, Some(WalSink::File), WalSink::File),
        (Durability::Sync, Some(WalSink::Mapped), WalSink::Mapped),
    ] {
        let mut own = Config { durability: Some(durability), ..config() };
        own.tree.wal_sink = named;
        let db = open(&sim, own);
        db.put("sink", used.name()).unwrap();
        assert_eq!(db.stats().wal_sink, Some(used), "{durability} {named:?}");
        db.close().unwrap();
        let reader = Db::builder(ROOT).env(sim.env.clone()).read_only(true).open().unwrap();
        assert_eq!(reader.get("sink").unwrap().as_deref(), Some(used.name().as_bytes()));
        assert_eq!(reader.stats().wal_sink, None, "it writes no log");
    }
}

#[test]
fn a_keyspace_that_leaves_the_log_loses_nothing_that_was_acknowledged_in_it() {
    for mode in [CrashMode::KeepAll, CrashMode::DropAll] {
        let sim = Simulation::new(1);
        let db = open(&sim, config());
        let u = db.keyspace("u").unwrap();
        let mut batch = db.batch();
        batch.put(&u, "k", "acknowledged");
        db.write_with(batch, Durability::Sync).unwrap();
        drop(u);
        db.close().unwrap();
        let old = segments(&sim);
        assert!(db_tables(&sim).is_empty(), "only the log holds the value");

        let mut changed = config();
        changed.set("keyspace.u.durability", "none").unwrap();
        changed.flush_target = Some(16 << 10);
        changed.max_memtable_size = Some(8 << 10);
        changed.tree.wal_size = Some(16 << 10);
        changed.tree.wal_segment_size = Some(16 << 10);
        let db = open(&sim, changed.clone());
        for at in 0..200 {
            // Full memtables of the default keyspace are flushed by the jobs, and only those.
            db.put(format!("k{at}"), vec![1; 1000]).unwrap();
            sim.steps.run_until_idle();
        }
        let left = segments(&sim);
        assert!(old.iter().all(|path| !left.contains(path)), "the old log is needed: {left:?}");
        let disk = sim.vfs.disk().crash(mode, 0);
        drop(db);

        let sim = Simulation::on(disk, 2);
        let db = open(&sim, changed);
        let u = db.get_keyspace("u").unwrap();
        assert_eq!(u.get("k").unwrap().unwrap(), "acknowledged", "{mode:?}");
        assert_eq!(db.iter().count(), 200, "{mode:?}");
    }
}

#[test]
fn keyspaces_that_leave_the_log_together_lose_nothing_wherever_the_open_is_cut() {
    const LEAVING: [&str; 2] = ["u", "v"];
    let sim = Simulation::new(1);
    let db = open(&sim, config());
    for name in LEAVING {
        db.keyspace(name).unwrap().put("k", "acknowledged").unwrap();
    }
    db.close().unwrap();
    let mut changed = config();
    for name in LEAVING {
        changed.set(&format!("keyspace.{name}.durability"), "none").unwrap();
    }
    let disks = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&disks);
    let before = sim.vfs.op_count();
    sim.vfs.set_observer(Some(Box::new(move |index, op, disk: &Disk| {
        kept.lock().unwrap().push((index, op.clone(), disk.clone()));
    })));
    drop(open(&sim, changed.clone()));
    sim.vfs.set_observer(None);
    for (index, op, disk) in &*disks.lock().unwrap() {
        for mode in [CrashMode::KeepAll, CrashMode::DropAll] {
            let sim = Simulation::on(disk.crash(mode, 0), 2);
            let db = open(&sim, changed.clone());
            for name in LEAVING {
                let found = db.get_keyspace(name).unwrap().get("k").unwrap();
                let at = index - before;
                assert_eq!(found.as_deref(), Some(&b"acknowledged"[..]), "{name}, {at}: {op:?}");
            }
        }
    }
}

/// A flush that memory demands in the midst of a replay.
#[test]
fn a_flush_during_a_replay_keeps_the_log_of_a_keyspace_that_leaves_it() {
    let sim = Simulation::new(1);
    let mut segmented = config();
    segmented.tree.wal_segment_size = Some(64 << 10);
    let db = open(&sim, segmented);
    db.keyspace("u").unwrap().put("k", "acknowledged").unwrap();
    for at in 0..300_u32 {
        db.put(at.to_be_bytes(), vec![1; 1000]).unwrap();
    }
    db.close().unwrap();
    let mut changed = config();
    changed.set("keyspace.u.durability", "none").unwrap();
    changed.max_memtable_size = Some(8 << 10);
    changed.memory_budget = Some(512 << 10);
    let disks = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&disks);
    sim.vfs.set_observer(Some(Box::new(move |_, _, disk: &Disk| {
        kept.lock().unwrap().push(disk.clone());
    })));
    let db = open(&sim, changed.clone());
    sim.vfs.set_observer(None);
    assert!(db.stats().flushes > 1, "{:?}", db.stats());
    drop(db);
    for (at, disk) in disks.lock().unwrap().iter().enumerate() {
        let sim = Simulation::on(disk.crash(CrashMode::KeepAll, 0), 2);
        let db = open(&sim, changed.clone());
        let found = db.get_keyspace("u").unwrap().get("k").unwrap();
        assert_eq!(found.as_deref(), Some(&b"acknowledged"[..]), "{at}");
        assert_eq!(db.iter().count(), 300, "{at}");
    }
}

#[test]
fn closing_syncs_the_log_even_if_a_keyspace_without_one_cannot_be_flushed() {
    let sim = Simulation::new(1);
    let mut config = config();
    config.durability = Some(Durability::Buffered);
    config.set("keyspace.u.durability", "none").unwrap();
    let db = open(&sim, config.clone());
    db.put("k", "acknowledged").unwrap();
    db.keyspace("u").unwrap().put("k", "only in memory").unwrap();
    sim.vfs.set_free_space(Some(0));
    let error = db.close().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
    let sim = Simulation::on(sim.vfs.disk().crash(CrashMode::DropAll, 0), 2);
    let db = open(&sim, config);
    assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"acknowledged"[..]));
}

fn db_tables(sim: &Simulation) -> Vec<PathBuf> {
    let is_table = |path: &PathBuf| path.extension().is_some_and(|name| name == "sst");
    sim.vfs.files().into_iter().filter(is_table).collect()
}

#[test]
fn what_is_opened_to_be_read_is_not_durable_for_that() {
    let sim = Simulation::new(4);
    let db = open(&sim, Config { durability: Some(Durability::Buffered), ..config() });
    db.put("k", "v").unwrap();
    let disk = sim.vfs.disk();
    let read = |disk| {
        let sim = Simulation::on(disk, 5);
        Db::builder("/db").env(sim.env).read_only(true).open().unwrap()
    };
    let reader = read(disk.clone());
    assert_eq!(reader.durable_seq(), 0);
    assert_eq!(reader.get("k").unwrap().unwrap(), "v");
    assert!(read(disk.crash(CrashMode::DropAll, 0)).get("k").unwrap().is_none());
    let end = db.durable_seq();
    db.close().unwrap();
    assert!(read(sim.vfs.disk()).durable_seq() > end);
}

#[test]
fn a_directory_that_was_there_may_lie_in_one_that_cannot_be_read() {
    for (kind, opens) in
        [(std::io::ErrorKind::PermissionDenied, true), (std::io::ErrorKind::Other, false)]
    {
        let sim = Simulation::new(4);
        sim.env.vfs.create_dir(Path::new("/db")).unwrap();
        // Behind the creation of the lock file.
        sim.vfs.fail_at(sim.vfs.op_count() + 1, kind);
        assert_eq!(try_open(&sim, config()).is_ok(), opens, "{kind:?}");
    }
}

#[test]
fn damage_at_the_end_of_a_closed_log_is_reported_by_every_open_that_follows() {
    let sim = Simulation::new(3);
    let db = open(&sim, config());
    db.put("first", "stays").unwrap();
    db.put("last", "acknowledged").unwrap();
    db.close().unwrap();
    let [segment] = &segments(&sim)[..] else { panic!("one segment") };
    let bytes = content(&sim, segment);
    let value = bytes.windows(12).rposition(|part| part == b"acknowledged").unwrap();
    // With the mark behind it, so that nothing in the segment itself says that there was a record.
    for at in value..bytes.len() {
        sim.vfs.corrupt(segment, at as u64, 0xff).unwrap();
    }
    let mut disk: Disk = sim.vfs.disk();
    for attempt in 0..4 {
        let sim = Simulation::on(disk, attempt);
        let error = try_open(&sim, config()).expect_err("an acknowledged write is damaged");
        assert!(error.is_corruption() && error.offset().is_some(), "{attempt}: {error:?}");
        assert_eq!(error.file(), segment.strip_prefix(ROOT).ok(), "{attempt}: {error:?}");
        // The power goes as well, every other time.
        let now = sim.vfs.disk();
        disk = if attempt % 2 == 0 { now } else { now.crash(CrashMode::DropAll, 0) };
    }
}

/// Puts a file of this name and content beside a database, then opens it again and again.
fn harmless_or_refused(name: &str, bytes: &[u8], created: bool) {
    let sim = Simulation::new(4);
    if created {
        let db = open(&sim, config());
        db.put("k", "v").unwrap();
        db.flush().unwrap();
        db.put("l", "w").unwrap();
        db.close().unwrap();
    } else {
        for dir in ["", "wal", "sst"] {
            sim.vfs.create_dir(&Path::new(ROOT).join(dir)).unwrap();
        }
    }
    let path = Path::new(ROOT).join(name);
    sim.vfs.create(&path, 0).unwrap().write_at(bytes, 0).unwrap();
    for round in 0..3 {
        let db = match try_open(&sim, config()) {
            Ok(db) => db,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corruption, "{name}: {error:?}");
                assert!(error.file().is_some(), "{name}: {error:?}");
                return;
            }
        };
        if created {
            assert_eq!(db.get("k").unwrap().unwrap(), "v", "{name}, open {round}");
            assert_eq!(db.get("l").unwrap().unwrap(), "w", "{name}, open {round}");
        }
        db.put(format!("round {round}"), "written").unwrap();
        db.compact().unwrap();
        db.close().unwrap();
        if created {
            Db::builder(ROOT).env(sim.env.clone()).read_only(true).open().unwrap();
        }
        let report = memtide::verify_in(&sim.env, ROOT).unwrap();
        assert!(report.damages.is_empty(), "{name}: {report:?}");
    }
}

#[test]
fn files_with_impossible_numbers_are_refused_or_ignored() {
    for number in ["ffffffffffffffff", "fffffffffffffffe", "8000000000000000", "7fffffffffffffff"] {
        for name in [format!("sst/{number}.sst"), format!("MANIFEST-{number}")] {
            for created in [true, false] {
                harmless_or_refused(&name, b"", created);
                harmless_or_refused(&name, &[0x5a; 9000], created);
            }
        }
    }
    for base in ["fffffffffffff000", "ffffffffffffe000", "8000000000000000", "7ffffffffffff000"] {
        for created in [true, false] {
            harmless_or_refused(&format!("wal/{base}.wal"), b"", created);
            harmless_or_refused(&format!("wal/{base}.wal"), &[0; 8192], created);
            harmless_or_refused(&format!("wal/{base}.wal"), &[0x5a; 9000], created);
        }
    }
}

/// Whoever opens a database for each question asks it must not leave a trail of log segments.
#[test]
fn opening_and_closing_leaves_no_more_log_than_memtables_need() {
    for flushed in [true, false] {
        let sim = Simulation::new(9);
        let db = open(&sim, config());
        db.put("k", "v").unwrap();
        if flushed {
            db.flush().unwrap();
        }
        db.close().unwrap();
        for round in 0..20 {
            let db = open(&sim, config());
            assert!(db.get("k").unwrap().is_some());
            db.close().unwrap();
            // What is only in the log keeps it, until too much of it would be read at every open.
            let most = if flushed { 1 } else { 6 };
            assert!(segments(&sim).len() <= most, "{:?} after {round} rounds", segments(&sim));
        }
    }
}

/// More than a memtable holds, of several keyspaces, with versions that are overwritten and ranges that are deleted.
#[test]
fn a_long_log_is_replayed_in_bulk_and_says_what_was_written() {
    for (kind, seed) in MemtableType::ALL.into_iter().zip(20..) {
        let sim = Simulation::new(seed);
        let mut roomy = config();
        roomy.memtable_type = Some(kind.into());
        roomy.durability = Some(Durability::Buffered);
        roomy.max_memtable_size = Some(256 << 10);
        (roomy.memory_budget, roomy.flush_target) = (Some(64 << 20), Some(16 << 20));
        let db = open(&sim, roomy.clone());
        let spaces = [db.default_keyspace(), db.keyspace("other").unwrap()];
        let mut model = [BTreeMap::new(), BTreeMap::new()];
        for at in 0..20_000_u32 {
            let (space, rows) = (&spaces[at as usize % 2], &mut model[at as usize % 2]);
            let number = at.wrapping_mul(7919) % 3001;
            let key = format!("{number:05}").into_bytes();
            if at % 701 == 0 {
                let end = format!("{:05}", number + 40).into_bytes();
                space.delete_range(&key[..]..&end[..]).unwrap();
                rows.retain(|known, _| *known < key || *known >= end);
            } else if at % 5 == 0 {
                space.delete(&key).unwrap();
                rows.remove(&key);
            } else {
                let value = format!("{at:050}").into_bytes();
                space.put(&key, &value).unwrap();
                rows.insert(key, value);
            }
        }
        assert_eq!(db.stats().flushes, 0, "{kind}");
        let disk = sim.vfs.disk();
        drop((spaces, db));
        let mut tight = roomy.clone();
        tight.max_memtable_size = Some(16 << 10);
        (tight.memory_budget, tight.flush_target) = (Some(1 << 20), Some(128 << 10));
        for (config, disk) in [(roomy, sim.vfs.disk()), (tight, disk.crash(CrashMode::KeepAll, 0))]
        {
            let sim = Simulation::on(disk, seed);
            let db = open(&sim, config);
            assert_eq!(db.recovery_report().replayed_entries, 20_000, "{kind}");
            for (name, rows) in ["default", "other"].into_iter().zip(&model) {
                let space = db.get_keyspace(name).unwrap();
                let found: Vec<_> = space.iter().map(Result::unwrap).collect();
                assert!(found.iter().map(|(k, v)| (&k[..], &v[..])).eq(pairs(rows)), "{kind}");
                for (key, value) in rows.iter().step_by(7) {
                    assert_eq!(space.get(key).unwrap().as_deref(), Some(&value[..]), "{kind}");
                }
                assert_eq!(space.memtable_type(), kind);
            }
            let stats = db.stats();
            assert!(stats.keyspaces.iter().all(|keyspace| keyspace.sealed < 12), "{stats:?}");
            assert!(stats.memory_used <= stats.memory_budget, "{kind}: {stats:?}");
            // What comes now is newer than all that was replayed.
            db.put("00001", "newest").unwrap();
            db.flush().unwrap();
            assert_eq!(db.get("00001").unwrap().as_deref(), Some(&b"newest"[..]), "{kind}");
        }
    }
}

fn pairs(rows: &BTreeMap<Vec<u8>, Vec<u8>>) -> impl Iterator<Item = (&[u8], &[u8])> {
    rows.iter().map(|(key, value)| (&key[..], &value[..]))
}
