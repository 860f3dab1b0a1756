//! Runs a compaction plan.

use std::cell::Cell;
use std::collections::BTreeSet;

use memtide_base::seqno::SEE_ALL;
use memtide_base::sync::Arc;
use memtide_base::sync::atomic::Ordering;
use memtide_base::{RangeTombstone, Result, Slice};

use super::garbage;
use super::limits::Limits;
use super::plan::{Input, Plan, SLICE_TABLES};
use super::{Alone, hold};
use crate::config::Compaction;
use crate::engine::Engine;
use crate::keyspace_state::KeyspaceState;
use crate::pace::WHOLE;
use crate::range::HalfOpen;
use crate::read::{LevelCursor, Source};
use crate::rewrite::{OutsideTables, Rewrite, rewrite};
use crate::version::{Change, Edit, LEVELS, RunId, TableMeta, Version};
use crate::write;

/// Bytes between two looks at how far a compaction is.
const PROGRESS_BYTES: u64 = 1 << 20;

/// Asks `choose` for a plan and runs it; `false` if there was none.
///
/// # Errors
/// The tree is as it was, but for the slices of a merge that were done before; what else was written is removed.
pub(super) fn run(
    engine: &Engine,
    keyspace: &Arc<KeyspaceState>,
    _alone: &Alone<'_>,
    choose: &dyn Fn(&Version) -> Result<Option<Plan>>,
) -> Result<bool> {
    // Closing and pausing wait for that lock: what did not begin before must not begin at all.
    hold::check(engine)?;
    let version = Arc::clone(&keyspace.current().version);
    let Some(plan) = choose(&version)? else { return Ok(false) };
    debug_assert_eq!(plan.check(&version), Ok(()), "{plan:?}");
    let progress = Progress::of(engine, keyspace, &plan);
    if let (None, Some(output)) = (plan.is_move(), plan.output) {
        let last = version.deepest().max(output.level);
        let merge = Merge {
            kept: plan.kept(&Limits::of(engine), last),
            under: under(&version, output.level),
            plan,
            output,
            last,
        };
        // No file of a replaced table goes while a version names it.
        drop(version);
        return merge.run(&progress).map(|()| true);
    }
    let moved = plan.is_move().into_iter();
    let added = moved.flat_map(|run| plan.tables().map(move |t| Change::TableAdd(t.stored(run))));
    let edit = Edit::new(drops(keyspace, plan.tables()).chain(added).collect());
    if !install(engine, keyspace, edit, plan.output.is_none())? {
        return Ok(false);
    }
    progress.finish();
    drop((version, plan));
    engine.bury();
    engine.freed.notify();
    Ok(true)
}

fn drops<'t>(
    keyspace: &KeyspaceState,
    tables: impl Iterator<Item = &'t Arc<TableMeta>>,
) -> impl Iterator<Item = Change> {
    let keyspace = keyspace.id;
    tables.map(move |table| Change::TableDrop { keyspace, number: table.number })
}

/// A merge under way.
struct Merge {
    /// What is left of it.
    plan: Plan,
    output: RunId,
    /// The tables that go to the output as they are.
    kept: Vec<Arc<TableMeta>>,
    /// The tables that the result will lie over, in key order.
    under: Vec<Arc<TableMeta>>,
    /// The last level of the tree then.
    last: usize,
}

impl Merge {
    /// Merges slice by slice of the keys: each is installed, and what it replaces gives its space back, before the next
    /// one begins.
    fn run(mut self, progress: &Progress<'_>) -> Result<()> {
        let Progress { engine, keyspace, .. } = *progress;
        let bytes_max = engine.settings.table_size.saturating_mul(SLICE_TABLES);
        let mut from = Vec::new();
        loop {
            let end = self.plan.slice_end(&from, &self.kept, bytes_max);
            let start = Slice::copy_of(&from);
            let span = HalfOpen { start, end: end.as_deref().map(Slice::copy_of) };
            let written = self.slice(progress, span)?;
            let replaced = self.plan.take_merged(end.as_deref());
            debug_assert_eq!(self.check(keyspace, &replaced), Ok(()), "{replaced:?}");
            let is_kept =
                |table: &&Arc<TableMeta>| self.kept.iter().any(|kept| Arc::ptr_eq(kept, table));
            let kept = replaced.iter().filter(is_kept).map(|table| table.stored(self.output));
            let added = written.into_iter().chain(kept.map(Change::TableAdd));
            let edit = Edit::new(drops(keyspace, replaced.iter()).chain(added).collect());
            install(engine, keyspace, edit, false)?;
            drop(replaced);
            engine.bury();
            engine.freed.notify();
            engine.budget.give_back();
            let Some(end) = end else {
                progress.finish();
                return Ok(());
            };
            progress.leave(self.plan.level0().count());
            from = end;
            hold::check(engine)?;
        }
    }

    /// Whether the tables that a slice replaces may go to the output without passing what stays.
    fn check(&self, keyspace: &KeyspaceState, replaced: &[Arc<TableMeta>]) -> Result<(), String> {
        let inputs = vec![Input { run: RunId::first(0), tables: replaced.to_vec() }];
        let plan = Plan { inputs, output: Some(self.output), may_move: false };
        plan.check_order(&keyspace.current().version)
    }

