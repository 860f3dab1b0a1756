//! The shape of a keyspace's tree on disk: which tables, in which runs of which levels, and nothing about how they
//! got there.
//!
//! A [`Version`] is immutable. Level 0 holds *runs by age*, newest first, one table each, whose key ranges may
//! overlap. A deeper level holds runs of many tables, one or more as the strategy of the keyspace likes it. Data in a
//! smaller level is newer than data of the same key in a larger one, and in a newer run of a level newer than in an
//! older one: so all runs together are a list from new to old.

mod blob_meta;
mod edit;
mod manifest;
mod run;
mod table_meta;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::path::PathBuf;

use memtide_base::sync::Arc;
use memtide_base::{Error, RangeTombstone, Upper};
use memtide_storage::blob::BlobHandle;

use crate::files::{self, BLOB_DIR};
pub(crate) use blob_meta::BlobMeta;
pub(crate) use edit::{Change, ClosedWal, Edit, StoredBlob, StoredTable};
pub(crate) use manifest::{
    Manifest, ManifestState, load, load_partly, read_current, write_snapshot,
};
pub(crate) use run::{Run, RunId};
pub(crate) use table_meta::{Graveyard, TableMeta};

/// Of a key in an error, so many bytes are shown.
const SHOWN_KEY_BYTES: usize = 40;

/// Levels of a tree. With a level 1 of 64 MiB the last one would hold 6.4 TiB; it takes what there is.
pub(crate) const LEVELS: usize = 7;

/// Whether what lies in a level of a tree that ends at level `last` is soon rewritten, and little beside the rest:
/// compressing it costs more than it saves.
pub(crate) fn is_passing(level: usize, last: usize) -> bool {
    level == 0 || (level == 1 && last >= 3)
}

/// The tables of one keyspace at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    /// Newest first, each a run of its own.
    level0: Arc<[Arc<TableMeta>]>,
    /// Those of the deeper levels, none empty: level by level, newest first in each.
    runs: Vec<Run>,
    has_range_tombstones: bool,
    /// Those that a table refers to, by rising number.
    blobs: Arc<[Arc<BlobMeta>]>,
}

impl Version {
    pub(crate) fn empty() -> Self {
        let (level0, blobs) = (Arc::from([]), Arc::from([]));
        Self { level0, runs: Vec::new(), has_range_tombstones: false, blobs }
    }

    /// The tables of level 0, newest first.
    pub(crate) fn level0(&self) -> &[Arc<TableMeta>] {
        &self.level0
    }

    /// The runs of all deeper levels, those with newer data first.
    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The runs of a level below 0, newest first.
    pub(crate) fn runs_of(&self, level: usize) -> &[Run] {
        let start = self.runs.partition_point(|run| run.id.level < level);
        let end = self.runs.partition_point(|run| run.id.level <= level);
        &self.runs[start..end]
    }

    /// How many runs a level has.
    pub(crate) fn run_count(&self, level: usize) -> usize {
        if level == 0 { self.level0.len() } else { self.runs_of(level).len() }
    }

    /// The tables of a level: run by run, newest first.
    pub(crate) fn tables_of(&self, level: usize) -> impl Iterator<Item = &Arc<TableMeta>> {
        let level0 = if level == 0 { self.level0() } else { &[] };
        level0.iter().chain(self.runs_of(level).iter().flat_map(Run::tables))
    }

