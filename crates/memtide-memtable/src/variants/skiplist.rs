//! `skiplist`: an arena skip list. Even costs for everything, steps to both sides in O(1).
//!
//! The list itself is [`crate::skl`]. Choose it when the load is unknown or changes.

use memtide_base::SeqNo;

use crate::arena::{Arena, Ref, Slab};
use crate::contract::{
    BatchShape, Cost, Descriptor, Inserted, LookupKey, MemIndex, NewEntry, Pos, Seek, Walk,
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

    fn seek(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, to: Seek<'_>) {
        self.list.seek(arena, pos, below, to);
    }

    fn walk(&self, arena: &Arena, pos: &mut Pos, below: SeqNo, step: Walk) -> bool {
        self.list.walk(arena, pos, below, step)
    }

    fn check(&self, arena: &Arena, records: u64) -> Result<(), String> {
        match self.list.check(arena)? {
            found if found == records => Ok(()),
            found => Err(format!("{records} records were inserted, the list holds {found}")),
        }
    }
}
