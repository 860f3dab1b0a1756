//! Presets: named sets of values for whatever a user does not name. Data, not code paths.

use std::fmt;
use std::str::FromStr;

use memtide_base::{Error, ErrorKind, suggest};
use memtide_memtable::MemtableType;

/// A named starting point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Preset {
    /// `hash_skiplist`, 1 MiB memtables, 1 GiB of memory.
    HighPerformance,
    /// `linked_list`, 256 KiB memtables, 64 MiB of memory.
    MemoryEfficient,
    /// `enhanced_skiplist`, 512 KiB memtables, 256 MiB of memory.
    #[default]
    Balanced,
}

impl Preset {
    /// All presets.
    pub const ALL: [Self; 3] = [Self::HighPerformance, Self::MemoryEfficient, Self::Balanced];

    /// The name in configurations and commands.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HighPerformance => "high_performance",
            Self::MemoryEfficient => "memory_efficient",
            Self::Balanced => "balanced",
        }
    }

    /// The memtable of new keyspaces.
    #[must_use]
    pub fn memtable_type(self) -> MemtableType {
        match self {
            Self::HighPerformance => MemtableType::HashSkiplist,
            Self::MemoryEfficient => MemtableType::LinkedList,
            Self::Balanced => MemtableType::EnhancedSkiplist,
        }
    }

    /// Largest memtable in bytes.
    #[must_use]
    pub fn max_memtable_size(self) -> u64 {
        match self {
            Self::HighPerformance => 1 << 20,
            Self::MemoryEfficient => 256 << 10,
            Self::Balanced => 512 << 10,
        }
    }

    /// Memory for everything, in bytes.
    #[must_use]
    pub fn memory_budget(self) -> u64 {
        match self {
            Self::HighPerformance => 1 << 30,
            Self::MemoryEfficient => 64 << 20,
            Self::Balanced => 256 << 20,
        }
    }

    /// Sealed bytes that start a flush.
    #[must_use]
    pub fn flush_target(self) -> u64 {
        match self {
            Self::HighPerformance => 64 << 20,
            Self::MemoryEfficient => 2 << 20,
            Self::Balanced => 16 << 20,
        }
    }

    /// Largest WAL segment in bytes.
    #[must_use]
    pub fn wal_segment_size(self) -> u64 {
        match self {
            Self::HighPerformance | Self::Balanced => 64 << 20,
            Self::MemoryEfficient => 4 << 20,
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Preset {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let named = |preset: &Self| preset.name() == name;
        Self::ALL.into_iter().find(named).ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, format!("unknown preset {name:?}"))
                .with_hint(suggest::hint(name, &Self::ALL.map(Self::name)))
        })
    }
}
