use std::time::Duration;

use super::*;

const HEADERS: usize = 28;
const DELAY: Duration = Duration::from_millis(30);
const TIMER: Duration = Duration::from_millis(150);
const RTT: Duration = Duration::from_millis(1);
const RAISE: Duration = Duration::from_secs(60);

/// A route over a path that carries packets of `mtu` bytes, and both its clocks.
struct Rig {
    mtu: PathMtu,
    path: usize,
    /// Heartbeats are delivered.
    alive: bool,
    /// Probes are answered, whatever their size.
    answers: bool,
    now: Time,
    carries: bool,
    sent: Vec<usize>,
}

impl Rig {
    /// An interface of `limit` bytes over a path of `path` bytes, packets both.
    fn new(limit: usize, path: usize) -> Self {
        let mut mtu = PathMtu::new(HEADERS);
        mtu.set_limit(Time::ZERO, limit - HEADERS, 0);
        let now = Time::from_millis(1000);
        Self { mtu, path, alive: true, answers: true, now, carries: true, sent: Vec::new() }
    }

    fn around(&self) -> MtuInputs {
        let carries = self.carries;
        MtuInputs { delay: DELAY, rtt: Some(RTT), carries_data: carries, raise_timer: RAISE }
    }

    /// One heartbeat and its answer, and the probes that are due.
    fn beat(&mut self) {
        let mut due = self.mtu.poll_probe(self.now, &self.around());
        if self.alive {
            self.mtu.on_heartbeat_answered(self.now);
        }
        for _ in 0..20 {
            let Some(probe) = due.take() else { break };
            self.sent.push(probe.size + HEADERS);
            if self.alive && self.answers && probe.size + HEADERS <= self.path {
                self.mtu.on_probe_answered(self.now + RTT, &self.around(), probe);
                due = self.mtu.poll_probe(self.now + RTT, &self.around());
            }
        }
        assert!(due.is_none(), "a search does not end");
        self.now = self.now + DELAY;
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.beat();
        }
    }

    fn packet(&self) -> usize {
        self.mtu.packet_size().expect("the limit is set")
    }
}

/// The largest size the search can find below `path`.
fn findable(limit: usize, path: usize) -> usize {
    let base = BASE_PLPMTU + HEADERS;
    let sizes = COMMON_PACKET_SIZES.into_iter().chain([base, limit]);
    sizes.filter(|size| *size <= path && *size <= limit).max().unwrap_or(base)
}

#[test]
fn every_path_is_found_and_a_whole_one_costs_a_probe_a_second() {
    for limit in [1280, 1400, 1500, 4096, 9000, 65_535] {
        for path in (1228..1600).chain([3999, 4000, 4096, 8999, 9000, 20_000, 65_535]) {
            let mut rig = Rig::new(limit, path);
            assert_eq!(rig.packet(), limit, "a route starts at its interface's size");
            rig.pass(Duration::from_secs(5));
            assert_eq!(rig.packet(), findable(limit, path), "limit {limit}, path {path}");
            if path >= limit {
                assert!((4..=6).contains(&rig.sent.len()), "{:?}", rig.sent);
            }
        }
    }
}

#[test]
fn a_black_hole_is_left_after_three_lost_probes_and_the_base_is_used_meanwhile() {
    let mut rig = Rig::new(1500, 1500);
    rig.pass(Duration::from_secs(3));
    rig.path = 1400;
    rig.mtu.suspect_black_hole(rig.now);
    let start = rig.now;
    let before = rig.sent.len();
    while rig.packet() == 1500 {
        rig.beat();
    }
    assert_eq!(rig.sent[before..before + 3], [1500; 3]);
    let took = rig.now.since(start);
    assert!(took <= TIMER * 3 + DELAY * 4, "{took:?}");
    let base = BASE_PLPMTU + HEADERS;
    assert_eq!(rig.sent[before + 3], base);
    assert_eq!(rig.packet(), base);
    assert!(rig.sent.len() > before + 4, "the search goes on in the same moment");
    rig.pass(Duration::from_secs(3));
    assert_eq!(rig.packet(), 1400);
}

#[test]
fn without_a_hint_the_confirmation_timer_finds_the_black_hole() {
    for (carries, bound) in [(true, 2), (false, 11)] {
        let mut rig = Rig::new(1500, 1500);
        rig.carries = carries;
        rig.pass(Duration::from_secs(11));
        rig.path = 1280;
        rig.pass(Duration::from_secs(bound));
        assert!(rig.packet() <= 1280, "carries: {carries}");
    }
}

