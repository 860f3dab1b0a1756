//! A validated block, answering searches and row reads from its bytes as they lie.
//!
//! [`BlockView::decode`] walks every row once: offsets in bounds and rising, padding zero, kinds known,
//! rows in order, same bits true. A block that passes can be read by row number without surprises; the
//! reads use checked slices all the same, and nothing here is `unsafe`.
//!
//! A search compares eight-byte heads as integers and touches tails, seqs and kinds only for rows whose
//! heads tie with the wanted key.

use std::cmp::Ordering;
use std::ops::Range;

use memtide_base::key::{head, rest};
use memtide_base::sync::Arc;
use memtide_base::{Kind, SeqNo, Slice};

use super::format::{
    ALL_PUT, BLOCK_LEN_MAX, HAS_SAME, HAS_SHORT, HEADER_LEN as HEADER, KNOWN_FLAGS, Layout, Role,
    SEQ_ALL_ZERO, Shape, VALUES_ARE_HANDLES, VERSION, WIDE_OFFSETS,
};

const HEAD_LEN: usize = 8;
const HEADER_LEN: usize = HEADER as usize;

/// One validated block, shared by the cache and the cursors that stand in it.
pub struct BlockView {
    bytes: Arc<[u8]>,
    shape: Shape,
    layout: Layout,
    base_seq: SeqNo,
}

/// Where a wanted key lies with respect to the keys that share the block's prefix.
enum Place<'k> {
    Below,
    Above,
    Among { head: u64, short: usize, tail: &'k [u8] },
}

impl BlockView {
    /// Validates `bytes[..len]` as a block of `role`; the bytes behind `len` (a trailer) are ignored.
    ///
    /// # Errors
    /// A sentence about the first thing that is wrong; the caller knows file and offset.
    pub fn decode(bytes: Arc<[u8]>, len: usize, role: Role) -> Result<Self, String> {
        let payload = bytes.get(..len).ok_or("longer than its bytes")?;
        let (shape, base_seq, stored) = read_header(payload, role)?;
        let layout = locate(payload, shape)?;
        if stored != [layout.heads, layout.tails, layout.meta, layout.vals] {
            return Err(format!("sections at {stored:?} do not follow from {shape:?}"));
        }
        let view = Self { bytes, shape, layout, base_seq };
        view.check_padding()?;
        for row in 0..view.rows() {
            view.check_row(row, role)?;
        }
        Ok(view)
    }

    /// Begins to load what a search and a first row need from different columns, so that their cache misses
    /// overlap instead of following each other.
    #[inline]
    pub fn warm(&self) {
        const LINE: u32 = 64;
        let Layout { heads, tails, seqs, vals, .. } = self.layout;
        let middle = u32::midpoint(heads, tails);
        for at in [heads, middle, tails - 1, (tails + LINE).min(vals), seqs, vals, vals + LINE] {
            if let Some(byte) = self.bytes.get(at as usize) {
                // Nothing waits for it.
                std::hint::black_box(*byte);
            }
        }
    }

    /// Rows of the block, at least 1.
    #[inline]
    #[must_use]
    pub fn rows(&self) -> usize {
        usize::from(self.shape.rows)
    }

