//! The one memtable around all variants: it owns the memory, the locking and the accounts; the index it
//! holds only orders references to records.
//!
//! # Writing
//! [`Memtable::reserve`] does everything that can fail (the table's limit, the budget, the system's
//! memory); the [`Reservation`] it returns then inserts without error and gives back what it did not use.
//! Where the index inserts concurrently any number of reservations live side by side, elsewhere, and where who
//! reserves is alone by its own will, the next one waits for the last to end. Sequence numbers are no part of a
//! reservation, because they are assigned after it. What was inserted counts from the end of its reservation on.
//!
//! # Reading
//! Readers run beside the writers and wait for none of them; no writer waits for a reader, not even for the
//! sort of a variant that orders on demand. That is so for the eight; a program's own index is kept apart from its
//! readers by a lock, for one insert (`custom`). A bound given to a read must have been published before the read
//! began; then everything below it is in the table and stays.
//!
//! # Memory
//! `reserved` is every byte the table holds from the allocator: its own struct, the index, the arena's
//! segments, sorted views and range-tombstone fragments, old ones included while a reader holds them. It
//! equals what a counting allocator sees, at every moment without a running call.

use std::fmt;
use std::ops::Deref;

use memtide_base::ledger::{Account, Charge};
use memtide_base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use memtide_base::sync::{Arc, Mutex, MutexGuard};
use memtide_base::{Entry, Kind, RangeTombstone, RangeTombstones, SeqNo};

use crate::anchor::{Anchor, Learner};
use crate::arena::{Arena, Beside, Plan, Ref, Slab};
use crate::contract::{
    Ahead, BatchShape, Descriptor, Inserted, LookupKey, MemIndex, NewEntry, WARM_KEYS,
};
use crate::key_filter::KeyFilter;
use crate::meter::{HeapMeter, Metered};
use crate::options::MemtableOptions;
use crate::registry::MemtableKind;
use crate::warm::WARM_KEYS_MIN;
use crate::{record, variants};

/// Two counts of an `Arc`.
const ARC_COUNTS: u64 = 2 * size_of::<usize>() as u64;
/// Range tombstones of one table, unless one batch brings more: fragments may list each of them under each
/// other, so reading past them costs the square of their number.
const RANGE_TOMBSTONES_MAX: u64 = 256;
/// Most padding in front of what a batch carves first; what lies between nodes is in an index's bound.
const SLAB_PADDING: u64 = 8;

/// Why a reservation was refused. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The table's limit; a new table of this type takes the batch if its limit is `bytes_max` or more.
    Table {
        /// The smallest limit that takes the batch.
        bytes_max: u64,
    },
    /// The database's memory budget.
    Budget,
    /// The system has no memory.
    System,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table { bytes_max } => {
                write!(f, "the memtable is full; an empty one needs {bytes_max} B")
            }
            Self::Budget => f.write_str("the memory budget is used up"),
            Self::System => f.write_str("the system has no memory left"),
        }
    }
}

impl std::error::Error for Full {}

/// Where the bytes of a memtable are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of keys, every version counted.
    pub keys: u64,
    /// Bytes of values, every version counted.
    pub values: u64,
    /// Everything else that is in use: headers, index, links, views, the table itself.
    pub overhead: u64,
    /// Keys, values and overhead.
    pub used: u64,
    /// Bytes held from the allocator.
    pub reserved: u64,
}

/// Writes in memory, ordered by one of the eight variants.
pub struct Memtable {
    options: MemtableOptions,
    arena: Arena,
    index: Box<dyn MemIndex>,
    filter: KeyFilter,
    learner: Mutex<Learner>,
    /// Held to plan a slab, by a writer that is alone until its reservation ends; guards the arena's charge.
    planner: Mutex<Charge>,
    meter: Arc<HeapMeter>,
    range_tombstones: Mutex<RangeDeletes>,
    has_range_tombstones: AtomicBool,
    counters: Counters,
}

/// The range tombstones in insertion order and, once a reader asked, fragmented.
#[derive(Debug, Default)]
struct RangeDeletes {
    records: Vec<Ref>,
    /// For the capacity of `records`.
    metered: Option<Metered>,
    fragmented: Option<Arc<Fragmented>>,
}

