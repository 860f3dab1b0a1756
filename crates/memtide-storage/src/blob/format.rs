//! Bytes of a blob file: header, records, and the handles by which tables refer to them.
//!
//! ```text
//! header, the first 64 bytes of the file
//! 0       8     magic               "MTBLB", 0, 0, major = 1
//! 8       2     minor               0; for people only
//! 10      2     header_len          64
//! 12      4     required_features   zero; a reader refuses bits it does not know
//! 16      16    db_uuid
//! 32      8     number
//! 40      8     salt                seed of every record's checksum, mixed with its offset
//! 48      4     keyspace
//! 52      1     checksum_alg        1 = xxh3
//! 53      3     zero
//! 56      8     checksum            xxh3-64 of header[0..56]
//!
//! record, from byte 64 on without gaps, at multiples of 8
//! 0       4     stored_len          bytes of the value as it is stored
//! 4       4     raw_len             bytes of the value
//! 8       2     key_len
//! 10      1     codec               0 = none, 1 = lz4
//! 11      5     zero
//! 16      8     checksum            xxh3-64 of record[0..16] and key and value, seeded with salt ^ offset
//! 24            key · value · zeros up to a multiple of 8
//!
//! handle, the value of a table's row of kind 5
//! number varint · offset varint · len varint (of the whole record) · raw_len varint
//! ```
//!
//! Every major keeps the header's length and the places of checksum and magic.

use std::path::Path;

use memtide_base::checksum::{ALGORITHM_XXH3, xxh3_64};
use memtide_base::key::{KEY_LEN_MAX, VALUE_LEN_MAX};
use memtide_base::{Error, ErrorKind, Result, varint};

use crate::compress::Codec;
use crate::identity::FileIdentity;

/// Bytes of a file that are no records.
pub const BLOB_HEADER_LEN: u64 = HEADER_LEN as u64;
/// Bytes of a file's header.
pub(super) const HEADER_LEN: usize = 64;
/// Bytes in front of a record's key.
pub(super) const RECORD_HEADER_LEN: usize = 24;
/// Records lie at multiples of this.
pub(super) const ALIGN: u64 = 8;

const MAGIC: [u8; 8] = *b"MTBLB\0\0\x01";
const CHECKSUM_AT: usize = 56;
/// [`HEADER_LEN`] as it stands in the header.
const LEN_FIELD: [u8; 2] = [64, 0];

/// What stands at the beginning of a blob file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) identity: FileIdentity,
    pub(super) salt: u64,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(10, &LEN_FIELD);
        put(16, &self.identity.db_uuid);
        put(32, &self.identity.number.to_le_bytes());
        put(40, &self.salt.to_le_bytes());
        put(48, &self.identity.keyspace.to_le_bytes());
        put(52, &[ALGORITHM_XXH3]);
        let checksum = xxh3_64(0, &bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_LEN], file: &Path) -> Result<Self> {
        let damaged = |detail: String| Error::corruption("blob file header", file, 0, detail);
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let (computed, stored) = (xxh3_64(0, &bytes[..CHECKSUM_AT]), word(CHECKSUM_AT));
        if computed != stored {
            return Err(damaged(format!("xxh3 {computed:#018x}, stored {stored:#018x}")));
        }
        if bytes[..7] != MAGIC[..7] {
            return Err(damaged("no magic of a blob file".to_owned()));
        }
        let (major, features, algorithm) = (bytes[7], half(12), bytes[52]);
        let odd = bytes[10..12] != LEN_FIELD || bytes[53..56] != [0; 3];
        if major != MAGIC[7] || features != 0 || algorithm != ALGORITHM_XXH3 || odd {
            let what =
                format!("format major {major}, features {features:#x}, checksum {algorithm}");
            return Err(unsupported(file, what));
        }
        let identity = FileIdentity {
            db_uuid: std::array::from_fn(|i| bytes[16 + i]),
            number: word(32),
            keyspace: half(48),
        };
        Ok(Self { identity, salt: word(40) })
    }
}

