//! The arguments of `netftd`.

use std::path::PathBuf;

use clap::Parser;

use crate::{config::adapter_name, exit::EXIT_CODES};

/// Owns the virtual network adapter of this node.
#[derive(Debug, Parser)]
#[command(name = "netftd", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(super) struct NetftdArgs {
    /// Runs the adapter this config describes.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["check", "cleanup"])]
    pub(super) config: Option<PathBuf>,
    /// Checks a config and ends.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "cleanup"])]
    pub(super) check: Option<PathBuf>,
    /// Removes what a daemon that died may have left, and ends.
    #[arg(long)]
    pub(super) cleanup: bool,
    /// The adapter to clean up after [default: the config's, else netft0]
    #[arg(long, value_name = "NAME", requires = "cleanup", value_parser = adapter_name)]
    pub(super) adapter: Option<String>,
    /// Keeps the nodes' names in a hosts file while it runs; with --cleanup, takes them out.
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = crate::hosts::file::HOSTS_PATH
    )]
    pub(super) hosts: Option<PathBuf>,
    /// Where the lock and the control socket are.
    #[arg(long, value_name = "DIR", default_value = "/run/netft")]
    pub(super) runtime_dir: PathBuf,
    /// What is logged: error, warn, info, debug, trace, or per part (`info,netft=debug`)
    /// [default: $NETFT_LOG, else info]
    #[arg(long, value_name = "LEVEL")]
    pub(super) log: Option<String>,
}
