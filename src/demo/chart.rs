//! The run as a picture: every route's state, the active route, lost probes, TCP throughput.
//!
//! Drawn in pixels on plotters' SVG backend: text is left to the viewer's fonts.

use std::time::Duration;

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::story::{Fault, Story};

/// The picture's size in pixels.
const SIZE: (u32, u32) = (1200, 640);
/// Where time runs.
const LEFT: i32 = 190;
const RIGHT: i32 = 1170;
/// The lanes: their top, height and distance.
const LANES: i32 = 118;
const LANE: i32 = 42;
const STEP: i32 = 56;
/// The two rows of lost probes.
const PROBES: i32 = 300;
/// The throughput panel.
const FLOW: (i32, i32) = (388, 560);
/// Width of a throughput bin, milliseconds.
const BIN: u64 = 50;

const INK: RGBColor = RGBColor(31, 41, 55);
const QUIET: RGBColor = RGBColor(107, 114, 128);
const GRID: RGBColor = RGBColor(229, 231, 235);
const UP: RGBColor = RGBColor(209, 240, 219);
const INIT: RGBColor = RGBColor(253, 230, 138);
const DOWN: RGBColor = RGBColor(252, 205, 205);
const ACTIVE: RGBColor = RGBColor(37, 99, 235);
const LOST: RGBColor = RGBColor(220, 38, 38);

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Draws the story as an SVG document.
pub(super) fn draw(story: &Story) -> String {
    let mut svg = String::new();
    // Drawing into a string has nothing that can fail; a picture is no reason to panic either.
    let drawn = paint(story, &mut svg);
    debug_assert!(drawn.is_ok(), "{drawn:?}");
    svg
}

fn paint(story: &Story, svg: &mut String) -> Drawn {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let canvas = Canvas { root, length: story.length.max(Duration::from_millis(1)) };
    canvas.title(story)?;
    canvas.grid()?;
    canvas.lanes(story)?;
    canvas.probes(story)?;
    canvas.flow(story)?;
    for fault in &story.faults {
        canvas.fault(fault)?;
    }
    canvas.legend()?;
    canvas.root.present()?;
    Ok(())
}

struct Canvas<'a> {
    root: Area<'a>,
    length: Duration,
}

