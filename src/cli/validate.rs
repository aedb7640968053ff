//! `netft validate`.

use std::{path::Path, process::ExitCode};

use super::{
    args::Target,
    client::Client,
    failure::{self, Failure},
    output::Output,
};
use crate::{
    config,
    control::{
        schema::{self, Finding, Severity, Validation, Versioned},
        socket_path,
    },
    render::views,
    validate::{self, Daemon, Facts},
};

/// Checks this node and prints what is wrong; the exit code tells how bad it is.
pub(super) fn run(path: &Path, target: &Target) -> ExitCode {
    let mut out = Output::default();
    let findings = match findings(path, target) {
        Ok(findings) => findings,
        Err(failure) => return failure::exit(Err(failure)),
    };
    let code = validate::exit_code(&findings.findings);
    let answer = Versioned::new(findings);
    let printed = serde_json::to_string(&answer)
        .map_err(Failure::other)
        .and_then(|text| out.answer(target.json, &text, || views::validation(&answer.body)));
    match printed {
        Ok(()) => ExitCode::from(code),
        Err(failure) => failure::exit(Err(failure)),
    }
}

fn findings(path: &Path, target: &Target) -> Result<Validation, Failure> {
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
            return Ok(Validation { findings: vec![finding], daemon: false });
        }
    };
    let named = target.socket.clone();
    let adapter = target.adapter.as_ref().unwrap_or(&config.adapter);
    let socket = named.unwrap_or_else(|| socket_path(&target.runtime_dir, adapter));
    let daemon = ask(&Client::new(socket));
    let running = daemon.is_some();
    let facts = Facts::gather(config, daemon).map_err(Failure::environment)?;
    Ok(Validation { findings: validate::validate(&facts), daemon: running })
}

/// What the daemon says, if one runs.
fn ask(client: &Client) -> Option<Daemon> {
    let (_, status) = client.ask::<schema::Status>("GET", "/v1/status", "").ok()?;
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
    })
}
