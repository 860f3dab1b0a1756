//! What a write may wait for, and what is left to wait for once it was made.

use std::future::{Future, IntoFuture};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use memtide::{
    Batch, Commit, Config, Db, Durability, ErrorKind, MemtableType, WhenDurable, WriteOptions,
};
use memtide_env::Simulation;
use memtide_env::vfs::Disk;

const ROOT: &str = "/db";

/// Little memory, a small log, and jobs that run only when a test or a waiting writer lets them.
fn open(sim: &Simulation, kind: MemtableType, durability: Durability) -> Db {
    let mut config = Config {
        memtable_type: Some(kind.into()),
        max_memtable_size: Some(4 << 10),
        memory_budget: Some(1 << 20),
        durability: Some(durability),
        enable_background_compaction: Some(false),
        ..Config::default()
    };
    config.tree.wal_segment_size = Some(16 << 10);
    Db::builder(ROOT).config(config).env(sim.env.clone()).open().unwrap()
}

fn batch(db: &Db, key: u32) -> Batch {
    let mut batch = db.batch();
    batch.put(&db.default_keyspace(), key.to_be_bytes(), [7; 200]);
    batch
}

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_write_that_must_not_wait_is_refused_whole_and_succeeds_once_others_have_worked() {
    for kind in MemtableType::ALL {
        let sim = Simulation::new(1);
        let db = open(&sim, kind, Durability::Buffered);
        let (mut written, mut refusals) = (0, 0);
        while refusals < 10 {
            match db.try_write(batch(&db, written)) {
                Ok(_) => written += 1,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Busy, "{kind}: {error:?}");
                    assert!(db.get(written.to_be_bytes()).unwrap().is_none(), "{kind}");
                    refusals += 1;
                    let stalls = db.stats();
                    let waits = [
                        stalls.stalls_for_memory,
                        stalls.stalls_for_merges,
                        stalls.stalls_for_segments,
                    ];
                    assert!(waits.iter().all(|stall| stall.count == 0), "{kind}: {stalls:?}");
                    sim.steps.run_until_idle();
                    let retried = db.try_write(batch(&db, written));
                    assert!(retried.is_ok(), "{kind}: nothing to wait for any more: {retried:?}");
                    written += 1;
                }
            }
        }
        assert_eq!(db.iter().count(), written as usize, "{kind}");
    }
}

#[test]
fn waits_are_counted_by_what_was_waited_for() {
    let sim = Simulation::new(2);
    let db = open(&sim, MemtableType::Skiplist, Durability::Buffered);
    for key in 0..10_000 {
        db.write(batch(&db, key)).unwrap();
    }
    let stats = db.stats();
    assert!(stats.stalls_for_segments.count > 10, "{stats:?}");
    assert!(stats.stalls_for_merges.count + stats.stalls_for_memory.count > 10, "{stats:?}");
    assert_eq!(stats.writes, 10_000);
}

#[test]
fn a_write_with_a_timeout_waits_no_longer_and_leaves_nothing() {
    let sim = Simulation::new(3);
    let db = open(&sim, MemtableType::Trie, Durability::Buffered);
    for key in 0..1000 {
        db.write(batch(&db, key)).unwrap();
    }
    db.flush().unwrap();
    // A reader pins whatever is written from here on, and no flush can help.
    let mut pins = Vec::new();
    let options =
        WriteOptions { timeout: Some(Duration::from_millis(12)), ..WriteOptions::default() };
    let refused = (1000..100_000).find_map(|key| {
        pins.push(db.iter());
        pins.last_mut().unwrap().next();
        let before = sim.env.clock.now();
        let error = db.write_with(batch(&db, key), options).err()?;
        Some((key, error, sim.env.clock.now() - before))
    });
    let (key, error, waited) = refused.expect("the budget is small");
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    assert!(waited <= Duration::from_millis(13), "{waited:?}");
    assert!(db.get(key.to_be_bytes()).unwrap().is_none());
    drop(pins);
    db.write_with(batch(&db, key), options).unwrap();
}

