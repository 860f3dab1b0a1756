//! How a keyspace's tables are merged.

use std::fmt;
use std::str::FromStr;

use memtide_base::{Error, ErrorKind, suggest};

/// The strategy that decides which tables of a keyspace are merged, and when.
///
/// For each byte that a flush writes, or that can be read, under random writes:
///
/// | Strategy | bytes that merges write | bytes on disk | runs a read looks into |
/// |---|---|---|---|
/// | `leveled` | about 5 per level | 1.1 | one per level |
/// | `lazy_leveled` | 1 per level, 5 for the last | 1.2 | 3 per level, one in the last |
/// | `tiered` | 1 per level, 2 for the last | up to 2 | 3 per level |
/// | `fifo` | none | `tree.fifo_size` in all | one per flush |
///
/// Level 0 comes to that. Where `lazy_leveled` and `tiered` rewrite everything they need its space once more meanwhile.
///
/// All but `fifo` keep everything; `fifo` drops the oldest tables, and what is in them is gone, also for snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compaction {
    /// One run per level, each ten times the one above: the least to read and to store.
    #[default]
    Leveled,
    /// Several runs per level, one in the last: for many writes.
    LazyLeveled,
    /// Several runs in every level: the least to write, the most to store.
    Tiered,
    /// Nothing is merged; the oldest tables are dropped beyond `tree.fifo_size` and `tree.fifo_age`.
    Fifo,
}

impl Compaction {
    /// All strategies.
    pub const ALL: [Self; 4] = [Self::Leveled, Self::LazyLeveled, Self::Tiered, Self::Fifo];

    /// The name in configurations, in the manifest and in figures.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Leveled => "leveled",
            Self::LazyLeveled => "lazy_leveled",
            Self::Tiered => "tiered",
            Self::Fifo => "fifo",
        }
    }
}

impl fmt::Display for Compaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Compaction {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|strategy| strategy.name() == name).ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, format!("unknown compaction {name:?}"))
                .with_hint(suggest::hint(name, &Self::ALL.map(Self::name)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_and_keep_to_a_width() {
        for strategy in Compaction::ALL {
            assert_eq!(strategy.to_string().parse::<Compaction>().ok(), Some(strategy));
            assert_eq!(format!("{strategy:>14}").len(), 14);
        }
        let error = "level".parse::<Compaction>().expect_err("not a name");
        assert!(error.to_string().contains("leveled"), "{error}");
    }
}
