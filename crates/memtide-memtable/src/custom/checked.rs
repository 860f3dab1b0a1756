//! A [`CustomIndex`] as a [`MemIndex`]: what it answers is checked, and it can be done without.
//!
//! ```text
//! link word   0       1
//! of a node   older   the node that arrived before
//! ```
//!
//! A *node* is the record that brought a key in, as in `skl`; later versions hang from its `older` word. The
//! program's index orders nodes. All nodes are also linked in the order of their arrival, so nothing that was
//! inserted depends on the index alone.
//!
//! # Retired
//! An index that is caught at a wrong answer is dropped, and the order of arrival, sorted on demand
//! (`crate::view`), takes its place: gets and seeks are right from then on. What was read before cannot be
//! taken back, so a walk that began on the index ends as broken off. The table refuses the next batch as if it
//! were full, and a new one begins with a new index.
//!
//! # Soundness
//! Only references that carry this table's number are followed, and those were handed out for whole records of
//! its arena, so no answer makes anything else be read.
//!
//! # Locks
//! `state` is held for reading during a read and a version's insert, for writing while a key is inserted and
//! while the index is retired. The program's code runs under it and under the writer's lock, no other. `heap`
//! is a leaf.

use std::fmt;
use std::ops::Bound;

use memtide_base::SeqNo;
use memtide_base::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use memtide_base::sync::{Arc, Mutex, RwLock, unique_number};

use super::asked::{Asked, Fault, Way, call};
use super::{CustomIndex, IndexHints, MemtableFactory, Records};
use crate::arena::{Arena, Ref, Slab};
use crate::chain;
use crate::contract::{
    BatchShape, Cost, Descriptor, Inserted, LookupKey, MemIndex, NewEntry, Pos, Seek, Walk,
};
use crate::meter::{HeapMeter, Metered};
use crate::view::{self, LatestView, View};
use crate::{skl, view_cursor};

/// Link word of a node that names the one that arrived before.
const ARRIVED: u32 = 1;
const LINK_WORDS: u32 = 2;
/// More than any arena has: what a retired index asks for, and the most that a program's claim counts.
const TOO_MUCH: u64 = 1 << 40;

/// A program's index, believed nothing.
pub(crate) struct Checked {
    table: u64,
    descriptor: Descriptor,
    state: RwLock<State>,
    /// The node that arrived last.
    last_arrived: AtomicU32,
    /// Nodes.
    keys: AtomicU64,
    /// Nodes and later versions.
    records: AtomicU64,
    /// Heap bytes of the empty index, its own struct included.
    empty_bytes: u64,
    heap: Mutex<Heap>,
    meter: Arc<HeapMeter>,
}

enum State {
    Trusted(Box<dyn CustomIndex>),
    Retired { fault: Fault, latest: LatestView },
}

/// The account of the program's heap, above what the empty index had.
#[derive(Debug, Default)]
struct Heap {
    held: Option<Metered>,
    /// On top, while a reservation lives.
    pledged: Option<Metered>,
}

impl Heap {
    fn bytes(&self) -> u64 {
        self.held.iter().chain(&self.pledged).map(Metered::bytes).sum()
    }
}

impl Checked {
    pub(crate) fn new(
        factory: &dyn MemtableFactory,
        hints: &IndexHints,
        meter: &Arc<HeapMeter>,
    ) -> Self {
        let made = call("create", || {
            let index = factory.create(hints);
            let bytes = claimed_bytes(&*index, |index| index.heap_bytes());
            (index, bytes, factory.descriptor())
        });
        let sort = Cost::SortOnDemand;
        let sorting = Descriptor { insert: sort, get: sort, seek: sort, step: Cost::Constant };
        let (state, empty_bytes, descriptor) = match made {
            Ok((index, bytes, descriptor)) => (State::Trusted(index), bytes, descriptor),
            Err(fault) => (State::Retired { fault, latest: LatestView::default() }, 0, sorting),
        };
        Self {
            table: unique_number(),
            descriptor,
            state: RwLock::new(state),
            last_arrived: AtomicU32::new(0),
            keys: AtomicU64::new(0),
            records: AtomicU64::new(0),
            empty_bytes,
            heap: Mutex::default(),
            meter: Arc::clone(meter),
        }
    }