#[test]
fn a_commit_is_awaited_without_blocking_and_one_sync_serves_all() {
    let sim = Simulation::new(4);
    let db = open(&sim, MemtableType::EnhancedSkiplist, Durability::Buffered);
    let commits: Vec<Commit> = (0..5).map(|key| db.write(batch(&db, key)).unwrap()).collect();
    assert!(commits.windows(2).all(|pair| pair[0].seqno() < pair[1].seqno()));
    assert!(commits.iter().all(|commit| !commit.is_durable()));
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    let mut waits: Vec<_> =
        commits.iter().map(|commit| Box::pin(commit.clone().into_future())).collect();
    for wait in &mut waits {
        assert!(wait.as_mut().poll(&mut context).is_pending());
    }
    let syncs = sim.vfs.op_count();
    sim.steps.run_until_idle();
    assert!(woken.0.load(Ordering::SeqCst) > 0);
    assert!(sim.vfs.op_count() - syncs <= 2, "a sync and the mark that says so");
    for wait in &mut waits {
        assert!(matches!(wait.as_mut().poll(&mut context), Poll::Ready(Ok(()))));
    }
    assert!(commits.iter().all(Commit::is_durable));
    let last = db.write(batch(&db, 9)).unwrap();
    last.wait().unwrap();
    assert!(last.is_durable());
}

#[test]
fn a_commit_of_a_device_that_fails_or_a_database_that_closes_is_decided() {
    let waker = Waker::from(Arc::new(Woken::default()));
    let mut context = Context::from_waker(&waker);
    for fails in [true, false] {
        let sim = Simulation::new(5);
        let db = open(&sim, MemtableType::Vector, Durability::Buffered);
        let commit = db.write(batch(&db, 1)).unwrap();
        let mut wait = pin!(commit.clone().into_future());
        assert!(wait.as_mut().poll(&mut context).is_pending());
        if fails {
            // The sync, and the first attempt to resume.
            for op in 0..2 {
                sim.vfs.fail_at(sim.vfs.op_count() + op, io::ErrorKind::Other);
            }
            sim.steps.run_until_idle();
            let Poll::Ready(Err(error)) = wait.poll(&mut context) else { panic!("undecided") };
            assert_eq!(error.kind(), ErrorKind::Indeterminate, "{error:?}");
            assert_eq!(commit.wait().unwrap_err().kind(), ErrorKind::Indeterminate);
            sim.clock.advance(Duration::from_secs(1));
            sim.steps.run_until_idle();
            assert!(commit.is_durable());
            commit.wait().unwrap();
            let later = pin!(commit.into_future());
            assert!(matches!(later.poll(&mut context), Poll::Ready(Ok(()))));
        } else {
            db.close().unwrap();
            assert!(matches!(wait.poll(&mut context), Poll::Ready(Ok(()))));
            commit.wait().unwrap();
        }
    }
}

/// At level `Sync` a write that must not wait is visible at once and durable when its commit says so.
#[test]
fn a_write_that_must_not_wait_does_not_wait_for_the_device_either() {
    let sim = Simulation::new(6);
    let db = open(&sim, MemtableType::LinkedList, Durability::Sync);
    let before = sim.vfs.op_count();
    let commit = db.try_write(batch(&db, 1)).unwrap();
    assert_eq!(sim.vfs.op_count() - before, 1, "one write to the log and no sync");
    assert!(!commit.is_durable() && db.get(1_u32.to_be_bytes()).unwrap().is_some());
    commit.wait().unwrap();
    assert!(commit.is_durable() && db.durable_seq() > commit.seqno());
    assert!(db.write(batch(&db, 2)).unwrap().is_durable());
}

/// Whoever fails, a future that waits for the log is told.
#[test]
fn a_commit_is_decided_when_something_else_than_the_log_fails() {
    let sim = Simulation::new(7);
    let db = open(&sim, MemtableType::Sorted, Durability::Buffered);
    let commit = db.write(batch(&db, 1)).unwrap();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    let mut wait = pin!(commit.into_future());
    assert!(wait.as_mut().poll(&mut context).is_pending());
    sim.vfs.fail_at(sim.vfs.op_count(), io::ErrorKind::Other);
    assert!(db.keyspace("new").is_err(), "the manifest failed");
    sim.steps.run_until_idle();
    assert!(woken.0.load(Ordering::SeqCst) > 0);
    assert!(matches!(wait.poll(&mut context), Poll::Ready(Ok(()))), "the log is as good as ever");
}

