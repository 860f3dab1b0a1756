//! The 24 bytes in front of every record, and the checksums over it.
//!
//! ```text
//! offset  size  field
//! 0       4     len            header, payload and padding; a multiple of 8, at least 24 + count; 0 = no record
//! 4       1     kind           1 = batch, 2 = pad, 3 = skip, 4 = meta, 5 = blob (reserved);
//!                              0x80 set = a reader that does not know it passes over it
//! 5       1     flags          bit 0 = payload compressed (reserved); other bits are damage
//! 6       2     header_check   low 16 bits of xxh3-64 of bytes 0..6 and 8..16
//! 8       4     count          sequence numbers the record takes: LSN, LSN + 1, ...
//! 12      4     durable_delta  every LSN below `LSN - 8 * durable_delta` was synced when this was written;
//!                              0xFFFF_FFFF = nothing is claimed
//! 16      8     checksum       xxh3-64 of bytes 0..16 and 24..len; of bytes 0..16 for pad and skip
//! 24      len - 24             payload, then zeros
//! ```
//!
//! Both checksums are seeded with `salt ^ LSN`, so a record moved, or left over from another life of the
//! file, fails as surely as a damaged one.
//!
//! Invariants
//! - `len` is believed only after `header_check` held, and a payload only after `checksum` held.
//! - Pad and skip cover `len` LSNs, but only their header is in the file; the bytes behind it mean nothing.
//!
//! No I/O happens here.

use memtide_base::checksum::xxh3_64;

/// Bytes in front of a record's payload.
pub const RECORD_HEADER_LEN: usize = 24;

pub(super) const RECORD_HEADER_BYTES: u64 = RECORD_HEADER_LEN as u64;
pub(super) const FLAG_COMPRESSED: u8 = 1;
pub(super) const KIND_IGNORABLE: u8 = 0x80;
const STORED_LEN_HEADER_ONLY: u32 = 24;
const NOTHING_CLAIMED: u32 = u32::MAX;

/// What a record is for. The discriminant is the byte on disk.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// Writes that become visible together.
    Batch = 1,
    /// Fills the rest of a segment.
    Pad = 2,
    /// Covers LSNs that hold nothing: writes that are not logged, and the marker after a sync.
    Skip = 3,
    /// Anything the engine frames itself, such as a manifest edit.
    Meta = 4,
}

impl RecordKind {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Batch,
            2 => Self::Pad,
            3 => Self::Skip,
            4 => Self::Meta,
            _ => return None,
        })
    }

    pub(super) fn is_header_only(self) -> bool {
        matches!(self, Self::Pad | Self::Skip)
    }
}

/// LSNs a record with `payload_len` bytes and `count` sequence numbers covers.
pub(super) fn record_len(payload_len: usize, count: u32) -> u64 {
    let body = (payload_len as u64).max(u64::from(count));
    (RECORD_HEADER_BYTES + body).next_multiple_of(8)
}

/// What a record at `lsn` says about LSNs below `durable` having been synced.
pub(super) fn durable_delta(lsn: u64, durable: u64) -> u32 {
    let words = lsn.saturating_sub(durable).div_ceil(8);
    u32::try_from(words).unwrap_or(NOTHING_CLAIMED)
}

/// A decoded record header. Its `header_check` held; its `checksum` is yet to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) len: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) count: u32,
    pub(super) durable_delta: u32,
    pub(super) checksum: u64,
}

impl RecordHeader {
    pub(super) fn encode(&self, seed: u64) -> [u8; RECORD_HEADER_LEN] {
        let mut bytes = [0; RECORD_HEADER_LEN];
        bytes[..4].copy_from_slice(&self.len.to_le_bytes());
        bytes[4] = self.kind;
        bytes[5] = self.flags;
        bytes[8..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.durable_delta.to_le_bytes());
        bytes[16..].copy_from_slice(&self.checksum.to_le_bytes());
        let check = header_check(seed, &bytes);
        bytes[6..8].copy_from_slice(&check);
        bytes
    }

