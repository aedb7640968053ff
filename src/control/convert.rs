//! The library's values → [`schema`](super::schema). Pure.

use std::{collections::BTreeSet, time::Duration};

use netft::{
    PeerId,
    api::{
        drill::{AbortCause, DrillOutcome, DrillReport},
        snapshot::{PeerInfo, Snapshot},
    },
    failover::move_counts::MoveCounts,
    route::{DrainStatus, EventKind, RouteSpec, RouteState, RouteStatus},
};

use super::{
    cause,
    local_interface::find_local_interface,
    log_counts::LogCountsView,
    overrides, policies,
    schema::{
        AdapterStatus, DaemonStatus, DrainedBy, EventDetail, MoveCountsView, NodeStatus,
        PeerCounts, PeerList, PeerView, RouteCounts, RouteFields, RouteList, RouteView,
        SessionState, VipCounts,
    },
    verdict,
};
use crate::clock::WallClock;

/// Names of the peers by id.
#[derive(Clone, Debug, Default)]
pub struct PeerNames(Vec<String>);

impl PeerNames {
    /// `names[i]` is the name of peer `i`.
    pub const fn new(names: Vec<String>) -> Self {
        Self(names)
    }

    /// The name of a peer.
    pub fn name_of(&self, peer: PeerId) -> String {
        self.0.get(usize::from(peer.0)).cloned().unwrap_or_else(|| format!("#{peer}"))
    }
}

impl PeerNames {
    /// Adds the peers of `snapshot`; removed peers keep their names for their last events.
    pub fn add_peers(&mut self, snapshot: &Snapshot) {
        for peer in &snapshot.peers {
            let place = usize::from(peer.status.peer.0);
            if self.0.len() <= place {
                self.0.resize(place + 1, String::new());
            }
            self.0[place].clone_from(&peer.name);
        }
    }
}

impl From<&Snapshot> for PeerNames {
    fn from(snapshot: &Snapshot) -> Self {
        let mut names = Self::default();
        names.add_peers(snapshot);
        names
    }
}

/// `GET /v1/status`.
pub fn to_daemon_status(snapshot: &Snapshot) -> DaemonStatus {
    let Snapshot { node, adapter, peers, routes, stalls, counters, .. } = snapshot;
    let count = |wanted: fn(&netft::route::PeerStatus) -> bool| {
        peers.iter().filter(|peer| wanted(&peer.status)).count()
    };
    let moves = peers.iter().fold(MoveCounts::default(), |sum, peer| sum.plus(peer.status.moves));
    DaemonStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        verdict: verdict::judge_redundancy(snapshot),
        node: NodeStatus {
            name: node.name.clone(),
            key: node.key.to_string(),
            boot_id: hex_id(node.boot_id),
            uptime_ms: saturating_millis(node.uptime),
            pid: std::process::id(),
        },
        adapter: AdapterStatus {
            name: adapter.name.clone(),
            ifindex: adapter.ifindex,
            up: adapter.up,
            v4: adapter.v4,
            v6: adapter.v6,
            addresses: adapter.addrs.iter().map(ToString::to_string).collect(),
            mtu: adapter.mtu,
            queue_len: adapter.queue_len,
            backend: adapter.backend,
            tunnel_offload: adapter.tunnel_offload,
        },
        peers: PeerCounts {
            configured: peers.len(),
            sessions: count(|peer| peer.session),
            silent: count(|peer| peer.session && !peer.heard),
            reachable: count(|peer| peer.reachable),
            unanswered: peers.iter().filter(|peer| peer.overlay_problem.is_some()).count(),
        },
        routes: RouteCounts {
            total: routes.len(),
            up: routes.iter().filter(|route| route.state == RouteState::Up).count(),
        },
        failovers: moves.failovers,
        moves: to_move_counts(moves),
        stalls: cause::to_stall_summary(stalls),
        policies: policies::count_by_policy(peers),
        vips: VipCounts::default(),
        names: Vec::new(),
        ownership: None,
        engines: Vec::new(),
        counters: counters.into(),
        log: LogCountsView::default(),
        overrides: overrides::to_override_views(snapshot),
        overrides_unsaved: None,
    }
}

/// `GET /v1/routes`.
pub fn to_route_list(snapshot: &Snapshot, clock: &WallClock) -> RouteList {
    let names = PeerNames::from(snapshot);
    let mut routes: Vec<_> =
        snapshot.routes.iter().map(|status| to_route(status, snapshot, &names, clock)).collect();
    routes.sort_by_key(|route| route.id);
    RouteList { routes }
}

