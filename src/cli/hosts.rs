//! `netft hosts`.

use super::{args::HostsArgs, output::StandardOutput};
use crate::{
    control::{client::DaemonClient, schema, schema::VersionedBody},
    exit::ExitError,
    hosts,
    hosts::{HostsBlock, file, file::HostsError},
};

/// Prints the names, writes them to a hosts file, or removes them.
///
/// # Errors
/// No daemon (not needed to remove), or the file cannot be written or is damaged.
pub(super) fn run_hosts(
    client: impl FnOnce() -> DaemonClient,
    args: &HostsArgs,
    adapter: Option<&str>,
    json: bool,
    out: &mut StandardOutput,
) -> Result<(), ExitError> {
    if args.remove {
        let adapter = adapter.unwrap_or(netft::config::DEFAULT_ADAPTER);
        file::remove_block(&args.file, adapter).map_err(|error| hosts_exit_error(&error))?;
        return Ok(());
    }
    let client = client();
    let (_, status) = client.request_json::<schema::DaemonStatus>("GET", "/v1/status", "")?;
    let (_, peers) = client.request_json::<schema::PeerList>("GET", "/v1/peers", "")?;
    let hosts = hosts::host_entries(&status, &peers);
    if args.sync {
        file::update_block(&args.file, &status.adapter.name, &hosts)
            .map_err(|error| hosts_exit_error(&error))?;
        return Ok(());
    }
    let block = HostsBlock::for_adapter(&status.adapter.name);
    let answer = VersionedBody::new(schema::HostList { hosts });
    let text = serde_json::to_string(&answer).map_err(ExitError::other_error)?;
    out.print_response(json, &text, || block.render_block(&answer.body.hosts, ""))
}

fn hosts_exit_error(error: &HostsError) -> ExitError {
    match error {
        HostsError::Broken { .. } => ExitError::invalid_input(error),
        HostsError::Io { .. } => ExitError::bad_environment(error),
    }
}
