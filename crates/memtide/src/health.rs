//! How the database is: whether it takes writes, and if not, why and what to do.
//!
//! Four things are known apart: what *broke* (the log or the manifest takes nothing more until a resume, or a panic
//! left nothing to resume), whether the device is *full*, which files are *damaged*, and whether writers are slowed
//! down. The worst of them is the state. See docs/design/0019-health-states.md for the whole table.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};

use memtide_base::sync::Mutex;
use memtide_base::sync::atomic::{AtomicU8, Ordering};
use memtide_base::{Error, ErrorKind, Result};

/// The state of a database, from well to beyond help.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HealthState {
    /// All is well.
    Healthy,
    /// Writers are slowed down because flushes or compactions are behind.
    Throttled,
    /// A table or blob file has damage. Reads of what is damaged fail, everything else goes on.
    Degraded,
    /// The device is full: puts are refused, deletes go on from a reserve. Ends by itself when there is space again.
    NoSpace,
    /// No write is taken. Ends by itself once the device takes writes again, or with [`Db::resume`](crate::Db::resume).
    ReadOnly,
    /// No write is taken until the database is opened again.
    Failed,
}

impl HealthState {
    /// The word for it: lower case, stable.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Throttled => "throttled",
            Self::Degraded => "degraded",
            Self::NoSpace => "no_space",
            Self::ReadOnly => "read_only",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for HealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The state of a database at one moment, and how it came to it.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The worst of what is wrong.
    pub state: HealthState,
    /// Why it is not healthy.
    pub reason: Option<String>,
    /// What to do about it.
    pub advice: Option<&'static str>,
    /// Since when, in milliseconds since 1970; 0 if it has not changed since the database was opened.
    pub since_ms: u64,
    /// Files in which damage was found since the database was opened.
    pub damaged: Vec<PathBuf>,
    /// How often the state changed since the database was opened.
    pub transitions: u64,
    /// The last of these changes, oldest first. Of slowdowns only the latest is kept.
    pub recent: Vec<HealthTransition>,
}

/// A change of state.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthTransition {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What it was.
    pub from: HealthState,
    /// What it became.
    pub to: HealthState,
    /// Why, in one line.
    pub reason: String,
}

/// What broke the log or the manifest, and with that the writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Broken {
    /// There was no space.
    Space,
    /// The device failed.
    Device,
    /// It was opened so.
    OpenedReadOnly,
    /// A panic, or something that cannot be.
    ForGood,
}

impl Broken {
    fn state(self) -> HealthState {
        match self {
            Self::Space => HealthState::NoSpace,
            Self::Device | Self::OpenedReadOnly => HealthState::ReadOnly,
            Self::ForGood => HealthState::Failed,
        }
    }
}

/// Everything goes.
const RUNS: u8 = 0;
/// No puts: there is no space.
const FULL: u8 = 1;
/// No writes at all, and no upkeep.
const STOPPED: u8 = 2;

/// Transitions that are kept.
const KEPT: usize = 32;

/// What is known of the present state.
#[derive(Debug)]
pub(crate) struct Vitals {
    /// [`RUNS`], [`FULL`] or [`STOPPED`]: every write asks.
    stop: AtomicU8,
    known: Mutex<Known>,
}

/// Why there is no space.
#[derive(Debug)]
struct Shortage {
    /// What is free and what is needed, at the last look.
    space: String,
    /// What found none.
    cause: String,
}

#[derive(Debug)]
struct Known {
    broken: Option<(Broken, String)>,
    full: Option<Shortage>,
    damaged: BTreeMap<PathBuf, String>,
    throttled: bool,
    /// What all of that comes to.
    state: HealthState,
    since_ms: u64,
    transitions: u64,
    recent: VecDeque<HealthTransition>,
    /// How many of the last ones have no date yet.
    undated: usize,
}

impl Vitals {
    pub(crate) fn healthy() -> Self {
        let known = Known {
            broken: None,
            full: None,
            damaged: BTreeMap::new(),
            throttled: false,
            state: HealthState::Healthy,
            since_ms: 0,
            transitions: 0,
            recent: VecDeque::new(),
            undated: 0,
        };
        Self { stop: AtomicU8::new(RUNS), known: Mutex::new(known) }
    }

    pub(crate) fn opened_read_only() -> Self {
        let vitals = Self::healthy();
        {
            let mut known = vitals.known.lock();
            known.broken = Some((Broken::OpenedReadOnly, "it was opened read-only".to_owned()));
            known.state = HealthState::ReadOnly;
        }
        vitals.stop.store(STOPPED, Ordering::Release);
        vitals
    }

    pub(crate) fn current(&self) -> Health {
        let known = self.known.lock();
        Health {
            state: known.state,
            reason: known.reason(),
            advice: known.advice(),
            since_ms: known.since_ms,
            damaged: known.damaged.keys().cloned().collect(),
            transitions: known.transitions,
            recent: known.recent.iter().cloned().collect(),
        }
    }