/// A task that owns the database and waits for one of its commits.
struct Task(Mutex<Option<(Db, WhenDurable)>>);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let owned = self.0.lock().unwrap().take();
        drop(owned);
    }
}

#[test]
fn a_waker_may_drop_the_last_handle() {
    let sim = Simulation::new(8);
    let db = open(&sim, MemtableType::Trie, Durability::Buffered);
    let mut wait = db.write(batch(&db, 1)).unwrap().into_future();
    let task = Arc::new(Task(Mutex::new(None)));
    let waker = Waker::from(Arc::clone(&task));
    assert!(pin!(&mut wait).poll(&mut Context::from_waker(&waker)).is_pending());
    *task.0.lock().unwrap() = Some((db, wait));
    sim.steps.run_until_idle();
    assert!(task.0.lock().unwrap().is_none());
    let db = open(&sim, MemtableType::Trie, Durability::Buffered);
    assert!(db.get(1_u32.to_be_bytes()).unwrap().is_some());
}

#[test]
fn a_waker_that_panics_keeps_nobody_else_from_being_told() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker of the test's own");
        }
    }
    let sim = Simulation::new(8);
    let db = open(&sim, MemtableType::Trie, Durability::Buffered);
    let woken = Arc::new(Woken::default());
    let wakers =
        [Waker::from(Arc::clone(&woken)), Arc::new(Panics).into(), Arc::clone(&woken).into()];
    let mut waits: Vec<_> =
        (0..3).map(|key| db.write(batch(&db, key)).unwrap().into_future()).collect();
    for (wait, waker) in waits.iter_mut().zip([&wakers[0], &wakers[1], &wakers[2]]) {
        assert!(pin!(wait).poll(&mut Context::from_waker(waker)).is_pending());
    }
    // The two of one task are told once, the first before the panic.
    let late = Arc::new(Woken::default());
    let late_waker = Waker::from(Arc::clone(&late));
    assert!(pin!(&mut waits[2]).poll(&mut Context::from_waker(&late_waker)).is_pending());
    sim.steps.run_until_idle();
    assert_eq!((woken.0.load(Ordering::SeqCst), late.0.load(Ordering::SeqCst)), (1, 1));
    assert_eq!(db.health().state, memtide::HealthState::Healthy);
}

#[test]
fn what_no_log_has_is_not_durable_by_a_sync() {
    let sim = Simulation::new(9);
    let mut config = Config { durability: Some(Durability::Buffered), ..Config::default() };
    config.set("keyspace.u.durability", "none").unwrap();
    let db = Db::builder(ROOT).config(config).env(sim.env.clone()).open().unwrap();
    let unlogged = db.keyspace("u").unwrap();
    let mut both = batch(&db, 1);
    both.put(&unlogged, "k", "v");
    let commit = db.write(both).unwrap();
    commit.wait().unwrap();
    assert!(!commit.is_durable() && db.durable_seq() > commit.seqno());
    assert!(db.write_with(batch(&db, 2), Durability::Sync).unwrap().is_durable());
}

#[test]
fn a_panic_in_the_midst_of_a_commit_stops_the_writes_and_shows_nothing() {
    let sim = Simulation::new(10);
    let db = open(&sim, MemtableType::Skiplist, Durability::Buffered);
    db.put("before", "all was well").unwrap();
    sim.vfs.set_observer(Some(Box::new(|_, _, _: &Disk| panic!("a disk that panics"))));
    let write = || db.put("during", "half");
    assert!(catch_unwind(AssertUnwindSafe(write)).is_err());
    sim.vfs.set_observer(None);
    assert_eq!(db.put("after", "no").unwrap_err().kind(), ErrorKind::ReadOnly);
    assert!(db.get("during").unwrap().is_none() && db.get("before").unwrap().is_some());
    let disk = sim.vfs.disk();
    drop(db);
    let db = open(&Simulation::on(disk, 1), MemtableType::Skiplist, Durability::Buffered);
    assert_eq!(db.iter().count(), 1, "neither the write that panicked nor the one after it");
}
