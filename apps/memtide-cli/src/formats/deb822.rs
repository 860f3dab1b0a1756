//! Stanzas of `Field: text` lines, as Debian writes its package lists.
//!
//! ```text
//! Package: bash              a stanza: fields up to an empty line
//! Description: GNU shell     a field: a name, a colon, text
//!  Bash is a shell.          a line that begins with a space goes on with the field above it
//! # a comment
//! ```
//!
//! A record's value is the stanza's text as it stands, without the newline at its end; its key is the text
//! of one field. Field names are compared without case. A stanza of comments alone is no record.

use std::io::BufRead;

use super::Record;
use super::lines::{LINE_LEN_MAX, LineReader};

/// Reads stanzas one at a time.
pub(crate) struct Stanzas<R> {
    lines: LineReader<R>,
    /// The field whose text is the key.
    field: String,
    stanza_len_max: usize,
}

/// Where a line stands in its stanza.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Nothing,
    KeyField,
    OtherField,
}

impl<R: BufRead> Stanzas<R> {
    /// Stanzas of `lines`, keyed by `field`.
    pub(crate) fn new(lines: LineReader<R>, field: &str) -> Self {
        Self { lines, field: field.to_owned(), stanza_len_max: LINE_LEN_MAX }
    }

    fn read(&mut self) -> memtide::Result<Option<Record>> {
        let mut record = Record { key: Vec::new(), value: Vec::new(), line: 0 };
        let (mut key, mut line) = (None, Vec::new());
        let mut within = Within::Nothing;
        while self.lines.next(&mut line)? {
            if line.trim_ascii().is_empty() {
                if within == Within::Nothing {
                    record.value.clear();
                    record.line = 0;
                    continue;
                }
                break;
            }
            if record.line == 0 {
                record.line = self.lines.line();
            } else {
                record.value.push(b'\n');
            }
            record.value.extend_from_slice(&line);
            if record.value.len() > self.stanza_len_max {
                let what = format!("the stanza is longer than {} B", self.stanza_len_max);
                return Err(self.lines.wrong(record.line, what));
            }
            within = self.field_of(&line, within, &mut key)?;
        }
        match (within, key) {
            (Within::Nothing, _) => Ok(None),
            (_, None) => {
                let what = format!("the stanza has no field {:?}", self.field);
                Err(self.lines.wrong(record.line, what))
            }
            (_, Some(key)) => Ok(Some(Record { key, ..record })),
        }
    }

    /// Which field `line` belongs to; takes the key from the field that has it.
    fn field_of(
        &self,
        line: &[u8],
        within: Within,
        key: &mut Option<Vec<u8>>,
    ) -> memtide::Result<Within> {
        let wrong = |what: &str| Err(self.lines.wrong(self.lines.line(), what));
        match line[0] {
            b'#' => return Ok(within),
            b' ' | b'\t' => {
                return match within {
                    Within::OtherField => Ok(within),
                    Within::KeyField => wrong("the field of the key has more than one line"),
                    Within::Nothing => wrong("a stanza cannot begin with a space"),
                };
            }
            _ => {}
        }
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            return wrong("neither \"Field: text\" nor a line that begins with a space");
        };
        if !line[..colon].eq_ignore_ascii_case(self.field.as_bytes()) {
            return Ok(Within::OtherField);
        }
        if key.replace(line[colon + 1..].trim_ascii().to_vec()).is_some() {
            return wrong("the field of the key stands twice in a stanza");
        }
        Ok(Within::KeyField)
    }
}

impl<R: BufRead> Iterator for Stanzas<R> {
    type Item = memtide::Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Result<(String, String, u64), String>> {
        let lines = LineReader::new(text.as_bytes(), "status");
        let mut stanzas = Stanzas::new(lines, "Package");
        stanzas.stanza_len_max = 100;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        let mut all: Vec<_> = Vec::new();
        for record in stanzas {
            let failed = record.is_err();
            all.push(match record {
                Ok(record) => Ok((text(record.key), text(record.value), record.line)),
                Err(error) => Err(error.to_string()),
            });
            if failed {
                break;
            }
        }
        all
    }

    #[test]
    fn stanzas_are_split_at_empty_lines_and_kept_as_they_stand() {
        let text = "\n\n# header\n\nPackage: a\nDescription: x\n more\n .\n\n \n# note\n\
                    Version: 1\npackage:b \n";
        let stanza = |key: &str, text: &str, line| Ok((key.to_owned(), text.to_owned(), line));
        assert_eq!(
            read(text),
            [
                stanza("a", "Package: a\nDescription: x\n more\n .", 5),
                stanza("b", "# note\nVersion: 1\npackage:b ", 11),
            ]
        );
        assert_eq!(read(""), []);
        assert_eq!(read("# only\n# comments"), []);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let long = format!("Package: a\nX: {}", "x".repeat(100));
        for (text, message) in [
            ("Version: 1\n", "status line 1: the stanza has no field \"Package\""),
            ("\n more\n", "status line 2: a stanza cannot begin with a space"),
            ("Package: a\nwhat\n", "status line 2: neither \"Field: text\" nor a line"),
            ("Package: a\n b\n", "status line 2: the field of the key has more than one line"),
            ("Package: a\nPackage: b\n", "status line 2: the field of the key stands twice"),
            (long.as_str(), "status line 1: the stanza is longer than 100 B"),
        ] {
            let read = read(text);
            let error = read[0].as_ref().expect_err("wrong");
            assert!(error.starts_with(message), "{error}");
        }
    }
}
