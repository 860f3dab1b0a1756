//! Finds the blocks of a table that may be damaged anywhere, without believing its index.
//!
//! A trailer shows where a block ends: a known kind and codec, no flags, a length before compression that can be. An
//! uncompressed block's length also says where it begins; a compressed one begins where another ends, or where an
//! index or metaindex says. Whether it is one, its checksum decides. All checksums of a table are seeded with its salt:
//! the footer has it, the manifest too. (The idea of carving files by their structure is that of forensic tools.)
//!
//! Memory is about one block of the largest size and 8 bytes for each block that an index names. Bytes hashed are
//! bounded by [`HASHED_PER_BYTE`] times the file.

use std::collections::BTreeSet;
use std::path::PathBuf;

use memtide_base::sync::Arc;
use memtide_base::{Error, Result};
use memtide_env::ReadFile;

use super::format::{Child, FOOTER_LEN, Footer, Section, TopRow, unsupported};
use super::parts::Payload;
use super::properties::Properties;
use crate::block::trailer::{self, BlockKind, TRAILER_LEN};
use crate::block::{BLOCK_LEN_MAX, BlockView, Role};
use crate::compress::{self, Codec};
use crate::identity::FileIdentity;
use crate::source::{Source, unshared, zeroed};

/// Bytes read at a time.
const READ_LEN: usize = 256 << 10;
/// Longest block.
const LEN_MAX: usize = BLOCK_LEN_MAX + TRAILER_LEN;
/// Ends of blocks that are remembered as beginnings of others.
const STARTS_MAX: usize = 32;
/// Honest files hash each byte once in a walk.
const HASHED_PER_BYTE: u64 = 8;
/// Walks that gather what indexes say, each able to find what the one before told of.
const WALKS_MAX: usize = 3;

/// A part of the file, in file order.
#[derive(Debug)]
pub enum Piece {
    /// A block whose checksum holds.
    Block(FoundBlock),
    /// Bytes that are no sound block.
    Damaged {
        /// First of them.
        offset: u64,
        /// How many.
        len: u64,
    },
}

/// A block whose checksum holds.
pub struct FoundBlock {
    /// What it is.
    pub kind: BlockKind,
    /// First byte of it.
    pub offset: u64,
    /// Its bytes in the file, trailer included.
    pub len: u64,
    payload: Payload,
    name: PathBuf,
}

impl std::fmt::Debug for FoundBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}, {} B", self.kind.name(), self.offset, self.len)
    }
}

impl FoundBlock {
    /// Bytes of it before compression.
    #[must_use]
    pub fn raw_len(&self) -> usize {
        self.payload.len
    }

    /// Its rows, if it is of a kind that has any.
    ///
    /// # Errors
    /// Corruption: its checksum holds, and yet it is not what a writer writes.
    pub fn rows(&self) -> Result<Option<BlockView>> {
        let role = match self.kind {
            BlockKind::Data => Role::Data,
            BlockKind::RangeDelete => Role::RangeDelete,
            BlockKind::Index | BlockKind::TopIndex => Role::Index,
            BlockKind::Filter | BlockKind::Properties | BlockKind::Metaindex => return Ok(None),
        };
        BlockView::decode(Arc::clone(&self.payload.bytes), self.payload.len, role)
            .map(Some)
            .map_err(|what| Error::corruption(self.kind.name(), &self.name, self.offset, what))
    }

    /// What the table says of itself, if this is the block for it.
    ///
    /// # Errors
    /// As [`FoundBlock::rows`].
    pub fn properties(&self) -> Result<Option<Properties>> {
        if self.kind != BlockKind::Properties {
            return Ok(None);
        }
        Properties::decode(self.payload.as_bytes(), self.offset, &self.name).map(Some)
    }

