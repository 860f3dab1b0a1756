//! A pause of compaction that lasts as long as what stands for it.

use std::fmt;

use memtide_base::sync::Arc;

use crate::handle::Handle;
use crate::write;

/// While this or a clone of it lives no compaction runs; made by [`Db::pause_compaction`](crate::Db::pause_compaction).
///
/// Compaction goes on once the last clone of each pause is dropped. A pause keeps the database open, as a snapshot
/// does.
#[derive(Clone)]
#[must_use = "compaction goes on when it is dropped"]
pub struct CompactionPause {
    _held: Arc<Held>,
}

/// One pause.
struct Held {
    handle: Arc<Handle>,
}

impl CompactionPause {
    /// Waits until the compactions that run have stopped.
    pub(crate) fn begin(handle: &Arc<Handle>) -> Self {
        let engine = handle.engine();
        engine.hold.pause();
        let held = Arc::new(Held { handle: Arc::clone(handle) });
        // Those that wait for their rate are told so.
        engine.freed.notify();
        for keyspace in engine.all_keyspaces() {
            drop(keyspace.reshape.lock());
            write::refresh_tree(engine, &keyspace);
        }
        Self { _held: held }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let engine = self.handle.engine();
        engine.hold.resume();
        for keyspace in engine.all_keyspaces() {
            write::refresh_tree(engine, &keyspace);
        }
        engine.wake_compaction();
    }
}

impl fmt::Debug for CompactionPause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CompactionPause")
    }
}
