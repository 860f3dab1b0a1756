//! Edits: the atomic changes that a manifest is a list of, and their bytes.
//!
//! ```text
//! edit    chain u64 | change ... | zeros up to a multiple of 8
//! change  tag u16 | len u32 | body of `len` bytes
//! ```
//!
//! `chain` is XXH3-64 of the edit before it (0 for the first), so an edit that was lost or exchanged is
//! noticed although each record is checksummed alone. Tag 0 ends an edit. A tag with bit 15 set may be
//! skipped by a reader that does not know it; any other unknown tag refuses the manifest. Integers in
//! bodies are little-endian or LEB128 (`var`); the bodies are in `docs/format/manifest.md`.

use memtide_base::{SeqNo, Upper, varint};
use memtide_memtable::MemtableChoice;
use memtide_storage::blob::{BLOB_HEADER_LEN, BlobRefs, BlobSummary};
use memtide_storage::table::TableSummary;

use super::RunId;
use crate::config::{Compaction, KeyspaceOptions, MEMTABLE_SIZES};

const IGNORABLE: u16 = 1 << 15;
/// The salt of the table or blob file that the change before adds. Programs from before it was said pass over it.
const SALT: u16 = IGNORABLE | 17;
const CHAIN_LEN: usize = 8;
/// File numbers and log positions lie below: at 2 GB/s a log gets there in 146 years.
const PLACE_END: u64 = 1 << 63;

/// A table as the manifest has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredTable {
    pub(crate) keyspace: u32,
    pub(crate) run: RunId,
    pub(crate) number: u64,
    pub(crate) summary: TableSummary,
}

/// A blob file as the manifest has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredBlob {
    pub(crate) keyspace: u32,
    pub(crate) number: u64,
    pub(crate) summary: BlobSummary,
}

/// Where the log of a cleanly closed database ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClosedWal {
    /// Base of the last segment.
    pub(crate) base: u64,
    /// LSN behind the last record that counts.
    pub(crate) end: u64,
}

/// One change. Several in one [`Edit`] take effect together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// First in every manifest: who this database is, and the seed of its key hashes.
    Database { uuid: [u8; 16], hash_seed: u64 },
    /// A new keyspace.
    KeyspaceAdd { id: u32, name: String, options: KeyspaceOptions },
    /// Other options for a keyspace.
    KeyspaceOptions { id: u32, options: KeyspaceOptions },
    /// Another strategy for a keyspace; [`Change::KeyspaceAdd`] and [`Change::KeyspaceOptions`] do not say it.
    KeyspaceCompaction { id: u32, compaction: Compaction },
    /// A new table. One in the oldest run of its level is written as before there were others, one that refers to no
    /// blob file as before there were any.
    TableAdd(StoredTable),
    /// A new blob file. It is there as long as a table of its keyspace refers to it.
    BlobAdd(StoredBlob),
    /// A table that is no longer part of the tree.
    TableDrop { keyspace: u32, number: u64 },
    /// Every write of the keyspace below this number is in tables.
    FlushedTo { keyspace: u32, seq: SeqNo },
    /// Log before this LSN is not needed.
    WalStart { lsn: u64 },
    /// The number of the next file; those below are taken.
    NextFile { number: u64 },
    /// Sequence numbers below this one are taken.
    SeqHigh { seq: SeqNo },
    /// The next keyspace id; those below are taken.
    NextKeyspace { id: u32 },
    /// The database was closed in order. Void as soon as another change follows.
    Closed(ClosedWal),
}

/// Changes that take effect together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) changes: Vec<Change>,
}

impl Edit {
    pub(crate) fn new(changes: Vec<Change>) -> Self {
        Self { changes }
    }

    /// The bytes, padded to a multiple of eight.
    pub(crate) fn encode(&self, chain: u64) -> Vec<u8> {
        let mut out = chain.to_le_bytes().to_vec();
        for change in &self.changes {
            let mut body = Vec::new();
            let tag = change.encode(&mut body);
            out.extend_from_slice(&tag.to_le_bytes());
            let len = u32::try_from(body.len()).expect("a change is far below 4 GiB");
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(&body);
            if let Some(salt) = change.salt() {
                out.extend_from_slice(&SALT.to_le_bytes());
                out.extend_from_slice(&8_u32.to_le_bytes());
                out.extend_from_slice(&salt.to_le_bytes());
            }
        }
        out.resize(out.len().next_multiple_of(8), 0);
        out
    }

