//! Two engines that exchange heartbeats.

use std::collections::BTreeSet;

use super::*;

const LATENCY: Duration = Duration::from_micros(100);

/// Both ends of `routes` routes, and the heartbeats in flight between them.
struct Ends {
    engines: [Engine; 2],
    now: Time,
    wire: Vec<(Time, usize, RouteId, Heartbeat)>,
    /// Who sent what, when.
    sent: Vec<(usize, Time, HeartbeatMessage)>,
}

impl Ends {
    fn new(routes: u32) -> Self {
        let engines = [1, 2].map(|seed| engine(4, seed));
        let now = Time::from_millis(1000);
        let mut ends = Self { engines, now, wire: Vec::new(), sent: Vec::new() };
        for end in [0, 1] {
            ends.input(end, EngineInput::AddPeer(PEER));
            for route in 1..=routes {
                ends.input(
                    end,
                    EngineInput::AddRoute { id: RouteId(route), spec: spec(PEER, route) },
                );
            }
            ends.input(end, EngineInput::SessionUp { peer: PEER, boot_id: 1 });
        }
        ends
    }

    fn input(&mut self, end: usize, input: EngineInput) {
        self.engines[end].on_input(self.now, input).unwrap();
        self.drain(end);
    }

    fn drain(&mut self, end: usize) {
        while let Some(output) = self.engines[end].poll_output() {
            if let EngineOutput::Send { route, heartbeat, .. } = output {
                self.sent.push((end, self.now, heartbeat.message));
                self.wire.push((self.now + LATENCY, 1 - end, route, heartbeat));
            }
        }
    }

    /// Advances the time; `lost` selects the heartbeats that do not arrive.
    fn pass(&mut self, length: Duration, lost: impl Fn(usize, &Heartbeat) -> bool) {
        let end = self.now + length;
        loop {
            let wakes = self.engines.iter().filter_map(Engine::next_wake);
            let next = wakes.chain(self.wire.iter().map(|(at, ..)| *at)).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            let (come, rest) = self.wire.drain(..).partition(|(at, ..)| *at <= self.now);
            self.wire = rest;
            for (_, to, route, heartbeat) in come {
                if !lost(to, &heartbeat) {
                    self.input(to, EngineInput::Heartbeat { peer: PEER, route, heartbeat });
                }
            }
            for end in [0, 1] {
                self.engines[end].on_timer(self.now);
                self.drain(end);
            }
        }
        self.now = end;
    }

    /// Requests of each end in the `seconds` that pass.
    fn requests(&mut self, seconds: u64, lost: impl Fn(usize, &Heartbeat) -> bool) -> [usize; 2] {
        self.sent.clear();
        self.pass(Duration::from_secs(seconds), lost);
        [0, 1].map(|end| {
            let own = |sent: &&(usize, Time, HeartbeatMessage)| {
                (sent.0, sent.2) == (end, HeartbeatMessage::Request)
            };
            self.sent.iter().filter(own).count()
        })
    }

    /// The longest time an end sent nothing.
    fn longest_silence(&self, end: usize) -> Duration {
        let sent: Vec<_> = self.sent.iter().filter(|sent| sent.0 == end).map(|s| s.1).collect();
        sent.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap_or_default()
    }

    fn states(&self) -> Vec<RouteState> {
        let all = self.engines.iter().flat_map(Engine::route_statuses);
        all.map(|status| status.state).collect()
    }
}

const ROUTES: u32 = 3;
/// Upper bound of one end's requests in ten seconds on [`ROUTES`] routes, one per delay.
const MOST: usize = 10_000 / 22 * ROUTES as usize;

fn none(_: usize, _: &Heartbeat) -> bool {
    false
}

/// Both ends together send at the rate of one, coalesced over all routes, whenever these started.
#[test]
fn the_ends_of_steady_routes_alternate_and_coalesce() {
    for late in [0, 7, 19, 33] {
        let mut ends = Ends::new(ROUTES - 1);
        ends.pass(Duration::from_millis(2000 + late), none);
        for end in [0, 1] {
            ends.input(
                end,
                EngineInput::AddRoute { id: RouteId(ROUTES), spec: spec(PEER, ROUTES) },
            );
        }
        ends.pass(Duration::from_secs(3), none);
        let requests = ends.requests(10, none);
        for count in requests {
            // One in every 54 ms, one end after the other: 38 would leave every 26 ms.
            assert!((530..590).contains(&count), "{late}: {requests:?}");
        }
        let moments: BTreeSet<_> = ends.sent.iter().map(|(end, at, _)| (*end, *at)).collect();
        let most = ends.sent.len() / ROUTES as usize * 102 / 100;
        assert!(moments.len() <= most, "{late}: {} moments, {most} expected", moments.len());
        for end in [0, 1] {
            let longest = ends.longest_silence(end);
            assert!(longest <= DELAY * 5 / 4 + LATENCY * 2, "{late}: {longest:?} in silence");
        }
        let answered =
            |status: &RouteStatus| status.quality.rtt.is_some_and(|rtt| rtt == LATENCY * 2);
        assert!(ends.engines.iter().all(|engine| engine.route_statuses().iter().all(answered)));
    }
}

/// Neither end learns of a lost request before its next one.
#[test]
fn one_lost_request_is_a_silence_of_less_than_two_delays() {
    for which in 0..40 {
        let mut ends = Ends::new(1);
        ends.pass(Duration::from_secs(2), none);
        let seen = std::cell::Cell::new(0);
        let one = |_: usize, heartbeat: &Heartbeat| {
            let request = heartbeat.message == HeartbeatMessage::Request;
            seen.set(seen.get() + u32::from(request));
            request && seen.get() == which
        };
        ends.requests(2, one);
        for end in [0, 1] {
            let longest = ends.longest_silence(end);
            assert!(longest < DELAY * 2, "request {which}: end {end} in silence for {longest:?}");
        }
        assert!(ends.states().iter().all(|state| *state == RouteState::Up));
    }
}

/// Random loss in both directions.
#[test]
fn with_lost_heartbeats_both_ends_send_requests_every_delay() {
    let mut ends = Ends::new(ROUTES);
    ends.pass(Duration::from_secs(2), none);
    // Serials run over all routes and both message types.
    let third = |_: usize, heartbeat: &Heartbeat| heartbeat.serial % 7 < 2;
    let requests = ends.requests(10, third);
    assert!(requests.iter().all(|count| *count * 10 > MOST * 7), "{requests:?} of {MOST}");
    assert!(ends.states().iter().all(|state| *state == RouteState::Up));
}

#[test]
fn an_end_that_receives_nothing_sends_requests_every_delay() {
    let mut ends = Ends::new(ROUTES);
    ends.pass(Duration::from_secs(2), none);
    let deaf = |to: usize, _: &Heartbeat| to == 0;
    let requests = ends.requests(1, deaf);
    let most = MOST / 10;
    assert!(requests[0] * 10 > most * 7, "{requests:?} of {most}");
    assert!(ends.states().iter().all(|state| *state != RouteState::Up));
}
