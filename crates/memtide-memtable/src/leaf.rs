//! Sorted blocks and the doubly linked list of leaves made of them: what `sorted` and
//! `enhanced_skiplist` share. The two differ only in how they find the leaf of a key.
//!
//! Invariants
//! - Keys are distinct on a level and rise from slot to slot and from block to block.
//! - A full block that takes one more slot gives its upper half to a new block behind it. The last block of
//!   a level that is appended to moves nothing: the new slot alone goes into the new block. So every block
//!   but the last of its level is at least half full, and rising keys fill all blocks.
//! - A key never moves but to the right, and blocks are never freed. So whoever was led to a leaf that its key
//!   has left since, or never was in, finds it by going right (Lehman, Yao, 1981): a leaf that the levels
//!   above do not know yet costs a step and loses nothing.
//!
//! # Who waits for whom
//! Writers of one leaf wait for each other; a leaf is locked for one insert. Readers lock nothing and wait for
//! nobody: they read optimistically (Leis et al., 2016), and where slots moved [`TRIES`] times under them, or
//! a writer stopped in the midst of a move, they go through the leaf's records from left to right instead,
//! which needs no progress of the writer. Why that misses nothing is said in [`block`]. A step beyond a leaf
//! compares keys again, so that nothing shows twice.
//!
//! The bytes of a block are [`block`]'s.

mod block;

use std::cmp::Ordering as Order;
use std::ops::Range;

use memtide_base::SeqNo;
use memtide_base::sync::Mutex;
use memtide_base::sync::atomic::{AtomicU32, Ordering};

pub(crate) use block::{Block, Level, RECORD, State, undisturbed};

use crate::arena::{Arena, Ref, Slab};
use crate::chain;
use crate::contract::{Inserted, LookupKey, NewEntry, Passed, Pos, Seek, Walk};

/// How often a reader tries a leaf whose slots move under it.
pub(crate) const TRIES: u32 = 4;
/// No leaf ever has this version: the position was found without one.
const NO_VERSION: u64 = u64::MAX;

/// A leaf: each slot is a user key with the chain of its versions.
pub(crate) type Leaf<'a, const SLOTS: u32> = Block<'a, SLOTS, 1>;

/// The doubly linked list of all leaves.
#[derive(Debug, Default)]
pub(crate) struct Leaves<const SLOTS: u32> {
    first: AtomicU32,
    last: AtomicU32,
    /// Held to make the first leaf.
    beginning: Mutex<()>,
    level: Level<SLOTS>,
}

