//! Output of the read commands, from their JSON answers. Pure.

use std::{fmt::Write, net::IpAddr, time::Duration};

use netft::{
    api::session::WireVersions,
    route::{Attributes, DrainStage, RouteState},
};

use super::{
    style::{OutputStyle, TextTone},
    vips::{engine_summary, problem_text},
};
use crate::{
    control::{
        cause::StallSummary,
        overrides::override_text,
        schema::{
            AdapterStatus, DaemonStatus, DrainResponse, MoveCountsView, OverrideView, PeerView,
            ReloadResult, RouteView, SessionState, TrafficClassSpec, VipCounts,
        },
        verdict::{RedundancyState, RedundancyVerdict},
        words::Word,
    },
    text::{escape, format_bytes, format_duration, format_millis, format_percent, yes_or_no},
};

/// The floating addresses, and who decides on their owners; `None` without either.
fn floating_text(status: &DaemonStatus) -> Option<String> {
    let VipCounts { total, online, failed } = status.vips;
    if total == 0 && status.engines.is_empty() {
        return None;
    }
    let mut text = format!("{total} addresses, {online} online here, {failed} failed");
    for engine in &status.engines {
        let parts = [Some(engine_summary(engine)), problem_text(engine)];
        for part in parts.into_iter().flatten() {
            text = format!("{text}; {part}");
        }
    }
    let names = match status.names.iter().find_map(|name| name.error.as_ref()) {
        Some(error) => format!("; names not registered: {}", escape(error)),
        None if status.names.is_empty() => String::new(),
        None => format!("; {} names in DNS", status.names.len()),
    };
    Some(text + &names)
}

/// `netft status`: the verdict first.
pub fn status_text(status: &DaemonStatus, style: &OutputStyle) -> String {
    let DaemonStatus { node, adapter, peers, routes, counters, .. } = status;
    let mut out = verdict_text(&status.verdict, style);
    out.push('\n');
    let up = if adapter.up { "up" } else { "down" };
    let rows = [
        ("node", escape(&node.name)),
        ("key", escape(&node.key)),
        ("version", escape(&status.version)),
        ("uptime", format_duration(Duration::from_millis(node.uptime_ms))),
        (
            "adapter",
            format!(
                "{} (index {}) {up}, {}, mtu {}, queue {}, {}{}",
                escape(&adapter.name),
                adapter.ifindex,
                adapter_addresses_text(adapter),
                adapter.mtu,
                adapter.queue_len.unwrap_or(0),
                adapter.backend.word(),
                if adapter.tunnel_offload { ", UDP tunnels too" } else { "" }
            ),
        ),
        (
            "peers",
            format!(
                "{} configured, {} with a session{}, {} reachable{}",
                peers.configured,
                peers.sessions,
                match peers.silent {
                    0 => String::new(),
                    silent => format!(" ({silent} silent)"),
                },
                peers.reachable,
                match peers.unanswered {
                    0 => String::new(),
                    unanswered => format!(" ({unanswered} without an answer through the adapter)"),
                }
            ),
        ),
        ("routes", format!("{}, {} up", routes.total, routes.up)),
        ("failovers", moves_text(status.failovers, status.moves)),
        ("stalls", stalls_text(&status.stalls)),
        (
            "sent",
            format!(
                "{} in {} adapter reads, {} frames",
                format_bytes(counters.tx_bytes),
                counters.adapter_reads,
                counters.tx_frames
            ),
        ),
        (
            "received",
            format!(
                "{} in {} adapter writes, {} frames",
                format_bytes(counters.rx_bytes),
                counters.adapter_writes,
                counters.rx_frames
            ),
        ),
        (
            "resent",
            format!(
                "{} frames, {} duplicated, {} lost",
                counters.resent_frames, counters.duplicated_frames, counters.retransmit_overflow
            ),
        ),
        ("overflow", format!("{} datagrams", counters.socket_overflow)),
    ];
    for (name, value) in rows {
        let _ = writeln!(out, "{name:<10}{value}");
    }
    if let Some(value) = floating_text(status) {
        let _ = writeln!(out, "{:<10}{value}", "floating");
    }
    out += &overrides_text(&status.overrides, status.overrides_unsaved.as_deref(), style);
    let drops: Vec<_> = counters.drops.iter().filter(|(_, count)| **count > 0).collect();
    if drops.is_empty() {
        out += "drops     none\n";
    }
    for (index, (reason, count)) in drops.into_iter().enumerate() {
        let name = if index == 0 { "drops" } else { "" };
        let _ = writeln!(out, "{name:<10}{count} {}", escape(reason));
    }
    out
}

