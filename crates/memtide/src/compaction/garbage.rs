//! Blob files that are mostly garbage: values to which no table refers any more.
//!
//! A value becomes garbage when a merge drops its row. The file goes when no table refers to it, so what is left in it
//! is moved out: by any merge that meets it, and where none does, by rewriting the tables that refer to it, one after
//! the other, where they are.
//!
//! This ends: a rewritten table refers to none of these files, and what it was given instead has no garbage. Level 0
//! is left alone; its next compaction does the same.

use super::plan::{Input, Plan};
use crate::version::{Run, Version};

/// Garbage is due when it is at least this part of a keyspace's blob files together: they take a quarter more space
/// than what is in use, at most. A file is worth emptying when it has that part.
const PART_DUE: u64 = 5;

/// The numbers of the files whose values are to be moved out, rising.
pub(super) fn due(version: &Version) -> Vec<u64> {
    let used = version.blob_bytes_used();
    let files = || version.blobs().iter().zip(&used).map(|(blob, used)| (blob, *used));
    let is_due = |garbage: u64, bytes: u64| garbage > 0 && garbage >= bytes.div_ceil(PART_DUE);
    let (mut garbage, mut bytes) = (0, 0);
    for (blob, used) in files() {
        garbage += blob.summary.bytes - used;
        bytes += blob.summary.bytes;
    }
    if !is_due(garbage, bytes) {
        return Vec::new();
    }
    files()
        .filter(|(blob, used)| is_due(blob.summary.bytes - *used, blob.summary.bytes))
        .map(|(blob, _)| blob.number)
        .collect()
}

/// Rewrites a table that refers to such a file.
pub(super) fn plan(version: &Version) -> Option<Plan> {
    let due = due(version);
    if due.is_empty() {
        return None;
    }
    let refers = |run: &Run| {
        let refers = |number: u64| due.binary_search(&number).is_ok();
        let mut tables = run.tables().iter();
        tables.find(|table| table.blobs.iter().any(|of| refers(of.number))).cloned()
    };
    let (run, table) = version.runs().iter().find_map(|run| Some((run.id, refers(run)?)))?;
    let inputs = vec![Input { run, tables: vec![table] }];
    Some(Plan { inputs, output: Some(run), may_move: false })
}

#[cfg(test)]
mod tests {
    use memtide_base::Upper;
    use memtide_base::sync::Arc;
    use memtide_storage::blob::BlobHandle;

    use super::super::plan::testing::text;
    use super::*;
    use crate::version::{BlobMeta, RunId, TableMeta};

    /// Level, number, its one key, and how many bytes of which blob file it refers to.
    type Table<'t> = (usize, u64, &'t str, &'t [(u64, u32)]);

    /// A version of these tables; blob files have 1000 bytes.
    fn version(tables: &[Table<'_>]) -> Version {
        let mut blobs: Vec<u64> = tables.iter().flat_map(|t| t.3).map(|(blob, _)| *blob).collect();
        blobs.sort_unstable();
        blobs.dedup();
        let blobs: Vec<_> =
            blobs.into_iter().map(|n| Arc::new(BlobMeta::for_tests(n, 1000))).collect();
        let table = |&(level, number, key, refs): &Table<'_>| {
            let end = Upper::Included(key.as_bytes().to_vec());
            let mut summary = TableMeta::for_tests(number, key.as_bytes(), end).summary();
            for &(number, len) in refs {
                summary.blobs.add(BlobHandle { number, offset: 64, len, raw_len: 1 });
            }
            (RunId::first(level), Arc::new(TableMeta::new(number, 0, summary, &Arc::default())))
        };
        let tables: Vec<_> = tables.iter().map(table).collect();
        Version::empty().with_blobs(&[], &tables, &blobs).expect("a sound version")
    }

    #[test]
    fn a_table_that_refers_to_a_file_with_much_garbage_is_rewritten_where_it_is() {
        for (tables, files, want) in [
            (&[(1, 1, "a", &[(7, 1000)][..])][..], &[][..], "nothing"),
            (&[(1, 1, "a", &[(7, 801)])], &[], "nothing"),
            (&[(1, 1, "a", &[(7, 800)])], &[7], "L1[1] -> L1"),
            (&[(0, 1, "a", &[(7, 100)])], &[7], "nothing"),
            (&[(1, 1, "a", &[]), (2, 2, "b", &[(7, 9)])], &[7], "L2[2] -> L2"),
            (&[(1, 1, "a", &[(7, 500)]), (1, 2, "b", &[(7, 500)])], &[], "nothing"),
            (&[(1, 1, "a", &[(7, 700)]), (1, 2, "b", &[(8, 1000)])], &[], "nothing"),
            (&[(1, 1, "a", &[(7, 600)]), (1, 2, "b", &[(8, 1000)])], &[7], "L1[1] -> L1"),
            (&[(1, 1, "a", &[(7, 900)]), (1, 2, "b", &[(8, 100)])], &[8], "L1[2] -> L1"),
        ] {
            let version = version(tables);
            assert_eq!(due(&version), files, "{tables:?}");
            assert_eq!(text(&version, plan(&version)), want, "{tables:?}");
        }
    }
}
