//! A skip list of records (Pugh, 1990): each distinct user key once, its versions chained behind it. Any number
//! of threads insert and read at once (Herlihy, Lev, Luchangco, Shavit, 2007, without their removals).
//!
//! ```text
//! link word   0       1      2..r    then, 8-aligned, 64 bits each
//! of a node   older   prev   room    next[0]  next[1]  ...  one per level of its tower
//!
//! a link      bits 32..64   the first 32 bits of the next node's head
//!             bits 0..32    that node's ref, 0 at the end of the level
//! ```
//!
//! A link says where it leads and, mostly, how the key there compares: only a tie is looked up in the record, so
//! the nodes that a search overshoots are never touched.
//!
//! The record that brought a key in stays its node for ever, so towers never change; later versions hang
//! from its `older` word, newest first, without a tower. A node's own version may therefore be newer or
//! older than the head of its chain, and both are looked at. Heights come from the key's hash, so a replay
//! builds the same list, and the seed keeps writers from choosing them. The room belongs to another index
//! over the same nodes, if there is one.
//!
//! # Invariants, at every moment
//! - A level only gains nodes, by a compare-and-swap of the one link over the gap; so a node once seen before
//!   a key stays before it, and a splice that others have overtaken is a place to walk on from.
//! - A node is on level `l` after it is on all lower ones, and its links up to `l` lead to where it was put.
//! - Level 0 decides who brings a key in: who finds it there on a second look becomes a version.
//! - `prev` and `last` are hints: a node at or before the true one, from which its level leads there. Only
//!   writers in a race leave a hint late; the reader or writer who finds it so moves it.
//!
//! Readers take no lock, wait for nobody and meet whole nodes only: each link is stored Release after what it
//! leads to and loaded Acquire.
//!
//! Used by `skiplist` and, beside its hash table, by `hash_skiplist`.

use std::cmp::Ordering as Order;

use memtide_base::SeqNo;
use memtide_base::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::arena::{Arena, Ref, Slab, word_of};
use crate::contract::{BatchShape, Inserted, LookupKey, NewEntry, Passed, Pos, Seek, Walk};
use crate::{chain, warm};

/// Levels of the tallest tower, for (8/3)^18 keys.
const HEIGHT_MAX: usize = 18;
const PREV: u32 = 1;
/// The first link word that the list leaves to another index.
pub(crate) const ROOM: u32 = 2;

/// The list: its levels' heads and last nodes.
#[derive(Debug)]
pub(crate) struct SkipList {
    /// A tower as long as any; as in all towers the link of level 0 comes last.
    head: [AtomicU64; HEIGHT_MAX],
    /// For each level a link to its last node or one before: a hint.
    last: [AtomicU64; HEIGHT_MAX],
    /// Levels in use, or fewer for a moment: searches begin there.
    height: AtomicU32,
    seed: u64,
    /// Link words before the tower.
    tower: u32,
}

/// A word of a tower: a node and the beginning of its key, or the end of the level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link(u64);

impl Link {
    const HEAD_BITS: u64 = !0 << 32;
    /// No node, and above all that begin otherwise.
    const END: Self = Self(Self::HEAD_BITS);

    /// A link to a node whose key has this head.
    fn new(node: Ref, head: u64) -> Self {
        Self(head & Self::HEAD_BITS | u64::from(node.word()))
    }

    #[inline]
    fn load(word: &AtomicU64) -> Self {
        // Acquire pairs with the Release in `link`: the node behind the link is whole.
        Self(word.load(Ordering::Acquire))
    }

    #[inline]
    fn node(self) -> Option<Ref> {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is the ref")]
        Ref::from_word(self.0 as u32)
    }

    /// How the key there compares with `k`; the end of a level is above every key.
    #[inline]
    fn compare(self, arena: &Arena, k: &LookupKey<'_>) -> Order {
        if self.0 < k.head & Self::HEAD_BITS {
            Order::Less
        } else if self.0 > k.head | !Self::HEAD_BITS {
            Order::Greater
        } else {
            self.compare_keys(arena, k)
        }
    }