    /// Every table, those with newer data first.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<TableMeta>> {
        self.level0.iter().chain(self.runs.iter().flat_map(Run::tables))
    }

    /// Whether any table has range tombstones.
    pub(crate) fn has_range_tombstones(&self) -> bool {
        self.has_range_tombstones
    }

    /// The blob files that a table refers to, by rising number.
    pub(crate) fn blobs(&self) -> &[Arc<BlobMeta>] {
        &self.blobs
    }

    /// One of them.
    pub(crate) fn blob(&self, number: u64) -> Option<&Arc<BlobMeta>> {
        let place = self.blobs.binary_search_by_key(&number, |blob| blob.number);
        place.ok().map(|place| &self.blobs[place])
    }

    /// The blob file into which `handle`, the one a table has for `key`, leads.
    ///
    /// # Errors
    /// It leads nowhere: the table was damaged before it was written.
    pub(crate) fn blob_of(
        &self,
        key: &[u8],
        handle: &[u8],
    ) -> Result<(&Arc<BlobMeta>, BlobHandle), Error> {
        let shown = key[..key.len().min(SHOWN_KEY_BYTES)].escape_ascii();
        let damaged = |file: PathBuf, at: u64, what: &str| {
            let detail = format!("{what}, says the table that has the key \"{shown}\"");
            Err(Error::corruption("blob handle", file, at, detail))
        };
        let Some(found) = BlobHandle::decode(handle) else {
            return damaged(BLOB_DIR.into(), 0, "the value lies at a place that is none");
        };
        let (number, at) = (found.number, found.offset);
        match self.blob(number) {
            Some(meta) if at + u64::from(found.len) <= meta.summary.size => Ok((meta, found)),
            Some(_) => damaged(files::blob_name(number), at, "the value lies behind the end"),
            None => damaged(files::blob_name(number), at, "the value lies in this missing file"),
        }
    }

    /// How many bytes of each blob file tables refer to, in their order. What a large merge has done of a table that
    /// stays until its end counts twice meanwhile.
    pub(crate) fn blob_bytes_used(&self) -> Vec<u64> {
        let mut used = vec![0_u64; self.blobs.len()];
        for of in self.tables().flat_map(|table| table.blobs.iter()) {
            if let Ok(place) = self.blobs.binary_search_by_key(&of.number, |blob| blob.number) {
                used[place] = used[place].saturating_add(of.bytes);
            }
        }
        used
    }

    pub(crate) fn level_bytes(&self, level: usize) -> u64 {
        self.tables_of(level).map(|table| table.size).sum()
    }

    /// What the tables of a level weigh.
    pub(crate) fn level_weight(&self, level: usize) -> u64 {
        self.tables_of(level).map(|table| table.weight()).sum()
    }

    /// The last level that holds data; 0 if none does.
    pub(crate) fn deepest(&self) -> usize {
        self.runs.last().map_or(0, |run| run.id.level)
    }

    /// The tables of a level below 0 whose bounds overlap `[from, to]`, run by run.
    pub(crate) fn overlapping<'v>(
        &'v self,
        level: usize,
        from: &'v [u8],
        to: &'v Upper,
    ) -> impl Iterator<Item = &'v Arc<TableMeta>> {
        self.runs_of(level).iter().flat_map(move |run| run.overlapping(from, to))
    }

    /// How many runs are newer than the newest that holds one of `numbers`.
    pub(crate) fn runs_above(&self, numbers: &BTreeSet<u64>) -> usize {
        let holds = |tables: &[Arc<TableMeta>]| tables.iter().any(|t| numbers.contains(&t.number));
        let level0 = self.level0.chunks(1);
        let mut runs = level0.chain(self.runs.iter().map(Run::tables));
        runs.position(holds).unwrap_or(0)
    }

    /// Whether a run other than the newest `newer` may hold `key` in a table that is not one of `excluded`.
    pub(crate) fn may_hold(&self, newer: usize, key: &[u8], excluded: &BTreeSet<u64>) -> bool {
        let (level0, runs) = self.without_newest(newer);
        let over = runs.iter().filter_map(|run| run.table_over(key));
        let level0 = level0.iter().filter(|table| table.spans(key));
        level0.chain(over).any(|table| !excluded.contains(&table.number))
    }

    /// Whether a run other than the newest `newer` has a table under a range tombstone that is not one of
    /// `excluded`.
    pub(crate) fn may_hold_under(
        &self,
        newer: usize,
        tombstone: &RangeTombstone,
        excluded: &BTreeSet<u64>,
    ) -> bool {
        let (level0, runs) = self.without_newest(newer);
        let (start, end) = (&tombstone.start, tombstone.upper());
        let under = runs.iter().flat_map(|run| run.overlapping(start, &end));
        let level0 = level0.iter().filter(|table| table.overlaps(start, &end));
        level0.chain(under).any(|table| !excluded.contains(&table.number))
    }

    fn without_newest(&self, newer: usize) -> (&[Arc<TableMeta>], &[Run]) {
        let of_level0 = newer.min(self.level0.len());
        (&self.level0[of_level0..], &self.runs[newer - of_level0..])
    }

    /// As `with_blobs`, of which there are no new ones.
    #[cfg(test)]
    pub(crate) fn with(
        &self,
        dropped: &[u64],
        added: &[(RunId, Arc<TableMeta>)],
    ) -> Result<Self, String> {
        self.with_blobs(dropped, added, &[])
    }

    /// This version without `dropped` and with `added`, which may refer to new `blobs`, or what is wrong with the
    /// result: a number twice or missing, bounds inverted, a run that overlaps itself. Files to which no table refers
    /// are no part of it. Looks at each table once; runs that do not change are shared, others sorted again.
    pub(crate) fn with_blobs(
        &self,
        dropped: &[u64],
        added: &[(RunId, Arc<TableMeta>)],
        blobs: &[Arc<BlobMeta>],
    ) -> Result<Self, String> {
        let gone = Numbers::of(dropped.iter().copied())?;
        let come = Numbers::of(added.iter().map(|(_, table)| table.number))?;
        let (mut found, mut twice) = (0, None);
        for table in self.tables() {
            let is_dropped = gone.has(table.number);
            found += usize::from(is_dropped);
            if !is_dropped && come.has(table.number) {
                twice = Some(table.number);
            }
        }
        if found < dropped.len() {
            let is_there = |number: &&u64| self.tables().any(|table| table.number == **number);
            let missing = dropped.iter().find(|number| !is_there(number));
            let number = missing.copied().unwrap_or_default();
            return Err(format!("table {number} is dropped but not there"));
        }
        if let Some(number) = twice {
            return Err(format!("table {number} is there twice"));
        }
        added.iter().try_for_each(|(id, table)| check_added(*id, table))?;

        let stays = |table: &&Arc<TableMeta>| !gone.has(table.number);
        let new = added.iter().rev().filter(|(id, _)| id.level == 0).map(|(_, table)| table);
        let mut level0: Vec<_> = new.chain(self.level0.iter().filter(stays)).cloned().collect();
        // Newest first: the youngest run has the largest sequence numbers, of equal ones the one added last.
        level0.sort_by_key(|table| Reverse(table.seq_max));
        let runs = self.changed_runs(stays, added)?;
        let blobs: Arc<[_]> = self.blobs.iter().chain(blobs).cloned().collect();
        let mut version = Self { level0: level0.into(), runs, has_range_tombstones: false, blobs };
        let has_range_tombstones = version.tables().any(|table| table.range_deletes > 0);
        version.has_range_tombstones = has_range_tombstones;
        version.keep_blobs_in_use()?;
        Ok(version)
    }

    /// Lets go of the blob files that no table refers to; what is wrong if one is there twice, or not at all.
    fn keep_blobs_in_use(&mut self) -> Result<(), String> {
        let mut blobs = self.blobs.to_vec();
        blobs.sort_by_key(|blob| blob.number);
        if let Some(twice) = blobs.windows(2).find(|pair| pair[0].number == pair[1].number) {
            return Err(format!("blob file {} is there twice", twice[0].number));
        }
        self.blobs = blobs.into();
        let refs = || self.tables().flat_map(|table| table.blobs.iter().map(move |of| (table, of)));
        if let Some((table, of)) = refs().find(|(_, of)| self.blob(of.number).is_none()) {
            let (table, blob) = (table.number, of.number);
            return Err(format!("table {table} refers to blob file {blob}, which is not there"));
        }
        // A table refers to no file without referring to a part of it.
        let used = self.blob_bytes_used();
        if used.contains(&0) {
            let files = self.blobs.iter().zip(&used);
            self.blobs = files.filter(|(_, used)| **used > 0).map(|(b, _)| b.clone()).collect();
        }
        Ok(())
    }

    fn changed_runs(
        &self,
        stays: impl Fn(&&Arc<TableMeta>) -> bool,
        added: &[(RunId, Arc<TableMeta>)],
    ) -> Result<Vec<Run>, String> {
        let mut ids: Vec<_> = self.runs.iter().map(|run| run.id).collect();
        ids.extend(added.iter().map(|(id, _)| *id).filter(|id| id.level > 0));
        ids.sort_unstable_by_key(|id| (id.level, Reverse(id.rank)));
        ids.dedup();
        let mut runs = Vec::with_capacity(ids.len());
        for id in ids {
            let old = self.runs.iter().find(|run| run.id == id);
            let kept = old.map(Run::tables).unwrap_or_default();
            let new = || added.iter().filter(|(into, _)| *into == id).map(|(_, table)| table);
            match old {
                Some(old) if new().next().is_none() && kept.iter().all(|table| stays(&table)) => {
                    runs.push(old.clone());
                }
                _ => {
                    let tables: Vec<_> = kept.iter().filter(&stays).chain(new()).cloned().collect();
                    if !tables.is_empty() {
                        runs.push(Run::new(id, tables)?);
                    }
                }
            }
        }
        Ok(runs)
    }
}