/// One route.
pub fn to_route(
    status: &RouteStatus,
    snapshot: &Snapshot,
    names: &PeerNames,
    clock: &WallClock,
) -> RouteView {
    let spec = &status.spec;
    let home = find_local_interface(snapshot, spec.real_local.ip());
    let sent = snapshot.sent_by_route.get(&status.id).copied().unwrap_or_default();
    let received = snapshot.received_by_route.get(&status.id).copied().unwrap_or_default();
    RouteView {
        id: status.id.0,
        peer: names.name_of(spec.peer),
        real_local: spec.real_local,
        real_remote: spec.real_remote,
        interface: home.and_then(|(_, interface)| interface.name.clone()),
        network: home.map(|(network, _)| network.prefix.to_string()),
        virtual_local: spec.virtual_local,
        virtual_remote: spec.virtual_remote,
        delay_ms: spec.timing.delay.as_millis(),
        threshold: spec.timing.threshold.get(),
        priority: spec.priority.0,
        attributes: spec.attributes.0,
        transport: spec.transport,
        state: status.state,
        tx: status.tx,
        rx: status.rx,
        active: status.active,
        suspect: status.suspect,
        hold_ms: saturating_millis(status.hold_down.left),
        flaps: status.hold_down.flaps,
        drain: status.drain.map(DrainStatus::stage),
        drain_by: status.drain.map(drain_by),
        rtt_us: status.quality.rtt.map(saturating_micros),
        jitter_us: status.quality.jitter.map(saturating_micros),
        loss: rounded_share(status.quality.loss_in),
        loss_out: rounded_share(status.quality.loss_out),
        data_loss: rounded_share(status.quality.data_loss),
        brown_out: status.brown_out,
        heartbeats_sent: status.heartbeats.sent,
        heartbeats_missed: status.heartbeats.missed,
        last_change: clock.to_rfc3339(status.last_change),
        reason: status.reason.to_string(),
        path_mtu: status.path_mtu.size,
        path_mtu_limit: status.path_mtu.limit,
        path_mtu_age_ms: status.path_mtu.proven.map(|at| saturating_millis(snapshot.now.since(at))),
        path_mtu_probing: status.path_mtu.probing,
        plain_sends: snapshot.plain_sends.contains(&status.id),
        tx_frames: sent.frames,
        tx_bytes: sent.bytes,
        rx_frames: received.frames,
        rx_bytes: received.bytes,
        via: snapshot.relay_of.get(&status.id).map(|via| names.name_of(*via)),
    }
}

/// `GET /v1/peers`.
pub fn to_peer_list(snapshot: &Snapshot) -> PeerList {
    PeerList { peers: snapshot.peers.iter().map(|info| to_peer(info, snapshot)).collect() }
}

/// One peer.
pub fn to_peer(info: &PeerInfo, snapshot: &Snapshot) -> PeerView {
    let own = |route: &&RouteStatus| !snapshot.relay_of.contains_key(&route.id);
    let routes = snapshot.routes.iter().filter(|route| route.spec.peer == info.status.peer);
    let routes = routes.filter(own);
    let addresses: BTreeSet<_> = routes.map(|route| route.spec.real_remote).collect();
    let counts = verdict::count_peer_routes(snapshot, info);
    PeerView {
        name: info.name.clone(),
        key: info.key.to_string(),
        v4: info.addrs.v4,
        v6: info.addrs.v6,
        addresses: addresses.into_iter().collect(),
        session: info.status.session,
        session_state: session_state(info),
        session_cause: info.session_problem.as_ref().map(|problem| problem.cause),
        session_reason: info.session_problem.as_ref().map(|problem| problem.text.clone()),
        session_ended_by: info.session_end.map(|cause| cause.closer().as_str().to_owned()),
        session_end_cause: info.session_end.map(|cause| cause.as_str().to_owned()),
        partner_state: None,
        overlay_problem: info.overlay_problem.map(str::to_owned),
        routes_up: counts.up,
        routes_total: counts.total,
        reachable: info.status.reachable,
        gone: info.is_gone,
        active: info.status.active.map(|route| route.0),
        failovers: info.status.moves.failovers,
        moves: to_move_counts(info.status.moves),
        // What it said once is not known to be so of a peer that is not heard.
        cipher: info.cipher.map(str::to_owned),
        adapter_up: info.peer_adapter_up.filter(|_| session_state(info) == SessionState::Up),
        release: info.version.as_ref().map(|version| version.release.clone()),
        wire_versions: info.version.as_ref().map(|it| [it.wire.lowest, it.wire.highest]),
        policy: info.policies.default_policy().to_string(),
        classes: policies::to_class_specs(&info.policies),
    }
}