impl<const SLOTS: u32> Leaves<SLOTS> {
    /// The leaf with the smallest keys.
    #[inline]
    pub(crate) fn first<'a>(&self, arena: &'a Arena) -> Option<Leaf<'a, SLOTS>> {
        Some(Leaf::at(arena, Ref::from_word(self.first.load(Ordering::Acquire))?))
    }

    fn last<'a>(&self, arena: &'a Arena) -> Option<Leaf<'a, SLOTS>> {
        Some(Leaf::at(arena, Ref::from_word(self.last.load(Ordering::Acquire))?))
    }

    /// The last leaf if `k` lies behind all of its keys, so that it belongs there or behind; also while others write,
    /// if not behind all of them.
    #[inline]
    pub(crate) fn last_before<'a>(
        &self,
        arena: &'a Arena,
        k: &LookupKey<'_>,
    ) -> Option<Leaf<'a, SLOTS>> {
        self.last(arena).filter(|leaf| leaf.is_below(k))
    }

    /// Counts of the leaves.
    pub(crate) fn level(&self) -> &Level<SLOTS> {
        &self.level
    }

    /// Writes and links a record. Its key belongs into `leaf` or behind it; `leaf` is `None` only while there
    /// is none. Also returns the leaf that had to be added, which `carve` made locked and empty.
    pub(crate) fn insert<'a>(
        &self,
        arena: &'a Arena,
        slab: &mut Slab<'_>,
        entry: &NewEntry<'_>,
        leaf: Option<Leaf<'a, SLOTS>>,
        carve: impl FnOnce(&mut Slab<'_>) -> Leaf<'a, SLOTS>,
    ) -> (Inserted, Option<Leaf<'a, SLOTS>>) {
        let leaf = match leaf {
            Some(leaf) => leaf,
            None => {
                let _beginning = self.beginning.lock();
                // Another writer may have been first.
                match self.first(arena) {
                    Some(leaf) => leaf,
                    None => return (Inserted::NewKey, Some(self.begin(slab, entry, carve))),
                }
            }
        };
        self.insert_behind(arena, slab, entry, leaf, carve, &mut undisturbed)
    }

    fn begin<'a>(
        &self,
        slab: &mut Slab<'_>,
        entry: &NewEntry<'_>,
        carve: impl FnOnce(&mut Slab<'_>) -> Leaf<'a, SLOTS>,
    ) -> Leaf<'a, SLOTS> {
        let record = slab.record(1, entry);
        let first = carve(slab);
        first.begin(&self.level, &[(entry.head, &[record])]);
        first.unlock();
        self.last.store(first.place().word(), Ordering::Release);
        self.first.store(first.place().word(), Ordering::Release);
        first
    }

    fn insert_behind<'a>(
        &self,
        arena: &'a Arena,
        slab: &mut Slab<'_>,
        entry: &NewEntry<'_>,
        leaf: Leaf<'a, SLOTS>,
        carve: impl FnOnce(&mut Slab<'_>) -> Leaf<'a, SLOTS>,
        between: &mut impl FnMut(),
    ) -> (Inserted, Option<Leaf<'a, SLOTS>>) {
        let (leaf, found) = lock_home(leaf, &entry.lookup(), slab.is_alone());
        let done = match found {
            Ok(index) => (insert_version(arena, slab, entry, &leaf.lane(RECORD)[index]), None),
            Err(index) => {
                let record = slab.record(1, entry);
                self.level.expect_item(slab.is_alone());
                let carve = || carve(slab);
                let added = leaf.add(&self.level, index, entry.head, &[record], carve, between);
                if let Some(added) = added {
                    if added.next().is_none() {
                        self.last.store(added.place().word(), Ordering::Release);
                    }
                    added.unlock();
                }
                (Inserted::NewKey, added)
            }
        };
        leaf.unlock();
        done
    }

    /// The newest version of `k` below `below`; `k` belongs into `leaf` or behind it.
    #[inline]
    pub(crate) fn get<'a>(
        arena: &'a Arena,
        mut leaf: Leaf<'a, SLOTS>,
        k: &LookupKey<'_>,
        below: SeqNo,
    ) -> Option<Ref> {
        loop {
            match search(arena, leaf, k) {
                Search::Found(newest) => return chain::newest_below(arena, Some(newest), below),
                Search::Absent => return None,
                Search::Behind(next) => leaf = next,
            }
        }
    }

    /// Places `pos`; `find` names the leaf where a key belongs, or one before it. See
    /// [`MemIndex::seek`](crate::contract::MemIndex::seek).
    pub(crate) fn seek<'a>(
        &self,
        arena: &'a Arena,
        pos: &mut Pos,
        below: SeqNo,
        to: Seek<'_>,
        find: impl FnOnce(&LookupKey<'_>) -> Option<Leaf<'a, SLOTS>>,
    ) {
        pos.at = None;
        let leaf = match &to {
            Seek::First => self.first(arena),
            Seek::Last => self.last(arena),
            Seek::Ge(k) | Seek::Le(k) => find(k),
        };
        let Some(leaf) = leaf else { return };
        let read = Read { arena, below };
        match to {
            Seek::First => read.forward(pos, leaf, Edge::None, None),
            Seek::Last => read.backward(pos, leaf, Edge::None, None),
            Seek::Ge(k) => read.forward(pos, leaf, Edge::At(k), None),
            Seek::Le(k) => read.backward(pos, leaf, Edge::At(k), None),
        };
    }

    /// Moves `pos`. See [`MemIndex::walk`](crate::contract::MemIndex::walk).
    pub(crate) fn walk(arena: &Arena, pos: &mut Pos, below: SeqNo, step: Walk) -> bool {
        let Some(at) = pos.at else { return false };
        if step == Walk::Older {
            let older = chain::older(arena, at);
            pos.at = older.or(pos.at);
            return older.is_some();
        }
        let (leaf, index, version) =
            place::<SLOTS>(arena, pos).expect("the cursor stands in a leaf");
        let own = Edge::Beside(at);
        let read = Read { arena, below };
        match step {
            Walk::Next => read.forward(pos, leaf, own, Some((version, index + 1))),
            Walk::Prev | Walk::Older => read.backward(pos, leaf, own, Some((version, index))),
        }
    }

    /// Moves `pos` several times. See [`crate::contract::MemIndex::walk_ahead`].
    pub(crate) fn walk_ahead(
        arena: &Arena,
        pos: &mut Pos,
        below: SeqNo,
        step: Walk,
        passed: &mut [Passed],
    ) -> usize {
        let count = Read { arena, below }.rest_of_leaf::<SLOTS>(pos, step, passed);
        if count > 0 {
            return count;
        }
        let moved = Self::walk(arena, pos, below, step);
        passed[0] = Passed::by(pos);
        usize::from(moved)
    }

    /// What is wrong with the leaves, or how many records they hold.
    pub(crate) fn check(&self, arena: &Arena) -> Result<u64, String> {
        let Some(first) = self.first(arena) else { return Ok(0) };
        let (mut records, mut before) = (0, None);
        let last = first.check_level(&self.level, |leaf, index| {
            let record = leaf.slot(RECORD, index);
            let own = arena.key(record);
            if before.is_some_and(|before| before >= own) {
                return Err(format!("key {own:?} is out of order"));
            }
            if leaf.heads()[index].load(Ordering::Relaxed) != arena.head(record) {
                return Err(format!("the head of {own:?} is another key's"));
            }
            before = Some(own);
            records += chain::check(arena, Some(record))?;
            Ok(())
        })?;
        if self.last.load(Ordering::Acquire) != last.place().word() {
            return Err("the last leaf is not the last".to_owned());
        }
        Ok(records)
    }
}

