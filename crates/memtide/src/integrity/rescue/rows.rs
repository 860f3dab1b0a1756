//! The sound rows of tables that may be damaged, in order, and between which of them others are missing.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use memtide_base::key::KEY_LEN_MAX;
use memtide_base::range_tombstone::RangeTombstone;
use memtide_base::sync::Arc;
use memtide_base::{Kind, Result, SeqNo};
use memtide_env::ReadFile;
use memtide_storage::block::BlockView;
use memtide_storage::block::trailer::BlockKind;
use memtide_storage::table::{Piece, Survey};

use super::KeySpan;

/// A table to read rows of.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) file: Arc<dyn ReadFile>,
    pub(super) name: PathBuf,
    /// Its number and database: a footer that names others tells of others.
    pub(super) identity: (u64, [u8; 16]),
    /// 0 if only the file knows.
    pub(super) salt: u64,
    /// Rows and range tombstones that it must have, if that is known.
    pub(super) counts: Option<(u64, u64)>,
    /// Its bounds, if they are known.
    pub(super) bounds: Option<(Vec<u8>, Option<Vec<u8>>)>,
    pub(super) seqs: Option<(SeqNo, SeqNo)>,
}

/// What is lost of one table.
pub(super) struct TableLoss {
    pub(super) name: PathBuf,
    pub(super) seqs: Option<(SeqNo, SeqNo)>,
    pub(super) keys: KeySpan,
    pub(super) what: String,
}

/// The rows of one table.
struct Rows {
    source: Source,
    survey: Survey,
    block: Option<(BlockView, usize)>,
    key: Vec<u8>,
    /// The last row that was told.
    last: Option<(Vec<u8>, SeqNo)>,
    seen: u64,
    /// Offset and length of damage behind the last row.
    gap: Option<(u64, u64)>,
    losses: Vec<TableLoss>,
}

/// A file without bytes.
#[derive(Debug)]
struct Nothing;

impl ReadFile for Nothing {
    fn read_exact_at(&self, buf: &mut [u8], _: u64) -> io::Result<()> {
        if buf.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }
}

impl Source {
    fn span(&self) -> KeySpan {
        let (from, to) = self.bounds.clone().map_or((None, None), |(from, to)| (Some(from), to));
        KeySpan { from, to }
    }

    fn survey(&self) -> Result<Survey> {
        let survey = Survey::open(Arc::clone(&self.file), self.name.clone(), self.salt)?;
        if survey.identity().is_none_or(|identity| identity == self.identity) {
            return Ok(survey);
        }
        // Nothing of another table is sound here.
        let nothing: Arc<dyn ReadFile> = Arc::new(Nothing);
        Survey::open(nothing, self.name.clone(), 0)
    }

    /// Its sound range tombstones, and what is lost of them.
    pub(super) fn tombstones(&self) -> Result<(Vec<RangeTombstone>, Option<TableLoss>)> {
        let (mut found, mut is_damaged) = (Vec::new(), false);
        let mut survey = self.survey()?;
        while let Some(piece) = survey.next_piece()? {
            match piece {
                Piece::Damaged { .. } => is_damaged = true,
                Piece::Block(block) if block.kind == BlockKind::RangeDelete => match block.rows() {
                    Ok(Some(rows)) => {
                        let mut start = Vec::new();
                        for row in 0..rows.rows() {
                            rows.write_key(row, &mut start);
                            let tombstone =
                                RangeTombstone::new(&start, rows.value(row), rows.seq(row));
                            is_damaged |= tombstone.is_empty();
                            found.push(tombstone);
                        }
                    }
                    _ => is_damaged = true,
                },
                Piece::Block(_) => {}
            }
        }
        is_damaged |= survey.footer_damage().is_some();
        let all = match self.counts {
            Some((_, deletes)) => found.len() as u64 == deletes,
            None => !is_damaged,
        };
        let loss = (!all).then(|| TableLoss {
            name: self.name.clone(),
            seqs: self.seqs,
            keys: self.span(),
            what: "deletes of ranges are lost: what they deleted may show again".to_owned(),
        });
        Ok((found, loss))
    }
}

