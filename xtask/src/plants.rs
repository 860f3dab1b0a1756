//! `cargo x plants`: are the tests worth their time? Each planted bug must fail one.
//!
//! A plant is a mistake that is compiled in on demand, `if cfg!(plant = "where_what")`, so the sources themselves say
//! which there are. For each in a memtable the tests of that crate are built with it and run until one binary fails;
//! for each in the engine the simulation is, and draws seeds from 0 on for [`SEARCH_SECONDS_MAX`]. The flag goes to our
//! own crates alone, through a wrapper of rustc, so that what they depend on is built once. A binary that does not end
//! in [`TEST_SECONDS_MAX`] is killed: a bug that hangs is caught, too. Binaries are started without cargo, so that
//! nothing outlives the kill.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Where plants are, and whose tests must find them.
const PACKAGE: &str = "memtide-memtable";
const MARK: &str = "plant = \"";
const TEST_SECONDS_MAX: u64 = 120;
/// What finds the plants of all other crates.
const SIMULATION: &str = "memtide-sim";
const SEARCH_SECONDS_MAX: u64 = 60;
/// Of what a failing seed says, the table has so many characters.
const SAID_MAX: usize = 110;
/// Failing tests that the table names.
const NAMED_MAX: usize = 3;
const WRITE: &str = "--write";
const REPORT: &str = "docs/design/0005-planted-bugs.md";
const REPORT_HEADER: &str = "\
# 0005: every memtable carries mistakes that its tests must find

Status: accepted. The table is written by `cargo x plants --write`.

## Context

A test suite that is green says nothing about what it would notice. Coverage counts lines that ran, not mistakes that
would have shown.

## Decision

Each variant has a few realistic mistakes of one line in its source, behind `cfg!(plant = \"variant_what\")`, off in
every build but those of `cargo x plants`. That command builds the memtable crate once with each and fails if all its
tests pass.

| Plant | Caught by (first failing tests) | Seconds, build included |
|---|---|---|
";
const REPORT_FOOTER: &str = "
## Alternatives

- Mutation testing by a tool: thousands of builds, most of them of changes that nobody would make, and equivalent ones
  to be told apart by hand.
- Nothing: then a weakened test is seen when a bug comes through.

## How we would notice it was wrong

A bug is found in a variant whose plants are all caught: it becomes a failing test first, and a plant like it.
";

/// Where a plant is, which says what looks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Memtables,
    Engine,
}

/// The words that stand for groups on the command line.
const GROUPS: [(&str, Group); 2] = [("memtables", Group::Memtables), ("engine", Group::Engine)];
/// Where the engine's table is, and the lines around it.
const ENGINE_REPORT: &str = "docs/design/0018-simulation.md";
const TABLE_BEGINS: &str = "| Plant | Found by | Seconds of search |\n|---|---|---|\n";

/// What became of one plant.
struct Outcome {
    plant: String,
    group: Group,
    /// How the tests found it; `None` if they did not.
    caught_by: Option<String>,
    seconds: f64,
}

/// How a test binary ended.
enum End {
    Passed,
    Failed(ExitStatus),
    Killed,
}

/// Runs the command: an optional word, a group or what the names of plants must have in them, and `--write`.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<(), String> {
    let (options, words): (Vec<_>, Vec<_>) =
        arguments.iter().partition(|argument| argument.starts_with('-'));
    let word = words.first().map_or("", |word| word.as_str());
    let group = GROUPS.iter().find(|(name, _)| *name == word).map(|(_, group)| *group);
    let is_written = !options.is_empty();
    if words.len() > 1 || options.iter().any(|option| *option != WRITE) {
        return Err(format!(
            "usage: cargo x plants [memtables | engine | part of a name] [{WRITE}]"
        ));
    }
    if is_written && group.is_none() && !word.is_empty() {
        return Err(format!("{WRITE} needs all plants, not those with `{word}` alone"));
    }
    let plants = planted(root).map_err(|error| format!("could not read the sources: {error}"))?;
    let is_wanted = |(own, plant): &(Group, String)| match group {
        Some(group) => *own == group,
        None => plant.contains(word),
    };
    let wanted: Vec<_> = plants.into_iter().filter(is_wanted).collect();
    if wanted.is_empty() {
        return Err(format!("no plant has `{word}` in its name"));
    }
    let mut outcomes = Vec::new();
    let target = target_dir(root);
    for (group, plant) in wanted {
        let outcome = try_plant(root, &target, group, &plant)?;
        eprintln!("{}", row(&outcome));
        outcomes.push(outcome);
    }
    let removed = fs::remove_dir_all(&target);
    removed.map_err(|error| format!("could not remove {}: {error}", target.display()))?;
    if is_written {
        write_reports(root, &outcomes)?;
    }
    let missed: Vec<_> = outcomes.iter().filter(|outcome| outcome.caught_by.is_none()).collect();
    if missed.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missed.iter().map(|outcome| outcome.plant.as_str()).collect();
    Err(format!(
        "{} of {} plants were not caught: {}",
        names.len(),
        outcomes.len(),
        names.join(", ")
    ))
}

