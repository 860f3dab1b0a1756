//! What the user sees of a result: standard output, messages on standard error, the exit code.
//!
//! | Code | Meaning |
//! |---|---|
//! | 0 | done; also when whoever read the output went away |
//! | 1 | the negative answer: no such key or keyspace, a conflict, a failed check |
//! | 2 | wrong arguments, configuration or input |
//! | 3 | another process has the database open |
//! | 4 | damage on disk |
//! | 5 | the device is full |
//! | 6 | the operating system failed, or the database takes no writes now |
//! | 7 | no database there, or nothing this version can open or do |
//! | 101 | a bug |
//!
//! Signals keep their default action, so an interrupt ends the program and a shell shows 130.

use std::error::Error as _;
use std::fmt;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::process::ExitCode;

use comfy_table::{CellAlignment, Table, presets};
use memtide::{ConfigError, Error, ErrorKind};

/// What a command ends with; an early end is no success.
pub(crate) type Outcome<T = ()> = Result<T, Stop>;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Nobody reads the output any more: nothing is left to do, and nothing is wrong.
    OutputClosed,
    /// It failed.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<ConfigError> for Stop {
    fn from(error: ConfigError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<io::Error> for Stop {
    /// A failure of standard output: every other file is named where it is used.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Failed(Error::io("write to", "standard output", error)),
        }
    }
}

/// Says on standard error what went wrong, if anything did, and how the program exits.
pub(crate) fn finish(stop: &Stop) -> ExitCode {
    match stop {
        Stop::OutputClosed => ExitCode::SUCCESS,
        Stop::Failed(error) => {
            say(format_args!("memtide: {error}"));
            for cause in causes(error) {
                say(format_args!("  caused by: {cause}"));
            }
            ExitCode::from(exit_code(error.kind()))
        }
    }
}

/// One line for people. That nobody may listen is no failure.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// The causes below an error, outermost first, without those its message tells already.
pub(crate) fn causes(error: &Error) -> Vec<String> {
    let mut told = error.to_string();
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !told.contains(&text) {
            told.push_str(&text);
            causes.push(text);
        }
        next = cause.source();
    }
    causes
}

/// The exit code for a kind of error.
pub(crate) fn exit_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::NotFound | ErrorKind::Conflict => 1,
        ErrorKind::InvalidArgument | ErrorKind::InvalidConfig | ErrorKind::Closed => 2,
        ErrorKind::Locked => 3,
        ErrorKind::Corruption => 4,
        ErrorKind::NoSpace => 5,
        ErrorKind::Io | ErrorKind::ReadOnly | ErrorKind::Indeterminate | ErrorKind::Busy => 6,
        ErrorKind::Unsupported => 7,
        // `Internal`, and whatever kind this program does not know yet.
        _ => 101,
    }
}

/// Standard output, buffered. Ends with [`Output::finish`]: an unwritten rest would be lost data.
pub(crate) fn output() -> Output {
    Output(BufWriter::with_capacity(64 << 10, io::stdout().lock()))
}

/// See [`output`].
pub(crate) struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    /// Hands everything to the operating system.
    pub(crate) fn finish(mut self) -> Outcome {
        self.0.flush()?;
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Lines for standard output, from a walk of the engine that ends when one cannot be written.
pub(crate) struct Lines {
    output: Output,
    /// Why one was not written.
    closed: Option<io::Error>,
}

impl Lines {
    pub(crate) fn new() -> Self {
        Self { output: output(), closed: None }
    }

    /// # Errors
    /// It could not be written; [`Lines::finish`] says why.
    pub(crate) fn add(&mut self, line: &dyn fmt::Display) -> memtide::Result<()> {
        writeln!(self.output, "{line}").map_err(|error| {
            let told = Error::io("write to", "standard output", io::Error::from(error.kind()));
            self.closed = Some(error);
            told
        })
    }

    /// Hands everything to the operating system; what the walk came to.
    pub(crate) fn finish<T>(self, walked: memtide::Result<T>) -> Outcome<T> {
        if let Some(error) = self.closed {
            return Err(error.into());
        }
        let walked = walked?;
        self.output.finish()?;
        Ok(walked)
    }
}

/// Writes a JSON document and a newline to standard output.
pub(crate) fn print_json(value: &serde_json::Value) -> Outcome {
    let mut output = output();
    writeln!(output, "{value:#}")?;
    output.finish()
}

/// An empty table for people: a name in the first column, figures aligned to the right in the others.
pub(crate) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A number of bytes for people: `512.0 KiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|&(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes} B"),
    }
}

/// A count that grows on a terminal while long work runs; silent everywhere else.
pub(crate) struct Progress {
    verb: &'static str,
    shown: bool,
    terminal: bool,
}

impl Progress {
    /// Shows `verb N`.
    pub(crate) fn new(verb: &'static str) -> Self {
        Self { verb, shown: false, terminal: io::stderr().is_terminal() }
    }

    /// Whether a person watches.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Shows that `count` are done.
    pub(crate) fn show(&mut self, count: u64) {
        if self.terminal {
            self.shown = true;
            let _ = write!(io::stderr().lock(), "\r{} {count}", self.verb);
        }
    }
}

impl Drop for Progress {
    /// Leaves the terminal at the beginning of a line, whatever happened.
    fn drop(&mut self) {
        if self.shown {
            let _ = writeln!(io::stderr().lock());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_the_exit_code_scripts_rely_on() {
        for (kind, code) in [
            (ErrorKind::InvalidArgument, 2),
            (ErrorKind::InvalidConfig, 2),
            (ErrorKind::Closed, 2),
            (ErrorKind::NotFound, 1),
            (ErrorKind::Conflict, 1),
            (ErrorKind::Locked, 3),
            (ErrorKind::Corruption, 4),
            (ErrorKind::NoSpace, 5),
            (ErrorKind::Io, 6),
            (ErrorKind::ReadOnly, 6),
            (ErrorKind::Indeterminate, 6),
            (ErrorKind::Busy, 6),
            (ErrorKind::Unsupported, 7),
            (ErrorKind::Internal, 101),
        ] {
            assert_eq!(exit_code(kind), code, "{kind:?}");
        }
    }

    #[test]
    fn a_cause_is_told_once() {
        let cause = Error::io("open", "a", io::Error::from(io::ErrorKind::StorageFull));
        let told = Error::internal("could not open a").with_source(cause);
        assert_eq!(causes(&told).len(), 1, "{told:?}");
        assert_eq!(causes(&told), [io::Error::from(io::ErrorKind::StorageFull).to_string()]);
    }

    #[test]
    fn bytes_are_told_in_the_largest_unit_that_they_fill() {
        for (count, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB")]
        {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let closed = Stop::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(matches!(closed, Stop::OutputClosed));
        let full = Stop::from(io::Error::from(io::ErrorKind::StorageFull));
        assert!(matches!(full, Stop::Failed(error) if error.kind() == ErrorKind::NoSpace));
    }
}
