//! A strategy's decision as plain data, and what makes it sound.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Range;

use memtide_base::Upper;
use memtide_base::sync::Arc;

use super::limits::Limits;
use crate::version::{LEVELS, RunId, TableMeta, Version};

/// Runs of level 0 that are merged at once: each table is open meanwhile. `fifo` leaves any number of them.
pub(super) const LEVEL0_MAX: usize = 64;

/// Tables' worth of input that one slice of a merge takes, more or less: what is written before anything that it
/// replaces can go.
pub(super) const SLICE_TABLES: u64 = 16;

/// Tables' worth of input of a slice that is written beside others, at least: each ends with a table that is not full,
/// and is installed with a sync.
const SIDE_TABLES: u64 = 4;

/// The oldest tables of level 0, as many as a merge takes, newest first.
pub(super) fn oldest_of_level0(version: &Version) -> &[Arc<TableMeta>] {
    let newer = version.level0().len().saturating_sub(LEVEL0_MAX);
    &version.level0()[newer..]
}

/// Tables of one run, or of level 0, that a plan takes.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) run: RunId,
    /// In level 0 newest first, else in key order.
    pub(crate) tables: Vec<Arc<TableMeta>>,
}

impl Input {
    /// The oldest tables of level 0, as many as a merge takes, and all of the levels down to `below`.
    pub(super) fn from_level0(version: &Version, below: usize) -> Vec<Self> {
        let mut inputs = Self::whole_levels(version, 1..below);
        let tables = oldest_of_level0(version).to_vec();
        if !tables.is_empty() {
            inputs.insert(0, Self { run: RunId::first(0), tables });
        }
        inputs
    }

    /// All tables of some levels, newest runs first.
    pub(crate) fn whole_levels(version: &Version, levels: Range<usize>) -> Vec<Self> {
        let mut inputs = Vec::new();
        if levels.start == 0 && !version.level0().is_empty() {
            inputs.push(Self { run: RunId::first(0), tables: version.level0().to_vec() });
        }
        let runs = version.runs().iter().filter(|run| levels.contains(&run.id.level));
        inputs.extend(runs.map(|run| Self { run: run.id, tables: run.tables().to_vec() }));
        inputs
    }
}

/// Tables to merge and the run the result belongs to, or tables to drop.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Newest runs first.
    pub(crate) inputs: Vec<Input>,
    /// `None` drops the tables with all that is in them.
    pub(crate) output: Option<RunId>,
    /// Whether tables that meet no others may go there as they are.
    pub(crate) may_move: bool,
}

/// Where the data of a table lies among all data, from new to old.
type Age = (usize, Reverse<u64>, usize);

impl Plan {
    /// A merge of the whole tree into one run; `None` if there is nothing to gain. `level_for` says which level holds
    /// so much well.
    pub(super) fn everything(version: &Version, level_for: impl Fn(u64) -> usize) -> Option<Self> {
        let inputs = Input::whole_levels(version, 0..LEVELS);
        let deepest = version.deepest();
        let has_waste = version
            .tables()
            .any(|table| table.deletes > 0 || table.range_deletes > 0 || table.keys < table.rows);
        if inputs.is_empty() || (inputs.len() == 1 && deepest > 0 && !has_waste) {
            return None;
        }
        let level = level_for(version.tables().map(|table| table.weight()).sum());
        Some(Self { inputs, output: Some(RunId::first(level.max(deepest))), may_move: false })
    }

