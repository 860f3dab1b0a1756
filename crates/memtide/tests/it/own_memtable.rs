//! Memtables of a program's own, and changing a keyspace's type while it is used.
//!
//! The one of the example is held to every law of the eight, and the model and crash tests change to it and
//! back. What a program does wrong is played by [`Moody`]: answers stay right and nothing is lost.

#[path = "../../examples/own_memtable.rs"]
#[expect(dead_code, unreachable_pub, reason = "a program: its `main` is not called here")]
mod example;

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use memtide::{
    Builder, Config, CustomIndex, Db, ErrorKind, IndexHints, KeyspaceConfig, MemtableChoice,
    MemtableFactory, MemtableType, RecordRef, Records, Registry, UnknownMemtable,
};
use memtide_env::Simulation;
use memtide_env::vfs::CrashMode;

use crate::oracle::State;

use example::TimeLogFactory;

memtide::conformance!(time_log => TimeLogFactory);

const ROOT: &str = "/db";

/// The registry that all tests open with.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register(TimeLogFactory).unwrap();
    registry
}

fn time_log() -> MemtableChoice {
    MemtableChoice::named("time_log")
}

fn builder(sim: &Simulation) -> Builder {
    Db::builder(ROOT).env(sim.env.clone())
}

/// A database with writes in tables, in sealed memtables and in the active one.
fn fill(db: &Db) {
    for round in 0..3 {
        for at in 0..50 {
            db.put(format!("{at:03}"), format!("{round}/{at}")).unwrap();
        }
        db.delete_range("010".."013").unwrap();
        if round == 0 {
            db.flush().unwrap();
        }
        db.default_keyspace().set_memtable(MemtableType::ALL[round]).unwrap();
    }
    db.put("010", "last").unwrap();
}

/// The files of a simulated disk with their bytes.
fn photograph(sim: &Simulation) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let read = |path: std::path::PathBuf| {
        let file = sim.env.vfs.open_read(&path).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        (path, bytes)
    };
    sim.vfs.files().into_iter().map(read).collect()
}

#[test]
fn a_change_shows_in_the_next_write_and_no_read_notices_it() {
    let sim = Simulation::new(1);
    let db = builder(&sim).registry(registry()).open().unwrap();
    let space = db.default_keyspace();
    db.put("a", "1").unwrap();
    let (snapshot, mut iter) = (db.snapshot(), db.iter());
    let all = MemtableType::ALL.map(MemtableChoice::from).into_iter().chain([time_log()]);
    for (at, choice) in all.enumerate() {
        space.set_memtable(choice.clone()).unwrap();
        assert_eq!(db.stats().keyspaces[0].entries_active, 0, "the new table takes the next write");
        assert_eq!(space.memtable_type(), choice);
        assert_eq!(db.get("a").unwrap().unwrap(), if at == 0 { "1" } else { "2" });
        db.put("a", "2").unwrap();
        let sealed = db.stats().keyspaces[0].sealed;
        space.set_memtable(choice).unwrap();
        assert_eq!(db.stats().keyspaces[0].sealed, sealed, "the same type again changes nothing");
        sim.steps.run_until_idle();
    }
    assert_eq!(snapshot.get(&space, "a").unwrap().unwrap(), "1");
    let (key, value) = iter.next().unwrap().unwrap();
    assert_eq!((key, value), ("a".into(), "1".into()));
    assert!(iter.next().is_none());
}

#[test]
fn changing_the_type_of_an_empty_memtable_seals_nothing() {
    let db = builder(&Simulation::new(1)).open().unwrap();
    for kind in MemtableType::ALL {
        db.default_keyspace().set_memtable(kind).unwrap();
        let stats = &db.stats().keyspaces[0];
        assert_eq!((stats.sealed, &stats.memtable_type), (0, &kind.into()));
    }
}

#[test]
fn a_type_that_is_not_registered_is_refused_and_changes_nothing() {
    let sim = Simulation::new(1);
    let db = builder(&sim).open().unwrap();
    let before = db.default_keyspace().memtable_type();
    let manifest = db.stats().manifest_bytes;
    let error = db.default_keyspace().set_memtable(time_log()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("\"time_log\""), "{error}");
    assert_eq!(db.default_keyspace().memtable_type(), before);
    assert_eq!(db.stats().manifest_bytes, manifest);
    db.close().unwrap();
    let error = builder(&sim).memtable(MemtableChoice::named("skiplists")).open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("did you mean \"skiplist\"?"), "{error}");
}

