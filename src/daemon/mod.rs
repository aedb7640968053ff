//! `netftd`: the program that owns an adapter.

mod args;
mod checkup;
mod cleanup;
pub mod clock;
mod environment;
mod logging;
mod names;
pub mod node;
mod privileges;
mod pump;
mod reload;
mod run;

use std::{env, ffi::OsString, io, io::Write, path::Path, process::ExitCode};

use clap::Parser;
use netft::config::{Config, DEFAULT_ADAPTER};

use self::args::Args;
use crate::{
    cli::failure::{Failure, exit},
    config, hosts,
};

/// Runs `netftd` with these arguments, its own name first. Call it before any thread is started.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    exit(start(&Args::parse_from(args)))
}

fn start(args: &Args) -> Result<(), Failure> {
    let load = |path: &Path| config::load(path, &args.runtime_dir).map_err(Failure::input);
    if let Some(path) = &args.check {
        let summary = summary(&load(path)?);
        // A reader that is gone has no use for the summary.
        let _ = writeln!(io::stdout(), "{summary}");
        return Ok(());
    }
    if args.cleanup && restart_follows() {
        // The device, its addresses and its TCP connections wait for the next start (F-18).
        let _ = writeln!(io::stdout(), "the service failed and is started again: nothing removed");
        return Ok(());
    }
    if args.cleanup {
        let named = args.adapter.clone();
        let configured = || load(args.config.as_deref()?).ok().map(|config| config.adapter);
        let adapter = named.or_else(configured).unwrap_or_else(|| DEFAULT_ADAPTER.to_owned());
        cleanup::cleanup(&args.runtime_dir, &adapter)?;
        return match &args.hosts {
            Some(file) => {
                hosts::file::remove(file, &adapter).map(drop).map_err(Failure::environment)
            }
            None => Ok(()),
        };
    }
    logging::start(args.log.as_deref())?;
    let mut failed = privileges::drop_others();
    if let Some(path) = &args.config {
        let config = load(path)?;
        failed.extend(privileges::of_port(config.port));
        environment::check()?;
        // Before the first thread.
        netft::io::sys::heap::share();
        for what in failed {
            tracing::warn!("could not give up privileges: {what}");
        }
        return tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| Failure::environment(format!("no threads: {error}")))?
            .block_on(run::run(
                config,
                reload::Source::new(path, &args.runtime_dir),
                names::NamesFile(args.hosts.clone()),
            ));
    }
    Ok(())
}

/// Whether systemd runs this after a failure it answers with a restart (systemd.exec(5),
/// `$SERVICE_RESULT`; exit status 2 is never restarted, see the unit).
fn restart_follows() -> bool {
    let set = |name: &str| env::var(name).ok();
    set("SERVICE_RESULT").is_some_and(|result| result != "success")
        && set("EXIT_STATUS").as_deref() != Some("2")
}

/// What a config means, in one line.
fn summary(config: &Config) -> String {
    let count = |n: usize, one: &str| match n {
        1 => format!("1 {one}"),
        n => format!("{n} {one}s"),
    };
    let networks = match config.networks.len() {
        0 => "every network found".to_owned(),
        n => count(n, "network"),
    };
    format!(
        "ok: node {}, {}, {networks}, adapter {} ({}, {}), port {}",
        config.name,
        count(config.peers.len(), "peer"),
        config.adapter,
        config.addrs.v4,
        config.addrs.v6,
        config.port,
    )
}