/// An operator's overrides, one a line; nothing where there is none.
fn overrides_text(
    overrides: &[OverrideView],
    unsaved: Option<&str>,
    style: &OutputStyle,
) -> String {
    let line = |(place, order): (usize, &OverrideView)| {
        let until = order.until.as_ref().map(|at| style.local_time(at));
        let order = OverrideView { until, ..order.clone() };
        let name = if place == 0 { "overrides" } else { "" };
        format!("{name:<10}{}\n", escape(&override_text(&order)))
    };
    let lines: String = overrides.iter().enumerate().map(line).collect();
    let unsaved =
        unsaved.map(|reason| format!("{:<10}until netftd stops only: {}\n", "", escape(reason)));
    lines + &unsaved.unwrap_or_default()
}

/// The verdict on a node, and its reasons.
fn verdict_text(verdict: &RedundancyVerdict, style: &OutputStyle) -> String {
    let (tone, meaning) = match verdict.state {
        RedundancyState::Redundant => {
            (TextTone::Good, "every peer has at least two routes that are up")
        }
        RedundancyState::Degraded => (TextTone::Warning, "every peer is reachable"),
        RedundancyState::CutOff => (TextTone::Bad, "not every peer is reachable"),
    };
    let mut out = format!("{}: {meaning}\n", style.paint_text(verdict.state.as_str(), tone));
    for reason in &verdict.reasons {
        let _ = writeln!(out, "  {}", escape(reason));
    }
    out
}

/// The adapter's two addresses, and those that it should not have.
fn adapter_addresses_text(adapter: &AdapterStatus) -> String {
    let own: [IpAddr; 2] = [adapter.v4.into(), adapter.v6.into()];
    let present = |text: &String| text.split('/').next().and_then(|addr| addr.parse().ok());
    let has = |addr: &IpAddr| adapter.addresses.iter().any(|text| present(text) == Some(*addr));
    let own_texts = own.iter().map(|addr| match has(addr) {
        true => addr.to_string(),
        false => format!("{addr} (missing)"),
    });
    let is_own = |text: &&String| present(text).is_some_and(|addr| own.contains(&addr));
    let foreign = adapter.addresses.iter().filter(|text| !is_own(text));
    let foreign = foreign.map(|text| format!("{} (foreign)", escape(text)));
    own_texts.chain(foreign).collect::<Vec<_>>().join(", ")
}

/// Failovers, and the other moves where there were any.
fn moves_text(failovers: u64, moves: MoveCountsView) -> String {
    let MoveCountsView { failback, drain, start_up, .. } = moves;
    let others = [(failback, "failback"), (drain, "drain"), (start_up, "start-up")];
    let named = |(count, name): (u64, &str)| format!("{count} {name}{}", plural_ending(count));
    let others: Vec<_> = others.into_iter().filter(|it| it.0 > 0).map(named).collect();
    match others.is_empty() {
        true => failovers.to_string(),
        false => format!("{failovers}; other moves: {}", others.join(", ")),
    }
}

