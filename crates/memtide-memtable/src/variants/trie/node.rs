//! The four kinds of node of an adaptive radix tree (Leis, Kemper, Neumann, 2013), in arena words.
//!
//! ```text
//! word    N4             N16             N48              N256
//! 0       meta: bits 0..2 kind, 2..11 number of children, 11..32 end
//! 1       rep            the record of some key below the node
//! 2       here           the key that ends at the node, 0 = none
//! 3..     1 of bytes     4 of bytes      12 of bytes      256 children
//! ..      4 children     16 children     48 children
//! bytes   32             96              256              1040
//! ```
//!
//! `end` counts the bytes that all keys below the node share, from the start of the key: the byte at
//! `end` chooses the child. Because it is absolute, a node never changes when another is put above it.
//! The shared bytes themselves are not copied into the node: `rep` has them.
//!
//! N4, N16 and N48 list their children in order of arrival, the byte of child `i` is byte `i` of the words
//! from 3 on; N256 has the child of every byte. A child word is 0, a node (even) or a record (odd). The paper
//! indexes its 48 children by 256 bytes; a list that is compared sixteen bytes at a time is smaller by 208 B,
//! and a descent reads 60 B of it and the child.
//!
//! # Readers beside the writer
//! Children are added and replaced, never removed, and a child is stored before what makes it reachable:
//! - In a list that is the count: child, byte, then the meta word (Release). A reader loads the meta word once
//!   (Acquire, [`Node::open`]) and looks at no byte beyond the count it saw.
//! - In an N256, and for `here`, it is the slot itself, stored Release and loaded Acquire.
//!
//! A full node is not changed but copied into the next larger kind by [`Node::grown`]; who replaces it, and
//! counts it dead, is the tree.

use std::ops::{ControlFlow, Range};

use memtide_base::sync::atomic::{AtomicU32, Ordering};

use crate::arena::{Arena, Ref};

const META: usize = 0;
const REP: usize = 1;
const HERE: usize = 2;
const BYTES: usize = 3;

const KIND_BITS: u32 = 2;
const COUNT_BITS: u32 = 9;
const END_SHIFT: u32 = KIND_BITS + COUNT_BITS;
/// Bytes of a list that are looked at together.
const GROUP: usize = 16;
/// Bytes of the longest list.
const LIST: usize = NodeKind::N48.capacity() as usize;
/// Above every byte.
const BYTE_END: usize = 256;

/// How many children a node can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeKind {
    N4,
    N16,
    N48,
    N256,
}

impl NodeKind {
    const fn words(self) -> u32 {
        match self {
            Self::N4 => 8,
            Self::N16 => 24,
            Self::N48 => 64,
            Self::N256 => 260,
        }
    }

    /// 64-bit words to carve for a node: node refs are even.
    pub(super) const fn words8(self) -> u32 {
        self.words() / 2
    }

    pub(super) const fn bytes(self) -> u64 {
        self.words() as u64 * 4
    }

    pub(super) const fn capacity(self) -> u32 {
        match self {
            Self::N4 => 4,
            Self::N16 => 16,
            Self::N48 => 48,
            Self::N256 => 256,
        }
    }

    /// The kind a full node of this kind grows into.
    ///
    /// # Panics
    /// For `N256`, which has a child for every byte and cannot need another.
    pub(super) const fn larger(self) -> Self {
        match self {
            Self::N4 => Self::N16,
            Self::N16 => Self::N48,
            Self::N48 => Self::N256,
            Self::N256 => panic!("an N256 has a child for every byte"),
        }
    }

    /// The fewest children of a node of this kind.
    pub(super) const fn children_min(self) -> u32 {
        match self {
            Self::N4 => 1,
            Self::N16 => Self::N4.capacity() + 1,
            Self::N48 => Self::N16.capacity() + 1,
            Self::N256 => Self::N48.capacity() + 1,
        }
    }

    /// The word of the first child.
    const fn children_at(self) -> usize {
        match self {
            Self::N4 => BYTES + 1,
            Self::N16 => BYTES + 4,
            Self::N48 => BYTES + 12,
            Self::N256 => BYTES,
        }
    }

    fn of_meta(meta: u32) -> Self {
        match meta & ((1 << KIND_BITS) - 1) {
            0 => Self::N4,
            1 => Self::N16,
            2 => Self::N48,
            _ => Self::N256,
        }
    }
}

/// The direction of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

/// Some bytes, to be met in order: what sorts a list, without a branch to be foretold wrongly.
#[derive(Debug, Default)]
struct ByteSet([u64; BYTE_END / 64]);

