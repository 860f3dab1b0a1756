//! What a keyspace is at this moment: its memtables and its version, replaced as a whole.
//!
//! Who may lock what: readers lock nothing, they load the superversion. Rotation (under the commit lock)
//! and the installs of flush and compaction replace it under `install`, which is held for no I/O. `upkeep`
//! is held through a whole flush, `reshape` through a whole compaction, so each is alone in its keyspace.

use memtide_base::SeqNo;
use memtide_base::sync::atomic::{AtomicBool, Ordering};
use memtide_base::sync::{Arc, Mutex, Swap};
use memtide_memtable::Memtable;

use crate::config::KeyspaceOptions;
use crate::version::Version;

/// Everything a read of one keyspace looks at.
#[derive(Debug)]
pub(crate) struct SuperVersion {
    /// Takes the writes.
    pub(crate) active: Arc<Memtable>,
    /// Full tables that wait to be flushed, newest first.
    pub(crate) sealed: Vec<Arc<Memtable>>,
    /// The tables on disk.
    pub(crate) version: Arc<Version>,
}

impl SuperVersion {
    /// All memtables, newest first.
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(&self.sealed)
    }

    /// Bytes that sealed memtables hold.
    pub(crate) fn sealed_bytes(&self) -> u64 {
        self.sealed.iter().map(|table| table.usage().reserved).sum()
    }
}

/// One keyspace of an open database.
#[derive(Debug)]
pub(crate) struct KeyspaceState {
    pub(crate) id: u32,
    pub(crate) name: String,
    options: Mutex<KeyspaceOptions>,
    current: Swap<SuperVersion>,
    install: Mutex<()>,
    /// Held through a flush.
    pub(crate) upkeep: Mutex<()>,
    /// Held through a compaction.
    pub(crate) reshape: Mutex<()>,
    /// Set when a flush was asked for although no trigger says so.
    pub(crate) flush_wanted: AtomicBool,
}

impl KeyspaceState {
    pub(crate) fn new(
        id: u32,
        name: String,
        options: KeyspaceOptions,
        active: Arc<Memtable>,
        version: Arc<Version>,
    ) -> Self {
        Self {
            id,
            name,
            options: Mutex::new(options),
            current: Swap::new(Arc::new(SuperVersion { active, sealed: Vec::new(), version })),
            install: Mutex::new(()),
            upkeep: Mutex::new(()),
            reshape: Mutex::new(()),
            flush_wanted: AtomicBool::new(false),
        }
    }

    pub(crate) fn options(&self) -> KeyspaceOptions {
        *self.options.lock()
    }

    pub(crate) fn set_options(&self, options: KeyspaceOptions) {
        *self.options.lock() = options;
    }

    /// The superversion to keep.
    pub(crate) fn current(&self) -> Arc<SuperVersion> {
        self.current.load()
    }

    /// Seals the active memtable, unless it is empty, and makes `fresh` the active one. The caller holds
    /// the commit lock.
    pub(crate) fn rotate(&self, fresh: Arc<Memtable>) {
        let _install = self.install.lock();
        let old = self.current();
        let mut sealed = old.sealed.clone();
        if !old.active.is_empty() {
            sealed.insert(0, Arc::clone(&old.active));
        }
        let version = Arc::clone(&old.version);
        self.current.store(Arc::new(SuperVersion { active: fresh, sealed, version }));
    }

    /// Replaces the `flushed` oldest sealed memtables by the version that holds their tables.
    pub(crate) fn install_flush(&self, flushed: &[Arc<Memtable>], version: Arc<Version>) {
        let _install = self.install.lock();
        let old = self.current();
        let kept = old.sealed.len() - flushed.len();
        let same = old.sealed[kept..].iter().zip(flushed).all(|(a, b)| Arc::ptr_eq(a, b));
        assert!(same, "a flush takes the oldest sealed memtables and no other");
        let sealed = old.sealed[..kept].to_vec();
        let active = Arc::clone(&old.active);
        self.current.store(Arc::new(SuperVersion { active, sealed, version }));
    }

    /// Replaces the version after a compaction.
    pub(crate) fn install_version(&self, version: Arc<Version>) {
        let _install = self.install.lock();
        let old = self.current();
        let (active, sealed) = (Arc::clone(&old.active), old.sealed.clone());
        self.current.store(Arc::new(SuperVersion { active, sealed, version }));
    }

    /// The smallest sequence number that only memtables hold; `None` if they are empty.
    pub(crate) fn first_seq(&self) -> Option<SeqNo> {
        self.current().memtables().filter_map(|table| table.first_seq()).min()
    }

    /// Asks for a flush; returns whether nobody had asked before.
    pub(crate) fn want_flush(&self) -> bool {
        !self.flush_wanted.swap(true, Ordering::AcqRel)
    }
}
