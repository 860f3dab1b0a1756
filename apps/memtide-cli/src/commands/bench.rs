//! `bench memtables`: every variant alone and below a database on disk, every operation checked.
//!
//! For each number of entries and each variant, several rounds: random keys of 16 bytes and values of 64
//! bytes, from a seed, are put in the order they are drawn, all read, as many absent keys read, and all
//! scanned; these are timed. Then every tenth key is overwritten and every seventh deleted, and everything
//! is read and scanned again. Each answer is compared with a model (a `BTreeMap`), inside the timed loops
//! too. A figure is the median of the rounds, in nanoseconds per operation (per entry for scans); bytes are
//! those of the memtable alone after the puts.
//!
//! The database runs with that memtable, durability `buffered` and everything else as it comes.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use memtide::{
    Config, Db, Durability, Error, ErrorKind, Keyspace, MemtableType, MemtableVariant, Usage,
};
use serde_json::{Value, json};

use crate::args::{Global, Memtables};
use crate::report::{self, Outcome};

const KEY_LEN: usize = 16;
const VALUE_LEN: usize = 64;
const SEED: u64 = 0x6D65_6D74_6964_6521;
/// Operations a variant should see over all rounds, so that small sizes are repeated more often.
const OPS_WANTED: usize = 20_000;

type Key = [u8; KEY_LEN];
type Val = [u8; VALUE_LEN];
type Model = BTreeMap<Key, Val>;

/// Runs the comparison and prints it.
pub(crate) fn run(global: &Global, args: &Memtables) -> Outcome {
    let types = if args.types.is_empty() { &MemtableType::ALL[..] } else { &args.types };
    let scratch = Scratch::new()?;
    let mut rows = Vec::new();
    for &entries in &args.entries {
        let work = Work::new(entries as usize);
        for &kind in types {
            rows.push(measure(kind, &work, &scratch)?);
        }
    }
    if global.json {
        report::print_json(&rows.iter().map(Row::json).collect())?;
    } else {
        print_table(&rows)?;
    }
    let wrong: Vec<String> = rows.iter().filter_map(Row::complaint).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Conflict, wrong.join("; ")).into())
}

/// What is put, and what is asked for besides.
struct Work {
    /// In the order they are put.
    pairs: Vec<(Key, Val)>,
    /// None of them is put.
    absent: Vec<Key>,
    model: Model,
}

impl Work {
    fn new(entries: usize) -> Self {
        let mut random = Random(SEED ^ entries as u64);
        let mut model = Model::new();
        let mut pairs = Vec::with_capacity(entries);
        while pairs.len() < entries {
            let (key, value) = (random.bytes(), random.bytes());
            if model.insert(key, value).is_none() {
                pairs.push((key, value));
            }
        }
        let mut absent = Vec::with_capacity(entries);
        while absent.len() < entries {
            let key = random.bytes();
            if !model.contains_key(&key) {
                absent.push(key);
            }
        }
        Self { pairs, absent, model }
    }

    fn rounds(&self, max: usize) -> usize {
        (OPS_WANTED / self.pairs.len()).clamp(3, max)
    }
}

/// SplitMix64 (Steele, Lea, Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
        bytes
    }
}

/// What a memtable and a keyspace of a database have in common here. An error counts as a wrong answer.
trait Subject {
    fn put(&self, key: &Key, value: &Val) -> bool;
    fn delete(&self, key: &Key) -> bool;
    /// Whether the key has exactly this value.
    fn holds(&self, key: &Key, value: Option<&Val>) -> bool;
    /// Scans forward and calls `see` for each row.
    fn scan(&self, see: &mut dyn FnMut(&[u8], &[u8]));
}

impl Subject for MemtableVariant {
    fn put(&self, key: &Key, value: &Val) -> bool {
        Self::put(self, key, value).is_ok()
    }

    fn delete(&self, key: &Key) -> bool {
        Self::delete(self, key).is_ok()
    }

    fn holds(&self, key: &Key, value: Option<&Val>) -> bool {
        self.get(key).as_deref() == value.map(|value| &value[..])
    }

    fn scan(&self, see: &mut dyn FnMut(&[u8], &[u8])) {
        self.for_each(see);
    }
}

impl Subject for Keyspace {
    fn put(&self, key: &Key, value: &Val) -> bool {
        Self::put(self, key, value).is_ok()
    }

    fn delete(&self, key: &Key) -> bool {
        Self::delete(self, key).is_ok()
    }

    fn holds(&self, key: &Key, value: Option<&Val>) -> bool {
        self.get(key).is_ok_and(|got| got.as_deref() == value.map(|value| &value[..]))
    }

