//! `GET /metrics`: the node's figures in the Prometheus text format or in OpenMetrics. Pure.
//!
//! Names follow the Prometheus conventions: base units (seconds, bytes), `_total` on everything
//! that only grows. Counters start at 0 with the daemon. Labels stay the same over restarts.

mod page;
mod process;
mod routes;

use std::fmt::Display;

use netft::{
    api::snapshot::{CounterSnapshot, PeerInfo, Snapshot},
    failover::{
        move_counts::MoveCause,
        stall_histogram::{BUCKET_BOUNDS_MS, StallHistogram},
    },
};

use super::{
    log_counts::LogCountsView,
    schema::{NameView, OwnershipView, VipList, VipView},
    verdict,
};

use self::page::{MetricKind, MetricsPage};
pub use self::{page::PageFormat, process::ProcessFigures};

/// Renders every figure of a snapshot, of the log, of the process and of the floating addresses.
pub fn render_page(
    snapshot: &Snapshot,
    log: LogCountsView,
    process: ProcessFigures,
    floating: &VipList,
    format: PageFormat,
) -> String {
    let mut page = MetricsPage::new(format);
    let version = env!("CARGO_PKG_VERSION");
    page.begin_family(
        "netft_build_info",
        MetricKind::Gauge,
        "Always 1; the version and the node's name.",
    );
    page.write_sample("", &[("version", &version), ("node", &snapshot.node.name)], 1);
    page.write_single_sample("netft_uptime_seconds", MetricKind::Gauge, "Time since the start.", {
        snapshot.node.uptime.as_secs_f64()
    });
    page.write_single_sample("netft_adapter_up", MetricKind::Gauge, "1 if the adapter is up.", {
        u8::from(snapshot.adapter.up)
    });
    write_peers(&mut page, snapshot);
    routes::write_routes(&mut page, snapshot);
    write_counters(&mut page, &snapshot.counters);
    write_stalls(&mut page, &snapshot.stalls);
    let lost = "Log lines that standard error refused or did not take in time.";
    page.write_single_sample(
        "netft_lost_log_lines_total",
        MetricKind::Counter,
        lost,
        log.lost_lines,
    );
    let limited = "Log lines and events left out as one cause produced too many.";
    page.write_single_sample(
        "netft_limited_log_lines_total",
        MetricKind::Counter,
        limited,
        log.limited_lines,
    );
    process.write_to(&mut page);
    write_vips(&mut page, &floating.vips);
    write_names(&mut page, &floating.names);
    let engine = |name: &str| floating.engines.iter().find(|engine| engine.engine == name);
    write_ownership(&mut page, engine("raft"));
    write_etcd(&mut page, engine("etcd"));
    page.finish()
}

fn write_vips(page: &mut MetricsPage, vips: &[VipView]) {
    if vips.is_empty() {
        return;
    }
    let help = "1 for the state of a floating address on this node.";
    page.begin_family("netft_vip_state", MetricKind::Gauge, help);
    for vip in vips {
        for state in ["unknown", "offline", "starting", "online", "failed"] {
            let labels: [(&str, &dyn Display); 2] = [("vip", &vip.name), ("state", &state)];
            page.write_sample("", &labels, u8::from(vip.state == state));
        }
    }
    let help = "Seconds since the lease of a floating address was renewed on this node.";
    page.begin_family("netft_vip_renewed_seconds", MetricKind::Gauge, help);
    for vip in vips {
        if let Some(since) = vip.lease.renewed_ms() {
            page.write_sample("", &[("vip", &vip.name)], since as f64 / 1000.0);
        }
    }
    let help = "Seconds until the lease of a floating address ends on this node.";
    page.begin_family("netft_vip_lease_seconds", MetricKind::Gauge, help);
    for vip in vips {
        if let Some(left) = vip.lease.lease_left_ms {
            page.write_sample("", &[("vip", &vip.name)], left as f64 / 1000.0);
        }
    }
    write_dhcp(page, vips);
}

