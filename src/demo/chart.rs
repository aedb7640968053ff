//! Chart of a run: state of every route, active route, lost probes, TCP throughput.
//!
//! Drawn in pixels on plotters' SVG backend: text is left to the viewer's fonts.

use std::time::Duration;

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::demo_run::{DemoRun, FaultRecord};

/// Image size, pixels.
const IMAGE_SIZE: (u32, u32) = (1200, 640);
/// Horizontal extent of the time axis.
const PLOT_LEFT: i32 = 190;
const PLOT_RIGHT: i32 = 1170;
/// Route timelines: top, height and distance.
const ROUTES_TOP: i32 = 118;
const ROUTE_HEIGHT: i32 = 42;
const ROUTE_STEP: i32 = 56;
/// The two rows of lost probes.
const PROBES_TOP: i32 = 300;
/// The throughput panel.
const FLOW_PANEL: (i32, i32) = (388, 560);
/// Width of a throughput bin, milliseconds.
const BIN_MS: u64 = 50;

const TEXT_COLOUR: RGBColor = RGBColor(31, 41, 55);
const MUTED_COLOUR: RGBColor = RGBColor(107, 114, 128);
const GRID_COLOUR: RGBColor = RGBColor(229, 231, 235);
const UP_COLOUR: RGBColor = RGBColor(209, 240, 219);
const INIT_COLOUR: RGBColor = RGBColor(253, 230, 138);
const DOWN_COLOUR: RGBColor = RGBColor(252, 205, 205);
const ACTIVE_COLOUR: RGBColor = RGBColor(37, 99, 235);
const LOSS_COLOUR: RGBColor = RGBColor(220, 38, 38);

type ChartArea<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type DrawResult = Result<(), Box<dyn std::error::Error>>;

/// Draws the run as an SVG document.
pub(super) fn draw_svg(run: &DemoRun) -> String {
    let mut svg = String::new();
    // Drawing into a string cannot fail.
    let drawn = paint_chart(run, &mut svg);
    debug_assert!(drawn.is_ok(), "{drawn:?}");
    svg
}

fn paint_chart(run: &DemoRun, svg: &mut String) -> DrawResult {
    let root = SVGBackend::with_string(svg, IMAGE_SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let canvas = ChartCanvas { root, length: run.length.max(Duration::from_millis(1)) };
    canvas.draw_title(run)?;
    canvas.draw_grid()?;
    canvas.draw_routes(run)?;
    canvas.draw_lost_probes(run)?;
    canvas.draw_throughput(run)?;
    for fault in &run.faults {
        canvas.draw_fault(fault)?;
    }
    canvas.draw_legend()?;
    canvas.root.present()?;
    Ok(())
}

struct ChartCanvas<'a> {
    root: ChartArea<'a>,
    length: Duration,
}

