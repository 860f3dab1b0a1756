//! Which database is meant, how it is configured, and opening it.
//!
//! Options are layered, weakest first: what a keyspace has stored, the file of `--config`, flags. The
//! directory comes from the command's own argument or `-d`, else `MEMTIDE_DIR`, else `data_dir` of the file.
//!
//! A configuration file is TOML: options by their names, `[tree]` for the shape of the tree,
//! `[keyspace.NAME]` for one keyspace. The engine takes one option at a time as text, so a file is
//! flattened to `tree.block_size = "4096"` and the like; everything wrong with it is collected, not just
//! the first.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use memtide::{Config, Db, Error, ErrorKind, Keyspace, Violation};
use toml::de::{DeTable, DeValue};

use crate::args::Global;
use crate::report::Outcome;

/// Bytes of a configuration file: far above any real one, far below what hurts to read.
const FILE_LEN_MAX: u64 = 1 << 20;

/// What a command does to the database it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reads it; writes nothing at all.
    Read,
    /// Changes what is there.
    Change,
    /// Writes to it, and makes it first if there is none.
    Create,
}

/// Opens the database the flags name.
pub(crate) fn database(global: &Global, access: Access) -> Outcome<Db> {
    let config = config(global, &[])?;
    Ok(open(directory(global, None, &config)?, config, access)?)
}

/// Opens the database in `dir`.
pub(crate) fn open(dir: PathBuf, mut config: Config, access: Access) -> memtide::Result<Db> {
    config.data_dir = Some(dir.clone());
    let builder = Db::builder(dir).config(config).read_only(access == Access::Read);
    builder.create_if_missing(access == Access::Create).open()
}

/// The keyspace of `-k`, or the default one; it must be there.
pub(crate) fn keyspace(db: &Db, global: &Global) -> memtide::Result<Keyspace> {
    let Some(name) = &global.keyspace else { return Ok(db.default_keyspace()) };
    db.get_keyspace(name).ok_or_else(|| {
        let all = db.keyspaces();
        let known: Vec<&str> = all.iter().map(Keyspace::name).collect();
        Error::new(ErrorKind::NotFound, format!("there is no keyspace {name:?}"))
            .with_hint(format!("known: {}", known.join(", ")))
    })
}

/// As [`keyspace`], made if it is not there.
pub(crate) fn keyspace_or_new(db: &Db, global: &Global) -> memtide::Result<Keyspace> {
    match &global.keyspace {
        Some(name) => db.keyspace(name),
        None => Ok(db.default_keyspace()),
    }
}

/// The directory that is meant; `own` is what the command itself was given.
pub(crate) fn directory(
    global: &Global,
    own: Option<&Path>,
    config: &Config,
) -> memtide::Result<PathBuf> {
    let named = own.map(Path::to_path_buf).or_else(|| global.dir.clone());
    let environment = || std::env::var_os("MEMTIDE_DIR").filter(|dir| !dir.is_empty());
    named
        .or_else(|| environment().map(PathBuf::from))
        .or_else(|| config.data_dir.clone())
        .ok_or_else(|| {
            Error::invalid_argument("no database directory is named")
                .with_hint("use -d DIR, MEMTIDE_DIR or data_dir in a configuration file")
        })
}

/// The configuration of the file and the flags; `options` are further `key=value` flags.
pub(crate) fn config(global: &Global, options: &[String]) -> memtide::Result<Config> {
    let (mut config, mut wrong) = read(global, global.config.as_deref())?;
    for option in options {
        let Some((key, value)) = option.split_once('=') else {
            let message = format!("--set takes KEY=VALUE, not {option:?}");
            return Err(Error::invalid_argument(message));
        };
        set(&mut config, key.trim(), value.trim(), &mut wrong);
    }
    wrong.extend(violations(&config));
    if wrong.is_empty() { Ok(config) } else { Err(refusal(&wrong)) }
}

/// Everything that is wrong with a file and the flags.
pub(crate) fn check(global: &Global, file: Option<&Path>) -> memtide::Result<Vec<Violation>> {
    let (config, mut wrong) = read(global, file)?;
    wrong.extend(violations(&config));
    Ok(wrong)
}

