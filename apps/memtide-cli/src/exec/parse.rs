//! A line of the protocol as a command. Takes any bytes; nothing is looked up or opened here.

use std::ops::Bound;

use memtide::{Error, MemtableType};

use crate::formats::hex;

/// Every command, for the message about an unknown one.
const COMMANDS: &str = "put, del, delrange, get, scan, begin, commit, snapshot, release, memtable, \
                        flush, compact, sync, checkpoint, resume, stats, health, close";

/// Both ends of a range of keys.
pub(crate) type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// What a line asks for; `keyspace` is the name as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Put { keyspace: String, key: Vec<u8>, value: Vec<u8> },
    Del { keyspace: String, key: Vec<u8> },
    DelRange { keyspace: String, bounds: Bounds },
    Get { keyspace: String, key: Vec<u8> },
    Scan { keyspace: String, bounds: Bounds, reverse: bool, limit: usize },
    Memtable { keyspace: String, kind: MemtableType },
    Begin,
    Commit,
    Snapshot,
    Release,
    Flush,
    Compact,
    Sync,
    Resume,
    Checkpoint { path: String },
    Stats,
    Health,
    Close,
}

/// Reads a line.
pub(crate) fn command(line: &[u8]) -> memtide::Result<Command> {
    let line = std::str::from_utf8(line).map_err(|_| {
        Error::invalid_argument("the line is not UTF-8; write bytes as hexadecimal")
    })?;
    let mut words = Words(line.split_ascii_whitespace());
    let name = words.0.next().ok_or_else(|| Error::invalid_argument("the line is empty"))?;
    let command = named(name, &mut words)?;
    match words.0.next() {
        None => Ok(command),
        Some(word) => {
            Err(Error::invalid_argument(format!("{name} takes no further word {:?}", short(word))))
        }
    }
}

fn named(name: &str, words: &mut Words<'_>) -> memtide::Result<Command> {
    Ok(match name {
        "put" => Command::Put {
            keyspace: words.keyspace()?,
            key: words.bytes("key")?,
            value: words.bytes("value")?,
        },
        "del" => Command::Del { keyspace: words.keyspace()?, key: words.bytes("key")? },
        "delrange" => Command::DelRange { keyspace: words.keyspace()?, bounds: words.bounds()? },
        "get" => Command::Get { keyspace: words.keyspace()?, key: words.bytes("key")? },
        "scan" => scan(words)?,
        "memtable" => {
            let keyspace = words.keyspace()?;
            let kind = words.next("type")?.parse::<MemtableType>();
            let kind = kind.map_err(|error| Error::invalid_argument(error.to_string()))?;
            Command::Memtable { keyspace, kind }
        }
        "begin" => Command::Begin,
        "commit" => Command::Commit,
        "snapshot" => Command::Snapshot,
        "release" => Command::Release,
        "flush" => Command::Flush,
        "compact" => Command::Compact,
        "sync" => Command::Sync,
        "checkpoint" => Command::Checkpoint { path: words.next("path")?.to_owned() },
        "stats" => Command::Stats,
        "health" => Command::Health,
        "close" => Command::Close,
        "resume" => Command::Resume,
        _ => {
            let message = format!("unknown command {:?}", short(name));
            return Err(Error::invalid_argument(message).with_hint(format!("known: {COMMANDS}")));
        }
    })
}

fn scan(words: &mut Words<'_>) -> memtide::Result<Command> {
    let (keyspace, bounds) = (words.keyspace()?, words.bounds()?);
    let (mut reverse, mut limit) = (false, usize::MAX);
    while let Some(word) = words.0.next() {
        match word {
            "rev" => reverse = true,
            "limit" => {
                let number = words.next("limit")?;
                limit = number.parse().map_err(|_| {
                    Error::invalid_argument(format!("limit {:?} is no number", short(number)))
                })?;
            }
            _ => {
                let message = format!("scan takes \"rev\" and \"limit N\", not {:?}", short(word));
                return Err(Error::invalid_argument(message));
            }
        }
    }
    Ok(Command::Scan { keyspace, bounds, reverse, limit })
}

