//! The eight variants, one module each; this is the only place that knows them all.

mod enhanced_skiplist;
mod hash_linked_list;
mod hash_skiplist;
mod linked_list;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod race_test;
mod skiplist;
mod sorted;
mod trie;
mod vector;
#[cfg(test)]
mod warm_test;

use memtide_base::sync::Arc;

use crate::contract::MemIndex;
use crate::custom::{Checked, IndexHints};
use crate::kind::MemtableType;
use crate::meter::HeapMeter;
use crate::options::MemtableOptions;
use crate::registry::MemtableKind;

/// An empty index of the type that `options` name.
pub(crate) fn create(options: &MemtableOptions, meter: &Arc<HeapMeter>) -> Box<dyn MemIndex> {
    let kind = match &options.kind {
        MemtableKind::BuiltIn(kind) => *kind,
        MemtableKind::Custom(factory) => {
            let hints = IndexHints { bytes_max: options.bytes_max, seed: options.hash_seed };
            return Box::new(Checked::new(&**factory, &hints, meter));
        }
    };
    match kind {
        MemtableType::Sorted => Box::new(sorted::Sorted::new()),
        MemtableType::Skiplist => Box::new(skiplist::Skiplist::new(options.hash_seed)),
        MemtableType::Trie => Box::new(trie::Trie::new()),
        MemtableType::LinkedList => Box::new(linked_list::LinkedList::new(meter)),
        MemtableType::HashLinkedList => Box::new(hash_linked_list::HashLinkedList::new(meter)),
        MemtableType::EnhancedSkiplist => {
            Box::new(enhanced_skiplist::EnhancedSkiplist::new(options.hash_seed))
        }
        MemtableType::HashSkiplist => Box::new(hash_skiplist::HashSkiplist::new(options.hash_seed)),
        MemtableType::Vector => Box::new(vector::Vector::new(meter)),
    }
}
