//! The database: what users open.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use memtide_base::sync::Arc;
use memtide_base::{Error, ErrorKind, Result, SeqNo, Slice};
use memtide_memtable::Anchor;

use crate::backup::BackupInfo;
use crate::batch::BatchBody;
use crate::commit::{Commit, WriteOptions};
use crate::compaction_pause::CompactionPause;
use crate::config::{Config, Durability, check_keyspace_name};
use crate::damage::Damage;
use crate::engine::Engine;
use crate::handle::Handle;
use crate::health::Health;
use crate::integrity::{self, VerifyOptions, VerifyReport};
use crate::iter::Iter;
use crate::keyspace::Keyspace;
use crate::keyspace_state::KeyspaceState;
use crate::range::{HalfOpen, KeyRange};
use crate::recovery::RecoveryReport;
use crate::scrubs::ScrubPlan;
use crate::snapshot::Snapshot;
use crate::stats::{self, Stats};
use crate::version::{Change, Edit};
use crate::wal::Log;
use crate::write::{self, Patience};
use crate::{background, backup, checkpoint, compaction, flush, resume, shutdown};

/// An open database. Cheap to clone, usable from any thread; closes in order when the last handle, keyspaces
/// included, is dropped.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("data");
/// let db = memtide::Db::open(path)?;
/// db.put("tide", "high")?;
/// assert_eq!(db.get("tide")?.as_deref(), Some(&b"high"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Db {
    pub(crate) handle: Arc<Handle>,
    pub(crate) default: Keyspace,
}

impl Db {
    fn engine(&self) -> &Arc<Engine> {
        self.handle.engine()
    }