/// The range tombstones of a memtable at one moment, fragmented; counted for as long as anyone holds them.
#[derive(Debug)]
pub struct Fragmented {
    tombstones: RangeTombstones,
    _metered: Metered,
}

impl Deref for Fragmented {
    type Target = RangeTombstones;

    fn deref(&self) -> &RangeTombstones {
        &self.tombstones
    }
}

#[derive(Debug, Default)]
struct Counters {
    /// Point entries and range deletes that living reservations may still insert.
    entries_in_flight: AtomicU64,
    range_deletes_in_flight: AtomicU64,
    entries: AtomicU64,
    range_deletes: AtomicU64,
    key_bytes: AtomicU64,
    value_bytes: AtomicU64,
    /// One above the largest sequence number; 0 while empty.
    seq_end: AtomicU64,
    /// The smallest sequence number; `MAX` while empty.
    first_seq: AtomicU64,
}

impl Counters {
    /// Counts what a reservation may insert. One that is alone has nobody to tell: the next one waits for its end.
    fn begin(&self, shape: &BatchShape, is_alone: bool) {
        if !is_alone {
            self.entries_in_flight.fetch_add(shape.entries, Ordering::Relaxed);
        }
        if shape.range_deletes > 0 {
            self.range_deletes_in_flight.fetch_add(shape.range_deletes, Ordering::Relaxed);
        }
    }

    /// Counts what it did insert, at its end. A locked read-modify-write costs as much as a cache hit of the next
    /// level and waits for every store before it, so there are no more of them than there must be: none where nobody
    /// else counts.
    fn end(&self, shape: &BatchShape, tally: &Tally, is_alone: bool) {
        // Release pairs with the Acquire of those who ask: what was counted is in the index.
        let add = |counter: &AtomicU64, more: u64| {
            if is_alone {
                counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Release);
            } else if more > 0 {
                counter.fetch_add(more, Ordering::Release);
            }
        };
        add(&self.key_bytes, tally.key_bytes);
        add(&self.value_bytes, tally.value_bytes);
        if self.seq_end.load(Ordering::Relaxed) < tally.seq_end {
            if is_alone {
                self.seq_end.store(tally.seq_end, Ordering::Release);
            } else {
                self.seq_end.fetch_max(tally.seq_end, Ordering::Release);
            }
        }
        if self.first_seq.load(Ordering::Relaxed) > tally.first_seq {
            self.first_seq.fetch_min(tally.first_seq, Ordering::Release);
        }
        add(&self.entries, tally.entries);
        add(&self.range_deletes, tally.range_deletes);
        if !is_alone {
            self.entries_in_flight.fetch_sub(shape.entries, Ordering::Release);
        }
        if shape.range_deletes > 0 {
            self.range_deletes_in_flight.fetch_sub(shape.range_deletes, Ordering::Release);
        }
    }
}

impl Memtable {
    /// An empty table. Costs its own few hundred bytes until the first reservation.
    #[must_use]
    pub fn new(options: &MemtableOptions) -> Arc<Self> {
        let meter = HeapMeter::new(options.ledger.empty_charge(Account::Memtables));
        let index = variants::create(options, &meter);
        let fixed = fixed_bytes(&*index);
        let mut charge = options.ledger.empty_charge(Account::Memtables);
        charge.grow_unchecked(fixed);
        let counters = Counters { first_seq: AtomicU64::new(SeqNo::MAX), ..Counters::default() };
        Arc::new(Self {
            options: options.clone(),
            arena: Arena::anchored(options.bytes_max.saturating_sub(fixed), options.anchor),
            index,
            filter: KeyFilter::new(options),
            learner: Mutex::default(),
            planner: Mutex::new(charge),
            meter,
            range_tombstones: Mutex::default(),
            has_range_tombstones: AtomicBool::new(false),
            counters,
        })
    }

    /// What orders the records.
    #[must_use]
    pub fn kind(&self) -> &MemtableKind {
        &self.options.kind
    }

