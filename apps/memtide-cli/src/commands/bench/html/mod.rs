//! The results as one page: plots, a heat map and every figure, in one file that needs nothing else.
//!
//! No script runs in it; what moves is style. Rows that share their conditions make a part of the page; the
//! first part is shown, the others are folded. Where a condition was varied, a plot shows what it does.

mod figures;
mod heat;
mod plot;
mod scale;

use std::fmt::Write;

use memtide::MemtableType;

use self::plot::{Bytes, Measure, Series};
use super::measure::{MixFigures, Row, Spread};
use super::plan::name_of;
use super::table::conditions;
use super::workload::Case;
use crate::args::Mix;

/// The size that pictures of a single size show if they can: about a full memtable of the presets.
const USUAL_ENTRIES: u32 = 5000;

/// Where the figures come from.
pub(super) struct Origin {
    /// The command that made them.
    pub(super) command: String,
    /// The machine, in a line.
    pub(super) machine: String,
}

/// Draws the page of at least one row.
pub(super) fn page(rows: &[Row], origin: &Origin) -> String {
    let parts: Vec<&[Row]> =
        rows.chunk_by(|a, b| conditions(a.case) == conditions(b.case)).collect();
    let mut html = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Memtide: memtables measured</title><style>\n",
    );
    html.push_str(include_str!("style.css"));
    html.push_str("</style></head><body>\n");
    header(&mut html, parts[0], origin);
    html.push_str("<main>\n");
    key(&mut html, parts[0]);
    part(&mut html, parts[0]);
    varied(&mut html, &parts);
    for more in &parts[1..] {
        let _ = write!(html, "<details><summary>{}</summary>", sentence(&conditions(more[0].case)));
        part(&mut html, more);
        html.push_str("</details>\n");
    }
    html.push_str("<h2>Every figure</h2>\n");
    for part in &parts {
        let named = sentence(&conditions(part[0].case));
        let _ = writeln!(
            html,
            "<details><summary>{named}</summary>{}</details>",
            figures::tables(part)
        );
    }
    html.push_str("</main>\n");
    footer(&mut html, rows, origin);
    html.push_str("</body></html>\n");
    html
}

fn header(html: &mut String, rows: &[Row], origin: &Origin) {
    let shown = usual_size(rows);
    let _ = write!(
        html,
        "<header><h1>Memtables, measured</h1><p class=\"lead\">{}, {}. Made by <code>{}</code> on {}.</p>\n\
         <div class=\"tiles\">",
        sentence(&conditions(rows[0].case)),
        sizes(rows),
        escaped(&origin.command),
        escaped(&origin.machine)
    );
    let entries = shown[0].case.entries;
    for (words, mix) in
        [("Fastest put", Mix::Load), ("Fastest get", Mix::Read), ("Fastest scan", Mix::Scan)]
    {
        let cost = |row: &Row| cost(row, mix).median;
        let best = shown.iter().min_by(|a, b| cost(a).total_cmp(&cost(b)));
        let best = best.expect("a part has rows");
        tile(html, words, entries, best.kind, &scale::time(cost(best)));
    }
    let bytes = |row: &Row| row.index_per_entry();
    let least = shown.iter().min_by(|a, b| bytes(a).total_cmp(&bytes(b))).expect("as above");
    let said = format!("{} B beside the data", scale::short(bytes(least)));
    tile(html, "Least overhead", entries, least.kind, &said);
    html.push_str("</div></header>\n");
}

fn tile(html: &mut String, words: &str, entries: u32, kind: MemtableType, said: &str) {
    let _ = writeln!(
        html,
        "<div class=\"tile\"><span>{words} at {} entries</span><b>{kind}</b>{said}</div>",
        scale::count(f64::from(entries))
    );
}

/// The shapes and colours; a pointer over one makes the others fade, on the whole page.
fn key(html: &mut String, rows: &[Row]) {
    html.push_str("<div class=\"key\">");
    for row in size_of(rows, rows[0].case.entries) {
        let (number, shape) = (plot::number(row.kind), plot::shape(row.kind, 7.0, 7.0));
        let _ = write!(
            html,
            "<span class=\"k k{number}\"><svg viewBox=\"0 0 14 14\" aria-hidden=\"true\">\
             <path class=\"mark\" d=\"{shape}\"/></svg>{}</span>",
            row.kind
        );
    }
    html.push_str("</div>\n");
}

