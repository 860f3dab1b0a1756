//! `trie`: an adaptive radix tree (Leis, Kemper, Neumann, 2013). Costs follow the length of a key, not
//! the number of keys, and bytes that keys share cost neither a node nor a comparison on the way down.
//!
//! ```text
//! slot -> 0                      only the root slot of an empty tree
//!      -> odd ref, a record      the newest version of a key, its chain behind it (link word 0)
//!      -> even ref, a node       see `node`: `end`, children by the byte at `end`, `here`
//! ```
//!
//! Invariants
//! - Nodes are carved 8-aligned, so their refs are even; a record with its link word is carved 8-aligned,
//!   so its ref is odd (at most 4 B of padding). One word therefore tells what it leads to, and every
//!   change is published by one Release store of one slot.
//! - A node has at least two of: children, a key that ends `here`. Keys below it share `end` bytes.
//! - No node is emptied, and a replaced one stays as it was.
//!
//! # Readers beside the writer
//! Synchronised as ROWEX (Leis, Scheibner, Kemper, Neumann, 2016), and simpler, because nothing is removed and
//! one writer needs no node locks: readers take no lock, never wait and never begin again. Let a key be *old*
//! if it was inserted before the read began; whatever else a reader meets or misses is above its bound.
//! - **Every slot leads to all old keys of its subtree, at any time.** A slot is stored three ways, each time
//!   Release and after what it leads to is whole: a child more (all others stay), a larger copy of the node
//!   (the writer copies all children), a node that is put above what was there. Readers load Acquire.
//! - **So does a node that was replaced, in the state in which it stays.** A reader finds it only through a
//!   slot it loaded before, when the node was in the tree with all old keys of its subtree. A walk therefore
//!   remembers nodes while it gathers what comes next, for as long as it likes.
//! - **A descent ends at a record that shares as many bytes with the wanted key as any old key does.** Take
//!   the old key that shares most, `m` bytes. While `end < m` the wanted byte is its byte, and has a child;
//!   once `end >= m` at a node above it, all keys below share `m` bytes.
//! - **A second descent finds what the first one found**, because a key once in the tree stays on the path of
//!   its bytes. What came between are keys that are not old; that a node parts there now from the wanted key
//!   says nothing about old ones, and its child for the wanted byte, if it has one now, leads to no old key.
//! - A walk ends: each step leads to a larger (smaller) key, even over keys that are not visible.
//!
//! The slots a writer changes are found by a descent of the same insert, which replaces one node at most: it
//! never stores into a node that is not in the tree.
//!
//! Paths are compressed optimistically: a descent looks only at the bytes where keys below differ and
//! compares the whole key once, with the record it ends at. That record shares with the wanted key as
//! many bytes as any key does, so the place of an absent key follows from where the two part.
//!
//! Choose it for long keys that share prefixes. Not for: short values under random binary keys.

mod census;
mod check;
mod node;
#[cfg(test)]
mod racing_test;
mod walk;

use memtide_base::SeqNo;
use memtide_base::key::shared_prefix_len;
use memtide_base::sync::atomic::{AtomicU32, Ordering};

use crate::arena::{Arena, Ref, Slab};
use crate::chain;
use crate::contract::{
    BatchShape, Cost, Descriptor, Inserted, LookupKey, MemIndex, NewEntry, Passed, Pos, Seek, Walk,
};
use census::Census;
use node::{Node, NodeKind, Way};

/// Padding that makes the ref of a record odd.
const RECORD_PADDING: u64 = 4;

#[derive(Debug)]
pub(crate) struct Trie {
    root: AtomicU32,
    census: Census,
}

/// What a word of a slot leads to.
enum Child<'a> {
    Leaf(Ref),
    Node(Node<'a>),
}

impl<'a> Child<'a> {
    #[inline]
    fn of(arena: &'a Arena, word: u32) -> Option<Self> {
        let at = Ref::from_word(word)?;
        Some(if word & 1 == 1 { Self::Leaf(at) } else { Self::Node(Node::open(arena, at)) })
    }
}

/// Where a descent for a key ended.
struct Nearest<'a> {
    /// A version of a key that shares with the wanted one as many bytes as any key does.
    record: Ref,
    /// Whether `record` is a leaf; else it is one below the node that has no child for the key.
    is_leaf: bool,
    /// The slot of that leaf or node.
    slot: &'a AtomicU32,
    /// Bytes that lead to the slot.
    depth: usize,
}

