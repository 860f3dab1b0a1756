//! The log of a rescue: its sound records, each at the LSN it had, with skips over what is lost.

use std::path::{Path, PathBuf};

use memtide_base::sync::Arc;
use memtide_base::{Error, Result, SeqNo};
use memtide_env::ReadFile;
use memtide_storage::log::{
    BatchOps, HEADER_LEN, LogHeader, LogKind, LogReader, LogWriter, Opened, RECORD_HEADER_LEN,
    RecordKind, SEGMENT_BYTES_MAX,
};

use super::found::Found;
use super::{Keep, Loss, Rescue};
use crate::files;
use crate::version::ClosedWal;

const PAGE: u64 = 4096;
const PAGE_LEN: usize = 4096;
const RECORD_MIN: u64 = RECORD_HEADER_LEN as u64;

/// What the new manifest says of the log.
pub(super) struct NewLog {
    pub(super) start: u64,
    /// Where it ends; `None` if there is none.
    pub(super) closed: Option<ClosedWal>,
}

/// A segment of the source.
struct Segment {
    base: u64,
    name: PathBuf,
    header: Option<LogHeader>,
    file: Arc<dyn ReadFile>,
    bytes: u64,
}

impl Segment {
    /// No record of it lies there or behind.
    fn reaches_to(&self, next: Option<&Self>) -> u64 {
        let span = self.header.as_ref().map_or(SEGMENT_BYTES_MAX, |header| header.segment_bytes);
        next.map_or(self.base.saturating_add(span.max(self.bytes)), |next| next.base)
    }
}

/// Where the new log ends.
#[derive(Default)]
struct End {
    salt: u64,
    lsn: u64,
    base: u64,
}

