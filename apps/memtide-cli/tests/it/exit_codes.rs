//! The exit code says what happened, and a message says it in words.

use std::fs::{self, File};

use crate::program::{Program, Ran, ran};

#[track_caller]
fn assert_ends(ran: &Ran, code: i32, message: &str) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert_eq!(ran.out, "", "data only on standard output: {ran:?}");
    assert!(ran.err.contains(message), "{message:?}: {ran:?}");
}

#[test]
fn an_absent_key_is_one() {
    let program = Program::new();
    program.ok(&["put", "a", "1"]);
    assert_ends(&program.run(&["get", "b\n"]), 1, "memtide: there is no key \"b\\n\"");
}

#[test]
fn wrong_arguments_are_two() {
    let program = Program::new();
    let wrong = program.run(&["--memtable", "skiplists", "put", "a", "1"]);
    assert_ends(&wrong, 2, "unknown memtable type \"skiplists\"; did you mean \"skiplist\"?");
    assert_ends(&program.run(&["--preset", "balance", "stats"]), 2, "\"balanced\"");
    assert_ends(&program.run(&["bench", "memtables", "--types", "trie,btree"]), 2, "btree");
    for (options, message) in [
        (&["--keys", "uuid"][..], "[possible values: random, sequential, shared-prefix, url]"),
        (&["--mixes", "reads"], "a similar value exists: 'read'"),
        (&["--entries", "0"], "0 is not in 1..=10000000"),
        (&["--threads", "65"], "65 is not in 1..=64"),
        (&["--value-bytes=-1"], "-1 is not in 0..=1048576"),
        (&["--full", "--entries", "100"], "cannot be used with"),
        (&["--json", "--markdown"], "--json and --markdown exclude each other"),
        (&["--entries", "2", "--threads", "3"], "3 threads cannot share 2 entries"),
        (&["--types", "trie,trie"], "memtide: --types names trie twice"),
        (&["--entries", "1000000", "--value-bytes", "65536"], "in one memtable, above 12 GiB"),
    ] {
        assert_ends(&program.run(&[&["bench", "memtables"], options].concat()), 2, message);
    }
    assert_ends(&program.run(&["gett", "a"]), 2, "get");
    assert_ends(&program.run(&["put", "a"]), 2, "<VALUE>");
    let nowhere = ran(program.bare(&["get", "a"]).output().expect("starts"));
    assert_ends(&nowhere, 2, "no database directory is named; use -d DIR, MEMTIDE_DIR");
    let set =
        ran(program.bare(&["exec", "db", "--set", "memtable_type"]).output().expect("starts"));
    assert_ends(&set, 2, "--set takes KEY=VALUE");
    let set = ran(program.bare(&["exec", "db", "--set", "tree.x=1"]).output().expect("starts"));
    assert_ends(&set, 2, "tree.x: unknown option");
    let key = "k".repeat(70_000);
    assert_ends(&program.run(&["put", &key, "1"]), 2, "memtide: ");
}

#[test]
fn a_database_in_use_is_three() {
    let program = Program::new();
    let mut exec = program.exec(&[]);
    exec.acknowledge("put d 61 31");
    assert_ends(&program.run(&["put", "a", "2"]), 3, "memtide: ");
    assert_ends(&program.run(&["get", "a"]), 3, "memtide: ");
    assert_ends(&ran(program.bare(&["exec", "db"]).output().expect("starts")), 3, "memtide: ");
    assert_eq!(exec.end().code, Some(0));
    assert_eq!(program.ok(&["get", "a"]), "1\n");
}

#[test]
fn damage_is_four_and_named() {
    let program = Program::new();
    let rows: String = (0..500).map(|n| format!("{n} of many keys\n")).collect();
    let imported = program.feed(&["import", "-", "--format", "lines"], rows.as_bytes());
    assert_eq!(imported.code, Some(0), "{imported:?}");
    program.ok(&["flush"]);
    let tables = fs::read_dir(program.path("db/sst")).expect("tables");
    let table = tables.map(|entry| entry.expect("readable").path()).next().expect("a table");
    let mut bytes = fs::read(&table).expect("readable");
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    fs::write(&table, bytes).expect("written");

    let verified = program.run(&["verify"]);
    assert_eq!(verified.code, Some(4), "{verified:?}");
    let name = table.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(verified.out.lines().any(|line| line.contains(&name)), "{verified:?}");
    assert!(verified.err.contains("damaged place"), "{verified:?}");
    let listed = program.run(&["verify", "--json"]);
    assert_eq!(listed.code, Some(4));
    let listed: serde_json::Value = serde_json::from_str(&listed.out).expect("JSON");
    assert!(listed["damages"][0]["file"].as_str().expect("a file").contains(&name));
    assert!(listed["damages"][0]["offset"].is_u64());
    assert_eq!(program.run(&["export"]).code, Some(4), "never a wrong row");
    program.ok(&["verify", "--quick"]);
    fs::remove_file(&table).expect("removed");
    assert_eq!(program.run(&["verify", "--quick"]).code, Some(4));
    assert_eq!(program.run(&["verify", "--quick", "--full"]).code, Some(2));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_is_five() {
    let program = Program::new();
    program.ok(&["put", "a", "1"]);
    let full = File::options().write(true).open("/dev/full").expect("Linux has it");
    let ended = ran(program.command(&["scan"]).stdout(full).output().expect("starts"));
    assert_ends(&ended, 5, "memtide: could not write to standard output\n  caused by: ");
}

#[test]
fn a_file_that_cannot_be_read_is_six() {
    let program = Program::new();
    let missing = program.run(&["import", "no-such-file", "--format", "lines"]);
    assert_ends(&missing, 6, "memtide: could not open no-such-file\n  caused by: ");
    assert_ends(&program.run(&["--config", "none.toml", "stats"]), 6, "could not read none.toml");
    let page = program.run(&["bench", "memtables", "--html", "no-such-directory/page.html"]);
    assert_ends(&page, 6, "memtide: could not write no-such-directory/page.html\n  caused by: ");
    assert!(!program.path("db").exists());
}

#[test]
fn no_database_is_seven() {
    let program = Program::new();
    for args in [
        &["get", "a"][..],
        &["scan"],
        &["del", "a"],
        &["export"],
        &["stats"],
        &["verify"],
        &["flush"],
        &["compact"],
    ] {
        assert_ends(&program.run(args), 7, "memtide: ");
    }
    let exec = ran(program.bare(&["exec", "db", "--read-only"]).output().expect("starts"));
    assert_ends(&exec, 7, "memtide: ");
    assert!(!program.path("db").exists(), "looking makes no database");
}

#[test]
fn help_and_version_are_data() {
    let program = Program::new();
    let help = ran(program.bare(&["--help"]).output().expect("starts"));
    assert_eq!((help.code, help.err.as_str()), (Some(0), ""));
    assert!(help.out.contains("Exit codes: 0 done"));
    let version = ran(program.bare(&["--version"]).output().expect("starts"));
    assert_eq!(version.out, format!("memtide {}\n", env!("CARGO_PKG_VERSION")));
}
