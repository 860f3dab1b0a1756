//! What is in one file, piece by piece, as far as it can be read: damage is told and passed over.
//!
//! Keys and values are handed out as bytes; whether anyone sees them is the caller's choice.

use std::path::{Path, PathBuf};

use memtide_base::sync::Arc;
use memtide_base::{Error, Kind, Result, Upper};
use memtide_env::{ReadFile, Vfs};
use memtide_storage::blob::{BLOB_HEADER_LEN, BlobFile, BlobHandle};
use memtide_storage::block::trailer::BlockKind;
use memtide_storage::log::{
    BatchOps, HEADER_LEN, LogHeader, LogKind, LogReader, Opened, RecordKind, SEGMENT_BYTES_MAX,
    parse_manifest_file_name, parse_wal_file_name,
};
use memtide_storage::table::{Piece, Properties, Survey};

use crate::files::{self, BLOB_DIR, Layout, TABLE_DIR, WAL_DIR};
use crate::version::{self, Change, Edit};

/// What sort of file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpKind {
    /// A segment of the log.
    Wal,
    /// A manifest.
    Manifest,
    /// A table.
    Table,
    /// A blob file.
    Blob,
}

/// A piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpItem<'a> {
    /// First byte of it; of a row, of its block.
    pub offset: u64,
    /// What it is; `damage` for bytes that cannot be read.
    pub what: &'static str,
    /// What it says, in a fixed order.
    pub fields: &'a [(&'static str, DumpValue<'a>)],
}

/// What a field of a [`DumpItem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpValue<'a> {
    /// A number.
    Number(u64),
    /// Text that is no data of the database's users.
    Text(&'a str),
    /// Bytes of a key or value.
    Data(&'a [u8]),
}

use DumpValue::{Data, Number, Text};

/// Who is told the pieces.
pub(crate) type Tell<'t> = dyn FnMut(DumpItem<'_>) -> Result<()> + 't;

/// The files of that kind in the directory of a database; the file itself if it is none.
pub(crate) fn files_of(vfs: &dyn Vfs, path: &Path, kind: DumpKind) -> Result<Vec<PathBuf>> {
    let (dir, is_one): (&str, &dyn Fn(&Path) -> bool) = match kind {
        DumpKind::Wal => (WAL_DIR, &|name| parse_wal_file_name(name).is_some()),
        DumpKind::Manifest => ("", &|name| parse_manifest_file_name(name).is_some()),
        DumpKind::Table => (TABLE_DIR, &|name| files::parse_table_name(name).is_some()),
        DumpKind::Blob => (BLOB_DIR, &|name| files::parse_blob_name(name).is_some()),
    };
    if vfs.list(path).is_err() {
        return Ok(vec![path.to_path_buf()]);
    }
    let dir = if dir.is_empty() { path.to_path_buf() } else { path.join(dir) };
    match vfs.list(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io("list", dir, error)),
        Ok(found) => {
            let names = found.into_iter().map(|entry| entry.name);
            Ok(names.filter(|name| is_one(name)).map(|name| dir.join(name)).collect())
        }
    }
}

/// Tells what is in the file at `path`; how many damaged places it has.
///
/// # Errors
/// The file cannot be opened or read; a newer version wrote it; the first error of `tell`.
pub(crate) fn dump(vfs: &dyn Vfs, path: &Path, kind: DumpKind, tell: &mut Tell<'_>) -> Result<u64> {
    let file = vfs.open_read(path).map_err(|error| Error::io("open", path, error))?;
    let mut damages = 0;
    let mut counting = |item: DumpItem<'_>| {
        damages += u64::from(item.what == "damage");
        tell(item)
    };
    match kind {
        DumpKind::Wal => log(&file, path, LogKind::Wal, &mut counting)?,
        DumpKind::Manifest => log(&file, path, LogKind::Manifest, &mut counting)?,
        DumpKind::Table => table(vfs, &file, path, &mut counting)?,
        DumpKind::Blob => blob(vfs, &file, path, &mut counting)?,
    }
    Ok(damages)
}

fn damage(tell: &mut Tell<'_>, offset: u64, why: &str) -> Result<()> {
    tell(DumpItem { offset, what: "damage", fields: &[("why", Text(why))] })
}

