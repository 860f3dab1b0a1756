//! Columnar blocks: sorted rows of (key, seq, kind, value), searchable without decoding.
//!
//! Data, index and range-tombstone blocks share one layout, whose centre is a column of *heads*: the
//! first eight bytes of each key behind the prefix all keys share, as big-endian integers. A search is a
//! binary search over integers, and looks at the rest of a key only where heads tie; any row is reached
//! by its number, so walking backwards costs what walking forwards costs. There are no restart points.
//!
//! - `format`: the header and where the sections lie.
//! - [`trailer`]: the sixteen bytes behind every block of a table file, of whatever kind.
//! - [`BlockBuilder`] collects rows and lays them out; [`BlockView`] validates such bytes once and
//!   answers from them; [`BlockCursor`] stands on one row and lends it.
//!
//! Not done here: files, compression, caching. The normative page is `docs/format/table.md`.

mod builder;
mod cursor;
mod format;
pub mod trailer;
mod view;

pub use builder::BlockBuilder;
pub use cursor::BlockCursor;
pub use format::{BLOCK_LEN_MAX, ROWS_MAX, Role};
pub use view::BlockView;
