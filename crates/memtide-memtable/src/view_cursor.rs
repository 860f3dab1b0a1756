//! Walking a sorted view: `seek` and `walk` of every variant that orders on demand.
//!
//! A position is an index into the view it holds, so inserts never move it.

use memtide_base::sync::Arc;
use memtide_base::{SeqNo, key};

use crate::arena::{Arena, Ref};
use crate::contract::{LookupKey, Pos, Seek, Walk};
use crate::view::View;

/// Places `pos` in `view`: the `seek` of every variant that orders on demand.
pub(crate) fn seek(arena: &Arena, pos: &mut Pos, view: Arc<View>, below: SeqNo, to: Seek<'_>) {
    let refs = view.refs();
    let lower = |k: &LookupKey<'_>| refs.partition_point(|&at| is_below(arena, at, k));
    let upper = |k: &LookupKey<'_>| {
        lower(k) + refs[lower(k)..].partition_point(|&at| arena.key(at) == k.key)
    };
    let found = match to {
        Seek::First => forward(arena, refs, 0, below),
        Seek::Last => backward(arena, refs, refs.len(), below),
        Seek::Ge(k) => forward(arena, refs, lower(&k), below),
        Seek::Le(k) => backward(arena, refs, upper(&k), below),
    };
    settle(pos, refs, found);
    pos.view = Some(view);
}

/// Moves `pos` in its view: the `walk` of every variant that orders on demand.
pub(crate) fn walk(arena: &Arena, pos: &mut Pos, below: SeqNo, step: Walk) -> bool {
    let Some(view) = pos.view.take() else { return false };
    let refs = view.refs();
    let here = usize::try_from(pos.words[0]).expect("an index into the view");
    let key = arena.key(refs[here]);
    let moved = match step {
        Walk::Next => {
            let behind = here + same_key_run(arena, &refs[here..], key);
            settle(pos, refs, forward(arena, refs, behind, below))
        }
        Walk::Prev => {
            let before = refs[..here].iter().rev().take_while(|&&at| arena.key(at) == key).count();
            settle(pos, refs, backward(arena, refs, here - before, below))
        }
        Walk::Older => {
            let next = refs.get(here + 1).filter(|&&at| arena.key(at) == key);
            next.is_some() && settle(pos, refs, Some(here + 1))
        }
    };
    pos.view = Some(view);
    moved
}

fn settle(pos: &mut Pos, refs: &[Ref], found: Option<usize>) -> bool {
    pos.at = found.map(|index| refs[index]);
    pos.words[0] = found.unwrap_or(0) as u64;
    found.is_some()
}

/// The first visible version at or behind `from`, which is a key's first version or the end.
fn forward(arena: &Arena, refs: &[Ref], from: usize, below: SeqNo) -> Option<usize> {
    (from..refs.len()).find(|&index| arena.seq(refs[index]) < below)
}

/// The newest visible version of the last key before `end`, which is a key's first version or the end.
fn backward(arena: &Arena, refs: &[Ref], end: usize, below: SeqNo) -> Option<usize> {
    let oldest = (0..end).rev().find(|&index| arena.seq(refs[index]) < below)?;
    let key = arena.key(refs[oldest]);
    let visible = |index: &usize| {
        let entry = arena.entry(refs[*index]);
        entry.key == key && entry.seq < below
    };
    (0..=oldest).rev().take_while(visible).last()
}

/// How many refs from the first on have `key`.
fn same_key_run(arena: &Arena, refs: &[Ref], key: &[u8]) -> usize {
    refs.iter().take_while(|&&at| arena.key(at) == key).count()
}

fn is_below(arena: &Arena, at: Ref, k: &LookupKey<'_>) -> bool {
    let key = arena.key(at);
    match key::head(key).cmp(&k.head) {
        std::cmp::Ordering::Equal => key < k.key,
        unequal => unequal.is_lt(),
    }
}
