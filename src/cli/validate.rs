//! `netft validate`.

use std::{path::Path, process::ExitCode, time::Duration};

use super::{args::DaemonTarget, output::StandardOutput};
use crate::{
    cluster::node_config::load_node_config,
    control::{
        client::DaemonClient,
        schema,
        schema::{
            Finding, PeerValidation, PeerValidations, Severity, ValidationResult, VersionedBody,
        },
        socket_path,
    },
    exit,
    exit::ExitError,
    render::validation,
    validate,
    validate::{DaemonFacts, NodeFacts},
};

/// Time limit for the daemon to query every peer: it gives them 4 s.
const VALIDATE_TIMEOUT: Duration = Duration::from_secs(6);

/// Checks this node and, unless `local`, its peers; prints the findings. The exit code is that of
/// the most severe one.
pub(super) fn run_validate(path: &Path, local: bool, target: &DaemonTarget) -> ExitCode {
    let mut out = StandardOutput::default();
    let found = match collect_findings(path, local, target) {
        Ok(found) => found,
        Err(failure) => return exit::report_exit(Err(failure)),
    };
    let theirs = found.peers.iter().flat_map(|peer| &peer.findings);
    let code = validate::exit_code(found.findings.iter().chain(theirs));
    let answer = VersionedBody::new(found);
    let printed = serde_json::to_string(&answer).map_err(ExitError::other_error).and_then(|text| {
        out.print_response(target.json, &text, || validation::validation_text(&answer.body))
    });
    match printed {
        Ok(()) => ExitCode::from(code),
        Err(failure) => exit::report_exit(Err(failure)),
    }
}

/// Findings of this node and, unless `local`, of its peers.
///
/// # Errors
/// This machine cannot be inspected.
pub(super) fn collect_findings(
    path: &Path,
    local: bool,
    target: &DaemonTarget,
) -> Result<ValidationResult, ExitError> {
    let loaded = load_node_config(path, &target.runtime_dir, &target.state_dir());
    let config = match loaded {
        Ok(loaded) => loaded.config,
        Err(failure) => {
            // The file may be right: nothing is found out about this node.
            if failure.code == ExitError::bad_environment("").code {
                return Err(failure);
            }
            let finding = Finding {
                id: "config".to_owned(),
                severity: Severity::Error,
                place: path.display().to_string(),
                what: failure.text,
                remedy: "correct it; nothing else was checked".to_owned(),
            };
            return Ok(ValidationResult {
                findings: vec![finding],
                daemon: false,
                peers: Vec::new(),
            });
        }
    };
    let named = target.socket.clone();
    let adapter = target.adapter.as_ref().unwrap_or(&config.adapter.name);
    let socket = named.unwrap_or_else(|| socket_path(&target.runtime_dir, adapter));
    let daemon = query_daemon(&DaemonClient::new(socket), local);
    let facts = NodeFacts::gather_facts(config, daemon).map_err(ExitError::bad_environment)?;
    let findings = validate::run_checks(&facts);
    let daemon = facts.daemon.is_some();
    let peers = facts.daemon.map_or_else(Vec::new, |daemon| daemon.peers);
    Ok(ValidationResult { findings, daemon, peers })
}

/// State of the daemon, if one runs, and through it the peers' findings.
fn query_daemon(client: &DaemonClient, local: bool) -> Option<DaemonFacts> {
    let (_, status) = client.request_json::<schema::DaemonStatus>("GET", "/v1/status", "").ok()?;
    // First, because it starts new probes on every path.
    let peers = query_peers(client, local);
    let (_, routes) = client.request_json::<schema::RouteList>("GET", "/v1/routes", "").ok()?;
    let (_, events) = client.request_json::<schema::EventList>("GET", "/v1/events", "").ok()?;
    let (_, sessions) = client.request_json::<schema::PeerList>("GET", "/v1/peers", "").ok()?;
    let (_, networks) =
        client.request_json::<schema::NetworkList>("GET", "/v1/networks", "").ok()?;
    let pending =
        client.request_json::<schema::ReloadResult>("POST", "/v1/reload?dry_run=true", "");
    let (pending, refused) = match pending {
        Ok((_, reload)) => (reload.changes, None),
        Err(failure) => (Vec::new(), failure.text.lines().next().map(str::to_owned)),
    };
    Some(DaemonFacts {
        routes: routes.routes,
        events: events.events.into_iter().map(|event| event.detail).collect(),
        sessions: sessions.peers,
        networks: networks.networks,
        pending_changes: pending,
        reload_refused: refused,
        socket_overflow: status.counters.socket_overflow,
        overrides: status.overrides,
        overrides_unsaved: status.overrides_unsaved,
        peers,
    })
}

fn query_peers(client: &DaemonClient, local: bool) -> Vec<PeerValidation> {
    let target = format!("/v1/validate?local={local}");
    let failure = match client
        .with_timeout(VALIDATE_TIMEOUT)
        .request_json::<PeerValidations>("POST", &target, "")
    {
        Ok((_, answers)) => return answers.peers,
        Err(failure) => failure,
    };
    if local {
        return Vec::new();
    }
    let unasked = |peer: schema::PeerView| PeerValidation {
        peer: peer.name,
        error: Some(format!("this node's netftd did not query it ({})", failure.text)),
        ..PeerValidation::default()
    };
    let peers = client.request_json::<schema::PeerList>("GET", "/v1/peers", "");
    peers.map_or_else(|_| Vec::new(), |(_, peers)| peers.peers.into_iter().map(unasked).collect())
}
