//! Which versions a merge keeps. Pure: no I/O, no clock, tested as a table.
//!
//! A version v dies only if the same merge holds a newer version v′ of its key below the merge's `visible`,
//! and no live snapshot S has v < S ≤ v′. A covering range tombstone counts as v′. A tombstone t dies only
//! if every read sees past it and nothing outside the merge can hold anything older that it hides.

use memtide_base::range_tombstone::Fragment;
use memtide_base::{Entry, Kind, RangeTombstone, RangeTombstones, Result, SeqNo};

use crate::read::VersionStream;
use crate::snapshots::Readers;

/// What lies outside a merge and is older than everything inside it.
pub(crate) trait Older {
    /// Whether anything older may have `key`.
    fn may_hold(&self, key: &[u8]) -> bool;
    /// Whether anything older may have a key that `tombstone` covers.
    fn may_hold_under(&self, tombstone: &RangeTombstone) -> bool;
}

/// The rule, for one merge.
pub(crate) struct Survivors<'m> {
    readers: &'m Readers,
    older: &'m dyn Older,
    tombstones: RangeTombstones,
    /// The version of the present key that was met before.
    newer: Option<SeqNo>,
}

impl<'m> Survivors<'m> {
    /// `tombstones` are those of all inputs.
    pub(crate) fn new(
        readers: &'m Readers,
        older: &'m dyn Older,
        tombstones: &[RangeTombstone],
    ) -> Self {
        Self { readers, older, tombstones: RangeTombstones::new(tombstones), newer: None }
    }

    /// Walks the whole merge in order and stops at each version that stays; says whether it is the newest of its
    /// key that does.
    pub(crate) fn walk(
        &mut self,
        versions: &mut VersionStream,
        mut take: impl FnMut(&VersionStream, bool) -> Result<()>,
    ) -> Result<()> {
        let mut is_newest = true;
        let mut found = versions.start()?;
        while found {
            if versions.begins_key() {
                self.begin_key();
                is_newest = true;
            }
            if self.keeps(&versions.entry()) {
                take(versions, is_newest)?;
                is_newest = false;
            }
            found = versions.advance()?;
        }
        Ok(())
    }

    /// Goes to the next key.
    fn begin_key(&mut self) {
        self.newer = None;
    }

    /// Whether this version, the next older one of the present key, stays.
    fn keeps(&mut self, entry: &Entry<'_>) -> bool {
        let over = self.tombstones.oldest_over(entry.key, entry.seq);
        let version = self.newer.replace(entry.seq);
        if version == Some(entry.seq) {
            // The same write, from another source.
            return false;
        }
        let newer = match (version, over) {
            (Some(version), Some(tombstone)) => Some(version.min(tombstone)),
            (version, tombstone) => version.or(tombstone),
        };
        if newer.is_some_and(|newer| self.readers.hides(entry.seq, newer)) {
            return false;
        }
        entry.kind != Kind::Delete
            || !self.readers.all_see(entry.seq)
            || self.older.may_hold(entry.key) && !cfg!(plant = "tombstone_dropped_early")
    }

    /// The range tombstones that stay, fragmented.
    pub(crate) fn fragments(&self) -> Vec<Fragment> {
        self.tombstones.fragments().iter().filter_map(|fragment| self.fragment(fragment)).collect()
    }

    /// The range tombstones of which something stays, whole.
    pub(crate) fn surviving(&self, mut tombstones: Vec<RangeTombstone>) -> Vec<RangeTombstone> {
        let mut seqs: Vec<_> = self.fragments().into_iter().flat_map(|f| f.seqs).collect();
        seqs.sort_unstable();
        tombstones.retain(|tombstone| seqs.binary_search(&tombstone.seq).is_ok());
        tombstones
    }

