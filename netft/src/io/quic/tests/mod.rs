//! Two nodes in one process, over real sockets on loopback.

#![allow(clippy::unwrap_used)]

mod joins;
mod requests;
mod rig;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use netft_proto::{
    ids::PeerId,
    wire::{
        hello::MAX_HELLO_LEN,
        interfaces::{AdvertisedEndpoint, Advertisement},
        version::WireVersions,
    },
};

use quinn::{ConnectionError, EndpointConfig};

use super::{
    endpoint::client_config,
    failure::RefusalReason,
    session::hello_exchange::TAG_READY,
    tests::rig::{Raw, both_up},
    tls::{SERVER_NAME, TlsIdentity},
};
use crate::{
    api::session::SessionCause,
    io::quic::tests::rig::{Node, Plan, carries, pair, until},
};

#[tokio::test]
async fn two_nodes_agree_and_open_each_others_frames() {
    let (a, b) = pair(1);
    let (a, b) = (Node::start(&a, &b, 1), Node::start(&b, &a, 2));
    both_up(&a, &b).await;
    assert!(carries(&a, &b) && carries(&b, &a));
    let (seen_by_a, seen_by_b) = (a.reported(), b.reported());
    assert_eq!(seen_by_a.names, ["node-b".to_owned()].into());
    assert_eq!((seen_by_a.boots.clone(), seen_by_b.boots.clone()), ([2].into(), [1].into()));
    assert!(seen_by_a.reasons.is_empty() && seen_by_b.reasons.is_empty());
}

#[tokio::test]
async fn a_hello_says_whether_the_adapter_is_up_and_the_next_one_says_it_anew() {
    let (a, b) = pair(1);
    let (a, b) = (Node::start_without_routes(&a, &b, 1), Node::start_without_routes(&b, &a, 2));
    a.manager.set_adapter_up(true);
    a.give_routes();
    b.give_routes();
    both_up(&a, &b).await;
    assert_eq!((a.reported().adapter_up, b.reported().adapter_up), (Some(false), Some(true)));
    b.manager.set_adapter_up(true);
    b.manager.renew_session(PeerId(0));
    until("the fresh hello is received", || a.reported().adapter_up == Some(true)).await;
}

#[tokio::test]
async fn nodes_that_dial_simultaneously_agree_on_one_session() {
    for _ in 0..5 {
        let (a, b) = pair(2);
        let (a, b) = (Node::start(&a, &b, 1), Node::start(&b, &a, 2));
        both_up(&a, &b).await;
        // Whatever was dialled at once has been ranked by then.
        until("both prefer one session", || a.same_session(&b)).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert!(a.same_session(&b), "the choice stays the same on both");
        assert!(carries(&a, &b) && carries(&b, &a));
    }
}

#[tokio::test]
async fn a_wrong_key_never_brings_a_session_up_on_either_side() {
    for wrong_at_smaller in [true, false] {
        let (a, b) = pair(1);
        let (one, other) = if wrong_at_smaller == (a.public < b.public) { (a, b) } else { (b, a) };
        let unknown = Plan::new("node-x", 1);
        let believed = Plan { key: unknown.key.clone(), public: unknown.public, ..other.clone() };
        let (x, y) = (Node::start(&one, &believed, 1), Node::start(&other, &one, 2));
        until("one side says which key is wrong", || {
            x.complains("holds another key") && y.complains("does not accept this node's key")
        })
        .await;
        assert!(x.reported().never_up() && y.reported().never_up());
        // The same, for those who ask why there is no session.
        until("both ends name the cause", || {
            x.reported().problems.contains(&SessionCause::WrongKey)
                && y.reported().problems.contains(&SessionCause::KeyRefused)
        })
        .await;
    }
}

/// TLS takes the key of any configured peer, but answers go to the routes of the one whose address
/// it is.
#[tokio::test]
async fn the_key_of_another_peer_is_refused_at_a_peers_address() {
    let (mut a, b) = pair(1);
    let other = Plan::new("node-c", 1);
    a.second_peer = Some(other.public);
    let node = Node::start(&a, &b, 1);
    // It claims to be node-b in all but its key.
    let impostor = Raw::start(&Plan { key: other.key, public: other.public, ..b.clone() }, &a);
    let end = match impostor.connect().await {
        Ok(connection) => connection.closed().await,
        Err(end) => end,
    };
    let ConnectionError::ApplicationClosed(close) = end else { panic!("not refused but {end}") };
    assert_eq!(close.error_code, RefusalReason::WrongPeer.close_code());
    assert!(node.reported().never_up());
    drop(impostor);
    let peer = Node::start(&b, &a, 2);
    both_up(&node, &peer).await;
}

