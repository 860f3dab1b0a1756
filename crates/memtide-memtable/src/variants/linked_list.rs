//! `linked_list`: records in order of arrival behind fingerprints. The smallest of the eight.
//!
//! ```text
//! newest -> chunk -> chunk -> ... -> chunk of 16      (crate::chunk)
//! ```
//!
//! A list of chunks, newest first; a chunk holds up to half of what is older and 8,192 at most, so a
//! tiny table stays tiny and a large one has few. An insert appends in O(1). A get asks each chunk's filter,
//! compares tags from the newest on where it agrees (`crate::tags`), and stops at the first chunk that has
//! nothing newer than what was found. Order is made on demand (`crate::view`).
//!
//! Readers never wait for the writer: chunks are linked whole and only ever filled further, an entry counts
//! once its chunk counts it.
//!
//! Choose it for small tables, many keyspaces, queues and logs: most data per flush. Beyond some megabytes
//! its O(n) reads show.

use memtide_base::SeqNo;
use memtide_base::sync::Arc;
use memtide_base::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::arena::{Arena, Ref, Slab};
use crate::chunk::{self, Best, CAPACITY_MIN, Chunk};
use crate::contract::{
    BatchShape, Cost, Descriptor, Inserted, LookupKey, MemIndex, NewEntry, Pos, Seek, Walk,
};
use crate::meter::HeapMeter;
use crate::view::{self, LatestView};
use crate::view_cursor;

const CAPACITY_MAX: u64 = 8192;
/// A new chunk holds one entry for so many older ones.
const OLDER_PER_ENTRY: u64 = 2;

#[derive(Debug)]
pub(crate) struct LinkedList {
    /// The link to the newest chunk.
    newest: AtomicU64,
    /// The record inserted last.
    last: AtomicU32,
    count: AtomicU64,
    latest: LatestView,
    meter: Arc<HeapMeter>,
}

impl LinkedList {
    pub(crate) fn new(meter: &Arc<HeapMeter>) -> Self {
        Self {
            newest: AtomicU64::new(0),
            last: AtomicU32::new(0),
            count: AtomicU64::new(0),
            latest: LatestView::default(),
            meter: Arc::clone(meter),
        }
    }

    /// The chunks, newest first.
    fn chunks<'a>(&self, arena: &'a Arena) -> impl Iterator<Item = Chunk<'a>> + use<'a> {
        // Acquire pairs with the Release in `chunk_with_room`: the chunk is whole.
        let newest = Chunk::follow(arena, self.newest.load(Ordering::Acquire));
        std::iter::successors(newest, move |chunk| Chunk::follow(arena, chunk.older()))
    }

    /// The newest chunk, a new one if it was full.
    fn chunk_with_room<'a>(&self, arena: &'a Arena, slab: &mut Slab<'_>) -> Chunk<'a> {
        let newest = self.chunks(arena).next();
        if let Some(chunk) = newest.filter(|chunk| !chunk.is_full()) {
            return chunk;
        }
        let capacity = capacity_behind(self.count.load(Ordering::Relaxed));
        let (at, chunk) = Chunk::carve(slab, arena, capacity);
        let older = self.newest.load(Ordering::Relaxed);
        let newest = newest.filter(|_| !cfg!(plant = "linked_list_forgets_older_seqs"));
        chunk.restart(older, newest.map_or(0, |chunk| chunk.seq_max()));
        self.newest.store(chunk.link(at), Ordering::Release);
        chunk
    }

    /// Whether this very version is here. O(1) for one above all others.
    fn contains(&self, arena: &Arena, k: &LookupKey<'_>, seq: SeqNo) -> bool {
        let rising = self.chunks(arena).next().is_none_or(|chunk| chunk.seq_max() < seq);
        let found = || self.get(arena, k, seq.saturating_add(1));
        !rising && found().is_some_and(|at| arena.seq(at) == seq)
    }

    /// The records behind `known`, newest first.
    fn since(&self, arena: &Arena, known: Option<Ref>) -> Vec<Ref> {
        let newest_first = self.chunks(arena).flat_map(|chunk| chunk.refs().rev());
        newest_first.take_while(|&at| Some(at) > known).collect()
    }

    fn last(&self) -> Option<Ref> {
        Ref::from_word(self.last.load(Ordering::Acquire))
    }
}

/// Capacity of a chunk in front of `count` entries.
fn capacity_behind(count: u64) -> u64 {
    let share = (count / OLDER_PER_ENTRY).clamp(CAPACITY_MIN, CAPACITY_MAX);
    1 << share.ilog2()
}

impl MemIndex for LinkedList {
    fn descriptor(&self) -> Descriptor {
        Descriptor {
            insert: Cost::Constant,
            get: Cost::Linear,
            seek: Cost::SortOnDemand,
            step: Cost::Constant,
        }
    }

