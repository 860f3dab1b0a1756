//! The open database: every part of it, and which lock guards what.
//!
//! ```text
//! commit     the log's writer, the order of writes, rotation
//! sync       one fdatasync of the log at a time; taken before `commit`, never while holding it
//! manifest   the list of edits; held through the sync of an edit
//! keyspaces  the registry; never held while taking another lock
//! ```
//!
//! Order of taking: `mending` → keyspace `reshape` → keyspace `upkeep` → keyspace `merging` → `sync` → `commit`
//! → `manifest` → keyspace `install`. The commit lock is held over no sync.

use std::time::Duration;

use memtide_base::ledger::{Account, Ledger};
use memtide_base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use memtide_base::sync::{Arc, Mutex, RwLock};
use memtide_base::{Error, ErrorKind, Result};
use memtide_env::{Env, Event};
use memtide_memtable::{Anchor, Memtable, MemtableOptions, Registry};

use memtide_storage::budget::Budget;

use crate::commit_queue::CommitQueue;
use crate::config::{Config, KeyspaceOptions, Settings};
use crate::damage::{Damage, Damages};
use crate::durable::Durable;
use crate::files::{BLOB_DIR, Layout, TABLE_DIR};
use crate::health::{Broken, Vitals};
use crate::hold::Hold;
use crate::keyspace_state::KeyspaceState;
use crate::pace::Pace;
use crate::reserve::Reserve;
use crate::scrubs::Scrubs;
use crate::snapshots::Snapshots;
use crate::table_store::TableStore;
use crate::threads::Threads;
use crate::version::{Graveyard, Manifest};
use crate::wal::Log;

/// The keyspaces, by rising id.
#[derive(Debug, Default)]
pub(crate) struct Keyspaces(Vec<Arc<KeyspaceState>>);

impl Keyspaces {
    pub(crate) fn get(&self, id: u32) -> Option<&Arc<KeyspaceState>> {
        self.place(id).ok().map(|index| &self.0[index])
    }

    pub(crate) fn named(&self, name: &str) -> Option<Arc<KeyspaceState>> {
        self.0.iter().find(|keyspace| keyspace.name == name).cloned()
    }

    /// Adds a keyspace whose id none has.
    pub(crate) fn add(&mut self, keyspace: Arc<KeyspaceState>) {
        let index = self.place(keyspace.id).expect_err("an id is given once");
        self.0.insert(index, keyspace);
    }

    fn place(&self, id: u32) -> Result<usize, usize> {
        self.0.binary_search_by_key(&id, |keyspace| keyspace.id)
    }
}

/// What happened since the database was opened.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) flushes: AtomicU64,
    pub(crate) compactions: AtomicU64,
    pub(crate) stalls: Stalls,
}

/// The waits of writes, by what they waited for, and of compactions.
#[derive(Debug, Default)]
pub(crate) struct Stalls {
    pub(crate) memory: Stall,
    pub(crate) merge: Stall,
    pub(crate) segment: Stall,
    /// Of compactions, for their rate.
    pub(crate) compaction_rate: Stall,
    /// Waits for a turn, by what held the writer back.
    pub(crate) slowed_by_memory: Stall,
    pub(crate) slowed_by_compaction: Stall,
}

/// Waits of one kind.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    count: AtomicU64,
    nanos: AtomicU64,
}