    /// What the index was caught at, where a program's own is. The table answers rightly all the same, but
    /// slower, and takes no further batch.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.index.fault()
    }

    /// What this variant's operations cost.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        self.index.descriptor()
    }

    /// Adds one write to the shape of a batch meant for this table.
    pub fn measure(&self, shape: &mut BatchShape, kind: Kind, hash: u64, key: &[u8], value: &[u8]) {
        let record = record::record_bytes(key.len(), value.len());
        if kind == Kind::RangeDelete {
            shape.range_deletes += 1;
            shape.record_bytes += record;
            return;
        }
        shape.entries += 1;
        shape.record_bytes += record + 4 * u64::from(self.index.link_words(hash));
    }

    /// Takes all memory the batch can need. Waits for another reservation to end, unless the index inserts
    /// concurrently.
    ///
    /// # Errors
    /// [`Full`]; nothing has changed.
    pub fn reserve(&self, shape: &BatchShape) -> Result<Reservation<'_>, Full> {
        self.reserve_as(shape, !self.index.inserts_concurrently())
    }

    /// As [`Memtable::reserve`] for a caller that has one reservation at a time: others wait for its end whatever the
    /// index, and it pays less. While others live beside it, it is one like them.
    ///
    /// # Errors
    /// [`Full`]; nothing has changed.
    pub fn reserve_alone(&self, shape: &BatchShape) -> Result<Reservation<'_>, Full> {
        self.reserve_as(shape, true)
    }

    fn reserve_as(
        &self,
        shape: &BatchShape,
        wants_to_be_alone: bool,
    ) -> Result<Reservation<'_>, Full> {
        let mut charge = self.planner.lock();
        // Acquire pairs with the Release where a reservation ends: what is no longer in flight is in the index.
        let in_flight = self.counters.entries_in_flight.load(Ordering::Acquire);
        let batch = BatchShape { in_flight, ..*shape };
        let index_bytes = self.index.index_bytes_max(&self.arena, &batch);
        let bytes = slab_bytes(shape, index_bytes) + self.filter.bytes_to_carve();
        let full = || Full::Table { bytes_max: self.bytes_needed(shape) };
        let range_deletes_in_flight = &self.counters.range_deletes_in_flight;
        // Acquire pairs with the Release where a reservation ends, so none of its tombstones is missed.
        let tombstones_in_flight = range_deletes_in_flight.load(Ordering::Acquire);
        let tombstones = tombstones_in_flight + self.range_tombstone_count();
        let more = shape.range_deletes;
        if tombstones > 0 && more > 0 && tombstones + more > RANGE_TOMBSTONES_MAX {
            return Err(full());
        }
        let plan = self.arena.plan(bytes, self.beside(&batch)).ok_or_else(full)?;
        let heap = HeapHold::take(&*self.index, shape.entries).ok_or(Full::Budget)?;
        self.grow(&mut charge, &plan)?;
        let is_alone = wants_to_be_alone && in_flight + tombstones_in_flight == 0;
        let mut slab = if is_alone { self.arena.only_slab(&plan) } else { self.arena.slab(&plan) };
        self.filter.carve(&mut slab);
        let only = is_alone.then_some(charge);
        self.counters.begin(shape, is_alone);
        let (table, shape, tally) = (self, *shape, Tally::new());
        let entries_before = self.entry_count();
        Ok(Reservation {
            table,
            shape,
            index_bytes,
            entries_before,
            tally,
            slab,
            _heap: heap,
            only,
        })
    }

    /// What a sorted view of everything, the batch included, takes of the limit: it is built when a reader
    /// first asks for order, and must not depend on that.
    fn beside(&self, shape: &BatchShape) -> Beside {
        let before = self.entry_count() + shape.in_flight;
        let all = self.index.view_bytes_max(before + shape.entries);
        Beside { all, slab: all - self.index.view_bytes_max(before) }
    }

    /// The limit with which an empty table of this type takes the batch. An empty index may need more for a
    /// batch than this one, which has grown already.
    #[must_use]
    pub fn bytes_needed(&self, shape: &BatchShape) -> u64 {
        let index = variants::create(&self.options, &self.meter);
        let bytes = slab_bytes(shape, index.index_bytes_max(&Arena::new(0), shape));
        let view = index.view_bytes_max(shape.entries);
        let bytes = fixed_bytes(&*index) + Arena::limit_for(bytes) + view;
        KeyFilter::limit_for(&self.options, bytes)
    }

    fn grow(&self, charge: &mut Charge, plan: &Plan) -> Result<(), Full> {
        // The ledger's counts are shared with everyone; most slabs need no more memory.
        if plan.growth() == 0 {
            return Ok(());
        }
        if !charge.try_grow(plan.growth()) {
            return Err(Full::Budget);
        }
        if !self.arena.allocate(plan) {
            charge.shrink(plan.growth());
            return Err(Full::System);
        }
        Ok(())
    }

    /// The newest version of `key` with `seq < below`, deletes included, range tombstones not applied.
    /// `hash` is the key's hash under the table's seed. Does not allocate.
    #[must_use]
    pub fn get(&self, key: &[u8], hash: u64, below: SeqNo) -> Option<Entry<'_>> {
        if !self.filter.may_contain(&self.arena, hash) {
            return None;
        }
        let found = self.index.get(&self.arena, &self.arena.lookup_key(key, hash), below)?;
        Some(self.arena.entry(found))
    }

    /// Fetches into the caches what a get or an insert of each of these keys, given with their hashes, will touch;
    /// where the table is smaller than the caches, the keys are few, or the processor is not one that is
    /// known to prefetch, nothing happens. Looks at the first
    /// [`WARM_KEYS`](crate::WARM_KEYS). Changes nothing, does not allocate.
    #[inline]
    pub fn warm<'k>(&self, ahead: Ahead, keys: impl IntoIterator<Item = (&'k [u8], u64)>) {
        if Arena::PREFETCHES && self.arena.extent() >= self.index.warm_from() {
            self.warm_at_any_size(ahead, keys);
        }
    }

    /// As [`Memtable::warm`], even where it does not pay: so tests need no large table.
    pub fn warm_at_any_size<'k>(
        &self,
        ahead: Ahead,
        keys: impl IntoIterator<Item = (&'k [u8], u64)>,
    ) {
        let mut lookups = [LookupKey { key: &[], hash: 0, head: 0 }; WARM_KEYS];
        let mut count = 0;
        for (lookup, (key, hash)) in lookups.iter_mut().zip(keys) {
            *lookup = self.arena.lookup_key(key, hash);
            count += 1;
        }
        self.warm_lookups(ahead, &mut lookups[..count]);
    }

    fn warm_lookups(&self, ahead: Ahead, lookups: &mut [LookupKey<'_>]) {
        if lookups.len() < WARM_KEYS_MIN {
            return;
        }
        for lookup in &*lookups {
            self.filter.prefetch(&self.arena, lookup.hash);
        }
        let mut count = lookups.len();
        if ahead == Ahead::Get {
            // A get of a key that the filter denies goes no further.
            count = 0;
            for at in 0..lookups.len() {
                if self.filter.may_contain(&self.arena, lookups[at].hash) {
                    lookups.swap(count, at);
                    count += 1;
                }
            }
        }
        self.index.warm(&self.arena, &lookups[..count], ahead);
    }

    /// The newest range tombstone over `key` with `seq < below`.
    #[must_use]
    pub fn covering_tombstone(&self, key: &[u8], below: SeqNo) -> Option<SeqNo> {
        // Acquire pairs with the Release in `delete_range`.
        if !self.has_range_tombstones.load(Ordering::Acquire) {
            return None;
        }
        self.range_tombstones().newest_over(key, below)
    }

    /// All range tombstones, fragmented; built by the first reader after an insert, O(t log t).
    #[must_use]
    pub fn range_tombstones(&self) -> Arc<Fragmented> {
        let records = {
            let state = self.range_tombstones.lock();
            if let Some(known) = &state.fragmented {
                return Arc::clone(known);
            }
            state.records.clone()
        };
        // Outside the lock, which a writer takes to add one.
        let tombstones = RangeTombstones::new(&self.list(&records));
        let bytes = ARC_COUNTS + size_of::<Fragmented>() as u64 + tombstones.heap_bytes() as u64;
        let fragmented = Arc::new(Fragmented { tombstones, _metered: self.meter.hold(bytes) });
        let mut state = self.range_tombstones.lock();
        if state.records.len() == records.len() {
            state.fragmented = Some(Arc::clone(&fragmented));
        }
        fragmented
    }

    /// All range tombstones as they were inserted. O(t).
    #[must_use]
    pub fn range_tombstone_list(&self) -> Vec<RangeTombstone> {
        self.list(&self.range_tombstones.lock().records)
    }

    fn list(&self, records: &[Ref]) -> Vec<RangeTombstone> {
        let each = |at: &Ref| {
            let entry = self.arena.entry(*at);
            RangeTombstone::new(entry.key, entry.value, entry.seq)
        };
        records.iter().map(each).collect()
    }

    /// Whether a write with this number can be inserted: records count from the first one, 34 bits far.
    #[must_use]
    pub fn reaches(&self, seq: SeqNo) -> bool {
        self.first_seq().is_none_or(|first| seq.abs_diff(first) < record::SEQ_REACH)
    }

    /// What the keys inserted so far begin with, for the next table of their keyspace; this table's own anchor
    /// until enough of them were looked at.
    #[must_use]
    pub fn learned_anchor(&self) -> Anchor {
        self.learner.lock().learned().unwrap_or(self.options.anchor)
    }

    /// Point entries inserted, every version counted.
    #[must_use]
    pub fn entry_count(&self) -> u64 {
        self.counters.entries.load(Ordering::Acquire)
    }

    /// Bytes that one entry takes on average, without the index, as if a batch were inserted already.
    #[must_use]
    pub fn mean_entry_bytes(&self, batch: &BatchShape) -> u64 {
        let [keys, values] = [&self.counters.key_bytes, &self.counters.value_bytes]
            .map(|bytes| bytes.load(Ordering::Relaxed));
        let entries = self.entry_count() + batch.entries;
        (keys + values + batch.record_bytes) / entries.max(1)
    }

    /// Range tombstones inserted.
    #[must_use]
    pub fn range_tombstone_count(&self) -> u64 {
        self.counters.range_deletes.load(Ordering::Acquire)
    }

    /// Whether nothing was inserted yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entry_count() == 0 && self.range_tombstone_count() == 0
    }

    /// The smallest sequence number inserted.
    #[must_use]
    pub fn first_seq(&self) -> Option<SeqNo> {
        (!self.is_empty()).then(|| self.counters.first_seq.load(Ordering::Acquire))
    }

    /// Says that the table also holds what is left of writes from `first` on: a merge of older tables.
    pub fn stands_for_writes_from(&self, first: SeqNo) {
        self.counters.first_seq.fetch_min(first, Ordering::Release);
    }

    /// One above the largest sequence number inserted; 0 while empty.
    #[must_use]
    pub fn seq_end(&self) -> SeqNo {
        self.counters.seq_end.load(Ordering::Acquire)
    }

    /// Where the table's bytes are.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let fixed = fixed_bytes(&*self.index) + self.meter.bytes();
        let keys = self.counters.key_bytes.load(Ordering::Relaxed);
        let values = self.counters.value_bytes.load(Ordering::Relaxed);
        let used = fixed + self.arena.used();
        let reserved = fixed + self.arena.reserved();
        Usage { keys, values, overhead: used.saturating_sub(keys + values), used, reserved }
    }

    /// The limit on [`Usage::reserved`], one sorted view of a variant that orders on demand included. Older
    /// views that cursors still hold, and the bookkeeping of range tombstones, come on top.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.arena.limit() + fixed_bytes(&*self.index)
    }

    /// Lets the table take `more` bytes than it was made for. What was sized for its limit, its key filter and some
    /// indexes, is not made larger: worth while where the entries are few for their bytes.
    pub fn raise_limit(&self, more: u64) {
        let _planner = self.planner.lock();
        self.arena.raise_limit(more);
    }

    /// Bytes the table reserves before anything is inserted.
    #[must_use]
    pub fn bytes_empty(&self) -> u64 {
        fixed_bytes(&*self.index)
    }

    /// Asserts the variant's own structure and the order of everything in it. O(n log n); for tests and
    /// debugging.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        let usage = self.usage();
        if usage.used > usage.reserved {
            return Err(format!("{usage:?} does not add up"));
        }
        let (fixed, arena) = (fixed_bytes(&*self.index), self.arena.reserved());
        if arena > self.bytes_max().saturating_sub(fixed) {
            return Err(format!("{fixed} B and {arena} B are beyond {} B", self.bytes_max()));
        }
        self.index.check(&self.arena, self.entry_count())
    }

    pub(crate) fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Runs one read step of the index.
    pub(crate) fn read<R>(&self, step: impl FnOnce(&dyn MemIndex, &Arena) -> R) -> R {
        step(&*self.index, &self.arena)
    }
}

