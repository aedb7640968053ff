#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{
    ids::RouteId,
    time::Time,
    wire::ack::{Ack, AckRange},
};

const A: RouteId = RouteId(1);
const B: RouteId = RouteId(2);
const C: RouteId = RouteId(3);

fn path(route: RouteId) -> UsablePath {
    UsablePath { route, rtt: None, loss_epoch: 0 }
}

fn ms(at: u64) -> Time {
    Time::from_millis(at)
}

fn frames(counters: std::ops::Range<u64>, [stride, tail]: [usize; 2]) -> BatchLayout {
    let count = (counters.end - counters.start) as u32;
    BatchLayout { first: counters.start, last: counters.end - 1, count, bytes: 4096, stride, tail }
}

/// Sent frames whose payloads are first counters; the counters of a batch are consecutive.
struct Rig {
    sent_frames: SentFrames<u64>,
    forgotten: Vec<u64>,
    usable: Vec<RouteId>,
}

impl Rig {
    fn new(usable: &[RouteId]) -> Self {
        let sent_frames = SentFrames::new(RetransmitLimits::default());
        Self { sent_frames, forgotten: Vec::new(), usable: usable.to_vec() }
    }

    fn send_on(&mut self, route: RouteId, at: u64, counters: std::ops::Range<u64>) {
        let first = counters.start;
        self.sent_frames.on_sent(first, frames(counters, [1400; 2]), path(route), None, ms(at));
    }

    /// Frames of one size but the last.
    fn send_sized(&mut self, at: u64, counters: std::ops::Range<u64>, sizes: [usize; 2]) {
        self.sent_frames.on_sent(counters.start, frames(counters, sizes), path(A), None, ms(at));
    }

    fn send(&mut self, at: u64, counters: std::ops::Range<u64>) {
        self.send_on(A, at, counters);
    }

    fn ack(&mut self, at: u64, ranges: &[(u64, u64)]) {
        self.ack_stalled(at, ranges, 0);
    }

    fn ack_stalled(&mut self, at: u64, ranges: &[(u64, u64)], stalled_ms: u16) {
        let ranges: Vec<_> =
            ranges.iter().map(|(first, last)| AckRange { first: *first, last: *last }).collect();
        let ack = Ack { highest: ranges[0].last, stalled_ms, ranges, ..Ack::default() };
        let counter = |first: &u64, n: u32| first + u64::from(n);
        self.sent_frames.on_ack_received(ms(at), &ack, counter, |first| self.forgotten.push(first));
    }

    fn decide(&mut self, at: u64) -> Option<Reroute> {
        let usable = self.usable.clone();
        self.sent_frames.poll_reroute(ms(at), usable.iter().copied().map(path), true)
    }

    /// The reroutes, each with the retransmitted counters.
    fn moves(&mut self, at: u64) -> Vec<(RouteId, RouteId, Vec<u64>)> {
        let mut moves = Vec::new();
        while let Some(moved) = self.decide(at) {
            let again = self.sent_frames.rerouted_batches(&moved).flat_map(|sent| {
                let frames = sent.missing_runs().flat_map(|(first, count)| first..first + count);
                frames.map(|frame| sent.payload + u64::from(frame)).collect::<Vec<_>>()
            });
            moves.push((moved.from, moved.to, again.collect()));
        }
        moves
    }

    /// Measures an RTT of 1 ms.
    fn learn_rtt(&mut self) {
        for n in 0..50 {
            self.send(n * 10, n..n + 1);
            self.ack(n * 10 + 1, &[(0, n)]);
        }
        assert_eq!(self.sent_frames.pto_for_route(A, ms(500)), Some(rtt_estimator::MIN_PTO));
    }
}

#[test]
fn what_is_acknowledged_is_forgotten_and_what_is_not_is_kept() {
    let mut rig = Rig::new(&[A, B]);
    rig.send(0, 0..10);
    rig.send(0, 10..20);
    rig.ack(1, &[(12, 19), (0, 10)]);
    assert_eq!(rig.forgotten, [0]);
    let kept: Vec<_> = rig.sent_frames.batches[0].missing_runs().collect();
    assert_eq!(kept, [(1, 1)], "counter 11 is missing");
    rig.ack(2, &[(0, 19)]);
    assert_eq!(
        (rig.forgotten.len(), rig.sent_frames.is_empty(), rig.sent_frames.bytes),
        (2, true, 0)
    );
}

