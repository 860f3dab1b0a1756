//! A directory that becomes a database: the target of a checkpoint or of a restore.
//!
//! # Order (each step durable before the next)
//! the target is empty and locked → log → tables, blob files → names of all of them → the target's own name → manifest
//! → `CURRENT`. Until `CURRENT` is there, `open` refuses the directory for the log it holds.

use std::path::{Path, PathBuf};

use memtide_base::checksum::FileChecksum;
use memtide_base::{Error, Result};
use memtide_env::vfs::FileLock;
use memtide_env::{Env, ReadFile, Vfs};

use crate::files::{self, BLOB_DIR, CURRENT, LOCK, Layout, SharedFile, TABLE_DIR, WAL_DIR};
use crate::recovery::{self, OpenMode};
use crate::version::{Manifest, ManifestState};

/// Bytes copied at a time.
const PIECE_LEN: usize = 256 << 10;
const DIRS: [&str; 3] = [WAL_DIR, TABLE_DIR, BLOB_DIR];

/// A file to copy and what it must be.
pub(crate) struct Original<'a> {
    pub(crate) file: &'a dyn ReadFile,
    /// What errors call it.
    pub(crate) name: &'a Path,
    pub(crate) bytes: u64,
    /// XXH3-128 of those bytes, if it is known.
    pub(crate) checksum: Option<u128>,
}

/// A database that is being put together.
pub(crate) struct NewCopy<'a> {
    env: &'a Env,
    layout: Layout,
    root: &'a Path,
    /// Directories that were made for it.
    made: Vec<&'a Path>,
    lock: Box<dyn FileLock>,
}

impl<'a> NewCopy<'a> {
    /// Has `fill` make the files of a database that has `state`, in a directory that is empty or missing and not
    /// inside `source`.
    ///
    /// # Errors
    /// `InvalidArgument` if the directory is not empty; whatever `fill` and the device say. What was made is removed
    /// again.
    pub(crate) fn make(
        env: &'a Env,
        root: &'a Path,
        source: &Path,
        state: ManifestState,
        fill: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        check_apart(&*env.vfs, root, source)?;
        let made = recovery::create_root(&*env.vfs, root)?;
        let layout = Layout::new(root);
        check_empty(&*env.vfs, &layout)?;
        let lock = recovery::take_lock(&*env.vfs, &layout, OpenMode::Create)?;
        let lock = lock.ok_or_else(|| Error::internal("an exclusive lock makes its file"))?;
        let new = Self { env, layout, root, made, lock };
        // Once more: somebody may have been faster.
        check_empty(&*env.vfs, &new.layout)?;
        let done = new.make_dir(WAL_DIR).and_then(|()| fill(&new)).and_then(|()| new.finish(state));
        if done.is_err() {
            new.abandon();
        }
        drop(new.lock);
        done
    }

    fn make_dir(&self, dir: &str) -> Result<()> {
        let path = self.layout.at(dir);
        let made = self.env.vfs.create_dir(&path);
        made.map_err(|error| Error::io("create the directory", path, error))
    }

    /// Copies a segment of the log.
    pub(crate) fn copy_segment(&self, base: u64, from: &Original<'_>) -> Result<()> {
        self.copy(&files::wal_name(base), from)
    }

    /// Copies a table or blob file.
    pub(crate) fn copy_shared(&self, file: SharedFile, from: &Original<'_>) -> Result<()> {
        self.copy(&file.name(), from)
    }

    /// Gives a table or blob file of `source` a second name here; `false` if that is not possible.
    pub(crate) fn link(&self, source: &Layout, file: SharedFile) -> bool {
        let name = file.name();
        self.env.vfs.link(&source.at(&name), &self.layout.at(&name)).is_ok()
    }

    /// Makes the directories of tables, and of blob files if there are any. Comes after the log.
    pub(crate) fn make_table_dirs(&self, state: &ManifestState) -> Result<()> {
        // Whatever else a power cut leaves, there is a log without `CURRENT` then.
        self.layout.sync_dir(&*self.env.vfs, WAL_DIR)?;
        self.layout.sync_dir(&*self.env.vfs, "")?;
        self.make_dir(TABLE_DIR)?;
        let has_blobs = state.keyspaces.iter().any(|keyspace| !keyspace.version.blobs().is_empty());
        if has_blobs { self.make_dir(BLOB_DIR) } else { Ok(()) }
    }

    fn copy(&self, name: &Path, from: &Original<'_>) -> Result<()> {
        copy(&*self.env.vfs, from, &self.layout.at(name)).map(drop)
    }

    fn finish(&self, state: ManifestState) -> Result<()> {
        let vfs = &*self.env.vfs;
        for dir in DIRS.into_iter().filter(|dir| vfs.list(&self.layout.at(dir)).is_ok()) {
            self.layout.sync_dir(vfs, dir)?;
        }
        self.layout.sync_dir(vfs, "")?;
        recovery::sync_parents(vfs, self.root, &self.made)?;
        Manifest::create(self.env, &self.layout, state).map(drop)
    }

