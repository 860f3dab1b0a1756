//! What the tests of the log share: files in memory, and headers.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use memtide_base::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use memtide_base::sync::{Arc, Mutex};
use memtide_env::vfs::{DirEntry, FileLock, LockMode, Space};
use memtide_env::{ReadFile, Vfs, WriteFile};

use super::{LogHeader, LogKind};

pub(super) fn wal_header(base: u64, segment_bytes: u64) -> LogHeader {
    LogHeader {
        kind: LogKind::Wal,
        db_uuid: *b"a database's own",
        salt: 0x5A17_5A17_0000_0000 ^ base,
        base,
        segment_bytes,
        prev_salt: 0,
        prev_end: 0,
        created_ms: 0,
        required_features: 0,
        minor: 0,
    }
}

pub(super) fn manifest_header() -> LogHeader {
    LogHeader { kind: LogKind::Manifest, segment_bytes: 0, ..wal_header(0, 0) }
}

/// One file in memory.
#[derive(Debug, Default)]
pub(super) struct MemFile {
    bytes: Mutex<Vec<u8>>,
    writes: AtomicUsize,
    dead: AtomicBool,
}

impl MemFile {
    pub(super) fn of(bytes: &[u8]) -> Arc<Self> {
        Arc::new(Self { bytes: Mutex::new(bytes.to_vec()), ..Self::default() })
    }
}

/// Files in memory by path: what a log needs of a file system, and nothing that survives a crash.
#[derive(Debug, Default)]
pub(super) struct MemVfs(Mutex<BTreeMap<PathBuf, Arc<MemFile>>>);

impl MemVfs {
    pub(super) fn bytes(&self, path: &str) -> Vec<u8> {
        self.0.lock()[Path::new(path)].bytes.lock().clone()
    }

    /// How often the file was written to.
    pub(super) fn writes(&self, path: &str) -> usize {
        self.0.lock()[Path::new(path)].writes.load(Ordering::SeqCst)
    }

    pub(super) fn put(&self, path: &str, bytes: &[u8]) {
        self.0.lock().insert(PathBuf::from(path), MemFile::of(bytes));
    }

    pub(super) fn fail_writes(&self, path: &str) {
        self.0.lock()[Path::new(path)].dead.store(true, Ordering::SeqCst);
    }

    fn find(&self, path: &Path) -> io::Result<Arc<MemFile>> {
        self.0.lock().get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[derive(Debug)]
struct Writing(Arc<MemFile>);

impl Writing {
    fn alive(&self) -> io::Result<()> {
        if self.0.dead.load(Ordering::SeqCst) { Err(io::Error::other("dead")) } else { Ok(()) }
    }
}

impl WriteFile for Writing {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.alive()?;
        self.0.writes.fetch_add(1, Ordering::SeqCst);
        let mut file = self.0.bytes.lock();
        let start = usize::try_from(offset).unwrap();
        let end = start + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.alive()?;
        self.0.bytes.lock().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.alive()
    }
}

impl ReadFile for MemFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let bytes = self.bytes.lock();
        let found = bytes.get(start..start + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(found);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().len() as u64)
    }
}

fn unused<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

impl Vfs for MemVfs {
    fn create(&self, path: &Path, prealloc: u64) -> io::Result<Box<dyn WriteFile>> {
        let file = MemFile::of(&vec![0; usize::try_from(prealloc).unwrap()]);
        self.0.lock().insert(path.to_path_buf(), Arc::clone(&file));
        Ok(Box::new(Writing(file)))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(Writing(self.find(path)?)))
    }

    fn reuse(&self, _from: &Path, _to: &Path) -> io::Result<Box<dyn WriteFile>> {
        unused()
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        Ok(self.find(path)?)
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        unused()
    }

    fn link(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        unused()
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        unused()
    }

    fn list(&self, _dir: &Path) -> io::Result<Vec<DirEntry>> {
        unused()
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        unused()
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        unused()
    }

    fn lock(&self, _path: &Path, _mode: LockMode) -> io::Result<Box<dyn FileLock>> {
        unused()
    }

    fn space(&self, _dir: &Path) -> io::Result<Space> {
        unused()
    }
}
