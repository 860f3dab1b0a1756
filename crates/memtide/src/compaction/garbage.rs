//! Blob files that are mostly garbage, values to which no table refers any more, and files that are too small.
//!
//! A value becomes garbage when a merge drops its row. The file goes when no table refers to it, so what is left in it
//! is moved out: by any merge that meets it, and where none does, by rewriting the tables that refer to it, some at a
//! time, where they are.
//!
//! A few files are given up at a time, those with the most garbage first: what is moved takes space until the last
//! table that refers to them is rewritten, and moving it in one go would need as much space again.
//!
//! This ends: a rewritten table refers to none of these files, and what it was given instead has no garbage and is
//! larger. Level 0 is left alone; its next compaction does the same. Files in which a value was found damaged are not
//! given up.

use memtide_base::sync::Arc;
use memtide_base::sync::atomic::Ordering;

use super::limits::Limits;
use super::plan::{Input, Plan};
use crate::version::{BlobMeta, Run, TableMeta, Version};

/// Garbage is due when it is at least this part of a keyspace's blob files together. A file is worth emptying when it
/// has that part.
const PART_DUE: u64 = 5;
/// Of all bytes of blob files, this part is moved at a time; but at least a table's worth.
const PART_MOVED: u64 = 10;
/// Files beyond which small ones are joined.
const FILES_MANY: usize = 64;
/// Files are small that are, on average, less than this part of a table.
const PART_SMALL: u64 = 8;
/// Tables that are rewritten together.
const TABLES_AT_ONCE: usize = 8;

/// A blob file and how much of it is in use.
struct File<'v> {
    meta: &'v BlobMeta,
    used: u64,
}

impl File<'_> {
    fn bytes(&self) -> u64 {
        self.meta.summary.bytes
    }

    fn garbage(&self) -> u64 {
        self.bytes().saturating_sub(self.used)
    }

    fn is_due(&self) -> bool {
        is_due(self.garbage(), self.bytes())
    }
}

fn is_due(garbage: u64, bytes: u64) -> bool {
    garbage > 0 && garbage >= bytes.div_ceil(PART_DUE)
}

/// The numbers of the files whose values are to be moved out, rising.
pub(super) fn due(version: &Version, limits: &Limits) -> Vec<u64> {
    if version.blobs().is_empty() {
        return Vec::new();
    }
    let used = version.blob_bytes_used();
    let files = version.blobs().iter().zip(used).map(|(meta, used)| File { meta, used });
    let files: Vec<_> =
        files.filter(|file| !file.meta.is_damaged.load(Ordering::Relaxed)).collect();
    let bytes: u64 = files.iter().map(File::bytes).sum();
    let at_once = limits.table_size.max(bytes / PART_MOVED);
    if is_due(files.iter().map(File::garbage).sum(), bytes) {
        return full_of_garbage(files, at_once);
    }
    let many = files.len() > FILES_MANY;
    let small = limits.table_size / PART_SMALL;
    if many && bytes < small * files.len() as u64 {
        return too_small(version, files, small, at_once);
    }
    Vec::new()
}

/// The files with the most garbage. Moving some of a file's values only brings it further to the front, so the choice
/// stays as it is until they are gone.
fn full_of_garbage(mut files: Vec<File<'_>>, at_once: u64) -> Vec<u64> {
    files.retain(File::is_due);
    files.sort_by_key(|file| (u128::from(file.used) << 64) / u128::from(file.bytes().max(1)));
    first_of(&files, at_once)
}

/// The oldest of the small files, if joining them makes them fewer by half at least. What they are joined into is
/// younger.
fn too_small(version: &Version, mut files: Vec<File<'_>>, small: u64, at_once: u64) -> Vec<u64> {
    files.retain(|file| file.bytes() < small);
    let numbers = first_of(&files, at_once);
    let below = version.runs().iter().flat_map(Run::tables);
    let tables = below.filter(|table| refers(table, &numbers)).count();
    let pays = numbers.len() >= 2 * tables.div_ceil(TABLES_AT_ONCE);
    if pays { numbers } else { Vec::new() }
}

/// The numbers of the first files that have so many bytes together; at least of one.
fn first_of(files: &[File<'_>], bytes: u64) -> Vec<u64> {
    let mut sum = 0;
    let fits = |file: &&File<'_>| {
        let is_first = sum == 0;
        sum += file.bytes();
        is_first || sum <= bytes
    };
    let mut numbers: Vec<_> = files.iter().take_while(fits).map(|file| file.meta.number).collect();
    numbers.sort_unstable();
    numbers
}

fn refers(table: &TableMeta, files: &[u64]) -> bool {
    table.blobs.iter().any(|of| files.binary_search(&of.number).is_ok())
}

/// Rewrites tables that refer to such files.
pub(super) fn plan(version: &Version, limits: &Limits) -> Option<Plan> {
    let due = due(version, limits);
    if due.is_empty() {
        return None;
    }
    let refers = |table: &&Arc<TableMeta>| refers(table, &due);
    let stretch = |run: &Run| {
        let from = run.tables().iter().skip_while(|table| !refers(table));
        let tables: Vec<_> = from.take_while(refers).take(TABLES_AT_ONCE).cloned().collect();
        (!tables.is_empty()).then_some(tables)
    };
    let (run, tables) = version.runs().iter().find_map(|run| Some((run.id, stretch(run)?)))?;
    Some(Plan { inputs: vec![Input { run, tables }], output: Some(run), may_move: false })
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
            let limits = Limits { table_size: 100, ..Limits::SMALL };
            assert_eq!(due(&version, &limits), files, "{tables:?}");
            assert_eq!(text(&version, plan(&version, &limits)), want, "{tables:?}");
        }
    }
}
