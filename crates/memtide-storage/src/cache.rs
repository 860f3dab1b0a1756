//! The block cache: decoded, validated data blocks of all tables, by file number and offset.
//!
//! A hit needs no file handle and no decoding. A block weighs what it holds on the heap, not what it
//! holds on disk. Replacement is the CLOCK-Pro kin of `quick_cache`: one scan does not wash the cache
//! out.
//!
//! The capacity is fixed and charged to the ledger by whoever makes the cache. File numbers are never
//! reused, so blocks of removed tables need no eviction: they age out. Index, filter and tombstones
//! belong to the open table, not to the cache.

use std::hash::{BuildHasher, Hasher};

use memtide_base::sync::Arc;
use memtide_base::sync::atomic::{AtomicU64, Ordering};
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use crate::block::BlockView;

/// Names a block: file number and offset.
type Place = (u64, u64);

/// Decoded data blocks up to a fixed number of bytes.
pub struct BlockCache {
    blocks: Cache<Place, Arc<BlockView>, Weight, Spread>,
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

impl BlockCache {
    /// A cache of at most `capacity` bytes; 0 keeps nothing.
    #[must_use]
    pub fn new(capacity: u64) -> Arc<Self> {
        // An estimate that sizes the cache's own tables; a block is rarely below 4 KiB.
        let blocks = usize::try_from(capacity / 4096).unwrap_or(usize::MAX).max(1);
        let lifecycle = DefaultLifecycle::default();
        let blocks = Cache::with(blocks, capacity, Weight, Spread, lifecycle);
        Arc::new(Self { blocks, stripes: Default::default() })
    }

    /// The block at `offset` of file `number`, if it is here.
    #[inline]
    #[must_use]
    pub fn get(&self, number: u64, offset: u64) -> Option<Arc<BlockView>> {
        let found = self.blocks.get(&(number, offset));
        #[expect(clippy::cast_possible_truncation, reason = "any bits pick a stripe")]
        let stripe = &self.stripes[Spread.hash_one((number, offset)) as usize % STRIPES];
        let counter = if found.is_some() { &stripe.hits } else { &stripe.misses };
        // Relaxed: a statistic, nothing is published through it.
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Keeps a block; blocks that were not asked for lately make room.
    pub fn insert(&self, number: u64, offset: u64, block: Arc<BlockView>) {
        self.blocks.insert((number, offset), block);
    }

    /// Bytes of the blocks here now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.blocks.weight()
    }

    /// Most bytes of blocks it keeps.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.blocks.capacity()
    }

    /// Calls of [`BlockCache::get`] that found their block.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.stripes.iter().map(|stripe| stripe.hits.load(Ordering::Relaxed)).sum()
    }

    /// Calls of [`BlockCache::get`] that did not.
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

#[derive(Clone)]
struct Weight;

impl Weighter<Place, Arc<BlockView>> for Weight {
    fn weight(&self, _: &Place, block: &Arc<BlockView>) -> u64 {
        block.heap_bytes() as u64
    }
}

/// Hashes two numbers; offsets are multiples of nothing in particular, so one multiplication spreads
/// them.
#[derive(Clone)]
struct Spread;

struct SpreadHasher(u64);

impl BuildHasher for Spread {
    type Hasher = SpreadHasher;

    fn build_hasher(&self) -> SpreadHasher {
        SpreadHasher(0)
    }
}

impl Hasher for SpreadHasher {
    #[inline]
    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
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

    #[test]
    fn blocks_are_found_by_file_and_offset_and_counted() {
        let cache = BlockCache::new(1 << 20);
        assert!(cache.get(7, 0).is_none());
        cache.insert(7, 0, block(b"tide"));
        assert_eq!(cache.get(7, 0).expect("just inserted").value(0), b"tide");
        assert!(cache.get(7, 1).is_none() && cache.get(8, 0).is_none());
        assert_eq!((cache.hits(), cache.misses()), (1, 3));
        assert_eq!(cache.bytes(), block(b"tide").heap_bytes() as u64);
    }

    #[test]
    fn the_cache_never_outgrows_its_capacity() {
        for capacity in [0, 1, 5_000, 300_000] {
            let cache = BlockCache::new(capacity);
            for offset in 0..1000 {
                cache.insert(offset % 3, offset, block(&[7; 900]));
                assert!(cache.bytes() <= capacity, "{} of {capacity} B", cache.bytes());
            }
            assert_eq!(cache.bytes() > 0, capacity > 1000);
        }
    }
}