impl Canvas<'_> {
    fn x(&self, at: Duration) -> i32 {
        let share = at.as_secs_f64() / self.length.as_secs_f64();
        LEFT + (share.clamp(0.0, 1.0) * f64::from(RIGHT - LEFT)).round() as i32
    }

    fn text(&self, text: &str, at: (i32, i32), size: i32, colour: RGBColor, side: HPos) -> Drawn {
        let style =
            TextStyle::from(("sans-serif", size)).color(&colour).pos(Pos::new(side, VPos::Center));
        self.root.draw(&Text::new(text.to_owned(), at, style))?;
        Ok(())
    }

    fn block(&self, from: (i32, i32), to: (i32, i32), colour: RGBColor) -> Drawn {
        self.root.draw(&Rectangle::new([from, to], colour.filled()))?;
        Ok(())
    }

    fn line(&self, from: (i32, i32), to: (i32, i32), colour: RGBColor, width: u32) -> Drawn {
        self.root.draw(&PathElement::new([from, to], colour.stroke_width(width)))?;
        Ok(())
    }

    fn title(&self, story: &Story) -> Drawn {
        let title = "One TCP flow over three networks, each fault on the active route";
        self.text(title, (24, 30), 22, INK, HPos::Left)?;
        let hash = if story.hash_equal { "hash equal" } else { "hash DIFFERENT" };
        let lost: usize = story.losses.iter().map(Vec::len).sum();
        let line = format!(
            "{} MB, {} resets, {hash}; {lost} of {} datagrams lost (one each way per millisecond)",
            story.bytes / 1_000_000,
            story.resets,
            story.probes,
        );
        self.text(&line, (24, 58), 15, QUIET, HPos::Left)
    }

    /// Seconds, from the lanes down to the axis.
    fn grid(&self) -> Drawn {
        let seconds = self.length.as_secs();
        let step = (seconds / 12).max(1);
        for second in (0..=seconds).step_by(usize::try_from(step)?) {
            let x = self.x(Duration::from_secs(second));
            self.line((x, LANES - 6), (x, FLOW.1), GRID, 1)?;
            self.text(&format!("{second} s"), (x, FLOW.1 + 16), 13, QUIET, HPos::Center)?;
        }
        Ok(())
    }

    fn lanes(&self, story: &Story) -> Drawn {
        for (place, lane) in story.lanes.iter().enumerate() {
            let top = LANES + STEP * i32::try_from(place)?;
            self.text(&lane.label, (LEFT - 14, top + LANE / 2), 14, INK, HPos::Right)?;
            for (at, state, end) in spans(&lane.states, self.length) {
                let colour = match state.as_str() {
                    "up" => UP,
                    "init" => INIT,
                    _ => DOWN,
                };
                self.block((self.x(at), top), (self.x(end), top + LANE), colour)?;
            }
        }
        let mut before = None;
        for (at, lane, end) in spans(&story.active, self.length) {
            let Some(lane) = lane else { continue };
            let middle = LANES + STEP * i32::try_from(*lane)? + LANE / 2;
            if let Some(before) = before {
                self.line((self.x(at), before), (self.x(at), middle), ACTIVE, 2)?;
            }
            self.block((self.x(at), middle - 4), (self.x(end), middle + 4), ACTIVE)?;
            before = Some(middle);
        }
        Ok(())
    }

    fn probes(&self, story: &Story) -> Drawn {
        for (row, name) in ["lost a → b", "lost b → a"].into_iter().enumerate() {
            let top = PROBES + 34 * i32::try_from(row)?;
            let lost = &story.losses[row];
            let label = format!("{name}: {}", lost.len());
            self.text(&label, (LEFT - 14, top + 11), 14, INK, HPos::Right)?;
            self.line((LEFT, top + 22), (RIGHT, top + 22), GRID, 1)?;
            let mut ticks: Vec<i32> = lost.iter().map(|at| self.x(*at)).collect();
            ticks.dedup();
            for x in ticks {
                self.block((x - 1, top), (x + 1, top + 22), LOST)?;
            }
        }
        Ok(())
    }

    fn flow(&self, story: &Story) -> Drawn {
        let bins = throughput(story);
        let highest = bins.iter().copied().fold(1.0, f64::max);
        let scale = (highest / 50.0).ceil() * 50.0;
        let y = |rate: f64| FLOW.1 - (rate / scale * f64::from(FLOW.1 - FLOW.0)) as i32;
        for part in 0..=2 {
            let rate = scale * f64::from(part) / 2.0;
            self.line((LEFT, y(rate)), (RIGHT, y(rate)), GRID, 1)?;
            self.text(&format!("{rate:.0}"), (LEFT - 14, y(rate)), 13, QUIET, HPos::Right)?;
        }
        self.text("TCP, Mbit/s", (LEFT - 60, (FLOW.0 + FLOW.1) / 2), 14, INK, HPos::Right)?;
        let mut outline = vec![(LEFT, FLOW.1)];
        for (place, rate) in bins.iter().enumerate() {
            let [from, to] = [place, place + 1].map(|p| Duration::from_millis(BIN * p as u64));
            outline.extend([(self.x(from), y(*rate)), (self.x(to), y(*rate))]);
        }
        outline.push((RIGHT, FLOW.1));
        self.root.draw(&Polygon::new(outline.clone(), ACTIVE.mix(0.15).filled()))?;
        self.root.draw(&PathElement::new(outline, ACTIVE.stroke_width(1)))?;
        Ok(())
    }

    fn fault(&self, fault: &Fault) -> Drawn {
        let (from, to) = (self.x(fault.start), self.x(fault.healed));
        for y in (LANES - 6..FLOW.1).step_by(10) {
            self.line((from, y), (from, y + 5), LOST, 1)?;
        }
        // The span in which the route was broken, above the lanes and along its lane.
        self.block((from, LANES - 10), (to, LANES - 7), LOST)?;
        let top = LANES + STEP * i32::try_from(fault.lane)?;
        let frame = Rectangle::new([(from, top), (to, top + LANE)], LOST.stroke_width(1));
        self.root.draw(&frame)?;
        let name = fault.kind.name().replace('-', " ");
        self.text(&name, (from, LANES - 34), 14, LOST, HPos::Left)?;
        let moved = format!("moved after {} ms", fault.moved.as_millis());
        self.text(&moved, (from, LANES - 19), 12, QUIET, HPos::Left)
    }

    fn legend(&self) -> Drawn {
        let y = i32::try_from(SIZE.1)? - 28;
        let mut x = LEFT;
        for (colour, name, height) in [
            (ACTIVE, "active route", 4),
            (UP, "up", 8),
            (INIT, "init", 8),
            (DOWN, "down", 8),
            (LOST, "broken by us, datagram lost", 1),
        ] {
            self.block((x, y - height), (x + 26, y + height), colour)?;
            self.text(name, (x + 34, y), 13, INK, HPos::Left)?;
            x += 64 + 8 * i32::try_from(name.len())?;
        }
        Ok(())
    }
}

