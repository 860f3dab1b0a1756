//! How a database is opened, step by step.

use std::path::{Path, PathBuf};

use memtide_base::sync::Arc;
use memtide_base::{Error, Result};
use memtide_env::Env;
use memtide_memtable::{MemtableChoice, Registry};

use crate::background;
use crate::config::{Compaction, Config, Durability, Preset};
use crate::db::Db;
use crate::handle::Handle;
use crate::keyspace::Keyspace;
use crate::recovery::{self, OpenMode};

/// Names what a database is opened with. What is not named is what is stored, or the preset's.
#[derive(Clone, Debug)]
pub struct Builder {
    dir: PathBuf,
    config: Config,
    registry: Registry,
    env: Option<Env>,
    read_only: bool,
    create_if_missing: bool,
}

impl Db {
    /// Opens the database in a directory, creating it if there is none.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::builder(dir).open()
    }

    /// Names how to open the database in a directory.
    #[must_use]
    pub fn builder(dir: impl AsRef<Path>) -> Builder {
        Builder::new(dir.as_ref())
    }

    pub(crate) fn open_in(
        env: &Env,
        dir: &Path,
        config: &Config,
        registry: &Registry,
        mode: OpenMode,
    ) -> Result<Self> {
        let (engine, report) = recovery::open(env, dir, config, registry, mode)?;
        let handle = Handle::new(engine, report);
        if mode != OpenMode::ReadOnly {
            background::start(handle.engine())?;
        }
        let default = handle.engine().keyspaces.read().get(0).cloned();
        let default = default.ok_or_else(|| Error::internal("keyspace 0 is missing"))?;
        let default = Keyspace::new(Arc::clone(&handle), default);
        Ok(Self { handle, default })
    }
}

impl Builder {
    fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_path_buf(),
            config: Config::default(),
            registry: Registry::new(),
            env: None,
            read_only: false,
            create_if_missing: true,
        }
    }

    /// Replaces all options named so far, except the directory and the registry.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Brings memtables of the program's own, for [`MemtableChoice::Named`]. What keyspaces have stored must be
    /// among them. Default none.
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Names the preset.
    #[must_use]
    pub fn preset(mut self, preset: Preset) -> Self {
        self.config.preset = Some(preset);
        self
    }

    /// Names the memtable type of the default keyspace and of new ones.
    #[must_use]
    pub fn memtable(mut self, memtable_type: impl Into<MemtableChoice>) -> Self {
        self.config.memtable_type = Some(memtable_type.into());
        self
    }

    /// Names the compaction strategy of the default keyspace and of new ones.
    #[must_use]
    pub fn compaction(mut self, strategy: Compaction) -> Self {
        self.config.compaction = Some(strategy);
        self
    }

    /// Names the largest memtable in bytes.
    #[must_use]
    pub fn max_memtable_size(mut self, bytes: u64) -> Self {
        self.config.max_memtable_size = Some(bytes);
        self
    }

    /// Names the memory for everything in bytes.
    #[must_use]
    pub fn memory_budget(mut self, bytes: u64) -> Self {
        self.config.memory_budget = Some(bytes);
        self
    }

    /// Names what an acknowledged write survives.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.config.durability = Some(durability);
        self
    }

    /// Whether to write nothing at all. Default no.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Whether to create a database where none is. Default yes.
    #[must_use]
    pub fn create_if_missing(mut self, create: bool) -> Self {
        self.create_if_missing = create;
        self
    }

    /// Replaces the machine's files, clock, threads and randomness: for tests on a simulated disk.
    #[cfg(any(test, feature = "simulation"))]
    #[must_use]
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// Opens the database.
    ///
    /// # Errors
    /// `InvalidConfig` with every violation; `Locked`; `Corruption` with file and offset; `Unsupported` for
    /// a newer format, a directory without a database, or a keyspace whose memtable is not registered (then
    /// nothing at all was touched, and the cause is an [`UnknownMemtable`](crate::UnknownMemtable)). A refused
    /// open changes nothing of the contents; it may have created the directory, or written the manifest anew.
    pub fn open(self) -> Result<Db> {
        let mode = match (self.read_only, self.create_if_missing) {
            (true, _) => OpenMode::ReadOnly,
            (false, true) => OpenMode::Create,
            (false, false) => OpenMode::Existing,
        };
        let mut config = self.config;
        config.data_dir = Some(self.dir.clone());
        let env = self.env.unwrap_or_else(Env::real);
        Db::open_in(&env, &self.dir, &config, &self.registry, mode)
    }
}
