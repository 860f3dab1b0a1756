//! A memtable of one's own: `time_log`, for keys that begin with a time and arrive nearly in order, as events
//! and measurements do.
//!
//! Blocks of 64 slots, a slot the first eight bytes of a key beside its record. What is newest goes behind the
//! last slot after one comparison, and a full last block stays full instead of being split; what is late goes
//! where it belongs. A search compares times in the blocks and reads a record only where two times are equal.
//!
//! `cargo run -p memtide --example own_memtable`; `crates/memtide/tests/it/own_memtable.rs` holds it to every law
//! of the eight.
#![allow(clippy::print_stdout, reason = "a program")]

use std::ops::Bound;

use memtide::{CustomIndex, Db, IndexHints, MemtableChoice, MemtableFactory, MemtableType};
use memtide::{RecordRef, Records, Registry};

const BLOCK: usize = 64;
const SLOT_BYTES: u64 = size_of::<Slot>() as u64;
const BLOCK_BYTES: u64 = size_of::<Vec<Slot>>() as u64;

struct Slot {
    time: u64,
    record: RecordRef,
}

/// Blocks in order, none empty, each with room for `BLOCK` slots from the first on.
#[derive(Default)]
struct TimeLog {
    blocks: Vec<Vec<Slot>>,
}

fn time_of(key: &[u8]) -> u64 {
    let mut time = [0; 8];
    time.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    u64::from_be_bytes(time)
}

impl TimeLog {
    /// Block and slot of the first slot behind a key, or of the key itself if it is there and not to be `passed`.
    /// It may lie one behind the last slot of its block.
    fn place(&self, records: &Records<'_>, key: &[u8], passed: bool) -> (usize, usize) {
        let time = time_of(key);
        let is_before = |slot: &Slot| {
            let order = slot.time.cmp(&time).then_with(|| records.key(slot.record).cmp(key));
            order.is_lt() || passed && order.is_eq()
        };
        match self.blocks.split_last() {
            Some((last, older)) if last.last().is_some_and(is_before) => (older.len(), last.len()),
            _ => {
                let behind = self.blocks.partition_point(|block| is_before(&block[0]));
                let block = behind.saturating_sub(1);
                (block, self.blocks.get(block).map_or(0, |slots| slots.partition_point(is_before)))
            }
        }
    }
}

impl CustomIndex for TimeLog {
    fn insert(&mut self, records: &Records<'_>, new: RecordRef, _hash: u64) {
        let key = records.key(new);
        let slot = Slot { time: time_of(key), record: new };
        let (block, at) = self.place(records, key, false);
        let is_last = block + 1 >= self.blocks.len();
        let fresh = || Vec::with_capacity(BLOCK);
        match self.blocks.get_mut(block) {
            Some(slots) if slots.len() < BLOCK => slots.insert(at, slot),
            Some(slots) if !is_last || at < BLOCK => {
                let mut upper = fresh();
                upper.extend(slots.drain(BLOCK / 2..));
                match at.checked_sub(BLOCK / 2) {
                    Some(at) => upper.insert(at, slot),
                    None => slots.insert(at, slot),
                }
                self.blocks.insert(block + 1, upper);
            }
            _ => {
                let mut slots = fresh();
                slots.push(slot);
                self.blocks.push(slots);
            }
        }
    }

    fn first_from(&self, records: &Records<'_>, from: Bound<&[u8]>) -> Option<RecordRef> {
        let (block, at) = match from {
            Bound::Unbounded => (0, 0),
            Bound::Included(key) => self.place(records, key, false),
            Bound::Excluded(key) => self.place(records, key, true),
        };
        let here = self.blocks.get(block)?.get(at);
        here.or_else(|| self.blocks.get(block + 1)?.first()).map(|slot| slot.record)
    }

    fn last_to(&self, records: &Records<'_>, to: Bound<&[u8]>) -> Option<RecordRef> {
        let (block, end) = match to {
            Bound::Unbounded => return self.blocks.last()?.last().map(|slot| slot.record),
            Bound::Included(key) => self.place(records, key, true),
            Bound::Excluded(key) => self.place(records, key, false),
        };
        // Only the first block is ever chosen for what lies before its first slot.
        self.blocks.get(block)?.get(end.checked_sub(1)?).map(|slot| slot.record)
    }

    fn heap_bytes(&self) -> u64 {
        let blocks = self.blocks.len() * BLOCK;
        self.blocks.capacity() as u64 * BLOCK_BYTES + blocks as u64 * SLOT_BYTES
    }

    /// A block that is there may be split by its first key; after that, or for a new one, it takes 32.
    fn heap_bytes_after(&self, keys: u64) -> u64 {
        let blocks = self.blocks.len() as u64;
        let new = keys.min(blocks) + keys / 32 + 1;
        // The list of blocks doubles, and holds the old half until it is copied.
        let list = 3 * (self.blocks.capacity() as u64 + new + 4) * BLOCK_BYTES;
        list + (blocks + new) * BLOCK as u64 * SLOT_BYTES
    }
}

/// Makes them.
#[derive(Debug)]
pub struct TimeLogFactory;

impl MemtableFactory for TimeLogFactory {
    fn name(&self) -> &str {
        "time_log"
    }

    fn create(&self, _hints: &IndexHints) -> Box<dyn CustomIndex> {
        Box::new(TimeLog::default())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let mut registry = Registry::new();
    registry.register(TimeLogFactory)?;
    let db = Db::builder(dir.path()).registry(registry).memtable(MemtableType::Skiplist).open()?;
    let events = db.keyspace("events")?;
    events.set_memtable(MemtableChoice::named("time_log"))?; // stored: the next open needs the factory
    for tick in 0..10_000_u64 {
        let time = 1_700_000_000_000 + tick - tick % 7 * 3; // some come late
        let key = [time.to_be_bytes(), tick.to_be_bytes()].concat();
        events.put(key, format!("event {tick}"))?;
    }
    let later = events.range(1_700_000_005_000_u64.to_be_bytes()..).take(3);
    let times = later.map(|event| Ok(time_of(&event?.0))).collect::<memtide::Result<Vec<u64>>>()?;
    println!("{}: the first times from the middle on are {times:?}", events.memtable_type());
    Ok(db.close()?)
}
