//! Checkpoints: one moment of an open database, whatever goes on beside it and wherever making it ends.

use std::io::{self, ErrorKind as IoErrorKind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use memtide::{Config, Db, Durability, ErrorKind, KeyspaceConfig, MemtableType};
use memtide_env::vfs::{
    CrashMode, DirEntry, Disk, FileLock, LockMode, ReadFile, SimVfs, Space, Vfs, WriteFile,
};
use memtide_env::{Env, Simulation};

use crate::oracle::{self, Change, Draw, NAMES, Repeat, State};
use crate::own_memtable::registry;
use crate::script::{ROOT, Script, Step, UNLOGGED};

const COPY: &str = "/copy";
pub(crate) const MODES: [CrashMode; 4] =
    [CrashMode::KeepAll, CrashMode::DropAll, CrashMode::Prefix, CrashMode::Subset];

/// Opens what a script's database became elsewhere.
pub(crate) fn open_at(script: &Script, sim: &Simulation, dir: &str) -> memtide::Result<Db> {
    let builder = Db::builder(dir).config(script.config.clone()).registry(registry());
    builder.env(sim.env.clone()).open()
}

/// Runs the first steps of a script; `each` is called behind every one with the contents there should be.
pub(crate) fn run(
    script: &Script,
    sim: &Simulation,
    steps: usize,
    mut each: impl FnMut(usize, &Db, &State),
) -> (Db, State) {
    let (mut db, mut state) = (script.open(sim).unwrap(), State::default());
    for name in script.names {
        db.keyspace(name).unwrap();
    }
    for (at, step) in script.steps.iter().take(steps).enumerate() {
        match step {
            Step::Write(changes, durability) => {
                oracle::write(&db, changes, *durability).unwrap();
                state.apply(changes);
            }
            Step::Flush => db.flush().unwrap(),
            Step::Compact => db.compact().unwrap(),
            Step::SetMemtable(name, choice) => {
                db.get_keyspace(name).unwrap().set_memtable(choice.clone()).unwrap();
            }
            Step::SetCompaction(name, compaction) => {
                db.get_keyspace(name).unwrap().set_compaction(*compaction).unwrap();
            }
            Step::Reopen => {
                db.close().unwrap();
                db = script.open(sim).unwrap();
            }
            Step::Tick(time) => {
                sim.clock.advance(*time);
                sim.steps.run_until_idle();
            }
        }
        each(at, &db, &state);
    }
    (db, state)
}

/// The database in `dir` has these contents, reads back to the last byte, and lives on.
pub(crate) fn assert_lives(script: &Script, sim: &Simulation, dir: &str, want: &State) {
    let report = memtide::verify_in(&sim.env, dir).unwrap();
    assert!(report.damages.is_empty(), "{dir}: {:?}", report.damages);
    let db = open_at(script, sim, dir).unwrap();
    let found = State::of(&db).unwrap();
    assert!(found == *want, "{dir}: {}", found.difference(want));
    db.put("a key", "of this copy alone").unwrap();
    db.compact().unwrap();
    db.close().unwrap();
    let db = open_at(script, sim, dir).unwrap();
    assert_eq!(db.get("a key").unwrap().unwrap(), b"of this copy alone"[..]);
    db.close().unwrap();
    assert!(memtide::verify_in(&sim.env, dir).unwrap().damages.is_empty(), "{dir}");
}

/// The files in a directory, but for its lock.
pub(crate) fn files_in(sim: &Simulation, dir: &str) -> Vec<String> {
    let inside = |path: &std::path::PathBuf| path.starts_with(dir) && !path.ends_with("LOCK");
    sim.vfs.files().iter().filter(|path| inside(path)).map(|p| p.display().to_string()).collect()
}

/// The disks before each operation of `work`, and the one after it.
pub(crate) fn disks_of<T>(sim: &Simulation, work: impl FnOnce() -> T) -> Vec<(String, Disk)> {
    let disks = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&disks);
    sim.vfs.set_observer(Some(Box::new(move |index, op, disk| {
        kept.lock().unwrap().push((format!("{index}: {op:?}"), disk.clone()));
    })));
    let _ = work();
    sim.vfs.set_observer(None);
    let mut disks = std::mem::take(&mut *disks.lock().unwrap());
    disks.push(("the end".to_owned(), sim.vfs.disk()));
    disks
}

