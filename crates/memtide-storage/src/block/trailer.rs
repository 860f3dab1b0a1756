//! Block trailer: the last sixteen bytes behind every block of a table file.
//!
//! ```text
//! offset  size  field
//! 0       n     payload, compressed as `codec` says
//! n       1     codec     0 = none, 1 = lz4
//! n + 1   1     kind      1 data, 2 index, 3 filter, 4 range delete, 5 properties, 6 metaindex, 7 top index
//! n + 2   2     flags     zero; unknown bits refuse the block
//! n + 4   4     raw_len   bytes of the payload before compression
//! n + 8   8     checksum  xxh3-64 of payload and trailer[0..8], seeded with file salt ^ offset
//! ```
//!
//! Invariants
//! - A handle's `len` counts payload and trailer.
//! - The checksum covers the *compressed* bytes, so a scrubber never needs a codec; its seed makes a
//!   block from another place or another file fail.
//! - `raw_len` is bounded before anything is allocated for it: by [`BLOCK_LEN_MAX`], and by what the
//!   codec can make of so many bytes.

use memtide_base::checksum::xxh3_64;

use super::format::BLOCK_LEN_MAX;
use crate::compress::Codec;

/// Bytes behind each block's payload.
pub const TRAILER_LEN: usize = 1 + 1 + 2 + 4 + 8;
const _: () = assert!(TRAILER_LEN == 16, "changing this breaks every table on disk");

/// What a block is. The discriminant is the byte on disk.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// Point entries.
    Data = 1,
    /// Separators and handles of the data blocks.
    Index = 2,
    /// A filter over the user keys.
    Filter = 3,
    /// Range tombstones.
    RangeDelete = 4,
    /// The table's properties.
    Properties = 5,
    /// Where every block but the data blocks lies.
    Metaindex = 6,
    /// Separators of the partitions of index and filter, and where they lie.
    TopIndex = 7,
}

impl BlockKind {
    /// The block's name in an error message.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data block",
            Self::Index => "index block",
            Self::Filter => "filter block",
            Self::RangeDelete => "range tombstone block",
            Self::Properties => "properties block",
            Self::Metaindex => "metaindex block",
            Self::TopIndex => "top index block",
        }
    }
}

/// Where a block lies in its file; `len` counts the trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// First byte of the block.
    pub offset: u64,
    /// Bytes of payload and trailer.
    pub len: u32,
}

impl Handle {
    /// First byte behind the block; `None` if that is no file offset.
    #[must_use]
    pub fn end(self) -> Option<u64> {
        self.offset.checked_add(u64::from(self.len))
    }

    /// Whether a block can have this length at all.
    #[must_use]
    pub fn has_valid_len(self) -> bool {
        let len = self.len as usize;
        (TRAILER_LEN + 1..=TRAILER_LEN + BLOCK_LEN_MAX).contains(&len)
    }
}

/// What a block's trailer says about its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// How the payload is compressed.
    pub codec: Codec,
    /// Bytes of the payload before compression.
    pub raw_len: usize,
}

/// Appends to `payload`, which begins at `offset` of its file, the trailer.
///
/// # Panics
/// If payload or `raw_len` exceed [`BLOCK_LEN_MAX`]: the builder checks that before.
pub fn seal(payload: &mut Vec<u8>, kind: BlockKind, codec: Codec, raw_len: usize, seed: u64) {
    assert!(payload.len() <= BLOCK_LEN_MAX && raw_len <= BLOCK_LEN_MAX, "a block of {raw_len} B");
    let raw_len = u32::try_from(raw_len).expect("asserted above");
    payload.extend_from_slice(&[codec as u8, kind as u8, 0, 0]);
    payload.extend_from_slice(&raw_len.to_le_bytes());
    let checksum = xxh3_64(seed, payload);
    payload.extend_from_slice(&checksum.to_le_bytes());
}

/// Checks the trailer at the end of `block` (payload and trailer) and that it closes a block of `kind`.
///
/// # Errors
/// A sentence about what is wrong with the bytes; the caller knows file and offset.
pub fn open(block: &[u8], kind: BlockKind, seed: u64) -> Result<Sealed, String> {
    let (covered, stored) = block.split_last_chunk::<8>().ok_or("shorter than its trailer")?;
    let (payload, fields) = covered.split_last_chunk::<8>().ok_or("shorter than its trailer")?;
    let (stored, computed) = (u64::from_le_bytes(*stored), xxh3_64(seed, covered));
    if stored != computed {
        return Err(format!("xxh3 {computed:#018x}, stored {stored:#018x}"));
    }
    let [codec, found, flag_low, flag_high, raw_len @ ..] = *fields;
    if found != kind as u8 {
        return Err(format!("block kind {found}, expected {} ({})", kind as u8, kind.name()));
    }
    if (flag_low, flag_high) != (0, 0) {
        return Err(format!(
            "unknown block flags {:#06x}",
            u16::from_le_bytes([flag_low, flag_high])
        ));
    }
    let codec = Codec::from_byte(codec).ok_or_else(|| format!("unknown codec {codec}"))?;
    let raw_len = u32::from_le_bytes(raw_len) as usize;
    if raw_len > codec.raw_len_max(payload.len()).min(BLOCK_LEN_MAX) {
        return Err(format!("{} B cannot hold {raw_len} B before compression", payload.len()));
    }
    if codec == Codec::None && raw_len != payload.len() {
        return Err(format!("{raw_len} B by its trailer, {} B by its handle", payload.len()));
    }
    Ok(Sealed { codec, raw_len })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_opens_only_where_it_was_sealed_and_as_what_it_was() {
        let mut block = b"rows".to_vec();
        seal(&mut block, BlockKind::Data, Codec::None, 4, 77);
        let sealed = Sealed { codec: Codec::None, raw_len: 4 };
        assert_eq!(open(&block, BlockKind::Data, 77), Ok(sealed));
        assert!(open(&block, BlockKind::Data, 78).is_err(), "another offset or file");
        assert!(open(&block, BlockKind::Index, 77).is_err(), "another kind");
        for at in 0..block.len() {
            block[at] ^= 0x10;
            assert!(open(&block, BlockKind::Data, 77).is_err(), "flip at {at}");
            block[at] ^= 0x10;
        }
        assert!(open(&block[..15], BlockKind::Data, 77).is_err());
    }

    #[test]
    fn a_raw_length_the_codec_cannot_reach_is_refused_before_it_is_allocated() {
        for (codec, raw_len) in [(Codec::Lz4, BLOCK_LEN_MAX), (Codec::None, 5), (Codec::None, 3)] {
            let mut block = b"rows".to_vec();
            seal(&mut block, BlockKind::Data, codec, raw_len, 0);
            assert!(open(&block, BlockKind::Data, 0).is_err(), "{codec:?} {raw_len}");
        }
    }
}