/// The pictures of rows that share their conditions.
fn part(html: &mut String, rows: &[Row]) {
    let clock = clock_words(rows[0].case);
    let several = rows.iter().any(|row| row.case != rows[0].case);
    html.push_str(if several { "<h2>Speed by size</h2>\n" } else { "<h2>Speed</h2>\n" });
    let _ = write!(
        html,
        "<p class=\"lead\">{clock} Lower is better. Bands and bars span the middle half of the rounds.</p>\n\
         <div class=\"panels\">"
    );
    for figures in &rows[0].mixes {
        let (title, unit) = words(figures.mix);
        let label = format!("{title} by memtable");
        let drawn = if several {
            let entries: Vec<f64> = all_sizes(rows).into_iter().map(f64::from).collect();
            let series =
                series(rows, |row| f64::from(row.case.entries), |row| cost(row, figures.mix));
            plot::lines(&label, Measure::Time, &entries, &series)
        } else {
            let series = series(rows, |_| 1.0, |row| cost(row, figures.mix));
            plot::ranking(&label, Measure::Time, &series)
        };
        panel(html, title, unit, &drawn);
    }
    html.push_str("</div>\n<h2>Bytes for each entry</h2>\n");
    html.push_str(
        "<div class=\"parts\"><span><i style=\"background:var(--payload)\"></i>payload: keys and values</span>\
         <span><i style=\"background:var(--index)\"></i>index: everything else in use</span>\
         <span><i style=\"background:var(--waste)\"></i>waste: reserved, not used yet</span></div>\n\
         <div class=\"panels\">",
    );
    let whole = |row: &Row| row.bytes_per_entry() + row.waste_per_entry();
    let most = rows.iter().map(whole).fold(1.0, f64::max);
    for entries in all_sizes(rows) {
        let bytes: Vec<Bytes> = size_of(rows, entries)
            .map(|row| Bytes {
                kind: row.kind,
                payload: row.payload_per_entry(),
                index: row.index_per_entry(),
                waste: row.waste_per_entry(),
            })
            .collect();
        let title = format!("{} entries", scale::count(f64::from(entries)));
        panel(html, &title, "payload + index + waste", &plot::bars(&title, &bytes, most));
    }
    html.push_str("</div>\n<h2>Who wins where</h2>\n");
    let _ = writeln!(
        html,
        "<p class=\"lead\">{clock} ★ best of its column, ☆ no further from it than one memtable is from itself; \
         × how many times the best.</p>"
    );
    // Wide tables get a line each.
    let few = rows[0].mixes.len() <= 5;
    html.push_str(if few { "<div class=\"heats\">" } else { "<div>" });
    for entries in all_sizes(rows) {
        let size: Vec<&Row> = size_of(rows, entries).collect();
        let kinds: Vec<MemtableType> = size.iter().map(|row| row.kind).collect();
        let columns: Vec<heat::Column> =
            size[0].mixes.iter().map(|figures| heat_column(&size, figures.mix)).collect();
        let corner = format!("{} entries", scale::count(f64::from(entries)));
        html.push_str(&heat::table(&corner, &kinds, &columns));
    }
    html.push_str("</div>\n<h2>Memory against speed</h2>\n");
    let shown = usual_size(rows);
    let _ = write!(
        html,
        "<p class=\"lead\">At {} entries; keys, values and index in use. Lower left is better.</p>\n\
         <div class=\"panels\">",
        scale::count(f64::from(shown[0].case.entries))
    );
    for mix in [Mix::Load, Mix::Read, Mix::Scan] {
        let places: Vec<_> = shown
            .iter()
            .map(|row| (row.kind, row.bytes_per_entry(), cost(row, mix).median))
            .collect();
        let (title, unit) = words(mix);
        panel(html, title, unit, &plot::points(&format!("{title} against bytes"), &places));
    }
    html.push_str("</div>\n");
}

