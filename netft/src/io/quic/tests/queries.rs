//! Queries on the control session.

use netft_proto::ids::PeerId;

use super::{
    rig::{Node, Raw, both_up, pair},
    until,
};
use crate::io::quic::{MAX_REPLY_LEN, PeerQuery, QueryError, tls::ALPN_CONTROL};

/// Replies to each query with `reply`; `None` refuses it.
fn reply_with(node: &Node, reply: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) {
    let mut queries = node.manager.take_queries().unwrap();
    assert!(node.manager.take_queries().is_none(), "the queue can be taken once");
    tokio::spawn(async move {
        while let Some(PeerQuery { peer, payload: query, reply_tx }) = queries.recv().await {
            assert_eq!(peer, PeerId(0));
            if let Some(bytes) = reply(&query) {
                let _ = reply_tx.send(bytes);
            }
        }
    });
}

async fn query(node: &Node, query: &[u8]) -> Result<Vec<u8>, QueryError> {
    node.manager.query_peer(PeerId(0), query.to_vec()).await
}

#[tokio::test]
async fn either_end_queries_the_other_whichever_dialled() {
    let (a, b) = pair(1);
    let (a, b) = (Node::start(&a, &b, 1), Node::start(&b, &a, 2));
    both_up(&a, &b).await;
    reply_with(&a, |query| Some([b"a heard ", query].concat()));
    reply_with(&b, |query| Some([b"b heard ", query].concat()));
    let (of_b, of_a) = tokio::join!(query(&a, b"x"), query(&b, b"y"));
    assert_eq!((of_b.unwrap(), of_a.unwrap()), (b"b heard x".to_vec(), b"a heard y".to_vec()));
    assert_eq!(a.manager.query_peer(PeerId(9), Vec::new()).await, Err(QueryError::UnknownPeer));
    assert_eq!(query(&a, &[0; 257]).await, Err(QueryError::TooLong));
}

#[tokio::test]
async fn the_largest_reply_arrives_whole_and_a_larger_one_is_refused() {
    let (a, b) = pair(1);
    let (a, b) = (Node::start(&a, &b, 1), Node::start(&b, &a, 2));
    both_up(&a, &b).await;
    reply_with(&b, |query| {
        let size = usize::from(*query.first()?);
        Some((0..size * MAX_REPLY_LEN / 2).map(|n| n as u8).collect())
    });
    let whole = query(&a, &[2]).await.unwrap();
    assert!(whole.len() == MAX_REPLY_LEN && whole.iter().zip(0..).all(|(x, n)| *x == n as u8));
    assert_eq!(query(&a, &[3]).await, Err(QueryError::Refused));
    assert_eq!(query(&a, &[]).await, Err(QueryError::Refused));
    // The session lives on.
    assert_eq!(query(&a, &[0]).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_peer_without_query_support_has_a_session_and_gets_no_query() {
    let (a, b) = pair(1);
    let node = Node::start(&a, &b, 1);
    assert_eq!(query(&node, b"x").await, Err(QueryError::NoSession));
    let old = Raw::start(&b, &a);
    let _life = old.join_speaking(&[ALPN_CONTROL], 2, u32::MAX).await;
    until("the session serves", || node.preferred().is_some()).await;
    assert_eq!(query(&node, b"x").await, Err(QueryError::TooOld));
    assert!(node.preferred().is_some() && node.reported().reasons.is_empty());
}
