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
//! Heights come from the number of the leaf, so a replay builds the same towers; the seed keeps writers from
//! choosing which leaves are tall.
//!
//! # Many writers
//! A writer locks the one leaf it changes. A tower is linked after the leaf's own list, level by level from
//! below, by compare-and-swap (Herlihy, Lev, Luchangco, Shavit, 2007); until then the leaf is found by going
//! right. Where an insert divides a full leaf depends on what others filled, so no reservation can say alone
//! how many leaves its inserts will take. Each gives what all living reservations together can still need,
//! less what is there, into a stock of spare leaves before its first insert, and every division takes from
//! the stock. So the stock covers all inserts that may still come: the reservation planned last among those
//! that began has counted them all. What is left over serves the next reservation.
//!
//! Choose it for mixed loads.

use std::cmp::Ordering as Order;

use memtide_base::SeqNo;
use memtide_base::sync::atomic::{AtomicU32, Ordering};

use crate::arena::{Arena, Ref, Slab, word_of};
use crate::contract::{
    Ahead, BatchShape, Cost, Descriptor, Inserted, LookupKey, MemIndex, NewEntry, Passed, Pos,
    Seek, Walk,
};
use crate::leaf::{Leaf, Leaves};
use crate::warm;

const SLOTS: u32 = 32;
/// Levels above the leaves' own list: 4^12 leaves.
const LEVELS: u32 = 12;

/// For each level the last leaf before a key that has a tower of that height; `None` is the head.
type Splice = [Option<Ref>; LEVELS as usize];

/// A search on its way.
struct Descent<'a, 'k> {
    k: LookupKey<'k>,
    /// Levels that are still to be searched.
    levels: u32,
    before: Option<Ref>,
    too_far: Option<Ref>,
    /// The leaf to compare with, which was asked for.
    next: Option<Leaf<'a, SLOTS>>,
    /// Where the levels led to, or a leaf behind it, which was asked for as a whole.
    home: Option<Leaf<'a, SLOTS>>,
}

impl Descent<'_, '_> {
    /// Goes on in the leaves' own list; `false` at the end.
    #[inline]
    fn hop_right(&mut self) -> bool {
        let Some(home) = self.home else { return false };
        let next = match self.next.take() {
            Some(next) if next.cmp_low(&self.k) != Order::Greater => {
                next.prefetch();
                self.home = Some(next);
                return true;
            }
            Some(_) => None,
            None => home.next().filter(|next| Some(next.place()) != self.too_far),
        };
        self.next = next;
        match next {
            Some(next) => next.prefetch_low(0),
            None => home.prefetch_record(&self.k),
        }
        next.is_some()
    }
}

#[derive(Debug)]
pub(crate) struct EnhancedSkiplist {
    head: [AtomicU32; LEVELS as usize],
    /// Levels that have a tower: a search begins below. One that sees an old number goes right for longer.
    levels: AtomicU32,
    leaves: Leaves<SLOTS>,
    spare: Spare,
    seed: u64,
}

/// Leaves that were carved and not used yet: a stack (Treiber, 1986), linked by the leaves' own `next`.
#[derive(Debug, Default)]
struct Spare {
    top: AtomicU32,
    /// How many leaves are in the stack or about to be: what a division will take is gone from here first.
    count: AtomicU32,
    /// How many leaves were ever carved.
    made: AtomicU32,
}

impl Spare {
    fn push(&self, arena: &Arena, leaf: Leaf<'_, SLOTS>) {
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            leaf.set_next(Ref::from_word(top).map(|top| Leaf::at(arena, top)));
            // Release pairs with the Acquire in `pop`: the leaf is ready.
            let pushed = self.top.compare_exchange_weak(
                top,
                leaf.place().word(),
                Ordering::Release,
                Ordering::Relaxed,
            );
            match pushed {
                Ok(_) => break,
                Err(now) => top = now,
            }
        }
        self.count.fetch_add(1, Ordering::Release);
    }

    fn pop<'a>(&self, arena: &'a Arena) -> Leaf<'a, SLOTS> {
        let mut top = self.top.load(Ordering::Acquire);
        loop {
            let leaf = Ref::from_word(top).expect("reservations provide every leaf");
            let leaf = Leaf::at(arena, leaf);
            // A leaf is pushed once. So if the top is still this leaf, what was read behind it is right.
            let next = word_of(leaf.next().map(Leaf::place));
            let popped =
                self.top.compare_exchange_weak(top, next, Ordering::Acquire, Ordering::Acquire);
            match popped {
                Ok(_) => {
                    leaf.set_next(None);
                    self.count.fetch_sub(1, Ordering::Release);
                    return leaf;
                }
                Err(now) => top = now,
            }
        }
    }
}

