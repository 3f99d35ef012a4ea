//! The plot itself, drawn by plotters.

use std::error::Error;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::Ruler;
use super::{Axis, Plot};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const SIZE: (u32, u32) = (960, 540);
/// Height of the titles, and where the legend begins.
const HEAD: u32 = 66;
const LEGEND_AT: u32 = 720;

/// Colours that can be told apart on white, also by most who do not see all of them (Okabe and Ito, the yellow left out).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(70, 70, 70),
];
const INK: RGBColor = RGBColor(40, 40, 40);
const PALE: RGBColor = RGBColor(110, 110, 110);
const FONT: &str = "sans-serif";

pub(super) fn svg(plot: &Plot) -> Result<String, Box<dyn Error>> {
    let mut document = String::new();
    {
        let root = SVGBackend::with_string(&mut document, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let (head, below) = root.split_vertically(HEAD);
        head.draw_text(&plot.title, &(FONT, 24).into_font().color(&INK), (20, 12))?;
        head.draw_text(&plot.subtitle, &(FONT, 14).into_font().color(&PALE), (20, 44))?;
        let (chart, legend) = below.split_horizontally(LEGEND_AT);
        draw_chart(plot, &chart)?;
        draw_legend(plot, &legend)?;
        root.present()?;
    }
    Ok(document)
}

fn draw_chart(plot: &Plot, area: &Area<'_>) -> Result<(), Box<dyn Error>> {
    let points = || plot.lines.iter().flat_map(|line| &line.points);
    let x = Coordinate { axis: &plot.x, ruler: plot.x.ruler(points().map(|point| point.0)) };
    let y = Coordinate { axis: &plot.y, ruler: plot.y.ruler(points().map(|point| point.1)) };
    let (x_ticks, y_ticks) = (x.ruler.ticks.len(), y.ruler.ticks.len());
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_right(24)
        .x_label_area_size(48)
        .y_label_area_size(84)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_labels(x_ticks)
        .y_labels(y_ticks)
        // All that there are.
        .max_light_lines(100)
        .bold_line_style(RGBColor(205, 205, 205))
        .light_line_style(RGBColor(238, 238, 238))
        .axis_style(PALE)
        .label_style((FONT, 14).into_font().color(&INK))
        .axis_desc_style((FONT, 15).into_font().color(&INK))
        .x_desc(&plot.x.label)
        .y_desc(&plot.y.label)
        .draw()?;
    for (number, line) in plot.lines.iter().enumerate() {
        let style = colour(number).stroke_width(2);
        let places: Vec<_> = line.points.iter().map(|&(x, y)| (plot.x.place(x), plot.y.place(y))).collect();
        if line.is_dashed {
            chart.draw_series(DashedLineSeries::new(places.iter().copied(), 7, 5, style))?;
        } else {
            chart.draw_series(LineSeries::new(places.iter().copied(), style))?;
        }
        for place in places {
            let at = chart.backend_coord(&place);
            // Of the whole document.
            let base = area.get_base_pixel();
            draw_marker(area, number, (at.0 - base.0, at.1 - base.1))?;
        }
    }
    Ok(())
}

/// An axis as plotters asks for it.
struct Coordinate<'a> {
    axis: &'a Axis,
    ruler: Ruler,
}

impl Ranged for Coordinate<'_> {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, limit: (i32, i32)) -> i32 {
        let share = (place - self.ruler.from) / (self.ruler.to - self.ruler.from);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { self.ruler.lines.clone() } else { self.ruler.ticks.clone() }
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.ruler.from..self.ruler.to
    }
}

impl ValueFormatter<f64> for Coordinate<'_> {
    fn format(place: &f64) -> String {
        // There is no axis here; `format_ext` has one.
        place.to_string()
    }

    fn format_ext(&self, place: &f64) -> String {
        self.axis.text(*place)
    }
}

fn draw_legend(plot: &Plot, area: &Area<'_>) -> Result<(), Box<dyn Error>> {
    let (_, height) = area.dim_in_pixel();
    let step = (height as i32 - 30).checked_div(plot.lines.len() as i32).unwrap_or(0).min(24);
    for (number, line) in plot.lines.iter().enumerate() {
        let y = 24 + number as i32 * step;
        let style = colour(number).stroke_width(2);
        if line.is_dashed {
            for x in [0, 12, 24] {
                area.draw(&PathElement::new(vec![(x, y), (x + 7, y)], style))?;
            }
        } else {
            area.draw(&PathElement::new(vec![(0, y), (31, y)], style))?;
        }
        draw_marker(area, number, (15, y))?;
        let font = (FONT, 14).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw_text(&short(&line.name), &font, (40, y))?;
    }
    Ok(())
}

/// As much of a name as the legend has room for.
fn short(name: &str) -> String {
    const MOST: usize = 32;
    if name.chars().count() <= MOST {
        return name.to_owned();
    }
    name.chars().take(MOST - 1).chain(['…']).collect()
}

fn colour(number: usize) -> RGBColor {
    COLOURS[number % COLOURS.len()]
}

/// A marker whose form is another one where colours begin anew.
fn draw_marker(area: &Area<'_>, number: usize, at: (i32, i32)) -> Result<(), Box<dyn Error>> {
    let style = colour(number).filled();
    match number / COLOURS.len() % 2 * 2 + number % COLOURS.len() % 2 {
        0 => area.draw(&Circle::new(at, 4, style))?,
        1 => area.draw(&Rectangle::new([(at.0 - 4, at.1 - 4), (at.0 + 4, at.1 + 4)], style))?,
        2 => area.draw(&TriangleMarker::new(at, 6, style))?,
        _ => area.draw(&Cross::new(at, 5, colour(number).stroke_width(2)))?,
    }
    Ok(())
}
