//! Where a writer waits for memory: it holds neither the commit lock nor a reservation.

use std::time::Duration;

use memtide_base::sync::Arc;
use memtide_base::{Error, ErrorKind, Result};

use super::rotate::rotate;
use crate::engine::Engine;
use crate::keyspace_state::KeyspaceState;

/// Looks at memory that a reader of this moment may be about to let go of, before it counts as pinned.
const LOOKS: u32 = 20;
/// Time between two such looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// One writer's wait for memory, over all its attempts.
#[derive(Debug, Default)]
pub(crate) struct Wait {
    /// Attempts in a row at which there was nothing left to flush.
    looks: u32,
}

impl Wait {
    /// Waits until a flush has freed memory, then the writer tries again.
    ///
    /// # Errors
    /// `Busy` if everything is flushed and there still is no room: readers of this process pin it. What a
    /// flush failed with, if it did. The database was closed or takes no writes any more.
    pub(crate) fn wait(&mut self, engine: &Engine) -> Result<()> {
        let seen = engine.freed.count();
        // Who closes or fails notifies after saying so; this order cannot miss it.
        engine.check_open()?;
        engine.health.check_writable()?;
        let limit = match free_some(engine) {
            Freeing::Flush => {
                self.looks = 0;
                if let Some(failure) = &*engine.flush_failure.lock() {
                    let what = format!("the memory is full and could not be flushed: {failure}");
                    return Err(Error::new(ErrorKind::Busy, what).with_hint("try again later"));
                }
                None
            }
            Freeing::Done | Freeing::Nothing if self.looks == LOOKS => {
                return Err(pinned());
            }
            // What was dropped may be what this writer's own last attempt had reserved.
            Freeing::Done => {
                self.looks += 1;
                return Ok(());
            }
            Freeing::Nothing => {
                self.looks += 1;
                Some(LOOK_INTERVAL)
            }
        };
        engine.env.executor.wait(&engine.freed, seen, limit);
        Ok(())
    }
}

fn pinned() -> Error {
    Error::new(ErrorKind::Busy, "memtables that are being read use up the memory")
        .with_hint("drop iterators, or raise memory_budget")
}

/// What was found to free.
enum Freeing {
    /// It is free already.
    Done,
    /// A flush will free it.
    Flush,
    Nothing,
}

/// Sees to it that memory becomes free.
fn free_some(engine: &Engine) -> Freeing {
    let keyspaces = engine.all_keyspaces();
    let has_sealed = |keyspace: &&Arc<KeyspaceState>| !keyspace.current().sealed.is_empty();
    let mut waiting: Vec<_> = keyspaces.iter().filter(has_sealed).collect();
    if waiting.is_empty() {
        let _commit = engine.commit.lock();
        if drop_unused(engine, &keyspaces) {
            return Freeing::Done;
        }
        let filled = keyspaces.iter().filter(|keyspace| !keyspace.current().active.is_empty());
        let Some(largest) = filled.max_by_key(|k| k.current().active.usage().reserved) else {
            return Freeing::Nothing;
        };
        let rotated = rotate(engine, largest, None);
        assert!(rotated, "where nothing is sealed there is place for one");
        waiting.push(largest);
    }
    for keyspace in waiting {
        keyspace.want_flush();
    }
    engine.wake_flush();
    Freeing::Flush
}

/// Replaces empty memtables that hold memory for a batch that was refused elsewhere.
fn drop_unused(engine: &Engine, keyspaces: &[Arc<KeyspaceState>]) -> bool {
    let before = engine.memtable_bytes();
    for keyspace in keyspaces {
        let active = Arc::clone(&keyspace.current().active);
        if active.is_empty() && active.usage().reserved > active.bytes_empty() {
            // An empty memtable is not sealed, so there is place.
            let _rotated = rotate(engine, keyspace, None);
        }
    }
    engine.memtable_bytes() < before
}
