//! Walks and seeks in a trie: from any key to its neighbour on either side.
//!
//! A step looks first beside the key, in the node that has it, and only when that is exhausted descends
//! from the root, remembering the last subtree it passed on the wanted side. So a position needs no stack
//! whatever the depth, and a position in a node that was replaced since is still good: the old node has
//! everything that lies below the cursor's bound.

use memtide_base::SeqNo;
use memtide_base::key::shared_prefix_len;
use memtide_base::sync::atomic::Ordering;

use super::node::{Node, Way};
use super::{Child, Trie, child_on_path};
use crate::arena::{Arena, Ref, word_of};
use crate::chain;
use crate::contract::{Pos, Seek, Walk};

/// A key in the tree: the newest version of all and the node that has it.
#[derive(Clone, Copy)]
struct Place {
    head: Ref,
    node: Option<Ref>,
}

impl Trie {
    /// See [`crate::contract::MemIndex::seek`].
    pub(super) fn seek_from_root(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, to: Seek<'_>) {
        let root = self.root.load(Ordering::Acquire);
        let (start, way) = match to {
            Seek::First => (outermost(arena, root, None, Way::Up), Way::Up),
            Seek::Last => (outermost(arena, root, None, Way::Down), Way::Down),
            Seek::Ge(k) => (self.locate(arena, k.key, Way::Up), Way::Up),
            Seek::Le(k) => (self.locate(arena, k.key, Way::Down), Way::Down),
        };
        self.settle(arena, pos, below, start, way);
    }

    /// See [`crate::contract::MemIndex::walk`].
    pub(super) fn walk_from(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, step: Walk) -> bool {
        let Some(at) = pos.at else { return false };
        let way = match step {
            Walk::Next => Way::Up,
            Walk::Prev => Way::Down,
            Walk::Older => {
                let older = chain::older(arena, at);
                pos.at = older.or(pos.at);
                return older.is_some();
            }
        };
        let node = Ref::from_word(u32::try_from(pos.words[0]).expect("a node's word"));
        let start = self.step(arena, arena.key(at), node, way);
        self.settle(arena, pos, below, start, way)
    }

    /// The key itself, or else the one that a walk from there meets first.
    fn locate(&self, arena: &Arena, key: &[u8], way: Way) -> Option<Place> {
        let near = self.nearest(arena, key)?;
        let other = arena.key(near.record);
        if near.is_leaf && other == key {
            return Some(Place { head: near.record, node: near.node });
        }
        self.beyond(arena, key, other, shared_prefix_len(key, other), way)
    }

    /// The key that a walk meets next after `key`, which `node` has.
    #[inline]
    fn step(&self, arena: &Arena, key: &[u8], node: Option<Ref>, way: Way) -> Option<Place> {
        if let Some(at) = node {
            let inner = Node::open(arena, at);
            if let Some(word) = inner.beside(key.get(inner.end()).copied(), way) {
                return outermost(arena, word, node, way);
            }
        }
        self.beyond(arena, key, key, key.len(), way)
    }

    /// The key that a walk meets first after `key`, found from the root. `other` is a key that shares as
    /// many bytes with `key` as any does, namely `shared`: `key` itself if it is there.
    fn beyond(
        &self,
        arena: &Arena,
        key: &[u8],
        other: &[u8],
        shared: usize,
        way: Way,
    ) -> Option<Place> {
        // The nearest subtree beside the path, and the node that has it.
        let mut aside = None;
        let (mut word, mut node) = (self.root.load(Ordering::Acquire), None);
        loop {
            match Child::of(arena, word)? {
                Child::Node(inner) if inner.end() <= shared => {
                    let byte = key.get(inner.end()).copied();
                    let beside = inner.beside(byte, way).map(|word| (word, Some(inner.at())));
                    aside = beside.or(aside);
                    if inner.end() == shared {
                        break;
                    }
                    word = child_on_path(&inner, key).load(Ordering::Acquire);
                    node = Some(inner.at());
                }
                _ => {
                    // Both share the bytes before; a key that ends there is the smaller one.
                    let (own, others) = (key.get(shared), other.get(shared));
                    let ahead = if way == Way::Up { own < others } else { own > others };
                    aside = if ahead { Some((word, node)) } else { aside };
                    break;
                }
            }
        }
        let (word, node) = aside?;
        outermost(arena, word, node, way)
    }

    /// Puts `pos` on the first key from `start` on that has a visible version.
    fn settle(
        &self,
        arena: &Arena,
        pos: &mut Pos,
        below: SeqNo,
        start: Option<Place>,
        way: Way,
    ) -> bool {
        let mut next = start;
        while let Some(place) = next {
            pos.at = chain::newest_below(arena, Some(place.head), below);
            if pos.at.is_some() {
                pos.words[0] = u64::from(word_of(place.node));
                return true;
            }
            next = self.step(arena, arena.key(place.head), place.node, way);
        }
        pos.at = None;
        false
    }
}

/// The key that a walk meets first below `word`, which is in `node`.
#[inline]
fn outermost(arena: &Arena, word: u32, node: Option<Ref>, way: Way) -> Option<Place> {
    let (mut word, mut node) = (word, node);
    loop {
        match Child::of(arena, word)? {
            Child::Leaf(head) => return Some(Place { head, node }),
            Child::Node(inner) => {
                word = inner.outermost(way)?;
                node = Some(inner.at());
            }
        }
    }
}
