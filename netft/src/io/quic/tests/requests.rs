//! Requests on the control session.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use futures_util::future::join_all;
use netft_proto::{ids::PeerId, wire::topic::Topic};

use super::{
    rig::{Node, Raw, both_up, pair},
    until,
};
use crate::io::quic::{
    PeerRequest, QueryError,
    tls::{ALPN_CONTROL, ALPN_CONTROL_VALIDATE, CONTROL_ALPNS},
};

/// Replies to each request of a topic with `reply`; `None` refuses it.
fn reply_with(
    node: &Node,
    topic: Topic,
    reply: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static,
) {
    let mut requests = node.manager.take_requests(topic).unwrap();
    assert!(node.manager.take_requests(topic).is_none(), "the queue can be taken once");
    tokio::spawn(async move {
        while let Some(PeerRequest { peer, payload, reply_tx }) = requests.recv().await {
            assert_eq!(peer, PeerId(0));
            if let Some(bytes) = reply(&payload) {
                let _ = reply_tx.send(bytes);
            }
        }
    });
}

async fn request(node: &Node, topic: Topic, payload: &[u8]) -> Result<Vec<u8>, QueryError> {
    node.manager.request(PeerId(0), topic, payload.to_vec()).await
}

#[tokio::test]
async fn either_end_asks_the_other_on_every_topic_whichever_dialled() {
    let (a, b) = pair(1);
    let (a, b) = (Node::start(&a, &b, 1), Node::start(&b, &a, 2));
    both_up(&a, &b).await;
    for topic in Topic::ALL {
        reply_with(&a, topic, move |x| Some([b"a heard ", x, &[topic.code()]].concat()));
        reply_with(&b, topic, move |x| Some([b"b heard ", x, &[topic.code()]].concat()));
    }
    for topic in Topic::ALL {
        let (of_b, of_a) = tokio::join!(request(&a, topic, b"x"), request(&b, topic, b"y"));
        let end = [topic.code()];
        assert_eq!(of_b.unwrap(), [b"b heard x".as_slice(), &end].concat());
        assert_eq!(of_a.unwrap(), [b"a heard y".as_slice(), &end].concat());
        let max = topic.limits().max_request;
        assert_eq!(request(&a, topic, &vec![0; max + 1]).await, Err(QueryError::TooLong { max }));
    }
    let unknown = a.manager.request(PeerId(9), Topic::Validate, Vec::new()).await;
    assert_eq!(unknown, Err(QueryError::UnknownPeer));
}

#[tokio::test]
async fn the_largest_messages_arrive_whole_and_a_larger_reply_is_refused() {
    let (a, b) = pair(1);
    let (a, b) = (Node::start(&a, &b, 1), Node::start(&b, &a, 2));
    both_up(&a, &b).await;
    for topic in Topic::ALL {
        let limits = topic.limits();
        reply_with(&b, topic, move |payload| {
            let halves = usize::from(*payload.first()?);
            Some((0..halves * limits.max_reply / 2).map(|n| n as u8).collect())
        });
        let mut largest = vec![0; limits.max_request];
        largest[0] = 2;
        let whole = request(&a, topic, &largest).await.unwrap();
        assert_eq!(whole.len(), limits.max_reply);
        assert!(whole.iter().zip(0..).all(|(x, n)| *x == n as u8));
        assert_eq!(request(&a, topic, &[3]).await, Err(QueryError::Refused));
        assert_eq!(request(&a, topic, &[]).await, Err(QueryError::Refused));
        // The session lives on.
        assert_eq!(request(&a, topic, &[0]).await, Ok(Vec::new()));
    }
}

/// A topic whose receiver is busy holds back its own requests only, and no more of them than its
/// bound reach the receiver.
#[tokio::test]
async fn each_topic_has_its_own_bound_of_requests_under_way() {
    let (a, b) = pair(1);
    let (a, b) = (Node::start(&a, &b, 1), Node::start(&b, &a, 2));
    both_up(&a, &b).await;
    let mut roster = b.manager.take_requests(Topic::Roster).unwrap();
    let waiting = Arc::new(AtomicUsize::new(0));
    let seen = waiting.clone();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Some(request) = roster.recv().await {
            held.push(request);
            seen.fetch_add(1, Relaxed);
        }
    });
    reply_with(&b, Topic::Ownership, |payload| Some(payload.to_vec()));
    let stuck = join_all((0..6).map(|_| request(&a, Topic::Roster, b"x")));
    let busy = async {
        let bound = Topic::Roster.limits().max_concurrent;
        until("the bound is reached", || waiting.load(Relaxed) == bound).await;
        for n in 0..200u8 {
            assert_eq!(request(&a, Topic::Ownership, &[n]).await, Ok(vec![n]));
        }
        assert_eq!(waiting.load(Relaxed), bound);
    };
    tokio::select! {
        () = busy => {}
        replies = stuck => panic!("the others waited for the roster: {replies:?}"),
    }
}

