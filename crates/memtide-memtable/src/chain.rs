//! The versions of one key, newest first, linked through link word 0 of their records.
//!
//! Used by the variants that index each user key once. A chain starts at a word (in an index node or in
//! front of another record) and ends at 0. Versions are added by compare-and-swap and never removed, so
//! readers and any number of writers walk a chain at once.

use std::cmp::Ordering as Order;

use memtide_base::SeqNo;
use memtide_base::sync::atomic::{AtomicU32, Ordering};

use crate::arena::{Arena, Ref};

/// The version behind `at`.
#[inline]
pub(crate) fn older(arena: &Arena, at: Ref) -> Option<Ref> {
    Ref::from_word(arena.link(at, 0).load(Ordering::Acquire))
}

/// The newest version with `seq < below` from `head` on.
#[inline]
pub(crate) fn newest_below(arena: &Arena, head: Option<Ref>, below: SeqNo) -> Option<Ref> {
    let newest = head?;
    if arena.seq(newest) < below { head } else { newest_behind(arena, newest, below) }
}

/// As [`newest_below`], from the version behind `at` on. Apart, because most keys have one version that is visible.
#[inline(never)]
fn newest_behind(arena: &Arena, at: Ref, below: SeqNo) -> Option<Ref> {
    let mut next = older(arena, at);
    while let Some(version) = next {
        if arena.seq(version) < below {
            return next;
        }
        next = older(arena, version);
    }
    None
}

/// Whether the chain has this very version.
pub(crate) fn contains(arena: &Arena, head: Option<Ref>, seq: SeqNo) -> bool {
    newest_below(arena, head, seq.saturating_add(1)).is_some_and(|at| arena.seq(at) == seq)
}

/// Links `new` into the chain that `start` holds, at the place its sequence number says; `false`, and `new`
/// stays out, if the chain has that number. Any number of threads may link at once.
pub(crate) fn link(arena: &Arena, start: &AtomicU32, new: Ref) -> bool {
    let seq = arena.seq(new);
    let mut before = start;
    loop {
        let next = before.load(Ordering::Acquire);
        match Ref::from_word(next).map(|version| (version, arena.seq(version).cmp(&seq))) {
            Some((version, Order::Greater)) if !cfg!(plant = "skiplist_chains_in_front") => {
                before = arena.link(version, 0);
                continue;
            }
            Some((_, Order::Equal)) => return false,
            Some(_) | None => {}
        }
        arena.link(new, 0).store(next, Ordering::Relaxed);
        // Release pairs with the Acquire loads of all who follow the chain: they see the record and its link.
        // Who fails looks again from the same word, which stays in the chain for ever.
        let linked =
            before.compare_exchange(next, new.word(), Ordering::Release, Ordering::Relaxed);
        if linked.is_ok() {
            return true;
        }
    }
}

/// How many versions a chain has, or what is wrong with it: all of one key, sequence numbers falling.
pub(crate) fn check(arena: &Arena, head: Option<Ref>) -> Result<u64, String> {
    let (mut count, mut at) = (0, head);
    while let Some(version) = at {
        let next = older(arena, version);
        if let Some(next) = next {
            let (newer, older) = (arena.entry(version), arena.entry(next));
            if newer.key != older.key || newer.seq <= older.seq {
                return Err(format!(
                    "version {} of {:?} is followed by version {} of {:?}",
                    newer.seq, newer.key, older.seq, older.key
                ));
            }
        }
        count += 1;
        at = next;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test's own threads are no background work")]

    use std::thread;

    use memtide_base::Kind;

    use super::*;
    use crate::arena::Beside;
    use crate::contract::NewEntry;

    /// Four threads link the versions 0..3000, each version twice, in four orders.
    #[test]
    fn racing_versions_are_linked_once_and_in_order() {
        const VERSIONS: u64 = 3000;
        let (arena, start) = (Arena::new(1 << 20), AtomicU32::new(0));
        let orders: [fn(u64) -> u64; 4] =
            [|i| 2 * i, |i| VERSIONS - 2 - 2 * i, |i| 2 * (i * 617 % 1500) + 1, |i| 2 * i + 1];
        let linked: u64 = thread::scope(|scope| {
            let threads = orders.map(|order| {
                let plan = arena.plan(1500 * 16, Beside::default()).expect("a megabyte holds it");
                assert!(arena.allocate(&plan));
                let (mut slab, arena, start) = (arena.slab(&plan), &arena, &start);
                scope.spawn(move || {
                    let mut put = |seq| {
                        let version = slab.record(1, &NewEntry::new(b"k", 0, seq, Kind::Put, b""));
                        link(arena, start, version)
                    };
                    (0..1500).filter(|&index| put(order(index))).count() as u64
                })
            });
            threads.map(|thread| thread.join().expect("no panic")).into_iter().sum()
        });
        assert_eq!(linked, VERSIONS);
        let head = Ref::from_word(start.load(Ordering::Acquire));
        assert_eq!(check(&arena, head), Ok(VERSIONS));
        assert_eq!(head.map(|newest| arena.seq(newest)), Some(VERSIONS - 1));
    }
}
