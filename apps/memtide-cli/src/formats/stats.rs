//! Statistics and health as JSON documents with stable field names.

use memtide::{Health, HealthTransition, KeyspaceStats, LevelStats, StallStats, Stats};
use serde_json::{Value, json};

/// The fields of [`Stats`] by their names.
pub(crate) fn json(stats: &Stats) -> Value {
    let keyspaces: Vec<Value> = stats.keyspaces.iter().map(keyspace).collect();
    json!({
        "keyspaces": keyspaces,
        "memory_budget": stats.memory_budget,
        "memory_used": stats.memory_used,
        "cache_bytes": stats.cache_bytes,
        "cache_hits": stats.cache_hits,
        "cache_misses": stats.cache_misses,
        "wal_bytes": stats.wal_bytes,
        "wal_segments": stats.wal_segments,
        "wal_sink": stats.wal_sink.map(memtide::WalSink::name),
        "manifest_bytes": stats.manifest_bytes,
        "visible": stats.visible,
        "durable": stats.durable,
        "flushes": stats.flushes,
        "compactions": stats.compactions,
        "writes": stats.writes,
        "write_groups": stats.write_groups,
        "stalls_for_memory": stall(stats.stalls_for_memory),
        "stalls_for_merges": stall(stats.stalls_for_merges),
        "stalls_for_segments": stall(stats.stalls_for_segments),
        "compaction_paused": stats.compaction_paused,
        "compaction_rate_waits": stall(stats.compaction_rate_waits),
        "slowdowns_for_memory": stall(stats.slowdowns_for_memory),
        "slowdowns_for_compaction": stall(stats.slowdowns_for_compaction),
        "write_rate": stats.write_rate,
        "health": health(&stats.health),
    })
}

fn stall(stall: StallStats) -> Value {
    json!({ "count": stall.count, "seconds": stall.time.as_secs_f64() })
}

fn keyspace(stats: &KeyspaceStats) -> Value {
    let level = |level: &LevelStats| json!({ "runs": level.runs, "tables": level.tables, "bytes": level.bytes });
    let levels: Vec<Value> = stats.levels.iter().map(level).collect();
    let active = &stats.active;
    json!({
        "name": stats.name,
        "id": stats.id,
        "memtable_type": stats.memtable_type.name(),
        "compaction": stats.compaction.name(),
        "memtable_fault": stats.memtable_fault,
        "active": {
            "keys": active.keys,
            "values": active.values,
            "overhead": active.overhead,
            "used": active.used,
            "reserved": active.reserved,
        },
        "entries_active": stats.entries_active,
        "sealed": stats.sealed,
        "sealed_runs": stats.sealed_runs,
        "sealed_bytes": stats.sealed_bytes,
        "levels": levels,
        "tables": stats.tables,
        "table_bytes": stats.table_bytes,
        "blobs": stats.blobs,
        "blob_bytes": stats.blob_bytes,
        "blob_garbage_bytes": stats.blob_garbage_bytes,
    })
}

/// The state and, where something is wrong, why and what to do; then how it came to that.
pub(crate) fn health(health: &Health) -> Value {
    let recent: Vec<Value> = health.recent.iter().map(transition).collect();
    json!({
        "state": health.state.name(),
        "reason": health.reason,
        "advice": health.advice,
        "since_ms": health.since_ms,
        "damaged": health.damaged,
        "transitions": health.transitions,
        "recent": recent,
    })
}

fn transition(one: &HealthTransition) -> Value {
    json!({
        "at_ms": one.at_ms,
        "from": one.from.name(),
        "to": one.to.name(),
        "reason": one.reason,
    })
}
