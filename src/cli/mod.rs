//! `netft`: what an operator types.

mod args;
mod client;
mod drain;
pub mod failure;
mod hosts;
mod init;
mod interfaces;
mod keys;
mod output;
mod peer;
mod validate;

use std::{env, fs, path::Path, process::ExitCode};

use clap::Parser;

use self::{
    args::{Args, Command, Events, RouteCommand, Target, Why},
    client::Client,
    failure::Failure,
    output::Output,
};
use crate::{
    control::{
        schema,
        schema::{Admin, OneRoute, RoutePatch, Versioned},
        socket_path,
        why::{Story, Subject},
    },
    render::{
        event::{Ends, lines},
        networks,
        text::escape,
        views, why,
    },
};

/// Word that makes `netft` be `netftd`, for the demo.
const DAEMON: &str = "__daemon";

/// Runs `netft` with the arguments of this process.
pub fn main() -> ExitCode {
    // The demo starts daemons from the one program `cargo run` has built.
    if env::args_os().nth(1).is_some_and(|word| word == DAEMON) {
        return crate::daemon::main(env::args_os().skip(1));
    }
    let args = Args::parse();
    match args.command {
        Command::Demo(demo) => crate::demo::run(&demo, args.target.json),
        Command::Validate { config, local } => validate::run(&config, local, &args.target),
        command => failure::exit(run(command, &args.target)),
    }
}

fn run(command: Command, target: &Target) -> Result<(), Failure> {
    let mut out = Output::default();
    let json = target.json;
    let client = || Client::new(target.socket());
    match command {
        Command::Status => {
            let (text, status) = client().ask::<schema::Status>("GET", "/v1/status", "")?;
            out.answer(json, &text, || views::status(&status))
        }
        Command::Routes => {
            let (text, routes) = client().ask::<schema::Routes>("GET", "/v1/routes", "")?;
            out.answer(json, &text, || views::routes(&routes))
        }
        Command::Networks => {
            let (text, networks) = client().ask::<schema::Networks>("GET", "/v1/networks", "")?;
            out.answer(json, &text, || networks::networks(&networks))
        }
        Command::Peers => {
            let (text, peers) = client().ask::<schema::Peers>("GET", "/v1/peers", "")?;
            out.answer(json, &text, || views::peers(&peers))
        }
        Command::Peer(command) => peer::run(&client(), command, json, &mut out),
        Command::Drain { interface, drain } => {
            let request = drain::interface(interface, true);
            drain::run(&client(), request, Some(&drain), json, &mut out)
        }
        Command::Undrain { interface } => {
            let request = drain::interface(interface, false);
            drain::run(&client(), request, None, json, &mut out)
        }
        Command::Route(route) => change(&client(), route, json, &mut out),
        Command::Events(args) => events(&client(), &args, json, &mut out),
        Command::Why(args) => why(&client(), &args, json, &mut out),
        Command::Metrics if json => {
            Err(Failure::input("metrics are in the Prometheus text format only: leave out --json"))
        }
        Command::Metrics => out.text(&client().text("/metrics")?),
        Command::Reload { dry_run } => {
            let target = format!("/v1/reload?dry_run={dry_run}");
            let (text, reload) = client().ask::<schema::Reload>("POST", &target, "")?;
            out.answer(json, &text, || views::reload(&reload))
        }
        Command::Hosts(args) => {
            hosts::run(client, &args, target.adapter.as_deref(), json, &mut out)
        }
        Command::Keygen { file } => keys::keygen(&file, &mut out),
        Command::Pubkey { file } => keys::pubkey(&file, &mut out),
        Command::Init(args) => init::init(&args, &mut out),
        Command::Demo(_) | Command::Validate { .. } => Ok(()),
    }
}

fn change(
    client: &Client,
    command: RouteCommand,
    json: bool,
    out: &mut Output,
) -> Result<(), Failure> {
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
            return drain::run(client, drain::route(id, true), Some(&drain), json, out);
        }
        RouteCommand::Undrain { id } => {
            return drain::run(client, drain::route(id, false), None, json, out);
        }
        RouteCommand::Up { id } => (id, Some(admin(Admin::Up))),
        RouteCommand::Down { id } => (id, Some(admin(Admin::Down))),
    };
    let target = format!("/v1/routes/{id}");
    let (text, answer) = match patch {
        None => client.ask::<OneRoute>("GET", &target, "")?,
        Some(patch) => {
            let body = serde_json::to_string(&patch).map_err(Failure::other)?;
            client.ask::<OneRoute>("PATCH", &target, &body)?
        }
    };
    out.answer(json, &text, || views::route(&answer.route))
}

fn admin(admin: Admin) -> RoutePatch {
    RoutePatch { admin: Some(admin), ..RoutePatch::default() }
}

fn why(client: &Client, args: &Why, json: bool, out: &mut Output) -> Result<(), Failure> {
    let target = match (args.route, args.event) {
        (Some(route), _) => format!("/v1/why?route={route}"),
        (None, Subject::Event(event)) => format!("/v1/why?event={event}"),
        (None, _) => "/v1/why".to_owned(),
    };
    let (text, story) = client.ask::<Story>("GET", &target, "")?;
    out.answer(json, &text, || why::story(&story))
}

fn events(client: &Client, args: &Events, json: bool, out: &mut Output) -> Result<(), Failure> {
    let mut ends = Ends::default();
    let mut show = |event: &schema::Event| {
        ends.learn(&event.what);
        let lines = lines(&event.what, &ends);
        ends.forget(&event.what);
        format!("{:>4} {} {}\n", event.seq, escape(&event.at), lines.join("\n"))
    };
    let target = format!("/v1/events?after={}", args.after);
    if !args.follow {
        let (text, answer) = client.ask::<schema::Events>("GET", &target, "")?;
        return out.answer(json, &text, || answer.events.iter().map(show).collect());
    }
    let mut stream = client.follow(&format!("{target}&follow=true"))?;
    loop {
        let (line, event) = stream.next::<Versioned<schema::Event>>()?;
        if !out.answer_more(json, &line, || show(&event.body))? {
            return Ok(());
        }
    }
}

impl Target {
    /// The socket to ask: the one named, or the adapter's, or the only one there is.
    fn socket(&self) -> std::path::PathBuf {
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
