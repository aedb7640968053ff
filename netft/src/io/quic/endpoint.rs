//! The QUIC endpoint of the control sessions, and its settings.

use std::{sync::Arc, time::Duration};

use netft_proto::{config::PrivateKey, ids::NodeKey, wire::topic::Topic};
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use ring::{hkdf, hmac};

use crate::io::quic::{
    failure::EndpointError,
    socket::RouteSocket,
    tls::{CONTROL_ALPNS, TlsIdentity},
    transport::CidTag,
};

/// Smallest UDP payload that every QUIC path carries (RFC 9000 section 14): no path MTU discovery.
const UDP_PAYLOAD_SIZE: u16 = 1200;
/// Flow control window of a peer, bytes: enough for a hello, the messages after it, and requests
/// with their replies.
const FLOW_CONTROL_WINDOW: u32 = 64 * 1024;
/// Initial RTT: probe timeouts after 30 ms, 90 ms, 210 ms and so on (RFC 9002 section 6.2.1: three
/// times this, doubled each time). The first datagrams often reach a peer that is just starting; on
/// slower paths a few small datagrams are sent unnecessarily.
const INITIAL_RTT: Duration = Duration::from_millis(10);
/// Handshakes queued for their peer's task; more are refused.
const MAX_INCOMING: usize = 64;
/// HKDF info of the stateless reset key.
const RESET_KEY_INFO: &[&[u8]] = &[b"stateless reset"];
/// HKDF info of the connection id key.
const CID_KEY_INFO: &[&[u8]] = &[b"connection id"];

/// Starts the endpoint over `socket`, inside a tokio runtime.
pub(in crate::io) fn start_endpoint(
    tls: &TlsIdentity,
    key: &PrivateKey,
    peers: impl Iterator<Item = NodeKey>,
    socket: RouteSocket,
) -> Result<Endpoint, EndpointError> {
    let server = server_config(tls, peers, false)?;
    let endpoint = Endpoint::new_with_abstract_socket(
        endpoint_config(key),
        Some(server),
        Arc::new(socket),
        Arc::new(TokioRuntime),
    )?;
    Ok(endpoint)
}

/// Server configuration that accepts the keys of `peers`, and with `joining` also nodes that ask to
/// join.
pub(in crate::io) fn server_config(
    tls: &TlsIdentity,
    peers: impl Iterator<Item = NodeKey>,
    joining: bool,
) -> Result<ServerConfig, EndpointError> {
    let config = match joining {
        true => tls.server_config_for_joins(peers, CONTROL_ALPNS)?,
        false => tls.server_config(peers, CONTROL_ALPNS)?,
    };
    let crypto = QuicServerConfig::try_from(config).map_err(|_| EndpointError::Suite)?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    // The addresses are synthetic: a connection migrates once an unverified source has a route.
    server
        .transport_config(Arc::new(transport_config(max_requests() + 1)))
        .migration(true)
        .max_incoming(MAX_INCOMING);
    Ok(server)
}

/// Client configuration that accepts the keys of one peer only.
pub(in crate::io) fn client_config(
    tls: &TlsIdentity,
    peer: impl Iterator<Item = NodeKey>,
) -> Result<ClientConfig, EndpointError> {
    client_config_with_alpn(tls, peer, CONTROL_ALPNS)
}

/// The same with the protocols `alpn`.
pub(in crate::io) fn client_config_with_alpn(
    tls: &TlsIdentity,
    peer: impl Iterator<Item = NodeKey>,
    alpn: &[&[u8]],
) -> Result<ClientConfig, EndpointError> {
    let crypto = QuicClientConfig::try_from(tls.client_config(peer, alpn)?)
        .map_err(|_| EndpointError::Suite)?;
    let mut client = ClientConfig::new(Arc::new(crypto));
    // The dialer opens the control stream; either end sends requests.
    client.transport_config(Arc::new(transport_config(max_requests())));
    Ok(client)
}

/// The secret of a node's control sessions.
fn derive_secret(key: &PrivateKey) -> hkdf::Prk {
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"netft/1 quic").extract(&key.0)
}

/// The tag of the connection ids of a node's control sessions.
pub(in crate::io) fn session_cid_tag(key: &PrivateKey) -> CidTag {
    let mut cid_key = [0; 8];
    derive_secret(key)
        .expand(CID_KEY_INFO, EightBytes)
        .and_then(|bytes| bytes.fill(&mut cid_key))
        .expect("HKDF fills the eight bytes requested");
    CidTag::new(u64::from_be_bytes(cid_key))
}

fn endpoint_config(key: &PrivateKey) -> EndpointConfig {
    // Both keys are derived from the identity, so a restarted node recognises packets for its
    // former process and answers with a stateless reset (RFC 9000 section 10.3): the peer detects
    // the restart in one round trip.
    let reset: hmac::Key = derive_secret(key)
        .expand(RESET_KEY_INFO, hmac::HMAC_SHA256)
        .expect("32 bytes are within HKDF's limit")
        .into();
    let tag = session_cid_tag(key);
    let mut config = EndpointConfig::new(Arc::new(reset));
    config
        .cid_generator(move || tag.cid_generator())
        // The fixed bit distinguishes QUIC from netft frames (RFC 9443), so it is not greased (RFC
        // 9287).
        .grease_quic_bit(false);
    config
}

/// Requests of one peer under way at once.
fn max_requests() -> u32 {
    u32::try_from(Topic::max_concurrent_total()).unwrap_or(u32::MAX)
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
        // Routes may be down for hours; heartbeats, not QUIC, detect a dead peer.
        .max_idle_timeout(None)
        .keep_alive_interval(None);
    config
}

/// HKDF output length of eight bytes.
struct EightBytes;

impl hkdf::KeyType for EightBytes {
    fn len(&self) -> usize {
        8
    }
}
