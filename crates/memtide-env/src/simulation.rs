//! A whole world for one test: simulated disk, manual clock, stepped jobs, seeded randomness.

use memtide_base::sync::Arc;

use crate::clock::ManualClock;
use crate::executor::StepExecutor;
use crate::vfs::{Disk, SimVfs};
use crate::{Env, Heap, Random};

/// An [`Env`] in which nothing happens by itself, and the parts by which a test makes things happen.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// What the engine gets.
    pub env: Env,
    /// The disk of `env`.
    pub vfs: SimVfs,
    /// The clock of `env`.
    pub clock: Arc<ManualClock>,
    /// The jobs of `env`.
    pub steps: Arc<StepExecutor>,
}

impl Simulation {
    /// A world with an empty disk.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::on(Disk::default(), seed)
    }

    /// A world around `disk`, as after a reboot.
    #[must_use]
    pub fn on(disk: Disk, seed: u64) -> Self {
        let vfs = SimVfs::from_disk(disk);
        let clock = Arc::new(ManualClock::new());
        let steps = Arc::new(StepExecutor::new(Arc::clone(&clock)));
        let env = Env {
            vfs: Arc::new(vfs.clone()),
            clock: Arc::<ManualClock>::clone(&clock),
            executor: Arc::<StepExecutor>::clone(&steps),
            random: Arc::new(Random::from_seed(seed)),
            heap: Heap::Kept,
        };
        Self { env, vfs, clock, steps }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::vfs::CrashMode;

    #[test]
    fn the_parts_are_those_of_the_environment_and_the_disk_outlives_it() {
        let first = Simulation::new(9);
        let path = Path::new("/kept");
        first.env.vfs.create(path, 0).unwrap();
        first.env.vfs.sync_dir(Path::new("/")).unwrap();
        first.clock.advance(Duration::from_secs(2));
        assert_eq!(first.env.clock.now(), Duration::from_secs(2));
        assert_eq!(first.vfs.op_count(), 2);

        let second = Simulation::on(first.vfs.disk().crash(CrashMode::DropAll, 0), 9);
        assert_eq!(second.vfs.files(), [path]);
        assert_eq!(second.env.random.uuid(), first.env.random.uuid(), "the seed is the same");
    }
}
