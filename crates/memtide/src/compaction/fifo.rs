//! First in, first out: nothing is ever merged; the oldest tables go when there are too many bytes, or when they have
//! become too old. For data that is worth something for a while: logs, measurements, caches.
//!
//! Only the oldest data of a keyspace is dropped, table by table from its oldest run: no table that stays is older than
//! one that goes, so nothing that was deleted or overwritten comes back. What is dropped is gone for snapshots too; an
//! iterator that is open keeps the tables it reads.
//!
//! Costs: write, nothing; space, what is configured; read, a run per flush.

use memtide_base::sync::Arc;

use super::plan::{Input, Plan};
use super::shape::Shape;
use crate::version::{Run, RunId, TableMeta, Version};

/// The table that would go first.
pub(super) fn oldest(version: &Version) -> Option<&Arc<TableMeta>> {
    let (_, tables) = from_oldest(version).next()?;
    tables.into_iter().next()
}

/// What must go: the oldest tables, until the others are within the limit; the oldest one also if it `is_expired`.
pub(super) fn plan(version: &Version, shape: &Shape, is_expired: bool) -> Option<Plan> {
    let mut bytes: u64 = version.tables().map(|table| table.size).sum();
    let mut inputs = Vec::new();
    for (run, tables) in from_oldest(version) {
        let mut dropped = Vec::new();
        for table in tables {
            let is_first = inputs.is_empty() && dropped.is_empty();
            if bytes <= shape.fifo_size && !(is_expired && is_first) {
                break;
            }
            bytes -= table.size;
            dropped.push(Arc::clone(table));
        }
        if dropped.is_empty() {
            break;
        }
        inputs.push(Input { run, tables: dropped });
    }
    // Plans list the newest first.
    inputs.reverse();
    (!inputs.is_empty()).then_some(Plan { inputs, output: None, may_move: false })
}

/// The tables of each run, those with the oldest data first.
fn from_oldest(version: &Version) -> impl Iterator<Item = (RunId, Vec<&Arc<TableMeta>>)> {
    let deeper = version.runs().iter().rev().map(|run| (run.id, by_age(run)));
    deeper.chain(version.level0().iter().rev().map(|table| (RunId::first(0), vec![table])))
}

fn by_age(run: &Run) -> Vec<&Arc<TableMeta>> {
    let mut tables: Vec<_> = run.tables().iter().collect();
    tables.sort_by_key(|table| table.seq_max);
    tables
}

#[cfg(test)]
mod tests {
    use super::super::plan::testing::{text, version};
    use super::*;

    fn shape(fifo_size: u64) -> Shape {
        Shape {
            level0_runs: 2,
            level1_size: 1,
            settled: 0,
            fifo_size,
            table_size: 1000,
            compresses: true,
        }
    }

    #[test]
    fn the_oldest_tables_go_until_the_others_are_within_the_limit() {
        let tables = [
            (0, 0, 9, "a", "z"),
            (0, 0, 8, "a", "z"),
            (1, 2, 6, "a", "c"),
            (1, 1, 7, "a", "c"),
            (1, 1, 5, "d", "f"),
            (3, 0, 2, "a", "b"),
            (3, 0, 1, "c", "d"),
        ];
        let version = version(&tables);
        for (fifo_size, is_expired, want) in [
            (7000, false, "nothing"),
            (7000, true, "L3[1] -> nothing"),
            (6999, true, "L3[1] -> nothing"),
            (6999, false, "L3[1] -> nothing"),
            (5000, false, "L3[1 2] -> nothing"),
            (4000, false, "L1.1[5] L3[1 2] -> nothing"),
            (1500, false, "L0[8] L1.2[6] L1.1[5 7] L3[1 2] -> nothing"),
            (0, false, "L0[9] L0[8] L1.2[6] L1.1[5 7] L3[1 2] -> nothing"),
        ] {
            let plan = plan(&version, &shape(fifo_size), is_expired);
            assert_eq!(text(&version, plan), want, "{fifo_size} {is_expired}");
        }
        assert_eq!(oldest(&version).map(|table| table.number), Some(1));
        assert!(plan(&Version::empty(), &shape(0), true).is_none());
    }
}