impl ByteSet {
    #[inline]
    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte / 64)] |= 1 << (byte % 64);
    }

    /// Shows those of a range.
    #[inline]
    fn each_in<B>(
        &self,
        range: Range<usize>,
        way: Way,
        mut see: impl FnMut(u8) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        for step in 0..self.0.len() {
            let word = if way == Way::Up { step } else { self.0.len() - 1 - step };
            let first = word * 64;
            let below = |end: usize| match u32::try_from(end.saturating_sub(first)) {
                Ok(bits @ 0..64) => (1 << bits) - 1,
                _ => u64::MAX,
            };
            let mut rest = self.0[word] & below(range.end) & !below(range.start);
            while rest != 0 {
                let bit = match way {
                    Way::Up => rest.trailing_zeros(),
                    Way::Down => 63 - rest.leading_zeros(),
                };
                rest &= !(1 << bit);
                see(u8::try_from(first + bit as usize).expect("a byte"))?;
            }
        }
        ControlFlow::Continue(())
    }
}

/// A view of one node, with the children it had when it was opened.
///
/// What a descent does in each node is inlined by order: left to the compiler it is a row of calls, and a get
/// of one among 5,000 keys takes about a sixth longer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a> {
    at: Ref,
    meta: u32,
    words: &'a [AtomicU32],
}

impl<'a> Node<'a> {
    /// Fills zeroed words with a node that has no children yet.
    pub(super) fn create(arena: &'a Arena, at: Ref, kind: NodeKind, end: usize, rep: Ref) -> Self {
        let words = arena.words(at, kind.words());
        let end = u32::try_from(end).expect("keys are below 64 KiB");
        assert!(end < 1 << (u32::BITS - END_SHIFT), "a key shares {end} B with another");
        let meta = kind as u32 | end << END_SHIFT;
        // Relaxed: the Release store of the slot that will lead here covers both.
        words[META].store(meta, Ordering::Relaxed);
        words[REP].store(rep.word(), Ordering::Relaxed);
        Self { at, meta, words }
    }

    #[inline(always)]
    pub(super) fn open(arena: &'a Arena, at: Ref) -> Self {
        // The smallest node needs no second look into the arena.
        let words = arena.words(at, NodeKind::N4.words());
        // Acquire pairs with the Release store in `add`: the children it counts are there.
        let meta = words[META].load(Ordering::Acquire);
        match NodeKind::of_meta(meta) {
            NodeKind::N4 => Self { at, meta, words },
            kind => Self { at, meta, words: arena.words(at, kind.words()) },
        }
    }

    pub(super) fn at(&self) -> Ref {
        self.at
    }

    #[inline]
    pub(super) fn kind(&self) -> NodeKind {
        NodeKind::of_meta(self.meta)
    }

    /// Bytes that all keys below share; the byte at this position chooses the child.
    #[inline]
    pub(super) fn end(&self) -> usize {
        (self.meta >> END_SHIFT) as usize
    }

    /// How many children there are, `here` not counted.
    #[inline]
    pub(super) fn count(&self) -> u32 {
        self.meta >> KIND_BITS & ((1 << COUNT_BITS) - 1)
    }

    pub(super) fn is_full(&self) -> bool {
        self.count() == self.kind().capacity()
    }

    /// The record of some key below.
    pub(super) fn rep(&self) -> Ref {
        // Relaxed: written before the node was linked, never after.
        let word = self.words[REP].load(Ordering::Relaxed);
        Ref::from_word(word).expect("a node is created with a record below it")
    }

