//! The one error of the engine: what happened, where, why, and what to do about it.
//!
//! `Error` is one pointer wide. Its message is a sentence without capital or full stop; the cause is
//! reached through `source()` and not repeated in the message. Files are named relative to the database
//! directory wherever the caller knows it.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The result of anything that can fail in the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure an [`Error`] is: what a program decides by.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// An argument is outside its documented range.
    InvalidArgument,
    /// The configuration has violations; the message lists all of them.
    InvalidConfig,
    /// The handle belongs to a closed database or a dropped keyspace.
    Closed,
    /// What was asked for does not exist.
    NotFound,
    /// The operation lost against a concurrent one, or a check failed.
    Conflict,
    /// Another process or handle has the database open.
    Locked,
    /// Bytes on disk are not what was written. Never retried.
    Corruption,
    /// The device is full. Nothing of the write is visible.
    NoSpace,
    /// The operating system failed an operation.
    Io,
    /// The database takes no writes: opened so, or after a failure that its message names.
    ReadOnly,
    /// The write was made visible but may not survive a power cut.
    Indeterminate,
    /// No memory or time was left for the write; it can be tried again.
    Busy,
    /// Not built, or not openable by this version.
    Unsupported,
    /// A bug in the engine.
    Internal,
}

impl ErrorKind {
    /// The word scripts see for this kind: upper case, stable.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::InvalidArgument | Self::InvalidConfig | Self::Closed => "INVALID",
            Self::NotFound => "NOT_FOUND",
            Self::Conflict => "CONFLICT",
            Self::Locked => "LOCKED",
            Self::Corruption => "CORRUPTION",
            Self::NoSpace => "NO_SPACE",
            Self::Io => "IO",
            Self::ReadOnly => "READ_ONLY",
            Self::Indeterminate => "INDETERMINATE",
            Self::Busy => "BUSY",
            Self::Unsupported => "UNSUPPORTED",
            Self::Internal => "INTERNAL",
        }
    }
}

/// Anything that can go wrong, with its place and its cure.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    what: String,
    file: Option<PathBuf>,
    offset: Option<u64>,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `what` says what is wrong, in lower case and without a full stop.
    #[must_use]
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        let what = what.into();
        Self(Box::new(Inner { kind, what, file: None, offset: None, hint: None, source: None }))
    }

    /// The same error for another one who is struck by it, without the chain of its causes.
    #[must_use]
    pub fn again(&self) -> Self {
        let Inner { kind, what, file, offset, hint, source } = &*self.0;
        let mut what = what.clone();
        if let Some(source) = source {
            what = format!("{what} ({source})");
        }
        let (file, hint) = (file.clone(), hint.clone());
        Self(Box::new(Inner { kind: *kind, what, file, offset: *offset, hint, source: None }))
    }

    /// An argument outside its documented range.
    #[must_use]
    pub fn invalid_argument(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, what)
    }

    /// Bytes of `file` at `offset` that are not what was written: `what` is the thing, `detail` the
    /// evidence.
    ///
    /// ```
    /// use memtide_base::Error;
    /// let error = Error::corruption("data block", "c.sst", 4096, "xxh3 0x1f, stored 0x2e");
    /// assert_eq!(error.to_string(), "corrupt data block in c.sst at offset 4096: xxh3 0x1f, stored 0x2e");
    /// ```
    #[must_use]
    pub fn corruption(
        what: &str,
        file: impl AsRef<Path>,
        offset: u64,
        detail: impl fmt::Display,
    ) -> Self {
        Self::corrupt(what, file.as_ref(), offset, &detail)
    }

    fn corrupt(what: &str, file: &Path, offset: u64, detail: &dyn fmt::Display) -> Self {
        let text = format!("corrupt {what} in {} at offset {offset}: {detail}", file.display());
        let mut error = Self::new(ErrorKind::Corruption, text);
        error.0.file = Some(file.to_path_buf());
        error.0.offset = Some(offset);
        error
    }

    /// A failed call of the operating system: could not `doing` the `file`.
    ///
    /// A full device or quota becomes [`ErrorKind::NoSpace`].
    #[must_use]
    pub fn io(doing: &str, file: impl AsRef<Path>, source: io::Error) -> Self {
        Self::failed_call(doing, file.as_ref(), source)
    }

    fn failed_call(doing: &str, file: &Path, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
            _ => ErrorKind::Io,
        };
        let mut error = Self::new(kind, format!("could not {doing} {}", file.display()));
        error.0.file = Some(file.to_path_buf());
        error.0.source = Some(Box::new(source));
        error
    }

    /// A bug in the engine, reported instead of a panic.
    #[must_use]
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, what)
    }

    /// The same error with a word on what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The same error with the file it is about.
    #[must_use]
    pub fn with_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.0.file = Some(file.into());
        self
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Box::new(source));
        self
    }

    /// What sort of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may succeed later without anyone acting.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Busy | ErrorKind::NoSpace)
    }

    /// Whether stored bytes are damaged.
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        self.0.kind == ErrorKind::Corruption
    }

    /// The file this is about, relative to the database directory where that is known.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// The offset inside [`Error::file`], for damage.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// What to do about it, where there is something to do.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        match &self.0.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)?;
        match &self.0.source {
            Some(source) => write!(f, " ({source})"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_io_error_names_the_file_and_keeps_its_cause() {
        let cause = io::Error::from(io::ErrorKind::StorageFull);
        let error = Error::io("append to", "wal/1.wal", cause).with_hint("free some space");
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert_eq!(error.to_string(), "could not append to wal/1.wal; free some space");
        assert!(error.source().is_some() && error.is_transient());
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
