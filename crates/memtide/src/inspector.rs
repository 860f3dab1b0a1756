//! A database looked at from outside: nothing is opened for writing, nothing in it changes.

use std::path::{Path, PathBuf};

use memtide_base::Result;
use memtide_env::Env;

use crate::db::Db;
use crate::integrity::{self, Depth, VerifyReport};

/// Looks at the closed database in a directory; made by [`Db::inspect`].
#[derive(Clone, Debug)]
pub struct Inspector {
    dir: PathBuf,
    env: Env,
}

impl Db {
    /// Looks at the database in a directory without opening it.
    ///
    /// ```
    /// # use memtide::{Db, Depth};
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("data");
    /// Db::open(&path)?.put("tide", "high")?;
    /// assert!(Db::inspect(&path).verify(Depth::Full)?.damages.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn inspect(dir: impl AsRef<Path>) -> Inspector {
        Inspector { dir: dir.as_ref().to_path_buf(), env: Env::real() }
    }
}

impl Inspector {
    /// Replaces the machine's files, clock, threads and randomness: for tests on a simulated disk.
    #[cfg(any(test, feature = "simulation"))]
    #[must_use]
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }

    /// Reports all damage, not only the first.
    ///
    /// # Errors
    /// `Locked` if the database is open, `Unsupported` if there is none or a newer version wrote it. Damage is in the
    /// report.
    pub fn verify(&self, depth: Depth) -> Result<VerifyReport> {
        integrity::verify(&self.env, &self.dir, depth)
    }
}
