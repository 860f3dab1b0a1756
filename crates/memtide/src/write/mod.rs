//! The write path: reserve → LSN → log → memtables → publish → acknowledge.

mod commit;
mod controller;
mod group;
mod memory;
mod rotate;
mod segments;
mod wait;

pub(crate) use controller::{
    largest_if_pressed, refresh_memory, refresh_tree, seal_at_rest_if_pressed,
};
pub(crate) use group::write;
pub(crate) use rotate::{LARGE_ENTRY, flush_is_due, rotate, rotate_anyway};
pub(crate) use segments::{check_syncs, follow, release, replace, sync_to};
pub(crate) use wait::Patience;
