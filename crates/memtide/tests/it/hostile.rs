//! Directories that somebody else has changed: replaced under an open database, or made to lead elsewhere, to wait or
//! to fill memory. On the machine's own file system.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use allocation_counter::measure;
use memtide::{Config, Db, Durability, ErrorKind};

fn config() -> Config {
    Config {
        durability: Some(Durability::Sync),
        enable_background_compaction: Some(false),
        ..Config::default()
    }
}

fn open(dir: &Path) -> Db {
    Db::builder(dir).config(config()).open().unwrap()
}

/// Every file below `dir` with its bytes; but for the log, to which its owner may add a mark at any time.
fn photograph(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(photograph(&path));
        } else {
            let is_log = path.extension().is_some_and(|kind| kind == "wal");
            let bytes = if is_log { Vec::new() } else { fs::read(&path).unwrap() };
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}

/// A database with two tables and a segment before the active one, and its directory moved away.
fn moved_away(dir: &Path) -> Db {
    let db = open(dir);
    db.put("k", "old").unwrap();
    db.close().unwrap();
    let db = open(dir);
    for value in ["1", "2"] {
        db.put("k", value).unwrap();
        db.flush().unwrap();
    }
    db.put("k", "3").unwrap();
    assert_eq!(db.get("k").unwrap().unwrap(), "3");
    fs::rename(dir, dir.with_extension("away")).unwrap();
    db
}

#[test]
fn a_database_that_took_the_place_of_an_open_one_is_left_alone() {
    for how in ["sync", "flush", "compact", "close"] {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("db");
        let first = moved_away(&dir);
        let second = open(&dir);
        second.put("k", "second").unwrap();
        second.flush().unwrap();
        second.put("k", "newest").unwrap();
        let before = photograph(&dir);
        let told = match how {
            "sync" => first.put("k", "4").map(drop),
            "flush" => first.flush(),
            "compact" => first.compact(),
            _ => Ok(()),
        };
        if how != "close" {
            let told = told.unwrap_err();
            let kinds = [ErrorKind::ReadOnly, ErrorKind::Indeterminate];
            assert!(kinds.contains(&told.kind()), "{how}: {told:?}");
            assert_eq!(first.health().state, memtide::HealthState::ReadOnly, "{how}");
            let reason = first.health().reason.unwrap();
            assert!(reason.contains("lock file"), "{reason}");
        }
        assert_eq!(first.get("k").unwrap().unwrap(), if how == "sync" { "4" } else { "3" });
        let _ = first.close();
        assert!(photograph(&dir) == before, "{how} changed another database");
        drop(second);
        assert!(memtide::verify(&dir).unwrap().damages.is_empty());
        assert_eq!(open(&dir).get("k").unwrap().unwrap(), "newest");
        // What was synced before the move is where the directory is now.
        assert!(open(&dir.with_extension("away")).get("k").unwrap().is_some());
    }
}

#[test]
fn a_write_into_a_directory_that_is_gone_is_not_called_durable() {
    let parent = tempfile::tempdir().unwrap();
    for whole in [true, false] {
        let dir = parent.path().join("db");
        let db = open(&dir);
        db.put("k", "v").unwrap();
        if whole {
            fs::remove_dir_all(&dir).unwrap();
        } else {
            fs::remove_file(dir.join("LOCK")).unwrap();
        }
        assert_eq!(db.put("k", "w").unwrap_err().kind(), ErrorKind::Indeterminate);
        assert_eq!(db.put("k", "x").unwrap_err().kind(), ErrorKind::ReadOnly);
        drop(db);
        assert_eq!(dir.exists(), !whole, "nothing of it is made again");
    }
}

/// A closed database with a table, and a segment of log behind it; its files of each kind.
fn closed(dir: &Path) -> Vec<PathBuf> {
    let db = open(dir);
    db.put("k", "v").unwrap();
    db.flush().unwrap();
    db.put("l", "w").unwrap();
    db.close().unwrap();
    let paths = photograph(dir).into_iter().map(|(path, _)| path);
    paths.filter(|path| !path.ends_with("LOCK")).collect()
}

