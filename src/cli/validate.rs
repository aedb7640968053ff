//! `netft validate`.

use std::{path::Path, process::ExitCode, time::Duration};

use super::{args::Target, client::Client, failure, failure::Failure, output::Output};
use crate::{
    config,
    control::{
        schema,
        schema::{Finding, PeerAnswer, PeerAnswers, Severity, Validation, Versioned},
        socket_path,
    },
    render::validation,
    validate,
    validate::{Daemon, Facts},
};

/// How long the daemon may take to ask every peer: it gives them 4 s.
const PATIENCE: Duration = Duration::from_secs(6);

/// Checks this node and, unless `local`, its peers; prints what is wrong. The exit code tells how
/// bad the worst of it is.
pub(super) fn run(path: &Path, local: bool, target: &Target) -> ExitCode {
    let mut out = Output::default();
    let found = match findings(path, local, target) {
        Ok(found) => found,
        Err(failure) => return failure::exit(Err(failure)),
    };
    let theirs = found.peers.iter().flat_map(|peer| &peer.findings);
    let code = validate::exit_code(found.findings.iter().chain(theirs));
    let answer = Versioned::new(found);
    let printed = serde_json::to_string(&answer)
        .map_err(Failure::other)
        .and_then(|text| out.answer(target.json, &text, || validation::validation(&answer.body)));
    match printed {
        Ok(()) => ExitCode::from(code),
        Err(failure) => failure::exit(Err(failure)),
    }
}

fn findings(path: &Path, local: bool, target: &Target) -> Result<Validation, Failure> {
    let config = match config::load(path, &target.runtime_dir) {
        Ok(config) => config,
        Err(error) => {
            let finding = Finding {
                id: "config".to_owned(),
                severity: Severity::Error,
                place: path.display().to_string(),
                what: error.to_string(),
                remedy: "correct it; nothing else was checked".to_owned(),
            };
            return Ok(Validation { findings: vec![finding], daemon: false, peers: Vec::new() });
        }
    };
    let named = target.socket.clone();
    let adapter = target.adapter.as_ref().unwrap_or(&config.adapter);
    let socket = named.unwrap_or_else(|| socket_path(&target.runtime_dir, adapter));
    let daemon = ask(&Client::new(socket), local);
    let facts = Facts::gather(config, daemon).map_err(Failure::environment)?;
    let findings = validate::validate(&facts);
    let daemon = facts.daemon.is_some();
    let peers = facts.daemon.map_or_else(Vec::new, |daemon| daemon.peers);
    Ok(Validation { findings, daemon, peers })
}

/// What the daemon says, if one runs, and the peers through it.
fn ask(client: &Client, local: bool) -> Option<Daemon> {
    let (_, status) = client.ask::<schema::Status>("GET", "/v1/status", "").ok()?;
    // First, as it has every path probed anew.
    let peers = ask_peers(client, local);
    let (_, routes) = client.ask::<schema::Routes>("GET", "/v1/routes", "").ok()?;
    let (_, events) = client.ask::<schema::Events>("GET", "/v1/events", "").ok()?;
    // What a reload refuses is shown by a reload.
    let pending = client.ask::<schema::Reload>("POST", "/v1/reload?dry_run=true", "");
    let pending = pending.map_or_else(
        |failure| failure.text.lines().take(1).map(str::to_owned).collect(),
        |(_, reload)| reload.changes,
    );
    Some(Daemon {
        routes: routes.routes,
        events: events.events.into_iter().map(|event| event.what).collect(),
        pending,
        overflow: status.counters.socket_overflow,
        peers,
    })
}

fn ask_peers(client: &Client, local: bool) -> Vec<PeerAnswer> {
    let target = format!("/v1/validate?local={local}");
    let failure = match client.patient(PATIENCE).ask::<PeerAnswers>("POST", &target, "") {
        Ok((_, answers)) => return answers.peers,
        Err(failure) => failure,
    };
    if local {
        return Vec::new();
    }
    let unasked = |peer: schema::Peer| PeerAnswer {
        peer: peer.name,
        error: Some(format!("this node's netftd does not ask it ({})", failure.text)),
        ..PeerAnswer::default()
    };
    let peers = client.ask::<schema::Peers>("GET", "/v1/peers", "");
    peers.map_or_else(|_| Vec::new(), |(_, peers)| peers.peers.into_iter().map(unasked).collect())
}
