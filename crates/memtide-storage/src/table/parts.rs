//! Reads blocks of a table file, and all at once what an open table keeps in memory.
//!
//! [`Source`] turns a handle into a checked, decompressed payload. [`Parts`] begins at the footer and
//! reads metaindex, properties, index and filter or the top index, and range tombstones, with one read of the
//! last 32 KiB as long as they lie there. What passes is consistent: the blocks cover the file without gaps, the
//! index names every data block in order, or the top index every partition, and counts agree with the properties.
//! Data blocks and partitions are not read.

use memtide_base::range_tombstone::Fragment;
use memtide_base::sync::Arc;
use memtide_base::{Error, RangeTombstones, Result};

use super::format::{FOOTER_LEN, Footer, IGNORABLE, Section, unsupported};
use super::partition::{Division, Partition};
use super::properties::Properties;
use crate::block::trailer::{self, BlockKind, Handle, TRAILER_LEN};
use crate::block::{BlockView, Role};
use crate::compress;
use crate::filter::Filter;
use crate::identity::FileIdentity;
use crate::source::{Source, unshared, zeroed};

/// Bytes read at the end of a table when it is opened.
const TAIL_LEN: u64 = 32 << 10;

/// A block's payload: the first `len` of `bytes`. A raw block keeps its trailer behind it, which saves
/// a copy.
pub(super) struct Payload {
    pub(super) bytes: Arc<[u8]>,
    pub(super) len: usize,
}

impl Payload {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Source {
    /// Reads a data block and validates every row's place in it.
    pub(super) fn data_block(&self, handle: Handle, file_salt: u64) -> Result<BlockView> {
        let mut block = zeroed(handle.len as usize);
        self.read(unshared(&mut block), handle.offset)?;
        self.data_block_of(block, handle.offset, file_salt)
    }

    /// As [`Source::data_block`], from bytes that were read before.
    pub(super) fn data_block_of(
        &self,
        block: Arc<[u8]>,
        offset: u64,
        file_salt: u64,
    ) -> Result<BlockView> {
        let payload = self.unseal(block, offset, BlockKind::Data, file_salt)?;
        self.view(payload, offset, BlockKind::Data, Role::Data)
    }

    pub(super) fn unseal(
        &self,
        block: Arc<[u8]>,
        at: u64,
        kind: BlockKind,
        salt: u64,
    ) -> Result<Payload> {
        let damaged = |detail: String| self.damaged(kind.name(), at, detail);
        let sealed = trailer::open(&block, kind, salt ^ at).map_err(damaged)?;
        if !sealed.codec.is_built_in() {
            return Err(unsupported(&self.name, format!("codec {:?}", sealed.codec)));
        }
        let stored = block.len() - TRAILER_LEN;
        if sealed.codec == compress::Codec::None {
            return Ok(Payload { bytes: block, len: stored });
        }
        let mut bytes = zeroed(sealed.raw_len);
        compress::decompress(sealed.codec, &block[..stored], unshared(&mut bytes))
            .map_err(damaged)?;
        Ok(Payload { bytes, len: sealed.raw_len })
    }

    pub(super) fn view(
        &self,
        payload: Payload,
        at: u64,
        kind: BlockKind,
        role: Role,
    ) -> Result<BlockView> {
        BlockView::decode(payload.bytes, payload.len, role)
            .map_err(|detail| self.damaged(kind.name(), at, detail))
    }
}

/// All of a table that an open one keeps.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) footer: Footer,
    pub(super) properties: Properties,
    /// `None` if the table has no point entries.
    pub(super) directory: Option<Directory>,
    pub(super) tombstones: RangeTombstones,
}

/// What leads to the data blocks.
#[derive(Debug)]
pub(super) enum Directory {
    Whole(Partition),
    Divided(Division),
}

impl Parts {
    /// Reads and checks them; the file must be `expected` and have `size` bytes.
    pub(super) fn read(source: &Source, expected: FileIdentity, size: u64) -> Result<Self> {
        let tail = Tail::read(source, size)?;
        let footer = tail.footer(expected)?;
        let sections = tail.sections(&footer)?;
        let properties = tail.properties(&sections, &footer, expected)?;
        let directory = match tail.division(&sections, &footer, &properties)? {
            Some(division) => Some(Directory::Divided(division)),
            None => tail.whole(&sections, &footer, &properties)?.map(Directory::Whole),
        };
        let tombstones = tail.tombstones(&sections, &footer, &properties)?;
        Ok(Self { footer, properties, directory, tombstones })
    }
}

