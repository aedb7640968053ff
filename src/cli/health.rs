//! `netft status`, `netft check` and `netft wait`: is this node well?

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use super::{
    args::{DaemonTarget, WaitArgs},
    output::StandardOutput,
    peer::unknown_peer,
};
use crate::{
    control::{
        client::DaemonClient,
        schema,
        schema::{DaemonStatus, PeerView},
        verdict::RedundancyState,
    },
    exit,
    exit::ExitError,
    render::{health, views},
    text::escape,
};

/// Interval of the queries of `netft wait`.
const WAIT_INTERVAL: Duration = Duration::from_millis(200);

/// Prints the status; the exit code is that of the verdict, and 3 without one.
pub(super) fn run_status(target: &DaemonTarget) -> ExitCode {
    let style = target.output_style();
    let mut out = StandardOutput::new(&style);
    let printed = query_status(target).and_then(|(text, status)| {
        out.print_response(target.json, &text, || views::status_text(&status, &style))?;
        Ok(verdict_code(&status))
    });
    printed.unwrap_or_else(|failure| exit::report_exit(Err(ExitError { code: 3, ..failure })))
}

/// Prints the verdict as a monitoring plugin; without an answer of the daemon it is critical.
pub(super) fn run_check(target: &DaemonTarget) -> ExitCode {
    let mut out = StandardOutput::default();
    let (text, code) = match query_status(target) {
        Ok((text, status)) => {
            let shown = if target.json { text } else { health::plugin_text(&status) };
            (shown, verdict_code(&status))
        }
        // A plugin reports on standard output.
        Err(failure) => {
            (format!("NETFT CRITICAL - {}\n", escape(&failure.text)), ExitCode::from(2))
        }
    };
    match out.write_text(&text) {
        Ok(()) => code,
        Err(failure) => exit::report_exit(Err(failure)),
    }
}

fn query_status(target: &DaemonTarget) -> Result<(String, DaemonStatus), ExitError> {
    DaemonClient::new(target.resolve_socket()).request_json("GET", "/v1/status", "")
}

fn verdict_code(status: &DaemonStatus) -> ExitCode {
    ExitCode::from(match status.verdict.state {
        RedundancyState::Redundant => 0,
        RedundancyState::Degraded => 1,
        RedundancyState::CutOff => 2,
    })
}

/// Waits until peers are reachable; a daemon that does not answer yet is waited for, too.
///
/// # Errors
/// The time is over, or a peer is not configured.
pub(super) fn run_wait(args: &WaitArgs, target: &DaemonTarget) -> Result<(), ExitError> {
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    loop {
        // The socket appears with the daemon.
        let client = DaemonClient::new(target.resolve_socket());
        let missing = match client.request_json::<schema::PeerList>("GET", "/v1/peers", "") {
            Ok((_, list)) => missing_peers(&list.peers, &args.peers)?,
            Err(failure) if failure.code == 1 => failure.text,
            Err(failure) => return Err(failure),
        };
        if missing.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let seconds = args.timeout;
            return Err(ExitError::other_error(format!("after {seconds} s: {missing}")));
        }
        thread::sleep(WAIT_INTERVAL);
    }
}

/// The wanted peers that are not reachable, in one line; all are wanted if none is named.
fn missing_peers(peers: &[PeerView], wanted: &[String]) -> Result<String, ExitError> {
    let unknown = wanted.iter().find(|name| peers.iter().all(|peer| peer.name != **name));
    if let Some(name) = unknown {
        return Err(unknown_peer(name));
    }
    let is_wanted = |peer: &&PeerView| wanted.is_empty() || wanted.contains(&peer.name);
    let missing = peers.iter().filter(is_wanted).filter(|peer| !peer.reachable).map(|peer| {
        let why = peer.session_reason.as_deref().map_or_else(String::new, |it| format!(" ({it})"));
        format!("{} is not reachable{why}", peer.name)
    });
    Ok(missing.collect::<Vec<_>>().join("; "))
}