impl fmt::Debug for Memtable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memtable")
            .field("kind", &self.options.kind)
            .field("entries", &self.entry_count())
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

/// The right and the memory to insert one batch.
#[derive(Debug)]
pub struct Reservation<'m> {
    table: &'m Memtable,
    shape: BatchShape,
    /// What the index may take before the first insert; 0 once it did.
    index_bytes: u64,
    entries_before: u64,
    tally: Tally,
    slab: Slab<'m>,
    _heap: HeapHold<'m>,
    /// Keeps others out where the index takes one writer, or its caller said it is the only one; dropped last.
    only: Option<MutexGuard<'m, Charge>>,
}

/// What one reservation inserted.
#[derive(Debug)]
struct Tally {
    entries: u64,
    range_deletes: u64,
    key_bytes: u64,
    value_bytes: u64,
    seq_end: SeqNo,
    first_seq: SeqNo,
}

impl Tally {
    fn new() -> Self {
        Self {
            entries: 0,
            range_deletes: 0,
            key_bytes: 0,
            value_bytes: 0,
            seq_end: 0,
            first_seq: SeqNo::MAX,
        }
    }

    fn note(&mut self, seq: SeqNo, key_len: usize, value_len: usize) {
        self.key_bytes += key_len as u64;
        self.value_bytes += value_len as u64;
        self.seq_end = self.seq_end.max(seq.saturating_add(1));
        self.first_seq = self.first_seq.min(seq);
    }
}

