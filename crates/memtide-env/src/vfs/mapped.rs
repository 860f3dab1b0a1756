//! A file that is written through a shared map of it, a window at a time: what a log's many small writes cost is
//! then a copy, not a system call.
//!
//! Only where blocks stay where they are once they are allocated: on the file systems of [`keeps_blocks`], for the
//! bytes that were allocated ahead. Everything else is written as any other file.
//!
//! Invariants
//! - Before anything is stored, the kernel was made to write zeros there. So no store meets a hole or a full device,
//!   and the page cache has the window in large pages.
//! - A page that faults all the same is an error of `write_at`, not a signal (`window`); but for a thread that has
//!   blocked SIGBUS, which the kernel kills, and for a window that was open when the program installed a handler of
//!   its own.
//! - The file is never cut under a map: `set_len` unmaps first, and nothing is mapped afterwards.
//!
//! A store is in the page cache when `write_at` returns, as a `pwrite` is, so it survives the process; other handles
//! read it at once, and `sync` writes it.
//!
//! # When a map does not pay
//! A store makes a large page dirty as a whole, 2 MiB perhaps, and the next sync writes all of it; a `pwrite` makes
//! dirty what it writes. So whoever syncs often is served the ordinary way: after a sync the map is used at once if
//! [`BUSY`] bytes were written since the sync before, else when they are. Before the first sync it is not: a file's
//! beginning, which is synced by itself, would take a window of zeros to the device with it.

#[expect(unsafe_code, reason = "the one module of raw memory; its header argues each block")]
mod window;

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;

use memtide_base::sync::Mutex;
use rustix::fs::fstatfs;
use rustix::io::{pwritev, retry_on_intr};

use super::WriteFile;
use super::fuse::Fuse;
use window::{SPAN, Window};

const SPAN_U64: u64 = SPAN as u64;

/// A file of fewer bytes gains too little.
const FILE_MIN: u64 = 2 << 20;

/// In smaller windows zeros and maps cost what they save.
const WINDOW_MIN: u64 = 256 << 10;

/// Bytes between two syncs from which on a large page more to write is little.
const BUSY: u64 = 1 << 20;

/// From this many bytes on a system call costs less than writing zeros first.
const LARGE: usize = 64 << 10;

/// Zeros are written from one small piece, which stays in the processor's cache.
static ZEROS: [u8; 16 << 10] = [0; 16 << 10];
const PIECES: usize = SPAN / ZEROS.len();

/// Whether blocks that are allocated stay where they are, and writing them needs no new ones: on ext4 and XFS. Others
/// copy on write (btrfs, ZFS, F2FS, overlays), allocate late or have no device at all.
pub(super) fn keeps_blocks(file: &File) -> bool {
    const EXT: i64 = 0xEF53;
    const XFS: i64 = 0x5846_5342;
    fstatfs(file).is_ok_and(|stat| [EXT, XFS].contains(&stat.f_type))
}

/// Whether a file of `allocated` bytes gains from windows of at most `window`.
pub(super) fn pays(allocated: u64, window: u64) -> bool {
    allocated >= FILE_MIN && window >= WINDOW_MIN
}

/// A file whose first bytes are allocated, written through a map.
#[derive(Debug)]
pub(super) struct MappedFile {
    file: File,
    fuse: Fuse,
    place: Mutex<Place>,
}

impl MappedFile {
    /// The empty `file`, open for reading and writing, of which `allocated` bytes are; `window` of them are mapped
    /// at once, at least [`WINDOW_MIN`]. Gives the file back if there can be no window.
    pub(super) fn new(file: File, allocated: u64, window: u64) -> Result<Self, File> {
        // A power of two, so that the page cache can have the largest pages there are.
        let span = 1 << window.clamp(WINDOW_MIN, SPAN_U64).ilog2();
        let Some(window) = Window::reserve() else { return Err(file) };
        let place = Place {
            window: Some(window),
            span,
            base: 0,
            start: 0,
            end: 0,
            written: 0,
            allocated,
            unsynced: 0,
            is_busy: false,
            is_new: true,
        };
        Ok(Self { file, fuse: Fuse::default(), place: Mutex::new(place) })
    }
}

impl WriteFile for MappedFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.fuse.run(|| self.place.lock().write(&self.file, bytes, offset))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut place = self.place.lock();
        place.unmap();
        self.fuse.run(|| self.file.set_len(len))
    }

    fn sync(&self) -> io::Result<()> {
        // A store that faulted was an error of its `write_at`, so the fuse knows.
        self.fuse.run(|| self.file.sync_data())?;
        self.place.lock().synced();
        Ok(())
    }

    fn is_mapped(&self) -> bool {
        true
    }
}

