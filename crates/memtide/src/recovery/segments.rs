//! The log segments that an open finds: made durable, checked against each other and the manifest, ready to
//! be replayed.
//!
//! # Which segments are needed
//! From the newest one on that begins at or before the manifest's `wal_start`. Older ones are left behind by
//! removals that were not durable when the power went; they may have holes between them.
//!
//! # Durable before it is believed
//! What is replayed is shown to readers and may be flushed, so it must survive the next power cut. Older
//! segments are only synced; the newest gets its own bytes again where a failed sync may have dropped them.

use std::path::Path;

use memtide_base::{Error, Result};
use memtide_env::{Env, Vfs};
use memtide_storage::log::{
    LogHeader, LogKind, LogReader, MINOR_WHOLE, Opened, SEGMENT_BYTES_MAX, parse_wal_file_name,
};

use super::OpenMode;
use super::directory::list;
use crate::files::{self, Layout, WAL_DIR};
use crate::version::ManifestState;

const PAGE: u64 = 4096;
const PAGE_LEN: usize = 4096;

/// The log segments of a database, checked against each other, oldest first.
pub(crate) struct Segments {
    pub(crate) readers: Vec<(LogReader, u64)>,
    pub(super) older: Vec<SegmentInfo>,
}

#[derive(Clone, Debug)]
pub(super) struct SegmentInfo {
    pub(super) header: LogHeader,
    pub(super) bytes: u64,
}

pub(crate) fn open_segments(
    env: &Env,
    layout: &Layout,
    state: &ManifestState,
    mode: OpenMode,
) -> Result<Segments> {
    let vfs = &*env.vfs;
    let found = list(vfs, layout, WAL_DIR)?;
    let mut bases: Vec<(u64, u64)> = found
        .iter()
        .filter_map(|entry| Some((parse_wal_file_name(&entry.name)?, entry.len)))
        .collect();
    bases.sort_unstable();
    let (mut readers, mut older) = (Vec::new(), Vec::new());
    let newest = bases.last().map(|(base, _)| *base);
    for (base, bytes) in bases {
        let name = files::wal_name(base);
        if bytes > SEGMENT_BYTES_MAX {
            let detail = format!("it has {bytes} B, more than a segment can have");
            return Err(Error::corruption("log", name, SEGMENT_BYTES_MAX, detail));
        }
        if mode != OpenMode::ReadOnly {
            let sure_to = match state.closed {
                Some(closed) if newest == Some(base) => closed.end.saturating_sub(base),
                None if newest == Some(base) => 0,
                _ => bytes,
            };
            make_durable(vfs, &layout.at(&name), sure_to)
                .map_err(|error| Error::io("sync", &name, error))?;
        }
        match LogReader::open(vfs, &layout.at(&name), &name)? {
            Opened::Torn { bytes } => {
                // Only a segment that was being created may be like that, and it was never used.
                if newest != Some(base) || bytes > PAGE || base <= state.seq_high {
                    let detail = "its header does not read back";
                    return Err(Error::corruption("log header", name, 0, detail));
                }
            }
            Opened::Log(reader) => {
                let header = reader.header().clone();
                check_segment(&header, base, &name, state)?;
                check_length(&header, bytes, newest == Some(base), &name, state)?;
                older.push(SegmentInfo { header, bytes });
                readers.push((*reader, bytes));
            }
        }
    }
    // Removals of segments become durable in any order, so holes before the first one needed mean nothing.
    let needed = older.iter().rposition(|segment| segment.header.prev_end <= state.wal_start);
    readers.drain(..needed.unwrap_or_default());
    older.drain(..needed.unwrap_or_default());
    check_chain(state, &older)?;
    for (at, (reader, _)) in readers.iter_mut().enumerate() {
        if let Some(next) = older.get(at + 1) {
            reader.expect_end(next.header.prev_end);
        } else if let Some(closed) =
            state.closed.filter(|closed| closed.base == reader.header().base)
        {
            reader.expect_end(closed.end);
        } else if reader.header().base + reader.header().segment_bytes > state.wal_start {
            // The log is synced up to what is flushed before a table counts. A segment that failed owes nothing.
            let logged = state.keyspaces.iter().filter(|keyspace| keyspace.options.logged);
            let flushed = logged.map(|keyspace| keyspace.flushed_to).max();
            reader.expect_durable(flushed.unwrap_or_default());
        }
    }
    Ok(Segments { readers, older })
}

