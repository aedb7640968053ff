//! Joins: a QUIC handshake of its own ALPN on the node's port, with a key that nobody has pinned.
//! It can do one thing, ask to join, and is off unless an invite is remembered.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use netft_proto::{
    config::PrivateKey,
    ids::NodeKey,
    roster::{
        JoinRequest, JoinSession, JoinToken, MAX_JOIN_REPLY_LEN, MAX_JOIN_REQUEST_LEN, NodeAddress,
        source_network,
    },
};
use quinn::{Connection, Endpoint};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::debug;

use crate::io::{
    identity,
    quic::{
        endpoint,
        failure::CLOSE_GOING_AWAY,
        tls,
        tls::{ALPN_JOIN, SERVER_NAME, TlsIdentity},
    },
};

/// Label of the exported keying material that a proof is bound to (RFC 8446 section 7.5).
const EXPORTER_LABEL: &[u8] = b"EXPORTER-netft-join";
/// Timeout of a joiner's request after the handshake, and of the delivery of its reply.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of one address of the inviting node, handshake included.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Head start of each address of the inviting node before the next one (RFC 8305 section 5).
const ADDRESS_HEAD_START: Duration = Duration::from_millis(250);
/// Time for which a joiner delivers its last acknowledgement.
const LINGER_TIME: Duration = Duration::from_millis(200);
/// Joins that wait for the receiver; further ones are refused.
const JOIN_QUEUE_LEN: usize = 8;
/// Joins served at once; further ones are closed.
const MAX_JOINS: usize = 8;
/// Joins of one source served at once, so that it does not take every permit. An IPv6 source is a
/// /64: one host may choose addresses of it.
const MAX_JOINS_PER_SOURCE: usize = 2;

/// A node that asks to join. Only its key is proven.
#[derive(Debug)]
pub struct JoinAttempt {
    /// Address it asks from.
    pub source: IpAddr,
    /// Its TLS session.
    pub session: JoinSession,
    /// Its request.
    pub request: JoinRequest,
    /// Channel of the reply: [`JoinReply`](netft_proto::roster::JoinReply), encoded.
    pub reply_tx: oneshot::Sender<Vec<u8>>,
}

/// Error of a join.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The own key cannot be used.
    #[error(transparent)]
    Key(#[from] identity::KeyError),
    /// TLS or a socket would not start.
    #[error("the join cannot start: {0}")]
    Start(String),
    /// No address of the inviting node answered; nothing of the token was sent.
    #[error(
        "no answer from the inviting node at {addresses}: is its netftd running, its invite still \
         open, and UDP allowed in between? ({last})"
    )]
    NoAnswer {
        /// The addresses tried.
        addresses: String,
        /// The last failure.
        last: String,
    },
    /// The request was sent, and no reply came: this node may be in the cluster.
    #[error(
        "the inviting node at {0} did not reply; this node may be in the cluster already, so run \
         the same command again"
    )]
    Interrupted(SocketAddr),
}

/// Permits of the joins that are served.
#[derive(Clone)]
pub(in crate::io) struct JoinAdmission {
    inviter: Arc<Mutex<NodeKey>>,
    queue: mpsc::Sender<JoinAttempt>,
    /// Sources of those served.
    served: Arc<Mutex<Vec<IpAddr>>>,
}

/// A permit, given back when dropped.
struct JoinPermit {
    source: IpAddr,
    served: Arc<Mutex<Vec<IpAddr>>>,
}

impl Drop for JoinPermit {
    fn drop(&mut self) {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = served.iter().position(|source| *source == self.source) {
            served.swap_remove(at);
        }
    }
}

impl JoinAdmission {
    /// The permits of the node with the key `inviter`, and the receiver of the attempts.
    pub(in crate::io) fn new(inviter: NodeKey) -> (Self, mpsc::Receiver<JoinAttempt>) {
        let (queue, receiver) = mpsc::channel(JOIN_QUEUE_LEN);
        let inviter = Arc::new(Mutex::new(inviter));
        (Self { inviter, queue, served: Arc::default() }, receiver)
    }

    /// This node's key was replaced.
    pub(in crate::io) fn set_inviter(&self, key: NodeKey) {
        *self.inviter.lock().unwrap_or_else(PoisonError::into_inner) = key;
    }

    fn take_permit(&self, source: IpAddr) -> Option<JoinPermit> {
        let source = source_network(source);
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let of_source = served.iter().filter(|other| **other == source).count();
        if served.len() == MAX_JOINS || of_source == MAX_JOINS_PER_SOURCE {
            return None;
        }
        served.push(source);
        Some(JoinPermit { source, served: Arc::clone(&self.served) })
    }

    /// Serves the one request of a joiner at `source`, if there is a permit.
    pub(in crate::io) async fn serve_join(self, connection: Connection, source: IpAddr) {
        let Some(_permit) = self.take_permit(source) else {
            return connection.close(CLOSE_GOING_AWAY, b"too many joins at once");
        };
        let serve = self.pass_on(&connection, source);
        if !matches!(timeout(JOIN_TIMEOUT, serve).await, Ok(Some(()))) {
            debug!(%source, "a join was not finished");
        }
        connection.close(CLOSE_GOING_AWAY, b"");
    }

