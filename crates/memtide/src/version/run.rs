//! A run below level 0: disjoint tables in key order, and the fences that lead a key to the one that may hold it.

use memtide_base::Upper;
use memtide_base::key::{head_behind, shared_prefix_len};
use memtide_base::sync::Arc;

use super::TableMeta;

/// Which run a table belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunId {
    pub(crate) level: usize,
    /// Its rank in the level: the larger the newer its data. Tables of level 0, where each is a run of its own that
    /// its sequence numbers rank, have 0.
    pub(crate) rank: u64,
}

impl RunId {
    /// The oldest run there can be in a level, and the only one there is in most.
    pub(crate) fn first(level: usize) -> Self {
        Self { level, rank: 0 }
    }
}

/// Disjoint tables in key order. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) id: RunId,
    tables: Arc<[Arc<TableMeta>]>,
    /// What all the first keys of tables begin with.
    anchor: Arc<[u8]>,
    /// The heads of the first keys behind it, ascending, so that a search seldom looks at the tables themselves.
    heads: Arc<[u64]>,
}

impl Run {
    /// A run of these tables, or what keeps them from being one.
    pub(super) fn new(id: RunId, mut tables: Vec<Arc<TableMeta>>) -> Result<Self, String> {
        tables.sort_by(|a, b| a.smallest.cmp(&b.smallest));
        for pair in tables.windows(2) {
            if pair[0].largest.admits(&pair[1].smallest) || pair[0].smallest == pair[1].smallest {
                let (a, b, RunId { level, rank }) = (pair[0].number, pair[1].number, id);
                return Err(format!("tables {a} and {b} of level {level}, run {rank} overlap"));
            }
        }
        let anchor = match tables.as_slice() {
            [first, .., last] => {
                &first.smallest[..shared_prefix_len(&first.smallest, &last.smallest)]
            }
            _ => &[],
        };
        let heads = tables.iter().map(|table| head_behind(anchor, &table.smallest)).collect();
        let anchor = Arc::from(anchor);
        Ok(Self { id, anchor, heads, tables: tables.into() })
    }

    pub(crate) fn tables(&self) -> &[Arc<TableMeta>] {
        &self.tables
    }

    /// Its tables, to keep.
    pub(crate) fn shared_tables(&self) -> Arc<[Arc<TableMeta>]> {
        Arc::clone(&self.tables)
    }

    /// The one table whose bounds hold `key`.
    pub(crate) fn table_over(&self, key: &[u8]) -> Option<&Arc<TableMeta>> {
        let after = self.count_up_to(key);
        self.tables.get(after.checked_sub(1)?).filter(|table| table.largest.admits(key))
    }

    /// The tables whose bounds overlap `[from, to]`.
    pub(crate) fn overlapping(&self, from: &[u8], to: &Upper) -> &[Arc<TableMeta>] {
        let start = self.tables.partition_point(|table| !table.largest.admits(from));
        let end = self.tables.partition_point(|table| to.admits(&table.smallest));
        &self.tables[start..end.max(start)]
    }

    /// How many of the tables begin at `key` or before.
    fn count_up_to(&self, key: &[u8]) -> usize {
        let head = head_behind(&self.anchor, key);
        let start = self.heads.partition_point(|fence| *fence < head);
        let ties = self.heads[start..].partition_point(|fence| *fence == head);
        let ties = &self.tables[start..start + ties];
        start
            + ties.partition_point(|table| {
                table.smallest.as_slice() < key
                    || table.smallest.as_slice() == key && !cfg!(plant = "first_key_left_out")
            })
    }
}
