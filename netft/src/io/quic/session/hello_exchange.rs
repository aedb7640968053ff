//! The exchange of hellos on a fresh QUIC connection, before either end counts it as a session.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use netft_proto::{
    config::{Config, PeerConfig},
    ids::{NodeKey, PeerId, virtual_addrs::VirtualAddrs},
    session,
    session::{Cipher, Session, SessionParams},
    wire::{
        hello,
        hello::{CipherSupport, Hello},
        version::WireVersions,
    },
};
use quinn::{Connection, RecvStream, SendStream};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::{Span, debug, error_span, warn};
use zeroize::Zeroizing;

use crate::{
    api::session::PeerVersion,
    io::quic::{
        failure::{HandshakeError, RefusalReason},
        session::{
            event::{EstablishedSession, HandshakeRole, PeerTaskEvent},
            peer_request::{RequestQueues, TopicPermits},
            session_id::{SessionId, SessionIdAllocator},
        },
        tls,
    },
};

/// Tag `ready`: the sender receives on the session. The dialer's is followed by the generation.
pub(in crate::io) const TAG_READY: u8 = 1;
/// Label of the exported keying material (RFC 8446 section 7.5).
const EXPORTER_LABEL: &[u8] = b"EXPORTER-netft";
/// Timeout of the exchange after the handshake: a few round trips of the slowest network.
const HELLO_TIMEOUT: Duration = Duration::from_secs(3);

/// This node's role of every handshake with one peer.
#[derive(Clone)]
pub(in crate::io) struct PeerContext {
    pub(in crate::io) config: Arc<Config>,
    pub(in crate::io) peer: PeerId,
    /// Name of the peer in the configuration, for logs.
    pub(in crate::io) peer_name: Arc<str>,
    /// Virtual addresses of the peer in the configuration.
    pub(in crate::io) peer_addrs: VirtualAddrs,
    /// Of this process.
    pub(in crate::io) boot_id: u64,
    pub(in crate::io) session_ids: SessionIdAllocator,
    /// Highest generation of this process with any peer. A peer that is removed and added again may
    /// still hold an earlier session, which a fresh one must outrank.
    pub(in crate::io) generations: Arc<AtomicU32>,
    /// True if this node's adapter is up.
    pub(in crate::io) adapter_up: Arc<AtomicBool>,
    /// Queues of the peer's requests.
    pub(in crate::io) request_queues: RequestQueues,
    /// Permits of this node's requests to the peer.
    pub(in crate::io) request_permits: Arc<TopicPermits>,
    /// Queue of the peer's task.
    pub(in crate::io) events: mpsc::Sender<PeerTaskEvent>,
}

impl PeerContext {
    /// Returns whether this node holds the smaller key: then it rekeys, and its dials take
    /// precedence.
    pub(in crate::io) fn has_smaller_key(&self) -> bool {
        self.peer_config().is_some_and(|peer| self.config.public_key < peer.key)
    }

    /// Returns whether the peer may prove this key.
    pub(in crate::io) fn accepts_key(&self, key: NodeKey) -> bool {
        self.peer_config().is_some_and(|peer| peer.accepted_keys().any(|known| known == key))
    }

    fn peer_config(&self) -> Option<&PeerConfig> {
        self.config.peer_of(self.peer)
    }

    /// Span of everything logged about the peer. Its level is the highest, so that warnings carry
    /// the name whatever the filter.
    pub(in crate::io) fn log_span(&self) -> Span {
        error_span!("peer", name = %self.peer_name)
    }
}

/// Exchanges hellos. A dialer announces `generation`, an acceptor learns it.
pub(in crate::io) async fn exchange_hellos(
    context: &PeerContext,
    connection: Connection,
    role: HandshakeRole,
    generation: u32,
) -> Result<EstablishedSession, HandshakeError> {
    let exchange = async {
        match role {
            HandshakeRole::Dialer => run_dialer(context, &connection, generation).await,
            HandshakeRole::Acceptor => run_acceptor(context, &connection).await,
        }
    };
    let outcome = timeout(HELLO_TIMEOUT, exchange).await.unwrap_or_else(|_| {
        Err(HandshakeError::Lost("the hello did not arrive in time".to_owned()))
    });
    if let Err(HandshakeError::Refused(refusal)) = &outcome {
        debug!(code = %refusal.close_code(), reason = %refusal, "peer refused: connection closed");
        connection.close(refusal.close_code(), refusal.to_string().as_bytes());
    }
    outcome
}

