//! The shape of a keyspace's tree on disk: which tables, in which level, and nothing about how they got
//! there.
//!
//! A [`Version`] is immutable. Level 0 holds *runs by age*, newest first, one table each, whose key ranges
//! may overlap; every deeper level is one run: tables in key order, disjoint. Data in a smaller level is
//! newer than data of the same key in a larger one.

mod edit;
mod manifest;
mod table_meta;

use memtide_base::key::{head_behind, shared_prefix_len};
use memtide_base::sync::Arc;
use memtide_base::{RangeTombstone, Upper};

pub(crate) use edit::{Change, ClosedWal, Edit, StoredTable};
pub(crate) use manifest::{Manifest, ManifestState, load, read_current};
pub(crate) use table_meta::{Graveyard, TableMeta};

/// Levels of a tree. Level 6 of the defaults holds 6.4 TiB.
pub(crate) const LEVELS: usize = 7;

/// The tables of one keyspace at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    /// `levels[0]` newest first; deeper levels in key order.
    levels: Vec<Arc<[Arc<TableMeta>]>>,
    /// Of the same levels.
    fences: Vec<Fences>,
}

/// The first keys of a level's tables, so that a search seldom looks at the tables themselves. Means something for
/// levels in key order only.
#[derive(Clone, Debug)]
struct Fences {
    /// What all the first keys begin with.
    anchor: Vec<u8>,
    /// The heads of the first keys behind it, ascending.
    heads: Vec<u64>,
}

impl Fences {
    fn of(tables: &[Arc<TableMeta>]) -> Self {
        let anchor = match tables {
            [first, .., last] => {
                let shared = shared_prefix_len(&first.smallest, &last.smallest);
                first.smallest[..shared].to_vec()
            }
            _ => Vec::new(),
        };
        let heads = tables.iter().map(|table| head_behind(&anchor, &table.smallest)).collect();
        Self { anchor, heads }
    }

    /// How many of `tables`, which these are the fences of, begin at `key` or before.
    fn count_up_to(&self, key: &[u8], tables: &[Arc<TableMeta>]) -> usize {
        let head = head_behind(&self.anchor, key);
        let start = self.heads.partition_point(|fence| *fence < head);
        let ties = self.heads[start..].partition_point(|fence| *fence == head);
        let ties = &tables[start..start + ties];
        start + ties.partition_point(|table| table.smallest.as_slice() <= key)
    }
}

impl Version {
    pub(crate) fn empty() -> Self {
        Self::of(vec![Arc::from([]); LEVELS])
    }

    fn of(levels: Vec<Arc<[Arc<TableMeta>]>>) -> Self {
        let fences = levels.iter().map(|tables| Fences::of(tables)).collect();
        Self { levels, fences }
    }

    pub(crate) fn level(&self, level: usize) -> &[Arc<TableMeta>] {
        &self.levels[level]
    }

    /// A level's tables, to keep.
    pub(crate) fn shared_level(&self, level: usize) -> Arc<[Arc<TableMeta>]> {
        Arc::clone(&self.levels[level])
    }