/// The words behind the command's name.
struct Words<'l>(std::str::SplitAsciiWhitespace<'l>);

impl<'l> Words<'l> {
    fn next(&mut self, what: &str) -> memtide::Result<&'l str> {
        self.0.next().ok_or_else(|| Error::invalid_argument(format!("the {what} is missing")))
    }

    fn keyspace(&mut self) -> memtide::Result<String> {
        self.next("keyspace").map(str::to_owned)
    }

    fn bytes(&mut self, what: &str) -> memtide::Result<Vec<u8>> {
        let word = self.next(what)?;
        if word == "." {
            return Ok(Vec::new());
        }
        hex::decode(word.as_bytes()).ok_or_else(|| {
            let message = format!("the {what} {:?} is neither hexadecimal nor \".\"", short(word));
            Error::invalid_argument(message)
        })
    }

    fn bounds(&mut self) -> memtide::Result<Bounds> {
        let mut end = |what, closed: fn(Vec<u8>) -> Bound<Vec<u8>>| {
            if self.0.clone().next() == Some("-") {
                self.0.next();
                return Ok(Bound::Unbounded);
            }
            self.bytes(what).map(closed)
        };
        Ok((end("start", Bound::Included)?, end("end", Bound::Excluded)?))
    }
}

/// A word as it may stand in a message.
fn short(word: &str) -> String {
    word.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_is_read_with_its_arguments() {
        let d = || "d".to_owned();
        let all = (Bound::Unbounded, Bound::Unbounded);
        let part = (Bound::Included(vec![]), Bound::Excluded(vec![0xFF]));
        for (line, want) in [
            ("put d 6b .", Command::Put { keyspace: d(), key: vec![0x6b], value: vec![] }),
            ("  get   d  . ", Command::Get { keyspace: d(), key: vec![] }),
            ("del d FF", Command::Del { keyspace: d(), key: vec![255] }),
            ("delrange d . ff", Command::DelRange { keyspace: d(), bounds: part.clone() }),
            (
                "scan d - - limit 3 rev",
                Command::Scan { keyspace: d(), bounds: all, reverse: true, limit: 3 },
            ),
            (
                "scan d . ff",
                Command::Scan { keyspace: d(), bounds: part, reverse: false, limit: usize::MAX },
            ),
            ("memtable d trie", Command::Memtable { keyspace: d(), kind: MemtableType::Trie }),
            ("resume", Command::Resume),
            ("checkpoint a/b", Command::Checkpoint { path: "a/b".to_owned() }),
            ("close", Command::Close),
        ] {
            assert_eq!(command(line.as_bytes()).expect(line), want, "{line}");
        }
    }

    #[test]
    fn a_line_that_is_no_command_says_why() {
        for (line, code, why) in [
            ("", "INVALID", "the line is empty"),
            ("pot d 00 00", "INVALID", "unknown command \"pot\"; known: put,"),
            ("put d 00", "INVALID", "the value is missing"),
            ("put d 0 00", "INVALID", "the key \"0\" is neither"),
            ("get d - ", "INVALID", "the key \"-\" is neither"),
            ("get d 00 00", "INVALID", "get takes no further word \"00\""),
            ("scan d - - backwards", "INVALID", "scan takes \"rev\""),
            ("scan d - - limit -1", "INVALID", "limit \"-1\" is no number"),
            ("memtable d skiplists", "INVALID", "did you mean \"skiplist\"?"),
        ] {
            let error = command(line.as_bytes()).expect_err(line);
            assert_eq!(error.kind().code(), code, "{line}");
            assert!(error.to_string().contains(why), "{error}");
        }
        assert!(command(b"get d \xff").is_err());
    }
}