    /// Where other blocks begin or end, according to this one.
    fn hints(&self, into: &mut BTreeSet<u64>) {
        into.extend([self.offset, self.offset + self.len]);
        match (self.kind, self.rows()) {
            (BlockKind::Metaindex, _) => {
                let sections = Section::decode_all(self.payload.as_bytes()).unwrap_or_default();
                into.extend(sections.iter().map(|section| section.handle.offset));
            }
            (BlockKind::Index, Ok(Some(rows))) => {
                let children = (0..rows.rows()).filter_map(|row| Child::decode(rows.value(row)));
                into.extend(children.map(|child| child.handle.offset));
            }
            (BlockKind::TopIndex, Ok(Some(rows))) => {
                let rows = (0..rows.rows()).filter_map(|row| TopRow::decode(rows.value(row)));
                let rows: Vec<_> = rows.collect();
                // Partitions lie behind all data blocks, one behind the other.
                let mut at = rows.last().map_or(0, |row| row.data_end);
                for row in &rows {
                    for len in [row.index_len, row.filter_len] {
                        into.insert(at);
                        at = at.saturating_add(len.into());
                    }
                }
                into.insert(at);
            }
            _ => {}
        }
    }
}

/// A walk over the sound blocks of a table.
#[derive(Debug)]
pub struct Survey {
    source: Source,
    salt: u64,
    /// Where blocks end at the latest.
    end: u64,
    identity: Option<(u64, [u8; 16])>,
    footer: Result<()>,
    hints: BTreeSet<u64>,
    /// Behind what was told.
    at: u64,
    /// A block that was found behind damage.
    next: Option<FoundBlock>,
    window: Vec<u8>,
    window_at: u64,
    hashing_left: u64,
}

impl Survey {
    /// Opens the table in `file`, which errors call `name`; `salt` is what the manifest says, 0 if it does not.
    ///
    /// # Errors
    /// Whatever reading fails with; `Unsupported` for a sound block whose codec is not built in. Damage is no error.
    pub fn open(file: Arc<dyn ReadFile>, name: PathBuf, salt: u64) -> Result<Self> {
        let source = Source { file, name };
        let len = source.file.len().map_err(|error| Error::io("measure", &source.name, error))?;
        let mut survey = Self {
            salt,
            end: len,
            identity: None,
            footer: Ok(()),
            hints: BTreeSet::new(),
            at: 0,
            next: None,
            window: Vec::new(),
            window_at: 0,
            hashing_left: 0,
            source,
        };
        survey.read_footer(len)?;
        survey.restart();
        for _ in 0..WALKS_MAX {
            let (before, mut is_damaged) = (survey.hints.len(), false);
            while let Some(piece) = survey.next_piece()? {
                match piece {
                    Piece::Block(block) => block.hints(&mut survey.hints),
                    Piece::Damaged { .. } => is_damaged = true,
                }
            }
            survey.restart();
            if !is_damaged || survey.hints.len() == before {
                break;
            }
        }
        Ok(survey)
    }

    /// Number and database of the table, by its footer.
    #[must_use]
    pub fn identity(&self) -> Option<(u64, [u8; 16])> {
        self.identity
    }

    /// What is wrong with the footer.
    #[must_use]
    pub fn footer_damage(&self) -> Option<&Error> {
        self.footer.as_ref().err()
    }

    fn read_footer(&mut self, len: u64) -> Result<()> {
        let Some(at) = len.checked_sub(FOOTER_LEN as u64) else {
            self.footer =
                Err(self.source.damaged("table footer", 0, "the file is shorter than a footer"));
            return Ok(());
        };
        let mut bytes = [0; FOOTER_LEN];
        self.source.read(&mut bytes, at)?;
        let name = &self.source.name;
        let footer = Footer::decode(&bytes, at, name);
        let mended = |mut bytes: [u8; FOOTER_LEN]| {
            (0..8 * FOOTER_LEN).find_map(|bit| {
                bytes[bit / 8] ^= 1 << (bit % 8);
                let footer = Footer::decode(&bytes, at, name);
                bytes[bit / 8] ^= 1 << (bit % 8);
                footer.ok()
            })
        };
        // What a manifest says is surer than a bit that was guessed.
        let guessed = || if self.salt == 0 { mended(bytes) } else { None };
        let found = footer.as_ref().ok().copied().or_else(guessed);
        if let Some(footer) = found {
            (self.salt, self.identity) = (footer.file_salt, Some((footer.number, footer.db_uuid)));
            self.hints.insert(footer.metaindex.offset);
            self.end = at;
        }
        self.footer = footer.map(drop);
        Ok(())
    }

