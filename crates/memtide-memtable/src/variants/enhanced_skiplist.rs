//! `enhanced_skiplist`: a skip list (Pugh, 1990) of fat leaves, one tower per leaf.
//!
//! ```text
//! level 2   head ------------------------> leaf ...
//! level 1   head ---------> leaf --------> leaf ...
//! level 0   leaf <-> leaf <-> leaf <-> leaf <-> ...   up to 32 x (head, newest version) each
//! front words of a leaf: its link on level 1 in word -1, on level 2 in word -2, ...
//! ```
//!
//! A search hops over about a twentieth of the nodes a plain skip list has, then looks through one leaf's
//! key heads. The first slot of a leaf is its smallest key for ever, since smaller ones belong to the leaf
//! before; only the first leaf takes keys below its first slot, and it is never compared with.
//! Leaves, splits and steps are [`crate::leaf`]'s; `tag` is the height of the leaf's tower.
//!
//! Heights come from the leaf's number, so the memory of the next leaves is known before they are made,
//! and a replay builds the same towers; the seed keeps writers from choosing which leaves are tall.
//!
//! Choose it for mixed loads.

use std::cmp::Ordering as Order;

use memtide_base::SeqNo;
use memtide_base::sync::atomic::{AtomicU32, Ordering};

use crate::arena::{Arena, Ref, Slab, word_of};
use crate::chain;
use crate::contract::{
    BatchShape, Cost, Descriptor, Inserted, LookupKey, MemIndex, NewEntry, Pos, Seek, Walk,
};
use crate::leaf::{Leaf, Leaves, RECORD};

const SLOTS: u32 = 32;
/// Levels above the leaves' own list: 4^12 leaves.
const LEVELS: u32 = 12;

/// For each level the last leaf before a key that has a tower of that height; `None` is the head.
type Splice = [Option<Ref>; LEVELS as usize];

#[derive(Debug)]
pub(crate) struct EnhancedSkiplist {
    head: [AtomicU32; LEVELS as usize],
    leaves: Leaves<SLOTS>,
    seed: u64,
}

impl EnhancedSkiplist {
    pub(crate) fn new(seed: u64) -> Self {
        Self { head: Default::default(), leaves: Leaves::default(), seed }
    }

    /// Tower height of the leaf that is made as the `number`th; the first needs none, it follows the head.
    fn height(&self, number: u64) -> u32 {
        if number == 0 {
            return 0;
        }
        // A multiplication carries upwards only, so the high half is folded down before coins are taken.
        let mixed = (number ^ self.seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let coins = (mixed ^ mixed >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 32;
        // A quarter of the leaves of each level reach the next one.
        (coins.trailing_zeros() / 2).min(LEVELS)
    }

    fn link<'a>(&'a self, arena: &'a Arena, leaf: Option<Ref>, level: u32) -> &'a AtomicU32 {
        leaf.map_or(&self.head[level as usize], |leaf| arena.link(leaf, level))
    }

    fn next(&self, arena: &Arena, leaf: Option<Ref>, level: u32) -> Option<Ref> {
        Ref::from_word(self.link(arena, leaf, level).load(Ordering::Acquire))
    }

    /// The leaf where `k` belongs. `splice` receives the towers before it, complete unless a leaf begins
    /// with `k`.
    fn find<'a>(
        &self,
        arena: &'a Arena,
        k: &LookupKey<'_>,
        splice: &mut Splice,
    ) -> Option<Leaf<'a, SLOTS>> {
        let (mut before, mut too_far) = (None, None);
        for level in (0..LEVELS).rev() {
            while let Some(next) = self.next(arena, before, level) {
                if too_far == Some(next) {
                    break;
                }
                let leaf = Leaf::at(arena, next);
                match leaf.cmp_low(k) {
                    Order::Less => before = Some(next),
                    Order::Equal => return Some(leaf),
                    Order::Greater => {
                        too_far = Some(next);
                        break;
                    }
                }
            }
            splice[level as usize] = before;
        }
        let mut leaf = match before {
            Some(before) => Leaf::at(arena, before),
            None => self.leaves.first(arena)?,
        };
        while let Some(next) = leaf.next() {
            if too_far == Some(next.place()) || next.cmp_low(k) == Order::Greater {
                break;
            }
            leaf = next;
        }
        Some(leaf)
    }

