//! The header page of a log file, and the names of log files.
//!
//! ```text
//! offset  size  field
//! 0       8     magic              "MTWAL\0\0" or "MTMAN\0\0", then the major version, 1
//! 8       2     minor              from 1 on a segment has its whole length from the beginning
//! 10      2     header_len         4096
//! 12      4     required_features  a reader that does not know a set bit refuses the file
//! 16      8     base               LSN of the file's first byte; 0 for a manifest
//! 24      8     segment_bytes      LSNs the file spans, this page included; 0 for a manifest
//! 32      16    db_uuid
//! 48      8     salt               random, part of every record's checksum seed
//! 56      8     prev_salt          salt of the segment before; 0 = none
//! 64      8     prev_end           LSN where the records of the segment before end
//! 72      1     checksum_alg       1 = XXH3
//! 73      7     zero
//! 80      8     created_ms         milliseconds since 1970; for people
//! 88      4000  zero; readers ignore it
//! 4088    8     checksum           xxh3-64 of bytes 0..4088, seed 0
//! ```
//!
//! Integers are little-endian. Invariants
//! - Every future major keeps magic and checksum where they are, so a page that fails its checksum is
//!   torn or damaged and never just newer.
//! - A WAL's `base` and `segment_bytes` are multiples of 4096, and LSNs of a segment fit in 64 bits.
//!
//! Written once, when the file is created. No I/O happens here.

use std::path::{Path, PathBuf};

use memtide_base::checksum::{ALGORITHM_XXH3, xxh3_64};
use memtide_base::{Error, ErrorKind, Result};

/// Bytes of the header page; the first record begins behind it.
pub const HEADER_LEN: u64 = 4096;

/// Most LSNs one WAL segment spans: a record's length must fit in 32 bits.
pub const SEGMENT_BYTES_MAX: u64 = (1 << 32) - HEADER_LEN;

/// The minor version from which on a segment's file has all of its bytes before the first record is written, and keeps
/// them until the database is closed.
pub const MINOR_WHOLE: u16 = 1;

pub(super) const PAGE_LEN: usize = 4096;
const CHECKSUM_AT: usize = PAGE_LEN - 8;
const _: () = assert!(PAGE_LEN as u64 == HEADER_LEN, "one page, two integer types");

const MAJOR: u8 = 1;
const WAL_MAGIC: &[u8; 7] = b"MTWAL\0\0";
const MANIFEST_MAGIC: &[u8; 7] = b"MTMAN\0\0";
const KNOWN_FEATURES: u32 = 0;

/// What a log file records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// Batches of writes.
    Wal,
    /// Edits of the tree's shape.
    Manifest,
}

impl LogKind {
    fn magic(self) -> &'static [u8; 7] {
        match self {
            Self::Wal => WAL_MAGIC,
            Self::Manifest => MANIFEST_MAGIC,
        }
    }
}

/// The fields of a header page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogHeader {
    /// WAL or manifest.
    pub kind: LogKind,
    /// The database this file belongs to.
    pub db_uuid: [u8; 16],
    /// Random per file; old bytes of a recycled file never validate under it.
    pub salt: u64,
    /// LSN of the file's first byte, a multiple of 4096; 0 for a manifest.
    pub base: u64,
    /// LSNs the file spans, this page included, a multiple of 4096; 0 for a manifest.
    pub segment_bytes: u64,
    /// Salt of the segment before; 0 if there is none.
    pub prev_salt: u64,
    /// LSN where the records of the segment before end; 0 if there is none.
    pub prev_end: u64,
    /// Creation time in milliseconds since 1970, for people.
    pub created_ms: u64,
    /// Features a reader must know.
    pub required_features: u32,
    /// Minor version of the writer; see [`MINOR_WHOLE`].
    pub minor: u16,
}

