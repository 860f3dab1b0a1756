//! The log: a header page and checksummed records, the one framing under WAL segments and manifests.
//!
//! - [`mod@format`]: the header page, file names.
//! - [`record`]: the 24 bytes in front of every record.
//! - [`batch`]: what the payload of a batch record says.
//! - [`writer`]: appends records to a new file.
//! - [`reader`]: reads them back and tells a torn tail from damage (`tail` searches, `window` buffers).
//!
//! `docs/format/log.md` is the normative page. Every record has an LSN: the file's base plus its offset.
//! For a WAL segment that is its position in the one space of sequence numbers; a manifest has base 0.
//! Which segments belong together, when to sync, and what a torn or damaged log means for a database are
//! the engine's to decide. Bytes of manifest edits mean nothing here.

pub mod batch;
pub mod format;
pub mod reader;
pub mod record;
mod tail;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod window;
pub mod writer;

pub use batch::{BatchDamage, BatchOp, BatchOps};
pub use format::{
    HEADER_LEN, LogHeader, LogKind, MINOR_WHOLE, SEGMENT_BYTES_MAX, manifest_file_name,
    parse_manifest_file_name, parse_wal_file_name, wal_file_name,
};
pub use reader::{LogEnd, LogReader, Opened, Record};
pub use record::{RECORD_HEADER_LEN, RecordKind};
pub use writer::LogWriter;