    /// Sets the value of a key of the default keyspace.
    ///
    /// # Errors
    /// As [`Keyspace::put`].
    #[doc(alias = "insert")]
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.default.put(key, value)
    }

    /// Removes a key of the default keyspace.
    ///
    /// # Errors
    /// As [`Keyspace::put`].
    #[doc(alias = "remove")]
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.default.delete(key)
    }

    /// Removes all keys of a range of the default keyspace, in one write.
    ///
    /// # Errors
    /// As [`Keyspace::put`].
    pub fn delete_range(&self, range: impl KeyRange) -> Result<()> {
        self.default.delete_range(range)
    }

    /// The value of a key of the default keyspace.
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.default.get(key)
    }

    /// The values of many keys of the default keyspace; as [`Keyspace::multi_get`].
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn multi_get<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Slice>>> {
        self.default.multi_get(keys)
    }

    /// Whether a key of the default keyspace has a value.
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.default.contains_key(key)
    }

    /// All keys of the default keyspace with their values, in key order.
    #[must_use]
    pub fn iter(&self) -> Iter {
        self.default.iter()
    }

    /// The keys of a range of the default keyspace.
    #[must_use]
    pub fn range(&self, range: impl KeyRange) -> Iter {
        self.default.range(range)
    }

    /// The keys of the default keyspace that start with `prefix`.
    #[must_use]
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        self.default.prefix(prefix)
    }

    /// The keyspace that [`Db::put`] and its like work on.
    #[must_use]
    pub fn default_keyspace(&self) -> Keyspace {
        self.default.clone()
    }

    /// The keyspace of this name, created if there is none; durable before this returns.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is not 1 to 255 bytes without control characters; `ReadOnly` if
    /// it would have to be created; the manifest could not be written.
    #[doc(alias = "column family")]
    pub fn keyspace(&self, name: &str) -> Result<Keyspace> {
        if let Some(known) = self.get_keyspace(name) {
            return Ok(known);
        }
        check_keyspace_name(name).map_err(Error::invalid_argument)?;
        let state = self.create_keyspace(name)?;
        Ok(Keyspace::new(Arc::clone(&self.handle), state))
    }

    /// The keyspace of this name, if there is one.
    #[must_use]
    pub fn get_keyspace(&self, name: &str) -> Option<Keyspace> {
        let state = self.engine().keyspaces.read().named(name)?;
        Some(Keyspace::new(Arc::clone(&self.handle), state))
    }

    /// All keyspaces, in the order of their numbers.
    #[must_use]
    pub fn keyspaces(&self) -> Vec<Keyspace> {
        let states = self.engine().all_keyspaces();
        states.into_iter().map(|state| Keyspace::new(Arc::clone(&self.handle), state)).collect()
    }

    fn create_keyspace(&self, name: &str) -> Result<Arc<KeyspaceState>> {
        let engine = self.engine();
        engine.health.check_writable()?;
        let mut manifest = engine.manifest.lock();
        // Under the lock: closing ends with an edit, and none may follow it.
        engine.check_open()?;
        let manifest = manifest.as_mut().ok_or_else(|| engine.no_manifest())?;
        if let Some(known) = engine.keyspaces.read().named(name) {
            return Ok(known);
        }
        let id = manifest.state().next_keyspace;
        let options = engine.config.keyspace_options(&engine.settings, name, None);
        let changes = Change::new_keyspace(id, name.to_owned(), options.clone());
        manifest.append(Edit::new(changes)).inspect_err(|error| engine.fail(error))?;
        let version = Arc::clone(&manifest.state().keyspace(id).version);
        let active = engine.new_memtable(&options, None, Anchor::default());
        let state = KeyspaceState::new(id, name.to_owned(), options, active, version);
        let state = Arc::new(state);
        engine.keyspaces.write().add(Arc::clone(&state));
        Ok(state)
    }

    /// An empty batch.
    #[must_use]
    pub fn batch(&self) -> Batch {
        Batch { engine: Arc::clone(self.engine()), body: BatchBody::default() }
    }

    /// Writes a batch: all of it becomes visible at once, and all or nothing of its logged operations survives a crash.
    ///
    /// # Errors
    /// As [`Keyspace::put`], for any of its operations, and of the batch as a whole.
    pub fn write(&self, batch: Batch) -> Result<Commit> {
        self.write_with(batch, WriteOptions::default())
    }

    /// As [`Db::write`], with its own durability level or a limit on its waiting.
    ///
    /// ```
    /// # use memtide::{Db, Durability};
    /// # let dir = tempfile::tempdir()?;
    /// let db = Db::open(dir.path().join("data"))?;
    /// let mut batch = db.batch();
    /// batch.put(&db.default_keyspace(), "tide", "high");
    /// assert!(db.write_with(batch, Durability::Sync)?.is_durable());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Db::write`]; `InvalidArgument` for `None`, which only a keyspace can choose; `Busy` if it would
    /// have to wait longer than its timeout before it begins.
    pub fn write_with(&self, batch: Batch, options: impl Into<WriteOptions>) -> Result<Commit> {
        let WriteOptions { durability, timeout } = options.into();
        let patience = timeout.map_or(Patience::Endless, Patience::For);
        let own = self.engine().settings.durability;
        let durability = durability.unwrap_or(own);
        if durability == Durability::None && own != Durability::None {
            return Err(Error::invalid_argument("a single write cannot leave the log out")
                .with_hint("configure the keyspace with durability none"));
        }
        self.commit(batch, durability, patience)
    }

    /// As [`Db::write`], but waits for nothing: neither for memory, merges of memtables, the next segment of the log or
    /// its turn while upkeep is behind, before it begins, nor for the device afterwards. At level `Sync` the write is
    /// visible when this returns and acknowledged once the [`Commit`] was waited for.
    ///
    /// Commits in progress are let through first, which takes as long as their writes to the log.
    ///
    /// # Errors
    /// As [`Db::write`]; `Busy` if it would have to wait; what it would have waited for is under way then.
    pub fn try_write(&self, batch: Batch) -> Result<Commit> {
        self.commit(batch, self.engine().settings.durability, Patience::None)
    }

    fn commit(
        &self,
        mut batch: Batch,
        durability: Durability,
        patience: Patience,
    ) -> Result<Commit> {
        let engine = self.engine();
        if !Arc::ptr_eq(&batch.engine, engine) {
            return Err(Error::invalid_argument("the batch is of another database"));
        }
        batch.body.check()?;
        Ok(Commit::new(engine, write::write(engine, batch.body, durability, patience)?))
    }

    /// The whole database as of now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.handle)
    }

    /// Waits until every write acknowledged so far is on the device.
    ///
    /// # Errors
    /// `Indeterminate`: the device failed; the database takes no writes before it has resumed.
    pub fn sync(&self) -> Result<()> {
        let engine = self.engine();
        engine.check_open()?;
        let position = engine.commit.lock().as_ref().map(Log::position);
        // Without a log it was opened read-only, or closed meanwhile.
        position.map_or_else(|| engine.check_open(), |position| write::sync_to(engine, position))
    }

    /// Writes all memtables to tables.
    ///
    /// # Errors
    /// A table or the manifest could not be written; nothing is lost.
    pub fn flush(&self) -> Result<()> {
        self.check_upkeep()?;
        flush::flush_all(self.engine())
    }

    /// Flushes, then merges each keyspace's tables into one run: what is deleted or overwritten gives its
    /// space back, except what a snapshot still sees. A keyspace with the strategy `fifo` is not merged; what it no
    /// longer keeps is dropped.
    ///
    /// Writes no faster than `tree.compaction_rate`.
    ///
    /// # Errors
    /// As [`Db::flush`]; `Busy` while compaction is paused, or once it is: what was merged by then stays.
    pub fn compact(&self) -> Result<()> {
        let engine = self.engine();
        self.check_upkeep()?;
        engine.hold.check()?;
        let flushed = match self.flush() {
            // Merges may make some.
            Err(error) if error.kind() == ErrorKind::NoSpace => Err(error),
            flushed => Ok(flushed?),
        };
        let merged = engine.all_keyspaces().iter().try_for_each(|k| compaction::whole(engine, k));
        // Meanwhile the job has left those keyspaces alone.
        engine.wake_compaction();
        merged.and(flushed)
    }

    /// Stops compaction of all keyspaces until what this returns is dropped, for times when the device is needed for
    /// something else. Reads, writes and flushes go on, so level 0 grows and reads look into more tables.
    ///
    /// Waits until no compaction runs: one that does stops within a few hundred kilobytes, what it has written is
    /// removed and its tables stay. [`Db::compact`] answers `Busy` meanwhile. Pauses may overlap; compaction goes on
    /// with the end of the last one.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let db = memtide::Db::open(dir.path().join("data"))?;
    /// let pause = db.pause_compaction();
    /// assert!(db.stats().compaction_paused);
    /// db.put("tide", "high")?;
    /// drop(pause);
    /// db.compact()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "PauseBackgroundWork")]
    pub fn pause_compaction(&self) -> CompactionPause {
        CompactionPause::begin(&self.handle)
    }

    /// Makes a database of this moment in `dir`, which must be empty or not there, beside writers. Tables and blob
    /// files are shared by hard links where the file system has them and copied elsewhere; the log is copied.
    ///
    /// The copy holds every write acknowledged before the call, whatever its durability, and of those made meanwhile
    /// a prefix, the same one for all keyspaces. Keyspaces without a log are flushed first: they hold what was
    /// acknowledged before the call. It is the same database at a moment, with the same identity, and both live on by
    /// themselves: never move files from one into the other.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let db = memtide::Db::open(dir.path().join("data"))?;
    /// db.put("tide", "high")?;
    /// db.checkpoint(dir.path().join("copy"))?;
    /// db.put("tide", "low")?;
    /// let copy = memtide::Db::open(dir.path().join("copy"))?;
    /// assert_eq!(copy.get("tide")?.as_deref(), Some(&b"high"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` if `dir` is not empty or lies inside the database; `NoSpace` and other failures, after which
    /// what was made is removed again. After a crash in the middle `dir` does not open: remove it.
    pub fn checkpoint(&self, dir: impl AsRef<Path>) -> Result<()> {
        checkpoint::checkpoint(self.engine(), dir.as_ref())
    }

    /// Adds a backup of this moment to the directory `dir` of backups, made if it is not there, beside writers. It
    /// holds what [`Db::checkpoint`] would. Only tables and blob files that no earlier backup has are copied.
    /// [`Backups`](crate::Backups) lists, verifies, restores and prunes them.
    ///
    /// # Errors
    /// `InvalidArgument` if `dir` is something else, has backups of another database, or lies inside this one;
    /// `Locked`; `Corruption` if a table of this database is damaged. The backups before are as they were; what was
    /// copied is used by the next one or removed by the next prune.
    pub fn backup(&self, dir: impl AsRef<Path>) -> Result<BackupInfo> {
        backup::create(self.engine(), dir.as_ref())
    }

    fn check_upkeep(&self) -> Result<()> {
        self.engine().check_open()?;
        self.engine().health.check_running()
    }

    /// Has the database take writes again after a failure, now instead of at the next attempt of its own; nothing if it
    /// does. What was visible before stays so, and is durable once this returns.
    ///
    /// # Errors
    /// What it failed at: the database takes no writes still, and goes on trying. `ReadOnly` if it was opened so, or if
    /// only opening it again helps ([`HealthState::Failed`](crate::HealthState::Failed)).
    pub fn resume(&self) -> Result<()> {
        resume::resume(self.engine())
    }

    /// Every logged write below this number survives a power cut.
    #[must_use]
    pub fn durable_seq(&self) -> SeqNo {
        self.engine().durable_seq()
    }

    /// How the database is: whether it takes writes, and if not, why and what to do.
    #[must_use]
    pub fn health(&self) -> Health {
        self.engine().health.current()
    }

    /// Looks at the database beside its readers and writers and reports all damage: at the tables and blob files that
    /// are there when it begins, the manifest, and the log as far as it is durable. Each damage is among
    /// [`Db::damages`] then.
    ///
    /// ```
    /// # use memtide::{Db, Depth};
    /// # let dir = tempfile::tempdir()?;
    /// let db = Db::open(dir.path().join("data"))?;
    /// assert!(db.verify(Depth::Full)?.damages.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Closed` if the database is or was closed. Damage is in the report.
    pub fn verify(&self, options: impl Into<VerifyOptions>) -> Result<VerifyReport> {
        self.engine().check_open()?;
        integrity::verify_online(self.engine(), options.into())
    }

    /// Looks at the whole database again and again, beside its readers and writers, until it is closed: a pass begins
    /// now and every `every`, and reads no faster than `bytes_per_second`. What it finds is among [`Db::damages`]. A
    /// further call replaces the plan. A pass that takes longer than `every` is followed by the next at once.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let dir = tempfile::tempdir()?;
    /// let db = memtide::Db::open(dir.path().join("data"))?;
    /// db.scrub(Duration::from_secs(30 * 24 * 3600), 1 << 20)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` for a time or rate of 0; `Closed`; no thread could be started.
    pub fn scrub(&self, every: Duration, bytes_per_second: u64) -> Result<()> {
        if every.is_zero() || bytes_per_second == 0 {
            return Err(Error::invalid_argument("a scrub takes a time and a rate above 0"));
        }
        self.engine().scrubs.set(Some(ScrubPlan { every, bytes_per_second }));
        background::scrub(self.engine())
    }

    /// Ends what [`Db::scrub`] began, after the file that it looks at; nothing if it did not.
    pub fn stop_scrub(&self) {
        self.engine().scrubs.set(None);
    }

    /// The last damages that were found since the database was opened, oldest first, 64 at most.
    #[must_use]
    pub fn damages(&self) -> Vec<Damage> {
        self.engine().damages.last()
    }

    /// Figures of the database.
    #[must_use]
    pub fn stats(&self) -> Stats {
        stats::stats(self.engine())
    }

    /// What opening the database found.
    #[must_use]
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.handle.report
    }

    /// What was named when the database was opened.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.engine().config
    }

    /// Closes the database: the log is synced, jobs end, the lock is released. Other handles then answer
    /// `Closed`. Dropping the last handle does the same but cannot report an error.
    ///
    /// # Errors
    /// The log or the manifest could not be synced. The database is closed all the same.
    pub fn close(self) -> Result<()> {
        shutdown::close(self.engine())
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Db({:?})", self.engine().layout.root())
    }
}

