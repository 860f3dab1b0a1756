//! Walks a table by user key, both ways, one pinned block at a time.
//!
//! The cursor stands on a row of a data block and knows that block's number in the index. Inside a block
//! a step is a look at the same bits and one key put together; at a block's end the next block comes from
//! the cache or the file. A key's versions may span blocks, newest first, so
//! - walking forward skips rows that still have the key just shown at the head of the next block, and
//! - walking backward, having found a key at the head of a block, looks into the blocks before for newer
//!   visible versions of it.
//!
//! Nothing allocates but the key buffer, which grows to the largest key met, and blocks that are read.

use memtide_base::sync::Arc;
use memtide_base::{Cursor, Entry, Result, SeqNo, Slice, Target};

use super::reader::Table;
use crate::block::{BlockCursor, BlockView};

/// A cursor over the point entries of one table with `seq < below`.
#[derive(Debug)]
pub struct TableCursor {
    table: Arc<Table>,
    below: SeqNo,
    /// Number of the block that `at` pins.
    block: usize,
    /// `None` until the first block is pinned.
    at: Option<BlockCursor>,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Nowhere,
    /// On the entry `at` stands on.
    Entry,
    /// On the key of the entry `at` stands on, behind its last version.
    BehindVersions,
}

impl TableCursor {
    pub(super) fn new(table: Arc<Table>, below: SeqNo) -> Self {
        Self { table, below, block: 0, at: None, standing: Standing::Nowhere }
    }

    /// The value the cursor stands on, sharing the block's bytes if it is long.
    ///
    /// # Panics
    /// If the cursor stands on no entry: a bug in the caller.
    #[must_use]
    pub fn value(&self) -> Slice {
        self.here().value_slice()
    }

    fn here(&self) -> &BlockCursor {
        assert_eq!(self.standing, Standing::Entry, "the cursor stands on no entry");
        self.at.as_ref().expect("a cursor that stands somewhere pins a block")
    }

    /// The pinned block, if it is `block`; else that block, read.
    fn fetch(&self, block: usize) -> Result<Arc<BlockView>> {
        match &self.at {
            Some(at) if self.block == block => Ok(Arc::clone(at.view())),
            _ => self.table.block(block),
        }
    }

    fn stand(&mut self, block: usize, view: &Arc<BlockView>, row: usize) {
        match &mut self.at {
            Some(at) if self.block == block => at.stand(row),
            Some(at) => at.enter(Arc::clone(view), row),
            None => self.at = Some(BlockCursor::new(Arc::clone(view), row, Vec::new())),
        }
        self.block = block;
        self.standing = Standing::Entry;
    }

    /// Whether row `row` of `view` has the key the cursor stands on or stood on last.
    fn is_current(&self, view: &BlockView, row: usize) -> bool {
        self.at.as_ref().is_some_and(|at| view.key_is(row, at.key()))
    }

    /// Stands on the newest visible version of the first key at or behind `row` of `block` that has
    /// one; with `skip`, rows that go on with the current key at a block's head do not count.
    fn forward(
        &mut self,
        mut block: usize,
        mut view: Arc<BlockView>,
        mut row: usize,
        mut skip: bool,
    ) -> Result<bool> {
        loop {
            if skip && row == 0 && self.is_current(&view, 0) {
                row = view.run_end(0);
            }
            // Only a block that ends with the current key lets it go on in the next.
            skip &= row == view.rows();
            while row < view.rows() {
                let run = row..view.run_end(row);
                row = view.first_visible(run.clone(), self.below);
                if row < run.end {
                    self.stand(block, &view, row);
                    return Ok(true);
                }
            }
            (block, row) = (block + 1, 0);
            if block >= self.table.blocks() {
                return Ok(false);
            }
            view = self.fetch(block)?;
        }
    }

    /// Stands on the newest visible version of the last key before row `end` of `block` that has one;
    /// with `skip`, rows that go on with the current key at a block's end do not count.
    fn backward(
        &mut self,
        mut block: usize,
        mut view: Arc<BlockView>,
        mut end: usize,
        mut skip: bool,
    ) -> Result<bool> {
        loop {
            if skip && end == view.rows() && self.is_current(&view, end - 1) {
                end = view.run_start(end - 1);
            }
            skip &= end == 0;
            while end > 0 {
                let run = view.run_start(end - 1)..end;
                let row = view.first_visible(run.clone(), self.below);
                if row < run.end {
                    self.stand(block, &view, row);
                    return self.rise_to_newest().map(|()| true);
                }
                end = run.start;
            }
            let Some(before) = block.checked_sub(1) else { return Ok(false) };
            block = before;
            view = self.fetch(block)?;
            end = view.rows();
        }
    }

    /// Moves from a visible version at a block's head to the newest visible one of the same key.
    fn rise_to_newest(&mut self) -> Result<()> {
        let table = Arc::clone(&self.table);
        while let (Some(at), Some(before)) = (&self.at, self.block.checked_sub(1)) {
            // A block that goes on into the next ends with the key its separator is.
            let separated = table.index().is_none_or(|index| !index.key_is(before, at.key()));
            if at.row() > 0 || separated {
                break;
            }
            let view = table.block(before)?;
            let last = view.rows() - 1;
            if !view.key_is(last, at.key()) || view.seq(last) >= self.below {
                break;
            }
            let row = view.first_visible(view.run_start(last)..last + 1, self.below);
            self.stand(before, &view, row);
        }
        Ok(())
    }

