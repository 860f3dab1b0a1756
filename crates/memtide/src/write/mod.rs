//! The write path: reserve → LSN → log → memtables → publish → acknowledge.

mod commit;
mod memory;
mod rotate;
mod segments;

pub(crate) use commit::write;

pub(crate) use rotate::{flush_is_due, rotate, rotate_anyway};
pub(crate) use segments::{release, sync_to};
