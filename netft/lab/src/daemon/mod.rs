//! Daemons inside the laboratory: keys and configs on disk, processes, and what they say.

mod control;
mod events;
mod process;

use std::{
    ffi::OsString,
    fmt::Write as _,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    path::PathBuf,
    process::Command,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
pub use control::{Route, get};
pub use events::{Event, Events};
use netft_proto::{NodeKey, ids::virtual_addrs::VirtualAddrs};
pub use process::Daemon;
pub(super) use process::print_logs;

use super::{Lab, LabError, Scratch, interface_index};

/// The adapter's name in every config written here.
pub const ADAPTER: &str = "netft0";

/// The carrier of every peer where no network says another, so that any kernel test also runs over
/// QUIC; `mixed`: only the first node asks for QUIC, on every other network from the first.
pub const CARRIER: &str = "NETFT_CARRIER";

/// The line for an entry of a peer, or of a network, at a node.
fn carrier(network: Option<usize>, node: usize) -> &'static str {
    match (std::env::var(CARRIER).as_deref(), network) {
        (Ok("quic"), None) => "carrier = \"quic\"\n",
        (Ok("mixed"), Some(network)) if node == 0 && network % 2 == 0 => "carrier = \"quic\"\n",
        _ => "",
    }
}

/// How to start the daemon and the operator's command.
#[derive(Clone, Debug)]
pub struct Programs {
    daemon: (PathBuf, Vec<OsString>),
    operator: PathBuf,
}

impl Programs {
    /// The two binaries at these paths.
    pub fn new(daemon: impl Into<PathBuf>, operator: impl Into<PathBuf>) -> Self {
        Self { daemon: (daemon.into(), Vec::new()), operator: operator.into() }
    }

    /// The running `netft`, which is also a daemon when called as `netft __daemon`.
    pub fn own() -> Self {
        let own = PathBuf::from("/proc/self/exe");
        Self { daemon: (own.clone(), vec!["__daemon".into()]), operator: own }
    }
}

/// What a site's configs say beyond names, keys, networks and addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings<'a> {
    /// The nodes' physical addresses are IPv6.
    pub six: bool,
    /// Only the addresses on this many networks are in the configs, and no networks; 0: all are.
    pub known: usize,
    /// TOML tables for every node.
    pub common: &'a str,
    /// TOML tables per node, by place; missing ones are empty.
    pub each: &'a [&'a str],
}

/// The nodes of a [`Lab`], each with a key and a config that names the others.
#[derive(Debug)]
pub struct Site {
    scratch: Scratch,
    programs: Programs,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    name: String,
    folder: PathBuf,
    public: String,
    addrs: VirtualAddrs,
}

impl Site {
    /// Makes keys and writes configs: nodes are named `a`, `b`, …, network n has metric
    /// 1000 + 100 n, so that network 0 is preferred.
    ///
    /// # Errors
    /// When a file cannot be written, or `netft keygen` fails.
    pub fn new(lab: &Lab, programs: Programs, settings: Settings<'_>) -> Result<Self, LabError> {
        let scratch = Scratch::new("lab")?;
        let mut members = Vec::new();
        for node in 0..lab.nodes() {
            let name = char::from(b'a' + u8::try_from(node % 26).unwrap_or(0)).to_string();
            let folder = scratch.path().join(&name);
            std::fs::create_dir(&folder).map_err(LabError::io("make a folder"))?;
            let public = keygen(&programs, &folder.join("key"))?;
            let addrs = VirtualAddrs::derive(&parse_key(&public)?);
            members.push(Member { name, folder, public, addrs });
        }
        let site = Self { scratch, programs, members };
        for node in 0..lab.nodes() {
            site.write_config(lab, node, settings)?;
        }
        Ok(site)
    }

