//! The control stream of one session after the exchange: single-byte messages and interface
//! lists, until it ends.
//!
//! One task per session. A peer can make it answer, byte for byte, and take in a list of bounded
//! length, and nothing else.

use std::{sync::Arc, time::Duration};

use netft_proto::wire::{interfaces, interfaces::Interfaces};
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use crate::io::quic::{
    failure::Refusal,
    session::{
        hello_exchange::{READY, Side},
        peer::Event,
    },
};

/// Tag: the dialer has heard the acceptor's last word, so both ends send and receive.
const SETTLED: u8 = 2;
/// Tag: a question whether this process still lives.
const PROBE: u8 = 3;
/// Tag: the answer.
const ALIVE: u8 = 4;

/// Tag: an interface list, its length (16 bits) and the list.
const INTERFACES: u8 = 5;
/// How long the rest of a list may take after its tag.
const PATIENCE: Duration = Duration::from_secs(3);

/// What this node tells of its interfaces, encoded; empty until it knows.
pub(in crate::io) type Offer = watch::Receiver<Arc<[u8]>>;

/// Someone who wants to know whether the peer's process lives.
pub(in crate::io) type Probe = oneshot::Sender<()>;

/// The control stream of a session that stands in this node's tables.
pub(in crate::io) struct Control {
    pub(in crate::io) connection: Connection,
    pub(in crate::io) send: SendStream,
    pub(in crate::io) recv: RecvStream,
    /// This node's number of the session.
    pub(in crate::io) local: u32,
    pub(in crate::io) side: Side,
    pub(in crate::io) generation: u32,
    /// Questions to the peer.
    pub(in crate::io) probes: mpsc::Receiver<Probe>,
    /// What to tell the peer at once, and at every change.
    pub(in crate::io) offer: Offer,
    /// The peer's task.
    pub(in crate::io) events: mpsc::Sender<Event>,
}

impl Control {
    /// Serves the stream until its QUIC connection ends, and tells the peer's task.
    pub(in crate::io) async fn serve(mut self) {
        let error = self.talk().await;
        let ended = Event::Lost { local: self.local, error };
        // Nobody is left to hear it when the daemon stops.
        let _ = self.events.send(ended).await;
    }

    async fn talk(&mut self) -> ConnectionError {
        // The session must be in this node's tables by now: the word invites the peer to send.
        let mut word = vec![READY];
        if self.side == Side::Dialer {
            word.extend(self.generation.to_be_bytes());
        }
        if self.send.write_all(&word).await.is_err() {
            return self.break_off().await;
        }
        self.offer.mark_changed();
        let mut heard_ready = self.side == Side::Acceptor;
        let mut waiting: Vec<Probe> = Vec::new();
        loop {
            let mut tag = [0];
            tokio::select! {
                read = self.recv.read(&mut tag) => match read {
                    Ok(Some(_)) => {}
                    Err(ReadError::ConnectionLost(error)) => return error,
                    Ok(None) | Err(_) => return self.break_off().await,
                },
                Ok(()) = self.offer.changed() => {
                    let message = message(&self.offer.borrow_and_update());
                    if self.send.write_all(&message).await.is_err() {
                        return self.break_off().await;
                    }
                    continue;
                }
                Some(probe) = self.probes.recv() => {
                    waiting.retain(|other| !other.is_closed());
                    waiting.push(probe);
                    if self.send.write_all(&[PROBE]).await.is_err() {
                        return self.break_off().await;
                    }
                    continue;
                }
            }
            let (event, answer) = match tag[0] {
                READY if !heard_ready => {
                    heard_ready = true;
                    (Some(Event::Usable(self.local)), Some(SETTLED))
                }
                SETTLED if self.side == Side::Acceptor => (Some(Event::Settled(self.local)), None),
                PROBE => (None, Some(ALIVE)),
                ALIVE => {
                    for probe in waiting.drain(..) {
                        // Whoever asked may have stopped waiting.
                        let _ = probe.send(());
                    }
                    (None, None)
                }
                INTERFACES => match timeout(PATIENCE, self.interfaces()).await {
                    Ok(Some(list)) => (Some(Event::Interfaces { local: self.local, list }), None),
                    Ok(None) | Err(_) => return self.break_off().await,
                },
                _ => return self.break_off().await,
            };
            if let Some(event) = event
                && self.events.send(event).await.is_err()
            {
                return ConnectionError::LocallyClosed;
            }
            if let Some(answer) = answer
                && self.send.write_all(&[answer]).await.is_err()
            {
                return self.break_off().await;
            }
        }
    }

    /// The interface list behind a tag.
    async fn interfaces(&mut self) -> Option<Box<Interfaces>> {
        let mut length = [0; 2];
        self.recv.read_exact(&mut length).await.ok()?;
        let mut body = [0; interfaces::MAX_LEN];
        let body = body.get_mut(..usize::from(u16::from_be_bytes(length)))?;
        self.recv.read_exact(body).await.ok()?;
        Interfaces::decode(body).ok().map(Box::new)
    }

    /// Why the connection ended; ends it when the peer broke the rules.
    async fn break_off(&self) -> ConnectionError {
        if let Some(error) = self.connection.close_reason() {
            return error;
        }
        let refusal = Refusal::Malformed;
        self.connection.close(refusal.code(), refusal.to_string().as_bytes());
        let breach = Event::Failed { dialled: false, failure: refusal.into() };
        // Nobody is left to hear it when the daemon stops.
        let _ = self.events.send(breach).await;
        self.connection.closed().await
    }
}

/// An interface list as it goes out; nothing when there is none yet.
fn message(list: &[u8]) -> Vec<u8> {
    let length = u16::try_from(list.len()).unwrap_or_default();
    if length == 0 {
        return Vec::new();
    }
    [&[INTERFACES][..], &length.to_be_bytes(), list].concat()
}
