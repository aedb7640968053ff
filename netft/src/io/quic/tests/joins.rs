//! Joins: who is answered, what a proof is bound to, and what an end in the middle leaves.

use netft_proto::{
    config::PrivateKey,
    ids::NodeKey,
    roster::{ClusterId, InviteId, InviteSecret, JoinToken},
};
use tokio::sync::mpsc;

use crate::io::{
    identity,
    quic::{
        join::{JoinAttempt, JoinError, Joiner, request_join},
        tests::rig::{Node, Plan, pair},
    },
};

fn token_of(inviter: &Plan) -> JoinToken {
    JoinToken {
        cluster: ClusterId([1; 32]),
        inviter: inviter.public,
        invite: InviteId([2; 8]),
        secret: InviteSecret::new([3; 16]),
        addresses: inviter.addresses(),
    }
}

/// A node that answers joiners, and the receiver of their attempts.
fn start_joinable() -> (Plan, Node, mpsc::Receiver<JoinAttempt>) {
    let (a, b) = pair(1);
    let node = Node::start(&a, &b, 1);
    let attempts = node.manager.take_joins().unwrap();
    node.set_joining(true);
    (a, node, attempts)
}

async fn ask(token: &JoinToken, key: &PrivateKey) -> Result<Vec<u8>, JoinError> {
    let addresses = ["10.1.0.9:3343".parse().unwrap()];
    let joiner = Joiner { key, name: "node-z", name_chosen: false, addresses: &addresses };
    request_join(token, &joiner).await
}

#[tokio::test]
async fn a_stranger_may_ask_to_join_while_that_is_open_and_at_no_other_time() {
    let (a, b) = pair(1);
    let node = Node::start(&a, &b, 1);
    let mut attempts = node.manager.take_joins().unwrap();
    let (token, key) = (token_of(&a), identity::generate_key().unwrap());
    assert!(matches!(ask(&token, &key).await, Err(JoinError::NoAnswer { .. })));

    node.set_joining(true);
    let answer = async {
        let attempt = attempts.recv().await.unwrap();
        assert!(token.secret.accepts_proof(&attempt.session, &attempt.request.proof));
        assert_eq!(attempt.session.joiner, identity::public_key(&key).unwrap());
        assert!(attempt.source.is_loopback(), "{}", attempt.source);
        assert_eq!(attempt.request.name, "node-z");
        attempt.reply_tx.send(vec![7; 100_000]).unwrap();
    };
    let (reply, ()) = tokio::join!(ask(&token, &key), answer);
    assert_eq!(reply.unwrap(), vec![7; 100_000]);

    // A peer of the node may ask as well: it repeats a join whose reply was lost.
    let answer = async { attempts.recv().await.unwrap().reply_tx.send(vec![8]).unwrap() };
    let (reply, ()) = tokio::join!(ask(&token, &b.key), answer);
    assert_eq!(reply.unwrap(), [8]);

    node.set_joining(false);
    assert!(matches!(ask(&token, &key).await, Err(JoinError::NoAnswer { .. })));
    assert!(attempts.try_recv().is_err());
}

#[tokio::test]
async fn nothing_is_sent_to_a_node_with_another_key_than_the_token_names() {
    let (a, _node, mut attempts) = start_joinable();
    let token = JoinToken { inviter: NodeKey([9; 32]), ..token_of(&a) };
    let key = identity::generate_key().unwrap();
    assert!(matches!(ask(&token, &key).await, Err(JoinError::NoAnswer { .. })));
    assert!(attempts.try_recv().is_err());
}

#[tokio::test]
async fn an_inviter_that_ends_in_the_middle_leaves_the_joiner_without_an_answer() {
    let (a, node, mut attempts) = start_joinable();
    let (token, key) = (token_of(&a), identity::generate_key().unwrap());
    let end = async {
        let attempt = attempts.recv().await.unwrap();
        node.close().await;
        drop(attempt);
    };
    let (reply, ()) = tokio::join!(ask(&token, &key), end);
    assert!(matches!(reply, Err(JoinError::Interrupted(_))), "{reply:?}");
}
