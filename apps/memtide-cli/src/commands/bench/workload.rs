//! What is done with a memtable: keys, values, and the operations of each mix, all drawn before anything is
//! timed.
//!
//! Entries are numbered in the order of their keys. An entry has the same key in every run, and its value is a
//! function of its number and of how often it was written. So nothing but a count for each entry has to be
//! remembered to know every right answer, and neither lookups in a model nor the building of keys is timed.
//!
//! With several threads, thread `p` of `n` puts and gets the entries `e` with `e % n == p` and no others: all
//! threads work on one memtable and on neighbouring keys, and each still knows its right answers. It walks
//! over the entries of all.

use crate::args::{KeyShape, Mix};

/// Any number: the same in every run.
const SEED: u64 = 0x6D65_6D74_6964_6521;
/// Operations of a round in one mix, beyond which more would only take longer. Loads are never cut.
const OPERATIONS_MAX: usize = 200_000;
/// As above, for walks.
const WALKS_MAX: usize = 20_000;
/// A prefix is as long as it can be with this many keys behind it, and never empty.
const PREFIX_ENTRIES_WANTED: u32 = 16;
/// A prefix scan ends after so many.
const PREFIX_ENTRIES_MAX: u32 = 50;
/// Exponent of the Zipf distribution, as in YCSB.
const ZIPF_EXPONENT: f64 = 0.99;

/// The conditions of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) entries: u32,
    pub(super) keys: KeyShape,
    pub(super) value_bytes: u32,
    pub(super) threads: u32,
    /// Entries of a load that are put at a time, and of reads and misses that are got.
    pub(super) batch: u32,
}

/// One operation. Entries are named by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Put(u32),
    Get(u32),
    /// Gets a key that is not there.
    Miss,
    /// Walks over everything.
    Scan,
    /// Walks over the keys with a prefix, from the first of them on, `rows` at most.
    Walk {
        first: u32,
        rows: u32,
    },
}

/// The operations of one thread in one mix.
#[derive(Debug, Default)]
pub(super) struct Stream {
    steps: Vec<Step>,
    /// The key, or prefix, of each step: read in order, so that fetching them costs next to nothing.
    keys: Keys,
}

impl Stream {
    pub(super) fn steps(&self) -> impl Iterator<Item = (Step, &[u8])> {
        self.steps.iter().enumerate().map(|(index, &step)| (step, self.keys.at(index)))
    }

    fn push(&mut self, step: Step, key: &[u8]) {
        self.steps.push(step);
        self.keys.push(key);
    }
}

/// Everything done under the conditions of one case.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) case: Case,
    /// In order, so that a walk finds the next one beside the last: checking it must not cost more than the
    /// memtable's own step.
    keys: Keys,
    /// The entries in the order in which they are loaded.
    loads: Vec<u32>,
    values: Values,
    /// For each mix, a stream for each thread.
    mixes: Vec<(Mix, Vec<Stream>)>,
}

impl Work {
    /// Draws the work of `case`, with the operations of `mixes`.
    pub(super) fn new(case: Case, mixes: &[Mix]) -> Self {
        let mut drawn = Keys::default();
        for number in 0..case.entries {
            make_key(case.keys, present(number), |key| drawn.push(key));
        }
        let mut order: Vec<u32> = (0..case.entries).collect();
        order.sort_unstable_by(|&a, &b| drawn.at(a as usize).cmp(drawn.at(b as usize)));
        let mut keys = Keys::default();
        let mut loads = vec![0; order.len()];
        for (entry, &number) in (0..).zip(&order) {
            keys.push(drawn.at(number as usize));
            loads[number as usize] = entry;
        }
        let values = Values::new(case.value_bytes as usize);
        let mut work = Self { case, keys, loads, values, mixes: Vec::new() };
        work.mixes = mixes
            .iter()
            .map(|&mix| (mix, (0..case.threads).map(|part| work.stream(mix, part)).collect()))
            .collect();
        work
    }