    fn leaf<'a>(&self, arena: &'a Arena, k: &LookupKey<'_>) -> Option<Leaf<'a, SLOTS>> {
        self.find(arena, k, &mut Splice::default())
    }

    /// What is wrong with the towers: each level must have its leaves, each once, in order.
    fn check_towers(&self, arena: &Arena) -> Result<(), String> {
        for level in 0..LEVELS {
            let mut tower = self.next(arena, None, level);
            let mut leaf = self.leaves.first(arena);
            while let Some(at) = leaf {
                if at.tag() > level {
                    if tower != Some(at.place()) {
                        return Err(format!("a leaf is not linked on level {level}"));
                    }
                    tower = self.next(arena, tower, level);
                }
                leaf = at.next();
            }
            if tower.is_some() {
                return Err(format!("level {level} has a link too many"));
            }
        }
        Ok(())
    }
}

impl MemIndex for EnhancedSkiplist {
    fn descriptor(&self) -> Descriptor {
        Descriptor {
            insert: Cost::Logarithmic,
            get: Cost::Logarithmic,
            seek: Cost::Logarithmic,
            step: Cost::Constant,
        }
    }

    fn link_words(&self, _hash: u64) -> u32 {
        1
    }

    fn index_bytes_max(&self, _arena: &Arena, shape: &BatchShape) -> u64 {
        let leaves = self.leaves.level().blocks();
        let added = self.leaves.level().new_blocks_max(shape.entries);
        let numbers = leaves..leaves + added;
        numbers.map(|number| Leaf::<SLOTS>::bytes_max(self.height(number))).sum()
    }

    fn insert(&self, arena: &Arena, slab: &mut Slab<'_>, entry: &NewEntry<'_>) -> Inserted {
        let mut splice = Splice::default();
        let leaf = self.find(arena, &entry.lookup(), &mut splice);
        let height = self.height(self.leaves.level().blocks());
        let (inserted, added) = self.leaves.insert(arena, slab, entry, leaf, height);
        // The key was new, so the splice is complete; and nothing lies between its leaf and the added one.
        if let Some(added) = added.map(Leaf::place) {
            for (level, before) in (0..height).zip(splice) {
                let next = word_of(self.next(arena, before, level));
                arena.link(added, level).store(next, Ordering::Relaxed);
                self.link(arena, before, level).store(added.word(), Ordering::Release);
            }
        }
        inserted
    }

    fn get(&self, arena: &Arena, k: &LookupKey<'_>, below: SeqNo) -> Option<Ref> {
        let leaf = self.leaf(arena, k)?;
        let index = leaf.locate(k, 0).ok()?;
        chain::newest_below(arena, Some(leaf.slot(RECORD, index)), below)
    }

    fn seek(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, to: Seek<'_>) {
        self.leaves.seek(arena, pos, below, to, |k| self.leaf(arena, k));
    }

    fn walk(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, step: Walk) -> bool {
        self.leaves.walk(arena, pos, below, step, |k| self.leaf(arena, k))
    }

    fn check(&self, arena: &Arena, records: u64) -> Result<(), String> {
        let found = self.leaves.check(arena)?;
        if found != records {
            return Err(format!("{records} records were inserted, the leaves hold {found}"));
        }
        self.check_towers(arena)
    }
}

#[cfg(test)]
mod tests {
    use memtide_base::Kind;

    use super::*;

    fn insert(index: &EnhancedSkiplist, arena: &Arena, keys: &[Vec<u8>], first_seq: SeqNo) {
        let records: u64 =
            keys.iter().map(|key| 4 + crate::record::record_bytes(key.len(), 64)).sum();
        let shape = BatchShape { entries: keys.len() as u64, ..BatchShape::default() };
        let plan = arena
            .plan(
                records + index.index_bytes_max(arena, &shape) + 8,
                crate::arena::Beside::default(),
            )
            .expect("it fits");
        assert!(arena.allocate(&plan));
        let mut slab = arena.slab(&plan);
        for (seq, key) in (first_seq..).zip(keys) {
            let entry = NewEntry::new(key, 0, seq, Kind::Put, &[7; 64]);
            assert_eq!(index.insert(arena, &mut slab, &entry), Inserted::NewKey);
        }
    }

