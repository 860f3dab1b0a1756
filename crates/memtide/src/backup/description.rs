//! What says that a backup is there and complete: a few lines of text, written last.
//!
//! ```text
//! memtide backup 1
//! id 0000000000000003
//! database 5f0c…                                     uuid, 32 hexadecimal digits
//! created_ms 1767225600000
//! manifest 4321 d1c2…                                bytes, XXH3-128
//! log 0000000000001000 8192 77aa…                    base, bytes, XXH3-128; one line each, by rising base
//! shared 12 1234567                                  tables and blob files that the manifest names, their bytes
//! copied 34567                                       bytes of them that no earlier backup had
//! xxh3 0123456789abcdef                              of all lines before
//! ```

use std::fmt::Write as _;
use std::path::Path;
use std::str::{FromStr, SplitAsciiWhitespace};

use memtide_base::checksum::xxh3_64;
use memtide_base::{Error, ErrorKind, Result};

const FORMAT: &str = "memtide backup 1";
/// Bytes of a description at most: ten thousand segments.
pub(super) const LEN_MAX: usize = 1 << 20;

/// A file with a length and a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) bytes: u64,
    pub(super) checksum: u128,
}

/// One backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) id: u64,
    pub(super) database: [u8; 16],
    pub(super) created_ms: u64,
    pub(super) manifest: Stored,
    /// Base and file of each segment.
    pub(super) log: Vec<(u64, Stored)>,
    pub(super) shared_files: u64,
    pub(super) shared_bytes: u64,
    pub(super) copied_bytes: u64,
}

impl Description {
    /// # Errors
    /// It would be longer than what is read back.
    pub(super) fn encode(&self) -> Result<String> {
        let mut text = format!("{FORMAT}\nid {:016x}\n", self.id);
        let database = u128::from_be_bytes(self.database);
        let Stored { bytes, checksum } = self.manifest;
        let mut line = |line: std::fmt::Arguments<'_>| {
            text.write_fmt(line).expect("text takes everything");
            text.push('\n');
        };
        line(format_args!("database {database:032x}"));
        line(format_args!("created_ms {}", self.created_ms));
        line(format_args!("manifest {bytes} {checksum:032x}"));
        for (base, Stored { bytes, checksum }) in &self.log {
            line(format_args!("log {base:016x} {bytes} {checksum:032x}"));
        }
        line(format_args!("shared {} {}", self.shared_files, self.shared_bytes));
        line(format_args!("copied {}", self.copied_bytes));
        let checksum = xxh3_64(0, text.as_bytes());
        text.push_str(&format!("xxh3 {checksum:016x}\n"));
        if text.len() > LEN_MAX {
            return Err(Error::new(ErrorKind::Unsupported, "the log has too many segments")
                .with_hint("flush, and try again"));
        }
        Ok(text)
    }

    /// Reads one, called `name` in errors.
    ///
    /// # Errors
    /// Corruption; `Unsupported` for a newer format.
    pub(super) fn decode(text: &[u8], id: u64, name: &Path) -> Result<Self> {
        let damaged = |detail: &str| Error::corruption("description of a backup", name, 0, detail);
        let text = str::from_utf8(text).map_err(|_| damaged("it is not text"))?;
        // The last line is the same in all formats, so that damage is told from a newer one.
        let end = text.rfind("xxh3 ").ok_or_else(|| damaged("its checksum is missing"))?;
        let (lines, last) = text.split_at(end);
        if last != format!("xxh3 {:016x}\n", xxh3_64(0, lines.as_bytes())) {
            return Err(damaged("its checksum does not match"));
        }
        let mut lines = Lines(lines.lines().peekable());
        if lines.0.next() != Some(FORMAT) {
            let what = "the backup has a newer format than this version";
            return Err(Error::new(ErrorKind::Unsupported, what)
                .with_file(name)
                .with_hint("use a newer memtide"));
        }
        let read = read(&mut lines).ok_or_else(|| damaged("a line is not what it must be"))?;
        if read.id != id {
            return Err(damaged("it is that of another backup"));
        }
        if !read.log.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(damaged("its log is not in order"));
        }
        Ok(read)
    }
}

