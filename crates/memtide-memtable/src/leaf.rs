//! Sorted blocks and the doubly linked list of leaves made of them: what `sorted` and
//! `enhanced_skiplist` share. The two differ only in how they find the leaf of a key.
//!
//! Invariants
//! - Keys are distinct on a level and rise from slot to slot and from block to block.
//! - A full block that takes one more slot gives its upper half to a new block behind it. The last block of
//!   a level that is appended to moves nothing: the new slot alone goes into the new block. So every block
//!   but the last of its level is at least half full, and rising keys fill all blocks.
//! - A key never moves but to the right, and blocks are never freed: a block and an index name a key for as
//!   long as that slot holds the ref it held before.
//!
//! The bytes of a block are [`block`]'s.

mod block;

use memtide_base::sync::atomic::{AtomicU32, Ordering};
use memtide_base::{SeqNo, key};

pub(crate) use block::{Block, Level, RECORD};

use crate::arena::{Arena, Ref, Slab};
use crate::chain;
use crate::contract::{Inserted, LookupKey, NewEntry, Pos, Seek, Walk};

/// A leaf: each slot is a user key with the chain of its versions.
pub(crate) type Leaf<'a, const SLOTS: u32> = Block<'a, SLOTS, 1>;

/// The doubly linked list of all leaves.
#[derive(Debug, Default)]
pub(crate) struct Leaves<const SLOTS: u32> {
    first: AtomicU32,
    last: AtomicU32,
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

    /// Counts of the leaves.
    pub(crate) fn level(&self) -> &Level<SLOTS> {
        &self.level
    }

