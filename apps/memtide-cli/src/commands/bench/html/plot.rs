//! Plots as SVG: lines over a quantity, points of two quantities, stacked bars.
//!
//! A plot is one panel about as wide as a telephone, so that its text has the size it was drawn for; wider
//! screens show more panels in a row. Each memtable has a colour (a class, so that the style sheet knows
//! light from dark) and a shape, and its name stands beside its marks.

use std::fmt::Write;

use memtide::MemtableType;

use super::scale::{LinearScale, LogScale, axis_time, count, short, spread_apart, time};

const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 300.0;
/// Between two lines of text.
const LINE: f64 = 13.5;
/// About what a letter of a label takes.
const LETTER: f64 = 5.7;

/// Figures of one memtable, one for each place of the axis: middle, low, high.
pub(super) struct Series {
    pub(super) kind: MemtableType,
    pub(super) points: Vec<(f64, [f64; 3])>,
}

/// What the vertical axis of a plot of lines measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// Nanoseconds.
    Time,
    /// Operations in a microsecond, that is, millions in a second.
    Throughput,
}

impl Measure {
    fn tick(self, figure: f64) -> String {
        match self {
            Self::Time => axis_time(figure),
            Self::Throughput => short(figure),
        }
    }

    fn figure(self, figure: f64) -> String {
        match self {
            Self::Time => time(figure),
            Self::Throughput => format!("{} M/s", short(figure)),
        }
    }
}

/// The number of a memtable's colour and shape.
pub(super) fn number(kind: MemtableType) -> usize {
    let same = |other: &MemtableType| *other == kind;
    MemtableType::ALL.iter().position(same).expect("it is one of the eight")
}

/// A memtable's shape at a place, as a path.
pub(super) fn shape(kind: MemtableType, x: f64, y: f64) -> String {
    let outline = match number(kind) {
        0 => "m-4 -4h8v8h-8z",
        1 => "m-4.6 0a4.6 4.6 0 1 0 9.2 0a4.6 4.6 0 1 0 -9.2 0z",
        2 => "m0 -5.4l5 9h-10z",
        3 => "m0 5.4l5 -9h-10z",
        4 => "m0 -5.8l5.8 5.8l-5.8 5.8l-5.8 -5.8z",
        5 => "m0 -6l1.6 4.2l4.4 .2l-3.5 2.8l1.2 4.3l-3.7 -2.5l-3.7 2.5l1.2 -4.3l-3.5 -2.8l4.4 -.2z",
        6 => "m-1.7 -5.2h3.4v3.5h3.5v3.4h-3.5v3.5h-3.4v-3.5h-3.5v-3.4h3.5z",
        _ => "m-3 -5.2h6l3 5.2l-3 5.2h-6l-3 -5.2z",
    };
    format!("M{x:.1} {y:.1}{outline}")
}

/// A line for each memtable, over a quantity with these places.
pub(super) fn lines(label: &str, measure: Measure, places: &[f64], series: &[Series]) -> String {
    let (left, right, top, bottom) = (48.0, WIDTH - 122.0, 12.0, HEIGHT - 34.0);
    let figures = || series.iter().flat_map(|one| &one.points).flat_map(|(_, figures)| *figures);
    let across = LogScale::over(places.iter().copied(), 1.0, (left + 10.0, right - 6.0));
    let up = LogScale::over(figures(), 1.12, (bottom, top));
    let mut svg = begin(label, HEIGHT);
    for tick in up.ticks() {
        grid_line(&mut svg, (left, up.place(tick)), (right, up.place(tick)));
        text(&mut svg, "tick end", left - 6.0, up.place(tick) + 3.5, &measure.tick(tick));
    }
    let mut told = f64::MIN;
    for &place in places {
        let x = across.place(place);
        line(&mut svg, "axis", (x, bottom), (x, bottom + 4.0));
        if x - told > 24.0 {
            text(&mut svg, "tick middle", x, bottom + 17.0, &count(place));
            told = x;
        }
    }
    line(&mut svg, "axis", (left, bottom), (right, bottom));
    let last = |one: &Series| one.points.last().map_or(bottom, |(_, figures)| up.place(figures[0]));
    let mut label_places: Vec<f64> = series.iter().map(last).collect();
    spread_apart(&mut label_places, LINE, (top + 4.0, bottom - 2.0));
    for (one, label_place) in series.iter().zip(label_places) {
        let _ = write!(svg, "<g class=\"k k{}\">", number(one.kind));
        let place = |figure: usize| {
            let up = &up;
            let across = &across;
            move |(x, figures): &(f64, [f64; 3])| (across.place(*x), up.place(figures[figure]))
        };
        let there = one.points.iter().map(place(2));
        let band: Vec<_> = there.chain(one.points.iter().rev().map(place(1))).collect();
        let _ = write!(svg, "<path class=\"band\" d=\"{}z\"/>", path(&band));
        let middle: Vec<_> = one.points.iter().map(place(0)).collect();
        let _ = write!(svg, "<path class=\"line\" d=\"{}\"/>", path(&middle));
        if let Some(&(x, y)) = middle.last() {
            let leader = [(x + 7.0, y), (right + 8.0, label_place)];
            let _ = write!(svg, "<path class=\"leader\" d=\"{}\"/>", path(&leader));
        }
        for ((x, figures), &(at, y)) in one.points.iter().zip(&middle) {
            let said = format!("{} at {}: {}", one.kind, count(*x), measure.figure(figures[0]));
            mark(&mut svg, one.kind, at, y, &said);
        }
        mark(&mut svg, one.kind, right + 14.0, label_place, one.kind.name());
        text(&mut svg, "name", right + 22.0, label_place + 3.8, one.kind.name());
        svg.push_str("</g>");
    }
    svg.push_str("</svg>");
    svg
}

