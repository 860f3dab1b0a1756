//! Files and directories, as small a surface as the engine needs.
//!
//! - [`StdVfs`]: the machine's own file system.
//! - [`SimVfs`]: a disk in memory that can lose power: un-synced pages and directory entries vanish, tear
//!   or stay, by mode and seed. Without a crash it is simply a file system in memory.
//!
//! What is durable when: bytes and length of a file after [`WriteFile::sync`]; the name of a created,
//! renamed or removed file after [`Vfs::sync_dir`] on its directory. A rename replaces its target
//! atomically. Nothing else may be relied upon.

mod fuse;
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod mapped;
#[cfg(any(test, feature = "simulation"))]
mod sim;
mod std;

use ::std::fmt::Debug;
use ::std::io;
use ::std::path::{Component, Path, PathBuf};

use memtide_base::sync::Arc;

#[cfg(any(test, feature = "simulation"))]
pub use sim::{Access, CrashMode, Disk, Fault, Injector, IoOp, Observer, SimVfs};
pub use std::StdVfs;

/// A file system.
///
/// All methods are safe to call from many threads. No method follows a symbolic link in the last
/// component of a file's path; a directory may be reached through one.
pub trait Vfs: Debug + Send + Sync + 'static {
    /// Creates a file that must not exist, for writing; never truncates one. It reads as `prealloc` zeros, which are
    /// allocated ahead where the file system can.
    ///
    /// # Errors
    /// `AlreadyExists`, a full device, or whatever the operating system says.
    fn create(&self, path: &Path, prealloc: u64) -> io::Result<Box<dyn WriteFile>>;

    /// As [`Vfs::create`], for a file that takes many small writes, each behind the one before, and keeps to the
    /// `prealloc` bytes: they go through a map of the file where that is safe ([`WriteFile::is_mapped`]), the
    /// ordinary way everywhere else. What readers, a crash and a power cut find is the same either way. At most
    /// `window` bytes are mapped at once, which are resident in the process until it moves on.
    ///
    /// # Errors
    /// As [`Vfs::create`].
    fn create_mapped(
        &self,
        path: &Path,
        prealloc: u64,
        window: u64,
    ) -> io::Result<Box<dyn WriteFile>> {
        let _ = window;
        self.create(path, prealloc)
    }

    /// Opens an existing regular file for writing, contents and length unchanged.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` if it is not a regular file.
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Renames `from` to `to`, which must not exist, and opens it for writing over its old bytes.
    ///
    /// # Errors
    /// As [`Vfs::open_write`]; `AlreadyExists` for `to`.
    fn reuse(&self, from: &Path, to: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Opens an existing regular file for reading.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` if it is not a regular file (a FIFO or device is not opened).
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>>;

    /// Renames a file, replacing `to` atomically if it exists.
    ///
    /// # Errors
    /// Whatever the operating system says; neither name has changed then.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name.
    ///
    /// # Errors
    /// `AlreadyExists`, or whatever the operating system says.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name; open handles keep working.
    ///
    /// # Errors
    /// `NotFound`, or whatever the operating system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The entries of a directory, sorted by name.
    ///
    /// # Errors
    /// `NotFound`, or whatever the operating system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Creates a directory whose parent exists; an existing directory is fine.
    ///
    /// # Errors
    /// `AlreadyExists` if a file has that name, or whatever the operating system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// The one absolute path of an existing directory, without links: two paths lead to the same directory if theirs
    /// are equal. As it stands for disks without symbolic links, where `/` is the working directory.
    ///
    /// # Errors
    /// `NotFound`, or whatever the operating system says.
    fn canonical(&self, dir: &Path) -> io::Result<PathBuf> {
        self.list(dir)?;
        let parts = dir.components().filter(|part| matches!(part, Component::Normal(_)));
        Ok(Path::new("/").join(parts.collect::<PathBuf>()))
    }

    /// Makes the names inside `dir` durable.
    ///
    /// # Errors
    /// Whatever the operating system says; the names may or may not be durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Locks a file against other processes and other handles of this one, until the result is dropped.
    /// An exclusive lock creates the file if it is missing; a shared one does not.
    ///
    /// # Errors
    /// `WouldBlock` if someone else holds it; `NotFound` for a shared lock on a missing file.
    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<Box<dyn FileLock>>;

    /// Space on the device that holds `dir`.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn space(&self, dir: &Path) -> io::Result<Space>;
}

/// A file being written. Closing is dropping; only what was synced before is durable.
///
/// After any error the file is dead: every later call fails too. In particular a failed sync cannot be
/// retried, because the kernel may have dropped the pages it could not write.
pub trait WriteFile: Debug + Send + Sync {
    /// Writes all of `bytes` at `offset`, growing the file as needed.
    ///
    /// # Errors
    /// Any prefix of the bytes may have been written, and of a mapped file all but any page; the file is dead.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file to `len` bytes, or grows it with zeros.
    ///
    /// # Errors
    /// The length is the old or the new one; the file is dead.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes the bytes and the length durable.
    ///
    /// # Errors
    /// What was written since the last successful sync may be lost; the file is dead.
    fn sync(&self) -> io::Result<()>;

    /// Whether writes go through a map of the file, without a system call each.
    fn is_mapped(&self) -> bool {
        false
    }
}

/// A file being read.
pub trait ReadFile: Debug + Send + Sync {
    /// Fills all of `buf` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before, or whatever the operating system says.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// The file's length in bytes.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// As [`ReadFile::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A held file lock; dropping it unlocks.
pub trait FileLock: Debug + Send + Sync {
    /// Replaces the lock file's text, which is for people only (who holds it).
    ///
    /// # Errors
    /// `PermissionDenied` for a shared lock, or whatever the operating system says.
    fn describe(&self, holder: &str) -> io::Result<()>;

    /// Whether the path that was locked still leads to the locked file: if not, somebody else may hold a lock there,
    /// and what lies beside it may be somebody else's.
    ///
    /// # Errors
    /// Whatever the operating system says; a path that leads nowhere is no error.
    fn is_current(&self) -> io::Result<bool>;
}

/// How a lock excludes others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// One writer, no readers.
    Exclusive,
    /// Any number of readers.
    Shared,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The last component of its path.
    pub name: PathBuf,
    /// Whether it is a regular file (neither directory, link, FIFO nor device).
    pub is_file: bool,
    /// Its length in bytes; 0 unless it is a regular file.
    pub len: u64,
}