impl Stall {
    pub(crate) fn note(&self, time: Duration) {
        // Relaxed: statistics.
        self.count.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn time(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

/// An open database.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) env: Env,
    pub(crate) layout: Layout,
    pub(crate) config: Config,
    /// Never changes while the database is open.
    pub(crate) registry: Registry,
    pub(crate) settings: Settings,
    pub(crate) uuid: [u8; 16],
    pub(crate) hash_seed: u64,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) tables: Arc<TableStore>,
    pub(crate) graveyard: Arc<Graveyard>,
    /// Whether the name of the directory of blob files is known to be durable.
    pub(crate) has_blob_dir: AtomicBool,
    pub(crate) keyspaces: RwLock<Keyspaces>,
    /// `None` when opened read-only.
    pub(crate) manifest: Mutex<Option<Manifest>>,
    /// The log; its lock is the commit lock. `None` when opened read-only.
    pub(crate) commit: Mutex<Option<Log>>,
    /// Writers that want it.
    pub(crate) commit_queue: CommitQueue,
    /// How fast writers may go.
    pub(crate) pace: Pace,
    /// Held by who syncs the log.
    pub(crate) sync: Mutex<()>,
    /// How much of the log is on the device, and who waits for more.
    pub(crate) durable: Durable,
    pub(crate) snapshots: Snapshots,
    pub(crate) health: Vitals,
    /// Space for the time when there is none.
    pub(crate) reserve: Reserve,
    /// Held by who makes the log and the manifest take writes again.
    pub(crate) mending: Mutex<()>,
    /// Whether compactions may run, and how fast.
    pub(crate) hold: Hold,
    /// How many threads merge tables at once.
    pub(crate) threads: Threads,
    /// Something became possible that writers may wait for: memory was freed, or writing became pointless. Compactions
    /// that wait for their rate wake with it.
    pub(crate) freed: Event,
    /// Work for the flush job.
    pub(crate) flush_work: AtomicBool,
    /// A memtable was sealed since the merge job looked.
    pub(crate) merge_work: AtomicBool,
    /// Why the last flush failed; `None` if it did not.
    pub(crate) flush_failure: Mutex<Option<String>>,
    /// Why the last compaction failed; `None` if it did not.
    pub(crate) compaction_failure: Mutex<Option<String>>,
    /// Whether it is looked at again and again.
    pub(crate) scrubs: Scrubs,
    /// Damage that was found since it was opened.
    pub(crate) damages: Damages,
    pub(crate) closed: AtomicBool,
    pub(crate) tally: Tally,
    /// Ids of the background jobs, to wake and to join.
    pub(crate) jobs: Mutex<Jobs>,
    /// Held by who closes the database.
    pub(crate) closing: Mutex<()>,
}

/// The background jobs of a database.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Jobs {
    pub(crate) flush: Option<memtide_env::JobId>,
    pub(crate) merge: Option<memtide_env::JobId>,
    pub(crate) compaction: Option<memtide_env::JobId>,
    pub(crate) sync: Option<memtide_env::JobId>,
    pub(crate) mend: Option<memtide_env::JobId>,
    pub(crate) scrub: Option<memtide_env::JobId>,
}

impl Engine {
    /// A new, empty memtable for a keyspace with these options; `bytes_max` replaces their size. `anchor` is what
    /// the keyspace's keys were last seen to begin with.
    pub(crate) fn new_memtable(
        &self,
        options: &KeyspaceOptions,
        bytes_max: Option<u64>,
        anchor: Anchor,
    ) -> Arc<Memtable> {
        let kind = self.registry.kind_of(&options.memtable_type);
        Memtable::new(&MemtableOptions {
            kind: kind.expect("a choice is looked up before a keyspace gets it"),
            bytes_max: bytes_max.unwrap_or(options.max_memtable_size),
            hash_seed: self.hash_seed,
            key_filter: true,
            anchor,
            ledger: Arc::clone(&self.ledger),
        })
    }

    /// Bytes that memtables may hold: half of the budget.
    pub(crate) fn memtable_share(&self) -> u64 {
        self.ledger.memtable_share()
    }

    pub(crate) fn memtable_bytes(&self) -> u64 {
        self.ledger.held(Account::Memtables)
    }

