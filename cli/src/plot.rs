//! Line charts as SVG files, for the benchmarks and the simulator.
//!
//! One picture: a title, two axes, some named lines. The program that shows the file renders the text: no font is
//! looked up or measured here, so it works where none is installed.

use std::{fs, ops::Range, path::Path};

use plotters::{
    coord::{
        Shift,
        ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter},
    },
    prelude::*,
};

use super::error::CliError;

/// A line chart.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    title: String,
    x: Axis,
    y: Axis,
    series: Vec<Series>,
}

/// The axis along an edge of a chart.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    label: String,
    log: bool,
}

/// A named line.
#[derive(Clone, Debug)]
struct Series {
    name: String,
    points: Vec<(f64, f64)>,
}

impl Axis {
    /// With equal steps, starting at zero unless a value is below.
    pub(crate) fn linear(label: impl Into<String>) -> Self {
        Self { label: label.into(), log: false }
    }

    /// One power of ten for each step. Values that are not above zero are drawn at the lower edge.
    pub(crate) fn log(label: impl Into<String>) -> Self {
        Self { label: label.into(), log: true }
    }
}

impl Chart {
    /// A chart without lines.
    pub(crate) fn new(title: impl Into<String>, x: Axis, y: Axis) -> Self {
        Self { title: title.into(), x, y, series: Vec::new() }
    }

    /// Adds a line through `points`, in that order. Points that are not finite are left out.
    #[must_use]
    pub(crate) fn line(
        mut self,
        name: impl Into<String>,
        points: impl IntoIterator<Item = (f64, f64)>,
    ) -> Self {
        let finite = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
        let points = points.into_iter().filter(finite).collect();
        self.series.push(Series { name: name.into(), points });
        self
    }

    /// Writes the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn write_svg(&self, file: &Path) -> Result<(), CliError> {
        let svg = self.svg()?;
        fs::write(file, svg).map_err(|error| {
            CliError::failed(format!("cannot write the plot {}: {error}", file.display()))
        })
    }

    /// The chart as the text of an SVG file.
    ///
    /// # Errors
    /// The lines cannot be drawn.
    pub(crate) fn svg(&self) -> Result<String, CliError> {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            let drawn = self.draw(&area).and_then(|()| area.present());
            drawn.map_err(|error| {
                CliError::failed(format!("cannot draw the plot {:?}: {error}", self.title))
            })?;
        }
        Ok(svg)
    }

    fn draw<'a>(&self, area: &DrawingArea<SVGBackend<'a>, Shift>) -> Drawn<'a> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x = Scale::new(&self.x, points().map(|(x, _)| *x));
        let y = Scale::new(&self.y, points().map(|(_, y)| *y));
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, (FONT, CAPTION_PX))
            .margin(MARGIN_PX)
            .x_label_area_size(X_LABELS_PX)
            .y_label_area_size(Y_LABELS_PX)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .x_desc(&self.x.label)
            .y_desc(&self.y.label)
            .label_style((FONT, LABEL_PX))
            .light_line_style(WHITE)
            .draw()?;
        for (series, color) in self.series.iter().zip(COLORS.iter().cycle()) {
            let points = series.points.iter().copied();
            let style = color.stroke_width(LINE_PX);
            chart
                .draw_series(LineSeries::new(points, style))?
                .label(&series.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + LEGEND_PX, y)], style));
        }
        chart
            .configure_series_labels()
            .label_font((FONT, LABEL_PX))
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .position(SeriesLabelPosition::UpperLeft)
            .draw()
    }
}

/// What drawing into an SVG file returns.
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

/// How values are placed along an edge: linearly, or by their logarithm.
#[derive(Clone, Debug)]
struct Scale {
    log: bool,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Scale {
    fn new(axis: &Axis, values: impl Iterator<Item = f64>) -> Self {
        if axis.log { Self::logarithmic(values) } else { Self::linear(values) }
    }

    fn linear(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values
            .fold((0.0, 0.0), |(low, high): (f64, f64), value| (low.min(value), high.max(value)));
        let high = if high > low { high } else { low + 1.0 };
        let step = step(high - low);
        let (first, last) = ((low / step).floor(), (high / step).ceil());
        let ticks = (0..=(last - first) as u32).map(|n| (first + f64::from(n)) * step).collect();
        Self { log: false, low: first * step, high: last * step, ticks }
    }

    fn logarithmic(values: impl Iterator<Item = f64>) -> Self {
        let positive = values.filter(|value| *value > 0.0).map(f64::log10);
        let bounds = positive.fold(None, |bounds: Option<(f64, f64)>, value| {
            let (low, high) = bounds.unwrap_or((value, value));
            Some((low.min(value), high.max(value)))
        });
        let (low, high) = bounds.unwrap_or_default();
        let low = low.floor();
        let high = high.ceil().max(low + 1.0);
        let ticks = (0..=(high - low) as u32).map(|n| low + f64::from(n)).collect();
        Self { log: true, low, high, ticks }
    }

    fn place(&self, value: f64) -> f64 {
        match self.log {
            true if value > 0.0 => value.log10().max(self.low),
            true => self.low,
            false => value,
        }
    }

    fn value(&self, place: f64) -> f64 {
        if self.log { 10f64.powf(place) } else { place }
    }
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let part = (self.place(*value) - self.low) / (self.high - self.low);
        limit.0 + (f64::from(limit.1 - limit.0) * part).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.iter().map(|place| self.value(*place)).collect()
    }

