//! Runs the work of a case on its memtables and keeps figures.
//!
//! A round of one memtable: a fresh table, then the mixes in their order on that same table, then every tenth
//! entry is overwritten, every seventh deleted, and everything read and scanned again. Every answer is
//! checked, in the timed loops too. Rounds are interleaved, and each begins with another memtable, so that
//! a slow minute of the machine meets all of them. A figure is the median of the rounds, with the quartiles
//! as its spread.
//!
//! Wall time is of a whole mix, divided by its operations, those of all threads together. CPU time is that of
//! the working threads, divided the same way; it leaves out what others do on the machine, and the database's
//! background threads.
//!
//! One memtable is measured twice, as if it were two: how far the two come out apart is the noise of the
//! other figures.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use memtide::{
    Config, Db, Durability, Error, Keyspace, MemtableType, MemtableVariant, Result, Slice, Usage,
};
use rustix::time::{ClockId, clock_gettime};

use super::workload::{Case, Known, Step, Stream, Work};
use crate::args::Mix;

/// Operations a memtable should see over all rounds, so that small sizes are repeated more often.
const OPERATIONS_WANTED: u32 = 20_000;
/// A mix ends early after so long: an O(n) read among a million entries has no end worth waiting for.
const MIX_TIME_MAX: Duration = Duration::from_millis(500);
/// What a memtable may reserve for a start.
const ROOM_MIN: u64 = 64 << 10;
/// Bytes beside key and value that a version may take, in any memtable and however its segments fall.
const ROOM_FOR_INDEX: u64 = 160;
/// Gets and puts between two looks at the clock.
const STEPS_BETWEEN_LOOKS: usize = 64;

/// What is measured of a case, beyond its conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Effort {
    /// Through a database as well.
    pub(super) database: bool,
    /// Further rounds begin only before so long.
    pub(super) time_max: Option<Duration>,
}

/// One memtable under the conditions of one case.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) kind: MemtableType,
    pub(super) case: Case,
    pub(super) rounds: usize,
    pub(super) ops_ok: u64,
    pub(super) ops_total: u64,
    /// After the load.
    pub(super) usage: Usage,
    pub(super) payload: u64,
    /// In the order in which they ran.
    pub(super) mixes: Vec<MixFigures>,
}

/// The figures of one mix, in nanoseconds for one operation; for one entry where it is a scan.
#[derive(Clone, Debug)]
pub(super) struct MixFigures {
    pub(super) mix: Mix,
    /// Operations in the last round.
    pub(super) operations: u64,
    pub(super) alone: Timing,
    pub(super) database: Option<Timing>,
    /// How far one memtable measured twice comes out apart.
    pub(super) noise: Noise,
}

/// Time by two clocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Timing {
    pub(super) wall: Spread,
    pub(super) cpu: Spread,
}

/// The median of the rounds and the quartiles around it, to a tenth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// By how many percent the greater of two equal medians was greater.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Noise {
    pub(super) wall: f64,
    pub(super) cpu: f64,
    pub(super) database: Option<f64>,
}

impl Row {
    /// The figures of a mix, if it ran.
    pub(super) fn mix(&self, mix: Mix) -> Option<&MixFigures> {
        self.mixes.iter().find(|figures| figures.mix == mix)
    }

    pub(super) fn bytes_per_entry(&self) -> f64 {
        self.per_entry(self.usage.used)
    }

    /// Keys and values.
    pub(super) fn payload_per_entry(&self) -> f64 {
        self.per_entry(self.payload)
    }

    /// What is used beside keys and values.
    pub(super) fn index_per_entry(&self) -> f64 {
        self.per_entry(self.usage.used.saturating_sub(self.payload))
    }

    /// Reserved and not used.
    pub(super) fn waste_per_entry(&self) -> f64 {
        self.per_entry(self.usage.reserved.saturating_sub(self.usage.used))
    }

    fn per_entry(&self, bytes: u64) -> f64 {
        tenths(bytes as f64 / f64::from(self.case.entries))
    }
}

