//! `netft drain`, `netft route drain` and their counterparts.

use std::time::{Duration, Instant};

use netft::api::overrides::MIN_LIMIT;

use super::{
    args::DrainOptions,
    output::{StandardOutput, warn_unsaved},
};
use crate::{
    control::{
        client::DaemonClient,
        schema::{DrainRequest, DrainResponse},
    },
    exit::ExitError,
    render::views,
    text::escape,
};

/// Longest wait of one request: requests are repeated until the operator's timeout, so that a
/// stopped daemon is noticed.
const WAIT_PER_REQUEST: Duration = Duration::from_millis(1000);

pub(super) fn route_request(id: u32, on: bool) -> DrainRequest {
    DrainRequest { route: Some(id), on, ..DrainRequest::default() }
}

pub(super) fn interface_request(name: String, on: bool) -> DrainRequest {
    DrainRequest { interface: Some(name), on, ..DrainRequest::default() }
}

/// Starts or ends a drain and waits for its completion.
pub(super) fn run_drain(
    client: &DaemonClient,
    mut request: DrainRequest,
    drain: Option<&DrainOptions>,
    json: bool,
    out: &mut StandardOutput,
) -> Result<(), ExitError> {
    let timeout = Duration::from_secs(drain.map_or(0, |drain| drain.timeout));
    let (start, limit) = (Instant::now(), drain.and_then(|drain| drain.until));
    let deadline = start + timeout;
    request.force = drain.is_some_and(|drain| drain.force);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        request.wait_ms = left.min(WAIT_PER_REQUEST).as_millis() as u64;
        request.limit_ms = limit.map(|limit| {
            let rest = limit.saturating_sub(start.elapsed()).max(MIN_LIMIT);
            rest.as_millis() as u64
        });
        let body = serde_json::to_string(&request).map_err(ExitError::other_error)?;
        let (text, answer) = client.request_json::<DrainResponse>("POST", "/v1/drain", &body)?;
        // A timeout of zero does not wait for completion.
        if answer.done || timeout.is_zero() || left.is_zero() {
            warn_unsaved(answer.overrides_unsaved.as_deref());
        }
        if answer.done || timeout.is_zero() {
            return out.print_response(json, &text, || views::drain_response_text(&answer));
        }
        if left.is_zero() {
            return Err(drain_timeout_error(&answer, timeout));
        }
    }
}

fn drain_timeout_error(answer: &DrainResponse, timeout: Duration) -> ExitError {
    let waits = answer.waits.iter().map(|wait| {
        format!("route {} to {}: {}", wait.route, escape(&wait.peer), escape(&wait.reason))
    });
    let waits = waits.collect::<Vec<_>>().join("; ");
    let seconds = timeout.as_secs();
    ExitError::other_error(format!(
        "not drained after {seconds} s: {waits} (the drain continues; `undrain` cancels it)"
    ))
}