/// Fewest requests without an interval beside one that waits a second for the next.
const OWNED_A_VALIDATION: usize = 10;

/// Ownership has no pause between its requests; validation has.
#[tokio::test]
async fn the_rate_of_a_topic_is_its_own() {
    let (a, b) = pair(1);
    let (a, b) = (Node::start(&a, &b, 1), Node::start(&b, &a, 2));
    both_up(&a, &b).await;
    let validated = Arc::new(AtomicUsize::new(0));
    let count = validated.clone();
    reply_with(&b, Topic::Validate, move |_| {
        count.fetch_add(1, Relaxed);
        Some(Vec::new())
    });
    reply_with(&b, Topic::Ownership, |_| Some(Vec::new()));
    let validate = async {
        loop {
            let _ = request(&a, Topic::Validate, b"x").await;
        }
    };
    let ownership = async {
        let mut owned = 0usize;
        while validated.load(Relaxed) < 2 || owned < 2 * OWNED_A_VALIDATION {
            assert_eq!(request(&a, Topic::Ownership, b"x").await, Ok(Vec::new()));
            owned += 1;
        }
        owned
    };
    let owned = tokio::select! {
        owned = ownership => owned,
        () = validate => 0,
    };
    // Judged against each other: the same loop on both topics.
    let validated = validated.load(Relaxed);
    let enough = owned >= OWNED_A_VALIDATION * validated;
    assert!(enough, "{owned} requests beside {validated} validations");
}

#[tokio::test]
async fn peers_of_earlier_versions_get_only_the_requests_they_know() {
    let (a, b) = pair(1);
    let node = Node::start(&a, &b, 1);
    assert_eq!(request(&node, Topic::Validate, b"x").await, Err(QueryError::NoSession));
    for (n, alpn) in [ALPN_CONTROL, ALPN_CONTROL_VALIDATE].into_iter().enumerate() {
        let old = Raw::start(&b, &a);
        let boot = 2 + n as u64;
        let _life = old.join_speaking(&[alpn], boot, u32::MAX - 1 + n as u32).await;
        until("the session serves", || node.boot() == Some(boot)).await;
        for topic in [Topic::Ownership, Topic::Roster] {
            assert_eq!(request(&node, topic, b"x").await, Err(QueryError::TooOld));
        }
        if alpn == ALPN_CONTROL {
            assert_eq!(request(&node, Topic::Validate, b"x").await, Err(QueryError::TooOld));
        }
        assert!(node.preferred().is_some() && node.reported().reasons.is_empty());
    }
}

/// A node of the version before topics: its streams are validation requests without a topic, and
/// so are those it gets.
#[tokio::test]
async fn a_peer_with_validation_only_asks_and_is_asked_without_a_topic() {
    let (a, b) = pair(1);
    let node = Node::start(&a, &b, 1);
    reply_with(&node, Topic::Validate, |payload| Some([b"heard ", payload].concat()));
    let old = Raw::start(&b, &a);
    let (connection, _life) = old.join_on_connection(&[ALPN_CONTROL_VALIDATE], 2, 1).await;
    until("the session serves", || node.preferred().is_some()).await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(b"validate/1").await.unwrap();
    send.finish().unwrap();
    assert_eq!(recv.read_to_end(100).await.unwrap(), b"heard validate/1");
    let asked = request(&node, Topic::Validate, b"validate/1");
    let answers = async {
        let (mut send, mut recv) = connection.accept_bi().await.unwrap();
        assert_eq!(recv.read_to_end(100).await.unwrap(), b"validate/1");
        send.write_all(b"fine").await.unwrap();
        send.finish().unwrap();
    };
    assert_eq!(tokio::join!(asked, answers).0, Ok(b"fine".to_vec()));
}

/// A topic of a later version is refused, and the session beside it lives.
#[tokio::test]
async fn an_unknown_topic_is_refused() {
    let (a, b) = pair(1);
    let node = Node::start(&a, &b, 1);
    reply_with(&node, Topic::Ownership, |payload| Some(payload.to_vec()));
    let peer = Raw::start(&b, &a);
    let (connection, _life) = peer.join_on_connection(CONTROL_ALPNS, 2, 1).await;
    until("the session serves", || node.preferred().is_some()).await;
    for (code, is_known) in [(200, false), (Topic::Ownership.code(), true)] {
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(&[code, 7]).await.unwrap();
        send.finish().unwrap();
        assert_eq!(recv.read_to_end(100).await.ok(), is_known.then(|| vec![7]), "topic {code}");
    }
}
