//! Merges the cursors of several sources into one: every key once, in its newest version.
//!
//! Each source stands on its own next key; the merge stands on the smallest of them (largest when it
//! walks backwards). Heads, the first eight bytes as an integer, decide almost every comparison.
//!
//! Runs of keys from one source cost next to nothing: as long as the source that is shown stays before the
//! best of the others, its rival, a step moves it alone and compares it with that one alone (galloping, as in
//! Bentley and Yao, 1976, one key at a time); with no rival it compares nothing. Once a walk is longer than a few
//! entries, a block searched for the rival's key tells how many steps may be taken without asking. When the rival wins,
//! the few sources of a database are searched linearly: no allocation per step, memory O(sources).
//!
//! The same (key, seq) in two sources is one write met twice (a replayed log beside a flushed table); it is
//! shown once. Older versions of a key are not shown at all: [`VersionStream`](super::VersionStream) is for
//! those who want them.

use std::cmp::Ordering;

use memtide_base::{Cursor, Entry, Kind, Result, SeqNo, Slice, Target, key};
use memtide_memtable::{MemCursor, Place};
use memtide_storage::table::TableCursor;

use super::SealedCursor;
use super::level_cursor::{LevelCursor, seek_out_of};
use crate::range::HalfOpen;
use crate::sealed_run::SealedRun;

/// One input of a merge.
#[derive(Debug)]
pub(crate) enum Source {
    /// A memtable.
    Memtable(MemCursor),
    /// Several memtables whose keys do not overlap.
    Sealed(SealedCursor),
    /// A single table.
    Table(TableCursor),
    /// A level below 0.
    Level(LevelCursor),
}

impl Source {
    /// The versions of a sealed run below `below`.
    pub(crate) fn sealed(run: &SealedRun, below: SeqNo) -> Self {
        match run.only() {
            Some(table) => Self::Memtable(table.cursor(below)),
            None => Self::Sealed(SealedCursor::new(run.clone(), below)),
        }
    }

    pub(super) fn cursor(&mut self) -> &mut dyn Cursor {
        match self {
            Self::Memtable(cursor) => cursor,
            Self::Sealed(cursor) => cursor,
            Self::Table(cursor) => cursor,
            Self::Level(cursor) => cursor,
        }
    }

    #[inline]
    pub(super) fn entry(&self) -> Entry<'_> {
        match self {
            Self::Memtable(cursor) => cursor.entry(),
            Self::Sealed(cursor) => cursor.entry(),
            Self::Table(cursor) => cursor.entry(),
            Self::Level(cursor) => cursor.entry(),
        }
    }

    #[inline]
    fn key(&self) -> &[u8] {
        match self {
            Self::Memtable(cursor) => cursor.key(),
            Self::Sealed(cursor) => cursor.key(),
            Self::Table(cursor) => cursor.key(),
            Self::Level(cursor) => cursor.key(),
        }
    }

    #[inline]
    fn kind(&self) -> Kind {
        match self {
            Self::Memtable(cursor) => cursor.kind(),
            Self::Sealed(cursor) => cursor.kind(),
            Self::Table(cursor) => cursor.kind(),
            Self::Level(cursor) => cursor.kind(),
        }
    }

    #[inline]
    fn value(&self) -> Slice {
        match self {
            Self::Memtable(cursor) => Slice::copy_of(cursor.entry().value),
            Self::Sealed(cursor) => Slice::copy_of(cursor.entry().value),
            Self::Table(cursor) => cursor.value(),
            Self::Level(cursor) => cursor.value(),
        }
    }

    /// One step, known to the compiler for each kind of source.
    #[inline]
    fn step(&mut self, forward: bool) -> Result<bool> {
        match (self, forward) {
            (Self::Memtable(cursor), true) => cursor.next(),
            (Self::Memtable(cursor), false) => cursor.prev(),
            (Self::Sealed(cursor), true) => cursor.next(),
            (Self::Sealed(cursor), false) => cursor.prev(),
            (Self::Table(cursor), true) => cursor.next(),
            (Self::Table(cursor), false) => cursor.prev(),
            (Self::Level(cursor), true) => cursor.next(),
            (Self::Level(cursor), false) => cursor.prev(),
        }
    }

    /// How many of the next `max` steps are plain, as [`TableCursor::plain_ahead`] has it; none in a memtable, whose
    /// cursor walks ahead by itself.
    fn plain_ahead(&self, forward: bool, limit: Option<&[u8]>, max: usize) -> usize {
        match self {
            Self::Memtable(_) | Self::Sealed(_) => 0,
            Self::Table(cursor) => cursor.plain_ahead(forward, limit, max),
            Self::Level(cursor) => cursor.plain_ahead(forward, limit, max),
        }
    }

    #[inline]
    fn step_plainly(&mut self, forward: bool) {
        match self {
            Self::Memtable(_) | Self::Sealed(_) => {
                unreachable!("no step in a memtable is counted as plain")
            }
            Self::Table(cursor) => cursor.step_plainly(forward),
            Self::Level(cursor) => cursor.step_plainly(forward),
        }
    }

    /// Where the memtable that this is has the version it stands on.
    pub(super) fn place(&self) -> Place {
        match self {
            Self::Memtable(cursor) => cursor.place(),
            Self::Sealed(_) | Self::Table(_) | Self::Level(_) => {
                unreachable!("only memtables have places")
            }
        }
    }
}

