//! Runs a compaction plan.

use std::collections::BTreeSet;

use memtide_base::seqno::SEE_ALL;
use memtide_base::sync::Arc;
use memtide_base::sync::atomic::Ordering;
use memtide_base::{RangeTombstone, Result};

use super::garbage;
use super::limits::Limits;
use super::plan::{Input, Plan};
use super::{Alone, pace};
use crate::config::Compaction;
use crate::engine::Engine;
use crate::keyspace_state::KeyspaceState;
use crate::read::{LevelCursor, Source};
use crate::rewrite::{OutsideTables, Rewrite, rewrite};
use crate::version::{Change, Edit, LEVELS, RunId, TableMeta, Version};

/// Asks `choose` for a plan and runs it; `false` if there was none.
///
/// # Errors
/// The inputs are untouched; what was written is removed.
pub(super) fn run(
    engine: &Engine,
    keyspace: &Arc<KeyspaceState>,
    _alone: &Alone<'_>,
    choose: &dyn Fn(&Version) -> Result<Option<Plan>>,
) -> Result<bool> {
    // Closing and pausing wait for that lock: what did not begin before must not begin at all.
    pace::check(engine)?;
    let version = Arc::clone(&keyspace.current().version);
    let Some(plan) = choose(&version)? else { return Ok(false) };
    debug_assert_eq!(plan.check(&version), Ok(()), "{plan:?}");
    let added = match (plan.is_move(), plan.output) {
        (Some(run), _) => plan.tables().map(|t| Change::TableAdd(t.stored(run))).collect(),
        (None, Some(output)) => merge(engine, keyspace, &version, &plan, output)?,
        (None, None) => Vec::new(),
    };
    let drop_of = |number| Change::TableDrop { keyspace: keyspace.id, number };
    let dropped = plan.tables().map(|table| drop_of(table.number));
    let edit = Edit::new(dropped.chain(added).collect());
    if !install(engine, keyspace, edit, plan.output.is_none())? {
        return Ok(false);
    }
    engine.tally.compactions.fetch_add(1, Ordering::Relaxed);
    drop((version, plan));
    engine.bury();
    Ok(true)
}

fn merge(
    engine: &Engine,
    keyspace: &Arc<KeyspaceState>,
    version: &Version,
    plan: &Plan,
    output: RunId,
) -> Result<Vec<Change>> {
    let readers = engine.snapshots.readers();
    let numbers = plan.tables().map(|table| table.number).collect();
    let older = OutsideTables::around(version, numbers);
    let last = version.deepest().max(output.level);
    let limits = Limits::of(engine);
    let kept = plan.kept(&limits, last);
    let (sources, tombstones) = open_inputs(engine, plan, &kept)?;
    // A statement of its own: what is loaded for it must not stay in memory as long as the compaction.
    let anchor = keyspace.current().active.learned_anchor();
    let mut changes = rewrite(
        engine,
        Rewrite {
            keyspace,
            sources,
            anchor,
            tombstones,
            readers: &readers,
            older: &older,
            run: output,
            last,
            bars: kept.iter().map(|table| table.smallest.clone()).collect(),
            under: under(version, output.level),
            table_size: engine.settings.table_size,
            version,
            given_up: garbage::due(version, &limits),
            pace: &|bytes| pace::keep(engine, bytes),
        },
    )?;
    changes.extend(kept.iter().map(|table| Change::TableAdd(table.stored(output))));
    Ok(changes)
}

/// The tables that the result will lie over, in key order.
fn under(version: &Version, level: usize) -> Vec<Arc<TableMeta>> {
    let level = (level + 1..LEVELS).find(|&level| version.run_count(level) > 0);
    let mut tables: Vec<_> =
        level.into_iter().flat_map(|level| version.tables_of(level)).cloned().collect();
    tables.sort_by(|a, b| a.smallest.cmp(&b.smallest));
    tables
}

/// What is merged: all inputs but those that are `kept`.
fn open_inputs(
    engine: &Engine,
    plan: &Plan,
    kept: &[Arc<TableMeta>],
) -> Result<(Vec<Source>, Vec<RangeTombstone>)> {
    let kept: BTreeSet<u64> = kept.iter().map(|table| table.number).collect();
    let (mut sources, mut tombstones) = (Vec::new(), Vec::new());
    for Input { run, tables } in &plan.inputs {
        let merged = tables.iter().filter(|table| !kept.contains(&table.number));
        let tables: Vec<_> = merged.cloned().collect();
        let single = run.level == 0 || tables.len() == 1;
        for meta in tables.iter().filter(|meta| single || meta.range_deletes > 0) {
            let table = engine.tables.open(meta)?;
            tombstones.extend(table.range_tombstones().iter());
            if single {
                sources.push(Source::Table(table.cursor(SEE_ALL)));
            }
        }
        if !single {
            let metas: Arc<[_]> = Arc::from(tables);
            sources.push(Source::Level(LevelCursor::new(metas, engine.tables.clone(), SEE_ALL)));
        }
    }
    Ok((sources, tombstones))
}

/// Makes the edit durable and its version current; not one that `drops_data` from a keyspace that was given another
/// strategy meanwhile.
fn install(
    engine: &Engine,
    keyspace: &Arc<KeyspaceState>,
    edit: Edit,
    drops_data: bool,
) -> Result<bool> {
    // Options change under this lock.
    let mut manifest = engine.manifest.lock();
    let manifest = manifest.as_mut().ok_or_else(|| engine.no_manifest())?;
    if drops_data && keyspace.options().compaction != Compaction::Fifo {
        return Ok(false);
    }
    manifest.append(edit).inspect_err(|error| engine.fail(error))?;
    let version = Arc::clone(&manifest.state().keyspace(keyspace.id).version);
    keyspace.install_version(version);
    Ok(true)
}
