//! Compaction: tables are merged into deeper levels, so that reads look into few places and what is
//! deleted or overwritten gives its space back.
//!
//! Deciding and doing are apart: a strategy is a pure function of a version that gives a plan, [`step`] and [`whole`]
//! ask for one and do the I/O.

mod leveled;
mod plan;
mod run;
mod shape;
#[cfg(test)]
mod simulated;
mod tombstones;

use memtide_base::Result;
use memtide_base::sync::Arc;

use crate::engine::Engine;
use crate::keyspace_state::KeyspaceState;
use plan::Plan;
use shape::Shape;

/// Does what is most urgent in a keyspace; `false` if nothing is.
///
/// # Errors
/// The tree is as it was; what was written is removed.
pub(crate) fn step(engine: &Engine, keyspace: &Arc<KeyspaceState>) -> Result<bool> {
    run::run(engine, keyspace, &|version| leveled::plan(version, &Shape::of(engine)))
}

/// Merges all tables of a keyspace into one run; `false` if there is nothing to gain.
///
/// # Errors
/// As [`step`].
pub(crate) fn whole(engine: &Engine, keyspace: &Arc<KeyspaceState>) -> Result<bool> {
    run::run(engine, keyspace, &|version| {
        Plan::everything(version, |bytes| leveled::level_for(bytes, &Shape::of(engine)))
    })
}
