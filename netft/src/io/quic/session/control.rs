//! The control stream of one session after the exchange of hellos: single-byte messages and
//! interface lists.
//!
//! One task per session. A peer can cause a one-byte answer to a one-byte message and the decoding
//! of a list of bounded length, and nothing else.

use std::{sync::Arc, time::Duration};

use netft_proto::wire::{interfaces, interfaces::Advertisement};
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tracing::debug;

use crate::io::quic::{
    failure::RefusalReason,
    session::{
        event::{HandshakeRole, PeerTaskEvent},
        hello_exchange::TAG_READY,
    },
};

/// Tag `confirmed`: the dialer has received the acceptor's `ready`, so both ends send and receive.
const TAG_CONFIRMED: u8 = 2;
/// Tag: liveness request.
const TAG_LIVENESS_REQUEST: u8 = 3;
/// Tag: liveness reply.
const TAG_LIVENESS_REPLY: u8 = 4;

/// Tag: an interface list, its length (16 bits) and the list.
const TAG_INTERFACES: u8 = 5;
/// Timeout of the rest of a list after its tag.
const INTERFACE_LIST_TIMEOUT: Duration = Duration::from_secs(3);

/// The encoded interface list of this node; empty until it is known.
pub(in crate::io) type AdvertisementReceiver = watch::Receiver<Arc<[u8]>>;

/// Waiter for a liveness reply of the peer's process.
pub(in crate::io) type LivenessCheck = oneshot::Sender<()>;

/// The control stream of a session that this node has installed.
pub(in crate::io) struct ControlStream {
    pub(in crate::io) connection: Connection,
    pub(in crate::io) send: SendStream,
    pub(in crate::io) recv: RecvStream,
    /// This node's id of the session.
    pub(in crate::io) local_session: u32,
    pub(in crate::io) role: HandshakeRole,
    pub(in crate::io) generation: u32,
    /// Liveness requests for the peer.
    pub(in crate::io) liveness_checks: mpsc::Receiver<LivenessCheck>,
    /// Sent to the peer at once, and at every change.
    pub(in crate::io) advertisement: AdvertisementReceiver,
    /// Queue of the peer's task.
    pub(in crate::io) events: mpsc::Sender<PeerTaskEvent>,
}

impl ControlStream {
    /// Serves the stream until its QUIC connection ends, and reports the end to the peer's task.
    pub(in crate::io) async fn serve(mut self) {
        let error = self.serve_messages().await;
        let ended = PeerTaskEvent::Lost { local_session: self.local_session, error };
        // The receiver is gone when the daemon stops.
        let _ = self.events.send(ended).await;
    }

    async fn serve_messages(&mut self) -> ConnectionError {
        // The session must be installed by now: the message allows the peer to send.
        let mut ready_message = vec![TAG_READY];
        if self.role == HandshakeRole::Dialer {
            ready_message.extend(self.generation.to_be_bytes());
        }
        if self.send.write_all(&ready_message).await.is_err() {
            return self.close_on_violation().await;
        }
        debug!("ready sent");
        self.advertisement.mark_changed();
        let mut is_ready_received = self.role == HandshakeRole::Acceptor;
        let mut pending_checks: Vec<LivenessCheck> = Vec::new();
        loop {
            let mut tag = [0];
            tokio::select! {
                read = self.recv.read(&mut tag) => match read {
                    Ok(Some(_)) => {}
                    Err(ReadError::ConnectionLost(error)) => return error,
                    Ok(None) | Err(_) => return self.close_on_violation().await,
                },
                Ok(()) = self.advertisement.changed() => {
                    let message = encode_interfaces(&self.advertisement.borrow_and_update());
                    debug!(bytes = message.len(), "interface list sent");
                    if self.send.write_all(&message).await.is_err() {
                        return self.close_on_violation().await;
                    }
                    continue;
                }
                Some(check) = self.liveness_checks.recv() => {
                    pending_checks.retain(|other| !other.is_closed());
                    pending_checks.push(check);
                    if self.send.write_all(&[TAG_LIVENESS_REQUEST]).await.is_err() {
                        return self.close_on_violation().await;
                    }
                    continue;
                }
            }
            let (event, answer) = match tag[0] {
                TAG_READY if !is_ready_received => {
                    is_ready_received = true;
                    (Some(PeerTaskEvent::Usable(self.local_session)), Some(TAG_CONFIRMED))
                }
                TAG_CONFIRMED if self.role == HandshakeRole::Acceptor => {
                    (Some(PeerTaskEvent::Confirmed(self.local_session)), None)
                }
                TAG_LIVENESS_REQUEST => (None, Some(TAG_LIVENESS_REPLY)),
                TAG_LIVENESS_REPLY => {
                    for check in pending_checks.drain(..) {
                        // The waiter may have timed out.
                        let _ = check.send(());
                    }
                    (None, None)
                }
                TAG_INTERFACES => match timeout(INTERFACE_LIST_TIMEOUT, self.read_interfaces())
                    .await
                {
                    Ok(Some(list)) => (
                        Some(PeerTaskEvent::Interfaces { local_session: self.local_session, list }),
                        None,
                    ),
                    Ok(None) | Err(_) => return self.close_on_violation().await,
                },
                _ => return self.close_on_violation().await,
            };
            if let Some(event) = event
                && self.events.send(event).await.is_err()
            {
                return ConnectionError::LocallyClosed;
            }
            if let Some(answer) = answer
                && self.send.write_all(&[answer]).await.is_err()
            {
                return self.close_on_violation().await;
            }
        }
    }

    /// Reads the interface list that follows a tag.
    async fn read_interfaces(&mut self) -> Option<Box<Advertisement>> {
        let mut length = [0; 2];
        self.recv.read_exact(&mut length).await.ok()?;
        let length = usize::from(u16::from_be_bytes(length));
        if length > interfaces::MAX_ADVERTISEMENT_LEN {
            return None;
        }
        let mut body = vec![0; length];
        self.recv.read_exact(&mut body).await.ok()?;
        Advertisement::decode(&body).ok().map(Box::new)
    }

    /// Reason of the connection's end. A connection that is still open is closed for a protocol
    /// violation of the peer.
    async fn close_on_violation(&self) -> ConnectionError {
        if let Some(error) = self.connection.close_reason() {
            return error;
        }
        let refusal = RefusalReason::Malformed;
        debug!("protocol violation of the peer: connection closed");
        self.connection.close(refusal.close_code(), refusal.to_string().as_bytes());
        let violation = PeerTaskEvent::Failed { dialled: false, failure: refusal.into() };
        // The receiver is gone when the daemon stops.
        let _ = self.events.send(violation).await;
        self.connection.closed().await
    }
}

/// Encodes the message of an interface list; empty when there is none yet.
fn encode_interfaces(list: &[u8]) -> Vec<u8> {
    let length = u16::try_from(list.len()).unwrap_or_default();
    if length == 0 {
        return Vec::new();
    }
    [&[TAG_INTERFACES][..], &length.to_be_bytes(), list].concat()
}
