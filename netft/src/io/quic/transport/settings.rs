//! Settings of transport connections: pinned keys and QUIC parameters.

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

/// Smallest UDP payload that every QUIC path carries (RFC 9000 section 14).
pub(in crate::io) const MIN_MTU: u16 = 1200;
/// Largest UDP payload in QUIC transport parameters (RFC 9000 section 18.2).
const MAX_MTU: u16 = 65_527;
/// Bytes that QUIC adds to a frame, at most: short header, packet number, AEAD tag and DATAGRAM
/// frame header (as `max_datagram_size` counts them).
pub(in crate::io) const TRANSPORT_OVERHEAD: usize = 1 + 8 + 4 + 16 + 9;
/// Idle timeout; then the connection is dialled again. A shorter outage does not interrupt it; its
/// unacknowledged heartbeats need little memory.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Initial RTT: first probe timeout of a handshake after 30 ms (RFC 9002 section 6.2.1).
const INITIAL_RTT: Duration = Duration::from_millis(10);
/// Datagram send buffer: one send of a worker, drained before the send returns.
const SEND_BUFFER: usize = 512 << 10;
/// Datagram receive buffer: the frames of one batch, which the worker takes at once.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Packets per QUIC acknowledgement. DATAGRAM frames are not retransmitted: acknowledgements only
/// update [`InflightLimit`]. One per packet or batch would be most of what a sender receives, and
/// while they wait in its socket the window would be full.
const PACKETS_PER_ACK: u32 = 256;
/// Queued handshakes of one route.
const MAX_INCOMING: usize = 4;

/// Settings common to the transport connections with all peers.
pub(in crate::io) struct NodeTransportSettings {
    tls: TlsIdentity,
    own_key: NodeKey,
    endpoint: Arc<EndpointConfig>,
    cid_tag: CidTag,
}

impl NodeTransportSettings {
    /// Settings of the node that holds `key`, whose public half is `own`.
    ///
    /// # Errors
    /// TLS refuses the key.
    pub(in crate::io) fn new(key: &PrivateKey, own: NodeKey) -> Result<Self, EndpointError> {
        let tls = TlsIdentity::new(key, own)?;
        // As on the control session: a restarted node answers packets for its former process with a
        // stateless reset (RFC 9000 section 10.3), so its peer dials again at once.
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, b"netft/1 transport").extract(&key.0);
        let derive = |what: &[u8]| {
            let mut bytes = [0; 32];
            let what = [what];
            let made = secret.expand(&what, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut bytes));
            made.map(|()| bytes).map_err(|_| EndpointError::Suite)
        };
        let [a, b, c, d, e, f, g, h, ..] = derive(b"connection id")?;
        let cid_tag = CidTag::new(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
        let reset = hmac::Key::new(hmac::HMAC_SHA256, &derive(b"stateless reset")?);
        let mut endpoint = EndpointConfig::new(Arc::new(reset));
        endpoint
            .cid_generator(move || cid_tag.cid_generator())
            // The fixed bit distinguishes QUIC from netft frames (RFC 9443): no greasing (RFC
            // 9287).
            .grease_quic_bit(false)
            .max_udp_payload_size(MAX_MTU)
            .map_err(|_| EndpointError::Start(std::io::ErrorKind::InvalidInput.into()))?;
        Ok(Self { tls, own_key: own, endpoint: Arc::new(endpoint), cid_tag })
    }

    /// Tag that recognises packets of this node's transport connections.
    pub(in crate::io) const fn cid_tag(&self) -> CidTag {
        self.cid_tag
    }

    /// The public key that connections prove.
    pub(in crate::io) const fn own_key(&self) -> NodeKey {
        self.own_key
    }

    /// Proves another key from here on. Connection ids stay those of the first one.
    ///
    /// # Errors
    /// TLS refuses the key.
    pub(in crate::io) fn replace_key(
        &mut self,
        key: &PrivateKey,
        own: NodeKey,
    ) -> Result<(), EndpointError> {
        self.tls = TlsIdentity::new(key, own)?;
        self.own_key = own;
        Ok(())
    }

    /// Settings for the routes to the peer that holds one of `peer`, its own key first.
    ///
    /// # Errors
    /// TLS refuses one of them.
    pub(in crate::io) fn for_peer(
        &self,
        peer: impl IntoIterator<Item = NodeKey>,
    ) -> Result<PeerTransportSettings, EndpointError> {
        let keys: Vec<_> = peer.into_iter().collect();
        let server = self.tls.server_config(keys.iter().copied(), &[ALPN_TRANSPORT])?;
        let server = QuicServerConfig::try_from(server).map_err(|_| EndpointError::Suite)?;
        let client = self.tls.client_config(keys.iter().copied(), &[ALPN_TRANSPORT])?;
        let client = QuicClientConfig::try_from(client).map_err(|_| EndpointError::Suite)?;
        let mut server = ServerConfig::with_crypto(Arc::new(server));
        // A connection belongs to its route: no migration to other addresses.
        server.migration(false).max_incoming(MAX_INCOMING);
        let mut client = ClientConfig::new(Arc::new(client));
        client.initial_dst_cid_provider(Arc::new(random_dialer_cid));
        let endpoint = self.endpoint.clone();
        let smaller = keys.first().is_some_and(|key| self.own_key < *key);
        let cid_tag = self.cid_tag;
        Ok(PeerTransportSettings { server, client, endpoint, cid_tag, has_smaller_key: smaller })
    }
}

/// Settings common to the transport connections with one peer.
#[derive(Clone)]
pub(in crate::io) struct PeerTransportSettings {
    pub(in crate::io) server: ServerConfig,
    client: ClientConfig,
    pub(in crate::io) endpoint: Arc<EndpointConfig>,
    pub(in crate::io) cid_tag: CidTag,
    /// This node holds the smaller key: of two simultaneous connections, its own takes precedence.
    pub(in crate::io) has_smaller_key: bool,
}

impl PeerTransportSettings {
    /// Server configuration for a path of `mtu` bytes of UDP payload.
    pub(in crate::io) fn server_config(
        &self,
        mtu: u16,
        inflight: &Arc<InflightLimit>,
    ) -> Arc<ServerConfig> {
        let mut server = self.server.clone();
        server.transport_config(Arc::new(transport_config(mtu, inflight)));
        Arc::new(server)
    }

    /// Client configuration for a path of `mtu` bytes of UDP payload.
    pub(in crate::io) fn client_config(
        &self,
        mtu: u16,
        inflight: &Arc<InflightLimit>,
    ) -> ClientConfig {
        let mut client = self.client.clone();
        client.transport_config(Arc::new(transport_config(mtu, inflight)));
        client
    }
}

fn transport_config(mtu: u16, inflight: &Arc<InflightLimit>) -> TransportConfig {
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
        .congestion_controller_factory(Arc::new(InflightControllerFactory(inflight.clone())))
        .ack_frequency_config(Some(acks))
        .initial_rtt(INITIAL_RTT)
        .initial_mtu(mtu)
        // The interface's MTU is set as the minimum: QUIC would mistake a burst lost to a full
        // queue for a black hole (RFC 8899 section 4.3) and fall back to 1200 bytes, too small for
        // a frame to be retransmitted. netft's own probes find the path MTU (route::mtu).
        .min_mtu(mtu)
        .mtu_discovery_config(None)
        .allow_spin(false)
        .max_idle_timeout(idle)
        // Heartbeats keep it alive.
        .keep_alive_interval(None);
    config
}