    /// What stays of one fragment. A tombstone under a newer one over the same keys is a version like any
    /// other: it stays if a snapshot sees it and not the newer one.
    fn fragment(&self, whole: &Fragment) -> Option<Fragment> {
        let mut newer = None;
        let mut seqs = whole.seqs.clone();
        seqs.retain(|&seq| {
            let hidden = newer.replace(seq).is_some_and(|newer| self.readers.hides(seq, newer));
            let spent = self.readers.all_see(seq) && self.nothing_under(whole, seq);
            !hidden && !spent
        });
        (!seqs.is_empty()).then(|| Fragment { seqs, ..whole.clone() })
    }

    fn nothing_under(&self, fragment: &Fragment, seq: SeqNo) -> bool {
        let (start, end) = (fragment.start.clone(), fragment.end.clone());
        cfg!(plant = "range_tombstone_dropped_early")
            || !self.older.may_hold_under(&RangeTombstone { start, end, seq })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Outside(bool);

    impl Older for Outside {
        fn may_hold(&self, _: &[u8]) -> bool {
            self.0
        }
        fn may_hold_under(&self, _: &RangeTombstone) -> bool {
            self.0
        }
    }

    /// The versions of one key that stay: `(seq, is_put)`, newest first.
    fn kept(
        versions: &[(SeqNo, bool)],
        tombstones: &[SeqNo],
        snapshots: &[SeqNo],
        older_outside: bool,
    ) -> Vec<SeqNo> {
        let readers = Readers { visible: 100, snapshots: snapshots.to_vec() };
        let over: Vec<_> =
            tombstones.iter().map(|&seq| RangeTombstone::new(b"a", b"z", seq)).collect();
        let outside = Outside(older_outside);
        let mut rule = Survivors::new(&readers, &outside, &over);
        rule.begin_key();
        let entry = |&(seq, is_put): &(SeqNo, bool)| {
            let kind = if is_put { Kind::Put } else { Kind::Delete };
            Entry { key: b"k", seq, kind, value: b"" }
        };
        versions.iter().map(entry).filter(|e| rule.keeps(e)).map(|e| e.seq).collect()
    }

    #[test]
    fn only_versions_that_some_read_can_see_stay() {
        let puts = [(30, true), (20, true), (10, true)];
        assert_eq!(kept(&puts, &[], &[], true), [30]);
        assert_eq!(kept(&puts, &[], &[15], true), [30, 10]);
        assert_eq!(kept(&puts, &[], &[10], true), [30], "a read below 10 sees nothing of it");
        assert_eq!(kept(&puts, &[25], &[], true), [30]);
        assert_eq!(kept(&puts, &[35], &[], true), [] as [SeqNo; 0]);
        assert_eq!(kept(&puts, &[35], &[31], true), [30]);
        assert_eq!(kept(&[(200, true), (99, true), (98, true)], &[], &[], true), [200, 99]);
    }

    #[test]
    fn of_nested_range_tombstones_the_newest_stays_and_those_that_snapshots_see() {
        let nested: Vec<_> =
            (1..=50_u8).map(|n| RangeTombstone::new(b"a", &[b'b', 50 - n], n.into())).collect();
        for (snapshots, want) in [(&[][..], vec![50]), (&[20], vec![50, 19])] {
            let readers = Readers { visible: 100, snapshots: snapshots.to_vec() };
            let fragments = Survivors::new(&readers, &Outside(true), &nested).fragments();
            assert_eq!(fragments[0].seqs, want);
            assert!(fragments.iter().all(|fragment| fragment.seqs.len() <= 2));
            let gone = Survivors::new(&readers, &Outside(false), &nested).fragments();
            assert_eq!(gone.is_empty(), snapshots.is_empty());
        }
    }

    #[test]
    fn a_tombstone_stays_while_it_hides_something() {
        let deleted = [(30, false), (20, true)];
        assert_eq!(kept(&deleted, &[], &[], true), [30]);
        assert_eq!(kept(&deleted, &[], &[], false), [] as [SeqNo; 0]);
        assert_eq!(kept(&deleted, &[], &[25], false), [30, 20]);
        assert_eq!(kept(&[(100, false)], &[], &[], false), [100], "not visible yet");
    }
}