/// Writes the tables of the groups that were tried.
fn write_reports(root: &Path, outcomes: &[Outcome]) -> Result<(), String> {
    let rows = |group: Group| -> String {
        outcomes.iter().filter(|outcome| outcome.group == group).map(|o| row(o) + "\n").collect()
    };
    let memtables = rows(Group::Memtables);
    if !memtables.is_empty() {
        fs::write(root.join(REPORT), format!("{REPORT_HEADER}{memtables}{REPORT_FOOTER}"))
            .map_err(|error| format!("could not write {REPORT}: {error}"))?;
    }
    let engine = rows(Group::Engine);
    if !engine.is_empty() {
        let path = root.join(ENGINE_REPORT);
        let page = fs::read_to_string(&path)
            .map_err(|error| format!("could not read {ENGINE_REPORT}: {error}"))?;
        let page = with_table(&page, &engine)
            .ok_or_else(|| format!("{ENGINE_REPORT} has no table of plants"))?;
        fs::write(&path, page)
            .map_err(|error| format!("could not write {ENGINE_REPORT}: {error}"))?;
    }
    Ok(())
}

/// The page with other rows in its table of plants.
fn with_table(page: &str, rows: &str) -> Option<String> {
    let (before, rest) = page.split_once(TABLE_BEGINS)?;
    let after: String =
        rest.split_inclusive('\n').skip_while(|line| line.starts_with('|')).collect();
    Some(format!("{before}{TABLE_BEGINS}{rows}{after}"))
}

/// The plants of all crates, by group and name.
fn planted(root: &Path) -> io::Result<BTreeSet<(Group, String)>> {
    let mut plants = BTreeSet::new();
    let mut rest: Vec<(Group, PathBuf)> = Vec::new();
    for package in fs::read_dir(root.join("crates"))? {
        let package = package?;
        let is_memtables = package.file_name() == PACKAGE;
        let group = if is_memtables { Group::Memtables } else { Group::Engine };
        rest.push((group, package.path().join("src")));
    }
    while let Some((group, dir)) = rest.pop() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                rest.push((group, path));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(path)?;
                plants.extend(names(&source).map(|name| (group, name)));
            }
        }
    }
    Ok(plants)
}

/// The plants that a source names.
fn names(source: &str) -> impl Iterator<Item = String> {
    let behind = source.split(MARK).skip(1);
    behind.filter_map(|rest| rest.split_once('"')).map(|(name, _)| name.to_string())
}

fn try_plant(root: &Path, target: &Path, group: Group, plant: &str) -> Result<Outcome, String> {
    match group {
        Group::Memtables => try_tests(root, target, plant),
        Group::Engine => try_simulation(root, target, plant),
    }
}

/// Builds the simulation with one plant and has it draw seeds until one fails.
fn try_simulation(root: &Path, target: &Path, plant: &str) -> Result<Outcome, String> {
    let arguments = ["build", "--release", "--package", SIMULATION, "--quiet"];
    let built = cargo(root, target, plant, &arguments)?;
    if !built.status.success() {
        return Err(format!("{plant} does not build"));
    }
    let seconds = SEARCH_SECONDS_MAX.to_string();
    let mut search = Command::new(target.join("release").join(SIMULATION));
    search.args(["run", "--from", "0", "--twice", "0", "--seconds", &seconds]).current_dir(root);
    let start = Instant::now();
    let output = target.join("output.txt");
    let end = run_until_end(&mut search, &output, SEARCH_SECONDS_MAX + TEST_SECONDS_MAX)
        .map_err(|error| format!("could not run {SIMULATION}: {error}"))?;
    let said = fs::read_to_string(&output).unwrap_or_default();
    let caught_by = match end {
        End::Passed => None,
        End::Failed(status) => Some(found(&said).unwrap_or_else(|| status.to_string())),
        End::Killed => Some("a seed does not end".to_string()),
    };
    let seconds = start.elapsed().as_secs_f64();
    Ok(Outcome { plant: plant.to_string(), group: Group::Engine, caught_by, seconds })
}

