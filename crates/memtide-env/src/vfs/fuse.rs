//! The rule that a file being written is dead after its first error, kept in one place for every disk.

use std::io;

use memtide_base::sync::atomic::{AtomicBool, Ordering};

/// Lets calls through until one fails.
#[derive(Debug, Default)]
pub(super) struct Fuse(AtomicBool);

impl Fuse {
    /// Makes the call, unless an earlier one failed.
    pub(super) fn run<T>(&self, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        // Relaxed: a call that races with the first error may go through, as if it had come before it.
        if self.0.load(Ordering::Relaxed) {
            return Err(io::Error::other("file is dead after an earlier error"));
        }
        call().inspect_err(|_| self.0.store(true, Ordering::Relaxed))
    }
}
