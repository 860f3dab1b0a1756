//! `cargo x`: the project's own commands, as data.
//!
//! ```text
//! cargo x check   formatting, lints, architecture and words, documentation
//! cargo x test    every test of the workspace; further arguments go to `cargo test`
//! cargo x tidy    the architecture and the words alone
//! cargo x crash   simulated crashes at every I/O operation, for every memtable; prints the points
//! cargo x plants  every planted bug, one build each: which test or seed catches it
//! cargo x sim     the whole engine simulated, from fresh seeds
//! cargo x loom    interleavings of a few operations on each memtable, one after another
//! cargo x shuttle random interleavings of more
//! cargo x figures measures on this machine and rewrites the tables of figures in the documents
//! cargo x full    what must hold before a change is taken: check, test, loom, shuttle, `FULL`, `OUTSIDE`
//! ```
//!
//! Each step prints its name and its seconds. The first failure ends the run and prints the one command
//! that repeats it. Nothing beyond the Rust toolchain is needed.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a program for developers: it reads the tree, measures time and talks to a terminal"
)]

mod figures;
mod plants;
mod step;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use step::{Action, Step};

/// Before each commit.
const CHECK: &[Step] = &[
    Step::cargo("format", &["fmt", "--all", "--check"]),
    Step::cargo(
        "lints",
        &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"],
    ),
    Step { name: "tidy", env: &[], action: Action::Tidy },
    Step {
        name: "documentation",
        env: &[("RUSTDOCFLAGS", "-D warnings")],
        action: Action::Cargo(&[
            "doc",
            "--workspace",
            "--lib",
            "--no-deps",
            "--all-features",
            "--quiet",
        ]),
    },
];

/// The README's test command.
const TEST: &[Step] = &[Step::cargo("tests", &["test", "--workspace"])];

/// What `full` runs after check and test.
const FULL: &[Step] = &[
    Step::cargo(
        "storage with zstd",
        &["test", "--quiet", "--package", "memtide-storage", "--features", "zstd", "--lib"],
    ),
    Step::cargo(
        "the engine with zstd",
        &[
            "test",
            "--quiet",
            "--package",
            "memtide",
            "--features",
            "zstd",
            "--test",
            "it",
            "--",
            "model::",
            "strategies::",
        ],
    ),
    Step::cargo("release build", &["build", "--release", "--package", "memtide-cli"]),
    Step::cargo(
        "all memtables, small",
        &[
            "run",
            "--release",
            "--quiet",
            "--package",
            "memtide-cli",
            "--",
            "bench",
            "memtables",
            "--entries",
            "100",
        ],
    ),
];

/// The release program under kills and failing system calls, a few dozen of each, with a fresh seed.
const OUTSIDE: &[Step] = &[
    Step {
        name: "kills at system calls",
        env: &[],
        action: Action::Python(&["tools/outside/outside", "kill", "--points", "100"]),
    },
    Step {
        name: "failing system calls",
        env: &[],
        action: Action::Python(&["tools/outside/outside", "errors", "--points", "40"]),
    },
];

/// Simulated crashes without the spread that the usual tests are content with, and fresh random seeds.
const CRASH: &[Step] = &[Step {
    name: "crashes at every operation",
    env: &[("MEMTIDE_CRASH", "all"), ("MEMTIDE_FRESH", "8")],
    action: Action::Cargo(&[
        "test",
        "--package",
        "memtide",
        "--test",
        "it",
        "--",
        "--nocapture",
        "crash::",
        "model::",
    ]),
}];

/// The whole engine, its clients, faults and crashes, for a bounded time from fresh seeds, which it prints.
const SIM_RUN: &[Step] = &[Step::cargo(
    "simulation",
    &[
        "run",
        "--release",
        "--quiet",
        "--package",
        "memtide-sim",
        "--",
        "run",
        "--stats",
        "--seconds",
        "60",
    ],
)];

/// Interleavings of a few operations on each memtable, one after another.
const LOOM: &[Step] = &[Step {
    name: "memtables under loom",
    env: &[("RUSTFLAGS", "--cfg loom"), ("CARGO_TARGET_DIR", "target/loom")],
    action: Action::Cargo(MODELLED),
}];

/// Random interleavings of more.
const SHUTTLE: &[Step] = &[Step {
    name: "memtables under shuttle",
    env: &[("RUSTFLAGS", "--cfg shuttle"), ("CARGO_TARGET_DIR", "target/shuttle")],
    action: Action::Cargo(MODELLED),
}];

const MODELLED: &[&str] =
    &["test", "--quiet", "--package", "memtide-memtable", "--test", "modelled"];

const TIDY: &[Step] = &[Step { name: "tidy", env: &[], action: Action::Tidy }];

/// The README's and the guides' tables.
const FIGURES: &[Step] = &[
    Step::cargo("release build", &["build", "--release", "--package", "memtide-cli"]),
    Step { name: "figures", env: &[], action: Action::Figures },
];

/// Takes further arguments of the simulation.
const SIM: &str = "sim";

/// The command that takes arguments of its own, see [`plants`].
const PLANTS: &str = "plants";

/// Name, purpose, the step lists run one after another.
const COMMANDS: &[(&str, &str, &[&[Step]])] = &[
    ("check", "formatting, lints, architecture and words, documentation", &[CHECK]),
    ("test", "every test of the workspace; further arguments go to `cargo test`", &[TEST]),
    ("tidy", "the architecture and the words alone", &[TIDY]),
    ("crash", "simulated crashes at every I/O operation, for every memtable", &[CRASH]),
    (PLANTS, "every planted bug, one build each: which test or seed catches it", &[]),
    (
        SIM,
        "the whole engine simulated, from fresh seeds; arguments go to memtide-sim run",
        &[SIM_RUN],
    ),
    ("loom", "interleavings of a few operations on each memtable, one after another", &[LOOM]),
    ("shuttle", "random interleavings of more operations on each memtable", &[SHUTTLE]),
    ("figures", "the documents' tables of figures, measured again", &[FIGURES]),
    (
        "full",
        "all that must hold before a change is taken",
        &[CHECK, TEST, SIM_RUN, LOOM, SHUTTLE, FULL, OUTSIDE],
    ),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let more: Vec<String> = arguments.collect();
    let Some((_, _, lists)) = COMMANDS.iter().find(|(known, ..)| *known == name) else {
        return usage(&name);
    };
    if !more.is_empty() && !["test", SIM, PLANTS].contains(&name.as_str()) {
        eprintln!("`cargo x {name}` takes no arguments, got `{}`", more.join(" "));
        return ExitCode::from(2);
    }
    let outcome = if name == PLANTS {
        plants::run(&root(), &more)
    } else {
        step::run_all(&root(), lists, &more)
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// The checkout this program was started from.
fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map(PathBuf::from)
        .and_then(|package| package.parent().map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from("."))
}

fn usage(given: &str) -> ExitCode {
    if !given.is_empty() {
        eprintln!("no command `{given}`");
    }
    for (name, purpose, _) in COMMANDS {
        eprintln!("cargo x {name:<7} {purpose}");
    }
    ExitCode::from(2)
}
