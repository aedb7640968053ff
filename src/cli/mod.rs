//! `netft`: the operator's commands.

mod archive;
mod args;
mod cluster;
mod cluster_args;
mod diff;
mod drain;
mod drill;
mod event_id;
mod events;
mod health;
mod hosts;
mod init;
mod interfaces;
mod keys;
mod output;
mod peer;
mod report;
mod top;
mod tune;
mod upgrade;
mod validate;
mod vip;

use std::{env, fs, path::Path, process::ExitCode};

use clap::{CommandFactory, Parser};
use serde::Serialize;

use self::{
    args::{
        DaemonTarget, DemoArgs, NetftArgs, NetftCommand, PeersArgs, RouteCommand, RoutesArgs,
        WhyArgs,
    },
    output::{StandardOutput, warn_unsaved},
};
use crate::{
    control::{
        client::DaemonClient,
        schema,
        schema::{AdminState, PeerList, RouteBody, RouteList, RoutePatch, VersionedBody},
        socket_path,
        why::{EventExplanation, EventSelector},
    },
    exit,
    exit::ExitError,
    render::{style::OutputStyle, tables, views, why},
};

/// First argument that runs `netftd` from the program `netft`, for the demo.
const DAEMON_ARGUMENT: &str = "__daemon";

/// The arguments of `netft`, for its manual and its completions.
pub fn netft_command() -> clap::Command {
    NetftArgs::command()
}

/// Runs `netft` with the arguments of this process.
pub fn main() -> ExitCode {
    // The demo starts daemons from the one program `cargo run` has built.
    if cfg!(feature = "demo") && env::args_os().nth(1).is_some_and(|it| it == DAEMON_ARGUMENT) {
        return crate::daemon::main(env::args_os().skip(1));
    }
    let args = NetftArgs::parse();
    match args.command {
        NetftCommand::Demo(demo) => run_demo(&demo, args.target.json),
        NetftCommand::Validate { config, local } => {
            validate::run_validate(&config, local, &args.target)
        }
        NetftCommand::Status => health::run_status(&args.target),
        NetftCommand::Check => health::run_check(&args.target),
        command => exit::report_exit(run_command(command, &args.target)),
    }
}

#[cfg(feature = "demo")]
fn run_demo(demo: &DemoArgs, json: bool) -> ExitCode {
    use args::DemoScenario;
    match (demo.scenario, &demo.svg) {
        (DemoScenario::Routes, svg) => crate::demo::run_demo(svg.as_deref(), json),
        (DemoScenario::Vip, None) => crate::demo::run_vip_demo(json),
        (DemoScenario::Vip, Some(_)) => {
            let text = "--svg draws the run of `netft demo routes` only";
            exit::report_exit(Err(ExitError::invalid_input(text)))
        }
    }
}

#[cfg(not(feature = "demo"))]
fn run_demo(_: &DemoArgs, _: bool) -> ExitCode {
    let text = "this build has no demo: build it with the feature `demo`";
    exit::report_exit(Err(ExitError::other_error(text)))
}

