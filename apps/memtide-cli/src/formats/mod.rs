//! Records as text: reading them for `import`, writing them for `export`, and the two ways this program
//! spells bytes; and the engine's figures as JSON.
//!
//! Readers are iterators over one record at a time, so memory is bounded by the longest record; a line or
//! stanza longer than [`lines::LINE_LEN_MAX`] is refused with its line number.

pub(crate) mod deb822;
pub(crate) mod escape;
pub(crate) mod hex;
pub(crate) mod jsonl;
pub(crate) mod lines;
pub(crate) mod shown;
pub(crate) mod stats;

/// One thing to import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Its key.
    pub(crate) key: Vec<u8>,
    /// Its value.
    pub(crate) value: Vec<u8>,
    /// The line of the input it begins at, from one.
    pub(crate) line: u64,
}

/// The records of one input.
pub(crate) type Records = Box<dyn Iterator<Item = memtide::Result<Record>>>;
