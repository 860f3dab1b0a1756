//! Where a writer waits for memory: before it takes the commit lock, holding nothing.

use memtide_base::{Error, ErrorKind, Result};

use super::rotate;
use crate::engine::Engine;

/// Waits until the memtables are within their share of the budget.
///
/// # Errors
/// `Busy` if flushing everything did not help: iterators and snapshots of this process pin the memory.
pub(crate) fn wait_for_memory(engine: &Engine) -> Result<()> {
    while engine.memtable_bytes() >= engine.memtable_share() {
        let seen = engine.freed.count();
        if !free_some(engine)? {
            return Err(Error::new(
                ErrorKind::Busy,
                "memtables that are being read use up the memory",
            )
            .with_hint("drop iterators, or raise memory_budget"));
        }
        if engine.memtable_bytes() < engine.memtable_share() {
            return Ok(());
        }
        if let Some(failure) = &*engine.flush_failure.lock() {
            let what = format!("the memory is full and could not be flushed: {failure}");
            return Err(Error::new(ErrorKind::Busy, what).with_hint("try again later"));
        }
        engine.env.executor.wait(&engine.freed, seen, None);
        engine.health.check_writable()?;
        engine.check_open()?;
    }
    Ok(())
}

/// Sees to it that a flush frees memory; `false` if there is nothing to flush.
fn free_some(engine: &Engine) -> Result<bool> {
    let keyspaces = engine.all_keyspaces();
    let mut waiting: Vec<_> =
        keyspaces.iter().filter(|keyspace| !keyspace.current().sealed.is_empty()).collect();
    if waiting.is_empty() {
        let largest = keyspaces.iter().max_by_key(|k| k.current().active.usage().reserved);
        let Some(largest) = largest.filter(|k| !k.current().active.is_empty()) else {
            return Ok(false);
        };
        let commit = engine.commit.lock();
        rotate(engine, largest, None);
        drop(commit);
        waiting.push(largest);
    }
    for keyspace in waiting {
        keyspace.want_flush();
    }
    engine.wake_flush();
    Ok(true)
}
