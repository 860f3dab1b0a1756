//! A compaction looks up from its work: it ends if it has to, and waits if it wrote faster than it may.

use memtide_base::Result;

use crate::config::Compaction;
use crate::engine::Engine;

/// Level 0 with so many times the runs that make it due needs its merge more than the device needs rest.
const OVERLOAD: usize = 2;

/// # Errors
/// No compaction may begin or go on: `Busy` while a pause is held; the database is closed or takes no writes any more.
pub(super) fn check(engine: &Engine) -> Result<()> {
    engine.check_open()?;
    engine.health.check_running()?;
    engine.hold.check()
}

/// Waits until `bytes` more may have been written, unless level 0 of a keyspace is overloaded.
///
/// # Errors
/// `Busy` while a pause is held; if it has to wait, as [`check`], also while it waits.
pub(super) fn keep(engine: &Engine, bytes: u64) -> Result<()> {
    engine.hold.check()?;
    let Some(rate) = engine.settings.compaction_rate.filter(|_| !is_overloaded(engine)) else {
        return Ok(());
    };
    let clock = &engine.env.clock;
    let began = clock.now();
    let even = engine.hold.even_after(began, bytes, rate);
    loop {
        // Who closes, pauses or flushes notifies after that, so this wait misses none of it.
        let seen = engine.freed.count();
        let now = clock.now();
        if now >= even || is_overloaded(engine) {
            if now > began {
                engine.tally.stalls.compaction_rate.note(now - began);
            }
            return Ok(());
        }
        check(engine)?;
        engine.env.executor.wait(&engine.freed, seen, Some(even - now));
    }
}

fn is_overloaded(engine: &Engine) -> bool {
    let limit = OVERLOAD * engine.settings.level0_runs;
    // With `fifo` level 0 is all there is.
    engine.all_keyspaces().iter().any(|keyspace| {
        keyspace.current().version.level0().len() >= limit
            && keyspace.options().compaction != Compaction::Fifo
    })
}