/// A blob file this version cannot read although nothing is damaged.
pub(super) fn unsupported(file: &Path, what: impl std::fmt::Display) -> Error {
    let file_name = file.display();
    let what = format!("the blob file {file_name} needs a newer version of Memtide: {what}");
    Error::new(ErrorKind::Unsupported, what).with_file(file)
}

/// What stands in front of a value's key. Its checksum is kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) stored_len: u32,
    pub(super) raw_len: u32,
    pub(super) key_len: u16,
    pub(super) codec: Codec,
}

impl RecordHeader {
    /// The bytes in front of the checksum.
    pub(super) fn encode(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.stored_len.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.raw_len.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.key_len.to_le_bytes());
        bytes[10] = self.codec as u8;
        bytes
    }

    /// Reads it, or says what is wrong with it; what it says may be allocated then.
    pub(super) fn decode(bytes: &[u8; 16]) -> Result<Self, String> {
        let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let codec = Codec::from_byte(bytes[10]).ok_or(format!("unknown codec {}", bytes[10]))?;
        if bytes[11..] != [0; 5] {
            return Err("bytes that must be zero are not".to_owned());
        }
        let (stored_len, raw_len) = (half(0), half(4));
        let (stored, raw) = (stored_len as usize, raw_len as usize);
        if raw > VALUE_LEN_MAX || stored > raw || raw > codec.raw_len_max(stored) {
            return Err(format!("{stored} B stored cannot be a value of {raw} B"));
        }
        if codec == Codec::None && stored != raw {
            return Err(format!("{stored} B stored for a plain value of {raw} B"));
        }
        Ok(Self { stored_len, raw_len, key_len: u16::from_le_bytes([bytes[8], bytes[9]]), codec })
    }

    /// Bytes of the whole record.
    pub(super) fn record_len(&self) -> u64 {
        let bytes = u64::from(self.stored_len) + u64::from(self.key_len) + RECORD_HEADER_LEN as u64;
        bytes.next_multiple_of(ALIGN)
    }
}

/// Longest record.
const RECORD_LEN_MAX: u64 = (RECORD_HEADER_LEN + KEY_LEN_MAX + VALUE_LEN_MAX + 7) as u64;

/// Where a value lies: what a table has in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobHandle {
    /// The blob file's number.
    pub number: u64,
    /// First byte of the record.
    pub offset: u64,
    /// Bytes of the record.
    pub len: u32,
    /// Bytes of the value.
    pub raw_len: u32,
}

impl BlobHandle {
    /// Appends its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        varint::write_u64(out, self.number);
        varint::write_u64(out, self.offset);
        varint::write_u64(out, self.len.into());
        varint::write_u64(out, self.raw_len.into());
    }

    /// Reads a handle; `None` for bytes that are none.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        let handle = Self {
            number: varint::read_u64(bytes)?,
            offset: varint::read_u64(bytes)?,
            len: varint::read_u32(bytes)?,
            raw_len: varint::read_u32(bytes)?,
        };
        (bytes.is_empty() && handle.is_sound()).then_some(handle)
    }

    fn is_sound(self) -> bool {
        let len = u64::from(self.len);
        let lies_well = self.offset >= HEADER_LEN as u64
            && self.offset.is_multiple_of(ALIGN)
            && self.offset.checked_add(len).is_some();
        let can_be = len.is_multiple_of(ALIGN)
            && (RECORD_HEADER_LEN as u64..=RECORD_LEN_MAX).contains(&len)
            && self.raw_len as usize <= VALUE_LEN_MAX;
        lies_well && can_be
    }
}

/// How much of a blob file a table refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobRef {
    /// The blob file's number.
    pub number: u64,
    /// Bytes of the records referred to.
    pub bytes: u64,
}

/// All that a table refers to, by rising number: a file once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobRefs(Vec<BlobRef>);

