//! The outside world of the engine behind traits: files, clock, background jobs, randomness.
//! Internal to Memtide, no stability promise.
//!
//! No other crate of the engine opens a file, reads a clock, starts a thread or draws a random number.
//! What runs on a laptop with [`Env::real`] runs step by step on a simulated disk in tests,
//! with a [`Simulation`].

#![expect(
    clippy::disallowed_methods,
    reason = "this crate is the door that the other crates are sent to"
)]

pub mod clock;
pub mod executor;
#[cfg_attr(
    all(target_os = "linux", target_env = "gnu", not(miri)),
    expect(unsafe_code, reason = "one call of the C library; the header argues it")
)]
pub mod heap;
pub mod random;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
pub mod vfs;

use memtide_base::sync::Arc;

pub use clock::Clock;
pub use executor::{Event, Executor, Job, JobId, Step};
pub use heap::Heap;
pub use random::Random;
#[cfg(any(test, feature = "simulation"))]
pub use simulation::Simulation;
pub use vfs::{ReadFile, Vfs, WriteFile};

/// Everything the engine may touch outside its own memory.
#[derive(Clone, Debug)]
pub struct Env {
    /// Files and directories.
    pub vfs: Arc<dyn Vfs>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Background jobs, and the only place where foreground code blocks.
    pub executor: Arc<dyn Executor>,
    /// Salts, identities, hash seeds.
    pub random: Arc<Random>,
    /// What gives memory back to the system.
    pub heap: Heap,
}

impl Env {
    /// The machine's own files, clock, threads and randomness.
    #[must_use]
    pub fn real() -> Self {
        let clock = Arc::new(clock::SystemClock::new());
        Self {
            vfs: Arc::new(vfs::StdVfs),
            clock: Arc::<clock::SystemClock>::clone(&clock),
            executor: Arc::new(executor::ThreadExecutor::new(clock)),
            random: Arc::new(Random::from_system()),
            heap: Heap::System,
        }
    }
}
