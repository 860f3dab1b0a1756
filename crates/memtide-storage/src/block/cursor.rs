//! Stands on one row of one block and lends it with its whole key.
//!
//! The key is put together in a buffer that moves from row to row and from block to block, so a step
//! allocates only when it meets a key longer than every one before. The cursor pins its block by its
//! [`Arc`]. Which row comes next is the table cursor's business: versions of a key may span blocks.

use memtide_base::sync::Arc;
use memtide_base::{Entry, Slice};

use super::view::BlockView;

/// A position in a block.
#[derive(Debug)]
pub struct BlockCursor {
    view: Arc<BlockView>,
    row: usize,
    key: Vec<u8>,
}

impl BlockCursor {
    /// A cursor on a row of `view`, using the memory of `key`.
    ///
    /// # Panics
    /// If there is no such row: a bug in the caller.
    #[must_use]
    pub fn new(view: Arc<BlockView>, row: usize, key: Vec<u8>) -> Self {
        let mut cursor = Self { view, row, key };
        cursor.stand(row);
        cursor
    }

    /// Moves to another row of the same block.
    ///
    /// # Panics
    /// If there is no such row: a bug in the caller.
    #[inline]
    pub fn stand(&mut self, row: usize) {
        self.view.write_key(row, &mut self.key);
        self.row = row;
    }

    /// Moves to another row of the same block that is known to have the same key.
    #[inline]
    pub fn stand_on_version(&mut self, row: usize) {
        self.row = row;
    }

    /// Moves to a row of another block.
    ///
    /// # Panics
    /// If there is no such row: a bug in the caller.
    pub fn enter(&mut self, view: Arc<BlockView>, row: usize) {
        self.view = view;
        self.stand(row);
    }

    /// The pinned block.
    #[inline]
    #[must_use]
    pub fn view(&self) -> &Arc<BlockView> {
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

    /// The row it stands on.
    #[inline]
    #[must_use]
    pub fn entry(&self) -> Entry<'_> {
        Entry {
            key: &self.key,
            seq: self.view.seq(self.row),
            kind: self.view.kind(self.row),
            value: self.view.value(self.row),
        }
    }

    /// The row's value as a slice that shares the block's bytes.
    #[must_use]
    pub fn value_slice(&self) -> Slice {
        self.view.value_slice(self.row)
    }
}
