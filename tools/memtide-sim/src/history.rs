//! What was written since the last recovery, and which contents a recovery may come back with.

use memtide::SeqNo;

use crate::case::UNLOGGED;
use crate::oracle::{Change, State};

/// Writes of unknown fate for which every outcome is tried.
const UNCERTAIN_MAX: usize = 4;

/// A write that was handed to the engine.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) changes: Vec<Change>,
    /// Its last number; `None` if it failed, so that it may be there or not.
    pub(crate) seq: Option<SeqNo>,
}

/// The time between two recoveries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Epoch {
    base: State,
    pub(crate) entries: Vec<Entry>,
}

/// What a recovery came back with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovered {
    /// The entries below are there, as far as they did not fail.
    pub(crate) prefix: usize,
    /// How many failed writes are there, and how many are not.
    pub(crate) survived: usize,
    pub(crate) lost: usize,
}

impl Epoch {
    pub(crate) fn new(base: State) -> Self {
        Self { base, entries: Vec::new() }
    }

    /// How many writes have an unknown fate.
    pub(crate) fn uncertain(&self) -> usize {
        self.entries.iter().filter(|entry| entry.seq.is_none()).count()
    }

    /// Whether one more failed write would be one too many to try all outcomes.
    pub(crate) fn is_full_of_doubt(&self) -> bool {
        self.uncertain() >= UNCERTAIN_MAX
    }

    /// Finds the prefix of the logged writes, of at least `least` entries, that `found` is.
    pub(crate) fn recovered(&self, found: &State, least: usize) -> Result<Recovered, String> {
        self.search(found, least, |name| name != UNLOGGED)
    }

    /// As [`Epoch::recovered`], of the keyspace that has no log.
    pub(crate) fn recovered_unlogged(&self, found: &State, least: usize) -> Result<(), String> {
        self.search(found, least, |name| name == UNLOGGED).map(drop)
    }

    fn search(
        &self,
        found: &State,
        least: usize,
        keep: impl Fn(&str) -> bool,
    ) -> Result<Recovered, String> {
        let (base, found) = (self.base.filtered(&keep), found.filtered(&keep));
        let doubts = self.uncertain();
        let mut nearest = String::new();
        for outcome in 0..1_u32 << doubts {
            let mut state = base.clone();
            let (mut doubt, mut survived) = (0, 0);
            for prefix in 0..=self.entries.len() {
                if prefix >= least && state == found {
                    return Ok(Recovered { prefix, survived, lost: doubts - survived });
                }
                if outcome == 0 && prefix == least {
                    nearest = found.difference(&state);
                }
                let Some(entry) = self.entries.get(prefix) else { break };
                let is_there = entry.seq.is_some() || outcome >> doubt & 1 == 1;
                if entry.seq.is_none() {
                    doubt += 1;
                    survived += usize::from(is_there);
                }
                if is_there {
                    let own = entry.changes.iter().filter(|change| keep(change.keyspace()));
                    state.apply(own);
                }
            }
        }
        let total = self.entries.len();
        Err(format!(
            "the contents are no prefix of at least {least} of {total} writes, {doubts} of which failed; found or \
             promised: {nearest}"
        ))
    }
}
