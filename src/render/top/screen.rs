//! The screen of `netft top`: a model in, lines of a frame out. Pure.
//!
//! From top to bottom: the verdict, the matrix of peers and networks, the routes with their
//! traffic, the last events, and a line for keys and questions. What does not fit is scrolled to
//! the selected route.

use std::ops::Range;

use ratatui::{
    Frame,
    style::{Color, Modifier, Style},
    text::{Line, Span, Text},
};

use super::{
    matrix,
    matrix::MatrixColumn,
    model::{TopModel, TopSample},
};
use crate::{
    clock,
    control::{
        schema::{PeerView, RouteView},
        verdict::RedundancyState,
    },
    render::{
        style::{OutputStyle, TextTone},
        tables, views,
    },
    text::{escape, format_percent, format_short_bytes},
};

/// Lines that are no list: verdict, its reason, two gaps, keys.
const FIXED_LINES: usize = 5;
/// Least lines of events, with their heading.
const MIN_EVENT_LINES: usize = 4;
/// Rows of peers on a screen of 24 lines; a quarter of every further line is added.
const PEER_ROWS: usize = 5;
/// Lines of the smallest screen that the layout is made for.
const SMALL_SCREEN_LINES: usize = 24;
/// Widest name of a peer, and of an interface, on a screen of 80 columns.
const NAME_WIDTH: usize = 12;
const INTERFACE_WIDTH: usize = 9;
/// Columns of the routes that have a fixed width, with the spaces between all columns.
const FIXED_ROUTE_WIDTH: usize = 52;
/// The keys, for the last line.
const KEY_HELP: &str = "↑ ↓ select   d drain   u undrain   q quit";

/// Draws the model.
pub fn draw_screen(model: &TopModel, frame: &mut Frame<'_>) {
    let area = frame.area();
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let mut lines = match &model.sample {
        Some(sample) => sample_lines(model, sample, width, height),
        None => vec![Line::raw(model.problem.clone().unwrap_or_default())],
    };
    lines.truncate(height.saturating_sub(1));
    lines.resize(height.saturating_sub(1), Line::default());
    lines.push(bottom_line(model, width));
    frame.render_widget(Text::from(lines), area);
}

fn sample_lines(
    model: &TopModel,
    sample: &TopSample,
    width: usize,
    height: usize,
) -> Vec<Line<'static>> {
    let room = height.saturating_sub(FIXED_LINES);
    let peer_rows = PEER_ROWS + height.saturating_sub(SMALL_SCREEN_LINES) / 4;
    let peer_rows = peer_rows.min(sample.peers.len());
    let route_rows = room.saturating_sub(1 + peer_rows + 1 + MIN_EVENT_LINES);
    let route_rows = route_rows.min(sample.routes.len());
    let mut lines =
        vec![verdict_line(&model.style, sample, width), reason_line(model, sample, width)];
    lines.extend(matrix_lines(model, sample, (width, peer_rows)));
    lines.extend(route_lines(model, (width, route_rows)));
    lines.push(Line::default());
    let event_rows = height.saturating_sub(lines.len() + 2);
    lines.push(paint_line(&model.style, "events", TextTone::Faint));
    let first = model.events.len().saturating_sub(event_rows);
    let events = model.events.range(first..);
    lines.extend(
        events.map(|event| paint_line(&model.style, &cut_text(&event.text, width), event.tone)),
    );
    lines
}

fn verdict_line(style: &OutputStyle, sample: &TopSample, width: usize) -> Line<'static> {
    let status = &sample.status;
    let tone = match status.verdict.state {
        RedundancyState::Redundant => TextTone::Good,
        RedundancyState::Degraded => TextTone::Warning,
        RedundancyState::CutOff => TextTone::Bad,
    };
    let at = clock::to_zone_time(&sample.at, &style.zone).unwrap_or_else(|| escape(&sample.at));
    let name = format!("{}  {}  ", escape(&status.node.name), escape(&status.adapter.name));
    let verdict = status.verdict.state.as_str();
    let (peers, routes) = (status.peers, status.routes);
    let rest = format!(
        "  peers {}/{} reachable  routes {}/{} up  failovers {}",
        peers.reachable, peers.configured, routes.up, routes.total, status.failovers
    );
    let used = name.chars().count() + verdict.chars().count();
    let room = width.saturating_sub(used + at.len() + 1);
    let rest = cut_text(&rest, room);
    Line::from(vec![
        Span::raw(name),
        Span::styled(verdict, tone_style(style, tone)),
        Span::raw(format!("{rest:<room$} {at}")),
    ])
}

/// Why there is no newer sample, else the first reason of the verdict.
fn reason_line(model: &TopModel, sample: &TopSample, width: usize) -> Line<'static> {
    let (text, tone) = match (&model.problem, sample.status.verdict.reasons.as_slice()) {
        (Some(problem), _) => (problem.clone(), TextTone::Bad),
        (None, []) => return Line::default(),
        (None, [reason]) => (escape(reason), TextTone::Warning),
        (None, [reason, more @ ..]) => {
            let text = format!("{} reasons; {}", more.len() + 1, escape(reason));
            (text, TextTone::Warning)
        }
    };
    paint_line(&model.style, &cut_text(&text, width), tone)
}

