//! The text form of a configuration: one `key` with one `value` at a time.
//!
//! Files and flags both end here, so a key means the same everywhere and an unknown one is an error that
//! names the nearest. The engine reads no files: a caller flattens its TOML to such pairs.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use memtide_base::suggest;
use memtide_memtable::Registry;
use memtide_storage::compress::Codec;

use super::{Config, ConfigError, KeyspaceConfig};

/// Every key outside `[keyspace.NAME]`.
const KEYS: [&str; 25] = [
    "data_dir",
    "preset",
    "memtable_type",
    "max_memtable_size",
    "compaction",
    "enable_background_compaction",
    "compaction_check_interval",
    "memory_budget",
    "flush_target",
    "durability",
    "compression",
    "cache_size",
    "tree.block_size",
    "tree.filter_bits",
    "tree.table_size",
    "tree.level0_runs",
    "tree.level1_size",
    "tree.min_blob_size",
    "tree.compaction_rate",
    "tree.compaction_threads",
    "tree.fifo_size",
    "tree.fifo_age",
    "tree.wal_segment_size",
    "tree.wal_size",
    "tree.wal_sink",
];
const KEYSPACE_KEYS: [&str; 4] = ["memtable_type", "max_memtable_size", "compaction", "durability"];

impl Config {
    /// Names one option by its text: `max_memtable_size`, `tree.block_size`, `keyspace.NAME.memtable_type`.
    ///
    /// # Errors
    /// The key is unknown (with the nearest known one) or the value cannot be read; nothing changed.
    /// Whether the value is in range, and a memtable known, is [`Config::validate`]'s matter.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        if let Some((name, option)) =
            key.strip_prefix("keyspace.").and_then(|rest| rest.rsplit_once('.'))
        {
            return self.keyspaces.entry(name.to_owned()).or_default().set(key, option, value);
        }
        match key {
            "data_dir" => self.data_dir = Some(value.into()),
            "preset" => self.preset = Some(parse(key, value)?),
            "memtable_type" => self.memtable_type = Some(parse(key, value)?),
            "max_memtable_size" => self.max_memtable_size = Some(bytes(key, value)?),
            "compaction" => self.compaction = Some(parse(key, value)?),
            "enable_background_compaction" => {
                self.enable_background_compaction = Some(parse(key, value)?);
            }
            "compaction_check_interval" => {
                self.compaction_check_interval = Some(duration(key, value)?);
            }
            "memory_budget" => self.memory_budget = Some(bytes(key, value)?),
            "flush_target" => self.flush_target = Some(bytes(key, value)?),
            "durability" => self.durability = Some(parse(key, value)?),
            "compression" => self.compression = Some(codec(key, value)?),
            "cache_size" => self.cache_size = Some(bytes(key, value)?),
            "tree.block_size" => self.tree.block_size = Some(bytes(key, value)?),
            "tree.filter_bits" => self.tree.filter_bits = Some(parse(key, value)?),
            "tree.table_size" => self.tree.table_size = Some(bytes(key, value)?),
            "tree.level0_runs" => self.tree.level0_runs = Some(parse(key, value)?),
            "tree.level1_size" => self.tree.level1_size = Some(bytes(key, value)?),
            "tree.min_blob_size" => self.tree.min_blob_size = Some(bytes(key, value)?),
            "tree.compaction_rate" => self.tree.compaction_rate = Some(bytes(key, value)?),
            "tree.compaction_threads" => {
                self.tree.compaction_threads = Some(parse(key, value)?);
            }
            "tree.fifo_size" => self.tree.fifo_size = Some(bytes(key, value)?),
            "tree.fifo_age" => self.tree.fifo_age = Some(duration(key, value)?),
            "tree.wal_segment_size" => self.tree.wal_segment_size = Some(bytes(key, value)?),
            "tree.wal_size" => self.tree.wal_size = Some(bytes(key, value)?),
            "tree.wal_sink" => self.tree.wal_sink = Some(parse(key, value)?),
            _ => return Err(unknown(key, key, &KEYS)),
        }
        Ok(())
    }

    /// Every option that is named, as [`Config::set`] takes it.
    #[must_use]
    pub fn named(&self) -> Vec<(String, String)> {
        let tree = &self.tree;
        let dir = self.data_dir.as_ref().map(|dir| dir.display());
        let ms = |time: Duration| format!("{}ms", time.as_millis());
        let (every, age) = (self.compaction_check_interval.map(ms), tree.fifo_age.map(ms));
        let values = [
            text(&dir),
            text(&self.preset),
            text(&self.memtable_type),
            text(&self.max_memtable_size),
            text(&self.compaction),
            text(&self.enable_background_compaction),
            text(&every),
            text(&self.memory_budget),
            text(&self.flush_target),
            text(&self.durability),
            text(&self.compression),
            text(&self.cache_size),
            text(&tree.block_size),
            text(&tree.filter_bits),
            text(&tree.table_size),
            text(&tree.level0_runs),
            text(&tree.level1_size),
            text(&tree.min_blob_size),
            text(&tree.compaction_rate),
            text(&tree.compaction_threads),
            text(&tree.fifo_size),
            text(&age),
            text(&tree.wal_segment_size),
            text(&tree.wal_size),
            text(&tree.wal_sink),
        ];
        let own = KEYS.into_iter().zip(values);
        let mut named: Vec<_> =
            own.filter_map(|(key, value)| Some((key.to_owned(), value?.to_string()))).collect();
        for (name, keyspace) in &self.keyspaces {
            named.extend(keyspace.named(name));
        }
        named
    }

    /// The configuration the engine would run with, without a registry: every key with its value.
    ///
    /// # Errors
    /// The configuration is not valid.
    pub fn effective(&self) -> Result<Vec<(String, String)>, ConfigError> {
        let settings = self.resolve(&Registry::new())?;
        let filled = Self {
            data_dir: self.data_dir.clone(),
            preset: Some(self.preset.unwrap_or_default()),
            memtable_type: Some(settings.memtable_type),
            max_memtable_size: Some(settings.max_memtable_size),
            compaction: Some(settings.compaction),
            enable_background_compaction: Some(settings.enable_background_compaction),
            compaction_check_interval: Some(settings.compaction_check_interval),
            memory_budget: Some(settings.memory_budget),
            flush_target: Some(settings.flush_target),
            durability: Some(settings.durability),
            compression: Some(settings.compression),
            cache_size: Some(settings.cache_size),
            tree: super::TreeConfig {
                block_size: Some(settings.block_size as u64),
                filter_bits: Some(settings.filter_bits.into()),
                table_size: Some(settings.table_size),
                level0_runs: Some(settings.level0_runs as u64),
                level1_size: Some(settings.level1_size),
                min_blob_size: Some(settings.min_blob_size as u64),
                compaction_rate: settings.compaction_rate,
                compaction_threads: settings.compaction_threads.map(|threads| threads as u64),
                fifo_size: Some(settings.fifo_size),
                fifo_age: settings.fifo_age,
                wal_segment_size: Some(settings.wal_segment_size),
                wal_size: Some(settings.wal_size),
                wal_sink: Some(settings.wal_sink),
            },
            keyspaces: self.keyspaces.clone(),
        };
        Ok(filled.named())
    }
}

