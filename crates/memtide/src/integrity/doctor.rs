//! What a person wants to know of a closed database before doing anything with it. Writes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use memtide_base::Result;
use memtide_env::{Env, Vfs};
use memtide_memtable::MemtableChoice;
use memtide_storage::log::{BatchOps, RecordKind, parse_manifest_file_name, parse_wal_file_name};

use super::Depth;
use super::verify::{self, verify};
use crate::config::Compaction;
use crate::damage::Damage;
use crate::files::{self, BLOB_DIR, CURRENT, CURRENT_NEW, LOCK, Layout, TABLE_DIR, WAL_DIR};
use crate::recovery::{self, OpenMode};
use crate::version::ManifestState;

/// What is known of a closed database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DoctorReport {
    /// `healthy`, `not_closed` (a log is there to be replayed up to a torn end), or `damaged`.
    pub state: &'static str,
    /// Who the database is; empty if no manifest says so.
    pub uuid: String,
    /// The number of the manifest that counts.
    pub manifest: Option<u64>,
    /// By id.
    pub keyspaces: Vec<DoctorKeyspace>,
    /// Segments of the log that are needed.
    pub log_segments: u64,
    /// Bytes of their files.
    pub log_bytes: u64,
    /// Writes that opening has to replay.
    pub log_writes: u64,
    /// Bytes behind the end of the log that are no whole record: what a crash leaves.
    pub torn_bytes: u64,
    /// Bytes of all files of the database.
    pub bytes: u64,
    /// Files with names of ours that nothing refers to: the next open removes them.
    pub orphans: Vec<PathBuf>,
    /// Files that are not the database's.
    pub strangers: Vec<PathBuf>,
    /// What a quick look found wrong.
    pub damages: Vec<Damage>,
    /// Free and total bytes of the device, if it says so.
    pub space: Option<(u64, u64)>,
    /// What to do next.
    pub advice: Vec<String>,
}

/// What is known of a keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoctorKeyspace {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u32,
    /// What new memtables are made with.
    pub memtable_type: MemtableChoice,
    /// Their largest size in bytes.
    pub max_memtable_size: u64,
    /// Whether its writes go to the log.
    pub logged: bool,
    /// How its tables are merged.
    pub compaction: Compaction,
    /// Tables.
    pub tables: u64,
    /// Their bytes.
    pub table_bytes: u64,
    /// Versions in them.
    pub rows: u64,
    /// Blob files.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
}

/// Looks at the database in `root`.
///
/// # Errors
/// The database is open elsewhere, there is none, or a newer version wrote it.
pub(crate) fn doctor(env: &Env, root: &Path) -> Result<DoctorReport> {
    let (vfs, layout) = (&*env.vfs, Layout::new(root));
    let mut report = DoctorReport { state: "healthy", ..DoctorReport::default() };
    report.damages = verify(env, root, Depth::Quick)?.damages;
    report.space = vfs.space(root).ok().map(|space| (space.free, space.total));
    match verify::load(vfs, &layout) {
        Ok(state) => {
            report.manifest = crate::version::read_current(vfs, &layout).ok().flatten();
            report.of_manifest(&state);
            report.of_log(env, &layout, &state);
            report.of_files(vfs, &layout, Some(&state));
            if state.closed.is_none() {
                report.state = "not_closed";
            }
        }
        Err(_) => report.of_files(vfs, &layout, None),
    }
    if !report.damages.is_empty() {
        report.state = "damaged";
    }
    report.advise();
    Ok(report)
}

impl DoctorReport {
    fn of_manifest(&mut self, state: &ManifestState) {
        self.uuid = state.uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        for record in &state.keyspaces {
            let (version, options) = (&record.version, record.options.clone());
            let blob_bytes = version.blobs().iter().map(|blob| blob.summary.size).sum();
            self.keyspaces.push(DoctorKeyspace {
                name: record.name.clone(),
                id: record.id,
                memtable_type: options.memtable_type,
                max_memtable_size: options.max_memtable_size,
                logged: options.logged,
                compaction: options.compaction,
                tables: version.tables().count() as u64,
                table_bytes: version.tables().map(|table| table.size).sum(),
                rows: version.tables().map(|table| table.rows).sum(),
                blobs: version.blobs().len() as u64,
                blob_bytes,
            });
        }
    }

