//! Cases as text: one line each for an option, a keyspace, an operation. Keys are text with `%` and two hexadecimal
//! digits for what is not a letter, a digit or one of `/_.`; `%` alone is the empty key. A value that the generator
//! made is `#number+length`.

use std::fmt::{self, Write as _};
use std::ops::Bound;
use std::str::{FromStr, SplitWhitespace};
use std::time::Duration;

use memtide::{Config, Durability};
use memtide_env::vfs::CrashMode;

use crate::case::{Case, Ending, FaultRule, FileKind, Op, Target, UNLOGGED};
use crate::oracle::{Change, NAMES, Span, value_of};

const FIRST_LINE: &str = "memtide-sim 1";
const MODES: [(CrashMode, &str); 5] = [
    (CrashMode::KeepAll, "process"),
    (CrashMode::DropAll, "drop"),
    (CrashMode::Prefix, "prefix"),
    (CrashMode::Subset, "subset"),
    (CrashMode::Hostile, "hostile"),
];

/// The name of a way to crash.
pub(crate) fn mode_name(mode: CrashMode) -> &'static str {
    MODES.iter().find(|(known, _)| *known == mode).map_or("?", |(_, name)| name)
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}\nseed {}", self.seed)?;
        for (key, value) in self.config.named() {
            writeln!(f, "config {key} {value}")?;
        }
        for name in &self.names {
            writeln!(f, "keyspace {name}")?;
        }
        self.ops.iter().try_for_each(|op| writeln!(f, "{op}"))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(changes, durability) => {
                write!(f, "write {durability}")?;
                changes.iter().try_for_each(|change| write!(f, " {}", change_text(change)))
            }
            Self::Get(name, key) => write!(f, "get {name} {}", text_of(key)),
            Self::Scan(name, span, how) => write!(f, "scan {name} {} {how}", span_text(span)),
            Self::Snapshot => f.write_str("snapshot"),
            Self::Release(which) => write!(f, "release {which}"),
            Self::Iter(name, span) => write!(f, "iter {name} {}", span_text(span)),
            Self::StepIters(seed) => write!(f, "step_iters {seed}"),
            Self::DropIters => f.write_str("drop_iters"),
            Self::Flush => f.write_str("flush"),
            Self::Compact => f.write_str("compact"),
            Self::Sync => f.write_str("sync"),
            Self::SetMemtable(name, kind) => write!(f, "memtable {name} {kind}"),
            Self::SetCompaction(name, compaction) => write!(f, "compaction {name} {compaction}"),
            Self::Pause(on) => write!(f, "pause {on}"),
            Self::Job(pick) => write!(f, "job {pick}"),
            Self::Idle => f.write_str("idle"),
            Self::Tick(time) => write!(f, "tick {}", time.as_millis()),
            Self::Wall(by) => write!(f, "wall {by}"),
            Self::Set(key, value) => write!(f, "set {key} {value}"),
            Self::Fault(rule) => {
                let file = rule.file.map_or("any", FileKind::name);
                let how = if rule.full { "full" } else { "broken" };
                let FaultRule { target, skip, prefix, .. } = rule;
                write!(f, "fault {} {file} {skip} {how} {prefix}", target.name())
            }
            Self::Space(None) => f.write_str("space -"),
            Self::Space(Some(free)) => write!(f, "space {free}"),
            Self::Heal => f.write_str("heal"),
            Self::Reopen(Ending::Close) => f.write_str("reopen close"),
            Self::Reopen(Ending::Drop) => f.write_str("reopen drop"),
            Self::Crash { mode, seed, after } => {
                write!(f, "crash {} {seed} {after}", mode_name(*mode))
            }
            Self::Rot { file, byte, xor } => write!(f, "rot {file} {byte} {xor}"),
            Self::Verify => f.write_str("verify"),
            Self::Check => f.write_str("check"),
        }
    }
}

fn change_text(change: &Change) -> String {
    match change {
        Change::Put(name, key, value) => {
            format!("put {name} {} {}", text_of(key), value_text(value))
        }
        Change::Delete(name, key) => format!("del {name} {}", text_of(key)),
        Change::DeleteRange(name, span) => format!("delrange {name} {}", span_text(span)),
    }
}

