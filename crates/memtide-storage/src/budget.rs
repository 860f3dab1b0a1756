//! The memory budget: what the cache leaves to others, and what goes back to the system.
//!
//! ```text
//! budget  |  memtables: half  |  tables  |  upkeep  |  cache: the rest, up to `cache_size`  |
//! ```
//!
//! Memtables are refused what is beyond their share. Open tables and the work of flushes and compactions cannot be
//! refused: the cache gives way to them, down to a sixteenth of the budget, and beyond that partitions of tables are
//! given up and tables closed. The cache is fitted whenever they have become more or fewer. So all accounts together
//! are within the budget, but for a moment before that, where upkeep alone takes much of the half that is not for
//! memtables (budgets of less than some MiB, many range tombstones), and during a replay, which takes what the log
//! holds.
//!
//! What is freed stays in the heap of the thread that had allocated it, and another thread allocates elsewhere. So
//! whoever frees much has the system take back what lies idle, once that and what is in use may be above the budget.

use memtide_base::ledger::{Account, Charge, Ledger};
use memtide_base::sync::{Arc, Mutex};
use memtide_env::Heap;

use crate::cache::BlockCache;

/// The part of the budget that the cache keeps whatever others take.
const CACHE_MIN: u64 = 16;
/// The part of the budget that open tables keep whatever upkeep takes: where upkeep needs more than there is, closing
/// them would not end, and every read would open them again.
const TABLES_MIN: u64 = 8;
/// The part of the budget that may lie idle even if the rest is in use.
const IDLE_MIN: u64 = 16;

/// A database's memory, and who gets how much of it.
#[derive(Debug)]
pub struct Budget {
    /// Who holds how many bytes.
    pub ledger: Arc<Ledger>,
    /// The data blocks that are kept.
    pub cache: Arc<BlockCache>,
    /// What the cache may have at most.
    cache_size: u64,
    /// What it may have now.
    cache_charge: Mutex<Charge>,
    heap: Heap,
}

impl Budget {
    /// `bytes`, of which the cache gets `cache_size` at most.
    #[must_use]
    pub fn new(bytes: u64, cache_size: u64, heap: Heap) -> Arc<Self> {
        let ledger = Ledger::new(bytes);
        let cache_charge = Mutex::new(ledger.empty_charge(Account::Cache));
        let budget = Self { ledger, cache: BlockCache::new(0), cache_size, cache_charge, heap };
        budget.fit_cache();
        Arc::new(budget)
    }

    /// Has the cache take what memtables' share, tables and upkeep leave to it now.
    pub fn fit_cache(&self) {
        let ledger = &self.ledger;
        // Who comes last has seen what all others did to the accounts.
        let mut charge = self.cache_charge.lock();
        let others = ledger.held(Account::Tables) + ledger.held(Account::Upkeep);
        let left = ledger.budget() - ledger.memtable_share();
        let least = ledger.budget() / CACHE_MIN;
        let capacity = left.saturating_sub(others).max(least).min(self.cache_size);
        let before = charge.bytes();
        if capacity < before {
            self.cache.set_capacity(capacity);
            charge.shrink(before - capacity);
        } else if capacity > before {
            charge.grow_unchecked(capacity - before);
            self.cache.set_capacity(capacity);
        }
    }

    /// Whether tables take more than upkeep leaves them beside what the cache must keep.
    #[must_use]
    pub fn is_short(&self) -> bool {
        let ledger = &self.ledger;
        let left = ledger.budget() - ledger.memtable_share() - ledger.budget() / CACHE_MIN;
        let left = left.saturating_sub(ledger.held(Account::Upkeep));
        ledger.held(Account::Tables) > left.max(ledger.budget() / TABLES_MIN)
    }

    /// Bytes that are in use, the cache counted by its blocks.
    #[must_use]
    pub fn used(&self) -> u64 {
        let held = |account| self.ledger.held(account);
        let others = [Account::Memtables, Account::Tables, Account::Upkeep];
        others.into_iter().map(held).sum::<u64>() + self.cache.bytes()
    }

    /// Has the cache take what was freed, and the system what lies idle if it may be much. Whoever has freed memory
    /// calls this.
    pub fn give_back(&self) {
        self.fit_cache();
        let budget = self.ledger.budget();
        let room = budget.saturating_sub(self.used());
        if self.ledger.take_idle(room.max(budget / IDLE_MIN)) {
            self.heap.give_back();
        }
    }
}
