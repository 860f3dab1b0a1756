//! Where a writer waits for memory: it holds neither the commit lock nor a reservation.

use std::time::Duration;

use memtide_base::sync::Arc;
use memtide_base::{Error, ErrorKind, Result};

use super::rotate::rotate;
use crate::engine::Engine;
use crate::keyspace_state::KeyspaceState;

/// Looks at memory that a reader of this moment may be about to let go of, before it counts as pinned.
const LOOKS: u32 = 200;
/// Time between two such looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// One writer's wait for memory, over all its attempts.
#[derive(Debug, Default)]
pub(super) struct Wait {
    /// Attempts in a row at which there was nothing left to flush.
    looks: u32,
}

impl Wait {
    /// Waits until a flush has freed memory, or until `left` has passed; then the writer tries again.
    ///
    /// # Errors
    /// `Busy` if everything is flushed and there still is no room: readers of this process pin it. What a
    /// flush failed with, if it did. The database was closed or takes no writes any more.
    pub(super) fn wait(&mut self, engine: &Engine, left: Option<Duration>) -> Result<()> {
        let seen = engine.count_before_waiting()?;
        let limit = match free_some(engine) {
            Freeing::Flush => {
                self.looks = 0;
                if let Some(failure) = &*engine.flush_failure.lock() {
                    let what = format!("the memory is full and could not be flushed: {failure}");
                    return Err(Error::new(ErrorKind::Busy, what).with_hint("try again later"));
                }
                left
            }
            Freeing::Done | Freeing::Nothing if self.looks == LOOKS => {
                return Err(pinned());
            }
            // What was dropped may be what this writer's own last attempt had reserved: that is no reason to try
            // again and again while a flush gives its memory back.
            Freeing::Done if self.looks == 0 => {
                self.looks += 1;
                return Ok(());
            }
            Freeing::Done | Freeing::Nothing => {
                self.looks += 1;
                Some(left.map_or(LOOK_INTERVAL, |left| left.min(LOOK_INTERVAL)))
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
pub(super) enum Freeing {
    /// It is free already.
    Done,
    /// A flush will free it.
    Flush,
    Nothing,
}

/// Sees to it that memory becomes free, without waiting for it.
pub(super) fn free_some(engine: &Engine) -> Freeing {
    let keyspaces = engine.all_keyspaces();
    let has_sealed = |keyspace: &&Arc<KeyspaceState>| !keyspace.current().sealed.is_empty();
    let mut waiting: Vec<_> = keyspaces.iter().filter(has_sealed).collect();
    if waiting.is_empty() {
        let _commit = engine.commit.lock();
        if drop_unused(engine, &keyspaces) {
            return Freeing::Done;
        }
        let Some(largest) = seal_largest(engine, &keyspaces) else { return Freeing::Nothing };
        waiting.push(largest);
    }
    for keyspace in waiting {
        keyspace.want_flush();
    }
    engine.wake_flush();
    Freeing::Flush
}

/// The keyspace with the largest active memtable, which is sealed unless others have sealed as many meanwhile as there
/// may be; either way there is something to flush. `None` if all are empty. The caller holds the commit lock.
fn seal_largest<'k>(
    engine: &Engine,
    keyspaces: &'k [Arc<KeyspaceState>],
) -> Option<&'k Arc<KeyspaceState>> {
    let filled = keyspaces.iter().filter(|keyspace| !keyspace.current().active.is_empty());
    let largest = filled.max_by_key(|keyspace| keyspace.current().active.usage().reserved)?;
    let _rotated = rotate(engine, largest, None);
    Some(largest)
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

#[cfg(test)]
mod tests {
    use memtide_env::Simulation;

    use super::*;
    use crate::{Config, Db, Durability};

    /// Between a look at what is sealed and the commit lock, others may seal as many as there may be.
    #[test]
    fn a_keyspace_that_became_crowded_meanwhile_has_something_to_flush() {
        let sim = Simulation::new(1);
        let config = Config {
            max_memtable_size: Some(4 << 10),
            flush_target: Some(16 << 20),
            memory_budget: Some(64 << 20),
            durability: Some(Durability::Buffered),
            enable_background_compaction: Some(false),
            ..Config::default()
        };
        let db = Db::builder("/db").config(config).env(sim.env.clone()).open().expect("opens");
        let default = db.default_keyspace();
        let mut at = 0_u32;
        // No job runs before a writer waits.
        while !default.state().is_crowded() {
            db.put(at.to_be_bytes(), [1; 100]).expect("there is room");
            at += 1;
        }
        let engine = db.handle.engine();
        let keyspaces = engine.all_keyspaces();
        let sealed = default.state().current().sealed.len();
        {
            let _commit = engine.commit.lock();
            let found = seal_largest(engine, &keyspaces);
            assert!(found.is_some_and(|found| Arc::ptr_eq(found, default.state())));
        }
        assert_eq!(default.state().current().sealed.len(), sealed);
        db.put("k", "v").expect("a merge makes room");
    }
}