    fn write_config(&self, lab: &Lab, node: usize, settings: Settings<'_>) -> Result<(), LabError> {
        let mut text = String::new();
        let name = &self.members[node].name;
        let each = settings.each.get(node).copied().unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "[node]\nname = \"{name}\"\nkey = \"key\"\n");
        let _ = writeln!(text, "{}\n{each}\n", settings.common);
        let listed = if settings.known == 0 { lab.networks() } else { 0 };
        for network in 0..listed {
            let prefix = lab.prefix(network, node, settings.six);
            let metric = 1000 + 100 * network;
            let _ = writeln!(text, "[[network]]\nprefix = \"{prefix}\"\nmetric = {metric}");
            let _ = writeln!(text, "{}", carrier(Some(network), node));
        }
        for (other, peer) in self.members.iter().enumerate().filter(|(other, _)| *other != node) {
            let known = if settings.known == 0 { lab.networks() } else { settings.known };
            let addresses: Vec<String> = (0..known)
                .map(|network| format!("\"{}\"", lab.address(network, other, settings.six)))
                .collect();
            let Member { name, public, .. } = peer;
            let addresses = addresses.join(", ");
            let _ = writeln!(
                text,
                "[[peer]]\nname = \"{name}\"\nkey = \"{public}\"\naddresses = [{addresses}]\n{}",
                carrier(None, node)
            );
        }
        std::fs::write(self.config(node), text).map_err(LabError::io("write a config"))
    }

    /// Where a node's config is.
    pub fn config(&self, node: usize) -> PathBuf {
        self.members[node].folder.join("netft.toml")
    }

    /// Where a node's daemon keeps its lock and its socket.
    pub fn runtime_dir(&self, node: usize) -> PathBuf {
        self.members[node].folder.join("run")
    }

    /// A node's name.
    pub fn name(&self, node: usize) -> &str {
        &self.members[node].name
    }

    /// A node's virtual addresses.
    pub fn addrs(&self, node: usize) -> VirtualAddrs {
        self.members[node].addrs
    }

    /// A node's virtual address as a socket address with port 0, as seen in its own namespace.
    ///
    /// # Errors
    /// For IPv6, when the node has no adapter: a link-local address needs its number.
    pub fn endpoint(&self, lab: &Lab, node: usize, six: bool) -> Result<SocketAddr, LabError> {
        let addrs = self.addrs(node);
        if !six {
            return Ok((addrs.v4, 0).into());
        }
        let scope = lab.node(node).netlink("find the adapter", |netlink| async move {
            interface_index(&netlink, ADAPTER).await
        })?;
        Ok(SocketAddrV6::new(addrs.v6, 0, 0, scope).into())
    }

    /// Puts another public key where `node` expects the key of `peer`.
    ///
    /// # Errors
    /// When the config cannot be rewritten.
    pub fn distrust(&self, node: usize, peer: usize) -> Result<(), LabError> {
        let stranger = keygen(&self.programs, &self.scratch.path().join("stranger"))?;
        let failed = || LabError::io("rewrite a config");
        let text = std::fs::read_to_string(self.config(node)).map_err(failed())?;
        let text = text.replace(&self.members[peer].public, &stranger);
        std::fs::write(self.config(node), text).map_err(failed())
    }

    /// Starts a node's daemon. It is killed when the value, or the calling thread, ends.
    ///
    /// # Errors
    /// When it cannot be started at all.
    pub fn start(&self, lab: &Lab, node: usize) -> Result<Daemon, LabError> {
        let command = self.daemon(lab, node)?;
        let log = self.members[node].folder.join("log");
        Daemon::spawn(command, &self.members[node].name, &self.runtime_dir(node), &log)
    }

    /// The daemon's command line for a node, to run inside it.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn daemon(&self, lab: &Lab, node: usize) -> Result<Command, LabError> {
        let (program, first) = &self.programs.daemon;
        let mut command = lab.node(node).command(program)?;
        command.args(first).arg("--config").arg(self.config(node));
        command.arg("--runtime-dir").arg(self.runtime_dir(node));
        Ok(command)
    }

    /// The operator's command for a node, to run inside it.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn operator(&self, lab: &Lab, node: usize) -> Result<Command, LabError> {
        let mut command = lab.node(node).command(&self.programs.operator)?;
        command.arg("--runtime-dir").arg(self.runtime_dir(node));
        Ok(command)
    }

    /// Follows a node's events from the oldest it remembers.
    ///
    /// # Errors
    /// When the operator's command cannot be started.
    pub fn events(&self, lab: &Lab, node: usize) -> Result<Events, LabError> {
        let mut command = self.operator(lab, node)?;
        command.args(["events", "-f", "--json"]);
        Events::follow(command)
    }
}

impl Lab {
    /// A node's address on a network, of either family.
    pub fn address(&self, network: usize, node: usize, six: bool) -> IpAddr {
        if six { self.v6(network, node).into() } else { self.v4(network, node).into() }
    }

    /// The prefix of a node's subnet on a network.
    fn prefix(&self, network: usize, node: usize, six: bool) -> String {
        let address = self.address(network, node, six);
        let net = ipnet::IpNet::new(address, if six { 64 } else { 24 });
        net.expect("64 and 24 are in range").trunc().to_string()
    }

    /// The network a node's address belongs to.
    pub fn network_of(&self, node: usize, address: IpAddr) -> Option<usize> {
        (0..self.networks()).find(|n| self.v4(*n, node) == address || self.v6(*n, node) == address)
    }
}

fn keygen(programs: &Programs, file: &std::path::Path) -> Result<String, LabError> {
    let output = Command::new(&programs.operator)
        .arg("keygen")
        .arg(file)
        .output()
        .map_err(LabError::io("run netft keygen"))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && !text.is_empty() {
        return Ok(text);
    }
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(LabError::Daemon(format!("netft keygen failed ({}): {complaint}", output.status)))
}

fn parse_key(text: &str) -> Result<NodeKey, LabError> {
    let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.map(NodeKey).ok_or_else(|| LabError::Daemon(format!("not a public key: {text}")))
}