impl Spread {
    /// Of at least one figure.
    fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        let at =
            |quarter: usize| tenths(figures[(figures.len() * quarter / 4).min(figures.len() - 1)]);
        Self { median: at(2), low: at(1), high: at(3) }
    }

    fn apart_from(self, other: Self) -> f64 {
        let (low, high) = (self.median.min(other.median), self.median.max(other.median));
        if low > 0.0 { tenths((high / low - 1.0) * 100.0) } else { 0.0 }
    }
}

fn tenths(figure: f64) -> f64 {
    (figure * 10.0).round() / 10.0
}

/// Measures `kinds` under the conditions of a case, in their order.
pub(super) fn measure(
    kinds: &[MemtableType],
    work: &Work,
    effort: Effort,
    scratch: &Scratch,
) -> Result<Vec<Row>> {
    let begin = Instant::now();
    let doubled = kinds.iter().find(|&&kind| kind == MemtableType::EnhancedSkiplist);
    let twice = *doubled.or(kinds.first()).expect("there is a memtable to measure");
    let subjects: Vec<MemtableType> = kinds.iter().copied().chain([twice]).collect();
    let mut alone: Vec<Tally> = subjects.iter().map(|_| Tally::default()).collect();
    let mut usages = vec![Usage::default(); subjects.len()];
    let more = |round| effort.time_max.is_none_or(|max| round == 0 || begin.elapsed() < max);
    let mut rounds = 0;
    for round in (0..rounds_alone(work.case)).take_while(|&round| more(round)) {
        for index in (0..subjects.len()).map(|index| (index + round) % subjects.len()) {
            let table = MemtableVariant::new(subjects[index], room(work));
            alone[index].round(&table, work, || usages[index] = table.usage());
        }
        rounds += 1;
    }
    let mut database: Vec<Tally> = subjects.iter().map(|_| Tally::default()).collect();
    let wanted = if effort.database { rounds_database(work.case) } else { 0 };
    for round in (0..wanted).take_while(|&round| more(round)) {
        for index in (0..subjects.len()).map(|index| (index + round) % subjects.len()) {
            database_round(subjects[index], work, scratch, &mut database[index])?;
        }
    }
    let mut rows: Vec<Row> = subjects
        .iter()
        .zip(alone.into_iter().zip(database).zip(usages))
        .map(|(&kind, ((alone, database), usage))| {
            let (ops_ok, ops_total) = (alone.ok + database.ok, alone.total + database.total);
            let mixes = figures(work, alone, database);
            let (case, payload) = (work.case, work.payload());
            Row { kind, case, rounds, ops_ok, ops_total, usage, payload, mixes }
        })
        .collect();
    let double = rows.pop().expect("the one that was measured twice");
    let single = kinds.iter().position(|&kind| kind == twice).expect("it is one of them");
    compare(&mut rows, single, &double);
    Ok(rows)
}

fn rounds_alone(case: Case) -> usize {
    let fewest = if case.entries < 20_000 { 5 } else { 3 };
    ((OPERATIONS_WANTED / case.entries) as usize).clamp(fewest, 51)
}

fn rounds_database(case: Case) -> usize {
    let fewest = if case.entries < 200_000 { 3 } else { 1 };
    ((OPERATIONS_WANTED / case.entries) as usize).clamp(fewest, 5)
}

/// Room for all versions in any of the memtables, and not much more: some parts of a memtable are as large as
/// its limit asks for.
fn room(work: &Work) -> u64 {
    let entries = u64::from(work.case.entries);
    // The last check overwrites a tenth and deletes a seventh.
    let versions = work.writes() + entries / 4 + 2;
    let payload = work.payload() / entries + 1;
    ROOM_MIN + versions * (payload + ROOM_FOR_INDEX)
}

fn database_round(
    kind: MemtableType,
    work: &Work,
    scratch: &Scratch,
    tally: &mut Tally,
) -> Result<()> {
    let dir = scratch.database();
    let config = Config {
        memtable_type: Some(kind.into()),
        durability: Some(Durability::Buffered),
        ..Config::default()
    };
    let db = Db::builder(&dir).config(config).open()?;
    let stored = Stored { keyspace: db.default_keyspace(), db };
    tally.round(&stored, work, || {});
    drop(stored.keyspace);
    stored.db.close()?;
    fs::remove_dir_all(&dir).map_err(|error| Error::io("remove", &dir, error))
}

