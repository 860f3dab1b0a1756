//! One moment of a database whose writers go on: the state its manifest had, the files of its log, and where they end.
//!
//! The state shares its tables and blob files with the engine, so none of them is removed while the capture lives.
//! The segments are open, so their bytes stay readable when a flush lets them go; until they are, none is let go. No
//! lock is held while files are opened; a new keyspace or a new manifest that came between is noticed afterwards, and
//! everything begins again.
//!
//! Whoever captures holds `Engine::closing` until the copy is done, so that closing waits and no other process changes
//! what is being copied.

use memtide_base::sync::Arc;
use memtide_base::{Error, Result};
use memtide_env::ReadFile;
use memtide_storage::log::{HEADER_LEN, parse_wal_file_name};

use crate::engine::Engine;
use crate::files::{self, WAL_DIR};
use crate::flush;
use crate::version::{self, ClosedWal, ManifestState};
use crate::write;

/// What a copy of the database is made from.
pub(crate) struct Capture {
    pub(crate) state: ManifestState,
    /// Oldest first.
    pub(crate) segments: Vec<OpenSegment>,
}

/// A segment of the log, open.
pub(crate) struct OpenSegment {
    pub(crate) base: u64,
    /// What of its file belongs to the moment.
    pub(crate) bytes: u64,
    pub(crate) file: Arc<dyn ReadFile>,
}

/// The database as of now: every write acknowledged before the call is in it.
///
/// # Errors
/// The database is closed; a keyspace without a log could not be flushed.
pub(crate) fn capture(engine: &Engine) -> Result<Capture> {
    engine.check_open()?;
    if engine.manifest.lock().is_none() {
        return capture_files(engine);
    }
    flush_unlogged(engine)?;
    let kept = KeptLog::of(engine)?;
    loop {
        engine.health.check_running()?;
        let (mut state, number) = manifest_state(engine)?;
        let (segments, end) = list_segments(engine)?;
        let opened: Result<Vec<_>> = segments.iter().map(|part| open(engine, *part)).collect();
        let (now, number_now) = manifest_state(engine)?;
        // A keyspace that the state lacks may be in the log; a new manifest may stand for a log that failed.
        if (now.next_keyspace, number_now) != (state.next_keyspace, number) {
            continue;
        }
        drop(kept);
        write::release(engine, now.wal_start);
        let segments = opened?;
        let base = segments.last().map_or(0, |active| active.base);
        // The next segment may be promised already, and hold nothing.
        state.seq_high = state.seq_high.min(base);
        // The end is known to the byte, so nothing that is missing there passes for a torn end.
        state.closed = Some(ClosedWal { base, end });
        return Ok(Capture { state, segments });
    }
}

/// Keeps the segments that were needed when this was made, until it is dropped.
struct KeptLog<'e>(&'e Engine);

impl<'e> KeptLog<'e> {
    fn of(engine: &'e Engine) -> Result<Self> {
        let mut commit = engine.commit.lock();
        let log = commit.as_mut().ok_or_else(|| Error::internal("a writer without a log"))?;
        log.captures += 1;
        Ok(Self(engine))
    }
}

impl Drop for KeptLog<'_> {
    fn drop(&mut self) {
        if let Some(log) = self.0.commit.lock().as_mut() {
            log.captures -= 1;
        }
    }
}

/// What no log holds goes to tables, once.
fn flush_unlogged(engine: &Engine) -> Result<()> {
    for keyspace in engine.all_keyspaces().iter().filter(|keyspace| !keyspace.is_logged()) {
        while !flush::seal_active(engine, keyspace) {
            flush::flush(engine, keyspace)?;
        }
        flush::flush(engine, keyspace)?;
    }
    Ok(())
}

/// The state, and the number of the manifest that has it.
fn manifest_state(engine: &Engine) -> Result<(ManifestState, u64)> {
    let manifest = engine.manifest.lock();
    let manifest = manifest.as_ref().ok_or_else(|| engine.no_manifest())?;
    Ok((manifest.state().clone(), manifest.number()))
}

/// Base and bytes of each segment, and the LSN behind the last write that is visible.
fn list_segments(engine: &Engine) -> Result<(Vec<(u64, u64)>, u64)> {
    let commit = engine.commit.lock();
    let log = commit.as_ref().ok_or_else(|| Error::internal("a writer without a log"))?;
    let active = log.writer.header().base;
    // Under the commit lock all that was acknowledged is visible. What a failed write left behind it is not.
    let end = engine.snapshots.visible().max(active + HEADER_LEN);
    let older = log.older.iter().map(|segment| (segment.base, segment.end - segment.base));
    Ok((older.chain([(active, end - active)]).collect(), end))
}

fn open(engine: &Engine, (base, bytes): (u64, u64)) -> Result<OpenSegment> {
    let file = engine.layout.open_read(&*engine.env.vfs, &files::wal_name(base))?;
    Ok(OpenSegment { base, bytes, file })
}

/// As [`capture`], of a database that was opened read-only: nobody writes while its lock is held.
fn capture_files(engine: &Engine) -> Result<Capture> {
    let (vfs, layout) = (&*engine.env.vfs, &engine.layout);
    let current = version::read_current(vfs, layout)?;
    let number = current.ok_or_else(|| Error::internal("an open database has a manifest"))?;
    let (state, _) = version::load(vfs, layout, number, &engine.graveyard)?;
    let found = vfs.list(&layout.at(WAL_DIR)).map_err(|error| Error::io("list", WAL_DIR, error))?;
    let bases =
        found.iter().filter_map(|entry| Some((parse_wal_file_name(&entry.name)?, entry.len)));
    let mut segments: Vec<_> = bases.collect();
    segments.sort_unstable();
    let segments = segments.into_iter().map(|part| open(engine, part)).collect::<Result<_>>()?;
    Ok(Capture { state, segments })
}