fn write_names(page: &mut MetricsPage, names: &[NameView]) {
    if names.is_empty() {
        return;
    }
    let help = "1 for a name of floating addresses that this node answers for.";
    page.begin_family("netft_name_online", MetricKind::Gauge, help);
    for name in names {
        page.write_sample("", &[("name", &name.name)], u8::from(name.state == "online"));
    }
    let help = "1 for a record that the DNS server confirmed to this node.";
    page.begin_family("netft_name_registered", MetricKind::Gauge, help);
    for name in names {
        for record in name.records.iter().filter(|record| record.state != "unmanaged") {
            let labels: [(&str, &dyn Display); 2] =
                [("name", &name.name), ("address", &record.address)];
            page.write_sample("", &labels, u8::from(record.state == "registered"));
        }
    }
    let help = "Updates of a zone that failed one after the other.";
    page.begin_family("netft_name_failures", MetricKind::Gauge, help);
    for name in names {
        page.write_sample("", &[("name", &name.name)], name.failures);
    }
}

fn write_dhcp(page: &mut MetricsPage, vips: &[VipView]) {
    let leases = || vips.iter().filter_map(|vip| Some((&vip.name, vip.dhcp.as_ref()?)));
    if leases().next().is_none() {
        return;
    }
    let help = "Seconds until the DHCP lease of a floating address ends.";
    page.begin_family("netft_vip_dhcp_lease_seconds", MetricKind::Gauge, help);
    for (name, lease) in leases() {
        if let Some(left) = lease.expires_ms {
            page.write_sample("", &[("vip", name)], left as f64 / 1000.0);
        }
    }
    let help = "1 if a DHCP server assigned the floating address.";
    page.begin_family("netft_vip_dhcp_assigned", MetricKind::Gauge, help);
    for (name, lease) in leases() {
        page.write_sample("", &[("vip", name)], u8::from(lease.server.is_some()));
    }
    let help = "Messages of DHCP servers that were ignored.";
    page.begin_family("netft_vip_dhcp_ignored_total", MetricKind::Counter, help);
    for (name, lease) in leases() {
        for (reason, count) in &lease.ignored {
            let labels: [(&str, &dyn Display); 2] = [("vip", name), ("reason", reason)];
            page.write_sample("", &labels, *count);
        }
    }
}

fn write_etcd(page: &mut MetricsPage, engine: Option<&OwnershipView>) {
    let Some(engine) = engine else { return };
    let help = "1 if an etcd server answers that decides on floating addresses.";
    let answers = u64::from(engine.problem.is_none() && engine.answered_ms.is_some());
    page.write_single_sample("netft_etcd_answers", MetricKind::Gauge, help, answers);
    if let Some(since) = engine.answered_ms {
        let help = "Seconds since an etcd server answered.";
        let since = since as f64 / 1000.0;
        page.write_single_sample("netft_etcd_answered_seconds", MetricKind::Gauge, help, since);
    }
}

fn write_ownership(page: &mut MetricsPage, engine: Option<&OwnershipView>) {
    let Some(engine) = engine else { return };
    let gauges = [
        ("netft_ownership_term", "Term of the ownership engine.", engine.term),
        (
            "netft_ownership_leader",
            "1 if this node leads the ownership engine.",
            u64::from(engine.role == "leader"),
        ),
        (
            "netft_ownership_leader_known",
            "1 if this node knows the leader of the ownership engine.",
            u64::from(engine.leader.is_some()),
        ),
        (
            "netft_ownership_problem",
            "1 if this node does not vote though it should.",
            u64::from(engine.problem.is_some()),
        ),
    ];
    for (name, help, value) in gauges {
        page.write_single_sample(name, MetricKind::Gauge, help, value);
    }
    let help = "1 for a voter on the owners of floating addresses that this node reaches.";
    page.begin_family("netft_ownership_voter_reached", MetricKind::Gauge, help);
    for voter in &engine.voters {
        page.write_sample("", &[("voter", &voter.name)], u8::from(voter.reached));
    }
}

