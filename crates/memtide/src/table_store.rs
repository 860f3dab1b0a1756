//! Opens tables when they are first needed and closes those that were not needed again.
//!
//! Nothing is opened when the database is. At most [`OPEN_TABLES_MAX`] tables stay open, and no more than fit into
//! what `budget.rs` in `memtide-storage` leaves them, with their indexes, filters and cache slots (but always one),
//! however many tables there are; before a table is closed, partitions of tables are given up. With a table or
//! partition its cached blocks go, so it matters which stay: `opened.rs` there says so.

use memtide_base::Result;
use memtide_base::sync::{Arc, Glance};
use memtide_env::Vfs;
use memtide_storage::FileIdentity;
use memtide_storage::budget::Budget;
use memtide_storage::opened::Opened;
use memtide_storage::table::{Table, TableShared};

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
    shared: Arc<TableShared>,
    /// Where values lie that are not with their keys.
    pub(crate) blobs: BlobStore,
    opened: Arc<Opened<TableMeta>>,
}

impl TableStore {
    pub(crate) fn new(
        vfs: Arc<dyn Vfs>,
        layout: Layout,
        db_uuid: [u8; 16],
        hash_seed: u64,
        budget: Arc<Budget>,
    ) -> Self {
        let blobs = BlobStore::new(Arc::clone(&vfs), layout.clone(), db_uuid);
        let (opened, shared) =
            (Arc::<Opened<TableMeta>>::default(), TableShared::new(hash_seed, budget));
        let (tables, budget) = (Arc::clone(&opened), Arc::clone(&shared.budget));
        shared.on_short(move || tables.close_surplus(|open| open > 1 && budget.is_short()));
        Self { vfs, layout, db_uuid, shared, blobs, opened }
    }

    /// The table, opened if need be.
    pub(crate) fn open(&self, meta: &Arc<TableMeta>) -> Result<Arc<Table>> {
        self.glance(meta).map(Glance::keep)
    }

    /// As [`TableStore::open`], for a short time and without counting a reference.
    #[inline]
    pub(crate) fn glance(&self, meta: &Arc<TableMeta>) -> Result<Glance<Table>> {
        match meta.file.glance() {
            Some(open) => Ok(open),
            None => self.open_file(meta).map(Glance::at),
        }
    }

    /// What all its tables have in common.
    pub(crate) fn shared(&self) -> Arc<TableShared> {
        Arc::clone(&self.shared)
    }

    /// Has partitions, tables and cache give way to what others need.
    pub(crate) fn make_room(&self) {
        self.shared.make_room();
    }

    fn open_file(&self, meta: &Arc<TableMeta>) -> Result<Arc<Table>> {
        let open = || {
            let name = files::table_name(meta.number);
            let file = self.layout.open_read(&*self.vfs, &name)?;
            let TableMeta { number, keyspace, size, .. } = **meta;
            let identity = FileIdentity { db_uuid: self.db_uuid, number, keyspace };
            let table = Table::open(file, name, identity, size, &self.shared)?;
            self.shared.make_room();
            Ok(table)
        };
        let budget = &self.shared.budget;
        let are_many = |open| open >= OPEN_TABLES_MAX || (open > 0 && budget.is_short());
        let open = self.opened.get(meta, open, are_many);
        budget.fit_cache();
        open
    }
}
