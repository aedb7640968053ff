//! What a silent route swallowed.

use netft_proto::loss_detection::rtt_estimator;

use super::*;

/// what a silent route swallowed arrives over another one, each packet once.
#[test]
fn unacknowledged_packets_are_sent_again_on_the_backup_and_delivered_once() {
    let (one, two, hole) = (socket(), socket(), socket());
    let (a, b) = (one.local, two.local);
    let mut left = node(one, b, LEFT, session(RIGHT, (1, 2)), true, Some(hole.local));
    let right = node(two, a, RIGHT, session(LEFT, (2, 1)), true, None);
    let (given, expected) = traffic();
    given.iter().for_each(|(hdr, packet)| left.give(hdr, packet));
    right.go();
    left.go();
    let mut got: Vec<Vec<u8>> = Vec::new();
    while got.len() < expected.len() {
        let (hdr, packet) = right.take();
        got.extend(segment_packet(&hdr, &packet, 1400).unwrap());
    }
    assert!(got == expected, "other packets, or in another order");
    let suspected = left.driver.blocking_recv().unwrap();
    assert!(matches!(suspected, FromWorker::Suspect(ROUTE)), "{suspected:?}");
    let told = left.driver.blocking_recv().unwrap();
    let FromWorker::Resent { peer, from, to, frames, waited } = told else { panic!("{told:?}") };
    assert_eq!((peer, from, to), (PEER, ROUTE, RouteId(ROUTE.0 + 1)));
    assert!(waited >= rtt_estimator::MAX_ACK_DELAY, "{waited:?}");
    // Acknowledged over the backup, they are not sent a third time.
    thread::sleep(Duration::from_millis(300));
    let counters = &left.workers.counters()[0];
    let resent = counters.resent_frames.load(Relaxed);
    let sent = counters.tx_frames.load(Relaxed);
    assert_eq!(sent, 2 * resent, "each frame went out once on each route");
    assert_eq!(resent, frames, "in one move");
    let doubled = right.workers.counters()[0].drops[DropReason::Replayed as usize].load(Relaxed);
    assert_eq!(doubled, 0, "nothing was delivered before");
}

/// With the ring off nothing is kept, so nothing is sent again and nothing is suspected.
#[test]
fn without_a_ring_silence_has_no_consequence() {
    let (one, two, hole) = (socket(), socket(), socket());
    let (a, b) = (one.local, two.local);
    let off = RetransmitLimits { bytes: 0, ..RetransmitLimits::default() };
    let ends = (b, Some(hole.local));
    let mut left = node_that_keeps(off, one, ends, LEFT, session(RIGHT, (1, 2)), true);
    let right = node(two, a, RIGHT, session(LEFT, (2, 1)), true, None);
    let (given, _) = traffic();
    given.iter().for_each(|(hdr, packet)| left.give(hdr, packet));
    right.go();
    left.go();
    thread::sleep(Duration::from_millis(300));
    let counters = &left.workers.counters()[0];
    assert!(counters.tx_frames.load(Relaxed) > 0);
    assert_eq!(counters.resent_frames.load(Relaxed), 0);
    assert!(left.driver.try_recv().is_err());
    assert_eq!(right.workers.counters()[0].rx_frames.load(Relaxed), 0);
}
