//! What each reading command shows, from the JSON it got. Pure.

use std::{fmt::Write, time::Duration};

use netft::route::Attributes;

use super::{
    table::{Align, Table},
    text::{bytes, escape, millis, percent, span, yes},
};
use crate::control::{
    cause::StallSummary,
    schema::{Class, DrainAnswer, Peer, Peers, Reload, Route, Routes, Status},
};

/// `netft status`.
pub fn status(status: &Status) -> String {
    let Status { node, adapter, peers, routes, counters, .. } = status;
    let mut out = String::new();
    let up = if adapter.up { "up" } else { "down" };
    let rows = [
        ("node", escape(&node.name)),
        ("key", escape(&node.key)),
        ("version", escape(&status.version)),
        ("uptime", span(Duration::from_millis(node.uptime_ms))),
        (
            "adapter",
            format!(
                "{} (index {}) {up}, {}, {}, mtu {}, {}",
                escape(&adapter.name),
                adapter.ifindex,
                adapter.v4,
                adapter.v6,
                adapter.mtu,
                escape(&adapter.backend)
            ),
        ),
        (
            "peers",
            format!(
                "{} configured, {} with a session, {} reachable",
                peers.configured, peers.sessions, peers.reachable
            ),
        ),
        ("routes", format!("{}, {} up", routes.total, routes.up)),
        ("failovers", status.failovers.to_string()),
        ("stalls", stalls(&status.stalls)),
        (
            "sent",
            format!(
                "{} in {} adapter reads, {} frames",
                bytes(counters.tx_bytes),
                counters.adapter_reads,
                counters.tx_frames
            ),
        ),
        (
            "received",
            format!(
                "{} in {} adapter writes, {} frames",
                bytes(counters.rx_bytes),
                counters.adapter_writes,
                counters.rx_frames
            ),
        ),
        (
            "resent",
            format!(
                "{} frames, {} duplicated, {} forgotten",
                counters.resent_frames, counters.duplicated_frames, counters.ring_overflow
            ),
        ),
        ("overflow", format!("{} datagrams", counters.socket_overflow)),
    ];
    for (name, value) in rows {
        let _ = writeln!(out, "{name:<10}{value}");
    }
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

/// How long data stood still at failovers, in one line.
fn stalls(stalls: &StallSummary) -> String {
    let (Some(p50), Some(p99)) = (stalls.p50_us, stalls.p99_us) else {
        return "none".to_owned();
    };
    let [p50, p99, max] = [p50, p99, stalls.max_us].map(millis);
    format!("{}, half at most {p50}, 99 % at most {p99}, longest {max}", stalls.count)
}

/// `netft routes`. The route that carries data is marked `*`.
pub fn routes(routes: &Routes) -> String {
    use Align::{Left, Right};
    if routes.routes.is_empty() {
        return "no routes\n".to_owned();
    }
    // Only where there is more than NetFT's one carrier.
    let carriers = routes.routes.iter().any(|route| route.carrier != "udp");
    let mut columns = vec![
        ("", Left),
        ("id", Right),
        ("peer", Left),
        ("real_local", Left),
        ("real_remote", Left),
        ("state", Left),
        ("tx", Left),
        ("rx", Left),
        ("delay", Right),
        ("threshold", Right),
        ("priority", Right),
        ("attributes", Left),
        ("rtt", Right),
        ("loss", Right),
    ];
    if carriers {
        columns.push(("carrier", Left));
    }
    let mut table = Table::new(&columns);
    for route in &routes.routes {
        let mut row = vec![
            if route.active { "*" } else { "" }.to_owned(),
            route.id.to_string(),
            escape(&route.peer),
            if route.via.is_none() { route.real_local.to_string() } else { "-".to_owned() },
            match &route.via {
                None => route.real_remote.to_string(),
                Some(via) => format!("via {}", escape(via)),
            },
            state(route),
            yes(route.tx).to_owned(),
            yes(route.rx).to_owned(),
            format!("{} ms", route.delay_ms),
            route.threshold.to_string(),
            route.priority.to_string(),
            Attributes(route.attributes).to_string(),
            rtt(route),
            percent(route.loss.max(route.loss_out)),
        ];
        if carriers {
            row.push(escape(&route.carrier));
        }
        table.row(row);
    }
    table.render()
}

/// `netft route show`: one field a line.
pub fn route(route: &Route) -> String {
    let detection = u64::from(route.delay_ms) * u64::from(route.threshold);
    let rows = [
        ("id", route.id.to_string()),
        ("peer", escape(&route.peer)),
        ("real_local", route.real_local.to_string()),
        ("real_remote", route.real_remote.to_string()),
        ("virtual_local", route.virtual_local.to_string()),
        ("virtual_remote", route.virtual_remote.to_string()),
        ("delay", format!("{} ms", route.delay_ms)),
        ("threshold", format!("{} (detection time {detection} ms)", route.threshold)),
        ("priority", route.priority.to_string()),
        ("attributes", format!("{} ({})", route.attributes, Attributes(route.attributes))),
        ("carrier", escape(&route.carrier)),
        ("state", escape(&route.state)),
        ("drain", drain(route)),
        ("suspect", yes(route.suspect).to_owned()),
        ("hold", hold(route)),
        ("tx", yes(route.tx).to_owned()),
        ("rx", yes(route.rx).to_owned()),
        ("active", yes(route.active).to_owned()),
        ("via", route.via.as_deref().map_or_else(|| "-".to_owned(), escape)),
        ("path_mtu", route.path_mtu.map_or_else(|| "-".to_owned(), |mtu| mtu.to_string())),
        ("rtt", rtt(route)),
        ("jitter", route.jitter_us.map_or_else(|| "-".to_owned(), millis)),
        ("loss", format!("{} in, {} out", percent(route.loss), percent(route.loss_out))),
        ("heartbeats_sent", route.heartbeats_sent.to_string()),
        ("heartbeats_missed", route.heartbeats_missed.to_string()),
        ("last_change", escape(&route.last_change)),
        ("reason", escape(&route.reason)),
        ("sent", format!("{} in {} data frames", bytes(route.tx_bytes), route.tx_frames)),
    ];
    rows.map(|(name, value)| format!("{name:<19}{value}\n")).concat()
}

/// The state in a word; of a route that is up, what keeps data away or doubts it.
fn state(route: &Route) -> String {
    match &route.drain {
        _ if route.state != "up" => escape(&route.state),
        _ if route.suspect => "suspect".to_owned(),
        Some(drain) => escape(drain),
        None if route.brown_out => "brown-out".to_owned(),
        None if route.hold_ms > 0 => format!("held {}", held(route)),
        None => escape(&route.state),
    }
}

fn held(route: &Route) -> String {
    // A hold of less than a second is not over.
    span(Duration::from_secs(route.hold_ms.div_ceil(1000)))
}

fn hold(route: &Route) -> String {
    let flaps = match route.flaps {
        1 => "1 flap".to_owned(),
        flaps => format!("{flaps} flaps"),
    };
    if route.hold_ms > 0 { format!("{} ({flaps})", held(route)) } else { format!("- ({flaps})") }
}

fn drain(route: &Route) -> String {
    match (&route.drain, &route.drain_by) {
        (Some(stage), Some(by)) => format!("{}, by {}", escape(stage), escape(by)),
        _ => "-".to_owned(),
    }
}

/// `netft drain` and its kin: one line per route.
pub fn drained(answer: &DrainAnswer) -> String {
    let line = |route: &Route| {
        let stage = route.drain.as_deref().unwrap_or("in use");
        format!("route {} to {}: {}\n", route.id, escape(&route.peer), escape(stage))
    };
    answer.routes.iter().map(line).collect()
}

fn rtt(route: &Route) -> String {
    route.rtt_us.map_or_else(|| "-".to_owned(), millis)
}

/// `netft peers`. `+2` behind a policy: two classes have their own, see `netft peer show`.
pub fn peers(peers: &Peers) -> String {
    use Align::{Left, Right};
    if peers.peers.is_empty() {
        return "no peers\n".to_owned();
    }
    let mut table = Table::new(&[
        ("name", Left),
        ("v4", Left),
        ("v6", Left),
        ("addresses", Left),
        ("session", Left),
        ("reachable", Left),
        ("active", Right),
        ("failovers", Right),
        ("adapter", Left),
        ("policy", Left),
    ]);
    for peer in &peers.peers {
        let more = peer.classes.len();
        let policy = escape(&peer.policy);
        table.row(vec![
            escape(&peer.name),
            peer.v4.to_string(),
            peer.v6.to_string(),
            addresses(peer),
            yes(peer.session).to_owned(),
            yes(peer.reachable).to_owned(),
            active(peer),
            peer.failovers.to_string(),
            adapter(peer).to_owned(),
            if more == 0 { policy } else { format!("{policy} +{more}") },
        ]);
    }
    table.render()
}

/// `netft reload`.
pub fn reload(reload: &Reload) -> String {
    if reload.changes.is_empty() {
        return "nothing changes\n".to_owned();
    }
    reload.changes.iter().map(|line| format!("{}\n", escape(line))).collect()
}

/// `netft peer show`: one field a line, then one class a line.
pub fn peer(peer: &Peer) -> String {
    let rows = [
        ("name", escape(&peer.name)),
        ("key", escape(&peer.key)),
        ("v4", peer.v4.to_string()),
        ("v6", peer.v6.to_string()),
        ("addresses", addresses(peer)),
        ("session", yes(peer.session).to_owned()),
        ("reachable", yes(peer.reachable).to_owned()),
        ("active", active(peer)),
        ("failovers", peer.failovers.to_string()),
        ("adapter", adapter(peer).to_owned()),
        ("policy", escape(&peer.policy)),
    ];
    let classes = peer.classes.iter().map(|class| ("class", class_text(class)));
    let line = |(name, value)| format!("{name:<11}{value}\n");
    rows.into_iter().chain(classes).map(line).collect()
}

/// A class as `netft peer set --class` takes it.
fn class_text(class: &Class) -> String {
    let Class { policy, dscp, protocol, port, min_size, max_size } = class;
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

fn adapter(peer: &Peer) -> &'static str {
    match peer.adapter_up {
        Some(true) => "up",
        Some(false) => "down",
        None => "-",
    }
}

fn active(peer: &Peer) -> String {
    peer.active.map_or_else(|| "-".to_owned(), |route| route.to_string())
}

fn addresses(peer: &Peer) -> String {
    peer.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
