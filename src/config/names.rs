//! The texts a config may hold: names, addresses, prefixes, words. Pure; every function says why
//! a text is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netft::{
    config::{AdapterBackend, ExcludeRule, HostName, NetworkRole},
    route::Transport,
};

/// The range of derived IPv4 addresses.
pub(super) fn link_local_v4() -> IpNet {
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16).into()
}

/// The range of derived IPv6 addresses.
pub(super) fn link_local_v6() -> IpNet {
    Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10).into()
}

/// Whether a cloud's metadata service answers there.
pub(super) fn is_metadata(addr: IpAddr) -> bool {
    const METADATA_V4: [Ipv4Addr; 3] = [
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::new(169, 254, 169, 253),
        Ipv4Addr::new(169, 254, 170, 2),
    ];
    const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match addr {
        IpAddr::V4(v4) => METADATA_V4.contains(&v4),
        IpAddr::V6(v6) => v6 == METADATA_V6,
    }
}

/// A node's name: it stands in logs, output and other nodes' configs.
pub fn node_name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match text {
        "" => Err("it is empty".to_owned()),
        _ if text.len() > 64 => Err(format!("it is {} bytes long, 64 are allowed", text.len())),
        _ => match text.chars().find(|c| !allowed(*c)) {
            Some(c) => Err(format!("{c:?} is not allowed")),
            None => Ok(text.to_owned()),
        },
    }
}

/// What [`node_name`] takes.
pub(super) const NODE_NAME_SYNTAX: &str = "a name of 1 to 64 letters, digits, `.`, `_` or `-`";

/// An interface name the kernel takes as it is, and nothing else means.
pub fn adapter_name(text: &str) -> Result<String, String> {
    // The kernel numbers a name with %d in it, refuses '/' and spaces, and ':' is for aliases.
    let refused = |c: char| !c.is_ascii_graphic() || matches!(c, '/' | '%' | ':');
    match text {
        "" => Err("it is empty".to_owned()),
        "." | ".." | "lo" | "all" | "default" => Err("the kernel uses this name".to_owned()),
        _ if text.len() > 15 => {
            Err(format!("it is {} bytes long, the kernel allows 15", text.len()))
        }
        _ => match text.chars().find(|c| refused(*c)) {
            Some(c) => Err(format!("{c:?} is not allowed")),
            None => Ok(text.to_owned()),
        },
    }
}

/// What [`adapter_name`] takes.
pub(super) const ADAPTER_NAME_SYNTAX: &str =
    "an interface name of 1 to 15 printable ASCII characters without `/`, `%` and `:`";

pub(super) fn parse_backend(text: &str) -> Result<AdapterBackend, String> {
    match text {
        "offload" => Ok(AdapterBackend::Offload),
        "plain" => Ok(AdapterBackend::Plain),
        _ => Err("not one of the two".to_owned()),
    }
}

/// Whether the profile is NetFT's.
pub(super) fn parse_profile(text: &str) -> Result<bool, String> {
    match text {
        "default" => Ok(false),
        "windows" => Ok(true),
        _ => Err("not one of the two".to_owned()),
    }
}

pub(super) fn parse_role(text: &str) -> Result<NetworkRole, String> {
    match text {
        "none" => Ok(NetworkRole::None),
        "cluster" => Ok(NetworkRole::Cluster),
        "cluster-and-client" => Ok(NetworkRole::ClusterAndClient),
        _ => Err("not one of the three".to_owned()),
    }
}

pub(super) fn parse_transport(text: &str) -> Result<Transport, String> {
    match text {
        "udp" => Ok(Transport::Udp),
        "quic" => Ok(Transport::Quic),
        _ => Err("not one of the two".to_owned()),
    }
}

/// What [`parse_transport`] takes.
pub(super) const TRANSPORT_SYNTAX: &str = "`udp` or `quic`";

pub(super) fn parse_prefix(text: &str) -> Result<IpNet, String> {
    let net: IpNet =
        text.parse().map_err(|_| "an address, `/`, and a length are needed".to_owned())?;
    if net.prefix_len() == 0 {
        Err("every address is inside this one".to_owned())
    } else if net.trunc() == net {
        Ok(net)
    } else {
        Err(format!("bits are set behind the prefix: did you mean `{}`?", net.trunc()))
    }
}

