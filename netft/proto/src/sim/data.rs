//! The packet path of the world: data, acknowledgements and resends, decided by the real code.

use std::time::Duration;

use crate::{
    engine::{Bug, Input},
    ids::RouteId,
    loss_detection::{Frames, Move, Way},
    sim::{
        delivery::Copy,
        node::{Arrival, Session},
        report::Packet,
        scenario::peer_id,
        stream::Stream,
        world::{Step, World},
    },
    wire::ack::Ack,
};

/// Memory of one frame, bytes: a page.
const PAGE: usize = 4096;
/// The most a worker's word takes to the engine, on a busy machine.
const WORD: Duration = Duration::from_millis(10);

impl World<'_> {
    /// A node has packets for another one: some of one send.
    pub(crate) fn send_data(&mut self, from: usize, to: usize) {
        self.plan(self.now + self.scenario.data_every, Step::SendData { from, to });
        if !self.nodes[from].runs() || self.nodes[from].sessions[to].is_none() {
            return;
        }
        self.service(from);
        let count = self.data_rng.pick(&[1, 1, 1, 3]);
        let row = self.nodes[from].table.peers.iter().find(|row| row.peer == peer_id(to));
        let (active, copy) = row.map_or((None, None), |row| (row.active, row.duplicate));
        let network = active.and_then(|route| self.scenario.network_of(from, route));
        let index = self.report.packets.len();
        let Some((session, first)) = self.reserve(from, to, count) else { return };
        for number in 0..count as usize {
            self.report.packets.push(Packet { from, to, network, sent: self.now, arrived: None });
            self.delivery.sent(index + number, first + number as u64);
        }
        let (Some(route), Some(network)) = (active, network) else { return };
        let copy = copy.and_then(|route| self.scenario.network_of(from, route));
        let way = self.way(from, route);
        let frames = Frames {
            first,
            last: first + count - 1,
            count: count as u32,
            bytes: count as usize * PAGE,
            stride: PAGE,
            tail: PAGE,
        };
        let Some(stream) = &mut self.nodes[from].streams[to] else { return };
        stream.flight.note(index, frames, way, copy.is_some(), self.now);
        let timeout = stream.flight.timeout(route, self.now).unwrap_or_default();
        let alone = copy.is_none();
        for index in index..index + count as usize {
            self.transmit(index, network, (session, false), timeout, alone);
            if let Some(copy) = copy {
                self.transmit(index, copy, (session, false), timeout, false);
            }
        }
        self.wake_for_data(from);
    }

    /// Sends the frame of a packet over a network. `alone`: it goes there first, and nowhere else.
    fn transmit(
        &mut self,
        index: usize,
        network: usize,
        (sealed, again): (Session, bool),
        timeout: Duration,
        alone: bool,
    ) {
        let Packet { from, to, .. } = self.report.packets[index];
        let counter = self.delivery.counters()[index];
        let travels = self.networks[network].send(from, to, &mut self.data_rng);
        let until = self.now + timeout + self.scenario.timer_slack;
        let through = travels[0].is_some();
        let copy = Copy { network, at: self.now, until, through, alone, doubted: false };
        self.delivery.copied(index, (from, to), copy);
        for travel in travels.into_iter().flatten() {
            let arrival = Arrival::Data { from, network, sealed, counter, index, again };
            self.plan(self.now + travel, Step::Arrive { to, arrival });
        }
    }

    /// A frame reached a running node, which services its packet path after it.
    pub(crate) fn data_arrived(
        &mut self,
        (from, to): (usize, usize),
        network: usize,
        (sealed, counter): (Session, u64),
        (index, again): (usize, bool),
    ) {
        let now = self.now;
        let deaf = again && self.scenario.bug == Some(Bug::DeliverTwice);
        let Some(stream) = stream(&mut self.nodes[to].streams[from], sealed) else { return };
        let fresh = stream.window.accept(counter) || deaf;
        stream.owe(network, counter, fresh, now);
        if fresh {
            self.trace.number(index as u64);
            let found = self.delivery.delivered(index, &mut self.report, now);
            self.judge(found);
        }
    }

    /// An acknowledgement reached a running node.
    pub(crate) fn ack_arrived(
        &mut self,
        (from, to): (usize, usize),
        network: usize,
        (sealed, counter): (Session, u64),
        ack: &Ack,
    ) {
        let (now, counters) = (self.now, self.delivery.counters());
        let Some(stream) = stream(&mut self.nodes[to].streams[from], sealed) else { return };
        if !stream.window.accept(counter) {
            return;
        }
        let counter = |index: &usize, n: u32| counters[index + n as usize];
        stream.flight.answered(ack.answers);
        stream.flight.hear(now, ack, counter, |_| {});
        // Nothing waits in sockets here: what was sent before is taken in.
        let answer = (ack.asks != 0).then(|| Ack { answers: ack.asks, ..stream.ack() });
        if let Some(answer) = answer {
            self.send_ack(to, from, network, &answer);
        }
    }

    fn send_ack(&mut self, node: usize, peer: usize, network: usize, ack: &Ack) {
        let Some((sealed, counter)) = self.reserve(node, peer, 1) else { return };
        for travel in self.networks[network].send(node, peer, &mut self.data_rng) {
            let Some(travel) = travel else { continue };
            let arrival = Arrival::Ack { from: node, network, sealed, counter, ack: ack.clone() };
            self.plan(self.now + travel, Step::Arrive { to: peer, arrival });
        }
    }

    /// What a worker does once per turn: pays acknowledgements, sends again what a route may have
    /// swallowed, reports.
    pub(crate) fn service(&mut self, node: usize) {
        self.judge_data();
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            self.pay(node, peer);
            self.send_again(node, peer);
        }
        self.wake_for_data(node);
    }

    fn pay(&mut self, node: usize, peer: usize) {
        let stalled = self.nodes[node].stalled;
        let Some(stream) = &mut self.nodes[node].streams[peer] else { return };
        let Some((ack, debt)) = stream.pay(self.now, stalled) else { return };
        let row = self.nodes[node].table.peers.iter().find(|row| row.peer == peer_id(peer));
        let network = |route: &RouteId| self.scenario.network_of(node, *route);
        let own = row.and_then(|row| row.active.as_ref()).and_then(network);
        let up = row.into_iter().flat_map(|row| row.active.iter().chain(&row.backups));
        let up: Vec<_> = up.filter_map(network).collect();
        for network in debt.ways(|network| up.contains(&network), own) {
            self.send_ack(node, peer, network, &ack);
        }
    }

    fn send_again(&mut self, node: usize, peer: usize) {
        let row = self.nodes[node].table.peers.iter().find(|row| row.peer == peer_id(peer));
        let Some(row) = row else { return };
        let usable: Vec<_> = row.active.iter().chain(&row.backups).copied().collect();
        let usable: Vec<_> = usable.into_iter().map(|route| self.way(node, route)).collect();
        let Some(stream) = &mut self.nodes[node].streams[peer] else { return };
        stream.flight.trim(self.now, |_| {});
        let session = stream.session;
        while let Some(stream) = &mut self.nodes[node].streams[peer]
            && let Some(moved) = stream.flight.decide(self.now, usable.iter().copied(), true)
        {
            let timeout = stream.flight.timeout(moved.to, self.now).unwrap_or_default();
            let again: Vec<_> = stream
                .flight
                .moved(&moved)
                .flat_map(|sent| {
                    let frames = sent.runs().flat_map(|(first, count)| first..first + count);
                    frames.map(|frame| sent.payload + frame as usize)
                })
                .collect();
            let Move { from, to, suspect, .. } = moved;
            self.trace.step(self.now, format_args!("node {node}: {again:?} again {from}→{to}"));
            let network = self.scenario.network_of(node, to);
            let left = suspect.then(|| self.scenario.network_of(node, from)).flatten();
            let way = (node, peer, left);
            let found = self.delivery.moved(way, &moved, &self.nodes[node].routes);
            self.judge(found);
            let lazy = self.scenario.bug == Some(Bug::LoseInFlight);
            for index in again.into_iter().filter(|_| !lazy) {
                let Some(network) = network else { continue };
                self.report.resends += 1;
                self.transmit(index, network, (session, true), timeout, false);
            }
            if suspect {
                let word = self.data_rng.upto(WORD);
                self.plan(self.now + word, Step::Suspect { node, route: from });
            }
        }
        while let Some(stream) = &mut self.nodes[node].streams[peer]
            && let Some(question) = stream.flight.ask(self.now, usable.iter().copied(), true)
        {
            let ack = Ack { asks: question.number, ..stream.ack() };
            let Some(network) = self.scenario.network_of(node, question.to) else { break };
            self.send_ack(node, peer, network, &ack);
        }
    }

    /// The engine hears what a worker thinks of a route.
    pub(crate) fn suspect(&mut self, node: usize, route: RouteId) {
        if self.nodes[node].runs() {
            self.catch_up(node);
            self.handle(node, Input::Suspect(route));
            self.settled(node, false);
        }
    }

    /// A route as the flight sees it.
    fn way(&self, node: usize, route: RouteId) -> Way {
        let status = self.nodes[node].routes.iter().find(|status| status.id == route);
        Way { route, rtt: status.and_then(|status| status.rtt) }
    }

    fn reserve(&mut self, node: usize, peer: usize, count: u64) -> Option<(Session, u64)> {
        let stream = self.nodes[node].streams[peer].as_mut()?;
        Some((stream.session, stream.reserve(count)))
    }

    fn wake_for_data(&mut self, node: usize) {
        let now = self.now;
        let waits = self.nodes[node].streams.iter().flatten().filter_map(|one| one.wait(now));
        let Some(wait) = waits.min() else { return };
        let planned = self.nodes[node].data_wake.filter(|at| *at >= now);
        if planned.is_none_or(|at| at > now + wait + self.scenario.timer_slack) {
            let at = now + wait + self.data_rng.upto(self.scenario.timer_slack);
            self.nodes[node].data_wake = Some(at);
            self.plan(at, Step::DataWake { node });
        }
    }

    pub(crate) fn data_wake(&mut self, node: usize) {
        if self.nodes[node].data_wake == Some(self.now) {
            self.nodes[node].data_wake = None;
            if self.nodes[node].runs() {
                self.service(node);
            }
        }
    }

    /// Packets whose time is over are judged.
    fn judge_data(&mut self) {
        let (checks, truth) = (&self.checks, &self.truth);
        let found = self.delivery.judge(self.now, checks, truth, &mut self.report);
        self.judge(found);
    }
}

/// A node's stream with a peer, if a frame was sealed under its session.
fn stream(stream: &mut Option<Stream>, sealed: Session) -> Option<&mut Stream> {
    let here = Session { own: sealed.peer, peer: sealed.own };
    stream.as_mut().filter(|stream| stream.session == here)
}
