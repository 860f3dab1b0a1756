//! A named part of a database with keys of its own.

use std::fmt;

use memtide_base::sync::Arc;
use memtide_base::{Error, Kind, Result, Slice};
use memtide_memtable::MemtableChoice;

use crate::batch::Single;
use crate::config::{Compaction, KeyspaceOptions};
use crate::engine::Engine;
use crate::handle::Handle;
use crate::iter::Iter;
use crate::keyspace_state::KeyspaceState;
use crate::range::{HalfOpen, KeyRange};
use crate::version::Edit;
use crate::write::{self, Patience};
use crate::{flush, read};

/// A handle to one keyspace: cheap to clone, usable from any thread, keeps the database open.
#[derive(Clone)]
pub struct Keyspace {
    handle: Arc<Handle>,
    state: Arc<KeyspaceState>,
}

impl Keyspace {
    pub(crate) fn new(handle: Arc<Handle>, state: Arc<KeyspaceState>) -> Self {
        Self { handle, state }
    }

    pub(crate) fn state(&self) -> &Arc<KeyspaceState> {
        &self.state
    }

    fn engine(&self) -> &Arc<Engine> {
        self.handle.engine()
    }

    /// # Errors
    /// The keyspace belongs to another database.
    pub(crate) fn check_of(&self, engine: &Arc<Engine>) -> Result<()> {
        if Arc::ptr_eq(self.engine(), engine) {
            return Ok(());
        }
        let name = self.name();
        Err(Error::invalid_argument(format!("keyspace {name:?} is of another database")))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// Its number, never reused.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.state.id
    }

    /// The memtable type that its next memtables have.
    #[must_use]
    pub fn memtable_type(&self) -> MemtableChoice {
        self.state.options().memtable_type
    }

    /// The strategy by which its tables are merged.
    #[must_use]
    pub fn compaction(&self) -> Compaction {
        self.state.options().compaction
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// `InvalidArgument` for a key above 65,535 B or a value above 1 GiB, or for both together if the share of
    /// memtables, half of the memory budget, has no room for them; `Busy` if memory cannot be freed; `ReadOnly`
    /// after a device failure; `Closed`. Nothing is visible then. `Indeterminate` if the sync failed: the write is
    /// visible, and may be lost in a power cut.
    #[doc(alias = "insert")]
    #[doc(alias = "set")]
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.write(Kind::Put, key.as_ref(), value.as_ref())
    }

