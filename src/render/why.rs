//! `netft why`: the story of one event in plain words, in order of time. Pure.

use std::{fmt::Write, time::Duration};

use super::{
    event::{Ends, cost, line},
    text::{escape, span},
};
use crate::control::{
    cause::{Candidate, Left, Said},
    schema::{Event, What},
    why::{Story, millis},
};

/// A story, as text.
pub fn story(story: &Story) -> String {
    let mut ends = Ends::default();
    for route in &story.routes {
        ends.insert(route.route, route.real_local, route.real_remote);
    }
    for event in story.before.iter().chain([&story.event]).chain(&story.after) {
        ends.learn(&event.what);
    }
    let mut out = Text(String::new());
    let Event { seq, at, what } = &story.event;
    out.line(0, &format!("event {seq}, {at}"));
    out.line(0, &line(what, &ends));
    out.chapter("what was seen");
    seen(&mut out, story);
    if let What::Moved { from, to, cause, .. } = what {
        if let Some(left) = &cause.left {
            out.chapter(&format!("what was known of {}", ends.route(left.route)));
            known(&mut out, left);
        }
        out.chapter("what was decided");
        for candidate in &cause.candidates {
            let route = ends.route(candidate.route);
            out.line(1, &format!("{route}: {}", verdict(candidate)));
        }
        if cause.more > 0 {
            out.line(1, &format!("and {} more routes, all behind these", cause.more));
        }
        if cause.candidates.is_empty() {
            out.line(1, "there was no other route");
        }
        if to.is_none() {
            out.line(1, "no route could carry data: it waits in the applications");
        }
        if let Some(ms) = cause.dark_ms {
            let length = if ms < 10_000 { format!("{ms} ms") } else { long(ms) };
            out.line(1, &format!("before that, no route had carried data for {length}"));
        }
        if from.is_none() && cause.dark_ms.is_none() {
            out.line(1, "it is the first route to carry data to this peer");
        }
    }
    if let Some(it) = &story.cost {
        out.chapter("what it cost");
        out.line(1, &cost(it));
        if !story.cost_final {
            out.line(1, "this may grow: ask again in two seconds");
        }
    }
    // The cost has its own chapter.
    let news = |event: &&Event| !matches!(event.what, What::Cost { .. });
    if story.after.iter().any(|event| news(&event)) {
        out.chapter("what came of it");
        happened(&mut out, story.after.iter().filter(news), &story.event);
    }
    out.0
}

struct Text(String);

impl Text {
    fn line(&mut self, indent: usize, text: &str) {
        // Writing into a string cannot fail.
        let _ = writeln!(self.0, "{:indent$}{}", "", escape(text), indent = indent * 2);
    }

    fn chapter(&mut self, title: &str) {
        self.0.push('\n');
        self.line(0, title);
    }
}

fn seen(out: &mut Text, story: &Story) {
    let first = story.before.first().map_or(story.event.seq, |event| event.seq);
    if first == story.oldest && story.oldest > 1 {
        out.line(1, &format!("(events before {} are not kept)", story.oldest));
    }
    if story.before.is_empty() {
        out.line(1, "nothing that foretold it");
    }
    happened(out, story.before.iter(), &story.event);
    if let What::StateChanged { history, .. } = &story.event.what
        && !history.is_empty()
    {
        out.line(1, "the last heartbeats, both ways:");
        history.iter().for_each(|heartbeat| out.line(2, heartbeat));
    }
}

/// Events with their distance from the one that is asked for. The routes' ends are left out:
/// they make long lines, and stand above.
fn happened<'e>(out: &mut Text, events: impl Iterator<Item = &'e Event>, from: &Event) {
    let ends = Ends::default();
    for event in events {
        let when = match (millis(&event.at), millis(&from.at)) {
            (Some(at), Some(from)) => distance(at as i64 - from as i64),
            _ => event.at.clone(),
        };
        out.line(1, &format!("{when:>10}  {}  (event {})", line(&event.what, &ends), event.seq));
    }
}

/// A distance in time with its sign.
fn distance(ms: i64) -> String {
    let sign = if ms < 0 { '-' } else { '+' };
    match ms.unsigned_abs() {
        ms if ms < 10_000 => format!("{sign}{ms} ms"),
        ms => format!("{sign}{}", long(ms)),
    }
}

fn long(ms: u64) -> String {
    span(Duration::from_millis(ms))
}

fn known(out: &mut Text, left: &Left) {
    let ago = |ms: Option<u64>| match ms {
        Some(ms) => format!("{ms} ms before"),
        None => "never".to_owned(),
    };
    let heard = ago(left.last_heard_ms_ago);
    let answered = ago(left.last_answered_ms_ago);
    out.line(1, &format!("{}; heard last {heard}, answered last {answered}", left.state));
    if let Some(ms) = left.suspect_ms {
        out.line(1, &format!("its data had stayed unacknowledged; suspect for {ms} ms"));
    }
    out.line(1, &format!("the peer said of it last: {}", said(left.said)));
    if !left.heartbeats.is_empty() {
        out.line(1, "the last heartbeats, both ways:");
    }
    left.heartbeats.iter().for_each(|heartbeat| out.line(2, heartbeat));
}

const fn said(said: Option<Said>) -> &'static str {
    match said {
        None => "nothing",
        Some(Said { admin_down: true, .. }) => "an operator there took it out of use",
        Some(Said { local_down: true, .. }) => "its own end is broken",
        Some(Said { heard: true, .. }) => "it hears this node there",
        Some(Said { .. }) => "it does not hear this node there",
    }
}

/// Why a route was chosen, or was not.
fn verdict(candidate: &Candidate) -> String {
    let Candidate { state, reason, priority, .. } = candidate;
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
        _ => format!("not chosen: {state} ({reason})"),
    }
}