#[test]
fn silence_sends_everything_again_in_order_and_the_timeout_doubles() {
    let mut rig = Rig::new(&[A, B]);
    rig.learn_rtt();
    assert_eq!(rig.moves(10_000), [], "nothing waits");
    rig.send(20_000, 50..52);
    rig.send(20_001, 52..53);
    assert_eq!(
        rig.sent_frames.until_next_timeout(ms(20_001)),
        Some(Duration::from_millis(6)),
        "to the request for an acknowledgement"
    );
    assert_eq!(rig.moves(20_009), []);
    assert_eq!(rig.moves(20_010), [(A, B, vec![50, 51, 52])]);
    // Nothing was measured on B: its timeout is the initial one, which A's silence leaves alone.
    assert_eq!(rig.moves(20_059), []);
    assert_eq!(rig.moves(20_060), [(B, A, vec![50, 51, 52])]);
    assert_eq!(rig.moves(20_079), [], "A's own timeout doubled");
    assert_eq!(rig.moves(20_080), [(A, B, vec![50, 51, 52])]);
    rig.ack(20_081, &[(0, 52)]);
    assert_eq!(rig.moves(30_000), []);
}

#[test]
fn a_second_silence_leads_to_the_route_that_was_not_silent_yet() {
    let mut rig = Rig::new(&[A, B, C]);
    rig.send(0, 0..1);
    let led: Vec<_> = (0..900).flat_map(|at| rig.moves(at)).map(|(_, to, _)| to).collect();
    assert_eq!(led[..3], [B, C, A]);
}

#[test]
fn with_a_single_route_nothing_is_sent_again() {
    let mut rig = Rig::new(&[A]);
    rig.send(0, 0..1);
    assert!((0..2000).all(|at| rig.decide(at).is_none()));
    assert_eq!(rig.sent_frames.take_sole_path_silent(), Some(A), "but its silence is reported");
    assert_eq!(rig.sent_frames.take_sole_path_silent(), None, "once");
    let mut rig = Rig::new(&[]);
    rig.send(0, 0..1);
    assert!((0..2000).all(|at| rig.decide(at).is_none()));
}

#[test]
fn with_unread_datagrams_no_path_is_suspected() {
    let mut rig = Rig::new(&[A, B]);
    rig.send(0, 0..1);
    let usable = [path(A), path(B)];
    assert_eq!(rig.sent_frames.poll_reroute(ms(900), usable.into_iter(), false), None);
    assert!(rig.sent_frames.poll_reroute(ms(900), usable.into_iter(), true).is_some());
}

#[test]
fn a_route_that_was_given_up_loses_its_sends_at_once() {
    let mut rig = Rig::new(&[A, B]);
    rig.send(0, 0..2);
    rig.send_on(B, 0, 2..3);
    rig.ack(1, &[(1, 1)]);
    rig.usable = vec![C, B];
    let moved = rig.decide(2).unwrap();
    assert_eq!((moved.from, moved.to, moved.suspect), (A, C, false));
    assert_eq!(moved.waited, Duration::from_millis(2));
    let again: Vec<_> =
        rig.sent_frames.rerouted_batches(&moved).flat_map(SentBatch::missing_runs).collect();
    assert_eq!(again, [(0, 1)], "frame 1 arrived");
    assert_eq!(rig.decide(2), None);
}

#[test]
fn a_frame_lost_alone_makes_no_route_suspect_and_goes_in_time() {
    let mut rig = Rig::new(&[A, B]);
    rig.send(0, 0..1);
    rig.send(0, 1..2);
    rig.ack(1, &[(1, 1)]);
    assert_eq!(rig.moves(500), [], "its neighbour arrived: the route works");
    for n in 2..70 {
        rig.send(2, n..n + 1);
    }
    rig.ack(3, &[(1, 69)]);
    assert!(!rig.sent_frames.is_empty(), "it may be reordered");
    rig.ack(30, &[(1, 69)]);
    assert!(rig.sent_frames.is_empty());
}

