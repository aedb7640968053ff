//! Mutual authentication: TLS 1.3 with raw Ed25519 public keys (RFC 7250), each pinned in the other
//! end's configuration. No certificates, no certificate authority, no resumption.

use std::{sync::Arc, time::Duration};

use netft_proto::{config::PrivateKey, ids::NodeKey};
use quinn::crypto::rustls::HandshakeData;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key},
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
        UnixTime,
    },
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    time_provider::TimeProvider,
    version::TLS13,
};

/// ALPN of a control session.
pub(in crate::io) const ALPN_CONTROL: &[u8] = b"netft/1";
/// ALPN of a control session with validation requests.
pub(in crate::io) const ALPN_CONTROL_VALIDATE: &[u8] = b"netft/1+ask";
/// ALPN of a control session with requests by topic. An end without support selects one of the
/// others, so nodes of all kinds interoperate.
pub(in crate::io) const ALPN_CONTROL_TOPICS: &[u8] = b"netft/1+topics";
/// Offered ALPNs, preferred first.
pub(in crate::io) const CONTROL_ALPNS: &[&[u8]] =
    &[ALPN_CONTROL_TOPICS, ALPN_CONTROL_VALIDATE, ALPN_CONTROL];
/// ALPN of a route's transport connection.
pub(in crate::io) const ALPN_TRANSPORT: &[u8] = b"netft-transport/1";
/// ALPN of a join: a node that nobody knows yet asks to become one.
pub(in crate::io) const ALPN_JOIN: &[u8] = b"netft-join/1";
/// Server name: TLS requires one, authentication uses the key only.
pub(in crate::io) const SERVER_NAME: &str = "peer.netft.invalid";
/// Bytes before the key in an Ed25519 SubjectPublicKeyInfo (RFC 8410 section 4).
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Bytes of such a SubjectPublicKeyInfo.
const SPKI_LEN: usize = SPKI_PREFIX.len() + 32;

/// Reason for refusing a key, part of the QUIC connection's error text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::io) enum KeyRefused {
    /// The key of this node itself, used by another machine.
    #[error("the peer holds this node's own key")]
    Own,
    /// Not a key in the configuration.
    #[error("the peer's key is not pinned")]
    Unpinned,
}

/// Time of the handshakes. Pinned keys do not expire, and no session is resumed; the wall clock of
/// a machine without a battery may stand before 1970, which rustls's own source does not survive.
#[derive(Debug)]
struct NoClock;

impl TimeProvider for NoClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::ZERO))
    }
}

fn no_clock() -> Arc<dyn TimeProvider> {
    Arc::new(NoClock)
}

/// TLS identity of a node, and source of its client and server configurations.
pub(in crate::io) struct TlsIdentity {
    provider: Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
    own_key: NodeKey,
}

