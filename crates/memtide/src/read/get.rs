//! Point reads: the first source that has the key below the bound answers, unless a newer range tombstone
//! covers it.
//!
//! Sources are looked at newest first, so the first version found is the newest there is; range tombstones
//! of every source up to that one are compared with it. A source's data is older than that of the sources
//! before it, so a tombstone met on the way hides everything behind it as well.

use memtide_base::sync::Arc;
use memtide_base::{Kind, Result, SeqNo, Slice, hash};

use crate::keyspace_state::SuperVersion;
use crate::table_store::TableStore;
use crate::version::{LEVELS, TableMeta};

/// The value of `key` as a read below `below` sees it.
pub(crate) fn get(
    view: &SuperVersion,
    tables: &TableStore,
    hash_seed: u64,
    key: &[u8],
    below: SeqNo,
) -> Result<Option<Slice>> {
    let hash = hash::key_hash(hash_seed, key);
    let mut tombstone: Option<SeqNo> = None;
    for table in view.memtables() {
        tombstone = tombstone.max(table.covering_tombstone(key, below));
        if let Some(entry) = table.get(key, hash, below) {
            let live = entry.kind == Kind::Put && tombstone.is_none_or(|seq| seq < entry.seq);
            return Ok(live.then(|| Slice::copy_of(entry.value)));
        }
        if tombstone.is_some() {
            return Ok(None);
        }
    }
    let level0 = view.version.level(0).iter();
    let level0 = level0.filter(|meta| meta.smallest.as_slice() <= key && meta.largest.admits(key));
    let deeper = (1..LEVELS).filter_map(|level| view.version.table_over(level, key));
    for meta in level0.chain(deeper) {
        match look_into(tables, meta, key, hash, below)? {
            Looked::Found(value) => return Ok(value),
            Looked::Absent => {}
        }
    }
    Ok(None)
}

enum Looked {
    /// This table decides: the value, or that there is none.
    Found(Option<Slice>),
    /// It says nothing about the key.
    Absent,
}

fn look_into(
    tables: &TableStore,
    meta: &Arc<TableMeta>,
    key: &[u8],
    hash: u64,
    below: SeqNo,
) -> Result<Looked> {
    if meta.seq_min >= below {
        return Ok(Looked::Absent);
    }
    let table = tables.open(meta)?;
    let tombstone = table.range_tombstones().newest_over(key, below);
    Ok(match table.get(key, hash, below)? {
        Some(found) => {
            let live = found.kind == Kind::Put && tombstone.is_none_or(|seq| seq < found.seq);
            Looked::Found(live.then_some(found.value))
        }
        None if tombstone.is_some() => Looked::Found(None),
        None => Looked::Absent,
    })
}