    /// The tables it takes.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<TableMeta>> {
        self.inputs.iter().flat_map(|input| &input.tables)
    }

    /// Those of level 0 among them.
    pub(super) fn level0(&self) -> impl Iterator<Item = &Arc<TableMeta>> {
        let level0 = self.inputs.iter().filter(|input| input.run.level == 0);
        level0.flat_map(|input| &input.tables)
    }

    /// The run its tables can change to without being rewritten: one of level 0 can, and those of one run.
    pub(crate) fn is_move(&self) -> Option<RunId> {
        let [only] = self.inputs.as_slice() else { return None };
        let disjoint = only.run.level > 0 || only.tables.len() == 1;
        self.output.filter(|output| self.may_move && disjoint && only.run != *output)
    }

    /// Of a merge, the tables that go to the output as they are, in key order: they meet no other input, nothing in
    /// them is dead, they are not so small that they would be many, and they are compressed as the output is.
    pub(crate) fn kept(&self, limits: &Limits, last: usize) -> Vec<Arc<TableMeta>> {
        let Some(output) = self.output.filter(|_| self.may_move) else { return Vec::new() };
        let passes = |level: usize| limits.passes(level, last);
        let mut tables: Vec<_> = self
            .inputs
            .iter()
            .flat_map(|input| input.tables.iter().map(move |table| (input.run.level, table)))
            .collect();
        tables.sort_by(|(_, a), (_, b)| a.smallest.cmp(&b.smallest));
        let mut kept = Vec::new();
        let mut reached: Option<&Upper> = None;
        for (at, &(level, table)) in tables.iter().enumerate() {
            let behind = reached.is_none_or(|reached| !reached.admits(&table.smallest));
            let next = tables.get(at + 1);
            let before = next.is_none_or(|(_, next)| !table.largest.admits(&next.smallest));
            let alive = (table.deletes, table.range_deletes) == (0, 0) && table.keys == table.rows;
            let large = table.weight() * 4 >= limits.table_size;
            if behind && before && alive && large && (!passes(level) || passes(output.level)) {
                kept.push(Arc::clone(table));
            }
            reached = reached.max(Some(&table.largest));
        }
        kept
    }

    /// Where the next slices of the merge end, those that are written at the same time: as many as `threads`, and as
    /// few as are worth it, none larger than one alone would be. They are about as large as each other, and so are the
    /// slices of the whole merge. `None` is the end of all.
    pub(crate) fn slice_ends(
        &self,
        from: &[u8],
        kept: &[Arc<TableMeta>],
        table_size: u64,
        threads: usize,
    ) -> Vec<Option<Vec<u8>>> {
        let parts = self.parts(from, kept);
        let left = parts.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let most = table_size.saturating_mul(SLICE_TABLES);
        let worth_it = left / table_size.saturating_mul(SIDE_TABLES).max(1);
        let threads = (threads as u64).min(worth_it).max(1);
        let bytes = match threads {
            1 => most,
            _ => left.div_ceil(threads * left.div_ceil(most.saturating_mul(threads))),
        };
        let (mut ends, mut sum) = (Vec::new(), 0_u64);
        for (end, part) in parts {
            sum = sum.saturating_add(part);
            if end.is_none() || sum >= bytes {
                ends.push(end.map(<[u8]>::to_vec));
                sum = 0;
            }
            if ends.len() as u64 == threads {
                break;
            }
        }
        ends
    }

    /// What is left from `from` on in parts that are not divided, and about how many bytes are merged in each: a part
    /// ends at the first key of a table of the oldest run, which the output's run is if it is an input at all, so that
    /// no table of it reaches across. A table that reaches over several counts in equal shares; `kept` are not merged.
    fn parts(&self, from: &[u8], kept: &[Arc<TableMeta>]) -> Vec<(Option<&[u8]>, u64)> {
        let kept: BTreeSet<u64> = kept.iter().map(|table| table.number).collect();
        let oldest = self.inputs.last().filter(|input| input.run.level > 0);
        let oldest = oldest.map_or(&[][..], |input| &input.tables);
        let ends = oldest.iter().map(|table| Some(table.smallest.as_slice())).chain([None]);
        let mut parts: Vec<_> = ends.map(|end| (end, 0_u64)).collect();
        for table in self.tables().filter(|table| !kept.contains(&table.number)) {
            let first = oldest.partition_point(|cut| cut.smallest <= table.smallest);
            let last = oldest.partition_point(|cut| table.largest.admits(&cut.smallest));
            let share = table.size / (last - first + 1) as u64;
            for (_, bytes) in &mut parts[first..=last] {
                *bytes = bytes.saturating_add(share);
            }
        }
        parts.retain(|(end, _)| end.is_none_or(|end| end > from));
        parts
    }

    /// Takes from the plan the tables that what was merged below `end` replaces: those with no key from there on, and
    /// over no older one that stays, or what that holds would come to light. A table that reaches across `end` stays
    /// with all it holds; what lies below is in the output too, in the same or a newer version.
    pub(crate) fn take_merged(&mut self, end: Option<&[u8]>) -> Vec<Arc<TableMeta>> {
        let (mut taken, mut stay) = (Vec::new(), Vec::<Arc<TableMeta>>::new());
        for input in self.inputs.iter_mut().rev() {
            let mut left = Vec::new();
            for table in std::mem::take(&mut input.tables).into_iter().rev() {
                let whole = end.is_none_or(|end| !table.largest.admits(end));
                let bares = stay.iter().any(|s| s.overlaps(&table.smallest, &table.largest));
                if whole && !bares {
                    taken.push(table);
                } else {
                    stay.push(Arc::clone(&table));
                    left.push(table);
                }
            }
            left.reverse();
            input.tables = left;
        }
        self.inputs.retain(|input| !input.tables.is_empty());
        taken
    }

    /// What the plan would break: order of age, of any key, or disjointness of the output's run.
    pub(crate) fn check(&self, version: &Version) -> Result<(), String> {
        self.check_order(version)?;
        let (from, to) = bounds(self.tables());
        let output = self.output.and_then(|id| version.runs().iter().find(|run| run.id == id));
        let is_input = |table: &TableMeta| self.tables().any(|input| input.number == table.number);
        let mut met = output.into_iter().flat_map(|run| run.overlapping(from, to));
        match met.find(|table| !is_input(table)) {
            Some(table) => Err(format!("the result overlaps table {}", table.number)),
            None => Ok(()),
        }
    }

    /// What the plan would break of the order of age, of any key.
    pub(crate) fn check_order(&self, version: &Version) -> Result<(), String> {
        let is_input = |table: &TableMeta| self.tables().any(|input| input.number == table.number);
        let level0 = version.level0().iter().enumerate().map(|(at, t)| ((0, Reverse(0), at), t));
        let deeper = version.runs().iter().flat_map(|run| {
            let age: Age = (run.id.level, Reverse(run.id.rank), 0);
            run.tables().iter().map(move |table| (age, table))
        });
        let (inside, outside): (Vec<_>, Vec<_>) =
            level0.chain(deeper).partition(|(_, table)| is_input(table));
        if inside.len() != self.tables().count() {
            return Err("it takes a table that is not there".to_owned());
        }
        // What is dropped goes behind everything.
        let output = self.output.unwrap_or(RunId::first(LEVELS));
        let output: Age = (output.level, Reverse(output.rank), 0);
        for (age, table) in outside {
            for (other, input) in &inside {
                let meet = table.overlaps(&input.smallest, &input.largest);
                if meet && age != output && other.cmp(&age) != output.cmp(&age) {
                    let (input, table) = (input.number, table.number);
                    return Err(format!("data of table {input} would pass table {table}"));
                }
            }
        }
        Ok(())
    }
}