    fn range(&self) -> Range<f64> {
        self.value(self.low)..self.value(self.high)
    }
}

impl ValueFormatter<f64> for Scale {
    fn format_ext(&self, value: &f64) -> String {
        // No more digits than a tick needs: 0.30000000000000004 is 0.3.
        let text = format!("{value:.DIGITS$}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// The round number (1, 2 or 5 times a power of ten) that divides a span into 5 to 10 parts, or 12.
fn step(span: f64) -> f64 {
    let unit = 10f64.powf(span.log10().floor());
    match span / unit {
        parts if parts < 2.5 => unit / 5.0,
        parts if parts < 5.0 => unit / 2.0,
        _ => unit,
    }
}

const SIZE: (u32, u32) = (960, 540);
const FONT: &str = "sans-serif";
const CAPTION_PX: i32 = 20;
const LABEL_PX: i32 = 14;
const LEGEND_PX: i32 = 18;
const LINE_PX: u32 = 2;
const MARGIN_PX: i32 = 12;
const X_LABELS_PX: i32 = 44;
const Y_LABELS_PX: i32 = 70;
/// Digits behind the point of a tick's label.
const DIGITS: usize = 6;
/// Eight colours that people with colour blindness can tell apart (Okabe and Ito, "Color universal design").
const COLORS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(120, 120, 120),
    RGBColor(0, 0, 0),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(x: Axis, y: Axis) -> Chart {
        Chart::new("a <title>", x, y)
    }

    #[test]
    fn draws_a_chart_without_any_point() {
        for axis in [Axis::linear("s"), Axis::log("s")] {
            let empty = chart(axis.clone(), axis.clone()).svg().unwrap();
            assert!(empty.starts_with("<svg") && empty.trim_end().ends_with("</svg>"));
            let nothing = [(f64::NAN, 1.0), (1.0, f64::INFINITY)];
            assert!(chart(axis.clone(), axis).line("none", nothing).svg().is_ok());
        }
    }

    #[test]
    fn escapes_what_is_written() {
        let svg = chart(Axis::linear("a & b"), Axis::linear("s")).svg().unwrap();
        assert!(svg.contains("a &lt;title&gt;") && svg.contains("a &amp; b"), "{svg}");
    }

    #[test]
    fn names_every_line() {
        let lines = ["depth", "breadth", "newest first"];
        let chart = lines.iter().fold(chart(Axis::linear("s"), Axis::log("n")), |chart, name| {
            chart.line(*name, [(0.0, 0.0), (1.0, 10.0), (2.0, 1_000.0)])
        });
        let svg = chart.svg().unwrap();
        assert!(lines.iter().all(|name| svg.contains(name)), "{svg}");
        assert!(svg.contains("1000"), "{svg}");
    }

    #[test]
    fn ends_an_axis_at_a_round_number() {
        for (most, last, ticks) in [(7.3, 8.0, 9), (120.0, 120.0, 7), (0.31, 0.35, 8)] {
            let scale = Scale::linear([most].into_iter());
            assert!((scale.high - last).abs() < 1e-9, "{scale:?}");
            assert_eq!(scale.ticks.len(), ticks, "{scale:?}");
        }
        assert_eq!(Scale::linear([0.31].into_iter()).format_ext(&0.150_000_000_000_000_02), "0.15");
    }

    #[test]
    fn keeps_zero_on_a_logarithmic_axis_at_its_edge() {
        let scale = Scale::logarithmic([0.0, 30.0, 2_000.0].into_iter());
        assert_eq!((scale.place(0.0), scale.place(100.0)), (1.0, 2.0));
        assert_eq!(scale.format_ext(&1e4), "10000");
    }

    #[test]
    fn says_which_file_cannot_be_written() {
        let error = chart(Axis::linear("s"), Axis::linear("s"))
            .write_svg(Path::new("/nowhere/at/all.svg"))
            .unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all.svg"), "{error}");
    }
}
