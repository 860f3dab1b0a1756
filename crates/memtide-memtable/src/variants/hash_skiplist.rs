//! `hash_skiplist`: a hash table over the nodes of a skip list. Fast point reads with order at hand.
//!
//! ```text
//! link word            0       1      2     3      then, 64 bits each
//! of a key's first     older   prev   next  hash   next[0]  next[1]  ...    2 and 3: crate::buckets
//! of later versions    older                                                the rest: crate::skl
//! ```
//!
//! A get is O(1) and never enters the list; an overwrite touches the table and its key's chain alone; only
//! a new key is searched for in the list. A cursor walks the list, so nothing is ever sorted.
//!
//! One writer, any number of readers, none of whom waits. A new key is linked into the list, then into the table;
//! its write is published after both, so whatever a get may show a cursor reaches, and the reverse.
//!
//! Choose it for read-heavy loads with some scans. It has the most bytes for each key of the eight.

use memtide_base::SeqNo;

use crate::arena::{Arena, Ref, Slab};
use crate::buckets::{self, Buckets};
use crate::contract::{
    Ahead, BatchShape, Cost, Descriptor, Inserted, LookupKey, MemIndex, NewEntry, Passed, Pos,
    Seek, Walk,
};
use crate::skl::{self, SkipList};

/// Keys for each four buckets: nearly all gets look at one node.
const LOAD: u64 = 3;

#[derive(Debug)]
pub(crate) struct HashSkiplist {
    table: Buckets,
    list: SkipList,
}

impl HashSkiplist {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            table: Buckets::new(skl::ROOM, LOAD),
            list: SkipList::with_room(seed, buckets::LINK_WORDS),
        }
    }
}

impl MemIndex for HashSkiplist {
    fn descriptor(&self) -> Descriptor {
        Descriptor {
            insert: Cost::Logarithmic,
            get: Cost::Constant,
            seek: Cost::Logarithmic,
            step: Cost::Constant,
        }
    }

    fn link_words(&self, hash: u64) -> u32 {
        self.list.link_words(hash)
    }

    fn index_bytes_max(&self, arena: &Arena, shape: &BatchShape) -> u64 {
        if cfg!(plant = "hash_skiplist_forgets_padding") {
            return self.table.bytes_max(arena, shape);
        }
        self.table.bytes_max(arena, shape) + SkipList::bytes_max(shape)
    }

    fn insert(&self, arena: &Arena, slab: &mut Slab<'_>, entry: &NewEntry<'_>) -> Inserted {
        if let Some(node) = self.table.find(arena, &entry.lookup()) {
            return skl::insert_version(arena, slab, entry, node);
        }
        let (inserted, node) = self.list.insert(arena, slab, entry);
        self.table.link(arena, slab, node, entry.hash);
        inserted
    }

    fn get(&self, arena: &Arena, k: &LookupKey<'_>, below: SeqNo) -> Option<Ref> {
        let node = self.table.find(arena, k)?;
        skl::newest_version(arena, node, below)
    }

    fn warm_from(&self) -> u64 {
        8 << 20
    }

    fn warm(&self, arena: &Arena, keys: &[LookupKey<'_>], ahead: Ahead) {
        self.table.warm(arena, keys);
        if ahead == Ahead::Insert {
            self.list.warm(arena, keys);
        }
    }

    fn seek(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, to: Seek<'_>) {
        self.list.seek(arena, pos, below, to);
    }

    fn walk(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, step: Walk) -> bool {
        self.list.walk(arena, pos, below, step)
    }

    fn walk_ahead(
        &self,
        arena: &Arena,
        pos: &mut Pos,
        below: SeqNo,
        step: Walk,
        passed: &mut [Passed],
    ) -> usize {
        self.list.walk_ahead(arena, pos, below, step, passed)
    }

    fn check(&self, arena: &Arena, records: u64) -> Result<(), String> {
        self.table.check(arena)?;
        let mut astray = None;
        self.table.for_each(arena, |node| {
            let key = arena.key(node);
            let k = LookupKey { key, hash: 0, head: arena.head(node) };
            if self.list.node(arena, &k) != Some(node) {
                astray = Some(key);
            }
        });
        if let Some(key) = astray {
            return Err(format!("{key:?} is in the table, not in the list"));
        }
        let nodes = self.list.len(arena);
        if nodes != self.table.keys() {
            return Err(format!(
                "{nodes} keys are in the list, {} in the table",
                self.table.keys()
            ));
        }
        match self.list.check(arena)? {
            found if found == records => Ok(()),
            found => Err(format!("{records} records were inserted, the list holds {found}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::MemtableType;
    use crate::variants::{model_test as model, race_test as race, warm_test};

    #[test]
    fn table_and_list_have_the_same_nodes() {
        let rig = model::Rig::new(|_| HashSkiplist::new(model::SEED));
        for seq in 0..4000 {
            rig.put(&(seq * 7919 % 3000).to_string(), seq);
            if seq % 211 == 0 {
                assert_eq!(rig.index.check(&rig.arena, seq + 1), Ok(()));
            }
        }
        assert_eq!(rig.index.table.keys(), 3000);
        assert_eq!(rig.index.list.len(&rig.arena), 3000);
    }

    #[test]
    fn readers_beside_the_writer_see_what_is_published() {
        let rig = model::Rig::new(|_| HashSkiplist::new(model::SEED));
        race::readers_see_what_is_published(&rig, 20_000);
    }

    #[test]
    fn a_new_key_takes_at_most_44_bytes() {
        let overhead = model::bytes_beside_keys_and_values(MemtableType::HashSkiplist);
        assert!((38.0..44.0).contains(&overhead), "{overhead} B");
    }

    #[test]
    fn a_walk_ahead_ends_at_the_record_of_its_key() {
        // Heads that differ, and heads that say nothing.
        for prefix in ["", "tide/high/"] {
            warm_test::walks_end_at_the_records(
                &model::Rig::new(|_| HashSkiplist::new(model::SEED)),
                prefix,
            );
        }
    }

    #[test]
    fn random_writes_match_a_model() {
        model::agrees(MemtableType::HashSkiplist);
    }
}
