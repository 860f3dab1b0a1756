//! Health states: what each fault makes of a database, what it takes and refuses then, and that it heals, whatever
//! crashes meanwhile. The table is in docs/design/0019-health-states.md.

use std::io::ErrorKind as Fault;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use memtide::{Config, Db, Durability, ErrorKind, HealthState, MemtableType, Result};
use memtide_env::Simulation;
use memtide_env::vfs::{CrashMode, Disk, IoOp};

use crate::oracle::State;
use crate::script::ROOT;

/// Where a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    LogAppend,
    LogSync,
    SegmentCreate,
    SegmentHeader,
    SegmentSync,
    SegmentName,
    ManifestAppend,
    ManifestSync,
    TableCreate,
    TableWrite,
    TableSync,
    TableName,
    BlobCreate,
    BlobWrite,
}

use Place::*;

const PLACES: [Place; 14] = [
    LogAppend,
    LogSync,
    SegmentCreate,
    SegmentHeader,
    SegmentSync,
    SegmentName,
    ManifestAppend,
    ManifestSync,
    TableCreate,
    TableWrite,
    TableSync,
    TableName,
    BlobCreate,
    BlobWrite,
];

const FAULTS: [Fault; 4] =
    [Fault::Other, Fault::StorageFull, Fault::QuotaExceeded, Fault::ReadOnlyFilesystem];

/// The table: what the state is behind a fault.
fn state_behind(place: Place, fault: Fault) -> HealthState {
    let lacks_space = matches!(fault, Fault::StorageFull | Fault::QuotaExceeded);
    match place {
        // Whatever a sync of the log or the manifest fails for, the device has failed.
        LogSync | ManifestSync => HealthState::ReadOnly,
        _ if lacks_space => HealthState::NoSpace,
        // A table that was not written is written once more.
        TableCreate | TableWrite | TableSync | TableName | BlobCreate | BlobWrite
            if fault == Fault::Other =>
        {
            HealthState::Healthy
        }
        _ => HealthState::ReadOnly,
    }
}

/// Whether writes stop until a resume, also deletes.
fn breaks(place: Place) -> bool {
    matches!(place, LogAppend | LogSync | ManifestAppend | ManifestSync)
}

/// What a run of [`act`] does up to the operation that is struck, and what comes of it.
fn strikes(place: Place, op: &IoOp, seen: &mut Vec<IoOp>) -> bool {
    let ends = |path: &Path, end: &str| path.to_str().unwrap().ends_with(end);
    let is_manifest = |path: &Path| path.to_str().unwrap().contains("MANIFEST");
    // A new segment, not its first records.
    let created =
        seen.iter().any(|op| matches!(op, IoOp::Create { path, .. } if ends(path, ".wal")));
    seen.push(op.clone());
    match (place, op) {
        (LogAppend, IoOp::Write { path, offset, .. }) => ends(path, ".wal") && *offset > 0,
        (LogSync, IoOp::Sync { path }) => ends(path, ".wal") && !created,
        (SegmentCreate, IoOp::Create { path, .. }) => ends(path, ".wal"),
        (SegmentHeader, IoOp::Write { path, offset, .. }) => ends(path, ".wal") && *offset == 0,
        (SegmentSync, IoOp::Sync { path }) => ends(path, ".wal") && created,
        (SegmentName, IoOp::SyncDir { path }) => ends(path, "wal"),
        (ManifestAppend, IoOp::Write { path, .. }) | (ManifestSync, IoOp::Sync { path }) => {
            is_manifest(path)
        }
        (TableCreate, IoOp::Create { path, .. })
        | (TableWrite, IoOp::Write { path, .. })
        | (TableSync, IoOp::Sync { path }) => ends(path, ".sst"),
        (TableName, IoOp::SyncDir { path }) => ends(path, "sst"),
        (BlobCreate, IoOp::Create { path, .. }) | (BlobWrite, IoOp::Write { path, .. }) => {
            ends(path, ".blob")
        }
        _ => false,
    }
}

const NAMES: [&str; 2] = ["default", "left"];