impl Trie {
    pub(crate) fn new() -> Self {
        Self { root: AtomicU32::new(0), census: Census::new() }
    }

    /// Descends by the bytes where keys differ; `None` if the tree is empty.
    #[inline]
    fn nearest<'a>(&'a self, arena: &'a Arena, key: &[u8]) -> Option<Nearest<'a>> {
        let (mut slot, mut depth) = (&self.root, 0);
        loop {
            let inner = match Child::of(arena, slot.load(Ordering::Acquire))? {
                Child::Leaf(record) => {
                    return Some(Nearest { record, is_leaf: true, slot, depth });
                }
                Child::Node(inner) => inner,
            };
            let end = inner.end();
            let (next, below) = match key.get(end) {
                Some(&byte) => (inner.find(byte), end + 1),
                None if key.len() == end => (Some(inner.here()).filter(|slot| is_set(slot)), end),
                None => (None, end),
            };
            let Some(next) = next else {
                return Some(Nearest { record: inner.rep(), is_leaf: false, slot, depth });
            };
            (slot, depth) = (next, below);
        }
    }

    /// Inserts a key that is not there; `shared` is how many bytes it has in common with `near`.
    fn insert_key(
        &self,
        arena: &Arena,
        slab: &mut Slab<'_>,
        entry: &NewEntry<'_>,
        near: &Nearest<'_>,
        shared: usize,
    ) {
        let mut slot = if near.depth <= shared { near.slot } else { &self.root };
        loop {
            match Child::of(arena, slot.load(Ordering::Acquire)) {
                Some(Child::Node(node)) if node.end() < shared => {
                    slot = child_on_path(&node, entry.key);
                }
                Some(Child::Node(node)) if node.end() == shared => {
                    return self.insert_child(arena, slab, entry, slot, node);
                }
                _ => return self.split(arena, slab, entry, slot, near.record, shared),
            }
        }
    }

    /// Adds the key to the node in `slot`, whose `end` is where it parts from the keys there.
    fn insert_child(
        &self,
        arena: &Arena,
        slab: &mut Slab<'_>,
        entry: &NewEntry<'_>,
        slot: &AtomicU32,
        mut node: Node<'_>,
    ) {
        let Some(&byte) = entry.key.get(node.end()) else {
            return node.here().store(leaf(slab, entry).word(), Ordering::Release);
        };
        if !node.is_full() {
            node.add(byte, leaf(slab, entry).word());
            return self.census.gained(node.kind(), node.count());
        }
        // Nodes are carved before the record: then an insert pads once at most.
        let mut larger = node.grown(arena, slab.words8(node.kind().larger().words8()));
        larger.add(byte, leaf(slab, entry).word());
        slot.store(larger.at().word(), Ordering::Release);
        self.census.died(node.kind());
        self.census.born(larger.kind(), larger.count());
    }

    /// Puts a node between `slot` and what it leads to, whose keys part from the new one at `shared`.
    fn split(
        &self,
        arena: &Arena,
        slab: &mut Slab<'_>,
        entry: &NewEntry<'_>,
        slot: &AtomicU32,
        other: Ref,
        shared: usize,
    ) {
        let at = slab.words8(NodeKind::N4.words8());
        let mut node = Node::create(arena, at, NodeKind::N4, shared, other);
        let old = slot.load(Ordering::Acquire);
        if cfg!(plant = "trie_publishes_before_write") {
            slot.store(at.word(), Ordering::Release);
        }
        for (key, word) in [(arena.key(other), old), (entry.key, leaf(slab, entry).word())] {
            match key.get(shared) {
                Some(&byte) => node.add(byte, word),
                None => node.here().store(word, Ordering::Release),
            }
        }
        slot.store(at.word(), Ordering::Release);
        self.census.born(NodeKind::N4, node.count());
    }
}

impl MemIndex for Trie {
    fn descriptor(&self) -> Descriptor {
        Descriptor {
            insert: Cost::KeyLength,
            get: Cost::KeyLength,
            seek: Cost::KeyLength,
            step: Cost::KeyLength,
        }
    }

    fn link_words(&self, _hash: u64) -> u32 {
        1
    }

    fn index_bytes_max(&self, _arena: &Arena, shape: &BatchShape) -> u64 {
        shape.entries * RECORD_PADDING + self.census.growth_bytes_max(shape.entries)
    }

