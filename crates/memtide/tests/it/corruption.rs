//! Files that are not what was written: every byte flipped, files cut, missing, swapped, of other kinds.
//!
//! Whatever happened to the files, a database gives the right answers or an error that names the file;
//! never a wrong value, never a panic. `MEMTIDE_CRASH=all` flips every byte with three masks.

use std::path::{Path, PathBuf};

use memtide::{Config, Db, Durability, Error, ErrorKind, MemtableType};
use memtide_env::vfs::{CrashMode, Disk};
use memtide_env::{Simulation, Vfs};

use crate::oracle::{self, Change, Draw, NAMES, State};

const ROOT: &str = "/db";
const MASKS: [u8; 3] = [0x01, 0x80, 0xff];

/// A closed database and what it holds.
struct Closed {
    disk: Disk,
    state: State,
}

fn config(wal_size: u64) -> Config {
    let mut config = Config { durability: Some(Durability::Buffered), ..Config::default() };
    config.memtable_type = Some(MemtableType::Sorted.into());
    config.enable_background_compaction = Some(false);
    config.tree.block_size = Some(256);
    config.tree.table_size = Some(4 << 10);
    config.tree.level1_size = Some(4 << 10);
    config.tree.min_blob_size = Some(64);
    config.tree.wal_segment_size = Some(16 << 10);
    config.tree.wal_size = Some(wal_size);
    config
}

fn open(sim: &Simulation) -> memtide::Result<Db> {
    Db::builder(ROOT).config(config(1 << 20)).env(sim.env.clone()).open()
}

/// Writes `count` batches, calling `after` behind each.
fn fill(db: &Db, draw: &mut Draw, count: u64, state: &mut State, after: &mut dyn FnMut(&State)) {
    for round in 0..count {
        let mut changes = draw.batch(&NAMES);
        changes.push(Change::Put("left", draw.key(), draw.value(30)));
        for change in &mut changes {
            if let Change::Put(_, _, value) = change {
                // Every byte will be flipped: small values are enough.
                value.truncate(24);
            }
        }
        if round % 4 == 0 {
            // One that belongs into a blob file.
            let mut value = draw.value(30);
            value.resize(70, b'v');
            changes.push(Change::Put("right", draw.key(), value));
        }
        oracle::write(db, &changes, Durability::Buffered).unwrap();
        state.apply(&changes);
        after(state);
    }
}

/// Tables in level 0 and below it, blob files, range tombstones, a manifest with edits, a log with data.
fn small() -> Closed {
    let sim = Simulation::new(1);
    let (mut draw, mut state) = (Draw::new(3), State::default());
    let db = open(&sim).unwrap();
    for name in NAMES {
        db.keyspace(name).unwrap();
    }
    fill(&db, &mut draw, 8, &mut state, &mut |_| {});
    db.compact().unwrap();
    fill(&db, &mut draw, 8, &mut state, &mut |_| {});
    db.flush().unwrap();
    fill(&db, &mut draw, 6, &mut state, &mut |_| {});
    assert!(db.stats().keyspaces[1].tables >= 2);
    assert!(db.stats().keyspaces[2].blobs >= 2);
    db.close().unwrap();
    Closed { disk: sim.vfs.disk(), state }
}

/// Several full log segments, all of them needed, and tables.
fn with_long_log(seed: u64) -> Closed {
    let sim = Simulation::new(seed);
    let (mut draw, mut state) = (Draw::new(seed), State::default());
    let db = open(&sim).unwrap();
    for name in NAMES {
        db.keyspace(name).unwrap();
    }
    fill(&db, &mut draw, 20, &mut state, &mut |_| {});
    db.flush().unwrap();
    fill(&db, &mut draw, 20, &mut state, &mut |_| {});
    db.flush().unwrap();
    for at in 0..40 {
        // The first is small, so that the segment of the flush is needed from now on.
        let change = Change::Put("left", draw.key(), vec![7; if at == 0 { 1 } else { 1500 }]);
        oracle::write(&db, std::slice::from_ref(&change), Durability::Buffered).unwrap();
        state.apply(&[change]);
    }
    assert!(db.stats().wal_segments >= 4);
    db.close().unwrap();
    Closed { disk: sim.vfs.disk(), state }
}

