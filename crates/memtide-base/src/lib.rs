//! The words every other Memtide crate speaks: keys, sequence numbers, entries, cursors, errors, checksums.
//! Internal to Memtide, no stability promise.
//!
//! Nothing here does I/O, starts a thread, reads a clock or draws a random number.

#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!("memtide needs a 64-bit little-endian target");

pub mod checksum;
pub mod cursor;
pub mod entry;
pub mod error;
pub mod hash;
pub mod key;
pub mod ledger;
pub mod range_tombstone;
pub mod seqno;
pub mod slice;
pub mod suggest;
pub mod sync;
pub mod varint;

pub use cursor::{Cursor, Target};
pub use entry::{Entry, Kind};
pub use error::{Error, ErrorKind, Result};
pub use key::Upper;
pub use range_tombstone::{RangeTombstone, RangeTombstones, TombstoneSpan};
pub use seqno::SeqNo;
pub use slice::Slice;