impl Rescue<'_> {
    /// Brings the log over.
    pub(super) fn log(&mut self, found: &mut Found) -> Result<NewLog> {
        let segments = self.segments(found)?;
        let mut end = End::default();
        let mut reached = found.wal_start;
        let mut is_whole = true;
        let begins =
            segments.first().map(|first| first.header.as_ref().map_or(first.base, |h| h.prev_end));
        let is_known = found.state.is_some();
        if let Some(begins) = begins.filter(|begins| is_known && *begins > reached) {
            self.lose(files::WAL_DIR, reached, begins, "segments of the log are missing");
            is_whole = false;
        }
        for (at, segment) in segments.iter().enumerate() {
            let next = segments.get(at + 1);
            let before = at.checked_sub(1).map(|before| &segments[before]);
            let is_chained = match (before.and_then(|b| b.header.as_ref()), &segment.header) {
                (Some(before), Some(header)) => header.prev_salt == before.salt,
                _ => true,
            };
            if !is_chained {
                self.lose(files::WAL_DIR, reached, segment.base, "segments of the log are missing");
                is_whole = false;
            }
            if !is_whole && self.keep == Keep::Whole {
                self.lose(
                    &segment.name,
                    segment.base,
                    segment.reaches_to(next),
                    "it lies behind damage",
                );
                continue;
            }
            let expected =
                next.and_then(|next| next.header.as_ref()).map_or(0, |header| header.prev_end);
            let closed =
                found.closed.filter(|closed| next.is_none() && closed.base == segment.base);
            let expected = closed.map_or(expected, |closed| closed.end);
            is_whole &= self.segment(found, segment, next, expected, &mut end)?;
            reached = reached.max(expected).max(end.lsn);
        }
        let needed = found.closed.map_or(found.seq_high, |closed| closed.base.max(found.seq_high));
        if needed > 0 && segments.last().is_none_or(|last| last.base < needed) {
            let to = found.closed.map_or(needed, |closed| closed.end);
            self.lose(files::WAL_DIR, needed, to, "the newest segment of the log is missing");
        }
        // The first record that is kept may lie behind what the manifest needed.
        let closed = (end.base > 0).then_some(ClosedWal { base: end.base, end: end.lsn });
        Ok(NewLog { start: found.wal_start, closed })
    }

    fn lose(&mut self, file: impl AsRef<Path>, from: SeqNo, to: SeqNo, what: &str) {
        let seqs = Some((from, to.saturating_sub(1).max(from)));
        let file = file.as_ref().to_path_buf();
        self.report.lost.push(Loss {
            file,
            keyspace: None,
            keys: None,
            seqs,
            what: what.to_owned(),
        });
    }

    /// The segments that may hold what no table holds, oldest first.
    fn segments(&self, found: &Found) -> Result<Vec<Segment>> {
        let mut segments = Vec::new();
        for (base, name) in &found.segments {
            let file = self.from.open_read(&*self.env.vfs, name)?;
            let bytes = file.len().map_err(|error| Error::io("measure", name, error))?;
            let header = match LogReader::of_file(Arc::clone(&file), name) {
                Ok(Opened::Log(reader)) => Some(reader.header().clone()),
                Ok(Opened::Torn { .. }) => None,
                Err(error) if error.is_corruption() => None,
                Err(error) => return Err(error),
            };
            let is_ours = |header: &LogHeader| {
                header.kind == LogKind::Wal && header.base == *base && header.db_uuid == found.uuid
            };
            let header = header.filter(is_ours);
            segments.push(Segment { base: *base, name: name.clone(), header, file, bytes });
        }
        let is_needed_from = |segment: &Segment| {
            segment.header.as_ref().is_some_and(|header| header.prev_end <= found.wal_start)
        };
        let first = segments.iter().rposition(is_needed_from);
        segments.drain(..first.unwrap_or_default());
        Ok(segments)
    }

    /// Brings one segment over; whether nothing of it is lost.
    fn segment(
        &mut self,
        found: &mut Found,
        segment: &Segment,
        next: Option<&Segment>,
        expected: u64,
        end: &mut End,
    ) -> Result<bool> {
        let name = &segment.name;
        let span_end = next.map_or(u64::MAX, |next| next.base);
        let Some(mut reader) = self.reader(segment, next)? else {
            // One that was being created holds nothing.
            let was_used = found.closed.is_some_and(|closed| closed.base >= segment.base)
                || segment.base <= found.seq_high;
            let is_new = next.is_none() && segment.bytes <= PAGE && !was_used;
            if !is_new {
                let to = expected.max(segment.reaches_to(next));
                self.lose(name, segment.base, to, "its header is damaged");
            }
            return Ok(is_new);
        };
        let is_readable = segment.header.is_some();
        if !is_readable && self.keep == Keep::Whole {
            let to = expected.max(segment.reaches_to(next));
            self.lose(name, segment.base, to, "its header is damaged");
            return Ok(false);
        }
        let bytes = segment.header.as_ref().map_or(0, |header| header.segment_bytes);
        let bytes =
            if bytes > 0 { bytes } else { segment.bytes.max(PAGE + 1).next_multiple_of(PAGE) };
        let header = LogHeader {
            kind: LogKind::Wal,
            db_uuid: found.uuid,
            salt: self.env.random.next_u64(),
            base: segment.base,
            segment_bytes: bytes.min(span_end - segment.base).min(SEGMENT_BYTES_MAX),
            prev_salt: end.salt,
            prev_end: end.lsn,
            created_ms: self.env.clock.wall_ms(),
            required_features: 0,
            minor: 0,
        };
        let (salt, to) = (header.salt, files::wal_name(segment.base));
        let mut writer = LogWriter::create(&*self.env.vfs, &self.to.at(&to), &to, header, 0)?;
        reader.set_tolerant(true);
        reader.expect_durable(expected);
        let (mut is_whole, mut is_behind_damage) = (is_readable, !is_readable);
        loop {
            while let Some(record) = reader.next()? {
                if record.kind != RecordKind::Batch {
                    continue;
                }
                let (lsn, count) = (record.lsn, record.count);
                if is_sound(found, record.payload, count)? && skip_to(&mut writer, lsn)? {
                    writer.append(RecordKind::Batch, count, record.payload, 0)?;
                    self.report.batches_kept += 1;
                } else {
                    is_whole = false;
                    self.lose(name, lsn, record.end_lsn, "a batch is not what a writer writes");
                }
            }
            let Some(stopped) = reader.end() else { break };
            let (lsn, is_damaged) = (stopped.lsn, stopped.damage.is_some());
            let why = stopped.damage.as_ref().map_or(String::new(), ToString::to_string);
            if !is_damaged && !is_behind_damage {
                break;
            }
            is_whole &= !is_damaged;
            if self.keep == Keep::Whole {
                self.lose(name, lsn, expected.max(segment.reaches_to(next)), &why);
                break;
            }
            is_behind_damage = true;
            match reader.skip_damage()? {
                Some(lost) => self.lose(name, lost.start, lost.end, &why),
                None => {
                    if is_damaged {
                        let to = expected.max(segment.reaches_to(next)).max(lsn + 1);
                        self.lose(name, lsn, to, &why);
                    }
                    break;
                }
            }
        }
        // Only the header that is lost would say where this one had to end.
        let ends_anywhere = match next {
            Some(next) => next.header.is_none(),
            None => segment.header.is_none() && expected == 0,
        };
        if ends_anywhere {
            let to = segment.reaches_to(next);
            self.lose(name, writer.position(), to, "it may have ended later");
            is_whole = false;
        }
        writer.sync()?;
        *end = End { salt, lsn: writer.position(), base: segment.base };
        Ok(is_whole)
    }

    /// Reads a segment, also one whose header is damaged, if its salt can be found.
    fn reader(&self, segment: &Segment, next: Option<&Segment>) -> Result<Option<LogReader>> {
        let (file, name) = (|| Arc::clone(&segment.file), &segment.name);
        if segment.header.is_some() {
            return match LogReader::of_file(file(), name)? {
                Opened::Log(reader) => Ok(Some(*reader)),
                Opened::Torn { .. } => Ok(None),
            };
        }
        if segment.bytes < PAGE {
            return Ok(None);
        }
        let mut page = [0; PAGE_LEN];
        let read = segment.file.read_exact_at(&mut page, 0);
        read.map_err(|error| Error::io("read", name, error))?;
        let stored = page[48..56].first_chunk().map(|salt| u64::from_le_bytes(*salt));
        let mended = LogHeader::decode_mended(name, &page).map(|header| header.salt);
        let told = next.and_then(|next| next.header.as_ref()).map(|header| header.prev_salt);
        for salt in [told, mended, stored].into_iter().flatten() {
            let header = LogHeader {
                kind: LogKind::Wal,
                db_uuid: [0; 16],
                salt,
                base: segment.base,
                segment_bytes: SEGMENT_BYTES_MAX,
                prev_salt: 0,
                prev_end: 0,
                created_ms: 0,
                required_features: 0,
                minor: 0,
            };
            let mut probe = LogReader::with_header(file(), name, header.clone())?;
            if probe.next()?.is_some() || probe.skip_damage()?.is_some() {
                return LogReader::with_header(file(), name, header).map(Some);
            }
        }
        Ok(None)
    }
}

