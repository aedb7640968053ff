//! Output of `netft tune`. Pure.

use serde::Serialize;

use super::{
    style::{OutputStyle, TextTone},
    table::{TableCell, TableColumn, TextTable},
    views::optional_text,
};
use crate::text::{format_millis, format_percent};

/// The findings of `netft tune`.
#[derive(Clone, Debug, Serialize)]
pub struct TuningReport {
    /// The budget: times a year that a route may go down for loss alone.
    pub false_alarms_per_year: f64,
    /// Routes with a measured round-trip time, by number.
    pub routes: Vec<TuningRow>,
}

/// One route: what is set, what was measured, what that allows.
#[derive(Clone, Debug, Serialize)]
pub struct TuningRow {
    /// Route number.
    pub id: u32,
    /// Name of the peer.
    pub peer: String,
    /// Interface on this node.
    pub interface: Option<String>,
    /// Milliseconds between heartbeats.
    pub delay_ms: u32,
    /// Missed heartbeats after which the route is down.
    pub threshold: u16,
    /// Round-trip time, microseconds.
    pub rtt_us: u64,
    /// Variation of the round-trip time, microseconds.
    pub jitter_us: Option<u64>,
    /// Share of packets towards this node that is assumed to be lost, 0.0–1.0.
    pub loss_assumed: f64,
    /// The same towards the peer.
    pub loss_out_assumed: f64,
    /// Expected false alarms a year with delay and threshold as they are: an upper estimate.
    pub false_alarms_per_year: f64,
    /// The smallest threshold at this delay that keeps to the budget; null if none does.
    pub smallest_threshold: Option<u16>,
}

impl TuningRow {
    fn exceeds(&self, budget: f64) -> bool {
        self.false_alarms_per_year > budget
    }

    fn detection_ms(&self, threshold: u16) -> u64 {
        u64::from(self.delay_ms) * u64::from(threshold)
    }
}

const TUNING_COLUMNS: [TableColumn; 9] = [
    TableColumn::number("route"),
    TableColumn::text("peer"),
    TableColumn::text("interface").with_rank(1),
    TableColumn::number("rtt").with_rank(2),
    TableColumn::number("jitter").with_rank(3),
    TableColumn::number("loss below").with_rank(2),
    TableColumn::text("detection, as set"),
    TableColumn::number("false alarms"),
    TableColumn::text("smallest for the budget"),
];

/// A row for each route, then what to do about those over the budget.
pub fn tuning_text(report: &TuningReport, style: &OutputStyle) -> String {
    if report.routes.is_empty() {
        return "no route has a measured round-trip time\n".to_owned();
    }
    let budget = report.false_alarms_per_year;
    let mut table = TextTable::new(&TUNING_COLUMNS);
    for row in &report.routes {
        let tone = if row.exceeds(budget) { TextTone::Warning } else { TextTone::Plain };
        table.add_row(vec![
            row.id.to_string().into(),
            (&row.peer).into(),
            optional_text(row.interface.as_deref()).into(),
            format_millis(row.rtt_us).into(),
            row.jitter_us.map_or_else(|| "-".to_owned(), format_millis).into(),
            format_percent(row.loss_assumed.max(row.loss_out_assumed)).into(),
            timing_text(row, row.threshold).into(),
            TableCell::with_tone(alarms_text(row.false_alarms_per_year), tone),
            row.smallest_threshold
                .map_or_else(|| "none".to_owned(), |smallest| timing_text(row, smallest))
                .into(),
        ]);
    }
    let mut out = table.render(style);
    for row in report.routes.iter().filter(|row| row.exceeds(budget)) {
        out += &match row.smallest_threshold {
            Some(smallest) => format!(
                "\nroute {}: loss alone may take it down more than {budget} times a year; \
                 netft route set {} --threshold {smallest}\n",
                row.id, row.id
            ),
            None => format!(
                "\nroute {}: it loses too much for any threshold at this delay: mend the network\n",
                row.id
            ),
        };
    }
    out += "\nThe estimate takes losses as independent. A burst as long as the detection time\n\
            takes a route down at any setting; a host that stalls needs its own time.\n";
    out
}

fn timing_text(row: &TuningRow, threshold: u16) -> String {
    format!("{} ms ({} ms × {threshold})", row.detection_ms(threshold), row.delay_ms)
}

fn alarms_text(per_year: f64) -> String {
    match per_year {
        below if below < 0.01 => "< 0.01 a year".to_owned(),
        few if few < 10.0 => format!("{few:.2} a year"),
        many => format!("{many:.0} a year"),
    }
}