    /// Heap bytes the block holds.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        // Two counters stand before the bytes of an `Arc`.
        size_of::<Self>() + self.bytes.len() + 2 * size_of::<usize>()
    }

    /// Sequence number of a row.
    ///
    /// # Panics
    /// As every method that takes a row: if there is no such row, a bug in the caller.
    #[inline]
    #[must_use]
    pub fn seq(&self, row: usize) -> SeqNo {
        self.base_seq.wrapping_add(self.seq_delta(row))
    }

    /// Kind of a row.
    #[inline]
    #[must_use]
    pub fn kind(&self, row: usize) -> Kind {
        if self.shape.has(ALL_PUT) {
            return Kind::Put;
        }
        let byte = self.bytes[self.layout.kinds as usize + row];
        Kind::from_byte(byte).expect("kinds are validated when the block is decoded")
    }

    /// Value of a row.
    #[inline]
    #[must_use]
    pub fn value(&self, row: usize) -> &[u8] {
        &self.bytes[self.value_range(row)]
    }

    /// Value of a row as a slice that shares the block's bytes.
    #[inline]
    #[must_use]
    pub fn value_slice(&self, row: usize) -> Slice {
        let Range { start, end } = self.value_range(row);
        Slice::part_of(&self.bytes, start, end)
    }

    /// Replaces `key` by the key of a row.
    #[inline]
    pub fn write_key(&self, row: usize, key: &mut Vec<u8>) {
        key.clear();
        key.extend_from_slice(self.prefix());
        self.push_suffix(row, key);
    }

    /// Appends to `key` what a row's key has behind the prefix.
    #[inline]
    pub(super) fn push_suffix(&self, row: usize, key: &mut Vec<u8>) {
        key.extend_from_slice(&self.heads()[row]);
        if self.shape.has(HAS_SHORT) {
            // What a head has behind its key is padding, and such a key has no tail.
            key.truncate(key.len() + self.short(row) - HEAD_LEN);
        }
        let tail = self.span(self.layout.tails, self.layout.tail_bytes, row);
        match self.bytes[tail.start..].first_chunk::<HEAD_LEN>() {
            // Whatever follows the tail, a copy of fixed length is cheaper than one of the right length.
            Some(chunk) if tail.len() <= HEAD_LEN => {
                let len = key.len() + tail.len();
                key.extend_from_slice(chunk);
                key.truncate(len);
            }
            _ => key.extend_from_slice(&self.bytes[tail]),
        }
    }

    /// Whether a row's key is `key`.
    #[inline]
    #[must_use]
    pub fn key_is(&self, row: usize, key: &[u8]) -> bool {
        match self.place(key) {
            Place::Among { head, short, tail } => self.compare(row, head, short, tail).is_eq(),
            _ => false,
        }
    }

    /// The first row that is not before `key` at a read below `below`: its key is larger, or it is the
    /// newest version of `key` with `seq < below`. `rows()` if there is none.
    #[inline]
    #[must_use]
    pub fn lower_bound(&self, key: &[u8], below: SeqNo) -> usize {
        self.find(key, below).unwrap_or_else(|row| row)
    }

    /// The row of the newest version of `key` with `seq < below`.
    ///
    /// # Errors
    /// There is none; the row is that of [`BlockView::lower_bound`].
    #[inline]
    pub fn find(&self, key: &[u8], below: SeqNo) -> Result<usize, usize> {
        self.search(key, |order, row| order.is_lt() || (order.is_eq() && self.seq(row) >= below))
    }

    /// The first row whose key is not below `key`.
    #[inline]
    #[must_use]
    pub fn first_at_least(&self, key: &[u8]) -> usize {
        self.search(key, |order, _| order.is_lt()).unwrap_or_else(|row| row)
    }

    /// The first row whose key is above `key`.
    #[inline]
    #[must_use]
    pub fn first_above(&self, key: &[u8]) -> usize {
        self.search(key, |order, _| order.is_le()).unwrap_or_else(|row| row)
    }

    /// The first row of `run`, rows of one key, that a read below `below` sees; `run.end` if none.
    #[inline]
    #[must_use]
    pub fn first_visible(&self, run: Range<usize>, below: SeqNo) -> usize {
        // The newest is visible nearly always.
        if run.is_empty() || self.seq(run.start) < below {
            return run.start;
        }
        partition_point(run, |row| self.seq(row) >= below)
    }

    /// Whether every row is a put and the only one of its key in this block.
    #[inline]
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.shape.has(ALL_PUT) && !self.shape.has(HAS_SAME)
    }

    /// Whether a row has the key of the row before it in this block.
    #[inline]
    #[must_use]
    pub fn repeats_key(&self, row: usize) -> bool {
        let bits = self.layout.same as usize;
        self.shape.has(HAS_SAME) && self.bytes[bits + row / 8] >> (row % 8) & 1 == 1
    }

    /// First row of this block with the key of `row`.
    #[inline]
    #[must_use]
    pub fn run_start(&self, mut row: usize) -> usize {
        while self.repeats_key(row) {
            row -= 1;
        }
        row
    }

    /// First row behind `row` with another key, or `rows()`.
    #[inline]
    #[must_use]
    pub fn run_end(&self, row: usize) -> usize {
        let mut end = row + 1;
        while end < self.rows() && self.repeats_key(end) {
            end += 1;
        }
        end
    }

    /// The first row for which `before` does not hold; an error if its key is another.
    #[inline]
    fn search(&self, key: &[u8], before: impl Fn(Ordering, usize) -> bool) -> Result<usize, usize> {
        let (head, short, tail) = match self.place(key) {
            Place::Below => return Err(0),
            Place::Above => return Err(self.rows()),
            Place::Among { head, short, tail } => (head, short, tail),
        };
        let heads = self.heads();
        let start = count_below(heads, head);
        let ties = |row: usize| heads.get(row).is_some_and(|h| u64::from_be_bytes(*h) == head);
        if !ties(start) {
            return Err(start);
        }
        if !ties(start + 1) {
            let order = self.compare(start, head, short, tail);
            let row = start + usize::from(before(order, start));
            return if row == start && order.is_eq() { Ok(row) } else { Err(row) };
        }
        let end = start + heads[start..].partition_point(|h| u64::from_be_bytes(*h) == head);
        let order = |row: usize| self.compare(row, head, short, tail);
        let row = partition_point(start..end, |row| before(order(row), row));
        if row < end && order(row).is_eq() { Ok(row) } else { Err(row) }
    }

    #[inline]
    fn place<'k>(&self, key: &'k [u8]) -> Place<'k> {
        let prefix = self.prefix();
        let Some((start, suffix)) = key.split_at_checked(prefix.len()) else {
            return if key > prefix { Place::Above } else { Place::Below };
        };
        match start.cmp(prefix) {
            Ordering::Less => Place::Below,
            Ordering::Greater => Place::Above,
            Ordering::Equal => Place::Among {
                head: head(suffix),
                short: suffix.len().min(HEAD_LEN),
                tail: rest(suffix, HEAD_LEN),
            },
        }
    }

    #[inline]
    fn compare(&self, row: usize, head: u64, short: usize, tail: &[u8]) -> Ordering {
        let stored = u64::from_be_bytes(self.heads()[row]);
        stored
            .cmp(&head)
            .then_with(|| self.short(row).cmp(&short))
            .then_with(|| self.tail(row).cmp(tail))
    }

    #[inline]
    pub(super) fn prefix(&self) -> &[u8] {
        &self.bytes[HEADER_LEN..HEADER_LEN + usize::from(self.shape.prefix_len)]
    }

    #[inline]
    fn heads(&self) -> &[[u8; HEAD_LEN]] {
        let column = &self.bytes[self.layout.heads as usize..self.layout.tails as usize];
        column.as_chunks().0
    }

    /// Bytes of a row's head that belong to its key.
    #[inline]
    fn short(&self, row: usize) -> usize {
        if !self.shape.has(HAS_SHORT) {
            return HEAD_LEN;
        }
        usize::from(self.bytes[self.layout.meta as usize + row])
    }

    #[inline]
    fn tail(&self, row: usize) -> &[u8] {
        &self.bytes[self.span(self.layout.tails, self.layout.tail_bytes, row)]
    }

    /// Where the value of a row lies in the block.
    #[inline]
    fn value_range(&self, row: usize) -> Range<usize> {
        self.span(self.layout.vals, self.layout.value_bytes, row)
    }

    /// Where the bytes of `row` lie whose offsets are at `column` and count from `from`.
    #[inline]
    fn span(&self, column: u32, from: u32, row: usize) -> Range<usize> {
        let from = from as usize;
        if self.shape.has(WIDE_OFFSETS) {
            return from + self.offset(column, row)..from + self.offset(column, row + 1);
        }
        // Both at once: they lie side by side.
        let stored = &self.bytes[column as usize + 2 * row..][..4];
        let [start, end] = [[stored[0], stored[1]], [stored[2], stored[3]]].map(u16::from_le_bytes);
        from + usize::from(start)..from + usize::from(end)
    }

    #[inline]
    fn offset(&self, column: u32, at: usize) -> usize {
        read_offset(&self.bytes, self.shape, column, at)
    }

    #[inline]
    fn seq_delta(&self, row: usize) -> u64 {
        let width = usize::from(self.shape.seq_width);
        let start = self.layout.seqs as usize + row * width;
        let stored = &self.bytes[start..start + width];
        match *stored {
            [] => 0,
            [byte] => u64::from(byte),
            [a, b] => u64::from(u16::from_le_bytes([a, b])),
            [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
            _ => stored.iter().rev().fold(0, |seq, &byte| seq << 8 | u64::from(byte)),
        }
    }

    fn check_padding(&self) -> Result<(), String> {
        let Layout { heads, tail_bytes, meta, same, vals, .. } = self.layout;
        let prefix_end = HEADER_LEN + usize::from(self.shape.prefix_len);
        let tails_end = tail_bytes as usize + self.offset(self.layout.tails, self.rows());
        let same_len = if self.shape.has(HAS_SAME) { self.rows().div_ceil(8) } else { 0 };
        let same_end = same as usize + same_len;
        for gap in [prefix_end..heads as usize, tails_end..meta as usize, same_end..vals as usize] {
            if self.bytes[gap.clone()].iter().any(|&byte| byte != 0) {
                return Err(format!("padding {gap:?} is not zero"));
            }
        }
        let past_rows = (self.rows()..same_len * 8).any(|row| self.repeats_key(row));
        if past_rows || self.repeats_key(0) {
            return Err("a same bit is set that belongs to no pair of rows".to_string());
        }
        Ok(())
    }

    fn check_row(&self, row: usize, role: Role) -> Result<(), String> {
        for column in [self.layout.tails, self.layout.vals] {
            // The last offset is the column's length and known to be in bounds.
            let [start, end, len] = [row, row + 1, self.rows()].map(|at| self.offset(column, at));
            if start > end || end > len || (row == 0 && start != 0) {
                return Err(format!("row {row}: bytes {start}..{end} of {len}"));
            }
        }
        let short = self.short(row);
        let padded = short < HEAD_LEN
            && (self.heads()[row][short..] != [0; HEAD_LEN][short..] || !self.tail(row).is_empty());
        if short > HEAD_LEN || padded {
            return Err(format!("row {row}: a key of {short} B behind the prefix has more bytes"));
        }
        if !self.shape.has(ALL_PUT) {
            let byte = self.bytes[self.layout.kinds as usize + row];
            if !Kind::from_byte(byte).is_some_and(|kind| role.admits(kind)) {
                return Err(format!("row {row}: kind {byte}"));
            }
        }
        if self.base_seq.checked_add(self.seq_delta(row)).is_none() {
            return Err(format!("row {row}: seq above 64 bits"));
        }
        row.checked_sub(1).map_or(Ok(()), |before| self.check_order(before, row, role))
    }

    fn check_order(&self, before: usize, row: usize, role: Role) -> Result<(), String> {
        let (stored, short, tail) = (self.heads()[row], self.short(row), self.tail(row));
        let order = self.compare(before, u64::from_be_bytes(stored), short, tail);
        let in_order = match order {
            Ordering::Less => true,
            Ordering::Equal => role == Role::Index || self.seq(before) > self.seq(row),
            Ordering::Greater => false,
        };
        if !in_order {
            return Err(format!("row {row} is not above row {before}"));
        }
        if self.repeats_key(row) != order.is_eq() {
            return Err(format!("row {row}: wrong same bit"));
        }
        Ok(())
    }
}

