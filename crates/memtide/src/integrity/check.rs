//! One file of a database is what the manifest says it is, or it is told what is wrong with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use memtide_base::seqno::SEE_ALL;
use memtide_base::sync::Arc;
use memtide_base::{Cursor, Error, Kind, Result, Target};
use memtide_env::{Heap, ReadFile, Vfs};
use memtide_storage::blob::BlobFile;
use memtide_storage::budget::Budget;
use memtide_storage::log::{BatchOps, LogReader, RecordKind};
use memtide_storage::table::{Table, TableShared};
use memtide_storage::{FileIdentity, verify_file};

use super::{Depth, VerifyReport};
use crate::files::{self, Layout};
use crate::version::{BlobMeta, TableMeta, Version};

/// What errors call one.
const BLOB_FILE: &str = "blob file";
const TABLE: &str = "table";

/// How files are looked at.
pub(super) struct Look<'a> {
    pub(super) vfs: &'a dyn Vfs,
    pub(super) layout: &'a Layout,
    pub(super) db_uuid: [u8; 16],
    pub(super) depth: Depth,
    /// Whose memory open tables are.
    pub(super) shared: Arc<TableShared>,
    /// The name under which a file is found.
    pub(super) found_as: &'a dyn Fn(&Path) -> PathBuf,
    /// Comes between the file and its reader.
    pub(super) through: &'a dyn Fn(Arc<dyn ReadFile>) -> Arc<dyn ReadFile>,
}

/// For tables that are opened one at a time and belong to no database's memory.
pub(super) fn shared_by_none() -> Arc<TableShared> {
    TableShared::new(0, Budget::new(u64::MAX, 0, Heap::Kept))
}

impl<'a> Look<'a> {
    /// One at a closed database.
    pub(super) fn new(
        vfs: &'a dyn Vfs,
        layout: &'a Layout,
        db_uuid: [u8; 16],
        depth: Depth,
    ) -> Self {
        Self {
            vfs,
            layout,
            db_uuid,
            depth,
            shared: shared_by_none(),
            found_as: &|name| name.to_path_buf(),
            through: &|file| file,
        }
    }

    /// Looks at every table and blob file of a version. `may_go_on` is asked before each.
    pub(super) fn keyspace(
        &self,
        version: &Version,
        report: &mut VerifyReport,
        may_go_on: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        // What cannot be opened is reported once, here.
        let mut blobs = BTreeMap::new();
        for meta in version.blobs() {
            may_go_on()?;
            let looked = self.blob(meta);
            may_go_on()?;
            let (file, found) = match looked {
                Ok((file, found)) => (Some(file), found),
                Err(error) => (None, Err(error)),
            };
            report.take(meta.summary.size, found);
            blobs.extend(file.map(|file| (meta.number, file)));
        }
        for meta in version.tables() {
            may_go_on()?;
            let looked = self.table(meta).and_then(|table| self.handles(version, &blobs, &table));
            may_go_on()?;
            report.take(meta.size, looked);
        }
        Ok(())
    }

    /// Opens a table that is the one the manifest knows.
    pub(super) fn table(&self, meta: &TableMeta) -> Result<Arc<Table>> {
        let name = files::table_name(meta.number);
        let file = self.open(TABLE, &name)?;
        if self.depth == Depth::Full {
            verify_file(TABLE, Arc::clone(&file), name.clone(), meta.size, meta.checksum)?;
        }
        let identity =
            FileIdentity { db_uuid: self.db_uuid, number: meta.number, keyspace: meta.keyspace };
        let table = Table::open(file, name.clone(), identity, meta.size, &self.shared)?;
        if self.depth == Depth::Full {
            table.verify()?;
        }
        let says = table.properties();
        let counts = (says.rows, says.keys, says.deletes, says.range_deletes, says.seq_min);
        let same = counts == (meta.rows, meta.keys, meta.deletes, meta.range_deletes, meta.seq_min)
            && says.seq_max == meta.seq_max
            && says.smallest == meta.smallest
            && says.largest == meta.largest
            && says.blobs == meta.blobs;
        if !same {
            let detail = "its properties are not those that the manifest says";
            return Err(Error::corruption(TABLE, name, 0, detail));
        }
        Ok(table)
    }

    /// Every value of a table that lies in a blob file begins where the table says.
    pub(super) fn handles(
        &self,
        version: &Version,
        blobs: &BTreeMap<u64, BlobFile>,
        table: &Arc<Table>,
    ) -> Result<()> {
        if self.depth == Depth::Quick || table.properties().blobs.is_empty() {
            return Ok(());
        }
        let mut rows = table.stream(SEE_ALL);
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

    /// Opens a blob file that is the one the manifest knows; beside it, what is wrong with its records.
    pub(super) fn blob(&self, meta: &BlobMeta) -> Result<(BlobFile, Result<()>)> {
        let (name, summary) = (files::blob_name(meta.number), &meta.summary);
        let file = self.open(BLOB_FILE, &name)?;
        if self.depth == Depth::Full {
            let file = Arc::clone(&file);
            verify_file(BLOB_FILE, file, name.clone(), summary.size, summary.checksum)?;
        }
        let identity =
            FileIdentity { db_uuid: self.db_uuid, number: meta.number, keyspace: meta.keyspace };
        let file = BlobFile::open(file, name, identity, summary.size)?;
        let found = if self.depth == Depth::Full { records(meta, &file) } else { Ok(()) };
        Ok((file, found))
    }

    /// A file to read from; one that cannot be opened is damage.
    pub(super) fn open(&self, what: &str, name: &Path) -> Result<Arc<dyn ReadFile>> {
        let opened = self.vfs.open_read(&self.layout.at((self.found_as)(name)));
        let missing =
            |error| Error::corruption(what, name, 0, format!("it cannot be opened: {error}"));
        opened.map(self.through).map_err(missing)
    }
}

fn records(meta: &BlobMeta, file: &BlobFile) -> Result<()> {
    let (values, says) = (file.verify()?, meta.summary.values);
    if values != says {
        let detail = format!("it has {values} values, the manifest says {says}");
        return Err(Error::corruption(BLOB_FILE, file.name(), 0, detail));
    }
    Ok(())
}

/// Reads a segment to its end; its batches are what writers write, and go to keyspaces that `is_known`.
pub(super) fn segment(reader: &mut LogReader, is_known: &dyn Fn(u32) -> bool) -> Result<()> {
    let name: PathBuf = files::wal_name(reader.header().base);
    while let Some(record) = reader.next()? {
        if record.kind != RecordKind::Batch {
            continue;
        }
        for op in BatchOps::new(record.payload, record.count) {
            let op = op.map_err(|damage| damage.in_record(&name, record.lsn))?;
            if !is_known(op.keyspace) {
                let detail = format!("there is no keyspace {}", op.keyspace);
                return Err(Error::corruption("batch", name, record.lsn, detail));
            }
        }
    }
    Ok(())
}