/// S-06: before a source address is proven, nothing larger than its datagram goes there.
#[tokio::test]
async fn a_stranger_is_answered_with_a_retry() {
    let (a, b) = pair(1);
    let _node = Node::start(&a, &b, 1);
    let tls = TlsIdentity::new(&b.key, b.public).unwrap();
    let settings = Arc::new(EndpointConfig::default());
    let mut client = quinn_proto::Endpoint::new(settings, None, true, None);
    let to = a.sockets[0].local_addr().unwrap();
    let (now, config) = (Instant::now(), client_config(&tls, [a.public].into_iter()).unwrap());
    let (_, mut connection) = client.connect(now, config, to, SERVER_NAME).unwrap();
    let mut initial = Vec::new();
    assert!(connection.poll_transmit(now, 1, &mut initial).is_some());
    let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    stranger.send_to(&initial, to).await.unwrap();
    let mut answer = [0; 2048];
    let (len, from) = stranger.recv_from(&mut answer).await.unwrap();
    // Long header, fixed bit, type 3 (RFC 9000 section 17.2.5).
    assert_eq!((from, answer[0] >> 4), (to, 0xf), "a Retry");
    assert!(len < initial.len());
}

#[tokio::test]
async fn a_machine_with_this_nodes_own_key_is_called_a_clone() {
    let (a, b) = pair(1);
    let clone = Plan { key: a.key.clone(), public: a.public, ..b.clone() };
    let third = Plan::new("node-c", 1);
    let x = Node::start(&a, &b, 1);
    // The clone knows node-c's key at a's address, so it refuses too and dials on.
    let believed = Plan { key: third.key.clone(), public: third.public, ..a.clone() };
    let y = Node::start(&clone, &believed, 2);
    until("the clone is called one", || x.complains("it is a clone")).await;
    assert!(x.reported().never_up() && y.reported().never_up());
}

#[tokio::test]
async fn a_restart_of_either_node_brings_a_new_session_and_ends_the_old() {
    let (plan_a, plan_b) = pair(1);
    let mut a = Node::start(&plan_a, &plan_b, 1);
    let mut b = Node::start(&plan_b, &plan_a, 2);
    both_up(&a, &b).await;
    for boot in 3..7u64 {
        if boot % 2 == 0 {
            // As if killed: no close.
            drop(a);
            a = Node::start(&plan_a, &plan_b, boot);
            until("the peer's new boot is known", || b.boot() == Some(boot)).await;
        } else {
            drop(b);
            b = Node::start(&plan_b, &plan_a, boot);
            until("the peer's new boot is known", || a.boot() == Some(boot)).await;
        }
        both_up(&a, &b).await;
        until("frames pass", || carries(&a, &b) && carries(&b, &a)).await;
        assert_eq!(a.reported().duplicates + b.reported().duplicates, 0, "a restart is no clone");
        assert!(a.reported().live_boots().len() == 1 && b.reported().live_boots().len() == 1);
    }
}

#[tokio::test]
async fn the_handshake_completes_when_one_of_two_routes_is_dead() {
    for dead in 0..2 {
        let (mut a, mut b) = pair(2);
        a.silent = Some(dead);
        b.silent = Some(dead);
        let (a, b) = (Node::start(&a, &b, 1), Node::start(&b, &a, 2));
        both_up(&a, &b).await;
        assert!(carries(&a, &b) && carries(&b, &a));
    }
}

#[tokio::test]
async fn other_virtual_addresses_than_configured_are_refused_by_name() {
    let (a, b) = pair(1);
    let mut believed = b.clone();
    believed.addrs.v4 = [169, 254, 9, 9].into();
    let (x, y) = (Node::start(&a, &believed, 1), Node::start(&b, &a, 2));
    until("both say why", || {
        x.complains("169.254.9.9") && y.complains("the peer refuses this node")
    })
    .await;
    assert!(x.reported().never_up() && y.reported().never_up());
}

#[tokio::test]
async fn a_hello_that_is_none_is_refused_and_the_session_beside_it_lives() {
    let (a, b) = pair(1);
    let node = Node::start(&a, &b, 1);
    let raw = Raw::start(&b, &a);
    // It speaks later versions alone.
    let mut later = raw.hello(77);
    later[2..6].copy_from_slice(&[9, 0, 8, 9]);
    let theirs = WireVersions { lowest: 8, highest: 9 };
    let longest = u16::try_from(MAX_HELLO_LEN).unwrap().to_be_bytes();
    let cases: [(&[u8], RefusalReason); 4] = [
        (&[0xff; 1100], RefusalReason::Malformed),
        (&[0, 0], RefusalReason::Malformed),
        (&[&longest[..], &[0xee; MAX_HELLO_LEN]].concat(), RefusalReason::Malformed),
        (&later, RefusalReason::Version { theirs }),
    ];
    for (bytes, refusal) in cases {
        let (code, reason) = raw.say(bytes).await;
        assert_eq!((code, reason), (refusal.close_code(), refusal.to_string()));
    }
    assert!(node.reported().never_up());
    drop(raw);
    let peer = Node::start(&b, &a, 2);
    both_up(&node, &peer).await;
}