/// Opens, scans and gets. `Ok` means that everything was right; a wrong answer panics.
fn judge(sim: &Simulation, want: &State) -> Result<(), Error> {
    let db = open(sim)?;
    let scanned = State::of(&db);
    if let Ok(state) = &scanned {
        assert!(state == want, "wrong rows: {}", state.difference(want));
    }
    let mut failed = scanned.err();
    for name in NAMES {
        let all = want.rows(name, &(std::ops::Bound::Unbounded, std::ops::Bound::Unbounded));
        let Some(keyspace) = db.get_keyspace(name) else {
            assert!(all.is_empty(), "keyspace {name} is gone");
            continue;
        };
        for (key, value) in &all {
            match keyspace.get(key) {
                Ok(found) => assert_eq!(found.as_deref(), Some(value.as_slice()), "{key:?}"),
                Err(error) => failed = Some(error),
            }
        }
        for absent in [&b"k000"[..], b"absent", b"tide/2026/999"] {
            match keyspace.get(absent) {
                Ok(found) => assert_eq!(found, None),
                Err(error) => failed = Some(error),
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Names the damage if a check panics.
struct Damaged(String);

impl Drop for Damaged {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("damage: {}", self.0);
        }
    }
}

fn files(disk: &Disk) -> Vec<PathBuf> {
    Simulation::on(disk.clone(), 0).vfs.files()
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix(ROOT).unwrap()
}

#[test]
fn a_flipped_byte_anywhere_is_harmless_or_found_with_file_and_offset() {
    let closed = small();
    let all = std::env::var("MEMTIDE_CRASH").is_ok_and(|value| value == "all");
    let (mut flips, mut harmless) = (0, 0);
    for path in files(&closed.disk) {
        let len = Simulation::on(closed.disk.clone(), 0).vfs.file_len(&path).unwrap();
        let is_lock = path.ends_with("LOCK");
        for offset in 0..len {
            let turn = usize::try_from(offset % 3).unwrap();
            for mask in
                MASKS.into_iter().skip(if all { 0 } else { turn }).take(if all { 3 } else { 1 })
            {
                let damaged = Damaged(format!("{} at {offset} ^ {mask:#x}", path.display()));
                let sim = Simulation::on(closed.disk.clone(), 5);
                sim.vfs.corrupt(&path, offset, mask).unwrap();
                let flipped = sim.vfs.disk();
                let judged = judge(&sim, &closed.state);
                let sim = Simulation::on(flipped, 6);
                let verified = memtide::verify_in(&sim.env, ROOT);
                flips += 1;
                match &judged {
                    Ok(()) => harmless += 1,
                    Err(error) => {
                        assert!(error.file() == Some(relative(&path)), "{error:?}");
                        assert!(error.is_corruption() && error.offset().is_some(), "{error:?}");
                    }
                }
                let report = verified.unwrap();
                let found = report.damages.iter().any(|damage| damage.file == relative(&path));
                assert_eq!(found, !report.damages.is_empty(), "{report:?}");
                assert!(found || judged.is_ok(), "verify missed what open met: {judged:?}");
                // Behind the last record that was synced lies a mark that need not be durable.
                let is_mark =
                    path.extension().is_none_or(|kind| kind == "wal") && len - offset <= 24;
                assert!(found || is_lock || is_mark, "verify missed it: {report:?}");
                drop(damaged);
            }
        }
    }
    println!("{flips} flips, {harmless} of them changed no answer");
}

#[test]
fn files_cut_anywhere_are_harmless_or_refused() {
    let closed = with_long_log(8);
    for path in files(&closed.disk) {
        let len = Simulation::on(closed.disk.clone(), 0).vfs.file_len(&path).unwrap();
        for cut in
            [0, 1, 7, len / 3, len / 2, len - len.min(40), len - len.min(8), len - len.min(1)]
        {
            let damaged = Damaged(format!("{} cut to {cut}", path.display()));
            let sim = Simulation::on(closed.disk.clone(), 5);
            sim.vfs.open_write(&path).unwrap().set_len(cut).unwrap();
            let cut_disk = sim.vfs.disk();
            let judged = judge(&sim, &closed.state);
            if path.extension().is_some_and(|name| name == "sst" || name == "blob") && cut < len {
                assert!(judged.is_err(), "a shorter table or blob file");
            }
            let sim = Simulation::on(cut_disk, 6);
            let verified = memtide::verify_in(&sim.env, ROOT);
            let clean = verified.is_ok_and(|report| report.damages.is_empty());
            assert!(!clean || judged.is_ok(), "verify missed it: {judged:?}");
            drop(damaged);
        }
    }
}

/// Does something to the files of a database and expects the open to refuse.
fn refused(closed: &Closed, what: &str, harm: &dyn Fn(&Simulation)) {
    let damaged = Damaged(what.to_owned());
    let sim = Simulation::on(closed.disk.clone(), 5);
    harm(&sim);
    let harmed = sim.vfs.disk();
    let error = judge(&sim, &closed.state).expect_err(what);
    assert!(error.file().is_some(), "{error:?}");
    assert_ne!(error.kind(), ErrorKind::Internal, "{error:?}");
    let sim = Simulation::on(harmed, 6);
    if let Ok(report) = memtide::verify_in(&sim.env, ROOT) {
        assert!(!report.damages.is_empty(), "verify missed it: {error:?}");
    }
    drop(damaged);
}

fn content(sim: &Simulation, path: &Path) -> Vec<u8> {
    let file = sim.vfs.open_read(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn replace(sim: &Simulation, path: &Path, bytes: &[u8]) {
    let _ = sim.vfs.remove(path);
    sim.vfs.create(path, 0).unwrap().write_at(bytes, 0).unwrap();
}

#[test]
fn missing_swapped_and_foreign_files_are_refused() {
    let closed = with_long_log(8);
    let other = with_long_log(9);
    let foreign = Simulation::on(other.disk.clone(), 0);
    let of_kind = |disk: &Disk, part: &str| -> Vec<PathBuf> {
        let has = |path: &PathBuf| path.to_str().unwrap().contains(part);
        files(disk).into_iter().filter(has).collect()
    };
    let segments = of_kind(&closed.disk, ".wal");
    let tables = of_kind(&closed.disk, ".sst");
    let blobs = of_kind(&closed.disk, ".blob");
    let manifests = of_kind(&closed.disk, "MANIFEST");
    assert!(segments.len() >= 4 && tables.len() >= 3 && blobs.len() >= 2 && manifests.len() == 1);
    let current = of_kind(&closed.disk, "CURRENT");
    let every = segments.iter().chain(&tables).chain(&blobs).chain(&manifests).chain(&current);
    for path in every {
        refused(&closed, &format!("{} missing", path.display()), &|sim| {
            sim.vfs.remove(path).unwrap();
        });
        refused(&closed, &format!("a directory for {}", path.display()), &|sim| {
            sim.vfs.remove(path).unwrap();
            sim.vfs.create_dir(path).unwrap();
        });
        refused(&closed, &format!("{} empty", path.display()), &|sim| {
            replace(sim, path, b"");
        });
        refused(&closed, &format!("{} of noise", path.display()), &|sim| {
            let mut draw = Draw::new(1);
            let noise: Vec<_> = (0..9000).map(|_| u8::try_from(draw.below(256)).unwrap()).collect();
            replace(sim, path, &noise);
        });
    }
    for group in [&segments, &tables, &blobs] {
        for pair in group.windows(2) {
            refused(&closed, &format!("{pair:?} swapped"), &|sim| {
                let (a, b) = (content(sim, &pair[0]), content(sim, &pair[1]));
                replace(sim, &pair[0], &b);
                replace(sim, &pair[1], &a);
            });
        }
    }
    let others = files(&other.disk);
    for path in segments.iter().chain(&tables).chain(&blobs).chain(&manifests) {
        let same_kind = |other: &&PathBuf| {
            other.parent() == path.parent()
                && other.extension() == path.extension()
                && other.to_str().unwrap().contains("MANIFEST")
                    == path.to_str().unwrap().contains("MANIFEST")
        };
        let same_name = others.iter().find(|other| *other == path);
        let from = same_name.or_else(|| others.iter().find(same_kind)).unwrap();
        refused(&closed, &format!("{} of another database", path.display()), &|sim| {
            replace(sim, path, &content(&foreign, from));
        });
    }
    refused(&closed, "all but the first half of the log missing", &|sim| {
        segments[segments.len() / 2..].iter().for_each(|path| sim.vfs.remove(path).unwrap());
    });
}

#[test]
fn a_newer_format_is_not_taken_for_damage() {
    let sim = Simulation::on(small().disk, 1);
    let lines = "memtide 2\nMANIFEST of another kind\n";
    let checksum = memtide_base::checksum::xxh3_64(0, lines.as_bytes());
    let text = format!("{lines}xxh3 {checksum:016x}\n");
    replace(&sim, &Path::new(ROOT).join("CURRENT"), text.as_bytes());
    assert_eq!(open(&sim).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn names_that_are_not_the_databases_are_left_alone() {
    let closed = small();
    let sim = Simulation::on(closed.disk.clone(), 1);
    let strange = ["notes.txt", "wal/README", "sst/1.sst", "wal/g.wal", "MANIFEST-1"];
    for name in strange {
        replace(&sim, &Path::new(ROOT).join(name), b"mine");
    }
    judge(&sim, &closed.state).unwrap();
    for name in strange {
        assert_eq!(content(&sim, &Path::new(ROOT).join(name)), b"mine", "{name}");
    }
}

#[test]
fn after_a_kill_only_what_was_never_marked_as_synced_may_read_as_torn() {
    let sim = Simulation::new(2);
    let (mut draw, mut state) = (Draw::new(4), State::default());
    let db = open(&sim).unwrap();
    for name in NAMES {
        db.keyspace(name).unwrap();
    }
    fill(&db, &mut draw, 12, &mut state, &mut |_| {});
    db.sync().unwrap();
    // The first write behind the sync carries the mark.
    let synced_state = state.clone();
    let mut states = vec![state.clone()];
    fill(&db, &mut draw, 5, &mut state, &mut |state| states.push(state.clone()));
    let disk = sim.vfs.disk().crash(CrashMode::KeepAll, 0);
    drop(db);
    let segment =
        files(&disk).into_iter().find(|path| path.extension().is_some_and(|e| e == "wal"));
    let segment = segment.unwrap();
    let used = content(&Simulation::on(disk.clone(), 0), &segment);
    let used = used.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
    let (mut torn, mut refused) = (0, 0);
    for offset in 0..used {
        let damaged = Damaged(format!("offset {offset} of {used}"));
        let sim = Simulation::on(disk.clone(), 3);
        sim.vfs.corrupt(&segment, offset, MASKS[usize::try_from(offset % 3).unwrap()]).unwrap();
        match open(&sim) {
            Err(error) => {
                assert!(error.is_corruption(), "{error:?}");
                refused += 1;
            }
            Ok(db) => {
                let found = State::of(&db).unwrap();
                let report = db.recovery_report();
                assert!(states.contains(&found), "no prefix: {}", found.difference(&synced_state));
                assert!(found == state || report.torn_bytes > 0, "lost without a word: {report:?}");
                torn += 1;
            }
        }
        drop(damaged);
    }
    println!("{used} flips: {refused} refused, {torn} behind the mark read as torn");
    assert!(refused > used / 2 && torn > 0);
}

#[test]
fn the_last_segment_of_a_database_that_was_not_closed_is_missed() {
    for with_tables in [false, true] {
        let sim = Simulation::new(2);
        let db = open(&sim).unwrap();
        let mut draw = Draw::new(4);
        let mut state = State::default();
        let mut write = |db: &Db, len, durability| {
            let change = Change::Put("default", draw.key(), vec![7; len]);
            oracle::write(db, std::slice::from_ref(&change), durability).unwrap();
            state.apply(&[change]);
        };
        while db.stats().wal_segments < 3 {
            write(&db, 1500, Durability::Sync);
        }
        write(&db, 10, Durability::Sync);
        if with_tables {
            db.flush().unwrap();
        }
        let closed = Closed { disk: sim.vfs.disk().crash(CrashMode::DropAll, 0), state };
        judge(&Simulation::on(closed.disk.clone(), 5), &closed.state).unwrap();
        let segments: Vec<_> = files(&closed.disk)
            .into_iter()
            .filter(|path| path.extension().is_some_and(|kind| kind == "wal"))
            .collect();
        let last = segments.last().unwrap();
        let len = Simulation::on(closed.disk.clone(), 0).vfs.file_len(last).unwrap();
        refused(&closed, "the last segment missing", &|sim| sim.vfs.remove(last).unwrap());
        for cut in [0, 1, 100, 4096, len / 2, len - 4096, len - 1] {
            refused(&closed, &format!("the last segment cut to {cut}"), &|sim| {
                sim.vfs.open_write(last).unwrap().set_len(cut).unwrap();
            });
        }
        let zeros = vec![0; usize::try_from(len).unwrap()];
        refused(&closed, "the last segment of zeros", &|sim| replace(sim, last, &zeros));
        if with_tables {
            refused(&closed, "the records of the last segment zeroed", &|sim| {
                sim.vfs.open_write(last).unwrap().write_at(&zeros[4096..], 4096).unwrap();
            });
        }
    }
}

#[test]
fn each_end_of_an_iterator_shows_what_lies_before_the_damage() {
    let sim = Simulation::new(1);
    let mut config = config(1 << 20);
    config.tree.min_blob_size = None;
    let open = || Db::builder(ROOT).config(config.clone()).env(sim.env.clone()).open();
    let db = open().unwrap();
    for key in "abcdefghijklmnopqrstuvwxyz".chars() {
        // One block each.
        db.put(key.to_string(), [b'v'; 300]).unwrap();
    }
    db.flush().unwrap();
    db.close().unwrap();
    let table =
        sim.vfs.files().into_iter().find(|path| path.extension().is_some_and(|e| e == "sst"));
    sim.vfs.corrupt(&table.unwrap(), 400, 0xff).unwrap();
    for forward_first in [true, false] {
        let db = open().unwrap();
        let mut iter = db.iter();
        let mut show = |forward: bool| {
            let entry = if forward { iter.next() } else { iter.next_back() };
            entry.unwrap().map(|(key, _)| key.to_vec())
        };
        for forward in [forward_first, !forward_first] {
            let want = if forward { b"a" } else { b"z" };
            assert_eq!(show(forward).unwrap(), want, "{forward_first}");
        }
        assert_eq!(show(true).unwrap_err().kind(), ErrorKind::Corruption);
    }
}
