//! Questions between two nodes that have a session: each is a stream of its own on the session's
//! QUIC connection, whole question there, whole answer back, bytes that mean nothing here.
//!
//! Both ends say by the protocol they agree on in TLS that they take questions, so one that does
//! not is never asked, and never sees such a stream. Bounds: one question of a peer at a time, one
//! a second per session; [`MAX_QUERY_LEN`] and [`MAX_REPLY_LEN`] bytes; [`QUERY_TIMEOUT`].

use std::{fmt, time::Duration};

use netft_proto::ids::PeerId;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};

use crate::io::quic::tls;

/// The most bytes of a question.
const MAX_QUERY_LEN: usize = 256;
/// The most bytes of an answer.
pub const MAX_REPLY_LEN: usize = 64 * 1024;
/// The most questions that wait for whoever answers; more wait in their sessions.
pub(in crate::io) const QUERY_QUEUE_LEN: usize = 16;
/// How long an answer may take, from the asking on.
pub(in crate::io) const QUERY_TIMEOUT: Duration = Duration::from_secs(4);
/// The least time between the beginnings of two answers to one peer.
const MIN_QUERY_INTERVAL: Duration = Duration::from_secs(1);
/// What the stream of a question is reset with that nobody answers.
const QUERY_UNANSWERED_CODE: VarInt = VarInt::from_u32(1);

/// Why a peer gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// No peer has this number.
    #[error("there is no such peer")]
    UnknownPeer,
    /// There is no session to ask on.
    #[error("there is no session with it")]
    NoSession,
    /// The peer takes no questions.
    #[error("its netftd is too old to be asked")]
    TooOld,
    /// Nothing came in time.
    #[error("it gave no answer within {} s", QUERY_TIMEOUT.as_secs())]
    TimedOut,
    /// It does not answer this question, or its answer is too long, or the session ended.
    #[error("it gave no answer")]
    Refused,
    /// The question is too long.
    #[error("a question has at most {MAX_QUERY_LEN} bytes")]
    TooLong,
}

/// What a peer asks.
pub struct PeerQuery {
    /// Who asks. It has proven its key.
    pub peer: PeerId,
    /// What: at most 256 bytes.
    pub payload: Vec<u8>,
    /// Where the answer goes, at most [`MAX_REPLY_LEN`] bytes. Dropped, the question is refused.
    pub reply_tx: oneshot::Sender<Vec<u8>>,
}

impl fmt::Debug for PeerQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").field("peer", &self.peer).finish_non_exhaustive()
    }
}

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
