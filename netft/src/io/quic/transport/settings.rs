//! Settings of carrier connections: who may be talked to, and how QUIC behaves below a route.

use std::{sync::Arc, time::Duration};

use netft_proto::{config::PrivateKey, ids::NodeKey};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    AckFrequencyConfig, ClientConfig, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig,
    VarInt,
};
use ring::{hkdf, hmac};

use crate::io::quic::{
    failure::EndpointError,
    tls::{ALPN_TRANSPORT, TlsIdentity},
    transport::{
        cid_tag::{CidTag, random_dialer_cid},
        inflight_limit::{InflightControllerFactory, InflightLimit},
    },
};

/// Smallest UDP payload every QUIC path carries (RFC 9000 section 14).
pub(in crate::io) const MIN_MTU: u16 = 1200;
/// Largest UDP payload QUIC can name (RFC 9000 section 18.2).
const MAX_MTU: u16 = 65_527;
/// Bytes QUIC adds to a frame: a short header with the longest packet number, the tag, and the
/// head of a DATAGRAM frame at its longest (as `max_datagram_size` counts them).
pub(in crate::io) const TRANSPORT_OVERHEAD: usize = 1 + 8 + 4 + 16 + 9;
/// A connection nothing came on for this long is given up, and dialled again. Until then it goes
/// on where an outage stopped it; what it remembers of unacknowledged heartbeats stays small.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Gives the first retransmission of a handshake after 30 ms (RFC 9002 section 6.2.1).
const INITIAL_RTT: Duration = Duration::from_millis(10);
/// Room for one send of a worker; QUIC drains it before the send returns.
const SEND_BUFFER: usize = 512 << 10;
/// Frames of one batch wait here until the worker takes them, at once.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Packets one acknowledgement of QUIC's is for. Nothing is sent again for them: they only tell
/// [`InflightLimit`] what is in flight. One per packet, or per batch, they would be most of what a
/// sender receives, and bulk data would find the window full because they wait in its socket.
const PACKETS_PER_ACK: u32 = 256;
/// Handshakes of one route that wait to be looked at.
const MAX_INCOMING: usize = 4;

/// What carrier connections with every peer have in common.
pub(in crate::io) struct NodeTransportSettings {
    tls: TlsIdentity,
    own_key: NodeKey,
    endpoint: Arc<EndpointConfig>,
    cid_tag: CidTag,
}

impl NodeTransportSettings {
    /// Of the node that holds `key`, whose public half is `own`.
    ///
    /// # Errors
    /// TLS refuses the key.
    pub(in crate::io) fn new(key: &PrivateKey, own: NodeKey) -> Result<Self, EndpointError> {
        let tls = TlsIdentity::new(key, own)?;
        // As on the control session: a restarted node answers what its former process was sent
        // with a stateless reset (RFC 9000 section 10.3), so its peer dials again at once.
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, b"netft/1 carrier").extract(&key.0);
        let derive = |what: &[u8]| {
            let mut bytes = [0; 32];
            let what = [what];
            let made = secret.expand(&what, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut bytes));
            made.map(|()| bytes).map_err(|_| EndpointError::Suite)
        };
        let [a, b, c, d, e, f, g, h, ..] = derive(b"connection id")?;
        let marks = CidTag::new(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
        let reset = hmac::Key::new(hmac::HMAC_SHA256, &derive(b"stateless reset")?);
        let mut endpoint = EndpointConfig::new(Arc::new(reset));
        endpoint
            .cid_generator(move || marks.cid_generator())
            // The fixed bit tells QUIC from netft's own frames (RFC 9443); it must stay (RFC 9287).
            .grease_quic_bit(false)
            .max_udp_payload_size(MAX_MTU)
            .map_err(|_| EndpointError::Start(std::io::ErrorKind::InvalidInput.into()))?;
        Ok(Self { tls, own_key: own, endpoint: Arc::new(endpoint), cid_tag: marks })
    }

    /// How packets of this node's carrier connections are told.
    pub(in crate::io) const fn cid_tag(&self) -> CidTag {
        self.cid_tag
    }

    /// For the routes to the peer that holds `peer`.
    ///
    /// # Errors
    /// TLS refuses it.
    pub(in crate::io) fn for_peer(
        &self,
        peer: NodeKey,
    ) -> Result<PeerTransportSettings, EndpointError> {
        let server = self.tls.server_config([peer].into_iter(), &[ALPN_TRANSPORT])?;
        let server = QuicServerConfig::try_from(server).map_err(|_| EndpointError::Suite)?;
        let client = self.tls.client_config(peer, &[ALPN_TRANSPORT])?;
        let client = QuicClientConfig::try_from(client).map_err(|_| EndpointError::Suite)?;
        let mut server = ServerConfig::with_crypto(Arc::new(server));
        // A connection is its route's; other addresses are another route's (or nobody's).
        server.migration(false).max_incoming(MAX_INCOMING);
        let mut client = ClientConfig::new(Arc::new(client));
        client.initial_dst_cid_provider(Arc::new(random_dialer_cid));
        let endpoint = self.endpoint.clone();
        let (marks, smaller) = (self.cid_tag, self.own_key < peer);
        Ok(PeerTransportSettings {
            server,
            client,
            endpoint,
            cid_tag: marks,
            has_smaller_key: smaller,
        })
    }
}

