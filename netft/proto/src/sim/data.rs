//! Data traffic: packets, acknowledgements and retransmissions, decided by the real code.

use std::time::Duration;

use crate::{
    engine::{Engine, EngineInput, InjectedBug, RouteTally},
    ids::RouteId,
    loss_detection::{
        BatchLayout, Reroute, UsablePath, segmentation::SegmentationFallback, take_acked_frames,
        take_vanishing_segments,
    },
    sim::{
        cluster::{ClusterState, SimStep},
        delivery::{DeliveryChecker, PacketCopy},
        node::{AckFrame, Arrival, BootIdPair, DataFrame},
        report::{DataReport, PacketRecord},
        rng::SplitMix64,
        scenario::{Scenario, node_pairs, peer_id},
        stream::DataStream,
    },
    time::Time,
    wire::ack::Ack,
};

/// Memory of one frame, bytes: a page.
const FRAME_MEMORY: usize = 4096;
/// Longest time a worker's suspect report takes to the engine, on a busy machine.
const MAX_SUSPECT_REPORT_DELAY: Duration = Duration::from_millis(10);
/// Longest time that a route keeps carrying segmented sends that vanish.
const MAX_VANISHING_TIME: Duration = Duration::from_secs(2);
/// Distinguishes the draws for data from the other draws of a seed.
const DATA_SEED: u64 = 0x00da_7a00_0000_0000;

/// Packet paths of all nodes.
pub(crate) struct DataTraffic {
    /// A generator of its own: data does not change the draws for heartbeats.
    rng: SplitMix64,
    nodes: Vec<NodeData>,
    delivery: DeliveryChecker,
    report: DataReport,
    /// Per packet: bytes of its frame.
    frame_sizes: Vec<usize>,
    /// The scenario sends data.
    enabled: bool,
}

/// Packet path of one node.
struct NodeData {
    /// Data with every peer there was a session with.
    streams: Vec<Option<DataStream>>,
    /// The next timeout of the packet path.
    wake: Option<Time>,
    /// Routes that send plainly.
    fallback: SegmentationFallback,
}

impl NodeData {
    fn new(nodes: usize) -> Self {
        let streams = (0..nodes).map(|_| None).collect();
        Self { streams, wake: None, fallback: SegmentationFallback::default() }
    }
}

