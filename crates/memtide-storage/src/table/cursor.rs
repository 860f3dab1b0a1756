//! Walks a table by user key, both ways, one pinned block at a time.
//!
//! The cursor stands on a row of a data block and knows that block's number in the index. Inside a block
//! a step is a look at the same bits and one key put together; at a block's end the next block comes from
//! the cache or the file. A key's versions may span blocks, newest first, so
//! - walking forward skips rows that still have the key just shown at the head of the next block, and
//! - walking backward, having found a key at the head of a block, looks into the blocks before for newer
//!   visible versions of it.
//!
//! A step allocates nothing but the key buffer, which grows to the largest key met, and blocks that are read.
//!
//! A streaming cursor reads blocks for itself, many at a time, and leaves the cache to those who will ask again.

use memtide_base::ledger::{Account, Charge};
use memtide_base::sync::Arc;
use memtide_base::{Cursor, Entry, Kind, Result, SeqNo, Slice, Target};

use super::format::Child;
use super::reader::{Held, Table};
use crate::block::{BlockCursor, BlockView};

/// Bytes that a streaming cursor reads at a time, and the part of the memory budget that is the most.
const STREAM_LEN: u64 = 128 << 10;
const STREAM_SHARE: u64 = 64;

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
    held: Held,
    /// What a streaming cursor has read.
    stream: Option<Stream>,
}

/// Bytes of data blocks that follow each other.
#[derive(Debug)]
struct Stream {
    start: u64,
    bytes: Vec<u8>,
    charge: Charge,
}

impl Stream {
    fn new(table: &Table) -> Self {
        let charge = table.budget().ledger.empty_charge(Account::Upkeep);
        Self { start: 0, bytes: Vec::new(), charge }
    }

    /// Block `at` of the table, read with what follows it unless it is here.
    fn block(&mut self, table: &Table, held: &mut Held, at: usize) -> Result<Arc<BlockView>> {
        let child = table.child(held, at)?;
        if let Some(block) = self.find(child) {
            return table.block_of(child, block);
        }
        let Child { handle, .. } = child;
        let len = STREAM_LEN.min(table.budget().ledger.budget() / STREAM_SHARE);
        let len = len.max(u64::from(handle.len));
        // There is no merge without it, so it is not refused.
        self.charge.grow_unchecked(len.saturating_sub(self.charge.bytes()));
        let len = usize::try_from(len).expect("at most a block, or the usual length");
        table.read_data(handle.offset, len, &mut self.bytes)?;
        self.start = handle.offset;
        let block = self.find(child).expect("all of it was read");
        table.block_of(child, block)
    }