fn config(kind: MemtableType) -> Config {
    let mut config = Config {
        memtable_type: Some(kind.into()),
        max_memtable_size: Some(8 << 10),
        memory_budget: Some(1 << 20),
        flush_target: Some(64 << 10),
        durability: Some(Durability::Sync),
        enable_background_compaction: Some(false),
        ..Config::default()
    };
    config.tree.wal_segment_size = Some(16 << 10);
    config.tree.min_blob_size = Some(600);
    config
}

fn open(sim: &Simulation, kind: MemtableType) -> Db {
    let db = Db::builder(ROOT).config(config(kind)).env(sim.env.clone()).open().unwrap();
    for name in NAMES {
        db.keyspace(name).unwrap();
    }
    db
}

/// A write and what the database holds with it.
fn put(db: &Db, model: &mut State, key: &str, value: &[u8], how: Durability) -> Result<()> {
    let mut batch = db.batch();
    for name in NAMES {
        batch.put(&db.get_keyspace(name).unwrap(), key, value);
    }
    let written = db.write_with(batch, how);
    if written.is_ok() {
        with(model, key, value);
    }
    written.map(drop)
}

fn with(model: &mut State, key: &str, value: &[u8]) {
    let change = |name| crate::oracle::Change::Put(name, key.into(), value.to_vec());
    model.apply(&NAMES.map(change));
}

/// Writes that are there before anything fails: some in tables, some in memtables, the last ones not synced.
fn fill(db: &Db, model: &mut State) -> Vec<State> {
    for at in 0..20 {
        put(db, model, &format!("old{at}"), &[1; 40], Durability::Sync).unwrap();
    }
    put(db, model, "large", &[2; 700], Durability::Sync).unwrap();
    db.flush().unwrap();
    for at in 0..20 {
        put(db, model, &format!("new{at}"), &[3; 40], Durability::Sync).unwrap();
    }
    let mut states = vec![model.clone()];
    for at in 0..3 {
        put(db, model, &format!("buffered{at}"), &[4; 40], Durability::Buffered).unwrap();
        states.push(model.clone());
    }
    states
}

/// What a fault is to strike in: one write, writes to the end of a segment, an edit, or a flush.
fn act(db: &Db, place: Place, model: &mut State) -> Result<()> {
    match place {
        LogAppend | LogSync => put(db, model, "struck", &[5; 40], Durability::Sync),
        SegmentCreate | SegmentHeader | SegmentSync | SegmentName => (0..100).try_for_each(|at| {
            put(db, model, &format!("segment{at}"), &[6; 200], Durability::Buffered)
        }),
        ManifestAppend | ManifestSync => db.keyspace("struck").map(drop),
        BlobCreate | BlobWrite => {
            put(db, model, "larger", &[7; 800], Durability::Buffered)?;
            db.flush()
        }
        TableCreate | TableWrite | TableSync | TableName => db.flush(),
    }
}

/// The index of the operation that a fault at `place` strikes.
fn operation_of(place: Place, kind: MemtableType) -> u64 {
    let sim = Simulation::new(1);
    let (db, mut model) = (open(&sim, kind), State::default());
    fill(&db, &mut model);
    let found = Arc::new(Mutex::new(None));
    let (kept, mut seen) = (Arc::clone(&found), Vec::new());
    sim.vfs.set_observer(Some(Box::new(move |index, op, _| {
        if strikes(place, op, &mut seen) {
            kept.lock().unwrap().get_or_insert(index);
        }
    })));
    act(&db, place, &mut model).unwrap();
    sim.vfs.set_observer(None);
    let found = *found.lock().unwrap();
    found.unwrap_or_else(|| panic!("{place:?} is not met"))
}

/// A database that was just struck.
struct Struck {
    sim: Simulation,
    db: Db,
    /// What it must hold.
    model: State,
    /// What a crash may leave of it, from what is durable on.
    states: Vec<State>,
    error: memtide::Error,
}