    fn filled(keys: impl Iterator<Item = u64>) -> (EnhancedSkiplist, Arena) {
        let (index, arena) = (EnhancedSkiplist::new(3), Arena::new(64 << 20));
        for (seq, number) in (0..).zip(keys) {
            insert(&index, &arena, &[format!("{number:016x}").into_bytes()], seq);
        }
        (index, arena)
    }

    /// Random order (a 64-bit mix, Stafford, 2011). A single multiplication would spread the keys so evenly
    /// that all leaves divide at the same time.
    fn scattered(number: u64) -> u64 {
        let mixed = (number ^ number >> 30).wrapping_add(1).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    #[test]
    fn rising_keys_fill_every_leaf() {
        let (index, arena) = filled(0..10_000);
        index.check(&arena, 10_000).expect("sound");
        assert_eq!(index.leaves.level().blocks(), 10_000_u64.div_ceil(32));
    }

    #[test]
    fn keys_in_any_order_are_found_and_their_leaves_stay_half_full() {
        for order in [|n: u64| u64::MAX - n, scattered] {
            let (index, arena) = filled((0..30_000).map(order));
            index.check(&arena, 30_000).expect("sound");
            assert!(index.leaves.level().blocks() <= 30_000 / 16 + 1);
            for number in (0..30_000).step_by(7) {
                let key = format!("{:016x}", order(number));
                let found = index.get(&arena, &LookupKey::new(key.as_bytes(), 0), SeqNo::MAX);
                assert_eq!(found.map(|at| arena.seq(at)), Some(number));
            }
        }
    }

    #[test]
    fn a_quarter_of_the_towers_of_each_level_reach_the_next_whatever_the_stride() {
        for seed in [0, 1, 0x4D65_6D74_6964_6531, u64::MAX] {
            let index = EnhancedSkiplist::new(seed);
            for stride in [1, 2, 3, 4, 16, 64] {
                let reach = |level| {
                    let numbers = (1..=20_000).map(|number| number * stride);
                    numbers.filter(|&number| index.height(number) > level).count()
                };
                let levels = [reach(0), reach(1), reach(2)];
                let expected = [4700..5300, 1100..1400, 240..390];
                for (found, range) in levels.iter().zip(expected) {
                    assert!(range.contains(found), "seed {seed}, stride {stride}: {levels:?}");
                }
            }
        }
    }

    #[test]
    fn one_bound_holds_for_batches_of_every_size_and_order() {
        for order in [|n: u64| n, |n: u64| u64::MAX - n, scattered] {
            for size in [1, 2, 17, 32, 33, 1000, 9000] {
                let (index, arena) = (EnhancedSkiplist::new(size as u64), Arena::new(64 << 20));
                let numbers: Vec<_> = (0..9000).map(order).collect();
                for (start, batch) in (0..).step_by(size).zip(numbers.chunks(size)) {
                    let key = |number: &u64| format!("{number:016x}").into_bytes();
                    insert(&index, &arena, &batch.iter().map(key).collect::<Vec<_>>(), start);
                }
                index.check(&arena, 9000).expect("sound");
            }
        }
    }

    /// Blocks only: a record's header and link word, and what reservations round up, come on top.
    #[test]
    fn leaves_take_at_most_20_bytes_per_key_in_random_order_and_13_in_rising_order() {
        for (order, bytes_max) in [(scattered as fn(u64) -> u64, 20), (|number| number, 13)] {
            let keys = 9000;
            let (index, _arena) = filled((0..keys).map(order));
            let numbers = 0..index.leaves.level().blocks();
            let bytes: u64 =
                numbers.map(|number| Leaf::<SLOTS>::bytes_max(index.height(number))).sum();
            assert!(bytes <= keys * bytes_max, "{} B for 1000 keys", bytes * 1000 / keys);
        }
    }
}
