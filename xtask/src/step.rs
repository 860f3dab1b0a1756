//! One step of a command: how it is run, timed, and repeated by hand.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::{figures, tidy};

/// A step of a command.
pub(crate) struct Step {
    /// What a developer sees.
    pub(crate) name: &'static str,
    /// Variables set for the step.
    pub(crate) env: &'static [(&'static str, &'static str)],
    /// What is done.
    pub(crate) action: Action,
}

/// What a step does.
pub(crate) enum Action {
    /// Runs cargo with these arguments.
    Cargo(&'static [&'static str]),
    /// Runs a script of the project with Python; where there is none the step is skipped, and says so.
    Python(&'static [&'static str]),
    /// Checks the tree against the rules of [`tidy`].
    Tidy,
    /// Makes the documents' figures again with [`figures`].
    Figures,
}

impl Step {
    /// A run of cargo in the caller's own environment.
    pub(crate) const fn cargo(name: &'static str, arguments: &'static [&'static str]) -> Self {
        Self { name, env: &[], action: Action::Cargo(arguments) }
    }

    fn run(&self, root: &Path, more: &[String]) -> Result<(), String> {
        match self.action {
            Action::Tidy => tidy::run(root),
            Action::Figures => figures::run(root),
            Action::Python(arguments) => {
                match Command::new("python3").current_dir(root).args(arguments).status() {
                    Ok(status) if status.success() => Ok(()),
                    Ok(status) => Err(status.to_string()),
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        eprintln!("SKIPPED {}: needs python3", self.name);
                        Ok(())
                    }
                    Err(error) => Err(format!("could not start python3: {error}")),
                }
            }
            Action::Cargo(arguments) => {
                let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
                let mut command = Command::new(cargo);
                command.current_dir(root).args(arguments).args(more);
                command.envs(self.env.iter().copied());
                match command.status() {
                    Ok(status) if status.success() => Ok(()),
                    Ok(status) => Err(status.to_string()),
                    Err(error) => Err(format!("could not start cargo: {error}")),
                }
            }
        }
    }

    /// The command line that repeats the step.
    fn repeat(&self, more: &[String]) -> String {
        let mut words: Vec<String> =
            self.env.iter().map(|(name, value)| format!("{name}={}", quoted(value))).collect();
        let program = if matches!(self.action, Action::Python(_)) { "python3" } else { "cargo" };
        words.push(program.to_string());
        match self.action {
            Action::Tidy => words.extend(["x".to_string(), "tidy".to_string()]),
            Action::Figures => words.extend(["x".to_string(), "figures".to_string()]),
            Action::Cargo(arguments) | Action::Python(arguments) => {
                words.extend(arguments.iter().map(|word| quoted(word)));
            }
        }
        words.extend(more.iter().map(|word| quoted(word)));
        words.join(" ")
    }
}

/// Runs the steps in order and stops at the first that fails.
pub(crate) fn run_all(root: &Path, lists: &[&[Step]], more: &[String]) -> Result<(), String> {
    let begin = Instant::now();
    let mut count = 0_usize;
    for step in lists.iter().copied().flatten() {
        eprintln!("---- {}: {}", step.name, step.repeat(more));
        let start = Instant::now();
        let outcome = step.run(root, more);
        let seconds = start.elapsed().as_secs_f64();
        if let Err(reason) = outcome {
            let again = step.repeat(more);
            return Err(format!(
                "---- {} FAILED after {seconds:.1} s: {reason}\nrepeat: {again}",
                step.name
            ));
        }
        eprintln!("---- {} ok, {seconds:.1} s", step.name);
        count += 1;
    }
    if count > 1 {
        eprintln!("---- all {count} steps ok, {:.1} s", begin.elapsed().as_secs_f64());
    }
    Ok(())
}

/// `word` as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_string();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_prints_a_line_a_shell_can_repeat() {
        let step = Step {
            name: "documentation",
            env: &[("RUSTDOCFLAGS", "-D warnings")],
            action: Action::Cargo(&["doc", "--no-deps"]),
        };
        let more = ["it's".to_string()];
        assert_eq!(step.repeat(&more), r"RUSTDOCFLAGS='-D warnings' cargo doc --no-deps 'it'\''s'");
    }

    #[test]
    fn the_first_failure_ends_the_run_and_names_its_command() {
        const TIDY: Step = Step { name: "tidy", env: &[], action: Action::Tidy };
        const LISTS: &[&[Step]] = &[&[TIDY], &[Step::cargo("never reached", &["--version"])]];
        let message = run_all(Path::new("no such directory"), LISTS, &[]).unwrap_err();
        assert!(message.contains("tidy FAILED"), "{message}");
        assert!(message.ends_with("repeat: cargo x tidy"), "{message}");
    }
}
