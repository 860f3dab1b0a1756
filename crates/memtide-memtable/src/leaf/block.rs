//! One sorted block, which readers search while a writer changes it, and the counts of a level of them.
//!
//! ```text
//! words         field
//! -t..0         front words of the variant (a tower), none in most blocks
//! 0             state    u64, see below
//! 2             heads    SLOTS u64, rising: the heads of the slots' keys
//! 2 + 2*SLOTS   prev     block before this one on its level, 0 = none
//! 3 + 2*SLOTS   next     block behind this one on its level, 0 = none
//! 4 + 2*SLOTS   refs     SLOTS words: a record of the key; in a leaf the newest version, head of its chain
//! 4 + 3*SLOTS   more lanes of SLOTS words each, in fence blocks: the child
//!
//! state bits    field
//! 0             locked   by a writer; concerns writers only
//! 1..8          count    slots in use
//! 8..16         tag      the variant's own: level of a block, height of a tower
//! 16..64        version  odd while slots move
//! ```
//!
//! The eight-byte heads are searched without touching a record; equal heads are told apart by their
//! records' keys. Which block a slot belongs into is the caller's to know.
//!
//! # Readers beside a writer
//! Optimistic reading (a seqlock: Lameter, 2005; Boehm, 2012): what was read holds if the version is even and
//! still the same afterwards ([`Block::is_still`]). Appending a slot and exchanging a ref leave the version
//! alone, for the state before and the state after are both right for whoever reads beside it.
//!
//! Without that check a reader that goes through the refs **from left to right**, asking for the count before
//! each, misses no key that was there before and needs no progress of the writer (Hwang et al., FAST and
//! FAIR, 2018), because
//! - refs move to the right only, each is written to its new place before its old one is overwritten, and the
//!   count covers the last one's new place before that;
//! - the upper half that leaves a full block is linked behind it before the count drops, and nobody but this
//!   writer can change it until then: it is locked from birth.
//!
//! So a slot below a count holds a ref of its key that was current when the count was read, or later.
//! The first slot's key of a block that has one before it never changes.

use std::cmp::Ordering as Order;
use std::ops::Range;

use memtide_base::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use memtide_base::sync::relax;

use crate::arena::{Arena, LINE, Ref, Slab, word_of};
use crate::contract::LookupKey;

const PREV: usize = 0;
const NEXT: usize = 1;
/// Words before and behind the heads that every block has.
const STATE_WORDS: u32 = 2;
const LINK_WORDS: u32 = 2;
/// Blocks are 8-aligned behind records that are 4-aligned.
const PADDING_MAX: u64 = 4;

/// The lane that holds a record of each slot's key.
pub(crate) const RECORD: u32 = 0;

/// What a writer does between two stores where nobody watches: nothing.
pub(crate) fn undisturbed() {}

/// What a block's first word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State(u64);

impl State {
    const LOCKED: u64 = 1;
    const SLOT: u64 = 1 << 1;
    const COUNT_MASK: u64 = 0x7F;
    const TAG_SHIFT: u32 = 8;
    const TAG_MASK: u64 = 0xFF;
    const VERSION_SHIFT: u32 = 16;
    const VERSION: u64 = 1 << Self::VERSION_SHIFT;

    /// Slots in use.
    #[inline]
    pub(crate) fn count(self) -> usize {
        ((self.0 / Self::SLOT) & Self::COUNT_MASK) as usize
    }

    /// Counts the moves of slots twice.
    #[inline]
    pub(crate) fn version(self) -> u64 {
        self.0 >> Self::VERSION_SHIFT
    }

    #[inline]
    pub(crate) fn is_moving(self) -> bool {
        self.0 & Self::VERSION != 0
    }
}

/// One sorted block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block<'a, const SLOTS: u32, const LANES: u32> {
    arena: &'a Arena,
    at: Ref,
}

