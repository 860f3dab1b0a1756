//! What a memtable is made from.

use memtide_base::ledger::Ledger;
use memtide_base::sync::Arc;

use crate::anchor::Anchor;
use crate::registry::MemtableKind;

/// What a memtable is made from.
#[derive(Clone, Debug)]
pub struct MemtableOptions {
    /// What orders the records.
    pub kind: MemtableKind,
    /// The most bytes that writes make the table reserve, its own struct and one sorted view included; see
    /// [`Memtable::bytes_max`](crate::Memtable::bytes_max).
    pub bytes_max: u64,
    /// Seed of the key hashes callers pass in; also seeds tower heights.
    pub hash_seed: u64,
    /// Whether a filter over the keys answers for most absent ones: worth a 128th of the limit where many
    /// reads look for what lies elsewhere. Variants that deny as cheaply have none.
    pub key_filter: bool,
    /// What most keys begin with, as the keyspace's last memtable learned it; see [`Memtable::learned_anchor`].
    ///
    /// [`Memtable::learned_anchor`]: crate::Memtable::learned_anchor
    pub anchor: Anchor,
    /// Who is asked before memory is allocated.
    pub ledger: Arc<Ledger>,
}
