//! Runs workloads one after the other on one engine in one fresh directory and prints a JSON line
//! for each. `peerbench --help` lists the parameters; `./compare` runs several engines.

mod data;
mod engines;
mod proc;
mod workload;

use data::{Entries, KeyShape};
use engines::{Config, Result};
use hdrhistogram::Histogram;
use proc::Usage;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use workload::{Outcome, Run};

const HELP: &str = "\
peerbench --engine NAME --workloads A,B,C [options]

  --dir PATH            scratch directory, made afresh and removed (TMPDIR/peerbench-data)
  --keep                leave the directory
  --die                 end by SIGKILL instead of closing, and leave the directory
  --existing            open what such a run left, all entries present, and report the time as 'open'
  --num N               entries (1000000)
  --key-size BYTES      at least 16 (16)
  --value-size BYTES    at least 10 (100)
  --key-shape SHAPE     ordered (as db_bench) or hashed (as YCSB) (ordered)
  --threads N           (1)
  --seed N              (42)
  --sync                fdatasync each write; fillsync implies it
  --memtable BYTES      memtable size (67108864)
  --cache BYTES         block or page cache (268435456)
  --compression NAME    none or lz4 (none)
  --bloom-bits N        per key (10)
  --background N        flush and compaction threads (2)
  --ops N               operations of each workload that does not load
  --max-seconds N       end a workload other than load after this time (0 = never)
  --set NAME=VALUE      option of one engine, may be repeated

'load' writes in batches of 1000; 'settle' flushes and waits for compaction. A list that starts
with neither a fill nor 'load' is loaded and settled first, unreported.";

struct Args {
    engine: String,
    workloads: Vec<String>,
    config: Config,
    compression: String,
    keep: bool,
    die: bool,
    existing: bool,
    num: u64,
    key_size: usize,
    value_size: usize,
    shape: KeyShape,
    threads: u64,
    seed: u64,
    ops: Option<u64>,
    limit: Duration,
}

fn parse() -> Result<Args> {
    let mut args = Args {
        engine: String::new(),
        workloads: Vec::new(),
        config: Config {
            dir: std::env::temp_dir().join("peerbench-data"),
            sync: false,
            memtable_bytes: 64 << 20,
            cache: 256 << 20,
            lz4: false,
            bloom_bits: 10,
            background: 2,
            extra: Vec::new(),
        },
        compression: "none".into(),
        keep: false,
        die: false,
        existing: false,
        num: 1_000_000,
        key_size: 16,
        value_size: 100,
        shape: KeyShape::Ordered,
        threads: 1,
        seed: 42,
        ops: None,
        limit: Duration::ZERO,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--help" | "-h" => {
                println!("{HELP}\n\nEngines in this build: {:?}\nWorkloads: {:?}", engines::BUILT, workload::NAMES);
                std::process::exit(0);
            }
            "--engine" => args.engine = value()?,
            "--workloads" => args.workloads = value()?.split(',').map(String::from).collect(),
            "--dir" => args.config.dir = value()?.into(),
            "--keep" => args.keep = true,
            "--die" => args.die = true,
            "--existing" => args.existing = true,
            "--num" => args.num = value()?.parse()?,
            "--key-size" => args.key_size = value()?.parse()?,
            "--value-size" => args.value_size = value()?.parse()?,
            "--key-shape" => {
                args.shape = match value()?.as_str() {
                    "ordered" => KeyShape::Ordered,
                    "hashed" => KeyShape::Hashed,
                    other => return Err(format!("no key shape {other:?}").into()),
                }
            }
            "--threads" => args.threads = value()?.parse()?,
            "--seed" => args.seed = value()?.parse()?,
            "--sync" => args.config.sync = true,
            "--memtable" => args.config.memtable_bytes = value()?.parse()?,
            "--cache" => args.config.cache = value()?.parse()?,
            "--compression" => {
                args.compression = value()?;
                args.config.lz4 = match args.compression.as_str() {
                    "none" => false,
                    "lz4" => true,
                    other => return Err(format!("no compression {other:?}").into()),
                }
            }
            "--bloom-bits" => args.config.bloom_bits = value()?.parse()?,
            "--background" => args.config.background = value()?.parse()?,
            "--ops" => args.ops = Some(value()?.parse()?),
            "--max-seconds" => args.limit = Duration::from_secs(value()?.parse()?),
            "--set" => {
                let pair = value()?;
                let (name, value) = pair.split_once('=').ok_or("--set wants NAME=VALUE")?;
                args.config.extra.push((name.into(), value.into()));
            }
            other => return Err(format!("unknown option {other}; see --help").into()),
        }
    }
    if args.engine.is_empty() || args.workloads.is_empty() {
        return Err("give --engine and --workloads; see --help".into());
    }
    for name in &args.workloads {
        if !workload::NAMES.contains(&name.as_str()) {
            return Err(format!("no workload {name:?}; there are {:?}", workload::NAMES).into());
        }
    }
    args.config.sync |= args.workloads.iter().any(|w| w == "fillsync");
    Ok(args)
}

