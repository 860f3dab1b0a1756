//! A skip list of records (Pugh, 1990): each distinct user key once, its versions chained behind it.
//!
//! ```text
//! link word   0       1      2..r    r        r + 1    ...
//! of a node   older   prev   room    next[0]  next[1]  ...  one per level of its tower
//! ```
//!
//! The record that brought a key in stays its node for ever, so towers never change; later versions hang
//! from its `older` word, newest first, without a tower. A node's own version may therefore be newer or
//! older than the head of its chain, and both are looked at. Heights come from the key's hash, so a replay
//! builds the same list, and the seed keeps writers from choosing them. The room belongs to another index
//! over the same nodes, if there is one.
//!
//! Used by `skiplist` and, beside its hash table, by `hash_skiplist`. Locking is the memtable's.

use std::cmp::Ordering as Order;

use memtide_base::SeqNo;
use memtide_base::sync::atomic::{AtomicU32, Ordering};

use crate::arena::{Arena, Ref, Slab, word_of};
use crate::chain;
use crate::contract::{Inserted, LookupKey, NewEntry, Pos, Seek, Walk};

/// Levels of the tallest tower: 4^14 keys.
const HEIGHT_MAX: usize = 14;
const PREV: u32 = 1;
/// The first link word that the list leaves to another index.
pub(crate) const ROOM: u32 = 2;

/// The list: the heads of its levels and its last node.
#[derive(Debug)]
pub(crate) struct SkipList {
    head: [AtomicU32; HEIGHT_MAX],
    last: AtomicU32,
    seed: u64,
    /// Link word of `next[0]`.
    tower: u32,
}

/// For each level the last node before a key; `None` is the head.
type Splice = [Option<Ref>; HEIGHT_MAX];

impl SkipList {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_room(seed, 0)
    }

    /// A list whose nodes have `words` link words from [`ROOM`] on that it never touches.
    pub(crate) fn with_room(seed: u64, words: u32) -> Self {
        Self { head: Default::default(), last: AtomicU32::new(0), seed, tower: ROOM + words }
    }

    /// Words in front of a record whose key has this hash.
    pub(crate) fn link_words(&self, hash: u64) -> u32 {
        // A quarter of the nodes of each level reach the next one.
        let coins = (hash ^ self.seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 8;
        let height = 1 + coins.trailing_zeros() / 2;
        #[expect(clippy::cast_possible_truncation, reason = "14")]
        let height = height.min(HEIGHT_MAX as u32);
        self.tower + height
    }

    /// Writes and links a record; also returns the node of its key.
    pub(crate) fn insert(
        &self,
        arena: &Arena,
        slab: &mut Slab<'_>,
        entry: &NewEntry<'_>,
    ) -> (Inserted, Ref) {
        let mut splice = [None; HEIGHT_MAX];
        if let Some(node) = self.find(arena, &entry.lookup(), &mut splice) {
            return (insert_version(arena, slab, entry, node), node);
        }
        let links = self.link_words(entry.hash);
        let node = slab.record(links, entry);
        for (level, before) in (0..links - self.tower).zip(splice) {
            let slot = self.next_slot(arena, before, level);
            arena
                .link(node, self.tower + level)
                .store(slot.load(Ordering::Relaxed), Ordering::Relaxed);
            slot.store(node.word(), Ordering::Release);
        }
        arena.link(node, PREV).store(word_of(splice[0]), Ordering::Relaxed);
        let after = self.next(arena, Some(node));
        let back = after.map_or(&self.last, |after| arena.link(after, PREV));
        back.store(node.word(), Ordering::Release);
        (Inserted::NewKey, node)
    }

    /// The node of a key.
    pub(crate) fn node(&self, arena: &Arena, k: &LookupKey<'_>) -> Option<Ref> {
        self.find(arena, k, &mut [None; HEIGHT_MAX])
    }

    /// Places `pos`; see [`crate::contract::MemIndex::seek`].
    pub(crate) fn seek(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, to: Seek<'_>) {
        let mut splice = [None; HEIGHT_MAX];
        let (start, forward) = match to {
            Seek::First => (self.next(arena, None), true),
            Seek::Last => (Ref::from_word(self.last.load(Ordering::Acquire)), false),
            Seek::Ge(k) => {
                let found = self.find(arena, &k, &mut splice);
                (found.or_else(|| self.next(arena, splice[0])), true)
            }
            Seek::Le(k) => (self.find(arena, &k, &mut splice).or(splice[0]), false),
        };
        self.settle(arena, pos, below, start, forward);
    }

    /// Moves `pos`; see [`crate::contract::MemIndex::walk`].
    pub(crate) fn walk(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, step: Walk) -> bool {
        let Some(node) = node_of(pos) else { return false };
        match step {
            Walk::Next => self.settle(arena, pos, below, self.next(arena, Some(node)), true),
            Walk::Prev => self.settle(arena, pos, below, self.prev(arena, node), false),
            Walk::Older => {
                let older = pos.at.and_then(|at| older_version(arena, node, at));
                pos.at = older.or(pos.at);
                older.is_some()
            }
        }
    }

    /// Puts `pos` on the first node from `start` on that has a visible version.
    fn settle(
        &self,
        arena: &Arena,
        pos: &mut Pos,
        below: SeqNo,
        start: Option<Ref>,
        forward: bool,
    ) -> bool {
        let mut node = start;
        while let Some(candidate) = node {
            pos.at = newest_version(arena, candidate, below);
            if pos.at.is_some() {
                pos.words[0] = u64::from(candidate.word());
                return true;
            }
            node = if forward { self.next(arena, node) } else { self.prev(arena, candidate) };
        }
        pos.at = None;
        false
    }

    /// The node of `k` if there is one; `splice` receives the last node before `k` on every level at or
    /// below the one where the search ended.
    fn find(&self, arena: &Arena, k: &LookupKey<'_>, splice: &mut Splice) -> Option<Ref> {
        let mut before = None;
        for level in (0..HEIGHT_MAX).rev() {
            #[expect(clippy::cast_possible_truncation, reason = "below 14")]
            let slot_level = level as u32;
            loop {
                let next = self.next_slot(arena, before, slot_level).load(Ordering::Acquire);
                let Some(node) = Ref::from_word(next) else { break };
                match compare(arena, node, k) {
                    Order::Less => before = Some(node),
                    Order::Equal => return Some(node),
                    Order::Greater => break,
                }
            }
            splice[level] = before;
        }
        None
    }

    fn next_slot<'a>(&'a self, arena: &'a Arena, node: Option<Ref>, level: u32) -> &'a AtomicU32 {
        node.map_or(&self.head[level as usize], |node| arena.link(node, self.tower + level))
    }

    fn next(&self, arena: &Arena, node: Option<Ref>) -> Option<Ref> {
        Ref::from_word(self.next_slot(arena, node, 0).load(Ordering::Acquire))
    }

    fn prev(&self, arena: &Arena, node: Ref) -> Option<Ref> {
        Ref::from_word(arena.link(node, PREV).load(Ordering::Acquire))
    }

    /// How many nodes the list has. O(n).
    pub(crate) fn len(&self, arena: &Arena) -> u64 {
        let nodes = std::iter::successors(self.next(arena, None), |&at| self.next(arena, Some(at)));
        nodes.count() as u64
    }

    /// What is wrong with the list, or how many records it holds: order, back links, towers, chains.
    pub(crate) fn check(&self, arena: &Arena) -> Result<u64, String> {
        let (mut records, mut before, mut node) = (0, None, self.next(arena, None));
        let mut levels = [0_u64; HEIGHT_MAX];
        while let Some(at) = node {
            let entry = arena.entry(at);
            if before.is_some_and(|before| arena.key(before) >= entry.key) {
                return Err(format!("key {:?} is out of order", entry.key));
            }
            if self.prev(arena, at) != before {
                return Err(format!("the back link of {:?} is wrong", entry.key));
            }
            records += check_versions(arena, at)?;
            (before, node) = (node, self.next(arena, node));
        }
        if Ref::from_word(self.last.load(Ordering::Acquire)) != before {
            return Err("the last node is not the last".to_owned());
        }
        for (level, count) in (0..).zip(&mut levels) {
            let mut at = Ref::from_word(self.head[level as usize].load(Ordering::Acquire));
            let mut last: Option<Ref> = None;
            while let Some(node) = at {
                if last.is_some_and(|last| arena.key(last) >= arena.key(node)) {
                    return Err(format!("level {level} is out of order"));
                }
                *count += 1;
                last = at;
                at = Ref::from_word(arena.link(node, self.tower + level).load(Ordering::Acquire));
            }
        }
        if !levels.is_sorted_by(|lower, upper| lower >= upper) {
            return Err(format!("an upper level has more nodes than a lower one: {levels:?}"));
        }
        Ok(records)
    }
}