    /// The slot of the key that ends at this node.
    #[inline]
    pub(super) fn here(&self) -> &'a AtomicU32 {
        &self.words[HERE]
    }

    /// The slot of the child for `byte`, if there is one.
    #[inline(always)]
    pub(super) fn find(&self, byte: u8) -> Option<&'a AtomicU32> {
        if self.kind() != NodeKind::N256 {
            return self.position(byte).map(|index| self.slot(index));
        }
        let slot = self.slot(usize::from(byte));
        (slot.load(Ordering::Acquire) != 0).then_some(slot)
    }

    /// The subtree that a walk meets first in this node.
    #[inline]
    pub(super) fn outermost(&self, way: Way) -> Option<u32> {
        self.each_subtree(way, ControlFlow::Break).break_value()
    }

    /// Shows the subtrees in the order in which a walk meets them, until `see` breaks off.
    pub(super) fn each_subtree<B>(
        &self,
        way: Way,
        mut see: impl FnMut(u32) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if way == Way::Up {
            self.here_word().map_or(ControlFlow::Continue(()), &mut see)?;
        }
        self.each_child_in(0..BYTE_END, way, &mut see)?;
        if way == Way::Down {
            self.here_word().map_or(ControlFlow::Continue(()), &mut see)?;
        }
        ControlFlow::Continue(())
    }

    /// As [`Node::each_subtree`], for those that come behind the child for `byte`; `None` is `here`.
    pub(super) fn each_beside<B>(
        &self,
        byte: Option<u8>,
        way: Way,
        mut see: impl FnMut(u32) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        match (way, byte.map(usize::from)) {
            (Way::Up, None) => self.each_child_in(0..BYTE_END, way, &mut see),
            (Way::Up, Some(byte)) => self.each_child_in(byte + 1..BYTE_END, way, &mut see),
            (Way::Down, None) => ControlFlow::Continue(()),
            (Way::Down, Some(byte)) => {
                self.each_child_in(0..byte, way, &mut see)?;
                let here = self.here_word().filter(|_| !cfg!(plant = "trie_reverse_step"));
                here.map_or(ControlFlow::Continue(()), &mut see)
            }
        }
    }

    /// The children for a range of bytes.
    fn each_child_in<B>(
        &self,
        bytes: Range<usize>,
        way: Way,
        see: &mut impl FnMut(u32) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let mut see_slot = |index: usize| match self.slot(index).load(Ordering::Acquire) {
            0 => ControlFlow::Continue(()),
            word => see(word),
        };
        if self.kind() == NodeKind::N256 {
            return match way {
                Way::Up => { bytes }.try_for_each(see_slot),
                Way::Down => bytes.rev().try_for_each(see_slot),
            };
        }
        let (mut found, mut places) = (ByteSet::default(), [0_u8; BYTE_END]);
        for (place, byte) in (0..).zip(self.list()).take(self.count() as usize) {
            found.insert(byte);
            places[usize::from(byte)] = place;
        }
        found.each_in(bytes, way, |byte| see_slot(places[usize::from(byte)].into()))
    }

    /// The bytes of a list; those beyond the count are anything.
    #[inline]
    fn list(&self) -> [u8; LIST] {
        let mut bytes = [0; LIST];
        let used = BYTES..BYTES + self.count().div_ceil(4) as usize;
        for (four, word) in bytes.as_chunks_mut().0.iter_mut().zip(&self.words[used]) {
            // Relaxed: the Acquire load of the count came before.
            *four = word.load(Ordering::Relaxed).to_le_bytes();
        }
        bytes
    }

    /// Adds a child for a byte that has none.
    ///
    /// # Panics
    /// If the node is full.
    pub(super) fn add(&mut self, byte: u8, child: u32) {
        assert!(!self.is_full(), "a full {:?} is grown before it gets a child", self.kind());
        if self.kind() == NodeKind::N256 {
            self.slot(usize::from(byte)).store(child, Ordering::Release);
        } else {
            let index = self.count() as usize;
            // Relaxed, both: the count makes them reachable.
            self.slot(index).store(child, Ordering::Relaxed);
            let word = &self.words[BYTES + index / 4];
            let bits = u32::from(byte) << (index % 4 * 8);
            word.store(word.load(Ordering::Relaxed) | bits, Ordering::Relaxed);
        }
        self.meta += 1 << KIND_BITS;
        self.words[META].store(self.meta, Ordering::Release);
    }

    /// Copies this node into zeroed words at `at` as the next larger kind.
    pub(super) fn grown<'b>(&self, arena: &'b Arena, at: Ref) -> Node<'b> {
        let mut larger = Node::create(arena, at, self.kind().larger(), self.end(), self.rep());
        if !cfg!(plant = "trie_grows_without_here") {
            larger.here().store(self.here().load(Ordering::Relaxed), Ordering::Relaxed);
        }
        // Relaxed: only the writer, who stored them, copies children.
        self.each_child(|byte, slot| larger.add(byte, slot.load(Ordering::Relaxed)));
        larger
    }

    /// All children by rising byte; for checks, because it allocates.
    pub(super) fn children(&self) -> Vec<(u8, u32)> {
        let mut children = Vec::new();
        self.each_child(|byte, slot| children.push((byte, slot.load(Ordering::Acquire))));
        for end in 1..children.len() {
            let place = children[..end].partition_point(|child| *child < children[end]);
            children[place..=end].rotate_right(1);
        }
        children
    }

    fn each_child(&self, mut visit: impl FnMut(u8, &AtomicU32)) {
        if self.kind() == NodeKind::N256 {
            let found = (0..=u8::MAX).filter_map(|byte| Some((byte, self.find(byte)?)));
            return found.for_each(|(byte, slot)| visit(byte, slot));
        }
        for index in 0..self.count() as usize {
            let byte = self.group(index / GROUP).to_le_bytes()[index % GROUP];
            visit(byte, self.slot(index));
        }
    }

    fn here_word(&self) -> Option<u32> {
        Some(self.here().load(Ordering::Acquire)).filter(|&word| word != 0)
    }

    /// Where a list has `byte`: sixteen bytes are compared at once.
    #[inline(always)]
    fn position(&self, byte: u8) -> Option<usize> {
        const ONES: u128 = u128::MAX / 0xFF;
        let wanted = u128::from(byte) * ONES;
        for group in 0..self.groups() {
            let differing = self.group(group) ^ wanted;
            // The lowest mark is exact: a borrow can only fake marks above a true one.
            let marks = differing.wrapping_sub(ONES) & !differing & (ONES << 7);
            if marks != 0 {
                let index = group * GROUP + (marks.trailing_zeros() / 8) as usize;
                // Bytes that are not in use yet may be what was found.
                return (index < self.count() as usize).then_some(index);
            }
        }
        None
    }

    /// How many groups of a list are in use.
    #[inline(always)]
    fn groups(&self) -> usize {
        (self.count() as usize).div_ceil(GROUP)
    }

    /// Sixteen bytes of a list, the first one lowest; those beyond the count are anything.
    #[inline(always)]
    fn group(&self, group: usize) -> u128 {
        // Relaxed: the Acquire load of the count came before.
        let word = |index: usize| u128::from(self.words[index].load(Ordering::Relaxed));
        let first = BYTES + group * (GROUP / 4);
        if self.kind() == NodeKind::N4 {
            return word(first);
        }
        word(first) | word(first + 1) << 32 | word(first + 2) << 64 | word(first + 3) << 96
    }

    #[inline(always)]
    fn slot(&self, index: usize) -> &'a AtomicU32 {
        &self.words[self.kind().children_at() + index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node of every kind with the bytes `0, 255, 7, 254, 14, ...`; children are `byte + 1`.
    fn filled<'a>(arena: &'a Arena, count: u8) -> Node<'a> {
        let plan =
            arena.plan(8192, crate::arena::Beside::default()).expect("the arena is large enough");
        assert!(arena.allocate(&plan));
        let mut slab = arena.slab(&plan);
        let at = slab.words8(NodeKind::N4.words8());
        let mut node = Node::create(arena, at, NodeKind::N4, 3, at);
        node.here().store(9999, Ordering::Relaxed);
        for byte in bytes(count) {
            if node.is_full() {
                node = node.grown(arena, slab.words8(node.kind().larger().words8()));
            }
            node.add(byte, u32::from(byte) + 1);
        }
        node
    }

    fn bytes(count: u8) -> impl Iterator<Item = u8> {
        (0..count).map(|i| if i % 2 == 0 { i / 2 * 7 } else { 255 - i / 2 })
    }

    /// What a node shows that is asked for everything.
    fn seen(
        show: impl FnOnce(&mut dyn FnMut(u32) -> ControlFlow<()>) -> ControlFlow<()>,
    ) -> Vec<u32> {
        let mut seen = Vec::new();
        let flow = show(&mut |word| {
            seen.push(word);
            ControlFlow::Continue(())
        });
        assert!(flow.is_continue());
        seen
    }

    #[test]
    fn every_kind_finds_what_it_was_given_and_its_neighbours() {
        for (count, kind) in
            [(3, NodeKind::N4), (16, NodeKind::N16), (40, NodeKind::N48), (60, NodeKind::N256)]
        {
            let arena = Arena::new(1 << 20);
            let node = Node::open(&arena, filled(&arena, count).at());
            let mut known: Vec<u8> = bytes(count).collect();
            known.sort_unstable();
            assert_eq!((node.kind(), node.count(), node.end()), (kind, u32::from(count), 3));
            let bytes: Vec<_> = node.children().into_iter().map(|(byte, _)| byte).collect();
            assert_eq!(bytes, known);
            assert_eq!(node.outermost(Way::Up), Some(9999), "the shorter key comes first");
            assert_eq!(node.outermost(Way::Down), Some(256), "byte 255 comes last");
            let child = |byte: &u8| u32::from(*byte) + 1;
            let up: Vec<_> = [9999].into_iter().chain(known.iter().map(child)).collect();
            let down: Vec<_> = up.iter().rev().copied().collect();
            let all = |way| seen(|see| node.each_subtree(way, see));
            assert_eq!((all(Way::Up), all(Way::Down)), (up.clone(), down.clone()), "{kind:?}");
            let beside = |byte, way| seen(|see| node.each_beside(byte, way, see));
            assert_eq!((beside(None, Way::Up), beside(None, Way::Down)), (up[1..].into(), vec![]));
            for byte in 0..=u8::MAX {
                let found = node.find(byte).map(|slot| slot.load(Ordering::Relaxed));
                assert_eq!(found, known.contains(&byte).then_some(child(&byte)), "{kind:?} {byte}");
                let (under, above) = (
                    known.iter().filter(|&&other| other < byte).count(),
                    known.iter().filter(|&&other| other > byte).count(),
                );
                let (up, down) = (&up[up.len() - above..], &down[down.len() - under - 1..]);
                assert_eq!(beside(Some(byte), Way::Up), up, "{kind:?} {byte}");
                assert_eq!(beside(Some(byte), Way::Down), down, "{kind:?} {byte}");
            }
        }
    }
}
