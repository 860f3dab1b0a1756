//! All that can be wrong with a configuration, reported at once.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use memtide_base::{Error, ErrorKind};
use memtide_memtable::{MemtableChoice, Registry};

use super::{Config, Durability, KeyspaceConfig};

/// One thing that is wrong: which field, and why, with the value, its range and a value that would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field as it is written in a file, `max_memtable_size` or `tree.block_size`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    violations: Vec<Violation>,
}

impl ConfigError {
    pub(super) fn one(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { violations: vec![Violation { field: field.into(), message: message.into() }] }
    }

    /// The violations, in the order of the fields.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Adds another error's violations.
    pub fn extend(&mut self, other: Self) {
        self.violations.extend(other.violations);
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.violations.len();
        write!(f, "the configuration has {count} problem{}", if count == 1 { "" } else { "s" })?;
        for (index, Violation { field, message }) in self.violations.iter().enumerate() {
            write!(f, "{} {field}: {message}", if index == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::new(ErrorKind::InvalidConfig, error.to_string()).with_source(error)
    }
}

/// Sizes a memtable may have.
pub(crate) const MEMTABLE_SIZES: RangeInclusive<u64> = (4 << 10)..=(1 << 30);
const TABLE_SIZES: RangeInclusive<u64> = (4 << 10)..=(1 << 30);

impl Config {
    /// Reports every violation at once: field, value, range, and a value that would do. Memtables are the
    /// eight.
    ///
    /// # Errors
    /// All violations.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_with(&Registry::new())
    }

    /// As [`Config::validate`], for a database whose memtables are the eight and those registered. Opening it
    /// does the same.
    ///
    /// # Errors
    /// All violations.
    pub fn validate_with(&self, registry: &Registry) -> Result<(), ConfigError> {
        let mut check = Check::default();
        check.memtable("memtable_type", self.memtable_type.as_ref(), registry);
        check.bytes("max_memtable_size", self.max_memtable_size, MEMTABLE_SIZES);
        let day = Duration::from_secs(24 * 60 * 60);
        let interval = Duration::from_millis(1)..=day;
        check.duration("compaction_check_interval", self.compaction_check_interval, interval);
        check.bytes("memory_budget", self.memory_budget, (64 << 10)..=(1 << 50));
        if let Some(Durability::Interval(every)) = self.durability {
            check.duration("durability", Some(every), Duration::from_millis(1)..=day);
        }
        let tree = &self.tree;
        check.bytes("tree.block_size", tree.block_size, 64..=(1 << 20));
        check.number("tree.filter_bits", tree.filter_bits, 0..=24);
        check.bytes("tree.table_size", tree.table_size, TABLE_SIZES);
        check.number("tree.level0_runs", tree.level0_runs, 2..=64);
        check.bytes("tree.level1_size", tree.level1_size, (4 << 10)..=(1 << 40));
        check.bytes("tree.min_blob_size", tree.min_blob_size, 64..=(8 << 20));
        check.bytes("tree.compaction_rate", tree.compaction_rate, (64 << 10)..=(1 << 50));
        check.number("tree.compaction_threads", tree.compaction_threads, 1..=64);
        check.bytes("tree.fifo_size", tree.fifo_size, (4 << 10)..=(1 << 50));
        check.duration("tree.fifo_age", tree.fifo_age, Duration::from_secs(1)..=3650 * day);
        check.bytes("tree.wal_segment_size", tree.wal_segment_size, (16 << 10)..=(1 << 30));
        check.bytes("tree.wal_size", tree.wal_size, (16 << 10)..=(1 << 50));
        for (name, keyspace) in &self.keyspaces {
            let field = format!("keyspace.{name}.memtable_type");
            check.memtable(&field, keyspace.memtable_type.as_ref(), registry);
            check.keyspace(name, keyspace);
        }
        self.check_shares(&mut check);
        check.finish()
    }

    /// The values must fit into each other, whoever chose them.
    fn check_shares(&self, check: &mut Check) {
        let preset = self.preset.unwrap_or_default();
        let budget = self.memory_budget.unwrap_or(preset.memory_budget());
        let memtable = self.max_memtable_size.unwrap_or(preset.max_memtable_size());
        check.require(memtable.saturating_mul(4) <= budget, "memory_budget", || {
            format!(
                "{budget} B is below four memtables of {memtable} B; try {} B",
                memtable.saturating_mul(4)
            )
        });
        for (field, share) in [("flush_target", self.flush_target), ("cache_size", self.cache_size)]
        {
            let limit = if field == "flush_target" { budget / 4 } else { budget / 2 };
            check.require(share.is_none_or(|bytes| bytes <= limit), field, || {
                let bytes = share.unwrap_or_default();
                format!("{bytes} B is above its share of the {budget} B budget; try {limit} B")
            });
        }
    }
}

/// Whether a keyspace may have this name: 1 to 255 bytes of UTF-8 without control characters.
pub(crate) fn check_keyspace_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > 255 {
        return Err(format!("a keyspace name has 1 to 255 bytes, this has {}", name.len()));
    }
    if name.chars().any(char::is_control) {
        return Err(format!("a keyspace name has no control characters: {name:?}"));
    }
    Ok(())
}