#[tokio::test]
async fn only_a_few_handshakes_of_a_peer_are_under_way_at_once() {
    let (a, b) = pair(1);
    let node = Node::start(&a, &b, 1);
    let raw = Raw::start(&b, &a);
    let attempts = futures_util::future::join_all((0..8).map(|_| raw.connect())).await;
    let open = attempts.iter().filter(|attempt| attempt.is_ok()).count();
    assert_eq!(open, 4, "each without a hello, so each keeps its place");
    assert!(node.reported().never_up());
    drop((attempts, raw));
    let peer = Node::start(&b, &a, 2);
    both_up(&node, &peer).await;
}

#[tokio::test]
async fn a_protocol_violation_after_the_hello_ends_the_session() {
    let (a, b) = pair(1);
    let node = Node::start(&a, &b, 1);
    let raw = Raw::start(&b, &a);
    let mut bytes = raw.hello(77);
    bytes.extend([TAG_READY, 0, 0, 0, 1]);
    bytes.push(0x99);
    let (code, _) = raw.say(&bytes).await;
    assert_eq!(code, RefusalReason::Malformed.close_code());
    until("the session came and went", || {
        let reported = node.reported();
        reported.ups == 1 && reported.live.is_empty()
    })
    .await;
    assert!(node.complains("is malformed"));
}

#[tokio::test]
async fn a_clone_of_a_living_peer_is_refused_and_the_first_keeps_working() {
    let (a, b) = pair(1);
    let node = Node::start(&a, &b, 1);
    let first = Raw::start(&b, &a);
    let living = first.join(77, 1).await;
    until("the first is up", || node.reported().live_boots() == [77].into()).await;
    // The second process of the same key, seen at the same address.
    let reason = first.refused(78).await;
    assert!(reason.contains("cloned node"), "{reason}");
    until("the clone is reported", || node.reported().duplicates == 1).await;
    assert_eq!(node.reported().live_boots(), [77].into());
    drop(living);
}

#[tokio::test]
async fn rekeying_often_never_leaves_a_moment_without_a_session_that_carries() {
    let (mut a, mut b) = pair(1);
    a.rekey = Duration::from_millis(700);
    b.rekey = Duration::from_millis(700);
    let (a, b) = (Node::start(&a, &b, 1), Node::start(&b, &a, 2));
    both_up(&a, &b).await;
    a.activate();
    b.activate();
    let mut frames = 0u32;
    until("five sessions have followed each other", || {
        assert!(carries(&a, &b) && carries(&b, &a), "a gap after {frames} frames");
        frames += 1;
        a.reported().ups >= 6 && b.reported().ups >= 6
    })
    .await;
    assert!(a.reported().live.len() <= 4 && b.reported().live.len() <= 4);
}

#[tokio::test]
async fn either_node_may_ask_for_a_fresh_session() {
    let (a, b) = pair(1);
    let (a, b) = (Node::start(&a, &b, 1), Node::start(&b, &a, 2));
    both_up(&a, &b).await;
    for node in [&a, &b] {
        until("one session is preferred", || a.same_session(&b)).await;
        let before = (a.preferred(), b.preferred());
        node.manager.renew_session(PeerId(0));
        until("both have moved on", || {
            a.preferred() != before.0 && b.preferred() != before.1 && a.same_session(&b)
        })
        .await;
        assert!(carries(&a, &b) && carries(&b, &a));
    }
}

#[tokio::test]
async fn a_node_that_stops_ends_its_sessions_at_the_peer_at_once() {
    let (a, b) = pair(1);
    let (a, b) = (Node::start(&a, &b, 1), Node::start(&b, &a, 2));
    both_up(&a, &b).await;
    b.close().await;
    until("the session is over", || a.reported().live.is_empty()).await;
}

#[tokio::test]
async fn a_route_that_appears_late_is_used() {
    let (a, b) = pair(1);
    let (a, b) = (Node::start_without_routes(&a, &b, 1), Node::start_without_routes(&b, &a, 2));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(a.reported().never_up());
    a.give_routes();
    b.give_routes();
    both_up(&a, &b).await;
}

#[tokio::test]
async fn interface_lists_are_sent_at_the_start_and_at_every_change() {
    let list = |serial: u32, last: u8| Advertisement {
        serial,
        port: 3343,
        endpoints: vec![AdvertisedEndpoint {
            addr: [10, 0, 0, last].into(),
            prefix_len: 24,
            interface: 1,
            metric: 7,
            is_routed: false,
        }],
        ..Advertisement::default()
    };
    let (a, b) = pair(1);
    let (a, b) = (Node::start(&a, &b, 1), Node::start(&b, &a, 2));
    a.manager.advertise_interfaces(&list(1, 1));
    both_up(&a, &b).await;
    until("the first list is received", || b.reported().lists.last() == Some(&list(1, 1))).await;
    a.manager.advertise_interfaces(&list(2, 2));
    until("the changed list is received", || b.reported().lists.last() == Some(&list(2, 2))).await;
    assert!(a.reported().lists.is_empty(), "nothing was advertised there");
    assert!(carries(&a, &b) && carries(&b, &a));
}
