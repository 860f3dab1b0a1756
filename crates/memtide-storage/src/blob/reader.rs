//! An open blob file: one value per read, and a walk over all of them.
//!
//! A file is immutable, so any number of readers share one `BlobFile` without a lock. Nothing is allocated for a value
//! before its length is known to lie in the file.

use std::path::{Path, PathBuf};

use memtide_base::checksum::xxh3_64_of_two;
use memtide_base::sync::Arc;
use memtide_base::{Error, Result, Slice};
use memtide_env::ReadFile;

use super::format::{
    ALIGN, BlobHandle, HEADER_LEN, Header, RECORD_HEADER_LEN, RecordHeader, unsupported,
};
use crate::compress::{self, Codec};
use crate::identity::FileIdentity;
use crate::source::{Source, unshared, zeroed};

/// What errors call the piece that is damaged.
const RECORD: &str = "blob record";
const NOT_ITS_OWN: &str = "it is not the value that its table refers to";

/// Bytes that may be hashed for each byte of a file whose records are looked for.
const HASHED_PER_BYTE: u64 = 8;

/// A record that was found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRecord {
    /// First byte of it.
    pub offset: u64,
    /// Bytes of the record.
    pub len: u64,
    /// Whose value it is.
    pub key: Vec<u8>,
    /// Bytes of the value.
    pub raw_len: u32,
}

/// A blob file, open for reading.
#[derive(Debug)]
pub struct BlobFile {
    source: Source,
    salt: u64,
    size: u64,
}

impl BlobFile {
    /// Opens `file`, which is called `name` in errors and must be `expected` and have `size` bytes.
    ///
    /// # Errors
    /// Corruption if it is another file, has another length or a damaged header; `Unsupported` if a newer version wrote
    /// it; whatever reading fails with.
    pub fn open(
        file: Arc<dyn ReadFile>,
        name: PathBuf,
        expected: FileIdentity,
        size: u64,
    ) -> Result<Self> {
        let source = Source { file, name };
        source.check_len("blob file", size)?;
        if size < HEADER_LEN as u64 {
            return Err(source.damaged("blob file header", 0, "the file is shorter than it"));
        }
        let mut bytes = [0; HEADER_LEN];
        source.read(&mut bytes, 0)?;
        let header = Header::decode(&bytes, source.name())?;
        if header.identity != expected {
            let detail = format!("it is {:?}, expected {expected:?}", header.identity);
            return Err(source.damaged("blob file header", 0, detail));
        }
        Ok(Self { source, salt: header.salt, size })
    }

    /// Opens a file that may be damaged anywhere: what can be read of it is. `salt` is what the manifest says, 0 if it
    /// does not. Beside it, which file it says it is, unless its header is damaged.
    ///
    /// # Errors
    /// Whatever reading fails with.
    pub fn open_damaged(
        file: Arc<dyn ReadFile>,
        name: PathBuf,
        salt: u64,
    ) -> Result<(Self, Option<FileIdentity>)> {
        let source = Source { file, name };
        let size = source.file.len().map_err(|error| Error::io("measure", source.name(), error))?;
        let mut bytes = [0; HEADER_LEN];
        if size >= HEADER_LEN as u64 {
            source.read(&mut bytes, 0)?;
        }
        let header = Header::decode(&bytes, source.name()).ok();
        let mended = || {
            (0..8 * HEADER_LEN).find_map(|bit| {
                let mut bytes = bytes;
                bytes[bit / 8] ^= 1 << (bit % 8);
                Header::decode(&bytes, source.name()).ok()
            })
        };
        // What a manifest says is surer than a bit that was guessed.
        let guessed = || if salt == 0 { mended() } else { None };
        let salt = header.or_else(guessed).map_or(salt, |header| header.salt);
        Ok((Self { source, salt, size }, header.map(|header| header.identity)))
    }

    /// The first sound record at or behind `at`: where it lies, its key, and its bytes in the file. Records behind
    /// damage are looked for at every place where one may begin.
    ///
    /// # Errors
    /// Whatever reading fails with.
    pub fn record_from(&self, at: u64) -> Result<Option<FoundRecord>> {
        let mut at = at.max(HEADER_LEN as u64).next_multiple_of(ALIGN);
        // Honest records do not overlap, so what poses as one is hashed at most so much.
        let mut hashing_left = self.size.saturating_mul(HASHED_PER_BYTE);
        while at + RECORD_HEADER_LEN as u64 <= self.size {
            let mut front = [0; 16];
            self.source.read(&mut front, at)?;
            let header = RecordHeader::decode(&front).ok();
            let fits = |len: &u64| at.checked_add(*len).is_some_and(|end| end <= self.size);
            let len = header.map(|header| header.record_len()).filter(fits);
            if let Some((len, left)) =
                len.and_then(|len| Some((len, hashing_left.checked_sub(len)?)))
            {
                hashing_left = left;
                let mut record = vec![0; usize::try_from(len).expect("about a value's length")];
                self.source.read(&mut record, at)?;
                if let Ok(header) = self.open_record(&record, at) {
                    let key_end = RECORD_HEADER_LEN + usize::from(header.key_len);
                    let key = record[RECORD_HEADER_LEN..key_end].to_vec();
                    return Ok(Some(FoundRecord { offset: at, len, key, raw_len: header.raw_len }));
                }
            }
            at += ALIGN;
        }
        Ok(None)
    }