#[test]
fn a_path_that_heals_is_used_whole_again_after_the_raise_timer() {
    let mut rig = Rig::new(9000, 1492);
    rig.pass(Duration::from_secs(10));
    assert_eq!(rig.packet(), 1492);
    let start = rig.now;
    rig.path = 9000;
    while rig.packet() < 9000 {
        rig.beat();
        assert!(rig.now.since(start) <= RAISE);
    }
}

#[test]
fn a_path_with_a_small_mtu_costs_few_probes() {
    let mut rig = Rig::new(1500, 1400);
    rig.pass(Duration::from_secs(10));
    rig.sent.clear();
    rig.pass(RAISE * 10);
    let too_large = rig.sent.iter().filter(|size| **size > 1400).count();
    assert!(too_large <= 10 * 15, "{too_large}");
    assert_eq!(rig.packet(), 1400);
}

#[test]
fn a_failing_route_does_not_lower_its_mtu() {
    let mut rig = Rig::new(1500, 1500);
    rig.pass(Duration::from_secs(3));
    rig.alive = false;
    rig.pass(Duration::from_secs(20));
    assert_eq!(rig.packet(), 1500);
    rig.mtu.pause_probing();
    rig.alive = true;
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.packet(), 1500);
}

#[test]
fn two_lost_probes_in_a_row_prove_nothing() {
    let mut rig = Rig::new(1500, 1500);
    for _ in 0..50 {
        rig.pass(Duration::from_millis(1500));
        rig.answers = false;
        rig.mtu.suspect_black_hole(rig.now);
        let sent = rig.sent.len();
        while rig.sent.len() < sent + 2 {
            rig.beat();
        }
        rig.answers = true;
    }
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.packet(), 1500);
}

#[test]
fn mere_loss_lowers_the_size_for_a_moment_only() {
    let mut rig = Rig::new(1500, 1500);
    rig.pass(Duration::from_secs(3));
    rig.answers = false;
    rig.mtu.suspect_black_hole(rig.now);
    while rig.packet() == 1500 {
        rig.beat();
    }
    rig.answers = true;
    rig.pass(TIMER + DELAY);
    assert_eq!(rig.packet(), 1500, "not only after the raise timer");
}

#[test]
fn late_answers_count_and_others_do_not() {
    let mut rig = Rig::new(1500, 1500);
    rig.answers = false;
    let around = rig.around();
    let first = rig.mtu.poll_probe(rig.now, &around).expect("the size is confirmed at once");
    rig.now = rig.now + DELAY;
    rig.pass(TIMER);
    assert!(rig.mtu.probes.in_flight.is_some(), "the second probe is in flight");
    let forged = MtuProbe { size: first.size + 1, ..first };
    rig.mtu.on_probe_answered(rig.now, &around, forged);
    rig.mtu.on_probe_answered(rig.now, &around, MtuProbe { sequence: first.sequence + 9, ..first });
    assert_eq!(rig.mtu.phase, SearchPhase::Confirm);
    rig.mtu.on_probe_answered(rig.now, &around, first);
    assert_eq!(rig.mtu.phase, SearchPhase::Complete);
    assert_eq!(rig.packet(), 1500);
}

#[test]
fn a_peer_that_answers_no_probe_gets_the_base_until_it_does() {
    let mut rig = Rig::new(1500, 1500);
    rig.answers = false;
    rig.pass(Duration::from_secs(30));
    assert_eq!(rig.packet(), BASE_PLPMTU + HEADERS);
    let rate = rig.sent.len();
    assert!(rate < 30 * 4, "{rate} probes in half a minute");
    rig.answers = true;
    rig.pass(Duration::from_secs(2));
    assert_eq!(rig.packet(), 1500);
}

#[test]
fn the_interface_is_followed_down_at_once_and_up_after_a_probe() {
    let mut rig = Rig::new(9000, 9000);
    rig.pass(Duration::from_secs(1));
    rig.mtu.set_limit(rig.now, 1500 - HEADERS, 0);
    assert_eq!(rig.packet(), 1500);
    rig.pass(Duration::from_secs(1));
    rig.mtu.set_limit(rig.now, 9000 - HEADERS, 0);
    assert_eq!(rig.packet(), 1500, "not before it is proven");
    rig.pass(DELAY);
    assert_eq!(rig.packet(), 9000);
    rig.mtu.set_limit(rig.now, 600 - HEADERS, 0);
    rig.pass(Duration::from_secs(3));
    assert_eq!(rig.packet(), 600, "an interface below the base has no search");
}

