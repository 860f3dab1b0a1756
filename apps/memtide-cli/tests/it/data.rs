//! `put`, `get`, `del`, `scan`, `stats`, `flush`, `compact`, `verify`: one database from a shell.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::program::{Program, ran};

const STATUS: &str = "Package: bash\nStatus: install ok installed\nDescription: GNU shell\n A shell.\n\n\
                      Package: libacl1\nVersion: 2.3\n\nPackage: libc6\nVersion: 2.36\n\n\
                      Package: zlib1g\nVersion: 1.2\n";

#[test]
fn a_package_list_is_imported_and_looked_into_as_the_readme_says() {
    let program = Program::new();
    let status = program.file("status", STATUS);
    let import =
        ["--memtable", "trie", "import", &status, "--format", "deb822", "--key", "Package"];
    let imported = program.run(&import);
    assert_eq!((imported.code, imported.out.as_str()), (Some(0), ""), "{imported:?}");
    assert_eq!(imported.err, "acked 4\nimported 4 records, 0 duplicates\n");

    let bash = "Package: bash\nStatus: install ok installed\nDescription: GNU shell\n A shell.\n";
    assert_eq!(program.ok(&["get", "bash"]), bash);
    assert_eq!(
        program.ok(&["scan", "--prefix", "lib", "--limit", "5"]),
        "libacl1\tPackage: libacl1\\nVersion: 2.3\nlibc6\tPackage: libc6\\nVersion: 2.36\n"
    );

    // The type that was named is kept by the database.
    let stats: serde_json::Value =
        serde_json::from_str(&program.ok(&["stats", "--json"])).expect("JSON");
    assert_eq!(stats["keyspaces"][0]["memtable_type"], "trie");
    assert!(program.ok(&["stats"]).contains("trie"));
}

#[test]
fn keys_are_put_deleted_and_scanned_in_both_directions() {
    let program = Program::new();
    for (key, value) in [("b", "2"), ("a", "1"), ("d", "4"), ("c", "-3"), ("a", "one")] {
        program.ok(&["put", key, value]);
    }
    program.ok(&["del", "d"]);
    program.ok(&["del", "never there"]);
    assert_eq!(program.ok(&["get", "a"]), "one\n");
    assert_eq!(program.ok(&["scan"]), "a\tone\nb\t2\nc\t-3\n");
    for (args, shown) in [
        (&["--from", "b"][..], "b\nc\n"),
        (&["--to", "b"], "a\n"),
        (&["--from", "b", "--to", "c"], "b\n"),
        (&["--from", "c", "--to", "a"], ""),
        (&["--reverse"], "c\nb\na\n"),
        (&["--reverse", "--limit", "1"], "c\n"),
        (&["--reverse", "--to", "c", "--limit", "1"], "b\n"),
        (&["--prefix", "b"], "b\n"),
        (&["--limit", "0"], ""),
        (&["--count"], "3\n"),
        (&["--count", "--limit", "2"], "2\n"),
        (&["--json"], "{\"k\":\"a\"}\n{\"k\":\"b\"}\n{\"k\":\"c\"}\n"),
    ] {
        let scan = [&["scan", "--keys-only"], args].concat();
        assert_eq!(program.ok(&scan), shown, "{args:?}");
    }
    assert_eq!(program.ok(&["get", "a", "--json"]), "{\"k\":\"a\",\"v\":\"one\"}\n");
}

#[test]
fn upkeep_changes_no_answer_and_a_sound_database_verifies() {
    let program = Program::new();
    for key in ["a", "b", "c"] {
        program.ok(&["put", key, "1"]);
        program.ok(&["flush"]);
    }
    program.ok(&["put", "b", "2"]);
    program.ok(&["compact"]);
    assert_eq!(program.ok(&["scan"]), "a\t1\nb\t2\nc\t1\n");
    let verified = program.run(&["verify", "--json"]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    let report: serde_json::Value = serde_json::from_str(&verified.out).expect("JSON");
    assert_eq!(report["damages"], serde_json::json!([]));
    assert!(report["files"].as_u64() > Some(0) && report["bytes"].as_u64() > Some(0));
    assert!(verified.err.starts_with("no damage in "), "{verified:?}");
}

#[test]
fn keyspaces_are_apart_and_only_writing_makes_one() {
    let program = Program::new();
    program.ok(&["put", "a", "default"]);
    let missing = program.run(&["-k", "users", "scan"]);
    assert_eq!(missing.code, Some(1));
    assert_eq!(missing.err, "memtide: there is no keyspace \"users\"; known: default\n");
    program.ok(&["-k", "users", "put", "a", "users"]);
    assert_eq!(program.ok(&["get", "a"]), "default\n");
    assert_eq!(program.ok(&["get", "a", "-k", "users"]), "users\n");
}

#[test]
fn the_directory_comes_from_the_flag_then_the_environment_then_the_file() {
    let program = Program::new();
    let file = program.file("memtide.toml", "data_dir = \"of-file\"\n");
    let put = |args: &[&str], environment: Option<&str>| {
        let mut command = program.bare(args);
        command.args(["--config", &file, "put", "k", "v"]);
        if let Some(dir) = environment {
            command.env("MEMTIDE_DIR", dir);
        }
        assert_eq!(ran(command.output().expect("starts")).code, Some(0));
    };
    put(&["-d", "of-flag"], Some("of-environment"));
    assert!(program.path("of-flag").is_dir() && !program.path("of-environment").exists());
    put(&[], Some("of-environment"));
    assert!(program.path("of-environment").is_dir() && !program.path("of-file").exists());
    put(&[], None);
    assert!(program.path("of-file").is_dir());
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let program = Program::new();
    let lines: String = (0..20_000).map(|n| format!("key {n:08}\n")).collect();
    assert_eq!(program.feed(&["import", "-", "--format", "lines"], lines.as_bytes()).code, Some(0));
    for args in [&["export"][..], &["scan"]] {
        let mut child = program.command(args).stdout(Stdio::piped()).spawn().expect("starts");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut first = String::new();
        output.read_line(&mut first).expect("a row");
        assert!(first.contains("key 00000000"), "{first}");
        drop(output);
        let ended = ran(child.wait_with_output().expect("ends"));
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{args:?}");
    }
}
