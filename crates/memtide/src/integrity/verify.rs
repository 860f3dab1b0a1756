//! Looks at all of a closed database and reports all damage, not only the first.

use std::collections::BTreeSet;
use std::path::Path;

use memtide_base::sync::Arc;
use memtide_base::{Error, Result};
use memtide_env::{Env, Vfs};
use memtide_storage::log::{LogReader, Opened, parse_manifest_file_name, parse_wal_file_name};

use super::check::{self, Look};
use super::{Depth, VerifyReport};
use crate::files::{self, BLOB_DIR, CURRENT, Layout, TABLE_DIR, WAL_DIR};
use crate::recovery::{self, OpenMode};
use crate::version::{self, Graveyard, ManifestState};

/// Looks at everything a database in `root` has: manifest, log, tables, blob files.
///
/// # Errors
/// The database is open elsewhere, there is none, or a newer version wrote it. Damage is no error here, it is in the
/// report.
pub(crate) fn verify(env: &Env, root: &Path, depth: Depth) -> Result<VerifyReport> {
    let (vfs, layout) = (&*env.vfs, Layout::new(root));
    // Held, so that nobody compacts meanwhile what is being read.
    let _lock = recovery::take_lock(vfs, &layout, OpenMode::ReadOnly)?;
    let mut report = VerifyReport::default();
    let state = match load(vfs, &layout) {
        Ok(state) => state,
        Err(error) if error.is_corruption() => {
            report.take(0, Err(error));
            log_alone(vfs, &layout, depth, &BTreeSet::new(), &mut report);
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    report.files += 2;
    log(env, &layout, &state, depth, &mut report);
    let look = Look::new(vfs, &layout, state.uuid, depth);
    for keyspace in &state.keyspaces {
        look.keyspace(&keyspace.version, &mut report, &|| Ok(()))?;
    }
    Ok(report)
}

/// What the manifest that counts says.
pub(super) fn load(vfs: &dyn Vfs, layout: &Layout) -> Result<ManifestState> {
    match version::read_current(vfs, layout)? {
        Some(number) => Ok(version::load(vfs, layout, number, &Arc::new(Graveyard::default()))?.0),
        None if has_files(vfs, layout) => {
            let detail = "it is missing, but there are files of a database";
            Err(Error::corruption("name of the manifest", CURRENT, 0, detail))
        }
        None => Err(recovery::no_database(layout.root())),
    }
}

/// Whether a directory without `CURRENT` holds what only a database leaves.
pub(super) fn has_files(vfs: &dyn Vfs, layout: &Layout) -> bool {
    let in_root = vfs.list(layout.root()).unwrap_or_default();
    let is_manifest = |name: &Path| parse_manifest_file_name(name).is_some();
    in_root.iter().any(|entry| is_manifest(&entry.name))
        || [WAL_DIR, TABLE_DIR, BLOB_DIR].iter().any(|dir| {
            let found = vfs.list(&layout.at(dir)).unwrap_or_default();
            found.iter().any(|entry| entry.is_file)
        })
}

/// The log as the manifest needs it, then the segments that it does not need.
fn log(env: &Env, layout: &Layout, state: &ManifestState, depth: Depth, report: &mut VerifyReport) {
    let mut seen = BTreeSet::new();
    match recovery::open_segments(env, layout, state, OpenMode::ReadOnly) {
        Err(error) => report.note(&error),
        Ok(segments) => {
            let is_known = |id| state.keyspaces.iter().any(|keyspace| keyspace.id == id);
            for (mut reader, bytes) in segments.readers {
                seen.insert(reader.header().base);
                let read = match depth {
                    Depth::Quick => Ok(()),
                    Depth::Full => check::segment(&mut reader, &is_known),
                };
                report.take(bytes, read);
            }
        }
    }
    log_alone(&*env.vfs, layout, depth, &seen, report);
}

/// Each segment that is not `seen`, by itself.
fn log_alone(
    vfs: &dyn Vfs,
    layout: &Layout,
    depth: Depth,
    seen: &BTreeSet<u64>,
    report: &mut VerifyReport,
) {
    let Ok(found) = vfs.list(&layout.at(WAL_DIR)) else { return };
    for entry in found {
        let Some(base) = parse_wal_file_name(&entry.name).filter(|base| !seen.contains(base))
        else {
            continue;
        };
        let name = files::wal_name(base);
        let read = LogReader::open(vfs, &layout.at(&name), &name).and_then(|opened| match opened {
            Opened::Log(mut reader) if depth == Depth::Full => {
                check::segment(&mut reader, &|_| true)
            }
            _ => Ok(()),
        });
        report.take(entry.len, read);
    }
}
