//! Reads the records of a log back, and says how it ends.
//!
//! Three ends are told apart. *Clean*: nothing but zeros behind the last record. *Torn tail*: bytes that are
//! no valid record, and nothing says that they were ever synced; they are what a crash leaves, and are
//! dropped. *Damage*: the same, but a later record or the caller (see [`LogReader::expect_durable`]) proves
//! that valid records had been there.
//!
//! Invariants
//! - A record is handed out only after both its checksums held.
//! - Memory is one read-ahead or the largest record, never more than the file's length.
//! - An error leaves the reader where it was: the next call meets the same bytes again.

use std::path::Path;

use memtide_base::sync::Arc;
use memtide_base::{Error, ErrorKind, Result};
use memtide_env::{ReadFile, Vfs};

use super::format::{
    HEADER_LEN, LogHeader, PAGE_LEN, is_whole, parse_wal_file_name, stored_base, stored_salt,
};
use super::record::{
    FLAG_COMPRESSED, KIND_IGNORABLE, RECORD_HEADER_BYTES, RECORD_HEADER_LEN, RecordHeader,
    RecordKind,
};
use super::tail::{self, Flaw, Space};
use super::window::{Window, index};

/// What [`LogReader::open`] found.
#[derive(Debug)]
pub enum Opened {
    /// A log with a sound header.
    Log(Box<LogReader>),
    /// The header page never became whole, and nothing in the file proves that it was ever synced.
    ///
    /// That is what a crash leaves of a file just created. Whether it may be here is the engine's to know.
    Torn {
        /// Bytes up to the last one that is not zero.
        bytes: u64,
    },
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its position, and the number of its first write.
    pub lsn: u64,
    /// What it is for.
    pub kind: RecordKind,
    /// Sequence numbers it takes.
    pub count: u32,
    /// The payload and up to seven zeros behind it; empty for pad and skip.
    pub payload: &'a [u8],
    /// The LSN of the next record.
    pub end_lsn: u64,
}

/// How a log ends.
#[derive(Debug)]
pub struct LogEnd {
    /// LSN where valid records end.
    pub lsn: u64,
    /// Bytes from there to the last one in the file that is not zero.
    pub torn_bytes: u64,
    /// Damage, where a tolerant reader stopped.
    pub damage: Option<Error>,
}

/// A log file being read, from the first record on.
#[derive(Debug)]
pub struct LogReader {
    window: Window,
    header: LogHeader,
    space: Space,
    /// File offset of the next record.
    at: u64,
    durable: u64,
    /// LSN that no record lies at or behind.
    ends_at: u64,
    tolerant: bool,
    end: Option<LogEnd>,
}

impl LogReader {
    /// Opens the file at `path` and reads its header; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`LogHeader::decode`], except that a header page that never became whole is [`Opened::Torn`];
    /// whatever the operating system says.
    pub fn open(vfs: &dyn Vfs, path: &Path, name: &Path) -> Result<Opened> {
        let file = vfs.open_read(path).map_err(|error| Error::io("open", name, error))?;
        Self::of_file(file, name)
    }

    /// As [`LogReader::open`], for a file that is open.
    ///
    /// # Errors
    /// As [`LogReader::open`].
    pub fn of_file(file: Arc<dyn ReadFile>, name: &Path) -> Result<Opened> {
        let mut window = Window::new(file, name)?;
        let mut page = [0; PAGE_LEN];
        let have = index(window.len().min(HEADER_LEN));
        page[..have].copy_from_slice(window.bytes(0, have)?);
        if have < PAGE_LEN || !is_whole(&page) {
            return Self::open_without_header(window, &page);
        }
        let header = LogHeader::decode(name, &page)?;
        let space = Space { base: header.base, salt: header.salt, end: header.end_offset() };
        Ok(Opened::Log(Box::new(Self {
            window,
            header,
            space,
            at: HEADER_LEN,
            durable: 0,
            ends_at: u64::MAX,
            tolerant: false,
            end: None,
        })))
    }

    /// The page is torn or damaged. If its salt survived, a record that says the start of this file was
    /// synced still validates, and then it is damage.
    fn open_without_header(mut window: Window, page: &[u8; PAGE_LEN]) -> Result<Opened> {
        let base = parse_wal_file_name(window.name()).unwrap_or_else(|| stored_base(page));
        let space = Space { base, salt: stored_salt(page), end: u64::MAX };
        let tail = tail::search(&mut window, space, 0, base)?;
        match tail.proof {
            None => Ok(Opened::Torn { bytes: tail.used_to }),
            Some(proof) => {
                let detail = format!("its checksum does not match, and {proof}");
                Err(Error::corruption("log header", window.name(), 0, detail))
            }
        }
    }

    /// The file's header.
    #[must_use]
    pub fn header(&self) -> &LogHeader {
        &self.header
    }

    /// Everything below `lsn` is known to have been synced: if valid records end before it, that is damage.
    pub fn expect_durable(&mut self, lsn: u64) {
        self.durable = self.durable.max(lsn);
    }

    /// The records are known to end at `lsn`: if they end before it, or one lies across it, that is damage; what lies
    /// behind it was never part of the log and is not looked at.
    pub fn expect_end(&mut self, lsn: u64) {
        self.expect_durable(lsn);
        self.ends_at = lsn;
    }

    /// Whether to end at damage and remember it in [`LogEnd::damage`], instead of failing.
    pub fn set_tolerant(&mut self, tolerant: bool) {
        self.tolerant = tolerant;
    }