fn strike(place: Place, fault: Fault, kind: MemtableType) -> Struck {
    let sim = Simulation::new(1);
    let (db, mut model) = (open(&sim, kind), State::default());
    let mut states = fill(&db, &mut model);
    // A whole record of the group that fails.
    let prefix = if place == LogAppend { 1 << 20 } else { 7 };
    sim.vfs.fail_write_at(operation_of(place, kind), fault, prefix);
    let before = model.clone();
    let error = act(&db, place, &mut model).expect_err("it is struck");
    if model != before {
        // Writes that filled a segment; the last ones may be in it or not.
        let grown = (0..100).map(|at| {
            let mut grown = states[states.len() - 1].clone();
            (0..=at).for_each(|at| with(&mut grown, &format!("segment{at}"), &[6; 200]));
            grown
        });
        let grown: Vec<_> = grown.take_while(|state| *state != model).collect();
        states.extend(grown.into_iter().chain([model.clone()]));
    }
    if matches!(place, LogAppend | LogSync) {
        let mut whole = model.clone();
        with(&mut whole, "struck", &[5; 40]);
        states.push(whole.clone());
        // A write that is only not known to be durable is visible, one that is refused is not.
        if place == LogSync {
            model = whole;
        }
    }
    if matches!(place, BlobCreate | BlobWrite) {
        with(&mut model, "larger", &[7; 800]);
        states.push(model.clone());
    }
    Struck { sim, db, model, states, error }
}

fn kind_of(result: Result<()>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

impl Struck {
    /// Reads go on and show all there is, in each way to read.
    fn check_reads(&self) {
        assert_eq!(State::of(&self.db).unwrap(), self.model);
        let snapshot = self.db.snapshot();
        assert!(snapshot.get(&self.db.default_keyspace(), "old7").unwrap().is_some());
        assert_eq!(
            self.db.get("struck").unwrap().is_some(),
            self.model.get("default", b"struck").is_some()
        );
        assert_eq!(self.db.multi_get(["old1", "none"]).unwrap()[1], None);
        assert_eq!(self.db.range("new"..).rev().last().unwrap().unwrap().0, *b"new0");
    }

    fn put(&self) -> Option<ErrorKind> {
        kind_of(self.db.put("refused", "never seen"))
    }

    fn delete(&mut self) -> Option<ErrorKind> {
        let deleted = kind_of(self.db.delete("old3"));
        if deleted.is_none() {
            self.model.apply(&[crate::oracle::Change::Delete("default", b"old3".to_vec())]);
        }
        deleted
    }

    /// As long as it takes to heal, which is no more than five seconds.
    fn heal(&self) {
        for _ in 0..5 {
            self.sim.steps.run_until_idle();
            if self.db.health().state == HealthState::Healthy {
                return;
            }
            self.sim.clock.advance(Duration::from_secs(1));
        }
        self.sim.steps.run_until_idle();
        assert_eq!(self.db.health().state, HealthState::Healthy, "{:?}", self.db.health());
    }

    /// All is well, and what is written now is there after a power cut and the next open.
    /// Of files that nothing names, `orphans` may be left: their removal may be what failed.
    fn check_well(mut self, kind: MemtableType, orphans: usize) {
        self.check_reads();
        put(&self.db, &mut self.model, "after", b"all is well", Durability::Sync).unwrap();
        self.db.keyspace("after").unwrap();
        assert!(self.db.durable_seq() >= self.db.snapshot().seqno(), "nothing is left behind");
        for flushes in [false, true] {
            if flushes {
                self.db.flush().unwrap();
                self.db.compact().unwrap();
                self.check_reads();
            }
            for (mode, seed) in
                [(CrashMode::DropAll, 1), (CrashMode::Subset, 2), (CrashMode::KeepAll, 3)]
            {
                let again = Simulation::on(self.sim.vfs.disk().crash(mode, seed), seed);
                assert_eq!(State::of(&open(&again, kind)).unwrap(), self.model, "{mode:?}");
            }
        }
        let Self { sim, db, model, .. } = self;
        db.close().unwrap();
        let report = memtide::verify_in(&sim.env, ROOT).unwrap();
        assert!(report.damages.is_empty(), "{:?}", report.damages);
        let db = open(&sim, kind);
        assert_eq!(State::of(&db).unwrap(), model);
        assert!(db.recovery_report().orphans.len() <= orphans, "{:?}", db.recovery_report());
    }
}

/// Names the case if a check panics.
struct Here(String);

impl Drop for Here {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.0);
        }
    }
}

