//! Opens tables when they are first needed and closes those that were opened longest ago.
//!
//! Nothing is opened when the database is. At most [`OPEN_TABLES_MAX`] tables stay open, and no more than
//! fit into an eighth of the memory budget with their indexes and filters (but always one), however many
//! tables there are; a reader that holds a closed table keeps it until it is done.

use std::collections::VecDeque;

use memtide_base::ledger::{Account, Ledger};
use memtide_base::sync::{Arc, Guard, Mutex, Weak};
use memtide_base::{Error, Result};
use memtide_env::Vfs;
use memtide_storage::cache::BlockCache;
use memtide_storage::table::{Table, TableIdentity};

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
        Self { vfs, layout, db_uuid, hash_seed, cache, ledger, opened: Mutex::default() }
    }

    pub(crate) fn cache(&self) -> &Arc<BlockCache> {
        &self.cache
    }

    /// The table, opened if need be.
    pub(crate) fn open(&self, meta: &Arc<TableMeta>) -> Result<Arc<Table>> {
        Ok(Guard::into_inner(self.glance(meta)?).expect("a glance shows a table"))
    }

    /// As [`TableStore::open`], for a short time and without counting a reference; never nothing.
    #[inline]
    pub(crate) fn glance(&self, meta: &Arc<TableMeta>) -> Result<Guard<Option<Arc<Table>>>> {
        let open = meta.open.guard();
        if open.is_some() {
            return Ok(open);
        }
        self.open_file(meta).map(|table| Guard::from_inner(Some(table)))
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
            TableIdentity { db_uuid: self.db_uuid, number: meta.number, keyspace: meta.keyspace };
        let (size, cache) = (meta.size, &self.cache);
        let table = Table::open(file, name, identity, size, self.hash_seed, cache, &self.ledger)?;
        meta.open.store(Some(Arc::clone(&table)));
        drop(opening);
        self.note_opened(meta);
        Ok(table)
    }

    fn note_opened(&self, meta: &Arc<TableMeta>) {
        self.opened.lock().push_back(Arc::downgrade(meta));
        while let Some(oldest) = self.surplus() {
            if let Some(oldest) = oldest.upgrade() {
                oldest.open.store(None);
            }
        }
    }

    /// The table that was opened longest ago, if there are too many.
    fn surplus(&self) -> Option<Weak<TableMeta>> {
        let mut opened = self.opened.lock();
        let heavy = self.ledger.held(Account::Tables) > self.ledger.budget() / 8;
        let many = opened.len() > OPEN_TABLES_MAX || (heavy && opened.len() > 1);
        many.then(|| opened.pop_front()).flatten()
    }
}
