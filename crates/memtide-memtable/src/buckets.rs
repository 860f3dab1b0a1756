//! A hash table of records that grows by one bucket at a time (linear hashing; Litwin 1980, Larson 1988).
//!
//! ```text
//! buckets       0..16   16..20  20..24  24..28  28..32  32..40  40..48 ...
//! segment       0       1       2       3       4       5       6          words in the arena, each 0 or
//!                                                                          the first node of its list
//! link word     h                       h + 1
//! of a node     next node of the bucket 32 bits of the key's hash
//! ```
//!
//! Each node is the record that brought a distinct user key in. When the load passes its bound the next
//! bucket in line takes its share of the one it was split from, so no insert ever pays for a rehash, nothing
//! is copied and no table dies: segments stay where they are, and at most a fifth of the buckets is carved
//! ahead. Splitting moves nodes between lists; the memtable's gate keeps readers out meanwhile.
//!
//! Used by `hash_linked_list` and `hash_skiplist`.

use memtide_base::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::arena::{Arena, Ref, Slab, word_of};
use crate::contract::{BatchShape, LookupKey};

/// Buckets of the first segment.
const FIRST: u64 = 1 << FIRST_BITS;
const FIRST_BITS: u32 = 4;
/// Segments between a power of two and the next.
const STEPS: u64 = 4;
/// Buckets never become more: the arena's 16 GiB hold few more keys.
const BUCKETS_MAX: u64 = 1 << 28;
const SEGMENTS: usize = 1 + 24 * 4;
const _: () = assert!(SEGMENTS as u64 == 1 + 24 * STEPS, "24 doublings of the first segment");
/// Link words that a table needs in front of a node.
pub(crate) const LINK_WORDS: u32 = 2;

/// The table: where its segments are and how far it has grown.
#[derive(Debug)]
pub(crate) struct Buckets {
    segments: [AtomicU32; SEGMENTS],
    buckets: AtomicU64,
    keys: AtomicU64,
    /// The first of the [`LINK_WORDS`].
    link: u32,
    /// Keys for each four buckets before one more is added.
    load: u64,
}

impl Buckets {
    /// An empty table whose nodes keep link words `link` and `link + 1` for it.
    pub(crate) fn new(link: u32, load: u64) -> Self {
        Self {
            segments: std::array::from_fn(|_| AtomicU32::new(0)),
            buckets: AtomicU64::new(0),
            keys: AtomicU64::new(0),
            link,
            load,
        }
    }

    /// Most bytes that the keys of a batch can make the table carve.
    pub(crate) fn bytes_max(&self, shape: &BatchShape) -> u64 {
        if shape.entries == 0 {
            return 0;
        }
        let keys = self.keys.load(Ordering::Relaxed) + shape.entries;
        let needed = self.buckets_for(keys);
        let missing = |segment: &usize| self.segments[*segment].load(Ordering::Relaxed) == 0;
        let spans =
            (0..SEGMENTS).filter(missing).map(span).take_while(|&(start, _)| start < needed);
        spans.map(|(_, len)| 4 * len).sum()
    }

    /// Distinct keys.
    pub(crate) fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }

    /// The node of a key.
    #[inline]
    pub(crate) fn find(&self, arena: &Arena, k: &LookupKey<'_>) -> Option<Ref> {
        let buckets = self.buckets.load(Ordering::Acquire);
        if buckets == 0 {
            return None;
        }
        let wanted = fingerprint(k.hash);
        let mut at = load(self.slot(arena, bucket_of(wanted, buckets)));
        while let Some(node) = at {
            if self.hash(arena, node) == wanted && arena.key(node) == k.key {
                return at;
            }
            at = load(self.next(arena, node));
        }
        None
    }

    /// Links the node of a key that is not in the table.
    pub(crate) fn link(&self, arena: &Arena, slab: &mut Slab<'_>, node: Ref, hash: u64) {
        let hash = fingerprint(hash);
        arena.link(node, self.link + 1).store(hash, Ordering::Relaxed);
        let keys = self.keys.fetch_add(1, Ordering::Relaxed) + 1;
        if keys == 1 {
            self.carve(slab, 0);
            self.buckets.store(FIRST, Ordering::Release);
        }
        for new in self.buckets.load(Ordering::Relaxed)..self.buckets_for(keys) {
            self.split(arena, slab, new);
        }
        let buckets = self.buckets.load(Ordering::Relaxed);
        self.push(arena, self.slot(arena, bucket_of(hash, buckets)), node);
    }

    /// Adds bucket `new` and gives it its share of the one it is split from.
    fn split(&self, arena: &Arena, slab: &mut Slab<'_>, new: u64) {
        let segment = segment_of(new);
        if span(segment).0 == new {
            self.carve(slab, segment);
        }
        let target = self.slot(arena, new);
        let mut before = self.slot(arena, new - (1 << new.ilog2()));
        self.buckets.store(new + 1, Ordering::Release);
        while let Some(node) = load(before) {
            let next = self.next(arena, node);
            if bucket_of(self.hash(arena, node), new + 1) == new {
                before.store(next.load(Ordering::Relaxed), Ordering::Release);
                self.push(arena, target, node);
            } else {
                before = next;
            }
        }
    }

    fn push(&self, arena: &Arena, slot: &AtomicU32, node: Ref) {
        self.next(arena, node).store(slot.load(Ordering::Relaxed), Ordering::Relaxed);
        slot.store(node.word(), Ordering::Release);
    }

    fn carve(&self, slab: &mut Slab<'_>, segment: usize) {
        let len = u32::try_from(span(segment).1).expect("below 2^28");
        self.segments[segment].store(word_of(Some(slab.words(len))), Ordering::Release);
    }

    /// Buckets that a number of keys calls for.
    fn buckets_for(&self, keys: u64) -> u64 {
        (keys * 4).div_ceil(self.load).clamp(FIRST, BUCKETS_MAX)
    }

    #[inline]
    fn slot<'a>(&self, arena: &'a Arena, bucket: u64) -> &'a AtomicU32 {
        let segment = segment_of(bucket);
        let words =
            load(&self.segments[segment]).expect("segments are carved before their buckets");
        let (start, len) = span(segment);
        let len = u32::try_from(len).expect("below 2^28");
        &arena.words(words, len)[usize::try_from(bucket - start).expect("below 2^28")]
    }

    #[inline]
    fn next<'a>(&self, arena: &'a Arena, node: Ref) -> &'a AtomicU32 {
        arena.link(node, self.link)
    }

    #[inline]
    fn hash(&self, arena: &Arena, node: Ref) -> u32 {
        arena.link(node, self.link + 1).load(Ordering::Acquire)
    }

    /// Calls `see` for every node, in no order.
    pub(crate) fn for_each(&self, arena: &Arena, mut see: impl FnMut(Ref)) {
        for bucket in 0..self.buckets.load(Ordering::Acquire) {
            let mut at = load(self.slot(arena, bucket));
            while let Some(node) = at {
                see(node);
                at = load(self.next(arena, node));
            }
        }
    }

    /// What is wrong with the table: nodes in the wrong bucket, keys twice, counts.
    pub(crate) fn check(&self, arena: &Arena) -> Result<(), String> {
        let (buckets, mut nodes) = (self.buckets.load(Ordering::Acquire), 0);
        if self.keys() > 0 && buckets != self.buckets_for(self.keys()) {
            return Err(format!("{} keys have {buckets} buckets", self.keys()));
        }
        for bucket in 0..buckets {
            let first = load(self.slot(arena, bucket));
            let mut at = first;
            while let Some(node) = at {
                let (key, hash) = (arena.key(node), self.hash(arena, node));
                if bucket_of(hash, buckets) != bucket {
                    return Err(format!("{key:?} is in bucket {bucket} of {buckets}"));
                }
                if self.find(arena, &LookupKey::new(key, u64::from(hash) << 32)) != at {
                    return Err(format!("bucket {bucket} has {key:?} twice"));
                }
                nodes += 1;
                at = load(self.next(arena, node));
            }
        }
        match self.keys() {
            keys if keys == nodes => Ok(()),
            keys => Err(format!("{keys} keys were linked, the buckets hold {nodes}")),
        }
    }
}

