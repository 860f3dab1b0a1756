//! A write's way to the commit lock: alone while nobody else writes, else in a group.

use memtide_base::sync::{Arc, MutexGuard, relax};
use memtide_base::{Error, Result};

use super::commit::{Attempt, commit, gives_space};
use super::segments;
use super::wait::{Patience, Waits};
use crate::batch::{BATCH_RANGE_DELETES_MAX, BatchBody, Writes};
use crate::commit_queue::{Committed, Outcome, Request};
use crate::config::Durability;
use crate::engine::Engine;
use crate::keyspace_state::KeyspaceState;
use crate::wal::Log;

/// Bytes of a group's operations, unless its first write alone has more.
const GROUP_BYTES_MAX: usize = 1 << 20;
/// How often a writer looks whether somebody has committed for it, before it sleeps.
const ROUNDS: u32 = 64;

/// Writes as a whole; waits as long as `patience` says for what it needs before it begins. Nothing to write is
/// nothing done.
pub(crate) fn write(
    engine: &Engine,
    writes: impl Writes,
    durability: Durability,
    patience: Patience,
) -> Result<Committed> {
    engine.check_open()?;
    if let Err(refused) = engine.health.check_writable()
        && !may_go_on(engine, &writes)
    {
        return Err(refused);
    }
    let is_logged = writes.count(true) > 0;
    if !is_logged && writes.count(false) == 0 {
        let end = engine.snapshots.visible();
        return Ok(Committed { last: end.saturating_sub(1), end, is_logged: true });
    }
    debug_assert!(writes.keyspaces().iter().all(|own| is_of(engine, own)), "checked when added");
    let mut waits = Waits::new(engine, patience);
    let turn = if engine.pace.is_free() { None } else { waits.wait_for_turn(&writes)? };
    let committed = commit_in_turn(engine, writes, waits).inspect_err(|_| {
        if let Some(turn) = turn {
            turn.give_back(engine);
        }
    })?;
    if durability == Durability::Sync && is_logged && patience != Patience::None {
        segments::sync_to(engine, committed.end)?;
    }
    Ok(committed)
}

/// Whether a write is taken although not all are: one that deletes, while there is no space. The reserve goes for it.
#[cold]
fn may_go_on(engine: &Engine, writes: &impl Writes) -> bool {
    let may = engine.health.is_full() && gives_space(writes);
    if may {
        engine.reserve.release(&*engine.env.vfs, &engine.layout);
    }
    may
}

fn commit_in_turn(engine: &Engine, writes: impl Writes, mut waits: Waits<'_>) -> Result<Committed> {
    while let Some(outcome) = commit_alone(engine, &writes) {
        match outcome? {
            Outcome::Done(committed) => return Ok(committed),
            Outcome::Needs(need) => waits.wait(&need, &writes)?,
        }
    }
    while writes.bytes() > GROUP_BYTES_MAX {
        match commit_large(engine, &writes)? {
            Outcome::Done(committed) => return Ok(committed),
            Outcome::Needs(need) => waits.wait(&need, &writes)?,
        }
    }
    let request = Request::new(writes.into_batch());
    loop {
        match commit_together(engine, &request)? {
            Outcome::Done(committed) => return Ok(committed),
            Outcome::Needs(need) => waits.wait(&need, &request.batch)?,
        }
    }
}

/// Commits a write by itself; `None` if others write.
fn commit_alone(engine: &Engine, writes: &impl Writes) -> Option<Result<Outcome>> {
    if !engine.commit_queue.is_empty() {
        return None;
    }
    let mut log = engine.commit.try_lock()?;
    Some(commit_one(engine, &mut log, writes))
}

/// Commits a write that would be a group by itself once nobody else does; to queue it would be to copy it.
fn commit_large(engine: &Engine, writes: &impl Writes) -> Result<Outcome> {
    commit_one(engine, &mut engine.commit.lock(), writes)
}

fn commit_one(engine: &Engine, log: &mut Option<Log>, writes: &impl Writes) -> Result<Outcome> {
    match commit(engine, log, &[writes])? {
        Attempt::Done(each) => Ok(Outcome::Done(each[0])),
        Attempt::Needs(need) => Ok(Outcome::Needs(need)),
        Attempt::Apart => Err(Error::internal("a single write was told apart")),
    }
}

/// Queues a write until somebody has committed for it, or this writer gets the commit lock and does so for all.
fn commit_together(engine: &Engine, request: &Arc<Request>) -> Result<Outcome> {
    engine.commit_queue.join(request);
    // A commit takes less time than going to sleep and being woken.
    for round in 0..ROUNDS {
        if let Some(outcome) = request.outcome() {
            return outcome;
        }
        if let Some(log) = engine.commit.try_lock() {
            return commit_all(engine, log, request);
        }
        relax(round);
    }
    commit_all(engine, engine.commit.lock(), request)
}

