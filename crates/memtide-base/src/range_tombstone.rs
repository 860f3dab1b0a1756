//! Range tombstones: deletes of whole key ranges, kept beside the entries of a memtable or table.
//!
//! A source's tombstones overlap freely. To answer "is this key covered?" in O(log n) they are cut at each
//! other's ends into *fragments*: disjoint ranges in key order, each with the sequence numbers of every
//! tombstone over it, newest first. (Fragmentation as in RocksDB's and Pebble's range deletes, 2018.)
//!
//! A tombstone hides the versions of a covered key that are **older** than itself; at equal sequence
//! numbers neither exists, because sequence numbers are unique.

use crate::SeqNo;
use crate::key::Upper;

/// One delete of the keys from `start` (inclusive) to `end` (exclusive, `None` = unbounded).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeTombstone {
    /// First key that is deleted.
    pub start: Vec<u8>,
    /// First key that is not; `None` if all above `start` are deleted.
    pub end: Option<Vec<u8>>,
    /// Which write this is.
    pub seq: SeqNo,
}

impl RangeTombstone {
    /// The tombstone an entry of kind range delete stands for: an empty end is unbounded.
    #[must_use]
    pub fn new(start: &[u8], end: &[u8], seq: SeqNo) -> Self {
        let end = (!end.is_empty()).then(|| end.to_vec());
        Self { start: start.to_vec(), end, seq }
    }

    /// Whether it deletes nothing: its end does not lie above its start.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// The end as it is stored: empty = unbounded.
    #[must_use]
    pub fn end_bytes(&self) -> &[u8] {
        self.end.as_deref().unwrap_or_default()
    }

    /// The largest key it can delete, as a bound.
    #[must_use]
    pub fn upper(&self) -> Upper {
        self.end.clone().map_or(Upper::Unbounded, Upper::Excluded)
    }

    /// The part of it that lies in `[from, to)` (`None` = unbounded); `None` if that is empty.
    #[must_use]
    pub fn clipped(&self, from: &[u8], to: Option<&[u8]>) -> Option<Self> {
        let start = self.start.as_slice().max(from).to_vec();
        let end = match (self.end.as_deref(), to) {
            (Some(end), Some(to)) => Some(end.min(to).to_vec()),
            (Some(end), None) => Some(end.to_vec()),
            (None, to) => to.map(<[u8]>::to_vec),
        };
        let part = Self { start, end, seq: self.seq };
        (!part.is_empty()).then_some(part)
    }
}

/// A range no tombstone begins or ends inside of, and the tombstones over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// First key of the range.
    pub start: Vec<u8>,
    /// First key behind the range; `None` = unbounded.
    pub end: Option<Vec<u8>>,
    /// Sequence numbers of the tombstones over it, newest first, never empty.
    pub seqs: Vec<SeqNo>,
}

impl Fragment {
    /// The part of it that lies in `[from, to)` (`None` = unbounded); `None` if that is empty.
    #[must_use]
    pub fn clipped(&self, from: &[u8], to: Option<&[u8]>) -> Option<Self> {
        let whole = RangeTombstone { start: self.start.clone(), end: self.end.clone(), seq: 0 };
        let RangeTombstone { start, end, .. } = whole.clipped(from, to)?;
        Some(Self { start, end, seqs: self.seqs.clone() })
    }
}

/// What the range tombstones of a source say of a key, and where they say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TombstoneSpan<'t> {
    /// First key of the span; empty from the first key there is.
    pub start: &'t [u8],
    /// First key behind the span; `None` = unbounded.
    pub end: Option<&'t [u8]>,
    /// The newest tombstone over each of its keys, if there is one.
    pub newest: Option<SeqNo>,
}

/// All range tombstones of one source, fragmented: disjoint, in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeTombstones {
    fragments: Vec<Fragment>,
}

