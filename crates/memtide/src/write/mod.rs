//! The write path: reserve → LSN → log → memtables → publish → acknowledge.

mod commit;
mod log;
mod memory;
mod rotate;

pub(crate) use commit::write;
pub(crate) use log::{Log, Segment, create_segment, release, segment_bytes, sync_to};
pub(crate) use rotate::{flush_is_due, rotate};
