//! The directory of backups and the names in it. Names are built from numbers and parsed strictly, as a database's are.
//!
//! ```text
//! LOCK                                          exclusive to add and prune, shared to read
//! backup/{id:016x}.txt                          a description: this backup is there and complete
//! manifest/MANIFEST-{id:016x}                   its manifest
//! wal/{id:016x}-{base:016x}.wal                 its log
//! sst/{number:016x}-{xxh3_128:032x}.sst         tables, each once, for all backups
//! blob/{number:016x}-{xxh3_128:032x}.blob       blob files likewise
//! ….tmp                                         any of these while it is written
//! ```

use std::collections::BTreeMap;
use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};

use memtide_base::sync::Arc;
use memtide_base::{Error, ErrorKind, Result};
use memtide_env::vfs::{FileLock, LockMode};
use memtide_env::{Env, Vfs};
use memtide_storage::verify_file;

use super::description::{Description, LEN_MAX, Stored};
use crate::files::{BLOB_DIR, LOCK, Layout, SharedFile, TABLE_DIR, WAL_DIR};
use crate::recovery;
use crate::version::{self, Graveyard, ManifestState};

const DESCRIPTION_DIR: &str = "backup";
const MANIFEST_DIR: &str = "manifest";
/// In the order in which their names are made durable: descriptions come last.
const DIRS: [&str; 5] = [WAL_DIR, TABLE_DIR, BLOB_DIR, MANIFEST_DIR, DESCRIPTION_DIR];

/// A file of a directory of backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum File {
    Log { id: u64, base: u64 },
    Table { number: u64, checksum: u128 },
    Blob { number: u64, checksum: u128 },
    Manifest { id: u64 },
    Description { id: u64 },
}

impl File {
    pub(super) fn shared(file: SharedFile, checksum: u128) -> Self {
        match file {
            SharedFile::Table(number) => Self::Table { number, checksum },
            SharedFile::Blob(number) => Self::Blob { number, checksum },
        }
    }

    /// What errors call it.
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Log { .. } => "log of a backup",
            Self::Table { .. } => "table of a backup",
            Self::Blob { .. } => "blob file of a backup",
            Self::Manifest { .. } => "manifest of a backup",
            Self::Description { .. } => "description of a backup",
        }
    }

    pub(super) fn name(self) -> PathBuf {
        PathBuf::from(match self {
            Self::Log { id, base } => format!("{WAL_DIR}/{id:016x}-{base:016x}.wal"),
            Self::Table { number, checksum } => {
                format!("{TABLE_DIR}/{number:016x}-{checksum:032x}.sst")
            }
            Self::Blob { number, checksum } => {
                format!("{BLOB_DIR}/{number:016x}-{checksum:032x}.blob")
            }
            Self::Manifest { id } => format!("{MANIFEST_DIR}/MANIFEST-{id:016x}"),
            Self::Description { id } => format!("{DESCRIPTION_DIR}/{id:016x}.txt"),
        })
    }

    /// The name while it is written.
    pub(super) fn unfinished(self) -> PathBuf {
        let mut name = self.name().into_os_string();
        name.push(".tmp");
        name.into()
    }

    /// The file with this name in one of the directories, finished or not.
    fn parse(dir: &str, name: &Path) -> Option<(Self, bool)> {
        let text = name.to_str()?;
        let (finished, is_finished) =
            text.strip_suffix(".tmp").map_or((text, true), |finished| (finished, false));
        let number =
            |digits: &str| u64::from_str_radix(digits, 16).ok().filter(|&number| number < 1 << 63);
        let checksum = |digits: &str| u128::from_str_radix(digits, 16).ok();
        let two = |suffix: &str| finished.strip_suffix(suffix)?.split_once('-');
        let file = match dir {
            WAL_DIR => {
                let (id, base) = two(".wal")?;
                Self::Log { id: number(id)?, base: number(base)? }
            }
            TABLE_DIR => {
                let (of, sum) = two(".sst")?;
                Self::Table { number: number(of)?, checksum: checksum(sum)? }
            }
            BLOB_DIR => {
                let (of, sum) = two(".blob")?;
                Self::Blob { number: number(of)?, checksum: checksum(sum)? }
            }
            MANIFEST_DIR => Self::Manifest { id: number(finished.strip_prefix("MANIFEST-")?)? },
            DESCRIPTION_DIR => Self::Description { id: number(finished.strip_suffix(".txt")?)? },
            _ => return None,
        };
        // Exactly as it would be written: no signs, no capitals, no missing zeros.
        (file.name().file_name()?.to_str()? == finished).then_some((file, is_finished))
    }
}

