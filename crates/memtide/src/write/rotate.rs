//! Rotation: the active memtable is sealed and an empty one takes its place. No I/O.
//!
//! Merges in memory keep the number of a keyspace's memtables low. A writer that outruns them and would make more
//! than [`RUNS_MAX`](crate::keyspace_state::RUNS_MAX) lets go of everything and waits for a merge, or for a flush
//! where nothing can be merged.

use std::time::Duration;

use memtide_base::sync::Arc;
use memtide_base::sync::atomic::Ordering;
use memtide_base::{Error, ErrorKind, Result};
use memtide_memtable::{BatchShape, Memtable};

use super::controller;
use crate::engine::Engine;
use crate::keyspace_state::KeyspaceState;

/// Bytes of an entry from which on memtables are stretched, and are not merged in memory where a flush comes anyway:
/// what makes small memtables quick is how few entries they have, and copying large ones costs more than flushing them.
pub(crate) const LARGE_ENTRY: u64 = 2 << 10;
/// At least so many of the largest memtables make a flush, and are in the share of the budget.
const PER_FLUSH: u64 = 4;
const PER_SHARE: u64 = 16;

/// Rotates a keyspace; the new memtable takes at least `bytes_max`, where given. `false`, and nothing changed,
/// if the keyspace has as many memtables as it may. The caller holds the commit lock.
#[must_use]
pub(crate) fn rotate(
    engine: &Engine,
    keyspace: &Arc<KeyspaceState>,
    bytes_max: Option<u64>,
) -> bool {
    if keyspace.is_crowded() {
        return false;
    }
    rotate_anyway(engine, keyspace, bytes_max);
    if controller::refresh_memory(engine) {
        // There may be something to flush although no keyspace has enough for a flush of a good size.
        engine.wake_flush();
    }
    true
}

/// As [`rotate`], however many memtables there are: for a replay that can neither merge nor flush them.
pub(crate) fn rotate_anyway(
    engine: &Engine,
    keyspace: &Arc<KeyspaceState>,
    bytes_max: Option<u64>,
) {
    let options = keyspace.options();
    let size = bytes_max.map(|bytes| bytes.max(options.max_memtable_size));
    let anchor = keyspace.current().active.learned_anchor();
    keyspace.rotate(engine.new_memtable(&options, size, anchor));
    engine.wake_merge();
    if flush_is_due(engine, keyspace) {
        engine.wake_flush();
    }
}

/// Lets a full memtable take more instead of being sealed, if its entries are large with the batch that is to come;
/// `false` if it does not. The caller holds the commit lock.
pub(super) fn stretch(engine: &Engine, table: &Memtable, batch: &BatchShape) -> bool {
    let most = (engine.settings.flush_target / PER_FLUSH).min(engine.memtable_share() / PER_SHARE);
    let bytes = table.bytes_max();
    let more = bytes.min(most.saturating_sub(bytes));
    let stretches = more > 0 && table.mean_entry_bytes(batch) >= LARGE_ENTRY;
    if stretches {
        table.raise_limit(more);
    }
    stretches
}

/// Whether enough is sealed in the keyspace that flushing it makes a table of a good size.
pub(crate) fn flush_is_due(engine: &Engine, keyspace: &KeyspaceState) -> bool {
    keyspace.current().sealed_bytes() >= engine.settings.flush_target
}

/// Waits until the keyspace may have one more memtable, something else happened, or `left` has passed; then the
/// writer tries again.
///
/// # Errors
/// `Busy` if only a flush can help and flushing failed. The database was closed or takes no writes any more.
pub(super) fn wait_for_merge(
    engine: &Engine,
    keyspace: &KeyspaceState,
    left: Option<Duration>,
) -> Result<()> {
    let seen = engine.count_before_waiting()?;
    if !keyspace.is_crowded() {
        return Ok(());
    }
    if !keyspace.unmergeable.load(Ordering::Acquire) {
        engine.wake_merge();
    } else if let Some(failure) = &*engine.flush_failure.lock() {
        let what = format!("too many memtables wait for a flush, which failed: {failure}");
        return Err(Error::new(ErrorKind::Busy, what).with_hint("try again later"));
    }
    engine.env.executor.wait(&engine.freed, seen, left);
    Ok(())
}
