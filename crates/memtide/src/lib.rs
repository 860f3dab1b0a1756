//! An embedded LSM-tree key-value engine whose memtable is a typed run-time choice.
//!
//! ```
//! use memtide::{Db, Durability, MemtableType};
//!
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("data");
//! let db = Db::builder(path).memtable(MemtableType::Trie).open()?;
//! db.put("k", "v")?;
//! let users = db.keyspace("users")?;
//! let mut batch = db.batch();
//! batch.put(&users, "eu/ada", "1");
//! batch.put(&users, "eu/bob", "2");
//! batch.delete(&db.default_keyspace(), "k");
//! db.write_with(batch, Durability::Sync)?;
//! for entry in users.prefix("eu/").rev() {
//!     let (key, value) = entry?;
//!     println!("{key:?} = {value:?}");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Handles are `Clone + Send + Sync + 'static`. Keys are bytes, ordered as bytes. See [`Durability`] for what
//! an acknowledged write survives, [`MemtableType`] for the eight memtables and [`CustomIndex`] for one of your
//! own.

mod background;
mod backup;
mod batch;
mod blob_store;
mod builder;
mod capture;
mod checkpoint;
mod commit;
mod commit_queue;
mod compaction;
mod compaction_pause;
mod config;
mod damage;
mod db;
mod durable;
mod engine;
mod files;
mod flush;
mod handle;
mod health;
mod hold;
mod inspector;
mod integrity;
mod iter;
mod keyspace;
mod keyspace_state;
mod live_snapshot;
mod new_copy;
mod pace;
mod range;
mod read;
mod recovery;
mod reserve;
mod resume;
mod rewrite;
mod scrubs;
mod sealed_merge;
mod sealed_run;
mod shutdown;
mod snapshot;
mod snapshots;
mod stats;
mod survivors;
mod table_store;
mod threads;
mod version;
mod wal;
mod write;

use std::path::Path;

pub use backup::{BackupInfo, BackupList, Backups, Pruned};
pub use builder::Builder;
pub use commit::{Commit, WhenDurable, WriteOptions};
pub use compaction_pause::CompactionPause;
pub use config::{
    Compaction, Config, ConfigError, DEFAULT_KEYSPACE, Durability, KeyspaceConfig, LSMTreeConfig,
    Preset, TreeConfig, Violation, WalSink,
};
pub use damage::Damage;
pub use db::{Batch, Db};
pub use health::{Health, HealthState, HealthTransition};
pub use inspector::{Difference, Inspector};
pub use integrity::{
    Depth, DoctorKeyspace, DoctorReport, DumpItem, DumpKind, DumpValue, KeySpan, Loss,
    RescueReport, VerifyOptions, VerifyReport,
};
pub use iter::Iter;
pub use keyspace::Keyspace;
pub use memtide_base::{Error, ErrorKind, Result, SeqNo, Slice};
pub use memtide_memtable::{
    Cost, CustomIndex, Descriptor, Full, IndexHints, MemtableChoice, MemtableFactory, MemtableType,
    MemtableVariant, NameTaken, RecordRef, Records, Registry, StandaloneError, UnknownMemtable,
    Usage,
};
#[cfg(feature = "testkit")]
pub use memtide_memtable::{conformance, testkit};
pub use memtide_storage::compress::Codec;
pub use range::KeyRange;
pub use recovery::RecoveryReport;
pub use snapshot::Snapshot;
pub use stats::{KeyspaceStats, LevelStats, StallStats, Stats};

/// Reads every byte of the closed database in `dir` and reports all damage.
///
/// # Errors
/// `Locked` if it is open, `Unsupported` if there is none. Damage is in the report.
pub fn verify(dir: impl AsRef<Path>) -> Result<VerifyReport> {
    Db::inspect(dir).verify(Depth::Full)
}

/// As [`verify`], on the files of `env`: for tests on a simulated disk.
///
/// # Errors
/// As [`verify`].
#[cfg(any(test, feature = "simulation"))]
pub fn verify_in(env: &memtide_env::Env, dir: impl AsRef<Path>) -> Result<VerifyReport> {
    Db::inspect(dir).env(env.clone()).verify(Depth::Full)
}