/// Writes and links a version of the key of `node`, which is the first record of its key.
pub(crate) fn insert_version(
    arena: &Arena,
    slab: &mut Slab<'_>,
    entry: &NewEntry<'_>,
    node: Ref,
) -> Inserted {
    let chain_head = chain::older(arena, node);
    if arena.seq(node) == entry.seq || chain::contains(arena, chain_head, entry.seq) {
        return Inserted::Duplicate;
    }
    let version = slab.record(1, entry);
    chain::link(arena, arena.link(node, 0), version);
    Inserted::NewVersion
}

/// What is wrong with the versions of a node's key, or how many it has.
pub(crate) fn check_versions(arena: &Arena, node: Ref) -> Result<u64, String> {
    let (own, head) = (arena.entry(node), chain::older(arena, node));
    if head.is_some_and(|head| arena.key(head) != own.key) || chain::contains(arena, head, own.seq)
    {
        return Err(format!("the chain of {:?} has a stranger or a twin", own.key));
    }
    Ok(1 + chain::check(arena, head)?)
}

/// The newest version of a node's key with `seq < below`: its own or one of its chain.
#[inline]
pub(crate) fn newest_version(arena: &Arena, node: Ref, below: SeqNo) -> Option<Ref> {
    let chained = chain::newest_below(arena, chain::older(arena, node), below);
    let own = Some(node).filter(|&node| arena.seq(node) < below);
    match (own, chained) {
        (Some(own), Some(chained)) if arena.seq(own) > arena.seq(chained) => Some(own),
        (own, chained) => chained.or(own),
    }
}

/// The next older version behind `at`, which is the node itself or in its chain. Follows the chain, so walking
/// all versions is linear.
fn older_version(arena: &Arena, node: Ref, at: Ref) -> Option<Ref> {
    let seq = arena.seq(at);
    let chained = if at == node {
        chain::newest_below(arena, chain::older(arena, node), seq)
    } else {
        chain::older(arena, at)
    };
    let own = Some(node).filter(|&node| arena.seq(node) < seq);
    own.into_iter().chain(chained).max_by_key(|&version| arena.seq(version))
}

fn node_of(pos: &Pos) -> Option<Ref> {
    pos.at.and_then(|_| Ref::from_word(u32::try_from(pos.words[0]).expect("a node's word")))
}

#[inline]
fn compare(arena: &Arena, node: Ref, k: &LookupKey<'_>) -> Order {
    arena.head(node).cmp(&k.head).then_with(|| arena.key(node).cmp(k.key))
}
