//! A hash table of records that grows by one bucket at a time and whose readers never wait: a split-ordered
//! list (Shalev and Shavit 2006) under buckets added one by one as in linear hashing (Litwin 1980).
//!
//! ```text
//! list          bucket 0 -> node -> node -> bucket 2 -> bucket 1 -> node -> bucket 3 -> node
//! order         000..       0010..  0101..  010..       100..       1011..  110..       1110..
//!
//! buckets       0..16   16..20  20..24  24..28  28..32  32..40  40..48 ...
//! segment       0       1       2       3       4       5       6          words in the arena
//!
//! link word     h                       h + 1
//! of a node     next item of the list   order: 32 bits of the key's hash, reversed
//! of a bucket   next item of the list   (its one word; the order is its number, reversed)
//!
//! link          0                       1 ..= 0xEFFF_FFFF       0xF000_0000 ..= 0xFFFF_FFFF
//!               the end                 ref of a node           a bucket, by its number
//! ```
//!
//! Each node is the record that brought a distinct user key in. One list holds all nodes, sorted by their
//! hashes read from the lowest bit up. So the hashes that share their low bits lie side by side, and a bucket
//! is a way into the list in front of those whose low bits are its number. When the load passes its bound one
//! more bucket is linked into the share of its parent, the number without its highest bit: nothing moves,
//! nothing is copied, no insert pays for a rehash, and at most a fifth of the buckets is carved ahead.
//!
//! Invariants
//! - Items of the list never change their order and never leave it; a bucket stands before the nodes of its
//!   order. So a reader that came in by any ancestor of its bucket, because it saw an old number of buckets,
//!   meets all it would have met, after some strangers.
//! - A link is stored Release after the item it leads to has its own; whoever reaches an item may go on.
//! - Buckets below `buckets` are linked.
//!
//! One writer at a time, beside any number of readers; a lookup takes no lock, repeats nothing and ends at the
//! first item behind its key's order. Several writers would need a compare-exchange in `enter` that goes on
//! from the same place when it fails, and an owner for each segment.
//!
//! The highest links name buckets, so no node may lie in the arena's last GiB: `bytes_max` sees to it.
//!
//! Used by `hash_linked_list` and `hash_skiplist`.

use memtide_base::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::arena::{Arena, Ref, Slab, word_of};
use crate::contract::{BatchShape, LookupKey};
use crate::warm;

/// Buckets of the first segment.
const FIRST: u64 = 1 << FIRST_BITS;
const FIRST_BITS: u32 = 4;
/// Segments between a power of two and the next.
const STEPS: u64 = 4;
/// Buckets never become more.
const BUCKETS_MAX: u64 = 1 << 28;
const SEGMENTS: usize = 1 + 24 * 4;
const _: () = assert!(SEGMENTS as u64 == 1 + 24 * STEPS, "24 doublings of the first segment");
/// Links from here on name buckets.
const BUCKET_LINKS: u32 = 0xF000_0000;
const _: () = assert!(BUCKET_LINKS as u64 + BUCKETS_MAX == 1 << 32, "each bucket has its link");
/// A table that holds more, or is to take more at once, takes nothing. The arena's last segment begins at 8 GiB and
/// is entered by a batch no larger than this while no more than this is reserved, so it ends below 15 GiB.
const ARENA_BYTES_MAX: u64 = 7 << 30;
/// More than any arena grants.
const REFUSED: u64 = 1 << 62;
/// Link words that a table needs in front of a node.
pub(crate) const LINK_WORDS: u32 = 2;

/// The table: where its segments are and how far it has grown.
#[derive(Debug)]
pub(crate) struct Buckets {
    segments: [AtomicU32; SEGMENTS],
    /// How many are linked into the list.
    buckets: AtomicU64,
    keys: AtomicU64,
    /// The first of the [`LINK_WORDS`].
    link: u32,
    /// Keys for each four buckets before one more is added.
    load: u64,
}