async fn run_dialer(
    context: &PeerContext,
    connection: &Connection,
    generation: u32,
) -> Result<EstablishedSession, HandshakeError> {
    check_peer_key(context, connection)?;
    let session_id = context.session_ids.allocate_id().ok_or(RefusalReason::Random)?;
    let (mut send, mut recv) = connection.open_bi().await?;
    send_hello(context, &session_id, &mut send).await?;
    let hello = receive_hello(context, &mut recv).await?;
    establish_session(
        context,
        connection,
        (send, recv),
        session_id,
        hello,
        (HandshakeRole::Dialer, generation),
    )
}

async fn run_acceptor(
    context: &PeerContext,
    connection: &Connection,
) -> Result<EstablishedSession, HandshakeError> {
    check_peer_key(context, connection)?;
    let (mut send, mut recv) = connection.accept_bi().await?;
    let hello = receive_hello(context, &mut recv).await?;
    let session_id = context.session_ids.allocate_id().ok_or(RefusalReason::Random)?;
    // The answer accepts the dialer, so nothing is checked after it.
    send_hello(context, &session_id, &mut send).await?;
    let mut ready = [0; 5];
    recv.read_exact(&mut ready).await?;
    let [TAG_READY, generation @ ..] = ready else { return Err(RefusalReason::Malformed.into()) };
    let generation = u32::from_be_bytes(generation);
    establish_session(
        context,
        connection,
        (send, recv),
        session_id,
        hello,
        (HandshakeRole::Acceptor, generation),
    )
}

/// Checks that the proven key is that of the peer at this address: TLS accepts any configured
/// peer, but answers go to the routes of this one.
fn check_peer_key(context: &PeerContext, connection: &Connection) -> Result<(), RefusalReason> {
    match tls::proven_key(connection) {
        Some(key) if context.accepts_key(key) => Ok(()),
        _ => Err(RefusalReason::WrongPeer),
    }
}

async fn send_hello(
    context: &PeerContext,
    session_id: &SessionId,
    stream: &mut SendStream,
) -> Result<(), HandshakeError> {
    let hello = Hello {
        versions: WireVersions::OWN_RANGE,
        release: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: context.boot_id,
        session_id: session_id.get(),
        virtual_v4: context.config.adapter.addrs.v4,
        virtual_v6: context.config.adapter.addrs.v6,
        ciphers: offered_ciphers(context),
        adapter_up: context.adapter_up.load(Relaxed),
        accepts_fragments: true,
        name: context.config.name.clone(),
    };
    let mut message = vec![0; 2];
    hello.encode(&mut message);
    let length = u16::try_from(message.len() - 2).expect("a hello is at most MAX_LEN bytes");
    message[..2].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&message).await?;
    debug!(local_session = session_id.get(), "hello sent");
    Ok(())
}

async fn receive_hello(
    context: &PeerContext,
    stream: &mut RecvStream,
) -> Result<Hello, HandshakeError> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    let mut body = [0; hello::MAX_HELLO_LEN];
    let body =
        body.get_mut(..length).filter(|body| !body.is_empty()).ok_or(RefusalReason::Malformed)?;
    stream.read_exact(body).await?;
    let hello = validate_hello(body, context.peer_addrs)?;
    debug!(
        boot_id = %format_args!("{:016x}", hello.boot_id),
        remote_session = hello.session_id,
        name = ?hello.name,
        release = hello.release,
        versions = %hello.versions,
        adapter_up = hello.adapter_up,
        "hello received"
    );
    let (reply, admission) = oneshot::channel();
    let admission_check = PeerTaskEvent::CheckBootId { boot_id: hello.boot_id, reply };
    let stopping = || HandshakeError::Lost("this node is stopping".to_owned());
    context.events.send(admission_check).await.map_err(|_| stopping())?;
    admission.await.map_err(|_| stopping())??;
    debug!("hello accepted");
    Ok(hello)
}

