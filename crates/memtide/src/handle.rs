//! What keeps a database open: shared by every handle to it.

use memtide_base::sync::Arc;

use crate::engine::Engine;
use crate::recovery::RecoveryReport;
use crate::shutdown;

/// What all handles of a database share; dropping the last one closes it.
pub(crate) struct Handle {
    engine: Arc<Engine>,
    /// What opening found.
    pub(crate) report: RecoveryReport,
}

impl Handle {
    pub(crate) fn new(engine: Arc<Engine>, report: RecoveryReport) -> Arc<Self> {
        Arc::new(Self { engine, report })
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Whoever cares whether closing worked calls `Db::close`.
        let _ = shutdown::close(&self.engine);
    }
}
