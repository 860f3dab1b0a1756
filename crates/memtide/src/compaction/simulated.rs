//! Trees that exist as data only: plans are applied to sets of keys, so that a strategy can be tried on any tree.

use std::collections::{BTreeMap, BTreeSet};

use memtide_base::sync::Arc;
use memtide_base::{SeqNo, Upper};
use memtide_env::random::SplitMix64;
use memtide_storage::blob::BlobRefs;
use memtide_storage::table::TableSummary;

use super::limits::Limits;
use super::plan::{Input, Plan};
use super::{lazy_leveled, leveled, tiered};
use crate::version::{LEVELS, RunId, TableMeta, Version};

/// Rows of a table, and bytes of a row.
const TABLE_ROWS: usize = 20;
const ROW_BYTES: u64 = 100;

/// A key has the number of its last write; one of these is a delete.
type Rows = BTreeMap<u64, SeqNo>;

fn is_delete(seq: SeqNo) -> bool {
    seq.is_multiple_of(5)
}

fn key(number: u64) -> Vec<u8> {
    format!("{number:06}").into_bytes()
}

fn number_of(key: &[u8]) -> u64 {
    str::from_utf8(key).expect("digits").parse().expect("digits")
}

/// A version and what is in its tables.
pub(super) struct Tree {
    pub(super) version: Version,
    rows: BTreeMap<u64, Rows>,
    next_table: u64,
    next_seq: SeqNo,
    /// Keys are below.
    keys: u64,
    /// Bytes of all tables that were ever made.
    written: u64,
    /// Slices of merges that were not the last.
    slices: u64,
    /// Slices that were written at the same time, and how many of them had others before them.
    waves: usize,
    beside: usize,
    /// Whether every slice is looked at, and some are the last that is done of their merge.
    wary: bool,
}

impl Tree {
    fn new(keys: u64) -> Self {
        let version = Version::empty();
        let (next_table, next_seq, written, slices) = (1, 1, 0, 0);
        let rows = BTreeMap::new();
        let (waves, beside, wary) = (0, 0, false);
        Self { version, rows, next_table, next_seq, keys, written, slices, waves, beside, wary }
    }

    /// Any tree that strategies could have left: runs of all sizes in any level.
    fn random(seed: u64) -> Self {
        let (mut tree, mut random) = (Self::new(600), SplitMix64::new(seed));
        tree.wary = true;
        let deepest = random.below(LEVELS as u64);
        for level in (0..=usize::try_from(deepest).expect("seven levels")).rev() {
            for rank in 0..random.below(6) {
                let rank = if level == 0 { 0 } else { 3 * rank + random.below(3) };
                let (most, span) = (1 + random.below(tree.keys), 1 + random.below(tree.keys));
                let count = if level == 0 { most.min(TABLE_ROWS as u64) } else { most / 2 };
                let rows = tree.fresh(&mut random, count, span);
                tree.add(RunId { level, rank }, rows);
            }
        }
        tree
    }

    fn fresh(&mut self, random: &mut SplitMix64, count: u64, span: u64) -> Rows {
        let from = random.below(self.keys - span + 1);
        let keys: BTreeSet<u64> = (0..count).map(|_| from + random.below(span)).collect();
        let rows = keys.into_iter().zip(self.next_seq..).collect::<Rows>();
        self.next_seq += rows.len() as u64;
        rows
    }

    fn add(&mut self, run: RunId, rows: Rows) {
        let rows: Vec<_> = rows.into_iter().collect();
        let table_rows = if run.level == 0 { rows.len().max(1) } else { TABLE_ROWS };
        let tables: Vec<_> = rows
            .chunks(table_rows)
            .map(|rows| (run, self.table(rows.iter().copied().collect())))
            .collect();
        self.version = self.version.with(&[], &tables).expect("disjoint tables");
    }

    fn table(&mut self, rows: Rows) -> Arc<TableMeta> {
        let ends = [rows.first_key_value(), rows.last_key_value()].map(|end| end.expect("rows"));
        let summary = TableSummary {
            size: rows.len() as u64 * ROW_BYTES,
            checksum: 0,
            rows: rows.len() as u64,
            keys: rows.len() as u64,
            deletes: rows.values().filter(|seq| is_delete(**seq)).count() as u64,
            range_deletes: 0,
            smallest: key(*ends[0].0),
            largest: Upper::Included(key(*ends[1].0)),
            seq_min: *rows.values().min().expect("rows"),
            seq_max: *rows.values().max().expect("rows"),
            raw_bytes: rows.len() as u64 * ROW_BYTES,
            blobs: BlobRefs::default(),
            salt: 0,
        };
        self.written += summary.size;
        let number = self.next_table;
        self.next_table += 1;
        self.rows.insert(number, rows);
        Arc::new(TableMeta::new(number, 0, summary, &Arc::default()))
    }

