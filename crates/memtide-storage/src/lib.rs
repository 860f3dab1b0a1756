//! Every byte Memtide puts on disk: log, block, filter, table, and the caches in front of them.
//! Internal to Memtide, no stability promise.
//!
//! Decoders take hostile bytes: an error with file and offset, never a panic, never an allocation that
//! the input's own size does not justify. Nothing here starts a thread, and nothing knows memtables.

pub mod blob;
pub mod block;
pub mod budget;
pub mod cache;
pub mod compress;
pub mod filter;
mod identity;
pub mod log;
pub mod opened;
mod output;
mod source;
pub mod table;

pub use identity::FileIdentity;
pub use source::{file_checksum, verify_file};
