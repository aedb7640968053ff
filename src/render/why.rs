//! `netft why`: explanation of one event, in order of time. Pure.

use std::{fmt::Write, time::Duration};

use super::{
    event::{RouteEndpointMap, cost_text, event_line},
    style::OutputStyle,
};
use netft::failover::report::SelectionOutcome;

use crate::{
    clock::parse_rfc3339_millis,
    control::{
        cause::{CandidateRoute, LeftRoute, RemoteReportView},
        schema::{EventDetail, EventView},
        why::EventExplanation,
    },
    text::{escape, format_duration},
};

/// An explanation, as text.
pub fn explanation_text(explanation: &EventExplanation, style: &OutputStyle) -> String {
    let mut ends = RouteEndpointMap::default();
    for route in &explanation.routes {
        ends.insert_route(route.route, route.real_local, route.real_remote);
    }
    for event in explanation.before.iter().chain([&explanation.event]).chain(&explanation.after) {
        ends.learn_from(&event.detail);
    }
    let mut out = IndentedText(String::new());
    let EventView { seq, at, detail: what } = &explanation.event;
    out.push_line(0, &format!("event {seq}, {}", style.local_time(at)));
    out.push_line(0, &event_line(what, &ends));
    if explanation.earlier_run {
        out.push_line(
            0,
            "in an earlier run of netftd: its route numbers are not those of this one",
        );
    }
    out.push_heading("before");
    write_events_before(&mut out, explanation);
    if let EventDetail::Moved { from, to, cause, .. } = what {
        if let Some(left) = &cause.left {
            out.push_heading(&format!("state of {}", ends.route_label(left.route)));
            write_left_route(&mut out, left);
        }
        out.push_heading("route selection");
        for candidate in &cause.candidates {
            let route = ends.route_label(candidate.route);
            out.push_line(1, &format!("{route}: {}", candidate_text(candidate)));
        }
        if cause.more > 0 {
            out.push_line(1, &format!("and {} more routes of lower preference", cause.more));
        }
        if cause.candidates.is_empty() {
            out.push_line(1, "there was no other route");
        }
        if to.is_none() {
            out.push_line(1, &outage_text(explanation.outage_ms));
        }
        if let Some(ms) = cause.dark_ms {
            let length = long_duration_text(ms);
            out.push_line(1, &format!("no route had carried data for {length} before"));
        }
        if from.is_none() && cause.dark_ms.is_none() {
            out.push_line(1, "first route to carry data to this peer");
        }
    }
    if let Some(it) = &explanation.cost {
        out.push_heading("cost");
        out.push_line(1, &cost_text(it));
        if !explanation.cost_final {
            out.push_line(1, "not final: repeat in two seconds");
        }
    }
    // The cost has a section of its own.
    let is_shown = |event: &&EventView| !matches!(event.detail, EventDetail::Cost { .. });
    if explanation.after.iter().any(|event| is_shown(&event)) {
        out.push_heading("after");
        write_events(&mut out, explanation.after.iter().filter(is_shown), &explanation.event);
    }
    out.0
}

struct IndentedText(String);

impl IndentedText {
    fn push_line(&mut self, indent: usize, text: &str) {
        // Writing into a string cannot fail.
        let _ = writeln!(self.0, "{:indent$}{}", "", escape(text), indent = indent * 2);
    }

    fn push_heading(&mut self, title: &str) {
        self.0.push('\n');
        self.push_line(0, title);
    }
}

fn write_events_before(out: &mut IndentedText, explanation: &EventExplanation) {
    let first = explanation.before.first().map_or(explanation.event.seq, |event| event.seq);
    if first == explanation.oldest && explanation.oldest > 1 {
        out.push_line(1, &format!("(events before {} are not kept)", explanation.oldest));
    }
    if explanation.before.is_empty() {
        out.push_line(1, "no preceding event");
    }
    write_events(out, explanation.before.iter(), &explanation.event);
    if let EventDetail::StateChanged { history, .. } = &explanation.event.detail
        && !history.is_empty()
    {
        out.push_line(1, "last heartbeats in both directions:");
        history.iter().for_each(|heartbeat| out.push_line(2, heartbeat));
    }
}