/// The bounds of several tables together.
pub(crate) fn bounds<'t>(
    tables: impl IntoIterator<Item = &'t Arc<TableMeta>>,
) -> (&'t [u8], &'t Upper) {
    let mut tables = tables.into_iter();
    let Some(first) = tables.next() else { return (&[], &Upper::Unbounded) };
    tables.fold((&first.smallest, &first.largest), |(from, to), table| {
        (from.min(&table.smallest), to.max(&table.largest))
    })
}

#[cfg(test)]
pub(super) mod testing {
    //! Trees and plans as text.

    use super::*;

    /// A version from `(level, rank, number, smallest, largest)`; every table has 1000 bytes.
    pub(in super::super) fn version(tables: &[(usize, u64, u64, &str, &str)]) -> Version {
        let added: Vec<_> = tables
            .iter()
            .map(|&(level, rank, number, smallest, largest)| {
                let largest = Upper::Included(largest.as_bytes().to_vec());
                let table = TableMeta::for_tests(number, smallest.as_bytes(), largest);
                (RunId { level, rank }, Arc::new(table))
            })
            .collect();
        Version::empty().with(&[], &added).expect("a sound version")
    }

    fn name(run: RunId) -> String {
        match run {
            RunId { level, rank: 0 } => format!("L{level}"),
            RunId { level, rank } => format!("L{level}.{rank}"),
        }
    }

