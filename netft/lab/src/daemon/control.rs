//! Reads resources of a daemon's control interface: HTTP over its Unix socket.
//!
//! Tests poll route tables every few milliseconds and measure processor time meanwhile, so starting
//! `netft --json` for each would disturb them. In HTTP/1.0 the body ends with the connection, which
//! leaves nothing to share with the client of `netft`: no chunks, no streams, no request bodies.

use std::{
    io,
    io::Write,
    net::{IpAddr, SocketAddr},
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;

use crate::error::LabError;

/// Time limit of a read or a write.
const REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// One row of the route table, as `GET /v1/routes` has it.
#[derive(Clone, Debug, Deserialize)]
pub struct RouteRow {
    /// Route id.
    pub id: u64,
    /// Name of the peer.
    pub peer: String,
    /// Local physical address, with or without port.
    pub real_local: String,
    /// Remote physical address, with or without port.
    pub real_remote: String,
    /// Heartbeat delay, milliseconds.
    pub delay_ms: u64,
    /// Heartbeats missed before the route is down.
    pub threshold: u64,
    /// Lower is preferred.
    pub priority: u64,
    /// `down`, `init`, `up` or `admin-down`.
    pub state: String,
    /// The peer reports that it receives this node's heartbeats.
    pub tx: bool,
    /// This node receives the peer's heartbeats.
    pub rx: bool,
    /// Data to the peer uses it.
    pub active: bool,
    /// Path MTU, bytes.
    #[serde(default)]
    pub path_mtu: Option<u32>,
    /// The smoothed round-trip time of its heartbeats, microseconds.
    #[serde(default)]
    pub rtt_us: Option<u64>,
}

impl RouteRow {
    /// Local physical address.
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

/// Reads `path` (such as `/v1/status`) from the daemon of `runtime_dir`.
///
/// # Errors
/// When no daemon answers, or not 200 with JSON.
pub(super) fn get_json(runtime_dir: &Path, path: &str) -> Result<Value, LabError> {
    let answer = read_answer(runtime_dir, path).map_err(LabError::io_error(format!(
        "read {path} from the daemon of {}",
        runtime_dir.display()
    )))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let json = head.split(' ').nth(1).filter(|status| *status == "200");
    json.and_then(|_| serde_json::from_str(body).ok())
        .ok_or_else(|| LabError::Daemon(format!("unexpected answer to {path}: {answer}")))
}

fn read_answer(runtime_dir: &Path, path: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(find_socket(runtime_dir)?)?;
    stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
    stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: netft\r\n\r\n").as_bytes())?;
    io::read_to_string(stream)
}

/// The one socket in the daemon's runtime directory.
fn find_socket(runtime_dir: &Path) -> io::Result<PathBuf> {
    for entry in std::fs::read_dir(runtime_dir)? {
        let entry = entry?;
        if entry.file_type()?.is_socket() {
            return Ok(entry.path());
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_a_port() {
        assert_eq!(parse_address("10.1.0.1"), parse_address("10.1.0.1:3343"));
        assert_eq!(parse_address("fd00::1"), parse_address("[fd00::1]:3343"));
        assert_eq!(parse_address("somewhere"), None);
    }
}
