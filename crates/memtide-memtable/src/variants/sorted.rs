//! `sorted`: a shallow tree of sorted blocks. Least memory among the ordered variants, fastest scans.
//!
//! ```text
//! level 2            fence block: up to 64 x (head, record, child)
//! level 1      fence block   ...   fence block
//! level 0   leaf <-> leaf <-> ... <-> leaf: up to 64 x (head, newest version)
//! ```
//!
//! A fence slot holds the first key of its child: the head, a record of that key, the child block. The
//! first slot of a fence is never compared: what is below the second slot's key belongs to the first
//! child, so keys below everything need no repair of the fences. Blocks, splits and steps are
//! [`crate::leaf`]'s; `tag` is the block's level. Rising keys fill all blocks, about 12 bytes per key.
//!
//! One writer, and readers that wait for nobody: a fence only has to name the leaf of a key or one before it,
//! so a reader may see any state of it, if only the slot and the child belong together.
//!
//! Choose it when scans matter or keys rise.

use memtide_base::SeqNo;
use memtide_base::sync::atomic::{AtomicU32, Ordering};

use crate::arena::{Arena, Ref, Slab};
use crate::contract::{
    Ahead, BatchShape, Cost, Descriptor, Inserted, LookupKey, MemIndex, NewEntry, Passed, Pos,
    Seek, Walk,
};
use crate::leaf::{Block, Leaf, Leaves, Level, RECORD, TRIES, undisturbed};
use crate::warm;

const SLOTS: u32 = 64;
/// The lane of a fence block that holds the children.
const CHILD: u32 = 1;
/// 2^30 keys, more than an arena holds, make 2^25 half-full leaves, and each level divides by 32.
const FENCE_LEVELS: usize = 7;

type Fence<'a> = Block<'a, SLOTS, 2>;

/// The fence of each level from 1 on that a descent passed, with the slot it took; `None` above the root.
type Path = [Option<(Ref, usize)>; FENCE_LEVELS];

/// A search on its way: the block it comes to, and on which level that is.
struct Descent<'k> {
    k: LookupKey<'k>,
    at: Option<Ref>,
    level: usize,
}

#[derive(Debug)]
pub(crate) struct Sorted {
    root: AtomicU32,
    leaves: Leaves<SLOTS>,
    fences: [Level<SLOTS>; FENCE_LEVELS],
}

impl Sorted {
    pub(crate) fn new() -> Self {
        Self { root: AtomicU32::new(0), leaves: Leaves::default(), fences: Default::default() }
    }

    fn root(&self) -> Option<Ref> {
        Ref::from_word(self.root.load(Ordering::Acquire))
    }