/// Another transport has other overhead per frame; the packets are the same.
#[test]
fn another_carrier_changes_the_frames_and_not_the_packets() {
    const ADDED: usize = 38;
    let mut rig = Rig::new(1500, 1400);
    rig.pass(Duration::from_secs(2));
    assert_eq!((rig.packet(), rig.mtu.datagram_size()), (1400, Some(1400 - HEADERS)));
    for (added, path) in [(ADDED, 1400 - ADDED), (0, 1400)] {
        rig.mtu.set_limit(rig.now, 1500 - HEADERS - added, added);
        rig.path = path;
        assert_eq!((rig.packet(), rig.mtu.datagram_size()), (1400, Some(1400 - HEADERS - added)));
        rig.pass(Duration::from_secs(2));
        assert_eq!(rig.packet(), 1400);
    }
    rig.mtu.set_limit(rig.now, 1500 - HEADERS - ADDED, ADDED);
    rig.path = 1500 - ADDED;
    rig.pass(2 * RAISE);
    assert_eq!(rig.packet(), 1500, "plausible packets are tried, whatever their frames");
}

#[test]
fn what_the_kernel_refuses_lowers_at_once() {
    let mut rig = Rig::new(1500, 1500);
    let due = rig.mtu.poll_probe(rig.now, &rig.around()).expect("the first probe");
    rig.mtu.on_probe_refused(
        rig.now,
        &rig.around(),
        MtuProbe { sequence: due.sequence + 1, ..due },
    );
    assert_eq!(rig.packet(), 1500, "not the probe in flight");
    rig.mtu.on_probe_refused(rig.now, &rig.around(), due);
    assert_eq!(rig.packet(), BASE_PLPMTU + HEADERS);
}

#[test]
fn a_route_that_begins_to_carry_data_is_confirmed_at_once() {
    let mut rig = Rig::new(1500, 1500);
    rig.carries = false;
    rig.pass(Duration::from_secs(3));
    assert_eq!(rig.sent.len(), 1);
    rig.carries = true;
    rig.beat();
    assert_eq!(rig.sent.len(), 2);
}

#[test]
fn a_route_that_returns_over_another_path_is_confirmed_and_raised() {
    let mut rig = Rig::new(1500, 1400);
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.packet(), 1400);
    rig.mtu.pause_probing();
    rig.path = 1500;
    rig.pass(Duration::from_millis(60));
    assert_eq!(rig.packet(), 1500);
    rig.mtu.pause_probing();
    rig.path = 1300;
    rig.pass(Duration::from_secs(4));
    assert_eq!(rig.packet(), 1280);
}

#[test]
fn a_recheck_confirms_the_size_and_tries_a_larger_one_at_once() {
    let mut rig = Rig::new(1500, 1400);
    rig.pass(TIMER * 40);
    assert_eq!(rig.mtu.packet_size(), Some(1400));
    let requested_at = rig.now;
    rig.mtu.recheck_if_complete(requested_at);
    assert!(rig.mtu.status().probing);
    rig.beat();
    let status = rig.mtu.status();
    assert!(status.proven.is_some_and(|at| at >= requested_at), "{status:?}");
    assert_eq!((status.limit, rig.mtu.packet_size()), (Some(1500), Some(1400)));
    // A second request meanwhile does not restart it, and only the interface's size is tried.
    rig.sent.clear();
    for _ in 0..200 {
        rig.beat();
        if !rig.mtu.status().probing {
            break;
        }
        rig.mtu.recheck_if_complete(rig.now);
    }
    assert!(!rig.mtu.status().probing && rig.mtu.packet_size() == Some(1400));
    assert_eq!(rig.sent, [1500; 2], "after the one with the first heartbeat");
    rig.path = 1500;
    rig.mtu.recheck_if_complete(rig.now);
    rig.pass(DELAY * 2);
    assert_eq!((rig.mtu.packet_size(), rig.mtu.status().probing), (Some(1500), false));
}

#[test]
fn what_no_answer_proves_is_not_called_proven() {
    let mut rig = Rig::new(1500, 1500);
    assert_eq!(rig.mtu.status().proven, None);
    rig.answers = false;
    rig.pass(TIMER * 2);
    assert_eq!((rig.mtu.packet_size(), rig.mtu.status().proven), (Some(1500), None));
    rig.answers = true;
    rig.pass(TIMER * 2);
    assert!(rig.mtu.status().proven.is_some());
    rig.mtu.set_limit(rig.now, 1300 - HEADERS, 0);
    assert_eq!(rig.mtu.status().proven, None);
}