    /// Removes what was made, as far as that works: the directory was empty.
    fn abandon(&self) {
        let vfs = &*self.env.vfs;
        let _ = vfs.remove(&self.layout.at(CURRENT));
        for dir in ["", WAL_DIR, TABLE_DIR, BLOB_DIR] {
            let path = if dir.is_empty() { self.root.to_path_buf() } else { self.layout.at(dir) };
            let found = vfs.list(&path).unwrap_or_default();
            for entry in found.iter().filter(|entry| entry.is_file) {
                let _ = vfs.remove(&path.join(&entry.name));
            }
        }
    }
}

/// Copies the first bytes of a file to a new one and syncs it; returns their XXH3-128.
///
/// # Errors
/// Corruption if that is not what it must be.
pub(crate) fn copy(vfs: &dyn Vfs, from: &Original<'_>, to: &Path) -> Result<u128> {
    let out = vfs.create(to, 0).map_err(|error| Error::io("create", to, error))?;
    let sum = read_through(from, |bytes, at| {
        out.write_at(bytes, at).map_err(|error| Error::io("write", to, error))
    })?;
    out.sync().map_err(|error| Error::io("sync", to, error))?;
    Ok(sum)
}

/// Reads the first bytes of a file; returns their XXH3-128.
pub(crate) fn read_through(
    from: &Original<'_>,
    mut take: impl FnMut(&[u8], u64) -> Result<()>,
) -> Result<u128> {
    let len = from.file.len().map_err(|error| Error::io("measure", from.name, error))?;
    if len < from.bytes || (from.checksum.is_some() && len != from.bytes) {
        let detail = format!("it has {len} B instead of {} B", from.bytes);
        return Err(Error::corruption("file to copy", from.name, len.min(from.bytes), detail));
    }
    let mut sum = FileChecksum::default();
    let mut piece = vec![0; usize::try_from(from.bytes).unwrap_or(PIECE_LEN).min(PIECE_LEN)];
    let mut at = 0;
    while at < from.bytes {
        let left = usize::try_from(from.bytes - at).unwrap_or(PIECE_LEN);
        let part = &mut piece[..left.min(PIECE_LEN)];
        let read = from.file.read_exact_at(part, at);
        read.map_err(|error| Error::io("read", from.name, error))?;
        sum.update(part);
        take(part, at)?;
        at += part.len() as u64;
    }
    let sum = sum.finish();
    if let Some(stored) = from.checksum.filter(|stored| *stored != sum) {
        let detail = format!("xxh3-128 {sum:#034x}, stored {stored:#034x}");
        return Err(Error::corruption("file to copy", from.name, 0, detail));
    }
    Ok(sum)
}

/// # Errors
/// `InvalidArgument` if `target`, which need not be there, lies inside `source` or is it.
pub(crate) fn check_apart(vfs: &dyn Vfs, target: &Path, source: &Path) -> Result<()> {
    let source_path =
        vfs.canonical(source).map_err(|error| Error::io("find the directory", source, error))?;
    let here = |dir: &'_ Path| {
        vfs.canonical(if dir.as_os_str().is_empty() { Path::new(".") } else { dir }).ok()
    };
    // Nothing else is created below an ancestor that is there.
    let nearest = target.ancestors().find_map(here);
    if nearest.is_some_and(|nearest| nearest.starts_with(&source_path)) {
        let what = format!("{} lies inside {}", target.display(), source.display());
        return Err(Error::invalid_argument(what).with_hint("name a directory outside of it"));
    }
    Ok(())
}

/// Empty but for the lock and directories that an attempt before left; what is a link to a directory is none of those.
fn check_empty(vfs: &dyn Vfs, layout: &Layout) -> Result<()> {
    let list = |dir: PathBuf| vfs.list(&dir).map_err(|error| Error::io("list", dir, error));
    let root = vfs.canonical(layout.root());
    let root = root.map_err(|error| Error::io("find the directory", layout.root(), error))?;
    for entry in list(layout.root().to_path_buf())? {
        let path = layout.at(&entry.name);
        let is_ours = DIRS.iter().any(|dir| entry.name == Path::new(dir))
            && vfs.canonical(&path).is_ok_and(|real| real == root.join(&entry.name));
        let is_empty = is_ours && list(path)?.is_empty();
        if !is_empty && entry.name != Path::new(LOCK) {
            let (root, name) = (layout.root().display(), entry.name.display());
            let what = format!("{root} is not empty: it holds {name}");
            return Err(Error::invalid_argument(what)
                .with_file(layout.root())
                .with_hint("name a directory that is empty or not there"));
        }
    }
    Ok(())
}