/// The configuration of a file and the flags as far as it can be read, and what cannot.
fn read(global: &Global, file: Option<&Path>) -> memtide::Result<(Config, Vec<Violation>)> {
    let mut config = Config::default();
    let mut wrong = Vec::new();
    if let Some(file) = file {
        for (key, value) in parse(file)? {
            match value {
                Ok(text) => set(&mut config, &key, &text, &mut wrong),
                Err(message) => wrong.push(Violation { field: key, message }),
            }
        }
    }
    config.preset = global.preset.or(config.preset);
    config.memtable_type = global.memtable.map(Into::into).or(config.memtable_type);
    Ok((config, wrong))
}

fn set(config: &mut Config, key: &str, value: &str, wrong: &mut Vec<Violation>) {
    if let Err(error) = config.set(key, value) {
        wrong.extend_from_slice(error.violations());
    }
}

fn violations(config: &Config) -> Vec<Violation> {
    config.validate().err().map(|error| error.violations().to_vec()).unwrap_or_default()
}

/// One line for each violation.
fn refusal(wrong: &[Violation]) -> Error {
    let list = |text: String, one: &Violation| format!("{text}\n  {}: {}", one.field, one.message);
    let message = wrong.iter().fold(count(wrong.len(), "the configuration"), list);
    Error::new(ErrorKind::InvalidConfig, message)
}

/// `the configuration has 2 problems`
pub(crate) fn count(problems: usize, whose: &str) -> String {
    format!("{whose} has {problems} problem{}", if problems == 1 { "" } else { "s" })
}

/// The options of a file, as far as it is TOML.
fn parse(file: &Path) -> memtide::Result<Vec<Flat>> {
    let failed = |error| Error::io("read", file, error);
    let mut text = Vec::new();
    File::open(file)
        .and_then(|f| f.take(FILE_LEN_MAX + 1).read_to_end(&mut text))
        .map_err(failed)?;
    let wrong = |detail: String| {
        let message = format!("{} is no configuration: {detail}", file.display());
        Error::new(ErrorKind::InvalidConfig, message).with_file(file)
    };
    if text.len() as u64 > FILE_LEN_MAX {
        return Err(wrong(format!("it is larger than {FILE_LEN_MAX} B")));
    }
    let text = String::from_utf8(text).map_err(|error| wrong(error.utf8_error().to_string()))?;
    let table =
        DeTable::parse(&text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))?;
    Ok(flatten(table.get_ref()))
}

/// An option's key with its value as text, or what is wrong with the value.
type Flat = (String, Result<String, String>);

/// `[tree] block_size = 4096` as `tree.block_size`, `4096`.
fn flatten(table: &DeTable<'_>) -> Vec<Flat> {
    let mut flat = Vec::new();
    let mut open = vec![(String::new(), table)];
    while let Some((prefix, table)) = open.pop() {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            match value.get_ref() {
                DeValue::Table(inner) => open.push((format!("{key}."), inner)),
                scalar => flat.push((key, text(scalar))),
            }
        }
    }
    flat
}

fn text(value: &DeValue<'_>) -> Result<String, String> {
    Ok(match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_err(|_| format!("{number} is beyond 64 bits"))?
            .to_string(),
        DeValue::Boolean(on) => on.to_string(),
        other => return Err(format!("no option takes a value of type {}", other.type_str())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_one_key_for_each_option() {
        let text = "max_memtable_size = \"1MiB\"\nenable_background_compaction = false\n\
                            [tree]\nblock_size = 0x1000\n[keyspace.users]\nmemtable_type = \"trie\"\n";
        let table = DeTable::parse(text).expect("TOML");
        let mut flat: Vec<_> = flatten(table.get_ref())
            .into_iter()
            .map(|(key, value)| (key, value.expect("scalars only")))
            .collect();
        flat.sort();
        let flat: Vec<_> = flat.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            flat,
            [
                ("enable_background_compaction", "false"),
                ("keyspace.users.memtable_type", "trie"),
                ("max_memtable_size", "1MiB"),
                ("tree.block_size", "4096"),
            ]
        );
    }

    #[test]
    fn a_list_is_no_value() {
        let table = DeTable::parse("data_dir = [\"a\"]").expect("TOML");
        let (key, value) = flatten(table.get_ref()).remove(0);
        assert_eq!(key, "data_dir");
        assert!(value.expect_err("a list").contains("array"));
    }
}
