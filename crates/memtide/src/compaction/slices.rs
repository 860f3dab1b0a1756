//! Slices of one merge that are written side by side, each by a job of its own but the last: whoever asks writes that.
//!
//! They read the same tables of the same version and know nothing of each other. Nothing is installed here.

use std::collections::BTreeSet;

use memtide_base::seqno::SEE_ALL;
use memtide_base::sync::{Arc, Mutex};
use memtide_base::{RangeTombstone, Result};
use memtide_env::{Job, JobId, Step};

use super::limits::Limits;
use super::plan::Input;
use super::progress::Progress;
use super::run::Merge;
use super::{garbage, hold};
use crate::engine::Engine;
use crate::range::HalfOpen;
use crate::read::{LevelCursor, Source};
use crate::rewrite::{OutsideTables, Rewrite, rewrite};
use crate::snapshots::Readers;
use crate::version::{Change, Version};

/// What the slices have in common.
pub(super) struct Slices {
    /// As it is before any of them is installed.
    merge: Merge,
    progress: Arc<Progress>,
    readers: Readers,
    version: Arc<Version>,
}

/// What was written of a slice, or why it was not.
type Outcome = Mutex<Option<Result<Vec<Change>>>>;

impl Slices {
    pub(super) fn of(merge: Merge, progress: &Arc<Progress>) -> Self {
        let readers = progress.engine.snapshots.readers();
        let version = Arc::clone(&progress.keyspace.current().version);
        Self { merge, progress: Arc::clone(progress), readers, version }
    }

    /// Writes a slice for each of `spans`, one at least; the others may still be written when the last is.
    pub(super) fn write(self, mut spans: Vec<HalfOpen>) -> Vec<Pending> {
        let shared = Arc::new(self);
        let own = spans.pop().expect("a merge has a slice");
        let mut slices: Vec<_> =
            spans.into_iter().map(|span| Pending::begin(&shared, span)).collect();
        let own = shared.slice(own);
        slices.push(Pending {
            engine: Arc::clone(&shared.progress.engine),
            job: None,
            outcome: done(own),
        });
        slices
    }

    /// Writes what the inputs hold of the keys in `span`.
    fn slice(&self, span: HalfOpen) -> Result<Vec<Change>> {
        let Progress { engine, keyspace, .. } = &*self.progress;
        let merge = &self.merge;
        let numbers = merge.plan.tables().map(|table| table.number).collect();
        let older = OutsideTables::around(&self.version, numbers);
        let (sources, tombstones) = self.open_inputs(engine, &span)?;
        // A statement of its own: what is loaded for it must not stay in memory as long as the compaction.
        let anchor = keyspace.current().active.learned_anchor();
        let bars = merge.kept.iter().filter(|table| table.meets(&span));
        rewrite(
            engine,
            Rewrite {
                keyspace,
                sources,
                anchor,
                tombstones,
                readers: &self.readers,
                older: &older,
                run: merge.output,
                last: merge.last,
                bars: bars.map(|table| table.smallest.clone()).collect(),
                under: merge.under.clone(),
                table_size: engine.settings.table_size,
                version: &self.version,
                given_up: garbage::due(&self.version, &Limits::of(engine)),
                span,
                written: &|bytes| {
                    self.progress.add(bytes);
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
        let kept: BTreeSet<u64> = self.merge.kept.iter().map(|table| table.number).collect();
        let (mut sources, mut tombstones) = (Vec::new(), Vec::new());
        for Input { run, tables } in &self.merge.plan.inputs {
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

fn done(written: Result<Vec<Change>>) -> Arc<Outcome> {
    Arc::new(Mutex::new(Some(written)))
}

/// A slice that is written or being written. Once this is dropped nobody writes it any more.
pub(super) struct Pending {
    engine: Arc<Engine>,
    job: Option<JobId>,
    outcome: Arc<Outcome>,
}

impl Pending {
    /// Has a job write it; if there can be none it is written now.
    fn begin(shared: &Arc<Slices>, span: HalfOpen) -> Self {
        let engine = Arc::clone(&shared.progress.engine);
        let outcome = Arc::new(Outcome::new(None));
        let job = SliceJob {
            slices: Arc::clone(shared),
            span: span.clone(),
            outcome: Arc::clone(&outcome),
        };
        match engine.env.executor.submit(Box::new(job)) {
            Ok(job) => Self { engine, job: Some(job), outcome },
            Err(_) => Self { engine, job: None, outcome: done(shared.slice(span)) },
        }
    }

    /// Waits until it is written.
    ///
    /// # Errors
    /// Nothing of it is left.
    pub(super) fn wait(mut self) -> Result<Vec<Change>> {
        self.join();
        let outcome = self.outcome.lock().take();
        outcome.expect("the merge panics as its slice did")
    }

    fn join(&mut self) {
        if let Some(job) = self.job.take() {
            self.engine.env.executor.join(job);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.join();
    }
}

/// Writes one slice. It needs no watching over: the merge waits for it.
struct SliceJob {
    slices: Arc<Slices>,
    span: HalfOpen,
    outcome: Arc<Outcome>,
}

impl Job for SliceJob {
    fn name(&self) -> &'static str {
        "memtide-slice"
    }

    fn step(&mut self) -> Step {
        let written = self.slices.slice(self.span.clone());
        *self.outcome.lock() = Some(written);
        Step::Done
    }
}