fn figures(work: &Work, alone: Tally, database: Tally) -> Vec<MixFigures> {
    let mut database = database.mixes.into_iter();
    work.mixes()
        .zip(alone.mixes)
        .map(|((mix, _), tally)| MixFigures {
            mix,
            operations: tally.operations,
            alone: tally.timing(),
            database: database.next().map(MixTally::timing),
            noise: Noise { wall: 0.0, cpu: 0.0, database: None },
        })
        .collect()
}

/// Notes in all rows how far row `single` is from its double.
fn compare(rows: &mut [Row], single: usize, double: &Row) {
    let pairs = rows[single].mixes.iter().zip(&double.mixes);
    let noises: Vec<Noise> = pairs
        .map(|(one, other)| Noise {
            wall: one.alone.wall.apart_from(other.alone.wall),
            cpu: one.alone.cpu.apart_from(other.alone.cpu),
            database: one.database.zip(other.database).map(|(a, b)| a.wall.apart_from(b.wall)),
        })
        .collect();
    for row in rows.iter_mut() {
        for (figures, &noise) in row.mixes.iter_mut().zip(&noises) {
            figures.noise = noise;
        }
    }
    // What went wrong in the double went wrong in that memtable.
    let wrong = double.ops_total - double.ops_ok;
    rows[single].ops_ok = rows[single].ops_ok.saturating_sub(wrong);
}

/// What a memtable and a keyspace of a database have in common here. An error counts as a wrong answer.
trait Subject: Sync {
    fn put(&self, key: &[u8], value: &[u8]) -> bool;
    /// Puts all at once.
    fn put_all(&self, entries: &[(&[u8], &[u8])]) -> bool;
    fn delete(&self, key: &[u8]) -> bool;
    /// Whether the key has exactly this value.
    fn holds(&self, key: &[u8], value: Option<&[u8]>) -> bool;
    /// The values of all keys at once; fewer if that failed.
    fn get_all(&self, keys: &[&[u8]]) -> Vec<Option<Slice>>;
    /// Shows the first `rows` keys with a prefix in order.
    fn walk(&self, prefix: &[u8], rows: u32, see: &mut dyn FnMut(&[u8], &[u8]));
}

impl Subject for MemtableVariant {
    fn put(&self, key: &[u8], value: &[u8]) -> bool {
        Self::put(self, key, value).is_ok()
    }

    fn put_all(&self, entries: &[(&[u8], &[u8])]) -> bool {
        Self::put_all(self, entries.iter().copied()).is_ok()
    }

    fn get_all(&self, keys: &[&[u8]]) -> Vec<Option<Slice>> {
        self.multi_get(keys)
    }

    fn delete(&self, key: &[u8]) -> bool {
        Self::delete(self, key).is_ok()
    }

    fn holds(&self, key: &[u8], value: Option<&[u8]>) -> bool {
        self.get(key).as_deref() == value
    }

    fn walk(&self, prefix: &[u8], rows: u32, see: &mut dyn FnMut(&[u8], &[u8])) {
        let mut left = rows;
        self.for_each_from(prefix, |key, value| {
            if left == 0 || !key.starts_with(prefix) {
                return ControlFlow::Break(());
            }
            left -= 1;
            see(key, value);
            ControlFlow::Continue(())
        });
    }
}

/// A database and its default keyspace.
struct Stored {
    db: Db,
    keyspace: Keyspace,
}

impl Subject for Stored {
    fn put(&self, key: &[u8], value: &[u8]) -> bool {
        self.keyspace.put(key, value).is_ok()
    }

    fn put_all(&self, entries: &[(&[u8], &[u8])]) -> bool {
        let mut batch = self.db.batch();
        entries.iter().for_each(|(key, value)| batch.put(&self.keyspace, key, value));
        self.db.write(batch).is_ok()
    }