    /// Writes what the inputs hold of the keys in `span`.
    fn slice(&self, progress: &Progress<'_>, span: HalfOpen) -> Result<Vec<Change>> {
        let Progress { engine, keyspace, .. } = *progress;
        let readers = engine.snapshots.readers();
        let version = Arc::clone(&keyspace.current().version);
        let numbers = self.plan.tables().map(|table| table.number).collect();
        let older = OutsideTables::around(&version, numbers);
        let (sources, tombstones) = self.open_inputs(engine, &span)?;
        // A statement of its own: what is loaded for it must not stay in memory as long as the compaction.
        let anchor = keyspace.current().active.learned_anchor();
        let bars = self.kept.iter().filter(|table| table.meets(&span));
        rewrite(
            engine,
            Rewrite {
                keyspace,
                sources,
                anchor,
                tombstones,
                readers: &readers,
                older: &older,
                run: self.output,
                last: self.last,
                bars: bars.map(|table| table.smallest.clone()).collect(),
                under: self.under.clone(),
                table_size: engine.settings.table_size,
                version: &version,
                given_up: garbage::due(&version, &Limits::of(engine)),
                span,
                written: &|bytes| {
                    progress.add(bytes);
                    hold::keep(engine, bytes)
                },
            },
        )
    }

    /// What is merged in a slice: all inputs but those that are kept.
    fn open_inputs(
        &self,
        engine: &Engine,
        span: &HalfOpen,
    ) -> Result<(Vec<Source>, Vec<RangeTombstone>)> {
        let kept: BTreeSet<u64> = self.kept.iter().map(|table| table.number).collect();
        let (mut sources, mut tombstones) = (Vec::new(), Vec::new());
        for Input { run, tables } in &self.plan.inputs {
            let merged = tables.iter().filter(|t| !kept.contains(&t.number) && t.meets(span));
            let tables: Vec<_> = merged.cloned().collect();
            let single = run.level == 0 || tables.len() == 1;
            for meta in tables.iter().filter(|meta| single || meta.range_deletes > 0) {
                let table = engine.tables.open(meta)?;
                let clipped = table
                    .range_tombstones()
                    .iter()
                    .filter_map(|tombstone| tombstone.clipped(&span.start, span.end.as_deref()));
                tombstones.extend(clipped);
                if single {
                    sources.push(Source::Table(table.stream(SEE_ALL)));
                }
            }
            if !single {
                let metas: Arc<[_]> = Arc::from(tables);
                let tables = engine.tables.clone();
                sources.push(Source::Level(LevelCursor::streaming(metas, tables)));
            }
        }
        Ok((sources, tombstones))
    }
}

/// How far a compaction is: its inputs from level 0 count less and less in the pace of writers, and fully again once
/// this is dropped and either they are gone or it has failed.
struct Progress<'m> {
    engine: &'m Engine,
    keyspace: &'m Arc<KeyspaceState>,
    level0_runs: u64,
    level0_bytes: u64,
    /// Of all inputs.
    bytes: u64,
    /// Of those of level 0, how many are gone already.
    gone: Cell<u64>,
    /// Bytes that were written, and how many of them the pace knows of.
    written: Cell<u64>,
    told: Cell<u64>,
    /// Bytes of level 0 that were counted as done with.
    done: Cell<u64>,
    /// Whether work is counted again afterwards: one that does nothing for level 0 is none of its drain.
    resumes: bool,
}

impl<'m> Progress<'m> {
    fn of(engine: &'m Engine, keyspace: &'m Arc<KeyspaceState>, plan: &Plan) -> Self {
        let (mut drain, now) = (engine.pace.compactions.lock(), engine.env.clock.now());
        let resumes = plan.level0().next().is_none() && drain.rest(now);
        drop(drain);
        Self {
            engine,
            keyspace,
            resumes,
            level0_runs: plan.level0().count() as u64,
            level0_bytes: plan.level0().map(|table| table.weight()).sum(),
            bytes: plan.tables().map(|table| table.weight()).sum(),
            gone: Cell::new(0),
            written: Cell::new(0),
            told: Cell::new(0),
            done: Cell::new(0),
        }
    }

    /// So many bytes more were written.
    fn add(&self, bytes: u64) {
        self.written.set(self.written.get().saturating_add(bytes));
        if self.written.get() - self.told.get() >= PROGRESS_BYTES {
            self.told.set(self.written.get());
            self.tell();
        }
    }

    /// A slice is done; so many of its inputs of level 0 are left.
    fn leave(&self, level0_runs: usize) {
        self.gone.set(self.level0_runs - level0_runs as u64);
        self.tell();
    }

    /// It is done, and its inputs are gone.
    fn finish(&self) {
        self.count(self.level0_bytes);
    }

    fn count(&self, done: u64) {
        let more = done.saturating_sub(self.done.replace(done));
        self.engine.pace.compactions.lock().done(self.engine.env.clock.now(), more);
    }

    fn tell(&self) {
        let written = self.written.get().min(self.bytes);
        let part = |whole: u64| {
            let part = u128::from(whole) * u128::from(written) / u128::from(self.bytes.max(1));
            u64::try_from(part).expect("no more than the whole")
        };
        self.count(part(self.level0_bytes));
        let merged = part(self.level0_runs * WHOLE);
        self.keyspace.pace.set_merged(merged.saturating_sub(self.gone.get() * WHOLE));
        write::refresh_tree(self.engine, self.keyspace);
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.keyspace.pace.set_merged(0);
        if self.resumes {
            self.engine.pace.compactions.lock().begin(self.engine.env.clock.now());
        }
    }
}

/// The tables that the result will lie over, in key order.
fn under(version: &Version, level: usize) -> Vec<Arc<TableMeta>> {
    let level = (level + 1..LEVELS).find(|&level| version.run_count(level) > 0);
    let mut tables: Vec<_> =
        level.into_iter().flat_map(|level| version.tables_of(level)).cloned().collect();
    tables.sort_by(|a, b| a.smallest.cmp(&b.smallest));
    tables
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
    engine.tally.compactions.fetch_add(1, Ordering::Relaxed);
    Ok(true)
}