/// What the carrier connections with one peer have in common.
#[derive(Clone)]
pub(in crate::io) struct PeerTransportSettings {
    pub(in crate::io) server: ServerConfig,
    client: ClientConfig,
    pub(in crate::io) endpoint: Arc<EndpointConfig>,
    pub(in crate::io) cid_tag: CidTag,
    /// This node holds the smaller key: of two connections made at once, its own stays.
    pub(in crate::io) has_smaller_key: bool,
}

impl PeerTransportSettings {
    /// For answering, over a path of `mtu` bytes of UDP payload.
    pub(in crate::io) fn server_config(
        &self,
        mtu: u16,
        gate: &Arc<InflightLimit>,
    ) -> Arc<ServerConfig> {
        let mut server = self.server.clone();
        server.transport_config(Arc::new(transport_config(mtu, gate)));
        Arc::new(server)
    }

    /// For dialling, over a path of `mtu` bytes of UDP payload.
    pub(in crate::io) fn client_config(&self, mtu: u16, gate: &Arc<InflightLimit>) -> ClientConfig {
        let mut client = self.client.clone();
        client.transport_config(Arc::new(transport_config(mtu, gate)));
        client
    }
}

fn transport_config(mtu: u16, gate: &Arc<InflightLimit>) -> TransportConfig {
    let mtu = mtu.max(MIN_MTU);
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).ok();
    // After this many packets or 25 ms (the RFC's max_ack_delay), and no sooner for reordering
    // (draft-ietf-quic-ack-frequency).
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(PACKETS_PER_ACK - 1));
    acks.reordering_threshold(VarInt::from_u32(0));
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(Some(RECEIVE_BUFFER))
        .datagram_send_buffer_size(SEND_BUFFER)
        .congestion_controller_factory(Arc::new(InflightControllerFactory(gate.clone())))
        .ack_frequency_config(Some(acks))
        .initial_rtt(INITIAL_RTT)
        .initial_mtu(mtu)
        // The interface's size is said to be sure: QUIC would take a burst lost to a full queue for
        // a black hole (RFC 8899 section 4.3) and fall back to 1200 bytes, where no frame that
        // waits to be sent again fits. What the path carries netft's own probes find (route::mtu).
        .min_mtu(mtu)
        .mtu_discovery_config(None)
        .allow_spin(false)
        .max_idle_timeout(idle)
        // Heartbeats are sent all the time.
        .keep_alive_interval(None);
    config
}
