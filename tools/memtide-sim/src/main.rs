//! `memtide-sim`: simulates the engine for a while, or again.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program: it talks to a terminal, measures time and keeps what failed"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use memtide::MemtableType;
use memtide_sim::{Case, Extent, Failure, Faults, Figures, Focus, draw, exhaustive, run, shrink};

const USAGE: &str = "\
memtide-sim run [--seeds A..B | --seconds N] [--from SEED] [--memtable TYPE] [--faults all|crash|io|rot|none]
                [--twice N] [--sometimes] [--stats] [--json]
memtide-sim replay FILE | --seed N [--memtable TYPE] [--faults KIND]
memtide-sim exhaustive [--memtable TYPE] [--seeds A..B] [--pairs] [--stats] [--json]
memtide-sim print --seed N [--memtable TYPE] [--faults KIND]";
/// Every so many seeds one is run twice and must leave the same trace.
const TWICE_EVERY: u64 = 50;
const SHRINK_RUNS: usize = 4000;

struct Options {
    command: String,
    file: Option<PathBuf>,
    seeds: Option<(u64, u64)>,
    seconds: u64,
    from: Option<u64>,
    focus: Focus,
    focus_text: String,
    twice: u64,
    sometimes: bool,
    stats: bool,
    json: bool,
    pairs: bool,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(what) => {
            eprintln!("{what}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let done = match options.command.as_str() {
        "run" => campaign(&options),
        "replay" => replay(&options),
        "exhaustive" => everything(&options),
        _ => {
            print!("{}", draw(options.from.unwrap_or_default(), &options.focus));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, String> {
    let mut words = std::env::args().skip(1);
    let mut options = Options {
        command: words.next().unwrap_or_default(),
        file: None,
        seeds: None,
        seconds: 10,
        from: None,
        focus: Focus::default(),
        focus_text: String::new(),
        twice: TWICE_EVERY,
        sometimes: false,
        stats: false,
        json: false,
        pairs: false,
    };
    if !["run", "replay", "exhaustive", "print"].contains(&options.command.as_str()) {
        return Err(format!("no command `{}`", options.command));
    }
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--seeds" => {
                let text = value()?;
                let parsed = text
                    .split_once("..")
                    .and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
                options.seeds = Some(parsed.ok_or_else(|| format!("`{text}` is not A..B"))?);
            }
            "--seconds" => options.seconds = number(&value()?)?,
            "--seed" | "--from" => options.from = Some(number(&value()?)?),
            "--twice" => options.twice = number(&value()?)?,
            "--memtable" => {
                let name = value()?;
                let kind = name.parse().map_err(|_| format!("no memtable `{name}`"))?;
                options.focus.memtable = Some(kind);
                options.focus_text += &format!(" --memtable {name}");
            }
            "--faults" => {
                let name = value()?;
                options.focus.faults = name.parse::<Faults>()?;
                options.focus_text += &format!(" --faults {name}");
            }
            "--sometimes" => options.sometimes = true,
            "--stats" => options.stats = true,
            "--json" => options.json = true,
            "--pairs" => options.pairs = true,
            _ if !word.starts_with('-') && options.file.is_none() => {
                options.file = Some(word.into());
            }
            _ => return Err(format!("what is `{word}`?")),
        }
    }
    Ok(options)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}

/// Runs seeds until they or the time are used up, or one fails.
fn campaign(options: &Options) -> Result<(), String> {
    let start = Instant::now();
    let limit = Duration::from_secs(options.seconds);
    let first = match (options.seeds, options.from) {
        (Some((from, _)), _) | (None, Some(from)) => from,
        (None, None) => memtide_env::Random::from_system().next_u64() >> 24,
    };
    if !options.json {
        println!("seeds from {first} on{}", options.focus_text);
    }
    let mut figures = Figures::default();
    let mut seed = first;
    loop {
        let is_over = match options.seeds {
            Some((_, to)) => seed >= to,
            None => start.elapsed() >= limit,
        };
        if is_over {
            break;
        }
        let case = draw(seed, &options.focus);
        let outcome = run(&case);
        figures.add(&outcome.figures);
        if let Some(failure) = outcome.failure {
            let found = format!(
                "seed {seed} failed after {:.1} s, at operation {} of {}: {}",
                start.elapsed().as_secs_f64(),
                failure.at,
                case.ops.len(),
                failure.what
            );
            return Err(format!(
                "{found}\nrepeat with: memtide-sim replay --seed {seed}{}",
                options.focus_text
            ));
        }
        if options.twice > 0 && seed.is_multiple_of(options.twice) {
            let again = run(&case);
            if again.trace != outcome.trace {
                return Err(format!(
                    "seed {seed} left the trace {:016x}, then {:016x}",
                    outcome.trace, again.trace
                ));
            }
        }
        seed += 1;
    }
    report(options, &figures, start.elapsed());
    let never = figures.never();
    if options.sometimes && !never.is_empty() {
        return Err(format!("never met: {}", never.join(", ")));
    }
    Ok(())
}

/// Crashes and failures at every operation of the disk of a script.
fn everything(options: &Options) -> Result<(), String> {
    let start = Instant::now();
    let extent = if options.pairs { Extent::Pairs } else { Extent::Singles };
    let kinds = options.focus.memtable.map_or(MemtableType::ALL.to_vec(), |kind| vec![kind]);
    let mut figures = Figures::default();
    let (first, end) = options.seeds.unwrap_or((0, 1));
    for (kind, seed) in kinds.iter().flat_map(|kind| (first..end).map(|seed| (*kind, seed))) {
        match exhaustive(kind, seed, extent) {
            Ok(own) => {
                if !options.json {
                    println!("{kind}, script {seed}: {} runs, {} cycles", own.seeds, own.cycles);
                }
                figures.add(&own);
            }
            Err(failed) => {
                let (case, failure) = *failed;
                return Err(cut_down(&case, &failure));
            }
        }
    }
    report(options, &figures, start.elapsed());
    Ok(())
}

fn report(options: &Options, figures: &Figures, elapsed: Duration) {
    if options.json {
        println!("{}", figures.json(elapsed));
    } else if options.stats {
        println!("{}", figures.table(elapsed));
    } else {
        let seconds = elapsed.as_secs_f64();
        println!("{} runs, {} cycles in {seconds:.1} s", figures.seeds, figures.cycles);
    }
}

/// Cuts a failing case down and writes it.
fn cut_down(case: &Case, failure: &Failure) -> String {
    let (small, failure) = shrink(case, failure, SHRINK_RUNS);
    let path = PathBuf::from(format!("seed-{}.memtide-sim", case.seed));
    let text = format!("{small}// {}\n", failure.what.replace('\n', " "));
    if let Err(error) = std::fs::write(&path, &text) {
        return format!("{text}could not write {}: {error}", path.display());
    }
    let (count, path) = (small.ops.len(), path.display());
    format!("{text}cut down to {count} operations: memtide-sim replay {path}")
}

/// Runs one case again; if it fails, cuts it down and writes it beside the others.
fn replay(options: &Options) -> Result<(), String> {
    let case = match (&options.file, options.from) {
        (Some(file), _) => read(file)?,
        (None, Some(seed)) => draw(seed, &options.focus),
        (None, None) => return Err("replay what?".to_owned()),
    };
    let outcome = run(&case);
    let Some(failure) = outcome.failure else {
        println!("{} operations, nothing wrong, trace {:016x}", case.ops.len(), outcome.trace);
        return Ok(());
    };
    println!("operation {} of {}: {}", failure.at, case.ops.len(), failure.what);
    if options.file.is_some() {
        return Err("it fails".to_owned());
    }
    Err(cut_down(&case, &failure))
}

fn read(file: &Path) -> Result<Case, String> {
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|error| format!("could not read {}: {error}", file.display()))?;
    text.parse().map_err(|what| format!("{}: {what}", file.display()))
}