/// Heap that the inserts of a reservation may take; what they did not is given back at its end.
#[derive(Debug)]
struct HeapHold<'m>(&'m dyn MemIndex);

impl<'m> HeapHold<'m> {
    fn take(index: &'m dyn MemIndex, entries: u64) -> Option<Self> {
        index.hold_heap(entries).then_some(Self(index))
    }
}

impl Drop for HeapHold<'_> {
    fn drop(&mut self) {
        self.0.settle_heap();
    }
}

impl Reservation<'_> {
    /// As [`Memtable::warm`] for inserts of these keys.
    #[inline]
    pub fn warm<'k>(&self, keys: impl IntoIterator<Item = (&'k [u8], u64)>) {
        self.table.warm(Ahead::Insert, keys);
    }

    /// Inserts a point write that was measured for this reservation. Cannot fail.
    ///
    /// # Panics
    /// If more is inserted than was measured, or if `kind` is a range delete.
    pub fn insert(
        &mut self,
        kind: Kind,
        hash: u64,
        key: &[u8],
        value: &[u8],
        seq: SeqNo,
    ) -> Inserted {
        assert_ne!(kind, Kind::RangeDelete, "range deletes go through delete_range");
        let table = self.table;
        let head = table.arena.head_of(key);
        let entry = NewEntry { key, hash, head, seq, kind, value };
        table.filter.insert(&table.arena, hash, self.only.is_some());
        let index_bytes = std::mem::take(&mut self.index_bytes);
        if index_bytes > 0 {
            table.index.provide(&table.arena, &mut self.slab, index_bytes);
        }
        let inserted = table.index.insert(&table.arena, &mut self.slab, &entry);
        if inserted != Inserted::Duplicate {
            if Learner::wants(self.entries_before + self.tally.entries) {
                table.learner.lock().note(key);
            }
            self.tally.note(seq, key.len(), value.len());
            self.tally.entries += 1;
        }
        inserted
    }

    /// Inserts a range tombstone that was measured for this reservation; an empty `end` is unbounded.
    ///
    /// # Panics
    /// If more is inserted than was measured.
    pub fn delete_range(&mut self, start: &[u8], end: &[u8], seq: SeqNo) {
        let table = self.table;
        let (head, kind) = (table.arena.head_of(start), Kind::RangeDelete);
        let entry = NewEntry { key: start, hash: 0, head, seq, kind, value: end };
        let at = self.slab.record(0, &entry);
        {
            let mut state = table.range_tombstones.lock();
            state.records.push(at);
            state.fragmented = None;
            let bytes = (state.records.capacity() * size_of::<Ref>()) as u64;
            state.metered = None;
            state.metered = Some(table.meter.hold(bytes));
        }
        self.tally.note(seq, start.len(), end.len());
        self.tally.range_deletes += 1;
        // Release pairs with the Acquire in `covering_tombstone`.
        table.has_range_tombstones.store(true, Ordering::Release);
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.table.counters.end(&self.shape, &self.tally, self.only.is_some());
    }
}

