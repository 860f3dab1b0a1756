//! I/O errors: every operation of a script fails once, in a run of its own.
//!
//! Whatever fails, nothing panics, reads go on, what was acknowledged is there after the next open, and the
//! write that failed is there whole or not at all. And the database heals: writes go on by themselves.

use std::io::ErrorKind as IoErrorKind;
use std::time::Duration;

use memtide::{Db, Durability, ErrorKind, HealthState, MemtableType};
use memtide_env::Simulation;
use memtide_env::vfs::CrashMode;

use crate::oracle::{self, Change, Draw, NAMES, State};
use crate::script::{ROOT, Script, Step};

/// What a run with a fault came to.
struct Outcome {
    /// After each acknowledged write; those with writes that failed since come last, any of them may be.
    states: Vec<State>,
    acked: usize,
    durable: usize,
    errors: Vec<memtide::Error>,
}

impl Outcome {
    fn check(&self, found: &State, least: usize, what: &str) {
        let fits = self.states[least..].iter().any(|state| state == found);
        let acked = &self.states[self.acked];
        assert!(fits, "{what}: {} (errors: {:?})", found.difference(acked), self.errors);
    }
}

/// A short script, so that every one of its operations can have a run.
fn script() -> Script {
    let mut script = Script::draw(&mut Draw::new(21), MemtableType::HashLinkedList, &NAMES);
    script.steps.truncate(64);
    script.steps.insert(20, Step::Flush);
    script.steps.insert(40, Step::Compact);
    script.steps.push(Step::Reopen);
    script.steps.push(Step::Write(vec![Change::Delete("left", b"k01".to_vec())], Durability::Sync));
    script
}

/// Opens, once more if it fails: a refused open must not be in the way of the next.
fn open(script: &Script, sim: &Simulation, errors: &mut Vec<memtide::Error>) -> Db {
    let attempt = || {
        let db = script.open(sim)?;
        script.names.iter().try_for_each(|name| db.keyspace(name).map(drop))?;
        Ok(db)
    };
    attempt().unwrap_or_else(|error| {
        errors.push(error);
        attempt().unwrap()
    })
}

fn run(script: &Script, sim: &Simulation) -> Outcome {
    let mut outcome =
        Outcome { states: vec![State::default()], acked: 0, durable: 0, errors: Vec::new() };
    let mut db = open(script, sim, &mut outcome.errors);
    for step in &script.steps {
        let done = match step {
            Step::Write(changes, durability) => {
                let shown = State::of(&db).unwrap();
                outcome.check(&shown, outcome.acked, "before a write");
                let mut next = shown.clone();
                next.apply(changes);
                let written = oracle::write(&db, changes, *durability).map(drop);
                match &written {
                    Ok(()) => {
                        // What failed before is as it was shown: the database has resumed.
                        outcome.states.truncate(outcome.acked);
                        outcome.states.extend([shown, next]);
                        outcome.acked += 1;
                        if *durability == Durability::Sync {
                            outcome.durable = outcome.acked;
                        }
                    }
                    // Refused before anything happened.
                    Err(error) if error.kind() == ErrorKind::ReadOnly => {}
                    Err(_) => outcome.states.push(next),
                }
                written
            }
            Step::Flush => db.flush(),
            Step::Compact => db.compact(),
            Step::SetMemtable(name, choice) => {
                db.keyspace(name).and_then(|k| k.set_memtable(choice.clone()))
            }
            Step::SetCompaction(name, compaction) => {
                db.keyspace(name).and_then(|k| k.set_compaction(*compaction))
            }
            Step::Reopen => {
                let closed = db.close();
                db = open(script, sim, &mut outcome.errors);
                let found = State::of(&db).unwrap();
                outcome.check(&found, outcome.acked, "closed and opened");
                // From here on the write that failed is there or is not.
                outcome.states.truncate(outcome.acked);
                outcome.states.push(found);
                outcome.durable = outcome.acked;
                closed
            }
            Step::Tick(time) => {
                sim.clock.advance(*time);
                sim.steps.run_until_idle();
                Ok(())
            }
        };
        if let Err(error) = done {
            assert_ne!(error.kind(), ErrorKind::Internal, "{error:?}");
            assert_ne!(error.kind(), ErrorKind::Corruption, "{error:?}");
            assert!(
                !matches!(step, Step::Write(..)) || db.health().state != HealthState::Healthy,
                "{error:?}"
            );
            outcome.errors.push(error);
            let found = State::of(&db).unwrap();
            outcome.check(&found, outcome.acked, "read after an error");
        }
    }
    if !outcome.errors.is_empty() {
        heal(&db, sim);
        let mut next = State::of(&db).unwrap();
        outcome.check(&next, outcome.acked, "healed");
        next.apply(&[Change::Put("left", b"k02".to_vec(), b"healed".to_vec())]);
        db.keyspace("left").unwrap().put("k02", "healed").unwrap();
        outcome.states.truncate(outcome.acked);
        outcome.states.push(next);
    }
    if let Err(error) = db.close() {
        outcome.errors.push(error);
    }
    outcome
}