/// What [`parse_prefix`] takes.
pub(super) const PREFIX_SYNTAX: &str = "a prefix such as `10.1.0.0/24` or `fd01::/64`";

/// What is never used: an interface's name, perhaps with `*` at its end, or a prefix.
pub(super) fn parse_exclude(text: &str) -> Result<ExcludeRule, String> {
    if text.contains('/') {
        return parse_prefix(text).map(ExcludeRule::Prefix);
    }
    let name = text.strip_suffix('*').unwrap_or(text);
    if name.contains('*') {
        return Err("`*` may only stand at the end".to_owned());
    }
    adapter_name(if name.is_empty() { text } else { name })?;
    Ok(ExcludeRule::Interface(text.to_owned()))
}

pub(super) const EXCLUDE_SYNTAX: &str =
    "an interface name such as `wlan0` or `veth*`, or a prefix such as `10.9.0.0/16`";

/// A physical address.
pub(super) fn parse_address(text: &str) -> Result<IpAddr, String> {
    let addr = text
        .parse()
        .map_err(|_| "this is no IP address; a name may stand in a peer's `addresses`")?;
    require_unicast(addr)
}

/// What [`parse_address`] takes.
pub(super) const ADDRESS_SYNTAX: &str = "an address such as `10.1.0.2` or `fd01::2`";

/// A physical address, or a name of some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HostOrEndpoint {
    Address(SocketAddr),
    Name(HostName),
}

/// A physical address or a name, with or without a port.
pub(super) fn parse_host_or_endpoint(text: &str, port: u16) -> Result<HostOrEndpoint, String> {
    if text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok() {
        return parse_endpoint(text, port).map(HostOrEndpoint::Address);
    }
    let (host, port) = match text.rsplit_once(':') {
        None => (text, port),
        Some((host, port)) => match port.parse() {
            Ok(0) => return Err("port 0 cannot be sent to".to_owned()),
            Ok(port) => (host, port),
            Err(_) => return Err(format!("{port:?} is no port")),
        },
    };
    check_host_name(host)?;
    Ok(HostOrEndpoint::Name(HostName { host: host.to_owned(), port }))
}

/// Whether a name can be looked up (RFC 1123 section 2.1): the last of its labels is no number, so
/// that an address with a slip in it is none.
fn check_host_name(text: &str) -> Result<(), String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) || !name.split('.').all(label) {
        return Err("this is no IP address and no host name".to_owned());
    }
    if name.len() > 253 {
        return Err(format!("it is {} bytes long, 253 are allowed", name.len()));
    }
    match name {
        "localhost" => Err("this is the node itself".to_owned()),
        _ => Ok(()),
    }
}

/// What [`parse_host_or_endpoint`] takes.
pub(super) const HOST_OR_ENDPOINT_SYNTAX: &str = "an address such as `10.1.0.2`, \
     `10.1.0.2:3343`, `fd01::2` or `[fd01::2]:3343`, or a name such as `b.example.net` or \
     `b.example.net:3343`";

/// A physical address with or without a port.
pub(super) fn parse_endpoint(text: &str, port: u16) -> Result<SocketAddr, String> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(require_unicast(addr)?, port));
    }
    match text.parse::<SocketAddr>() {
        Ok(addr) if addr.port() == 0 => Err("port 0 cannot be sent to".to_owned()),
        Ok(addr) => Ok(SocketAddr::new(require_unicast(addr.ip())?, addr.port())),
        Err(_) => {
            Err("this is no IP address with a port; a name may stand in `addresses`".to_owned())
        }
    }
}

/// What [`parse_endpoint`] takes.
pub(super) const ENDPOINT_SYNTAX: &str =
    "an address such as `10.1.0.2`, `10.1.0.2:3343`, `fd01::2` or `[fd01::2]:3343`";

fn require_unicast(addr: IpAddr) -> Result<IpAddr, String> {
    let why = match addr {
        _ if addr.is_unspecified() => "this is no node's address",
        _ if addr.is_multicast() => "this is a multicast address",
        _ if addr.is_loopback() => "this is a loopback address",
        _ if is_metadata(addr) => "a cloud's metadata service answers there",
        IpAddr::V4(v4) if v4.is_broadcast() => "this is the broadcast address",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "write the IPv4 address itself",
        _ => return Ok(addr),
    };
    Err(why.to_owned())
}