impl std::fmt::Debug for BlockView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockView").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// Shape, base seq and the four stored section offsets.
fn read_header(payload: &[u8], role: Role) -> Result<(Shape, SeqNo, [u32; 4]), String> {
    let header = payload.first_chunk::<HEADER_LEN>().ok_or("shorter than its header")?;
    let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| header[at + i]));
    let [version, flags, rows_low, rows_high, prefix_low, prefix_high, seq_width, zero, ..] =
        *header;
    if version != VERSION {
        return Err(format!("block version {version}, this build reads {VERSION}"));
    }
    let shape = Shape {
        flags,
        rows: u16::from_le_bytes([rows_low, rows_high]),
        prefix_len: u16::from_le_bytes([prefix_low, prefix_high]),
        seq_width,
    };
    let base_seq = u64::from(word(8)) | u64::from(word(12)) << 32;
    let of_index = shape.has(VALUES_ARE_HANDLES) && shape.has(SEQ_ALL_ZERO) && shape.has(ALL_PUT);
    let sound = flags & !KNOWN_FLAGS == 0
        && shape.rows > 0
        && matches!(seq_width, 0 | 1 | 2 | 4 | 8)
        && zero == 0
        // Whole keys are bounded as the block is, so a shared prefix cannot multiply its bytes.
        && usize::from(shape.rows) * usize::from(shape.prefix_len) <= BLOCK_LEN_MAX
        && (!shape.has(SEQ_ALL_ZERO) || (base_seq == 0 && seq_width == 0))
        && (!shape.has(ALL_PUT) || role.admits(Kind::Put))
        && (if role == Role::Index { of_index } else { !shape.has(VALUES_ARE_HANDLES) });
    if !sound {
        return Err(format!("no {role:?} block has {shape:?} and base seq {base_seq}"));
    }
    Ok((shape, base_seq, [word(16), word(20), word(24), word(28)]))
}

