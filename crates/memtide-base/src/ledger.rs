//! Who holds how many bytes: the one memory account of a database.
//!
//! Memory is asked for here *before* it is allocated, so a refusal happens while nothing has changed yet.
//! Each holder keeps a [`Charge`], which gives its bytes back when dropped; the sum of all charges is the
//! ledger's total at every moment.
//!
//! Ledgers nest by convention, not by type: one per database, shared by all of its parts.

use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};

/// What a charge pays for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// Active and sealed memtables.
    Memtables = 0,
    /// The block cache.
    Cache = 1,
    /// Index, filter and range-tombstone blocks of open tables.
    Tables = 2,
    /// Working memory of flush, compaction and recovery.
    Upkeep = 3,
}

const ACCOUNTS: usize = 4;

/// The memory account of one database: a budget and who uses it.
#[derive(Debug)]
pub struct Ledger {
    budget: u64,
    total: AtomicU64,
    held: [AtomicU64; ACCOUNTS],
}

impl Ledger {
    /// A ledger that lends up to `budget` bytes.
    #[must_use]
    pub fn new(budget: u64) -> Arc<Self> {
        Arc::new(Self { budget, total: AtomicU64::new(0), held: Default::default() })
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

    /// Borrows `more` bytes; `false`, and nothing changed, if the budget does not allow it.
    #[must_use]
    pub fn try_grow(&mut self, more: u64) -> bool {
        let budget = self.ledger.budget;
        let fits = |total: u64| total.checked_add(more).filter(|&sum| sum <= budget);
        // Relaxed: the ledger is an account, nothing is published through it.
        let lent = self.ledger.total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        if lent.is_ok() {
            self.note(more);
        }
        lent.is_ok()
    }

    /// Borrows `more` bytes even above the budget: for memory whose use cannot be refused any more.
    pub fn grow_unchecked(&mut self, more: u64) {
        self.ledger.total.fetch_add(more, Ordering::Relaxed);
        self.note(more);
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
    }

    fn note(&mut self, more: u64) {
        self.bytes += more;
        self.ledger.held[self.account as usize].fetch_add(more, Ordering::Relaxed);
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
        assert!(ledger.try_charge(Account::Memtables, 41).is_none());
        assert_eq!((ledger.total(), ledger.held(Account::Memtables)), (60, 0));
        drop(kept);
        assert_eq!((ledger.total(), ledger.held(Account::Cache)), (0, 0));
    }
}