impl KeyspaceConfig {
    fn set(&mut self, key: &str, option: &str, value: &str) -> Result<(), ConfigError> {
        match option {
            "memtable_type" => self.memtable_type = Some(parse(key, value)?),
            "max_memtable_size" => self.max_memtable_size = Some(bytes(key, value)?),
            "compaction" => self.compaction = Some(parse(key, value)?),
            "durability" => self.durability = Some(parse(key, value)?),
            _ => return Err(unknown(key, option, &KEYSPACE_KEYS)),
        }
        Ok(())
    }

    fn named(&self, name: &str) -> Vec<(String, String)> {
        let values = [
            text(&self.memtable_type),
            text(&self.max_memtable_size),
            text(&self.compaction),
            text(&self.durability),
        ];
        let own = KEYSPACE_KEYS.into_iter().zip(values);
        own.filter_map(|(key, value)| Some((format!("keyspace.{name}.{key}"), value?.to_string())))
            .collect()
    }
}

fn text<T: Display>(value: &Option<T>) -> Option<&dyn Display> {
    value.as_ref().map(|value| value as &dyn Display)
}

fn unknown(key: &str, word: &str, known: &[&'static str]) -> ConfigError {
    let hint = match suggest::nearest(word, known.iter().copied()) {
        Some(nearest) => format!("unknown option; did you mean {nearest:?}?"),
        None => format!("unknown option; known: {}", known.join(", ")),
    };
    ConfigError::one(key, hint)
}

fn parse<T: FromStr<Err: Display>>(key: &str, value: &str) -> Result<T, ConfigError> {
    value.trim().parse().map_err(|error| ConfigError::one(key, format!("{value:?}: {error}")))
}

fn codec(key: &str, value: &str) -> Result<Codec, ConfigError> {
    parse(key, value)
}

/// Reads `524288`, `512KiB`, `64 MiB`, `1GiB`.
fn bytes(key: &str, value: &str) -> Result<u64, ConfigError> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("B", 0)];
    let text = value.trim();
    let (digits, shift) = units
        .into_iter()
        .find_map(|(unit, shift)| text.strip_suffix(unit).map(|digits| (digits, shift)))
        .unwrap_or((text, 0));
    let number = digits.trim().replace('_', "").parse::<u64>().ok();
    number.and_then(|number| number.checked_mul(1 << shift)).ok_or_else(|| {
        ConfigError::one(
            key,
            format!("{value:?} is no size; write 524288, \"512KiB\" or \"64MiB\""),
        )
    })
}