    /// Does what a plan says, as the executor would with no snapshot alive.
    fn apply(&mut self, plan: &Plan, limits: &Limits) {
        plan.check(&self.version).expect("a sound plan");
        let numbers: Vec<u64> = plan.tables().map(|table| table.number).collect();
        if let Some(run) = plan.is_move() {
            let moved: Vec<_> = plan.tables().map(|t| (run, Arc::clone(t))).collect();
            self.version = self.version.with(&numbers, &moved).expect("a sound move");
            return;
        }
        let output = plan.output.expect("no strategy here drops anything");
        let kept = plan.kept(limits, self.version.deepest().max(output.level));
        let is_kept = |table: &&Arc<TableMeta>| kept.iter().any(|k| k.number == table.number);
        let (mut plan, mut from) = (plan.clone(), Vec::new());
        loop {
            let threads = if self.wary { 1 + self.waves % 3 } else { 1 };
            let ends = plan.slice_ends(&from, &kept, limits.table_size, threads);
            self.waves += 1;
            let whole = ends == [None] && from.is_empty();
            let contents = (self.wary && !whole).then(|| self.contents());
            // All of them are written before the first is installed.
            let mut written = Vec::new();
            for end in ends {
                written.push((self.merged(&plan, &kept, &from, end.as_deref()), end.clone()));
                from = end.unwrap_or_default();
            }
            self.beside += written.len() - 1;
            for (mut merged, end) in written {
                let taken = plan.take_merged(end.as_deref());
                let numbers: Vec<u64> = taken.iter().map(|table| table.number).collect();
                let stay: Vec<_> =
                    taken.iter().filter(is_kept).map(|t| (output, Arc::clone(t))).collect();
                let inputs = vec![Input { run: output, tables: taken }];
                let part = Plan { inputs, output: Some(output), may_move: false };
                part.check_order(&self.version).expect("what is replaced passes nothing");
                for table in part.tables().filter(|table| !is_kept(table)) {
                    self.rows.remove(&table.number);
                }
                self.version = self.version.with(&numbers, &stay).expect("all are there");
                for table in kept.iter().rev() {
                    let behind = merged.split_off(&number_of(&table.smallest));
                    self.add(output, behind);
                }
                self.add(output, merged);
                assert!(contents.as_ref().is_none_or(|c| *c == self.contents()), "{plan:?}");
                if end.is_none() {
                    return;
                }
                self.slices += 1;
                // A pause or a crash may end it here; not for ever, or nothing would come to an end.
                if self.wary && self.slices < 30 && self.slices.is_multiple_of(3) {
                    return;
                }
            }
        }
    }

    /// What a slice of a merge writes.
    fn merged(
        &self,
        plan: &Plan,
        kept: &[Arc<TableMeta>],
        from: &[u8],
        end: Option<&[u8]>,
    ) -> Rows {
        let inputs: BTreeSet<u64> = plan.tables().map(|table| table.number).collect();
        let newer = self.version.runs_above(&inputs);
        let mut merged = Rows::new();
        let gone = inputs.iter().filter(|number| kept.iter().all(|table| table.number != **number));
        for (&at, &seq) in gone.flat_map(|number| &self.rows[number]) {
            let at_key = key(at);
            if at_key.as_slice() >= from && end.is_none_or(|end| at_key.as_slice() < end) {
                let newest = merged.entry(at).or_default();
                *newest = seq.max(*newest);
            }
        }
        merged.retain(|&number, &mut seq| {
            !is_delete(seq) || self.version.may_hold(newer, &key(number), &inputs)
        });
        merged
    }

    /// Applies plans until there is none; every step is followed by a `check`.
    fn settle(&mut self, plan: Planner<'_>, limits: &Limits, check: impl Fn(&Self)) {
        for _ in 0..10_000 {
            let Some(plan) = plan(&self.version, limits) else { return };
            self.apply(&plan, limits);
            check(self);
        }
        panic!("it does not end");
    }

    /// What a reader finds, run by run: the newest write of each key, unless it is a delete.
    fn contents(&self) -> Rows {
        let mut found = Rows::new();
        for table in self.version.tables() {
            for (&key, &seq) in &self.rows[&table.number] {
                let first = *found.entry(key).or_insert(seq);
                assert!(first >= seq, "key {key}: write {seq} lies under {first}");
            }
        }
        found.retain(|_, seq| !is_delete(*seq));
        found
    }
}

/// A strategy.
pub(super) type Planner<'p> = &'p dyn Fn(&Version, &Limits) -> Option<Plan>;

