//! A table of memtables and kinds of work, coloured by how near each comes to the best of its column.

use std::fmt::Write;

use memtide::MemtableType;

use super::scale::{short, time};

/// At this many times the best, no colour is left.
const COLOURLESS: f64 = 8.0;

/// One kind of work: its name, how far equal figures come out apart in percent, a figure for each memtable.
pub(super) struct Column {
    pub(super) name: String,
    pub(super) noise: f64,
    pub(super) ns: Vec<f64>,
}

/// How a figure stands to the best of its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Best,
    /// No further from the best than one memtable is from itself.
    Level,
    Behind,
}

impl Standing {
    fn sign(self) -> &'static str {
        match self {
            Self::Best => "★ ",
            Self::Level => "☆ ",
            Self::Behind => "",
        }
    }
}

/// Draws the table; `corner` names what is above the memtables.
pub(super) fn table(corner: &str, kinds: &[MemtableType], columns: &[Column]) -> String {
    let mut html =
        format!("<div class=\"wide\"><table class=\"heat\"><thead><tr><th>{corner}</th>");
    for column in columns {
        let _ = write!(html, "<th>{}</th>", column.name);
    }
    html.push_str("</tr></thead><tbody>");
    for (index, kind) in kinds.iter().enumerate() {
        let _ = write!(html, "<tr><th>{kind}</th>");
        for column in columns {
            let (ratio, standing) = standing(column, index);
            let near = (1.0 - ratio.ln() / COLOURLESS.ln()).clamp(0.0, 1.0);
            let class = if standing == Standing::Best { " class=\"best\"" } else { "" };
            let _ = write!(
                html,
                "<td{class} style=\"--near:{:.0}%\">{}{}<small>{}×</small></td>",
                near * 100.0,
                standing.sign(),
                time(column.ns[index]),
                ratio_text(ratio)
            );
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    html
}

/// How many times the best a figure is, and whether that says anything.
fn standing(column: &Column, index: usize) -> (f64, Standing) {
    let best = column.ns.iter().copied().fold(f64::MAX, f64::min).max(0.1);
    let ratio = column.ns[index].max(0.1) / best;
    let first = column.ns.iter().position(|&ns| ns.max(0.1) <= best);
    let standing = match ratio {
        _ if first == Some(index) => Standing::Best,
        _ if (ratio - 1.0) * 100.0 <= column.noise => Standing::Level,
        _ => Standing::Behind,
    };
    (ratio, standing)
}

fn ratio_text(ratio: f64) -> String {
    if ratio < 9.95 { format!("{ratio:.1}") } else { short(ratio.round()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(noise: f64, ns: &[f64]) -> Column {
        Column { name: "read".to_string(), noise, ns: ns.to_vec() }
    }

    #[test]
    fn the_best_is_marked_once_and_those_within_the_noise_as_level() {
        let column = column(5.0, &[104.0, 100.0, 106.0, 100.0]);
        let all: Vec<_> = (0..4).map(|index| standing(&column, index).1).collect();
        assert_eq!(all, [Standing::Level, Standing::Best, Standing::Behind, Standing::Level]);
    }

    #[test]
    fn every_figure_stands_in_its_row() {
        let kinds = [MemtableType::Trie, MemtableType::Vector];
        let html =
            table("at 100", &kinds, &[column(0.0, &[20.0, 320.0]), column(0.0, &[8.0, 4.0])]);
        let rows: Vec<&str> = html.split("<tr>").skip(2).collect();
        assert!(rows[0].contains("<th>trie</th>") && rows[0].contains("★ 20 ns<small>1.0×"));
        assert!(rows[1].contains("--near:0%\">320 ns<small>16×") && rows[1].contains("★ 4 ns"));
    }
}