    /// The mixes, each with a stream for each thread.
    pub(super) fn mixes(&self) -> impl Iterator<Item = (Mix, &[Stream])> {
        self.mixes.iter().map(|(mix, streams)| (*mix, &streams[..]))
    }

    pub(super) fn key(&self, entry: u32) -> &[u8] {
        self.keys.at(entry as usize)
    }

    /// The value of an entry after so many writes.
    pub(super) fn value(&self, entry: u32, writes: u32) -> &[u8] {
        self.values.of(entry, writes)
    }

    /// Bytes of all keys and values.
    pub(super) fn payload(&self) -> u64 {
        self.keys.bytes.len() as u64
            + u64::from(self.case.entries) * u64::from(self.case.value_bytes)
    }

    /// Puts of all mixes together.
    pub(super) fn writes(&self) -> u64 {
        let steps = self.mixes.iter().flat_map(|(_, streams)| streams).flat_map(|one| &one.steps);
        steps.filter(|step| matches!(step, Step::Put(_))).count() as u64
    }

    fn stream(&self, mix: Mix, part: u32) -> Stream {
        let Case { entries, threads, keys, .. } = self.case;
        let mut random = Random(SEED ^ u64::from(mix as u32) << 32 ^ u64::from(part));
        let mut own: Vec<u32> = (part..entries).step_by(threads as usize).collect();
        let mut stream = Stream::default();
        if mix == Mix::Load {
            let own = self.loads.iter().filter(|&&entry| entry % threads == part);
            own.for_each(|&entry| stream.push(Step::Put(entry), self.key(entry)));
            return stream;
        }
        if mix == Mix::Scan {
            stream.push(Step::Scan, b"");
            return stream;
        }
        random.shuffle(&mut own);
        let share = |most: usize| own.len().min(most.div_ceil(threads as usize));
        let zipf = Zipf::new(own.len(), ZIPF_EXPONENT);
        let count = match mix {
            Mix::PrefixScan | Mix::ScanWrite => share(WALKS_MAX),
            _ => share(OPERATIONS_MAX),
        };
        for &next in &own[..count] {
            let any = own[random.below(own.len())];
            let percent = random.below(100);
            match mix {
                Mix::Load | Mix::Scan => unreachable!("they were dealt with above"),
                Mix::Read => stream.push(Step::Get(next), self.key(next)),
                Mix::Miss => make_key(keys, absent(next), |key| stream.push(Step::Miss, key)),
                Mix::ReadMostly if percent < 95 => stream.push(Step::Get(any), self.key(any)),
                Mix::ReadWrite if percent < 50 => stream.push(Step::Get(any), self.key(any)),
                Mix::PrefixScan => self.push_walk(&mut stream, any),
                Mix::ScanWrite if percent < 95 => self.push_walk(&mut stream, any),
                Mix::ReadMostly | Mix::ReadWrite | Mix::ScanWrite => {
                    stream.push(Step::Put(any), self.key(any));
                }
                Mix::OverwriteZipf => {
                    let entry = own[zipf.draw(&mut random)];
                    stream.push(Step::Put(entry), self.key(entry));
                }
            }
        }
        stream
    }

    /// Adds a walk over the keys that share the longest prefix with `entry` that is not too rare.
    fn push_walk(&self, stream: &mut Stream, entry: u32) {
        let key = self.key(entry);
        for len in (1..key.len()).rev() {
            let prefix = &key[..len];
            let first = self.first_where(0, |other| other >= prefix);
            let rows = self.first_where(first, |other| !other.starts_with(prefix)) - first;
            if rows >= PREFIX_ENTRIES_WANTED || len == 1 {
                let rows = rows.min(PREFIX_ENTRIES_MAX);
                return stream.push(Step::Walk { first, rows }, prefix);
            }
        }
    }

    /// The first entry from `from` on whose key has a property that all behind it have too.
    fn first_where(&self, from: u32, has: impl Fn(&[u8]) -> bool) -> u32 {
        let (mut low, mut high) = (from, self.case.entries);
        while low < high {
            let middle = u32::midpoint(low, high);
            if has(self.key(middle)) { high = middle } else { low = middle + 1 }
        }
        low
    }
}