fn uuid_text(uuid: [u8; 16]) -> String {
    uuid.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn log(file: &Arc<dyn ReadFile>, path: &Path, kind: LogKind, tell: &mut Tell<'_>) -> Result<()> {
    let opened = LogReader::of_file(Arc::clone(file), path);
    let (reader, why) = match opened {
        Ok(Opened::Log(reader)) => (Some(*reader), None),
        Ok(Opened::Torn { .. }) => {
            (without_header(file, path, kind)?, Some("it never became whole".to_owned()))
        }
        Err(error) if error.is_corruption() => {
            (without_header(file, path, kind)?, Some(error.to_string()))
        }
        Err(error) => return Err(error),
    };
    if let Some(why) = &why {
        damage(tell, 0, why)?;
    }
    let Some(mut reader) = reader else { return Ok(()) };
    let header = reader.header().clone();
    if why.is_none() {
        let fields = [
            ("database", Text(&uuid_text(header.db_uuid))),
            ("base", Number(header.base)),
            ("segment_bytes", Number(header.segment_bytes)),
            ("prev_end", Number(header.prev_end)),
            ("created_ms", Number(header.created_ms)),
        ];
        tell(DumpItem { offset: 0, what: "header", fields: &fields })?;
    }
    reader.set_tolerant(true);
    let (mut chain, mut passed_damage) = (None, why.is_some());
    loop {
        while let Some(record) = reader.next()? {
            let offset = record.lsn.wrapping_sub(header.base);
            let kind = match record.kind {
                RecordKind::Batch => "batch",
                RecordKind::Pad => "pad",
                RecordKind::Skip => "skip",
                RecordKind::Meta => "edit",
            };
            let len = record.end_lsn - record.lsn;
            let fields = [
                ("lsn", Number(record.lsn)),
                ("len", Number(len)),
                ("count", Number(record.count.into())),
            ];
            tell(DumpItem { offset, what: kind, fields: &fields })?;
            match record.kind {
                RecordKind::Batch => batch(record.payload, record.count, record.lsn, offset, tell)?,
                RecordKind::Meta => edit(record.payload, &mut chain, offset, tell)?,
                RecordKind::Pad | RecordKind::Skip => {}
            }
        }
        let Some(end) = reader.end() else { return Ok(()) };
        let (offset, torn) = (end.lsn.wrapping_sub(header.base), end.torn_bytes);
        let why = end.damage.as_ref().map(ToString::to_string);
        match &why {
            Some(why) => damage(tell, offset, why)?,
            None if torn > 0 && !passed_damage => {
                tell(DumpItem { offset, what: "torn", fields: &[("bytes", Number(torn))] })?;
            }
            None => {}
        }
        passed_damage |= why.is_some();
        // Behind a torn end lies what was never acknowledged as durable; behind damage what was.
        if !passed_damage || reader.skip_damage()?.is_none() {
            return Ok(());
        }
    }
}

/// Reads a log whose header page is damaged, with the salt that it still has.
fn without_header(
    file: &Arc<dyn ReadFile>,
    path: &Path,
    kind: LogKind,
) -> Result<Option<LogReader>> {
    let mut page = [0; 4096];
    let len = file.len().map_err(|error| Error::io("measure", path, error))?;
    if len < HEADER_LEN {
        return Ok(None);
    }
    file.read_exact_at(&mut page, 0).map_err(|error| Error::io("read", path, error))?;
    let stored = page[48..56].first_chunk().map_or(0, |salt| u64::from_le_bytes(*salt));
    let header = LogHeader::decode_mended(path, &page).unwrap_or(LogHeader {
        kind,
        db_uuid: [0; 16],
        salt: stored,
        base: parse_wal_file_name(path).unwrap_or_default(),
        segment_bytes: if kind == LogKind::Wal { SEGMENT_BYTES_MAX } else { 0 },
        prev_salt: 0,
        prev_end: 0,
        created_ms: 0,
        required_features: 0,
        minor: 0,
    });
    LogReader::with_header(Arc::clone(file), path, header).map(Some)
}

fn batch(payload: &[u8], count: u32, lsn: u64, offset: u64, tell: &mut Tell<'_>) -> Result<()> {
    for (op, seq) in BatchOps::new(payload, count).zip(lsn..) {
        match op {
            Ok(op) => {
                let fields = [
                    ("seq", Number(seq)),
                    ("keyspace", Number(op.keyspace.into())),
                    ("key", Data(op.key)),
                    ("value", Data(op.value)),
                ];
                tell(DumpItem { offset, what: kind_name(op.kind), fields: &fields })?;
            }
            Err(what) => damage(tell, offset, &what.to_string())?,
        }
    }
    Ok(())
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Delete => "delete",
        Kind::Put => "put",
        Kind::Merge => "merge",
        Kind::SingleDelete => "single_delete",
        Kind::RangeDelete => "range_delete",
        Kind::BlobHandle => "blob_handle",
        Kind::PutWithExpiry => "put_with_expiry",
    }
}

fn edit(payload: &[u8], chain: &mut Option<u64>, offset: u64, tell: &mut Tell<'_>) -> Result<()> {
    let stored = payload.first_chunk().map_or(0, |chain| u64::from_le_bytes(*chain));
    if chain.is_some_and(|chain| chain != stored) {
        damage(tell, offset, "an edit before it is missing or another")?;
    }
    *chain = Some(memtide_base::checksum::xxh3_64(0, payload));
    match Edit::decode(payload, stored) {
        Ok(edit) => edit.changes.iter().try_for_each(|change| tell_change(change, offset, tell)),
        Err(why) => damage(tell, offset, &why),
    }
}