/// A row for each memtable with its figure as a point and its spread as a bar, fastest first.
pub(super) fn ranking(label: &str, measure: Measure, series: &[Series]) -> String {
    let figures = |one: &Series| one.points.first().map_or([0.0; 3], |(_, figures)| *figures);
    let mut ranked: Vec<&Series> = series.iter().collect();
    ranked.sort_by(|a, b| figures(a)[0].total_cmp(&figures(b)[0]));
    let (left, right, top) = (126.0, WIDTH - 62.0, 10.0);
    let bottom = top + 26.0 * ranked.len() as f64;
    let across = LogScale::over(ranked.iter().flat_map(|one| figures(one)), 1.12, (left, right));
    let mut svg = begin(label, bottom + 30.0);
    let mut told = f64::MIN;
    for tick in across.ticks() {
        let x = across.place(tick);
        grid_line(&mut svg, (x, top), (x, bottom));
        if x - told > 40.0 {
            text(&mut svg, "tick middle", x, bottom + 17.0, &measure.tick(tick));
            told = x;
        }
    }
    for (index, one) in ranked.iter().enumerate() {
        let y = top + 26.0 * (index as f64 + 0.5);
        let [middle, low, high] = figures(one).map(|figure| across.place(figure));
        let _ = write!(svg, "<g class=\"k k{}\">", number(one.kind));
        text(&mut svg, "name end", left - 10.0, y + 3.8, one.kind.name());
        line(&mut svg, "spread", (low, y), (high, y));
        let said = measure.figure(figures(one)[0]);
        mark(&mut svg, one.kind, middle, y, &format!("{}: {said}", one.kind));
        text(&mut svg, "figure", middle.max(high) + 9.0, y + 3.8, &said);
        svg.push_str("</g>");
    }
    svg.push_str("</svg>");
    svg
}

/// A point for each memtable: bytes for an entry across, nanoseconds up. Lower left is better.
pub(super) fn points(label: &str, places: &[(MemtableType, f64, f64)]) -> String {
    let (left, right, top, bottom) = (48.0, WIDTH - 14.0, 14.0, HEIGHT - 40.0);
    let across =
        LogScale::over(places.iter().map(|place| place.1), 1.02, (left + 12.0, right - 40.0));
    let up = LogScale::over(places.iter().map(|place| place.2), 1.25, (bottom, top));
    let mut svg = begin(label, HEIGHT);
    for tick in up.ticks() {
        grid_line(&mut svg, (left, up.place(tick)), (right, up.place(tick)));
        text(&mut svg, "tick end", left - 6.0, up.place(tick) + 3.5, &axis_time(tick));
    }
    let mut told = f64::MIN;
    for tick in across.ticks() {
        let x = across.place(tick);
        grid_line(&mut svg, (x, top), (x, bottom));
        if x - told > 30.0 {
            text(&mut svg, "tick middle", x, bottom + 16.0, &short(tick));
            told = x;
        }
    }
    text(
        &mut svg,
        "tick middle",
        f64::midpoint(left, right),
        bottom + 32.0,
        "bytes for each entry",
    );
    let centres: Vec<(f64, f64)> =
        places.iter().map(|&(_, x, y)| (across.place(x), up.place(y))).collect();
    let mut taken: Vec<Area> = centres.iter().map(|&(x, y)| Area::around(x, y)).collect();
    for (&(kind, bytes, ns), &(x, y)) in places.iter().zip(&centres) {
        let _ = write!(svg, "<g class=\"k k{}\">", number(kind));
        let said = format!("{kind}: {} B for each entry, {}", short(bytes), time(ns));
        mark(&mut svg, kind, x, y, &said);
        let area = Area::beside(x, y, kind.name(), &taken, Area { left, top, right, bottom });
        if (area.left - x).abs() > 12.0 && (area.right - x).abs() > 12.0 {
            let to = (x.clamp(area.left, area.right), y.clamp(area.top, area.bottom));
            let _ = write!(svg, "<path class=\"leader\" d=\"{}\"/>", path(&[(x, y), to]));
        }
        text(&mut svg, "name", area.left, area.bottom - 3.0, kind.name());
        taken.push(area);
        svg.push_str("</g>");
    }
    svg.push_str("</svg>");
    svg
}

/// What a bar of bytes is made of.
pub(super) struct Bytes {
    pub(super) kind: MemtableType,
    pub(super) payload: f64,
    pub(super) index: f64,
    pub(super) waste: f64,
}

