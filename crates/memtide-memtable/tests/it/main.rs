//! The conformance suite on all eight variants: `cargo test -p memtide-memtable --test it`.

memtide_memtable::conformance!(
    sorted,
    skiplist,
    trie,
    linked_list,
    hash_linked_list,
    enhanced_skiplist,
    hash_skiplist,
    vector,
);
