//! Backups: every one restorable, whatever happens to the next one, and damage told by file.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memtide::{Backups, Db, ErrorKind, MemtableType};
use memtide_env::Simulation;
use memtide_env::vfs::CrashMode;

use crate::checkpoint::{
    MODES, Stops, assert_lives, busy_config, disks_of, files_in, is_complete, number_in, open_at,
    run, write_in_step,
};
use crate::oracle::{self, Draw, NAMES, Repeat, State};
use crate::own_memtable::registry;
use crate::script::{ROOT, Script};

const KEPT: &str = "/kept";
const NEW: &str = "/new";

fn backups(sim: &Simulation) -> Backups {
    Backups::new_in(&sim.env, KEPT)
}

fn ids(sim: &Simulation) -> Vec<u64> {
    let list = backups(sim).list().unwrap();
    assert!(list.damages.is_empty(), "{:?}", list.damages);
    list.backups.iter().map(|backup| backup.id).collect()
}

fn assert_sound(sim: &Simulation) {
    let report = backups(sim).verify(true).unwrap();
    assert!(report.damages.is_empty(), "{:?}", report.damages);
}

/// A restored backup has these contents.
fn assert_restores(script: &Script, sim: &Simulation, id: u64, to: &str, want: &State) {
    backups(sim).restore(Some(id), to).unwrap();
    let db = open_at(script, sim, to).unwrap();
    let found = State::of(&db).unwrap();
    assert!(found == *want, "backup {id}: {}", found.difference(want));
}

/// A script's database after `steps`, with a backup at each of `at`.
fn with_backups(
    script: &Script,
    sim: &Simulation,
    steps: usize,
    at: &[usize],
) -> (Db, State, Vec<State>) {
    let mut states = Vec::new();
    let (db, state) = run(script, sim, steps, |step, db, state| {
        if at.contains(&step) {
            db.backup(KEPT).unwrap();
            states.push(state.clone());
        }
    });
    db.sync().unwrap();
    (db, state, states)
}

#[test]
fn every_backup_is_the_database_of_its_moment() {
    for kind in MemtableType::ALL {
        let script = Script::draw(&mut Draw::new(80 + kind as u64), kind, &NAMES);
        let sim = Simulation::new(kind as u64);
        let at = [0, 20, 50, 51, 125, 200, 230];
        let (_, _, states) = with_backups(&script, &sim, usize::MAX, &at);
        assert_eq!(ids(&sim), [1, 2, 3, 4, 5, 6, 7]);
        assert_sound(&sim);
        for (id, state) in (1..).zip(&states) {
            let to = format!("{NEW}-{id}");
            backups(&sim).restore(Some(id), &to).unwrap();
            assert_lives(&script, &sim, &to, state);
        }
        assert_sound(&sim);
    }
}

