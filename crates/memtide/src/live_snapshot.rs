//! A registered reader of the past: while it lives, merges keep what it sees.

use memtide_base::SeqNo;
use memtide_base::sync::Arc;

use crate::engine::Engine;

/// One entry in the list of live snapshots.
#[derive(Debug)]
pub(crate) struct LiveSnapshot {
    engine: Arc<Engine>,
    below: SeqNo,
}

impl LiveSnapshot {
    /// Registers a snapshot of now.
    pub(crate) fn take(engine: &Arc<Engine>) -> Arc<Self> {
        let below = engine.snapshots.take();
        Arc::new(Self { engine: Arc::clone(engine), below })
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// It sees every write below.
    pub(crate) fn below(&self) -> SeqNo {
        self.below
    }
}

impl Drop for LiveSnapshot {
    fn drop(&mut self) {
        self.engine.snapshots.release(self.below);
    }
}
