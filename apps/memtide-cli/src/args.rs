//! What can be asked of the program: commands, flags and their values. Parsing only.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use memtide::{Durability, MemtableType, Preset};

/// Use, measure and look into a Memtide database.
#[derive(Debug, Parser)]
#[command(
    name = "memtide",
    version,
    after_help = "Exit codes: 0 done, 1 no such key or a failed check, 2 wrong arguments or \
                  configuration, 3 locked,\n4 damage, 5 no space, 6 I/O or no writes now, 7 no \
                  database or not supported."
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// Directory of the database; else MEMTIDE_DIR, else `data_dir` of the configuration file.
    #[arg(short, long, global = true, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Keyspace to work in.
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(crate) keyspace: Option<String>,
    /// Configuration file (TOML).
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Values for everything not named: high_performance, memory_efficient or balanced.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) preset: Option<Preset>,
    /// Memtable: sorted, skiplist, trie, linked_list, hash_linked_list, enhanced_skiplist,
    /// hash_skiplist or vector.
    #[arg(long, global = true, value_name = "TYPE")]
    pub(crate) memtable: Option<MemtableType>,
    /// Print for machines.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Set the value of a key.
    Put {
        /// The key.
        key: OsString,
        /// Its value.
        #[arg(allow_negative_numbers = true)]
        value: OsString,
    },
    /// Print the value of a key and a newline.
    Get {
        /// The key.
        key: OsString,
    },
    /// Delete a key.
    Del {
        /// The key.
        key: OsString,
    },
    /// Print keys with their values in key order, one row a line.
    Scan(Scan),
    /// Read records from a file into the database.
    Import(Import),
    /// Print a keyspace so that `import` can read it.
    Export {
        /// Format of the output.
        #[arg(long, value_name = "FORMAT", default_value = "jsonl")]
        format: ExportFormat,
    },
    /// Show what the database holds and uses.
    Stats,
    /// Write everything in memory to tables.
    Flush,
    /// Compact until the tree is in shape.
    Compact,
    /// Look at a database that is not in use and report all damage.
    Verify(Verify),
    /// Make a database of this moment in another directory; tables are shared by hard links where that works.
    Checkpoint {
        /// Directory of the new database: empty, or not there.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Keep many moments of a database in one directory, each table once.
    #[command(subcommand)]
    Backup(Backup),
    /// Tell what a person wants to know of a database that is not in use, and what to do next. Writes nothing.
    Doctor,
    /// Print what is in a file, or in all files of its kind, damaged places too: exit code 4 if there are any.
    Dump(Dump),
    /// Copy the sound files of a database that is not in use to a new directory, and list what is lost: exit code 4.
    Repair(Repair),
    /// Copy every sound block and record of a database that is not in use to a new directory, and list what is lost:
    /// exit code 4.
    Salvage {
        /// The new directory, which must be empty or not there.
        #[arg(long, value_name = "NEW")]
        to: PathBuf,
    },
    /// Print the keys that two databases have different values for: exit code 1 if there are any.
    Diff(Diff),
    /// Check or show a configuration.
    #[command(subcommand)]
    Config(Config),
    /// Measure on this machine.
    #[command(subcommand)]
    Bench(Bench),
    /// Serve a line protocol on standard input and output, for scripts.
    Exec(Exec),
}

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// Look at the manifest and a few pages of each file only.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Read every byte, as without flags.
    #[arg(long, conflicts_with = "quick")]
    pub(crate) full: bool,
}

/// Arguments of `dump`.
#[derive(Debug, clap::Args)]
pub(crate) struct Dump {
    /// What is looked at.
    pub(crate) kind: DumpFile,
    /// A file, or the directory of a database for all of them; else that of -d.
    #[arg(value_name = "FILE_OR_DIR")]
    pub(crate) path: Option<PathBuf>,
    /// Print keys and values, not only how long they are.
    #[arg(long)]
    pub(crate) show_data: bool,
}

/// Kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DumpFile {
    /// Segments of the log.
    Wal,
    /// Manifests.
    Manifest,
    /// Tables.
    Sst,
    /// Blob files.
    Blob,
}

/// Arguments of `repair`.
#[derive(Debug, clap::Args)]
pub(crate) struct Repair {
    /// The new directory, which must be empty or not there.
    #[arg(long, value_name = "NEW")]
    pub(crate) to: PathBuf,
    /// Give files a second name instead of copying them.
    #[arg(long)]
    pub(crate) link: bool,
}

/// Arguments of `diff`.
#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    /// One database.
    #[arg(value_name = "DIR")]
    pub(crate) left: PathBuf,
    /// The other.
    #[arg(value_name = "DIR")]
    pub(crate) right: PathBuf,
    /// Print the keys and values, not only how long they are.
    #[arg(long)]
    pub(crate) show_data: bool,
}

/// Arguments of `scan`.
#[derive(Debug, clap::Args)]
pub(crate) struct Scan {
    /// Only keys that begin so.
    #[arg(long, value_name = "P", conflicts_with_all = ["from", "to"])]
    pub(crate) prefix: Option<OsString>,
    /// Only keys from this one on.
    #[arg(long, value_name = "A")]
    pub(crate) from: Option<OsString>,
    /// Only keys before this one.
    #[arg(long, value_name = "B")]
    pub(crate) to: Option<OsString>,
    /// Largest key first.
    #[arg(long)]
    pub(crate) reverse: bool,
    /// At most so many rows.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Leave the values out.
    #[arg(long)]
    pub(crate) keys_only: bool,
    /// Print only how many rows there are.
    #[arg(long)]
    pub(crate) count: bool,
}

/// Arguments of `import`.
#[derive(Debug, clap::Args)]
pub(crate) struct Import {
    /// The file, or `-` for standard input.
    pub(crate) file: PathBuf,
    /// Format of the file.
    #[arg(long, value_name = "FORMAT", default_value = "jsonl")]
    pub(crate) format: ImportFormat,
    /// The field whose text is the key (deb822).
    #[arg(long, value_name = "FIELD")]
    pub(crate) key: Option<String>,
}

/// Formats `import` reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportFormat {
    /// Stanzas of `Field: text` lines, as Debian writes them; the value is the stanza.
    Deb822,
    /// One `{"k": …, "v": …}` a line; `k_hex` and `v_hex` for bytes that are not UTF-8.
    Jsonl,
    /// The line is the key, the value is empty.
    Lines,
}

/// Formats `export` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// One `{"k": …, "v": …}` a line; `k_hex` and `v_hex` for bytes that are not UTF-8.
    Jsonl,
}

/// What to do with backups.
#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    /// Add a backup of this moment; only what no earlier one has is copied.
    Create {
        /// Directory of backups, made if it is not there.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Print the backups, oldest first.
    List {
        /// Directory of backups.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
    },
    /// Look whether all files of all backups are there, and report damage.
    Verify {
        /// Directory of backups.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// Read every byte and compare it with its checksum.
        #[arg(long)]
        full: bool,
    },
    /// Make a database from a backup; every byte is compared with its checksum.
    Restore {
        /// Directory of backups.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// Which one; else the newest.
        #[arg(long, value_name = "N")]
        id: Option<u64>,
        /// Directory of the new database: empty, or not there.
        #[arg(long, value_name = "NEW")]
        to: PathBuf,
    },
    /// Remove all backups but the newest, and what no other needs.
    Prune {
        /// Directory of backups.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// How many to keep, at least one.
        #[arg(long, value_name = "N")]
        keep: usize,
    },
}

/// What to do with a configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// List everything that is wrong with a file and the flags.
    Check {
        /// The file; else the one of --config.
        file: Option<PathBuf>,
    },
    /// Print every option with the value the engine would use, as TOML.
    Show,
    /// Print what each preset stands for.
    Presets,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Compare the memtables: alone, and below a database on disk. Every operation is checked.
    Memtables(Box<Memtables>),
}