/// The files of the directory.
#[derive(Default)]
pub(super) struct Found {
    /// With their lengths.
    pub(super) finished: BTreeMap<File, u64>,
    /// With their lengths, by their names.
    pub(super) unfinished: Vec<(PathBuf, u64)>,
}

impl Found {
    /// The ids of complete backups, oldest first.
    pub(super) fn ids(&self) -> Vec<u64> {
        let id = |file: &File| match file {
            File::Description { id } => Some(*id),
            _ => None,
        };
        self.finished.keys().filter_map(id).collect()
    }

    /// An id that no file has.
    pub(super) fn next_id(&self) -> u64 {
        let id = |file: &File| match file {
            File::Description { id } | File::Manifest { id } | File::Log { id, .. } => Some(*id),
            File::Table { .. } | File::Blob { .. } => None,
        };
        self.finished.keys().filter_map(id).max().unwrap_or_default() + 1
    }
}

/// A directory of backups, locked.
pub(super) struct Store<'a> {
    pub(super) env: &'a Env,
    pub(super) layout: Layout,
    _lock: Box<dyn FileLock>,
}

impl<'a> Store<'a> {
    /// One that is there.
    pub(super) fn open(env: &'a Env, root: &Path, mode: LockMode) -> Result<Self> {
        let layout = Layout::new(root);
        if env.vfs.list(&layout.at(DESCRIPTION_DIR)).is_err() {
            let what = format!("there are no backups in {}", root.display());
            return Err(Error::new(ErrorKind::Unsupported, what).with_file(root));
        }
        Self::locked(env, layout, mode)
    }

    /// One that is made if it is not there.
    pub(super) fn create(env: &'a Env, root: &Path) -> Result<Self> {
        let vfs = &*env.vfs;
        let made = recovery::create_root(vfs, root)?;
        let layout = Layout::new(root);
        let found = vfs.list(root).map_err(|error| Error::io("list", root, error))?;
        let is_ours = |name: &Path| DIRS.iter().chain([&LOCK]).any(|own| name == Path::new(own));
        if let Some(other) = found.iter().find(|entry| !is_ours(&entry.name)) {
            let what = format!(
                "{} is no directory of backups: it holds {}",
                root.display(),
                other.name.display()
            );
            return Err(Error::invalid_argument(what)
                .with_file(root)
                .with_hint("name a directory that is empty or not there"));
        }
        let store = Self::locked(env, layout, LockMode::Exclusive)?;
        for dir in DIRS {
            let path = store.layout.at(dir);
            vfs.create_dir(&path)
                .map_err(|error| Error::io("create the directory", path, error))?;
        }
        store.layout.sync_dir(vfs, "")?;
        recovery::sync_parents(vfs, root, &made)?;
        Ok(store)
    }

    fn locked(env: &'a Env, layout: Layout, mode: LockMode) -> Result<Self> {
        let lock = env.vfs.lock(&layout.at(LOCK), mode).map_err(|error| {
            if error.kind() != IoErrorKind::WouldBlock {
                return Error::io("lock", layout.at(LOCK), error);
            }
            let what = format!("{} is in use", layout.root().display());
            Error::new(ErrorKind::Locked, what).with_file(LOCK).with_hint("wait for its end")
        })?;
        Ok(Self { env, layout, _lock: lock })
    }

    pub(super) fn vfs(&self) -> &dyn Vfs {
        &*self.env.vfs
    }

    /// What is there; other names are passed over.
    pub(super) fn list(&self) -> Result<Found> {
        let mut found = Found::default();
        for dir in DIRS {
            let entries = self.vfs().list(&self.layout.at(dir));
            let entries = match entries {
                Err(error) if error.kind() == IoErrorKind::NotFound => continue,
                other => other.map_err(|error| Error::io("list", dir, error))?,
            };
            for entry in entries.into_iter().filter(|entry| entry.is_file) {
                match File::parse(dir, &entry.name) {
                    Some((file, true)) => drop(found.finished.insert(file, entry.len)),
                    Some((_, false)) => {
                        found.unfinished.push((Path::new(dir).join(entry.name), entry.len));
                    }
                    None => {}
                }
            }
        }
        Ok(found)
    }

    /// Makes the names of everything but descriptions durable.
    pub(super) fn sync_files(&self) -> Result<()> {
        let dirs = DIRS.iter().filter(|dir| **dir != DESCRIPTION_DIR);
        dirs.into_iter().try_for_each(|dir| self.layout.sync_dir(self.vfs(), dir))
    }

