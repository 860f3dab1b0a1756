//! Real threads on real files: what readers see while writers, upkeep and changes of type run beside them,
//! and what closing in the middle of it leaves.
//!
//! Every loop is bounded by counts; nothing waits for time to pass.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::SystemTime;

use memtide::{
    Config, Db, Durability, ErrorKind, Keyspace, MemtableChoice, MemtableType, Snapshot,
};
use memtide_env::vfs::{DirEntry, FileLock, LockMode, Space, StdVfs};
use memtide_env::{Env, ReadFile, Vfs, WriteFile};

use crate::oracle::{Draw, Repeat, seeds};
use crate::own_memtable::registry;

const WRITERS: u64 = WRITER_COUNT as u64;
const WRITER_COUNT: usize = 3;
/// Rows of a writer that are alive at a time.
const WINDOW: u64 = 8;

fn small_config(draw: &mut Draw) -> Config {
    let mut config = draw.small_config(None);
    config.keyspaces.clear();
    config.memory_budget = Some(1 << 20);
    config.durability = Some(Durability::Buffered);
    config
}

fn number(value: Option<memtide::Slice>) -> u64 {
    value.map_or(0, |value| u64::from_be_bytes(value[..8].try_into().unwrap()))
}

/// Write `count` of a writer: its counter in both keyspaces, a new row in one, the oldest row gone.
fn write_one(db: &Db, spaces: &[Keyspace; 2], writer: u64, count: u64) -> memtide::Result<()> {
    let mut batch = db.batch();
    let value = [&count.to_be_bytes()[..], &[7; 90]].concat();
    for space in spaces {
        batch.put(space, format!("counter{writer}"), &value);
    }
    batch.put(&spaces[0], format!("row{writer}/{count:08}"), &value);
    match count.checked_sub(WINDOW) {
        // One in four goes as a range.
        Some(old) if count.is_multiple_of(4) => {
            let span = format!("row{writer}/{old:08}")..=format!("row{writer}/{old:08}");
            batch.delete_range(&spaces[0], span);
        }
        Some(old) => batch.delete(&spaces[0], format!("row{writer}/{old:08}")),
        None => {}
    }
    let durability = if count.is_multiple_of(50) { Durability::Sync } else { Durability::Buffered };
    db.write_with(batch, durability).map(drop)
}

/// Both counters agree, and the rows are exactly those that the counter says, from either end.
fn check_snapshot(snapshot: &Snapshot, spaces: &[Keyspace; 2], writer: u64) -> u64 {
    let counter = format!("counter{writer}");
    let [a, b] = [0, 1].map(|at| number(snapshot.get(&spaces[at], &counter).unwrap()));
    assert_eq!(a, b, "half a batch is visible");
    let rows = snapshot.prefix(&spaces[0], format!("row{writer}/"));
    let found: Vec<u64> = rows.map(|entry| number(Some(entry.unwrap().1))).collect();
    let want: Vec<u64> = (a.saturating_sub(WINDOW - 1).max(1)..=a).collect();
    assert_eq!(found, want, "rows of writer {writer}");
    let rows = snapshot.prefix(&spaces[0], format!("row{writer}/"));
    let back: Vec<u64> = rows.rev().map(|entry| number(Some(entry.unwrap().1))).collect();
    assert!(back.iter().eq(want.iter().rev()), "backwards: {back:?}");
    assert_eq!(number(snapshot.get(&spaces[1], &counter).unwrap()), a, "a snapshot changed");
    a
}

