//! Tools for the day when bytes are not what was written: they look, and copy what is sound elsewhere. Nothing is ever
//! mended in place, and nothing but a directory that was empty before is written to.
//!
//! - `check`: one file of a database, quickly or wholly. `verify`: all of a closed one; `online`: all of an open one,
//!   beside its writers. `scrub`: that again and again, as a job.
//! - `doctor`: what a person wants to know first. `dump`: what is in a file.
//! - `rescue`: what is sound of a damaged one, copied elsewhere.
//!
//! Which of these ask, and what is done with what they say, is the callers' to know. See `docs/guide/integrity.md`.

mod check;
mod doctor;
mod dump;
mod online;
mod rescue;
mod scrub;
mod verify;

pub(crate) use doctor::doctor;
pub use doctor::{DoctorKeyspace, DoctorReport};
pub use dump::{DumpItem, DumpKind, DumpValue};
pub(crate) use dump::{dump, files_of};
pub(crate) use online::verify as verify_online;
pub(crate) use rescue::{Keep, rescue};
pub use rescue::{KeySpan, Loss, RescueReport};
pub(crate) use scrub::ScrubJob;
pub(crate) use verify::verify;

use memtide_base::Error;

use crate::damage::Damage;

/// How much of a database is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// Manifest and its chain, presence, size, identity, footer, index and properties of every file, headers of the
    /// log: a few pages of each file.
    Quick,
    /// Every byte: every checksum, order, counts, the places that tables refer to in blob files, every record of the
    /// log.
    #[default]
    Full,
}

/// How to verify an open database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyOptions {
    /// How much is looked at.
    pub depth: Depth,
    /// Bytes read a second, at most; `None` = as fast as the device gives them.
    pub bytes_per_second: Option<u64>,
}

impl From<Depth> for VerifyOptions {
    fn from(depth: Depth) -> Self {
        Self { depth, bytes_per_second: None }
    }
}

/// What a verification looked at and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Files that were looked at.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Everything that is wrong.
    pub damages: Vec<Damage>,
}

impl VerifyReport {
    /// Counts a file.
    fn take(&mut self, bytes: u64, checked: memtide_base::Result<()>) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if let Err(error) = checked {
            self.note(&error);
        }
    }

    pub(crate) fn note(&mut self, error: &Error) {
        let damage = Damage::of(error);
        if !self.damages.contains(&damage) {
            self.damages.push(damage);
        }
    }
}