/// The end of the file, read once.
struct Tail<'s> {
    source: &'s Source,
    bytes: Vec<u8>,
    start: u64,
    size: u64,
}

impl<'s> Tail<'s> {
    fn read(source: &'s Source, size: u64) -> Result<Self> {
        let len = source.file.len().map_err(|error| Error::io("measure", &source.name, error))?;
        if len != size || size < FOOTER_LEN as u64 {
            let detail = format!("the file has {len} B, the table has {size} B");
            return Err(source.damaged("table", len.min(size), detail));
        }
        let start = size.saturating_sub(TAIL_LEN);
        let len = usize::try_from(size - start).expect("at most TAIL_LEN");
        let mut tail = Self { source, bytes: vec![0; len], start, size };
        source.read(&mut tail.bytes, start)?;
        Ok(tail)
    }

    fn footer_at(&self) -> u64 {
        self.size - FOOTER_LEN as u64
    }

    fn footer(&self, expected: FileIdentity) -> Result<Footer> {
        let at = self.footer_at();
        let bytes = self.bytes.last_chunk().expect("the table has room for a footer");
        let footer = Footer::decode(bytes, at, self.source.name())?;
        if (footer.number, footer.db_uuid) != (expected.number, expected.db_uuid) {
            let detail = format!(
                "table {:016x} of database {}, expected table {:016x} of database {}",
                footer.number,
                hex(&footer.db_uuid),
                expected.number,
                hex(&expected.db_uuid)
            );
            return Err(self.source.damaged("table footer", at, detail));
        }
        let metaindex = footer.metaindex;
        if footer.file_len != self.size
            || metaindex.end() != Some(at)
            || !metaindex.has_valid_len()
            || footer.data_end > metaindex.offset
        {
            return Err(self.source.damaged("table footer", at, format!("{footer:?}")));
        }
        Ok(footer)
    }

    /// The metaindex; its blocks fill the file between data and metaindex, but for the partitions before a top index.
    fn sections(&self, footer: &Footer) -> Result<Vec<Section>> {
        let at = footer.metaindex.offset;
        let damaged = |detail: &str| self.source.damaged("metaindex block", at, detail);
        let payload = self.payload(footer.metaindex, BlockKind::Metaindex, footer)?;
        let sections = Section::decode_all(payload.as_bytes());
        let sections = sections.ok_or_else(|| damaged("not made of whole items"))?;
        let top = sections.first().filter(|first| first.kind == BlockKind::TopIndex as u16);
        let mut end = top.map_or(footer.data_end, |top| top.handle.offset.max(footer.data_end));
        for (at, section) in sections.iter().enumerate() {
            if at > 0 && section.kind == BlockKind::TopIndex as u16 {
                return Err(damaged("a top index that is not the first block"));
            }
            let known = [BlockKind::Filter, BlockKind::Index, BlockKind::RangeDelete]
                .into_iter()
                .chain([BlockKind::Properties, BlockKind::TopIndex])
                .any(|kind| kind as u16 == section.kind);
            if !known && section.kind & IGNORABLE == 0 {
                let what = format!("block kind {}", section.kind);
                return Err(unsupported(self.source.name(), what));
            }
            if section.handle.offset != end || !section.handle.has_valid_len() {
                return Err(damaged("its blocks do not follow each other"));
            }
            end = section.handle.end().ok_or_else(|| damaged("a block beyond all files"))?;
        }
        if end != at {
            return Err(damaged("its blocks do not end where it begins"));
        }
        Ok(sections)
    }

    fn properties(
        &self,
        sections: &[Section],
        footer: &Footer,
        expected: FileIdentity,
    ) -> Result<Properties> {
        let Some(handle) = self.only(sections, BlockKind::Properties, footer)? else {
            let at = footer.metaindex.offset;
            return Err(self.source.damaged("metaindex block", at, "no properties block"));
        };
        let payload = self.payload(handle, BlockKind::Properties, footer)?;
        let name = self.source.name();
        let properties = Properties::decode(payload.as_bytes(), handle.offset, name)?;
        if properties.identity != expected {
            let detail = format!("{:?}, expected {expected:?}", properties.identity);
            return Err(self.source.damaged("properties block", handle.offset, detail));
        }
        Ok(properties)
    }

