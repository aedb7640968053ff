//! Gathers facts from the kernel, the firewall and the daemon. The only I/O of the validation.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Command,
};

use netft::{
    api::{
        host,
        host::{PacketFilterState, StackedLink},
    },
    config::Config,
    topology,
    topology::{ResolvedAddresses, SourceAddresses},
};
use serde_json::Value;

use super::bounded;
use crate::control::schema::{
    EventDetail, Network, OverrideView, PeerValidation, PeerView, RouteView,
};

/// Facts of a node.
#[derive(Debug)]
pub struct NodeFacts {
    /// Its configuration.
    pub config: Config,
    /// Its interfaces.
    pub links: Vec<StackedLink>,
    /// The kernel's source addresses towards remotes outside its subnets.
    pub sources: SourceAddresses,
    /// The packet filter from `nft -j list ruleset`, or the error.
    pub ruleset: Result<Value, String>,
    /// The tables that close the adapter's addresses to the physical networks; `None` if they
    /// cannot be read.
    pub packet_filter: Option<PacketFilterState>,
    /// Virtual addresses of peers whose packets would leave by another interface than the adapter,
    /// with the name of that interface; empty without an adapter.
    pub drawn_away: Vec<(IpAddr, String)>,
    /// The interfaces with a strict reverse path filter.
    pub strict_rp_filter: BTreeSet<String>,
    /// The interfaces that answer ARP for other interfaces' addresses, or ask with them.
    pub mixed_arp: BTreeSet<String>,
    /// The adapter forwards IPv4.
    pub forwarding: bool,
    /// The clock is synchronised; `None` if the kernel does not say.
    pub is_clock_synchronised: Option<bool>,
    /// Receive buffer granted to a socket, and the size asked for, bytes.
    pub receive_buffer: Option<(u64, u64)>,
    /// The UDP sockets of this node on its port.
    pub bound_sockets: Vec<SocketAddr>,
    /// State of its daemon; `None` if none runs.
    pub daemon: Option<DaemonFacts>,
}

/// State of a daemon.
#[derive(Clone, Debug, Default)]
pub struct DaemonFacts {
    /// Its routes.
    pub routes: Vec<RouteView>,
    /// Recent events.
    pub events: Vec<EventDetail>,
    /// Its peers, with their sessions.
    pub sessions: Vec<PeerView>,
    /// The networks of all nodes.
    pub networks: Vec<Network>,
    /// Changes a reload would make.
    pub pending_changes: Vec<String>,
    /// Why a reload would be refused.
    pub reload_refused: Option<String>,
    /// Datagrams dropped in full socket buffers.
    pub socket_overflow: u64,
    /// An operator's overrides.
    pub overrides: Vec<OverrideView>,
    /// Why they will not survive a restart.
    pub overrides_unsaved: Option<String>,
    /// The peers' findings on themselves; empty if they were not queried.
    pub peers: Vec<PeerValidation>,
}

impl NodeFacts {
    /// Gathers the facts. What cannot be read is left out and not reported.
    ///
    /// # Errors
    /// The interfaces cannot be listed.
    pub fn gather_facts(config: Config, daemon: Option<DaemonFacts>) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let (links, sources) = runtime.block_on(read_links(&config))?;
        let drawn_away = runtime.block_on(read_ways(&config, &links));
        let packet_filter = runtime.block_on(host::packet_filter_state(&config.adapter.name));
        let names = links.iter().map(|link| &link.interface.name);
        let strict = names.clone().filter(|name| is_strict(name)).cloned().collect();
        let mixed_arp = names.filter(|name| has_mixed_arp(name)).cloned().collect();
        let (adapter, port) = (config.adapter.name.clone(), config.session.port);
        let forwarding =
            ipv4_setting(&adapter, "forwarding").or_else(|| ipv4_setting("all", "forwarding"));
        Ok(Self {
            config,
            links,
            sources,
            ruleset: read_ruleset(),
            packet_filter,
            drawn_away,
            strict_rp_filter: strict,
            mixed_arp,
            forwarding: forwarding.is_some_and(|value| value != 0),
            is_clock_synchronised: host::is_synchronised(),
            receive_buffer: host::receive_buffer_sizes(),
            bound_sockets: bound_sockets(port),
            daemon,
        })
    }
}

