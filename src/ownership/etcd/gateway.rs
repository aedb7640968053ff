//! HTTP client of etcd's JSON gateway: one request at a time over a connection that is kept, to one
//! server of the cluster until it fails.

use std::{fs, io, path::Path, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use netft::{
    config::EtcdConfig,
    vip::ownership::{EtcdView, EtcdWrite},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::{
    messages::{
        AuthResponse, ErrorResponse, LeaseResponse, RangeResponse, StreamMessage,
        TransactionResponse, prefix_range, to_transaction,
    },
    tls,
};

/// Time limit of a request. A server that does not answer leaves time for the next one within the
/// shortest lease.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(500);
/// Largest answer, bytes.
const MAX_RESPONSE_BYTES: usize = 4 << 20;
/// Longest password file, bytes.
const MAX_PASSWORD_BYTES: u64 = 4096;

/// The cluster as one node uses it.
pub(super) struct EtcdGateway {
    config: EtcdConfig,
    /// Place of the server that is asked.
    place: usize,
    connection: Option<SendRequest<Full<Bytes>>>,
    token: Option<String>,
}

impl EtcdGateway {
    pub(super) fn new(config: EtcdConfig) -> Self {
        Self { config, place: 0, connection: None, token: None }
    }

    /// Number of servers.
    pub(super) fn server_count(&self) -> usize {
        self.config.endpoints.len()
    }

    /// The server that is asked.
    pub(super) fn endpoint(&self) -> &str {
        let place = self.place.checked_rem(self.config.endpoints.len()).unwrap_or_default();
        self.config.endpoints.get(place).map_or("", String::as_str)
    }

    /// Asks the next server from here on, with a new log-in.
    pub(super) fn next_server(&mut self) {
        self.place = self.place.wrapping_add(1);
        self.connection = None;
        self.token = None;
    }

    /// Number and length of a new lease.
    pub(super) async fn grant_lease(&mut self) -> Result<(i64, Duration), String> {
        let ttl = self.config.ttl.as_secs().to_string();
        let lease: LeaseResponse = self.call("lease/grant", json!({ "TTL": ttl })).await?;
        Ok((lease.id.0, Duration::from_secs(lease.ttl.0)))
    }

    /// Renews a lease; its length, or `None` if it ended.
    pub(super) async fn renew_lease(&mut self, id: i64) -> Result<Option<Duration>, String> {
        let body = json!({ "ID": id.to_string() });
        let lease: StreamMessage<LeaseResponse> = self.call("lease/keepalive", body).await?;
        let ttl = lease.result.ttl.0;
        Ok((ttl > 0 && lease.result.id.0 == id).then_some(Duration::from_secs(ttl)))
    }

    /// Ends a lease and its keys.
    pub(super) async fn revoke_lease(&mut self, id: i64) -> Result<(), String> {
        let _: Value = self.call("lease/revoke", json!({ "ID": id.to_string() })).await?;
        Ok(())
    }

    /// All keys, by a linearizable read.
    pub(super) async fn read_keys(&mut self) -> Result<EtcdView, String> {
        let range = prefix_range(&self.config.prefix);
        let response: RangeResponse = self.call("kv/range", range).await?;
        Ok(response.into_view(&self.config.prefix))
    }

    /// Carries out a transaction; false if what it compares was different.
    pub(super) async fn write_key(&mut self, write: &EtcdWrite) -> Result<bool, String> {
        let body = to_transaction(&self.config.prefix, write);
        let response: TransactionResponse = self.call("kv/txn", body).await?;
        Ok(response.succeeded)
    }

    /// Opens a stream that sends something whenever a key changes. The connection is its own.
    pub(super) async fn watch_keys(&mut self) -> Result<Incoming, String> {
        let range = json!({ "create_request": prefix_range(&self.config.prefix) });
        self.log_in().await?;
        let sent = timeout(REQUEST_TIMEOUT, self.send("watch", &range)).await;
        let response = sent.unwrap_or_else(|_| Err(self.timeout_text()))?;
        self.connection = None;
        match response.status() {
            StatusCode::OK => Ok(response.into_body()),
            status => Err(format!("etcd at {} answered {status}", self.endpoint())),
        }
    }

    async fn call<T: DeserializeOwned>(&mut self, path: &str, body: Value) -> Result<T, String> {
        self.log_in().await?;
        let exchange = self.exchange(path, &body);
        let result = match timeout(REQUEST_TIMEOUT, exchange).await {
            Ok(result) => result,
            Err(_) => Err(self.timeout_text()),
        };
        if result.is_err() {
            self.connection = None;
            self.token = None;
        }
        result
    }

    fn timeout_text(&self) -> String {
        let limit = REQUEST_TIMEOUT.as_millis();
        format!("etcd at {} did not answer within {limit} ms", self.endpoint())
    }

    async fn exchange<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &Value,
    ) -> Result<T, String> {
        let response = self.send(path, body).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await;
        let body = body.map_err(|error| format!("etcd at {}: {error}", self.endpoint()))?;
        let body = body.to_bytes();
        if status != StatusCode::OK {
            let error: ErrorResponse = serde_json::from_slice(&body).unwrap_or_default();
            let text = if error.message.is_empty() { error.error } else { error.message };
            return Err(format!("etcd at {} refused {path}: {text} ({status})", self.endpoint()));
        }
        serde_json::from_slice(&body).map_err(|error| {
            format!("etcd at {} gave an answer to {path} that is not understood: {error}", {
                self.endpoint()
            })
        })
    }

    /// Sends a request, over a new connection if there is none.
    async fn send(&mut self, path: &str, body: &Value) -> Result<Response<Incoming>, String> {
        let endpoint = self.endpoint().to_owned();
        let authority = endpoint.split_once("://").map_or("", |(_, authority)| authority);
        let failed = |error: &dyn std::fmt::Display| format!("etcd at {endpoint}: {error}");
        let mut connection = match self.connection.take().filter(|kept| !kept.is_closed()) {
            Some(kept) => kept,
            None => {
                let stream = TcpStream::connect(authority).await.map_err(|e| failed(&e))?;
                // Requests are small, and each waits for its answer.
                stream.set_nodelay(true).map_err(|error| failed(&error))?;
                match &self.config.tls {
                    None => open_http(stream).await,
                    Some(files) => open_http(tls::connect(files, authority, stream).await?).await,
                }
                .map_err(|error| failed(&error))?
            }
        };
        let bytes = serde_json::to_vec(body).map_err(|error| failed(&error))?;
        let mut request = Request::post(format!("/v3/{path}"))
            .header("host", authority)
            .header("content-type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", token);
        }
        let request = request.body(Full::new(bytes.into())).map_err(|error| failed(&error))?;
        connection.ready().await.map_err(|error| failed(&error))?;
        let response = connection.send_request(request).await.map_err(|error| failed(&error))?;
        self.connection = Some(connection);
        Ok(response)
    }

    /// Logs in, if the cluster asks for it and this connection has no token.
    async fn log_in(&mut self) -> Result<(), String> {
        let (Some(user), Some(file)) = (&self.config.user, &self.config.password_file) else {
            return Ok(());
        };
        if self.token.is_some() {
            return Ok(());
        }
        let password = read_password(file)
            .map_err(|error| format!("{}: {error}: it must hold a password", file.display()))?;
        let body = json!({ "name": user, "password": password });
        let answer: AuthResponse =
            match timeout(REQUEST_TIMEOUT, self.exchange("auth/authenticate", &body)).await {
                Ok(answer) => answer?,
                Err(_) => return Err(format!("etcd at {} does not log in", self.endpoint())),
            };
        self.token = Some(answer.token);
        Ok(())
    }
}

/// Speaks HTTP over a connection.
async fn open_http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> hyper::Result<SendRequest<Full<Bytes>>> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Its error is that of the request.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// The first line of a file.
fn read_password(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > MAX_PASSWORD_BYTES {
        return Err(io::Error::other("it is too long for a password"));
    }
    let text = fs::read_to_string(path)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
