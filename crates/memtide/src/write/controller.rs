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

use super::rotate::rotate_anyway;
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
        note_pace(engine);
    }
    pressure > 0
}

/// Has writers of the keyspace go as fast as its tables allow now. Without background compaction, and while compaction
/// is paused, nothing would become better if they waited.
pub(crate) fn refresh_tree(engine: &Engine, keyspace: &KeyspaceState) {
    let is_merged = keyspace.compaction() != Compaction::Fifo;
    let runs_by_itself = engine.settings.enable_background_compaction && !engine.hold.is_paused();
    let pressure = if is_merged && runs_by_itself {
        let runs = keyspace.glance().version.level0().len();
        keyspace.pace.pressure(runs, engine.settings.level0_runs)
    } else {
        0
    };
    let rate = pace::rate(pressure, engine.pace.compactions.lock().per_second());
    keyspace.pace.set_rate(rate);
    let slowest = engine.all_keyspaces().iter().filter_map(|each| each.pace.rate()).min();
    engine.pace.set_trees(engine.env.clock.now(), slowest);
    note_pace(engine);
}

/// Has the state of the database say whether writers are held back.
fn note_pace(engine: &Engine) {
    if engine.health.throttle(|| !engine.pace.is_free()) {
        engine.date_health();
    }
}

/// Memory that is worth a flush only if it is at least this part of the memtables' share: what readers pin no flush
/// gives back, and many small ones would not either.
const PART_WORTH: u64 = 4;

/// Whether memory is short and a flush of what keyspaces hold would help.
fn is_pressed(engine: &Engine, keyspaces: &[Arc<KeyspaceState>]) -> bool {
    let share = engine.memtable_share();
    let is_short = pace::of_memory(engine.memtable_bytes(), share) > 0;
    let held = |keyspace: &Arc<KeyspaceState>| sealed(&keyspace) + active(&keyspace);
    is_short && keyspaces.iter().map(held).sum::<u64>() >= share / PART_WORTH
}

fn sealed(keyspace: &&Arc<KeyspaceState>) -> u64 {
    keyspace.current().sealed_bytes()
}

fn active(keyspace: &&Arc<KeyspaceState>) -> u64 {
    let active = Arc::clone(&keyspace.current().active);
    if active.is_empty() { 0 } else { active.usage().reserved }
}

/// The keyspace with most sealed bytes, if memory is short: where many keyspaces share it, each may have less than is
/// worth a flush of a good size.
pub(crate) fn largest_if_pressed(engine: &Engine) -> Option<Arc<KeyspaceState>> {
    let keyspaces = engine.all_keyspaces();
    let largest = keyspaces.iter().max_by_key(sealed).filter(|one| sealed(one) > 0)?;
    is_pressed(engine, &keyspaces).then(|| Arc::clone(largest))
}

/// Of the keyspaces that have nothing sealed, the one with the largest active memtable, which is sealed, if memory is
/// short: what keyspaces at rest hold would slow all others down for ever.
pub(crate) fn seal_at_rest_if_pressed(engine: &Engine) -> Option<Arc<KeyspaceState>> {
    let keyspaces = engine.all_keyspaces();
    if !is_pressed(engine, &keyspaces) {
        return None;
    }
    let _commit = engine.commit.lock();
    let at_rest = keyspaces.iter().filter(|keyspace| sealed(keyspace) == 0);
    let largest = at_rest.max_by_key(active).filter(|one| active(one) > 0)?;
    rotate_anyway(engine, largest, None);
    Some(Arc::clone(largest))
}

/// What a write is held to.
#[derive(Clone, Copy)]
pub(super) struct Turn<'e> {
    /// Bytes that it takes in the queue.
    cost: u64,
    /// Where its wait is counted.
    pub(super) stall: &'e Stall,
    /// What is behind.
    pub(super) whose: &'static str,
}

/// What a write is held to; `None` if to nothing.
pub(super) fn turn<'e>(engine: &'e Engine, writes: &impl Writes) -> Option<Turn<'e>> {
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
    Some(Turn { cost: u64::try_from(part).unwrap_or(u64::MAX), stall, whose })
}

impl Turn<'_> {
    /// Gives a turn back that was not used.
    pub(super) fn give_back(&self, engine: &Engine) {
        engine.pace.leave(self.cost);
    }

    /// Takes its turn if that is now; else says how long it would take, and takes nothing.
    pub(super) fn try_take(&self, engine: &Engine) -> Result<(), Duration> {
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
            // Readers may have let go of memory, which nobody else notices.
            refresh_memory(engine);
            let now = engine.env.clock.now();
            let Some(eta) = engine.pace.turn_and_quantum(now, place) else { return Ok(Ok(())) };
            let left = left.map(|left| left.saturating_sub(now.saturating_sub(began)));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(engine.pace.turn(now, place).map_or(Ok(()), Err));
            }
            let slice = eta.min(SLICE).min(left.unwrap_or(SLICE));
            engine.env.executor.wait(&engine.freed, seen, Some(slice));
        }
    }
}

#[cfg(test)]
mod tests {
    use memtide_base::{Error, ErrorKind};
    use memtide_env::Simulation;

    use super::*;
    use crate::{Config, Db};

    /// Its turn would come in hours; that of no write comes any more.
    #[test]
    fn who_waits_for_a_turn_is_told_that_the_database_failed_or_was_closed() {
        for fails in [false, true] {
            let sim = Simulation::new(1);
            // A compaction would find that nothing is behind.
            let enable_background_compaction = Some(false);
            let config = Config { enable_background_compaction, ..Config::default() };
            let db = Db::builder("/db").config(config).env(sim.env.clone()).open().expect("opens");
            let engine = Arc::clone(db.handle.engine());
            engine.pace.set_trees(engine.env.clock.now(), Some(1));
            engine.pace.join(1 << 20);
            let stall = &engine.tally.stalls.slowed_by_compaction;
            let turn = Turn { cost: 1, stall, whose: "compaction" };
            let left = Some(Duration::from_millis(10));
            assert!(turn.wait(&engine, left).expect("it takes writes").is_err(), "not its turn");
            if fails {
                engine.fail(&Error::new(ErrorKind::Io, "the device failed"));
            } else {
                db.close().expect("closed");
            }
            let told = turn.wait(&engine, left).expect_err("no turn comes any more").kind();
            assert_eq!(told, if fails { ErrorKind::ReadOnly } else { ErrorKind::Closed });
        }
    }
}