impl TlsIdentity {
    /// Identity of the private key `key`, whose public half is `own`.
    ///
    /// # Errors
    /// `key` is not an Ed25519 key.
    pub(in crate::io) fn new(key: &PrivateKey, own: NodeKey) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.0.as_slice()));
        let signing = rustls::crypto::ring::sign::any_supported_type(&der)?;
        let spki = CertificateDer::from(encode_spki(&own).to_vec());
        let key = Arc::new(CertifiedKey::new(vec![spki], signing));
        Ok(Self { provider, key, own_key: own })
    }

    /// Server configuration: accepts the keys in `peers` and the protocols `alpn`, preferred first.
    ///
    /// # Errors
    /// The provider lacks TLS 1.3, which ring's does not.
    pub(in crate::io) fn server_config(
        &self,
        peers: impl Iterator<Item = NodeKey>,
        alpn: &[&[u8]],
    ) -> Result<rustls::ServerConfig, Error> {
        self.server_config_with(self.pinned_verifier(peers), alpn)
    }

    /// The same for any key: whoever completes the handshake without a pinned one may do nothing
    /// but what [`ALPN_JOIN`] allows.
    ///
    /// # Errors
    /// As [`server_config`](Self::server_config).
    pub(in crate::io) fn server_config_for_joins(
        &self,
        peers: impl Iterator<Item = NodeKey>,
        alpn: &[&[u8]],
    ) -> Result<rustls::ServerConfig, Error> {
        let verifier = PinnedKeyVerifier { admits_strangers: true, ..self.pinned_verifier(peers) };
        self.server_config_with(verifier, &[alpn, &[ALPN_JOIN]].concat())
    }

    fn server_config_with(
        &self,
        verifier: PinnedKeyVerifier,
        alpn: &[&[u8]],
    ) -> Result<rustls::ServerConfig, Error> {
        let mut config =
            rustls::ServerConfig::builder_with_details(self.provider.clone(), no_clock())
                .with_protocol_versions(&[&TLS13])?
                .with_client_cert_verifier(Arc::new(verifier))
                .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(
                    self.key.clone(),
                )));
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        // A resumed session would bypass the key check.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        Ok(config)
    }

    /// Its public key.
    pub(in crate::io) const fn own_key(&self) -> NodeKey {
        self.own_key
    }

    /// Client configuration: accepts the keys of one peer only, with the protocols `alpn`.
    ///
    /// # Errors
    /// The provider lacks TLS 1.3, which ring's does not.
    pub(in crate::io) fn client_config(
        &self,
        peer: impl Iterator<Item = NodeKey>,
        alpn: &[&[u8]],
    ) -> Result<rustls::ClientConfig, Error> {
        let mut config =
            rustls::ClientConfig::builder_with_details(self.provider.clone(), no_clock())
                .with_protocol_versions(&[&TLS13])?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(self.pinned_verifier(peer)))
                .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                    self.key.clone(),
                )));
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        Ok(config)
    }

    fn pinned_verifier(&self, peers: impl Iterator<Item = NodeKey>) -> PinnedKeyVerifier {
        PinnedKeyVerifier {
            own: encode_spki(&self.own_key),
            peers: peers.map(|key| encode_spki(&key)).collect(),
            algorithms: self.provider.signature_verification_algorithms,
            admits_strangers: false,
        }
    }
}

/// The SubjectPublicKeyInfo of a key.
fn encode_spki(key: &NodeKey) -> [u8; SPKI_LEN] {
    let mut bytes = [0; SPKI_LEN];
    bytes[..SPKI_PREFIX.len()].copy_from_slice(&SPKI_PREFIX);
    bytes[SPKI_PREFIX.len()..].copy_from_slice(&key.0);
    bytes
}

/// Public key that the other end of an established QUIC connection has proven.
pub(in crate::io) fn proven_key(connection: &quinn::Connection) -> Option<NodeKey> {
    let identity = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let key = identity.first()?.strip_prefix(&SPKI_PREFIX)?;
    key.try_into().ok().map(NodeKey)
}

/// Requests that both ends of a connection support.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) enum RequestSupport {
    /// None.
    None,
    /// Validation requests, without a topic.
    ValidateOnly,
    /// Requests by topic.
    Topics,
}

/// The requests that both ends of an established connection support.
pub(in crate::io) fn request_support(connection: &quinn::Connection) -> RequestSupport {
    match negotiated_alpn(connection).as_deref() {
        Some(ALPN_CONTROL_TOPICS) => RequestSupport::Topics,
        Some(ALPN_CONTROL_VALIDATE) => RequestSupport::ValidateOnly,
        _ => RequestSupport::None,
    }
}

/// Returns whether the other end of an established connection asks to join.
pub(in crate::io) fn is_join(connection: &quinn::Connection) -> bool {
    negotiated_alpn(connection).as_deref() == Some(ALPN_JOIN)
}

fn negotiated_alpn(connection: &quinn::Connection) -> Option<Vec<u8>> {
    let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    data.and_then(|data| data.protocol)
}