/// Reads `250ms`, `2s`, `1m`, `12h`, `7d`, or plain milliseconds.
fn duration(key: &str, value: &str) -> Result<Duration, ConfigError> {
    let units =
        [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("", 1)];
    let text = value.trim();
    let read = units.into_iter().find_map(|(unit, ms)| {
        let number = text.strip_suffix(unit)?.trim().parse::<u64>().ok()?;
        number.checked_mul(ms).map(Duration::from_millis)
    });
    read.ok_or_else(|| {
        ConfigError::one(key, format!("{value:?} is no duration; write \"250ms\" or \"1s\""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_reads_back() {
        let mut config = Config::default();
        for (key, value) in [
            ("memtable_type", "trie"),
            ("max_memtable_size", "512KiB"),
            ("durability", "interval:250"),
            ("compaction_check_interval", "2s"),
            ("tree.block_size", "4_096"),
            ("tree.compaction_rate", "20MiB"),
            ("tree.compaction_threads", "3"),
            ("tree.fifo_age", "7d"),
            ("tree.wal_sink", "mapped"),
            ("compaction", "lazy_leveled"),
            ("keyspace.eu.users.compaction", "fifo"),
            ("keyspace.eu.users.memtable_type", "vector"),
        ] {
            config.set(key, value).expect(key);
        }
        assert_eq!(config.max_memtable_size, Some(512 << 10));
        let mut again = Config::default();
        for (key, value) in config.named() {
            again.set(&key, &value).expect("its own text");
        }
        assert_eq!(again, config);
    }

    #[test]
    fn a_slip_is_answered_with_the_key_that_was_meant() {
        for (key, meant) in [
            ("memtable_typ", "\"memtable_type\""),
            ("tree.blocksize", "\"tree.block_size\""),
            ("keyspace.a.durablity", "\"durability\""),
        ] {
            let error = Config::default().set(key, "x").expect_err("unknown");
            assert!(error.to_string().contains(meant), "{error}");
        }
        let error =
            Config::default().set("keyspace.a.compaction", "lazyleveled").expect_err("a slip");
        assert!(error.to_string().contains("did you mean \"lazy_leveled\"?"), "{error}");
        assert!(Config::default().set("memtable_type", "skip list").is_err());
        assert!(Config::default().set("memory_budget", "12 apples").is_err());
    }
}
