//! The packet path of the world: data, acknowledgements and resends, decided by the real code.

use std::time::Duration;

use crate::{
    engine::{EngineInput, InjectedBug},
    ids::RouteId,
    loss_detection::{BatchLayout, Reroute, UsablePath},
    sim::{
        delivery::PacketCopy,
        node::{Arrival, BootIdPair},
        report::PacketRecord,
        scenario::peer_id,
        simulation::{SimStep, Simulation},
        stream::DataStream,
    },
    wire::ack::Ack,
};

/// Memory of one frame, bytes: a page.
const FRAME_MEMORY: usize = 4096;
/// The most a worker's word takes to the engine, on a busy machine.
const MAX_SUSPECT_REPORT_DELAY: Duration = Duration::from_millis(10);

impl Simulation<'_> {
    /// A node has packets for another one: some of one send.
    pub(crate) fn send_data(&mut self, from: usize, to: usize) {
        self.schedule_step(self.now + self.scenario.data_every, SimStep::SendData { from, to });
        if !self.nodes[from].is_running() || self.nodes[from].sessions[to].is_none() {
            return;
        }
        self.run_worker_turn(from);
        let count = self.data_rng.pick_one(&[1, 1, 1, 3]);
        let row = self.nodes[from].table.peers.iter().find(|row| row.peer == peer_id(to));
        let (active, copy) = row.map_or((None, None), |row| (row.active, row.duplicate));
        let network = active.and_then(|route| self.scenario.network_of(from, route));
        let index = self.report.packets.len();
        let Some((session, first)) = self.reserve_counters(from, to, count) else { return };
        for number in 0..count as usize {
            self.report.packets.push(PacketRecord {
                from,
                to,
                network,
                sent_at: self.now,
                arrived_at: None,
            });
            self.delivery_checker.add_packet(index + number, first + number as u64);
        }
        let (Some(route), Some(network)) = (active, network) else { return };
        let copy = copy.and_then(|route| self.scenario.network_of(from, route));
        let path = self.usable_path(from, route);
        let frames = BatchLayout {
            first,
            last: first + count - 1,
            count: count as u32,
            bytes: count as usize * FRAME_MEMORY,
            stride: FRAME_MEMORY,
            tail: FRAME_MEMORY,
        };
        let Some(stream) = &mut self.nodes[from].streams[to] else { return };
        stream.sent_frames.on_sent(index, frames, path, copy.is_some(), self.now);
        let timeout = stream.sent_frames.pto_for_route(route, self.now).unwrap_or_default();
        let is_sole_copy = copy.is_none();
        for index in index..index + count as usize {
            self.transmit_copy(index, network, (session, false), timeout, is_sole_copy);
            if let Some(copy) = copy {
                self.transmit_copy(index, copy, (session, false), timeout, false);
            }
        }
        self.schedule_data_wake(from);
    }

    /// Sends the frame of a packet over a network. `alone`: it goes there first, and nowhere else.
    fn transmit_copy(
        &mut self,
        index: usize,
        network: usize,
        (sealed, again): (BootIdPair, bool),
        timeout: Duration,
        is_sole_copy: bool,
    ) {
        let PacketRecord { from, to, .. } = self.report.packets[index];
        let counter = self.delivery_checker.counters()[index];
        let travels = self.networks[network].send_packet(from, to, &mut self.data_rng);
        let until = self.now + timeout + self.scenario.timer_slack;
        let through = travels[0].is_some();
        let copy = PacketCopy {
            network,
            sent_at: self.now,
            ack_deadline: until,
            got_through: through,
            is_sole_copy,
            path_was_silent: false,
        };
        self.delivery_checker.add_copy(index, (from, to), copy);
        for travel in travels.into_iter().flatten() {
            let arrival = Arrival::Data {
                from,
                network,
                sender_session: sealed,
                counter,
                index,
                is_retransmission: again,
            };
            self.schedule_step(self.now + travel, SimStep::Arrive { to, arrival });
        }
    }

    /// A frame reached a running node, which services its packet path after it.
    pub(crate) fn on_data(
        &mut self,
        (from, to): (usize, usize),
        network: usize,
        (sealed, counter): (BootIdPair, u64),
        (index, again): (usize, bool),
    ) {
        let now = self.now;
        let deaf = again && self.scenario.bug == Some(InjectedBug::DeliverTwice);
        let Some(stream) = stream_of_session(&mut self.nodes[to].streams[from], sealed) else {
            return;
        };
        let fresh = stream.replay_window.accept(counter) || deaf;
        stream.note_received(network, counter, fresh, now);
        if fresh {
            self.trace.add_number(index as u64);
            let found = self.delivery_checker.check_delivered(index, &mut self.report, now);
            self.record_result(found);
        }
    }

    /// An acknowledgement reached a running node.
    pub(crate) fn on_ack(
        &mut self,
        (from, to): (usize, usize),
        network: usize,
        (sealed, counter): (BootIdPair, u64),
        ack: &Ack,
    ) {
        let (now, counters) = (self.now, self.delivery_checker.counters());
        let Some(stream) = stream_of_session(&mut self.nodes[to].streams[from], sealed) else {
            return;
        };
        if !stream.replay_window.accept(counter) {
            return;
        }
        let counter = |index: &usize, n: u32| counters[index + n as usize];
        stream.sent_frames.on_ack_request_answered(ack.immediate_ack_reply);
        stream.sent_frames.on_ack_received(now, ack, counter, |_| {});
        // Nothing waits in sockets here: what was sent before is taken in.
        let answer = (ack.immediate_ack_request != 0)
            .then(|| Ack { immediate_ack_reply: ack.immediate_ack_request, ..stream.build_ack() });
        if let Some(answer) = answer {
            self.send_ack(to, from, network, &answer);
        }
    }

    fn send_ack(&mut self, node: usize, peer: usize, network: usize, ack: &Ack) {
        let Some((sealed, counter)) = self.reserve_counters(node, peer, 1) else { return };
        for travel in self.networks[network].send_packet(node, peer, &mut self.data_rng) {
            let Some(travel) = travel else { continue };
            let arrival = Arrival::Ack {
                from: node,
                network,
                sender_session: sealed,
                counter,
                ack: ack.clone(),
            };
            self.schedule_step(self.now + travel, SimStep::Arrive { to: peer, arrival });
        }
    }

    /// What a worker does once per turn: pays acknowledgements, sends again what a route may have
    /// swallowed, reports.
    pub(crate) fn run_worker_turn(&mut self, node: usize) {
        self.check_data();
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            self.send_due_ack(node, peer);
            self.retransmit_unacked(node, peer);
        }
        self.schedule_data_wake(node);
    }

    fn send_due_ack(&mut self, node: usize, peer: usize) {
        let stalled = self.nodes[node].last_stall;
        let Some(stream) = &mut self.nodes[node].streams[peer] else { return };
        let Some((ack, debt)) = stream.take_due_ack(self.now, stalled) else { return };
        let row = self.nodes[node].table.peers.iter().find(|row| row.peer == peer_id(peer));
        let network = |route: &RouteId| self.scenario.network_of(node, *route);
        let own = row.and_then(|row| row.active.as_ref()).and_then(network);
        let up = row.into_iter().flat_map(|row| row.active.iter().chain(&row.backups));
        let up: Vec<_> = up.filter_map(network).collect();
        for network in debt.return_paths(|network| up.contains(&network), own) {
            self.send_ack(node, peer, network, &ack);
        }
    }

    fn retransmit_unacked(&mut self, node: usize, peer: usize) {
        let row = self.nodes[node].table.peers.iter().find(|row| row.peer == peer_id(peer));
        let Some(row) = row else { return };
        let usable: Vec<_> = row.active.iter().chain(&row.backups).copied().collect();
        let usable: Vec<_> =
            usable.into_iter().map(|route| self.usable_path(node, route)).collect();
        let Some(stream) = &mut self.nodes[node].streams[peer] else { return };
        stream.sent_frames.discard_expired(self.now, |_| {});
        let session = stream.session;
        while let Some(stream) = &mut self.nodes[node].streams[peer]
            && let Some(moved) =
                stream.sent_frames.poll_reroute(self.now, usable.iter().copied(), true)
        {
            let timeout = stream.sent_frames.pto_for_route(moved.to, self.now).unwrap_or_default();
            let again: Vec<_> = stream
                .sent_frames
                .rerouted_batches(&moved)
                .flat_map(|sent| {
                    let frames =
                        sent.missing_runs().flat_map(|(first, count)| first..first + count);
                    frames.map(|frame| sent.payload + frame as usize)
                })
                .collect();
            let Reroute { from, to, suspect, .. } = moved;
            self.trace.add_step(self.now, format_args!("node {node}: {again:?} again {from}→{to}"));
            let network = self.scenario.network_of(node, to);
            let left = suspect.then(|| self.scenario.network_of(node, from)).flatten();
            let path = (node, peer, left);
            let found = self.delivery_checker.check_reroute(path, &moved, &self.nodes[node].routes);
            self.record_result(found);
            let lazy = self.scenario.bug == Some(InjectedBug::LoseInFlight);
            for index in again.into_iter().filter(|_| !lazy) {
                let Some(network) = network else { continue };
                self.report.retransmissions += 1;
                self.transmit_copy(index, network, (session, true), timeout, false);
            }
            if suspect {
                let report_delay = self.data_rng.duration_up_to(MAX_SUSPECT_REPORT_DELAY);
                self.schedule_step(self.now + report_delay, SimStep::Suspect { node, route: from });
            }
        }
        while let Some(stream) = &mut self.nodes[node].streams[peer]
            && let Some(question) =
                stream.sent_frames.request_immediate_ack(self.now, usable.iter().copied(), true)
        {
            let ack = Ack { immediate_ack_request: question.number, ..stream.build_ack() };
            let Some(network) = self.scenario.network_of(node, question.to) else { break };
            self.send_ack(node, peer, network, &ack);
        }
    }

    /// The engine hears what a worker thinks of a route.
    pub(crate) fn on_suspect(&mut self, node: usize, route: RouteId) {
        if self.nodes[node].is_running() {
            self.handle_deferred_inputs(node);
            self.feed_engine(node, EngineInput::Suspect(route));
            self.after_step(node, false);
        }
    }

    /// A route as the flight sees it.
    fn usable_path(&self, node: usize, route: RouteId) -> UsablePath {
        let status = self.nodes[node].routes.iter().find(|status| status.id == route);
        UsablePath { route, rtt: status.and_then(|status| status.quality.rtt) }
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

    fn schedule_data_wake(&mut self, node: usize) {
        let now = self.now;
        let waits =
            self.nodes[node].streams.iter().flatten().filter_map(|one| one.time_until_due(now));
        let Some(wait) = waits.min() else { return };
        let planned = self.nodes[node].data_wake.filter(|at| *at >= now);
        if planned.is_none_or(|at| at > now + wait + self.scenario.timer_slack) {
            let at = now + wait + self.data_rng.duration_up_to(self.scenario.timer_slack);
            self.nodes[node].data_wake = Some(at);
            self.schedule_step(at, SimStep::DataWake { node });
        }
    }

    pub(crate) fn on_data_wake(&mut self, node: usize) {
        if self.nodes[node].data_wake == Some(self.now) {
            self.nodes[node].data_wake = None;
            if self.nodes[node].is_running() {
                self.run_worker_turn(node);
            }
        }
    }

    /// Packets whose time is over are judged.
    fn check_data(&mut self) {
        let (checks, truth) = (&self.checker, &self.ground_truth);
        let found = self.delivery_checker.check_overdue(self.now, checks, truth, &mut self.report);
        self.record_result(found);
    }
}

/// A node's stream with a peer, if a frame was sealed under its session.
fn stream_of_session(
    stream: &mut Option<DataStream>,
    sealed: BootIdPair,
) -> Option<&mut DataStream> {
    let here = BootIdPair { own: sealed.peer, peer: sealed.own };
    stream.as_mut().filter(|stream| stream.session == here)
}
