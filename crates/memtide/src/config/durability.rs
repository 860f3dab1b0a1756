//! What an acknowledged write survives.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use memtide_base::{Error, ErrorKind};

/// When a write is acknowledged, and so what it survives.
///
/// | Level | acknowledged when | `kill -9` loses | a power cut loses |
/// |---|---|---|---|
/// | `None` | applied in memory | all since the last flush | all since the last flush |
/// | `Buffered` | the log record reached the kernel | nothing | the un-synced end of the log |
/// | `Interval(d)` | as `Buffered`; synced every `d` | nothing | at most the last `d` and a running sync |
/// | `Sync` | an fdatasync covers the record | nothing | nothing |
///
/// `None` is a keyspace's own choice: its writes never reach the log.
///
/// Whatever is lost, what remains is the database after a prefix of its writes, with every batch whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// No log.
    None,
    /// In the kernel.
    Buffered,
    /// In the kernel, on the device within this time.
    Interval(Duration),
    /// On the device.
    Sync,
}

impl Default for Durability {
    /// One second between syncs.
    fn default() -> Self {
        Self::Interval(Duration::from_secs(1))
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Buffered => f.write_str("buffered"),
            Self::Interval(every) => write!(f, "interval:{}", every.as_millis()),
            Self::Sync => f.write_str("sync"),
        }
    }
}

impl FromStr for Durability {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || {
            Error::new(ErrorKind::InvalidConfig, format!("unknown durability {text:?}"))
                .with_hint("known: none, buffered, interval:MILLISECONDS, sync")
        };
        Ok(match text {
            "none" => Self::None,
            "buffered" => Self::Buffered,
            "interval" => Self::default(),
            "sync" => Self::Sync,
            _ => {
                let ms = text.strip_prefix("interval:").and_then(|ms| ms.parse().ok());
                Self::Interval(Duration::from_millis(ms.ok_or_else(unknown)?))
            }
        })
    }
}
