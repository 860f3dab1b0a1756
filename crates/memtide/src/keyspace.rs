//! A named part of a database with keys of its own.

use std::fmt;

use memtide_base::sync::Arc;
use memtide_base::{Error, Result, Slice};
use memtide_memtable::MemtableType;

use crate::batch::BatchBody;
use crate::engine::Engine;
use crate::handle::Handle;
use crate::iter::Iter;
use crate::keyspace_state::KeyspaceState;
use crate::range::{HalfOpen, KeyRange};
use crate::version::{Change, Edit};
use crate::{read, write};

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
    pub fn memtable_type(&self) -> MemtableType {
        self.state.options().memtable_type
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// Nothing is visible then. `InvalidArgument` for a key above 65,535 B or a value above 8 MiB; `Busy`
    /// if memory cannot be freed; `ReadOnly` after a device failure; `Indeterminate` if the sync failed.
    #[doc(alias = "insert")]
    #[doc(alias = "set")]
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let mut batch = BatchBody::default();
        batch.put(&self.state, key.as_ref(), value.as_ref());
        self.write(batch)
    }

    /// Removes a key; nothing happens if it is absent.
    ///
    /// # Errors
    /// As [`Keyspace::put`].
    #[doc(alias = "remove")]
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        let mut batch = BatchBody::default();
        batch.delete(&self.state, key.as_ref());
        self.write(batch)
    }

    /// Removes all keys of a range, in one write whatever their number.
    ///
    /// # Errors
    /// As [`Keyspace::put`].
    #[expect(clippy::needless_pass_by_value, reason = "a range is written where it is used")]
    pub fn delete_range(&self, range: impl KeyRange) -> Result<()> {
        let mut batch = BatchBody::default();
        batch.delete_range(&self.state, &HalfOpen::of(&range));
        self.write(batch)
    }

    fn write(&self, mut batch: BatchBody) -> Result<()> {
        batch.check()?;
        let engine = self.engine();
        write::write(engine, &batch, engine.settings.durability).map(drop)
    }

    /// The value of a key.
    ///
    /// # Errors
    /// A table could not be read, or the database is closed.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        let engine = self.engine();
        engine.check_open()?;
        let view = self.state.current();
        let below = engine.snapshots.visible();
        read::get(&view, &engine.tables, engine.hash_seed, key.as_ref(), below)
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

    /// Changes the memtable type, durably. Full memtables stay what they are until they are flushed.
    ///
    /// # Errors
    /// `ReadOnly`, or the manifest could not be written; the type is unchanged.
    pub fn set_memtable(&self, memtable_type: MemtableType) -> Result<()> {
        let engine = self.engine();
        engine.health.check_writable()?;
        let mut options = self.state.options();
        options.memtable_type = memtable_type;
        {
            let mut manifest = engine.manifest.lock();
            // Under the lock: closing ends with an edit, and none may follow it.
            engine.check_open()?;
            let manifest = manifest.as_mut().ok_or_else(|| engine.no_manifest())?;
            let change = Change::KeyspaceOptions { id: self.state.id, options };
            manifest
                .append(Edit::new(vec![change]))
                .inspect_err(|error| engine.health.fail(error))?;
            self.state.set_options(options);
        }
        let _commit = engine.commit.lock();
        // Where there is no place for one more memtable, the active one is nearly full and the next has the type.
        let _rotated = write::rotate(engine, &self.state, None);
        Ok(())
    }
}

impl fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyspace({:?})", self.name())
    }
}
