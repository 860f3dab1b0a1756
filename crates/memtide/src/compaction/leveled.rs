//! Leveled compaction as a pure planner: what to merge next, given the shape of a tree.
//!
//! Level 0 is due by its number of runs, deeper levels by their bytes over a target that grows tenfold
//! from level to level (O'Neil et al., 1996, in LevelDB's form). The most overdue level goes first. From
//! level 0 everything moves; from a deeper level the table with the least to rewrite below it, the oldest
//! of equals. A table with nothing under it moves without being rewritten.

use memtide_base::Upper;
use memtide_base::sync::Arc;

use crate::version::{LEVELS, TableMeta, Version};

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

/// Tables to merge, and the level the result belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The inputs with their levels; level 0 newest first, deeper ones in key order.
    pub(crate) inputs: Vec<(usize, Vec<Arc<TableMeta>>)>,
    pub(crate) output_level: usize,
    /// Whether a table without anything under it may move as it is.
    may_move: bool,
}

impl Plan {
    /// The one table that can change its level without being rewritten.
    pub(crate) fn trivial_move(&self) -> Option<&Arc<TableMeta>> {
        match self.inputs.as_slice() {
            [(level, tables)] if self.may_move && *level != self.output_level => {
                match &tables[..] {
                    [only] => Some(only),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// The most urgent merge; `None` if every level is within its target.
pub(crate) fn plan(version: &Version, shape: &Shape) -> Option<Plan> {
    let score = |level: usize| -> u128 {
        // Thousandths of the target, so that levels compare as integers.
        if level == 0 {
            return version.level(0).len() as u128 * 1000 / shape.level0_runs as u128;
        }
        u128::from(version.level_bytes(level)) * 1000 / u128::from(shape.target(level).max(1))
    };
    let urgent = (0..LEVELS - 1).max_by_key(|&level| (score(level), LEVELS - level))?;
    if score(urgent) < 1000 || (urgent > 0 && score(urgent) == 1000) {
        return None;
    }
    let chosen = if urgent == 0 {
        version.level(0).to_vec()
    } else {
        vec![Arc::clone(cheapest(version, urgent)?)]
    };
    Some(downwards(version, urgent, chosen))
}

/// A merge of the whole tree into one level; `None` if there is nothing to gain.
pub(crate) fn everything(version: &Version, shape: &Shape) -> Option<Plan> {
    let used: Vec<_> = (0..LEVELS).filter(|&level| !version.level(level).is_empty()).collect();
    let deepest = *used.last()?;
    let has_waste = version
        .tables()
        .any(|table| table.deletes + table.range_deletes > 0 || table.keys < table.rows);
    if used.len() == 1 && deepest > 0 && !has_waste {
        return None;
    }
    let bytes = version.tables().map(|table| table.size).sum();
    let wide = (1..LEVELS).find(|&level| shape.target(level) >= bytes).unwrap_or(LEVELS - 1);
    let inputs = used.iter().map(|&level| (level, version.level(level).to_vec())).collect();
    Some(Plan { inputs, output_level: wide.max(deepest), may_move: false })
}

/// `chosen` from `level` and everything they overlap one level deeper.
fn downwards(version: &Version, level: usize, chosen: Vec<Arc<TableMeta>>) -> Plan {
    let from = chosen.iter().map(|table| table.smallest.as_slice()).min().unwrap_or_default();
    let unbounded = Upper::Unbounded;
    let to = chosen.iter().map(|table| &table.largest).max().unwrap_or(&unbounded);
    let under: Vec<_> = version.overlapping(level + 1, from, to).cloned().collect();
    let mut inputs = vec![(level, chosen)];
    if !under.is_empty() {
        inputs.push((level + 1, under));
    }
    Plan { inputs, output_level: level + 1, may_move: true }
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
    version.level(level).iter().min_by_key(cost)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { level0_runs: 2, level1_size: 2500 };

    /// A version from `(level, number, smallest, largest)`; every table has 1000 bytes.
    fn version(tables: &[(usize, u64, &str, &str)]) -> Version {
        let added: Vec<_> = tables
            .iter()
            .map(|&(level, number, smallest, largest)| {
                let largest = Upper::Included(largest.as_bytes().to_vec());
                let table = TableMeta::for_tests(number, smallest.as_bytes(), largest);
                (level, Arc::new(table))
            })
            .collect();
        Version::empty().with(&[], &added).expect("a sound version")
    }

    /// `L0[2 1] L1[3] -> L1`.
    fn text(plan: Option<Plan>) -> String {
        let Some(plan) = plan else { return "nothing".to_owned() };
        let level = |(level, tables): &(usize, Vec<Arc<TableMeta>>)| {
            let numbers: Vec<_> = tables.iter().map(|table| table.number.to_string()).collect();
            format!("L{level}[{}] ", numbers.join(" "))
        };
        let inputs: String = plan.inputs.iter().map(level).collect();
        let moves = if plan.trivial_move().is_some() { " (move)" } else { "" };
        format!("{inputs}-> L{}{moves}", plan.output_level)
    }

    #[test]
    fn the_most_overdue_level_is_merged_with_what_lies_under_it() {
        for (tables, want) in [
            (&[][..], "nothing"),
            (&[(0, 1, "a", "z")], "nothing"),
            (
                &[(0, 1, "a", "f"), (0, 2, "c", "k"), (1, 3, "j", "m"), (1, 4, "n", "p")],
                "L0[2 1] L1[3] -> L1",
            ),
            (
                &[(1, 1, "a", "b"), (1, 2, "c", "d"), (1, 3, "e", "f"), (2, 4, "a", "c")],
                "L1[3] -> L2 (move)",
            ),
            (
                &[(1, 1, "a", "b"), (1, 2, "c", "d"), (1, 3, "e", "f"), (2, 4, "a", "f")],
                "L1[1] L2[4] -> L2",
            ),
        ] {
            assert_eq!(text(plan(&version(tables), &SHAPE)), want, "{tables:?}");
        }
    }

    #[test]
    fn everything_goes_where_it_fits() {
        let one = version(&[(1, 1, "a", "b"), (1, 2, "c", "d")]);
        assert_eq!(text(everything(&one, &SHAPE)), "nothing");
        let two = version(&[(0, 3, "a", "z"), (1, 1, "a", "b"), (1, 2, "c", "d")]);
        assert_eq!(text(everything(&two, &SHAPE)), "L0[3] L1[1 2] -> L2");
    }
}
