//! Scripts: what the crash and fault tests have a database do, step by step, drawn from a seed.

use std::time::Duration;

use memtide::{Compaction, Config, Db, Durability, MemtableChoice, MemtableType};
use memtide_env::Simulation;

use crate::oracle::{Change, Draw};
use crate::own_memtable::registry;

pub(crate) const ROOT: &str = "/db";
/// A keyspace without a log, where a script has one.
pub(crate) const UNLOGGED: &str = "cache";

/// One step of a script.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Write(Vec<Change>, Durability),
    Flush,
    Compact,
    /// On the open database, between two writes.
    SetMemtable(&'static str, MemtableChoice),
    SetCompaction(&'static str, Compaction),
    /// Closes in order and opens again.
    Reopen,
    /// Time passes; background jobs run.
    Tick(Duration),
}

pub(crate) struct Script {
    pub(crate) config: Config,
    pub(crate) names: &'static [&'static str],
    pub(crate) steps: Vec<Step>,
}

impl Script {
    /// Writes, loads in key order, flushes, a merge, changes of type and strategy, passing time and a reopen, drawn
    /// from a seed.
    pub(crate) fn draw(
        draw: &mut Draw,
        kind: MemtableType,
        names: &'static [&'static str],
    ) -> Self {
        let mut config = draw.small_config(Some(kind));
        let every = draw.pick(&[
            Durability::Interval(Duration::from_millis(40)),
            Durability::Buffered,
            Durability::Sync,
        ]);
        config.durability = Some(every);
        let mut steps = Vec::new();
        for at in 0..220 {
            let durability = draw.pick(&[every, every, Durability::Buffered, Durability::Sync]);
            let mut changes = draw.batch(names);
            if !changes.iter().any(|change| matches!(change, Change::Put(..))) {
                // A range that holds no key writes nothing, and then there would be nothing to sync either.
                changes.push(Change::Put(names[0], draw.key(), draw.value(12)));
            }
            steps.push(Step::Write(changes, durability));
            if at % 50 == 5 {
                // In key order, so that memtables are joined.
                let load = draw.load(names);
                steps.extend(load.into_iter().map(|changes| Step::Write(changes, every)));
                steps.push(Step::Tick(Duration::from_millis(10)));
            }
            match at {
                45 | 90 | 150 | 200 => steps.push(Step::Flush),
                120 => steps.push(Step::Compact),
                20 => steps.push(Step::SetMemtable(names[0], MemtableChoice::named("time_log"))),
                70 => steps.push(Step::SetMemtable(names[1], draw.memtable().into())),
                135 | 180 => steps.push(Step::SetMemtable(names[0], draw.memtable_choice())),
                30 | 100 => steps.push(Step::SetCompaction(names[0], draw.compaction())),
                60 | 140 | 170 => steps.push(Step::SetCompaction(names[1], draw.compaction())),
                160 => steps.push(Step::Reopen),
                _ if at % 7 == 0 => {
                    steps.push(Step::Tick(Duration::from_millis(10 + draw.below(60))));
                }
                _ => {}
            }
        }
        Self { config, names, steps }
    }

    pub(crate) fn open(&self, sim: &Simulation) -> memtide::Result<Db> {
        let builder = Db::builder(ROOT).config(self.config.clone()).registry(registry());
        builder.env(sim.env.clone()).open()
    }
}