/// What is wrong with a table to be added, whatever else there is.
fn check_added(id: RunId, table: &TableMeta) -> Result<(), String> {
    if id.level >= LEVELS || (id.level == 0 && id.rank > 0) {
        return Err(format!("there is no run {} in level {}", id.rank, id.level));
    }
    let inverted = match &table.largest {
        Upper::Included(last) => *last < table.smallest,
        Upper::Excluded(end) => *end <= table.smallest,
        Upper::Unbounded => false,
    };
    if inverted {
        return Err(format!("table {} ends before it begins", table.number));
    }
    Ok(())
}

/// Some numbers of tables, to be asked for all others of a tree.
struct Numbers(Vec<u64>);

impl Numbers {
    /// # Errors
    /// One is there twice.
    fn of(numbers: impl Iterator<Item = u64>) -> Result<Self, String> {
        let mut numbers: Vec<_> = numbers.collect();
        numbers.sort_unstable();
        match numbers.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(twice) => Err(format!("table {} is there twice", twice[0])),
            None => Ok(Self(numbers)),
        }
    }

    fn has(&self, number: u64) -> bool {
        let (Some(first), Some(last)) = (self.0.first(), self.0.last()) else { return false };
        (*first..=*last).contains(&number) && self.0.binary_search(&number).is_ok()
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
                .map(|(first, number)| {
                    (RunId::first(1), table(number, first, &format!("{first}\0~")))
                })
                .collect();
            let version = Version::empty().with(&[], &tables).expect("they do not overlap");
            for bound in bounds {
                for key in ["", "\0", "\0~", "\0~~", "1", "~"].map(|end| format!("{bound}{end}")) {
                    let want = version.tables_of(1).find(|table| table.spans(key.as_bytes()));
                    let found =
                        version.runs().first().and_then(|run| run.table_over(key.as_bytes()));
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

    fn at(level: usize, rank: u64) -> RunId {
        RunId { level, rank }
    }

    fn numbers<'t>(tables: impl IntoIterator<Item = &'t Arc<TableMeta>>) -> Vec<u64> {
        tables.into_iter().map(|table| table.number).collect()
    }

    #[test]
    fn edits_keep_runs_in_order_and_refuse_overlap_in_one() {
        let version = Version::empty()
            .with(&[], &[(at(0, 0), table(1, "a", "z")), (at(0, 0), table(2, "c", "d"))])
            .and_then(|version| version.with(&[], &[(at(1, 0), table(3, "m", "p"))]))
            .and_then(|version| version.with(&[], &[(at(1, 0), table(4, "a", "c"))]))
            .expect("nothing overlaps");
        assert_eq!(numbers(version.level0()), [2, 1]);
        assert_eq!(numbers(version.tables_of(1)), [4, 3]);
        let run = &version.runs()[0];
        assert_eq!(run.table_over(b"n").map(|t| t.number), Some(3));
        assert!(run.table_over(b"d").is_none());
        assert!(version.with(&[], &[(at(1, 0), table(5, "b", "b"))]).is_err());
        assert!(version.with(&[9], &[]).is_err());
        assert!(version.with(&[1, 1], &[]).is_err());
        assert!(
            version.with(&[], &[(at(0, 1), table(5, "b", "b"))]).is_err(),
            "no runs in level 0"
        );
        assert!(version.with(&[], &[(at(7, 0), table(5, "b", "b"))]).is_err(), "no level 7");
        assert!(version.with(&[], &[(at(2, 0), table(3, "b", "b"))]).is_err(), "one number twice");
        assert_eq!(version.with(&[1, 3], &[]).expect("both are there").tables().count(), 2);
    }

    #[test]
    fn runs_of_a_level_may_overlap_and_the_larger_rank_is_newer() {
        let version = Version::empty()
            .with(&[], &[(at(2, 0), table(1, "a", "z")), (at(1, 7), table(2, "a", "m"))])
            .and_then(|version| version.with(&[], &[(at(1, 9), table(3, "k", "p"))]))
            .and_then(|version| version.with(&[], &[(at(1, 9), table(4, "q", "r"))]))
            .and_then(|version| version.with(&[], &[(at(0, 0), table(5, "x", "y"))]))
            .expect("each run is disjoint");
        assert_eq!(numbers(version.tables()), [5, 3, 4, 2, 1]);
        assert_eq!([0, 1, 2, 3].map(|level| version.run_count(level)), [1, 2, 1, 0]);
        assert_eq!((version.deepest(), version.level_bytes(1)), (2, 3000));
        let to = Upper::Included(b"l".to_vec());
        assert_eq!(numbers(version.overlapping(1, b"l", &to)), [3, 2]);
        let without = version.with(&[3, 4], &[]).expect("both are there");
        assert_eq!(numbers(without.tables()), [5, 2, 1], "a run without tables is none");
    }

    #[test]
    fn what_passes_is_level_0_and_a_level_1_with_two_levels_below() {
        let passing = |last: usize| (0..=last).filter(|&l| is_passing(l, last)).collect::<Vec<_>>();
        assert_eq!(
            [0, 1, 2, 3, 6].map(passing),
            [vec![0], vec![0], vec![0], vec![0, 1], vec![0, 1]]
        );
    }

    /// What may lie under a merge: everything older than its newest input, except its inputs.
    #[test]
    fn only_data_older_than_a_merge_counts_as_under_it() {
        let version = Version::empty()
            .with(&[], &[(at(0, 0), table(4, "a", "z")), (at(1, 1), table(3, "a", "f"))])
            .and_then(|version| version.with(&[], &[(at(1, 0), table(2, "e", "k"))]))
            .and_then(|version| version.with(&[], &[(at(2, 0), table(1, "j", "m"))]))
            .expect("each run is disjoint");
        for (inputs, key, want) in [
            (&[4][..], "a", true),
            (&[4], "n", false),
            (&[3], "a", false),
            (&[3], "f", true),
            (&[2, 3], "f", false),
            (&[2, 3], "k", true),
            (&[2], "e", false),
            (&[1, 2, 3, 4], "k", false),
            (&[1], "z", false),
            (&[], "z", true),
        ] {
            let inputs: BTreeSet<u64> = inputs.iter().copied().collect();
            let newer = version.runs_above(&inputs);
            assert_eq!(version.may_hold(newer, key.as_bytes(), &inputs), want, "{inputs:?} {key}");
            let end = format!("{key}\0");
            let tombstone = RangeTombstone::new(key.as_bytes(), end.as_bytes(), 9);
            assert_eq!(
                version.may_hold_under(newer, &tombstone, &inputs),
                want,
                "{inputs:?} {key}"
            );
        }
    }
}
