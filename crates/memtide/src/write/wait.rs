//! What a write waits for before it begins, and how long.

use std::time::Duration;

use memtide_base::{Error, ErrorKind, Result};

use super::commit::gives_space;
use super::{controller, memory, rotate, segments};
use crate::batch::Writes;
use crate::commit_queue::Need;
use crate::engine::{Engine, Stall};

/// How long a write may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// As long as it takes.
    Endless,
    /// So long, all its waits together.
    For(Duration),
    /// Not at all, not even for the device afterwards.
    None,
}

/// The waits of one write, over all its attempts.
pub(super) struct Waits<'e> {
    engine: &'e Engine,
    patience: Patience,
    /// When the first of them began.
    since: Option<Duration>,
    memory: memory::Wait,
}

impl<'e> Waits<'e> {
    pub(super) fn new(engine: &'e Engine, patience: Patience) -> Self {
        Self { engine, patience, since: None, memory: memory::Wait::default() }
    }

    /// Waits until it is worth while to try `writes` again.
    ///
    /// # Errors
    /// `Busy` if the patience is at its end, or if waiting cannot help. The database was closed or takes no writes
    /// any more.
    pub(super) fn wait(&mut self, need: &Need, writes: &impl Writes) -> Result<()> {
        let engine = self.engine;
        let began = engine.env.clock.now();
        let left = self.left(began, need)?;
        let waited = match need {
            Need::Segment => match left {
                Some(left) => segments::wait_for_next(engine, left),
                None => match segments::follow(engine) {
                    Err(error) if self.is_helped(writes, &error) => Ok(()),
                    followed => followed,
                },
            },
            Need::Memory => self.memory.wait(engine, left),
            Need::Merge(keyspace) => rotate::wait_for_merge(engine, keyspace, left),
        };
        stall(engine, need).note(engine.env.clock.now().saturating_sub(began));
        waited
    }

    /// Waits until it is the turn of a write that is held back. What it waits for goes on without being asked.
    ///
    /// # Errors
    /// `Busy` if the patience is at its end. The database was closed or takes no writes any more.
    #[cold]
    #[inline(never)]
    pub(super) fn wait_for_turn(
        &mut self,
        writes: &impl Writes,
    ) -> Result<Option<controller::Turn<'e>>> {
        let engine = self.engine;
        let Some(turn) = controller::turn(engine, writes) else { return Ok(None) };
        let taken = match self.patience {
            Patience::Endless => turn.wait(engine, None)?,
            Patience::None => turn.try_take(engine),
            Patience::For(limit) => {
                self.since.get_or_insert(engine.env.clock.now());
                turn.wait(engine, Some(limit))?
            }
        };
        taken.map(|()| Some(turn)).map_err(|eta| {
            let ms = eta.as_millis().max(1);
            refusal(&format!("{}, for about {ms} ms", turn.whose))
        })
    }

    /// Whether there is space for a write where there was none before: one that only deletes may have of the reserve.
    fn is_helped(&self, writes: &impl Writes, error: &Error) -> bool {
        let Engine { env, layout, reserve, .. } = self.engine;
        let is_taken = error.kind() == ErrorKind::NoSpace && gives_space(writes);
        is_taken && reserve.release(&*env.vfs, layout)
    }

    /// How much longer it may wait; without a limit if there is none.
    fn left(&mut self, now: Duration, need: &Need) -> Result<Option<Duration>> {
        let waited = now.saturating_sub(*self.since.get_or_insert(now));
        match self.patience {
            Patience::Endless => Ok(None),
            Patience::For(limit) if waited < limit => Ok(Some(limit - waited)),
            Patience::For(_) | Patience::None => {
                ask(self.engine, need);
                Err(refusal(text(need)))
            }
        }
    }
}

fn refusal(what: &str) -> Error {
    let what = format!("the write would have to wait for {what}");
    Error::new(ErrorKind::Busy, what).with_hint("try again later, or let it wait longer")
}

/// Has others provide what is needed, so that a later attempt finds it.
fn ask(engine: &Engine, need: &Need) {
    match need {
        Need::Segment => engine.wake_sync(),
        Need::Memory => {
            memory::free_some(engine);
        }
        Need::Merge(_) => engine.wake_merge(),
    }
}

fn text(need: &Need) -> &'static str {
    match need {
        Need::Segment => "the next segment of the log",
        Need::Memory => "memory",
        Need::Merge(_) => "a merge of memtables",
    }
}

fn stall<'e>(engine: &'e Engine, need: &Need) -> &'e Stall {
    let stalls = &engine.tally.stalls;
    match need {
        Need::Segment => &stalls.segment,
        Need::Memory => &stalls.memory,
        Need::Merge(_) => &stalls.merge,
    }
}
