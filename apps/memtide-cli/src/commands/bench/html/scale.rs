//! From figures to places of a drawing, and the words beside them.

/// Figures spread evenly by their logarithm, over an interval of a drawing.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogScale {
    low: f64,
    high: f64,
    start: f64,
    end: f64,
}

impl LogScale {
    /// Covers all figures, which are above 0, with a margin of `margin` times the smallest and largest.
    pub(super) fn over(
        figures: impl Iterator<Item = f64>,
        margin: f64,
        (start, end): (f64, f64),
    ) -> Self {
        let (low, high) = figures
            .map(|figure| figure.max(0.1))
            .fold((f64::MAX, f64::MIN), |(low, high), figure| (low.min(figure), high.max(figure)));
        let margin = if low * 1.01 > high { margin.max(1.5) } else { margin };
        Self { low: low / margin, high: high * margin, start, end }
    }

    pub(super) fn place(&self, figure: f64) -> f64 {
        let share = (figure.max(0.1) / self.low).ln() / (self.high / self.low).ln();
        self.start + share.clamp(0.0, 1.0) * (self.end - self.start)
    }

    /// Round figures within the scale: powers of ten, or a few steps of each, or even steps where it is short.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let powers = || std::iter::successors(Some(0.01), |power| Some(power * 10.0));
        let steps = |of: &[f64]| -> Vec<f64> {
            powers()
                .take_while(|power| *power <= self.high)
                .flat_map(|power| of.iter().map(move |step| step * power))
                .filter(|tick| (self.low..=self.high).contains(tick))
                .collect()
        };
        let even = || {
            let all = even_ticks(self.high, self.high - self.low);
            all.into_iter().filter(|tick| *tick >= self.low).collect()
        };
        [&[1.0][..], &[1.0, 3.0], &[1.0, 2.0, 5.0]]
            .into_iter()
            .map(steps)
            .find(|ticks| ticks.len() >= 3)
            .unwrap_or_else(even)
    }
}

/// Round figures from 0 to `high`, four to nine of them in any stretch of it that is `span` long.
fn even_ticks(high: f64, span: f64) -> Vec<f64> {
    let rough = span / 4.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [5.0, 2.0, 1.0].map(|step| step * power).into_iter().find(|&step| step <= rough);
    let step = step.unwrap_or(power);
    (0..).map(|index| f64::from(index) * step).take_while(|&tick| tick <= high).collect()
}

/// Figures spread evenly from 0 on.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinearScale {
    pub(super) high: f64,
    pub(super) start: f64,
    pub(super) end: f64,
}

impl LinearScale {
    pub(super) fn place(&self, figure: f64) -> f64 {
        self.start + figure / self.high * (self.end - self.start)
    }

    pub(super) fn ticks(&self) -> Vec<f64> {
        even_ticks(self.high, self.high)
    }
}

/// Moves places apart until each is at least `gap` from the next and all are within bounds; keeps their order.
pub(super) fn spread_apart(places: &mut [f64], gap: f64, (low, high): (f64, f64)) {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|&a, &b| places[a].total_cmp(&places[b]));
    let mut lowest = low;
    for &index in &order {
        places[index] = places[index].max(lowest);
        lowest = places[index] + gap;
    }
    let mut highest = high;
    for &index in order.iter().rev() {
        places[index] = places[index].min(highest);
        highest = places[index] - gap;
    }
}

/// Nanoseconds as people say them.
pub(super) fn time(ns: f64) -> String {
    match ns {
        _ if ns < 9.95 => format!("{} ns", short(ns)),
        _ if ns < 9_995.0 => format!("{ns:.0} ns"),
        _ if ns < 9_995_000.0 => format!("{} µs", short(ns / 1e3)),
        _ => format!("{} ms", short(ns / 1e6)),
    }
}

/// Nanoseconds beside an axis.
pub(super) fn axis_time(ns: f64) -> String {
    match ns {
        _ if ns < 1e3 => format!("{} ns", short(ns)),
        _ if ns < 1e6 => format!("{} µs", short(ns / 1e3)),
        _ if ns < 1e9 => format!("{} ms", short(ns / 1e6)),
        _ => format!("{} s", short(ns / 1e9)),
    }
}

/// A count as people say it: `5k`.
pub(super) fn count(count: f64) -> String {
    match count {
        _ if count < 1e3 => short(count),
        _ if count < 1e6 => format!("{}k", short(count / 1e3)),
        _ => format!("{}M", short(count / 1e6)),
    }
}

/// With one digit behind the point, where it says something.
pub(super) fn short(figure: f64) -> String {
    let text = if figure < 99.95 { format!("{figure:.1}") } else { format!("{figure:.0}") };
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenfold_step_is_as_wide_everywhere() {
        let scale = LogScale::over([10.0, 1000.0].into_iter(), 1.0, (0.0, 200.0));
        for (figure, place) in [(10.0, 0.0), (100.0, 100.0), (1000.0, 200.0), (1e9, 200.0)] {
            assert!((scale.place(figure) - place).abs() < 1e-9, "{figure}");
        }
        assert_eq!(scale.ticks().len(), 3);
    }

    #[test]
    fn a_single_figure_and_nothing_still_make_a_scale() {
        for figure in [0.0, 7.3, 1e7] {
            let scale = LogScale::over([figure].into_iter(), 1.0, (0.0, 200.0));
            let place = scale.place(figure);
            assert!((50.0..150.0).contains(&place), "{figure} at {place}");
            assert!(scale.ticks().len() >= 2, "{figure}");
        }
    }

    #[test]
    fn linear_ticks_are_round_and_few() {
        for high in [0.7, 1.0, 99.0, 101.0, 250.0, 4999.0] {
            let ticks = LinearScale { high, start: 0.0, end: 1.0 }.ticks();
            assert!((4..=9).contains(&ticks.len()), "{high}: {ticks:?}");
        }
    }

    #[test]
    fn places_are_moved_no_more_than_they_must() {
        let mut places = [10.0, 50.0, 52.0, 99.0];
        spread_apart(&mut places, 10.0, (0.0, 100.0));
        assert_eq!(places, [10.0, 50.0, 60.0, 99.0]);
        let mut places = [98.0, 99.0, 97.0];
        spread_apart(&mut places, 10.0, (0.0, 100.0));
        assert_eq!(places, [90.0, 100.0, 80.0]);
    }

    #[test]
    fn figures_read_as_people_say_them() {
        assert_eq!(
            [4.2, 227.3, 12_345.0, 2.5e7].map(time),
            ["4.2 ns", "227 ns", "12.3 µs", "25 ms"]
        );
        assert_eq!([100.0, 5000.0, 1e6].map(count), ["100", "5k", "1M"]);
        assert_eq!([200.0, 2e3, 2e6].map(axis_time), ["200 ns", "2 µs", "2 ms"]);
    }
}