fn text_of(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"/_.:".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02x}");
        }
    }
    if text.is_empty() { "%".to_owned() } else { text }
}

/// A generated value begins with its number and a colon.
fn value_text(value: &[u8]) -> String {
    let number = value.iter().position(|&byte| byte == b':').and_then(|colon| {
        std::str::from_utf8(&value[..colon]).ok().and_then(|digits| digits.parse::<u64>().ok())
    });
    if let Some(number) = number {
        let len = value.len() - number.to_string().len() - 1;
        if value_of(number, len) == value {
            return format!("#{number}+{len}");
        }
    }
    text_of(value)
}

fn span_text((from, to): &Span) -> String {
    let bound = |bound: &Bound<Vec<u8>>| match bound {
        Bound::Unbounded => "-".to_owned(),
        Bound::Included(key) => format!("[{}", text_of(key)),
        Bound::Excluded(key) => format!("({}", text_of(key)),
    };
    format!("{} {}", bound(from), bound(to))
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with("//")
        });
        if lines.next().map(|(_, line)| line.trim()) != Some(FIRST_LINE) {
            return Err(format!("the first line is not `{FIRST_LINE}`"));
        }
        let mut case =
            Self { seed: 0, config: Config::default(), names: Vec::new(), ops: Vec::new() };
        for (at, line) in lines {
            let mut words = Words(line.split_whitespace());
            case.take(&mut words).map_err(|what| format!("line {}: {what}", at + 1))?;
            if words.0.next().is_some() {
                return Err(format!("line {}: more words than it should have", at + 1));
            }
        }
        Ok(case)
    }
}

impl Case {
    fn take(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let word = words.word()?;
        match word {
            "seed" => self.seed = words.number()?,
            "config" => {
                let (key, value) = (words.word()?, words.word()?);
                self.config.set(key, value).map_err(|error| error.to_string())?;
            }
            "keyspace" => self.names.push(words.name()?),
            _ => self.ops.push(words.op(word)?),
        }
        Ok(())
    }
}

/// The words of a line.
struct Words<'t>(SplitWhitespace<'t>);

