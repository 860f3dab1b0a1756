//! Walks and seeks in a trie: from any key to its neighbours on either side.
//!
//! The path of the key is descended from the root, and what is beside it is gathered from below upwards, several
//! keys at once where the cursor walks ahead. So a position needs no stack whatever the depth. Only the last nodes
//! of the path are remembered: of those before, the nearest subtree beside it.

use std::ops::ControlFlow;

use memtide_base::SeqNo;
use memtide_base::key::shared_prefix_len;
use memtide_base::sync::atomic::Ordering;

use super::node::{Node, Way};
use super::{Child, Trie, child_on_path};
use crate::arena::{Arena, Ref};
use crate::chain;
use crate::contract::{Passed, Pos, Seek, Walk};

/// Nodes of a path that are remembered, and levels that are gathered below them.
const LEVELS: usize = 8;

impl Trie {
    /// See [`crate::contract::MemIndex::seek`].
    pub(super) fn seek_from_root(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, to: Seek<'_>) {
        let way = match to {
            Seek::First | Seek::Ge(_) => Way::Up,
            Seek::Last | Seek::Le(_) => Way::Down,
        };
        let mut found = [Passed::default()];
        let mut gather = Gather { arena, below, way, passed: &mut found, len: 0, met: None };
        // Whether it was broken off is in what it gathered.
        let _ = match to {
            Seek::First | Seek::Last => gather.subtree(self.root.load(Ordering::Acquire), LEVELS),
            Seek::Ge(k) | Seek::Le(k) => self.gather_from(k.key, &mut gather),
        };
        self.gather_some(&mut gather);
        pos.at = found[0].at;
    }

    /// See [`crate::contract::MemIndex::walk`].
    pub(super) fn walk_from(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, step: Walk) -> bool {
        let way = match step {
            Walk::Next => Way::Up,
            Walk::Prev => Way::Down,
            Walk::Older => {
                let older = pos.at.and_then(|at| chain::older(arena, at));
                pos.at = older.or(pos.at);
                return older.is_some();
            }
        };
        self.gather_ahead(arena, pos, below, way, &mut [Passed::default()]) > 0
    }

    /// See [`crate::contract::MemIndex::walk_ahead`].
    pub(super) fn gather_ahead(
        &self,
        arena: &Arena,
        pos: &mut Pos,
        below: SeqNo,
        way: Way,
        passed: &mut [Passed],
    ) -> usize {
        let mut gather = Gather { arena, below, way, passed, len: 0, met: pos.at };
        self.gather_some(&mut gather);
        let len = gather.len;
        pos.at = len.checked_sub(1).and_then(|last| passed[last].at);
        len
    }

    /// Goes on behind what was met until something is gathered. Keys without a visible version are only met.
    fn gather_some(&self, gather: &mut Gather<'_>) {
        while let Some(from) = gather.met.take().filter(|_| gather.len == 0) {
            let key = gather.arena.key(from);
            let _ = self.gather_behind(key, key, key.len(), gather);
        }
    }

    /// Gathers from `key` on, which may be in the tree or not.
    fn gather_from(&self, key: &[u8], gather: &mut Gather<'_>) -> ControlFlow<()> {
        let Some(near) = self.nearest(gather.arena, key) else { return ControlFlow::Continue(()) };
        let other = gather.arena.key(near.record);
        if near.is_leaf && other == key {
            return gather.key(near.record);
        }
        self.gather_behind(key, other, shared_prefix_len(key, other), gather)
    }

    /// Gathers some of what a walk meets after `key`; nothing only if there is nothing. `other` is a key that
    /// shares as many bytes with `key` as any does, namely `shared`: `key` itself if it is there.
    fn gather_behind(
        &self,
        key: &[u8],
        other: &[u8],
        shared: usize,
        gather: &mut Gather<'_>,
    ) -> ControlFlow<()> {
        let way = gather.way;
        let (mut path, mut depth, mut far) = ([None; LEVELS], 0, None);
        let mut word = self.root.load(Ordering::Acquire);
        loop {
            match Child::of(gather.arena, word) {
                Some(Child::Node(inner)) if inner.end() <= shared => {
                    // What is forgotten here matters only if nothing else is met.
                    let forgotten = path[depth % LEVELS].replace(inner);
                    far = forgotten.and_then(|inner| beside(&inner, key, way)).or(far);
                    depth += 1;
                    if inner.end() == shared {
                        break;
                    }
                    word = child_on_path(&inner, key).load(Ordering::Acquire);
                }
                _ => {
                    // Both share the bytes before; a key that ends there is the smaller one.
                    let (own, others) = (key.get(shared), other.get(shared));
                    if if way == Way::Up { own < others } else { own > others } {
                        gather.subtree(word, LEVELS)?;
                    }
                    break;
                }
            }
        }
        for level in (depth.saturating_sub(LEVELS)..depth).rev() {
            let inner = path[level % LEVELS].expect("remembered on the way down");
            let byte = key.get(inner.end()).copied();
            inner.each_beside(byte, way, |word| gather.subtree(word, LEVELS))?;
        }
        far.map_or(ControlFlow::Continue(()), |word| gather.subtree(word, LEVELS))
    }
}

/// The subtree of a node that a walk meets next after `key`, whose path leads through it.
fn beside(node: &Node<'_>, key: &[u8], way: Way) -> Option<u32> {
    node.each_beside(key.get(node.end()).copied(), way, ControlFlow::Break).break_value()
}

/// What a walk meets, in its order.
struct Gather<'a> {
    arena: &'a Arena,
    below: SeqNo,
    way: Way,
    passed: &'a mut [Passed],
    len: usize,
    /// The key met last, visible or not.
    met: Option<Ref>,
}

impl Gather<'_> {
    /// Gathers below `word`, no more than so many levels deep. Breaks off before it would leave something out.
    fn subtree(&mut self, word: u32, levels: usize) -> ControlFlow<()> {
        match Child::of(self.arena, word) {
            None => ControlFlow::Continue(()),
            Some(Child::Leaf(head)) => self.key(head),
            Some(Child::Node(inner)) if levels > 0 => {
                inner.each_subtree(self.way, |word| self.subtree(word, levels - 1))
            }
            Some(Child::Node(_)) => {
                outermost(self.arena, word, self.way).map(|head| self.key(head));
                ControlFlow::Break(())
            }
        }
    }

    /// Gathers the key with this newest version.
    #[inline]
    fn key(&mut self, head: Ref) -> ControlFlow<()> {
        self.met = Some(head);
        // The record is looked at here, not when the walk comes to it: so its memory is awaited with that of others.
        let at = chain::newest_below(self.arena, self.met, self.below);
        if at.is_none() {
            return ControlFlow::Continue(());
        }
        // An older version is found by this one alone.
        self.passed[self.len] = Passed { at, own: None };
        self.len += 1;
        if self.len < self.passed.len() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}

/// The key that a walk meets first below `word`.
#[inline]
fn outermost(arena: &Arena, mut word: u32, way: Way) -> Option<Ref> {
    loop {
        match Child::of(arena, word)? {
            Child::Leaf(head) => return Some(head),
            Child::Node(inner) => word = inner.outermost(way)?,
        }
    }
}
