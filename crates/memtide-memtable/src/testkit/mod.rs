//! The memtable contract as a test suite: one law per test, every law for every variant.
//!
//! ```text
//! versions   what a get returns: bounds, deletes, odd keys, order of arrival, duplicates
//! cursors    what a cursor shows: seeks, reversals, versions, snapshots, range tombstones beside it
//! memory     what a table holds: batches, limits, refusals, accounts
//! growth     sizes around every structural threshold, in three orders of arrival
//! random     random operations against a model; a failure is cut down and printed with its seed
//! racing     readers and cursors beside a writer, writers beside each other
//! ```
//!
//! A law is a function of the variant's type and uses the public API alone, so it knows nothing of how a
//! variant works; a variant's own structure is asserted by `check()`, which the laws call throughout.
//! Laws never sleep and their loops are bounded by counts.
//!
//! ```
//! // In a test binary: one module per variant, one test per law.
//! memtide_memtable::conformance!(sorted, skiplist);
//! // A program's own memtable, in a module of the name given first:
//! // memtide_memtable::conformance!(time_log => TimeLogFactory);
//! ```

mod cursors;
mod growth;
mod memory;
mod racing;
mod random;
mod subject;
mod versions;

pub use cursors::*;
pub use growth::*;
pub use memory::*;
pub use racing::*;
pub use random::*;
pub use subject::{Model, Subject, TABLE_BYTES_MAX};
pub use versions::*;

use crate::{MemtableKind, MemtableType};

/// Makes one test module per named variant, with one test per law; or one for a factory of one's own.
#[macro_export]
macro_rules! conformance {
    ($($variant:ident),+ $(,)?) => {
        $($crate::conformance!(@laws $variant, $crate::testkit::kind_named(stringify!($variant)));)+
    };
    ($name:ident => $factory:expr) => {
        $crate::conformance!(@laws $name, $crate::MemtableKind::custom($factory));
    };
    (@laws $name:ident, $kind:expr) => {
        $crate::conformance!(@module $name, $kind =>
            get_sees_the_newest_version_below_its_bound
            deletes_are_versions
            the_empty_key_is_a_key
            the_longest_keys_are_keys
            prefixes_of_each_other_are_different_keys
            runs_of_00_and_ff_are_ordered_as_bytes
            an_anchor_changes_no_answer
            keys_with_one_hash_are_different_keys
            versions_may_arrive_in_any_order
            sequence_numbers_may_lie_far_apart
            a_duplicate_changes_nothing
            an_insert_says_what_it_did
            an_empty_table_has_nothing
            seeks_land_at_between_before_and_after_keys
            a_cursor_reverses_at_every_position
            older_walks_all_versions_and_the_walk_goes_on
            a_bound_hides_newer_versions_in_both_directions
            a_cursor_that_found_nothing_stands_nowhere
            a_cursor_keeps_its_table_alive
            a_cursor_shows_its_snapshot_while_inserts_go_on
            every_seq_is_a_snapshot
            the_newest_covering_range_tombstone_is_found
            empty_range_tombstones_cover_nothing
            range_tombstones_hide_nothing_from_a_cursor
            values_of_a_mebibyte_are_values
            a_batch_is_reserved_together
            a_batch_beyond_the_limit_is_refused_with_the_limit_it_needs
            an_unused_reservation_leaves_no_trace
            nothing_is_reserved_beyond_the_limit
            the_budget_refuses_before_anything_changes
            usage_adds_up
            the_structure_holds_after_every_64_operations
            ascending_keys_at_every_size
            descending_keys_at_every_size
            shuffled_keys_at_every_size
            overwrites_at_every_size
            random_operations_match_a_model
            readers_beside_a_writer_see_all_that_is_published
            a_cursor_beside_a_writer_shows_its_snapshot
            warming_beside_a_writer_changes_no_answer
            range_tombstones_beside_a_writer_are_seen_once_published
            writers_take_turns
        );
    };
    (@module $name:ident, $kind:expr => $($law:ident)+) => {
        mod $name {
            #[allow(unused_imports, reason = "what a factory's expression names")]
            use super::*;

            $(
                #[test]
                fn $law() {
                    $crate::testkit::$law(&$kind);
                }
            )+
        }
    };
}

/// The variant a test module is named after.
///
/// # Panics
/// If there is no variant of this name.
#[must_use]
pub fn kind_named(name: &str) -> MemtableKind {
    let kind = name.parse::<MemtableType>();
    kind.unwrap_or_else(|unknown| panic!("{unknown}")).into()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_law_is_in_the_macro() {
        let macro_text = include_str!("mod.rs");
        let laws = [
            include_str!("cursors.rs"),
            include_str!("growth.rs"),
            include_str!("memory.rs"),
            include_str!("racing.rs"),
            include_str!("random.rs"),
            include_str!("versions.rs"),
        ];
        let mut found = 0;
        for line in laws.iter().flat_map(|text| text.lines()) {
            let Some(law) = line.strip_prefix("pub fn ") else { continue };
            let name = law.split('(').next().unwrap_or_default();
            let listed = macro_text.lines().any(|line| line.trim() == name);
            assert!(listed, "the law {name} never runs");
            found += 1;
        }
        assert!(found > 30, "{found} laws");
    }
}
