//! `netft diff`, and `--save` of the commands that change a route or a peer: differences between
//! the running node and its config file.

use std::{fs, io, io::Write as _, path::Path};

use super::output::StandardOutput;
use crate::{
    cluster::store::replace_file,
    config,
    config::{PeerEdit, RouteEdit},
    control::{
        client::DaemonClient,
        policies::to_policies,
        schema::{OverrideView, PeerList, PeerView, ReloadResult},
    },
    exit::ExitError,
    render::views,
    text::escape,
};

/// Overrides that have keys in the config file. The others are the state of a moment, which netftd
/// keeps beside the file.
const SAVED_KINDS: [&str; 3] = ["priority", "timing", "policies"];

/// Runs `netft diff`.
///
/// # Errors
/// No daemon, or the file cannot be changed.
pub(super) fn run_diff(
    client: &DaemonClient,
    save: bool,
    json: bool,
    out: &mut StandardOutput,
) -> Result<(), ExitError> {
    if save {
        save_overrides(client, |_| true)?;
    }
    let (text, reload) = ask_reload(client, true)?;
    out.print_response(json, &text, || views::reload_text(&reload))
}

/// Writes the overrides that `is_wanted` accepts into the daemon's config file, and has the daemon
/// read it: they are settings then.
///
/// # Errors
/// No daemon, or the file cannot be changed; it is as it was.
pub(super) fn save_overrides(
    client: &DaemonClient,
    is_wanted: impl Fn(&OverrideView) -> bool,
) -> Result<(), ExitError> {
    let (_, state) = ask_reload(client, true)?;
    let is_saved = |one: &&OverrideView| SAVED_KINDS.contains(&one.kind.as_str());
    let wanted: Vec<_> =
        state.overrides.iter().filter(is_saved).filter(|it| is_wanted(it)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    if !state.changes.is_empty() {
        let changes: Vec<_> = state.changes.iter().map(|line| escape(line)).collect();
        return Err(ExitError::invalid_input(format!(
            "the config file has changes that are not in force, and would be with what is saved: \
             `netft reload` first\n{}",
            changes.join("\n")
        )));
    }
    let file = state.file.as_ref().ok_or_else(|| {
        ExitError::other_error("this netftd does not say which config file it has: upgrade it")
    })?;
    let (_, peers) = client.request_json::<PeerList>("GET", "/v1/peers", "")?;
    let edits = to_edits(&wanted, &peers.peers).map_err(ExitError::other_error)?;
    rewrite_config(file, &edits)?;
    // It ends the overrides that the file says.
    ask_reload(client, false)?;
    let _ = writeln!(io::stderr(), "written to {}", escape(&file.display().to_string()));
    Ok(())
}

fn ask_reload(client: &DaemonClient, dry_run: bool) -> Result<(String, ReloadResult), ExitError> {
    client.request_json("POST", &format!("/v1/reload?dry_run={dry_run}"), "")
}

fn to_edits(overrides: &[&OverrideView], peers: &[PeerView]) -> Result<Vec<PeerEdit>, String> {
    let mut edits: Vec<PeerEdit> = Vec::new();
    for one in overrides {
        let Some(peer) = peers.iter().find(|peer| one.peer.as_ref() == Some(&peer.name)) else {
            // Of a peer that is not there at present.
            continue;
        };
        let edit = match edits.iter_mut().position(|edit| edit.name == peer.name) {
            Some(place) => &mut edits[place],
            None => {
                let key = peer.key.parse().map_err(|_| "a key is damaged".to_owned())?;
                let (name, routes) = (peer.name.clone(), Vec::new());
                edits.push(PeerEdit { name, key, policies: None, routes });
                edits.last_mut().ok_or("no edit")?
            }
        };
        match (one.real_local, one.real_remote) {
            (Some(local), Some(remote)) => edit.routes.push(RouteEdit {
                local: local.ip(),
                remote,
                priority: one.priority,
                timing: one.delay_ms.zip(one.threshold),
            }),
            _ => edit.policies = Some(to_policies(&peer.policy, &peer.classes)?),
        }
    }
    Ok(edits)
}

/// Changes the file, if netftd would take it.
fn rewrite_config(file: &Path, edits: &[PeerEdit]) -> Result<(), ExitError> {
    // A link stays one.
    let path = fs::canonicalize(file).map_err(|error| cannot_write(file, &error))?;
    let loaded = config::load_config_file(&path, Path::new("/"))?;
    let text = config::edit_config_text(loaded.text(), edits).map_err(|reason| {
        ExitError::invalid_input(format!("{} cannot be edited: {reason}", path.display()))
    })?;
    config::check_config_text(&path, text.clone(), Path::new("/"))?;
    replace_file(&path, text.as_bytes()).map_err(|error| cannot_write(&path, &error))
}

fn cannot_write(path: &Path, error: &io::Error) -> ExitError {
    ExitError::bad_environment(format!(
        "cannot write {}: {error}; the change is in force, and stays over a restart",
        path.display()
    ))
}