/// Arguments of `bench memtables`. Every combination of the lists is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Memtables {
    /// Numbers of entries.
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "100,1000,5000",
        value_parser = clap::value_parser!(u32).range(1..=10_000_000)
    )]
    pub(crate) entries: Vec<u32>,
    /// Memtables to compare; all eight when left out.
    #[arg(long, value_name = "TYPE,…", value_delimiter = ',')]
    pub(crate) types: Vec<MemtableType>,
    /// What the keys look like.
    #[arg(long, value_name = "KEYS,…", value_delimiter = ',', default_value = "random")]
    pub(crate) keys: Vec<KeyShape>,
    /// Lengths of the values.
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "64",
        value_parser = clap::value_parser!(u32).range(0..=1_048_576)
    )]
    pub(crate) value_bytes: Vec<u32>,
    /// Work to measure; load, read, miss and scan are part of every run.
    #[arg(
        long,
        value_name = "MIX,…",
        value_delimiter = ',',
        default_value = "load,read,miss,scan"
    )]
    pub(crate) mixes: Vec<Mix>,
    /// Numbers of threads that share the work.
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=64)
    )]
    pub(crate) threads: Vec<u32>,
    /// How many entries are loaded, or read, at a time.
    #[arg(
        long,
        value_name = "N",
        default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=10_000)
    )]
    pub(crate) batch: u32,
    /// The whole matrix: sizes to 1,000,000, all keys, values of 16 to 1024 B, all mixes, 1 to 4 threads.
    /// Takes a quarter of an hour; --types shortens it.
    #[arg(
        long,
        conflicts_with_all = ["entries", "keys", "value_bytes", "mixes", "threads", "batch"]
    )]
    pub(crate) full: bool,
    /// Also write the results as one HTML page with plots, which needs nothing else.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Print Markdown.
    #[arg(long)]
    pub(crate) markdown: bool,
}

/// What the keys of a measurement look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyShape {
    /// 16 random bytes.
    Random,
    /// 16 digits that rise.
    Sequential,
    /// 64 bytes, the first 48 shared by many keys.
    SharedPrefix,
    /// Addresses of web pages, about 60 bytes.
    Url,
}

/// What is done with the memtable, in the order it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Mix {
    /// Put every entry.
    Load,
    /// Get every entry, in random order.
    Read,
    /// Get keys that are not there.
    Miss,
    /// Walk over everything in order; figures are for one entry.
    Scan,
    /// Find the first of a few keys with the same prefix and walk over them, 50 at most.
    PrefixScan,
    /// 95 of 100 operations get, 5 overwrite.
    ReadMostly,
    /// 95 of 100 operations are prefix scans, 5 overwrite.
    ScanWrite,
    /// Half the operations get, half overwrite.
    ReadWrite,
    /// Overwrite some keys often and most keys seldom.
    OverwriteZipf,
}

/// Arguments of `exec`.
#[derive(Debug, clap::Args)]
pub(crate) struct Exec {
    /// Directory of the database; else that of -d.
    #[arg(value_name = "DIR")]
    pub(crate) exec_dir: Option<PathBuf>,
    /// What an acknowledged write survives: none, buffered, interval:MILLISECONDS or sync.
    #[arg(long, value_name = "LEVEL")]
    pub(crate) durability: Option<Durability>,
    /// Sets one option, as a configuration file names it.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) options: Vec<String>,
    /// Open read-only: every write is refused.
    #[arg(long)]
    pub(crate) read_only: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn only_the_eight_memtables_are_accepted() {
        let parse = |name: &str| Args::try_parse_from(["memtide", "stats", "--memtable", name]);
        for kind in MemtableType::ALL {
            let args = parse(kind.name()).expect("one of the eight");
            assert_eq!(args.global.memtable, Some(kind));
        }
        let error = parse("skiplists").expect_err("not one of the eight");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("did you mean \"skiplist\"?"), "{error}");
    }
}
