//! Damage that was found, and where an open database remembers it.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};

use memtide_base::Error;
use memtide_base::sync::Mutex;
use memtide_base::sync::atomic::{AtomicU64, Ordering};

/// Damages that an open database remembers; of more only the last.
const REMEMBERED: usize = 64;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file, relative to the database.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

impl Damage {
    /// What an error says is wrong.
    pub(crate) fn of(error: &Error) -> Self {
        Self {
            file: error.file().unwrap_or(Path::new("?")).to_path_buf(),
            offset: error.offset().unwrap_or_default(),
            what: error.to_string(),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// What an open database was told of.
#[derive(Debug, Default)]
pub(crate) struct Damages {
    count: AtomicU64,
    last: Mutex<VecDeque<Damage>>,
}

impl Damages {
    /// Remembers a damage; one that is remembered already counts once. Whether it is new.
    pub(crate) fn add(&self, damage: Damage) -> bool {
        let mut last = self.last.lock();
        if last.contains(&damage) {
            return false;
        }
        if last.len() == REMEMBERED {
            last.pop_front();
        }
        last.push_back(damage);
        self.count.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The last ones, oldest first.
    pub(crate) fn last(&self) -> Vec<Damage> {
        self.last.lock().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered_and_each_counts_once() {
        let damages = Damages::default();
        let damage = |offset| Damage { file: "a".into(), offset, what: String::new() };
        for offset in 0..70 {
            assert!(damages.add(damage(offset)));
        }
        assert!(!damages.add(damage(69)));
        let last = damages.last();
        assert_eq!((damages.count(), last.len(), last[0].offset), (70, REMEMBERED, 6));
    }
}