    /// Makes it durable which backups there are.
    pub(super) fn sync_descriptions(&self) -> Result<()> {
        self.layout.sync_dir(self.vfs(), DESCRIPTION_DIR)
    }

    /// Gives a file that is complete and durable its name.
    pub(super) fn finish(&self, file: File) -> Result<()> {
        let (from, to) = (self.layout.at(file.unfinished()), self.layout.at(file.name()));
        self.vfs().rename(&from, &to).map_err(|error| Error::io("rename", file.unfinished(), error))
    }

    /// Makes room for a file that is to be written.
    pub(super) fn clear(&self, file: File) -> Result<()> {
        match self.vfs().remove(&self.layout.at(file.unfinished())) {
            Err(error) if error.kind() != IoErrorKind::NotFound => {
                Err(Error::io("remove", file.unfinished(), error))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn describe(&self, description: &Description) -> Result<()> {
        let text = description.encode()?;
        let file = File::Description { id: description.id };
        self.clear(file)?;
        let name = file.unfinished();
        let out = self.vfs().create(&self.layout.at(&name), 0);
        let out = out.map_err(|error| Error::io("create", &name, error))?;
        out.write_at(text.as_bytes(), 0).map_err(|error| Error::io("write", &name, error))?;
        out.sync().map_err(|error| Error::io("sync", &name, error))?;
        self.finish(file)?;
        self.sync_descriptions()
    }

    pub(super) fn description(&self, id: u64) -> Result<Description> {
        let name = File::Description { id }.name();
        let file = self.vfs().open_read(&self.layout.at(&name));
        let file = file.map_err(|error| match error.kind() {
            IoErrorKind::NotFound => {
                Error::new(ErrorKind::NotFound, format!("there is no backup {id}"))
            }
            _ => Error::io("open", &name, error),
        })?;
        let len = file.len().map_err(|error| Error::io("measure", &name, error))?;
        let len = usize::try_from(len).ok().filter(|len| *len <= LEN_MAX).ok_or_else(|| {
            Error::corruption("description of a backup", &name, 0, "it is longer than one can be")
        })?;
        let mut text = vec![0; len];
        file.read_exact_at(&mut text, 0).map_err(|error| Error::io("read", &name, error))?;
        Description::decode(&text, id, &name)
    }

    /// Reads all of a file and compares it with what it must be.
    pub(super) fn check(&self, file: File, Stored { bytes, checksum }: Stored) -> Result<()> {
        let name = file.name();
        let open = self.layout.open_read(self.vfs(), &name).map_err(|error| {
            Error::corruption(file.what(), &name, 0, format!("it cannot be opened: {error}"))
        })?;
        verify_file(file.what(), open, name, bytes, checksum)
    }

    /// The state of the database in a backup.
    pub(super) fn state(&self, of: &Description) -> Result<ManifestState> {
        let file = File::Manifest { id: of.id };
        self.check(file, of.manifest)?;
        let layout = Layout::new(&self.layout.at(MANIFEST_DIR));
        let (state, _) =
            version::load(self.vfs(), &layout, of.id, &Arc::new(Graveyard::default()))?;
        if state.uuid != of.database {
            let detail = "it belongs to another database";
            return Err(Error::corruption(file.what(), file.name(), 0, detail));
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_names_are_files_of_backups() {
        let checksum = u128::MAX / 7;
        for file in [
            File::Log { id: 0x2a, base: 4096 },
            File::Table { number: 0x2a, checksum },
            File::Blob { number: 0x2a, checksum },
            File::Manifest { id: 0x2a },
            File::Description { id: 0x2a },
        ] {
            for (name, is_finished) in [(file.name(), true), (file.unfinished(), false)] {
                let dir = name.parent().and_then(Path::to_str).unwrap();
                let own = Path::new(name.file_name().unwrap());
                assert_eq!(File::parse(dir, own), Some((file, is_finished)));
                for dir in DIRS.into_iter().filter(|other| *other != dir) {
                    assert_eq!(File::parse(dir, own), None, "{dir}");
                }
                let longer = format!("0{}", own.display());
                assert_eq!(File::parse(dir, Path::new(&longer)), None, "{longer}");
                let capitals = own.display().to_string().to_uppercase();
                assert_eq!(File::parse(dir, Path::new(&capitals)), None, "{capitals}");
            }
        }
    }
}
