//! `GET /metrics`: the node's figures in the Prometheus text format 0.0.4. Pure.
//!
//! Names follow the Prometheus conventions: base units (seconds, bytes), `_total` on everything
//! that only grows. Counters start at 0 with the daemon.

use std::fmt::{Display, Write};

use netft::{
    PeerId,
    failover::stall_histogram::{BUCKET_BOUNDS_MS, StallHistogram},
    route::{RouteState, RouteStatus},
};

use crate::daemon::node::{CounterSnapshot, PeerInfo, Snapshot};

/// The content type of [`render_metrics`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every figure of a snapshot.
pub fn render_metrics(snapshot: &Snapshot) -> String {
    let mut page = MetricsPage::default();
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
    write_peers(&mut page, &snapshot.peers);
    write_routes(&mut page, snapshot);
    write_counters(&mut page, &snapshot.counters);
    write_stalls(&mut page, &snapshot.stalls);
    page.text
}

/// What a family counts.
#[derive(Clone, Copy)]
enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// The page as far as it is written.
#[derive(Default)]
struct MetricsPage {
    text: String,
    /// The family begun last.
    family: &'static str,
}

impl MetricsPage {
    /// Begins a family of samples; they follow at once.
    fn begin_family(&mut self, name: &'static str, kind: MetricKind, help: &str) {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        // Writing into a string cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        self.family = name;
    }

