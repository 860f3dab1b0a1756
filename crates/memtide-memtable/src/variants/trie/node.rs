//! The four kinds of node of an adaptive radix tree (Leis, Kemper, Neumann, 2013), in arena words.
//!
//! ```text
//! word    N4            N16           N48                  N256
//! 0       meta: bits 0..2 kind, 2..11 number of children, 11..32 end
//! 1       rep           the record of some key below the node
//! 2       here          the key that ends at the node, 0 = none
//! 3..     3..4 bytes    3..7 bytes    3..67 slot numbers   3..259 children
//! ..      4..8 children 7..23 ch.     67..115 children
//! bytes   32            96            464                  1040
//! ```
//!
//! `end` counts the bytes that all keys below the node share, from the start of the key: the byte at
//! `end` chooses the child. Because it is absolute, a node never changes when another is put above it.
//! The shared bytes themselves are not copied into the node: `rep` has them.
//!
//! N4 and N16 list their children in order of arrival, the byte of child `i` is byte `i` of the words
//! from 3 on; N48 has for each byte 0 or the number of its child, counted from 1; N256 has the child.
//! A child word is 0, a node (even) or a record (odd).
//!
//! Children are added and replaced, never removed; a child is stored before what makes it reachable, so
//! a reader beside the writer meets it whole or not at all. A full node is not changed but copied into
//! the next larger kind by [`Node::grown`]; who replaces it, and counts it dead, is the tree.

use memtide_base::sync::atomic::{AtomicU32, Ordering};

use crate::arena::{Arena, Ref};

const META: usize = 0;
const REP: usize = 1;
const HERE: usize = 2;
const BYTES: usize = 3;

const KIND_BITS: u32 = 2;
const COUNT_BITS: u32 = 9;
const END_SHIFT: u32 = KIND_BITS + COUNT_BITS;

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
            Self::N48 => 116,
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
            Self::N48 => BYTES + 64,
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

/// A view of one node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a> {
    at: Ref,
    kind: NodeKind,
    words: &'a [AtomicU32],
}

impl<'a> Node<'a> {
    /// Fills zeroed words with a node that has no children yet.
    pub(super) fn create(arena: &'a Arena, at: Ref, kind: NodeKind, end: usize, rep: Ref) -> Self {
        let node = Self { at, kind, words: arena.words(at, kind.words()) };
        let end = u32::try_from(end).expect("keys are below 64 KiB");
        assert!(end < 1 << (u32::BITS - END_SHIFT), "a key shares {end} B with another");
        node.words[META].store(kind as u32 | end << END_SHIFT, Ordering::Relaxed);
        node.words[REP].store(rep.word(), Ordering::Relaxed);
        node
    }

    #[inline]
    pub(super) fn open(arena: &'a Arena, at: Ref) -> Self {
        // The smallest node needs no second look into the arena.
        let words = arena.words(at, NodeKind::N4.words());
        match NodeKind::of_meta(words[META].load(Ordering::Acquire)) {
            NodeKind::N4 => Self { at, kind: NodeKind::N4, words },
            kind => Self { at, kind, words: arena.words(at, kind.words()) },
        }
    }

    pub(super) fn at(&self) -> Ref {
        self.at
    }

    pub(super) fn kind(&self) -> NodeKind {
        self.kind
    }

    /// Bytes that all keys below share; the byte at this position chooses the child.
    #[inline]
    pub(super) fn end(&self) -> usize {
        (self.meta() >> END_SHIFT) as usize
    }

    /// How many children there are, `here` not counted.
    #[inline]
    pub(super) fn count(&self) -> u32 {
        self.meta() >> KIND_BITS & ((1 << COUNT_BITS) - 1)
    }

    pub(super) fn is_full(&self) -> bool {
        self.count() == self.kind.capacity()
    }

    /// The record of some key below.
    pub(super) fn rep(&self) -> Ref {
        let word = self.words[REP].load(Ordering::Relaxed);
        Ref::from_word(word).expect("a node is created with a record below it")
    }

