//! Tables that are mostly tombstones: they cost reads and space and give both back once they are merged, so they are
//! due although their level is not (as RocksDB and Pebble do it).
//!
//! This ends. A table with older data under it moves towards that data, at most to the last level. One with nothing
//! under it is rewritten where it is, and only when every read sees past all of it: no tombstone is left then.
//! While a snapshot keeps one alive the table waits.

use memtide_base::SeqNo;
use memtide_base::sync::Arc;

use super::plan::{Input, Plan};
use crate::version::{Run, RunId, TableMeta, Version};

/// Whether at least half of what some tables hold are tombstones.
pub(super) fn are_many<'t>(tables: impl IntoIterator<Item = &'t Arc<TableMeta>>) -> bool {
    let (mut tombstones, mut rows) = (0, 0);
    for table in tables {
        tombstones += u128::from(table.deletes) + u128::from(table.range_deletes);
        rows += u128::from(table.rows);
    }
    tombstones > 0 && 2 * tombstones >= rows
}

/// Rewrites a table that is mostly tombstones with nothing under them.
pub(super) fn end(version: &Version, settled: SeqNo) -> Option<Plan> {
    let ends = |run: &Run, table: &&Arc<TableMeta>| {
        table.seq_max < settled && are_many([*table]) && !lies_over_older(version, run.id, table)
    };
    let mut runs = version.runs().iter();
    let (run, table) =
        runs.find_map(|run| Some((run.id, run.tables().iter().find(|table| ends(run, table))?)))?;
    let inputs = vec![Input { run, tables: vec![Arc::clone(table)] }];
    Some(Plan { inputs, output: Some(run), may_move: false })
}

/// A table of a level above the last that is mostly tombstones with something under them.
pub(super) fn to_sink(version: &Version) -> Option<(RunId, &Arc<TableMeta>)> {
    let sinks = |run: &Run, table: &&Arc<TableMeta>| {
        are_many([*table]) && lies_over_older(version, run.id, table)
    };
    let mut runs = version.runs().iter().filter(|run| run.id.level < version.deepest());
    runs.find_map(|run| Some((run.id, run.tables().iter().find(|table| sinks(run, table))?)))
}

/// Whether a run behind `run` has something between the bounds of the table.
fn lies_over_older(version: &Version, run: RunId, table: &TableMeta) -> bool {
    let behind = version.runs().iter().skip_while(|other| other.id != run).skip(1);
    behind.into_iter().any(|run| !run.overlapping(&table.smallest, &table.largest).is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::leveled;
    use super::super::limits::Limits;
    use super::super::plan::testing::{self, text};
    use super::*;

    /// As [`testing::version`]; tables with an odd number are half tombstones.
    fn version(tables: &[(usize, u64, u64, &str, &str)]) -> Version {
        let whole = testing::version(tables);
        let ranks = |number: u64| tables.iter().find(|table| table.2 == number).expect("given");
        let (mut dropped, mut added) = (Vec::new(), Vec::new());
        for table in whole.tables().filter(|table| table.number % 2 == 1) {
            let (level, rank, ..) = *ranks(table.number);
            let mut summary = table.summary();
            (summary.rows, summary.deletes) = (10, 5);
            let table = TableMeta::new(table.number, 0, summary, &Arc::default());
            dropped.push(table.number);
            added.push((RunId { level, rank }, Arc::new(table)));
        }
        whole.with(&dropped, &added).expect("the same bounds")
    }

    #[test]
    fn tombstones_go_to_what_they_hide_and_end_where_nothing_is_under_them() {
        // The last level has ten tables more, so that one above it is within its target.
        let ends: Vec<_> = ('e'..='n').map(String::from).collect();
        let last = ends
            .iter()
            .zip((100..).step_by(2))
            .map(|(end, number)| (2, 0, number, end.as_str(), end.as_str()));
        for (tables, settled, want) in [
            (&[(1, 0, 3, "a", "c"), (2, 0, 2, "b", "d")][..], 100, "L1[3] L2[2] -> L2"),
            (&[(1, 0, 3, "a", "c"), (2, 0, 2, "b", "d")], 0, "L1[3] L2[2] -> L2"),
            (&[(1, 0, 3, "a", "c"), (2, 0, 2, "d", "d")], 100, "L1[3] -> L1"),
            (&[(2, 0, 3, "a", "c"), (2, 0, 2, "d", "d")], 100, "L2[3] -> L2"),
            // A snapshot needs the tombstones: nothing would be gained.
            (&[(1, 0, 3, "a", "c"), (2, 0, 2, "d", "d")], 3, "nothing"),
            (&[(0, 0, 5, "a", "b"), (2, 0, 2, "a", "d")], 100, "nothing"),
            (&[(1, 0, 6, "a", "b"), (2, 0, 2, "a", "d")], 100, "nothing"),
        ] {
            let version = version(&tables.iter().copied().chain(last.clone()).collect::<Vec<_>>());
            let limits = Limits { settled, ..Limits::SMALL };
            assert_eq!(text(&version, leveled::plan(&version, &limits)), want, "{tables:?}");
        }
    }
}
