//! Tiered compaction: several runs in every level, also the last ("universal" in RocksDB; Jagadish et al., 1997).
//!
//! A write is rewritten once per level. Nothing else is worth so much space: it is bounded by merging everything once
//! what is newer than the oldest run is as large as that.
//!
//! Costs: write, one per level and about two; space, 2 and level 0; read, up to
//! [`RUNS`](super::tiers::RUNS) runs per level.

use super::limits::Limits;
use super::plan::Plan;
use super::tiers::Tiers;
use crate::version::Version;

pub(super) const TIERS: Tiers = Tiers { last_has_many: true, share: 1 };

/// The most urgent merge; `None` if every level is within its limits.
pub(super) fn plan(version: &Version, limits: &Limits) -> Option<Plan> {
    TIERS.plan(version, limits)
}

#[cfg(test)]
mod tests {
    use super::super::plan::testing::{text, version};
    use super::super::simulated::converges;
    use super::*;
    use crate::version::LEVELS;

    #[test]
    fn a_full_level_becomes_one_run_of_the_next_and_all_is_merged_when_half_of_it_is_new() {
        for (tables, want) in [
            (&[][..], "nothing"),
            (&[(0, 0, 5, "a", "m"), (0, 0, 6, "b", "c")], "L0[6 5] -> L1"),
            (
                &[
                    (0, 0, 5, "a", "m"),
                    (0, 0, 6, "b", "c"),
                    (1, 4, 1, "a", "c"),
                    (1, 4, 2, "d", "m"),
                ],
                "L0[6 5] -> L1.5",
            ),
            (&[(1, 5, 3, "a", "m"), (1, 4, 1, "a", "c"), (1, 4, 2, "d", "m")], "nothing"),
            (
                &[
                    (1, 6, 4, "a", "m"),
                    (1, 5, 3, "a", "m"),
                    (1, 4, 1, "a", "c"),
                    (1, 4, 2, "d", "m"),
                ],
                "L1.6[4] L1.5[3] L1.4[1 2] -> L2",
            ),
            (
                &[
                    (1, 6, 4, "a", "m"),
                    (1, 5, 3, "a", "m"),
                    (1, 4, 2, "a", "m"),
                    (1, 3, 1, "a", "m"),
                    (2, 8, 9, "x", "x"),
                    (3, 8, 8, "a", "c"),
                    (3, 8, 7, "d", "f"),
                    (3, 8, 6, "g", "i"),
                    (3, 8, 5, "j", "l"),
                    (3, 8, 10, "m", "m"),
                    (3, 8, 11, "n", "n"),
                ],
                "L1.6[4] L1.5[3] L1.4[2] L1.3[1] -> L2.9",
            ),
        ] {
            let version = version(tables);
            assert_eq!(text(&version, plan(&version, &Limits::SMALL)), want, "{tables:?}");
        }
    }

    #[test]
    fn every_tree_comes_to_few_runs_and_twice_its_oldest_at_most() {
        converges(&plan, |version| {
            let oldest: u64 = version
                .runs()
                .last()
                .map_or(0, |run| run.tables().iter().map(|table| table.weight()).sum());
            let all: u64 = (1..LEVELS).map(|level| version.level_weight(level)).sum();
            if all > 2 * oldest {
                return Err(format!("{oldest} of {all} B in the oldest run"));
            }
            match (1..LEVELS).find(|&level| version.run_count(level) >= super::super::tiers::RUNS) {
                Some(level) => Err(format!("level {level} is full")),
                None => Ok(()),
            }
        });
    }
}
