//! The block cache: decoded, validated data blocks of all open tables, up to a number of bytes.
//!
//! Every open partition of a table has a [`Shelf`]: a slot for each of its data blocks, found by the block's place in
//! the index. A hit needs no hash, no comparison and no lock, and cannot give another block than the one asked for. (A
//! pointer beside the index entry instead of a table of pages: Graefe and others, "In-memory performance for big
//! data", 2014; Leis and others, "LeanStore", 2018.) Blocks of a closed table or partition leave with its shelf.
//!
//! Who makes room for a new block is told by two queues behind one lock, which only misses take. (S3-FIFO: Yang
//! and others, "FIFO queues are all you need for cache eviction", 2023. Use bits instead of an order among hits
//! are those of CLOCK: Corbató, 1968; counting with them: Smith, 1978.)
//!
//! ```text
//! unknown block --> probation (a 20th)  -- used twice? --> main -- used? one use less, to the end
//! known block ---------------|------------------------------^        |
//!                            +-- no? out, and known for a while      +-- no? out
//! ```
//!
//! A scan passes through probation and does not wash out what is hot. A hit counts up to `USES_MAX` and then
//! writes nothing to the slot any more, so processors share a hot block's slot.
//!
//! Invariants
//! - A slot holds a block if and only if one place in one queue names the slot; both change under the lock.
//! - The blocks in slots weigh `bytes`, never more than the capacity. A block weighs what it holds on the heap,
//!   not what it holds on disk, and its place in a queue. Readers may keep an evicted block longer.
//! - Places of closed shelves, orphans, are no more than those of blocks whenever a shelf was closed.
//!
//! The capacity may change at any time; when it shrinks, blocks leave. It is charged to the ledger by whoever makes the
//! cache, a shelf's slots with its partition. Index, filter and tombstones belong to the open table, not to the cache.

use std::collections::{BTreeMap, VecDeque};

use memtide_base::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use memtide_base::sync::{Arc, Glance, Mutex, SwapOption};

use crate::block::BlockView;

/// Uses of a block that are told apart.
const USES_MAX: u8 = 3;
/// Uses in probation that let a block stay.
const USES_TO_STAY: u8 = 2;
/// Probation's share of the capacity once the main queue has blocks to give.
const PROBATION_SHARE: u64 = 20;
/// Blocks that are spared while room is made for one, before one goes although it is in use: a bound on the time
/// under the lock.
const SPARED_MAX: usize = 256;
/// Bytes that leave in one go when the capacity shrinks.
const SHRINK_STEP: u64 = 256 << 10;
/// What a block's place in a queue costs: a queue has room for four times the places it holds at most, and as many
/// orphans may be among them as blocks.
const PLACE_BYTES: u64 = 8 * size_of::<Place>() as u64;

/// Decoded data blocks up to a number of bytes.
pub struct BlockCache {
    /// Changed, and read before a block comes in, under the lock of `queues`.
    capacity: AtomicU64,
    queues: Mutex<Queues>,
    stripes: [Counters; STRIPES],
}

/// Counters are striped by block, so that readers on different cores rarely share a line.
const STRIPES: usize = 16;

#[repr(align(128))]
#[derive(Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
}

/// The cached blocks of one open partition; they leave the cache when it is dropped.
pub struct Shelf {
    cache: Arc<BlockCache>,
    number: u64,
    /// The stripe of its first block.
    stripe: usize,
    slots: Arc<[Slot]>,
}

/// Where a data block lies while it is cached: sixteen bytes, so that a hit touches one line.
#[derive(Default)]
struct Slot {
    block: SwapOption<BlockView>,
    /// The count of evictions from probation with which the block left it; 0 for none.
    evicted: AtomicU32,
    /// Hits since it came into its queue, up to [`USES_MAX`]. A count may get lost among threads.
    uses: AtomicU8,
}

#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(size_of::<Slot>() == 16, "four slots to a cache line");

/// A place in a queue: it names the slot of a cached block.
struct Place {
    shelf: u64,
    at: usize,
}

#[derive(Default)]
struct Queues {
    /// Oldest first, as is `main`.
    probation: VecDeque<Place>,
    main: VecDeque<Place>,
    bytes: u64,
    /// Those in probation.
    probation_bytes: u64,
    /// Blocks that left probation and the cache, from 1 on.
    evictions: u32,
    orphans: usize,
    shelves: Shelves,
}

