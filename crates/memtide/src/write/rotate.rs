//! Rotation: the active memtable is sealed and an empty one takes its place. No I/O.

use memtide_base::sync::Arc;

use crate::engine::Engine;
use crate::keyspace_state::KeyspaceState;

/// Sealed tables of a keyspace that start a flush whatever their size: each is one more source to read.
const SEALED_MAX: usize = 8;

/// Rotates a keyspace; the new memtable takes at least `bytes_max`, where given. The caller holds the
/// commit lock.
pub(crate) fn rotate(engine: &Engine, keyspace: &Arc<KeyspaceState>, bytes_max: Option<u64>) {
    let options = keyspace.options();
    let size = bytes_max.map(|bytes| bytes.max(options.max_memtable_size));
    keyspace.rotate(engine.new_memtable(options, size));
    if flush_is_due(engine, keyspace) {
        engine.wake_flush();
    }
}

/// Whether enough is sealed in the keyspace that flushing it makes a table of a good size.
pub(crate) fn flush_is_due(engine: &Engine, keyspace: &KeyspaceState) -> bool {
    let current = keyspace.current();
    current.sealed.len() >= SEALED_MAX || current.sealed_bytes() >= engine.settings.flush_target
}