/// What of a file is mapped.
#[derive(Debug)]
struct Place {
    /// `None` once nothing may be mapped any more.
    window: Option<Window>,
    /// Bytes of a window.
    span: u64,
    /// Where in the file the window begins.
    base: u64,
    /// The bytes of the file that may be stored: they are mapped and have their zeros.
    start: u64,
    end: u64,
    /// The end of what was written, with data or with zeros.
    written: u64,
    /// Only these bytes may be mapped.
    allocated: u64,
    /// Bytes written since the last sync.
    unsynced: u64,
    /// Whether the map is used.
    is_busy: bool,
    /// Whether it was never synced.
    is_new: bool,
}

impl Place {
    fn write(&mut self, file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        self.unsynced += bytes.len() as u64;
        self.is_busy |= self.unsynced >= BUSY && !self.is_new;
        while !bytes.is_empty() {
            let is_inside = (self.start..self.end).contains(&offset);
            if !(self.is_busy && (is_inside || self.advance(file, offset, bytes.len())?)) {
                file.write_all_at(bytes, offset)?;
                self.written = self.written.max(offset + bytes.len() as u64);
                return Ok(());
            }
            let Some(window) = &mut self.window else { unreachable!("a window is open") };
            let room = small(self.end - offset);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            window.store(small(offset - self.base), now)?;
            offset += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    /// Moves the window to where `offset` is in it; `false` if the next `len` bytes are to be written the ordinary way.
    fn advance(&mut self, file: &File, offset: u64, len: usize) -> io::Result<bool> {
        let base = offset - offset % self.span;
        let end = self.allocated.min(base.saturating_add(self.span));
        let start = base.max(self.written);
        // What lies behind is written no more, but for a file that is written out of order.
        let is_ahead = offset >= start && offset < end;
        let Some(window) = self.window.as_mut().filter(|_| is_ahead && len < LARGE) else {
            return Ok(false);
        };
        write_zeros(file, start, end)?;
        self.written = end;
        if window.map(file, base, small(end - base)).is_err() {
            // It works without.
            self.unmap();
            return Ok(false);
        }
        (self.base, self.start, self.end) = (base, start, end);
        Ok(true)
    }

    /// Says that everything is on the device.
    fn synced(&mut self) {
        self.is_busy = self.is_new || self.unsynced >= BUSY;
        (self.unsynced, self.is_new) = (0, false);
    }

    fn unmap(&mut self) {
        self.window = None;
        (self.base, self.start, self.end) = (0, 0, 0);
    }
}

/// Writes zeros from `start` to `end`, a window at most, in one call if the kernel takes all.
fn write_zeros(file: &File, mut start: u64, end: u64) -> io::Result<()> {
    while start < end {
        let mut pieces = [IoSlice::new(&ZEROS); PIECES];
        let len = small(end - start).min(SPAN);
        let (whole, rest) = (len / ZEROS.len(), len % ZEROS.len());
        let count = whole + usize::from(rest > 0);
        if rest > 0 {
            pieces[whole] = IoSlice::new(&ZEROS[..rest]);
        }
        match retry_on_intr(|| pwritev(file, &pieces[..count], start))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => start += written as u64,
        }
    }
    Ok(())
}

/// Lengths within a window.
fn small(len: u64) -> usize {
    usize::try_from(len).expect("a window is far smaller than the addresses")
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;
    use crate::random::SplitMix64;

    const ALLOCATED: u64 = 2 * SPAN_U64 + 4096;

    /// A mapped file on whatever there is, and another handle of it.
    fn mapped(allocated: u64, window: u64) -> (MappedFile, File) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(allocated).unwrap();
        let other = file.try_clone().unwrap();
        (MappedFile::new(file, allocated, window).expect("there is a window"), other)
    }

    fn window_of(file: &MappedFile) -> (u64, u64) {
        let place = file.place.lock();
        (place.base, place.end)
    }