/// Sees to it that what is replayed is there after the next power cut as well.
///
/// If a sync of the file failed since the machine started, its pages may be shown and yet never be written
/// by any later sync, unless they are written again. Of the segments that are needed only the newest can be like that,
/// from `sure_to` on: no segment follows one whose sync failed, except through here, or once tables hold all of it.
fn make_durable(vfs: &dyn Vfs, path: &Path, sure_to: u64) -> std::io::Result<()> {
    let (file, shown) = (vfs.open_write(path)?, vfs.open_read(path)?);
    let len = if cfg!(plant = "recovery_trusts_the_cache") { 0 } else { shown.len()? };
    let mut page = [0; PAGE_LEN];
    for at in (sure_to / PAGE * PAGE..len).step_by(PAGE_LEN) {
        let left = usize::try_from(len - at).unwrap_or(PAGE_LEN);
        let piece = &mut page[..left.min(PAGE_LEN)];
        shown.read_exact_at(piece, at)?;
        // The unused end of the segment stays unwritten.
        if piece.iter().any(|byte| *byte != 0) {
            file.write_at(piece, at)?;
        }
    }
    if cfg!(plant = "recovery_unsynced") {
        return Ok(());
    }
    file.sync()
}

fn check_segment(header: &LogHeader, base: u64, name: &Path, state: &ManifestState) -> Result<()> {
    let wrong = |detail: &str| Err(Error::corruption("log header", name, 0, detail));
    if header.kind != LogKind::Wal || header.base != base {
        return wrong("it belongs to another file");
    }
    if header.db_uuid != state.uuid {
        return wrong("it belongs to another database");
    }
    Ok(())
}

/// A segment is as long as it was made until the database is closed; after that the manifest or the next segment says
/// where it ends.
fn check_length(
    header: &LogHeader,
    bytes: u64,
    is_newest: bool,
    name: &Path,
    state: &ManifestState,
) -> Result<()> {
    let (base, span) = (header.base, header.segment_bytes);
    let was_whole = header.minor >= MINOR_WHOLE
        && is_newest
        && base <= state.seq_high
        && state.closed.is_none_or(|closed| closed.base != base);
    if bytes > span || (was_whole && bytes < span) {
        let detail = format!("it has {bytes} B, its header says {span} B");
        return Err(Error::corruption("log", name, bytes.min(span), detail));
    }
    Ok(())
}

/// No segment that the manifest needs is missing, neither at the ends nor between.
fn check_chain(state: &ManifestState, segments: &[SegmentInfo]) -> Result<()> {
    let missing = |detail: String| Err(Error::corruption("log", WAL_DIR, 0, detail));
    for pair in segments.windows(2) {
        if pair[1].header.prev_salt != pair[0].header.salt {
            let (a, b) = (pair[0].header.base, pair[1].header.base);
            return missing(format!("a segment between {a:016x}.wal and {b:016x}.wal is missing"));
        }
    }
    let begins = segments.first().map_or(0, |oldest| oldest.header.prev_end);
    if begins > state.wal_start {
        let needed = state.wal_start;
        return missing(format!("the log begins at {begins}, it is needed from {needed} on"));
    }
    let newest = segments.last().map(|segment| segment.header.base);
    let needed = state.closed.map_or(state.seq_high, |closed| closed.base.max(state.seq_high));
    if needed > 0 && newest.is_none_or(|base| base < needed) {
        return missing(format!("segment {needed:016x}.wal is missing"));
    }
    Ok(())
}