    /// The leaf where `k` belongs; `pass` is told each fence on the way, its level and the slot taken.
    #[inline]
    fn descend<'a>(
        &self,
        arena: &'a Arena,
        k: &LookupKey<'_>,
        mut pass: impl FnMut(usize, Ref, usize),
    ) -> Option<Leaf<'a, SLOTS>> {
        let mut at = self.root()?;
        let levels = Fence::at(arena, at).tag() as usize;
        for level in (1..=levels).rev() {
            let fence = Fence::at(arena, at);
            let (slot, child) = child(fence, k);
            pass(level, at, slot);
            at = child;
        }
        Some(Leaf::at(arena, at))
    }

    fn leaf<'a>(&self, arena: &'a Arena, k: &LookupKey<'_>) -> Option<Leaf<'a, SLOTS>> {
        self.descend(arena, k, |_, _, _| ())
    }

    /// Makes the new block `right` known to the fences; it lies behind `left`, where `path` led.
    #[inline(never)]
    fn raise(
        &self,
        arena: &Arena,
        slab: &mut Slab<'_>,
        path: &Path,
        mut left: Ref,
        mut right: Ref,
    ) {
        for (level, (passed, counts)) in (1..).zip(path.iter().zip(&self.fences)) {
            // Head and record of a slot lie at the same place in leaves and fences.
            let named = if cfg!(plant = "sorted_fence_names_left_key") { left } else { right };
            let (head, record) = Fence::at(arena, named).low();
            let Some((fence, slot)) = *passed else {
                let (left_head, left_record) = Fence::at(arena, left).low();
                let root = Fence::carve(arena, slab, 0, level);
                let slots: [(u64, &[Ref]); 2] =
                    [(left_head, &[left_record, left]), (head, &[record, right])];
                root.begin(counts, &slots);
                root.unlock();
                self.root.store(root.place().word(), Ordering::Release);
                return;
            };
            let carve = || Fence::carve(arena, slab, 0, level);
            let fence = Fence::at(arena, fence);
            let refs = [record, right];
            counts.expect_item(true);
            let Some(added) = fence.add(counts, slot + 1, head, &refs, carve, &mut undisturbed)
            else {
                return;
            };
            added.unlock();
            (left, right) = (fence.place(), added.place());
        }
        unreachable!("{FENCE_LEVELS} levels are more than an arena can hold");
    }

    /// What is wrong with the fences: each level must name the whole level below, in order, by its keys.
    fn check_fences(&self, arena: &Arena, root: Ref) -> Result<(), String> {
        let levels = Fence::at(arena, root).tag() as usize;
        let mut leftmost = [None; FENCE_LEVELS + 1];
        leftmost[levels] = Some(root);
        for level in (1..=levels).rev() {
            leftmost[level - 1] = leftmost[level].map(|at| Fence::at(arena, at).slot(CHILD, 0));
        }
        for level in 1..=levels {
            let first =
                leftmost[level].map(|at| Fence::at(arena, at)).ok_or("a level is missing")?;
            let mut child = leftmost[level - 1].map(|at| Fence::at(arena, at));
            let mut is_first = true;
            first.check_level(&self.fences[level - 1], |fence, slot| {
                let expected =
                    child.take().ok_or_else(|| format!("level {level} has a stranger"))?;
                if fence.slot(CHILD, slot) != expected.place() || fence.tag() as usize != level {
                    return Err(format!("level {level} leaves a block out"));
                }
                let (_, low) = expected.low();
                let own = arena.key(fence.slot(RECORD, slot));
                let is_tag_right = expected.tag() as usize == level - 1;
                if !is_tag_right || (!is_first && own != arena.key(low)) {
                    return Err(format!("level {level} names {own:?}, which its child is not"));
                }
                is_first = false;
                child = expected.next();
                Ok(())
            })?;
            if child.is_some() {
                return Err(format!("level {level} ends before the level below"));
            }
        }
        if Fence::at(arena, root).next().is_some() {
            return Err("the root has a neighbour".to_owned());
        }
        match self.fences[levels..].iter().all(|level| level.blocks() == 0) {
            true => Ok(()),
            false => Err("there are blocks above the root".to_owned()),
        }
    }
}

/// Goes on with a descent by one level; `false` at its end.
fn hop(arena: &Arena, descent: &mut Descent<'_>) -> bool {
    let Some(at) = descent.at else { return false };
    if descent.level == 0 {
        Leaf::<SLOTS>::at(arena, at).prefetch_record(&descent.k);
        return false;
    }
    let (_, below) = child(Fence::at(arena, at), &descent.k);
    // Heads and refs of a leaf lie where those of a fence do.
    Fence::at(arena, below).prefetch();
    (descent.at, descent.level) = (Some(below), descent.level - 1);
    true
}

/// The slot of `fence` whose child has `k`, and that child. Where slots move too often under a reader it is
/// the first one, which never changes: from there the leaf is found by going right.
#[inline]
fn child(fence: Fence<'_>, k: &LookupKey<'_>) -> (usize, Ref) {
    for _ in 0..TRIES {
        let state = fence.state();
        let slot =
            fence.locate(k, 1..state.count()).map_or_else(|vacant| vacant - 1, |(own, _)| own);
        let child = fence.slot(CHILD, slot);
        if fence.is_still(state) {
            return (slot, child);
        }
        std::hint::spin_loop();
    }
    (0, fence.slot(CHILD, 0))
}