/// Where one source stands.
#[derive(Debug)]
struct Input {
    source: Source,
    /// Every version that it shows is older than this one.
    seq_end: SeqNo,
    /// Head of the key it stands on, `None` behind its last key.
    head: Option<u64>,
}

impl Input {
    #[inline]
    fn settle(&mut self, found: bool) {
        self.head = found.then(|| key::head(self.source.key()));
    }
}

/// A walk over the union of its sources, in one direction from each `seek` on.
#[derive(Debug)]
pub(crate) struct MergeCursor {
    inputs: Vec<Input>,
    forward: bool,
    /// The input whose version the merge stands on.
    shown: Option<usize>,
    /// The input that would be shown if the shown one were not there.
    rival: Option<usize>,
    /// Whether no other input has the shown key, so that a step moves the shown one alone.
    unique: bool,
    /// How many steps the shown input may take before anything is compared; its head is not kept meanwhile.
    plain: usize,
    /// A key that no plain step goes up to.
    fence: Option<Slice>,
    /// How many to look for the next time: twice as many each time, from 1 again when there were none.
    reach: usize,
}

/// From so many on looking for plain steps is worth it; short scans and those that change sources never do.
const REACH_MIN: usize = 4;
/// Plain steps looked for at once: more than a block has, mostly.
const REACH_MAX: usize = 64;

impl MergeCursor {
    /// A merge of no sources yet, with room for as many as are expected.
    pub(crate) fn with_capacity(sources: usize) -> Self {
        let inputs = Vec::with_capacity(sources);
        let (forward, unique, plain, reach) = (true, false, 0, 1);
        Self { inputs, forward, shown: None, rival: None, unique, plain, fence: None, reach }
    }

    /// Adds a source, every version of which is older than `seq_end`; before the first `seek`. Order among sources does
    /// not matter.
    pub(crate) fn add(&mut self, source: Source, seq_end: SeqNo) {
        self.inputs.push(Input { source, seq_end, head: None });
    }

    /// Goes to the key that `target` names among all sources, and sets the direction of the walk: down from
    /// `Last` and `Le`, else up. `false` if there is no such key.
    ///
    /// # Errors
    /// As those of [`Cursor`], here and below; the merge stands nowhere.
    pub(crate) fn seek(&mut self, target: Target<'_>) -> Result<bool> {
        self.forward = matches!(target, Target::First | Target::Ge(_));
        (self.shown, self.plain, self.reach) = (None, 0, 1);
        for input in &mut self.inputs {
            let found = input.source.cursor().seek(target)?;
            input.settle(found);
        }
        Ok(self.choose())
    }

    /// Goes to the next key in the direction of the last `seek`.
    ///
    /// # Errors
    /// As [`MergeCursor::seek`].
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<bool> {
        if self.advance_plainly() { Ok(true) } else { self.advance_and_compare() }
    }

    /// Goes to the next key if that is known to be a put before the fence; `false`, and nothing is done, if it is not.
    #[inline]
    pub(crate) fn advance_plainly(&mut self) -> bool {
        match self.shown {
            Some(shown) if self.plain > 0 => {
                self.plain -= 1;
                self.inputs[shown].source.step_plainly(self.forward);
                true
            }
            _ => false,
        }
    }

    /// Has plain steps end before `fence`, from now on.
    pub(crate) fn fence(&mut self, fence: Option<Slice>) {
        self.fence = fence;
        if let (true, Some(shown)) = (self.plain > 0, self.shown) {
            (self.plain, self.reach) = (0, 1);
            self.inputs[shown].settle(true);
        }
    }

    /// Leaves versions in `span` that are older than `seq` out where that takes no steps, and goes on; the merge stands
    /// in the span. Each source goes past the part of the span in which it has nothing newer.
    ///
    /// # Errors
    /// As [`MergeCursor::seek`].
    pub(crate) fn leap(&mut self, span: &HalfOpen, seq: SeqNo) -> Result<bool> {
        let Some(shown) = self.shown.take() else { return Ok(false) };
        (self.plain, self.reach) = (0, 1);
        self.inputs[shown].settle(true);
        let mut shown_leapt = false;
        for (index, input) in self.inputs.iter_mut().enumerate() {
            if input.head.is_none() || !span.reaches(input.source.key(), self.forward) {
                continue;
            }
            let leapt = match &mut input.source {
                Source::Level(cursor) => cursor.leap(span, seq, self.forward)?,
                _ if input.seq_end > seq => None,
                Source::Memtable(cursor) => Some(seek_out_of(cursor, span, self.forward)?),
                Source::Sealed(cursor) => Some(seek_out_of(cursor, span, self.forward)?),
                Source::Table(cursor) => Some(seek_out_of(cursor, span, self.forward)?),
            };
            if let Some(found) = leapt {
                input.settle(found);
                shown_leapt |= index == shown;
            }
        }
        let found = self.choose();
        if shown_leapt { Ok(found) } else { self.advance_and_compare() }
    }