    /// The slot of the key that ends at this node.
    #[inline]
    pub(super) fn here(&self) -> &'a AtomicU32 {
        &self.words[HERE]
    }

    /// The slot of the child for `byte`, if there is one.
    #[inline]
    pub(super) fn find(&self, byte: u8) -> Option<&'a AtomicU32> {
        match self.kind {
            NodeKind::N4 | NodeKind::N16 => self.position(byte).map(|index| self.slot(index)),
            NodeKind::N48 => {
                let number = usize::from(self.byte(usize::from(byte)));
                number.checked_sub(1).map(|index| self.slot(index))
            }
            NodeKind::N256 => {
                let slot = self.slot(usize::from(byte));
                (slot.load(Ordering::Acquire) != 0).then_some(slot)
            }
        }
    }

    /// The subtree that a walk meets first in this node.
    #[inline]
    pub(super) fn outermost(&self, way: Way) -> Option<u32> {
        match way {
            Way::Up => self.here_word().or_else(|| self.above(None)),
            Way::Down => self.under(None).or_else(|| self.here_word()),
        }
    }

    /// The subtree that a walk meets next, coming from the child for `byte`; `None` is `here`.
    #[inline]
    pub(super) fn beside(&self, byte: Option<u8>, way: Way) -> Option<u32> {
        match way {
            Way::Up => self.above(byte),
            Way::Down => byte.and_then(|byte| self.under(Some(byte)).or_else(|| self.here_word())),
        }
    }

    /// Adds a child for a byte that has none.
    ///
    /// # Panics
    /// If the node is full.
    pub(super) fn add(&self, byte: u8, child: u32) {
        assert!(!self.is_full(), "a full {:?} is grown before it gets a child", self.kind);
        let count = self.count();
        let index = if self.kind == NodeKind::N256 { usize::from(byte) } else { count as usize };
        self.slot(index).store(child, Ordering::Release);
        match self.kind {
            NodeKind::N4 | NodeKind::N16 => self.put_byte(index, byte),
            NodeKind::N48 => {
                let number = u8::try_from(index + 1).expect("at most 48");
                self.put_byte(usize::from(byte), number);
            }
            NodeKind::N256 => {}
        }
        // The count is what makes a child of an N4 or N16 reachable.
        self.words[META].store(self.meta() + (1 << KIND_BITS), Ordering::Release);
    }

    /// Copies this node into zeroed words at `at` as the next larger kind.
    pub(super) fn grown<'b>(&self, arena: &'b Arena, at: Ref) -> Node<'b> {
        let larger = Node::create(arena, at, self.kind.larger(), self.end(), self.rep());
        larger.here().store(self.here().load(Ordering::Relaxed), Ordering::Relaxed);
        self.each_child(|byte, child| larger.add(byte, child));
        larger
    }

    /// All children by rising byte; for checks, because it allocates.
    pub(super) fn children(&self) -> Vec<(u8, u32)> {
        let mut children = Vec::new();
        self.each_child(|byte, child| children.push((byte, child)));
        children.sort_unstable();
        children
    }

    fn each_child(&self, mut visit: impl FnMut(u8, u32)) {
        match self.kind {
            NodeKind::N4 | NodeKind::N16 => {
                for (byte, index) in self.listed() {
                    visit(byte, self.slot(index).load(Ordering::Acquire));
                }
            }
            NodeKind::N48 | NodeKind::N256 => {
                for byte in 0..=u8::MAX {
                    if let Some(slot) = self.find(byte) {
                        visit(byte, slot.load(Ordering::Acquire));
                    }
                }
            }
        }
    }

    fn here_word(&self) -> Option<u32> {
        Some(self.here().load(Ordering::Acquire)).filter(|&word| word != 0)
    }

    /// The child of the smallest byte above `after`.
    #[inline]
    fn above(&self, after: Option<u8>) -> Option<u32> {
        let wanted = |byte: u8| after.is_none_or(|after| byte > after);
        match self.kind {
            NodeKind::N4 | NodeKind::N16 => {
                let (_, index) = self.listed().filter(|&(byte, _)| wanted(byte)).min()?;
                Some(self.slot(index).load(Ordering::Acquire))
            }
            NodeKind::N48 | NodeKind::N256 => {
                let mut bytes = (after.unwrap_or(0)..=u8::MAX).filter(|&byte| wanted(byte));
                bytes.find_map(|byte| self.find(byte)).map(|slot| slot.load(Ordering::Acquire))
            }
        }
    }

    /// The child of the largest byte below `before`.
    #[inline]
    fn under(&self, before: Option<u8>) -> Option<u32> {
        let wanted = |byte: u8| before.is_none_or(|before| byte < before);
        match self.kind {
            NodeKind::N4 | NodeKind::N16 => {
                let (_, index) = self.listed().filter(|&(byte, _)| wanted(byte)).max()?;
                Some(self.slot(index).load(Ordering::Acquire))
            }
            NodeKind::N48 | NodeKind::N256 => {
                let mut bytes = (0..=before.unwrap_or(u8::MAX)).rev().filter(|&byte| wanted(byte));
                bytes.find_map(|byte| self.find(byte)).map(|slot| slot.load(Ordering::Acquire))
            }
        }
    }

    /// The bytes of an N4 or N16 with their positions, in order of arrival.
    fn listed(&self) -> impl Iterator<Item = (u8, usize)> {
        (0..self.count() as usize).map(|index| (self.byte(index), index))
    }

    /// Where an N4 or N16 lists `byte`: four bytes are compared at once.
    #[inline]
    fn position(&self, byte: u8) -> Option<usize> {
        const ONES: u32 = 0x0101_0101;
        let count = self.count() as usize;
        let wanted = u32::from(byte) * ONES;
        for (first, word) in (0..count).step_by(4).zip(&self.words[BYTES..]) {
            let differing = word.load(Ordering::Relaxed) ^ wanted;
            // The lowest mark is exact: a borrow can only fake marks above a true one.
            let marks = differing.wrapping_sub(ONES) & !differing & (ONES << 7);
            if marks != 0 {
                let index = first + (marks.trailing_zeros() / 8) as usize;
                // Bytes that are not in use yet are 0 and may be what was found.
                return (index < count).then_some(index);
            }
        }
        None
    }

    #[inline]
    fn slot(&self, index: usize) -> &'a AtomicU32 {
        &self.words[self.kind.children_at() + index]
    }

    #[inline]
    fn byte(&self, index: usize) -> u8 {
        self.words[BYTES + index / 4].load(Ordering::Acquire).to_le_bytes()[index % 4]
    }

    /// Sets a byte that was 0.
    fn put_byte(&self, index: usize, byte: u8) {
        let word = &self.words[BYTES + index / 4];
        let bits = u32::from(byte) << (index % 4 * 8);
        word.store(word.load(Ordering::Relaxed) | bits, Ordering::Release);
    }

    #[inline]
    fn meta(&self) -> u32 {
        self.words[META].load(Ordering::Acquire)
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
            assert_eq!((node.beside(None, Way::Up), node.beside(None, Way::Down)), (Some(1), None));
            for byte in 0..=u8::MAX {
                let child = |byte: &u8| u32::from(*byte) + 1;
                let found = node.find(byte).map(|slot| slot.load(Ordering::Relaxed));
                assert_eq!(found, known.contains(&byte).then_some(child(&byte)), "{kind:?} {byte}");
                let above = known.iter().find(|&&other| other > byte).map(child);
                let under = known.iter().rfind(|&&other| other < byte).map_or(9999, child);
                assert_eq!(node.beside(Some(byte), Way::Up), above, "{kind:?} {byte}");
                assert_eq!(node.beside(Some(byte), Way::Down), Some(under), "{kind:?} {byte}");
            }
        }
    }
}
