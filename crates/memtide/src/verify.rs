//! Reads every byte of a closed database and reports all damage, not only the first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use memtide_base::seqno::SEE_ALL;
use memtide_base::sync::Arc;
use memtide_base::{Cursor, Error, Kind, Result, Target};
use memtide_env::{Env, Heap, ReadFile, Vfs};
use memtide_memtable::{MemtableType, Registry};
use memtide_storage::blob::BlobFile;
use memtide_storage::budget::Budget;
use memtide_storage::log::{LogReader, Opened, parse_wal_file_name};
use memtide_storage::table::{Table, TableShared};
use memtide_storage::{FileIdentity, verify_file};

use crate::config::{Config, KeyspaceConfig};
use crate::files::{self, Layout, WAL_DIR};
use crate::recovery::{self, OpenMode};
use crate::version::{self, BlobMeta, Graveyard, TableMeta, Version};

/// What errors call one.
const BLOB_FILE: &str = "blob file";

/// What a verification read and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Files that were read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Everything that is wrong.
    pub damages: Vec<Damage>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file, relative to the database.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

impl VerifyReport {
    fn note(&mut self, error: &Error) {
        let damage = Damage {
            file: error.file().unwrap_or(Path::new("?")).to_path_buf(),
            offset: error.offset().unwrap_or_default(),
            what: error.to_string(),
        };
        if !self.damages.contains(&damage) {
            self.damages.push(damage);
        }
    }
}

/// Reads everything a database in `root` has: manifest, log, tables, blob files, every checksum, every order and count.
///
/// # Errors
/// The database is open elsewhere, or there is none. Damage is no error here, it is in the report.
pub(crate) fn verify(env: &Env, root: &Path) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    // Opening read-only checks the chain of segments, file sizes, and replays the log.
    // The engine holds the lock, so that nobody compacts meanwhile what is being read.
    let config = with_known_memtables(env, root);
    let _engine = match recovery::open(env, root, &config, &Registry::new(), OpenMode::ReadOnly) {
        Ok((engine, _)) => Some(engine),
        Err(error) if error.is_corruption() => {
            report.note(&error);
            None
        }
        Err(error) => return Err(error),
    };
    let layout = Layout::new(root);
    verify_log(&*env.vfs, &layout, &mut report);
    let Ok(Some(number)) = version::read_current(&*env.vfs, &layout) else { return Ok(report) };
    report.files += 2;
    let graveyard = Arc::new(Graveyard::default());
    match version::load(&*env.vfs, &layout, number, &graveyard) {
        Err(error) => report.note(&error),
        Ok((state, _)) => {
            for keyspace in &state.keyspaces {
                verify_keyspace(&*env.vfs, &layout, state.uuid, &keyspace.version, &mut report);
            }
        }
    }
    Ok(report)
}

fn verify_keyspace(
    vfs: &dyn Vfs,
    layout: &Layout,
    db_uuid: [u8; 16],
    version: &Version,
    report: &mut VerifyReport,
) {
    let mut take = |bytes: u64, checked: Result<()>| {
        report.files += 1;
        report.bytes = report.bytes.saturating_add(bytes);
        if let Err(error) = checked {
            report.note(&error);
        }
    };
    // What cannot be opened is reported once, here.
    let mut blobs = BTreeMap::new();
    for meta in version.blobs() {
        let opened = open_blob(vfs, layout, db_uuid, meta);
        take(
            meta.summary.size,
            opened.as_ref().map_or_else(|e| Err(e.again()), |file| verify_blob(meta, file)),
        );
        blobs.extend(opened.ok().map(|file| (meta.number, file)));
    }
    for table in version.tables() {
        let checked = verify_table(vfs, layout, db_uuid, table);
        take(table.size, checked.and_then(|table| verify_handles(version, &blobs, &table)));
    }
}

