//! Output of `netft drill`: text, and a page. Pure.

use std::fmt::Write;

use super::{
    html::{HtmlCell, escape_html, render_page, render_table},
    style::{OutputStyle, TextTone},
    table::{TableCell, TableColumn, TextTable},
};
use crate::{
    control::schema::DrillView,
    text::{escape, format_millis, yes_or_no},
};

/// One figure of a drill beside its objective.
struct DrillFigure {
    name: &'static str,
    value: String,
    objective: String,
    is_met: Option<bool>,
}

/// The state of the drill, in one line.
pub fn progress_text(view: &DrillView) -> String {
    let (fault, target) = (escape(&view.fault), escape(&view.target));
    match view.outcome.as_str() {
        "running" => format!("{fault} on {target} for {} ms", view.length_ms),
        "settling" => "undone; waiting for the routes and the last figures".to_owned(),
        outcome => escape(outcome),
    }
}

fn figures(view: &DrillView) -> Vec<DrillFigure> {
    let millis = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("≤ {ms} ms"));
    let detection = view.detection_us.map_or_else(|| "not detected".to_owned(), format_millis);
    let stall = view.stall_us.map_or_else(|| "none".to_owned(), format_millis);
    let by = view.stall_by.map_or_else(String::new, |by| format!(" (by {})", by.as_str()));
    let count = |count: u64| count.to_string();
    vec![
        DrillFigure {
            name: "detection",
            value: detection,
            objective: millis(view.objective.detection_ms),
            is_met: view.verdict.detection,
        },
        DrillFigure {
            name: "stall",
            value: stall + &by,
            objective: millis(view.objective.stall_ms),
            is_met: view.verdict.stall,
        },
        DrillFigure {
            name: "frames lost",
            value: count(view.lost),
            objective: view.objective.lost.map_or_else(|| "-".to_owned(), |it| format!("≤ {it}")),
            is_met: view.verdict.lost,
        },
        plain_figure("frames re-sent", count(view.resent)),
        plain_figure("frames duplicated", count(view.duplicated)),
        plain_figure("datagrams dropped by the drill", count(view.dropped)),
        plain_figure("routes up again", yes_or_no(view.recovered).to_owned()),
    ]
}

fn plain_figure(name: &'static str, value: String) -> DrillFigure {
    DrillFigure { name, value, objective: "-".to_owned(), is_met: None }
}

const fn met_text(is_met: Option<bool>) -> &'static str {
    match is_met {
        None => "-",
        Some(true) => "met",
        Some(false) => "missed",
    }
}

fn headline(view: &DrillView) -> String {
    let DrillView { fault, target, outcome, lasted_ms, .. } = view;
    let reason = view.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    format!("{fault} on {target}: {outcome} after {lasted_ms} ms{reason}")
}

/// A drill: its outcome, its figures, its routes.
pub fn drill_text(view: &DrillView, style: &OutputStyle) -> String {
    let mut text = escape(&headline(view)) + "\n\n";
    let columns = ["FIGURE", "VALUE", "OBJECTIVE", "VERDICT"].map(TableColumn::text);
    let mut table = TextTable::new(&columns);
    for figure in figures(view) {
        let tone = match figure.is_met {
            None => TextTone::Plain,
            Some(true) => TextTone::Good,
            Some(false) => TextTone::Bad,
        };
        let verdict = TableCell::with_tone(met_text(figure.is_met), tone);
        table.add_row(vec![
            figure.name.into(),
            figure.value.into(),
            figure.objective.into(),
            verdict,
        ]);
    }
    text += &table.render(style);
    text.push('\n');
    let columns = ["ROUTE", "PEER", "DETECTED AFTER", "BY", "UP AGAIN AFTER"];
    let mut table = TextTable::new(&columns.map(TableColumn::text));
    for row in route_rows(view) {
        table.add_row(row.into_iter().map(TableCell::from).collect());
    }
    text + &table.render(style)
}

fn route_rows(view: &DrillView) -> Vec<Vec<String>> {
    let millis = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), format_millis);
    let rows = view.routes.iter().map(|route| {
        let sign = match (&route.sign, route.was_up) {
            (Some(sign), _) => sign.clone(),
            (None, true) => "-".to_owned(),
            (None, false) => "it was not up before".to_owned(),
        };
        vec![
            route.route.to_string(),
            route.peer.clone(),
            millis(route.detection_us),
            sign,
            millis(route.recovery_us),
        ]
    });
    rows.collect()
}

/// The drills as one page. `at`: when it was made.
pub fn drill_page(drills: &[DrillView], at: &str) -> String {
    let mut body = String::new();
    // Writing to a String cannot fail.
    for view in drills {
        let _ = writeln!(body, "<h2>{}</h2>", escape_html(&headline(view)));
        let rows: Vec<_> = figures(view).into_iter().map(figure_cells).collect();
        body += &render_table(&["Figure", "Value", "Objective", "Verdict"], &rows);
        let plain = |text: String| HtmlCell::new(text, "");
        let rows: Vec<Vec<_>> =
            route_rows(view).into_iter().map(|row| row.into_iter().map(plain).collect()).collect();
        let columns = ["Route", "Peer", "Detected after", "By", "Up again after"];
        body += "<p></p>\n";
        body += &render_table(&columns, &rows);
    }
    let met = drills.iter().all(|view| view.verdict.met && view.recovered && view.reason.is_none());
    let verdict = if met { "every objective met" } else { "an objective missed" };
    render_page("netft: failure drill", &format!("{at}: {verdict}"), &body)
}

fn figure_cells(figure: DrillFigure) -> Vec<HtmlCell> {
    let class = match figure.is_met {
        None => "faint",
        Some(true) => "good",
        Some(false) => "bad",
    };
    vec![
        HtmlCell::new(figure.name, ""),
        HtmlCell::new(figure.value, ""),
        HtmlCell::new(figure.objective, "faint"),
        HtmlCell::new(met_text(figure.is_met), class),
    ]
}
