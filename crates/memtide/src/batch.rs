//! Writes that take effect together, and the single write, which is not made a batch as long as nobody else
//! writes.
//!
//! A batch *is* the payload of its log record: each operation is encoded once, when it is added. What is
//! wrong with an operation is remembered and reported when the batch is written, before anything happens. A single
//! write is encoded straight into the log.

use memtide_base::sync::Arc;
use memtide_base::{Error, Kind, Result, key};
use memtide_storage::log::{BatchOp, BatchOps};

use crate::keyspace_state::KeyspaceState;
use crate::range::HalfOpen;

/// Range deletes of one batch: a memtable lists them under each other, so their cost is the square.
pub(crate) const BATCH_RANGE_DELETES_MAX: usize = 1024;
/// Largest batch in bytes: the largest value with its key, and a little more.
pub(crate) const BATCH_BYTES_MAX: usize = (1 << 30) + (1 << 20);

/// What a commit writes as a whole.
pub(crate) trait Writes {
    /// The keyspaces that its operations name, each once.
    fn keyspaces(&self) -> &[Arc<KeyspaceState>];

    /// Operations of keyspaces with a log if `logged`, else of those without.
    fn count(&self, logged: bool) -> u32;

    /// These operations, in order.
    fn ops(&self, logged: bool) -> impl Iterator<Item = BatchOp<'_>> + Clone;

    /// Bytes of all operations, encoded.
    fn bytes(&self) -> usize;

    /// Bytes of the logged operations, encoded.
    fn logged_len(&self) -> usize;

    /// Appends the logged operations, encoded.
    fn encode_logged(&self, out: &mut Vec<u8>);

    /// The same, to be handed to another writer.
    fn into_batch(self) -> BatchBody;
}

/// One operation, not copied yet.
#[derive(Debug)]
pub(crate) struct Single<'w> {
    keyspace: &'w Arc<KeyspaceState>,
    op: BatchOp<'w>,
}

impl<'w> Single<'w> {
    /// # Errors
    /// A key or value is above its limit.
    pub(crate) fn new(
        keyspace: &'w Arc<KeyspaceState>,
        kind: Kind,
        key: &'w [u8],
        value: &'w [u8],
    ) -> Result<Self> {
        check_op(kind, key, value)?;
        Ok(Self { keyspace, op: BatchOp { kind, keyspace: keyspace.id, key, value } })
    }
}

impl Writes for Single<'_> {
    #[inline]
    fn keyspaces(&self) -> &[Arc<KeyspaceState>] {
        std::slice::from_ref(self.keyspace)
    }

    #[inline]
    fn count(&self, logged: bool) -> u32 {
        u32::from(self.keyspace.is_logged() == logged)
    }

    #[inline]
    fn ops(&self, logged: bool) -> impl Iterator<Item = BatchOp<'_>> + Clone {
        (self.keyspace.is_logged() == logged).then_some(self.op).into_iter()
    }

    #[inline]
    fn bytes(&self) -> usize {
        self.op.encoded_len()
    }

    #[inline]
    fn logged_len(&self) -> usize {
        if self.keyspace.is_logged() { self.op.encoded_len() } else { 0 }
    }

    #[inline]
    fn encode_logged(&self, out: &mut Vec<u8>) {
        if self.keyspace.is_logged() {
            self.op.encode(out);
        }
    }

    fn into_batch(self) -> BatchBody {
        let mut batch = BatchBody::default();
        batch.add(self.keyspace, self.op.kind, self.op.key, self.op.value);
        batch
    }
}

/// Operations of one kind of keyspace: logged or not.
#[derive(Debug, Default)]
struct Payload {
    bytes: Vec<u8>,
    count: u32,
}

/// The encoded operations of a batch and the keyspaces they name.
#[derive(Debug, Default)]
pub(crate) struct BatchBody {
    logged: Payload,
    unlogged: Payload,
    keyspaces: Vec<Arc<KeyspaceState>>,
    range_deletes: usize,
    refused: Option<Error>,
}

impl Writes for BatchBody {
    fn keyspaces(&self) -> &[Arc<KeyspaceState>] {
        &self.keyspaces
    }

    fn count(&self, logged: bool) -> u32 {
        self.payload(logged).count
    }

    fn ops(&self, logged: bool) -> impl Iterator<Item = BatchOp<'_>> + Clone {
        let Payload { bytes, count } = self.payload(logged);
        BatchOps::new(bytes, *count).map(|op| op.expect("a batch decodes what it encoded"))
    }

    fn bytes(&self) -> usize {
        self.logged.bytes.len() + self.unlogged.bytes.len()
    }

    fn logged_len(&self) -> usize {
        self.logged.bytes.len()
    }

    fn encode_logged(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.logged.bytes);
    }

    fn into_batch(self) -> BatchBody {
        self
    }
}

impl BatchBody {
    fn payload(&self, logged: bool) -> &Payload {
        if logged { &self.logged } else { &self.unlogged }
    }

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

    pub(crate) fn range_deletes(&self) -> usize {
        self.range_deletes
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
        BatchOp { kind, keyspace: keyspace.id, key, value }.encode(&mut payload.bytes);
        payload.count += 1;
        if self.bytes() > BATCH_BYTES_MAX {
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
