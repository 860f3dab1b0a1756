//! A disk in memory that can lose power.
//!
//! [`SimVfs`] is a file system over one [`Disk`]; every operation that changes the disk has an index, counted
//! from 0. Before it takes effect an observer may look at the disk, and keep a clone of it: what
//! [`Disk::crash`] makes of that clone is a disk after a power cut at this very operation. An operation
//! can be made to fail, by its index or by an injector that is asked, and the device to be full.
//!
//! Paths are plain: `a/b` and `/a/b` are the same, `..` is refused, there are no links but hard ones. Locks
//! belong to the running system, not to the disk: a crash drops them.
//!
//! A failed sync does what Linux does: readers still see the pages, but no later sync, on any handle, makes
//! them durable unless they are written again.

mod crash;
mod disk;
mod file;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use memtide_base::sync::{Arc, Mutex};

pub use crash::CrashMode;
pub use disk::Disk;

use super::fuse::Fuse;
use super::{DirEntry, FileLock, LockMode, ReadFile, Space, Vfs, WriteFile};
use disk::{Node, fail};

/// What an unlimited device says of its size: 1 TiB.
const UNLIMITED: u64 = 1 << 40;

/// An operation that changes a simulated disk, or what of it is durable.
#[expect(missing_docs, reason = "the fields are the arguments of the calls that the variants name")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IoOp {
    /// [`Vfs::create`], or [`Vfs::lock`] on a missing file.
    Create { path: PathBuf, prealloc: u64 },
    /// [`WriteFile::write_at`], or [`FileLock::describe`].
    Write { path: PathBuf, offset: u64, len: usize },
    /// [`WriteFile::set_len`].
    SetLen { path: PathBuf, len: u64 },
    /// [`WriteFile::sync`].
    Sync { path: PathBuf },
    /// [`Vfs::sync_dir`].
    SyncDir { path: PathBuf },
    /// [`Vfs::rename`] or [`Vfs::reuse`].
    Rename { from: PathBuf, to: PathBuf },
    /// [`Vfs::link`].
    Link { from: PathBuf, to: PathBuf },
    /// [`Vfs::remove`].
    Remove { path: PathBuf },
    /// [`Vfs::create_dir`] on a missing directory.
    CreateDir { path: PathBuf },
}

/// Looks at the disk before each operation. See [`SimVfs::set_observer`].
pub type Observer = Box<dyn FnMut(u64, &IoOp, &Disk) + Send>;