    /// Begins again at the front.
    fn restart(&mut self) {
        (self.at, self.next) = (0, None);
        self.hashing_left = self.end.saturating_mul(HASHED_PER_BYTE).saturating_add(LEN_MAX as u64);
    }

    /// The next part of the file, up to the footer if there is one.
    ///
    /// # Errors
    /// Whatever reading fails with.
    pub fn next_piece(&mut self) -> Result<Option<Piece>> {
        if let Some(block) = self.next.take() {
            self.at = block.offset + block.len;
            return Ok(Some(Piece::Block(block)));
        }
        if self.at >= self.end {
            return Ok(None);
        }
        let offset = self.at;
        match self.find()? {
            Some(block) if block.offset == offset => {
                self.at = block.offset + block.len;
                Ok(Some(Piece::Block(block)))
            }
            Some(block) => {
                let len = block.offset - offset;
                self.next = Some(block);
                Ok(Some(Piece::Damaged { offset, len }))
            }
            None => {
                self.at = self.end;
                Ok(Some(Piece::Damaged { offset, len: self.end - offset }))
            }
        }
    }

    /// The first sound block from `at` on.
    fn find(&mut self) -> Result<Option<FoundBlock>> {
        let from = self.at;
        let mut starts = vec![from];
        let mut hints: Vec<u64> = self.hints.range(from + 1..).copied().take(1 << 16).collect();
        hints.reverse();
        // The footer of a file that was cut or longer than it should be may be anywhere: ends are looked at byte by
        // byte.
        let mut end = from + TRAILER_LEN as u64 + 1;
        while end <= self.end {
            while hints.last().is_some_and(|hint| *hint < end) {
                starts.extend(hints.pop());
                if starts.len() > STARTS_MAX {
                    starts.remove(1);
                }
            }
            let Some(fields) = self.trailer_at(end - TRAILER_LEN as u64)? else {
                end += 1;
                continue;
            };
            for start in candidates(&starts, fields, from, end) {
                if let Some(block) = self.probe(start, end, fields)? {
                    return Ok(Some(block));
                }
            }
            starts.push(end);
            if starts.len() > STARTS_MAX {
                starts.remove(1);
            }
            end += 1;
        }
        Ok(None)
    }

    /// The fields of what may be a trailer.
    fn trailer_at(&mut self, at: u64) -> Result<Option<Fields>> {
        let [codec, kind, low, high, raw @ ..] = *self.bytes::<8>(at)?;
        if low | high != 0 || !(1..=7).contains(&kind) {
            return Ok(None);
        }
        let raw_len = u32::from_le_bytes(raw) as usize;
        let codec = Codec::from_byte(codec).filter(|_| raw_len <= BLOCK_LEN_MAX);
        Ok(codec.and_then(|codec| Some(Fields { codec, kind: kind_of(kind)?, raw_len })))
    }

    /// The block from `start` to `end`, if it is one.
    fn probe(&mut self, start: u64, end: u64, fields: Fields) -> Result<Option<FoundBlock>> {
        let len = end - start;
        let Some(left) = self.hashing_left.checked_sub(len) else { return Ok(None) };
        self.hashing_left = left;
        let mut block = zeroed(usize::try_from(len).expect("at most LEN_MAX"));
        self.source.read(unshared(&mut block), start)?;
        let Ok(sealed) = trailer::open(&block, fields.kind, self.salt ^ start) else {
            return Ok(None);
        };
        let stored = block.len() - TRAILER_LEN;
        let payload = if sealed.codec == Codec::None {
            Payload { bytes: block, len: stored }
        } else {
            if !sealed.codec.is_built_in() {
                return Err(unsupported(&self.source.name, format!("codec {:?}", sealed.codec)));
            }
            let mut bytes = zeroed(sealed.raw_len);
            let stored = &block[..stored];
            if compress::decompress(sealed.codec, stored, unshared(&mut bytes)).is_err() {
                return Ok(None);
            }
            Payload { bytes, len: sealed.raw_len }
        };
        let name = self.source.name.clone();
        Ok(Some(FoundBlock { kind: fields.kind, offset: start, len, payload, name }))
    }

