//! A process that is killed while it writes: whatever it was told is written is there.
//!
//! On the machine's own disk. The writer is this test binary once more; it says on its output what was acknowledged.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use memtide::{Config, Db, Durability, WalSink};

const DIR: &str = "MEMTIDE_KILLED_IN";
const SINK: &str = "MEMTIDE_KILLED_SINK";
/// Bytes of values before the kill: the log is in its third segment then, and both that are mapped have been written.
const LEAST: usize = 12 << 20;

fn open(dir: &Path, sink: WalSink) -> Db {
    let mut config = Config { durability: Some(Durability::Buffered), ..Config::default() };
    config.tree.wal_sink = Some(sink);
    Db::builder(dir).config(config).open().unwrap()
}

/// Long enough that a copy takes a while, and of another length than the values beside it.
fn value(number: u32) -> Vec<u8> {
    let len = usize::try_from(number.wrapping_mul(2_654_435_761) >> 17).unwrap();
    number.to_le_bytes().into_iter().cycle().take(len).collect()
}

/// Writes until it is killed.
fn write(dir: &Path, sink: WalSink) -> ! {
    let db = open(dir, sink);
    let mut out = std::io::stdout().lock();
    for number in 0_u32.. {
        db.put(number.to_be_bytes(), value(number)).unwrap();
        let used = db.stats().wal_sink.unwrap();
        // In front of it the harness may have begun a line of its own.
        out.write_all(format!("\nacknowledged {number} {used}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    }
    unreachable!("there are more numbers than a disk has room")
}

/// How many numbers a writer was told are written before it was killed, and how often each sink was used.
fn killed(dir: &Path, sink: WalSink) -> (u32, BTreeMap<String, u32>) {
    let mut own = Command::new(std::env::current_exe().unwrap());
    own.args(["--exact", "kill::what_was_acknowledged_survives_a_kill", "--nocapture"]);
    own.env(DIR, dir).env(SINK, sink.name()).stdout(Stdio::piped());
    let mut child = own.spawn().unwrap();
    let (mut count, mut bytes, mut used) = (0, 0, BTreeMap::new());
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some(said) = line.strip_prefix("acknowledged ") else { continue };
        // The last line may be cut.
        let Some((number, name)) = said.split_once(' ') else { continue };
        assert_eq!(number, count.to_string());
        bytes += value(count).len();
        count += 1;
        *used.entry(name.to_owned()).or_default() += 1;
        if bytes > LEAST {
            // What it writes until it is dead is read all the same.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    (count, used)
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    if let (Ok(dir), Ok(sink)) = (std::env::var(DIR), std::env::var(SINK)) {
        write(Path::new(&dir), sink.parse().unwrap());
    }
    for (sink, round) in WalSink::ALL.into_iter().flat_map(|sink| (0..3).map(move |n| (sink, n))) {
        let dir = tempfile::tempdir().unwrap();
        let (count, used) = killed(dir.path(), sink);
        println!("{sink}, round {round}: {count} writes, {used:?}");
        assert!(sink == WalSink::Mapped || used.len() == 1, "{used:?} though files were asked for");
        let db = open(dir.path(), sink);
        let mut found = 0_u32;
        for entry in db.iter() {
            let (key, bytes) = entry.unwrap();
            assert_eq!(key.as_ref(), found.to_be_bytes(), "no write before another is missing");
            assert!(bytes.as_ref() == value(found), "value {found}");
            found += 1;
        }
        assert!(found >= count, "{found} of {count}: an acknowledged write is lost");
        db.close().unwrap();
    }
}