/// What an [`Injector`] is asked about.
#[expect(missing_docs, reason = "the fields are the arguments of the calls that the variants name")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access<'a> {
    /// An operation that changes the disk, or what of it is durable.
    Change(&'a IoOp),
    /// [`Vfs::open_read`] on a file that is there.
    Open { path: &'a Path },
    /// [`ReadFile::read_exact_at`].
    Read { path: &'a Path, offset: u64, len: usize },
}

/// Says whether an access fails, and how. See [`SimVfs::set_injector`].
pub type Injector = Box<dyn FnMut(Access<'_>) -> Option<Fault> + Send>;

/// A file system on a simulated disk. Clones are handles of the same disk.
#[derive(Clone, Default)]
pub struct SimVfs {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    disk: Disk,
    /// Open handles per file.
    open: BTreeMap<u64, usize>,
    locks: BTreeMap<u64, Held>,
    /// Bytes that all files together may take.
    capacity: Option<u64>,
    ops: u64,
    bytes_read: u64,
    faults: BTreeMap<u64, Fault>,
    observer: Option<Observer>,
    injector: Option<Injector>,
}

#[derive(Clone, Copy, Debug)]
enum Held {
    Exclusive,
    Shared(usize),
}

/// How an access fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What the caller is told.
    pub kind: io::ErrorKind,
    /// Bytes that a write leaves behind all the same.
    pub prefix: usize,
}

impl SimVfs {
    /// A file system on an empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A file system on `disk`; its operations count from 0.
    #[must_use]
    pub fn from_disk(disk: Disk) -> Self {
        Self { state: Arc::new(Mutex::new(State { disk, ..State::default() })) }
    }

    /// The disk as it is now.
    #[must_use]
    pub fn disk(&self) -> Disk {
        self.state.lock().disk.clone()
    }

    /// How many operations have begun: the index of the next one.
    #[must_use]
    pub fn op_count(&self) -> u64 {
        self.state.lock().ops
    }

    /// How many bytes of files were read, which is no operation that counts.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.state.lock().bytes_read
    }

    /// Has `observer` called with index and kind of each operation and the disk before it takes effect. An
    /// operation that would fail for its arguments does not count. The observer must not use this file
    /// system, which is locked meanwhile.
    pub fn set_observer(&self, observer: Option<Observer>) {
        self.state.lock().observer = observer;
    }

    /// Has `injector` asked about each access, after the observer saw it; what it says fails as with
    /// [`SimVfs::fail_write_at`]. It must not use this file system, which is locked meanwhile.
    pub fn set_injector(&self, injector: Option<Injector>) {
        self.state.lock().injector = injector;
    }

    /// Makes the operation with this index fail without effect, except that a failed sync drops pages.
    pub fn fail_at(&self, op_index: u64, kind: io::ErrorKind) {
        self.fail_write_at(op_index, kind, 0);
    }

    /// As [`SimVfs::fail_at`]; if the operation is a write, its first `prefix` bytes are written, and of a mapped file
    /// also what lies behind the page of the next one.
    pub fn fail_write_at(&self, op_index: u64, kind: io::ErrorKind, prefix: usize) {
        self.state.lock().faults.insert(op_index, Fault { kind, prefix });
    }

    /// Lets files grow by `free` bytes from now on, besides what removing files gives back; `None` lifts the
    /// limit. Beyond it growth fails with `StorageFull`, a write after the bytes that fit.
    pub fn set_free_space(&self, free: Option<u64>) {
        let mut state = self.state.lock();
        let used = state.disk.used(&state.open);
        state.capacity = free.map(|free| used.saturating_add(free));
    }

    /// Flips the bits `xor` of one byte, as a decaying disk would.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` if the file ends before `offset`.
    pub fn corrupt(&self, path: &Path, offset: u64, xor: u8) -> io::Result<()> {
        let mut state = self.state.lock();
        let file = state.disk.file_at(path)?;
        if offset >= state.disk.file(file).live_len {
            return Err(fail(io::ErrorKind::InvalidInput, path, "ends before the byte to corrupt"));
        }
        state.disk.file_mut(file).corrupt(offset, xor);
        Ok(())
    }

    /// The length of a file.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` if it is a directory.
    pub fn file_len(&self, path: &Path) -> io::Result<u64> {
        let state = self.state.lock();
        Ok(state.disk.file(state.disk.file_at(path)?).live_len)
    }

    /// All files on the disk, by path from `/`, sorted.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.state.lock().disk.walk().into_iter().map(|(path, _)| path).collect()
    }

    fn handle(&self, state: &mut State, file: u64, path: &Path) -> Handle {
        *state.open.entry(file).or_default() += 1;
        Handle { state: Arc::clone(&self.state), file, path: path.to_path_buf() }
    }

    fn write_handle(&self, state: &mut State, file: u64, path: &Path) -> Box<dyn WriteFile> {
        let handle = self.handle(state, file, path);
        Box::new(SimWriteFile { handle, fuse: Fuse::default(), is_mapped: false })
    }

    /// Moves a name; with `vacant` nothing may have the new one.
    fn move_name(&self, from: &Path, to: &Path, vacant: bool) -> io::Result<u64> {
        let mut state = self.state.lock();
        let file = state.disk.file_at(from)?;
        let target = if vacant { state.disk.vacancy(to)? } else { state.disk.place(to)? };
        if let Some(Node::Dir(_)) = state.disk.node(&target) {
            return Err(fail(io::ErrorKind::IsADirectory, to, "is a directory"));
        }
        state.begin(&IoOp::Rename { from: from.to_path_buf(), to: to.to_path_buf() })?;
        let source = state.disk.place(from)?;
        state.disk.rename(file, source, target);
        Ok(file)
    }
}

impl State {
    /// Counts and shows an operation, and fails it if that was asked for.
    fn begin(&mut self, op: &IoOp) -> io::Result<()> {
        self.begin_or_fault(op).map_err(|fault| fault.error(op))
    }