    /// `N` bytes of the file, which has them.
    fn bytes<const N: usize>(&mut self, at: u64) -> Result<&[u8; N]> {
        let has = |survey: &Self| {
            at >= survey.window_at && at + N as u64 <= survey.window_at + survey.window.len() as u64
        };
        if !has(self) {
            let left = usize::try_from(self.end - at).unwrap_or(READ_LEN);
            let mut window = std::mem::take(&mut self.window);
            window.resize(left.min(READ_LEN), 0);
            self.source.read(&mut window, at)?;
            (self.window, self.window_at) = (window, at);
        }
        let from = usize::try_from(at - self.window_at).expect("inside the window");
        let found = self.window.get(from..).and_then(|bytes| bytes.first_chunk());
        found.ok_or_else(|| Error::internal("a table was read beyond its end"))
    }
}

/// What a trailer says, as far as it is needed to find its block.
#[derive(Clone, Copy)]
struct Fields {
    codec: Codec,
    kind: BlockKind,
    raw_len: usize,
}

fn kind_of(byte: u8) -> Option<BlockKind> {
    [
        BlockKind::Data,
        BlockKind::Index,
        BlockKind::Filter,
        BlockKind::RangeDelete,
        BlockKind::Properties,
        BlockKind::Metaindex,
        BlockKind::TopIndex,
    ]
    .into_iter()
    .find(|kind| *kind as u8 == byte)
}

/// Where a block that ends at `end` may begin, not before `from`: the nearest first, so that little is hashed.
fn candidates(starts: &[u64], fields: Fields, from: u64, end: u64) -> Vec<u64> {
    let payload_end = end - TRAILER_LEN as u64;
    if fields.codec == Codec::None {
        let start = payload_end.checked_sub(fields.raw_len as u64);
        return start.filter(|start| *start >= from && *start < payload_end).into_iter().collect();
    }
    let can_be = |start: &u64| {
        let stored = payload_end.checked_sub(*start).and_then(|len| usize::try_from(len).ok());
        stored.is_some_and(|stored| {
            stored > 0
                && stored <= BLOCK_LEN_MAX
                && fields.raw_len <= fields.codec.raw_len_max(stored)
        })
    };
    let mut found: Vec<u64> = starts.iter().copied().filter(can_be).collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found
}

/// The database and number that a table's footer names, without reading more of it; `None` if it is damaged.
///
/// # Errors
/// Whatever reading fails with.
pub fn footer_identity(
    file: &Arc<dyn ReadFile>,
    name: &std::path::Path,
) -> Result<Option<FileIdentity>> {
    let source = Source { file: Arc::clone(file), name: name.to_path_buf() };
    let len = source.file.len().map_err(|error| Error::io("measure", name, error))?;
    let Some(at) = len.checked_sub(FOOTER_LEN as u64) else { return Ok(None) };
    let mut bytes = [0; FOOTER_LEN];
    source.read(&mut bytes, at)?;
    let footer = Footer::decode(&bytes, at, name).ok();
    Ok(footer.map(|footer| FileIdentity {
        db_uuid: footer.db_uuid,
        number: footer.number,
        keyspace: 0,
    }))
}

#[cfg(test)]
mod tests {
    use memtide_base::{Kind, RangeTombstone, RangeTombstones};
    use proptest::prelude::*;

    use super::super::testing::{MemoryFile, build, options};
    use super::*;

    const SALT: u64 = 0x5A17;

    fn made(codec: Codec, partition_blocks: u16) -> Vec<u8> {
        let value =
            |n: u32| format!("value {n} of some words that repeat, repeat, repeat").into_bytes();
        let rows: Vec<_> = (0..400_u32)
            .map(|n| (n.to_be_bytes().to_vec(), u64::from(n) + 9, Kind::Put, value(n)))
            .collect();
        let tombstones = RangeTombstones::new(&[RangeTombstone::new(b"a", b"b", 7)]);
        let options = super::super::TableOptions { partition_blocks, ..options(512, codec) };
        build(&rows, &tombstones, options).0.bytes()
    }

