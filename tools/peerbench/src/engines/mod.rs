//! Every engine answers to one small trait, so that a workload is written once.
//!
//! The rule that makes figures comparable: when `put`, `put_batch` or `delete` returns, the data is
//! safe against a crash of this process (it has reached the OS through `write()`), and against a
//! power cut too when `Config::sync` is set. An engine that buffers in user space by default is
//! configured so that it does not. `./compare full` proves it: it kills the process after a fill
//! and then reads every entry.

use std::path::PathBuf;

pub type Error = Box<dyn std::error::Error + Send + Sync>;
pub type Result<T> = std::result::Result<T, Error>;

/// Settings that mean the same for every engine. An engine ignores what it has no notion of.
#[derive(Clone, Debug)]
pub struct Config {
    pub dir: PathBuf,
    /// Make every write durable against a power cut before it returns.
    pub sync: bool,
    /// Bytes a memtable may hold before it is flushed.
    pub memtable_bytes: usize,
    /// Bytes of the engine's own block or page cache.
    pub cache: usize,
    /// LZ4 block compression on every level, or none.
    pub lz4: bool,
    /// Bloom filter bits per key (0 = no filter).
    pub bloom_bits: u32,
    /// Background threads for flush and compaction together.
    pub background: usize,
    /// Options of one engine only, `--set name=value`.
    pub extra: Vec<(String, String)>,
}

impl Config {
    pub fn extra(&self, name: &str) -> Option<&str> {
        self.extra.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// An option that is on or off (`1` or `0`).
    #[allow(dead_code, reason = "not every engine has one")]
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.extra(name) {
            None => Ok(default),
            Some("1") => Ok(true),
            Some("0") => Ok(false),
            Some(other) => Err(format!("{name}={other}: wants 0 or 1").into()),
        }
    }
}

pub trait Engine: Send + Sync {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()>;
    /// Writes all items in one atomic batch.
    fn put_batch(&self, items: &[(Vec<u8>, Vec<u8>)]) -> Result<()>;
    /// Shows the newest value of `key` to `see`; false when there is none.
    fn get(&self, key: &[u8], see: &mut dyn FnMut(&[u8])) -> Result<bool>;
    fn delete(&self, key: &[u8]) -> Result<()>;
    /// Shows up to `n` entries in key order from the first key at or after `from`; how many there were.
    fn scan(&self, from: &[u8], n: usize, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<usize>;
    /// Shows up to `n` entries from the last key backward; how many there were.
    fn scan_back(&self, n: usize, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<usize>;
    /// Flushes the memtable where the engine can, then waits until background work is idle.
    fn settle(&self) -> Result<()>;
    /// The engine's own memory figures, in bytes.
    fn memory(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
    /// Closes cleanly; when it returns, the directory can be opened again.
    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

macro_rules! engines {
    ($($feature:literal => $module:ident),* $(,)?) => {
        $(#[cfg(feature = $feature)] mod $module;)*

        /// The engines this binary was built with.
        pub const BUILT: &[&str] = &[$(#[cfg(feature = $feature)] $feature,)*];

        pub fn open(name: &str, config: &Config) -> Result<Box<dyn Engine>> {
            std::fs::create_dir_all(&config.dir)?;
            match name {
                $(#[cfg(feature = $feature)] $feature => Ok(Box::new($module::open(config)?)),)*
                _ => Err(format!("no engine {name:?} in this build; built with {BUILT:?}").into()),
            }
        }
    };
}

engines! {
    "rocksdb" => rocksdb,
    "fjall" => fjall,
    "lmdb" => lmdb,
    "redb" => redb,
    "memtide" => memtide,
}