impl ChartCanvas<'_> {
    fn x_at(&self, at: Duration) -> i32 {
        let share = at.as_secs_f64() / self.length.as_secs_f64();
        PLOT_LEFT + (share.clamp(0.0, 1.0) * f64::from(PLOT_RIGHT - PLOT_LEFT)).round() as i32
    }

    fn draw_text(
        &self,
        text: &str,
        at: (i32, i32),
        size: i32,
        colour: RGBColor,
        side: HPos,
    ) -> DrawResult {
        let style =
            TextStyle::from(("sans-serif", size)).color(&colour).pos(Pos::new(side, VPos::Center));
        self.root.draw(&Text::new(text.to_owned(), at, style))?;
        Ok(())
    }

    fn fill_rectangle(&self, from: (i32, i32), to: (i32, i32), colour: RGBColor) -> DrawResult {
        self.root.draw(&Rectangle::new([from, to], colour.filled()))?;
        Ok(())
    }

    fn draw_line(
        &self,
        from: (i32, i32),
        to: (i32, i32),
        colour: RGBColor,
        width: u32,
    ) -> DrawResult {
        self.root.draw(&PathElement::new([from, to], colour.stroke_width(width)))?;
        Ok(())
    }

    fn draw_title(&self, run: &DemoRun) -> DrawResult {
        let title = "One TCP flow over three networks, each fault on the active route";
        self.draw_text(title, (24, 30), 22, TEXT_COLOUR, HPos::Left)?;
        let hash = if run.hash_equal { "hash equal" } else { "hash DIFFERENT" };
        let lost: usize = run.losses.iter().map(Vec::len).sum();
        let line = format!(
            "{} MB, {} resets, {hash}; {lost} of {} datagrams lost (one each way per millisecond)",
            run.bytes / 1_000_000,
            run.resets,
            run.probes,
        );
        self.draw_text(&line, (24, 58), 15, MUTED_COLOUR, HPos::Left)
    }

    /// Grid of seconds.
    fn draw_grid(&self) -> DrawResult {
        let seconds = self.length.as_secs();
        let step = (seconds / 12).max(1);
        for second in (0..=seconds).step_by(usize::try_from(step)?) {
            let x = self.x_at(Duration::from_secs(second));
            self.draw_line((x, ROUTES_TOP - 6), (x, FLOW_PANEL.1), GRID_COLOUR, 1)?;
            self.draw_text(
                &format!("{second} s"),
                (x, FLOW_PANEL.1 + 16),
                13,
                MUTED_COLOUR,
                HPos::Center,
            )?;
        }
        Ok(())
    }

    fn draw_routes(&self, run: &DemoRun) -> DrawResult {
        for (place, timeline) in run.timelines.iter().enumerate() {
            let top = ROUTES_TOP + ROUTE_STEP * i32::try_from(place)?;
            self.draw_text(
                &timeline.label,
                (PLOT_LEFT - 14, top + ROUTE_HEIGHT / 2),
                14,
                TEXT_COLOUR,
                HPos::Right,
            )?;
            for (at, state, end) in value_spans(&timeline.states, self.length) {
                let colour = match state.as_str() {
                    "up" => UP_COLOUR,
                    "init" => INIT_COLOUR,
                    _ => DOWN_COLOUR,
                };
                self.fill_rectangle(
                    (self.x_at(at), top),
                    (self.x_at(end), top + ROUTE_HEIGHT),
                    colour,
                )?;
            }
        }
        let mut before = None;
        for (at, network, end) in value_spans(&run.active, self.length) {
            let Some(lane) = network else { continue };
            let middle = ROUTES_TOP + ROUTE_STEP * i32::try_from(*lane)? + ROUTE_HEIGHT / 2;
            if let Some(before) = before {
                self.draw_line((self.x_at(at), before), (self.x_at(at), middle), ACTIVE_COLOUR, 2)?;
            }
            self.fill_rectangle(
                (self.x_at(at), middle - 4),
                (self.x_at(end), middle + 4),
                ACTIVE_COLOUR,
            )?;
            before = Some(middle);
        }
        Ok(())
    }

    fn draw_lost_probes(&self, run: &DemoRun) -> DrawResult {
        for (row, name) in ["lost a → b", "lost b → a"].into_iter().enumerate() {
            let top = PROBES_TOP + 34 * i32::try_from(row)?;
            let lost = &run.losses[row];
            let label = format!("{name}: {}", lost.len());
            self.draw_text(&label, (PLOT_LEFT - 14, top + 11), 14, TEXT_COLOUR, HPos::Right)?;
            self.draw_line((PLOT_LEFT, top + 22), (PLOT_RIGHT, top + 22), GRID_COLOUR, 1)?;
            let mut ticks: Vec<i32> = lost.iter().map(|at| self.x_at(*at)).collect();
            ticks.dedup();
            for x in ticks {
                self.fill_rectangle((x - 1, top), (x + 1, top + 22), LOSS_COLOUR)?;
            }
        }
        Ok(())
    }

    fn draw_throughput(&self, run: &DemoRun) -> DrawResult {
        let bins = throughput_bins(run);
        let highest = bins.iter().copied().fold(1.0, f64::max);
        let scale = (highest / 50.0).ceil() * 50.0;
        let y = |rate: f64| {
            FLOW_PANEL.1 - (rate / scale * f64::from(FLOW_PANEL.1 - FLOW_PANEL.0)) as i32
        };
        for part in 0..=2 {
            let rate = scale * f64::from(part) / 2.0;
            self.draw_line((PLOT_LEFT, y(rate)), (PLOT_RIGHT, y(rate)), GRID_COLOUR, 1)?;
            self.draw_text(
                &format!("{rate:.0}"),
                (PLOT_LEFT - 14, y(rate)),
                13,
                MUTED_COLOUR,
                HPos::Right,
            )?;
        }
        self.draw_text(
            "TCP, Mbit/s",
            (PLOT_LEFT - 60, (FLOW_PANEL.0 + FLOW_PANEL.1) / 2),
            14,
            TEXT_COLOUR,
            HPos::Right,
        )?;
        let mut outline = vec![(PLOT_LEFT, FLOW_PANEL.1)];
        for (place, rate) in bins.iter().enumerate() {
            let [from, to] = [place, place + 1].map(|p| Duration::from_millis(BIN_MS * p as u64));
            outline.extend([(self.x_at(from), y(*rate)), (self.x_at(to), y(*rate))]);
        }
        outline.push((PLOT_RIGHT, FLOW_PANEL.1));
        self.root.draw(&Polygon::new(outline.clone(), ACTIVE_COLOUR.mix(0.15).filled()))?;
        self.root.draw(&PathElement::new(outline, ACTIVE_COLOUR.stroke_width(1)))?;
        Ok(())
    }

    fn draw_fault(&self, fault: &FaultRecord) -> DrawResult {
        let (from, to) = (self.x_at(fault.start), self.x_at(fault.healed_at));
        for y in (ROUTES_TOP - 6..FLOW_PANEL.1).step_by(10) {
            self.draw_line((from, y), (from, y + 5), LOSS_COLOUR, 1)?;
        }
        // Duration of the fault, above the timelines and along its own.
        self.fill_rectangle((from, ROUTES_TOP - 10), (to, ROUTES_TOP - 7), LOSS_COLOUR)?;
        let top = ROUTES_TOP + ROUTE_STEP * i32::try_from(fault.network)?;
        let frame =
            Rectangle::new([(from, top), (to, top + ROUTE_HEIGHT)], LOSS_COLOUR.stroke_width(1));
        self.root.draw(&frame)?;
        let name = fault.kind.name().replace('-', " ");
        self.draw_text(&name, (from, ROUTES_TOP - 34), 14, LOSS_COLOUR, HPos::Left)?;
        let moved = format!("moved after {} ms", fault.moved_after.as_millis());
        self.draw_text(&moved, (from, ROUTES_TOP - 19), 12, MUTED_COLOUR, HPos::Left)
    }

    fn draw_legend(&self) -> DrawResult {
        let y = i32::try_from(IMAGE_SIZE.1)? - 28;
        let mut x = PLOT_LEFT;
        for (colour, name, height) in [
            (ACTIVE_COLOUR, "active route", 4),
            (UP_COLOUR, "up", 8),
            (INIT_COLOUR, "init", 8),
            (DOWN_COLOUR, "down", 8),
            (LOSS_COLOUR, "fault, datagram lost", 1),
        ] {
            self.fill_rectangle((x, y - height), (x + 26, y + height), colour)?;
            self.draw_text(name, (x + 34, y), 13, TEXT_COLOUR, HPos::Left)?;
            x += 64 + 8 * i32::try_from(name.len())?;
        }
        Ok(())
    }
}

