//! The tools that look at a database, and what they say of damaged ones.

use std::path::{Path, PathBuf};
use std::time::Duration;

use memtide::{
    Config, Db, Depth, DumpKind, Durability, ErrorKind, Inspector, MemtableType, VerifyOptions,
};
use memtide_env::vfs::Disk;
use memtide_env::{Clock, Simulation, Vfs};

use crate::oracle::{self, Change, Draw, NAMES, State};

const ROOT: &str = "/db";

pub(crate) fn config(memtable: MemtableType) -> Config {
    let mut config = Config { durability: Some(Durability::Buffered), ..Config::default() };
    config.memtable_type = Some(memtable.into());
    config.enable_background_compaction = Some(false);
    config.tree.block_size = Some(256);
    config.tree.table_size = Some(4 << 10);
    config.tree.level1_size = Some(4 << 10);
    config.tree.min_blob_size = Some(64);
    config.tree.wal_segment_size = Some(16 << 10);
    config.tree.wal_size = Some(1 << 20);
    config
}

fn open(sim: &Simulation, memtable: MemtableType) -> Db {
    Db::builder(ROOT).config(config(memtable)).env(sim.env.clone()).open().unwrap()
}

fn fill(db: &Db, draw: &mut Draw, count: u64, state: &mut State) {
    for round in 0..count {
        let mut changes = draw.batch(&NAMES);
        changes.push(Change::Put("left", draw.key(), draw.value(30)));
        if round % 3 == 0 {
            let mut value = draw.value(30);
            value.resize(70, b'v');
            changes.push(Change::Put("right", draw.key(), value));
        }
        oracle::write(db, &changes, Durability::Buffered).unwrap();
        state.apply(&changes);
    }
}

fn inspect(disk: &Disk, seed: u64) -> (Simulation, Inspector) {
    let sim = Simulation::on(disk.clone(), seed);
    let inspector = Db::inspect(ROOT).env(sim.env.clone());
    (sim, inspector)
}

fn made(memtable: MemtableType) -> Disk {
    let sim = Simulation::new(1);
    let (mut draw, mut state) = (Draw::new(7), State::default());
    let db = open(&sim, memtable);
    NAMES.iter().for_each(|name| drop(db.keyspace(name).unwrap()));
    fill(&db, &mut draw, 12, &mut state);
    db.compact().unwrap();
    fill(&db, &mut draw, 12, &mut state);
    db.flush().unwrap();
    fill(&db, &mut draw, 8, &mut state);
    for _ in 0..40 {
        let change = Change::Put("left", draw.key(), vec![7; 1500]);
        oracle::write(&db, &[change], Durability::Buffered).unwrap();
    }
    db.close().unwrap();
    sim.vfs.disk()
}

fn with_extension(disk: &Disk, extension: &str) -> Vec<PathBuf> {
    let files = Simulation::on(disk.clone(), 0).vfs.files();
    files.into_iter().filter(|path| path.extension().is_some_and(|e| e == extension)).collect()
}

#[test]
fn a_quick_look_reads_little_and_finds_what_is_missing_cut_or_another_file() {
    let disk = made(MemtableType::Trie);
    let (sim, inspector) = inspect(&disk, 2);
    let before = sim.vfs.bytes_read();
    assert_eq!(inspector.verify(Depth::Quick).unwrap().damages, []);
    let quick = sim.vfs.bytes_read() - before;
    assert_eq!(inspector.verify(Depth::Full).unwrap().damages, []);
    assert!(quick < sim.vfs.bytes_read() - before - quick, "{quick} B");

    for extension in ["sst", "blob", "wal"] {
        let files = with_extension(&disk, extension);
        let [first, .., last] = &files[..] else { panic!("{extension}: {files:?}") };
        for harm in ["missing", "cut", "swapped"] {
            let (sim, inspector) = inspect(&disk, 3);
            match harm {
                "missing" => sim.vfs.remove(last).unwrap(),
                "cut" => sim.vfs.open_write(last).unwrap().set_len(50).unwrap(),
                _ => {
                    sim.vfs.rename(first, Path::new("/db/x")).unwrap();
                    sim.vfs.rename(last, first).unwrap();
                    sim.vfs.rename(Path::new("/db/x"), last).unwrap();
                }
            }
            let report = inspector.verify(Depth::Quick).unwrap();
            assert!(!report.damages.is_empty(), "{harm} {}", last.display());
        }
    }
}

