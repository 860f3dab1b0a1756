//! fjall 3. A keyspace insert flushes its journal buffer to the OS before it returns (the default,
//! `manual_journal_persist = false`), so the plain mode is equal to RocksDB's. A batch writes to
//! the same buffer and is asked for `PersistMode::Buffer` explicitly. `--set hashratio=0.75` gives data
//! blocks a hash index.

use super::{Config, Engine, Result};
use crate::proc;
use fjall::config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry, HashRatioPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

pub struct Fjall {
    db: Database,
    data: Keyspace,
    sync: bool,
}

pub fn open(config: &Config) -> Result<Fjall> {
    let db = Database::builder(&config.dir)
        .cache_size(config.cache as u64)
        .worker_threads(config.background)
        .open()?;
    let compression = if config.lz4 { CompressionType::Lz4 } else { CompressionType::None };
    let filter = match config.bloom_bits {
        0 => FilterPolicyEntry::None,
        bits => FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(bits as f32)),
    };
    let hash_ratio = config.extra("hashratio").map_or(Ok(0.0), str::parse)?;
    let data = db.keyspace("data", || {
        KeyspaceCreateOptions::default()
            .max_memtable_size(config.memtable_bytes as u64)
            .data_block_compression_policy(CompressionPolicy::all(compression))
            .filter_policy(FilterPolicy::all(filter))
            .data_block_hash_ratio_policy(HashRatioPolicy::all(hash_ratio))
    })?;
    Ok(Fjall { db, data, sync: config.sync })
}

impl Fjall {
    fn persist(&self) -> Result<()> {
        if self.sync {
            self.db.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }
}

impl Engine for Fjall {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.data.insert(key, value)?;
        self.persist()
    }

    fn put_batch(&self, items: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mode = if self.sync { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut batch = self.db.batch().durability(Some(mode));
        for (key, value) in items {
            batch.insert(&self.data, key.as_slice(), value.as_slice());
        }
        Ok(batch.commit()?)
    }

    fn get(&self, key: &[u8], see: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.data.get(key)?.map(|value| see(&value)).is_some())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.data.remove(key)?;
        self.persist()
    }

    fn scan(&self, from: &[u8], n: usize, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<usize> {
        let mut count = 0;
        for entry in self.data.range(from..).take(n) {
            let (key, value) = entry.into_inner()?;
            see(&key, &value);
            count += 1;
        }
        Ok(count)
    }

    fn scan_back(&self, n: usize, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<usize> {
        let mut count = 0;
        for entry in self.data.iter().rev().take(n) {
            let (key, value) = entry.into_inner()?;
            see(&key, &value);
            count += 1;
        }
        Ok(count)
    }

    fn settle(&self) -> Result<()> {
        self.data.rotate_memtable_and_wait()?;
        proc::wait_idle(|| self.db.outstanding_flushes() + self.db.active_compactions() > 0);
        Ok(())
    }

    fn memory(&self) -> Vec<(&'static str, u64)> {
        vec![("memtables", self.db.write_buffer_size()), ("block_cache", self.db.cache_size())]
    }
}