/// Reads until the writers are done; what is seen of a writer never goes back.
fn read_along(db: &Db, spaces: &[Keyspace; 2], done: &AtomicBool) -> u64 {
    let (mut seen, mut rounds) = ([0; WRITER_COUNT], 0);
    loop {
        let last_round = done.load(Ordering::Acquire);
        for (writer, seen) in (0..WRITERS).zip(&mut seen) {
            let now = number(spaces[1].get(format!("counter{writer}")).unwrap());
            assert!(now >= *seen, "writer {writer} went back from {seen} to {now}");
            let snapped = check_snapshot(&db.snapshot(), spaces, writer);
            assert!(snapped >= now, "a later snapshot sees less");
            // An iterator without a snapshot is of one moment too.
            let rows = spaces[0].prefix(format!("row{writer}/"));
            let found: Vec<u64> = rows.map(|entry| number(Some(entry.unwrap().1))).collect();
            assert!(found.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{found:?}");
            let last = found.last().copied().unwrap_or(0);
            assert!(last >= snapped && found.len() as u64 == last.min(WINDOW), "{found:?}");
            *seen = last;
        }
        rounds += 1;
        if last_round {
            return rounds;
        }
    }
}

fn disturb(db: &Db, spaces: &[Keyspace; 2], draw: &mut Draw, done: &AtomicBool) {
    while !done.load(Ordering::Acquire) {
        match draw.below(8) {
            0..=2 => {
                let space = &spaces[usize::try_from(draw.below(2)).unwrap()];
                space.set_memtable(draw.memtable()).unwrap();
            }
            3 => {
                let space = &spaces[usize::try_from(draw.below(2)).unwrap()];
                space.set_compaction(draw.compaction()).unwrap();
            }
            4..=5 => db.flush().unwrap(),
            6 => db.compact().unwrap(),
            _ => assert!(db.stats().visible >= db.stats().durable.min(1)),
        }
    }
}

#[test]
fn readers_see_whole_batches_and_never_go_back_while_everything_changes() {
    const WRITES: u64 = 400;
    for seed in seeds(0..2, 1) {
        let _repeat = Repeat { test: "threads::readers_see_whole_batches", seed };
        let mut draw = Draw::new(seed);
        let dir = tempfile::tempdir().unwrap();
        let db = Db::builder(dir.path()).config(small_config(&mut draw)).open().unwrap();
        let spaces = [db.default_keyspace(), db.keyspace("other").unwrap()];
        let (done, finished) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (db, spaces, done, finished) = (&db, &spaces, &done, &finished);
                scope.spawn(move || {
                    let _done = DoneOnDrop { done, finished };
                    for count in 1..=WRITES {
                        write_one(db, spaces, writer, count).unwrap();
                    }
                });
            }
            for _ in 0..2 {
                scope.spawn(|| assert!(read_along(&db, &spaces, &done) > 1));
            }
            disturb(&db, &spaces, &mut draw, &done);
        });
        let stats = db.stats();
        assert!(stats.flushes > 5, "{} flushes", stats.flushes);
        db.close().unwrap();
        drop(spaces);
        let db = Db::open(dir.path()).unwrap();
        let spaces = [db.default_keyspace(), db.keyspace("other").unwrap()];
        for writer in 0..WRITERS {
            assert_eq!(check_snapshot(&db.snapshot(), &spaces, writer), WRITES);
        }
    }
}

