//! The process's heap, in which freed memory stays where it lies.
//!
//! # Safety model
//! The crate calls one function of the C library here. It takes no pointer and gives none back, so nothing can refer
//! to what it changes: pages that hold no allocated byte.

/// Whether freed memory goes back to the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heap {
    /// It does, where the C library can.
    System,
    /// It gives nothing back: in a simulated world, or for a moment.
    Kept,
}

impl Heap {
    /// Gives the system back what lies idle in the heap; nothing where the C library is not glibc.
    ///
    /// glibc does so by itself only at the end of a heap, of which it makes one for every few threads. What one thread
    /// allocates and another one frees lies idle in the first one's heap. Each heap is locked while it is looked
    /// through.
    pub fn give_back(self) {
        #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
        if self == Self::System {
            // SAFETY: any thread may call it at any time; it takes the locks of the heaps as `malloc` does, and
            // changes no allocated byte.
            unsafe { libc::malloc_trim(0) };
        }
    }
}
