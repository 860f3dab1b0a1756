//! A program's own memtable: what it implements, in safe Rust, and what it is handed.
//!
//! The memtable around the index keeps owning everything that must not go wrong: the bytes, the versions of a
//! key, snapshots, range tombstones, the limit, the account. A [`CustomIndex`] is an ordered set of the *user
//! keys* that are in the table, each once, each with the [`RecordRef`] of the record that brought it; it never
//! hears of versions or bounds. `checked` wraps it and believes nothing it answers.
//!
//! ```
//! use std::ops::Bound;
//! use memtide_memtable::{CustomIndex, RecordRef, Records};
//!
//! /// References in order of their keys. Right, and slow: an insert moves what is behind it.
//! #[derive(Default)]
//! struct Plain(Vec<RecordRef>);
//!
//! const REF: u64 = size_of::<RecordRef>() as u64;
//!
//! impl CustomIndex for Plain {
//!     fn insert(&mut self, records: &Records<'_>, new: RecordRef, _hash: u64) {
//!         let at = self.0.partition_point(|&known| records.key(known) < records.key(new));
//!         self.0.insert(at, new);
//!     }
//!     fn first_from(&self, records: &Records<'_>, from: Bound<&[u8]>) -> Option<RecordRef> {
//!         let is_before = |&at: &RecordRef| match from {
//!             Bound::Included(key) => records.key(at) < key,
//!             Bound::Excluded(key) => records.key(at) <= key,
//!             Bound::Unbounded => false,
//!         };
//!         self.0.get(self.0.partition_point(is_before)).copied()
//!     }
//!     fn last_to(&self, records: &Records<'_>, to: Bound<&[u8]>) -> Option<RecordRef> {
//!         let is_within = |&at: &RecordRef| match to {
//!             Bound::Included(key) => records.key(at) <= key,
//!             Bound::Excluded(key) => records.key(at) < key,
//!             Bound::Unbounded => true,
//!         };
//!         self.0.partition_point(is_within).checked_sub(1).map(|last| self.0[last])
//!     }
//!     fn heap_bytes(&self) -> u64 {
//!         self.0.capacity() as u64 * REF
//!     }
//!     // A vector that grows doubles, and holds the old half until it is copied.
//!     fn heap_bytes_after(&self, keys: u64) -> u64 {
//!         (self.0.capacity() as u64 + keys + 4) * 3 * REF
//!     }
//! }
//! ```

mod asked;
mod checked;

use std::ops::Bound;

use crate::arena::{Arena, Ref};
use crate::contract::{Cost, Descriptor};

pub(crate) use checked::Checked;

/// Names one record of one memtable. Only a memtable makes them: an index copies them and hands them back.
///
/// It holds the number of its memtable, which no other one in this process ever has, so a reference that is
/// handed to the wrong memtable is noticed before anything is read through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordRef {
    at: Ref,
    /// Halves of the table's number: a `u64` would make this 16 bytes instead of 12.
    table: [u32; 2],
}

/// The records that an index of one memtable may look at.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a> {
    arena: &'a Arena,
    table: [u32; 2],
}

impl<'a> Records<'a> {
    fn new(arena: &'a Arena, table: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
        let table = [table as u32, (table >> 32) as u32];
        Self { arena, table }
    }

    /// The reference that an index is handed for one of its table's records.
    fn name(&self, at: Ref) -> RecordRef {
        RecordRef { at, table: self.table }
    }

    /// The record of a reference that an index handed back; `None` if it is of another memtable.
    fn own(&self, record: RecordRef) -> Option<Ref> {
        (record.table == self.table).then_some(record.at)
    }

    /// The user key of a record.
    ///
    /// # Panics
    /// If the reference is of another memtable.
    #[must_use]
    pub fn key(&self, record: RecordRef) -> &'a [u8] {
        self.arena.key(self.own(record).expect("the record of another memtable"))
    }

    /// The first eight bytes of a record's key as a big-endian number, missing ones as zero. Where two of them
    /// differ they order as the keys do, so most comparisons need no more.
    ///
    /// # Panics
    /// As [`Records::key`].
    #[must_use]
    pub fn head(&self, record: RecordRef) -> u64 {
        memtide_base::key::head(self.key(record))
    }
}

/// The order of one memtable's user keys, as a program keeps it.
///
/// # What the memtable around it does
/// It calls `insert` for a key only after `find` said that the key is absent, so each key comes once. It keeps
/// readers out while `insert` runs, and nothing else: a slow insert delays readers. Nothing is ever removed.
/// Versions, deletes, snapshots and range tombstones are not seen here.
///
/// # What is believed
/// Nothing. A reference of another memtable, a key out of order, a `find` that names another key, a panic, a
/// walk from end to end that lacks keys, more memory than promised: each retires the index for good. Its
/// memtable answers from the order of arrival then, sorted when asked: rightly, but slower, and the next batch
/// gets a new memtable. A read that relied on the index before that fails once instead of missing something. What
/// only the index can know, a `find` or a range that leaves out a key, is not noticed before the table is walked
/// from end to end, as every flush does.
///
/// The conformance suite of `testkit` is the executable form of this contract.
///
/// Calls must return, and must not use the database they are called from.
pub trait CustomIndex: Send + Sync {
    /// Adds a key that is absent, by the record that brings it; `hash` is the hash of the key.
    fn insert(&mut self, records: &Records<'_>, new: RecordRef, hash: u64);

    /// The smallest key from a bound on.
    fn first_from(&self, records: &Records<'_>, from: Bound<&[u8]>) -> Option<RecordRef>;

    /// The largest key up to a bound.
    fn last_to(&self, records: &Records<'_>, to: Bound<&[u8]>) -> Option<RecordRef>;

    /// This very key, if it is there; `hash` is its hash, as `insert` was given.
    fn find(&self, records: &Records<'_>, key: &[u8], _hash: u64) -> Option<RecordRef> {
        self.first_from(records, Bound::Included(key)).filter(|&at| records.key(at) == key)
    }

    /// Bytes the index holds on the heap, not less than it does; its own struct is counted by the memtable.
    fn heap_bytes(&self) -> u64;

    /// The most bytes it holds on the heap at any moment while so many further keys come. Asked before the
    /// inserts, when the limit and the budget may still refuse them; `heap_bytes` must stay within it.
    fn heap_bytes_after(&self, keys: u64) -> u64;
}

/// Makes the index of each new memtable, and names the type.
pub trait MemtableFactory: Send + Sync + 'static {
    /// The name, the same for ever: it is stored with every keyspace that has this type. See
    /// [`MemtableChoice::is_name`](crate::MemtableChoice::is_name).
    fn name(&self) -> &str;

    /// An empty index.
    fn create(&self, hints: &IndexHints) -> Box<dyn CustomIndex>;

    /// What its operations cost; shown to users.
    fn descriptor(&self) -> Descriptor {
        let cost = Cost::Logarithmic;
        Descriptor { insert: cost, get: cost, seek: cost, step: cost }
    }
}

/// What is known of a memtable when its index is made.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct IndexHints {
    /// The memtable's limit in bytes, keys, values and index together.
    pub bytes_max: u64,
    /// A seed that belongs to the database: the same at each replay, unknown to who writes the keys.
    pub seed: u64,
}
