//! `skiplist`: an arena skip list. Even costs for everything, steps to both sides in O(1).
//!
//! The list itself is [`crate::skl`]: many threads insert at once, readers wait for nobody. Choose it when the
//! load is unknown or changes, or comes from many threads.

use memtide_base::SeqNo;

use crate::arena::{Arena, Ref, Slab};
use crate::contract::{
    Ahead, BatchShape, Cost, Descriptor, Inserted, LookupKey, MemIndex, NewEntry, Passed, Pos,
    Seek, Walk,
};
use crate::skl::{self, SkipList};

#[derive(Debug)]
pub(crate) struct Skiplist {
    list: SkipList,
}

impl Skiplist {
    pub(crate) fn new(seed: u64) -> Self {
        Self { list: SkipList::new(seed) }
    }
}

impl MemIndex for Skiplist {
    fn descriptor(&self) -> Descriptor {
        Descriptor {
            insert: Cost::Logarithmic,
            get: Cost::Logarithmic,
            seek: Cost::Logarithmic,
            step: Cost::Constant,
        }
    }

    fn link_words(&self, hash: u64) -> u32 {
        self.list.link_words(hash)
    }

    fn inserts_concurrently(&self) -> bool {
        true
    }

    fn index_bytes_max(&self, _arena: &Arena, shape: &BatchShape) -> u64 {
        SkipList::bytes_max(shape)
    }

    fn insert(&self, arena: &Arena, slab: &mut Slab<'_>, entry: &NewEntry<'_>) -> Inserted {
        self.list.insert(arena, slab, entry).0
    }

    fn get(&self, arena: &Arena, k: &LookupKey<'_>, below: SeqNo) -> Option<Ref> {
        let node = self.list.node(arena, k)?;
        skl::newest_version(arena, node, below)
    }

    fn warm_from(&self) -> u64 {
        8 << 20
    }

    fn warm(&self, arena: &Arena, keys: &[LookupKey<'_>], _ahead: Ahead) {
        self.list.warm(arena, keys);
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
    fn readers_beside_a_writer_see_what_is_published() {
        let rig = model::Rig::new(|_| Skiplist::new(model::SEED));
        race::readers_see_what_is_published(&rig, 20_000);
    }

    #[test]
    fn a_new_key_takes_at_most_32_bytes() {
        let overhead = model::bytes_beside_keys_and_values(MemtableType::Skiplist);
        assert!((26.0..32.0).contains(&overhead), "{overhead} B");
    }

    #[test]
    fn a_walk_ahead_ends_at_the_record_of_its_key() {
        // Heads that differ, and heads that say nothing.
        for prefix in ["", "tide/high/"] {
            warm_test::walks_end_at_the_records(
                &model::Rig::new(|_| Skiplist::new(model::SEED)),
                prefix,
            );
        }
    }

    #[test]
    fn random_writes_match_a_model() {
        model::agrees(MemtableType::Skiplist);
    }
}
