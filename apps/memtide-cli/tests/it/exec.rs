//! `exec`: the line protocol, one answer for each line.

use crate::program::Program;

#[test]
fn each_line_is_answered_by_one_line() {
    let program = Program::new();
    let mut exec = program.exec(&["--durability", "sync"]);
    let (first, durable) = exec.acknowledge("put d 6b 76");
    assert!(durable > first, "a synced write is durable");
    let (second, _) = exec.acknowledge("put d . .");
    assert!(second > first);
    for (line, answer) in [
        ("get d 6b", "val 76"),
        ("get d .", "val ."),
        ("get d 00", "nil"),
        ("get users 6b", "nil"),
        ("scan d - -", "rows .=. 6b=76"),
        ("scan d - - rev", "rows 6b=76 .=."),
        ("scan d - - rev limit 1", "rows 6b=76"),
        ("scan d - - limit 1", "rows .=."),
        ("scan d 6b -", "rows 6b=76"),
        ("scan d 6b 6b", "rows"),
        ("scan d - 6b", "rows .=."),
        ("scan d . 6c rev", "rows 6b=76 .=."),
        ("scan users - -", "rows"),
    ] {
        assert_eq!(exec.ask(line), answer, "{line}");
    }
    let stats = exec.ask("stats");
    let stats: serde_json::Value =
        serde_json::from_str(stats.strip_prefix("ok ").expect("ok")).expect("JSON");
    assert_eq!(stats["keyspaces"].as_array().map(Vec::len), Some(2), "default and users");
    let health = exec.ask("health");
    let health: serde_json::Value =
        serde_json::from_str(health.strip_prefix("ok ").expect("ok")).expect("JSON");
    assert_eq!(
        (&health["state"], &health["reason"]),
        (&"healthy".into(), &serde_json::Value::Null)
    );
    assert_eq!(stats["health"], health);
    exec.acknowledge("resume");
    exec.acknowledge("del d 6b");
    assert_eq!(exec.ask("get d 6b"), "nil");
    let ended = exec.end();
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (Some(0), "", ""));
}

#[test]
fn a_line_that_fails_is_answered_and_the_next_is_read() {
    let program = Program::new();
    let mut exec = program.exec(&[]);
    for (line, answer) in [
        ("", "err INVALID "),
        ("shout d 00", "err INVALID unknown command \"shout\""),
        ("put d 0 00", "err INVALID "),
        ("put d 00", "err INVALID "),
        ("memtable d skiplists", "err INVALID unknown memtable type \"skiplists\""),
        ("commit", "err INVALID "),
        ("release", "err INVALID "),
    ] {
        let got = exec.ask(line);
        assert!(got.starts_with(answer), "{line}: {got}");
    }
    let long = exec.ask(&format!("put d {} 00", "00".repeat(65_536)));
    assert!(long.starts_with("err INVALID "), "{long}");
    exec.acknowledge("put d 00 00");
    assert_eq!(exec.end().code, Some(0));
}

#[test]
fn a_batch_happens_at_its_commit_and_one_left_open_never() {
    let program = Program::new();
    let mut exec = program.exec(&[]);
    exec.acknowledge("put d 63 00");
    for line in ["begin", "put d 61 01", "put users 62 02", "delrange d 63 64", "del d 7a"] {
        assert_eq!(exec.ask(line), "ok", "{line}");
    }
    assert!(exec.ask("begin").starts_with("err INVALID "));
    assert!(exec.ask("put d x x").starts_with("err INVALID "), "and the batch goes on");
    assert_eq!(exec.ask("get d 61"), "nil", "reads never see a batch");
    assert_eq!(exec.ask("get d 63"), "val 00");
    exec.acknowledge("commit");
    assert_eq!(exec.ask("scan d - -"), "rows 61=01");
    assert_eq!(exec.ask("scan users - -"), "rows 62=02");
    assert_eq!(exec.ask("begin"), "ok");
    exec.acknowledge("commit");
    assert_eq!(exec.ask("begin"), "ok");
    assert_eq!(exec.ask("put d 64 04"), "ok");
    assert_eq!(exec.end().code, Some(0));
    assert_eq!(program.ok(&["scan", "--keys-only"]), "a\n");
}