#[derive(Default)]
struct Check {
    found: Vec<Violation>,
}

impl Check {
    fn require(&mut self, holds: bool, field: &str, message: impl FnOnce() -> String) {
        if !holds {
            self.found.push(Violation { field: field.to_owned(), message: message() });
        }
    }

    fn memtable(&mut self, field: &str, choice: Option<&MemtableChoice>, registry: &Registry) {
        if let Some(Err(unknown)) = choice.map(|choice| registry.kind_of(choice)) {
            self.require(false, field, || unknown.to_string());
        }
    }

    fn bytes(&mut self, field: &str, value: Option<u64>, range: RangeInclusive<u64>) {
        self.within(field, value, range, " B");
    }

    fn number(&mut self, field: &str, value: Option<u64>, range: RangeInclusive<u64>) {
        self.within(field, value, range, "");
    }

    fn within(&mut self, field: &str, value: Option<u64>, range: RangeInclusive<u64>, unit: &str) {
        let Some(value) = value else { return };
        let (low, high) = (*range.start(), *range.end());
        self.require(range.contains(&value), field, || {
            let nearest = value.clamp(low, high);
            format!("{value}{unit} is not within {low}..={high}{unit}; try {nearest}{unit}")
        });
    }

    fn duration(&mut self, field: &str, value: Option<Duration>, range: RangeInclusive<Duration>) {
        let Some(value) = value else { return };
        self.require(range.contains(&value), field, || {
            let nearest = value.clamp(*range.start(), *range.end());
            let (low, high) = (range.start(), range.end());
            format!("{value:?} is not within {low:?}..={high:?}; try {nearest:?}")
        });
    }

    fn keyspace(&mut self, name: &str, keyspace: &KeyspaceConfig) {
        let field = |option: &str| format!("keyspace.{name}.{option}");
        self.bytes(&field("max_memtable_size"), keyspace.max_memtable_size, MEMTABLE_SIZES);
        if let Err(message) = check_keyspace_name(name) {
            self.found.push(Violation { field: format!("keyspace.{name}"), message });
        }
    }

    fn finish(self) -> Result<(), ConfigError> {
        if self.found.is_empty() { Ok(()) } else { Err(ConfigError { violations: self.found }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_violation_is_reported_with_field_value_and_cure() {
        let mut config = Config {
            max_memtable_size: Some(1),
            memory_budget: Some(1 << 20),
            flush_target: Some(1 << 20),
            ..Config::default()
        };
        config.tree.filter_bits = Some(99);
        let error = config.validate().expect_err("three fields are wrong");
        let fields: Vec<_> = error.violations().iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["max_memtable_size", "tree.filter_bits", "flush_target"]);
        let text = error.to_string();
        assert!(text.contains("1 B is not within 4096..=1073741824 B; try 4096 B"), "{text}");
        assert_eq!(Error::from(error).kind(), ErrorKind::InvalidConfig);
    }
}