    fn advance_and_compare(&mut self) -> Result<bool> {
        let Some(shown) = self.shown.take() else { return Ok(false) };
        if !self.unique {
            self.pass(shown)?;
            return Ok(self.choose());
        }
        let input = &mut self.inputs[shown];
        if !input.source.step(self.forward)? {
            input.head = None;
            return Ok(self.choose());
        }
        input.settle(true);
        if self.rival.is_some_and(|rival| !self.is_before(shown, rival)) {
            return Ok(self.choose());
        }
        self.shown = Some(shown);
        self.look_ahead(shown);
        Ok(true)
    }

    /// Counts the plain steps that the shown input may take from here.
    #[inline]
    fn look_ahead(&mut self, shown: usize) {
        if self.reach >= REACH_MIN {
            let rival = self.rival.map(|rival| self.inputs[rival].source.key());
            let fence = self.fence.as_ref().map(Slice::as_bytes);
            let limits = [rival, fence].into_iter().flatten();
            let limit = if self.forward { limits.min() } else { limits.max() };
            let source = &self.inputs[shown].source;
            self.plain = source.plain_ahead(self.forward, limit, self.reach);
        }
        let in_vain = self.reach >= REACH_MIN && self.plain == 0;
        self.reach = if in_vain { 1 } else { (2 * self.reach).min(REACH_MAX) };
    }

    /// The key the merge stands on.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        self.source().key()
    }

    /// What the version that is shown did to it.
    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        self.source().kind()
    }

    /// Which write that version is.
    pub(crate) fn seq(&self) -> SeqNo {
        self.source().entry().seq
    }

    /// Its value, shared with its block where there is one.
    #[inline]
    pub(crate) fn value(&self) -> Slice {
        self.source().value()
    }

    /// Its value, lent.
    #[inline]
    pub(crate) fn value_bytes(&self) -> &[u8] {
        match self.source() {
            Source::Memtable(cursor) => cursor.entry().value,
            Source::Sealed(cursor) => cursor.entry().value,
            Source::Table(cursor) => cursor.value_bytes(),
            Source::Level(cursor) => cursor.value_bytes(),
        }
    }

    #[inline]
    fn source(&self) -> &Source {
        &self.inputs[self.shown.expect("the cursor stands on an entry")].source
    }

    /// Shows the newest version among the inputs on the next key in the walking direction.
    fn choose(&mut self) -> bool {
        let (mut best, mut rival) = (None, None);
        for index in (0..self.inputs.len()).filter(|&index| self.inputs[index].head.is_some()) {
            if best.is_none_or(|best| self.is_shown_before(index, best)) {
                (best, rival) = (Some(index), best);
            } else if rival.is_none_or(|rival| self.is_shown_before(index, rival)) {
                rival = Some(index);
            }
        }
        (self.shown, self.rival) = (best, rival);
        self.unique = match (best, rival) {
            (Some(best), Some(rival)) => self.is_before(best, rival),
            _ => true,
        };
        best.is_some()
    }

    /// Whether the key of input `a` comes before that of `b` in the walking direction.
    #[inline]
    fn is_before(&self, a: usize, b: usize) -> bool {
        self.order(a, b).is_lt()
    }

    /// Whether input `a` is to be shown before input `b`: by key in the walking direction, then newest.
    fn is_shown_before(&self, a: usize, b: usize) -> bool {
        let seq = |index: usize| self.inputs[index].source.entry().seq;
        self.order(a, b).then_with(|| seq(b).cmp(&seq(a))).is_lt()
    }

    /// The order of two inputs' keys in the walking direction.
    #[inline]
    fn order(&self, a: usize, b: usize) -> Ordering {
        let (a, b) = (&self.inputs[a], &self.inputs[b]);
        let order = a.head.cmp(&b.head).then_with(|| a.source.key().cmp(b.source.key()));
        if self.forward { order } else { order.reverse() }
    }

    /// Moves every input on the key of input `shown` to its next one.
    fn pass(&mut self, shown: usize) -> Result<()> {
        for index in (0..self.inputs.len()).filter(|&index| index != shown).chain([shown]) {
            if self.inputs[index].head.is_some() && self.order(index, shown).is_eq() {
                let input = &mut self.inputs[index];
                let found = input.source.step(self.forward)?;
                input.settle(found);
            }
        }
        Ok(())
    }
}