/// A new database is complete or refused; `true` if it is complete.
pub(crate) fn is_complete(script: &Script, sim: &Simulation, dir: &str, want: &State) -> bool {
    if files_in(sim, dir).is_empty() {
        return false;
    }
    match open_at(script, sim, dir) {
        Ok(db) => {
            let found = State::of(&db).unwrap();
            assert!(found == *want, "{dir}: {}", found.difference(want));
            true
        }
        Err(error) => {
            assert!(error.is_corruption(), "{error}");
            assert!(error.to_string().contains("has no CURRENT but holds"), "{error}");
            false
        }
    }
}

#[test]
fn a_checkpoint_at_any_step_is_the_database_of_that_moment() {
    for kind in MemtableType::ALL {
        let script = Script::draw(&mut Draw::new(40 + kind as u64), kind, &NAMES);
        let (sim, mut taken) = (Simulation::new(kind as u64), Vec::new());
        run(&script, &sim, usize::MAX, |at, db, state| {
            if at % 31 == 30 {
                let dir = format!("{COPY}-{at}");
                db.checkpoint(&dir).unwrap();
                taken.push((dir, state.clone()));
            }
        });
        assert!(taken.len() > 6);
        for (dir, state) in &taken {
            assert_lives(&script, &sim, dir, state);
        }
    }
}

#[test]
fn checkpoints_of_random_scripts_are_databases_of_their_moments() {
    for seed in oracle::seeds(300..302, 2) {
        let _repeat = Repeat { test: "checkpoint::checkpoints_of_random_scripts", seed };
        let mut draw = Draw::new(seed);
        let kind = draw.memtable();
        let script = Script::draw(&mut draw, kind, &NAMES);
        let (sim, every) = (Simulation::new(seed), 1 + usize::try_from(draw.below(60)).unwrap());
        let mut taken = Vec::new();
        let (db, state) = run(&script, &sim, usize::MAX, |at, db, state| {
            if at % every == every - 1 && taken.len() < 20 {
                let dir = format!("{COPY}-{at}");
                db.checkpoint(&dir).unwrap();
                taken.push((dir, state.clone()));
            }
        });
        assert_eq!(State::of(&db).unwrap(), state);
        for (dir, state) in &taken {
            assert_lives(&script, &sim, dir, state);
        }
    }
}

#[test]
fn a_crash_anywhere_in_a_checkpoint_leaves_the_source_and_a_complete_or_refused_target() {
    let (mut crashes, mut complete) = (0, 0);
    for kind in [MemtableType::Trie, MemtableType::HashSkiplist] {
        let script = Script::draw(&mut Draw::new(60 + kind as u64), kind, &NAMES);
        let sim = Simulation::new(kind as u64);
        let (db, state) = run(&script, &sim, 160, |_, _, _| ());
        db.sync().unwrap();
        let disks = disks_of(&sim, || db.checkpoint(COPY).unwrap());
        for (at, (what, disk)) in disks.iter().enumerate() {
            for mode in MODES {
                let seed = at as u64;
                let after = Simulation::on(disk.crash(mode, seed), seed);
                let source = script.open(&after).unwrap();
                assert_eq!(State::of(&source).unwrap(), state, "{what}, {mode:?}");
                drop(source);
                complete += usize::from(is_complete(&script, &after, COPY, &state));
                crashes += 1;
            }
        }
        let after = Simulation::on(sim.vfs.disk().crash(CrashMode::DropAll, 0), 1);
        assert!(is_complete(&script, &after, COPY, &state), "it was done");
        assert_lives(&script, &after, COPY, &state);
    }
    println!("{crashes} crashes, {complete} targets complete");
    assert!(complete >= 8);
}

