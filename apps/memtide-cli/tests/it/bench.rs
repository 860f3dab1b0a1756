//! `bench memtables`: all variants, every operation checked, one JSON shape, and a page with the same figures.

use serde_json::Value;

use crate::program::Program;

const FIELDS: [&str; 26] = [
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
    "keys",
    "value_bytes",
    "threads",
    "batch",
    "rounds",
    "payload_per_entry",
    "index_per_entry",
    "waste_per_entry",
    "put_cpu_ns",
    "get_cpu_ns",
    "scan_cpu_ns",
    "mixes",
];

const MIX_FIELDS: [&str; 17] = [
    "mix",
    "operations",
    "noise_percent",
    "cpu_noise_percent",
    "engine_noise_percent",
    "ns",
    "ns_low",
    "ns_high",
    "cpu_ns",
    "cpu_ns_low",
    "cpu_ns_high",
    "engine_ns",
    "engine_ns_low",
    "engine_ns_high",
    "engine_cpu_ns",
    "engine_cpu_ns_low",
    "engine_cpu_ns_high",
];

const TEXTS: [&str; 3] = ["memtable", "keys", "mix"];

fn rows(report: &str) -> Vec<Value> {
    let report: Value = serde_json::from_str(report).expect("JSON");
    report.as_array().expect("an array").clone()
}

#[track_caller]
fn assert_fields(object: &Value, fields: &[&str]) {
    let names: Vec<_> = object.as_object().expect("an object").keys().collect();
    assert_eq!(names.len(), fields.len(), "{names:?}");
    for field in fields {
        let value = &object[field];
        let right = if TEXTS.contains(field) { value.is_string() } else { value.is_number() };
        assert!(right || *field == "mixes" && value.is_array(), "{field} of {object}");
    }
}

#[test]
fn all_eight_memtables_answer_every_operation_right() {
    let program = Program::new();
    let report = program.ok(&["bench", "memtables", "--entries", "10,300", "--json"]);
    let rows = rows(&report);
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
    for row in &rows {
        assert_fields(row, &FIELDS);
        assert_eq!(row["ops_ok"], row["ops_total"], "{row}");
        let number = |field: &str| row[field].as_u64().expect(field);
        assert_eq!(number("payload_bytes"), 80 * number("entries"));
        assert!(number("used_bytes") > number("payload_bytes"), "{row}");
        assert!(number("reserved_bytes") >= number("used_bytes"), "{row}");
        assert!(row["engine_put_ns"].as_f64() > Some(0.0), "{row}");
        let per_entry = |field: &str| row[field].as_f64().expect(field);
        let parts = per_entry("payload_per_entry") + per_entry("index_per_entry");
        assert!((parts - per_entry("bytes_per_entry")).abs() < 0.11, "{row}");
    }
}

#[test]
fn batches_of_puts_and_gets_are_measured_and_right() {
    let program = Program::new();
    let options = ["bench", "memtables", "--json", "--entries=300", "--batch=16"];
    for row in rows(&program.ok(&options)) {
        assert_eq!((&row["ops_ok"], &row["batch"]), (&row["ops_total"], &16.into()), "{row}");
    }
    let options = ["bench", "memtables", "--entries=60", "--types=trie", "--batch=16"];
    let shown = program.ok(&options);
    assert!(shown.contains("1 thread, 16 at a time"), "{shown}");
}

#[test]
fn every_mix_is_measured_with_its_spread_and_noise() {
    const MIXES: &str = "overwrite-zipf,scan-write,read-write,read-mostly,prefix-scan";
    let program = Program::new();
    let options = ["--entries=60", "--types=trie,vector", "--threads=2", "--mixes", MIXES];
    let asked = [&["bench", "memtables", "--json"][..], &options].concat();
    for row in rows(&program.ok(&asked)) {
        assert_eq!(row["ops_ok"], row["ops_total"], "{row}");
        assert_eq!(row["threads"], 2);
        let mixes = row["mixes"].as_array().expect("an array");
        let names: Vec<_> = mixes.iter().map(|mix| mix["mix"].as_str().expect("a name")).collect();
        let first = ["load", "read", "miss", "scan"];
        let behind = ["prefix-scan", "read-mostly", "scan-write", "read-write", "overwrite-zipf"];
        assert_eq!(names, [&first[..], &behind].concat());
        for mix in mixes {
            assert_fields(mix, &MIX_FIELDS);
            for clock in ["ns", "cpu_ns", "engine_ns", "engine_cpu_ns"] {
                let figure = |end: &str| mix[format!("{clock}{end}")].as_f64().expect("a number");
                let in_order = figure("_low") <= figure("") && figure("") <= figure("_high");
                assert!(in_order && figure("") > 0.0, "{clock} of {mix}");
            }
        }
        for (mix, field) in [(0, "put"), (1, "get"), (3, "scan")] {
            assert_eq!(mixes[mix]["ns"], row[format!("{field}_ns")]);
            assert_eq!(mixes[mix]["cpu_ns"], row[format!("{field}_cpu_ns")]);
            assert_eq!(mixes[mix]["engine_ns"], row[format!("engine_{field}_ns")]);
        }
    }
}