/// Commits for all who wait, unless somebody has done so for `own`.
fn commit_all(
    engine: &Engine,
    mut log: MutexGuard<'_, Option<Log>>,
    own: &Request,
) -> Result<Outcome> {
    if let Some(outcome) = own.outcome() {
        return outcome;
    }
    let waiting = engine.commit_queue.take();
    let mut rest = waiting.as_slice();
    while !rest.is_empty() {
        let (group, others) = rest.split_at(group_len(rest));
        commit_group(engine, &mut log, group);
        rest = others;
    }
    // Batches may be large, and this the last to hold them.
    drop(log);
    let lost = || Error::internal("whoever committed for this write panicked");
    own.outcome().unwrap_or_else(|| Err(lost()))
}

/// How many of the first requests are one group: at least one, and together no more than one batch might be where
/// that matters.
fn group_len(requests: &[Arc<Request>]) -> usize {
    let (mut bytes, mut range_deletes) = (0, 0);
    let fits = |request: &&Arc<Request>| {
        bytes += request.batch.bytes();
        range_deletes += request.batch.range_deletes();
        bytes <= GROUP_BYTES_MAX && range_deletes <= BATCH_RANGE_DELETES_MAX
    };
    requests.iter().take_while(fits).count().max(1)
}

/// Commits for each of the requests and tells them.
fn commit_group(engine: &Engine, log: &mut Option<Log>, group: &[Arc<Request>]) {
    if let [only] = group {
        return only.settle(commit_one(engine, log, &only.batch));
    }
    let batches: Vec<&BatchBody> = group.iter().map(|request| &request.batch).collect();
    match commit(engine, log, &batches) {
        Ok(Attempt::Done(each)) => {
            let settle =
                |(request, done): (&Arc<Request>, _)| request.settle(Ok(Outcome::Done(done)));
            group.iter().zip(each).for_each(settle);
        }
        Ok(Attempt::Needs(need)) => settle_all(group, || Ok(Outcome::Needs(need.clone()))),
        Ok(Attempt::Apart) => {
            for request in group {
                request.settle(commit_one(engine, log, &request.batch));
            }
        }
        Err(error) => settle_all(group, || Err(error.again())),
    }
}

fn settle_all(group: &[Arc<Request>], outcome: impl Fn() -> Result<Outcome>) {
    group.iter().for_each(|request| request.settle(outcome()));
}

