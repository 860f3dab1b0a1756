//! A cursor over one run below level 0: its tables one after the other, one open at a time.

use std::ops::Range;

use memtide_base::seqno::SEE_ALL;
use memtide_base::sync::Arc;
use memtide_base::{Cursor, Entry, Kind, Result, SeqNo, Slice, Target};
use memtide_storage::table::TableCursor;

use crate::range::HalfOpen;
use crate::table_store::TableStore;
use crate::version::TableMeta;

/// Walks disjoint tables in key order.
#[derive(Debug)]
pub(crate) struct LevelCursor {
    metas: Arc<[Arc<TableMeta>]>,
    /// Those of them that are walked.
    span: Range<usize>,
    tables: Arc<TableStore>,
    below: SeqNo,
    /// Whether it reads past the cache, many blocks at a time.
    streams: bool,
    /// The table the cursor is in, and where in the run it is.
    inside: Option<(usize, TableCursor)>,
}

impl LevelCursor {
    pub(crate) fn new(metas: Arc<[Arc<TableMeta>]>, tables: Arc<TableStore>, below: SeqNo) -> Self {
        let span = 0..metas.len();
        Self { metas, span, tables, below, streams: false, inside: None }
    }

    /// A cursor for one walk forward over all versions.
    pub(crate) fn streaming(metas: Arc<[Arc<TableMeta>]>, tables: Arc<TableStore>) -> Self {
        Self { streams: true, ..Self::new(metas, tables, SEE_ALL) }
    }

    /// Leaves out the tables behind the far end of `range`, the upper one if the walk goes `forward`: one that
    /// begins inside opens none that has nothing for it.
    pub(crate) fn stop_behind(&mut self, range: &HalfOpen, forward: bool) {
        if !forward {
            self.span.start = self.metas.partition_point(|meta| !meta.largest.admits(&range.start));
        } else if let Some(end) = &range.end {
            self.span.end =
                self.metas.partition_point(|meta| meta.smallest.as_slice() < end.as_bytes());
        }
    }

    /// Goes past what the run has in `span`, in which it stands, as far as there is nothing from `seq` on: to the first
    /// table in the way that may have, or out of the span. `None` if that is the one it stands in.
    pub(super) fn leap(
        &mut self,
        span: &HalfOpen,
        seq: SeqNo,
        forward: bool,
    ) -> Result<Option<bool>> {
        let Some(at) = self.index() else { return Ok(None) };
        let is_newer = |index: &usize| self.metas[*index].seq_max >= seq;
        let meets = |index: &usize| self.metas[*index].meets(span);
        let stop = if forward {
            (at..self.span.end).take_while(meets).find(is_newer)
        } else {
            (self.span.start..=at).rev().take_while(meets).find(is_newer)
        };
        match stop {
            Some(stop) if stop == at => Ok(None),
            Some(stop) => {
                let target = if forward { Target::First } else { Target::Last };
                self.enter(Some(stop), target, forward).map(Some)
            }
            None => seek_out_of(self, span, forward).map(Some),
        }
    }

    /// The value the cursor stands on, without copying it.
    #[inline]
    pub(crate) fn value(&self) -> Slice {
        self.table().value()
    }

    /// The value the cursor stands on, lent.
    #[inline]
    pub(crate) fn value_bytes(&self) -> &[u8] {
        self.table().value_bytes()
    }

    /// As [`TableCursor::plain_ahead`], in the table the cursor stands in.
    pub(crate) fn plain_ahead(&self, forward: bool, limit: Option<&[u8]>, max: usize) -> usize {
        self.inside.as_ref().map_or(0, |(_, cursor)| cursor.plain_ahead(forward, limit, max))
    }

    /// A step that was counted as plain.
    #[inline]
    pub(crate) fn step_plainly(&mut self, forward: bool) {
        let (_, cursor) = self.inside.as_mut().expect("a plain step stays in its table");
        cursor.step_plainly(forward);
    }

    #[inline]
    fn table(&self) -> &TableCursor {
        &self.inside.as_ref().expect("the cursor stands on an entry").1
    }

    /// Seeks in the table at `index` and goes on to its neighbours while they have nothing.
    fn enter(&mut self, index: Option<usize>, target: Target<'_>, forward: bool) -> Result<bool> {
        let (mut index, mut target) = (index, target);
        while let Some(at) = index.filter(|at| self.span.contains(at)) {
            if self.inside.as_ref().is_none_or(|(inside, _)| *inside != at) {
                let table = self.tables.open(&self.metas[at])?;
                let below = self.below;
                let cursor = if self.streams { table.stream(below) } else { table.cursor(below) };
                self.inside = Some((at, cursor));
            }
            let (_, cursor) = self.inside.as_mut().expect("set just now");
            if cursor.seek(target)? {
                return Ok(true);
            }
            index = if forward { at.checked_add(1) } else { at.checked_sub(1) };
            target = if forward { Target::First } else { Target::Last };
        }
        self.inside = None;
        Ok(false)
    }

    fn index(&self) -> Option<usize> {
        self.inside.as_ref().map(|(index, _)| *index)
    }
}

/// Takes a cursor to the first key behind `span` in the direction of its walk; no further than its source has keys.
pub(super) fn seek_out_of(cursor: &mut dyn Cursor, span: &HalfOpen, forward: bool) -> Result<bool> {
    if forward {
        return span.end.as_ref().map_or(Ok(false), |end| cursor.seek(Target::Ge(end)));
    }
    if span.start.is_empty() {
        return Ok(false);
    }
    let found = cursor.seek(Target::Le(&span.start))?;
    if found && cursor.key() == span.start.as_bytes() { cursor.prev() } else { Ok(found) }
}

impl Cursor for LevelCursor {
    fn seek(&mut self, target: Target<'_>) -> Result<bool> {
        let Range { start, end } = self.span;
        match target {
            Target::First => self.enter(Some(start), target, true),
            Target::Last => self.enter(end.checked_sub(1), target, false),
            Target::Ge(key) => {
                let first = self.metas.partition_point(|meta| !meta.largest.admits(key));
                self.enter(Some(first.max(start)), target, true)
            }
            Target::Le(key) => {
                let after = self.metas.partition_point(|meta| meta.smallest.as_slice() <= key);
                self.enter(after.min(end).checked_sub(1), target, false)
            }
        }
    }

    #[inline]
    fn next(&mut self) -> Result<bool> {
        let Some((index, cursor)) = &mut self.inside else { return Ok(false) };
        if cursor.next()? {
            return Ok(true);
        }
        let after = *index + 1;
        self.enter(Some(after), Target::First, true)
    }

    #[inline]
    fn prev(&mut self) -> Result<bool> {
        let Some((_, cursor)) = &mut self.inside else { return Ok(false) };
        if cursor.prev()? {
            return Ok(true);
        }
        let before = self.index().and_then(|index| index.checked_sub(1));
        self.enter(before, Target::Last, false)
    }

    fn older(&mut self) -> Result<bool> {
        match &mut self.inside {
            Some((_, cursor)) => cursor.older(),
            None => Ok(false),
        }
    }

    #[inline]
    fn entry(&self) -> Entry<'_> {
        self.table().entry()
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.table().key()
    }

    #[inline]
    fn kind(&self) -> Kind {
        self.table().kind()
    }
}