/// Tries a strategy on random trees: it must come to an end, lose and revive nothing, and leave what `settled` likes.
pub(super) fn converges(plan: Planner<'_>, settled: impl Fn(&Version) -> Result<(), String>) {
    let limits = Limits {
        level0_runs: 4,
        level1_size: 2000,
        settled: SeqNo::MAX,
        table_size: 2000,
        ..Limits::SMALL
    };
    let (mut slices, mut beside) = (0, 0);
    for seed in 0..200 {
        let mut tree = Tree::random(seed);
        let contents = tree.contents();
        tree.settle(plan, &limits, |tree| assert!(tree.contents() == contents, "tree {seed}"));
        assert_eq!(settled(&tree.version), Ok(()), "tree {seed}");
        slices += tree.slices;
        beside += tree.beside;
    }
    assert!(slices > 100 && beside > 100, "{slices} slices, {beside} of them beside others");
}

/// What a strategy costs under random writes.
#[derive(Debug)]
struct Cost {
    /// Bytes written to tables for each that was flushed.
    write: f64,
    /// Bytes of tables for each that can be read, the most there were while nothing was left to do.
    space: f64,
    /// Runs, then.
    runs: usize,
}

/// Flushes of [`FLUSH_ROWS`] rows, four of which are worth a level, into a tree as large as so many of them; each key
/// is written five times on the average, and four of five times it is a put.
fn cost(plan: Planner<'_>, flushes: u64) -> Cost {
    let keys = flushes * FLUSH_ROWS;
    let level1_size = 4 * FLUSH_ROWS * ROW_BYTES;
    let limits = Limits {
        level0_runs: 4,
        level1_size,
        settled: SeqNo::MAX,
        table_size: 2000,
        ..Limits::SMALL
    };
    let (mut tree, mut random) = (Tree::new(keys), SplitMix64::new(1));
    let (mut flushed, mut space, mut runs) = (0, 0.0_f64, 0);
    for flush in 0..5 * flushes {
        let rows = tree.fresh(&mut random, FLUSH_ROWS, keys);
        flushed += rows.len() as u64 * ROW_BYTES;
        tree.add(RunId::first(0), rows);
        tree.settle(plan, &limits, |_| ());
        // Not in step with anything.
        if flush >= 5 * flushes / 2 && flush % 37 == 0 {
            let bytes: u64 = tree.version.tables().map(|table| table.size).sum();
            space = space.max(bytes as f64 / (tree.contents().len() as u64 * ROW_BYTES) as f64);
            runs = runs.max((0..LEVELS).map(|level| tree.version.run_count(level)).sum());
        }
    }
    Cost { write: tree.written as f64 / flushed as f64, space, runs }
}

const FLUSH_ROWS: u64 = 100;

#[test]
fn strategies_trade_writes_for_space_and_reads() {
    let (leveled, lazy) = (cost(&leveled::plan, 300), cost(&lazy_leveled::plan, 300));
    let tiered = cost(&tiered::plan, 300);
    println!("leveled: {leveled:?}\nlazy_leveled: {lazy:?}\ntiered: {tiered:?}");
    assert!(leveled.space < 1.15 && leveled.runs <= 6);
    assert!(lazy.write < 0.8 * leveled.write && lazy.space < 1.25 && lazy.runs <= 12);
    assert!(tiered.write < 0.7 * lazy.write && tiered.space < 2.1 && tiered.runs <= 16);
}

/// Counts that no table can have make no strategy stumble: a manifest says what it likes.
#[test]
fn impossible_counts_in_a_manifest_overflow_nothing() {
    let table = |number: u64| {
        let upper = Upper::Included(key(number));
        let mut summary = TableMeta::for_tests(number, &key(number), upper).summary();
        summary.rows = u64::MAX - number % 2;
        (summary.keys, summary.deletes) = (u64::MAX, u64::MAX);
        (summary.range_deletes, summary.raw_bytes) = (u64::MAX, u64::MAX);
        Arc::new(TableMeta::new(number, 0, summary, &Arc::default()))
    };
    let tables: Vec<_> = (0..60)
        .map(|number| {
            let level = usize::try_from(number % 5).expect("small");
            let rank = if level == 0 { 0 } else { number % 2 };
            (RunId { level, rank }, table(number))
        })
        .collect();
    let version = Version::empty().with(&[], &tables).expect("disjoint");
    let limits =
        Limits { level1_size: 1 << 40, settled: SeqNo::MAX, table_size: 1 << 30, ..Limits::SMALL };
    for plan in [leveled::plan, lazy_leveled::plan, tiered::plan] {
        let plan = plan(&version, &limits).expect("much to do");
        plan.check(&version).expect("sound");
        plan.kept(&limits, 6);
    }
    let all = Plan::everything(&version, |weight| leveled::level_for(weight, &limits));
    assert!(all.is_some_and(|plan| plan.check(&version).is_ok()));
}