fn tell_change(change: &Change, offset: u64, tell: &mut Tell<'_>) -> Result<()> {
    let mut item =
        |what, fields: &[(&'static str, DumpValue<'_>)]| tell(DumpItem { offset, what, fields });
    match change {
        Change::Database { uuid, .. } => item("database", &[("uuid", Text(&uuid_text(*uuid)))]),
        Change::KeyspaceAdd { id, name, options } => item(
            "keyspace",
            &[
                ("id", Number((*id).into())),
                ("name", Text(name)),
                ("memtable", Text(options.memtable_type.name())),
                ("memtable_bytes", Number(options.max_memtable_size)),
                ("logged", Number(options.logged.into())),
            ],
        ),
        Change::KeyspaceOptions { id, options } => item(
            "keyspace_options",
            &[
                ("id", Number((*id).into())),
                ("memtable", Text(options.memtable_type.name())),
                ("memtable_bytes", Number(options.max_memtable_size)),
                ("logged", Number(options.logged.into())),
            ],
        ),
        Change::KeyspaceCompaction { id, compaction } => item(
            "keyspace_compaction",
            &[("id", Number((*id).into())), ("strategy", Text(compaction.name()))],
        ),
        Change::TableAdd(table) => {
            let summary = &table.summary;
            item(
                "table",
                &[
                    ("number", Number(table.number)),
                    ("keyspace", Number(table.keyspace.into())),
                    ("level", Number(table.run.level as u64)),
                    ("rank", Number(table.run.rank)),
                    ("bytes", Number(summary.size)),
                    ("rows", Number(summary.rows)),
                    ("range_deletes", Number(summary.range_deletes)),
                    ("seq_min", Number(summary.seq_min)),
                    ("seq_max", Number(summary.seq_max)),
                    ("blob_files", Number(summary.blobs.len() as u64)),
                    ("smallest", Data(&summary.smallest)),
                    ("largest", upper(&summary.largest)),
                ],
            )
        }
        Change::BlobAdd(blob) => item(
            "blob",
            &[
                ("number", Number(blob.number)),
                ("keyspace", Number(blob.keyspace.into())),
                ("bytes", Number(blob.summary.size)),
                ("values", Number(blob.summary.values)),
            ],
        ),
        Change::TableDrop { keyspace, number } => item(
            "table_dropped",
            &[("number", Number(*number)), ("keyspace", Number((*keyspace).into()))],
        ),
        Change::FlushedTo { keyspace, seq } => {
            item("flushed_to", &[("keyspace", Number((*keyspace).into())), ("seq", Number(*seq))])
        }
        Change::WalStart { lsn } => item("wal_start", &[("lsn", Number(*lsn))]),
        Change::NextFile { number } => item("next_file", &[("number", Number(*number))]),
        Change::SeqHigh { seq } => item("seq_high", &[("seq", Number(*seq))]),
        Change::NextKeyspace { id } => item("next_keyspace", &[("id", Number((*id).into()))]),
        Change::Closed(closed) => {
            item("closed", &[("base", Number(closed.base)), ("end", Number(closed.end))])
        }
    }
}

fn upper(upper: &Upper) -> DumpValue<'_> {
    match upper {
        Upper::Included(key) | Upper::Excluded(key) => Data(key),
        Upper::Unbounded => Text("unbounded"),
    }
}

/// What the manifest of the database around a file says of its salt; 0 if none can be read.
fn salt(vfs: &dyn Vfs, path: &Path, number: Option<u64>, is_table: bool) -> u64 {
    let root = path.parent().and_then(Path::parent);
    let (Some(root), Some(number)) = (root, number) else { return 0 };
    let layout = Layout::new(root);
    let found = vfs.list(root).unwrap_or_default();
    let manifests = found.iter().filter_map(|entry| parse_manifest_file_name(&entry.name));
    let Some(state) = manifests.max().and_then(|at| version::load_partly(vfs, &layout, at)) else {
        return 0;
    };
    let mut versions = state.keyspaces.iter().map(|keyspace| &keyspace.version);
    let salt = if is_table {
        versions
            .find_map(|v| v.tables().find(|table| table.number == number).map(|table| table.salt))
    } else {
        versions.find_map(|v| v.blob(number).map(|blob| blob.summary.salt))
    };
    salt.unwrap_or_default()
}

