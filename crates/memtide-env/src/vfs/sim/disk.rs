//! The state of a simulated disk: files, directories, and which of their names are durable.
//!
//! A directory is two maps of names, live and durable, and the ordered changes between them. `sync` of a
//! file never makes its name durable: stricter than most file systems, on purpose. A name that moves
//! between directories is two changes; the removal of the old name is never durable before the new one is.
//!
//! A [`Disk`] is cheap to clone: clones share pages, files and directories until they differ.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

use memtide_base::sync::Arc;

use super::file::Inode;

/// The number of the directory `/`, which is always durable.
pub(super) const ROOT: u64 = 0;

/// Everything on a simulated disk, durable or not.
#[derive(Clone, Debug)]
pub struct Disk {
    pub(super) files: BTreeMap<u64, Arc<Inode>>,
    pub(super) dirs: BTreeMap<u64, Arc<Dir>>,
    /// Numbers files, directories and changes alike; never repeats.
    pub(super) next: u64,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    File(u64),
    Dir(u64),
}

pub(super) type Names = BTreeMap<OsString, Node>;

#[derive(Clone, Debug, Default)]
pub(super) struct Dir {
    pub(super) live: Names,
    pub(super) durable: Names,
    /// From `durable` to `live`, in order.
    pub(super) pending: Vec<Change>,
}

/// One change of a directory's names. It survives a crash whole or not at all.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) number: u64,
    unset: Option<OsString>,
    set: Option<(OsString, Node)>,
    /// The directory and number of the change that this one must not outlive.
    pub(super) needs: Option<(u64, u64)>,
}

impl Change {
    pub(super) fn apply(&self, names: &mut Names) {
        if let Some(name) = &self.unset {
            names.remove(name);
        }
        if let Some((name, node)) = &self.set {
            names.insert(name.clone(), *node);
        }
    }
}

impl Dir {
    /// Makes the changes up to `last` durable.
    fn settle(&mut self, last: u64) {
        let pending = &mut self.pending;
        let split = pending.partition_point(|change| change.number <= last);
        pending.drain(..split).for_each(|change| change.apply(&mut self.durable));
    }
}

/// A path taken apart: the directory it is in, and its name there.
#[derive(Debug)]
pub(super) struct Place {
    dir: u64,
    name: OsString,
}

impl Default for Disk {
    /// An empty disk.
    fn default() -> Self {
        let root = (ROOT, Arc::default());
        Self { files: BTreeMap::new(), dirs: BTreeMap::from([root]), next: ROOT + 1 }
    }
}

