//! Point reads: the first source that has the key below the bound answers, unless a newer range tombstone
//! covers it.
//!
//! Sources are looked at newest first, so the first version found is the newest there is. A source's data is
//! older than that of the sources before it, so a range tombstone that covers the key in one source hides
//! everything behind that source, and whatever of the key is older in the source itself.

use memtide_base::{Kind, Result, SeqNo, Slice, hash};
use memtide_memtable::Memtable;
use memtide_storage::table::{Near, Table};

use crate::keyspace_state::SuperVersion;
use crate::table_store::TableStore;

/// The value of `key` as a read below `below` sees it.
pub(crate) fn get(
    view: &SuperVersion,
    tables: &TableStore,
    hash_seed: u64,
    key: &[u8],
    below: SeqNo,
) -> Result<Option<Slice>> {
    let hash = hash::key_hash(hash_seed, key);
    for table in view.memtables_over(key) {
        let tombstone = table.covering_tombstone(key, below);
        if let Looked::Found(value) = look_into_memtable(table, tombstone, key, hash, below) {
            return Ok(value);
        }
    }
    let level0 = view.version.level0().iter().filter(|meta| meta.spans(key));
    let deeper = view.version.runs().iter().filter_map(|run| run.table_over(key));
    for meta in level0.chain(deeper).filter(|meta| {
        meta.seq_min < below && !(cfg!(plant = "snapshot_skips_tables") && meta.seq_max >= below)
    }) {
        let table = tables.glance(meta)?;
        let looked = look_into(&table, &mut Near::default(), key, hash, below)?;
        if let Some(value) = looked.fetched(view, tables, key)? {
            return Ok(value);
        }
    }
    Ok(None)
}

/// What one source says about a key.
pub(super) enum Looked {
    /// It decides: the value, or that there is none.
    Found(Option<Slice>),
    /// It decides: the value lies in a blob file, where this handle says.
    Separated(Slice),
    /// It says nothing about the key.
    Absent,
}

impl Looked {
    /// What it decides, read from its blob file if it lies in one; `None` if it says nothing.
    #[inline]
    pub(super) fn fetched(
        self,
        view: &SuperVersion,
        tables: &TableStore,
        key: &[u8],
    ) -> Result<Option<Option<Slice>>> {
        Ok(match self {
            Self::Found(value) => Some(value),
            Self::Separated(handle) => {
                Some(Some(tables.blobs.value(&view.version, key, &handle)?))
            }
            Self::Absent => None,
        })
    }
}

/// Looks into a memtable whose newest range tombstone over the key is `tombstone`.
pub(super) fn look_into_memtable(
    table: &Memtable,
    tombstone: Option<SeqNo>,
    key: &[u8],
    hash: u64,
    below: SeqNo,
) -> Looked {
    match table.get(key, hash, below) {
        Some(entry) => {
            let live = entry.kind == Kind::Put && tombstone.is_none_or(|seq| seq < entry.seq);
            Looked::Found(live.then(|| Slice::copy_of(entry.value)))
        }
        None if tombstone.is_some() => Looked::Found(None),
        None => Looked::Absent,
    }
}

/// Looks into a table; `near` is the block that was looked into before.
pub(super) fn look_into(
    table: &Table,
    near: &mut Near,
    key: &[u8],
    hash: u64,
    below: SeqNo,
) -> Result<Looked> {
    let tombstone = table.range_tombstones().newest_over(key, below);
    Ok(match table.get_near(key, hash, below, near)? {
        Some(found) => {
            let live = cfg!(plant = "get_forgets_range_deletes")
                || tombstone.is_none_or(|seq| seq < found.seq);
            match found.kind {
                Kind::BlobHandle if live => Looked::Separated(found.value),
                kind => Looked::Found((live && kind == Kind::Put).then_some(found.value)),
            }
        }
        None if tombstone.is_some() => Looked::Found(None),
        None => Looked::Absent,
    })
}