/// Locks the leaf where `k` belongs, which is `leaf` or behind it, and says which slot `k` has there or
/// would take. Who is alone finds nothing locked and locks for nobody.
fn lock_home<'a, const SLOTS: u32>(
    mut leaf: Leaf<'a, SLOTS>,
    k: &LookupKey<'_>,
    is_alone: bool,
) -> (Leaf<'a, SLOTS>, Result<usize, usize>) {
    loop {
        if !is_alone {
            leaf.lock();
        }
        let count = leaf.count();
        let found = leaf.locate(k, 0..count).map(|(index, _)| index);
        // Only what is above all slots may belong behind.
        let may_be_behind = found == Err(count) && !cfg!(plant = "enhanced_skiplist_stays_home");
        match may_be_behind.then(|| leaf.next_for(k)).flatten() {
            None => return (leaf, found),
            Some(next) => {
                leaf.unlock();
                leaf = next;
            }
        }
    }
}

fn insert_version(
    arena: &Arena,
    slab: &mut Slab<'_>,
    entry: &NewEntry<'_>,
    slot: &AtomicU32,
) -> Inserted {
    if chain::contains(arena, Ref::from_word(slot.load(Ordering::Acquire)), entry.seq) {
        return Inserted::Duplicate;
    }
    let version = slab.record(1, entry);
    chain::link(arena, slot, version);
    Inserted::NewVersion
}

/// What a search for a key in one leaf found.
enum Search<'a, const SLOTS: u32> {
    /// The newest version.
    Found(Ref),
    Absent,
    /// The key belongs into this leaf or behind it.
    Behind(Leaf<'a, SLOTS>),
}

#[inline]
fn search<'a, const SLOTS: u32>(
    arena: &'a Arena,
    leaf: Leaf<'a, SLOTS>,
    k: &LookupKey<'_>,
) -> Search<'a, SLOTS> {
    for _ in 0..TRIES {
        let state = leaf.state();
        match leaf.locate(k, 0..state.count()) {
            Ok((_, newest)) => return Search::Found(newest),
            Err(vacant) if leaf.is_still(state) => {
                let next = (vacant == state.count()).then(|| leaf.next_for(k)).flatten();
                return next.map_or(Search::Absent, Search::Behind);
            }
            Err(_) => std::hint::spin_loop(),
        }
    }
    match each_ref(leaf).find(|(_, newest)| arena.key(*newest) == k.key) {
        Some((_, newest)) => Search::Found(newest),
        None => leaf.next_for(k).map_or(Search::Absent, Search::Behind),
    }
}

/// The refs of a leaf from left to right with their slots, while writers change it: each key that was there
/// before is among them, some perhaps twice, and smaller ones may follow larger ones that stood before.
fn each_ref<const SLOTS: u32>(leaf: Leaf<'_, SLOTS>) -> impl Iterator<Item = (usize, Ref)> {
    (0..SLOTS as usize)
        .take_while(move |&index| index < leaf.count())
        .map(move |index| (index, leaf.slot(RECORD, index)))
}

/// From which key on a cursor looks, not where that key is.
#[derive(Clone, Copy)]
enum Edge<'k> {
    /// Everything counts.
    None,
    /// The key itself counts.
    At(LookupKey<'k>),
    /// Only what lies beside this record's key counts.
    Beside(Ref),
}

impl<'k> Edge<'k> {
    fn key<'a: 'k>(&self, arena: &'a Arena) -> Option<LookupKey<'k>> {
        match *self {
            Self::None => None,
            Self::At(k) => Some(k),
            Self::Beside(at) => {
                Some(LookupKey { key: arena.key(at), hash: 0, head: arena.head(at) })
            }
        }
    }
}

/// A version of a leaf and a slot that is the edge's in it.
type Hint = Option<(u64, usize)>;

/// A reader that goes so far at once will go on.
const FETCHED_FROM: usize = 4;
/// Cache lines of a record that are asked for: header, key and the beginning of the value.
const RECORD_LINES: usize = 2;

/// One step of a reader.
#[derive(Clone, Copy)]
struct Read<'a> {
    arena: &'a Arena,
    below: SeqNo,
}

impl<'a> Read<'a> {
    /// Puts `pos` on the first key with a visible version from the edge on, in `leaf` or behind it.
    fn forward<const SLOTS: u32>(
        self,
        pos: &mut Pos,
        mut leaf: Leaf<'a, SLOTS>,
        edge: Edge<'_>,
        mut hint: Hint,
    ) -> bool {
        loop {
            if self.first_in(pos, leaf, &edge, hint) {
                return true;
            }
            let Some(next) = leaf.next() else {
                pos.at = None;
                return false;
            };
            (leaf, hint) = (next, None);
        }
    }

