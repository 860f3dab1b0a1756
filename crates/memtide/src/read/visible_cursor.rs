//! What a user's iterator walks: the keys that have a value below a bound, deletes applied.

use memtide_base::sync::Arc;
use memtide_base::{Kind, Result, SeqNo, Slice, Target};

use super::tombstone_span::TombstoneSpans;
use super::{LevelCursor, MergeCursor, Source};
use crate::keyspace_state::SuperVersion;
use crate::range::HalfOpen;
use crate::table_store::TableStore;
use crate::version::{Run, TableMeta, Version};

/// Dead keys in a row after which it is looked for a way past those that follow: a seek costs as much as some steps.
const PATIENCE: usize = 8;

/// Walks the live keys of a superversion below a bound, in the direction of its `seek`.
#[derive(Debug)]
pub(crate) struct VisibleCursor {
    merge: MergeCursor,
    /// `None` if there are no range tombstones.
    tombstones: Option<TombstoneSpans>,
    /// Whether no range tombstone lies over the present key, nor over those that plain steps of the merge lead to.
    calm: bool,
    /// What is walked: nobody asks for what lies behind its far end.
    range: HalfOpen,
    forward: bool,
    /// Where separated values are found; pins them.
    version: Arc<Version>,
    tables: Arc<TableStore>,
    /// Whether the value lies in a blob file.
    is_separated: bool,
    /// The value that was read from one last, for who borrows it.
    fetched: Slice,
}

impl VisibleCursor {
    /// A cursor that will walk `range` from one of its ends; no source without a key in it is opened.
    pub(crate) fn new(
        view: &SuperVersion,
        tables: &Arc<TableStore>,
        below: SeqNo,
        range: &HalfOpen,
        forward: bool,
    ) -> Result<Self> {
        let version = &view.version;
        // What is visible below the bound was in its memtable before the bound was read.
        let active = Some(&view.active).filter(|table| table.entry_count() > 0);
        let sealed = || view.sealed.iter().filter(|run| run.has_entries());
        let is_asked = |meta: &TableMeta| meta.seq_min < below && meta.meets(range);
        let alone = |run: &&Run| run.tables().len() == 1;
        let single = || {
            let runs = version.runs().iter().filter(alone).flat_map(Run::tables);
            version.level0().iter().chain(runs).filter(|meta| is_asked(meta))
        };
        let wide = || version.runs().iter().filter(|run| !alone(run));
        let count =
            usize::from(active.is_some()) + sealed().count() + single().count() + wide().count();
        let mut merge = MergeCursor::with_capacity(count);
        if let Some(table) = active {
            merge.add(Source::Memtable(table.cursor(below)), table.seq_end());
        }
        for run in sealed() {
            merge.add(Source::sealed(run, below), run.seq_end());
        }
        for meta in single() {
            let cursor = tables.open(meta)?.cursor(below);
            merge.add(Source::Table(cursor), meta.seq_max.saturating_add(1));
        }
        for run in wide() {
            let mut cursor = LevelCursor::new(run.shared_tables(), Arc::clone(tables), below);
            cursor.stop_behind(range, forward);
            // Its tables say it, one by one.
            merge.add(Source::Level(cursor), SeqNo::MAX);
        }
        let tombstones = TombstoneSpans::new(view, tables, below, range, forward);
        let calm = tombstones.is_none();
        Ok(Self {
            merge,
            tombstones,
            calm,
            range: range.clone(),
            forward,
            version: Arc::clone(version),
            tables: Arc::clone(tables),
            is_separated: false,
            fetched: Slice::default(),
        })
    }

    /// Goes to the first live key at or behind `target` in the direction it implies.
    pub(crate) fn seek(&mut self, target: Target<'_>) -> Result<bool> {
        if let Some(tombstones) = &mut self.tombstones {
            tombstones.restart();
            self.calm = false;
        }
        let found = self.merge.seek(target)?;
        self.skip_deleted(found)
    }

    /// Goes to the next live key in that direction.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<bool> {
        if self.calm && self.merge.advance_plainly() {
            // Plain steps lead to puts.
            self.is_separated = false;
            return Ok(true);
        }
        let found = self.merge.advance()?;
        self.skip_deleted(found)
    }

    /// The key the cursor stands on.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        self.merge.key()
    }

    /// The value the cursor stands on.
    #[inline]
    pub(crate) fn value(&self) -> Result<Slice> {
        if self.is_separated { self.fetch() } else { Ok(self.merge.value()) }
    }

    /// Sees to it that [`VisibleCursor::lent`] has the value, which may have to be read.
    #[inline]
    pub(crate) fn prepare(&mut self) -> Result<()> {
        if self.is_separated {
            // Two large values at a time would be one too many.
            self.fetched = Slice::default();
            self.fetched = self.fetch()?;
        }
        Ok(())
    }

    /// The key and the value the cursor stands on, once [`VisibleCursor::prepare`] was called.
    #[inline]
    pub(crate) fn lent(&self) -> (&[u8], &[u8]) {
        let value =
            if self.is_separated { self.fetched.as_bytes() } else { self.merge.value_bytes() };
        (self.merge.key(), value)
    }

    fn fetch(&self) -> Result<Slice> {
        self.tables.blobs.value(&self.version, self.merge.key(), self.merge.value_bytes())
    }

    #[inline]
    fn skip_deleted(&mut self, found: bool) -> Result<bool> {
        if !found || self.is_live()? { Ok(found) } else { self.pass_deleted() }
    }

    /// Goes on from a dead key to a live one.
    fn pass_deleted(&mut self) -> Result<bool> {
        for dead in 1_usize.. {
            let tired = dead.is_multiple_of(PATIENCE);
            if tired && !self.range.reaches(self.merge.key(), self.forward) {
                return Ok(false);
            }
            let found = if tired { self.leap()? } else { self.merge.advance()? };
            if !found || self.is_live()? {
                return Ok(found);
            }
        }
        unreachable!("no walk is that long")
    }

    /// Goes past what the range tombstone over the present key hides, as far as sources have nothing newer.
    fn leap(&mut self) -> Result<bool> {
        self.look_up_tombstones()?;
        let Some((newest, span)) = self.tombstones.as_ref().and_then(TombstoneSpans::hiding) else {
            return self.merge.advance();
        };
        // What is hidden up to the end of the walk is hidden for good: no key behind it is read.
        let mut span = span.clone();
        let range = &self.range;
        if self.forward {
            let last = |end: &Slice| range.end.as_ref().is_some_and(|range_end| range_end <= end);
            span.end = span.end.filter(|end| !last(end));
        } else if span.start <= range.start {
            span.start = Slice::copy_of(b"");
        }
        self.merge.leap(&span, newest)
    }

    #[inline]
    fn is_live(&mut self) -> Result<bool> {
        let kind = self.merge.kind();
        self.is_separated = kind == Kind::BlobHandle;
        if kind != Kind::Put && !self.is_separated {
            return Ok(false);
        }
        self.look_up_tombstones()?;
        let newest = self.tombstones.as_ref().and_then(TombstoneSpans::newest);
        Ok(newest.is_none_or(|seq| seq < self.merge.seq()))
    }

    /// Has `tombstones` stand over the present key.
    #[inline]
    fn look_up_tombstones(&mut self) -> Result<()> {
        match &mut self.tombstones {
            Some(tombstones) if !tombstones.hold(self.merge.key()) => {
                let span = tombstones.look_up(self.merge.key())?;
                let fence = if self.forward { &span.end } else { &Some(span.start.clone()) };
                self.merge.fence(fence.clone());
                self.calm = tombstones.newest().is_none();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