    fn of_log(&mut self, env: &Env, layout: &Layout, state: &ManifestState) {
        let Ok(segments) = recovery::open_segments(env, layout, state, OpenMode::ReadOnly) else {
            return;
        };
        for (mut reader, bytes) in segments.readers {
            self.log_segments += 1;
            self.log_bytes += bytes;
            loop {
                match reader.next() {
                    Ok(Some(record)) if record.kind == RecordKind::Batch => {
                        let ops = BatchOps::new(record.payload, record.count).zip(record.lsn..);
                        let waits = ops.filter(|(op, seq)| {
                            let id = op.as_ref().map_or(u32::MAX, |op| op.keyspace);
                            let of = state.keyspaces.iter().find(|keyspace| keyspace.id == id);
                            of.is_some_and(|keyspace| *seq >= keyspace.flushed_to)
                        });
                        self.log_writes += waits.count() as u64;
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => {
                        let damage = Damage::of(&error);
                        if !self.damages.contains(&damage) {
                            self.damages.push(damage);
                        }
                        break;
                    }
                }
            }
            self.torn_bytes = reader.end().map_or(0, |end| end.torn_bytes);
        }
    }

    fn of_files(&mut self, vfs: &dyn Vfs, layout: &Layout, state: Option<&ManifestState>) {
        let versions = || state.iter().flat_map(|state| &state.keyspaces).map(|k| &k.version);
        let tables: BTreeSet<u64> = versions().flat_map(|v| v.tables().map(|t| t.number)).collect();
        let blobs: BTreeSet<u64> =
            versions().flat_map(|v| v.blobs().iter().map(|b| b.number)).collect();
        let manifest = self.manifest;
        let is_known = state.is_some();
        let mut take = |dir: &str, judge: &dyn Fn(&Path) -> Option<bool>| {
            let path = if dir.is_empty() { layout.root().to_path_buf() } else { layout.at(dir) };
            for entry in vfs.list(&path).unwrap_or_default() {
                let name = Path::new(dir).join(&entry.name);
                match judge(&entry.name).filter(|_| entry.is_file || dir.is_empty()) {
                    None => self.strangers.push(name),
                    Some(is_used) => {
                        self.bytes += entry.len;
                        // Without a manifest nobody knows.
                        if !is_used && is_known {
                            self.orphans.push(name);
                        }
                    }
                }
            }
        };
        take("", &|name| {
            if let Some(number) = parse_manifest_file_name(name) {
                return Some(Some(number) == manifest);
            }
            let ours = [LOCK, CURRENT, WAL_DIR, TABLE_DIR, BLOB_DIR];
            let is_used = ours.iter().any(|ours| name == Path::new(ours));
            (is_used || name == Path::new(CURRENT_NEW)).then_some(is_used)
        });
        take(TABLE_DIR, &|name| {
            files::parse_table_name(name).map(|number| tables.contains(&number))
        });
        take(BLOB_DIR, &|name| files::parse_blob_name(name).map(|number| blobs.contains(&number)));
        take(WAL_DIR, &|name| parse_wal_file_name(name).map(|_| true));
    }

    fn advise(&mut self) {
        let mut advise = |holds: bool, what: &str| {
            if holds {
                self.advice.push(what.to_owned());
            }
        };
        let is_damaged = self.state == "damaged";
        advise(is_damaged, "copy the directory away before anything else is tried");
        advise(
            is_damaged,
            "restore a backup if there is one; else `repair --to NEW` keeps whole files, `salvage --to NEW` \
             every sound block",
        );
        advise(
            !is_damaged && self.torn_bytes > 0,
            "opening drops the torn end of the log: writes that were never acknowledged as durable",
        );
        advise(!is_damaged && self.log_writes > 0, "opening replays the log");
        advise(
            !is_damaged && !self.orphans.is_empty(),
            "opening removes the files that nothing refers to",
        );
        let is_full = self.space.is_some_and(|(free, total)| free < total / 20);
        advise(is_full, "less than a twentieth of the device is free: make room");
        advise(!is_damaged, "`verify` reads every byte");
    }
}
