//! Collects sorted rows and lays them out as one block.
//!
//! The builder keeps keys and values in two byte runs and decides the block's shape (prefix, short keys,
//! seq width, offset width) only when the last row is known. It is reused from block to block, so its
//! buffers grow to the largest block and stay.
//!
//! Order is asserted in release builds: a block out of order would hide rows from every search.

use std::cmp::Ordering;

use memtide_base::key::{RANGE_END_LEN_MAX, head, rest, shared_prefix_len};
use memtide_base::{Entry, Kind, SeqNo};

use super::format::{
    ALL_PUT, BLOCK_LEN_MAX, HAS_SAME, HAS_SHORT, Layout, ROWS_MAX, Role, SEQ_ALL_ZERO, Shape,
    VALUES_ARE_HANDLES, VERSION, WIDE_OFFSETS, len_max,
};

/// Bytes of a key that its head holds.
const HEAD_LEN: usize = 8;

/// Builds one block after another out of sorted rows.
#[derive(Debug)]
pub struct BlockBuilder {
    role: Role,
    keys: Vec<u8>,
    key_ends: Vec<u32>,
    values: Vec<u8>,
    value_ends: Vec<u32>,
    seqs: Vec<SeqNo>,
    kinds: Vec<u8>,
    /// Whether each row has the key of the row before it.
    same: Vec<bool>,
}