    /// Every keyspace, in the order of ids.
    pub(crate) fn all_keyspaces(&self) -> Vec<Arc<KeyspaceState>> {
        self.keyspaces.read().0.clone()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// # Errors
    /// The database was closed.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed() {
            return Err(
                Error::new(ErrorKind::Closed, "the database is closed").with_hint("open it again")
            );
        }
        Ok(())
    }

    /// What [`Engine::freed`] counts, to be read before a writer looks whether it must wait. Who closes or fails
    /// notifies after saying so, so whoever waits behind this count misses neither.
    ///
    /// # Errors
    /// The database was closed or takes no writes any more. That there is no space a writer is told when it tries.
    pub(crate) fn count_before_waiting(&self) -> Result<u64> {
        let seen = self.freed.count();
        self.check_open()?;
        self.health.check_running()?;
        Ok(seen)
    }

    /// Stops all writes because of `error`, and tells writers who wait. The sync job tells futures, the mend job sees
    /// to it that they go on.
    pub(crate) fn fail(&self, error: &Error) {
        let how = match error.kind() {
            ErrorKind::Internal => Broken::ForGood,
            ErrorKind::NoSpace => Broken::Space,
            _ => Broken::Device,
        };
        self.health.stop(how, format!("{error:?}"));
        if how == Broken::Space {
            self.health.fill(self.shortage(), format!("{error:?}"));
        }
        self.freed.notify();
        self.wake_sync();
        self.wake_mend();
        self.date_health();
    }

    /// Refuses puts because of `error`, for which there was no space; anything else is as if nothing had been said,
    /// except that a device that takes no writes at all stops them.
    pub(crate) fn note_shortage(&self, error: &Error) {
        if error.kind() == ErrorKind::NoSpace {
            self.health.fill(self.shortage(), format!("{error:?}"));
            self.freed.notify();
            self.wake_mend();
            self.date_health();
        } else if is_read_only_device(error) {
            self.fail(error);
        }
    }

    /// Remembers the damage that a read or a merge met, if that is what the error says.
    #[cold]
    pub(crate) fn note_damage(&self, error: &Error) {
        if error.is_corruption() {
            self.damaged(Damage::of(error));
        }
    }

    /// Remembers damage that was found. A table or blob file that has some is not merged any more.
    pub(crate) fn damaged(&self, damage: Damage) {
        let Damage { file, what, .. } = damage.clone();
        let is_data = [TABLE_DIR, BLOB_DIR].iter().any(|dir| file.starts_with(dir));
        // A handle that leads nowhere names only the directory.
        if self.damages.add(damage) && is_data && file.extension().is_some() {
            self.health.damage(file, what);
            self.date_health();
        }
    }

    /// Says when the state of the database changed.
    pub(crate) fn date_health(&self) {
        self.health.date(self.env.clock.wall_ms());
    }

    /// What is free and what is needed.
    pub(crate) fn shortage(&self) -> String {
        let (free, needed) = (self.free_space(), self.space_needed());
        let free = free.map_or("an unknown number of".to_owned(), |free| free.to_string());
        format!("{free} B are free, {needed} B are needed")
    }

    /// Bytes free on the device; `None` if it does not say.
    pub(crate) fn free_space(&self) -> Option<u64> {
        self.env.vfs.space(self.layout.root()).ok().map(|space| space.free)
    }

    /// Bytes that must be free before puts are taken again: the reserve and half as much to work with, a small segment,
    /// and an eighth of all that, so that it does not begin again at once. What waits to be flushed is flushed
    /// meanwhile, in pieces that fit.
    pub(crate) fn space_needed(&self) -> u64 {
        let least = self.reserve.bytes() * 3 / 2 + self.scarce_segment_bytes();
        least + least / 8
    }

    /// Bytes of a segment of the log while there is no space.
    pub(crate) fn scarce_segment_bytes(&self) -> u64 {
        self.reserve.bytes() / 4
    }

    /// # Errors
    /// As [`Layout::check_claim`]; the writes are stopped then.
    pub(crate) fn check_claim(&self) -> Result<()> {
        self.layout.check_claim().inspect_err(|error| self.fail(error))
    }

    /// What a caller without a manifest is told: opened read-only, or closed meanwhile.
    pub(crate) fn no_manifest(&self) -> Error {
        match self.check_open().and_then(|()| self.health.check_running()) {
            Err(error) => error,
            Ok(()) => Error::internal("an open, writable database has a manifest"),
        }
    }

    /// Every logged write below this number survives a power cut.
    pub(crate) fn durable_seq(&self) -> u64 {
        self.durable.below()
    }

    /// Has the flush job look for work.
    pub(crate) fn wake_flush(&self) {
        self.flush_work.store(true, Ordering::Release);
        if let Some(job) = self.jobs.lock().flush {
            self.env.executor.wake(job);
        }
    }

    /// Has the merge job look for work.
    pub(crate) fn wake_merge(&self) {
        self.merge_work.store(true, Ordering::Release);
        if let Some(job) = self.jobs.lock().merge {
            self.env.executor.wake(job);
        }
    }

    /// Has the sync job look for work.
    pub(crate) fn wake_sync(&self) {
        if let Some(job) = self.jobs.lock().sync {
            self.env.executor.wake(job);
        }
    }

    /// Has the mend job look whether the database is well.
    pub(crate) fn wake_mend(&self) {
        if let Some(job) = self.jobs.lock().mend {
            self.env.executor.wake(job);
        }
    }

    /// Has the compaction job look for work.
    pub(crate) fn wake_compaction(&self) {
        if let Some(job) = self.jobs.lock().compaction {
            self.env.executor.wake(job);
        }
    }

    /// A number for a new file.
    ///
    /// # Errors
    /// The database was opened read-only.
    pub(crate) fn take_number(&self) -> Result<u64> {
        match self.manifest.lock().as_mut() {
            Some(manifest) => Ok(manifest.take_number()),
            None => Err(self.no_manifest()),
        }
    }

    /// Removes the files of tables and blobs that nobody uses any more. Failing to is no error: the next open
    /// removes them.
    pub(crate) fn bury(&self) {
        let gone = self.graveyard.drain();
        if gone.is_empty() || self.check_claim().is_err() {
            return;
        }
        for file in gone {
            self.layout.discard(&*self.env.vfs, file.name());
        }
    }
}

/// Whether the operating system says that nothing can be written on this device at all.
fn is_read_only_device(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    cause.is_some_and(|cause: &std::io::Error| {
        cause.kind() == std::io::ErrorKind::ReadOnlyFilesystem
    })
}