#[test]
fn each_fault_leads_to_its_state_and_every_state_heals_by_itself() {
    for kind in MemtableType::ALL {
        for (place, fault) in
            PLACES.into_iter().flat_map(|place| FAULTS.map(|fault| (place, fault)))
        {
            let here = Here(format!("{kind}, {place:?}, {fault:?}"));
            let mut struck = strike(place, fault, kind);
            let (want, health) = (state_behind(place, fault), struck.db.health());
            assert_eq!(health.state, want, "{health:?}");
            let told = match (place, want) {
                (LogSync, _) => ErrorKind::Indeterminate,
                (_, HealthState::NoSpace) => ErrorKind::NoSpace,
                _ => ErrorKind::Io,
            };
            assert_eq!(struck.error.kind(), told, "{:?}", struck.error);
            struck.check_reads();
            let refuses = match want {
                HealthState::Healthy => None,
                HealthState::NoSpace => Some(ErrorKind::NoSpace),
                _ => Some(ErrorKind::ReadOnly),
            };
            if refuses.is_some() {
                let last = health.recent.last().unwrap();
                assert!(last.at_ms > 0 && last.to == want && health.since_ms == last.at_ms);
                assert!(health.reason.is_some() && health.advice.is_some());
                assert_eq!(struck.put(), refuses);
                let deletes = want == HealthState::NoSpace && !breaks(place);
                assert_eq!(struck.delete(), refuses.filter(|_| !deletes));
            }
            if breaks(place) && want == HealthState::NoSpace {
                // Resumed at once from the reserve: only puts wait for space.
                struck.sim.steps.run_until_idle();
                assert_eq!(struck.db.health().state, HealthState::NoSpace);
                assert_eq!((struck.put(), struck.delete()), (Some(ErrorKind::NoSpace), None));
            }
            struck.check_reads();
            struck.heal();
            struck.check_well(kind, 0);
            drop(here);
        }
    }
}

/// The disks before each operation from now on, while `work` is done.
fn disks_during(sim: &Simulation, work: impl FnOnce()) -> Vec<(String, Disk)> {
    let disks = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&disks);
    sim.vfs.set_observer(Some(Box::new(move |index, op, disk| {
        kept.lock().unwrap().push((format!("{index}: {op:?}"), disk.clone()));
    })));
    work();
    sim.vfs.set_observer(None);
    std::mem::take(&mut *disks.lock().unwrap())
}

const WAYS: [(CrashMode, u64); 5] = [
    (CrashMode::KeepAll, 0),
    (CrashMode::DropAll, 0),
    (CrashMode::Prefix, 1),
    (CrashMode::Subset, 1),
    (CrashMode::Subset, 2),
];

/// Crashes in all ways; each must open to one of `states`, of those of `acked` and later if only the process died, and
/// to the same after another crash.
fn crash(point: &(String, Disk), kind: MemtableType, states: &[State], acked: usize) -> usize {
    for (mode, seed) in WAYS {
        let here = Here(format!("before {} ({mode:?}, {seed})", point.0));
        // What a failed sync has dropped stays dropped if only the process died.
        let only_process = mode == CrashMode::KeepAll;
        let disk = if only_process { point.1.clone() } else { point.1.crash(mode, seed) };
        let sim = Simulation::on(disk, seed);
        let db = open(&sim, kind);
        let state = State::of(&db).unwrap();
        let least = if only_process { acked } else { 0 };
        assert!(
            states[least..].contains(&state),
            "{}",
            state.difference(&states[states.len() - 1])
        );
        let again = Simulation::on(sim.vfs.disk().crash(CrashMode::Subset, seed), seed + 1);
        assert_eq!(State::of(&open(&again, kind)).unwrap(), state, "the second recovery differs");
        drop(here);
    }
    WAYS.len()
}