/// A path becomes suspect, new batches are sent there until the engine has judged it, and it
/// delivers again before the next PTO.
fn suspect_path(usable: &[RouteId]) -> Rig {
    let mut rig = Rig::new(&[A, B]);
    rig.learn_rtt();
    rig.send(600, 50..51);
    assert_eq!(rig.moves(610), [(A, B, vec![50])]);
    rig.send(611, 51..53);
    rig.usable = usable.to_vec();
    for n in 53..120 {
        rig.send(612, n..n + 1);
    }
    rig.ack(613, &[(53, 119), (0, 50)]);
    rig
}

#[test]
fn batches_sent_on_a_suspect_path_are_retransmitted_although_later_ones_arrive() {
    let mut rig = suspect_path(&[A, B]);
    assert_eq!(rig.moves(613), [(A, B, vec![51, 52])]);
    assert_eq!(rig.moves(613), []);
    // A batch was delivered since, so the path is not suspect.
    rig.send(614, 120..121);
    for n in 121..190 {
        rig.send(614, n..n + 1);
    }
    rig.ack(644, &[(121, 189), (0, 119)]);
    assert!(rig.sent_frames.is_empty(), "lost alone: left to TCP");
}

#[test]
fn batches_sent_on_a_suspect_path_are_lost_without_another_path() {
    let mut rig = suspect_path(&[A]);
    assert_eq!(rig.moves(613), []);
    rig.ack(641, &[(53, 119), (0, 50)]);
    assert!(rig.sent_frames.is_empty());
}

#[test]
fn the_tail_of_a_send_that_arrived_in_part_goes_out_again() {
    let mut rig = Rig::new(&[A, B]);
    rig.learn_rtt();
    rig.send(600, 50..60);
    rig.ack(601, &[(0, 56)]);
    assert_eq!(rig.moves(610), []);
    assert_eq!(rig.moves(611), [(A, B, vec![57, 58, 59])]);
}

#[test]
fn what_arrives_on_another_route_does_not_hide_a_silent_one() {
    let mut rig = Rig::new(&[A, B]);
    rig.learn_rtt();
    rig.send(600, 50..51);
    for n in 0..500 {
        rig.send_on(B, 600, 51 + n..52 + n);
    }
    rig.ack(601, &[(51, 550)]);
    assert_eq!(rig.moves(609), []);
    assert_eq!(rig.moves(610), [(A, B, vec![50])]);
    // Its counter is lower than those delivered on B, its send number is higher.
    assert!((611..1500).any(|at| !rig.moves(at).is_empty()), "a second loss is noticed too");
}

#[test]
fn a_copy_that_is_acknowledged_proves_neither_route() {
    let mut rig = Rig::new(&[A, B]);
    rig.learn_rtt();
    rig.send(600, 50..51);
    for n in 51..60 {
        rig.sent_frames.on_sent(n, frames(n..n + 1, [1400; 2]), path(A), Some(B), ms(500 + n * 2));
        rig.ack(501 + n * 2, &[(51, n), (0, 49)]);
    }
    assert_eq!(rig.moves(620), [(A, B, vec![50])]);
}

/// The peer counts every copy that arrives by its route.
#[test]
fn acknowledged_frames_count_on_every_route_that_carried_them() {
    let mut rig = Rig::new(&[A, B]);
    rig.learn_rtt();
    let acked = |rig: &mut Rig| {
        let mut counts = Vec::new();
        take_acked_frames(&mut rig.sent_frames, |route, frames| counts.push((route, frames)));
        counts
    };
    assert_eq!(acked(&mut rig), [(A, 50)]);
    rig.send(600, 50..52);
    rig.ack(601, &[(0, 50)]);
    assert_eq!(acked(&mut rig), [(A, 1)]);
    assert_eq!(rig.moves(620), [(A, B, vec![51])]);
    rig.ack(621, &[(0, 51)]);
    assert_eq!(acked(&mut rig), [(A, 1), (B, 1)]);
    rig.sent_frames.on_sent(52, frames(52..54, [1400; 2]), path(A), Some(B), ms(630));
    rig.ack(631, &[(0, 53)]);
    assert_eq!((acked(&mut rig), acked(&mut rig)), (vec![(A, 2), (B, 2)], vec![]));
}