/// Writes events with their time offset from the explained one, without the routes' endpoints:
/// those are shown once above.
fn write_events<'e>(
    out: &mut IndentedText,
    events: impl Iterator<Item = &'e EventView>,
    from: &EventView,
) {
    let ends = RouteEndpointMap::default();
    for event in events {
        let when = match (parse_rfc3339_millis(&event.at), parse_rfc3339_millis(&from.at)) {
            (Some(at), Some(from)) => time_offset_text(at - from),
            _ => event.at.clone(),
        };
        out.push_line(
            1,
            &format!("{when:>10}  {}  (event {})", event_line(&event.detail, &ends), event.seq),
        );
    }
}

/// A time offset with its sign.
fn time_offset_text(ms: i64) -> String {
    let sign = if ms < 0 { '-' } else { '+' };
    match ms.unsigned_abs() {
        ms if ms < 10_000 => format!("{sign}{ms} ms"),
        ms => format!("{sign}{}", duration_text(ms)),
    }
}

/// Outage of a peer: no data to it leaves this node.
fn outage_text(outage_ms: Option<u64>) -> String {
    let what = "no route could carry data: it waits in the applications, or is lost";
    match outage_ms {
        Some(ms) => format!("{what}, for {}", long_duration_text(ms)),
        None => format!("{what}; no route has been usable since"),
    }
}

fn long_duration_text(ms: u64) -> String {
    if ms < 10_000 { format!("{ms} ms") } else { duration_text(ms) }
}

fn duration_text(ms: u64) -> String {
    format_duration(Duration::from_millis(ms))
}

fn write_left_route(out: &mut IndentedText, left: &LeftRoute) {
    let ago = |ms: Option<u64>| match ms {
        Some(ms) => format!("{ms} ms before"),
        None => "never".to_owned(),
    };
    let heard = ago(left.last_heard_ms_ago);
    let answered = ago(left.last_answered_ms_ago);
    out.push_line(
        1,
        &format!("{}; last heartbeat received {heard}, last one answered {answered}", left.state),
    );
    if let Some(ms) = left.suspect_ms {
        out.push_line(1, &format!("suspect for {ms} ms: its data was unacknowledged"));
    }
    out.push_line(
        1,
        &format!("last report of the peer: {}", remote_report_text(left.remote_report)),
    );
    if !left.heartbeats.is_empty() {
        out.push_line(1, "last heartbeats in both directions:");
    }
    left.heartbeats.iter().for_each(|heartbeat| out.push_line(2, heartbeat));
}

const fn remote_report_text(said: Option<RemoteReportView>) -> &'static str {
    match said {
        None => "none",
        Some(RemoteReportView { admin_down: true, .. }) => "disabled by its operator",
        Some(RemoteReportView { local_down: true, .. }) => "its end is down",
        Some(RemoteReportView { heard: true, .. }) => "it receives from this node",
        Some(RemoteReportView { .. }) => "it does not receive from this node",
    }
}

/// Outcome of the selection for one candidate.
fn candidate_text(candidate: &CandidateRoute) -> String {
    let CandidateRoute { state, reason, priority, .. } = candidate;
    let suspect = if candidate.suspect { ", suspect" } else { "" };
    match candidate.verdict {
        SelectionOutcome::Chosen => {
            let held = candidate
                .held_ms
                .map_or_else(String::new, |ms| format!(", with {ms} ms of hold-down left"));
            format!("chosen ({state}, priority {priority}{suspect}){held}")
        }
        SelectionOutcome::LowerRank => {
            format!("usable{suspect}, less preferred: priority {priority}")
        }
        SelectionOutcome::HeldDown => {
            let ms = candidate.held_ms.unwrap_or_default();
            format!("usable{suspect}, in hold-down for {ms} ms more")
        }
        SelectionOutcome::HalfProven => format!("not chosen: one direction is unproven ({reason})"),
        SelectionOutcome::AdminDown => "not chosen: disabled by an operator".to_owned(),
        SelectionOutcome::Drained => "usable, but drained: a last resort".to_owned(),
        SelectionOutcome::BrownOut => {
            "degraded: loss or latency, see `netft route show`".to_owned()
        }
        SelectionOutcome::NotUp => format!("not chosen: {state} ({reason})"),
    }
}