    fn begin_or_fault(&mut self, op: &IoOp) -> Result<(), Fault> {
        let index = self.ops;
        self.ops += 1;
        if let Some(observer) = &mut self.observer {
            observer(index, op, &self.disk);
        }
        match self.faults.remove(&index).or_else(|| self.injected(Access::Change(op))) {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    fn injected(&mut self, access: Access<'_>) -> Option<Fault> {
        self.injector.as_mut().and_then(|injector| injector(access))
    }

    /// Fails a read if the injector says so.
    fn read(&mut self, access: Access<'_>) -> io::Result<()> {
        match self.injected(access) {
            Some(fault) => {
                Err(io::Error::new(fault.kind, format!("injected failure of {access:?}")))
            }
            None => Ok(()),
        }
    }

    fn free(&self) -> u64 {
        match self.capacity {
            Some(capacity) => capacity.saturating_sub(self.disk.used(&self.open)),
            None => u64::MAX,
        }
    }

    fn create(&mut self, path: &Path, prealloc: u64) -> io::Result<u64> {
        let place = self.disk.vacancy(path)?;
        self.begin(&IoOp::Create { path: path.to_path_buf(), prealloc })?;
        if prealloc > self.free() {
            return Err(full(path));
        }
        Ok(self.disk.create(place, prealloc))
    }

    fn write(
        &mut self,
        file: u64,
        path: &Path,
        bytes: &[u8],
        offset: u64,
        is_mapped: bool,
    ) -> io::Result<()> {
        if offset.checked_add(bytes.len() as u64).is_none() {
            return Err(fail(io::ErrorKind::FileTooLarge, path, "would end beyond 2^64 bytes"));
        }
        let op = IoOp::Write { path: path.to_path_buf(), offset, len: bytes.len() };
        if let Err(fault) = self.begin_or_fault(&op) {
            let prefix = fault.prefix.min(bytes.len());
            self.disk.file_mut(file).write(offset, &bytes[..prefix]);
            if is_mapped {
                // The stores go on behind the page that faulted.
                let behind = bytes.len().min(prefix + file::left_of_page(offset + prefix as u64));
                self.disk.file_mut(file).write(offset + behind as u64, &bytes[behind..]);
            }
            return Err(fault.error(&op));
        }
        let limit = self.disk.file(file).live_len.saturating_add(self.free());
        let fits = usize::try_from(limit.saturating_sub(offset)).unwrap_or(usize::MAX);
        let written = &bytes[..fits.min(bytes.len())];
        self.disk.file_mut(file).write(offset, written);
        if written.len() < bytes.len() { Err(full(path)) } else { Ok(()) }
    }

    fn set_len(&mut self, file: u64, path: &Path, len: u64) -> io::Result<()> {
        self.begin(&IoOp::SetLen { path: path.to_path_buf(), len })?;
        if len.saturating_sub(self.disk.file(file).live_len) > self.free() {
            return Err(full(path));
        }
        self.disk.file_mut(file).set_len(len);
        Ok(())
    }

    fn sync(&mut self, file: u64, path: &Path) -> io::Result<()> {
        let op = IoOp::Sync { path: path.to_path_buf() };
        if let Err(fault) = self.begin_or_fault(&op) {
            self.disk.file_mut(file).drop_dirty();
            return Err(fault.error(&op));
        }
        self.disk.file_mut(file).sync();
        Ok(())
    }
}

impl Fault {
    fn error(self, op: &IoOp) -> io::Error {
        io::Error::new(self.kind, format!("injected failure of {op:?}"))
    }
}

fn full(path: &Path) -> io::Error {
    fail(io::ErrorKind::StorageFull, path, "does not fit on the device")
}

impl Vfs for SimVfs {
    fn create(&self, path: &Path, prealloc: u64) -> io::Result<Box<dyn WriteFile>> {
        let mut state = self.state.lock();
        let file = state.create(path, prealloc)?;
        Ok(self.write_handle(&mut state, file, path))
    }

    /// A store into memory has no page of its own here: what a power cut leaves of it is what it leaves of a write.
    fn create_mapped(
        &self,
        path: &Path,
        prealloc: u64,
        _window: u64,
    ) -> io::Result<Box<dyn WriteFile>> {
        let mut state = self.state.lock();
        let file = state.create(path, prealloc)?;
        let handle = self.handle(&mut state, file, path);
        Ok(Box::new(SimWriteFile { handle, fuse: Fuse::default(), is_mapped: true }))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let mut state = self.state.lock();
        let file = state.disk.file_at(path)?;
        Ok(self.write_handle(&mut state, file, path))
    }

    fn reuse(&self, from: &Path, to: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.move_name(from, to, true)?;
        self.open_write(to)
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        let mut state = self.state.lock();
        let file = state.disk.file_at(path)?;
        state.read(Access::Open { path })?;
        Ok(Arc::new(SimReadFile(self.handle(&mut state, file, path))))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.move_name(from, to, false).map(|_| ())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let file = state.disk.file_at(from)?;
        let place = state.disk.vacancy(to)?;
        state.begin(&IoOp::Link { from: from.to_path_buf(), to: to.to_path_buf() })?;
        state.disk.link(file, place);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let place = state.disk.place(path)?;
        match state.disk.node(&place) {
            None => return Err(fail(io::ErrorKind::NotFound, path, "does not exist")),
            Some(Node::Dir(_)) => {
                return Err(fail(io::ErrorKind::IsADirectory, path, "is a directory"));
            }
            Some(Node::File(_)) => {}
        }
        state.begin(&IoOp::Remove { path: path.to_path_buf() })?;
        state.disk.remove(place);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state.lock();
        let entries = state.disk.entries(state.disk.dir_at(dir)?);
        let entry = |(name, len): (_, Option<u64>)| DirEntry {
            name: PathBuf::from(name),
            is_file: len.is_some(),
            len: len.unwrap_or(0),
        };
        Ok(entries.map(entry).collect())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.disk.dir_at(dir).is_ok() {
            return Ok(());
        }
        let place = state.disk.vacancy(dir)?;
        state.begin(&IoOp::CreateDir { path: dir.to_path_buf() })?;
        state.disk.create_dir(place);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let number = state.disk.dir_at(dir)?;
        state.begin(&IoOp::SyncDir { path: dir.to_path_buf() })?;
        let State { disk, open, .. } = &mut *state;
        disk.sync_dir(number);
        disk.collect(open);
        Ok(())
    }

    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<Box<dyn FileLock>> {
        let mut state = self.state.lock();
        let file = match state.disk.file_at(path) {
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && mode == LockMode::Exclusive =>
            {
                state.create(path, 0)?
            }
            other => other?,
        };
        let held = match (state.locks.get(&file), mode) {
            (None, LockMode::Exclusive) => Held::Exclusive,
            (None, LockMode::Shared) => Held::Shared(1),
            (Some(Held::Shared(count)), LockMode::Shared) => Held::Shared(count + 1),
            _ => return Err(fail(io::ErrorKind::WouldBlock, path, "is locked")),
        };
        state.locks.insert(file, held);
        Ok(Box::new(SimLock { handle: self.handle(&mut state, file, path), mode }))
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let state = self.state.lock();
        state.disk.dir_at(dir)?;
        let total = state.capacity.unwrap_or(UNLIMITED);
        Ok(Space { free: total.saturating_sub(state.disk.used(&state.open)), total })
    }
}

impl fmt::Debug for SimVfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An observer may hold the lock and print the environment it is part of.
        let Some(state) = self.state.try_lock() else {
            return f.write_str("SimVfs(in use)");
        };
        let files = state.disk.walk().len();
        f.debug_struct("SimVfs").field("files", &files).field("ops", &state.ops).finish()
    }
}

