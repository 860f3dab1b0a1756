//! Walking a sorted view: `seek` and `walk` of every variant that orders on demand.
//!
//! A position is an index into the view it holds, so inserts never move it. The versions of a key lie side by
//! side, newest first, so those to pass over are galloped past: a step is O(log of their number).

use memtide_base::SeqNo;
use memtide_base::sync::Arc;

use crate::arena::{Arena, Ref};
use crate::contract::{LookupKey, Pos, Seek, Walk};
use crate::gallop::gallop;
use crate::view::View;

/// Places `pos` in `view`: the `seek` of every variant that orders on demand.
pub(crate) fn seek(arena: &Arena, pos: &mut Pos, view: Arc<View>, below: SeqNo, to: Seek<'_>) {
    let refs = view.refs();
    let lower = |k: &LookupKey<'_>| refs.partition_point(|&at| is_below(arena, at, k));
    let upper = |k: &LookupKey<'_>| {
        let start = lower(k);
        start + same_key_run(arena, &refs[start..], k.key)
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
            let behind = here + 1 + same_key_run(arena, &refs[here + 1..], key);
            settle(pos, refs, forward(arena, refs, behind, below))
        }
        Walk::Prev => {
            let before = gallop(here, |back| arena.key(refs[here - 1 - back]) == key);
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
    let mut at = from;
    while at < refs.len() && arena.seq(refs[at]) >= below {
        let (rest, key) = (&refs[at..], arena.key(refs[at]));
        at += gallop(rest.len(), |index| {
            arena.seq(rest[index]) >= below && arena.key(rest[index]) == key
        });
    }
    (at < refs.len()).then_some(at)
}

/// The newest visible version of the last key before `end`, which is a key's first version or the end.
fn backward(arena: &Arena, refs: &[Ref], end: usize, below: SeqNo) -> Option<usize> {
    let mut refs = &refs[..end];
    while let Some(&oldest) = refs.last() {
        let key = arena.key(oldest);
        let is_visible = arena.seq(oldest) < below;
        // All versions if even the oldest is hidden.
        let skipped = gallop(refs.len(), |back| {
            let at = refs[refs.len() - 1 - back];
            (!is_visible || arena.seq(at) < below) && arena.key(at) == key
        });
        refs = &refs[..refs.len() - skipped];
        if is_visible {
            return Some(refs.len());
        }
    }
    None
}

/// How many refs from the first on have `key`.
fn same_key_run(arena: &Arena, refs: &[Ref], key: &[u8]) -> usize {
    gallop(refs.len(), |index| arena.key(refs[index]) == key)
}

fn is_below(arena: &Arena, at: Ref, k: &LookupKey<'_>) -> bool {
    match arena.head(at).cmp(&k.head) {
        std::cmp::Ordering::Equal => arena.key(at) < k.key,
        unequal => unequal.is_lt(),
    }
}
