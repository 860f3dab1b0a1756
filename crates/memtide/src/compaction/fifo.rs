//! First in, first out: nothing is ever merged; the oldest tables go when there are too many bytes, or when they have
//! become too old. For data that is worth something for a while: logs, measurements, caches.
//!
//! Only the oldest data of a keyspace is dropped, table by table from its oldest run: no table that stays is older than
//! one that goes, so nothing that was deleted or overwritten comes back. What is dropped is gone for snapshots too; an
//! iterator that is open keeps the tables it reads.
//!
//! Costs: write, nothing; space, what is configured; read, a run per flush.

use memtide_base::sync::Arc;

use super::limits::Limits;
use super::plan::{Input, Plan};
use crate::version::{Run, RunId, TableMeta, Version};

/// The tables in the order in which they go.
pub(super) fn oldest_first(version: &Version) -> impl Iterator<Item = &Arc<TableMeta>> {
    from_oldest(version).flat_map(|(_, tables)| tables)
}

/// What must go: the oldest `expired` tables, and more until the others are within the limit. The newest table stays
/// however large it is, unless it has expired: or a flush above the limit would be lost as soon as it was made.
pub(super) fn plan(version: &Version, limits: &Limits, expired: usize) -> Option<Plan> {
    let (mut left, mut bytes) = (0_usize, 0);
    for table in version.tables() {
        (left, bytes) = (left + 1, bytes + table.bytes_in_all());
    }
    let mut expired = expired;
    let mut inputs = Vec::new();
    for (run, tables) in from_oldest(version) {
        let mut dropped = Vec::new();
        for table in tables {
            let are_too_many = left > 1 && bytes > limits.fifo_size;
            if expired == 0 && !are_too_many {
                break;
            }
            let freed = table.bytes_in_all();
            (left, bytes, expired) = (left - 1, bytes - freed, expired.saturating_sub(1));
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

    fn limits(fifo_size: u64) -> Limits {
        Limits { fifo_size, ..Limits::SMALL }
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
        for (fifo_size, expired, want) in [
            (7000, 0, "nothing"),
            (7000, 1, "L3[1] -> nothing"),
            (7000, 3, "L1.1[5] L3[1 2] -> nothing"),
            (6999, 1, "L3[1] -> nothing"),
            (6999, 0, "L3[1] -> nothing"),
            (5000, 0, "L3[1 2] -> nothing"),
            (4000, 1, "L1.1[5] L3[1 2] -> nothing"),
            (1500, 0, "L0[8] L1.2[6] L1.1[5 7] L3[1 2] -> nothing"),
            (0, 0, "L0[8] L1.2[6] L1.1[5 7] L3[1 2] -> nothing"),
            (0, 7, "L0[9] L0[8] L1.2[6] L1.1[5 7] L3[1 2] -> nothing"),
        ] {
            let plan = plan(&version, &limits(fifo_size), expired);
            assert_eq!(text(&version, plan), want, "{fifo_size} {expired}");
        }
        let order: Vec<_> = oldest_first(&version).map(|table| table.number).collect();
        assert_eq!(order, [1, 2, 5, 7, 6, 8, 9]);
        assert!(plan(&Version::empty(), &limits(0), 1).is_none());
    }
}
