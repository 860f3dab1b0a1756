//! Many backups of one database in a directory, each table and blob file in it once.
//!
//! # Order (each step durable before the next)
//! create: directories → shared files, log, manifest → their names → description → its name. prune: descriptions of
//! what is not kept are gone → files that no kept backup needs. So a description promises that all it needs is there.
//!
//! A file gets its final name when it is complete and synced, so a create that was interrupted costs nothing but space
//! until the next create, which goes on with what it finds, or the next prune, which removes it.

mod description;
mod store;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use memtide_base::{Error, ErrorKind, Result};
use memtide_env::Env;
use memtide_env::vfs::LockMode;

use description::{Description, Stored};
use store::{File, Found, Store};

use crate::capture::{Capture, capture};
use crate::engine::Engine;
use crate::files;
use crate::integrity::VerifyReport;
use crate::new_copy::{NewCopy, Original, check_apart, copy, read_through};
use crate::version;

/// A directory of backups that [`Db::backup`](crate::Db::backup) made.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let (data, backups, new) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("c"));
/// use memtide::{Backups, Db};
///
/// let db = Db::open(data)?;
/// db.put("tide", "high")?;
/// db.backup(&backups)?;
/// db.put("tide", "low")?;
/// let backups = Backups::new(backups);
/// backups.restore(None, &new)?;
/// assert_eq!(Db::open(new)?.get("tide")?.as_deref(), Some(&b"high"[..]));
/// assert!(backups.verify(true)?.damages.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Backups {
    dir: PathBuf,
    env: Env,
}

/// One backup.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupInfo {
    /// Its number in the directory; later ones have larger numbers.
    pub id: u64,
    /// When it was made, in milliseconds since 1970 by the clock of the machine.
    pub created_ms: u64,
    /// Files it needs, shared ones included.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were copied for it: those that no backup before had.
    pub copied_bytes: u64,
}

/// The backups of a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupList {
    /// Oldest first.
    pub backups: Vec<BackupInfo>,
    /// Backups whose description cannot be read.
    pub damages: Vec<crate::damage::Damage>,
}

