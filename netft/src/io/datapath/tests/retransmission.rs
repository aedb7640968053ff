//! Frames that a silent route lost.

use netft_proto::loss_detection::{DeliveryCounts, rtt_estimator};

use super::*;

/// packets that a silent route lost arrive over another one, each once.
#[test]
fn unacknowledged_packets_are_retransmitted_on_the_backup_and_delivered_once() {
    let (one, two, hole) = (socket(), socket(), socket());
    let (a, b) = (one.local, two.local);
    let mut left = node(one, b, LEFT, session(RIGHT, (1, 2)), VnetFormat::Tunnel, Some(hole.local));
    let right = node(two, a, RIGHT, session(LEFT, (2, 1)), VnetFormat::Tunnel, None);
    let (packets, expected) = traffic();
    packets.iter().for_each(|(hdr, packet)| left.write_packet(hdr, packet));
    right.start_adapter();
    left.start_adapter();
    let mut got: Vec<Vec<u8>> = Vec::new();
    while got.len() < expected.len() {
        let (hdr, packet) = right.read_packet();
        got.extend(segment_packet(&hdr, &packet, 1400).unwrap());
    }
    assert!(got == expected, "other packets, or in another order");
    let suspected = left.driver.blocking_recv().unwrap();
    assert!(matches!(suspected, FromWorker::Suspect(ROUTE)), "{suspected:?}");
    let report = left.driver.blocking_recv().unwrap();
    let FromWorker::Resent { peer, from, to, frames, waited, silent } = report else {
        panic!("{report:?}")
    };
    assert_eq!((peer, from, to), (PEER, ROUTE, RouteId(ROUTE.0 + 1)));
    assert!(waited >= rtt_estimator::MAX_ACK_DELAY, "{waited:?}");
    assert_eq!(silent, Some(DeliveryCounts::default()), "nothing arrived on the silent route");
    // They are acknowledged over the backup, so they are not sent a third time.
    thread::sleep(Duration::from_millis(300));
    let counters = &left.workers.counters()[0];
    let resent = counters.resent_frames.load(Relaxed);
    let sent = counters.tx_frames.load(Relaxed);
    assert_eq!(sent, 2 * resent, "each frame went out once on each route");
    assert_eq!(resent, frames, "in one reroute");
    let duplicates = right.workers.counters()[0].drops[DropReason::Replayed as usize].load(Relaxed);
    assert_eq!(duplicates, 0, "nothing was delivered before");
}

/// With retransmission disabled nothing is kept, so nothing is retransmitted or suspect.
#[test]
fn without_a_retransmit_buffer_silence_has_no_consequence() {
    let (one, two, hole) = (socket(), socket(), socket());
    let (a, b) = (one.local, two.local);
    let disabled = RetransmitLimits { bytes: 0, ..RetransmitLimits::default() };
    let ends = (b, Some(hole.local));
    let mut left =
        node_with_limits(disabled, one, ends, LEFT, session(RIGHT, (1, 2)), VnetFormat::Tunnel);
    let right = node(two, a, RIGHT, session(LEFT, (2, 1)), VnetFormat::Tunnel, None);
    let (packets, _) = traffic();
    packets.iter().for_each(|(hdr, packet)| left.write_packet(hdr, packet));
    right.start_adapter();
    left.start_adapter();
    thread::sleep(Duration::from_millis(300));
    let counters = &left.workers.counters()[0];
    assert!(counters.tx_frames.load(Relaxed) > 0);
    assert_eq!(counters.resent_frames.load(Relaxed), 0);
    assert!(left.driver.try_recv().is_err());
    assert_eq!(right.workers.counters()[0].rx_frames.load(Relaxed), 0);
}