/// How often each entry was written, as far as one thread knows; 0 means that it is not there.
#[derive(Debug)]
pub(super) struct Known {
    part: u32,
    parts: u32,
    writes: Vec<u32>,
}

impl Known {
    /// What thread `part` of a work knows before it begins.
    pub(super) fn nothing(case: Case, part: u32) -> Self {
        let own = (part..case.entries).step_by(case.threads as usize).count();
        Self { part, parts: case.threads, writes: vec![0; own] }
    }

    /// What is known when all threads are done.
    pub(super) fn joined(case: Case, all: &[Self]) -> Self {
        let writes = (0..case.entries)
            .map(|entry| all[(entry % case.threads) as usize].writes_of(entry))
            .map(|writes| writes.expect("each part knows its own"));
        Self { part: 0, parts: 1, writes: writes.collect() }
    }

    /// `None` for an entry of another thread.
    pub(super) fn writes_of(&self, entry: u32) -> Option<u32> {
        (entry % self.parts == self.part).then(|| self.writes[(entry / self.parts) as usize])
    }

    /// Counts a write of an entry of this thread.
    pub(super) fn wrote(&mut self, entry: u32) -> u32 {
        let writes = &mut self.writes[(entry / self.parts) as usize];
        *writes += 1;
        *writes
    }

    pub(super) fn deleted(&mut self, entry: u32) {
        self.writes[(entry / self.parts) as usize] = 0;
    }
}

/// Keys one behind the other.
#[derive(Debug, Default)]
struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Keys {
    fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }

    fn at(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }
}

/// The number of an entry's key. Between any two there is one of a key that is never put.
fn present(entry: u32) -> u64 {
    u64::from(entry) * 2
}

fn absent(entry: u32) -> u64 {
    present(entry) + 1
}

/// Makes the key of a number; different numbers have different keys.
fn make_key(shape: KeyShape, number: u64, mut take: impl FnMut(&[u8])) {
    // One number for each, as the mixing can be undone.
    let scattered = mixed(number.wrapping_add(SEED));
    match shape {
        KeyShape::Random => {
            let mut key = [0; 16];
            key[..8].copy_from_slice(&scattered.to_be_bytes());
            key[8..].copy_from_slice(&mixed(scattered).to_be_bytes());
            take(&key);
        }
        KeyShape::Sequential => take(format!("{number:016}").as_bytes()),
        KeyShape::SharedPrefix => {
            let tenant = mixed(scattered) % 16;
            take(
                format!("tenant/{tenant:04}/region/eu-west-1/collections/orders/{scattered:016x}")
                    .as_bytes(),
            );
        }
        KeyShape::Url => {
            let pick = |shift: u32, words: [&'static str; 8]| words[below(scattered >> shift, 8)];
            let host = pick(0, ["news", "shop", "blog", "wiki", "maps", "mail", "docs", "forum"]);
            let country = pick(3, ["org", "com", "net", "de", "fr", "jp", "io", "co.uk"]);
            let section = pick(
                6,
                ["articles", "users", "products", "search", "archive", "tags", "media", "threads"],
            );
            let year = 2010 + (scattered >> 9) % 16;
            let adjective = pick(
                13,
                ["quiet", "golden", "northern", "rising", "early", "deep", "silver", "open"],
            );
            let noun = pick(
                16,
                ["harbour", "current", "moon", "shore", "tide", "estuary", "lantern", "gull"],
            );
            take(
                format!("https://{host}.example.{country}/{section}/{year}/{adjective}-{noun}-{number:09}")
                    .as_bytes(),
            );
        }
    }
}

/// Values as windows of random bytes that fit a first-level cache, so that making them costs nothing.
#[derive(Debug)]
struct Values {
    bytes: Vec<u8>,
    len: usize,
}

impl Values {
    /// Windows begin anywhere in so many bytes.
    const STARTS: usize = 1 << 14;

    fn new(len: usize) -> Self {
        let mut random = Random(SEED);
        let words = (Self::STARTS + len).div_ceil(8);
        let bytes = (0..words).flat_map(|_| random.next().to_le_bytes()).collect();
        Self { bytes, len }
    }

    fn of(&self, entry: u32, writes: u32) -> &[u8] {
        let start = below(mixed(u64::from(entry) | u64::from(writes) << 32), Self::STARTS);
        &self.bytes[start..start + self.len]
    }
}

/// SplitMix64 (Steele, Lea, Flood, 2014).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed(self.0)
    }

    /// Below `bound`, evenly enough for a bound far below 2^64.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from((u128::from(self.next()) * bound as u128) >> 64).expect("below a usize")
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Fisher and Yates (1938), as Durstenfeld (1964) does it in place.
    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

