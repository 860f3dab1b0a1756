//! Opens blob files when a value in them is first asked for, and reads values.
//!
//! At most [`OPEN_BLOBS_MAX`] files stay open; they are closed in the order they were opened, but one that was asked
//! for since gets a second chance. A reader that holds a closed one keeps it until it is done. Values are not cached:
//! they are large, and what is read often the system keeps in its page cache.

use std::collections::VecDeque;

use memtide_base::sync::atomic::Ordering;
use memtide_base::sync::{Arc, Mutex, Weak};
use memtide_base::{Error, Result, Slice};
use memtide_env::Vfs;
use memtide_storage::FileIdentity;
use memtide_storage::blob::{BlobFile, BlobHandle};

use crate::files::{self, Layout};
use crate::version::{BlobMeta, Version};

const OPEN_BLOBS_MAX: usize = 200;

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
        let (meta, handle) = version.blob_of(key, handle)?;
        self.get(meta, key, handle)
    }

    /// The value of `key` at a place in one file.
    pub(crate) fn get(
        &self,
        meta: &Arc<BlobMeta>,
        key: &[u8],
        handle: BlobHandle,
    ) -> Result<Slice> {
        self.open(meta)?.get(key, handle)
    }

    fn open(&self, meta: &Arc<BlobMeta>) -> Result<Arc<BlobFile>> {
        if let Some(open) = meta.open.load() {
            // Written once, so that readers on all processors share the line.
            if !meta.used.load(Ordering::Relaxed) {
                meta.used.store(true, Ordering::Relaxed);
            }
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
        meta.used.store(false, Ordering::Relaxed);
        meta.open.store(Some(Arc::clone(&file)));
        drop(opening);
        self.note_opened(meta);
        Ok(file)
    }

    /// Makes room for a file that was opened just now, which itself stays.
    fn note_opened(&self, meta: &Arc<BlobMeta>) {
        let surplus = self.surplus();
        if let Some(surplus) = surplus.and_then(|surplus| surplus.upgrade()) {
            surplus.open.store(None);
        }
        self.opened.lock().push_back(Arc::downgrade(meta));
    }

    /// The file to close if there are as many as there may be.
    fn surplus(&self) -> Option<Weak<BlobMeta>> {
        let is_used = |meta: &Weak<BlobMeta>| {
            meta.upgrade().is_some_and(|meta| meta.used.swap(false, Ordering::Relaxed))
        };
        let mut opened = self.opened.lock();
        if opened.len() < OPEN_BLOBS_MAX {
            return None;
        }
        for _ in 0..opened.len() {
            let oldest = opened.pop_front()?;
            if !is_used(&oldest) {
                return Some(oldest);
            }
            opened.push_back(oldest);
        }
        opened.pop_front()
    }
}