    /// The next record; `None` at the end, which [`LogReader::end`] then describes. Records of unknown kinds
    /// that are marked ignorable are passed over.
    ///
    /// # Errors
    /// `Corruption` for damage; `Unsupported` for a record this version cannot read; whatever the operating
    /// system says.
    #[expect(
        clippy::should_implement_trait,
        reason = "records borrow the reader's buffer, which no Iterator can lend"
    )]
    pub fn next(&mut self) -> Result<Option<Record<'_>>> {
        let Some((kind, header, at)) = self.advance()? else {
            return Ok(None);
        };
        let record = self.window.buffered(at, index(header.stored_len().into()));
        Ok(Some(Record {
            lsn: self.space.lsn_at(at),
            kind,
            count: header.count,
            payload: record.get(RECORD_HEADER_LEN..).unwrap_or_default(),
            end_lsn: self.space.lsn_at(self.at),
        }))
    }

    /// Reads a file whose header page is damaged as if `header` stood there.
    ///
    /// # Errors
    /// Whatever the operating system says.
    pub fn with_header(file: Arc<dyn ReadFile>, name: &Path, header: LogHeader) -> Result<Self> {
        let window = Window::new(file, name)?;
        let space = Space { base: header.base, salt: header.salt, end: header.end_offset() };
        let (at, durable, tolerant, end, ends_at) = (HEADER_LEN, 0, true, None, u64::MAX);
        Ok(Self { window, header, space, at, durable, tolerant, end, ends_at })
    }

    /// Goes on behind damage, where the next valid record lies; the LSNs that were passed over. `None` if no valid
    /// record follows. For who wants to keep what can be kept: an ordinary reader takes damage for an error.
    ///
    /// # Errors
    /// Whatever the operating system says.
    pub fn skip_damage(&mut self) -> Result<Option<std::ops::Range<u64>>> {
        let stop = self.at;
        let Some(found) = tail::next_record(&mut self.window, self.space, stop + 8)? else {
            return Ok(None);
        };
        (self.at, self.end) = (found, None);
        Ok(Some(self.space.lsn_at(stop)..self.space.lsn_at(found)))
    }

    /// How the log ends, once [`LogReader::next`] returned `None`.
    #[must_use]
    pub fn end(&self) -> Option<&LogEnd> {
        self.end.as_ref()
    }

    fn advance(&mut self) -> Result<Option<(RecordKind, RecordHeader, u64)>> {
        while self.end.is_none() {
            let at = self.at;
            if self.space.lsn_at(at) >= self.ends_at {
                self.stop(0, None)?;
                break;
            }
            if self.space.end - at < RECORD_HEADER_BYTES {
                self.at = self.space.end;
                self.finish(Flaw::Cut)?;
                break;
            }
            match self.space.probe(&mut self.window, at)? {
                Err(flaw) => self.finish(flaw)?,
                Ok(header) => {
                    if self.space.lsn_at(at) + u64::from(header.len) > self.ends_at {
                        let detail = format!("it crosses lsn {}, where the log ends", self.ends_at);
                        self.stop(0, Some(self.damage(&detail)))?;
                        break;
                    }
                    let kind = self.understand(&header)?;
                    if self.end.is_some() {
                        break;
                    }
                    self.at = at + u64::from(header.len);
                    if let Some(kind) = kind {
                        return Ok(Some((kind, header, at)));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The kind of a valid record, `None` to pass over it.
    fn understand(&mut self, header: &RecordHeader) -> Result<Option<RecordKind>> {
        let kind = RecordKind::from_byte(header.kind);
        if kind.is_none() && header.kind & KIND_IGNORABLE != 0 {
            return Ok(None);
        }
        if header.flags & !FLAG_COMPRESSED != 0 {
            let detail = format!("a valid checksum over unknown flags {:#04x}", header.flags);
            let tail = tail::search(&mut self.window, self.space, self.at, u64::MAX)?;
            self.stop(tail.used_to - self.at, Some(self.damage(&detail)))?;
            return Ok(None);
        }
        if header.flags & FLAG_COMPRESSED != 0 {
            return Err(self.unsupported("a compressed record"));
        }
        match kind {
            Some(kind) => Ok(Some(kind)),
            None => Err(self.unsupported(&format!("a record of kind {}", header.kind))),
        }
    }

    /// Valid records end here, because of `flaw`: decides what that means.
    fn finish(&mut self, flaw: Flaw) -> Result<()> {
        let stop = self.space.lsn_at(self.at);
        let tail = tail::search(&mut self.window, self.space, self.at, stop)?;
        let damage = if stop < self.durable {
            let durable = self.durable;
            Some(self.damage(&format!("{flaw}, though all before lsn {durable} was synced")))
        } else {
            tail.proof.map(|proof| self.damage(&format!("{flaw}, and {proof}")))
        };
        let damage = damage.filter(|_| !cfg!(plant = "damage_is_a_torn_tail"));
        self.stop(tail.used_to - self.at, damage)
    }

    fn stop(&mut self, torn_bytes: u64, damage: Option<Error>) -> Result<()> {
        match damage {
            Some(error) if !self.tolerant => Err(error),
            damage => {
                let lsn = self.space.lsn_at(self.at);
                self.end = Some(LogEnd { lsn, torn_bytes, damage });
                Ok(())
            }
        }
    }

    fn damage(&self, detail: &str) -> Error {
        Error::corruption("log record", self.window.name(), self.at, detail)
    }

    fn unsupported(&self, what: &str) -> Error {
        let name = self.window.name();
        let text = format!("{} holds {what} at offset {}", name.display(), self.at);
        Error::new(ErrorKind::Unsupported, text)
            .with_file(name)
            .with_hint("open it with a version of Memtide at least as new as the one that wrote it")
    }
}
