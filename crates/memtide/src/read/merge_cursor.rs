//! Merges the cursors of several sources into one: every key once, its versions from all sources newest
//! first.
//!
//! Each source stands on its own next key; the merge stands on the smallest of them (largest when it
//! walks backwards). Heads, the first eight bytes as an integer, decide almost every comparison. The few
//! sources of a database are searched linearly: no allocation per step, memory O(sources).
//!
//! The same (key, seq) in two sources is one write met twice (a replayed log beside a flushed table); it is
//! shown once.

use memtide_base::{Cursor, Entry, Result, SeqNo, Slice, Target, key};
use memtide_memtable::{MemCursor, Place};
use memtide_storage::table::TableCursor;

use super::level_cursor::LevelCursor;

/// One input of a merge.
#[derive(Debug)]
pub(crate) enum Source {
    /// A memtable.
    Memtable(MemCursor),
    /// A single table.
    Table(TableCursor),
    /// A level below 0.
    Level(LevelCursor),
}

impl Source {
    pub(super) fn cursor(&mut self) -> &mut dyn Cursor {
        match self {
            Self::Memtable(cursor) => cursor,
            Self::Table(cursor) => cursor,
            Self::Level(cursor) => cursor,
        }
    }

    pub(super) fn entry(&self) -> Entry<'_> {
        match self {
            Self::Memtable(cursor) => cursor.entry(),
            Self::Table(cursor) => cursor.entry(),
            Self::Level(cursor) => cursor.entry(),
        }
    }

    fn value(&self) -> Slice {
        match self {
            Self::Memtable(cursor) => Slice::copy_of(cursor.entry().value),
            Self::Table(cursor) => cursor.value(),
            Self::Level(cursor) => cursor.value(),
        }
    }

    /// Where the memtable that this is has the version it stands on.
    pub(super) fn place(&self) -> Place {
        match self {
            Self::Memtable(cursor) => cursor.place(),
            Self::Table(_) | Self::Level(_) => unreachable!("only memtables have places"),
        }
    }
}

/// Where one source stands.
#[derive(Debug)]
struct Input {
    source: Source,
    state: State,
    /// Head of the key it stands on; meaningful unless it is `Out`.
    head: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// On a version that the merge has not shown.
    Ready,
    /// On the merge's key, all of its versions shown.
    Spent,
    /// Behind its last key.
    Out,
}

/// A cursor over the union of its sources.
#[derive(Debug)]
pub(crate) struct MergeCursor {
    inputs: Vec<Input>,
    forward: bool,
    /// The input whose version the merge stands on.
    shown: Option<usize>,
    /// The key the merge stands on, for turning round.
    key: Vec<u8>,
}

impl MergeCursor {
    /// A merge of `sources`, standing nowhere. Order among them does not matter.
    pub(crate) fn new(sources: Vec<Source>) -> Self {
        let input = |source| Input { source, state: State::Out, head: 0 };
        let inputs = sources.into_iter().map(input).collect();
        Self { inputs, forward: true, shown: None, key: Vec::new() }
    }

    /// The value the cursor stands on, shared with its block where there is one.
    pub(crate) fn value(&self) -> Slice {
        self.inputs[self.shown.expect("the cursor stands on an entry")].source.value()
    }

    /// Shows the newest version among the inputs on the next key in the walking direction.
    fn show(&mut self) -> Result<bool> {
        let mut best: Option<usize> = None;
        for index in 0..self.inputs.len() {
            if self.inputs[index].state == State::Ready
                && best.is_none_or(|best| self.comes_before(index, best))
            {
                best = Some(index);
            }
        }
        self.shown = best;
        let Some(best) = best else { return Ok(false) };
        self.key.clear();
        self.key.extend_from_slice(self.inputs[best].source.entry().key);
        Ok(true)
    }

    /// Whether input `a` is to be shown before input `b`: by key in the walking direction, then newest.
    fn comes_before(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.inputs[a], &self.inputs[b]);
        if a.head != b.head {
            return (a.head < b.head) == self.forward;
        }
        let (x, y) = (a.source.entry(), b.source.entry());
        let order = x.key.cmp(y.key);
        let order = if self.forward { order } else { order.reverse() };
        order.then_with(|| y.seq.cmp(&x.seq)).is_lt()
    }

    /// Whether an input stands on the merge's key.
    fn on_key(&self, index: usize) -> bool {
        let input = &self.inputs[index];
        match input.state {
            State::Spent => true,
            State::Out => false,
            State::Ready => {
                input.head == key::head(&self.key) && input.source.entry().key == self.key
            }
        }
    }

    fn settle(&mut self, index: usize, found: bool) {
        let input = &mut self.inputs[index];
        input.state = if found { State::Ready } else { State::Out };
        if found {
            input.head = key::head(input.source.entry().key);
        }
    }

    fn step(&mut self, forward: bool) -> Result<bool> {
        if self.shown.is_none() {
            return Ok(false);
        }
        self.shown = None;
        if self.forward == forward {
            for index in 0..self.inputs.len() {
                if self.on_key(index) {
                    let cursor = self.inputs[index].source.cursor();
                    let found = if forward { cursor.next() } else { cursor.prev() }?;
                    self.settle(index, found);
                }
            }
        } else {
            self.turn(forward)?;
        }
        self.show()
    }

    /// Puts every input beyond the merge's key on the other side.
    fn turn(&mut self, forward: bool) -> Result<()> {
        self.forward = forward;
        let pivot = std::mem::take(&mut self.key);
        let target = if forward { Target::Ge(&pivot) } else { Target::Le(&pivot) };
        for index in 0..self.inputs.len() {
            let source = &mut self.inputs[index].source;
            let mut found = source.cursor().seek(target)?;
            if found && source.entry().key == pivot {
                found = if forward { source.cursor().next() } else { source.cursor().prev() }?;
            }
            self.settle(index, found);
        }
        self.key = pivot;
        Ok(())
    }
}

impl Cursor for MergeCursor {
    fn seek(&mut self, target: Target<'_>) -> Result<bool> {
        self.forward = matches!(target, Target::First | Target::Ge(_));
        self.shown = None;
        for index in 0..self.inputs.len() {
            let found = self.inputs[index].source.cursor().seek(target)?;
            self.settle(index, found);
        }
        self.show()
    }

    fn next(&mut self) -> Result<bool> {
        self.step(true)
    }

    fn prev(&mut self) -> Result<bool> {
        self.step(false)
    }

    fn older(&mut self) -> Result<bool> {
        let Some(shown) = self.shown else { return Ok(false) };
        let seq: SeqNo = self.inputs[shown].source.entry().seq;
        // Every input on the key moves below the version that was shown.
        for index in 0..self.inputs.len() {
            while self.inputs[index].state == State::Ready
                && self.on_key(index)
                && self.inputs[index].source.entry().seq >= seq
            {
                if !self.inputs[index].source.cursor().older()? {
                    self.inputs[index].state = State::Spent;
                }
            }
        }
        let newest = (0..self.inputs.len())
            .filter(|&index| self.inputs[index].state == State::Ready && self.on_key(index))
            .max_by_key(|&index| self.inputs[index].source.entry().seq);
        if let Some(newest) = newest {
            self.shown = Some(newest);
        }
        Ok(newest.is_some())
    }

    fn entry(&self) -> Entry<'_> {
        self.inputs[self.shown.expect("the cursor stands on an entry")].source.entry()
    }
}