#[test]
fn without_current_there_is_damage_and_without_anything_no_database() {
    let disk = made(MemtableType::Sorted);
    let (sim, inspector) = inspect(&disk, 2);
    sim.vfs.remove(&Path::new(ROOT).join("CURRENT")).unwrap();
    for depth in [Depth::Quick, Depth::Full] {
        let report = inspector.verify(depth).unwrap();
        assert_eq!(report.damages[0].file, Path::new("CURRENT"));
    }
    sim.vfs.create_dir(Path::new("/empty")).unwrap();
    let none = Db::inspect("/empty").env(sim.env.clone()).verify(Depth::Full).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::Unsupported);
}

#[test]
fn an_open_database_is_verified_beside_its_writers_and_remembers_what_was_found() {
    for memtable in [MemtableType::Skiplist, MemtableType::Vector] {
        let sim = Simulation::on(made(memtable), 4);
        let db = open(&sim, memtable);
        let (mut draw, mut state) = (Draw::new(9), State::of(&db).unwrap());
        for _ in 0..4 {
            fill(&db, &mut draw, 6, &mut state);
            let report = db.verify(Depth::Full).unwrap();
            assert_eq!(report.damages, []);
            assert!(report.files > 5 && report.bytes > 4096, "{report:?}");
            db.compact().unwrap();
        }
        assert!(db.damages().is_empty());
        let table = with_extension(&sim.vfs.disk(), "sst").pop().unwrap();
        sim.vfs.corrupt(&table, 20, 1).unwrap();
        assert_eq!(db.verify(Depth::Quick).unwrap().damages, []);
        for _ in 0..2 {
            let report = db.verify(Depth::Full).unwrap();
            assert_eq!(report.damages.len(), 1, "{report:?}");
            assert_eq!(report.damages[0].file, table.strip_prefix(ROOT).unwrap());
            assert_eq!((db.damages(), db.stats().damages), (report.damages, 1));
        }
    }
}