/// F-10: what was in flight when a change explained losses counts neither as lost nor as missing.
#[test]
fn frames_of_an_earlier_epoch_count_nowhere() {
    for epoch in [0, 1] {
        let mut rig = Rig::new(&[A, B]);
        let next = UsablePath { loss_epoch: epoch, ..path(A) };
        (0..10).for_each(|n| rig.send(n, n..n + 1));
        rig.sent_frames.on_sent(10, frames(10..12, [1400; 2]), path(A), Some(B), ms(10));
        for n in 12..20 {
            rig.sent_frames.on_sent(n, frames(n..n + 1, [1400; 2]), next, None, ms(n));
        }
        rig.ack(60, &[(10, 19)]);
        let lost = rig.sent_frames.take_data_loss(ms(60)).map_or(0, |loss| loss.share.permille);
        let mut acked = [0; 3];
        take_acked_frames(&mut rig.sent_frames, |route, frames| acked[route.0 as usize] = frames);
        let expected = if epoch == 0 { (555, [0, 10, 0]) } else { (0, [0, 8, 0]) };
        assert_eq!((lost, acked), expected);
    }
}

#[test]
fn a_slow_route_is_learnt_although_everything_was_sent_twice() {
    let mut rig = Rig::new(&[A, B]);
    rig.learn_rtt();
    // Acknowledgements take 100 ms from here on.
    let mut copies = Vec::new();
    for n in 0..40u64 {
        let at = 1000 + n * 100;
        if n > 0 {
            rig.ack(at, &[(0, 49 + n)]);
        }
        rig.send(at, 50 + n..51 + n);
        copies.push((0..100).flat_map(|ms| rig.moves(at + ms)).count());
    }
    assert!(copies[..5].iter().sum::<usize>() > 0, "{copies:?}");
    assert_eq!(copies[10..].iter().sum::<usize>(), 0, "{copies:?}");
}

#[test]
fn a_peer_that_was_not_scheduled_gets_that_time_on_top() {
    let mut rig = Rig::new(&[A, B]);
    rig.learn_rtt();
    rig.send(600, 50..51);
    rig.ack_stalled(640, &[(0, 50)], 39);
    assert_eq!(
        rig.sent_frames.pto_for_route(A, ms(641)),
        Some(rtt_estimator::MIN_PTO + Duration::from_millis(39))
    );
    rig.send(641, 51..52);
    assert_eq!(rig.moves(689), []);
    rig.ack(689, &[(0, 51)]);
    rig.send(5000, 52..53);
    assert_eq!(rig.moves(5060).len(), 1, "the report expires");
}

#[test]
fn age_and_size_are_bounded_and_counted() {
    let mut rig = Rig::new(&[A, B]);
    rig.send(0, 0..10);
    rig.send(500, 10..20);
    assert!(!rig.moves(900).is_empty());
    let mut gone = 0;
    assert_eq!(rig.sent_frames.discard_expired(ms(1000), |_| gone += 1), 0);
    assert_eq!(
        rig.sent_frames.discard_expired(ms(1001), |_| gone += 1),
        10,
        "from its first transmission"
    );
    assert_eq!(gone, 1);
    rig.sent_frames.bytes = DEFAULT_BYTES + 1;
    assert_eq!(rig.sent_frames.discard_expired(ms(1001), |_| gone += 1), 10);
    assert!(rig.sent_frames.is_empty());
    assert_eq!(rig.sent_frames.until_next_timeout(ms(1001)), None);
}

/// F-10: the path MTU shrank. Small frames are delivered, large ones are lost.
#[test]
fn small_frames_that_arrive_do_not_excuse_large_ones() {
    let mut rig = Rig::new(&[A, B]);
    rig.learn_rtt();
    rig.send_sized(600, 50..53, [1400, 1400]);
    for n in 53..60 {
        let at = 547 + n;
        rig.send_sized(at, n..n + 1, [1400, 100]);
        rig.ack(at + 1, &[(53, n), (0, 49)]);
    }
    assert_eq!(rig.moves(609), []);
    assert_eq!(rig.moves(610), [(A, B, vec![50, 51, 52])]);
}

/// The last frame of a batch is shorter: it arrives, the others do not.
#[test]
fn a_short_tail_does_not_excuse_the_rest() {
    let mut rig = Rig::new(&[A, B]);
    rig.learn_rtt();
    rig.send_sized(600, 50..54, [1400, 300]);
    rig.send_sized(600, 54..58, [1400, 300]);
    rig.ack(601, &[(57, 57), (53, 53), (0, 49)]);
    assert_eq!(rig.moves(610), [(A, B, vec![50, 51, 52, 54, 55, 56])]);
}