/// The layout of a block of `shape`, whose length must be that of the payload.
fn locate(payload: &[u8], shape: Shape) -> Result<Layout, String> {
    let last = |column: u32, end: u32| {
        let rows = usize::from(shape.rows);
        let present = end as usize <= payload.len();
        let len = if present { read_offset(payload, shape, column, rows) } else { usize::MAX };
        // Bounded, so that the layout's arithmetic cannot overflow.
        let bounded = u32::try_from(len).ok().filter(|_| len <= payload.len().min(BLOCK_LEN_MAX));
        bounded.ok_or_else(|| format!("{} B cannot hold the columns of {shape:?}", payload.len()))
    };
    let no_bytes = Layout::of(shape, 0, 0);
    let tail_len = last(no_bytes.tails, no_bytes.tail_bytes)?;
    let no_values = Layout::of(shape, tail_len, 0);
    let value_len = last(no_values.vals, no_values.value_bytes)?;
    let layout = Layout::of(shape, tail_len, value_len);
    if layout.end as usize != payload.len() {
        return Err(format!("{} B, its columns take {}", payload.len(), layout.end));
    }
    Ok(layout)
}

#[inline]
fn read_offset(bytes: &[u8], shape: Shape, column: u32, at: usize) -> usize {
    let column = &bytes[column as usize..];
    if shape.has(WIDE_OFFSETS) {
        let stored = &column[4 * at..4 * at + 4];
        u32::from_le_bytes([stored[0], stored[1], stored[2], stored[3]]) as usize
    } else {
        let stored = &column[2 * at..2 * at + 2];
        usize::from(u16::from_le_bytes([stored[0], stored[1]]))
    }
}