    fn scan(&self, see: &mut dyn FnMut(&[u8], &[u8])) {
        for (key, value) in self.iter().flatten() {
            see(&key, &value);
        }
    }
}

/// Operations counted and timed over the rounds of one subject.
#[derive(Default)]
struct Tally {
    ok: u64,
    total: u64,
    put_ns: Vec<f64>,
    get_ns: Vec<f64>,
    scan_ns: Vec<f64>,
}

impl Tally {
    fn count(&mut self, ok: usize, total: usize) {
        self.ok += ok as u64;
        self.total += total as u64;
    }

    /// Puts, gets and scans everything, timed.
    fn fill(&mut self, subject: &impl Subject, work: &Work) {
        let entries = work.pairs.len();
        let (ok, ns) = timed(entries, || {
            work.pairs.iter().filter(|(key, value)| subject.put(key, value)).count()
        });
        self.count(ok, entries);
        self.put_ns.push(ns);
        let (ok, ns) = timed(entries, || {
            work.pairs.iter().filter(|(key, value)| subject.holds(key, Some(value))).count()
        });
        self.count(ok, entries);
        self.get_ns.push(ns);
        let absent = work.absent.iter().filter(|key| subject.holds(key, None)).count();
        self.count(absent, entries);
        let (ok, ns) = timed(entries, || scan(subject, &work.model));
        self.count(ok, entries);
        self.scan_ns.push(ns);
    }

    /// Overwrites and deletes some, then reads and scans everything again.
    fn change(&mut self, subject: &impl Subject, work: &Work) {
        let mut model = work.model.clone();
        for (key, value) in work.pairs.iter().step_by(10) {
            let value = value.map(|byte| !byte);
            model.insert(*key, value);
            self.count(usize::from(subject.put(key, &value)), 1);
        }
        for (key, _) in work.pairs.iter().step_by(7) {
            model.remove(key);
            self.count(usize::from(subject.delete(key)), 1);
        }
        let holds = |(key, _): &&(Key, Val)| subject.holds(key, model.get(key));
        self.count(work.pairs.iter().filter(holds).count(), work.pairs.len());
        self.count(scan(subject, &model), model.len());
    }
}

/// How many rows of the model a forward scan shows, each in its place.
fn scan(subject: &impl Subject, model: &Model) -> usize {
    let (mut want, mut ok, mut strays) = (model.iter(), 0_usize, 0_usize);
    subject.scan(&mut |key, value| match want.next() {
        Some((k, v)) if k == key && v == value => ok += 1,
        _ => strays += 1,
    });
    ok.saturating_sub(strays)
}

/// Runs `work` of so many operations once: its result, and nanoseconds for each operation.
fn timed<T>(operations: usize, work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed().as_nanos() as f64 / operations as f64)
}

fn measure(kind: MemtableType, work: &Work, scratch: &Scratch) -> memtide::Result<Row> {
    let (mut alone, mut engine) = (Tally::default(), Tally::default());
    let mut usage = None;
    for _ in 0..work.rounds(51) {
        // Room for all versions of all variants, far from the limit.
        let table = MemtableVariant::new(kind, (4 << 20) + 2048 * work.pairs.len() as u64);
        alone.fill(&table, work);
        usage = Some(table.usage());
        alone.change(&table, work);
    }
    for _ in 0..work.rounds(9) {
        let dir = scratch.database();
        let config = Config {
            memtable_type: Some(kind),
            durability: Some(Durability::Buffered),
            ..Config::default()
        };
        let db = Db::builder(&dir).config(config).open()?;
        let keyspace = db.default_keyspace();
        engine.fill(&keyspace, work);
        engine.change(&keyspace, work);
        drop(keyspace);
        db.close()?;
        fs::remove_dir_all(&dir).map_err(|error| Error::io("remove", &dir, error))?;
    }
    let usage = usage.expect("there is at least one round");
    Ok(Row { kind, entries: work.pairs.len(), alone, engine, usage })
}

/// One variant at one size.
struct Row {
    kind: MemtableType,
    entries: usize,
    alone: Tally,
    engine: Tally,
    usage: Usage,
}

impl Row {
    fn ops(&self) -> (u64, u64) {
        (self.alone.ok + self.engine.ok, self.alone.total + self.engine.total)
    }

    fn bytes_per_entry(&self) -> f64 {
        self.usage.used as f64 / self.entries as f64
    }