async fn read_links(config: &Config) -> Result<(Vec<StackedLink>, SourceAddresses), String> {
    let links = host::list_links().await.map_err(|error| error.to_string())?;
    let interfaces: Vec<_> = links.iter().map(|link| link.interface.clone()).collect();
    let remotes = topology::off_subnet_remotes(config, &interfaces, &ResolvedAddresses::new());
    let sources = host::source_addresses(remotes).await.map_err(|error| error.to_string())?;
    Ok((links, sources))
}

async fn read_ways(config: &Config, links: &[StackedLink]) -> Vec<(IpAddr, String)> {
    let find_link = |is: &dyn Fn(&StackedLink) -> bool| links.iter().find(|link| is(link));
    let Some(adapter) = find_link(&|link| link.interface.name == config.adapter.name) else {
        return Vec::new();
    };
    let addrs = config.peers.iter().flat_map(|peer| {
        let both: [IpAddr; 2] = [peer.addrs.v4.into(), peer.addrs.v6.into()];
        both
    });
    let ways = host::source_addresses(addrs).await.unwrap_or_default();
    let away = ways.into_iter().filter(|(_, (_, out))| *out != adapter.interface.index);
    away.map(|(addr, (_, out))| {
        let link = find_link(&|link| link.interface.index == out);
        (addr, link.map_or_else(|| format!("interface {out}"), |link| link.interface.name.clone()))
    })
    .collect()
}

fn ipv4_setting(interface: &str, key: &str) -> Option<u32> {
    let path = format!("/proc/sys/net/ipv4/conf/{interface}/{key}");
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The kernel takes the larger of both settings (ip-sysctl).
fn is_strict(interface: &str) -> bool {
    ipv4_setting(interface, "rp_filter").max(ipv4_setting("all", "rp_filter")) == Some(1)
}

/// Values below those that separate interfaces on one subnet (ip-sysctl).
fn has_mixed_arp(interface: &str) -> bool {
    host::ARP_SETTINGS.iter().any(|(key, least)| {
        ipv4_setting(interface, key).max(ipv4_setting("all", key)).is_some_and(|it| it < *least)
    })
}

fn read_ruleset() -> Result<Value, String> {
    let mut nft = Command::new("nft");
    let output = bounded::run_command(nft.args(["-j", "list", "ruleset"]));
    let output = output.map_err(|error| format!("cannot run nft ({error})"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("nft failed ({})", text.lines().next().unwrap_or_default()));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("nft printed malformed JSON ({error})"))
}

fn bound_sockets(port: u16) -> Vec<SocketAddr> {
    let tables = ["/proc/net/udp", "/proc/net/udp6"].map(fs::read_to_string);
    let rows = tables.iter().flatten().flat_map(|table| table.lines().skip(1));
    rows.filter_map(parse_local_addr).filter(|address| address.port() == port).collect()
}

/// Local address of a row of `/proc/net/udp`: address words in native byte order.
fn parse_local_addr(row: &str) -> Option<SocketAddr> {
    let (addr, port) = row.split_whitespace().nth(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut words = [0u8; 16];
    let count = addr.len() / 8;
    for (place, chunk) in words.chunks_exact_mut(4).take(count).enumerate() {
        let text = addr.get(8 * place..8 * place + 8)?;
        chunk.copy_from_slice(&u32::from_str_radix(text, 16).ok()?.to_ne_bytes());
    }
    let ip: IpAddr = match count {
        1 => Ipv4Addr::new(words[0], words[1], words[2], words[3]).into(),
        4 => Ipv6Addr::from(words).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn rows_of_the_kernels_tables_are_read() {
        let row = "  42: 0100007F:0D0F 00000000:0000 07 00000000:00000000 00:00000000";
        assert_eq!(parse_local_addr(row), Some("127.0.0.1:3343".parse().unwrap()));
        let row = "  42: 000080FE000000000000000001000000:0D0F 00:0 07";
        assert_eq!(parse_local_addr(row), Some("[fe80::1]:3343".parse().unwrap()));
        for row in ["", "sl local_address", "1: 0100007F 2", "1: 0100:0D0F 2", "1: zz00007F:1 2"] {
            assert_eq!(parse_local_addr(row), None, "{row}");
        }
    }
}
