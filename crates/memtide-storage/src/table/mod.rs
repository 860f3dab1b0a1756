//! Tables: immutable sorted files of entries, `sst/{number:016x}.sst`.
//!
//! ```text
//! data blocks · [filter] · [index] · [range tombstones ...] · properties · metaindex · footer
//! data blocks · (index · [filter]) ... · top index · [range tombstones ...] · properties · metaindex · footer
//! ```
//!
//! Every byte belongs to the footer or to a block with a checksum; there are no gaps. A table is opened
//! by reading its last 32 KiB, which hold everything but the data blocks while the table is small.
//! Index, filter and range tombstones then stay in memory; data blocks come through the block cache. Index and
//! filter of a table in a large tree are divided into partitions, of which some are in memory.
//!
//! - `builder`: writes a table front to back, once.
//! - `format`: footer, metaindex and index values; `properties`: what a table says about itself.
//! - `parts`: reads and checks all that is not data; `partition`: index and filter of a stretch of blocks.
//! - `reader`: [`Table`], point reads.
//! - `survey`: finds the sound blocks of a damaged one.
//! - `cursor`: walks a table both ways. `verify`: reads everything and believes nothing.
//!
//! Not done here: naming and removing files, directory syncs, the choice of what goes into a table.
//! The normative page is `docs/format/table.md`.

mod builder;
mod cursor;
mod format;
mod partition;
mod parts;
mod properties;
mod reader;
mod survey;
mod verify;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use builder::{TableBuilder, TableOptions, TableSummary};
pub use cursor::TableCursor;
pub use properties::Properties;
pub use reader::{Found, Near, Table, TableShared};
pub use survey::{FoundBlock, Piece, Survey, footer_identity};
