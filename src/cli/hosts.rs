//! `netft hosts`.

use super::{args::Hosts, client::Client, failure::Failure, output::Output};
use crate::{
    control::{schema, schema::Versioned},
    hosts,
    hosts::{Block, file, file::HostsError},
};

/// Prints the names, or writes them into a hosts file, or takes them out.
///
/// # Errors
/// No daemon to ask (not needed to remove), or the file cannot be written or is damaged.
pub(super) fn run(
    client: impl FnOnce() -> Client,
    args: &Hosts,
    adapter: Option<&str>,
    json: bool,
    out: &mut Output,
) -> Result<(), Failure> {
    if args.remove {
        let adapter = adapter.unwrap_or(netft::config::DEFAULT_ADAPTER);
        file::remove(&args.file, adapter).map_err(|error| failure(&error))?;
        return Ok(());
    }
    let client = client();
    let (_, status) = client.ask::<schema::Status>("GET", "/v1/status", "")?;
    let (_, peers) = client.ask::<schema::Peers>("GET", "/v1/peers", "")?;
    let hosts = hosts::hosts(&status, &peers);
    if args.sync {
        file::sync(&args.file, &status.adapter.name, &hosts).map_err(|error| failure(&error))?;
        return Ok(());
    }
    let block = Block::of(&status.adapter.name);
    let answer = Versioned::new(schema::Hosts { hosts });
    let text = serde_json::to_string(&answer).map_err(Failure::other)?;
    out.answer(json, &text, || block.render(&answer.body.hosts, ""))
}

fn failure(error: &HostsError) -> Failure {
    match error {
        HostsError::Broken { .. } => Failure::input(error),
        HostsError::Io { .. } => Failure::environment(error),
    }
}
