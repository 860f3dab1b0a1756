//! A registered reader of the past: while it lives, merges keep what it sees and the database stays open.

use memtide_base::SeqNo;
use memtide_base::sync::Arc;

use crate::handle::Handle;

/// One entry in the list of live snapshots.
pub(crate) struct LiveSnapshot {
    handle: Arc<Handle>,
    below: SeqNo,
}

impl LiveSnapshot {
    /// Registers a snapshot of now.
    pub(crate) fn take(handle: &Arc<Handle>) -> Arc<Self> {
        let below = handle.engine().snapshots.take();
        Arc::new(Self { handle: Arc::clone(handle), below })
    }

    pub(crate) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// It sees every write below.
    pub(crate) fn below(&self) -> SeqNo {
        self.below
    }
}

impl Drop for LiveSnapshot {
    fn drop(&mut self) {
        self.handle.engine().snapshots.release(self.below);
    }
}
