//! Messages that wake the driver, and messages that wait until it wakes up anyway.

use std::collections::HashSet;

use super::*;

#[test]
fn replies_of_a_healthy_peer_do_not_wake_the_driver() {
    let (left, mut right) = pair(true, true);
    let to = right.socket.local;
    let send = |message: HeartbeatMessage| {
        let frame = left.seal_frame(FrameKind::Heartbeat, &heartbeat_bytes(message));
        udp::send_control(left.socket.fd.as_fd(), &to, &frame, Some(udp::TOS_CONTROL)).unwrap();
    };
    send(HeartbeatMessage::Reply);
    assert!(right.driver.blocking_recv().is_some(), "the table lists no healthy peer");
    let with_healthy_peer = |fib: &Arc<Fib>| Fib {
        local_addrs: fib.local_addrs,
        sessions: fib.sessions.clone(),
        routes: fib.routes.clone(),
        healthy_peers: HashSet::from([PEER]),
        ..Fib::default()
    };
    right.fib.rcu(with_healthy_peer);
    // A turn in progress keeps the table it began with.
    await_until(|| {
        send(HeartbeatMessage::Reply);
        right.deferred.try_recv().is_ok()
    });
    send(HeartbeatMessage::Request);
    let is_request = |message: &FromWorker| {
        let FromWorker::Heartbeat { heartbeat, .. } = message else { panic!("{message:?}") };
        heartbeat.message == HeartbeatMessage::Request
    };
    while !is_request(&right.driver.blocking_recv().unwrap()) {}
}
