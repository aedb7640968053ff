//! Start of netftd once a node has its files, and the wait for its routes.

use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    cli::{cluster_args::StartArgs, init},
    control::{
        client::DaemonClient,
        schema::{PeerList, PeerView},
    },
    exit::ExitError,
};

/// Pause between two looks at the routes.
const WAIT_INTERVAL: Duration = Duration::from_millis(50);
/// Longest wait for the control socket of a netftd that was started.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Folder that exists while systemd runs (sd_booted(3)).
const SYSTEMD_FOLDER: &str = "/run/systemd/system";

/// Starts netftd as the arguments say: where nothing is said, by its unit, if systemd runs. Returns
/// whether it was started, or runs.
pub(super) fn start_daemon(
    args: &StartArgs,
    config: &Path,
    client: &DaemonClient,
) -> Result<bool, ExitError> {
    if client.is_listening() {
        return Ok(true);
    }
    let command = match &args.start_with {
        _ if args.no_start => return Ok(false),
        Some(command) => command.clone(),
        None if Path::new(SYSTEMD_FOLDER).is_dir() && init::runs_by_unit(config) => {
            init::start_command(config)
        }
        None => return Ok(false),
    };
    let mut shell = Command::new("sh");
    shell.args(["-c", &command]).stdin(Stdio::null()).stdout(Stdio::null());
    let failed = |why: String| {
        ExitError::other_error(format!(
            "this node is in the cluster, but `{command}` failed: {why}\nstart netftd, and see \
             `netft cluster status`"
        ))
    };
    match shell.status() {
        Ok(status) if status.success() => {
            let deadline = Instant::now() + START_TIMEOUT;
            while !client.is_listening() && Instant::now() < deadline {
                thread::sleep(WAIT_INTERVAL);
            }
            Ok(true)
        }
        Ok(status) => Err(failed(status.to_string())),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Routes of a node that has just started.
#[derive(Debug, Default)]
pub(super) struct RouteOutcome {
    /// Routes that are up.
    pub(super) up: usize,
    /// All of them.
    pub(super) total: usize,
    /// Some peer is reachable, or there is none.
    pub(super) is_connected: bool,
    /// The peers without a route, or with one that is not up, and why.
    pub(super) missing: Vec<String>,
}

/// Waits until every route to every peer is up, or the time is over.
pub(super) fn wait_for_routes(client: &DaemonClient, timeout: Duration) -> RouteOutcome {
    let deadline = Instant::now() + timeout;
    loop {
        // The socket appears with the daemon.
        let outcome = match client.request_json::<PeerList>("GET", "/v1/peers", "") {
            Ok((_, list)) => to_outcome(&list.peers),
            Err(failure) => RouteOutcome { missing: vec![failure.text], ..RouteOutcome::default() },
        };
        if outcome.missing.is_empty() || Instant::now() >= deadline {
            return outcome;
        }
        thread::sleep(WAIT_INTERVAL);
    }
}

fn to_outcome(peers: &[PeerView]) -> RouteOutcome {
    let incomplete = peers.iter().filter(|peer| {
        peer.routes_total == 0 || peer.routes_up < peer.routes_total || !peer.reachable
    });
    let missing = incomplete.map(|peer| {
        let PeerView { name, routes_up, routes_total, .. } = peer;
        match &peer.session_reason {
            Some(reason) => format!("{name}: {reason}"),
            None => format!("{name}: {routes_up} of {routes_total} routes up"),
        }
    });
    RouteOutcome {
        up: peers.iter().map(|peer| peer.routes_up).sum(),
        total: peers.iter().map(|peer| peer.routes_total).sum(),
        is_connected: peers.is_empty() || peers.iter().any(|peer| peer.reachable),
        missing: missing.collect(),
    }
}