fn table(vfs: &dyn Vfs, file: &Arc<dyn ReadFile>, path: &Path, tell: &mut Tell<'_>) -> Result<()> {
    let salt = salt(vfs, path, files::parse_table_name(path), true);
    let mut survey = Survey::open(Arc::clone(file), path.to_path_buf(), salt)?;
    while let Some(piece) = survey.next_piece()? {
        let block = match piece {
            Piece::Damaged { offset, len } => {
                damage(tell, offset, &format!("{len} bytes are no sound block"))?;
                continue;
            }
            Piece::Block(block) => block,
        };
        let offset = block.offset;
        let (len, raw_len) = (Number(block.len), Number(block.raw_len() as u64));
        let (rows, own) = match (block.rows(), block.properties()) {
            (Ok(rows), Ok(own)) => (rows, own),
            (Err(error), _) | (_, Err(error)) => {
                damage(tell, offset, &error.to_string())?;
                continue;
            }
        };
        let count = Number(rows.as_ref().map_or(0, |rows| rows.rows() as u64));
        let fields = [
            ("kind", Text(block.kind.name())),
            ("len", len),
            ("raw_len", raw_len),
            ("rows", count),
        ];
        tell(DumpItem { offset, what: "block", fields: &fields })?;
        if let Some(own) = own {
            properties(&own, offset, tell)?;
        }
        let Some(rows) =
            rows.filter(|_| matches!(block.kind, BlockKind::Data | BlockKind::RangeDelete))
        else {
            continue;
        };
        let mut key = Vec::new();
        for row in 0..rows.rows() {
            rows.write_key(row, &mut key);
            let (kind, value) = (rows.kind(row), rows.value(row));
            let place = BlobHandle::decode(value).filter(|_| kind == Kind::BlobHandle);
            let seq = ("seq", Number(rows.seq(row)));
            match place {
                Some(place) => {
                    let fields = [
                        seq,
                        ("key", Data(&key)),
                        ("blob", Number(place.number)),
                        ("at", Number(place.offset)),
                        ("value_len", Number(place.raw_len.into())),
                    ];
                    tell(DumpItem { offset, what: kind_name(kind), fields: &fields })?;
                }
                None => {
                    let fields = [seq, ("key", Data(&key)), ("value", Data(value))];
                    tell(DumpItem { offset, what: kind_name(kind), fields: &fields })?;
                }
            }
        }
    }
    let at = file.len().map_err(|error| Error::io("measure", path, error))?.saturating_sub(96);
    match (survey.footer_damage(), survey.identity()) {
        (Some(error), _) => damage(tell, at, &error.to_string()),
        (None, Some((number, uuid))) => {
            let fields = [("number", Number(number)), ("database", Text(&uuid_text(uuid)))];
            tell(DumpItem { offset: at, what: "footer", fields: &fields })
        }
        (None, None) => Ok(()),
    }
}

fn properties(own: &Properties, offset: u64, tell: &mut Tell<'_>) -> Result<()> {
    let fields = [
        ("number", Number(own.identity.number)),
        ("keyspace", Number(own.identity.keyspace.into())),
        ("created_ms", Number(own.created_ms)),
        ("rows", Number(own.rows)),
        ("deletes", Number(own.deletes)),
        ("range_deletes", Number(own.range_deletes)),
        ("keys", Number(own.keys)),
        ("seq_min", Number(own.seq_min)),
        ("seq_max", Number(own.seq_max)),
        ("codec", Text(own.codec.name())),
        ("writer", Text(&own.writer)),
        ("smallest", Data(&own.smallest)),
        ("largest", upper(&own.largest)),
    ];
    tell(DumpItem { offset, what: "properties", fields: &fields })
}

fn blob(vfs: &dyn Vfs, file: &Arc<dyn ReadFile>, path: &Path, tell: &mut Tell<'_>) -> Result<()> {
    let salt = salt(vfs, path, files::parse_blob_name(path), false);
    let (blob, identity) = BlobFile::open_damaged(Arc::clone(file), path.to_path_buf(), salt)?;
    match identity {
        Some(identity) => {
            let fields = [
                ("number", Number(identity.number)),
                ("keyspace", Number(identity.keyspace.into())),
                ("database", Text(&uuid_text(identity.db_uuid))),
            ];
            tell(DumpItem { offset: 0, what: "header", fields: &fields })?;
        }
        None => damage(tell, 0, "its header is damaged")?,
    }
    let mut at = BLOB_HEADER_LEN;
    loop {
        let found = blob.record_from(at)?;
        let next = found.as_ref().map_or(blob.size(), |record| record.offset);
        if next > at {
            damage(tell, at, &format!("{} bytes are no sound record", next - at))?;
        }
        let Some(record) = found else { return Ok(()) };
        let fields = [
            ("len", Number(record.len)),
            ("value_len", Number(record.raw_len.into())),
            ("key", Data(&record.key)),
        ];
        tell(DumpItem { offset: record.offset, what: "value", fields: &fields })?;
        at = record.offset + record.len;
    }
}