impl LogHeader {
    /// The page as it is on disk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE_LEN];
        let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, self.kind.magic());
        put(7, &[MAJOR]);
        put(8, &self.minor.to_le_bytes());
        put(10, &4096_u16.to_le_bytes());
        put(12, &self.required_features.to_le_bytes());
        put(16, &self.base.to_le_bytes());
        put(24, &self.segment_bytes.to_le_bytes());
        put(32, &self.db_uuid);
        put(48, &self.salt.to_le_bytes());
        put(56, &self.prev_salt.to_le_bytes());
        put(64, &self.prev_end.to_le_bytes());
        put(72, &[ALGORITHM_XXH3]);
        put(80, &self.created_ms.to_le_bytes());
        let checksum = xxh3_64(0, &page[..CHECKSUM_AT]);
        page[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        page
    }

    /// Reads the page at the start of `bytes`; `file` is for errors only.
    ///
    /// # Errors
    /// `Corruption` if the page is incomplete, fails its checksum or contradicts itself; `Unsupported` if it
    /// is sound but not a log, of a newer major version, or needs a feature this version does not know.
    pub fn decode(file: &Path, bytes: &[u8]) -> Result<Self> {
        let damaged = |offset, detail: &str| Error::corruption("log header", file, offset, detail);
        let Some(page) = bytes.first_chunk::<PAGE_LEN>() else {
            return Err(damaged(0, "the file ends inside it"));
        };
        if !is_whole(page) {
            return Err(damaged(0, "its checksum does not match"));
        }
        let kind = decode_kind(file, page)?;
        let required_features = u32::from_le_bytes(field(page, 12));
        let unknown = required_features & !KNOWN_FEATURES;
        if unknown != 0 {
            let bit = unknown.trailing_zeros();
            return Err(unsupported(file, &format!("needs feature bit {bit}, which is unknown")));
        }
        if page[72] != ALGORITHM_XXH3 {
            let what = format!("has checksum algorithm {}, which is unknown", page[72]);
            return Err(unsupported(file, &what));
        }
        let header = Self {
            kind,
            db_uuid: field(page, 32),
            salt: stored_salt(page),
            base: stored_base(page),
            segment_bytes: u64::from_le_bytes(field(page, 24)),
            prev_salt: u64::from_le_bytes(field(page, 56)),
            prev_end: u64::from_le_bytes(field(page, 64)),
            created_ms: u64::from_le_bytes(field(page, 80)),
            required_features,
            minor: u16::from_le_bytes(field(page, 8)),
        };
        match header.contradiction() {
            Some(what) => Err(damaged(16, what)),
            None => Ok(header),
        }
    }

    /// What a damaged page says if one bit of it was flipped.
    #[must_use]
    pub fn decode_mended(file: &Path, bytes: &[u8]) -> Option<Self> {
        let mut page = *bytes.first_chunk::<PAGE_LEN>()?;
        (0..8 * PAGE_LEN).find_map(|bit| {
            page[bit / 8] ^= 1 << (bit % 8);
            let header = if is_whole(&page) { Self::decode(file, &page).ok() } else { None };
            page[bit / 8] ^= 1 << (bit % 8);
            header
        })
    }

    /// Offset no record of the file may cross; `u64::MAX` for a manifest, which has no end.
    pub(super) fn end_offset(&self) -> u64 {
        match self.kind {
            LogKind::Wal => self.segment_bytes,
            LogKind::Manifest => u64::MAX,
        }
    }

    /// What is impossible about the span this header claims.
    pub(super) fn contradiction(&self) -> Option<&'static str> {
        let (base, span) = (self.base, self.segment_bytes);
        match self.kind {
            LogKind::Manifest if base != 0 || span != 0 => Some("a manifest spans no LSNs"),
            LogKind::Manifest => None,
            LogKind::Wal if !base.is_multiple_of(HEADER_LEN) => {
                Some("the base LSN is not a multiple of 4096")
            }
            LogKind::Wal if !span.is_multiple_of(HEADER_LEN) || span <= HEADER_LEN => {
                Some("the segment's span is not a multiple of 4096 above 4096")
            }
            LogKind::Wal if span > SEGMENT_BYTES_MAX || base.checked_add(span).is_none() => {
                Some("the segment's span is beyond the limit")
            }
            LogKind::Wal => None,
        }
    }
}

fn decode_kind(file: &Path, page: &[u8; PAGE_LEN]) -> Result<LogKind> {
    let kinds = [LogKind::Wal, LogKind::Manifest];
    let Some(kind) = kinds.into_iter().find(|kind| page[..7] == *kind.magic()) else {
        return Err(unsupported(file, "is not a log of Memtide"));
    };
    if page[7] != MAJOR {
        return Err(unsupported(file, &format!("has format version {}", page[7])));
    }
    let header_len = u16::from_le_bytes(field(page, 10));
    if u64::from(header_len) != HEADER_LEN {
        return Err(unsupported(file, &format!("has a header of {header_len} bytes")));
    }
    Ok(kind)
}

fn unsupported(file: &Path, what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{} {what}", file.display()))
        .with_file(file)
        .with_hint("open it with a version of Memtide at least as new as the one that wrote it")
}

/// Whether the page's checksum holds.
pub(super) fn is_whole(page: &[u8; PAGE_LEN]) -> bool {
    xxh3_64(0, &page[..CHECKSUM_AT]) == u64::from_le_bytes(field(page, CHECKSUM_AT))
}