    fn get_all(&self, keys: &[&[u8]]) -> Vec<Option<Slice>> {
        self.keyspace.multi_get(keys).unwrap_or_default()
    }

    fn delete(&self, key: &[u8]) -> bool {
        self.keyspace.delete(key).is_ok()
    }

    fn holds(&self, key: &[u8], value: Option<&[u8]>) -> bool {
        self.keyspace.get(key).is_ok_and(|got| got.as_deref() == value)
    }

    fn walk(&self, prefix: &[u8], rows: u32, see: &mut dyn FnMut(&[u8], &[u8])) {
        for (key, value) in self.keyspace.prefix(prefix).flatten().take(rows as usize) {
            see(&key, &value);
        }
    }
}

/// Operations counted and timed over the rounds of one subject.
#[derive(Debug, Default)]
struct Tally {
    ok: u64,
    total: u64,
    mixes: Vec<MixTally>,
}

#[derive(Debug, Default)]
struct MixTally {
    operations: u64,
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

impl MixTally {
    fn timing(self) -> Timing {
        Timing { wall: Spread::of(self.wall), cpu: Spread::of(self.cpu) }
    }
}

impl Tally {
    /// One round; `loaded` is called between the load and what follows.
    fn round(&mut self, subject: &impl Subject, work: &Work, mut loaded: impl FnMut()) {
        self.mixes.resize_with(work.mixes().count(), MixTally::default);
        let mut known: Vec<Known> =
            (0..work.case.threads).map(|part| Known::nothing(work.case, part)).collect();
        for (index, (mix, streams)) in work.mixes().enumerate() {
            let pass = run(subject, work, streams, &mut known);
            self.ok += pass.ok;
            self.total += pass.total;
            let tally = &mut self.mixes[index];
            tally.operations = pass.total;
            tally.wall.push(pass.wall.as_nanos() as f64 / pass.total as f64);
            tally.cpu.push(pass.cpu.as_nanos() as f64 / pass.total as f64);
            if mix == Mix::Load {
                loaded();
            }
        }
        self.change(subject, work, Known::joined(work.case, &known));
    }

    /// Overwrites and deletes some, then reads and scans everything again.
    fn change(&mut self, subject: &impl Subject, work: &Work, mut known: Known) {
        let mut count = |ok: bool| {
            self.ok += u64::from(ok);
            self.total += 1;
        };
        for entry in (0..work.case.entries).step_by(10) {
            let writes = known.wrote(entry);
            count(subject.put(work.key(entry), work.value(entry, writes)));
        }
        for entry in (0..work.case.entries).step_by(7) {
            known.deleted(entry);
            count(subject.delete(work.key(entry)));
        }
        let again = |mix: &Mix| matches!(mix, Mix::Read | Mix::Scan);
        for (_, streams) in work.mixes().filter(|(mix, _)| again(mix)) {
            for stream in streams {
                let pass = run_stream(subject, work, stream, &mut known);
                self.ok += pass.ok;
                self.total += pass.total;
            }
        }
    }
}

/// What one pass over streams came to.
#[derive(Debug, Default)]
struct Pass {
    ok: u64,
    total: u64,
    wall: Duration,
    /// Of all threads together.
    cpu: Duration,
}

/// Runs each stream in a thread of its own; a single one in this thread.
fn run(subject: &impl Subject, work: &Work, streams: &[Stream], known: &mut [Known]) -> Pass {
    if let ([stream], [known]) = (streams, &mut *known) {
        return run_stream(subject, work, stream, known);
    }
    let start = Barrier::new(streams.len());
    let ran: Vec<(Instant, Pass)> = std::thread::scope(|scope| {
        let threads: Vec<_> = streams
            .iter()
            .zip(known)
            .map(|(stream, known)| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    (Instant::now(), run_stream(subject, work, stream, known))
                })
            })
            .collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        ended.map(|pass| pass.expect("a failed operation is counted, not a panic")).collect()
    });
    let first = ran.iter().map(|(start, _)| *start).min();
    let last = ran.iter().map(|(start, pass)| *start + pass.wall).max();
    let wall = first.zip(last).map_or(Duration::ZERO, |(first, last)| last - first);
    ran.iter().fold(Pass { wall, ..Pass::default() }, |sum, (_, pass)| Pass {
        ok: sum.ok + pass.ok,
        total: sum.total + pass.total,
        wall,
        cpu: sum.cpu + pass.cpu,
    })
}

