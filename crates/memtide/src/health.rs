//! Whether the database takes writes, and if not, why.

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
pub(crate) struct HealthState(Swap<Health>);

impl HealthState {
    pub(crate) fn healthy() -> Self {
        Self(Swap::new(Arc::new(Health { state: HEALTHY, reason: None })))
    }

    pub(crate) fn opened_read_only() -> Self {
        let reason = Some("it was opened read-only".to_owned());
        Self(Swap::new(Arc::new(Health { state: READ_ONLY, reason })))
    }

    pub(crate) fn current(&self) -> Health {
        Health::clone(&self.0.guard())
    }

    /// Stops all writes because of `error`; the first reason stays.
    pub(crate) fn fail(&self, error: &Error) {
        if self.0.guard().state == HEALTHY {
            let reason = Some(format!("{error:?}"));
            self.0.store(Arc::new(Health { state: READ_ONLY, reason }));
        }
    }

    /// # Errors
    /// The database takes no writes, and why.
    pub(crate) fn check_writable(&self) -> Result<()> {
        let health = self.0.guard();
        match &health.reason {
            None => Ok(()),
            Some(reason) => Err(Error::new(
                ErrorKind::ReadOnly,
                format!("the database takes no writes: {reason}"),
            )),
        }
    }
}
