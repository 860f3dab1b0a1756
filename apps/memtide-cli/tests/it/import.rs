//! `import` and `export`: formats, duplicates, acknowledgements that survive a kill.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::program::Program;

#[test]
fn an_export_imported_elsewhere_gives_the_same_export() {
    let (one, other) = (Program::new(), Program::new());
    let rows = "{\"k\":\"\",\"v\":\"empty key\"}\n\
                {\"k\":\"a\\tb\\\\\\\"\",\"v\":\"\"}\n\
                {\"k\":\"größe\",\"v_hex\":\"ff00\"}\n\
                {\"k_hex\":\"80\",\"v\":\"line\\nbreak\"}\n\
                {\"k_hex\":\"ff0a00\",\"v_hex\":\"c328\"}\n";
    let imported = one.feed(&["import", "-"], rows.as_bytes());
    assert_eq!(imported.code, Some(0), "{imported:?}");
    let exported = one.ok(&["export"]);
    assert_eq!(exported, rows);
    let imported = other.feed(&["import", "-", "--format", "jsonl"], exported.as_bytes());
    assert_eq!(imported.code, Some(0), "{imported:?}");
    assert_eq!(other.ok(&["export", "--format", "jsonl"]), rows);
    let scanned = one.ok(&["scan"]);
    let shown: Vec<_> = scanned.lines().collect();
    let want = [
        "\tempty key",
        "a\\x09b\\\\\"\t",
        "größe\t\\xff\\x00",
        "\\x80\tline\\nbreak",
        "\\xff\\n\\x00\t\\xc3(",
    ];
    assert_eq!(shown, want);
}

#[test]
fn the_later_duplicate_wins_and_is_counted() {
    let program = Program::new();
    let mut rows: Vec<String> =
        (0..2500).map(|n| format!("{{\"k\":\"{n}\",\"v\":\"first\"}}")).collect();
    // One duplicate in the batch of its elder, one in a later batch.
    rows.insert(10, "{\"k\":\"3\",\"v\":\"second\"}".to_owned());
    rows.push("{\"k\":\"4\",\"v\":\"second\"}".to_owned());
    let imported = program.feed(&["import", "-", "--json"], rows.join("\n").as_bytes());
    assert_eq!(imported.code, Some(0), "{imported:?}");
    let summary: serde_json::Value = serde_json::from_str(&imported.out).expect("JSON");
    assert_eq!(summary, serde_json::json!({ "records": 2502, "duplicates": 2 }));
    assert_eq!(
        imported.err,
        "acked 1000\nacked 2000\nacked 2502\nimported 2502 records, 2 duplicates\n"
    );
    assert_eq!(program.ok(&["get", "3"]), "second\n");
    assert_eq!(program.ok(&["get", "4"]), "second\n");
    assert_eq!(program.ok(&["scan", "--count"]), "2500\n");
}

#[test]
fn a_wrong_line_is_named_and_the_records_before_it_are_kept() {
    let program = Program::new();
    let file = program.file("rows", "{\"k\":\"a\",\"v\":\"1\"}\n\n{\"k\":\"b\"}\n");
    let imported = program.run(&["import", &file]);
    assert_eq!(imported.code, Some(2));
    assert!(imported.err.starts_with("acked 1\nmemtide: "), "{imported:?}");
    assert!(imported.err.contains("rows line 3: the row has neither \"v\" nor \"v_hex\""));
    assert_eq!(program.ok(&["get", "a"]), "1\n");

    let long = format!("short\n{}\n", "k".repeat(70_000));
    let imported = program.feed(&["import", "-", "--format", "lines"], long.as_bytes());
    assert_eq!(imported.code, Some(2), "{imported:?}");
    assert!(imported.err.contains("were not imported"), "{imported:?}");
    assert!(imported.err.contains("caused by: "), "{imported:?}");
}

#[test]
fn the_arguments_of_import_fit_together_before_a_database_is_made() {
    let program = Program::new();
    let file = program.file("x", "x\n");
    for (args, message) in [
        (&["--format", "deb822"][..], "deb822 needs the field that is the key"),
        (&["--key", "Package"], "--key goes with --format deb822 only"),
        (&["--format", "xml"], "invalid value 'xml'"),
    ] {
        let imported = program.run(&[&["import", &file], args].concat());
        assert_eq!(imported.code, Some(2), "{imported:?}");
        assert!(imported.err.contains(message), "{imported:?}");
    }
    assert!(!program.path("db").exists());
}

#[test]
fn after_a_kill_every_acknowledged_record_is_there() {
    let program = Program::new();
    let key = |n: usize| format!("key {n:08}");
    let mut child = program
        .command(&["import", "-", "--format", "lines"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    // Feeds until the program is gone.
    let feeder = std::thread::spawn(move || {
        (0..).find(|&n| stdin.write_all(format!("{}\n", key(n)).as_bytes()).is_err())
    });
    let mut acked = 0;
    for line in BufReader::new(child.stderr.take().expect("piped")).lines() {
        let line = line.expect("UTF-8");
        let count = line.strip_prefix("acked ").unwrap_or_else(|| panic!("{line}"));
        acked = count.parse().expect("a number");
        if acked == 5000 {
            child.kill().expect("still running");
        }
    }
    child.wait().expect("it ends");
    feeder.join().expect("fed").expect("it saw the program go");
    assert!(acked >= 5000);

    let scanned = program.ok(&["scan", "--keys-only"]);
    let found: Vec<&str> = scanned.lines().collect();
    let first: Vec<String> = (0..found.len()).map(key).collect();
    assert!(found.len() >= acked, "{} of {acked} acknowledged records", found.len());
    assert_eq!(found, first, "a prefix of the input");
}
