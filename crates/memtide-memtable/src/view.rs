//! Sorted views: the order of all records of an append-only variant at one moment, built on demand.
//!
//! A view is an immutable array of refs, keys ascending and versions newest first. Cursors share it and
//! keep it alive; inserts make the index build a new one at the next seek, by sorting what was appended
//! since and merging it into the last view. Its bytes are metered for as long as anyone holds it.

use memtide_base::sync::{Arc, Mutex};
use memtide_base::{SeqNo, key};

use crate::arena::{Arena, Ref};
use crate::contract::{LookupKey, Pos, Seek, Walk};
use crate::meter::{HeapMeter, Metered};

/// The records of a memtable in order, as they were when it was built.
#[derive(Debug)]
pub(crate) struct View {
    refs: Box<[Ref]>,
    _metered: Metered,
}

/// Bytes of an `Arc<View>` beside its refs: two counts and the value.
const VIEW_FIXED_BYTES: usize = 2 * size_of::<usize>() + size_of::<View>();

impl View {
    fn new(refs: Box<[Ref]>, meter: &Arc<HeapMeter>) -> Arc<Self> {
        let bytes = VIEW_FIXED_BYTES + size_of_val(&*refs);
        Arc::new(Self { refs, _metered: meter.hold(bytes as u64) })
    }

    /// The records in order.
    pub(crate) fn refs(&self) -> &[Ref] {
        &self.refs
    }
}

/// The latest view of an index, rebuilt when it has grown.
#[derive(Debug, Default)]
pub(crate) struct LatestView(Mutex<Option<Arc<View>>>);

impl LatestView {
    /// A view of all `count` records; `since(n)` lists those from the n-th insert on, in any order.
    pub(crate) fn at(
        &self,
        arena: &Arena,
        meter: &Arc<HeapMeter>,
        count: usize,
        since: impl FnOnce(usize) -> Vec<Ref>,
    ) -> Arc<View> {
        let mut latest = self.0.lock();
        let known = latest.as_ref().map_or(0, |view| view.refs.len());
        if let Some(view) = latest.as_ref().filter(|_| known == count) {
            return Arc::clone(view);
        }
        let mut fresh = since(known);
        debug_assert_eq!(known + fresh.len(), count);
        sort(arena, &mut fresh);
        let old = latest.as_ref().map_or(&[][..], |view| view.refs());
        let view = View::new(merge(arena, old, &fresh), meter);
        *latest = Some(Arc::clone(&view));
        view
    }
}

/// Keeps the `count` records that were inserted last: refs rise in the order of inserts.
pub(crate) fn keep_latest(refs: &mut Vec<Ref>, count: usize) {
    let surplus = refs.len() - count;
    if surplus > 0 && count > 0 {
        refs.select_nth_unstable(surplus);
    }
    refs.drain(..surplus);
}

/// Sorts refs by key, then newest first.
pub(crate) fn sort(arena: &Arena, refs: &mut [Ref]) {
    let order = |at: &Ref| {
        let entry = arena.entry(*at);
        (entry.key, std::cmp::Reverse(entry.seq))
    };
    refs.sort_unstable_by(|a, b| order(a).cmp(&order(b)));
}

fn merge(arena: &Arena, a: &[Ref], b: &[Ref]) -> Box<[Ref]> {
    let mut merged = Vec::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    while let (Some(&&x), Some(&&y)) = (a.peek(), b.peek()) {
        let (left, right) = (arena.entry(x), arena.entry(y));
        let left_first = left.key < right.key || (left.key == right.key && left.seq > right.seq);
        merged.extend(if left_first { a.next() } else { b.next() });
    }
    merged.extend(a);
    merged.extend(b);
    merged.into_boxed_slice()
}

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

/// What is wrong with an order of refs: keys ascending, versions newest first, nothing twice.
pub(crate) fn check_order(arena: &Arena, refs: &[Ref]) -> Result<(), String> {
    for pair in refs.windows(2) {
        let (a, b) = (arena.entry(pair[0]), arena.entry(pair[1]));
        if a.key > b.key || (a.key == b.key && a.seq <= b.seq) {
            return Err(format!("{:?} @ {} stands before {:?} @ {}", a.key, a.seq, b.key, b.seq));
        }
    }
    Ok(())
}