    fn content(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; small(file.metadata().unwrap().len())];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn whatever_is_written_reads_as_in_a_plain_file() {
        for seed in 0..6_u64 {
            let mut random = SplitMix64::new(seed);
            let (file, other) = mapped(ALLOCATED, WINDOW_MIN << seed);
            let (mut model, mut end) = (vec![0; small(ALLOCATED)], 4096);
            file.write_at(&[1; 4096], 0).unwrap();
            model[..4096].fill(1);
            file.sync().unwrap();
            while end < small(ALLOCATED) + 100_000 {
                let len = match random.below(40) {
                    0 => small(random.below(3_000_000)),
                    1..6 => small(random.below(200_000)),
                    _ => small(random.below(2000)),
                };
                let at = match random.below(50) {
                    0 => small(random.below(end as u64)),
                    1 => end + small(random.below(1_000_000)),
                    _ => end,
                };
                let bytes = vec![random.below(255).to_le_bytes()[0] + 1; len];
                file.write_at(&bytes, at as u64).unwrap();
                if len > 0 && model.len() < at + len {
                    model.resize(at + len, 0);
                }
                model[at.min(at + len)..][..len].copy_from_slice(&bytes);
                end = end.max(at + len);
                match random.below(200) {
                    0 => file.sync().unwrap(),
                    1 => assert!(content(&other) == model, "seed {seed}, {end} bytes"),
                    _ => {}
                }
            }
            assert!(content(&other) == model, "seed {seed}");
            file.set_len(end as u64 - 50_000).unwrap();
            file.write_at(b"behind the cut", end as u64).unwrap();
            model.truncate(end - 50_000);
            model.resize(end, 0);
            model.extend_from_slice(b"behind the cut");
            assert!(content(&other) == model, "seed {seed}");
        }
    }

    #[test]
    fn a_window_moves_with_the_writes_and_ends_with_what_is_allocated() {
        let (file, _) = mapped(ALLOCATED, SPAN_U64);
        file.write_at(&[1; 4096], 0).unwrap();
        assert_eq!(window_of(&file), (0, 0), "not before the first sync");
        file.sync().unwrap();
        for (offset, window) in [
            (4096, (0, SPAN_U64)),
            (SPAN_U64 - 7, (SPAN_U64, 2 * SPAN_U64)),
            (2 * SPAN_U64, (2 * SPAN_U64, ALLOCATED)),
            (ALLOCATED - 7, (2 * SPAN_U64, ALLOCATED)),
        ] {
            file.write_at(&[2; 14], offset).unwrap();
            assert_eq!(window_of(&file), window, "after a write at {offset}");
        }
        file.set_len(4096).unwrap();
        file.write_at(&[3; 14], 4096).unwrap();
        assert_eq!(window_of(&file), (0, 0), "nothing is mapped once it was cut");
    }

    #[test]
    fn who_syncs_often_is_served_the_ordinary_way() {
        let (file, _) = mapped(ALLOCATED, SPAN_U64);
        let is_busy = || file.place.lock().is_busy;
        let mut offset = 0;
        let mut write = |bytes| {
            file.write_at(&vec![1; small(bytes)], offset).unwrap();
            offset += bytes;
        };
        assert!(!is_busy());
        file.sync().unwrap();
        assert!(is_busy(), "a file begins with a sync");
        write(BUSY - 1);
        file.sync().unwrap();
        assert!(!is_busy(), "little between two syncs");
        write(BUSY - 1);
        assert!(!is_busy());
        write(1);
        assert!(is_busy(), "much since the sync");
        file.sync().unwrap();
        assert!(is_busy(), "much between two syncs");
    }

    #[test]
    fn a_file_cut_under_its_map_is_dead_and_the_process_is_not() {
        let (file, other) = mapped(ALLOCATED, SPAN_U64);
        file.sync().unwrap();
        file.write_at(b"whole", 0).unwrap();
        other.set_len(0).unwrap();
        let lost = file.write_at(b"lost", 10_000).unwrap_err();
        assert_eq!(lost.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
        for later in [file.sync(), file.write_at(b"x", 0), file.set_len(0)] {
            assert_eq!(later.unwrap_err().kind(), ErrorKind::Other, "it stays dead");
        }
    }

    #[test]
    fn zeros_fill_exactly_what_they_are_told_to() {
        let file = tempfile::tempfile().unwrap();
        let (start, end) = (5000, 5000 + (1 << 20) + 77);
        file.write_all_at(&vec![1; 2 << 20], 0).unwrap();
        write_zeros(&file, start, end).unwrap();
        let bytes = content(&file);
        let (before, rest) = bytes.split_at(small(start));
        let (zeros, behind) = rest.split_at(small(end - start));
        assert!(before.iter().chain(behind).all(|byte| *byte == 1));
        assert!(zeros.iter().all(|byte| *byte == 0));
    }
}