fn panel(html: &mut String, title: &str, unit: &str, drawn: &str) {
    let _ = writeln!(
        html,
        "<figure><figcaption>{title}<small>{unit}</small></figcaption>{drawn}</figure>"
    );
}

/// What conditions do that were varied: threads and lengths of values as lines, keys as a heat map.
fn varied(html: &mut String, parts: &[&[Row]]) {
    let first = parts[0][0].case;
    let along = |same: &dyn Fn(Case) -> bool| -> Option<Vec<Row>> {
        let rows = || parts.iter().copied().flatten().filter(|row| same(row.case));
        let entries = rows().filter(|row| row.case != Case { entries: row.case.entries, ..first });
        let entries = entries.map(|row| row.case.entries).max()?;
        Some(rows().filter(|row| row.case.entries == entries).cloned().collect())
    };
    let threads =
        along(&|case| Case { threads: first.threads, entries: first.entries, ..case } == first);
    if let Some(rows) = threads {
        let speed = |row: &Row, mix| {
            let wall = row.mix(mix).expect("all rows have the same mixes").alone.wall;
            let speed = |ns: f64| 1e3 / ns.max(0.1);
            Spread { median: speed(wall.median), low: speed(wall.high), high: speed(wall.low) }
        };
        let lead = "Operations of all threads together, by the wall clock. Higher is better; a level line means \
                    that threads wait for each other, or that the machine has no processor left.";
        over(html, "More threads", lead, &rows, Measure::Throughput, |case| case.threads, speed);
    }
    let values = along(&|case| {
        Case { value_bytes: first.value_bytes, entries: first.entries, ..case } == first
    });
    if let Some(rows) = values {
        let lead = "Over the bytes of a value. Lower is better.";
        over(html, "Longer values", lead, &rows, Measure::Time, |case| case.value_bytes, cost);
    }
    let keys = along(&|case| Case { keys: first.keys, entries: first.entries, ..case } == first);
    if let Some(rows) = keys {
        let _ = writeln!(
            html,
            "<h2>Other keys</h2>\n<p class=\"lead\">{} entries. {} ★ best of its column.</p>",
            scale::count(f64::from(rows[0].case.entries)),
            clock_words(first)
        );
        html.push_str("<div class=\"heats\">");
        for mix in [Mix::Load, Mix::Read, Mix::Scan] {
            let shapes: Vec<Vec<&Row>> =
                rows.chunk_by(|a, b| a.case == b.case).map(|size| size.iter().collect()).collect();
            let kinds: Vec<MemtableType> = shapes[0].iter().map(|row| row.kind).collect();
            let columns: Vec<heat::Column> = shapes
                .iter()
                .map(|size| heat::Column {
                    name: name_of(size[0].case.keys),
                    ..heat_column(size, mix)
                })
                .collect();
            html.push_str(&heat::table(words(mix).0, &kinds, &columns));
        }
        html.push_str("</div>\n");
    }
}

