//! Every figure of the results as tables: the same numbers, to the same digit, as the JSON has.

use std::fmt::Write;

use crate::args::Mix;
use crate::commands::bench::measure::{Row, Spread};
use crate::commands::bench::plan::name_of;

/// What stands for a figure that was not measured.
const NOTHING: &str = "–";

/// The tables of rows that share their conditions.
pub(super) fn tables(rows: &[Row]) -> String {
    format!("{}{}", totals(rows), mixes(rows))
}

/// One row for each memtable and size.
fn totals(rows: &[Row]) -> String {
    let mut html = head(
        "Operations, bytes, and nanoseconds of the three operations every report has",
        &[
            "entries",
            "keys",
            "value B",
            "threads",
            "batch",
            "rounds",
            "ok",
            "of",
            "payload B",
            "used B",
            "reserved B",
            "B/entry",
            "payload/entry",
            "index/entry",
            "waste/entry",
            "put",
            "get",
            "scan",
            "put CPU",
            "get CPU",
            "scan CPU",
            "db put",
            "db get",
            "db scan",
        ],
    );
    for row in rows {
        let timings = [Mix::Load, Mix::Read, Mix::Scan]
            .map(|mix| row.mix(mix).expect("it is part of every run"));
        let mut cells = vec![
            row.case.entries.to_string(),
            name_of(row.case.keys),
            row.case.value_bytes.to_string(),
            row.case.threads.to_string(),
            row.case.batch.to_string(),
            row.rounds.to_string(),
            row.ops_ok.to_string(),
            row.ops_total.to_string(),
            row.payload.to_string(),
            row.usage.used.to_string(),
            row.usage.reserved.to_string(),
        ];
        let parts = [
            row.bytes_per_entry(),
            row.payload_per_entry(),
            row.index_per_entry(),
            row.waste_per_entry(),
        ];
        cells.extend(parts.map(exact));
        cells.extend(timings.map(|figures| exact(figures.alone.wall.median)));
        cells.extend(timings.map(|figures| exact(figures.alone.cpu.median)));
        cells.extend(timings.map(|figures| {
            figures.database.map_or(NOTHING.to_string(), |timing| exact(timing.wall.median))
        }));
        body_row(&mut html, row, "", &cells);
    }
    html.push_str("</table></div>");
    html
}

/// One row for each memtable, size and mix.
fn mixes(rows: &[Row]) -> String {
    let mut html = head(
        "Every mix, in nanoseconds: median of the rounds, lower and upper quartile",
        &[
            "entries",
            "mix",
            "operations",
            "wall",
            "low",
            "high",
            "noise %",
            "CPU",
            "low",
            "high",
            "noise %",
            "db wall",
            "low",
            "high",
            "noise %",
            "db CPU",
            "low",
            "high",
        ],
    );
    for row in rows {
        for figures in &row.mixes {
            let mut cells = vec![
                row.case.entries.to_string(),
                name_of(figures.mix),
                figures.operations.to_string(),
            ];
            let noise = figures.noise;
            let spreads = [
                (Some(figures.alone.wall), Some(Some(noise.wall))),
                (Some(figures.alone.cpu), Some(Some(noise.cpu))),
                (figures.database.map(|timing| timing.wall), Some(noise.database)),
                (figures.database.map(|timing| timing.cpu), None),
            ];
            for (spread, noise) in spreads {
                cells.extend(spread_cells(spread));
                cells.extend(noise.map(|noise| noise.map_or(NOTHING.to_string(), exact)));
            }
            body_row(&mut html, row, &name_of(figures.mix), &cells);
        }
    }
    html.push_str("</table></div>");
    html
}

fn spread_cells(spread: Option<Spread>) -> [String; 3] {
    let Some(spread) = spread else { return [NOTHING; 3].map(str::to_owned) };
    [spread.median, spread.low, spread.high].map(exact)
}

/// As JSON has it: all figures are kept to a tenth.
fn exact(figure: f64) -> String {
    format!("{figure:.1}")
}

fn head(caption: &str, columns: &[&str]) -> String {
    let mut html = format!(
        "<p class=\"caption\">{caption}.</p><div class=\"wide\"><table class=\"figures\"><thead><tr><th>memtable"
    );
    for column in columns {
        let _ = write!(html, "<th>{column}");
    }
    html.push_str("<tbody>");
    html
}

/// Ends of cells and rows go without saying in HTML; with thousands of them that halves the page.
fn body_row(html: &mut String, row: &Row, mix: &str, cells: &[String]) {
    let case = row.case;
    let keys = name_of(case.keys);
    let _ = write!(
        html,
        "<tr data-of=\"{} {} {keys} {} {} {mix}\"><th>{}",
        row.kind, case.entries, case.value_bytes, case.threads, row.kind
    );
    for cell in cells {
        let _ = write!(html, "<td>{cell}");
    }
    html.push('\n');
}
