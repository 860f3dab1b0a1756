//! Bytes of a table that are neither rows nor properties: footer, metaindex, index values.
//!
//! ```text
//! footer, the last 96 bytes of the file
//! 0       8     metaindex_off
//! 8       4     metaindex_len       trailer included; the metaindex ends where the footer begins
//! 12      4     required_features   zero; a reader refuses bits it does not know
//! 16      8     file_salt           seed of every block's checksum, mixed with its offset
//! 24      1     checksum_alg        1 = xxh3
//! 25      3     zero
//! 28      4     minor               0; for people only
//! 32      8     data_end            first byte behind the data blocks
//! 40      8     file_len
//! 48      16    db_uuid
//! 64      8     number
//! 72      8     spare               written as zero, ignored
//! 80      8     checksum            xxh3-64 of footer[0..80] and footer[88..96], seeded with the
//!                                   footer's offset
//! 88      8     magic               "MTSST", 0, 0, major = 1
//!
//! metaindex, one item per block behind the data blocks, in file order without gaps
//! 0       2     kind                block kind; bit 15 set = a reader may skip what it does not know
//! 2       2     zero
//! 4       4     len                 trailer included
//! 8       8     offset
//!
//! index value, one per data block: offset varint · len varint (trailer included) · rows u16 · flags u8
//!
//! top index value, one per partition: data_end varint · rows varint · blocks u16 · index_len varint ·
//! filter_len varint (both with trailer; no filter: 0)
//! ```
//!
//! Every major keeps the footer's length and the places of checksum and magic, so that an older reader
//! can tell a newer table from a damaged one.

use std::path::Path;

use memtide_base::checksum::{ALGORITHM_XXH3, xxh3_64_of_two};
use memtide_base::{Error, ErrorKind, Result, varint};

use crate::block::trailer::{BlockKind, Handle};

/// Bytes of the footer.
pub(super) const FOOTER_LEN: usize = 96;

const MAGIC: [u8; 8] = *b"MTSST\0\0\x01";
const CHECKSUM_AT: usize = 80;
const MAGIC_AT: usize = 88;
const _: () = assert!(MAGIC_AT + MAGIC.len() == FOOTER_LEN, "changing this breaks every table");

/// Bit 15 of a metaindex kind or property tag: skip it if it is unknown.
pub(super) const IGNORABLE: u16 = 1 << 15;

/// Index value flag: every row of the block is a point tombstone.
pub(super) const ALL_TOMBSTONES: u8 = 1;
/// Index value flag: the block holds a version that is not the newest of its key in this table.
pub(super) const HAS_OLD_VERSIONS: u8 = 2;

/// What stands at the end of a table file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) metaindex: Handle,
    pub(super) file_salt: u64,
    pub(super) data_end: u64,
    pub(super) file_len: u64,
    pub(super) db_uuid: [u8; 16],
    pub(super) number: u64,
}

impl Footer {
    pub(super) fn encode(&self) -> [u8; FOOTER_LEN] {
        let mut bytes = [0; FOOTER_LEN];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &self.metaindex.offset.to_le_bytes());
        put(8, &self.metaindex.len.to_le_bytes());
        put(16, &self.file_salt.to_le_bytes());
        put(24, &[ALGORITHM_XXH3]);
        put(32, &self.data_end.to_le_bytes());
        put(40, &self.file_len.to_le_bytes());
        put(48, &self.db_uuid);
        put(64, &self.number.to_le_bytes());
        put(MAGIC_AT, &MAGIC);
        let checksum = checksum(&bytes, self.file_len.wrapping_sub(FOOTER_LEN as u64));
        bytes[CHECKSUM_AT..MAGIC_AT].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the footer that stands at `offset` of `file`.
    pub(super) fn decode(bytes: &[u8; FOOTER_LEN], offset: u64, file: &Path) -> Result<Self> {
        let damaged = |detail: String| Error::corruption("table footer", file, offset, detail);
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let (computed, stored) = (checksum(bytes, offset), word(CHECKSUM_AT));
        if computed != stored {
            return Err(damaged(format!("xxh3 {computed:#018x}, stored {stored:#018x}")));
        }
        if bytes[MAGIC_AT..FOOTER_LEN - 1] != MAGIC[..7] {
            return Err(damaged("no magic of a table".to_string()));
        }
        let (major, features, algorithm) = (bytes[FOOTER_LEN - 1], half(12), bytes[24]);
        let reserved = bytes[25..28] != [0; 3];
        if major != MAGIC[7] || features != 0 || algorithm != ALGORITHM_XXH3 || reserved {
            return Err(unsupported(
                file,
                format!("format major {major}, features {features:#x}, checksum {algorithm}"),
            ));
        }
        Ok(Self {
            metaindex: Handle { offset: word(0), len: half(8) },
            file_salt: word(16),
            data_end: word(32),
            file_len: word(40),
            db_uuid: std::array::from_fn(|i| bytes[48 + i]),
            number: word(64),
        })
    }
}

/// A table this version cannot read although nothing is damaged.
pub(super) fn unsupported(file: &Path, what: impl std::fmt::Display) -> Error {
    let what = format!("the table {} needs a newer version of Memtide: {what}", file.display());
    Error::new(ErrorKind::Unsupported, what).with_file(file)
}

