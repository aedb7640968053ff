//! Daemons inside the lab: keys and configs on disk, processes, status and events.

mod control;
mod events;
mod process;

use std::{
    ffi::OsString,
    fmt::Write as _,
    net::{SocketAddr, SocketAddrV6},
    path::PathBuf,
    process::Command,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
pub use control::RouteRow;
pub use events::{EventFollower, EventLine};
use netft_proto::{NodeKey, ids::virtual_addrs::VirtualAddrs};
pub use process::Daemon;
pub(crate) use process::print_logs;

use crate::{build::Lab, error::LabError, netns::interface_index, scratch::ScratchDir};

/// Name of the adapter.
pub const ADAPTER_NAME: &str = "netft0";

/// Environment variable for the transport, so that any kernel test also runs over QUIC. `quic`:
/// every peer entry asks for it; `mixed`: the first node asks for it, on every second network.
pub const TRANSPORT_ENV: &str = "NETFT_TRANSPORT";

/// The transport line of a network entry, or of a peer entry, at a node.
fn transport_line(network: Option<usize>, node: usize) -> &'static str {
    match (std::env::var(TRANSPORT_ENV).as_deref(), network) {
        (Ok("quic"), None) => "transport = \"quic\"\n",
        (Ok("mixed"), Some(network)) if node == 0 && network % 2 == 0 => "transport = \"quic\"\n",
        _ => "",
    }
}

/// Paths of the daemon and of the operator's command.
#[derive(Clone, Debug)]
pub struct ProgramPaths {
    daemon: (PathBuf, Vec<OsString>),
    operator: PathBuf,
}

impl ProgramPaths {
    /// The two binaries at these paths.
    pub fn new(daemon: impl Into<PathBuf>, operator: impl Into<PathBuf>) -> Self {
        Self { daemon: (daemon.into(), Vec::new()), operator: operator.into() }
    }

    /// The running `netft`, which is also a daemon when called as `netft __daemon`.
    pub fn current_program() -> Self {
        let own = PathBuf::from("/proc/self/exe");
        Self { daemon: (own.clone(), vec!["__daemon".into()]), operator: own }
    }
}

/// Config of a site's nodes beyond names, keys, networks and addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct SiteSettings<'a> {
    /// The nodes' physical addresses are IPv6.
    pub ipv6: bool,
    /// Configs list the addresses on this many networks and no networks; 0: everything.
    pub listed_networks: usize,
    /// TOML tables for every node.
    pub common: &'a str,
    /// TOML tables per node; missing ones are empty.
    pub per_node: &'a [&'a str],
}

/// The nodes of a [`Lab`], each with a key and a config with the others as peers.
#[derive(Debug)]
pub struct Site {
    scratch: ScratchDir,
    programs: ProgramPaths,
    nodes: Vec<SiteNode>,
}

#[derive(Debug)]
struct SiteNode {
    name: String,
    folder: PathBuf,
    public_key: String,
    addrs: VirtualAddrs,
}

impl Site {
    /// Generates keys and writes configs: nodes are named `a`, `b`, …, network n has metric
    /// 1000 + 100 n, so that network 0 is preferred.
    ///
    /// # Errors
    /// When a file cannot be written, or `netft keygen` fails.
    pub fn new(
        lab: &Lab,
        programs: ProgramPaths,
        settings: SiteSettings<'_>,
    ) -> Result<Self, LabError> {
        let scratch = ScratchDir::new("lab")?;
        let mut members = Vec::new();
        for node in 0..lab.node_count() {
            let name = char::from(b'a' + u8::try_from(node % 26).unwrap_or(0)).to_string();
            let folder = scratch.path().join(&name);
            std::fs::create_dir(&folder).map_err(LabError::io_error("make a folder"))?;
            let public = generate_key(&programs, &folder.join("key"))?;
            let addrs = VirtualAddrs::derive_from_key(&parse_key(&public)?);
            members.push(SiteNode { name, folder, public_key: public, addrs });
        }
        let site = Self { scratch, programs, nodes: members };
        for node in 0..lab.node_count() {
            site.write_config(lab, node, settings)?;
        }
        Ok(site)
    }