    fn first_in<const SLOTS: u32>(
        self,
        pos: &mut Pos,
        leaf: Leaf<'a, SLOTS>,
        edge: &Edge<'_>,
        hint: Hint,
    ) -> bool {
        for _ in 0..TRIES {
            let state = leaf.state();
            let from = hinted(hint, state)
                .unwrap_or_else(|| self.cut(leaf, state, edge, Walk::Next).unwrap_or(0));
            let found = (from..state.count()).find_map(|index| self.visible(leaf, index));
            if leaf.is_still(state) {
                return settle(pos, leaf, state.version(), found);
            }
            std::hint::spin_loop();
        }
        let found = each_ref(leaf).find_map(|(index, newest)| {
            let counts = self.admits(edge, newest, Order::Greater);
            let at = chain::newest_below(self.arena, Some(newest).filter(|_| counts), self.below)?;
            Some((index, at))
        });
        settle(pos, leaf, NO_VERSION, found)
    }

    /// Moves `pos` over visible versions in the leaf it stands in, if no slot there has moved since; says how many.
    /// The records are looked at together, so their cache misses overlap.
    fn rest_of_leaf<const SLOTS: u32>(
        self,
        pos: &mut Pos,
        step: Walk,
        passed: &mut [Passed],
    ) -> usize {
        let Some((leaf, index, version)) = place::<SLOTS>(self.arena, pos) else { return 0 };
        let state = leaf.state();
        if state.version() != version {
            return 0;
        }
        let (mut count, mut last) = (0, index);
        let record = leaf.slots(RECORD);
        let mut pass = |slot: usize| {
            if let Some(at) = chain::newest_below(self.arena, Some(record(slot)), self.below) {
                passed[count].at = Some(at);
                (count, last) = (count + 1, slot);
            }
            count < passed.len()
        };
        match step {
            Walk::Next => (index + 1..state.count()).all(&mut pass),
            Walk::Prev | Walk::Older => (0..index).rev().all(&mut pass),
        };
        if count == 0 || !leaf.is_still(state) {
            return 0;
        }
        if passed.len() >= FETCHED_FROM {
            self.fetch(leaf, last, step, passed.len());
        }
        pos.at = passed[count - 1].at;
        pos.words[1] = last as u64;
        count
    }

