//! Databases written by released formats open for ever.
//!
//! `tests/golden/v1/<memtable>-<shutdown>/` at the root of the repository holds one small database per
//! memtable type and one for a program's own, closed in order (`clean`) or killed (`killed`), and
//! `expected.txt` its contents; `runs-clean` has several runs in a level below 0 and a stored strategy,
//! `blobs-clean` values in blob files, `partitions-clean` tables with partitions. They are written once: with
//! `MEMTIDE_REWRITE=1` this test adds directories that are missing and never touches one that is there.

use std::fs;
use std::path::{Path, PathBuf};

use memtide::{Compaction, Config, Db, Durability, MemtableChoice, MemtableType};
use memtide_env::{Env, Simulation};

use crate::own_memtable::registry;

const SHUTDOWNS: [&str; 2] = ["clean", "killed"];

fn golden_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/v1")
}

/// Small enough to commit: segments of 16 KiB, tables of a few KiB.
fn config(choice: &MemtableChoice) -> Config {
    let mut config = Config {
        memtable_type: Some(choice.clone()),
        max_memtable_size: Some(8 << 10),
        durability: Some(Durability::Buffered),
        enable_background_compaction: Some(false),
        ..Config::default()
    };
    config.tree.wal_segment_size = Some(16 << 10);
    config.tree.block_size = Some(512);
    config
}

/// Tables in two levels, a log with batches and range deletes, two keyspaces, versions and tombstones.
fn fill(db: &Db) {
    let eu = db.keyspace("eu/users").unwrap();
    for i in 0..60_u8 {
        let value = format!("value {i} {}", "x".repeat(i.into()));
        db.put(format!("key{i:03}"), value).unwrap();
        eu.put([0xFF, 0x00, i], [i; 3]).unwrap();
    }
    db.compact().unwrap();
    for i in (0..60).step_by(3) {
        db.put(format!("key{i:03}"), "second").unwrap();
    }
    db.delete_range("key010".."key020").unwrap();
    db.flush().unwrap();
    let mut batch = db.batch();
    batch.put(&db.default_keyspace(), "", "the empty key");
    batch.delete(&eu, [0xFF, 0x00, 7]);
    batch.delete_range(&db.default_keyspace(), "key050"..="key055");
    batch.put(&eu, "last", [0; 0]);
    db.write(batch).unwrap();
}

fn contents(db: &Db) -> String {
    let mut text = String::new();
    for keyspace in db.keyspaces() {
        for entry in keyspace.iter() {
            let (key, value) = entry.unwrap();
            let row =
                format!("{}\t{}\t{}\n", keyspace.name(), key.escape_ascii(), value.escape_ascii());
            text.push_str(&row);
        }
    }
    text
}

/// Writes the files of a simulated disk to a real directory.
fn save(sim: &Simulation, to: &Path) {
    for path in sim.vfs.files() {
        let file = sim.env.vfs.open_read(&path).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let target = to.join(path.strip_prefix("/db").unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, bytes).unwrap();
    }
}

fn create(choice: &MemtableChoice, shutdown: &str, dir: &Path) {
    let sim = Simulation::new(1);
    let builder = Db::builder("/db").config(config(choice)).env(sim.env.clone());
    let db = builder.registry(registry()).open().unwrap();
    fill(&db);
    let expected = contents(&db);
    if shutdown == "killed" {
        save(&sim, dir);
    } else {
        db.close().unwrap();
        save(&sim, dir);
    }
    fs::write(dir.join("expected.txt"), expected).unwrap();
}

