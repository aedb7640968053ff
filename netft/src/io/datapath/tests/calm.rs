//! What wakes the driver, and what waits until it is awake.

use std::collections::HashSet;

use super::*;

#[test]
fn replies_of_a_peer_that_is_well_do_not_wake_the_driver() {
    let (left, mut right) = pair(true, true);
    let to = right.socket.local;
    let send = |message: u8| {
        let frame = left.sealed(FrameKind::Heartbeat, &[message, 0]);
        udp::send_control(left.socket.fd.as_fd(), &to, &frame, Some(udp::TOS_CONTROL)).unwrap();
    };
    send(2);
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
        send(2);
        right.later.try_recv().is_ok()
    });
    send(1);
    let is_request = |heard: &FromWorker| {
        let FromWorker::Heartbeat { plaintext, .. } = heard else { panic!("{heard:?}") };
        plaintext[0] == 1
    };
    while !is_request(&right.driver.blocking_recv().unwrap()) {}
}