/// What a batch of this shape can take from the arena.
fn slab_bytes(shape: &BatchShape, index_bytes: u64) -> u64 {
    shape.record_bytes + index_bytes + SLAB_PADDING
}

/// Bytes of an empty table beside its arena.
fn fixed_bytes(index: &dyn MemIndex) -> u64 {
    let table = ARC_COUNTS + size_of::<Memtable>() as u64;
    let meter = ARC_COUNTS + size_of::<HeapMeter>() as u64;
    table + meter + size_of_val(index) as u64 + index.heap_bytes_empty()
}

#[cfg(test)]
mod tests {
    use memtide_base::ledger::Ledger;

    use super::*;
    use crate::kind::MemtableType;

    fn table(kind: MemtableType) -> Arc<Memtable> {
        let ledger = Ledger::new(64 << 20);
        Memtable::new(&MemtableOptions {
            kind: kind.into(),
            bytes_max: 8 << 20,
            hash_seed: 1,
            key_filter: true,
            anchor: Anchor::default(),
            ledger,
        })
    }

    /// Inserts `count` range tombstones as one batch.
    fn delete_ranges(table: &Memtable, count: u32, seq: SeqNo) -> Result<(), Full> {
        let mut shape = BatchShape::default();
        for _ in 0..count {
            table.measure(&mut shape, Kind::RangeDelete, 0, b"a", &[0; 4]);
        }
        let mut room = table.reserve(&shape)?;
        for (end, seq) in (0..count).zip(seq..) {
            room.delete_range(b"a", &(0x6200_0000 + end).to_be_bytes(), seq);
        }
        Ok(())
    }