/// Verifier that accepts exactly the pinned keys, and strangers while nodes may join.
#[derive(Debug)]
struct PinnedKeyVerifier {
    own: [u8; SPKI_LEN],
    peers: Vec<[u8; SPKI_LEN]>,
    algorithms: WebPkiSupportedAlgorithms,
    /// Any Ed25519 key but this node's own completes the handshake.
    admits_strangers: bool,
}

impl PinnedKeyVerifier {
    fn check_pinned(
        &self,
        end: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), Error> {
        let key: &[u8] = end.as_ref();
        if intermediates.is_empty() && self.peers.iter().any(|peer| peer.as_slice() == key) {
            return Ok(());
        }
        let is_key = key.len() == SPKI_LEN && key.starts_with(&SPKI_PREFIX);
        if self.admits_strangers && intermediates.is_empty() && is_key && key != self.own {
            return Ok(());
        }
        let refused = if key == self.own { KeyRefused::Own } else { KeyRefused::Unpinned };
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused)))))
    }

    fn verify_signature(
        &self,
        message: &[u8],
        end: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(end.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
    }
}

/// Refuses TLS 1.2, which is never offered.
fn reject_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("TLS 1.2 is not supported".to_owned()))
}

impl ServerCertVerifier for PinnedKeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check_pinned(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        reject_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for PinnedKeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check_pinned(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        reject_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::io::identity;

    fn pinned(own: NodeKey, peers: &[NodeKey]) -> PinnedKeyVerifier {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        PinnedKeyVerifier {
            own: encode_spki(&own),
            peers: peers.iter().map(encode_spki).collect(),
            algorithms,
            admits_strangers: false,
        }
    }

    fn refusal(verdict: Result<(), Error>) -> Option<KeyRefused> {
        match verdict {
            Ok(()) => None,
            Err(Error::InvalidCertificate(CertificateError::Other(OtherError(cause)))) => {
                cause.downcast_ref().copied()
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn only_the_pinned_keys_are_accepted_and_a_clone_is_distinguished() {
        let (own, peer, other) = (NodeKey([1; 32]), NodeKey([2; 32]), NodeKey([3; 32]));
        let verifier = pinned(own, &[peer]);
        let check =
            |bytes: Vec<u8>| refusal(verifier.check_pinned(&CertificateDer::from(bytes), &[]));
        assert_eq!(check(encode_spki(&peer).to_vec()), None);
        assert_eq!(check(encode_spki(&other).to_vec()), Some(KeyRefused::Unpinned));
        assert_eq!(check(encode_spki(&own).to_vec()), Some(KeyRefused::Own));
        assert_eq!(check(peer.0.to_vec()), Some(KeyRefused::Unpinned));
        assert_eq!(check([&encode_spki(&peer)[..], &[0]].concat()), Some(KeyRefused::Unpinned));
    }

    #[test]
    fn while_nodes_may_join_any_key_but_the_own_one_completes_the_handshake() {
        let (own, other) = (NodeKey([1; 32]), NodeKey([3; 32]));
        let verifier = PinnedKeyVerifier { admits_strangers: true, ..pinned(own, &[]) };
        let check =
            |bytes: Vec<u8>| refusal(verifier.check_pinned(&CertificateDer::from(bytes), &[]));
        assert_eq!(check(encode_spki(&other).to_vec()), None);
        assert_eq!(check(encode_spki(&own).to_vec()), Some(KeyRefused::Own));
        assert_eq!(check([&encode_spki(&other)[..], &[0]].concat()), Some(KeyRefused::Unpinned));
    }

    #[test]
    fn the_fixed_prefix_gives_the_key_as_rustls_writes_it() {
        let key = identity::generate_key().unwrap();
        let own = identity::public_key(&key).unwrap();
        let tls = TlsIdentity::new(&key, own).unwrap();
        let written = tls.key.key.public_key().unwrap();
        assert_eq!(written.as_ref(), encode_spki(&own));
    }
}
