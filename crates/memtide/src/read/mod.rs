//! The read path: superversion → active, sealed (newest first) → runs, level 0 first.

mod get;
mod level_cursor;
mod merge_cursor;
mod multi_get;
mod sealed_cursor;
mod tombstone_span;
mod version_stream;
mod visible_cursor;

pub(crate) use get::get;
pub(crate) use level_cursor::LevelCursor;
pub(crate) use merge_cursor::{MergeCursor, Source};
pub(crate) use multi_get::multi_get;
pub(crate) use sealed_cursor::SealedCursor;
pub(crate) use version_stream::VersionStream;
pub(crate) use visible_cursor::VisibleCursor;