    type Places = Vec<(BlockKind, u64, u64)>;

    /// The blocks, and the bytes that are none.
    fn survey(bytes: &[u8], salt: u64) -> (Places, u64) {
        let file = Arc::new(MemoryFile::of(bytes));
        let mut survey = Survey::open(file, PathBuf::from("t.sst"), salt).expect("memory");
        let (mut blocks, mut damaged, mut at) = (Vec::new(), 0, 0);
        while let Some(piece) = survey.next_piece().expect("memory") {
            let (offset, len) = match piece {
                Piece::Damaged { offset, len } => {
                    damaged += len;
                    (offset, len)
                }
                Piece::Block(block) => {
                    blocks.push((block.kind, block.offset, block.len));
                    (block.offset, block.len)
                }
            };
            assert_eq!(offset, at, "pieces follow each other");
            at = offset + len;
        }
        (blocks, damaged)
    }

    fn tables() -> Vec<Vec<u8>> {
        let codecs = [Codec::None, Codec::fastest()];
        codecs.iter().flat_map(|codec| [0, 4].map(|each| made(*codec, each))).collect()
    }

    #[test]
    fn every_block_of_a_sound_table_is_found_and_all_but_one_of_a_damaged_one() {
        for bytes in tables() {
            let (all, damaged) = survey(&bytes, 0);
            assert_eq!(damaged, 0, "every byte belongs to a block");
            let kinds = |kind| all.iter().filter(|(found, ..)| *found == kind).count();
            assert!(kinds(BlockKind::Data) > 8 && kinds(BlockKind::RangeDelete) == 1, "{all:?}");
            for at in 0..all.len() {
                let (_, offset, len) = all[at];
                // In its middle, and in its trailer, so that nothing shows where it ends.
                for place in [offset + len / 2, offset + len - 9] {
                    let mut harmed = bytes.clone();
                    harmed[usize::try_from(place).expect("small")] ^= 0x40;
                    let (mut found, damaged) = survey(&harmed, 0);
                    found.insert(at, all[at]);
                    assert_eq!((&found, damaged), (&all, len), "block {at}");
                }
            }
        }
    }

    #[test]
    fn without_a_footer_the_salt_tells_the_blocks_and_one_flipped_bit_is_mended() {
        for bytes in tables() {
            let (all, _) = survey(&bytes, 0);
            let mut harmed = bytes.clone();
            let end = harmed.len();
            harmed[end - FOOTER_LEN..].fill(0);
            assert_eq!(survey(&harmed, SALT).0, all);
            assert_eq!(survey(&harmed, 0).0, [], "nobody knows the salt");
            assert_eq!(survey(&harmed[..end - 1000], SALT).0, {
                let left = all.iter().filter(|(_, at, len)| at + len <= end as u64 - 1000);
                left.copied().collect::<Vec<_>>()
            });
            for bit in [0, 200, 16 * 8 + 5, 90 * 8] {
                let mut harmed = bytes.clone();
                harmed[end - FOOTER_LEN + bit / 8] ^= 1 << (bit % 8);
                assert_eq!(survey(&harmed, 0).0, all, "bit {bit}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn hostile_tables_never_panic_and_show_only_blocks_that_were_written(
            which in 0..4_usize,
            harms in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 1..200_usize), 0..4),
            cut: prop::sample::Index,
            is_cut: bool,
            noise in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            let bytes = &tables()[which];
            let (all, _) = survey(bytes, 0);
            let mut harmed = bytes.clone();
            for (at, byte, len) in &harms {
                let at = at.index(harmed.len());
                let end = (at + len).min(harmed.len());
                harmed[at..end].fill(*byte);
            }
            if is_cut {
                harmed.truncate(cut.index(harmed.len()));
            }
            let (found, _) = survey(&harmed, SALT);
            prop_assert!(found.iter().all(|block| all.contains(block)), "{:?}", found);
            let _ = survey(&noise, 0);
        }
    }
}
