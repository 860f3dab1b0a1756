//! Stands on one row of one block and lends it with its whole key.
//!
//! Standing decodes the row once; what is asked of it afterwards costs a look. The key is put together in a
//! buffer that moves from row to row and from block to block and keeps the block's prefix, so a step
//! writes a head and a tail and allocates only when it meets a key longer than every one before. The cursor
//! pins its block by its [`Arc`]. Which row comes next is the table cursor's business: versions of a key may
//! span blocks.

use std::collections::VecDeque;
use std::ops::Range;

use memtide_base::sync::Arc;
use memtide_base::{Entry, Kind, SeqNo, Slice};

use super::view::BlockView;

/// Longer than most keys: their buffer is allocated once.
const KEY_CAPACITY: usize = 64;

/// A position in a block.
#[derive(Debug)]
pub struct BlockCursor {
    view: Arc<BlockView>,
    row: usize,
    seq: SeqNo,
    kind: Kind,
    value: Range<usize>,
    key: Vec<u8>,
    /// Whether `key` begins with the prefix of `view`.
    prefixed: bool,
}

impl BlockCursor {
    /// A cursor that has a block and stands on none of its rows yet.
    #[must_use]
    pub fn new(view: Arc<BlockView>) -> Self {
        let key = Vec::with_capacity(KEY_CAPACITY);
        Self { view, row: 0, seq: 0, kind: Kind::Put, value: 0..0, key, prefixed: false }
    }

    /// Moves to another row of the same block.
    ///
    /// # Panics
    /// If there is no such row: a bug in the caller.
    #[inline]
    pub fn stand(&mut self, row: usize) {
        self.write_key(row);
        self.stand_on_version(row);
    }

    #[inline]
    fn write_key(&mut self, row: usize) {
        if self.prefixed {
            self.key.truncate(self.view.prefix().len());
        } else {
            self.key.clear();
            self.key.extend_from_slice(self.view.prefix());
            self.prefixed = true;
        }
        self.view.push_suffix(row, &mut self.key);
    }

    /// Moves to another row of the same block that is known to have the same key.
    #[inline]
    pub fn stand_on_version(&mut self, row: usize) {
        self.row = row;
        self.seq = self.view.seq(row);
        self.kind = self.view.kind(row);
        self.value = self.view.value_range(row);
    }

    /// Appends key and value of each of `rows` to `out`, the last row first if not `forward`, and stands on the
    /// one shown last; stops in front of the first that a read below `below` does not see.
    #[inline]
    pub fn show(
        &mut self,
        rows: Range<usize>,
        forward: bool,
        below: SeqNo,
        out: &mut VecDeque<(Slice, Slice)>,
    ) {
        let mut last = None;
        for step in 0..rows.len() {
            let row = if forward { rows.start + step } else { rows.end - 1 - step };
            if self.view.seq(row) >= below {
                break;
            }
            self.write_key(row);
            out.push_back((Slice::copy_of(&self.key), self.view.value_slice(row)));
            last = Some(row);
        }
        if let Some(row) = last {
            self.stand_on_version(row);
        }
    }

    /// Takes another block, whose rows it stands on next; until then only the key is that of the row before.
    #[inline]
    pub fn pin(&mut self, view: Arc<BlockView>) {
        self.view = view;
        self.prefixed = false;
    }

    /// The pinned block.
    #[inline]
    #[must_use]
    pub fn view(&self) -> &BlockView {
        &self.view
    }

    /// The row it stands on.
    #[inline]
    #[must_use]
    pub fn row(&self) -> usize {
        self.row
    }

    /// The key it stands on.
    #[inline]
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The kind of the row it stands on.
    #[inline]
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The row it stands on.
    #[inline]
    #[must_use]
    pub fn entry(&self) -> Entry<'_> {
        Entry {
            key: &self.key,
            seq: self.seq,
            kind: self.kind,
            value: self.view.bytes(self.value.clone()),
        }
    }

    /// The row's value as a slice that shares the block's bytes.
    #[inline]
    #[must_use]
    pub fn value_slice(&self) -> Slice {
        self.view.slice(self.value.clone())
    }
}