/// What a failing seed says, in a few words.
fn found(said: &str) -> Option<String> {
    let line = said.lines().find(|line| line.contains(" failed after "))?;
    let (seed, rest) = line.split_once(" failed after ")?;
    let (_, what) = rest.split_once(": ")?;
    let what: String =
        what.chars().take(SAID_MAX).map(|c| if c == '|' { ' ' } else { c }).collect();
    Some(format!("{seed}: {}", what.replace('`', "'")))
}

/// Builds the tests with one plant and runs them until a binary fails.
fn try_tests(root: &Path, target: &Path, plant: &str) -> Result<Outcome, String> {
    let start = Instant::now();
    let binaries = build(root, target, plant)?;
    let mut caught_by = None;
    for binary in &binaries {
        let output = target.join("output.txt");
        let end = run_tests(root, binary, &output)
            .map_err(|error| format!("could not run {}: {error}", binary.display()))?;
        let said = fs::read_to_string(&output).unwrap_or_default();
        caught_by = verdict(&end, &said);
        if caught_by.is_some() {
            break;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(Outcome { plant: plant.to_string(), group: Group::Memtables, caught_by, seconds })
}

/// A directory for plants alone, so that nothing of them is met elsewhere.
fn target_dir(root: &Path) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    root.join(target.unwrap_or_else(|| "target".into())).join("plants")
}

/// The test binaries, unit tests first.
fn build(root: &Path, target: &Path, plant: &str) -> Result<Vec<PathBuf>, String> {
    let flags = format!("--cfg plant=\"{plant}\"");
    let arguments = [
        "test",
        "--package",
        PACKAGE,
        "--lib",
        "--tests",
        "--no-run",
        "--quiet",
        "--message-format=json",
    ];
    let built = cargo(root, target, plant, &arguments)?;
    let binaries = executables(&String::from_utf8_lossy(&built.stdout));
    if !built.status.success() || binaries.is_empty() {
        let repeat = format!("RUSTFLAGS='{flags}' cargo test --package {PACKAGE} --no-run");
        return Err(format!("{plant} does not build; repeat: {repeat}"));
    }
    Ok(binaries)
}

/// Runs cargo with one plant in our own crates.
fn cargo(root: &Path, target: &Path, plant: &str, arguments: &[&str]) -> Result<Output, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let wrapper = wrapper(target, plant)
        .map_err(|error| format!("could not write below {}: {error}", target.display()))?;
    Command::new(cargo)
        .current_dir(root)
        .args(arguments)
        .env("RUSTC_WORKSPACE_WRAPPER", &wrapper)
        .env("CARGO_TARGET_DIR", target)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("could not start cargo: {error}"))
}