#[test]
fn opening_without_the_factory_names_it_and_touches_nothing() {
    let sim = Simulation::new(3);
    let db = builder(&sim).registry(registry()).open().unwrap();
    let events = db.keyspace("events").unwrap();
    events.set_memtable(time_log()).unwrap();
    events.put("k", "v").unwrap();
    db.put("k", "v").unwrap();
    db.close().unwrap();
    drop(events);

    let before = photograph(&sim);
    for read_only in [false, true] {
        let error = builder(&sim).read_only(read_only).open().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        let text = error.to_string();
        assert!(text.contains("\"events\"") && text.contains("\"time_log\""), "{text}");
        let cause = std::error::Error::source(&error).unwrap();
        assert_eq!(cause.downcast_ref::<UnknownMemtable>().unwrap().name(), "time_log");
        assert!(photograph(&sim) == before, "a refused open changed a file");
    }
    // Whether the bytes on disk are sound does not depend on who can make memtables.
    assert_eq!(memtide::verify_in(&sim.env, ROOT).unwrap().damages, []);
    assert!(photograph(&sim) == before, "verifying changed a file");

    let db = builder(&sim).registry(registry()).read_only(true).open().unwrap();
    assert_eq!(db.get_keyspace("events").unwrap().get("k").unwrap().unwrap(), "v");
    db.close().unwrap();
    // Naming another type is the way out without the factory; it is stored.
    let mut config = Config::default();
    let own = KeyspaceConfig {
        memtable_type: Some(MemtableType::Trie.into()),
        ..KeyspaceConfig::default()
    };
    config.keyspaces.insert("events".to_owned(), own);
    let db = builder(&sim).config(config).open().unwrap();
    assert_eq!(db.keyspace("events").unwrap().get("k").unwrap().unwrap(), "v");
    db.close().unwrap();
    let db = builder(&sim).open().unwrap();
    assert_eq!(db.keyspace("events").unwrap().memtable_type(), MemtableType::Trie);
}