/// Several runs in levels below 0, older and newer versions of keys and deletes in them.
fn create_runs(dir: &Path) {
    let sim = Simulation::new(1);
    let mut config = config(&MemtableType::Skiplist.into());
    config.compaction = Some(Compaction::Tiered);
    config.enable_background_compaction = Some(true);
    config.tree.level0_runs = Some(2);
    config.tree.table_size = Some(4 << 10);
    config.tree.level1_size = Some(4 << 10);
    let db = Db::builder("/db").config(config).env(sim.env.clone()).open().unwrap();
    let runs = || db.stats().keyspaces[0].levels[1..].iter().map(|level| level.runs).max();
    for round in 0_u32.. {
        for i in (0..400_u32).filter(|i| round == 0 || (i + round) % 23 == 0) {
            let noise = i.wrapping_mul(0x9E37_79B9).to_be_bytes().escape_ascii().to_string();
            db.put(format!("key{i:03}"), format!("{round} {noise}")).unwrap();
        }
        db.delete(format!("key{:03}", round + 7)).unwrap();
        db.delete_range(format!("key{:03}", 100 + 4 * round)..format!("key{:03}", 102 + 4 * round))
            .unwrap();
        db.flush().unwrap();
        sim.steps.run_until_idle();
        if runs() >= Some(3) {
            break;
        }
        assert!(round < 50, "no level gathers runs");
    }
    db.put("key000", "in the log").unwrap();
    let expected = contents(&db);
    db.close().unwrap();
    save(&sim, dir);
    fs::write(dir.join("expected.txt"), expected).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn databases_of_every_released_format_open_with_their_contents() {
    let all = MemtableType::ALL.map(MemtableChoice::from).into_iter();
    for choice in all.chain([MemtableChoice::named("time_log")]) {
        for shutdown in SHUTDOWNS {
            let name = format!("{choice}-{shutdown}");
            let golden = golden_root().join(&name);
            if !golden.exists() && std::env::var_os("MEMTIDE_REWRITE").is_some() {
                create(&choice, shutdown, &golden);
            }
            check(&name, &golden, &choice);
        }
    }
}

#[test]
fn a_database_with_several_runs_in_a_level_opens_with_its_contents() {
    let golden = golden_root().join("runs-clean");
    if !golden.exists() && std::env::var_os("MEMTIDE_REWRITE").is_some() {
        create_runs(&golden);
    }
    let work = tempfile::tempdir().unwrap();
    copy(&golden, work.path());
    let db = Db::builder(work.path()).read_only(true).open().unwrap();
    let stats = &db.stats().keyspaces[0];
    assert_eq!(stats.compaction, Compaction::Tiered);
    assert!(stats.levels[1..].iter().any(|level| level.runs >= 3), "{:?}", stats.levels);
    let expected = fs::read_to_string(golden.join("expected.txt")).unwrap();
    assert_eq!(contents(&db), expected);
    drop(db);
    check("runs-clean", &golden, &MemtableType::Skiplist.into());
}

/// Blob files of two flushes and of a compaction that gave one up; one value is compressed.
fn create_blobs(dir: &Path) {
    let sim = Simulation::new(1);
    let mut config = config(&MemtableType::Skiplist.into());
    config.tree.min_blob_size = Some(64);
    let db = Db::builder("/db").config(config).env(sim.env.clone()).open().unwrap();
    let value = |of: u32, len: usize| {
        let noise = |at: u32| (of + at).wrapping_mul(0x9E37_79B9).to_be_bytes();
        (0..).flat_map(noise).take(len).collect::<Vec<u8>>()
    };
    for at in 0..20_u32 {
        db.put(format!("key{at:02}"), value(at, 40 + 4 * at as usize)).unwrap();
    }
    db.put("regular", "tide ".repeat(100)).unwrap();
    db.compact().unwrap();
    for at in (0..20_u32).step_by(2) {
        db.put(format!("key{at:02}"), value(1000 + at, 120)).unwrap();
    }
    db.compact().unwrap();
    db.put("key19", value(9, 200)).unwrap();
    db.flush().unwrap();
    db.put("key18", value(8, 100)).unwrap();
    let expected = contents(&db);
    db.close().unwrap();
    save(&sim, dir);
    fs::write(dir.join("expected.txt"), expected).unwrap();
}

#[test]
fn a_database_with_blob_files_opens_with_its_contents() {
    let golden = golden_root().join("blobs-clean");
    if !golden.exists() && std::env::var_os("MEMTIDE_REWRITE").is_some() {
        create_blobs(&golden);
    }
    let work = tempfile::tempdir().unwrap();
    copy(&golden, work.path());
    let db = Db::builder(work.path()).read_only(true).open().unwrap();
    assert!(db.stats().keyspaces[0].blobs >= 2);
    drop(db);
    check("blobs-clean", &golden, &MemtableType::Skiplist.into());
}

/// Tables larger than the memory they may take while they are open.
fn create_partitions(dir: &Path) {
    let sim = Simulation::new(1);
    let mut config = config(&MemtableType::Skiplist.into());
    config.memory_budget = Some(64 << 10);
    config.tree.block_size = Some(64);
    let db = Db::builder("/db").config(config).env(sim.env.clone()).open().unwrap();
    for round in 0..2_u32 {
        for at in (0..600_u32).filter(|at| round == 0 || at % 5 == 0) {
            let noise = at.wrapping_mul(0x9E37_79B9).to_be_bytes().escape_ascii().to_string();
            db.put(format!("key{at:03}"), format!("{round} {noise}")).unwrap();
        }
        db.delete_range(format!("key{}00", 1 + round)..format!("key{}20", 1 + round)).unwrap();
        db.compact().unwrap();
    }
    db.put("key000", "in the log").unwrap();
    let expected = contents(&db);
    db.close().unwrap();
    save(&sim, dir);
    fs::write(dir.join("expected.txt"), expected).unwrap();
}

/// Whether the block that a table's metaindex names first is a top index.
fn is_divided(table: &Path) -> bool {
    let bytes = fs::read(table).unwrap();
    let footer = &bytes[bytes.len() - 96..];
    let metaindex = u64::from_le_bytes(footer[..8].try_into().unwrap());
    bytes[usize::try_from(metaindex).unwrap()..].starts_with(&[7, 0])
}

#[test]
fn a_database_with_divided_tables_opens_with_its_contents() {
    let golden = golden_root().join("partitions-clean");
    if !golden.exists() && std::env::var_os("MEMTIDE_REWRITE").is_some() {
        create_partitions(&golden);
    }
    let tables = fs::read_dir(golden.join("sst")).unwrap();
    assert!(tables.map(|table| table.unwrap().path()).any(|table| is_divided(&table)));
    check("partitions-clean", &golden, &MemtableType::Skiplist.into());
}

/// It verifies, opens twice, is merged, and shows the same.
fn check(name: &str, golden: &Path, choice: &MemtableChoice) {
    let work = tempfile::tempdir().unwrap();
    copy(golden, work.path());
    let builder = || Db::builder(work.path()).registry(registry());
    let expected = fs::read_to_string(golden.join("expected.txt")).unwrap();
    let damages = memtide::verify(work.path()).unwrap().damages;
    assert_eq!(damages, [], "{name}");
    for round in ["as it was", "reopened"] {
        let db = builder().env(Env::real()).open().unwrap();
        assert_eq!(db.default_keyspace().memtable_type(), *choice, "{name}");
        assert_eq!(contents(&db), expected, "{name}, {round}");
        db.close().unwrap();
    }
    let db = builder().open().unwrap();
    db.compact().unwrap();
    assert_eq!(contents(&db), expected, "{name}, compacted");
}
