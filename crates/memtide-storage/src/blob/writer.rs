//! Writes a blob file front to back. Memory is bounded by the write buffer and one compressed value.
//!
//! A file is durable when [`BlobWriter::finish`] returns; its name is not, until the caller has synced the
//! directory. After any error the file is worth nothing and the caller removes it.

use std::path::PathBuf;

use memtide_base::checksum::xxh3_64_of_two;
use memtide_base::key::{KEY_LEN_MAX, VALUE_LEN_MAX};
use memtide_base::{Error, Result};
use memtide_env::WriteFile;

use super::format::{BlobHandle, Header, RecordHeader};
use crate::compress::{self, Codec};
use crate::identity::FileIdentity;
use crate::output::Output;

/// Values above are not compressed: it would take as much memory again.
const COMPRESSED_MAX: usize = 16 << 20;

/// How to write a blob file.
#[derive(Clone, Copy, Debug)]
pub struct BlobOptions {
    /// How values are compressed, each by itself, if that saves an eighth.
    pub codec: Codec,
    /// Random number that makes this file's checksums its own.
    pub salt: u64,
}

/// What the manifest records of a finished blob file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobSummary {
    /// Bytes of the file.
    pub size: u64,
    /// XXH3-128 of the whole file.
    pub checksum: u128,
    /// Values in it.
    pub values: u64,
    /// Bytes of their records.
    pub bytes: u64,
    /// Seed of its checksums; 0 if it is not known beside the file itself.
    pub salt: u64,
}

/// Builds one blob file.
#[derive(Debug)]
pub struct BlobWriter {
    out: Output,
    identity: FileIdentity,
    options: BlobOptions,
    values: u64,
    bytes: u64,
    compressed: Vec<u8>,
}

impl BlobWriter {
    /// A writer to `file`, which is empty and called `name` in errors.
    ///
    /// # Errors
    /// Whatever writing fails with.
    pub fn new(
        file: Box<dyn WriteFile>,
        name: PathBuf,
        identity: FileIdentity,
        options: BlobOptions,
    ) -> Result<Self> {
        let mut out = Output::new(file, name);
        out.append(&Header { identity, salt: options.salt }.encode())?;
        Ok(Self { out, identity, options, values: 0, bytes: 0, compressed: Vec::new() })
    }

    /// Appends a value; the handle says where it lies.
    ///
    /// # Errors
    /// `InvalidArgument` for a key or value above its limit; whatever writing fails with.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<BlobHandle> {
        if key.len() > KEY_LEN_MAX || value.len() > VALUE_LEN_MAX {
            let what = format!("a value of {} B for a key of {} B", value.len(), key.len());
            return Err(Error::invalid_argument(what));
        }
        let small = |len: usize| u32::try_from(len).expect("values are at most 1 GiB");
        let codec = if value.len() > COMPRESSED_MAX { Codec::None } else { self.options.codec };
        let compressed = compress::compress(codec, value, &mut self.compressed)?;
        let (codec, stored) =
            if compressed { (codec, self.compressed.as_slice()) } else { (Codec::None, value) };
        let header = RecordHeader {
            stored_len: small(stored.len()),
            raw_len: small(value.len()),
            key_len: u16::try_from(key.len()).expect("checked above"),
            codec,
        };
        let (offset, len) = (self.out.offset(), header.record_len());
        let (seed, front) = (self.options.salt ^ offset, header.encode());
        let checksum = xxh3_64_of_two(seed, &[&front, key].concat(), stored);
        self.out.append(&front)?;
        self.out.append(&checksum.to_le_bytes())?;
        self.out.append(key)?;
        self.out.append(stored)?;
        let padding = offset + len - self.out.offset();
        self.out.append(&[0; 7][..usize::try_from(padding).expect("below 8")])?;
        self.values += 1;
        self.bytes += len;
        let (number, len) = (self.identity.number, u32::try_from(len).expect("about a value"));
        Ok(BlobHandle { number, offset, len, raw_len: header.raw_len })
    }

    /// Bytes the file would have if it were finished now.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.out.offset()
    }

    /// Writes all that is left and syncs the file.
    ///
    /// # Errors
    /// Whatever writing or syncing fails with. The caller removes the file.
    pub fn finish(self) -> Result<BlobSummary> {
        let (values, bytes, salt) = (self.values, self.bytes, self.options.salt);
        let (size, checksum) = self.out.finish()?;
        Ok(BlobSummary { size, checksum, values, bytes, salt })
    }
}