/// Checks the hello against the configuration.
fn validate_hello(body: &[u8], configured: VirtualAddrs) -> Result<Hello, RefusalReason> {
    let hello = Hello::decode(body).map_err(|_| RefusalReason::Malformed)?;
    if hello.versions.common(WireVersions::OWN_RANGE).is_none() {
        return Err(RefusalReason::Version { theirs: hello.versions });
    }
    let announced = VirtualAddrs { v4: hello.virtual_v4, v6: hello.virtual_v6 };
    if announced != configured {
        return Err(RefusalReason::Addresses { announced, configured });
    }
    if hello.session_id == 0 {
        return Err(RefusalReason::Malformed);
    }
    Ok(hello)
}

fn establish_session(
    context: &PeerContext,
    connection: &Connection,
    (send, recv): (SendStream, RecvStream),
    session_id: SessionId,
    hello: Hello,
    (role, generation): (HandshakeRole, u32),
) -> Result<EstablishedSession, HandshakeError> {
    let (dialer, acceptor) = match role {
        HandshakeRole::Dialer => (session_id.get(), hello.session_id),
        HandshakeRole::Acceptor => (hello.session_id, session_id.get()),
    };
    // Binds the keys to the two session ids that the frames carry.
    let ids = [dialer.to_be_bytes(), acceptor.to_be_bytes()].concat();
    let mut material = Zeroizing::new([0; 64]);
    connection
        .export_keying_material(&mut *material, EXPORTER_LABEL, &ids)
        .map_err(|_| HandshakeError::Tls("TLS exports no keys".to_owned()))?;
    let mut from_dialer = Zeroizing::new([0; 32]);
    let mut from_acceptor = Zeroizing::new([0; 32]);
    from_dialer.copy_from_slice(&material[..32]);
    from_acceptor.copy_from_slice(&material[32..]);
    let (tx, rx) = match role {
        HandshakeRole::Dialer => (from_dialer, from_acceptor),
        HandshakeRole::Acceptor => (from_acceptor, from_dialer),
    };
    let session = Session::new(SessionParams {
        peer: context.peer,
        peer_addrs: context.peer_addrs,
        local_id: session_id.get(),
        remote_id: hello.session_id,
        boot_id: hello.boot_id,
        cipher: Cipher::from_support(offered_ciphers(context), hello.ciphers),
        tx_secret: *tx,
        rx_secret: *rx,
    })
    .with_fragments(hello.accepts_fragments);
    Ok(EstablishedSession {
        connection: connection.clone(),
        send,
        recv,
        session_id,
        session: Arc::new(session),
        boot_id: hello.boot_id,
        peer_name: hello.name,
        peer_version: PeerVersion { wire: hello.versions, release: hello.release },
        adapter_up: hello.adapter_up,
        role,
        generation,
    })
}

/// The AEADs that this node offers.
fn offered_ciphers(context: &PeerContext) -> CipherSupport {
    // Its code is chosen by the CPU: one that fails its test is not offered.
    static IS_AEGIS_FAST: LazyLock<bool> = LazyLock::new(|| {
        if !has_vector_aes() {
            return false;
        }
        let is_sound = session::aegis_is_sound();
        if !is_sound {
            warn!("AEGIS-256X4 fails its test vector on this CPU: it is not used");
        }
        is_sound
    });
    CipherSupport { aes: has_aes(), aegis: context.config.session.aegis && *IS_AEGIS_FAST }
}

/// Returns whether this CPU has AES instructions for whole vectors of 512 bits. With shorter ones
/// AEGIS-256X4 is no faster than AES-256-GCM.
fn has_vector_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("vaes")
        && std::arch::is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Returns whether this CPU has AES instructions.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}
