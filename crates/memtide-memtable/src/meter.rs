//! Heap bytes of a memtable outside its arena, counted for exactly as long as they are held.

use memtide_base::ledger::Charge;
use memtide_base::sync::atomic::{AtomicU64, Ordering};
use memtide_base::sync::{Arc, Mutex};

/// Counts the heap bytes of one memtable and charges them to the ledger.
#[derive(Debug)]
pub(crate) struct HeapMeter {
    bytes: AtomicU64,
    charge: Mutex<Charge>,
}

impl HeapMeter {
    /// A meter at zero that charges to an empty `charge`.
    pub(crate) fn new(charge: Charge) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicU64::new(0), charge: Mutex::new(charge) })
    }

    /// Bytes held now.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// As [`HeapMeter::hold`], unless the budget refuses.
    pub(crate) fn try_hold(self: &Arc<Self>, bytes: u64) -> Option<Metered> {
        if !self.charge.lock().try_grow(bytes) {
            return None;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Some(Metered { meter: Arc::clone(self), bytes })
    }

    /// Counts `bytes` until the result is dropped.
    pub(crate) fn hold(self: &Arc<Self>, bytes: u64) -> Metered {
        self.charge.lock().grow_unchecked(bytes);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Metered { meter: Arc::clone(self), bytes }
    }
}

/// Heap bytes that are held.
#[derive(Debug)]
pub(crate) struct Metered {
    meter: Arc<HeapMeter>,
    bytes: u64,
}

impl Metered {
    /// How many.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.meter.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.meter.charge.lock().shrink(self.bytes);
    }
}
