//! `netft upgrade`.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use super::output::StandardOutput;
use crate::{
    control::{
        client::DaemonClient,
        schema::{DaemonStatus, UpgradeRequest, UpgradeStarted},
    },
    exit::ExitError,
};

/// Longest wait for the successor to answer once it was ready.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval of the questions meanwhile.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Has the daemon hand over, and waits until its successor answers.
pub(super) fn run_upgrade(
    client: &DaemonClient,
    binary: Option<PathBuf>,
    timeout: u64,
    json: bool,
    out: &mut StandardOutput,
) -> Result<(), ExitError> {
    let status =
        |client: &DaemonClient| client.request_json::<DaemonStatus>("GET", "/v1/status", "");
    let (_, before) = status(client)?;
    let timeout = Duration::from_secs(timeout);
    let request = UpgradeRequest { binary, timeout_ms: Some(timeout.as_millis() as u64) };
    let body = serde_json::to_string(&request).map_err(ExitError::other_error)?;
    let patient = client.with_timeout(timeout + Duration::from_secs(2));
    let (_, started) = patient.request_json::<UpgradeStarted>("POST", "/v1/upgrade", &body)?;
    let deadline = Instant::now() + TAKE_OVER_TIMEOUT;
    while Instant::now() < deadline {
        thread::sleep(POLL_INTERVAL);
        // In between nobody listens.
        let Ok((text, after)) = status(client) else { continue };
        if after.node.pid == started.pid {
            return out.print_response(json, &text, || {
                format!("netftd {} serves, pid {}\n", after.version, started.pid)
            });
        }
        if after.node.boot_id != before.node.boot_id {
            return Err(ExitError::other_error(
                "the successor failed after it was ready; the former netftd serves again: see \
                 its log",
            ));
        }
    }
    Err(ExitError::other_error("no netftd answers after the hand-over: see its log"))
}
