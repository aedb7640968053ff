//! Requests between two nodes that have a session. Each is a stream on the session's QUIC
//! connection: a [`Topic`], the request, then the reply, both opaque here.
//!
//! Support is negotiated by ALPN: a peer of an earlier version gets requests of
//! [`Topic::Validate`] only, without the topic, or none. Each topic has its own bounds
//! ([`Topic::limits`]), which both ends keep. A stream per request costs half a datagram more than
//! a frame on a long-lived stream would (1.5 instead of 1.0 per request), needs no framing, and no
//! reply waits for another one.

use std::sync::{Arc, Mutex, PoisonError};

use netft_proto::{ids::PeerId, wire::topic::Topic};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use crate::io::quic::{
    tls,
    tls::RequestSupport,
    types::{PeerRequest, QueryError},
};

/// Requests of one topic that wait for their receiver; more wait in their sessions.
pub(in crate::io) const REQUEST_QUEUE_LEN: usize = 16;
/// Reset code of the stream of an unanswered request.
const UNANSWERED_CODE: VarInt = VarInt::from_u32(1);
/// Reset code of the stream of an unknown topic.
const UNKNOWN_TOPIC_CODE: VarInt = VarInt::from_u32(2);
/// Priority of the streams of ownership: a roster on its way must not delay a lease.
const OWNERSHIP_PRIORITY: i32 = 1;

/// One semaphore per topic.
pub(in crate::io) struct TopicPermits([Arc<Semaphore>; Topic::ALL.len()]);

impl Default for TopicPermits {
    fn default() -> Self {
        Self(Topic::ALL.map(|topic| Arc::new(Semaphore::new(topic.limits().max_concurrent))))
    }
}

/// Queues of the peers' requests, one per topic.
#[derive(Clone)]
pub(in crate::io) struct RequestQueues([mpsc::Sender<PeerRequest>; Topic::ALL.len()]);

/// The receiving ends of the queues, until each is taken.
pub(in crate::io) struct RequestReceivers {
    receivers: Mutex<[Option<mpsc::Receiver<PeerRequest>>; Topic::ALL.len()]>,
}

impl RequestReceivers {
    /// The receiver of a topic; `None` if it was taken.
    pub(in crate::io) fn take_receiver(&self, topic: Topic) -> Option<mpsc::Receiver<PeerRequest>> {
        let mut receivers = self.receivers.lock().unwrap_or_else(PoisonError::into_inner);
        receivers[topic.index()].take()
    }
}

/// Creates the queues of all topics.
pub(in crate::io) fn request_queues() -> (RequestQueues, RequestReceivers) {
    let mut receivers = [const { None }; Topic::ALL.len()];
    let senders = Topic::ALL.map(|topic| {
        let (sender, receiver) = mpsc::channel(REQUEST_QUEUE_LEN);
        receivers[topic.index()] = Some(receiver);
        sender
    });
    (RequestQueues(senders), RequestReceivers { receivers: Mutex::new(receivers) })
}

/// Sends a request on a connection and awaits the reply.
pub(in crate::io) async fn send_request(
    connection: &Connection,
    topic: Topic,
    payload: &[u8],
    permits: &TopicPermits,
) -> Result<Vec<u8>, QueryError> {
    let limits = topic.limits();
    if payload.len() > limits.max_request {
        return Err(QueryError::TooLong { max: limits.max_request });
    }
    let has_topic = match tls::request_support(connection) {
        RequestSupport::Topics => true,
        RequestSupport::ValidateOnly if topic == Topic::Validate => false,
        RequestSupport::ValidateOnly | RequestSupport::None => return Err(QueryError::TooOld),
    };
    if connection.close_reason().is_some() {
        return Err(QueryError::NoSession);
    }
    let exchange = async {
        let _permit = permits.0[topic.index()].acquire().await.ok()?;
        let (mut send, mut recv) = connection.open_bi().await.ok()?;
        set_priority(&send, topic);
        if has_topic {
            send.write_all(&[topic.code()]).await.ok()?;
        }
        send.write_all(payload).await.ok()?;
        send.finish().ok()?;
        recv.read_to_end(limits.max_reply).await.ok()
    };
    timeout(limits.timeout, exchange)
        .await
        .map_err(|_| QueryError::TimedOut { seconds: limits.timeout.as_secs() })?
        .ok_or(QueryError::Refused)
}

/// Passes on the peer's requests and sends the replies until the connection ends.
pub(in crate::io) async fn serve_requests(
    connection: Connection,
    peer: PeerId,
    queues: RequestQueues,
) {
    let server = Arc::new(RequestServer {
        peer,
        has_topics: tls::request_support(&connection) == RequestSupport::Topics,
        queues,
        permits: TopicPermits::default(),
    });
    // Bounded by the streams that QUIC lets the peer open.
    let mut requests = JoinSet::new();
    while let Ok((send, recv)) = connection.accept_bi().await {
        while requests.try_join_next().is_some() {}
        requests.spawn(Arc::clone(&server).serve_stream(send, recv));
    }
}

/// Serves the requests on one connection.
struct RequestServer {
    peer: PeerId,
    /// False with a peer whose streams are validation requests without a topic.
    has_topics: bool,
    queues: RequestQueues,
    permits: TopicPermits,
}

impl RequestServer {
    async fn serve_stream(self: Arc<Self>, mut send: SendStream, mut recv: RecvStream) {
        let topic = if self.has_topics {
            let mut code = [0];
            // Without an end of its own: a stream that stays silent only occupies the peer's own
            // allowance.
            match recv.read_exact(&mut code).await {
                Ok(()) => Topic::from_code(code[0]),
                Err(_) => return,
            }
        } else {
            Some(Topic::Validate)
        };
        let Some(topic) = topic else {
            // A stream that has ended needs no reset.
            let _ = send.reset(UNKNOWN_TOPIC_CODE);
            return;
        };
        let limits = topic.limits();
        let Ok(_permit) = self.permits.0[topic.index()].acquire().await else { return };
        let next = Instant::now() + limits.min_interval;
        set_priority(&send, topic);
        let exchange = self.serve_request(topic, &mut send, recv);
        if !matches!(timeout(limits.timeout, exchange).await, Ok(Some(()))) {
            let _ = send.reset(UNANSWERED_CODE);
        }
        drop(send);
        sleep_until(next).await;
    }

    async fn serve_request(
        &self,
        topic: Topic,
        send: &mut SendStream,
        mut recv: RecvStream,
    ) -> Option<()> {
        let limits = topic.limits();
        let payload = recv.read_to_end(limits.max_request).await.ok()?;
        let (reply_tx, reply_rx) = oneshot::channel();
        let request = PeerRequest { peer: self.peer, payload, reply_tx };
        self.queues.0[topic.index()].send(request).await.ok()?;
        let reply = reply_rx.await.ok().filter(|reply| reply.len() <= limits.max_reply)?;
        send.write_all(&reply).await.ok()?;
        send.finish().ok()
    }
}

fn set_priority(stream: &SendStream, topic: Topic) {
    if topic == Topic::Ownership {
        // A stream that has ended needs none.
        let _ = stream.set_priority(OWNERSHIP_PRIORITY);
    }
}