/// Whether a batch is what a writer writes; its keyspaces are there then, if no manifest says which there are.
fn is_sound(found: &mut Found, payload: &[u8], count: u32) -> Result<bool> {
    let mut ids = Vec::new();
    for op in BatchOps::new(payload, count) {
        let Ok(op) = op else { return Ok(false) };
        if ids.last() != Some(&op.keyspace) {
            ids.push(op.keyspace);
        }
    }
    for id in ids {
        if found.name_of(id).is_none() {
            if found.state.is_some() {
                return Ok(false);
            }
            found.keyspace(id)?;
        }
    }
    Ok(true)
}

/// Covers the LSNs up to `lsn`; `false` if they are too few for a record.
fn skip_to(writer: &mut LogWriter, lsn: u64) -> Result<bool> {
    let Some(gap) = lsn.checked_sub(writer.position()) else { return Ok(false) };
    if gap == 0 {
        return Ok(true);
    }
    let count = gap.checked_sub(RECORD_MIN).and_then(|count| u32::try_from(count).ok());
    let Some(count) = count.filter(|_| writer.fits(gap)) else { return Ok(false) };
    writer.append(RecordKind::Skip, count, &[], 0)?;
    Ok(true)
}

const _: () = assert!(HEADER_LEN == PAGE, "a page");