#[test]
fn keys_and_values_of_every_shape_are_measured() {
    let program = Program::new();
    let report = program.ok(&[
        "bench",
        "memtables",
        "--json",
        "--types=hash_skiplist",
        "--entries=50",
        "--keys=random,sequential,shared-prefix,url",
        "--value-bytes=0,300",
    ]);
    let rows = rows(&report);
    assert_eq!(rows.len(), 8);
    for row in rows {
        assert_eq!(row["ops_ok"], row["ops_total"], "{row}");
        let number = |field: &str| row[field].as_u64().expect(field);
        let keys = number("payload_bytes") - 50 * number("value_bytes");
        let each = match row["keys"].as_str().expect("a name") {
            "random" | "sequential" => 16..=16,
            "shared-prefix" => 64..=64,
            _ => 53..=68,
        };
        assert!(each.contains(&(keys / 50)), "{row}");
    }
}

#[test]
fn the_table_shows_what_was_asked_for() {
    let program = Program::new();
    let shown = program.ok(&["bench", "memtables", "--entries", "20", "--types", "trie,vector"]);
    let named = |name: &str| shown.lines().filter(|line| line.trim().starts_with(name)).count();
    assert_eq!((named("trie"), named("vector"), named("sorted")), (1, 1, 0), "{shown}");
    let header: Vec<&str> = shown.lines().next().expect("a header").split_whitespace().collect();
    let columns = "memtable entries ok used reserved B/entry put get scan db put db get db scan";
    assert_eq!(header.join(" "), columns);
    assert_eq!(named("noise floor"), 1 + 1, "a row, and what it means: {shown}");
}

#[test]
fn markdown_is_a_table_that_documents_take() {
    let program = Program::new();
    let shown = program.ok(&["bench", "memtables", "--entries=20", "--types=trie", "--markdown"]);
    let lines: Vec<&str> = shown.trim_end().lines().collect();
    assert_eq!(lines.len(), 4, "header, rule, memtable, noise: {shown}");
    assert!(lines.iter().all(|line| line.matches('|').count() == 13), "{shown}");
    assert!(lines[2].starts_with("| `trie` | 20 | "), "{shown}");
}

/// The figures of a row of a table of the page: what stands in its cells.
fn cells<'p>(page: &'p str, of: &str) -> Vec<&'p str> {
    let begin = format!("<tr data-of=\"{of}\">");
    let (_, row) = page.split_once(&begin).unwrap_or_else(|| panic!("{begin} is not there"));
    let row = row.split('\n').next().expect("a line");
    row.split("<td>").skip(1).collect()
}

#[test]
fn the_page_holds_every_figure_of_the_json_and_needs_nothing_else() {
    let program = Program::new();
    let asked = [
        "bench",
        "memtables",
        "--json",
        "--entries=20,200",
        "--types=sorted,trie",
        "--threads=1,2",
        "--value-bytes=8,64",
        "--keys=random,url",
        "--mixes=read-write,prefix-scan",
        "--html=page.html",
    ];
    let rows = rows(&program.ok(&asked));
    let page = std::fs::read_to_string(program.path("page.html")).expect("written");
    assert_eq!(rows.len(), 32);
    for row in &rows {
        let text = |field: &str| row[field].as_str().map_or(row[field].to_string(), str::to_owned);
        let of = ["memtable", "entries", "keys", "value_bytes", "threads"].map(text).join(" ");
        let shown = cells(&page, &format!("{of} "));
        for field in FIELDS.iter().filter(|field| !["memtable", "mixes"].contains(field)) {
            assert!(shown.contains(&text(field).as_str()), "{field} of {of}: {shown:?}");
        }
        for mix in row["mixes"].as_array().expect("an array") {
            let shown = cells(&page, &format!("{of} {}", mix["mix"].as_str().expect("a name")));
            for (field, figure) in mix.as_object().expect("an object") {
                let figure = figure.as_str().map_or(figure.to_string(), str::to_owned);
                assert!(shown.contains(&figure.as_str()), "{field} of {mix}: {shown:?}");
            }
        }
    }
    for outside in ["<script", "<link", "<img", "<iframe", "http:", "https:", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
    for broken in ["NaN", "inf ", "inf\""] {
        assert!(!page.contains(broken), "{broken}");
    }
    let count = |tag: &str| page.matches(tag).count();
    for tag in ["svg", "g", "text", "figure", "details", "div", "section", "main"] {
        let begun = count(&format!("<{tag} ")) + count(&format!("<{tag}>"));
        assert_eq!(begun, count(&format!("</{tag}>")), "{tag}");
    }
    for heading in ["Speed by size", "Bytes for each entry", "Who wins where", "More threads"] {
        assert!(page.contains(heading), "{heading}");
    }
}
