//! `vector`: append, and sorted runs cut from what was appended. The cheapest inserts.
//!
//! ```text
//! tail    up to 512, later 4096 records in order of arrival: blocks of 32, 32, 64, 128 ... (crate::chunk)
//! runs    newest -> run -> run -> ...    each a former tail, sorted                        (crate::run)
//! ```
//!
//! The insert that fills the tail sorts it into a run and starts the tail over; its blocks are used again.
//!
//! Readers never wait for the writer. One word tells how many records the tail has and how many tails were
//! cut before it. A run is linked before its cut is counted, and the cut is counted before a block is written
//! again; so a reader that finds the number of cuts as it was has seen the whole tail, and one that finds it
//! moved finds all that the tail had in the runs it loads from then on. It never begins anew.
//!
//! A get searches the tail by fingerprints, then the runs newest first, and stops where nothing newer can
//! come. Once somebody reads, each cut also merges eight neighbouring runs of one level, at most up to
//! 32,768 records, which bounds both the runs a get looks at and the pause of that insert; a pure load
//! merges nothing. Walks use a merged view of everything (`crate::view`).
//!
//! Choose it for bulk loads with few reads.

use memtide_base::SeqNo;
use memtide_base::sync::Arc;
use memtide_base::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::arena::{Arena, Ref, Slab, word_of};
use crate::chunk::{self, Best, Chunk};
use crate::contract::{
    BatchShape, Cost, Descriptor, Inserted, LookupKey, MemIndex, NewEntry, Pos, Seek, Walk,
};
use crate::key_order;
use crate::meter::HeapMeter;
use crate::run::{FAN_IN, Place, Run, RunKey};
use crate::view::{self, LatestView};
use crate::view_cursor;

/// Tail and run of a table that has at most [`SMALL_TABLE`] records in runs.
const SMALL_RUN: usize = 512;
const SMALL_TABLE: usize = SMALL_RUN * FAN_IN;
/// Tail and run of a larger table: one level above, as if eight small ones had been merged.
const RUN: usize = SMALL_TABLE;
/// Runs of this level are not merged.
const LEVEL_MAX: u32 = 2;
/// Blocks of the tail: 32, 32, 64, ... 2048 records.
const BLOCKS: usize = 8;
const FIRST_BLOCK: usize = 32;
const _: () = assert!(FIRST_BLOCK << (BLOCKS - 1) == RUN, "the blocks hold one tail");

#[derive(Debug)]
pub(crate) struct Vector {
    blocks: [AtomicU32; BLOCKS],
    /// See [`Tail`].
    tail: AtomicU64,
    newest_run: AtomicU32,
    /// The record inserted last.
    last: AtomicU32,
    /// Records in runs.
    sorted: AtomicUsize,
    seq_max: AtomicU64,
    read_seen: AtomicBool,
    /// The newest run of the group that the next cut merges; its bytes are in the reservation.
    merge_due: AtomicU32,
    latest: LatestView,
    meter: Arc<HeapMeter>,
}

/// What the tail is at one moment, in one word: records (low half), cuts before it (high half).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tail(u64);

impl Tail {
    fn len(self) -> usize {
        chunk::half(self.0, 0) as usize
    }

    /// With one record more.
    fn grown(self) -> Self {
        Self(self.0 + 1)
    }

    /// Empty, after one cut more.
    fn cut(self) -> Self {
        Self(u64::from(chunk::half(self.0, 1).wrapping_add(1)) << 32)
    }

    fn is_cut_as(self, other: Self) -> bool {
        self.0 >> 32 == other.0 >> 32
    }

    /// The blocks in use.
    fn blocks(self) -> usize {
        self.len().checked_sub(1).map_or(0, |last| block_of(last) + 1)
    }
}

impl Vector {
    pub(crate) fn new(meter: &Arc<HeapMeter>) -> Self {
        Self {
            blocks: Default::default(),
            tail: AtomicU64::new(0),
            newest_run: AtomicU32::new(0),
            last: AtomicU32::new(0),
            sorted: AtomicUsize::new(0),
            seq_max: AtomicU64::new(0),
            read_seen: AtomicBool::new(false),
            merge_due: AtomicU32::new(0),
            latest: LatestView::default(),
            meter: Arc::clone(meter),
        }
    }

    fn tail(&self) -> Tail {
        Tail(self.tail.load(Ordering::Acquire))
    }

