//! `[metrics] listen`: the metrics over TCP, for Prometheus; off by default.
//!
//! Loopback is served in the clear. Any other address wants a bearer token (RFC 6750), TLS 1.3, or
//! both; the configuration is refused otherwise.
//!
//! Bounds: [`MAX_CONNECTIONS`] connections, each with one request of [`MAX_REQUEST_BYTES`] and
//! [`CONNECTION_TIMEOUT`] from its start to its end, handshake included. Further clients wait in
//! the kernel's backlog, which refuses those that it has no room for.

use std::{
    fmt, fs, io,
    io::Read,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use netft::config::{MetricsConfig, TlsFiles};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Sleep,
};
use tokio_rustls::TlsAcceptor;

use super::{
    backend::ControlBackend,
    metrics,
    metrics::{PageFormat, ProcessFigures},
    server::{ControlContext, DRIVER_TIMEOUT},
    vips,
};
use crate::exit::ExitError;

/// Connections served at a time.
const MAX_CONNECTIONS: usize = 8;
/// Time limit of a connection, from its start to its end.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest request, bytes; a head and no body.
const MAX_REQUEST_BYTES: usize = 16 << 10;
/// Largest file of a token or a key, bytes.
const MAX_FILE_BYTES: u64 = 256 << 10;
/// Lengths of a token.
const TOKEN_LENGTHS: std::ops::RangeInclusive<usize> = 16..=256;
/// Pause after a connection that could not be accepted.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// A bearer token.
struct BearerToken(Vec<u8>);

impl BearerToken {
    /// Compares in a time that does not depend on the place of the first difference.
    fn matches(&self, given: &[u8]) -> bool {
        let differs =
            self.0.iter().zip(given).fold(0, |differs, (own, other)| differs | (own ^ other));
        self.0.len() == given.len() && std::hint::black_box(differs) == 0
    }
}

/// The endpoint of a config, with its files read; not yet open.
pub struct MetricsEndpoint {
    at: SocketAddr,
    token: Option<BearerToken>,
    tls: Option<TlsAcceptor>,
}

impl fmt::Debug for MetricsEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (token, tls) = (self.token.is_some(), self.tls.is_some());
        f.debug_struct("MetricsEndpoint").field("token", &token).field("tls", &tls).finish()
    }
}

impl MetricsEndpoint {
    /// Reads the files of the config; `None` where it has no endpoint.
    ///
    /// # Errors
    /// A file is unusable (exit code 2).
    pub fn load(config: &MetricsConfig) -> Result<Option<Self>, ExitError> {
        let Some(at) = config.listen else { return Ok(None) };
        let token = config.token_file.as_deref().map(read_token).transpose()?;
        let tls = config.tls.as_ref().map(read_tls).transpose()?;
        Ok(Some(Self { at, token, tls }))
    }

    /// Opens it.
    ///
    /// # Errors
    /// The kernel refuses the address (exit code 3).
    pub async fn open(self) -> Result<MetricsServer, ExitError> {
        let at = self.at;
        let listener = TcpListener::bind(at).await.map_err(|error| {
            let text = format!("cannot serve metrics at {at}: {error}; change `metrics.listen`");
            ExitError::bad_environment(text)
        })?;
        Ok(MetricsServer { listener, endpoint: self })
    }
}

/// The endpoint, open and not yet served.
#[derive(Debug)]
pub struct MetricsServer {
    listener: TcpListener,
    endpoint: MetricsEndpoint,
}

impl MetricsServer {
    /// The address it listens on.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until dropped.
    pub async fn serve<N: ControlBackend>(self, control: Arc<ControlContext<N>>) {
        let Self { listener, endpoint: MetricsEndpoint { token, tls, .. } } = self;
        if let Ok(at) = listener.local_addr() {
            tracing::info!(token = token.is_some(), tls = tls.is_some(), "metrics served at {at}");
        }
        let state = Arc::new(MetricsState { control, token });
        let router = Router::new()
            .route("/metrics", get(get_metrics))
            .fallback(|| async { (StatusCode::NOT_FOUND, "the metrics are at /metrics\n") })
            .with_state(state);
        let (ready, connections) = mpsc::channel(MAX_CONNECTIONS);
        // Returns only on a permanent accept error, which these connections never report.
        let served = axum::serve(ReadyConnections(connections), router);
        tokio::join!(accept_connections(&listener, tls, ready), async { drop(served.await) });
    }
}