    fn insert(&self, arena: &Arena, slab: &mut Slab<'_>, entry: &NewEntry<'_>) -> Inserted {
        let Some(near) = self.nearest(arena, entry.key) else {
            self.root.store(leaf(slab, entry).word(), Ordering::Release);
            return Inserted::NewKey;
        };
        let other = arena.key(near.record);
        let shared = shared_prefix_len(entry.key, other);
        if shared < entry.key.len() || shared < other.len() {
            self.insert_key(arena, slab, entry, &near, shared);
            return Inserted::NewKey;
        }
        debug_assert!(near.is_leaf, "a descent for a key of the tree ends at its leaf");
        if chain::contains(arena, Some(near.record), entry.seq) {
            return Inserted::Duplicate;
        }
        chain::link(arena, near.slot, leaf(slab, entry));
        Inserted::NewVersion
    }

    fn get(&self, arena: &Arena, k: &LookupKey<'_>, below: SeqNo) -> Option<Ref> {
        let near = self.nearest(arena, k.key).filter(|near| near.is_leaf)?;
        let newest = arena.entry(near.record);
        if newest.key != k.key {
            return None;
        }
        if newest.seq < below {
            return Some(near.record);
        }
        chain::newest_below(arena, chain::older(arena, near.record), below)
    }

    fn seek(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, to: Seek<'_>) {
        self.seek_from_root(arena, pos, below, to);
    }

    fn walk(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, step: Walk) -> bool {
        self.walk_from(arena, pos, below, step)
    }

    fn walk_ahead(
        &self,
        arena: &Arena,
        pos: &mut Pos,
        below: SeqNo,
        step: Walk,
        passed: &mut [Passed],
    ) -> usize {
        match step {
            Walk::Next => self.gather_ahead(arena, pos, below, Way::Up, passed),
            Walk::Prev => self.gather_ahead(arena, pos, below, Way::Down, passed),
            Walk::Older => usize::from(self.walk(arena, pos, below, step)),
        }
    }

    fn check(&self, arena: &Arena, records: u64) -> Result<(), String> {
        check::check(arena, &self.root, &self.census, records)
    }
}

/// Writes a record whose ref is odd.
fn leaf(slab: &mut Slab<'_>, entry: &NewEntry<'_>) -> Ref {
    // Nothing, 8-aligned: the link word then begins at an even ref and the record follows it.
    slab.words8(0);
    let at = slab.record(1, entry);
    debug_assert_eq!(at.word() % 2, 1, "leaves are told from nodes by the lowest bit");
    at
}

/// The slot for `key` in a node whose keys share more with it than where they part.
#[inline]
fn child_on_path<'a>(node: &Node<'a>, key: &[u8]) -> &'a AtomicU32 {
    node.find(key[node.end()]).expect("a key that shares this byte went the same way")
}