    /// Whether what was read of `tail` since it was loaded was all there. If not, the runs have all of it.
    fn is_still(&self, tail: Tail) -> bool {
        // Acquire loads of blocks before this one pair with the Release stores of a later tail, which
        // come behind the word it is compared with.
        cfg!(plant = "vector_trusts_a_moved_tail") || self.tail().is_cut_as(tail)
    }

    fn last(&self) -> Option<Ref> {
        Ref::from_word(self.last.load(Ordering::Acquire))
    }

    fn sorted(&self) -> usize {
        self.sorted.load(Ordering::Acquire)
    }

    /// The blocks in use by a tail, newest first.
    fn blocks<'a>(&self, arena: &'a Arena, tail: Tail) -> impl Iterator<Item = Chunk<'a>> {
        (0..tail.blocks()).rev().map(|block| {
            let at = Ref::from_word(self.blocks[block].load(Ordering::Acquire));
            let (_, len) = block_span(block);
            Chunk::open(arena, at.expect("a block in use was carved"), len as u64)
        })
    }

    /// The runs, newest first.
    fn runs<'a>(&self, arena: &'a Arena) -> impl Iterator<Item = Run<'a>> + use<'a> {
        let open = |at: Ref| Run::open(arena, at);
        let newest = Ref::from_word(self.newest_run.load(Ordering::Acquire)).map(open);
        std::iter::successors(newest, move |run| run.older().map(open))
    }

    /// The newest version in `tail`, which was loaded after `below` was published, and in the runs.
    fn newest_below(
        &self,
        arena: &Arena,
        tail: Tail,
        k: &LookupKey<'_>,
        below: SeqNo,
    ) -> Option<Ref> {
        let (mut best, mut ended): (Best, bool) = (None, false);
        for block in self.blocks(arena, tail) {
            ended = block.ends_search(best);
            if ended {
                break;
            }
            block.search(arena, k, below, &mut best);
        }
        if ended && self.is_still(tail) {
            return best.map(|(_, at)| at);
        }
        let mut key = None;
        for run in self.runs(arena) {
            if run.ends_search(best) {
                break;
            }
            let k = key.get_or_insert_with(|| RunKey::new(*k));
            run.search(arena, k, below, &mut best);
        }
        best.map(|(_, at)| at)
    }

    /// Whether this very version is here. O(1) for one above all others.
    fn contains(&self, arena: &Arena, k: &LookupKey<'_>, seq: SeqNo) -> bool {
        if self.last().is_none() || seq > self.seq_max.load(Ordering::Acquire) {
            return false;
        }
        let found = self.newest_below(arena, self.tail(), k, seq.saturating_add(1));
        found.is_some_and(|at| arena.seq(at) == seq)
    }

    /// Appends a record to the tail.
    fn push(&self, arena: &Arena, slab: &mut Slab<'_>, entry: &NewEntry<'_>, at: Ref) {
        let tail = self.tail();
        let block = block_of(tail.len());
        let word = &self.blocks[block];
        let (start, len) = block_span(block);
        let chunk = match Ref::from_word(word.load(Ordering::Acquire)) {
            Some(known) => Chunk::open(arena, known, len as u64),
            None => {
                let (carved, chunk) = Chunk::carve(slab, arena, len as u64);
                word.store(carved.word(), Ordering::Release);
                chunk
            }
        };
        if tail.len() == start {
            chunk.restart(0, self.seq_max.load(Ordering::Acquire));
        }
        chunk.push(entry, at);
        let seq_max = self.seq_max.load(Ordering::Relaxed).max(entry.seq);
        self.seq_max.store(seq_max, Ordering::Release);
        self.tail.store(tail.grown().0, Ordering::Release);
    }

    /// Sorts the tail into a run, and merges what is due. Kept out of `insert`, whose frame would else be as
    /// large as the order of a tail.
    #[inline(never)]
    fn cut(&self, arena: &Arena, slab: &mut Slab<'_>) {
        let due = Ref::from_word(self.merge_due.swap(0, Ordering::Relaxed));
        if let Some(newest) = due {
            let merged = Run::merge(slab, arena, newest).at();
            let before = self.runs(arena).find(|run| run.older() == due);
            match before {
                Some(run) => run.set_older(Some(merged)),
                None => self.newest_run.store(merged.word(), Ordering::Release),
            }
        }
        let (tail, level) = (self.tail(), u32::from(self.sorted() >= SMALL_TABLE));
        let len = tail.len();
        let older = Ref::from_word(self.newest_run.load(Ordering::Acquire));
        let place = Place { older, seq_max: self.seq_max.load(Ordering::Acquire), level };
        if cfg!(plant = "vector_empties_the_tail_first") {
            self.tail.store(tail.cut().0, Ordering::Release);
        }
        let (mut lanes, mut spare) = ([0; RUN], [0; RUN]);
        let (lanes, spare) = (&mut lanes[..len], &mut spare[..len]);
        let records = self.blocks(arena, tail).flat_map(|block| block.refs());
        for (lane, at) in lanes.iter_mut().zip(records) {
            *lane = key_order::lane(at);
        }
        key_order::sort(arena, lanes, spare);
        let sorted = lanes.iter().map(|&lane| key_order::record(lane));
        let run = Run::write(slab, arena, place, len, sorted);
        self.newest_run.store(run.at().word(), Ordering::Release);
        self.sorted.store(self.sorted() + len, Ordering::Release);
        // Behind the run, and before any block is written again: see `is_still`.
        self.tail.store(tail.cut().0, Ordering::Release);
    }

    /// The newest of eight neighbouring runs of one level below the last, if reads make merging worth it.
    fn mergeable(&self, arena: &Arena) -> Option<Ref> {
        if !self.read_seen.load(Ordering::Relaxed) {
            return None;
        }
        let (mut group, mut level, mut count) = (None, LEVEL_MAX, 0);
        for run in self.runs(arena) {
            if count == 0 || run.level() != level {
                (group, level, count) = (Some(run.at()), run.level(), 0);
            }
            count += 1;
            if count == FAN_IN && level < LEVEL_MAX {
                return group;
            }
        }
        None
    }

    /// The records behind `known` of `tail` and of the runs.
    fn since(&self, arena: &Arena, tail: Tail, known: Option<Ref>) -> Vec<Ref> {
        let blocks = self.blocks(arena, tail).flat_map(|block| block.refs().rev());
        let mut refs: Vec<_> = blocks.collect();
        if !self.is_still(tail) {
            refs.clear();
        }
        // The newest run may be this very tail, cut meanwhile.
        let tail_start = refs.last().copied();
        for run in self.runs(arena) {
            let mut reaches_known = false;
            refs.extend(run.refs().filter(|&at| {
                reaches_known |= Some(at) <= known;
                Some(at) > known && tail_start.is_none_or(|start| at < start)
            }));
            if reaches_known {
                break;
            }
        }
        refs
    }

    fn note_read(&self) {
        if !self.read_seen.load(Ordering::Relaxed) {
            self.read_seen.store(true, Ordering::Relaxed);
        }
    }

    fn check_tail(&self, arena: &Arena) -> Result<(), String> {
        let (mut tagged, mut newer) = (Vec::new(), self.seq_max.load(Ordering::Acquire));
        let tail = self.tail();
        for (index, block) in self.blocks(arena, tail).enumerate() {
            block.check(arena)?;
            if block.seq_max() > newer || (index > 0 && !block.is_full()) {
                return Err(format!("block {index} from the newest of the tail is wrong"));
            }
            newer = block.seq_max();
            tagged.extend(block.tagged());
        }
        if tagged.len() != tail.len() || tagged.len() >= run_len(self.sorted()) {
            return Err(format!("{} records are in a tail of {}", tagged.len(), tail.len()));
        }
        chunk::check_tags(arena, tagged)
    }
}