fn run_command(command: NetftCommand, target: &DaemonTarget) -> Result<(), ExitError> {
    let style = target.output_style();
    let mut out = StandardOutput::new(&style);
    let json = target.json;
    let client = || DaemonClient::new(target.resolve_socket());
    match command {
        NetftCommand::Wait(args) => health::run_wait(&args, target),
        NetftCommand::Routes(args) => run_routes(&client(), &args, json, &style, &mut out),
        NetftCommand::Networks => {
            let (text, networks) =
                client().request_json::<schema::NetworkList>("GET", "/v1/networks", "")?;
            out.print_response(json, &text, || tables::networks_table(&networks, &style))
        }
        NetftCommand::Peers(args) => run_peers(&client(), &args, json, &style, &mut out),
        NetftCommand::Peer(command) => peer::run_peer_command(&client(), command, json, &mut out),
        NetftCommand::Drain { interface, drain } => {
            let request = drain::interface_request(interface, true);
            drain::run_drain(&client(), request, Some(&drain), json, &mut out)
        }
        NetftCommand::Drill(args) => drill::run_drill(&client(), &args, json, &style, &mut out),
        NetftCommand::Undrain { interface } => {
            let request = drain::interface_request(interface, false);
            drain::run_drain(&client(), request, None, json, &mut out)
        }
        NetftCommand::Route(route) => run_route_command(&client(), route, json, &style, &mut out),
        NetftCommand::Vip(command) => {
            vip::run_vip_command(&client(), command, json, &style, &mut out)
        }
        NetftCommand::Events(args) => events::run_events(&client(), &args, json, &style, &mut out),
        NetftCommand::Why(args) => run_why(&client(), &args, json, &style, &mut out),
        NetftCommand::Metrics if json => Err(ExitError::invalid_input(
            "metrics have the Prometheus text format only: omit --json",
        )),
        NetftCommand::Report(args) => report::run_report(&args, target, &mut out),
        NetftCommand::Top(args) => top::run_top(client(), &args, json, style),
        NetftCommand::Tune(args) => tune::run_tune(&client(), &args, json, &style, &mut out),
        NetftCommand::Metrics => out.write_text(&client().get_text("/metrics")?),
        NetftCommand::Diff { save } => diff::run_diff(&client(), save, json, &mut out),
        NetftCommand::Reload { dry_run } => {
            let target = format!("/v1/reload?dry_run={dry_run}");
            let (text, reload) =
                client().request_json::<schema::ReloadResult>("POST", &target, "")?;
            out.print_response(json, &text, || views::reload_text(&reload))
        }
        NetftCommand::Upgrade { binary, timeout } => {
            upgrade::run_upgrade(&client(), binary, timeout, json, &mut out)
        }
        NetftCommand::Hosts(args) => {
            hosts::run_hosts(client, &args, target.adapter.as_deref(), json, &mut out)
        }
        NetftCommand::Keygen { file } => keys::run_keygen(&file, json, &mut out),
        NetftCommand::Pubkey { file } => keys::run_pubkey(&file, json, &mut out),
        NetftCommand::Cluster(command) => cluster::run_cluster(command, target, &mut out),
        NetftCommand::Init(args) => init::run_init(&args, json, &mut out),
        NetftCommand::Demo(_)
        | NetftCommand::Validate { .. }
        | NetftCommand::Status
        | NetftCommand::Check => Ok(()),
    }
}

fn run_routes(
    client: &DaemonClient,
    args: &RoutesArgs,
    json: bool,
    style: &OutputStyle,
    out: &mut StandardOutput,
) -> Result<(), ExitError> {
    let (mut text, mut routes) = client.request_json::<RouteList>("GET", "/v1/routes", "")?;
    let network = args.network.map(|network| network.trunc().to_string());
    if let Some(name) = &args.peer
        && routes.routes.iter().all(|route| route.peer != *name)
    {
        peer::require_peer(client, name)?;
    }
    if args.peer.is_some() || args.state.is_some() || network.is_some() {
        routes.routes.retain(|route| {
            args.peer.as_ref().is_none_or(|peer| *peer == route.peer)
                && args.state.is_none_or(|state| state == route.state)
                && (network.is_none() || network == route.network)
        });
        text = versioned_text(&routes)?;
    }
    out.print_response(json, &text, || tables::routes_table(&routes, style))
}

fn run_peers(
    client: &DaemonClient,
    args: &PeersArgs,
    json: bool,
    style: &OutputStyle,
    out: &mut StandardOutput,
) -> Result<(), ExitError> {
    let (mut text, mut peers) = client.request_json::<PeerList>("GET", "/v1/peers", "")?;
    if let Some(name) = &args.peer
        && peers.peers.iter().all(|peer| peer.name != *name)
    {
        return Err(peer::unknown_peer(name));
    }
    if args.peer.is_some() || args.state.is_some() {
        peers.peers.retain(|peer| {
            args.peer.as_ref().is_none_or(|name| *name == peer.name)
                && args.state.is_none_or(|state| state == peer.session_state)
        });
        text = versioned_text(&peers)?;
        if peers.peers.is_empty() {
            return out.print_response(json, &text, || "no peers\n".to_owned());
        }
    }
    out.print_response(json, &text, || tables::peers_table(&peers, style))
}

