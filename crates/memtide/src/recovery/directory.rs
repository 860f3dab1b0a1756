//! The files that an open finds beside those it reads: which are missing, which numbers were used, which belong to
//! nothing.
//!
//! A database may have a hundred thousand tables, so their directory is listed once and nothing here looks for one
//! thing among all others by looking at all of them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use memtide_base::{Error, Result};
use memtide_env::Vfs;
use memtide_env::vfs::DirEntry;
use memtide_storage::log::{parse_manifest_file_name, parse_wal_file_name};

use crate::engine::Engine;
use crate::files::{self, BLOB_DIR, CURRENT_NEW, Layout, SharedFile, TABLE_DIR, WAL_DIR};
use crate::version::ManifestState;

/// File numbers that may have been taken since the manifest was last written.
const NUMBERS_AHEAD: u64 = 1 << 32;

/// The tables and blob files as an open found them.
pub(super) struct FoundFiles {
    tables: Numbered,
    blobs: Numbered,
}

impl FoundFiles {
    pub(super) fn list(vfs: &dyn Vfs, layout: &Layout) -> Result<Self> {
        let tables = Numbered::of(list(vfs, layout, TABLE_DIR)?, files::parse_table_name);
        // Made with the first of them.
        let blobs = Numbered::of(list_if_there(vfs, layout, BLOB_DIR)?, files::parse_blob_name);
        Ok(Self { tables, blobs })
    }

    /// Every file the manifest names is there and has its length.
    pub(super) fn check(&self, state: &ManifestState) -> Result<()> {
        for keyspace in &state.keyspaces {
            for table in keyspace.version.tables() {
                self.tables.check("table", SharedFile::Table(table.number), table.size)?;
            }
            for blob in keyspace.version.blobs() {
                self.blobs.check("blob file", SharedFile::Blob(blob.number), blob.summary.size)?;
            }
        }
        Ok(())
    }
}

/// The files of one directory that have numbers for names, by number.
struct Numbered(Vec<(u64, DirEntry)>);

impl Numbered {
    fn of(found: Vec<DirEntry>, parse: fn(&Path) -> Option<u64>) -> Self {
        let numbered = |entry: DirEntry| parse(&entry.name).map(|number| (number, entry));
        let mut found: Vec<_> = found.into_iter().filter_map(numbered).collect();
        found.sort_unstable_by_key(|(number, _)| *number);
        Self(found)
    }

    fn check(&self, what: &str, file: SharedFile, size: u64) -> Result<()> {
        let (SharedFile::Table(number) | SharedFile::Blob(number)) = file;
        let place = self.0.binary_search_by_key(&number, |(number, _)| *number);
        let (offset, detail) = match place.map(|place| &self.0[place].1) {
            Ok(entry) if entry.is_file && entry.len == size => return Ok(()),
            Ok(DirEntry { len, .. }) => {
                (*len.min(&size), format!("it has {len} B, the manifest says {size} B"))
            }
            Err(_) => (0, "the file is missing".to_owned()),
        };
        Err(Error::corruption(what, file.name(), offset, detail))
    }

    fn numbers(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|(number, _)| *number)
    }

    /// The names of those that are not among `live`.
    fn without(self, dir: &str, live: &HashSet<u64>) -> impl Iterator<Item = PathBuf> {
        let gone = self.0.into_iter().filter(|(number, _)| !live.contains(number));
        gone.map(move |(_, entry)| Path::new(dir).join(entry.name))
    }
}

pub(super) fn list(vfs: &dyn Vfs, layout: &Layout, dir: &str) -> Result<Vec<DirEntry>> {
    let path = if dir.is_empty() { layout.root().to_path_buf() } else { layout.at(dir) };
    vfs.list(&path)
        .map_err(|error| Error::io("list", if dir.is_empty() { "." } else { dir }, error))
}

/// As [`list`]; a directory that is not there is empty.
pub(super) fn list_if_there(vfs: &dyn Vfs, layout: &Layout, dir: &str) -> Result<Vec<DirEntry>> {
    match vfs.list(&layout.at(dir)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        found => found.map_err(|error| Error::io("list", dir, error)),
    }
}

/// `next`, or what follows the largest number of a file that the manifest does not know of.
pub(super) fn number_above_all(
    vfs: &dyn Vfs,
    layout: &Layout,
    found: &FoundFiles,
    next: u64,
) -> Result<u64> {
    let found = found.tables.numbers().chain(found.blobs.numbers());
    let manifests = list(vfs, layout, "")?;
    let manifests = manifests.iter().filter_map(|entry| parse_manifest_file_name(&entry.name));
    // Numbers far beyond were not counted up to, and going on from them would use all numbers up.
    let ours = found.chain(manifests).filter(|&number| number < next.saturating_add(NUMBERS_AHEAD));
    if cfg!(plant = "file_numbers_used_again") {
        return Ok(next);
    }
    Ok(ours.max().map_or(next, |largest| next.max(largest + 1)))
}

/// Removes files with our names that nothing refers to. Unknown names are left alone, and so are files that were
/// written since `found` was listed.
pub(super) fn remove_orphans(engine: &Engine, found: FoundFiles) -> Result<Vec<PathBuf>> {
    let vfs = &*engine.env.vfs;
    let (current, tables, blobs) = {
        let manifest = engine.manifest.lock();
        let manifest = manifest.as_ref().expect("opened for writing");
        let versions = || manifest.state().keyspaces.iter().map(|keyspace| &keyspace.version);
        let tables = versions().flat_map(|version| version.tables().map(|table| table.number));
        let blobs = versions().flat_map(|version| version.blobs().iter().map(|blob| blob.number));
        (manifest.number(), tables.collect(), blobs.collect())
    };
    let segments: Vec<u64> = {
        let commit = engine.commit.lock();
        let log = commit.as_ref().expect("opened for writing");
        let older = log.older.iter().map(|segment| segment.base);
        older.chain([log.writer.header().base]).collect()
    };
    let mut orphans = Vec::new();
    for entry in list(vfs, &engine.layout, WAL_DIR)? {
        if parse_wal_file_name(&entry.name).is_some_and(|base| !segments.contains(&base)) {
            orphans.push(Path::new(WAL_DIR).join(entry.name));
        }
    }
    orphans.extend(found.tables.without(TABLE_DIR, &tables));
    orphans.extend(found.blobs.without(BLOB_DIR, &blobs));
    for entry in list(vfs, &engine.layout, "")? {
        let old = parse_manifest_file_name(&entry.name).is_some_and(|number| number != current);
        if old || entry.name == Path::new(CURRENT_NEW) {
            orphans.push(entry.name);
        }
    }
    for name in &orphans {
        vfs.remove(&engine.layout.at(name)).map_err(|error| Error::io("remove", name, error))?;
    }
    Ok(orphans)
}
