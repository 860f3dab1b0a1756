//! The versions of one key, newest first, linked through link word 0 of their records.
//!
//! Used by the variants that index each user key once. A chain starts at a word (in an index node or in
//! front of another record) and ends at 0.

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
    let mut at = head;
    while let Some(version) = at {
        if arena.seq(version) < below {
            return at;
        }
        at = older(arena, version);
    }
    None
}

/// Whether the chain has this very version.
pub(crate) fn contains(arena: &Arena, head: Option<Ref>, seq: SeqNo) -> bool {
    newest_below(arena, head, seq.saturating_add(1)).is_some_and(|at| arena.seq(at) == seq)
}

/// Links `new` into the chain that `start` holds, at the place its sequence number says.
pub(crate) fn link(arena: &Arena, start: &AtomicU32, new: Ref) {
    let seq = arena.seq(new);
    let mut before = start;
    let mut next = Ref::from_word(before.load(Ordering::Acquire));
    while let Some(version) = next.filter(|&version| arena.seq(version) > seq) {
        before = arena.link(version, 0);
        next = Ref::from_word(before.load(Ordering::Acquire));
    }
    arena.link(new, 0).store(crate::arena::word_of(next), Ordering::Relaxed);
    before.store(new.word(), Ordering::Release);
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
