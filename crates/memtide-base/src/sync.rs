//! Locks, atomics and shared pointers: the only door to them for every crate of the engine.
//!
//! No other file names `std::sync` for a lock or an atomic, so this module is where a model checker's twins
//! go in: built with `--cfg loom` or `--cfg shuttle`, locks and atomics are those of the checker. A lock whose
//! holder panicked is taken over, not poisoned: the engine's own state machines say what is still usable after
//! a panic.

use std::ops::Deref;
use std::time::Duration;

#[cfg(loom)]
use loom::sync as twin;
#[cfg(shuttle)]
use shuttle::sync as twin;
#[cfg(not(any(loom, shuttle)))]
use std::sync as twin;

pub use arc_swap::Guard;
pub use std::sync::{Arc, OnceLock, Weak};
pub use twin::atomic;
pub use twin::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

/// What a writer does before it looks at a held lock bit again: short holds are spun through, then the
/// holder gets the processor.
#[cfg(not(any(loom, shuttle)))]
#[inline]
pub fn relax(round: u32) {
    if round < 16 {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

#[cfg(loom)]
/// Lets the model go on with another thread.
pub fn relax(_round: u32) {
    loom::thread::yield_now();
}

#[cfg(shuttle)]
/// Lets the model go on with another thread.
pub fn relax(_round: u32) {
    shuttle::thread::yield_now();
}

/// A number that nobody in this process had before. It synchronises nothing, so it is the same under a model
/// checker.
pub fn unique_number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A mutual exclusion lock that a panic does not poison.
#[derive(Debug, Default)]
pub struct Mutex<T>(twin::Mutex<T>);

impl<T> Mutex<T> {
    /// A lock around `value`.
    #[cfg(not(any(loom, shuttle)))]
    pub const fn new(value: T) -> Self {
        Self(twin::Mutex::new(value))
    }

    /// A lock around `value`.
    #[cfg(any(loom, shuttle))]
    pub fn new(value: T) -> Self {
        Self(twin::Mutex::new(value))
    }

    /// Waits for the lock.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The lock if nobody holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }

    /// The value, by exclusive borrow.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A readers-writer lock that a panic does not poison.
#[derive(Debug, Default)]
pub struct RwLock<T>(twin::RwLock<T>);

impl<T> RwLock<T> {
    /// A lock around `value`.
    #[cfg(not(any(loom, shuttle)))]
    pub const fn new(value: T) -> Self {
        Self(twin::RwLock::new(value))
    }

    /// A lock around `value`.
    #[cfg(any(loom, shuttle))]
    pub fn new(value: T) -> Self {
        Self(twin::RwLock::new(value))
    }

    /// Waits until no writer holds the lock.
    #[inline]
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Waits until nobody holds the lock.
    #[inline]
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A condition to wait for beside a [`Mutex`].
#[derive(Debug, Default)]
pub struct Condvar(twin::Condvar);

impl Condvar {
    /// A condition nobody waits for yet.
    #[cfg(not(any(loom, shuttle)))]
    #[must_use]
    pub const fn new() -> Self {
        Self(twin::Condvar::new())
    }

    /// A condition nobody waits for yet.
    #[cfg(any(loom, shuttle))]
    #[must_use]
    pub fn new() -> Self {
        Self(twin::Condvar::new())
    }

    /// Gives the lock up, waits for a notification, takes the lock again. May wake without cause.
    pub fn wait<'g, T>(&self, guard: MutexGuard<'g, T>) -> MutexGuard<'g, T> {
        self.0.wait(guard).unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// As [`Condvar::wait`], for at most `limit`.
    pub fn wait_timeout<'g, T>(
        &self,
        guard: MutexGuard<'g, T>,
        limit: Duration,
    ) -> MutexGuard<'g, T> {
        let woken = self.0.wait_timeout(guard, limit);
        woken.unwrap_or_else(std::sync::PoisonError::into_inner).0
    }

    /// Wakes one waiter.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all waiters.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// A shared pointer that readers load without a lock and writers replace as a whole.
#[derive(Debug)]
pub struct Swap<T>(arc_swap::ArcSwap<T>);

impl<T> Swap<T> {
    /// A pointer to `value`.
    pub fn new(value: Arc<T>) -> Self {
        Self(arc_swap::ArcSwap::new(value))
    }

    /// The current value for a short read: no reference count is touched on the usual path.
    #[inline]
    pub fn guard(&self) -> Guard<Arc<T>> {
        self.0.load()
    }

    /// The current value to keep.
    #[inline]
    pub fn load(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Installs `value`; later loads see it.
    pub fn store(&self, value: Arc<T>) {
        self.0.store(value);
    }
}

/// As [`Swap`], but there may be nothing to point to.
#[derive(Debug)]
pub struct SwapOption<T>(arc_swap::ArcSwapOption<T>);

impl<T> Default for SwapOption<T> {
    fn default() -> Self {
        Self(arc_swap::ArcSwapOption::const_empty())
    }
}

impl<T> SwapOption<T> {
    /// The current value for a short read, if there is one: no reference count is touched on the usual path.
    #[inline]
    pub fn glance(&self) -> Option<Glance<T>> {
        let guard = self.0.load();
        guard.is_some().then(|| Glance(guard))
    }

    /// As [`Swap::load`].
    #[inline]
    pub fn load(&self) -> Option<Arc<T>> {
        self.0.load_full()
    }

    /// As [`Swap::store`].
    pub fn store(&self, value: Option<Arc<T>>) {
        self.0.store(value);
    }

    /// Leaves nothing and gives back what was there.
    pub fn take(&self) -> Option<Arc<T>> {
        self.0.swap(None)
    }
}

/// A shared value held for a short time by one thread, mostly without counting a reference.
#[derive(Debug)]
pub struct Glance<T>(Guard<Option<Arc<T>>>);

impl<T> Glance<T> {
    /// At a value that is counted already.
    pub fn at(value: Arc<T>) -> Self {
        Self(Guard::from_inner(Some(value)))
    }

    /// The value to keep.
    #[inline]
    pub fn keep(self) -> Arc<T> {
        Guard::into_inner(self.0).expect("a glance shows something")
    }
}

impl<T> Deref for Glance<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.as_deref().expect("a glance shows something")
    }
}
