//! Runs a compaction plan.

use memtide_base::sync::Arc;
use memtide_base::sync::atomic::Ordering;
use memtide_base::{Result, Slice};

use super::limits::Limits;
use super::plan::{Input, Plan};
use super::progress::Progress;
use super::slices::Slices;
use super::{Alone, admission, hold};
use crate::config::Compaction;
use crate::engine::Engine;
use crate::keyspace_state::KeyspaceState;
use crate::range::HalfOpen;
use crate::rewrite::discard;
use crate::version::{Change, Edit, LEVELS, RunId, TableMeta, Version};

/// Asks `choose` for a plan and runs it; `false` if there was none.
///
/// # Errors
/// The tree is as it was, but for the slices of a merge that were done before; what else was written is removed.
pub(super) fn run(
    engine: &Arc<Engine>,
    keyspace: &Arc<KeyspaceState>,
    _alone: &Alone<'_>,
    choose: &dyn Fn(&Version) -> Result<Option<Plan>>,
) -> Result<bool> {
    // Closing and pausing wait for that lock: what did not begin before must not begin at all.
    hold::check(engine)?;
    let version = Arc::clone(&keyspace.current().version);
    let Some(plan) = choose(&version)? else { return Ok(false) };
    debug_assert_eq!(plan.check(&version), Ok(()), "{plan:?}");
    if !admission::admits(engine, &version, &plan)? {
        return Ok(false);
    }
    let progress = Arc::new(Progress::of(engine, keyspace, &plan));
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
#[derive(Clone)]
pub(super) struct Merge {
    /// What is left of it.
    pub(super) plan: Plan,
    pub(super) output: RunId,
    /// The tables that go to the output as they are.
    pub(super) kept: Vec<Arc<TableMeta>>,
    /// The tables that the result will lie over, in key order.
    pub(super) under: Vec<Arc<TableMeta>>,
    /// The last level of the tree then.
    pub(super) last: usize,
}

impl Merge {
    /// Merges slice by slice of the keys, or several of them at a time where threads have nothing else to do. Each is
    /// installed in its turn, and what all of them replace gives its space back before the next ones begin.
    fn run(mut self, progress: &Arc<Progress>) -> Result<()> {
        let engine = &progress.engine;
        let mut from = Vec::new();
        loop {
            let mut spare = engine.threads.take();
            let threads = 1 + spare.count();
            let table_size = engine.settings.table_size;
            let ends = self.plan.slice_ends(&from, &self.kept, table_size, threads);
            spare.keep(ends.len() - 1);
            let starts = std::iter::once(Some(&from)).chain(ends.iter().map(Option::as_ref));
            let spans = starts.zip(&ends).map(|(start, end)| HalfOpen {
                start: Slice::copy_of(start.expect("only the last one has no end")),
                end: end.as_deref().map(Slice::copy_of),
            });
            let slices = Slices::of(self.clone(), progress).write(spans.collect());
            let mut failure = None;
            for (slice, end) in slices.into_iter().zip(&ends) {
                let installed = match slice.wait() {
                    Ok(written) if failure.is_none() => {
                        self.install(progress, written, end.as_deref())
                    }
                    // What comes before it is not there.
                    Ok(written) => {
                        discard(engine, &written);
                        Ok(())
                    }
                    Err(error) => Err(error),
                };
                failure = failure.or(installed.err());
            }
            if let Some(error) = failure {
                // Of slices that were installed.
                engine.bury();
                return Err(error);
            }
            let Some(end) = ends.into_iter().next_back().flatten() else {
                progress.finish();
                return Ok(());
            };
            from = end;
            hold::check(engine)?;
        }
    }

    /// Installs the next slice, which ends at `end`.
    fn install(
        &mut self,
        progress: &Progress,
        written: Vec<Change>,
        end: Option<&[u8]>,
    ) -> Result<()> {
        let Progress { engine, keyspace, .. } = progress;
        let replaced = self.plan.take_merged(end);
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
        if end.is_some() {
            progress.leave(self.plan.level0().count());
        }
        Ok(())
    }

    /// Whether the tables that a slice replaces may go to the output without passing what stays.
    fn check(&self, keyspace: &KeyspaceState, replaced: &[Arc<TableMeta>]) -> Result<(), String> {
        let inputs = vec![Input { run: RunId::first(0), tables: replaced.to_vec() }];
        let plan = Plan { inputs, output: Some(self.output), may_move: false };
        plan.check_order(&keyspace.current().version)
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