#[test]
fn a_slow_look_takes_its_time() {
    let sim = Simulation::on(made(MemtableType::Skiplist), 4);
    let db = open(&sim, MemtableType::Skiplist);
    let began = sim.clock.now();
    let options = VerifyOptions { depth: Depth::Full, bytes_per_second: Some(1 << 10) };
    let bytes = db.verify(options).unwrap().bytes;
    let passed = sim.clock.now() - began;
    assert!(passed > Duration::from_secs(bytes / 2048), "{bytes} B in {passed:?}");
    db.clone().close().unwrap();
    assert_eq!(db.verify(options).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_scrub_comes_by_everything_finds_damage_and_ends_with_the_database() {
    let sim = Simulation::on(made(MemtableType::Skiplist), 4);
    let db = open(&sim, MemtableType::Skiplist);
    let every = Duration::from_secs(3600);
    assert_eq!(db.scrub(every, 0).unwrap_err().kind(), ErrorKind::InvalidArgument);
    db.scrub(every, 1 << 20).unwrap();
    sim.steps.run_until_idle();
    assert_eq!((db.stats().scrub_passes, db.damages()), (1, Vec::new()));
    assert!(db.stats().scrub_bytes > 10_000);
    let table = with_extension(&sim.vfs.disk(), "sst").remove(1);
    sim.vfs.corrupt(&table, 20, 1).unwrap();
    sim.clock.advance(every);
    sim.steps.run_until_idle();
    assert_eq!(db.stats().scrub_passes, 2);
    assert_eq!(db.damages().len(), 1);
    assert_eq!(db.damages()[0].file, table.strip_prefix(ROOT).unwrap());
    db.stop_scrub();
    sim.clock.advance(every);
    sim.steps.run_until_idle();
    assert_eq!(db.stats().scrub_passes, 2);
    db.scrub(every, 1).unwrap();
    db.close().unwrap();
}

#[test]
fn a_doctor_says_what_is_there_and_what_to_do() {
    let disk = made(MemtableType::Trie);
    let (sim, inspector) = inspect(&disk, 2);
    sim.vfs.create(Path::new("/db/sst/00000000000000ff.sst"), 0).unwrap();
    sim.vfs.create(Path::new("/db/letter"), 0).unwrap();
    let before = sim.vfs.op_count();
    let found = inspector.doctor().unwrap();
    assert_eq!(sim.vfs.op_count(), before, "it writes nothing");
    assert_eq!((found.state, found.keyspaces.len(), found.torn_bytes), ("healthy", 3, 0));
    assert!(found.log_writes > 40 && found.log_segments > 2 && found.bytes > 60_000, "{found:?}");
    assert_eq!(found.orphans, [PathBuf::from("sst/00000000000000ff.sst")]);
    assert_eq!(found.strangers, [PathBuf::from("letter")]);
    let tables = with_extension(&disk, "sst").len() as u64;
    assert_eq!(found.keyspaces.iter().map(|keyspace| keyspace.tables).sum::<u64>(), tables);
    sim.vfs.remove(&with_extension(&disk, "sst")[0]).unwrap();
    let found = inspector.doctor().unwrap();
    assert_eq!((found.state, found.damages.len()), ("damaged", 1));
    assert!(found.advice.iter().any(|what| what.contains("salvage")), "{found:?}");
}

#[test]
fn a_dump_tells_every_piece_and_goes_on_behind_damage() {
    let disk = made(MemtableType::Sorted);
    for (kind, extension, piece) in [
        (DumpKind::Wal, "wal", "put"),
        (DumpKind::Table, "sst", "put"),
        (DumpKind::Blob, "blob", "value"),
        (DumpKind::Manifest, "", "table"),
    ] {
        let (sim, inspector) = inspect(&disk, 2);
        let count = || {
            let mut pieces = std::collections::BTreeMap::<String, u64>::new();
            let damages = inspector.dump(kind, &mut |_, item| {
                *pieces.entry(item.what.to_owned()).or_default() += 1;
                Ok(())
            });
            (damages.unwrap(), pieces)
        };
        let (damages, whole) = count();
        assert_eq!(damages, 0, "{whole:?}");
        assert!(whole[piece] > 3, "{whole:?}");
        let is_one = |path: &PathBuf| match extension {
            "" => path.to_str().unwrap().contains("MANIFEST"),
            _ => path.extension().is_some_and(|found| found == extension),
        };
        for path in sim.vfs.files().iter().filter(|path| is_one(path)) {
            sim.vfs.corrupt(path, sim.vfs.file_len(path).unwrap() / 3, 4).unwrap();
        }
        let (damages, damaged) = count();
        assert!(damages > 0, "{kind:?}");
        let sound = |pieces: &std::collections::BTreeMap<String, u64>| {
            pieces.iter().filter(|(what, _)| *what != "damage").map(|(_, count)| count).sum::<u64>()
        };
        assert!(damaged[piece] > 0 && sound(&damaged) < sound(&whole), "{damaged:?} {whole:?}");
    }
}

#[test]
fn two_databases_differ_in_the_keys_that_are_told() {
    let sim = Simulation::new(1);
    let [a, b] = ["/a", "/b"].map(|dir| Db::builder(dir).env(sim.env.clone()).open().unwrap());
    for (db, rows) in [
        (&a, [("both", "1"), ("left", "2"), ("other", "3")]),
        (&b, [("both", "1"), ("other", "4"), ("right", "5")]),
    ] {
        rows.iter().for_each(|(key, value)| db.put(key, value).unwrap());
    }
    a.keyspace("mine").unwrap().put("key", "value").unwrap();
    a.close().unwrap();
    b.close().unwrap();
    let [a, b] = ["/a", "/b"].map(|dir| Db::inspect(dir).env(sim.env.clone()));
    let mut told = Vec::new();
    let count = a.diff(&b, &mut |found| {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let values = [found.left, found.right].map(|value| value.map(text));
        told.push((found.keyspace.to_owned(), text(found.key), values));
        Ok(())
    });
    assert_eq!(count.unwrap(), 4);
    let want = [
        ("default", "left", [Some("2"), None]),
        ("default", "other", [Some("3"), Some("4")]),
        ("default", "right", [None, Some("5")]),
        ("mine", "key", [Some("value"), None]),
    ];
    let want = want.map(|(keyspace, key, values)| {
        (keyspace.to_owned(), key.to_owned(), values.map(|value| value.map(str::to_owned)))
    });
    assert_eq!(told, want);
    assert_eq!(a.diff(&a, &mut |_| panic!("nothing differs")).unwrap(), 0);
}