/// Runs a stream, or as much of it as there is time for. A scan counts its rows.
fn run_stream(subject: &impl Subject, work: &Work, stream: &Stream, known: &mut Known) -> Pass {
    if work.case.batch > 1 {
        return run_batches(subject, work, stream, known);
    }
    let mut pass = Pass::default();
    let mut until_look = STEPS_BETWEEN_LOOKS;
    let cpu = thread_time();
    let start = Instant::now();
    for (step, key) in stream.steps() {
        let (ok, total) = match step {
            Step::Put(entry) => {
                let writes = known.wrote(entry);
                (u64::from(subject.put(key, work.value(entry, writes))), 1)
            }
            Step::Get(entry) => {
                let writes = known.writes_of(entry).expect("a thread gets its own entries");
                let value = (writes > 0).then(|| work.value(entry, writes));
                (u64::from(subject.holds(key, value)), 1)
            }
            Step::Miss => (u64::from(subject.holds(key, None)), 1),
            Step::Scan => walk(subject, work, known, key, 0, work.case.entries),
            Step::Walk { first, rows } => {
                until_look = 1;
                let (right, wanted) = walk(subject, work, known, key, first, rows);
                (u64::from(right == wanted), 1)
            }
        };
        pass.ok += ok;
        pass.total += total;
        until_look -= 1;
        if until_look == 0 {
            // A load is never cut: what follows needs all entries.
            if !matches!(step, Step::Put(_)) && start.elapsed() > MIX_TIME_MAX {
                break;
            }
            until_look = STEPS_BETWEEN_LOOKS;
        }
    }
    pass.wall = start.elapsed();
    pass.cpu = thread_time().saturating_sub(cpu);
    pass
}

/// As [`run_stream`]; puts in a row, and gets in a row, are made together, as many at a time as the case says.
fn run_batches(subject: &impl Subject, work: &Work, stream: &Stream, known: &mut Known) -> Pass {
    let steps: Vec<(Step, &[u8])> = stream.steps().collect();
    let is_put = |step: Step| matches!(step, Step::Put(_));
    let is_get = |step: Step| matches!(step, Step::Get(_) | Step::Miss);
    let are_alike =
        |one: Step, next: Step| (is_put(one) && is_put(next)) || (is_get(one) && is_get(next));
    let mut pass = Pass::default();
    let cpu = thread_time();
    let start = Instant::now();
    let alike = steps.chunk_by(|&(one, _), &(next, _)| are_alike(one, next));
    for batch in alike.flat_map(|alike| alike.chunks(work.case.batch as usize)) {
        let (ok, total) = match batch[0] {
            (Step::Put(_), _) => put_batch(subject, work, batch, known),
            (Step::Get(_) | Step::Miss, _) => get_batch(subject, work, batch, known),
            (Step::Scan, key) => walk(subject, work, known, key, 0, work.case.entries),
            (Step::Walk { first, rows }, key) => {
                let (right, wanted) = walk(subject, work, known, key, first, rows);
                (u64::from(right == wanted), 1)
            }
        };
        pass.ok += ok;
        pass.total += total;
        // A load is never cut: what follows needs all entries.
        if !is_put(batch[0].0) && start.elapsed() > MIX_TIME_MAX {
            break;
        }
    }
    pass.wall = start.elapsed();
    pass.cpu = thread_time().saturating_sub(cpu);
    pass
}

/// Puts together; how many of how many went right.
fn put_batch(
    subject: &impl Subject,
    work: &Work,
    batch: &[(Step, &[u8])],
    known: &mut Known,
) -> (u64, u64) {
    let mut entries = Vec::with_capacity(batch.len());
    for &(step, key) in batch {
        let Step::Put(entry) = step else { unreachable!("steps of a batch are alike") };
        let writes = known.wrote(entry);
        entries.push((key, work.value(entry, writes)));
    }
    let total = entries.len() as u64;
    (if subject.put_all(&entries) { total } else { 0 }, total)
}