const fn session_state(info: &PeerInfo) -> SessionState {
    match (info.status.session, info.status.heard) {
        (true, true) => SessionState::Up,
        (true, false) => SessionState::Silent,
        (false, _) => SessionState::None,
    }
}

const fn to_move_counts(moves: MoveCounts) -> MoveCountsView {
    let MoveCounts { failovers, failbacks, drains, start_ups } = moves;
    MoveCountsView { failover: failovers, failback: failbacks, drain: drains, start_up: start_ups }
}

/// An event.
pub fn to_event_detail(event: &netft::route::Event, names: &PeerNames) -> EventDetail {
    match &event.kind {
        EventKind::RouteAdded { route, spec } => {
            let (peer, transport) = (names.name_of(spec.peer), spec.transport);
            EventDetail::RouteAdded {
                route: route.0,
                peer,
                transport,
                fields: to_route_fields(spec),
            }
        }
        EventKind::RouteRemoved { route, spec } => EventDetail::RouteRemoved {
            route: route.0,
            peer: names.name_of(spec.peer),
            fields: to_route_fields(spec),
        },
        EventKind::RemoteReachable { peer, route } => {
            EventDetail::RemoteReachable { route: route.0, peer: names.name_of(*peer) }
        }
        EventKind::RemoteUnreachable { peer } => {
            EventDetail::RemoteUnreachable { peer: names.name_of(*peer) }
        }
        EventKind::RemoteGone { peer, after } => EventDetail::RemoteGone {
            peer: names.name_of(*peer),
            after_ms: saturating_millis(*after),
        },
        EventKind::StateChanged { route, peer, from, to, reason, last_heard, history } => {
            EventDetail::StateChanged {
                route: route.0,
                peer: names.name_of(*peer),
                from: *from,
                to: *to,
                reason: reason.to_string(),
                last_heard_ms_ago: last_heard.map(|heard| saturating_millis(event.at.since(heard))),
                history: history.clone(),
            }
        }
        EventKind::EarlyWarning { route, peer, missed, threshold, withheld } => {
            EventDetail::EarlyWarning {
                route: route.0,
                peer: names.name_of(*peer),
                missed: *missed,
                threshold: *threshold,
                withheld: *withheld,
            }
        }
        EventKind::Ready { peer, waited } => {
            EventDetail::Ready { peer: names.name_of(*peer), waited_ms: saturating_millis(*waited) }
        }
        EventKind::SessionEstablished { peer, boot_id } => EventDetail::SessionEstablished {
            peer: names.name_of(*peer),
            boot_id: hex_id(*boot_id),
        },
        EventKind::SessionEnded { peer, cause } => EventDetail::SessionEnded {
            peer: names.name_of(*peer),
            by: cause.closer().as_str().to_owned(),
            cause: cause.as_str().to_owned(),
        },
        EventKind::Moved { peer, from, to, reason, report: cause } => EventDetail::Moved {
            peer: names.name_of(*peer),
            from: from.map(|route| route.0),
            to: to.map(|route| route.0),
            reason: reason.to_string(),
            cause: Box::new(cause::to_failover_report(cause, event.at)),
        },
        EventKind::Suspect { route, peer } => {
            EventDetail::Suspect { route: route.0, peer: names.name_of(*peer) }
        }
        EventKind::AdapterRestored { what } => EventDetail::AdapterRestored { what: what.clone() },
        EventKind::OverlayFault { what } => EventDetail::OverlayFault { what: what.clone() },
        EventKind::OverlayLost { peer, what } => {
            EventDetail::OverlayLost { peer: names.name_of(*peer), what: what.clone() }
        }
        EventKind::OverlayAnswers { peer } => {
            EventDetail::OverlayAnswers { peer: names.name_of(*peer) }
        }
        EventKind::SessionRefused { peer, reason } => {
            EventDetail::SessionRefused { peer: names.name_of(*peer), reason: reason.clone() }
        }
        EventKind::NameFailed { peer, name, reason } => EventDetail::NameFailed {
            peer: names.name_of(*peer),
            name: name.clone(),
            reason: reason.clone(),
        },
        EventKind::KeyCopied { peer } => EventDetail::KeyCopied { peer: names.name_of(*peer) },
        EventKind::DuplicateNode { peer } => {
            EventDetail::DuplicateNode { peer: names.name_of(*peer) }
        }
        EventKind::Drain { route, peer, stage } => {
            EventDetail::Drain { route: route.0, peer: names.name_of(*peer), stage: *stage }
        }
        EventKind::DrillStarted { order, routes } => EventDetail::DrillStarted {
            target: order.target.to_string(),
            fault: order.fault.to_string(),
            length_ms: saturating_millis(order.length),
            routes: routes.iter().map(|route| route.0).collect(),
        },
        EventKind::DrillEnded { report } => to_ended_event(report, names),
        EventKind::PathMtuChanged { route, peer, from, to } => EventDetail::PathMtuChanged {
            route: route.0,
            peer: names.name_of(*peer),
            from: *from,
            to: *to,
        },
        EventKind::Stalled { length } => {
            EventDetail::Stalled { length_ms: saturating_millis(*length) }
        }
        EventKind::FailoverCost { peer, from, to, cost } => EventDetail::Cost {
            peer: names.name_of(*peer),
            from: from.0,
            to: to.map(|route| route.0),
            cost: cause::to_failover_cost(cost),
        },
        EventKind::SegmentedSends { route, peer, plain } => EventDetail::SegmentedSends {
            route: route.0,
            peer: names.name_of(*peer),
            plain: *plain,
        },
        EventKind::InterfaceListCut { listed, usable } => {
            EventDetail::InterfaceListCut { listed: *listed, usable: *usable }
        }
        EventKind::VipChanged { vip, addresses, state } => EventDetail::VipChanged {
            vip: vip.clone(),
            addresses: addresses.clone(),
            state: state.as_str().to_owned(),
            reason: state.reason().map(str::to_owned),
        },
        EventKind::VipNotice { vip, what } => {
            EventDetail::VipNotice { vip: vip.clone(), what: what.clone() }
        }
        EventKind::HostSettingChanged { what } => {
            EventDetail::HostSettingChanged { what: what.clone() }
        }
        EventKind::OverridesRefused { reason } => {
            EventDetail::OverridesRefused { reason: reason.clone() }
        }
        EventKind::Reconfigured => EventDetail::Reconfigured,
        EventKind::NetworkChanged { prefix, change } => {
            EventDetail::NetworkChanged { prefix: prefix.to_string(), change: *change }
        }
        EventKind::InterfaceChanged { peer, prefix, addr, added } => {
            EventDetail::InterfaceChanged {
                peer: peer.map(|peer| names.name_of(peer)),
                prefix: prefix.to_string(),
                address: *addr,
                added: *added,
            }
        }
        EventKind::AddressLearned { route, peer, from, to } => EventDetail::AddressLearned {
            route: route.0,
            peer: names.name_of(*peer),
            from: *from,
            to: *to,
        },
    }
}

