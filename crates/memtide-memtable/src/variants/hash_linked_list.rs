//! `hash_linked_list`: a hash table of keys, each with the list of its versions.
//!
//! ```text
//! link word          0       1       2
//! of a key's first   older   next    hash    next and hash belong to the table (crate::buckets)
//! of later versions  older
//! ```
//!
//! Point reads and writes are O(1); an overwrite touches its key's list alone. Order is made on demand
//! (`crate::view`), so scans between writes cost a sort of what came since and a merge; and a walk over the whole
//! table to find what that is, unless it is so little that `crate::recent` has it.
//!
//! A get never waits, neither for the writer nor for another reader, and a seek waits
//! at most for another reader that builds the view.
//!
//! Choose it for point reads, counters, sessions; not for scans while writing.

use memtide_base::SeqNo;
use memtide_base::sync::Arc;
use memtide_base::sync::atomic::{AtomicU32, Ordering};

use crate::arena::{Arena, Ref, Slab};
use crate::buckets::{self, Buckets};
use crate::contract::{
    Ahead, BatchShape, Cost, Descriptor, Inserted, LookupKey, MemIndex, NewEntry, Pos, Seek, Walk,
};
use crate::meter::HeapMeter;
use crate::recent::Recent;
use crate::view::{self, LatestView};
use crate::{chain, skl, view_cursor};

/// The link words of the table begin behind `older`.
const TABLE_LINK: u32 = 1;
/// Keys for each four buckets: a get looks at fewer than two on the average.
const LOAD: u64 = 6;

#[derive(Debug)]
pub(crate) struct HashLinkedList {
    table: Buckets,
    /// The record inserted last; whatever was inserted up to it is in its list.
    last: AtomicU32,
    recent: Recent,
    latest: LatestView,
    meter: Arc<HeapMeter>,
}

impl HashLinkedList {
    pub(crate) fn new(meter: &Arc<HeapMeter>) -> Self {
        Self {
            table: Buckets::new(TABLE_LINK, LOAD),
            last: AtomicU32::new(0),
            recent: Recent::new(),
            latest: LatestView::default(),
            meter: Arc::clone(meter),
        }
    }

    /// The records behind `known`.
    fn since(&self, arena: &Arena, known: Option<Ref>) -> Vec<Ref> {
        if let Some(refs) = self.recent.since(known) {
            return refs;
        }
        let mut refs = Vec::new();
        self.table.for_each(arena, |node| {
            let versions = std::iter::successors(Some(node), |&at| chain::older(arena, at));
            let listed =
                if cfg!(plant = "hash_linked_list_lists_one_version") { 1 } else { usize::MAX };
            refs.extend(versions.filter(|&at| Some(at) > known).take(listed));
        });
        refs
    }

    fn last(&self) -> Option<Ref> {
        // Acquire pairs with the Release in `insert`.
        Ref::from_word(self.last.load(Ordering::Acquire))
    }
}

impl MemIndex for HashLinkedList {
    fn descriptor(&self) -> Descriptor {
        Descriptor {
            insert: Cost::Constant,
            get: Cost::Constant,
            seek: Cost::SortOnDemand,
            step: Cost::Constant,
        }
    }

    fn link_words(&self, _hash: u64) -> u32 {
        TABLE_LINK + buckets::LINK_WORDS
    }

    fn index_bytes_max(&self, arena: &Arena, shape: &BatchShape) -> u64 {
        self.table.bytes_max(arena, shape)
    }

    fn view_bytes_max(&self, records: u64) -> u64 {
        view::view_bytes(records)
    }

    fn insert(&self, arena: &Arena, slab: &mut Slab<'_>, entry: &NewEntry<'_>) -> Inserted {
        let (at, inserted) = if let Some(node) = self.table.find(arena, &entry.lookup()) {
            let others = chain::older(arena, node);
            if arena.seq(node) == entry.seq || chain::contains(arena, others, entry.seq) {
                return Inserted::Duplicate;
            }
            let version = slab.record(1, entry);
            chain::link(arena, arena.link(node, 0), version);
            (version, Inserted::NewVersion)
        } else {
            let node = slab.record(self.link_words(entry.hash), entry);
            if cfg!(plant = "hash_linked_list_tells_before_it_links") {
                self.last.store(node.word(), Ordering::Release);
            }
            self.table.link(arena, slab, node, entry.hash);
            (node, Inserted::NewKey)
        };
        debug_assert!(self.last() < Some(at), "refs rise in the order of inserts");
        self.recent.push(at);
        // Release pairs with the Acquire in `last`: who sees it finds it in its list.
        self.last.store(at.word(), Ordering::Release);
        inserted
    }

    fn get(&self, arena: &Arena, k: &LookupKey<'_>, below: SeqNo) -> Option<Ref> {
        let node = self.table.find(arena, k)?;
        if cfg!(plant = "hash_linked_list_shows_the_first_version") && arena.seq(node) < below {
            return Some(node);
        }
        skl::newest_version(arena, node, below)
    }

    fn warm_from(&self) -> u64 {
        4 << 20
    }

    fn warm(&self, arena: &Arena, keys: &[LookupKey<'_>], _ahead: Ahead) {
        self.table.warm(arena, keys);
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
        self.table.check(arena)?;
        let (mut found, mut last) = (Ok(0), None);
        self.table.for_each(arena, |node| {
            let versions = skl::check_versions(arena, node);
            if let Ok(sum) = found {
                found = versions.map(|count| sum + count);
            }
            let refs = std::iter::successors(Some(node), |&at| chain::older(arena, at));
            last = last.max(refs.max());
        });
        match found? {
            found if found == records => {}
            found => {
                return Err(format!("{records} records were inserted, the lists hold {found}"));
            }
        }
        match self.last() {
            told if told == last => Ok(()),
            told => Err(format!("{last:?} was inserted last, not {told:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::MemtableType;
    use crate::variants::{model_test as model, warm_test};

    #[test]
    fn an_overwrite_takes_its_record_and_one_word() {
        let rig = model::Rig::new(HashLinkedList::new);
        (0..100).for_each(|seq| rig.put(&seq.to_string(), seq));
        let (used, keys) = (rig.arena.used(), rig.index.table.keys());
        rig.put("77", 100);
        // Header of eight bytes, two of key, padded; the word of the list; the alignment of the next slab.
        assert!(rig.arena.used() - used <= 8 + 4 + 4 + 4);
        assert_eq!((rig.index.table.keys(), keys), (100, 100));
        assert_eq!(rig.seq_of("77", SeqNo::MAX), Some(100));
        assert_eq!(rig.seq_of("77", 100), Some(77));
    }

    #[test]
    fn a_walk_ahead_ends_at_the_record_of_its_key() {
        // Heads that differ, and heads that say nothing.
        for prefix in ["", "tide/high/"] {
            warm_test::walks_end_at_the_records(&model::Rig::new(HashLinkedList::new), prefix);
        }
    }

    #[test]
    fn random_writes_match_a_model() {
        model::agrees(MemtableType::HashLinkedList);
    }
}