    /// Removes a key; nothing happens if it is absent.
    ///
    /// # Errors
    /// As [`Keyspace::put`].
    #[doc(alias = "remove")]
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.write(Kind::Delete, key.as_ref(), &[])
    }

    /// Removes all keys of a range, in one write whatever their number.
    ///
    /// # Errors
    /// As [`Keyspace::put`].
    #[expect(clippy::needless_pass_by_value, reason = "a range is written where it is used")]
    pub fn delete_range(&self, range: impl KeyRange) -> Result<()> {
        let range = HalfOpen::of(&range);
        if range.is_empty() {
            return Ok(());
        }
        self.write(Kind::RangeDelete, &range.start, range.end.as_deref().unwrap_or_default())
    }

    fn write(&self, kind: Kind, key: &[u8], value: &[u8]) -> Result<()> {
        let engine = self.engine();
        let write = Single::new(&self.state, kind, key, value)?;
        write::write(engine, write, engine.settings.durability, Patience::Endless).map(drop)
    }

    /// The value of a key.
    ///
    /// # Errors
    /// A table could not be read, or the database is closed.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        let engine = self.engine();
        engine.check_open()?;
        let view = self.state.glance();
        let below = engine.snapshots.visible();
        read::get(&view, &engine.tables, engine.hash_seed, key.as_ref(), below)
            .inspect_err(|error| engine.note_damage(error))
    }

    /// The values of many keys, in the order the keys are given in, all as of one moment: for each what
    /// [`Keyspace::get`] would say then. Keys may come in any order and repeat.
    ///
    /// Cheaper than single reads, the more the closer the keys lie together: every source is looked into once, in
    /// key order, and a block that holds several of the keys is fetched once. Takes O(keys) memory besides the
    /// values.
    ///
    /// # Errors
    /// As [`Keyspace::get`]; no value is returned then.
    #[doc(alias = "get_many")]
    pub fn multi_get<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Slice>>> {
        let engine = self.engine();
        engine.check_open()?;
        let keys: Vec<K> = keys.into_iter().collect();
        let view = self.state.current();
        let below = engine.snapshots.visible();
        read::multi_get(&view, &engine.tables, engine.hash_seed, &keys, below)
            .inspect_err(|error| engine.note_damage(error))
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.get(key).map(|value| value.is_some())
    }

    /// All keys with their values, in key order.
    #[doc(alias = "scan")]
    #[must_use]
    pub fn iter(&self) -> Iter {
        self.range(..)
    }

    /// The keys of a range.
    #[expect(clippy::needless_pass_by_value, reason = "a range is written where it is used")]
    #[must_use]
    pub fn range(&self, range: impl KeyRange) -> Iter {
        Iter::new(&self.handle, &self.state, HalfOpen::of(&range), None)
    }

    /// The keys that start with `prefix`.
    #[must_use]
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        Iter::new(&self.handle, &self.state, HalfOpen::prefix(prefix.as_ref()), None)
    }

    /// Changes the memtable type, now and for good, on the live database.
    ///
    /// The choice is stored, then the active memtable is sealed and one of the new type takes its place: what is
    /// written after this returned is in the new type. Sealed memtables stay what they are until they are
    /// flushed; readers, writers and snapshots go on meanwhile and see the same. After a crash the keyspace has
    /// the old type or the new one, and all of its contents in either case.
    ///
    /// # Errors
    /// `InvalidArgument` if nothing of this name is registered; `ReadOnly`; the manifest could not be written.
    /// The type is unchanged then, though after a failed write it may be the new one at the next open. Where a
    /// flush had to make place and failed, the choice is stored and takes effect at the next rotation.
    pub fn set_memtable(&self, choice: impl Into<MemtableChoice>) -> Result<()> {
        let (engine, choice) = (self.engine(), choice.into());
        engine.health.check_writable()?;
        let known = engine.registry.kind_of(&choice);
        known
            .map_err(|unknown| Error::invalid_argument(unknown.to_string()).with_source(unknown))?;
        let choice = MemtableChoice::named(choice.name());
        // Stored before it is used. The other way round a crash between the two would leave a database that
        // forgets what it had already done; this way it leaves one that does it at the next open, where the
        // log is replayed into memtables of the stored type anyway.
        store_options(engine, &self.state, |options| options.memtable_type = choice)?;
        while !self.rotate_to_choice() {
            // There is no place for one more memtable before a flush.
            flush::flush(engine, &self.state)?;
        }
        Ok(())
    }

    /// Changes the strategy by which tables are merged, now and for good, on the live database.
    ///
    /// The choice is stored first. A merge that runs is finished; the next is chosen by the new strategy, which goes on
    /// from the tree it finds and brings it step by step to the shape it likes. Reads see the same throughout, except
    /// that `fifo` drops the oldest tables at once if there are more bytes than `tree.fifo_size`. Where background
    /// compaction is off, [`Db::compact`](crate::Db::compact) asks the strategy.
    ///
    /// # Errors
    /// `ReadOnly`; the manifest could not be written. The strategy is unchanged then, though after a failed write it
    /// may be the new one at the next open.
    pub fn set_compaction(&self, compaction: Compaction) -> Result<()> {
        let engine = self.engine();
        engine.health.check_writable()?;
        store_options(engine, &self.state, |options| options.compaction = compaction)?;
        engine.wake_compaction();
        Ok(())
    }

    /// Rotates, unless the active memtable has the type that was stored last; `false` if there is no place.
    fn rotate_to_choice(&self) -> bool {
        let engine = self.engine();
        let _commit = engine.commit.lock();
        // Another thread may have rotated since, or changed the type once more: whoever gets here first does it.
        let (current, options) = (self.state.current(), self.state.options());
        current.active.kind().name() == options.memtable_type.name()
            || write::rotate(engine, &self.state, None)
    }
}

/// Makes a choice durable, then the keyspace's; nothing if it is that already.
fn store_options(
    engine: &Engine,
    state: &KeyspaceState,
    choose: impl FnOnce(&mut KeyspaceOptions),
) -> Result<()> {
    // Held over both, so that what is stored last is what the keyspace has.
    let mut manifest = engine.manifest.lock();
    // Under the lock: closing ends with an edit, and none may follow it.
    engine.check_open()?;
    let manifest = manifest.as_mut().ok_or_else(|| engine.no_manifest())?;
    let mut options = state.options();
    choose(&mut options);
    let changes = manifest.state().option_changes(state.id, &options);
    if changes.is_empty() {
        return Ok(());
    }
    manifest.append(Edit::new(changes)).inspect_err(|error| engine.fail(error))?;
    state.set_options(options);
    Ok(())
}

impl fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyspace({:?})", self.name())
    }
}
