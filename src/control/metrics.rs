//! `GET /metrics`: the node's figures in the Prometheus text format 0.0.4. Pure.
//!
//! Names follow the Prometheus conventions: base units (seconds, bytes), `_total` on everything
//! that only grows. Counters start at 0 with the daemon.

use std::fmt::{Display, Write};

use netft::{
    PeerId,
    failover::stall_histogram::{BOUNDS_MS, Stalls},
    route::{RouteState, RouteStatus},
};

use crate::daemon::node::{CounterSnapshot, PeerInfo, Snapshot};

/// The content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every figure of a snapshot.
pub fn render(snapshot: &Snapshot) -> String {
    let mut page = Page::default();
    let version = env!("CARGO_PKG_VERSION");
    page.family("netft_build_info", Type::Gauge, "Always 1; the version and the node's name.");
    page.sample("", &[("version", &version), ("node", &snapshot.node.name)], 1);
    page.one("netft_uptime_seconds", Type::Gauge, "Time since the start.", {
        snapshot.node.uptime.as_secs_f64()
    });
    page.one("netft_adapter_up", Type::Gauge, "1 if the adapter is up.", {
        u8::from(snapshot.adapter.up)
    });
    peers(&mut page, &snapshot.peers);
    routes(&mut page, snapshot);
    counters(&mut page, &snapshot.counters);
    stalls(&mut page, &snapshot.stalls);
    page.text
}

/// What a family counts.
#[derive(Clone, Copy)]
enum Type {
    Counter,
    Gauge,
    Histogram,
}

/// The page as far as it is written.
#[derive(Default)]
struct Page {
    text: String,
    /// The family begun last.
    family: &'static str,
}

impl Page {
    /// Begins a family of samples; they follow at once.
    fn family(&mut self, name: &'static str, kind: Type, help: &str) {
        let kind = match kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        };
        // Writing into a string cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        self.family = name;
    }

    /// A sample of the family begun last; `suffix` is of a histogram's parts.
    fn sample(&mut self, suffix: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        self.text += self.family;
        self.text += suffix;
        for (place, (label, text)) in labels.iter().enumerate() {
            let before = if place == 0 { "{" } else { "," };
            let _ = write!(self.text, "{before}{label}=\"{}\"", escape(&text.to_string()));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// A family of one sample without labels.
    fn one(&mut self, name: &'static str, kind: Type, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample("", &[], value);
    }
}

/// A label's value: backslash, quote and line feed are written out.
fn escape(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

fn peers(page: &mut Page, peers: &[PeerInfo]) {
    type Value = fn(&PeerInfo) -> u64;
    let families: [(&'static str, Type, &str, Value); 3] = [
        ("netft_peer_session", Type::Gauge, "1 if there is a session with the peer.", |peer| {
            u64::from(peer.status.session)
        }),
        ("netft_peer_reachable", Type::Gauge, "1 if a route to the peer is usable.", |peer| {
            u64::from(peer.status.reachable)
        }),
        ("netft_peer_failovers_total", Type::Counter, "Moves of data to another route.", |peer| {
            peer.status.failovers
        }),
    ];
    for (name, kind, help, value) in families {
        page.family(name, kind, help);
        for peer in peers {
            page.sample("", &[("peer", &peer.name)], value(peer));
        }
    }
}

fn routes(page: &mut Page, snapshot: &Snapshot) {
    let name = |id: PeerId| {
        let known = snapshot.peers.iter().find(|peer| peer.status.peer == id);
        known.map_or_else(|| format!("#{id}"), |peer| peer.name.clone())
    };
    let each = |page: &mut Page, value: &dyn Fn(&RouteStatus) -> Option<String>| {
        for route in &snapshot.routes {
            let Some(value) = value(route) else { continue };
            let (local, remote) = (route.spec.real_local, route.spec.real_remote);
            let peer = name(route.spec.peer);
            let labels: [(&str, &dyn Display); 4] =
                [("route", &route.id), ("peer", &peer), ("local", &local), ("remote", &remote)];
            page.sample("", &labels, value);
        }
    };
    page.family("netft_route_state", Type::Gauge, "1 for the state the route is in, else 0.");
    for route in &snapshot.routes {
        let peer = name(route.spec.peer);
        use RouteState::{AdminDown, Down, Init, Up};
        for state in [Up, Init, Down, AdminDown] {
            let labels: [(&str, &dyn Display); 3] =
                [("route", &route.id), ("peer", &peer), ("state", &state.name())];
            page.sample("", &labels, u8::from(route.state == state));
        }
    }
    page.family("netft_route_active", Type::Gauge, "1 if data to the peer goes out here.");
    each(page, &|route| Some(u8::from(route.active).to_string()));
    page.family("netft_route_suspect", Type::Gauge, "1 if data stays unacknowledged here.");
    each(page, &|route| Some(u8::from(route.suspect).to_string()));
    page.family("netft_route_rtt_seconds", Type::Gauge, "Smoothed round trip of heartbeats.");
    each(page, &|route| route.rtt.map(|rtt| rtt.as_secs_f64().to_string()));
    page.family("netft_route_loss_ratio", Type::Gauge, "Share of heartbeats lost lately, 0 to 1.");
    each(page, &|route| Some(route.loss.to_string()));
    page.family("netft_route_heartbeats_sent_total", Type::Counter, "Heartbeat requests sent.");
    each(page, &|route| Some(route.heartbeats_sent.to_string()));
    page.family("netft_route_heartbeats_missed_total", Type::Counter, "Heartbeats missed.");
    each(page, &|route| Some(route.heartbeats_missed.to_string()));
}

fn counters(page: &mut Page, counters: &CounterSnapshot) {
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
        ring_overflow,
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
        page.one(name, Type::Counter, help, value);
    }
    page.family("netft_dropped_packets_total", Type::Counter, "Packets dropped, by reason.");
    for (reason, count) in drops {
        page.sample("", &[("reason", &reason.name())], count);
    }
}

fn stalls(page: &mut Page, stalls: &Stalls) {
    let help = "How long data stood still at failovers.";
    page.family("netft_failover_stall_seconds", Type::Histogram, help);
    let mut below = 0;
    for (bound, count) in BOUNDS_MS.iter().zip(&stalls.buckets) {
        below += count;
        page.sample("_bucket", &[("le", &(*bound as f64 / 1000.0))], below);
    }
    page.sample("_bucket", &[("le", &"+Inf")], stalls.count());
    page.sample("_sum", &[], stalls.sum.as_secs_f64());
    page.sample("_count", &[], stalls.count());
}
