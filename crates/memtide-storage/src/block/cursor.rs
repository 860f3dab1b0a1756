//! Stands on one row of one block and lends it with its whole key.
//!
//! The key is put together in a buffer that moves from row to row and from block to block and keeps the block's
//! prefix, so a step writes a head and a tail and allocates only when it meets a key longer than every one before.
//! Everything else of a row is read where it lies, when it is asked for. The cursor pins its block by its [`Arc`].
//! Which row comes next is the table cursor's business: versions of a key may span blocks.

use memtide_base::sync::Arc;
use memtide_base::{Entry, Kind, Slice};

use super::view::BlockView;

/// Longer than most keys: their buffer is allocated once.
const KEY_CAPACITY: usize = 64;

/// A position in a block.
#[derive(Debug)]
pub struct BlockCursor {
    view: Arc<BlockView>,
    row: usize,
    key: Vec<u8>,
    /// Whether `key` begins with the prefix of `view`.
    prefixed: bool,
}

impl BlockCursor {
    /// A cursor that has a block and stands on none of its rows yet.
    #[must_use]
    pub fn new(view: Arc<BlockView>) -> Self {
        Self { view, row: 0, key: Vec::with_capacity(KEY_CAPACITY), prefixed: false }
    }

    /// Moves to another row of the same block.
    ///
    /// # Panics
    /// If there is no such row: a bug in the caller.
    #[inline]
    pub fn stand(&mut self, row: usize) {
        if self.prefixed {
            self.key.truncate(self.view.prefix().len());
        } else {
            self.key.clear();
            self.key.extend_from_slice(self.view.prefix());
            self.prefixed = true;
        }
        self.view.push_suffix(row, &mut self.key);
        self.row = row;
    }

    /// Moves to another row of the same block that is known to have the same key.
    #[inline]
    pub fn stand_on_version(&mut self, row: usize) {
        self.row = row;
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
        self.view.kind(self.row)
    }

    /// The value of the row it stands on.
    #[inline]
    #[must_use]
    pub fn value(&self) -> &[u8] {
        self.view.value(self.row)
    }

    /// The row it stands on.
    #[inline]
    #[must_use]
    pub fn entry(&self) -> Entry<'_> {
        let (seq, kind) = (self.view.seq(self.row), self.kind());
        Entry { key: &self.key, seq, kind, value: self.value() }
    }

    /// The row's value as a slice that shares the block's bytes.
    #[inline]
    #[must_use]
    pub fn value_slice(&self) -> Slice {
        self.view.value_slice(self.row)
    }
}
