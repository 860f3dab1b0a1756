//! The bytes of a block: a header of 32 bytes and eight columns.
//!
//! ```text
//! offset  size  field
//! 0       1     version     1
//! 1       1     flags       1 every seq is 0 · 2 every kind is put · 4 has shorts · 8 has same bits ·
//!                           16 offsets are u32, not u16 · 32 values are block handles (index)
//! 2       2     rows        N, at least 1
//! 4       2     prefix_len  P, bytes every key begins with
//! 6       1     seq_width   W, bytes of a seq delta: 0, 1, 2, 4 or 8
//! 7       1     zero
//! 8       8     base_seq    a row's seq is base_seq plus its delta
//! 16      4     heads_off
//! 20      4     tails_off
//! 24      4     meta_off
//! 28      4     vals_off
//! 32      P     prefix, then zeros up to a multiple of 8
//! heads   8N    key[P..P+8], padded with zeros: big-endian integers that sort as the keys do
//! tails         N + 1 offsets from the end of the offsets, then key[P+8..] of each row, then zeros to 8
//! meta    N     shorts      bytes of key[P..] if below 8, else 8       (only with flag 4)
//!         N     kinds                                                  (unless flag 2)
//!         WN    seq deltas
//!         ⌈N/8⌉ same bits   bit i: row i has the key of row i - 1      (only with flag 8)
//!               zeros up to a multiple of 8
//! vals          N + 1 offsets from the end of the offsets, then the values; the block ends here
//! ```
//!
//! Invariants
//! - Integers are little-endian, heads excepted. All four `_off` follow from the other fields; they are
//!   stored for readers that skip columns, and must agree.
//! - Keys rise; rows of one key have falling seqs. Index rows all have seq 0, and equal keys may follow
//!   each other there.
//! - N * P is at most 16 MiB: no block stands for many more bytes of keys than it may have itself.
//! - A short row's head ends in zeros, so of two equal heads the shorter key comes first.
//!
//! This file is arithmetic only: [`Layout`] says where a column lies, never what is in it.

use memtide_base::Kind;

/// Most bytes of a block before compression, and after it.
pub const BLOCK_LEN_MAX: usize = 16 << 20;

/// Most rows of a block.
pub const ROWS_MAX: usize = u16::MAX as usize;

pub(super) const VERSION: u8 = 1;
pub(super) const HEADER_LEN: u32 = 32;

pub(super) const SEQ_ALL_ZERO: u8 = 1;
pub(super) const ALL_PUT: u8 = 2;
pub(super) const HAS_SHORT: u8 = 4;
pub(super) const HAS_SAME: u8 = 8;
pub(super) const WIDE_OFFSETS: u8 = 16;
pub(super) const VALUES_ARE_HANDLES: u8 = 32;
pub(super) const KNOWN_FLAGS: u8 = 63;

/// What a block's rows mean; decides which kinds, seqs and repeated keys it may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Point entries of a table: key ascending, seq descending.
    Data,
    /// One row per data block: a separator and a handle. Equal separators may follow each other.
    Index,
    /// Range tombstones: key = start, value = exclusive end (empty = unbounded).
    RangeDelete,
}

impl Role {
    /// Whether this version may meet a row of `kind` in such a block.
    pub(super) fn admits(self, kind: Kind) -> bool {
        match self {
            Self::Data => matches!(kind, Kind::Put | Kind::Delete | Kind::BlobHandle),
            Self::Index => kind == Kind::Put,
            Self::RangeDelete => kind == Kind::RangeDelete,
        }
    }
}

/// The header's fields that decide the size of every column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) flags: u8,
    pub(super) rows: u16,
    pub(super) prefix_len: u16,
    pub(super) seq_width: u8,
}

impl Shape {
    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Bytes of one tail or value offset.
    pub(super) fn offset_width(self) -> u32 {
        if self.has(WIDE_OFFSETS) { 4 } else { 2 }
    }
}

/// Where each column of a block begins, in bytes from the block's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) heads: u32,
    pub(super) tails: u32,
    pub(super) tail_bytes: u32,
    pub(super) meta: u32,
    pub(super) kinds: u32,
    pub(super) seqs: u32,
    pub(super) same: u32,
    pub(super) vals: u32,
    pub(super) value_bytes: u32,
    pub(super) end: u32,
}

impl Layout {
    /// The layout of a block of this shape with so many bytes of tails and of values.
    ///
    /// Cannot overflow as long as both are at most [`BLOCK_LEN_MAX`].
    pub(super) fn of(shape: Shape, tail_len: u32, value_len: u32) -> Self {
        let present = |flag, len| if shape.has(flag) { len } else { 0 };
        let rows = u32::from(shape.rows);
        let offsets_len = (rows + 1) * shape.offset_width();
        let heads = aligned(HEADER_LEN + u32::from(shape.prefix_len));
        let tails = heads + 8 * rows;
        let tail_bytes = tails + offsets_len;
        let meta = aligned(tail_bytes + tail_len);
        let kinds = meta + present(HAS_SHORT, rows);
        let seqs = kinds + rows - present(ALL_PUT, rows);
        let same = seqs + rows * u32::from(shape.seq_width);
        let vals = aligned(same + present(HAS_SAME, rows.div_ceil(8)));
        let value_bytes = vals + offsets_len;
        let end = value_bytes + value_len;
        Self { heads, tails, tail_bytes, meta, kinds, seqs, same, vals, value_bytes, end }
    }
}

fn aligned(offset: u32) -> u32 {
    offset.next_multiple_of(8)
}

/// Most bytes a block of so many rows, key bytes and value bytes can take, whatever its shape.
pub(super) fn len_max(rows: usize, key_bytes: usize, value_bytes: usize) -> usize {
    // Per row: head 8, two offsets 4 each, short, kind, delta 8, one bit; and the ends and paddings.
    const PER_ROW: usize = 8 + 4 + 4 + 1 + 1 + 8 + 1;
    HEADER_LEN as usize + rows * PER_ROW + key_bytes + value_bytes + 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_block_does_not_overflow_its_offsets() {
        let shape = Shape {
            flags: KNOWN_FLAGS & !ALL_PUT,
            rows: u16::MAX,
            prefix_len: u16::MAX,
            seq_width: 8,
        };
        let most = u32::try_from(BLOCK_LEN_MAX).expect("16 MiB");
        let layout = Layout::of(shape, most, most);
        assert!(layout.end < 1 << 26 && layout.end as usize <= 2 * BLOCK_LEN_MAX + (4 << 20));
    }
}
