//! The log as the commit path uses it: the active segment, those before it, syncing, and the step from one
//! segment to the next.
//!
//! A segment is followed by another only after it was synced to its end, so `prev_end` in the next header is
//! a promise: if the segment's records end earlier, that is damage. Sizes grow from 1 MiB by four up to the
//! configured size, so that a small database has a small log.

use memtide_base::sync::atomic::Ordering;
use memtide_base::{Error, ErrorKind, Result, SeqNo};
use memtide_env::WriteFile;
use memtide_storage::log::{
    HEADER_LEN, LogHeader, LogKind, LogWriter, RecordKind, SEGMENT_BYTES_MAX,
};

use crate::engine::Engine;
use crate::files::{self, WAL_DIR};

const FIRST_SEGMENT_BYTES: u64 = 1 << 20;
const SEGMENT_GROWTH: u64 = 4;
const PAGE: u64 = 4096;

/// A segment that takes no more records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// LSN of its first byte.
    pub(crate) base: u64,
    /// LSN behind its last record.
    pub(crate) end: u64,
    /// Bytes of its file.
    pub(crate) bytes: u64,
}

/// The log being written. Whoever holds it holds the commit lock.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) writer: LogWriter,
    /// Full or recovered segments, oldest first.
    pub(crate) older: Vec<Segment>,
    /// The active segment is about to be followed by another; nothing may be appended.
    sealed: bool,
    /// A record of at least this size must fit into the next segment.
    wanted: u64,
    /// Position behind the last idle mark.
    marked: u64,
}

impl Log {
    /// A log whose active segment is empty.
    pub(crate) fn new(writer: LogWriter, older: Vec<Segment>) -> Self {
        let marked = writer.position();
        Self { writer, older, sealed: false, wanted: 0, marked }
    }

    /// LSN of the next record.
    pub(crate) fn position(&self) -> u64 {
        self.writer.position()
    }

    /// Whether a record of `len` LSNs can be appended now; if not, the segment is sealed for
    /// [`follow`] to replace.
    pub(crate) fn admits(&mut self, len: u64) -> bool {
        if self.sealed || !self.writer.fits(len) {
            self.sealed = true;
            self.wanted = self.wanted.max(len);
        }
        !self.sealed
    }

    /// Bytes of all segments, the unused end of the active one not counted.
    pub(crate) fn bytes(&self) -> u64 {
        let active = self.writer.position() - self.writer.header().base;
        active + self.older.iter().map(|segment| segment.bytes).sum::<u64>()
    }

    pub(crate) fn segment_count(&self) -> usize {
        self.older.len() + 1
    }

    /// Says that everything before was synced, once per sync, when nothing was appended since.
    pub(crate) fn mark(&mut self, durable: u64) -> Result<()> {
        let position = self.writer.position();
        if position > self.marked && durable >= position && self.admits(RECORD_MIN) {
            self.writer.append(RecordKind::Skip, 0, &[], position)?;
            self.marked = self.writer.position();
        }
        Ok(())
    }
}

/// LSNs of an empty record.
const RECORD_MIN: u64 = 24;

/// Size of a segment that follows one of `previous` bytes and must take a record of `wanted` LSNs.
pub(crate) fn segment_bytes(max: u64, previous: Option<u64>, wanted: u64) -> u64 {
    let grown = previous.map_or(FIRST_SEGMENT_BYTES, |bytes| bytes.saturating_mul(SEGMENT_GROWTH));
    let needed = (wanted + HEADER_LEN).next_multiple_of(PAGE);
    grown.min(max).next_multiple_of(PAGE).max(needed).min(SEGMENT_BYTES_MAX)
}

/// Creates the segment at `base`, durable with its name, ready for records.
pub(crate) fn create_segment(
    engine_env: &memtide_env::Env,
    layout: &files::Layout,
    uuid: [u8; 16],
    base: u64,
    bytes: u64,
    previous: Option<(u64, u64)>,
) -> Result<LogWriter> {
    let (prev_salt, prev_end) = previous.unwrap_or_default();
    let header = LogHeader {
        kind: LogKind::Wal,
        db_uuid: uuid,
        salt: engine_env.random.next_u64(),
        base,
        segment_bytes: bytes,
        prev_salt,
        prev_end,
        created_ms: engine_env.clock.wall_ms(),
        required_features: 0,
        minor: 0,
    };
    let name = files::wal_name(base);
    let vfs = &*engine_env.vfs;
    let writer = LogWriter::create(vfs, &layout.at(&name), &name, header, bytes)?;
    writer.sync()?;
    layout.sync_dir(vfs, WAL_DIR)?;
    Ok(writer)
}

/// Replaces a sealed segment by the next one. Called without the commit lock, so nothing waits for the
/// disk while holding it; writers that need room wait here.
pub(crate) fn follow(engine: &Engine) -> Result<()> {
    let _sync = engine.sync.lock();
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
    let writer = create_segment(&engine.env, &engine.layout, engine.uuid, base, bytes, previous)
        .inspect_err(|error| engine.health.fail(error))?;
    let mut commit = engine.commit.lock();
    let Some(log) = commit.as_mut() else { return Err(read_only()) };
    log.older.push(Segment { base: header.base, end: position, bytes: position - header.base });
    log.marked = writer.position();
    log.writer = writer;
    log.sealed = false;
    log.wanted = 0;
    let over = log.bytes() > engine.settings.wal_size;
    drop(commit);
    if over {
        engine.wake_flush();
    }
    Ok(())
}

/// Waits until every record below `lsn` is on the device. One caller syncs for all that wait; the commit
/// lock is not held meanwhile.
///
/// # Errors
/// `Indeterminate`: the writes are visible but may be lost in a power cut; the database is read-only.
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
        let Some(log) = commit.as_ref() else { return Ok(()) };
        (log.writer.file(), log.position())
    };
    sync_file(engine, &*file, position)
}

/// Syncs the active segment; everything appended below `position` before is durable then.
fn sync_file(engine: &Engine, file: &dyn WriteFile, position: u64) -> Result<()> {
    engine.health.check_writable()?;
    match file.sync() {
        Ok(()) => {
            // Release pairs with the Acquire in `durable_seq`.
            engine.durable.fetch_max(position, Ordering::Release);
            Ok(())
        }
        Err(error) => {
            let error = Error::new(ErrorKind::Indeterminate, "could not sync the log")
                .with_file(WAL_DIR)
                .with_source(error)
                .with_hint("writes since the last sync may be lost; open the database again");
            engine.health.fail(&error);
            engine.freed.notify();
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
