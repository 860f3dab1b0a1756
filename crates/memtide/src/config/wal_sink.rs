//! How records get into the write-ahead log.

use std::fmt;
use std::str::FromStr;

use memtide_base::{Error, ErrorKind, suggest};

use super::Durability;

/// How records get into the write-ahead log. The bytes on disk, and what they survive, are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WalSink {
    /// A system call for each group of writes.
    File,
    /// Stores into a map of the file: a put costs a third to a half less. Only on 64-bit Linux, on ext4 and XFS, in
    /// segments of 2 MiB and more, with a memory budget of 8 MiB and more; elsewhere as [`WalSink::File`], and after a
    /// sync until 1 MiB was written. A 32nd of the budget is mapped, 8 MiB at most, which the system counts as the
    /// program's memory and the budget does not.
    ///
    /// A fault of the device is told to the process by the signal SIGBUS. The first such segment installs a handler:
    /// a fault in the log becomes an error of the write, any other goes to the handler that was there before. If the
    /// program installs one later, the log is written as a file from the next window on. A thread that has blocked
    /// SIGBUS is killed by such a fault all the same.
    Mapped,
}

impl WalSink {
    /// Both.
    pub const ALL: [Self; 2] = [Self::File, Self::Mapped];

    /// The name in configurations and in figures.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Mapped => "mapped",
        }
    }

    /// What is used unless one is named.
    pub(super) fn best_for(durability: Durability) -> Self {
        // Nothing is gained where a sync follows each write.
        if durability == Durability::Sync { Self::File } else { Self::Mapped }
    }
}

impl fmt::Display for WalSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for WalSink {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|sink| sink.name() == name).ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, format!("unknown WAL sink {name:?}"))
                .with_hint(suggest::hint(name, &Self::ALL.map(Self::name)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_and_keep_to_a_width() {
        for sink in WalSink::ALL {
            assert_eq!(sink.to_string().parse::<WalSink>().ok(), Some(sink));
            assert_eq!(format!("{sink:>8}").len(), 8);
        }
        let error = "map".parse::<WalSink>().expect_err("not a name");
        assert!(error.to_string().contains("mapped"), "{error}");
    }
}
