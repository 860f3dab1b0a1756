//! `RESERVE`: space that is kept for the time when there is none. Removing the file lets deletes go on, and flushes and
//! merges that give space back.
//!
//! Its bytes are real and do not compress: what is only allocated is no promise on file systems that copy on write.
//! What is in it nobody ever reads. It is written in steps, by a job, and never while somebody waits.

use std::io;
use std::path::Path;

use memtide_base::sync::Mutex;
use memtide_base::sync::atomic::{AtomicBool, Ordering};
use memtide_base::{Error, Result};
use memtide_env::{Env, Vfs, WriteFile};

use crate::files::{Layout, RESERVE};

/// Bounds of its size with memtables of a usual size.
const BYTES_MIN: u64 = 4 << 20;
const BYTES_MAX: u64 = 64 << 20;
/// What is added to two memtables.
const SLACK: u64 = 1 << 20;
/// Of smaller memtables the bounds are so many times the size: a database of kilobytes needs no megabytes.
const MEMTABLES_MIN: u64 = 16;
const MEMTABLES_SLACK: u64 = 4;
/// Bytes written in one step.
const STEP: usize = 256 << 10;

/// The reserve of a database.
#[derive(Debug)]
pub(crate) struct Reserve {
    /// Bytes it should have.
    bytes: u64,
    /// Whether it has them.
    is_held: AtomicBool,
    /// While it is being written.
    partial: Mutex<Option<Partial>>,
}

#[derive(Debug)]
struct Partial {
    file: Box<dyn WriteFile>,
    written: u64,
}

impl Reserve {
    /// For memtables of this size; `is_held` says whether it is there.
    pub(crate) fn new(memtable_bytes: u64, is_held: bool) -> Self {
        let bytes = size_for(memtable_bytes);
        Self { bytes, is_held: AtomicBool::new(is_held), partial: Mutex::default() }
    }

    /// Bytes it has or should have.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Acquire)
    }

    /// Gives its space back; `false` if it had none.
    pub(crate) fn release(&self, vfs: &dyn Vfs, layout: &Layout) -> bool {
        let mut partial = self.partial.lock();
        let had_some = self.is_held.swap(false, Ordering::AcqRel) | partial.take().is_some();
        if had_some {
            // If that fails there is no more space than before, and nothing else follows from it.
            let _ = vfs.remove(&layout.at(RESERVE));
            // Many file systems give blocks back once the removal is durable.
            let _ = layout.sync_dir(vfs, "");
        }
        had_some
    }

    /// Writes the next piece of it; `true` once all of it is there and durable.
    ///
    /// # Errors
    /// There is no space for it, or the device failed. What was written of it is removed.
    pub(crate) fn build_some(&self, env: &Env, layout: &Layout) -> Result<bool> {
        if self.is_held() {
            return Ok(true);
        }
        let mut partial = self.partial.lock();
        let built = self.write_some(&mut partial, env, layout);
        let failed = built.is_err();
        if failed || matches!(built, Ok(true)) {
            *partial = None;
        }
        self.is_held.store(matches!(built, Ok(true)), Ordering::Release);
        if failed {
            let _ = env.vfs.remove(&layout.at(RESERVE));
        }
        built.map_err(|error| Error::io("write", RESERVE, error))
    }

    fn write_some(
        &self,
        partial: &mut Option<Partial>,
        env: &Env,
        layout: &Layout,
    ) -> io::Result<bool> {
        let path = layout.at(RESERVE);
        if partial.is_none() {
            remove_if_there(&*env.vfs, &path)?;
            *partial = Some(Partial { file: env.vfs.create(&path, 0)?, written: 0 });
        }
        let Some(Partial { file, written }) = partial else { return Ok(false) };
        let left = usize::try_from(self.bytes - *written).unwrap_or(usize::MAX);
        let piece = noise(env.random.next_u64(), left.min(STEP));
        file.write_at(&piece, *written)?;
        *written += piece.len() as u64;
        if *written < self.bytes {
            return Ok(false);
        }
        file.sync()?;
        env.vfs.sync_dir(layout.root())?;
        Ok(true)
    }
}

/// Bytes of the reserve of a database with memtables of this size.
pub(crate) fn size_for(memtable_bytes: u64) -> u64 {
    let slack = SLACK.min(memtable_bytes.saturating_mul(MEMTABLES_SLACK));
    let least = BYTES_MIN.min(memtable_bytes.saturating_mul(MEMTABLES_MIN));
    memtable_bytes.saturating_mul(2).saturating_add(slack).clamp(least, BYTES_MAX)
}

fn remove_if_there(vfs: &dyn Vfs, path: &Path) -> io::Result<()> {
    match vfs.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// So many bytes that do not compress (xorshift: Marsaglia, 2003).
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len.next_multiple_of(8));
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use memtide_env::Simulation;

    use super::*;

    #[test]
    fn it_is_two_memtables_and_more_and_small_where_those_are() {
        for (memtable, want) in [
            (4 << 10, 64 << 10),
            (64 << 10, 1 << 20),
            (256 << 10, 4 << 20),
            (512 << 10, 4 << 20),
            (1 << 20, 4 << 20),
            (8 << 20, 17 << 20),
            (1 << 30, 64 << 20),
        ] {
            assert_eq!(size_for(memtable), want, "memtables of {memtable} B");
        }
    }

    #[test]
    fn it_takes_real_space_and_gives_it_back() {
        let sim = Simulation::new(1);
        let layout = Layout::new("/db".as_ref());
        sim.vfs.create_dir(layout.root()).expect("made");
        let reserve = Reserve::new(1 << 20, false);
        let free = || sim.vfs.space(layout.root()).expect("known").free;
        sim.vfs.set_free_space(Some(5 << 20));
        while !reserve.build_some(&sim.env, &layout).expect("there is space") {
            assert!(!reserve.is_held());
        }
        assert!(reserve.is_held() && free() == 1 << 20);
        assert!(reserve.release(&sim.vfs, &layout) && !reserve.release(&sim.vfs, &layout));
        assert_eq!(free(), 5 << 20);
        sim.vfs.set_free_space(Some(3 << 20));
        while reserve.build_some(&sim.env, &layout).is_ok() {}
        assert!(!reserve.is_held() && free() == 3 << 20, "nothing is left of half a reserve");
    }
}