#[test]
fn large_frames_that_arrive_excuse_small_ones() {
    let mut rig = Rig::new(&[A, B]);
    rig.learn_rtt();
    rig.send_sized(600, 50..51, [1400, 100]);
    rig.send_sized(600, 51..53, [1400, 300]);
    rig.ack(601, &[(51, 52), (0, 49)]);
    assert_eq!(rig.moves(900), [], "lost alone: left to TCP");
}

proptest! {
    /// For every sequence of inputs: each batch is released once, the bytes add up, and polling
    /// until nothing is due ends.
    #[test]
    fn every_batch_is_released_once_and_polling_ends(
        steps in prop::collection::vec((0u8..4, 0u64..40, 1u32..4), 1..200),
    ) {
        let limits = RetransmitLimits { bytes: 20 * 4096, age: Duration::from_millis(300) };
        let mut sent_frames = SentFrames::new(limits);
        let (mut now, mut next, mut given) = (0, 0u64, Vec::new());
        let mut forgotten = Vec::new();
        for (step, number, route) in steps {
            now += number;
            match step {
                0 | 1 => {
                    let last = next + number % 5;
                    let sizes = [1400, 1400 - number as usize * 30];
                    let frames = frames(next..last + 1, sizes);
                    let copy = (step == 1).then_some(RouteId(9));
                    sent_frames.on_sent(next, frames, path(RouteId(route)), copy, ms(now));
                    given.push(next);
                    next = last + 1;
                }
                2 => {
                    let last = next.saturating_sub(number);
                    let first = last.saturating_sub(u64::from(route) * 7);
                    let ranges = vec![AckRange { first, last }];
                    let ack = Ack { highest: last, ranges, ..Ack::default() };
                    let counter = |first: &u64, n: u32| first + u64::from(n);
                    let forget = |first| forgotten.push(first);
                    sent_frames.on_ack_received(ms(now), &ack, counter, forget);
                }
                _ => {
                    let usable = [1, 2, 3].map(|n| path(RouteId(n)));
                    let usable = usable.into_iter().take(number as usize % 4);
                    let mut polls = 0;
                    while sent_frames.poll_reroute(ms(now), usable.clone(), true).is_some() {
                        polls += 1;
                        prop_assert!(polls <= 6);
                    }
                }
            }
            sent_frames.discard_expired(ms(now), |first| forgotten.push(first));
            let in_flight = |n| sent_frames.paths.get(n).in_flight;
            let waiting: usize = sent_frames.paths.indices().map(in_flight).sum();
            prop_assert_eq!(waiting, sent_frames.batches.len());
            prop_assert_eq!(sent_frames.bytes, sent_frames.batches.len() * 4096);
            prop_assert!(sent_frames.bytes <= 20 * 4096);
        }
        sent_frames.discard_expired(ms(now + 301), |first| forgotten.push(first));
        forgotten.sort_unstable();
        prop_assert_eq!(forgotten, given);
    }
}

/// The requests for an immediate acknowledgement that are due.
fn ack_requests(rig: &mut Rig, at: u64) -> Vec<ImmediateAckRequest> {
    let usable = rig.usable.clone();
    let mut requests = Vec::new();
    while let Some(one) =
        rig.sent_frames.request_immediate_ack(ms(at), usable.iter().copied().map(path), true)
    {
        requests.push(one);
    }
    requests
}

fn answer(rig: &mut Rig, at: u64, number: u16, highest: u64) {
    let ranges = vec![AckRange { first: 0, last: highest }];
    let ack = Ack { highest, immediate_ack_reply: number, ranges, ..Ack::default() };
    rig.sent_frames.on_ack_request_answered(number);
    rig.sent_frames.on_ack_received(ms(at), &ack, |first, n| first + u64::from(n), |_| {});
}