/// What a prune removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// The backups, oldest first.
    pub backups: Vec<u64>,
    /// Files that no backup needs any more.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Backups {
    /// The backups in `dir`. Nothing is looked at yet.
    #[must_use]
    pub fn new(dir: impl AsRef<Path>) -> Self {
        Self { dir: dir.as_ref().to_path_buf(), env: Env::real() }
    }

    /// As [`Backups::new`], on the files of `env`: for tests on a simulated disk.
    #[cfg(any(test, feature = "simulation"))]
    #[must_use]
    pub fn new_in(env: &Env, dir: impl AsRef<Path>) -> Self {
        Self { dir: dir.as_ref().to_path_buf(), env: env.clone() }
    }

    /// Which backups there are.
    ///
    /// # Errors
    /// `Unsupported` if `dir` has no backups; `Locked` while one is added or pruned. Damage is in the list.
    pub fn list(&self) -> Result<BackupList> {
        let store = self.read()?;
        let (mut list, mut damage) = (BackupList::default(), VerifyReport::default());
        for id in store.list()?.ids() {
            match store.description(id) {
                Ok(description) => list.backups.push(description.info()),
                Err(error) => damage.note(&error),
            }
        }
        list.damages = damage.damages;
        Ok(list)
    }

    /// Looks whether every backup can be restored: its description and manifest are read, all its files must be there
    /// with their sizes. If `full`, every byte is read and compared with its checksum, each file once.
    ///
    /// # Errors
    /// As [`Backups::list`]. Damage is in the report, by file.
    pub fn verify(&self, full: bool) -> Result<VerifyReport> {
        let store = self.read()?;
        let (found, mut report) = (store.list()?, VerifyReport::default());
        let mut seen = BTreeSet::new();
        for id in found.ids() {
            report.files += 1;
            let needed = store.description(id).and_then(|description| needed(&store, &description));
            let needed = match needed {
                Ok(needed) => needed,
                Err(error) => {
                    report.note(&error);
                    continue;
                }
            };
            for (file, stored) in needed {
                if !seen.insert(file) {
                    continue;
                }
                report.files += 1;
                report.bytes = report.bytes.saturating_add(stored.bytes);
                let there = check_size(&found, file, stored.bytes);
                if let Err(error) =
                    there.and_then(|()| if full { store.check(file, stored) } else { Ok(()) })
                {
                    report.note(&error);
                }
            }
        }
        Ok(report)
    }

    /// Makes the database of a backup, of the newest one if `id` is `None`, in `to`, which must be empty or not there.
    /// Every byte is compared with its checksum on the way.
    ///
    /// # Errors
    /// `NotFound` if there is no such backup; `Corruption` naming the file of the backup; `InvalidArgument` if `to` is
    /// not empty. What was made is removed again; after a crash `to` does not open: remove it.
    pub fn restore(&self, id: Option<u64>, to: impl AsRef<Path>) -> Result<BackupInfo> {
        let store = self.read()?;
        let newest = || store.list().map(|found| found.ids().pop());
        let id = id.map_or_else(newest, |id| Ok(Some(id)))?;
        let id = id.ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no backup"))?;
        let description = store.description(id)?;
        let state = store.state(&description)?;
        let copied = state.clone();
        NewCopy::make(&self.env, to.as_ref(), &self.dir, state, |new| {
            for &(base, stored) in &description.log {
                store.hand_out(File::Log { id, base }, stored, |from| {
                    new.copy_segment(base, from)
                })?;
            }
            new.make_table_dirs(&copied)?;
            for (shared, bytes, checksum) in copied.shared_files() {
                let file = File::shared(shared, checksum);
                store.hand_out(file, Stored { bytes, checksum }, |from| {
                    new.copy_shared(shared, from)
                })?;
            }
            Ok(())
        })?;
        Ok(description.info())
    }

    /// Removes all backups but the newest `keep`, at least one, and then every file that none of those needs.
    ///
    /// # Errors
    /// `InvalidArgument` for 0; damage in what is to be kept, and then nothing was removed. Failing later leaves files
    /// that no backup needs; the next prune removes them.
    pub fn prune(&self, keep: usize) -> Result<Pruned> {
        if keep == 0 {
            return Err(Error::invalid_argument("a prune keeps at least one backup"));
        }
        let store = Store::open(&self.env, &self.dir, LockMode::Exclusive)?;
        let found = store.list()?;
        let mut gone = found.ids();
        let kept = gone.split_off(gone.len().saturating_sub(keep));
        let mut in_use = BTreeSet::new();
        for id in kept {
            let description = store.description(id)?;
            in_use.insert(File::Description { id });
            in_use.extend(needed(&store, &description)?.map(|(file, _)| file));
        }
        let remove = |name: PathBuf| {
            let removed = store.vfs().remove(&store.layout.at(&name));
            removed.map_err(|error| Error::io("remove", name, error))
        };
        for id in &gone {
            remove(File::Description { id: *id }.name())?;
        }
        store.sync_descriptions()?;
        let mut pruned = Pruned { backups: gone, ..Pruned::default() };
        let is_left =
            |file: &File| !in_use.contains(file) && !matches!(file, File::Description { .. });
        let finished = found.finished.iter().filter(|(file, _)| is_left(file));
        let finished = finished.map(|(file, len)| (file.name(), *len));
        for (name, len) in finished.chain(found.unfinished.iter().cloned()) {
            remove(name)?;
            pruned.files += 1;
            pruned.bytes += len;
        }
        Ok(pruned)
    }

    fn read(&self) -> Result<Store<'_>> {
        Store::open(&self.env, &self.dir, LockMode::Shared)
    }
}

impl Description {
    fn info(&self) -> BackupInfo {
        let log: u64 = self.log.iter().map(|(_, stored)| stored.bytes).fold(0, u64::saturating_add);
        let own = self.manifest.bytes.saturating_add(log);
        BackupInfo {
            id: self.id,
            created_ms: self.created_ms,
            files: self.shared_files.saturating_add(self.log.len() as u64 + 2),
            bytes: self.shared_bytes.saturating_add(own),
            copied_bytes: self.copied_bytes.saturating_add(own),
        }
    }
}

/// Every file that a backup needs beside its description. Its manifest was read and is sound.
fn needed(
    store: &Store<'_>,
    of: &Description,
) -> Result<impl Iterator<Item = (File, Stored)> + use<>> {
    let (id, state) = (of.id, store.state(of)?);
    let shared: Vec<_> = state
        .shared_files()
        .map(|(file, bytes, checksum)| (File::shared(file, checksum), Stored { bytes, checksum }))
        .collect();
    let log =
        of.log.clone().into_iter().map(move |(base, stored)| (File::Log { id, base }, stored));
    Ok(log.chain(shared).chain([(File::Manifest { id }, of.manifest)]))
}

fn check_size(found: &Found, file: File, bytes: u64) -> Result<()> {
    let damaged = |detail| Err(Error::corruption(file.what(), file.name(), 0, detail));
    match found.finished.get(&file) {
        Some(len) if *len == bytes => Ok(()),
        Some(len) => damaged(format!("it has {len} B instead of {bytes} B")),
        None => damaged("the file is missing".to_owned()),
    }
}