    /// Reads an edit that follows one with this `chain`, or says what is wrong with it.
    pub(crate) fn decode(bytes: &[u8], chain: u64) -> Result<Self, String> {
        let (stored, mut rest) =
            bytes.split_first_chunk::<CHAIN_LEN>().ok_or("an edit without its chain")?;
        let stored = u64::from_le_bytes(*stored);
        if stored != chain {
            return Err(format!("it follows edit {stored:#018x}, the one before is {chain:#018x}"));
        }
        let mut changes = Vec::new();
        while rest.iter().any(|&byte| byte != 0) {
            let mut head = Body(rest);
            let tag = head.u16()?;
            let len = head.u32()? as usize;
            let (body, after) =
                head.0.split_at_checked(len).ok_or_else(|| format!("change {tag} is cut off"))?;
            rest = after;
            if tag == SALT {
                let last = changes.last_mut().ok_or("a salt of nothing")?;
                Change::take_salt(last, Body(body))?;
                continue;
            }
            match Change::decode(tag, body)? {
                Some(change) => changes.push(change),
                None if tag & IGNORABLE != 0 => {}
                None => return Err(format!("change {tag} is unknown to this version")),
            }
        }
        Ok(Self { changes })
    }
}

/// Largest rank of a run that is believed: the next one must still be a number.
const RANK_MAX: u64 = 1 << 62;

impl Change {
    /// A new keyspace with all of its options.
    pub(crate) fn new_keyspace(id: u32, name: String, options: KeyspaceOptions) -> Vec<Self> {
        let compaction = options.compaction;
        let mut changes = vec![Self::KeyspaceAdd { id, name, options }];
        // Programs from before there was a choice read on where none was made.
        if compaction != Compaction::default() {
            changes.push(Self::KeyspaceCompaction { id, compaction });
        }
        changes
    }

    fn encode(&self, out: &mut Vec<u8>) -> u16 {
        let var = |out: &mut Vec<u8>, value: u64| varint::write_u64(out, value);
        match self {
            Self::Database { uuid, hash_seed } => {
                out.extend_from_slice(uuid);
                out.extend_from_slice(&hash_seed.to_le_bytes());
                1
            }
            Self::KeyspaceAdd { id, name, options } => {
                var(out, u64::from(*id));
                write_bytes(out, name.as_bytes());
                write_options(out, options);
                2
            }
            Self::KeyspaceOptions { id, options } => {
                var(out, u64::from(*id));
                write_options(out, options);
                4
            }
            Self::KeyspaceCompaction { id, compaction } => {
                var(out, u64::from(*id));
                write_bytes(out, compaction.name().as_bytes());
                14
            }
            Self::TableAdd(table) => {
                let (rank, blobs) = (table.run.rank, &table.summary.blobs);
                if rank > 0 || !blobs.is_empty() {
                    var(out, rank);
                }
                write_table(out, table);
                if blobs.is_empty() {
                    return if rank > 0 { 13 } else { 5 };
                }
                blobs.encode(out);
                16
            }
            Self::BlobAdd(StoredBlob { keyspace, number, summary }) => {
                out.extend_from_slice(&summary.checksum.to_le_bytes());
                for number in
                    [u64::from(*keyspace), *number, summary.size, summary.values, summary.bytes]
                {
                    var(out, number);
                }
                15
            }
            Self::TableDrop { keyspace, number } => {
                var(out, u64::from(*keyspace));
                var(out, *number);
                6
            }
            Self::FlushedTo { keyspace, seq } => {
                var(out, u64::from(*keyspace));
                var(out, *seq);
                7
            }
            Self::WalStart { lsn } => single(out, *lsn, 8),
            Self::NextFile { number } => single(out, *number, 9),
            Self::SeqHigh { seq } => single(out, *seq, 10),
            Self::NextKeyspace { id } => single(out, u64::from(*id), 11),
            Self::Closed(ClosedWal { base, end }) => {
                var(out, *base);
                var(out, *end);
                12
            }
        }
    }

    /// The salt that is said behind it.
    fn salt(&self) -> Option<u64> {
        let salt = match self {
            Self::TableAdd(table) => table.summary.salt,
            Self::BlobAdd(blob) => blob.summary.salt,
            _ => 0,
        };
        (salt != 0).then_some(salt)
    }

