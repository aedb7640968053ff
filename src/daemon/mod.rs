//! `netftd`: the daemon that runs an adapter.

mod args;
mod cleanup;
mod control_server;
mod dns;
mod environment;
mod event_history;
mod group;
mod handover;
mod log_format;
mod log_limit;
mod log_queue;
mod logging;
mod names;
pub mod node;
mod overrides;
mod ownership;
mod partners;
mod privileges;
mod pump;
mod reload;
mod report_responder;
mod run;
mod validate_responder;
mod vips;
mod witness;

use std::{env, ffi::OsString, io, io::Write, path::Path, process::ExitCode, sync::Arc};

use clap::{CommandFactory, Parser};
use netft::{
    api::host,
    config::{Config, DEFAULT_ADAPTER},
};

use self::{args::NetftdArgs, logging::DaemonLog};
use crate::{
    cluster::node_config::{NodeConfig, load_node_config},
    control::metrics_server::MetricsEndpoint,
    exit::{ExitError, report_exit},
    hosts,
    text::{NO_PEERS, escape},
};

/// The arguments of `netftd`, for its manual and its completions.
pub fn netftd_command() -> clap::Command {
    NetftdArgs::command()
}

/// Runs `netftd` with these arguments, its own name first. Call it before any thread is started.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    // A stop signal at this moment is answered once the daemon can stop in order.
    host::hold_stop_signals();
    let args = NetftdArgs::parse_from(args);
    if let (Some(path), false) = (&args.config, args.cleanup) {
        // Before the first thread, that of the log.
        let failed = privileges::drop_privileges();
        return match logging::start_logging(args.log.as_deref(), args.log_format) {
            Ok(log) => {
                let result = run_daemon(&args, path, failed, &log);
                log.report_exit(result)
            }
            Err(error) => report_exit(Err(error)),
        };
    }
    host::release_stop_signals();
    report_exit(run_command(&args))
}

fn load_config(args: &NetftdArgs, path: &Path) -> Result<NodeConfig, ExitError> {
    load_node_config(path, &args.runtime_dir, &args.state_dir())
}

/// `--check` and `--cleanup`.
fn run_command(args: &NetftdArgs) -> Result<(), ExitError> {
    // A closed standard output is no error: the exit code says it too.
    let print = |text: &str| drop(writeln!(io::stdout(), "{}", escape(text)));
    if let Some(path) = &args.check {
        let config = load_config(args, path)?.config;
        MetricsEndpoint::load(&config.access.metrics)?;
        print(&format!("ok: {}", config_summary(&config)));
        if config.peers.is_empty() {
            let _ = writeln!(io::stderr(), "warning: {NO_PEERS}");
        }
        return Ok(());
    }
    if is_restart_pending() {
        // The device, its addresses and its TCP connections are kept for the next start (F-18).
        print("the service failed and will be restarted: nothing removed");
        return Ok(());
    }
    let named = args.adapter.clone();
    let configured =
        || load_config(args, args.config.as_deref()?).ok().map(|it| it.config.adapter.name);
    let adapter = named.or_else(configured).unwrap_or_else(|| DEFAULT_ADAPTER.to_owned());
    cleanup::cleanup_adapter(&args.runtime_dir, &adapter)?;
    match &args.hosts {
        Some(file) => {
            hosts::file::remove_block(file, &adapter).map(drop).map_err(ExitError::bad_environment)
        }
        None => Ok(()),
    }
}

/// Runs the adapter of a configuration file until a signal stops it.
fn run_daemon(
    args: &NetftdArgs,
    path: &Path,
    mut failed: Vec<String>,
    log: &DaemonLog,
) -> Result<(), ExitError> {
    let mut loaded = load_config(args, path)?;
    if args.witness {
        loaded.config = witness::make_witness(loaded.config)?;
    }
    let config = &loaded.config;
    tracing::info!(
        "netftd {}: configuration loaded from {}: {}",
        env!("CARGO_PKG_VERSION"),
        path.display(),
        config_summary(config)
    );
    if config.peers.is_empty() {
        tracing::warn!("{NO_PEERS}");
    }
    let metrics_port = config.access.metrics.listen.map_or(0, |at| at.port());
    failed.extend(privileges::drop_bind_capability(&[config.session.port, metrics_port]));
    environment::check_environment(config.adapter.backend)?;
    // Before the first thread of the adapter.
    host::use_single_arena();
    for what in failed {
        tracing::warn!("privileges not dropped: {what}");
    }
    // Leases and handshakes are in time on a busy host, as packets and heartbeats are.
    host::try_shorten_slice();
    tokio::runtime::Builder::new_multi_thread()
        .on_thread_start(host::try_shorten_slice)
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| ExitError::bad_environment(format!("no threads: {error}")))?
        .block_on(run::run_adapter(
            reload::ConfigSource::new(path, &args.runtime_dir, loaded),
            &args.state_dir(),
            names::HostsFile(args.hosts.clone()),
            Arc::clone(&log.counts),
            args.log_format,
            args.group.as_deref().and_then(group::find_group),
        ))
}

/// True in ExecStopPost= after a failure that systemd answers with a restart (systemd.exec(5),
/// `$SERVICE_RESULT`; exit status 2 is never restarted, see the unit).
fn is_restart_pending() -> bool {
    let set = |name: &str| env::var(name).ok();
    set("SERVICE_RESULT").is_some_and(|result| result != "success")
        && set("EXIT_STATUS").as_deref() != Some("2")
}

/// Summary of a configuration in one line.
fn config_summary(config: &Config) -> String {
    let count = |n: usize, one: &str| match n {
        1 => format!("1 {one}"),
        n => format!("{n} {one}s"),
    };
    let networks = match config.networks.len() {
        0 => "all networks".to_owned(),
        n => count(n, "network"),
    };
    format!(
        "node {}, {}, {networks}, adapter {} ({}, {}), port {}",
        config.name,
        count(config.peers.len(), "peer"),
        config.adapter.name,
        config.adapter.addrs.v4,
        config.adapter.addrs.v6,
        config.session.port,
    )
}
