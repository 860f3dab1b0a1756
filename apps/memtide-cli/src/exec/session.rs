//! The state of one `exec`: the open database, the batch and the snapshot in hand.

use memtide::{Batch, Db, Error, ErrorKind, Iter, Keyspace, SeqNo, Snapshot};

use crate::formats::{hex, stats};

use super::parse::{Bounds, Command};

/// Bytes of an answer at most: it is put together before it is handed out, so that it is all rows or an
/// error and never half of each.
const ANSWER_LEN_MAX: usize = 256 << 20;

/// The default keyspace's name in the protocol.
const DEFAULT: &str = "d";

/// What commands work on.
pub(crate) struct Session {
    db: Db,
    read_only: bool,
    batch: Option<Batch>,
    snapshot: Option<Snapshot>,
}

impl Session {
    /// A session on an open database.
    pub(crate) fn new(db: Db, read_only: bool) -> Self {
        Self { db, read_only, batch: None, snapshot: None }
    }

    /// Does what `command` asks; the answer is one line.
    pub(crate) fn answer(&mut self, command: Command) -> memtide::Result<String> {
        match command {
            Command::Put { keyspace, key, value } => {
                self.write(&keyspace, |batch, keyspace| batch.put(keyspace, key, value))
            }
            Command::Del { keyspace, key } => {
                self.write(&keyspace, |batch, keyspace| batch.delete(keyspace, key))
            }
            Command::DelRange { keyspace, bounds } => {
                self.write(&keyspace, |batch, keyspace| batch.delete_range(keyspace, bounds))
            }
            Command::Get { keyspace, key } => self.read(&keyspace, &key),
            Command::Scan { keyspace, bounds, reverse, limit } => {
                let iter = self.range(&keyspace, bounds)?;
                if reverse { rows(iter.rev().take(limit)) } else { rows(iter.take(limit)) }
            }
            Command::Begin => self.begin(),
            Command::Commit => self.commit(),
            Command::Snapshot => self.hold(),
            Command::Release => self.release(),
            Command::Memtable { keyspace, kind } => {
                self.check_writable()?;
                self.keyspace(&keyspace)?.set_memtable(kind)?;
                Ok(self.done())
            }
            Command::Flush => self.upkeep(Db::flush),
            Command::Compact => self.upkeep(Db::compact),
            Command::Sync => self.upkeep(Db::sync),
            Command::Resume => self.upkeep(Db::resume),
            Command::Checkpoint { path } => {
                self.db.checkpoint(path)?;
                Ok(self.done())
            }
            Command::Stats => Ok(format!("ok {}", stats::json(&self.db.stats()))),
            Command::Health => Ok(format!("ok {}", stats::health(&self.db.health()))),
            Command::Close => {
                Err(Error::internal("close ends the session, it is no command in it"))
            }
        }
    }

    /// Closes the database. Everything logged is durable then.
    pub(crate) fn close(self) -> memtide::Result<String> {
        let Self { db, read_only, batch, snapshot } = self;
        drop((batch, snapshot));
        let visible = db.snapshot().seqno();
        let durable = if read_only { db.durable_seq() } else { visible };
        db.close()?;
        Ok(acknowledged(visible, durable))
    }

    fn begin(&mut self) -> memtide::Result<String> {
        self.check_writable()?;
        if self.batch.is_some() {
            return Err(Error::invalid_argument("a batch is open already; commit it first"));
        }
        self.batch = Some(self.db.batch());
        Ok("ok".to_owned())
    }

    fn commit(&mut self) -> memtide::Result<String> {
        self.check_writable()?;
        match self.batch.take() {
            None => Err(Error::invalid_argument("no batch is open; begin one first")),
            Some(batch) if batch.is_empty() => Ok(self.done()),
            Some(batch) => self.apply(batch),
        }
    }

