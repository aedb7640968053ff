//! TLS to etcd's servers.

use std::{fmt, fs, path::Path, sync::Arc};

use netft::config::EtcdTls;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Protocol of the gateway; servers offer HTTP/2, too.
const HTTP_PROTOCOL: &[u8] = b"http/1.1";
/// Largest file, bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Speaks TLS over a connection to the server at `authority`, host and port. The files are read
/// anew, so that certificates can be replaced.
///
/// # Errors
/// A file is unusable, or the server does not prove who it is.
pub(super) async fn connect(
    files: &EtcdTls,
    authority: &str,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, String> {
    let config = load_config(files)?;
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let failed = |error: &dyn fmt::Display| format!("etcd at {authority}: no TLS: {error}");
    let name = ServerName::try_from(host).map_err(|error| failed(&error))?;
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.map_err(|error| failed(&error))
}

fn load_config(files: &EtcdTls) -> Result<ClientConfig, String> {
    let refused = |key: &str, path: &Path, reason: &dyn fmt::Display| {
        format!("`ownership.etcd.{key}` {}: {reason}", path.display())
    };
    let mut roots = RootCertStore::empty();
    let path = &files.authorities;
    for certificate in read_certificates(path).map_err(|why| refused("ca_file", path, &why))? {
        roots.add(certificate).map_err(|error| refused("ca_file", path, &error))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let mut config = match &files.client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let path = &client.certificate;
            let chain =
                read_certificates(path).map_err(|why| refused("certificate_file", path, &why))?;
            let of_key = |reason: &dyn fmt::Display| refused("key_file", &client.key, reason);
            let text = read_file(&client.key).map_err(|error| of_key(&error))?;
            let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| of_key(&error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| of_key(&error))?
        }
    };
    config.alpn_protocols = vec![HTTP_PROTOCOL.to_vec()];
    Ok(config)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read_file(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err("there is no PEM certificate in it".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(error.to_string()),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > MAX_FILE_BYTES {
        return Err(format!("longer than {MAX_FILE_BYTES} bytes"));
    }
    fs::read(path).map_err(|error| error.to_string())
}