impl Rows {
    fn open(source: &Source) -> Result<Self> {
        let survey = source.survey()?;
        Ok(Self {
            source: source.clone(),
            survey,
            block: None,
            key: Vec::new(),
            last: None,
            seen: 0,
            gap: None,
            losses: Vec::new(),
        })
    }

    /// Goes to the next sound row; `false` behind the last.
    fn next(&mut self) -> Result<bool> {
        if let Some((block, row)) = &mut self.block {
            *row += 1;
            if *row < block.rows() {
                block.write_key(*row, &mut self.key);
                self.told();
                return Ok(true);
            }
            self.block = None;
        }
        while let Some(piece) = self.survey.next_piece()? {
            let (offset, len) = match &piece {
                Piece::Damaged { offset, len } => (*offset, *len),
                Piece::Block(block) => (block.offset, block.len),
            };
            match piece {
                Piece::Block(block) if block.kind != BlockKind::Data => {}
                Piece::Block(block) => match block.rows() {
                    Ok(Some(rows)) if self.follows(&rows) => {
                        rows.write_key(0, &mut self.key);
                        self.end_gap(Some(self.key.clone()));
                        self.block = Some((rows, 0));
                        self.told();
                        return Ok(true);
                    }
                    _ => self.widen(offset, len),
                },
                Piece::Damaged { .. } => self.widen(offset, len),
            }
        }
        if self.survey.footer_damage().is_some() && self.gap.is_none() {
            // A file that was cut behind a block shows no damage.
            self.gap = Some((0, 0));
        }
        let end = self.source.bounds.as_ref().and_then(|(_, to)| to.clone());
        self.end_gap(end);
        // Where all rows are there, what is damaged were not rows.
        if self.source.counts.is_some_and(|(rows, _)| rows == self.seen) {
            self.losses.clear();
        } else if let Some((rows, _)) = self.source.counts.filter(|_| self.losses.is_empty()) {
            let what = format!("it has {} rows of {rows}", self.seen);
            self.lose(self.source.span(), what);
        }
        Ok(false)
    }

    fn told(&mut self) {
        self.seen += 1;
        let (last, seq) = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(&self.key);
        if let Some((block, row)) = &self.block {
            *seq = block.seq(*row);
        }
    }

    /// Whether the rows of a block come behind what was told, and can be written again.
    fn follows(&self, rows: &BlockView) -> bool {
        let (mut first, mut longest) = (Vec::new(), Vec::new());
        rows.write_key(0, &mut first);
        let fits = (0..rows.rows()).all(|row| {
            rows.write_key(row, &mut longest);
            longest.len() <= KEY_LEN_MAX
        });
        let is_behind = self.last.as_ref().is_none_or(|(last, seq)| match last.cmp(&first) {
            Ordering::Less => true,
            Ordering::Equal => rows.seq(0) < *seq,
            Ordering::Greater => false,
        });
        fits && is_behind
    }

    fn widen(&mut self, offset: u64, len: u64) {
        let (from, _) = *self.gap.get_or_insert((offset, 0));
        self.gap = Some((from, offset + len - from));
    }

    fn end_gap(&mut self, to: Option<Vec<u8>>) {
        let Some((offset, len)) = self.gap.take() else { return };
        let smallest = self.source.bounds.as_ref().map(|(from, _)| from.clone());
        let from = self.last.as_ref().map(|(last, _)| last.clone()).or(smallest);
        let what = format!("{len} bytes from offset {offset} on are damaged");
        self.lose(KeySpan { from, to }, what);
    }

