//! Writes that take effect together.
//!
//! A batch *is* the payload of its log record: each operation is encoded once, when it is added. What is
//! wrong with an operation is remembered and reported when the batch is written, before anything happens.

use memtide_base::sync::Arc;
use memtide_base::{Error, Kind, Result, key};
use memtide_storage::log::{BatchOps, encode_op};

use crate::keyspace_state::KeyspaceState;
use crate::range::HalfOpen;

/// Range deletes of one batch: a memtable lists them under each other, so their cost is the square.
const BATCH_RANGE_DELETES_MAX: usize = 1024;
/// Largest batch in bytes.
pub(crate) const BATCH_BYTES_MAX: usize = 1 << 30;

/// Bytes in front of the key and value of an encoded operation: a kind and three varints of 32 bits.
const OP_HEADER_BYTES_MAX: usize = 1 + 3 * 5;

/// Operations of one kind of keyspace: logged or not.
#[derive(Debug, Default)]
pub(crate) struct Payload {
    pub(crate) bytes: Vec<u8>,
    pub(crate) count: u32,
}

impl Payload {
    /// The operations, as recovery would read them.
    pub(crate) fn ops(&self) -> BatchOps<'_> {
        BatchOps::new(&self.bytes, self.count)
    }
}

/// The encoded operations of a batch and the keyspaces they name.
#[derive(Debug, Default)]
pub(crate) struct BatchBody {
    pub(crate) logged: Payload,
    pub(crate) unlogged: Payload,
    pub(crate) keyspaces: Vec<Arc<KeyspaceState>>,
    range_deletes: usize,
    refused: Option<Error>,
}

impl BatchBody {
    pub(crate) fn put(&mut self, keyspace: &Arc<KeyspaceState>, key: &[u8], value: &[u8]) {
        self.add(keyspace, Kind::Put, key, value);
    }

    pub(crate) fn delete(&mut self, keyspace: &Arc<KeyspaceState>, key: &[u8]) {
        self.add(keyspace, Kind::Delete, key, &[]);
    }

    /// An empty range adds nothing.
    pub(crate) fn delete_range(&mut self, keyspace: &Arc<KeyspaceState>, range: &HalfOpen) {
        if !range.is_empty() {
            let end = range.end.as_deref().unwrap_or_default();
            self.add(keyspace, Kind::RangeDelete, &range.start, end);
        }
    }

    /// Operations in the batch.
    pub(crate) fn len(&self) -> usize {
        self.logged.count as usize + self.unlogged.count as usize
    }

    /// Says what is wrong with any of its operations.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.refused.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Refuses the whole batch when it is written.
    pub(crate) fn refuse(&mut self, error: Error) {
        self.refused.get_or_insert(error);
    }

    fn add(&mut self, keyspace: &Arc<KeyspaceState>, kind: Kind, key: &[u8], value: &[u8]) {
        if self.refused.is_some() {
            return;
        }
        if let Err(error) = check_op(kind, key, value) {
            return self.refuse(error);
        }
        self.range_deletes += usize::from(kind == Kind::RangeDelete);
        if self.range_deletes > BATCH_RANGE_DELETES_MAX {
            return self.refuse(
                Error::invalid_argument(format!(
                    "a batch of more than {BATCH_RANGE_DELETES_MAX} range deletes"
                ))
                .with_hint("write it in parts"),
            );
        }
        if !self.keyspaces.iter().any(|known| Arc::ptr_eq(known, keyspace)) {
            self.keyspaces.push(Arc::clone(keyspace));
        }
        let logged = keyspace.is_logged();
        let payload = if logged { &mut self.logged } else { &mut self.unlogged };
        if payload.count == 0 {
            // A single write is the usual batch, and then this is its one allocation.
            payload.bytes.reserve(OP_HEADER_BYTES_MAX + key.len() + value.len());
        }
        encode_op(&mut payload.bytes, kind, keyspace.id, key, value);
        payload.count += 1;
        if self.logged.bytes.len() + self.unlogged.bytes.len() > BATCH_BYTES_MAX {
            self.refuse(
                Error::invalid_argument(format!("a batch above {BATCH_BYTES_MAX} B"))
                    .with_hint("write it in parts"),
            );
        }
    }
}

fn check_op(kind: Kind, key: &[u8], value: &[u8]) -> Result<()> {
    let too_long = |what: &str, len: usize, max: usize| {
        Err(Error::invalid_argument(format!("a {what} of {len} B is above the limit of {max} B")))
    };
    if kind == Kind::RangeDelete {
        if key.len() > key::KEY_LEN_MAX {
            return too_long("range start", key.len(), key::KEY_LEN_MAX);
        }
        if value.len() > key::RANGE_END_LEN_MAX {
            return too_long("range end", value.len(), key::RANGE_END_LEN_MAX);
        }
        return Ok(());
    }
    if key.len() > key::KEY_LEN_MAX {
        return too_long("key", key.len(), key::KEY_LEN_MAX);
    }
    if value.len() > key::VALUE_LEN_MAX {
        return too_long("value", value.len(), key::VALUE_LEN_MAX);
    }
    Ok(())
}