/// A program that hands our own crates to rustc with one plant. Its path is part of what cargo knows a build by, so
/// each plant has its own.
fn wrapper(target: &Path, plant: &str) -> io::Result<PathBuf> {
    fs::create_dir_all(target)?;
    let path = target.join(plant);
    fs::write(&path, format!("#!/bin/sh\nexec \"$@\" --cfg 'plant=\"{plant}\"'\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// The executables that cargo's messages name, in the order they come; the package's own before others.
fn executables(messages: &str) -> Vec<PathBuf> {
    const KEY: &str = "\"executable\":\"";
    let named = messages.lines().filter_map(|line| {
        let (path, _) = line.split_once(KEY)?.1.split_once('"')?;
        Some((!line.contains("\"kind\":[\"lib\"]"), PathBuf::from(path.replace("\\\\", "\\"))))
    });
    let mut found: Vec<_> = named.collect();
    found.sort_by_key(|(is_other, _)| *is_other);
    found.into_iter().map(|(_, path)| path).collect()
}

fn run_tests(root: &Path, binary: &Path, output: &Path) -> io::Result<End> {
    let mut tests = Command::new(binary);
    tests
        .current_dir(root.join("crates").join(PACKAGE))
        // What a plant fails on is no regression to be kept, nor worth a long search for its smallest form.
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
        .env("PROPTEST_MAX_SHRINK_ITERS", "32");
    run_until_end(&mut tests, output, TEST_SECONDS_MAX)
}

/// Runs a program that says what it found to `output`, whichever way it says it; kills it after `seconds_max`.
fn run_until_end(program: &mut Command, output: &Path, seconds_max: u64) -> io::Result<End> {
    let start = Instant::now();
    let file = fs::File::create(output)?;
    let mut running = program.stdout(file.try_clone()?).stderr(file).spawn()?;
    loop {
        if let Some(status) = running.try_wait()? {
            return Ok(if status.success() { End::Passed } else { End::Failed(status) });
        }
        if start.elapsed().as_secs() >= seconds_max {
            running.kill()?;
            running.wait()?;
            return Ok(End::Killed);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// How a binary that ended like this and said that caught the plant, if it did.
fn verdict(end: &End, said: &str) -> Option<String> {
    let failed: Vec<_> = said
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
        .map(|name| format!("`{name}`"))
        .collect();
    let how = match end {
        End::Passed => return None,
        End::Failed(_) if !failed.is_empty() => return Some(some_of(&failed)),
        End::Failed(status) => status.to_string(),
        End::Killed => format!("does not end in {TEST_SECONDS_MAX} s"),
    };
    Some(if failed.is_empty() { how } else { format!("{}; {how}", some_of(&failed)) })
}

fn some_of(names: &[String]) -> String {
    let named = names.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn row(outcome: &Outcome) -> String {
    let caught_by = outcome.caught_by.as_deref().unwrap_or("**nothing**");
    format!("| `{}` | {caught_by} | {:.0} |", outcome.plant, outcome.seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_names_its_plants() {
        let source = "if cfg!(plant = \"a_b\") { 1 } else if !cfg!(plant = \"c\") { 2 }";
        assert_eq!(names(source).collect::<Vec<_>>(), ["a_b", "c"]);
        assert_eq!(names("cfg(plant, values(any()))").count(), 0);
    }

    #[test]
    fn a_failing_seed_is_told_in_a_few_words() {
        let said = "seeds from 0 on\nseed 3 failed after 0.1 s, at operation 5 of 9: a | of `b`\n";
        assert_eq!(found(said).as_deref(), Some("seed 3: a   of 'b'"));
        assert_eq!(found("seeds from 0 on\n"), None);
    }

    #[test]
    fn a_table_takes_the_place_of_the_one_before() {
        let page = format!("a\n{TABLE_BEGINS}| x | y | 1 |\n\nb | c\n");
        let want = format!("a\n{TABLE_BEGINS}| z |\n\nb | c\n");
        assert_eq!(with_table(&page, "| z |\n"), Some(want));
        assert_eq!(with_table("no table", ""), None);
    }

    #[test]
    fn unit_tests_run_first() {
        let messages = "\
            {\"kind\":[\"test\"],\"executable\":\"/t/it-1\"}\n\
            {\"kind\":[\"lib\"],\"executable\":null}\n\
            {\"kind\":[\"lib\"],\"executable\":\"/t/memtable-2\",\"fresh\":false}\n";
        let want = ["/t/memtable-2", "/t/it-1"].map(PathBuf::from);
        assert_eq!(executables(messages), want);
    }

    #[test]
    fn a_plant_is_caught_by_what_failed_or_did_not_end() {
        let said = "test a ... ok\ntest b ... FAILED\ntest c ... FAILED\n\nfailures:\n    b\n";
        assert_eq!(verdict(&End::Passed, ""), None);
        let hung = verdict(&End::Killed, "test a ... ok\n").expect("caught");
        assert_eq!(hung, "does not end in 120 s");
        let both = verdict(&End::Killed, said).expect("caught");
        assert_eq!(both, "`b`, `c`; does not end in 120 s");
        let names = ["a", "b", "c", "d", "e"].map(str::to_string);
        assert_eq!(some_of(&names), "a, b, c and 2 more");
    }
}