#[test]
fn backups_of_random_scripts_survive_prunes() {
    for seed in oracle::seeds(400..402, 2) {
        let _repeat = Repeat { test: "backups::backups_of_random_scripts", seed };
        let mut draw = Draw::new(seed);
        let kind = draw.memtable();
        let script = Script::draw(&mut draw, kind, &NAMES);
        let sim = Simulation::new(seed);
        let mut kept: Vec<(u64, State)> = Vec::new();
        run(&script, &sim, usize::MAX, |_, db, state| {
            if draw.one_in(15) {
                kept.push((db.backup(KEPT).unwrap().id, state.clone()));
            }
            if draw.one_in(40) && !kept.is_empty() {
                let keep = 1 + usize::try_from(draw.below(4)).unwrap();
                backups(&sim).prune(keep).unwrap();
                kept.drain(..kept.len().saturating_sub(keep));
            }
        });
        assert_sound(&sim);
        assert_eq!(ids(&sim), kept.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        for (id, state) in &kept {
            assert_restores(&script, &sim, *id, &format!("{NEW}-{id}"), state);
        }
    }
}

#[test]
fn what_is_kept_already_is_not_copied_again_and_goes_with_its_last_backup() {
    let sim = Simulation::new(1);
    let db = Db::builder(ROOT).env(sim.env.clone()).open().unwrap();
    for at in 0..2000_u32 {
        db.put(at.to_be_bytes(), [7; 100]).unwrap();
    }
    db.compact().unwrap();
    let first = db.backup(KEPT).unwrap();
    assert!(first.copied_bytes == first.bytes && first.bytes > 20_000, "{first:?}");
    db.put("one", "more").unwrap();
    let second = db.backup(KEPT).unwrap();
    assert!(second.copied_bytes < second.bytes, "{second:?}");
    let tables = |sim: &Simulation| files_in(sim, "/kept/sst").len();
    assert_eq!(tables(&sim), 1);
    db.delete_range(..).unwrap();
    db.compact().unwrap();
    let third = db.backup(KEPT).unwrap();
    assert_eq!((third.id, tables(&sim)), (3, 1));
    let pruned = backups(&sim).prune(2).unwrap();
    assert_eq!((pruned.backups, tables(&sim)), (vec![1], 1));
    let pruned = backups(&sim).prune(1).unwrap();
    assert_eq!((pruned.backups, tables(&sim)), (vec![2], 0));
    assert_eq!(backups(&sim).prune(0).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(backups(&sim).list().unwrap().backups, [third]);
    assert_sound(&sim);
}

#[test]
fn a_crash_anywhere_in_a_backup_leaves_those_before_and_the_source() {
    let (mut crashes, mut done) = (0, 0);
    for kind in [MemtableType::EnhancedSkiplist, MemtableType::HashLinkedList] {
        let script = Script::draw(&mut Draw::new(90 + kind as u64), kind, &NAMES);
        let sim = Simulation::new(kind as u64);
        let (db, state, states) = with_backups(&script, &sim, 150, &[60]);
        let disks = disks_of(&sim, || db.backup(KEPT).unwrap());
        for (at, (what, disk)) in disks.iter().enumerate() {
            let (mode, seed) = (MODES[at % MODES.len()], at as u64);
            let after = Simulation::on(disk.crash(mode, seed), seed);
            let source = script.open(&after).unwrap();
            assert_eq!(State::of(&source).unwrap(), state, "{what}, {mode:?}");
            assert_sound(&after);
            let found = ids(&after);
            assert_eq!(found[0], 1, "{what}, {mode:?}");
            assert_restores(&script, &after, 1, "/first", &states[0]);
            if found.len() > 1 {
                assert_restores(&script, &after, found[1], "/second", &state);
                done += 1;
            }
            // The next one goes on with what this one left, and a prune leaves nothing else.
            let next = source.backup(KEPT).unwrap();
            assert_restores(&script, &after, next.id, "/next", &state);
            backups(&after).prune(1).unwrap();
            assert_eq!(files_in(&after, KEPT).len() as u64, next.files, "{what}, {mode:?}");
            assert_sound(&after);
            crashes += 1;
        }
    }
    println!("{crashes} crashes, {done} backups complete");
    assert!(done > 0);
}

#[test]
fn a_crash_anywhere_in_the_first_backup_leaves_a_directory_for_the_next() {
    let script = Script::draw(&mut Draw::new(95), MemtableType::Sorted, &NAMES);
    let sim = Simulation::new(1);
    let (db, state) = run(&script, &sim, 60, |_, _, _| ());
    db.sync().unwrap();
    let disks = disks_of(&sim, || db.backup(KEPT).unwrap());
    for (at, (what, disk)) in disks.iter().enumerate() {
        let (mode, seed) = (MODES[at % MODES.len()], at as u64);
        let after = Simulation::on(disk.crash(mode, seed), seed);
        match backups(&after).restore(None, NEW) {
            Ok(_) => assert_eq!(State::of(&open_at(&script, &after, NEW).unwrap()).unwrap(), state),
            Err(error) => {
                let kinds = [ErrorKind::Unsupported, ErrorKind::NotFound, ErrorKind::Io];
                assert!(kinds.contains(&error.kind()), "{what}, {mode:?}: {error}");
            }
        }
        let source = script.open(&after).unwrap();
        let next = source.backup(KEPT).unwrap();
        assert_restores(&script, &after, next.id, "/next", &state);
    }
}

#[test]
fn a_crash_anywhere_in_a_restore_leaves_a_complete_or_refused_target() {
    let script = Script::draw(&mut Draw::new(96), MemtableType::Trie, &NAMES);
    let sim = Simulation::new(1);
    let (_, _, states) = with_backups(&script, &sim, 160, &[60, 159]);
    let mut complete = 0;
    let disks = disks_of(&sim, || backups(&sim).restore(None, NEW).unwrap());
    for (at, (_, disk)) in disks.iter().enumerate() {
        for mode in MODES {
            let after = Simulation::on(disk.crash(mode, at as u64), 1);
            complete += usize::from(is_complete(&script, &after, NEW, &states[1]));
            assert_restores(&script, &after, 1, "/first", &states[0]);
        }
    }
    assert!(complete >= MODES.len() / 2, "{complete}");
}

#[test]
fn a_crash_anywhere_in_a_prune_leaves_what_is_kept() {
    let script = Script::draw(&mut Draw::new(97), MemtableType::Vector, &NAMES);
    let sim = Simulation::new(1);
    let (_, _, states) = with_backups(&script, &sim, 200, &[40, 80, 120, 199]);
    let disks = disks_of(&sim, || backups(&sim).prune(2).unwrap());
    assert!(disks.len() > 8, "{}", disks.len());
    let left = files_in(&sim, KEPT);
    for (at, (what, disk)) in disks.iter().enumerate() {
        for mode in MODES {
            let after = Simulation::on(disk.crash(mode, at as u64), 1);
            let found = ids(&after);
            assert!(found.ends_with(&[3, 4]), "{what}, {mode:?}: {found:?}");
            assert_sound(&after);
            for id in found {
                let state = &states[usize::try_from(id).unwrap() - 1];
                assert_restores(&script, &after, id, &format!("{NEW}-{id}"), state);
            }
            backups(&after).prune(2).unwrap();
            assert_eq!(files_in(&after, KEPT), left, "{what}, {mode:?}");
        }
    }
}

#[test]
fn a_backup_that_fails_or_fills_the_device_costs_no_other_one() {
    let script = Script::draw(&mut Draw::new(98), MemtableType::Skiplist, &NAMES);
    let sim = Simulation::new(1);
    let (db, state, states) = with_backups(&script, &sim, 150, &[60]);
    let copy = Simulation::on(sim.vfs.disk(), 1);
    let source = script.open(&copy).unwrap();
    let operations = disks_of(&copy, || source.backup(KEPT).unwrap()).len();
    let mut failed = 0;
    for at in 0..operations - 1 {
        let sim = Simulation::on(sim.vfs.disk(), 1);
        let db = script.open(&sim).unwrap();
        sim.vfs.fail_at(sim.vfs.op_count() + at as u64, std::io::ErrorKind::Other);
        failed += usize::from(db.backup(KEPT).is_err());
        assert_sound(&sim);
        assert_restores(&script, &sim, 1, NEW, &states[0]);
        let next = db.backup(KEPT).unwrap();
        assert_restores(&script, &sim, next.id, "/next", &state);
        assert_eq!(State::of(&db).unwrap(), state, "operation {at}");
    }
    assert!(failed > operations * 3 / 4, "{failed} of {operations}");
    let mut refused = 0;
    for free in (0..).map(|at| at * 5000) {
        sim.vfs.set_free_space(Some(free));
        let made = db.backup(KEPT);
        sim.vfs.set_free_space(None);
        assert_sound(&sim);
        match made {
            Ok(made) => {
                assert_restores(&script, &sim, made.id, NEW, &state);
                break;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}"),
        }
        assert_eq!(ids(&sim), [1]);
        refused += 1;
    }
    assert!(refused > 0);
    // So does a restore, which leaves no file behind.
    sim.vfs.set_free_space(Some(3000));
    let error = backups(&sim).restore(Some(1), "/full").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert_eq!(files_in(&sim, "/full"), Vec::<String>::new());
}

#[test]
fn damaged_and_missing_files_are_told_by_name_and_nothing_is_restored_from_them() {
    let script = Script::draw(&mut Draw::new(99), MemtableType::HashSkiplist, &NAMES);
    let sim = Simulation::new(1);
    let (_, _, states) = with_backups(&script, &sim, 150, &[60, 149]);
    let files = files_in(&sim, KEPT);
    assert!(files.len() > 10, "{files:?}");
    for file in &files {
        let name = Path::new(file).strip_prefix(KEPT).unwrap();
        for remove in [false, true] {
            let sim = Simulation::on(sim.vfs.disk(), 1);
            if remove {
                sim.env.vfs.remove(Path::new(file)).unwrap();
            } else {
                let at = sim.vfs.file_len(Path::new(file)).unwrap() / 2;
                sim.vfs.corrupt(Path::new(file), at, 0x40).unwrap();
            }
            if remove && name.starts_with("backup") {
                assert_eq!(ids(&sim).len(), 1);
                continue;
            }
            // Without reading everything, what is missing is found.
            for full in [!remove, true] {
                let report = backups(&sim).verify(full).unwrap();
                let named = report.damages.iter().map(|damage| damage.file.as_path());
                assert!(named.into_iter().any(|found| found == name), "{file}: {report:?}");
            }
            for (id, state) in (1..).zip(&states) {
                let to = format!("{NEW}-{id}");
                match backups(&sim).restore(Some(id), &to) {
                    Ok(_) => {
                        let db = open_at(&script, &sim, &to).unwrap();
                        assert_eq!(State::of(&db).unwrap(), *state, "{file}");
                    }
                    Err(error) => {
                        assert!(error.is_corruption(), "{file}: {error}");
                        assert_eq!(error.file(), Some(name), "{error}");
                        assert_eq!(files_in(&sim, &to), Vec::<String>::new(), "{file}");
                    }
                }
            }
            let restored = (1..=2).filter(|id| !files_in(&sim, &format!("{NEW}-{id}")).is_empty());
            assert!(restored.count() < 2, "{file} is needed by one of them");
            if name.starts_with("manifest") && name.ends_with("MANIFEST-0000000000000002") {
                let error = backups(&sim).prune(1).unwrap_err();
                assert!(error.is_corruption(), "{error}");
                assert!(files_in(&sim, KEPT).len() >= files.len() - 1, "nothing was removed");
            }
        }
    }
}

#[test]
fn damage_in_the_source_is_found_while_it_is_copied() {
    let sim = Simulation::new(1);
    let db = Db::builder(ROOT).env(sim.env.clone()).open().unwrap();
    db.put("k", [7; 5000]).unwrap();
    db.flush().unwrap();
    let table = files_in(&sim, "/db/sst").remove(0);
    sim.vfs.corrupt(Path::new(&table), 200, 1).unwrap();
    let error = db.backup(KEPT).unwrap_err();
    assert!(error.is_corruption() && table.ends_with(error.file().unwrap().to_str().unwrap()));
    assert_eq!(backups(&sim).list().unwrap().backups, []);
}

#[test]
fn a_directory_that_cannot_hold_these_backups_is_refused_untouched() {
    let sim = Simulation::new(1);
    let [db, other] =
        [ROOT, "/other"].map(|at| Db::builder(at).env(sim.env.clone()).open().unwrap());
    other.backup(KEPT).unwrap();
    sim.env.vfs.create_dir(Path::new("/full")).unwrap();
    sim.env.vfs.create(Path::new("/full/letter"), 0).unwrap();
    let before = sim.vfs.files();
    for dir in ["/full", "/db", "/db/backups", "/other", KEPT] {
        let error = db.backup(dir).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{dir}: {error}");
        assert_eq!(sim.vfs.files(), before, "{dir}");
    }
    for to in [KEPT, "/kept/new", "/full"] {
        let error = backups(&sim).restore(None, to).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{to}: {error}");
    }
    assert_eq!(backups(&sim).restore(Some(7), NEW).unwrap_err().kind(), ErrorKind::NotFound);
    let none = Backups::new_in(&sim.env, "/other");
    assert_eq!(none.list().unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(sim.vfs.files(), before);
}

#[test]
fn a_closed_database_is_backed_up_read_only() {
    let script = Script::draw(&mut Draw::new(75), MemtableType::Trie, &NAMES);
    let sim = Simulation::new(1);
    let (db, state) = run(&script, &sim, 150, |_, _, _| ());
    db.close().unwrap();
    let before = files_in(&sim, ROOT);
    let db = Db::builder(ROOT).read_only(true).registry(registry());
    let db = db.env(sim.env.clone()).open().unwrap();
    db.backup(KEPT).unwrap();
    drop(db);
    assert_eq!(files_in(&sim, ROOT), before);
    backups(&sim).restore(None, NEW).unwrap();
    assert_lives(&script, &sim, NEW, &state);
}

/// A database and its checkpoint give the same numbers to different tables, and keep backups in one place.
#[test]
fn backups_of_two_that_were_one_do_not_mix() {
    let sim = Simulation::new(1);
    let open = |at: &str| Db::builder(at).env(sim.env.clone()).open().unwrap();
    let db = open(ROOT);
    db.put("k", "both").unwrap();
    db.flush().unwrap();
    db.checkpoint("/twin").unwrap();
    let twin = open("/twin");
    for (db, value) in [(&db, "this"), (&twin, "that")] {
        db.put("k", value).unwrap();
        db.compact().unwrap();
        db.backup(KEPT).unwrap();
    }
    assert_sound(&sim);
    for (id, value) in [(1, "this"), (2, "that")] {
        let to = format!("{NEW}-{id}");
        backups(&sim).restore(Some(id), &to).unwrap();
        assert_eq!(open(&to).get("k").unwrap().unwrap(), value.as_bytes()[..]);
    }
    let crashed = Simulation::on(sim.vfs.disk().crash(CrashMode::DropAll, 0), 1);
    assert_sound(&crashed);
}

#[test]
fn backups_beside_a_writer_flushes_and_compactions_are_of_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::builder(dir.path().join("data")).config(busy_config()).open().unwrap();
    let (kept, stop) = (dir.path().join("kept"), AtomicBool::new(false));
    let acked = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| write_in_step(&db, &stop, &acked));
        let _stops = Stops(&stop);
        let mut last = 0;
        for round in 0..8 {
            while acked.load(Ordering::Acquire) < last + 100 {
                std::thread::yield_now();
            }
            let before = acked.load(Ordering::Acquire);
            db.backup(&kept).unwrap();
            let after = acked.load(Ordering::Acquire);
            let to = dir.path().join(format!("new-{round}"));
            Backups::new(&kept).restore(None, &to).unwrap();
            last = number_in(&Db::builder(&to).config(busy_config()).open().unwrap());
            // One write may be done and not yet counted.
            assert!((before..=after + 1).contains(&last), "{before} {last} {after}");
            Backups::new(&kept).prune(3).unwrap();
        }
    });
    let report = Backups::new(&kept).verify(true).unwrap();
    assert!(report.damages.is_empty(), "{:?}", report.damages);
}