impl<'a, const SLOTS: u32, const LANES: u32> Block<'a, SLOTS, LANES> {
    const BYTES: u32 = {
        assert!(SLOTS.is_multiple_of(2), "a block is a whole number of 64-bit words");
        assert!(SLOTS as u64 <= State::COUNT_MASK, "a state's count reaches so far");
        4 * (STATE_WORDS + LINK_WORDS + SLOTS * (2 + LANES))
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

    /// A new empty block with `front` words before it, locked.
    pub(crate) fn carve(arena: &'a Arena, slab: &mut Slab<'_>, front: u32, tag: u32) -> Self {
        let front = front.next_multiple_of(2);
        let start = slab.words8(front / 2 + Self::BYTES / 8);
        let block = Self { arena, at: behind(start, front) };
        let state = u64::from(tag) << State::TAG_SHIFT | State::LOCKED;
        block.state_word().store(state, Ordering::Relaxed);
        block
    }

    /// Where the block lies.
    #[inline]
    pub(crate) fn place(self) -> Ref {
        self.at
    }

    #[inline]
    fn state_word(self) -> &'a AtomicU64 {
        &self.arena.words8(self.at, 1)[0]
    }

    /// State and heads, those of unused slots included.
    #[inline]
    fn state_and_heads(self) -> (&'a AtomicU64, &'a [AtomicU64]) {
        let words = self.arena.words8(self.at, 1 + SLOTS);
        words.split_first().expect("there is one word at least")
    }