    fn link_words(&self, _hash: u64) -> u32 {
        0
    }

    fn index_bytes_max(&self, arena: &Arena, shape: &BatchShape) -> u64 {
        let mut count = self.count.load(Ordering::Relaxed);
        let end = count + shape.entries;
        count += self.chunks(arena).next().map_or(0, |chunk| chunk.room());
        let mut bytes = 0;
        while count < end {
            let capacity = capacity_behind(count);
            bytes += Chunk::bytes_max(capacity);
            count += capacity;
        }
        bytes
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
        self.chunk_with_room(arena, slab).push(entry, at);
        self.count.store(self.count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        // Pairs with the Acquire in `last`: who sees it finds it in its chunk.
        self.last.store(at.word(), Ordering::Release);
        Inserted::Appended
    }

    fn get(&self, arena: &Arena, k: &LookupKey<'_>, below: SeqNo) -> Option<Ref> {
        let mut best: Best = None;
        for chunk in self.chunks(arena) {
            if chunk.ends_search(best) {
                break;
            }
            chunk.search(arena, k, below, &mut best);
        }
        best.map(|(_, at)| at)
    }

    fn seek(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, to: Seek<'_>) {
        let since = |known| self.since(arena, known);
        let view = self.latest.at(arena, &self.meter, self.last(), since);
        view_cursor::seek(arena, pos, view, below, to);
    }

    fn walk(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, step: Walk) -> bool {
        view_cursor::walk(arena, pos, below, step)
    }

    fn check(&self, arena: &Arena, records: u64) -> Result<(), String> {
        let (mut tagged, mut newer) = (Vec::new(), SeqNo::MAX);
        for (index, chunk) in self.chunks(arena).enumerate() {
            chunk.check(arena)?;
            if chunk.seq_max() > newer {
                return Err(format!("chunk {index} has newer records than the one before"));
            }
            if index > 0 && !chunk.is_full() {
                return Err(format!("chunk {index} from the newest is not full"));
            }
            newer = chunk.seq_max();
            tagged.extend(chunk.tagged());
        }
        let found = tagged.len() as u64;
        if found != records || found != self.count.load(Ordering::Acquire) {
            return Err(format!("{records} records were inserted, the chunks hold {found}"));
        }
        let mut refs: Vec<_> = tagged.iter().map(|&(at, _)| at).collect();
        view::sort(arena, &mut refs);
        view::check_order(arena, &refs)?;
        chunk::check_tags(arena, tagged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::MemtableType;
    use crate::variants::{model_test as model, race_test};

    #[test]
    fn chunks_grow_with_the_table() {
        let rig = model::Rig::new(LinkedList::new);
        assert_eq!(rig.arena.used(), 0, "an empty list holds nothing");
        for seq in 0..5000 {
            rig.put(&seq.to_string(), seq);
            if seq % 97 == 0 {
                assert_eq!(rig.index.check(&rig.arena, seq + 1), Ok(()));
            }
        }
        let chunks: Vec<_> =
            rig.index.chunks(&rig.arena).map(|chunk| chunk.refs().count()).collect();
        assert_eq!(chunks.last(), Some(&16));
        assert!(chunks[1..].is_sorted_by(|newer, older| newer >= older), "{chunks:?}");
        assert!(chunks.len() < 60, "{chunks:?}");
    }

    #[test]
    fn an_old_version_that_comes_late_does_not_hide_a_newer_one() {
        let rig = model::Rig::new(LinkedList::new);
        rig.put("k", 1000);
        (0..500).for_each(|seq| rig.put(&format!("other{seq}"), 2000 + seq));
        rig.put("k", 10);
        assert_eq!(rig.seq_of("k", SeqNo::MAX), Some(1000));
        assert_eq!(rig.seq_of("k", 1000), Some(10));
        assert_eq!(rig.seq_of("k", 10), None);
    }

    #[test]
    fn chunks_of_late_versions_do_not_hide_a_newer_one_that_came_early() {
        let rig = model::Rig::new(LinkedList::new);
        rig.put("k", 1000);
        (0..500).for_each(|seq| rig.put(&format!("other{seq}"), seq));
        rig.put("k", 600);
        assert_eq!(rig.seq_of("k", SeqNo::MAX), Some(1000));
        assert_eq!(rig.seq_of("k", 1000), Some(600));
        assert_eq!(rig.index.check(&rig.arena, 502), Ok(()));
    }

    #[test]
    fn readers_beside_the_writer_see_what_is_published() {
        for _ in 0..4 {
            race_test::readers_see_what_is_published(&model::Rig::new(LinkedList::new), 5000);
        }
    }

    #[test]
    fn random_writes_match_a_model() {
        model::agrees(MemtableType::LinkedList);
    }
}