impl RangeTombstones {
    /// Cuts `tombstones`, in any order, into fragments. O(n log n + fragments × overlap).
    #[must_use]
    pub fn new(tombstones: &[RangeTombstone]) -> Self {
        let live: Vec<_> = tombstones.iter().filter(|t| !t.is_empty()).collect();
        let mut cuts: Vec<Option<&[u8]>> = Vec::with_capacity(2 * live.len());
        for tombstone in &live {
            cuts.push(Some(&tombstone.start));
            cuts.push(tombstone.end.as_deref());
        }
        // `None` is the end above every key, so it sorts last.
        cuts.sort_unstable_by_key(|&cut| (cut.is_none(), cut));
        cuts.dedup();

        let mut by_start = live;
        by_start.sort_unstable_by(|a, b| a.start.cmp(&b.start));
        let (mut open, mut next, mut fragments) = (Vec::new(), 0, Vec::new());
        for pair in cuts.windows(2) {
            let [Some(start), end] = *pair else { continue };
            while next < by_start.len() && by_start[next].start.as_slice() <= start {
                open.push(by_start[next]);
                next += 1;
            }
            open.retain(|tombstone| tombstone.end.as_deref().is_none_or(|end| end > start));
            if open.is_empty() {
                continue;
            }
            let mut seqs: Vec<SeqNo> = open.iter().map(|tombstone| tombstone.seq).collect();
            seqs.sort_unstable_by(|a, b| b.cmp(a));
            seqs.dedup();
            fragments.push(Fragment { start: start.to_vec(), end: end.map(<[u8]>::to_vec), seqs });
        }
        Self { fragments }
    }

    /// Fragments that are already disjoint and in key order, as a table stores them; `None` if they
    /// are not.
    #[must_use]
    pub fn from_fragments(fragments: Vec<Fragment>) -> Option<Self> {
        let whole = |f: &Fragment| {
            !f.seqs.is_empty()
                && f.seqs.is_sorted_by(|a, b| a > b)
                && f.end.as_ref().is_none_or(|end| *end > f.start)
        };
        let apart = |pair: &[Fragment]| pair[0].end.as_ref().is_some_and(|e| *e <= pair[1].start);
        (fragments.iter().all(whole) && fragments.windows(2).all(apart))
            .then_some(Self { fragments })
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fragments.is_empty()
    }

    /// The fragments in key order.
    #[must_use]
    pub fn fragments(&self) -> &[Fragment] {
        &self.fragments
    }

    /// The newest tombstone over `key` with `seq < below`. O(log n), no allocation.
    #[must_use]
    pub fn newest_over(&self, key: &[u8], below: SeqNo) -> Option<SeqNo> {
        self.over(key)?.seqs.iter().copied().find(|&seq| seq < below)
    }

    /// As [`RangeTombstones::newest_over`], with a range around `key` where the answer is the same, which reaches
    /// over fragments to the side that a walk goes `forward` or back to. O(log n + fragments reached over), no
    /// allocation.
    #[must_use]
    pub fn span_over(&self, key: &[u8], below: SeqNo, forward: bool) -> TombstoneSpan<'_> {
        let newest_of = |f: &Fragment| f.seqs.iter().copied().find(|&seq| seq < below);
        let after = self.fragments.partition_point(|fragment| fragment.start.as_slice() <= key);
        let own = self.over(key);
        let (before, behind) = self.fragments.split_at(after);
        let before = if own.is_some() { &before[..after - 1] } else { before };
        // Between two fragments that do not touch there is no tombstone.
        let newest = own.and_then(newest_of);
        let (mut start, mut end) = match own {
            Some(own) => (own.start.as_slice(), own.end.as_deref()),
            None => (end_of(before.last()), behind.first().map(|next| next.start.as_slice())),
        };
        if forward {
            for at in 0..=behind.len() {
                let next = behind.get(at);
                if newest.is_none() {
                    end = next.map(|next| next.start.as_slice());
                }
                match next {
                    Some(next) if end == Some(&next.start) && newest_of(next) == newest => {
                        end = next.end.as_deref();
                    }
                    _ => break,
                }
            }
        } else {
            for at in (0..=before.len()).rev() {
                let last = at.checked_sub(1).map(|at| &before[at]);
                if newest.is_none() {
                    start = end_of(last);
                }
                match last {
                    Some(last) if end_of(Some(last)) == start && newest_of(last) == newest => {
                        start = &last.start;
                    }
                    _ => break,
                }
            }
        }
        TombstoneSpan { start, end, newest }
    }

    /// The oldest tombstone over `key` with `seq > above`. O(log n), no allocation.
    #[must_use]
    pub fn oldest_over(&self, key: &[u8], above: SeqNo) -> Option<SeqNo> {
        self.over(key)?.seqs.iter().rev().copied().find(|&seq| seq > above)
    }

    /// The fragment that holds `key`.
    fn over(&self, key: &[u8]) -> Option<&Fragment> {
        let after = self.fragments.partition_point(|fragment| fragment.start.as_slice() <= key);
        let fragment = self.fragments.get(after.checked_sub(1)?)?;
        let inside = fragment.end.as_ref().is_none_or(|end| end.as_slice() > key);
        inside.then_some(fragment)
    }

    /// Each fragment's tombstones one by one, in key order, newest first.
    pub fn iter(&self) -> impl Iterator<Item = RangeTombstone> + '_ {
        self.fragments.iter().flat_map(|fragment| {
            fragment.seqs.iter().map(|&seq| RangeTombstone {
                start: fragment.start.clone(),
                end: fragment.end.clone(),
                seq,
            })
        })
    }

    /// Heap bytes it holds, allocated capacity included.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let of = |f: &Fragment| {
            f.start.capacity()
                + f.end.as_ref().map_or(0, Vec::capacity)
                + f.seqs.capacity() * size_of::<SeqNo>()
        };
        self.fragments.capacity() * size_of::<Fragment>()
            + self.fragments.iter().map(of).sum::<usize>()
    }
}