/// Lets as much time pass as the database may need to heal by itself.
fn heal(db: &Db, sim: &Simulation) {
    for _ in 0..5 {
        sim.steps.run_until_idle();
        sim.clock.advance(Duration::from_secs(1));
    }
    sim.steps.run_until_idle();
    assert_eq!(db.health().state, HealthState::Healthy, "{:?}", db.health());
}

#[test]
fn one_failed_operation_loses_nothing_acknowledged_and_panics_nowhere() {
    let script = script();
    let sim = Simulation::new(3);
    let outcome = run(&script, &sim);
    assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
    let operations = sim.vfs.op_count();
    let (mut noticed, mut runs) = (0, 0);
    for operation in 0..operations {
        let (kind, prefix) = match operation % 3 {
            0 => (IoErrorKind::StorageFull, 0),
            1 => (IoErrorKind::Other, 0),
            _ => (IoErrorKind::StorageFull, 11),
        };
        let here = Here(operation);
        let sim = Simulation::new(3);
        sim.vfs.fail_write_at(operation, kind, prefix);
        let outcome = run(&script, &sim);
        noticed += u64::from(!outcome.errors.is_empty());
        // Dead of the process, and of the machine, at the end of it all.
        for (mode, least) in
            [(CrashMode::KeepAll, outcome.acked), (CrashMode::DropAll, outcome.durable)]
        {
            let again = Simulation::on(sim.vfs.disk().crash(mode, 0), 4);
            let db = Db::builder(ROOT).env(again.env.clone()).open().unwrap();
            outcome.check(&State::of(&db).unwrap(), least, "opened after the run");
            db.put("writable", "again").unwrap();
        }
        runs += 1;
        drop(here);
    }
    println!("{runs} faults, {noticed} of them reported");
    assert!(noticed > runs / 2);
}

#[test]
fn a_full_device_refuses_writes_and_loses_nothing() {
    for free in (0..60_u64).map(|at| at * 1024) {
        let here = Here(free);
        let sim = Simulation::new(5);
        let script = Script::draw(&mut Draw::new(22), MemtableType::Vector, &NAMES);
        let db = script.open(&sim).unwrap();
        for name in NAMES {
            db.keyspace(name).unwrap();
        }
        sim.vfs.set_free_space(Some(free));
        let (mut state, mut last) = (State::default(), None);
        for step in &script.steps {
            let Step::Write(changes, durability) = step else { continue };
            match oracle::write(&db, changes, *durability) {
                Ok(_) => state.apply(changes),
                Err(error) => {
                    assert_ne!(error.kind(), ErrorKind::Internal, "{error:?}");
                    last = Some(changes.clone());
                    break;
                }
            }
            sim.steps.run_until_idle();
        }
        let mut with_last = state.clone();
        with_last.apply(&last.expect("the device is too small for the script"));
        drop(db.close());
        sim.vfs.set_free_space(None);
        let db = script.open(&sim).unwrap();
        let found = State::of(&db).unwrap();
        assert!(found == state || found == with_last, "{}", found.difference(&state));
        db.put("writable", "again").unwrap();
        drop(here);
    }
}

/// Names the fault if a check panics.
struct Here(u64);

impl Drop for Here {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("fault at {}", self.0);
        }
    }
}