/// A thread changes the type through all eight and the program's own one, round and round; two writers, who meet
/// each change in the midst of a batch, and readers, whose snapshots and iterators outlive many, go on.
#[test]
fn writers_and_readers_go_on_while_the_type_changes_through_all_of_them() {
    const WRITES: u64 = 500;
    const ROUNDS: u64 = 4;
    let mut draw = Draw::new(3);
    let dir = tempfile::tempdir().unwrap();
    let builder = || Db::builder(dir.path()).registry(registry());
    let db = builder().config(small_config(&mut draw)).open().unwrap();
    let spaces = [db.default_keyspace(), db.keyspace("other").unwrap()];
    // Two writers: one of them counts as finished from the beginning.
    let (done, finished) = (AtomicBool::new(false), AtomicU64::new(WRITERS - 2));
    let all: Vec<MemtableChoice> = MemtableType::ALL
        .map(Into::into)
        .into_iter()
        .chain([MemtableChoice::named("time_log")])
        .collect();
    let last = std::thread::scope(|scope| {
        let (db, spaces, all, done, finished) = (&db, &spaces, &all, &done, &finished);
        for writer in 0..2 {
            scope.spawn(move || {
                let _done = DoneOnDrop { done, finished };
                for count in 1..=WRITES {
                    write_one(db, spaces, writer, count).unwrap();
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(move || read_along(db, spaces, done));
        }
        let changer = scope.spawn(move || {
            for round in 0.. {
                for choice in all {
                    for space in spaces {
                        space.set_memtable(choice.clone()).unwrap();
                        assert_eq!(space.memtable_type(), *choice, "nobody else changes it");
                    }
                }
                if round >= ROUNDS && done.load(Ordering::Acquire) {
                    return all.last().unwrap().clone();
                }
            }
            unreachable!("rounds do not end")
        });
        changer.join().unwrap()
    });
    assert!(db.stats().keyspaces.iter().all(|stats| stats.memtable_fault.is_none()));
    db.close().unwrap();
    drop(spaces);
    let db = builder().open().unwrap();
    let spaces = [db.default_keyspace(), db.keyspace("other").unwrap()];
    for space in &spaces {
        assert_eq!(space.memtable_type(), last, "the last change is the one that is stored");
    }
    for writer in 0..2 {
        assert_eq!(check_snapshot(&db.snapshot(), &spaces, writer), WRITES);
    }
}

/// Says that all writers are done, also when one of them panics.
struct DoneOnDrop<'a> {
    done: &'a AtomicBool,
    finished: &'a AtomicU64,
}

impl Drop for DoneOnDrop<'_> {
    fn drop(&mut self) {
        if self.finished.fetch_add(1, Ordering::AcqRel) + 1 == WRITERS || std::thread::panicking() {
            self.done.store(true, Ordering::Release);
        }
    }
}

/// Errors are fine once the database is closed, and only then.
fn closed<T>(result: memtide::Result<T>) -> bool {
    match result {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}");
            true
        }
    }
}

#[test]
fn closing_amid_writes_flushes_and_merges_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut draw = Draw::new(1);
    let acked = [0; WRITER_COUNT].map(AtomicU64::new);
    for round in 0..12 {
        let config = small_config(&mut draw);
        let db = Db::builder(dir.path()).config(config).open().unwrap();
        let spaces = [db.default_keyspace(), db.keyspace("other").unwrap()];
        for (writer, acked) in (0..WRITERS).zip(&acked) {
            let found = check_snapshot(&db.snapshot(), &spaces, writer);
            let acked = acked.swap(found, Ordering::AcqRel);
            assert!((acked..=acked + 1).contains(&found), "round {round}: {found}, not {acked}");
        }
        let goal = acked.iter().map(|acked| acked.load(Ordering::Acquire)).sum::<u64>() + 150;
        std::thread::scope(|scope| {
            for (writer, acked) in (0..WRITERS).zip(&acked) {
                let (db, spaces) = (&db, &spaces);
                scope.spawn(move || {
                    let mut count = acked.load(Ordering::Acquire) + 1;
                    while !closed(write_one(db, spaces, writer, count)) {
                        acked.store(count, Ordering::Release);
                        count += 1;
                    }
                });
            }
            scope.spawn(|| while !closed(db.flush()) {});
            scope.spawn(|| while !closed(db.compact()) {});
            scope.spawn(|| {
                let mut kinds = MemtableType::ALL.iter().cycle();
                while !closed(spaces[1].set_memtable(*kinds.next().unwrap())) {}
            });
            while acked.iter().map(|acked| acked.load(Ordering::Acquire)).sum::<u64>() < goal {
                std::thread::yield_now();
            }
            db.clone().close().unwrap();
            // The lock is free at once: whoever opens now must find everything.
            let again = Db::open(dir.path()).unwrap();
            let spaces = [again.default_keyspace(), again.keyspace("other").unwrap()];
            for (writer, acked) in (0..WRITERS).zip(&acked) {
                let found = check_snapshot(&again.snapshot(), &spaces, writer);
                let acked = acked.load(Ordering::Acquire);
                // The writer may have been acknowledged and not have said so yet.
                assert!(
                    (acked..=acked + 1).contains(&found),
                    "round {round}: {found}, not {acked}"
                );
            }
            again.flush().unwrap();
            again.close().unwrap();
        });
    }
}