/// Gets together; how many of how many were answered right.
fn get_batch(
    subject: &impl Subject,
    work: &Work,
    batch: &[(Step, &[u8])],
    known: &Known,
) -> (u64, u64) {
    let keys: Vec<&[u8]> = batch.iter().map(|&(_, key)| key).collect();
    let got = subject.get_all(&keys);
    let is_right = |&(&(step, _), got): &(&(Step, &[u8]), &Option<Slice>)| {
        let value = match step {
            Step::Get(entry) => {
                let writes = known.writes_of(entry).expect("a thread gets its own entries");
                (writes > 0).then(|| work.value(entry, writes))
            }
            _ => None,
        };
        got.as_deref() == value
    };
    let right = batch.iter().zip(&got).filter(is_right).count();
    (right as u64, batch.len() as u64)
}

/// How many rows of a walk are right, each in its place, and how many there should be. The value of another
/// thread's entry is not known, only its length.
fn walk(
    subject: &impl Subject,
    work: &Work,
    known: &Known,
    prefix: &[u8],
    first: u32,
    rows: u32,
) -> (u64, u64) {
    let there = |entry: &u32| known.writes_of(*entry) != Some(0);
    let mut expected = (first..work.case.entries).filter(there).take(rows as usize);
    let (mut right, mut wrong, mut stray) = (0_u64, 0_u64, 0_u64);
    subject.walk(prefix, rows, &mut |key, value| {
        let Some(entry) = expected.next() else { return stray += 1 };
        let same_value = match known.writes_of(entry) {
            Some(writes) => value == work.value(entry, writes),
            None => value.len() == work.case.value_bytes as usize,
        };
        if same_value && key == work.key(entry) { right += 1 } else { wrong += 1 }
    });
    let wanted = right + wrong + expected.count() as u64;
    (right.saturating_sub(stray), wanted)
}

