//! One attempt at a session, from the first datagram to the agreement: a child task of a peer's.

use std::time::Duration;

use netft_proto::ids::NodeKey;
use quinn::{ClientConfig, Endpoint, Incoming};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use crate::io::quic::{
    failure::HandshakeError,
    peer_address,
    session::{
        event::{EstablishedSession, HandshakeRole, PeerTaskEvent},
        hello_exchange,
        hello_exchange::PeerContext,
    },
    tls,
    tls::SERVER_NAME,
};

/// How long a dialled handshake may take. Every attempt starts anew on every candidate route.
pub(in crate::io) const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an accepted handshake may take.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(2);

/// Dials the peer of `terms` and tells its task how that went.
pub(in crate::io) async fn dial_peer(
    terms: PeerContext,
    endpoint: Endpoint,
    client: ClientConfig,
    generation: u32,
) {
    let address = peer_address::address_of(terms.peer);
    let dial = async {
        let connecting = endpoint
            .connect_with(client, address, SERVER_NAME)
            .map_err(|error| HandshakeError::Lost(error.to_string()))?;
        let connection = timeout(DIAL_TIMEOUT, connecting)
            .await
            .map_err(|_| HandshakeError::Lost("the handshake got no answer".to_owned()))??;
        hello_exchange::exchange_hellos(&terms, connection, HandshakeRole::Dialer, generation).await
    };
    report_outcome(&terms, true, dial.await).await;
}

/// Answers the peer of `terms` and tells its task how that went. `place` is one of the few
/// handshakes the peer may have under way.
pub(in crate::io) async fn accept_handshake(
    terms: PeerContext,
    incoming: Incoming,
    place: OwnedSemaphorePermit,
) {
    let accept = async {
        let connection = timeout(ACCEPT_TIMEOUT, incoming.accept()?)
            .await
            .map_err(|_| HandshakeError::Lost("the handshake was not finished".to_owned()))??;
        hello_exchange::exchange_hellos(&terms, connection, HandshakeRole::Acceptor, 0).await
    };
    report_outcome(&terms, false, accept.await).await;
    drop(place);
}

/// Answers whoever dials from an address that is no route's: `terms` gives those of the peer
/// whose key it proves.
pub(in crate::io) async fn accept_unverified(
    terms: impl Fn(NodeKey) -> Option<PeerContext>,
    incoming: Incoming,
    place: OwnedSemaphorePermit,
) {
    let handshake = async { timeout(ACCEPT_TIMEOUT, incoming.accept().ok()?).await.ok()?.ok() };
    // Nobody's task hears of a handshake that proved no key.
    let Some(connection) = handshake.await else { return };
    let Some(terms) = tls::proven_key(&connection).and_then(terms) else { return };
    report_outcome(
        &terms,
        false,
        hello_exchange::exchange_hellos(&terms, connection, HandshakeRole::Acceptor, 0).await,
    )
    .await;
    drop(place);
}

async fn report_outcome(
    terms: &PeerContext,
    dialled: bool,
    outcome: Result<EstablishedSession, HandshakeError>,
) {
    let event = match outcome {
        Ok(agreed) => PeerTaskEvent::Established(Box::new(agreed)),
        Err(failure) => PeerTaskEvent::Failed { dialled, failure },
    };
    // Nobody is left to hear it when the daemon stops.
    let _ = terms.events.send(event).await;
}