    /// Stops all writes; of two reasons the worse one stays, of two alike the first. Date it afterwards: whoever asks
    /// from now on is told, whatever happens to the clock.
    pub(crate) fn stop(&self, how: Broken, reason: String) {
        self.change(|known| {
            if known.broken.as_ref().is_none_or(|(known, _)| *known < how) {
                known.broken = Some((how, reason));
            }
        });
    }

    /// The log and the manifest take writes again.
    pub(crate) fn resume(&self) {
        self.change(|known| known.broken = None);
    }

    /// There is no space for puts: what is free and what is needed, and what found none.
    pub(crate) fn fill(&self, space: String, cause: String) {
        self.change(|known| known.full = Some(Shortage { space, cause }));
    }

    /// There still is none.
    pub(crate) fn note_space(&self, space: String) {
        self.change(|known| {
            if let Some(full) = &mut known.full {
                full.space = space;
            }
        });
    }

    /// There is space again.
    pub(crate) fn drain(&self) {
        self.change(|known| known.full = None);
    }

    /// Damage was found in a file.
    pub(crate) fn damage(&self, file: PathBuf, reason: String) {
        self.change(|known| {
            known.damaged.entry(file).or_insert(reason);
        });
    }

    /// Whether any file is known to be damaged.
    pub(crate) fn has_damage(&self) -> bool {
        !self.known.lock().damaged.is_empty()
    }

    /// Whether damage was found in this file.
    pub(crate) fn is_damaged(&self, file: &Path) -> bool {
        self.known.lock().damaged.contains_key(file)
    }

    /// Writers are slowed down from now on if `is_slowed`, asked in turn, says so.
    /// Whether that is new.
    pub(crate) fn throttle(&self, is_slowed: impl FnOnce() -> bool) -> bool {
        let mut is_new = false;
        self.change(|known| {
            let now = is_slowed();
            is_new = now != std::mem::replace(&mut known.throttled, now);
        });
        is_new
    }

    /// Says when the last changes were.
    pub(crate) fn date(&self, now_ms: u64) {
        let mut known = self.known.lock();
        let undated = std::mem::take(&mut known.undated).min(known.recent.len());
        if undated > 0 {
            known.since_ms = now_ms;
            known.recent.iter_mut().rev().take(undated).for_each(|one| one.at_ms = now_ms);
        }
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.known.lock();
        change(&mut known);
        known.settle();
        let stop = match (&known.broken, &known.full) {
            (Some(_), _) => STOPPED,
            (None, Some(_)) => FULL,
            (None, None) => RUNS,
        };
        // Under the lock, so that the last change decides.
        self.stop.store(stop, Ordering::Release);
    }

    /// # Errors
    /// Not every write is taken, and why.
    #[inline]
    pub(crate) fn check_writable(&self) -> Result<()> {
        // Acquire pairs with the Release in `change`: the reason is there.
        if self.stop.load(Ordering::Acquire) == RUNS { Ok(()) } else { self.refuse(FULL) }
    }

    /// # Errors
    /// The log and the manifest take nothing, and why. Upkeep and deletes go on where there is no space.
    pub(crate) fn check_running(&self) -> Result<()> {
        if self.stop.load(Ordering::Acquire) < STOPPED { Ok(()) } else { self.refuse(STOPPED) }
    }

    /// Whether puts are refused, and nothing else.
    pub(crate) fn is_full(&self) -> bool {
        self.stop.load(Ordering::Acquire) == FULL
    }

    /// Whether there is no space, whatever else there is.
    pub(crate) fn lacks_space(&self) -> bool {
        self.stop.load(Ordering::Acquire) != RUNS && self.known.lock().full.is_some()
    }

    /// Why no writes are taken, if none are.
    pub(crate) fn broken(&self) -> Option<Broken> {
        if self.stop.load(Ordering::Acquire) < STOPPED {
            return None;
        }
        self.known.lock().broken.as_ref().map(|(how, _)| *how)
    }

    #[cold]
    fn refuse(&self, least: u8) -> Result<()> {
        let known = self.known.lock();
        let is_stopped = known.broken.is_some() || (least == FULL && known.full.is_some());
        if !is_stopped {
            return Ok(());
        }
        let reason = known.reason().unwrap_or_default();
        let (kind, what) = match known.state {
            HealthState::NoSpace => (ErrorKind::NoSpace, "the device is full"),
            _ => (ErrorKind::ReadOnly, "the database takes no writes"),
        };
        let error = Error::new(kind, format!("{what}: {reason}"));
        Err(match known.advice() {
            Some(advice) => error.with_hint(advice),
            None => error,
        })
    }
}

impl Known {
    fn worst(&self) -> HealthState {
        match (&self.broken, &self.full) {
            (Some((how, _)), _) => how.state(),
            (None, Some(_)) => HealthState::NoSpace,
            (None, None) if !self.damaged.is_empty() => HealthState::Degraded,
            (None, None) if self.throttled => HealthState::Throttled,
            (None, None) => HealthState::Healthy,
        }
    }

