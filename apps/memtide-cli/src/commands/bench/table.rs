//! The results for people: tables of text, or of Markdown.
//!
//! The first table is the same in every report. Those behind it show more, when more was asked for.

use std::io::Write;

use comfy_table::{CellAlignment, ColumnConstraint, Table, presets};

use super::measure::{MixFigures, Row, Spread};
use super::plan::name_of;
use super::workload::Case;
use crate::args::Mix;
use crate::report::{self, Outcome};

/// What a row is called that says how far one memtable measured twice comes out apart.
const NOISE: &str = "noise floor";

/// How tables are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Text,
    Markdown,
}

/// Prints all rows; `details` adds where the bytes are and every mix by both clocks.
pub(super) fn print(rows: &[Row], details: bool, style: Style) -> Outcome {
    let mut output = report::output();
    for group in rows.chunk_by(|a, b| conditions(a.case) == conditions(b.case)) {
        if details {
            writeln!(output, "{}\n", style.heading(&conditions(group[0].case)))?;
        }
        writeln!(output, "{}\n", overview(group).drawn(style))?;
        if details {
            let wall = times(group, |figures| (figures.alone.wall, figures.noise.wall));
            let cpu = times(group, |figures| (figures.alone.cpu, figures.noise.cpu));
            for (caption, sheet) in [
                ("Bytes for each entry, the memtable alone", bytes(group)),
                ("Wall time in ns, the memtable alone: median, spread of the middle half", wall),
                ("CPU time in ns, the memtable alone: median, spread of the middle half", cpu),
            ] {
                writeln!(output, "{caption}:\n\n{}\n", sheet.drawn(style))?;
            }
        }
    }
    if style == Style::Text {
        writeln!(output, "{}", legend(&rows[0], details))?;
    }
    output.finish()
}

/// What the rows of one table share, in words.
pub(super) fn conditions(case: Case) -> String {
    let threads = if case.threads == 1 { "thread" } else { "threads" };
    let keys = name_of(case.keys);
    let batch = match case.batch {
        1 => String::new(),
        batch => format!(", {batch} at a time"),
    };
    format!("{keys} keys, values of {} B, {} {threads}{batch}", case.value_bytes, case.threads)
}

fn overview(rows: &[Row]) -> Sheet {
    let mut sheet = Sheet::new([
        "memtable", "entries", "ok", "used", "reserved", "B/entry", "put", "get", "scan", "db put",
        "db get", "db scan",
    ]);
    let columns = [Mix::Load, Mix::Read, Mix::Scan];
    for size in rows.chunk_by(|a, b| a.case == b.case) {
        for row in size {
            let figures = columns.map(|mix| row.mix(mix).expect("it is part of every run"));
            let database = figures.map(|figures| figures.database.map(|timing| timing.wall.median));
            let mut cells = vec![
                row.kind.to_string(),
                row.case.entries.to_string(),
                format!("{}/{}", row.ops_ok, row.ops_total),
                report::bytes(row.usage.used),
                report::bytes(row.usage.reserved),
                format!("{:.1}", row.bytes_per_entry()),
            ];
            cells.extend(figures.map(|figures| format!("{:.0}", figures.alone.wall.median)));
            cells.extend(database.map(|ns| ns.map_or("-".to_string(), |ns| format!("{ns:.0}"))));
            sheet.rows.push(cells);
        }
        let noises = columns.map(|mix| size[0].mix(mix).expect("as above").noise);
        let mut cells = vec![NOISE.to_string(), size[0].case.entries.to_string()];
        cells.extend(std::iter::repeat_n("-".to_string(), 4));
        cells.extend(noises.map(|noise| percent(noise.wall)));
        cells.extend(noises.map(|noise| noise.database.map_or("-".to_string(), percent)));
        sheet.rows.push(cells);
    }
    sheet
}

fn bytes(rows: &[Row]) -> Sheet {
    let mut sheet = Sheet::new(["memtable", "entries", "payload", "index", "waste", "reserved"]);
    for row in rows {
        let (payload, index) = (row.payload_per_entry(), row.index_per_entry());
        let reserved = row.usage.reserved as f64 / f64::from(row.case.entries);
        let mut cells = vec![row.kind.to_string(), row.case.entries.to_string()];
        let parts = [payload, index, row.waste_per_entry(), reserved];
        cells.extend(parts.map(|bytes| format!("{bytes:.1}")));
        sheet.rows.push(cells);
    }
    sheet
}

/// One clock's figures of every mix, with its noise.
fn times(rows: &[Row], clock: impl Fn(&MixFigures) -> (Spread, f64)) -> Sheet {
    let names = rows[0].mixes.iter().map(|figures| name_of(figures.mix));
    let mut sheet = Sheet::new(["memtable", "entries"]);
    sheet.header.extend(names);
    for size in rows.chunk_by(|a, b| a.case == b.case) {
        let entries = size[0].case.entries.to_string();
        for row in size {
            let mut cells = vec![row.kind.to_string(), entries.clone()];
            cells.extend(row.mixes.iter().map(|figures| {
                let spread = clock(figures).0;
                let around = 50.0 * (spread.high - spread.low) / spread.median.max(0.1);
                format!("{:.0} {}", spread.median, percent(around))
            }));
            sheet.rows.push(cells);
        }
        let mut cells = vec![NOISE.to_string(), entries];
        cells.extend(size[0].mixes.iter().map(|figures| percent(clock(figures).1)));
        sheet.rows.push(cells);
    }
    sheet
}

fn percent(percent: f64) -> String {
    format!("±{percent:.0}%")
}

fn legend(row: &Row, details: bool) -> String {
    let key = (row.payload_per_entry() - f64::from(row.case.value_bytes)).round();
    let more =
        if details { "" } else { "\nCPU time, spread and overhead are in --json and --html." };
    format!(
        "Keys of {key:.0} B, values of {} B. put, get, scan: ns for each operation or entry, the \
         memtable alone;\ndb: the same through a database on disk, durability buffered. ok: operations \
         that agreed with a model.\n{NOISE}: how far one memtable comes out apart when it is measured \
         twice.{more}",
        row.case.value_bytes,
    )
}

/// A table before it is drawn: names in the first column, figures in the others.
struct Sheet {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Sheet {
    fn new<const N: usize>(header: [&str; N]) -> Self {
        Self { header: header.map(str::to_owned).to_vec(), rows: Vec::new() }
    }

    fn drawn(&self, style: Style) -> String {
        match style {
            Style::Text => self.text(),
            Style::Markdown => self.markdown(),
        }
    }

    fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(&self.header).add_rows(&self.rows);
        for (index, column) in table.column_iter_mut().enumerate() {
            // A figure that wraps is no longer one.
            column.set_constraint(ColumnConstraint::ContentWidth);
            if index > 0 {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.to_string()
    }

    fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule: String = self.header.iter().skip(1).map(|_| "---:|").collect();
        let mut lines = format!("{}|---|{rule}\n", line(&self.header));
        for row in &self.rows {
            let mut cells = row.clone();
            if cells[0] != NOISE {
                cells[0] = format!("`{}`", cells[0]);
            }
            lines.push_str(&line(&cells));
        }
        lines.pop();
        lines
    }
}

impl Style {
    fn heading(self, text: &str) -> String {
        match self {
            Self::Text => text.to_owned(),
            Self::Markdown => format!("**{text}**"),
        }
    }
}