impl Store<'_> {
    /// Has `take` read a file of a backup, which must be what it must be.
    fn hand_out(
        &self,
        file: File,
        Stored { bytes, checksum }: Stored,
        take: impl FnOnce(&Original<'_>) -> Result<()>,
    ) -> Result<()> {
        let name = file.name();
        let open = self.layout.open_read(self.vfs(), &name).map_err(|error| {
            let detail = format!("it cannot be opened: {error}");
            Error::corruption(file.what(), &name, 0, detail)
        })?;
        take(&Original { file: &*open, name: &name, bytes, checksum: Some(checksum) })
    }

    /// Copies a file into the directory; returns its checksum.
    fn take_in(&self, file: File, from: &Original<'_>) -> Result<u128> {
        self.clear(file)?;
        let copied = copy(self.vfs(), from, &self.layout.at(file.unfinished()));
        if copied.is_err() {
            // What a full device has no room for is worth nothing to anybody.
            let _ = self.vfs().remove(&self.layout.at(file.unfinished()));
        }
        let checksum = copied?;
        self.finish(file)?;
        Ok(checksum)
    }
}

/// Adds a backup of this moment to those in `to`.
pub(crate) fn create(engine: &Engine, to: &Path) -> Result<BackupInfo> {
    check_apart(&*engine.env.vfs, to, engine.layout.root())?;
    // Closing waits for this.
    let open = engine.closing.lock();
    let made = Store::create(&engine.env, to).and_then(|store| {
        let found = store.list()?;
        check_same_database(&store, &found, engine.uuid)?;
        let captured = capture(engine)?;
        add(engine, &store, &found, &captured)
    });
    drop(open);
    // What was dropped meanwhile was kept for this.
    engine.bury();
    made
}

/// The newest description that can be read says whose backups these are.
fn check_same_database(store: &Store<'_>, found: &Found, uuid: [u8; 16]) -> Result<()> {
    let newest = found.ids().into_iter().rev().find_map(|id| store.description(id).ok());
    if newest.is_some_and(|newest| newest.database != uuid) {
        let what = format!("{} has backups of another database", store.layout.root().display());
        return Err(Error::invalid_argument(what).with_hint("name another directory"));
    }
    Ok(())
}

fn add(
    engine: &Engine,
    store: &Store<'_>,
    found: &Found,
    captured: &Capture,
) -> Result<BackupInfo> {
    let id = found.next_id();
    let mut log = Vec::with_capacity(captured.segments.len());
    for segment in &captured.segments {
        let (base, bytes) = (segment.base, segment.bytes);
        let name = files::wal_name(base);
        let from = Original { file: &*segment.file, name: &name, bytes, checksum: None };
        let checksum = store.take_in(File::Log { id, base }, &from)?;
        log.push((base, Stored { bytes, checksum }));
    }
    let (mut shared_files, mut shared_bytes, mut copied_bytes) = (0, 0, 0);
    for (shared, bytes, checksum) in captured.state.shared_files() {
        let file = File::shared(shared, checksum);
        shared_files += 1;
        shared_bytes += bytes;
        // One of another length is damaged; the copy takes its place.
        if found.finished.get(&file) != Some(&bytes) {
            let name = shared.name();
            let open = engine.layout.open_read(&*engine.env.vfs, &name)?;
            let from = Original { file: &*open, name: &name, bytes, checksum: Some(checksum) };
            store.take_in(file, &from)?;
            copied_bytes += bytes;
        }
    }
    let manifest = write_manifest(store, id, captured)?;
    store.sync_files()?;
    let description = Description {
        id,
        database: captured.state.uuid,
        created_ms: store.env.clock.wall_ms(),
        manifest,
        log,
        shared_files,
        shared_bytes,
        copied_bytes,
    };
    store.describe(&description)?;
    Ok(description.info())
}

fn write_manifest(store: &Store<'_>, id: u64, captured: &Capture) -> Result<Stored> {
    let file = File::Manifest { id };
    store.clear(file)?;
    let name = file.unfinished();
    let path = store.layout.at(&name);
    drop(version::write_snapshot(store.env, &path, &name, &captured.state)?);
    let written = store.layout.open_read(store.vfs(), &name)?;
    let bytes = written.len().map_err(|error| Error::io("measure", &name, error))?;
    let whole = Original { file: &*written, name: &name, bytes, checksum: None };
    let checksum = read_through(&whole, |_, _| Ok(()))?;
    store.finish(file)?;
    Ok(Stored { bytes, checksum })
}