    #[test]
    fn the_257th_range_tombstone_is_for_the_next_table() {
        for kind in MemtableType::ALL {
            let table = table(kind);
            for seq in 0..256 {
                delete_ranges(&table, 1, seq).expect("room");
            }
            let before = table.usage();
            let refused = delete_ranges(&table, 1, 256);
            assert!(matches!(refused, Err(Full::Table { .. })), "{kind}: {refused:?}");
            assert_eq!((table.range_tombstone_count(), table.usage()), (256, before), "{kind}");
            // Point writes still find room.
            let mut shape = BatchShape::default();
            table.measure(&mut shape, Kind::Put, 3, b"k", b"v");
            table.reserve(&shape).expect("room").insert(Kind::Put, 3, b"k", b"v", 257);
        }
    }

    #[test]
    fn the_smallest_table_knows_what_limit_a_batch_needs() {
        for kind in MemtableType::ALL {
            for value_len in [0, 300, 5000, 70_000, 1 << 20] {
                let options = |bytes_max| MemtableOptions {
                    kind: kind.into(),
                    bytes_max,
                    hash_seed: 1,
                    key_filter: true,
                    anchor: Anchor::default(),
                    ledger: Ledger::unlimited(),
                };
                let none = Memtable::new(&options(0));
                let mut shape = BatchShape::default();
                none.measure(&mut shape, Kind::Put, 3, b"k", &vec![0; value_len]);
                let needed = Full::Table { bytes_max: none.bytes_needed(&shape) };
                assert_eq!(none.reserve(&shape).map(drop), Err(needed), "{kind}");
                let enough = Memtable::new(&options(none.bytes_needed(&shape)));
                assert!(enough.reserve(&shape).is_ok(), "{kind}: {value_len} B");
            }
        }
    }

