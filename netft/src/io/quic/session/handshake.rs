//! One attempt at a session, from the first datagram to the agreement: a child task of a peer's.

use std::time::Duration;

use netft_proto::ids::NodeKey;
use quinn::{ClientConfig, Endpoint, Incoming};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use crate::io::quic::{
    failure::Failure,
    session::{
        hello_exchange,
        hello_exchange::{Agreed, Side, Terms},
        peer::Event,
    },
    socket, tls,
    tls::SERVER_NAME,
};

/// How long a dialled handshake may take. Every attempt starts anew on every candidate route.
pub(in crate::io) const ATTEMPT: Duration = Duration::from_secs(1);
/// How long an accepted handshake may take.
const ACCEPT: Duration = Duration::from_secs(2);

/// Dials the peer of `terms` and tells its task how that went.
pub(in crate::io) async fn dial(
    terms: Terms,
    endpoint: Endpoint,
    client: ClientConfig,
    generation: u32,
) {
    let address = socket::address_of(terms.peer);
    let dial = async {
        let connecting = endpoint
            .connect_with(client, address, SERVER_NAME)
            .map_err(|error| Failure::Lost(error.to_string()))?;
        let connection = timeout(ATTEMPT, connecting)
            .await
            .map_err(|_| Failure::Lost("the handshake got no answer".to_owned()))??;
        hello_exchange::run(&terms, connection, Side::Dialer, generation).await
    };
    tell(&terms, true, dial.await).await;
}

/// Answers the peer of `terms` and tells its task how that went. `place` is one of the few
/// handshakes the peer may have under way.
pub(in crate::io) async fn accept(terms: Terms, incoming: Incoming, place: OwnedSemaphorePermit) {
    let accept = async {
        let connection = timeout(ACCEPT, incoming.accept()?)
            .await
            .map_err(|_| Failure::Lost("the handshake was not finished".to_owned()))??;
        hello_exchange::run(&terms, connection, Side::Acceptor, 0).await
    };
    tell(&terms, false, accept.await).await;
    drop(place);
}

/// Answers whoever dials from an address that is no route's: `terms` gives those of the peer
/// whose key it proves.
pub(in crate::io) async fn accept_stranger(
    terms: impl Fn(NodeKey) -> Option<Terms>,
    incoming: Incoming,
    place: OwnedSemaphorePermit,
) {
    let handshake = async { timeout(ACCEPT, incoming.accept().ok()?).await.ok()?.ok() };
    // Nobody's task hears of a handshake that proved no key.
    let Some(connection) = handshake.await else { return };
    let Some(terms) = tls::proven_key(&connection).and_then(terms) else { return };
    tell(&terms, false, hello_exchange::run(&terms, connection, Side::Acceptor, 0).await).await;
    drop(place);
}

async fn tell(terms: &Terms, dialled: bool, outcome: Result<Agreed, Failure>) {
    let event = match outcome {
        Ok(agreed) => Event::Agreed(Box::new(agreed)),
        Err(failure) => Event::Failed { dialled, failure },
    };
    // Nobody is left to hear it when the daemon stops.
    let _ = terms.events.send(event).await;
}
