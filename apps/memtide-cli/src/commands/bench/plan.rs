//! Which cases are measured, decided from the arguments before anything runs.

use std::time::Duration;

use clap::ValueEnum;
use memtide::{Error, ErrorKind, MemtableType};

use super::measure::Effort;
use super::workload::Case;
use crate::args::{KeyShape, Memtables, Mix};

/// The mixes behind the figures every report has; they run first, in this order.
const ALWAYS: [Mix; 4] = [Mix::Load, Mix::Read, Mix::Miss, Mix::Scan];
/// What an entry may take of a memtable beside its value and its new versions.
const ENTRY_BYTES: u64 = 512;
/// More than this in one memtable is beyond what its references can name.
const MEMTABLE_BYTES_MAX: u64 = 12 << 30;

/// The conditions around which others vary, apart from the number of entries.
const USUAL: Case =
    Case { entries: 0, keys: KeyShape::Random, value_bytes: 64, threads: 1, batch: 1 };

/// What is measured, in this order.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) types: Vec<MemtableType>,
    pub(super) mixes: Vec<Mix>,
    pub(super) cases: Vec<(Case, Effort)>,
}

impl Plan {
    /// Every combination that was asked for, or the whole matrix.
    pub(super) fn new(args: &Memtables) -> memtide::Result<Self> {
        let all = || MemtableType::ALL.to_vec();
        let types = if args.types.is_empty() { all() } else { args.types.clone() };
        refuse_twice("--types", types.iter().map(ToString::to_string))?;
        if args.full {
            let mixes = Mix::value_variants().to_vec();
            return Ok(Self { types, mixes, cases: whole_matrix() });
        }
        refuse_twice("--entries", args.entries.iter().map(ToString::to_string))?;
        refuse_twice("--keys", args.keys.iter().map(|&keys| name_of(keys)))?;
        refuse_twice("--value-bytes", args.value_bytes.iter().map(ToString::to_string))?;
        refuse_twice("--mixes", args.mixes.iter().map(|&mix| name_of(mix)))?;
        refuse_twice("--threads", args.threads.iter().map(ToString::to_string))?;
        let mixes = Mix::value_variants()
            .iter()
            .copied()
            .filter(|mix| ALWAYS.contains(mix) || args.mixes.contains(mix))
            .collect();
        let mut cases = Vec::new();
        for &keys in &args.keys {
            for &value_bytes in &args.value_bytes {
                for &threads in &args.threads {
                    for &entries in &args.entries {
                        let case = Case { entries, keys, value_bytes, threads, batch: args.batch };
                        check(case)?;
                        cases.push((case, Effort { database: true, time_max: None }));
                    }
                }
            }
        }
        Ok(Self { types, mixes, cases })
    }

    /// Whether more was asked for than the figures every report has.
    pub(super) fn is_detailed(&self) -> bool {
        let usual = USUAL;
        let unusual = |case: Case| case != Case { entries: case.entries, ..usual };
        self.mixes != ALWAYS || self.cases.iter().any(|&(case, _)| unusual(case))
    }
}

/// A value of an option as users write it.
pub(super) fn name_of(value: impl ValueEnum + Copy) -> String {
    let named = value.to_possible_value().expect("no value is hidden");
    named.get_name().to_owned()
}

fn refuse_twice(option: &str, values: impl Iterator<Item = String>) -> memtide::Result<()> {
    let mut seen: Vec<String> = Vec::new();
    for value in values {
        if seen.contains(&value) {
            return Err(invalid(format!("{option} names {value} twice")));
        }
        seen.push(value);
    }
    Ok(())
}