#[test]
fn a_checkpoint_that_fails_leaves_nothing_and_can_be_repeated() {
    let script = Script::draw(&mut Draw::new(71), MemtableType::Sorted, &NAMES);
    let start = Simulation::new(1);
    let (db, state) = run(&script, &start, 140, |_, _, _| ());
    db.sync().unwrap();
    let operations = disks_of(&start, || db.checkpoint(COPY).unwrap()).len();
    let mut refused = 0;
    for at in 0..operations - 1 {
        let sim = Simulation::new(1);
        let (db, _) = run(&script, &sim, 140, |_, _, _| ());
        db.sync().unwrap();
        sim.vfs.fail_at(sim.vfs.op_count() + at as u64, IoErrorKind::Other);
        let made = db.checkpoint(COPY);
        let dir = if let Err(error) = made {
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert_eq!(files_in(&sim, COPY), Vec::<String>::new(), "operation {at}");
            refused += 1;
            db.checkpoint(COPY).unwrap();
            COPY
        } else {
            COPY
        };
        assert_eq!(State::of(&db).unwrap(), state);
        db.put("k", "the source is well").unwrap();
        let copy = open_at(&script, &sim, dir).unwrap();
        assert_eq!(State::of(&copy).unwrap(), state, "operation {at}");
    }
    // A link that fails becomes a copy, and a lock need not tell who holds it.
    assert!(refused > operations / 2 && refused < operations - 1, "{refused} of {operations}");
}

#[test]
fn a_full_device_is_as_full_as_before() {
    let script = Script::draw(&mut Draw::new(72), MemtableType::Vector, &NAMES);
    let sim = Simulation::new(1);
    let (db, state) = run(&script, &sim, 140, |_, _, _| ());
    let mut refused = 0;
    for free in (0..).map(|at| at * 3000) {
        sim.vfs.set_free_space(Some(free));
        match db.checkpoint(COPY) {
            Ok(()) => break,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                assert_eq!(files_in(&sim, COPY), Vec::<String>::new());
                assert_eq!(sim.env.vfs.space(Path::new("/")).unwrap().free, free);
                refused += 1;
            }
        }
    }
    assert!(refused > 2, "{refused}");
    sim.vfs.set_free_space(None);
    assert_lives(&script, &sim, COPY, &state);
}

#[test]
fn what_has_no_log_is_flushed_into_the_checkpoint() {
    const BOTH: [&str; 2] = ["default", UNLOGGED];
    let mut script = Script::draw(&mut Draw::new(73), MemtableType::LinkedList, &BOTH);
    let own = KeyspaceConfig { durability: Some(Durability::None), ..Default::default() };
    script.config.keyspaces.insert(UNLOGGED.to_owned(), own);
    script.config.durability = Some(Durability::Buffered);
    let sim = Simulation::new(1);
    let (db, mut state) = run(&script, &sim, 100, |_, _, _| ());
    let changes = BOTH.map(|name| Change::Put(name, b"last".to_vec(), b"written".to_vec()));
    oracle::write(&db, &changes, Durability::Buffered).unwrap();
    state.apply(&changes);
    db.checkpoint(COPY).unwrap();
    assert_lives(&script, &sim, COPY, &state);
}

#[test]
fn a_database_opened_read_only_is_checkpointed_and_not_touched() {
    let script = Script::draw(&mut Draw::new(74), MemtableType::Skiplist, &NAMES);
    for close in [true, false] {
        let first = Simulation::new(1);
        let (db, state) = run(&script, &first, 150, |_, _, _| ());
        let sim = if close {
            db.close().unwrap();
            first
        } else {
            Simulation::on(first.vfs.disk(), 2)
        };
        let before = files_in(&sim, ROOT);
        let builder = Db::builder(ROOT).read_only(true).registry(registry());
        let db = builder.env(sim.env.clone()).open().unwrap();
        db.checkpoint(COPY).unwrap();
        drop(db);
        assert_eq!(files_in(&sim, ROOT), before);
        assert_lives(&script, &sim, COPY, &state);
    }
}