#[inline]
fn load(word: &AtomicU32) -> Option<Ref> {
    Ref::from_word(word.load(Ordering::Acquire))
}

/// The bits of a hash that a node keeps.
#[inline]
fn fingerprint(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// The bucket of a hash among `buckets`: those not split yet this round still use one bit less.
#[inline]
fn bucket_of(hash: u32, buckets: u64) -> u64 {
    let mask = buckets.next_power_of_two() - 1;
    let bucket = u64::from(hash) & mask;
    if bucket < buckets { bucket } else { bucket & mask >> 1 }
}

#[inline]
fn segment_of(bucket: u64) -> usize {
    if bucket < FIRST {
        return 0;
    }
    let bits = bucket.ilog2();
    let step = (bucket >> (bits - STEPS.ilog2())) % STEPS;
    let segment = 1 + u64::from(bits - FIRST_BITS) * STEPS + step;
    usize::try_from(segment).expect("below a hundred")
}

/// The first bucket of a segment and how many it has.
#[inline]
fn span(segment: usize) -> (u64, u64) {
    if segment == 0 {
        return (0, FIRST);
    }
    let (round, step) = ((segment as u64 - 1) / STEPS, (segment as u64 - 1) % STEPS);
    let len = (FIRST << round) / STEPS;
    ((FIRST << round) + step * len, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::NewEntry;
    use memtide_base::{Kind, hash};

    #[test]
    fn segments_cover_the_buckets_without_gap() {
        let mut end = 0;
        for segment in 0..SEGMENTS {
            let (start, len) = span(segment);
            assert_eq!(start, end);
            assert_eq!((segment_of(start), segment_of(start + len - 1)), (segment, segment));
            end = start + len;
        }
        assert_eq!(end, BUCKETS_MAX);
    }

    #[test]
    fn a_table_of_any_size_finds_all_its_keys_and_takes_no_more_than_it_said() {
        let (arena, table) = (Arena::new(1 << 20), Buckets::new(0, 5));
        for n in 0..3000_u32 {
            let key = n.to_be_bytes();
            // Every tenth key has the hash of the one before.
            let hash = hash::key_hash(1, &(n - u32::from(n % 10 == 9)).to_be_bytes());
            let shape = BatchShape { entries: 1, record_bytes: 24, ..BatchShape::default() };
            let plan = arena
                .plan(24 + table.bytes_max(&shape), crate::arena::Beside::default())
                .expect("a megabyte holds them");
            assert!(arena.allocate(&plan));
            let mut slab = arena.slab(&plan);
            assert_eq!(table.find(&arena, &LookupKey::new(&key, hash)), None);
            let node = slab.record(2, &NewEntry::new(&key, hash, 1, Kind::Put, b""));
            table.link(&arena, &mut slab, node, hash);
            assert_eq!(table.find(&arena, &LookupKey::new(&key, hash)), Some(node));
            if n % 100 == 0 {
                assert_eq!(table.check(&arena), Ok(()));
            }
        }
        assert_eq!(table.check(&arena), Ok(()));
        assert_eq!(table.buckets.load(Ordering::Relaxed), 2400);
        let mut seen = 0;
        table.for_each(&arena, |_| seen += 1);
        assert_eq!(seen, 3000);
    }
}