/// Each value with its start and the start of the next one.
fn value_spans<T>(
    values: &[(Duration, T)],
    length: Duration,
) -> impl Iterator<Item = (Duration, &T, Duration)> {
    values.iter().enumerate().map(move |(place, (at, value))| {
        let end = values.get(place + 1).map_or(length, |(next, _)| *next);
        (*at, value, end)
    })
}

/// Mbit/s in each bin.
fn throughput_bins(run: &DemoRun) -> Vec<f64> {
    let count = (run.length.as_millis() as u64).div_ceil(BIN_MS) as usize;
    let mut bins = vec![0.0; count];
    for (at, bytes) in &run.reads {
        let place = (at.as_millis() as u64 / BIN_MS) as usize;
        if let Some(bin) = bins.get_mut(place) {
            *bin += *bytes as f64 * 8.0 / 1000.0 / BIN_MS as f64;
        }
    }
    bins
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::demo::demo_run::{FaultKind, RouteTimeline};

    /// A sample run with every element of the chart.
    pub(in crate::demo) fn sample() -> DemoRun {
        let ms = Duration::from_millis;
        let mut run = DemoRun {
            length: ms(10_400),
            adapter: "netft0".to_owned(),
            active: vec![(ms(0), Some(0))],
            bytes: 187_000_000,
            probes: 20_800,
            hash_equal: true,
            ..DemoRun::default()
        };
        for net in 1..=3 {
            let label = format!("10.{net}.0.1 → 10.{net}.0.2");
            run.timelines.push(RouteTimeline { label, states: vec![(ms(0), "up".to_owned())] });
        }
        for (place, kind) in FaultKind::ALL.into_iter().enumerate() {
            let start = ms(1000 + 3100 * place as u64);
            let (moved, healed) = (start + ms(153), start + ms(960));
            let back = start + ms(2100);
            run.active.extend([(moved, Some(1)), (back, Some(0))]);
            run.timelines[0].states.extend([
                (moved, "down".to_owned()),
                (healed + ms(40), "init".to_owned()),
                (healed + ms(100), "up".to_owned()),
            ]);
            run.losses[0].extend((0..150).map(|n| start + ms(n)));
            run.losses[1].extend((0..if place == 2 { 0 } else { 149 }).map(|n| start + ms(n)));
            run.faults.push(FaultRecord {
                kind,
                network: 0,
                start,
                detected_after: Duration::from_micros(152_311),
                moved_after: ms(153),
                healed_at: healed,
                failed_back_at: Some(back),
                probes_sent: 3000,
                probes_lost: 299,
                longest_stall: ms(231),
            });
        }
        for n in 0..10_400u64 {
            let still = run.faults.iter().any(|f| (f.start..f.start + ms(220)).contains(&ms(n)));
            if !still {
                run.reads.push((ms(n), 15_000));
            }
        }
        run
    }

    #[test]
    fn the_picture_shows_every_route_and_every_fault() {
        let svg = draw_svg(&sample());
        if let Some(file) = std::env::var_os("NETFT_SAMPLE_SVG") {
            std::fs::write(file, &svg).expect("the file given can be written");
        }
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for text in ["10.1.0.1 → 10.1.0.2", "black hole", "carrier loss", "one way loss", "Mbit/s"]
        {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn an_empty_run_still_draws() {
        assert!(draw_svg(&DemoRun::default()).contains("</svg>"));
    }
}