    /// Asks for the records that the next stretch of so many will look at, while the reader is busy with this one.
    /// Where the leaf ends within it, for what leads to those of the next leaf; where it ends before, for those.
    fn fetch<const SLOTS: u32>(self, leaf: Leaf<'a, SLOTS>, last: usize, step: Walk, count: usize) {
        let ask = |leaf: Leaf<'a, SLOTS>, slots: Range<usize>| {
            let record = leaf.slots(RECORD);
            slots.for_each(|slot| self.arena.prefetch(record(slot), 1, RECORD_LINES));
        };
        let (slots, beyond) = match step {
            Walk::Next => (last + 1..leaf.count().min(last + 1 + count), leaf.next()),
            Walk::Prev | Walk::Older => (last.saturating_sub(count)..last, leaf.prev()),
        };
        if slots.len() == count {
            return ask(leaf, slots);
        }
        let Some(beyond) = beyond else { return ask(leaf, slots) };
        if !slots.is_empty() {
            beyond.prefetch_refs();
            return ask(leaf, slots);
        }
        let held = beyond.count();
        match step {
            Walk::Next => ask(beyond, 0..held.min(count)),
            Walk::Prev | Walk::Older => ask(beyond, held.saturating_sub(count)..held),
        }
    }

    /// Puts `pos` on the last key with a visible version up to the edge. It belongs into `leaf`, behind it,
    /// or, if none is visible there, before it.
    fn backward<const SLOTS: u32>(
        self,
        pos: &mut Pos,
        mut leaf: Leaf<'a, SLOTS>,
        mut edge: Edge<'_>,
        mut hint: Hint,
    ) -> bool {
        loop {
            leaf = match self.last_in(pos, leaf, &edge, hint) {
                Last::Settled => return true,
                Last::Behind(next) => next,
                Last::Before => {
                    let Some(prev) = leaf.prev() else {
                        pos.at = None;
                        return false;
                    };
                    // The leaf before may have been divided since it was linked here: all that is below
                    // this leaf counts, in whichever leaf it is.
                    edge = Edge::Beside(leaf.slot(RECORD, 0));
                    prev
                }
            };
            hint = None;
        }
    }

    fn last_in<const SLOTS: u32>(
        self,
        pos: &mut Pos,
        leaf: Leaf<'a, SLOTS>,
        edge: &Edge<'_>,
        hint: Hint,
    ) -> Last<'a, SLOTS> {
        for _ in 0..TRIES {
            let state = leaf.state();
            let end = hinted(hint, state).unwrap_or_else(|| {
                self.cut(leaf, state, edge, Walk::Prev).unwrap_or(state.count())
            });
            let behind = (end == state.count()).then(|| self.behind(leaf, edge)).flatten();
            let found = (0..end).rev().find_map(|index| self.visible(leaf, index));
            if leaf.is_still(state) {
                return Last::of(behind, settle(pos, leaf, state.version(), found));
            }
            std::hint::spin_loop();
        }
        let mut found: Option<(usize, Ref)> = None;
        for (index, newest) in each_ref(leaf) {
            let key = self.arena.key(newest);
            let is_last = found.is_none_or(|(_, at)| self.arena.key(at) < key);
            if is_last && self.admits(edge, newest, Order::Less) {
                let at = chain::newest_below(self.arena, Some(newest), self.below);
                found = at.map(|at| (index, at)).or(found);
            }
        }
        let behind = self.behind(leaf, edge);
        Last::of(behind, settle(pos, leaf, NO_VERSION, found))
    }

    /// The leaf behind this one if some of its keys may lie before the edge.
    fn behind<const SLOTS: u32>(
        self,
        leaf: Leaf<'a, SLOTS>,
        edge: &Edge<'_>,
    ) -> Option<Leaf<'a, SLOTS>> {
        let next = leaf.next().filter(|_| !cfg!(plant = "sorted_trusts_prev"))?;
        let counts = edge.key(self.arena).is_none_or(|k| match next.cmp_low(&k) {
            Order::Less => true,
            Order::Equal => matches!(edge, Edge::At(_)),
            Order::Greater => false,
        });
        counts.then_some(next)
    }

    /// The number of slots before the edge as a step in this direction sees it, if there is one.
    fn cut<const SLOTS: u32>(
        self,
        leaf: Leaf<'a, SLOTS>,
        state: State,
        edge: &Edge<'_>,
        step: Walk,
    ) -> Option<usize> {
        let k = edge.key(self.arena)?;
        let is_own_before = (step == Walk::Next) == matches!(edge, Edge::Beside(_));
        Some(match leaf.locate(&k, 0..state.count()) {
            Ok((own, _)) => own + usize::from(is_own_before),
            Err(vacant) => vacant,
        })
    }

    /// Whether a record's key counts, for a step towards keys that compare with the edge as `ahead`.
    fn admits(self, edge: &Edge<'_>, record: Ref, ahead: Order) -> bool {
        edge.key(self.arena).is_none_or(|k| match self.arena.key(record).cmp(k.key) {
            Order::Equal => matches!(edge, Edge::At(_)),
            order => order == ahead,
        })
    }

    #[inline]
    fn visible<const SLOTS: u32>(
        self,
        leaf: Leaf<'a, SLOTS>,
        index: usize,
    ) -> Option<(usize, Ref)> {
        let newest = leaf.slot(RECORD, index);
        Some((index, chain::newest_below(self.arena, Some(newest), self.below)?))
    }
}

/// What a look for the last key before an edge found in one leaf.
enum Last<'a, const SLOTS: u32> {
    Settled,
    /// There are larger keys before the edge behind the leaf.
    Behind(Leaf<'a, SLOTS>),
    /// Nothing here is visible; what is lies before the leaf.
    Before,
}

impl<'a, const SLOTS: u32> Last<'a, SLOTS> {
    fn of(behind: Option<Leaf<'a, SLOTS>>, is_settled: bool) -> Self {
        match behind {
            Some(next) => Self::Behind(next),
            None if is_settled => Self::Settled,
            None => Self::Before,
        }
    }
}

/// The leaf and slot where `pos` stands, and the leaf's version then.
#[inline]
fn place<'a, const SLOTS: u32>(
    arena: &'a Arena,
    pos: &Pos,
) -> Option<(Leaf<'a, SLOTS>, usize, u64)> {
    let [leaf, index, version] = pos.words;
    let leaf = Ref::from_word(u32::try_from(leaf).expect("a leaf's word"))?;
    Some((Leaf::at(arena, leaf), usize::try_from(index).expect("a slot's index"), version))
}

/// The hinted slot if no slot of the leaf has moved since.
#[inline]
fn hinted(hint: Hint, state: State) -> Option<usize> {
    hint.filter(|hint| hint.0 == state.version()).map(|hint| hint.1)
}

