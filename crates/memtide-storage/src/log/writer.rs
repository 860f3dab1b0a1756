//! Appends records to a new log file.
//!
//! Invariants
//! - Records are staged, then go to the file in one `write_at`: of a group a reader of a live log sees the first
//!   ones, each whole and checksummed.
//! - The position is behind what is staged. A failed write moves it back to where it was; the file is dead then and
//!   every later call fails, as `WriteFile` promises.
//! - No record crosses the end of a segment; fewer than 24 bytes left there are passed over.
//!
//! It takes no lock and never syncs by itself: whoever shares it locks around `append`, or from the first `stage`
//! to the `write`, and syncs through [`LogWriter::file`] without that lock. Nothing is ever appended to a log that
//! was opened for reading.

use std::io;
use std::path::{Path, PathBuf};

use memtide_base::sync::Arc;
use memtide_base::{Error, Result};
use memtide_env::{Vfs, WriteFile};

use super::format::{HEADER_LEN, LogHeader, LogKind};
use super::record::{
    RECORD_HEADER_BYTES, RECORD_HEADER_LEN, RecordHeader, RecordKind, checksum, durable_delta,
    record_len,
};
use super::window::index;

/// The encode buffer is given back after a record larger than this.
const BUFFER_KEPT_BYTES_MAX: usize = 1 << 20;

/// LSNs behind a skip that are written as zeros, to go on with the same write.
const GAP_BYTES_MAX: u64 = 4 << 10;

/// A log file being written.
#[derive(Debug)]
pub struct LogWriter {
    file: Arc<dyn WriteFile>,
    name: PathBuf,
    header: LogHeader,
    position: u64,
    /// What is staged, from the LSN `staged_from` on.
    buffer: Vec<u8>,
    staged_from: u64,
}

impl LogWriter {
    /// Creates the file at `path`, with `prealloc` bytes allocated ahead, and writes its header page, which
    /// is durable after the first sync. `name` is what errors call the file.
    ///
    /// # Errors
    /// Whatever [`Vfs::create`] says; `Internal` for a header that contradicts itself.
    pub fn create(
        vfs: &dyn Vfs,
        path: &Path,
        name: &Path,
        header: LogHeader,
        prealloc: u64,
    ) -> Result<Self> {
        Self::create_with(name, header, || vfs.create(path, prealloc))
    }

    /// As [`LogWriter::create`]; records go through a map of the file where that is safe, of which `window` bytes are
    /// there at once, as [`Vfs::create_mapped`] says.
    ///
    /// # Errors
    /// As [`LogWriter::create`].
    pub fn create_mapped(
        vfs: &dyn Vfs,
        path: &Path,
        name: &Path,
        header: LogHeader,
        prealloc: u64,
        window: u64,
    ) -> Result<Self> {
        Self::create_with(name, header, || vfs.create_mapped(path, prealloc, window))
    }

    fn create_with(
        name: &Path,
        header: LogHeader,
        create: impl FnOnce() -> io::Result<Box<dyn WriteFile>>,
    ) -> Result<Self> {
        if let Some(what) = header.contradiction() {
            return Err(Error::internal(format!("log header: {what}")).with_file(name));
        }
        let file = create().map_err(|error| Error::io("create", name, error))?;
        file.write_at(&header.encode(), 0).map_err(|error| Error::io("write to", name, error))?;
        let position = header.base + HEADER_LEN;
        let (file, name) = (Arc::from(file), name.to_path_buf());
        Ok(Self { file, name, header, position, buffer: Vec::new(), staged_from: position })
    }

    /// The header the file was created with.
    #[must_use]
    pub fn header(&self) -> &LogHeader {
        &self.header
    }

    /// What errors call the file.
    #[must_use]
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// The LSN of the next record: base plus file offset. Equal to [`LogWriter::end`] when full.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The LSN behind the segment; `u64::MAX` for a manifest.
    #[must_use]
    pub fn end(&self) -> u64 {
        match self.header.kind {
            LogKind::Wal => self.header.base + self.header.segment_bytes,
            LogKind::Manifest => u64::MAX,
        }
    }