/// The salt as it stands in a page that may be damaged.
pub(super) fn stored_salt(page: &[u8; PAGE_LEN]) -> u64 {
    u64::from_le_bytes(field(page, 48))
}

/// The base LSN as it stands in a page that may be damaged.
pub(super) fn stored_base(page: &[u8; PAGE_LEN]) -> u64 {
    u64::from_le_bytes(field(page, 16))
}

fn field<const N: usize>(page: &[u8; PAGE_LEN], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&page[at..at + N]);
    bytes
}

/// Where the segment at `base` lives, relative to the database directory.
#[must_use]
pub fn wal_file_name(base: u64) -> PathBuf {
    PathBuf::from(format!("wal/{base:016x}.wal"))
}

/// The base LSN of a path whose last component is exactly what [`wal_file_name`] writes.
#[must_use]
pub fn parse_wal_file_name(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(".wal")?;
    parse_hex(digits).filter(|base| base.is_multiple_of(HEADER_LEN))
}

/// Where the manifest `number` lives, relative to the database directory.
#[must_use]
pub fn manifest_file_name(number: u64) -> PathBuf {
    PathBuf::from(format!("MANIFEST-{number:016x}"))
}

/// The number of a path whose last component is exactly what [`manifest_file_name`] writes.
#[must_use]
pub fn parse_manifest_file_name(path: &Path) -> Option<u64> {
    parse_hex(path.file_name()?.to_str()?.strip_prefix("MANIFEST-")?)
}

fn parse_hex(digits: &str) -> Option<u64> {
    let strict =
        digits.len() == 16 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if strict { u64::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing::{manifest_header, wal_header};

    fn reseal(page: &mut [u8]) {
        let checksum = xxh3_64(0, &page[..CHECKSUM_AT]);
        page[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
    }

    fn decode(page: &[u8]) -> Result<LogHeader> {
        LogHeader::decode(Path::new("wal/x.wal"), page)
    }

    #[test]
    fn a_header_reads_back() {
        let mut wal = wal_header(1 << 40, 8192);
        (wal.prev_salt, wal.prev_end, wal.created_ms, wal.minor) = (3, 4, 5, 6);
        assert_eq!(decode(&wal.encode()).unwrap(), wal);
        assert_eq!(decode(&manifest_header().encode()).unwrap(), manifest_header());
    }

    #[test]
    fn every_flipped_byte_of_a_header_is_damage() {
        let page = wal_header(4096, 8192).encode();
        for at in 0..page.len() {
            let mut flipped = page.clone();
            flipped[at] ^= 0x10;
            assert!(decode(&flipped).unwrap_err().is_corruption(), "byte {at}");
        }
        assert!(decode(&page[..4095]).unwrap_err().is_corruption());
    }

    #[test]
    fn what_a_newer_version_wrote_is_refused_by_name() {
        for (at, byte, word) in [
            (0, b'X', "not a log"),
            (7, 2, "format version 2"),
            (11, 0x20, "8192 bytes"),
            (13, 0x04, "feature bit 10"),
            (72, 9, "checksum algorithm 9"),
        ] {
            let mut page = wal_header(4096, 8192).encode();
            page[at] = byte;
            reseal(&mut page);
            let error = decode(&page).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "byte {at}");
            assert!(error.to_string().contains(word), "{error}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn impossible_spans_are_damage() {
        let mut manifest = manifest_header();
        manifest.base = 4096;
        assert!(decode(&manifest.encode()).unwrap_err().is_corruption());
        for (base, span) in [(1, 8192), (0, 4096), (0, 8193), (0, 1 << 32), (!4095, 8192)] {
            let error = decode(&wal_header(base, span).encode()).unwrap_err();
            assert!(error.is_corruption(), "{base} {span}: {error}");
        }
    }

    #[test]
    fn only_exact_names_are_log_files() {
        assert_eq!(parse_wal_file_name(&wal_file_name(0xABC0_0000)), Some(0xABC0_0000));
        assert_eq!(parse_manifest_file_name(&manifest_file_name(u64::MAX)), Some(u64::MAX));
        for name in [
            "00000000abc00000.WAL",
            "00000000ABC00000.wal",
            "00000000abc00001.wal",
            "0000000abc00000.wal",
            "+000000000000000.wal",
            "00000000abc00000.wal.tmp",
            "",
        ] {
            assert_eq!(parse_wal_file_name(Path::new(name)), None, "{name}");
        }
        assert_eq!(parse_manifest_file_name(Path::new("MANIFEST-1")), None);
    }
}