/// The open shelves by their numbers; there are as many as open partitions of tables.
#[derive(Default)]
struct Shelves {
    open: BTreeMap<u64, Shelved>,
    ever: u64,
}

/// What the queues know of an open shelf.
struct Shelved {
    slots: Arc<[Slot]>,
    blocks: usize,
    bytes: u64,
    probation_bytes: u64,
}

impl BlockCache {
    /// A cache of at most `capacity` bytes; 0 keeps nothing.
    #[must_use]
    pub fn new(capacity: u64) -> Arc<Self> {
        let capacity = AtomicU64::new(capacity);
        Arc::new(Self { capacity, queues: Mutex::default(), stripes: Default::default() })
    }

    /// A place for the blocks of one partition, which has so many. Costs [`Shelf::heap_bytes`] beside the capacity.
    #[must_use]
    pub fn shelf(self: &Arc<Self>, blocks: usize) -> Shelf {
        let slots: Arc<[Slot]> = (0..blocks).map(|_| Slot::default()).collect();
        let number = self.queues.lock().open(Arc::clone(&slots));
        #[expect(clippy::cast_possible_truncation, reason = "any bits pick a stripe")]
        let stripe = number as usize;
        Shelf { cache: Arc::clone(self), number, stripe, slots }
    }

    /// Bytes of the blocks here now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.queues.lock().bytes
    }

    /// Most bytes of blocks it keeps.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Relaxed)
    }

    /// Keeps at most `capacity` bytes from now on; what is more leaves before this returns.
    pub fn set_capacity(&self, capacity: u64) {
        let mut queues = self.queues.lock();
        self.capacity.store(capacity, Ordering::Relaxed);
        while queues.bytes > capacity {
            let mut evicted = Vec::new();
            let some = queues.bytes.saturating_sub(SHRINK_STEP).max(capacity);
            queues.make_room(0, some, &mut evicted);
            // Those who miss meanwhile come in between, and blocks are given back to the allocator behind the lock.
            drop(queues);
            drop(evicted);
            queues = self.queues.lock();
        }
    }

    /// Looks into shelves that found their block.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.stripes.iter().map(|stripe| stripe.hits.load(Ordering::Relaxed)).sum()
    }

    /// Looks into shelves that did not.
    #[must_use]
    pub fn misses(&self) -> u64 {
        self.stripes.iter().map(|stripe| stripe.misses.load(Ordering::Relaxed)).sum()
    }
}

impl std::fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlockCache({} of {} B)", self.bytes(), self.capacity())
    }
}

impl Shelf {
    /// Data block `at` of the partition, if it is here.
    #[inline]
    #[must_use]
    pub fn look(&self, at: usize) -> Option<Glance<BlockView>> {
        let slot = &self.slots[at];
        let found = slot.block.glance();
        // Tables of one block each must not all count in the same place.
        let stripe = &self.cache.stripes[self.stripe.wrapping_add(at) % STRIPES];
        // Relaxed, all: statistics, nothing is published through them.
        if found.is_none() {
            stripe.misses.fetch_add(1, Ordering::Relaxed);
        } else {
            stripe.hits.fetch_add(1, Ordering::Relaxed);
            let uses = slot.uses.load(Ordering::Relaxed);
            if uses < USES_MAX {
                slot.uses.store(uses + 1, Ordering::Relaxed);
            }
        }
        found
    }

    /// Keeps data block `at`, unless it is here or larger than the cache; others make room.
    pub fn insert(&self, at: usize, block: &Arc<BlockView>) {
        let weight = weight_of(block);
        // Given back to the allocator behind the lock.
        let mut evicted = Vec::new();
        let mut queues = self.cache.queues.lock();
        let capacity = self.cache.capacity();
        // Two readers may have missed it at the same time.
        if weight <= capacity && self.slots[at].block.glance().is_none() {
            queues.make_room(weight, capacity, &mut evicted);
            queues.enter(self.number, at, block, weight);
        }
    }

    /// Heap bytes of the slots, blocks not counted.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        // The blocks go with the slots, after the lock.
        self.cache.queues.lock().close(self.number);
    }
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shelf({} slots)", self.slots.len())
    }
}

fn weight_of(block: &BlockView) -> u64 {
    block.heap_bytes() as u64 + PLACE_BYTES
}

