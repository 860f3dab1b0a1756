//! Opens blob files when a value in them is first asked for, and reads values.
//!
//! At most [`OPEN_BLOBS_MAX`] files stay open, those opened last; a reader that holds a closed one keeps it until it is
//! done. Values are not cached: they are large, and what is read often the system keeps in its page cache.

use std::collections::VecDeque;

use memtide_base::sync::{Arc, Mutex, Weak};
use memtide_base::{Error, Result, Slice};
use memtide_env::Vfs;
use memtide_storage::FileIdentity;
use memtide_storage::blob::{BlobFile, BlobHandle};

use crate::files::{self, BLOB_DIR, Layout};
use crate::version::{BlobMeta, Version};

const OPEN_BLOBS_MAX: usize = 100;

/// The open blob files of a database.
#[derive(Debug)]
pub(crate) struct BlobStore {
    vfs: Arc<dyn Vfs>,
    layout: Layout,
    db_uuid: [u8; 16],
    /// Oldest first.
    opened: Mutex<VecDeque<Weak<BlobMeta>>>,
}

impl BlobStore {
    pub(crate) fn new(vfs: Arc<dyn Vfs>, layout: Layout, db_uuid: [u8; 16]) -> Self {
        Self { vfs, layout, db_uuid, opened: Mutex::default() }
    }

    /// The value of `key` for which a table of the version has `handle`.
    pub(crate) fn value(&self, version: &Version, key: &[u8], handle: &[u8]) -> Result<Slice> {
        let damaged = |detail: String| Error::corruption("blob handle", BLOB_DIR, 0, detail);
        let handle = BlobHandle::decode(handle)
            .ok_or_else(|| damaged(format!("{} B that are none", handle.len())))?;
        let meta = version
            .blob(handle.number)
            .ok_or_else(|| damaged(format!("there is no blob file {}", handle.number)))?;
        self.open(meta)?.get(key, handle)
    }

    fn open(&self, meta: &Arc<BlobMeta>) -> Result<Arc<BlobFile>> {
        if let Some(open) = meta.open.load() {
            return Ok(open);
        }
        let opening = meta.opening.lock();
        if let Some(open) = meta.open.load() {
            return Ok(open);
        }
        let name = files::blob_name(meta.number);
        let file = self
            .vfs
            .open_read(&self.layout.at(&name))
            .map_err(|error| Error::io("open", &name, error))?;
        let identity =
            FileIdentity { db_uuid: self.db_uuid, number: meta.number, keyspace: meta.keyspace };
        let file = Arc::new(BlobFile::open(file, name, identity, meta.summary.size)?);
        meta.open.store(Some(Arc::clone(&file)));
        drop(opening);
        self.note_opened(meta);
        Ok(file)
    }

    /// Closes the file opened longest ago if there are too many.
    fn note_opened(&self, meta: &Arc<BlobMeta>) {
        let surplus = {
            let mut opened = self.opened.lock();
            opened.push_back(Arc::downgrade(meta));
            (opened.len() > OPEN_BLOBS_MAX).then(|| opened.pop_front()).flatten()
        };
        if let Some(surplus) = surplus.and_then(|surplus| surplus.upgrade()) {
            surplus.open.store(None);
        }
    }
}
