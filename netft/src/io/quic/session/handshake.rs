//! One handshake, from the first datagram to the exchanged hellos: a child task of a peer's task.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use netft_proto::ids::NodeKey;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, Incoming};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use tracing::{Instrument, debug};

use crate::io::quic::{
    failure::HandshakeError,
    peer_address,
    session::{
        event::{EstablishedSession, HandshakeRole, PeerTaskEvent},
        hello_exchange,
        hello_exchange::PeerContext,
        report_limiter::ReportLimiter,
    },
    tls,
    tls::SERVER_NAME,
};

/// Timeout of a dialled QUIC handshake. Every attempt starts on every candidate route.
pub(in crate::io) const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Timeout of an accepted QUIC handshake.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval of the debug lines about handshakes that proved no key of a peer.
const UNPROVEN_LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Dials the peer of `context` and reports the outcome to its task.
pub(in crate::io) async fn dial_peer(
    context: PeerContext,
    endpoint: Endpoint,
    client: ClientConfig,
    generation: u32,
) {
    let address = peer_address::address_of(context.peer);
    let dial = async {
        let connecting = endpoint
            .connect_with(client, address, SERVER_NAME)
            .map_err(|error| HandshakeError::Lost(error.to_string()))?;
        let connection = timeout(DIAL_TIMEOUT, connecting)
            .await
            .map_err(|_| HandshakeError::Lost("the handshake got no answer".to_owned()))??;
        debug!(rtt = ?connection.rtt(), "TLS handshake complete");
        hello_exchange::exchange_hellos(&context, connection, HandshakeRole::Dialer, generation)
            .await
    };
    report_outcome(&context, true, dial.await).await;
}

/// Accepts a handshake of the peer of `context` and reports the outcome to its task. `permit`
/// counts it among the handshakes of the peer under way.
pub(in crate::io) async fn accept_handshake(
    context: PeerContext,
    incoming: Incoming,
    permit: OwnedSemaphorePermit,
) {
    let accept = async {
        let connection = timeout(ACCEPT_TIMEOUT, incoming.accept()?)
            .await
            .map_err(|_| HandshakeError::Lost("the handshake was not finished".to_owned()))??;
        debug!(rtt = ?connection.rtt(), "TLS handshake complete");
        hello_exchange::exchange_hellos(&context, connection, HandshakeRole::Acceptor, 0).await
    };
    report_outcome(&context, false, accept.await).await;
    drop(permit);
}

/// Accepts a handshake from an address of no route: `find_peer` returns the context of the peer
/// whose key the handshake proves. A node that asks to join is passed to `serve_join`.
pub(in crate::io) async fn accept_unverified(
    find_peer: impl Fn(NodeKey) -> Option<PeerContext>,
    incoming: Incoming,
    permit: OwnedSemaphorePermit,
    limiter: &Mutex<ReportLimiter>,
    serve_join: impl AsyncFnOnce(Connection),
) {
    let connection = match accept_connection(incoming).await {
        Ok(connection) => connection,
        // No peer's task learns of a handshake that proved no key.
        Err(reason) => return log_unproven(limiter, &reason),
    };
    if tls::is_join(&connection) {
        // Permits are for handshakes of peers; joins have their own.
        drop(permit);
        return serve_join(connection).await;
    }
    let Some(context) = tls::proven_key(&connection).and_then(find_peer) else {
        return log_unproven(limiter, "the key is of no configured peer");
    };
    let span = context.log_span();
    let exchange = async {
        debug!("TLS handshake complete: an unverified source holds the key of the peer");
        let role = HandshakeRole::Acceptor;
        let outcome = hello_exchange::exchange_hellos(&context, connection, role, 0).await;
        report_outcome(&context, false, outcome).await;
    };
    exchange.instrument(span).await;
    drop(permit);
}

async fn accept_connection(incoming: Incoming) -> Result<Connection, String> {
    let text = |error: ConnectionError| HandshakeError::from(error).to_string();
    timeout(ACCEPT_TIMEOUT, incoming.accept().map_err(text)?)
        .await
        .map_err(|_| "the handshake was not finished".to_owned())?
        .map_err(text)
}

fn log_unproven(limiter: &Mutex<ReportLimiter>, reason: &str) {
    let mut limiter = limiter.lock().unwrap_or_else(PoisonError::into_inner);
    if limiter.try_report("unverified", "unproven", UNPROVEN_LOG_INTERVAL, Instant::now()) {
        debug!(reason, "handshake from an unverified source failed");
    }
}

async fn report_outcome(
    context: &PeerContext,
    dialled: bool,
    outcome: Result<EstablishedSession, HandshakeError>,
) {
    let event = match outcome {
        Ok(established) => PeerTaskEvent::Established(Box::new(established)),
        Err(failure) => PeerTaskEvent::Failed { dialled, failure },
    };
    // The receiver is gone when the daemon stops.
    let _ = context.events.send(event).await;
}
