//! Sequence numbers: the one order of all writes of a database.
//!
//! A sequence number is also the write's position in the WAL (its LSN), so it rises strictly and has
//! gaps. Entry `i` of the record at LSN `l` has the number `l + i`. Everywhere **a read below `S` sees
//! the writes with `seq < S`**, and such a parameter is named `below`.

/// A sequence number: the LSN of a record plus the entry's index inside it.
pub type SeqNo = u64;

/// The bound that sees every write a memtable or table holds.
///
/// For maintenance only (flush, compaction, checks). A user's read must use a published bound.
pub const SEE_ALL: SeqNo = SeqNo::MAX;
