//! `exec`: a line protocol for scripts on standard input and output.
//!
//! One command a line, exactly one answer line for each, handed out after the acknowledgement:
//!
//! | Command | Answer |
//! |---|---|
//! | `put KS KEY VALUE`, `del KS KEY`, `delrange KS FROM TO` | `ok seq=N durable=M`; `ok` inside a batch |
//! | `get KS KEY` | `val HEX` or `nil` |
//! | `scan KS FROM TO [rev] [limit N]` | `rows KEY=VALUE …` |
//! | `begin` … `commit` | `ok`, then one answer for all writes between, which happen together |
//! | `snapshot` … `release` | reads between them see the database as it was at `snapshot` |
//! | `memtable KS TYPE`, `flush`, `compact`, `sync`, `resume`, `close` | `ok seq=N durable=M` |
//! | `stats`, `health` | `ok {…}`, one line of JSON |
//!
//! `KS` is a keyspace: `d` is the default one, others are made when first named. Bytes are hexadecimal, `.`
//! is the empty string, `-` an open end of a range; `FROM` is inside the range, `TO` is not. `N` is the seqno
//! of the last write of the command or, where the command wrote nothing, the bound below which all writes are
//! visible; every logged write with a seqno below `M` survives a power cut.
//!
//! A command that fails answers `err CODE text` and the next one is read. Reads inside a batch do not see
//! it. End of input closes the database; an open batch is forgotten.

mod parse;
mod session;

use std::io::{self, BufRead, Write};

use memtide::Error;

use crate::args::{Exec, Global};
use crate::formats::lines::{Line, LineReader};
use crate::open::{self, Access};
use crate::report::{self, Outcome};

use parse::Command;
use session::Session;

/// Serves standard input until its end or `close`.
pub(crate) fn run(global: &Global, exec: &Exec) -> Outcome {
    let mut config = open::config(global, &exec.options)?;
    config.durability = exec.durability.or(config.durability);
    let dir = open::directory(global, exec.exec_dir.as_deref(), &config)?;
    let access = if exec.read_only { Access::Read } else { Access::Create };
    let session = Session::new(open::open(dir, config, access)?, exec.read_only);
    let lines = LineReader::new(io::stdin().lock(), "standard input");
    serve(session, lines, &mut report::output())
}

fn serve(
    mut session: Session,
    mut lines: LineReader<impl BufRead>,
    output: &mut impl Write,
) -> Outcome {
    let mut line = Vec::new();
    loop {
        let read = lines.read(&mut line);
        let command = match read.map_err(|error| Error::io("read", "standard input", error))? {
            Line::End => {
                session.close()?;
                return Ok(());
            }
            Line::TooLong => Err(Error::invalid_argument("the line is too long")),
            Line::Text => parse::command(&line),
        };
        if matches!(command, Ok(Command::Close)) {
            let closed = session.close();
            tell(output, &closed)?;
            closed?;
            return Ok(());
        }
        tell(output, &command.and_then(|command| session.answer(command)))?;
    }
}

/// Writes one answer and hands it out.
fn tell(output: &mut impl Write, answer: &memtide::Result<String>) -> io::Result<()> {
    match answer {
        Ok(answer) => writeln!(output, "{answer}")?,
        Err(error) => {
            let causes = report::causes(error).into_iter();
            let text = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
            let line = text.replace(|c: char| c.is_control(), " ");
            writeln!(output, "err {} {line}", error.kind().code())?;
        }
    }
    output.flush()
}