    fn ask<'a>(&self, index: &'a dyn CustomIndex, arena: &'a Arena) -> Asked<'a> {
        Asked { index, arena, records: Records::new(arena, self.table) }
    }

    /// Puts the order of arrival in the index's place.
    #[cold]
    fn retire(&self, fault: Fault) {
        let retired = State::Retired { fault, latest: LatestView::default() };
        let index = {
            let mut state = self.state.write();
            match &*state {
                State::Trusted(_) => std::mem::replace(&mut *state, retired),
                State::Retired { .. } => return,
            }
        };
        // Its destructor is the program's code too; what it panics with is of no use any more.
        drop(call("drop", || drop(index)));
        self.heap.lock().held = None;
    }

    /// The nodes, the one that arrived last first.
    fn arrivals<'a>(&self, arena: &'a Arena) -> impl Iterator<Item = Ref> + use<'a> {
        let before = |at: &Ref| Ref::from_word(arena.link(*at, ARRIVED).load(Ordering::Acquire));
        let last = Ref::from_word(self.last_arrived.load(Ordering::Acquire));
        std::iter::successors(last, before)
    }

    /// Everything in order. `latest` is borrowed from the locked state, and what is inserted replaces it: nothing
    /// has come since it was built.
    fn view(&self, arena: &Arena, latest: &LatestView) -> Arc<View> {
        latest.at(arena, &self.meter, Ref::from_word(u32::MAX), |_| {
            let versions = |node| std::iter::successors(Some(node), |&at| chain::older(arena, at));
            self.arrivals(arena).flat_map(versions).collect()
        })
    }

    /// The newest version of a key below a bound, from the order of arrival.
    #[cold]
    fn get_arrived(
        &self,
        arena: &Arena,
        latest: &LatestView,
        k: &LookupKey<'_>,
        below: SeqNo,
    ) -> Option<Ref> {
        let mut pos = Pos::default();
        view_cursor::seek(arena, &mut pos, self.view(arena, latest), below, Seek::Ge(*k));
        pos.at.filter(|&at| arena.key(at) == k.key)
    }

    /// Links the entry if its key is there already; `None` if it is new.
    fn insert_version(
        &self,
        arena: &Arena,
        slab: &mut Slab<'_>,
        entry: &NewEntry<'_>,
    ) -> Result<Option<Inserted>, Fault> {
        let k = entry.lookup();
        // Held until the version is linked and counted: `retire` waits for it.
        let state = self.state.read();
        let index = match &*state {
            State::Trusted(index) => &**index,
            State::Retired { latest, .. } => {
                let at = self.get_arrived(arena, latest, &k, entry.seq.saturating_add(1));
                let is_twin = at.is_some_and(|at| arena.seq(at) == entry.seq);
                return Ok(is_twin.then_some(Inserted::Duplicate));
            }
        };
        let Some(node) = self.ask(index, arena).find(&k)? else { return Ok(None) };
        let inserted = skl::insert_version(arena, slab, entry, node);
        if inserted == Inserted::NewVersion {
            self.records.fetch_add(1, Ordering::Release);
        }
        Ok(Some(inserted))
    }

    /// Writes and links the record of a key that is new, or taken for it by the order of arrival.
    fn insert_node(&self, arena: &Arena, slab: &mut Slab<'_>, entry: &NewEntry<'_>) -> Inserted {
        let node = slab.record(LINK_WORDS, entry);
        let linked = {
            let mut state = self.state.write();
            let before = self.last_arrived.load(Ordering::Relaxed);
            arena.link(node, ARRIVED).store(before, Ordering::Relaxed);
            self.last_arrived.store(node.word(), Ordering::Release);
            self.records.fetch_add(1, Ordering::Release);
            self.keys.fetch_add(1, Ordering::Release);
            match &mut *state {
                State::Trusted(index) => {
                    let records = Records::new(arena, self.table);
                    call("insert", || index.insert(&records, records.name(node), entry.hash))
                }
                State::Retired { latest, .. } => {
                    *latest = LatestView::default();
                    return Inserted::Appended;
                }
            }
        };
        if let Err(fault) = linked {
            self.retire(fault);
        }
        Inserted::NewKey
    }

    /// What the program says of its heap, above the empty index; 0 once it is retired.
    fn heap_bytes(&self, say: impl Fn(&dyn CustomIndex) -> u64) -> Result<u64, Fault> {
        let State::Trusted(index) = &*self.state.read() else { return Ok(0) };
        let bytes = call("heap_bytes", || claimed_bytes(&**index, say))?;
        Ok(bytes.saturating_sub(self.empty_bytes))
    }

    /// As [`Checked::heap_bytes`], the most while `keys` more come.
    fn heap_bytes_after(&self, keys: u64) -> u64 {
        self.heap_bytes(|index| index.heap_bytes_after(keys)).unwrap_or_else(|fault| {
            self.retire(fault);
            0
        })
    }
}