/// Where the first of `states` is that holds all that `acked` does.
fn place_of(states: &[State], acked: &State) -> usize {
    states.iter().position(|state| state == acked).unwrap()
}

#[test]
fn a_crash_at_every_operation_of_a_resume_leaves_a_prefix_of_the_writes() {
    let mut crashes = 0;
    for kind in MemtableType::ALL {
        for place in PLACES
            .into_iter()
            .filter(|place| state_behind(*place, Fault::Other) != HealthState::Healthy)
        {
            let here = Here(format!("{kind}, {place:?}"));
            let Struck { sim, db, mut model, mut states, .. } = strike(place, Fault::Other, kind);
            let acked = place_of(&states, &model).min(states.len() - 1);
            let acked = if place == LogSync { acked - 1 } else { acked };
            for point in disks_during(&sim, || db.resume().unwrap()) {
                crashes += crash(&point, kind, &states, acked);
            }
            assert_eq!(
                (db.health().state, State::of(&db).unwrap()),
                (HealthState::Healthy, model.clone())
            );
            // From here on nothing is in doubt: what was refused does not come back, what was shown stays.
            if matches!(place, LogAppend | LogSync) {
                states.clear();
            }
            let mut next = states.clone();
            next.push(model.clone());
            let mut points = Vec::new();
            for at in 0..3 {
                let acked = next.len() - 1;
                let key = format!("later{at}");
                let disks = disks_during(&sim, || {
                    put(&db, &mut model, &key, b"on", Durability::Sync).unwrap();
                });
                next.push(model.clone());
                points.extend(disks.into_iter().map(|point| (point, acked)));
            }
            for (point, acked) in points {
                crashes += crash(&point, kind, &next, acked);
            }
            drop(here);
        }
    }
    println!("{crashes} crashes");
}

#[test]
fn a_resume_that_fails_at_any_operation_is_tried_again() {
    let (mut failed, mut crashes) = (0, 0);
    for kind in [MemtableType::Trie, MemtableType::Vector, MemtableType::EnhancedSkiplist] {
        for place in PLACES
            .into_iter()
            .filter(|place| state_behind(*place, Fault::Other) != HealthState::Healthy)
        {
            let operations = {
                let Struck { sim, db, .. } = strike(place, Fault::Other, kind);
                let before = sim.vfs.op_count();
                db.resume().unwrap();
                sim.vfs.op_count() - before
            };
            for at in 0..operations {
                let fault = [Fault::Other, Fault::StorageFull][usize::try_from(at % 2).unwrap()];
                let here = Here(format!(
                    "{kind}, {place:?}, then operation {at} of the resume, {fault:?}"
                ));
                let struck = strike(place, Fault::Other, kind);
                struck.sim.vfs.fail_write_at(struck.sim.vfs.op_count() + at, fault, 9);
                failed += u64::from(struck.db.resume().is_err());
                struck.check_reads();
                let disks = disks_during(&struck.sim, || struck.heal());
                for point in disks.iter().skip(usize::try_from(at % 5).unwrap()).step_by(5) {
                    crashes += crash(point, kind, &struck.states, 0);
                }
                struck.check_well(kind, 1);
                drop(here);
            }
        }
    }
    println!("{failed} resumes failed, {crashes} crashes in the next");
    assert!(failed > 100);
}

/// A device with a little space, on which puts go on until they are refused.
struct Filled {
    sim: Simulation,
    db: Db,
    /// The state after each write that was taken.
    states: Vec<State>,
}

impl Filled {
    fn new(kind: MemtableType, free: u64) -> Self {
        let sim = Simulation::new(2);
        let db = open(&sim, kind);
        // The reserve is written a second after opening.
        sim.clock.advance(Duration::from_secs(2));
        sim.steps.run_until_idle();
        assert!(sim.vfs.files().contains(&Path::new(ROOT).join("RESERVE")));
        sim.vfs.set_free_space(Some(free));
        Self { sim, db, states: vec![State::default()] }
    }

