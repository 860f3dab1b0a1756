//! Syncing the log, going on in a new segment, and letting old ones go.

use std::time::Duration;

use memtide_base::{Error, ErrorKind, Result, SeqNo};
use memtide_env::WriteFile;

use crate::engine::Engine;
use crate::files::{self, WAL_DIR};
use crate::wal::{Segment, create_segment, segment_bytes};

/// Replaces a sealed segment by the next one. Called without the commit lock, so nothing waits for the
/// disk while holding it; writers that need room wait here.
pub(crate) fn follow(engine: &Engine) -> Result<()> {
    let _sync = engine.sync.lock();
    // Closing waits for this lock: what did not begin before must not begin at all.
    engine.check_open()?;
    let (file, header, position, wanted) = {
        let commit = engine.commit.lock();
        let Some(log) = commit.as_ref() else { return Err(read_only()) };
        if !log.sealed {
            return Ok(());
        }
        (log.writer.file(), log.writer.header().clone(), log.position(), log.wanted)
    };
    sync_file(engine, &*file, position)?;
    let base = header.base + header.segment_bytes;
    let bytes = segment_bytes(engine.settings.wal_segment_size, Some(header.segment_bytes), wanted);
    let previous = Some((header.salt, position));
    let (env, layout, settings) = (&engine.env, &engine.layout, &engine.settings);
    let writer = create_segment(env, layout, engine.uuid, settings, base, bytes, previous)
        .inspect_err(|error| engine.fail(error))?;
    let mut commit = engine.commit.lock();
    let Some(log) = commit.as_mut() else { return Err(read_only()) };
    log.follow(writer);
    let over = log.older_bytes() > engine.settings.wal_size;
    drop(commit);
    engine.freed.notify();
    if over {
        engine.wake_flush();
    }
    Ok(())
}

/// As [`follow`], by the sync job, but waits no longer than `left`; then the writer tries again.
pub(super) fn wait_for_next(engine: &Engine, left: Duration) -> Result<()> {
    let seen = engine.count_before_waiting()?;
    if engine.commit.lock().as_ref().is_some_and(|log| log.sealed) {
        engine.wake_sync();
        engine.env.executor.wait(&engine.freed, seen, Some(left));
    }
    Ok(())
}

/// Waits until every record below `lsn` is on the device. One caller syncs for all that wait; the commit
/// lock is not held meanwhile.
///
/// # Errors
/// `Indeterminate`: the writes are visible but may be lost in a power cut; the database is read-only. `Closed` if it
/// was closed and that did not sync them.
pub(crate) fn sync_to(engine: &Engine, lsn: SeqNo) -> Result<()> {
    if engine.durable_seq() >= lsn {
        return Ok(());
    }
    let _sync = engine.sync.lock();
    if engine.durable_seq() >= lsn {
        return Ok(());
    }
    let (file, position) = {
        let commit = engine.commit.lock();
        // A replay has no log yet, and no database that is closed has one.
        let Some(log) = commit.as_ref() else { return engine.check_open() };
        (log.writer.file(), log.position())
    };
    sync_file(engine, &*file, position)
}

/// Syncs the active segment; everything appended below `position` before is durable then.
fn sync_file(engine: &Engine, file: &dyn WriteFile, position: u64) -> Result<()> {
    engine.health.check_writable()?;
    match file.sync() {
        Ok(()) => {
            engine.durable.reach(position);
            Ok(())
        }
        Err(error) => {
            let error = Error::new(ErrorKind::Indeterminate, "could not sync the log")
                .with_file(WAL_DIR)
                .with_source(error)
                .with_hint("writes since the last sync may be lost; open the database again");
            engine.fail(&error);
            Err(error)
        }
    }
}

/// Removes segments that hold nothing any more: those that end at or before `start`.
pub(crate) fn release(engine: &Engine, start: u64) {
    let gone: Vec<Segment> = {
        let mut commit = engine.commit.lock();
        let Some(log) = commit.as_mut() else { return };
        let kept = log.older.partition_point(|segment| segment.end <= start);
        log.older.drain(..kept).collect()
    };
    for segment in gone {
        // Failing to is no error: the next open removes it.
        let _ = engine.env.vfs.remove(&engine.layout.at(files::wal_name(segment.base)));
    }
}

fn read_only() -> Error {
    Error::new(ErrorKind::ReadOnly, "the database was opened read-only")
}