/// What a link leads to.
#[derive(Clone, Copy, Debug)]
enum Item {
    Node(Ref),
    Bucket(u64),
}

/// Where an item belongs that is not in the list: between the word `before` and what it leads to.
struct Gap<'a> {
    before: &'a AtomicU32,
    after: u32,
}

/// A search on its way.
struct Search<'a> {
    place: u64,
    /// The word that leads on.
    before: &'a AtomicU32,
    /// The node that it led to, which was asked for.
    next: Option<Ref>,
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
    pub(crate) fn bytes_max(&self, arena: &Arena, shape: &BatchShape) -> u64 {
        if shape.entries == 0 {
            return 0;
        }
        let keys = self.keys.load(Ordering::Relaxed) + shape.entries;
        let planned = if cfg!(plant = "hash_skiplist_plans_for_half") { keys / 2 } else { keys };
        let needed = self.buckets_for(planned);
        let missing = |segment: &usize| self.segments[*segment].load(Ordering::Relaxed) == 0;
        let spans =
            (0..SEGMENTS).filter(missing).map(span).take_while(|&(start, _)| start < needed);
        let bytes = spans.map(|(_, len)| 4 * len).sum();
        if arena.reserved().max(shape.record_bytes + bytes) > ARENA_BYTES_MAX {
            return REFUSED;
        }
        bytes
    }

    /// Distinct keys.
    pub(crate) fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }

    /// The node of a key.
    #[inline]
    pub(crate) fn find(&self, arena: &Arena, k: &LookupKey<'_>) -> Option<Ref> {
        let start = self.bucket(arena, k.hash)?;
        let is_wanted =
            |node| cfg!(plant = "hash_skiplist_trusts_the_hash") || arena.key(node) == k.key;
        self.walk(arena, start, node_place(order_of(k.hash)), is_wanted).ok()
    }

    /// See [`crate::contract::MemIndex::warm`].
    pub(crate) fn warm(&self, arena: &Arena, keys: &[LookupKey<'_>]) {
        // Acquire pairs with the Release in `add_bucket`.
        let buckets = self.buckets.load(Ordering::Acquire);
        if buckets == 0 {
            return;
        }
        let begin = |k: LookupKey<'_>| {
            let bucket = bucket_of(kept_bits(k.hash), buckets);
            let (word, first) = self.slot_ref(arena, bucket);
            arena.prefetch(word, 0, 1);
            Search { place: node_place(order_of(k.hash)), before: first, next: None }
        };
        warm::in_lock_step(keys, begin, |search| self.hop(arena, search));
    }

    /// Goes on with a search to the next item of the list; `false` at its end.
    #[inline]
    fn hop<'a>(&self, arena: &'a Arena, search: &mut Search<'a>) -> bool {
        if let Some(node) = search.next {
            if self.place(arena, Item::Node(node)) >= search.place {
                return false;
            }
            search.before = arena.link(node, self.link);
        }
        // Acquire pairs with the Release in `enter`.
        search.next = match Item::of(search.before.load(Ordering::Acquire)) {
            None => return false,
            Some(Item::Bucket(bucket)) if bucket_place(bucket) > search.place => return false,
            Some(Item::Bucket(bucket)) => {
                let (word, first) = self.slot_ref(arena, bucket);
                arena.prefetch(word, 0, 1);
                search.before = first;
                None
            }
            Some(Item::Node(node)) => {
                arena.prefetch(node, self.link + LINK_WORDS, 1);
                Some(node)
            }
        };
        true
    }

    /// Links the node of a key that is not in the table.
    pub(crate) fn link(&self, arena: &Arena, slab: &mut Slab<'_>, node: Ref, hash: u64) {
        let keys = self.keys.fetch_add(1, Ordering::Relaxed) + 1;
        for new in self.buckets.load(Ordering::Relaxed)..self.buckets_for(keys) {
            self.add_bucket(arena, slab, new);
        }
        // Relaxed: `enter` publishes it with the node.
        arena.link(node, self.link + 1).store(order_of(hash), Ordering::Relaxed);
        let start = self.bucket(arena, hash).expect("the first key brought the first buckets");
        self.enter(arena, start, Item::Node(node));
    }

    fn add_bucket(&self, arena: &Arena, slab: &mut Slab<'_>, new: u64) {
        let segment = segment_of(new);
        if span(segment).0 == new {
            let len = u32::try_from(span(segment).1).expect("below 2^28");
            // Release pairs with the Acquire in `slot`.
            self.segments[segment].store(word_of(Some(slab.words(len))), Ordering::Release);
        }
        if cfg!(plant = "hash_skiplist_counts_a_bucket_early") {
            self.buckets.store(new + 1, Ordering::Release);
        }
        // Bucket 0 begins the list.
        if new > 0 {
            let parent = new - (1 << new.ilog2());
            self.enter(arena, self.slot(arena, parent), Item::Bucket(new));
        }
        // Release pairs with the Acquire in `bucket`.
        self.buckets.store(new + 1, Ordering::Release);
    }

    /// Links `item` at its place, which lies behind the word `start`.
    fn enter(&self, arena: &Arena, start: &AtomicU32, item: Item) {
        let Err(gap) = self.walk(arena, start, self.place(arena, item), |_| false) else {
            unreachable!("no node was wanted");
        };
        // Relaxed: nobody knows the item before the store behind this one.
        self.next(arena, item).store(gap.after, Ordering::Relaxed);
        // Release pairs with the Acquire in `walk`.
        gap.before.store(item.word(), Ordering::Release);
    }

    /// The node at `place` that is wanted, or the gap behind all items up to that place. `start` is a word
    /// before it.
    #[inline]
    fn walk<'a>(
        &self,
        arena: &'a Arena,
        start: &'a AtomicU32,
        place: u64,
        mut is_wanted: impl FnMut(Ref) -> bool,
    ) -> Result<Ref, Gap<'a>> {
        let mut before = start;
        loop {
            // Acquire pairs with the Release in `enter`.
            let after = before.load(Ordering::Acquire);
            let Some(item) = Item::of(after) else { return Err(Gap { before, after }) };
            let there = self.place(arena, item);
            if there > place {
                return Err(Gap { before, after });
            }
            match item {
                Item::Node(node) if there == place && is_wanted(node) => return Ok(node),
                _ => before = self.next(arena, item),
            }
        }
    }

    /// Buckets that a number of keys calls for.
    fn buckets_for(&self, keys: u64) -> u64 {
        (keys * 4).div_ceil(self.load).clamp(FIRST, BUCKETS_MAX)
    }

    /// The word of the bucket of `hash`; `None` while the table is empty.
    #[inline]
    fn bucket<'a>(&self, arena: &'a Arena, hash: u64) -> Option<&'a AtomicU32> {
        // Acquire pairs with the Release in `add_bucket`.
        let buckets = self.buckets.load(Ordering::Acquire);
        (buckets > 0).then(|| self.slot(arena, bucket_of(kept_bits(hash), buckets)))
    }

    #[inline]
    fn slot<'a>(&self, arena: &'a Arena, bucket: u64) -> &'a AtomicU32 {
        self.slot_ref(arena, bucket).1
    }

    #[inline]
    fn slot_ref<'a>(&self, arena: &'a Arena, bucket: u64) -> (Ref, &'a AtomicU32) {
        let segment = segment_of(bucket);
        // Acquire pairs with the Release in `add_bucket`.
        let words = self.segments[segment].load(Ordering::Acquire);
        debug_assert_ne!(words, 0, "segments are carved before their buckets");
        let inner = u32::try_from(bucket - span(segment).0).expect("below 2^28");
        let word = Ref::from_word(words + inner).expect("refs count words");
        (word, &arena.words(word, 1)[0])
    }

    #[inline]
    fn next<'a>(&self, arena: &'a Arena, item: Item) -> &'a AtomicU32 {
        match item {
            Item::Node(node) => arena.link(node, self.link),
            Item::Bucket(bucket) => self.slot(arena, bucket),
        }
    }

    #[inline]
    fn order(&self, arena: &Arena, node: Ref) -> u32 {
        // Relaxed: whoever has the node had it from an Acquire load behind the Release in `enter`.
        arena.link(node, self.link + 1).load(Ordering::Relaxed)
    }

    /// Items are sorted by their places; only nodes whose keys share all 32 bits have the same.
    #[inline]
    fn place(&self, arena: &Arena, item: Item) -> u64 {
        match item {
            Item::Node(node) => node_place(self.order(arena, node)),
            Item::Bucket(bucket) => bucket_place(bucket),
        }
    }

    /// All items behind bucket 0.
    fn items<'a>(&'a self, arena: &'a Arena) -> impl Iterator<Item = Item> + 'a {
        // Acquire pairs with the Release in `enter`.
        let follow = |word: &AtomicU32| Item::of(word.load(Ordering::Acquire));
        let first = self.bucket(arena, 0).and_then(follow);
        std::iter::successors(first, move |&item| follow(self.next(arena, item)))
    }

    /// Calls `see` once for every node, in no order that means anything: all that were linked before the call,
    /// and some of those that are linked meanwhile.
    pub(crate) fn for_each(&self, arena: &Arena, mut see: impl FnMut(Ref)) {
        for item in self.items(arena) {
            if let Item::Node(node) = item {
                see(node);
            }
        }
    }

    /// What is wrong with the table: order, buckets that are not in the list, keys twice, counts.
    pub(crate) fn check(&self, arena: &Arena) -> Result<(), String> {
        let buckets = self.buckets.load(Ordering::Acquire);
        if self.keys() > 0 && buckets != self.buckets_for(self.keys()) {
            return Err(format!("{} keys have {buckets} buckets", self.keys()));
        }
        let (mut nodes, mut linked, mut last) = (0, buckets.min(1), 0);
        for item in self.items(arena) {
            let place = self.place(arena, item);
            let is_node = matches!(item, Item::Node(_));
            if place < last || (place == last && !is_node) {
                return Err(format!("{item:?} at {place:#x} stands behind {last:#x}"));
            }
            last = place;
            match item {
                Item::Bucket(bucket) if bucket >= buckets => {
                    return Err(format!("bucket {bucket} of {buckets} is in the list"));
                }
                Item::Bucket(_) => linked += 1,
                Item::Node(node) => {
                    let (key, order) = (arena.key(node), self.order(arena, node));
                    let hash = u64::from(order.reverse_bits()) << 32;
                    if self.find(arena, &arena.lookup_key(key, hash)) != Some(node) {
                        return Err(format!("{key:?} is there twice"));
                    }
                    nodes += 1;
                }
            }
        }
        match (nodes, linked) {
            counts if counts == (self.keys(), buckets) => Ok(()),
            counts => Err(format!(
                "{} keys and {buckets} buckets were linked, the list has {counts:?}",
                self.keys()
            )),
        }
    }
}