    fn find(&self, Child { handle, .. }: Child) -> Option<Arc<[u8]>> {
        let from = usize::try_from(handle.offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..from.checked_add(handle.len as usize)?).map(Arc::from)
    }
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
        let (standing, held) = (Standing::Nowhere, Held::for_more());
        Self { table, below, block: 0, at: None, standing, held, stream: None }
    }

    pub(super) fn streaming(table: Arc<Table>, below: SeqNo) -> Self {
        let (stream, held) = (Some(Stream::new(&table)), Held::for_once());
        Self { stream, held, ..Self::new(table, below) }
    }

    fn read(&mut self, block: usize) -> Result<Arc<BlockView>> {
        match &mut self.stream {
            Some(stream) => stream.block(&self.table, &mut self.held, block),
            None => self.table.block(&mut self.held, block),
        }
    }

    /// The value the cursor stands on, sharing the block's bytes if it is long.
    ///
    /// # Panics
    /// If the cursor stands on no entry: a bug in the caller.
    #[must_use]
    #[inline]
    pub fn value(&self) -> Slice {
        self.here().value_slice()
    }

    /// The value the cursor stands on, lent.
    ///
    /// # Panics
    /// As [`TableCursor::value`].
    #[must_use]
    #[inline]
    pub fn value_bytes(&self) -> &[u8] {
        self.here().value()
    }

    /// How many of the next `max` steps to one side are plain: they stay inside the block, meet puts that are the
    /// only version of their key and visible, and come before the key `limit`.
    #[must_use]
    pub fn plain_ahead(&self, forward: bool, limit: Option<&[u8]>, max: usize) -> usize {
        let Some(at) = self.at.as_ref().filter(|_| self.standing == Standing::Entry) else {
            return 0;
        };
        let (view, row) = (at.view(), at.row());
        if !view.is_plain() {
            return 0;
        }
        let is_visible = |row: &usize| view.seq(*row) < self.below;
        if forward {
            let end = limit.map_or(view.rows(), |limit| view.first_at_least(limit));
            (row + 1..end.min(row + 1 + max)).take_while(is_visible).count()
        } else {
            // The key of the first row may have newer versions in the block before.
            let start = limit.map_or(0, |limit| view.first_above(limit)).max(1);
            (start.max(row.saturating_sub(max))..row).rev().take_while(is_visible).count()
        }
    }

    /// A step that [`TableCursor::plain_ahead`] has counted.
    ///
    /// # Panics
    /// If the cursor stands in no block, or the row lies outside of it: a bug in the caller.
    #[inline]
    pub fn step_plainly(&mut self, forward: bool) {
        let at = self.at.as_mut().expect("a plain step stays in its block");
        at.stand(if forward { at.row() + 1 } else { at.row() - 1 });
    }

    #[inline]
    fn here(&self) -> &BlockCursor {
        assert_eq!(self.standing, Standing::Entry, "the cursor stands on no entry");
        self.pinned()
    }

    #[inline]
    fn pinned(&self) -> &BlockCursor {
        self.at.as_ref().expect("a cursor that stands somewhere pins a block")
    }

    /// Pins `block`, read unless it is pinned already. The key stays that of the row stood on last.
    fn pin(&mut self, block: usize) -> Result<()> {
        if self.at.is_some() && self.block == block {
            return Ok(());
        }
        let view = self.read(block)?;
        match &mut self.at {
            Some(at) => at.pin(view),
            None => self.at = Some(BlockCursor::new(view)),
        }
        self.block = block;
        self.pinned().view().warm();
        Ok(())
    }

    #[inline]
    fn stand(&mut self, row: usize) {
        self.at.as_mut().expect("only rows of a pinned block are stood on").stand(row);
        self.standing = Standing::Entry;
    }

    /// Stands on the newest visible version of the first key at or behind `row` of the pinned block that
    /// has one; with `skip`, rows that go on with the current key at a block's head do not count.
    fn forward(&mut self, mut row: usize, mut skip: bool) -> Result<bool> {
        loop {
            let (at, view) = (self.pinned(), self.pinned().view());
            if skip && row == 0 && view.key_is(0, at.key()) {
                row = view.run_end(0);
            }
            // Only a block that ends with the current key lets it go on in the next.
            skip &= row == view.rows();
            while row < view.rows() {
                let run = row..view.run_end(row);
                row = view.first_visible(run.clone(), self.below);
                if row < run.end {
                    self.stand(row);
                    return Ok(true);
                }
            }
            if self.block + 1 >= self.table.blocks() {
                return Ok(false);
            }
            self.pin(self.block + 1)?;
            row = 0;
        }
    }

    /// Stands on the newest visible version of the last key before row `end` of the pinned block that has
    /// one; with `skip`, rows that go on with the current key at a block's end do not count.
    fn backward(&mut self, mut end: usize, mut skip: bool) -> Result<bool> {
        loop {
            let (at, view) = (self.pinned(), self.pinned().view());
            if skip && end == view.rows() && view.key_is(end - 1, at.key()) {
                end = view.run_start(end - 1);
            }
            skip &= end == 0;
            while end > 0 {
                let run = view.run_start(end - 1)..end;
                let row = view.first_visible(run.clone(), self.below);
                if row < run.end {
                    self.stand(row);
                    return self.rise_to_newest().map(|()| true);
                }
                end = run.start;
            }
            let Some(before) = self.block.checked_sub(1) else { return Ok(false) };
            self.pin(before)?;
            end = self.pinned().view().rows();
        }
    }

    /// Moves from a visible version at a block's head to the newest visible one of the same key.
    fn rise_to_newest(&mut self) -> Result<()> {
        while let (0, Some(before)) = (self.pinned().row(), self.block.checked_sub(1)) {
            let key = self.at.as_ref().expect("pinned above").key();
            // A block that goes on into the next ends with the key its separator is.
            if !self.table.is_separator(&mut self.held, before, key)? {
                break;
            }
            let view = self.read(before)?;
            let (last, key) = (view.rows() - 1, self.pinned().key());
            if !view.key_is(last, key) || view.seq(last) >= self.below {
                break;
            }
            let row = view.first_visible(view.run_start(last)..last + 1, self.below);
            self.enter(before, view, row);
        }
        Ok(())
    }

    /// Stands on a row of another block.
    fn enter(&mut self, block: usize, view: Arc<BlockView>, row: usize) {
        self.at.as_mut().expect("the cursor stood in a block").pin(view);
        self.block = block;
        self.stand(row);
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
        let Some(last) = self.table.blocks().checked_sub(1) else { return Ok(false) };
        // No key at or below `key` lies behind the first block whose separator is above it.
        let block = self.table.first_above(&mut self.held, key)?.min(last);
        self.pin(block)?;
        let end = self.pinned().view().first_above(key);
        self.backward(end, false)
    }

    fn seek_ge(&mut self, key: &[u8]) -> Result<bool> {
        let block = self.table.first_at_least(&mut self.held, key)?;
        if block == self.table.blocks() {
            return Ok(false);
        }
        self.pin(block)?;
        let row = self.pinned().view().lower_bound(key, self.below);
        self.forward(row, false)
    }

    fn seek_end(&mut self, to_last: bool) -> Result<bool> {
        let Some(last) = self.table.blocks().checked_sub(1) else { return Ok(false) };
        if to_last {
            self.pin(last)?;
            let end = self.pinned().view().rows();
            return self.backward(end, false);
        }
        self.pin(0)?;
        self.forward(0, false)
    }

    /// Steps inside the pinned block; `false`, and nothing is done, if the next key's newest visible version
    /// cannot be told from this block and these few looks alone.
    #[inline]
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

    /// A step that leaves the pinned block, or skips versions.
    #[cold]
    fn step_far(&mut self, forward: bool) -> Result<bool> {
        self.move_by(|cursor| match (&cursor.at, cursor.standing) {
            (None, _) | (_, Standing::Nowhere) => Ok(false),
            (Some(at), _) if forward => cursor.forward(at.view().run_end(at.row()), true),
            (Some(at), _) => cursor.backward(at.view().run_start(at.row()), true),
        })
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

    #[inline]
    fn next(&mut self) -> Result<bool> {
        if self.step_inside(true) { Ok(true) } else { self.step_far(true) }
    }

    #[inline]
    fn prev(&mut self) -> Result<bool> {
        if self.step_inside(false) { Ok(true) } else { self.step_far(false) }
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
        let next = self.block + 1;
        let goes_on = next < self.table.blocks() && {
            let said = self.table.is_separator(&mut self.held, self.block, at.key());
            said.inspect_err(|_| self.standing = Standing::Nowhere)?
        };
        if goes_on {
            let read = self.read(next);
            let view = read.inspect_err(|_| self.standing = Standing::Nowhere)?;
            if view.key_is(0, self.pinned().key()) {
                // Inside a block the order is validated; here two blocks meet.
                if view.seq(0) >= self.pinned().entry().seq {
                    self.standing = Standing::Nowhere;
                    return Err(self.table.out_of_order(next));
                }
                self.enter(next, view, 0);
                return Ok(true);
            }
        }
        self.standing = Standing::BehindVersions;
        Ok(false)
    }

    #[inline]
    fn entry(&self) -> Entry<'_> {
        self.here().entry()
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.here().key()
    }

    #[inline]
    fn kind(&self) -> Kind {
        self.here().kind()
    }
}