#[test]
fn targets_that_cannot_be_one_are_refused_untouched() {
    let sim = Simulation::new(1);
    let db = Db::builder(ROOT).env(sim.env.clone()).open().unwrap();
    db.put("k", "v").unwrap();
    sim.env.vfs.create_dir(Path::new("/full")).unwrap();
    sim.env.vfs.create(Path::new("/full/letter"), 0).unwrap();
    let before = sim.vfs.files();
    for target in ["/full", "/db", "/db/copy", "/db/wal/deep/copy", "db/./sst/x"] {
        let error = db.checkpoint(target).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{target}: {error}");
        assert_eq!(sim.vfs.files(), before, "{target}");
    }
    db.checkpoint("/new/below/copy").unwrap();
    let error = db.checkpoint("/new/below/copy").unwrap_err();
    assert!(error.to_string().contains("is not empty"), "{error}");
    let other = db.clone();
    db.close().unwrap();
    assert_eq!(other.checkpoint("/late").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(files_in(&sim, "/late"), Vec::<String>::new());
}

#[test]
fn links_in_the_path_of_a_target_are_followed_and_tables_are_shared() {
    use std::os::unix::fs::{MetadataExt, symlink};
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let db = Db::open(at("data")).unwrap();
    db.put("k", "v").unwrap();
    db.flush().unwrap();
    symlink(at("data"), at("same")).unwrap();
    symlink(at("data/wal"), at("log")).unwrap();
    for target in ["same/copy", "log/copy", "same"] {
        let error = db.checkpoint(at(target)).unwrap_err();
        assert!(error.to_string().contains("lies inside"), "{target}: {error}");
    }
    // What looks like an empty directory of ours and leads elsewhere.
    std::fs::create_dir_all(at("elsewhere")).unwrap();
    std::fs::create_dir_all(at("trap")).unwrap();
    symlink(at("elsewhere"), at("trap/wal")).unwrap();
    let error = db.checkpoint(at("trap")).unwrap_err();
    assert!(error.to_string().contains("it holds wal"), "{error}");

    db.checkpoint(at("copy")).unwrap();
    let count = |name: &str| std::fs::read_dir(at(name)).unwrap().count();
    assert_eq!((count("copy/sst"), count("copy/wal")), (1, 1));
    for (name, links) in [("sst", 2), ("wal", 1)] {
        let file = std::fs::read_dir(at("copy").join(name)).unwrap().next().unwrap().unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), links, "{name}");
    }
    let copy = Db::open(at("copy")).unwrap();
    assert_eq!(copy.get("k").unwrap().unwrap(), b"v"[..]);
}

type Hook = Box<dyn FnOnce() + Send>;

/// Does something before the next segment of the log is opened.
struct Meanwhile(SimVfs, Mutex<Option<Hook>>);

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Vfs for Meanwhile {
    fn create(&self, path: &Path, prealloc: u64) -> io::Result<Box<dyn WriteFile>> {
        self.0.create(path, prealloc)
    }
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.0.open_write(path)
    }
    fn reuse(&self, from: &Path, to: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.0.reuse(from, to)
    }
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        if path.extension().is_some_and(|end| end == "wal") {
            let hook = self.1.lock().unwrap().take();
            hook.into_iter().for_each(|hook| hook());
        }
        self.0.open_read(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.link(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<Box<dyn FileLock>> {
        self.0.lock(path, mode)
    }
    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.0.space(dir)
    }
}

