//! Line plots for people, as SVG: axes with units, ticks that can be read, a legend. It needs nothing of the command, so that examples use it too.

#![allow(dead_code, unused_imports, reason = "each program that plots uses a part")]

mod axis;
mod draw;
mod unit;

pub(crate) use axis::{Axis, Scale};
pub(crate) use unit::Unit;

/// What is to be seen.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    pub(crate) title: String,
    /// In smaller letters below it: host, version, date.
    pub(crate) subtitle: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    /// Drawn in this order, the last on top.
    pub(crate) lines: Vec<Line>,
}

/// One line with its markers.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// In the legend.
    pub(crate) name: String,
    /// In the order of x. What is not finite, or not positive on a logarithmic axis, is left out.
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) is_dashed: bool,
}

impl Plot {
    /// The plot as a document of SVG; an error tells why there is none.
    pub(crate) fn svg(&self) -> Result<String, String> {
        let mut plot = self.clone();
        for line in &mut plot.lines {
            line.points.retain(|&(x, y)| self.x.can_show(x) && self.y.can_show(y));
        }
        plot.lines.retain(|line| !line.points.is_empty());
        if plot.lines.is_empty() {
            return Err(format!("{}: there is nothing to plot", self.title));
        }
        draw::svg(&plot).map_err(|error| format!("{}: {error}", self.title))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(lines: Vec<Line>) -> Plot {
        Plot {
            title: "Latency of <messages> & more".to_owned(),
            subtitle: "host, zcmi 0.1.0, 2026-01-01".to_owned(),
            x: Axis { label: "size".to_owned(), unit: Unit::Bytes, scale: Scale::Logarithmic },
            y: Axis { label: "half round trip".to_owned(), unit: Unit::Nanoseconds, scale: Scale::Logarithmic },
            lines,
        }
    }

    fn line(name: &str, points: &[(f64, f64)]) -> Line {
        Line { name: name.to_owned(), points: points.to_vec(), is_dashed: false }
    }

    #[test]
    fn a_plot_has_its_words_ticks_and_all_points() {
        let points: Vec<_> = (3..=20).map(|power| (f64::from(1 << power), 300.0 * f64::from(power))).collect();
        let svg = plot(vec![line("shm \"a\" < b", &points), line("tcp", &[(64.0, 20_000.0)])]).svg().expect("a plot");
        let document = roxmltree::Document::parse(&svg).expect("well-formed");
        let texts: Vec<_> = document.descendants().filter(|node| node.has_tag_name("text")).collect();
        let words: Vec<_> = texts.iter().filter_map(|node| node.text()).map(str::trim).collect();
        for word in ["Latency of <messages> & more", "shm \"a\" < b", "tcp", "half round trip", "size", "1 µs", "10 µs"]
        {
            assert!(words.contains(&word), "{word}: {words:?}");
        }
        assert!(words.contains(&"8 B"), "{words:?}");
        assert!(words.contains(&"512 KiB"), "{words:?}");
        // Of the first line, and of the legend.
        let circles = document.descendants().filter(|node| node.has_tag_name("circle")).count();
        assert_eq!(circles, points.len() + 1);
    }

    #[test]
    fn what_cannot_be_shown_is_left_out() {
        let bad = [(0.0, 1.0), (1.0, -1.0), (f64::NAN, 1.0), (1.0, f64::INFINITY)];
        let error = plot(vec![line("a", &bad), line("b", &[])]).svg().expect_err("nothing is left");
        assert!(error.contains("nothing to plot"), "{error}");
        let mut points = bad.to_vec();
        points.push((8.0, 100.0));
        let svg = plot(vec![line("a", &points)]).svg().expect("one point is a plot");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn a_linear_axis_begins_at_zero() {
        let mut plot = plot(vec![line("a", &[(1.0, 250.0), (3.0, 900.0)])]);
        plot.x = Axis { label: "clients".to_owned(), unit: Unit::Count, scale: Scale::Linear };
        plot.y = Axis { label: "rate".to_owned(), unit: Unit::PerSecond, scale: Scale::Linear };
        let svg = plot.svg().expect("a plot");
        let document = roxmltree::Document::parse(&svg).expect("well-formed");
        let words: Vec<_> =
            document.descendants().filter(|node| node.has_tag_name("text")).filter_map(|n| n.text()).collect();
        for word in ["0", "2", "200/s", "1 k/s"] {
            assert!(words.iter().any(|found| found.trim() == word), "{word}: {words:?}");
        }
    }
}