/// Puts `pos` on what was found in a slot of `leaf` at this version.
#[inline]
fn settle<const SLOTS: u32>(
    pos: &mut Pos,
    leaf: Leaf<'_, SLOTS>,
    version: u64,
    found: Option<(usize, Ref)>,
) -> bool {
    if let Some((index, at)) = found {
        pos.at = Some(at);
        pos.words = [u64::from(leaf.place().word()), index as u64, version];
    }
    found.is_some()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use memtide_base::ledger::Ledger;
    use memtide_base::sync::Arc;
    use memtide_base::{Cursor, Kind, Target, hash};

    use super::*;
    use crate::arena::Beside;
    use crate::contract::BatchShape;
    use crate::kind::MemtableType;
    use crate::memtable::Memtable;
    use crate::options::MemtableOptions;

    const KINDS: [MemtableType; 2] = [MemtableType::Sorted, MemtableType::EnhancedSkiplist];
    const SEED: u64 = 7;

    /// Versions by key, then by rising sequence number.
    type Model = BTreeMap<Vec<u8>, BTreeMap<SeqNo, (Kind, Vec<u8>)>>;
    type Write = (Vec<u8>, SeqNo, Kind, Vec<u8>);

    struct Random(u64);

    impl Random {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
            (self.0 >> 33) % end
        }

        fn len_below(&mut self, end: u64) -> usize {
            usize::try_from(self.below(end)).expect("small")
        }

        /// Few keys with few distinct heads: empty ones, prefixes of each other, long equal beginnings.
        fn key(&mut self) -> Vec<u8> {
            let number = self.below(400);
            match self.below(4) {
                0 => vec![0; self.len_below(12)],
                1 => format!("{number}").into_bytes(),
                _ => format!("user:0000{number:03}").into_bytes(),
            }
        }

        fn write(&mut self, seqs: Range<SeqNo>) -> Write {
            let kind = if self.below(4) == 0 { Kind::Delete } else { Kind::Put };
            let seq = seqs.start + self.below(seqs.end - seqs.start);
            let len = if kind == Kind::Put { self.len_below(20) } else { 0 };
            (self.key(), seq, kind, vec![b'v'; len])
        }
    }

    fn table(kind: MemtableType) -> Arc<Memtable> {
        let ledger = Ledger::unlimited();
        Memtable::new(&MemtableOptions {
            kind: kind.into(),
            bytes_max: 8 << 20,
            hash_seed: SEED,
            key_filter: true,
            anchor: crate::anchor::Anchor::default(),
            ledger,
        })
    }

    /// One reservation for the whole batch, so a bound that is too small panics.
    fn insert(table: &Memtable, model: &mut Model, batch: &[Write]) {
        let mut shape = BatchShape::default();
        for (key, _, kind, value) in batch {
            table.measure(&mut shape, *kind, hash::key_hash(SEED, key), key, value);
        }
        let mut room = table.reserve(&shape).expect("8 MiB hold the test");
        for (key, seq, kind, value) in batch {
            let versions = model.entry(key.clone()).or_default();
            let expected = match (versions.is_empty(), versions.contains_key(seq)) {
                (true, _) => Inserted::NewKey,
                (_, true) => Inserted::Duplicate,
                (_, false) => Inserted::NewVersion,
            };
            let inserted = room.insert(*kind, hash::key_hash(SEED, key), key, value, *seq);
            assert_eq!(inserted, expected, "{key:?} @ {seq}");
            versions.entry(*seq).or_insert((*kind, value.clone()));
        }
    }

    fn visible(model: &Model, below: SeqNo) -> Vec<(&[u8], SeqNo)> {
        let newest =
            |versions: &BTreeMap<SeqNo, _>| versions.range(..below).next_back().map(|v| *v.0);
        model.iter().filter_map(|(key, all)| Some((&key[..], newest(all)?))).collect()
    }

    fn walked(table: &Arc<Memtable>, below: SeqNo, forward: bool) -> Vec<(Vec<u8>, SeqNo)> {
        let mut cursor = table.cursor(below);
        let mut seen = Vec::new();
        let mut found = cursor.seek(if forward { Target::First } else { Target::Last });
        while found.expect("memory does not fail") {
            seen.push((cursor.entry().key.to_vec(), cursor.entry().seq));
            found = if forward { cursor.next() } else { cursor.prev() };
        }
        seen
    }

    fn compare(table: &Arc<Memtable>, model: &Model, random: &mut Random, seq_end: SeqNo) {
        for below in [0, 1, seq_end / 3, seq_end / 2, seq_end] {
            let mut want: Vec<_> =
                visible(model, below).iter().map(|(key, seq)| (key.to_vec(), *seq)).collect();
            assert_eq!(walked(table, below, true), want, "below {below}");
            want.reverse();
            assert_eq!(walked(table, below, false), want, "backwards, below {below}");
        }
        let keys = visible(model, seq_end);
        for _ in 0..200 {
            let (probe, mut cursor) = (random.key(), table.cursor(seq_end));
            let split = keys.partition_point(|(key, _)| *key < &probe[..]);
            let is_there = cursor.seek(Target::Ge(&probe)).expect("memory does not fail");
            assert_eq!(is_there.then(|| cursor.entry().key), keys.get(split).map(|k| k.0));
            let split = keys.partition_point(|(key, _)| *key <= &probe[..]);
            let is_there = cursor.seek(Target::Le(&probe)).expect("memory does not fail");
            let last = split.checked_sub(1).map(|index| keys[index].0);
            assert_eq!(is_there.then(|| cursor.entry().key), last);
        }
        for (key, versions) in model {
            let mut cursor = table.cursor(seq_end);
            let mut more = cursor.seek(Target::Ge(key)).expect("memory does not fail");
            for (seq, (kind, value)) in versions.iter().rev() {
                assert!(more, "{key:?} @ {seq} is missing");
                let entry = cursor.entry();
                assert_eq!((entry.key, entry.seq), (&key[..], *seq));
                assert_eq!((entry.kind, entry.value), (*kind, &value[..]));
                let got = table.get(key, hash::key_hash(SEED, key), seq + 1);
                assert_eq!(got, Some(entry));
                more = cursor.older().expect("memory does not fail");
            }
            assert!(!more, "{key:?} has a version too many");
            let first = *versions.first_key_value().expect("a key has a version").0;
            assert_eq!(table.get(key, hash::key_hash(SEED, key), first), None);
        }
    }

    /// Small leaves without an index above them: every search begins at the first.
    struct Bed {
        arena: Arena,
        leaves: Leaves<8>,
        /// Numbers of the keys that are there, rising; a key's first version has its number.
        numbers: Vec<u64>,
        prefix: &'static [u8],
    }

    /// What readers of a [`Bed`] may see ends here.
    const BELOW: SeqNo = 1000;

    impl Bed {
        fn new(prefix: &'static [u8], numbers: &[u64]) -> Self {
            let (arena, leaves) = (Arena::new(1 << 20), Leaves::default());
            let mut bed = Self { arena, leaves, numbers: numbers.to_vec(), prefix };
            for &number in numbers {
                bed.put(number, number, &mut undisturbed);
            }
            bed.numbers.sort_unstable();
            bed
        }

        fn key(&self, number: u64) -> Vec<u8> {
            [self.prefix, &number.to_be_bytes()].concat()
        }

        fn put(&self, number: u64, seq: SeqNo, between: &mut impl FnMut()) {
            let (arena, key) = (&self.arena, self.key(number));
            let plan = arena.plan(400, Beside::default()).expect("a megabyte holds them");
            assert!(arena.allocate(&plan));
            let mut slab = arena.slab(&plan);
            let entry = NewEntry::new(&key, 0, seq, Kind::Put, b"");
            let carve = |slab: &mut Slab<'_>| Leaf::carve(arena, slab, 0, 0);
            match self.leaves.first(arena) {
                None => self.leaves.insert(arena, &mut slab, &entry, None, carve),
                Some(leaf) => {
                    self.leaves.insert_behind(arena, &mut slab, &entry, leaf, carve, between)
                }
            };
        }

        fn seek(&self, to: Seek<'_>) -> Pos {
            let mut pos = Pos::default();
            self.leaves.seek(&self.arena, &mut pos, BELOW, to, |_| self.leaves.first(&self.arena));
            pos
        }

        fn number_at(&self, pos: &Pos) -> Option<u64> {
            pos.at.map(|at| self.arena.seq(at))
        }

        fn step(&self, pos: &mut Pos, step: Walk) -> Option<u64> {
            Leaves::<8>::walk(&self.arena, pos, BELOW, step);
            self.number_at(pos)
        }

        /// Cursors on all keys.
        fn cursors(&self) -> Vec<Pos> {
            let key = |number: &u64| self.key(*number);
            self.numbers.iter().map(|n| self.seek(Seek::Ge(LookupKey::new(&key(n), 0)))).collect()
        }

        /// Every read shows exactly what is there below the bound; `cursors` were placed before.
        fn verify(&self, cursors: &[Pos], what: &str) {
            let numbers = &self.numbers;
            let mut pos = self.seek(Seek::First);
            for &number in numbers {
                assert_eq!(self.number_at(&pos), Some(number), "forwards, {what}");
                self.step(&mut pos, Walk::Next);
            }
            assert_eq!(pos.at, None, "forwards, {what}");
            let mut pos = self.seek(Seek::Last);
            for &number in numbers.iter().rev() {
                assert_eq!(self.number_at(&pos), Some(number), "backwards, {what}");
                self.step(&mut pos, Walk::Prev);
            }
            assert_eq!(pos.at, None, "backwards, {what}");
            for probe in 0..=numbers.last().map_or(0, |last| last + 1) {
                let key = self.key(probe);
                let k = LookupKey::new(&key, 0);
                let first = self.leaves.first(&self.arena).expect("not empty");
                let shown = Leaves::get(&self.arena, first, &k, BELOW);
                let own = numbers.binary_search(&probe).ok().map(|_| probe);
                assert_eq!(shown.map(|at| self.arena.seq(at)), own, "get {probe}, {what}");
                let ge = numbers.iter().copied().find(|&number| number >= probe);
                assert_eq!(self.number_at(&self.seek(Seek::Ge(k))), ge, "from {probe}, {what}");
                let le = numbers.iter().copied().rfind(|&number| number <= probe);
                assert_eq!(self.number_at(&self.seek(Seek::Le(k))), le, "to {probe}, {what}");
            }
            for (index, pos) in cursors.iter().enumerate() {
                let next = numbers.get(index + 1).copied();
                assert_eq!(self.step(&mut pos.clone(), Walk::Next), next, "step, {what}");
                let prev = index.checked_sub(1).map(|index| numbers[index]);
                assert_eq!(self.step(&mut pos.clone(), Walk::Prev), prev, "step back, {what}");
            }
        }
    }

    /// Not a race but all of them: every read runs between every two stores of every insert.
    #[test]
    fn a_key_is_behind_the_last_leaf_only_if_it_is_above_all_of_it() {
        let bed = Bed::new(b"", &[10, 20, 30]);
        let mut looks = 0;
        let mut between = || {
            for number in [5, 15, 25] {
                let key = bed.key(number);
                let found = bed.leaves.last_before(&bed.arena, &LookupKey::new(&key, 0));
                assert!(found.is_none(), "{number} is below 30");
            }
            looks += 1;
        };
        bed.put(17, 17, &mut between);
        assert!(looks > 0, "nobody looked while slots moved");
    }

    #[test]
    fn readers_see_all_that_was_there_between_any_two_stores_of_an_insert() {
        let counts: &[u64] = if cfg!(miri) { &[9] } else { &[1, 2, 7, 8, 9, 12, 16, 17, 20] };
        for prefix in [&b""[..], b"all heads are equal"] {
            for (&count, rising) in counts.iter().flat_map(|n| [(n, true), (n, false)]) {
                for new in (1..=count * 2 + 1).step_by(2) {
                    let mut numbers: Vec<_> = (1..=count).map(|number| number * 2).collect();
                    if !rising {
                        numbers.reverse();
                    }
                    let bed = Bed::new(prefix, &numbers);
                    let cursors = bed.cursors();
                    let mut stores = 0;
                    bed.put(new, BELOW + new, &mut || {
                        stores += 1;
                        bed.verify(&cursors, &format!("{new} into {numbers:?}, store {stores}"));
                    });
                    assert!(stores > 0);
                    bed.verify(&cursors, &format!("after {new} into {numbers:?}"));
                    assert_eq!(bed.leaves.check(&bed.arena), Ok(count + 1));
                }
            }
        }
    }

    #[test]
    fn random_writes_read_like_a_btree_map() {
        for kind in KINDS {
            let (table, mut model, mut random) = (table(kind), Model::new(), Random(11));
            for round in 0..40 {
                for _ in 0..5 {
                    let len = 1 + random.below(if round % 4 == 0 { 60 } else { 4 });
                    let batch: Vec<_> = (0..len).map(|_| random.write(0..600)).collect();
                    insert(&table, &mut model, &batch);
                }
                table.check().expect("the structure holds");
                if round % 10 == 9 {
                    compare(&table, &model, &mut random, 600);
                }
            }
            assert!(model.len() > 300, "the keys fill several blocks");
        }
    }

    #[test]
    fn a_cursor_sees_its_snapshot_while_blocks_split_under_it() {
        for kind in KINDS {
            for forward in [true, false] {
                let (table, mut model, mut random) = (table(kind), Model::new(), Random(5));
                let old: Vec<_> = (0..150).map(|_| random.write(0..100)).collect();
                insert(&table, &mut model, &old);
                let mut want: Vec<_> =
                    visible(&model, 100).iter().map(|(key, seq)| (key.to_vec(), *seq)).collect();
                if !forward {
                    want.reverse();
                }
                let (mut cursor, mut seen) = (table.cursor(100), Vec::new());
                let mut found = cursor.seek(if forward { Target::First } else { Target::Last });
                while found.expect("memory does not fail") {
                    seen.push((cursor.entry().key.to_vec(), cursor.entry().seq));
                    let new: Vec<_> = (0..3).map(|_| random.write(100..900)).collect();
                    insert(&table, &mut model, &new);
                    found = if forward { cursor.next() } else { cursor.prev() };
                }
                assert_eq!(seen, want, "{kind}, forward: {forward}");
                table.check().expect("the structure holds");
            }
        }
    }

    #[test]
    fn a_cursor_turns_round_at_every_key() {
        for kind in KINDS {
            let (table, mut model) = (table(kind), Model::new());
            let key = |number: u64| format!("key{number:05}").into_bytes();
            for number in (0..200).rev() {
                insert(&table, &mut model, &[(key(number), number, Kind::Put, Vec::new())]);
            }
            for number in 1..199 {
                let probe = key(number);
                let mut cursor = table.cursor(200);
                assert!(cursor.seek(Target::Ge(&probe)).expect("memory does not fail"));
                for (forward, want) in [(true, number + 1), (false, number), (false, number - 1)] {
                    let moved = if forward { cursor.next() } else { cursor.prev() };
                    assert!(moved.expect("memory does not fail"));
                    assert_eq!(cursor.entry().key, key(want), "{kind}");
                }
            }
        }
    }
}