impl BlobRefs {
    /// Counts a record.
    pub fn add(&mut self, handle: BlobHandle) {
        let bytes = u64::from(handle.len);
        // Most of a merge's values come from, or go to, one file.
        match self.0.binary_search_by_key(&handle.number, |known| known.number) {
            Ok(at) => self.0[at].bytes += bytes,
            Err(at) => self.0.insert(at, BlobRef { number: handle.number, bytes }),
        }
    }

    /// One after the other, by rising number.
    pub fn iter(&self) -> impl Iterator<Item = BlobRef> {
        self.0.iter().copied()
    }

    /// How many files.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends their bytes: `count varint · (number varint · bytes varint) ...`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        varint::write_u64(out, self.0.len() as u64);
        for BlobRef { number, bytes } in self.iter() {
            varint::write_u64(out, number);
            varint::write_u64(out, bytes);
        }
    }

    /// Reads them and moves `input` behind them; `None` for bytes that are none, numbers that do not
    /// rise and parts that no record has among them.
    pub fn decode(input: &mut &[u8]) -> Option<Self> {
        let count = varint::read_u64(input)?;
        let mut refs: Vec<BlobRef> = Vec::new();
        for _ in 0..count {
            let found =
                BlobRef { number: varint::read_u64(input)?, bytes: varint::read_u64(input)? };
            let is_behind = refs.last().is_none_or(|last| last.number < found.number);
            if !is_behind || found.bytes < RECORD_HEADER_LEN as u64 {
                return None;
            }
            refs.push(found);
        }
        Some(Self(refs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: Header = Header {
        identity: FileIdentity { db_uuid: *b"0123456789abcdef", number: 6, keyspace: 3 },
        salt: 9,
    };

    #[test]
    fn a_header_reads_back_and_every_flip_is_refused() {
        let (mut bytes, file) = (HEADER.encode(), Path::new("a.blob"));
        assert_eq!(Header::decode(&bytes, file).expect("as encoded"), HEADER);
        for bit in 0..8 * HEADER_LEN {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bytes, file).expect_err("flipped").is_corruption(), "{bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_newer_file_is_told_from_a_damaged_one() {
        for (at, value) in [(7, 2), (10, 65), (12, 1), (52, 9), (54, 1)] {
            let mut bytes = HEADER.encode();
            bytes[at] = value;
            let checksum = xxh3_64(0, &bytes[..CHECKSUM_AT]).to_le_bytes();
            bytes[CHECKSUM_AT..].copy_from_slice(&checksum);
            let error = Header::decode(&bytes, Path::new("a.blob")).expect_err("newer");
            assert_eq!(error.kind(), ErrorKind::Unsupported, "byte {at}");
        }
    }

    #[test]
    fn a_record_header_that_claims_too_much_is_refused() {
        let header = RecordHeader { stored_len: 10, raw_len: 10, key_len: 3, codec: Codec::None };
        assert_eq!(RecordHeader::decode(&header.encode()), Ok(header));
        assert_eq!(header.record_len(), 40);
        for wrong in [
            RecordHeader { raw_len: 11, ..header },
            RecordHeader { stored_len: 11, ..header },
            RecordHeader { codec: Codec::Lz4, raw_len: 10_000, ..header },
            RecordHeader { stored_len: u32::MAX, raw_len: u32::MAX, ..header },
        ] {
            assert!(RecordHeader::decode(&wrong.encode()).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn a_handle_reads_back_and_hostile_bytes_are_refused_or_sound(
            number: u64,
            offset in 8..u64::from(u32::MAX),
            len in 3..(1_u32 << 20),
            raw_len in 0..(1_u32 << 27),
            noise in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let handle = BlobHandle { number, offset: offset * 8, len: len * 8, raw_len };
            let mut bytes = Vec::new();
            handle.encode(&mut bytes);
            prop_assert_eq!(BlobHandle::decode(&bytes), Some(handle));
            bytes.push(0);
            prop_assert_eq!(BlobHandle::decode(&bytes), None);
            prop_assert!(BlobHandle::decode(&noise).is_none_or(BlobHandle::is_sound));
        }
    }
}
