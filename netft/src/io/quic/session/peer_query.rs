//! Questions between two nodes that have a session: each is a stream of its own on the session's
//! QUIC connection, whole question there, whole answer back, bytes that mean nothing here.
//!
//! Both ends say by the protocol they agree on in TLS that they take questions, so one that does
//! not is never asked, and never sees such a stream. Bounds: one question of a peer at a time, one
//! a second per session; [`MAX_QUERY_LEN`] and [`MAX_REPLY_LEN`] bytes; [`QUERY_TIMEOUT`].

use std::time::Duration;

use netft_proto::ids::PeerId;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};

use crate::io::quic::{
    tls,
    types::{MAX_QUERY_LEN, MAX_REPLY_LEN, PeerQuery, QUERY_TIMEOUT, QueryError},
};

/// The most questions that wait for whoever answers; more wait in their sessions.
pub(in crate::io) const QUERY_QUEUE_LEN: usize = 16;
/// The least time between the beginnings of two answers to one peer.
const MIN_QUERY_INTERVAL: Duration = Duration::from_secs(1);
/// What the stream of a question is reset with that nobody answers.
const QUERY_UNANSWERED_CODE: VarInt = VarInt::from_u32(1);

/// Asks on a connection.
pub(in crate::io) async fn send_query(
    connection: &Connection,
    question: &[u8],
) -> Result<Vec<u8>, QueryError> {
    if question.len() > MAX_QUERY_LEN {
        return Err(QueryError::TooLong);
    }
    if !tls::supports_queries(connection) {
        return Err(QueryError::TooOld);
    }
    if connection.close_reason().is_some() {
        return Err(QueryError::NoSession);
    }
    let exchange = async {
        let (mut send, mut recv) = connection.open_bi().await.ok()?;
        send.write_all(question).await.ok()?;
        send.finish().ok()?;
        recv.read_to_end(MAX_REPLY_LEN).await.ok()
    };
    timeout(QUERY_TIMEOUT, exchange)
        .await
        .map_err(|_| QueryError::TimedOut)?
        .ok_or(QueryError::Refused)
}

/// Hands the peer's questions over, and gives the answers back, until the connection ends.
pub(in crate::io) async fn serve_queries(
    connection: Connection,
    peer: PeerId,
    to: mpsc::Sender<PeerQuery>,
) {
    while let Ok((mut send, recv)) = connection.accept_bi().await {
        let next = Instant::now() + MIN_QUERY_INTERVAL;
        let answered = timeout(QUERY_TIMEOUT, serve_query(peer, &mut send, recv, &to)).await;
        if !matches!(answered, Ok(Some(()))) {
            // A stream that has ended needs no reset.
            let _ = send.reset(QUERY_UNANSWERED_CODE);
        }
        sleep_until(next).await;
    }
}

async fn serve_query(
    peer: PeerId,
    send: &mut SendStream,
    mut recv: RecvStream,
    to: &mpsc::Sender<PeerQuery>,
) -> Option<()> {
    let question = recv.read_to_end(MAX_QUERY_LEN).await.ok()?;
    let (answer, reply_rx) = oneshot::channel();
    to.send(PeerQuery { peer, payload: question, reply_tx: answer }).await.ok()?;
    let answer = reply_rx.await.ok().filter(|answer| answer.len() <= MAX_REPLY_LEN)?;
    send.write_all(&answer).await.ok()?;
    send.finish().ok()
}