const fn plural_ending(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Stalls of data at failovers, in one line.
fn stalls_text(stalls: &StallSummary) -> String {
    let (Some(p50), Some(p99)) = (stalls.p50_us, stalls.p99_us) else {
        return "none".to_owned();
    };
    let [p50, p99, max] = [p50, p99, stalls.max_us].map(format_millis);
    format!("{}, p50 {p50}, p99 {p99}, max {max}", stalls.count)
}

/// `netft route show`: one field a line.
pub fn route_text(route: &RouteView, style: &OutputStyle) -> String {
    let detection = u64::from(route.delay_ms) * u64::from(route.threshold);
    let rows = [
        ("id", route.id.to_string()),
        ("peer", escape(&route.peer)),
        ("real_local", route.real_local.to_string()),
        ("real_remote", route.real_remote.to_string()),
        ("interface", optional_text(route.interface.as_deref())),
        ("network", optional_text(route.network.as_deref())),
        ("virtual_local", route.virtual_local.to_string()),
        ("virtual_remote", route.virtual_remote.to_string()),
        ("delay", format!("{} ms", route.delay_ms)),
        ("threshold", format!("{} (detection time {detection} ms)", route.threshold)),
        ("priority", route.priority.to_string()),
        ("attributes", format!("{} ({})", route.attributes, Attributes(route.attributes))),
        ("transport", route.transport.to_string()),
        ("state", route.state.to_string()),
        ("drain", drain_text(route)),
        ("suspect", yes_or_no(route.suspect).to_owned()),
        ("hold", hold_text(route)),
        ("tx", yes_or_no(route.tx).to_owned()),
        ("rx", yes_or_no(route.rx).to_owned()),
        ("active", yes_or_no(route.active).to_owned()),
        ("via", optional_text(route.via.as_deref())),
        ("path_mtu", route.path_mtu.map_or_else(|| "-".to_owned(), |mtu| mtu.to_string())),
        ("sends", if route.plain_sends { "one by one" } else { "segmented" }.to_owned()),
        ("rtt", rtt_text(route)),
        ("jitter", route.jitter_us.map_or_else(|| "-".to_owned(), format_millis)),
        (
            "loss",
            format!("{} in, {} out", format_percent(route.loss), format_percent(route.loss_out)),
        ),
        ("data_loss", format_percent(route.data_loss)),
        ("heartbeats_sent", route.heartbeats_sent.to_string()),
        ("heartbeats_missed", route.heartbeats_missed.to_string()),
        ("last_change", style.local_time(&route.last_change)),
        ("reason", escape(&route.reason)),
        ("sent", format!("{} in {} data frames", format_bytes(route.tx_bytes), route.tx_frames)),
        (
            "received",
            format!("{} in {} data frames", format_bytes(route.rx_bytes), route.rx_frames),
        ),
    ];
    rows.map(|(name, value)| format!("{name:<19}{value}\n")).concat()
}

/// A text that may be missing.
pub(super) fn optional_text(text: Option<&str>) -> String {
    text.map_or_else(|| "-".to_owned(), escape)
}

/// State of a route; for a route that is up, the condition that keeps data off it.
pub(super) fn state_text(route: &RouteView) -> String {
    match route.drain {
        _ if route.state != RouteState::Up => route.state.to_string(),
        _ if route.suspect => "suspect".to_owned(),
        Some(drain) => drain.as_str().to_owned(),
        None if route.brown_out => "brown-out".to_owned(),
        None if route.hold_ms > 0 => format!("held {}", remaining_hold_text(route)),
        None => route.state.to_string(),
    }
}

fn remaining_hold_text(route: &RouteView) -> String {
    // Rounded up: a hold of less than a second is not over.
    format_duration(Duration::from_secs(route.hold_ms.div_ceil(1000)))
}

fn hold_text(route: &RouteView) -> String {
    let flaps = format!("{} flap{}", route.flaps, plural_ending(route.flaps.into()));
    if route.hold_ms > 0 {
        format!("{} ({flaps})", remaining_hold_text(route))
    } else {
        format!("- ({flaps})")
    }
}

fn drain_text(route: &RouteView) -> String {
    match (route.drain, route.drain_by) {
        (Some(stage), Some(by)) => format!("{}, by {}", stage.as_str(), by.as_str()),
        _ => "-".to_owned(),
    }
}

/// `netft drain` and its kin: one line per route.
pub fn drain_response_text(answer: &DrainResponse) -> String {
    let line = |route: &RouteView| {
        let stage = route.drain.map_or("in use", DrainStage::as_str);
        format!("route {} to {}: {}\n", route.id, escape(&route.peer), stage)
    };
    answer.routes.iter().map(line).collect()
}

pub(super) fn rtt_text(route: &RouteView) -> String {
    route.rtt_us.map_or_else(|| "-".to_owned(), format_millis)
}

pub(super) fn session_state_text(peer: &PeerView) -> &'static str {
    match peer.session_state {
        SessionState::Up => "yes",
        SessionState::Silent => "silent",
        SessionState::None => yes_or_no(peer.session),
    }
}