    fn write_config(
        &self,
        lab: &Lab,
        node: usize,
        settings: SiteSettings<'_>,
    ) -> Result<(), LabError> {
        let mut text = String::new();
        let name = &self.nodes[node].name;
        let each = settings.per_node.get(node).copied().unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "[node]\nname = \"{name}\"\nkey = \"key\"\n");
        let _ = writeln!(text, "{}\n{each}\n", settings.common);
        let listed = if settings.listed_networks == 0 { lab.network_count() } else { 0 };
        for network in 0..listed {
            let prefix = lab.subnet_prefix(network, node, settings.ipv6);
            let metric = 1000 + 100 * network;
            let _ = writeln!(text, "[[network]]\nprefix = \"{prefix}\"\nmetric = {metric}");
            let _ = writeln!(text, "{}", transport_line(Some(network), node));
        }
        for (other, peer) in self.nodes.iter().enumerate().filter(|(other, _)| *other != node) {
            let known = if settings.listed_networks == 0 {
                lab.network_count()
            } else {
                settings.listed_networks
            };
            let addresses: Vec<String> = (0..known)
                .map(|network| format!("\"{}\"", lab.node_address(network, other, settings.ipv6)))
                .collect();
            let SiteNode { name, public_key: public, .. } = peer;
            let addresses = addresses.join(", ");
            let _ = writeln!(
                text,
                "[[peer]]\nname = \"{name}\"\nkey = \"{public}\"\naddresses = [{addresses}]\n{}",
                transport_line(None, node)
            );
        }
        std::fs::write(self.config_path(node), text).map_err(LabError::io_error("write a config"))
    }

    /// Path of a node's config.
    pub fn config_path(&self, node: usize) -> PathBuf {
        self.nodes[node].folder.join("netft.toml")
    }

    /// Directory of the lock and the socket of a node's daemon.
    pub fn runtime_dir(&self, node: usize) -> PathBuf {
        self.nodes[node].folder.join("run")
    }

    /// A node's name.
    pub fn name(&self, node: usize) -> &str {
        &self.nodes[node].name
    }

    /// A node's virtual addresses.
    pub fn virtual_addrs(&self, node: usize) -> VirtualAddrs {
        self.nodes[node].addrs
    }

    /// A node's virtual address as a socket address with port 0, as seen in its own namespace.
    ///
    /// # Errors
    /// For IPv6, when the node has no adapter: a link-local address needs its index.
    pub fn virtual_endpoint(
        &self,
        lab: &Lab,
        node: usize,
        ipv6: bool,
    ) -> Result<SocketAddr, LabError> {
        let addrs = self.virtual_addrs(node);
        if !ipv6 {
            return Ok((addrs.v4, 0).into());
        }
        let scope = lab.node_netns(node).run_netlink("find the adapter", |netlink| async move {
            interface_index(&netlink, ADAPTER_NAME).await
        })?;
        Ok(SocketAddrV6::new(addrs.v6, 0, 0, scope).into())
    }

    /// Replaces the key of `peer` in `node`'s config by another one.
    ///
    /// # Errors
    /// When the config cannot be rewritten.
    pub fn replace_peer_key(&self, node: usize, peer: usize) -> Result<(), LabError> {
        let other = generate_key(&self.programs, &self.scratch.path().join("other"))?;
        let failed = || LabError::io_error("rewrite a config");
        let text = std::fs::read_to_string(self.config_path(node)).map_err(failed())?;
        let text = text.replace(&self.nodes[peer].public_key, &other);
        std::fs::write(self.config_path(node), text).map_err(failed())
    }

    /// Starts a node's daemon. It is killed when the value, or the calling thread, ends.
    ///
    /// # Errors
    /// When it cannot be started at all.
    pub fn start_daemon(&self, lab: &Lab, node: usize) -> Result<Daemon, LabError> {
        self.start_daemon_with(lab, node, &[])
    }

    /// The same with more arguments on its command line.
    ///
    /// # Errors
    /// As [`start_daemon`](Self::start_daemon).
    pub fn start_daemon_with(
        &self,
        lab: &Lab,
        node: usize,
        arguments: &[&str],
    ) -> Result<Daemon, LabError> {
        let mut command = self.daemon_command(lab, node)?;
        command.args(arguments);
        self.start_command(node, command)
    }

    /// Starts a node's daemon from another build.
    ///
    /// # Errors
    /// As [`start_daemon`](Self::start_daemon).
    pub fn start_program(
        &self,
        lab: &Lab,
        node: usize,
        programs: &ProgramPaths,
    ) -> Result<Daemon, LabError> {
        self.start_command(node, self.command_of(programs, lab, node)?)
    }

    /// Starts a node's daemon by a command of the caller's, which runs it in the end.
    ///
    /// # Errors
    /// As [`start_daemon`](Self::start_daemon).
    pub fn start_command(&self, node: usize, command: Command) -> Result<Daemon, LabError> {
        let log = self.nodes[node].folder.join("log");
        Daemon::spawn(command, &self.nodes[node].name, &self.runtime_dir(node), &log)
    }

    /// The daemon's command line for a node, to run inside it.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn daemon_command(&self, lab: &Lab, node: usize) -> Result<Command, LabError> {
        self.command_of(&self.programs, lab, node)
    }

    fn command_of(
        &self,
        programs: &ProgramPaths,
        lab: &Lab,
        node: usize,
    ) -> Result<Command, LabError> {
        let (program, first) = &programs.daemon;
        let mut command = lab.node_netns(node).command_inside(program)?;
        command.args(first).arg("--config").arg(self.config_path(node));
        command.arg("--runtime-dir").arg(self.runtime_dir(node));
        Ok(command)
    }

    /// The operator's command for a node, to run inside it.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn operator_command(&self, lab: &Lab, node: usize) -> Result<Command, LabError> {
        let mut command = lab.node_netns(node).command_inside(&self.programs.operator)?;
        command.arg("--runtime-dir").arg(self.runtime_dir(node));
        Ok(command)
    }

    /// Follows a node's events from the oldest in its buffer.
    ///
    /// # Errors
    /// When the operator's command cannot be started.
    pub fn follow_events(&self, lab: &Lab, node: usize) -> Result<EventFollower, LabError> {
        let mut command = self.operator_command(lab, node)?;
        command.args(["events", "-f", "--json"]);
        EventFollower::follow_command(command)
    }
}

fn generate_key(programs: &ProgramPaths, file: &std::path::Path) -> Result<String, LabError> {
    let output = Command::new(&programs.operator)
        .arg("keygen")
        .arg(file)
        .output()
        .map_err(LabError::io_error("run netft keygen"))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && !text.is_empty() {
        return Ok(text);
    }
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(LabError::Daemon(format!("netft keygen failed ({}): {message}", output.status)))
}

fn parse_key(text: &str) -> Result<NodeKey, LabError> {
    let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.map(NodeKey).ok_or_else(|| LabError::Daemon(format!("not a public key: {text}")))
}
