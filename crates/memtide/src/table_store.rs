//! Opens tables when they are first needed and closes those that were not needed again.
//!
//! Nothing is opened when the database is. At most [`OPEN_TABLES_MAX`] tables stay open, and no more than
//! fit into an eighth of the memory budget with their indexes, filters and cache slots (but always one), however
//! many tables there are; a reader that holds a closed table keeps it until it is done. With a table its cached
//! blocks go, so who is asked for again and again must stay open beside a scan of all the others: tables are closed
//! in the order they were opened, but one that was asked for since gets a second chance (Corbató, 1968).

use std::collections::VecDeque;

use memtide_base::ledger::{Account, Ledger};
use memtide_base::sync::atomic::Ordering;
use memtide_base::sync::{Arc, Glance, Mutex, Weak};
use memtide_base::{Error, Result};
use memtide_env::Vfs;
use memtide_storage::FileIdentity;
use memtide_storage::cache::BlockCache;
use memtide_storage::table::Table;

use crate::blob_store::BlobStore;
use crate::files::{self, Layout};
use crate::version::TableMeta;

const OPEN_TABLES_MAX: usize = 400;

/// The open tables of a database.
#[derive(Debug)]
pub(crate) struct TableStore {
    vfs: Arc<dyn Vfs>,
    layout: Layout,
    db_uuid: [u8; 16],
    hash_seed: u64,
    cache: Arc<BlockCache>,
    ledger: Arc<Ledger>,
    /// Where values lie that are not with their keys.
    pub(crate) blobs: BlobStore,
    /// Oldest first.
    opened: Mutex<VecDeque<Weak<TableMeta>>>,
}

impl TableStore {
    pub(crate) fn new(
        vfs: Arc<dyn Vfs>,
        layout: Layout,
        db_uuid: [u8; 16],
        hash_seed: u64,
        cache: Arc<BlockCache>,
        ledger: Arc<Ledger>,
    ) -> Self {
        let blobs = BlobStore::new(Arc::clone(&vfs), layout.clone(), db_uuid);
        Self { vfs, layout, db_uuid, hash_seed, cache, ledger, blobs, opened: Mutex::default() }
    }

    pub(crate) fn cache(&self) -> &Arc<BlockCache> {
        &self.cache
    }

    /// The table, opened if need be.
    pub(crate) fn open(&self, meta: &Arc<TableMeta>) -> Result<Arc<Table>> {
        self.glance(meta).map(Glance::keep)
    }

    /// As [`TableStore::open`], for a short time and without counting a reference.
    #[inline]
    pub(crate) fn glance(&self, meta: &Arc<TableMeta>) -> Result<Glance<Table>> {
        let Some(open) = meta.open.glance() else {
            return self.open_file(meta).map(Glance::at);
        };
        // Written once, so that readers on all processors share the line.
        if !meta.used.load(Ordering::Relaxed) {
            meta.used.store(true, Ordering::Relaxed);
        }
        Ok(open)
    }

    fn open_file(&self, meta: &Arc<TableMeta>) -> Result<Arc<Table>> {
        let opening = meta.opening.lock();
        if let Some(open) = meta.open.load() {
            return Ok(open);
        }
        let name = files::table_name(meta.number);
        let file = self
            .vfs
            .open_read(&self.layout.at(&name))
            .map_err(|error| Error::io("open", &name, error))?;
        let identity =
            FileIdentity { db_uuid: self.db_uuid, number: meta.number, keyspace: meta.keyspace };
        let (size, cache) = (meta.size, &self.cache);
        let table = Table::open(file, name, identity, size, self.hash_seed, cache, &self.ledger)?;
        meta.used.store(false, Ordering::Relaxed);
        meta.open.store(Some(Arc::clone(&table)));
        drop(opening);
        self.note_opened(meta);
        Ok(table)
    }

    /// Makes room for a table that was opened just now, which itself stays.
    fn note_opened(&self, meta: &Arc<TableMeta>) {
        while let Some(surplus) = self.surplus() {
            if let Some(surplus) = surplus.upgrade() {
                surplus.open.store(None);
            }
        }
        self.opened.lock().push_back(Arc::downgrade(meta));
    }

    /// The table to close if there are too many: the one opened longest ago of those that were not used, else of all.
    fn surplus(&self) -> Option<Weak<TableMeta>> {
        let is_used = |meta: &Weak<TableMeta>| {
            meta.upgrade().is_some_and(|meta| meta.used.swap(false, Ordering::Relaxed))
        };
        let mut opened = self.opened.lock();
        let heavy = self.ledger.held(Account::Tables) > self.ledger.budget() / 8;
        if opened.len() < OPEN_TABLES_MAX && !heavy {
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