    fn take_salt(&mut self, mut body: Body<'_>) -> Result<(), String> {
        let salt = u64::from_le_bytes(*body.chunk()?);
        match self {
            Self::TableAdd(table) => table.summary.salt = salt,
            Self::BlobAdd(blob) => blob.summary.salt = salt,
            _ => return Err("a salt of no file".to_owned()),
        }
        if body.0.is_empty() { Ok(()) } else { Err("a salt of more than 8 bytes".to_owned()) }
    }

    /// `None` for an unknown tag. Positions and numbers from here on leave room to count up.
    fn decode(tag: u16, body: &[u8]) -> Result<Option<Self>, String> {
        let mut body = Body(body);
        let change = match tag {
            1 => Self::Database {
                uuid: *body.chunk()?,
                hash_seed: u64::from_le_bytes(*body.chunk()?),
            },
            2 => Self::KeyspaceAdd {
                id: body.var32()?,
                name: String::from_utf8(body.bytes()?.to_vec())
                    .map_err(|_| "a keyspace name is not UTF-8")?,
                options: body.options()?,
            },
            4 => Self::KeyspaceOptions { id: body.var32()?, options: body.options()? },
            5 => Self::TableAdd(body.table(0)?),
            13 => {
                let rank = body.rank()?;
                let table = body.table(rank)?;
                if rank == 0 || table.run.level == 0 {
                    return Err(format!("run {rank} of level {} has a tag", table.run.level));
                }
                Self::TableAdd(table)
            }
            15 => Self::BlobAdd(body.blob()?),
            16 => {
                let rank = body.rank()?;
                let mut table = body.table(rank)?;
                table.summary.blobs = BlobRefs::decode(&mut body.0)
                    .filter(|blobs| !blobs.is_empty())
                    .ok_or("what a table refers to in blob files is cut off or out of order")?;
                if rank > 0 && table.run.level == 0 {
                    return Err(format!("run {rank} of level 0 has a tag"));
                }
                Self::TableAdd(table)
            }
            6 => Self::TableDrop { keyspace: body.var32()?, number: body.place()? },
            7 => Self::FlushedTo { keyspace: body.var32()?, seq: body.place()? },
            8 => Self::WalStart { lsn: body.place()? },
            9 => Self::NextFile { number: body.place()? },
            10 => Self::SeqHigh { seq: body.place()? },
            11 => Self::NextKeyspace { id: body.var32()? },
            12 => Self::Closed(ClosedWal { base: body.place()?, end: body.place()? }),
            14 => Self::KeyspaceCompaction {
                id: body.var32()?,
                compaction: String::from_utf8_lossy(body.bytes()?)
                    .parse()
                    .map_err(|error: memtide_base::Error| error.to_string())?,
            },
            _ => return Ok(None),
        };
        if !body.0.is_empty() {
            return Err(format!("change {tag} has {} bytes too many", body.0.len()));
        }
        Ok(Some(change))
    }
}