#[test]
fn a_flush_while_the_log_is_captured_takes_nothing_that_the_copy_needs() {
    let sim = Simulation::new(1);
    let vfs = Arc::new(Meanwhile(sim.vfs.clone(), Mutex::new(None)));
    let env = Env { vfs: Arc::<Meanwhile>::clone(&vfs), ..sim.env.clone() };
    let config = Config { enable_background_compaction: Some(false), ..busy_config() };
    let db = Db::builder(ROOT).config(config).env(env).open().unwrap();
    for at in 0..600_u32 {
        db.put(at.to_be_bytes(), [7; 180]).unwrap();
    }
    let (segments, writer) = (files_in(&sim, "/db/wal").len(), db.clone());
    assert!(segments > 1);
    *vfs.1.lock().unwrap() = Some(Box::new(move || {
        writer.put("k", "meanwhile").unwrap();
        writer.flush().unwrap();
    }));
    db.checkpoint(COPY).unwrap();
    assert!(files_in(&sim, "/db/wal").len() < segments, "the flush released segments");
    let copy = Db::builder(COPY).env(sim.env.clone()).open().unwrap();
    assert_eq!(copy.iter().count(), 600, "what was written meanwhile lies behind the moment");
}

/// Stops the writer also when a check beside it fails.
pub(crate) struct Stops<'s>(pub(crate) &'s AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Every batch writes the same number to two keyspaces, so each state in between is known by its number.
pub(crate) fn write_in_step(db: &Db, stop: &AtomicBool, acked: &AtomicU64) {
    let names = ["left", "right"].map(|name| db.keyspace(name).unwrap());
    for number in 1.. {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let mut batch = db.batch();
        for keyspace in &names {
            batch.put(keyspace, (number % 500_u64).to_be_bytes(), [7; 300]);
            batch.put(keyspace, "number", number.to_be_bytes());
        }
        db.write(batch).unwrap();
        acked.store(number, Ordering::Release);
    }
}

pub(crate) fn busy_config() -> Config {
    let mut config = Config {
        max_memtable_size: Some(16 << 10),
        flush_target: Some(32 << 10),
        memory_budget: Some(4 << 20),
        durability: Some(Durability::Buffered),
        ..Config::default()
    };
    config.tree.wal_segment_size = Some(64 << 10);
    config.tree.wal_size = Some(256 << 10);
    config.tree.table_size = Some(32 << 10);
    config.tree.level0_runs = Some(2);
    config.tree.min_blob_size = Some(200);
    config
}

/// The one number in both keyspaces, and every key up to it.
pub(crate) fn number_in(db: &Db) -> u64 {
    let numbers = ["left", "right"].map(|name| {
        let keyspace = db.get_keyspace(name).unwrap();
        let number = keyspace.get("number").unwrap().unwrap();
        let number = u64::from_be_bytes(number.as_ref().try_into().unwrap());
        let rows = keyspace.iter().map(|row| row.unwrap()).collect::<Vec<_>>().len() as u64;
        assert_eq!(rows, number.min(500) + 1);
        number
    });
    assert_eq!(numbers[0], numbers[1], "the keyspaces are of one moment");
    numbers[0]
}

#[test]
fn checkpoints_beside_a_writer_flushes_and_compactions_are_of_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::builder(dir.path().join("data")).config(busy_config()).open().unwrap();
    let (stop, acked) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| write_in_step(&db, &stop, &acked));
        let _stops = Stops(&stop);
        let mut last = 0;
        for round in 0..12 {
            while acked.load(Ordering::Acquire) < last + 100 {
                std::thread::yield_now();
            }
            let before = acked.load(Ordering::Acquire);
            let at = dir.path().join(format!("copy-{round}"));
            db.checkpoint(&at).unwrap();
            let after = acked.load(Ordering::Acquire);
            let copy = Db::builder(&at).config(busy_config()).open().unwrap();
            last = number_in(&copy);
            // One write may be done and not yet counted.
            assert!((before..=after + 1).contains(&last), "{before} {last} {after}");
            copy.close().unwrap();
            assert!(memtide::verify(&at).unwrap().damages.is_empty());
        }
    });
    assert!(db.stats().flushes > 10, "{}", db.stats().flushes);
}
