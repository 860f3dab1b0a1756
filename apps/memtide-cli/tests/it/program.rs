//! Running the built program in a directory of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

use tempfile::TempDir;

/// The program, and a directory that ends with it.
pub(crate) struct Program {
    home: TempDir,
}

/// What one run left behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Program {
    pub(crate) fn new() -> Self {
        Self { home: TempDir::new().expect("a temporary directory") }
    }

    /// A path in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Writes a file and returns its path as an argument.
    pub(crate) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("written");
        path.into_os_string().into_string().expect("UTF-8")
    }

    /// A run without a database named.
    pub(crate) fn bare(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_memtide"));
        command.args(args).current_dir(self.home.path()).env_remove("MEMTIDE_DIR");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A run on the database `db`.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bare(&["-d", "db"]);
        command.args(args);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        ran(self.command(args).output().expect("the program starts"))
    }

    /// As [`Program::run`], which must succeed: its standard output.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
        ran.out
    }

    /// Runs with this standard input.
    pub(crate) fn feed(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut child =
            self.command(args).stdin(Stdio::piped()).spawn().expect("the program starts");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        // The program may end before it has read everything; that is not this side's failure.
        let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().expect("the program ends");
        feeder.join().expect("fed");
        ran(output)
    }

    /// Starts `exec` on the database `db`.
    pub(crate) fn exec(&self, args: &[&str]) -> Exec {
        let mut command = self.bare(&["exec", "db"]);
        let mut child =
            command.args(args).stdin(Stdio::piped()).spawn().expect("the program starts");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Exec { child, stdin, stdout }
    }
}

pub(crate) fn ran(output: Output) -> Ran {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A running `exec`.
pub(crate) struct Exec {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Exec {
    /// The one answer to one line.
    #[track_caller]
    pub(crate) fn ask(&mut self, line: &str) -> String {
        let stdin = self.stdin.as_mut().expect("still open");
        stdin.write_all(format!("{line}\n").as_bytes()).expect("read by the program");
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).expect("an answer");
        assert_eq!(answer.pop(), Some('\n'), "an answer is a line: {line}");
        answer
    }

    /// The `seq` and `durable` of an acknowledgement.
    #[track_caller]
    pub(crate) fn acknowledge(&mut self, line: &str) -> (u64, u64) {
        let answer = self.ask(line);
        let read = answer.strip_prefix("ok seq=").and_then(|rest| rest.split_once(" durable="));
        let (seq, durable) = read.unwrap_or_else(|| panic!("{line}: {answer}"));
        (seq.parse().expect("a number"), durable.parse().expect("a number"))
    }

    /// Ends the input; what the program says beyond its answers, and its exit code.
    pub(crate) fn end(mut self) -> Ran {
        drop(self.stdin.take());
        let mut rest = String::new();
        while self.stdout.read_line(&mut rest).expect("readable") > 0 {}
        let mut ended = ran(self.child.wait_with_output().expect("the program ends"));
        ended.out = rest;
        ended
    }

    /// As `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("still running");
        self.child.wait().expect("it ends");
    }
}
