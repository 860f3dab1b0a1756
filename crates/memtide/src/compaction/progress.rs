//! How far a compaction is, for the pace of writers.

use memtide_base::sync::{Arc, Mutex};

use super::plan::Plan;
use crate::engine::Engine;
use crate::keyspace_state::KeyspaceState;
use crate::pace::WHOLE;
use crate::write;

/// Bytes between two looks at how far a compaction is.
const PROGRESS_BYTES: u64 = 1 << 20;

/// How far a compaction is: its inputs from level 0 count less and less in the pace of writers, and fully again once
/// this is dropped and either they are gone or it has failed.
pub(super) struct Progress {
    pub(super) engine: Arc<Engine>,
    pub(super) keyspace: Arc<KeyspaceState>,
    level0_runs: u64,
    level0_bytes: u64,
    /// Of all inputs.
    bytes: u64,
    /// A leaf; several slices may be written at a time.
    counts: Mutex<Counts>,
    /// Whether work is counted again afterwards: one that does nothing for level 0 is none of its drain.
    resumes: bool,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    /// Of the inputs of level 0, how many are gone already.
    gone: u64,
    /// Bytes that were written, and how many of them the pace knows of.
    written: u64,
    told: u64,
    /// Bytes of level 0 that were counted as done with.
    done: u64,
}

impl Progress {
    pub(super) fn of(engine: &Arc<Engine>, keyspace: &Arc<KeyspaceState>, plan: &Plan) -> Self {
        let (mut drain, now) = (engine.pace.compactions.lock(), engine.env.clock.now());
        let resumes = plan.level0().next().is_none() && drain.rest(now);
        drop(drain);
        Self {
            engine: Arc::clone(engine),
            keyspace: Arc::clone(keyspace),
            resumes,
            level0_runs: plan.level0().count() as u64,
            level0_bytes: plan.level0().map(|table| table.weight()).sum(),
            bytes: plan.tables().map(|table| table.weight()).sum(),
            counts: Mutex::default(),
        }
    }

    /// So many bytes more were written.
    pub(super) fn add(&self, bytes: u64) {
        let mut counts = self.counts.lock();
        counts.written = counts.written.saturating_add(bytes);
        let is_due = counts.written - counts.told >= PROGRESS_BYTES;
        if is_due {
            counts.told = counts.written;
        }
        drop(counts);
        if is_due {
            self.tell();
        }
    }

    /// A slice is done; so many of its inputs of level 0 are left.
    pub(super) fn leave(&self, level0_runs: usize) {
        self.counts.lock().gone = self.level0_runs - level0_runs as u64;
        self.tell();
    }

    /// It is done, and its inputs are gone.
    pub(super) fn finish(&self) {
        self.count(self.level0_bytes);
    }

    fn count(&self, done: u64) {
        let mut counts = self.counts.lock();
        let more = done.saturating_sub(counts.done);
        counts.done = counts.done.max(done);
        drop(counts);
        self.engine.pace.compactions.lock().done(self.engine.env.clock.now(), more);
    }

    fn tell(&self) {
        let Counts { gone, written, .. } = *self.counts.lock();
        let written = written.min(self.bytes);
        let part = |whole: u64| {
            let part = u128::from(whole) * u128::from(written) / u128::from(self.bytes.max(1));
            u64::try_from(part).expect("no more than the whole")
        };
        self.count(part(self.level0_bytes));
        let merged = part(self.level0_runs * WHOLE);
        self.keyspace.pace.set_merged(merged.saturating_sub(gone * WHOLE));
        write::refresh_tree(&self.engine, &self.keyspace);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.keyspace.pace.set_merged(0);
        if self.resumes {
            self.engine.pace.compactions.lock().begin(self.engine.env.clock.now());
        }
    }
}
