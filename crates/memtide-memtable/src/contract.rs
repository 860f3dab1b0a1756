//! What a memtable variant is: an order over references to records.
//!
//! The [`Memtable`](crate::Memtable) around an index owns everything else: memory, records, range
//! tombstones, counters, locking. So the contract is written, and tested, once.
//!
//! # The contract
//! - **Order.** User keys ascending as `memcmp` orders them; the versions of a key newest first.
//! - **Versions.** (key, seq) is unique: a second insert of the same pair is a `Duplicate` and changes
//!   nothing. Sequence numbers may come in any order; inserts in rising order are the fast case.
//! - **Bounds.** A read below `S` sees versions with `seq < S`. What is inserted while a cursor is open is
//!   at or above its bound, so a cursor may miss it freely; it must never miss or repeat anything older.
//! - **Locking.** One `insert` runs at a time, unless the index says [`MemIndex::inserts_concurrently`], beside
//!   any number of readers, who never wait for it: every word that a reader may see is an atomic, stored Release
//!   after what it leads to and loaded Acquire. What a concurrent insert adds lies at or above every reader's
//!   bound, so a reader may miss it; it must not trip over it, nor miss or repeat anything older. Only around a
//!   program's own index (`crate::custom`) readers wait, for the insert of a key.
//! - **Memory.** An insert takes all memory from the slab, and never more than `index_bytes_max` and
//!   `link_words` promised for the batch. What readers build lies on the heap and is metered.

use std::fmt;

use memtide_base::SeqNo;
use memtide_base::seqno::SEE_ALL;
use memtide_base::sync::Arc;

use crate::arena::{Arena, Ref, Slab};
pub(crate) use crate::entry::{LookupKey, NewEntry};
use crate::view::View;
pub(crate) use crate::warm::{Ahead, WARM_KEYS};

/// How the cost of an operation grows with the number of entries `n` (key length `l`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Independent of `n`.
    Constant,
    /// O(log n).
    Logarithmic,
    /// O(l), independent of `n`.
    KeyLength,
    /// O(n), with a small constant.
    Linear,
    /// O(n log n) after inserts, nothing otherwise: a sorted view is built and kept.
    SortOnDemand,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Constant => "O(1)",
            Self::Logarithmic => "O(log n)",
            Self::KeyLength => "O(key)",
            Self::Linear => "O(n)",
            Self::SortOnDemand => "sort",
        })
    }
}

/// What a variant promises about its costs; shown to users.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// Cost of an insert.
    pub insert: Cost,
    /// Cost of a point read.
    pub get: Cost,
    /// Cost of placing a cursor.
    pub seek: Cost,
    /// Cost of a cursor's step to either side.
    pub step: Cost,
}

/// The size of a batch, as the index needs to know it to bound its own growth.
#[derive(Clone, Copy, Debug, Default)]
pub struct BatchShape {
    /// Point entries.
    pub(crate) entries: u64,
    /// Range tombstones.
    pub(crate) range_deletes: u64,
    /// Bytes of records with their link words, exact.
    pub(crate) record_bytes: u64,
    /// Point entries that others have reserved and not yet inserted; set when the table is asked.
    pub(crate) in_flight: u64,
}

/// What an insert did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The key was not there before.
    NewKey,
    /// The key has one more version.
    NewVersion,
    /// The same key and sequence number were there; nothing changed.
    Duplicate,
    /// Linked without looking whether the key was there (append-only variants).
    Appended,
}

/// Where a cursor stands inside an index. Plain words: no borrow, no lock is held between steps.
///
/// `at` is the only field the memtable reads; the rest belongs to the variant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pos {
    /// The visible version the cursor stands on.
    pub(crate) at: Option<Ref>,
    /// The variant's own.
    pub(crate) words: [u64; 3],
    /// The sorted view the cursor walks, for variants that order on demand.
    pub(crate) view: Option<Arc<View>>,
}

/// Where a seek goes; as [`memtide_base::Target`], with the key's head.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seek<'k> {
    First,
    Last,
    Ge(LookupKey<'k>),
    Le(LookupKey<'k>),
}

/// One move of a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    /// To the newest visible version of the next larger key that has one.
    Next,
    /// To the newest visible version of the next smaller key that has one.
    Prev,
    /// To the next older version of the same key.
    Older,
}

/// A key that a walk went past.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Passed {
    /// The visible version.
    pub(crate) at: Option<Ref>,
    /// What [`Walk::Older`] needs beside it of [`Pos::words`]: the first, a ref.
    pub(crate) own: Option<Ref>,
}

impl Passed {
    /// What `pos` stands on.
    pub(crate) fn by(pos: &Pos) -> Self {
        Self { at: pos.at, own: u32::try_from(pos.words[0]).ok().and_then(Ref::from_word) }
    }
}