    /// `L0[2 1] L1[3] -> L1`; the run is named where it is not the first. The plan must be sound.
    pub(in super::super) fn text(version: &Version, plan: Option<Plan>) -> String {
        let Some(plan) = plan else { return "nothing".to_owned() };
        plan.check(version).expect("a sound plan");
        let level = |input: &Input| {
            let numbers: Vec<_> = input.tables.iter().map(|t| t.number.to_string()).collect();
            format!("{}[{}] ", name(input.run), numbers.join(" "))
        };
        let inputs: String = plan.inputs.iter().map(level).collect();
        let moves = if plan.is_move().is_some() { " (move)" } else { "" };
        let output = plan.output.map_or("nothing".to_owned(), name);
        format!("{inputs}-> {output}{moves}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_meet_no_other_are_kept_if_it_costs_nothing() {
        let version = testing::version(&[
            (0, 0, 9, "a", "c"),
            (0, 0, 8, "x", "z"),
            (1, 0, 1, "a", "b"),
            (1, 0, 2, "d", "e"),
            (1, 0, 3, "f", "g"),
            (1, 0, 4, "y", "y"),
            (2, 0, 5, "g", "h"),
            (2, 0, 6, "i", "j"),
        ]);
        let limits = |table_size, compresses| Limits { table_size, compresses, ..Limits::SMALL };
        let kept = |levels: Range<usize>, may_move, limits, last| {
            let inputs = Input::whole_levels(&version, levels);
            let plan = Plan { inputs, output: Some(RunId::first(last)), may_move };
            plan.kept(&limits, last).iter().map(|table| table.number).collect::<Vec<_>>()
        };
        assert_eq!(kept(0..7, true, limits(4000, true), 2), [2, 6]);
        assert_eq!(kept(0..7, false, limits(4000, true), 2), [0; 0], "all must be rewritten");
        assert_eq!(kept(0..7, true, limits(4001, true), 2), [0; 0], "they are small");
        assert_eq!(kept(0..7, true, limits(4000, true), 3), [6], "level 1 is not compressed");
        assert_eq!(kept(0..7, true, limits(4000, false), 3), [2, 6], "nothing is compressed");
        assert_eq!(kept(0..1, true, limits(4000, false), 1), [9, 8]);
        assert_eq!(kept(0..1, true, limits(4000, true), 1), [0; 0], "level 0 is not compressed");
    }

    #[test]
    fn a_merge_goes_slice_by_slice_and_bares_nothing_that_stays() {
        let version = testing::version(&[
            (0, 0, 9, "a", "z"),
            (1, 1, 5, "a", "b"),
            (1, 1, 6, "c", "g"),
            (1, 1, 7, "h", "k"),
            (1, 0, 3, "b", "e"),
            (1, 0, 4, "i", "j"),
            (2, 0, 1, "a", "d"),
            (2, 0, 2, "f", "i"),
            (2, 0, 8, "m", "n"),
            (2, 0, 10, "y", "z"),
        ]);
        let inputs = Input::whole_levels(&version, 0..LEVELS);
        let whole = Plan { inputs, output: Some(RunId::first(2)), may_move: false };
        let (f, m) = (|| Some(b"f".to_vec()), || Some(b"m".to_vec()));
        for (table_size, want) in [
            (1000, "[10, 8, 2, 1, 4, 3, 7, 6, 5, 9] to the end"),
            (400, "[2, 1, 4, 3, 7, 6, 5] below m; [10, 8, 9] to the end"),
            // 6 reaches across f and stays, and 3 under it, which is wholly below, goes: the output has it.
            (200, "[1, 3, 5] below f; [2, 4, 7, 6] below m; [10, 8, 9] to the end"),
        ] {
            let (mut plan, mut from, mut slices) = (whole.clone(), Vec::new(), Vec::new());
            loop {
                let ends = plan.slice_ends(&from, &[], table_size, 1);
                let [end] = <[_; 1]>::try_from(ends).expect("one thread, one slice");
                let taken = plan.take_merged(end.as_deref());
                let numbers: Vec<_> = taken.iter().map(|table| table.number).collect();
                let Some(end) = end else {
                    slices.push(format!("{numbers:?} to the end"));
                    break;
                };
                slices.push(format!("{numbers:?} below {}", String::from_utf8_lossy(&end)));
                from = end;
            }
            assert_eq!(slices.join("; "), want, "tables of {table_size} B");
        }
        // A table over one that stays is not taken: what that holds would come to light.
        let mut plan = whole.clone();
        let taken = plan.take_merged(Some(b"e"));
        assert_eq!(taken.iter().map(|table| table.number).collect::<Vec<_>>(), [1]);
        // What is kept as it is counts for nothing.
        let ends = |kept| whole.slice_ends(b"", kept, 220, 1);
        assert_eq!((ends(&[]), ends(version.level0())), (vec![f()], vec![m()]));
    }

    #[test]
    fn a_merge_is_divided_among_threads_at_even_bytes() {
        // Level 0 lies over everything; level 1 has ten tables, the first of which is below `from`.
        let deep: Vec<_> = (b'a'..=b'j').map(|key| char::from(key).to_string()).collect();
        let deep =
            deep.iter().zip(1..).map(|(key, number)| (1, 0, number, key.as_str(), key.as_str()));
        let tables: Vec<_> =
            [(0, 0, 21, "a", "z"), (0, 0, 20, "b", "z")].into_iter().chain(deep).collect();
        let inputs = Input::whole_levels(&testing::version(&tables), 0..LEVELS);
        let plan = Plan { inputs, output: Some(RunId::first(1)), may_move: false };
        let ends = |table_size, threads| {
            let ends = plan.slice_ends(b"b", &[], table_size, threads);
            let text = |end: &Option<Vec<u8>>| {
                end.clone().map_or("end".into(), |end| String::from_utf8(end).expect("a letter"))
            };
            ends.iter().map(text).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(ends(1000, 1), "end");
        assert_eq!(ends(1000, 4), "g end", "a slice is four tables at least");
        assert_eq!(ends(100, 2), "d f", "eight slices of 16 tables, about");
        assert_eq!(ends(100, 3), "c d e");
        assert_eq!(ends(100, 64), "c d e f g h i j end", "no table is divided");
    }

    #[test]
    fn a_plan_that_would_bring_old_data_above_new_is_refused() {
        let version = testing::version(&[
            (0, 0, 6, "a", "c"),
            (0, 0, 5, "x", "z"),
            (1, 1, 4, "a", "f"),
            (1, 0, 3, "e", "k"),
            (2, 0, 2, "a", "d"),
            (2, 0, 1, "j", "m"),
        ]);
        let sound = |numbers: &[u64], level, rank| {
            let mut inputs = Input::whole_levels(&version, 0..7);
            inputs.iter_mut().for_each(|i| i.tables.retain(|t| numbers.contains(&t.number)));
            inputs.retain(|input| !input.tables.is_empty());
            let output = Some(RunId { level, rank });
            Plan { inputs, output, may_move: true }.check(&version).is_ok()
        };
        assert!(sound(&[6, 4], 1, 1) && sound(&[6, 5, 4], 1, 2) && sound(&[3, 1], 2, 0));
        assert!(sound(&[5], 6, 0), "nothing is in its way");
        assert!(!sound(&[6], 1, 1), "it overlaps table 4");
        assert!(!sound(&[6], 2, 1), "it passes table 4");
        assert!(!sound(&[4], 2, 1), "it passes table 3");
        assert!(!sound(&[4, 3], 2, 0), "it overlaps table 2");
        assert!(!sound(&[2], 1, 2), "it passes tables 4 and 3");
        assert!(!sound(&[5, 4], 1, 0), "what is between their tables overlaps table 3");
        assert!(!sound(&[7], 1, 0), "there is no such table");
    }
}