    async fn pass_on(&self, connection: &Connection, source: IpAddr) -> Option<()> {
        let joiner = tls::proven_key(connection)?;
        let exporter = export_binding(connection)?;
        let inviter = *self.inviter.lock().unwrap_or_else(PoisonError::into_inner);
        let session = JoinSession { inviter, joiner, exporter };
        let (mut send, mut recv) = connection.accept_bi().await.ok()?;
        let bytes = recv.read_to_end(MAX_JOIN_REQUEST_LEN).await.ok()?;
        let request = JoinRequest::decode(&bytes).ok()?;
        let (reply_tx, reply_rx) = oneshot::channel();
        // A full queue refuses: the joiner tries again.
        self.queue.try_send(JoinAttempt { source, session, request, reply_tx }).ok()?;
        let reply = reply_rx.await.ok()?;
        send.write_all(&reply).await.ok()?;
        send.finish().ok()?;
        // The joiner closes once it has the reply.
        connection.closed().await;
        Some(())
    }
}

fn export_binding(connection: &Connection) -> Option<[u8; 32]> {
    let mut value = [0; 32];
    connection.export_keying_material(&mut value, EXPORTER_LABEL, b"").ok()?;
    Some(value)
}

/// A joining node.
#[derive(Debug)]
pub struct Joiner<'a> {
    /// Its key.
    pub key: &'a PrivateKey,
    /// Its name.
    pub name: &'a str,
    /// The operator chose it: it does not give way to the invite's.
    pub name_chosen: bool,
    /// Its physical addresses.
    pub addresses: &'a [NodeAddress],
}

/// Asks the node that a token names to let this one join. Returns its reply, a
/// [`JoinReply`](netft_proto::roster::JoinReply). Must be called within a tokio runtime.
///
/// # Errors
/// See [`JoinError`].
pub async fn request_join(token: &JoinToken, joiner: &Joiner<'_>) -> Result<Vec<u8>, JoinError> {
    let own = identity::public_key(joiner.key)?;
    let start = |error: String| JoinError::Start(error);
    let tls = TlsIdentity::new(joiner.key, own).map_err(|error| start(error.to_string()))?;
    let client = endpoint::client_config_with_alpn(&tls, [token.inviter].into_iter(), &[ALPN_JOIN])
        .map_err(|error| start(error.to_string()))?;
    let mut dials = JoinSet::new();
    for (address, place) in token.addresses.iter().copied().zip(0..) {
        let client = client.clone();
        dials.spawn(async move {
            sleep(ADDRESS_HEAD_START * place).await;
            let failed = |error: String| format!("{address}: {error}");
            let bind: IpAddr = match address {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let endpoint =
                Endpoint::client((bind, 0).into()).map_err(|error| failed(error.to_string()))?;
            let connecting = endpoint
                .connect_with(client, address, SERVER_NAME)
                .map_err(|error| failed(error.to_string()))?;
            match timeout(DIAL_TIMEOUT, connecting).await {
                Ok(Ok(connection)) => Ok((address, endpoint, connection)),
                Ok(Err(error)) => Err(failed(error.to_string())),
                Err(_) => Err(failed("no answer".to_owned())),
            }
        });
    }
    let mut last = "the token names no address".to_owned();
    // The first that answers; the others end with the set.
    while let Some(dialled) = dials.join_next().await {
        let (address, endpoint, connection) = match dialled {
            Ok(Ok(dialled)) => dialled,
            Ok(Err(error)) => {
                last = error;
                continue;
            }
            Err(error) => {
                last = error.to_string();
                continue;
            }
        };
        dials.abort_all();
        let session = export_binding(&connection).map(|exporter| JoinSession {
            inviter: token.inviter,
            joiner: own,
            exporter,
        });
        let session = session.ok_or_else(|| start("TLS exports no keying material".to_owned()))?;
        let request = JoinRequest {
            invite: token.invite,
            proof: token.secret.prove(&session),
            name: joiner.name.to_owned(),
            name_chosen: joiner.name_chosen,
            addresses: joiner.addresses.to_vec(),
        };
        let reply = timeout(2 * JOIN_TIMEOUT, exchange(&connection, &request)).await;
        connection.close(CLOSE_GOING_AWAY, b"");
        let _ = timeout(LINGER_TIME, endpoint.wait_idle()).await;
        return reply.ok().flatten().ok_or(JoinError::Interrupted(address));
    }
    let addresses: Vec<_> = token.addresses.iter().map(ToString::to_string).collect();
    Err(JoinError::NoAnswer { addresses: addresses.join(", "), last })
}

async fn exchange(connection: &Connection, request: &JoinRequest) -> Option<Vec<u8>> {
    let (mut send, mut recv) = connection.open_bi().await.ok()?;
    send.write_all(&request.encode()).await.ok()?;
    send.finish().ok()?;
    recv.read_to_end(MAX_JOIN_REPLY_LEN).await.ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn one_source_does_not_take_every_permit() {
        let (admission, _receiver) = JoinAdmission::new(NodeKey([1; 32]));
        let source = |last: u8| IpAddr::from([10, 0, 0, last]);
        let flood: Vec<_> = (0..10).filter_map(|_| admission.take_permit(source(1))).collect();
        assert_eq!(flood.len(), MAX_JOINS_PER_SOURCE);
        let others: Vec<_> =
            (2..20).filter_map(|last| admission.take_permit(source(last))).collect();
        assert_eq!(others.len(), MAX_JOINS - MAX_JOINS_PER_SOURCE);
        assert!(admission.take_permit(source(100)).is_none());
        drop(flood);
        assert!(admission.take_permit(source(1)).is_some());
        let (admission, _receiver) = JoinAdmission::new(NodeKey([1; 32]));
        let host = |last: u16| IpAddr::from([0xfd00, 0, 0, 1, 0, 0, 0, last]);
        let flood: Vec<_> = (0..10).filter_map(|it| admission.take_permit(host(it))).collect();
        assert_eq!(flood.len(), MAX_JOINS_PER_SOURCE, "one /64 is one source");
    }
}
