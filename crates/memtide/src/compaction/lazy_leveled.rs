//! Lazy leveling: several runs in every level but the last, which is one run (Dayan and Idreos, 2018, "Dostoevsky").
//!
//! Most of the data, and most of what reads cost, is in the last level; most of what leveling writes is not. So only
//! the last level is kept as one run, and merged when what lies above it is worth rewriting it: a quarter of it.
//!
//! Costs: write, one per level and about five for the last; space, 1.25 and level 0; read, up to
//! [`RUNS`](super::tiers::RUNS) runs per level and one.

use super::limits::Limits;
use super::plan::Plan;
use super::tiers::Tiers;
use crate::version::Version;

pub(super) const TIERS: Tiers = Tiers { last_has_many: false, share: 4 };

/// The most urgent merge; `None` if every level is within its limits.
pub(super) fn plan(version: &Version, limits: &Limits) -> Option<Plan> {
    TIERS.plan(version, limits)
}

#[cfg(test)]
mod tests {
    use super::super::plan::testing::{text, version};
    use super::super::simulated::converges;
    use super::*;

    #[test]
    fn levels_gather_runs_until_the_last_one_is_worth_rewriting() {
        // The last level, 24 tables in level 3.
        let names: Vec<_> = ('a'..='x').map(String::from).collect();
        let last: Vec<_> =
            names.iter().zip(100..).map(|(key, number)| (3, 0, number, &**key, &**key)).collect();
        for (tables, want) in [
            (&[(1, 0, 1, "a", "m"), (1, 1, 2, "a", "m"), (1, 2, 3, "a", "m")][..], "nothing"),
            (&[(0, 0, 5, "a", "m"), (0, 0, 6, "b", "c")], "L0[6 5] -> L1"),
            (&[(0, 0, 5, "a", "m"), (0, 0, 6, "b", "c"), (1, 4, 1, "a", "m")], "L0[6 5] -> L1.5"),
            (
                &[
                    (1, 0, 1, "a", "m"),
                    (1, 2, 2, "a", "c"),
                    (1, 3, 3, "z", "z"),
                    (1, 9, 4, "p", "x"),
                ],
                "L1.9[4] L1.3[3] L1.2[2] L1[1] -> L2",
            ),
        ] {
            let version = version(&tables.iter().chain(&last).copied().collect::<Vec<_>>());
            assert_eq!(text(&version, plan(&version, &Limits::SMALL)), want, "{tables:?}");
        }
        // A quarter of the last level lies above it.
        let above = names[..6].iter().zip(1..).map(|(key, number)| (2, 7, number, &**key, &**key));
        let version = version(&last.iter().copied().chain(above).collect::<Vec<_>>());
        let text = text(&version, plan(&version, &Limits::SMALL));
        assert!(
            text.starts_with("L2.7[1 2 3 4 5 6] L3[100 ") && text.ends_with("] -> L3"),
            "{text}"
        );
    }

    #[test]
    fn the_last_run_goes_as_deep_as_its_size_asks_for() {
        let tables = |count: usize, level0: &[(usize, u64, u64, &'static str, &'static str)]| {
            let keys = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
            let run =
                keys[..count].iter().zip(10..).map(|(key, number)| (1, 0, number, *key, *key));
            version(&run.chain(level0.iter().copied()).collect::<Vec<_>>())
        };
        let level0 = [(0, 0, 1, "a", "b"), (0, 0, 2, "a", "b")];
        for (count, want) in [(0, "-> L1"), (2, "-> L1"), (3, "-> L2"), (10, "-> L2")] {
            let version = tables(count, &level0);
            let text = text(&version, plan(&version, &Limits::SMALL));
            assert!(text.starts_with("L0[2 1] ") && text.ends_with(want), "{count}: {text}");
        }
    }

    #[test]
    fn every_tree_comes_to_few_runs_and_one_last_one() {
        converges(&plan, |version| {
            let last = version.deepest();
            let above: u64 = (1..last).map(|level| version.level_weight(level)).sum();
            if version.run_count(last.max(1)) > 1 {
                return Err("the last level has several runs".to_owned());
            }
            if above * 4 > version.level_weight(last) {
                return Err(format!("{above} B above"));
            }
            match (1..last).find(|&level| version.run_count(level) >= super::super::tiers::RUNS) {
                Some(level) => Err(format!("level {level} is full")),
                None => Ok(()),
            }
        });
    }
}
