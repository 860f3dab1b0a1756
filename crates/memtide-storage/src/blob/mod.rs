//! Blob files: values too large to be rewritten with their keys, `blob/{number:016x}.blob`.
//!
//! A table holds a [`BlobHandle`] in place of such a value. The file is written front to back by one flush or
//! compaction, in key order, and immutable then; each record says whose value it is and carries its own checksum, so
//! one value is one read, and a file without its table can still be read. It lives as long as a table refers to it.
//! (The idea: WiscKey, Lu et al., 2016.)
//!
//! - `format`: header, record and handle as bytes. `writer`: [`BlobWriter`]. `reader`: [`BlobFile`].
//!
//! Not done here: which values are separated, when a file has become garbage, naming and removing files. The normative
//! page is `docs/format/blob.md`.

mod format;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use format::{BLOB_HEADER_LEN, BlobHandle, BlobRef, BlobRefs};
pub use reader::{BlobFile, FoundRecord};
pub use writer::{BlobOptions, BlobSummary, BlobWriter};