    /// LSNs that a record with `payload_len` bytes and `count` sequence numbers covers.
    #[must_use]
    pub fn record_len(payload_len: usize, count: u32) -> u64 {
        record_len(payload_len, count)
    }

    /// Whether a record of `len` LSNs fits behind the last one.
    #[must_use]
    pub fn fits(&self, len: u64) -> bool {
        u32::try_from(len).is_ok() && len <= self.end() - self.position
    }

    /// Appends one record and returns its LSN: [`LogWriter::stage`] and [`LogWriter::write`] in one.
    ///
    /// # Errors
    /// A failed write, after which the file is dead; what [`LogWriter::stage`] refuses, and nothing was written then.
    pub fn append(
        &mut self,
        kind: RecordKind,
        count: u32,
        payload: &[u8],
        durable: u64,
    ) -> Result<u64> {
        let lsn = self.stage(kind, count, payload.len(), durable, |out| {
            out.extend_from_slice(payload);
        })?;
        self.write()?;
        Ok(lsn)
    }

    /// Readies one record for the next [`LogWriter::write`] and returns its LSN; behind a long skip, what is staged is
    /// written first. `encode` appends its payload,
    /// `payload_len` bytes. `durable` is the LSN below which everything is known to have been synced; it lets
    /// recovery tell damage from a torn tail.
    ///
    /// A [`RecordKind::Skip`] has no payload and covers LSNs for `count` sequence numbers; with count 0 it
    /// is the marker written after a sync. A [`RecordKind::Pad`] fills the segment up to its end.
    ///
    /// # Errors
    /// `Internal` if the record does not fit (ask [`LogWriter::fits`] first) or a skip or pad has a payload, and
    /// what is staged is as before; as [`LogWriter::write`].
    pub fn stage(
        &mut self,
        kind: RecordKind,
        count: u32,
        payload_len: usize,
        durable: u64,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u64> {
        let len = match kind {
            RecordKind::Pad => self.end() - self.position,
            _ => record_len(payload_len, count),
        };
        let least = RECORD_HEADER_BYTES + u64::from(count);
        let lsn = self.position;
        let (true, Ok(short_len)) = (len >= least && self.fits(len), u32::try_from(len)) else {
            return Err(self.misuse(&format!("a record of {len} bytes does not fit at lsn {lsn}")));
        };
        if kind.is_header_only() && payload_len > 0 {
            return Err(self.misuse("a skip or pad with a payload"));
        }
        let header = RecordHeader {
            len: short_len,
            kind: kind as u8,
            flags: 0,
            count,
            durable_delta: durable_delta(lsn, durable),
            checksum: 0,
        };
        let staged_to = self.staged_from + self.buffer.len() as u64;
        if !self.buffer.is_empty() && lsn - staged_to > GAP_BYTES_MAX {
            self.write()?;
        }
        self.encode(header, payload_len, encode);
        self.position += len;
        if self.end() - self.position < RECORD_HEADER_BYTES {
            self.position = self.end();
        }
        Ok(lsn)
    }

    /// Writes what is staged; nothing if nothing is.
    ///
    /// # Errors
    /// A failed write. The file is dead; recovery may find the first ones of the staged records.
    pub fn write(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        // Taken first, so that nothing stays staged whatever happens.
        let mut staged = std::mem::take(&mut self.buffer);
        let written = self.file.write_at(&staged, self.staged_from - self.header.base);
        if staged.capacity() <= BUFFER_KEPT_BYTES_MAX {
            staged.clear();
            self.buffer = staged;
        }
        written.map_err(|error| {
            self.position = self.staged_from;
            Error::io("append to", &self.name, error)
        })
    }

    /// Makes everything appended so far durable. After a failure the file is dead.
    ///
    /// # Errors
    /// Whatever [`WriteFile::sync`] says.
    pub fn sync(&self) -> Result<()> {
        self.file.sync().map_err(|error| Error::io("sync", &self.name, error))
    }

    /// The file, so that a sync need not hold the lock around this writer.
    #[must_use]
    pub fn file(&self) -> Arc<dyn WriteFile> {
        Arc::clone(&self.file)
    }

    /// Cuts the file behind its last record. Durable after the next sync.
    ///
    /// # Errors
    /// Whatever [`WriteFile::set_len`] says.
    pub fn cut(&self) -> Result<()> {
        let len = self.position - self.header.base;
        self.file.set_len(len).map_err(|error| Error::io("cut", &self.name, error))
    }

    fn encode(
        &mut self,
        mut header: RecordHeader,
        payload_len: usize,
        payload: impl FnOnce(&mut Vec<u8>),
    ) {
        if self.buffer.is_empty() {
            self.staged_from = self.position;
        }
        // Behind a skip lie LSNs without bytes.
        let start = index(self.position - self.staged_from);
        let stored_len = index(header.stored_len().into());
        let seed = self.header.salt ^ self.position;
        self.buffer.reserve(start + stored_len - self.buffer.len());
        self.buffer.resize(start, 0);
        self.buffer.extend_from_slice(&header.encode(seed));
        payload(&mut self.buffer);
        let announced = start + RECORD_HEADER_LEN + payload_len;
        assert_eq!(self.buffer.len(), announced, "a payload is as long as announced");
        self.buffer.resize(start + stored_len, 0);
        let record = &mut self.buffer[start..];
        header.checksum = checksum(seed, record);
        record[RECORD_HEADER_LEN - 8..RECORD_HEADER_LEN]
            .copy_from_slice(&header.checksum.to_le_bytes());
    }

    fn misuse(&self, what: &str) -> Error {
        Error::internal(format!("{what} in {}", self.name.display())).with_file(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing::{MemVfs, manifest_header, wal_header};
    use memtide_base::ErrorKind;

    fn create(vfs: &MemVfs, header: LogHeader) -> LogWriter {
        LogWriter::create(vfs, Path::new("/db/a"), Path::new("a"), header, 0).unwrap()
    }

    #[test]
    fn lsns_are_contiguous_and_a_full_segment_refuses_more() {
        let vfs = MemVfs::default();
        let mut log = create(&vfs, wal_header(8192, 8192));
        assert_eq!((log.position(), log.end()), (12288, 16384));
        assert_eq!(log.append(RecordKind::Batch, 1, b"12345678", 0).unwrap(), 12288);
        assert_eq!(log.append(RecordKind::Skip, 100, b"", 0).unwrap(), 12320);
        assert_eq!(log.position(), 12448);
        assert!(log.fits(3936) && !log.fits(3944));
        let refused = log.append(RecordKind::Batch, 1, &[0; 3920], 0).unwrap_err();
        assert_eq!((refused.kind(), log.position()), (ErrorKind::Internal, 12448));
        log.append(RecordKind::Batch, 1, &[7; 3900], 0).unwrap();
        assert_eq!(log.position(), log.end(), "8 bytes were left, too few for any record");
        assert!(!log.fits(24) && log.append(RecordKind::Pad, 0, b"", 0).is_err());
        log.cut().unwrap();
        assert_eq!(vfs.bytes("/db/a").len(), 8192);
    }

    #[test]
    fn a_pad_takes_what_is_left() {
        let vfs = MemVfs::default();
        let mut log = create(&vfs, wal_header(0, 8192));
        log.append(RecordKind::Pad, 0, b"", 0).unwrap();
        assert_eq!(log.position(), 8192);
        assert_eq!(vfs.bytes("/db/a").len(), 4096 + 24, "only the header is stored");
    }

    #[test]
    fn what_no_record_can_be_is_refused_without_writing() {
        let vfs = MemVfs::default();
        let mut log = create(&vfs, manifest_header());
        assert!(log.append(RecordKind::Skip, 0, b"x", 0).is_err(), "a skip stores nothing");
        assert!(log.append(RecordKind::Skip, u32::MAX, b"", 0).is_err(), "longer than 32 bits");
        assert!(log.append(RecordKind::Pad, 0, b"", 0).is_err(), "a manifest has no end");
        assert_eq!((log.position(), vfs.bytes("/db/a").len()), (4096, 4096));
        let impossible = wal_header(1, 8192);
        let path = Path::new("/db/b");
        let refused = LogWriter::create(&vfs, path, Path::new("b"), impossible, 0).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Internal);
    }

    #[test]
    fn the_bytes_of_a_record_are_fixed() {
        let vfs = MemVfs::default();
        let salt = 0x0123_4567_89AB_CDEF;
        let mut log = create(&vfs, LogHeader { salt, ..wal_header(0, 8192) });
        let mut payload = Vec::new();
        let kind = memtide_base::Kind::Put;
        crate::log::BatchOp { kind, keyspace: 0, key: b"tide", value: b"high" }
            .encode(&mut payload);
        log.append(RecordKind::Batch, 1, &payload, 4096).unwrap();
        log.append(RecordKind::Skip, 0, b"", 4136).unwrap();
        let bytes = vfs.bytes("/db/a");
        let hex: String = bytes[4096..].iter().map(|byte| format!("{byte:02x}")).collect();
        let batch =
            "2800000001001c4001000000000000002e618b8f0fd7000901000404746964656869676800000000";
        let marker = "1800000003002843000000000000000077880518e1786130";
        assert_eq!(hex, format!("{batch}{marker}"), "docs/format/log.md shows the same bytes");
    }

    #[test]
    fn what_is_staged_together_is_one_write_of_the_same_bytes() {
        let records: [(RecordKind, u32, &[u8]); 5] = [
            (RecordKind::Batch, 1, b"1"),
            (RecordKind::Skip, 100, b""),
            (RecordKind::Batch, 3, b"one two three"),
            (RecordKind::Batch, 50, b"short"),
            (RecordKind::Skip, 7, b""),
        ];
        let vfs = MemVfs::default();
        let mut single = create(&vfs, wal_header(0, 8192));
        let path = Path::new("/db/b");
        let mut group = LogWriter::create(&vfs, path, path, wal_header(0, 8192), 0).unwrap();
        for (kind, count, payload) in records {
            let lsn = single.append(kind, count, payload, 4096).unwrap();
            let encode = |out: &mut Vec<u8>| out.extend_from_slice(payload);
            assert_eq!(group.stage(kind, count, payload.len(), 4096, encode).unwrap(), lsn);
        }
        group.write().unwrap();
        group.write().unwrap();
        assert_eq!((vfs.writes("/db/a"), vfs.writes("/db/b")), (1 + records.len(), 2));
        assert_eq!(group.position(), single.position());
        assert_eq!(vfs.bytes("/db/b"), vfs.bytes("/db/a"));
    }

    #[test]
    fn what_lies_behind_a_long_skip_is_not_written() {
        let vfs = MemVfs::default();
        let mut log = create(&vfs, wal_header(0, 1 << 20));
        for (kind, count, payload) in [
            (RecordKind::Batch, 1, &b"first"[..]),
            (RecordKind::Skip, 500_000, b""),
            (RecordKind::Batch, 1, b"last"),
        ] {
            let encode = |out: &mut Vec<u8>| out.extend_from_slice(payload);
            log.stage(kind, count, payload.len(), 0, encode).unwrap();
            assert!(log.buffer.len() < 100);
        }
        log.write().unwrap();
        assert_eq!(vfs.writes("/db/a"), 3, "the header and two pieces");
        assert!(vfs.bytes("/db/a").len() > 500_000);
    }

    #[test]
    fn a_failed_write_names_the_file_and_leaves_the_position() {
        let vfs = MemVfs::default();
        let mut log = create(&vfs, manifest_header());
        vfs.fail_writes("/db/a");
        let error = log.append(RecordKind::Meta, 1, b"edit", 0).unwrap_err();
        assert_eq!(error.to_string(), "could not append to a");
        assert_eq!(log.position(), 4096);
        assert!(log.sync().is_err() && log.file().sync().is_err());
    }
}
