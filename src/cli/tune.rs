//! `netft tune`: the detection time of each route beside what its measured RTT and loss allow.

use std::time::Duration;

use netft::route::{
    Delay, Threshold, Timing,
    false_alarms::{PacketLoss, false_alarms_per_year, smallest_threshold},
};

use super::{args::TuneArgs, output::StandardOutput, peer::require_peer};
use crate::{
    control::{
        client::DaemonClient,
        schema::{RouteList, RouteView, VersionedBody},
    },
    exit::ExitError,
    render::{
        style::OutputStyle,
        tuning,
        tuning::{TuningReport, TuningRow},
    },
};

/// A heartbeat is late by this many times the measured jitter at most (RFC 6298 section 2).
const JITTERS_LATE: u64 = 4;
/// Losses that a count of heartbeats does not rule out although none was seen: with a confidence of
/// 95 % the rate is below three in all of them.
const UNSEEN_LOSSES: f64 = 3.0;

pub(super) fn run_tune(
    client: &DaemonClient,
    args: &TuneArgs,
    json: bool,
    style: &OutputStyle,
    out: &mut StandardOutput,
) -> Result<(), ExitError> {
    let (_, list) = client.request_json::<RouteList>("GET", "/v1/routes", "")?;
    if let Some(name) = &args.peer
        && list.routes.iter().all(|route| route.peer != *name)
    {
        require_peer(client, name)?;
    }
    let wanted = list.routes.iter().filter(|route| {
        route.rtt_us.is_some() && args.peer.as_ref().is_none_or(|peer| route.peer == *peer)
    });
    let rows = wanted.filter_map(|route| tuning_row(route, args.false_alarms)).collect();
    let report = TuningReport { false_alarms_per_year: args.false_alarms, routes: rows };
    let text =
        serde_json::to_string(&VersionedBody::new(&report)).map_err(ExitError::other_error)?;
    out.print_response(json, &text, || tuning::tuning_text(&report, style))
}

/// `None` for a route whose delay or threshold this program does not know.
fn tuning_row(route: &RouteView, budget: f64) -> Option<TuningRow> {
    let timing = Timing {
        delay: Delay::from_millis(route.delay_ms.into()).ok()?,
        threshold: Threshold::new(route.threshold.into()).ok()?,
    };
    let loss = assumed_loss(route);
    let late = route.rtt_us? + JITTERS_LATE * route.jitter_us.unwrap_or(0);
    let smallest = smallest_threshold(timing, loss, Duration::from_micros(late), budget);
    Some(TuningRow {
        id: route.id,
        peer: route.peer.clone(),
        interface: route.interface.clone(),
        delay_ms: route.delay_ms,
        threshold: route.threshold,
        rtt_us: route.rtt_us?,
        jitter_us: route.jitter_us,
        loss_assumed: loss.inbound,
        loss_out_assumed: loss.outbound,
        false_alarms_per_year: false_alarms_per_year(timing, loss),
        smallest_threshold: smallest.map(Threshold::get),
    })
}

/// The larger of the recent loss and of what all heartbeats of the route do not rule out.
fn assumed_loss(route: &RouteView) -> PacketLoss {
    let sent = route.heartbeats_sent.max(1) as f64;
    let not_ruled_out = (route.heartbeats_missed as f64 + UNSEEN_LOSSES) / sent;
    let assumed = |recent: f64| recent.max(not_ruled_out).min(1.0);
    PacketLoss { inbound: assumed(route.loss), outbound: assumed(route.loss_out) }
}