    fn reason(&self) -> Option<String> {
        match (&self.broken, &self.full) {
            (Some((Broken::Space, _)) | None, Some(Shortage { space, cause })) => {
                Some(format!("{space}; {cause}"))
            }
            (Some((_, reason)), _) => Some(reason.clone()),
            (None, None) => {
                self.damaged.values().next().cloned().or_else(|| {
                    self.throttled.then(|| "flushes or compactions are behind".to_owned())
                })
            }
        }
    }

    fn advice(&self) -> Option<&'static str> {
        Some(match (&self.broken, self.state) {
            (Some((Broken::OpenedReadOnly, _)), _) => "open it for writing",
            (_, HealthState::Healthy) => return None,
            (_, HealthState::Throttled) => "nothing need be done; writes wait for their turn",
            (_, HealthState::Degraded) => {
                "restore the file from a backup, or delete and write again what it held"
            }
            (_, HealthState::NoSpace) => {
                "free some space; deletes are taken, and writes go on by themselves"
            }
            (_, HealthState::ReadOnly) => {
                "see to the device; writes go on by themselves once it takes them, or call resume"
            }
            (_, HealthState::Failed) => "open the database again",
        })
    }

    /// Notes it if the state is another one now.
    fn settle(&mut self) {
        let (from, to) = (self.state, self.worst());
        if from == to {
            return;
        }
        self.state = to;
        self.transitions += 1;
        // Slowdowns come and go, and must not push out what matters.
        let slowed = |one: &HealthTransition, to| {
            one.to == to && [one.from, one.to].contains(&HealthState::Throttled)
        };
        let repeats = self.recent.len() >= 2 && {
            let mut last = self.recent.iter().rev();
            to == HealthState::Throttled
                && last.next().is_some_and(|one| slowed(one, HealthState::Healthy))
                && last.next().is_some_and(|one| slowed(one, HealthState::Throttled))
        };
        let forgotten = if repeats { 2 } else { 0 };
        self.recent.truncate(self.recent.len() - forgotten);
        self.undated = self.undated.saturating_sub(forgotten) + 1;
        if self.recent.len() == KEPT {
            self.recent.pop_front();
        }
        let reason = self.reason().unwrap_or_else(|| format!("no longer {from}"));
        self.recent.push_back(HealthTransition { at_ms: 0, from, to, reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_what_is_wrong_is_the_state() {
        let vitals = Vitals::healthy();
        let state = || vitals.current().state;
        vitals.throttle(|| true);
        assert_eq!((state(), vitals.check_writable().is_ok()), (HealthState::Throttled, true));
        vitals.damage("sst/1.sst".into(), "a block".to_owned());
        vitals.damage("sst/1.sst".into(), "another block".to_owned());
        assert_eq!(vitals.current().reason.as_deref(), Some("a block"));
        assert_eq!((state(), vitals.check_writable().is_ok()), (HealthState::Degraded, true));
        vitals.fill("0 B are free".to_owned(), "a write".to_owned());
        assert_eq!((state(), vitals.is_full()), (HealthState::NoSpace, true));
        vitals.note_space("1 B is free".to_owned());
        assert_eq!(vitals.current().reason.as_deref(), Some("1 B is free; a write"));
        let refused = vitals.check_writable().expect_err("no puts");
        assert_eq!(refused.kind(), ErrorKind::NoSpace, "{refused}");
        assert!(vitals.check_running().is_ok());
        vitals.stop(Broken::Device, "a sync".to_owned());
        vitals.stop(Broken::Device, "another sync".to_owned());
        vitals.stop(Broken::Space, "a write".to_owned());
        assert_eq!(
            (state(), vitals.current().reason.as_deref()),
            (HealthState::ReadOnly, Some("a sync"))
        );
        assert_eq!(vitals.check_running().map_err(|e| e.kind()), Err(ErrorKind::ReadOnly));
        vitals.resume();
        assert_eq!((state(), vitals.lacks_space()), (HealthState::NoSpace, true));
        vitals.drain();
        vitals.throttle(|| false);
        assert_eq!(state(), HealthState::Degraded);
        vitals.stop(Broken::ForGood, "a panic".to_owned());
        assert_eq!((state(), vitals.broken()), (HealthState::Failed, Some(Broken::ForGood)));
        assert_eq!(vitals.current().transitions, 7);
    }

    #[test]
    fn changes_are_dated_and_kept_and_slowdowns_push_none_out() {
        let vitals = Vitals::healthy();
        vitals.stop(Broken::Space, "a write".to_owned());
        vitals.resume();
        vitals.date(7);
        for at in 0..100 {
            vitals.throttle(|| true);
            vitals.throttle(|| false);
            vitals.date(10 + at);
        }
        let health = vitals.current();
        let recent: Vec<_> = health.recent.iter().map(|one| (one.at_ms, one.to.name())).collect();
        let want = [(7, "no_space"), (7, "healthy"), (109, "throttled"), (109, "healthy")];
        assert_eq!(recent, want);
        assert_eq!((health.transitions, health.since_ms, health.reason), (202, 109, None));
        for _ in 0..KEPT {
            vitals.fill("full".to_owned(), "a write".to_owned());
            vitals.drain();
        }
        assert_eq!(vitals.current().recent.len(), KEPT);
    }
}