    /// A sample of the family begun last; `suffix` is of a histogram's parts.
    fn write_sample(&mut self, suffix: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        self.text += self.family;
        self.text += suffix;
        for (place, (label, text)) in labels.iter().enumerate() {
            let before = if place == 0 { "{" } else { "," };
            let _ = write!(self.text, "{before}{label}=\"{}\"", escape_label(&text.to_string()));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// A family of one sample without labels.
    fn write_single_sample(
        &mut self,
        name: &'static str,
        kind: MetricKind,
        help: &str,
        value: impl Display,
    ) {
        self.begin_family(name, kind, help);
        self.write_sample("", &[], value);
    }
}

/// A label's value: backslash, quote and line feed are written out.
fn escape_label(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

fn write_peers(page: &mut MetricsPage, peers: &[PeerInfo]) {
    type PeerValue = fn(&PeerInfo) -> u64;
    let families: [(&'static str, MetricKind, &str, PeerValue); 3] = [
        (
            "netft_peer_session",
            MetricKind::Gauge,
            "1 if there is a session with the peer.",
            |peer| u64::from(peer.status.session),
        ),
        (
            "netft_peer_reachable",
            MetricKind::Gauge,
            "1 if a route to the peer is usable.",
            |peer| u64::from(peer.status.reachable),
        ),
        (
            "netft_peer_failovers_total",
            MetricKind::Counter,
            "Moves of data to another route.",
            |peer| peer.status.failovers,
        ),
    ];
    for (name, kind, help, value) in families {
        page.begin_family(name, kind, help);
        for peer in peers {
            page.write_sample("", &[("peer", &peer.name)], value(peer));
        }
    }
}

fn write_routes(page: &mut MetricsPage, snapshot: &Snapshot) {
    let name = |id: PeerId| {
        let known = snapshot.peers.iter().find(|peer| peer.status.peer == id);
        known.map_or_else(|| format!("#{id}"), |peer| peer.name.clone())
    };
    let each = |page: &mut MetricsPage, value: &dyn Fn(&RouteStatus) -> Option<String>| {
        for route in &snapshot.routes {
            let Some(value) = value(route) else { continue };
            let (local, remote) = (route.spec.real_local, route.spec.real_remote);
            let peer = name(route.spec.peer);
            let labels: [(&str, &dyn Display); 4] =
                [("route", &route.id), ("peer", &peer), ("local", &local), ("remote", &remote)];
            page.write_sample("", &labels, value);
        }
    };
    page.begin_family(
        "netft_route_state",
        MetricKind::Gauge,
        "1 for the state the route is in, else 0.",
    );
    for route in &snapshot.routes {
        let peer = name(route.spec.peer);
        use RouteState::{AdminDown, Down, Init, Up};
        for state in [Up, Init, Down, AdminDown] {
            let labels: [(&str, &dyn Display); 3] =
                [("route", &route.id), ("peer", &peer), ("state", &state.as_str())];
            page.write_sample("", &labels, u8::from(route.state == state));
        }
    }
    page.begin_family(
        "netft_route_active",
        MetricKind::Gauge,
        "1 if data to the peer goes out here.",
    );
    each(page, &|route| Some(u8::from(route.active).to_string()));
    page.begin_family(
        "netft_route_suspect",
        MetricKind::Gauge,
        "1 if data stays unacknowledged here.",
    );
    each(page, &|route| Some(u8::from(route.suspect).to_string()));
    page.begin_family(
        "netft_route_rtt_seconds",
        MetricKind::Gauge,
        "Smoothed round trip of heartbeats.",
    );
    each(page, &|route| route.rtt.map(|rtt| rtt.as_secs_f64().to_string()));
    page.begin_family(
        "netft_route_loss_ratio",
        MetricKind::Gauge,
        "Share of heartbeats lost lately, 0 to 1.",
    );
    each(page, &|route| Some(route.loss.to_string()));
    page.begin_family(
        "netft_route_heartbeats_sent_total",
        MetricKind::Counter,
        "Heartbeat requests sent.",
    );
    each(page, &|route| Some(route.heartbeats_sent.to_string()));
    page.begin_family(
        "netft_route_heartbeats_missed_total",
        MetricKind::Counter,
        "Heartbeats missed.",
    );
    each(page, &|route| Some(route.heartbeats_missed.to_string()));
}

fn write_counters(page: &mut MetricsPage, counters: &CounterSnapshot) {
    // Taken apart, so that a counter cannot be forgotten here.
    let CounterSnapshot {
        adapter_reads,
        tx_bytes,
        tx_frames,
        rx_frames,
        rx_bytes,
        adapter_writes,
        socket_overflow,
        resent_frames,
        duplicated_frames,
        acks_sent,
        retransmit_overflow: ring_overflow,
        relayed_frames,
        challenges_sent,
        drops,
    } = counters;
    for (name, help, value) in [
        ("netft_adapter_reads_total", "Inner packets taken from the adapter.", adapter_reads),
        ("netft_adapter_writes_total", "Packets written to the adapter.", adapter_writes),
        ("netft_sent_bytes_total", "Inner bytes taken from the adapter.", tx_bytes),
        ("netft_received_bytes_total", "Inner bytes written to the adapter.", rx_bytes),
        ("netft_sent_frames_total", "Frames sent.", tx_frames),
        ("netft_received_frames_total", "Authentic frames received.", rx_frames),
        (
            "netft_socket_overflow_datagrams_total",
            "Datagrams the kernel dropped because a socket's buffer was full.",
            socket_overflow,
        ),
        ("netft_resent_frames_total", "Frames sent again on another route.", resent_frames),
        (
            "netft_duplicated_frames_total",
            "Frames sent on a second route while the first was suspect.",
            duplicated_frames,
        ),
        ("netft_lost_frames_total", "Frames forgotten unacknowledged.", ring_overflow),
        ("netft_relayed_frames_total", "Datagrams of others passed on.", relayed_frames),
        (
            "netft_challenges_sent_total",
            "Challenges to addresses no route leads to.",
            challenges_sent,
        ),
        ("netft_acknowledgements_sent_total", "Acknowledgements sent.", acks_sent),
    ] {
        page.write_single_sample(name, MetricKind::Counter, help, value);
    }
    page.begin_family(
        "netft_dropped_packets_total",
        MetricKind::Counter,
        "Packets dropped, by reason.",
    );
    for (reason, count) in drops {
        page.write_sample("", &[("reason", &reason.as_str())], count);
    }
}

fn write_stalls(page: &mut MetricsPage, stalls: &StallHistogram) {
    let help = "How long data stood still at failovers.";
    page.begin_family("netft_failover_stall_seconds", MetricKind::Histogram, help);
    let mut below = 0;
    for (bound, count) in BUCKET_BOUNDS_MS.iter().zip(&stalls.buckets) {
        below += count;
        page.write_sample("_bucket", &[("le", &(*bound as f64 / 1000.0))], below);
    }
    page.write_sample("_bucket", &[("le", &"+Inf")], stalls.count());
    page.write_sample("_sum", &[], stalls.sum.as_secs_f64());
    page.write_sample("_count", &[], stalls.count());
}