    /// Writes and links a record whose key belongs into `leaf`, which is `None` only while there is none.
    /// Also returns the leaf that had to be added, made with `front` words before it.
    pub(crate) fn insert<'a>(
        &self,
        arena: &'a Arena,
        slab: &mut Slab<'_>,
        entry: &NewEntry<'_>,
        leaf: Option<Leaf<'a, SLOTS>>,
        front: u32,
    ) -> (Inserted, Option<Leaf<'a, SLOTS>>) {
        let Some(leaf) = leaf else {
            let record = slab.record(1, entry);
            let first = Leaf::carve(arena, slab, front, front);
            first.begin(&self.level, &[(entry.head, &[record])]);
            self.last.store(first.place().word(), Ordering::Release);
            self.first.store(first.place().word(), Ordering::Release);
            return (Inserted::NewKey, Some(first));
        };
        match leaf.locate(&entry.lookup(), 0) {
            Ok(index) => (insert_version(arena, slab, entry, &leaf.lane(RECORD)[index]), None),
            Err(index) => {
                let record = slab.record(1, entry);
                let carve = || Leaf::carve(arena, slab, front, front);
                let added = leaf.add(&self.level, index, entry.head, &[record], carve);
                if let Some(last) = added.filter(|added| added.next().is_none()) {
                    self.last.store(last.place().word(), Ordering::Release);
                }
                (Inserted::NewKey, added)
            }
        }
    }

    /// Places `pos`; `find` names the leaf where a key belongs. See
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
        match to {
            Seek::First => forward(arena, pos, below, leaf, 0),
            Seek::Last => backward(arena, pos, below, leaf, leaf.count()),
            Seek::Ge(k) => {
                let from = leaf.locate(&k, 0).unwrap_or_else(|vacant| vacant);
                forward(arena, pos, below, leaf, from)
            }
            Seek::Le(k) => {
                let end = leaf.locate(&k, 0).map_or_else(|vacant| vacant, |found| found + 1);
                backward(arena, pos, below, leaf, end)
            }
        };
    }

    /// Moves `pos`; `find` as in [`Leaves::seek`]. See
    /// [`MemIndex::walk`](crate::contract::MemIndex::walk).
    pub(crate) fn walk<'a>(
        &self,
        arena: &'a Arena,
        pos: &mut Pos,
        below: SeqNo,
        step: Walk,
        find: impl FnOnce(&LookupKey<'_>) -> Option<Leaf<'a, SLOTS>>,
    ) -> bool {
        let Some(at) = pos.at else { return false };
        if step == Walk::Older {
            let older = chain::older(arena, at);
            pos.at = older.or(pos.at);
            return older.is_some();
        }
        let (leaf, index) = standing(arena, pos).unwrap_or_else(|| {
            let k = LookupKey::new(arena.key(at), 0);
            let leaf = find(&k).expect("the cursor's key has a leaf");
            (leaf, leaf.locate(&k, 0).expect("a key never leaves the index"))
        });
        match step {
            Walk::Next => forward(arena, pos, below, leaf, index + 1),
            Walk::Prev | Walk::Older => backward(arena, pos, below, leaf, index),
        }
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
            if leaf.heads()[index].load(Ordering::Relaxed) != key::head(own) {
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

/// The slot `pos` was placed on, unless an insert has changed it since.
#[inline]
fn standing<'a, const SLOTS: u32>(arena: &'a Arena, pos: &Pos) -> Option<(Leaf<'a, SLOTS>, usize)> {
    let leaf = Ref::from_word(u32::try_from(pos.words[0]).ok()?)?;
    let leaf = Leaf::<SLOTS>::at(arena, leaf);
    let index = usize::try_from(pos.words[1]).ok()?;
    let is_same =
        index < leaf.count() && u64::from(leaf.slot(RECORD, index).word()) == pos.words[2];
    is_same.then_some((leaf, index))
}

#[inline]
fn settle<const SLOTS: u32>(
    arena: &Arena,
    pos: &mut Pos,
    below: SeqNo,
    leaf: Leaf<'_, SLOTS>,
    index: usize,
) -> bool {
    let newest = leaf.slot(RECORD, index);
    pos.at = chain::newest_below(arena, Some(newest), below);
    if pos.at.is_some() {
        pos.words = [u64::from(leaf.place().word()), index as u64, u64::from(newest.word())];
    }
    pos.at.is_some()
}

/// Puts `pos` on the first visible version in slot `from` of `leaf` or behind it.
fn forward<'a, const SLOTS: u32>(
    arena: &'a Arena,
    pos: &mut Pos,
    below: SeqNo,
    mut leaf: Leaf<'a, SLOTS>,
    mut from: usize,
) -> bool {
    loop {
        if (from..leaf.count()).any(|index| settle(arena, pos, below, leaf, index)) {
            return true;
        }
        let Some(next) = leaf.next() else {
            pos.at = None;
            return false;
        };
        (leaf, from) = (next, 0);
    }
}

/// Puts `pos` on the last key before slot `end` of `leaf` that has a visible version.
fn backward<'a, const SLOTS: u32>(
    arena: &'a Arena,
    pos: &mut Pos,
    below: SeqNo,
    mut leaf: Leaf<'a, SLOTS>,
    mut end: usize,
) -> bool {
    loop {
        if (0..end).rev().any(|index| settle(arena, pos, below, leaf, index)) {
            return true;
        }
        let Some(prev) = leaf.prev() else {
            pos.at = None;
            return false;
        };
        (leaf, end) = (prev, prev.count());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use memtide_base::ledger::Ledger;
    use memtide_base::sync::Arc;
    use memtide_base::{Cursor, Kind, Target, hash};

    use super::*;
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

        fn write(&mut self, seqs: std::ops::Range<SeqNo>) -> Write {
            let kind = if self.below(4) == 0 { Kind::Delete } else { Kind::Put };
            let seq = seqs.start + self.below(seqs.end - seqs.start);
            let len = if kind == Kind::Put { self.len_below(20) } else { 0 };
            (self.key(), seq, kind, vec![b'v'; len])
        }
    }

    fn table(kind: MemtableType) -> Arc<Memtable> {
        let ledger = Ledger::unlimited();
        Memtable::new(&MemtableOptions { kind, bytes_max: 8 << 20, hash_seed: SEED, ledger })
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