/// Records of the next run of a table that has `sorted` in runs.
fn run_len(sorted: usize) -> usize {
    if sorted < SMALL_TABLE { SMALL_RUN } else { RUN }
}

/// The block of the tail's record `index`.
fn block_of(index: usize) -> usize {
    (index / FIRST_BLOCK).checked_ilog2().map_or(0, |bits| bits as usize + 1)
}

/// The first record of a block and how many it holds.
fn block_span(block: usize) -> (usize, usize) {
    match block {
        0 => (0, FIRST_BLOCK),
        _ => (FIRST_BLOCK << (block - 1), FIRST_BLOCK << (block - 1)),
    }
}

impl MemIndex for Vector {
    fn descriptor(&self) -> Descriptor {
        Descriptor {
            insert: Cost::Constant,
            // A binary search in each run, and a load without reads leaves n / 4096 of them.
            get: Cost::Linear,
            seek: Cost::SortOnDemand,
            step: Cost::Constant,
        }
    }

    fn link_words(&self, _hash: u64) -> u32 {
        0
    }

    fn index_bytes_max(&self, arena: &Arena, shape: &BatchShape) -> u64 {
        let (mut tail, mut sorted) = (self.tail().len(), self.sorted());
        let mut left = usize::try_from(shape.entries).expect("targets are 64-bit");
        let (mut bytes, mut longest, mut cuts) = (0, tail, 0);
        while left > 0 {
            let step = left.min(run_len(sorted) - tail);
            (left, tail) = (left - step, tail + step);
            longest = longest.max(tail);
            if tail == run_len(sorted) {
                bytes += Run::bytes_max(tail);
                (sorted, tail, cuts) = (sorted + tail, 0, cuts + 1);
            }
        }
        for (block, word) in self.blocks.iter().enumerate() {
            let (start, len) = block_span(block);
            if start < longest && word.load(Ordering::Relaxed) == 0 {
                bytes += Chunk::bytes_max(len as u64);
            }
        }
        // The first cut of this batch merges what is decided here and no more, so the bound is exact.
        let due = Some(cuts).filter(|&cuts| cuts > 0).and_then(|_| self.mergeable(arena));
        self.merge_due.store(word_of(due), Ordering::Relaxed);
        bytes + due.map_or(0, |newest| Run::merged_bytes_max(arena, newest))
    }