/// Reads a file whose content nobody but its owner and group may know.
fn read_secret(path: &Path, what: &str) -> Result<Vec<u8>, ExitError> {
    let refused = |reason: &dyn fmt::Display| {
        ExitError::invalid_input(format!("{what} {}: {reason}", path.display()))
    };
    let file = fs::File::open(path).map_err(|error| refused(&error))?;
    let mode = file.metadata().map_err(|error| refused(&error))?.mode();
    if mode & 0o007 != 0 {
        return Err(refused(&"others may read it: `chmod o= FILE`"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(|error| refused(&error))?;
    Ok(bytes)
}

fn read_token(path: &Path) -> Result<BearerToken, ExitError> {
    let bytes = read_secret(path, "`metrics.token_file`")?;
    let token = bytes.trim_ascii();
    let is_printable = token.iter().all(u8::is_ascii_graphic);
    if !is_printable || !TOKEN_LENGTHS.contains(&token.len()) {
        let text = format!(
            "`metrics.token_file` {}: a token has 16 to 256 printable characters on one line: \
             `openssl rand -hex 32` makes one",
            path.display()
        );
        return Err(ExitError::invalid_input(text));
    }
    Ok(BearerToken(token.to_vec()))
}

fn read_tls(files: &TlsFiles) -> Result<TlsAcceptor, ExitError> {
    let refused = |key: &str, path: &Path, reason: &dyn fmt::Display| {
        ExitError::invalid_input(format!("`metrics.{key}` {}: {reason}", path.display()))
    };
    let of_certificate =
        |reason: &dyn fmt::Display| refused("certificate_file", &files.certificate, reason);
    let text = fs::read(&files.certificate).map_err(|error| of_certificate(&error))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| of_certificate(&error))?;
    if chain.is_empty() {
        return Err(of_certificate(&"there is no PEM certificate in it"));
    }
    let text = read_secret(&files.key, "`metrics.key_file`")?;
    let key = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|error| refused("key_file", &files.key, &error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| refused("key_file", &files.key, &error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts connections while there is room, and passes them on once their handshake is done.
async fn accept_connections(
    listener: &TcpListener,
    tls: Option<TlsAcceptor>,
    ready: mpsc::Sender<(MetricsStream, SocketAddr)>,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors: the next attempt may find one free.
                tracing::debug!(%error, "metrics: accept failed, retrying in 100 ms");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            }
        };
        let (tls, ready) = (tls.clone(), ready.clone());
        tokio::spawn(async move {
            let deadline = Box::pin(tokio::time::sleep(CONNECTION_TIMEOUT));
            let transport: Box<dyn ByteStream> = match tls {
                None => Box::new(stream),
                Some(tls) => {
                    match tokio::time::timeout(CONNECTION_TIMEOUT, tls.accept(stream)).await {
                        Ok(Ok(stream)) => Box::new(stream),
                        Ok(Err(error)) => return tracing::debug!(%from, %error, "metrics: no TLS"),
                        Err(_) => return tracing::debug!(%from, "metrics: no TLS in time"),
                    }
                }
            };
            let request_bytes_left = MAX_REQUEST_BYTES;
            let stream = MetricsStream { transport, deadline, request_bytes_left, _permit: permit };
            // The receiver ends with the server.
            let _ = ready.send((stream, from)).await;
        });
    }
}

/// Connections whose handshake is done.
struct ReadyConnections(mpsc::Receiver<(MetricsStream, SocketAddr)>);

impl axum::serve::Listener for ReadyConnections {
    type Io = MetricsStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (MetricsStream, SocketAddr) {
        match self.0.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::AddrNotAvailable.into())
    }
}

/// TCP, or TLS over it.
trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl ByteStream for TcpStream {}

impl ByteStream for tokio_rustls::server::TlsStream<TcpStream> {}

/// One client.
struct MetricsStream {
    transport: Box<dyn ByteStream>,
    /// End of the connection.
    deadline: Pin<Box<Sleep>>,
    /// Bytes left for the request.
    request_bytes_left: usize,
    _permit: OwnedSemaphorePermit,
}

impl MetricsStream {
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for MetricsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_deadline(cx)?;
        if self.request_bytes_left == 0 {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.transport).poll_read(cx, buf);
        let length = buf.filled().len() - before;
        self.request_bytes_left = self.request_bytes_left.saturating_sub(length);
        read
    }
}

impl AsyncWrite for MetricsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_deadline(cx)?;
        Pin::new(&mut self.transport).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_deadline(cx)?;
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_deadline(cx)?;
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

/// State that the answers are made from.
struct MetricsState<N> {
    control: Arc<ControlContext<N>>,
    token: Option<BearerToken>,
}

impl<N> MetricsState<N> {
    /// Returns whether the request may be answered.
    fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        // The scheme is not case-sensitive (RFC 9110, section 11.1).
        let given = given.and_then(|value| value.split_first_chunk::<7>());
        given.is_some_and(|(scheme, given)| {
            scheme.eq_ignore_ascii_case(b"Bearer ") && token.matches(given)
        })
    }
}

async fn get_metrics<N: ControlBackend>(
    State(state): State<Arc<MetricsState<N>>>,
    headers: HeaderMap,
) -> Response {
    let close = (header::CONNECTION, HeaderValue::from_static("close"));
    if !state.is_authorized(&headers) {
        tracing::debug!("metrics: a request without the token");
        let ask = (header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return (StatusCode::UNAUTHORIZED, [ask, close], "a bearer token is needed\n")
            .into_response();
    }
    let control = &state.control;
    let snapshot = tokio::time::timeout(DRIVER_TIMEOUT, control.node.take_snapshot()).await;
    let Ok(Some(snapshot)) = snapshot else {
        return (StatusCode::SERVICE_UNAVAILABLE, [close], "the driver does not answer\n")
            .into_response();
    };
    let floating = vips::to_vip_list(&*control.node).await;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = PageFormat::from_accept(accept.unwrap_or_default());
    let log = control.log_counts.read_counts();
    let page = metrics::render_page(&snapshot, log, ProcessFigures::read_own(), &floating, format);
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    ([kind, close], page).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_matches_itself_alone() {
        let token = BearerToken(b"0123456789abcdef".to_vec());
        assert!(token.matches(b"0123456789abcdef"));
        for other in [&b""[..], b"0123456789abcde", b"0123456789abcdeg", b"0123456789abcdef0"] {
            assert!(!token.matches(other));
        }
    }
}
