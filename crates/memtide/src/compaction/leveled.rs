//! Leveled compaction: one run per level, each level ten times the one above (O'Neil et al., 1996).
//!
//! Targets are dynamic, as in RocksDB (Dong et al., 2017): they come from the bytes of the last level, divided by ten
//! upwards, so what lies above it is at most a ninth of it whatever the size of the tree. The shallowest level whose
//! target is worth it is the *base*, into which level 0 is merged; levels above the base are empty. When even level 1
//! is large enough to have one above it, the last run moves a level deeper, which rewrites nothing.
//!
//! The most overdue level goes first. From level 0 the oldest tables move, as many as a merge takes; from a deeper
//! level the one with the least to rewrite below it, the oldest of equals. A table with nothing under it moves
//! without being rewritten, unless it is to be compressed on the way. A level that another strategy left with several
//! runs is merged into one before anything else.
//!
//! Costs: write, half of [`GROWTH`] per level and up to all of it; space, 1.11 and level 0; read, one run per level.

use memtide_base::sync::Arc;

use super::limits::{DUE, GROWTH, Limits};
use super::plan::{Input, Plan, bounds, oldest_of_level0};
use super::tombstones;
use crate::version::{LEVELS, RunId, TableMeta, Version};

/// The most urgent merge; `None` if every level is within its target.
pub(super) fn plan(version: &Version, limits: &Limits) -> Option<Plan> {
    if let Some(level) = (1..LEVELS).find(|&level| version.run_count(level) > 1) {
        let inputs = Input::whole_levels(version, level..level + 1);
        return Some(Plan { inputs, output: Some(RunId::first(level)), may_move: true });
    }
    let goal = Targets::of(version, limits);
    if goal.is_outgrown() {
        let inputs = Input::whole_levels(version, goal.last..goal.last + 1);
        return Some(Plan { inputs, output: Some(RunId::first(goal.last + 1)), may_move: true });
    }
    let urgent =
        (0..goal.last).max_by_key(|&level| (goal.score(version, level), LEVELS - level))?;
    if goal.score(version, urgent) > DUE {
        let chosen = match urgent {
            0 => oldest_of_level0(version),
            level => std::slice::from_ref(cheapest(version, level, goal.below(version, level))?),
        };
        return Some(goal.downwards(version, urgent, chosen));
    }
    if let Some((run, table)) = tombstones::to_sink(version) {
        return Some(goal.downwards(version, run.level, std::slice::from_ref(table)));
    }
    tombstones::end(version, limits.settled)
}

/// How many thousandths of its target the most overdue level below level 0 holds.
pub(super) fn overdue(version: &Version, limits: &Limits) -> u128 {
    let goal = Targets::of(version, limits);
    (1..goal.last).map(|level| goal.score(version, level)).max().unwrap_or(0)
}

/// The level that holds so much well, if it is the last.
pub(super) fn level_for(weight: u64, limits: &Limits) -> usize {
    let outgrown = |level: &usize| Targets { last: *level, weight, limits: *limits }.is_outgrown();
    (1..LEVELS).find(|level| !outgrown(level)).unwrap_or(LEVELS - 1)
}

/// How large the levels of a tree should be.
struct Targets {
    /// The last level that holds data, at least 1.
    last: usize,
    /// What it holds.
    weight: u64,
    limits: Limits,
}

impl Targets {
    fn of(version: &Version, limits: &Limits) -> Self {
        let last = version.deepest().max(1);
        Self { last, weight: version.level_weight(last), limits: *limits }
    }

    fn target(&self, level: usize) -> u64 {
        let above = u32::try_from(self.last - level).expect("seven levels");
        self.weight / GROWTH.pow(above)
    }

    /// The shallowest level worth having.
    fn base(&self) -> usize {
        (1..self.last).find(|&level| self.is_worth_it(self.target(level))).unwrap_or(self.last)
    }

