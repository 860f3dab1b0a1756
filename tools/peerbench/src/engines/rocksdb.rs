//! RocksDB through the `rocksdb` crate, set up for speed as its users would: HyperClockCache, a hash
//! index in data blocks, Bloom filters, the newest table format (its default), index and filters on
//! the heap (its default), concurrent memtable writes (its default).
//!
//! `--set memtable=skiplist|vector|hashskiplist|hashlinklist` with `prefix=BYTES` and `buckets=COUNT`;
//! `--set wal=0`, `pipelined=1`, `hashindex=0`, `clock=0` (the LRU cache instead).

use super::{Config, Engine, Result};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DataBlockIndexType, MemtableFactory, Options, ReadOptions,
    SliceTransform, WaitForCompactOptions, WriteBatch, WriteOptions,
};

pub struct Rocks {
    db: DB,
    write: WriteOptions,
    total_order: bool,
}

pub fn open(config: &Config) -> Result<Rocks> {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&match config.flag("clock", true)? {
        true => Cache::new_hyper_clock_cache(config.cache, 0), // 0: it finds the charge of an entry itself
        false => Cache::new_lru_cache(config.cache),
    });
    if config.bloom_bits > 0 {
        table.set_bloom_filter(config.bloom_bits.into(), false);
    }
    if config.flag("hashindex", true)? {
        table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    }

    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_write_buffer_size(config.memtable_bytes);
    options.set_max_background_jobs(config.background as i32);
    options.set_compression_type(if config.lz4 { DBCompressionType::Lz4 } else { DBCompressionType::None });
    options.set_enable_pipelined_write(config.flag("pipelined", false)?);
    options.set_block_based_table_factory(&table);

    let buckets = config.extra("buckets").map_or(Ok(50_000), str::parse)?;
    let prefix = config.extra("prefix").map(str::parse::<usize>).transpose()?;
    if let Some(bytes) = prefix {
        options.set_prefix_extractor(SliceTransform::create_fixed_prefix(bytes));
    }
    let factory = match config.extra("memtable").unwrap_or("skiplist") {
        "skiplist" => None,
        "vector" => Some(MemtableFactory::Vector),
        // Height 4 and branching 4 are the defaults of NewHashSkipListRepFactory.
        "hashskiplist" => Some(MemtableFactory::HashSkipList { bucket_count: buckets, height: 4, branching_factor: 4 }),
        "hashlinklist" => Some(MemtableFactory::HashLinkList { bucket_count: buckets }),
        other => return Err(format!("rocksdb has no memtable {other:?}").into()),
    };
    if let Some(factory) = factory {
        options.set_allow_concurrent_memtable_write(false); // only the skiplist can
        options.set_memtable_factory(factory);
    }

    let mut write = WriteOptions::default();
    write.set_sync(config.sync);
    write.disable_wal(!config.flag("wal", true)?);
    Ok(Rocks { db: DB::open(&options, &config.dir)?, write, total_order: prefix.is_some() })
}

impl Rocks {
    fn entries(&self) -> rocksdb::DBRawIterator<'_> {
        let mut read = ReadOptions::default();
        read.set_total_order_seek(self.total_order);
        self.db.raw_iterator_opt(read)
    }
}

impl Engine for Rocks {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.db.put_opt(key, value, &self.write)?)
    }

    fn put_batch(&self, items: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in items {
            batch.put(key, value);
        }
        Ok(self.db.write_opt(batch, &self.write)?)
    }

    fn get(&self, key: &[u8], see: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.db.get_pinned(key)?.map(|value| see(&value)).is_some())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        Ok(self.db.delete_opt(key, &self.write)?)
    }

    fn scan(&self, from: &[u8], n: usize, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<usize> {
        let mut entries = self.entries();
        entries.seek(from);
        let mut count = 0;
        while count < n && let Some((key, value)) = entries.item() {
            see(key, value);
            count += 1;
            if count < n {
                entries.next();
            }
        }
        entries.status()?;
        Ok(count)
    }

    fn scan_back(&self, n: usize, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<usize> {
        let mut entries = self.entries();
        entries.seek_to_last();
        let mut count = 0;
        while count < n && let Some((key, value)) = entries.item() {
            see(key, value);
            count += 1;
            if count < n {
                entries.prev();
            }
        }
        entries.status()?;
        Ok(count)
    }

    fn settle(&self) -> Result<()> {
        self.db.flush()?;
        Ok(self.db.wait_for_compact(&WaitForCompactOptions::default())?)
    }

    fn memory(&self) -> Vec<(&'static str, u64)> {
        let property = |name: &str| self.db.property_int_value(name).ok().flatten().unwrap_or(0);
        vec![
            ("memtables", property("rocksdb.cur-size-all-mem-tables")),
            ("memtable_entries", property("rocksdb.num-entries-active-mem-table")),
            ("block_cache", property("rocksdb.block-cache-usage")),
            ("table_readers", property("rocksdb.estimate-table-readers-mem")),
        ]
    }
}