impl DataTraffic {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let enabled = !scenario.data_every.is_zero();
        let nodes = if enabled { scenario.nodes } else { 0 };
        Self {
            rng: SplitMix64::new(scenario.seed ^ DATA_SEED),
            nodes: (0..nodes).map(|_| NodeData::new(nodes)).collect(),
            delivery: DeliveryChecker::new(nodes, scenario.networks.len()),
            report: DataReport::default(),
            frame_sizes: Vec::new(),
            enabled,
        }
    }

    pub(crate) fn into_report(self) -> DataReport {
        self.report
    }

    /// Schedules the first packet of every pair.
    pub(crate) fn schedule_first_packets(&self, cluster: &mut ClusterState<'_>) {
        for (from, to) in node_pairs(self.nodes.len()) {
            let first = Time::ZERO + cluster.rng.duration_up_to(cluster.scenario.data_every);
            cluster.schedule_step(first, SimStep::SendData { from, to });
        }
    }

    /// Forgets everything of a node that died or starts.
    pub(crate) fn reset_node(&mut self, node: usize) {
        if self.enabled {
            self.nodes[node] = NodeData::new(self.nodes.len());
        }
    }

    /// Starts counters afresh unless the session is the one in use.
    pub(crate) fn start_session(&mut self, node: usize, peer: usize, session: BootIdPair) {
        if !self.enabled {
            return;
        }
        let stream = &mut self.nodes[node].streams[peer];
        if stream.as_ref().is_none_or(|stream| stream.session != session) {
            *stream = Some(DataStream::new(session));
        }
    }

    /// Sends a batch of one to three packets.
    pub(crate) fn send_data(&mut self, cluster: &mut ClusterState<'_>, from: usize, to: usize) {
        let (now, scenario) = (cluster.now, cluster.scenario);
        cluster.schedule_step(now + scenario.data_every, SimStep::SendData { from, to });
        let node = &cluster.nodes[from];
        if !node.is_running() || node.sessions[to].is_none() {
            return;
        }
        self.run_worker_turn(cluster, from);
        let count = self.rng.pick_one(&[1, 1, 1, 3]);
        let row = cluster.nodes[from].rows.get(&peer_id(to));
        let (active, duplicate) = row.map_or((None, None), |row| (row.active, row.duplicate));
        let size = row.and_then(|row| cluster.nodes[from].max_frame(row)).unwrap_or(FRAME_MEMORY);
        let network = active.and_then(|route| scenario.network_of(from, route));
        let index = self.report.packets.len();
        let Some((session, first)) = self.reserve_counters(from, to, count) else { return };
        for number in 0..count as usize {
            let packet = PacketRecord { from, to, network, sent_at: now, arrived_at: None };
            self.report.packets.push(packet);
            self.frame_sizes.push(size);
            self.delivery.add_packet(index + number, first + number as u64);
        }
        let (Some(route), Some(network)) = (active, network) else { return };
        let path = usable_path(cluster, from, route);
        let batch = BatchLayout {
            first,
            last: first + count - 1,
            count: count as u32,
            bytes: count as usize * FRAME_MEMORY,
            stride: size,
            tail: size,
        };
        let Some(stream) = &mut self.nodes[from].streams[to] else { return };
        stream.sent_frames.on_sent(index, batch, path, duplicate, now);
        let timeout = stream.sent_frames.pto_for_route(route, now).unwrap_or_default();
        let duplicate = duplicate.and_then(|route| scenario.network_of(from, route));
        let is_sole_copy = duplicate.is_none();
        let segmented = count > 1;
        self.check_segments((from, to), (route, network), segmented, cluster);
        for index in index..index + count as usize {
            let frame = self.data_frame(session, index, false);
            self.transmit_copy(cluster, frame, (network, segmented), timeout, is_sole_copy);
            if let Some(network) = duplicate {
                self.transmit_copy(cluster, frame, (network, segmented), timeout, false);
            }
        }
        self.schedule_wake(cluster, from);
    }

    /// Rule 19.
    fn check_segments(
        &mut self,
        (from, to): (usize, usize),
        (route, network): (RouteId, usize),
        segmented: bool,
        cluster: &mut ClusterState<'_>,
    ) {
        let now = cluster.now;
        let plain = self.nodes[from].fallback.is_plain(route);
        let running = cluster.nodes[to].is_running() && !plain;
        let vanish = running && cluster.networks[network].loses_segments(from, to);
        let Some(stream) = &mut self.nodes[from].streams[to] else { return };
        let since = stream.vanishing_since.take().filter(|(of, _)| vanish && *of == network);
        let begins = (vanish && segmented).then_some((network, now));
        stream.vanishing_since = since.or(begins);
        if let Some((_, since)) = since
            && now.since(since) > MAX_VANISHING_TIME
        {
            cluster.record_violation(&format!(
                "rule 19: node {from} to {to}: segmented sends vanish on network {network} since \
                 {since}, and it carries them"
            ));
        }
    }

    fn data_frame(
        &self,
        sender_session: BootIdPair,
        index: usize,
        is_retransmission: bool,
    ) -> DataFrame {
        let (counter, size) = (self.delivery.counters()[index], self.frame_sizes[index]);
        DataFrame { sender_session, counter, index, size, is_retransmission }
    }

    /// Sends a frame over a network.
    fn transmit_copy(
        &mut self,
        cluster: &mut ClusterState<'_>,
        frame: DataFrame,
        (network, segmented): (usize, bool),
        timeout: Duration,
        is_sole_copy: bool,
    ) {
        let PacketRecord { from, to, .. } = self.report.packets[frame.index];
        let now = cluster.now;
        let route = cluster.scenario.route_id(from, to, network);
        let segmented = segmented && !self.nodes[from].fallback.is_plain(route);
        let sent_on = &mut cluster.networks[network];
        let sent = (frame.size, segmented);
        let delays = sent_on.send_data((from, to), sent, now, &mut self.rng);
        if let Some(stream) = &mut self.nodes[from].streams[to] {
            stream.tallies[network].sent += 1;
        }
        let copy = PacketCopy {
            network,
            sent_at: cluster.now,
            ack_deadline: cluster.now + timeout + cluster.scenario.timer_slack,
            got_through: delays[0].is_some(),
            is_sole_copy,
            path_was_silent: false,
        };
        self.delivery.add_copy(frame.index, (from, to), copy);
        for delay in delays.into_iter().flatten() {
            let arrival = Arrival::Data { from, network, frame };
            cluster.schedule_step(cluster.now + delay, SimStep::Arrive { to, arrival });
        }
    }

    /// A data frame reached a running node.
    pub(crate) fn on_data(
        &mut self,
        cluster: &mut ClusterState<'_>,
        (from, to): (usize, usize),
        network: usize,
        frame: DataFrame,
    ) {
        let ignores_window =
            frame.is_retransmission && cluster.scenario.bug == Some(InjectedBug::DeliverTwice);
        let Some(stream) = self.receiving_stream((from, to), frame.sender_session) else { return };
        let is_new = stream.replay_window.accept(frame.counter) || ignores_window;
        stream.note_received(network, frame.counter, is_new, cluster.now);
        if is_new {
            cluster.trace.add_number(frame.index as u64);
            let packet = &mut self.report.packets[frame.index];
            cluster.record_result(self.delivery.check_delivered(packet, cluster.now));
        }
    }

    /// An acknowledgement reached a running node.
    pub(crate) fn on_ack(
        &mut self,
        cluster: &mut ClusterState<'_>,
        (from, to): (usize, usize),
        network: usize,
        frame: &AckFrame,
    ) {
        let ack = &frame.ack;
        let held = frame.sender_session.reversed();
        let stream = self.nodes[to].streams[from].as_mut();
        let Some(stream) = stream.filter(|stream| stream.session == held) else { return };
        if !stream.replay_window.accept(frame.counter) {
            return;
        }
        let counters = self.delivery.counters();
        let counter = |index: &usize, offset: u32| counters[index + offset as usize];
        if let Some(frames) = ack.arrivals() {
            let arrived = &mut stream.tallies[network].counts.arrived;
            *arrived = frames.max(*arrived);
        }
        stream.sent_frames.on_ack_request_answered(ack.immediate_ack_reply);
        stream.sent_frames.on_ack_received(cluster.now, ack, counter, |_| {});
        let DataStream { sent_frames, tallies, .. } = stream;
        take_acked_frames(sent_frames, |route, frames| {
            if let Some(network) = cluster.scenario.network_of(to, route) {
                tallies[network].counts.acknowledged += frames;
            }
        });
        // Simulated sockets hold nothing: every frame sent before is processed, so answer at once.
        if ack.immediate_ack_request != 0 {
            let answer =
                Ack { immediate_ack_reply: ack.immediate_ack_request, ..stream.build_ack() };
            self.send_ack(cluster, (to, from), network, &answer);
        }
    }

    fn send_ack(
        &mut self,
        cluster: &mut ClusterState<'_>,
        (from, to): (usize, usize),
        network: usize,
        ack: &Ack,
    ) {
        let Some((sender_session, counter)) = self.reserve_counters(from, to, 1) else { return };
        let mut ack = ack.clone();
        if let Some(stream) = &self.nodes[from].streams[to] {
            ack.set_arrivals(stream.received[network]);
        }
        let delays = cluster.networks[network].send_packet(from, to, &mut self.rng);
        for delay in delays.into_iter().flatten() {
            let frame = AckFrame { sender_session, counter, ack: ack.clone() };
            let arrival = Arrival::Ack { from, network, frame };
            cluster.schedule_step(cluster.now + delay, SimStep::Arrive { to, arrival });
        }
    }

    /// One turn of a worker: sends due acknowledgements, retransmits, reports suspect routes.
    pub(crate) fn run_worker_turn(&mut self, cluster: &mut ClusterState<'_>, node: usize) {
        if !self.enabled {
            return;
        }
        if let Some(checker) = &cluster.checker {
            let result = self.delivery.check_overdue(cluster.now, checker, &mut self.report);
            cluster.record_result(result);
        }
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            self.send_due_ack(cluster, node, peer);
            self.retransmit_unacked(cluster, node, peer);
        }
        self.schedule_wake(cluster, node);
    }

    fn send_due_ack(&mut self, cluster: &mut ClusterState<'_>, node: usize, peer: usize) {
        let last_stall = cluster.nodes[node].last_stall;
        let Some(stream) = &mut self.nodes[node].streams[peer] else { return };
        let Some((ack, schedule)) = stream.take_due_ack(cluster.now, last_stall) else { return };
        let row = cluster.nodes[node].rows.get(&peer_id(peer));
        let network = |route: &RouteId| cluster.scenario.network_of(node, *route);
        let active = row.and_then(|row| row.active.as_ref()).and_then(network);
        let usable = row.into_iter().flat_map(|row| row.active.iter().chain(&row.backups));
        let usable: Vec<_> = usable.filter_map(network).collect();
        for network in schedule.return_paths(|network| usable.contains(&network), active) {
            self.send_ack(cluster, (node, peer), network, &ack);
        }
    }

    fn retransmit_unacked(&mut self, cluster: &mut ClusterState<'_>, node: usize, peer: usize) {
        let (now, scenario) = (cluster.now, cluster.scenario);
        let row = cluster.nodes[node].rows.get(&peer_id(peer));
        let Some(row) = row else { return };
        let routes = row.active.iter().chain(&row.backups);
        let usable: Vec<_> = routes.map(|route| usable_path(cluster, node, *route)).collect();
        let Some(stream) = &mut self.nodes[node].streams[peer] else { return };
        stream.sent_frames.discard_expired(now, |_| {});
        while let Some(loss) = stream.sent_frames.take_data_loss(now) {
            let at = now + self.rng.duration_up_to(scenario.timer_slack);
            let input = EngineInput::DataLoss(loss);
            cluster.schedule_step(at, SimStep::WorkerReport { node, input });
        }
        if let Some(route) = take_vanishing_segments(&mut stream.sent_frames) {
            // Simulated networks carry every packet size: the path MTU is proven at once.
            let fallback = &mut self.nodes[node].fallback;
            fallback.on_vanishing(now, route);
            for (route, _) in fallback.poll(now, |_| Some(Some(now + Duration::from_nanos(1)))) {
                let input = EngineInput::SegmentationChanged(route);
                cluster.schedule_step(now, SimStep::WorkerReport { node, input });
            }
        }
        while let Some(stream) = &mut self.nodes[node].streams[peer]
            && let Some(reroute) =
                stream.sent_frames.poll_reroute(now, usable.iter().copied(), true)
        {
            self.apply_reroute(cluster, node, peer, &reroute);
        }
        while let Some(stream) = &mut self.nodes[node].streams[peer]
            && let Some(request) =
                stream.sent_frames.request_immediate_ack(now, usable.iter().copied(), true)
        {
            let ack = Ack { immediate_ack_request: request.number, ..stream.build_ack() };
            let Some(network) = scenario.network_of(node, request.to) else { break };
            self.send_ack(cluster, (node, peer), network, &ack);
        }
    }

    /// Retransmits on another route what was sent on one that is lossy or silent.
    fn apply_reroute(
        &mut self,
        cluster: &mut ClusterState<'_>,
        node: usize,
        peer: usize,
        reroute: &Reroute,
    ) {
        let (now, scenario) = (cluster.now, cluster.scenario);
        let Reroute { from, to, suspect, .. } = *reroute;
        let Some(stream) = &mut self.nodes[node].streams[peer] else { return };
        let (session, timeout) =
            (stream.session, stream.sent_frames.pto_for_route(to, now).unwrap_or_default());
        let counts = scenario.network_of(node, from).map(|network| stream.tallies[network].counts);
        let batches = stream.sent_frames.rerouted_batches(reroute).flat_map(|sent| {
            let frames = sent.missing_runs().flat_map(|(first, count)| {
                (first..first + count).map(move |frame| (frame, count > 1))
            });
            frames.map(|(frame, segmented)| (sent.payload + frame as usize, segmented))
        });
        let packets: Vec<_> = batches.collect();
        cluster.trace.add_step(now, format_args!("node {node}: {packets:?} again {from}→{to}"));
        let silent = suspect.then(|| scenario.network_of(node, from)).flatten();
        let routes = &cluster.nodes[node].routes;
        let result = self.delivery.check_reroute((node, peer, silent), reroute, routes);
        cluster.record_result(result);
        let network = scenario.network_of(node, to);
        if let Some(network) = network.filter(|_| scenario.bug != Some(InjectedBug::LoseInFlight)) {
            for (index, segmented) in packets {
                self.report.retransmissions += 1;
                let frame = self.data_frame(session, index, true);
                self.transmit_copy(cluster, frame, (network, segmented), timeout, false);
            }
        }
        if suspect {
            let delay = self.rng.duration_up_to(MAX_SUSPECT_REPORT_DELAY);
            let counts = counts.unwrap_or_default();
            cluster.schedule_step(now + delay, SimStep::Suspect { node, route: from, counts });
        }
    }

    /// The receiver's stream, when the frame was encrypted for the session it holds.
    fn receiving_stream(
        &mut self,
        (from, to): (usize, usize),
        sender_session: BootIdPair,
    ) -> Option<&mut DataStream> {
        let held = sender_session.reversed();
        self.nodes[to].streams[from].as_mut().filter(|stream| stream.session == held)
    }

    /// Data frames sent and arrived on a route.
    pub(crate) fn tally_of(&self, node: usize, peer: usize, network: usize) -> RouteTally {
        let streams = self.nodes.get(node).map(|node| &node.streams[peer]);
        streams.and_then(Option::as_ref).map(|stream| stream.tallies[network]).unwrap_or_default()
    }

    fn reserve_counters(
        &mut self,
        node: usize,
        peer: usize,
        count: u64,
    ) -> Option<(BootIdPair, u64)> {
        let stream = self.nodes[node].streams[peer].as_mut()?;
        Some((stream.session, stream.reserve_counters(count)))
    }

    fn schedule_wake(&mut self, cluster: &mut ClusterState<'_>, node: usize) {
        let (now, slack) = (cluster.now, cluster.scenario.timer_slack);
        let data = &mut self.nodes[node];
        let waits = data.streams.iter().flatten().filter_map(|stream| stream.time_until_due(now));
        let Some(wait) = waits.min() else { return };
        let planned = data.wake.filter(|at| *at >= now);
        if planned.is_none_or(|at| at > now + wait + slack) {
            let at = now + wait + self.rng.duration_up_to(slack);
            data.wake = Some(at);
            cluster.schedule_step(at, SimStep::DataWake { node });
        }
    }

    /// A timeout of a node's packet path.
    pub(crate) fn on_wake(&mut self, cluster: &mut ClusterState<'_>, node: usize) {
        if self.nodes[node].wake.take_if(|wake| *wake == cluster.now).is_some()
            && cluster.nodes[node].is_running()
        {
            self.run_worker_turn(cluster, node);
        }
    }
}

/// A route as loss detection takes it.
fn usable_path(cluster: &ClusterState<'_>, node: usize, route: RouteId) -> UsablePath {
    let node = &cluster.nodes[node];
    let status = node.routes.iter().find(|status| status.id == route);
    let epoch = |engine: &Engine| engine.loss_epoch(route);
    UsablePath {
        route,
        rtt: status.and_then(|status| status.quality.rtt),
        loss_epoch: node.engine.as_ref().map_or(0, epoch),
    }
}