    fn hold(&mut self) -> memtide::Result<String> {
        if self.snapshot.is_some() {
            return Err(Error::invalid_argument("a snapshot is held already; release it first"));
        }
        let snapshot = self.db.snapshot();
        let seq = snapshot.seqno();
        self.snapshot = Some(snapshot);
        Ok(acknowledged(seq, self.db.durable_seq()))
    }

    fn release(&mut self) -> memtide::Result<String> {
        match self.snapshot.take() {
            None => Err(Error::invalid_argument("no snapshot is held")),
            Some(_) => Ok(self.done()),
        }
    }

    fn upkeep(&self, work: impl Fn(&Db) -> memtide::Result<()>) -> memtide::Result<String> {
        self.check_writable()?;
        work(&self.db)?;
        Ok(self.done())
    }

    fn write(
        &mut self,
        keyspace: &str,
        change: impl FnOnce(&mut Batch, &Keyspace),
    ) -> memtide::Result<String> {
        self.check_writable()?;
        let keyspace = self.keyspace(keyspace)?;
        if let Some(batch) = &mut self.batch {
            change(batch, &keyspace);
            return Ok("ok".to_owned());
        }
        let mut batch = self.db.batch();
        change(&mut batch, &keyspace);
        self.apply(batch)
    }

    fn apply(&self, batch: Batch) -> memtide::Result<String> {
        let seq = self.db.write(batch)?.seqno();
        Ok(acknowledged(seq, self.db.durable_seq()))
    }

    fn read(&self, keyspace: &str, key: &[u8]) -> memtide::Result<String> {
        let keyspace = self.keyspace(keyspace)?;
        let value = match &self.snapshot {
            Some(snapshot) => snapshot.get(&keyspace, key)?,
            None => keyspace.get(key)?,
        };
        let Some(value) = value else { return Ok("nil".to_owned()) };
        let mut answer = "val ".to_owned();
        spell(&value, &mut answer);
        Ok(answer)
    }

    fn range(&self, keyspace: &str, bounds: Bounds) -> memtide::Result<Iter> {
        let keyspace = self.keyspace(keyspace)?;
        Ok(match &self.snapshot {
            Some(snapshot) => snapshot.range(&keyspace, bounds),
            None => keyspace.range(bounds),
        })
    }

    /// The keyspace of that name; made if it may be.
    fn keyspace(&self, name: &str) -> memtide::Result<Keyspace> {
        if name == DEFAULT {
            return Ok(self.db.default_keyspace());
        }
        if !self.read_only {
            return self.db.keyspace(name);
        }
        self.db.get_keyspace(name).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("there is no keyspace {name:?}"))
                .with_hint("a database that is open read-only gets no new ones")
        })
    }

    fn check_writable(&self) -> memtide::Result<()> {
        if self.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "the database is open read-only"));
        }
        Ok(())
    }

    /// The answer of a command that wrote no entry.
    fn done(&self) -> String {
        acknowledged(self.db.snapshot().seqno(), self.db.durable_seq())
    }
}

fn acknowledged(seq: SeqNo, durable: SeqNo) -> String {
    format!("ok seq={seq} durable={durable}")
}

fn rows(
    rows: impl Iterator<Item = memtide::Result<(memtide::Slice, memtide::Slice)>>,
) -> memtide::Result<String> {
    let mut answer = "rows".to_owned();
    for row in rows {
        let (key, value) = row?;
        answer.push(' ');
        spell(&key, &mut answer);
        answer.push('=');
        spell(&value, &mut answer);
        if answer.len() > ANSWER_LEN_MAX {
            let message = format!("the rows need more than {ANSWER_LEN_MAX} B");
            return Err(Error::invalid_argument(message).with_hint("use \"limit N\""));
        }
    }
    Ok(answer)
}

/// Appends bytes as the protocol writes them.
fn spell(bytes: &[u8], answer: &mut String) {
    if bytes.is_empty() {
        answer.push('.');
    } else {
        hex::encode(bytes, answer);
    }
}