    /// Whether a level of this target is worth having. With less, what the level saves the next one costs in the level
    /// itself. Half a level 1 wrote the least in trees of twelve to four hundred flushes, the whole of it half as much
    /// again in some of them (docs/design/0007-compaction-strategies.md).
    fn is_worth_it(&self, target: u64) -> bool {
        2 * target >= self.limits.level1_size
    }

    /// Whether a level above level 1 would be worth having.
    fn is_outgrown(&self) -> bool {
        self.last < LEVELS - 1 && self.is_worth_it(self.target(1) / GROWTH)
    }

    /// How full a level is, above [`DUE`] if it is to be merged.
    fn score(&self, version: &Version, level: usize) -> u128 {
        if level == 0 {
            // Due once the limit is reached, not above it.
            let runs = version.level0().len() as u128 * DUE;
            return runs / self.limits.level0_runs as u128 + u128::from(runs > 0);
        }
        match version.level_weight(level) {
            0 => 0,
            // Nothing belongs there. However much it is, level 0 may be more urgent.
            weight if level < self.base() => {
                let size = u128::from(self.limits.level1_size.max(1));
                (u128::from(weight) * DUE / size).max(DUE + 1)
            }
            weight => u128::from(weight) * DUE / u128::from(self.target(level).max(1)),
        }
    }

    /// `chosen` from `level` and everything they overlap in the level below, which has one run at most.
    fn downwards(&self, version: &Version, level: usize, chosen: &[Arc<TableMeta>]) -> Plan {
        let (from, to) = bounds(chosen);
        let mut below = self.below(version, level);
        let meets = |level: usize| version.overlapping(level, from, to).next().is_some();
        let passes = |level: usize| self.limits.passes(level, self.last);
        if level == 0 && passes(below) && !meets(below) && !meets(below + 1) {
            // Keys that rise all the time: they would only be rewritten once more.
            below += 1;
        }
        let run = version.runs_of(level).first().map_or(RunId::first(level), |run| run.id);
        let mut inputs = vec![Input { run, tables: chosen.to_vec() }];
        let mut output = RunId::first(below);
        for run in version.runs_of(below) {
            output = run.id;
            let under = run.overlapping(from, to);
            if !under.is_empty() {
                inputs.push(Input { run: run.id, tables: under.to_vec() });
            }
        }
        // What moves stays compressed as it is.
        let may_move = !passes(level) || passes(below);
        Plan { inputs, output: Some(output), may_move }
    }

    /// The level that `level` is merged into: the next one from the base on, or one above it that is not empty yet.
    fn below(&self, version: &Version, level: usize) -> usize {
        let next = level + 1;
        (next..self.base()).find(|&l| version.run_count(l) > 0).unwrap_or(next.max(self.base()))
    }
}

/// The table of a level that has the fewest bytes under it, relative to its own.
fn cheapest(version: &Version, level: usize, below: usize) -> Option<&Arc<TableMeta>> {
    let cost = |table: &&Arc<TableMeta>| {
        let under: u64 = version
            .overlapping(below, &table.smallest, &table.largest)
            .map(|below| below.size)
            .sum();
        (u128::from(under) * 1000 / u128::from(table.size.max(1)), table.number)
    };
    version.tables_of(level).min_by_key(cost)
}

#[cfg(test)]
mod tests {
    use super::super::plan::testing::{text, version};
    use super::super::simulated::converges;
    use super::super::{lazy_leveled, tiered};
    use super::*;