    /// The partitions of a divided table.
    fn division(
        &self,
        sections: &[Section],
        footer: &Footer,
        properties: &Properties,
    ) -> Result<Option<Division>> {
        let kind = BlockKind::TopIndex;
        let Some(handle) = self.only(sections, kind, footer)? else { return Ok(None) };
        let damaged = |detail: &str| self.source.damaged(kind.name(), handle.offset, detail);
        let beside = [BlockKind::Index, BlockKind::Filter].map(|kind| kind as u16);
        if sections.iter().any(|section| beside.contains(&section.kind)) {
            return Err(damaged("an index or filter beside partitions"));
        }
        let payload = self.payload(handle, kind, footer)?;
        let top = self.source.view(payload, handle.offset, kind, Role::Index)?;
        let division = Division::new(top, footer.data_end, handle.offset, properties.rows);
        division.map(Some).map_err(|detail| damaged(&detail))
    }

    /// Index and filter of a table that is one partition.
    fn whole(
        &self,
        sections: &[Section],
        footer: &Footer,
        properties: &Properties,
    ) -> Result<Option<Partition>> {
        let filter = self.filter(sections, footer)?;
        let Some(handle) = self.only(sections, BlockKind::Index, footer)? else {
            if footer.data_end > 0 || properties.rows > 0 {
                let at = footer.metaindex.offset;
                return Err(self.source.damaged("metaindex block", at, "no index block"));
            }
            return Ok(None);
        };
        let payload = self.payload(handle, BlockKind::Index, footer)?;
        let index = self.source.view(payload, handle.offset, BlockKind::Index, Role::Index)?;
        Partition::new(index, filter, 0..footer.data_end, properties.rows)
            .map(Some)
            .map_err(|detail| self.source.damaged("index block", handle.offset, detail))
    }

    fn filter(&self, sections: &[Section], footer: &Footer) -> Result<Option<Filter>> {
        let Some(handle) = self.only(sections, BlockKind::Filter, footer)? else {
            return Ok(None);
        };
        let payload = self.payload(handle, BlockKind::Filter, footer)?;
        Filter::decode(payload.as_bytes())
            .map_err(|detail| self.source.damaged("filter block", handle.offset, detail))
    }

    fn tombstones(
        &self,
        sections: &[Section],
        footer: &Footer,
        properties: &Properties,
    ) -> Result<RangeTombstones> {
        let kind = BlockKind::RangeDelete;
        let (mut fragments, mut rows, mut start) = (Vec::<Fragment>::new(), 0, Vec::new());
        for section in sections.iter().filter(|section| section.kind == kind as u16) {
            let payload = self.payload(section.handle, kind, footer)?;
            let view = self.source.view(payload, section.handle.offset, kind, Role::RangeDelete)?;
            rows += view.rows() as u64;
            for row in 0..view.rows() {
                view.write_key(row, &mut start);
                let end = Some(view.value(row)).filter(|end| !end.is_empty());
                match fragments.last_mut() {
                    Some(last) if last.start == start && last.end.as_deref() == end => {
                        last.seqs.push(view.seq(row));
                    }
                    _ => fragments.push(Fragment {
                        start: start.clone(),
                        end: end.map(<[u8]>::to_vec),
                        seqs: vec![view.seq(row)],
                    }),
                }
            }
        }
        let whole = RangeTombstones::from_fragments(fragments);
        whole.filter(|_| rows == properties.range_deletes).ok_or_else(|| {
            let at = footer.data_end;
            self.source.damaged(kind.name(), at, "fragments overlap, are out of order or missing")
        })
    }

    /// The one block of a kind that may occur once.
    fn only(&self, all: &[Section], kind: BlockKind, footer: &Footer) -> Result<Option<Handle>> {
        let mut found = all.iter().filter(|section| section.kind == kind as u16);
        match (found.next(), found.next()) {
            (_, Some(_)) => {
                let detail = format!("more than one {}", kind.name());
                Err(self.source.damaged("metaindex block", footer.metaindex.offset, detail))
            }
            (first, None) => Ok(first.map(|section| section.handle)),
        }
    }

    fn payload(&self, handle: Handle, kind: BlockKind, footer: &Footer) -> Result<Payload> {
        let len = handle.len as usize;
        let in_tail = handle.offset.checked_sub(self.start).and_then(|from| {
            let from = usize::try_from(from).ok()?;
            self.bytes.get(from..from.checked_add(len)?)
        });
        let block = match in_tail {
            Some(bytes) => Arc::from(bytes),
            None => {
                let mut block = zeroed(len);
                self.source.read(unshared(&mut block), handle.offset)?;
                block
            }
        };
        self.source.unseal(block, handle.offset, kind, footer.file_salt)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