    fn view_bytes_max(&self, records: u64) -> u64 {
        view::view_bytes(records)
    }

    fn insert(&self, arena: &Arena, slab: &mut Slab<'_>, entry: &NewEntry<'_>) -> Inserted {
        if self.contains(arena, &entry.lookup(), entry.seq) {
            return Inserted::Duplicate;
        }
        let at = slab.record(0, entry);
        debug_assert!(self.last() < Some(at), "refs rise in the order of inserts");
        self.push(arena, slab, entry, at);
        // Pairs with the Acquire in `last`: who sees it finds it in the tail or in a run.
        self.last.store(at.word(), Ordering::Release);
        if self.tail().len() == run_len(self.sorted()) {
            self.cut(arena, slab);
        }
        Inserted::Appended
    }

    fn get(&self, arena: &Arena, k: &LookupKey<'_>, below: SeqNo) -> Option<Ref> {
        self.note_read();
        self.newest_below(arena, self.tail(), k, below)
    }

    fn seek(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, to: Seek<'_>) {
        let since = |known| self.since(arena, self.tail(), known);
        let view = self.latest.at(arena, &self.meter, self.last(), since);
        view_cursor::seek(arena, pos, view, below, to);
    }

    fn walk(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, step: Walk) -> bool {
        view_cursor::walk(arena, pos, below, step)
    }