fn check(case: Case) -> memtide::Result<()> {
    let Case { entries, value_bytes, threads, .. } = case;
    if threads > entries {
        return Err(invalid(format!(
            "{threads} threads cannot share {entries} entries: each needs one of its own"
        )));
    }
    // Overwriting mixes at most double the versions, and the last check adds some.
    let needed = u64::from(entries) * (ENTRY_BYTES + 3 * u64::from(value_bytes));
    if needed > MEMTABLE_BYTES_MAX {
        return Err(invalid(format!(
            "{entries} entries with values of {value_bytes} B need about {} GiB in one memtable, above {} GiB",
            needed >> 30,
            MEMTABLE_BYTES_MAX >> 30
        )));
    }
    Ok(())
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// A star: every condition is varied alone, around random keys, values of 64 B and one thread.
///
/// The times add up to nine minutes for measuring; drawing the work takes most of another. Eight memtables
/// on two quiet cores use less. A case that has run out of time keeps the rounds it has, one at least.
fn whole_matrix() -> Vec<(Case, Effort)> {
    let centre = USUAL;
    let effort =
        |seconds, database| Effort { database, time_max: Some(Duration::from_secs(seconds)) };
    let mut cases = Vec::new();
    for (entries, seconds) in [(100, 6), (1000, 6), (5000, 8), (20_000, 20), (100_000, 60)] {
        cases.push((Case { entries, ..centre }, effort(seconds, true)));
    }
    cases.push((Case { entries: 1_000_000, ..centre }, effort(150, false)));
    let keys = [KeyShape::Sequential, KeyShape::SharedPrefix, KeyShape::Url];
    let other_keys = keys.map(|keys| Case { keys, ..centre });
    let other_values = [16, 256, 1024].map(|value_bytes| Case { value_bytes, ..centre });
    for case in other_keys.into_iter().chain(other_values) {
        cases.push((Case { entries: 5000, ..case }, effort(5, false)));
        cases.push((Case { entries: 100_000, ..case }, effort(30, false)));
    }
    for threads in [2, 4] {
        cases.push((Case { entries: 100_000, threads, ..centre }, effort(30, false)));
    }
    cases
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Args, Bench, Command};

    fn plan(options: &[&str]) -> memtide::Result<Plan> {
        let words = ["memtide", "bench", "memtables"].iter().chain(options);
        let args = Args::try_parse_from(words).expect("known options");
        let Command::Bench(Bench::Memtables(memtables)) = args.command else {
            panic!("it is `bench memtables`");
        };
        Plan::new(&memtables)
    }

    #[test]
    fn without_options_three_sizes_of_all_eight_are_measured() {
        let plan = plan(&[]).expect("valid");
        assert_eq!(plan.types, MemtableType::ALL);
        assert_eq!(plan.mixes, ALWAYS);
        let sizes: Vec<_> = plan.cases.iter().map(|(case, _)| case.entries).collect();
        assert_eq!(sizes, [100, 1000, 5000]);
        assert!(plan.cases.iter().all(|(_, effort)| effort.database));
    }

    #[test]
    fn every_combination_is_measured_once() {
        let plan = plan(&[
            "--entries=100,200",
            "--keys=url,random",
            "--value-bytes=0,9",
            "--threads=1,2",
            "--mixes=overwrite-zipf,read",
        ])
        .expect("valid");
        assert_eq!(plan.cases.len(), 16);
        for (index, one) in plan.cases.iter().enumerate() {
            assert!(!plan.cases[..index].contains(one), "{one:?}");
        }
        let mixes = [Mix::Load, Mix::Read, Mix::Miss, Mix::Scan, Mix::OverwriteZipf];
        assert_eq!(plan.mixes, mixes, "those of every report, and what was asked for");
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for (options, message) in [
            (&["--entries=5,7,5"][..], "--entries names 5 twice"),
            (&["--mixes=read,read"], "--mixes names read twice"),
            (&["--types=trie,trie"], "--types names trie twice"),
            (&["--entries=3", "--threads=2,4"], "4 threads cannot share 3 entries"),
            (&["--entries=1000000", "--value-bytes=8192"], "need about 23 GiB"),
        ] {
            let error = plan(options).expect_err("invalid");
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(message), "{error}");
        }
    }

    #[test]
    fn the_whole_matrix_keeps_to_its_time() {
        let plan = plan(&["--full"]).expect("valid");
        let seconds = plan.cases.iter().map(|(_, effort)| effort.time_max.expect("bounded"));
        assert!(seconds.sum::<Duration>() <= Duration::from_secs(9 * 60));
        assert!(plan.cases.iter().all(|(case, _)| check(*case).is_ok()));
        assert_eq!(plan.mixes.len(), Mix::value_variants().len());
    }
}
