//! What a keyspace is at this moment: its memtables and its version, replaced as a whole.
//!
//! Who may lock what: readers lock nothing, they load the superversion. Rotation (under the commit lock)
//! and the installs of merge, flush and compaction replace it under `install`, which is held for no I/O.
//! `merging` is held through a whole merge in memory, `upkeep` through a whole flush, `reshape` through a whole
//! compaction, so each is alone in its keyspace.
//!
//! A flush claims the oldest sealed memtables, a merge works on others: a claim waits for the merge that runs.

use memtide_base::sync::atomic::{AtomicBool, Ordering};
use memtide_base::sync::{Arc, Guard, Mutex, Swap};
use memtide_base::{Result, SeqNo};
use memtide_memtable::Memtable;

use crate::config::{Compaction, KeyspaceOptions};
use crate::pace::TreePace;
use crate::sealed_run::SealedRun;
use crate::version::Version;

/// Runs of memtables of a keyspace at most, the active memtable included: a read looks into no more memtables. A writer
/// that would make another waits; see docs/design/0004-memory-tier.md. A replay may have more for a moment, before
/// anybody reads.
pub(crate) const RUNS_MAX: usize = 12;

/// Everything a read of one keyspace looks at.
#[derive(Debug)]
pub(crate) struct SuperVersion {
    /// Takes the writes.
    pub(crate) active: Arc<Memtable>,
    /// Full memtables that wait to be flushed, in runs, newest first.
    pub(crate) sealed: Vec<SealedRun>,
    /// The tables on disk.
    pub(crate) version: Arc<Version>,
}

impl SuperVersion {
    /// All memtables, newest first; those of a run in the order of their keys.
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(self.sealed.iter().flat_map(SealedRun::tables))
    }

    /// The memtables that may say something about `key`, newest first.
    #[inline]
    pub(crate) fn memtables_over(&self, key: &[u8]) -> impl Iterator<Item = &Arc<Memtable>> {
        let sealed = self.sealed.iter().filter_map(|run| run.table_over(key));
        std::iter::once(&self.active).chain(sealed)
    }

    /// Bytes that sealed memtables hold.
    pub(crate) fn sealed_bytes(&self) -> u64 {
        let tables = self.sealed.iter().flat_map(SealedRun::tables);
        tables.map(|table| table.usage().reserved).sum()
    }
}

/// One keyspace of an open database.
#[derive(Debug)]
pub(crate) struct KeyspaceState {
    pub(crate) id: u32,
    pub(crate) name: String,
    options: Mutex<KeyspaceOptions>,
    /// Of `options`.
    logged: AtomicBool,
    current: Swap<SuperVersion>,
    /// How many of the oldest sealed runs a flush has claimed.
    install: Mutex<usize>,
    /// Held through a merge in memory.
    pub(crate) merging: Mutex<()>,
    /// Held through a flush.
    pub(crate) upkeep: Mutex<()>,
    /// Held through a compaction.
    pub(crate) reshape: Mutex<()>,
    /// What a program's own memtable was last caught at.
    fault: Mutex<Option<String>>,
    /// What its tables demand of the pace of its writers.
    pub(crate) pace: TreePace,
    /// Set when a flush was asked for although no trigger says so.
    pub(crate) flush_wanted: AtomicBool,
    /// Set when merging in memory cannot make fewer of the sealed memtables, so that only a flush can.
    pub(crate) unmergeable: AtomicBool,
}

/// The sealed memtables that a flush works on: nothing else replaces them while this lives.
#[derive(Debug)]
pub(crate) struct Claim<'k> {
    keyspace: &'k KeyspaceState,
    /// Newest first.
    pub(crate) runs: Vec<SealedRun>,
    /// The tables on disk at the time of the claim.
    pub(crate) version: Arc<Version>,
}

impl Claim<'_> {
    /// Newest first.
    pub(crate) fn tables(&self) -> Vec<Arc<Memtable>> {
        self.runs.iter().flat_map(SealedRun::tables).cloned().collect()
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        *self.keyspace.install.lock() = 0;
    }
}