fn checksum(footer: &[u8; FOOTER_LEN], offset: u64) -> u64 {
    xxh3_64_of_two(offset, &footer[..CHECKSUM_AT], &footer[MAGIC_AT..])
}

/// One item of the metaindex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) kind: u16,
    pub(super) handle: Handle,
}

const SECTION_LEN: usize = 16;

impl Section {
    pub(super) fn new(kind: BlockKind, handle: Handle) -> Self {
        Self { kind: kind as u16, handle }
    }

    pub(super) fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.kind.to_le_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&self.handle.len.to_le_bytes());
        out.extend_from_slice(&self.handle.offset.to_le_bytes());
    }

    /// All items of a metaindex; `None` if it is not made of whole items.
    pub(super) fn decode_all(payload: &[u8]) -> Option<Vec<Self>> {
        let (items, rest) = payload.as_chunks::<SECTION_LEN>();
        let whole = rest.is_empty() && items.iter().all(|item| item[2..4] == [0, 0]);
        let section = |item: &[u8; SECTION_LEN]| {
            let [k0, k1, _, _, l0, l1, l2, l3, offset @ ..] = *item;
            let len = u32::from_le_bytes([l0, l1, l2, l3]);
            let handle = Handle { offset: u64::from_le_bytes(offset), len };
            Self { kind: u16::from_le_bytes([k0, k1]), handle }
        };
        whole.then(|| items.iter().map(section).collect())
    }
}

/// What an index row says about its data block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Child {
    pub(super) handle: Handle,
    pub(super) rows: u16,
    pub(super) flags: u8,
}

impl Child {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 * varint::VARINT_LEN_MAX);
        varint::write_u64(&mut out, self.handle.offset);
        varint::write_u64(&mut out, u64::from(self.handle.len));
        out.extend_from_slice(&self.rows.to_le_bytes());
        out.push(self.flags);
        out
    }

    #[inline]
    pub(super) fn decode(mut value: &[u8]) -> Option<Self> {
        let offset = varint::read_u64(&mut value)?;
        let len = varint::read_u32(&mut value)?;
        let [r0, r1, flags] = *<&[u8; 3]>::try_from(value).ok()?;
        let handle = Handle { offset, len };
        Some(Self { handle, rows: u16::from_le_bytes([r0, r1]), flags })
    }
}

/// What a row of the top index says about its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TopRow {
    /// First byte behind its data blocks.
    pub(super) data_end: u64,
    /// Rows of its data blocks.
    pub(super) rows: u64,
    /// How many data blocks it leads to.
    pub(super) blocks: u16,
    /// Bytes of its index block, trailer included.
    pub(super) index_len: u32,
    /// Bytes of its filter block, trailer included; 0 if it has none.
    pub(super) filter_len: u32,
}

impl TopRow {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(3 * varint::VARINT_LEN_MAX);
        varint::write_u64(&mut out, self.data_end);
        varint::write_u64(&mut out, self.rows);
        out.extend_from_slice(&self.blocks.to_le_bytes());
        varint::write_u64(&mut out, u64::from(self.index_len));
        varint::write_u64(&mut out, u64::from(self.filter_len));
        out
    }

    pub(super) fn decode(mut value: &[u8]) -> Option<Self> {
        let data_end = varint::read_u64(&mut value)?;
        let rows = varint::read_u64(&mut value)?;
        let (blocks, rest) = value.split_first_chunk::<2>()?;
        value = rest;
        let index_len = varint::read_u32(&mut value)?;
        let filter_len = varint::read_u32(&mut value)?;
        let blocks = u16::from_le_bytes(*blocks);
        value.is_empty().then_some(Self { data_end, rows, blocks, index_len, filter_len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_footer_reads_back_at_its_place_and_every_flip_is_refused() {
        let footer = Footer {
            metaindex: Handle { offset: 1, len: 2 },
            file_salt: 3,
            data_end: 4,
            file_len: 500,
            db_uuid: *b"0123456789abcdef",
            number: 6,
        };
        let mut bytes = footer.encode();
        let file = Path::new("t.sst");
        assert_eq!(Footer::decode(&bytes, 404, file).expect("as encoded"), footer);
        assert!(Footer::decode(&bytes, 403, file).is_err(), "at another place");
        for bit in 0..8 * FOOTER_LEN {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = Footer::decode(&bytes, 404, file).expect_err("flipped");
            assert!(error.is_corruption(), "bit {bit}: {error}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_newer_table_is_told_from_a_damaged_one() {
        let handle = Handle { offset: 0, len: 0 };
        let footer = Footer {
            metaindex: handle,
            file_salt: 0,
            data_end: 0,
            file_len: 96,
            db_uuid: [0; 16],
            number: 0,
        };
        for (at, value) in [(FOOTER_LEN - 1, 2), (12, 1), (24, 9), (27, 1)] {
            let mut bytes = footer.encode();
            bytes[at] = value;
            let sum = checksum(&bytes, 0).to_le_bytes();
            bytes[CHECKSUM_AT..MAGIC_AT].copy_from_slice(&sum);
            let error = Footer::decode(&bytes, 0, Path::new("t.sst")).expect_err("newer");
            assert_eq!(error.kind(), ErrorKind::Unsupported, "byte {at}");
        }
    }
}
