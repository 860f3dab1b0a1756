//! Opens blob files when a value in them is first asked for, and reads values.
//!
//! At most [`OPEN_BLOBS_MAX`] files stay open (`opened.rs` says which). Values are not cached: they are large, and what
//! is read often the system keeps in its page cache.

use memtide_base::sync::{Arc, Glance};
use memtide_base::{Result, Slice};
use memtide_env::Vfs;
use memtide_storage::FileIdentity;
use memtide_storage::blob::{BlobFile, BlobHandle};
use memtide_storage::opened::Opened;

use crate::files::{self, Layout};
use crate::version::{BlobMeta, Version};

const OPEN_BLOBS_MAX: usize = 200;

/// The open blob files of a database.
#[derive(Debug)]
pub(crate) struct BlobStore {
    vfs: Arc<dyn Vfs>,
    layout: Layout,
    db_uuid: [u8; 16],
    opened: Opened<BlobMeta>,
}

impl BlobStore {
    pub(crate) fn new(vfs: Arc<dyn Vfs>, layout: Layout, db_uuid: [u8; 16]) -> Self {
        Self { vfs, layout, db_uuid, opened: Opened::default() }
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

    fn open(&self, meta: &Arc<BlobMeta>) -> Result<Glance<BlobFile>> {
        if let Some(open) = meta.file.glance() {
            return Ok(open);
        }
        let open = || {
            let name = files::blob_name(meta.number);
            let file = self.layout.open_read(&*self.vfs, &name)?;
            let BlobMeta { number, keyspace, summary, .. } = **meta;
            let identity = FileIdentity { db_uuid: self.db_uuid, number, keyspace };
            BlobFile::open(file, name, identity, summary.size).map(Arc::new)
        };
        self.opened.get(meta, open, |open| open >= OPEN_BLOBS_MAX).map(Glance::at)
    }
}
