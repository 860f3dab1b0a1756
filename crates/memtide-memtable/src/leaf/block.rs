//! One sorted block and the counts of a level of them.
//!
//! ```text
//! words         field
//! -t..0         front words of the variant (a tower), none in most blocks
//! 0             count    slots in use
//! 1             prev     block before this one on its level, 0 = none
//! 2             next     block behind this one on its level, 0 = none
//! 3             tag      the variant's own: level of a block, height of a tower
//! 4             heads    SLOTS u64, rising: first eight bytes of each slot's key
//! 4 + 2*SLOTS   refs     SLOTS words: a record of the key; in a leaf the newest version, head of its chain
//! 4 + 3*SLOTS   more lanes of SLOTS words each, in fence blocks: the child
//! ```
//!
//! The eight-byte heads are searched without touching a record; equal heads are told apart by their
//! records' keys. Slots are shifted in place, so readers rely on the memtable's gate. Which block a slot
//! belongs into is the caller's to know.

use std::cmp::Ordering as Order;

use memtide_base::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::arena::{Arena, Ref, Slab, word_of};
use crate::contract::LookupKey;

const COUNT: usize = 0;
const PREV: usize = 1;
const NEXT: usize = 2;
const TAG: usize = 3;
const HEADER_WORDS: u32 = 4;
/// Blocks are 8-aligned behind records that are 4-aligned.
const PADDING_MAX: u64 = 4;

/// The lane that holds a record of each slot's key.
pub(crate) const RECORD: u32 = 0;

/// One sorted block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block<'a, const SLOTS: u32, const LANES: u32> {
    arena: &'a Arena,
    at: Ref,
}

impl<'a, const SLOTS: u32, const LANES: u32> Block<'a, SLOTS, LANES> {
    const BYTES: u32 = {
        assert!(SLOTS.is_multiple_of(2), "a block is a whole number of 64-bit words");
        4 * (HEADER_WORDS + SLOTS * (2 + LANES))
    };

    /// Most bytes that carving one block takes from a slab.
    pub(crate) fn bytes_max(front: u32) -> u64 {
        u64::from(Self::BYTES + 4 * front.next_multiple_of(2)) + PADDING_MAX
    }

    /// The block at `at`.
    #[inline]
    pub(crate) fn at(arena: &'a Arena, at: Ref) -> Self {
        Self { arena, at }
    }

    /// A new empty block with `front` words before it.
    pub(crate) fn carve(arena: &'a Arena, slab: &mut Slab<'_>, front: u32, tag: u32) -> Self {
        let front = front.next_multiple_of(2);
        let start = slab.words8(front / 2 + Self::BYTES / 8);
        let block = Self { arena, at: behind(start, front) };
        block.header()[TAG].store(tag, Ordering::Relaxed);
        block
    }

    /// Where the block lies.
    #[inline]
    pub(crate) fn place(self) -> Ref {
        self.at
    }

