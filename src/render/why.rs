//! `netft why`: the story of one event in plain words, in order of time. Pure.

use std::{fmt::Write, time::Duration};

use super::event::{RouteEndpointMap, cost_text, event_line};
use crate::{
    clock::parse_rfc3339_millis,
    control::{
        cause::{CandidateRoute, LeftRoute, RemoteReport},
        schema::{Event, EventDetail},
        why::EventExplanation,
    },
    text::{escape, format_duration},
};

/// A story, as text.
pub fn explanation_text(story: &EventExplanation) -> String {
    let mut ends = RouteEndpointMap::default();
    for route in &story.routes {
        ends.insert_route(route.route, route.real_local, route.real_remote);
    }
    for event in story.before.iter().chain([&story.event]).chain(&story.after) {
        ends.learn_from(&event.detail);
    }
    let mut out = IndentedText(String::new());
    let Event { seq, at, detail: what } = &story.event;
    out.push_line(0, &format!("event {seq}, {at}"));
    out.push_line(0, &event_line(what, &ends));
    out.push_heading("what was seen");
    write_events_before(&mut out, story);
    if let EventDetail::Moved { from, to, cause, .. } = what {
        if let Some(left) = &cause.left {
            out.push_heading(&format!("what was known of {}", ends.route_label(left.route)));
            write_left_route(&mut out, left);
        }
        out.push_heading("what was decided");
        for candidate in &cause.candidates {
            let route = ends.route_label(candidate.route);
            out.push_line(1, &format!("{route}: {}", candidate_text(candidate)));
        }
        if cause.more > 0 {
            out.push_line(1, &format!("and {} more routes, all behind these", cause.more));
        }
        if cause.candidates.is_empty() {
            out.push_line(1, "there was no other route");
        }
        if to.is_none() {
            out.push_line(1, "no route could carry data: it waits in the applications");
        }
        if let Some(ms) = cause.dark_ms {
            let length = if ms < 10_000 { format!("{ms} ms") } else { duration_text(ms) };
            out.push_line(1, &format!("before that, no route had carried data for {length}"));
        }
        if from.is_none() && cause.dark_ms.is_none() {
            out.push_line(1, "it is the first route to carry data to this peer");
        }
    }
    if let Some(it) = &story.cost {
        out.push_heading("what it cost");
        out.push_line(1, &cost_text(it));
        if !story.cost_final {
            out.push_line(1, "this may grow: ask again in two seconds");
        }
    }
    // The cost has its own chapter.
    let news = |event: &&Event| !matches!(event.detail, EventDetail::Cost { .. });
    if story.after.iter().any(|event| news(&event)) {
        out.push_heading("what came of it");
        write_events(&mut out, story.after.iter().filter(news), &story.event);
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

fn write_events_before(out: &mut IndentedText, story: &EventExplanation) {
    let first = story.before.first().map_or(story.event.seq, |event| event.seq);
    if first == story.oldest && story.oldest > 1 {
        out.push_line(1, &format!("(events before {} are not kept)", story.oldest));
    }
    if story.before.is_empty() {
        out.push_line(1, "nothing that foretold it");
    }
    write_events(out, story.before.iter(), &story.event);
    if let EventDetail::StateChanged { history, .. } = &story.event.detail
        && !history.is_empty()
    {
        out.push_line(1, "the last heartbeats, both ways:");
        history.iter().for_each(|heartbeat| out.push_line(2, heartbeat));
    }
}

/// Events with their distance from the one that is asked for. The routes' ends are left out:
/// they make long lines, and stand above.
fn write_events<'e>(out: &mut IndentedText, events: impl Iterator<Item = &'e Event>, from: &Event) {
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

/// A distance in time with its sign.
fn time_offset_text(ms: i64) -> String {
    let sign = if ms < 0 { '-' } else { '+' };
    match ms.unsigned_abs() {
        ms if ms < 10_000 => format!("{sign}{ms} ms"),
        ms => format!("{sign}{}", duration_text(ms)),
    }
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
    out.push_line(1, &format!("{}; heard last {heard}, answered last {answered}", left.state));
    if let Some(ms) = left.suspect_ms {
        out.push_line(1, &format!("its data had stayed unacknowledged; suspect for {ms} ms"));
    }
    out.push_line(
        1,
        &format!("the peer said of it last: {}", remote_report_text(left.remote_report)),
    );
    if !left.heartbeats.is_empty() {
        out.push_line(1, "the last heartbeats, both ways:");
    }
    left.heartbeats.iter().for_each(|heartbeat| out.push_line(2, heartbeat));
}

const fn remote_report_text(said: Option<RemoteReport>) -> &'static str {
    match said {
        None => "nothing",
        Some(RemoteReport { admin_down: true, .. }) => "an operator there took it out of use",
        Some(RemoteReport { local_down: true, .. }) => "its own end is broken",
        Some(RemoteReport { heard: true, .. }) => "it hears this node there",
        Some(RemoteReport { .. }) => "it does not hear this node there",
    }
}

/// Why a route was chosen, or was not.
fn candidate_text(candidate: &CandidateRoute) -> String {
    let CandidateRoute { state, reason, priority, .. } = candidate;
    let suspect = if candidate.suspect { ", suspect" } else { "" };
    match candidate.verdict.as_str() {
        "chosen" => {
            let held = candidate.held_ms.map_or_else(String::new, |ms| {
                format!(", though it failed lately and was held for {ms} ms more")
            });
            format!("chosen ({state}, priority {priority}{suspect}){held}")
        }
        "behind another" => format!("works{suspect}, but comes later: priority {priority}"),
        "held" => {
            let ms = candidate.held_ms.unwrap_or_default();
            format!("works{suspect}, but failed lately: held for {ms} ms more")
        }
        "half proven" => format!("not chosen: only one direction is proven ({reason})"),
        "admin-down" => "not chosen: an operator took it out of use".to_owned(),
        "drained" => "works, but is drained: it serves when nothing else does".to_owned(),
        "brown-out" => "works badly: loss or latency, see `netft route show`".to_owned(),
        _ => format!("not chosen: {state} ({reason})"),
    }
}
