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
use crate::files::{self, CURRENT_NEW, Layout, TABLE_DIR, WAL_DIR};
use crate::version::ManifestState;

/// File numbers that may have been taken since the manifest was last written.
const NUMBERS_AHEAD: u64 = 1 << 32;

/// The files in the directory of tables as an open found them.
pub(super) struct TableFiles {
    /// Those that are named like tables, by number.
    found: Vec<(u64, DirEntry)>,
}

impl TableFiles {
    pub(super) fn list(vfs: &dyn Vfs, layout: &Layout) -> Result<Self> {
        let numbered =
            |entry: DirEntry| files::parse_table_name(&entry.name).map(|number| (number, entry));
        let mut found: Vec<_> =
            list(vfs, layout, TABLE_DIR)?.into_iter().filter_map(numbered).collect();
        found.sort_unstable_by_key(|(number, _)| *number);
        Ok(Self { found })
    }

    /// Every table the manifest names is there and has its length.
    pub(super) fn check(&self, state: &ManifestState) -> Result<()> {
        for table in state.keyspaces.iter().flat_map(|keyspace| keyspace.version.tables()) {
            let place = self.found.binary_search_by_key(&table.number, |(number, _)| *number);
            let (offset, detail) = match place.map(|place| &self.found[place].1) {
                Ok(entry) if entry.is_file && entry.len == table.size => continue,
                Ok(DirEntry { len, .. }) => {
                    let says = table.size;
                    (*len.min(&says), format!("it has {len} B, the manifest says {says} B"))
                }
                Err(_) => (0, "the file is missing".to_owned()),
            };
            return Err(Error::corruption(
                "table",
                files::table_name(table.number),
                offset,
                detail,
            ));
        }
        Ok(())
    }
}

pub(super) fn list(vfs: &dyn Vfs, layout: &Layout, dir: &str) -> Result<Vec<DirEntry>> {
    let path = if dir.is_empty() { layout.root().to_path_buf() } else { layout.at(dir) };
    vfs.list(&path)
        .map_err(|error| Error::io("list", if dir.is_empty() { "." } else { dir }, error))
}

/// `next`, or what follows the largest number of a file that the manifest does not know of.
pub(super) fn number_above_all(
    vfs: &dyn Vfs,
    layout: &Layout,
    tables: &TableFiles,
    next: u64,
) -> Result<u64> {
    let tables = tables.found.iter().map(|(number, _)| *number);
    let manifests = list(vfs, layout, "")?;
    let manifests = manifests.iter().filter_map(|entry| parse_manifest_file_name(&entry.name));
    // Numbers far beyond were not counted up to, and going on from them would use all numbers up.
    let ours =
        tables.chain(manifests).filter(|&number| number < next.saturating_add(NUMBERS_AHEAD));
    Ok(ours.max().map_or(next, |largest| next.max(largest + 1)))
}

/// Removes files with our names that nothing refers to. Unknown names are left alone, and so are tables that were
/// written since `tables` were listed.
pub(super) fn remove_orphans(engine: &Engine, tables: TableFiles) -> Result<Vec<PathBuf>> {
    let vfs = &*engine.env.vfs;
    let (current, live) = {
        let manifest = engine.manifest.lock();
        let manifest = manifest.as_ref().expect("opened for writing");
        let tables = manifest.state().keyspaces.iter().flat_map(|k| k.version.tables());
        (manifest.number(), tables.map(|table| table.number).collect::<HashSet<_>>())
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
    let gone = tables.found.into_iter().filter(|(number, _)| !live.contains(number));
    orphans.extend(gone.map(|(_, entry)| Path::new(TABLE_DIR).join(entry.name)));
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
