//! `netft`: the operator's commands.

mod args;
mod drain;
mod hosts;
mod init;
mod interfaces;
mod keys;
mod output;
mod peer;
mod validate;

use std::{env, fs, path::Path, process::ExitCode};

use clap::{CommandFactory, Parser};

use self::{
    args::{DaemonTarget, DemoArgs, EventsArgs, NetftArgs, NetftCommand, RouteCommand, WhyArgs},
    output::StandardOutput,
};
use crate::{
    control::{
        client::DaemonClient,
        schema,
        schema::{AdminState, RouteBody, RoutePatch, VersionedBody},
        socket_path,
        why::{EventExplanation, EventSelector},
    },
    exit,
    exit::ExitError,
    render::{
        event::{RouteEndpointMap, event_lines},
        networks, views, why,
    },
    text::escape,
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
        command => exit::report_exit(run_command(command, &args.target)),
    }
}

#[cfg(feature = "demo")]
fn run_demo(args: &DemoArgs, json: bool) -> ExitCode {
    crate::demo::run_demo(args.svg.as_deref(), json)
}

#[cfg(not(feature = "demo"))]
fn run_demo(_: &DemoArgs, _: bool) -> ExitCode {
    let text = "this build has no demo: build it with the feature `demo`";
    exit::report_exit(Err(ExitError::other_error(text)))
}

fn run_command(command: NetftCommand, target: &DaemonTarget) -> Result<(), ExitError> {
    let mut out = StandardOutput::default();
    let json = target.json;
    let client = || DaemonClient::new(target.resolve_socket());
    match command {
        NetftCommand::Status => {
            let (text, status) =
                client().request_json::<schema::DaemonStatus>("GET", "/v1/status", "")?;
            out.print_response(json, &text, || views::status_text(&status))
        }
        NetftCommand::Routes => {
            let (text, routes) =
                client().request_json::<schema::RouteList>("GET", "/v1/routes", "")?;
            out.print_response(json, &text, || views::routes_table(&routes))
        }
        NetftCommand::Networks => {
            let (text, networks) =
                client().request_json::<schema::NetworkList>("GET", "/v1/networks", "")?;
            out.print_response(json, &text, || networks::networks_table(&networks))
        }
        NetftCommand::Peers => {
            let (text, peers) =
                client().request_json::<schema::PeerList>("GET", "/v1/peers", "")?;
            out.print_response(json, &text, || views::peers_table(&peers))
        }
        NetftCommand::Peer(command) => peer::run_peer_command(&client(), command, json, &mut out),
        NetftCommand::Drain { interface, drain } => {
            let request = drain::interface_request(interface, true);
            drain::run_drain(&client(), request, Some(&drain), json, &mut out)
        }
        NetftCommand::Undrain { interface } => {
            let request = drain::interface_request(interface, false);
            drain::run_drain(&client(), request, None, json, &mut out)
        }
        NetftCommand::Route(route) => run_route_command(&client(), route, json, &mut out),
        NetftCommand::Events(args) => run_events(&client(), &args, json, &mut out),
        NetftCommand::Why(args) => run_why(&client(), &args, json, &mut out),
        NetftCommand::Metrics if json => Err(ExitError::invalid_input(
            "metrics have the Prometheus text format only: omit --json",
        )),
        NetftCommand::Metrics => out.write_text(&client().get_text("/metrics")?),
        NetftCommand::Reload { dry_run } => {
            let target = format!("/v1/reload?dry_run={dry_run}");
            let (text, reload) =
                client().request_json::<schema::ReloadResult>("POST", &target, "")?;
            out.print_response(json, &text, || views::reload_text(&reload))
        }
        NetftCommand::Hosts(args) => {
            hosts::run_hosts(client, &args, target.adapter.as_deref(), json, &mut out)
        }
        NetftCommand::Keygen { file } => keys::run_keygen(&file, json, &mut out),
        NetftCommand::Pubkey { file } => keys::run_pubkey(&file, json, &mut out),
        NetftCommand::Init(args) => init::run_init(&args, json, &mut out),
        NetftCommand::Demo(_) | NetftCommand::Validate { .. } => Ok(()),
    }
}

fn run_route_command(
    client: &DaemonClient,
    command: RouteCommand,
    json: bool,
    out: &mut StandardOutput,
) -> Result<(), ExitError> {
    let (id, patch) = match command {
        RouteCommand::Show { id } => (id, None),
        RouteCommand::Set { id, change } => {
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
    out.print_response(json, &text, || views::route_text(&answer.route))
}

fn admin_patch(admin: AdminState) -> RoutePatch {
    RoutePatch { admin: Some(admin), ..RoutePatch::default() }
}

fn run_why(
    client: &DaemonClient,
    args: &WhyArgs,
    json: bool,
    out: &mut StandardOutput,
) -> Result<(), ExitError> {
    let target = match (args.route, args.event) {
        (Some(route), _) => format!("/v1/why?route={route}"),
        (None, EventSelector::Event(event)) => format!("/v1/why?event={event}"),
        (None, _) => "/v1/why".to_owned(),
    };
    let (text, explanation) = client.request_json::<EventExplanation>("GET", &target, "")?;
    out.print_response(json, &text, || why::explanation_text(&explanation))
}

fn run_events(
    client: &DaemonClient,
    args: &EventsArgs,
    json: bool,
    out: &mut StandardOutput,
) -> Result<(), ExitError> {
    let mut ends = RouteEndpointMap::default();
    let mut show = |event: &schema::EventView| {
        ends.learn_from(&event.detail);
        let lines = event_lines(&event.detail, &ends);
        ends.forget_removed(&event.detail);
        format!("{:>4} {} {}\n", event.seq, escape(&event.at), lines.join("\n"))
    };
    let target = format!("/v1/events?after={}", args.after);
    if !args.follow {
        let (text, answer) = client.request_json::<schema::EventList>("GET", &target, "")?;
        return out.print_response(json, &text, || answer.events.iter().map(show).collect());
    }
    let mut stream = client.open_stream(&format!("{target}&follow=true"))?;
    loop {
        let (line, event) = stream.next_line::<VersionedBody<schema::EventView>>()?;
        if !out.print_streamed(json, &line, || show(&event.body))? {
            return Ok(());
        }
    }
}

impl DaemonTarget {
    /// Socket of the daemon: the one given, the adapter's, or the only one in the directory.
    fn resolve_socket(&self) -> std::path::PathBuf {
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
