//! A cursor over one sealed run: its memtables one after the other, one open at a time.

use memtide_base::{Cursor, Entry, Kind, Result, SeqNo, Target};
use memtide_memtable::MemCursor;

use crate::sealed_run::SealedRun;

/// Walks disjoint memtables in key order.
#[derive(Debug)]
pub(crate) struct SealedCursor {
    run: SealedRun,
    below: SeqNo,
    /// The memtable the cursor is in, and where in the run it is.
    inside: Option<(usize, MemCursor)>,
}

impl SealedCursor {
    /// A cursor over a run of several memtables.
    pub(super) fn new(run: SealedRun, below: SeqNo) -> Self {
        Self { run, below, inside: None }
    }

    /// Seeks in the memtable at `index` and goes on to its neighbours while they have nothing.
    fn enter(&mut self, index: Option<usize>, target: Target<'_>, forward: bool) -> Result<bool> {
        let (mut index, mut target) = (index, target);
        while let Some(at) = index.filter(|at| *at < self.run.len()) {
            if self.inside.as_ref().is_none_or(|(inside, _)| *inside != at) {
                self.inside = Some((at, self.run.table(at).cursor(self.below)));
            }
            let (_, cursor) = self.inside.as_mut().expect("set just now");
            if cursor.seek(target)? {
                return Ok(true);
            }
            index = if forward { at.checked_add(1) } else { at.checked_sub(1) };
            target = if forward { Target::First } else { Target::Last };
        }
        self.inside = None;
        Ok(false)
    }

    #[inline]
    fn cursor(&self) -> &MemCursor {
        &self.inside.as_ref().expect("the cursor stands on an entry").1
    }
}

impl Cursor for SealedCursor {
    fn seek(&mut self, target: Target<'_>) -> Result<bool> {
        match target {
            Target::First => self.enter(Some(0), target, true),
            Target::Last => self.enter(self.run.len().checked_sub(1), target, false),
            Target::Ge(key) => self.enter(Some(self.run.first_up_to(key)), target, true),
            Target::Le(key) => self.enter(self.run.end_from(key).checked_sub(1), target, false),
        }
    }

    #[inline]
    fn next(&mut self) -> Result<bool> {
        let Some((index, cursor)) = &mut self.inside else { return Ok(false) };
        if cursor.next()? {
            return Ok(true);
        }
        let after = *index + 1;
        self.enter(Some(after), Target::First, true)
    }

    #[inline]
    fn prev(&mut self) -> Result<bool> {
        let Some((index, cursor)) = &mut self.inside else { return Ok(false) };
        if cursor.prev()? {
            return Ok(true);
        }
        let before = index.checked_sub(1);
        self.enter(before, Target::Last, false)
    }

    fn older(&mut self) -> Result<bool> {
        self.inside.as_mut().map_or(Ok(false), |(_, cursor)| cursor.older())
    }

    #[inline]
    fn entry(&self) -> Entry<'_> {
        self.cursor().entry()
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.cursor().key()
    }

    #[inline]
    fn kind(&self) -> Kind {
        self.cursor().kind()
    }
}

#[cfg(test)]
mod tests {
    use memtide_base::hash;
    use memtide_base::seqno::SEE_ALL;
    use memtide_base::sync::Arc;
    use memtide_memtable::Memtable;

    use super::*;
    use crate::read::Source;
    use crate::sealed_run::overlaps;
    use crate::sealed_run::tests::runs;

    #[test]
    fn a_run_of_several_is_read_and_walked_as_one_memtable() {
        let parts = runs(&["gf", "b", "mnk", "p"]);
        let members = overlaps(&parts).into_iter().flatten().collect();
        let run = SealedRun::in_order(members);
        assert_eq!((run.len(), run.seq_end()), (4, 4));
        let keys = b"bfgkmnp";
        let mut source = Source::sealed(&run, SEE_ALL);
        let cursor = source.cursor();
        for probe in b'a'..=b'q' {
            let over = run.table_over(&[probe]);
            let has = |table: &Arc<Memtable>| {
                table.get(&[probe], hash::key_hash(1, &[probe]), SEE_ALL).is_some()
            };
            assert_eq!(over.is_some_and(has), keys.contains(&probe), "{}", char::from(probe));
            let (before, from): (Vec<u8>, Vec<u8>) = keys.iter().partition(|&&key| key < probe);
            let mut forward = Vec::new();
            let mut found = cursor.seek(Target::Ge(&[probe])).expect("in memory");
            while found {
                forward.push(cursor.key()[0]);
                found = cursor.next().expect("in memory");
            }
            assert_eq!(forward, from, "from {}", char::from(probe));
            let mut back = Vec::new();
            let mut found = cursor.seek(Target::Le(&[probe - 1])).expect("in memory");
            while found {
                back.insert(0, cursor.key()[0]);
                found = cursor.prev().expect("in memory");
            }
            assert_eq!(back, before, "back from {}", char::from(probe));
            // There and back again, also from one memtable into the next.
            if let (Some(last), Some(first)) = (before.last(), from.first()) {
                assert!(cursor.seek(Target::Ge(&[probe])).expect("in memory"));
                assert!(cursor.prev().expect("in memory"));
                assert_eq!(cursor.key(), [*last]);
                assert!(cursor.next().expect("in memory"));
                assert_eq!(cursor.key(), [*first]);
            }
        }
        for bound in 1..=4 {
            let mut source = Source::sealed(&run, bound);
            let mut found = source.cursor().seek(Target::First).expect("in memory");
            let mut shown = 0;
            while found {
                assert!(source.entry().seq < bound);
                shown += 1;
                found = source.cursor().next().expect("in memory");
            }
            let visible = [0, 4, 6, 7][usize::try_from(bound - 1).expect("small")];
            assert_eq!(shown, visible, "below {bound}");
        }
    }
}
