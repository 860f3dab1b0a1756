//! Who holds how many bytes: the one memory account of a database.
//!
//! Memory is asked for here *before* it is allocated, so a refusal happens while nothing has changed yet.
//! Each holder keeps a [`Charge`], which gives its bytes back when dropped; the sum of all charges is the
//! ledger's total at every moment.
//!
//! There is one per database, shared by all of its parts.

use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a charge pays for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// Active and sealed memtables.
    Memtables = 0,
    /// The block cache.
    Cache = 1,
    /// Index, filter, range-tombstone blocks and cache slots of open tables.
    Tables = 2,
    /// Working memory of flush, compaction and recovery.
    Upkeep = 3,
}

const ACCOUNTS: usize = 4;

/// The memory account of one database: a budget and who uses it.
#[derive(Debug)]
pub struct Ledger {
    budget: u64,
    /// What memtables may always hold, whatever the others do.
    memtable_share: u64,
    /// Nothing is refused while this is set.
    suspended: AtomicBool,
    total: AtomicU64,
    held: [AtomicU64; ACCOUNTS],
    /// Bytes that were given back since [`Ledger::take_idle`] took them.
    idle: AtomicU64,
}

impl Ledger {
    /// A ledger that lends up to `budget` bytes, half of them to memtables whatever others hold.
    #[must_use]
    pub fn new(budget: u64) -> Arc<Self> {
        Arc::new(Self {
            budget,
            memtable_share: budget / 2,
            suspended: AtomicBool::new(false),
            total: AtomicU64::new(0),
            held: Default::default(),
            idle: AtomicU64::new(0),
        })
    }

    /// A ledger without a limit, for parts used alone.
    #[must_use]
    pub fn unlimited() -> Arc<Self> {
        Self::new(u64::MAX)
    }

    /// The most bytes [`Ledger::try_charge`] lends in all.
    #[must_use]
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// Bytes that memtables may hold: while they stay below, they are never refused.
    #[must_use]
    pub fn memtable_share(&self) -> u64 {
        self.memtable_share
    }

    /// Refuses nothing while `suspended`: a replay must take what the log holds.
    pub fn suspend(&self, suspended: bool) {
        self.suspended.store(suspended, Ordering::Relaxed);
    }

    /// Bytes lent now, over all accounts.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes lent to one account.
    #[must_use]
    pub fn held(&self, account: Account) -> u64 {
        self.held[account as usize].load(Ordering::Relaxed)
    }

    /// Whether so many bytes were given back since this last said so: as much may lie idle in the heap.
    #[must_use]
    pub fn take_idle(&self, bytes: u64) -> bool {
        // One of those who ask at once takes them.
        self.idle.load(Ordering::Relaxed) >= bytes && self.idle.swap(0, Ordering::Relaxed) >= bytes
    }

    /// Lends `bytes`, or `None` if the budget does not allow it.
    #[must_use]
    pub fn try_charge(self: &Arc<Self>, account: Account, bytes: u64) -> Option<Charge> {
        let mut charge = self.empty_charge(account);
        charge.try_grow(bytes).then_some(charge)
    }

    /// A charge of nothing yet, to grow later.
    #[must_use]
    pub fn empty_charge(self: &Arc<Self>, account: Account) -> Charge {
        Charge { ledger: Arc::clone(self), account, bytes: 0 }
    }
}

/// Bytes one holder has borrowed; dropping gives them back.
#[derive(Debug)]
pub struct Charge {
    ledger: Arc<Ledger>,
    account: Account,
    bytes: u64,
}

impl Charge {
    /// Bytes this charge stands for.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Borrows `more` bytes; `false`, and nothing changed, if the budget does not allow it. Memtables get
    /// theirs from their share, everyone else from what is left of the budget.
    #[must_use]
    pub fn try_grow(&mut self, more: u64) -> bool {
        let ledger = &*self.ledger;
        let (pool, limit) = match self.account {
            Account::Memtables => (&ledger.held[self.account as usize], ledger.memtable_share),
            _ => (&ledger.total, ledger.budget),
        };
        let fits = |held: u64| held.checked_add(more).is_some_and(|sum| sum <= limit);
        // Relaxed: the ledger is an account, nothing is published through it. Two who ask at once may both
        // be granted; what they overdraw is at most what they asked for.
        let lent = ledger.suspended.load(Ordering::Relaxed) || fits(pool.load(Ordering::Relaxed));
        if lent {
            self.grow_unchecked(more);
        }
        lent
    }

    /// Borrows `more` bytes even above the budget: for memory whose use cannot be refused any more.
    pub fn grow_unchecked(&mut self, more: u64) {
        self.bytes += more;
        self.ledger.held[self.account as usize].fetch_add(more, Ordering::Relaxed);
        self.ledger.total.fetch_add(more, Ordering::Relaxed);
    }

    /// Gives `fewer` bytes back.
    ///
    /// # Panics
    /// If the charge is smaller than that: a bug in the caller.
    pub fn shrink(&mut self, fewer: u64) {
        assert!(fewer <= self.bytes, "a charge of {} B cannot give back {fewer} B", self.bytes);
        self.bytes -= fewer;
        self.ledger.held[self.account as usize].fetch_sub(fewer, Ordering::Relaxed);
        self.ledger.total.fetch_sub(fewer, Ordering::Relaxed);
        self.ledger.idle.fetch_add(fewer, Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_beyond_the_budget_is_refused_and_changes_nothing() {
        let ledger = Ledger::new(100);
        let kept = ledger.try_charge(Account::Cache, 60).expect("60 of 100 fit");
        assert!(ledger.try_charge(Account::Tables, 41).is_none());
        assert_eq!((ledger.total(), ledger.held(Account::Tables)), (60, 0));
        let share = ledger.try_charge(Account::Memtables, 50).expect("their share is theirs");
        assert!(ledger.try_charge(Account::Memtables, 1).is_none());
        drop((kept, share));
        assert_eq!((ledger.total(), ledger.held(Account::Cache)), (0, 0));
    }
}