#[test]
fn iterators_and_snapshots_end_with_an_error_when_their_database_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path()).unwrap();
    for count in 0..100 {
        db.put(format!("key{count}"), "value").unwrap();
    }
    db.flush().unwrap();
    db.put("key", "in memory").unwrap();
    let (mut iter, snapshot, space) = (db.iter(), db.snapshot(), db.default_keyspace());
    assert!(iter.next().unwrap().is_ok());
    db.close().unwrap();
    assert_eq!(iter.next().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert!(iter.next().is_none(), "it ends after its error");
    assert_eq!(snapshot.get(&space, "key").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(space.put("key", "late").unwrap_err().kind(), ErrorKind::Closed);
    drop(space);
    drop((iter, snapshot));
    let iter = Db::open(dir.path()).unwrap().iter();
    let locked = Db::open(dir.path()).unwrap_err();
    assert_eq!(locked.kind(), ErrorKind::Locked, "an iterator keeps its database open");
    assert_eq!(iter.count(), 101);
    assert_eq!(Db::open(dir.path()).unwrap().iter().count(), 101);
}

#[test]
fn a_directory_is_open_once_or_read_only_by_many() {
    let dir = tempfile::tempdir().unwrap();
    let open = |read_only| Db::builder(dir.path()).read_only(read_only).open();
    let db = open(false).unwrap();
    for read_only in [false, true] {
        assert_eq!(open(read_only).unwrap_err().kind(), ErrorKind::Locked);
    }
    assert_eq!(memtide::verify(dir.path()).unwrap_err().kind(), ErrorKind::Locked);
    db.put("still", "works").unwrap();
    db.close().unwrap();
    let readers = [open(true).unwrap(), open(true).unwrap()];
    assert_eq!(open(false).unwrap_err().kind(), ErrorKind::Locked);
    assert_eq!(readers[1].get("still").unwrap().unwrap(), "works");
    drop(readers);
    open(false).unwrap();
}

/// Every file with its bytes and the time of its last change.
fn photograph(dir: &Path) -> Vec<(String, SystemTime, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let changed = fs::metadata(&path).unwrap().modified().unwrap();
        let name = path.display().to_string();
        if path.is_dir() {
            found.push((name, changed, Vec::new()));
            found.extend(photograph(&path));
        } else {
            found.push((name, changed, fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn opening_read_only_writes_no_byte_and_refuses_every_write() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let error = Db::builder(&missing).read_only(true).open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(!missing.exists());

    let db = Db::open(dir.path()).unwrap();
    db.put("flushed", "1").unwrap();
    db.flush().unwrap();
    db.put("logged", "2").unwrap();
    db.close().unwrap();
    let before = photograph(dir.path());
    let db = Db::builder(dir.path()).read_only(true).open().unwrap();
    assert_eq!(db.iter().map(Result::unwrap).count(), 2);
    assert_eq!(db.get("logged").unwrap().unwrap(), "2");
    let space = db.default_keyspace();
    let refusals = [
        db.put("a", "b").unwrap_err(),
        db.delete_range(..).unwrap_err(),
        db.flush().unwrap_err(),
        db.compact().unwrap_err(),
        db.keyspace("new").unwrap_err(),
        space.set_memtable(MemtableType::Trie).unwrap_err(),
    ];
    for error in refusals {
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error:?}");
    }
    drop(space);
    db.close().unwrap();
    assert!(memtide::verify(dir.path()).unwrap().damages.is_empty());
    assert!(photograph(dir.path()) == before, "a read-only open changed a file");
}

/// The machine's files, but while the gate is closed whoever creates a table waits; the next one passes by.
#[derive(Debug)]
struct Gated {
    open: Mutex<bool>,
    changed: Condvar,
    waiting: AtomicBool,
}

impl Gated {
    fn new() -> Arc<Self> {
        let waiting = AtomicBool::new(false);
        Arc::new(Self { open: Mutex::new(true), changed: Condvar::new(), waiting })
    }

    /// Closes the gate.
    fn close(&self) {
        self.waiting.store(false, Ordering::Release);
        self.set(false);
    }

    /// Returns when somebody waits.
    fn await_waiting(&self) {
        while !self.waiting.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    }

    fn pass(&self, path: &Path) {
        if path.extension().is_some_and(|kind| kind == "sst") {
            let mut open = self.open.lock().unwrap();
            if *open || self.waiting.swap(true, Ordering::AcqRel) {
                return;
            }
            while !*open {
                open = self.changed.wait(open).unwrap();
            }
        }
    }

    fn set(&self, open: bool) {
        *self.open.lock().unwrap() = open;
        self.changed.notify_all();
    }
}

/// Also when an assertion fails while threads wait.
struct OpensAtLast<'g>(&'g Gated);

impl Drop for OpensAtLast<'_> {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

impl Vfs for Gated {
    fn create(&self, path: &Path, prealloc: u64) -> io::Result<Box<dyn WriteFile>> {
        self.pass(path);
        StdVfs.create(path, prealloc)
    }
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        StdVfs.open_write(path)
    }
    fn reuse(&self, from: &Path, to: &Path) -> io::Result<Box<dyn WriteFile>> {
        StdVfs.reuse(from, to)
    }
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        StdVfs.open_read(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        StdVfs.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        StdVfs.link(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        StdVfs.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        StdVfs.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        StdVfs.create_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        StdVfs.sync_dir(dir)
    }
    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<Box<dyn FileLock>> {
        StdVfs.lock(path, mode)
    }
    fn space(&self, dir: &Path) -> io::Result<Space> {
        StdVfs.space(dir)
    }
}

#[test]
fn closing_waits_for_the_upkeep_that_callers_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gated::new();
    for compacts in [false, true] {
        let env = Env { vfs: Arc::<Gated>::clone(&gate), ..Env::real() };
        let config = Config { enable_background_compaction: Some(false), ..Config::default() };
        let db = Db::builder(dir.path()).config(config).env(env).open().unwrap();
        db.put("first", "in a table").unwrap();
        db.flush().unwrap();
        if !compacts {
            db.put("second", "in memory").unwrap();
        }
        db.put("first", "again").unwrap();
        if compacts {
            db.flush().unwrap();
        }
        gate.close();
        std::thread::scope(|scope| {
            let gate = OpensAtLast(&gate);
            let upkeep = scope.spawn(|| if compacts { db.compact() } else { db.flush() });
            gate.0.await_waiting();
            let closing = scope.spawn(|| db.clone().close());
            while !closed(db.get("first")) {
                std::thread::yield_now();
            }
            // Whoever does not wait for the gate would be done long before.
            for _ in 0..20_000 {
                std::thread::yield_now();
                assert!(!closing.is_finished(), "closed while tables are being written");
            }
            assert_eq!(Db::open(dir.path()).unwrap_err().kind(), ErrorKind::Locked);
            drop(gate);
            upkeep.join().unwrap().unwrap();
            closing.join().unwrap().unwrap();
        });
        let db = Db::open(dir.path()).unwrap();
        assert_eq!(db.recovery_report().orphans, Vec::<std::path::PathBuf>::new());
        assert_eq!(
            (db.get("first").unwrap().unwrap(), db.iter().count()),
            (memtide::Slice::copy_of(b"again"), 2)
        );
    }
}

#[test]
fn a_compaction_pins_no_memtable() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gated::new();
    let env = Env { vfs: Arc::<Gated>::clone(&gate), ..Env::real() };
    let config = Config { enable_background_compaction: Some(false), ..Config::default() };
    let db = Db::builder(dir.path()).config(config).env(env).open().unwrap();
    for _ in 0..2 {
        db.put("key", "in a table").unwrap();
        db.flush().unwrap();
    }
    gate.close();
    std::thread::scope(|scope| {
        let gate = OpensAtLast(&gate);
        let compaction = scope.spawn(|| db.compact());
        gate.0.await_waiting();
        let before = db.stats().memory_used;
        db.put("large", vec![7; 300 << 10]).unwrap();
        assert!(db.stats().memory_used > before + (300 << 10));
        db.flush().unwrap();
        let after = db.stats().memory_used;
        assert!(after < before + (100 << 10), "{after} bytes are held, {before} were");
        drop(gate);
        compaction.join().unwrap().unwrap();
    });
}