/// Opens and reads; what of it failed first.
fn judge(dir: &Path) -> memtide::Result<()> {
    let db = Db::builder(dir).config(config()).open()?;
    for (key, value) in [("k", "v"), ("l", "w")] {
        assert_eq!(db.get(key)?.unwrap(), value);
    }
    Ok(())
}

#[test]
fn links_pipes_and_directories_in_place_of_files_are_refused() {
    let count = {
        let dir = tempfile::tempdir().unwrap();
        closed(&dir.path().join("db")).len()
    };
    assert!(count >= 4, "CURRENT, manifest, log and table");
    for at in 0..count {
        for odd in ["link", "pipe", "directory", "null", "zeros"] {
            let parent = tempfile::tempdir().unwrap();
            let dir = parent.path().join("db");
            let path = closed(&dir).swap_remove(at);
            // Of the same bytes: following the link would go unnoticed.
            let outside = parent.path().join("outside");
            fs::rename(&path, &outside).unwrap();
            let before = fs::read(&outside).unwrap();
            match odd {
                "link" => symlink(&outside, &path).unwrap(),
                "pipe" => assert!(Command::new("mkfifo").arg(&path).status().unwrap().success()),
                "directory" => fs::create_dir(&path).unwrap(),
                "null" => symlink("/dev/null", &path).unwrap(),
                _ => symlink("/dev/zero", &path).unwrap(),
            }
            let error = judge(&dir).unwrap_err();
            assert!(error.file().is_some(), "{odd} for {}: {error:?}", path.display());
            assert_ne!(error.kind(), ErrorKind::Internal, "{error:?}");
            assert!(fs::read(&outside).unwrap() == before, "{odd} for {}", path.display());
        }
    }
}

#[test]
fn a_name_in_current_leads_nowhere_but_to_a_manifest_beside_it() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, other) = (parent.path().join("db"), parent.path().join("other"));
    closed(&dir);
    let manifests = closed(&other);
    let theirs = manifests.iter().find(|path| path.to_str().unwrap().contains("MANIFEST")).unwrap();
    let theirs = theirs.file_name().unwrap().to_str().unwrap();
    for name in [
        format!("../other/{theirs}"),
        other.join(theirs).display().to_string(),
        "..".to_owned(),
        ".".to_owned(),
        String::new(),
        "LOCK".to_owned(),
        format!("./{theirs}/../{theirs}"),
    ] {
        let lines = format!("memtide 1\n{name}\n");
        let checksum = memtide_base::checksum::xxh3_64(0, lines.as_bytes());
        fs::write(dir.join("CURRENT"), format!("{lines}xxh3 {checksum:016x}\n")).unwrap();
        let error = judge(&dir).unwrap_err();
        assert!(error.is_corruption() && error.file() == Some(Path::new("CURRENT")), "{error:?}");
    }
}

#[test]
fn a_file_of_a_tebibyte_of_nothing_is_refused_in_little_memory() {
    for kind in ["wal", "sst", "MANIFEST", "CURRENT"] {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("db");
        let paths = closed(&dir);
        let path = paths.iter().rfind(|path| path.to_str().unwrap().contains(kind)).unwrap();
        // A manifest of zeros behind its edits would be read to its end.
        let len = if kind == "MANIFEST" { 64 << 20 } else { 1 << 40 };
        File::options().write(true).open(path).unwrap().set_len(len).unwrap();
        let mut judged = None;
        let held = measure(|| judged = Some(judge(&dir))).bytes_max;
        if kind != "MANIFEST" {
            let error = judged.unwrap().unwrap_err();
            assert!(error.is_corruption(), "{kind}: {error:?}");
        }
        assert!(0 < held && held < 4 << 20, "{kind}: {held} B");
    }
}
