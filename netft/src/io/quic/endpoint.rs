//! The one QUIC endpoint of a node, and its settings.

use std::{sync::Arc, time::Duration};

use netft_proto::{config::PrivateKey, ids::NodeKey};
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use quinn_proto::HashedConnectionIdGenerator;
use ring::{hkdf, hmac};

use crate::io::quic::{
    failure::EndpointError,
    socket::RouteSocket,
    tls::{CONTROL_ALPNS, TlsIdentity},
};

/// Smallest UDP payload every QUIC path carries (RFC 9000 section 14): no discovery is needed.
const UDP_PAYLOAD_SIZE: u16 = 1200;
/// The most a peer may have in flight to this node, bytes: a hello, single bytes after it, and
/// answers to questions.
const FLOW_CONTROL_WINDOW: u32 = 64 * 1024;
/// Gives the first retransmission after 30 ms, the next after 90 ms, 210 ms and so on (RFC 9002
/// section 6.2.1: three times this, doubled each time). The first datagrams often meet a peer that
/// is just starting; where a round trip takes longer, a few small datagrams go out too often.
const INITIAL_RTT: Duration = Duration::from_millis(10);
/// Handshakes that wait for their peer's task; more are refused.
const MAX_INCOMING: usize = 64;
/// What the stateless reset key is derived for.
const RESET_KEY_INFO: &[&[u8]] = &[b"stateless reset"];
/// What the number in the connection ids is derived for.
const CID_KEY_INFO: &[&[u8]] = &[b"connection id"];

/// Starts the endpoint over `socket`, inside a tokio runtime.
pub(in crate::io) fn start_endpoint(
    tls: &TlsIdentity,
    key: &PrivateKey,
    peers: impl Iterator<Item = NodeKey>,
    socket: RouteSocket,
) -> Result<Endpoint, EndpointError> {
    let server = server_config(tls, peers)?;
    let endpoint = Endpoint::new_with_abstract_socket(
        endpoint_config(key),
        Some(server),
        Arc::new(socket),
        Arc::new(TokioRuntime),
    )?;
    Ok(endpoint)
}

/// How to answer the nodes that hold one of `peers`.
pub(in crate::io) fn server_config(
    tls: &TlsIdentity,
    peers: impl Iterator<Item = NodeKey>,
) -> Result<ServerConfig, EndpointError> {
    let crypto = QuicServerConfig::try_from(tls.server_config(peers, CONTROL_ALPNS)?)
        .map_err(|_| EndpointError::Suite)?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    // The addresses QUIC sees are made here; it moves when a stranger's route is known.
    server
        .transport_config(Arc::new(transport_config(2)))
        .migration(true)
        .max_incoming(MAX_INCOMING);
    Ok(server)
}

/// How to dial the node that holds `peer`.
pub(in crate::io) fn client_config(
    tls: &TlsIdentity,
    peer: NodeKey,
) -> Result<ClientConfig, EndpointError> {
    client_config_with_alpn(tls, peer, CONTROL_ALPNS)
}

/// The same, to speak one of `alpn`.
pub(in crate::io) fn client_config_with_alpn(
    tls: &TlsIdentity,
    peer: NodeKey,
    alpn: &[&[u8]],
) -> Result<ClientConfig, EndpointError> {
    let crypto = QuicClientConfig::try_from(tls.client_config(peer, alpn)?)
        .map_err(|_| EndpointError::Suite)?;
    let mut client = ClientConfig::new(Arc::new(crypto));
    // The dialer opens the control stream; either end may ask, one question at a time.
    client.transport_config(Arc::new(transport_config(1)));
    Ok(client)
}

fn endpoint_config(key: &PrivateKey) -> EndpointConfig {
    // Both are derived from the identity, so a restarted node still recognises what its former
    // process was sent, and answers with a stateless reset (RFC 9000 section 10.3): the peer learns
    // of the restart in one round trip.
    let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, b"netft/1 quic").extract(&key.0);
    let reset: hmac::Key = secret
        .expand(RESET_KEY_INFO, hmac::HMAC_SHA256)
        .expect("32 bytes are within HKDF's limit")
        .into();
    let mut number = [0; 8];
    secret
        .expand(CID_KEY_INFO, EightBytes)
        .and_then(|bytes| bytes.fill(&mut number))
        .expect("exactly the eight bytes that were asked for");
    let number = u64::from_be_bytes(number);

    let mut config = EndpointConfig::new(Arc::new(reset));
    config
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(number)))
        // The fixed bit tells QUIC from netft's own frames (RFC 9443), so it must stay (RFC 9287).
        .grease_quic_bit(false);
    config
}

fn transport_config(streams: u32) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(FLOW_CONTROL_WINDOW))
        .receive_window(VarInt::from_u32(FLOW_CONTROL_WINDOW))
        .send_window(u64::from(FLOW_CONTROL_WINDOW))
        .initial_rtt(INITIAL_RTT)
        .initial_mtu(UDP_PAYLOAD_SIZE)
        .min_mtu(UDP_PAYLOAD_SIZE)
        .mtu_discovery_config(None)
        .enable_segmentation_offload(false)
        .allow_spin(false)
        // Routes may be down for hours; heartbeats, not QUIC, tell whether a peer is alive.
        .max_idle_timeout(None)
        .keep_alive_interval(None);
    config
}

/// Eight bytes, as HKDF counts them.
struct EightBytes;

impl hkdf::KeyType for EightBytes {
    fn len(&self) -> usize {
        8
    }
}