    fn check(&self, arena: &Arena, records: u64) -> Result<(), String> {
        self.check_tail(arena)?;
        let (mut refs, mut newer) = (Vec::new(), SeqNo::MAX);
        for run in self.runs(arena) {
            run.check(arena)?;
            if run.seq_max() > newer || run.len() % SMALL_RUN != 0 {
                return Err(format!("a run of {} up to {} is wrong", run.len(), run.seq_max()));
            }
            newer = run.seq_max();
            refs.extend(run.refs());
        }
        if refs.len() != self.sorted() {
            return Err(format!("{} records are in runs of {}", refs.len(), self.sorted()));
        }
        refs.extend(self.blocks(arena, self.tail()).flat_map(|block| block.refs()));
        if refs.len() as u64 != records {
            return Err(format!("{records} records were inserted, {} are here", refs.len()));
        }
        view::sort(arena, &mut refs);
        view::check_order(arena, &refs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::MemtableType;
    use crate::variants::{model_test as model, race_test};

    fn run_lens(rig: &model::Rig<Vector>) -> Vec<usize> {
        rig.index.runs(&rig.arena).map(|run| run.len()).collect()
    }

    #[test]
    fn blocks_cover_the_tail_without_gap() {
        let mut end = 0;
        for block in 0..BLOCKS {
            let (start, len) = block_span(block);
            assert_eq!((start, block_of(start), block_of(start + len - 1)), (end, block, block));
            end = start + len;
        }
        assert_eq!(end, RUN);
    }

    #[test]
    fn a_load_cuts_runs_and_merges_none_of_them() {
        let rig = model::Rig::new(Vector::new);
        for seq in 0..13_000 {
            rig.put(&(seq * 7919 % 13_000).to_string(), seq);
            if seq % 509 == 0 {
                assert_eq!(rig.index.check(&rig.arena, seq + 1), Ok(()));
            }
        }
        assert_eq!(run_lens(&rig), [4096, 4096, 512, 512, 512, 512, 512, 512, 512, 512]);
        for seq in (0..13_000).step_by(11) {
            let key = (seq * 7919 % 13_000).to_string();
            assert_eq!(rig.seq_of(&key, SeqNo::MAX), Some(seq));
        }
    }

    #[test]
    fn reads_make_cuts_merge_eight_runs_of_a_level() {
        let rig = model::Rig::new(Vector::new);
        (0..4096).for_each(|seq| rig.put(&format!("user{:05}", seq * 31 % 4001), seq));
        assert_eq!(rig.seq_of("user00000", SeqNo::MAX), Some(4001));
        (4096..8192).for_each(|seq| rig.put(&format!("user{:05}", seq * 31 % 4001), seq));
        assert_eq!(run_lens(&rig), [4096, 4096]);
        assert_eq!(rig.index.check(&rig.arena, 8192), Ok(()));
        assert_eq!(rig.seq_of("user00000", SeqNo::MAX), Some(8002));
        assert_eq!(rig.seq_of("user00000", 8002), Some(4001));
        assert_eq!(rig.seq_of("user00000", 4001), Some(0));
        (8192..40_960).for_each(|seq| rig.put(&format!("user{:05}", seq * 31 % 4001), seq));
        assert_eq!(run_lens(&rig), [4096, 4096, 32_768]);
        assert_eq!(rig.index.check(&rig.arena, 40_960), Ok(()));
        assert_eq!(rig.seq_of("user00000", 4001), Some(0));
    }

    #[test]
    fn an_old_version_that_comes_late_does_not_hide_a_newer_one() {
        let rig = model::Rig::new(Vector::new);
        rig.put("k", 1000);
        (0..600).for_each(|seq| rig.put(&format!("other{seq}"), 2000 + seq));
        rig.put("k", 10);
        assert_eq!(rig.seq_of("k", SeqNo::MAX), Some(1000));
        (0..600).for_each(|seq| rig.put(&format!("more{seq}"), 3000 + seq));
        assert_eq!(run_lens(&rig).len(), 2);
        assert_eq!(rig.seq_of("k", SeqNo::MAX), Some(1000));
        assert_eq!(rig.seq_of("k", 1000), Some(10));
        assert_eq!(rig.seq_of("k", 10), None);
    }

    #[test]
    fn readers_beside_the_writer_see_what_is_published() {
        for _ in 0..8 {
            race_test::readers_see_what_is_published(&model::Rig::new(Vector::new), 6000);
        }
        race_test::readers_see_what_is_published(&model::Rig::new(Vector::new), 40_000);
    }

    #[test]
    fn a_reader_that_slept_through_cuts_finds_its_records() {
        for below in [0, 1, 31, 32, 100, 511] {
            let rig = model::Rig::new(Vector::new);
            (0..below).for_each(|seq| rig.put(&seq.to_string(), seq));
            let (tail, newest) = (rig.index.tail(), rig.index.last());
            let mut end = below;
            for more in [1, 411, 20, 100, 512] {
                (end..end + more).for_each(|seq| rig.put(&seq.to_string(), seq));
                end += more;
                for seq in 0..below {
                    let key = seq.to_string();
                    let hash = memtide_base::hash::key_hash(model::SEED, key.as_bytes());
                    let k = LookupKey::new(key.as_bytes(), hash);
                    let found = rig.index.newest_below(&rig.arena, tail, &k, below);
                    assert_eq!(found.map(|at| rig.arena.seq(at)), Some(seq), "{below} of {end}");
                }
                let mut listed = rig.index.since(&rig.arena, tail, None);
                listed.retain(|&at| Some(at) <= newest);
                listed.sort_unstable();
                let seqs = listed.iter().map(|&at| rig.arena.seq(at));
                assert!(seqs.eq(0..below), "{below} of {end}");
            }
        }
    }

    #[test]
    fn random_writes_match_a_model() {
        model::agrees(MemtableType::Vector);
    }
}
