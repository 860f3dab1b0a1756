//! `bench memtables`: all variants, every operation checked, one JSON shape.

use crate::program::Program;

const FIELDS: [&str; 14] = [
    "memtable",
    "entries",
    "ops_ok",
    "ops_total",
    "used_bytes",
    "reserved_bytes",
    "payload_bytes",
    "bytes_per_entry",
    "put_ns",
    "get_ns",
    "scan_ns",
    "engine_put_ns",
    "engine_get_ns",
    "engine_scan_ns",
];

#[test]
fn all_eight_memtables_answer_every_operation_right() {
    let program = Program::new();
    let report = program.ok(&["bench", "memtables", "--entries", "10,300", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let rows = report.as_array().expect("an array");
    let shown: Vec<_> = rows
        .iter()
        .map(|row| (row["entries"].as_u64(), row["memtable"].as_str().expect("a name")))
        .collect();
    let kinds = memtide::MemtableType::ALL;
    let want: Vec<_> = [10, 300]
        .into_iter()
        .flat_map(|entries| kinds.iter().map(move |kind| (Some(entries), kind.name())))
        .collect();
    assert_eq!(shown, want);
    for row in rows {
        let fields: Vec<_> = row.as_object().expect("an object").keys().collect();
        assert_eq!(fields.len(), FIELDS.len());
        for field in FIELDS {
            assert!(row[field].is_number() || field == "memtable", "{field} of {row}");
        }
        assert_eq!(row["ops_ok"], row["ops_total"], "{row}");
        let number = |field: &str| row[field].as_u64().expect(field);
        assert_eq!(number("payload_bytes"), 80 * number("entries"));
        assert!(number("used_bytes") > number("payload_bytes"), "{row}");
        assert!(number("reserved_bytes") >= number("used_bytes"), "{row}");
        assert!(row["engine_put_ns"].as_f64() > Some(0.0), "{row}");
    }
}

#[test]
fn the_table_shows_what_was_asked_for() {
    let program = Program::new();
    let shown = program.ok(&["bench", "memtables", "--entries", "20", "--types", "trie,vector"]);
    let named = |name: &str| shown.lines().filter(|line| line.trim().starts_with(name)).count();
    assert_eq!((named("trie"), named("vector"), named("sorted")), (1, 1, 0), "{shown}");
}