    /// Runs a move; whatever does not end on an entry ends nowhere.
    fn move_by(&mut self, go: impl FnOnce(&mut Self) -> Result<bool>) -> Result<bool> {
        let moved = go(self);
        if !matches!(moved, Ok(true)) {
            self.standing = Standing::Nowhere;
        }
        moved
    }

    fn seek_le(&mut self, key: &[u8]) -> Result<bool> {
        let Some(index) = self.table.index() else { return Ok(false) };
        // No key at or below `key` lies behind the first block whose separator is above it.
        let block = index.first_above(key).min(index.rows() - 1);
        let view = self.fetch(block)?;
        let end = view.first_above(key);
        self.backward(block, view, end, false)
    }

    fn seek_ge(&mut self, key: &[u8]) -> Result<bool> {
        let Some(index) = self.table.index() else { return Ok(false) };
        let block = index.first_at_least(key);
        if block == index.rows() {
            return Ok(false);
        }
        let view = self.fetch(block)?;
        let row = view.lower_bound(key, self.below);
        self.forward(block, view, row, false)
    }

    fn seek_end(&mut self, to_last: bool) -> Result<bool> {
        let Some(last) = self.table.blocks().checked_sub(1) else { return Ok(false) };
        if to_last {
            let view = self.fetch(last)?;
            let end = view.rows();
            return self.backward(last, view, end, false);
        }
        let view = self.fetch(0)?;
        self.forward(0, view, 0, false)
    }

    /// Steps inside the pinned block, without touching its reference count; `false` if the next key's
    /// newest visible version cannot be told from this block and these few looks alone.
    fn step_inside(&mut self, forward: bool) -> bool {
        let Some(at) = self.at.as_mut().filter(|_| self.standing != Standing::Nowhere) else {
            return false;
        };
        let view = at.view();
        let row = if forward {
            Some(view.run_end(at.row())).filter(|&row| row < view.rows())
        } else {
            // A run at the block's head may have begun in the block before.
            let before = view.run_start(at.row()).checked_sub(1);
            before.map(|last| view.run_start(last)).filter(|&row| row > 0)
        };
        let Some(row) = row.filter(|&row| view.seq(row) < self.below) else { return false };
        at.stand(row);
        self.standing = Standing::Entry;
        true
    }
}

impl Cursor for TableCursor {
    fn seek(&mut self, target: Target<'_>) -> Result<bool> {
        self.move_by(|cursor| match target {
            Target::First => cursor.seek_end(false),
            Target::Last => cursor.seek_end(true),
            Target::Ge(key) => cursor.seek_ge(key),
            Target::Le(key) => cursor.seek_le(key),
        })
    }

    fn next(&mut self) -> Result<bool> {
        if self.step_inside(true) {
            return Ok(true);
        }
        self.move_by(|cursor| match (&cursor.at, cursor.standing) {
            (None, _) | (_, Standing::Nowhere) => Ok(false),
            (Some(at), _) => {
                let view = Arc::clone(at.view());
                let row = view.run_end(at.row());
                cursor.forward(cursor.block, view, row, true)
            }
        })
    }

    fn prev(&mut self) -> Result<bool> {
        if self.step_inside(false) {
            return Ok(true);
        }
        self.move_by(|cursor| match (&cursor.at, cursor.standing) {
            (None, _) | (_, Standing::Nowhere) => Ok(false),
            (Some(at), _) => {
                let view = Arc::clone(at.view());
                let end = view.run_start(at.row());
                cursor.backward(cursor.block, view, end, true)
            }
        })
    }

    fn older(&mut self) -> Result<bool> {
        let (Some(at), Standing::Entry) = (&mut self.at, self.standing) else { return Ok(false) };
        let (view, row) = (at.view(), at.row() + 1);
        if row < view.rows() {
            if view.repeats_key(row) {
                at.stand_on_version(row);
                return Ok(true);
            }
            self.standing = Standing::BehindVersions;
            return Ok(false);
        }
        let (table, next) = (Arc::clone(&self.table), self.block + 1);
        let goes_on = table
            .index()
            .is_some_and(|index| next < index.rows() && index.key_is(self.block, at.key()));
        if goes_on {
            let read = table.block(next);
            let view = read.inspect_err(|_| self.standing = Standing::Nowhere)?;
            if self.is_current(&view, 0) {
                // Inside a block the order is validated; here two blocks meet.
                if view.seq(0) >= self.here().entry().seq {
                    self.standing = Standing::Nowhere;
                    return Err(table.out_of_order(next));
                }
                self.stand(next, &view, 0);
                return Ok(true);
            }
        }
        self.standing = Standing::BehindVersions;
        Ok(false)
    }

    fn entry(&self) -> Entry<'_> {
        self.here().entry()
    }
}