impl EnhancedSkiplist {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            head: Default::default(),
            levels: AtomicU32::new(0),
            leaves: Leaves::default(),
            spare: Spare::default(),
            seed,
        }
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
        // Relaxed: only a hint, the links themselves are loaded Acquire.
        for level in (0..self.levels.load(Ordering::Relaxed)).rev() {
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

    /// Goes on with a descent as [`EnhancedSkiplist::find`] does, until it meets a leaf; `false` at its end.
    #[inline]
    fn hop<'a>(&self, arena: &'a Arena, descent: &mut Descent<'a, '_>) -> bool {
        if descent.home.is_some() {
            return descent.hop_right();
        }
        if let Some(next) = descent.next.take() {
            if next.cmp_low(&descent.k) == Order::Greater {
                descent.too_far = Some(next.place());
                descent.levels -= 1;
            } else {
                descent.before = Some(next.place());
            }
        }
        while let Some(level) = descent.levels.checked_sub(1) {
            if let next @ Some(at) = self.next(arena, descent.before, level)
                && next != descent.too_far
            {
                let leaf = Leaf::at(arena, at);
                leaf.prefetch_low(level + 1);
                descent.next = Some(leaf);
                return true;
            }
            descent.levels = level;
        }
        let before = descent.before.map(|at| Leaf::at(arena, at));
        descent.home = before.or_else(|| self.leaves.first(arena)).inspect(|leaf| leaf.prefetch());
        descent.home.is_some()
    }

    fn leaf<'a>(&self, arena: &'a Arena, k: &LookupKey<'_>) -> Option<Leaf<'a, SLOTS>> {
        self.find(arena, k, &mut Splice::default())
    }

    /// Links the tower of `added`, whose first key is `low`; `splice` holds leaves before it.
    fn raise(&self, arena: &Arena, added: Leaf<'_, SLOTS>, low: &LookupKey<'_>, splice: &Splice) {
        let lowest = u32::from(cfg!(plant = "enhanced_skiplist_forgets_low_links"));
        if self.levels.load(Ordering::Relaxed) < added.tag() {
            self.levels.fetch_max(added.tag(), Ordering::Relaxed);
        }
        for (level, &before) in (0..added.tag()).zip(splice).skip(lowest as usize) {
            let mut before = before;
            loop {
                let next = self.next(arena, before, level);
                if let Some(leaf) = next
                    && Leaf::<SLOTS>::at(arena, leaf).cmp_low(low) == Order::Less
                {
                    before = next;
                    continue;
                }
                let next = word_of(next);
                arena.link(added.place(), level).store(next, Ordering::Relaxed);
                // Release pairs with the Acquire in `next`.
                let linked = self.link(arena, before, level).compare_exchange(
                    next,
                    added.place().word(),
                    Ordering::Release,
                    Ordering::Relaxed,
                );
                if linked.is_ok() {
                    break;
                }
            }
        }
    }

    /// What is wrong with the towers: each level must have its leaves, each once, in order.
    fn check_towers(&self, arena: &Arena) -> Result<(), String> {
        for level in 0..LEVELS {
            let mut tower = self.next(arena, None, level);
            let mut leaf = self.leaves.first(arena);
            while let Some(at) = leaf {
                if at.tag() > level && at.prev().is_some() {
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

    fn inserts_concurrently(&self) -> bool {
        true
    }

    fn link_words(&self, _hash: u64) -> u32 {
        1
    }

    fn index_bytes_max(&self, _arena: &Arena, shape: &BatchShape) -> u64 {
        if shape.entries == 0 {
            return 0;
        }
        // Leaves are taken from the stock before they are counted as used, so reading in this order errs to
        // the safe side only.
        let is_alone = cfg!(plant = "enhanced_skiplist_provides_for_itself");
        let others = if is_alone { 0 } else { shape.in_flight };
        let needed = self.leaves.level().new_blocks_max(shape.entries + others);
        let spare = u64::from(self.spare.count.load(Ordering::Acquire));
        needed.saturating_sub(spare) * Leaf::<SLOTS>::bytes_max(LEVELS)
    }

    fn provide(&self, arena: &Arena, slab: &mut Slab<'_>, bytes: u64) {
        for _ in 0..bytes / Leaf::<SLOTS>::bytes_max(LEVELS) {
            // Relaxed: a number is a number; the leaf is handed over by `push`.
            let number = self.spare.made.fetch_add(1, Ordering::Relaxed);
            let height = self.height(number.into());
            self.spare.push(arena, Leaf::carve(arena, slab, height, height));
        }
    }

    fn insert(&self, arena: &Arena, slab: &mut Slab<'_>, entry: &NewEntry<'_>) -> Inserted {
        let mut splice = Splice::default();
        // Rising keys need no search.
        let appended = self.leaves.last_before(arena, &entry.lookup());
        let leaf = appended.or_else(|| self.find(arena, &entry.lookup(), &mut splice));
        let pop = |_: &mut Slab<'_>| self.spare.pop(arena);
        let (inserted, added) = self.leaves.insert(arena, slab, entry, leaf, pop);
        // The first leaf follows the heads, whatever its height: its smallest key changes.
        if let Some(added) = added.filter(|added| added.tag() > 0 && added.prev().is_some()) {
            let (head, low) = added.low();
            let low = LookupKey { key: arena.key(low), hash: 0, head };
            // The key was new, so the splice is complete, and its leaves lie before the added one.
            if appended.is_some() {
                self.find(arena, &low, &mut splice);
            }
            self.raise(arena, added, &low, &splice);
        }
        inserted
    }

    fn get(&self, arena: &Arena, k: &LookupKey<'_>, below: SeqNo) -> Option<Ref> {
        Leaves::get(arena, self.leaf(arena, k)?, k, below)
    }

    fn warm_from(&self) -> u64 {
        64 << 20
    }

    fn warm(&self, arena: &Arena, keys: &[LookupKey<'_>], _ahead: Ahead) {
        let levels = self.levels.load(Ordering::Relaxed);
        let begin = |k| Descent { k, levels, before: None, too_far: None, next: None, home: None };
        warm::in_lock_step(keys, begin, |descent| self.hop(arena, descent));
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
        self.check_towers(arena)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use memtide_base::ledger::Ledger;
    use memtide_base::sync::Arc;
    use memtide_base::{Cursor, Kind, Target};

    use super::*;
    use crate::kind::MemtableType;
    use crate::memtable::{Memtable, Reservation};
    use crate::options::MemtableOptions;
    use crate::variants::{model_test as model, warm_test};

    #[test]
    fn a_walk_ahead_ends_at_the_record_of_its_key() {
        // Heads that differ, and heads that say nothing.
        for prefix in ["", "tide/high/"] {
            let rig = model::Rig::new(|_| EnhancedSkiplist::new(model::SEED));
            warm_test::walks_end_at_the_records(&rig, prefix);
        }
    }

    fn insert(index: &EnhancedSkiplist, arena: &Arena, keys: &[Vec<u8>], first_seq: SeqNo) {
        let records: u64 =
            keys.iter().map(|key| 4 + crate::record::record_bytes(key.len(), 64)).sum();
        let shape = BatchShape { entries: keys.len() as u64, ..BatchShape::default() };
        let index_bytes = index.index_bytes_max(arena, &shape);
        let plan = arena
            .plan(records + index_bytes + 8, crate::arena::Beside::default())
            .expect("it fits");
        assert!(arena.allocate(&plan));
        let mut slab = arena.slab(&plan);
        index.provide(arena, &mut slab, index_bytes);
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
        // Heads that say nothing, and heads that differ.
        for shift in [0, 40] {
            let (index, arena) = filled((0..10_000).map(|number| number << shift));
            index.check(&arena, 10_000).expect("sound");
            assert_eq!(index.leaves.level().blocks(), 10_000_u64.div_ceil(32));
        }
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

    fn table() -> Arc<Memtable> {
        let (kind, ledger) = (MemtableType::EnhancedSkiplist, Ledger::unlimited());
        Memtable::new(&MemtableOptions {
            kind: kind.into(),
            bytes_max: 64 << 20,
            hash_seed: 1,
            key_filter: true,
            anchor: crate::anchor::Anchor::default(),
            ledger,
        })
    }

    fn reserve<'t>(table: &'t Memtable, keys: &[Vec<u8>]) -> Reservation<'t> {
        let mut shape = BatchShape::default();
        for key in keys {
            table.measure(&mut shape, Kind::Put, 0, key, b"value");
        }
        table.reserve(&shape).expect("64 MiB hold the test")
    }

    fn put_all(table: &Memtable, keys: &[Vec<u8>], seqs: impl Iterator<Item = SeqNo>) {
        let mut room = reserve(table, keys);
        for (key, seq) in keys.iter().zip(seqs) {
            assert_ne!(room.insert(Kind::Put, 0, key, b"value", seq), Inserted::Duplicate);
        }
    }

    #[test]
    fn reservations_that_live_together_have_all_leaves_they_can_need() {
        let key = |number: u64| format!("{number:08}").into_bytes();
        for order in [|n: usize| n, |n: usize| (9 - n) % 9] {
            let table = table();
            for number in 0..3200 {
                put_all(&table, &[key(number * 10)], number..);
            }
            // Each of these divides a full leaf.
            let between: Vec<_> = (0..90).map(|number| key(number * 320 + 5)).collect();
            let chunks: Vec<_> = between.chunks(10).collect();
            let mut rooms: Vec<_> = chunks.iter().map(|keys| reserve(&table, keys)).collect();
            for chunk in (0..9).map(order) {
                for (key, seq) in chunks[chunk].iter().zip(5000 + 10 * chunk as u64..) {
                    rooms[chunk].insert(Kind::Put, 0, key, b"value", seq);
                }
            }
            drop(rooms);
            assert_eq!(table.entry_count(), 3290);
            table.check().expect("the structure holds");
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test's own threads are no background work")]
    fn race(batch: usize, place: fn(u64, u64) -> u64) {
        const WRITERS: u64 = 4;
        let (old, each) = if cfg!(miri) { (40, 60) } else { (1000, 4000) };
        let table = table();
        let key = |number: u64| format!("{number:016x}").into_bytes();
        let old_key = |n: u64| [key(place(n % WRITERS, n * 3)), b"+".to_vec()].concat();
        let mut before: Vec<_> = (0..old).map(old_key).collect();
        put_all(&table, &before, 0..);
        before.sort_unstable();
        thread::scope(|scope| {
            let table = &table;
            for writer in 0..WRITERS {
                scope.spawn(move || {
                    let keys: Vec<_> = (0..each).map(|n| key(place(writer, n))).collect();
                    let mut seqs = (0..each).map(|n| old + n * WRITERS + writer);
                    for keys in keys.chunks(batch) {
                        put_all(table, keys, seqs.by_ref().take(keys.len()));
                    }
                });
            }
            for forward in [true, false] {
                let before = &before;
                scope.spawn(move || {
                    for _ in 0..if cfg!(miri) { 2 } else { 30 } {
                        let (mut cursor, mut seen) = (table.cursor(old), Vec::new());
                        let mut more =
                            cursor.seek(if forward { Target::First } else { Target::Last });
                        while more.expect("memory does not fail") {
                            seen.push(cursor.entry().key.to_vec());
                            more = if forward { cursor.next() } else { cursor.prev() };
                        }
                        if !forward {
                            seen.reverse();
                        }
                        assert!(seen == *before, "{} of {} keys", seen.len(), before.len());
                        for key in before.iter().step_by(7) {
                            assert!(table.get(key, 0, old).is_some(), "{key:?}");
                        }
                    }
                });
            }
        });
        assert_eq!(table.entry_count(), old + WRITERS * each);
        table.check().expect("the structure holds");
        for (writer, n) in (0..each).map(|n| (n % WRITERS, n)) {
            assert!(table.get(&key(place(writer, n)), 0, SeqNo::MAX).is_some());
        }
    }

    #[test]
    fn writers_of_one_end_race() {
        race(1, |writer, n| n * 4 + writer);
        race(37, |writer, n| u64::MAX - (n * 4 + writer));
        // Heads that differ, so that the last leaf is known for the last.
        race(1, |writer, n| (n * 4 + writer) << 40);
        race(37, |writer, n| (n * 4 + writer) << 40);
    }

    #[test]
    fn writers_of_the_same_keys_race() {
        race(1, |_, n| scattered(n));
        race(37, |writer, n| scattered(n + writer % 2));
    }

    #[test]
    fn writers_of_keys_all_over_race() {
        race(1, |writer, n| scattered(n * 4 + writer));
        race(100, |writer, n| scattered(n * 4 + writer));
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
