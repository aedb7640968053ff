//! `netft events`.

use super::{args::EventsArgs, output::StandardOutput};
use crate::{
    clock::parse_rfc3339_millis,
    control::{
        client::DaemonClient,
        schema::{EventList, EventView, VersionedBody},
    },
    exit::ExitError,
    render::{
        event,
        event::{EventLevel, RouteEndpointMap},
        style::{OutputStyle, TextTone},
    },
};

/// Prints the events, and those to come.
///
/// # Errors
/// No daemon.
pub(super) fn run_events(
    client: &DaemonClient,
    args: &EventsArgs,
    json: bool,
    style: &OutputStyle,
    out: &mut StandardOutput,
) -> Result<(), ExitError> {
    let mut ends = RouteEndpointMap::default();
    let mut show = |event: &EventView| {
        ends.learn_from(&event.detail);
        let lines = event::event_lines(&event.detail, &ends);
        ends.forget_removed(&event.detail);
        let tone = match event::event_level(&event.detail) {
            EventLevel::Info => TextTone::Plain,
            EventLevel::Warn => TextTone::Warning,
        };
        let at = style.local_time(&event.at);
        let lines = lines.iter().map(|line| style.paint_text(line, tone)).collect::<Vec<_>>();
        format!("{:>4} {at} {}\n", event.seq, lines.join("\n"))
    };
    let target = format!("/v1/events?after={}", args.after);
    let (text, mut answer) = client.request_json::<EventList>("GET", &target, "")?;
    // Lines of dropped events still teach the endpoints of their routes.
    let is_filtered = args.is_filtered();
    let newest = answer.events.last().map_or(args.after, |event| event.seq);
    let shown: Vec<_> = answer.events.iter().map(|event| (event.seq, show(event))).collect();
    answer.events.retain(|event| args.accepts(event));
    let surplus = args.count.map_or(0, |count| answer.events.len().saturating_sub(count));
    answer.events.drain(..surplus);
    let is_kept = |seq: u64| answer.events.iter().any(|event| event.seq == seq);
    let render = || shown.iter().filter(|it| is_kept(it.0)).map(|it| it.1.clone()).collect();
    if !args.follow {
        let text = match is_filtered || args.count.is_some() {
            true => serde_json::to_string(&VersionedBody::new(&answer))
                .map_err(ExitError::other_error)?,
            false => text,
        };
        return out.print_response(json, &text, render);
    }
    if json {
        for event in &answer.events {
            let line = serde_json::to_string(&VersionedBody::new(event));
            out.write_text(&format!("{}\n", line.map_err(ExitError::other_error)?))?;
        }
    } else {
        out.print_response(false, "", render)?;
    }
    let mut stream = client.open_stream(&format!("/v1/events?after={newest}&follow=true"))?;
    loop {
        let (line, event) = stream.next_line::<VersionedBody<EventView>>()?;
        let text = show(&event.body);
        if args.accepts(&event.body) && !out.print_streamed(json, &line, || text)? {
            return Ok(());
        }
    }
}

impl EventsArgs {
    fn is_filtered(&self) -> bool {
        self.since.is_some() || self.peer.is_some() || !self.ids.is_empty()
    }

    fn accepts(&self, event: &EventView) -> bool {
        let at = || parse_rfc3339_millis(&event.at).unwrap_or(i64::MAX);
        self.since.is_none_or(|since| at() >= since)
            && self.peer.as_deref().is_none_or(|peer| event.detail.peer() == Some(peer))
            && (self.ids.is_empty() || self.ids.contains(&event.detail.event_id()))
    }
}