fn is_of(engine: &Engine, keyspace: &Arc<KeyspaceState>) -> bool {
    engine.keyspaces.read().get(keyspace.id).is_some_and(|own| Arc::ptr_eq(own, keyspace))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use memtide_base::ErrorKind;
    use memtide_env::{Env, Simulation};

    use super::*;
    use crate::{Config, Db, HealthState};

    const WRITERS: usize = 8;

    fn open(sim: &Simulation, memtable_bytes: u64) -> Db {
        open_in(&sim.env, Path::new("/db"), memtable_bytes)
    }

    fn open_in(env: &Env, dir: &Path, memtable_bytes: u64) -> Db {
        let config = Config {
            max_memtable_size: Some(memtable_bytes),
            memory_budget: Some(16 << 20),
            durability: Some(Durability::Buffered),
            enable_background_compaction: Some(false),
            ..Config::default()
        };
        Db::builder(dir).config(config).env(env.clone()).open().expect("opens")
    }

    fn counts(db: &Db) -> (u64, u64) {
        let stats = db.stats();
        (stats.writes, stats.write_groups)
    }

    /// Each writer makes one write, all of them while somebody else commits.
    #[expect(clippy::disallowed_methods, reason = "the writers of a program")]
    fn write_at_once<T: Send>(db: &Db, write: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let engine = db.handle.engine();
        std::thread::scope(|scope| {
            let commit = engine.commit.lock();
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let write = &write;
                    scope.spawn(move || write(writer))
                })
                .collect();
            while engine.commit_queue.len() < writers.len() {
                std::thread::yield_now();
            }
            drop(commit);
            writers.into_iter().map(|writer| writer.join().expect("no panic")).collect()
        })
    }

    #[test]
    fn whoever_waits_is_committed_with_the_others_in_one_write_to_the_log() {
        let sim = Simulation::new(1);
        let db = open(&sim, 1 << 20);
        let own = [db.default_keyspace(), db.keyspace("other").expect("made")];
        let (before, ops) = (counts(&db), sim.vfs.op_count());
        let seqs = write_at_once(&db, |writer| {
            let mut batch = db.batch();
            for keyspace in &own[..1 + writer % 2] {
                batch.put(keyspace, writer.to_be_bytes(), format!("of {writer}"));
                batch.put(keyspace, "last", format!("of {writer}"));
            }
            db.write(batch).expect("room").seqno()
        });
        assert_eq!(sim.vfs.op_count() - ops, 1);
        assert_eq!(counts(&db), (before.0 + WRITERS as u64, before.1 + 1));
        let last = (0..WRITERS).max_by_key(|&writer| seqs[writer]).expect("some");
        assert_eq!(db.get("last").expect("read"), Some(format!("of {last}").into_bytes().into()));
        drop((own, db));
        let db = open(&sim, 1 << 20);
        let rows = |name: &str| db.keyspace(name).expect("is there").iter().count();
        assert_eq!((rows("default"), rows("other")), (WRITERS + 1, WRITERS / 2 + 1));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the writers of a program")]
    fn a_large_write_waits_without_being_copied() {
        let sim = Simulation::new(7);
        let db = open(&sim, 1 << 20);
        let (engine, large) = (db.handle.engine(), vec![7; GROUP_BYTES_MAX]);
        let commit = engine.commit.lock();
        std::thread::scope(|scope| {
            let writers = [0, 1].map(|writer: u8| {
                let (db, large) = (&db, &large);
                scope.spawn(move || db.put([writer], if writer == 0 { large } else { &[][..] }))
            });
            while engine.commit_queue.is_empty() {
                std::thread::yield_now();
            }
            // The small one has queued. The large one has as long, and longer, and never does.
            for _ in 0..10_000 {
                std::thread::yield_now();
                assert!(engine.commit_queue.len() <= 1);
            }
            drop(commit);
            for writer in writers {
                writer.join().expect("no panic").expect("room");
            }
        });
        assert_eq!(db.get([0]).expect("read").expect("written"), large[..]);
        assert!(db.get([1]).expect("read").is_some());
    }

    #[test]
    fn a_group_that_fits_into_no_memtable_is_written_apart() {
        // Writers wait for merges here, and the jobs of a simulation are for one thread.
        let dir = tempfile::tempdir().expect("a directory");
        let db = open_in(&Env::real(), dir.path(), 4 << 10);
        for round in 0..20 {
            let key = |writer: usize| (round * WRITERS + writer).to_be_bytes();
            write_at_once(&db, |writer| {
                db.put(key(writer), vec![7; 900 * writer]).expect("room");
            });
            for writer in 0..WRITERS {
                let value = db.get(key(writer)).expect("read").expect("written");
                assert_eq!(value.len(), 900 * writer);
            }
        }
        let (writes, groups) = counts(&db);
        assert!(writes == 20 * WRITERS as u64 && groups <= writes, "{writes} in {groups}");
    }

    #[test]
    fn a_failed_append_fails_every_write_of_its_group_and_shows_none() {
        let sim = Simulation::new(3);
        let db = open(&sim, 1 << 20);
        sim.vfs.fail_at(sim.vfs.op_count(), std::io::ErrorKind::Other);
        write_at_once(&db, |writer| {
            let error = db.put(writer.to_be_bytes(), "v").expect_err("the device failed");
            assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::ReadOnly), "{error:?}");
        });
        assert_eq!((db.iter().count(), db.health().state), (0, HealthState::ReadOnly));
    }

    #[test]
    fn groups_are_bounded_by_bytes_but_never_empty() {
        let sim = Simulation::new(4);
        let db = open(&sim, 1 << 20);
        let keyspace = db.default_keyspace();
        let request = |bytes: usize| {
            let mut batch = BatchBody::default();
            batch.put(keyspace.state(), b"k", &vec![0; bytes]);
            Request::new(batch)
        };
        for (sizes, want) in [
            (&[10, 10, 10][..], 3),
            (&[GROUP_BYTES_MAX, 10], 1),
            (&[10, GROUP_BYTES_MAX], 1),
            (&[GROUP_BYTES_MAX / 2, GROUP_BYTES_MAX / 3, GROUP_BYTES_MAX / 3], 2),
        ] {
            let requests: Vec<_> = sizes.iter().map(|&bytes| request(bytes)).collect();
            assert_eq!(group_len(&requests), want, "{sizes:?}");
        }
    }

    /// Their fragments cost the square of their number.
    #[test]
    fn a_group_has_no_more_range_deletes_than_a_batch_may_have() {
        let sim = Simulation::new(5);
        let db = open(&sim, 1 << 20);
        let keyspace = db.default_keyspace();
        let many = |from: u32, count: u32| {
            let mut batch = db.batch();
            for at in from..from + count {
                batch.delete_range(&keyspace, at.to_be_bytes()..);
            }
            batch
        };
        let each = 1 + u32::try_from(BATCH_RANGE_DELETES_MAX / WRITERS).expect("small");
        write_at_once(&db, |writer| {
            db.write(many(1000 * u32::try_from(writer).expect("few"), each)).expect("room");
        });
        assert_eq!(counts(&db), (WRITERS as u64, 2));
    }

    #[test]
    fn a_sync_beside_a_close_that_failed_is_no_success() {
        let sim = Simulation::new(6);
        let db = open(&sim, 1 << 20);
        db.put("k", "v").expect("room");
        let end = db.handle.engine().snapshots.visible();
        let engine = Arc::clone(db.handle.engine());
        sim.vfs.fail_at(sim.vfs.op_count(), std::io::ErrorKind::Other);
        assert!(db.close().is_err());
        let error = segments::sync_to(&engine, end).expect_err("nothing was synced");
        assert_eq!(error.kind(), ErrorKind::Closed);
    }
}