impl BlockBuilder {
    /// A builder of blocks of one role, without rows.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self {
            role,
            keys: Vec::new(),
            key_ends: Vec::new(),
            values: Vec::new(),
            value_ends: Vec::new(),
            seqs: Vec::new(),
            kinds: Vec::new(),
            same: Vec::new(),
        }
    }

    /// Whether a row with so many bytes still fits into the block at all.
    #[must_use]
    pub fn has_room(&self, key_len: usize, value_len: usize) -> bool {
        let (keys, values) = (self.keys.len() + key_len, self.values.len() + value_len);
        self.rows() < ROWS_MAX && len_max(self.rows() + 1, keys, values) <= BLOCK_LEN_MAX
    }

    /// Whether a row with so many bytes fits into an empty block.
    #[must_use]
    pub fn fits_alone(key_len: usize, value_len: usize) -> bool {
        let bytes = key_len.saturating_add(value_len);
        bytes <= BLOCK_LEN_MAX && len_max(1, bytes, 0) <= BLOCK_LEN_MAX
    }

    /// Adds a row above all rows before it: key ascending, seq descending within a key. Index rows
    /// may repeat a key.
    ///
    /// # Panics
    /// If the row is out of order, of a kind the role does not hold, or has no room: the caller's bug.
    pub fn add(&mut self, entry: Entry<'_>) {
        assert!(self.role.admits(entry.kind), "{:?} in a {:?} block", entry.kind, self.role);
        assert!(entry.key.len() <= RANGE_END_LEN_MAX, "a key of {} B", entry.key.len());
        assert!(self.has_room(entry.key.len(), entry.value.len()), "the block is full");
        let same = match self.last().map(|(key, seq)| (key.cmp(entry.key), seq)) {
            None | Some((Ordering::Less, _)) => false,
            Some((Ordering::Equal, seq)) if self.role == Role::Index || seq > entry.seq => true,
            Some((_, seq)) => panic!("row ({:?}, {}) after seq {seq}", entry.key, entry.seq),
        };
        self.keys.extend_from_slice(entry.key);
        self.key_ends.push(small(self.keys.len()));
        self.values.extend_from_slice(entry.value);
        self.value_ends.push(small(self.values.len()));
        self.seqs.push(entry.seq);
        self.kinds.push(entry.kind as u8);
        self.same.push(same);
    }

    /// Rows added since the last finished block.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.kinds.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// Key and seq of the last row.
    #[must_use]
    pub fn last(&self) -> Option<(&[u8], SeqNo)> {
        let row = self.rows().checked_sub(1)?;
        Some((self.key(row), self.seqs[row]))
    }

    /// About the bytes the block would have with one more row, exact but for seqs and short keys.
    #[must_use]
    pub fn len_with(&self, key: &[u8], value_len: usize) -> usize {
        let rows = self.rows() + 1;
        let first = if self.is_empty() { key } else { self.key(0) };
        let prefix = shared_prefix_len(first, key);
        let tails = (self.keys.len() + key.len()).saturating_sub(rows * (prefix + HEAD_LEN));
        32 + prefix + rows * (HEAD_LEN + 2 + 2 + 2) + tails + self.values.len() + value_len
    }

    /// Most bytes the block can have as it is, before its shape is known.
    #[must_use]
    pub fn len_max(&self) -> usize {
        len_max(self.rows(), self.keys.len(), self.values.len())
    }

    /// Appends the block to `out`, which becomes its only content, and forgets the rows.
    ///
    /// # Panics
    /// If there is no row: a block has at least one.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        assert!(!self.is_empty(), "a block without rows");
        let last = self.rows() - 1;
        // A range tombstone may start at a key one byte longer than a prefix can be.
        let prefix = shared_prefix_len(self.key(0), self.key(last)).min(usize::from(u16::MAX));
        let tail_len = (0..=last).map(|row| tail_of(self.key(row), prefix).len()).sum();
        let (base_seq, shape) = self.shape(prefix, tail_len);
        let layout = Layout::of(shape, small(tail_len), small(self.values.len()));
        out.clear();
        out.reserve(layout.end as usize);
        out.extend_from_slice(&[VERSION, shape.flags]);
        out.extend_from_slice(&shape.rows.to_le_bytes());
        out.extend_from_slice(&shape.prefix_len.to_le_bytes());
        out.extend_from_slice(&[shape.seq_width, 0]);
        out.extend_from_slice(&base_seq.to_le_bytes());
        for section in [layout.heads, layout.tails, layout.meta, layout.vals] {
            out.extend_from_slice(&section.to_le_bytes());
        }
        out.extend_from_slice(&self.key(0)[..prefix]);
        pad(out, layout.heads);
        for row in 0..=last {
            out.extend_from_slice(&head(&self.key(row)[prefix..]).to_be_bytes());
        }
        self.write_tails(out, prefix, shape);
        pad(out, layout.meta);
        self.write_meta(out, prefix, shape, base_seq);
        pad(out, layout.vals);
        write_offsets(out, shape, self.value_ends.iter().copied());
        out.extend_from_slice(&self.values);
        assert_eq!(out.len(), layout.end as usize, "the block does not have the layout it names");
        self.clear();
    }

    fn shape(&self, prefix: usize, tail_len: usize) -> (SeqNo, Shape) {
        let base_seq = self.seqs.iter().copied().min().unwrap_or_default();
        let top_seq = self.seqs.iter().copied().max().unwrap_or_default();
        let seq_width = match top_seq - base_seq {
            0 => 0,
            1..=0xFF => 1,
            0x100..=0xFFFF => 2,
            0x1_0000..=0xFFFF_FFFF => 4,
            _ => 8,
        };
        let any_short = (0..self.rows()).any(|row| self.key(row).len() < prefix + HEAD_LEN);
        let wide = tail_len.max(self.values.len()) > usize::from(u16::MAX);
        let mut flags = 0;
        let mut set = |flag, holds| flags |= if holds { flag } else { 0 };
        set(SEQ_ALL_ZERO, top_seq == 0);
        set(ALL_PUT, self.kinds.iter().all(|&kind| kind == Kind::Put as u8));
        set(HAS_SHORT, any_short);
        set(HAS_SAME, self.same.contains(&true));
        set(WIDE_OFFSETS, wide);
        set(VALUES_ARE_HANDLES, self.role == Role::Index);
        let narrow = |count: usize| u16::try_from(count).expect("`add` bounds rows and keys");
        let (rows, prefix_len) = (narrow(self.rows()), narrow(prefix));
        (base_seq, Shape { flags, rows, prefix_len, seq_width })
    }

    fn write_tails(&self, out: &mut Vec<u8>, prefix: usize, shape: Shape) {
        let mut end = 0;
        let ends = (0..self.rows()).map(|row| {
            end += small(tail_of(self.key(row), prefix).len());
            end
        });
        write_offsets(out, shape, ends);
        for row in 0..self.rows() {
            out.extend_from_slice(tail_of(self.key(row), prefix));
        }
    }

    fn write_meta(&self, out: &mut Vec<u8>, prefix: usize, shape: Shape, base_seq: SeqNo) {
        if shape.has(HAS_SHORT) {
            #[expect(clippy::cast_possible_truncation, reason = "at most HEAD_LEN")]
            let short = |row| (self.key(row).len() - prefix).min(HEAD_LEN) as u8;
            out.extend((0..self.rows()).map(short));
        }
        if !shape.has(ALL_PUT) {
            out.extend_from_slice(&self.kinds);
        }
        for seq in &self.seqs {
            let delta = (seq - base_seq).to_le_bytes();
            out.extend_from_slice(&delta[..usize::from(shape.seq_width)]);
        }
        if shape.has(HAS_SAME) {
            let byte = |rows: &[bool]| {
                rows.iter().enumerate().fold(0, |bits, (at, &same)| bits | (u8::from(same) << at))
            };
            out.extend(self.same.chunks(8).map(byte));
        }
    }

    fn key(&self, row: usize) -> &[u8] {
        let start = row.checked_sub(1).map_or(0, |before| self.key_ends[before] as usize);
        &self.keys[start..self.key_ends[row] as usize]
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.key_ends.clear();
        self.values.clear();
        self.value_ends.clear();
        self.seqs.clear();
        self.kinds.clear();
        self.same.clear();
    }
}

fn tail_of(key: &[u8], prefix: usize) -> &[u8] {
    rest(key, prefix + HEAD_LEN)
}

fn pad(out: &mut Vec<u8>, section: u32) {
    out.resize(section as usize, 0);
}

fn write_offsets(out: &mut Vec<u8>, shape: Shape, ends: impl Iterator<Item = u32>) {
    for end in std::iter::once(0).chain(ends) {
        out.extend_from_slice(&end.to_le_bytes()[..shape.offset_width() as usize]);
    }
}

fn small(len: usize) -> u32 {
    u32::try_from(len).expect("`add` keeps blocks below their largest length")
}