    fn state(&self) -> &State {
        &self.states[self.states.len() - 1]
    }

    /// Puts, until the first is refused.
    fn fill(&mut self) {
        for at in 0..10_000_u32 {
            let mut next = self.state().clone();
            match put(
                &self.db,
                &mut next,
                &format!("k{:05}", at * 7919 % 10_007),
                &[8; 150],
                Durability::Sync,
            ) {
                Ok(()) => self.states.push(next),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
                    return;
                }
            }
            if at % 10 == 0 {
                self.sim.steps.run_until_idle();
            }
        }
        panic!("the device is never full");
    }

    /// Deletes some keys, one by one, and some by a range; all of it is taken.
    fn delete(&mut self) {
        let keys: Vec<_> = self.db.iter().step_by(3).map(|row| row.unwrap().0).collect();
        assert!(keys.len() > 20);
        for (at, key) in keys.iter().enumerate() {
            let change = crate::oracle::Change::Delete("default", key.to_vec());
            self.take(change);
            if at % 10 == 0 {
                self.sim.steps.run_until_idle();
            }
        }
        let from = std::ops::Bound::Included(b"k05".to_vec());
        self.take(crate::oracle::Change::DeleteRange("left", (from, std::ops::Bound::Unbounded)));
    }

    fn take(&mut self, change: crate::oracle::Change) {
        crate::oracle::write(&self.db, std::slice::from_ref(&change), Durability::Sync).unwrap();
        let mut next = self.state().clone();
        next.apply(&[change]);
        self.states.push(next);
    }

    fn check_refuses_puts(&self) {
        assert_eq!(self.db.health().state, HealthState::NoSpace);
        let refused = self.db.put("refused", "never seen").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NoSpace);
        let text = refused.to_string();
        assert!(text.contains(" B are free, ") && text.contains(" B are needed"), "{text}");
        let mut batch = self.db.batch();
        batch.delete(&self.db.default_keyspace(), "k00000");
        batch.put(&self.db.default_keyspace(), "refused", "never seen");
        assert_eq!(self.db.write(batch).unwrap_err().kind(), ErrorKind::NoSpace);
        assert_eq!(State::of(&self.db).unwrap(), *self.state());
    }
}

#[test]
fn a_full_device_refuses_puts_takes_deletes_and_goes_on_once_there_is_space() {
    for kind in MemtableType::ALL {
        for free in [20_000, 60_000, 150_000] {
            let here = Here(format!("{kind}, {free} B"));
            let mut filled = Filled::new(kind, free);
            let snapshot = filled.db.snapshot();
            filled.fill();
            filled.check_refuses_puts();
            filled.delete();
            filled.check_refuses_puts();
            assert_eq!(snapshot.iter(&filled.db.default_keyspace()).count(), 0);
            drop(snapshot);
            // Whatever may be done by itself is done, and it stays as it is.
            for _ in 0..5 {
                filled.sim.clock.advance(Duration::from_secs(1));
                filled.sim.steps.run_until_idle();
                assert_eq!(State::of(&filled.db).unwrap(), *filled.state());
            }
            filled.sim.vfs.set_free_space(Some(4 << 20));
            for _ in 0..5 {
                filled.sim.clock.advance(Duration::from_secs(1));
                filled.sim.steps.run_until_idle();
            }
            let health = filled.db.health();
            assert_eq!(health.state, HealthState::Healthy, "{health:?}");
            assert!(filled.sim.vfs.files().contains(&Path::new(ROOT).join("RESERVE")));
            let Filled { sim, db, states } = filled;
            let mut model = states[states.len() - 1].clone();
            put(&db, &mut model, "after", b"there is space", Durability::Sync).unwrap();
            let again = Simulation::on(sim.vfs.disk().crash(CrashMode::DropAll, 1), 1);
            assert_eq!(State::of(&open(&again, kind)).unwrap(), model);
            db.flush().unwrap();
            db.compact().unwrap();
            db.close().unwrap();
            assert_eq!(State::of(&open(&sim, kind)).unwrap(), model);
            drop(here);
        }
    }
}