pub(super) fn session_text(peer: &PeerView) -> String {
    let state = session_state_text(peer);
    match &peer.session_reason {
        Some(reason) => format!("{state}: {}", escape(reason)),
        None => state.to_owned(),
    }
}

/// Usable, not at the moment, or gone.
pub(super) const fn reachability_text(peer: &PeerView) -> &'static str {
    if peer.gone { "gone" } else { yes_or_no(peer.reachable) }
}

/// `netft reload`.
pub fn reload_text(reload: &ReloadResult) -> String {
    let mut out: String = reload.changes.iter().map(|line| format!("{}\n", escape(line))).collect();
    if reload.changes.is_empty() {
        out += "no changes\n";
    }
    for one in &reload.overrides {
        let _ = writeln!(out, "= set beside the file: {}", escape(&override_text(one)));
    }
    out
}

/// `netft peer show`: one field a line, then one class a line.
pub fn peer_text(peer: &PeerView) -> String {
    let rows = [
        ("name", escape(&peer.name)),
        ("key", escape(&peer.key)),
        ("v4", peer.v4.to_string()),
        ("v6", peer.v6.to_string()),
        ("addresses", addresses_text(peer)),
        ("session", session_text(peer)),
        ("routes", format!("{} up of {}", peer.routes_up, peer.routes_total)),
        ("reachable", reachability_text(peer).to_owned()),
        ("active", active_route_text(peer)),
        ("failovers", moves_text(peer.failovers, peer.moves)),
        (
            "adapter",
            match &peer.overlay_problem {
                Some(problem) => format!("{}: {}", adapter_state_text(peer), escape(problem)),
                None => adapter_state_text(peer).to_owned(),
            },
        ),
        ("version", version_text(peer)),
        ("policy", escape(&peer.policy)),
    ];
    let partner = peer.partner_state.as_ref().map(|state| ("partner", escape(state)));
    let classes = peer.classes.iter().map(|class| ("class", class_text(class)));
    let line = |(name, value)| format!("{name:<11}{value}\n");
    rows.into_iter().chain(partner).chain(classes).map(line).collect()
}

fn version_text(peer: &PeerView) -> String {
    match (peer.release.as_deref(), peer.wire_versions) {
        (None, _) => "-".to_owned(),
        (Some(release), None) => escape(release),
        (Some(release), Some(wire)) => format!("{}, wire {}", escape(release), wire_text(wire)),
    }
}

/// The wire versions of a node.
pub(super) fn wire_text([lowest, highest]: [u8; 2]) -> String {
    WireVersions { lowest, highest }.to_string()
}

/// A class as `netft peer set --class` takes it.
fn class_text(class: &TrafficClassSpec) -> String {
    let TrafficClassSpec { policy, dscp, protocol, port, min_size, max_size } = class;
    let given = [
        Some(("policy", escape(policy))),
        dscp.map(|dscp| ("dscp", dscp.to_string())),
        protocol.as_deref().map(|protocol| ("protocol", escape(protocol))),
        port.as_deref().map(|port| ("port", escape(port))),
        min_size.map(|size| ("min_size", size.to_string())),
        max_size.map(|size| ("max_size", size.to_string())),
    ];
    let pairs = given.into_iter().flatten().map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(",")
}

pub(super) fn adapter_state_text(peer: &PeerView) -> &'static str {
    match peer.adapter_up {
        Some(true) => "up",
        Some(false) => "down",
        None => "-",
    }
}

pub(super) fn active_route_text(peer: &PeerView) -> String {
    peer.active.map_or_else(|| "-".to_owned(), |route| route.to_string())
}

pub(super) fn addresses_text(peer: &PeerView) -> String {
    peer.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