    /// Who wants to be alone while another lives would wait for it, which is itself here.
    #[test]
    fn who_reserves_alone_is_one_like_the_others_while_they_live() {
        for kind in MemtableType::ALL {
            let table = table(kind);
            let mut shape = BatchShape::default();
            table.measure(&mut shape, Kind::Put, 3, b"k", b"v");
            let side_by_side = table.index.inserts_concurrently();
            let mut others: Vec<_> =
                (0..3).take_while(|_| side_by_side).map(|_| table.reserve(&shape)).collect();
            let mut own = table.reserve_alone(&shape).expect("room");
            assert_eq!(own.only.is_none(), side_by_side, "{kind}");
            own.insert(Kind::Put, 3, b"own", b"v", 10);
            for (other, seq) in others.iter_mut().zip(11..) {
                let room = other.as_mut().expect("room");
                room.insert(Kind::Put, 3, &[b'k', seq], b"v", seq.into());
            }
            let inserted = 1 + others.len() as u64;
            drop((others, own));
            let mut alone = table.reserve_alone(&shape).expect("room");
            assert!(alone.only.is_some(), "{kind}");
            alone.insert(Kind::Put, 3, b"l", b"v", 20);
            drop(alone);
            assert_eq!((table.entry_count(), table.seq_end()), (inserted + 1, 21), "{kind}");
            assert_eq!(table.counters.entries_in_flight.load(Ordering::Relaxed), 0, "{kind}");
            table.check().expect("the structure holds");
        }
    }

    #[test]
    fn a_table_whose_limit_is_raised_goes_on_where_it_was_full() {
        for kind in MemtableType::ALL {
            let table = Memtable::new(&MemtableOptions {
                kind: kind.into(),
                bytes_max: 64 << 10,
                hash_seed: 1,
                key_filter: true,
                anchor: Anchor::default(),
                ledger: Ledger::unlimited(),
            });
            let fill = |from: u64| {
                let fits = |&seq: &u64| {
                    let (key, value) = (seq.to_be_bytes(), [7; 5000]);
                    let mut shape = BatchShape::default();
                    table.measure(&mut shape, Kind::Put, seq, &key, &value);
                    let room = table.reserve(&shape);
                    room.map(|mut room| room.insert(Kind::Put, seq, &key, &value, seq)).is_ok()
                };
                (from..).take_while(fits).count() as u64
            };
            let first = fill(0);
            table.raise_limit(192 << 10);
            let all = first + fill(first);
            assert!(first >= 6 && all >= 3 * first, "{kind}: {first}, then {all}");
            assert_eq!((table.bytes_max(), table.check()), (256 << 10, Ok(())), "{kind}");
            assert!(table.usage().reserved <= 256 << 10, "{kind}: {:?}", table.usage());
            let found = |&seq: &u64| table.get(&seq.to_be_bytes(), seq, all).is_some();
            assert_eq!((0..all).filter(found).count() as u64, all, "{kind}");
            let mut batch = BatchShape::default();
            assert!((5008..6000).contains(&table.mean_entry_bytes(&batch)), "{kind}");
            (0..all * 9).for_each(|at| table.measure(&mut batch, Kind::Put, at, b"k", b"v"));
            assert!(table.mean_entry_bytes(&batch) < 600, "{kind}: with many small ones");
        }
    }

    #[test]
    fn an_empty_table_takes_a_batch_of_any_number_of_range_tombstones() {
        for kind in MemtableType::ALL {
            let table = table(kind);
            delete_ranges(&table, 1000, 0).expect("an empty table");
            assert_eq!(table.range_tombstone_count(), 1000, "{kind}");
            assert_eq!(table.covering_tombstone(b"a", 1000), Some(999), "{kind}");
            assert!(delete_ranges(&table, 1, 1000).is_err(), "{kind}");
        }
    }
}