/// A bar for each memtable: what an entry takes. All bars of a page share the scale `most`.
pub(super) fn bars(label: &str, rows: &[Bytes], most: f64) -> String {
    let (left, right, top) = (126.0, WIDTH - 14.0, 8.0);
    let bottom = top + 31.0 * rows.len() as f64;
    let across = LinearScale { high: most * 1.02, start: left, end: right };
    let mut svg = begin(label, bottom + 36.0);
    for tick in across.ticks() {
        let x = across.place(tick);
        grid_line(&mut svg, (x, top), (x, bottom));
        text(&mut svg, "tick middle", x, bottom + 16.0, &short(tick));
    }
    for (index, row) in rows.iter().enumerate() {
        let y = top + 31.0 * index as f64 + 4.0;
        text(&mut svg, "name end", left - 10.0, y + 10.0, row.kind.name());
        let mut from = 0.0;
        for (class, bytes) in [("payload", row.payload), ("index", row.index), ("waste", row.waste)]
        {
            let (x, end) = (across.place(from), across.place(from + bytes));
            let _ = write!(
                svg,
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"12\">\
                 <title>{}: {class} {} B</title></rect>",
                (end - x).max(0.0),
                row.kind,
                short(bytes)
            );
            from += bytes;
        }
        let said = format!("{} + {} + {}", short(row.payload), short(row.index), short(row.waste));
        text(&mut svg, "figure", left, y + 22.5, &said);
    }
    text(
        &mut svg,
        "tick middle",
        f64::midpoint(left, right),
        bottom + 31.0,
        "bytes for each entry",
    );
    svg.push_str("</svg>");
    svg
}

/// A rectangle of a drawing.
#[derive(Clone, Copy)]
struct Area {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

impl Area {
    fn around(x: f64, y: f64) -> Self {
        Self { left: x - 6.0, top: y - 6.0, right: x + 6.0, bottom: y + 6.0 }
    }

    /// A place for a name near a point: within bounds, and off what is taken if there is such a place.
    fn beside(x: f64, y: f64, name: &str, taken: &[Self], bounds: Self) -> Self {
        let width = name.len() as f64 * LETTER;
        let at = |left: f64, middle: f64| Self {
            left,
            top: middle - 6.5,
            right: left + width,
            bottom: middle + 6.5,
        };
        let tries = (0..12).flat_map(|ring| {
            let off = f64::from(ring) * 7.0;
            [
                at(x + 9.0, y + off),
                at(x - 9.0 - width, y + off),
                at(x + 9.0, y - off),
                at(x - 9.0 - width, y - off),
                at(x - width / 2.0, y + 14.0 + off),
                at(x - width / 2.0, y - 14.0 - off),
            ]
        });
        let fits = |area: &Self| area.within(&bounds) && !taken.iter().any(|one| one.meets(area));
        let inside = at((x + 9.0).min(bounds.right - width), y);
        tries.into_iter().find(fits).unwrap_or(inside)
    }

    fn within(&self, bounds: &Self) -> bool {
        self.left >= bounds.left
            && self.right <= bounds.right
            && self.top >= bounds.top
            && self.bottom <= bounds.bottom
    }

    fn meets(&self, other: &Self) -> bool {
        self.left < other.right
            && other.left < self.right
            && self.top < other.bottom
            && other.top < self.bottom
    }
}

fn begin(label: &str, height: f64) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{label}\">")
}

fn path(places: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (index, (x, y)) in places.iter().enumerate() {
        let _ = write!(path, "{}{x:.1} {y:.1}", if index == 0 { "M" } else { "L" });
    }
    path
}

fn line(svg: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let _ = write!(svg, "<path class=\"{class}\" d=\"{}\"/>", path(&[from, to]));
}

fn grid_line(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    line(svg, "grid", from, to);
}

fn text(svg: &mut String, class: &str, x: f64, y: f64, words: &str) {
    let _ = write!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>");
}

fn mark(svg: &mut String, kind: MemtableType, x: f64, y: f64, said: &str) {
    let d = shape(kind, x, y);
    let _ = write!(svg, "<path class=\"mark\" d=\"{d}\"><title>{said}</title></path>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beside_points_keep_apart() {
        let bounds = Area { left: 40.0, top: 0.0, right: 380.0, bottom: 260.0 };
        let centres = [(200.0, 100.0), (205.0, 103.0), (198.0, 104.0), (370.0, 250.0)];
        let mut taken: Vec<Area> = centres.iter().map(|&(x, y)| Area::around(x, y)).collect();
        for (x, y) in centres {
            let area = Area::beside(x, y, "enhanced_skiplist", &taken, bounds);
            assert!(area.within(&bounds) && !taken.iter().any(|one| one.meets(&area)), "{x} {y}");
            taken.push(area);
        }
    }

    #[test]
    fn each_of_the_eight_has_its_own_shape() {
        let mut shapes: Vec<_> =
            MemtableType::ALL.iter().map(|&kind| shape(kind, 0.0, 0.0)).collect();
        shapes.sort();
        shapes.dedup();
        assert_eq!(shapes.len(), 8);
    }
}
