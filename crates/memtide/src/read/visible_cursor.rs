//! What a user's iterator walks: the keys that have a value below a bound, deletes applied.

use memtide_base::sync::Arc;
use memtide_base::{Kind, Result, SeqNo, Slice, Target};

use super::{LevelCursor, MergeCursor, Source};
use crate::keyspace_state::SuperVersion;
use crate::range::HalfOpen;
use crate::table_store::TableStore;
use crate::version::{Run, TableMeta};

/// Walks the live keys of a superversion below a bound, in the direction of its `seek`; pins the superversion.
#[derive(Debug)]
pub(crate) struct VisibleCursor {
    merge: MergeCursor,
    view: Arc<SuperVersion>,
    tables: Arc<TableStore>,
    below: SeqNo,
    has_range_tombstones: bool,
}

impl VisibleCursor {
    /// A cursor that will walk `range` from one of its ends; no source without a key in it is opened.
    pub(crate) fn new(
        view: Arc<SuperVersion>,
        tables: Arc<TableStore>,
        below: SeqNo,
        range: &HalfOpen,
        forward: bool,
    ) -> Result<Self> {
        let version = &view.version;
        // What is visible below the bound was in its memtable before the bound was read.
        let memtables = || view.memtables().filter(|table| table.entry_count() > 0);
        let is_asked = |meta: &TableMeta| {
            meta.seq_min < below
                && meta.largest.admits(&range.start)
                && range.end.as_ref().is_none_or(|end| meta.smallest.as_slice() < end.as_bytes())
        };
        let alone = |run: &&Run| run.tables().len() == 1;
        let single = || {
            let runs = version.runs().iter().filter(alone).flat_map(Run::tables);
            version.level0().iter().chain(runs).filter(|meta| is_asked(meta))
        };
        let wide = || version.runs().iter().filter(|run| !alone(run));
        let count = memtables().count() + single().count() + wide().count();
        let mut merge = MergeCursor::with_capacity(count);
        memtables().for_each(|table| merge.add(Source::Memtable(table.cursor(below))));
        for meta in single() {
            merge.add(Source::Table(tables.open(meta)?.cursor(below)));
        }
        for run in wide() {
            let (metas, tables) = (run.shared_tables(), Arc::clone(&tables));
            let mut cursor = LevelCursor::new(metas, tables, below);
            cursor.stop_behind(range, forward);
            merge.add(Source::Level(cursor));
        }
        let in_memory = view.memtables().any(|table| table.range_tombstone_count() > 0);
        let on_disk = view.version.has_range_tombstones();
        Ok(Self { merge, view, tables, below, has_range_tombstones: in_memory || on_disk })
    }

    /// Goes to the first live key at or behind `target` in the direction it implies.
    pub(crate) fn seek(&mut self, target: Target<'_>) -> Result<bool> {
        let found = self.merge.seek(target)?;
        self.skip_deleted(found)
    }

    /// Goes to the next live key in that direction.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<bool> {
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
    pub(crate) fn value(&self) -> Slice {
        self.merge.value()
    }

    /// The value the cursor stands on, lent.
    #[inline]
    pub(crate) fn value_bytes(&self) -> &[u8] {
        self.merge.value_bytes()
    }

    #[inline]
    fn skip_deleted(&mut self, found: bool) -> Result<bool> {
        let mut found = found;
        while found && !self.is_live()? {
            found = self.merge.advance()?;
        }
        Ok(found)
    }

    #[inline]
    fn is_live(&self) -> Result<bool> {
        if self.merge.kind() != Kind::Put || !self.has_range_tombstones {
            return Ok(self.merge.kind() == Kind::Put);
        }
        let key = self.merge.key();
        let newest = super::covering_tombstone(&self.view, &self.tables, key, self.below)?;
        Ok(newest.is_none_or(|seq| seq < self.merge.seq()))
    }
}
