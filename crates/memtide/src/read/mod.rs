//! The read path: superversion → active, sealed (newest first) → runs, level 0 first.

mod get;
mod level_cursor;
mod merge_cursor;
mod multi_get;
mod version_stream;
mod visible_cursor;

pub(crate) use get::get;
pub(crate) use level_cursor::LevelCursor;
pub(crate) use merge_cursor::{MergeCursor, Source};
pub(crate) use multi_get::multi_get;
pub(crate) use version_stream::VersionStream;
pub(crate) use visible_cursor::VisibleCursor;

use memtide_base::{Result, SeqNo};

use crate::keyspace_state::SuperVersion;
use crate::table_store::TableStore;

/// The newest range tombstone over `key` with `seq < below`, of all sources of a superversion.
pub(crate) fn covering_tombstone(
    view: &SuperVersion,
    tables: &TableStore,
    key: &[u8],
    below: SeqNo,
) -> Result<Option<SeqNo>> {
    let mut newest = view.memtables().filter_map(|t| t.covering_tombstone(key, below)).max();
    let level0 = view.version.level0().iter().filter(|meta| meta.spans(key));
    let deeper = view.version.runs().iter().filter_map(|run| run.table_over(key));
    for meta in level0.chain(deeper).filter(|meta| meta.range_deletes > 0) {
        if meta.seq_min < below && newest.is_none_or(|newest| meta.seq_max > newest) {
            newest = newest.max(tables.open(meta)?.range_tombstones().newest_over(key, below));
        }
    }
    Ok(newest)
}