/// Each value with its start and the start of the next one.
fn spans<T>(
    values: &[(Duration, T)],
    length: Duration,
) -> impl Iterator<Item = (Duration, &T, Duration)> {
    values.iter().enumerate().map(move |(place, (at, value))| {
        let end = values.get(place + 1).map_or(length, |(next, _)| *next);
        (*at, value, end)
    })
}

/// Mbit/s in each bin.
fn throughput(story: &Story) -> Vec<f64> {
    let count = (story.length.as_millis() as u64).div_ceil(BIN) as usize;
    let mut bins = vec![0.0; count];
    for (at, bytes) in &story.reads {
        let place = (at.as_millis() as u64 / BIN) as usize;
        if let Some(bin) = bins.get_mut(place) {
            *bin += *bytes as f64 * 8.0 / 1000.0 / BIN as f64;
        }
    }
    bins
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::demo::story::{Kind, Lane};

    /// A made-up run with every element the picture has.
    pub(in crate::demo) fn sample() -> Story {
        let ms = Duration::from_millis;
        let mut story = Story {
            length: ms(10_400),
            adapter: "netft0".to_owned(),
            active: vec![(ms(0), Some(0))],
            bytes: 187_000_000,
            probes: 20_800,
            hash_equal: true,
            ..Story::default()
        };
        for net in 1..=3 {
            let label = format!("10.{net}.0.1 → 10.{net}.0.2");
            story.lanes.push(Lane { label, states: vec![(ms(0), "up".to_owned())] });
        }
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            let start = ms(1000 + 3100 * place as u64);
            let (moved, healed) = (start + ms(153), start + ms(960));
            let back = start + ms(2100);
            story.active.extend([(moved, Some(1)), (back, Some(0))]);
            story.lanes[0].states.extend([
                (moved, "down".to_owned()),
                (healed + ms(40), "init".to_owned()),
                (healed + ms(100), "up".to_owned()),
            ]);
            story.losses[0].extend((0..150).map(|n| start + ms(n)));
            story.losses[1].extend((0..if place == 2 { 0 } else { 149 }).map(|n| start + ms(n)));
            story.faults.push(Fault {
                kind,
                lane: 0,
                start,
                detected: Duration::from_micros(152_311),
                moved: ms(153),
                healed,
                back: Some(back),
                probes_sent: 3000,
                probes_lost: 299,
                stall: ms(231),
            });
        }
        for n in 0..10_400u64 {
            let still = story.faults.iter().any(|f| (f.start..f.start + ms(220)).contains(&ms(n)));
            if !still {
                story.reads.push((ms(n), 15_000));
            }
        }
        story
    }

    #[test]
    fn the_picture_shows_every_route_and_every_fault() {
        let svg = draw(&sample());
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
        assert!(draw(&Story::default()).contains("</svg>"));
    }
}