impl<'t> Words<'t> {
    fn word(&mut self) -> Result<&'t str, String> {
        self.0.next().ok_or_else(|| "it ends too early".to_owned())
    }

    fn parsed<T: FromStr>(&mut self) -> Result<T, String> {
        let word = self.word()?;
        word.parse().map_err(|_| format!("`{word}` cannot be read"))
    }

    fn number(&mut self) -> Result<u64, String> {
        self.parsed()
    }

    fn name(&mut self) -> Result<&'static str, String> {
        let word = self.word()?;
        let known = NAMES.iter().chain([&UNLOGGED]).find(|known| **known == word);
        known.copied().ok_or_else(|| format!("there is no keyspace `{word}` here"))
    }

    fn bytes(&mut self) -> Result<Vec<u8>, String> {
        bytes_of(self.word()?)
    }

    fn value(&mut self) -> Result<Vec<u8>, String> {
        let word = self.word()?;
        let Some((number, len)) = word.strip_prefix('#').and_then(|rest| rest.split_once('+'))
        else {
            return bytes_of(word);
        };
        let wrong = || format!("`{word}` is no value");
        Ok(value_of(number.parse().map_err(|_| wrong())?, len.parse().map_err(|_| wrong())?))
    }

    fn span(&mut self) -> Result<Span, String> {
        let mut bound = || {
            let word = self.word()?;
            match word.split_at_checked(1) {
                Some(("-", "")) => Ok(Bound::Unbounded),
                Some(("[", key)) => bytes_of(key).map(Bound::Included),
                Some(("(", key)) => bytes_of(key).map(Bound::Excluded),
                _ => Err(format!("`{word}` is no bound")),
            }
        };
        Ok((bound()?, bound()?))
    }

    fn changes(&mut self) -> Result<Vec<Change>, String> {
        let mut changes = Vec::new();
        while let Some(word) = self.0.next() {
            changes.push(match word {
                "put" => Change::Put(self.name()?, self.bytes()?, self.value()?),
                "del" => Change::Delete(self.name()?, self.bytes()?),
                "delrange" => Change::DeleteRange(self.name()?, self.span()?),
                _ => return Err(format!("`{word}` is no change")),
            });
        }
        Ok(changes)
    }

    fn rule(&mut self) -> Result<FaultRule, String> {
        let (target, file) = (self.word()?, self.word()?);
        let find = |known: &&Target| known.name() == target;
        let target = Target::ALL.iter().find(find).copied();
        let target = target.ok_or_else(|| "nothing like that can fail".to_owned())?;
        let kind = FileKind::ALL.into_iter().find(|known| known.name() == file);
        if kind.is_none() && file != "any" {
            return Err(format!("`{file}` is no kind of file"));
        }
        let skip = self.number()?;
        let full = self.word()? == "full";
        Ok(FaultRule { target, file: kind, skip, full, prefix: self.parsed()? })
    }

    fn op(&mut self, word: &str) -> Result<Op, String> {
        Ok(match word {
            "write" => {
                let durability = self.parsed::<Durability>()?;
                Op::Write(self.changes()?, durability)
            }
            "get" => Op::Get(self.name()?, self.bytes()?),
            "scan" => Op::Scan(self.name()?, self.span()?, self.number()?),
            "snapshot" => Op::Snapshot,
            "release" => Op::Release(self.number()?),
            "iter" => Op::Iter(self.name()?, self.span()?),
            "step_iters" => Op::StepIters(self.number()?),
            "drop_iters" => Op::DropIters,
            "flush" => Op::Flush,
            "compact" => Op::Compact,
            "sync" => Op::Sync,
            "memtable" => Op::SetMemtable(self.name()?, self.parsed()?),
            "compaction" => Op::SetCompaction(self.name()?, self.parsed()?),
            "pause" => Op::Pause(self.parsed()?),
            "job" => Op::Job(self.number()?),
            "idle" => Op::Idle,
            "tick" => Op::Tick(Duration::from_millis(self.number()?)),
            "wall" => Op::Wall(self.parsed()?),
            "set" => Op::Set(self.word()?.to_owned(), self.word()?.to_owned()),
            "fault" => Op::Fault(self.rule()?),
            "space" => match self.word()? {
                "-" => Op::Space(None),
                free => Op::Space(Some(free.parse().map_err(|_| format!("`{free}` bytes?"))?)),
            },
            "heal" => Op::Heal,
            "reopen" => match self.word()? {
                "close" => Op::Reopen(Ending::Close),
                _ => Op::Reopen(Ending::Drop),
            },
            "crash" => {
                let name = self.word()?;
                let mode = MODES.iter().find(|(_, known)| *known == name);
                let (mode, _) = *mode.ok_or_else(|| format!("`{name}` is no way to crash"))?;
                Op::Crash { mode, seed: self.number()?, after: self.number()? }
            }
            "rot" => Op::Rot { file: self.number()?, byte: self.number()?, xor: self.parsed()? },
            "verify" => Op::Verify,
            "check" => Op::Check,
            _ => return Err(format!("`{word}` is no operation")),
        })
    }
}

fn bytes_of(text: &str) -> Result<Vec<u8>, String> {
    if text == "%" {
        return Ok(Vec::new());
    }
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&byte, behind)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = behind;
            continue;
        }
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(code.ok_or_else(|| format!("`{text}` is not written as bytes are"))?);
        rest = &behind[2..];
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::{Focus, draw};

    #[test]
    fn a_case_is_the_same_after_it_was_written_and_read() {
        for seed in 0..40 {
            let case = draw(seed, &Focus::default());
            let text = case.to_string();
            let again: Case = text.parse().expect("just written");
            assert_eq!(again.to_string(), text);
            assert_eq!(format!("{again:?}"), format!("{case:?}"));
        }
    }

    #[test]
    fn what_is_no_case_is_refused_with_its_line() {
        let refused = |text: &str| text.parse::<Case>().expect_err("no case");
        assert!(refused("get default k").contains("first line"));
        assert!(refused("memtide-sim 1\nseed x").starts_with("line 2"));
        assert!(refused("memtide-sim 1\n\nget nobody k").starts_with("line 3"));
        assert!(refused("memtide-sim 1\nget default %4").contains("as bytes are"));
        assert!(refused("memtide-sim 1\nidle now").contains("more words"));
    }
}
