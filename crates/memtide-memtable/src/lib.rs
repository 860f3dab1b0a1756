//! Eight memtables behind one contract, usable alone or inside the Memtide engine.
//!
//! - [`MemtableVariant`]: any of the eight as a bounded map, no database needed.
//! - [`Memtable`]: what the engine uses: versions, snapshots, range tombstones, exact memory.
//! - `contract::MemIndex`: what a variant implements: the order of records, nothing else.
//! - [`CustomIndex`]: what a program's own memtable implements, in safe Rust; [`Registry`] gives it a name.
//! - `testkit` (a module and a feature): the contract as a test suite for any variant.
//!
//! The crate does no I/O, reads no clock and starts no thread.

mod anchor;
mod arena;
mod buckets;
mod chain;
mod chunk;
mod contract;
mod cursor;
mod custom;
mod entry;
mod gallop;
mod key_filter;
mod key_order;
mod kind;
mod leaf;
mod memtable;
mod meter;
mod options;
mod recent;
mod record;
mod registry;
mod run;
mod skl;
mod standalone;
mod tags;
#[cfg(feature = "testkit")]
pub mod testkit;
mod variants;
mod view;
mod view_cursor;
mod warm;

pub use anchor::Anchor;
pub use contract::{BatchShape, Cost, Descriptor, Inserted};
pub use cursor::{MemCursor, Place};
pub use custom::{CustomIndex, IndexHints, MemtableFactory, RecordRef, Records};
pub use kind::{MemtableType, UnknownMemtable};
pub use memtable::{Fragmented, Full, Memtable, Reservation, Usage};
pub use options::MemtableOptions;
pub use registry::{MemtableChoice, MemtableKind, NameTaken, Registry};
pub use standalone::{MemtableVariant, StandaloneError};
pub use warm::{Ahead, WARM_KEYS};