    /// Every table, newest level first.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<TableMeta>> {
        self.levels.iter().flat_map(|level| level.iter())
    }

    pub(crate) fn level_bytes(&self, level: usize) -> u64 {
        self.levels[level].iter().map(|table| table.size).sum()
    }

    /// The one table of a level below 0 whose bounds hold `key`.
    pub(crate) fn table_over(&self, level: usize, key: &[u8]) -> Option<&Arc<TableMeta>> {
        debug_assert!(level > 0, "level 0 is not in key order");
        let tables = &self.levels[level];
        let after = self.fences[level].count_up_to(key, tables);
        tables.get(after.checked_sub(1)?).filter(|table| table.largest.admits(key))
    }

    /// The tables of a level whose bounds overlap `[from, to]`, in the level's order.
    pub(crate) fn overlapping<'v>(
        &'v self,
        level: usize,
        from: &'v [u8],
        to: &'v Upper,
    ) -> impl Iterator<Item = &'v Arc<TableMeta>> {
        self.levels[level].iter().filter(move |table| table.overlaps(from, to))
    }

    /// Whether a table at `from` or deeper, other than those `excluded`, may hold `key`.
    pub(crate) fn may_hold(
        &self,
        from: usize,
        key: &[u8],
        excluded: &dyn Fn(&TableMeta) -> bool,
    ) -> bool {
        let upper = Upper::Included(key.to_vec());
        self.may_overlap(from, key, &upper, excluded)
    }

    /// Whether a table at `from` or deeper, other than those `excluded`, overlaps a range tombstone.
    pub(crate) fn may_hold_under(
        &self,
        from: usize,
        tombstone: &RangeTombstone,
        excluded: &dyn Fn(&TableMeta) -> bool,
    ) -> bool {
        self.may_overlap(from, &tombstone.start, &tombstone.upper(), excluded)
    }

    fn may_overlap(
        &self,
        from: usize,
        start: &[u8],
        end: &Upper,
        excluded: &dyn Fn(&TableMeta) -> bool,
    ) -> bool {
        (from..LEVELS)
            .any(|level| self.overlapping(level, start, end).any(|table| !excluded(table)))
    }

    /// This version without `dropped` and with `added`, or what is wrong with the result.
    pub(crate) fn with(
        &self,
        dropped: &[u64],
        added: &[(usize, Arc<TableMeta>)],
    ) -> Result<Self, String> {
        let mut levels: Vec<Vec<Arc<TableMeta>>> =
            self.levels.iter().map(|level| level.to_vec()).collect();
        for number in dropped {
            let mut found = false;
            for level in &mut levels {
                let before = level.len();
                level.retain(|table| table.number != *number);
                found |= level.len() != before;
            }
            if !found {
                return Err(format!("table {number} is dropped but not there"));
            }
        }
        for (level, table) in added {
            let tables =
                levels.get_mut(*level).ok_or_else(|| format!("there is no level {level}"))?;
            if *level == 0 {
                // Newest first; the youngest run has the largest sequence numbers.
                let at = tables.partition_point(|other| other.seq_max > table.seq_max);
                tables.insert(at, Arc::clone(table));
            } else {
                let at = tables.partition_point(|other| other.smallest < table.smallest);
                tables.insert(at, Arc::clone(table));
            }
        }
        let version = Self::of(levels.into_iter().map(Arc::from).collect());
        version.check()?;
        Ok(version)
    }

    /// What is wrong with the shape: numbers twice, bounds inverted, a level below 0 that overlaps itself.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut numbers: Vec<_> = self.tables().map(|table| table.number).collect();
        numbers.sort_unstable();
        if let Some(twice) = numbers.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("table {} is there twice", twice[0]));
        }
        for table in self.tables() {
            let inverted = match &table.largest {
                Upper::Included(last) => *last < table.smallest,
                Upper::Excluded(end) => *end <= table.smallest,
                Upper::Unbounded => false,
            };
            if inverted {
                return Err(format!("table {} ends before it begins", table.number));
            }
        }
        for level in 1..LEVELS {
            for pair in self.levels[level].windows(2) {
                if pair[0].largest.admits(&pair[1].smallest) || pair[0].smallest >= pair[1].smallest
                {
                    let (a, b) = (pair[0].number, pair[1].number);
                    return Err(format!("tables {a} and {b} of level {level} overlap"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn table(number: u64, smallest: &str, largest: &str) -> Arc<TableMeta> {
        let largest = Upper::Included(largest.as_bytes().to_vec());
        Arc::new(TableMeta::for_tests(number, smallest.as_bytes(), largest))
    }

    #[test]
    fn a_key_is_looked_for_in_the_one_table_that_spans_it() {
        let bounds = ["", "a", "anchor", "anchor12345678", "anchor123456789", "anchor2", "b", "zz"];
        for (from, to) in [(0, 0), (0, 1), (2, 6), (1, 7), (0, 8)] {
            let tables = bounds[from..to].iter().zip(1..);
            // Each ends at the first key above all that begin with its own first, but for the next table.
            let tables: Vec<_> = tables
                .map(|(first, number)| (1, table(number, first, &format!("{first}\0~"))))
                .collect();
            let version = Version::empty().with(&[], &tables).expect("they do not overlap");
            let level = version.level(1);
            for bound in bounds {
                for key in ["", "\0", "\0~", "\0~~", "1", "~"].map(|end| format!("{bound}{end}")) {
                    let want = level.iter().find(|table| table.spans(key.as_bytes()));
                    let found = version.table_over(1, key.as_bytes());
                    assert_eq!(
                        found.map(|table| table.number),
                        want.map(|table| table.number),
                        "{key:?} among {:?}",
                        &bounds[from..to]
                    );
                }
            }
        }
    }

    #[test]
    fn edits_keep_levels_in_order_and_refuse_overlap() {
        let version = Version::empty()
            .with(&[], &[(0, table(1, "a", "z")), (0, table(2, "c", "d")), (1, table(3, "m", "p"))])
            .and_then(|version| version.with(&[], &[(1, table(4, "a", "c"))]))
            .expect("nothing overlaps");
        let numbers = |level| version.level(level).iter().map(|t| t.number).collect::<Vec<_>>();
        assert_eq!((numbers(0), numbers(1)), (vec![2, 1], vec![4, 3]));
        assert_eq!(version.table_over(1, b"n").map(|t| t.number), Some(3));
        assert!(version.table_over(1, b"d").is_none());
        assert!(version.with(&[], &[(1, table(5, "b", "b"))]).is_err());
        assert!(version.with(&[9], &[]).is_err());
        assert_eq!(version.with(&[1, 3], &[]).expect("both are there").tables().count(), 2);
    }
}