fn below(number: u64, bound: usize) -> usize {
    usize::try_from(number % bound as u64).expect("below a usize")
}

/// The finishing step of SplitMix64; a bijection.
fn mixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

/// Ranks drawn from a Zipf distribution by rejection-inversion (Hörmann and Derflinger, 1996): exact, and no
/// table of probabilities.
///
/// A rank k has weight h(k) = k^-s. The area under the continuous h over [k - 1/2, k + 1/2] is drawn by
/// inverting its integral H, which is a little more than h(k), h being convex; what is too much is rejected.
#[derive(Debug)]
struct Zipf {
    ranks: f64,
    exponent: f64,
    /// H at the lower end, lowered so that rank 1 gets exactly its weight.
    low: f64,
    high: f64,
}

impl Zipf {
    /// Ranks from 0 to below `ranks`; `exponent` is not 1.
    fn new(ranks: usize, exponent: f64) -> Self {
        let ranks = ranks as f64;
        let mut zipf = Self { ranks, exponent, low: 0.0, high: 0.0 };
        zipf.low = zipf.integral(1.5) - 1.0;
        zipf.high = zipf.integral(ranks + 0.5);
        zipf
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a rank is a whole number from 1 to `ranks`"
    )]
    fn draw(&self, random: &mut Random) -> usize {
        loop {
            let area = self.low + random.unit() * (self.high - self.low);
            let rank = self.inverse(area).round().clamp(1.0, self.ranks);
            if area >= self.integral(rank + 0.5) - rank.powf(-self.exponent) {
                return rank as usize - 1;
            }
        }
    }

    fn integral(&self, x: f64) -> f64 {
        let power = 1.0 - self.exponent;
        x.powf(power) / power
    }

    fn inverse(&self, area: f64) -> f64 {
        let power = 1.0 - self.exponent;
        (area * power).powf(power.recip())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::ValueEnum;

    use super::*;

    const SHAPES: [KeyShape; 4] =
        [KeyShape::Random, KeyShape::Sequential, KeyShape::SharedPrefix, KeyShape::Url];

    fn case(keys: KeyShape, entries: u32, threads: u32) -> Case {
        Case { entries, keys, value_bytes: 64, threads, batch: 1 }
    }

    #[test]
    fn present_and_absent_keys_all_differ() {
        for shape in SHAPES {
            let mut keys = BTreeSet::new();
            for number in 0..20_000 {
                make_key(shape, number, |key| assert!(keys.insert(key.to_vec()), "{shape:?}"));
            }
        }
    }

    #[test]
    fn keys_are_as_long_as_their_shape_says() {
        for (shape, shortest, longest) in [
            (KeyShape::Random, 16, 16),
            (KeyShape::Sequential, 16, 16),
            (KeyShape::SharedPrefix, 64, 64),
            (KeyShape::Url, 53, 68),
        ] {
            for number in 0..1000 {
                make_key(shape, number, |key| {
                    assert!((shortest..=longest).contains(&key.len()), "{shape:?}: {}", key.len());
                });
            }
        }
    }

    #[test]
    fn every_thread_puts_its_own_entries_and_all_are_put_once() {
        let work = Work::new(case(KeyShape::Url, 101, 4), &[Mix::Load]);
        let (_, streams) = work.mixes().next().expect("one mix");
        let mut put = BTreeSet::new();
        for (part, stream) in (0..).zip(streams) {
            for (step, key) in stream.steps() {
                let Step::Put(entry) = step else { panic!("{step:?}") };
                assert_eq!((entry % 4, work.key(entry)), (part, key));
                assert!(put.insert(entry));
            }
        }
        assert_eq!(put.len(), 101);
    }

    #[test]
    fn mixes_hold_what_their_names_say() {
        let work = Work::new(case(KeyShape::Random, 10_000, 1), Mix::value_variants());
        for (mix, streams) in work.mixes() {
            let count = |wanted: fn(Step) -> bool| {
                streams[0].steps().filter(|&(step, _)| wanted(step)).count()
            };
            let puts = count(|step| matches!(step, Step::Put(_)));
            let gets = count(|step| matches!(step, Step::Get(_)));
            let walks = count(|step| matches!(step, Step::Walk { .. }));
            let misses = count(|step| step == Step::Miss);
            let about = |part: usize, percent: usize| part.abs_diff(percent * 100) < 200;
            let right = match mix {
                Mix::Load | Mix::OverwriteZipf => puts == 10_000,
                Mix::Read => gets == 10_000,
                Mix::Miss => misses == 10_000,
                Mix::Scan => streams[0].steps().eq([(Step::Scan, &b""[..])]),
                Mix::PrefixScan => walks == 10_000,
                Mix::ReadMostly => about(gets, 95) && about(puts, 5),
                Mix::ScanWrite => about(walks, 95) && about(puts, 5),
                Mix::ReadWrite => about(gets, 50) && about(puts, 50),
            };
            assert!(right, "{mix:?}: {puts} puts, {gets} gets, {walks} walks, {misses} misses");
        }
    }

    #[test]
    fn a_walk_begins_at_the_first_key_with_its_prefix() {
        for shape in SHAPES {
            let work = Work::new(case(shape, 3000, 1), &[Mix::PrefixScan]);
            let (_, streams) = work.mixes().next().expect("one mix");
            for (step, prefix) in streams[0].steps() {
                let Step::Walk { first, rows } = step else { panic!("{step:?}") };
                let enough = rows >= 16 || prefix.len() == 1;
                assert!(enough && (1..=50).contains(&rows), "{shape:?}: {rows}");
                let has_prefix = |entry| work.key(entry).starts_with(prefix);
                assert!((first..first + rows).all(has_prefix), "{shape:?}");
                assert!(first == 0 || !has_prefix(first - 1), "{shape:?}");
            }
        }
    }

    #[test]
    fn ranks_come_as_often_as_zipf_says() {
        const DRAWS: usize = 200_000;
        for ranks in [1_usize, 2, 3, 100] {
            let zipf = Zipf::new(ranks, ZIPF_EXPONENT);
            let mut random = Random(7);
            let mut drawn = vec![0_usize; ranks];
            (0..DRAWS).for_each(|_| drawn[zipf.draw(&mut random)] += 1);
            let weight = |rank: usize| (rank as f64 + 1.0).powf(-ZIPF_EXPONENT);
            let all: f64 = (0..ranks).map(weight).sum();
            for (rank, &count) in drawn.iter().enumerate() {
                let expected = DRAWS as f64 * weight(rank) / all;
                // Five standard deviations of a count.
                let bound = 5.0 * expected.sqrt();
                assert!((count as f64 - expected).abs() < bound, "{rank} of {ranks}: {count}");
            }
        }
    }

    #[test]
    fn what_threads_know_joins_to_the_whole() {
        let case = case(KeyShape::Random, 10, 3);
        let mut parts: Vec<Known> = (0..3).map(|part| Known::nothing(case, part)).collect();
        for entry in 0..10 {
            for _ in 0..=entry {
                parts[(entry % 3) as usize].wrote(entry);
            }
        }
        parts[1].deleted(4);
        assert_eq!(parts[1].writes_of(5), None);
        let all = Known::joined(case, &parts);
        let known: Vec<_> = (0..10).map(|entry| all.writes_of(entry)).collect();
        assert_eq!(known, [1, 2, 3, 4, 0, 6, 7, 8, 9, 10].map(Some));
    }
}
