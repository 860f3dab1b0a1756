//! The log of an open database: the active segment and those before it.
//!
//! A segment is followed by another only after it was synced to its end, so `prev_end` in the next header is
//! a promise: if the segment's records end earlier, that is damage. One that failed is followed by another only after
//! all it holds is in tables and nobody reads it any more; `prev_end` then promises nothing of it. Sizes grow from
//! 1 MiB by four up to the configured size, so that a small database has a small log.

use memtide_base::{Error, Result};
use memtide_env::Env;
use memtide_storage::log::{
    HEADER_LEN, LogHeader, LogKind, LogWriter, MINOR_WHOLE, RecordKind, SEGMENT_BYTES_MAX,
};

use crate::config::{Settings, WalSink};
use crate::files::{self, Layout, WAL_DIR};

pub(crate) const FIRST_SEGMENT_BYTES: u64 = 1 << 20;
const SEGMENT_GROWTH: u64 = 4;
const PAGE: u64 = 4096;
/// What of the log is mapped is resident beside the memory budget: at most this part of it.
const WINDOW_SHARE: u64 = 32;
/// LSNs of an empty record.
const RECORD_MIN: u64 = 24;

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
    pub(crate) sealed: bool,
    /// A record of at least this size must fit into the next segment.
    pub(crate) wanted: u64,
    /// An append or a sync of the active segment failed: it is never written to or synced again.
    pub(crate) failed: bool,
    /// Captures under way: while there is one no segment is let go.
    pub(crate) captures: usize,
    /// Position behind the last idle mark.
    marked: u64,
    /// Writes since the database was opened, and the groups they were appended in.
    pub(crate) writes: u64,
    pub(crate) groups: u64,
}

impl Log {
    /// A log whose active segment is empty.
    pub(crate) fn new(writer: LogWriter, older: Vec<Segment>) -> Self {
        let marked = writer.position();
        let (sealed, wanted, failed, captures) = (false, 0, false, 0);
        Self { writer, older, sealed, wanted, failed, captures, marked, writes: 0, groups: 0 }
    }

    /// LSN of the next record.
    pub(crate) fn position(&self) -> u64 {
        self.writer.position()
    }

    /// Whether `len` LSNs can be appended now.
    pub(crate) fn would_admit(&self, len: u64) -> bool {
        !self.sealed && self.writer.fits(len)
    }

    /// Counts a group of writes that was appended.
    pub(crate) fn count_group(&mut self, writes: usize) {
        self.writes += writes as u64;
        self.groups += 1;
    }

    /// Whether records of `len` LSNs can be appended now; if not, the segment is sealed for
    /// the commit path to replace.
    pub(crate) fn admits(&mut self, len: u64) -> bool {
        if !self.would_admit(len) {
            self.sealed = true;
            self.wanted = self.wanted.max(len);
        }
        !self.sealed
    }

    /// Goes on in `writer`; the segment before takes no more.
    pub(crate) fn follow(&mut self, writer: LogWriter) {
        let (base, end) = (self.writer.header().base, self.position());
        self.older.push(Segment { base, end, bytes: end - base });
        self.marked = writer.position();
        self.writer = writer;
        self.sealed = false;
        self.wanted = 0;
        self.failed = false;
    }

    /// LSN behind all that the active segment could take.
    pub(crate) fn span_end(&self) -> u64 {
        let header = self.writer.header();
        header.base + header.segment_bytes
    }

    /// Bytes of all segments, the unused end of the active one not counted.
    pub(crate) fn bytes(&self) -> u64 {
        let active = self.writer.position() - self.writer.header().base;
        active + self.older.iter().map(|segment| segment.bytes).sum::<u64>()
    }

    /// Bytes of the segments that flushing can release.
    pub(crate) fn older_bytes(&self) -> u64 {
        self.older.iter().map(|segment| segment.bytes).sum()
    }

    /// How records get into the active segment.
    pub(crate) fn sink(&self) -> WalSink {
        if self.writer.file().is_mapped() { WalSink::Mapped } else { WalSink::File }
    }

    pub(crate) fn segment_count(&self) -> usize {
        self.older.len() + 1
    }

    /// Says that everything before was synced, once per sync, when nothing was appended since.
    pub(crate) fn mark(&mut self, durable: u64) -> Result<()> {
        let position = self.writer.position();
        if position > self.marked && durable >= position && self.admits(RECORD_MIN) {
            let appended = self.writer.append(RecordKind::Skip, 0, &[], position);
            self.failed |= appended.is_err();
            appended?;
            self.marked = self.writer.position();
        }
        Ok(())
    }
}

/// Size of a segment that follows one of `previous` bytes and must take a record of `wanted` LSNs.
pub(crate) fn segment_bytes(max: u64, previous: Option<u64>, wanted: u64) -> u64 {
    let grown = previous.map_or(FIRST_SEGMENT_BYTES, |bytes| bytes.saturating_mul(SEGMENT_GROWTH));
    let needed = (wanted + HEADER_LEN).next_multiple_of(PAGE);
    grown.min(max).next_multiple_of(PAGE).max(needed).min(SEGMENT_BYTES_MAX)
}

/// Creates the segment at `base`, durable with its name, ready for records.
pub(crate) fn create_segment(
    env: &Env,
    layout: &Layout,
    uuid: [u8; 16],
    settings: &Settings,
    base: u64,
    bytes: u64,
    previous: Option<(u64, u64)>,
) -> Result<LogWriter> {
    let (prev_salt, prev_end) = previous.unwrap_or_default();
    let header = LogHeader {
        kind: LogKind::Wal,
        db_uuid: uuid,
        salt: env.random.next_u64(),
        base,
        segment_bytes: bytes,
        prev_salt,
        prev_end,
        created_ms: env.clock.wall_ms(),
        required_features: 0,
        minor: MINOR_WHOLE,
    };
    let name = files::wal_name(base);
    let (vfs, path) = (&*env.vfs, layout.at(&name));
    // What an attempt that failed, or was cut off by a crash, left of this segment has this name at most.
    match vfs.remove(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("remove", &name, error));
        }
        _ => {}
    }
    let window = settings.memory_budget / WINDOW_SHARE;
    let writer = match settings.wal_sink {
        WalSink::File => LogWriter::create(vfs, &path, &name, header, bytes)?,
        WalSink::Mapped => LogWriter::create_mapped(vfs, &path, &name, header, bytes, window)?,
    };
    if !cfg!(plant = "log_header_unsynced") {
        writer.sync()?;
    }
    if !cfg!(plant = "log_name_unsynced") {
        layout.sync_dir(vfs, WAL_DIR)?;
    }
    Ok(writer)
}