/// Percentiles in microseconds as members of a JSON object.
fn latency(h: &Histogram<u64>) -> String {
    let us = |ns: u64| ns as f64 / 1e3;
    let at = |q: f64| us(h.value_at_quantile(q));
    format!(
        r#""mean_us":{:.3},"p50_us":{:.3},"p99_us":{:.3},"p999_us":{:.3},"p9999_us":{:.3},"max_us":{:.3}"#,
        h.mean() / 1e3,
        at(0.5),
        at(0.99),
        at(0.999),
        at(0.9999),
        us(h.max())
    )
}

/// Operations of the smallest and the median whole second, as members of a JSON object, and of each; nothing for
/// fewer than three of them.
fn by_second(seconds: &[u64]) -> String {
    let whole = &seconds[..seconds.len().saturating_sub(1)];
    if whole.len() < 3 {
        return String::new();
    }
    let mut sorted = whole.to_vec();
    sorted.sort_unstable();
    format!(r#","second_min":{},"second_median":{},"by_second":{whole:?}"#, sorted[0], sorted[sorted.len() / 2])
}

fn main() {
    if let Err(error) = run() {
        eprintln!("peerbench: {error}");
        std::process::exit(1);
    }
}

/// Prints what a workload did as one line of JSON.
fn report(args: &Args, run: &Run, name: &str, outcome: &Outcome, before: &Usage, start: &Usage, user_total: u64) {
    let after = proc::usage();
    let Outcome { ops, elapsed, latency: times, by_second: seconds_ops, user_bytes, writer } = outcome;
    let seconds = elapsed.as_secs_f64();
    let live_bytes = run.live.load(Relaxed) * (args.key_size + args.value_size) as u64;
    let disk = proc::disk_bytes(&args.config.dir);
    let ratio = |a: u64, b: u64| if b == 0 { "null".into() } else { format!("{:.3}", a as f64 / b as f64) };
    let writer = writer.as_ref().map_or(String::new(), |(ops, times)| {
        format!(r#","writer":{{"ops":{ops},"ops_s":{:.0},{}}}"#, *ops as f64 / seconds, latency(times))
    });
    let memory: Vec<_> = run.engine().memory().iter().map(|(name, bytes)| format!(r#""{name}":{bytes}"#)).collect();
    println!(
        concat!(
            r#"{{"engine":"{}","workload":"{}","num":{},"key_size":{},"value_size":{},"key_shape":"{}","threads":{},"#,
            r#""compression":"{}","sync":{},"ops":{},"seconds":{:.6},"ops_s":{:.0},{},"#,
            r#""cpu_seconds":{:.3},"peak_rss":{},"anon_rss":{},"user_bytes":{},"disk_written":{},"#,
            r#""call_written":{},"write_amp":{},"total_write_amp":{},"total_call_amp":{},"disk_bytes":{},"#,
            r#""live_bytes":{},"space_amp":{},"memory":{{{}}}{}{}}}"#
        ),
        args.engine,
        name,
        args.num,
        args.key_size,
        args.value_size,
        if args.shape == KeyShape::Ordered { "ordered" } else { "hashed" },
        args.threads,
        args.compression,
        args.config.sync,
        ops,
        seconds,
        *ops as f64 / seconds,
        latency(times),
        after.cpu - before.cpu,
        proc::peak_rss(),
        proc::anonymous_rss(),
        user_bytes,
        after.disk - before.disk,
        after.calls - before.calls,
        ratio(after.disk - before.disk, *user_bytes),
        ratio(after.disk - start.disk, user_total),
        ratio(after.calls - start.calls, user_total),
        disk,
        live_bytes,
        ratio(disk, live_bytes),
        memory.join(","),
        by_second(seconds_ops),
        writer,
    );
}

fn run() -> Result<()> {
    let args = parse()?;
    let dir = &args.config.dir;
    if dir.exists() && !args.existing {
        std::fs::remove_dir_all(dir)?;
    }
    let entries = Entries::new(args.key_size, args.value_size, args.shape, args.seed);
    proc::reset_peak_rss();
    let start = proc::usage();
    let opening = Instant::now();
    let mut run = Run::open(&args.engine, &args.config, entries, args.num)?;
    let opened = Outcome::of(opening.elapsed());
    run.threads = args.threads;
    run.seed = args.seed;
    run.ops = args.ops;
    run.limit = args.limit;

    let mut user_total = 0;
    if args.existing {
        run.holds(args.num);
        report(&args, &run, "open", &opened, &start, &start, 0);
    } else if args.workloads.first().is_some_and(|first| !first.starts_with("fill") && first != "load") {
        user_total += run.perform("load")?.user_bytes;
        run.perform("settle")?;
    }
    for name in &args.workloads {
        proc::reset_peak_rss();
        let before = proc::usage();
        let outcome = run.perform(name)?;
        user_total += outcome.user_bytes;
        report(&args, &run, name, &outcome, &before, &start, user_total);
    }
    if args.die {
        // To be killed as the kernel or an operator would.
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
    }
    run.close()?;
    if !args.keep {
        std::fs::remove_dir_all(dir)?;
    }
    Ok(())
}
