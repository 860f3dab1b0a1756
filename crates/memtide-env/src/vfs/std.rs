//! The machine's own file system.
//!
//! Files are opened with `O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK` and must then be regular, so neither a
//! symbolic link, nor a FIFO, nor a device in place of a file is followed, waited for or written. Files get
//! mode 0600, directories 0700. Short transfers and interrupted calls are taken up again by the standard
//! library's exact reads and whole writes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use memtide_base::sync::Arc;
use rustix::fs::{FallocateFlags, OFlags, fallocate, statvfs};
use rustix::io::{Errno, retry_on_intr};

use super::fuse::Fuse;
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
use super::mapped::{self, MappedFile};
use super::{DirEntry, FileLock, LockMode, ReadFile, Space, Vfs, WriteFile};

/// The machine's own file system.
#[derive(Clone, Copy, Debug)]
pub struct StdVfs;

impl Vfs for StdVfs {
    fn create(&self, path: &Path, prealloc: u64) -> io::Result<Box<dyn WriteFile>> {
        let (file, _) = create(options().write(true), path, prealloc)?;
        Ok(Box::new(StdWriteFile { file, fuse: Fuse::default() }))
    }

    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    fn create_mapped(
        &self,
        path: &Path,
        prealloc: u64,
        window: u64,
    ) -> io::Result<Box<dyn WriteFile>> {
        let (file, is_allocated) = create(options().read(true).write(true), path, prealloc)?;
        if !is_allocated || !mapped::pays(prealloc, window) || !mapped::keeps_blocks(&file) {
            return Ok(Box::new(StdWriteFile { file, fuse: Fuse::default() }));
        }
        Ok(match MappedFile::new(file, prealloc, window) {
            Ok(mapped) => Box::new(mapped),
            Err(file) => Box::new(StdWriteFile { file, fuse: Fuse::default() }),
        })
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let file = open_regular(options().write(true), path)?;
        Ok(Box::new(StdWriteFile { file, fuse: Fuse::default() }))
    }

    fn reuse(&self, from: &Path, to: &Path) -> io::Result<Box<dyn WriteFile>> {
        match fs::symlink_metadata(to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        }
        fs::rename(from, to)?;
        self.open_write(to)
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        Ok(Arc::new(StdReadFile(open_regular(options().read(true), path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // This does not follow links. A file removed since the directory was read is not listed.
            let meta = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let is_file = meta.is_file();
            let len = if is_file { meta.len() } else { 0 };
            entries.push(DirEntry { name: PathBuf::from(entry.file_name()), is_file, len });
        }
        // By bytes: comparing paths looks for their components.
        entries.sort_unstable_by(|a, b| a.name.as_os_str().cmp(b.name.as_os_str()));
        Ok(entries)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
            other => other,
        }
    }

    fn canonical(&self, dir: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let flags = flag_bits(OFlags::DIRECTORY);
        OpenOptions::new().read(true).custom_flags(flags).open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<Box<dyn FileLock>> {
        let mut how = options();
        let file = match mode {
            LockMode::Exclusive => open_regular(how.read(true).write(true).create(true), path)?,
            LockMode::Shared => open_regular(how.read(true), path)?,
        };
        let locked = match mode {
            LockMode::Exclusive => file.try_lock(),
            LockMode::Shared => file.try_lock_shared(),
        };
        match locked {
            Ok(()) => Ok(Box::new(StdLock { file, mode, path: path.to_path_buf() })),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let stat = statvfs(dir)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Space { free: bytes(stat.f_bavail), total: bytes(stat.f_blocks) })
    }
}

/// The flags every file is opened with; the standard library adds `O_CLOEXEC`.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(flag_bits(OFlags::NOFOLLOW | OFlags::NONBLOCK));
    options
}

fn flag_bits(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

/// Opens `path` and refuses what is not a regular file.
fn open_regular(options: &OpenOptions, path: &Path) -> io::Result<File> {
    let odd = || {
        let what = format!("{} is not a regular file", path.display());
        io::Error::new(io::ErrorKind::InvalidInput, what)
    };
    match options.open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(file),
        Ok(_) => Err(odd()),
        // Links, FIFOs without a reader and directories fail to open, each with another error.
        Err(_) if fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_file()) => Err(odd()),
        Err(error) => Err(error),
    }
}

/// Creates a file with `prealloc` bytes allocated ahead, and says whether they are.
fn create(options: &mut OpenOptions, path: &Path, prealloc: u64) -> io::Result<(File, bool)> {
    let file = options.create_new(true).open(path)?;
    match allocate(&file, prealloc) {
        Ok(is_allocated) => Ok((file, is_allocated)),
        Err(error) => {
            // The caller is told that nothing was created; an empty file that cannot be removed
            // either is an orphan like one after a crash.
            let _orphan = fs::remove_file(path);
            Err(error)
        }
    }
}

/// Gives an empty file `len` bytes, allocated unless its file system cannot do that at all: `false` then.
fn allocate(file: &File, len: u64) -> io::Result<bool> {
    if len == 0 {
        return Ok(true);
    }
    match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, len)) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => file.set_len(len).map(|()| false),
        Err(error) => Err(error.into()),
    }
}