fn matrix_lines(
    model: &TopModel,
    sample: &TopSample,
    (width, rows): (usize, usize),
) -> Vec<Line<'static>> {
    let selected = model.selected_place().map(|place| &sample.routes[place]);
    let peer = selected.and_then(|it| sample.peers.iter().position(|peer| peer.name == it.peer));
    let peers = visible_range(sample.peers.len(), peer.unwrap_or(0), rows);
    let shown = &sample.peers[peers.clone()];
    let first = match peers.len() < sample.peers.len() {
        true => format!("peer {}-{}/{}", peers.start + 1, peers.end, sample.peers.len()),
        false => "peer".to_owned(),
    };
    let names = shown.iter().map(|peer| peer.name.chars().count());
    let name_width = names.max().unwrap_or(0).min(width / 4).max(first.len());
    let columns = matrix::matrix_columns(&sample.routes);
    let widths: Vec<_> =
        columns.iter().map(|column| column_width(sample, shown, *column)).collect();
    let here = selected.map(MatrixColumn::of_route);
    let here = columns.iter().position(|column| Some(*column) == here).unwrap_or(0);
    let columns_shown = visible_columns(&widths, here, width.saturating_sub(name_width));
    let mut header = fit_text(&first, name_width);
    for at in columns_shown.clone() {
        header += "  ";
        header += &fit_text(&columns[at].label(), widths[at]);
    }
    let mut lines = vec![paint_line(&model.style, &header, TextTone::Faint)];
    for peer in shown {
        let tone = if peer.reachable { TextTone::Plain } else { TextTone::Bad };
        let name = fit_text(&escape(&peer.name), name_width);
        let mut spans = vec![Span::styled(name, tone_style(&model.style, tone))];
        for at in columns_shown.clone() {
            let (text, tone) = matrix::matrix_cell(&sample.routes, peer, columns[at]);
            spans.push(Span::raw("  "));
            let text = fit_text(&text, widths[at]);
            spans.push(Span::styled(text, tone_style(&model.style, tone)));
        }
        lines.push(Line::from(spans));
    }
    lines
}

fn column_width(sample: &TopSample, peers: &[PeerView], column: MatrixColumn) -> usize {
    let cells = peers.iter().map(|peer| matrix::matrix_cell(&sample.routes, peer, column).0);
    let cells = cells.map(|text| text.chars().count());
    cells.chain([column.label().chars().count()]).max().unwrap_or(0)
}

/// Columns from the first that fit with `selected` among them.
fn visible_columns(widths: &[usize], selected: usize, room: usize) -> Range<usize> {
    let mut shown = 0..widths.len();
    let needs = |range: &Range<usize>| widths[range.clone()].iter().map(|it| it + 2).sum::<usize>();
    while needs(&shown) > room && shown.len() > 1 {
        if shown.end - 1 > selected {
            shown.end -= 1;
        } else {
            shown.start += 1;
        }
    }
    shown
}

/// Rows of a list that are shown, with `selected` among them.
fn visible_range(len: usize, selected: usize, rows: usize) -> Range<usize> {
    let rows = rows.min(len);
    let start = selected.saturating_sub(rows / 2).min(len - rows);
    start..start + rows
}

/// Widths of the columns of the routes that differ with the screen.
struct RouteWidths {
    name: usize,
    interface: usize,
    spark: usize,
}

impl RouteWidths {
    fn new(routes: &[RouteView], width: usize) -> Self {
        let extra = width.saturating_sub(80);
        let longest = |text: fn(&RouteView) -> usize| routes.iter().map(text).max().unwrap_or(0);
        let name = longest(|route| route.peer.chars().count()).max("peer".len());
        let interface = longest(|route| route.interface.as_ref().map_or(1, String::len));
        let name = name.min(NAME_WIDTH + extra / 4);
        let interface = interface.max("interface".len()).min(INTERFACE_WIDTH + extra / 8);
        let spark = width.saturating_sub(FIXED_ROUTE_WIDTH + name + interface);
        Self { name, interface, spark }
    }
}