impl Disk {
    /// The directory at `path`.
    pub(super) fn dir_at(&self, path: &Path) -> io::Result<u64> {
        let mut dir = ROOT;
        for component in path.components() {
            let name = match component {
                Component::RootDir | Component::CurDir => continue,
                Component::Normal(name) => name,
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(fail(io::ErrorKind::InvalidInput, path, "is not a plain path"));
                }
            };
            dir = match self.dirs[&dir].live.get(name) {
                Some(Node::Dir(number)) => *number,
                Some(Node::File(_)) => {
                    return Err(fail(io::ErrorKind::NotADirectory, path, "is not a directory"));
                }
                None => return Err(fail(io::ErrorKind::NotFound, path, "does not exist")),
            };
        }
        Ok(dir)
    }

    pub(super) fn place(&self, path: &Path) -> io::Result<Place> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(fail(io::ErrorKind::InvalidInput, path, "has no last component"));
        };
        Ok(Place { dir: self.dir_at(parent)?, name: name.to_os_string() })
    }

    pub(super) fn node(&self, place: &Place) -> Option<Node> {
        self.dirs[&place.dir].live.get(&place.name).copied()
    }

    /// The file at `path`; `InvalidInput` for a directory.
    pub(super) fn file_at(&self, path: &Path) -> io::Result<u64> {
        match self.place(path).map(|place| self.node(&place))? {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => {
                Err(fail(io::ErrorKind::InvalidInput, path, "is not a regular file"))
            }
            None => Err(fail(io::ErrorKind::NotFound, path, "does not exist")),
        }
    }

    /// The place of a name that does not exist yet.
    pub(super) fn vacancy(&self, path: &Path) -> io::Result<Place> {
        let place = self.place(path)?;
        match self.node(&place) {
            None => Ok(place),
            Some(_) => Err(fail(io::ErrorKind::AlreadyExists, path, "exists already")),
        }
    }

    /// Creates an empty file of `len` bytes of zeros.
    pub(super) fn create(&mut self, place: Place, len: u64) -> u64 {
        let file = self.number();
        self.files.insert(file, Arc::new(Inode::with_len(len)));
        self.set(place, Node::File(file), None);
        file
    }

    pub(super) fn create_dir(&mut self, place: Place) {
        let dir = self.number();
        self.dirs.insert(dir, Arc::default());
        self.set(place, Node::Dir(dir), None);
    }

    /// Gives `file` one more name, replacing what has that name now.
    pub(super) fn link(&mut self, file: u64, to: Place) {
        self.set(to, Node::File(file), None);
    }

    pub(super) fn remove(&mut self, place: Place) {
        self.unset(place, None);
    }

    /// Moves the name of `file`; two names of one file stay as they are, as POSIX has it.
    pub(super) fn rename(&mut self, file: u64, from: Place, to: Place) {
        if self.node(&to) == Some(Node::File(file)) {
            return;
        }
        if from.dir == to.dir {
            self.set(to, Node::File(file), Some(from.name));
        } else {
            let target = to.dir;
            let added = self.set(to, Node::File(file), None);
            self.unset(from, Some((target, added)));
        }
    }

    fn set(&mut self, place: Place, node: Node, unset: Option<OsString>) -> u64 {
        self.change(place.dir, unset, Some((place.name, node)), None)
    }

    fn unset(&mut self, place: Place, needs: Option<(u64, u64)>) {
        self.change(place.dir, Some(place.name), None, needs);
    }

    fn change(
        &mut self,
        dir: u64,
        unset: Option<OsString>,
        set: Option<(OsString, Node)>,
        needs: Option<(u64, u64)>,
    ) -> u64 {
        let number = self.number();
        let change = Change { number, unset, set, needs };
        let dir = self.dir_mut(dir);
        change.apply(&mut dir.live);
        dir.pending.push(change);
        number
    }

    /// Makes the names of `dir` durable.
    pub(super) fn sync_dir(&mut self, dir: u64) {
        let needed: Vec<_> = self.dirs[&dir].pending.iter().filter_map(|c| c.needs).collect();
        for (target, number) in needed {
            self.dir_mut(target).settle(number);
        }
        self.dir_mut(dir).settle(u64::MAX);
    }

    pub(super) fn file(&self, file: u64) -> &Inode {
        &self.files[&file]
    }

    pub(super) fn file_mut(&mut self, file: u64) -> &mut Inode {
        Arc::make_mut(self.files.get_mut(&file).expect("names and handles keep their file"))
    }

    fn dir_mut(&mut self, dir: u64) -> &mut Dir {
        Arc::make_mut(self.dirs.get_mut(&dir).expect("directories are never removed"))
    }

    /// Forgets files that no crash and no handle can bring back.
    pub(super) fn collect(&mut self, open: &BTreeMap<u64, usize>) {
        let mut kept: BTreeSet<u64> = open.keys().copied().collect();
        for dir in self.dirs.values() {
            let pending = dir.pending.iter().filter_map(|change| change.set.as_ref());
            let nodes = pending.map(|(_, node)| node).chain(dir.live.values());
            kept.extend(nodes.chain(dir.durable.values()).filter_map(|node| match node {
                Node::File(file) => Some(*file),
                Node::Dir(_) => None,
            }));
        }
        self.files.retain(|file, _| kept.contains(file));
    }

    /// Bytes that files with a live name or an open handle take.
    pub(super) fn used(&self, open: &BTreeMap<u64, usize>) -> u64 {
        let mut held: BTreeSet<u64> = open.keys().copied().collect();
        held.extend(self.walk().into_iter().map(|(_, file)| file));
        held.iter().map(|&file| self.file(file).live_len).sum()
    }

    /// The files that a power cut now could take something from, and the directories that it could take names
    /// from, by path.
    #[must_use]
    pub fn unsynced(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut dirs = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, number)) = dirs.pop() {
            let dir = &self.dirs[&number];
            for (name, node) in &dir.live {
                match node {
                    Node::File(file) if self.file(*file).is_synced() => {}
                    Node::File(_) => found.push(path.join(name)),
                    Node::Dir(below) => dirs.push((path.join(name), *below)),
                }
            }
            if !dir.pending.is_empty() {
                found.push(path);
            }
        }
        found
    }

    /// All files by path, in order.
    pub(super) fn walk(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        let mut dirs = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, dir)) = dirs.pop() {
            for (name, node) in &self.dirs[&dir].live {
                match node {
                    Node::File(file) => found.push((path.join(name), *file)),
                    Node::Dir(dir) => dirs.push((path.join(name), *dir)),
                }
            }
        }
        found.sort_unstable();
        found
    }

    /// Name, whether it is a file, and length of each entry of `dir`, by name.
    pub(super) fn entries(&self, dir: u64) -> impl Iterator<Item = (&OsStr, Option<u64>)> {
        self.dirs[&dir].live.iter().map(|(name, node)| match node {
            Node::File(file) => (name.as_os_str(), Some(self.file(*file).live_len)),
            Node::Dir(_) => (name.as_os_str(), None),
        })
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }
}

/// An error about `path`.
pub(super) fn fail(kind: io::ErrorKind, path: &Path, what: &str) -> io::Error {
    io::Error::new(kind, format!("{} {what}", path.display()))
}