fn read(lines: &mut Lines<'_>) -> Option<Description> {
    let id = hex(&mut lines.words("id")?)?;
    let database = digits(&mut lines.words("database")?)?.to_be_bytes();
    let created_ms = number(&mut lines.words("created_ms")?)?;
    let manifest = stored(&mut lines.words("manifest")?)?;
    let mut log = Vec::new();
    while let Some(mut words) = lines.words("log") {
        log.push((hex(&mut words)?, stored(&mut words)?));
    }
    let mut shared = lines.words("shared")?;
    let (shared_files, shared_bytes) = (number(&mut shared)?, number(&mut shared)?);
    let copied_bytes = number(&mut lines.words("copied")?)?;
    let is_end = lines.0.next().is_none();
    is_end.then_some(Description {
        id,
        database,
        created_ms,
        manifest,
        log,
        shared_files,
        shared_bytes,
        copied_bytes,
    })
}

struct Lines<'t>(std::iter::Peekable<std::str::Lines<'t>>);

impl<'t> Lines<'t> {
    /// The words behind `name`, if the next line begins so.
    fn words(&mut self, name: &str) -> Option<SplitAsciiWhitespace<'t>> {
        let rest = self.0.peek()?.strip_prefix(name)?.strip_prefix(' ')?;
        self.0.next();
        Some(rest.split_ascii_whitespace())
    }
}

type Words<'t> = SplitAsciiWhitespace<'t>;

fn stored(words: &mut Words<'_>) -> Option<Stored> {
    Some(Stored { bytes: number(words)?, checksum: digits(words)? })
}

fn number(words: &mut Words<'_>) -> Option<u64> {
    u64::from_str(words.next()?).ok()
}

fn hex(words: &mut Words<'_>) -> Option<u64> {
    u64::from_str_radix(words.next()?, 16).ok().filter(|&number| number < 1 << 63)
}

fn digits(words: &mut Words<'_>) -> Option<u128> {
    u128::from_str_radix(words.next()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Description {
        let stored = |bytes| Stored { bytes, checksum: u128::MAX / 3 + u128::from(bytes) };
        Description {
            id: 0x2a,
            database: [7; 16],
            created_ms: 1_767_225_600_000,
            manifest: stored(4321),
            log: vec![(4096, stored(1)), (1 << 40, stored(2))],
            shared_files: 3,
            shared_bytes: 12_345,
            copied_bytes: 67,
        }
    }

    #[test]
    fn what_is_written_is_read_and_every_changed_byte_is_noticed() {
        let text = one().encode().unwrap();
        let name = Path::new("backup/x");
        assert_eq!(Description::decode(text.as_bytes(), 0x2a, name).unwrap(), one());
        assert!(Description::decode(text.as_bytes(), 0x2b, name).unwrap_err().is_corruption());
        for at in 0..text.len() {
            for with in [b'0', b'\n', 0xff] {
                let mut changed = text.clone().into_bytes();
                if changed[at] != with {
                    changed[at] = with;
                    assert!(Description::decode(&changed, 0x2a, name).is_err(), "byte {at}");
                }
            }
            assert!(Description::decode(&text.as_bytes()[..at], 0x2a, name).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn lines_with_a_right_checksum_and_wrong_contents_are_refused() {
        let text = one().encode().unwrap();
        for (from, to) in [
            ("id 000000000000002a", "id 800000000000002a"),
            ("manifest 4321", "manifest -1"),
            ("log 0000000000001000 1", "log ../../etc/passwd 1"),
            ("log 0000000000001000 1", "log 7000000000000000 1"),
            ("copied 67", "copied 99999999999999999999999"),
            ("copied 67", "copied 67\ncopied 67"),
        ] {
            let lines = text[..text.rfind("xxh3 ").unwrap()].replace(from, to);
            assert!(!text.starts_with(&lines), "{from}");
            let text = format!("{lines}xxh3 {:016x}\n", xxh3_64(0, lines.as_bytes()));
            let error = Description::decode(text.as_bytes(), 0x2a, Path::new("x")).unwrap_err();
            assert!(error.is_corruption(), "{to}: {error}");
        }
    }
}