#[test]
fn an_answer_that_something_is_missing_ends_the_wait() {
    let mut rig = Rig::new(&[A, B]);
    rig.send(0, 0..1);
    rig.ack(1, &[(0, 0)]);
    rig.send(100, 1..3);
    assert_eq!(rig.sent_frames.until_next_timeout(ms(100)), Some(Duration::from_millis(7)));
    assert_eq!(ack_requests(&mut rig, 106), []);
    let requests = ack_requests(&mut rig, 107);
    assert_eq!(requests.iter().map(|one| one.to).collect::<Vec<_>>(), [B]);
    assert_eq!(ack_requests(&mut rig, 113), [], "once per timeout");
    rig.send(108, 3..4);
    assert_eq!(rig.moves(108), []);
    answer(&mut rig, 108, requests[0].number, 0);
    // The newer batch left after the request, and is rerouted with the others: the path is suspect.
    assert_eq!(rig.moves(108), [(A, B, vec![1, 2, 3])]);
    answer(&mut rig, 109, requests[0].number, 0);
    assert_eq!(rig.moves(109), [], "an answer counts once");
}

#[test]
fn an_answer_that_everything_arrived_clears_the_route() {
    let mut rig = Rig::new(&[A, B]);
    rig.send(0, 0..2);
    let number = ack_requests(&mut rig, 7)[0].number;
    rig.send(8, 2..3);
    answer(&mut rig, 8, number, 1);
    assert_eq!(rig.moves(8), [], "batches sent after the request may be in flight");
    answer(&mut rig, 9, number + 1, 1);
    assert_eq!(rig.moves(9), [], "not the pending request");
}

#[test]
fn without_another_path_nothing_is_requested() {
    let mut rig = Rig::new(&[A]);
    rig.send(0, 0..2);
    assert_eq!(ack_requests(&mut rig, 7), []);
    assert_eq!(
        rig.sent_frames.until_next_timeout(ms(7)),
        Some(Duration::from_millis(7)),
        "and no busy wait"
    );
}

/// F-50. Each round TCP sends two segments, which vanish, and after its own timeout one, which
/// arrives.
fn vanishing_rounds(rig: &mut Rig, rounds: std::ops::Range<u64>, segments_arrive: bool) {
    for round in rounds {
        let (at, first) = (1000 * (round + 1), 100 + 10 * round);
        rig.send(at, first..first + 2);
        if segments_arrive {
            rig.ack(at + 1, &[(first, first + 1)]);
        } else {
            assert!(rig.decide(at + 150).is_none(), "there is no other path");
        }
        rig.send(at + 200, first + 2..first + 3);
        rig.ack(at + 201, &[(first + 2, first + 2)]);
    }
}

#[test]
fn segmented_sends_that_vanish_beside_single_ones_are_found_in_three_timeouts() {
    let mut rig = Rig::new(&[A]);
    rig.learn_rtt();
    vanishing_rounds(&mut rig, 0..2, false);
    assert_eq!(take_vanishing_segments(&mut rig.sent_frames), None);
    vanishing_rounds(&mut rig, 2..3, false);
    assert_eq!(take_vanishing_segments(&mut rig.sent_frames), Some(A));
    assert_eq!(take_vanishing_segments(&mut rig.sent_frames), None, "once");
}

#[test]
fn segmented_sends_that_arrive_now_and_then_are_no_pattern() {
    let mut rig = Rig::new(&[A]);
    rig.learn_rtt();
    for round in 0..20 {
        vanishing_rounds(&mut rig, round..round + 1, round % 3 == 2);
        assert_eq!(take_vanishing_segments(&mut rig.sent_frames), None, "{round}");
    }
}

#[test]
fn a_dead_path_is_not_blamed_on_segmentation() {
    let mut rig = Rig::new(&[A]);
    rig.learn_rtt();
    for round in 0..20 {
        let first = 100 + 10 * round;
        rig.send(1000 * (round + 1), first..first + 2);
        rig.decide(1000 * (round + 1) + 500);
        assert_eq!(take_vanishing_segments(&mut rig.sent_frames), None);
    }
}

#[test]
fn segmented_sends_that_vanish_amid_single_ones_are_found() {
    let mut rig = Rig::new(&[A]);
    rig.learn_rtt();
    let mut found = None;
    for round in 0..100u64 {
        let (at, first) = (1000 + 5 * round, 100 + 10 * round);
        if round % 10 == 0 {
            rig.send(at, first..first + 2);
        }
        // Full-size frames arrive before any probe timeout.
        rig.send(at, first + 2..first + 3);
        rig.ack(at + 1, &[(first + 2, first + 2)]);
        assert!(rig.decide(at + 2).is_none());
        found = found.or(take_vanishing_segments(&mut rig.sent_frames).map(|route| (round, route)));
    }
    assert!(matches!(found, Some((20..40, A))), "{found:?}");
}