/// How many of the heads, which ascend, are below `head`.
///
/// Halving would wait for one cache miss after the other in a block that was not read lately. The comparisons of
/// one round here do not depend on each other, so their misses overlap.
#[inline]
fn count_below(heads: &[[u8; HEAD_LEN]], head: u64) -> usize {
    const FAN: usize = 8;
    let is_below = |stored: &[u8; HEAD_LEN]| u64::from_be_bytes(*stored) < head;
    let mut rest = heads;
    let mut count = 0;
    while rest.len() > 2 * FAN {
        let step = rest.len() / FAN;
        let parts = (1..FAN).filter(|part| is_below(&rest[part * step])).count();
        let end = if parts + 1 == FAN { rest.len() } else { (parts + 1) * step };
        rest = &rest[parts * step..end];
        count += parts * step;
    }
    count + rest.iter().filter(|stored| is_below(stored)).count()
}

/// First row of `rows` for which `before` no longer holds.
fn partition_point(rows: Range<usize>, before: impl Fn(usize) -> bool) -> usize {
    let Range { mut start, mut end } = rows;
    while start < end {
        let middle = start.midpoint(end);
        if before(middle) {
            start = middle + 1;
        } else {
            end = middle;
        }
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockBuilder;
    use memtide_base::Entry;
    use memtide_base::seqno::SEE_ALL;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Rows = BTreeMap<(Vec<u8>, std::cmp::Reverse<SeqNo>), (Kind, Vec<u8>)>;

    fn rows() -> impl Strategy<Value = Rows> {
        let byte = prop_oneof![Just(0_u8), Just(0xFF), Just(b'a'), any::<u8>()];
        let key = (any::<bool>(), prop::collection::vec(byte, 0..20)).prop_map(|(long, suffix)| {
            [if long { &b"shared prefix"[..] } else { b"" }, &suffix].concat()
        });
        let seq = prop_oneof![0..9_u64, any::<u64>()].prop_map(std::cmp::Reverse);
        let kind = prop_oneof![3 => Just(Kind::Put), 1 => Just(Kind::Delete)];
        let row = (kind, prop::collection::vec(any::<u8>(), 0..30));
        prop::collection::btree_map((key, seq), row, 1..60)
    }

    fn block_of(rows: &Rows) -> Vec<u8> {
        let mut builder = BlockBuilder::new(Role::Data);
        for ((key, seq), (kind, value)) in rows {
            builder.add(Entry { key, seq: seq.0, kind: *kind, value });
        }
        let mut block = Vec::new();
        builder.finish(&mut block);
        block
    }

    fn decode(block: &[u8], role: Role) -> Result<BlockView, String> {
        BlockView::decode(Arc::from(block), block.len(), role)
    }

    /// Reads all a block offers; must not panic whatever the block is.
    fn read_all(view: &BlockView) {
        let mut key = Vec::new();
        for row in 0..view.rows() {
            view.write_key(row, &mut key);
            let _ = (view.seq(row), view.kind(row), view.value(row), view.value_slice(row));
            assert!(view.key_is(row, &key));
            assert!(view.run_start(row) <= row && row < view.run_end(row));
            assert!(view.lower_bound(&key, SEE_ALL) <= view.first_above(&key));
        }
    }

    #[test]
    fn keys_that_differ_only_in_trailing_zeros_are_told_apart() {
        let keys: [&[u8]; 6] = [b"", b"\0", b"\0\0", &[0; 7], &[0; 8], &[0; 9]];
        let rows: Rows = keys
            .iter()
            .map(|key| ((key.to_vec(), std::cmp::Reverse(1)), (Kind::Put, key.to_vec())))
            .collect();
        let view = decode(&block_of(&rows), Role::Data).expect("a block as built");
        for (row, key) in keys.iter().enumerate() {
            assert_eq!(view.lower_bound(key, 2), row);
            assert_eq!(view.value(row), *key);
        }
    }

    #[test]
    fn heads_below_are_counted_whatever_their_number() {
        for len in (0..300).chain([1000, 65_535]) {
            let heads: Vec<_> = (0..len).map(|head: u64| (head / 3 * 2).to_be_bytes()).collect();
            for head in (0..len.min(300)).chain([len / 2, len, u64::MAX]) {
                let want = heads.partition_point(|stored| u64::from_be_bytes(*stored) < head);
                assert_eq!(count_below(&heads, head), want, "below {head} among {len}");
            }
        }
    }

    proptest! {
        #[test]
        fn every_row_reads_back_and_every_bound_is_where_the_model_has_it(
            rows in rows(),
            other in prop::collection::vec(any::<u8>(), 0..16),
            below in prop_oneof![0..10_u64, any::<u64>()],
        ) {
            let view = decode(&block_of(&rows), Role::Data).expect("a block as built");
            prop_assert_eq!(view.rows(), rows.len());
            let mut key = Vec::new();
            for (row, ((want, seq), (kind, value))) in rows.iter().enumerate() {
                view.write_key(row, &mut key);
                prop_assert_eq!(&key, want);
                prop_assert_eq!((view.seq(row), view.kind(row)), (seq.0, *kind));
                prop_assert_eq!(view.value(row), value.as_slice());
                prop_assert_eq!(&view.value_slice(row), value);
            }
            for key in rows.keys().map(|(key, _)| key).chain([&other, &b"shared".to_vec()]) {
                let at = rows.keys().position(|(k, s)| k > key || (k == key && s.0 < below));
                prop_assert_eq!(view.lower_bound(key, below), at.unwrap_or(rows.len()));
                let row_is_of = |row: usize| rows.keys().nth(row).is_some_and(|(k, _)| k == key);
                prop_assert_eq!(view.find(key, below).is_ok(), at.is_some_and(row_is_of));
                let first = rows.keys().position(|(k, _)| k >= key).unwrap_or(rows.len());
                let above = rows.keys().position(|(k, _)| k > key).unwrap_or(rows.len());
                prop_assert_eq!((view.first_at_least(key), view.first_above(key)), (first, above));
                if first < above {
                    prop_assert_eq!((view.run_start(above - 1), view.run_end(first)), (first, above));
                    prop_assert_eq!(view.first_visible(first..above, below), at.unwrap_or(above).min(above));
                }
            }
        }

        #[test]
        fn hostile_changes_of_a_block_are_refused_or_readable(
            rows in rows(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut block = block_of(&rows);
            for (at, byte) in changes {
                // Headers and offsets are where the danger is; values are most of the bytes.
                let at = if byte % 2 == 0 { at.index(40) } else { at.index(block.len()) };
                block[at] = byte;
            }
            for role in [Role::Data, Role::Index, Role::RangeDelete] {
                let _ = decode(&block, role).map(|view| read_all(&view));
                let _ = decode(&block[..cut.index(block.len())], role).map(|view| read_all(&view));
            }
        }

        #[test]
        fn random_bytes_never_panic(mut block in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&block, Role::Data).map(|view| read_all(&view));
            if let Some(start) = block.first_chunk_mut() {
                *start = [VERSION, 4, 2, 0, 0, 0, 1, 0];
            }
            let _ = decode(&block, Role::Data).map(|view| read_all(&view));
        }
    }
}
