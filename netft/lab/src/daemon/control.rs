//! One question to a daemon: HTTP/1.1 over its control socket.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr},
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;

use crate::LabError;

/// A daemon that does not answer for this long is hung.
const REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// One row of the route table, as `GET /v1/routes` tells it.
#[derive(Clone, Debug, Deserialize)]
pub struct RouteRow {
    /// The route's number.
    pub id: u64,
    /// The peer's name.
    pub peer: String,
    /// The physical address here, with or without port.
    pub real_local: String,
    /// The physical address there, with or without port.
    pub real_remote: String,
    /// Time between heartbeats.
    pub delay_ms: u64,
    /// Heartbeats missed before the route is down.
    pub threshold: u64,
    /// Lower is preferred.
    pub priority: u64,
    /// `down`, `init`, `up` or `admin-down`.
    pub state: String,
    /// The peer says it hears this node here.
    pub tx: bool,
    /// This node hears the peer here.
    pub rx: bool,
    /// Data to the peer goes out here.
    pub active: bool,
    /// The largest IP packet it carries, bytes.
    #[serde(default)]
    pub path_mtu: Option<u32>,
    /// The smoothed round-trip time of its heartbeats, microseconds.
    #[serde(default)]
    pub rtt_us: Option<u64>,
}

impl RouteRow {
    /// The physical address here.
    pub fn local_address(&self) -> Option<IpAddr> {
        parse_address(&self.real_local)
    }

    /// Delay × threshold.
    pub fn detection_time(&self) -> Duration {
        Duration::from_millis(self.delay_ms * self.threshold)
    }
}

fn parse_address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// Asks the daemon of `runtime_dir` for `path` (such as `/v1/status`).
///
/// # Errors
/// When no daemon answers, or not with JSON and a success.
pub fn get_json(runtime_dir: &Path, path: &str) -> Result<Value, LabError> {
    let failed = || LabError::io_error(format!("ask {} for {path}", runtime_dir.display()));
    let socket = find_socket(runtime_dir).map_err(failed())?;
    let mut stream = UnixStream::connect(socket).map_err(failed())?;
    stream.set_read_timeout(Some(REPLY_TIMEOUT)).map_err(failed())?;
    stream.set_write_timeout(Some(REPLY_TIMEOUT)).map_err(failed())?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: netft\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(failed())?;
    let answer = String::from_utf8_lossy(&answer);
    let wrong = || LabError::Daemon(format!("unexpected answer to {path}: {answer}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(wrong)?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status != "200" {
        return Err(wrong());
    }
    serde_json::from_str(&decode_chunked(head, body)).map_err(|_| wrong())
}

/// A body in chunks (RFC 9112 section 7.1), put together; any other body as it is.
fn decode_chunked(head: &str, body: &str) -> String {
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let mut whole = String::new();
    let mut rest = body;
    while let Some((size, after)) = rest.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else { break };
        let Some(chunk) = after.get(..size).filter(|_| size > 0) else { break };
        whole.push_str(chunk);
        rest = after[size..].trim_start_matches("\r\n");
    }
    whole
}

/// The one socket in the daemon's runtime directory.
fn find_socket(runtime_dir: &Path) -> std::io::Result<PathBuf> {
    for entry in std::fs::read_dir(runtime_dir)? {
        let entry = entry?;
        if entry.file_type()?.is_socket() {
            return Ok(entry.path());
        }
    }
    Err(std::io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked";
        assert_eq!(decode_chunked(head, "3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n"), "{\"a\":1}");
        assert_eq!(decode_chunked("HTTP/1.1 200 OK", "{}"), "{}");
    }

    #[test]
    fn addresses_are_read_with_and_without_a_port() {
        assert_eq!(parse_address("10.1.0.1"), parse_address("10.1.0.1:3343"));
        assert_eq!(parse_address("fd00::1"), parse_address("[fd00::1]:3343"));
        assert_eq!(parse_address("somewhere"), None);
    }
}