    #[inline]
    fn header(self) -> &'a [AtomicU32] {
        self.arena.words(self.at, HEADER_WORDS)
    }

    /// The heads, those of unused slots included.
    #[inline]
    pub(super) fn heads(self) -> &'a [AtomicU64] {
        self.arena.words8(behind(self.at, HEADER_WORDS), SLOTS)
    }

    /// The words of a lane, those of unused slots included.
    #[inline]
    pub(super) fn lane(self, lane: u32) -> &'a [AtomicU32] {
        self.arena.words(behind(self.at, HEADER_WORDS + (2 + lane) * SLOTS), SLOTS)
    }

    /// Slots in use.
    #[inline]
    pub(crate) fn count(self) -> usize {
        self.header()[COUNT].load(Ordering::Acquire) as usize
    }

    fn is_full(self) -> bool {
        self.count() == SLOTS as usize
    }

    /// The variant's own word.
    #[inline]
    pub(crate) fn tag(self) -> u32 {
        self.header()[TAG].load(Ordering::Relaxed)
    }

    /// The block before this one.
    #[inline]
    pub(crate) fn prev(self) -> Option<Self> {
        let at = Ref::from_word(self.header()[PREV].load(Ordering::Acquire))?;
        Some(Self { at, ..self })
    }

    /// The block behind this one.
    #[inline]
    pub(crate) fn next(self) -> Option<Self> {
        let at = Ref::from_word(self.header()[NEXT].load(Ordering::Acquire))?;
        Some(Self { at, ..self })
    }

    /// The ref that a slot in use holds in a lane.
    #[inline]
    pub(crate) fn slot(self, lane: u32, index: usize) -> Ref {
        let word = self.lane(lane)[index].load(Ordering::Acquire);
        Ref::from_word(word).expect("a slot in use holds a ref")
    }

    /// Key head and record of the first slot.
    #[inline]
    pub(crate) fn low(self) -> (u64, Ref) {
        (self.low_head().load(Ordering::Relaxed), self.slot(RECORD, 0))
    }

    #[inline]
    fn low_head(self) -> &'a AtomicU64 {
        &self.arena.words8(behind(self.at, HEADER_WORDS), 1)[0]
    }

    /// How the key of the first slot compares with `k`.
    #[inline]
    pub(crate) fn cmp_low(self, k: &LookupKey<'_>) -> Order {
        let by_head = self.low_head().load(Ordering::Relaxed).cmp(&k.head);
        by_head.then_with(|| self.arena.key(self.slot(RECORD, 0)).cmp(k.key))
    }

    /// Where `k` is among the slots from `from` on: `Ok` is its slot, `Err` the one it would take.
    #[inline]
    pub(crate) fn locate(self, k: &LookupKey<'_>, from: usize) -> Result<usize, usize> {
        let heads = &self.heads()[..self.count()];
        let head_at = |index: usize| heads[index].load(Ordering::Relaxed);
        let mut low = from + lower_bound(&heads[from..], k.head);
        if low == heads.len() || head_at(low) != k.head {
            return Err(low);
        }
        // The usual tie is the key itself, alone with its head.
        let is_alone = low + 1 == heads.len() || head_at(low + 1) != k.head;
        let mut high = if is_alone { low + 1 } else { heads.len() };
        while low < high {
            let middle = low.midpoint(high);
            if head_at(middle) != k.head {
                high = middle;
                continue;
            }
            match self.arena.key(self.slot(RECORD, middle)).cmp(k.key) {
                Order::Less => low = middle + 1,
                Order::Equal => return Ok(middle),
                Order::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Puts a slot in at `index`, which is at most the count; the block is not full.
    fn open(self, index: usize, head: u64, refs: &[Ref]) {
        let count = self.count();
        let heads = self.heads();
        for pair in heads[index..=count].windows(2).rev() {
            pair[1].store(pair[0].load(Ordering::Relaxed), Ordering::Relaxed);
        }
        heads[index].store(head, Ordering::Relaxed);
        for (lane, &at) in (0..LANES).zip(refs) {
            let words = self.lane(lane);
            for pair in words[index..=count].windows(2).rev() {
                pair[1].store(pair[0].load(Ordering::Relaxed), Ordering::Release);
            }
            words[index].store(at.word(), Ordering::Release);
        }
        self.header()[COUNT].fetch_add(1, Ordering::Release);
    }

    /// Gives the upper half to `right`, which is empty.
    fn halve(self, right: Self) {
        let middle = (SLOTS / 2) as usize;
        for (from, to) in self.heads()[middle..].iter().zip(right.heads()) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        for lane in 0..LANES {
            for (from, to) in self.lane(lane)[middle..].iter().zip(right.lane(lane)) {
                to.store(from.load(Ordering::Relaxed), Ordering::Release);
            }
        }
        right.header()[COUNT].store(SLOTS - SLOTS / 2, Ordering::Release);
        self.header()[COUNT].store(SLOTS / 2, Ordering::Release);
    }

    fn link_behind(self, right: Self) {
        let after = self.next();
        right.header()[PREV].store(self.at.word(), Ordering::Relaxed);
        right.header()[NEXT].store(word_of(after.map(Self::place)), Ordering::Relaxed);
        if let Some(after) = after {
            after.header()[PREV].store(right.at.word(), Ordering::Release);
        }
        self.header()[NEXT].store(right.at.word(), Ordering::Release);
    }

    /// Puts a slot in at `index`, which `locate` named; returns the new block behind this one if it was
    /// full. `carve` makes that block.
    pub(crate) fn add(
        self,
        level: &Level<SLOTS>,
        index: usize,
        head: u64,
        refs: &[Ref],
        carve: impl FnOnce() -> Self,
    ) -> Option<Self> {
        level.items.fetch_add(1, Ordering::Relaxed);
        if !self.is_full() {
            self.open(index, head, refs);
            level.full.fetch_add(u32::from(self.is_full()), Ordering::Relaxed);
            return None;
        }
        let right = carve();
        level.blocks.fetch_add(1, Ordering::Relaxed);
        let middle = (SLOTS / 2) as usize;
        if index == self.count() && self.next().is_none() {
            right.open(0, head, refs);
        } else {
            level.full.fetch_sub(1, Ordering::Relaxed);
            self.halve(right);
            if index <= middle {
                self.open(index, head, refs);
            } else {
                right.open(index - middle, head, refs);
            }
        }
        self.link_behind(right);
        Some(right)
    }

    /// A block on a level that had none, with these slots.
    pub(crate) fn begin(self, level: &Level<SLOTS>, slots: &[(u64, &[Ref])]) {
        level.blocks.fetch_add(1, Ordering::Relaxed);
        for (index, (head, refs)) in slots.iter().enumerate() {
            level.items.fetch_add(1, Ordering::Relaxed);
            self.open(index, *head, refs);
        }
    }

    /// What is wrong with the list of blocks that starts here, a level's first; `see` is called for every
    /// slot in order.
    pub(crate) fn check_level(
        self,
        level: &Level<SLOTS>,
        mut see: impl FnMut(Self, usize) -> Result<(), String>,
    ) -> Result<Self, String> {
        let (mut blocks, mut items, mut full) = (0_u32, 0_u32, 0_u32);
        let (mut before, mut block): (Option<Self>, Self) = (None, self);
        loop {
            let count = block.header()[COUNT].load(Ordering::Acquire);
            let count_min = if block.next().is_some() { SLOTS / 2 } else { 1 };
            if !(count_min..=SLOTS).contains(&count) {
                return Err(format!("block {blocks} has {count} of {SLOTS} slots"));
            }
            if block.prev().map(Self::place) != before.map(Self::place) {
                return Err(format!("the back link of block {blocks} is wrong"));
            }
            for index in 0..count as usize {
                see(block, index)?;
            }
            blocks += 1;
            items += count;
            full += u32::from(count == SLOTS);
            before = Some(block);
            block = match block.next() {
                Some(next) => next,
                None => break,
            };
        }
        let counted = [&level.blocks, &level.items, &level.full];
        let counted = counted.map(|counter| counter.load(Ordering::Relaxed));
        if counted != [blocks, items, full] {
            let found = [blocks, items, full];
            return Err(format!(
                "blocks, items, full blocks: counted {counted:?}, found {found:?}"
            ));
        }
        Ok(block)
    }
}

fn behind(at: Ref, words: u32) -> Ref {
    Ref::from_word(at.word() + words).expect("a ref and some words are not 0")
}

/// How many heads are below `head`. Selects instead of branching, so nothing is mispredicted.
#[inline]
fn lower_bound(heads: &[AtomicU64], head: u64) -> usize {
    let (mut base, mut size) = (0, heads.len());
    while size > 0 {
        let half = size.div_ceil(2);
        let is_below = heads[base + half - 1].load(Ordering::Relaxed) < head;
        base = if is_below { base + half } else { base };
        size = if is_below { size - half } else { half - 1 };
    }
    base
}

/// Counts of one level, from which the growth that a batch can cause is bounded.
#[derive(Debug, Default)]
pub(crate) struct Level<const SLOTS: u32> {
    blocks: AtomicU32,
    items: AtomicU32,
    full: AtomicU32,
}

impl<const SLOTS: u32> Level<SLOTS> {
    /// Blocks on the level.
    pub(crate) fn blocks(&self) -> u64 {
        u64::from(self.blocks.load(Ordering::Relaxed))
    }

    /// Most blocks that `incoming` more slots can add.
    ///
    /// All blocks but the last stay half full or more, which bounds the blocks of any number of slots; and
    /// each slot adds one block at most, the first of them only if there is a full block to divide.
    pub(crate) fn new_blocks_max(&self, incoming: u64) -> u64 {
        let Some(others) = incoming.checked_sub(1) else { return 0 };
        let items = u64::from(self.items.load(Ordering::Relaxed));
        let by_fill = 1 + (items + others) / u64::from(SLOTS / 2);
        match self.blocks() {
            0 => by_fill,
            blocks => {
                let divides_at_once = self.full.load(Ordering::Relaxed) > 0;
                by_fill.saturating_sub(blocks).min(others + u64::from(divides_at_once))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_below_are_counted_for_every_length() {
        for len in 0..=65_u64 {
            let heads: Vec<_> = (0..len).map(|index| AtomicU64::new(index * 2)).collect();
            for probe in 0..=len * 2 + 1 {
                let want = (0..len).filter(|index| index * 2 < probe).count();
                assert_eq!(lower_bound(&heads, probe), want, "{probe} among {len}");
            }
        }
    }

    #[test]
    fn growth_is_bounded_by_fill_and_by_full_blocks() {
        let level = Level::<32>::default();
        assert_eq!([0, 1, 16, 17].map(|slots| level.new_blocks_max(slots)), [0, 1, 1, 2]);
        level.blocks.store(1, Ordering::Relaxed);
        level.items.store(31, Ordering::Relaxed);
        assert_eq!([1, 2, 3, 20].map(|slots| level.new_blocks_max(slots)), [0, 1, 2, 3]);
        level.items.store(32, Ordering::Relaxed);
        level.full.store(1, Ordering::Relaxed);
        assert_eq!([1, 2, 17, 18].map(|slots| level.new_blocks_max(slots)), [1, 2, 3, 3]);
    }
}
