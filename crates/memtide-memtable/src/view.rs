//! Sorted views: the order of all records of an append-only variant at one moment, built on demand.
//!
//! A view is an immutable array of refs, keys ascending and versions newest first. Cursors share it and
//! keep it alive; inserts make the index build a new one at the next seek, by sorting what was appended
//! since and merging it into the last view. Its bytes are metered for as long as anyone holds it.
//!
//! Invariants
//! - An index that uses views has one writer, so refs rise in the order of inserts: a view is all records up
//!   to its newest, and what is new is all refs above that. No counts, which would move under the reader.
//! - A view may hold records that no reader's bound shows yet. It lacks none that a bound shows which was
//!   published before the seek began.
//! - Readers build views under a lock of their own. A writer never takes it.

use std::cmp::Ordering as Order;

use memtide_base::sync::{Arc, Mutex};

use crate::arena::{Arena, Ref};
use crate::gallop::gallop;
use crate::key_order;
use crate::meter::{HeapMeter, Metered};

/// The records of a memtable in order, as they were when it was built.
#[derive(Debug)]
pub(crate) struct View {
    refs: Box<[Ref]>,
    /// The record inserted last; `None` if there is none.
    newest: Option<Ref>,
    _metered: Metered,
}

/// Bytes of an `Arc<View>` beside its refs: two counts and the value.
const VIEW_FIXED_BYTES: usize = 2 * size_of::<usize>() + size_of::<View>();

/// Bytes a view of so many records takes on the heap.
pub(crate) fn view_bytes(records: u64) -> u64 {
    VIEW_FIXED_BYTES as u64 + records * size_of::<Ref>() as u64
}

impl View {
    fn new(refs: Box<[Ref]>, newest: Option<Ref>, meter: &Arc<HeapMeter>) -> Arc<Self> {
        let bytes = view_bytes(refs.len() as u64);
        Arc::new(Self { refs, newest, _metered: meter.hold(bytes) })
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
    /// A view of all records up to `newest` at least. `since(known)` lists each record behind `known` up to
    /// `newest` once, in any order; what else it lists is passed over.
    pub(crate) fn at(
        &self,
        arena: &Arena,
        meter: &Arc<HeapMeter>,
        newest: Option<Ref>,
        since: impl FnOnce(Option<Ref>) -> Vec<Ref>,
    ) -> Arc<View> {
        let mut latest = self.0.lock();
        // The view of a reader that came later may be newer than what this one asks for.
        if let Some(view) = latest.as_ref().filter(|view| view.newest >= newest) {
            return Arc::clone(view);
        }
        let (known, old) = match latest.as_ref() {
            Some(view) => (view.newest, view.refs()),
            None => (None, &[][..]),
        };
        let mut fresh = since(known);
        fresh.retain(|&at| known < Some(at) && Some(at) <= newest);
        sort(arena, &mut fresh);
        let refs = if old.is_empty() { fresh.into() } else { merge(arena, old, &fresh) };
        let view = View::new(refs, newest, meter);
        *latest = Some(Arc::clone(&view));
        view
    }
}

/// Sorts refs by key, then newest first.
pub(crate) fn sort(arena: &Arena, refs: &mut [Ref]) {
    let mut lanes: Vec<_> = refs.iter().map(|&at| key_order::lane(at)).collect();
    let mut spare = vec![0; lanes.len()];
    key_order::sort(arena, &mut lanes, &mut spare);
    for (at, lane) in refs.iter_mut().zip(lanes) {
        *at = key_order::record(lane);
    }
}

/// Puts the few of `fresh` between the many of `old`, which are copied without a look at most of them.
fn merge(arena: &Arena, mut old: &[Ref], fresh: &[Ref]) -> Box<[Ref]> {
    let mut merged = Vec::with_capacity(old.len() + fresh.len());
    for &new in fresh {
        let (head, entry) = (arena.head(new), arena.entry(new));
        let before = gallop(old.len(), |index| match arena.head(old[index]).cmp(&head) {
            Order::Equal => key_order::order(&arena.entry(old[index]), &entry).is_lt(),
            unequal => unequal.is_lt(),
        });
        let (smaller, rest) = old.split_at(before);
        merged.extend_from_slice(smaller);
        merged.push(new);
        old = rest;
    }
    merged.extend_from_slice(old);
    merged.into_boxed_slice()
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