/// The first key behind a fragment that another one follows, or the first key of all.
fn end_of(fragment: Option<&Fragment>) -> &[u8] {
    fragment.and_then(|fragment| fragment.end.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tombstone(start: &str, end: &str, seq: SeqNo) -> RangeTombstone {
        RangeTombstone::new(start.as_bytes(), end.as_bytes(), seq)
    }

    #[test]
    fn overlaps_are_cut_at_every_end() {
        let cut = RangeTombstones::new(&[
            tombstone("a", "m", 10),
            tombstone("g", "", 20),
            tombstone("z", "c", 30),
        ]);
        let shown: Vec<_> = cut
            .fragments()
            .iter()
            .map(|f| (f.start.as_slice(), f.end.as_deref(), f.seqs.as_slice()))
            .collect();
        assert_eq!(
            shown,
            [
                (&b"a"[..], Some(&b"g"[..]), &[10][..]),
                (b"g", Some(b"m"), &[20, 10]),
                (b"m", None, &[20]),
            ]
        );
        assert_eq!(RangeTombstones::from_fragments(cut.fragments().to_vec()), Some(cut));
    }

    proptest! {
        #[test]
        fn the_newest_covering_tombstone_is_found(
            raw in prop::collection::vec((0..12_u8, 0..12_u8), 0..12),
            key in 0..12_u8,
            below in 0..14_u64,
        ) {
            // Byte 0 stands for an unbounded end.
            let tombstones: Vec<_> = raw.iter().zip(1..).map(|(&(start, end), seq)| {
                let end: &[u8] = if end == 0 { &[] } else { &[end] };
                RangeTombstone::new(&[start], end, seq)
            }).collect();
            let want = tombstones.iter()
                .filter(|t| t.seq < below && t.start.as_slice() <= &[key][..] && t.upper().admits(&[key]))
                .map(|t| t.seq)
                .max();
            let tombstones = RangeTombstones::new(&tombstones);
            prop_assert_eq!(tombstones.newest_over(&[key], below), want);
            for forward in [true, false] {
                let span = tombstones.span_over(&[key], below, forward);
                let inside = |key: u8| span.start <= &[key][..] && span.end.is_none_or(|end| &[key][..] < end);
                prop_assert!(inside(key), "{span:?}");
                let same: Vec<_> = (0..14).map(|key| tombstones.newest_over(&[key], below) == want).collect();
                for other in (0..14).filter(|other| inside(*other)) {
                    prop_assert!(same[usize::from(other)], "{span:?} holds {other}");
                }
                // To the side of the walk it reaches as far as the answer does.
                let far: Vec<u8> = if forward { (key..14).collect() } else { (0..=key).rev().collect() };
                let reached = far.iter().take_while(|key| inside(**key)).count();
                prop_assert_eq!(reached, far.iter().take_while(|key| same[usize::from(**key)]).count());
            }
        }
    }
}