impl Item {
    #[inline]
    fn of(link: u32) -> Option<Self> {
        if link >= BUCKET_LINKS {
            return Some(Self::Bucket(u64::from(link - BUCKET_LINKS)));
        }
        Ref::from_word(link).map(Self::Node)
    }

    /// The link that leads here.
    fn word(self) -> u32 {
        match self {
            Self::Node(node) => {
                let word = node.word();
                assert!(word < BUCKET_LINKS, "{node:?} lies where links name buckets");
                word
            }
            Self::Bucket(bucket) => {
                BUCKET_LINKS + u32::try_from(bucket).expect("buckets are below 2^28")
            }
        }
    }
}

/// The bits of a hash that the table uses.
#[inline]
fn kept_bits(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// Where a hash stands in the list: those that share their low bits are neighbours.
#[inline]
fn order_of(hash: u64) -> u32 {
    kept_bits(hash).reverse_bits()
}

#[inline]
fn node_place(order: u32) -> u64 {
    u64::from(order) << 1 | 1
}

/// Before all nodes whose hash ends as the bucket's number does.
#[inline]
fn bucket_place(bucket: u64) -> u64 {
    bucket.reverse_bits() >> 31
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
#[expect(clippy::disallowed_methods, reason = "a test's own threads are no background work")]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;
    use crate::arena::Beside;
    use crate::contract::NewEntry;
    use memtide_base::{Kind, hash};

    /// A table and its memory; key `n` is the number `n`, its hash what `hash_of` makes of that.
    struct Rig {
        arena: Arena,
        table: Buckets,
        hash_of: fn(u32) -> u64,
    }

    impl Rig {
        fn new(load: u64, hash_of: fn(u32) -> u64) -> Self {
            Self { arena: Arena::new(64 << 20), table: Buckets::new(0, load), hash_of }
        }

        fn find(&self, n: u32) -> Option<Ref> {
            let key = n.to_be_bytes();
            self.table.find(&self.arena, &LookupKey::new(&key, (self.hash_of)(n)))
        }

        /// Links a key into memory that was measured to the byte.
        fn link(&self, n: u32) -> Ref {
            let (key, hash) = (n.to_be_bytes(), (self.hash_of)(n));
            let shape = BatchShape { entries: 1, record_bytes: 20, ..BatchShape::default() };
            let bytes = shape.record_bytes + self.table.bytes_max(&self.arena, &shape);
            let plan = self.arena.plan(bytes, Beside::default()).expect("64 MiB hold them");
            assert!(self.arena.allocate(&plan));
            let mut slab = self.arena.slab(&plan);
            let node = slab.record(LINK_WORDS, &NewEntry::new(&key, hash, 1, Kind::Put, b""));
            self.table.link(&self.arena, &mut slab, node, hash);
            node
        }

        fn number(&self, node: Ref) -> u32 {
            u32::from_be_bytes(*self.arena.key(node).first_chunk().expect("four bytes"))
        }
    }

    fn spread(n: u32) -> u64 {
        hash::key_hash(1, &n.to_be_bytes())
    }

    /// Every tenth key has the hash of the one before.
    fn in_pairs(n: u32) -> u64 {
        spread(n - u32::from(n % 10 == 9))
    }

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
    fn every_link_leads_to_what_it_was_made_for() {
        let arena = Arena::new(4096);
        let plan = arena.plan(8, Beside::default()).expect("fits");
        assert!(arena.allocate(&plan));
        let node = arena.slab(&plan).words(1);
        assert!(matches!(Item::of(Item::Node(node).word()), Some(Item::Node(at)) if at == node));
        for bucket in [0, 1, 15, 16, BUCKETS_MAX - 1] {
            let item = Item::of(Item::Bucket(bucket).word());
            assert!(matches!(item, Some(Item::Bucket(same)) if same == bucket), "{item:?}");
        }
        assert!(Item::of(0).is_none());
        assert!(matches!(Item::of(BUCKET_LINKS - 1), Some(Item::Node(_))));
    }

    #[test]
    fn no_record_is_placed_where_links_name_buckets() {
        let (arena, table) = (Arena::new(16 << 30), Buckets::new(0, 5));
        let plan = |record_bytes| {
            let shape = BatchShape { entries: 1, record_bytes, ..BatchShape::default() };
            arena.plan(record_bytes + table.bytes_max(&arena, &shape), Beside::default())
        };
        assert!(plan(6 << 30).is_some());
        assert!(plan(8 << 30).is_none());
    }

    #[test]
    fn a_bucket_stands_before_its_nodes_and_behind_its_parents() {
        for bucket in 1..5000_u64 {
            let parent = bucket - (1 << bucket.ilog2());
            assert!(bucket_place(parent) < bucket_place(bucket));
            let hash = u32::try_from(bucket).expect("small");
            assert!(bucket_place(bucket) < node_place(hash.reverse_bits()));
            assert!(node_place((hash - 1).reverse_bits()) != bucket_place(bucket));
        }
    }

    #[test]
    fn a_table_of_any_size_finds_all_its_keys_and_takes_no_more_than_it_said() {
        let rig = Rig::new(5, in_pairs);
        for n in 0..3000 {
            assert_eq!(rig.find(n), None);
            let node = rig.link(n);
            assert_eq!(rig.find(n), Some(node));
            if n % 100 == 0 {
                assert_eq!(rig.table.check(&rig.arena), Ok(()));
            }
        }
        assert_eq!(rig.table.check(&rig.arena), Ok(()));
        assert_eq!(rig.table.buckets.load(Ordering::Relaxed), 2400);
        let mut seen = Vec::new();
        rig.table.for_each(&rig.arena, |node| seen.push(rig.number(node)));
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..3000));
    }

    /// What a reader does that loaded the number of buckets long ago.
    #[test]
    fn every_ancestor_of_a_bucket_leads_to_its_keys() {
        let rig = Rig::new(3, in_pairs);
        for n in 0..700 {
            rig.link(n);
        }
        for n in 0..700 {
            let (hash, key) = (in_pairs(n), n.to_be_bytes());
            for buckets in 1..=rig.table.buckets.load(Ordering::Relaxed) {
                let start = rig.table.slot(&rig.arena, bucket_of(kept_bits(hash), buckets));
                let is_wanted = |node| rig.arena.key(node) == key;
                let found =
                    rig.table.walk(&rig.arena, start, node_place(order_of(hash)), is_wanted);
                assert_eq!(found.ok(), rig.find(n), "key {n} by {buckets} buckets");
            }
        }
    }

    /// Readers look for what was published, and for what never comes, while the table grows under them.
    fn race(load: u64, hash_of: fn(u32) -> u64, keys: u32) {
        const READERS: u64 = 2;
        let keys = if cfg!(miri) { keys.min(120) } else { keys };
        let rig = Rig::new(load, hash_of);
        let (published, start) = (AtomicU32::new(0), Barrier::new(3));
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                for n in 0..keys {
                    rig.link(n);
                    published.store(n + 1, Ordering::Release);
                }
            });
            for reader in 0..READERS {
                let (rig, published, start) = (&rig, &published, &start);
                scope.spawn(move || {
                    start.wait();
                    for round in 0..2 * keys {
                        let known = published.load(Ordering::Acquire);
                        let dice = hash::key_hash(reader, &round.to_le_bytes());
                        let Some(n) = dice.checked_rem(u64::from(known)) else { continue };
                        let n = u32::try_from(n).expect("a key");
                        let found = rig.find(n).map(|node| rig.number(node));
                        assert_eq!(found, Some(n), "of {known} keys");
                        assert_eq!(rig.find(keys + n), None);
                        if round % (keys / 16) == 0 {
                            let mut seen = Vec::new();
                            rig.table.for_each(&rig.arena, |node| seen.push(rig.number(node)));
                            seen.sort_unstable();
                            assert!(seen.is_sorted_by(|a, b| a < b), "nothing is seen twice");
                            assert!(seen.partition_point(|&n| n < known) == known as usize);
                        }
                    }
                });
            }
        });
        assert_eq!((rig.table.keys(), rig.table.check(&rig.arena)), (u64::from(keys), Ok(())));
    }

    #[test]
    fn readers_miss_nothing_while_buckets_are_added() {
        race(6, spread, 100_000);
        race(3, spread, 100_000);
    }

    #[test]
    fn readers_miss_nothing_among_keys_of_one_hash() {
        race(3, in_pairs, 20_000);
        race(6, |n| u64::from(n % 61) << 40, 3000);
    }
}
