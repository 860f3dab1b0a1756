//! Closing: jobs end, the log is synced and marked, the manifest says that the end is an end.
//!
//! Logged memtables are not flushed: the log holds them. Those of keyspaces without a log are.

use memtide_base::sync::atomic::Ordering;
use memtide_base::{Error, ErrorKind, Result};

use crate::engine::Engine;
use crate::version::{Change, ClosedWal, Edit};
use crate::wal::Log;
use crate::{background, flush, write};

/// Closes the database and releases its lock, also when it fails. A second close waits for the first and does
/// nothing.
pub(crate) fn close(engine: &Engine) -> Result<()> {
    let closing = engine.closing.lock();
    {
        // Under the commit lock, so that no write is under way.
        let _commit = engine.commit.lock();
        if engine.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
    }
    engine.freed.notify();
    background::stop(engine);
    // Upkeep that callers asked for has begun and ends before the lock is released, or never begins.
    for keyspace in engine.all_keyspaces() {
        drop(keyspace.reshape.lock());
        drop(keyspace.upkeep.lock());
    }
    drop(engine.sync.lock());
    drop(engine.mending.lock());
    let finished = finish(engine);
    engine.bury();
    // Whoever still holds a handle can write nothing into files that may have another owner soon.
    *engine.commit.lock() = None;
    *engine.manifest.lock() = None;
    engine.layout.release();
    drop(closing);
    engine.durable.wake();
    finished
}

fn finish(engine: &Engine) -> Result<()> {
    if engine.manifest.lock().is_none() {
        return Ok(());
    }
    if let Err(stopped) = engine.health.check_running() {
        return failed_before(engine, &stopped);
    }
    // The log is closed whether or not this works: it holds the writes of others.
    let flushed =
        if cfg!(plant = "unlogged_left_behind") { Ok(()) } else { flush_unlogged(engine) };
    let closed = close_log(engine);
    flushed.and(closed)
}

/// Flushes what no log holds.
fn flush_unlogged(engine: &Engine) -> Result<()> {
    for keyspace in engine.all_keyspaces().iter().filter(|keyspace| !keyspace.is_logged()) {
        while !flush::seal_active(engine, keyspace) {
            flush::flush_sealed(engine, keyspace)?;
        }
        flush::flush_sealed(engine, keyspace)?;
    }
    Ok(())
}

/// Syncs and marks the log, then says in the manifest where it ends.
fn close_log(engine: &Engine) -> Result<()> {
    let end = engine.commit.lock().as_ref().map_or(0, Log::position);
    write::sync_to(engine, end)?;
    let base = {
        let mut commit = engine.commit.lock();
        let log = commit.as_mut().ok_or_else(|| Error::internal("a writer without a log"))?;
        log.mark(end)?;
        log.writer.header().base
    };
    if let Some(manifest) = engine.manifest.lock().as_mut() {
        manifest.append(Edit::new(vec![Change::Closed(ClosedWal { base, end })]))?;
    }
    // Not before: a segment that is shorter than it was made has lost its end, unless the manifest says where that is.
    engine.commit.lock().as_mut().map_or(Ok(()), |log| log.writer.cut())
}

/// What closing says after a failure: acknowledged writes may be lost unless all of them are durable.
fn failed_before(engine: &Engine, reason: &Error) -> Result<()> {
    let end = engine.commit.lock().as_ref().map_or(0, Log::position);
    // Only the manifest may have failed.
    write::sync_to(engine, end).map_err(|_| {
        let what = format!("closed without syncing the last writes: {reason}");
        Error::new(ErrorKind::Indeterminate, what)
    })
}