/// The struct of an index and the heap it says it has.
fn claimed_bytes(index: &dyn CustomIndex, say: impl Fn(&dyn CustomIndex) -> u64) -> u64 {
    size_of_val(index) as u64 + say(index).min(TOO_MUCH)
}

impl MemIndex for Checked {
    fn descriptor(&self) -> Descriptor {
        self.descriptor
    }

    fn link_words(&self, _hash: u64) -> u32 {
        LINK_WORDS
    }

    fn index_bytes_max(&self, _arena: &Arena, _shape: &BatchShape) -> u64 {
        let is_retired = matches!(&*self.state.read(), State::Retired { .. });
        // One that is retired while empty takes a batch, or none could be written at all.
        if is_retired && self.records.load(Ordering::Acquire) > 0 { TOO_MUCH } else { 0 }
    }

    fn view_bytes_max(&self, records: u64) -> u64 {
        self.heap_bytes_after(records.saturating_sub(self.records.load(Ordering::Acquire)))
    }

    fn heap_bytes_empty(&self) -> u64 {
        self.empty_bytes
    }

    fn hold_heap(&self, entries: u64) -> bool {
        let wanted = self.heap_bytes_after(entries);
        let mut heap = self.heap.lock();
        heap.pledged = self.meter.try_hold(wanted.saturating_sub(heap.bytes()));
        heap.pledged.is_some()
    }

    fn settle_heap(&self) {
        let says = self.heap_bytes(|index| index.heap_bytes());
        let fault = {
            let mut heap = self.heap.lock();
            let promised = heap.bytes();
            heap.pledged = None;
            match says {
                Ok(bytes) if bytes <= promised => {
                    if heap.bytes() != bytes {
                        heap.held = None;
                        heap.held = Some(self.meter.hold(bytes));
                    }
                    return;
                }
                Ok(bytes) => format!("it holds {bytes} B of heap and promised {promised} B"),
                Err(fault) => fault,
            }
        };
        self.retire(fault);
    }

    fn insert(&self, arena: &Arena, slab: &mut Slab<'_>, entry: &NewEntry<'_>) -> Inserted {
        let known = self.insert_version(arena, slab, entry).or_else(|fault| {
            self.retire(fault);
            self.insert_version(arena, slab, entry)
        });
        let known = known.expect("a retired index is not asked");
        known.unwrap_or_else(|| self.insert_node(arena, slab, entry))
    }

    fn get(&self, arena: &Arena, k: &LookupKey<'_>, below: SeqNo) -> Option<Ref> {
        loop {
            let found = match &*self.state.read() {
                State::Trusted(index) => self.ask(&**index, arena).find(k),
                State::Retired { latest, .. } => {
                    return self.get_arrived(arena, latest, k, below);
                }
            };
            match found {
                Ok(node) => return skl::newest_version(arena, node?, below),
                Err(fault) => self.retire(fault),
            }
        }
    }

    fn span(&self, arena: &Arena) -> Option<(Ref, Ref)> {
        let by_key = |a: &Ref, b: &Ref| arena.key(*a).cmp(arena.key(*b));
        self.arrivals(arena).min_by(by_key).zip(self.arrivals(arena).max_by(by_key))
    }

