//! The plot: every ratio as a mark on a logarithmic axis, with its spread and its bar.
//!
//! A line in the middle is "the same as Kafka". A mark is green where the bar is met, red where it
//! is missed, gray where nothing was promised; the small black stroke is the bar.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::results::{Line, Results};
use super::target::Kind;
use crate::error::{BenchError, foreign};

const LINE_PX: i32 = 20;
const LABELS_PX: i32 = 470;
const AXIS_PX: i32 = 560;
const RIGHT_PX: i32 = 90;
const HEAD_PX: i32 = 70;
/// Ratios beyond these lie at the edge.
const RATIO_MIN: f64 = 0.01;
const RATIO_MAX: f64 = 10.0;
const TICKS: [f64; 7] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

const MET: RGBColor = RGBColor(0x2a, 0x7f, 0x3f);
const MISSED: RGBColor = RGBColor(0xc0, 0x39, 0x2b);
const UNPROMISED: RGBColor = RGBColor(0x60, 0x60, 0x60);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);

/// The plot as SVG.
pub(crate) fn svg(results: &Results) -> Result<String, BenchError> {
    let lines: Vec<&Line> = results.lines.iter().filter(|line| line.ratio.is_some()).collect();
    let height = HEAD_PX + LINE_PX * (lines.len() as i32 + 1);
    let width = LABELS_PX + AXIS_PX + RIGHT_PX;
    let mut text = String::new();
    {
        let size = (width.unsigned_abs(), height.unsigned_abs());
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        draw(&area, results, &lines, height).map_err(foreign("drawing"))?;
        area.present().map_err(foreign("drawing"))?;
    }
    Ok(text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn draw<'a>(area: &Area<'a>, results: &Results, lines: &[&Line], height: i32) -> Drawn<'a> {
    area.fill(&WHITE)?;
    let title = ("sans-serif", 16).into_font().color(&BLACK);
    let [base, ours, _] = results.suite.kinds().map(Kind::name);
    let text = format!("{ours} to {base}, ratio of each figure");
    area.draw(&Text::new(text, (10, 12), title))?;
    for tick in TICKS {
        let at = x(tick);
        let color = if (tick - 1.0).abs() < f64::EPSILON { BLACK } else { GRID };
        area.draw(&PathElement::new(vec![(at, HEAD_PX - 14), (at, height - LINE_PX)], color))?;
        area.draw(&Text::new(format!("{tick}"), (at, HEAD_PX - 26), small(HPos::Center)))?;
    }
    for (number, line) in lines.iter().enumerate() {
        mark(area, line, HEAD_PX + LINE_PX * number as i32)?;
    }
    Ok(())
}

fn mark<'a>(area: &Area<'a>, line: &Line, y: i32) -> Drawn<'a> {
    let Some(ratio) = line.ratio else { return Ok(()) };
    let color = match ratio.is_met {
        Some(true) => MET,
        Some(false) => MISSED,
        None => UNPROMISED,
    };
    let label = format!("{}: {}", line.row, line.metric.name());
    area.draw(&Text::new(label, (LABELS_PX - 12, y), small(HPos::Right)))?;
    let spread = ratio.spread;
    area.draw(&PathElement::new(
        vec![(x(spread.min), y), (x(spread.max), y)],
        color.stroke_width(3),
    ))?;
    area.draw(&Circle::new((x(spread.median), y), 5, color.filled()))?;
    if let Some(bar) = ratio.bar {
        let at = x(bar.value());
        area.draw(&PathElement::new(vec![(at, y - 7), (at, y + 7)], BLACK.stroke_width(2)))?;
    }
    let value = format!("{:.3}", spread.median);
    area.draw(&Text::new(value, (LABELS_PX + AXIS_PX + 14, y), small(HPos::Left)))
}

fn small(side: HPos) -> TextStyle<'static> {
    let font = ("sans-serif", 12).into_font().color(&BLACK);
    font.pos(Pos::new(side, VPos::Center))
}

/// Where a ratio lies.
fn x(ratio: f64) -> i32 {
    let share = |ratio: f64| (ratio / RATIO_MIN).ln() / (RATIO_MAX / RATIO_MIN).ln();
    LABELS_PX + (share(ratio.clamp(RATIO_MIN, RATIO_MAX)) * f64::from(AXIS_PX)).round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_is_logarithmic_and_has_ends() {
        assert_eq!(x(0.0), LABELS_PX);
        assert_eq!(x(1e9), LABELS_PX + AXIS_PX);
        assert!(((x(0.1) - x(0.01)) - (x(10.0) - x(1.0))).abs() <= 1);
    }
}