/// CPU time of the calling thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// A directory of our own below the system's temporary one, removed at the end.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Result<Self> {
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
    use std::collections::BTreeMap;
    use std::sync::{Mutex, PoisonError};

    use clap::ValueEnum;

    use super::*;
    use crate::args::KeyShape;

    /// A map that does what a broken memtable would do.
    #[derive(Default)]
    struct Broken {
        rows: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
        /// Changes are forgotten from now on.
        deaf: bool,
        shows_one_more: bool,
        hides_first: bool,
    }

    impl Broken {
        fn rows(&self) -> std::sync::MutexGuard<'_, BTreeMap<Vec<u8>, Vec<u8>>> {
            self.rows.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl Subject for Broken {
        fn put(&self, key: &[u8], value: &[u8]) -> bool {
            if !self.deaf {
                self.rows().insert(key.to_vec(), value.to_vec());
            }
            true
        }

        fn put_all(&self, entries: &[(&[u8], &[u8])]) -> bool {
            entries.iter().all(|(key, value)| self.put(key, value))
        }

        fn get_all(&self, keys: &[&[u8]]) -> Vec<Option<Slice>> {
            let rows = self.rows();
            keys.iter().map(|&key| rows.get(key).map(|value| Slice::copy_of(value))).collect()
        }

        fn delete(&self, key: &[u8]) -> bool {
            if !self.deaf {
                self.rows().remove(key);
            }
            true
        }

        fn holds(&self, key: &[u8], value: Option<&[u8]>) -> bool {
            self.rows().get(key).map(Vec::as_slice) == value
        }

        fn walk(&self, prefix: &[u8], rows: u32, see: &mut dyn FnMut(&[u8], &[u8])) {
            let shown = self.rows();
            let from = shown.range(prefix.to_vec()..).skip(usize::from(self.hides_first));
            let behind = from.take_while(|(key, _)| key.starts_with(prefix));
            behind.take(rows as usize).for_each(|(key, value)| see(key, value));
            if self.shows_one_more {
                see(b"stray", b"");
            }
        }
    }

    fn work(entries: u32, threads: u32, mixes: &[Mix]) -> Work {
        let case = Case { entries, keys: KeyShape::Random, value_bytes: 64, threads, batch: 1 };
        Work::new(case, mixes)
    }

    fn counted(subject: &Broken, work: &Work) -> (u64, u64) {
        let mut tally = Tally::default();
        tally.round(subject, work, || {});
        (tally.ok, tally.total)
    }

    #[test]
    fn a_right_map_answers_everything_right_however_many_threads_ask() {
        for threads in [1, 2, 3] {
            let work = work(200, threads, Mix::value_variants());
            let (ok, total) = counted(&Broken::default(), &work);
            assert_eq!(ok, total, "{threads}");
            assert!(total > 1600, "{total}");
        }
    }

    #[test]
    fn answers_to_batches_are_checked_as_single_ones_are() {
        for batch in [2, 7, 1000] {
            let case =
                Case { entries: 200, keys: KeyShape::Random, value_bytes: 64, threads: 2, batch };
            let work = Work::new(case, Mix::value_variants());
            let single = self::work(200, 2, Mix::value_variants());
            let (ok, total) = counted(&Broken::default(), &work);
            assert_eq!((ok, total), counted(&Broken::default(), &single), "{batch}");
            assert_eq!(ok, total, "{batch}");
            let deaf = Broken { deaf: true, ..Broken::default() };
            let (ok, total) = counted(&deaf, &work);
            assert!(ok < total, "{batch}");
        }
    }

    #[test]
    fn a_scan_counts_only_rows_in_their_place() {
        let work = work(10, 1, &[Mix::Load]);
        let mut known = vec![Known::nothing(work.case, 0)];
        let (_, load) = work.mixes().next().expect("one mix");
        let mut subject = Broken::default();
        run(&subject, &work, load, &mut known);
        let scan = |subject: &Broken| walk(subject, &work, &known[0], b"", 0, 10);
        assert_eq!(scan(&subject), (10, 10));
        subject.shows_one_more = true;
        assert_eq!(scan(&subject), (9, 10));
        (subject.shows_one_more, subject.hides_first) = (false, true);
        assert_eq!(scan(&subject), (0, 10), "all are displaced");
    }

    #[test]
    fn a_memtable_that_forgets_changes_is_found_out() {
        let work = work(70, 1, &[Mix::Load, Mix::Read, Mix::Miss, Mix::Scan]);
        let mut known = vec![Known::nothing(work.case, 0)];
        let mut subject = Broken::default();
        for (_, streams) in work.mixes() {
            let pass = run(&subject, &work, streams, &mut known);
            assert_eq!((pass.ok, pass.total), (70, 70));
        }
        subject.deaf = true;
        let mut tally = Tally::default();
        tally.change(&subject, &work, Known::joined(work.case, &known));
        assert!(tally.ok < tally.total);
    }

    #[test]
    fn the_spread_of_figures_is_their_quartiles() {
        let spread = Spread::of(vec![5.0, 1.0, 4.04, 2.0, 3.0]);
        assert_eq!(spread, Spread { median: 3.0, low: 2.0, high: 4.0 });
        assert_eq!(Spread::of(vec![7.0]), Spread { median: 7.0, low: 7.0, high: 7.0 });
        let twice = Spread { median: 3.6, ..spread };
        assert_eq!((spread.apart_from(twice), twice.apart_from(spread)), (20.0, 20.0));
    }

    #[test]
    fn the_clock_of_a_thread_stands_while_the_thread_waits() {
        let (before, begin) = (thread_time(), Instant::now());
        let other = std::thread::spawn(|| {
            let mut sum = 0_u64;
            while thread_time() < Duration::from_millis(20) {
                sum = std::hint::black_box(sum + 1);
            }
        });
        other.join().expect("it ends");
        assert!(begin.elapsed() >= Duration::from_millis(20));
        assert!(thread_time() - before < Duration::from_millis(20));
    }
}
