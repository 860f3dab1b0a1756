//! Compaction: tables are merged into deeper levels, so that reads look into few places and what is
//! deleted or overwritten gives its space back.
//!
//! Deciding and doing are apart: a strategy is a pure function of a version that gives a plan, [`step`] and [`whole`]
//! ask for one and do the I/O.

mod fifo;
mod lazy_leveled;
mod leveled;
mod plan;
mod run;
mod shape;
#[cfg(test)]
mod simulated;
mod tiered;
mod tiers;
mod tombstones;

use memtide_base::Result;
use memtide_base::sync::Arc;

use crate::config::Compaction;
use crate::engine::Engine;
use crate::keyspace_state::KeyspaceState;
use crate::version::Version;
use plan::Plan;
use shape::Shape;

/// Does what is most urgent in a keyspace; `false` if nothing is.
///
/// # Errors
/// The tree is as it was; what was written is removed.
pub(crate) fn step(engine: &Engine, keyspace: &Arc<KeyspaceState>) -> Result<bool> {
    run::run(engine, keyspace, &|version| {
        let shape = Shape::of(engine);
        Ok(match keyspace.options().compaction {
            Compaction::Leveled => leveled::plan(version, &shape),
            Compaction::LazyLeveled => lazy_leveled::plan(version, &shape),
            Compaction::Tiered => tiered::plan(version, &shape),
            Compaction::Fifo => drop_oldest(engine, version, &shape)?,
        })
    })
}

/// Merges all tables of a keyspace into one run, or drops what is to be dropped; `false` if there is nothing to gain.
///
/// # Errors
/// As [`step`].
pub(crate) fn whole(engine: &Engine, keyspace: &Arc<KeyspaceState>) -> Result<bool> {
    run::run(engine, keyspace, &|version| {
        let shape = Shape::of(engine);
        let everything = |level_for: &dyn Fn(u64) -> usize| Plan::everything(version, level_for);
        Ok(match keyspace.options().compaction {
            Compaction::Leveled => everything(&|weight| leveled::level_for(weight, &shape)),
            Compaction::LazyLeveled => {
                everything(&|weight| lazy_leveled::TIERS.level_for(weight, &shape))
            }
            Compaction::Tiered => everything(&|weight| tiered::TIERS.level_for(weight, &shape)),
            Compaction::Fifo => drop_oldest(engine, version, &shape)?,
        })
    })
}

/// When a table was made only the table itself says.
fn drop_oldest(engine: &Engine, version: &Version, shape: &Shape) -> Result<Option<Plan>> {
    let is_expired = match (engine.settings.fifo_age, fifo::oldest(version)) {
        (Some(age), Some(table)) => {
            let created_ms = engine.tables.open(table)?.properties().created_ms;
            let age_ms = engine.env.clock.wall_ms().saturating_sub(created_ms);
            u128::from(age_ms) > age.as_millis()
        }
        _ => false,
    };
    Ok(fifo::plan(version, shape, is_expired))
}