    /// `None` unless the length is possible and the header check holds.
    pub(super) fn decode(bytes: &[u8; RECORD_HEADER_LEN], seed: u64) -> Option<Self> {
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let (len, count) = (u32_at(0), u32_at(8));
        let possible =
            len.is_multiple_of(8) && u64::from(len) >= RECORD_HEADER_BYTES + u64::from(count);
        if !possible || header_check(seed, bytes) != bytes[6..8] {
            return None;
        }
        let (_, checksum) = bytes.split_last_chunk::<8>()?;
        Some(Self {
            len,
            kind: bytes[4],
            flags: bytes[5],
            count,
            durable_delta: u32_at(12),
            checksum: u64::from_le_bytes(*checksum),
        })
    }

    /// Bytes of the record that are in the file and under its checksum.
    pub(super) fn stored_len(&self) -> u32 {
        match RecordKind::from_byte(self.kind) {
            Some(kind) if kind.is_header_only() => STORED_LEN_HEADER_ONLY,
            _ => self.len,
        }
    }

    /// The LSN below which everything was synced when the record at `lsn` was written.
    pub(super) fn durable_below(&self, lsn: u64) -> u64 {
        match self.durable_delta {
            NOTHING_CLAIMED => 0,
            words => lsn.saturating_sub(8 * u64::from(words)),
        }
    }
}

fn header_check(seed: u64, header: &[u8; RECORD_HEADER_LEN]) -> [u8; 2] {
    let mut covered = [0; 14];
    covered[..6].copy_from_slice(&header[..6]);
    covered[6..].copy_from_slice(&header[8..16]);
    let [low, high, ..] = xxh3_64(seed, &covered).to_le_bytes();
    [low, high]
}

/// The checksum of a record whose bytes in the file are `record`, which comes back unchanged.
///
/// The sixteen header bytes are moved next to the payload for the moment, because hashing one slice takes
/// a third of the time of hashing two.
pub(super) fn checksum(seed: u64, record: &mut [u8]) -> u64 {
    let Some(header) = record.first_chunk::<RECORD_HEADER_LEN>().copied() else {
        return 0;
    };
    record.copy_within(..16, 8);
    let checksum = xxh3_64(seed, &record[8..]);
    record[..RECORD_HEADER_LEN].copy_from_slice(&header);
    checksum
}

#[cfg(test)]
mod tests {
    use super::*;
    use memtide_base::checksum::xxh3_64_of_two;
    use proptest::prelude::*;

    #[test]
    fn a_record_always_covers_its_sequence_numbers() {
        for (payload, count, want) in [
            (0, 0, 24),
            (1, 1, 32),
            (8, 2, 32),
            (9, 2, 40),
            (0, 9, 40),
            (0, u32::MAX, 4_294_967_320),
        ] {
            assert_eq!(record_len(payload, count), want, "{payload} {count}");
        }
    }

    #[test]
    fn a_claim_of_durability_is_never_more_than_was_known() {
        for (lsn, durable, claimed) in [
            (800, 800, 800),
            (800, 792, 792),
            (800, 797, 792),
            (800, 0, 0),
            (1 << 50, 8, 0),
            (8, 16, 8),
        ] {
            let header = RecordHeader {
                len: 24,
                kind: 3,
                flags: 0,
                count: 0,
                durable_delta: durable_delta(lsn, durable),
                checksum: 0,
            };
            assert_eq!(header.durable_below(lsn), claimed, "{lsn} {durable}");
        }
    }

    #[test]
    fn every_flipped_bit_before_the_checksum_fails_the_header_check_or_the_shape() {
        let header =
            RecordHeader { len: 64, kind: 1, flags: 0, count: 2, durable_delta: 1, checksum: 0 };
        let bytes = header.encode(77);
        assert_eq!(RecordHeader::decode(&bytes, 77), Some(header));
        assert_eq!(RecordHeader::decode(&bytes, 78), None, "another seed");
        for bit in 0..16 * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&flipped, 77), None, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn the_checksum_is_over_header_and_payload_and_leaves_the_record_alone(
            seed: u64,
            mut record in prop::collection::vec(any::<u8>(), 24..600),
        ) {
            let before = record.clone();
            let want = xxh3_64_of_two(seed, &record[..16], &record[24..]);
            prop_assert_eq!(checksum(seed, &mut record), want);
            prop_assert_eq!(record, before);
        }
    }
}
