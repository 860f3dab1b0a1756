//! Memtide: small memtables of one variant, flushed in groups as large as a peer's memtable. Its budget is for
//! everything: as much again as the cache, at least two such groups, as RocksDB has two memtables by default.
//!
//! `--set memtable=trie` picks the variant (`enhanced_skiplist`), `--set size=1MiB` the size of one memtable,
//! `--set blob=16KiB` the smallest value that lies apart from its key, `--set compaction=tiered` the strategy.

use super::{Config, Engine, Result};
use memtide::{Codec, Db, Durability};

pub struct Memtide {
    db: Db,
}

pub fn open(config: &Config) -> Result<Memtide> {
    let (memtables, cache) = (config.memtable_bytes as u64, config.cache as u64);
    let budget = 2 * cache.max(2 * memtables).max(8 << 20);
    let mut own = memtide::Config::default();
    own.memtable_type = Some(config.extra("memtable").unwrap_or("enhanced_skiplist").parse()?);
    own.memory_budget = Some(budget);
    own.flush_target = Some(memtables.min(budget / 4));
    own.cache_size = Some(cache.min(budget / 2));
    if let Some(size) = config.extra("size") {
        own.set("max_memtable_size", size)?;
    }
    if let Some(size) = config.extra("blob") {
        own.set("tree.min_blob_size", size)?;
    }
    if let Some(compaction) = config.extra("compaction") {
        own.set("compaction", compaction)?;
    }
    own.compression = Some(if config.lz4 { Codec::Lz4 } else { Codec::None });
    own.tree.filter_bits = Some(config.bloom_bits.into());
    own.durability = Some(if config.sync { Durability::Sync } else { Durability::Buffered });
    Ok(Memtide { db: Db::builder(&config.dir).config(own).open()? })
}

impl Engine for Memtide {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.db.put(key, value)?)
    }

    fn put_batch(&self, items: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = self.db.batch();
        let keyspace = self.db.default_keyspace();
        for (key, value) in items {
            batch.put(&keyspace, key, value);
        }
        self.db.write(batch)?;
        Ok(())
    }

    fn get(&self, key: &[u8], see: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.db.get(key)?.map(|value| see(value.as_ref())).is_some())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        Ok(self.db.delete(key)?)
    }

    fn scan(&self, from: &[u8], n: usize, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<usize> {
        let (mut entries, mut count) = (self.db.range(from..), 0);
        while count < n
            && let Some((key, value)) = entries.next_lent()?
        {
            see(key, value);
            count += 1;
        }
        Ok(count)
    }

    fn scan_back(&self, n: usize, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<usize> {
        let (mut entries, mut count) = (self.db.iter(), 0);
        while count < n
            && let Some((key, value)) = entries.next_back_lent()?
        {
            see(key, value);
            count += 1;
        }
        Ok(count)
    }

    fn settle(&self) -> Result<()> {
        self.db.flush()?;
        Ok(self.db.compact()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.db.close()?)
    }
}
