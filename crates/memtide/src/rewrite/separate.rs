//! Which values a merge puts into blob files, and those files.

use memtide_base::sync::Arc;
use memtide_base::sync::atomic::Ordering;
use memtide_base::{Error, Result};
use memtide_storage::FileIdentity;
use memtide_storage::blob::{BlobHandle, BlobOptions, BlobWriter};

use super::remove;
use crate::config::Compaction;
use crate::engine::Engine;
use crate::files::{self, BLOB_DIR, SharedFile};
use crate::keyspace_state::KeyspaceState;
use crate::version::StoredBlob;

/// Values above are separated whatever is configured: no block would hold them.
const INLINE_MAX: usize = 8 << 20;

/// Tables' worth of bytes at which a blob file ends.
const TABLES_PER_FILE: u64 = 8;

/// The blob files a merge has written so far and the one it is writing.
pub(super) struct BlobOutputs<'e> {
    engine: &'e Engine,
    keyspace: u32,
    /// The smallest value that is separated.
    len_min: usize,
    open: Option<(u64, BlobWriter)>,
    pub(super) done: Vec<StoredBlob>,
}

impl<'e> BlobOutputs<'e> {
    pub(super) fn new(engine: &'e Engine, keyspace: &Arc<KeyspaceState>) -> Self {
        // Where nothing is rewritten, separating gains nothing.
        let len_min = match keyspace.options().compaction {
            Compaction::Fifo => INLINE_MAX + 1,
            _ => engine.settings.min_blob_size,
        };
        Self { engine, keyspace: keyspace.id, len_min, open: None, done: Vec::new() }
    }

    /// Whether a value of this length belongs into a blob file.
    #[inline]
    pub(super) fn separates(&self, len: usize) -> bool {
        len >= self.len_min || len > INLINE_MAX
    }

    /// Writes a value; says where it lies.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) -> Result<BlobHandle> {
        let size_max = self.engine.settings.table_size.saturating_mul(TABLES_PER_FILE);
        if self.open.as_ref().is_some_and(|(_, writer)| writer.size() >= size_max) {
            self.finish_file()?;
        }
        if self.open.is_none() {
            self.open = Some(self.create()?);
        }
        self.open.as_mut().expect("created just now").1.add(key, value)
    }

    fn create(&self) -> Result<(u64, BlobWriter)> {
        let engine = self.engine;
        engine.check_claim()?;
        let number = engine.take_number()?;
        let name = files::blob_name(number);
        let (vfs, path) = (&*engine.env.vfs, engine.layout.at(&name));
        let file = match vfs.create(&path, 0) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.create_dir()?;
                vfs.create(&path, 0)
            }
            created => created,
        };
        let file = file.map_err(|error| Error::io("create", &name, error))?;
        let identity = FileIdentity { db_uuid: engine.uuid, number, keyspace: self.keyspace };
        let salt = engine.env.random.next_u64();
        let options = BlobOptions { codec: engine.settings.compression, salt };
        Ok((number, BlobWriter::new(file, name, identity, options)?))
    }

    /// Makes the directory: most databases have none.
    fn create_dir(&self) -> Result<()> {
        let path = self.engine.layout.at(BLOB_DIR);
        let made = self.engine.env.vfs.create_dir(&path);
        made.map_err(|error| Error::io("create the directory", BLOB_DIR, error))
    }

    fn finish_file(&mut self) -> Result<()> {
        let Some((number, writer)) = self.open.take() else { return Ok(()) };
        let finished = writer.finish();
        if finished.is_err() {
            remove(self.engine, SharedFile::Blob(number));
        }
        self.done.push(StoredBlob { keyspace: self.keyspace, number, summary: finished? });
        Ok(())
    }

    /// Makes all files durable with their names.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.finish_file()?;
        if self.done.is_empty() {
            return Ok(());
        }
        let engine = self.engine;
        if !cfg!(plant = "blob_name_unsynced") {
            engine.layout.sync_dir(&*engine.env.vfs, BLOB_DIR)?;
        }
        // Whoever made the directory may have failed to make its name durable, or be about to.
        if !engine.has_blob_dir.load(Ordering::Acquire) {
            engine.layout.sync_dir(&*engine.env.vfs, "")?;
            engine.has_blob_dir.store(true, Ordering::Release);
        }
        Ok(())
    }

    pub(super) fn remove_all(&mut self) {
        let open = self.open.take().map(|(number, _)| number);
        for number in self.done.iter().map(|blob| blob.number).chain(open) {
            remove(self.engine, SharedFile::Blob(number));
        }
    }
}
