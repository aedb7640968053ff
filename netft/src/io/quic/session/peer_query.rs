//! Queries between two nodes that have a session. Each is a stream on the session's QUIC
//! connection: the query, then the reply, both opaque here.
//!
//! Support is negotiated by ALPN, so a peer without it never sees such a stream. Bounds: one query
//! of a peer at a time, one per second and session; [`MAX_QUERY_LEN`] and [`MAX_REPLY_LEN`] bytes;
//! [`QUERY_TIMEOUT`].

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

/// Length of the query queue; more wait in their sessions.
pub(in crate::io) const QUERY_QUEUE_LEN: usize = 16;
/// Minimum interval of the queries of one peer.
const MIN_QUERY_INTERVAL: Duration = Duration::from_secs(1);
/// Reset code of the stream of an unanswered query.
const QUERY_UNANSWERED_CODE: VarInt = VarInt::from_u32(1);

/// Sends a query on a connection and awaits the reply.
pub(in crate::io) async fn send_query(
    connection: &Connection,
    query: &[u8],
) -> Result<Vec<u8>, QueryError> {
    if query.len() > MAX_QUERY_LEN {
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
        send.write_all(query).await.ok()?;
        send.finish().ok()?;
        recv.read_to_end(MAX_REPLY_LEN).await.ok()
    };
    timeout(QUERY_TIMEOUT, exchange)
        .await
        .map_err(|_| QueryError::TimedOut)?
        .ok_or(QueryError::Refused)
}

/// Passes on the peer's queries and sends the replies until the connection ends.
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
    let query = recv.read_to_end(MAX_QUERY_LEN).await.ok()?;
    let (reply_tx, reply_rx) = oneshot::channel();
    to.send(PeerQuery { peer, payload: query, reply_tx }).await.ok()?;
    let reply = reply_rx.await.ok().filter(|reply| reply.len() <= MAX_REPLY_LEN)?;
    send.write_all(&reply).await.ok()?;
    send.finish().ok()
}
