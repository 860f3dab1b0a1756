//! A view of the whole database at one moment.

use std::fmt;

use memtide_base::sync::Arc;
use memtide_base::{Result, SeqNo, Slice};

use crate::handle::Handle;
use crate::iter::Iter;
use crate::keyspace::Keyspace;
use crate::live_snapshot::LiveSnapshot;
use crate::range::{HalfOpen, KeyRange};
use crate::read;

/// All keyspaces as they were when the snapshot was taken, for as long as it lives. Cheap to take and to
/// clone; pins no memory by itself, but keeps compaction from dropping what it sees.
#[derive(Clone)]
pub struct Snapshot {
    live: Arc<LiveSnapshot>,
}

impl Snapshot {
    pub(crate) fn take(handle: &Arc<Handle>) -> Self {
        Self { live: LiveSnapshot::take(handle) }
    }

    /// The snapshot sees every write with a number below this one.
    #[must_use]
    pub fn seqno(&self) -> SeqNo {
        self.live.below()
    }

    /// The value of a key.
    ///
    /// # Errors
    /// A table could not be read, or the database is closed.
    pub fn get(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        let engine = self.live.handle().engine();
        engine.check_open()?;
        keyspace.check_of(engine)?;
        let view = keyspace.state().current();
        read::get(&view, &engine.tables, engine.hash_seed, key.as_ref(), self.seqno())
            .inspect_err(|error| engine.note_damage(error))
    }

    /// The values of many keys, in the order the keys are given in; as [`Keyspace::multi_get`].
    ///
    /// # Errors
    /// As [`Snapshot::get`]; no value is returned then.
    pub fn multi_get<K: AsRef<[u8]>>(
        &self,
        keyspace: &Keyspace,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Slice>>> {
        let engine = self.live.handle().engine();
        engine.check_open()?;
        keyspace.check_of(engine)?;
        let keys: Vec<K> = keys.into_iter().collect();
        let view = keyspace.state().current();
        read::multi_get(&view, &engine.tables, engine.hash_seed, &keys, self.seqno())
            .inspect_err(|error| engine.note_damage(error))
    }

    /// All keys with their values, in key order.
    #[must_use]
    pub fn iter(&self, keyspace: &Keyspace) -> Iter {
        self.range(keyspace, ..)
    }

    /// The keys of a range.
    #[expect(clippy::needless_pass_by_value, reason = "a range is written where it is used")]
    #[must_use]
    pub fn range(&self, keyspace: &Keyspace, range: impl KeyRange) -> Iter {
        self.over(keyspace, HalfOpen::of(&range))
    }

    /// The keys that start with `prefix`.
    #[must_use]
    pub fn prefix(&self, keyspace: &Keyspace, prefix: impl AsRef<[u8]>) -> Iter {
        self.over(keyspace, HalfOpen::prefix(prefix.as_ref()))
    }

    fn over(&self, keyspace: &Keyspace, range: HalfOpen) -> Iter {
        let handle = self.live.handle();
        match keyspace.check_of(handle.engine()) {
            Ok(()) => Iter::new(handle, keyspace.state(), range, Some(Arc::clone(&self.live))),
            Err(error) => Iter::failed(error),
        }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot(below {})", self.seqno())
    }
}