impl MemIndex for Sorted {
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
        let mut blocks_below = self.leaves.level().blocks();
        let mut added = self.leaves.level().new_blocks_max(shape.entries);
        let mut bytes = added * Leaf::<SLOTS>::bytes_max(0);
        for level in &self.fences {
            let blocks = level.blocks();
            // A level begins when the one below has its second block, and then names the first one too.
            let incoming = if blocks == 0 { blocks_below + added } else { added };
            if added == 0 || (blocks == 0 && incoming < 2) {
                break;
            }
            added = level.new_blocks_max(incoming);
            bytes += added * Fence::bytes_max(0);
            blocks_below = blocks;
        }
        bytes
    }

    fn insert(&self, arena: &Arena, slab: &mut Slab<'_>, entry: &NewEntry<'_>) -> Inserted {
        let mut path = Path::default();
        let mut descend = || {
            self.descend(arena, &entry.lookup(), |level, fence, slot| {
                path[level - 1] = Some((fence, slot));
            })
        };
        // Rising keys, as merges bring them, need no search; one writer, so the last leaf stays the last.
        let appended = self.leaves.last_before(arena, &entry.lookup());
        let leaf = appended.or_else(&mut descend);
        let carve = |slab: &mut Slab<'_>| Leaf::carve(arena, slab, 0, 0);
        let (inserted, added) = self.leaves.insert(arena, slab, entry, leaf, carve);
        match (leaf, added) {
            (_, None) => {}
            (None, Some(first)) => self.root.store(first.place().word(), Ordering::Release),
            (Some(leaf), Some(added)) => {
                if appended.is_some() {
                    // The fences do not know the new leaf yet, so they still lead to the one before it.
                    descend();
                }
                self.raise(arena, slab, &path, leaf.place(), added.place());
            }
        }
        inserted
    }

    fn get(&self, arena: &Arena, k: &LookupKey<'_>, below: SeqNo) -> Option<Ref> {
        Leaves::get(arena, self.leaf(arena, k)?, k, below)
    }

    fn warm_from(&self) -> u64 {
        16 << 20
    }

    fn warm(&self, arena: &Arena, keys: &[LookupKey<'_>], _ahead: Ahead) {
        let root = self.root();
        let level = root.map_or(0, |root| Fence::at(arena, root).tag() as usize);
        warm::in_lock_step(keys, |k| Descent { k, at: root, level }, |descent| hop(arena, descent));
    }

    fn seek(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, to: Seek<'_>) {
        self.leaves.seek(arena, pos, below, to, |k| self.leaf(arena, k));
    }

    fn walk(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, step: Walk) -> bool {
        Leaves::<SLOTS>::walk(arena, pos, below, step)
    }

    fn walk_ahead(
        &self,
        arena: &Arena,
        pos: &mut Pos,
        below: SeqNo,
        step: Walk,
        passed: &mut [Passed],
    ) -> usize {
        Leaves::<SLOTS>::walk_ahead(arena, pos, below, step, passed)
    }

    fn check(&self, arena: &Arena, records: u64) -> Result<(), String> {
        let found = self.leaves.check(arena)?;
        if found != records {
            return Err(format!("{records} records were inserted, the leaves hold {found}"));
        }
        self.root().map_or(Ok(()), |root| self.check_fences(arena, root))
    }
}

#[cfg(test)]
mod tests {
    use memtide_base::Kind;

    use super::*;
    use crate::variants::{model_test as model, warm_test};