#[test]
fn a_crash_in_a_change_leaves_the_old_type_or_the_new_one_with_all_writes() {
    let sim = Simulation::new(5);
    let db = builder(&sim).registry(registry()).open().unwrap();
    fill(&db);
    db.sync().unwrap();
    let want = State::of(&db).unwrap();
    let old = db.default_keyspace().memtable_type();
    let disks = Arc::new(Mutex::new(vec![("before", sim.vfs.disk())]));
    let kept = Arc::clone(&disks);
    sim.vfs.set_observer(Some(Box::new(move |_, _, disk| {
        kept.lock().unwrap().push(("during", disk.clone()));
    })));
    db.default_keyspace().set_memtable(time_log()).unwrap();
    sim.vfs.set_observer(None);
    let mut disks = std::mem::take(&mut *disks.lock().unwrap());
    disks.push(("after", sim.vfs.disk()));
    assert!(disks.len() > 3, "the edit is appended and synced");
    let mut seen = [0; 2];
    for (when, disk) in &disks {
        let ways = [CrashMode::KeepAll, CrashMode::DropAll, CrashMode::Prefix, CrashMode::Subset];
        for (mode, seed) in ways.into_iter().flat_map(|mode| [(mode, 1), (mode, 2)]) {
            let sim = Simulation::on(disk.crash(mode, seed), seed);
            let db = builder(&sim).registry(registry()).open().unwrap();
            let found = db.default_keyspace().memtable_type();
            assert!(found == old || found == time_log(), "{found}");
            assert!(*when != "before" || found == old);
            assert!(*when != "after" || found == time_log(), "it was acknowledged");
            seen[usize::from(found == old)] += 1;
            let state = State::of(&db).unwrap();
            assert!(state == want, "{when}, {mode:?}: {}", state.difference(&want));
            db.put("after", "the crash").unwrap();
            assert_eq!(db.get("after").unwrap().unwrap(), "the crash");
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

/// What a [`Moody`] index does wrong, once it has so many keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Forgets,
    PanicsInInsert,
    PanicsInFind,
    PanicsInRange,
    PanicsWhenMade,
    Disorders,
    NamesForeignRecords,
    TakesMemory,
}

const MOODS: [Mood; 8] = [
    Mood::Forgets,
    Mood::PanicsInInsert,
    Mood::PanicsInFind,
    Mood::PanicsInRange,
    Mood::PanicsWhenMade,
    Mood::Disorders,
    Mood::NamesForeignRecords,
    Mood::TakesMemory,
];

/// A sorted list of references that goes wrong.
struct Moody {
    refs: Vec<RecordRef>,
    mood: Mood,
    keys_at: usize,
    foreign: Arc<Mutex<Vec<RecordRef>>>,
    calls: AtomicUsize,
}

impl Moody {
    fn is(&self, mood: Mood) -> bool {
        self.mood == mood && self.refs.len() >= self.keys_at
    }

    /// Every third answer is wrong.
    fn answer(&self, right: Option<RecordRef>) -> Option<RecordRef> {
        let turn = self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(3);
        match self.mood {
            Mood::Disorders if turn && self.is(Mood::Disorders) => self.refs.first().copied(),
            Mood::NamesForeignRecords if turn && self.is(Mood::NamesForeignRecords) => {
                let foreign = self.foreign.lock().unwrap();
                foreign.iter().rev().find(|at| !self.refs.contains(at)).copied().or(right)
            }
            _ => right,
        }
    }
}

impl CustomIndex for Moody {
    fn insert(&mut self, records: &Records<'_>, new: RecordRef, _hash: u64) {
        assert!(!self.is(Mood::PanicsInInsert), "in a bad mood");
        self.foreign.lock().unwrap().push(new);
        let at = self.refs.partition_point(|&known| records.key(known) < records.key(new));
        self.refs.insert(at, new);
        if self.is(Mood::Forgets) {
            self.refs.remove(at / 2);
        }
    }

    fn first_from(&self, records: &Records<'_>, from: Bound<&[u8]>) -> Option<RecordRef> {
        assert!(!self.is(Mood::PanicsInRange), "in a bad mood");
        let at = self.refs.partition_point(|&at| match from {
            Bound::Included(key) => records.key(at) < key,
            Bound::Excluded(key) => records.key(at) <= key,
            Bound::Unbounded => false,
        });
        self.answer(self.refs.get(at).copied())
    }

    fn last_to(&self, records: &Records<'_>, to: Bound<&[u8]>) -> Option<RecordRef> {
        let at = self.refs.partition_point(|&at| match to {
            Bound::Included(key) => records.key(at) <= key,
            Bound::Excluded(key) => records.key(at) < key,
            Bound::Unbounded => true,
        });
        self.answer(at.checked_sub(1).map(|at| self.refs[at]))
    }

    fn find(&self, records: &Records<'_>, key: &[u8], _hash: u64) -> Option<RecordRef> {
        assert!(!self.is(Mood::PanicsInFind), "in a bad mood");
        let at = self.refs.binary_search_by(|&at| records.key(at).cmp(key)).ok();
        let right = at.map(|at| self.refs[at]);
        // A key that is said to be absent is not noticed; one that is another is.
        right.and_then(|_| self.answer(right))
    }

    fn heap_bytes(&self) -> u64 {
        let claim = if self.is(Mood::TakesMemory) { 1 << 63 } else { 0 };
        claim + self.refs.capacity() as u64 * 12
    }

    fn heap_bytes_after(&self, keys: u64) -> u64 {
        (self.refs.capacity() as u64 + keys + 4) * 36
    }
}

struct MoodyFactory {
    mood: Mood,
    foreign: Arc<Mutex<Vec<RecordRef>>>,
    /// The database was opened: what is made from now on may go wrong at once.
    armed: Arc<AtomicBool>,
}

impl MemtableFactory for MoodyFactory {
    fn name(&self) -> &str {
        "moody"
    }

    fn create(&self, hints: &IndexHints) -> Box<dyn CustomIndex> {
        assert!(self.mood != Mood::PanicsWhenMade || !self.armed.load(Ordering::Acquire), "moody");
        Box::new(Moody {
            refs: Vec::new(),
            mood: self.mood,
            keys_at: 7 + usize::try_from(hints.seed % 5).unwrap(),
            foreign: Arc::clone(&self.foreign),
            calls: AtomicUsize::new(0),
        })
    }
}

/// Whatever the index does, no acknowledged write is lost, and no answer is wrong once the index was caught; a
/// scan that was under way fails instead. What only the index knows, a forgotten key, is caught by the flush.
#[test]
fn a_memtable_that_goes_wrong_is_done_without() {
    for mood in MOODS {
        let sim = Simulation::new(9);
        let armed = Arc::new(AtomicBool::new(false));
        let open = || {
            let mut registry = Registry::new();
            let foreign = Arc::default();
            registry.register(MoodyFactory { mood, foreign, armed: Arc::clone(&armed) }).unwrap();
            let moody = MemtableChoice::named("moody");
            let open = builder(&sim).registry(registry).memtable(moody).max_memtable_size(16 << 10);
            open.open().unwrap()
        };
        let db = open();
        armed.store(true, Ordering::Release);
        let mut want = std::collections::BTreeMap::new();
        for round in 0..4_u32 {
            for at in 0..40_u32 {
                let key = format!("{:03}", at * 7 % 50);
                let value = format!("{round}/{at}");
                db.put(&key, &value).unwrap();
                want.insert(key.clone(), value.clone());
                if mood != Mood::Forgets {
                    assert_eq!(db.get(&key).unwrap().unwrap(), value.as_str(), "{mood:?}");
                }
                // What is read is right, or the scan fails.
                for entry in db.iter() {
                    let Ok((key, value)) = entry else { break };
                    let key = std::str::from_utf8(&key).unwrap();
                    assert!(mood == Mood::Forgets || value == want[key].as_str(), "{mood:?} {key}");
                }
            }
            if round == 2 {
                db.flush().unwrap();
            }
        }
        let found = |db: &Db| -> Vec<(String, String)> {
            let text = |bytes: memtide::Slice| String::from_utf8(bytes.to_vec()).unwrap();
            db.iter().map(|entry| entry.map(|(k, v)| (text(k), text(v))).unwrap()).collect()
        };
        db.flush().unwrap();
        let all: Vec<_> = want.clone().into_iter().collect();
        assert_eq!(found(&db), all, "{mood:?}");
        let fault = db.stats().keyspaces[0].memtable_fault.clone();
        assert!(fault.is_some(), "{mood:?} was not caught");
        db.put("~", "once more").unwrap();
        db.close().unwrap();
        armed.store(false, Ordering::Release);
        let db = open();
        assert_eq!(found(&db).len(), all.len() + 1, "{mood:?}");
    }
}

/// Which keys a memtable of a run has is not believed of its index either.
#[test]
fn a_run_of_memtables_that_go_wrong_is_flushed_whole() {
    for mood in MOODS {
        let sim = Simulation::new(10);
        let armed = Arc::new(AtomicBool::new(false));
        let mut registry = Registry::new();
        let foreign = Arc::default();
        registry.register(MoodyFactory { mood, foreign, armed: Arc::clone(&armed) }).unwrap();
        let open = builder(&sim).registry(registry).memtable(MemtableChoice::named("moody"));
        let db = open.max_memtable_size(4 << 10).memory_budget(64 << 20).open().unwrap();
        armed.store(true, Ordering::Release);
        let mut joined = false;
        for at in 0..2000_u32 {
            db.put(at.to_be_bytes(), at.to_le_bytes()).unwrap();
            sim.steps.run_until_idle();
            let stats = &db.stats().keyspaces[0];
            joined |= stats.sealed > stats.sealed_runs;
            // A key that was forgotten is missed only once the flush walks over all of them.
            if mood != Mood::Forgets {
                let key = at / 2;
                assert_eq!(db.get(key.to_be_bytes()).unwrap().unwrap(), key.to_le_bytes()[..]);
            }
        }
        assert!(joined, "{mood:?}");
        db.flush().unwrap();
        let key = |row: memtide::Result<(memtide::Slice, memtide::Slice)>| row.unwrap().0.to_vec();
        let want: Vec<_> = (0..2000_u32).map(|at| at.to_be_bytes().to_vec()).collect();
        assert_eq!(db.iter().map(key).collect::<Vec<_>>(), want, "{mood:?}");
    }
}

#[test]
fn names_that_are_taken_are_refused_at_registering() {
    let mut registry = registry();
    let again = registry.register(TimeLogFactory).unwrap_err();
    assert!(again.to_string().contains("\"time_log\""), "{again}");
    assert!(Path::new(ROOT).is_absolute());
}