fn write_peers(page: &mut MetricsPage, snapshot: &Snapshot) {
    let peers = &snapshot.peers;
    let counts = peers.iter().map(|peer| verdict::count_peer_routes(snapshot, peer));
    let counts: Vec<_> = counts.collect();
    let help = "Routes to the peer that are up, not drained and not relayed.";
    page.begin_family("netft_peer_routes_up", MetricKind::Gauge, help);
    for (peer, count) in peers.iter().zip(&counts) {
        page.write_sample("", &[("peer", &peer.name)], count.up);
    }
    let help = "Routes to the peer, without relayed ones.";
    page.begin_family("netft_peer_routes", MetricKind::Gauge, help);
    for (peer, count) in peers.iter().zip(&counts) {
        page.write_sample("", &[("peer", &peer.name)], count.total);
    }
    type PeerValue = fn(&PeerInfo) -> u64;
    let families: [(&'static str, MetricKind, &str, PeerValue); 5] = [
        (
            "netft_peer_session",
            MetricKind::Gauge,
            "1 if there are keys of a session with the peer.",
            |peer| u64::from(peer.status.session),
        ),
        (
            "netft_peer_heard",
            MetricKind::Gauge,
            "1 if heartbeats of the peer arrive within a detection time.",
            |peer| u64::from(peer.status.heard),
        ),
        (
            "netft_peer_reachable",
            MetricKind::Gauge,
            "1 if a route to the peer is usable.",
            |peer| u64::from(peer.status.reachable),
        ),
        (
            "netft_peer_gone",
            MetricKind::Gauge,
            "1 if the peer has been silent on every route for failover.gone.",
            |peer| u64::from(peer.is_gone),
        ),
        (
            "netft_peer_failovers_total",
            MetricKind::Counter,
            "Failovers: moves of data away from a route that failed or carried badly.",
            |peer| peer.status.moves.failovers,
        ),
    ];
    for (name, kind, help, value) in families {
        page.begin_family(name, kind, help);
        for peer in peers {
            page.write_sample("", &[("peer", &peer.name)], value(peer));
        }
    }
    let help = "Moves of data to another route, by cause.";
    page.begin_family("netft_peer_moves_total", MetricKind::Counter, help);
    for peer in peers {
        for cause in MoveCause::ALL {
            let labels: [(&str, &dyn Display); 2] =
                [("peer", &peer.name), ("cause", &cause.as_str())];
            page.write_sample("", &labels, peer.status.moves.count_of(cause));
        }
    }
}

fn write_counters(page: &mut MetricsPage, counters: &CounterSnapshot) {
    for counter in counters.packet_counters() {
        let (name, help) = (counter.metric, counter.help);
        page.write_single_sample(name, MetricKind::Counter, help, counter.value);
    }
    page.begin_family(
        "netft_dropped_packets_total",
        MetricKind::Counter,
        "Packets dropped, by reason.",
    );
    for (reason, count) in &counters.drops {
        page.write_sample("", &[("reason", &reason.as_str())], count);
    }
}

fn write_stalls(page: &mut MetricsPage, stalls: &StallHistogram) {
    let help = "Duration of the data stalls at failovers.";
    page.begin_family("netft_failover_stall_seconds", MetricKind::Histogram, help);
    let mut below = 0;
    for (bound, count) in BUCKET_BOUNDS_MS.iter().zip(&stalls.buckets) {
        below += count;
        // OpenMetrics wants a decimal point in every bound.
        let seconds = format!("{:?}", *bound as f64 / 1000.0);
        page.write_sample("_bucket", &[("le", &seconds)], below);
    }
    page.write_sample("_bucket", &[("le", &"+Inf")], stalls.count());
    page.write_sample("_sum", &[], stalls.sum.as_secs_f64());
    page.write_sample("_count", &[], stalls.count());
}