    fn insert(index: &Sorted, arena: &Arena, keys: &[Vec<u8>], first_seq: SeqNo) {
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

    fn filled(keys: impl Iterator<Item = u64>) -> (Sorted, Arena) {
        let (index, arena) = (Sorted::new(), Arena::new(64 << 20));
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
    fn a_walk_ahead_ends_at_the_record_of_its_key() {
        // Heads that differ, and heads that say nothing.
        for prefix in ["", "tide/high/"] {
            warm_test::walks_end_at_the_records(&model::Rig::new(|_| Sorted::new()), prefix);
        }
    }

    #[test]
    fn rising_keys_fill_every_leaf() {
        let (index, arena) = filled(0..10_000);
        index.check(&arena, 10_000).expect("sound");
        assert_eq!(index.leaves.level().blocks(), 10_000_u64.div_ceil(64));
        assert_eq!(index.fences[0].blocks(), 157_u64.div_ceil(64));
        assert_eq!(index.fences[1].blocks(), 1);
    }

    #[test]
    fn falling_keys_leave_no_leaf_below_half() {
        let (index, arena) = filled((0..10_000).rev());
        index.check(&arena, 10_000).expect("sound");
        assert!(index.leaves.level().blocks() <= 10_000 / 32);
        assert_eq!(Fence::at(&arena, index.root().expect("not empty")).tag(), 2);
    }

    #[test]
    fn fences_cascade_to_new_roots_and_stay_in_order() {
        let (index, arena) = filled((0..150_000).map(scattered));
        index.check(&arena, 150_000).expect("sound");
        assert_eq!(Fence::at(&arena, index.root().expect("not empty")).tag(), 3);
        for number in (0..150_000).step_by(7) {
            let key = format!("{:016x}", scattered(number));
            let found = index.get(&arena, &LookupKey::new(key.as_bytes(), 0), SeqNo::MAX);
            assert_eq!(found.map(|at| arena.seq(at)), Some(number));
        }
    }

    #[test]
    fn one_bound_holds_for_batches_of_every_size_and_order() {
        for order in [|n: u64| n, |n: u64| u64::MAX - n, scattered] {
            for size in [1, 2, 33, 64, 65, 1000, 9000] {
                let (index, arena) = (Sorted::new(), Arena::new(64 << 20));
                let numbers: Vec<_> = (0..9000).map(order).collect();
                for (start, batch) in (0..).step_by(size).zip(numbers.chunks(size)) {
                    let key = |number: &u64| format!("{number:016x}").into_bytes();
                    insert(&index, &arena, &batch.iter().map(key).collect::<Vec<_>>(), start);
                }
                index.check(&arena, 9000).expect("sound");
            }
        }
    }

    #[test]
    fn a_writer_that_stops_in_the_midst_of_a_move_stops_no_reader() {
        let (index, arena) = filled((0..20_000).map(scattered));
        let mut fence = Fence::at(&arena, index.root().expect("not empty"));
        assert_eq!(fence.tag(), 2);
        fence.begin_move();
        fence = Fence::at(&arena, fence.slot(CHILD, 1));
        fence.begin_move();
        Leaf::<SLOTS>::at(&arena, fence.slot(CHILD, 3)).begin_move();
        let mut keys: Vec<_> = (0..20_000).map(|n| format!("{:016x}", scattered(n))).collect();
        for (seq, key) in (0..).zip(&keys) {
            let found = index.get(&arena, &LookupKey::new(key.as_bytes(), 0), SeqNo::MAX);
            assert_eq!(found.map(|at| arena.seq(at)), Some(seq), "{key}");
        }
        keys.sort_unstable();
        let (mut pos, mut walked) = (Pos::default(), Vec::new());
        index.seek(&arena, &mut pos, SeqNo::MAX, Seek::First);
        while let Some(at) = pos.at {
            walked.push(String::from_utf8_lossy(arena.key(at)).into_owned());
            index.walk(&arena, &mut pos, SeqNo::MAX, Walk::Next);
        }
        assert_eq!(walked, keys);
        index.seek(&arena, &mut pos, SeqNo::MAX, Seek::Last);
        while let Some(at) = pos.at {
            assert_eq!(walked.pop().as_deref().map(str::as_bytes), Some(arena.key(at)));
            index.walk(&arena, &mut pos, SeqNo::MAX, Walk::Prev);
        }
        assert_eq!(walked, [""; 0]);
    }

    #[test]
    fn a_block_that_is_not_full_asks_for_nothing() {
        let (index, arena) = filled(0..63);
        let one = BatchShape { entries: 1, ..BatchShape::default() };
        assert_eq!(index.index_bytes_max(&arena, &one), 0);
        insert(&index, &arena, &[b"z".to_vec()], 63);
        let leaf_and_root = Leaf::<SLOTS>::bytes_max(0) + Fence::bytes_max(0);
        assert_eq!(index.index_bytes_max(&arena, &one), leaf_and_root);
    }

    /// Blocks only: a record's header and link word, and what reservations round up, come on top.
    #[test]
    fn blocks_take_at_most_20_bytes_per_key_in_random_order_and_13_in_rising_order() {
        for (order, bytes_max) in [(scattered as fn(u64) -> u64, 20), (|number| number, 13)] {
            let keys = 9000;
            let (index, _arena) = filled((0..keys).map(order));
            let fences: u64 = index.fences.iter().map(Level::blocks).sum();
            let bytes = index.leaves.level().blocks() * Leaf::<SLOTS>::bytes_max(0)
                + fences * Fence::bytes_max(0);
            assert!(bytes <= keys * bytes_max, "{} B for 1000 keys", bytes * 1000 / keys);
        }
    }
}
