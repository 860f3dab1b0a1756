//! Lines of bounded length, and the format in which each line is a key.

use std::io::{self, BufRead};

use memtide::Error;

use super::Record;

/// Longest line or stanza in bytes: room for the longest value in its longest spelling.
pub(crate) const LINE_LEN_MAX: usize = 64 << 20;

/// What [`LineReader::read`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line.
    Text,
    /// A line that is too long; it has been passed over.
    TooLong,
    /// The end of the input.
    End,
}

/// Reads lines of at most [`LINE_LEN_MAX`] bytes and counts them.
pub(crate) struct LineReader<R> {
    input: R,
    /// How messages call the input.
    name: String,
    line: u64,
    len_max: usize,
}

impl<R: BufRead> LineReader<R> {
    /// Reads `input`, which messages call `name`.
    pub(crate) fn new(input: R, name: impl Into<String>) -> Self {
        Self { input, name: name.into(), line: 0, len_max: LINE_LEN_MAX }
    }

    /// The number of the line read last, from one.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    /// Replaces `into` by the next line, without its newline.
    pub(crate) fn read(&mut self, into: &mut Vec<u8>) -> io::Result<Line> {
        into.clear();
        let (mut seen, mut fits) = (false, true);
        loop {
            let ready = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                ready => ready?,
            };
            let end = ready.iter().position(|&byte| byte == b'\n');
            let text = &ready[..end.unwrap_or(ready.len())];
            let done = ready.is_empty() || end.is_some();
            seen |= !ready.is_empty();
            fits &= into.len() + text.len() <= self.len_max;
            if fits {
                into.extend_from_slice(text);
            } else {
                into.clear();
            }
            let consumed = text.len() + usize::from(end.is_some());
            self.input.consume(consumed);
            if done {
                self.line += u64::from(seen);
                return Ok(match (seen, fits) {
                    (false, _) => Line::End,
                    (true, false) => Line::TooLong,
                    (true, true) => Line::Text,
                });
            }
        }
    }

    /// As [`LineReader::read`] for input that must be right; `false` at its end.
    pub(crate) fn next(&mut self, into: &mut Vec<u8>) -> memtide::Result<bool> {
        match self.read(into) {
            Ok(Line::Text) => Ok(true),
            Ok(Line::End) => Ok(false),
            Ok(Line::TooLong) => {
                Err(self.wrong(self.line, format!("it is longer than {} B", self.len_max)))
            }
            Err(error) => Err(Error::io("read", &self.name, error)),
        }
    }

    /// What is wrong with a line of the input.
    pub(crate) fn wrong(&self, line: u64, what: impl std::fmt::Display) -> Error {
        Error::invalid_argument(format!("{} line {line}: {what}", self.name))
    }
}

/// Reads every line as a key with an empty value.
pub(crate) fn records<R: BufRead>(
    mut lines: LineReader<R>,
) -> impl Iterator<Item = memtide::Result<Record>> {
    std::iter::from_fn(move || {
        let mut key = Vec::new();
        match lines.next(&mut key) {
            Ok(true) => Some(Ok(Record { key, value: Vec::new(), line: lines.line() })),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    })
}

#[cfg(test)]
impl<R> LineReader<R> {
    /// The same reader with another limit.
    pub(crate) fn with_len_max(mut self, len_max: usize) -> Self {
        self.len_max = len_max;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    #[test]
    fn lines_are_cut_at_newlines_alone_whatever_the_buffer() {
        let text = b"one\n\ntwo\r\n\xff\xfe\nlast";
        for capacity in [1, 2, 3, 64] {
            let input = BufReader::with_capacity(capacity, &text[..]);
            let keys: Vec<_> = records(LineReader::new(input, "input"))
                .map(|record| record.map(|record| (record.line, record.key)).expect("short lines"))
                .collect();
            let want = [&b"one"[..], b"", b"two\r", b"\xff\xfe", b"last"];
            let want: Vec<_> = (1..).zip(want.map(<[u8]>::to_vec)).collect();
            assert_eq!(keys, want, "buffer of {capacity}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_and_named() {
        let input = BufReader::with_capacity(3, &b"ok\ntoo long\nok again"[..]);
        let mut lines = LineReader::new(input, "keys.txt").with_len_max(4);
        let mut line = Vec::new();
        assert_eq!(lines.read(&mut line).expect("in memory"), Line::Text);
        let error = lines.next(&mut line).expect_err("8 of 4 bytes");
        assert_eq!(error.to_string(), "keys.txt line 2: it is longer than 4 B");
        assert_eq!(lines.read(&mut line).expect("in memory"), Line::TooLong);
        assert_eq!(lines.read(&mut line).expect("in memory"), Line::End);
    }
}