    fn json(&self) -> Value {
        let (ops_ok, ops_total) = self.ops();
        json!({
            "memtable": self.kind.name(),
            "entries": self.entries,
            "ops_ok": ops_ok,
            "ops_total": ops_total,
            "used_bytes": self.usage.used,
            "reserved_bytes": self.usage.reserved,
            "payload_bytes": self.entries * (KEY_LEN + VALUE_LEN),
            "bytes_per_entry": tenths(self.bytes_per_entry()),
            "put_ns": tenths(median(&self.alone.put_ns)),
            "get_ns": tenths(median(&self.alone.get_ns)),
            "scan_ns": tenths(median(&self.alone.scan_ns)),
            "engine_put_ns": tenths(median(&self.engine.put_ns)),
            "engine_get_ns": tenths(median(&self.engine.get_ns)),
            "engine_scan_ns": tenths(median(&self.engine.scan_ns)),
        })
    }

    fn cells(&self) -> Vec<String> {
        let (ops_ok, ops_total) = self.ops();
        let times = [
            &self.alone.put_ns,
            &self.alone.get_ns,
            &self.alone.scan_ns,
            &self.engine.put_ns,
            &self.engine.get_ns,
            &self.engine.scan_ns,
        ];
        let mut cells = vec![
            self.kind.to_string(),
            self.entries.to_string(),
            format!("{ops_ok}/{ops_total}"),
            report::bytes(self.usage.used),
            report::bytes(self.usage.reserved),
            format!("{:.1}", self.bytes_per_entry()),
        ];
        cells.extend(times.map(|ns| format!("{:.0}", median(ns))));
        cells
    }

    fn complaint(&self) -> Option<String> {
        let (ok, total) = self.ops();
        let wrong = total - ok;
        let place = format!("{} at {} entries", self.kind, self.entries);
        (wrong > 0).then(|| format!("{wrong} of {total} operations of {place} went wrong"))
    }
}

fn print_table(rows: &[Row]) -> Outcome {
    let mut table = report::table([
        "memtable", "entries", "ok", "used", "reserved", "B/entry", "put", "get", "scan", "db put",
        "db get", "db scan",
    ]);
    for row in rows {
        table.add_row(row.cells());
    }
    let mut output = report::output();
    writeln!(output, "{table}\n")?;
    writeln!(
        output,
        "Keys of {KEY_LEN} B, values of {VALUE_LEN} B. put, get, scan: ns for each operation or entry, \
         the memtable alone;\ndb: the same through a database on disk, durability buffered. ok: operations \
         that agreed with a model."
    )?;
    output.finish()
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn tenths(figure: f64) -> f64 {
    (figure * 10.0).round() / 10.0
}

/// A directory of our own below the system's temporary one, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> memtide::Result<Self> {
        let parent = std::env::temp_dir();
        let name = |attempt: u32| format!("memtide-bench-{}-{attempt}", std::process::id());
        let mut attempt = 0;
        loop {
            let dir = parent.join(name(attempt));
            match fs::create_dir(&dir) {
                Ok(()) => return Ok(Self(dir)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => attempt += 1,
                Err(error) => return Err(Error::io("create", dir, error)),
            }
        }
    }

    fn database(&self) -> PathBuf {
        Path::join(&self.0, "db")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is the system's to clean up, like anything else in that directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows the model's rows, except that it does what a broken memtable would do.
    struct Broken {
        rows: Model,
        extra: bool,
    }

    impl Subject for Broken {
        fn put(&self, _: &Key, _: &Val) -> bool {
            true
        }

        fn delete(&self, _: &Key) -> bool {
            true
        }

        fn holds(&self, key: &Key, value: Option<&Val>) -> bool {
            self.rows.get(key) == value
        }

        fn scan(&self, see: &mut dyn FnMut(&[u8], &[u8])) {
            self.rows.iter().for_each(|(key, value)| see(key, value));
            if self.extra {
                see(b"stray", b"");
            }
        }
    }

    #[test]
    fn a_scan_counts_only_rows_in_their_place() {
        let work = Work::new(10);
        let mut rows = work.model.clone();
        assert_eq!(scan(&Broken { rows: rows.clone(), extra: false }, &work.model), 10);
        assert_eq!(scan(&Broken { rows: rows.clone(), extra: true }, &work.model), 9);
        rows.pop_first();
        assert_eq!(scan(&Broken { rows, extra: false }, &work.model), 0, "all are displaced");
    }

    #[test]
    fn a_memtable_that_forgets_changes_is_found_out() {
        let work = Work::new(70);
        let deaf = Broken { rows: work.model.clone(), extra: false };
        let mut tally = Tally::default();
        tally.fill(&deaf, &work);
        assert_eq!((tally.ok, tally.total), (280, 280));
        tally.change(&deaf, &work);
        assert!(tally.ok < tally.total);
    }
}