/// Writes that take effect together; made by [`Db::batch`], written by [`Db::write`].
///
/// The later of two writes to a key wins. An operation that is out of bounds refuses the whole batch when it
/// is written.
#[derive(Debug)]
pub struct Batch {
    engine: Arc<Engine>,
    body: BatchBody,
}

impl Batch {
    /// Adds a put.
    pub fn put(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        if self.accepts(keyspace) {
            self.body.put(keyspace.state(), key.as_ref(), value.as_ref());
        }
    }

    /// Adds a delete.
    pub fn delete(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) {
        if self.accepts(keyspace) {
            self.body.delete(keyspace.state(), key.as_ref());
        }
    }

    /// Adds a delete of a range; an empty range adds nothing.
    #[expect(clippy::needless_pass_by_value, reason = "a range is written where it is used")]
    pub fn delete_range(&mut self, keyspace: &Keyspace, range: impl KeyRange) {
        if self.accepts(keyspace) {
            self.body.delete_range(keyspace.state(), &HalfOpen::of(&range));
        }
    }

    /// Operations in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// Whether it has no operation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn accepts(&mut self, keyspace: &Keyspace) -> bool {
        match keyspace.check_of(&self.engine) {
            Ok(()) => true,
            Err(error) => {
                self.body.refuse(error);
                false
            }
        }
    }
}