fn single(out: &mut Vec<u8>, value: u64, tag: u16) -> u16 {
    varint::write_u64(out, value);
    tag
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::write_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn write_options(out: &mut Vec<u8>, options: &KeyspaceOptions) {
    write_bytes(out, options.memtable_type.name().as_bytes());
    varint::write_u64(out, options.max_memtable_size);
    out.push(u8::from(options.logged));
}

fn write_table(out: &mut Vec<u8>, table: &StoredTable) {
    let summary = &table.summary;
    varint::write_u64(out, table.keyspace.into());
    out.push(u8::try_from(table.run.level).expect("seven levels"));
    out.extend_from_slice(&summary.checksum.to_le_bytes());
    for number in [
        table.number,
        summary.size,
        summary.rows,
        summary.keys,
        summary.deletes,
        summary.range_deletes,
        summary.seq_min,
        summary.seq_max,
        summary.raw_bytes,
    ] {
        varint::write_u64(out, number);
    }
    write_bytes(out, &summary.smallest);
    let (kind, end): (u8, &[u8]) = match &summary.largest {
        Upper::Included(last) => (0, last),
        Upper::Excluded(end) => (1, end),
        Upper::Unbounded => (2, &[]),
    };
    out.push(kind);
    write_bytes(out, end);
}

/// The rest of a body being read.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn chunk<const N: usize>(&mut self) -> Result<&'a [u8; N], String> {
        let (chunk, rest) = self.0.split_first_chunk().ok_or("a change is too short")?;
        self.0 = rest;
        Ok(chunk)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.chunk::<1>().map(|[byte]| *byte)
    }

    fn u16(&mut self) -> Result<u16, String> {
        self.chunk().map(|chunk| u16::from_le_bytes(*chunk))
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.chunk().map(|chunk| u32::from_le_bytes(*chunk))
    }

    fn var(&mut self) -> Result<u64, String> {
        varint::read_u64(&mut self.0).ok_or_else(|| "a number is cut off".to_owned())
    }

    /// A file number or a position in the log.
    fn place(&mut self) -> Result<u64, String> {
        let place = self.var()?;
        if place >= PLACE_END {
            Err(format!("{place} is beyond any number or position"))
        } else {
            Ok(place)
        }
    }

    /// Which of a level's runs.
    fn rank(&mut self) -> Result<u64, String> {
        let rank = self.place()?;
        if rank > RANK_MAX { Err(format!("run {rank} is above {RANK_MAX}")) } else { Ok(rank) }
    }

    fn var32(&mut self) -> Result<u32, String> {
        u32::try_from(self.var()?).map_err(|_| "a number is above 32 bits".to_owned())
    }

    fn bytes(&mut self) -> Result<&'a [u8], String> {
        let len = usize::try_from(self.var()?).map_err(|error| error.to_string())?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or("bytes are cut off")?;
        self.0 = rest;
        Ok(bytes)
    }

    fn options(&mut self) -> Result<KeyspaceOptions, String> {
        let name = String::from_utf8_lossy(self.bytes()?).into_owned();
        // Who can make memtables of that name is asked when the database is opened.
        if !MemtableChoice::is_name(&name) {
            return Err(format!("{name:?} names no memtable"));
        }
        let memtable_type = MemtableChoice::named(name);
        let max_memtable_size = self.var()?;
        if !MEMTABLE_SIZES.contains(&max_memtable_size) {
            return Err(format!("memtables of {max_memtable_size} B"));
        }
        let logged = match self.byte()? {
            0 => false,
            1 => true,
            other => return Err(format!("{other} is no truth value")),
        };
        // What the bytes do not say, another change does.
        let compaction = Compaction::default();
        Ok(KeyspaceOptions { memtable_type, max_memtable_size, logged, compaction })
    }

    fn blob(&mut self) -> Result<StoredBlob, String> {
        let checksum = u128::from_le_bytes(*self.chunk()?);
        let (keyspace, number) = (self.var32()?, self.place()?);
        let (size, values, bytes) = (self.var()?, self.var()?, self.var()?);
        if size.checked_sub(BLOB_HEADER_LEN) != Some(bytes) {
            return Err(format!("{bytes} B of records in a blob file of {size} B"));
        }
        Ok(StoredBlob {
            keyspace,
            number,
            summary: BlobSummary { size, checksum, values, bytes, salt: 0 },
        })
    }

    fn table(&mut self, rank: u64) -> Result<StoredTable, String> {
        let (keyspace, level) = (self.var32()?, usize::from(self.byte()?));
        let checksum = u128::from_le_bytes(*self.chunk()?);
        let number = self.place()?;
        let summary = TableSummary {
            size: self.var()?,
            checksum,
            rows: self.var()?,
            keys: self.var()?,
            deletes: self.var()?,
            range_deletes: self.var()?,
            seq_min: self.place()?,
            seq_max: self.place()?,
            raw_bytes: self.var()?,
            blobs: BlobRefs::default(),
            salt: 0,
            smallest: self.bytes()?.to_vec(),
            largest: {
                let kind = self.byte()?;
                let end = self.bytes()?.to_vec();
                match kind {
                    0 => Upper::Included(end),
                    1 => Upper::Excluded(end),
                    2 => Upper::Unbounded,
                    other => return Err(format!("{other} is no kind of upper bound")),
                }
            },
        };
        Ok(StoredTable { keyspace, run: RunId { level, rank }, number, summary })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memtide_storage::blob::BlobHandle;
    use proptest::prelude::*;

    fn sample() -> Edit {
        let options = KeyspaceOptions {
            memtable_type: MemtableChoice::named("trie"),
            max_memtable_size: 1 << 20,
            logged: false,
            compaction: Compaction::default(),
        };
        let own = KeyspaceOptions {
            memtable_type: MemtableChoice::Named("time_log".to_owned()),
            ..options.clone()
        };
        let summary = TableSummary {
            size: 4711,
            checksum: u128::MAX / 3,
            rows: 9,
            keys: 8,
            deletes: 2,
            range_deletes: 1,
            smallest: b"a".to_vec(),
            largest: Upper::Excluded(b"z\xFF".to_vec()),
            seq_min: 4096,
            seq_max: PLACE_END - 1,
            raw_bytes: 12,
            blobs: BlobRefs::default(),
            salt: 0,
        };
        let mut with_blobs = TableSummary { salt: 5, ..summary.clone() };
        for number in [40, 9] {
            with_blobs.blobs.add(BlobHandle { number, offset: 64, len: 1 << 20, raw_len: 9 });
        }
        let blob = BlobSummary {
            size: 1 << 40,
            checksum: u128::MAX / 5,
            values: 7,
            bytes: (1 << 40) - 64,
            salt: u64::MAX,
        };
        Edit::new(vec![
            Change::Database { uuid: [7; 16], hash_seed: 99 },
            Change::KeyspaceAdd { id: 3, name: "übersicht".to_owned(), options },
            Change::KeyspaceOptions { id: 3, options: own },
            Change::KeyspaceCompaction { id: 3, compaction: Compaction::LazyLeveled },
            Change::TableAdd(StoredTable {
                keyspace: 3,
                run: RunId { level: 6, rank: 1 << 40 },
                number: 14,
                summary: summary.clone(),
            }),
            Change::TableAdd(StoredTable {
                keyspace: 3,
                run: RunId::first(6),
                number: 12,
                summary,
            }),
            Change::BlobAdd(StoredBlob { keyspace: 3, number: 40, summary: blob }),
            Change::TableAdd(StoredTable {
                keyspace: 3,
                run: RunId::first(0),
                number: 15,
                summary: with_blobs.clone(),
            }),
            Change::TableAdd(StoredTable {
                keyspace: 3,
                run: RunId { level: 5, rank: 2 },
                number: 16,
                summary: with_blobs,
            }),
            Change::TableDrop { keyspace: 3, number: 11 },
            Change::FlushedTo { keyspace: 3, seq: 70_000 },
            Change::WalStart { lsn: 4096 },
            Change::NextFile { number: 13 },
            Change::SeqHigh { seq: 1 << 40 },
            Change::NextKeyspace { id: 4 },
            Change::Closed(ClosedWal { base: 0, end: 8192 }),
        ])
    }

    #[test]
    fn every_change_reads_back() {
        let edit = sample();
        let bytes = edit.encode(17);
        assert_eq!(bytes.len() % 8, 0);
        assert_eq!(Edit::decode(&bytes, 17), Ok(edit));
        assert!(Edit::decode(&bytes, 18).is_err(), "another edit came before");
    }

    #[test]
    fn a_memtable_that_cannot_be_a_name_is_damage() {
        let edit = |name: &str| {
            let options = KeyspaceOptions {
                memtable_type: MemtableChoice::Named(name.to_owned()),
                max_memtable_size: 1 << 20,
                logged: true,
                compaction: Compaction::default(),
            };
            Edit::new(vec![Change::KeyspaceOptions { id: 0, options }])
        };
        for name in ["a", "time_log", "auto", &"n".repeat(64)] {
            assert_eq!(Edit::decode(&edit(name).encode(0), 0), Ok(edit(name)), "{name:?}");
        }
        for name in ["", "A", "a b", "ü", "\0", &"n".repeat(65)] {
            assert!(Edit::decode(&edit(name).encode(0), 0).is_err(), "{name:?}");
        }
    }

    #[test]
    fn unknown_changes_are_refused_unless_they_may_be_skipped() {
        let change =
            |tag: u16| [&[0; 8][..], &tag.to_le_bytes(), &1_u32.to_le_bytes(), &[9]].concat();
        assert!(Edit::decode(&change(999), 0).is_err());
        assert_eq!(Edit::decode(&change(999 | IGNORABLE), 0), Ok(Edit::default()));
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_an_error_and_never_a_panic(
            noise: Vec<u8>,
            cut in 0..600_usize,
            at in 0..600_usize,
            xor: u8,
        ) {
            let _ = Edit::decode(&noise, 0);
            let mut bytes = sample().encode(0);
            bytes.truncate(cut);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= xor;
            }
            let _ = Edit::decode(&bytes, 0);
        }
    }
}