/// The event that ends a drill.
fn to_ended_event(report: &DrillReport, names: &PeerNames) -> EventDetail {
    EventDetail::DrillEnded {
        target: report.order.target.to_string(),
        fault: report.order.fault.to_string(),
        outcome: report.outcome.as_str().to_owned(),
        reason: abort_text(report.outcome, names),
        detection_us: report.detection().map(saturating_micros),
        stall_us: report.cost.stall.map(|stall| saturating_micros(stall.length)),
        lost: report.cost.lost,
        resent: report.cost.resent,
        recovered: report.is_recovered(),
        routes: report.routes.iter().map(|route| route.route.0).collect(),
    }
}

/// Why a drill was aborted.
pub(super) fn abort_text(outcome: DrillOutcome, names: &PeerNames) -> Option<String> {
    match outcome {
        DrillOutcome::Running | DrillOutcome::Settling | DrillOutcome::Completed => None,
        DrillOutcome::Aborted(AbortCause::PeerAtRisk(peer)) => {
            Some(format!("the other routes to {} failed", names.name_of(peer)))
        }
        DrillOutcome::Aborted(cause @ (AbortCause::SocketsReplaced | AbortCause::HandOver)) => {
            Some(cause.as_str().to_owned())
        }
    }
}

fn drain_by(drain: DrainStatus) -> DrainedBy {
    match (drain.here, drain.at_peer) {
        (true, true) => DrainedBy::Both,
        (true, false) => DrainedBy::Here,
        (false, _) => DrainedBy::Peer,
    }
}

fn to_route_fields(spec: &RouteSpec) -> RouteFields {
    RouteFields {
        real_local: spec.real_local,
        real_remote: spec.real_remote,
        virtual_local: spec.virtual_local,
        virtual_remote: spec.virtual_remote,
        delay_ms: spec.timing.delay.as_millis(),
        threshold: spec.timing.threshold.get(),
        priority: spec.priority.0,
        attributes: spec.attributes.0,
    }
}