    const LIMITS: Limits = Limits { level1_size: 600, ..Limits::SMALL };

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
            // Level 2 has 3000 bytes, so level 1 should have 300.
            (
                &[
                    (1, 0, 1, "a", "b"),
                    (1, 0, 2, "c", "d"),
                    (2, 0, 3, "a", "b"),
                    (2, 0, 4, "e", "f"),
                    (2, 0, 5, "g", "h"),
                ],
                "L1[2] -> L2 (move)",
            ),
            (
                &[
                    (0, 0, 7, "a", "c"),
                    (0, 0, 6, "k", "l"),
                    (1, 0, 2, "c", "d"),
                    (2, 0, 3, "a", "b"),
                    (2, 0, 4, "d", "f"),
                    (2, 0, 5, "g", "h"),
                ],
                "L1[2] L2[4] -> L2",
            ),
        ] {
            let version = version(tables);
            assert_eq!(text(&version, plan(&version, &LIMITS)), want, "{tables:?}");
        }
    }

    #[test]
    fn level_0_goes_to_the_shallowest_level_whose_share_of_the_last_is_worth_it() {
        let tree = |last: usize| {
            let mut tables = vec![(0, 0, 1, "a", "a"), (0, 0, 2, "a", "a")];
            tables.extend([(last, 0, 3, "a", "b"), (last, 0, 4, "c", "d"), (last, 0, 5, "e", "f")]);
            version(&tables)
        };
        for (last, level1_size, want) in [
            (1, 601, "L0[2 1] L1[3] -> L1"),
            (1, 600, "L1[3 4 5] -> L2 (move)"),
            (2, 600, "L0[2 1] -> L1"),
            (2, 601, "L0[2 1] L2[3] -> L2"),
            (6, 1, "L0[2 1] -> L3"),
            (6, 300, "L0[2 1] -> L5"),
            // Nothing of level 1 or 2 is met, and level 1 is not compressed.
            (3, 30, "L0[2 1] -> L2"),
        ] {
            let (version, limits) = (tree(last), Limits { level1_size, ..LIMITS });
            assert_eq!(text(&version, plan(&version, &limits)), want, "{last} {level1_size}");
        }
    }

    #[test]
    fn of_many_runs_in_level_0_the_oldest_go_first() {
        let many: Vec<_> = (1..=150).map(|number| (0, 0, number, "a", "z")).collect();
        let version = version(&many);
        for plan in [plan, lazy_leveled::plan, tiered::plan] {
            let text = text(&version, plan(&version, &LIMITS));
            assert!(text.starts_with("L0[64 63 ") && text.contains(" 2 1] -> L"), "{text}");
        }
    }

    #[test]
    fn what_another_strategy_left_becomes_one_run_per_level_from_the_base_on() {
        for (tables, want) in [
            (
                &[(2, 4, 1, "a", "m"), (2, 1, 2, "c", "p"), (3, 0, 3, "a", "z")][..],
                "L2.4[1] L2.1[2] -> L2",
            ),
            (&[(1, 0, 1, "a", "b"), (2, 0, 2, "a", "c"), (4, 9, 3, "c", "d")], "L1[1] L2[2] -> L2"),
            (&[(2, 0, 2, "a", "c"), (4, 9, 3, "c", "d")], "L2[2] L4.9[3] -> L4.9"),
            (&[(2, 0, 1, "a", "b"), (4, 9, 3, "c", "d")], "L2[1] -> L4.9 (move)"),
            // Level 1 is not compressed, so what leaves it is rewritten.
            (&[(1, 0, 1, "a", "b"), (4, 9, 3, "c", "d")], "L1[1] -> L4.9"),
        ] {
            let version = version(tables);
            let limits = Limits { level1_size: 5000, ..LIMITS };
            assert_eq!(text(&version, plan(&version, &limits)), want, "{tables:?}");
        }
    }

    #[test]
    fn every_tree_comes_to_one_run_per_level_and_little_above_the_last() {
        converges(&plan, |version| {
            let last = version.deepest();
            let above: u64 = (1..last).map(|level| version.level_weight(level)).sum();
            match (1..LEVELS).find(|&level| version.run_count(level) > 1) {
                Some(level) => Err(format!("level {level} has several runs")),
                None if above * 9 > version.level_weight(last) => Err(format!("{above} B above")),
                None => Ok(()),
            }
        });
    }
}