fn route_lines(model: &TopModel, (width, rows): (usize, usize)) -> Vec<Line<'static>> {
    let (routes, style) = (model.routes(), &model.style);
    let widths = RouteWidths::new(routes, width);
    let selected = model.selected_place();
    let shown = visible_range(routes.len(), selected.unwrap_or(0), rows);
    let RouteWidths { name, interface, .. } = widths;
    let header = format!(
        "{:>5} {} {} {:<10} {:>6} {:>6} {:>9} {:>7} rtt",
        "id",
        fit_text("peer", name),
        fit_text("interface", interface),
        "state",
        "tx B/s",
        "rx B/s",
        "rtt",
        "loss"
    );
    let count = match shown.len() < routes.len() {
        true => format!("routes {}-{}/{}", shown.start + 1, shown.end, routes.len()),
        false => String::new(),
    };
    let headings = [count, cut_text(&header, width)];
    let mut lines = headings.map(|text| paint_line(style, &text, TextTone::Faint)).to_vec();
    for place in shown {
        let line = route_line(model, &routes[place], &widths);
        let is_selected = Some(place) == selected;
        lines.push(if is_selected { line.style(Modifier::REVERSED) } else { line });
    }
    lines
}

fn route_line(model: &TopModel, route: &RouteView, widths: &RouteWidths) -> Line<'static> {
    let traffic = model.history_of(route.id);
    let rate = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), format_short_bytes);
    let loss = route.loss.max(route.loss_out).max(route.data_loss);
    let loss_tone = if loss > 0.0 { TextTone::Warning } else { TextTone::Plain };
    let mark = if route.active { "*" } else { " " };
    let interface = views::optional_text(route.interface.as_deref());
    let names = format!(
        "{mark}{:>4} {} {} ",
        route.id,
        fit_text(&escape(&route.peer), widths.name),
        fit_text(&interface, widths.interface)
    );
    let figures = format!(
        " {:>6} {:>6} {:>9} ",
        rate(traffic.and_then(|it| it.tx_rate)),
        rate(traffic.and_then(|it| it.rx_rate)),
        rtt_text(route.rtt_us),
    );
    let spark = traffic.map_or_else(String::new, |it| it.sparkline(widths.spark));
    let paint = |text: String, tone| Span::styled(text, tone_style(&model.style, tone));
    Line::from(vec![
        Span::raw(names),
        paint(fit_text(&views::state_text(route), 10), tables::route_tone(route)),
        Span::raw(figures),
        paint(format!("{:>7}", format_percent(loss)), loss_tone),
        Span::raw(format!(" {spark}")),
    ])
}

/// A round-trip time in at most nine characters.
fn rtt_text(rtt_us: Option<u64>) -> String {
    match rtt_us {
        None => "-".to_owned(),
        Some(us) if us < 1_000_000 => format!("{}.{:02} ms", us / 1000, us % 1000 / 10),
        Some(us) => format!("{} s", us / 1_000_000),
    }
}

/// The question that waits, else the outcome of the last order, else the keys.
fn bottom_line(model: &TopModel, width: usize) -> Line<'static> {
    if let Some(question) = model.question() {
        return Line::styled(fit_text(&question, width), Modifier::REVERSED);
    }
    match &model.notice {
        Some((text, tone)) => paint_line(&model.style, &cut_text(text, width), *tone),
        None => paint_line(&model.style, KEY_HELP, TextTone::Faint),
    }
}

fn paint_line(style: &OutputStyle, text: &str, tone: TextTone) -> Line<'static> {
    Line::styled(text.to_owned(), tone_style(style, tone))
}

fn tone_style(style: &OutputStyle, tone: TextTone) -> Style {
    if !style.is_coloured {
        return Style::default();
    }
    match tone {
        TextTone::Plain => Style::default(),
        TextTone::Good => Style::default().fg(Color::Green),
        TextTone::Warning => Style::default().fg(Color::Yellow),
        TextTone::Bad => Style::default().fg(Color::Red),
        TextTone::Faint => Style::default().add_modifier(Modifier::DIM),
    }
}

/// At most `width` characters of a text; `…` stands for what is cut off.
fn cut_text(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.extend((width > 0).then_some('…'));
    cut
}

/// A text in exactly `width` characters.
fn fit_text(text: &str, width: usize) -> String {
    format!("{:<width$}", cut_text(text, width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_columns_are_scrolled_to_the_selection() {
        assert_eq!(visible_range(3, 1, 9), 0..3);
        assert_eq!(visible_range(20, 0, 5), 0..5);
        assert_eq!(visible_range(20, 10, 5), 8..13);
        assert_eq!(visible_range(20, 19, 5), 15..20);
        assert_eq!(visible_range(0, 0, 5), 0..0);
        assert_eq!(visible_columns(&[8, 8, 8], 2, 100), 0..3);
        assert_eq!(visible_columns(&[8, 8, 8], 0, 20), 0..2);
        assert_eq!(visible_columns(&[8, 8, 8], 2, 20), 1..3);
        assert_eq!(visible_columns(&[8], 0, 3), 0..1);
    }

    #[test]
    fn texts_are_cut_visibly() {
        assert_eq!(cut_text("node-3.example", 8), "node-3.…");
        assert_eq!(fit_text("ab", 4), "ab  ");
        assert_eq!(cut_text("ab", 0), "");
        let longest = rtt_text(Some(999_999));
        assert!(longest.len() <= 9 && rtt_text(Some(5_000_000)) == "5 s", "{longest}");
    }
}
