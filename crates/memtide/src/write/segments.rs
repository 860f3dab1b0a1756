//! Syncing the log, going on in a new segment, and letting old ones go.

use std::time::Duration;

use memtide_base::{Error, ErrorKind, Result, SeqNo};
use memtide_env::WriteFile;
use memtide_storage::log::{LogHeader, LogWriter};

use crate::engine::Engine;
use crate::files::{self, WAL_DIR};
use crate::health::Broken;
use crate::version::{Change, Edit, Manifest};
use crate::wal::{FIRST_SEGMENT_BYTES, Log, Segment, create_segment, segment_bytes};

/// Replaces a sealed segment by the next one. Called without the commit lock, so nothing waits for the
/// disk while holding it; writers that need room wait here.
pub(crate) fn follow(engine: &Engine) -> Result<()> {
    let _sync = engine.sync.lock();
    // Closing waits for this lock: what did not begin before must not begin at all.
    engine.check_open()?;
    let (file, header, position, wanted) = {
        let commit = engine.commit.lock();
        let Some(log) = commit.as_ref() else { return Err(read_only()) };
        if log.failed {
            return Err(unsure());
        }
        if !log.sealed {
            return Ok(());
        }
        (log.writer.file(), log.writer.header().clone(), log.position(), log.wanted)
    };
    if !cfg!(plant = "old_segment_unsynced") {
        sync_file(engine, &*file, position)?;
    }
    // An edit in doubt may promise the segment that is made again now.
    if engine.manifest.lock().as_ref().is_none_or(Manifest::has_failed) {
        return Err(unsure());
    }
    let writer = create_next(engine, &header, position, wanted).inspect_err(|error| {
        if error.kind() == ErrorKind::NoSpace {
            engine.note_shortage(error);
        } else {
            engine.fail(error);
        }
    })?;
    promise(engine, writer.header().base)?;
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

/// The segment behind the one with this `header`, which was synced up to `synced`. Where it finds no space it is made
/// as small as may be.
fn create_next(engine: &Engine, header: &LogHeader, synced: u64, wanted: u64) -> Result<LogWriter> {
    let base = header.base + header.segment_bytes;
    let usual = segment_bytes(engine.settings.wal_segment_size, Some(header.segment_bytes), wanted);
    let small = |bytes: u64| segment_bytes(usual.min(bytes), None, wanted);
    let previous = Some((header.salt, synced));
    let create = |bytes| {
        let (env, layout, settings) = (&engine.env, &engine.layout, &engine.settings);
        create_segment(env, layout, engine.uuid, settings, base, bytes, previous)
    };
    if engine.health.lacks_space() {
        return create(small(engine.scarce_segment_bytes()));
    }
    match create(usual) {
        Err(error) if error.kind() == ErrorKind::NoSpace && usual > small(FIRST_SEGMENT_BYTES) => {
            create(small(FIRST_SEGMENT_BYTES))
        }
        created => created,
    }
}

/// Goes on in a new segment behind one that failed. All that is logged is in tables, the manifest says that the log
/// begins behind the failed one, and nobody writes.
///
/// # Errors
/// The log is as it was; it can be tried again.
pub(crate) fn replace(engine: &Engine) -> Result<()> {
    let _sync = engine.sync.lock();
    let (header, wanted) = {
        let commit = engine.commit.lock();
        let Some(log) = commit.as_ref() else { return Err(read_only()) };
        (log.writer.header().clone(), log.wanted)
    };
    // Of what the failed one holds nothing is promised.
    let writer = create_next(engine, &header, header.base, wanted)?;
    promise(engine, writer.header().base)?;
    let start = writer.position();
    if let Some(log) = engine.commit.lock().as_mut() {
        log.follow(writer);
    }
    engine.durable.reach(start);
    Ok(())
}

/// Says durably that the segment at `base` is there, before it takes its first record: if it is missing or without its
/// header from then on, that is damage. Writers who wait for the segment wait for this sync too, others for none.
fn promise(engine: &Engine, base: u64) -> Result<()> {
    let mut manifest = engine.manifest.lock();
    let manifest = manifest.as_mut().ok_or_else(|| engine.no_manifest())?;
    let edit = Edit::new(vec![Change::SeqHigh { seq: base }]);
    manifest.append(edit).inspect_err(|error| engine.fail(error))
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
/// `Indeterminate`: the writes are visible but may be lost in a power cut before the database resumes. `Closed` if it
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
        check_log(engine, log)?;
        (log.writer.file(), log.position())
    };
    sync_file(engine, &*file, position)
}

/// Syncs the active segment; everything appended below `position` before is durable then.
fn sync_file(engine: &Engine, file: &dyn WriteFile, position: u64) -> Result<()> {
    let synced = if cfg!(plant = "sync_forgotten") { Ok(()) } else { file.sync() };
    match synced {
        Err(_) if cfg!(plant = "sync_failure_ignored") => {
            engine.durable.reach(position);
            Ok(())
        }
        Ok(()) => {
            // Behind the sync: of what went into a directory that was gone by then, nothing will be found.
            engine.check_claim().map_err(|error| {
                let what = "the log was synced, but not where the next open will look for it";
                Error::new(ErrorKind::Indeterminate, what).with_file(WAL_DIR).with_source(error)
            })?;
            engine.durable.reach(position);
            Ok(())
        }
        Err(error) => {
            if let Some(log) = engine.commit.lock().as_mut() {
                log.failed = true;
            }
            let error = unsure().with_source(error);
            engine.fail(&error);
            Err(error)
        }
    }
}

/// # Errors
/// `Indeterminate`: what the log holds beyond the last sync can only become durable by a resume, if at all.
fn check_log(engine: &Engine, log: &Log) -> Result<()> {
    let is_lost = engine.health.broken() == Some(Broken::ForGood);
    if log.failed || is_lost { Err(unsure()) } else { Ok(()) }
}

/// Whether writes that are not durable may still become so by a sync.
///
/// # Errors
/// As [`sync_to`].
pub(crate) fn check_syncs(engine: &Engine) -> Result<()> {
    if engine.health.check_running().is_ok() {
        return Ok(());
    }
    engine.commit.lock().as_ref().map_or(Ok(()), |log| check_log(engine, log))
}

fn unsure() -> Error {
    Error::new(ErrorKind::Indeterminate, "could not sync the log")
        .with_file(WAL_DIR)
        .with_hint("the writes are visible, and safe once the database has resumed")
}

/// Removes segments that hold nothing any more: those that end at or before `start`.
/// While one is captured they stay; whoever captures calls this again.
pub(crate) fn release(engine: &Engine, start: u64) {
    let gone: Vec<Segment> = {
        let mut commit = engine.commit.lock();
        let Some(log) = commit.as_mut().filter(|log| log.captures == 0) else { return };
        let kept = log.older.partition_point(|segment| {
            segment.end <= start || cfg!(plant = "segment_released_early") && segment.base < start
        });
        log.older.drain(..kept).collect()
    };
    if gone.is_empty() || engine.check_claim().is_err() {
        return;
    }
    for segment in gone {
        engine.layout.discard(&*engine.env.vfs, files::wal_name(segment.base));
    }
}

fn read_only() -> Error {
    Error::new(ErrorKind::ReadOnly, "the database was opened read-only")
}