/// Plots of the three usual operations over a condition.
fn over(
    html: &mut String,
    title: &str,
    lead: &str,
    rows: &[Row],
    measure: Measure,
    condition: impl Fn(Case) -> u32,
    figure: impl Fn(&Row, Mix) -> Spread,
) {
    let place = |row: &Row| f64::from(condition(row.case).max(1));
    let mut places: Vec<f64> = rows.iter().map(place).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let entries = scale::count(f64::from(rows[0].case.entries));
    let _ = write!(
        html,
        "<h2>{title}</h2>\n<p class=\"lead\">{entries} entries. {lead}</p>\n<div class=\"panels\">"
    );
    for mix in rows[0].mixes.iter().map(|figures| figures.mix) {
        let mut series = series(rows, place, |row| figure(row, mix));
        for one in &mut series {
            one.points.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        let (name, unit) = words(mix);
        let unit = if measure == Measure::Throughput { "million in a second" } else { unit };
        let label = format!("{name}: {title}");
        panel(html, name, unit, &plot::lines(&label, measure, &places, &series));
    }
    html.push_str("</div>\n");
}

fn footer(html: &mut String, rows: &[Row], origin: &Origin) {
    let (ok, total) =
        rows.iter().fold((0, 0), |sum, row| (sum.0 + row.ops_ok, sum.1 + row.ops_total));
    let build = if cfg!(debug_assertions) {
        " The program was built without optimisation: its times mean nothing."
    } else {
        ""
    };
    let _ = writeln!(
        html,
        "<footer><p>{ok} of {total} operations agreed with a model.{build} Rounds are interleaved and a figure \
         is the median of its rounds. Times beside a database are in the tables. Memtide {}, {}.</p></footer>",
        env!("CARGO_PKG_VERSION"),
        escaped(&origin.machine)
    );
}

fn series(
    rows: &[Row],
    place: impl Fn(&Row) -> f64,
    figure: impl Fn(&Row) -> Spread,
) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for row in rows {
        let spread = figure(row);
        let point = (place(row), [spread.median, spread.low, spread.high]);
        match all.iter_mut().find(|one| one.kind == row.kind) {
            Some(one) => one.points.push(point),
            None => all.push(Series { kind: row.kind, points: vec![point] }),
        }
    }
    all
}

fn heat_column(size: &[&Row], mix: Mix) -> heat::Column {
    let noise = size[0].mix(mix).expect("all rows have the same mixes").noise;
    let noise = if size[0].case.threads == 1 { noise.cpu } else { noise.wall };
    let ns = size.iter().map(|row| cost(row, mix).median).collect();
    heat::Column { name: name_of(mix), noise, ns }
}

/// What pictures show of a mix: CPU time of one thread, wall time of several.
fn cost(row: &Row, mix: Mix) -> Spread {
    let figures: &MixFigures = row.mix(mix).expect("all rows have the same mixes");
    if row.case.threads == 1 { figures.alone.cpu } else { figures.alone.wall }
}

fn clock_words(case: Case) -> &'static str {
    if case.threads == 1 {
        "CPU time of the memtable alone."
    } else {
        "Wall time of the memtable alone, divided by the operations of all threads."
    }
}

/// A mix in words, and what its figures are for.
fn words(mix: Mix) -> (&'static str, &'static str) {
    match mix {
        Mix::Load => ("Load", "for each put"),
        Mix::Read => ("Read", "for each get"),
        Mix::Miss => ("Read what is not there", "for each get"),
        Mix::Scan => ("Scan everything", "for each entry"),
        Mix::PrefixScan => ("Scan a prefix", "for each scan of up to 50 entries"),
        Mix::ReadMostly => ("Read mostly", "95 % gets, 5 % overwrites"),
        Mix::ScanWrite => ("Scan and write", "95 % prefix scans, 5 % overwrites"),
        Mix::ReadWrite => ("Read and write", "half gets, half overwrites"),
        Mix::OverwriteZipf => ("Overwrite, skewed", "for each put, Zipf 0.99"),
    }
}

fn all_sizes(rows: &[Row]) -> Vec<u32> {
    let mut sizes: Vec<u32> = rows.iter().map(|row| row.case.entries).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

fn size_of(rows: &[Row], entries: u32) -> impl Iterator<Item = &Row> {
    rows.iter().filter(move |row| row.case.entries == entries)
}

/// The rows of the size nearest below [`USUAL_ENTRIES`], or of the smallest.
fn usual_size(rows: &[Row]) -> Vec<&Row> {
    let sizes = all_sizes(rows);
    let usual = sizes.iter().rev().find(|&&entries| entries <= USUAL_ENTRIES);
    size_of(rows, *usual.unwrap_or(&sizes[0])).collect()
}

fn sizes(rows: &[Row]) -> String {
    let named: Vec<String> =
        all_sizes(rows).into_iter().map(|entries| scale::count(f64::from(entries))).collect();
    match named.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last} entries", rest.join(", ")),
        _ => format!("{} entries", named.concat()),
    }
}

/// With a capital letter.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Text from outside, safe between tags.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