/// Does work on sealed memtables; again if a program's own was caught at a wrong answer in it, which is done
/// without the second time.
pub(crate) fn beyond_faults<T>(
    tables: &[Arc<Memtable>],
    mut work: impl FnMut() -> Result<T>,
) -> Result<T> {
    let faults = || tables.iter().filter(|table| table.fault().is_some()).count();
    loop {
        let known = faults();
        let done = work();
        if done.is_ok() || faults() == known {
            return done;
        }
    }
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
            logged: AtomicBool::new(options.logged),
            options: Mutex::new(options),
            current: Swap::new(Arc::new(SuperVersion { active, sealed: Vec::new(), version })),
            install: Mutex::new(0),
            merging: Mutex::new(()),
            upkeep: Mutex::new(()),
            reshape: Mutex::new(()),
            fault: Mutex::new(None),
            pace: TreePace::default(),
            flush_wanted: AtomicBool::new(false),
            unmergeable: AtomicBool::new(false),
        }
    }

    pub(crate) fn options(&self) -> KeyspaceOptions {
        self.options.lock().clone()
    }

    /// Whether its writes go through the log.
    pub(crate) fn is_logged(&self) -> bool {
        // Relaxed: nothing changes it once the database is open.
        self.logged.load(Ordering::Relaxed)
    }

    pub(crate) fn max_memtable_size(&self) -> u64 {
        self.options.lock().max_memtable_size
    }

    pub(crate) fn compaction(&self) -> Compaction {
        self.options.lock().compaction
    }

    pub(crate) fn set_options(&self, options: KeyspaceOptions) {
        self.logged.store(options.logged, Ordering::Relaxed);
        *self.options.lock() = options;
    }

    /// The superversion to keep.
    pub(crate) fn current(&self) -> Arc<SuperVersion> {
        self.current.load()
    }

    /// The superversion for a short read on this thread: no reference is counted.
    #[inline]
    pub(crate) fn glance(&self) -> Guard<Arc<SuperVersion>> {
        self.current.guard()
    }

    /// Seals the active memtable, unless it is empty, and makes `fresh` the active one. The caller holds
    /// the commit lock.
    pub(crate) fn rotate(&self, fresh: Arc<Memtable>) {
        let _install = self.install.lock();
        let old = self.current();
        let mut sealed = old.sealed.clone();
        self.note_fault(&old.active);
        if !old.active.is_empty() {
            sealed.insert(0, SealedRun::of(Arc::clone(&old.active)));
        }
        let version = Arc::clone(&old.version);
        self.current.store(Arc::new(SuperVersion { active: fresh, sealed, version }));
    }

    /// Adds a sealed memtable that is newer than all others, for a replay: nobody writes, and nothing is active.
    pub(crate) fn adopt(&self, run: Arc<Memtable>) {
        let _install = self.install.lock();
        let old = self.current();
        assert!(old.active.is_empty(), "a replay fills the active memtable last");
        let mut sealed = old.sealed.clone();
        sealed.insert(0, SealedRun::of(run));
        let (active, version) = (Arc::clone(&old.active), Arc::clone(&old.version));
        self.current.store(Arc::new(SuperVersion { active, sealed, version }));
    }

    /// Whether sealing one more memtable would make too many of them.
    pub(crate) fn is_crowded(&self) -> bool {
        let current = self.current();
        current.sealed.len() + 1 >= RUNS_MAX && !current.active.is_empty()
    }

    /// Claims the oldest sealed runs for a flush, `at_most` of them; `None` if nothing is sealed. Waits for
    /// a merge in memory. The caller holds `upkeep`, or is alone.
    pub(crate) fn claim(&self, at_most: usize) -> Option<Claim<'_>> {
        let _merging = self.merging.lock();
        let mut claimed = self.install.lock();
        let current = self.current();
        let newer = current.sealed.len().saturating_sub(at_most);
        let mut runs = current.sealed[newer..].to_vec();
        if cfg!(plant = "newest_claimed") {
            runs = current.sealed[..runs.len()].to_vec();
        }
        if runs.is_empty() {
            return None;
        }
        *claimed = runs.len();
        // Beside a flush merges have others to choose from.
        self.unmergeable.store(false, Ordering::Release);
        Some(Claim { keyspace: self, runs, version: Arc::clone(&current.version) })
    }

    /// The sealed runs that no flush has claimed, newest first, and how many are claimed.
    pub(crate) fn unclaimed(&self) -> (Vec<SealedRun>, usize) {
        let claimed = self.install.lock();
        let mut sealed = self.current().sealed.clone();
        if !cfg!(plant = "claimed_is_merged") {
            sealed.truncate(sealed.len() - *claimed);
        }
        (sealed, *claimed)
    }

    /// Replaces neighbouring sealed runs by the one made of them. The caller holds `merging`.
    pub(crate) fn install_merge(&self, merged: &[SealedRun], run: SealedRun) {
        let _install = self.install.lock();
        let old = self.current();
        let first = old.sealed.iter().position(|run| run.is(&merged[0]));
        let range = first.map(|first| first..first + merged.len());
        let same = |at| {
            old.sealed
                .get(at)
                .is_some_and(|runs: &[SealedRun]| runs.iter().zip(merged).all(|(a, b)| a.is(b)))
        };
        let range = range.filter(|range| same(range.clone()));
        let range = range.expect("what a merge works on stays until it is replaced");
        merged.iter().flat_map(SealedRun::tables).for_each(|table| self.note_fault(table));
        let mut sealed = old.sealed.clone();
        sealed.splice(range, [run]);
        let (active, version) = (Arc::clone(&old.active), Arc::clone(&old.version));
        self.current.store(Arc::new(SuperVersion { active, sealed, version }));
        self.unmergeable.store(false, Ordering::Release);
    }

    /// Replaces what was claimed, the oldest sealed runs, by the version that holds their tables.
    pub(crate) fn install_flush(&self, flushed: &[SealedRun], version: Arc<Version>) {
        let mut claimed = self.install.lock();
        let old = self.current();
        let kept = old.sealed.len() - flushed.len();
        let same = old.sealed[kept..].iter().zip(flushed).all(|(a, b)| a.is(b));
        assert!(same, "a flush takes the oldest sealed runs and no other");
        flushed.iter().flat_map(SealedRun::tables).for_each(|table| self.note_fault(table));
        let sealed = old.sealed[..kept].to_vec();
        let active = Arc::clone(&old.active);
        self.current.store(Arc::new(SuperVersion { active, sealed, version }));
        *claimed = 0;
        self.unmergeable.store(false, Ordering::Release);
    }

    /// Replaces the version after a compaction.
    pub(crate) fn install_version(&self, version: Arc<Version>) {
        let _install = self.install.lock();
        let old = self.current();
        let (active, sealed) = (Arc::clone(&old.active), old.sealed.clone());
        self.current.store(Arc::new(SuperVersion { active, sealed, version }));
    }

    /// What a program's own memtable was last caught at, since the database was opened.
    pub(crate) fn fault(&self) -> Option<String> {
        let current = self.current().memtables().find_map(|table| table.fault());
        current.or_else(|| self.fault.lock().clone())
    }

    /// Keeps what a table is caught at beyond its life.
    fn note_fault(&self, table: &Memtable) {
        if let Some(fault) = table.fault() {
            *self.fault.lock() = Some(fault);
        }
    }

    /// The smallest sequence number that only memtables hold; `None` if they are empty.
    pub(crate) fn first_seq(&self) -> Option<SeqNo> {
        self.current().memtables().filter_map(|table| table.first_seq()).min()
    }

    /// Whether a flush was asked for.
    pub(crate) fn is_flush_wanted(&self) -> bool {
        self.flush_wanted.load(Ordering::Acquire)
    }

    /// Asks for a flush; returns whether nobody had asked before.
    pub(crate) fn want_flush(&self) -> bool {
        !self.flush_wanted.swap(true, Ordering::AcqRel)
    }
}
