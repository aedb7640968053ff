//! What wakes the driver, and what waits until it is awake.

use std::collections::HashSet;

use super::*;

#[test]
fn replies_of_a_peer_that_is_well_do_not_wake_the_driver() {
    let (left, mut right) = pair(true, true);
    let to = right.socket.local;
    let send = |message: HeartbeatMessage| {
        let frame = left.sealed(FrameKind::Heartbeat, &heartbeat_bytes(message));
        udp::send_control(left.socket.fd.as_fd(), &to, &frame, Some(udp::TOS_CONTROL)).unwrap();
    };
    send(HeartbeatMessage::Reply);
    assert!(right.driver.blocking_recv().is_some(), "nobody says that all is well");
    let calm = |fib: &Arc<Fib>| Fib {
        local_addrs: fib.local_addrs,
        sessions: fib.sessions.clone(),
        routes: fib.routes.clone(),
        healthy_peers: HashSet::from([PEER]),
        ..Fib::default()
    };
    right.fib.rcu(calm);
    // A turn that goes on meanwhile ends with the table it began with.
    await_until(|| {
        send(HeartbeatMessage::Reply);
        right.later.try_recv().is_ok()
    });
    send(HeartbeatMessage::Request);
    let is_request = |heard: &FromWorker| {
        let FromWorker::Heartbeat { heartbeat, .. } = heard else { panic!("{heard:?}") };
        heartbeat.message == HeartbeatMessage::Request
    };
    while !is_request(&right.driver.blocking_recv().unwrap()) {}
}
