//! Leveled compaction as a pure planner: what to merge next, given the shape of a tree.
//!
//! Level 0 is due by its number of runs, deeper levels by their bytes over a target that grows tenfold
//! from level to level (O'Neil et al., 1996, in LevelDB's form). The most overdue level goes first. From
//! level 0 everything moves; from a deeper level the table with the least to rewrite below it, the oldest
//! of equals. A table with nothing under it moves without being rewritten.

use memtide_base::sync::Arc;

use super::plan::{Input, Plan, bounds};
use crate::version::{LEVELS, RunId, TableMeta, Version};

const GROWTH: u64 = 10;

/// The targets of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Runs in level 0 that make it due.
    pub(crate) level0_runs: usize,
    /// Target bytes of level 1.
    pub(crate) level1_size: u64,
}

impl Shape {
    fn target(&self, level: usize) -> u64 {
        let growth = GROWTH.saturating_pow(u32::try_from(level - 1).expect("seven levels"));
        self.level1_size.saturating_mul(growth)
    }
}

/// The most urgent merge; `None` if every level is within its target.
pub(crate) fn plan(version: &Version, shape: &Shape) -> Option<Plan> {
    let score = |level: usize| -> u128 {
        // Thousandths of the target, so that levels compare as integers.
        if level == 0 {
            return version.level0().len() as u128 * 1000 / shape.level0_runs as u128;
        }
        u128::from(version.level_bytes(level)) * 1000 / u128::from(shape.target(level).max(1))
    };
    let urgent = (0..LEVELS - 1).max_by_key(|&level| (score(level), LEVELS - level))?;
    if score(urgent) < 1000 || (urgent > 0 && score(urgent) == 1000) {
        return None;
    }
    let chosen = if urgent == 0 {
        version.level0()
    } else {
        std::slice::from_ref(cheapest(version, urgent)?)
    };
    Some(downwards(version, urgent, chosen))
}

/// A merge of the whole tree into one level; `None` if there is nothing to gain.
pub(crate) fn everything(version: &Version, shape: &Shape) -> Option<Plan> {
    let inputs = Input::whole_levels(version, 0..LEVELS);
    let deepest = version.deepest();
    let has_waste = version
        .tables()
        .any(|table| table.deletes + table.range_deletes > 0 || table.keys < table.rows);
    if inputs.is_empty() || (inputs.len() == 1 && deepest > 0 && !has_waste) {
        return None;
    }
    let bytes = version.tables().map(|table| table.size).sum();
    let wide = (1..LEVELS).find(|&level| shape.target(level) >= bytes).unwrap_or(LEVELS - 1);
    Some(Plan { inputs, output: RunId::first(wide.max(deepest)), may_move: false })
}

/// `chosen` from `level` and everything they overlap one level deeper.
fn downwards(version: &Version, level: usize, chosen: &[Arc<TableMeta>]) -> Plan {
    let (from, to) = bounds(chosen);
    let mut inputs = vec![Input { run: RunId::first(level), tables: chosen.to_vec() }];
    for run in version.runs_of(level + 1) {
        let under = run.overlapping(from, to);
        if !under.is_empty() {
            inputs.push(Input { run: run.id, tables: under.to_vec() });
        }
    }
    Plan { inputs, output: RunId::first(level + 1), may_move: true }
}

/// The table of a level that has the fewest bytes under it, relative to its own.
fn cheapest(version: &Version, level: usize) -> Option<&Arc<TableMeta>> {
    let cost = |table: &&Arc<TableMeta>| {
        let under: u64 = version
            .overlapping(level + 1, &table.smallest, &table.largest)
            .map(|below| below.size)
            .sum();
        (u128::from(under) * 1000 / u128::from(table.size.max(1)), table.number)
    };
    version.tables_of(level).min_by_key(cost)
}

#[cfg(test)]
mod tests {
    use super::super::plan::testing::{text, version};
    use super::*;

    const SHAPE: Shape = Shape { level0_runs: 2, level1_size: 2500 };

    #[test]
    fn the_most_overdue_level_is_merged_with_what_lies_under_it() {
        for (tables, want) in [
            (&[][..], "nothing"),
            (&[(0, 0, 1, "a", "z")], "nothing"),
            (
                &[
                    (0, 0, 1, "a", "f"),
                    (0, 0, 2, "c", "k"),
                    (1, 0, 3, "j", "m"),
                    (1, 0, 4, "n", "p"),
                ],
                "L0[2 1] L1[3] -> L1",
            ),
            (
                &[
                    (1, 0, 1, "a", "b"),
                    (1, 0, 2, "c", "d"),
                    (1, 0, 3, "e", "f"),
                    (2, 0, 4, "a", "c"),
                ],
                "L1[3] -> L2 (move)",
            ),
            (
                &[
                    (1, 0, 1, "a", "b"),
                    (1, 0, 2, "c", "d"),
                    (1, 0, 3, "e", "f"),
                    (2, 0, 4, "a", "f"),
                ],
                "L1[1] L2[4] -> L2",
            ),
        ] {
            let version = version(tables);
            assert_eq!(text(&version, plan(&version, &SHAPE)), want, "{tables:?}");
        }
    }

    #[test]
    fn everything_goes_where_it_fits() {
        let one = version(&[(1, 0, 1, "a", "b"), (1, 0, 2, "c", "d")]);
        assert_eq!(text(&one, everything(&one, &SHAPE)), "nothing");
        let two = version(&[(0, 0, 3, "a", "z"), (1, 0, 1, "a", "b"), (1, 0, 2, "c", "d")]);
        assert_eq!(text(&two, everything(&two, &SHAPE)), "L0[3] L1[1 2] -> L2");
    }
}