/// The oldest place of a queue, which gives up room that it will hardly need again.
fn pop_oldest(queue: &mut VecDeque<Place>) -> Option<Place> {
    let oldest = queue.pop_front();
    if queue.capacity() > 4 * queue.len().max(16) {
        queue.shrink_to(2 * queue.len());
    }
    oldest
}

impl Queues {
    fn open(&mut self, slots: Arc<[Slot]>) -> u64 {
        self.shelves.add(Shelved { slots, blocks: 0, bytes: 0, probation_bytes: 0 })
    }

    fn close(&mut self, shelf: u64) {
        let shelved = self.shelves.remove(shelf).expect("a shelf is open until it is dropped");
        self.bytes -= shelved.bytes;
        self.probation_bytes -= shelved.probation_bytes;
        self.orphans += shelved.blocks;
        if self.orphans > (self.probation.len() + self.main.len()) / 2 {
            for queue in [&mut self.probation, &mut self.main] {
                queue.retain(|place| self.shelves.open.contains_key(&place.shelf));
                queue.shrink_to(2 * queue.len());
            }
            self.orphans = 0;
        }
    }

    /// A block comes into its empty slot. There is room for it.
    fn enter(&mut self, shelf: u64, at: usize, block: &Arc<BlockView>, weight: u64) {
        let memory = self.memory();
        let shelved = self.shelves.get_mut(shelf).expect("a shelf is open until it is dropped");
        let slot = &shelved.slots[at];
        let evicted = slot.evicted.load(Ordering::Relaxed);
        if evicted != 0 && self.evictions.wrapping_sub(evicted) as usize <= memory {
            self.main.push_back(Place { shelf, at });
        } else {
            self.probation.push_back(Place { shelf, at });
            self.probation_bytes += weight;
            shelved.probation_bytes += weight;
        }
        self.bytes += weight;
        shelved.bytes += weight;
        shelved.blocks += 1;
        slot.uses.store(0, Ordering::Relaxed);
        slot.block.store(Some(Arc::clone(block)));
    }

    /// Evictions from probation after which a block is unknown again: three quarters of the blocks here. With as
    /// many as are here, and a tenth in probation, traces of Zipf's law hit half a point less.
    fn memory(&self) -> usize {
        (self.probation.len() + self.main.len() - self.orphans) / 4 * 3
    }

    /// Evicts until so many bytes, no more than `capacity`, fit.
    fn make_room(&mut self, wanted: u64, capacity: u64, evicted: &mut Vec<Arc<BlockView>>) {
        let mut spared = 0;
        while self.bytes + wanted > capacity {
            let may_spare = spared < SPARED_MAX;
            let from_probation =
                self.probation_bytes > capacity / PROBATION_SHARE || self.main.is_empty();
            let block = if from_probation {
                self.judge_oldest_in_probation(may_spare)
            } else {
                self.judge_oldest_in_main(may_spare)
            };
            spared += usize::from(block.is_none());
            evicted.extend(block);
        }
    }

    /// Evicts the oldest block in probation, or moves it to the main queue if it was used enough; drops an orphan.
    fn judge_oldest_in_probation(&mut self, may_spare: bool) -> Option<Arc<BlockView>> {
        let place = pop_oldest(&mut self.probation).expect("bytes are of blocks in queues");
        let Some(shelved) = self.shelves.get_mut(place.shelf) else {
            self.orphans -= 1;
            return None;
        };
        let slot = &shelved.slots[place.at];
        if may_spare && slot.uses.load(Ordering::Relaxed) >= USES_TO_STAY {
            slot.uses.store(0, Ordering::Relaxed);
            let weight = slot.block.glance().map_or(0, |block| weight_of(&block));
            self.probation_bytes -= weight;
            shelved.probation_bytes -= weight;
            self.main.push_back(place);
            return None;
        }
        self.evictions = self.evictions.wrapping_add(1).max(1);
        slot.evicted.store(self.evictions, Ordering::Relaxed);
        let (block, weight) = shelved.empty(place.at);
        self.bytes -= weight;
        self.probation_bytes -= weight;
        shelved.probation_bytes -= weight;
        Some(block)
    }

