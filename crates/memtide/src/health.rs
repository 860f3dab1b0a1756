//! Whether the database takes writes, and if not, why.

use memtide_base::sync::atomic::{AtomicBool, Ordering};
use memtide_base::sync::{Arc, Swap};
use memtide_base::{Error, ErrorKind, Result};

/// The state of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// `healthy` or `read_only`.
    pub state: &'static str,
    /// Why it is not healthy.
    pub reason: Option<String>,
}

const HEALTHY: &str = "healthy";
const READ_ONLY: &str = "read_only";

/// The present state; only ever gets worse while the database is open.
#[derive(Debug)]
pub(crate) struct HealthState {
    now: Swap<Health>,
    /// Whether `now` has a reason: every write asks.
    stopped: AtomicBool,
}

impl HealthState {
    pub(crate) fn healthy() -> Self {
        let now = Swap::new(Arc::new(Health { state: HEALTHY, reason: None }));
        Self { now, stopped: AtomicBool::new(false) }
    }

    pub(crate) fn opened_read_only() -> Self {
        let reason = Some("it was opened read-only".to_owned());
        let now = Swap::new(Arc::new(Health { state: READ_ONLY, reason }));
        Self { now, stopped: AtomicBool::new(true) }
    }

    pub(crate) fn current(&self) -> Health {
        Health::clone(&self.now.guard())
    }

    /// Stops all writes because of `error`; the first reason stays.
    pub(crate) fn fail(&self, error: &Error) {
        if self.now.guard().state == HEALTHY {
            let reason = Some(format!("{error:?}"));
            self.now.store(Arc::new(Health { state: READ_ONLY, reason }));
        }
        // Also by who was not the first, whose store may still be to come: nothing is written once this returns.
        self.stopped.store(true, Ordering::Release);
    }

    /// # Errors
    /// The database takes no writes, and why.
    pub(crate) fn check_writable(&self) -> Result<()> {
        // Acquire pairs with the Release in `fail`: the reason is there.
        if !self.stopped.load(Ordering::Acquire) {
            return Ok(());
        }
        let health = self.now.guard();
        match &health.reason {
            None => Ok(()),
            Some(reason) => Err(Error::new(
                ErrorKind::ReadOnly,
                format!("the database takes no writes: {reason}"),
            )),
        }
    }
}
