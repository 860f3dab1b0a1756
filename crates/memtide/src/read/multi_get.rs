//! Point reads of many keys of one moment, each answered as [`get`](super::get) would answer it.
//!
//! Keys are hashed once, sorted, and handed from source to source, newest first, until a source decides them.
//! So each source is looked into for all keys in turn: a memtable while the processor's caches hold it or, if it is
//! too large for them, with the cache misses of several keys at a time; a table opened once, a block fetched once
//! for all keys that lie in it.

use memtide_base::sync::Arc;
use memtide_base::{Result, SeqNo, Slice, hash};
use memtide_memtable::{Ahead, Memtable, WARM_KEYS};
use memtide_storage::table::{Near, Table};

use super::get::{look_into, look_into_memtable};
use crate::keyspace_state::SuperVersion;
use crate::table_store::TableStore;
use crate::version::TableMeta;

/// A key that no source has decided yet.
struct Wanted<'k> {
    key: &'k [u8],
    hash: u64,
    /// Where its answer goes.
    at: usize,
}

/// The values of `keys` as a read below `below` sees them, in the order of the keys.
pub(crate) fn multi_get<K: AsRef<[u8]>>(
    view: &SuperVersion,
    tables: &TableStore,
    hash_seed: u64,
    keys: &[K],
    below: SeqNo,
) -> Result<Vec<Option<Slice>>> {
    let keys = keys.iter().map(AsRef::as_ref).enumerate();
    let wanted = keys.map(|(at, key)| Wanted { key, hash: hash::key_hash(hash_seed, key), at });
    let mut reads = MultiGet { open: wanted.collect(), values: Vec::new() };
    reads.values.resize(reads.open.len(), None);
    reads.open.sort_unstable_by_key(|wanted| wanted.key);
    reads.look_into_memtables(view, tables, below, Some(&view.active), |_| Some(&view.active))?;
    for run in &view.sealed {
        reads.look_into_memtables(view, tables, below, run.only(), |key| run.table_over(key))?;
    }
    for meta in view.version.level0() {
        reads.look_into_tables(view, tables, below, |key| meta.spans(key).then_some(meta))?;
    }
    for run in view.version.runs() {
        reads.look_into_tables(view, tables, below, |key| run.table_over(key))?;
    }
    Ok(reads.values)
}

struct MultiGet<'k> {
    /// In key order.
    open: Vec<Wanted<'k>>,
    values: Vec<Option<Slice>>,
}

impl MultiGet<'_> {
    /// Asks one source about every open key; `warm` is told which keys come next, [`WARM_KEYS`] at most.
    fn look(
        &mut self,
        warm: impl Fn(&[Wanted<'_>]),
        mut source: impl FnMut(&Wanted<'_>) -> Result<Option<Option<Slice>>>,
    ) -> Result<()> {
        let mut kept = 0;
        for at in 0..self.open.len() {
            if at % WARM_KEYS == 0 {
                warm(&self.open[at..self.open.len().min(at + WARM_KEYS)]);
            }
            let wanted = &self.open[at];
            match source(wanted)? {
                Some(value) => self.values[wanted.at] = value,
                None => {
                    self.open.swap(kept, at);
                    kept += 1;
                }
            }
        }
        self.open.truncate(kept);
        Ok(())
    }

    /// Asks disjoint memtables, or one, `only`: others have no range tombstones. `over` names the one that a key is
    /// looked up in.
    fn look_into_memtables<'v>(
        &mut self,
        view: &SuperVersion,
        tables: &TableStore,
        below: SeqNo,
        only: Option<&Arc<Memtable>>,
        over: impl Fn(&[u8]) -> Option<&'v Arc<Memtable>>,
    ) -> Result<()> {
        let only = only.filter(|table| table.range_tombstone_count() > 0);
        let tombstones = only.map(|table| table.range_tombstones());
        let warm = |next: &[Wanted<'_>]| {
            let place = |wanted: &Wanted<'_>| over(wanted.key).map(Arc::as_ptr);
            for together in next.chunk_by(|a, b| place(a) == place(b)) {
                if let Some(table) = over(together[0].key) {
                    let keys = together.iter().map(|wanted| (wanted.key, wanted.hash));
                    table.warm(Ahead::Get, keys);
                }
            }
        };
        self.look(warm, |wanted| {
            let Some(table) = over(wanted.key) else { return Ok(None) };
            let hiding = tombstones.as_ref().and_then(|all| all.newest_over(wanted.key, below));
            let looked = look_into_memtable(table, hiding, wanted.key, wanted.hash, below);
            looked.fetched(view, tables, wanted.key)
        })
    }

    /// Asks disjoint tables, or one; `over` names the one that a key lies in.
    fn look_into_tables<'v>(
        &mut self,
        view: &SuperVersion,
        tables: &TableStore,
        below: SeqNo,
        over: impl Fn(&[u8]) -> Option<&'v Arc<TableMeta>>,
    ) -> Result<()> {
        let mut last: Option<(&Arc<TableMeta>, Arc<Table>, Near)> = None;
        self.look(
            |_| (),
            |wanted| {
                if last.as_ref().is_none_or(|(meta, ..)| !meta.spans(wanted.key)) {
                    let meta = over(wanted.key).filter(|meta| meta.seq_min < below);
                    let Some(meta) = meta else { return Ok(None) };
                    last = Some((meta, tables.open(meta)?, Near::default()));
                }
                let (_, table, near) = last.as_mut().expect("set just now");
                let looked = look_into(table, near, wanted.key, wanted.hash, below)?;
                looked.fetched(view, tables, wanted.key)
            },
        )
    }
}
