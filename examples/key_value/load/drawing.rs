//! What the load generator draws: throughput over time, and below it the latencies.

use std::path::Path;

use super::tally::{Kind, Tally};
use crate::common::{Failure, Result};
use crate::plot::{Axis, Line, Plot, Scale, Unit};

/// Both kinds of operations, and their names.
const KINDS: [(Kind, &str); 2] = [(Kind::Get, "GET"), (Kind::Put, "PUT")];

/// Writes the picture of a run; `subtitle` tells of which.
pub(crate) fn write(path: &Path, subtitle: &str, tally: &Tally) -> Result<()> {
    let pictures = [throughput(subtitle, tally).svg()?, latencies(subtitle, tally).svg()?];
    let cannot = |error: std::io::Error| Failure::Other(format!("{}: {error}", path.display()));
    std::fs::write(path, one_below_the_other(&pictures)?).map_err(cannot)
}

fn throughput(subtitle: &str, tally: &Tally) -> Plot {
    let part = tally.part.as_secs_f64();
    let line = |(kind, name): (Kind, &str)| {
        let parts = tally.parts[kind as usize].iter().zip(0u32..);
        let points = parts.map(|(&count, part_number)| (f64::from(part_number) * part, count as f64 / part)).collect();
        Line { name: name.to_owned(), points, is_dashed: false }
    };
    Plot {
        title: "Throughput".to_owned(),
        subtitle: subtitle.to_owned(),
        x: Axis { label: "seconds".to_owned(), unit: Unit::Count, scale: Scale::Linear },
        y: Axis { label: "operations begun".to_owned(), unit: Unit::PerSecond, scale: Scale::Linear },
        lines: lines(tally, line),
    }
}

fn latencies(subtitle: &str, tally: &Tally) -> Plot {
    let line = |(kind, name): (Kind, &str)| {
        let latencies = &tally.latencies[kind as usize];
        // The median, and on to the slowest of all.
        let ranks =
            std::iter::successors(Some(2u64), |rank| Some(rank * 2)).take_while(|&rank| rank <= latencies.len());
        let time = |rank: u64| latencies.value_at_quantile(1.0 - 1.0 / rank as f64) as f64;
        Line { name: name.to_owned(), points: ranks.map(|rank| (rank as f64, time(rank))).collect(), is_dashed: false }
    };
    Plot {
        title: "Latency".to_owned(),
        subtitle: subtitle.to_owned(),
        x: Axis {
            label: "one operation in so many is slower".to_owned(),
            unit: Unit::Count,
            scale: Scale::Logarithmic,
        },
        y: Axis { label: "latency".to_owned(), unit: Unit::Nanoseconds, scale: Scale::Logarithmic },
        lines: lines(tally, line),
    }
}

/// A line for each kind of which something was done.
fn lines(tally: &Tally, line: impl FnMut((Kind, &'static str)) -> Line) -> Vec<Line> {
    KINDS.into_iter().filter(|&(kind, _)| !tally.latencies[kind as usize].is_empty()).map(line).collect()
}

/// Documents of SVG as one.
fn one_below_the_other(pictures: &[String]) -> Result<String> {
    let mut height = 0.0;
    let mut width: f64 = 0.0;
    let mut all = String::new();
    for picture in pictures {
        let begin = picture.find("<svg ").ok_or_else(|| Failure::Other("a plot is no SVG".to_owned()))?;
        let picture = &picture[begin..];
        all += &picture.replacen("<svg ", &format!("<svg y=\"{height}\" "), 1);
        width = width.max(attribute(picture, "width"));
        height += attribute(picture, "height");
    }
    let name_space = "xmlns=\"http://www.w3.org/2000/svg\"";
    Ok(format!(
        "<svg {name_space} width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n{all}</svg>\n"
    ))
}

/// A number among the attributes of the first element.
fn attribute(picture: &str, name: &str) -> f64 {
    let value = picture.split_once(&format!(" {name}=\"")).and_then(|(_, rest)| rest.split_once('"'));
    value.and_then(|(value, _)| value.parse().ok()).unwrap_or(0.0)
}