    /// Evicts the oldest block of the main queue, or sends it to the end if it was used; drops an orphan.
    fn judge_oldest_in_main(&mut self, may_spare: bool) -> Option<Arc<BlockView>> {
        let place = pop_oldest(&mut self.main)?;
        let Some(shelved) = self.shelves.get_mut(place.shelf) else {
            self.orphans -= 1;
            return None;
        };
        let uses = &shelved.slots[place.at].uses;
        if let Some(fewer) = uses.load(Ordering::Relaxed).checked_sub(1).filter(|_| may_spare) {
            uses.store(fewer, Ordering::Relaxed);
            self.main.push_back(place);
            return None;
        }
        let (block, weight) = shelved.empty(place.at);
        self.bytes -= weight;
        Some(block)
    }
}

impl Shelves {
    /// Adds a shelf under a number that none had before.
    fn add(&mut self, shelved: Shelved) -> u64 {
        self.ever += 1;
        self.open.insert(self.ever, shelved);
        self.ever
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Shelved> {
        self.open.get_mut(&number)
    }

    fn remove(&mut self, number: u64) -> Option<Shelved> {
        self.open.remove(&number)
    }
}

impl Shelved {
    /// Takes the block out of a slot; says what it weighed.
    fn empty(&mut self, at: usize) -> (Arc<BlockView>, u64) {
        let block = self.slots[at].block.take().expect("a place names a slot that holds a block");
        let weight = weight_of(&block);
        self.bytes -= weight;
        self.blocks -= 1;
        (block, weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BlockBuilder, Role};
    use memtide_base::{Entry, Kind};

    fn block(value: &[u8]) -> Arc<BlockView> {
        let (mut builder, mut bytes) = (BlockBuilder::new(Role::Data), Vec::new());
        builder.add(Entry { key: b"k", seq: 1, kind: Kind::Put, value });
        builder.finish(&mut bytes);
        let len = bytes.len();
        Arc::new(BlockView::decode(bytes.into(), len, Role::Data).expect("as built"))
    }

    /// Reads a block as a table does; whether it was here.
    fn read(shelf: &Shelf, at: usize, block: &Arc<BlockView>) -> bool {
        let hit = shelf.look(at).is_some();
        if !hit {
            shelf.insert(at, block);
        }
        hit
    }

    #[test]
    fn blocks_are_found_by_shelf_and_place_and_counted() {
        let cache = BlockCache::new(1 << 20);
        let [one, other] = [cache.shelf(2), cache.shelf(2)];
        assert!(one.look(0).is_none());
        one.insert(0, &block(b"tide"));
        assert_eq!(one.look(0).expect("just inserted").value(0), b"tide");
        assert!(one.look(1).is_none() && other.look(0).is_none());
        assert_eq!((cache.hits(), cache.misses()), (1, 3));
        assert_eq!(cache.bytes(), weight_of(&block(b"tide")));
        one.insert(0, &block(b"ebb"));
        assert_eq!(one.look(0).expect("still here").value(0), b"tide");
        assert_eq!(cache.bytes(), weight_of(&block(b"tide")), "a block is here once");
    }

    #[test]
    fn the_cache_never_outgrows_its_capacity() {
        for capacity in [0, 1, 5_000, 300_000] {
            let cache = BlockCache::new(capacity);
            let shelves = [3, 700, 900].map(|blocks| cache.shelf(blocks));
            for round in 0..3000 {
                let shelf = &shelves[round % 3];
                let at = round * 7 % shelf.slots.len();
                read(shelf, at, &block(&[7; 900][..round % 900]));
                assert!(cache.bytes() <= capacity, "{} of {capacity} B", cache.bytes());
            }
            assert_eq!(cache.bytes() > capacity / 2, capacity > 1000, "{cache:?}");
        }
    }

    #[test]
    fn a_block_larger_than_the_cache_is_not_kept_and_evicts_nothing() {
        let (small, large) = (block(b"tide"), block(&[7; 5000]));
        let cache = BlockCache::new(5000);
        let shelf = cache.shelf(2);
        shelf.insert(0, &small);
        shelf.insert(1, &large);
        assert!(shelf.look(0).is_some() && shelf.look(1).is_none());
        assert_eq!(cache.bytes(), weight_of(&small));
    }

    #[test]
    fn one_block_more_moves_a_bounded_number_of_others() {
        let block = block(&[7; 900]);
        let cache = BlockCache::new(1000 * weight_of(&block));
        let shelf = cache.shelf(1001);
        for at in 0..1000 {
            for _ in 0..3 {
                read(&shelf, at, &block);
            }
        }
        assert!(!read(&shelf, 1000, &block));
        let queues = cache.queues.lock();
        assert_eq!((queues.main.len(), queues.probation.len()), (SPARED_MAX, 1000 - SPARED_MAX));
    }

    #[test]
    fn a_scan_does_not_wash_out_what_is_hot() {
        let block = block(&[7; 900]);
        let cache = BlockCache::new(100 * weight_of(&block));
        let (hot, scanned) = (cache.shelf(50), cache.shelf(10_000));
        for at in 0..50 {
            for _ in 0..3 {
                read(&hot, at, &block);
            }
        }
        for at in 0..10_000 {
            assert!(!read(&scanned, at, &block), "nobody was here");
        }
        assert!((0..50).all(|at| read(&hot, at, &block)), "the scan took what was hot");
    }

    #[test]
    fn a_block_that_comes_back_soon_stays_and_main_lets_go_of_what_is_cold() {
        let block = block(&[7; 900]);
        let cache = BlockCache::new(100 * weight_of(&block));
        let shelf = cache.shelf(1000);
        // Forty blocks in a cycle of 140: too far apart for probation, near enough to be known.
        for round in 0..30 {
            for at in 0..40 {
                read(&shelf, at, &block);
            }
            for at in 0..100 {
                read(&shelf, 40 + (100 * round + at) % 960, &block);
            }
        }
        assert!((0..40).all(|at| read(&shelf, at, &block)), "known blocks were not kept");
        // Others are hot now; the old ones must go, or the cache would be stuck with them.
        for _ in 0..6 {
            for at in 500..590 {
                for _ in 0..3 {
                    read(&shelf, at, &block);
                }
            }
        }
        assert!((500..590).all(|at| read(&shelf, at, &block)), "what was hot once is never let go");
    }

    #[test]
    fn blocks_of_a_closed_shelf_are_given_back_with_their_places() {
        let block = block(&[7; 900]);
        let cache = BlockCache::new(100 * weight_of(&block));
        let kept = cache.shelf(10);
        (0..10).for_each(|at| kept.insert(at, &block));
        for _ in 0..100 {
            let closed = cache.shelf(60);
            (0..60).for_each(|at| closed.insert(at, &block));
            drop(closed);
            let queues = cache.queues.lock();
            let places = queues.probation.len() + queues.main.len();
            assert!(queues.orphans <= places - queues.orphans, "{} orphans", queues.orphans);
            assert_eq!(queues.bytes, 10 * weight_of(&block));
        }
        assert_eq!(Arc::strong_count(&block), 11, "a closed shelf kept blocks");
        assert!((0..10).all(|at| kept.look(at).is_some()));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test's own threads are no background work")]
    fn readers_on_many_threads_get_the_block_they_asked_for() {
        const BLOCKS: usize = 300;
        let blocks: Vec<_> =
            (0..2 * BLOCKS).map(|number| block(&number.to_le_bytes().repeat(50))).collect();
        let capacity = 150 * weight_of(&blocks[0]);
        let cache = BlockCache::new(capacity);
        let shelves = [0, BLOCKS].map(|first| (first, cache.shelf(BLOCKS)));
        std::thread::scope(|scope| {
            for thread in 1..=4_usize {
                let (cache, shelves, blocks) = (&cache, &shelves, &blocks);
                scope.spawn(move || {
                    let mut state = thread;
                    for _ in 0..20_000 {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let (first, shelf) = &shelves[state >> 40 & 1];
                        // Half of the reads want one of 16 blocks.
                        let spread = if state >> 41 & 1 == 0 { 16 } else { BLOCKS };
                        let at = (state >> 44) % spread;
                        match shelf.look(at) {
                            Some(found) => {
                                assert!(
                                    std::ptr::eq(&*found, &*blocks[first + at]),
                                    "another block"
                                );
                            }
                            None => shelf.insert(at, &blocks[first + at]),
                        }
                        if state >> 50 & 63 == 0 {
                            let passing = cache.shelf(3);
                            (0..3).for_each(|at| passing.insert(at, &blocks[at]));
                            assert!(cache.bytes() <= capacity);
                        }
                    }
                });
            }
        });
        let held: u64 = shelves
            .iter()
            .flat_map(|(_, shelf)| shelf.slots.iter())
            .filter_map(|slot| slot.block.load())
            .map(|block| weight_of(&block))
            .sum();
        assert_eq!(cache.bytes(), held);
        assert!(cache.hits() > 20_000 && cache.misses() > 1000, "{cache:?}");
    }
}
