//! Arguments of `netftd`.

use std::path::PathBuf;

use clap::Parser;

use super::log_format::LogFormat;
use crate::{cluster::store::resolve_state_dir, config::adapter_name, exit::EXIT_CODES};

/// Run the virtual network adapter of this node.
#[derive(Debug, Parser)]
#[command(name = "netftd", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(super) struct NetftdArgs {
    /// Configuration file to run.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["check", "cleanup"])]
    pub(super) config: Option<PathBuf>,
    /// Check a configuration file and exit.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "cleanup"])]
    pub(super) check: Option<PathBuf>,
    /// Remove the device and the socket of a daemon that crashed, and exit.
    #[arg(long)]
    pub(super) cleanup: bool,
    /// Adapter to clean up [default: that of --config, else netft0]
    #[arg(long, value_name = "NAME", requires = "cleanup", value_parser = adapter_name)]
    pub(super) adapter: Option<String>,
    /// Maintain the node names in a hosts file while running; with --cleanup, remove them.
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = crate::hosts::file::HOSTS_PATH
    )]
    pub(super) hosts: Option<PathBuf>,
    /// Directory of the lock and the control socket.
    #[arg(long, value_name = "DIR", default_value = "/run/netft")]
    pub(super) runtime_dir: PathBuf,
    /// Group whose members may query this daemon, without root; they cannot change it.
    #[arg(long, value_name = "NAME", requires = "config")]
    pub(super) group: Option<String>,
    /// Run a witness: vote on the owners of floating addresses, carry nothing. It has no adapter,
    /// and needs no /dev/net/tun and no capability.
    #[arg(long, requires = "config")]
    pub(super) witness: bool,
    /// Directory of the state that outlives a restart: the roster, drains [default: /var/lib/netft,
    /// with another --runtime-dir its folder `state`]
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
    /// Log filter: error, warn, info, debug, trace, or per module (`info,netft=debug`)
    /// [default: $NETFT_LOG, else info]
    #[arg(long, value_name = "LEVEL")]
    pub(super) log: Option<String>,
    /// Form of the log lines: text, or one JSON object a line.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(super) log_format: LogFormat,
}

impl NetftdArgs {
    /// Directory of the state.
    pub(super) fn state_dir(&self) -> PathBuf {
        resolve_state_dir(self.state_dir.as_deref(), &self.runtime_dir)
    }
}