/// The index of one memtable variant. See the module's contract.
pub(crate) trait MemIndex: Send + Sync + fmt::Debug {
    /// What this variant costs.
    fn descriptor(&self) -> Descriptor;

    /// Whether `insert` may run in many threads at once, each with a slab of its own.
    fn inserts_concurrently(&self) -> bool {
        false
    }

    /// Words in front of a record whose key has this hash; a function of the hash alone.
    fn link_words(&self, hash: u64) -> u32;

    /// Most index bytes that inserting a batch of this shape can take from the slab, alignment included, whatever
    /// the `in_flight` entries of others do meanwhile. Asked once before the inserts it bounds, under the planning
    /// lock: an index of one writer may settle here what it will do.
    fn index_bytes_max(&self, arena: &Arena, shape: &BatchShape) -> u64;

    /// Most heap bytes that a sorted view of this many records takes; 0 for variants that need none.
    fn view_bytes_max(&self, _records: u64) -> u64 {
        0
    }

    /// Takes from the slab what the index wants to have at hand, out of the `bytes` that `index_bytes_max` said for
    /// it. Called once for a reservation, before its first insert.
    fn provide(&self, _arena: &Arena, _slab: &mut Slab<'_>, _bytes: u64) {}

    /// Heap bytes of an empty index beside its own struct.
    fn heap_bytes_empty(&self) -> u64 {
        0
    }

    /// Takes from the budget what inserting so many entries may allocate on the heap; `false`, and nothing
    /// changed, if the budget refuses. For indexes whose inserts do not take everything from the slab.
    fn hold_heap(&self, _entries: u64) -> bool {
        true
    }

    /// Gives back what [`MemIndex::hold_heap`] took and the inserts did not use.
    fn settle_heap(&self) {}

    /// Writes the record into the slab and links it. Cannot fail.
    fn insert(&self, arena: &Arena, slab: &mut Slab<'_>, entry: &NewEntry<'_>) -> Inserted;

    /// The newest version of `key` with `seq < below`. Does not allocate.
    fn get(&self, arena: &Arena, key: &LookupKey<'_>, below: SeqNo) -> Option<Ref>;

    /// The size of an arena in bytes from which [`MemIndex::warm`] pays.
    fn warm_from(&self) -> u64 {
        u64::MAX
    }

    /// Fetches into the caches what a get or an insert of each of these keys, at most [`WARM_KEYS`], will touch,
    /// many misses at a time. Changes nothing, allocates nothing. See [`crate::warm`].
    fn warm(&self, _arena: &Arena, _keys: &[LookupKey<'_>], _ahead: Ahead) {}

    /// Places `pos` on the newest version below `below` of the key that `to` names; `pos.at` is `None` if
    /// no such key has one.
    fn seek(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, to: Seek<'_>);

    /// Records of the smallest and of the largest key; `None` if there are none. Never wrong.
    fn span(&self, arena: &Arena) -> Option<(Ref, Ref)> {
        let at = |to| {
            let mut pos = Pos::default();
            self.seek(arena, &mut pos, SEE_ALL, to);
            pos.at
        };
        at(Seek::First).zip(at(Seek::Last))
    }

    /// Moves `pos`, whose `at` is set. After `Next` and `Prev` that find nothing `at` is `None`. `Older`
    /// returns `false` when there is no older version, and leaves `pos` as it was.
    /// Does not allocate.
    fn walk(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, step: Walk) -> bool;

    /// As many calls of `walk` with this step, `Next` or `Prev`, as `passed` has places, or fewer, but at least one:
    /// tells what they found and how many. `pos` is left on the last; after 0 `at` is `None`. An index that goes
    /// further than one step finds older versions by what is in [`Passed`] alone.
    fn walk_ahead(
        &self,
        arena: &Arena,
        pos: &mut Pos,
        below: SeqNo,
        step: Walk,
        passed: &mut [Passed],
    ) -> usize {
        let moved = self.walk(arena, pos, below, step);
        passed[0] = Passed::by(pos);
        usize::from(moved)
    }

    /// Whether the walk that `pos` is on ended although there may be more: the index was caught at a wrong
    /// answer, and who read from it before may have missed something.
    fn broke_off(&self, _pos: &Pos) -> bool {
        false
    }

    /// What the index was caught at. It answers rightly all the same, but slower.
    fn fault(&self) -> Option<String> {
        None
    }

    /// Asserts the structure's own invariants: order, counts, links, chains; `records` is how many
    /// point records were inserted (duplicates not counted).
    fn check(&self, arena: &Arena, records: u64) -> Result<(), String>;
}