#[inline]
fn is_set(slot: &AtomicU32) -> bool {
    slot.load(Ordering::Acquire) != 0
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::{BTreeMap, BTreeSet};

    use memtide_base::sync::atomic::AtomicU64;
    use memtide_base::{Kind, hash};
    use proptest::prelude::*;

    use super::*;
    use crate::record::record_bytes;

    /// A trie with its memory: every batch gets exactly the bytes that were promised for it.
    pub(super) struct Bare {
        pub(super) arena: Arena,
        pub(super) trie: Trie,
        records: AtomicU64,
    }

    pub(super) type Write = (Vec<u8>, SeqNo);

    impl Bare {
        pub(super) fn new() -> Self {
            Self { arena: Arena::new(1 << 30), trie: Trie::new(), records: AtomicU64::new(0) }
        }

        fn of(keys: impl IntoIterator<Item = Vec<u8>>) -> Self {
            let bare = Self::new();
            keys.into_iter().for_each(|key| bare.insert(&[(key, 1)]));
            bare
        }

        /// Inserts puts with their sequence number as value.
        pub(super) fn insert(&self, batch: &[Write]) {
            let record = |(key, _): &Write| 4 + record_bytes(key.len(), 8);
            let record_bytes = batch.iter().map(record).sum();
            let shape =
                BatchShape { entries: batch.len() as u64, record_bytes, ..BatchShape::default() };
            let bytes = record_bytes + self.trie.index_bytes_max(&self.arena, &shape);
            let plan = self
                .arena
                .plan(bytes, crate::arena::Beside::default())
                .expect("the arena is large enough");
            assert!(self.arena.allocate(&plan));
            let mut slab = self.arena.slab(&plan);
            for (key, seq) in batch {
                let value = seq.to_le_bytes();
                let entry = NewEntry::new(key, 0, *seq, Kind::Put, &value);
                let inserted = self.trie.insert(&self.arena, &mut slab, &entry);
                let new = u64::from(inserted != Inserted::Duplicate);
                self.records.fetch_add(new, Ordering::Relaxed);
            }
        }

        pub(super) fn records(&self) -> u64 {
            self.records.load(Ordering::Relaxed)
        }

        pub(super) fn check(&self) {
            self.trie.check(&self.arena, self.records()).expect("the structure holds");
        }

        pub(super) fn seek(&self, below: SeqNo, to: Seek<'_>) -> Pos {
            let mut pos = Pos::default();
            self.trie.seek(&self.arena, &mut pos, below, to);
            pos
        }

        /// What a cursor meets from `to` on: keys with the newest visible sequence number.
        fn walked(&self, below: SeqNo, to: Seek<'_>, step: Walk) -> Vec<Write> {
            let mut pos = self.seek(below, to);
            let mut met = Vec::new();
            while let Some(at) = pos.at {
                met.push((self.arena.key(at).to_vec(), self.arena.seq(at)));
                self.trie.walk(&self.arena, &mut pos, below, step);
            }
            met
        }

        fn root(&self) -> Node<'_> {
            match Child::of(&self.arena, self.trie.root.load(Ordering::Relaxed)) {
                Some(Child::Node(node)) => node,
                _ => panic!("the root is no node"),
            }
        }
    }

    #[test]
    fn the_root_grows_through_all_kinds_and_its_old_selves_are_dead() {
        let bare = Bare::of([]);
        let kinds =
            [(4, NodeKind::N4), (16, NodeKind::N16), (48, NodeKind::N48), (256, NodeKind::N256)];
        let mut sizes = kinds.into_iter().peekable();
        for count in 1..=256_u32 {
            // 167 is odd, so every byte comes once, in no order.
            let byte = u8::try_from(count * 167 % 256).expect("below 256");
            bare.insert(&[(vec![b'x', byte], u64::from(count))]);
            bare.check();
            if count > 1 {
                let _ = sizes.next_if(|&(most, _)| count > most);
                let kind = sizes.peek().expect("256 is the most").1;
                assert_eq!((bare.root().kind(), bare.root().count()), (kind, count));
            }
        }
        let walked = bare.walked(SeqNo::MAX, Seek::First, Walk::Next);
        let keys: Vec<_> = walked.into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, (0..=255).map(|byte| vec![b'x', byte]).collect::<Vec<_>>());
    }

    #[test]
    fn a_split_puts_a_node_above_and_leaves_the_one_below_as_it_was() {
        let bare = Bare::of([b"tide:low".to_vec(), b"tide:high".to_vec()]);
        let below = bare.root().at();
        assert_eq!(bare.root().end(), 5);
        bare.insert(&[(b"tidal".to_vec(), 3)]);
        assert_eq!((bare.root().end(), bare.root().count()), (3, 2));
        let kept = bare.root().find(b'e').expect("the old root is below").load(Ordering::Relaxed);
        assert_eq!(kept, below.word());
        bare.insert(&[(b"ti".to_vec(), 4)]);
        assert_eq!((bare.root().end(), bare.root().count()), (2, 1));
        assert!(is_set(bare.root().here()), "the shorter key ends in the node");
        bare.check();
    }

    #[test]
    fn keys_of_every_depth_on_one_path_need_no_stack() {
        let path = vec![0xAB; 65_535];
        let lens: Vec<usize> = (0..=255).map(|i| i * 257).rev().collect();
        let bare = Bare::of(lens.iter().map(|&len| path[..len].to_vec()));
        bare.check();
        let up: Vec<_> =
            bare.walked(9, Seek::First, Walk::Next).iter().map(|w| w.0.len()).collect();
        assert!(up.iter().rev().eq(&lens), "{up:?}");
        let down: Vec<_> =
            bare.walked(9, Seek::Last, Walk::Prev).iter().map(|w| w.0.len()).collect();
        assert_eq!(down, lens);
        assert_eq!(
            bare.walked(9, Seek::Ge(LookupKey::new(&path[..300], 0)), Walk::Next).len(),
            254
        );
        assert_eq!(bare.walked(9, Seek::Le(LookupKey::new(&path[..300], 0)), Walk::Prev).len(), 2);
    }

    #[test]
    fn a_walk_leaves_a_path_that_is_deeper_than_it_remembers() {
        let on_path = (0..=40).map(|len| vec![b'm'; len]);
        // Beside the path: near its start, so that all of the deepest nodes have nothing there.
        let beside = [b"mmmn", b"mmml"].into_iter().map(|key| key.to_vec());
        let keys: BTreeSet<_> = on_path.chain(beside).chain([b"n".to_vec()]).collect();
        let bare = Bare::of(keys.iter().cloned());
        let writes = |range: &mut dyn Iterator<Item = &Vec<u8>>| {
            range.map(|key| (key.clone(), 1)).collect::<Vec<_>>()
        };
        for absent in [vec![b'm'; 41], [&[b'm'; 39][..], b"l"].concat(), b"mmmm".to_vec()] {
            let k = LookupKey::new(&absent, 0);
            let above = writes(&mut keys.range(absent.clone()..));
            assert_eq!(bare.walked(9, Seek::Ge(k), Walk::Next), above, "from {absent:?} on");
            let under = writes(&mut keys.range(..=absent.clone()).rev());
            assert_eq!(bare.walked(9, Seek::Le(k), Walk::Prev), under, "from {absent:?} back");
        }
    }

    #[test]
    fn a_walk_finds_the_few_visible_keys_among_many_hidden_ones() {
        let key = |i: u64| hash::key_hash(5, &i.to_le_bytes()).to_be_bytes().to_vec();
        let bare = Bare::new();
        let seq = |i: u64| if i.is_multiple_of(700) { 1 } else { 2 };
        (0..5000).for_each(|i| bare.insert(&[(key(i), seq(i))]));
        let mut visible: Vec<Write> = (0..5000).step_by(700).map(|i| (key(i), 1)).collect();
        visible.sort_unstable();
        assert_eq!(bare.walked(2, Seek::First, Walk::Next), visible);
        visible.reverse();
        assert_eq!(bare.walked(2, Seek::Last, Walk::Prev), visible);
    }

    #[test]
    fn a_position_in_a_replaced_node_still_meets_every_older_key() {
        let key = |byte: u8| vec![b'k', byte];
        let bare = Bare::of([key(10), key(20), key(30), key(40)]);
        let mut pos = bare.seek(2, Seek::First);
        let stood_in = bare.root().at();
        // The root grows twice; then the leaf the walk comes to next becomes a node.
        bare.insert(&(41..=90).map(|byte| (key(byte), 2)).collect::<Vec<_>>());
        bare.insert(&[(b"k\x14more".to_vec(), 3), (key(20), 4)]);
        assert_ne!(bare.root().at(), stood_in);
        let mut met = Vec::new();
        while let Some(at) = pos.at {
            met.push((bare.arena.key(at).to_vec(), bare.arena.seq(at)));
            bare.trie.walk(&bare.arena, &mut pos, 2, Walk::Next);
        }
        assert_eq!(met, [10, 20, 30, 40].map(|byte| (key(byte), 1)));
    }

    #[test]
    fn the_bound_of_a_batch_stays_near_what_it_takes() {
        let scattered = |i: u64| hash::key_hash(1, &i.to_le_bytes()).to_be_bytes().to_vec();
        let bare = Bare::new();
        for first in (0..20_000).step_by(1000) {
            let batch: Vec<_> = (first..first + 1000).map(|i| (scattered(i), i + 1)).collect();
            let shape = BatchShape { range_deletes: 0, entries: 1000, ..BatchShape::default() };
            let promised = bare.trie.index_bytes_max(&bare.arena, &shape);
            assert!(promised <= 250 * 1000, "{promised} B promised for 1000 keys from {first} on");
            bare.insert(&batch);
        }
        bare.check();
        let nodes = bare.trie.census.carved_bytes();
        assert!(nodes <= 28 * 20_000, "{nodes} B of nodes for 20000 random keys");
    }

    #[test]
    fn a_batch_in_which_every_key_grows_a_node_fits_its_bound() {
        let key = |group: u8, last: u8| vec![group, b'x', b'x', b'x', last];
        let keys = |group: u8| (0..4).map(move |last| key(group, last));
        let bare = Bare::of((0..8).flat_map(keys));
        // The records are 28 B long, so each of them leaves a gap before the next node.
        bare.insert(&(0..8).map(|group| (key(group, 4), 1)).collect::<Vec<_>>());
        bare.check();
    }

    /// Short keys over few bytes, so that they are prefixes of each other, and a few long ones.
    fn keys() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![Just(0_u8), Just(0xFF), Just(b'a'), Just(b'b')];
        let short = prop::collection::vec(byte, 0..6);
        let wide = (any::<u8>(), any::<bool>())
            .prop_map(|(byte, more)| if more { vec![b'w', byte, 0] } else { vec![b'w', byte] });
        let long = (0..40_usize, any::<bool>()).prop_map(|(len, odd)| {
            let mut key = vec![0xFF; 2000 + len];
            key.extend(odd.then_some(7));
            key
        });
        prop_oneof![4 => short, 4 => wide, 1 => long]
    }

    fn newest(
        model: &BTreeSet<(Vec<u8>, Reverse<SeqNo>)>,
        below: SeqNo,
    ) -> BTreeMap<Vec<u8>, SeqNo> {
        let visible = model.iter().rev().filter(|(_, seq)| seq.0 < below);
        visible.map(|(key, seq)| (key.clone(), seq.0)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        /// Batches with versions out of order and twice; gets, seeks and walks at several bounds.
        #[test]
        fn everything_a_model_says_holds(
            batches in prop::collection::vec(prop::collection::vec((keys(), 1..60_u64), 0..60), 0..8),
            probes in prop::collection::vec(keys(), 0..12),
        ) {
            let (bare, mut model) = (Bare::new(), BTreeSet::new());
            for batch in &batches {
                bare.insert(batch);
                model.extend(batch.iter().map(|(key, seq)| (key.clone(), Reverse(*seq))));
                bare.check();
            }
            prop_assert_eq!(bare.records(), model.len() as u64);
            for below in [0, 1, 2, 20, 41, 60] {
                let known = newest(&model, below);
                let pairs = || known.iter().map(|(key, seq)| (key.clone(), *seq));
                let up = bare.walked(below, Seek::First, Walk::Next);
                prop_assert_eq!(up, pairs().collect::<Vec<_>>());
                let down = bare.walked(below, Seek::Last, Walk::Prev);
                prop_assert_eq!(down, pairs().rev().collect::<Vec<_>>());
                for probe in probes.iter().chain(model.iter().map(|(key, _)| key).take(20)) {
                    let k = LookupKey::new(probe, 0);
                    let got = bare.trie.get(&bare.arena, &k, below).map(|at| bare.arena.entry(at));
                    prop_assert_eq!(got.map(|entry| (entry.key, entry.seq)),
                        known.get(probe).map(|seq| (probe.as_slice(), *seq)));
                    let met = bare.walked(below, Seek::Ge(k), Walk::Next);
                    let above = pairs().filter(|w| w.0 >= *probe);
                    prop_assert_eq!(met, above.collect::<Vec<_>>());
                    let met = bare.walked(below, Seek::Le(k), Walk::Prev);
                    let under = pairs().rev().filter(|w| w.0 <= *probe);
                    prop_assert_eq!(met, under.collect::<Vec<_>>());
                }
            }
        }

        /// A walk may turn at any key, and look at older versions before it goes on.
        #[test]
        fn a_walk_turns_anywhere(
            batch in prop::collection::vec((keys(), 1..20_u64), 1..80),
            turns in prop::collection::vec(any::<(bool, bool)>(), 0..120),
        ) {
            let bare = Bare::new();
            bare.insert(&batch);
            let model: BTreeSet<_> = batch.into_iter().map(|(key, seq)| (key, Reverse(seq))).collect();
            let known: Vec<_> = newest(&model, 15).into_iter().collect();
            let (mut pos, mut index) = (bare.seek(15, Seek::First), Some(0));
            for (up, look_older) in turns {
                let want = index.and_then(|index: usize| known.get(index));
                let stands = pos.at.map(|at| (bare.arena.key(at).to_vec(), bare.arena.seq(at)));
                prop_assert_eq!(stands.as_ref(), want);
                let Some((key, newest)) = want else { break };
                if look_older {
                    let mut seqs = vec![*newest];
                    while bare.trie.walk(&bare.arena, &mut pos, 15, Walk::Older) {
                        seqs.push(bare.arena.seq(pos.at.expect("an older version")));
                    }
                    let of_key = model.iter().filter(|w| w.0 == *key).map(|w| w.1.0);
                    prop_assert_eq!(seqs, of_key.filter(|&seq| seq < 15).collect::<Vec<_>>());
                }
                index = if up { index.map(|i| i + 1) } else { index.and_then(|i| i.checked_sub(1)) };
                bare.trie.walk(&bare.arena, &mut pos, 15, if up { Walk::Next } else { Walk::Prev });
            }
        }
    }
}
