//! Requests the worker answers itself.

use netft_proto::{
    cadence::reply_template::ReplyTemplate,
    engine::{Engine, EngineConfig, EngineInput, EngineOutput},
    route::{Attributes, Priority, RouteClass, RouteSpec, Transport},
    time::Time,
    wire::{
        header::{DEFER_REPLY, DEFERRED_REPLY, QUEUE_OFFSET},
        heartbeat::{Heartbeat, RouteReport},
    },
};

use super::*;

const REMOTE: u32 = 9;

fn request(sequence: u32, heard: bool) -> Heartbeat {
    let verdict = RouteReport {
        your_route: ROUTE.0,
        heard,
        local_down: false,
        admin_down: false,
        draining: false,
        carries_data: true,
        loss_permille: 0,
    };
    Heartbeat {
        message: HeartbeatMessage::Request,
        route: REMOTE,
        your_route: ROUTE.0,
        sequence,
        sent_at: 5,
        held_us: 0,
        stalled_ms: 0,
        serial: sequence,
        reports: vec![verdict],
    }
}

/// Of an engine whose only route is up.
fn form(node: &Node, remote: SocketAddr) -> Arc<ReplyTemplate> {
    let second = Duration::from_secs(1);
    let config = EngineConfig { hold: second, history: 0, seed: 1, mtu_raise: second };
    let mut engine = Engine::new(config);
    let spec = RouteSpec {
        peer: PEER,
        real_local: node.socket.local,
        real_remote: remote,
        virtual_local: LEFT.v4.into(),
        virtual_remote: RIGHT.v4.into(),
        timing: RouteClass::SameSubnet.default_timing(),
        priority: Priority(1),
        attributes: Attributes(Attributes::SAME_SUBNET),
        transport: Transport::Udp,
    };
    let heard = |sequence| EngineInput::Heartbeat {
        peer: PEER,
        route: ROUTE,
        heartbeat: request(sequence, true),
    };
    for input in [
        EngineInput::AddPeer(PEER),
        EngineInput::AddRoute { id: ROUTE, spec },
        EngineInput::SessionUp { peer: PEER, boot_id: 77 },
        heard(1),
        heard(2),
    ] {
        engine.on_input(Time::from_millis(1), input).unwrap();
    }
    assert!(
        std::iter::from_fn(|| engine.poll_output())
            .any(|it| matches!(it, EngineOutput::ReplyTemplateReady(PEER)))
    );
    engine.reply_template(PEER).unwrap().clone()
}

#[test]
fn a_request_without_news_is_answered_and_the_driver_sleeps_on() {
    let (mut left, mut right) = pair(true, true);
    let to = right.socket.local;
    let form = form(&right, left.socket.local);
    let calm = |fib: &Arc<Fib>| Fib {
        local_addrs: fib.local_addrs,
        sockets: [(right.socket.id, right.socket.clone())].into(),
        peers: vec![FibPeer {
            peer: PEER,
            session: Some(right.session.clone()),
            active: None,
            duplicate: None,
            backups: Vec::new(),
            steering: None,
            candidates: Vec::new(),
        }],
        sessions: fib.sessions.clone(),
        routes: fib.routes.clone(),
        healthy_peers: [PEER].into(),
        reply_templates: [(PEER, (0, form.clone()))].into(),
        ..Fib::default()
    };
    right.fib.rcu(calm);
    let mut sequence = 2;
    let mut ask_on = |left: &Node, lane, heard| {
        sequence += 1;
        let mut frame = Vec::new();
        let write = |frame: &mut Vec<u8>| request(sequence, heard).encode(frame);
        left.session.seal_message(FrameKind::Heartbeat, lane, &mut frame, write).unwrap();
        udp::send_control(left.socket.fd.as_fd(), &to, &frame, Some(udp::TOS_CONTROL)).unwrap();
    };
    let mut ask = |left: &Node, heard| ask_on(left, 0, heard);
    // A turn that goes on meanwhile ends with the table it began with.
    let mut heard = None;
    await_until(|| {
        ask(&left, true);
        heard = right.later.try_recv().ok();
        heard.is_some()
    });
    assert!(matches!(heard, Some(FromWorker::Heartbeat { answered: true, .. })), "{heard:?}");
    let Some(FromWorker::Heartbeat { heartbeat: answer, .. }) = left.driver.blocking_recv() else {
        panic!("no answer")
    };
    assert_eq!(
        (answer.message, answer.your_route, answer.sent_at),
        (HeartbeatMessage::Reply, REMOTE, 5)
    );
    // The peer does not hear this node: the driver has to know, and answers.
    ask(&left, false);
    let news = |heard: &FromWorker| {
        let FromWorker::Heartbeat { heartbeat, answered, .. } = heard else { panic!("{heard:?}") };
        !answered && !heartbeat.reports[0].heard
    };
    while !news(&right.driver.blocking_recv().unwrap()) {}
    // A reply that may wait says so, to the kernel too.
    left.workers.deregister_socket(&left.socket);
    let mut input = [0; 2048];
    await_until(|| {
        ask_on(&left, DEFER_REPLY, true);
        let mut read = || udp::recv_batch(left.socket.fd.as_fd(), &mut input).unwrap();
        std::iter::from_fn(|| read().map(|_| ())).count();
        input[QUEUE_OFFSET] == DEFERRED_REPLY
    });
}

#[test]
fn heartbeats_that_wait_together_are_all_taken_in() {
    let (left, mut right) = pair(true, true);
    for sequence in 1..=20 {
        let mut bytes = Vec::new();
        request(sequence, true).encode(&mut bytes);
        let frame = left.sealed(FrameKind::Heartbeat, &bytes);
        udp::send_control(left.socket.fd.as_fd(), &right.socket.local, &frame, None).unwrap();
    }
    for sequence in 1..=20 {
        let Some(FromWorker::Heartbeat { heartbeat, .. }) = right.driver.blocking_recv() else {
            panic!("no heartbeat")
        };
        assert_eq!(heartbeat.sequence, sequence);
    }
}
