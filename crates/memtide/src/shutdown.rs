//! Closing: jobs end, the log is synced and marked, the manifest says that the end is an end.
//!
//! Logged memtables are not flushed: the log holds them. Those of keyspaces without a log are.

use memtide_base::sync::atomic::Ordering;
use memtide_base::{Error, Result};

use crate::engine::Engine;
use crate::version::{Change, ClosedWal, Edit};
use crate::wal::Log;
use crate::{background, flush, write};

/// Closes the database and releases its lock, also when it fails. A second close does nothing.
pub(crate) fn close(engine: &Engine) -> Result<()> {
    {
        // Under the commit lock, so that no write is under way.
        let _commit = engine.commit.lock();
        if engine.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
    }
    engine.freed.notify();
    background::stop(engine);
    let finished = finish(engine);
    engine.bury();
    *engine.lock.lock() = None;
    finished
}

fn finish(engine: &Engine) -> Result<()> {
    if engine.manifest.lock().is_none() || engine.health.check_writable().is_err() {
        return Ok(());
    }
    for keyspace in engine.all_keyspaces().iter().filter(|keyspace| !keyspace.options().logged) {
        if !keyspace.current().active.is_empty() {
            let _commit = engine.commit.lock();
            write::rotate(engine, keyspace, None);
        }
        flush::flush(engine, keyspace)?;
    }
    let end = engine.commit.lock().as_ref().map_or(0, Log::position);
    write::sync_to(engine, end)?;
    let base = {
        let mut commit = engine.commit.lock();
        let log = commit.as_mut().ok_or_else(|| Error::internal("a writer without a log"))?;
        log.mark(end)?;
        log.writer.cut()?;
        log.writer.header().base
    };
    let mut manifest = engine.manifest.lock();
    if let Some(manifest) = manifest.as_mut() {
        manifest.append(Edit::new(vec![Change::Closed(ClosedWal { base, end })]))?;
    }
    Ok(())
}
