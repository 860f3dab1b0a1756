//! How a write is asked for, and what is left to wait for once it was made.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use memtide_base::sync::Arc;
use memtide_base::{Result, SeqNo};

use crate::commit_queue::Committed;
use crate::config::Durability;
use crate::engine::Engine;
use crate::write;

/// How one batch is written: see [`Db::write_with`](crate::Db::write_with). A [`Durability`] alone is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// When it is acknowledged, whatever the database's level; `Interval` is `Buffered` here. Default: the
    /// database's level.
    pub durability: Option<Durability>,
    /// How long the write may wait for memory, for merges of memtables, for the next segment of the log, or for its
    /// turn while upkeep is behind, before it begins. Commits in progress are waited for on top, and once it has begun
    /// it is not given up. Default: as long as it takes.
    pub timeout: Option<Duration>,
}

impl From<Durability> for WriteOptions {
    fn from(durability: Durability) -> Self {
        Self { durability: Some(durability), timeout: None }
    }
}

/// A write that is visible and, as far as its durability level says, acknowledged.
///
/// Dropping it changes nothing. To know that the write survives a power cut, [`Commit::wait`] for it or `.await` it:
/// one sync serves all who wait. That goes for what went through the log; a keyspace without one is durable once it
/// was flushed.
#[derive(Clone)]
pub struct Commit {
    engine: Arc<Engine>,
    committed: Committed,
}

impl Commit {
    pub(crate) fn new(engine: &Arc<Engine>, committed: Committed) -> Self {
        Self { engine: Arc::clone(engine), committed }
    }

    /// The number of the write's last operation.
    #[must_use]
    pub fn seqno(&self) -> SeqNo {
        self.committed.last
    }

    /// Whether the whole write is known to survive a power cut; never of one that has operations of a keyspace without
    /// a log.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.committed.is_logged && self.is_synced()
    }

    /// Blocks until the log has the write's logged operations on the device, at any durability level.
    ///
    /// # Errors
    /// `Indeterminate` if the device failed: whether the write survives is not known before the database has resumed.
    /// `Closed` if the database was closed and failed to sync it.
    pub fn wait(&self) -> Result<()> {
        write::sync_to(&self.engine, self.committed.end)
    }

    fn is_synced(&self) -> bool {
        self.engine.durable_seq() >= self.committed.end
    }

    /// Whether it is decided that the write survives; `None` while it may still become durable.
    fn decided(&self) -> Option<Result<()>> {
        if self.is_synced() {
            return Some(Ok(()));
        }
        if let Err(failed) = write::check_syncs(&self.engine) {
            return Some(Err(failed));
        }
        // Closing lets go of the log once it has synced it.
        let closed = self.engine.is_closed() && self.engine.commit.lock().is_none();
        closed.then(|| if self.is_synced() { Ok(()) } else { self.engine.check_open() })
    }
}

impl IntoFuture for Commit {
    type Output = Result<()>;
    type IntoFuture = WhenDurable;

    fn into_future(self) -> WhenDurable {
        WhenDurable(self)
    }
}

/// Resolves once a write survives a power cut, as [`Commit::wait`] would return. No thread blocks meanwhile: a
/// background job syncs.
#[derive(Debug)]
#[must_use = "a future does nothing unless polled"]
pub struct WhenDurable(Commit);

impl Future for WhenDurable {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let commit = &self.0;
        if let Some(decided) = commit.decided() {
            return Poll::Ready(decided);
        }
        commit.engine.durable.tell(context.waker());
        // What was decided before that told nobody.
        if let Some(decided) = commit.decided() {
            return Poll::Ready(decided);
        }
        commit.engine.wake_sync();
        Poll::Pending
    }
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seqno, durable) = (self.seqno(), self.is_durable());
        f.debug_struct("Commit").field("seqno", &seqno).field("durable", &durable).finish()
    }
}