    /// Bytes of the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Seed of the checksums.
    #[must_use]
    pub fn salt(&self) -> u64 {
        self.salt
    }

    /// What errors call the file.
    #[must_use]
    pub fn name(&self) -> &Path {
        self.source.name()
    }

    /// The value at `handle`, which must be `key`'s. One read.
    ///
    /// # Errors
    /// Corruption if there is no such record or it is damaged; whatever reading fails with.
    pub fn get(&self, key: &[u8], handle: BlobHandle) -> Result<Slice> {
        let at = handle.offset;
        self.check_place(at, handle.len.into())?;
        let mut record = zeroed(handle.len as usize);
        self.source.read(unshared(&mut record), at)?;
        let header = self.open_record(&record, at)?;
        let value = RECORD_HEADER_LEN + usize::from(header.key_len);
        if &record[RECORD_HEADER_LEN..value] != key || header.raw_len != handle.raw_len {
            return Err(self.source.damaged(RECORD, at, NOT_ITS_OWN));
        }
        let end = value + header.stored_len as usize;
        match header.codec {
            Codec::None => Ok(Slice::part_of(&record, value, end)),
            codec => self.decompressed(codec, &record[value..end], header.raw_len as usize, at),
        }
    }

    fn decompressed(&self, codec: Codec, stored: &[u8], raw_len: usize, at: u64) -> Result<Slice> {
        if !codec.is_built_in() {
            return Err(unsupported(self.name(), format!("codec {codec:?}")));
        }
        let mut raw = zeroed(raw_len);
        compress::decompress(codec, stored, unshared(&mut raw))
            .map_err(|detail| self.source.damaged(RECORD, at, detail))?;
        Ok(Slice::part_of(&raw, 0, raw_len))
    }

    /// Whether `key`'s value begins at `handle` and is as long as it says; its bytes are not looked at.
    ///
    /// # Errors
    /// Corruption if not; whatever reading fails with.
    pub fn check(&self, key: &[u8], handle: BlobHandle) -> Result<()> {
        let at = handle.offset;
        self.check_place(at, handle.len.into())?;
        let mut front = vec![0; (RECORD_HEADER_LEN + key.len()).min(handle.len as usize)];
        self.source.read(&mut front, at)?;
        let header = front.first_chunk().map(|front| self.decode(front, at)).transpose()?;
        let is_it = header.is_some_and(|header| {
            header.record_len() == u64::from(handle.len)
                && header.raw_len == handle.raw_len
                && usize::from(header.key_len) == key.len()
                && front.get(RECORD_HEADER_LEN..) == Some(key)
        });
        if is_it { Ok(()) } else { Err(self.source.damaged(RECORD, at, NOT_ITS_OWN)) }
    }

    /// Reads every record, checks that they follow each other without gaps up to the end of the file, and that each
    /// gives its value back; how many there are.
    ///
    /// # Errors
    /// The first damage; whatever reading fails with.
    pub fn verify(&self) -> Result<u64> {
        let (mut at, mut values) = (HEADER_LEN as u64, 0);
        while at < self.size {
            self.check_place(at, RECORD_HEADER_LEN as u64)?;
            let mut front = [0; 16];
            self.source.read(&mut front, at)?;
            let len = self.decode(&front, at)?.record_len();
            self.check_place(at, len)?;
            let mut record = vec![0; usize::try_from(len).expect("about a value's length")];
            self.source.read(&mut record, at)?;
            let header = self.open_record(&record, at)?;
            if header.codec != Codec::None {
                let value = RECORD_HEADER_LEN + usize::from(header.key_len);
                let stored = &record[value..value + header.stored_len as usize];
                self.decompressed(header.codec, stored, header.raw_len as usize, at)?;
            }
            (at, values) = (at + len, values + 1);
        }
        Ok(values)
    }

    fn check_place(&self, at: u64, len: u64) -> Result<()> {
        if at.checked_add(len).is_some_and(|end| end <= self.size) {
            return Ok(());
        }
        let detail = format!("{len} B from there reach beyond the file's {} B", self.size);
        Err(self.source.damaged(RECORD, at, detail))
    }

    fn decode(&self, front: &[u8; 16], at: u64) -> Result<RecordHeader> {
        RecordHeader::decode(front).map_err(|detail| self.source.damaged(RECORD, at, detail))
    }

    /// Checks a whole record that lies at `at`.
    fn open_record(&self, record: &[u8], at: u64) -> Result<RecordHeader> {
        let damaged = |detail: String| Err(self.source.damaged(RECORD, at, detail));
        let Some((front, rest)) = record.split_first_chunk::<16>() else {
            return damaged("shorter than its header".to_owned());
        };
        let header = self.decode(front, at)?;
        let Some((stored, body)) = rest.split_first_chunk::<8>() else {
            return damaged("shorter than its header".to_owned());
        };
        if header.record_len() != record.len() as u64 {
            let (is, says) = (record.len(), header.record_len());
            return damaged(format!("{is} B by its handle, {says} B by its header"));
        }
        let used = usize::from(header.key_len) + header.stored_len as usize;
        let computed = xxh3_64_of_two(self.salt ^ at, front, &body[..used]);
        let stored = u64::from_le_bytes(*stored);
        if computed != stored {
            return damaged(format!("xxh3 {computed:#018x}, stored {stored:#018x}"));
        }
        if body[used..].iter().any(|&byte| byte != 0) {
            return damaged("bytes behind its value that are not zero".to_owned());
        }
        Ok(header)
    }
}