/// Names one of the eight for every keyspace: what is on disk does not depend on who can make memtables.
fn with_known_memtables(env: &Env, root: &Path) -> Config {
    let mut config = Config::default();
    let (layout, graveyard) = (Layout::new(root), Arc::new(Graveyard::default()));
    let state = match version::read_current(&*env.vfs, &layout) {
        Ok(Some(number)) => version::load(&*env.vfs, &layout, number, &graveyard),
        // Opening says what is wrong.
        _ => return config,
    };
    for keyspace in state.iter().flat_map(|(state, _)| &state.keyspaces) {
        let memtable_type = Some(MemtableType::Skiplist.into());
        let own = KeyspaceConfig { memtable_type, ..KeyspaceConfig::default() };
        config.keyspaces.insert(keyspace.name.clone(), own);
    }
    config
}

fn verify_log(vfs: &dyn Vfs, layout: &Layout, report: &mut VerifyReport) {
    let Ok(found) = vfs.list(&layout.at(WAL_DIR)) else { return };
    for entry in found {
        if let Some(base) = parse_wal_file_name(&entry.name) {
            report.files += 1;
            report.bytes += entry.len;
            let name = files::wal_name(base);
            if let Err(error) = read_segment(vfs, layout, &name) {
                report.note(&error);
            }
        }
    }
}

fn read_segment(vfs: &dyn Vfs, layout: &Layout, name: &Path) -> Result<()> {
    if let Opened::Log(mut reader) = LogReader::open(vfs, &layout.at(name), name)? {
        while reader.next()?.is_some() {}
    }
    Ok(())
}

fn verify_table(
    vfs: &dyn Vfs,
    layout: &Layout,
    db_uuid: [u8; 16],
    meta: &TableMeta,
) -> Result<Arc<Table>> {
    let (what, name) = ("table", files::table_name(meta.number));
    let file = open(vfs, layout, what, &name)?;
    verify_file(what, Arc::clone(&file), name.clone(), meta.size, meta.checksum)?;
    let identity = FileIdentity { db_uuid, number: meta.number, keyspace: meta.keyspace };
    let shared = TableShared::new(0, Budget::new(u64::MAX, 0, Heap::Kept));
    let table = Table::open(file, name.clone(), identity, meta.size, &shared)?;
    table.verify()?;
    if table.properties().blobs != meta.blobs {
        let detail = "it refers to other blobs than the manifest says";
        return Err(Error::corruption(what, name, 0, detail));
    }
    Ok(table)
}

/// Every value of a table that lies in a blob file begins where the table says.
fn verify_handles(
    version: &Version,
    blobs: &BTreeMap<u64, BlobFile>,
    table: &Arc<Table>,
) -> Result<()> {
    if table.properties().blobs.is_empty() {
        return Ok(());
    }
    let mut rows = table.cursor(SEE_ALL);
    let mut found = rows.seek(Target::First)?;
    while found {
        let row = rows.entry();
        if row.kind == Kind::BlobHandle {
            let (meta, handle) = version.blob_of(row.key, row.value)?;
            if let Some(file) = blobs.get(&meta.number) {
                file.check(row.key, handle)?;
            }
        }
        found = rows.next()?;
    }
    Ok(())
}

/// Opens a blob file whose bytes as a whole are what was written.
fn open_blob(
    vfs: &dyn Vfs,
    layout: &Layout,
    db_uuid: [u8; 16],
    meta: &BlobMeta,
) -> Result<BlobFile> {
    let (what, name) = (BLOB_FILE, files::blob_name(meta.number));
    let file = open(vfs, layout, what, &name)?;
    let summary = &meta.summary;
    verify_file(what, Arc::clone(&file), name.clone(), summary.size, summary.checksum)?;
    let identity = FileIdentity { db_uuid, number: meta.number, keyspace: meta.keyspace };
    BlobFile::open(file, name, identity, summary.size)
}

fn verify_blob(meta: &BlobMeta, file: &BlobFile) -> Result<()> {
    let (values, says) = (file.verify()?, meta.summary.values);
    if values != says {
        let detail = format!("it has {values} values, the manifest says {says}");
        return Err(Error::corruption(BLOB_FILE, file.name(), 0, detail));
    }
    Ok(())
}

fn open(vfs: &dyn Vfs, layout: &Layout, what: &str, name: &Path) -> Result<Arc<dyn ReadFile>> {
    vfs.open_read(&layout.at(name))
        .map_err(|error| Error::corruption(what, name, 0, format!("it cannot be opened: {error}")))
}
