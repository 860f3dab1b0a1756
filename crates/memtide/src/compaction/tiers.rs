//! What the strategies with several runs per level have in common: a level is merged, whole, into one new run of the
//! next level once it has [`RUNS`] runs, so a write is rewritten once per level.
//!
//! The oldest run holds most of the data. What newer runs hold is at worst another version of it, so space is bounded
//! by their bytes: beyond a share of the oldest run everything is merged. A tombstone counts there as the row that it
//! hides. The result goes as deep as its size asks for, so that runs above it can grow large before they reach it.

use super::limits::{DUE, Limits};
use super::plan::{Input, Plan};
use super::tombstones;
use crate::version::{LEVELS, RunId, Version};

/// Runs that make a level due.
pub(super) const RUNS: usize = 4;

/// Where the two strategies differ.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiers {
    /// Whether the last level may have several runs.
    pub(super) last_has_many: bool,
    /// Everything is merged when newer runs hold more than this part of the oldest one: one `share`th.
    pub(super) share: u64,
}

impl Tiers {
    /// What is most overdue; `None` if nothing is.
    pub(super) fn plan(&self, version: &Version, limits: &Limits) -> Option<Plan> {
        let last = version.deepest().max(1);
        let level0 = runs_over(version, 0, limits.level0_runs);
        let full = (1..=last).map(|level| (runs_over(version, level, RUNS), level));
        let (full, level) = full.max_by_key(|(score, level)| (*score, *level))?;
        let space = self.space(version);
        if level0.max(full).max(space) < DUE {
            return tombstones::end(version, limits.settled);
        }
        if space >= full.max(level0) {
            return Some(self.everything_from(version, limits, 1));
        }
        Some(self.down(version, limits, if level0 >= full { 0 } else { level }))
    }

    /// The level that a run of so much belongs to, if it is the oldest.
    pub(super) fn level_for(&self, weight: u64, limits: &Limits) -> usize {
        let run = |level: usize| {
            let grown = (RUNS as u64).pow(u32::try_from(level - 1).expect("seven levels"));
            limits.level1_size.saturating_mul(grown)
        };
        (1..LEVELS).find(|&level| run(level) >= weight / self.share).unwrap_or(LEVELS - 1)
    }

    /// How much of its share the data above the oldest run takes.
    fn space(&self, version: &Version) -> u128 {
        let Some((oldest, newer)) = version.runs().split_last() else { return 0 };
        if !self.last_has_many && version.run_count(version.deepest()) > 1 {
            return u128::MAX;
        }
        let (mut weight, mut rows) = (0, 0);
        for table in oldest.tables() {
            weight += table.weight();
            rows += u128::from(table.rows);
        }
        let row = u128::from(weight) / rows.max(1);
        let tables = newer.iter().flat_map(|run| run.tables());
        let above: u128 = tables
            .map(|table| {
                u128::from(table.weight()) + row * u128::from(table.deletes.min(table.weight()))
            })
            .sum();
        above * u128::from(self.share) * DUE / u128::from(weight.max(1))
    }

    /// A whole level becomes a run of the next.
    fn down(&self, version: &Version, limits: &Limits, level: usize) -> Plan {
        let last = version.deepest().max(1);
        let below = (level + 1).min(LEVELS - 1);
        if below == last && !self.last_has_many {
            return self.everything_from(version, limits, level);
        }
        if below == level {
            let inputs = Input::whole_levels(version, level..LEVELS);
            return Plan { inputs, output: Some(RunId::first(level)), may_move: true };
        }
        let inputs = match level {
            0 => Input::from_level0(version, below),
            _ => Input::whole_levels(version, level..below),
        };
        let rank = version.runs_of(below).first().map_or(0, |newest| newest.id.rank + 1);
        Plan { inputs, output: Some(RunId { level: below, rank }), may_move: true }
    }

    fn everything_from(&self, version: &Version, limits: &Limits, level: usize) -> Plan {
        let inputs = match level {
            0 => Input::from_level0(version, LEVELS),
            _ => Input::whole_levels(version, level..LEVELS),
        };
        let weight = inputs.iter().flat_map(|input| &input.tables).map(|t| t.weight()).sum();
        let level = self.level_for(weight, limits).max(version.deepest());
        Plan { inputs, output: Some(RunId::first(level)), may_move: true }
    }
}

/// How many thousandths of the runs that make it due the most overdue level below level 0 has.
pub(super) fn overdue(version: &Version) -> u128 {
    (1..LEVELS).map(|level| runs_over(version, level, RUNS)).max().unwrap_or(0)
}

fn runs_over(version: &Version, level: usize, limit: usize) -> u128 {
    version.run_count(level) as u128 * DUE / limit as u128
}