/// Space on a device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Usable by this process.
    pub free: u64,
    /// In all.
    pub total: u64,
}

#[cfg(test)]
mod tests {
    use ::std::io::ErrorKind;

    use super::*;

    fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
        result.err().map(|error| error.kind())
    }

    fn content(vfs: &dyn Vfs, path: &Path) -> Vec<u8> {
        let file = vfs.open_read(path).unwrap();
        let mut bytes = vec![0xee; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn files_are_written_read_and_cut(vfs: &dyn Vfs, root: &Path) {
        let path = root.join("data");
        let file = vfs.create(&path, 0).unwrap();
        assert_eq!(kind(vfs.create(&path, 0)), Some(ErrorKind::AlreadyExists));
        assert!(vfs.open_read(&path).unwrap().is_empty().unwrap());
        file.write_at(b"tide", 1000).unwrap();
        file.write_at(b"ebb", 0).unwrap();
        file.sync().unwrap();
        let mut want = vec![0; 1004];
        want[..3].copy_from_slice(b"ebb");
        want[1000..].copy_from_slice(b"tide");
        assert_eq!(content(vfs, &path), want);

        let reader = vfs.open_read(&path).unwrap();
        let mut buf = [0; 4];
        assert_eq!(kind(reader.read_exact_at(&mut buf, 1001)), Some(ErrorKind::UnexpectedEof));
        file.set_len(1002).unwrap();
        vfs.open_write(&path).unwrap().set_len(1004).unwrap();
        reader.read_exact_at(&mut buf, 1000).unwrap();
        assert_eq!(&buf, b"ti\0\0", "what was cut off comes back as zeros");
    }

    fn preallocated_bytes_read_as_zeros(vfs: &dyn Vfs, root: &Path) {
        let path = root.join("ahead");
        let file = vfs.create(&path, 5000).unwrap();
        file.write_at(b"x", 2).unwrap();
        let bytes = content(vfs, &path);
        assert_eq!(bytes.len(), 5000);
        assert!(bytes.starts_with(b"\0\0x") && bytes[3..].iter().all(|byte| *byte == 0));
    }

    fn a_mapped_file_reads_like_any_other(vfs: &dyn Vfs, root: &Path) {
        let path = root.join("mapped");
        let file = vfs.create_mapped(&path, 4 << 20, 1 << 20).unwrap();
        assert_eq!(kind(vfs.create_mapped(&path, 0, 1 << 20)), Some(ErrorKind::AlreadyExists));
        let reader = vfs.open_read(&path).unwrap();
        for (offset, bytes) in [(0, b"head"), (4, b"body"), (1 << 20, b"late")] {
            file.write_at(bytes, offset).unwrap();
            let mut buf = [0; 4];
            reader.read_exact_at(&mut buf, offset).unwrap();
            assert_eq!(&buf, bytes, "read beside the writer");
            file.sync().unwrap();
        }
        file.set_len(8).unwrap();
        file.write_at(b"tail", 8).unwrap();
        assert_eq!(content(vfs, &path), b"headbodytail");
        vfs.rename(&path, &root.join("elsewhere")).unwrap();
        file.write_at(b"!", 12).unwrap();
        vfs.remove(&root.join("elsewhere")).unwrap();
        file.sync().unwrap();
    }

    fn names_move_and_vanish_while_handles_stay(vfs: &dyn Vfs, root: &Path) {
        let [a, b, c] = ["a", "b", "c"].map(|name| root.join(name));
        for (path, text) in [(&a, b"one"), (&b, b"two")] {
            vfs.create(path, 0).unwrap().write_at(text, 0).unwrap();
        }
        let old = vfs.open_read(&b).unwrap();
        assert_eq!(kind(vfs.link(&a, &b)), Some(ErrorKind::AlreadyExists));
        assert_eq!(kind(vfs.reuse(&a, &b)), Some(ErrorKind::AlreadyExists));
        vfs.rename(&a, &b).unwrap();
        assert_eq!(kind(vfs.open_read(&a)), Some(ErrorKind::NotFound));
        assert_eq!(content(vfs, &b), b"one");
        let mut buf = [0; 3];
        old.read_exact_at(&mut buf, 0).unwrap();
        assert_eq!(&buf, b"two");

        vfs.reuse(&b, &c).unwrap().write_at(b"ZZ", 1).unwrap();
        assert_eq!(content(vfs, &c), b"oZZ");
        vfs.link(&c, &a).unwrap();
        vfs.rename(&c, &a).unwrap();
        vfs.remove(&c).unwrap();
        assert_eq!(content(vfs, &a), b"oZZ", "renaming a name to its twin leaves both");
        for missing in [vfs.remove(&c), vfs.rename(&c, &b), vfs.link(&c, &b)] {
            assert_eq!(kind(missing), Some(ErrorKind::NotFound));
        }
        vfs.remove(&a).unwrap();
    }

    fn directories_list_their_entries_by_name(vfs: &dyn Vfs, root: &Path) {
        let dir = root.join("dir");
        assert_eq!(kind(vfs.create(&dir.join("x"), 0)), Some(ErrorKind::NotFound));
        assert_eq!(kind(vfs.list(&dir)), Some(ErrorKind::NotFound));
        vfs.create_dir(&dir).unwrap();
        vfs.create_dir(&dir).unwrap();
        for name in ["z", "m", "a"] {
            vfs.create(&dir.join(name), 0).unwrap().write_at(name.as_bytes(), 6).unwrap();
        }
        vfs.create_dir(&dir.join("k")).unwrap();
        let entry = |name: &str, is_file, len| DirEntry { name: PathBuf::from(name), is_file, len };
        let want =
            [entry("a", true, 7), entry("k", false, 0), entry("m", true, 7), entry("z", true, 7)];
        assert_eq!(vfs.list(&dir).unwrap(), want);
        vfs.sync_dir(&dir).unwrap();
        let plain = vfs.canonical(&dir).unwrap();
        assert_eq!(vfs.canonical(&dir.join("./k/")).unwrap(), plain.join("k"));
        assert_eq!(kind(vfs.canonical(&dir.join("no"))), Some(ErrorKind::NotFound));

        assert_eq!(kind(vfs.create_dir(&dir.join("a"))), Some(ErrorKind::AlreadyExists));
        assert_eq!(kind(vfs.create_dir(&dir.join("no/sub"))), Some(ErrorKind::NotFound));
        assert_eq!(kind(vfs.sync_dir(&dir.join("no"))), Some(ErrorKind::NotFound));
        assert_eq!(kind(vfs.sync_dir(&dir.join("a"))), Some(ErrorKind::NotADirectory));
        assert_eq!(kind(vfs.open_read(&dir)), Some(ErrorKind::InvalidInput));
        assert_eq!(kind(vfs.open_write(&dir)), Some(ErrorKind::InvalidInput));
        assert_eq!(kind(vfs.rename(&dir.join("a"), &dir.join("k"))), Some(ErrorKind::IsADirectory));
        assert_eq!(kind(vfs.remove(&dir.join("k"))), Some(ErrorKind::IsADirectory));
        vfs.rename(&dir.join("a"), &root.join("moved")).unwrap();
        assert_eq!(content(vfs, &root.join("moved")), b"\0\0\0\0\0\0a");
    }

    fn locks_exclude_until_dropped(vfs: &dyn Vfs, root: &Path) {
        let path = root.join("LOCK");
        assert_eq!(kind(vfs.lock(&path, LockMode::Shared)), Some(ErrorKind::NotFound));
        let writer = vfs.lock(&path, LockMode::Exclusive).unwrap();
        for mode in [LockMode::Exclusive, LockMode::Shared] {
            assert_eq!(kind(vfs.lock(&path, mode)), Some(ErrorKind::WouldBlock));
        }
        writer.describe("a long description").unwrap();
        writer.describe("short").unwrap();
        assert_eq!(content(vfs, &path), b"short");
        assert!(writer.is_current().unwrap());
        vfs.remove(&path).unwrap();
        assert!(!writer.is_current().unwrap());
        let other = vfs.lock(&path, LockMode::Exclusive).unwrap();
        assert!(!writer.is_current().unwrap() && other.is_current().unwrap());
        drop((writer, other));

        let readers = [LockMode::Shared; 2].map(|mode| vfs.lock(&path, mode).unwrap());
        assert_eq!(kind(readers[0].describe("no")), Some(ErrorKind::PermissionDenied));
        let [first, second] = readers;
        drop(first);
        assert_eq!(kind(vfs.lock(&path, LockMode::Exclusive)), Some(ErrorKind::WouldBlock));
        drop(second);
        vfs.lock(&path, LockMode::Exclusive).unwrap();
    }

    fn conforms(vfs: &dyn Vfs, root: &Path) {
        files_are_written_read_and_cut(vfs, root);
        preallocated_bytes_read_as_zeros(vfs, root);
        a_mapped_file_reads_like_any_other(vfs, root);
        names_move_and_vanish_while_handles_stay(vfs, root);
        directories_list_their_entries_by_name(vfs, root);
        locks_exclude_until_dropped(vfs, root);
        let space = vfs.space(root).unwrap();
        assert!(0 < space.free && space.free <= space.total);
    }

    #[test]
    fn the_machines_file_system_keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        conforms(&StdVfs, dir.path());
    }

    #[test]
    fn the_simulated_disk_keeps_the_contract() {
        let vfs = SimVfs::new();
        let root = Path::new("/db");
        vfs.create_dir(root).unwrap();
        conforms(&vfs, root);
    }
}