#[test]
fn a_crash_at_any_operation_on_a_full_device_loses_nothing_and_it_opens_there() {
    let (mut crashes, mut opened) = (0, 0);
    for kind in MemtableType::ALL {
        let mut filled = Filled::new(kind, 60_000);
        let mut points = Vec::new();
        filled.fill();
        let sim = filled.sim.clone();
        for phase in 0..3 {
            let before = filled.states.len() - 1;
            let disks = disks_during(&sim, || match phase {
                0 => filled.delete(),
                1 => drop(filled.db.compact()),
                _ => {
                    sim.vfs.set_free_space(Some(4 << 20));
                    sim.clock.advance(Duration::from_secs(2));
                    sim.steps.run_until_idle();
                }
            });
            points.extend(disks.into_iter().map(|disk| (before, disk)));
        }
        let first = kind as usize;
        for (before, point) in points.into_iter().skip(first).step_by(17) {
            crashes += crash(&point, kind, &filled.states[before..], 0);
            // The machine starts again, and the device is as full as it was but for the reserve.
            let sim = Simulation::on(point.1.crash(CrashMode::KeepAll, 0), 9);
            sim.vfs.set_free_space(Some(2000));
            let builder = Db::builder(ROOT).config(config(kind)).env(sim.env.clone());
            match builder.open() {
                Ok(db) => {
                    opened += 1;
                    assert!(filled.states.contains(&State::of(&db).unwrap()));
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}"),
            }
        }
    }
    println!("{crashes} crashes, {opened} opened on the full device");
    assert!(opened > 0);
}

#[test]
fn a_resume_works_with_a_full_memory() {
    for kind in MemtableType::ALL {
        let sim = Simulation::new(3);
        let mut config = config(kind);
        config.memory_budget = Some(256 << 10);
        config.flush_target = Some(64 << 10);
        config.durability = Some(Durability::Buffered);
        config.tree.wal_segment_size = Some(1 << 20);
        let db = Db::builder(ROOT).config(config).env(sim.env.clone()).open().unwrap();
        for name in NAMES {
            db.keyspace(name).unwrap();
        }
        let mut model = State::default();
        let limit = memtide::WriteOptions { timeout: Some(Duration::ZERO), ..Default::default() };
        let full = (0..10_000_u32).find_map(|at| {
            let mut batch = db.batch();
            for name in NAMES {
                batch.put(&db.get_keyspace(name).unwrap(), at.to_be_bytes(), [1; 100]);
            }
            let written = db.write_with(batch, limit);
            if written.is_ok() {
                let put =
                    |name| crate::oracle::Change::Put(name, at.to_be_bytes().into(), vec![1; 100]);
                model.apply(&NAMES.map(put));
            }
            written.err()
        });
        assert_eq!(full.unwrap().kind(), ErrorKind::Busy);
        sim.vfs.fail_at(sim.vfs.op_count(), Fault::Other);
        assert_eq!(db.sync().unwrap_err().kind(), ErrorKind::Indeterminate);
        db.resume().unwrap();
        put(&db, &mut model, "after", b"all is well", Durability::Sync).unwrap();
        assert_eq!(State::of(&db).unwrap(), model);
        let again = Simulation::on(sim.vfs.disk().crash(CrashMode::DropAll, 0), 0);
        assert_eq!(State::of(&open(&again, kind)).unwrap(), model);
    }
}