    /// As [`Link::compare`], as far as the link says itself.
    #[inline]
    fn compare_heads(self, k: &LookupKey<'_>) -> Order {
        (self.0 & Self::HEAD_BITS).cmp(&(k.head & Self::HEAD_BITS))
    }

    /// As [`Link::compare`], for a link that begins as `k` does.
    #[inline(never)]
    fn compare_keys(self, arena: &Arena, k: &LookupKey<'_>) -> Order {
        self.node().map_or(Order::Greater, |node| arena.key(node).cmp(k.key))
    }
}

/// A search on its way.
struct Descent<'a, 'k> {
    k: LookupKey<'k>,
    /// The links that are still to be looked at, of the last node before the key.
    tower: &'a [AtomicU64],
    beyond: Link,
    /// Whether the record that the first link leads to was asked for, to compare its key.
    tie: bool,
}

/// For each level of a new node a node before it on that level; `None` is the head.
type Splice = [Option<Ref>];

impl SkipList {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_room(seed, 0)
    }

    /// A list whose nodes have `words` link words from [`ROOM`] on that it never touches.
    pub(crate) fn with_room(seed: u64, words: u32) -> Self {
        let ends = || std::array::from_fn(|_| AtomicU64::new(Link::END.0));
        let tower = (ROOM + words).next_multiple_of(2);
        Self { head: ends(), last: ends(), height: AtomicU32::new(1), seed, tower }
    }

    /// Words in front of a record whose key has this hash.
    pub(crate) fn link_words(&self, hash: u64) -> u32 {
        self.tower + 2 * self.height_of(hash)
    }

    /// Levels of the tower of a key with this hash.
    #[inline]
    fn height_of(&self, hash: u64) -> u32 {
        // Three eighths of the nodes of each level reach the next one: a search touches the nodes it passes and
        // not those it overshoots, so it gains from more levels until their bytes cost more.
        let product = u128::from(hash ^ self.seed) * 0x9E37_79B9_7F4A_7C15;
        #[expect(clippy::cast_possible_truncation, reason = "both halves, folded, and 18")]
        let (coins, max) = ((product >> 64) as u64 ^ product as u64, HEIGHT_MAX as u32);
        let up = coins & (coins >> 21 | coins >> 42);
        (1 + up.trailing_ones()).min(max)
    }

    /// Most bytes beside records and link words that a batch takes: what aligns its nodes.
    pub(crate) fn bytes_max(shape: &BatchShape) -> u64 {
        4 * shape.entries
    }

    /// Writes and links a record; also returns the node of its key. Any number of threads may insert at once.
    pub(crate) fn insert(
        &self,
        arena: &Arena,
        slab: &mut Slab<'_>,
        entry: &NewEntry<'_>,
    ) -> (Inserted, Ref) {
        let mut splice = [None; HEIGHT_MAX];
        let splice = &mut splice[..self.height_of(entry.hash) as usize];
        if let Some(node) = self.locate(arena, &entry.lookup(), splice) {
            return (insert_version(arena, slab, entry, node), node);
        }
        let node = slab.record8(self.link_words(entry.hash), entry);
        self.link(arena, node, entry, splice)
    }

    /// The node of `k`, or on each level of the splice a node before it, mostly the last one.
    fn locate(&self, arena: &Arena, k: &LookupKey<'_>, splice: &mut Splice) -> Option<Ref> {
        // Rising keys need no search. All that was on a level when its hint was loaded is no larger than the
        // last node, if that is still seen to be the last.
        let mut last = Link::END;
        for (before, hint) in splice.iter_mut().zip(&self.last).rev() {
            last = Link::load(hint);
            *before = last.node();
        }
        if last != Link::END && self.next(arena, last.node()).is_none() {
            match last.compare(arena, k) {
                Order::Less => return None,
                Order::Equal => return last.node(),
                Order::Greater => {}
            }
        }
        // Levels above those that the search begins on are walked from the head.
        splice.fill(None);
        self.find(arena, k, |level, before, _| {
            if let Some(last) = splice.get_mut(level) {
                *last = before;
            }
        })
    }

    /// Links a written record whose key was absent when the splice was made, or chains it to the node that
    /// has come in meanwhile.
    fn link(
        &self,
        arena: &Arena,
        node: Ref,
        entry: &NewEntry<'_>,
        splice: &Splice,
    ) -> (Inserted, Ref) {
        let (k, link) = (entry.lookup(), Link::new(node, entry.head));
        for (level, &(mut before)) in splice.iter().enumerate() {
            loop {
                let over = Link::load(self.slot(arena, before, level));
                match over.compare(arena, &k) {
                    Order::Less => {
                        before = over.node();
                        continue;
                    }
                    Order::Equal if !cfg!(plant = "skiplist_inserts_twice") => {
                        let twin = over.node().expect("no end equals a key");
                        return (adopt_version(arena, twin, node), twin);
                    }
                    Order::Equal | Order::Greater => {}
                }
                self.slot(arena, Some(node), level).store(over.0, Ordering::Relaxed);
                if level == 0 {
                    arena.link(node, PREV).store(word_of(before), Ordering::Relaxed);
                }
                // Release pairs with `Link::load`: who meets the node sees its record and its links up to here.
                let linked = self.slot(arena, before, level).compare_exchange(
                    over.0,
                    link.0,
                    Ordering::Release,
                    Ordering::Relaxed,
                );
                if linked.is_ok() {
                    self.hint(arena, level, over, link);
                    break;
                }
            }
        }
        #[expect(clippy::cast_possible_truncation, reason = "18")]
        let height = splice.len() as u32;
        if self.height.load(Ordering::Relaxed) < height {
            // Relaxed: a search that begins too low is slower, one that begins too high meets empty levels.
            self.height.fetch_max(height, Ordering::Relaxed);
        }
        (Inserted::NewKey, node)
    }

    /// Moves the hint to the last node of a level, or that of the node behind, to a node just linked.
    fn hint(&self, arena: &Arena, level: usize, over: Link, link: Link) {
        // Release pairs with the Acquire of those who follow the hint.
        match over.node() {
            None => self.last[level].store(link.0, Ordering::Release),
            Some(after) if level == 0 => {
                arena.link(after, PREV).store(word_of(link.node()), Ordering::Release);
            }
            Some(_) => {}
        }
    }

    /// The node of a key.
    pub(crate) fn node(&self, arena: &Arena, k: &LookupKey<'_>) -> Option<Ref> {
        self.find(arena, k, |_, _, _| ())
    }

    /// See [`crate::contract::MemIndex::warm`].
    pub(crate) fn warm(&self, arena: &Arena, keys: &[LookupKey<'_>]) {
        let height = self.height.load(Ordering::Relaxed) as usize;
        let head = self.tower(arena, None, height);
        let begin = |k| Descent { k, tower: head, beyond: Link::END, tie: false };
        warm::in_lock_step(keys, begin, |descent| self.hop(arena, descent));
    }

    /// Goes on with a descent as [`SkipList::find`] does, until it meets a node; `false` at its end.
    #[inline]
    fn hop<'a>(&'a self, arena: &'a Arena, descent: &mut Descent<'a, '_>) -> bool {
        while let [top, lower @ ..] = descent.tower {
            let (over, is_tie) = (Link::load(top), std::mem::take(&mut descent.tie));
            let order = if over == descent.beyond {
                Order::Greater
            } else if is_tie {
                over.compare_keys(arena, &descent.k)
            } else {
                over.compare_heads(&descent.k)
            };
            let Some(node) = over.node().filter(|_| order != Order::Greater) else {
                (descent.beyond, descent.tower) = (over, lower);
                continue;
            };
            if order == Order::Less {
                let height = descent.tower.len();
                descent.tower = self.tower(arena, Some(node), height);
                #[expect(clippy::cast_possible_truncation, reason = "at most 18")]
                arena.prefetch(node, self.tower + 2 * height as u32, 1);
                return true;
            }
            // Mostly the key itself, which ends the search; its record says so.
            arena.prefetch(node, 1, 1);
            descent.tie = !is_tie;
            return descent.tie;
        }
        // An insert makes the node behind it point back.
        if let Some(after) = descent.beyond.node() {
            arena.prefetch(after, PREV + 1, 1);
        }
        false
    }

    /// Places `pos`; see [`crate::contract::MemIndex::seek`].
    pub(crate) fn seek(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, to: Seek<'_>) {
        let (mut before, mut after) = (None, None);
        let mut gap = |_, last, over: Link| (before, after) = (last, over.node());
        let (start, forward) = match to {
            Seek::First => (self.next(arena, None), true),
            Seek::Last => (self.last(arena), false),
            Seek::Ge(k) => {
                let found = self.find(arena, &k, &mut gap);
                (found.or(after), true)
            }
            Seek::Le(k) => {
                let found = self.find(arena, &k, &mut gap);
                (found.or(before), false)
            }
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

    /// Moves `pos` several times; see [`crate::contract::MemIndex::walk_ahead`].
    pub(crate) fn walk_ahead(
        &self,
        arena: &Arena,
        pos: &mut Pos,
        below: SeqNo,
        step: Walk,
        passed: &mut [Passed],
    ) -> usize {
        let mut count = 0;
        for place in passed {
            let before = pos.at;
            if !self.walk(arena, pos, below, step) {
                // It stays on the last it found.
                pos.at = before.filter(|_| count > 0);
                break;
            }
            *place = Passed::by(pos);
            count += 1;
        }
        count
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

    /// The node of `k` if there is one; else `pass` has seen for each level, downwards, the last node before `k`
    /// and the link over its gap.
    #[inline]
    fn find(
        &self,
        arena: &Arena,
        k: &LookupKey<'_>,
        mut pass: impl FnMut(usize, Option<Ref>, Link),
    ) -> Option<Ref> {
        let (mut before, mut beyond) = (None, Link::END);
        let mut tower = self.tower(arena, None, self.height.load(Ordering::Relaxed) as usize);
        while let [top, lower @ ..] = tower {
            let over = Link::load(top);
            // A level's gap often ends where the one above did.
            let order = if over == beyond { Order::Greater } else { over.compare(arena, k) };
            match order {
                Order::Less => {
                    before = over.node();
                    tower = self.tower(arena, before, tower.len());
                }
                Order::Equal => return over.node(),
                Order::Greater => {
                    pass(lower.len(), before, over);
                    (beyond, tower) = (over, lower);
                }
            }
        }
        None
    }

    /// The lowest `height` links of a node (`None` is the head) that has so many, highest level first.
    #[inline]
    fn tower<'a>(&'a self, arena: &'a Arena, node: Option<Ref>, height: usize) -> &'a [AtomicU64] {
        #[expect(clippy::cast_possible_truncation, reason = "at most 14")]
        let links = |node| arena.links8(node, self.tower, height as u32);
        node.map_or(&self.head[HEIGHT_MAX - height..], links)
    }

    #[inline]
    fn slot<'a>(&'a self, arena: &'a Arena, node: Option<Ref>, level: usize) -> &'a AtomicU64 {
        &self.tower(arena, node, level + 1)[0]
    }

    #[inline]
    fn next(&self, arena: &Arena, node: Option<Ref>) -> Option<Ref> {
        Link::load(self.slot(arena, node, 0)).node()
    }

    /// The node before `node`. Where the hint is late it is moved, so the next walk is short.
    fn prev(&self, arena: &Arena, node: Ref) -> Option<Ref> {
        let word = arena.link(node, PREV);
        // Acquire pairs with the Release in `hint` and below.
        let hint = Ref::from_word(word.load(Ordering::Acquire));
        if cfg!(plant = "skiplist_believes_prev") {
            return hint;
        }
        let before = self.walk_on(arena, hint, Some(node));
        if before != hint {
            word.store(word_of(before), Ordering::Release);
        }
        before
    }

    /// The last node. Moves its hint as [`SkipList::prev`] does.
    fn last(&self, arena: &Arena) -> Option<Ref> {
        let hint = Link::load(&self.last[0]).node();
        let last = self.walk_on(arena, hint, None)?;
        if Some(last) != hint {
            // Release as in `hint`.
            self.last[0].store(Link::new(last, arena.head(last)).0, Ordering::Release);
        }
        Some(last)
    }

    /// The node before `end`, which is behind `from`.
    fn walk_on(&self, arena: &Arena, from: Option<Ref>, end: Option<Ref>) -> Option<Ref> {
        let mut at = from;
        while let next @ Some(_) = self.next(arena, at)
            && next != end
        {
            at = next;
        }
        at
    }

    /// A level from its first node on.
    fn level<'a>(&'a self, arena: &'a Arena, level: usize) -> impl Iterator<Item = Link> {
        let next = move |node| Some(Link::load(self.slot(arena, node, level)));
        std::iter::successors(next(None), move |at| next(at.node()))
            .take_while(|&at| at != Link::END)
    }

    /// How many nodes the list has. O(n).
    pub(crate) fn len(&self, arena: &Arena) -> u64 {
        self.level(arena, 0).count() as u64
    }

    /// What is wrong with the list, or how many records it holds: order, hints, towers, chains. For a list at
    /// rest.
    pub(crate) fn check(&self, arena: &Arena) -> Result<u64, String> {
        let (mut records, mut nodes) = (0, Vec::new());
        for link in self.level(arena, 0) {
            let (before, at) = (nodes.last().copied(), link.node().expect("before the end"));
            let entry = arena.entry(at);
            if before.is_some_and(|before| arena.key(before) >= entry.key) {
                return Err(format!("key {:?} is out of order", entry.key));
            }
            if self.prev(arena, at) != before {
                return Err(format!("the back link of {:?} does not lead to it", entry.key));
            }
            records += check_versions(arena, at)?;
            nodes.push(at);
        }
        if self.last(arena) != nodes.last().copied() {
            return Err("the last node is not the last".to_owned());
        }
        for level in 0..HEIGHT_MAX {
            let mut lower = nodes.iter();
            let mut upper = Vec::new();
            for link in self.level(arena, level) {
                let at = link.node().expect("before the end");
                if link != Link::new(at, arena.head(at)) {
                    return Err(format!("a link to {:?} names another head", arena.key(at)));
                }
                if !lower.any(|&below| below == at) {
                    let key = arena.key(at);
                    return Err(format!("{key:?} on level {level} is out of order or not below"));
                }
                upper.push(at);
            }
            let hint = Link::load(&self.last[level]).node();
            if !hint.is_none_or(|hint| upper.contains(&hint)) {
                return Err(format!("the last node of level {level} is not on it"));
            }
            nodes = upper;
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
    // Looking first spares the bytes of a record that would lie unused.
    if has_version(arena, node, entry.seq) {
        return Inserted::Duplicate;
    }
    adopt_version(arena, node, slab.record(1, entry))
}

/// Links a written record as a version of the key of `node`.
fn adopt_version(arena: &Arena, node: Ref, version: Ref) -> Inserted {
    let is_own = arena.seq(node) == arena.seq(version);
    if !is_own && chain::link(arena, arena.link(node, 0), version) {
        Inserted::NewVersion
    } else {
        Inserted::Duplicate
    }
}

fn has_version(arena: &Arena, node: Ref, seq: SeqNo) -> bool {
    arena.seq(node) == seq || chain::contains(arena, chain::older(arena, node), seq)
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
        (Some(own), Some(chained))
            if cfg!(plant = "skiplist_shows_own_version")
                || arena.seq(own) > arena.seq(chained) =>
        {
            Some(own)
        }
        (own, chained) => chained.or(own),
    }
}

/// The next older version behind `at`, which is the node itself or in its chain. Follows the chain, so walking
/// all versions is linear.
pub(crate) fn older_version(arena: &Arena, node: Ref, at: Ref) -> Option<Ref> {
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

#[cfg(test)]
mod race_test;
