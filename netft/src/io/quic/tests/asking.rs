//! Questions on the control session.

use netft_proto::ids::PeerId;

use super::{
    rig::{Node, Raw, both_up, pair},
    until,
};
use crate::io::quic::{MAX_REPLY_LEN, PeerQuery, QueryError, tls::ALPN_CONTROL};

/// Answers with what `reply` makes of each question; `None` refuses it.
fn answer(node: &Node, reply: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) {
    let mut questions = node.manager.take_queries().unwrap();
    assert!(node.manager.take_queries().is_none(), "one alone answers");
    tokio::spawn(async move {
        while let Some(PeerQuery { peer, payload: question, reply_tx: answer }) =
            questions.recv().await
        {
            assert_eq!(peer, PeerId(0));
            if let Some(bytes) = reply(&question) {
                let _ = answer.send(bytes);
            }
        }
    });
}

async fn ask(node: &Node, question: &[u8]) -> Result<Vec<u8>, QueryError> {
    node.manager.query_peer(PeerId(0), question.to_vec()).await
}

#[tokio::test]
async fn either_end_asks_and_is_answered_whoever_dialled() {
    let (a, b) = pair(1);
    let (a, b) = (Node::start(&a, &b, 1), Node::start(&b, &a, 2));
    both_up(&a, &b).await;
    answer(&a, |question| Some([b"a heard ", question].concat()));
    answer(&b, |question| Some([b"b heard ", question].concat()));
    let (of_b, of_a) = tokio::join!(ask(&a, b"x"), ask(&b, b"y"));
    assert_eq!((of_b.unwrap(), of_a.unwrap()), (b"b heard x".to_vec(), b"a heard y".to_vec()));
    assert_eq!(a.manager.query_peer(PeerId(9), Vec::new()).await, Err(QueryError::UnknownPeer));
    assert_eq!(ask(&a, &[0; 257]).await, Err(QueryError::TooLong));
}

#[tokio::test]
async fn the_largest_answer_arrives_whole_and_a_larger_one_or_none_not_at_all() {
    let (a, b) = pair(1);
    let (a, b) = (Node::start(&a, &b, 1), Node::start(&b, &a, 2));
    both_up(&a, &b).await;
    answer(&b, |question| {
        let size = usize::from(*question.first()?);
        Some((0..size * MAX_REPLY_LEN / 2).map(|n| n as u8).collect())
    });
    let whole = ask(&a, &[2]).await.unwrap();
    assert!(whole.len() == MAX_REPLY_LEN && whole.iter().zip(0..).all(|(x, n)| *x == n as u8));
    assert_eq!(ask(&a, &[3]).await, Err(QueryError::Refused));
    assert_eq!(ask(&a, &[]).await, Err(QueryError::Refused));
    // The session lives on.
    assert_eq!(ask(&a, &[0]).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_peer_that_knows_no_questions_has_a_session_and_is_not_asked() {
    let (a, b) = pair(1);
    let node = Node::start(&a, &b, 1);
    assert_eq!(ask(&node, b"x").await, Err(QueryError::NoSession));
    let old = Raw::start(&b, &a);
    let _life = old.join_speaking(&[ALPN_CONTROL], 2, u32::MAX).await;
    until("the session serves", || node.preferred().is_some()).await;
    assert_eq!(ask(&node, b"x").await, Err(QueryError::TooOld));
    assert!(node.preferred().is_some() && node.told().reasons.is_empty());
}
