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
    /// Whether the value lies in a blob file.
    is_separated: bool,
    /// The value that was read from one last, for who borrows it.
    fetched: Slice,
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
        Ok(Self {
            merge,
            view,
            tables,
            below,
            has_range_tombstones: in_memory || on_disk,
            is_separated: false,
            fetched: Slice::default(),
        })
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
    pub(crate) fn value(&self) -> Result<Slice> {
        if self.is_separated { self.fetch() } else { Ok(self.merge.value()) }
    }

    /// Sees to it that [`VisibleCursor::lent`] has the value, which may have to be read.
    #[inline]
    pub(crate) fn prepare(&mut self) -> Result<()> {
        if self.is_separated {
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
        self.tables.blobs.value(&self.view.version, self.merge.key(), self.merge.value_bytes())
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
    fn is_live(&mut self) -> Result<bool> {
        let kind = self.merge.kind();
        self.is_separated = kind == Kind::BlobHandle;
        let has_value = kind == Kind::Put || self.is_separated;
        if !has_value || !self.has_range_tombstones {
            return Ok(has_value);
        }
        let key = self.merge.key();
        let newest = super::covering_tombstone(&self.view, &self.tables, key, self.below)?;
        Ok(newest.is_none_or(|seq| seq < self.merge.seq()))
    }
}
