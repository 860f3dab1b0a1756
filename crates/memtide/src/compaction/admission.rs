//! Whether a plan may run now: it needs space for a while, and what is damaged cannot be merged.

use memtide_base::sync::Arc;
use memtide_base::{Error, ErrorKind, Result};

use super::garbage;
use super::limits::Limits;
use super::plan::{Plan, SLICE_TABLES};
use crate::engine::Engine;
use crate::files;
use crate::version::{TableMeta, Version};

/// Whether a plan may run; not if it gains no space where there is none.
///
/// # Errors
/// `Corruption`: it would read a table in which damage was found. `NoSpace`: what it writes before it gives anything
/// back does not fit.
pub(super) fn admits(engine: &Engine, version: &Version, plan: &Plan) -> Result<bool> {
    if plan.output.is_none() {
        return Ok(true);
    }
    if engine.health.has_damage() {
        let mut names = plan.tables().map(|table| files::table_name(table.number));
        if let Some(damaged) = names.find(|name| engine.health.is_damaged(name)) {
            let what = format!("{} is damaged and cannot be merged", damaged.display());
            return Err(Error::new(ErrorKind::Corruption, what).with_file(damaged));
        }
    }
    if plan.is_move().is_some() {
        return Ok(true);
    }
    let is_full = engine.health.lacks_space();
    if is_full && !gains_space(plan) {
        return Ok(false);
    }
    let slices = SLICE_TABLES.saturating_mul(engine.threads.all() as u64);
    let at_once = engine.settings.table_size.saturating_mul(slices);
    let tables: u64 = plan.tables().map(|table| table.size).sum();
    let given_up = garbage::due(version, &Limits::of(engine));
    let moved = given_up.iter().filter_map(|&number| version.blob(number));
    let needed = tables.min(at_once) + moved.map(|blob| blob.summary.size).sum::<u64>();
    let kept = match (engine.reserve.is_held(), is_full) {
        (true, _) => 0,
        (false, false) => engine.reserve.bytes(),
        // Deletes and flushes go on beside it.
        (false, true) => engine.reserve.bytes() / 2,
    };
    match engine.free_space().map(|free| free.saturating_sub(kept)) {
        Some(free) if free < needed => Err(Error::new(
            ErrorKind::NoSpace,
            format!("a merge needs up to {needed} B, {free} B are free for it"),
        )
        .with_hint("free some space; merges go on by themselves")),
        _ => Ok(true),
    }
}

/// Whether something may die in a merge: under a tombstone, or under the same key of another run.
fn gains_space(plan: &Plan) -> bool {
    let has_waste = |table: &Arc<TableMeta>| {
        table.deletes > 0 || table.range_deletes > 0 || table.keys < table.rows
    };
    let runs: usize = plan
        .inputs
        .iter()
        .map(|input| if input.run.level == 0 { input.tables.len() } else { 1 })
        .sum();
    runs > 1 || plan.tables().any(has_waste) || plan.tables().any(|table| !table.blobs.is_empty())
}