    /// The heads, those of unused slots included.
    #[inline]
    pub(super) fn heads(self) -> &'a [AtomicU64] {
        self.state_and_heads().1
    }

    #[inline]
    fn links(self) -> &'a [AtomicU32] {
        self.arena.words(behind(self.at, STATE_WORDS + 2 * SLOTS), LINK_WORDS)
    }

    /// The words of a lane, those of unused slots included.
    #[inline]
    pub(super) fn lane(self, lane: u32) -> &'a [AtomicU32] {
        let before = STATE_WORDS + LINK_WORDS + (2 + lane) * SLOTS;
        self.arena.words(behind(self.at, before), SLOTS)
    }

    /// How the block stands. What its count covers is there.
    #[inline]
    pub(crate) fn state(self) -> State {
        // Acquire pairs with the Release of every store to the state.
        State(self.state_word().load(Ordering::Acquire))
    }

    /// Whether everything read since `state` was loaded was read from slots that did not move.
    #[inline]
    pub(crate) fn is_still(self, state: State) -> bool {
        // Pairs with the fence in `begin_move`: who read a moved word sees the odd version here.
        fence(Ordering::Acquire);
        let now = State(self.state_word().load(Ordering::Relaxed));
        !state.is_moving() && now.version() == state.version()
    }

    /// Slots in use.
    #[inline]
    pub(crate) fn count(self) -> usize {
        self.state().count()
    }

    /// The variant's own number.
    #[inline]
    pub(crate) fn tag(self) -> u32 {
        let bits = self.state_word().load(Ordering::Relaxed) >> State::TAG_SHIFT & State::TAG_MASK;
        u32::try_from(bits).expect("eight bits")
    }

    /// The block before this one; while a block is put between the two, the one before both.
    #[inline]
    pub(crate) fn prev(self) -> Option<Self> {
        let at = Ref::from_word(self.links()[PREV].load(Ordering::Acquire))?;
        Some(Self { at, ..self })
    }

    /// The block behind this one.
    #[inline]
    pub(crate) fn next(self) -> Option<Self> {
        let at = Ref::from_word(self.links()[NEXT].load(Ordering::Acquire))?;
        Some(Self { at, ..self })
    }

    /// Sets the link that [`Block::next`] reads, of a block that is in no list of a level.
    pub(crate) fn set_next(self, next: Option<Self>) {
        // Relaxed: whoever reads it came by a link that was stored Release after it.
        self.links()[NEXT].store(word_of(next.map(Self::place)), Ordering::Relaxed);
    }

    /// The ref in a lane of a slot below a count that was loaded before.
    #[inline]
    pub(crate) fn slot(self, lane: u32, index: usize) -> Ref {
        ref_in(&self.lane(lane)[index])
    }

    /// As [`Block::slot`], for many slots.
    #[inline]
    pub(crate) fn slots(self, lane: u32) -> impl Fn(usize) -> Ref + 'a {
        let words = self.lane(lane);
        move |index| ref_in(&words[index])
    }

    /// Asks for state, heads, links and the refs of the records.
    #[inline]
    pub(crate) fn prefetch(self) {
        let words = STATE_WORDS + LINK_WORDS + 3 * SLOTS;
        self.arena.prefetch(self.at, 0, (4 * words as usize).div_ceil(LINE));
    }

    /// Asks for state, links and the refs of the records.
    pub(crate) fn prefetch_refs(self) {
        self.arena.prefetch(self.at, 0, 1);
        let links = behind(self.at, STATE_WORDS + 2 * SLOTS);
        self.arena.prefetch(links, 0, (4 * (LINK_WORDS + SLOTS) as usize).div_ceil(LINE));
    }

    /// Asks for what a comparison with the first key looks at, and for some of the `front` words before it.
    #[inline]
    pub(crate) fn prefetch_low(self, front: u32) {
        self.arena.prefetch(self.at, front, 1);
    }

    /// Asks for the record of `k`, if there is one; slots may move meanwhile.
    #[inline]
    pub(crate) fn prefetch_record(self, k: &LookupKey<'_>) {
        let count = self.count();
        let heads = &self.heads()[..count];
        let index = lower_bound(heads, k.head);
        // Relaxed: it is only a guess.
        let is_tie = |index| {
            heads.get(index).is_some_and(|head: &AtomicU64| head.load(Ordering::Relaxed) == k.head)
        };
        let record = if !is_tie(index) {
            None
        } else if is_tie(index + 1) {
            // Only the keys tell; what the search looks at is what a get will.
            self.locate(k, index..count).ok().map(|(_, record)| record)
        } else {
            Some(self.slot(RECORD, index))
        };
        if let Some(record) = record {
            self.arena.prefetch(record, 1, 1);
        }
    }

    /// Key head and record of the first slot.
    #[inline]
    pub(crate) fn low(self) -> (u64, Ref) {
        (self.low_head().load(Ordering::Relaxed), self.slot(RECORD, 0))
    }

    #[inline]
    fn low_head(self) -> &'a AtomicU64 {
        &self.arena.words8(behind(self.at, STATE_WORDS), 1)[0]
    }

    /// How the key of the first slot compares with `k`. The block was reached by a link that leads to it.
    #[inline]
    pub(crate) fn cmp_low(self, k: &LookupKey<'_>) -> Order {
        // Relaxed: the head was there before the link, which was loaded Acquire, and never changes.
        let by_head = self.low_head().load(Ordering::Relaxed).cmp(&k.head);
        by_head.then_with(|| self.arena.key(self.slot(RECORD, 0)).cmp(k.key))
    }

    /// Whether the head of `k` is above that of the last slot; not while slots move. If they begin to while this looks,
    /// the head is that of another key that is or was in the block, so `k` belongs here or behind all the same.
    #[inline]
    pub(crate) fn is_below(self, k: &LookupKey<'_>) -> bool {
        let state = self.state();
        let last = state.count().checked_sub(1).filter(|_| !state.is_moving());
        last.is_some_and(|last| self.heads()[last].load(Ordering::Relaxed) < k.head)
    }

    /// The block behind this one if `k` belongs there or further behind.
    #[inline]
    pub(crate) fn next_for(self, k: &LookupKey<'_>) -> Option<Self> {
        self.next().filter(|next| next.cmp_low(k) != Order::Greater)
    }

    /// Where `k` is among these slots: `Ok` is its slot and the ref that was found there, `Err` the slot it
    /// would take. `Ok` holds even if slots move meanwhile, `Err` only if they do not.
    #[inline]
    pub(crate) fn locate(
        self,
        k: &LookupKey<'_>,
        slots: Range<usize>,
    ) -> Result<(usize, Ref), usize> {
        let heads = &self.heads()[..slots.end];
        // Relaxed: heads are believed only after `is_still`.
        let head_at = |index: usize| heads[index].load(Ordering::Relaxed);
        let mut low = slots.start + lower_bound(&heads[slots.start..], k.head);
        if low == heads.len() || head_at(low) != k.head {
            return Err(low);
        }
        let refs = self.lane(RECORD);
        // The usual tie is the key itself, alone with its head.
        let is_alone = low + 1 == heads.len() || head_at(low + 1) != k.head;
        let mut high = if is_alone { low + 1 } else { heads.len() };
        while low < high {
            let middle = low.midpoint(high);
            if head_at(middle) != k.head {
                high = middle;
                continue;
            }
            let record = ref_in(&refs[middle]);
            match self.arena.key(record).cmp(k.key) {
                Order::Less => low = middle + 1,
                Order::Equal => return Ok((middle, record)),
                Order::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Waits for other writers of this block to finish; the caller is its only writer until
    /// [`Block::unlock`].
    #[inline]
    pub(crate) fn lock(self) {
        let word = self.state_word();
        for round in 0_u32.. {
            let free = word.load(Ordering::Relaxed) & !State::LOCKED;
            // Acquire pairs with the Release in `unlock`.
            let taken = word.compare_exchange_weak(
                free,
                free | State::LOCKED,
                Ordering::Acquire,
                Ordering::Relaxed,
            );
            if taken.is_ok() {
                return;
            }
            relax(round);
        }
    }

    /// Lets other writers in.
    #[inline]
    pub(crate) fn unlock(self) {
        let word = self.state_word();
        word.store(word.load(Ordering::Relaxed) & !State::LOCKED, Ordering::Release);
    }

    /// Announces that slots will move; returns the state from then on.
    pub(crate) fn begin_move(self) -> u64 {
        let word = self.state_word();
        let moving = word.load(Ordering::Relaxed) + State::VERSION;
        // Release: the count in it covers slots, as in every state.
        word.store(moving, Ordering::Release);
        // Pairs with the fence in `is_still`.
        fence(Ordering::Release);
        moving
    }

    /// Puts a slot in at `index`, which is at most the count; the block is not full. The caller is its only
    /// writer. `between` is called wherever a reader may find the block half done.
    fn open(self, index: usize, head: u64, refs: &[Ref], between: &mut impl FnMut()) {
        let (state, heads) = self.state_and_heads();
        let before = state.load(Ordering::Relaxed);
        let count = State(before).count();
        if index == count {
            // Release pairs with the fence in `is_still`: who counted slots here before the block was divided, and
            // reads this head in one of them, sees that it was.
            heads[count].store(head, Ordering::Release);
            for (lane, at) in (0..LANES).zip(refs) {
                self.lane(lane)[count].store(at.word(), Ordering::Release);
            }
            between();
            state.store(before + State::SLOT, Ordering::Release);
            return;
        }
        let moving = self.begin_move();
        // The last slot goes first, and is counted before the place it left is overwritten.
        for lane in 0..LANES {
            let words = self.lane(lane);
            words[count].store(words[count - 1].load(Ordering::Relaxed), Ordering::Release);
        }
        between();
        if !cfg!(plant = "sorted_counts_last") {
            state.store(moving + State::SLOT, Ordering::Release);
        }
        for (lane, at) in (0..LANES).zip(refs) {
            let words = &self.lane(lane)[index..count];
            for pair in words.windows(2).rev() {
                between();
                pair[1].store(pair[0].load(Ordering::Relaxed), Ordering::Release);
            }
            between();
            words[0].store(at.word(), Ordering::Release);
        }
        let heads = &heads[index..=count];
        for pair in heads.windows(2).rev() {
            between();
            pair[1].store(pair[0].load(Ordering::Relaxed), Ordering::Relaxed);
        }
        heads[0].store(head, Ordering::Relaxed);
        state.store(moving + State::SLOT + State::VERSION, Ordering::Release);
    }

    /// Fills `right`, which is empty and linked nowhere, with the slots from `middle` on.
    fn copy_upper(self, right: Self, middle: usize) {
        for (from, to) in self.heads()[middle..].iter().zip(right.heads()) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        for lane in 0..LANES {
            for (from, to) in self.lane(lane)[middle..].iter().zip(right.lane(lane)) {
                to.store(from.load(Ordering::Relaxed), Ordering::Release);
            }
        }
        let state = right.state_word();
        let slots = u64::from(SLOTS) - middle as u64;
        state.store(state.load(Ordering::Relaxed) + slots * State::SLOT, Ordering::Release);
    }

    /// Links `right` between this block and the next.
    fn link_behind(self, right: Self, between: &mut impl FnMut()) {
        let after = self.next();
        right.links()[PREV].store(self.at.word(), Ordering::Relaxed);
        right.links()[NEXT].store(word_of(after.map(Self::place)), Ordering::Relaxed);
        // Release pairs with the Acquire in `next` and `prev`.
        self.links()[NEXT].store(right.at.word(), Ordering::Release);
        between();
        if let Some(after) = after {
            after.links()[PREV].store(right.at.word(), Ordering::Release);
        }
        between();
    }

    /// Puts a slot in at `index`, which `locate` named and [`Level::expect_item`] was told of; returns the new block
    /// behind this one if it was full. `carve` makes that block; it is locked until the caller, the only writer of this
    /// block, has done what else it takes. `between` as in [`Block::open`].
    pub(crate) fn add(
        self,
        level: &Level<SLOTS>,
        index: usize,
        head: u64,
        refs: &[Ref],
        carve: impl FnOnce() -> Self,
        between: &mut impl FnMut(),
    ) -> Option<Self> {
        let count = self.count();
        if count < SLOTS as usize {
            self.open(index, head, refs, between);
            if count + 1 == SLOTS as usize {
                level.full.fetch_add(1, Ordering::Relaxed);
            }
            return None;
        }
        Some(self.divide(level, index, head, refs, carve(), between))
    }

    /// [`Block::add`] to a full block: half of the slots go to `right`, or the new one alone if it is the last.
    #[inline(never)]
    fn divide(
        self,
        level: &Level<SLOTS>,
        index: usize,
        head: u64,
        refs: &[Ref],
        right: Self,
        between: &mut impl FnMut(),
    ) -> Self {
        let middle = (SLOTS / 2) as usize;
        if index == SLOTS as usize && self.next().is_none() {
            right.open(0, head, refs, &mut undisturbed);
            self.link_behind(right, between);
        } else {
            self.copy_upper(right, middle);
            if index > middle {
                right.open(index - middle, head, refs, &mut undisturbed);
            }
            let moving = self.begin_move();
            self.link_behind(right, between);
            let given = u64::from(SLOTS) - middle as u64;
            let halved = moving - given * State::SLOT + State::VERSION;
            self.state_word().store(halved, Ordering::Release);
            if index <= middle {
                between();
                self.open(index, head, refs, between);
            }
            level.full.fetch_sub(1, Ordering::Release);
        }
        // Release pairs with the Acquire in `new_blocks_max`: who counts the block sees that it was taken.
        level.blocks.fetch_add(1, Ordering::Release);
        right
    }

    /// A block on a level that had none, with these slots.
    pub(crate) fn begin(self, level: &Level<SLOTS>, slots: &[(u64, &[Ref])]) {
        for (index, (head, refs)) in slots.iter().enumerate() {
            level.expect_item(true);
            self.open(index, *head, refs, &mut undisturbed);
        }
        level.blocks.fetch_add(1, Ordering::Release);
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
            let state = block.state();
            if state.is_moving() || state.0 & State::LOCKED != 0 {
                return Err(format!("block {blocks} was left locked"));
            }
            let count = u32::try_from(state.count()).expect("seven bits");
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

/// The ref in a word of a slot in use.
#[inline]
fn ref_in(word: &AtomicU32) -> Ref {
    // Acquire pairs with the Release in `open`, `copy_upper` and `chain::link`: the record is whole. Slots
    // are written before the count covers them and never emptied.
    Ref::from_word(word.load(Ordering::Acquire)).expect("a slot in use holds a ref")
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
    /// Counts a slot before it is put in, by the only writer of the level or by one of several. Counters lean to the
    /// safe side of `new_blocks_max` while an insert runs: items first, blocks last.
    #[inline]
    pub(crate) fn expect_item(&self, is_alone: bool) {
        if is_alone {
            self.items.store(self.items.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        } else {
            self.items.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Blocks on the level.
    pub(crate) fn blocks(&self) -> u64 {
        u64::from(self.blocks.load(Ordering::Acquire))
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
                let divides_at_once = self.full.load(Ordering::Acquire) > 0;
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