/// Keeps a file alive while it is open, name or no name.
struct Handle {
    state: Arc<Mutex<State>>,
    file: u64,
    path: PathBuf,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if let Some(count) = state.open.get_mut(&self.file) {
            *count -= 1;
            if *count == 0 {
                state.open.remove(&self.file);
            }
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("file", &self.file).field("path", &self.path).finish()
    }
}

#[derive(Debug)]
struct SimWriteFile {
    handle: Handle,
    fuse: Fuse,
    is_mapped: bool,
}

impl WriteFile for SimWriteFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let Handle { state, file, path } = &self.handle;
        self.fuse.run(|| state.lock().write(*file, path, bytes, offset, self.is_mapped))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let Handle { state, file, path } = &self.handle;
        self.fuse.run(|| state.lock().set_len(*file, path, len))
    }

    fn sync(&self) -> io::Result<()> {
        let Handle { state, file, path } = &self.handle;
        self.fuse.run(|| state.lock().sync(*file, path))
    }

    fn is_mapped(&self) -> bool {
        self.is_mapped
    }
}

#[derive(Debug)]
struct SimReadFile(Handle);

impl ReadFile for SimReadFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.0.state.lock();
        state.read(Access::Read { path: &self.0.path, offset, len: buf.len() })?;
        if state.disk.file(self.0.file).read(offset, buf) {
            state.bytes_read += buf.len() as u64;
            Ok(())
        } else {
            Err(fail(io::ErrorKind::UnexpectedEof, &self.0.path, "ends before the bytes asked for"))
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.state.lock().disk.file(self.0.file).live_len)
    }
}

#[derive(Debug)]
struct SimLock {
    handle: Handle,
    mode: LockMode,
}

impl FileLock for SimLock {
    fn describe(&self, holder: &str) -> io::Result<()> {
        if self.mode == LockMode::Shared {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let Handle { state, file, path } = &self.handle;
        let mut state = state.lock();
        state.set_len(*file, path, 0)?;
        state.write(*file, path, holder.as_bytes(), 0, false)
    }

    fn is_current(&self) -> io::Result<bool> {
        let Handle { state, file, path } = &self.handle;
        Ok(state.lock().disk.file_at(path).is_ok_and(|found| found == *file))
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.handle.state.lock();
        match state.locks.get_mut(&self.handle.file) {
            Some(Held::Shared(count)) if *count > 1 => *count -= 1,
            _ => drop(state.locks.remove(&self.handle.file)),
        }
    }
}

#[cfg(test)]
mod tests;
