//! The write controller: slows writers down before there is nothing left to write into, and before level 0 or the
//! levels below it are so far behind that reads and space suffer.
//!
//! The rule is in `pace.rs`. Here it is applied whenever something it depends on has changed: at a rotation, a merge in
//! memory, a flush, a compaction, and at each mebibyte that a compaction writes, so that its inputs count less the
//! further it is. Nothing looks at intervals, and nothing at all happens in a database at rest.
//!
//! Memory is one for all, and so is the rate it allows. Behind in its tables is one keyspace: the others go on as they
//! like. All who are held back share one queue, as the keyspaces share one compaction at a time: who may be twice as
//! fast counts half as much in it. Writers wait here before they begin, with nothing in their hands.

use std::time::Duration;

use memtide_base::Result;
use memtide_base::sync::Arc;

use crate::batch::Writes;
use crate::config::Compaction;
use crate::engine::{Engine, Stall};
use crate::keyspace_state::KeyspaceState;
use crate::pace;

/// A writer looks this often at least whether the database still takes writes.
const SLICE: Duration = Duration::from_millis(5);

/// Has writers go as fast as memory allows now; says whether it holds them back.
pub(crate) fn refresh_memory(engine: &Engine) -> bool {
    let pressure = pace::of_memory(engine.memtable_bytes(), engine.memtable_share());
    let rate = pace::rate(pressure, engine.pace.flushes.lock().per_second());
    if rate != engine.pace.memory() {
        engine.pace.set_memory(engine.env.clock.now(), rate);
    }
    pressure > 0
}

/// Has writers of the keyspace go as fast as its tables allow now. Without background compaction nothing would become
/// better if they waited.
pub(crate) fn refresh_tree(engine: &Engine, keyspace: &KeyspaceState) {
    let is_merged = keyspace.compaction() != Compaction::Fifo;
    let pressure = if is_merged && engine.settings.enable_background_compaction {
        let runs = keyspace.glance().version.level0().len();
        keyspace.pace.pressure(runs, engine.settings.level0_runs)
    } else {
        0
    };
    let rate = pace::rate(pressure, engine.pace.compactions.lock().per_second());
    keyspace.pace.set_rate(rate);
    let slowest = engine.all_keyspaces().iter().filter_map(|each| each.pace.rate()).min();
    engine.pace.set_trees(engine.env.clock.now(), slowest);
}

/// Has the keyspace that holds most sealed bytes flushed, unless a flush is due anyway: where many keyspaces share the
/// memory, each may have less than is worth a flush.
pub(super) fn flush_largest(engine: &Engine) {
    let keyspaces = engine.all_keyspaces();
    let is_due = |keyspace: &Arc<KeyspaceState>| {
        keyspace.is_flush_wanted() || super::flush_is_due(engine, keyspace)
    };
    if keyspaces.iter().any(is_due) {
        return;
    }
    let bytes = |keyspace: &&Arc<KeyspaceState>| keyspace.current().sealed_bytes();
    if let Some(largest) = keyspaces.iter().max_by_key(bytes).filter(|one| bytes(one) > 0) {
        largest.want_flush();
        engine.wake_flush();
    }
}

/// What a write is held to.
#[derive(Clone, Copy)]
pub(super) struct Hold<'e> {
    /// Bytes that it takes in the queue.
    cost: u64,
    /// Where its wait is counted.
    pub(super) stall: &'e Stall,
    /// What is behind.
    pub(super) whose: &'static str,
}

/// What a write is held to; `None` if to nothing.
pub(super) fn hold<'e>(engine: &'e Engine, writes: &impl Writes) -> Option<Hold<'e>> {
    let slowest = engine.pace.slowest()?;
    let memory = engine.pace.memory();
    let tree = writes.keyspaces().iter().filter_map(|each| each.pace.rate()).min();
    let stalls = &engine.tally.stalls;
    let (own, stall, whose) = match (memory, tree) {
        (None, None) => return None,
        (Some(memory), tree) if tree.is_none_or(|tree| memory <= tree) => {
            (memory, &stalls.slowed_by_memory, "flushes, which are behind")
        }
        (_, tree) => (tree?, &stalls.slowed_by_compaction, "compaction, which is behind"),
    };
    let part = u128::from(slowest.min(own)) * writes.bytes() as u128 / u128::from(own.max(1));
    Some(Hold { cost: u64::try_from(part).unwrap_or(u64::MAX), stall, whose })
}

impl Hold<'_> {
    /// Takes its turn if that is now; else says how long it would take, and takes nothing.
    pub(super) fn try_turn(&self, engine: &Engine) -> Result<(), Duration> {
        match engine.pace.next_turn(engine.env.clock.now()) {
            Some(eta) => Err(eta),
            None => {
                engine.pace.join(self.cost);
                Ok(())
            }
        }
    }

    /// Waits for its turn, `left` at most; says how long it would take if that is not enough. Whether it waited comes
    /// with it.
    ///
    /// # Errors
    /// The database was closed or takes no writes any more.
    pub(super) fn wait(
        &self,
        engine: &Engine,
        left: Option<Duration>,
    ) -> Result<Result<(), Duration>> {
        let place = engine.pace.join(self.cost);
        if engine.pace.is_turn(place) {
            return Ok(Ok(()));
        }
        let began = engine.env.clock.now();
        if engine.pace.turn(began, place).is_none() {
            return Ok(Ok(()));
        }
        let waited = self.wait_for(engine, place, began, left);
        if !matches!(waited, Ok(Ok(()))) {
            engine.pace.leave(self.cost);
        }
        self.stall.note(engine.env.clock.now().saturating_sub(began));
        waited
    }

    fn wait_for(
        &self,
        engine: &Engine,
        place: u64,
        began: Duration,
        left: Option<Duration>,
    ) -> Result<Result<(), Duration>> {
        loop {
            let seen = engine.count_before_waiting()?;
            let now = engine.env.clock.now();
            let Some(eta) = engine.pace.turn_and_quantum(now, place) else { return Ok(Ok(())) };
            let left = left.map(|left| left.saturating_sub(now.saturating_sub(began)));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Err(eta));
            }
            let slice = eta.min(SLICE).min(left.unwrap_or(SLICE));
            engine.env.executor.wait(&engine.freed, seen, Some(slice));
        }
    }
}