#[test]
fn a_damaged_table_leaves_all_else_as_it_is() {
    let sim = Simulation::new(4);
    let (db, mut model) = (open(&sim, MemtableType::Skiplist), State::default());
    let other = db.keyspace("left").unwrap();
    put(&db, &mut model, "damaged", &[0xd5; 300], Durability::Sync).unwrap();
    db.flush().unwrap();
    let is_table = |path: &&std::path::PathBuf| path.extension().is_some_and(|end| end == "sst");
    let files = sim.vfs.files();
    let table = files.iter().find(is_table).unwrap();
    let file = memtide_env::Vfs::open_read(&sim.vfs, table).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let at = bytes.windows(50).position(|part| part == [0xd5; 50]).unwrap();
    sim.vfs.corrupt(table, at as u64, 1).unwrap();
    for read in 0..3 {
        let failed = match read {
            0 => db.get("damaged").err(),
            1 => db.iter().find_map(Result::err),
            _ => db.snapshot().multi_get(&db.default_keyspace(), ["damaged"]).err(),
        };
        assert!(failed.unwrap().is_corruption());
        let health = db.health();
        assert_eq!((health.state, health.transitions), (HealthState::Degraded, 1));
        assert_eq!(health.damaged, [table.strip_prefix(ROOT).unwrap()]);
    }
    db.put("written", "still").unwrap();
    assert!(db.get("written").unwrap().is_some() && other.get("damaged").unwrap().is_some());
    db.flush().unwrap();
    let before = sim.vfs.op_count();
    assert!(db.compact().unwrap_err().is_corruption());
    assert_eq!(sim.vfs.op_count(), before, "nothing was written for a merge that cannot be");
    db.close().unwrap();
    assert_eq!(open(&sim, MemtableType::Skiplist).health().state, HealthState::Healthy);
}

/// Threads of the machine on a disk that fails now and then: nobody waits for ever, and what was acknowledged is there.
#[test]
fn writers_on_a_device_that_fails_now_and_then_go_on() {
    const WRITERS: u32 = 3;
    for kind in [MemtableType::EnhancedSkiplist, MemtableType::Trie] {
        let sim = Simulation::new(5);
        let env = memtide_env::Env { vfs: sim.env.vfs.clone(), ..memtide_env::Env::real() };
        let mut config = config(kind);
        config.enable_background_compaction = Some(true);
        let db = Db::builder(ROOT).config(config).env(env).open().unwrap();
        let acked: Vec<Vec<u32>> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let (db, vfs) = (&db, &sim.vfs);
                    scope.spawn(move || {
                        let mut acked = Vec::new();
                        for at in 0..300 {
                            let key = writer * 1000 + at;
                            if writer == 0 && at % 25 == 24 {
                                let fault =
                                    [Fault::Other, Fault::StorageFull][at as usize / 25 % 2];
                                vfs.fail_at(vfs.op_count() + u64::from(at % 7), fault);
                            }
                            if db.put(key.to_be_bytes(), [9; 60]).is_ok() {
                                acked.push(key);
                            } else if db.resume().is_err() {
                                std::thread::yield_now();
                            }
                        }
                        acked
                    })
                })
                .collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        while db.health().state != HealthState::Healthy {
            let _ = db.resume();
            std::thread::yield_now();
        }
        db.put("after", "all is well").unwrap();
        assert!(db.health().transitions > 0);
        let again = Simulation::on(sim.vfs.disk().crash(CrashMode::DropAll, 0), 0);
        let after = open(&again, kind);
        for key in acked.iter().flatten() {
            assert!(after.get(key.to_be_bytes()).unwrap().is_some(), "{key} was acknowledged");
            assert!(db.get(key.to_be_bytes()).unwrap().is_some(), "{key} was acknowledged");
        }
        assert!(after.get("after").unwrap().is_some());
    }
}

/// Nobody else makes any: what deletes leave of the memtables, and of the log, is enough.
#[test]
fn deletes_alone_make_space_on_a_full_device() {
    for kind in MemtableType::ALL {
        for free in [180_000, 200_000] {
            let here = Here(format!("{kind}, {free} B"));
            let mut filled = Filled::new(kind, free);
            filled.fill();
            filled.check_refuses_puts();
            let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
            for name in NAMES {
                filled.take(crate::oracle::Change::DeleteRange(name, all.clone()));
            }
            for _ in 0..12 {
                filled.sim.clock.advance(Duration::from_secs(1));
                filled.sim.steps.run_until_idle();
                // Background compaction is off here.
                let _ = filled.db.compact();
            }
            let health = filled.db.health();
            assert_eq!(health.state, HealthState::Healthy, "{health:?}");
            filled.db.put("after", "there is space").unwrap();
            drop(here);
        }
    }
}