#[test]
fn reads_between_snapshot_and_release_see_the_snapshot() {
    let program = Program::new();
    let mut exec = program.exec(&[]);
    exec.acknowledge("put d 61 01");
    exec.acknowledge("snapshot");
    assert!(exec.ask("snapshot").starts_with("err INVALID "));
    exec.acknowledge("put d 61 02");
    exec.acknowledge("put d 62 02");
    exec.acknowledge("flush");
    assert_eq!(exec.ask("get d 61"), "val 01");
    assert_eq!(exec.ask("get d 62"), "nil");
    assert_eq!(exec.ask("scan d - -"), "rows 61=01");
    assert_eq!(exec.ask("scan d - - rev"), "rows 61=01");
    exec.acknowledge("release");
    assert_eq!(exec.ask("scan d - -"), "rows 61=02 62=02");
    assert_eq!(exec.end().code, Some(0));
}

#[test]
fn range_deletes_take_keys_from_their_start_up_to_their_end() {
    let program = Program::new();
    let mut exec = program.exec(&[]);
    for (range, left) in [
        ("62 63", "rows 61=00 63=00 64=00"),
        ("- 63", "rows 63=00 64=00"),
        ("63 -", "rows 61=00 62=00"),
        ("- -", "rows"),
        ("64 62", "rows 61=00 62=00 63=00 64=00"),
        ("- .", "rows 61=00 62=00 63=00 64=00"),
    ] {
        for key in ["61", "62", "63", "64"] {
            exec.acknowledge(&format!("put d {key} 00"));
        }
        exec.acknowledge(&format!("delrange d {range}"));
        assert_eq!(exec.ask("scan d - -"), left, "delrange {range}");
    }
    assert_eq!(exec.end().code, Some(0));
}

#[test]
fn types_change_and_upkeep_runs_while_the_answers_stay_the_same() {
    let program = Program::new();
    let mut exec = program.exec(&["--memtable", "vector", "--set", "max_memtable_size=64KiB"]);
    for (n, kind) in memtide::MemtableType::ALL.into_iter().enumerate() {
        exec.acknowledge(&format!("put d {n:02x} {n:02x}"));
        exec.acknowledge(&format!("memtable d {kind}"));
        exec.acknowledge(["flush", "sync", "compact"][n % 3]);
    }
    let rows: Vec<String> = (0..8).map(|n| format!("{n:02x}={n:02x}")).collect();
    assert_eq!(exec.ask("scan d - -"), format!("rows {}", rows.join(" ")));
    let (seq, durable) = exec.acknowledge("close");
    assert!(durable >= seq, "everything is durable once closed");
    let ended = exec.end();
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), ""));
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    for sink in memtide::WalSink::ALL {
        let program = Program::new();
        let set = format!("tree.wal_sink={sink}");
        let mut exec = program.exec(&["--durability", "buffered", "--set", &set]);
        let value = "76".repeat(30_000);
        for n in 0..100 {
            exec.acknowledge(&format!("put d {n:02x} {value}"));
        }
        exec.kill();
        assert_eq!(program.ok(&["scan", "--count"]), "100\n", "{sink}");
    }
}

#[test]
fn a_read_only_session_reads_and_refuses_writes() {
    let program = Program::new();
    program.ok(&["put", "a", "1"]);
    let mut exec = program.exec(&["--read-only"]);
    assert_eq!(exec.ask("get d 61"), "val 31");
    for line in ["put d 61 00", "del d 61", "delrange d - -", "begin", "flush", "memtable d trie"] {
        let answer = exec.ask(line);
        assert!(answer.starts_with("err READ_ONLY "), "{line}: {answer}");
    }
    assert!(exec.ask("get users 61").starts_with("err NOT_FOUND "));
    exec.acknowledge("snapshot");
    exec.acknowledge("release");
    exec.acknowledge("close");
    assert_eq!(exec.end().code, Some(0));
    assert_eq!(program.ok(&["get", "a"]), "1\n");
}