#[derive(Debug)]
struct StdWriteFile {
    file: File,
    fuse: Fuse,
}

impl WriteFile for StdWriteFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.fuse.run(|| self.file.write_all_at(bytes, offset))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fuse.run(|| self.file.set_len(len))
    }

    fn sync(&self) -> io::Result<()> {
        self.fuse.run(|| self.file.sync_data())
    }
}

#[derive(Debug)]
struct StdReadFile(File);

impl ReadFile for StdReadFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// The lock is the kernel's, on the open file, of which a process that is being started by another thread has a copy
/// until it runs its own program: closing ours would not unlock it then, so it is unlocked first.
#[derive(Debug)]
struct StdLock {
    file: File,
    mode: LockMode,
    path: PathBuf,
}

impl FileLock for StdLock {
    fn describe(&self, holder: &str) -> io::Result<()> {
        if self.mode == LockMode::Shared {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.file.set_len(0)?;
        self.file.write_all_at(holder.as_bytes(), 0)
    }

    fn is_current(&self) -> io::Result<bool> {
        let held = self.file.metadata()?;
        match fs::symlink_metadata(&self.path) {
            Ok(found) => Ok((found.dev(), found.ino()) == (held.dev(), held.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for StdLock {
    fn drop(&mut self) {
        // Failing to is no error: closing the file does it, if a little later.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
        result.err().map(|error| error.kind())
    }

    #[test]
    fn links_fifos_and_directories_are_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let [target, link, fifo, sub] =
            ["target", "link", "fifo", "sub"].map(|n| dir.path().join(n));
        fs::write(&target, "x").unwrap();
        symlink(&target, &link).unwrap();
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        fs::create_dir(&sub).unwrap();
        for odd in [&link, &fifo, &sub] {
            assert_eq!(kind(StdVfs.open_read(odd)), Some(ErrorKind::InvalidInput), "{odd:?}");
            assert_eq!(kind(StdVfs.open_write(odd)), Some(ErrorKind::InvalidInput), "{odd:?}");
            let locked = StdVfs.lock(odd, LockMode::Exclusive);
            assert_eq!(kind(locked), Some(ErrorKind::InvalidInput), "{odd:?}");
        }
        let listed = StdVfs.list(dir.path()).unwrap();
        let files: Vec<_> = listed.iter().filter(|e| e.is_file).map(|e| e.name.as_path()).collect();
        assert_eq!(files, [Path::new("target")]);
    }

    #[test]
    fn nobody_else_may_read_what_is_created() {
        let dir = tempfile::tempdir().unwrap();
        let (sub, file) = (dir.path().join("sub"), dir.path().join("sub/file"));
        StdVfs.create_dir(&sub).unwrap();
        StdVfs.create(&file, 0).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&sub), mode(&file)), (0o700, 0o600));
    }

    #[test]
    fn a_lock_ends_although_a_starting_process_has_a_copy_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let file =
            options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        file.try_lock().unwrap();
        let copy = file.try_clone().unwrap();
        let lock = StdLock { file, mode: LockMode::Exclusive, path: path.clone() };
        assert_eq!(kind(StdVfs.lock(&path, LockMode::Shared)), Some(ErrorKind::WouldBlock));
        drop(lock);
        StdVfs.lock(&path, LockMode::Exclusive).unwrap();
        drop(copy);
    }

    #[test]
    fn a_file_that_failed_stays_dead() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let file = StdWriteFile { file: full, fuse: Fuse::default() };
        assert_eq!(kind(file.write_at(b"x", 0)), Some(ErrorKind::StorageFull));
        let later = [file.sync(), file.write_at(b"", 0), file.set_len(0)];
        for error in later.map(Result::unwrap_err) {
            assert_eq!(error.to_string(), "file is dead after an earlier error");
        }
    }
}
