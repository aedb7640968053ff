//! `netft drain`, `netft route drain` and their ends.

use std::time::{Duration, Instant};

use super::{args::DrainOptions, client::Client, failure::Failure, output::Output};
use crate::{
    control::schema::{DrainAnswer, DrainRequest},
    render::{text::escape, views},
};

/// One request waits this long: the order is repeated until the operator's own time is over, so
/// that a daemon that stops is noticed.
const STEP: Duration = Duration::from_millis(1000);

pub(super) fn route(id: u32, on: bool) -> DrainRequest {
    DrainRequest { route: Some(id), on, ..DrainRequest::default() }
}

pub(super) fn interface(name: String, on: bool) -> DrainRequest {
    DrainRequest { interface: Some(name), on, ..DrainRequest::default() }
}

/// Orders, and waits until both directions have left.
pub(super) fn run(
    client: &Client,
    mut request: DrainRequest,
    drain: Option<&DrainOptions>,
    json: bool,
    out: &mut Output,
) -> Result<(), Failure> {
    let patience = Duration::from_secs(drain.map_or(0, |drain| drain.timeout));
    let deadline = Instant::now() + patience;
    request.force = drain.is_some_and(|drain| drain.force);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        request.wait_ms = left.min(STEP).as_millis() as u64;
        let body = serde_json::to_string(&request).map_err(Failure::other)?;
        let (text, answer) = client.ask::<DrainAnswer>("POST", "/v1/drain", &body)?;
        // Who gave no time to wait wants the order only.
        if answer.done || patience.is_zero() {
            return out.answer(json, &text, || views::drained(&answer));
        }
        if left.is_zero() {
            return Err(missing(&answer, patience));
        }
    }
}

fn missing(answer: &DrainAnswer, patience: Duration) -> Failure {
    let waits = answer.waits.iter().map(|wait| {
        format!("route {} to {}: {}", wait.route, escape(&wait.peer), escape(&wait.reason))
    });
    let waits = waits.collect::<Vec<_>>().join("; ");
    let seconds = patience.as_secs();
    Failure::other(format!(
        "not drained after {seconds} s: {waits} (the order stands; undrain takes it back)"
    ))
}
