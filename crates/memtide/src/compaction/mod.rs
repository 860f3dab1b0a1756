//! Compaction: tables are merged into deeper levels, so that reads look into few places and what is
//! deleted or overwritten gives its space back.
//!
//! Deciding and doing are apart: a strategy is a pure function of a version that gives a plan, [`step`] and [`whole`]
//! ask for one and do the I/O.

mod admission;
mod fifo;
mod garbage;
mod hold;
mod lazy_leveled;
mod leveled;
mod limits;
mod plan;
mod progress;
mod run;
#[cfg(test)]
mod simulated;
mod slices;
mod tiered;
mod tiers;
mod tombstones;

use memtide_base::Result;
use memtide_base::sync::{Arc, MutexGuard};

use crate::config::Compaction;
use crate::engine::Engine;
use crate::keyspace_state::KeyspaceState;
use crate::version::Version;
use crate::write;
use limits::Limits;
use plan::{LEVEL0_MAX, Plan};

/// A keyspace's `reshape`, held: one compaction at a time.
type Alone<'k> = MutexGuard<'k, ()>;

/// Does what is most urgent in a keyspace; `false` if nothing is, or if somebody else merges its tables now.
///
/// # Errors
/// The tree is as it was; what was written is removed. `Busy`: compaction was paused meanwhile.
pub(crate) fn step(engine: &Arc<Engine>, keyspace: &Arc<KeyspaceState>) -> Result<bool> {
    match keyspace.reshape.try_lock() {
        Some(alone) => {
            let done = urgent(engine, keyspace, &alone).inspect_err(|e| engine.note_damage(e));
            refresh_pace(engine, keyspace);
            done
        }
        None => Ok(false),
    }
}

fn urgent(engine: &Arc<Engine>, keyspace: &Arc<KeyspaceState>, alone: &Alone<'_>) -> Result<bool> {
    run::run(engine, keyspace, alone, &|version| {
        let limits = Limits::of(engine);
        let plan = match keyspace.options().compaction {
            Compaction::Leveled => leveled::plan(version, &limits),
            Compaction::LazyLeveled => lazy_leveled::plan(version, &limits),
            Compaction::Tiered => tiered::plan(version, &limits),
            Compaction::Fifo => drop_oldest(engine, version, &limits)?,
        };
        Ok(plan.or_else(|| garbage::plan(version, &limits)))
    })
}

/// Has writers of the keyspace go as fast as the shape of its tree allows.
fn refresh_pace(engine: &Engine, keyspace: &KeyspaceState) {
    let (version, limits) = (Arc::clone(&keyspace.current().version), Limits::of(engine));
    let overdue = match keyspace.compaction() {
        Compaction::Leveled => leveled::overdue(&version, &limits),
        Compaction::LazyLeveled | Compaction::Tiered => tiers::overdue(&version),
        Compaction::Fifo => 0,
    };
    keyspace.pace.set_overdue(u64::try_from(overdue).unwrap_or(u64::MAX));
    write::refresh_tree(engine, keyspace);
}

/// Merges all tables of a keyspace into one run, or drops all that is to be dropped. Each table of level 0 is open
/// while it is merged, so of very many the oldest are merged first.
///
/// # Errors
/// As [`step`].
pub(crate) fn whole(engine: &Arc<Engine>, keyspace: &Arc<KeyspaceState>) -> Result<()> {
    let done = all(engine, keyspace, &keyspace.reshape.lock());
    let done = done.inspect_err(|error| engine.note_damage(error));
    refresh_pace(engine, keyspace);
    done
}

fn all(engine: &Arc<Engine>, keyspace: &Arc<KeyspaceState>, alone: &Alone<'_>) -> Result<()> {
    let has_many = || keyspace.current().version.level0().len() > LEVEL0_MAX;
    while has_many() && urgent(engine, keyspace, alone)? {}
    let level_for: &dyn Fn(u64, &Limits) -> usize = match keyspace.options().compaction {
        Compaction::Leveled => &leveled::level_for,
        Compaction::LazyLeveled => &|weight, limits| lazy_leveled::TIERS.level_for(weight, limits),
        Compaction::Tiered => &|weight, limits| tiered::TIERS.level_for(weight, limits),
        Compaction::Fifo => {
            while urgent(engine, keyspace, alone)? {}
            return Ok(());
        }
    };
    let merge = |version: &Version| {
        let limits = Limits::of(engine);
        Ok(Plan::everything(version, |weight| level_for(weight, &limits)))
    };
    run::run(engine, keyspace, alone, &merge)?;
    let empty = |version: &Version| Ok(garbage::plan(version, &Limits::of(engine)));
    let is_due = || !garbage::due(&keyspace.current().version, &Limits::of(engine)).is_empty();
    while is_due() && run::run(engine, keyspace, alone, &empty)? {}
    Ok(())
}

/// Tables whose age is looked at in one step: each must be open for it.
const AGED_MAX: usize = 64;

/// What there is too much of first, which no table need be opened for; then what is too old.
fn drop_oldest(engine: &Engine, version: &Version, limits: &Limits) -> Result<Option<Plan>> {
    let too_much = fifo::plan(version, limits, 0);
    let Some(age) = engine.settings.fifo_age.filter(|_| too_much.is_none()) else {
        return Ok(too_much);
    };
    let now_ms = engine.env.clock.wall_ms();
    let mut expired = 0;
    for table in fifo::oldest_first(version).take(AGED_MAX) {
        // When a table was made only the table itself says.
        let age_ms = now_ms.saturating_sub(engine.tables.open(table)?.properties().created_ms);
        if u128::from(age_ms) <= age.as_millis() {
            break;
        }
        expired += 1;
    }
    Ok(fifo::plan(version, limits, expired))
}