    fn lose(&mut self, keys: KeySpan, what: String) {
        let (name, seqs) = (self.source.name.clone(), self.source.seqs);
        self.losses.push(TableLoss { name, seqs, keys, what });
    }
}

/// Tables whose keys do not overlap, one behind the other.
struct Chain {
    waiting: VecDeque<Source>,
    rows: Option<Rows>,
}

impl Chain {
    fn next(&mut self, losses: &mut Vec<TableLoss>) -> Result<bool> {
        loop {
            if let Some(rows) = &mut self.rows {
                if rows.next()? {
                    return Ok(true);
                }
                losses.append(&mut rows.losses);
                self.rows = None;
            }
            match self.waiting.pop_front() {
                Some(source) => self.rows = Some(Rows::open(&source)?),
                None => return Ok(false),
            }
        }
    }
}

/// A row.
pub(super) struct Row<'a> {
    pub(super) key: &'a [u8],
    pub(super) seq: SeqNo,
    pub(super) kind: Kind,
    pub(super) value: &'a [u8],
    /// The table it is from.
    pub(super) name: &'a PathBuf,
}

/// The rows of many tables, merged: keys rise, seqs of a key fall, each version comes once.
pub(super) struct Merge {
    /// Each stands at a row.
    chains: Vec<Chain>,
    /// The one whose row was told.
    at: Option<usize>,
    last: Option<(Vec<u8>, SeqNo)>,
    pub(super) losses: Vec<TableLoss>,
}

impl Merge {
    /// Memory is that of one table for each that overlaps another.
    pub(super) fn new(mut sources: Vec<Source>) -> Result<Self> {
        sources.sort_by(|a, b| a.bounds.cmp(&b.bounds));
        let mut chains: Vec<(Option<Vec<u8>>, Chain)> = Vec::new();
        for source in sources {
            // One of unknown bounds is a chain of its own, and so is what is behind one without an end.
            let bounds = source.bounds.clone();
            let end = bounds.as_ref().and_then(|(_, to)| to.clone());
            let place = bounds.and_then(|(from, _)| {
                chains.iter().position(|(end, _)| end.as_ref().is_some_and(|end| *end < from))
            });
            match place {
                Some(place) => {
                    chains[place].0 = end;
                    chains[place].1.waiting.push_back(source);
                }
                None => chains.push((end, Chain { waiting: [source].into(), rows: None })),
            }
        }
        let mut merge = Self { chains: Vec::new(), at: None, last: None, losses: Vec::new() };
        for (_, mut chain) in chains {
            if chain.next(&mut merge.losses)? {
                merge.chains.push(chain);
            }
        }
        Ok(merge)
    }

    /// Goes to the next version; `false` behind the last.
    pub(super) fn next(&mut self) -> Result<bool> {
        loop {
            if let Some(at) = self.at.take()
                && !self.chains[at].next(&mut self.losses)?
            {
                self.chains.swap_remove(at);
            }
            let of = |chain: &Chain| {
                let rows = chain.rows.as_ref()?;
                let (block, row) = rows.block.as_ref()?;
                Some((rows.key.clone(), u64::MAX - block.seq(*row)))
            };
            let places = self.chains.iter().enumerate();
            let Some((at, first)) = places
                .filter_map(|(at, chain)| Some((at, of(chain)?)))
                .min_by(|(_, a), (_, b)| a.cmp(b))
            else {
                return Ok(false);
            };
            self.at = Some(at);
            if self.last.as_ref() != Some(&first) {
                self.last = Some(first);
                return Ok(true);
            }
        }
    }

    /// The version it stands at.
    pub(super) fn row(&self) -> Option<Row<'_>> {
        let rows = self.chains.get(self.at?)?.rows.as_ref()?;
        let (block, row) = rows.block.as_ref()?;
        Some(Row {
            key: &rows.key,
            seq: block.seq(*row),
            kind: block.kind(*row),
            value: block.value(*row),
            name: &rows.source.name,
        })
    }
}
