//! Heartbeat requests that the worker answers from a template.

use netft_proto::{
    cadence::reply_template::ReplyTemplate,
    engine::{Engine, EngineConfig, EngineInput, EngineOutput},
    route::{Attributes, Priority, RouteClass, RouteSpec, Transport},
    time::Time,
    wire::heartbeat::{Heartbeat, RouteReport},
};

use super::*;

const REMOTE: u32 = 9;

fn request(sequence: u32, heard: bool) -> Heartbeat {
    let report = RouteReport {
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
        reports: vec![report],
    }
}

/// The template of an engine whose only route is up.
fn reply_template(node: &Node, remote: SocketAddr) -> Arc<ReplyTemplate> {
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
    let request_input = |sequence| EngineInput::Heartbeat {
        peer: PEER,
        route: ROUTE,
        heartbeat: request(sequence, true),
    };
    for input in [
        EngineInput::AddPeer(PEER),
        EngineInput::AddRoute { id: ROUTE, spec },
        EngineInput::SessionUp { peer: PEER, boot_id: 77 },
        request_input(1),
        request_input(2),
    ] {
        engine.on_input(Time::from_millis(1), input).unwrap();
    }
    assert!(
        std::iter::from_fn(|| engine.poll_output())
            .any(|output| matches!(output, EngineOutput::ReplyTemplateReady(PEER)))
    );
    engine.reply_template(PEER).unwrap().clone()
}

#[test]
fn a_request_that_changes_nothing_is_answered_without_waking_the_driver() {
    let (mut left, mut right) = pair(true, true);
    let to = right.socket.local;
    let template = reply_template(&right, left.socket.local);
    let with_template = |fib: &Arc<Fib>| Fib {
        local_addrs: fib.local_addrs,
        sockets: [(right.socket.id, right.socket.clone())].into(),
        peers: vec![FibPeer {
            is_unreachable: false,
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
        reply_templates: [(PEER, (0, template.clone()))].into(),
        ..Fib::default()
    };
    right.fib.rcu(with_template);
    let mut sequence = 2;
    let mut send_request = |left: &Node, heard| {
        sequence += 1;
        let mut frame = Vec::new();
        let write = |frame: &mut Vec<u8>| request(sequence, heard).encode(frame);
        left.session.seal_message(FrameKind::Heartbeat, 0, &mut frame, write).unwrap();
        udp::send_control(left.socket.fd.as_fd(), &to, &frame, Some(udp::TOS_CONTROL)).unwrap();
    };
    // A turn in progress keeps the table it began with.
    let mut deferred = None;
    await_until(|| {
        send_request(&left, true);
        deferred = right.deferred.try_recv().ok();
        deferred.is_some()
    });
    let answered = matches!(deferred, Some(FromWorker::Heartbeat { answered: true, .. }));
    assert!(answered, "{deferred:?}");
    let Some(FromWorker::Heartbeat { heartbeat: reply, .. }) = left.driver.blocking_recv() else {
        panic!("no reply")
    };
    assert_eq!(
        (reply.message, reply.your_route, reply.sent_at),
        (HeartbeatMessage::Reply, REMOTE, 5)
    );
    // The peer receives nothing from this node: the driver must know, and answers.
    send_request(&left, false);
    let reports_silence = |message: &FromWorker| {
        let FromWorker::Heartbeat { heartbeat, answered, .. } = message else {
            panic!("{message:?}")
        };
        !answered && !heartbeat.reports[0].heard
    };
    while !reports_silence(&right.driver.blocking_recv().unwrap()) {}
}

#[test]
fn heartbeats_that_arrive_together_are_all_processed() {
    let (left, mut right) = pair(true, true);
    for sequence in 1..=20 {
        let mut bytes = Vec::new();
        request(sequence, true).encode(&mut bytes);
        let frame = left.seal_frame(FrameKind::Heartbeat, &bytes);
        udp::send_control(left.socket.fd.as_fd(), &right.socket.local, &frame, None).unwrap();
    }
    for sequence in 1..=20 {
        let Some(FromWorker::Heartbeat { heartbeat, .. }) = right.driver.blocking_recv() else {
            panic!("no heartbeat")
        };
        assert_eq!(heartbeat.sequence, sequence);
    }
}