    fn seek(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, to: Seek<'_>) {
        let (from, forward) = match &to {
            Seek::First => (Bound::Unbounded, true),
            Seek::Last => (Bound::Unbounded, false),
            Seek::Ge(k) => (Bound::Included(k.key), true),
            Seek::Le(k) => (Bound::Included(k.key), false),
        };
        loop {
            *pos = Pos::default();
            let placed = match &*self.state.read() {
                State::Trusted(index) => {
                    let counts = from == Bound::Unbounded;
                    let owed = counts.then(|| self.keys.load(Ordering::Acquire));
                    let mut way = Way { forward, seen: 0, owed };
                    let placed = self.ask(&**index, arena).advance(pos, below, from, &mut way);
                    way.store(pos);
                    placed
                }
                State::Retired { latest, .. } => {
                    return view_cursor::seek(arena, pos, self.view(arena, latest), below, to);
                }
            };
            match placed {
                Ok(_) => return,
                Err(fault) => self.retire(fault),
            }
        }
    }

    fn walk(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, step: Walk) -> bool {
        if pos.view.is_some() {
            return view_cursor::walk(arena, pos, below, step);
        }
        let Some(at) = pos.at else { return false };
        let moved = match &*self.state.read() {
            State::Trusted(_) if step == Walk::Older => {
                let older = Way::node(pos).and_then(|node| skl::older_version(arena, node, at));
                pos.at = older.or(pos.at);
                return older.is_some();
            }
            State::Trusted(index) => {
                let mut way = Way::load(pos, step == Walk::Next);
                let from = Bound::Excluded(arena.key(at));
                let moved = self.ask(&**index, arena).advance(pos, below, from, &mut way);
                way.store(pos);
                moved
            }
            State::Retired { fault, .. } => Err(fault.clone()),
        };
        moved.unwrap_or_else(|fault| {
            self.retire(fault);
            Way::break_off(pos);
            false
        })
    }

    fn broke_off(&self, pos: &Pos) -> bool {
        Way::is_broken(pos)
    }

    fn fault(&self) -> Option<String> {
        match &*self.state.read() {
            State::Trusted(_) => None,
            State::Retired { fault, .. } => Some(fault.clone()),
        }
    }

    fn check(&self, arena: &Arena, records: u64) -> Result<(), String> {
        let (nodes, counted) =
            (self.arrivals(arena).count() as u64, self.keys.load(Ordering::Acquire));
        if nodes != counted {
            return Err(format!("{counted} keys were inserted, {nodes} arrived"));
        }
        let counted = self.records.load(Ordering::Acquire);
        if records != counted {
            return Err(format!("{records} records were inserted, {counted} were counted"));
        }
        match &*self.state.read() {
            State::Trusted(index) => self.check_index(&**index, arena),
            State::Retired { latest, .. } => {
                view::check_order(arena, self.view(arena, latest).refs())
            }
        }
    }
}

impl Checked {
    fn check_index(&self, index: &dyn CustomIndex, arena: &Arena) -> Result<(), String> {
        let (keys, records) =
            (self.keys.load(Ordering::Acquire), self.records.load(Ordering::Acquire));
        let asked = self.ask(index, arena);
        let mut found = 0;
        for node in self.arrivals(arena) {
            found += skl::check_versions(arena, node)?;
            for forward in [true, false] {
                let key = Bound::Included(arena.key(node));
                if asked.next(key, forward)? != Some(node) {
                    return Err(format!("the index has lost {key:?}"));
                }
            }
        }
        if found != records {
            return Err(format!("{records} records were inserted, the chains hold {found}"));
        }
        for forward in [true, false] {
            let (mut seen, mut from) = (0, Bound::Unbounded);
            while let Some(node) = asked.next(from, forward)? {
                seen += 1;
                from = Bound::Excluded(arena.key(node));
            }
            if seen != keys {
                return Err(format!("{keys} keys were inserted, the index shows {seen}"));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checked")
            .field("table", &self.table)
            .field("keys", &self.keys)
            .field("fault", &self.fault())
            .finish_non_exhaustive()
    }
}
