//! The records inserted last, in order of arrival: for an index whose own order does not say what is new.
//!
//! A ring that one writer fills and any number of readers look into beside it. A slot is written again before the
//! count says so, and a reader looks at the count once more after the slots: if it came no further than just before
//! the oldest slot read was due again, none of them was. Otherwise what was read is thrown away; nobody waits.
//!
//! Invariant: refs rise in the order of inserts, as they do with one writer.

use memtide_base::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::arena::Ref;

/// A model checker is given few, so that slots are written again.
const KEPT: usize = if cfg!(any(loom, shuttle)) { 2 } else { 64 };

/// See the module.
#[derive(Debug)]
pub(crate) struct Recent {
    slots: [AtomicU32; KEPT],
    count: AtomicU64,
}

impl Recent {
    pub(crate) fn new() -> Self {
        Self { slots: std::array::from_fn(|_| AtomicU32::new(0)), count: AtomicU64::new(0) }
    }

    /// Notes a record, which is whole. For the one writer.
    pub(crate) fn push(&self, at: Ref) {
        let count = self.count.load(Ordering::Relaxed);
        self.slot(count).store(at.word(), Ordering::Release);
        self.count.store(count + 1, Ordering::Release);
    }

    /// All records behind `known`, newest first; `None` if they are more than are kept.
    pub(crate) fn since(&self, known: Option<Ref>) -> Option<Vec<Ref>> {
        // Acquire pairs with the Release in `push`: the slots below are filled.
        let count = self.count.load(Ordering::Acquire);
        let mut refs = Vec::new();
        for index in (0..count).rev() {
            // Acquire pairs with the Release in `push`: who sees a slot written again sees the count before that.
            let at = Ref::from_word(self.slot(index).load(Ordering::Acquire));
            if self.count.load(Ordering::Acquire) >= index + KEPT as u64 {
                return None;
            }
            if at <= known {
                break;
            }
            refs.extend(at);
        }
        Some(refs)
    }

    fn slot(&self, index: u64) -> &AtomicU32 {
        &self.slots[usize::try_from(index % KEPT as u64).expect("few")]
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test's own threads are no background work")]

    use std::thread;

    use super::*;

    fn words(refs: Option<Vec<Ref>>) -> Option<Vec<u32>> {
        Some(refs?.into_iter().map(Ref::word).collect())
    }

    #[test]
    fn what_is_new_is_known_until_it_is_too_much() {
        let recent = Recent::new();
        assert_eq!(recent.since(None), Some(vec![]));
        let kept = u32::try_from(KEPT).expect("few");
        for word in 1..5 * kept {
            recent.push(Ref::from_word(word).expect("not 0"));
            for behind in [0, 1, 2, kept - 2, kept - 1, kept, kept + 1] {
                let Some(known) = word.checked_sub(behind) else { continue };
                // The slot of the known one must be there to be recognised, unless it is before all.
                let is_kept = behind < kept - 1 || (known == 0 && behind < kept);
                let new = || (known + 1..=word).rev().collect();
                let since = words(recent.since(Ref::from_word(known)));
                assert_eq!(since, is_kept.then(new), "{behind} behind {word}");
            }
        }
    }

    #[test]
    fn beside_the_writer_nothing_is_left_out() {
        const PUSHES: u32 = 300_000;
        let recent = Recent::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                (1..=PUSHES).for_each(|word| recent.push(Ref::from_word(word).expect("not 0")));
            });
            let mut known = 0;
            while known < PUSHES {
                let newest = u32::try_from(recent.count.load(Ordering::Acquire)).expect("few");
                if let Some(since) = words(recent.since(Ref::from_word(known))) {
                    let first = since.first().copied().unwrap_or(known);
                    assert!(first >= newest);
                    assert_eq!(since, (known + 1..=first).rev().collect::<Vec<_>>());
                }
                known = newest.max(known);
            }
        });
    }
}