fn rounded_share(share: f32) -> f64 {
    (f64::from(share) * 10_000.0).round() / 10_000.0
}

pub(super) fn saturating_micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

pub(super) fn saturating_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A number too large for some JSON readers (RFC 8259 section 6).
fn hex_id(number: u64) -> String {
    format!("{number:016x}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use netft::{
        drill::{Drill, DrillFault, DrillOrder, DrillTarget},
        ids::{PeerId, RouteId},
        route::{DrainStage, Event, FailoverCost, NetworkChange, Reason, SessionEndCause},
        time::Time,
        vip::VipState,
    };

    use super::*;

    /// The API and the logs name an event alike.
    #[test]
    fn an_event_in_json_has_the_name_of_its_kind() {
        let (peer, route, length) = (PeerId(1), RouteId(2), Duration::from_millis(3));
        let (name, text) = ("b.example".to_owned(), "text".to_owned());
        let (from, to) = (RouteState::Up, RouteState::Down);
        let (reason, address) = (Reason::CarrierLost, "192.0.2.1:3343".parse().unwrap());
        let report = Box::default();
        let (target, fault) = (DrillTarget::Route(route), DrillFault::Blackhole);
        let order = DrillOrder { target, fault, length };
        let drill = Drill::begin(Time::ZERO, order.clone(), &[route], &[]);
        let kinds = [
            EventKind::RemoteReachable { peer, route },
            EventKind::RemoteUnreachable { peer },
            EventKind::RemoteGone { peer, after: length },
            EventKind::StateChanged {
                route,
                peer,
                from,
                to,
                reason,
                last_heard: None,
                history: Vec::new(),
            },
            EventKind::EarlyWarning { route, peer, missed: 2, threshold: 5, withheld: 1 },
            EventKind::Ready { peer, waited: length },
            EventKind::SessionEstablished { peer, boot_id: 7 },
            EventKind::SessionEnded { peer, cause: SessionEndCause::PeerStopped },
            EventKind::Suspect { route, peer },
            EventKind::Moved { peer, from: None, to: Some(route), reason, report },
            EventKind::AdapterRestored { what: text.clone() },
            EventKind::OverlayFault { what: text.clone() },
            EventKind::OverlayLost { peer, what: text.clone() },
            EventKind::OverlayAnswers { peer },
            EventKind::SessionRefused { peer, reason: text.clone() },
            EventKind::DuplicateNode { peer },
            EventKind::KeyCopied { peer },
            EventKind::NameFailed { peer, name, reason: text },
            EventKind::Stalled { length },
            EventKind::PathMtuChanged { route, peer, from: 1500, to: 1400 },
            EventKind::FailoverCost { peer, from: route, to: None, cost: FailoverCost::default() },
            EventKind::Drain { route, peer, stage: DrainStage::Drained },
            EventKind::DrillStarted { order, routes: vec![route] },
            EventKind::DrillEnded { report: Box::new(drill.report(Time::ZERO, 0)) },
            EventKind::SegmentedSends { route, peer, plain: true },
            EventKind::InterfaceListCut { listed: 256, usable: 300 },
            EventKind::VipChanged {
                vip: "web".into(),
                addresses: "10.1.0.80".into(),
                state: VipState::Failed("eth0 is down".into()),
            },
            EventKind::VipNotice { vip: "web".into(), what: "put back".into() },
            EventKind::HostSettingChanged { what: "eth0: arp_ignore=1 (was 0)".into() },
            EventKind::OverridesRefused { reason: "netft0.overrides: its digest is wrong".into() },
            EventKind::Reconfigured,
            EventKind::NetworkChanged {
                prefix: "10.1.0.0/24".parse().unwrap(),
                change: NetworkChange::Partitioned,
            },
            EventKind::InterfaceChanged {
                peer: Some(peer),
                prefix: "10.1.0.0/24".parse().unwrap(),
                addr: "10.1.0.2".parse().unwrap(),
                added: true,
            },
            EventKind::AddressLearned { route, peer, from: None, to: address },
        ];
        let names = PeerNames::default();
        for kind in kinds {
            let expected = kind.name();
            let event = Event { at: Time::from_millis(1), kind };
            let json = serde_json::to_value(to_event_detail(&event, &names)).unwrap();
            assert_eq!(json["event"], expected, "{json}");
        }
    }
}