/// An answer that was filtered, as JSON text.
fn versioned_text(body: &impl Serialize) -> Result<String, ExitError> {
    serde_json::to_string(&VersionedBody::new(body)).map_err(ExitError::other_error)
}

fn run_route_command(
    client: &DaemonClient,
    command: RouteCommand,
    json: bool,
    style: &OutputStyle,
    out: &mut StandardOutput,
) -> Result<(), ExitError> {
    let mut save = false;
    let (id, patch) = match command {
        RouteCommand::Show { id } => (id, None),
        RouteCommand::Set { id, change, save: is_saved } => {
            save = is_saved;
            let patch = RoutePatch {
                delay_ms: change.delay,
                threshold: change.threshold,
                priority: change.priority,
                admin: None,
            };
            (id, Some(patch))
        }
        RouteCommand::Drain { id, drain } => {
            return drain::run_drain(
                client,
                drain::route_request(id, true),
                Some(&drain),
                json,
                out,
            );
        }
        RouteCommand::Undrain { id } => {
            return drain::run_drain(client, drain::route_request(id, false), None, json, out);
        }
        RouteCommand::Up { id } => (id, Some(admin_patch(AdminState::Up))),
        RouteCommand::Down { id } => (id, Some(admin_patch(AdminState::Down))),
    };
    let target = format!("/v1/routes/{id}");
    let (text, answer) = match patch {
        None => client.request_json::<RouteBody>("GET", &target, "")?,
        Some(patch) => {
            let body = serde_json::to_string(&patch).map_err(ExitError::other_error)?;
            client.request_json::<RouteBody>("PATCH", &target, &body)?
        }
    };
    warn_unsaved(answer.overrides_unsaved.as_deref());
    if save {
        diff::save_overrides(client, |one| one.routes.contains(&id))?;
    }
    out.print_response(json, &text, || views::route_text(&answer.route, style))
}

fn admin_patch(admin: AdminState) -> RoutePatch {
    RoutePatch { admin: Some(admin), ..RoutePatch::default() }
}

fn run_why(
    client: &DaemonClient,
    args: &WhyArgs,
    json: bool,
    style: &OutputStyle,
    out: &mut StandardOutput,
) -> Result<(), ExitError> {
    let target = match (args.route, args.event) {
        (Some(route), _) => format!("/v1/why?route={route}"),
        (None, EventSelector::Event(event)) => format!("/v1/why?event={event}"),
        (None, _) => "/v1/why".to_owned(),
    };
    let (text, explanation) = client.request_json::<EventExplanation>("GET", &target, "")?;
    out.print_response(json, &text, || why::explanation_text(&explanation, style))
}

impl DaemonTarget {
    /// Socket of the daemon: the one given, the adapter's, or the only one in the directory.
    pub(super) fn resolve_socket(&self) -> std::path::PathBuf {
        if let Some(socket) = &self.socket {
            return socket.clone();
        }
        if let Some(adapter) = &self.adapter {
            return socket_path(&self.runtime_dir, adapter);
        }
        let usual = socket_path(&self.runtime_dir, netft::config::DEFAULT_ADAPTER);
        if usual.exists() { usual } else { only_socket(&self.runtime_dir).unwrap_or(usual) }
    }
}

fn only_socket(folder: &Path) -> Option<std::path::PathBuf> {
    let mut sockets = fs::read_dir(folder).ok()?.filter_map(|entry| {
        let path = entry.ok()?.path();
        (path.extension()? == "sock").then_some(path)
    });
    let first = sockets.next()?;
    sockets.next().is_none().then_some(first)
}
